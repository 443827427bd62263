//! Objects that a step made or gave a new name, and those that its undo would change or take away: where a later step made
//! one of these, it is another object under the same name. Reads events; never touches the database.

use std::collections::BTreeSet;

use super::courses::{Course, courses, pairs};
use super::ddl_event::DdlEvent;
use super::stream::{Event, Index};

/// What a step made or gave a name that it had not before, with its kind; without a table that replaces another in the
/// same step: rows go over from the one to the other.
pub fn made(events: &[Event]) -> Vec<String> {
    let courses = courses(events);
    let pairs = pairs(&courses);
    let mut made = BTreeSet::new();
    for event in events.iter().filter_map(Event::ddl) {
        for row in event.gone.iter().filter(|row| row.kind != "table") {
            made.remove(&row.shown());
        }
        let others = event.made.iter().filter(|row| row.kind != "table" && row.sql.is_some());
        made.extend(others.map(super::schema::SchemaRow::shown));
    }
    let replaces = |course: &Course| pairs.iter().any(|pair| course.created == Some(pair.create));
    for course in courses.iter().filter(|course| !replaces(course)) {
        let Some(last) = course.last().filter(|last| course.first() != Some(last)) else { continue };
        made.insert(format!("table {last}"));
    }
    made.into_iter().collect()
}

/// What the undo of a step changes, takes away or puts another in the place of, by the names after the step.
pub fn touched(index: &Index) -> BTreeSet<String> {
    let courses = courses(&index.events);
    let mut touched = BTreeSet::new();
    let mut table = |name: &str| {
        let mut known = courses.iter().filter(|course| course.has_been(name)).peekable();
        if known.peek().is_none() {
            touched.insert(format!("table {name}"));
        }
        for name in known.filter_map(|course| course.last().or(course.first())) {
            touched.insert(format!("table {name}"));
        }
    };
    index.tables.iter().for_each(|one| table(&one.name));
    let rows = || index.events.iter().filter_map(Event::ddl).flat_map(DdlEvent::rows).filter(|row| row.sql.is_some());
    rows().filter(|row| row.kind == "table").for_each(|row| table(&row.name));
    touched.extend(rows().filter(|row| row.kind != "table").map(super::schema::SchemaRow::shown));
    touched
}
