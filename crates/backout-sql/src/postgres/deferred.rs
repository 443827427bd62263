//! What waits for the end of the transaction, where a change of the schema makes it come earlier, and what is kept from
//! coming at all.

use super::capture::Sessions;
use super::capture_error::{CaptureError, reading};
use super::catalog::users_trigger;
use super::session::{Row, Session};

/// An error where a trigger waits for the end of the transaction on a table that A wrote to: what it does is to be done
/// then and not now.
pub fn nothing_waits(a: &mut Session) -> Result<(), CaptureError> {
    let waits = a
        .value(&format!(
            "SELECT pg_catalog.format('trigger %I on %s', t.tgname, t.tgrelid::pg_catalog.regclass)
             FROM pg_catalog.pg_trigger t WHERE t.tgdeferrable AND {} AND t.tgenabled <> 'D'
                 AND EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.pid = pg_catalog.pg_backend_pid() AND l.granted
                     AND l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.relation = t.tgrelid) LIMIT 1",
            users_trigger("t")
        ))
        .map_err(reading("which triggers wait"))?;
    match waits {
        None => Ok(()),
        Some(trigger) => Err(CaptureError::Uncapturable(format!(
            "the {trigger} waits for the end of the transaction, and a change of the schema comes before; make that change \
             a step of its own"
        ))),
    }
}

/// Gives constraints that are deferred of themselves back to the end of the transaction.
pub fn defer_again(a: &mut Session) -> Result<(), CaptureError> {
    let names = a
        .value(
            "SELECT string_agg(DISTINCT format('%I.%I', n.nspname, c.conname), ', ')
             FROM pg_constraint AS c JOIN pg_namespace AS n ON n.oid = c.connamespace WHERE c.condeferred",
        )
        .map_err(reading("which constraints are deferred"))?;
    match names {
        Some(names) => a.run(&format!("SET CONSTRAINTS {names} DEFERRED")).map_err(reading("the constraints")),
        None => Ok(()),
    }
}

/// An error where other triggers of constraints are silenced than before the step: no definition tells of them.
/// `DISABLE TRIGGER ALL` and `ENABLE TRIGGER ALL` around a load leave it as it was.
pub fn none_is_silenced(sessions: &mut Sessions<'_>) -> Result<(), CaptureError> {
    let silenced = |session: &mut Session| -> Result<Vec<Row>, CaptureError> {
        let sql = "SELECT tgrelid::pg_catalog.regclass, oid, tgenabled FROM pg_catalog.pg_trigger
             WHERE tgisinternal AND tgconstraint <> 0 AND tgenabled <> 'O' ORDER BY oid";
        session.rows(sql).map_err(reading("which triggers are silenced"))
    };
    let (before, now) = (silenced(sessions.b)?, silenced(sessions.a)?);
    let other = now.iter().find(|row| !before.contains(row)).or_else(|| before.iter().find(|row| !now.contains(row)));
    match other.and_then(|row| row[0].as_deref()) {
        None => Ok(()),
        Some(table) => Err(CaptureError::Uncapturable(format!(
            "it leaves triggers of constraints of {table} enabled otherwise than before (`TRIGGER ALL`), which is not captured; \
             `TRIGGER USER` leaves these alone"
        ))),
    }
}
