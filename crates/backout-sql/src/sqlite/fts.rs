//! Full-text tables (FTS5): what they are kept in, when it is written, and how they go and come back whole.
//!
//! A full-text table is a virtual table over ordinary shadow tables, whose rows the hook sees. It has no b-tree of its
//! own, so a dropped one is held by its shadow tables, which only change their names.

use backout_model::conflict::{Conflict, ConflictKind, Conflicts};
use backout_model::target::TargetError;
use rusqlite::Connection;

use super::ddl::Context;
use super::ddl_event::{DdlEvent, Hold};
use super::schema::SchemaRow;
use super::split::Statement;
use super::token::quote;
use super::{ddl_hold, ddl_side, schema};

/// Has every virtual table write what it keeps in memory into its shadow tables, which FTS5 else does at the COMMIT:
/// too late for the images. A savepoint makes it do so at once.
pub fn flush(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch("SAVEPOINT backout_flush; RELEASE backout_flush")
}

/// The rows of `sqlite_schema` of the shadow tables that a virtual table is kept in and their indexes, in order.
fn shadows(conn: &Connection, table: &str) -> rusqlite::Result<Vec<SchemaRow>> {
    let all: Vec<String> = conn
        .prepare("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    // So SQLite tells whose one is: by all that stands before the last underscore.
    let is_of = |shadow: &&String| shadow.rsplit_once('_').is_some_and(|(of, _)| of.eq_ignore_ascii_case(table));
    let mut rows = Vec::new();
    for shadow in all.iter().filter(is_of) {
        rows.append(&mut schema::of_table(conn, shadow)?);
    }
    rows.sort_by_key(|row| row.rowid);
    Ok(rows)
}

/// The full-text table of which a shadow table keeps the index: what can be made again from the content, and is of no
/// use but whole.
pub fn index_of(conn: &Connection, shadow: &str) -> rusqlite::Result<Option<String>> {
    for ending in ["_data", "_idx", "_docsize"] {
        let Some(at) = shadow.len().checked_sub(ending.len()) else { continue };
        if shadow.get(at..).is_some_and(|end| end.eq_ignore_ascii_case(ending)) {
            let table = &shadow[..at];
            let module = schema::module(conn, table)?;
            return Ok(module.filter(|module| module.eq_ignore_ascii_case("fts5")).map(|_| table.to_owned()));
        }
    }
    Ok(None)
}

/// True for the shadow tables that [`index_of`] means.
pub fn is_index_of(table: &str, shadow: &str) -> bool {
    shadow.get(..table.len()).filter(|start| start.eq_ignore_ascii_case(table)).is_some_and(|_| {
        ["_data", "_idx", "_docsize"].iter().any(|end| shadow[table.len()..].eq_ignore_ascii_case(end))
    })
}

/// Makes the index of a full-text table anew from its content, where somebody else wrote to it, too. A table without
/// content keeps the index of now, which is a conflict.
pub fn rebuild(conn: &Connection, target: &str, table: &str, conflicts: &mut Conflicts) -> Result<(), TargetError> {
    let cannot = |error| TargetError::failed(format!("cannot rebuild the full-text table {table} in {target}"), error);
    if schema::module(conn, table).map_err(cannot)?.is_none() {
        return Ok(());
    }
    let name = quote(table);
    match conn.execute(&format!("INSERT INTO main.{name} ({name}) VALUES ('rebuild')"), []) {
        Ok(_) => flush(conn).map_err(cannot),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::Unknown) => {
            conflicts.push(Conflict {
                target: target.to_owned(),
                object: table.to_owned(),
                key: None,
                column: None,
                kind: ConflictKind::Changed,
                before: "its index of before".to_owned(),
                left: "its index as the deployment left it".to_owned(),
                now: "an index that somebody else changed since, without the content to make it anew".to_owned(),
            });
            Ok(())
        }
        Err(error) => Err(cannot(error)),
    }
}

/// Runs DROP TABLE of a full-text table.
pub(super) fn drop_table(
    context: &mut Context<'_>,
    statement: &Statement,
    table: &SchemaRow,
    event: &mut DdlEvent,
) -> Result<(), TargetError> {
    let conn = context.conn;
    let act = format!("set {} aside", table.shown());
    flush(conn).map_err(|error| context.cannot(&act, error))?;
    let shadows = shadows(conn, &table.name).map_err(|error| context.cannot(&act, error))?;
    for row in shadows {
        if event.gone.iter().all(|gone| gone.rowid != row.rowid) {
            event.gone.push(row);
        }
    }
    event.gone.sort_by_key(|row| row.rowid);
    let rows: Vec<SchemaRow> = event.gone.iter().filter(|row| row.rootpage != 0).cloned().collect();
    // The statistics of each go with it, as SQLite would have it.
    for shadow in rows.iter().filter(|row| row.kind == "table") {
        let side = ddl_side::of_table(conn, &shadow.name).map_err(|error| context.cannot(&act, error))?;
        ddl_side::remove(conn, &side).map_err(|error| context.cannot(&act, error))?;
        event.side_before.extend(side);
    }
    event.side_before.sort_by(|one, other| (&one.table, one.rowid).cmp(&(&other.table, other.rowid)));
    let mut hold: Option<Hold> = None;
    for shadow in rows.iter().filter(|row| row.kind == "table") {
        let of_one: Vec<SchemaRow> = rows.iter().filter(|row| row.table == shadow.table).cloned().collect();
        let held = ddl_hold::soft_drop(context, &of_one, statement)?;
        match &mut hold {
            Some(hold) => {
                hold.more.push(held.table);
                hold.objects.extend(held.objects);
            }
            None => hold = Some(held),
        }
    }
    event.hold = hold;
    // What is left is a name: the row without a b-tree, and its triggers, which virtual tables cannot have.
    schema::edit(conn, || {
        conn.execute(
            "DELETE FROM main.sqlite_schema WHERE type = 'table' AND rootpage = 0 AND name = ?1",
            [&table.name],
        )
        .map(drop)
        .map_err(|error| context.cannot(&act, error))
    })
}
