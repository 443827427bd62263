//! Runs a package's frame: checks, steps and children in order; a frame that fails is undone before its parent hears.

use std::time::{Duration, Instant};

use backout_model::conflict::OnConflict;
use backout_model::id::FramePath;
use backout_model::state::{DeploymentState, Event, FrameState, StepState};
use backout_model::target::TargetError;
use backout_package::package::Package;
use backout_package::step::{Child, OnFailure, StepKind};
use serde_json::Value;

use crate::act::Act;
use crate::error::EngineError;
use crate::history::{FrameStarted, Why, payload};
use crate::observer::Happening;
use crate::outcome::{Left, LeftOut, STOPPED};
use crate::requires::Missing;
use crate::step::{Run, surely};

/// Why a frame did not come to its end.
#[derive(Default)]
pub(crate) struct Trouble {
    pub causes: Vec<String>,
    /// What the operator can do about it.
    pub hints: Vec<String>,
    /// The undo failed, or another process took the lock over: nothing more may be tried.
    pub fatal: bool,
}

impl Trouble {
    pub fn new(cause: impl Into<String>) -> Self {
        Self { causes: vec![cause.into()], ..Self::default() }
    }
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Self {
        let fatal = matches!(error, EngineError::Target(TargetError::LockLost(_)));
        Self { causes: error.causes(), hints: error.hints(), fatal }
    }
}

/// A deployment while it is being applied.
pub(crate) struct Applying<'r, 's, 'o> {
    pub run: &'r mut Run<'s, 'o>,
    pub left_out: Vec<LeftOut>,
    /// What the undo of a failed child, or of a failed step of a plain list, left behind.
    pub left: Left,
}

impl Applying<'_, '_, '_> {
    pub fn root(&mut self, package: &Package) -> Result<(), Trouble> {
        let root = FramePath::root();
        self.run.session.observer.heard(Happening::Phase { name: "applying" });
        self.run.enter_maintenance()?;
        self.start_frame(package, &root, 1)?;
        let outcome = self.steps(package, &root);
        let outcome = match outcome {
            Ok(()) => {
                self.run.put(Event::DeploymentVerifying, &root, None, Value::Null)?;
                self.run.leave_maintenance();
                self.after(package, &root)
            }
            Err(trouble) => Err(trouble),
        };
        match outcome {
            Ok(()) => {}
            Err(trouble) if !package.atomic && !trouble.fatal => {
                self.list_stays(&root, &trouble)?;
                if self.run.view.state == Some(DeploymentState::Applying) {
                    self.run.put(Event::DeploymentVerifying, &root, None, Value::Null)?;
                }
                self.run.leave_maintenance();
            }
            Err(trouble) => return Err(trouble),
        }
        self.end_frame(&root)
    }

    /// Runs a child's frame: checks, steps, checks. When it fails it is undone before its parent hears of it.
    pub fn frame(&mut self, package: &Package, path: &FramePath, attempt: u32) -> Result<(), Trouble> {
        self.start_frame(package, path, attempt)?;
        let told = self.left_out.len();
        let body = self.body(package, path);
        let trouble = match body {
            Ok(()) => return self.end_frame(path),
            Err(trouble) => trouble,
        };
        self.run.session.observer.heard(Happening::Failed { frame: path.clone(), causes: trouble.causes.clone() });
        if trouble.fatal {
            return Err(trouble);
        }
        if !package.atomic {
            self.list_stays(path, &trouble)?;
            self.end_frame(path)?;
            return Err(trouble);
        }
        let why = payload(&Why::because(trouble.causes.clone()))?;
        let undone = surely(|| self.run.put_durably(Event::FrameFailing, path, None, why.clone()))
            .and_then(|_| self.run.undo_part(path));
        match undone {
            Ok(left) => {
                self.left.extend(left);
                // What was left out inside is undone with the rest.
                self.left_out.truncate(told);
                self.run.forget(path);
                Err(trouble)
            }
            Err(error) => {
                let mut causes = trouble.causes;
                causes.extend(error.causes());
                Err(Trouble { causes, fatal: true, ..Trouble::default() })
            }
        }
    }

    fn body(&mut self, package: &Package, path: &FramePath) -> Result<(), Trouble> {
        let directory = self.run.directory(path, &package.dir);
        if let Some(why) = self.run.session.check_all(path, &package.before, &directory)? {
            return Err(Trouble::new(why));
        }
        self.steps(package, path)?;
        self.after(package, path)
    }

    fn after(&mut self, package: &Package, path: &FramePath) -> Result<(), Trouble> {
        if !package.after.is_empty() {
            self.run.session.observer.heard(Happening::Phase { name: "checking" });
        }
        let directory = self.run.directory(path, &package.dir);
        match self.run.session.check_all(path, &package.after, &directory)? {
            Some(why) => Err(Trouble::new(why)),
            // In a plain list what is done stays, and all of it is.
            None if package.atomic && self.run.session.observer.interrupted() => Err(Trouble::new(STOPPED)),
            None => Ok(()),
        }
    }

    fn start_frame(&mut self, package: &Package, path: &FramePath, attempt: u32) -> Result<(), Trouble> {
        let started = FrameStarted { package: package.name.clone(), version: package.version.clone(), attempt };
        self.run.put(Event::FrameStarted, path, None, payload(&started)?)?;
        self.run.session.observer.heard(Happening::FrameStarted {
            frame: path.clone(),
            package: package.name.clone(),
            version: package.version.clone(),
            attempt,
        });
        Ok(())
    }

    fn end_frame(&mut self, path: &FramePath) -> Result<(), Trouble> {
        self.run.put(Event::FrameDone, path, None, Value::Null)?;
        self.run.session.observer.heard(Happening::FrameDone { frame: path.clone() });
        Ok(())
    }

    /// A plain list: what is done stays; only the step that failed is taken back.
    fn list_stays(&mut self, path: &FramePath, trouble: &Trouble) -> Result<(), Trouble> {
        self.run.find_all_changes(path).map_err(|error| Trouble { fatal: true, ..error.into() })?;
        let mut doubtful = self.run.view.steps_to_undo(path);
        doubtful.retain(|step| step.state != StepState::Applied || self.run.is_of_open_command(step));
        for step in doubtful {
            let report = self
                .run
                .undo_surely(&step.frame, step.index, OnConflict::Keep)
                .map_err(|error| Trouble { fatal: true, ..error.into() })?;
            self.left.kept.extend(report.conflicts);
        }
        self.leave_out(path, &trouble.causes);
        Ok(())
    }

    fn leave_out(&mut self, path: &FramePath, causes: &[String]) {
        let id = &self.run.view.id;
        let what = if path.is_root() { id.to_string() } else { format!("{id}/{path}") };
        self.left_out.push(LeftOut { what, why: causes.join(": ") });
    }

    fn steps(&mut self, package: &Package, path: &FramePath) -> Result<(), Trouble> {
        let of = u32::try_from(package.steps.len()).unwrap_or(u32::MAX);
        for (index, step) in (0u32..).zip(&package.steps) {
            if self.run.session.observer.interrupted() {
                return Err(Trouble::new(STOPPED));
            }
            if let StepKind::Package(child) = &step.kind {
                self.child(child, path)?;
                continue;
            }
            let act = {
                let session = &*self.run.session;
                Act::of(package, step, &session.database_names(), &session.root_names())?
            };
            let Some(act) = act else { continue };
            let is_command = matches!(act, Act::Run { .. });
            if is_command && self.run.session.leaves_command(path, Some(index), || act.words()) {
                continue;
            }
            self.run.session.observer.heard(Happening::StepStarted {
                frame: path.clone(),
                index,
                of,
                what: act.words(),
            });
            let report = self.run.apply(path, index, &act)?;
            self.run.notes.extend(report.notes);
            self.run.session.observer.heard(Happening::StepDone {
                frame: path.clone(),
                index,
                changes: report.summary.changes,
                rows: report.summary.rows,
            });
        }
        Ok(())
    }

    fn child(&mut self, child: &Child, parent_path: &FramePath) -> Result<(), Trouble> {
        let path = parent_path.child(&child.name);
        match self.run.missing(&child.package, &path)? {
            Some(Missing { why, passed_over: true }) => return self.passed_over(&path, vec![why]),
            Some(Missing { why, passed_over: false }) => return self.pass_over(child, &path, Trouble::new(why)),
            None => {}
        }
        let mut wait = child.retries.wait;
        let mut attempt = 1;
        loop {
            let trouble = match self.frame(&child.package, &path, attempt) {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            };
            let failed_clean = self.run.view.frames.get(&path).is_some_and(|frame| frame.state == FrameState::Failed);
            if trouble.fatal
                || !self.left.is_empty()
                || !failed_clean
                || attempt >= child.retries.attempts
                || self.run.session.observer.interrupted()
            {
                return self.pass_over(child, &path, trouble);
            }
            attempt += 1;
            self.run.session.observer.heard(Happening::Retrying {
                frame: path.clone(),
                attempt,
                of: child.retries.attempts,
                wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            });
            self.pause(wait);
            wait = child.retries.next_wait(wait);
        }
    }

    /// Waits between two attempts, unless the operator stops the run.
    fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while let Some(left) = until.checked_duration_since(Instant::now())
            && !self.run.session.observer.interrupted()
        {
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    fn pass_over(&mut self, child: &Child, path: &FramePath, trouble: Trouble) -> Result<(), Trouble> {
        if trouble.fatal || child.on_failure == OnFailure::Fail || !self.left.is_empty() {
            let causes = std::iter::once(format!("child package {path} failed")).chain(trouble.causes).collect();
            return Err(Trouble { causes, ..trouble });
        }
        self.passed_over(path, trouble.causes)
    }

    fn passed_over(&mut self, path: &FramePath, causes: Vec<String>) -> Result<(), Trouble> {
        self.run.session.observer.heard(Happening::PassedOver { frame: path.clone(), why: causes.join(": ") });
        // A plain list that ended in part is done as far as it goes: it stays, and is listed.
        if self.run.view.frames.get(path).is_none_or(|frame| frame.state == FrameState::Failed) {
            self.leave_out(path, &causes);
            self.run.put(Event::FramePassedOver, path, None, payload(&Why::because(causes))?)?;
        }
        Ok(())
    }
}
