//! What every file root must do beyond [`Target`].

use std::ffi::OsString;
use std::path::PathBuf;

use backout_model::target::{Gate, PlannedChange, Report, Summary, Target, TargetError};

/// The work of one `files` or `delete` step.
#[derive(Clone, Debug)]
pub enum Work {
    /// Lays the directory `source` over the root, file by file.
    Overlay {
        source: PathBuf,
        /// Also removes from the root what the package lacks (never `keep` paths).
        exact: bool,
    },
    /// Removes paths, relative to the root; a trailing `/` names a directory with all it holds.
    Delete {
        paths: Vec<String>,
        /// A missing path is no error.
        missing_ok: bool,
    },
}

/// A condition on one path of a root; all that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct FileCondition {
    pub exists: Option<bool>,
    /// Lowercase hex.
    pub sha256: Option<String>,
    pub contains: Option<String>,
}

/// A file root of a site: in place on this machine for now; another host, or a root that switches as a whole, comes
/// behind the same trait.
pub trait Root: Target {
    /// The root's path as commands see it (`{root.web}`, `BACKOUT_ROOT_WEB`).
    fn location(&self) -> OsString;

    /// Keeps every other deployer out of the root, whatever its site, until [`Root::unlock`]. To be taken before
    /// anything is changed; taking it twice is no error. `Some` says who has it instead.
    fn lock(&mut self) -> Result<Option<String>, TargetError>;

    /// Gives the root back.
    fn unlock(&mut self);

    /// What the work would change, without touching anything; errors name the path and the rule it breaks.
    fn plan(&mut self, work: &Work, each: &mut dyn FnMut(PlannedChange)) -> Result<Summary, TargetError>;

    /// Stages, announces, then places: see `docs/journal.md`. After an error before the announcement nothing has
    /// changed; after it, `undo` with `in_doubt` takes back what was placed.
    fn apply(&mut self, work: &Work, gate: &mut dyn Gate) -> Result<Report, TargetError>;

    /// `Ok(None)` where the condition holds, else what was found instead, in words.
    fn check(&mut self, path: &str, condition: &FileCondition) -> Result<Option<String>, TargetError>;
}
