//! What a command dropped is made again from its definition, filled from the copy, and moved aside like anything that a
//! statement drops: so its undo brings it back in constant time. What has its name now gives way for that moment.
//!
//! All in one transaction; at its end the user's world is what it was.

use std::collections::{BTreeMap, BTreeSet};

use backout_model::conflict::{Conflicts, OnConflict};
use backout_model::target::{Manner, TargetError};

use super::catalog::{Key, Kind, Object, literal};
use super::compared_schema::Dependence;
use super::ddl::{self, Change, Context, DdlEvent};
use super::ddl_hold::{self, Moved};
use super::ddl_observe::pinned;
use super::ddl_turn::{self, Pair, Reach, TurnError};
use super::session::ident;
use super::snapshot::Before;

/// Why something could not be held.
pub(super) enum HoldError {
    Turn(TurnError),
    Target(TargetError),
}

impl From<TurnError> for HoldError {
    fn from(error: TurnError) -> Self {
        Self::Turn(error)
    }
}

impl From<postgres::Error> for HoldError {
    fn from(error: postgres::Error) -> Self {
        Self::Turn(error.into())
    }
}

impl From<TargetError> for HoldError {
    fn from(error: TargetError) -> Self {
        Self::Target(error)
    }
}

/// Holds the tables and sequences among `gone`; `now` is all that is there.
pub(super) fn hold(
    context: &mut Context<'_>,
    gone: &[Object],
    now: &[Object],
    depend: &Dependence,
    before: &Before,
) -> Result<Vec<Moved>, HoldError> {
    if !gone.iter().any(ddl_hold::is_moved) {
        return Ok(Vec::new());
    }
    let parts: Vec<&Object> = gone.iter().filter(|object| is_held_part(object, gone)).collect();
    let aside = set_aside(context, &parts, now, depend)?;
    let functions: Vec<&Object> = gone.iter().filter(|object| object.kind == Kind::Function).collect();
    // A default or a check may call what went along.
    let version = context.version;
    context.client.batch_execute("SAVEPOINT backout_parts")?;
    let made = match make(context, &parts) {
        Err(TurnError::Stuck { .. }) if !functions.is_empty() => {
            context.client.batch_execute("ROLLBACK TO SAVEPOINT backout_parts")?;
            context.client.went_back();
            let mut all: Vec<&Object> = parts.iter().copied().chain(functions).collect();
            all.sort_by_key(|object| object.kind);
            make(context, &all)?;
            all
        }
        done => {
            done?;
            parts
        }
    };
    context.client.batch_execute("RELEASE SAVEPOINT backout_parts")?;
    fill(context, &made, before)?;
    let keys = ddl_turn::live(context.client, version, &made)?;
    let changes = keys.into_iter().flatten().map(|object| Change { before: Some(object), after: None }).collect();
    let mut event = DdlEvent::found(String::new(), Vec::new());
    ddl_hold::drop_aside(context, changes, &mut event)?;
    if let Some(aside) = aside {
        let manner = Manner { on_conflict: OnConflict::Stop, in_doubt: false };
        let mut conflicts = Conflicts::default();
        ddl::undo(context, &aside, manner, &mut conflicts, &mut Vec::new())?;
        if let Some(conflict) = conflicts.listed.first() {
            let what = "bring back what gave way".to_owned();
            return Err(TurnError::Stuck { what, why: conflict.to_string() }.into());
        }
    }
    Ok(event.moved)
}

/// True for what a held table or sequence consists of, and what its columns may be of.
fn is_held_part(object: &Object, gone: &[Object]) -> bool {
    let of_table = || gone.iter().any(|table| table.kind == Kind::Table && table.id() == object.of());
    match object.kind {
        Kind::Schema | Kind::Enum | Kind::Composite | Kind::Attribute | Kind::Domain | Kind::Range => true,
        Kind::Sequence => {
            ddl_hold::is_moved(object)
                || object
                    .part("referenced")
                    .is_some_and(|table| gone.iter().any(|other| other.kind == Kind::Table && other.id() == table))
        }
        Kind::Table => true,
        Kind::Constraint if object.part("on domain").is_some() => true,
        Kind::Column | Kind::Index => object.part("relation").is_none() && of_table(),
        Kind::Constraint => object.part("references").is_none() && of_table(),
        _ => false,
    }
}

fn make(context: &mut Context<'_>, objects: &[&Object]) -> Result<(), TurnError> {
    let pairs: Vec<Pair<'_>> = objects.iter().map(|object| Pair { from: None, to: Some(object) }).collect();
    let version = context.version;
    pinned(context.client, |client| ddl_turn::turn(client, version, &pairs, &|_| None, &|_| None, Reach::Whole))
}

/// Fills tables that were just made from their copies, and sets the sequences.
fn fill(context: &mut Context<'_>, made: &[&Object], before: &Before) -> Result<(), postgres::Error> {
    for table in made.iter().filter(|object| object.kind == Kind::Table && object.part("partition key").is_none()) {
        let Some(copy) = before.tables.iter().find(|copy| table.key.is_some_and(|key| key.oid == copy.oid)) else {
            continue;
        };
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for column in &copy.columns {
            names.push(ident(&column.name));
            let value = column.copied("");
            values.push(if column.native { value } else { format!("{value}::{}", column.kind) });
        }
        let into = if names.is_empty() { String::new() } else { format!("({})", names.join(", ")) };
        context.client.batch_execute(&format!(
            "INSERT INTO {} {into} OVERRIDING SYSTEM VALUE SELECT {} FROM {}",
            table.id(),
            values.join(", "),
            copy.table
        ))?;
    }
    let names = made.iter().filter_map(|object| match object.kind {
        Kind::Sequence => Some(object.id()),
        Kind::Column => object.part("sequence"),
        _ => None,
    });
    for name in names {
        if let Some(stood) = before.sequences.iter().find(|stood| stood.id == name) {
            let set = format!("SELECT pg_catalog.setval({}, {}, {})", literal(name), stood.at.value, stood.at.called);
            context.client.simple_query(&set)?;
        }
    }
    Ok(())
}

/// Moves aside, with all that depends on it, what has the name of something that is to be made; what brings it back.
fn set_aside(
    context: &mut Context<'_>,
    parts: &[&Object],
    now: &[Object],
    depend: &Dependence,
) -> Result<Option<DdlEvent>, HoldError> {
    let wanted: BTreeSet<String> = parts.iter().flat_map(|object| names(object)).collect();
    let mut relations: BTreeMap<&str, Key> = BTreeMap::new();
    for object in now.iter().filter(|object| object.of().is_empty()) {
        relations.extend(object.key.map(|key| (object.id(), key)));
    }
    let mut roots = BTreeSet::new();
    for object in now.iter().filter(|object| names(object).iter().any(|name| wanted.contains(name))) {
        // An index and the sequence of a column give way with their table.
        roots.extend(relations.get(object.of()).copied().or(object.key));
    }
    if roots.is_empty() {
        return Ok(None);
    }
    let closure = depend.closure(&roots, now);
    let all = now.iter().filter(|object| object.key.is_some_and(|key| closure.contains(&key)));
    let changes = all.map(|object| Change { before: Some(object.clone()), after: None }).collect();
    let mut event = DdlEvent::found(String::new(), Vec::new());
    ddl_hold::drop_aside(context, changes, &mut event)?;
    Ok(Some(event))
}

/// The names that an object takes up among relations and types.
fn names(object: &Object) -> Vec<String> {
    match object.kind {
        Kind::Table
        | Kind::View
        | Kind::MaterializedView
        | Kind::Sequence
        | Kind::Index
        | Kind::Composite
        | Kind::Enum
        | Kind::Domain
        | Kind::Range => vec![object.id().to_owned()],
        Kind::Constraint => object.part("index").map(str::to_owned).into_iter().collect(),
        Kind::Column => object.part("sequence").map(str::to_owned).into_iter().collect(),
        _ => Vec::new(),
    }
}
