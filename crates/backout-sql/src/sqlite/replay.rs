//! Replays the rows of one span backward (undo) or forward (redo), each change guarded.
//!
//! The physical order is kept, so that no unique key is in the way of its own deployment. A row that was changed
//! more than once in the span and by somebody else since is not for this module: then the span is done again by its
//! net effect.

use backout_model::fault::{self, Point};
use backout_model::target::TargetError;
use roaring::RoaringBitmap;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::capture::{self, Capture, CaptureError};
use super::courses::Track;
use super::ddl_event::DdlEvent;
use super::ddl_undo::needed;
use super::dependents::Dependents;
use super::foreign::Tally;
use super::form::{is_keyless, is_nameless};
use super::guard::{Change, Guard, Outcome};
use super::numbering::Numbering;
use super::spared::{Spare, Spared};
use super::stream::{Block, Damage, Event, Op, Reader, Record, Row, RowImages, StreamError, Table};
use super::twice::{short_key, touched_twice};
use super::{ddl_side, fts, schema};
use backout_model::conflict::{Conflict, ConflictKind, Conflicts};

/// Which way a span is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Undo,
    Redo,
}

/// Why an attempt ended.
#[derive(Debug)]
pub enum Halt {
    /// The span of that number must be done by net effect; begin the transaction again.
    ByNet(usize),
    /// Somebody else wrote to this full-text table: leave its index out and make it anew at the end.
    Rebuild(String),
    /// Somebody gathered statistics since: leave them alone.
    LeaveStatistics,
    /// A row points at nothing now, and perhaps did before; begin again, and look first.
    LookAtForeignKeys,
    /// These rows point at nothing now and did not before: begin again, and leave what they point at.
    Spare {
        rows: Vec<Spare>,
        conflicts: Conflicts,
    },
    /// These changes of the schema would break what others made, or lose it: begin again, and leave them as they are.
    Leave {
        events: Vec<usize>,
        conflicts: Conflicts,
    },
    Error(TargetError),
}

impl From<TargetError> for Halt {
    fn from(error: TargetError) -> Self {
        Self::Error(error)
    }
}

/// One attempt at replaying a step.
pub struct Replay<'c> {
    pub conn: &'c Connection,
    pub label: &'c str,
    pub direction: Direction,
    pub guard: Guard<'c>,
    pub capture: Option<&'c Capture>,
    /// What the rows mean for foreign keys.
    pub tally: Tally,
    pub numbering: Numbering,
    /// Where the tables of the step are.
    pub track: Track,
    /// What others hung on what the step changed.
    pub dependents: Dependents,
    /// Digests of what the step changes the text of and can't be used even so.
    pub sick_now: Vec<u64>,
    /// The rows that stay as they are, so that none points at nothing.
    pub spared: Spared,
    /// Rows gone through.
    pub rows: u64,
    /// The tables of the step, as they were then, and what became of each.
    tables: Vec<Table>,
    there: Vec<Option<bool>>,
    /// The full-text tables whose index is made anew at the end.
    rebuilt: Vec<String>,
    statistics_left: bool,
    /// The tables that did not come back: what has their name now, if anything, is another.
    lost: Vec<String>,
    /// The tables whose rows stay as they are, each until the event that made it is reached.
    kept: Vec<(usize, String)>,
}

/// What a span's rows need to be read by.
#[derive(Clone, Copy)]
pub struct Span {
    /// Its place among the events.
    pub number: usize,
    pub start: u64,
    pub end: u64,
}

impl Span {
    pub fn of(number: usize, event: &Event) -> Option<Self> {
        match event {
            Event::Rows { start, end, .. } => Some(Self { number, start: *start, end: *end }),
            Event::Ddl { .. } => None,
        }
    }
}

const PROGRESS_EVERY: u64 = 8192;

impl<'c> Replay<'c> {
    pub fn new(
        conn: &'c Connection,
        label: &'c str,
        direction: Direction,
        guard: Guard<'c>,
        capture: Option<&'c Capture>,
        numbering: Numbering,
    ) -> Self {
        Self {
            conn,
            label,
            direction,
            guard,
            capture,
            tally: Tally::default(),
            numbering,
            track: Track::new(&[], direction),
            dependents: Dependents::default(),
            sick_now: Vec::new(),
            spared: Spared::default(),
            rows: 0,
            tables: Vec::new(),
            there: Vec::new(),
            rebuilt: Vec::new(),
            statistics_left: false,
            lost: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// Turns to another step. `rebuilt`: the full-text tables whose index is left out. `statistics_left`: whether
    /// statistics are.
    pub fn begin_step(&mut self, tables: &[Table], events: &[Event], rebuilt: &[String], statistics_left: bool) {
        self.tables = tables.to_vec();
        self.track = Track::new(events, self.direction);
        self.rebuilt = rebuilt.to_vec();
        self.statistics_left = statistics_left;
        self.lost.clear();
        self.kept.clear();
        self.look_afresh();
    }

    /// The schema has changed, or will: statements and what is known of tables no longer hold.
    pub fn look_afresh(&mut self) {
        self.guard.forget_statements();
        self.there = vec![None; self.tables.len()];
    }

    /// After the change of the schema of that number was undone or done again, or was not: where that left its tables.
    pub fn note_outcome(&mut self, number: usize, event: &DdlEvent, done: bool) -> Result<(), TargetError> {
        self.dependents.look_again(self.conn, self.label, number)?;
        if let Some(table) = event.arrival(self.direction) {
            // Else what has its name now is another table, into which none of its rows may go.
            self.lost.retain(|lost| !lost.eq_ignore_ascii_case(&table.name));
            if !done {
                self.lost.push(table.name.clone());
            }
        }
        self.kept.retain(|(create, _)| *create != number);
        if done {
            self.track.happened(number);
        } else if self.direction == Direction::Undo
            && let Some(pair) = self.track.pairs.iter().find(|pair| pair.drop == number)
        {
            // Without the old table the new one must keep the rows that were copied.
            self.kept.push((pair.create, pair.new.clone()));
        }
        Ok(())
    }

    pub fn damaged(&self, source: impl Into<StreamError>) -> TargetError {
        TargetError::Images { target: self.label.to_owned(), what: source.into().to_string() }
    }

    fn uncaptured(&self, source: CaptureError) -> TargetError {
        TargetError::failed(format!("cannot capture what changes in {}", self.label), source)
    }

    /// Replays the rows of a span; `statement` hears of the statements in it.
    pub fn span(
        &mut self,
        reader: &mut Reader<'_>,
        span: Span,
        progress: &mut dyn FnMut(u64),
        statement: &mut dyn FnMut(&Record<'_>) -> Result<(), TargetError>,
    ) -> Result<(), Halt> {
        fault::point(Point::Statement)
            .map_err(|source| TargetError::failed(format!("cannot change rows in {}", self.label), source))?;
        let mut block = Block::default();
        let mut twice = None;
        match self.direction {
            Direction::Redo => {
                let mut at = span.start;
                while at < span.end {
                    let head = reader.head(at).map_err(|source| self.damaged(source))?;
                    reader.block(&head, &mut block).map_err(|source| self.damaged(source))?;
                    self.block(reader, span, &block, false, &mut twice, statement)?;
                    at = head.end();
                    progress(self.rows);
                }
            }
            Direction::Undo => {
                let mut at = span.end;
                while at > span.start {
                    let head = reader.head_before(at).map_err(|source| self.damaged(source))?;
                    let mut first = head;
                    if matches!(head.only(), Some((Op::Delete, _))) {
                        // Rows that were deleted in a row all stood side by side before: they come back in
                        // ascending order, which fills a table's pages instead of splitting them.
                        while first.start > span.start {
                            let before = reader.head_before(first.start).map_err(|source| self.damaged(source))?;
                            if before.only() != head.only() {
                                break;
                            }
                            first = before;
                        }
                        let mut forward = first.start;
                        while forward < at {
                            let head = reader.head(forward).map_err(|source| self.damaged(source))?;
                            reader.block(&head, &mut block).map_err(|source| self.damaged(source))?;
                            self.block(reader, span, &block, false, &mut twice, statement)?;
                            forward = head.end();
                            progress(self.rows);
                        }
                    } else {
                        reader.block(&head, &mut block).map_err(|source| self.damaged(source))?;
                        self.block(reader, span, &block, true, &mut twice, statement)?;
                        progress(self.rows);
                    }
                    at = first.start;
                }
            }
        }
        if let Some(capture) = self.capture {
            capture.settle(self.conn).map_err(|source| self.uncaptured(source))?;
        }
        Ok(())
    }

    fn block(
        &mut self,
        reader: &mut Reader<'_>,
        span: Span,
        block: &Block,
        backward: bool,
        twice: &mut Option<Vec<RoaringBitmap>>,
        statement: &mut dyn FnMut(&Record<'_>) -> Result<(), TargetError>,
    ) -> Result<(), Halt> {
        let mut images = RowImages::default();
        let count = block.len();
        for step in 0..count {
            let at = if backward { count - 1 - step } else { step };
            let record = block.record(at).map_err(|source| self.damaged(source))?;
            let Record::Row(row) = &record else {
                statement(&record)?;
                continue;
            };
            self.row(reader, span, row, &mut images, twice)?;
            self.rows += 1;
            if self.rows.is_multiple_of(PROGRESS_EVERY) {
                // A failing capture stops nothing by itself: look now and then.
                if let Some(capture) = self.capture {
                    capture.settle(self.conn).map_err(|source| self.uncaptured(source))?;
                }
            }
        }
        Ok(())
    }

    fn row<'b>(
        &mut self,
        reader: &mut Reader<'_>,
        span: Span,
        row: &Row<'b>,
        images: &mut RowImages<'b>,
        twice: &mut Option<Vec<RoaringBitmap>>,
    ) -> Result<(), Halt> {
        let number = row.table;
        let Some(table) = self.tables.get(number as usize) else {
            return Err(self.damaged(Damage("a row is of no known table")).into());
        };
        row.images(table.columns.len(), images).map_err(|source| self.damaged(source))?;
        if !self.is_there(number)? {
            return Ok(());
        }
        let Some(table) = self.tables.get(number as usize) else { return Ok(()) };
        let change = change(self.direction, row.op, images);
        if self.is_spared(table, &change) {
            return Ok(());
        }
        self.tally.row(number, &change);
        let has_no_key = |values: Option<&[ValueRef<'_>]>| values.is_some_and(|values| is_nameless(table, values));
        if (has_no_key(change.want) || has_no_key(change.expect)) && !is_keyless(table) {
            // No key carries it back to a table that a later step built anew.
            self.guard.needs(needed(self.label, &format!("table {}", table.name), None));
        }
        if change.moves(table) {
            let known = self.track.known_as_a_whole(&table.name).unwrap_or(&table.name);
            self.guard.loses_a_key(known);
        }
        if self.guard.attempt(number, table, &change)? == Outcome::Done {
            return Ok(());
        }
        if twice.is_none() {
            *twice = Some(touched_twice(reader, &self.tables, span).map_err(|source| self.damaged(source))?);
        }
        let more_than_once = twice.as_ref().and_then(|sets| sets.get(number as usize)).is_some_and(|set| {
            [change.expect, change.want]
                .into_iter()
                .flatten()
                .zip([change.rowid, change.new_rowid])
                .any(|(values, rowid)| set.contains(short_key(table, rowid, values)))
        });
        if more_than_once {
            return Err(Halt::ByNet(span.number));
        }
        left_out_instead(self.conn, self.label, table)?;
        self.guard.settle(number, table, &change, false)?;
        Ok(())
    }

    pub fn is_spared(&self, table: &Table, change: &Change<'_>) -> bool {
        let known = || self.track.known_as_a_whole(&table.name).unwrap_or(&table.name);
        !self.spared.is_empty() && self.spared.keeps(table, known(), change)
    }

    /// Whether the table is still there with every column that the images have; where not, that is a conflict, once.
    pub fn is_there(&mut self, number: u32) -> Result<bool, TargetError> {
        let at = number as usize;
        if let Some(Some(known)) = self.there.get(at) {
            return Ok(*known);
        }
        let Some(table) = self.tables.get(at) else {
            return Err(self.damaged(Damage("a row is of no known table")));
        };
        let is_kept = self.kept.iter().any(|(_, kept)| kept.eq_ignore_ascii_case(&table.name));
        if is_kept
            || self.statistics_left && ddl_side::is_statistics(&table.name)
            || self.rebuilt.iter().any(|whole| fts::is_index_of(whole, &table.name))
        {
            return Ok(false);
        }
        let now = match capture::read_table(self.conn, &table.name) {
            Ok((now, _)) => Some(now),
            Err(CaptureError::Table(_)) => None,
            Err(source) => {
                return Err(TargetError::failed(format!("cannot read the schema of {}", self.label), source));
            }
        };
        if now.is_none() && ddl_side::is_statistics(&table.name) {
            self.guard.notes.push(ddl_side::stay(self.label));
            self.there[at] = Some(false);
            return Ok(false);
        }
        let is_lost = self.lost.iter().any(|lost| lost.eq_ignore_ascii_case(&table.name));
        let mut gone = Vec::new();
        let is_view = || schema::object(self.conn, "view", &table.name).map(|view| view.is_some());
        let is_view = now.is_some()
            && is_view()
                .map_err(|source| TargetError::failed(format!("cannot read the schema of {}", self.label), source))?;
        let lacking = match &now {
            _ if is_view => Some("it is a view now".to_owned()),
            _ if is_lost => Some("it did not come back".to_owned()),
            None => Some("the table is gone".to_owned()),
            Some(now) if now.rowid.is_some() != table.rowid.is_some() => Some("its kind of key was changed".to_owned()),
            Some(now) => {
                let is_there = |name: &str| {
                    now.columns.iter().any(|there| there.is_written() && there.name.eq_ignore_ascii_case(name))
                };
                let columns = table.columns.iter().enumerate();
                gone = columns.filter(|(_, one)| !one.generated && !is_there(&one.name)).map(|(at, _)| at).collect();
                // Without all that names them, rows are not told apart.
                let names_rows =
                    |at: &usize| is_keyless(table) || table.columns[*at].key > 0 || table.rowid_column == Some(*at);
                gone.iter()
                    .find(|at| names_rows(at))
                    .map(|at| format!("the column {} is gone or computed now", table.columns[*at].name))
            }
        };
        // Values would go into a column of the same name that is another.
        let moved = now.as_ref().filter(|_| lacking.is_none() && !self.guard.known.is_own_schema());
        let moved = moved.and_then(|now| table.rearranged(now));
        let moved = moved.map(|moved| format!("its columns stand in another order: {moved} may not be the one it was"));
        let fits = lacking.is_none() && (moved.is_none() || self.guard.overwrites());
        self.guard.strangers.remove(&table.name);
        if let Some(now) = now.as_ref().filter(|_| fits) {
            self.guard.meet_strangers(table, now)?;
            let key = |table: &Table| -> Vec<u32> {
                table.columns.iter().map(|column| column.key).filter(|key| *key > 0).collect()
            };
            if key(table) != key(now) {
                // Whoever built it anew carries rows back by its own key.
                self.guard.needs(needed(self.label, &format!("table {}", table.name), None));
            }
            if is_keyless(table) && !self.guard.known.holds(&table.name) {
                // Perhaps a later step numbered the rows anew, whose images know each by its place.
                self.guard.needs(needed(self.label, &table.name, None));
            }
        }
        if let Some(lacking) = lacking {
            if self.guard.overwrites() && !is_lost {
                // To pass over them would be to keep what was to be overwritten.
                return Err(TargetError::failed(
                    format!("cannot bring rows of {} in {} back", table.name, self.label),
                    format!(
                        "{lacking}; undo first what changed that, or pass over these rows with `--on-conflict keep`"
                    ),
                ));
            }
            // Why it did not is told already.
            if !is_lost || self.guard.conflicts.is_empty() {
                self.guard.conflicts.push(altered(self.label, &table.name, lacking));
            }
        }
        if let Some(moved) = moved {
            self.guard.conflicts.push(altered(self.label, &table.name, moved));
        }
        if let Some(slot) = self.there.get_mut(at) {
            *slot = Some(fits);
        }
        if let Some(table) = self.tables.get_mut(at) {
            table.columns.iter_mut().enumerate().for_each(|(at, column)| column.gone = gone.contains(&at));
        }
        Ok(fits)
    }

    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    pub fn table(&self, number: u32) -> Option<&Table> {
        self.tables.get(number as usize)
    }

    /// A table together with the guard that changes it.
    pub fn guard_and_table(&mut self, number: u32) -> Option<(&mut Guard<'c>, &Table)> {
        self.tables.get(number as usize).map(|table| (&mut self.guard, table))
    }
}

/// A table that is not as its rows would have it.
fn altered(target: &str, table: &str, now: String) -> Conflict {
    Conflict {
        target: target.to_owned(),
        object: table.to_owned(),
        key: None,
        column: None,
        kind: ConflictKind::Definition,
        before: String::new(),
        left: String::new(),
        now,
    }
}

/// Halts where a row that does not fit belongs to what is nobody's data: statistics, or the index of a full-text table.
pub fn left_out_instead(conn: &Connection, label: &str, table: &Table) -> Result<(), Halt> {
    if ddl_side::is_statistics(&table.name) {
        return Err(Halt::LeaveStatistics);
    }
    let owner = fts::index_of(conn, &table.name)
        .map_err(|source| TargetError::failed(format!("cannot read the schema of {label}"), source))?;
    owner.map_or(Ok(()), |owner| Err(Halt::Rebuild(owner)))
}

/// The change that takes the row's own change back, or makes it again.
pub fn change<'a>(direction: Direction, op: Op, images: &'a RowImages<'a>) -> Change<'a> {
    let before = (op != Op::Insert).then_some(images.before.as_slice());
    let after = (op != Op::Delete).then_some(images.after.as_slice());
    let changed = images.changed.as_slice();
    match direction {
        Direction::Undo => {
            Change { rowid: images.new_rowid, new_rowid: images.rowid, expect: after, want: before, changed }
        }
        Direction::Redo => {
            Change { rowid: images.rowid, new_rowid: images.new_rowid, expect: before, want: after, changed }
        }
    }
}
