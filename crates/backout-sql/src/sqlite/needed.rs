//! What an undo takes away from tables as they stand: columns, a key, the table itself. Rows that a later step changed
//! since are known by those, so that its undo could not do without them. Reads only.

use std::collections::BTreeSet;

use backout_model::conflict::Conflicts;
use backout_model::target::TargetError;
use rusqlite::Connection;

use super::courses::{Course, courses};
use super::ddl_event::DdlEvent;
use super::ddl_undo::needed;
use super::replay::Direction;
use super::schema::{self, Shape};
use super::stream::Event;

/// A table as it stands before an undo.
struct Stand {
    name: String,
    text: Option<String>,
    shape: Shape,
}

/// The tables whose form a step changed, as they stand before its undo.
#[derive(Default)]
pub struct Stands {
    tables: Vec<Stand>,
    /// By the names after the step: what had another one before, or has columns that had, is another table or column
    /// afterwards, whatever it is called then.
    renamed: BTreeSet<String>,
}

impl Stands {
    pub fn look(conn: &Connection, label: &str, events: &[Event]) -> Result<Self, TargetError> {
        let courses = courses(events);
        let made = courses.iter().filter_map(Course::last);
        let reshaped = events.iter().filter_map(Event::ddl).filter_map(DdlEvent::forms);
        let names: BTreeSet<&str> = made.chain(reshaped).collect();
        let mut stands = Vec::new();
        for name in names {
            stands.extend(stand(conn, name).map_err(|source| failed(label, source))?);
        }
        let has_moved = |course: &&Course| course.first().is_some() && course.first() != course.last();
        let moved = courses.iter().filter(has_moved).filter_map(Course::last).map(str::to_owned);
        let renames = events.iter().filter_map(Event::ddl).filter_map(DdlEvent::renames_column);
        // What a virtual table keeps its rows in is renamed along with it.
        let along = events.iter().filter_map(Event::ddl).flat_map(|event| event.pairs(Direction::Redo));
        // Tables of the step's own are known by their courses.
        let is_own = |name: &str| courses.iter().any(|course| course.has_been(name));
        let along = along.filter(|(old, new)| new.kind == "table" && old.name != new.name && !is_own(&new.name));
        let along = along.map(|(_, after)| after.name.clone());
        let renamed = moved.chain(renames.map(str::to_owned)).chain(along).collect();
        Ok(Self { tables: stands, renamed })
    }

    /// What is gone of them now.
    pub fn taken(&self, conn: &Connection, label: &str, taken: &mut Conflicts) -> Result<(), TargetError> {
        for Stand { name, text, shape: was } in &self.tables {
            let now = stand(conn, name).map_err(|source| failed(label, source))?;
            if now.as_ref().and_then(|now| now.text.as_ref()) != text.as_ref() {
                // The undo of a step that changed its form, too, puts definitions back.
                taken.push(needed(label, &format!("table {name}"), None));
            }
            let Some(Stand { shape: now, .. }) = now else {
                taken.push(needed(label, name, None));
                continue;
            };
            let lacks = |column: &&schema::Column| now.column(&column.name).is_none_or(|there| there.generated);
            for column in was.stored().filter(lacks) {
                taken.push(needed(label, name, Some(column.name.clone())));
            }
            // A column that has another name takes the values of all rows along.
            let is_renamed = was.stored().any(|column| lacks(&column))
                && now.stored().any(|column| was.column(&column.name).is_none());
            if is_renamed || told_by(was) != told_by(&now) {
                taken.push(needed(label, name, None));
            }
        }
        for name in &self.renamed {
            let whole = needed(label, name, None);
            if !taken.listed.contains(&whole) {
                taken.push(whole);
            }
        }
        Ok(())
    }
}

/// A table as it is, where it is one whose rows are stored.
fn stand(conn: &Connection, name: &str) -> rusqlite::Result<Option<Stand>> {
    let Some(row) = schema::object(conn, "table", name)?.filter(|row| row.rootpage > 0) else { return Ok(None) };
    Ok(Some(Stand { name: name.to_owned(), text: row.sql, shape: schema::shape(conn, name)? }))
}

/// What tells a table's rows from each other.
fn told_by(shape: &Shape) -> (bool, Vec<String>) {
    (shape.rowid.is_some(), shape.key().iter().map(|column| column.name.to_ascii_lowercase()).collect())
}

fn failed(label: &str, source: rusqlite::Error) -> TargetError {
    TargetError::failed(format!("cannot read the schema of {label}"), source)
}
