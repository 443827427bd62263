//! Redo: brings back what was last undone, to the same result, guarded like undo.

use std::collections::BTreeMap;

use backout_model::conflict::{Conflicts, OnConflict};
use backout_model::id::FramePath;
use backout_model::state::Event;
use backout_model::target::{Summary, TargetError};
use backout_package::package::Package;
use serde_json::Value;

use crate::copies;
use crate::error::EngineError;
use crate::history::{FrameStarted, FrameView, Part, StepView, payload};
use crate::lookup::{Top, directories, now_at, top};
use crate::observer::Happening;
use crate::outcome::{NOTHING_CHANGED, Outcome, STOPPED, Status};
use crate::retry::source;
use crate::session::Session;
use crate::step::{Run, surely};
use crate::undo::name_of_part;

/// Redoes the undo at the top of the stack.
pub fn redo(session: &mut Session<'_>) -> Result<Outcome, EngineError> {
    let Top { view, since, part, .. } = top(session.journal.reader())?;
    copies::trusted(session, &view, false)?;
    let manifest = view.manifest()?.clone();
    // What was deployed may have changed or be gone since: then its commands do with the copy.
    let source = if manifest.has_commands() { source(session, &view).ok() } else { None };
    let mut run = Run::new(session, view);
    run.packages = source.as_ref().map(|source| directories(&source.package)).unwrap_or_default();
    let directory = run.directory(&part, &manifest.dir);
    if part.is_root()
        && let Some(why) = run.session.check_all(&part, &manifest.before, &directory)?
    {
        let mut outcome = Outcome::new(Status::Refused, NOTHING_CHANGED);
        outcome.causes = vec![format!("a condition of {} does not hold", run.view.name()), why];
        outcome.deployment = Some(run.view.id.clone());
        return Ok(outcome);
    }
    run.session.targets.name_all(run.view.steps_to_redo(&part, since).iter().map(StepView::act))?;
    let part_payload = payload(&Part::new(part.clone(), OnConflict::Stop))?;
    run.put_durably(Event::DeploymentRedoing, &FramePath::root(), None, part_payload)?;
    let outcome = run.redo_now(&manifest, &part, since).map_err(EngineError::under_way)?;
    Ok(run.closed(outcome))
}

impl Run<'_, '_> {
    /// Takes back the undo of `part` that began with the entry `since`.
    fn redo_now(&mut self, manifest: &Package, part: &FramePath, since: u64) -> Result<Outcome, EngineError> {
        self.session.observer.heard(Happening::Phase { name: "redoing" });
        let result = self.redo_steps(manifest, part, since);
        let root = FramePath::root();
        if let Err((error, conflicts)) = result {
            let refused = !conflicts.is_empty();
            return self.redo_stopped(part, if refused { Status::Refused } else { Status::Failed }, error, conflicts);
        }
        self.restart_frames(part, since)?;
        self.finally(part);
        let whole = self.view.undone_frames().next().is_none();
        let event = if whole { Event::DeploymentDone } else { Event::DeploymentPartlyUndone };
        surely(|| self.put_durably(event, &root, None, Value::Null))?;
        let mut outcome = Outcome::new(
            Status::Done,
            format!("Redone. `backout undo {}` takes it back again.", name_of_part(&self.view, part)),
        );
        outcome.deployment = Some(self.view.id.clone());
        let what = self.view.name_of(part);
        outcome.answer.push(format!("redid {what} ({})", self.view.id));
        outcome.answer.push(now_at(self.session.journal.reader())?);
        outcome.notes.append(&mut self.notes);
        if self.view.planned.as_ref().is_some_and(|planned| planned.confirm_within_ms.is_some()) {
            outcome.notes.push("it stays without being confirmed: who redoes it has decided".to_owned());
        }
        Ok(outcome)
    }

    fn redo_steps(&mut self, manifest: &Package, part: &FramePath, since: u64) -> Result<(), (Vec<String>, Conflicts)> {
        let plain = |error: EngineError| (error.causes(), Conflicts::default());
        self.enter_maintenance().map_err(plain)?;
        let mut steps_of: BTreeMap<FramePath, u32> = BTreeMap::new();
        for (frame, _) in self.view.steps.keys() {
            *steps_of.entry(frame.clone()).or_default() += 1;
        }
        for step in self.view.steps_to_redo(part, since) {
            self.not_asked_to_stop()?;
            let (frame, index) = (step.frame.clone(), step.index);
            let of = steps_of.get(&frame).copied().unwrap_or_default();
            self.session.observer.heard(Happening::StepStarted {
                frame: frame.clone(),
                index,
                of,
                what: step.act().words(),
            });
            match self.redo_once(&frame, index, OnConflict::Stop) {
                Ok(report) => {
                    let Summary { changes, rows, .. } = report.summary;
                    self.session.observer.heard(Happening::StepDone { frame, index, changes, rows });
                    self.notes.extend(report.notes);
                }
                Err(EngineError::Target(TargetError::Conflicts(found))) => {
                    return Err((
                        vec![format!("{} cannot be redone: {found} with changes made since", self.view.name_of(part))],
                        found,
                    ));
                }
                Err(error) => return Err(plain(error)),
            }
        }
        self.leave_maintenance();
        let mut checks = Vec::new();
        let undone = self.undone_since(part, since);
        collect(manifest, &FramePath::root(), &mut |path, package| {
            if undone.contains_key(path) {
                checks.push((path.clone(), package.after.clone(), self.directory(path, &package.dir)));
            }
        });
        for (path, after, directory) in checks {
            if let Some(why) = self.session.check_all(&path, &after, &directory).map_err(plain)? {
                return Err((vec![why], Conflicts::default()));
            }
        }
        self.not_asked_to_stop()
    }

    fn not_asked_to_stop(&self) -> Result<(), (Vec<String>, Conflicts)> {
        if self.session.observer.interrupted() {
            return Err((vec![STOPPED.to_owned()], Conflicts::default()));
        }
        Ok(())
    }

    /// The frames of a part that its undo, begun with the entry `since`, took back.
    fn undone_since(&self, part: &FramePath, since: u64) -> BTreeMap<FramePath, FrameStarted> {
        let undone = self.view.undone_frames().filter(|(path, frame)| part.contains(path) && frame.undone_seq > since);
        let started = |frame: &FrameView| FrameStarted {
            package: frame.package.clone(),
            version: frame.version.clone(),
            attempt: 1,
        };
        undone.map(|(path, frame)| (path.clone(), started(frame))).collect()
    }

    fn restart_frames(&mut self, part: &FramePath, since: u64) -> Result<(), EngineError> {
        let undone = self.undone_since(part, since);
        for (path, started) in undone {
            self.put(Event::FrameStarted, &path, None, payload(&started)?)?;
            self.put(Event::FrameDone, &path, None, Value::Null)?;
        }
        Ok(())
    }

    /// Takes back what a redo had redone; also how a resume ends one.
    pub fn redo_stopped(
        &mut self,
        part: &FramePath,
        status: Status,
        causes: Vec<String>,
        conflicts: Conflicts,
    ) -> Result<Outcome, EngineError> {
        // A recovery that died may have kept what others changed since.
        let mut kept = self.view.settled.clone();
        let since = self.view.part_seq;
        let steps = self.view.steps_to_undo(part).into_iter().filter(|step| step.seq > since);
        for step in steps.collect::<Vec<_>>() {
            match self.undo_surely(&step.frame, step.index, OnConflict::Keep) {
                Ok(report) => kept.extend(report.conflicts),
                Err(error) => {
                    let causes = causes.into_iter().chain(error.causes()).collect();
                    return self.needs_hand(causes, conflicts.into());
                }
            }
        }
        self.frames_undone(part)?;
        if !kept.is_empty() {
            self.leave_maintenance();
            return self.needs_hand(causes, kept.into());
        }
        self.leave_maintenance();
        self.finally(part);
        let root = FramePath::root();
        let event = if self.view.is_undone() { Event::DeploymentRedoStopped } else { Event::DeploymentPartlyUndone };
        surely(|| self.put_durably(event, &root, None, Value::Null))?;
        let mut outcome =
            Outcome::new(status, "What had been redone was undone again; the site is as it was before the redo.");
        outcome.deployment = Some(self.view.id.clone());
        outcome.causes = causes;
        if !conflicts.is_empty() {
            outcome
                .hints
                .push(format!("put what is in the way aside and redo again, or deploy {} anew", self.view.name()));
        }
        outcome.conflicts_total = conflicts.total;
        outcome.conflicts = conflicts.listed;
        Ok(outcome)
    }
}

fn collect(package: &Package, path: &FramePath, each: &mut dyn FnMut(&FramePath, &Package)) {
    for child in package.children() {
        collect(&child.package, &path.child(&child.name), each);
    }
    each(path, package);
}
