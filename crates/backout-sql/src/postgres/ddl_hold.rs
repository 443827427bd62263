//! Drops tables and sequences by moving them aside with their rows, in constant time.
//!
//! Each statement has schemas of its own for them, one for each that they come from, so that no name is ever taken. What would reach the user's world
//! from there (foreign keys, triggers, membership) is dropped and made again by undo.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use backout_model::target::TargetError;
use postgres::error::SqlState;
use serde::{Deserialize, Serialize};

use super::catalog::{Kind, Object};
use super::ddl::{Change, Context, DdlEvent};
use super::ddl_make;
use super::ddl_observe::pinned;
use super::ddl_turn::{self, Pair, Reach, TurnError};
use super::event_triggers;

/// A relation that was moved aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Its qualified name in the user's world.
    pub id: String,
    /// The schema that holds it under its own name.
    pub hold: String,
    /// `TABLE`, `SEQUENCE`, `TYPE` or `DOMAIN`.
    pub word: String,
    pub schema: String,
    pub name: String,
    /// What it held, where the step may have copied that to a table of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

impl Moved {
    pub(super) fn held(&self) -> String {
        format!("{}.{}", self.hold, self.name)
    }

    pub(super) fn back(&self) -> String {
        format!("ALTER {} {} SET SCHEMA {}", self.word, self.held(), self.schema)
    }
}

/// True where relations with rows of their own went away.
pub(super) fn any(changes: &[Change]) -> bool {
    changes.iter().any(|change| change.after.is_none() && change.before.as_ref().is_some_and(is_moved))
}

/// A sequence that a column owns goes with its table, or by itself with its position kept.
pub(super) fn is_moved(object: &Object) -> bool {
    object.kind == Kind::Table || object.kind == Kind::Sequence && object.part("owned by").is_none()
}

/// A type goes with the tables that are dropped beside it: their columns are of it.
fn goes_along(object: &Object) -> bool {
    matches!(object.kind, Kind::Enum | Kind::Composite | Kind::Domain)
}

/// Makes an empty schema that holds.
fn new_hold(context: &mut Context<'_>) -> Result<String, TurnError> {
    loop {
        let name = format!("{}_h{}", context.prefix, context.next_hold);
        *context.next_hold += 1;
        let sql = format!("SELECT to_regnamespace('{name}')");
        if super::catalog::column(context.client, &sql)?.first().is_none_or(Option::is_none) {
            context.client.batch_execute(&format!("CREATE SCHEMA {name}"))?;
            return Ok(name);
        }
    }
}

/// Does what the statement did, as `changes` tell, but for the relations, which are moved.
pub(super) fn drop_aside(
    context: &mut Context<'_>,
    changes: Vec<Change>,
    event: &mut DdlEvent,
) -> Result<(), TurnError> {
    let unmute = event_triggers::mute(context.client, context.event_triggers.mute)?;
    let gone: Vec<&Object> =
        changes.iter().filter(|change| change.after.is_none()).filter_map(|change| change.before.as_ref()).collect();
    let tables: Vec<&Object> = gone.iter().copied().filter(|object| object.kind == Kind::Table).collect();
    let (mut moved, mut holds) = (Vec::new(), BTreeMap::new());
    for object in gone.iter().filter(|object| is_moved(object) || !tables.is_empty() && goes_along(object)) {
        if object
            .part("inherits")
            .is_some_and(|parents| parents.split('\n').any(|parent| tables.iter().all(|other| other.id() != parent)))
        {
            return Err(TurnError::Stuck {
                what: format!("drop {}", object.shown()),
                why: "it inherits from a table that stays, which cannot be kept apart from it".into(),
            });
        }
        let hold = match holds.entry(object.text("schema")) {
            Entry::Occupied(hold) => hold.into_mut(),
            Entry::Vacant(none) => none.insert(new_hold(context)?),
        };
        moved.push(Moved {
            id: object.id().to_owned(),
            hold: hold.clone(),
            word: ddl_make::word(object),
            schema: object.text("schema").to_owned(),
            name: object.text("name").to_owned(),
            content: None,
        });
    }
    let special = |object: &Object| stand_in(object, &gone, &moved);
    let pairs: Vec<Pair<'_>> =
        changes.iter().map(|change| Pair { from: change.before.as_ref(), to: change.after.as_ref() }).collect();
    let version = context.version;
    pinned(context.client, |client| {
        ddl_turn::turn(client, version, &pairs, &special, &|_| None, Reach::Whole)?;
        let left = ddl_turn::live(client, version, &gone)?;
        match gone.iter().zip(left).find(|(_, left)| left.is_some()) {
            Some((object, _)) => {
                Err(TurnError::Differs { object: object.shown(), what: "it is still there".to_owned() })
            }
            None => Ok(()),
        }
    })?;
    context.client.batch_execute(&unmute)?;
    event.moved = moved;
    event.changes = changes;
    Ok(())
}

/// What is done to an object of a moved table in place of a drop.
pub(super) fn stand_in(object: &Object, gone: &[&Object], moved: &[Moved]) -> Option<String> {
    let is_here = |id: &str| gone.iter().any(|other| other.kind == Kind::Table && other.id() == id);
    if let Some(moved) = is_among(object, moved) {
        let mut sql = String::new();
        if let Some(parent) = object.part("partition of").filter(|parent| !is_here(parent)) {
            sql = format!("ALTER TABLE {parent} DETACH PARTITION {}; ", object.id());
            // Those that it had from its whole are its own from then on, and would keep the rows that they point at.
            let own =
                |key: &&&Object| key.of() == object.id() && key.part("references").is_some() && key.is_inherited();
            gone.iter().filter(own).for_each(|key| sql.push_str(&format!("{}; ", ddl_make::drop(key))));
        }
        return Some(format!("{sql}ALTER {} {} SET SCHEMA {}", moved.word, object.id(), moved.hold));
    }
    match object.kind {
        Kind::Sequence if object.part("referenced").is_some_and(is_here) => Some(String::new()),
        // Their functions may be dropped next.
        Kind::Trigger | Kind::Rule | Kind::Policy if is_here(object.of()) && !object.is_inherited() => {
            Some(ddl_make::drop(object))
        }
        Kind::Constraint if object.part("references").is_some() && !object.is_inherited() => {
            Some(ddl_make::drop(object))
        }
        _ if stays_with(object, moved) => Some(String::new()),
        _ => None,
    }
}

/// How the object was moved aside, where it was.
pub(super) fn is_among<'m>(object: &Object, moved: &'m [Moved]) -> Option<&'m Moved> {
    let may_be = is_moved(object) || goes_along(object);
    moved.iter().find(|moved| may_be && moved.id == object.id() && moved.word == ddl_make::word(object))
}

/// True for what a moved relation or type keeps.
pub(super) fn stays_with(object: &Object, moved: &[Moved]) -> bool {
    let kept = match object.kind {
        Kind::Column | Kind::Attribute | Kind::Index => true,
        Kind::Constraint => object.part("references").is_none(),
        Kind::Sequence => {
            return object.part("referenced").is_some_and(|table| moved.iter().any(|moved| moved.id == table));
        }
        _ => false,
    };
    kept && moved.iter().any(|moved| moved.id == object.of())
}

/// True where a statement failed only because held tables use what it drops.
pub(super) fn keep_only_held(prefix: &str, error: &TargetError) -> bool {
    let TargetError::Failed { source, .. } = error else { return false };
    let error = source.downcast_ref::<postgres::Error>().and_then(postgres::Error::as_db_error);
    let Some(error) = error.filter(|error| *error.code() == SqlState::DEPENDENT_OBJECTS_STILL_EXIST) else {
        return false;
    };
    // The server lists each dependent on a line of its own.
    let held = format!("{prefix}_h");
    error.detail().is_some_and(|detail| detail.lines().all(|line| line.contains(&held)))
}

/// A DROP that takes along what uses the object.
pub(super) fn cascading(sql: &str) -> String {
    const RESTRICT: &str = "RESTRICT";
    let sql = sql.trim_end().trim_end_matches(';').trim_end();
    let end = sql.len().saturating_sub(RESTRICT.len());
    let sql = match sql.get(end..) {
        Some(last) if last.eq_ignore_ascii_case(RESTRICT) => &sql[..end],
        _ => sql,
    };
    format!("{sql} CASCADE")
}
