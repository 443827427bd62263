//! SQLite: one file, one connection, one transaction a step.
//!
//! A step's images go to the journal through the gate; the marker commits with the change itself. Never changes the
//! user's database outside a transaction that asserts the lock's epoch, and never leaves a PRAGMA behind.

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backout_model::conflict::{Conflict, OnConflict};
use backout_model::fault::{self, Point};
use backout_model::target::{
    Described, Finding, Gate, Images, Manner, Probe, Report, Snapshot, Summary, Target, TargetError, Ticket, Touched,
};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::database::{Bounds, Database, Holder, LockError, Planner, Script};
use crate::holder::sanitised;
use crate::recorded::{Drafted, Drafting};

mod ailing;
mod apply;
mod beside;
mod by_script;
mod capture;
mod carry;
mod carry_late;
mod check;
mod classify;
mod compared;
mod compared_rebuilt;
mod compared_rows;
mod compared_schema;
mod copying;
mod counters;
mod courses;
mod ddl;
mod ddl_column;
mod ddl_empty;
mod ddl_event;
mod ddl_hold;
mod ddl_orphans;
mod ddl_redo;
mod ddl_rename;
mod ddl_side;
mod ddl_undo;
mod definition;
mod dependents;
mod describe;
mod draft;
mod draft_proof;
mod draft_rows;
mod draft_tables;
mod encoding;
mod examine;
mod fallen;
mod foreign;
mod form;
mod fts;
mod guard;
mod hangers;
mod head;
mod held;
mod late;
mod lessons;
mod limits;
mod lock;
mod marker;
mod meets;
mod namesakes;
mod naming;
mod needed;
mod net;
mod numbering;
mod plan;
mod pragma;
mod redo;
mod replay;
mod rivals;
mod same_key;
mod schema;
mod script;
mod script_rows;
mod settle;
mod snapshot;
mod spared;
mod split;
mod stream;
mod succession;
mod survive;
mod token;
mod touched;
mod twice;
mod twin;
mod undo;
mod value;
mod verify;
mod watch;
mod wrapping;
mod writer;

/// How long to wait for another writer, or for readers at the commit, before giving up.
const BUSY_MS: u64 = 10_000;
/// The page cache of our connection: large enough that a big step seldom spills, small against the bound of memory.
const CACHE_KIB: i64 = 32 * 1024;

/// Which database, for which site.
#[derive(Clone, Debug)]
pub struct Options {
    pub site: String,
    /// Its name in `site.yaml`.
    pub name: String,
    pub path: PathBuf,
    /// Make the file where it is missing.
    pub create: bool,
}

/// A SQLite database of a site.
pub struct Sqlite {
    options: Options,
    conn: Connection,
    label: String,
    /// The marker's table, `backout_<site>`.
    marker: String,
    /// What the names of everything else begin with: `backout_<site>_`.
    prefix: String,
    /// Of the lock that this process took.
    epoch: Option<u64>,
    succession: RefCell<succession::Succession>,
}

impl Sqlite {
    /// Opens the database; an error where it is missing (unless `create`) or no database.
    pub fn open(options: Options) -> Result<Self, TargetError> {
        let label = format!("database {}", options.name);
        let conn = connect(&options.path, options.create, &label)?;
        let marker = format!("backout_{}", sanitised(&options.site));
        Ok(Self {
            conn,
            label,
            prefix: format!("{marker}_"),
            marker,
            options,
            epoch: None,
            succession: RefCell::default(),
        })
    }

    /// A fresh connection, for a state that only a new one is sure to have.
    fn reconnect(&mut self) -> Result<(), TargetError> {
        self.conn = connect(&self.options.path, false, &self.label)?;
        Ok(())
    }

    fn damaged(&self, source: stream::StreamError) -> TargetError {
        TargetError::Images { target: self.label.clone(), what: source.to_string() }
    }
}

fn connect(path: &Path, create: bool, label: &str) -> Result<Connection, TargetError> {
    let failed =
        |source: rusqlite::Error| TargetError::failed(format!("cannot open {label} at {}", path.display()), source);
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    // The bundled library would take a path that begins with `file:` for a URI.
    let plain = if path.is_absolute() { path.to_owned() } else { Path::new(".").join(path) };
    let conn = Connection::open_with_flags(plain, flags).map_err(failed)?;
    conn.busy_timeout(Duration::from_millis(BUSY_MS)).map_err(failed)?;
    conn.execute_batch(&format!("PRAGMA foreign_keys = OFF; PRAGMA cache_size = -{CACHE_KIB};")).map_err(failed)?;
    if !fault::syncs_issued() {
        conn.execute_batch("PRAGMA synchronous = OFF;").map_err(failed)?;
    }
    // The first read: a file that is no database says so now.
    conn.query_row("PRAGMA main.schema_version", [], |row| row.get::<_, i64>(0)).map_err(failed)?;
    Ok(conn)
}

/// Runs `work` in a transaction that holds the write lock from the start; commits what succeeds, takes back the rest.
/// `work` may have ended the transaction itself.
fn in_transaction<T, E: From<TargetError>>(
    conn: &Connection,
    label: &str,
    work: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    begin(conn, label)?;
    let done = work(conn).and_then(|value| {
        if !conn.is_autocommit() {
            fault::point(Point::Commit)
                .map_err(|source| TargetError::failed(format!("cannot commit to {label}"), source))?;
            conn.execute_batch("COMMIT")
                .map_err(|source| TargetError::failed(format!("cannot commit to {label}"), source))?;
            fault::point(Point::Committed)
                .map_err(|source| TargetError::failed(format!("a commit to {label} was interrupted"), source))?;
        }
        Ok(value)
    });
    if done.is_err() {
        roll_back(conn, label)?;
    }
    done
}

fn begin(conn: &Connection, label: &str) -> Result<(), TargetError> {
    conn.execute_batch("BEGIN IMMEDIATE").map_err(|source| {
        let busy = source.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy);
        let why = if busy {
            format!(": another program has been writing to it for {} s", BUSY_MS / 1000)
        } else {
            String::new()
        };
        TargetError::failed(format!("cannot begin a transaction in {label}{why}"), source)
    })
}

fn roll_back(conn: &Connection, label: &str) -> Result<(), TargetError> {
    // Some errors (a full disk) have rolled back already.
    if conn.is_autocommit() {
        return Ok(());
    }
    conn.execute_batch("ROLLBACK").map_err(|source| TargetError::failed(format!("cannot roll back {label}"), source))
}

impl Target for Sqlite {
    fn label(&self) -> String {
        self.label.clone()
    }

    fn undo(&mut self, images: &mut dyn Images, manner: Manner, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.undo_step(images, manner, gate)
    }

    fn redo(&mut self, images: &mut dyn Images, manner: Manner, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.redo_step(images, manner, gate)
    }

    fn check_undo(
        &mut self,
        steps: &mut dyn Iterator<Item = Box<dyn Images>>,
        on_conflict: OnConflict,
    ) -> Result<Report, TargetError> {
        self.check_undo_steps(steps, on_conflict)
    }

    fn meets(&mut self, images: &mut dyn Images, conflicts: &[Conflict]) -> Result<Vec<bool>, TargetError> {
        self.meets_step(images, conflicts)
    }

    fn touched(
        &mut self,
        images: &mut dyn Images,
        each: &mut dyn FnMut(&Touched<'_>) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        self.touched_by(images, each)
    }

    fn probe(&mut self, ticket: Ticket, _images: &mut dyn Images) -> Result<Probe, TargetError> {
        let found = marker::read(&self.conn, &self.marker)
            .map_err(|source| TargetError::failed(format!("cannot read the marker of {}", self.label), source))?;
        Ok(if found.is_some_and(|marker| marker.seq >= ticket.seq) { Probe::Applied } else { Probe::NotApplied })
    }

    fn describe(&mut self, images: &mut dyn Images, each: &mut dyn FnMut(Described)) -> Result<(), TargetError> {
        self.describe_step(images, each)
    }

    fn verify(&mut self, images: &mut dyn Images, applied: bool) -> Result<Vec<Finding>, TargetError> {
        self.verify_step(images, applied)
    }

    fn forget(&mut self, images: &mut dyn Images) -> Result<(), TargetError> {
        self.forget_step(images)
    }

    fn snapshot_size(&mut self) -> Result<Option<Summary>, TargetError> {
        self.is_comparable()?;
        Ok(Some(Summary { changes: 1, bytes: self.size()?, ..Summary::default() }))
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<Value, TargetError> {
        self.copy_into(&snapshot.directory).map(|()| Value::Null)
    }

    fn compare(&mut self, snapshot: &Snapshot, shown: &str, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.compare_with(&snapshot.directory, shown, gate)
    }

    fn put_back_whole(&mut self, snapshot: &Snapshot) -> Result<(), TargetError> {
        self.copy_back(&snapshot.directory)
    }

    fn examine(&mut self) -> Result<Vec<Finding>, TargetError> {
        self.examine_database()
    }
}

impl Database for Sqlite {
    fn engine(&self) -> &'static str {
        "sqlite"
    }

    fn lock(&mut self, me: &Holder, at_least: u64) -> Result<u64, LockError> {
        let epoch = lock::take(&self.conn, &self.marker, &self.label, me, at_least)?;
        self.epoch = Some(epoch);
        Ok(epoch)
    }

    fn unlock(&mut self) -> Result<(), TargetError> {
        match self.epoch.take() {
            Some(epoch) => lock::give_back(&self.conn, &self.marker, &self.label, epoch),
            None => Ok(()),
        }
    }

    fn holder(&mut self) -> Result<Option<Holder>, TargetError> {
        let found = marker::read(&self.conn, &self.marker)
            .map_err(|source| TargetError::failed(format!("cannot read the lock of {}", self.label), source))?;
        Ok(found.and_then(|marker| marker.holder))
    }

    fn break_lock(&mut self, holder: &Holder) -> Result<bool, TargetError> {
        lock::break_open(&self.conn, &self.marker, &self.label, holder)
    }

    fn last_mark(&mut self) -> Result<Option<Ticket>, TargetError> {
        let found = marker::read(&self.conn, &self.marker)
            .map_err(|source| TargetError::failed(format!("cannot read the marker of {}", self.label), source))?;
        Ok(found.map(|marker| Ticket { seq: marker.seq, epoch: marker.epoch }))
    }

    fn set_mark(&mut self, seq: u64) -> Result<(), TargetError> {
        in_transaction(&self.conn, &self.label, |conn| {
            marker::holds(conn, &self.marker, &self.label, self.epoch)?;
            marker::set_back(conn, &self.marker, &self.label, seq)
        })
    }

    fn planner(&mut self) -> Result<Box<dyn Planner + '_>, TargetError> {
        Ok(Box::new(plan::SchemaClone::of(&self.conn, &self.label)?))
    }

    fn apply(&mut self, script: &Script, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.apply_script(script, gate)
    }

    fn value(&mut self, sql: &str, bounds: &Bounds) -> Result<Option<String>, TargetError> {
        self.one_value(sql, bounds)
    }

    fn never_a_value(&mut self, sql: &str) -> Result<Option<String>, TargetError> {
        Ok(self.why_never_a_value(sql))
    }

    fn definition(&mut self, object: &str) -> Result<Option<String>, TargetError> {
        self.definition_now(object)
    }

    fn statements(
        &mut self,
        images: &mut dyn Images,
        each: &mut dyn FnMut(&str, &str) -> io::Result<()>,
    ) -> Result<(), TargetError> {
        let mut outcome = Ok(());
        self.describe_step(images, &mut |described| {
            if outcome.is_ok() {
                outcome = each(&described.place, &described.change);
            }
        })?;
        outcome.map_err(|source| TargetError::failed(format!("cannot write the script for {}", self.label), source))
    }

    fn undo_script(
        &mut self,
        steps: &mut dyn Iterator<Item = Box<dyn Images>>,
        out: &mut dyn Write,
    ) -> Result<Vec<String>, TargetError> {
        self.script_of_undo(steps, out)
    }

    fn draft(&mut self, snapshot: &Snapshot, drafting: &mut Drafting<'_>) -> Result<Drafted, TargetError> {
        self.draft_since(&snapshot.directory, drafting)
    }

    fn own_objects(&mut self) -> Result<Vec<String>, TargetError> {
        self.own_names()
    }
}

/// The last acts of a step, whose work is done in the open transaction: announce it, mark it, commit it. `numbering`: for
/// the marker.
fn seal(
    conn: &Connection,
    marker: &str,
    label: &str,
    numbering: &str,
    summary: &Summary,
    gate: &mut dyn Gate,
) -> Result<Ticket, TargetError> {
    let failed = |source: std::io::Error| TargetError::failed(format!("cannot commit to {label}"), source);
    let ticket = gate.announce(summary)?;
    fault::point(Point::Statement).map_err(failed)?;
    marker::stamp(conn, marker, label, ticket, numbering)?;
    fault::point(Point::Commit).map_err(failed)?;
    conn.execute_batch("COMMIT").map_err(|source| TargetError::failed(format!("cannot commit to {label}"), source))?;
    fault::point(Point::Committed)
        .map_err(|source| TargetError::failed(format!("a commit to {label} was interrupted"), source))?;
    Ok(ticket)
}
