//! Recording: what happens on a staging site between a start and a stop, whoever does it, becomes a package.
//!
//! A recording is a deployment whose one step is a command that nobody runs: its start keeps the state before, its stop
//! finds what changed since, by the same means as for a captured command. So `undo` takes back on this site what was
//! recorded, and a crash in between is no loss: the recording goes on until it is stopped or given up. Nothing else is
//! deployed meanwhile.

use std::path::{Path, PathBuf};

use backout_journal::Reader;
use backout_model::id::FramePath;
use backout_model::review::Review;
use backout_model::state::{DeploymentState, Event, StepState};
use backout_package::package::{MANIFEST, Package};
use backout_package::site::Site;
use serde_json::Value;

use crate::act::{Act, Intended};
use crate::deploy::{self, Options};
use crate::error::EngineError;
use crate::history::{FrameStarted, View, Why, payload};
use crate::outcome::{Outcome, Status};
use crate::session::{Session, Targets};
use crate::step::{Run, surely};
use crate::{capture, draft, when};

/// The package of a recording, and its one step.
const NAME: &str = "recording";
const COMMAND: &str = "the recording";

/// How a recording ends.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Where a package is made of it; a directory that is not there yet.
    pub package: Option<PathBuf>,
    /// What does not go into the package: `TABLE`, `DATABASE.TABLE`, rows with a value that begins so as `TABLE=TEXT`,
    /// `ROOT:PATH`.
    pub leave_out: Vec<String>,
    /// What was kept is given up, and nobody looks at what happened.
    pub abandon: bool,
}

impl View {
    /// True for a recording that goes on.
    pub fn is_recording(&self) -> bool {
        self.planned.as_ref().is_some_and(|planned| planned.recording)
            && self.state == Some(DeploymentState::Applying)
            && self.steps.contains_key(&(FramePath::root(), 0))
    }
}

/// The recording that goes on.
pub fn under_way(reader: &Reader) -> Result<Option<View>, EngineError> {
    let Some(row) = reader.unfinished()? else { return Ok(None) };
    Ok(Some(View::load(reader, &row.id)?).filter(View::is_recording))
}

/// Refuses where none goes on.
pub fn is_under_way(reader: &Reader) -> Result<View, EngineError> {
    under_way(reader)?
        .ok_or_else(|| EngineError::not_now("nothing is being recorded on this site", "`backout capture start` begins"))
}

/// Refuses while a recording goes on.
pub fn none_under_way(reader: &Reader) -> Result<(), EngineError> {
    match under_way(reader)? {
        None => Ok(()),
        Some(view) => Err(EngineError::not_now(
            format!("what happens on this site is being recorded since {}", when::on(view.planned_ms)),
            "`backout capture stop --package NAME` makes a package of it, `backout capture stop --abandon` gives it up",
        )),
    }
}

/// Refuses what could not be recorded, where nothing was ever deployed.
pub fn may_start(targets: &mut Targets, reader: &Reader) -> Result<(), EngineError> {
    none_under_way(reader)?;
    for database in targets.databases.values_mut() {
        database.snapshot_size()?;
    }
    for root in targets.roots.values_mut() {
        root.snapshot_size()?;
    }
    Ok(())
}

/// Begins one: keeps the state of all databases and roots. An error means that nothing was started.
pub fn start(session: &mut Session<'_>) -> Result<Outcome, EngineError> {
    may_start(&mut session.targets, session.journal.reader())?;
    session.journal.make_reserve()?;
    let version = when::stamp(session.journal.now_ms());
    let source = tempfile::Builder::new().prefix(NAME).tempdir_in(&session.config.state);
    let source = source
        .map_err(|source| EngineError::Io { act: "cannot make a directory for the recording".to_owned(), source })?;
    let file = source.path().join(MANIFEST);
    let text = format!(
        "package: {NAME}\nversion: \"{version}\"\nsteps:\n  - run: [{}]\n    capture: all\n",
        Value::from(COMMAND)
    );
    std::fs::write(&file, text)
        .map_err(|source| EngineError::Io { act: format!("cannot write {}", file.display()), source })?;
    let package = Package::load(source.path())?;
    deploy::requirements(session.journal.reader(), &package)?;
    let options = Options { accept_irreversible: false, source: session.config.file.clone(), confirm_within: None };
    let mut run = deploy::announced(session, &package, options, true)?;
    let package = run.view.manifest()?.clone();
    let root = FramePath::root();
    let act = package
        .steps
        .first()
        .map(|step| Act::of(&package, step, &run.session.database_names(), &run.session.root_names()));
    let act = act.transpose()?.flatten().ok_or_else(|| EngineError::History("a recording has no step".to_owned()))?;
    let summary = match run.keep_before(&root, 0, &act) {
        Ok(summary) => summary,
        Err(error) => {
            run.refused_because(error.causes())?;
            return Err(error);
        }
    };
    let kept = summary.note.clone();
    let epoch = run.session.epoch_for(&act);
    let intended = payload(&Intended { act: act.clone(), epoch, summary })?;
    let started = FrameStarted { package: package.name.clone(), version: package.version.clone(), attempt: 1 };
    let begun = run
        .put(Event::DeploymentApplying, &root, None, Value::Null)
        .and_then(|()| run.put(Event::FrameStarted, &root, None, payload(&started)?))
        .and_then(|()| run.put_durably(Event::StepIntended, &root, Some(0), intended));
    if let Err(error) = begun {
        run.give_up_unannounced(&root, 0, &act, &kept);
        return Err(error);
    }
    let mut outcome = Outcome::new(Status::Done, "Recording: nothing is deployed meanwhile.");
    outcome.deployment = Some(run.view.id.clone());
    outcome.answer.push(format!("recording as {}", run.view.id));
    outcome.hints.push("backout capture stop --package NAME  makes a package of what happens from now on".to_owned());
    outcome.notes.append(&mut run.notes);
    Ok(outcome)
}

/// Ends the one that goes on. After an error it goes on.
pub fn stop(session: &mut Session<'_>, stop: &Stop) -> Result<Outcome, EngineError> {
    let view = is_under_way(session.journal.reader())?;
    let mut run = Run::new(session, view);
    let id = run.view.id.clone();
    capture::remove_drafts(run.session, &id);
    if stop.abandon {
        return run.abandon();
    }
    let root = FramePath::root();
    let act = run.recorded()?;
    for one in act.followed() {
        run.session.targets.of(&one.act(""))?;
    }
    let draft = match &stop.package {
        None => None,
        Some(into) => {
            run.is_not_told_yet()?;
            let snapshots = run.kept_before(&root, 0);
            Some((into, draft::draft(run.session, &run.view, act.followed(), &snapshots, into, &stop.leave_out)?))
        }
    };
    // What the package holds was read before: whoever went on working meanwhile has it in the history alone.
    let report = run.find_changes(&root, 0)?;
    let review = match draft {
        None => None,
        Some((into, draft)) => Some((into, draft.settle(into)?)),
    };
    run.put(Event::StepApplied, &root, Some(0), Value::Null)?;
    run.put(Event::FrameDone, &root, None, Value::Null)?;
    run.put(Event::DeploymentVerifying, &root, None, Value::Null)?;
    run.done().map_err(EngineError::under_way)?;
    capture::remove_drafts(run.session, &id);
    run.give_up_snapshots(&root, 0);
    Ok(run.stopped(report.notes, review))
}

impl Run<'_, '_> {
    fn recorded(&self) -> Result<Act, EngineError> {
        let step = self.view.steps.get(&(FramePath::root(), 0)).filter(|step| step.state == StepState::Intended);
        let act = step.map(|step| step.act().clone());
        act.ok_or_else(|| EngineError::History("a recording goes on without its step".to_owned()))
    }

    /// A stop that died told what happened to some of the databases and roots: a package would lack that.
    fn is_not_told_yet(&self) -> Result<(), EngineError> {
        let told = self
            .view
            .steps
            .values()
            .any(|step| matches!(step.act(), Act::Captured { .. }) && step.state != StepState::Discarded);
        if !told {
            return Ok(());
        }
        Err(EngineError::not_now(
            "a stop was interrupted when it had told already what happened to a part of the site: no package can be made any more",
            format!(
                "`backout capture stop` ends the recording; `backout undo {}` then takes back what was recorded",
                self.view.id
            ),
        ))
    }

    fn abandon(&mut self) -> Result<Outcome, EngineError> {
        let root = FramePath::root();
        self.give_up_snapshots(&root, 0);
        let why = "the recording was given up; what happened stays";
        let why = payload(&Why { causes: vec![why.to_owned()], gone: true, ..Why::default() })?;
        surely(|| self.put_durably(Event::DeploymentGivenUp, &root, None, why.clone()))?;
        deploy::remove_copy(self);
        let mut outcome = Outcome::new(Status::Done, "The recording was given up; what happened on the site stays.");
        outcome.deployment = Some(self.view.id.clone());
        outcome.notes.append(&mut self.notes);
        Ok(outcome)
    }

    fn stopped(&mut self, notes: Vec<String>, package: Option<(&PathBuf, Review)>) -> Outcome {
        let id = self.view.id.clone();
        let closing = format!("Recorded. `backout undo {id}` takes it back on this site.");
        let mut outcome = Outcome::new(Status::Done, closing);
        if let Some((into, review)) = package {
            outcome.answer.push(format!("recorded {} into {}", id, into.display()));
            let place =
                |(concern, place, noted): (backout_model::review::Concern, &str, &backout_model::review::Noted)| {
                    format!(
                        "{}: {place}{}",
                        concern.words().0,
                        if noted.times > 1 { format!(" ({} times)", noted.times) } else { String::new() }
                    )
                };
            outcome.notes.extend(review.all().map(place));
            outcome.hints.push(format!("read {} before you deploy it elsewhere", into.join(draft::REVIEW).display()));
        } else {
            outcome.answer.push(format!("recorded {id}"));
        }
        outcome.deployment = Some(id);
        outcome.notes.extend(notes);
        outcome.notes.append(&mut self.notes);
        outcome
    }
}

/// Refuses a place where no package can be made: one that is taken, or inside what a recording sees or an undo needs.
pub fn may_hold(site: &Site, into: &Path) -> Result<(), EngineError> {
    is_free(into)?;
    let above = draft::above(into);
    let above = above
        .canonicalize()
        .map_err(|source| EngineError::Io { act: format!("cannot find {}", above.display()), source })?;
    let lies_in = |path: &Path| path.canonicalize().is_ok_and(|path| above.starts_with(path));
    let inside = |what: String| {
        Err(EngineError::usage(format!("{} lies inside {what}: an undo would take it away", into.display())))
    };
    if let Some(root) = site.roots.iter().find(|root| lies_in(&root.path)) {
        return inside(format!("the root `{}`", root.name));
    }
    if lies_in(&site.state) { inside("the state directory".to_owned()) } else { Ok(()) }
}

/// A place where nothing is.
pub(crate) fn is_free(into: &Path) -> Result<(), EngineError> {
    if into.symlink_metadata().is_ok() {
        return Err(EngineError::usage(format!("{} is there already", into.display())));
    }
    Ok(())
}
