//! Keeps whole tables: what DROP TABLE and DELETE without WHERE take away stays in its b-trees, which only change
//! their names in `sqlite_schema`. So neither costs a copy, and both come back at once.
//!
//! A hold has the columns and indexes of its table, so that `integrity_check` finds it sound, and nothing that reaches
//! out of it: no foreign keys, checks or triggers. Rows are never copied through this process.

use backout_model::conflict::{ConflictKind, Conflicts};
use backout_model::target::TargetError;
use rusqlite::Connection;

use super::ddl::{Context, execute, refused};
use super::ddl_event::{DdlEvent, Hold};
use super::ddl_undo::conflict;
use super::head::{Head, Object, head};
use super::schema::{self, SchemaRow, Shape};
use super::split::Statement;
use super::token::{each_token, quote, tokens};
use super::{ddl_side, encoding, twin};
use crate::shown::shorten;

/// Up to how many rows the hook captures a delete-all cheaper than b-trees are exchanged.
pub const FEW_ROWS: i64 = 500;
/// And of how many bytes altogether.
const FEW_BYTES: i64 = 256 * 1024;

/// The names and texts under which a table and its indexes are held; none where their texts are not understood.
fn twins(rows: &[SchemaRow], hold: &str) -> Option<Vec<(SchemaRow, SchemaRow)>> {
    let mut twins = Vec::new();
    for (number, row) in rows.iter().filter(|row| row.kind == "table" || row.kind == "index").enumerate() {
        let (name, sql) = match (&row.sql, row.kind.as_str()) {
            (Some(sql), "table") => (hold.to_owned(), Some(twin::twin_table(sql, hold)?)),
            (Some(sql), _) => {
                let name = format!("{hold}_i{number}");
                let sql = twin::twin_index(sql, &name, hold)?;
                (name, Some(sql))
            }
            // SQLite finds its own indexes by this name.
            (None, _) => (format!("sqlite_autoindex_{hold}_{}", row.name.rsplit('_').next()?), None),
        };
        twins.push((row.clone(), SchemaRow { name, table: hold.to_owned(), sql, ..row.clone() }));
    }
    Some(twins)
}

/// Makes a hold of a table and its indexes from the rows of another database that is attached as `from`.
pub(super) fn hold_copy(
    context: &mut Context<'_>,
    rows: &[SchemaRow],
    from: &str,
    statement: &Statement,
) -> Result<Hold, TargetError> {
    let conn = context.conn;
    let act = "keep the rows of a table";
    let hold = context.new_name()?;
    let Some(twins) = twins(rows, &hold) else { return Err(not_understood(statement)) };
    for sql in twins.iter().filter_map(|(_, twin)| twin.sql.as_deref()) {
        execute(conn, &in_main(sql)).map_err(|error| context.cannot(act, error))?;
    }
    let table = rows.iter().find(|row| row.kind == "table").map_or("", |row| row.name.as_str());
    let shape = schema::shape(conn, &hold).map_err(|error| context.cannot(act, error))?;
    copy(context, &shape, (from, table), &hold).map_err(|error| context.cannot(act, error))?;
    Ok(hold_of(hold, twins))
}

fn hold_of(hold: String, twins: Vec<(SchemaRow, SchemaRow)>) -> Hold {
    let objects = twins.into_iter().map(|(row, twin)| (row.kind, row.name, twin.name)).collect();
    Hold { table: hold, objects, more: Vec::new() }
}

/// Whether a table holds so few rows that the hook had better see them deleted before it is dropped: a hold costs pages
/// and a place in the schema until it is given up.
pub fn empties_first(context: &Context<'_>, table: &SchemaRow) -> rusqlite::Result<bool> {
    let conn = context.conn;
    if context.foreign_keys && deletes_rows(context, table)? || encoding::has_halves(conn, &table.name)? {
        return Ok(false);
    }
    let shape = schema::shape(conn, &table.name)?;
    let is_named = shape.without_rowid || shape.rowid.is_some() || shape.rowid_is_column();
    let lengths: Vec<String> =
        shape.stored().map(|column| format!("coalesce(length(CAST({} AS BLOB)), 0)", quote(&column.name))).collect();
    if !is_named || lengths.is_empty() {
        return Ok(false);
    }
    let sql = format!(
        "SELECT count(*), coalesce(sum(bytes), 0) FROM (SELECT {} AS bytes FROM main.{} LIMIT {})",
        lengths.join(" + "),
        quote(&table.name),
        FEW_ROWS + 1
    );
    let (rows, bytes): (i64, i64) = conn.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows > 0 && rows <= FEW_ROWS && bytes <= FEW_BYTES)
}

/// Runs DROP TABLE.
pub fn drop_table(
    context: &mut Context<'_>,
    statement: &Statement,
    table: &SchemaRow,
    event: &mut DdlEvent,
) -> Result<(), TargetError> {
    let conn = context.conn;
    let failed =
        |error| TargetError::failed(format!("cannot run line {}: {}", statement.line, shorten(&statement.sql)), error);
    event.gone = schema::of_table(conn, &table.name).map_err(failed)?;
    // SQLite's own objections come now.
    conn.prepare(&statement.sql).map_err(failed)?;
    if table.rootpage == 0 {
        return super::fts::drop_table(context, statement, table, event);
    }
    // Whether there are rows to hold is not to decide it: a plan knows none.
    if !is_understood(&event.gone) {
        return Err(not_understood(statement));
    }
    event.side_before = ddl_side::of_table(conn, &table.name).map_err(failed)?;
    if context.foreign_keys && deletes_rows(context, table).map_err(failed)? {
        // The hook sees the rows go, those of other tables too.
        return execute(conn, &statement.sql).map_err(failed);
    }
    let empty: bool = conn
        .query_row(&format!("SELECT NOT EXISTS (SELECT 1 FROM main.{})", quote(&table.name)), [], |row| row.get(0))
        .map_err(failed)?;
    if empty {
        return execute(conn, &statement.sql).map_err(failed);
    }
    let rows = event.gone.clone();
    let hold = soft_drop(context, &rows, statement)?;
    let count = format!("SELECT count(*) FROM main.{}", quote(&hold.table));
    let rows: i64 = conn.query_row(&count, [], |row| row.get(0)).map_err(failed)?;
    event.rows_held = Some(rows.unsigned_abs());
    event.hold = Some(hold);
    ddl_side::remove(conn, &event.side_before).map_err(failed)?;
    drop_temporary_triggers(context, &table.name)
}

/// True where DROP TABLE deletes the rows first, which other tables may feel (`sqlite3FkDropTable`): somebody
/// references the table, or it has deferred keys of its own.
pub(super) fn deletes_rows(context: &Context<'_>, table: &SchemaRow) -> rusqlite::Result<bool> {
    let conn = context.conn;
    let referenced: bool = conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema AS s, pragma_foreign_key_list(s.name, 'main') AS f
             WHERE s.type = 'table' AND s.sql LIKE '%references%' AND f.\"table\" = ?1 COLLATE NOCASE)",
        )?
        .query_row([&table.name], |row| row.get(0))?;
    if referenced {
        return Ok(true);
    }
    let has_keys: bool = conn
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM pragma_foreign_key_list(?1, 'main'))")?
        .query_row([&table.name], |row| row.get(0))?;
    let deferred: bool = conn.query_row("PRAGMA defer_foreign_keys", [], |row| row.get(0))?;
    let text = table.sql.as_deref().unwrap_or_default();
    Ok(has_keys && (deferred || each_token(text).any(|token| token.is("DEFERRED"))))
}

/// Lets a table go by giving it the tool's name.
pub(super) fn soft_drop(
    context: &mut Context<'_>,
    rows: &[SchemaRow],
    statement: &Statement,
) -> Result<Hold, TargetError> {
    let conn = context.conn;
    let act = "set a table aside";
    let hold = context.new_name()?;
    let Some(twins) = twins(rows, &hold) else { return Err(not_understood(statement)) };
    schema::edit(conn, || {
        for (row, twin) in &twins {
            schema::rewrite(conn, row, twin).map_err(|error| context.cannot(act, error))?;
        }
        for trigger in rows.iter().filter(|row| row.kind == "trigger") {
            conn.prepare_cached("DELETE FROM main.sqlite_schema WHERE type = 'trigger' AND name = ?1")
                .and_then(|mut delete| delete.execute([&trigger.name]))
                .map_err(|error| context.cannot(act, error))?;
        }
        Ok(())
    })?;
    // A text that SQLite does not read the same way shows here.
    execute(conn, &format!("SELECT 1 FROM main.{} LIMIT 1", quote(&hold)))
        .map_err(|error| context.cannot(act, error))?;
    Ok(hold_of(hold, twins))
}

/// True where the texts of a table and its indexes are such that their b-trees can be held, and built anew.
pub(super) fn is_understood(rows: &[SchemaRow]) -> bool {
    twins(rows, "backout").is_some()
}

pub(super) fn not_understood(statement: &Statement) -> TargetError {
    refused(statement, "the definition of the table has a form that is not understood, so its rows cannot be held")
}

fn drop_temporary_triggers(context: &Context<'_>, table: &str) -> Result<(), TargetError> {
    let act = "drop temporary triggers";
    let names = || -> rusqlite::Result<Vec<String>> {
        context
            .conn
            .prepare_cached(
                "SELECT name FROM temp.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE",
            )?
            .query_map([table], |row| row.get(0))?
            .collect()
    };
    for name in names().map_err(|error| context.cannot(act, error))? {
        execute(context.conn, &format!("DROP TRIGGER temp.{}", quote(&name)))
            .map_err(|error| context.cannot(act, error))?;
    }
    Ok(())
}

/// Puts the objects of an event back as they were: from the hold where there is one, else with empty b-trees, into
/// which the undo of the rows before writes.
pub fn put_back(context: &mut Context<'_>, event: &DdlEvent) -> Result<(), TargetError> {
    let conn = context.conn;
    let act = format!("bring back {}", event.object);
    let counts = |sql: &str| each_token(sql).any(|token| token.is("AUTOINCREMENT"));
    if event.gone.iter().any(|row| row.kind == "table" && row.sql.as_deref().is_some_and(counts)) {
        ddl_side::make_sequence_table(context)?;
    }
    let mut rows = Vec::new();
    for row in &event.gone {
        let held = event.hold.as_ref().and_then(|hold| {
            hold.objects
                .iter()
                .find(|(kind, name, _)| *kind == row.kind && *name == row.name)
                .map(|(.., held)| held.clone())
        });
        let from = match (row.kind.as_str(), held) {
            (_, Some(held)) => Some((row.kind.clone(), held)),
            ("table", None) if row.sql.as_deref().is_some_and(is_virtual) => None,
            ("table", None) => {
                let with_rowid = !row.sql.as_deref().is_some_and(is_without_rowid);
                Some(("table".to_owned(), fresh(context, with_rowid)?))
            }
            ("index", None) => Some(("table".to_owned(), fresh(context, false)?)),
            _ => None,
        };
        rows.push((row.clone(), from));
    }
    schema::edit(conn, || schema::place(conn, &rows).map_err(|error| context.cannot(&act, error)))
}

/// Makes an empty b-tree, as a table of the tool, and returns its name.
fn fresh(context: &mut Context<'_>, with_rowid: bool) -> Result<String, TargetError> {
    let name = context.new_name()?;
    let form = if with_rowid { "(x)" } else { "(x PRIMARY KEY) WITHOUT ROWID" };
    execute(context.conn, &format!("CREATE TABLE main.{}{form}", quote(&name)))
        .map_err(|error| context.cannot("make a table", error))?;
    Ok(name)
}

fn is_virtual(sql: &str) -> bool {
    matches!(head(sql), Some(Head::Create { object: Object::Virtual, .. }))
}

fn is_without_rowid(sql: &str) -> bool {
    let all = tokens(sql);
    let last = all.iter().rposition(|token| token.is_sign(b')')).unwrap_or(0);
    all[last..].iter().any(|token| token.is("WITHOUT"))
}

/// Puts a dropped index back and fills it; rows that it does not admit are a conflict, and then it stays away.
pub fn put_index_back(
    context: &mut Context<'_>,
    event: &DdlEvent,
    index: &SchemaRow,
    conflicts: &mut Conflicts,
) -> Result<(), TargetError> {
    let table = schema::object(context.conn, "table", &index.table)
        .map_err(|error| context.cannot("read the schema", error))?;
    if table.is_none() {
        let gone = format!("table {} is not there", index.table);
        conflicts.push(conflict(context, &index.shown(), ConflictKind::Definition, gone));
        context.stays = true;
        return Ok(());
    }
    let mut refused = None;
    let done = context.within(|context| {
        put_back(context, event)?;
        if let Err(error) = execute(context.conn, &format!("REINDEX main.{}", quote(&index.name))) {
            refused = Some(error.to_string());
            return Err(context.cannot("build an index", error));
        }
        ddl_side::put_back(context.conn, &event.side_before)
            .map_err(|error| context.cannot("put statistics back", error))
    });
    match (done, refused) {
        (Err(_), Some(why)) if !context.conn.is_autocommit() => {
            conflicts.push(conflict(context, &index.shown(), ConflictKind::Constraint, why));
            context.stays = true;
            Ok(())
        }
        (done, _) => done,
    }
}

/// Empties a table that CREATE TABLE AS has just made; its rows wait in a hold until [`fill`]. None where it is empty.
pub(super) fn set_rows_aside(context: &mut Context<'_>, table: &SchemaRow) -> Result<Option<Hold>, TargetError> {
    let conn = context.conn;
    let act = "set the rows of a new table aside";
    let empty: bool = conn
        .query_row(&format!("SELECT NOT EXISTS (SELECT 1 FROM main.{})", quote(&table.name)), [], |row| row.get(0))
        .map_err(|error| context.cannot(act, error))?;
    if empty {
        return Ok(None);
    }
    exchange_for_twin(context, std::slice::from_ref(table)).map(Some)
}

/// Makes an empty twin of a table and its indexes, and exchanges the b-trees: the table is empty, the hold has the rows.
pub(super) fn exchange_for_twin(context: &mut Context<'_>, rows: &[SchemaRow]) -> Result<Hold, TargetError> {
    let conn = context.conn;
    let act = "set the rows of a table aside";
    let hold = context.new_name()?;
    let Some(twins) = twins(rows, &hold) else {
        return Err(TargetError::failed(format!("cannot {act}"), "the definition of the table is not understood"));
    };
    for sql in twins.iter().filter_map(|(_, twin)| twin.sql.as_deref()) {
        execute(conn, &in_main(sql)).map_err(|error| context.cannot(act, error))?;
    }
    let pairs: Vec<_> = twins.iter().map(|(row, twin)| (row.name.clone(), twin.name.clone())).collect();
    schema::edit(conn, || schema::exchange(conn, &pairs).map_err(|error| context.cannot(act, error)))?;
    Ok(hold_of(hold, twins))
}

/// A twin's text with its database; without it a name could fall into `temp`.
pub fn in_main(sql: &str) -> String {
    let before_name = ["CREATE TABLE ", "CREATE UNIQUE INDEX ", "CREATE INDEX ", "CREATE TRIGGER "]
        .into_iter()
        .find_map(|start| sql.strip_prefix(start).map(|rest| (start, rest)));
    before_name.map_or_else(|| sql.to_owned(), |(start, rest)| format!("{start}main.{rest}"))
}

/// Writes the rows of CREATE TABLE AS where the hook sees them: the same rows with the same rowids.
pub fn fill(context: &mut Context<'_>, event: &DdlEvent) -> Result<(), TargetError> {
    let (Some(hold), Some(table)) = (&event.hold, event.made.first()) else { return Ok(()) };
    let conn = context.conn;
    let act = "fill a new table";
    let shape = schema::shape(conn, &table.name).map_err(|error| context.cannot(act, error))?;
    copy(context, &shape, ("main", &hold.table), &table.name).map_err(|error| context.cannot(act, error))?;
    execute(conn, &format!("DROP TABLE main.{}", quote(&hold.table))).map_err(|error| context.cannot(act, error))
}

/// The columns to write so that a row comes out the same, rowid and all.
pub fn columns(shape: &Shape) -> Vec<String> {
    let rowid = shape.rowid.filter(|_| !shape.rowid_is_column()).map(str::to_owned);
    rowid.into_iter().chain(shape.stored().map(|column| quote(&column.name))).collect()
}

/// `from`: a database and its table.
fn copy(context: &Context<'_>, shape: &Shape, from: (&str, &str), to: &str) -> rusqlite::Result<()> {
    let columns = columns(shape).join(", ");
    let order = shape.rowid.map_or(String::new(), |rowid| format!(" ORDER BY {rowid}"));
    let (database, from) = (from.0, quote(from.1));
    let sql =
        format!("INSERT OR ABORT INTO main.{} ({columns}) SELECT {columns} FROM {database}.{from}{order}", quote(to));
    execute(context.conn, &sql)
}

/// True where SQLite objects to a row, not to the statement or the disk.
pub fn is_constraint(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{ConstraintViolation, TypeMismatch};
    matches!(error.sqlite_error_code(), Some(ConstraintViolation | TypeMismatch))
}

/// The lowest number that no hold of this site has.
pub fn next_hold(conn: &Connection, prefix: &str, label: &str) -> Result<u64, TargetError> {
    let failed = |source| TargetError::failed(format!("cannot read the schema of {label}"), source);
    let mut statement = conn
        .prepare("SELECT substr(name, length(?1) + 1) FROM main.sqlite_schema WHERE substr(name, 1, length(?1)) = ?1")
        .map_err(failed)?;
    let names = statement.query_map([format!("{prefix}h")], |row| row.get::<_, String>(0)).map_err(failed)?;
    let mut next = 1;
    for name in names {
        let digits: String = name.map_err(failed)?.chars().take_while(char::is_ascii_digit).collect();
        next = next.max(digits.parse::<u64>().unwrap_or(0).saturating_add(1));
    }
    Ok(next)
}
