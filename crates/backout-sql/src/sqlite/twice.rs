//! What names a row while a span is replayed, and which rows the span changed more than once. Never changes anything.

use std::collections::HashMap;

use roaring::RoaringBitmap;
use rusqlite::types::ValueRef;

use super::form::is_nameless;
use super::replay::Span;
use super::stream::{Block, Damage, Op, Reader, Record, RowImages, StreamError, Table};
use super::value;

/// Which rows of the span were changed more than once, a set a table. Keys are shortened to 32 bits so that memory
/// stays bounded: a row that meets another one there is merely undone the long way.
pub fn touched_twice(reader: &mut Reader<'_>, tables: &[Table], span: Span) -> Result<Vec<RoaringBitmap>, StreamError> {
    let mut seen: HashMap<u32, RoaringBitmap> = HashMap::new();
    let mut twice = vec![RoaringBitmap::new(); tables.len()];
    let mut block = Block::default();
    let mut at = span.start;
    while at < span.end {
        let head = reader.head(at)?;
        reader.block(&head, &mut block)?;
        let mut images = RowImages::default();
        for number in 0..block.len() {
            let Record::Row(row) = block.record(number)? else { continue };
            let table = tables.get(row.table as usize).ok_or(Damage("a row is of no known table"))?;
            let seen = seen.entry(row.table).or_default();
            let mut note = |key: u32| {
                if !seen.insert(key) {
                    twice[row.table as usize].insert(key);
                }
            };
            row.images(table.columns.len(), &mut images)?;
            let before = (row.op != Op::Insert).then(|| short_key(table, images.rowid, &images.before));
            let after = (row.op != Op::Delete).then(|| short_key(table, images.new_rowid, &images.after));
            if let Some(key) = before {
                note(key);
            }
            if let Some(key) = after.filter(|key| Some(*key) != before) {
                note(key);
            }
        }
        at = head.end();
    }
    Ok(twice)
}

/// Whether a row goes by the values of its primary key: where there is no rowid, and where none of its columns shows
/// the rowid, which REPLACE changes then.
fn goes_by_key(table: &Table, values: &[ValueRef<'_>]) -> bool {
    table.rowid_column.is_none() && !is_nameless(table, values)
}

pub fn short_key(table: &Table, rowid: i64, values: &[ValueRef<'_>]) -> u32 {
    match u32::try_from(rowid) {
        Ok(small) if !goes_by_key(table, values) => small,
        _ => short_hash(&long_key(table, rowid, values)),
    }
}

fn short_hash(bytes: &[u8]) -> u32 {
    let digest = blake3::hash(bytes);
    u32::from_le_bytes([digest.as_bytes()[0], digest.as_bytes()[1], digest.as_bytes()[2], digest.as_bytes()[3]])
}

/// The bytes that name a row of a table: its rowid, or the values of its key.
pub fn long_key(table: &Table, rowid: i64, values: &[ValueRef<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !goes_by_key(table, values) {
        value::put_signed(&mut bytes, rowid);
        return bytes;
    }
    for (column, value) in table.columns.iter().zip(values) {
        if column.key > 0 {
            value::put(&mut bytes, *value);
        }
    }
    bytes
}
