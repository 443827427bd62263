//! Which rows a step changed, told from its images alone; never touches the database.

use backout_model::target::{Images, TargetError, Touched};
use rusqlite::types::ValueRef;

use super::Sqlite;
use super::courses::{Course, courses, pairs};
use super::form::{is_nameless, keys, shown_key};
use super::head::{Alter, Head, head};
use super::stream::{Block, Event, Index, Op, Reader, Record, RowImages, StreamError, Table};
use super::value;

/// Why a walk over the rows ended early: the images are damaged, or whoever is told of them has had enough.
enum Halt {
    Damaged(StreamError),
    Told(TargetError),
}

impl<E: Into<StreamError>> From<E> for Halt {
    fn from(source: E) -> Self {
        Self::Damaged(source.into())
    }
}

type Each<'e> = &'e mut dyn FnMut(&Touched<'_>) -> Result<(), TargetError>;

impl Sqlite {
    /// See [`backout_model::target::Target::touched`].
    pub(super) fn touched_by(&self, images: &mut dyn Images, each: Each<'_>) -> Result<(), TargetError> {
        let mut reader = Reader::open(images).map_err(|source| self.damaged(source))?;
        rows(&mut reader, each).map_err(|halt| match halt {
            Halt::Damaged(source) => self.damaged(source),
            Halt::Told(error) => error,
        })
    }
}

/// Rows of a table that the step itself made or dropped come and go with the table.
fn rows(reader: &mut Reader<'_>, each: Each<'_>) -> Result<(), Halt> {
    let courses = courses(&reader.index.events);
    let comes_or_goes = |table: &Table| {
        courses
            .iter()
            .any(|course| (course.created.is_some() || course.dropped.is_some()) && course.has_been(&table.name))
    };
    let tables: Vec<bool> = reader.index.tables.iter().map(|table| !comes_or_goes(table)).collect();
    let mut block = Block::default();
    let mut identity = Vec::new();
    let spans: Vec<(u64, u64)> = reader
        .index
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Rows { start, end, .. } => Some((*start, *end)),
            Event::Ddl { .. } => None,
        })
        .collect();
    for (mut at, end) in spans {
        while at < end {
            let head = reader.head(at)?;
            reader.block(&head, &mut block)?;
            let mut images = RowImages::default();
            for number in 0..block.len() {
                let Record::Row(row) = block.record(number)? else { continue };
                let table = reader.table(row.table)?;
                if !tables.get(row.table as usize).is_some_and(|counts| *counts) {
                    continue;
                }
                row.images(table.columns.len(), &mut images)?;
                row_touched(row.op, table, &images, &mut identity, each).map_err(Halt::Told)?;
            }
            at = head.end();
        }
    }
    forms_touched(&reader.index, &courses, each).map_err(Halt::Told)?;
    for object in reader.index.before.differing_numbers(&reader.index.after) {
        each(&Touched { object, identity: object.as_bytes(), aspects: None, made: false, key: &|| None })
            .map_err(Halt::Told)?;
    }
    Ok(())
}

/// What a change of a table's form does to all its rows: a column that has another name now is none of theirs under the
/// old one, and what goes back by key needs the keys.
fn forms_touched(index: &Index, courses: &[Course], each: Each<'_>) -> Result<(), TargetError> {
    let mut all = |object: &str, aspects: &[&str]| {
        each(&Touched { object, identity: &[], aspects: Some(aspects), made: false, key: &|| None })
    };
    for event in index.events.iter().filter_map(Event::ddl) {
        if let Some(Head::Alter { name, alter: Alter::RenameColumn { from, to } }) = head(&event.sql) {
            all(&name.name, &[&from, &to])?;
        }
        if let Some((table, _)) = event.column().filter(|_| !event.adds_column()) {
            all(table, &[Touched::KEY])?;
        }
    }
    for pair in pairs(courses) {
        let new = courses.iter().find(|course| course.created == Some(pair.create));
        if let Some(name) = new.and_then(Course::last) {
            all(name, &[Touched::KEY])?;
        }
    }
    Ok(())
}

/// A row that stays where it is changes by its columns, one that moves by all and its key; others come or go as a whole.
fn row_touched(
    op: Op,
    table: &Table,
    images: &RowImages<'_>,
    identity: &mut Vec<u8>,
    each: Each<'_>,
) -> Result<(), TargetError> {
    let keys = keys(table);
    let moves = images.rowid != images.new_rowid || images.changed.iter().any(|column| keys.contains(column));
    let names = |columns: &mut dyn Iterator<Item = usize>| -> Vec<&str> {
        columns.map(|column| table.columns[column].name.as_str()).collect()
    };
    let columns: Option<Vec<&str>> = match op {
        Op::Update if moves => Some(names(&mut (0..table.columns.len())).into_iter().chain([Touched::KEY]).collect()),
        Op::Update => Some(names(&mut images.changed.iter().copied())),
        Op::Insert | Op::Delete => None,
    };
    let before = (op != Op::Insert).then_some((images.rowid, &images.before));
    let after = (op == Op::Insert || moves && op == Op::Update).then_some((images.new_rowid, &images.after));
    for (rowid, values) in [before, after].into_iter().flatten() {
        identify(table, &keys, rowid, values, identity);
        each(&Touched {
            object: &table.name,
            identity,
            aspects: columns.as_deref(),
            made: op == Op::Insert,
            key: &|| Some(shown_key(table, rowid, values)),
        })?;
    }
    Ok(())
}

/// The table's name, and the key or, where no key names the row, its rowid.
fn identify(table: &Table, keys: &[usize], rowid: i64, values: &[ValueRef<'_>], identity: &mut Vec<u8>) {
    identity.clear();
    identity.extend(table.name.bytes().map(|byte| byte.to_ascii_lowercase()));
    identity.push(0);
    if keys.is_empty() || is_nameless(table, values) {
        value::put(identity, ValueRef::Integer(rowid));
    } else {
        keys.iter().for_each(|column| value::put(identity, values[*column]));
    }
}
