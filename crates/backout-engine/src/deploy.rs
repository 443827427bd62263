//! The main job: plan, check, apply frame by frame, check again; and when something fails, take it all back.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backout_journal::Reader;
use backout_model::conflict::{Conflicts, OnConflict};
use backout_model::id::FramePath;
use backout_model::state::{DeploymentState, Event, FrameState, StepState};
use backout_model::words;
use backout_package::package::Package;
use backout_package::signature::{self, Signed};
use backout_package::site::Site;
use backout_package::snapshot::{Snapshot, snapshot};
use serde_json::Value;

use crate::confirm;
use crate::error::EngineError;
use crate::frame::{Applying, Trouble};
use crate::history::{ConfirmDue, Planned, StepView, View, Why, payload};
use crate::lookup::directories;
use crate::observer::Happening;
use crate::outcome::{Left, LeftOut, NOTHING_CHANGED, Outcome, Status, UNDONE_AND_VERIFIED};
use crate::plan::plan;
use crate::restored::way_back;
use crate::session::{Session, Targets};
use crate::step::{Run, surely};
use crate::when::at;

/// How what an automatic undo kept is told where conflicts are not.
const KEPT: &str = "kept as somebody else left it: ";

/// How a deployment is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// Steps declared `undo: none` may run.
    pub accept_irreversible: bool,
    /// Where the package came from, as the user wrote it.
    pub source: PathBuf,
    /// It is undone unless it is confirmed within this time of its end.
    pub confirm_within: Option<Duration>,
}

/// Deploys a package. An error means that nothing was started.
pub fn deploy(session: &mut Session<'_>, package: &Package, options: Options) -> Result<Outcome, EngineError> {
    if session.on_scratch.is_none() {
        requirements(session.journal.reader(), package)?;
    }
    // What an undo on a full disk will need must be there before anything begins.
    session.journal.make_reserve()?;
    session.observer.heard(Happening::Phase { name: "planning" });
    plannable(&session.config, &mut session.targets, package, options.accept_irreversible)?;
    let mut run = announced(session, package, options, false)?;
    let root = FramePath::root();
    let package = run.view.manifest()?.clone();
    let checked = run.check_before(&package);
    if let Some(why) = run.unless_refused(checked)? {
        let mut outcome = Outcome::new(Status::Refused, NOTHING_CHANGED);
        outcome.causes = vec![format!("a condition of {} does not hold", package.name), why];
        outcome.deployment = Some(run.view.id.clone());
        return Ok(outcome);
    }
    let backed_up = run.back_up();
    run.unless_refused(backed_up.map(|()| None))?;
    run.put(Event::DeploymentApplying, &root, None, Value::Null)?;
    run.apply_root(&package).map_err(EngineError::under_way)
}

/// Copies the package and writes the beginning of its deployment, durably. After an error there is none. `recording`: it is
/// what happens on the site until somebody stops it.
pub(crate) fn announced<'s, 'o>(
    session: &'s mut Session<'o>,
    package: &Package,
    options: Options,
    recording: bool,
) -> Result<Run<'s, 'o>, EngineError> {
    let id = session.new_id();
    let copy = session.package_copy(&id);
    let digest = package.digest()?;
    private_directory(&copy)?;
    let Snapshot { package: manifest, digest: copied } = match snapshot(package, &copy) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            remove_directory(session, &copy);
            return Err(error.into());
        }
    };
    let planned = Planned {
        package: package.name.clone(),
        version: package.version.clone(),
        requires: package.requires.clone(),
        manifest,
        digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        copy: Some(copied),
        source: options.source,
        confirm_within_ms: options.confirm_within.map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX)),
        recording,
    };
    session.observer.heard(Happening::Deployment {
        id: id.clone(),
        package: package.name.clone(),
        version: package.version.clone(),
    });
    let mut run = Run::new(session, View::new(id));
    run.packages = directories(package);
    let root = FramePath::root();
    let begun = run
        .put(Event::DeploymentPlanned, &root, None, payload(&planned)?)
        .and_then(|()| run.put_durably(Event::DeploymentChecking, &root, None, Value::Null));
    if let Err(error) = begun {
        remove_copy(&mut run);
        return Err(error);
    }
    Ok(run)
}

/// Everything must be undoable, or be accepted as it is.
pub(crate) fn plannable(
    site: &Site,
    targets: &mut Targets,
    package: &Package,
    accept_irreversible: bool,
) -> Result<(), EngineError> {
    let totals = plan(site, targets, package, &mut |_| {})?;
    if totals.refused > 0 {
        return Err(EngineError::Refused(totals.refusals));
    }
    if !totals.irreversible.is_empty() && !accept_irreversible {
        return Err(EngineError::not_now(
            format!("the package holds steps that cannot be taken back: {}", totals.irreversible.join("; ")),
            "deploy with --accept-irreversible if that is meant",
        ));
    }
    Ok(())
}

/// By the site's `trust:` a package must be signed by somebody it trusts; one that is changed since it was signed is
/// refused in any case.
pub(crate) fn trusted(site: &Site, package: &Package) -> Result<(), EngineError> {
    let Some(trust) = &site.trust else { return Ok(()) };
    let mut keys = Vec::new();
    for file in &trust.keys {
        keys.extend(signature::read_keys(file)?);
    }
    let why = match signature::verify(package, &keys)? {
        Signed::By { .. } => return Ok(()),
        Signed::Not if !trust.require_signature => return Ok(()),
        Signed::Not => "it is not signed".to_owned(),
        Signed::Badly(why) => why,
    };
    Err(EngineError::not_now(
        format!("{} {} is not trusted: {why}", package.name, package.version),
        "`backout sign PACKAGE --key FILE` signs it, with a key that `trust:` in site.yaml names",
    ))
}

/// What the package requires must be on the site.
pub(crate) fn requirements(reader: &Reader, package: &Package) -> Result<(), EngineError> {
    let rows = reader.deployments()?;
    if let Some(row) = rows.iter().find(|row| row.state == DeploymentState::NeedsHand) {
        return Err(EngineError::not_now(
            format!("deployment {} ({}) needs a hand first", row.id, row.package),
            format!("`backout status` says what is left; `backout undo {}` tries again", row.id),
        ));
    }
    confirm::none_awaits(reader)?;
    for name in &package.requires {
        if !rows.iter().any(|row| row.package == *name && row.state.is_on_site()) {
            return Err(EngineError::not_now(
                format!("{} requires `{name}`, which is not deployed on this site", package.name),
                format!("deploy `{name}` first"),
            ));
        }
    }
    Ok(())
}

/// Makes the directory in which `path` will stand, for nobody else's eyes.
fn private_directory(path: &Path) -> Result<(), EngineError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)
        .map_err(|source| EngineError::Io { act: format!("cannot make {}", parent.display()), source })
}

pub(crate) fn remove_copy(run: &mut Run<'_, '_>) {
    let copy = run.session.package_copy(&run.view.id);
    remove_directory(run.session, &copy);
}

pub(crate) fn remove_directory(session: &mut Session<'_>, directory: &Path) {
    if let Err(error) = std::fs::remove_dir_all(directory)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        session.warn(format!("cannot remove {}: {error}", directory.display()));
    }
}

impl Run<'_, '_> {
    /// Passes on what came before the first step; where that is an error or a reason to refuse, the journal says so.
    fn unless_refused(&mut self, came: Result<Option<String>, EngineError>) -> Result<Option<String>, EngineError> {
        let causes = match &came {
            Ok(None) => return came,
            Ok(Some(why)) => vec![why.clone()],
            Err(error) => error.causes(),
        };
        self.refused_because(causes)?;
        came
    }

    /// Writes that it was refused before its first step.
    pub(crate) fn refused_because(&mut self, causes: Vec<String>) -> Result<(), EngineError> {
        let why = payload(&Why::because(causes))?;
        let root = FramePath::root();
        surely(|| self.put_durably(Event::DeploymentRefused, &root, None, why.clone()))?;
        remove_copy(self);
        Ok(())
    }

    fn check_before(&mut self, package: &Package) -> Result<Option<String>, EngineError> {
        if !package.before.is_empty() {
            self.session.observer.heard(Happening::Phase { name: "checking" });
        }
        let root = FramePath::root();
        let directory = self.directory(&root, &package.dir);
        self.session.check_all(&root, &package.before, &directory)
    }

    /// From the first step to the end, whichever that is.
    fn apply_root(&mut self, package: &Package) -> Result<Outcome, EngineError> {
        let root = FramePath::root();
        let mut applying = Applying { run: self, left_out: Vec::new(), left: Left::default() };
        let result = applying.root(package);
        let Applying { left_out, left, .. } = applying;
        let result = result.and_then(|()| {
            if left.is_empty() {
                self.finally(&root);
                self.done()?;
            }
            Ok(())
        });
        let mut outcome = match result {
            // A plain list goes on, but the part that failed is not as it was before.
            Ok(()) if !left.is_empty() => self.needs_hand(left_out.into_iter().map(|left| left.why).collect(), left)?,
            Ok(()) => self.deployed(left_out)?,
            Err(trouble) => self.fail(trouble, left)?,
        };
        outcome.deployment = Some(self.view.id.clone());
        outcome.notes.append(&mut self.notes);
        Ok(self.closed(outcome))
    }

    /// Writes that the deployment is done, and where that was asked for, until when it is to be confirmed.
    pub fn done(&mut self) -> Result<u64, EngineError> {
        let root = FramePath::root();
        if let Some(within) = self.view.planned.as_ref().and_then(|planned| planned.confirm_within_ms) {
            let until_ms = self.session.journal.now_ms().saturating_add(within);
            self.put(Event::DeploymentConfirmDue, &root, None, payload(&ConfirmDue { until_ms })?)?;
        }
        self.put_durably(Event::DeploymentDone, &root, None, Value::Null)
    }

    fn deployed(&mut self, left_out: Vec<LeftOut>) -> Result<Outcome, EngineError> {
        let id = self.view.id.clone();
        let status = if left_out.is_empty() { Status::Done } else { Status::Partly };
        let mut outcome = Outcome::new(
            status,
            if left_out.is_empty() {
                format!("Deployed. `backout undo {id}` takes it back.")
            } else {
                format!("Deployed in part. `backout undo {id}` takes back what is applied.")
            },
        );
        if let Some(until) = self.view.confirm_until_ms {
            let deployed = if status == Status::Done { "Deployed" } else { "Deployed in part" };
            outcome.closing = format!("{deployed}. It is undone {} unless `backout confirm` comes first.", at(until));
        }
        outcome.answer.push(format!("deployed {} as {id}", self.view.name()));
        let passed_over = |left: &&LeftOut| {
            let path = left.what.split_once('/').map(|(_, path)| FramePath::parse(path));
            let frame = path.and_then(|path| self.view.frames.get(&path));
            frame.is_some_and(|frame| frame.state == FrameState::PassedOver)
        };
        outcome.hints.extend(left_out.iter().filter(passed_over).map(|left| format!("backout retry {}", left.what)));
        outcome.left_out = left_out;
        Ok(outcome)
    }

    /// Takes everything back after a failure of the root frame (or at a resume).
    pub fn fail(&mut self, trouble: Trouble, mut left: Left) -> Result<Outcome, EngineError> {
        let root = FramePath::root();
        let why = Why::because(trouble.causes.clone());
        if trouble.fatal {
            return self.needs_hand(trouble.causes, left);
        }
        // A recovery that died itself finds it written already.
        if self.view.state != Some(DeploymentState::Failing) {
            surely(|| self.put_durably(Event::DeploymentFailing, &root, None, payload(&why)?))?;
        }
        // The smoke tests saw the site open; its users need not see it being undone.
        if let Err(error) = self.enter_maintenance() {
            self.session.warn(format!("undone outside maintenance mode: {}", error.causes().join(": ")));
        }
        match self.undo_part(&root) {
            Ok(more) => left.extend(more),
            Err(error) => {
                let mut causes = trouble.causes;
                causes.extend(error.causes());
                return self.needs_hand(causes, left);
            }
        }
        self.leave_maintenance();
        if !left.is_empty() {
            return self.needs_hand(trouble.causes, left);
        }
        self.finally(&root);
        surely(|| self.put_durably(Event::DeploymentFailedClean, &root, None, Value::Null))?;
        self.forget(&root);
        remove_copy(self);
        let mut outcome = Outcome::new(Status::Failed, UNDONE_AND_VERIFIED);
        outcome.causes = std::iter::once(format!("{} failed", self.view.name())).chain(trouble.causes).collect();
        outcome.hints = trouble.hints;
        outcome.deployment = Some(self.view.id.clone());
        Ok(outcome)
    }

    /// The end that asks for a person: says what is left and how to go on.
    pub fn needs_hand(&mut self, causes: Vec<String>, left: Left) -> Result<Outcome, EngineError> {
        let root = FramePath::root();
        let part = self.view.part.as_ref().map(|part| part.frame.clone()).unwrap_or_default();
        self.finally(&part);
        let kept = left.kept;
        let done = |path: &FramePath| self.view.frames.get(path).is_some_and(|frame| frame.state == FrameState::Done);
        // In a plain list that came to its end, what is done is meant to stay.
        let ended = done(&root);
        let left: Vec<String> = self
            .view
            .steps_to_undo(&root)
            .iter()
            .filter(|step| !ended || !done(&step.frame))
            .map(|step| step.stays().unwrap_or_else(|| format!("not taken back: {}", step.act().words())))
            .chain(kept.listed.iter().map(|conflict| format!("{KEPT}{conflict}")))
            .collect();
        let why = Why { causes: causes.clone(), left: left.clone(), ..Why::default() };
        surely(|| self.put_durably(Event::DeploymentNeedsHand, &root, None, payload(&why)?))?;
        let id = self.view.id.clone();
        let mut outcome = Outcome::new(
            Status::NeedsHand,
            format!(
                "Needs a hand: left as it should not be: {}; `backout undo {id}` goes on from here.",
                words::count(left.len().max(1) as u64, "thing")
            ),
        );
        let own = |step: &StepView| step.state == StepState::UndoIntended && step.act().has_own_undo();
        if self.view.steps.values().any(own) {
            outcome.hints.push(format!("backout undo {id} --on-conflict keep  goes on without the undo that failed"));
        }
        outcome.hints.extend(self.view.backup.as_ref().map(way_back));
        outcome.deployment = Some(id);
        outcome.causes = causes;
        self.notes.retain(|note| !left.contains(note));
        // What was kept is told as the conflicts that it is.
        outcome.notes = left.into_iter().filter(|note| !note.starts_with(KEPT)).collect();
        outcome.notes.append(&mut self.notes);
        outcome.conflicts_total = kept.total;
        outcome.conflicts = kept.listed;
        Ok(outcome)
    }

    /// Undoes a frame and all inside it, latest step first, as an automatic undo does: nobody to ask, so a column or
    /// file that somebody else changed too keeps the newer value. Returns what is not as it was before.
    pub fn undo_part(&mut self, part: &FramePath) -> Result<Left, EngineError> {
        self.find_all_changes(part)?;
        self.session.observer.heard(Happening::Phase { name: "undoing" });
        let mut kept = Conflicts::default();
        for step in self.view.steps_to_undo(part) {
            let report = self.undo_surely(&step.frame, step.index, OnConflict::Keep)?;
            kept.extend(report.conflicts);
        }
        self.frames_undone(part)?;
        Ok(Left { kept, irreversible: self.view.leaves(part) })
    }

    /// Marks the frames inside `part`, and `part` itself where it failed, as taken back.
    pub fn frames_undone(&mut self, part: &FramePath) -> Result<(), EngineError> {
        let inside: Vec<(FramePath, FrameState)> = self
            .view
            .frames
            .iter()
            .filter(|(path, _)| part.contains(path))
            .map(|(path, frame)| (path.clone(), frame.state))
            .rev()
            .collect();
        for (path, state) in inside {
            match state {
                FrameState::Failing => self.put(Event::FrameFailed, &path, None, Value::Null)?,
                FrameState::Started | FrameState::Done => self.put(Event::FrameUndone, &path, None, Value::Null)?,
                FrameState::Failed | FrameState::PassedOver | FrameState::Undone => {}
            }
        }
        Ok(())
    }
}
