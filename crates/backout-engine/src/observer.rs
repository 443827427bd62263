//! What a run tells while it runs. The binary turns it into progress bars, lines or JSON events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backout_model::id::{DeploymentId, FramePath};
use serde::Serialize;

/// One thing that happened. Serialised as one JSON object a line under `--json`, tagged `event`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Happening {
    /// A deployment got its id.
    Deployment {
        id: DeploymentId,
        package: String,
        version: String,
    },
    /// `planning`, `checking`, `applying`, `undoing`, `redoing`, `resuming`, …
    Phase {
        name: &'static str,
    },
    FrameStarted {
        frame: FramePath,
        package: String,
        version: String,
        attempt: u32,
    },
    FrameDone {
        frame: FramePath,
    },
    /// `index` from 0, `of` steps in the frame.
    StepStarted {
        frame: FramePath,
        index: u32,
        of: u32,
        what: String,
    },
    /// Progress inside a step, in rows or files.
    Within {
        done: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        of: Option<u64>,
    },
    StepDone {
        frame: FramePath,
        index: u32,
        changes: u64,
        rows: u64,
    },
    /// A step is being taken back.
    StepUndoing {
        frame: FramePath,
        index: u32,
        what: String,
    },
    StepUndone {
        frame: FramePath,
        index: u32,
    },
    /// `detail` says what was expected and what came.
    CheckRan {
        name: String,
        held: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    Failed {
        frame: FramePath,
        causes: Vec<String>,
    },
    Retrying {
        frame: FramePath,
        attempt: u32,
        of: u32,
        wait_ms: u64,
    },
    PassedOver {
        frame: FramePath,
        why: String,
    },
    Warning {
        text: String,
    },
}

/// Hears what happens and says whether to go on.
pub trait Observer: Send {
    fn heard(&mut self, happening: Happening);

    /// Whether each statement of a script is measured.
    fn measures(&self) -> bool {
        false
    }

    /// A statement of a step ran: its time ends here.
    fn ran(&mut self, _frame: &FramePath, _index: u32) {}

    /// What the statement at `place` has locked, or why that cannot be told. The time of the next one begins here.
    fn locked(&mut self, _frame: &FramePath, _index: u32, _place: &str, _locks: Result<String, String>) {}

    /// Set once the operator asks to stop (Ctrl-C, SIGTERM): the step at hand is finished, then all is undone.
    fn stop(&self) -> Option<Arc<AtomicBool>> {
        None
    }

    /// True once the operator asked to stop.
    fn interrupted(&self) -> bool {
        self.stop().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

/// Hears nothing.
pub struct Silent;

impl Observer for Silent {
    fn heard(&mut self, _happening: Happening) {}
}
