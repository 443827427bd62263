//! One step: applied, undone, redone, or settled after a crash. Every way goes through the same few entries.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backout_model::conflict::OnConflict;
use backout_model::entry::Draft;
use backout_model::fault::{Point, point};
use backout_model::id::FramePath;
use backout_model::state::{Event, StepState};
use backout_model::target::{Images, Manner, Probe, Report, TargetError};
use backout_package::step::{RunUndo, SqlUndo};
use backout_sql::database::{Script, ScriptUndo};
use serde_json::Value;

use crate::act::{Act, Intended, UndoIntended};
use crate::command::{Ended, Invocation, run, shown, told};
use crate::error::EngineError;
use crate::gate::JournalGate;
use crate::history::{StepView, View, payload};
use crate::observer::Happening;
use crate::session::{Session, Targets};

/// How often an undo is tried before it needs a hand: a full disk or a busy database may pass.
const UNDO_ATTEMPTS: u32 = 3;

/// A deployment at hand: the session and what its entries say so far.
pub(crate) struct Run<'s, 'o> {
    pub session: &'s mut Session<'o>,
    pub view: View,
    /// What the operator should know in the end.
    pub notes: Vec<String>,
    /// Where the packages of the frames lie that are deployed from there just now.
    pub packages: BTreeMap<FramePath, PathBuf>,
    /// Another process took a lock over: this one may try nothing more.
    pub lock_lost: bool,
    /// What is done just now may end early where the operator asks for it.
    stoppable: bool,
}

/// A command of which no end is known.
struct Unrun {
    /// If not, it did nothing.
    began: bool,
    error: EngineError,
}

impl From<Unrun> for EngineError {
    fn from(unrun: Unrun) -> Self {
        unrun.error
    }
}

impl<'s, 'o> Run<'s, 'o> {
    pub fn new(session: &'s mut Session<'o>, view: View) -> Self {
        session.at_hand = Some(view.id.clone());
        Self { session, view, notes: Vec::new(), packages: BTreeMap::new(), lock_lost: false, stoppable: false }
    }

    /// Where a frame's commands run: in its package, and where that is not at hand, in the deployment's `copy` of it.
    /// The commands that undo always run in the copy: it is the same whatever became of the package.
    pub fn directory(&self, frame: &FramePath, copy: &Path) -> PathBuf {
        self.packages.get(frame).map_or_else(|| copy.to_owned(), PathBuf::clone)
    }

    pub(crate) fn draft(&self, event: Event, frame: &FramePath, step: Option<u32>, payload: Value) -> Draft {
        Draft { deployment: Some(self.view.id.clone()), frame: frame.clone(), step, event, payload }
    }

    /// Writes an entry that becomes durable with the next durable one.
    pub fn put(
        &mut self,
        event: Event,
        frame: &FramePath,
        step: Option<u32>,
        payload: Value,
    ) -> Result<(), EngineError> {
        let draft = self.draft(event, frame, step, payload);
        self.session.journal.defer(draft.clone())?;
        self.view.add_draft(&draft, self.session.journal.last_seq(), false)
    }

    /// Writes an entry and makes it durable, with all that came before. Returns its number.
    pub fn put_durably(
        &mut self,
        event: Event,
        frame: &FramePath,
        step: Option<u32>,
        payload: Value,
    ) -> Result<u64, EngineError> {
        let draft = self.draft(event, frame, step, payload);
        let seq = self.session.journal.append(std::slice::from_ref(&draft))?;
        self.view.add_draft(&draft, seq, false)?;
        Ok(seq)
    }

    /// Applies a step of the package. A script ends between two statements where the operator stops the run.
    pub fn apply(&mut self, frame: &FramePath, index: u32, act: &Act) -> Result<Report, EngineError> {
        self.stoppable = true;
        let applied = self.apply_wholly(frame, index, act);
        self.stoppable = false;
        applied
    }

    fn apply_wholly(&mut self, frame: &FramePath, index: u32, act: &Act) -> Result<Report, EngineError> {
        let epoch = self.session.epoch_for(act);
        let summary = self.keep_before(frame, index, act)?;
        let intended = payload(&Intended { act: act.clone(), epoch, summary })?;
        let draft = self.draft(Event::StepIntended, frame, Some(index), intended);
        match act {
            Act::Run { argv, directory, .. } => {
                let kept = draft.payload["summary"]["note"].clone();
                if let Err(error) = self.put_durably(draft.event, frame, Some(index), draft.payload) {
                    self.give_up_unannounced(frame, index, act, &kept);
                    return Err(error);
                }
                let directory = self.directory(frame, directory);
                let marks = self.marks(act)?;
                let ended = match self.command(argv, &directory, act.timeout(), marks) {
                    Ok(ended) => ended,
                    Err(unrun) => {
                        if !unrun.began {
                            self.put_durably(Event::StepDiscarded, frame, Some(index), Value::Null)?;
                            self.give_up_unannounced(frame, index, act, &kept);
                        }
                        return Err(unrun.error);
                    }
                };
                // A command that failed may have done half of its work.
                let report = self.find_changes(frame, index);
                let failure = (!ended.ok()).then(|| failed_command(argv, &ended));
                if let Some(error) = failure {
                    return Err(error);
                }
                let report = report?;
                self.put(Event::StepApplied, frame, Some(index), payload(&ended)?)?;
                self.give_up_snapshots(frame, index);
                Ok(report)
            }
            Act::Captured { .. } => Err(EngineError::History(format!("{} is found, not done", act.words()))),
            Act::Sql { database, path, shown, undo } => {
                let script = Script { path: path.clone(), shown: shown.clone(), undo: script_undo(undo) };
                let report = self.through_gate(draft, epoch, |targets, gate| {
                    targets.database(database)?.apply(&script, gate).map_err(EngineError::from)
                })?;
                self.put(Event::StepApplied, frame, Some(index), payload(&report)?)?;
                Ok(report)
            }
            Act::Files { root, .. } | Act::Delete { root, .. } => {
                let work = crate::plan::work(act)?;
                let report = self.through_gate(draft, epoch, |targets, gate| {
                    targets.root(root)?.apply(&work, gate).map_err(EngineError::from)
                })?;
                self.put(Event::StepApplied, frame, Some(index), payload(&report)?)?;
                Ok(report)
            }
        }
    }

    /// Lets a target work behind a gate, and follows what the gate wrote, whatever came of it.
    pub(crate) fn through_gate<T>(
        &mut self,
        draft: Draft,
        epoch: u64,
        work: impl FnOnce(&mut Targets, &mut JournalGate<'_>) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let session = &mut *self.session;
        let mut gate = JournalGate::new(&mut session.journal, session.observer, draft, epoch, self.stoppable);
        let result = work(&mut session.targets, &mut gate);
        if let Some((draft, seq, has_images)) = gate.into_announced() {
            self.view.add_draft(&draft, seq, has_images)?;
        }
        self.lock_lost |= matches!(result, Err(EngineError::Target(TargetError::LockLost(_))));
        result
    }

    /// `marks`: what else the command finds in its environment.
    fn command(
        &mut self,
        argv: &[String],
        directory: &Path,
        timeout: Option<Duration>,
        marks: Vec<(String, OsString)>,
    ) -> Result<Ended, Unrun> {
        let before = |error| Unrun { began: false, error };
        let argv = self.session.filled(argv).map_err(before)?;
        let mut environment = self.session.environment();
        environment.extend(marks);
        let running = self.session.running();
        point(Point::Command)
            .map_err(|source| before(EngineError::Io { act: format!("cannot run {}", shown(&argv)), source }))?;
        let invocation = Invocation { argv: &argv, directory, environment: &environment, timeout, running: &running };
        let mut ended = run(&invocation).map_err(|error| Unrun {
            began: error.began,
            error: EngineError::Target(TargetError::failed(error.to_string(), error.source)),
        })?;
        ended.output = self.session.redacted(&ended.output);
        Ok(ended)
    }

    /// Runs a command that belongs to no step (maintenance, `finally`).
    pub fn plain_command(
        &mut self,
        argv: &[String],
        directory: &Path,
        timeout: Option<Duration>,
    ) -> Result<(), EngineError> {
        let ended = self.command(argv, directory, timeout, Vec::new())?;
        if ended.ok() { Ok(()) } else { Err(failed_command(argv, &ended)) }
    }

    pub fn images(&self, seq: u64) -> Result<Box<dyn Images>, EngineError> {
        Ok(self.session.journal.reader().open_images(seq)?)
    }

    /// Finds out what became of a step that a crash or a failure left in doubt, and writes it down.
    /// Returns whether its undo must reckon with a part of it.
    pub fn settle(&mut self, frame: &FramePath, index: u32) -> Result<bool, EngineError> {
        let Some(step) = self.view.steps.get(&(frame.clone(), index)).cloned() else {
            return Ok(false);
        };
        let is_database = step.act().database().is_some();
        match step.state {
            StepState::Intended if matches!(step.act(), Act::Run { .. }) => Ok(true),
            StepState::Intended => {
                let probe = self.probe(&step)?;
                match probe {
                    Probe::Applied => self.put(Event::StepApplied, frame, Some(index), Value::Null)?,
                    Probe::NotApplied => self.put(Event::StepDiscarded, frame, Some(index), Value::Null)?,
                    Probe::Partly => {}
                }
                Ok(probe == Probe::Partly)
            }
            StepState::UndoIntended if is_database => {
                if let Some((seq, undo)) = &step.undo {
                    let ticket = backout_model::target::Ticket { seq: *seq, epoch: undo.epoch };
                    let mut images = self.images_or_none(&step)?;
                    match self.session.targets.of(step.act())?.probe(ticket, &mut images)? {
                        Probe::Applied => {
                            let report = Report { conflicts: step.announced_conflicts(), ..Report::default() };
                            self.put(Event::StepUndone, frame, Some(index), payload(&report)?)?;
                        }
                        Probe::NotApplied => self.put(Event::StepApplied, frame, Some(index), Value::Null)?,
                        // A chain of segments, of which some are taken back: the undo goes on from there.
                        Probe::Partly => return Ok(true),
                    }
                }
                Ok(false)
            }
            StepState::UndoIntended => Ok(true),
            StepState::Applied | StepState::Discarded | StepState::Undone => Ok(false),
        }
    }

    fn probe(&mut self, step: &StepView) -> Result<Probe, EngineError> {
        let mut images = self.images_or_none(step)?;
        Ok(self.session.targets.of(step.act())?.probe(step.ticket(), &mut images)?)
    }

    fn images_or_none(&self, step: &StepView) -> Result<Box<dyn Images>, EngineError> {
        if step.has_images { self.images(step.seq) } else { Ok(Box::new(std::io::Cursor::new(Vec::new()))) }
    }

    /// Undoes one step, once: settles what is in doubt, then takes back what is there.
    pub fn undo_once(&mut self, frame: &FramePath, index: u32, on_conflict: OnConflict) -> Result<Report, EngineError> {
        let begun = self.view.steps.get(&(frame.clone(), index)).filter(|step| step.state == StepState::UndoIntended);
        let announced = begun.map(StepView::announced_conflicts).unwrap_or_default();
        let in_doubt = self.settle(frame, index)?;
        let Some(step) = self.view.steps.get(&(frame.clone(), index)).filter(|step| step.is_on_site()).cloned() else {
            return Ok(Report { conflicts: announced, ..Report::default() });
        };
        // It stays applied: neither a redo nor what puts an undo back may do it a second time.
        if let Some(note) = step.stays() {
            self.notes.push(note.clone());
            return Ok(Report { notes: vec![note], ..Report::default() });
        }
        let act = step.act().clone();
        self.session.observer.heard(Happening::StepUndoing { frame: frame.clone(), index, what: act.words() });
        let epoch = self.session.epoch_for(&act);
        let intent = payload(&UndoIntended { of: step.seq, epoch, summary: Default::default() })?;
        let draft = self.draft(Event::StepUndoIntended, frame, Some(index), intent);
        let report = match &act {
            Act::Run { undo: RunUndo::Command(argv), directory, .. } => {
                self.put_durably(draft.event, frame, Some(index), draft.payload)?;
                let ended = self.command(argv, directory, act.timeout(), Vec::new())?;
                if !ended.ok() {
                    return Err(failed_command(argv, &ended));
                }
                Report::default()
            }
            // What it did was taken back before, place by place.
            Act::Run { undo: RunUndo::Captured(_), .. } => Report::default(),
            Act::Run { .. } | Act::Sql { .. } | Act::Files { .. } | Act::Delete { .. } | Act::Captured { .. } => {
                let mut images = self.images(step.seq)?;
                let manner = Manner { on_conflict, in_doubt };
                let undone = self.through_gate(draft, epoch, |targets, gate| {
                    Ok(targets.of(&act)?.undo(&mut images, manner, gate)?)
                });
                // A target puts back its own part before it reports a conflict, or that it could not go on. What an earlier attempt took back it
                // cannot tell from what others did: then the step stays in doubt.
                if let Err(EngineError::Target(TargetError::Conflicts(_) | TargetError::PutBack { .. })) = &undone
                    && !in_doubt
                    && self.is_undo_announced(frame, index)
                {
                    self.put(Event::StepApplied, frame, Some(index), Value::Null)?;
                }
                undone?
            }
        };
        if !self.is_undo_announced(frame, index) {
            let intent = payload(&UndoIntended { of: step.seq, epoch, summary: report.summary.clone() })?;
            self.put_durably(Event::StepUndoIntended, frame, Some(index), intent)?;
        }
        self.put(Event::StepUndone, frame, Some(index), payload(&report)?)?;
        self.give_up_snapshots(frame, index);
        self.notes.extend(report.notes.iter().cloned());
        self.session.observer.heard(Happening::StepUndone { frame: frame.clone(), index });
        Ok(report)
    }

    fn is_undo_announced(&self, frame: &FramePath, index: u32) -> bool {
        self.view.steps.get(&(frame.clone(), index)).is_some_and(|step| step.state == StepState::UndoIntended)
    }

    /// Undoes one step, and tries again where it failed for a reason that may pass.
    pub fn undo_surely(
        &mut self,
        frame: &FramePath,
        index: u32,
        on_conflict: OnConflict,
    ) -> Result<Report, EngineError> {
        let mut attempt = 1;
        loop {
            match self.undo_once(frame, index, on_conflict) {
                Err(error) if attempt < UNDO_ATTEMPTS && !error.is_lasting() => {
                    self.session.warn(format!("undo failed and is tried again: {}", error.causes().join(": ")));
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    /// Does an undone step again.
    pub fn redo_once(&mut self, frame: &FramePath, index: u32, on_conflict: OnConflict) -> Result<Report, EngineError> {
        let Some(step) = self.view.steps.get(&(frame.clone(), index)).filter(|step| step.is_undone()).cloned() else {
            return Ok(Report::default());
        };
        let act = step.act().clone();
        let epoch = self.session.epoch_for(&act);
        let intended = payload(&Intended { act: act.clone(), epoch, summary: Default::default() })?;
        if !act.followed().is_empty() {
            // What it did comes back by its images, place by place.
            self.put(Event::StepIntended, frame, Some(index), intended)?;
            self.put(Event::StepApplied, frame, Some(index), Value::Null)?;
            return Ok(Report::default());
        }
        if !act.is_captured() {
            return self.apply_wholly(frame, index, &act);
        }
        let draft = self.draft(Event::StepIntended, frame, Some(index), intended);
        let mut images = self.images(step.seq)?;
        let manner = Manner { on_conflict, in_doubt: false };
        let report =
            self.through_gate(draft, epoch, |targets, gate| Ok(targets.of(&act)?.redo(&mut images, manner, gate)?))?;
        self.put(Event::StepApplied, frame, Some(index), payload(&report)?)?;
        Ok(report)
    }

    /// Gives up what is held for steps that no undo or redo can need any more.
    pub fn forget(&mut self, part: &FramePath) {
        let steps: Vec<StepView> = self
            .view
            .steps
            .values()
            .filter(|step| part.contains(&step.frame) && step.has_images && !step.is_on_site())
            .cloned()
            .collect();
        for step in steps {
            let result = self
                .images(step.seq)
                .and_then(|mut images| Ok(self.session.targets.of(step.act())?.forget(&mut images)?));
            if let Err(error) = result {
                self.session.warn(format!(
                    "what was held for {} could not be removed: {}",
                    step.act().words(),
                    error.causes().join(": ")
                ));
            }
        }
    }
}

fn failed_command(argv: &[String], ended: &Ended) -> EngineError {
    let output = told(&ended.output);
    let said = if output.is_empty() { "it printed nothing".to_owned() } else { format!("it printed:\n{output}") };
    EngineError::Target(TargetError::failed(format!("`{}` {}", argv.join(" "), ended.words()), said))
}

/// How a database takes a script back, in its own terms.
pub(crate) fn script_undo(undo: &SqlUndo) -> ScriptUndo {
    match undo {
        SqlUndo::Captured => ScriptUndo::Captured,
        SqlUndo::Script { path, shown } => ScriptUndo::ByScript { path: path.clone(), shown: shown.clone() },
        SqlUndo::Never { because } => ScriptUndo::Never { because: because.clone() },
    }
}

/// Tries twice: a journal that was full or a device that hiccuped once has a reserve for the second time.
pub(crate) fn surely<T>(mut act: impl FnMut() -> Result<T, EngineError>) -> Result<T, EngineError> {
    act().or_else(|_| act())
}
