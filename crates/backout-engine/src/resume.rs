//! Finishes or undoes what a crash interrupted. A deployment that was interrupted is taken back, an undo is finished,
//! a redo or a retry is taken back.

use std::cmp::Reverse;

use backout_journal::{DeploymentRow, Reader};
use backout_model::conflict::{Conflicts, OnConflict};
use backout_model::id::FramePath;
use backout_model::state::{DeploymentState, Event, FrameState, StepState};
use serde_json::Value;

use crate::capture;
use crate::confirm;
use crate::copies;
use crate::deploy::remove_copy;
use crate::error::EngineError;
use crate::frame::Trouble;
use crate::group::end_orphan;
use crate::history::{StepView, View, Why, payload};
use crate::lookup::package_at;
use crate::observer::Happening;
use crate::outcome::{Left, LeftOut, NOTHING_CHANGED, Outcome, Status};
use crate::recording;
use crate::session::Session;
use crate::step::{Run, surely};

/// `None` where nothing was interrupted.
pub fn resume(session: &mut Session<'_>) -> Result<Option<Outcome>, EngineError> {
    recording::none_under_way(session.journal.reader())?;
    let running = session.running();
    let orphan = end_orphan(&running).map_err(|source| EngineError::Io {
        act: format!("cannot end the command noted in {}", running.display()),
        source,
    })?;
    if orphan {
        session.warn("a command that the interrupted run had started was still running; it was ended");
    }
    copies::sweep(session)?;
    capture::sweep(session)?;
    let mut unfinished = session.journal.reader().unfinished()?;
    if unfinished.is_none() {
        if let Some(outcome) = confirm::undo_expired(session)? {
            return Ok(Some(outcome));
        }
        // Finished but for leaving maintenance mode.
        // One that needs a hand keeps the site closed until somebody has seen to it.
        let closed = in_maintenance(session.journal.reader())?;
        unfinished = closed.filter(|row| row.state != DeploymentState::NeedsHand);
    }
    let Some(row) = unfinished else { return Ok(None) };
    let view = View::load(session.journal.reader(), &row.id)?;
    session.observer.heard(Happening::Phase { name: "resuming" });
    let mut run = Run::new(session, view);
    if run.view.state.is_some_and(DeploymentState::is_underway) {
        let part = run.view.part.as_ref().map(|part| part.frame.clone()).unwrap_or_default();
        run.session.targets.name_all(run.view.steps_to_undo(&part).iter().map(StepView::act))?;
    }
    let ended = run.end()?;
    capture::sweep(run.session)?;
    Ok(Some(run.closed(ended)))
}

impl Run<'_, '_> {
    fn end(&mut self) -> Result<Outcome, EngineError> {
        match self.view.state {
            Some(DeploymentState::Planned | DeploymentState::Checking) => self.never_begun(),
            _ => self.go_on().map_err(EngineError::under_way),
        }
    }
}

/// The deployment that closed the site to its users and has not opened it again: the last one at work, before those
/// that were given up since.
pub(crate) fn in_maintenance(reader: &Reader) -> Result<Option<DeploymentRow>, EngineError> {
    let mut rows = reader.deployments()?;
    rows.sort_by_key(|row| Reverse(row.last_seq));
    for row in rows {
        let last = reader.last_of(&row.id, &[Event::MaintenanceEntering, Event::MaintenanceLeft])?;
        if last == Some(Event::MaintenanceEntering) {
            return Ok(Some(row));
        }
        if row.state != DeploymentState::GivenUp {
            break;
        }
    }
    Ok(None)
}

impl Run<'_, '_> {
    /// Goes on with what had changed something, or may have.
    fn go_on(&mut self) -> Result<Outcome, EngineError> {
        let part = self.view.part.clone();
        let frame = part.as_ref().map(|part| part.frame.clone()).unwrap_or_default();
        let on_conflict = part.as_ref().map_or(OnConflict::Stop, |part| part.on_conflict);
        let interrupted = vec!["the run was interrupted".to_owned()];
        match self.view.state {
            Some(DeploymentState::Applying | DeploymentState::Verifying | DeploymentState::Failing) => {
                self.resume_deployment(interrupted)
            }
            Some(DeploymentState::Undoing) => self.undo_on(&frame, on_conflict),
            Some(DeploymentState::Redoing) => {
                self.redo_stopped(&frame, Status::Failed, interrupted, Conflicts::default())
            }
            Some(DeploymentState::Retrying) => self.resume_retry(&frame, interrupted),
            Some(
                DeploymentState::Planned
                | DeploymentState::Checking
                | DeploymentState::Refused
                | DeploymentState::Done
                | DeploymentState::FailedClean
                | DeploymentState::Undone
                | DeploymentState::PartlyUndone
                | DeploymentState::NeedsHand
                | DeploymentState::GivenUp,
            )
            | None => Ok(self.only_maintenance()),
        }
    }

    fn never_begun(&mut self) -> Result<Outcome, EngineError> {
        let root = FramePath::root();
        let why = Why::because(vec!["the run was interrupted before it changed anything".to_owned()]);
        surely(|| self.put_durably(Event::DeploymentRefused, &root, None, payload(&why)?))?;
        remove_copy(self);
        let mut outcome = Outcome::new(Status::Failed, NOTHING_CHANGED);
        outcome.deployment = Some(self.view.id.clone());
        outcome.answer.push(format!(
            "{} ({}) had been interrupted before it changed anything",
            self.view.name(),
            self.view.id
        ));
        Ok(outcome)
    }

    fn resume_deployment(&mut self, causes: Vec<String>) -> Result<Outcome, EngineError> {
        let atomic = self.view.manifest()?.atomic;
        if atomic || self.view.state == Some(DeploymentState::Failing) {
            let mut outcome = self.fail(Trouble { causes, ..Trouble::default() }, self.view.settled.clone().into())?;
            outcome.answer.push(format!("{} ({}) had been interrupted and was undone", self.view.name(), self.view.id));
            return Ok(outcome);
        }
        self.resume_list(causes)
    }

    /// A plain list: what is done stays, what was under way is taken back. The same for the lists inside it.
    fn resume_list(&mut self, causes: Vec<String>) -> Result<Outcome, EngineError> {
        let root = FramePath::root();
        let manifest = self.view.manifest()?.clone();
        // One inside the other, the outermost first.
        let under_way: Vec<(FramePath, FrameState)> = self
            .view
            .frames
            .iter()
            .filter(|(path, frame)| !path.is_root() && matches!(frame.state, FrameState::Started | FrameState::Failing))
            .map(|(path, frame)| (path.clone(), frame.state))
            .collect();
        let is_list = |path: &FramePath| package_at(&manifest, path).is_some_and(|package| !package.atomic);
        let lists = under_way.iter().take_while(|(path, _)| is_list(path)).count();
        let mut left = Left::from(self.view.settled.clone());
        // An atomic child goes back with all that is in it, as it does in a run that lives.
        if let Some((path, state)) = under_way.get(lists) {
            if *state == FrameState::Started {
                let why = payload(&Why::because(causes.clone()))?;
                self.put(Event::FrameFailing, path, None, why)?;
            }
            match self.undo_part(path) {
                Ok(more) => left.extend(more),
                Err(error) => return self.needs_hand(error.causes(), left),
            }
        }
        if let Err(error) = self.find_all_changes(&root) {
            return self.needs_hand(error.causes(), left);
        }
        let mut doubtful = self.view.steps_to_undo(&root);
        doubtful.retain(|step| step.state != StepState::Applied || self.is_of_open_command(step));
        for step in doubtful {
            match self.undo_surely(&step.frame, step.index, OnConflict::Keep) {
                Ok(report) => left.kept.extend(report.conflicts),
                Err(error) => return self.needs_hand(error.causes(), left),
            }
        }
        // A child that the dead run itself had taken back may have left something, too.
        left.irreversible |= self.view.leaves_of_failures();
        if !left.is_empty() {
            return self.needs_hand(causes, left);
        }
        for (path, _) in under_way[..lists].iter().rev() {
            self.put(Event::FrameDone, path, None, Value::Null)?;
        }
        if self.view.frames.get(&root).is_some_and(|frame| frame.state == FrameState::Started) {
            self.put(Event::FrameDone, &root, None, Value::Null)?;
        }
        if self.view.state == Some(DeploymentState::Applying) {
            self.put(Event::DeploymentVerifying, &root, None, Value::Null)?;
        }
        self.leave_maintenance();
        self.finally(&root);
        surely(|| self.done())?;
        let mut outcome = Outcome::new(
            Status::Partly,
            format!("Done in part. `backout undo {}` takes back what is applied.", self.view.id),
        );
        outcome.deployment = Some(self.view.id.clone());
        outcome.answer.push(format!(
            "{} ({}) had been interrupted; what was done stays",
            self.view.name(),
            self.view.id
        ));
        outcome.left_out.push(LeftOut { what: self.view.id.to_string(), why: causes.join(": ") });
        Ok(outcome)
    }

    fn resume_retry(&mut self, path: &FramePath, causes: Vec<String>) -> Result<Outcome, EngineError> {
        let started = self
            .view
            .frames
            .get(path)
            .is_some_and(|frame| matches!(frame.state, FrameState::Started | FrameState::Done));
        if started {
            let why = payload(&Why::because(causes.clone()))?;
            self.put(Event::FrameFailing, path, None, why)?;
        }
        let mut left = Left::from(self.view.settled.clone());
        match self.undo_part(path) {
            Ok(more) if more.is_empty() && left.is_empty() => {
                self.leave_maintenance();
                self.retry_failed(path, causes)
            }
            Ok(more) => {
                left.extend(more);
                self.needs_hand(causes, left)
            }
            Err(error) => self.needs_hand(error.causes(), left),
        }
    }

    fn only_maintenance(&mut self) -> Outcome {
        self.leave_maintenance();
        let flushed = surely(|| Ok(self.session.journal.flush()?));
        let closing = if self.view.in_maintenance { "" } else { "The site has left maintenance mode." };
        let mut outcome = Outcome::new(Status::Done, closing);
        if let Err(error) = flushed {
            outcome.notes.push(error.causes().join(": "));
        }
        outcome.deployment = Some(self.view.id.clone());
        outcome
    }
}
