//! How each database says what the model's statements mean, and where it does otherwise than the others.

use super::statement::Verb;
use super::world::{Column, Form, Row, Table, Type, Value};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    #[default]
    Sqlite,
    Postgres,
    Mariadb,
}

impl Dialect {
    /// The kinds of values that columns may have.
    pub fn types(self) -> &'static [Type] {
        const ALL: [Type; 5] = [Type::Any, Type::Integer, Type::Real, Type::Text, Type::Blob];
        match self {
            Dialect::Sqlite => &ALL,
            Dialect::Postgres | Dialect::Mariadb => &ALL[1..],
        }
    }

    /// The forms of its tables.
    pub fn forms(self) -> &'static [Form] {
        &[Form::Integer, Form::Autoincrement, Form::Text, Form::Pair, Form::Loose]
    }

    /// Others write to it all the while that a history is played.
    pub fn is_server(self) -> bool {
        self != Dialect::Sqlite
    }

    /// Foreign keys hold while a script runs.
    pub fn enforces(self) -> bool {
        self.is_server()
    }

    /// A change of the schema can be undone for a look, so that what is in the way is found before anything is undone.
    pub fn looks_ahead(self) -> bool {
        self != Dialect::Mariadb
    }

    /// Rows without a key have a number of the database's own, which others may change. Else the number is a column like
    /// any other, and such a row is known by all that it holds.
    pub fn numbers_rows(self) -> bool {
        self == Dialect::Sqlite
    }

    /// A column of a table without a key can go: else the rows of its values could not be told apart.
    pub fn drops_columns_of_loose(self) -> bool {
        self != Dialect::Mariadb
    }

    /// Rows that others wrote to a table that was built anew are carried over to the old one, and back.
    pub fn carries_rows(self) -> bool {
        self == Dialect::Sqlite
    }

    /// An index goes with a column that it is on. Else it keeps the column there.
    pub fn indexes_go_with_columns(self) -> bool {
        self.is_server()
    }

    /// An index on a column that points at another table may stand in for the one that this needs.
    pub fn indexes_links(self) -> bool {
        self != Dialect::Mariadb
    }

    /// What others do to give free space back.
    pub fn vacuum(self) -> &'static str {
        match self {
            Dialect::Sqlite | Dialect::Postgres => "VACUUM",
            Dialect::Mariadb => "OPTIMIZE TABLE busy",
        }
    }

    /// The number of a row without a key.
    pub fn row_number(self) -> &'static str {
        match self {
            Dialect::Sqlite => "rowid",
            Dialect::Postgres | Dialect::Mariadb => "r",
        }
    }

    pub fn value(self, value: &Value) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match (value, self) {
            (Value::Null, _) => "NULL".to_owned(),
            (Value::Integer(number), _) => number.to_string(),
            (Value::Real(bits), _) => format!("{:?}", f64::from_bits(*bits)),
            (Value::Text(text), _) => format!("'{}'", text.replace('\'', "''")),
            (Value::Blob(bytes), Dialect::Sqlite | Dialect::Mariadb) => format!("x'{}'", hex(bytes)),
            (Value::Blob(bytes), Dialect::Postgres) => format!("'\\x{}'::bytea", hex(bytes)),
        }
    }

    pub fn truth(self, so: bool) -> &'static str {
        match (self, so) {
            (Dialect::Sqlite | Dialect::Mariadb, true) => "1",
            (Dialect::Sqlite | Dialect::Mariadb, false) => "0",
            (Dialect::Postgres, true) => "true",
            (Dialect::Postgres, false) => "false",
        }
    }

    /// The comparison for which NULL is like NULL.
    pub fn is(self) -> &'static str {
        match self {
            Dialect::Sqlite => "IS",
            Dialect::Postgres => "IS NOT DISTINCT FROM",
            Dialect::Mariadb => "<=>",
        }
    }

    /// The table whose check no row fulfils.
    pub fn never(self) -> &'static str {
        match self {
            Dialect::Sqlite => "CREATE TABLE never (n CHECK (n IS NULL AND n IS NOT NULL));",
            Dialect::Postgres | Dialect::Mariadb => {
                "CREATE TABLE never (n bigint PRIMARY KEY CHECK (n = 0 AND n <> 0));"
            }
        }
    }

    fn kind(self, kind: Type) -> &'static str {
        match (self, kind) {
            (_, Type::Any) => "",
            (Dialect::Sqlite, Type::Integer) => " INTEGER",
            (Dialect::Sqlite, Type::Real) => " REAL",
            (Dialect::Sqlite, Type::Text) => " TEXT",
            (Dialect::Sqlite, Type::Blob) => " BLOB",
            (Dialect::Postgres | Dialect::Mariadb, Type::Integer) => " bigint",
            (Dialect::Postgres, Type::Real) => " double precision",
            (Dialect::Postgres, Type::Text) => " text",
            (Dialect::Postgres, Type::Blob) => " bytea",
            (Dialect::Mariadb, Type::Real) => " double",
            (Dialect::Mariadb, Type::Text) => " varchar(60) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            (Dialect::Mariadb, Type::Blob) => " varbinary(60)",
        }
    }

    pub fn column(self, column: &Column) -> String {
        let default = column.default.as_ref().map(|value| format!(" DEFAULT {}", self.value(value)));
        let references = column.references.as_ref().map(|table| format!(" REFERENCES {table} (id)"));
        [
            column.name.as_str(),
            self.kind(column.kind),
            if column.not_null { " NOT NULL" } else { "" },
            if column.unique { " UNIQUE" } else { "" },
            &default.unwrap_or_default(),
            &references.unwrap_or_default(),
        ]
        .concat()
    }

    /// `CREATE TABLE` under a name.
    pub fn create(self, table: &Table, name: &str) -> String {
        let key: &[&str] = match (table.form, self) {
            (Form::Integer, Dialect::Sqlite) => &["id INTEGER PRIMARY KEY"],
            (Form::Autoincrement, Dialect::Sqlite) => &["id INTEGER PRIMARY KEY AUTOINCREMENT"],
            (Form::Text, Dialect::Sqlite) => &["k TEXT PRIMARY KEY"],
            (Form::Pair, Dialect::Sqlite) => &["a INTEGER", "b TEXT"],
            (Form::Loose, Dialect::Sqlite) => &[],
            (Form::Integer, Dialect::Postgres) => &["id bigint PRIMARY KEY"],
            (Form::Autoincrement, Dialect::Postgres) => &["id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"],
            (Form::Text, Dialect::Postgres) => &["k text PRIMARY KEY"],
            (Form::Pair, Dialect::Postgres) => &["a bigint", "b text"],
            (Form::Loose, Dialect::Postgres | Dialect::Mariadb) => &["r bigint"],
            (Form::Integer, Dialect::Mariadb) => &["id bigint PRIMARY KEY"],
            (Form::Autoincrement, Dialect::Mariadb) => &["id bigint PRIMARY KEY AUTO_INCREMENT"],
            (Form::Text, Dialect::Mariadb) => &["k varchar(60) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY"],
            (Form::Pair, Dialect::Mariadb) => &["a bigint", "b varchar(60) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"],
        };
        let mut parts: Vec<String> = key.iter().map(|&part| part.to_owned()).collect();
        parts.extend(table.columns.iter().map(|column| self.column(column)));
        if table.form == Form::Pair {
            parts.push("PRIMARY KEY (a, b)".to_owned());
        }
        if table.busy {
            parts.push("w bigint NOT NULL DEFAULT 0".to_owned());
        }
        let mut options = Vec::new();
        if table.form == Form::Pair && self == Dialect::Sqlite {
            options.push("WITHOUT ROWID");
        }
        if table.strict {
            options.push("STRICT");
        }
        format!("CREATE TABLE {name} ({}) {};", parts.join(", "), options.join(", "))
    }

    /// The words before and after an INSERT's rows.
    pub fn verb(self, table: &Table, verb: Verb) -> (&'static str, String) {
        match (self, verb) {
            (_, Verb::Insert) => ("INSERT", String::new()),
            (Dialect::Postgres | Dialect::Mariadb, Verb::Replace) if table.form == Form::Loose => {
                ("INSERT", String::new())
            }
            (Dialect::Sqlite, Verb::Replace) => ("REPLACE", String::new()),
            (Dialect::Sqlite, Verb::Ignore) => ("INSERT OR IGNORE", String::new()),
            (Dialect::Postgres, Verb::Ignore) => ("INSERT", " ON CONFLICT DO NOTHING".to_owned()),
            (Dialect::Mariadb, Verb::Ignore) => {
                let key = &table.key_columns()[0];
                ("INSERT", format!(" ON DUPLICATE KEY UPDATE {key} = {key}"))
            }
            // What points at a row keeps it from being replaced.
            (Dialect::Mariadb, Verb::Replace) if matches!(table.form, Form::Text | Form::Pair) => {
                ("REPLACE", String::new())
            }
            (Dialect::Mariadb, Verb::Replace) => {
                let set: Vec<String> =
                    table.columns.iter().map(|column| format!("{0} = VALUES({0})", column.name)).collect();
                ("INSERT", format!(" ON DUPLICATE KEY UPDATE {}", set.join(", ")))
            }
            (Dialect::Postgres, Verb::Replace) => {
                let set: Vec<String> =
                    table.columns.iter().map(|column| format!("{0} = excluded.{0}", column.name)).collect();
                let keys = table.key_columns().join(", ");
                ("INSERT", format!(" ON CONFLICT ({keys}) DO UPDATE SET {}", set.join(", ")))
            }
        }
    }

    /// The words after an INSERT that sets one column where the key is there already.
    pub fn upsert(self, keys: &str, column: &str) -> String {
        match self {
            Dialect::Sqlite | Dialect::Postgres => {
                format!(" ON CONFLICT ({keys}) DO UPDATE SET {column} = excluded.{column}")
            }
            Dialect::Mariadb => format!(" ON DUPLICATE KEY UPDATE {column} = VALUES({column})"),
        }
    }

    pub fn drop_index(self, name: &str, table: &str) -> String {
        match self {
            Dialect::Sqlite | Dialect::Postgres => format!("DROP INDEX {name}"),
            Dialect::Mariadb => format!("DROP INDEX {name} ON {table}"),
        }
    }

    /// What the contract says of a row that cannot be told apart but by all that it holds; none where it goes the usual way.
    pub fn whole_row(
        self,
        table: &Table,
        from: Option<&Row>,
        to: Option<&Row>,
        now: Option<&Row>,
    ) -> Option<&'static str> {
        if self.numbers_rows() || table.form != Form::Loose {
            return None;
        }
        match (from, to, now) {
            (Some(from), _, Some(now)) if from == now => None,
            (None, _, None) | (None, None, Some(_)) => None,
            (Some(from), Some(to), _) if from == to => None,
            (Some(_), _, None) => Some("cannot be told from one that others changed"),
            (Some(_), _, Some(_)) => Some("cannot be told from one that others deleted"),
            (None, Some(_), Some(_)) => Some("would be there twice"),
        }
    }
}
