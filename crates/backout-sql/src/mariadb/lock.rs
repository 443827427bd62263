//! The deployer's lock: a lock by name, which the server holds for a session until its last statement has ended, and a
//! holder in the marker's row, which says whose it is and raises the epoch.
//!
//! Killing a client does not stop its statement. So whoever takes over waits for the name, and a statement of before
//! can no longer change anything once it is had. Never takes a lock away from a process that may be alive.

use backout_model::fault::{self, Point};
use backout_model::target::TargetError;
use mysql::Error;

use super::marker::{self, Marker, Names};
use super::session::{Session, literal};
use crate::database::{Holder, LockError};
use crate::holder::{Life, life_from_here};

/// How long the server may take to end the session of a dead process, in seconds.
const PATIENCE: u32 = 60;

fn failed(label: &str) -> impl Fn(Error) -> TargetError {
    move |source| TargetError::failed(format!("cannot lock {label}"), source)
}

/// The name of the server's lock; names are the whole server's, so the database is a part.
fn key(names: &Names, database: &str) -> String {
    let digest = blake3::hash(format!("{database}/{}", names.marker()).as_bytes());
    format!("backout_{}", &digest.to_hex()[..32])
}

/// See [`crate::database::Database::lock`]. The name is for [`own_session`], once the holder is written.
pub fn take(session: &mut Session, names: &Names, label: &str, me: &Holder, at_least: u64) -> Result<u64, LockError> {
    judge(session, names, label)?;
    fault::point(Point::Statement).map_err(|source| TargetError::failed(format!("cannot lock {label}"), source))?;
    marker::create(session, names).map_err(failed(label))?;
    // In one transaction, so that of two that come at once the second sees the first.
    in_transaction(session, label, |session| {
        let before = marker::read(session, names, true)?.unwrap_or_default();
        if let Err(held) = judged(&before) {
            return Ok(Err(held));
        }
        let epoch = (before.epoch + 1).max(at_least);
        marker::hold(session, names, epoch, Some(me))?;
        Ok(Ok(epoch))
    })?
}

/// An error where the marker names a holder that may be alive.
fn judge(session: &mut Session, names: &Names, label: &str) -> Result<(), LockError> {
    let found = marker::read(session, names, false).map_err(failed(label))?;
    found.as_ref().map_or(Ok(()), judged)
}

fn judged(marker: &Marker) -> Result<(), LockError> {
    let Some(holder) = &marker.holder else { return Ok(()) };
    let unprovable = match life_from_here(holder) {
        Life::Dead => return Ok(()),
        Life::Alive => false,
        Life::Unknown => true,
    };
    Err(LockError::Held { holder: Box::new(holder.clone()), unprovable })
}

/// Takes the lock by name for a session. Only a session of a dead process, or an older one of this process, can have it;
/// that is ended.
pub fn own_session(session: &mut Session, names: &Names, database: &str, label: &str) -> Result<(), TargetError> {
    let key = literal(&key(names, database));
    let held = session.value(&format!("SELECT IS_USED_LOCK({key})")).map_err(failed(label))?;
    if let Some(held) = held {
        // The server notices a dead client only when it next speaks to it; its statement may go on for hours. Where we
        // may not end it, or it is gone by now, the wait below decides.
        drop(session.run(&format!("KILL CONNECTION {held}")));
    }
    match session.value(&format!("SELECT GET_LOCK({key}, {PATIENCE})")).map_err(failed(label))?.as_deref() {
        Some("1") => Ok(()),
        _ => Err(TargetError::failed(
            format!("cannot lock {label}"),
            "a statement of a process that ended is still running on the server",
        )),
    }
}

/// Gives the lock of `epoch` back; nothing happens where another has taken it over.
pub fn give_back(session: &mut Session, names: &Names, label: &str, epoch: u64) -> Result<(), TargetError> {
    in_transaction(session, label, |session| match marker::read(session, names, true)? {
        Some(found) if found.epoch == epoch => marker::hold(session, names, epoch, None),
        _ => Ok(()),
    })
}

/// Takes the lock away from `holder`; the epoch goes up, so that it can't change anything any more. False where the lock
/// is not that holder's any more.
pub fn break_open(session: &mut Session, names: &Names, label: &str, holder: &Holder) -> Result<bool, TargetError> {
    in_transaction(session, label, |session| {
        let Some(before) = marker::read(session, names, true)? else { return Ok(false) };
        if before.holder.as_ref() != Some(holder) {
            return Ok(false);
        }
        marker::hold(session, names, before.epoch + 1, None)?;
        Ok(true)
    })
}

fn in_transaction<T>(
    session: &mut Session,
    label: &str,
    work: impl FnOnce(&mut Session) -> Result<T, Error>,
) -> Result<T, TargetError> {
    let failed = failed(label);
    session.run("START TRANSACTION").map_err(&failed)?;
    match work(session).and_then(|value| session.run("COMMIT").map(|()| value)) {
        Ok(value) => Ok(value),
        Err(source) => {
            // Where this fails, too, the connection is gone and the transaction with it.
            drop(session.run("ROLLBACK"));
            Err(failed(source))
        }
    }
}
