//! The deployer's lock of a SQLite database: a holder in the marker's row, taken over only from the dead.
//!
//! SQLite's own locks end with a process's last handle, so they can't outlive a crash; this one can, and says whose
//! it is. Never takes a lock away from a process that may be alive.

use backout_model::fault::{self, Point};
use backout_model::target::TargetError;
use rusqlite::Connection;

use super::marker;
use crate::database::{Holder, LockError};
use crate::holder::{Life, life_from_here};

fn failed(label: &str, source: rusqlite::Error) -> TargetError {
    TargetError::failed(format!("cannot lock {label}"), source)
}

fn act(conn: &Connection, label: &str, sql: &str, params: impl rusqlite::Params) -> Result<usize, TargetError> {
    fault::point(Point::Statement).map_err(|source| TargetError::failed(format!("cannot lock {label}"), source))?;
    conn.execute(sql, params).map_err(|source| failed(label, source))
}

/// See [`crate::database::Database::lock`].
pub fn take(conn: &Connection, table: &str, label: &str, me: &Holder, at_least: u64) -> Result<u64, LockError> {
    super::in_transaction(conn, label, |conn| {
        marker::create(conn, table).map_err(|source| failed(label, source))?;
        let found = marker::read(conn, table).map_err(|source| failed(label, source))?.unwrap_or_default();
        if let Some(holder) = found.holder {
            match life_from_here(&holder) {
                Life::Dead => {}
                Life::Alive => return Err(LockError::Held { holder: Box::new(holder), unprovable: false }),
                Life::Unknown => return Err(LockError::Held { holder: Box::new(holder), unprovable: true }),
            }
        }
        let epoch = (found.epoch + 1).max(at_least);
        let stored = i64::try_from(epoch)
            .map_err(|source| TargetError::failed(format!("cannot lock {label}: the epoch is too large"), source))?;
        let text =
            serde_json::to_string(me).map_err(|source| TargetError::failed(format!("cannot lock {label}"), source))?;
        act(
            conn,
            label,
            &format!("UPDATE main.{table} SET epoch = ?1, holder = ?2 WHERE id = 0"),
            rusqlite::params![stored, text],
        )?;
        Ok(epoch)
    })
}

/// Gives the lock of `epoch` back; nothing happens where another has taken it over.
pub fn give_back(conn: &Connection, table: &str, label: &str, epoch: u64) -> Result<(), TargetError> {
    super::in_transaction(conn, label, |conn| {
        if marker::read(conn, table).map_err(|source| failed(label, source))?.is_some() {
            let stored = i64::try_from(epoch).unwrap_or(i64::MAX);
            act(conn, label, &format!("UPDATE main.{table} SET holder = NULL WHERE id = 0 AND epoch = ?1"), [stored])?;
        }
        Ok(())
    })
}

/// Takes the lock away from `holder`; the epoch goes up, so that it can't commit any more. False where the lock is not
/// that holder's any more.
pub fn break_open(conn: &Connection, table: &str, label: &str, holder: &Holder) -> Result<bool, TargetError> {
    super::in_transaction(conn, label, |conn| {
        let found = marker::read(conn, table).map_err(|source| failed(label, source))?;
        if found.and_then(|marker| marker.holder).as_ref() != Some(holder) {
            return Ok(false);
        }
        act(conn, label, &format!("UPDATE main.{table} SET holder = NULL, epoch = epoch + 1 WHERE id = 0"), [])?;
        Ok(true)
    })
}
