//! Makes the rows of some tables plainer, for a script that fails on them: no NULL where a value can be found, text
//! that is unique and valid JSON. The last resort is to empty the tables and all that refer to them. Either way the
//! SQL that did it is handed back.

use std::collections::BTreeSet;

use anyhow::Result;
use rusqlite::Connection;

use super::fill::parents;
use super::quoted;
use super::shape::{self, Column, Kind, Table};
use super::values::Draw;

/// Changes rows of the named tables in place; a change that some constraint forbids is left out.
pub fn tame(connection: &Connection, names: &BTreeSet<String>) -> Result<Vec<String>> {
    let mut statements = Vec::new();
    let mut draw = Draw::new(0);
    connection.execute_batch("BEGIN")?;
    for table in shape::tables(connection)?.iter().filter(|table| names.contains(&table.name)) {
        let Some(rowid) = table.rowid().filter(|_| table.kind == Kind::Plain) else { continue };
        let name = quoted(&table.name);
        let rows: Vec<i64> = connection
            .prepare(&format!("SELECT {rowid} FROM {name} ORDER BY {rowid}"))?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for column in table.columns.iter().filter(|column| !column.generated && !column.hidden && column.key == 0) {
            let references = referred(connection, table, &column.name)?;
            for row in &rows {
                draw.serial += 1;
                let (value, only_null) = match references.first() {
                    Some(parent) => (parent.clone(), true),
                    None => plain(&mut draw, column),
                };
                let column = quoted(&column.name);
                let condition = if only_null { format!(" AND {column} IS NULL") } else { String::new() };
                let statement =
                    format!("UPDATE OR IGNORE {name} SET {column} = {value} WHERE {rowid} = {row}{condition}");
                if connection.execute_batch(&statement).is_ok() {
                    statements.push(statement);
                }
            }
        }
    }
    connection.execute_batch("COMMIT")?;
    Ok(statements)
}

/// A plain value, and whether it is only for columns that hold none.
fn plain(draw: &mut Draw, column: &Column) -> (String, bool) {
    let text = ["CHAR", "TEXT", "CLOB", "JSON"].iter().any(|kind| column.declared.contains(kind));
    if text { (format!("'\"{:x}\"'", draw.serial), false) } else { (draw.value(column, true), true) }
}

/// Keys that a column may refer to; none where it is no foreign key of one column.
fn referred(connection: &Connection, table: &Table, column: &str) -> Result<Vec<String>> {
    for key in &table.foreign_keys {
        if let [(child, _)] = key.columns.as_slice()
            && child == column
        {
            return Ok(parents(connection, key).unwrap_or_default().into_iter().flatten().collect());
        }
    }
    Ok(Vec::new())
}

/// Empties the named tables and every table that refers to one of them, near or far.
pub fn empty(connection: &Connection, names: &BTreeSet<String>) -> Result<Vec<String>> {
    let tables = shape::tables(connection)?;
    let mut all = names.clone();
    loop {
        let known = all.len();
        for table in &tables {
            if table.foreign_keys.iter().any(|key| all.contains(&key.parent)) {
                all.insert(table.name.clone());
            }
        }
        if all.len() == known {
            break;
        }
    }
    let mut statements = Vec::new();
    for table in tables.iter().filter(|table| table.kind != Kind::Shadow && all.contains(&table.name)) {
        let statement = format!("DELETE FROM {}", quoted(&table.name));
        if connection.execute_batch(&statement).is_ok() {
            statements.push(statement);
        }
    }
    Ok(statements)
}

/// The tables that a script names.
pub fn named(connection: &Connection, script: &str) -> Result<BTreeSet<String>> {
    let part = |c: char| !c.is_alphanumeric() && c != '_';
    let words: BTreeSet<String> = script.split(part).map(str::to_ascii_lowercase).collect();
    let tables = shape::tables(connection)?.into_iter().map(|table| table.name);
    Ok(tables.filter(|name| words.contains(&name.to_ascii_lowercase())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Result<Connection> {
        let connection = Connection::open_in_memory()?;
        connection.execute_batch(
            "PRAGMA foreign_keys = OFF;
             CREATE TABLE a(id INTEGER PRIMARY KEY, t VARCHAR(20), n INT, fixed TEXT CHECK (fixed = 'x'));
             CREATE TABLE b(id INTEGER PRIMARY KEY, a INT REFERENCES a);
             CREATE TABLE c(id INTEGER PRIMARY KEY, b INT REFERENCES b, t TEXT);
             INSERT INTO a VALUES (1, NULL, NULL, 'x'), (2, 'same', 5, 'x'), (3, 'same', NULL, 'x');
             INSERT INTO b VALUES (1, NULL), (2, 3); INSERT INTO c VALUES (1, 1, 'c');",
        )?;
        Ok(connection)
    }

    fn one<T: rusqlite::types::FromSql>(connection: &Connection, sql: &str) -> Result<T> {
        Ok(connection.query_row(sql, [], |row| row.get(0))?)
    }

    #[test]
    fn tame_rows_have_values_and_unique_json() -> Result<()> {
        let connection = database()?;
        tame(&connection, &named(&connection, "ALTER TABLE \"a\" x; INSERT INTO B")?)?;
        assert_eq!(one::<i64>(&connection, "SELECT count(DISTINCT t) FROM a WHERE json_valid(t) AND n NOT NULL")?, 3);
        assert_eq!(one::<i64>(&connection, "SELECT count(*) FROM a WHERE fixed = 'x' AND (id <> 2 OR n = 5)")?, 3);
        assert_eq!(one::<i64>(&connection, "SELECT a FROM b WHERE id = 1")?, 1);
        assert_eq!(one::<String>(&connection, "SELECT t FROM c")?, "c");
        Ok(())
    }

    #[test]
    fn emptying_takes_along_what_refers_to_it() -> Result<()> {
        let connection = database()?;
        empty(&connection, &BTreeSet::from(["b".to_owned()]))?;
        assert_eq!(
            one::<i64>(&connection, "SELECT (SELECT count(*) FROM a) * 10 + (SELECT count(*) FROM b JOIN c)")?,
            30
        );
        Ok(())
    }
}
