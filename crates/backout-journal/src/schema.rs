//! The tables of `journal.db`, their format version, and how a connection to them is set up.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backout_model::fault::{self, Point};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::error::JournalError;
use crate::layout::Layout;

/// The format that this version writes. A journal of a higher one is refused.
pub(crate) const FORMAT: u32 = 1;

/// `bkot`: marks the file as a journal of this tool (file(1), `PRAGMA application_id`).
const APPLICATION_ID: i64 = 0x626b_6f74;

/// To how many bytes the write-ahead log shrinks when it starts anew.
const LOG_KEPT: u32 = 8 * 1024 * 1024;

/// How long a lock of the database itself is waited for: a reader's recovery or checkpoint, never a deployer.
const BUSY: Duration = Duration::from_secs(10);

/// The tables of [`FORMAT`], told column by column there.
const TABLES: &str = include_str!("schema.sql");

/// Opens the journal for its one writer, making the tables where the file is empty.
pub(crate) fn open_writer(layout: &Layout, now_ms: i64) -> Result<Connection, JournalError> {
    let path = layout.journal();
    let mut connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Before anything is set: a file that is not a journal stays as it is.
    let fresh = !check_format(&connection, &path)?;
    set_up_writer(&mut connection, fresh, now_ms)?;
    Ok(connection)
}

/// Opens the journal for reading; `None` where nothing was ever written to it.
pub(crate) fn open_reader(layout: &Layout) -> Result<Option<Connection>, JournalError> {
    let path = layout.journal();
    let failed = |error| JournalError::io(format!("open the journal {}", path.display()), error);
    match fs::metadata(&path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    let opened = connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|connection| Ok((check_format(&connection, &path)?, connection)));
    let (written, connection) = match opened {
        Ok(opened) => opened,
        // Even a reader makes the shared-memory file of the write-ahead log. Where it can't (a full or read-only
        // disk) no writer can be at work either; so without a log the file is read as it is.
        Err(JournalError::Database { .. } | JournalError::NoSpace { .. }) if !has_log(layout).map_err(failed)? => {
            let connection = connect(&immutable(&path), OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)?;
            (check_format(&connection, &path)?, connection)
        }
        Err(error) => return Err(error),
    };
    Ok(written.then_some(connection))
}

fn has_log(layout: &Layout) -> io::Result<bool> {
    match fs::metadata(layout.state().join("journal.db-wal")) {
        Ok(found) => Ok(found.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The URI by which SQLite reads a file without locks and without its log (sqlite.org/uri.html).
fn immutable(path: &Path) -> PathBuf {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri.into()
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, JournalError> {
    let act = || format!("open the journal {}", path.display());
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|e| JournalError::database(act(), e))?;
    connection.busy_timeout(BUSY).map_err(|e| JournalError::database(act(), e))?;
    // What a damaged or foreign file declares must not run anything, and a damaged page is an error, not a guess.
    connection
        .execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")
        .map_err(|e| JournalError::database(act(), e))?;
    Ok(connection)
}

/// False where the file is empty.
fn check_format(connection: &Connection, path: &Path) -> Result<bool, JournalError> {
    let not_a_journal = |what: &str| JournalError::NotAJournal { path: path.to_owned(), what: what.to_owned() };
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => not_a_journal("it is no SQLite database"),
        _ => JournalError::database(format!("read the journal {}", path.display()), error),
    };
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if objects == 0 {
        return Ok(false);
    }
    let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(failed)?;
    if application != APPLICATION_ID {
        return Err(not_a_journal("it is another program's database"));
    }
    let format: String = connection
        .query_row("SELECT value FROM meta WHERE key = 'format'", [], |row| row.get(0))
        .map_err(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => not_a_journal("it does not say its format"),
            other => failed(other),
        })?;
    match format.parse::<u64>() {
        Ok(found) if found == u64::from(FORMAT) => Ok(true),
        Ok(found) if found > u64::from(FORMAT) => {
            Err(JournalError::NewerFormat { path: path.to_owned(), found, known: FORMAT })
        }
        _ => Err(not_a_journal("its format is not a version that ever was")),
    }
}

fn set_up_writer(connection: &mut Connection, fresh: bool, now_ms: i64) -> Result<(), JournalError> {
    let act = "set up the journal";
    let failed = |error| JournalError::database(act, error);
    if fresh {
        fault::point(Point::JournalWrite).map_err(|e| JournalError::io(act, e))?;
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(JournalError::Damaged {
            what: format!("the file system of the state directory allows no write-ahead log (journal mode {mode})"),
        });
    }
    let synchronous = if fault::syncs_issued() { "FULL" } else { "OFF" };
    // Dropped images hold people's data: their bytes are overwritten, not only unlinked.
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = {synchronous}; PRAGMA secure_delete = ON;
             PRAGMA journal_size_limit = {LOG_KEPT};"
        ))
        .map_err(failed)?;
    if fresh {
        fault::point(Point::JournalWrite).map_err(|e| JournalError::io(act, e))?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        transaction.execute_batch(TABLES).map_err(failed)?;
        transaction
            .execute(
                "INSERT INTO meta (key, value) VALUES ('format', ?1), ('created_ms', ?2)",
                [FORMAT.to_string(), now_ms.to_string()],
            )
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}
