//! Everything that an SQLite database says, as lines: definitions, a line for the rows of each table, counters.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use backout_model::backup::BackupError;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

/// Definitions, in their order.
const SCHEMA: &str = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE lower(name) NOT GLOB 'backout*' \
     AND lower(tbl_name) NOT GLOB 'backout*' AND name <> 'sqlite_sequence' ORDER BY rowid";
/// Tables that hold rows, and whether they are without a rowid.
const TABLES: &str = "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow') \
     AND lower(name) NOT GLOB 'backout*' AND name NOT IN ('sqlite_schema', 'sqlite_sequence') ORDER BY name";

pub fn print(path: &Path, to: &Path) -> Result<(), BackupError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        BackupError::failed(format!("cannot read {}", path.display()), error)
    };
    let mut out = File::create(to).map(BufWriter::new).map_err(|error| failed(error.into()))?;
    lines(path, &mut out).map_err(failed)?;
    out.flush().map_err(|error| failed(error.into()))
}

fn lines(path: &Path, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    conn.busy_timeout(super::sqlite::PATIENCE)?;
    conn.execute_batch("BEGIN")?;
    for pragma in ["user_version", "application_id", "encoding"] {
        let value = conn.query_row(&format!("PRAGMA {pragma}"), [], |row| Ok(shown(row.get_ref(0)?)))?;
        writeln!(out, "{pragma} {value}")?;
    }
    let mut schema = conn.prepare(SCHEMA)?;
    let mut found = schema.query([])?;
    while let Some(row) = found.next()? {
        let (kind, name, table): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let sql: Option<String> = row.get(3)?;
        let of = if name == table { String::new() } else { format!(" of {table}") };
        // One line each, whatever its text holds.
        let sql = sql.map_or_else(|| "by itself".to_owned(), |sql| sql.escape_debug().to_string());
        writeln!(out, "{kind} {name}{of}: {sql}")?;
    }
    let mut tables = conn.prepare(TABLES)?;
    let tables = tables.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)))?;
    for table in tables.collect::<Result<Vec<_>, _>>()? {
        let (name, without_rowid) = table;
        let rowid = if without_rowid { None } else { rowid_of(&conn, &name)? };
        let (rows, digest) = rows(&conn, &name, rowid)?;
        writeln!(out, "the rows of {name:?}: {rows}, {digest}")?;
    }
    // One that is empty counts as none: SQLite never drops it.
    if conn.table_exists(Some("main"), "sqlite_sequence")? {
        let mut counters =
            conn.prepare("SELECT name, seq FROM sqlite_sequence WHERE lower(name) NOT GLOB 'backout*' ORDER BY name")?;
        let mut found = counters.query([])?;
        while let Some(row) = found.next()? {
            writeln!(out, "the counter of {}: {}", shown(row.get_ref(0)?), shown(row.get_ref(1)?))?;
        }
    }
    Ok(())
}

/// A value as people write it.
fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}

/// A name of the rowid that is no column's.
fn rowid_of(conn: &Connection, table: &str) -> rusqlite::Result<Option<&'static str>> {
    let mut statement = conn.prepare("SELECT lower(name) FROM pragma_table_xinfo(?1)")?;
    let columns = statement.query_map([table], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    Ok(["rowid", "_rowid_", "oid"].into_iter().find(|alias| !columns.iter().any(|column| column == alias)))
}

/// How many rows there are, and a digest of them in the order of their keys, each value with its type.
fn rows(conn: &Connection, table: &str, rowid: Option<&str>) -> rusqlite::Result<(u64, blake3::Hash)> {
    let key = rowid.map(|alias| format!("{alias}, ")).unwrap_or_default();
    let mut statement = conn.prepare(&format!("SELECT {key}* FROM main.\"{}\"", table.replace('"', "\"\"")))?;
    let columns = statement.column_count();
    let (mut hasher, mut count) = (blake3::Hasher::new(), 0);
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        count += 1;
        for column in 0..columns {
            value(&mut hasher, row.get_ref(column)?);
        }
    }
    Ok((count, hasher.finalize()))
}

fn value(hasher: &mut blake3::Hasher, value: ValueRef<'_>) {
    let mut part = |kind: u8, bytes: &[u8]| {
        hasher.update(&[kind]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    match value {
        ValueRef::Null => part(0, &[]),
        ValueRef::Integer(number) => part(1, &number.to_le_bytes()),
        ValueRef::Real(number) => part(2, &number.to_bits().to_le_bytes()),
        ValueRef::Text(bytes) => part(3, bytes),
        ValueRef::Blob(bytes) => part(4, bytes),
    }
}
