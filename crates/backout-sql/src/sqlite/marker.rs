//! The marker: one row that says which step was the last to commit, and under which epoch of the lock.
//!
//! It is written in the transaction of the change itself and nowhere else, so that it never says more or less than
//! what happened.

use backout_model::target::{TargetError, Ticket};
use rusqlite::{Connection, OptionalExtension as _};

use crate::database::Holder;

/// What the marker's row says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marker {
    pub epoch: u64,
    pub seq: u64,
    pub holder: Option<Holder>,
}

/// Makes the marker's table where it is missing, or of an older form.
pub fn create(conn: &Connection, table: &str) -> rusqlite::Result<()> {
    conn.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {table} (id INTEGER PRIMARY KEY CHECK (id = 0), epoch INTEGER NOT NULL, seq INTEGER NOT NULL, holder TEXT, numbering TEXT);
         INSERT OR IGNORE INTO {table} (id, epoch, seq) VALUES (0, 0, 0)"
    ))?;
    let is_old = "SELECT NOT EXISTS (SELECT 1 FROM pragma_table_info(?1, 'main') WHERE name = 'numbering')";
    if conn.query_row(is_old, [table], |row| row.get(0))? {
        conn.execute_batch(&format!("ALTER TABLE main.{table} ADD COLUMN numbering TEXT"))?;
    }
    Ok(())
}

/// What the marker says; `None` where this site was never locked here.
pub fn read(conn: &Connection, table: &str) -> rusqlite::Result<Option<Marker>> {
    let there = conn
        .query_row("SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1", [table], |_| Ok(()))
        .optional()?;
    if there.is_none() {
        return Ok(None);
    }
    conn.query_row(&format!("SELECT epoch, seq, holder FROM main.{table} WHERE id = 0"), [], |row| {
        let holder: Option<String> = row.get(2)?;
        Ok(Marker {
            epoch: row.get::<_, i64>(0)?.max(0) as u64,
            seq: row.get::<_, i64>(1)?.max(0) as u64,
            // A holder that does not parse was not written by this tool: it holds nothing.
            holder: holder.and_then(|text| serde_json::from_str(&text).ok()),
        })
    })
    .optional()
}

/// Writes the ticket into the marker of the open transaction, and how rows are numbered now; an error where the lock's
/// epoch is no longer ours.
pub fn stamp(conn: &Connection, table: &str, label: &str, ticket: Ticket, numbering: &str) -> Result<(), TargetError> {
    let failed = |source: rusqlite::Error| TargetError::failed(format!("cannot mark the step in {label}"), source);
    let (Ok(seq), Ok(epoch)) = (i64::try_from(ticket.seq), i64::try_from(ticket.epoch)) else {
        return Err(TargetError::failed(format!("cannot mark the step in {label}"), "its number is too large"));
    };
    if read(conn, table).map_err(failed)?.is_none() {
        return Err(TargetError::LockLost(label.to_owned()));
    }
    let changed = conn
        .execute(
            &format!("UPDATE main.{table} SET seq = ?1, numbering = ?3 WHERE id = 0 AND epoch = ?2"),
            rusqlite::params![seq, epoch, numbering],
        )
        .map_err(failed)?;
    if changed == 1 { Ok(()) } else { Err(TargetError::LockLost(label.to_owned())) }
}

/// Writes into the marker of the open transaction how rows are numbered now, where nothing of a step is done.
pub fn note(conn: &Connection, table: &str, label: &str, numbering: &str) -> Result<(), TargetError> {
    conn.execute(&format!("UPDATE main.{table} SET numbering = ?1 WHERE id = 0"), [numbering])
        .map(drop)
        .map_err(|source| TargetError::failed(format!("cannot mark what is given up in {label}"), source))
}

/// Sets the marker back to an entry of a history that does not know the ones after it.
pub fn set_back(conn: &Connection, table: &str, label: &str, seq: u64) -> Result<(), TargetError> {
    let failed =
        |source: rusqlite::Error| TargetError::failed(format!("cannot set the marker of {label} back"), source);
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    conn.execute(&format!("UPDATE main.{table} SET seq = min(seq, ?1) WHERE id = 0"), [seq]).map(drop).map_err(failed)
}

/// An error where the lock that was taken as `epoch` is no longer ours; without a lock there is none to lose.
pub fn holds(conn: &Connection, table: &str, label: &str, epoch: Option<u64>) -> Result<(), TargetError> {
    let Some(epoch) = epoch else { return Ok(()) };
    let found = read(conn, table)
        .map_err(|source| TargetError::failed(format!("cannot read the marker of {label}"), source))?;
    if found.is_some_and(|marker| marker.epoch == epoch) {
        Ok(())
    } else {
        Err(TargetError::LockLost(label.to_owned()))
    }
}
