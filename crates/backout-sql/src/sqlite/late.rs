//! Rows that are taken out of a table until all others have their values: where values of a unique column change places,
//! each is in the other's way. They wait in a temporary table, on disk, each as it was and as it is to be.

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row, params_from_iter};

use super::carry::Bound;
use super::ddl_hold::is_constraint;
use super::schema::Shape;
use super::token::quote;

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

/// A row that a constraint does not let be as it is to be: the values of its stored columns.
pub struct Waiting {
    pub was: Vec<Value>,
    pub now: Vec<Value>,
    /// It is in the table as it is to be, and only breaks a check there.
    pub is_now: bool,
}

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

    /// Puts the rows back as they are to be. Returns the numbers of those that a constraint forbids.
    pub fn bring_back(&mut self, conn: &Connection) -> rusqlite::Result<Vec<i64>> {
        let mut forbidden = Vec::new();
        for id in 1..=self.count {
            match self.insert(conn, id, NOW) {
                Ok(()) => {}
                Err(error) if is_constraint(&error) => forbidden.push(id),
                Err(error) => return Err(error),
            }
        }
        Ok(forbidden)
    }

    /// Puts a row back without heed to checks, as it is to be where nothing else forbids that, else as it was.
    pub fn give_in(&self, conn: &Connection, id: i64) -> rusqlite::Result<Waiting> {
        let is_now = match self.insert(conn, id, NOW) {
            Ok(()) => true,
            Err(error) if is_constraint(&error) => false,
            Err(error) => return Err(error),
        };
        if !is_now {
            self.insert(conn, id, WAS)?;
        }
        let first = 2 + usize::from(self.has_place);
        let values = |row: &Row<'_>| (first..2 + self.columns.len()).map(|at| row.get(at)).collect();
        let mut select = conn.prepare_cached(&format!("SELECT * FROM {} WHERE id = ?1 AND form = ?2", self.waiting))?;
        let mut get = |form| select.query_row((id, form), values);
        Ok(Waiting { was: get(WAS)?, now: get(NOW)?, is_now })
    }

    /// Nobody waits any more.
    pub fn end(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if self.count > 0 {
            conn.execute_batch(&format!("DROP TABLE {}", self.waiting))?;
            self.count = 0;
        }
        Ok(())
    }

    fn insert(&self, conn: &Connection, id: i64, form: u8) -> rusqlite::Result<()> {
        let from: Vec<String> = (0..self.columns.len()).map(|at| format!("c{at}")).collect();
        let sql = format!(
            "INSERT INTO {} ({}) SELECT {} FROM {} WHERE id = ?1 AND form = ?2",
            self.table,
            self.columns.join(", "),
            from.join(", "),
            self.waiting
        );
        conn.prepare_cached(&sql)?.execute((id, form)).map(drop)
    }
}
