//! The changes of the schema that a comparison found, as the events of a step: first what went, then what came before the
//! rows could, then (behind the rows) what rows must satisfy and what is made of them.

use std::collections::BTreeMap;

use super::catalog::{Kind, Object};
use super::compared_schema::Differences;
use super::ddl::{Change, DdlEvent};
use super::ddl_make;
use super::ddl_varying::is_computed;
use super::stream::{Event, Index};

/// The events, in the order in which the step is done again. Rows come before the last.
pub(super) struct Parts {
    /// What went.
    pub gone: DdlEvent,
    /// Types that came: in an event of their own, since an undo lets go of images of them only between two.
    pub types: DdlEvent,
    pub made: DdlEvent,
    pub behind: DdlEvent,
}

impl DdlEvent {
    /// A change that was found by comparison. No statement of the command's is known: `sql` says what it comes to, and a
    /// redo turns the objects themselves.
    pub(super) fn found(sql: String, changes: Vec<Change>) -> Self {
        Self { sql, changes, found: true, ..Self::default() }
    }

    pub(super) fn does_something(&self) -> bool {
        !self.changes.is_empty() || !self.kept.is_empty()
    }
}

impl Parts {
    pub fn of(found: &Differences) -> Self {
        let mut went: Vec<Change> =
            found.gone.iter().map(|object| Change { before: Some(object.clone()), after: None }).collect();
        let (mut types, mut early, mut late) = (Vec::new(), Vec::new(), Vec::new());
        let tables: Vec<&str> = found.made.iter().filter(|object| object.kind == Kind::Table).map(Object::id).collect();
        let domains: Vec<&str> =
            found.made.iter().filter(|object| object.kind == Kind::Domain).map(Object::id).collect();
        let of_types = |function: &Object| {
            let mentions =
                |table: &&str| function.id().contains(*table) || function.text("definition").contains(*table);
            !domains.is_empty() && !tables.iter().any(mentions)
        };
        for object in &found.made {
            let change = Change { before: None, after: Some(object.clone()) };
            match object.kind {
                Kind::Column if object.part("relation").is_some() => late.push(change),
                Kind::Column if !is_of_one(object, &found.made) => {
                    let bare = as_added(object);
                    let is_whole = bare == *object;
                    early.push(Change { before: None, after: Some(bare.clone()) });
                    if !is_whole {
                        late.push(Change { before: Some(bare), after: Some(object.clone()) });
                    }
                }
                Kind::Index | Kind::Constraint
                    if object.part("references").is_none()
                        && is_of_one(object, &found.made)
                        && !waits(object, &found.made) =>
                {
                    early.push(change);
                }
                // What a domain demands that was there before, rows satisfy as they are afterwards.
                Kind::Constraint if object.part("on domain").is_some() && domains.contains(&object.of()) => {
                    types.push(change);
                }
                kind if kind.is_of_types() => types.push(change),
                Kind::Function if of_types(object) => types.push(change),
                Kind::Sequence | Kind::Function | Kind::Table | Kind::Column => early.push(change),
                _ => late.push(change),
            }
        }
        let renamed = |change: &Change| matches!((&change.before, &change.after), (Some(was), Some(is)) if was.id() != is.id() && was.of() == is.of());
        // What mentions a name is the same thing once the name is another.
        let has_renamed = found.altered.iter().any(renamed);
        // What is made of a partitioned table behind the rows is not to reach what is no part of it any more.
        let is_detached = |change: &&Change| match (&change.before, &change.after) {
            (Some(was), Some(is)) => was.part("partition of").is_some() && is.part("partition of").is_none(),
            _ => false,
        };
        let freed = found.altered.iter().filter(is_detached).filter_map(|change| change.after.as_ref());
        let detached: Vec<&str> = freed.map(Object::id).collect();
        for Change { before: was, after } in &found.altered {
            let (Some(was), Some(is)) = (was, after) else { continue };
            let mut was = was.clone();
            if lets_go(&was, is, &found.gone) {
                let free = with(&["default"], is, &was);
                went.push(Change { before: Some(was), after: Some(free.clone()) });
                was = free;
            }
            let is_free = |table: &str| detached.contains(&table);
            let between = between(&was, is, has_renamed, &is_free);
            if between != was {
                early.push(Change { before: Some(was), after: Some(between.clone()) });
            }
            if between != *is {
                late.push(Change { before: Some(between), after: Some(is.clone()) });
            }
        }
        let event = |changes: Vec<Change>| DdlEvent::found(words(&changes), changes);
        Self { gone: event(went), types: event(types), made: event(early), behind: event(late) }
    }

    /// Puts all that happened into the index, in order.
    pub fn into_events(self, index: &mut Index, rows: Vec<Event>) {
        let ddl = |event: DdlEvent| Event::Ddl { line: 0, sql: event.sql.clone(), event: Box::new(event) };
        let Self { gone, types, made, behind } = self;
        index.events.extend([gone, types, made].into_iter().filter(DdlEvent::does_something).map(ddl));
        index.events.extend(rows);
        index.events.extend(Some(behind).filter(DdlEvent::does_something).map(ddl));
        index.statements = index.events.len() as u64;
    }
}

impl Index {
    /// True where what rows must satisfy comes behind them, as a comparison found it.
    pub(super) fn ends_behind_rows(&self) -> bool {
        let is_rows = |event: &Event| matches!(event, Event::Rows { .. });
        matches!(self.events.last(), Some(Event::Ddl { event, .. }) if event.found) && self.events.iter().any(is_rows)
    }

    /// The same for images of a redo, in which rows of tables that it made stand at the end.
    pub(super) fn put_last_change_behind_rows(&mut self) {
        if let Some(at) = self.events.iter().rposition(|event| matches!(event, Event::Ddl { .. })) {
            self.events[at..].rotate_left(1);
        }
    }
}

/// A column of a table with rows, as it can be added before they have their values.
fn as_added(column: &Object) -> Object {
    let mut bare = column.clone();
    bare.parts.remove("not null");
    bare.parts.remove("not null as");
    if column.part("default").is_some_and(is_computed) {
        bare.parts.remove("default");
    }
    bare
}

/// What rows of before got in the columns that were added to a table, by their numbers.
pub(super) fn added(found: &Differences, oid: u32) -> BTreeMap<i32, String> {
    let columns = found.made.iter().filter(|object| object.kind == Kind::Column && object.part("relation").is_none());
    let defaults = columns.filter_map(|column| {
        let key = column.key.filter(|key| key.oid == oid)?;
        let default = column.part("default").filter(|default| !is_computed(default))?;
        Some((key.sub, default.to_owned()))
    });
    defaults.collect()
}

/// The object with some parts of another.
fn with(parts: &[&str], of: &Object, base: &Object) -> Object {
    let mut object = base.clone();
    for part in parts {
        match of.part(part) {
            Some(value) => object.parts.insert((*part).to_owned(), value.to_owned()),
            None => object.parts.remove(*part),
        };
    }
    object
}

/// True for a column whose default calls what went, and does not any more.
fn lets_go(was: &Object, is: &Object, gone: &[Object]) -> bool {
    let named = |object: &&Object| matches!(object.kind, Kind::Sequence | Kind::Function);
    let called = |default: &str| gone.iter().filter(named).any(|object| default.contains(object.text("name")));
    was.kind == Kind::Column && was.part("default") != is.part("default") && was.part("default").is_some_and(called)
}

/// An altered object while rows change: names and types as they are now, and nothing yet that rows must satisfy.
fn between(was: &Object, is: &Object, has_renamed: bool, is_detached: &dyn Fn(&str) -> bool) -> Object {
    match is.kind {
        Kind::Column if is.part("relation").is_none() => {
            if is.part("not null").is_some() && was.part("not null").is_none() {
                with(&["not null", "not null as", "default", "acl"], was, is)
            } else {
                with(&["acl"], was, is)
            }
        }
        Kind::Table if is_detached(is.id()) => with(&["id", "of", "schema", "name", "partition of", "bound"], is, was),
        Kind::Table => with(&["id", "of", "schema", "name"], is, was),
        // Owners and grants follow those of the table, but of one that comes to be its own: that asks for the same owner.
        Kind::Sequence if was.part("owned by") == is.part("owned by") => with(&["owner", "acl"], was, is),
        Kind::Function
        | Kind::Sequence
        | Kind::Enum
        | Kind::Composite
        | Kind::Attribute
        | Kind::Schema
        | Kind::Extension => is.clone(),
        _ if has_renamed || is_detached(is.of()) => is.clone(),
        _ => was.clone(),
    }
}

/// True for a part of a table that is among the objects.
pub(super) fn is_of_one(part: &Object, objects: &[Object]) -> bool {
    objects.iter().any(|table| table.kind == Kind::Table && table.id() == part.of())
}

/// True for an index of a new partition that is a part of one which comes behind the rows.
fn waits(index: &Object, made: &[Object]) -> bool {
    let Some(whole) = index.part("attached to") else { return false };
    let is_it = |object: &&Object| match object.kind {
        Kind::Index => object.id() == whole,
        Kind::Constraint => object.part("index") == Some(whole),
        _ => false,
    };
    made.iter().find(is_it).is_some_and(|whole| !is_of_one(whole, made) || waits(whole, made))
}

/// What the changes come to, as statements.
fn words(changes: &[Change]) -> String {
    let whole: Vec<&Object> = changes.iter().filter_map(|change| change.after.as_ref()).collect();
    let mut lines = Vec::new();
    for change in changes {
        match (&change.before, &change.after) {
            (Some(gone), None) if gone.of().is_empty() || !belongs(gone, changes) => lines.push(ddl_make::drop(gone)),
            (None, Some(made)) if !ddl_make::comes_with(made, &whole) => {
                lines.push(ddl_make::create(made, &whole).unwrap_or_else(|| format!("CREATE {}", made.shown())));
            }
            (Some(was), Some(is)) => {
                let parts = was.differences(is).join(", ");
                let shown = if was.id() == is.id() { was.shown() } else { format!("{} to {}", was.shown(), is.id()) };
                lines.push(if parts.is_empty() {
                    format!("ALTER {shown}")
                } else {
                    format!("ALTER {shown} ({parts})")
                });
            }
            _ => {}
        }
    }
    lines.retain(|line| !line.is_empty());
    lines.join(";\n")
}

/// True for what goes with something whole.
fn belongs(object: &Object, changes: &[Change]) -> bool {
    changes
        .iter()
        .filter_map(|change| change.before.as_ref())
        .any(|other| other.of().is_empty() && other.id() == object.of())
}

/// The first thing in which two states of the schema are not the same, in words. Numbers of objects say nothing.
pub(super) fn first_difference(wanted: &[Object], found: &[Object]) -> Option<String> {
    let name =
        |object: &Object| (object.kind, object.id().to_owned(), object.of().to_owned(), object.text("name").to_owned());
    let mut left: BTreeMap<_, &Object> = found.iter().map(|object| (name(object), object)).collect();
    for object in wanted {
        let Some(now) = left.remove(&name(object)) else { return Some(format!("{} is missing", object.shown())) };
        let order = object.kind == Kind::Column && object.part("position") != now.part("position");
        if let Some(part) = object.differences(now).first().copied().or(order.then_some("position")) {
            let text = |object: &Object| object.part(part).unwrap_or("not set").to_owned();
            return Some(format!("{}: {part} is {} and was {}", object.shown(), text(now), text(object)));
        }
    }
    left.into_values().next().map(|object| format!("{} is still there", object.shown()))
}
