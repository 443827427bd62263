//! What the images of a step on PostgreSQL hold: rows as lines of COPY text, statements, and the index. The bytes around
//! them are those of [`crate::container`].
//!
//! A row's text is what `COPY … TO STDOUT` gives under the settings of [`Session`](super::session::Session), which is lossless for every
//! type and means the same to every later version.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::ddl::DdlEvent;
use super::named::Named;
use crate::container::{self, Contents};
pub use crate::container::{Block, Damage, StreamError, Way};

/// A row as it was before, as it was left.
const KIND_BEFORE: u8 = 1;
const KIND_AFTER: u8 = 2;
/// A row that a change of the schema would have destroyed.
const KIND_KEPT: u8 = 3;
const KIND_STATEMENT: u8 = 16;
const KIND_UNDO_STATEMENT: u8 = 17;

/// Reads the images of one step.
pub type Reader<'a> = container::Reader<'a, Index>;

/// Which image of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// A column as the images hold it. Generated columns have no image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// As `format_type` writes it, with the schema where it is not `pg_catalog`.
    pub kind: String,
    /// Its `=` holds for identical values only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,
    /// GENERATED ALWAYS AS IDENTITY.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
}

/// A column of the key by which rows are told apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyColumn {
    /// An index into the columns.
    pub column: usize,
    /// The equality of the unique index, as an operator with its schema.
    pub equals: String,
}

/// A table as it was while its rows were changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub schema: String,
    pub name: String,
    pub columns: Vec<Column>,
    /// Of the primary key, else of a unique index without NULLs; empty where there is none.
    pub key: Vec<KeyColumn>,
    /// It was made in this step.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub made: bool,
    /// What its name, those of its columns and of labels meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Named>,
}

/// A row of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub start: u64,
    pub end: u64,
    pub records: u64,
}

/// One part of a step, in the order in which it is to be done again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The texts of statements that ran.
    Statements { span: Span },
    /// The net effect on the rows of one table since it was last looked at.
    Rows { table: u32, before: Span, after: Span },
    /// A change of the schema.
    Ddl { line: u32, sql: String, event: Box<DdlEvent> },
}

/// Where a sequence stood and where the step left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    pub schema: String,
    pub name: String,
    pub before: Position,
    pub after: Position,
    /// The step made it: there is nothing to put back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub made: bool,
    /// The step dropped it: there is nothing to bring forward.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// Its schema and name before, where the step gave it others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<(String, String)>,
    /// Its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oid: Option<u32>,
}

impl Sequence {
    pub fn under_its_old_name(mut self) -> Self {
        if let Some((schema, name)) = self.was.take() {
            (self.schema, self.name) = (schema, name);
        }
        self
    }
}

/// `last_value` and `is_called` of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub value: i64,
    pub called: bool,
}

/// The table of contents.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Index {
    /// How the script is named to people.
    pub shown: String,
    pub way: Way,
    pub tables: Vec<Table>,
    pub events: Vec<Event>,
    /// What changes of the schema keep, by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Span>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sequences: Vec<Sequence>,
    /// The script had foreign keys not enforced: what it left may point at nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unenforced: bool,
    /// The number of the marker's table, by which it is known whether other numbers still mean the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<u32>,
    pub statements: u64,
    pub rows: u64,
    /// See [`Index::put_rows_earlier`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rows_earlier: bool,
    /// Rows by their place among the events, and the number of the change of the schema that came after them; within the step.
    #[serde(skip)]
    pub earlier: Vec<(usize, usize)>,
}

impl Index {
    /// How many changes of the schema there are so far.
    pub fn changes(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Ddl { .. })).count()
    }

    /// Adds rows of a table. `before`: the change of the schema that came after the last of them.
    pub fn add_rows(&mut self, rows: Event, before: Option<usize>) {
        self.earlier.extend(before.map(|change| (self.events.len(), change)));
        self.events.push(rows);
    }

    /// Puts rows before the change of the schema that came after the last of them, so that those of several tables which
    /// belong together are on one side of it; false where none move. Where types changed since, the rows were read as they
    /// are afterwards, and stay there.
    pub fn put_rows_earlier(&mut self) -> bool {
        let is_change = |event: &Event| matches!(event, Event::Ddl { .. });
        let changes: Vec<usize> = (0..self.events.len()).filter(|at| is_change(&self.events[*at])).collect();
        let alters_types = |event: &Event| matches!(event, Event::Ddl { event, .. } if event.alters_types());
        let mut places: Vec<(usize, bool)> = (0..self.events.len()).map(|at| (at, true)).collect();
        for (at, change) in std::mem::take(&mut self.earlier) {
            match changes.get(change) {
                Some(to) if *to < at && !self.events[*to..at].iter().any(alters_types) => places[at] = (*to, false),
                _ => {}
            }
        }
        self.rows_earlier = places.iter().any(|(_, stays)| !stays);
        let mut events: Vec<_> = places.into_iter().zip(std::mem::take(&mut self.events)).collect();
        events.sort_by_key(|(place, _)| *place);
        self.events = events.into_iter().map(|(_, event)| event).collect();
        self.rows_earlier
    }

    /// Where the events' blocks are.
    fn spans(&self) -> impl Iterator<Item = Span> {
        self.events
            .iter()
            .flat_map(|event| match event {
                Event::Statements { span } => [Some(*span), None],
                Event::Rows { before, after, .. } => [Some(*before), Some(*after)],
                Event::Ddl { .. } => [None, None],
            })
            .flatten()
    }
}

impl Contents for Index {
    const MAGIC: &'static [u8; 8] = b"BACKOUTP";
    const MAGIC_END: &'static [u8; 8] = b"PTUOKCAB";
    const VERSION: u32 = 1;

    fn fits(&self, start: u64, stop: u64) -> Result<(), Damage> {
        let mut at = start;
        // The images of a table may stand in either order.
        let mut spans: Vec<Span> = self.spans().filter(|span| span.end > span.start).collect();
        spans.sort_unstable_by_key(|span| span.start);
        for span in spans {
            if span.start < at || span.end > stop {
                return Err(Damage("its index does not fit it"));
            }
            at = span.end;
        }
        if self.kept.iter().any(|span| span.start < start || span.end < span.start || span.end > stop) {
            return Err(Damage("its index does not fit it"));
        }
        for event in &self.events {
            if let Event::Rows { table, .. } = event
                && *table as usize >= self.tables.len()
            {
                return Err(Damage("a row is of no known table"));
            }
        }
        if self.tables.iter().any(|table| table.key.iter().any(|key| key.column >= table.columns.len())) {
            return Err(Damage("a table's definition is wrong"));
        }
        Ok(())
    }
}

/// Writes the images of one step.
pub struct Writer(container::Writer);

impl Writer {
    pub fn new(out: Box<dyn Write + Send>) -> io::Result<Self> {
        Ok(Self(container::Writer::new::<Index>(out)?))
    }

    /// Adds the image of a row: one line of COPY text, without its end.
    pub fn row(&mut self, side: Side, table: u32, line: &[u8]) -> io::Result<()> {
        let kind = match side {
            Side::Before => KIND_BEFORE,
            Side::After => KIND_AFTER,
        };
        self.0.record(kind, table, |bytes| {
            bytes.extend_from_slice(line);
            true
        })?;
        Ok(())
    }

    /// Adds a row that a change of the schema would destroy.
    pub fn kept(&mut self, line: &[u8]) -> io::Result<()> {
        self.0.record(KIND_KEPT, 0, |bytes| {
            bytes.extend_from_slice(line);
            true
        })?;
        Ok(())
    }

    /// Adds a statement; `undo`: of the user's own undo script.
    pub fn statement(&mut self, line: u32, rows: u64, text: &[u8], undo: bool) -> io::Result<()> {
        self.0.record(if undo { KIND_UNDO_STATEMENT } else { KIND_STATEMENT }, 0, |bytes| {
            bytes.extend_from_slice(&line.to_le_bytes());
            bytes.extend_from_slice(&rows.to_le_bytes());
            bytes.extend_from_slice(text);
            true
        })?;
        Ok(())
    }

    /// Closes the block and says where the next one starts.
    pub fn boundary(&mut self) -> io::Result<u64> {
        self.0.boundary()
    }

    /// Has all be read back that was written so far; where that ends.
    pub fn flush(&mut self) -> io::Result<u64> {
        self.0.flush()
    }

    /// Writes index and footer; the whole stream's length.
    pub fn finish(self, index: &Index) -> io::Result<u64> {
        self.0.finish(index)
    }
}

/// The images of a step before their index is written: that tells how its undo went, once it was tried.
pub struct Unsealed {
    pub writer: Writer,
    pub index: Index,
}

impl Unsealed {
    /// Writes the index; the whole stream's length.
    pub fn seal(self) -> io::Result<(Index, u64)> {
        let bytes = self.writer.finish(&self.index)?;
        Ok((self.index, bytes))
    }
}

/// A statement as the images hold it.
pub struct Kept {
    pub line: u32,
    /// As the server counted them; 0 where it did not say.
    pub rows: u64,
    pub text: String,
}

/// A way along the rows of a span, block by block.
pub struct Walk {
    at: u64,
    span: Span,
    seen: u64,
    block: Block,
}

impl Walk {
    pub fn new(span: Span) -> Self {
        Self { at: span.start, span, seen: 0, block: Block::default() }
    }

    /// Goes on to the next block; false at the end.
    pub fn next(&mut self, reader: &mut Reader<'_>) -> Result<bool, StreamError> {
        if self.is_done() {
            if self.seen != self.span.records {
                return Err(Damage("rows are missing").into());
            }
            return Ok(false);
        }
        let head = reader.head(self.at)?;
        reader.block(&head, &mut self.block)?;
        if !matches!(head.kind, KIND_BEFORE | KIND_AFTER | KIND_KEPT) {
            return Err(Damage("a block of rows holds something else").into());
        }
        self.seen += self.block.len() as u64;
        self.at = head.end();
        Ok(true)
    }

    /// True where no block is left.
    pub fn is_done(&self) -> bool {
        self.at >= self.span.end
    }

    /// Rows so far, those of this block among them.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The rows of this block.
    pub fn lines(&self) -> impl Iterator<Item = Result<&[u8], Damage>> {
        (0..self.block.len()).map(|number| self.block.bytes(number))
    }
}

impl container::Reader<'_, Index> {
    /// Hands on the rows of a span, in order.
    pub(super) fn rows<E: From<StreamError>>(
        &mut self,
        span: Span,
        each: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut walk = Walk::new(span);
        while walk.next(self)? {
            for line in walk.lines() {
                each(line.map_err(StreamError::from)?)?;
            }
        }
        Ok(())
    }

    /// Hands on the statements of all spans: those of the step, or those of the user's own undo script.
    pub(super) fn statements<E: From<StreamError>>(
        &mut self,
        undo: bool,
        each: &mut dyn FnMut(Kept) -> Result<(), E>,
    ) -> Result<(), E> {
        let spans: Vec<Span> = self
            .index
            .events
            .iter()
            .filter_map(|event| if let Event::Statements { span } = event { Some(*span) } else { None })
            .collect();
        for span in spans {
            self.statements_of(span, undo, each)?;
        }
        Ok(())
    }

    pub(super) fn statements_of<E: From<StreamError>>(
        &mut self,
        span: Span,
        undo: bool,
        each: &mut dyn FnMut(Kept) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = span.start;
        let mut block = Block::default();
        let wanted = if undo { KIND_UNDO_STATEMENT } else { KIND_STATEMENT };
        while at < span.end {
            let head = self.head(at)?;
            self.block(&head, &mut block)?;
            at = head.end();
            if head.kind != wanted {
                continue;
            }
            for number in 0..block.len() {
                each(Kept::parse(block.bytes(number).map_err(StreamError::from)?).map_err(StreamError::from)?)?;
            }
        }
        Ok(())
    }

    /// Reads every block, so that any damage shows.
    pub(super) fn check(&mut self) -> Result<(), StreamError> {
        let (mut at, end) = self.extent();
        let mut block = Block::default();
        while at < end {
            let head = self.head(at)?;
            self.block(&head, &mut block)?;
            at = head.end();
        }
        for span in self.index.kept.clone() {
            self.rows::<StreamError>(span, &mut |_| Ok(()))?;
        }
        for event in self.index.events.clone() {
            if let Event::Rows { before, after, .. } = event {
                self.rows::<StreamError>(before, &mut |_| Ok(()))?;
                self.rows::<StreamError>(after, &mut |_| Ok(()))?;
            }
        }
        Ok(())
    }
}

impl Kept {
    fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        let early = || Damage("a record ends early");
        let (line, rest) = bytes.split_first_chunk::<4>().ok_or_else(early)?;
        let (rows, text) = rest.split_first_chunk::<8>().ok_or_else(early)?;
        let text = std::str::from_utf8(text).map_err(|_| Damage("a statement is not UTF-8"))?;
        Ok(Self { line: u32::from_le_bytes(*line), rows: u64::from_le_bytes(*rows), text: text.to_owned() })
    }
}
