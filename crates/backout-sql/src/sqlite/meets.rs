//! Which conflicts are about what a step changed: told from its images alone; never touches the database.

use std::collections::HashMap;

use backout_model::conflict::{Conflict, ConflictKind};
use backout_model::target::{Images, Summary, TargetError};

use rusqlite::types::ValueRef;

use super::Sqlite;
use super::counters::NUMBERS;
use super::courses::{Course, courses};
use super::ddl_event::DdlEvent;
use super::form::{is_keyless, is_nameless, keys, shown_key};
use super::settle::NO_ROW;
use super::stream::{Block, Damage, Event, Op, Reader, Record, RowImages, StreamError, Table};

/// What a conflict is about, as far as images can be asked for it.
enum About<'c> {
    /// A row, by its key as people are shown it.
    Row(&'c str),
    /// Any row of the table.
    Rows,
    /// The values of a column, which an undo takes away.
    Column(&'c str),
    /// The form of a table.
    Form,
    /// An index, a view, a trigger.
    Object,
    /// A number in the database's header.
    Number,
}

/// A conflict and the names that its table has in the images.
struct Asked<'c> {
    conflict: &'c Conflict,
    /// Its object without the kind.
    name: &'c str,
    about: About<'c>,
    is_met: bool,
}

impl<'c> Asked<'c> {
    fn new(conflict: &'c Conflict) -> Self {
        // Of a row the table is named alone, as a rule.
        let is_kind = |(kind, _): &(&str, &str)| conflict.key.is_none() && KINDS.contains(kind) || *kind == "table";
        let split = conflict.object.split_once(' ').filter(is_kind);
        let (kind, name) = split.unwrap_or(("table", &conflict.object));
        let about = match (&conflict.key, &conflict.column) {
            _ if NUMBERS.contains(&conflict.object.as_str()) => About::Number,
            _ if kind != "table" => About::Object,
            _ if split.is_some() && conflict.kind == ConflictKind::RequiredBy => About::Form,
            // Which other row stands in the way is not known.
            (Some(_), _) if conflict.kind == ConflictKind::Constraint => About::Rows,
            (Some(key), _) => About::Row(key),
            (None, Some(column)) if conflict.kind == ConflictKind::RequiredBy => About::Column(column),
            (None, _) => About::Rows,
        };
        // Whoever made it under that name is known already.
        let is_met = conflict.object.starts_with(Summary::MADE);
        Self { conflict, name, about, is_met }
    }

    /// Whether a change of the schema is about it.
    fn is_of(&self, event: &DdlEvent, is_table: &impl Fn(&str) -> bool) -> bool {
        if let About::Object = self.about {
            return event.rows().any(|row| row.kind != "table" && row.name.eq_ignore_ascii_case(self.name));
        }
        match (event.column(), &self.about) {
            (Some((table, _)), About::Form) if is_table(table) && event.adds_column() => false,
            // Its own column alone must be there.
            (Some((table, column)), About::Column(taken)) if is_table(table) && event.adds_column() => {
                column.eq_ignore_ascii_case(taken)
            }
            // Of a row only the value in that column is changed.
            (Some((table, column)), About::Row(_)) if is_table(table) => {
                self.conflict.column.as_ref().is_none_or(|own| own.eq_ignore_ascii_case(column))
            }
            // An index neither holds nor changes a row, but may forbid one.
            _ => {
                let may_forbid = matches!(self.about, About::Rows);
                let of_rows = event
                    .rows()
                    .any(|row| (row.kind == "table" && is_table(&row.name)) || (may_forbid && is_table(&row.table)));
                of_rows || event.forms().is_some_and(is_table) || event.emptied_at_once().is_some_and(is_table)
            }
        }
    }

    /// Whether the change of a row is about it.
    fn is_of_row(&self, op: Op, table: &Table, images: &RowImages<'_>) -> bool {
        let changes = |name: &str| {
            op != Op::Update
                || images.changed.iter().any(|at| {
                    let column = &table.columns[*at];
                    column.key > 0 || column.name.eq_ignore_ascii_case(name)
                })
        };
        match self.about {
            About::Object | About::Form | About::Number => false,
            About::Rows => true,
            // Whoever takes a row away again does without its values, but where nothing else names it.
            About::Column(column) => is_keyless(table) || op != Op::Insert && changes(column),
            About::Row(key) => {
                let before = (op != Op::Insert).then_some((images.rowid, &images.before));
                let after = (op != Op::Delete).then_some((images.new_rowid, &images.after));
                let is_it = |(rowid, values): (i64, &Vec<_>)| may_be(table, rowid, values, key);
                let moves = images.rowid != images.new_rowid && op == Op::Update;
                // Where the row comes or goes as a whole, so does what anybody wrote to it.
                let is_whole = self.conflict.kind != ConflictKind::Changed || self.conflict.before == NO_ROW;
                [before, after].into_iter().flatten().any(is_it)
                    && (moves || is_whole || self.conflict.column.as_deref().is_none_or(changes))
            }
        }
    }
}

/// Whether a row may be the one that people are shown with that key. Values that are shown in more than one way, or
/// shortened, may be any.
fn may_be(table: &Table, rowid: i64, values: &[ValueRef<'_>], key: &str) -> bool {
    let is_plain = |column: usize| match values[column] {
        ValueRef::Null | ValueRef::Integer(_) => true,
        ValueRef::Text(text) => {
            text.len() <= PLAIN && text.iter().all(|byte| (b' '..0x7f).contains(byte) && *byte != b'\'')
        }
        ValueRef::Real(_) | ValueRef::Blob(_) => false,
    };
    let own = shown_key(table, rowid, values);
    // Where a rowid names it, that may be another row's by now.
    is_nameless(table, values) || !keys(table).into_iter().all(is_plain) || own == key || !is_like(&own, key)
}

/// Whether two keys are shown in the same way: the same columns in the same order.
fn is_like(own: &str, key: &str) -> bool {
    let columns = |shown: &str| -> Vec<String> {
        shown.split(", ").map(|one| one.split_once('=').map_or("", |(name, _)| name).to_owned()).collect()
    };
    columns(own) == columns(key)
}

/// Texts of so many bytes are shown whole.
const PLAIN: usize = 40;

const KINDS: [&str; 4] = ["table", "index", "view", "trigger"];

impl Sqlite {
    /// See [`backout_model::target::Target::meets`].
    pub(super) fn meets_step(&self, images: &mut dyn Images, conflicts: &[Conflict]) -> Result<Vec<bool>, TargetError> {
        let mut reader = Reader::open(images).map_err(|source| self.damaged(source))?;
        let courses = courses(&reader.index.events);
        let mut asked: Vec<Asked<'_>> = conflicts.iter().map(Asked::new).collect();
        let is_one = |one: &str, other: &str| {
            let both = |course: &Course| course.has_been(one) && course.has_been(other);
            one.eq_ignore_ascii_case(other) || courses.iter().any(both)
        };
        for number in reader.index.before.differing_numbers(&reader.index.after) {
            asked.iter_mut().for_each(|one| one.is_met |= one.conflict.object == number);
        }
        for event in reader.index.events.iter().filter_map(Event::ddl).filter(|event| event.lasts()) {
            for one in asked.iter_mut().filter(|one| !one.is_met) {
                let name = one.name;
                one.is_met = one.is_of(event, &|table: &str| is_one(table, name));
            }
        }
        // What the rows of each table are asked about.
        let mut of_table: HashMap<usize, Vec<usize>> = HashMap::new();
        for (number, table) in reader.index.tables.iter().enumerate() {
            let about = asked.iter().enumerate().filter(|(_, one)| !one.is_met && is_one(&table.name, one.name));
            let about: Vec<usize> = about.map(|(at, _)| at).collect();
            if !about.is_empty() {
                of_table.insert(number, about);
            }
        }
        if !of_table.is_empty() {
            ask_rows(&mut reader, &mut asked, of_table).map_err(|source| self.damaged(source))?;
        }
        Ok(asked.into_iter().map(|one| one.is_met).collect())
    }
}

/// Goes through the rows until everything is met.
fn ask_rows(
    reader: &mut Reader<'_>,
    asked: &mut [Asked<'_>],
    mut of_table: HashMap<usize, Vec<usize>>,
) -> Result<(), StreamError> {
    let mut block = Block::default();
    let (mut at, end) = reader.extent();
    while at < end && !of_table.is_empty() {
        let head = reader.head(at)?;
        reader.block(&head, &mut block)?;
        let mut images = RowImages::default();
        for number in 0..block.len() {
            let Record::Row(row) = block.record(number)? else { continue };
            let Some(about) = of_table.get_mut(&(row.table as usize)) else { continue };
            let table = reader.index.tables.get(row.table as usize).ok_or(Damage("a row is of no known table"))?;
            row.images(table.columns.len(), &mut images)?;
            about.retain(|at| {
                asked[*at].is_met = asked[*at].is_of_row(row.op, table, &images);
                !asked[*at].is_met
            });
            if about.is_empty() {
                of_table.remove(&(row.table as usize));
            }
        }
        at = head.end();
    }
    Ok(())
}
