//! A full, exact copy of a database as it is before a command runs, by which is found afterwards what the command
//! changed. Made by SQLite's own backup, page by page; never opens a file of the database by itself.

use std::fs::File;
use std::path::{Path, PathBuf};

use backout_model::fault::{self, Point};
use backout_model::target::TargetError;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::Sqlite;

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

fn copy(conn: &Connection, path: &Path) -> rusqlite::Result<()> {
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
