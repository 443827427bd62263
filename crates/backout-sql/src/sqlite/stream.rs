//! What the images of a step on SQLite hold: rows before and after, statements, and the index. The bytes around them are
//! those of [`crate::container`].

use backout_model::target::Summary;
use rusqlite::types::ValueRef;
use serde::{Deserialize, Serialize};

use super::counters::Counters;
use super::ddl_event::DdlEvent;
use super::numbering::Numbered;
use super::value::Cursor;
use crate::container::{self, Contents};
pub use crate::container::{Block, BlockHead, Damage, StreamError, Way};

pub(super) const RECORD_STATEMENT: u8 = 16;
pub(super) const RECORD_UNDO_STATEMENT: u8 = 17;

/// Reads the images of one step.
pub type Reader<'a> = container::Reader<'a, Index>;

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    Insert = 1,
    Update = 2,
    Delete = 3,
}

/// A column as the images hold it. Virtual generated columns have no image and are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// SQLite's affinity of the declared type: `integer`, `text`, `blob`, `real`, `numeric`.
    pub affinity: Affinity,
    /// Its place in the primary key, from 1; 0 outside of it.
    pub key: u32,
    /// Stored generated: it is in the images and never written back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub generated: bool,
    /// Not there any more, or computed by now, where the rest of the table is: only while images are replayed.
    #[serde(skip)]
    pub gone: bool,
}

impl Column {
    /// Whether its values can be compared and written.
    pub fn is_written(&self) -> bool {
        !self.generated && !self.gone
    }
}

/// See SQLite's "Datatypes", section 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

/// A table as it was while its rows were changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    /// `rowid`, `_rowid_` or `oid`, whichever no column is named; none without rowid.
    pub rowid: Option<String>,
    /// The column that is the rowid (INTEGER PRIMARY KEY), as an index into `columns`.
    pub rowid_column: Option<usize>,
}

impl Table {
    /// A column that stands elsewhere `now` than one that was added or dropped would bring about: a column that has an old
    /// name was renamed and is not the old one, or the table was built anew.
    pub fn rearranged<'n>(&self, now: &'n Table) -> Option<&'n str> {
        let place = |name: &str| self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
        let mut last = Some(0);
        now.columns.iter().find_map(|column| match (place(&column.name), last) {
            (Some(at), Some(before)) if at >= before => {
                last = Some(at);
                None
            }
            (Some(_), _) => Some(column.name.as_str()),
            // Those of others stand at the end.
            (None, _) => {
                last = None;
                None
            }
        })
    }
}

/// One part of a step, in the order in which it happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// Statements that changed rows, and the rows: the blocks from `start` to `end`.
    Rows { start: u64, end: u64, rows: u64 },
    /// A change of the schema, or a table emptied at once.
    Ddl { line: u32, sql: String, event: Box<DdlEvent> },
}

impl Event {
    /// The change of the schema, where it is one.
    pub fn ddl(&self) -> Option<&DdlEvent> {
        match self {
            Self::Ddl { event, .. } => Some(event),
            Self::Rows { .. } => None,
        }
    }
}

impl Index {
    /// What an undo or redo of the step comes to.
    pub fn summary(&self, rows: u64) -> Summary {
        let mut objects: Vec<String> = self.tables.iter().map(|table| table.name.clone()).collect();
        objects.sort_unstable();
        objects.dedup();
        objects.truncate(Summary::OBJECTS_KEPT);
        Summary { changes: self.statements, rows, objects, ..Summary::default() }
    }
}

/// A row that points at nothing, as `PRAGMA foreign_key_check` names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dangling {
    pub table: String,
    pub rowid: Option<i64>,
    pub parent: String,
    /// Which of the table's foreign keys. The number moves when another key of the table comes or goes.
    pub key: i64,
    /// The columns of that key; none in images of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<String>,
}

/// The table of contents.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Index {
    /// How the script is named to people.
    pub shown: String,
    pub way: Way,
    /// Whether foreign keys were enforced.
    pub foreign_keys: bool,
    /// PRAGMAs that ran before the transaction began.
    pub pragmas: Vec<String>,
    pub tables: Vec<Table>,
    pub events: Vec<Event>,
    pub before: Counters,
    pub after: Counters,
    #[serde(default)]
    pub numbered: Numbered,
    pub statements: u64,
    pub rows: u64,
    /// Rows that pointed at nothing before the step began, of tables in which it changed or deleted some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dangling: Vec<Dangling>,
    /// Digests of the objects that spoke of what the step changed the definition of, when it ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<u64>,
    /// Digests of the objects that could not be used when the step began, where it changed the schema.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sick_before: Vec<u64>,
    /// Of the objects that the step made or changed: digests of those that could not be used when it ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sick_after: Vec<u64>,
}

impl Contents for Index {
    const MAGIC: &'static [u8; 8] = b"BACKOUTQ";
    const MAGIC_END: &'static [u8; 8] = b"QTUOKCAB";
    const VERSION: u32 = 1;

    fn fits(&self, start: u64, stop: u64) -> Result<(), Damage> {
        let mut at = start;
        for event in &self.events {
            if let Event::Rows { start, end, .. } = event {
                if *start < at || end < start || *end > stop {
                    return Err(Damage("its index does not fit it"));
                }
                at = *end;
            }
        }
        for table in &self.tables {
            if table.rowid_column.is_some_and(|column| column >= table.columns.len()) {
                return Err(Damage("a table's definition is wrong"));
            }
        }
        Ok(())
    }
}

impl Block {
    pub(super) fn record(&self, at: usize) -> Result<Record<'_>, Damage> {
        Record::parse(self.bytes(at)?)
    }
}

impl BlockHead {
    /// The one operation and table of all its rows, where there is only one.
    pub(super) fn only(&self) -> Option<(Op, u32)> {
        let op = match self.kind {
            1 => Op::Insert,
            2 => Op::Update,
            3 => Op::Delete,
            _ => return None,
        };
        Some((op, self.table))
    }
}

/// One record of a block.
pub enum Record<'a> {
    Row(Row<'a>),
    Statement {
        line: u32,
        rows: u64,
        sql: &'a str,
        /// Belongs to the user's own undo script.
        undo: bool,
    },
}

/// One row that was changed; its images are decoded on demand.
pub struct Row<'a> {
    pub op: Op,
    pub table: u32,
    images: &'a [u8],
}

/// The images of one row. `after` of an update holds all columns.
#[derive(Default)]
pub struct RowImages<'a> {
    /// 0 where the table has none.
    pub rowid: i64,
    pub new_rowid: i64,
    pub before: Vec<ValueRef<'a>>,
    pub after: Vec<ValueRef<'a>>,
    /// Of an update: which columns it changed, ascending.
    pub changed: Vec<usize>,
}

impl<'a> Record<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Damage> {
        let mut cursor = Cursor::new(bytes);
        let kind = cursor.byte()?;
        let op = match kind {
            1 => Op::Insert,
            2 => Op::Update,
            3 => Op::Delete,
            RECORD_STATEMENT | RECORD_UNDO_STATEMENT => {
                let line = u32::try_from(cursor.varint()?).map_err(|_| Damage("a line number is too large"))?;
                let rows = cursor.varint()?;
                let sql = std::str::from_utf8(cursor.rest).map_err(|_| Damage("a statement is not UTF-8"))?;
                return Ok(Record::Statement { line, rows, sql, undo: kind == RECORD_UNDO_STATEMENT });
            }
            _ => return Err(Damage("a record has no known kind")),
        };
        let table = u32::try_from(cursor.varint()?).map_err(|_| Damage("a table number is too large"))?;
        Ok(Record::Row(Row { op, table, images: cursor.rest }))
    }
}

impl<'a> Row<'a> {
    /// The bytes of its images.
    pub fn length(&self) -> usize {
        self.images.len()
    }

    /// Decodes the images of a row of `columns` columns into `into`, whose room is used again.
    pub fn images(&self, columns: usize, into: &mut RowImages<'a>) -> Result<(), Damage> {
        let mut cursor = Cursor::new(self.images);
        into.rowid = cursor.signed()?;
        into.new_rowid = into.rowid;
        into.before.clear();
        into.after.clear();
        into.changed.clear();
        if self.op == Op::Update {
            into.new_rowid = into.rowid.wrapping_add(cursor.signed()?);
        }
        let first = if self.op == Op::Insert { &mut into.after } else { &mut into.before };
        for _ in 0..columns {
            first.push(cursor.value()?);
        }
        if self.op == Op::Update {
            into.after.extend_from_slice(&into.before);
            let mut next = 0;
            while !cursor.rest.is_empty() {
                let column = cursor.length()?.checked_add(next).ok_or(Damage("a column is out of range"))?;
                let value = cursor.value()?;
                *into.after.get_mut(column).ok_or(Damage("a column is out of range"))? = value;
                into.changed.push(column);
                next = column + 1;
            }
        }
        if cursor.rest.is_empty() { Ok(()) } else { Err(Damage("a record is longer than its row")) }
    }
}

impl container::Reader<'_, Index> {
    pub(super) fn table(&self, number: u32) -> Result<&Table, Damage> {
        self.index.tables.get(number as usize).ok_or(Damage("a row is of no known table"))
    }

    /// Reads every block, so that any damage shows.
    pub(super) fn check(&mut self) -> Result<(), StreamError> {
        let (mut at, end) = self.extent();
        let mut block = Block::default();
        let mut columns: Vec<usize> = Vec::new();
        columns.extend(self.index.tables.iter().map(|table| table.columns.len()));
        while at < end {
            let head = self.head(at)?;
            self.block(&head, &mut block)?;
            let mut images = RowImages::default();
            for number in 0..block.len() {
                // Blocks that no event names belong to an attempt that was given up.
                let named =
                    self.index.events.iter().any(
                        |event| matches!(event, Event::Rows { start, end, .. } if *start <= at && head.end() <= *end),
                    );
                if let (true, Record::Row(row)) = (named, block.record(number)?) {
                    let count = columns.get(row.table as usize).ok_or(Damage("a row is of no known table"))?;
                    row.images(*count, &mut images)?;
                }
            }
            at = head.end();
        }
        Ok(())
    }
}
