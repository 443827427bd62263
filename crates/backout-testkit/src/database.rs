//! Everything a SQLite database says, as named lines: schema text in its order, typed rows with their rowids, counters.
//!
//! Read by a plain connection of its own, never by the code under test. What the tool keeps in a database (names that
//! begin with `backout`) is left out.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

/// What is said, by what it is said of.
pub type Lines = BTreeMap<String, String>;

/// Reads a database that nobody is changing.
pub fn read(path: &Path) -> Lines {
    let conn = open(path);
    let mut lines = Lines::new();
    for pragma in ["user_version", "application_id", "encoding", "journal_mode"] {
        let value = conn.query_row(&format!("PRAGMA {pragma}"), [], |row| Ok(shown(row.get_ref(0)?))).unwrap();
        lines.insert(format!("pragma {pragma}"), value);
    }
    schema(&conn, &mut lines);
    for table in tables(&conn) {
        rows(&conn, &table, &mut lines);
    }
    sequences(&conn, &mut lines);
    lines
}

/// What SQLite itself finds wrong with the file; empty where nothing is.
pub fn integrity(path: &Path) -> Vec<String> {
    let conn = open(path);
    let mut statement = conn.prepare("PRAGMA integrity_check").unwrap();
    let found = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    found.map(Result::unwrap).filter(|line| line != "ok").collect()
}

/// Names that begin with `backout`: what the tool keeps.
pub fn own_objects(path: &Path) -> Vec<String> {
    let conn = open(path);
    let mut statement =
        conn.prepare("SELECT name FROM sqlite_schema WHERE lower(name) GLOB 'backout*' ORDER BY name").unwrap();
    let found = statement.query_map([], |row| row.get(0)).unwrap();
    found.map(Result::unwrap).collect()
}

fn open(path: &Path) -> Connection {
    // Read and write, so that a journal that a crash left is played back.
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    conn
}

fn schema(conn: &Connection, lines: &mut Lines) {
    let mut statement = conn
        .prepare(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema
             WHERE lower(name) NOT GLOB 'backout*' AND lower(tbl_name) NOT GLOB 'backout*' AND name <> 'sqlite_sequence'
             ORDER BY rowid",
        )
        .unwrap();
    let mut found = statement.query([]).unwrap();
    let mut place = 0;
    while let Some(row) = found.next().unwrap() {
        place += 1;
        let text: Vec<String> = (0..4).map(|column| shown(row.get_ref(column).unwrap())).collect();
        lines.insert(format!("schema {place:04}"), text.join(" "));
    }
}

/// Every table with rows of its own, whether it has rowids and its columns.
struct Table {
    name: String,
    rowid: Option<&'static str>,
}

fn tables(conn: &Connection) -> Vec<Table> {
    let mut statement = conn
        .prepare(
            "SELECT name, wr FROM pragma_table_list
             WHERE schema = 'main' AND type IN ('table', 'virtual', 'shadow') AND lower(name) NOT GLOB 'backout*'
               AND name NOT IN ('sqlite_schema', 'sqlite_sequence') ORDER BY name",
        )
        .unwrap();
    let found: Vec<(String, bool)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    found
        .into_iter()
        .map(|(name, without_rowid)| {
            let rowid = if without_rowid { None } else { rowid_of(conn, &name) };
            Table { name, rowid }
        })
        .collect()
}

fn rowid_of(conn: &Connection, table: &str) -> Option<&'static str> {
    let mut statement = conn.prepare("SELECT lower(name) FROM pragma_table_xinfo(?1)").unwrap();
    let columns: Vec<String> = statement.query_map([table], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    ["rowid", "_rowid_", "oid"].into_iter().find(|alias| !columns.iter().any(|column| column == alias))
}

fn rows(conn: &Connection, table: &Table, lines: &mut Lines) {
    let name = table.name.replace('"', "\"\"");
    let key = table.rowid.map(|alias| format!("{alias}, ")).unwrap_or_default();
    let mut statement = conn.prepare(&format!("SELECT {key}* FROM main.\"{name}\"")).unwrap();
    let columns = statement.column_count();
    let mut found = statement.query([]).unwrap();
    while let Some(row) = found.next().unwrap() {
        let first = usize::from(table.rowid.is_some());
        let values = texts(row, first..columns);
        let key = if first == 1 { shown(row.get_ref(0).unwrap()) } else { values.clone() };
        lines.insert(format!("row {} {key}", table.name), values);
    }
}

fn texts(row: &Row<'_>, columns: std::ops::Range<usize>) -> String {
    columns.map(|column| shown(row.get_ref(column).unwrap())).collect::<Vec<_>>().join(" | ")
}

/// An empty `sqlite_sequence` counts as none: SQLite never drops the table once it made it.
fn sequences(conn: &Connection, lines: &mut Lines) {
    let there = conn
        .query_row("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'", [], |_| Ok(()))
        .optional()
        .unwrap();
    if there.is_none() {
        return;
    }
    let mut statement = conn.prepare("SELECT name, seq FROM sqlite_sequence ORDER BY rowid").unwrap();
    let mut found = statement.query([]).unwrap();
    while let Some(row) = found.next().unwrap() {
        lines.insert(format!("sequence {}", shown(row.get_ref(0).unwrap())), shown(row.get_ref(1).unwrap()));
    }
}

/// A value with its type, exactly: `1` and `1.0` and `'1'` differ, and so do all bytes.
fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}#{:016x}", number.to_bits()),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => format!("{text:?}"),
            Err(_) => format!("text {bytes:02x?}"),
        },
        ValueRef::Blob(bytes) => format!("x{bytes:02x?}"),
    }
}
