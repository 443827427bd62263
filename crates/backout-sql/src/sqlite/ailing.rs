//! What an undo or redo brings back, makes or rewrites: it can be used as it could the first time, or that is a conflict,
//! since others took away what it needs. Only looks.

use std::collections::HashSet;

use backout_model::target::TargetError;
use rusqlite::Connection;

use super::ddl_event::DdlEvent;
use super::dependents::{Broken, digest, failed, health, may_hang, speaking, with_triggers, would_not_work};
use super::replay::Direction;
use super::schema::{self, SchemaRow};
use super::stream::{Event, Index};

/// Whether an object can be there and be of no use: one that speaks of others.
fn may_ail(row: &SchemaRow) -> bool {
    row.kind != "index" && may_hang(row)
}

/// Digests of all objects that can't be used as they are written.
pub fn sick_anywhere(conn: &Connection) -> rusqlite::Result<Vec<u64>> {
    sick(conn, schema::all(conn)?.iter())
}

/// Digests of the objects that hang on one of some names, and can't be used as they are written. All in lower case:
/// `words` count where something has that name, `names` also where nothing has it yet.
pub fn sick_around(
    conn: &Connection,
    words: HashSet<String>,
    mut names: HashSet<String>,
) -> rusqlite::Result<Vec<u64>> {
    let all = schema::all(conn)?;
    names.extend(all.iter().map(|row| row.name.to_ascii_lowercase()).filter(|name| words.contains(name)));
    sick(conn, speaking(&all, names).into_iter())
}

/// Digests of those among some rows that are there and can't be used as they are written.
pub fn sick<'r>(conn: &Connection, rows: impl Iterator<Item = &'r SchemaRow>) -> rusqlite::Result<Vec<u64>> {
    let rows: Vec<&SchemaRow> = rows.filter(|row| may_ail(row)).collect();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    with_triggers(conn, || {
        let mut found = Vec::new();
        for row in rows {
            if ailment(conn, row)?.is_some() {
                found.push(digest(row));
            }
        }
        Ok(found)
    })
}

/// Why a row of the schema can't be used as it is written; none where it can, or is not there as it was.
fn ailment(conn: &Connection, row: &SchemaRow) -> rusqlite::Result<Option<String>> {
    let now = schema::object(conn, &row.kind, &row.name)?.filter(|now| now.is_same(row));
    let Some(now) = now else { return Ok(None) };
    let health = health(conn, &now)?;
    Ok((health.level < 2 || !health.missing.is_empty()).then_some(health.why))
}

/// An object that an undo or redo of events brings or gives another text.
pub struct Brought<'e> {
    /// The last event that does.
    event: usize,
    /// As it is found; none for what is not there before.
    found: Option<&'e SchemaRow>,
    /// As it is in the end.
    pub row: &'e SchemaRow,
}

pub fn brought(events: &[Event], direction: Direction, leaves: impl Fn(usize) -> bool) -> Vec<Brought<'_>> {
    let is = |row: &SchemaRow, other: &SchemaRow| row.kind == other.kind && row.name == other.name;
    let changes = events.iter().enumerate().filter_map(|(number, event)| Some((number, event.ddl()?)));
    let mut changes: Vec<(usize, &DdlEvent)> = changes.filter(|(number, _)| !leaves(*number)).collect();
    if direction == Direction::Undo {
        changes.reverse();
    }
    let mut brought: Vec<Brought<'_>> = Vec::new();
    for (event, change) in changes {
        brought.retain(|one| !change.taken(direction).iter().any(|taken| is(taken, one.row)));
        let mut pairs = change.pairs(direction);
        for one in &mut brought {
            if let Some(at) = pairs.iter().position(|(left, _)| is(left, one.row)) {
                (one.event, one.row) = (event, pairs.swap_remove(at).1);
            }
        }
        let rewritten = pairs.into_iter().map(|(left, row)| Brought { event, found: Some(left), row });
        let made = change.brought(direction).iter().map(|row| Brought { event, found: None, row });
        brought.extend(rewritten.chain(made));
    }
    brought.retain(|one| may_ail(one.row));
    brought
}

/// Digests of what an undo or redo is going to give another text, and can't be used as it is.
pub fn sick_now(
    conn: &Connection,
    label: &str,
    events: &[Event],
    direction: Direction,
    leaves: impl Fn(usize) -> bool,
) -> Result<Vec<u64>, TargetError> {
    let brought = brought(events, direction, leaves);
    sick(conn, brought.iter().filter_map(|one| one.found)).map_err(|source| failed(label, source))
}

/// What an undo or redo brought and can't be used, since others took away what it needs, or hold on to it.
/// What could not be used the first time, either, or right before, is no matter: see [`sick_now`].
pub fn brought_in_vain(
    conn: &Connection,
    label: &str,
    index: &Index,
    direction: Direction,
    sick_now: &[u64],
    leaves: impl Fn(usize) -> bool,
) -> Result<Vec<Broken>, TargetError> {
    let sick = match direction {
        Direction::Undo => &index.sick_before,
        Direction::Redo => &index.sick_after,
    };
    let mut brought = brought(&index.events, direction, leaves);
    let was_sick = |one: &Brought<'_>| one.found.is_some_and(|found| sick_now.contains(&digest(found)));
    brought.retain(|one| !sick.contains(&digest(one.row)) && !was_sick(one));
    if brought.is_empty() {
        return Ok(Vec::new());
    }
    with_triggers(conn, || {
        let mut found = Vec::new();
        for one in brought {
            if let Some(why) = ailment(conn, one.row)? {
                found.push((one.event, would_not_work(label, one.row, &why)));
            }
        }
        Ok(found)
    })
    .map_err(|source| failed(label, source))
}
