//! Rows in a script for `sqlite3`: one statement takes back many of them, and a guard behind it counts that it did.
//!
//! Rows are compared as undo does: of a changed row the columns that the step changed, of an inserted one all of them, to
//! the byte and to the type.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Write};

use rusqlite::types::ValueRef;

use super::script::Trouble;
use super::stream::{Damage, Op, Row, RowImages, Table};
use super::token::quote;

/// How many rows one statement takes back at most, and how much text.
const BATCH_ROWS: u64 = 250;
const BATCH_BYTES: usize = 64 * 1024;

/// The columns by which a row is found again; none where that is its rowid alone.
pub(super) fn key_columns(table: &Table) -> Vec<usize> {
    if let Some(column) = table.rowid_column {
        return vec![column];
    }
    let mut columns: Vec<usize> = (0..table.columns.len()).filter(|at| table.columns[*at].key > 0).collect();
    columns.sort_by_key(|at| table.columns[*at].key);
    columns
}

/// Whether rows are found by a rowid that no column holds: then all that a row holds is compared, too, for rowids may have
/// been given anew.
pub(super) fn by_rowid(table: &Table) -> bool {
    key_columns(table).is_empty() && table.rowid.is_some()
}

/// What rows of one statement have in common.
#[derive(PartialEq, Eq)]
struct Shape {
    op: Op,
    table: usize,
    changed: Vec<usize>,
    /// Its rowid, which no column holds, is another one.
    moved: bool,
}

/// Rows that one statement takes back.
pub(super) struct Batch<'s> {
    tables: &'s [Table],
    /// Tables and their columns on which rows exclude each other: those go back one by one.
    keys: &'s BTreeSet<(String, String)>,
    shape: Option<Shape>,
    /// Their values, as the rows of VALUES.
    values: Vec<u8>,
    rows: u64,
    seen: HashSet<Vec<u8>>,
}

impl<'s> Batch<'s> {
    pub fn of(tables: &'s [Table], keys: &'s BTreeSet<(String, String)>) -> Self {
        Self { tables, keys, shape: None, values: Vec::new(), rows: 0, seen: HashSet::new() }
    }

    /// Takes one row back. Rows are handed over in the order in which they go back.
    pub fn row<'r>(&mut self, row: &Row<'r>, images: &mut RowImages<'r>, out: &mut dyn Write) -> Result<(), Trouble> {
        let number = row.table as usize;
        let table = self.tables.get(number).ok_or(Damage("a row is of no known table"))?;
        row.images(table.columns.len(), images)?;
        let moved = images.rowid != images.new_rowid && table.rowid_column.is_none();
        let mut key = Vec::new();
        let found = if row.op == Op::Delete { &images.before } else { &images.after };
        for column in key_columns(table) {
            literal(&mut key, found[column]);
            key.push(b',');
        }
        if by_rowid(table) {
            literal(&mut key, ValueRef::Integer(images.new_rowid));
        }
        let same = |shape: &Shape| {
            shape.op == row.op && shape.table == number && shape.changed == images.changed && shape.moved == moved
        };
        if !self.shape.as_ref().is_some_and(same) || self.is_full() || self.seen.contains(&key) {
            self.write(out)?;
            self.shape = Some(Shape { op: row.op, table: number, changed: images.changed.clone(), moved });
        }
        let excludes = |column: &usize| {
            let column = &table.columns[*column];
            column.key > 0 || self.keys.contains(&(table.name.clone(), column.name.clone()))
        };
        let alone = row.op == Op::Update && (moved || images.changed.iter().any(excludes));
        self.add(table, row.op, images, key);
        if alone {
            self.write(out)?;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.values.len() >= BATCH_BYTES
    }

    fn add(&mut self, table: &Table, op: Op, images: &RowImages<'_>, key: Vec<u8>) {
        let out = &mut self.values;
        out.extend_from_slice(if self.rows == 0 { b"\n(" } else { b",\n(" });
        let start = out.len();
        let mut put = |value: ValueRef<'_>| {
            if out.len() > start {
                out.push(b',');
            }
            literal(out, value);
        };
        match op {
            // Key, then what is wanted, then what was.
            Op::Update => {
                key_columns(table).into_iter().for_each(|column| put(images.after[column]));
                if by_rowid(table) {
                    put(ValueRef::Integer(images.new_rowid));
                    put(ValueRef::Integer(images.rowid));
                    (0..table.columns.len()).for_each(|column| put(images.after[column]));
                } else {
                    images.changed.iter().for_each(|column| put(images.after[*column]));
                }
                images.changed.iter().for_each(|column| put(images.before[*column]));
            }
            Op::Insert => {
                if by_rowid(table) {
                    put(ValueRef::Integer(images.new_rowid));
                }
                images.after.iter().for_each(|value| put(*value));
            }
            Op::Delete => {
                if by_rowid(table) {
                    put(ValueRef::Integer(images.rowid));
                }
                let stored = (0..table.columns.len()).filter(|column| !table.columns[*column].generated);
                stored.for_each(|column| put(images.before[column]));
            }
        }
        out.push(b')');
        self.rows += 1;
        self.seen.insert(key);
    }

    /// Writes the statement for the rows so far.
    pub fn write(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let Some(shape) = self.shape.take().filter(|_| self.rows > 0) else { return Ok(()) };
        let table = &self.tables[shape.table];
        let name = quote(&table.name);
        let rowid = by_rowid(table).then(|| quote(table.rowid.as_deref().unwrap_or("rowid")));
        let column = |at: &usize| quote(&table.columns[*at].name);
        let all: Vec<usize> = (0..table.columns.len()).collect();
        let keys = key_columns(table);
        match shape.op {
            Op::Delete => {
                let stored = all.iter().filter(|at| !table.columns[**at].generated).map(column);
                let columns: Vec<String> = rowid.into_iter().chain(stored).collect();
                write!(out, "INSERT INTO main.{name} ({}) VALUES", columns.join(", "))?;
                out.write_all(&self.values)?;
            }
            Op::Insert => {
                let named: Vec<String> =
                    rowid.iter().map(|_| "r".to_owned()).chain(all.iter().map(|at| format!("n{at}"))).collect();
                write!(out, "WITH u ({}) AS (VALUES", named.join(", "))?;
                out.write_all(&self.values)?;
                let mut same: Vec<String> =
                    all.iter().map(|at| is_same("t", &column(at), &format!("u.n{at}"))).collect();
                same.extend(rowid.iter().map(|rowid| format!("t.{rowid} = u.r")));
                let same = same.join(" AND ");
                let (what, of_t) = match (table.rowid.as_deref(), &rowid) {
                    (Some(rowid), _) => (quote(rowid), format!("t.{}", quote(rowid))),
                    (None, _) => {
                        let keys: Vec<String> = keys.iter().map(column).collect();
                        let of_t: Vec<String> = keys.iter().map(|key| format!("t.{key}")).collect();
                        (format!("({})", keys.join(", ")), of_t.join(", "))
                    }
                };
                let by_key: Vec<String> = keys.iter().map(|at| format!("t.{} = u.n{at} AND ", column(at))).collect();
                write!(
                    out,
                    ")\nDELETE FROM main.{name} WHERE {what} IN\n  (SELECT {of_t} FROM u CROSS JOIN main.{name} AS t WHERE {}{same})",
                    by_key.concat()
                )?;
            }
            Op::Update => {
                let mut named: Vec<String> = keys.iter().map(|at| format!("k{at}")).collect();
                named.extend(rowid.iter().flat_map(|_| ["r".to_owned(), "old_r".to_owned()]));
                let compared = if rowid.is_some() { &all } else { &shape.changed };
                named.extend(compared.iter().map(|at| format!("n{at}")));
                named.extend(shape.changed.iter().map(|at| format!("o{at}")));
                write!(out, "WITH u ({}) AS (VALUES", named.join(", "))?;
                out.write_all(&self.values)?;
                let written = shape.changed.iter().filter(|at| !table.columns[**at].generated);
                let mut sets: Vec<String> = written.map(|at| format!("{} = u.o{at}", column(at))).collect();
                if shape.moved {
                    sets.extend(rowid.iter().map(|rowid| format!("{rowid} = u.old_r")));
                }
                let mut places: Vec<String> =
                    keys.iter().map(|at| format!("{name}.{} = u.k{at}", column(at))).collect();
                places.extend(rowid.iter().map(|rowid| format!("{name}.{rowid} = u.r")));
                places.extend(compared.iter().map(|at| is_same(&name, &column(at), &format!("u.n{at}"))));
                write!(out, ")\nUPDATE main.{name} SET {} FROM u\n  WHERE {}", sets.join(", "), places.join(" AND "))?;
            }
        }
        writeln!(out, ";")?;
        guard(out, &format!("rows of {}", table.name), self.rows, "changes()")?;
        self.values.clear();
        self.rows = 0;
        self.seen.clear();
        Ok(())
    }
}

/// The same to the byte and to the type, whatever the column's collation.
fn is_same(table: &str, column: &str, value: &str) -> String {
    format!("{table}.{column} IS {value} COLLATE BINARY AND typeof({table}.{column}) = typeof({value})")
}

/// Stops the script unless the expression has this value.
pub(super) fn guard(out: &mut dyn Write, what: &str, wanted: u64, found: &str) -> io::Result<()> {
    writeln!(out, "INSERT INTO temp.backout_guard SELECT {}, {wanted}, {found};", text(what))
}

/// A text as a literal.
pub(super) fn text(value: &str) -> String {
    let mut out = Vec::new();
    literal(&mut out, ValueRef::Text(value.as_bytes()));
    // What is put there is ASCII or the text itself.
    String::from_utf8(out).unwrap_or_default()
}

/// A value as a literal that the client reads back to the bit.
pub(super) fn literal(out: &mut Vec<u8>, value: ValueRef<'_>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let hex = |out: &mut Vec<u8>, bytes: &[u8]| {
        out.extend_from_slice(b"x'");
        for byte in bytes {
            out.push(DIGITS[usize::from(byte >> 4)]);
            out.push(DIGITS[usize::from(byte & 15)]);
        }
        out.push(b'\'');
    };
    match value {
        ValueRef::Null => out.extend_from_slice(b"NULL"),
        // Its absolute value is no number that the parser knows.
        ValueRef::Integer(i64::MIN) => out.extend_from_slice(b"(-9223372036854775807-1)"),
        ValueRef::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        ValueRef::Real(number) => {
            // Few digits are read exactly by every version; the client knows a function for the rest.
            let short = format!("{number:?}");
            let digits = short.bytes().filter(u8::is_ascii_digit).count();
            if number.is_finite() && digits <= 15 && !short.contains('e') && number != 0.0 {
                out.extend_from_slice(short.as_bytes());
            } else {
                out.extend_from_slice(b"ieee754_from_blob(");
                hex(out, &number.to_bits().to_be_bytes());
                out.push(b')');
            }
        }
        ValueRef::Text(bytes) if std::str::from_utf8(bytes).is_ok() && !bytes.contains(&0) => {
            out.push(b'\'');
            for byte in bytes {
                out.push(*byte);
                if *byte == b'\'' {
                    out.push(b'\'');
                }
            }
            out.push(b'\'');
        }
        ValueRef::Text(bytes) => {
            out.extend_from_slice(b"CAST(");
            hex(out, bytes);
            out.extend_from_slice(b" AS TEXT)");
        }
        ValueRef::Blob(bytes) => hex(out, bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_exact() {
        let of = |value| {
            let mut out = Vec::new();
            literal(&mut out, value);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(of(ValueRef::Text(b"it's")), "'it''s'");
        assert_eq!(of(ValueRef::Text(b"a\0")), "CAST(x'6100' AS TEXT)");
        assert_eq!(of(ValueRef::Real(1.5)), "1.5");
        assert_eq!(of(ValueRef::Real(0.1 + 0.2)), "ieee754_from_blob(x'3fd3333333333334')");
        assert_eq!(of(ValueRef::Integer(i64::MIN)), "(-9223372036854775807-1)");
    }
}
