//! Runs a child again that failed and was passed over.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use backout_model::conflict::OnConflict;
use backout_model::id::FramePath;
use backout_model::state::{DeploymentState, Event, FrameState};
use backout_package::package::Package;
use backout_package::step::StepKind;
use serde_json::Value;
use tempfile::TempDir;

use crate::confirm;
use crate::error::{EngineError, causes};
use crate::frame::{Applying, Trouble};
use crate::history::{Part, View, payload};
use crate::lookup::{directories, find, package_at, split};
use crate::outcome::{Left, Outcome, Status, UNDONE_AND_VERIFIED};
use crate::session::Session;
use crate::step::{Run, surely};

/// Retries `ID/CHILD`. The package must still be what was deployed: its digest is compared.
pub fn retry(session: &mut Session<'_>, what: &str) -> Result<Outcome, EngineError> {
    let (prefix, path) = split(what);
    let row = find(session.journal.reader(), prefix)?;
    let view = View::load(session.journal.reader(), &row.id)?;
    if path.is_root() {
        return Err(EngineError::Usage {
            what: "retry needs a child: ID/CHILD".to_owned(),
            hint: Some(format!("`backout show {}` lists the children that were passed over", view.id)),
        });
    }
    let passed_over = view.frames.get(&path).is_some_and(|frame| frame.state == FrameState::PassedOver);
    if !passed_over {
        return Err(EngineError::NotNow { what: format!("{path} of {} was not passed over", view.id), hint: None });
    }
    let above = path.parents();
    let on_site = view.state.is_some_and(DeploymentState::is_on_site);
    if !on_site || above.iter().any(|path| view.frames.get(path).is_none_or(|frame| frame.state != FrameState::Done)) {
        return Err(EngineError::not_now(
            format!("{path} cannot be retried: what it belongs to is not on the site"),
            "`backout redo` brings back what was last undone",
        ));
    }
    confirm::none_awaits(session.journal.reader())?;
    view.is_kept()?;
    let Source { package: fresh, opened } = source(session, &view)?;
    let stored = view.manifest()?;
    let child = match (package_at(stored, &path), package_at(&fresh, &path)) {
        (Some(stored), Some(fresh)) => with_sources(stored, fresh),
        _ => return Err(EngineError::History(format!("the package of {} has no child {path}", view.id))),
    };
    let mut run = Run::new(session, view);
    run.packages = directories(&fresh);
    let result = match run.missing(&child, &path)? {
        Some(missing) => Err(EngineError::not_now(
            missing.why,
            if missing.passed_over { "retry that one first" } else { "deploy that one first" },
        )),
        None => run.retry_now(&child, &path).map(|outcome| run.closed(outcome)),
    };
    if let Some(opened) = opened
        && let Err(error) = opened.close()
    {
        run.session.warn(format!("the opened bundle stays until the next deployment: {error}"));
    }
    result
}

/// A package as it lies where it was deployed from.
pub(crate) struct Source {
    pub package: Package,
    /// Where a bundle is opened; removed when it is dropped.
    opened: Option<TempDir>,
}

/// Refuses where that is no longer the package that was deployed.
pub(crate) fn source(session: &mut Session<'_>, view: &View) -> Result<Source, EngineError> {
    let planned =
        view.planned.as_ref().ok_or_else(|| EngineError::History(format!("deployment {} has no plan", view.id)))?;
    let path = &planned.source;
    let source = open(session, path).map_err(|error| match error {
        EngineError::Package(error) if error.is_usage() => EngineError::not_now(
            format!("{} cannot be retried from where it came from: {}", view.id, causes(&error).join(": ")),
            format!("put back what was deployed as {}", path.display()),
        ),
        error => error,
    })?;
    let digest: String = source.package.digest()?.iter().map(|byte| format!("{byte:02x}")).collect();
    if digest != planned.digest {
        return Err(EngineError::not_now(
            format!("{} is no longer what was deployed", path.display()),
            "deploy the changed package as a deployment of its own",
        ));
    }
    Ok(source)
}

fn open(session: &Session<'_>, path: &Path) -> Result<Source, EngineError> {
    if path.is_dir() {
        return Ok(Source { package: Package::load(path)?, opened: None });
    }
    // The next deployment removes what a killed run leaves there.
    let incoming = session.config.state.join("incoming");
    let opened = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&incoming)
        .and_then(|()| tempfile::Builder::new().prefix("retry-").tempdir_in(&incoming))
        .map_err(|source| EngineError::Io { act: format!("cannot open a bundle in {}", incoming.display()), source })?;
    Ok(Source { package: backout_package::bundle::open_within(path, opened.path())?, opened: Some(opened) })
}

/// The stored package (scripts from the copy that the deployment keeps) with the file trees of the fresh one.
fn with_sources(stored: &Package, fresh: &Package) -> Package {
    let mut package = stored.clone();
    for (step, fresh) in package.steps.iter_mut().zip(&fresh.steps) {
        match (&mut step.kind, &fresh.kind) {
            (StepKind::Files(files), StepKind::Files(fresh)) => files.source.clone_from(&fresh.source),
            (StepKind::Package(child), StepKind::Package(fresh)) => {
                child.package = with_sources(&child.package, &fresh.package)
            }
            _ => {}
        }
    }
    package
}

impl Run<'_, '_> {
    fn retry_now(&mut self, child: &Package, path: &FramePath) -> Result<Outcome, EngineError> {
        let root = FramePath::root();
        let part = payload(&Part::new(path.clone(), OnConflict::Stop))?;
        self.put_durably(Event::DeploymentRetrying, &root, None, part)?;
        self.retry_on(child, path).map_err(EngineError::under_way)
    }

    fn retry_on(&mut self, child: &Package, path: &FramePath) -> Result<Outcome, EngineError> {
        let root = FramePath::root();
        let entered = self.enter_maintenance();
        let mut applying = Applying { run: self, left_out: Vec::new(), left: Left::default() };
        let result = entered.map_err(Trouble::from).and_then(|()| applying.frame(child, path, 1));
        let Applying { left, left_out, .. } = applying;
        self.leave_maintenance();
        let done = self.view.frames.get(path).is_some_and(|frame| frame.state == FrameState::Done);
        match result {
            Err(trouble) if trouble.fatal || !left.is_empty() => self.needs_hand(trouble.causes, left),
            Err(trouble) if !done => self.retry_failed(path, trouble.causes),
            Err(_) | Ok(()) => {
                self.finally(path);
                let event = self.unless_partly_undone(Event::DeploymentDone);
                surely(|| self.put_durably(event, &root, None, Value::Null))?;
                let status = if left_out.is_empty() { Status::Done } else { Status::Partly };
                let mut outcome = Outcome::new(
                    status,
                    format!("Deployed. `backout undo {}` takes the whole deployment back.", self.view.id),
                );
                outcome.deployment = Some(self.view.id.clone());
                outcome.answer.push(format!("deployed {path} of {} ({})", self.view.name(), self.view.id));
                outcome.left_out = left_out;
                outcome.notes.append(&mut self.notes);
                Ok(outcome)
            }
        }
    }

    /// Where another child is undone, the deployment stays partly undone, so that a redo still finds it.
    fn unless_partly_undone(&self, event: Event) -> Event {
        if self.view.undone_frames().next().is_some() { Event::DeploymentPartlyUndone } else { event }
    }

    /// The child failed again and is undone; it is passed over as before. Also how a resume ends a retry.
    pub fn retry_failed(&mut self, path: &FramePath, causes: Vec<String>) -> Result<Outcome, EngineError> {
        let root = FramePath::root();
        self.finally(path);
        let why = payload(&crate::history::Why::because(causes.clone()))?;
        if self.view.frames.get(path).is_some_and(|frame| frame.state == FrameState::Failed) {
            self.put(Event::FramePassedOver, path, None, why)?;
        }
        let event = self.unless_partly_undone(Event::DeploymentRetryFailed);
        surely(|| self.put_durably(event, &root, None, Value::Null))?;
        let mut outcome = Outcome::new(Status::Failed, UNDONE_AND_VERIFIED);
        outcome.deployment = Some(self.view.id.clone());
        outcome.causes = std::iter::once(format!("{path} failed again")).chain(causes).collect();
        Ok(outcome)
    }
}
