//! What a command came to: the exit status, the state that was left, and what the operator needs to know.

use backout_model::conflict::{Conflict, Conflicts};
use backout_model::id::DeploymentId;
use serde::Serialize;

/// The contract's exit statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Done,
    /// Failed, and the site is as it was before.
    Failed,
    /// The command line or a file of the user is wrong; nothing was started.
    Usage,
    /// The site is not as it was.
    NeedsHand,
    /// Nothing was changed.
    Refused,
    /// Done in part, as the package or a flag allows.
    Partly,
}

impl Status {
    pub fn code(self) -> u8 {
        match self {
            Status::Done => 0,
            Status::Failed => 1,
            Status::Usage => 2,
            Status::NeedsHand => 3,
            Status::Refused => 4,
            Status::Partly => 5,
        }
    }

    /// The graver of two, for a command that resumed something before its own work.
    #[must_use]
    pub fn or_graver(self, other: Status) -> Status {
        let rank = |status: Status| match status {
            Status::Done => 0,
            Status::Partly => 1,
            Status::Refused => 2,
            Status::Usage => 3,
            Status::Failed => 4,
            Status::NeedsHand => 5,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// A child that failed and was passed over, or a step of a plain list that was left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeftOut {
    /// `ID/CHILD`, as `retry` takes it.
    pub what: String,
    pub why: String,
}

/// What an automatic undo could not put back as it was: then a person must look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Left {
    /// What somebody else changed, too, and was kept.
    pub kept: Conflicts,
    /// Steps are on the site that nothing takes back.
    pub irreversible: bool,
}

impl Left {
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && !self.irreversible
    }

    pub fn extend(&mut self, other: Left) {
        self.kept.extend(other.kept);
        self.irreversible |= other.irreversible;
    }
}

impl From<Conflicts> for Left {
    fn from(kept: Conflicts) -> Self {
        Self { kept, irreversible: false }
    }
}

/// The result of a command that ran. Serialised as the last line under `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentId>,
    /// The lines for stdout: the answer itself.
    pub answer: Vec<String>,
    /// Why it failed or was refused: the error and what caused it, outermost first; empty when done.
    pub causes: Vec<String>,
    /// What to do next, each a sentence or a command.
    pub hints: Vec<String>,
    /// Conflicts that stopped it or were settled.
    pub conflicts: Vec<Conflict>,
    /// How many conflicts there are in all; `conflicts` lists the first.
    pub conflicts_total: u64,
    pub left_out: Vec<LeftOut>,
    /// What the operator should know and need not act on.
    pub notes: Vec<String>,
    /// The state that was left, in one sentence: the closing line on stderr.
    pub closing: String,
}

/// The closing line where nothing was changed.
pub const NOTHING_CHANGED: &str = "Nothing was changed.";
/// The cause where the operator asked a run to stop.
pub const STOPPED: &str = "stopped by the operator";
/// The closing line where a failure was undone.
pub const UNDONE_AND_VERIFIED: &str = "Everything was undone and verified.";

impl Outcome {
    pub fn new(status: Status, closing: impl Into<String>) -> Self {
        Self {
            status,
            deployment: None,
            answer: Vec::new(),
            causes: Vec::new(),
            hints: Vec::new(),
            conflicts: Vec::new(),
            conflicts_total: 0,
            left_out: Vec::new(),
            notes: Vec::new(),
            closing: closing.into(),
        }
    }
}
