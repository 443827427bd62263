//! The deployer's lock: an advisory lock of the main session, which the server gives back when that ends, and a holder in
//! the marker's row, which says whose it is and raises the epoch.
//!
//! Never takes a lock away from a process that may be alive. A dead one's statement that still runs is ended first.

use backout_model::fault::{self, Point};
use backout_model::target::TargetError;

use super::marker;
use super::place::Place;
use super::session::{Session, is_lock_timeout, literal};
use crate::database::{Holder, LockError};
use crate::holder::{Life, life_from_here};

/// How long the server may take to end the session of a dead process.
const PATIENCE: &str = "60s";

fn failed(label: &str) -> impl Fn(postgres::Error) -> TargetError {
    move |source| TargetError::failed(format!("cannot lock {label}"), source)
}

/// The number of the site's advisory lock.
fn key(own: &str) -> i64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&blake3::hash(own.as_bytes()).as_bytes()[..8]);
    i64::from_le_bytes(eight)
}

/// See [`crate::database::Database::lock`].
pub fn take(
    session: &mut Session,
    own: &str,
    label: &str,
    me: &Holder,
    at_least: u64,
) -> Result<(Place, u64), LockError> {
    judge(session, own, label)?;
    if !try_own(session, own, label, "2s")? {
        // Whoever was faster has said so by now; else it is the session of one that is dead.
        judge(session, own, label)?;
        own_session(session, own, label)?;
    }
    if let Err(held) = judge(session, own, label) {
        give_session_back(session, own);
        return Err(held);
    }
    let done = in_transaction(session, label, |session| {
        let place = match Place::find(session, own)? {
            Some(place) => place,
            None => {
                let place = Place::make(session, own)?;
                marker::create(session, &place)?;
                place
            }
        };
        let before = marker::read(session, &place, true)?.unwrap_or_default();
        let epoch = (before.epoch + 1).max(at_least);
        marker::hold(session, &place, epoch, Some(me))?;
        Ok((place, epoch))
    });
    if done.is_err() {
        give_session_back(session, own);
    }
    Ok(done?)
}

/// An error where the marker names a holder that may be alive.
fn judge(session: &mut Session, own: &str, label: &str) -> Result<(), LockError> {
    let found = look(session, own).map_err(failed(label))?;
    let Some(holder) = found.and_then(|(_, marker)| marker.holder) else { return Ok(()) };
    match life_from_here(&holder) {
        Life::Dead => Ok(()),
        Life::Alive => Err(LockError::Held { holder: Box::new(holder), unprovable: false }),
        Life::Unknown => Err(LockError::Held { holder: Box::new(holder), unprovable: true }),
    }
}

/// Takes the advisory lock where it is free within the time; true where it was.
fn try_own(session: &mut Session, own: &str, label: &str, patience: &str) -> Result<bool, TargetError> {
    let waited = session.run(&format!(
        "SET lock_timeout = {}; SELECT pg_catalog.pg_advisory_lock({})",
        literal(patience),
        key(own)
    ));
    session.stay_neutral().map_err(failed(label))?;
    match waited {
        Ok(()) => Ok(true),
        Err(source) if is_lock_timeout(&source) => Ok(false),
        Err(source) => Err(failed(label)(source)),
    }
}

/// Takes the advisory lock, which only the session of a dead process can have; ends that.
pub fn own_session(session: &mut Session, own: &str, label: &str) -> Result<(), TargetError> {
    let key = key(own);
    // The server notices a dead client only when it next speaks to it; its statement may go on for hours.
    let [high, low] = [(key >> 32) as u32, key as u32];
    session
        .run(&format!(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_locks
             WHERE locktype = 'advisory' AND granted AND classid = {high} AND objid = {low} AND objsubid = 1
                 AND pid <> pg_catalog.pg_backend_pid()
                 AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
        ))
        .map_err(failed(label))?;
    if try_own(session, own, label, PATIENCE)? {
        return Ok(());
    }
    Err(TargetError::failed(format!("cannot lock {label}"), "the session of a process that ended does not end"))
}

/// The marker of a site that was here before.
pub fn look(session: &mut Session, own: &str) -> Result<Option<(Place, marker::Marker)>, postgres::Error> {
    let Some(place) = Place::find(session, own)? else { return Ok(None) };
    Ok(marker::read(session, &place, false)?.map(|marker| (place, marker)))
}

/// Gives the lock of `epoch` back; nothing happens where another has taken it over.
pub fn give_back(session: &mut Session, own: &str, label: &str, epoch: u64) -> Result<(), TargetError> {
    let done = in_transaction(session, label, |session| {
        if let Some(place) = Place::find(session, own)?
            && marker::read(session, &place, true)?.is_some_and(|marker| marker.epoch == epoch)
        {
            marker::hold(session, &place, epoch, None)?;
        }
        Ok(())
    });
    give_session_back(session, own);
    done
}

fn give_session_back(session: &mut Session, own: &str) {
    // Where the session is gone, so is its lock.
    drop(session.run(&format!("SELECT pg_catalog.pg_advisory_unlock({})", key(own))));
}

/// Takes the lock away from `holder`; the epoch goes up, so that it can't commit any more. False where the lock is not
/// that holder's any more.
pub fn break_open(session: &mut Session, own: &str, label: &str, holder: &Holder) -> Result<bool, TargetError> {
    in_transaction(session, label, |session| {
        let Some(place) = Place::find(session, own)? else { return Ok(false) };
        let Some(before) = marker::read(session, &place, true)? else { return Ok(false) };
        if before.holder.as_ref() != Some(holder) {
            return Ok(false);
        }
        marker::hold(session, &place, before.epoch + 1, None)?;
        Ok(true)
    })
}

fn in_transaction<T>(
    session: &mut Session,
    label: &str,
    work: impl FnOnce(&mut Session) -> Result<T, postgres::Error>,
) -> Result<T, TargetError> {
    let failed = failed(label);
    fault::point(Point::Statement).map_err(|source| TargetError::failed(format!("cannot lock {label}"), source))?;
    session.run("BEGIN").map_err(&failed)?;
    match work(session).and_then(|value| session.run("COMMIT").map(|()| value)) {
        Ok(value) => Ok(value),
        Err(source) => {
            // Where this fails, too, the connection is gone and the transaction with it.
            drop(session.roll_back());
            Err(failed(source))
        }
    }
}
