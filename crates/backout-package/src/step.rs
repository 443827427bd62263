//! The steps of a package as the engine runs them: paths resolved, options settled. Never reads a file itself.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

use crate::package::Package;

/// One entry of `steps:`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The line of the package's file that it begins on, from 1.
    pub line: u32,
    pub kind: StepKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StepKind {
    Sql(SqlStep),
    Files(FilesStep),
    Delete(DeleteStep),
    Run(RunStep),
    Package(Child),
}

/// A file of statements for one database, run in one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlStep {
    /// Absolute.
    #[serde(with = "crate::percent::path")]
    pub path: PathBuf,
    /// Relative to the outermost package, for people: `content/sql/010.sql`.
    pub shown: String,
    /// None: the site's only database.
    pub database: Option<String>,
    pub undo: SqlUndo,
}

/// How an `sql` step is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SqlUndo {
    /// By the before-images that are captured while it runs.
    Captured,
    /// By the package's own script.
    Script {
        #[serde(with = "crate::percent::path")]
        path: PathBuf,
        shown: String,
    },
    /// Not at all: needs `--accept-irreversible`.
    Never { because: String },
}

/// A directory laid over a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesStep {
    /// Absolute.
    #[serde(with = "crate::percent::path")]
    pub source: PathBuf,
    /// Relative to the outermost package, for people.
    pub shown: String,
    /// None: the site's only root.
    pub root: Option<String>,
    /// Also remove from the root what the directory lacks.
    pub exact: bool,
}

/// Paths removed from a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteStep {
    /// Relative to the root, without `.` and `..`; a trailing `/` names a directory with all it holds.
    pub paths: Vec<String>,
    /// None: the site's only root.
    pub root: Option<String>,
    /// A missing path is no error.
    pub missing_ok: bool,
}

/// A program with its arguments, run without a shell in the package's directory. The arguments may hold
/// placeholders, see [`crate::fill`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The line of the package's file that it stands on, from 1.
    pub line: u32,
    /// Never empty.
    pub argv: Vec<String>,
    pub timeout: Option<Duration>,
}

/// A command among the steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStep {
    pub command: Command,
    pub undo: RunUndo,
}

/// How a `run` step is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunUndo {
    /// By another command; never empty.
    Command(Vec<String>),
    /// Not at all: needs `--accept-irreversible`.
    Never { because: String },
    /// By what is found to have changed while it ran.
    Captured(Capture),
}

/// What a command is followed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// None: all databases of the site.
    pub databases: Option<Vec<String>>,
    /// None: all roots of the site.
    pub roots: Option<Vec<String>>,
}

/// A child package and what its parent says about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Child {
    /// The child's element in a frame's path: the last name of its directory. Unique among siblings.
    pub name: String,
    pub package: Package,
    pub retries: Retries,
    pub on_failure: OnFailure,
}

/// How often a failed child is tried again, and when.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retries {
    /// Tries in all, at least 1.
    pub attempts: u32,
    /// Before the second attempt.
    pub wait: Duration,
    /// What the wait is multiplied with after each further failure; from 1 to [`MAX_BACKOFF`].
    pub backoff: f64,
}

/// A factor above this is a mistake: the second wait would already be out of all proportion.
pub const MAX_BACKOFF: f64 = 100.0;
/// Where the growth of a wait ends.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

impl Retries {
    /// The wait after one of `wait`: longer, up to a day, but never shorter.
    pub fn next_wait(&self, wait: Duration) -> Duration {
        let longer = Duration::try_from_secs_f64(wait.as_secs_f64() * self.backoff).unwrap_or(LONGEST_WAIT);
        longer.min(LONGEST_WAIT).max(wait)
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts: 1, wait: Duration::ZERO, backoff: 1.0 }
    }
}

/// What the failure of a child means for its parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    /// The parent fails too.
    #[default]
    Fail,
    /// The child is passed over.
    Continue,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_grows_up_to_a_day_and_never_overflows() {
        let next = |wait: u64, backoff: f64| {
            Retries { backoff, ..Retries::default() }.next_wait(Duration::from_secs(wait)).as_secs()
        };
        for (wait, backoff, expected) in [
            (10, 1.0, 10),
            (10, 2.5, 25),
            (0, 100.0, 0),
            (80_000, 2.0, 86_400),
            (172_800, 2.0, 172_800),
            (1, 1e300, 86_400),
            (u64::MAX, 1e300, u64::MAX),
        ] {
            assert_eq!(next(wait, backoff), expected, "{wait} {backoff}");
        }
    }
}
