//! Runs statements that change the schema, keeps what their undo and redo need, undoes them and runs them again.
//!
//! Data that a statement would destroy is held in the database itself, under names that begin with the site's prefix.
//! Rows that other statements change are the hook's business; nothing here ends or begins a transaction.

use backout_model::conflict::Conflicts;
use backout_model::target::TargetError;
use rusqlite::Connection;

use super::classify::{OWN_UNDO, refusal};
use super::ddl_event::{DdlEvent, Kind};
use super::head::{Alter, Head, Name, Object, head};
use super::schema::{self, SchemaRow};
use super::split::Statement;
use super::token::quote;
use super::{copying, ddl_column, ddl_empty, ddl_hold, ddl_side, limits};
use crate::shown::shorten;

pub use super::ddl_redo::{is_clear, left, objects, redo};
pub use super::ddl_undo::undo;

/// What a schema change works on.
pub struct Context<'a> {
    pub conn: &'a Connection,
    /// `backout_<site>_`.
    pub prefix: &'a str,
    /// `database main`.
    pub target: &'a str,
    /// Whether the step runs with foreign keys on.
    pub foreign_keys: bool,
    /// The number of the next hold.
    pub next_hold: &'a mut u64,
    /// What an undo found as it is to be already.
    pub already: Conflicts,
    /// What it takes away that the undo of a later step could not do without.
    pub needed: Conflicts,
    /// A change of the schema is not undone, whatever the manner: what there is now leaves it no way.
    pub stays: bool,
}

impl Context<'_> {
    pub(super) fn cannot(&self, act: &str, error: rusqlite::Error) -> TargetError {
        TargetError::failed(format!("cannot {act} in {}", self.target), error)
    }

    /// A name for a table of the tool that is free.
    pub(super) fn new_name(&mut self) -> Result<String, TargetError> {
        loop {
            let name = format!("{}h{}", self.prefix, self.next_hold);
            *self.next_hold += 1;
            let taken =
                schema::object(self.conn, "table", &name).map_err(|error| self.cannot("read the schema", error))?;
            if taken.is_none() {
                return Ok(name);
            }
        }
    }

    /// Runs `work`, and takes back what it did where it fails.
    pub(super) fn within<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, TargetError>,
    ) -> Result<T, TargetError> {
        const NAME: &str = "backout_within";
        self.conn.execute_batch(&format!("SAVEPOINT {NAME}")).map_err(|error| self.cannot("set a savepoint", error))?;
        let done = work(self);
        let end = if done.is_ok() { format!("RELEASE {NAME}") } else { format!("ROLLBACK TO {NAME}; RELEASE {NAME}") };
        // An error of the disk has ended the whole transaction already, savepoint and all.
        if !self.conn.is_autocommit() {
            self.conn.execute_batch(&end).map_err(|error| self.cannot("end a savepoint", error))?;
        }
        done
    }
}

/// Runs one statement to its end.
pub(super) fn execute(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    let mut prepared = conn.prepare(sql)?;
    let mut rows = prepared.raw_query();
    while rows.next()?.is_some() {}
    Ok(())
}

fn failed(statement: &Statement) -> impl Fn(rusqlite::Error) -> TargetError {
    let act = format!("cannot run line {}: {}", statement.line, shorten(&statement.sql));
    move |error| TargetError::failed(act.clone(), error)
}

/// A statement that cannot be undone, as its table is.
pub(super) fn refused(statement: &Statement, why: impl Into<String>) -> TargetError {
    TargetError::Refused(refusal(&format!("line {}", statement.line), &statement.sql, why, OWN_UNDO))
}

/// The same error with the statement's place, which nothing here knows: `sql/010.sql:12` for `line 12`.
pub fn placed(error: TargetError, statement: &Statement, place: &str) -> TargetError {
    let line = format!("line {}", statement.line);
    match error {
        TargetError::Failed { act, source } => TargetError::Failed { act: act.replacen(&line, place, 1), source },
        TargetError::Refused(told) => {
            let way_out = told.ways_out.first().map_or(OWN_UNDO, String::as_str);
            TargetError::Refused(refusal(place, &statement.sql, told.why, way_out))
        }
        other => other,
    }
}

/// Runs a statement that changes the schema and captures what its undo needs. After an error the transaction may hold
/// a part of it and must be rolled back.
pub fn run(context: &mut Context<'_>, statement: &Statement) -> Result<DdlEvent, TargetError> {
    let event = match head(&statement.sql) {
        None => ddl_side::run_analyze(context, statement)?,
        Some(Head::Reindex) => {
            execute(context.conn, &statement.sql).map_err(failed(statement))?;
            DdlEvent::new(statement, Kind::Nothing, "indexes".into())
        }
        Some(Head::Create { as_select, .. }) => run_create(context, statement, as_select)?,
        Some(Head::Drop { object, name }) => run_drop(context, statement, object, &name)?,
        Some(Head::Alter { name, alter }) => run_alter(context, statement, &name, alter)?,
    };
    let raw = event.rows().find(|row| row.is_raw).map(SchemaRow::shown);
    raw.map_or(Ok(event), |raw| {
        let why = format!("the definition of {raw} is no UTF-8, so that it cannot be kept exactly");
        let place = format!("line {}", statement.line);
        Err(TargetError::Refused(refusal(&place, &statement.sql, why, &format!("make {raw} anew"))))
    })
}

/// The table of the file that a statement drops; none for all other statements.
pub fn dropped(context: &Context<'_>, statement: &Statement) -> Result<Option<SchemaRow>, TargetError> {
    let Some(Head::Drop { object: Object::Table, name }) = head(&statement.sql) else { return Ok(None) };
    let find = || -> rusqlite::Result<Option<SchemaRow>> {
        if is_temporary(context, &name)? {
            return Ok(None);
        }
        let found = schema::object(context.conn, "table", &name.name)?;
        Ok(found.filter(|table| table.rootpage != 0 && !table.name.starts_with("sqlite_")))
    };
    find().map_err(failed(statement))
}

/// Whether a table that is about to be dropped has so few rows that they are to be deleted by [`empty`] first.
pub fn empties_first(context: &Context<'_>, table: &SchemaRow, statement: &Statement) -> Result<bool, TargetError> {
    ddl_hold::empties_first(context, table).map_err(failed(statement))
}

/// See [`copying::digest`].
pub fn digest(context: &Context<'_>, table: &SchemaRow, statement: &Statement) -> Result<u64, TargetError> {
    copying::digest(context.conn, &table.name).map_err(failed(statement))
}

/// Deletes all rows where the hook sees them and no trigger does; how many.
pub fn empty(conn: &Connection, target: &str, table: &str) -> Result<usize, TargetError> {
    let cannot = |error| TargetError::failed(format!("cannot empty {table} in {target}"), error);
    let triggers = rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
    let were_on = conn.db_config(triggers).map_err(cannot)?;
    conn.set_db_config(triggers, false).map_err(cannot)?;
    let deleted = conn.execute(&format!("DELETE FROM main.{}", quote(table)), []);
    conn.set_db_config(triggers, were_on).map_err(cannot)?;
    deleted.map_err(cannot)
}

/// True for statements that may delete rows one by one before they drop a table.
pub fn may_delete_rows(sql: &str) -> bool {
    matches!(head(sql), Some(Head::Drop { object: Object::Table, .. }))
}

pub(super) fn run_create(
    context: &mut Context<'_>,
    statement: &Statement,
    as_select: bool,
) -> Result<DdlEvent, TargetError> {
    let before = schema::highest(context.conn).map_err(failed(statement))?;
    // Statistics of a name that was used before: they go when the undo drops what has that name now.
    let side = match head(&statement.sql) {
        Some(Head::Create { object: Object::Table, name, .. }) => ddl_side::of_table(context.conn, &name.name),
        Some(Head::Create { object: Object::Index, name, .. }) => ddl_side::of_index(context.conn, &name.name),
        _ => Ok(Vec::new()),
    };
    let side = side.map_err(failed(statement))?;
    execute(context.conn, &statement.sql).map_err(failed(statement))?;
    let made = schema::after(context.conn, before).map_err(failed(statement))?;
    let Some(first) = made.first() else {
        return Ok(DdlEvent::new(statement, Kind::Nothing, "what is there already".into()));
    };
    let mut event =
        DdlEvent::new(statement, if as_select { Kind::CreateAsSelect } else { Kind::Create }, first.shown());
    if as_select {
        if let Some(why) = limits::alike(context.conn, &first.name).map_err(failed(statement))? {
            return Err(refused(statement, why));
        }
        event.hold = ddl_hold::set_rows_aside(context, first)?;
    }
    event.made = made;
    event.side_before = side;
    Ok(event)
}

/// Rows of an event that must be written where the hook sees them: those of CREATE TABLE AS. To be called after the
/// event is in the images, since undo goes through them in reverse.
pub fn fill(context: &mut Context<'_>, event: &DdlEvent) -> Result<(), TargetError> {
    match (&event.kind, &event.hold) {
        (Kind::CreateAsSelect, Some(_)) => ddl_hold::fill(context, event),
        _ => Ok(()),
    }
}

/// True where a name as written means something of the connection, not of the file.
fn is_temporary(context: &Context<'_>, name: &Name) -> rusqlite::Result<bool> {
    match &name.database {
        Some(database) => Ok(!database.eq_ignore_ascii_case("main")),
        None => schema::is_temporary(context.conn, &name.name),
    }
}

fn run_drop(
    context: &mut Context<'_>,
    statement: &Statement,
    object: Object,
    name: &Name,
) -> Result<DdlEvent, TargetError> {
    let failed = failed(statement);
    let found = if is_temporary(context, name).map_err(&failed)? {
        None
    } else {
        schema::object(context.conn, object.kind(), &name.name).map_err(&failed)?
    };
    let Some(found) = found else {
        // Something temporary, nothing with IF EXISTS, or SQLite's own error.
        execute(context.conn, &statement.sql).map_err(&failed)?;
        return Ok(DdlEvent::new(statement, Kind::Nothing, "what is not there".into()));
    };
    if found.name.starts_with("sqlite_") {
        return ddl_side::run_analyze(context, statement);
    }
    let mut event = DdlEvent::new(statement, Kind::Drop, found.shown());
    match object {
        Object::Table => ddl_hold::drop_table(context, statement, &found, &mut event)?,
        Object::View => {
            event.gone = schema::of_table(context.conn, &found.name).map_err(&failed)?;
            execute(context.conn, &statement.sql).map_err(&failed)?;
        }
        Object::Index => {
            event.side_before = ddl_side::of_index(context.conn, &found.name).map_err(&failed)?;
            event.gone = vec![found];
            execute(context.conn, &statement.sql).map_err(&failed)?;
        }
        Object::Trigger | Object::Virtual => {
            event.gone = vec![found];
            execute(context.conn, &statement.sql).map_err(&failed)?;
        }
    }
    Ok(event)
}

fn run_alter(
    context: &mut Context<'_>,
    statement: &Statement,
    name: &Name,
    alter: Alter,
) -> Result<DdlEvent, TargetError> {
    let failed = failed(statement);
    let found = if is_temporary(context, name).map_err(&failed)? {
        None
    } else {
        schema::object(context.conn, "table", &name.name).map_err(&failed)?
    };
    let Some(found) = found else {
        execute(context.conn, &statement.sql).map_err(&failed)?;
        return Ok(DdlEvent::new(statement, Kind::Nothing, "a temporary table".into()));
    };
    let table = found.name.clone();
    let kind = match alter {
        Alter::RenameTable { to } => Kind::RenameTable { from: table.clone(), to },
        Alter::RenameColumn { .. } => Kind::RenameColumn { table: table.clone() },
        Alter::AddColumn { column } => Kind::AddColumn { table: table.clone(), column },
        Alter::DropColumn { column } => Kind::DropColumn { table: table.clone(), column },
        Alter::Constraint => Kind::Constraint { table: table.clone() },
    };
    // DROP COLUMN, too, may turn `"x"` in views and triggers into 'x'.
    let renames = matches!(kind, Kind::RenameTable { .. } | Kind::RenameColumn { .. } | Kind::DropColumn { .. });
    let read = |conn: &Connection| if renames { schema::all(conn) } else { schema::of_table(conn, &table) };
    let before = read(context.conn).map_err(&failed)?;
    let mut event = DdlEvent::new(statement, kind.clone(), found.shown());
    event.legacy = is_legacy(context.conn).map_err(&failed)?;
    // Its undo may have to build the table anew after the old text.
    let builds_anew = matches!(kind, Kind::AddColumn { .. } | Kind::DropColumn { .. });
    if builds_anew && !ddl_hold::is_understood(std::slice::from_ref(&found)) {
        return Err(ddl_hold::not_understood(statement));
    }
    if let Kind::DropColumn { column, .. } = &kind {
        ddl_column::hold_column(context, statement, &table, column, &mut event)?;
    }
    execute(context.conn, &statement.sql).map_err(&failed)?;
    let after = read(context.conn).map_err(&failed)?;
    event.changed = before
        .into_iter()
        .filter_map(|before| {
            // ALTER rewrites rows where they stand.
            let at = after.binary_search_by_key(&before.rowid, |row| row.rowid).ok()?;
            let after = after[at].clone();
            (!before.is_same(&after)).then_some((before, after))
        })
        .filter(|(_, after)| !super::classify::is_ours(&after.name))
        .collect();
    Ok(event)
}

pub(super) fn is_legacy(conn: &Connection) -> rusqlite::Result<bool> {
    conn.query_row("PRAGMA legacy_alter_table", [], |row| row.get(0))
}

pub(super) fn set_legacy(context: &Context<'_>, on: bool) -> Result<(), TargetError> {
    context
        .conn
        .execute_batch(&format!("PRAGMA legacy_alter_table = {on}"))
        .map_err(|error| context.cannot("set legacy_alter_table", error))
}

/// Empties a table by exchanging its b-trees for empty ones; none where that isn't the same as DELETE, or no gain.
/// `changes()` does not count the rows then.
pub fn delete_all(context: &mut Context<'_>, table: &str) -> Result<Option<DdlEvent>, TargetError> {
    ddl_empty::delete_all(context, table, false)
}

/// Drops what is held for an event.
pub fn forget(context: &mut Context<'_>, event: &DdlEvent) -> Result<(), TargetError> {
    for hold in event.holds() {
        if !hold.starts_with(context.prefix) {
            continue;
        }
        execute(context.conn, &format!("DROP TABLE IF EXISTS main.{}", quote(hold)))
            .map_err(|error| context.cannot(&format!("drop the hold {hold}"), error))?;
    }
    Ok(())
}
