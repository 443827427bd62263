//! What a table is, as far as its rows can be taken back: its columns, its key, and what else hangs on it.

use std::collections::BTreeSet;

use mysql::Error;
use serde::{Deserialize, Serialize};

use super::session::{Row, Session, ident, literal};

/// How values of a column are compared: byte for byte, whatever its collation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compared {
    /// Text and bytes.
    Bytes,
    /// ENUM and SET: by number, so that the empty value of an error is not an empty string.
    Number,
    /// FLOAT and DOUBLE: a negative zero is not a zero.
    Float,
    Plain,
}

/// A column as the holds have it. Generated columns have no image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// As the server writes it: `varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`.
    pub kind: String,
    pub compared: Compared,
    /// Shown to people in hex.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub binary: bool,
    /// ON UPDATE CURRENT_TIMESTAMP: changes by itself unless it is set.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moves: bool,
}

impl Column {
    /// TIME.
    pub fn is_time_of_day(&self) -> bool {
        self.kind.starts_with("time") && !self.kind.starts_with("timestamp")
    }

    /// An ENUM or SET with an empty label: its empty value of an error is the same as that for `=`, though not for a key.
    fn has_two_empties(&self) -> bool {
        self.compared == Compared::Number
            && ["('',", "('')", ",'',", ",'')"].iter().any(|label| self.kind.contains(label))
    }
}

/// A table whose rows are held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    /// What tells its rows apart: indexes into the columns. Of a loose table nothing does, see [`super::loose`].
    pub key: Vec<usize>,
}

/// A foreign key of which one table at least is of the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    pub name: String,
    /// The databases of child and parent, where that is another.
    #[serde(default)]
    pub elsewhere: [Option<String>; 2],
    pub child: String,
    pub columns: Vec<String>,
    pub parent: String,
    pub referenced: Vec<String>,
    pub on_delete: String,
    pub on_update: String,
}

impl ForeignKey {
    pub fn follows_deletes(&self) -> bool {
        matches!(self.on_delete.as_str(), "CASCADE" | "SET NULL" | "SET DEFAULT")
    }

    pub fn follows_updates(&self) -> bool {
        matches!(self.on_update.as_str(), "CASCADE" | "SET NULL" | "SET DEFAULT")
    }

    pub fn is_of(&self, table: &str) -> bool {
        self.child == table && self.elsewhere[0].is_none()
    }

    pub fn points_at(&self, table: &str) -> bool {
        self.parent == table && self.elsewhere[1].is_none()
    }

    /// The child in quotes.
    pub fn child_ident(&self) -> String {
        let database = self.elsewhere[0].iter().map(|database| format!("{}.", ident(database))).collect::<String>();
        format!("{database}{}", ident(&self.child))
    }
}

/// What kind of thing a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum There {
    Nothing,
    /// The engine's name.
    Table(String),
    View,
    Sequence,
    /// A versioned table: none that this tool handles yet.
    Other(String),
}

pub fn there(session: &mut Session, name: &str) -> Result<There, Error> {
    let sql = format!(
        "SELECT TABLE_TYPE, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}",
        literal(name)
    );
    Ok(match session.rows(&sql)?.pop() {
        None => There::Nothing,
        Some(row) => match row[0].as_deref().unwrap_or_default() {
            "BASE TABLE" => There::Table(row[1].clone().unwrap_or_default()),
            "VIEW" => There::View,
            "SEQUENCE" => There::Sequence,
            other => There::Other(other.to_lowercase()),
        },
    })
}

/// The tables of InnoDB that are the users'.
pub fn all(session: &mut Session) -> Result<Vec<String>, Error> {
    let rows = session.rows(
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE'
         AND ENGINE = 'InnoDB' AND TABLE_NAME NOT LIKE 'backout\\_%' ORDER BY 1",
    )?;
    Ok(rows.into_iter().filter_map(|mut row| row[0].take()).collect())
}

/// The names of everything that is called like a table.
pub fn all_names(session: &mut Session) -> Result<BTreeSet<String>, Error> {
    let rows = session.rows("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()")?;
    Ok(rows.into_iter().filter_map(|mut row| row[0].take()).collect())
}

impl Table {
    /// The table of that name; its key is the primary one, else a unique one that takes no NULL, by whole values.
    pub fn find(session: &mut Session, name: &str) -> Result<Self, Error> {
        let of = format!("TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}", literal(name));
        let rows = session.rows(&format!(
            "SELECT COLUMN_NAME, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, LOWER(DATA_TYPE), LOWER(EXTRA)
             FROM information_schema.COLUMNS WHERE {of} AND IS_GENERATED = 'NEVER' ORDER BY ORDINAL_POSITION"
        ))?;
        let columns: Vec<Column> = rows.into_iter().map(|row| column(&row)).collect();
        let parts = session.rows(&format!(
            "SELECT COLUMN_NAME, INDEX_NAME, SUB_PART IS NULL AND NULLABLE <> 'YES' FROM information_schema.STATISTICS
             WHERE {of} AND NON_UNIQUE = 0 AND INDEX_TYPE = 'BTREE' ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX"
        ))?;
        // A part that is computed has no image.
        let at = |row: &Row| {
            let whole = row[2].as_deref() == Some("1");
            columns
                .iter()
                .position(|column| whole && row[0].as_ref() == Some(&column.name) && !column.has_two_empties())
        };
        let key = parts.chunk_by(|one, other| one[1] == other[1]).find_map(|index| index.iter().map(at).collect());
        let key = key.unwrap_or_default();
        Ok(Self { name: name.to_owned(), columns, key })
    }

    /// True where nothing tells two of its rows apart that hold the same.
    pub fn is_loose(&self) -> bool {
        self.key.is_empty()
    }

    pub fn is_key(&self, at: usize) -> bool {
        self.key.contains(&at)
    }

    /// The columns' names in the live table, each behind `prefix`.
    pub fn live(&self, prefix: &str) -> String {
        self.columns.iter().map(|column| format!("{prefix}{}", ident(&column.name))).collect::<Vec<_>>().join(", ")
    }

    /// The columns' names in a hold, each behind `prefix`.
    pub fn held(&self, prefix: &str) -> String {
        (0..self.columns.len()).map(|at| format!("{prefix}c{at}")).collect::<Vec<_>>().join(", ")
    }

    /// The columns of a log, each of which may be empty.
    pub fn logged(&self) -> String {
        let columns = self.columns.iter().enumerate().map(|(at, column)| format!("c{at} {} NULL", column.kind));
        columns.collect::<Vec<_>>().join(", ")
    }

    /// The definition of a hold's columns, with the table's key. That of a loose table has each row once, with its digest
    /// and its number.
    pub fn hold(&self) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| format!("c{at} {} {}", column.kind, if self.is_key(at) { "NOT NULL" } else { "NULL" }))
            .collect();
        if self.is_loose() {
            let columns = columns.join(", ");
            return format!("({columns}, d binary(32) NOT NULL PRIMARY KEY, n bigint NOT NULL) ENGINE=InnoDB");
        }
        let key: Vec<String> = self.key.iter().map(|at| format!("c{at}")).collect();
        format!("({}, PRIMARY KEY ({})) ENGINE=InnoDB", columns.join(", "), key.join(", "))
    }

    /// How many rows a hold has.
    pub fn rows_held(&self, session: &mut Session, hold: &str) -> Result<u64, Error> {
        let number = if self.is_loose() { "IFNULL(SUM(n), 0)" } else { "COUNT(*)" };
        session.number(&format!("SELECT {number} FROM `{hold}`"))
    }

    /// A digest of all that a row holds: that of no other row is the same. No value is longer in it than a number or a
    /// digest, so that it fits into what a server takes as one.
    pub fn digest(&self, side: Side<'_>) -> String {
        let all: Vec<String> = (0..self.columns.len())
            .map(|at| {
                let value = side.column(self, at);
                let bytes = match self.columns[at].compared {
                    Compared::Bytes => return format!("IFNULL(SHA2(BINARY {value}, 256), '-')"),
                    Compared::Number => format!("BINARY ({value} + 0)"),
                    // A FLOAT is printed with fewer digits than it has.
                    Compared::Float => format!("BINARY CONCAT(CAST({value} AS DOUBLE))"),
                    Compared::Plain => format!("BINARY {value}"),
                };
                format!("IFNULL(CONCAT(LENGTH({bytes}), ':', {bytes}), '-')")
            })
            .collect();
        format!("UNHEX(SHA2(CONCAT({}), 256))", all.join(", "))
    }

    /// True where a live row and a held one, or two held ones, have the same key; of a loose table, hold the same.
    pub fn keyed(&self, one: Side<'_>, other: Side<'_>) -> String {
        if self.is_loose() {
            let digest = |side| if let Side::Held(alias) = side { format!("{alias}.d") } else { self.digest(side) };
            return format!("{} = {}", digest(one), digest(other));
        }
        let parts: Vec<String> =
            self.key.iter().map(|at| format!("{} = {}", one.column(self, *at), other.column(self, *at))).collect();
        parts.join(" AND ")
    }

    /// True where both have the same value, byte for byte, or none.
    pub fn same(&self, at: usize, one: Side<'_>, other: Side<'_>) -> String {
        let (a, b) = (one.column(self, at), other.column(self, at));
        match self.columns[at].compared {
            Compared::Bytes => format!("BINARY {a} <=> BINARY {b}"),
            Compared::Number => format!("{a} + 0 <=> {b} + 0"),
            Compared::Float => format!("({a} <=> {b} AND IF({a} = 0, CONCAT({a}) = CONCAT({b}), 1))"),
            Compared::Plain => format!("{a} <=> {b}"),
        }
    }

    /// True where both are the same row.
    pub fn all_same(&self, one: Side<'_>, other: Side<'_>) -> String {
        (0..self.columns.len()).map(|at| self.same(at, one, other)).collect::<Vec<_>>().join(" AND ")
    }

    /// A value for people.
    pub fn shown(&self, at: usize, side: Side<'_>) -> String {
        const LONGEST: usize = 200;
        let value = side.column(self, at);
        let column = &self.columns[at];
        let text = if column.binary {
            format!("CONCAT('x', HEX(LEFT(BINARY {value}, {})))", LONGEST / 2)
        } else if column.kind.starts_with("bit") {
            format!("CONCAT({value} + 0)")
        } else {
            format!("CONVERT(LEFT({value}, {LONGEST}) USING utf8mb4)")
        };
        format!("IFNULL({text}, 'NULL')")
    }

    /// The key for people: `id=7`; of a loose table the row.
    pub fn shown_key(&self, side: Side<'_>) -> String {
        if self.is_loose() {
            return self.shown_row(side);
        }
        let parts: Vec<String> = self
            .key
            .iter()
            .map(|at| format!("{}, {}", literal(&format!("{}=", self.columns[*at].name)), self.shown(*at, side)))
            .collect();
        format!("CONCAT({})", parts.join(", ', ', "))
    }

    /// The row for people.
    pub fn shown_row(&self, side: Side<'_>) -> String {
        let parts: Vec<String> = (0..self.columns.len()).map(|at| self.shown(at, side)).collect();
        format!("LEFT(CONCAT_WS(', ', {}), 400)", parts.join(", "))
    }
}

/// Where a column is read from: a live table by an alias, or a hold by one.
#[derive(Clone, Copy, Debug)]
pub enum Side<'a> {
    Live(&'a str),
    Held(&'a str),
}

impl Side<'_> {
    pub fn alias(&self) -> &str {
        match self {
            Side::Live(alias) | Side::Held(alias) => alias,
        }
    }

    pub fn column(self, table: &Table, at: usize) -> String {
        match self {
            Side::Live(alias) => format!("{alias}.{}", ident(&table.columns[at].name)),
            Side::Held(alias) => format!("{alias}.c{at}"),
        }
    }
}

fn column(row: &[Option<String>]) -> Column {
    let text = |at: usize| row[at].clone().unwrap_or_default();
    let kind = text(1);
    // What is written in a comment, as COMPRESSED is, belongs to the table, not to its values.
    let mut kind = kind.split("/*").next().unwrap_or_default().trim_end().to_owned();
    if let (Some(charset), Some(collation)) = (&row[2], &row[3]) {
        kind += &format!(" CHARACTER SET {charset} COLLATE {collation}");
    }
    let data = text(4);
    let binary = matches!(
        data.as_str(),
        "binary"
            | "varbinary"
            | "tinyblob"
            | "blob"
            | "mediumblob"
            | "longblob"
            | "geometry"
            | "point"
            | "linestring"
            | "polygon"
            | "multipoint"
            | "multilinestring"
            | "multipolygon"
            | "geometrycollection"
    );
    let compared = match data.as_str() {
        "enum" | "set" => Compared::Number,
        "float" | "double" => Compared::Float,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "json" => Compared::Bytes,
        _ if binary => Compared::Bytes,
        _ => Compared::Plain,
    };
    Column { name: text(0), kind, compared, binary, moves: text(5).contains("on update") }
}

/// All foreign keys within the database.
pub fn foreign_keys(session: &mut Session) -> Result<Vec<ForeignKey>, Error> {
    let within = "r.CONSTRAINT_SCHEMA = DATABASE() AND r.UNIQUE_CONSTRAINT_SCHEMA = DATABASE()";
    foreign_keys_where(session, within)
}

/// Those between a table of the database and one of another, as far as the user may see them. To list them the server opens
/// each table of each database, so it is asked first whether there may be any.
pub fn foreign_keys_across(session: &mut Session) -> Result<Vec<ForeignKey>, Error> {
    let elsewhere = "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME <> DATABASE()
         AND SCHEMA_NAME NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys') LIMIT 1";
    // What InnoDB keeps of them, the database before the slash; only who has PROCESS may read it.
    let innodb = "SELECT 1 FROM information_schema.INNODB_SYS_FOREIGN
         WHERE SUBSTRING_INDEX(FOR_NAME, '/', 1) <> SUBSTRING_INDEX(REF_NAME, '/', 1) LIMIT 1";
    if session.value(elsewhere)?.is_none() || matches!(session.value(innodb), Ok(None)) {
        return Ok(Vec::new());
    }
    let across = "(r.CONSTRAINT_SCHEMA = DATABASE()) <> (r.UNIQUE_CONSTRAINT_SCHEMA = DATABASE())
         AND EXISTS (SELECT 1 FROM information_schema.TABLES AS t
             WHERE t.TABLE_SCHEMA = r.UNIQUE_CONSTRAINT_SCHEMA AND t.TABLE_NAME = r.REFERENCED_TABLE_NAME)";
    foreign_keys_where(session, across)
}

fn foreign_keys_where(session: &mut Session, condition: &str) -> Result<Vec<ForeignKey>, Error> {
    let rows = session.rows(&format!(
        "SELECT r.CONSTRAINT_NAME, r.TABLE_NAME, r.REFERENCED_TABLE_NAME, r.DELETE_RULE, r.UPDATE_RULE,
             k.COLUMN_NAME, k.REFERENCED_COLUMN_NAME,
             NULLIF(r.CONSTRAINT_SCHEMA, DATABASE()), NULLIF(r.UNIQUE_CONSTRAINT_SCHEMA, DATABASE())
         FROM information_schema.REFERENTIAL_CONSTRAINTS AS r JOIN information_schema.KEY_COLUMN_USAGE AS k
             ON k.CONSTRAINT_SCHEMA = r.CONSTRAINT_SCHEMA AND k.CONSTRAINT_NAME = r.CONSTRAINT_NAME AND k.TABLE_NAME = r.TABLE_NAME
         WHERE {condition} AND k.TABLE_SCHEMA = r.CONSTRAINT_SCHEMA
         ORDER BY 8, r.TABLE_NAME, r.CONSTRAINT_NAME, k.ORDINAL_POSITION"
    ))?;
    let mut all: Vec<ForeignKey> = Vec::new();
    for row in rows {
        let text = |at: usize| row[at].clone().unwrap_or_default();
        let elsewhere = [row[7].clone(), row[8].clone()];
        let next = match all.last_mut() {
            Some(last) if last.name == text(0) && last.child == text(1) && last.elsewhere == elsewhere => last,
            _ => {
                all.push(ForeignKey {
                    name: text(0),
                    elsewhere,
                    child: text(1),
                    columns: Vec::new(),
                    parent: text(2),
                    referenced: Vec::new(),
                    on_delete: text(3),
                    on_update: text(4),
                });
                let at = all.len() - 1;
                &mut all[at]
            }
        };
        next.columns.push(text(5));
        next.referenced.push(text(6));
    }
    Ok(all)
}

/// The same without those that point at a table which is not there.
pub fn foreign_keys_that_hold(session: &mut Session) -> Result<Vec<ForeignKey>, Error> {
    let mut all = foreign_keys(session)?;
    let names = all_names(session)?;
    all.retain(|link| names.contains(&link.parent));
    Ok(all)
}

/// The triggers on a table that are not the tool's.
pub fn triggers(session: &mut Session, name: &str) -> Result<Vec<String>, Error> {
    let rows = session.rows(&format!(
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()
         AND EVENT_OBJECT_TABLE = {} AND TRIGGER_NAME NOT LIKE 'backout\\_%' ORDER BY 1",
        literal(name)
    ))?;
    Ok(rows.into_iter().filter_map(|mut row| row[0].take()).collect())
}

/// The table's counter; none where it has none. InnoDB's own, not what statistics remember.
pub fn counter(session: &mut Session, name: &str) -> Result<Option<u64>, Error> {
    let text = session.value(&format!(
        "SELECT AUTO_INCREMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}",
        literal(name)
    ))?;
    Ok(text.and_then(|text| text.parse().ok()))
}
