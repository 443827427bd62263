//! How each database says what the model's statements mean, and where it does otherwise than the others.

use super::statement::Verb;
use super::world::{Column, Form, Row, Table, Type, Value};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    #[default]
    Sqlite,
    Postgres,
}

impl Dialect {
    /// The kinds of values that columns may have.
    pub fn types(self) -> &'static [Type] {
        const ALL: [Type; 5] = [Type::Any, Type::Integer, Type::Real, Type::Text, Type::Blob];
        match self {
            Dialect::Sqlite => &ALL,
            Dialect::Postgres => &ALL[1..],
        }
    }

    /// Foreign keys hold while a script runs.
    pub fn enforces(self) -> bool {
        self == Dialect::Postgres
    }

    /// Rows without a key have a number of the database's own, which others may change. Else the number is a column like
    /// any other, and such a row is known by all that it holds.
    pub fn numbers_rows(self) -> bool {
        self == Dialect::Sqlite
    }

    /// Rows that others wrote to a table that was built anew are carried over to the old one, and back.
    pub fn carries_rows(self) -> bool {
        self == Dialect::Sqlite
    }

    /// An undo remembers which rows others had taken away before it.
    pub fn remembers_rows(self) -> bool {
        self == Dialect::Sqlite
    }

    /// An index goes with a column that it is on. Else it keeps the column there.
    pub fn indexes_go_with_columns(self) -> bool {
        self == Dialect::Postgres
    }

    /// The number of a row without a key.
    pub fn row_number(self) -> &'static str {
        match self {
            Dialect::Sqlite => "rowid",
            Dialect::Postgres => "r",
        }
    }

    pub fn value(self, value: &Value) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match (value, self) {
            (Value::Null, _) => "NULL".to_owned(),
            (Value::Integer(number), _) => number.to_string(),
            (Value::Real(bits), _) => format!("{:?}", f64::from_bits(*bits)),
            (Value::Text(text), _) => format!("'{}'", text.replace('\'', "''")),
            (Value::Blob(bytes), Dialect::Sqlite) => format!("x'{}'", hex(bytes)),
            (Value::Blob(bytes), Dialect::Postgres) => format!("'\\x{}'::bytea", hex(bytes)),
        }
    }

    pub fn truth(self, so: bool) -> &'static str {
        match (self, so) {
            (Dialect::Sqlite, true) => "1",
            (Dialect::Sqlite, false) => "0",
            (Dialect::Postgres, true) => "true",
            (Dialect::Postgres, false) => "false",
        }
    }

    /// The comparison for which NULL is like NULL.
    pub fn is(self) -> &'static str {
        match self {
            Dialect::Sqlite => "IS",
            Dialect::Postgres => "IS NOT DISTINCT FROM",
        }
    }

    /// The table whose check no row fulfils.
    pub fn never(self) -> &'static str {
        match self {
            Dialect::Sqlite => "CREATE TABLE never (n CHECK (n IS NULL AND n IS NOT NULL));",
            Dialect::Postgres => "CREATE TABLE never (n bigint CHECK (n = 0 AND n <> 0));",
        }
    }

    fn kind(self, kind: Type) -> &'static str {
        match (self, kind) {
            (_, Type::Any) => "",
            (Dialect::Sqlite, Type::Integer) => " INTEGER",
            (Dialect::Sqlite, Type::Real) => " REAL",
            (Dialect::Sqlite, Type::Text) => " TEXT",
            (Dialect::Sqlite, Type::Blob) => " BLOB",
            (Dialect::Postgres, Type::Integer) => " bigint",
            (Dialect::Postgres, Type::Real) => " double precision",
            (Dialect::Postgres, Type::Text) => " text",
            (Dialect::Postgres, Type::Blob) => " bytea",
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
            (Form::Loose, Dialect::Postgres) => &["r bigint"],
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
            (Dialect::Sqlite, Verb::Replace) => ("REPLACE", String::new()),
            (Dialect::Sqlite, Verb::Ignore) => ("INSERT OR IGNORE", String::new()),
            (Dialect::Postgres, Verb::Ignore) => ("INSERT", " ON CONFLICT DO NOTHING".to_owned()),
            (Dialect::Postgres, Verb::Replace) if table.form == Form::Loose => ("INSERT", String::new()),
            (Dialect::Postgres, Verb::Replace) => {
                let set: Vec<String> =
                    table.columns.iter().map(|column| format!("{0} = excluded.{0}", column.name)).collect();
                let keys = table.key_columns().join(", ");
                ("INSERT", format!(" ON CONFLICT ({keys}) DO UPDATE SET {}", set.join(", ")))
            }
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
