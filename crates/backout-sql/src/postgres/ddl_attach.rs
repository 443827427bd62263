//! Which index of a partition is a part of which index of the whole. PostgreSQL picks the first that fits when a partition is
//! attached, by their numbers, and never lets go of it again. One that it would pick in place of the right one is made anew
//! before, which gives it a later number.

use std::collections::BTreeMap;

use super::catalog::{self, Key, Kind, Object, Wanted, class, literal};
use super::ddl::Change;
use super::ddl_turn::{self, Act, Reach, TurnError};
use super::prepared::Client;
use super::stream::Event;
use super::{ddl_make, ddl_observe};

/// The statement that attaches an index, where it is not attached yet and its table is a partition already.
pub(super) fn act(client: &mut Client, now: &Object, wanted: &Object) -> Result<Option<Act>, TurnError> {
    let index = match now.kind {
        Kind::Index => now.id(),
        Kind::Constraint => now.text("index"),
        _ => return Ok(None),
    };
    let Some(whole) = wanted.part("attached to") else { return Ok(None) };
    let found = catalog::rows(
        client,
        &format!(
            "SELECT (SELECT c.oid::regclass FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_index o ON o.indexrelid = h.inhrelid \
             JOIN pg_catalog.pg_class c ON c.oid = o.indexrelid WHERE h.inhparent = w.indexrelid AND o.indrelid = i.indrelid) \
             FROM pg_catalog.pg_index i, pg_catalog.pg_index w WHERE i.indexrelid = to_regclass({}) \
             AND w.indexrelid = to_regclass({}) \
             AND EXISTS (SELECT FROM pg_catalog.pg_inherits p WHERE p.inhrelid = i.indrelid AND p.inhparent = w.indrelid)",
            literal(index),
            literal(whole)
        ),
    )?;
    let Some(other) = found.into_iter().next().and_then(|row| row.into_iter().next()) else { return Ok(None) };
    let shown = format!("attach {}", now.shown());
    if other.is_empty() {
        let sql = format!("ALTER INDEX {whole} ATTACH PARTITION {index}");
        return Ok(Some(Act { sql, shown, drops: false }));
    }
    if other == index { Ok(None) } else { Err(stuck(shown, format!("{other} is attached in its place"))) }
}

fn stuck(what: String, why: String) -> TurnError {
    TurnError::Stuck { what, why }
}

/// An index as PostgreSQL looks at it when it attaches its table.
#[derive(Clone)]
struct Candidate {
    name: String,
    /// What makes two indexes fit.
    form: String,
    /// The kind of the constraint that it serves, and that one's number.
    constraint: Option<(String, u32)>,
    oid: u32,
    /// A foreign key counts on this very index.
    referenced: bool,
}

/// The indexes of a table in the order of their numbers, which is that in which they are picked.
fn candidates(client: &mut Client, table: &str) -> Result<Vec<Candidate>, TurnError> {
    let rows = catalog::rows(
        client,
        &format!(
            "SELECT i.indexrelid::regclass, concat_ws('|', i.indisunique, c.relam, i.indnkeyatts, \
             (SELECT string_agg(concat_ws(' ', pg_get_indexdef(i.indexrelid, k, true), i.indcollation[k - 1], \
             (SELECT opcfamily FROM pg_catalog.pg_opclass o WHERE o.oid = i.indclass[k - 1])), ',' ORDER BY k) \
             FROM generate_series(1, i.indnatts) k), pg_get_expr(i.indpred, i.indrelid, true)), \
             k.contype, k.oid, i.indexrelid, EXISTS (SELECT FROM pg_catalog.pg_constraint f WHERE f.conindid = i.indexrelid \
             AND f.contype = 'f' AND f.confrelid = i.indrelid) \
             FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
             LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x') \
             WHERE i.indrelid = to_regclass({}) ORDER BY i.indexrelid",
            literal(table)
        ),
    )?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let [name, form, contype, constraint, oid, referenced] = <[String; 6]>::try_from(row).ok()?;
            let constraint = constraint.parse().ok().map(|number| (contype, number));
            Some(Candidate { name, form, constraint, oid: oid.parse().ok()?, referenced: referenced == "t" })
        })
        .collect())
}

/// Those indexes that have to be made anew, one after the other, so that `attached` (a part by its whole) comes out.
fn in_the_way(
    mut parts: Vec<Candidate>,
    wholes: &[Candidate],
    attached: &BTreeMap<String, String>,
) -> Option<Vec<Candidate>> {
    let mut anew: Vec<Candidate> = Vec::new();
    // Each round gives one of them a later number; more are needed only where no order serves.
    for _ in 0..=parts.len() * parts.len() {
        let mut free = parts.clone();
        let mut wrong = None;
        for whole in wholes {
            let fits = |part: &Candidate| {
                let serves = whole
                    .constraint
                    .as_ref()
                    .is_none_or(|(kind, _)| part.constraint.as_ref().is_some_and(|(other, _)| other == kind));
                part.form == whole.form && serves
            };
            let Some(at) = free.iter().position(fits) else { continue };
            let picked = free.remove(at);
            if attached.get(&whole.name) != Some(&picked.name) {
                wrong = Some(picked.name);
                break;
            }
        }
        let Some(wrong) = wrong else { return Some(anew) };
        let at = parts.iter().position(|part| part.name == wrong)?;
        let part = parts.remove(at);
        anew.retain(|other| other.name != part.name);
        anew.push(part.clone());
        parts.push(part);
    }
    None
}

/// Before a table becomes a partition: makes what would be picked in place of what shall be a part anew.
pub(super) fn give_way(
    client: &mut Client,
    version: u32,
    table: &Object,
    parent: &str,
    wanted: &[&Object],
) -> Result<(), TurnError> {
    let attached: BTreeMap<String, String> = wanted
        .iter()
        .filter(|object| object.of() == table.id())
        .filter_map(|object| {
            let index = if object.kind == Kind::Constraint { object.part("index") } else { object.part("id") };
            Some((object.part("attached to")?.to_owned(), index?.to_owned()))
        })
        .collect();
    let what = || format!("attach {} to {parent}", table.shown());
    let (parts, wholes) = (candidates(client, table.id())?, candidates(client, parent)?);
    let anew = in_the_way(parts, &wholes, &attached)
        .ok_or_else(|| stuck(what(), "its indexes cannot be told apart".to_owned()))?;
    for one in anew {
        let key = match one.constraint {
            Some((_, oid)) => Key { class: class::CONSTRAINT, oid, sub: 0 },
            None => Key { class: class::RELATION, oid: one.oid, sub: 0 },
        };
        let found = catalog::read(client, &Wanted { keys: vec![key], ..Wanted::default() }, version)?;
        let object = found.into_iter().next().ok_or_else(|| stuck(what(), format!("{} is gone", one.name)))?;
        let make = ddl_make::create(&object, &[]).unwrap_or_default();
        client.batch_execute(&format!("{}; {make}", ddl_make::drop(&object)))?;
        ddl_turn::converge(client, version, &[&object], Reach::NotAnew)?;
    }
    Ok(())
}

/// Brings the events of a step into the order of its undo. PostgreSQL lets go of no attached index: where the step made both it and
/// the index of the whole (`CREATE INDEX … ON ONLY`, as pg_dump writes it), it goes along with that one.
pub(super) fn reverse(events: &mut [Event]) {
    let mut go_along: Vec<(usize, String)> = Vec::new();
    for at in 0..events.len() {
        let (earlier, rest) = events.split_at_mut(at);
        let Event::Ddl { event, .. } = &mut rest[0] else { continue };
        // DETACH lets go of those that came along with their table.
        let alone = event.changes.iter().filter(|change| !event.changes.iter().any(|table| joins(table, change)));
        let attached: Vec<(String, String)> = alone.filter_map(attaches).collect();
        for (part, whole) in attached {
            // What was there before would be lost.
            let Some(made) = made_as(earlier, &part) else { continue };
            if made_as(earlier, &whole).is_none() {
                continue;
            }
            // As it is once they belong together.
            before_attached(earlier, &part, &mut |index| {
                index.parts.insert("attached to".to_owned(), whole.clone());
            });
            event.changes.retain(|change| attaches(change).is_none_or(|(other, _)| other != part));
            go_along.push(made);
            // It is valid once all partitions have a part of it, and so is its own whole.
            event.changes.retain(|change| {
                let valid = change.after.as_ref().filter(|_| only_turns_valid(change)).and_then(index_of);
                let Some(valid) = valid.filter(|index| made_as(earlier, index).is_some()) else { return true };
                before_attached(earlier, valid, &mut |index| {
                    index.parts.remove("invalid");
                });
                false
            });
        }
    }
    for (at, index) in go_along {
        if let Event::Ddl { event, .. } = &mut events[at] {
            event.changes.retain(|change| !makes(change, &index));
        }
    }
    events.reverse();
}

/// The event that made an index, and its name then.
fn made_as(events: &[Event], index: &str) -> Option<(usize, String)> {
    let mut name = index.to_owned();
    for (at, event) in events.iter().enumerate().rev() {
        let Event::Ddl { event, .. } = event else { continue };
        for change in event.changes.iter().rev() {
            if !is_after(change, &name) {
                continue;
            }
            match change.before.as_ref().and_then(index_of) {
                Some(before) => name = before.to_owned(),
                None => return Some((at, name)),
            }
        }
    }
    None
}

/// Does something to an index in all that is said of it in these events.
fn before_attached(events: &mut [Event], index: &str, act: &mut dyn FnMut(&mut Object)) {
    let mut name = index.to_owned();
    for event in events.iter_mut().rev() {
        let Event::Ddl { event, .. } = event else { continue };
        for change in event.changes.iter_mut().rev() {
            if !is_after(change, &name) {
                continue;
            }
            change.after.iter_mut().chain(&mut change.before).for_each(&mut *act);
            if let Some(before) = change.before.as_ref().and_then(index_of) {
                name = before.to_owned();
            }
        }
    }
}

fn is_after(change: &Change, index: &str) -> bool {
    change.after.as_ref().is_some_and(|after| index_of(after) == Some(index))
}

fn makes(change: &Change, index: &str) -> bool {
    change.before.is_none() && is_after(change, index)
}

fn only_turns_valid(change: &Change) -> bool {
    matches!((&change.before, &change.after), (Some(before), Some(after)) if before.differences(after) == ["invalid"])
}

fn index_of(object: &Object) -> Option<&str> {
    match object.kind {
        Kind::Index => Some(object.id()),
        Kind::Constraint => object.part("index"),
        _ => None,
    }
}

/// The part and the whole where a change attaches an index and does nothing else to it.
fn attaches(change: &Change) -> Option<(String, String)> {
    let (before, after) = (change.before.as_ref()?, change.after.as_ref()?);
    let only = before.differences(after) == ["attached to"] && before.part("attached to").is_none();
    Some((index_of(after)?.to_owned(), after.part("attached to").filter(|_| only)?.to_owned()))
}

/// True where a change makes the table a partition that the other's index is of.
fn joins(table: &Change, index: &Change) -> bool {
    let (Some(before), Some(after), Some(index)) = (&table.before, &table.after, &index.after) else { return false };
    let is_part = |object: &Object| object.part("partition of").is_some();
    after.kind == Kind::Table && after.id() == index.of() && is_part(after) && !is_part(before)
}

/// Why a partition could not be attached again as it is now; none where it could.
pub(super) fn objection(client: &mut Client, table: &Object) -> Result<Option<String>, postgres::Error> {
    let Some(parent) = table.part("partition of") else { return Ok(None) };
    let found = ddl_observe::pinned(client, |client| {
        let rows = catalog::rows(
            client,
            &format!(
                "SELECT h.inhparent::regclass, h.inhrelid::regclass FROM pg_catalog.pg_inherits h \
                 JOIN pg_catalog.pg_index i ON i.indexrelid = h.inhrelid WHERE i.indrelid = to_regclass({})",
                literal(table.id())
            ),
        )?;
        let attached = rows.into_iter().filter_map(|row| <[String; 2]>::try_from(row).ok()).map(Into::into).collect();
        let attached: BTreeMap<String, String> = attached;
        let wholes = candidates(client, parent)?;
        let alone = wholes.iter().find(|whole| !attached.contains_key(&whole.name)).map(|whole| whole.name.clone());
        Ok::<_, TurnError>((alone, in_the_way(candidates(client, table.id())?, &wholes, &attached)))
    });
    let why = match found {
        Ok((Some(whole), _)) => {
            format!("no index of it is a part of {whole}, and one would be when it is attached again")
        }
        Ok((None, None)) => {
            "two of its indexes are of one form and cannot be told apart when it is attached again".to_owned()
        }
        Ok((None, Some(anew))) => match anew.into_iter().find(|one| one.referenced) {
            Some(one) => format!(
                "its index {} is of the form of one that is a part of {parent}'s, and a foreign key counts on it: \
                 they cannot be told apart when it is attached again",
                one.name
            ),
            None => return Ok(None),
        },
        Err(TurnError::Server(error)) => return Err(error),
        Err(_) => return Ok(None),
    };
    Ok(Some(format!("{}: {why}", table.shown())))
}
