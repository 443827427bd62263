//! A deployment that is to be confirmed: kept by `confirm`, undone where that does not come in time. Whoever works on
//! the site next undoes it, whatever became of the process that was to watch over it.

use backout_journal::{DeploymentRow, Reader};
use backout_model::id::FramePath;
use backout_model::state::{DeploymentState, Event};
use serde_json::Value;

use crate::error::EngineError;
use crate::frame::Trouble;
use crate::history::{StepView, View};
use crate::outcome::{Left, Outcome, Status};
use crate::session::Session;
use crate::step::{Run, surely};
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

/// The one that waits in vain, and until when it waited.
fn expired(session: &Session<'_>) -> Result<Option<(DeploymentRow, i64)>, EngineError> {
    let now_ms = session.journal.now_ms();
    Ok(awaiting(session.journal.reader())?.filter(|(_, until)| now_ms >= *until))
}

/// Keeps the deployment that waits for it. Where its time is over, that is what it comes to.
pub fn confirm(session: &mut Session<'_>) -> Result<Outcome, EngineError> {
    if let Some(outcome) = undo_expired(session)? {
        return Ok(outcome);
    }
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

/// Undoes the deployment whose time is over, as one that failed: nobody is there to ask.
pub(crate) fn undo_expired(session: &mut Session<'_>) -> Result<Option<Outcome>, EngineError> {
    let Some((row, until)) = expired(session)? else { return Ok(None) };
    let view = View::load(session.journal.reader(), &row.id)?;
    let mut run = Run::new(session, view);
    run.session.targets.name_all(run.view.steps_to_undo(&FramePath::root()).iter().map(StepView::act))?;
    let causes = vec![format!("it was not confirmed {}", at(until))];
    let outcome =
        run.fail(Trouble { causes, ..Trouble::default() }, Left::default()).map_err(EngineError::under_way)?;
    Ok(Some(run.closed(outcome)))
}
