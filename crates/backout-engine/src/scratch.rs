//! How a session on a scratch differs from one on the live site: commands and checks by HTTP may reach beyond it, so they run
//! only as `scratch:` in `site.yaml` allows, and what does not run is noted.

use std::collections::BTreeSet;

use backout_model::id::FramePath;
use backout_package::check::{Check, CheckKind, HttpCheck};
use backout_package::scratch::Scratch;

use crate::act::step_in_package;
use crate::session::Session;

/// Why no command ran.
const NO_ENVIRONMENT: &str =
    "a command may reach the live site: `scratch:` in site.yaml names no `environment:` to run it in";
/// Why no check by HTTP ran.
const NO_URL: &str = "it asks the live site: `scratch:` in site.yaml names no `url:` that serves the scratch";

/// What a session on a scratch is told.
#[derive(Clone, Debug, Default)]
pub struct OnScratch {
    /// What may run, and with what.
    pub allowed: Scratch,
    /// The packages that are deployed on the live site: what requires them finds them.
    pub deployed: BTreeSet<String>,
}

/// Something that did not run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeftAlone {
    pub frame: FramePath,
    /// The step in its package; none for a check or a `finally` command.
    pub step: Option<u32>,
    pub what: String,
    pub why: &'static str,
}

impl Session<'_> {
    /// True where commands must not run. `what` and its place are noted then.
    pub(crate) fn leaves_command(
        &mut self,
        frame: &FramePath,
        step: Option<u32>,
        what: impl FnOnce() -> String,
    ) -> bool {
        let leaves = self.on_scratch.as_ref().is_some_and(|on| on.allowed.environment.is_none());
        if leaves {
            let step = step.map(step_in_package);
            self.left_alone.insert(LeftAlone { frame: frame.clone(), step, what: what(), why: NO_ENVIRONMENT });
        }
        leaves
    }

    /// True where a check must not run.
    pub(crate) fn leaves_check(&mut self, frame: &FramePath, check: &Check) -> bool {
        let what = || format!("check \"{}\"", check.name);
        match &check.kind {
            CheckKind::Run { .. } => self.leaves_command(frame, None, what),
            CheckKind::Http(http) => {
                let leaves = self.on_scratch.as_ref().is_some_and(|on| on.allowed.url_for(&http.url).is_none());
                if leaves {
                    self.left_alone.insert(LeftAlone { frame: frame.clone(), step: None, what: what(), why: NO_URL });
                }
                leaves
            }
            CheckKind::Sql { .. } | CheckKind::Definition { .. } | CheckKind::File { .. } => false,
        }
    }

    /// A check by HTTP as it is to be asked: of what serves the scratch, where there is one.
    pub(crate) fn asked_here(&self, check: &HttpCheck) -> HttpCheck {
        let there = self.on_scratch.as_ref().and_then(|on| on.allowed.url_for(&check.url));
        HttpCheck { url: there.unwrap_or_else(|| check.url.clone()), ..check.clone() }
    }

    /// True where a package of this name is deployed on the site that this is a scratch of.
    pub(crate) fn is_deployed_live(&self, package: &str) -> bool {
        self.on_scratch.as_ref().is_some_and(|on| on.deployed.contains(package))
    }
}
