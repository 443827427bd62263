//! Holds what a draft comes to against the copy of after: definitions, rows, the two numbers of the database itself. Works on
//! private copies; never on the user's database.

use std::fs::File;
use std::io::{self, BufReader};

use rusqlite::Connection;

use super::capture::read_table;
use super::compared_rows::{Sink, compare};
use super::counters::{self, Counters};
use super::draft::{AFTER, DraftError, Objects, is_virtual, objects, refuse};
use super::schema::SchemaRow;
use super::writer::Writer;
use super::{draft_tables, split};

/// True where a table of the database and of the attached one do not hold the same.
pub(super) fn differs(conn: &Connection, name: &str) -> Result<bool, DraftError> {
    let there = |schema: &str| -> rusqlite::Result<bool> {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {schema}.sqlite_schema WHERE name = ?1 COLLATE NOCASE)");
        conn.query_row(&sql, [name], |row| row.get(0))
    };
    if !there("main")? || !there(AFTER)? {
        return Ok(true);
    }
    let (table, _) = read_table(conn, name)?;
    let mut writer = Writer::new(Box::new(io::sink()))?;
    let mut told = |_| ();
    let mut sink = Sink::new(&mut writer, 0, &mut told);
    compare(conn, &table, Some("main"), Some(AFTER), &mut sink)?;
    Ok(sink.found.all() > 0)
}

/// Runs the script, and what is left out of it, on a copy of before and compares what comes of it with the copy of after.
pub(super) fn prove(
    label: &str,
    proof: &Connection,
    scripts: [File; 2],
    news: &Objects,
    numbers: &Counters,
    leave_out: &dyn Fn(&str) -> bool,
) -> Result<(), DraftError> {
    // As steps run.
    proof.execute_batch("PRAGMA foreign_keys = OFF; BEGIN")?;
    for statement in scripts.into_iter().flat_map(|script| split::statements(BufReader::new(script))) {
        let statement = statement.map_err(|error| refuse("the script", error.to_string()))?;
        proof.execute_batch(&statement.sql).map_err(|error| {
            let what = format!("the statement `{}`", crate::shown::shorten(&statement.sql));
            refuse(what, format!("it does not run on a copy of before: {error}"))
        })?;
    }
    proof.execute_batch("COMMIT")?;
    let found = objects(proof, leave_out)?;
    for (key, wanted) in news {
        let same = found.get(key).is_some_and(|row| same_text(row, wanted));
        if !same {
            return Err(refuse(wanted.shown(), "no statements were found that come to its definition"));
        }
    }
    if let Some((_, extra)) = found.iter().find(|(key, _)| !news.contains_key(key)) {
        return Err(refuse(extra.shown(), "no statements were found that take it away"));
    }
    for row in news.values().filter(|row| row.kind == "table" && !is_virtual(row)) {
        if differs(proof, &row.name)? {
            return Err(refuse(row.shown(), "its rows would not come to what they are here"));
        }
    }
    let came = counters::read(proof, label)?;
    if (came.user_version, came.application_id) != (numbers.user_version, numbers.application_id) {
        return Err(refuse("user_version or application_id", "it would not come to what it is here"));
    }
    Ok(())
}

/// The same but for quotes around the object's own name, which a rename puts there.
fn same_text(one: &SchemaRow, other: &SchemaRow) -> bool {
    let plain = |row: &SchemaRow| {
        let sql = row.sql.clone().unwrap_or_default();
        draft_tables::with_name(&sql, &row.name).unwrap_or(sql)
    };
    one.table.eq_ignore_ascii_case(&other.table) && (one.sql == other.sql || plain(one) == plain(other))
}
