//! Takes schema changes back: each where the schema still is what the change left, else it is a conflict.
//!
//! Never writes a definition over a table that somebody altered: its records have another form.

use backout_model::conflict::{Conflict, ConflictKind, Conflicts, OnConflict};
use backout_model::target::{Manner, TargetError};
use backout_model::words;

use super::ddl::{Context, execute};
use super::ddl_event::{DdlEvent, Kind};
use super::replay::Direction;
use super::schema::{self, SchemaRow};
use super::token::quote;
use super::{beside, ddl_column, ddl_empty, ddl_hold, ddl_rename, ddl_side};
use crate::shown::shorten;

/// How a conflict is dealt with: true to go on and bring the old state back. Under `Stop` that serves to find the other
/// conflicts; the caller rolls back.
pub(super) fn goes_on(manner: Manner) -> bool {
    match manner.on_conflict {
        OnConflict::Stop | OnConflict::Overwrite => true,
        OnConflict::Keep => false,
    }
}

pub(super) fn conflict(context: &Context<'_>, object: &str, kind: ConflictKind, now: impl Into<String>) -> Conflict {
    Conflict {
        target: context.target.to_owned(),
        object: object.to_owned(),
        key: None,
        column: None,
        kind,
        before: String::new(),
        left: String::new(),
        now: now.into(),
    }
}

/// What an undo takes away of a table, and the undo of a later step that touched it could not do without.
pub(super) fn needed(target: &str, table: &str, column: Option<String>) -> Conflict {
    Conflict {
        target: target.to_owned(),
        object: table.to_owned(),
        key: None,
        column,
        kind: ConflictKind::RequiredBy,
        before: String::new(),
        left: String::new(),
        now: String::new(),
    }
}

pub(super) fn definition(context: &Context<'_>, left: &SchemaRow, now: &SchemaRow) -> Conflict {
    let text = |row: &SchemaRow| row.sql.as_deref().map(shorten).unwrap_or_default();
    Conflict { left: text(left), ..conflict(context, &left.shown(), ConflictKind::Definition, text(now)) }
}

/// Takes a schema change back; whether it did. Conflicts are pushed; under `Keep` what conflicts stays as it is, else the
/// old state is brought back all the same, and under `Stop` the caller rolls back.
pub fn undo(
    context: &mut Context<'_>,
    event: &DdlEvent,
    manner: Manner,
    conflicts: &mut Conflicts,
    notes: &mut Vec<String>,
) -> Result<bool, TargetError> {
    let objects = |error: &rusqlite::Error| is_malformed(error).then_some(ConflictKind::Definition);
    or_conflict(context, event, manner, conflicts, objects, |context, conflicts| {
        undo_event(context, event, manner, conflicts, notes)
    })
    .map(|done| done.unwrap_or(false))
}

/// Does `work`. Where what others made since and what is to come don't go together, SQLite says so: then it is a
/// conflict, of the kind that `objects` makes of the error, and nothing has changed. Under `Overwrite` an object that
/// SQLite names gives way.
pub(super) fn or_conflict<T>(
    context: &mut Context<'_>,
    event: &DdlEvent,
    manner: Manner,
    conflicts: &mut Conflicts,
    objects: impl Fn(&rusqlite::Error) -> Option<ConflictKind>,
    mut work: impl FnMut(&mut Context<'_>, &mut Conflicts) -> Result<T, TargetError>,
) -> Result<Option<T>, TargetError> {
    loop {
        let mut found = Conflicts::default();
        let (act, source) = match context.within(|context| work(context, &mut found)) {
            Err(TargetError::Failed { act, source }) if !context.conn.is_autocommit() => (act, source),
            done => {
                conflicts.extend(found);
                return done.map(Some);
            }
        };
        let why = source.downcast_ref::<rusqlite::Error>();
        let Some((kind, why)) = why.and_then(|why| Some((objects(why)?, said(why)))) else {
            return Err(TargetError::Failed { act, source });
        };
        let named = named_in(context, &why)?;
        let object = named.as_ref().map_or_else(|| event.object.clone(), SchemaRow::shown);
        conflicts.push(conflict(context, &object, kind, why));
        match named {
            Some(named) if manner.on_conflict == OnConflict::Overwrite => {
                let sql = format!("DROP {} main.{}", named.kind.to_uppercase(), quote(&named.name));
                execute(context.conn, &sql)
                    .map_err(|error| context.cannot(&format!("drop {}", named.shown()), error))?;
            }
            _ => {
                conflicts.extend(found);
                return Ok(None);
            }
        }
    }
}

/// SQLite's own words.
fn said(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        rusqlite::Error::SqliteFailure(_, Some(said)) => said.clone(),
        other => other.to_string(),
    }
}

/// The index, view or trigger that SQLite objects to.
fn named_in(context: &Context<'_>, said: &str) -> Result<Option<SchemaRow>, TargetError> {
    let all = schema::all(context.conn).map_err(|error| context.cannot("read the schema", error))?;
    let is_named = |row: &&SchemaRow| {
        said.starts_with(&format!("error in {} {}", row.kind, row.name))
            || said.starts_with(&format!("malformed database schema ({})", row.name))
    };
    // One name may begin with another.
    let named = all.iter().filter(|row| row.kind != "table" && row.sql.is_some()).filter(is_named);
    Ok(named.max_by_key(|row| row.name.len()).cloned())
}

/// True where SQLite can't read a schema as it was written.
pub(super) fn is_malformed(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt)
        && error.to_string().contains("malformed database schema")
}

/// Whether the change is undone; of what makes, renames and drops no table nobody asks.
fn undo_event(
    context: &mut Context<'_>,
    event: &DdlEvent,
    manner: Manner,
    conflicts: &mut Conflicts,
    notes: &mut Vec<String>,
) -> Result<bool, TargetError> {
    match &event.kind {
        Kind::Nothing => Ok(()),
        Kind::Create | Kind::CreateAsSelect => return undo_create(context, event, manner, conflicts, notes),
        Kind::Drop => return undo_drop(context, event, manner, conflicts),
        Kind::RenameTable { from, to } => {
            let done = ddl_rename::rename(context, event, (from, to), Direction::Undo, manner, conflicts)?;
            if done && event.found {
                // Out of the place of the table that it replaced, which comes back.
                schema::edit(context.conn, || {
                    schema::move_to_the_end(context.conn, from)
                        .map_err(|error| context.cannot(&format!("give up the place of {to}"), error))
                })?;
            }
            return Ok(done);
        }
        Kind::RenameColumn { .. } => undo_text(context, event, manner, conflicts).map(drop),
        Kind::Constraint { table } => undo_constraint(context, event, table, manner, conflicts),
        Kind::AddColumn { table, column } => {
            // Beside columns of others it is taken out alone; the text of their table is theirs.
            let beside = beside::is_there(context, event, table, column)?;
            if beside || texts_hold(context, &event.pairs(Direction::Undo), manner, conflicts)? {
                ddl_column::take_out(context, event, (table, column, beside), manner, conflicts)?;
            }
            Ok(())
        }
        Kind::DropColumn { table, column } => {
            let beside = beside::with_columns_of_others(context, event, table, column)?;
            if beside.is_some() || texts_hold(context, &event.pairs(Direction::Undo), manner, conflicts)? {
                let event = beside.as_ref().unwrap_or(event);
                ddl_column::put_back(context, event, table, column, manner, conflicts, notes)?;
            }
            Ok(())
        }
        Kind::DeleteAll { table } => ddl_empty::undo_delete_all(context, event, table, manner, conflicts, notes),
        Kind::Analyze => ddl_side::undo_analyze(context, event, notes),
    }
    .map(|()| true)
}

fn undo_create(
    context: &mut Context<'_>,
    event: &DdlEvent,
    manner: Manner,
    conflicts: &mut Conflicts,
    notes: &mut Vec<String>,
) -> Result<bool, TargetError> {
    let conn = context.conn;
    let reading = |error| TargetError::failed(format!("cannot read the schema of {}", context.target), error);
    let Some(made) = event.made.first() else { return Ok(true) };
    let Some(now) = schema::object(conn, &made.kind, &made.name).map_err(reading)? else {
        if !manner.in_doubt {
            notes.push(format!("{}: {} was dropped or renamed since", context.target, made.shown()));
            let gone = conflict(context, &made.shown(), ConflictKind::Missing, "");
            context.already.push(Conflict { left: made.shown(), ..gone });
        }
        return Ok(true);
    };
    let mut in_the_way = Conflicts::default();
    if !now.is_same(made) {
        in_the_way.push(definition(context, made, &now));
        // A later step's, perhaps, whose undo would bring back what this one takes away.
        context.needed.push(needed(context.target, &made.name, None));
    }
    if made.kind == "table" || made.kind == "view" {
        for row in schema::of_table(conn, &made.name).map_err(reading)? {
            let ours = row.name == made.name || event.made.iter().any(|made| made.is_same(&row));
            if !ours && row.sql.is_some() {
                let now = row.sql.as_deref().map(shorten).unwrap_or_default();
                in_the_way.push(conflict(context, &row.shown(), ConflictKind::Definition, now));
            }
        }
    }
    // A full-text table without content of its own has only an index, which goes with it.
    let counted = match schema::module(conn, &made.name).map_err(reading)? {
        _ if made.kind != "table" => None,
        None => Some(made.name.clone()),
        Some(_) => {
            schema::object(conn, "table", &format!("{}_content", made.name)).map_err(reading)?.map(|row| row.name)
        }
    };
    if let Some(counted) = counted {
        let rows: i64 = conn
            .query_row(&format!("SELECT count(*) FROM main.{}", quote(&counted)), [], |row| row.get(0))
            .map_err(reading)?;
        if rows > 0 {
            let now = words::count(rows.unsigned_abs(), "row");
            in_the_way.push(conflict(context, &made.shown(), ConflictKind::NotEmpty, now));
        }
    }
    let stays = !in_the_way.is_empty() && !goes_on(manner);
    conflicts.extend(in_the_way);
    if stays {
        return Ok(false);
    }
    let sql = format!("DROP {} main.{}", made.kind.to_uppercase(), quote(&now.name));
    execute(conn, &sql).map_err(|error| context.cannot(&format!("drop {}", made.shown()), error))?;
    if event.made.iter().any(|row| row.name == ddl_side::SEQUENCE) {
        ddl_side::drop_sequence_table(context, notes)?;
    }
    ddl_side::put_back(conn, &event.side_before).map_err(|error| context.cannot("put statistics back", error))?;
    Ok(true)
}

fn undo_drop(
    context: &mut Context<'_>,
    event: &DdlEvent,
    manner: Manner,
    conflicts: &mut Conflicts,
) -> Result<bool, TargetError> {
    let conn = context.conn;
    let reading = |error| TargetError::failed(format!("cannot read the schema of {}", context.target), error);
    let mut there = 0;
    let mut in_the_way = Vec::new();
    if let Some(lost) = event.gone.first().filter(|row| row.kind == "index" || row.kind == "trigger") {
        let of = |kind: &str| schema::object(conn, kind, &lost.table).map(|row| row.is_some()).map_err(reading);
        if !of("table")? && !of("view")? {
            let now = format!("{} is not there", lost.table);
            conflicts.push(conflict(context, &lost.shown(), ConflictKind::Definition, now));
            return Ok(false);
        }
    }
    for row in &event.gone {
        if let Some(now) = schema::named_like(conn, &row.kind, &row.name).map_err(reading)? {
            if manner.in_doubt && now.is_same(row) {
                there += 1;
            } else {
                in_the_way.push((row, now));
            }
        }
    }
    if there > 0 && there == event.gone.len() {
        return Ok(true);
    }
    if !in_the_way.is_empty() {
        for (row, now) in &in_the_way {
            let mut text = now.sql.as_deref().map(shorten).unwrap_or_else(|| now.shown());
            if now.kind == "table" && now.rootpage > 0 {
                let sql = format!("SELECT count(*) FROM main.{}", quote(&now.name));
                let rows: i64 = conn.query_row(&sql, [], |row| row.get(0)).map_err(reading)?;
                text = format!("{text}, with {}", words::count(rows.unsigned_abs(), "row"));
                context.needed.push(needed(context.target, &now.name, None));
            }
            // Under `Keep` what does not come back is to be found.
            let held = event.holds().next().filter(|_| row.kind == "table" && !goes_on(manner));
            if let Some(hold) = held {
                text = format!("{text}; the rows that do not come back are kept in the table {hold}");
            }
            conflicts.push(conflict(context, &row.shown(), ConflictKind::Appeared, text));
        }
        if !goes_on(manner) {
            return Ok(false);
        }
        for (_, now) in &in_the_way {
            // Its table may have taken it along.
            if now.sql.is_some() && schema::named_like(conn, &now.kind, &now.name).map_err(reading)?.is_some() {
                let sql = format!("DROP {} main.{}", now.kind.to_uppercase(), quote(&now.name));
                execute(conn, &sql).map_err(|error| context.cannot(&format!("drop {}", now.shown()), error))?;
            }
        }
    }
    let lone_index = match event.gone.as_slice() {
        [only] if only.kind == "index" => Some(only),
        _ => None,
    };
    if let Some(index) = lone_index {
        return ddl_hold::put_index_back(context, event, index, conflicts).map(|()| true);
    }
    ddl_hold::put_back(context, event)?;
    for row in event.gone.iter().filter(|row| row.sql.is_some() && row.kind != "index") {
        // Whoever dropped what came under that name meanwhile brings that one back.
        context.needed.push(needed(context.target, &row.shown(), None));
    }
    ddl_side::put_back(conn, &event.side_before).map_err(|error| context.cannot("put statistics back", error))?;
    Ok(true)
}

/// True where every object still is what the first of its pair says, or the text of the second can come anyway. Over a
/// table that somebody altered it never can: its records have another form.
pub(super) fn texts_hold(
    context: &mut Context<'_>,
    pairs: &[(&SchemaRow, &SchemaRow)],
    manner: Manner,
    conflicts: &mut Conflicts,
) -> Result<bool, TargetError> {
    let mut clean = true;
    let mut possible = true;
    let mut is_done = !pairs.is_empty();
    for (left, wanted) in pairs {
        let now = schema::object(context.conn, &left.kind, &left.name)
            .map_err(|error| context.cannot("read the schema", error))?;
        is_done &= now.as_ref().is_some_and(|now| now.is_same(wanted));
        match now {
            Some(now) if now.is_same(left) => {}
            Some(now) if manner.in_doubt && now.is_same(wanted) => {}
            Some(now) => {
                conflicts.push(definition(context, left, &now));
                clean = false;
                possible &= left.kind != "table";
            }
            None => {
                let text = left.sql.as_deref().map(shorten).unwrap_or_default();
                conflicts.push(Conflict { left: text, ..conflict(context, &left.shown(), ConflictKind::Missing, "") });
                clean = false;
                possible &= left.kind != "table";
            }
        }
    }
    if manner.in_doubt && is_done {
        return Ok(false);
    }
    let goes = clean || possible && goes_on(manner);
    context.stays |= !goes;
    Ok(goes)
}

/// Writes the old texts over the new ones; false where they stay.
fn undo_text(
    context: &mut Context<'_>,
    event: &DdlEvent,
    manner: Manner,
    conflicts: &mut Conflicts,
) -> Result<bool, TargetError> {
    if !texts_hold(context, &event.pairs(Direction::Undo), manner, conflicts)? {
        return Ok(false);
    }
    write_old_texts(context, event, &[], &[])?;
    Ok(true)
}

/// Writes the old texts over the new ones, and over whatever else differs between two readings of the schema.
pub(super) fn write_old_texts(
    context: &Context<'_>,
    event: &DdlEvent,
    before: &[SchemaRow],
    after: &[SchemaRow],
) -> Result<(), TargetError> {
    let is_known =
        |row: &SchemaRow| event.changed.iter().any(|(_, left)| left.kind == row.kind && left.name == row.name);
    let others = before
        .iter()
        .zip(after)
        .filter(|(before, after)| before.rowid == after.rowid && !before.is_same(after) && !is_known(after));
    let own = event.pairs(Direction::Undo).into_iter();
    write_texts(context, own.chain(others.map(|(before, after)| (after, before))))
}

/// Writes the texts of a first reading of the schema over what differs in a second one, but for a table's own.
pub(super) fn write_others_texts(
    context: &Context<'_>,
    table: &str,
    before: &[SchemaRow],
    after: &[SchemaRow],
) -> Result<(), TargetError> {
    let is_own = |row: &SchemaRow| row.kind == "table" && row.name == table;
    let others = before
        .iter()
        .zip(after)
        .filter(|(before, after)| before.rowid == after.rowid && !before.is_same(after) && !is_own(after));
    write_texts(context, others.map(|(before, after)| (after, before)))
}

/// Writes definitions over others: now and wanted.
pub(super) fn write_texts<'r>(
    context: &Context<'_>,
    pairs: impl Iterator<Item = (&'r SchemaRow, &'r SchemaRow)>,
) -> Result<(), TargetError> {
    let conn = context.conn;
    schema::edit(conn, || {
        for (now, wanted) in pairs {
            schema::rewrite(conn, now, wanted).map_err(|error| {
                TargetError::failed(format!("cannot write the definition of {}", wanted.shown()), error)
            })?;
        }
        Ok(())
    })
}

/// Puts a table's constraints back. Where rows break them now, that is a conflict, and they stay away like an index that
/// the rows don't admit: a constraint that does not hold helps nobody.
fn undo_constraint(
    context: &mut Context<'_>,
    event: &DdlEvent,
    table: &str,
    manner: Manner,
    conflicts: &mut Conflicts,
) -> Result<(), TargetError> {
    if !texts_hold(context, &event.pairs(Direction::Undo), manner, conflicts)? {
        return Ok(());
    }
    let mut broken = Conflicts::default();
    let done = context.within(|context| {
        write_old_texts(context, event, &[], &[])?;
        check_constraints(context, table, &mut broken)?;
        // Only what was given up with the savepoint is said to have failed.
        if broken.is_empty() {
            Ok(())
        } else {
            Err(TargetError::failed("cannot put constraints back", "rows break them"))
        }
    });
    if broken.is_empty() || context.conn.is_autocommit() {
        return done;
    }
    conflicts.extend(broken);
    context.stays = true;
    Ok(())
}

fn check_constraints(context: &Context<'_>, table: &str, conflicts: &mut Conflicts) -> Result<(), TargetError> {
    let checking = |error| context.cannot("check the constraints", error);
    let conn = context.conn;
    // While rows go back checks are off, and then not looked at here, either.
    let ignored: bool = conn.query_row("PRAGMA ignore_check_constraints", [], |row| row.get(0)).map_err(checking)?;
    conn.execute_batch("PRAGMA ignore_check_constraints = OFF").map_err(checking)?;
    let found = || -> rusqlite::Result<Vec<String>> {
        conn.prepare(&format!("PRAGMA main.quick_check({})", quote(table)))?.query_map([], |row| row.get(0))?.collect()
    }();
    conn.execute_batch(&format!("PRAGMA ignore_check_constraints = {ignored}")).map_err(checking)?;
    for found in found.map_err(checking)?.into_iter().filter(|found| found != "ok") {
        conflicts.push(conflict(context, &format!("table {table}"), ConflictKind::Constraint, found));
    }
    Ok(())
}
