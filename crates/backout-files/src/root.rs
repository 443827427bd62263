//! What every file root must do beyond [`Target`].

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use backout_model::review::Review;
use backout_model::target::{Gate, Images, PlannedChange, Report, Snapshot, Summary, Target, TargetError};

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

/// What became of a recording of one root.
#[derive(Clone, Debug, Default)]
pub struct DraftedFiles {
    /// Paths that went, relative to the root; one with a trailing `/` with all that it held.
    pub deleted: Vec<String>,
    /// Files, links and directories that were copied into the package.
    pub files: u64,
    /// What must hold of paths before.
    pub conditions: Vec<(String, FileCondition)>,
}

/// What a path was before a step, or what the step left there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// A file, directory or link that is kept of a step, with everything that an undo brings back of it.
pub struct Kept<'a> {
    pub side: Side,
    /// The step made it where nothing was.
    pub made: bool,
    /// Relative to the root, any bytes.
    pub path: Vec<u8>,
    /// The twelve permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Names and values, access lists and labels among them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub kind: KeptKind<'a>,
}

/// What is kept.
pub enum KeptKind<'a> {
    /// With its size in bytes.
    File {
        size: u64,
        content: &'a mut dyn Read,
    },
    Directory,
    Link(Vec<u8>),
    /// Another name of a file that came before on the same side, by its path.
    HardLink(Vec<u8>),
}

/// A path of which a record lacks what was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    pub side: Side,
    /// Escaped, for people.
    pub path: String,
    pub why: &'static str,
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

    /// Hands over what is kept of the step that `images` describes: what its paths held before, then what it left, as far
    /// as that is still there unchanged. A directory comes before what it holds or after it. Returns what is lacking.
    fn hand_over(
        &mut self,
        images: &mut dyn Images,
        each: &mut dyn FnMut(Kept<'_>) -> io::Result<()>,
    ) -> Result<Vec<Lacking>, TargetError>;

    /// Copies into the directory `into` what came or was changed since a snapshot, and tells what went; what a reviewer must
    /// look at is noted. Refused where a package could not hold it. Changes nothing in the root.
    fn draft(
        &mut self,
        snapshot: &Snapshot,
        into: &Path,
        leave_out: &dyn Fn(&str) -> bool,
        review: &mut Review,
    ) -> Result<DraftedFiles, TargetError>;

    /// Puts into the hold what it lacks of the step: `from` is a directory in which the paths stand as they were before
    /// it. They are moved out of there. Nothing in the root changes.
    fn take_back(&mut self, images: &mut dyn Images, from: &Path) -> Result<(), TargetError>;
}
