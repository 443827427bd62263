//! Finds out what a statement does to the schema by running it and taking it back again.

use std::collections::BTreeSet;

use postgres::Error;

use super::catalog::{self, Key, Kind, Object, PINNED, Wanted};
use super::catalog_changes::{self, Listing, Touched};
use super::ddl::{Change, Context};
use super::ddl_turn;
use super::prepared::Client;

/// Reads under the pinned settings and puts the script's own back. After an error the caller rolls back, and with that
/// the settings.
pub(super) fn pinned<T, E: From<Error>>(
    client: &mut Client,
    work: impl FnOnce(&mut Client) -> Result<T, E>,
) -> Result<T, E> {
    let set: Vec<String> = PINNED
        .iter()
        .map(|(name, value)| format!("current_setting('{name}'), set_config('{name}', '{value}', true)"))
        .collect();
    let found = catalog::rows(client, &format!("SELECT {}", set.join(", ")))?;
    let done = work(client)?;
    let row = found.into_iter().next().unwrap_or_default();
    let back: Vec<String> = PINNED
        .iter()
        .zip(row.iter().step_by(2))
        .map(|((name, _), old)| format!("set_config('{name}', {}, true)", catalog::literal(old)))
        .collect();
    client.simple_query(&format!("SELECT {}", back.join(", ")))?;
    Ok(done)
}

/// What a statement did, as far as it can be seen without knowing how it was before.
pub(super) struct Seen {
    pub touched: Touched,
    /// Written objects as the statement left them.
    pub after: Vec<Object>,
    listing: Listing,
}

pub(super) fn see(client: &mut Client, touched: Touched, version: u32) -> Result<Seen, Error> {
    let wanted = Wanted { kinds: touched.kinds.clone(), ..Wanted::of(touched.written.clone()) };
    let after = catalog::read(client, &wanted, version)?;
    let mut touched = touched;
    touched.unhandled.extend(unread(client, touched.written.iter().copied(), &after)?);
    let listing = catalog_changes::listing(client, &touched)?;
    Ok(Seen { touched, after, listing })
}

/// Words for what is not read because it belongs to an extension.
fn unread(client: &mut Client, keys: impl Iterator<Item = Key>, found: &[Object]) -> Result<Option<String>, Error> {
    let read: BTreeSet<(u32, u32)> =
        found.iter().filter_map(|object| object.key).map(|key| (key.class, key.oid)).collect();
    let unread: Vec<Key> = keys.filter(|key| !read.contains(&(key.class, key.oid))).collect();
    catalog_changes::member(client, &unread)
}

/// What was there before, read after the statement was taken back.
pub(super) struct Before {
    /// Objects that the statement wrote or deleted.
    pub objects: Vec<Object>,
    /// Those of them of which only a part was deleted; the statement is to run once more to see what is left.
    pub less: BTreeSet<Key>,
    pub unhandled: Vec<String>,
}

pub(super) fn before(client: &mut Client, seen: &Seen, version: u32) -> Result<Before, Error> {
    let listing = catalog_changes::listing(client, &seen.touched)?;
    let mut missing = listing.missing_in(&seen.listing);
    let less: BTreeSet<Key> = missing
        .less
        .iter()
        .copied()
        .filter(|key| !missing.gone.contains(key) && !seen.touched.written.contains(key))
        .collect();
    let keys: BTreeSet<Key> =
        missing.gone.iter().copied().chain(less.iter().copied()).chain(seen.touched.written.iter().copied()).collect();
    let objects = catalog::read(client, &Wanted::of(keys.clone()), version)?;
    if !objects.iter().any(|object| object.kind == Kind::Extension) {
        missing.unhandled.extend(unread(client, keys.into_iter(), &objects)?);
    }
    Ok(Before { objects, less, unhandled: missing.unhandled })
}

/// Pairs of what was and what is, those that differ only. An object that was dropped and made again under its name is
/// one that changed.
pub(super) fn differences(before: Vec<Object>, after: Vec<Object>) -> Vec<Change> {
    let mut after: Vec<Option<Object>> = after.into_iter().map(Some).collect();
    let mut changes = Vec::new();
    let mut lone = Vec::new();
    let mut pair = |before: Object, after: Object| {
        // Of a materialized view the file says whether it holds other rows: nothing else would.
        let refilled = before.kind == Kind::MaterializedView && before.part("file") != after.part("file");
        if refilled || is_another_column(&before, &after) || !after.reads_like(&before) || after.id() != before.id() {
            changes.push(Change { before: Some(before), after: Some(after) });
        }
    };
    for before in before {
        let at = after.iter().position(|other| other.as_ref().is_some_and(|other| other.key == before.key));
        match at.and_then(|at| after[at].take()) {
            Some(after) => pair(before, after),
            None => lone.push(before),
        }
    }
    let mut gone = Vec::new();
    for before in lone {
        let same = |other: &Object| {
            other.kind == before.kind
                && other.kind != Kind::Table
                && other.id() == before.id()
                && other.of() == before.of()
                && other.text("name") == before.text("name")
        };
        let at = after.iter().position(|other| other.as_ref().is_some_and(same));
        match at.and_then(|at| after[at].take()) {
            Some(after) => pair(before, after),
            None => gone.push(before),
        }
    }
    changes.extend(gone.into_iter().map(|before| Change { before: Some(before), after: None }));
    changes.extend(after.into_iter().flatten().map(|after| Change { before: None, after: Some(after) }));
    changes
}

/// A column of the same name in the same table, which is not the one that was there.
pub(super) fn is_another_column(before: &Object, after: &Object) -> bool {
    let table = |object: &Object| object.key.map(|key| key.oid);
    before.kind == Kind::Column
        && before.part("relation").is_none()
        && table(before) == table(after)
        && before.key != after.key
}

/// What tells one statement's work from another's: the names of all that it changed.
pub(super) fn outline(changes: &[Change]) -> BTreeSet<(Kind, String, String)> {
    let name = |object: &Option<Object>| {
        object
            .as_ref()
            .map(|object| format!("{} {} {}", object.id(), object.of(), object.text("name")))
            .unwrap_or_default()
    };
    changes
        .iter()
        .filter_map(|change| {
            let kind = change.before.as_ref().or(change.after.as_ref())?.kind;
            Some((kind, name(&change.before), name(&change.after)))
        })
        .collect()
}

/// Reads the live state under the pinned settings.
pub(super) fn live_now(context: &mut Context<'_>, objects: &[&Object]) -> Result<Vec<Option<Object>>, postgres::Error> {
    let version = context.version;
    pinned(context.client, |client| ddl_turn::live(client, version, objects))
}

/// Sets a savepoint and the pinned settings, which go back with it; gives the statement that gives them back without.
pub(super) fn begin(client: &mut Client) -> Result<String, postgres::Error> {
    let list: Vec<String> = PINNED.iter().map(|(name, _)| format!("current_setting('{name}')")).collect();
    let set: Vec<String> =
        PINNED.iter().map(|(name, value)| format!("SET LOCAL {name} = {}", catalog::literal(value))).collect();
    let rows =
        catalog::rows(client, &format!("SAVEPOINT backout_undo; SELECT {}; {}", list.join(", "), set.join("; ")))?;
    let row = rows.into_iter().next().unwrap_or_default();
    let back: Vec<String> = PINNED
        .iter()
        .zip(&row)
        .map(|((name, _), old)| format!("set_config('{name}', {}, true)", catalog::literal(old)))
        .collect();
    Ok(format!("SELECT {}", back.join(", ")))
}
