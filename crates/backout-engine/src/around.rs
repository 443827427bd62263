//! What goes around a deployment: maintenance mode, and the `finally:` commands.

use backout_model::id::FramePath;
use backout_model::state::{Event, FrameState};
use backout_package::package::Package;
use serde_json::{Value, json};

use crate::error::EngineError;
use crate::outcome::{Outcome, Status};
use crate::step::{Run, surely};

impl Run<'_, '_> {
    /// Enters maintenance mode where the site has one. That it is being entered is durable before the command runs.
    pub fn enter_maintenance(&mut self) -> Result<(), EngineError> {
        let Some(maintenance) = self.session.config.maintenance.clone() else { return Ok(()) };
        if self.view.in_maintenance {
            return Ok(());
        }
        self.put_durably(Event::MaintenanceEntering, &FramePath::root(), None, Value::Null)?;
        let directory = self.session.site_directory();
        self.plain_command(&maintenance.enter, &directory, None)
    }

    /// Leaves it. A failure is told and leaves the mark in the journal, so that `resume` tries again.
    pub fn leave_maintenance(&mut self) {
        if !self.view.in_maintenance {
            return;
        }
        let directory = self.session.site_directory();
        let left = match self.session.config.maintenance.clone() {
            Some(maintenance) => surely(|| self.plain_command(&maintenance.leave, &directory, None)),
            None => Err(EngineError::not_now("site.yaml no longer says how to leave it", "write `maintenance:` again")),
        };
        let left = left.and_then(|()| self.put(Event::MaintenanceLeft, &FramePath::root(), None, Value::Null));
        if let Err(error) = left {
            self.session.warn(format!("the site is still in maintenance mode: {}", error.causes().join(": ")));
        }
    }

    /// The last word on a run's outcome. A site that is still closed to its users is not as anybody wants it, whatever
    /// else came of the run; one that needs a hand stays closed until somebody has seen to it.
    pub fn closed(&self, mut outcome: Outcome) -> Outcome {
        if !self.view.in_maintenance {
            return outcome;
        }
        if outcome.status == Status::NeedsHand {
            outcome.notes.push("the site stays in maintenance mode until then".to_owned());
            return outcome;
        }
        outcome.notes.extend(Some(std::mem::take(&mut outcome.closing)).filter(|closing| !closing.is_empty()));
        outcome.status = Status::NeedsHand;
        outcome.closing =
            "Needs a hand: the site is still in maintenance mode; `backout resume` tries to leave it again.".to_owned();
        outcome
    }

    /// Runs the `finally:` commands of every frame in `part` that ran, children before parents. They put caches
    /// right; that one fails is told, and is no failure of the deployment.
    pub fn finally(&mut self, part: &FramePath) {
        if self.lock_lost {
            return;
        }
        let Ok(manifest) = self.view.manifest().cloned() else { return };
        let mut commands = Vec::new();
        collect_finally(&manifest, &FramePath::root(), &mut |path, command, directory| {
            let ran = self.view.frames.get(path).is_some_and(|frame| frame.state != FrameState::PassedOver);
            if ran && part.contains(path) {
                commands.push((path.clone(), command.clone(), self.directory(path, directory)));
            }
        });
        for (path, command, directory) in commands {
            if self.session.leaves_command(&path, None, || format!("finally {}", command.argv.join(" "))) {
                continue;
            }
            let result = self.plain_command(&command.argv, &directory, command.timeout);
            let failure = result.err().map(|error| error.causes().join(": "));
            if let Some(failure) = &failure {
                self.notes.push(format!(
                    "`finally` of {}: {failure}",
                    if path.is_root() { "the package" } else { path.as_str() }
                ));
            }
            let said = json!({ "argv": command.argv, "failure": failure });
            if let Err(error) = self.put(Event::FinallyRan, &path, None, said) {
                self.session.warn(error.causes().join(": "));
            }
        }
    }
}

fn collect_finally(
    package: &Package,
    path: &FramePath,
    each: &mut dyn FnMut(&FramePath, &backout_package::step::Command, &std::path::Path),
) {
    for child in package.children() {
        collect_finally(&child.package, &path.child(&child.name), each);
    }
    for command in &package.finally {
        each(path, command, &package.dir);
    }
}
