//! What others wrote to a table before a redo drops it once more, or one of its columns: it would go with it. Reads only.

use std::collections::{HashMap, HashSet};

use backout_model::target::TargetError;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde::{Deserialize, Serialize};

use super::copying::Copying;
use super::ddl_event::DdlEvent;
use super::guard::encoded;
use super::head::{Alter, Head, Object, head};
use super::schema::{self, Shape};
use super::split::Statement;
use super::stream::{Block, Damage, Event, Reader, Record, RowImages, StreamError, Table};
use super::token::quote;
use super::value;

/// So many rows are known one by one at most; of more only whether one came or is another.
const KNOWN_AT_MOST: usize = 1000;

/// What went with a column the first time; of a virtual table, with the table: its values with their rows' keys, but for
/// those that every new row gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Falls {
    /// None for all that a virtual table tells of its rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    pub count: u64,
    /// Of the digests of all rows.
    pub sum: u64,
    /// The digest of each, where they are few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<u64>,
}

impl Falls {
    fn note(&mut self, row: u64) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(row);
        if self.count <= KNOWN_AT_MOST as u64 {
            self.rows.push(row);
        } else {
            self.rows = Vec::new();
        }
    }

    /// Whether there is one of these that was none of `before`. Among many it is not seen where others took more away
    /// than they brought.
    fn is_more_than(&self, before: &Self) -> bool {
        if before.count > KNOWN_AT_MOST as u64 {
            return self.sum != before.sum && self.count >= before.count;
        }
        let mut known: HashMap<u64, u64> = HashMap::new();
        before.rows.iter().for_each(|row| *known.entry(*row).or_default() += 1);
        let mut is_known = |row: &u64| known.get_mut(row).filter(|left| **left > 0).map(|left| *left -= 1).is_some();
        self.count > before.count || !self.rows.iter().all(&mut is_known)
    }
}

/// What falls with what a statement is about to drop: a column; those of a table that none of the ones has into which its
/// rows were copied; all rows of a virtual table.
pub fn falls(conn: &Connection, statement: &Statement, copying: &Copying) -> rusqlite::Result<Vec<Falls>> {
    let (name, column) = match head(&statement.sql) {
        Some(Head::Alter { name, alter: Alter::DropColumn { column } }) => (name.name, Some(column)),
        Some(Head::Drop { object: Object::Table, name }) => (name.name, None),
        _ => return Ok(Vec::new()),
    };
    let Some(table) = schema::object(conn, "table", &name)? else { return Ok(Vec::new()) };
    let shape = schema::shape(conn, &table.name)?;
    let columns: Vec<Option<String>> = match column {
        Some(column) => vec![Some(column)],
        None if table.rootpage == 0 => vec![None],
        None => {
            let mut successors = Vec::new();
            for made in copying.successors(&table.name).iter().filter(|made| !made.eq_ignore_ascii_case(&table.name)) {
                successors.push(schema::shape(conn, made)?);
            }
            let goes = |name: &str| successors.iter().all(|shape| shape.column(name).is_none());
            let stored = shape.stored().filter(|column| !successors.is_empty() && goes(&column.name));
            stored.map(|column| Some(column.name.clone())).collect()
        }
    };
    let found = columns.into_iter().map(|column| fall(conn, &table.name, column));
    found.filter_map(Result::transpose).collect()
}

/// What a column holds now; none where that cannot be read.
fn fall(conn: &Connection, table: &str, column: Option<String>) -> rusqlite::Result<Option<Falls>> {
    let shape = schema::shape(conn, table)?;
    let key = named_by(&shape);
    let (values, condition) = match &column {
        Some(name) => {
            let Some(column) = shape.column(name) else { return Ok(None) };
            let name = quote(name);
            let default = column.default.as_ref().map(|default| format!(" AND {name} IS NOT ({default})"));
            (name.clone(), format!(" WHERE {name} IS NOT NULL{}", default.unwrap_or_default()))
        }
        None => ("*".to_owned(), String::new()),
    };
    let columns = key.into_iter().chain([values]).collect::<Vec<_>>().join(", ");
    let prepared = conn.prepare(&format!("SELECT {columns} FROM main.{}{condition}", quote(table)));
    let Ok(mut select) = prepared else { return Ok(None) };
    let width = select.column_count();
    let mut rows = select.raw_query();
    let mut found = Falls::default();
    let mut bytes = Vec::new();
    loop {
        match rows.next() {
            Ok(Some(row)) => {
                bytes.clear();
                for at in 0..width {
                    value::put(&mut bytes, row.get_ref(at)?);
                }
                found.note(value::short(&blake3::hash(&bytes)));
            }
            Ok(None) => break,
            // A full-text table may be one of a table that is gone.
            Err(_) if column.is_none() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(Falls { column, ..found }))
}

/// What names a row and stays when the file is packed: the rowid where a column shows it, else the primary key.
fn named_by(shape: &Shape) -> Vec<String> {
    shape.key().iter().map(|column| quote(&column.name)).collect()
}

/// What falls that was not there the first time, or is something else by now: `columns` of the table, or none for its
/// rows. `carried`: the words, in lower case, of what copies rows into its successor.
pub fn fallen(conn: &Connection, event: &DdlEvent, carried: &HashSet<String>) -> rusqlite::Result<Vec<Option<String>>> {
    let Some(table) = event.column().map(|(table, _)| table).or(event.dropped()) else { return Ok(Vec::new()) };
    let mut fallen = Vec::new();
    if schema::object(conn, "table", table)?.is_none() {
        return Ok(fallen);
    }
    for known in event.falls() {
        let is_carried = known.column.as_ref().is_some_and(|column| carried.contains(&column.to_ascii_lowercase()));
        if !is_carried && fall(conn, table, known.column.clone())?.is_some_and(|now| now.is_more_than(known)) {
            fallen.push(known.column.clone());
        }
    }
    Ok(fallen)
}

/// How many rows of a table others wrote since it was dropped first, and whether they took rows out of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Others {
    pub wrote: u64,
    pub took: bool,
}

impl Others {
    pub fn any(self) -> bool {
        self.wrote > 0 || self.took
    }
}

/// How the rows of the table that the event of that number is about to drop differ from those of the first time.
pub fn rows_of_others(
    conn: &Connection,
    label: &str,
    reader: &mut Reader<'_>,
    number: usize,
    event: &DdlEvent,
) -> Result<Others, TargetError> {
    let Some(name) = event.dropped() else { return Ok(Others::default()) };
    let failed = |source| TargetError::failed(format!("cannot read {name} of {label}"), source);
    let there = schema::object(conn, "table", name).map_err(failed)?;
    if there.is_none_or(|there| there.rootpage == 0) {
        // What others wrote to a virtual table is told by what falls with it; what they took is not there to fall.
        let took = event
            .falls()
            .iter()
            .filter(|known| known.column.is_none())
            .any(|known| fall(conn, name, None).is_ok_and(|now| now.is_some_and(|now| now.sum != known.sum)));
        return Ok(Others { wrote: 0, took });
    }
    let before = number.checked_sub(1).and_then(|before| reader.index.events.get(before)).cloned();
    if let (Some(_), Some(Event::Rows { start, end, .. })) = (event.emptied(), before) {
        let (table, rows) = deleted(reader, (start, end), name)
            .map_err(|source| TargetError::Images { target: label.to_owned(), what: source.to_string() })?;
        return table.map_or(Ok(Others::default()), |table| others(conn, &table, rows).map_err(failed));
    }
    let sql = format!("SELECT count(*) FROM main.{}", quote(name));
    let rows: i64 = conn.query_row(&sql, [], |row| row.get(0)).map_err(failed)?;
    let (now, then) = (rows.unsigned_abs(), event.rows_held());
    Ok(Others { wrote: now.saturating_sub(then), took: now < then })
}

/// The few rows that were deleted before the table went, each with how often it was there.
#[allow(clippy::type_complexity)] // The table and its rows are found in one reading.
fn deleted(
    reader: &mut Reader<'_>,
    (start, end): (u64, u64),
    name: &str,
) -> Result<(Option<Table>, HashMap<Vec<u8>, u64>), StreamError> {
    let (mut found, mut rows) = (None, HashMap::new());
    let mut block = Block::default();
    let mut at = start;
    while at < end {
        let head = reader.head(at)?;
        reader.block(&head, &mut block)?;
        for number in 0..block.len() {
            let Record::Row(row) = block.record(number)? else { continue };
            let table = reader.index.tables.get(row.table as usize).ok_or(Damage("a row is of no known table"))?;
            if table.name.eq_ignore_ascii_case(name) {
                let mut images = RowImages::default();
                row.images(table.columns.len(), &mut images)?;
                *rows.entry(encoded(&images.before)).or_default() += 1;
                found.get_or_insert_with(|| table.clone());
            }
        }
        at = head.end();
    }
    Ok((found, rows))
}

/// How many rows of the table are none of `known`, and whether some of those are not there.
fn others(conn: &Connection, table: &Table, mut known: HashMap<Vec<u8>, u64>) -> rusqlite::Result<Others> {
    let shape = schema::shape(conn, &table.name)?;
    if table.columns.iter().any(|column| shape.column(&column.name).is_none()) {
        // Its definition is another: that is a conflict of its own.
        return Ok(Others::default());
    }
    let columns: Vec<String> = table.columns.iter().map(|column| quote(&column.name)).collect();
    let mut select = conn.prepare(&format!("SELECT {} FROM main.{}", columns.join(", "), quote(&table.name)))?;
    let mut rows = select.query([])?;
    let mut wrote = 0;
    while let Some(row) = rows.next()? {
        let values: Vec<ValueRef<'_>> = (0..columns.len()).map(|at| row.get_ref(at)).collect::<Result<_, _>>()?;
        match known.get_mut(&encoded(&values)).filter(|left| **left > 0) {
            Some(left) => *left -= 1,
            None => wrote += 1,
        }
    }
    Ok(Others { wrote, took: known.values().any(|left| *left > 0) })
}
