//! `run` steps with `capture`: the state before is kept, the command runs with its own connections, and what differs
//! afterwards is announced as steps of its own, one a database and root, with images like any other. So whatever undoes
//! and redoes steps needs no word about commands.
//!
//! The command itself was announced before it ran, with the places of what was kept: so a crash meanwhile is decided
//! afterwards by the same comparison. Never runs a command, never looks into a target.

use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use backout_model::fault::{Point, is_played, point, syncs_issued};
use backout_model::id::{DeploymentId, FramePath};
use backout_model::state::{DeploymentState, Event, StepState};
use backout_model::target::{Others, Report, Snapshot, Summary, Target, TargetError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::act::{Act, Followed, Intended, part, step_in_package};
use crate::deploy::remove_directory;
use crate::draft;
use crate::error::EngineError;
use crate::history::payload;
use crate::observer::Happening;
use crate::session::Session;
use crate::step::Run;
use crate::step_view::StepView;

/// What an announcement of a command says of what was kept before it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// One note for each of what it is followed in.
    #[serde(default)]
    snapshots: Vec<Value>,
    /// By what the command's sessions are known, where others may be at work meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<String>,
}

impl StepView {
    /// The snapshots that its command was announced with; none where it is no such command, or was not run.
    fn snapshots(&self) -> Option<Vec<Value>> {
        let kept: Kept = serde_json::from_value(self.intended.summary.note.clone()).ok()?;
        Some(kept.snapshots).filter(|notes| !notes.is_empty() && notes.len() == self.act().followed().len())
    }

    /// True where others could be at work while its command ran.
    fn has_company(&self) -> bool {
        self.intended.summary.note["mark"].is_string()
    }
}

impl Run<'_, '_> {
    fn snapshot_at(&self, frame: &FramePath, index: u32, number: usize, note: Value) -> Snapshot {
        let step = format!("{}@{index}", frame.to_string().replace('/', "+"));
        let directory = captures(self.session).join(self.view.id.as_str()).join(step).join(number.to_string());
        Snapshot { directory, note, mark: None }
    }

    /// By what the sessions of a command are known; none where nobody else is at work anyhow, or all counts.
    fn mark(&self) -> Option<String> {
        let records = self.view.planned.as_ref().is_some_and(|planned| planned.recording);
        (!self.view.in_maintenance && !records).then(|| format!("backout-{}", self.view.id))
    }

    /// What the sessions of a command take their mark from. What is there already stands behind it.
    pub(crate) fn marks(&mut self, act: &Act) -> Result<Vec<(String, OsString)>, EngineError> {
        let Some(mark) = self.mark() else { return Ok(Vec::new()) };
        let mut marks: Vec<(String, OsString)> = Vec::new();
        for one in act.followed() {
            let Some(name) = self.session.targets.of(&one.act(""))?.marked_by() else { continue };
            if marks.iter().all(|(known, _)| known != name) {
                let mut value = OsString::from(&mark);
                if let Some(theirs) = std::env::var_os(name).filter(|theirs| !theirs.is_empty()) {
                    value.push(" ");
                    value.push(theirs);
                }
                marks.push((name.to_owned(), value));
            }
        }
        Ok(marks)
    }

    /// Keeps the state of everything that a command is followed in; what the announcement says of it.
    pub(crate) fn keep_before(&mut self, frame: &FramePath, index: u32, act: &Act) -> Result<Summary, EngineError> {
        let followed = act.followed().to_vec();
        if followed.is_empty() {
            return Ok(Summary::default());
        }
        self.session.observer.heard(Happening::Phase { name: "copying" });
        let mark = self.mark();
        let snapshots: Vec<Snapshot> = (0..followed.len())
            .map(|number| Snapshot { mark: mark.clone(), ..self.snapshot_at(frame, index, number, Value::Null) })
            .collect();
        let taken = snapshots
            .iter()
            .try_for_each(|snapshot| private_directory(&snapshot.directory))
            .and_then(|()| self.session.targets.all_of(&followed))
            .map(|targets| at_once(targets, &snapshots))?;
        // Something, so that a list of notes is a list of snapshots. Whether a copy came about where one failed nobody knows.
        let noted = |taken: &Result<Value, TargetError>| match taken {
            Ok(Value::Null) => json!({}),
            Ok(note) => note.clone(),
            Err(_) => Value::Null,
        };
        let kept = Kept { snapshots: taken.iter().map(noted).collect(), mark };
        if let Some(error) = taken.into_iter().find_map(Result::err) {
            self.give_up(frame, index, act, &kept.snapshots);
            return Err(error.into());
        }
        let first = self.snapshot_at(frame, index, 0, Value::Null).directory;
        if let Err(error) = sync_above(&captures(self.session), &first) {
            self.give_up(frame, index, act, &kept.snapshots);
            return Err(error);
        }
        Ok(Summary { note: payload(&kept)?, ..Summary::default() })
    }

    /// What was kept before a command, for each of what it is followed in.
    pub(crate) fn kept_before(&self, frame: &FramePath, index: u32) -> Vec<Snapshot> {
        let step = self.view.steps.get(&(frame.clone(), index));
        let notes = step.and_then(StepView::snapshots).unwrap_or_default();
        (0..).zip(notes).map(|(number, note)| self.snapshot_at(frame, index, number, note)).collect()
    }

    /// Announces what a command changed, wherever that is not done yet.
    pub(crate) fn find_changes(&mut self, frame: &FramePath, index: u32) -> Result<Report, EngineError> {
        let Some(step) = self.view.steps.get(&(frame.clone(), index)).cloned() else { return Ok(Report::default()) };
        let Some(notes) = step.snapshots() else { return Ok(Report::default()) };
        self.session.observer.heard(Happening::Phase { name: "comparing" });
        let mut all = Report::default();
        for (number, (one, note)) in step.act().followed().iter().zip(notes).enumerate() {
            let at = part(index, number);
            if self.is_found(frame, at, step.seq)? {
                continue;
            }
            let snapshot = self.snapshot_at(frame, index, number, note);
            let command = step.act().command_line();
            if step.has_company() {
                self.find_others(&step, number, one, &snapshot)?;
            }
            let act = one.act(&command);
            let epoch = self.session.epoch_for(&act);
            let intended = payload(&Intended { act: act.clone(), epoch, summary: Summary::default() })?;
            let compared = loop {
                let draft = self.draft(Event::StepIntended, frame, Some(at), intended.clone());
                let compared = self.through_gate(draft, epoch, |targets, gate| {
                    Ok(targets.of(&act)?.compare(&snapshot, &command, gate)?)
                });
                let is_refused = matches!(&compared, Err(EngineError::Target(TargetError::Refused(_))));
                if !(is_refused && self.session.targets.of(&act)?.compares_otherwise()) {
                    break compared;
                }
            };
            if let Err(EngineError::Target(TargetError::Refused(_))) = &compared
                && !self.view.is_recording()
            {
                // No step could take it back: all of it goes now, and the command has failed.
                self.session.targets.of(&act)?.put_back_whole(&snapshot)?;
                self.session.warn(format!("{} was put back as it was before the command", one.label()));
            }
            let report = compared?;
            self.put(Event::StepApplied, frame, Some(at), payload(&report)?)?;
            all.summary.changes += report.summary.changes;
            all.summary.rows += report.summary.rows;
            all.notes.extend(report.notes);
        }
        Ok(all)
    }

    /// Announces what others changed in one place while a command ran, and tells it.
    fn find_others(
        &mut self,
        step: &StepView,
        number: usize,
        one: &Followed,
        snapshot: &Snapshot,
    ) -> Result<(), EngineError> {
        let at = part(step.index, step.act().followed().len() + number);
        if self.is_found(&step.frame, at, step.seq)? {
            return Ok(());
        }
        let command = step.act().command_line();
        let act = one.act_of_others(&command);
        let epoch = self.session.epoch_for(&act);
        let intended = payload(&Intended { act: act.clone(), epoch, summary: Summary::default() })?;
        let draft = self.draft(Event::StepIntended, &step.frame, Some(at), intended);
        let found = self.through_gate(draft, epoch, |targets, gate| {
            Ok(targets.of(&act)?.compare_others(snapshot, &command, gate)?)
        })?;
        let place = one.label();
        match found {
            Others::Nobody => {}
            Others::Untold { why } => self.session.warn(format!(
                "what others wrote to {place} while `{command}` ran is not told from its own writes, counts as the command's, and \
                 goes with its undo: {why}; `maintenance:` in site.yaml keeps them out"
            )),
            Others::Wrote { report, announced } => {
                if announced {
                    self.put(Event::StepApplied, &step.frame, Some(at), payload(&report)?)?;
                    self.session.warn(format!(
                        "others wrote to {place} while `{command}` ran; that stays when the command is undone, unless \
                         `--include-unattributed` is given"
                    ));
                }
                for note in report.notes {
                    self.session.warn(format!("{place}, written by others: {note}"));
                }
            }
        }
        Ok(())
    }

    /// Whether what a command changed in one place was announced and holds; one that was announced and did not commit is
    /// found again.
    fn is_found(&mut self, frame: &FramePath, at: u32, since: u64) -> Result<bool, EngineError> {
        let of_this_run = |run: &Self| {
            run.view.steps.get(&(frame.clone(), at)).filter(|part| part.seq > since).map(|part| part.state)
        };
        if of_this_run(self) == Some(StepState::Intended) {
            self.settle(frame, at)?;
        }
        Ok(of_this_run(self).is_some_and(|state| state != StepState::Discarded))
    }

    /// Finds what commands changed of which no end is known, so that their steps are among those to undo.
    pub(crate) fn find_all_changes(&mut self, part: &FramePath) -> Result<(), EngineError> {
        let open: Vec<(FramePath, u32)> = self
            .view
            .steps
            .values()
            .filter(|step| step.state == StepState::Intended && part.contains(&step.frame))
            .filter(|step| step.snapshots().is_some())
            .map(|step| (step.frame.clone(), step.index))
            .collect();
        for (frame, index) in open {
            self.find_changes(&frame, index)?;
        }
        Ok(())
    }

    /// True for what a command changed of which no end is known: it goes back with the command.
    pub(crate) fn is_of_open_command(&self, step: &StepView) -> bool {
        let command = self.view.steps.get(&(step.frame.clone(), step_in_package(step.index)));
        matches!(step.act(), Act::Captured { .. })
            && command.is_some_and(|command| command.state == StepState::Intended)
    }

    /// Gives up what was kept before a command, once nothing needs it any more.
    pub(crate) fn give_up_snapshots(&mut self, frame: &FramePath, index: u32) {
        let Some(step) = self.view.steps.get(&(frame.clone(), index)).cloned() else { return };
        if let Some(notes) = step.snapshots() {
            self.give_up(frame, index, step.act(), &notes);
        }
    }

    /// Gives up what was kept before a command that did not run. `kept`: as its announcement has it.
    pub(crate) fn give_up_unannounced(&mut self, frame: &FramePath, index: u32, act: &Act, kept: &Value) {
        let kept: Kept = serde_json::from_value(kept.clone()).unwrap_or_default();
        self.give_up(frame, index, act, &kept.snapshots);
    }

    /// Where a copy could not be given up its directory stays: by that [`sweep`] knows that there is one.
    fn give_up(&mut self, frame: &FramePath, index: u32, act: &Act, notes: &[Value]) {
        let mut all = true;
        for (number, (one, note)) in act.followed().iter().zip(notes).enumerate() {
            let snapshot = self.snapshot_at(frame, index, number, note.clone());
            let given_up = self.session.targets.of(&one.act("")).and_then(|target| Ok(target.give_up(&snapshot)?));
            if let Err(error) = given_up {
                all = false;
                self.session.warn(format!("a copy of {} stays: {}", one.label(), error.causes().join(": ")));
            }
        }
        if !all {
            return;
        }
        if let Some(directory) = self.snapshot_at(frame, index, 0, Value::Null).directory.parent() {
            let directory = directory.to_owned();
            remove_directory(self.session, &directory);
        }
        // Gone with the last one.
        drop(std::fs::remove_dir(captures(self.session).join(self.view.id.as_str())));
        drop(std::fs::remove_dir(captures(self.session)));
    }
}

/// Removes what stops of a recording that died left of packages; where that fails it is told, and tried again by the next.
pub(crate) fn remove_drafts(session: &mut Session<'_>, id: &DeploymentId) {
    let directory = captures(session).join(id.as_str());
    if let Err(error) = draft::remove_unfinished(&directory) {
        session.warn(format!("the beginning of a package stays: {error}"));
    }
}

/// Takes a snapshot of each target, all at once: one may wait for its server while another copies files here.
fn at_once(targets: Vec<&mut dyn Target>, snapshots: &[Snapshot]) -> Vec<Result<Value, TargetError>> {
    let each = targets.into_iter().zip(snapshots);
    if is_played() {
        return each.map(|(target, snapshot)| target.snapshot(snapshot)).collect();
    }
    thread::scope(|scope| {
        let running: Vec<_> = each.map(|(target, snapshot)| scope.spawn(move || target.snapshot(snapshot))).collect();
        running.into_iter().map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// Where copies of before lie, each deployment's in a directory of its own.
pub(crate) fn captures(session: &Session<'_>) -> PathBuf {
    session.config.state.join("captures")
}

/// Removes the copies of databases that no deployment needs: a process that died before it announced them, or right after
/// it was done with them, left them.
pub(crate) fn sweep(session: &mut Session<'_>) -> Result<(), EngineError> {
    let directory = captures(session);
    let reading = |source| EngineError::Io { act: format!("cannot read {}", directory.display()), source };
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(reading(error)),
    };
    let needed: Vec<DeploymentId> = session
        .journal
        .reader()
        .deployments()?
        .into_iter()
        .filter(|row| row.state.is_underway() || row.state == DeploymentState::NeedsHand)
        .map(|row| row.id)
        .collect();
    if needed.is_empty() {
        let nothing = Snapshot { directory: directory.clone(), note: Value::Null, mark: None };
        for root in session.targets.roots.values_mut() {
            root.give_up(&nothing)?;
        }
        for database in session.targets.databases.values_mut() {
            database.give_up(&nothing)?;
        }
    }
    for entry in entries {
        let entry = entry.map_err(reading)?;
        let id = entry.file_name().into_string().ok().and_then(|id| DeploymentId::try_from(id).ok());
        if let Some(id) = id.filter(|id| !needed.contains(id)) {
            remove_drafts(session, &id);
            remove_directory(session, &entry.path());
        }
    }
    if needed.is_empty() {
        drop(std::fs::remove_dir(&directory));
    }
    Ok(())
}

fn private_directory(path: &Path) -> Result<(), EngineError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| EngineError::Io { act: format!("cannot make {}", path.display()), source })
}

/// Makes the directories durable that lead from the site's state to `below`.
fn sync_above(top: &Path, below: &Path) -> Result<(), EngineError> {
    point(Point::DirSync)
        .map_err(|source| EngineError::Io { act: "cannot sync what was copied".to_owned(), source })?;
    if !syncs_issued() {
        return Ok(());
    }
    for directory in below.ancestors().skip(1).take_while(|path| path.starts_with(top)).chain(top.parent()) {
        std::fs::File::open(directory)
            .and_then(|opened| opened.sync_all())
            .map_err(|source| EngineError::Io { act: format!("cannot sync {}", directory.display()), source })?;
    }
    Ok(())
}
