//! Fills tables with generated rows that satisfy their constraints, and hands back the SQL that does it. It adds rows
//! and never changes or removes one; a table it can't fill is named.

use std::collections::BTreeMap;

use anyhow::Result;
use mysql::Conn;
use mysql::prelude::Queryable as _;

use super::objects::{self, Kind};
use super::{column, literal, quoted, rows};
use crate::fidelity::subject::Filled;
use crate::sqlite::checks;

/// Tries at one row before a table is left as it is.
const TRIES: u64 = 30;
/// Rows of a parent that are looked at for a foreign key.
const PARENTS: usize = 100;

/// A table that rows are written to.
pub struct Table {
    pub name: String,
    /// The server's text of it, without its counter, by which a changed table is known.
    definition: String,
    columns: Vec<Column>,
    references: Vec<Reference>,
}

struct Column {
    name: String,
    base: String,
    /// Characters that fit; the digits before the point of a DECIMAL.
    room: Option<usize>,
    not_null: bool,
    unique: bool,
    has_default: bool,
    counts: bool,
}

struct Reference {
    columns: Vec<String>,
    parent: String,
    parent_columns: Vec<String>,
}

/// Remembers each table's definition between fillings, so that a table that was altered gets fresh rows.
#[derive(Debug, Default)]
pub struct Filler {
    definitions: BTreeMap<String, String>,
    rounds: u64,
}

impl Filler {
    /// Brings every table to `wanted` rows; one whose definition is new gets so many more.
    pub fn fill(&mut self, conn: &mut Conn, database: &str, wanted: u64) -> Result<Filled> {
        self.rounds += 1;
        let mut draw = Draw { serial: self.rounds << 14, random: fastrand::Rng::with_seed(self.rounds) };
        let tables = tables(conn, database)?;
        let mut missing: BTreeMap<&str, u64> = BTreeMap::new();
        for table in &tables {
            let known = self.definitions.insert(table.name.clone(), table.definition.clone());
            let altered = known.as_ref() != Some(&table.definition);
            let count = if altered { wanted } else { wanted.saturating_sub(count(conn, &table.name)?) };
            missing.insert(&table.name, count);
        }
        let mut filled = Filled::default();
        let mut errors = BTreeMap::new();
        conn.query_drop("START TRANSACTION")?;
        // Parents before children; a table whose parents are still empty waits for the next round.
        loop {
            let mut added = 0;
            for table in &tables {
                while missing.get(table.name.as_str()).is_some_and(|missing| *missing > 0) {
                    match row(conn, table, &mut draw)? {
                        Ok(statement) => filled.statements.push(statement),
                        Err(error) => {
                            errors.insert(table.name.clone(), error);
                            break;
                        }
                    }
                    added += 1;
                    missing.entry(&table.name).and_modify(|missing| *missing -= 1);
                }
            }
            if added == 0 {
                break;
            }
        }
        conn.query_drop("COMMIT")?;
        for table in &tables {
            if wanted > 0 && count(conn, &table.name)? == 0 {
                let why = errors.remove(&table.name).unwrap_or_else(|| "no row fits".to_owned());
                filled.empty.push((table.name.clone(), why));
            }
        }
        Ok(filled)
    }
}

fn count(conn: &mut Conn, table: &str) -> Result<u64> {
    let found: Option<u64> = conn.query_first(format!("SELECT COUNT(*) FROM {}", quoted(table)))?;
    Ok(found.unwrap_or(0))
}

/// All tables of the users.
pub fn tables(conn: &mut Conn, database: &str) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for object in objects::all(conn, database)?.into_iter().filter(|object| object.kind == Kind::Table) {
        let words = object.text.split(' ').filter(|word| !word.starts_with("AUTO_INCREMENT="));
        tables.push(Table {
            definition: words.collect::<Vec<_>>().join(" "),
            columns: columns(conn, database, &object.name)?,
            references: references(conn, database, &object.name)?,
            name: object.name,
        });
    }
    Ok(tables)
}

fn columns(conn: &mut Conn, database: &str, table: &str) -> Result<Vec<Column>> {
    let found = rows(
        conn,
        &format!(
            "SELECT c.COLUMN_NAME, LOWER(c.DATA_TYPE), IF(c.DATA_TYPE = 'decimal', c.NUMERIC_PRECISION - c.NUMERIC_SCALE, c.CHARACTER_MAXIMUM_LENGTH),
                c.IS_NULLABLE = 'NO', c.COLUMN_DEFAULT IS NOT NULL AND c.COLUMN_DEFAULT <> 'NULL', c.EXTRA LIKE '%auto_increment%',
                EXISTS (SELECT 1 FROM information_schema.STATISTICS AS s WHERE s.TABLE_SCHEMA = c.TABLE_SCHEMA
                    AND s.TABLE_NAME = c.TABLE_NAME AND s.COLUMN_NAME = c.COLUMN_NAME AND s.NON_UNIQUE = 0)
             FROM information_schema.COLUMNS AS c
             WHERE c.TABLE_SCHEMA = {} AND c.TABLE_NAME = {} AND c.IS_GENERATED = 'NEVER' ORDER BY c.ORDINAL_POSITION",
            literal(database),
            literal(table)
        ),
    )?;
    let column = |row: Vec<Option<String>>| {
        let is = |at: usize| row[at].as_deref() == Some("1");
        Column {
            name: row[0].clone().unwrap_or_default(),
            base: row[1].clone().unwrap_or_default(),
            room: row[2].as_deref().and_then(|text| text.parse().ok()),
            not_null: is(3),
            has_default: is(4),
            counts: is(5),
            unique: is(6),
        }
    };
    Ok(found.into_iter().map(column).collect())
}

fn references(conn: &mut Conn, database: &str, table: &str) -> Result<Vec<Reference>> {
    let found = rows(
        conn,
        &format!(
            "SELECT CONSTRAINT_NAME, REFERENCED_TABLE_NAME, COLUMN_NAME, REFERENCED_COLUMN_NAME
             FROM information_schema.KEY_COLUMN_USAGE WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}
                AND REFERENCED_TABLE_NAME IS NOT NULL ORDER BY 1, ORDINAL_POSITION",
            literal(database),
            literal(table)
        ),
    )?;
    let mut all: BTreeMap<String, Reference> = BTreeMap::new();
    for row in found {
        let text = |at: usize| row[at].clone().unwrap_or_default();
        let empty = Reference { columns: Vec::new(), parent: text(1), parent_columns: Vec::new() };
        let reference = all.entry(text(0)).or_insert(empty);
        reference.columns.push(text(2));
        reference.parent_columns.push(text(3));
    }
    Ok(all.into_values().collect())
}

/// The tables that point at these, and at those, with them: all that must be empty where these are.
pub fn with_children(conn: &mut Conn, database: &str, mut names: Vec<String>) -> Result<Vec<String>> {
    let mut at = 0;
    while let Some(name) = names.get(at).cloned() {
        at += 1;
        let children = column(
            conn,
            &format!(
                "SELECT DISTINCT TABLE_NAME FROM information_schema.KEY_COLUMN_USAGE
                 WHERE TABLE_SCHEMA = {} AND REFERENCED_TABLE_NAME = {}",
                literal(database),
                literal(&name)
            ),
        )?;
        for child in children {
            if !names.contains(&child) {
                names.push(child);
            }
        }
    }
    Ok(names)
}

/// Adds one row, trying other values until the database takes one.
fn row(conn: &mut Conn, table: &Table, draw: &mut Draw) -> Result<std::result::Result<String, String>> {
    let name = quoted(&table.name);
    let mut last = "it has no column to write".to_owned();
    for attempt in 0..TRIES {
        draw.serial += 1;
        let mut given: BTreeMap<&str, String> = BTreeMap::new();
        for reference in &table.references {
            let keys: Vec<String> =
                reference.parent_columns.iter().map(|name| format!("QUOTE({})", quoted(name))).collect();
            let parents = column(
                conn,
                &format!(
                    "SELECT CONCAT_WS(CHAR(1), {}) FROM {} ORDER BY 1 LIMIT {PARENTS}",
                    keys.join(", "),
                    quoted(&reference.parent)
                ),
            )?;
            let nullable = |name: &String| table.columns.iter().any(|column| column.name == *name && !column.not_null);
            let chosen = match draw.random.choice(&parents) {
                Some(key) => key.split('\u{1}').map(str::to_owned).collect(),
                None if reference.columns.iter().any(nullable) => vec!["NULL".to_owned(); reference.columns.len()],
                None => return Ok(Err(format!("{} has no row to refer to", reference.parent))),
            };
            given.extend(reference.columns.iter().map(String::as_str).zip(chosen));
        }
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for column in &table.columns {
            let value = match given.remove(column.name.as_str()) {
                // What a try that failed took from the counter must not show in the rows.
                None if column.counts => {
                    let sql = format!("SELECT COALESCE(MAX({}), 0) + 1 FROM {name}", quoted(&column.name));
                    super::column(conn, &sql)?.pop()
                }
                given => given.or_else(|| draw.value(table, column, attempt)),
            };
            if let Some(value) = value {
                names.push(quoted(&column.name));
                values.push(value);
            }
        }
        let statement = format!("INSERT INTO {name} ({}) VALUES ({})", names.join(", "), values.join(", "));
        match conn.query_drop(&statement) {
            Ok(()) => return Ok(Ok(statement)),
            Err(error) => last = error.to_string(),
        }
    }
    Ok(Err(last))
}

/// Draws values; `serial` makes each of them new.
struct Draw {
    serial: u64,
    random: fastrand::Rng,
}

impl Draw {
    /// A value as SQL; none where the column's default is to stand.
    fn value(&mut self, table: &Table, column: &Column, attempt: u64) -> Option<String> {
        if column.has_default && (attempt < TRIES / 2 || self.random.bool()) {
            return None;
        }
        if !column.not_null && self.random.u8(..5) == 0 {
            return Some("NULL".to_owned());
        }
        if let Some(candidate) = self.random.choice(checks::candidates(&table.definition, &column.name))
            && self.random.bool()
        {
            return Some(candidate);
        }
        let n = self.serial;
        let few = if column.unique { n } else { n % 7 };
        Some(match column.base.as_str() {
            "tinyint" | "bit" => (n % 2).to_string(),
            "smallint" => (n % 32_000).to_string(),
            "mediumint" | "int" | "bigint" => few.to_string(),
            "decimal" => {
                let most = 10_u64.saturating_pow(u32::try_from(column.room.unwrap_or(6)).unwrap_or(6).min(12));
                (n % most).to_string()
            }
            "float" => ["16777217".to_owned(), format!("{few}.1"), "-0e0".to_owned()][self.random.usize(..3)].clone(),
            "double" => ["0.1e-300".to_owned(), format!("{few}.1"), "-0e0".to_owned()][self.random.usize(..3)].clone(),
            "enum" | "set" => "1".to_owned(),
            "year" => (1902 + n % 200).to_string(),
            "date" => format!("'20{:02}-0{}-1{}'", n % 30, 1 + n % 9, n % 10),
            "datetime" | "timestamp" => format!("'2020-01-{:02} {:02}:{:02}:00.5'", 1 + n % 28, n % 24, n % 60),
            "time" => format!("'-{:03}:{:02}:01.25'", n % 800, n % 60),
            "json" => format!("'{{\"a\": [{n}, 1.50, \"ü\"]}}'"),
            "uuid" => format!("'00000000-0000-4000-8000-{n:012x}'"),
            "inet4" | "inet6" => format!("'10.0.{}.{}'", n / 256 % 256, n % 256),
            "geometry" | "point" => format!("ST_GeomFromText('POINT({n} 0.1)')"),
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
                let hex = format!("{n:08x}00ff27");
                let room = column.room.unwrap_or(8).min(hex.len() / 2);
                format!("X'{}'", &hex[..room * 2])
            }
            _ => {
                let text = format!("{}'{n:x} ü\\", if column.unique { "u" } else { "x" });
                let room = column.room.unwrap_or(usize::MAX);
                // What is cut off is the least that distinguishes.
                let text = if text.chars().count() <= room {
                    text
                } else {
                    format!("{n:x}").chars().rev().take(room).collect()
                };
                literal(&text)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use backout_servers::mariadb::Server;
    use mysql::{Row, Value};

    use super::*;

    #[test]
    fn tables_of_every_kind_are_filled_and_the_statements_make_the_same_rows() -> Result<()> {
        const BASE: &str = "CREATE TABLE parent(id int AUTO_INCREMENT PRIMARY KEY, kind varchar(9) NOT NULL CHECK (kind IN ('a', 'b')), up int, FOREIGN KEY (up) REFERENCES parent (id));
            CREATE TABLE child(id smallint AUTO_INCREMENT PRIMARY KEY, p int NOT NULL, m enum('sad', 'it''s') NOT NULL, s set('a', 'b') NOT NULL,
              n decimal(4,2) NOT NULL, f float, c char(2) UNIQUE, j json, b binary(3), g point, y year, t timestamp(6) NULL, u uuid, l longblob,
              x int AS (p + 1) VIRTUAL, FOREIGN KEY (p) REFERENCES parent (id));
            CREATE TABLE loose(a int, b text);
            CREATE TABLE never(a int NOT NULL CHECK (a IS NULL));";
        let server = Server::shared();
        let (one, other) = (server.database(), server.database());
        one.script(BASE);
        other.script(BASE);
        let mut filler = Filler::default();
        let filled = filler.fill(&mut one.connect(), &one.name, 5)?;
        assert_eq!(filled.empty.iter().map(|(table, _)| table.as_str()).collect::<Vec<_>>(), ["never"]);
        assert_eq!(filled.statements.len(), 15);
        other.script(&(filled.statements.join(";\n") + ";"));
        for table in ["parent", "child", "loose"] {
            // Some values are no text.
            let read = |conn: &mut Conn| -> Result<Vec<Vec<Value>>> {
                let rows: Vec<Row> = conn.query(format!("SELECT * FROM {table} ORDER BY 1, 2"))?;
                Ok(rows.into_iter().map(Row::unwrap).collect())
            };
            assert_eq!(read(&mut one.connect())?, read(&mut other.connect())?, "{table}");
            assert_eq!(count(&mut one.connect(), table)?, 5, "{table}");
        }
        assert!(filler.fill(&mut one.connect(), &one.name, 5)?.statements.is_empty());
        let all = with_children(&mut one.connect(), &one.name, vec!["parent".to_owned()])?;
        assert_eq!(all, ["parent", "child"]);
        Ok(())
    }
}
