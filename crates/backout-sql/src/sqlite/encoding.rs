//! Text of a database kept in UTF-16 that UTF-8 has no place for: halves of surrogate pairs. Everything that passes
//! through this process is UTF-8, so rows with such text cannot be captured, and are not written back. Changes nothing.

use std::sync::{Arc, Mutex, PoisonError};

use backout_model::target::{Refusal, TargetError};
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::schema;
use super::token::quote;

/// Whether the database keeps its text in UTF-16.
pub fn is_utf_16(conn: &Connection) -> rusqlite::Result<bool> {
    conn.query_row("PRAGMA main.encoding", [], |row| row.get::<_, String>(0)).map(|name| name.starts_with("UTF-16"))
}

/// The first column of a table that holds such text; none where there is no such table.
pub fn column_with_halves(conn: &Connection, table: &str) -> rusqlite::Result<Option<String>> {
    for column in schema::shape(conn, table)?.stored() {
        let value = quote(&column.name);
        // `trim` takes its text as UTF-8 and gives it back.
        let sql = format!(
            "SELECT 1 FROM main.{} WHERE typeof({value}) = 'text' AND CAST({value} AS BLOB) <> CAST(trim({value}, '') AS BLOB)",
            quote(table)
        );
        if conn.prepare(&sql)?.exists([])? {
            return Ok(Some(column.name.clone()));
        }
    }
    Ok(None)
}

/// Whether a table holds such text.
pub fn has_halves(conn: &Connection, table: &str) -> rusqlite::Result<bool> {
    Ok(is_utf_16(conn)? && column_with_halves(conn, table)?.is_some())
}

/// The first of some tables that holds such text, and its column.
pub fn first_with_halves<'t>(
    conn: &Connection,
    tables: impl Iterator<Item = &'t str>,
) -> rusqlite::Result<Option<(&'t str, String)>> {
    if is_utf_16(conn)? {
        for table in tables {
            if let Some(column) = column_with_halves(conn, table)? {
                return Ok(Some((table, column)));
            }
        }
    }
    Ok(None)
}

/// Sees to it that a step writes only to tables that hold whole text; only in a database that is kept in UTF-16.
pub struct Whole {
    /// What the statement that is being prepared writes, with what triggers and foreign keys make of it. Asked by
    /// EXPLAIN, a statement would lose the count of `changes()`.
    written: Arc<Mutex<Vec<String>>>,
    known: Vec<String>,
}

impl Whole {
    /// None where there is nothing to see to. An authorizer is left on the connection.
    pub fn put_on(conn: &mut Connection) -> rusqlite::Result<Option<Self>> {
        if !is_utf_16(conn)? {
            return Ok(None);
        }
        let written: Arc<Mutex<Vec<String>>> = Arc::default();
        let shared = Arc::clone(&written);
        conn.authorizer(Some(move |context: AuthContext<'_>| {
            if let AuthAction::Insert { table_name }
            | AuthAction::Update { table_name, .. }
            | AuthAction::Delete { table_name } = context.action
                && context.database_name == Some("main")
            {
                let mut written = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if !written.iter().any(|known| known == table_name) {
                    written.push(table_name.to_owned());
                }
            }
            Authorization::Allow
        }))?;
        Ok(Some(Self { written, known: Vec::new() }))
    }

    fn written(&self, conn: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
        let take = || std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
        take();
        conn.prepare(sql)?;
        Ok(take())
    }

    /// Looks at the tables that a statement is about to write, each once; the first that holds halves, and its column.
    pub fn before(&mut self, conn: &Connection, sql: &str) -> rusqlite::Result<Option<(String, String)>> {
        for table in self.written(conn, sql)? {
            if self.known.contains(&table) || schema::object(conn, "table", &table)?.is_none() {
                continue;
            }
            if let Some(column) = column_with_halves(conn, &table)? {
                return Ok(Some((table, column)));
            }
            self.known.push(table);
        }
        Ok(None)
    }
}

/// Refuses what would capture rows of a table with such text.
pub fn refused(place: &str, what: &str, table: &str, column: &str) -> TargetError {
    TargetError::Refused(Refusal {
        place: place.to_owned(),
        what: what.to_owned(),
        why: format!(
            "the column {column} of {table} holds UTF-16 text with half of a surrogate pair, which cannot be kept exactly"
        ),
        ways_out: vec![
            "mend the text, with a step or program of its own".to_owned(),
            "give the step an undo script of its own (`undo: FILE`)".to_owned(),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_found_and_whole_text_is_not() {
        for (encoding, halves, whole) in [
            (
                "UTF-16le",
                ["00d8", "00d86100", "610000dc", "00dc00d8"],
                ["3dd800de", "fdff", "61000000ff00", "feff", "ffff"],
            ),
            (
                "UTF-16be",
                ["d800", "d8000061", "0061dc00", "dc00d800"],
                ["d83dde00", "fffd", "0061000000ff", "fffe", "ffff"],
            ),
        ] {
            for (texts, expected) in [(halves.to_vec(), Some("b")), (whole.to_vec(), None)] {
                for text in texts {
                    let conn = Connection::open_in_memory().unwrap();
                    conn.execute_batch(&format!(
                        "PRAGMA encoding = '{encoding}'; CREATE TABLE \"t t\"(a, b); INSERT INTO \"t t\" VALUES (1, 'x'), (x'00d8', CAST(x'{text}' AS TEXT))"
                    ))
                    .unwrap();
                    assert!(is_utf_16(&conn).unwrap());
                    assert_eq!(column_with_halves(&conn, "t t").unwrap().as_deref(), expected, "{encoding} {text}");
                }
            }
        }
        assert!(!is_utf_16(&Connection::open_in_memory().unwrap()).unwrap());
    }

    #[test]
    fn the_tables_that_a_statement_writes_are_known() {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(
            "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t(a UNIQUE); CREATE TABLE u(a); CREATE TABLE w(k PRIMARY KEY) WITHOUT ROWID;
             CREATE TABLE c(t REFERENCES t(a) ON DELETE CASCADE); CREATE TABLE n(id INTEGER PRIMARY KEY AUTOINCREMENT);
             CREATE VIEW v AS SELECT * FROM u; CREATE TRIGGER i INSTEAD OF INSERT ON v BEGIN DELETE FROM w; END;
             CREATE TRIGGER r AFTER INSERT ON u BEGIN INSERT INTO w VALUES (new.a); END; PRAGMA foreign_keys = ON",
        )
        .unwrap();
        let whole = Whole::put_on(&mut conn).unwrap().unwrap();
        for (sql, tables) in [
            ("INSERT INTO u SELECT a FROM t", &["u", "w"][..]),
            ("DELETE FROM t", &["c", "t"]),
            ("REPLACE INTO t VALUES (1)", &["c", "t"]),
            ("UPDATE u SET a = 1", &["u"]),
            ("DELETE FROM u", &["u"]),
            ("INSERT INTO n DEFAULT VALUES", &["n"]),
            ("INSERT INTO v VALUES (1)", &["v", "w"]),
            ("DELETE FROM sqlite_sequence", &["sqlite_sequence"]),
            ("SELECT * FROM t", &[]),
        ] {
            let mut found = whole.written(&conn, sql).unwrap();
            found.sort();
            assert_eq!(found, tables, "{sql}");
        }
        assert!(Whole::put_on(&mut Connection::open_in_memory().unwrap()).unwrap().is_none());
    }
}
