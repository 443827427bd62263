//! A full, exact copy of a database as it is before a command runs, by which is found afterwards what the command
//! changed. Made by SQLite's own backup, page by page; never opens a file of the database by itself.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backout_model::fault::{self, Point};
use backout_model::target::{Refusal, TargetError};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::classify::is_ours;
use super::schema::SchemaRow;
use super::{Sqlite, ddl_hold, limits, marker, schema};

/// The copy's file in the directory that it is given.
const COPY: &str = "before.sqlite";
/// Pages that are copied between two looks.
const PAGES: i32 = 4096;

/// Where the copy is.
pub fn copy_in(directory: &Path) -> PathBuf {
    directory.join(COPY)
}

/// Opens the copy, for reading alone.
pub fn open(directory: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(copy_in(directory), flags)
}

impl Sqlite {
    /// The size of the database, and so of a copy, in bytes.
    pub(super) fn size(&self) -> Result<u64, TargetError> {
        let pragma = |name: &str| self.conn.query_row(&format!("PRAGMA main.{name}"), [], |row| row.get::<_, i64>(0));
        let size = || -> rusqlite::Result<i64> { Ok(pragma("page_count")?.saturating_mul(pragma("page_size")?)) };
        let size = size().map_err(|source| TargetError::failed(format!("cannot read {}", self.label), source))?;
        Ok(size.unsigned_abs())
    }

    /// See [`backout_model::target::Target::snapshot`].
    pub(super) fn copy_into(&mut self, directory: &Path) -> Result<(), TargetError> {
        let act = format!("cannot copy {} into {}", self.label, directory.display());
        let on_disk = |source: std::io::Error| TargetError::failed(act.clone(), source);
        let in_sqlite = |source: rusqlite::Error| TargetError::failed(act.clone(), source);
        let path = copy_in(directory);
        fault::point(Point::Stage).map_err(on_disk)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(on_disk(error)),
            Ok(()) | Err(_) => {}
        }
        // While this reads, nobody's commit makes it begin again.
        self.conn.execute_batch("BEGIN").map_err(in_sqlite)?;
        let copied = copy(&self.conn, &path);
        super::roll_back(&self.conn, &self.label)?;
        copied.map_err(in_sqlite)?;
        fault::point(Point::Sync).map_err(on_disk)?;
        if fault::syncs_issued() {
            File::open(&path).and_then(|file| file.sync_all()).map_err(on_disk)?;
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(on_disk)?;
        }
        Ok(())
    }
}

impl Sqlite {
    /// Refuses where the database holds a table whose rows or definition no step could bring back.
    pub(super) fn is_comparable(&self) -> Result<(), TargetError> {
        let reading = |source| TargetError::failed(format!("cannot read the schema of {}", self.label), source);
        limits::readable(&self.conn, &self.label, &self.label)?;
        let all = schema::all(&self.conn).map_err(reading)?;
        for table in all.iter().filter(|row| row.kind == "table" && row.rootpage > 0 && !is_ours(&row.name)) {
            let why = match limits::alike(&self.conn, &table.name).map_err(reading)? {
                Some(why) => why,
                None if table.name.starts_with("sqlite_") => continue,
                None => {
                    let rows: Vec<SchemaRow> = all.iter().filter(|row| row.table == table.name).cloned().collect();
                    if ddl_hold::is_understood(&rows) && !rows.iter().any(|row| row.is_raw) {
                        continue;
                    }
                    format!("the definition of {} has a form that is not understood", table.name)
                }
            };
            return Err(TargetError::Refused(Refusal {
                place: self.label.clone(),
                what: table.shown(),
                why: format!("{why}: a command that drops or changes it could not be undone"),
                ways_out: vec!["give the step an undo of its own: `undo: [a command]`".to_owned()],
            }));
        }
        Ok(())
    }

    /// See [`backout_model::target::Target::put_back_whole`]. In one transaction of SQLite; the lock stays this process's.
    pub(super) fn copy_back(&mut self, directory: &Path) -> Result<(), TargetError> {
        let act = format!("cannot put {} back as it was", self.label);
        let failed = |source: rusqlite::Error| TargetError::failed(act.clone(), source);
        self.reconnect()?;
        let epoch = self.epoch.unwrap_or_default();
        let lock = marker::read(&self.conn, &self.marker).map_err(failed)?;
        // A command may have taken the lock away with everything else; another deployer has one of its own.
        if lock.as_ref().is_some_and(|lock| lock.epoch != epoch) {
            return Err(TargetError::LockLost(self.label.clone()));
        }
        let holder = lock.and_then(|lock| lock.holder).and_then(|holder| serde_json::to_string(&holder).ok());
        let epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
        fault::point(Point::Commit).map_err(|source| TargetError::failed(act.clone(), source))?;
        let before = open(directory).map_err(failed)?;
        let backup = Backup::new(&before, &mut self.conn).map_err(failed)?;
        let until = Instant::now() + Duration::from_millis(super::BUSY_MS);
        loop {
            match backup.step(-1).map_err(failed)? {
                StepResult::Done => break,
                StepResult::More => {}
                _ if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
                _ => return Err(TargetError::failed(act.clone(), "another program holds it")),
            }
        }
        drop(backup);
        let sql = format!("UPDATE main.{} SET epoch = ?1, holder = coalesce(?2, holder) WHERE id = 0", self.marker);
        self.conn.execute(&sql, rusqlite::params![epoch, holder]).map_err(failed)?;
        self.reconnect()
    }
}

/// Copies what the connection reads into a file that is not there yet; `conn` reads in a transaction.
pub(super) fn copy(conn: &Connection, path: &Path) -> rusqlite::Result<()> {
    let version: i64 = conn.query_row("PRAGMA main.schema_version", [], |row| row.get(0))?;
    let mut to = Connection::open(path)?;
    // The file is synced as a whole, and given up where that is not reached.
    to.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF;")?;
    let backup = Backup::new(conn, &mut to)?;
    let ended = loop {
        match backup.step(PAGES)? {
            StepResult::More => {}
            ended => break ended,
        }
    };
    drop(backup);
    if ended != StepResult::Done {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(rusqlite::Error::SqliteFailure(busy, Some("another program holds it".to_owned())));
    }
    // A backup counts it up, and by it is known whether somebody else changed the schema.
    to.execute_batch(&format!("PRAGMA schema_version = {version}"))?;
    to.close().map_err(|(_, error)| error)
}
