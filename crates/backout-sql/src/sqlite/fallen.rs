//! Rows that others wrote to a table before a redo drops it once more: they would go with it. Reads only.

use std::collections::HashMap;

use backout_model::target::TargetError;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::ddl_event::DdlEvent;
use super::guard::encoded;
use super::schema;
use super::stream::{Block, Damage, Event, Reader, Record, RowImages, StreamError, Table};
use super::token::quote;

/// How many rows of the table that the event of that number is about to drop were not there when it was dropped first,
/// or held something else.
pub fn rows_of_others(
    conn: &Connection,
    label: &str,
    reader: &mut Reader<'_>,
    number: usize,
    event: &DdlEvent,
) -> Result<u64, TargetError> {
    let Some(name) = event.dropped() else { return Ok(0) };
    let failed = |source| TargetError::failed(format!("cannot read {name} of {label}"), source);
    let there = schema::object(conn, "table", name).map_err(failed)?;
    if there.is_none_or(|there| there.rootpage == 0) {
        return Ok(0);
    }
    let before = number.checked_sub(1).and_then(|before| reader.index.events.get(before)).cloned();
    if let (Some(_), Some(Event::Rows { start, end, .. })) = (event.emptied(), before) {
        let (table, rows) = deleted(reader, (start, end), name)
            .map_err(|source| TargetError::Images { target: label.to_owned(), what: source.to_string() })?;
        return table.map_or(Ok(0), |table| others(conn, &table, rows).map_err(failed));
    }
    let sql = format!("SELECT count(*) FROM main.{}", quote(name));
    let rows: i64 = conn.query_row(&sql, [], |row| row.get(0)).map_err(failed)?;
    Ok(rows.unsigned_abs().saturating_sub(event.rows_held()))
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

/// How many rows of the table are none of `known`.
fn others(conn: &Connection, table: &Table, mut known: HashMap<Vec<u8>, u64>) -> rusqlite::Result<u64> {
    let shape = schema::shape(conn, &table.name)?;
    if table.columns.iter().any(|column| shape.column(&column.name).is_none()) {
        // Its definition is another: that is a conflict of its own.
        return Ok(0);
    }
    let columns: Vec<String> = table.columns.iter().map(|column| quote(&column.name)).collect();
    let mut select = conn.prepare(&format!("SELECT {} FROM main.{}", columns.join(", "), quote(&table.name)))?;
    let mut rows = select.query([])?;
    let mut others = 0;
    while let Some(row) = rows.next()? {
        let values: Vec<ValueRef<'_>> = (0..columns.len()).map(|at| row.get_ref(at)).collect::<Result<_, _>>()?;
        match known.get_mut(&encoded(&values)).filter(|left| **left > 0) {
            Some(left) => *left -= 1,
            None => others += 1,
        }
    }
    Ok(others)
}
