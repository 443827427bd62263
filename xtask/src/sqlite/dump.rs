//! A canonical dump: every definition in its order, every row with its rowid and typed values, the counters.
//! Two databases are the same when their dumps are. What the tool keeps for itself is left out; nothing is written
//! to the database.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::shape::{self, Kind, Table};
use super::{client, own, quoted};
use crate::fidelity::dump::Dump;

/// Dumps a database into a file.
pub fn dump(database: &Path, file: PathBuf) -> Result<Dump> {
    let connection = client::open(database)?;
    let mut sink = Sink {
        out: BufWriter::new(File::create(&file).with_context(|| format!("making {}", file.display()))?),
        hasher: blake3::Hasher::new(),
        without_shadows: blake3::Hasher::new(),
        in_shadow: false,
    };
    write_all(&connection, &mut sink).with_context(|| format!("dumping {}", database.display()))?;
    sink.out.flush()?;
    let exact = sink.hasher.finalize();
    // SQLite's clock runs in whole seconds, and scripts that read it are not judged.
    Ok(Dump { exact, timeless: exact, content: sink.without_shadows.finalize(), file })
}

struct Sink {
    out: BufWriter<File>,
    hasher: blake3::Hasher,
    without_shadows: blake3::Hasher,
    /// What comes now is data of a virtual table.
    in_shadow: bool,
}

impl Sink {
    fn line(&mut self, text: &str) -> Result<()> {
        // A definition may hold line breaks; a line of the dump is one thing.
        let line = text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        let line = line + "\n";
        self.hasher.update(line.as_bytes());
        if !self.in_shadow {
            self.without_shadows.update(line.as_bytes());
        }
        self.out.write_all(line.as_bytes())?;
        Ok(())
    }
}

fn write_all(connection: &Connection, sink: &mut Sink) -> Result<()> {
    // One snapshot for all that is read.
    connection.execute_batch("BEGIN")?;
    for counter in ["user_version", "application_id", "encoding", "auto_vacuum", "page_size", "journal_mode"] {
        let value = connection.query_row(&format!("PRAGMA {counter}"), [], |row| Ok(typed(row.get_ref(0)?)))?;
        sink.line(&format!("pragma {counter} {value}"))?;
    }
    write_integrity(connection, sink)?;
    write_schema(connection, sink)?;
    write_internal(connection, sink)?;
    for table in shape::tables(connection)? {
        // A virtual table's rows stand in its shadow tables.
        sink.in_shadow = table.kind == Kind::Shadow;
        if table.kind != Kind::Virtual {
            write_rows(connection, &table, sink).with_context(|| format!("dumping table {}", table.name))?;
        }
    }
    connection.execute_batch("COMMIT")?;
    Ok(())
}

/// What the library itself thinks of the file: rows in place that no index finds are not the same database.
fn write_integrity(connection: &Connection, sink: &mut Sink) -> Result<()> {
    let mut statement = connection.prepare("PRAGMA integrity_check(20)")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        sink.line(&format!("integrity {}", typed(row.get_ref(0)?)))?;
    }
    Ok(())
}

fn write_schema(connection: &Connection, sink: &mut Sink) -> Result<()> {
    let mut statement = connection.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, name, table): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if !own(&name) && !own(&table) {
            sink.line(&format!("{kind} {name} on {table}: {}", typed(row.get_ref(3)?)))?;
        }
    }
    Ok(())
}

/// The library's own tables: the counters of AUTOINCREMENT and the planner's statistics.
fn write_internal(connection: &Connection, sink: &mut Sink) -> Result<()> {
    for (table, naming) in [("sqlite_sequence", "name"), ("sqlite_stat1", "tbl"), ("sqlite_stat4", "tbl")] {
        let exists: bool =
            connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = ?1", [table], |row| row.get(0))?;
        if exists {
            let sql = format!("SELECT * FROM {table} WHERE {naming} NOT LIKE 'backout%' ORDER BY rowid");
            write_query(connection, &sql, table, sink)?;
        }
    }
    Ok(())
}

fn write_rows(connection: &Connection, table: &Table, sink: &mut Sink) -> Result<()> {
    let mut wanted: Vec<String> =
        table.columns.iter().filter(|column| !column.hidden).map(|column| quoted(&column.name)).collect();
    let order = match table.rowid() {
        Some(rowid) => {
            wanted.insert(0, rowid.to_owned());
            rowid.to_owned()
        }
        None => key_order(table),
    };
    let name = quoted(&table.name);
    // NOT INDEXED: the rows themselves are compared, not what an index makes of them.
    let indexed = if table.without_rowid { "" } else { " NOT INDEXED" };
    let sql = format!("SELECT {} FROM {name}{indexed} ORDER BY {order}", wanted.join(", "));
    write_query(connection, &sql, &table.name, sink)
}

/// The primary key's columns, else all.
fn key_order(table: &Table) -> String {
    let mut keys: Vec<_> = table.columns.iter().filter(|column| column.key > 0).collect();
    keys.sort_by_key(|column| column.key);
    if keys.is_empty() {
        keys = table.columns.iter().collect();
    }
    keys.iter().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ")
}

fn write_query(connection: &Connection, sql: &str, label: &str, sink: &mut Sink) -> Result<()> {
    let mut statement = connection.prepare(sql)?;
    let width = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let mut line = format!("row {label}:");
        for index in 0..width {
            line.push(' ');
            line.push_str(&typed(row.get_ref(index)?));
        }
        sink.line(&line)?;
    }
    Ok(())
}

/// A value with its type, exact to the bit.
fn typed(value: ValueRef<'_>) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(number) => format!("i{number}"),
        ValueRef::Real(number) => format!("r{number}/{:016x}", number.to_bits()),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => format!("t{text:?}"),
            Err(_) => format!("tx{}", hex(bytes)),
        },
        ValueRef::Blob(bytes) => format!("b{}", hex(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fidelity::dump::Alike;

    /// Dumps what a base script and then each of two others make; true when the two dumps are the same.
    fn same(one: &str, other: &str) -> Result<bool> {
        const BASE: &str =
            "CREATE TABLE a(x, y TEXT, z AS (y || '!')); CREATE TABLE q(i INTEGER PRIMARY KEY AUTOINCREMENT);
            CREATE TABLE k(n TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO a VALUES(1, 'one'), (2, 'two');
            INSERT INTO q VALUES(1); INSERT INTO k VALUES('b', 1), ('a', 2);";
        let dir = tempfile::tempdir()?;
        let mut dumps = Vec::new();
        for (name, script) in [("one", one), ("other", other)] {
            let database = dir.path().join(name);
            client::open(&database)?.execute_batch(&format!("{BASE}{script}"))?;
            dumps.push(dump(&database, dir.path().join(format!("{name}.dump")))?);
        }
        let same = dumps[0].same(&dumps[1], Alike::Exactly);
        assert_eq!(same, dumps[0].differences(&dumps[1])?.is_empty());
        Ok(same)
    }

    #[test]
    fn a_dump_sees_every_difference() -> Result<()> {
        for script in [
            "UPDATE a SET x = 1.0 WHERE x = 1",
            "UPDATE a SET x = '1' WHERE x = 1",
            "UPDATE a SET x = x'31' WHERE x = 1",
            "UPDATE a SET rowid = 9 WHERE x = 1",
            "UPDATE a SET y = NULL WHERE x = 2",
            "DELETE FROM a WHERE x = 2",
            "INSERT INTO q VALUES(7); DELETE FROM q WHERE i = 7",
            "UPDATE k SET v = 3 WHERE n = 'a'",
            "CREATE INDEX i ON a(x)",
            "DROP TABLE a; CREATE TABLE a(x, y TEXT, z AS (y || '!')); INSERT INTO a VALUES(1, 'one'), (2, 'two')",
            "ALTER TABLE a RENAME COLUMN x TO w",
            "PRAGMA user_version = 3",
            "ANALYZE",
        ] {
            assert!(!same("", script)?, "{script}");
        }
        Ok(())
    }

    #[test]
    fn the_layout_of_a_virtual_table_can_be_left_out() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let rows = ["INSERT INTO f VALUES ('a')", "INSERT INTO f VALUES ('b')"];
        let mut dumps = Vec::new();
        for (name, script) in [("one", rows.join("; ")), ("other", format!("BEGIN; {}; COMMIT", rows.join("; ")))] {
            let connection = client::open(&dir.path().join(name))?;
            connection.execute_batch(&format!("CREATE VIRTUAL TABLE f USING fts5(body); {script}"))?;
            dumps.push(dump(&dir.path().join(name), dir.path().join(format!("{name}.dump")))?);
        }
        assert!(!dumps[0].same(&dumps[1], Alike::Exactly) && dumps[0].same(&dumps[1], Alike::InContent));
        Ok(())
    }

    #[test]
    fn a_dump_leaves_out_what_the_tool_keeps() -> Result<()> {
        let own = "CREATE TABLE backout_shop(x INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO backout_shop VALUES(4);
            CREATE INDEX backout_shop_x ON backout_shop(x);";
        assert!(same("", own)?);
        assert!(same("UPDATE a SET x = 5; UPDATE a SET x = rowid", "")?);
        Ok(())
    }
}
