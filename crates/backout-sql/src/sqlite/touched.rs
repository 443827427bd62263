//! Which rows a step changed, told from its images alone; never touches the database.

use backout_model::target::{Images, TargetError, Touched};
use rusqlite::types::ValueRef;

use super::Sqlite;
use super::courses::courses;
use super::form::{is_nameless, keys, shown_key};
use super::stream::{Block, Event, Op, Reader, Record, RowImages, StreamError, Table};
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
    for object in reader.index.before.differing_numbers(&reader.index.after) {
        each(&Touched { object, identity: object.as_bytes(), aspects: None, key: &|| None }).map_err(Halt::Told)?;
    }
    Ok(())
}

/// A row that stays where it is changes by its columns; any other comes or goes as a whole.
fn row_touched(
    op: Op,
    table: &Table,
    images: &RowImages<'_>,
    identity: &mut Vec<u8>,
    each: Each<'_>,
) -> Result<(), TargetError> {
    let keys = keys(table);
    let moves = images.rowid != images.new_rowid || images.changed.iter().any(|column| keys.contains(column));
    let columns: Option<Vec<&str>> = (op == Op::Update && !moves)
        .then(|| images.changed.iter().map(|column| table.columns[*column].name.as_str()).collect());
    let before = (op != Op::Insert).then_some((images.rowid, &images.before));
    let after = (op == Op::Insert || moves && op == Op::Update).then_some((images.new_rowid, &images.after));
    for (rowid, values) in [before, after].into_iter().flatten() {
        identify(table, &keys, rowid, values, identity);
        each(&Touched {
            object: &table.name,
            identity,
            aspects: columns.as_deref(),
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
