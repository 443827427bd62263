//! Runs an undone schema change again, to the same result.

use backout_model::conflict::{ConflictKind, Conflicts, OnConflict};
use backout_model::target::{Manner, TargetError};

use super::ddl::{Context, execute, is_legacy, run, run_create, set_legacy};
use super::ddl_event::{DdlEvent, Kind};
use super::ddl_rename::rename;
use super::ddl_undo::{conflict, definition, goes_on, is_malformed, or_conflict, write_texts};
use super::replay::Direction;
use super::schema::{self, SchemaRow};
use super::split::Statement;
use super::token::quote;
use super::{beside, ddl_empty, ddl_hold, ddl_side};
use crate::shown::shorten;

/// Whether the schema still is what the undo left, or the change is to be made anyway. To be called before [`redo`].
pub fn is_clear(
    context: &Context<'_>,
    event: &DdlEvent,
    manner: Manner,
    conflicts: &mut Conflicts,
) -> Result<bool, TargetError> {
    let reading = |error| TargetError::failed(format!("cannot read the schema of {}", context.target), error);
    let mut in_the_way = Conflicts::default();
    // A rename looks for itself.
    let beside = match &event.kind {
        Kind::RenameTable { .. } => true,
        // So does a column beside those of others.
        Kind::AddColumn { table, column } | Kind::DropColumn { table, column } => {
            beside::is_as_before(context, event, table, column)?
        }
        _ => false,
    };
    let changed = event.changed.iter().filter(|_| !beside);
    for row in event.gone.iter().chain(changed.map(|(before, _)| before)) {
        match schema::object(context.conn, &row.kind, &row.name).map_err(reading)? {
            Some(now) if now.is_same(row) => {}
            Some(now) => in_the_way.push(definition(context, row, &now)),
            None => in_the_way.push(conflict(context, &row.shown(), ConflictKind::Missing, "")),
        }
    }
    let text = |row: &SchemaRow| row.sql.as_deref().map(shorten).unwrap_or_default();
    if let Some(made) = event.made.first()
        && let Some(now) = schema::named_like(context.conn, &made.kind, &made.name).map_err(reading)?
    {
        in_the_way.push(conflict(context, &made.shown(), ConflictKind::Appeared, text(&now)));
    }
    let is_clear = in_the_way.is_empty() || manner.on_conflict == OnConflict::Overwrite;
    // What hangs on a table or view goes with it.
    let before = in_the_way.total;
    for gone in event.gone.iter().filter(|row| row.kind == "table" || row.kind == "view") {
        for row in schema::of_table(context.conn, &gone.name).map_err(reading)? {
            let is_known = event.gone.iter().any(|gone| gone.kind == row.kind && gone.name == row.name);
            if !is_known && row.sql.is_some() {
                in_the_way.push(conflict(context, &row.shown(), ConflictKind::Definition, text(&row)));
            }
        }
    }
    let takes_along = in_the_way.total > before;
    conflicts.extend(in_the_way);
    Ok(is_clear && (!takes_along || goes_on(manner)))
}

/// Runs an undone change again, to the same result; the event of this time. What others made since and does not go
/// together with it is a conflict, and then nothing has changed.
pub fn redo(
    context: &mut Context<'_>,
    event: &DdlEvent,
    manner: Manner,
    conflicts: &mut Conflicts,
) -> Result<DdlEvent, TargetError> {
    let done = or_conflict(context, event, manner, conflicts, objects, |context, conflicts| {
        again(context, event, manner, conflicts)
    });
    Ok(done?.flatten().unwrap_or_else(|| left(event)))
}

/// Makes an object again that a comparison found, at the place where it stood.
fn found_again(context: &mut Context<'_>, event: &DdlEvent, statement: &Statement) -> Result<DdlEvent, TargetError> {
    let again = run_create(context, statement, false)?;
    let conn = context.conn;
    let act = format!("make {} again", event.object);
    // `sqlite_sequence` comes by itself and stays where it comes.
    let own = event.made.iter().filter(|row| row.name != ddl_side::SEQUENCE);
    let rows: Vec<_> = own.map(|row| (row.clone(), Some((row.kind.clone(), row.name.clone())))).collect();
    schema::edit(conn, || schema::place(conn, &rows).map_err(|error| context.cannot(&act, error)))?;
    Ok(DdlEvent { found: true, made: event.made.clone(), ..again })
}

/// Brings statistics again that a comparison found.
fn statistics_again(context: &mut Context<'_>, event: &DdlEvent) -> Result<DdlEvent, TargetError> {
    let conn = context.conn;
    let act = "bring the statistics again";
    let now = ddl_side::all_statistics(conn).map_err(|error| context.cannot(act, error))?;
    ddl_side::remove(conn, &now).map_err(|error| context.cannot(act, error))?;
    for table in &event.gone {
        execute(conn, &format!("DROP TABLE IF EXISTS main.{}", quote(&table.name)))
            .map_err(|error| context.cannot(act, error))?;
    }
    if !event.made.is_empty() {
        ddl_hold::put_back(context, &DdlEvent { gone: event.made.clone(), hold: None, ..event.clone() })?;
    }
    ddl_side::put_back(conn, &event.side_after).map_err(|error| context.cannot(act, error))?;
    Ok(DdlEvent { side_before: now, ..event.clone() })
}

/// The event of a change that was not made.
pub fn left(event: &DdlEvent) -> DdlEvent {
    let statement = Statement { line: event.line, sql: event.sql.clone() };
    DdlEvent::new(&statement, Kind::Nothing, event.object.clone())
}

/// What SQLite says where it is others' rows or objects that it objects to: the first time it took the statement.
pub fn objects(error: &rusqlite::Error) -> Option<ConflictKind> {
    if ddl_hold::is_constraint(error) {
        return Some(ConflictKind::Constraint);
    }
    // `sqlite_error_code` knows nothing of what has a place in the statement.
    let code = match error {
        rusqlite::Error::SqlInputError { error, .. } => Some(error.code),
        other => other.sqlite_error_code(),
    };
    let is_logic = code == Some(rusqlite::ErrorCode::Unknown);
    (is_logic || is_malformed(error)).then_some(ConflictKind::Definition)
}

fn again(
    context: &mut Context<'_>,
    event: &DdlEvent,
    manner: Manner,
    conflicts: &mut Conflicts,
) -> Result<Option<DdlEvent>, TargetError> {
    let statement = Statement { line: event.line, sql: event.sql.clone() };
    match &event.kind {
        Kind::Create if event.found => found_again(context, event, &statement).map(Some),
        Kind::Analyze if event.found => statistics_again(context, event).map(Some),
        // What others made or dropped since may give the statement something to do: to the same result means nothing.
        Kind::Nothing => Ok(Some(event.clone())),
        Kind::DeleteAll { table } => {
            let again = ddl_empty::delete_all(context, table, true)?;
            if again.is_none() {
                let now = "a trigger or a foreign key made since hangs on its rows";
                conflicts.push(conflict(context, &event.object, ConflictKind::Definition, now));
            }
            Ok(again)
        }
        // The rows come from the images; the text is what SQLite made of the first run.
        Kind::CreateAsSelect => {
            let text = event.made.first().and_then(|made| made.sql.clone()).unwrap_or_default();
            let again = run_create(context, &Statement { line: event.line, sql: text }, false)?;
            Ok(Some(DdlEvent { sql: event.sql.clone(), kind: Kind::CreateAsSelect, ..again }))
        }
        // What a rename rewrites hangs on settings of the first run; its result is known.
        Kind::RenameTable { from, to } => {
            let done = rename(context, event, (from, to), Direction::Redo, manner, conflicts)?;
            if done && event.found {
                // To the place of the table that it replaces, which has gone.
                let rows: Vec<_> = event
                    .changed
                    .iter()
                    .map(|(_, row)| (row.clone(), Some((row.kind.clone(), row.name.clone()))))
                    .collect();
                let act = format!("give {} its place", event.object);
                schema::edit(context.conn, || {
                    schema::place(context.conn, &rows).map_err(|error| context.cannot(&act, error))
                })?;
            }
            Ok(done.then(|| event.clone()))
        }
        Kind::RenameColumn { .. } => {
            write_texts(context, event.pairs(Direction::Redo).into_iter())?;
            Ok(Some(event.clone()))
        }
        _ => {
            let reading = |error| TargetError::failed(format!("cannot read the schema of {}", context.target), error);
            let legacy = is_legacy(context.conn).map_err(reading)?;
            set_legacy(context, event.legacy)?;
            let done = run(context, &statement);
            set_legacy(context, legacy)?;
            done.map(Some)
        }
    }
}
