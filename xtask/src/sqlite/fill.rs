//! Fills tables with generated rows that satisfy their constraints, and hands back the SQL that does it. It adds rows
//! and never changes or removes one; a table it can't fill is named.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use rusqlite::Connection;

use super::shape::{self, Column, ForeignKey, Kind, Table};
use super::values::Draw;
use super::{checks, quoted};
use crate::fidelity::subject::Filled;

/// Tries at one row before a table is left as it is.
const TRIES: u32 = 40;
/// Rows of a parent that are looked at for a foreign key.
const PARENTS: usize = 200;

/// Remembers each table's definition between fillings, so that a table that was altered gets fresh rows.
#[derive(Debug, Default)]
pub struct Filler {
    definitions: BTreeMap<String, String>,
    rounds: u64,
}

impl Filler {
    /// Brings every table to `rows` rows; one whose definition is new gets `rows` more.
    pub fn fill(&mut self, connection: &Connection, rows: u64) -> Result<Filled> {
        self.rounds += 1;
        let mut draw = Draw::new(self.rounds);
        draw.serial = self.rounds << 20;
        let tables: Vec<Table> =
            shape::tables(connection)?.into_iter().filter(|table| table.kind != Kind::Shadow).collect();
        let mut wanted = BTreeMap::new();
        for table in &tables {
            let present = u64::from(count(connection, &table.name).unwrap_or(0));
            let altered = self.definitions.insert(table.name.clone(), table.sql.clone()).as_ref() != Some(&table.sql);
            let missing = if altered { rows } else { rows.saturating_sub(present) };
            wanted.insert(table.name.clone(), missing);
        }
        let mut filled = Filled::default();
        let mut errors = BTreeMap::new();
        connection.execute_batch("BEGIN")?;
        // Parents before children; a table whose parents are still empty waits for the next round.
        loop {
            let mut added = 0;
            for table in &tables {
                while wanted.get(&table.name).is_some_and(|missing| *missing > 0) {
                    match row(connection, table, &mut draw)? {
                        Ok(statement) => filled.statements.push(statement),
                        Err(error) => {
                            errors.insert(table.name.clone(), error);
                            break;
                        }
                    }
                    added += 1;
                    wanted.entry(table.name.clone()).and_modify(|missing| *missing -= 1);
                }
            }
            if added == 0 {
                break;
            }
        }
        connection.execute_batch("COMMIT")?;
        for table in &tables {
            if rows > 0 && count(connection, &table.name).unwrap_or(0) == 0 {
                let why = errors.remove(&table.name).unwrap_or_else(|| "no row fits".to_owned());
                filled.empty.push((table.name.clone(), why));
            }
        }
        Ok(filled)
    }
}

fn count(connection: &Connection, table: &str) -> rusqlite::Result<u32> {
    connection.query_row(&format!("SELECT count(*) FROM {}", quoted(table)), [], |row| row.get(0))
}

/// Adds one row, trying other values until the database takes one.
fn row(connection: &Connection, table: &Table, draw: &mut Draw) -> Result<std::result::Result<String, String>> {
    let unique: BTreeSet<&str> = table.unique.iter().flatten().map(String::as_str).collect();
    let mut last = "it has no column to write".to_owned();
    for attempt in 0..TRIES {
        draw.serial += 1;
        let references = match references(connection, table, draw, attempt) {
            Ok(references) => references,
            Err(why) => return Ok(Err(why)),
        };
        let mut names = Vec::new();
        let mut values = Vec::new();
        for column in table.columns.iter().filter(|column| !column.generated && !column.hidden) {
            if let Some(value) = value(table, column, &references, unique.contains(column.name.as_str()), draw, attempt)
            {
                names.push(quoted(&column.name));
                values.push(value);
            }
        }
        let statement = if names.is_empty() {
            format!("INSERT INTO {} DEFAULT VALUES", quoted(&table.name))
        } else {
            format!("INSERT INTO {} ({}) VALUES ({})", quoted(&table.name), names.join(", "), values.join(", "))
        };
        // A row that fails must leave nothing, also what a trigger had done before it failed.
        connection.execute_batch("SAVEPOINT fill_row")?;
        match connection.execute_batch(&statement) {
            Ok(()) => {
                connection.execute_batch("RELEASE fill_row")?;
                return Ok(Ok(statement));
            }
            Err(error) => {
                last = error.to_string();
                connection.execute_batch("ROLLBACK TO fill_row; RELEASE fill_row")?;
            }
        }
    }
    Ok(Err(last))
}

/// A value for a column, or none where the database is to choose it.
fn value(
    table: &Table,
    column: &Column,
    references: &BTreeMap<String, String>,
    unique: bool,
    draw: &mut Draw,
    attempt: u32,
) -> Option<String> {
    if let Some(value) = references.get(&column.name) {
        return Some(value.clone());
    }
    if table.integer_key().is_some_and(|key| key.name == column.name) {
        // Mostly the next number, now and then a gap.
        return (draw.random.u8(0..8) == 0).then(|| (draw.serial + 5_000).to_string());
    }
    if column.has_default && draw.random.u8(0..6) == 0 {
        return None;
    }
    if !column.not_null && column.key == 0 && draw.random.u8(0..6) == 0 {
        return Some("NULL".to_owned());
    }
    let candidates = checks::candidates(&table.sql, &column.name);
    if !candidates.is_empty() && (attempt > 0 || draw.random.bool()) && draw.random.u8(0..4) > 0 {
        return draw.pick(&candidates).cloned();
    }
    Some(draw.value(column, unique || column.key > 0))
}

/// Values for the columns of foreign keys, from rows that the parents have.
fn references(
    connection: &Connection,
    table: &Table,
    draw: &mut Draw,
    attempt: u32,
) -> std::result::Result<BTreeMap<String, String>, String> {
    let mut chosen = BTreeMap::new();
    for key in &table.foreign_keys {
        let optional = key.columns.iter().all(|(child, _)| {
            table.columns.iter().any(|column| column.name == *child && !column.not_null && column.key == 0)
        });
        let none = || key.columns.iter().map(|(child, _)| (child.clone(), "NULL".to_owned()));
        if optional && (draw.random.u8(0..6) == 0 || attempt + 5 > TRIES) {
            chosen.extend(none());
            continue;
        }
        let parents = match parents(connection, key) {
            Ok(parents) => parents,
            Err(error) if !optional => return Err(format!("foreign key to {}: {error}", key.parent)),
            Err(_) => Vec::new(),
        };
        match draw.pick(&parents) {
            Some(values) => chosen.extend(key.columns.iter().map(|(child, _)| child.clone()).zip(values.clone())),
            None if optional => chosen.extend(none()),
            None => return Err(format!("foreign key to {}, which has no row", key.parent)),
        }
    }
    Ok(chosen)
}

/// Keys of a parent's rows, as SQL literals.
pub fn parents(connection: &Connection, key: &ForeignKey) -> rusqlite::Result<Vec<Vec<String>>> {
    let mut columns: Vec<String> = key.columns.iter().filter_map(|(_, parent)| parent.clone()).collect();
    if columns.len() < key.columns.len() {
        let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")?;
        columns = statement.query_map([&key.parent], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    }
    let wanted: Vec<String> = columns.iter().map(|column| format!("quote({})", quoted(column))).collect();
    let sql = format!("SELECT {} FROM {} LIMIT {PARENTS}", wanted.join(", "), quoted(&key.parent));
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map([], |row| (0..wanted.len()).map(|index| row.get(index)).collect())?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"
        CREATE TABLE maker(id INTEGER PRIMARY KEY AUTOINCREMENT, name VARCHAR(8) NOT NULL UNIQUE);
        CREATE TABLE item(sku TEXT PRIMARY KEY, maker INT NOT NULL REFERENCES maker, parent TEXT REFERENCES item(sku),
            kind TEXT NOT NULL CHECK (kind IN ('hat', 'coat')), size INT CHECK (size BETWEEN 3 AND 5),
            data TEXT CHECK (json_valid(data)), label AS (kind || sku) STORED) WITHOUT ROWID;
        CREATE TABLE pair(a INT NOT NULL, b INT NOT NULL, PRIMARY KEY(a, b)) STRICT;
        CREATE TABLE lonely(x INT NOT NULL REFERENCES nowhere(y));
        CREATE TABLE never(x CHECK (x <> x) NOT NULL);
        CREATE VIRTUAL TABLE words USING fts5(body);
    "#;

    #[test]
    fn every_table_that_can_be_filled_is_filled_and_the_others_are_named() -> Result<()> {
        let connection = Connection::open_in_memory()?;
        connection.execute_batch(&format!("PRAGMA foreign_keys = OFF; {SCHEMA}"))?;
        let mut filler = Filler::default();
        let filled = filler.fill(&connection, 7)?;
        for table in ["maker", "item", "pair", "words"] {
            assert_eq!(count(&connection, table)?, 7, "{table}: {:?}", filled.empty);
        }
        let named: Vec<&str> = filled.empty.iter().map(|(table, _)| table.as_str()).collect();
        assert_eq!(named, ["lonely", "never"]);
        let orphans: u32 =
            connection
                .query_row("SELECT count(*) FROM item WHERE maker NOT IN (SELECT id FROM maker)", [], |r| r.get(0))?;
        assert_eq!(orphans, 0);

        // The statements make the same rows once more on a copy of what was before.
        let copy = Connection::open_in_memory()?;
        copy.execute_batch(&format!("PRAGMA foreign_keys = OFF; {SCHEMA}"))?;
        copy.execute_batch(&filled.statements.join(";\n"))?;
        let all = "SELECT group_concat(quote(sku) || quote(data) || quote(size)) FROM item";
        let read = |connection: &Connection| connection.query_row(all, [], |row| row.get::<_, String>(0));
        assert_eq!(read(&connection)?, read(&copy)?);

        // Full already; an altered table gets fresh rows.
        assert_eq!(filler.fill(&connection, 7)?.statements.len(), 0);
        connection.execute_batch("ALTER TABLE maker ADD COLUMN town TEXT")?;
        assert_eq!(filler.fill(&connection, 7)?.statements.len(), 7);
        Ok(())
    }
}
