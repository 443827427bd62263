//! Gives a table another name, or its old one again, to exactly the texts that the images have. What others hung on it
//! since goes along, as ALTER TABLE would have it.

use backout_model::conflict::{ConflictKind, Conflicts, OnConflict};
use backout_model::target::{Manner, TargetError};

use super::ddl::{Context, execute, is_legacy, set_legacy};
use super::ddl_event::DdlEvent;
use super::ddl_side;
use super::ddl_undo::{conflict, goes_on, needed, texts_hold, write_texts};
use super::replay::Direction;
use super::schema::{self, SchemaRow};
use super::token::quote;
use crate::shown::shorten;

/// Undoes a rename of a table or does it again; whether it did.
pub fn rename(
    context: &mut Context<'_>,
    event: &DdlEvent,
    (from, to): (&str, &str),
    direction: Direction,
    manner: Manner,
    conflicts: &mut Conflicts,
) -> Result<bool, TargetError> {
    let conn = context.conn;
    let target = context.target;
    let reading = |error| TargetError::failed(format!("cannot read the schema of {target}"), error);
    let (now, wanted) = match direction {
        Direction::Undo => (to, from),
        Direction::Redo => (from, to),
    };
    let pairs = event.pairs(direction);
    if direction == Direction::Undo {
        // Whoever made or dropped another one under the name that was free finds this one there.
        context.needed.push(needed(target, &format!("table {wanted}"), None));
    }
    if manner.in_doubt && is_done(context, &pairs)? {
        return Ok(true);
    }
    let is_known = |row: &SchemaRow| pairs.iter().any(|(left, _)| left.kind == row.kind && left.name == row.name);
    for (left, wanted) in pairs.iter().filter(|(left, wanted)| left.name != wanted.name && wanted.sql.is_some()) {
        let there = schema::named_like(conn, &wanted.kind, &wanted.name)
            .map_err(reading)?
            .filter(|row| !row.is_same(left) && !is_known(row));
        if let Some(there) = there {
            let text = there.sql.as_deref().map(shorten).unwrap_or_default();
            conflicts.push(conflict(context, &wanted.shown(), ConflictKind::Appeared, text));
            return Ok(false);
        }
    }
    if !texts_hold(context, &pairs, manner, conflicts)? {
        let is_altered = || -> rusqlite::Result<bool> {
            let Some((left, _)) = pairs.iter().find(|(left, _)| left.kind == "table") else { return Ok(false) };
            let there = schema::object(conn, "table", &left.name)?;
            Ok(there.is_some_and(|there| there.sql.is_some() && !there.is_same(left)))
        };
        if direction == Direction::Undo && goes_on(manner) && is_altered().map_err(reading)? {
            // By a later step, perhaps, whose undo would bring back what this one takes away.
            context.needed.push(needed(target, now, None));
            let renamed = rename_altered(context, &pairs, now, wanted);
            // That the definition is another is a conflict already.
            let stays = renamed.is_err() && manner.on_conflict == OnConflict::Stop && !conn.is_autocommit();
            context.stays = stays;
            return if stays { Ok(false) } else { renamed.map(|()| true) };
        }
        return Ok(false);
    }
    let hangs_on = |row: &SchemaRow| row.table.eq_ignore_ascii_case(now) && !is_known(row);
    let hangers: Vec<SchemaRow> =
        schema::of_table(conn, now).map_err(reading)?.into_iter().filter(|row| hangs_on(row)).collect();
    if hangers.is_empty() {
        write_texts(context, pairs.iter().copied())?;
        ddl_side::rename(conn, now, wanted).map_err(|error| context.cannot("rename a counter", error))?;
        return Ok(true);
    }
    let renamed = context.within(|context| {
        let before = schema::all(conn).map_err(reading)?;
        let sql = format!("ALTER TABLE main.{} RENAME TO {}", quote(now), quote(wanted));
        execute(conn, &sql).map_err(|error| context.cannot(&format!("rename table {now}"), error))?;
        let after = schema::all(conn).map_err(reading)?;
        let own = pairs.iter().filter_map(|(_, wanted)| {
            let now = after.iter().find(|row| row.kind == wanted.kind && row.name == wanted.name)?;
            Some((now, *wanted))
        });
        let others = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| !before.is_same(after) && !is_known(before) && !hangs_on(before))
            .map(|(before, after)| (after, before));
        write_texts(context, own.chain(others))
    });
    if renamed.is_err() && !conn.is_autocommit() {
        for row in hangers {
            let text = row.sql.as_deref().map(shorten).unwrap_or_default();
            conflicts.push(conflict(context, &row.shown(), ConflictKind::Definition, text));
        }
        return Ok(false);
    }
    renamed.map(|()| true)
}

/// Gives a table that others altered another name, and nothing else: its records have another form than the images say.
fn rename_altered(
    context: &mut Context<'_>,
    pairs: &[(&SchemaRow, &SchemaRow)],
    now: &str,
    wanted: &str,
) -> Result<(), TargetError> {
    context.within(|context| {
        let reading = |error| TargetError::failed(format!("cannot read the schema of {}", context.target), error);
        let before = schema::all(context.conn).map_err(reading)?;
        let sql = format!("ALTER TABLE main.{} RENAME TO {}", quote(now), quote(wanted));
        // Else a view that is of no use anyway would keep the table from its name.
        let legacy = is_legacy(context.conn).map_err(reading)?;
        set_legacy(context, true)?;
        let renamed =
            execute(context.conn, &sql).map_err(|error| context.cannot(&format!("rename table {now}"), error));
        set_legacy(context, legacy)?;
        renamed?;
        let after = schema::all(context.conn).map_err(reading)?;
        let rewritten = before.iter().zip(&after).filter(|(before, after)| !before.is_same(after));
        // What speaks of the table has to do so under the name that it will have in the end.
        let texts = rewritten.filter_map(|(before, after)| {
            let own = pairs.iter().find(|(left, _)| left.is_same(before)).map(|(_, wanted)| (after, *wanted));
            let hangs_on = before.table.eq_ignore_ascii_case(now);
            own.or_else(|| (!hangs_on).then_some((after, before)))
        });
        write_texts(context, texts)
    })
}

/// Whether every object has become what it ought to.
fn is_done(context: &Context<'_>, pairs: &[(&SchemaRow, &SchemaRow)]) -> Result<bool, TargetError> {
    for (_, wanted) in pairs {
        let now = schema::object(context.conn, &wanted.kind, &wanted.name)
            .map_err(|error| context.cannot("read the schema", error))?;
        if !now.is_some_and(|now| now.is_same(wanted)) {
            return Ok(false);
        }
    }
    Ok(!pairs.is_empty())
}
