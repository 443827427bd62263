//! Marks of how tables are that only A can write to, because it changed or locked them: B cannot look at them, or would see
//! them as they were before the step. Cursors of A's own still see the rows as at their opening.
//!
//! While a cursor is open its table's schema cannot be changed: marks are closed before that.

use std::collections::{HashSet, VecDeque};

use super::candidates::own_rows;
use super::capture_error::{CaptureError, reading};
use super::session::{Row, Session, literal};
use super::stream::{Side, Span, Table, Writer};
use super::table::{self, quoted};

/// How many rows of a cursor are in memory at a time.
const FETCHED: usize = 2_000;

/// Where a version of a row is, and who made it.
pub type RowPlace = ((u32, u16), u32);

pub fn parse_ctid(text: &str) -> Option<(u32, u16)> {
    let (block, offset) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    Some((block.parse().ok()?, offset.parse().ok()?))
}

/// A cursor whose rows begin with ctid and xmin, fetched as they are needed.
pub struct Seen {
    cursor: String,
    fetched: VecDeque<(RowPlace, Row)>,
    ended: bool,
}

/// The cursor that shares its snapshot with another session.
const SHARED: &str = "backout_seen";

impl Seen {
    /// Opens a cursor on what A sees of a table, and gives its snapshot to others. One statement gives both: the
    /// snapshot with the first row, and with the others what A sees in it of the rows that [`Self::at`] names later.
    pub fn declare(a: &mut Session, place: &str) -> Result<String, postgres::Error> {
        a.run(&format!(
            "SELECT set_config('backout.places', '{{}}', true), set_config('backout.all', '', true);
             DECLARE {SHARED} NO SCROLL CURSOR FOR SELECT NULL::tid, NULL::xid, pg_export_snapshot()
             UNION ALL SELECT x.ctid, x.xmin, NULL FROM {place} AS x
                 WHERE x.ctid = ANY (current_setting('backout.places')::tid[])
             UNION ALL SELECT x.ctid, x.xmin, NULL FROM {place} AS x
                 WHERE x.xmax <> '0'::xid AND current_setting('backout.all') = 'yes'"
        ))?;
        let first = a.rows(&format!("FETCH 1 FROM {SHARED}"))?;
        Ok(first.into_iter().next().and_then(|mut row| row.pop().flatten()).unwrap_or_default())
    }

    /// What A sees at these places, a `tid[]`; without them wherever a row may have been changed.
    ///
    /// The parts of the cursor's statement begin when the first row of each is fetched, and ask for these settings then.
    pub fn at(a: &mut Session, places: Option<&str>) -> Result<Self, postgres::Error> {
        let (name, value) = places.map_or(("backout.all", "yes"), |places| ("backout.places", places));
        a.run(&format!("SELECT set_config('{name}', {}, true)", literal(value)))?;
        Ok(Self::of(SHARED))
    }

    /// Ends the cursor that [`Self::declare`] opened.
    pub fn close(self, a: &mut Session) -> Result<(), postgres::Error> {
        a.run(&format!("CLOSE {}; SELECT set_config('backout.places', '{{}}', true)", self.cursor))
    }

    pub fn of(cursor: &str) -> Self {
        Self { cursor: cursor.to_owned(), fetched: VecDeque::new(), ended: false }
    }

    /// True where it has the version of the row at `place`; places are asked for in ascending order.
    pub fn has(&mut self, a: &mut Session, place: RowPlace) -> Result<bool, postgres::Error> {
        while let Some((front, _)) = self.front(a)? {
            if front.0 >= place.0 {
                return Ok(*front == place);
            }
            self.fetched.pop_front();
        }
        Ok(false)
    }

    fn front(&mut self, a: &mut Session) -> Result<Option<&(RowPlace, Row)>, postgres::Error> {
        if self.fetched.is_empty() && !self.ended {
            let rows = a.rows(&format!("FETCH {FETCHED} FROM {}", self.cursor))?;
            self.ended = rows.len() < FETCHED;
            self.fetched.extend(rows.into_iter().filter_map(|row| {
                let ctid = parse_ctid(row.first()?.as_deref()?)?;
                let xmin = row.get(1)?.as_deref()?.parse().ok()?;
                Some(((ctid, xmin), row))
            }));
        }
        Ok(self.fetched.front())
    }

    fn next(&mut self, a: &mut Session) -> Result<Option<(RowPlace, Row)>, postgres::Error> {
        self.front(a)?;
        Ok(self.fetched.pop_front())
    }
}

/// The marks that are set.
#[derive(Default)]
pub struct Marks(HashSet<u32>);

fn declare(name: &str, columns: &str, place: &str, condition: &str) -> String {
    format!("DECLARE {name} NO SCROLL CURSOR FOR SELECT {columns} FROM ONLY {place} AS x WHERE {condition};")
}

impl Marks {
    pub fn has(&self, oid: u32) -> bool {
        self.0.contains(&oid)
    }

    /// Marks a table as it is now.
    pub fn open(&mut self, a: &mut Session, oid: u32, table: &Table) -> Result<(), postgres::Error> {
        let top = a.value("SELECT pg_current_xact_id()")?.unwrap_or_default();
        let columns = with_places(table);
        let old = declare(&format!("backout_old_{oid}"), &columns, &quoted(table), "x.xmax <> '0'::xid");
        let own = declare(&format!("backout_own_{oid}"), "x.ctid, x.xmin", &quoted(table), &own_rows("x", &top));
        a.run(&format!("{old} {own}"))?;
        self.0.insert(oid);
        Ok(())
    }

    /// Takes all marks away.
    pub fn close(&mut self, a: &mut Session) -> Result<(), postgres::Error> {
        let all: Vec<String> =
            self.0.drain().map(|oid| format!("CLOSE backout_old_{oid}; CLOSE backout_own_{oid};")).collect();
        if all.is_empty() { Ok(()) } else { a.run(&all.concat()) }
    }

    /// Writes the images of the rows that changed since the mark was set, and takes it away.
    pub fn rows(
        &mut self,
        a: &mut Session,
        writer: &mut Writer,
        oid: u32,
        table: &Table,
        number: u32,
        top: &str,
    ) -> Result<(Span, Span), CaptureError> {
        let failed = |source| reading(&table::shown(table))(source);
        let now = declare("backout_now", "x.ctid, x.xmin", &quoted(table), "x.xmax <> '0'::xid");
        let new = declare("backout_new", &with_places(table), &quoted(table), &own_rows("x", top));
        a.run(&format!("{now} {new}")).map_err(failed)?;
        let (old, own) = (format!("backout_old_{oid}"), format!("backout_own_{oid}"));
        let mut spans = [Span::default(); 2];
        let sides = [(Side::Before, old.as_str(), "backout_now"), (Side::After, "backout_new", own.as_str())];
        for (span, (side, of, without)) in spans.iter_mut().zip(sides) {
            span.start = writer.boundary()?;
            let (mut rows, mut without) = (Seen::of(of), Seen::of(without));
            while let Some((place, row)) = rows.next(a).map_err(failed)? {
                if !without.has(a, place).map_err(failed)? {
                    writer.row(side, number, &line_of(&row[2..]))?;
                    span.records += 1;
                }
            }
            span.end = writer.boundary()?;
        }
        a.run(&format!("CLOSE backout_now; CLOSE backout_new; CLOSE {old}; CLOSE {own}")).map_err(failed)?;
        self.0.remove(&oid);
        let [before, after] = spans;
        Ok((before, after))
    }
}

fn with_places(table: &Table) -> String {
    let columns = table::list(table, "x");
    if columns.is_empty() { "x.ctid, x.xmin".to_owned() } else { format!("x.ctid, x.xmin, {columns}") }
}

/// Values as a line of COPY text.
fn line_of(values: &[Option<String>]) -> Vec<u8> {
    let mut line = Vec::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            line.push(b'\t');
        }
        let Some(value) = value else {
            line.extend_from_slice(b"\\N");
            continue;
        };
        for byte in value.bytes() {
            let letter = match byte {
                b'\\' => b'\\',
                b'\t' => b't',
                b'\n' => b'n',
                b'\r' => b'r',
                0x08 => b'b',
                0x0b => b'v',
                0x0c => b'f',
                _ => {
                    line.push(byte);
                    continue;
                }
            };
            line.extend_from_slice(&[b'\\', letter]);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_a_line_of_copy() {
        let values = [Some("a\tb\\".to_owned()), None, Some(String::new()), Some("\n\u{b}ü".to_owned())];
        assert_eq!(String::from_utf8(line_of(&values)).unwrap(), "a\\tb\\\\\t\\N\t\t\\n\\vü");
    }
}
