//! State that no row shows: sqlite_sequence, user_version, application_id. Put back only where nobody used it since.

use backout_model::conflict::{Conflict, ConflictKind, OnConflict};
use backout_model::target::TargetError;
use rusqlite::{Connection, params_from_iter};
use serde::{Deserialize, Serialize};

use super::courses::Passage;
use super::guard::Guard;
use super::schema;
use super::token::{each_token, quote};
use super::value::Cell;

/// A row of sqlite_sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Sequence {
    pub rowid: i64,
    pub name: Cell,
    pub seq: Cell,
}

/// Its form in the images.
#[derive(Serialize, Deserialize)]
struct Written {
    rowid: i64,
    name: String,
    seq: Option<i64>,
    /// Both values, where the two above cannot say them: anybody may write anything there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exact: Option<(Cell, Cell)>,
}

impl From<Sequence> for Written {
    fn from(row: Sequence) -> Self {
        match (row.name, row.seq) {
            (Cell::Text(name), Cell::Integer(seq)) => Self { rowid: row.rowid, name, seq: Some(seq), exact: None },
            (name, seq) => {
                let shown = name.text().unwrap_or_default().to_owned();
                Self { rowid: row.rowid, name: shown, seq: None, exact: Some((name, seq)) }
            }
        }
    }
}

impl From<Written> for Sequence {
    fn from(row: Written) -> Self {
        let (name, seq) =
            row.exact.unwrap_or_else(|| (Cell::Text(row.name), row.seq.map_or(Cell::Null, Cell::Integer)));
        Self { rowid: row.rowid, name, seq }
    }
}

/// What is not in any row that the hook sees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    pub sequences: Vec<Sequence>,
    pub user_version: i64,
    pub application_id: i64,
}

impl Counters {
    /// The values under a name: mostly one, but nothing forbids others.
    fn of(&self, name: &Cell) -> Vec<Cell> {
        self.sequences.iter().filter(|row| row.name == *name).map(|row| row.seq.clone()).collect()
    }

    fn of_table(&self, name: &str) -> Vec<Cell> {
        self.sequences.iter().filter(|row| row.name.text() == Some(name)).map(|row| row.seq.clone()).collect()
    }
}

/// The counters before the work and as they ought to be after it.
pub struct Span<'a> {
    /// What the step left, or what its undo left.
    pub left: &'a Counters,
    pub wanted: &'a Counters,
    /// What was there before this undo or redo began to change anything.
    pub now: &'a Counters,
}

/// Reads them all.
pub fn read(conn: &Connection, label: &str) -> Result<Counters, TargetError> {
    inner_read(conn).map_err(|source| TargetError::failed(format!("cannot read the counters of {label}"), source))
}

fn inner_read(conn: &Connection) -> rusqlite::Result<Counters> {
    let pragma = |name: &str| conn.query_row(&format!("PRAGMA main.{name}"), [], |row| row.get(0));
    let mut counters = Counters {
        sequences: Vec::new(),
        user_version: pragma("user_version")?,
        application_id: pragma("application_id")?,
    };
    if has_sequences(conn)? {
        let mut statement = conn.prepare("SELECT rowid, name, seq FROM main.sqlite_sequence ORDER BY rowid")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            counters.sequences.push(Sequence {
                rowid: row.get(0)?,
                name: Cell::of(row.get_ref(1)?),
                seq: Cell::of(row.get_ref(2)?),
            });
        }
    }
    Ok(counters)
}

fn has_sequences(conn: &Connection) -> rusqlite::Result<bool> {
    conn.query_row("SELECT count(*) FROM main.sqlite_schema WHERE name = 'sqlite_sequence'", [], |row| {
        row.get::<_, i64>(0).map(|count| count > 0)
    })
}

/// Brings the counters back as far as nobody used them since; each goes with its table, whatever that was called
/// meanwhile.
pub fn put_back(
    conn: &Connection,
    label: &str,
    span: &Span<'_>,
    passages: &[Passage<'_>],
    guard: &mut Guard<'_>,
) -> Result<(), TargetError> {
    numbers(conn, label, span, guard)
        .and_then(|()| sequences(conn, label, span, passages, &mut guard.notes))
        .map_err(|source| TargetError::failed(format!("cannot put the counters of {label} back"), source))
}

/// What conflicts call the numbers in a database's header.
pub const NUMBERS: [&str; 2] = ["pragma user_version", "pragma application_id"];

impl Counters {
    fn numbers(&self) -> [i64; 2] {
        [self.user_version, self.application_id]
    }

    /// Those that differ, by their names in conflicts.
    pub fn differing_numbers(&self, other: &Counters) -> impl Iterator<Item = &'static str> {
        let both = self.numbers().into_iter().zip(other.numbers());
        NUMBERS.into_iter().zip(both).filter(|(_, (one, other))| one != other).map(|(name, _)| name)
    }
}

fn numbers(conn: &Connection, label: &str, span: &Span<'_>, guard: &mut Guard<'_>) -> rusqlite::Result<()> {
    let (left, wanted, now) = (span.left.numbers(), span.wanted.numbers(), span.now.numbers());
    for (at, object) in NUMBERS.into_iter().enumerate() {
        let (left, wanted, now) = (left[at], wanted[at], now[at]);
        let name = object.strip_prefix("pragma ").unwrap_or(object);
        if left == wanted {
            continue;
        }
        if now != left {
            let found = Conflict {
                target: label.to_owned(),
                object: object.to_owned(),
                key: None,
                column: None,
                kind: ConflictKind::Changed,
                before: wanted.to_string(),
                left: left.to_string(),
                now: now.to_string(),
            };
            let is_done = now == wanted;
            if is_done {
                guard.already.push(found)
            } else {
                guard.conflicts.push(found)
            }
            if is_done || guard.on_conflict != OnConflict::Overwrite {
                continue;
            }
        }
        conn.execute_batch(&format!("PRAGMA main.{name} = {wanted}"))?;
    }
    Ok(())
}

fn sequences(
    conn: &Connection,
    label: &str,
    span: &Span<'_>,
    passages: &[Passage<'_>],
    notes: &mut Vec<String>,
) -> rusqlite::Result<()> {
    if !has_sequences(conn)? {
        return Ok(());
    }
    let by_now = inner_read(conn)?;
    let mut names: Vec<&Cell> = [span.left, span.wanted, span.now, &by_now]
        .iter()
        .flat_map(|counters| counters.sequences.iter().map(|row| &row.name))
        .collect();
    let placed: Vec<Cell> =
        passages.iter().filter_map(|passage| passage.now).map(|name| Cell::Text(name.to_owned())).collect();
    names.extend(&placed);
    names.sort_unstable();
    names.dedup();
    let mut changed = false;
    for name in names {
        let is_name = |other: Option<&str>| other.is_some() && other == name.text();
        let goes = passages.iter().any(|passage| is_name(passage.from));
        let comes = passages.iter().any(|passage| is_name(passage.to));
        let owner = passages.iter().find(|passage| is_name(passage.now));
        let result = match owner {
            Some(passage) => of_passage(conn, label, span, passage, &by_now, notes)?,
            // The table of this name has gone to another; rows that belonged to none are as they were.
            None if goes => {
                if comes {
                    Vec::new()
                } else {
                    span.wanted.of(name)
                }
            }
            None => {
                let left = span.left.of(name);
                // What ought to have the name has not got it.
                let wanted = if comes { left.clone() } else { span.wanted.of(name) };
                unless_used(label, name.text(), left, wanted, span.now.of(name), notes)
            }
        };
        if result == by_now.of(name) {
            continue;
        }
        changed = true;
        conn.execute("DELETE FROM main.sqlite_sequence WHERE name IS ?1", [name])?;
        for seq in &result {
            conn.execute(
                "INSERT INTO main.sqlite_sequence (name, seq) VALUES (?1, ?2)",
                params_from_iter([name, seq]),
            )?;
        }
    }
    let found = inner_read(conn)?;
    if changed || order(&found) != order(span.wanted) {
        put_in_order(conn, span.wanted, &found)?;
    }
    Ok(())
}

/// What is wanted, unless somebody used the counter since.
fn unless_used(
    label: &str,
    name: Option<&str>,
    left: Vec<Cell>,
    wanted: Vec<Cell>,
    now: Vec<Cell>,
    notes: &mut Vec<String>,
) -> Vec<Cell> {
    if now == left || now == wanted {
        return wanted;
    }
    if left != wanted {
        notes.push(format!("{label}: the counter of {} was used since and stays", name.unwrap_or("no table")));
    }
    now
}

/// The counter of a table that the step makes, renames or drops.
fn of_passage(
    conn: &Connection,
    label: &str,
    span: &Span<'_>,
    passage: &Passage<'_>,
    by_now: &Counters,
    notes: &mut Vec<String>,
) -> rusqlite::Result<Vec<Cell>> {
    let table = passage.now.unwrap_or_default();
    Ok(match (passage.from, passage.to) {
        (None, None) => by_now.of_table(table),
        (None, Some(to)) => span.wanted.of_table(to),
        // It ought to be gone, and was left.
        (Some(from), None) => span.now.of_table(from),
        (Some(from), Some(to)) => {
            let (left, wanted, now) = (span.left.of_table(from), span.wanted.of_table(to), span.now.of_table(from));
            if !passage.replaces {
                return Ok(unless_used(label, Some(to), left, wanted, now, notes));
            }
            if now == left && !passage.carried || !counts(conn, table)? {
                return Ok(wanted);
            }
            // Numbers that others used in the other table don't come twice in this one.
            let used = if now == left { Vec::new() } else { now };
            let highest = used.into_iter().chain(wanted).chain(highest(conn, table)?);
            let highest = highest.filter_map(|seq| if let Cell::Integer(seq) = seq { Some(seq) } else { None }).max();
            highest.map(Cell::Integer).into_iter().collect()
        }
    })
}

/// Whether a table has a counter.
fn counts(conn: &Connection, table: &str) -> rusqlite::Result<bool> {
    let text = schema::object(conn, "table", table)?.and_then(|row| row.sql);
    Ok(text.is_some_and(|sql| each_token(&sql).any(|token| token.is("AUTOINCREMENT"))))
}

/// The highest number that a table with a counter holds.
fn highest(conn: &Connection, table: &str) -> rusqlite::Result<Option<Cell>> {
    let shape = schema::shape(conn, table)?;
    let Some(key) = shape.key().first().map(|column| quote(&column.name)) else { return Ok(None) };
    conn.query_row(&format!("SELECT max({key}) FROM main.{}", quote(table)), [], |row| {
        row.get_ref(0).map(|value| Some(Cell::of(value)).filter(|cell| *cell != Cell::Null))
    })
}

fn order(counters: &Counters) -> Vec<(i64, &Cell)> {
    counters.sequences.iter().map(|row| (row.rowid, &row.name)).collect()
}

/// Gives the rows their old rowids again where they can have them, so that a dump lists them as before.
fn put_in_order(conn: &Connection, wanted: &Counters, found: &Counters) -> rusqlite::Result<()> {
    let mut free: Vec<&Sequence> = found.sequences.iter().collect();
    let mut placed: Vec<(i64, i64)> = Vec::new();
    for row in &wanted.sequences {
        if let Some(at) = free.iter().position(|there| there.name == row.name && there.seq == row.seq) {
            placed.push((free.swap_remove(at).rowid, row.rowid));
        }
    }
    // A row whose place is taken stays, and takes the one that it has.
    let mut taken: Vec<i64> = free.iter().map(|row| row.rowid).collect();
    while let Some(at) = placed.iter().position(|(_, to)| taken.contains(to)) {
        taken.push(placed.swap_remove(at).0);
    }
    // By way of rowids that nobody has, since two rows may swap theirs.
    for (from, to) in &placed {
        conn.execute("UPDATE main.sqlite_sequence SET rowid = ?2 WHERE rowid = ?1", [from, &(-to - 1)])?;
    }
    for (_, to) in &placed {
        conn.execute("UPDATE main.sqlite_sequence SET rowid = ?2 WHERE rowid = ?1", [&(-to - 1), to])?;
    }
    Ok(())
}
