//! The marker: one row that says which step was the last to commit, and under which epoch of the lock.
//!
//! It is written in the transaction of the change itself and nowhere else, so that it never says more or less than
//! what happened.

use backout_model::target::{TargetError, Ticket};
use postgres::Error;

use super::place::Place;
use super::session::{Session, literal};
use crate::database::Holder;

/// What the marker's row says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marker {
    pub epoch: u64,
    pub seq: u64,
    pub holder: Option<Holder>,
}

/// Makes the marker's table where it is missing.
pub fn create(session: &mut Session, place: &Place) -> Result<(), Error> {
    let table = place.object("marker");
    session.run(&format!(
        "CREATE TABLE IF NOT EXISTS {table} (id integer PRIMARY KEY CHECK (id = 0), epoch bigint NOT NULL, seq bigint NOT NULL, holder text);
         INSERT INTO {table} (id, epoch, seq) VALUES (0, 0, 0) ON CONFLICT DO NOTHING"
    ))
}

/// What the marker says; `lock` keeps others from changing it until the transaction ends.
pub fn read(session: &mut Session, place: &Place, lock: bool) -> Result<Option<Marker>, Error> {
    let end = if lock { " FOR UPDATE" } else { "" };
    let sql = format!("SELECT epoch, seq, holder FROM {} WHERE id = 0{end}", place.object("marker"));
    Ok(session.rows(&sql)?.into_iter().next().map(|row| {
        let number = |at: usize| row[at].as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
        Marker {
            epoch: number(0),
            seq: number(1),
            // A holder that does not parse was not written by this tool: it holds nothing.
            holder: row[2].as_deref().and_then(|text| serde_json::from_str(text).ok()),
        }
    }))
}

/// Writes who holds the lock.
pub fn hold(session: &mut Session, place: &Place, epoch: u64, holder: Option<&Holder>) -> Result<(), Error> {
    let text = holder.and_then(|holder| serde_json::to_string(holder).ok());
    let text = text.map_or_else(|| "NULL".to_owned(), |text| literal(&text));
    session.run(&format!("UPDATE {} SET epoch = {epoch}, holder = {text} WHERE id = 0", place.object("marker")))
}

/// Writes the ticket into the marker of the open transaction; an error where the lock's epoch is no longer ours.
pub fn stamp(session: &mut Session, place: Option<&Place>, label: &str, ticket: Ticket) -> Result<(), TargetError> {
    let lost = || TargetError::LockLost(label.to_owned());
    let sql = format!(
        "UPDATE {} SET seq = {} WHERE id = 0 AND epoch = {}",
        place.ok_or_else(lost)?.object("marker"),
        ticket.seq,
        ticket.epoch
    );
    let changed = session
        .count(&sql)
        .map_err(|source| TargetError::failed(format!("cannot mark the step in {label}"), source))?;
    if changed == 1 { Ok(()) } else { Err(lost()) }
}

/// Sets the marker back to an entry of a history that does not know the ones after it; an error where the lock that was
/// taken as `epoch` is no longer ours.
pub fn set_back(
    session: &mut Session,
    place: Option<&Place>,
    label: &str,
    epoch: Option<u64>,
    seq: u64,
) -> Result<(), TargetError> {
    let lost = || TargetError::LockLost(label.to_owned());
    let (Some(place), Some(epoch)) = (place, epoch) else { return Err(lost()) };
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    let sql = format!(
        "UPDATE {} SET seq = least(seq, {seq}::bigint) WHERE id = 0 AND epoch = {epoch}",
        place.object("marker")
    );
    let changed = session
        .count(&sql)
        .map_err(|source| TargetError::failed(format!("cannot set the marker of {label} back"), source))?;
    if changed == 1 { Ok(()) } else { Err(lost()) }
}

/// An error where the lock that was taken as `epoch` is no longer ours; without a lock there is none to lose.
pub fn holds(session: &mut Session, place: Option<&Place>, label: &str, epoch: Option<u64>) -> Result<(), TargetError> {
    let (Some(epoch), Some(place)) = (epoch, place) else { return Ok(()) };
    let found = read(session, place, true)
        .map_err(|source| TargetError::failed(format!("cannot read the marker of {label}"), source))?;
    if found.is_some_and(|marker| marker.epoch == epoch) {
        Ok(())
    } else {
        Err(TargetError::LockLost(label.to_owned()))
    }
}
