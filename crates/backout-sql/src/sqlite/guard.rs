//! The guarded change of one row: it takes effect only where the row still holds what is expected of it.
//!
//! The usual row is compared by SQLite itself, in the statement that changes it. Where that finds nothing to change,
//! the row is looked at, and compared here to the bit: only then something is merged, or is a conflict.

use std::collections::{BTreeMap, HashMap, HashSet};

use backout_model::conflict::{Conflict, Conflicts, OnConflict};
use backout_model::target::TargetError;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Rows};

use super::carry::Carry;
use super::ddl_hold::is_constraint;
use super::ddl_undo::needed;
use super::form::{
    Form, Kind, Statements, bind_all, bind_place, blurred, guarded, is_keyless, is_nameless, keys, place, set,
    shown_key, written,
};
use super::numbering::Known;
use super::schema;
use super::stream::{Damage, Table};
use super::token::quote;
use super::value::{self, Cursor};

/// A change to be made to one row.
pub struct Change<'a> {
    /// Where the row is expected; 0 without rowid.
    pub rowid: i64,
    /// Where it is to be.
    pub new_rowid: i64,
    /// What it is expected to hold; `None`: that it is not there.
    pub expect: Option<&'a [ValueRef<'a>]>,
    /// What it is to hold; `None`: that it is not there.
    pub want: Option<&'a [ValueRef<'a>]>,
    /// The columns in which the two differ, where both are there.
    pub changed: &'a [usize],
}

impl Change<'_> {
    /// Whether it gives a row another key, or another place.
    pub fn moves(&self, table: &Table) -> bool {
        let stays = self.expect.is_some() && self.want.is_some();
        stays && (self.rowid != self.new_rowid || self.changed.iter().any(|at| table.columns[*at].key > 0))
    }
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The row is not as expected, or another stands in the way.
    Unexpected,
}

/// What came of a change that had to be looked at.
pub enum Settled {
    /// Made, merged, found made already, or listed as a conflict.
    Done,
    /// Only another row's unique value is in the way, which may be about to go: the row as found, and as it should be.
    Blocked { found: Found, wanted: Vec<u8> },
}

/// A row as it was found, owned.
pub struct Found {
    pub rowid: i64,
    bytes: Vec<u8>,
}

impl Found {
    pub fn values(&self) -> Result<Vec<ValueRef<'_>>, Damage> {
        decoded(&self.bytes)
    }

    /// Its values as [`decoded`] reads them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The values that stand in a row in `bytes`.
pub fn decoded(bytes: &[u8]) -> Result<Vec<ValueRef<'_>>, Damage> {
    let mut cursor = Cursor::new(bytes);
    let mut values = Vec::new();
    while !cursor.rest.is_empty() {
        values.push(cursor.value()?);
    }
    Ok(values)
}

/// A hash of a row by its key.
pub fn of_row(table: &Table, rowid: i64, values: &[ValueRef<'_>]) -> u64 {
    of_object(&format!("{} {}", table.name, shown_key(table, rowid, values)))
}

/// A hash of an object of the schema, as people are shown it.
pub fn of_object(shown: &str) -> u64 {
    value::short(&blake3::hash(shown.to_ascii_lowercase().as_bytes()))
}

/// The reverse of [`decoded`].
pub fn encoded(values: &[ValueRef<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    values.iter().for_each(|one| value::put(&mut bytes, *one));
    bytes
}

/// Makes guarded changes on one connection, and settles those that meet something unexpected.
pub struct Guard<'c> {
    pub(super) conn: &'c Connection,
    pub(super) label: &'c str,
    pub(super) on_conflict: OnConflict,
    /// Where rowids still name the rows that they named when the images were made.
    pub known: Known,
    pub conflicts: Conflicts,
    /// What is as it is to be already.
    pub already: Conflicts,
    /// What an undo takes away that the undo of a later step, if there is one, could not do without.
    pub needed: Conflicts,
    /// A change of the schema could not be undone: under `overwrite` nothing is, then.
    pub stays: bool,
    pub notes: Vec<String>,
    /// The tables that replace others, whose rows are carried over as they go.
    pub carries: Vec<Carry>,
    /// The tables that replace others from which no row can be carried over, and what others took out of them.
    pub uncarried: Vec<(String, Conflicts)>,
    /// The tables in whose place others come back, see [`super::succession`]: what others took out of them comes back with those.
    pub replacing: HashMap<String, String>,
    /// Hashes of the rows and objects that were gone when a step was to take them away: an earlier step of the same deployment
    /// that had one like it taken away must not bring it back unsaid. None for a redo.
    pub gone: Option<HashSet<u64>>,
    /// Such rows, which nothing can keep away.
    pub unkept: Conflicts,
    /// Columns that tables have beside those of the images, with their defaults: others made them, so that a row with
    /// a value of its own there is not only the deployment's.
    pub strangers: BTreeMap<String, Vec<Stranger>>,
    pub(super) statements: Statements<'c>,
}

/// A column that the images do not know.
#[derive(Clone, Debug)]
pub struct Stranger {
    pub name: String,
    /// As an expression.
    pub default: String,
}

impl<'c> Guard<'c> {
    pub fn new(conn: &'c Connection, label: &'c str, on_conflict: OnConflict) -> Self {
        Self {
            conn,
            label,
            on_conflict,
            known: Known::default(),
            conflicts: Conflicts::default(),
            already: Conflicts::default(),
            needed: Conflicts::default(),
            stays: false,
            notes: Vec::new(),
            carries: Vec::new(),
            uncarried: Vec::new(),
            replacing: HashMap::new(),
            gone: None,
            unkept: Conflicts::default(),
            strangers: BTreeMap::new(),
            statements: Statements::new(conn),
        }
    }

    /// Whether others took the row away that a later step of the same deployment had put back.
    pub(super) fn was_taken(&self, table: &Table, change: &Change<'_>) -> bool {
        let (Some(want), Some(gone)) = (change.want, self.gone.as_ref().filter(|gone| !gone.is_empty())) else {
            return false;
        };
        !is_nameless(table, want) && gone.contains(&of_row(table, change.new_rowid, want))
    }

    pub fn overwrites(&self) -> bool {
        self.on_conflict == OnConflict::Overwrite
    }

    /// Notes what an undo takes away and a later one could not do without, once.
    pub fn needs(&mut self, taken: Conflict) {
        if !self.needed.listed.contains(&taken) {
            self.needed.push(taken);
        }
    }

    /// Notes that a row of a table gets another key: by the one that it has the images of a later step know it.
    pub fn loses_a_key(&mut self, table: &str) {
        let is_it = |one: &Conflict| one.object == table && one.key.is_none() && one.column.is_none();
        if !self.needed.listed.iter().any(is_it) {
            self.needs(needed(self.label, table, None));
        }
    }

    /// Nothing but its content tells which row it is: nobody knows where its rowid is now.
    pub(super) fn is_adrift(&self, table: &Table, values: &[ValueRef<'_>]) -> bool {
        is_nameless(table, values) && !self.known.holds(&table.name)
    }

    /// Forgets the prepared statements: before the schema changes, and between spans, whose tables are numbered anew.
    pub fn forget_statements(&mut self) {
        self.statements.clear();
    }

    pub(super) fn failed(&self, table: &Table, source: rusqlite::Error) -> TargetError {
        TargetError::failed(format!("cannot change rows of {} in {}", table.name, self.label), source)
    }

    pub(super) fn damaged(&self, source: Damage) -> TargetError {
        TargetError::Images { target: self.label.to_owned(), what: source.to_string() }
    }

    /// Tries the change as if nobody else had been at the row.
    #[inline]
    pub fn attempt(&mut self, number: u32, table: &Table, change: &Change<'_>) -> Result<Outcome, TargetError> {
        if table.columns.iter().any(|column| column.gone) {
            return Ok(Outcome::Unexpected);
        }
        let done = match (change.expect, change.want) {
            (None, Some(_)) if self.was_taken(table, change) => return Ok(Outcome::Unexpected),
            (None, Some(want)) => return self.insert(number, table, change.new_rowid, want, false),
            (Some(expect), None) => {
                if blurred(table, expect, 0..expect.len()) || self.strangers.contains_key(&table.name) {
                    return Ok(Outcome::Unexpected);
                }
                self.statements.run(number, table, &Form::plain(Kind::Delete), |statement| {
                    let at = bind_place(statement, 1, table, change.rowid, expect)?;
                    bind_all(statement, at, written(table).map(|column| expect[column]))
                })
            }
            (Some(expect), Some(want)) => {
                // Of a table without a key all columns are compared, of one with a key only that and what changes.
                if blurred(table, expect, change.changed.iter().copied())
                    || !is_keyless(table) && self.is_adrift(table, expect)
                {
                    return Ok(Outcome::Unexpected);
                }
                let moved = change.rowid != change.new_rowid;
                let form = Form { kind: Kind::Update, changed: change.changed, moved, replace: false };
                self.statements.run(number, table, &form, |statement| {
                    let at = bind_place(statement, 1, table, change.rowid, expect)?;
                    let guarded = guarded(table, change.changed);
                    let at = bind_all(statement, at, guarded.map(|column| expect[column]))?;
                    let at = bind_all(statement, at, set(table, change.changed).map(|column| want[column]))?;
                    if moved && table.rowid_column.is_none() && table.rowid.is_some() {
                        statement.raw_bind_parameter(at, change.new_rowid)?;
                        return Ok(at + 1);
                    }
                    Ok(at)
                })
            }
            (None, None) => return Ok(Outcome::Done),
        };
        match done {
            Ok(1) => Ok(Outcome::Done),
            Ok(_) => Ok(Outcome::Unexpected),
            Err(source) if is_constraint(&source) => Ok(Outcome::Unexpected),
            Err(source) => Err(self.failed(table, source)),
        }
    }

    /// Inserts a row at its place.
    pub fn insert(
        &mut self,
        number: u32,
        table: &Table,
        rowid: i64,
        want: &[ValueRef<'_>],
        replace: bool,
    ) -> Result<Outcome, TargetError> {
        let form = Form { replace, ..Form::plain(Kind::Insert) };
        let done = self.statements.run(number, table, &form, |statement| {
            let at = bind_all(statement, 1, written(table).map(|column| want[column]))?;
            if table.rowid_column.is_none() && table.rowid.is_some() {
                statement.raw_bind_parameter(at, rowid)?;
                return Ok(at + 1);
            }
            Ok(at)
        });
        self.inserted(table, done)
    }

    /// Inserts a row at a place of SQLite's choice, where no column shows it.
    pub fn insert_anywhere(
        &mut self,
        number: u32,
        table: &Table,
        want: &[ValueRef<'_>],
        replace: bool,
    ) -> Result<Outcome, TargetError> {
        let form = Form { replace, ..Form::plain(Kind::InsertAnywhere) };
        let done = self
            .statements
            .run(number, table, &form, |statement| bind_all(statement, 1, written(table).map(|column| want[column])));
        self.inserted(table, done)
    }

    pub(super) fn inserted(&self, table: &Table, done: rusqlite::Result<usize>) -> Result<Outcome, TargetError> {
        match done {
            Ok(_) => Ok(Outcome::Done),
            Err(source) if is_constraint(&source) => Ok(Outcome::Unexpected),
            Err(source) => Err(self.failed(table, source)),
        }
    }

    /// Looks for the stored columns that a table has `now` and the images don't know.
    pub fn meet_strangers(&mut self, table: &Table, now: &Table) -> Result<(), TargetError> {
        let is_known = |name: &str| table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
        if now.columns.iter().all(|column| column.generated || is_known(&column.name)) {
            return Ok(());
        }
        let shape = schema::shape(self.conn, &table.name).map_err(|source| self.failed(table, source))?;
        let stranger = |column: &schema::Column| Stranger {
            name: column.name.clone(),
            default: column.default.clone().unwrap_or_else(|| "NULL".to_owned()),
        };
        let strangers: Vec<_> = shape.stored().filter(|column| !is_known(&column.name)).map(stranger).collect();
        self.strangers.insert(table.name.clone(), strangers);
        Ok(())
    }

    /// The columns of others in which a row has a value of its own, and that as people are shown it.
    pub(super) fn strange_values(&self, table: &Table, found: &Found) -> Result<Vec<(String, String)>, TargetError> {
        let Some(strangers) = self.strangers.get(&table.name) else { return Ok(Vec::new()) };
        let values = found.values().map_err(|source| self.damaged(source))?;
        let mut strange = Vec::new();
        for Stranger { name, default } in strangers {
            let column = quote(name);
            let mut parameters = 0;
            let place = place(table, &mut || {
                parameters += 1;
                parameters
            });
            let sql =
                format!("SELECT {column}, {column} IS ({default}) FROM main.{} WHERE {place}", quote(&table.name));
            let look = || -> rusqlite::Result<Option<String>> {
                let mut select = self.conn.prepare_cached(&sql)?;
                bind_place(&mut select, 1, table, found.rowid, &values)?;
                let mut rows = select.raw_query();
                let Some(row) = rows.next()? else { return Ok(None) };
                let own = !row.get::<_, bool>(1)?;
                Ok(if own { Some(value::shown(row.get_ref(0)?)) } else { None })
            };
            let own = look().map_err(|source| self.failed(table, source))?;
            strange.extend(own.map(|shown| (name.clone(), shown)));
        }
        Ok(strange)
    }

    /// Removes the row that was just looked at.
    pub fn remove(&mut self, number: u32, table: &Table, found: &Found) -> Result<(), TargetError> {
        let values = found.values().map_err(|source| self.damaged(source))?;
        self.statements
            .run(number, table, &Form::plain(Kind::Remove), |statement| {
                bind_place(statement, 1, table, found.rowid, &values)
            })
            .map_err(|source| self.failed(table, source))?;
        Ok(())
    }

    /// Looks for the row: at its place, else by its key, or by all it holds where it has none.
    pub fn find(
        &mut self,
        number: u32,
        table: &Table,
        rowid: i64,
        values: &[ValueRef<'_>],
    ) -> Result<Option<Found>, TargetError> {
        let found = self.look(number, table, Kind::Find, rowid, values)?;
        let adrift = self.is_adrift(table, values);
        if table.rowid_column.is_some() || table.rowid.is_none() || !adrift && is_nameless(table, values) {
            return Ok(found);
        }
        let (columns, kind) =
            if adrift { (written(table).collect::<Vec<_>>(), Kind::FindWhole) } else { (keys(table), Kind::FindByKey) };
        if let Some(found) = found {
            let there = found.values().map_err(|source| self.damaged(source))?;
            if columns.iter().all(|column| value::same(there[*column], values[*column])) {
                drop(there);
                return Ok(Some(found));
            }
        }
        self.look(number, table, kind, rowid, values)
    }

    pub(super) fn look(
        &mut self,
        number: u32,
        table: &Table,
        kind: Kind,
        rowid: i64,
        values: &[ValueRef<'_>],
    ) -> Result<Option<Found>, TargetError> {
        let look = |guard: &mut Self| -> rusqlite::Result<Option<Found>> {
            let statement = guard.statements.get(number, table, &Form::plain(kind))?;
            match kind {
                Kind::FindByKey => {
                    bind_all(statement, 1, keys(table).into_iter().map(|column| values[column]))?;
                }
                Kind::FindWhole => {
                    bind_all(statement, 1, written(table).map(|column| values[column]))?;
                }
                _ => {
                    bind_place(statement, 1, table, rowid, values)?;
                }
            }
            read(&mut statement.raw_query(), table.columns.len())
        };
        look(self).map_err(|source| self.failed(table, source))
    }
}

fn read(rows: &mut Rows<'_>, columns: usize) -> rusqlite::Result<Option<Found>> {
    let Some(row) = rows.next()? else { return Ok(None) };
    let mut bytes = Vec::new();
    for column in 1..=columns {
        value::put(&mut bytes, row.get_ref(column)?);
    }
    Ok(Some(Found { rowid: row.get(0)?, bytes }))
}
