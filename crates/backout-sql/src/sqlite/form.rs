//! The statements that change or find one row: their text, their parameters, and those that are ready to run.
//!
//! Parameters go in the order in which the text names them: place, guards, new values, new rowid. Never decides
//! anything.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement};

use super::stream::{Affinity, Table};
use super::token::quote;
use super::value;

/// What a statement does to its row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Insert,
    /// With a rowid of SQLite's choice.
    InsertAnywhere,
    Update,
    Delete,
    /// By place alone, once the row has been looked at.
    Remove,
    Find,
    FindByKey,
    FindWhole,
}

/// What tells one statement on a table from another.
#[derive(Clone, Copy)]
pub struct Form<'a> {
    pub kind: Kind,
    /// Of an update: the columns that it sets.
    pub changed: &'a [usize],
    /// Of an update: whether the rowid changes, too.
    pub moved: bool,
    /// Rows with the same unique value make room.
    pub replace: bool,
}

impl Form<'_> {
    pub fn plain(kind: Kind) -> Self {
        Self { kind, changed: &[], moved: false, replace: false }
    }
}

struct Prepared<'c> {
    table: u32,
    kind: Kind,
    changed: Vec<usize>,
    moved: bool,
    replace: bool,
    statement: Statement<'c>,
}

/// Prepared statements are few: one a table and set of changed columns. More than this are forgotten.
const KEPT: usize = 128;

/// The statements that are ready, the last one used first.
pub struct Statements<'c> {
    conn: &'c Connection,
    prepared: Vec<Prepared<'c>>,
    last: usize,
}

impl<'c> Statements<'c> {
    pub fn new(conn: &'c Connection) -> Self {
        Self { conn, prepared: Vec::new(), last: 0 }
    }

    pub fn clear(&mut self) {
        self.prepared.clear();
        self.last = 0;
    }

    /// Runs a statement with the parameters that `bind` gives it; how many rows it changed.
    pub fn run(
        &mut self,
        number: u32,
        table: &Table,
        form: &Form<'_>,
        bind: impl FnOnce(&mut Statement<'c>) -> rusqlite::Result<usize>,
    ) -> rusqlite::Result<usize> {
        let statement = self.get(number, table, form)?;
        bind(statement)?;
        statement.raw_execute()
    }

    /// The statement of that form, prepared where it is not yet.
    pub fn get(&mut self, number: u32, table: &Table, form: &Form<'_>) -> rusqlite::Result<&mut Statement<'c>> {
        let fits = |one: &Prepared<'_>| {
            one.table == number
                && one.kind == form.kind
                && one.moved == form.moved
                && one.replace == form.replace
                && one.changed == form.changed
        };
        if !self.prepared.get(self.last).is_some_and(fits) {
            self.last = match self.prepared.iter().position(fits) {
                Some(at) => at,
                None => {
                    if self.prepared.len() >= KEPT {
                        self.prepared.clear();
                    }
                    let statement = self.conn.prepare(&sql(table, form))?;
                    self.prepared.push(Prepared {
                        table: number,
                        kind: form.kind,
                        changed: form.changed.to_vec(),
                        moved: form.moved,
                        replace: form.replace,
                        statement,
                    });
                    self.prepared.len() - 1
                }
            };
        }
        Ok(&mut self.prepared[self.last].statement)
    }
}

/// Binds a value as it is: text may be no UTF-8.
struct Bound<'a>(ValueRef<'a>);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.0))
    }
}

/// The columns that can be written: not the generated ones.
pub fn written(table: &Table) -> impl Iterator<Item = usize> + '_ {
    table.columns.iter().enumerate().filter(|(_, column)| column.is_written()).map(|(at, _)| at)
}

/// The columns that tell a row from the others besides its rowid; none where the rowid itself is the key.
pub fn keys(table: &Table) -> Vec<usize> {
    if table.rowid_column.is_some() {
        return Vec::new();
    }
    let mut keys: Vec<usize> = (0..table.columns.len()).filter(|at| table.columns[*at].key > 0).collect();
    keys.sort_by_key(|at| table.columns[*at].key);
    keys
}

/// What names a row, as people are shown it: `id=7`.
pub fn shown_key(table: &Table, rowid: i64, values: &[ValueRef<'_>]) -> String {
    let keys = keys(table);
    match table.rowid_column {
        Some(column) => format!("{}={rowid}", table.columns[column].name),
        None if keys.is_empty() => format!("rowid={rowid}"),
        None => {
            let one = |column: &usize| format!("{}={}", table.columns[*column].name, value::shown(values[*column]));
            keys.iter().map(one).collect::<Vec<_>>().join(", ")
        }
    }
}

/// Values that SQLite takes for equal although they are not the same: a comparison of its own would not do.
pub fn blurred(table: &Table, values: &[ValueRef<'_>], mut columns: impl Iterator<Item = usize>) -> bool {
    columns.any(|column| {
        // Only a column that takes values as they come can hold -0.0: the others make 0 of it.
        table.columns[column].affinity == Affinity::Blob
            && table.columns[column].is_written()
            && matches!(values[column], ValueRef::Real(number) if number == 0.0)
    })
}

/// The columns that an update compares: those that it sets; all of them where nothing but its content names a row.
pub fn guarded<'a>(table: &'a Table, changed: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    let (keys, whole) = (keys(table), is_keyless(table));
    written(table).filter(move |column| whole || keys.contains(column) || changed.contains(column))
}

/// Whether nothing but a rowid that no column shows tells the rows of a table apart.
pub fn is_keyless(table: &Table) -> bool {
    table.rowid_column.is_none() && table.columns.iter().all(|column| column.key == 0)
}

/// Whether a row goes by its rowid, which no column shows: its table has no key, or the row's key has a NULL in it and
/// so names no single row.
pub fn is_nameless(table: &Table, values: &[ValueRef<'_>]) -> bool {
    let hidden = table.rowid.is_some() && table.rowid_column.is_none();
    let mut keys = table.columns.iter().zip(values).filter(|(column, _)| column.key > 0).peekable();
    hidden && (keys.peek().is_none() || keys.any(|(_, value)| matches!(value, ValueRef::Null)))
}

pub fn set<'a>(table: &'a Table, changed: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    changed.iter().copied().filter(|column| table.columns[*column].is_written())
}

fn sql(table: &Table, form: &Form<'_>) -> String {
    let Form { kind, changed, moved, replace } = *form;
    let name = quote(&table.name);
    let column = |at: usize| quote(&table.columns[at].name);
    // Else a constraint's own `ON CONFLICT` would speak: it may take other rows away, or pass over this one.
    let or = if replace { " OR REPLACE" } else { " OR ABORT" };
    let hidden = table.rowid.as_ref().filter(|_| table.rowid_column.is_none());
    let mut next = 0;
    let mut parameter = || {
        next += 1;
        next
    };
    match kind {
        Kind::Insert | Kind::InsertAnywhere => {
            let mut names: Vec<String> = written(table).map(column).collect();
            if kind == Kind::Insert {
                names.extend(hidden.map(|alias| quote(alias)));
            }
            let places: Vec<String> = names.iter().map(|_| format!("?{}", parameter())).collect();
            format!("INSERT{or} INTO main.{name} ({}) VALUES ({})", names.join(", "), places.join(", "))
        }
        Kind::Delete => {
            let place = place(table, &mut parameter);
            let guards: Vec<String> = written(table).map(|at| compared(table, at, parameter())).collect();
            format!("DELETE FROM main.{name} WHERE {place} AND {}", all(&guards))
        }
        Kind::Remove => format!("DELETE FROM main.{name} WHERE {}", place(table, &mut parameter)),
        Kind::Update => {
            let mut wheres = vec![place(table, &mut parameter)];
            wheres.extend(guarded(table, changed).map(|at| compared(table, at, parameter())));
            let mut sets: Vec<String> =
                set(table, changed).map(|at| format!("{} = ?{}", column(at), parameter())).collect();
            if moved {
                sets.extend(hidden.map(|alias| format!("{} = ?{}", quote(alias), parameter())));
            }
            if sets.is_empty() {
                // Only generated columns differ: nothing to write, but the guard still speaks.
                let first = written(table).next().map(column).unwrap_or_default();
                sets.push(format!("{first} = {first}"));
            }
            format!("UPDATE{or} main.{name} SET {} WHERE {}", sets.join(", "), all(&wheres))
        }
        Kind::Find | Kind::FindByKey | Kind::FindWhole => {
            let there = |at: usize| if table.columns[at].gone { "NULL".to_owned() } else { column(at) };
            let names: Vec<String> = (0..table.columns.len()).map(there).collect();
            let rowid = table.rowid.as_ref().map_or("0".to_owned(), |alias| quote(alias));
            let condition = match kind {
                Kind::FindByKey => by_keys(table, &mut parameter),
                Kind::FindWhole => all(&written(table).map(|at| compared(table, at, parameter())).collect::<Vec<_>>()),
                _ => place(table, &mut parameter),
            };
            format!("SELECT {rowid}, {} FROM main.{name} WHERE {condition} LIMIT 1", names.join(", "))
        }
    }
}

/// Where a row is, as a condition for [`bind_place`]: by its rowid, or by its key without one.
pub fn place(table: &Table, parameter: &mut impl FnMut() -> usize) -> String {
    match &table.rowid {
        Some(alias) => format!("{} = ?{}", quote(alias), parameter()),
        None => by_keys(table, parameter),
    }
}

/// By its key, in the column's own collation so that the index serves, and exactly.
fn by_keys(table: &Table, parameter: &mut impl FnMut() -> usize) -> String {
    let terms: Vec<String> = keys(table)
        .into_iter()
        .map(|at| {
            let number = parameter();
            format!("{} IS ?{number} AND {}", quote(&table.columns[at].name), compared(table, at, number))
        })
        .collect();
    all(&terms)
}

/// All conditions at once, in halves of halves: SQLite bounds the depth of an expression at 1,000, and a plain chain is
/// as deep as a table has columns.
fn all(conditions: &[String]) -> String {
    const CHAIN: usize = 100;
    if conditions.len() <= CHAIN {
        return conditions.join(" AND ");
    }
    let (left, right) = conditions.split_at(conditions.len() / 2);
    format!("({}) AND ({})", all(left), all(right))
}

/// Compares a column with a parameter byte by byte. Where the column takes numbers as they come, 1 and 1.0 are two
/// values that `IS` does not tell apart.
fn compared(table: &Table, at: usize, parameter: usize) -> String {
    let column = &table.columns[at];
    let name = quote(&column.name);
    match column.affinity {
        Affinity::Blob => {
            format!("{name} COLLATE BINARY IS ?{parameter} AND typeof({name}) = typeof(?{parameter})")
        }
        Affinity::Integer | Affinity::Real | Affinity::Text | Affinity::Numeric => {
            format!("{name} COLLATE BINARY IS ?{parameter}")
        }
    }
}

pub fn bind_place(
    statement: &mut Statement<'_>,
    at: usize,
    table: &Table,
    rowid: i64,
    values: &[ValueRef<'_>],
) -> rusqlite::Result<usize> {
    if table.rowid.is_some() {
        statement.raw_bind_parameter(at, rowid)?;
        return Ok(at + 1);
    }
    bind_all(statement, at, keys(table).into_iter().map(|column| values[column]))
}

#[inline]
pub fn bind_all<'v>(
    statement: &mut Statement<'_>,
    mut at: usize,
    values: impl Iterator<Item = ValueRef<'v>>,
) -> rusqlite::Result<usize> {
    for value in values {
        statement.raw_bind_parameter(at, Bound(value))?;
        at += 1;
    }
    Ok(at)
}

impl Affinity {
    /// Of a declared type, in the order of that section.
    pub fn of(declared: &str) -> Self {
        let upper = declared.to_ascii_uppercase();
        let has = |part: &str| upper.contains(part);
        if has("INT") {
            Self::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Self::Text
        } else if has("BLOB") || upper.is_empty() || upper == "ANY" {
            Self::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Real
        } else {
            Self::Numeric
        }
    }
}
