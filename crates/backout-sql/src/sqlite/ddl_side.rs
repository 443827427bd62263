//! Rows that SQLite keeps about tables: `sqlite_sequence` and the statistics of ANALYZE. Never the user's own rows.

use backout_model::target::TargetError;
use rusqlite::{Connection, params_from_iter};
use serde::{Deserialize, Serialize};

use super::ddl::{Context, execute};
use super::ddl_event::{DdlEvent, Kind};
use super::schema::{self, SchemaRow};
use super::split::Statement;
use super::token::quote;
use super::value::Cell;
use crate::shown::shorten;

pub const SEQUENCE: &str = "sqlite_sequence";
const STATISTICS: [&str; 4] = ["sqlite_stat1", "sqlite_stat2", "sqlite_stat3", "sqlite_stat4"];

/// One row of such a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideRow {
    pub table: String,
    pub rowid: i64,
    pub values: Vec<Cell>,
}

fn exists(conn: &Connection, table: &str) -> rusqlite::Result<bool> {
    schema::object(conn, "table", table).map(|row| row.is_some())
}

fn read(conn: &Connection, table: &str, filter: Option<(&str, &str)>) -> rusqlite::Result<Vec<SideRow>> {
    if !exists(conn, table)? {
        return Ok(Vec::new());
    }
    let condition = filter.map_or(String::new(), |(column, _)| format!("WHERE {column} = ?1"));
    let mut select = conn.prepare(&format!("SELECT rowid, * FROM main.{table} {condition} ORDER BY rowid"))?;
    let width = select.column_count();
    let mut rows = select.query(params_from_iter(filter.map(|(_, value)| value)))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let values = (1..width).map(|at| row.get_ref(at).map(Cell::of)).collect::<Result<_, _>>()?;
        found.push(SideRow { table: table.to_owned(), rowid: row.get(0)?, values });
    }
    Ok(found)
}

/// What goes away with a table.
pub fn of_table(conn: &Connection, table: &str) -> rusqlite::Result<Vec<SideRow>> {
    let mut found = read(conn, SEQUENCE, Some(("name", table)))?;
    for statistics in STATISTICS {
        found.append(&mut read(conn, statistics, Some(("tbl", table)))?);
    }
    Ok(found)
}

/// What goes away with an index.
pub fn of_index(conn: &Connection, index: &str) -> rusqlite::Result<Vec<SideRow>> {
    let mut found = Vec::new();
    for statistics in STATISTICS {
        found.append(&mut read(conn, statistics, Some(("idx", index)))?);
    }
    Ok(found)
}

/// True for the tables of ANALYZE, which are nobody's data.
pub fn is_statistics(table: &str) -> bool {
    STATISTICS.iter().any(|statistics| table.eq_ignore_ascii_case(statistics))
}

/// What is said where somebody had statistics gathered since.
pub fn stay(target: &str) -> String {
    format!("{target}: the statistics were made anew since and stay")
}

pub(super) fn all_statistics(conn: &Connection) -> rusqlite::Result<Vec<SideRow>> {
    let mut found = Vec::new();
    for statistics in STATISTICS {
        found.append(&mut read(conn, statistics, None)?);
    }
    Ok(found)
}

pub fn remove(conn: &Connection, rows: &[SideRow]) -> rusqlite::Result<()> {
    for row in rows {
        conn.prepare_cached(&format!("DELETE FROM main.{} WHERE rowid = ?1", row.table))?.execute([row.rowid])?;
    }
    Ok(())
}

/// Puts rows back at their places; what came to stand there since moves down, its order kept.
pub fn put_back(conn: &Connection, rows: &[SideRow]) -> rusqlite::Result<()> {
    for row in rows {
        let table = &row.table;
        if !exists(conn, table)? {
            continue;
        }
        let taken: bool = conn
            .prepare_cached(&format!("SELECT EXISTS (SELECT 1 FROM main.{table} WHERE rowid = ?1)"))?
            .query_row([row.rowid], |found| found.get(0))?;
        if taken {
            conn.prepare_cached(&format!("UPDATE main.{table} SET rowid = -rowid - 1 WHERE rowid >= ?1"))?
                .execute([row.rowid])?;
            conn.prepare_cached(&format!("UPDATE main.{table} SET rowid = -rowid WHERE rowid < 0"))?.execute([])?;
        }
        let columns: Vec<String> = conn
            .prepare_cached("SELECT name FROM pragma_table_info(?1, 'main') ORDER BY cid")?
            .query_map([table], |found| found.get::<_, String>(0).map(|name| quote(&name)))?
            .collect::<Result<_, _>>()?;
        let places = vec!["?"; row.values.len() + 1].join(", ");
        let rowid = Cell::Integer(row.rowid);
        let values = std::iter::once(&rowid).chain(&row.values);
        conn.prepare_cached(&format!("INSERT INTO main.{table} (rowid, {}) VALUES ({places})", columns.join(", ")))?
            .execute(params_from_iter(values))?;
    }
    Ok(())
}

/// What ALTER TABLE RENAME does to the counter of a table.
pub fn rename(conn: &Connection, from: &str, to: &str) -> rusqlite::Result<()> {
    if exists(conn, SEQUENCE)? {
        conn.execute("UPDATE main.sqlite_sequence SET name = ?2 WHERE name = ?1", [from, to])?;
    }
    Ok(())
}

/// Has SQLite make `sqlite_sequence` where it is missing: VACUUM takes it away when no table counts by it, and a table
/// that does is nothing without it.
pub fn make_sequence_table(context: &mut Context<'_>) -> Result<(), TargetError> {
    let conn = context.conn;
    let act = "make sqlite_sequence";
    if exists(conn, SEQUENCE).map_err(|error| context.cannot(act, error))? {
        return Ok(());
    }
    let name = quote(&context.new_name()?);
    execute(conn, &format!("CREATE TABLE main.{name}(id INTEGER PRIMARY KEY AUTOINCREMENT)"))
        .and_then(|()| execute(conn, &format!("DROP TABLE main.{name}")))
        .map_err(|error| context.cannot(act, error))
}

/// Takes `sqlite_sequence` away again, which SQLite itself never does, where nobody needs it.
pub fn drop_sequence_table(context: &mut Context<'_>, notes: &mut Vec<String>) -> Result<(), TargetError> {
    let conn = context.conn;
    let used = || -> rusqlite::Result<bool> {
        let rows: i64 = conn.query_row("SELECT count(*) FROM main.sqlite_sequence", [], |row| row.get(0))?;
        // Too many would do no harm: the word may stand in a comment.
        let tables: i64 = conn.query_row(
            "SELECT count(*) FROM main.sqlite_schema WHERE type = 'table' AND sql LIKE '%autoincrement%'",
            [],
            |row| row.get(0),
        )?;
        Ok(rows > 0 || tables > 0)
    };
    if used().map_err(|error| context.cannot("read sqlite_sequence", error))? {
        notes.push(format!("{}: sqlite_sequence stays, other tables count by it now", context.target));
        return Ok(());
    }
    let act = "drop sqlite_sequence";
    let Some(now) = schema::object(conn, "table", SEQUENCE).map_err(|error| context.cannot(act, error))? else {
        return Ok(());
    };
    // DROP TABLE refuses that name, so it gets another one first.
    let name = context.new_name()?;
    let other = SchemaRow {
        name: name.clone(),
        table: name.clone(),
        sql: Some(format!("CREATE TABLE {}(name,seq)", quote(&name))),
        ..now.clone()
    };
    schema::edit(conn, || {
        schema::rewrite(conn, &now, &other).map_err(|error| TargetError::failed("cannot drop sqlite_sequence", error))
    })?;
    execute(conn, &format!("DROP TABLE main.{}", quote(&name))).map_err(|error| context.cannot(act, error))
}

/// Runs ANALYZE, or whatever else writes the statistics, and keeps them as they were and as they are then.
pub fn run_analyze(context: &mut Context<'_>, statement: &Statement) -> Result<DdlEvent, TargetError> {
    let failed =
        |error| TargetError::failed(format!("cannot run line {}: {}", statement.line, shorten(&statement.sql)), error);
    let conn = context.conn;
    let tables_before = statistics_tables(conn).map_err(failed)?;
    let mut event = DdlEvent::new(statement, Kind::Analyze, "statistics".into());
    event.side_before = all_statistics(conn).map_err(failed)?;
    execute(conn, &statement.sql).map_err(failed)?;
    forget_our_own(conn).map_err(failed)?;
    event.side_after = all_statistics(conn).map_err(failed)?;
    let tables_after = statistics_tables(conn).map_err(failed)?;
    event.made = without(&tables_after, &tables_before);
    event.gone = without(&tables_before, &tables_after);
    Ok(event)
}

pub(super) fn statistics_tables(conn: &Connection) -> rusqlite::Result<Vec<SchemaRow>> {
    STATISTICS.iter().filter_map(|name| schema::object(conn, "table", name).transpose()).collect()
}

pub(super) fn without(some: &[SchemaRow], others: &[SchemaRow]) -> Vec<SchemaRow> {
    some.iter().filter(|row| others.iter().all(|other| other.name != row.name)).cloned().collect()
}

/// ANALYZE looks at the tool's own tables, too, which nobody should see in the statistics.
pub(super) fn forget_our_own(conn: &Connection) -> rusqlite::Result<()> {
    for table in STATISTICS {
        if exists(conn, table)? {
            conn.execute(&format!("DELETE FROM main.{table} WHERE tbl LIKE 'backout%'"), [])?;
        }
    }
    Ok(())
}

/// Puts the statistics back, unless somebody made them anew since.
pub fn undo_analyze(context: &mut Context<'_>, event: &DdlEvent, notes: &mut Vec<String>) -> Result<(), TargetError> {
    let conn = context.conn;
    let act = "put the statistics back";
    if all_statistics(conn).map_err(|error| context.cannot(act, error))? != event.side_after {
        let note = stay(context.target);
        if !notes.contains(&note) {
            notes.push(note);
        }
        return Ok(());
    }
    remove(conn, &event.side_after).map_err(|error| context.cannot(act, error))?;
    for table in &event.made {
        execute(conn, &format!("DROP TABLE IF EXISTS main.{}", quote(&table.name)))
            .map_err(|error| context.cannot(act, error))?;
    }
    if !event.gone.is_empty() {
        super::ddl_hold::put_back(context, event)?;
    }
    put_back(conn, &event.side_before).map_err(|error| context.cannot(act, error))
}
