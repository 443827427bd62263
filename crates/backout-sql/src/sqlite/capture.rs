//! Captures the images of every row that changes, by SQLite's pre-update hook, into a stream.
//!
//! The hook fires in the physical order of the changes, and sees what triggers, cascades and REPLACE do. It never
//! asks the database anything: what a table looks like is read between statements.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::hooks::{Action, PreUpdateCase};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, InterruptHandle};

use super::stream::{Affinity, Column, Event, Index, Op, Table};
use super::token::quote;
use super::value;
use super::writer::Writer;

/// Why capturing stopped.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("the images cannot be written")]
    Write(#[from] io::Error),
    #[error("a value of {table} cannot be read")]
    Value { table: String, source: rusqlite::Error },
    #[error("the definition of {table} cannot be read")]
    Definition { table: String, source: rusqlite::Error },
    #[error("{0}")]
    Table(String),
}

/// A table as the hook knows it.
struct Slot {
    name: String,
    number: u32,
    /// Which of its columns have an image: all but virtual generated ones.
    stored: Vec<bool>,
    known: bool,
    /// Ours, or SQLite's own: not captured.
    skipped: bool,
    /// Rows were changed or deleted, so that an undo brings old ones back.
    returns: bool,
}

struct State {
    writer: Option<Writer>,
    interrupt: InterruptHandle,
    slots: Vec<Slot>,
    by_name: HashMap<String, usize>,
    /// Tables to which an undo brings old rows back.
    returns: Vec<String>,
    last: usize,
    tables: Vec<Table>,
    events: Vec<Event>,
    span_start: u64,
    span_rows: u64,
    statement_rows: u64,
    rows: u64,
    statements: u64,
    unknown: bool,
    paused: bool,
    counting: bool,
    statistics_left: bool,
    scratch: Vec<u8>,
    error: Option<CaptureError>,
}

/// Capturing into one stream, on one connection. [`Capture::take_off`] ends it.
pub struct Capture {
    state: Arc<Mutex<State>>,
}

impl Capture {
    /// Installs the hook. Statements prepared before it would escape it, so the caller keeps none.
    pub fn put_on(conn: &mut Connection, out: Box<dyn Write + Send>) -> Result<Self, CaptureError> {
        let writer = Writer::new(out)?;
        let start = writer.bytes();
        let state = Arc::new(Mutex::new(State {
            writer: Some(writer),
            interrupt: conn.get_interrupt_handle(),
            slots: Vec::new(),
            by_name: HashMap::new(),
            returns: Vec::new(),
            last: 0,
            tables: Vec::new(),
            events: Vec::new(),
            span_start: start,
            span_rows: 0,
            statement_rows: 0,
            rows: 0,
            statements: 0,
            unknown: false,
            paused: false,
            counting: false,
            statistics_left: false,
            scratch: Vec::new(),
            error: None,
        }));
        let hook = Arc::clone(&state);
        conn.preupdate_hook(Some(move |action: Action, database: &str, table: &str, case: &PreUpdateCase| {
            if database == "main" {
                locked(&hook).change(action, table, case);
            }
        }))
        .map_err(|source| CaptureError::Definition { table: "the hook".to_owned(), source })?;
        Ok(Self { state })
    }

    /// Removes the hook.
    pub fn take_off(conn: &mut Connection) -> rusqlite::Result<()> {
        conn.preupdate_hook(None::<fn(Action, &str, &str, &PreUpdateCase)>)
    }

    /// From now on rows are counted, and the tables noted, without images: for what has another undo.
    pub fn only_count(&self) {
        locked(&self.state).counting = true;
    }

    /// After a statement: reads the definitions of the tables that it was the first to change.
    pub fn settle(&self, conn: &Connection) -> Result<(), CaptureError> {
        let mut state = locked(&self.state);
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        if !state.unknown || state.counting {
            return Ok(());
        }
        state.unknown = false;
        for at in 0..state.slots.len() {
            if state.slots[at].known {
                continue;
            }
            let (table, stored) = read_table(conn, &state.slots[at].name)?;
            if stored != state.slots[at].stored {
                return Err(CaptureError::Table(format!("the columns of {} are not what was seen", table.name)));
            }
            state.slots[at].known = true;
            let number = state.slots[at].number as usize;
            state.tables[number] = table;
        }
        Ok(())
    }

    /// Before a change of the schema that deletes rows: reads the definitions of all tables, since some may be gone
    /// afterwards.
    pub fn read_all(&self, conn: &Connection) -> Result<(), CaptureError> {
        let names = |source| CaptureError::Definition { table: "the schema".to_owned(), source };
        let mut statement =
            conn.prepare("SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0").map_err(names)?;
        let found: Vec<String> =
            statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(names)?;
        let mut state = locked(&self.state);
        for name in found {
            if state.by_name.contains_key(&name) || is_skipped(&name) {
                continue;
            }
            let (table, stored) = match read_table(conn, &name) {
                // One that cannot be captured may well be left alone; where it is not, it will be found out.
                Err(CaptureError::Table(_)) => continue,
                read => read?,
            };
            let slot = state.slot(&name, Some(stored));
            state.slots[slot].known = true;
            let number = state.slots[slot].number as usize;
            state.tables[number] = table;
        }
        Ok(())
    }

    /// Notes a statement after the rows that it changed.
    pub fn statement(&self, line: u32, sql: &str, undo: bool) -> Result<u64, CaptureError> {
        let mut state = locked(&self.state);
        let rows = std::mem::take(&mut state.statement_rows);
        state.statements += u64::from(!undo);
        state.writer()?.statement(line, sql, rows, undo)?;
        Ok(rows)
    }

    /// After the rows that belong to the change of the schema before them: closes their account, where there are any.
    pub fn end_of_fill(&self, line: u32) -> Result<(), CaptureError> {
        let mut state = locked(&self.state);
        let rows = std::mem::take(&mut state.statement_rows);
        if rows > 0 {
            state.writer()?.statement(line, "", rows, false)?;
        }
        Ok(())
    }

    /// Notes a change of the schema. Tables are looked at afresh after it.
    pub fn ddl(&self, event: Event) -> Result<(), CaptureError> {
        let mut state = locked(&self.state);
        state.close_span()?;
        state.statements += 1;
        state.statement_rows = 0;
        if let Event::Ddl { event, .. } = &event
            && let Some(table) = event.returns()
            && !state.returns.iter().any(|known| known == table)
        {
            state.returns.push(table.to_owned());
        }
        state.events.push(event);
        state.forget_slots();
        Ok(())
    }

    /// Whether changes pass uncaptured: while the schema is put back, whose undo has its own way.
    pub fn pause(&self, paused: bool) {
        locked(&self.state).paused = paused;
    }

    /// Whether changes of the statistics pass uncaptured: while a change of the schema runs, which keeps them itself.
    pub fn leave_statistics(&self, left: bool) {
        locked(&self.state).statistics_left = left;
    }

    /// The schema is about to change without an event: tables are looked at afresh after it.
    pub fn forget_tables(&self) -> Result<(), CaptureError> {
        let mut state = locked(&self.state);
        state.close_span()?;
        state.forget_slots();
        Ok(())
    }

    /// Begins again after the transaction was rolled back: what was written so far belongs to nothing.
    pub fn restart(&self) -> Result<(), CaptureError> {
        let mut state = locked(&self.state);
        state.span_start = state.writer()?.boundary()?;
        state.forget_slots();
        state.tables.clear();
        state.events.clear();
        state.returns.clear();
        (state.span_rows, state.statement_rows, state.rows, state.statements) = (0, 0, 0, 0);
        (state.unknown, state.paused, state.statistics_left, state.error) = (false, false, false, None);
        Ok(())
    }

    /// The tables to which an undo brings old rows or values back.
    pub fn returns(&self) -> Vec<String> {
        let mut state = locked(&self.state);
        state.note_returns();
        let mut returns = state.returns.clone();
        for table in state.events.iter().filter_map(|event| event.ddl()?.reshaped()) {
            if !returns.iter().any(|known| known == table) {
                returns.push(table.to_owned());
            }
        }
        returns
    }

    /// Ends the stream: completes `index` with what was captured, and by `complete`; the stream's length in bytes.
    pub fn finish(
        &self,
        index: &mut Index,
        complete: impl FnOnce(&mut Index) -> Result<(), CaptureError>,
    ) -> Result<u64, CaptureError> {
        let mut state = locked(&self.state);
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        state.close_span()?;
        index.tables = std::mem::take(&mut state.tables);
        index.events = std::mem::take(&mut state.events);
        index.numbered.keep_only(&index.tables, &index.events);
        index.statements = state.statements;
        index.rows = state.rows;
        complete(index)?;
        let writer = state.writer.take().ok_or_else(closed)?;
        Ok(writer.finish(index)?)
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> CaptureError {
    CaptureError::Write(io::Error::other("the images were already finished"))
}

/// The tool's own tables and those that SQLite keeps by itself. Statistics are captured where a script writes them.
fn is_skipped(name: &str) -> bool {
    let begins = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    begins("backout_") || (begins("sqlite_") && !begins("sqlite_stat"))
}

impl State {
    fn writer(&mut self) -> Result<&mut Writer, CaptureError> {
        self.writer.as_mut().ok_or_else(closed)
    }

    fn note_returns(&mut self) {
        for slot in self.slots.iter().filter(|slot| slot.returns) {
            if !self.returns.contains(&slot.name) {
                self.returns.push(slot.name.clone());
            }
        }
    }

    fn forget_slots(&mut self) {
        self.note_returns();
        self.slots.clear();
        self.by_name.clear();
        self.last = 0;
        self.unknown = false;
    }

    fn close_span(&mut self) -> Result<(), CaptureError> {
        let end = self.writer()?.boundary()?;
        if end > self.span_start {
            self.events.push(Event::Rows { start: self.span_start, end, rows: self.span_rows });
        }
        self.span_start = end;
        self.span_rows = 0;
        Ok(())
    }

    fn slot(&mut self, name: &str, stored: Option<Vec<bool>>) -> usize {
        let number = self.tables.len() as u32;
        let skipped = is_skipped(name);
        if !skipped {
            self.tables.push(Table { name: name.to_owned(), columns: Vec::new(), rowid: None, rowid_column: None });
        }
        let known = skipped || stored.is_some();
        self.unknown |= !known;
        self.slots.push(Slot {
            name: name.to_owned(),
            number,
            stored: stored.unwrap_or_default(),
            known,
            skipped,
            returns: false,
        });
        self.by_name.insert(name.to_owned(), self.slots.len() - 1);
        self.slots.len() - 1
    }

    /// One row is about to change.
    fn change(&mut self, action: Action, table: &str, case: &PreUpdateCase) {
        if self.error.is_some() || self.paused || self.statistics_left && table.starts_with("sqlite_stat") {
            return;
        }
        if self.slots.get(self.last).is_none_or(|slot| slot.name != table) {
            self.last = match self.by_name.get(table) {
                Some(at) => *at,
                None => self.slot(table, None),
            };
        }
        if self.slots[self.last].skipped {
            return;
        }
        if self.counting {
            self.count();
            return;
        }
        if let Err(error) = self.image(action, case) {
            self.error = Some(error);
            // The statement cannot be told from here; stop it instead of letting it run on uncaptured.
            self.interrupt.interrupt();
        }
    }

    fn image(&mut self, _action: Action, case: &PreUpdateCase) -> Result<(), CaptureError> {
        let slot = &mut self.slots[self.last];
        if slot.stored.is_empty() {
            slot.stored = match case {
                PreUpdateCase::Insert(new) => {
                    (0..new.get_column_count()).map(|at| new.get_new_column_value(at).is_ok()).collect()
                }
                PreUpdateCase::Delete(old) | PreUpdateCase::Update { old_value_accessor: old, .. } => {
                    (0..old.get_column_count()).map(|at| old.get_old_column_value(at).is_ok()).collect()
                }
                PreUpdateCase::Unknown => Vec::new(),
            };
        }
        slot.returns |= !matches!(case, PreUpdateCase::Insert(_));
        let Some(writer) = self.writer.as_mut() else { return Err(closed()) };
        let unreadable = |source| CaptureError::Value { table: slot.name.clone(), source };
        let mut trouble = None;
        let columns = slot.stored.iter().enumerate().filter(|(_, stored)| **stored).map(|(at, _)| at as i32);
        let mut put = |bytes: &mut Vec<u8>, got: rusqlite::Result<ValueRef<'_>>| match got {
            Ok(got) => value::put(bytes, got),
            Err(source) => trouble = Some(source),
        };
        let kept = match case {
            PreUpdateCase::Insert(new) => writer.row(Op::Insert, slot.number, |bytes| {
                value::put_signed(bytes, new.get_new_row_id());
                columns.for_each(|at| put(bytes, new.get_new_column_value(at)));
                true
            })?,
            PreUpdateCase::Delete(old) => writer.row(Op::Delete, slot.number, |bytes| {
                value::put_signed(bytes, old.get_old_row_id());
                columns.for_each(|at| put(bytes, old.get_old_column_value(at)));
                true
            })?,
            PreUpdateCase::Update { old_value_accessor: old, new_value_accessor: new } => {
                let scratch = &mut self.scratch;
                scratch.clear();
                let kept = writer.row(Op::Update, slot.number, |bytes| {
                    value::put_signed(bytes, old.get_old_row_id());
                    value::put_signed(bytes, new.get_new_row_id().wrapping_sub(old.get_old_row_id()));
                    let mut next = 0;
                    for (place, at) in columns.enumerate() {
                        match (old.get_old_column_value(at), new.get_new_column_value(at)) {
                            (Ok(before), Ok(after)) => {
                                value::put(bytes, before);
                                if !value::same(before, after) {
                                    value::put_varint(scratch, (place - next) as u64);
                                    value::put(scratch, after);
                                    next = place + 1;
                                }
                            }
                            (Err(source), _) | (_, Err(source)) => put(bytes, Err(source)),
                        }
                    }
                    bytes.extend_from_slice(scratch);
                    // A row that is written as it was has not changed.
                    !scratch.is_empty() || new.get_new_row_id() != old.get_old_row_id()
                })?;
                scratch.shrink_to(1 << 20);
                kept
            }
            PreUpdateCase::Unknown => {
                return Err(CaptureError::Table(format!("a change of {} is of no known kind", slot.name)));
            }
        };
        if let Some(source) = trouble {
            return Err(unreadable(source));
        }
        if kept {
            self.count();
        }
        Ok(())
    }

    fn count(&mut self) {
        self.rows += 1;
        self.span_rows += 1;
        self.statement_rows += 1;
    }
}

/// Why the rows of a table without any name for the rowid cannot be captured or held.
pub fn alike(table: &str) -> String {
    format!("the rows of {table} cannot be told apart: rowid, _rowid_ and oid are all names of columns")
}

/// Reads a table's definition: the table, and which of all its columns have an image.
pub fn read_table(conn: &Connection, name: &str) -> Result<(Table, Vec<bool>), CaptureError> {
    let wrong = |source| CaptureError::Definition { table: name.to_owned(), source };
    let quoted = quote(name);
    let mut columns = Vec::new();
    let mut stored = Vec::new();
    let mut names = Vec::new();
    {
        let mut statement = conn.prepare(&format!("PRAGMA main.table_xinfo({quoted})")).map_err(wrong)?;
        let mut rows = statement.query([]).map_err(wrong)?;
        while let Some(row) = rows.next().map_err(wrong)? {
            let column: String = row.get("name").map_err(wrong)?;
            let declared: Option<String> = row.get("type").map_err(wrong)?;
            let hidden: i64 = row.get("hidden").map_err(wrong)?;
            names.push(column.clone());
            stored.push(hidden != 2);
            if hidden != 2 {
                columns.push(Column {
                    name: column,
                    affinity: Affinity::of(&declared.unwrap_or_default()),
                    key: row.get("pk").map_err(wrong)?,
                    generated: hidden == 3,
                    gone: false,
                });
            }
        }
    }
    if columns.is_empty() {
        return Err(CaptureError::Table(format!("the table {name} is not there")));
    }
    let without_rowid: bool =
        conn.query_row(&format!("PRAGMA main.table_list({quoted})"), [], |row| row.get("wr")).map_err(wrong)?;
    let mut key_index = false;
    {
        let mut statement = conn.prepare(&format!("PRAGMA main.index_list({quoted})")).map_err(wrong)?;
        let mut rows = statement.query([]).map_err(wrong)?;
        while let Some(row) = rows.next().map_err(wrong)? {
            key_index |= row.get::<_, String>("origin").map_err(wrong)? == "pk";
        }
    }
    let free = |alias: &&str| !names.iter().any(|column| column.eq_ignore_ascii_case(alias));
    let rowid_column = if without_rowid || key_index { None } else { columns.iter().position(|column| column.key > 0) };
    let rowid = if without_rowid { None } else { ["rowid", "_rowid_", "oid"].iter().find(|alias| free(alias)) };
    let rowid = match (rowid, rowid_column) {
        (Some(alias), _) => Some((*alias).to_owned()),
        (None, Some(column)) => Some(columns[column].name.clone()),
        (None, None) if without_rowid => None,
        (None, None) => {
            return Err(CaptureError::Table(alike(name)));
        }
    };
    Ok((Table { name: name.to_owned(), columns, rowid, rowid_column }, stored))
}
