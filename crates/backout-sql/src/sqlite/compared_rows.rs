//! Finds the rows of one table that differ between two databases of a connection, in one pass over both, and writes them
//! as images. Values are compared by type and to the bit; nothing is kept in memory but the row at hand.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Rows};

use super::capture::CaptureError;
use super::stream::{Op, Table};
use super::token::quote;
use super::value;
use super::writer::Writer;

/// What the images of a table's rows go through, and how many there were.
pub struct Sink<'a> {
    pub writer: &'a mut Writer,
    /// The table's number in the images.
    pub number: u32,
    /// The values of the row that are written after the ones before.
    pub scratch: Vec<u8>,
    pub found: Found,
    /// Called now and then with the number of rows read since the last time.
    pub read: &'a mut dyn FnMut(u64),
    since_told: u64,
}

/// Rows that differ, by how they do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
}

impl Found {
    pub fn all(self) -> u64 {
        self.inserted + self.updated + self.deleted
    }
}

const TOLD_EVERY: u64 = 10_000;

impl<'a> Sink<'a> {
    pub fn new(writer: &'a mut Writer, number: u32, read: &'a mut dyn FnMut(u64)) -> Self {
        Self { writer, number, scratch: Vec::new(), found: Found::default(), read, since_told: 0 }
    }

    fn tell(&mut self) {
        self.since_told += 1;
        if self.since_told == TOLD_EVERY {
            (self.read)(std::mem::take(&mut self.since_told));
        }
    }

    fn whole(&mut self, op: Op, row: &Side<'_, '_>) -> Result<(), CaptureError> {
        self.writer.row(op, self.number, |bytes| {
            value::put_signed(bytes, row.rowid);
            row.values().for_each(|value| value::put(bytes, value));
            true
        })?;
        let count = if op == Op::Insert { &mut self.found.inserted } else { &mut self.found.deleted };
        *count += 1;
        Ok(())
    }

    fn changed(&mut self, before: &Side<'_, '_>, after: &Side<'_, '_>) -> Result<(), CaptureError> {
        if before.rowid == after.rowid && before.values().zip(after.values()).all(|(a, b)| value::same(a, b)) {
            return Ok(());
        }
        let scratch = &mut self.scratch;
        scratch.clear();
        self.writer.row(Op::Update, self.number, |bytes| {
            value::put_signed(bytes, before.rowid);
            value::put_signed(bytes, after.rowid.wrapping_sub(before.rowid));
            let mut next = 0;
            for (place, (before, after)) in before.values().zip(after.values()).enumerate() {
                value::put(bytes, before);
                if !value::same(before, after) {
                    value::put_varint(scratch, (place - next) as u64);
                    value::put(scratch, after);
                    next = place + 1;
                }
            }
            bytes.extend_from_slice(scratch);
            true
        })?;
        scratch.shrink_to(1 << 20);
        self.found.updated += 1;
        Ok(())
    }
}

/// A row as it stands in a result: its rowid, and where its values begin.
struct Side<'r, 's> {
    row: &'r Row<'s>,
    rowid: i64,
    first: usize,
    count: usize,
}

impl<'r> Side<'r, '_> {
    fn values(&self) -> impl Iterator<Item = ValueRef<'r>> {
        // The columns of a result are counted when it is prepared.
        (self.first..self.first + self.count).map(|at| self.row.get_ref(at).unwrap_or(ValueRef::Null))
    }
}

/// Compares a table of the database `before` with the one of `after`; none stands for an empty table. Both have the
/// same columns.
pub fn compare(
    conn: &Connection,
    table: &Table,
    before: Option<&str>,
    after: Option<&str>,
    sink: &mut Sink<'_>,
) -> Result<(), CaptureError> {
    let wrong = |source| CaptureError::Definition { table: table.name.clone(), source };
    let columns: Vec<String> = table.columns.iter().map(|column| quote(&column.name)).collect();
    let (name, count) = (quote(&table.name), table.columns.len());
    let Some(rowid) = table.rowid.as_deref().map(quote) else {
        return match (before, after) {
            (Some(before), Some(after)) => by_key(conn, table, before, after, sink),
            (Some(only), None) | (None, Some(only)) => {
                let op = if after.is_some() { Op::Insert } else { Op::Delete };
                let mut all =
                    conn.prepare(&format!("SELECT {} FROM {only}.{name}", columns.join(", "))).map_err(wrong)?;
                let mut rows = all.query([]).map_err(wrong)?;
                while let Some(row) = rows.next().map_err(wrong)? {
                    sink.tell();
                    sink.whole(op, &Side { row, rowid: 0, first: 0, count })?;
                }
                Ok(())
            }
            (None, None) => Ok(()),
        };
    };
    let read = |database: Option<&str>, other: Option<&str>| {
        // The same columns, and no row.
        let none = || format!("{}.{name} WHERE 0", other.unwrap_or("main"));
        let from = database.map_or_else(none, |database| format!("{database}.{name}"));
        conn.prepare(&format!("SELECT {rowid}, {} FROM {from} ORDER BY 1", columns.join(", ")))
    };
    let (mut olds, mut news) = (read(before, after).map_err(wrong)?, read(after, before).map_err(wrong)?);
    let (mut olds, mut news) = (olds.query([]).map_err(wrong)?, news.query([]).map_err(wrong)?);
    let mut old = next(&mut olds, count).map_err(wrong)?;
    let mut new = next(&mut news, count).map_err(wrong)?;
    loop {
        sink.tell();
        let (take_old, take_new) = match (&old, &new) {
            (None, None) => return Ok(()),
            (Some(_), None) => (true, false),
            (None, Some(_)) => (false, true),
            (Some(old), Some(new)) => (old.rowid <= new.rowid, new.rowid <= old.rowid),
        };
        match (&old, &new) {
            (Some(old), Some(new)) if take_old && take_new => sink.changed(old, new)?,
            (Some(old), _) if take_old => sink.whole(Op::Delete, old)?,
            (_, Some(new)) => sink.whole(Op::Insert, new)?,
            _ => {}
        }
        if take_old {
            old = next(&mut olds, count).map_err(wrong)?;
        }
        if take_new {
            new = next(&mut news, count).map_err(wrong)?;
        }
    }
}

fn next<'r, 's>(rows: &'r mut Rows<'s>, count: usize) -> rusqlite::Result<Option<Side<'r, 's>>> {
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Side { row, rowid: row.get(0)?, first: 1, count }))
}

/// Rows without a rowid meet by their key, which SQLite looks up as the key's index has it.
fn by_key(
    conn: &Connection,
    table: &Table,
    before: &str,
    after: &str,
    sink: &mut Sink<'_>,
) -> Result<(), CaptureError> {
    let wrong = |source| CaptureError::Definition { table: table.name.clone(), source };
    let name = quote(&table.name);
    let count = table.columns.len();
    let key = key_of(conn, &table.name).map_err(wrong)?;
    let list = |of: &str| -> String {
        table.columns.iter().map(|column| format!("{of}.{}", quote(&column.name))).collect::<Vec<_>>().join(", ")
    };
    let met = key
        .iter()
        .map(|(column, collation)| {
            let column = quote(column);
            format!("theirs.{column} = ours.{column} COLLATE {}", quote(collation))
        })
        .collect::<Vec<_>>()
        .join(" AND ");
    let first = quote(key.first().map_or("", |(column, _)| column));
    let mut there = conn
        .prepare(&format!(
            "SELECT theirs.{first} IS NOT NULL, {}, {} FROM {before}.{name} AS ours LEFT JOIN {after}.{name} AS theirs ON {met}",
            list("ours"),
            list("theirs")
        ))
        .map_err(wrong)?;
    let mut rows = there.query([]).map_err(wrong)?;
    while let Some(row) = rows.next().map_err(wrong)? {
        sink.tell();
        let ours = Side { row, rowid: 0, first: 1, count };
        if row.get(0).map_err(wrong)? {
            sink.changed(&ours, &Side { row, rowid: 0, first: 1 + count, count })?;
        } else {
            sink.whole(Op::Delete, &ours)?;
        }
    }
    let mut come = conn
        .prepare(&format!(
            "SELECT {} FROM {after}.{name} AS ours WHERE NOT EXISTS (SELECT 1 FROM {before}.{name} AS theirs WHERE {met})",
            list("ours")
        ))
        .map_err(wrong)?;
    let mut rows = come.query([]).map_err(wrong)?;
    while let Some(row) = rows.next().map_err(wrong)? {
        sink.tell();
        sink.whole(Op::Insert, &Side { row, rowid: 0, first: 0, count })?;
    }
    Ok(())
}

/// The columns of the primary key with the collations of its index.
fn key_of(conn: &Connection, table: &str) -> rusqlite::Result<Vec<(String, String)>> {
    conn.prepare(
        "SELECT info.name, info.coll FROM pragma_index_list(?1, 'main') AS list, pragma_index_xinfo(list.name, 'main') AS info
         WHERE list.origin = 'pk' AND info.key = 1 ORDER BY info.seqno",
    )?
    .query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?
    .collect()
}
