//! A deployment that is to be confirmed: kept by `confirm`, undone where that does not come in time. Whoever works on
//! the site next undoes it, whatever became of the process that was to watch over it.

use backout_journal::{DeploymentRow, Reader};
use backout_model::conflict::OnConflict;
use backout_model::id::FramePath;
use backout_model::state::{DeploymentState, Event};
use serde_json::Value;

use crate::error::EngineError;
use crate::history::View;
use crate::outcome::{Outcome, Status, UNDONE_AND_VERIFIED};
use crate::session::Session;
use crate::step::{Run, surely};
use crate::undo::{self, Options};
use crate::when::at;

/// The deployment that is to be confirmed. There is one at most: none begins while another waits.
pub fn awaiting(reader: &Reader) -> Result<Option<(DeploymentRow, i64)>, EngineError> {
    let rows = reader.deployments()?;
    let stands = |row: &&DeploymentRow| matches!(row.state, DeploymentState::Done | DeploymentState::PartlyUndone);
    let Some(row) = rows.into_iter().filter(|row| stands(&row)).max_by_key(|row| row.first_seq) else {
        return Ok(None);
    };
    let last = [Event::DeploymentConfirmDue, Event::DeploymentConfirmed, Event::DeploymentUndone];
    if reader.last_of(&row.id, &last)? != Some(Event::DeploymentConfirmDue) {
        return Ok(None);
    }
    let until = View::load(reader, &row.id)?.confirm_until_ms;
    Ok(until.map(|until| (row, until)))
}

/// What would build on a deployment that may yet be undone is refused.
pub(crate) fn none_awaits(reader: &Reader) -> Result<(), EngineError> {
    match awaiting(reader)? {
        None => Ok(()),
        Some((row, until)) => Err(EngineError::not_now(
            format!(
                "{} {} ({}) is to be confirmed first, or is undone {}",
                row.package,
                row.version,
                row.id,
                at(until)
            ),
            "`backout confirm` keeps it, `backout undo` takes it back",
        )),
    }
}

/// Keeps the deployment that waits for it.
pub fn confirm(session: &mut Session<'_>) -> Result<Outcome, EngineError> {
    let Some((row, _)) = awaiting(session.journal.reader())? else {
        return Err(EngineError::NotNow { what: "no deployment is to be confirmed".to_owned(), hint: None });
    };
    let view = View::load(session.journal.reader(), &row.id)?;
    let mut run = Run::new(session, view);
    surely(|| run.put_durably(Event::DeploymentConfirmed, &FramePath::root(), None, Value::Null))?;
    let mut outcome = Outcome::new(Status::Done, format!("Confirmed. `backout undo {}` still takes it back.", row.id));
    outcome.answer.push(format!("confirmed {} {} ({})", row.package, row.version, row.id));
    outcome.deployment = Some(row.id);
    Ok(run.closed(outcome))
}

/// Undoes the deployment whose time is over. Nobody is there to ask: what others changed since keeps their value.
pub(crate) fn undo_expired(session: &mut Session<'_>) -> Result<Option<Outcome>, EngineError> {
    let Some((row, until)) = awaiting(session.journal.reader())? else { return Ok(None) };
    if session.journal.now_ms() < until {
        return Ok(None);
    }
    let mut outcome = undo::undo(session, Some(row.id.as_str()), Options { on_conflict: OnConflict::Keep })?;
    let name = format!("{} {} ({})", row.package, row.version, row.id);
    outcome.causes.insert(0, format!("{name} was not confirmed {}, and so it was undone", at(until)));
    if outcome.status == Status::Done {
        outcome.status = Status::Failed;
        outcome.closing = UNDONE_AND_VERIFIED.to_owned();
    }
    Ok(Some(outcome))
}
