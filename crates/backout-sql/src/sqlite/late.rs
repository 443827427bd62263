//! Rows that are taken out of a table until all others have their values: where values of a unique column change places,
//! each is in the other's way. They wait in a temporary table, on disk, each as it was and as it is to be.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, params_from_iter};

use super::carry::Bound;
use super::ddl_hold::is_constraint;
use super::guard::encoded;
use super::schema::Shape;
use super::token::quote;
use super::value;

/// A value to the bit, and as people are shown it.
type Shown = (Vec<u8>, String);

const WAS: u8 = 0;
const NOW: u8 = 1;

/// The rows of one table that wait.
pub struct Late {
    /// The table that they belong to.
    table: String,
    waiting: String,
    /// What stands in a row's place: the rowid where no column shows it, then the stored columns.
    columns: Vec<String>,
    has_place: bool,
    /// How many came to wait so far; they are numbered from 1.
    count: i64,
}

/// A value that is to be another: its column's place among the stored ones, and both as people are shown them.
pub struct Newer {
    pub place: usize,
    pub was: String,
    pub now: String,
}

/// What a constraint said against a row.
pub type Forbidden = String;

impl Late {
    pub fn of(table: &str, shape: &Shape) -> Self {
        let place = shape.rowid.filter(|_| !shape.rowid_is_column());
        let stored = shape.stored().map(|column| quote(&column.name));
        Self {
            table: format!("main.{}", quote(table)),
            waiting: format!("temp.{}", quote(&format!("backout_late {table}"))),
            columns: place.map(str::to_owned).into_iter().chain(stored).collect(),
            has_place: place.is_some(),
            count: 0,
        }
    }

    /// Takes a row out of the table. `at` is the condition that its `key` is bound to; `newer` are values that it is to
    /// have, by the places of their columns.
    pub fn park(
        &mut self,
        conn: &Connection,
        at: &str,
        key: &[ValueRef<'_>],
        newer: &[(usize, ValueRef<'_>)],
    ) -> rusqlite::Result<()> {
        let (table, waiting) = (&self.table, &self.waiting);
        if self.count == 0 {
            // Without types, so that each value stays what it is.
            let columns: Vec<String> = (0..self.columns.len()).map(|at| format!("c{at}")).collect();
            conn.execute_batch(&format!(
                "CREATE TABLE {waiting} (id INTEGER, form INTEGER, {}, PRIMARY KEY (id, form)) WITHOUT ROWID",
                columns.join(", ")
            ))?;
        }
        self.count += 1;
        let (id, columns) = (ValueRef::Integer(self.count), self.columns.join(", "));
        for form in [WAS, NOW] {
            let number = key.len() + 1;
            let sql = format!("INSERT INTO {waiting} SELECT ?{number}, {form}, {columns} FROM {table} WHERE {at}");
            conn.prepare_cached(&sql)?.execute(params_from_iter(key.iter().copied().chain([id]).map(Bound)))?;
        }
        let first = usize::from(self.has_place);
        let set: Vec<String> =
            newer.iter().zip(1..).map(|((place, _), at)| format!("c{} = ?{at}", first + place)).collect();
        let number = newer.len() + 1;
        let sql = format!("UPDATE {waiting} SET {} WHERE id = ?{number} AND form = {NOW}", set.join(", "));
        conn.prepare_cached(&sql)?
            .execute(params_from_iter(newer.iter().map(|(_, now)| *now).chain([id]).map(Bound)))?;
        conn.prepare_cached(&format!("DELETE FROM {table} WHERE {at}"))?
            .execute(params_from_iter(key.iter().copied().map(Bound)))?;
        Ok(())
    }

    /// How many wait. They are numbered from 1.
    pub fn count(&self) -> i64 {
        self.count
    }

    /// Puts a row back as it was; a constraint that forbids it is an error.
    pub fn give_up(&self, conn: &Connection, id: i64) -> rusqlite::Result<()> {
        self.insert(conn, id, WAS)
    }

    /// Puts a row back as it is to be, unless a constraint forbids it.
    pub fn give_back(&self, conn: &Connection, id: i64) -> rusqlite::Result<Result<(), Forbidden>> {
        unless_forbidden(self.insert(conn, id, NOW))
    }

    /// The values of a row that are to be others.
    pub fn newer(&self, conn: &Connection, id: i64) -> rusqlite::Result<Vec<Newer>> {
        let (was, now) = (self.values(conn, id, WAS)?, self.values(conn, id, NOW)?);
        let differs = |(_, (was, now)): &(usize, (&Shown, &Shown))| was.0 != now.0;
        let pairs = was.iter().zip(&now).enumerate().filter(differs);
        Ok(pairs.map(|(place, (was, now))| Newer { place, was: was.1.clone(), now: now.1.clone() }).collect())
    }

    /// The values of a row as people are shown them, as it was.
    pub fn shown(&self, conn: &Connection, id: i64) -> rusqlite::Result<Vec<String>> {
        Ok(self.values(conn, id, WAS)?.into_iter().map(|(_, shown)| shown).collect())
    }

    /// Lets a value of a row be what it was.
    pub fn keep_older(&self, conn: &Connection, id: i64, place: usize) -> rusqlite::Result<()> {
        let (waiting, at) = (&self.waiting, usize::from(self.has_place) + place);
        let was = format!("SELECT c{at} FROM {waiting} WHERE id = ?1 AND form = {WAS}");
        let sql = format!("UPDATE {waiting} SET c{at} = ({was}) WHERE id = ?1 AND form = {NOW}");
        conn.prepare_cached(&sql)?.execute([id]).map(drop)
    }

    /// Lets a value of a row that was given up be what it is to be, unless a constraint forbids it. `key` holds the
    /// places of the columns that tell the row.
    pub fn set(
        &self,
        conn: &Connection,
        id: i64,
        place: usize,
        key: &[usize],
    ) -> rusqlite::Result<Result<(), Forbidden>> {
        let first = usize::from(self.has_place);
        let waiting = |form: u8, place: usize| {
            format!("(SELECT c{} FROM {} WHERE id = ?1 AND form = {form})", first + place, self.waiting)
        };
        let at: Vec<String> =
            key.iter().map(|key| format!("{} IS {}", self.columns[first + key], waiting(WAS, *key))).collect();
        let sql = format!(
            "UPDATE OR ABORT {} SET {} = {} WHERE {}",
            self.table,
            self.columns[first + place],
            waiting(NOW, place),
            at.join(" AND ")
        );
        unless_forbidden(conn.prepare_cached(&sql)?.execute([id]).map(drop))
    }

    /// Nobody waits any more.
    pub fn end(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if self.count > 0 {
            conn.execute_batch(&format!("DROP TABLE {}", self.waiting))?;
            self.count = 0;
        }
        Ok(())
    }

    fn values(&self, conn: &Connection, id: i64, form: u8) -> rusqlite::Result<Vec<Shown>> {
        let sql = format!("SELECT * FROM {} WHERE id = ?1 AND form = ?2", self.waiting);
        let first = 2 + usize::from(self.has_place);
        conn.prepare_cached(&sql)?.query_row((id, form), |row| {
            let one = |at| {
                let value = row.get_ref(at)?;
                Ok((encoded(&[value]), value::shown(value)))
            };
            (first..2 + self.columns.len()).map(one).collect()
        })
    }

    fn insert(&self, conn: &Connection, id: i64, form: u8) -> rusqlite::Result<()> {
        let from: Vec<String> = (0..self.columns.len()).map(|at| format!("c{at}")).collect();
        let sql = format!(
            "INSERT OR ABORT INTO {} ({}) SELECT {} FROM {} WHERE id = ?1 AND form = ?2",
            self.table,
            self.columns.join(", "),
            from.join(", "),
            self.waiting
        );
        conn.prepare_cached(&sql)?.execute((id, form)).map(drop)
    }
}

fn unless_forbidden(done: rusqlite::Result<()>) -> rusqlite::Result<Result<(), Forbidden>> {
    match done {
        Err(error) if is_constraint(&error) => Ok(Err(error.to_string())),
        done => done.map(Ok),
    }
}
