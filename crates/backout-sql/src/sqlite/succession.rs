//! Tables that take the place of others in ways that are no rebuild within one step (`courses::Pair`): over several steps, by
//! way of a temporary table, or beside the old one, which keeps another name. Their rows are not carried over; so a row that
//! others deleted from the new table must not come back with the old one unsaid, nor with the new one when that comes again.

use std::collections::{HashMap, HashSet};

use backout_model::conflict::{Conflict, ConflictKind};
use rusqlite::{Connection, OptionalExtension as _};

use super::copying::{self, Copying};
use super::courses::{Course, courses, pairs};
use super::ddl_event::{Change, DdlEvent};
use super::schema;
use super::stream::Event;
use super::token::quote;

/// What one process remembers from step to step. All names in lower case.
#[derive(Clone, Debug, Default)]
pub struct Succession {
    /// What steps copied so far, and into which tables of theirs.
    pub copying: Copying,
    /// For an undo: what [`replacing`] says of the whole deployment.
    pub replacing: HashMap<String, String>,
    /// For an undo: hashes of rows and objects that a later step had put there and that others took away, see
    /// [`super::guard::Guard::gone`].
    pub gone: HashSet<u64>,
    /// Names that tables of before gave up by being renamed, each with what the table is called now.
    renamed: HashMap<String, String>,
    /// For a redo: names given up by tables that others changed since the undo.
    lacking: HashSet<String>,
}

/// The tables that these steps make and that have a name that a table of before them gave up, but for rebuilds within one
/// step: each name that they have had, in lower case, with the last one.
pub fn replacing(steps: &[&[Event]]) -> HashMap<String, String> {
    let (mut events, mut rebuilt) = (Vec::new(), HashSet::new());
    for step in steps {
        rebuilt.extend(pairs(&courses(step)).iter().map(|pair| events.len() + pair.create));
        events.extend_from_slice(step);
    }
    let courses = courses(&events);
    let gave_up = |course: &&Course| course.created.is_none() && course.is_moved();
    let given_up: Vec<&Course> = courses.iter().filter(gave_up).collect();
    let made = courses.iter().filter(|course| course.created.is_some_and(|made| !rebuilt.contains(&made)));
    let into: HashSet<String> = events.iter().filter_map(Event::ddl).flat_map(DdlEvent::into).collect();
    let has_copies = |course: &Course| course.all_names().any(|name| into.contains(&name.to_ascii_lowercase()));
    made.filter(|course| has_copies(course) || given_up.iter().any(|other| other.shares_a_name(course)))
        .filter_map(|course| Some((course, course.last()?)))
        .flat_map(|(course, last)| course.all_names().map(move |name| (name.to_ascii_lowercase(), last.to_owned())))
        .flat_map(|(name, last)| [(content_of(&name), last.clone()), (name, last)])
        .collect()
}

impl Succession {
    /// Hears of a change of the schema, before rows come into what it made; `made`: the tables that its step made. What a redo
    /// must know of the rows of the table whose name it takes.
    pub fn changed(&mut self, conn: &Connection, event: &DdlEvent, made: &[String]) -> rusqlite::Result<Option<u64>> {
        let is_made = |table: &str| made.iter().any(|made| made.eq_ignore_ascii_case(table));
        // One that was there before may have been renamed before, too.
        let was_there = |table: &str| self.renamed.values().any(|now| now.eq_ignore_ascii_case(table));
        match event.change() {
            Some(Change::Drop(table)) => {
                self.renamed.retain(|_, now| !now.eq_ignore_ascii_case(table));
                Ok(None)
            }
            Some(Change::Rename { from, to }) if !is_made(from) || was_there(from) => {
                let (from, to) = (from.to_ascii_lowercase(), to.to_ascii_lowercase());
                self.renamed.values_mut().filter(|now| **now == from).for_each(|now| now.clone_from(&to));
                self.renamed.insert(from, to);
                Ok(None)
            }
            Some(change) => change.gives().map_or(Ok(None), |table| self.rows_beside(conn, table)),
            None => Ok(None),
        }
    }

    /// A digest of the rows of the table that gave up its name for this one, and is still there.
    fn rows_beside(&self, conn: &Connection, table: &str) -> rusqlite::Result<Option<u64>> {
        let Some(now) = self.renamed.get(&table.to_ascii_lowercase()) else { return Ok(None) };
        match schema::object(conn, "table", now)? {
            Some(old) if old.rootpage > 0 => copying::digest(conn, &old.name).map(Some),
            // What a full-text table holds lies in a table of its own.
            Some(old) => match schema::object(conn, "table", &content_of(&old.name))? {
                Some(content) => copying::digest(conn, &content.name).map(Some),
                None => Ok(None),
            },
            None => Ok(None),
        }
    }

    /// A redo drops a table: whether others took rows out of it since.
    pub fn dropped(&mut self, table: &str, is_another: bool) {
        let table = table.to_ascii_lowercase();
        let given_up = self.renamed.iter().filter(|(_, now)| **now == table).map(|(name, _)| name.clone());
        for name in given_up.chain([table.clone()]).collect::<Vec<_>>() {
            if is_another {
                self.lacking.insert(name);
            } else {
                self.lacking.remove(&name);
            }
        }
    }

    /// A redo makes a table again, by an event that knows what the rows of the one in whose place it comes were.
    pub fn made_again(&mut self, conn: &Connection, event: &DdlEvent) -> rusqlite::Result<()> {
        if let (Some(table), Some(then)) = (event.change().and_then(|change| change.gives()), event.digest()) {
            let is_another = self.rows_beside(conn, table)?.is_some_and(|now| now != then);
            self.dropped(table, is_another);
        }
        Ok(())
    }

    /// The tables that stand, with rows, in the place of one that others changed: those rows are of before that.
    pub fn stale(&self, conn: &Connection) -> rusqlite::Result<Vec<String>> {
        let mut stale = Vec::new();
        for name in &self.lacking {
            let Some(table) = schema::object(conn, "table", name)? else { continue };
            let content = if table.rootpage > 0 { table.name.clone() } else { content_of(&table.name) };
            if schema::object(conn, "table", &content)?.is_none() {
                continue;
            }
            let any = format!("SELECT 1 FROM main.{} LIMIT 1", quote(&content));
            if conn.query_row(&any, [], |_| Ok(())).optional()?.is_some() {
                stale.push(table.name);
            }
        }
        stale.sort();
        Ok(stale)
    }
}

/// The table that holds the rows of a full-text table.
pub fn content_of(table: &str) -> String {
    format!("{table}_content")
}

/// That a table would come again with rows that others deleted or changed since.
pub fn conflict(label: &str, table: &str) -> Conflict {
    Conflict {
        target: label.to_owned(),
        object: format!("table {table}"),
        key: None,
        column: None,
        kind: ConflictKind::Constraint,
        before: String::new(),
        left: String::new(),
        now: "others deleted or changed rows since, and what takes its place would come with those of the first time"
            .to_owned(),
    }
}
