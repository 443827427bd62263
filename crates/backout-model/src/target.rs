//! How the engine drives a target (a database, a file root) without knowing what it is.
//!
//! A target makes its images, asks the [`Gate`] to make them and the intent durable, and only then lets the change
//! take effect. So nothing happens that the journal did not announce.

use std::error::Error;
use std::fmt;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::conflict::{Conflict, Conflicts, OnConflict};

/// The proof that a step was announced: the number of the journal's entry and the epoch of the lock under which it
/// was written. A database stores both in its marker, in the transaction of the change itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    pub seq: u64,
    pub epoch: u64,
}

/// What a step is about to do or has done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Statements or files.
    pub changes: u64,
    /// Rows touched; 0 for files.
    pub rows: u64,
    /// Bytes of before- and after-images.
    pub bytes: u64,
    /// The tables or directories touched, at most [`Summary::OBJECTS_KEPT`].
    pub objects: Vec<String>,
    /// The objects that came to be or got another name, with their kind, at most so many: what a step before knew by that
    /// name is something else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<String>,
    /// What was not touched and whose names an undo uses, listed like what was; at most so many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// What the target itself wants back later, small.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub note: Value,
}

impl Summary {
    pub const OBJECTS_KEPT: usize = 100;
    /// What a target names before an object that it means only where somebody made it since.
    pub const MADE: &str = "newly made ";
}

/// Images as a target reads them back.
pub trait Images: Read + Seek + Send {}
impl<T: Read + Seek + Send> Images for T {}

/// The engine's side of a step: takes the images, makes the intent durable, hears of progress.
pub trait Gate {
    /// Where the images of this step are written, in the target's own versioned format. A handle to one stream:
    /// opened once a step. Nothing is durable before [`Gate::announce`].
    fn images(&mut self) -> Box<dyn Write + Send>;

    /// What was written so far, read back: by it a target tries the undo of a step before it announces it.
    ///
    /// # Errors
    /// Where nothing was opened, or the stream broke.
    fn written(&mut self) -> std::io::Result<Box<dyn Images>>;

    /// Makes images and intent durable in the journal. A target calls it exactly once a step, when everything is
    /// ready (staged, or done in an open transaction) and nothing that others can see has changed. Images written
    /// after it are lost. An error means that nothing was announced: the target must leave everything as it was.
    fn announce(&mut self, summary: &Summary) -> Result<Ticket, TargetError>;

    /// Progress within the step, in changes or rows.
    fn progress(&mut self, done: u64, of: Option<u64>);

    /// A statement of a script ran. `locks` tells what its session holds locked now and did not before, or why nobody can
    /// tell; it is asked only where somebody measures.
    fn ran(&mut self, _place: &str, _locks: &mut dyn FnMut() -> Result<String, String>) {}

    /// True once the step should end before it is announced, between two of its changes, as if it had failed. Never
    /// where it takes something back.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// What came of a step, an undo or a redo.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub summary: Summary,
    /// Conflicts that were settled as the caller asked; empty under [`OnConflict::Stop`].
    pub conflicts: Conflicts,
    /// What the operator should know and need not act on.
    pub notes: Vec<String>,
    /// What a check of an undo found as it is to be already: by the hand of others, or of a later deployment. That is
    /// a conflict where it was the latter, whose own undo would bring it back. And, as
    /// [`ConflictKind::RequiredBy`](crate::conflict::ConflictKind::RequiredBy) with nobody named, what the undo takes
    /// away and the undo of a later deployment that touched the same object could not do without.
    #[serde(default, skip_serializing_if = "Conflicts::is_empty")]
    pub already: Conflicts,
    /// Of a redo: that `already` tells all rows and files that it found done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub knows_already: bool,
}

/// How an undo or redo is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    pub on_conflict: OnConflict,
    /// The step may have taken effect wholly, in part or not at all (a crash, a failure in the middle, an earlier
    /// attempt at this same undo): what already holds the wanted state is no conflict.
    pub in_doubt: bool,
}

/// What a crash left of an announced act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Applied,
    NotApplied,
    /// Some of it: only for targets whose [`Target::undo`] can start from there (`in_doubt`).
    Partly,
}

/// One change of a step, for `show`, `plan` and the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Described {
    /// The statement's text (shortened by the reader, not here) or the path.
    pub change: String,
    /// Where it stands, e.g. `sql/010.sql:12`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// What takes it back, in words: `DELETE of 3 rows in product`, `put back the file that was there`.
    pub undo: String,
    pub rows: u64,
    pub bytes: u64,
}

/// A row or a path that a step changed, as its images tell it.
pub struct Touched<'a> {
    /// The table or the path, as conflicts name it.
    pub object: &'a str,
    /// What tells it from all others of its target, whichever step changed it: object and key, in the target's own form.
    /// Empty: any row of the object.
    pub identity: &'a [u8],
    /// Which of its values changed, and [`Touched::KEY`] where its key did; none where it came or went as a whole.
    pub aspects: Option<&'a [&'a str]>,
    /// The step made it: an undo takes it away whole.
    pub made: bool,
    /// Its key as people are shown it; none for a path.
    pub key: &'a dyn Fn() -> Option<String>,
}

impl Touched<'_> {
    /// No column is named so.
    pub const KEY: &'static str = "\0key";
    /// Of rows that nothing tells apart: one more of them came, or one of them went. Whichever came first, it may be the one
    /// that went later; two that came are two.
    pub const CAME: &'static str = "\0came";
    pub const WENT: &'static str = "\0went";
}

/// Something `verify` found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub target: String,
    pub what: String,
    /// True where an undo or the integrity of the journal is in danger; false for drift.
    pub grave: bool,
}

/// The state of a target as it was before a command ran, kept in full.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// For this target alone, 0700; it lies in the site's state.
    pub directory: PathBuf,
    /// What the target itself wants back, small; null until it was taken.
    pub note: Value,
    /// By what the command's sessions will be known, where others may be at work meanwhile; see [`Target::marked_by`].
    pub mark: Option<String>,
}

/// What others did while a command ran.
#[derive(Clone, Debug, PartialEq)]
pub enum Others {
    /// Nothing that is known: all that changed counts as the command's.
    Nobody,
    /// Whatever they did counts as the command's, since nothing tells it apart.
    Untold { why: String },
    /// It is none of the command's, but for what a note says is not told apart. A step was announced where `announced`.
    Wrote { report: Box<Report>, announced: bool },
}

/// A database or a file root, as far as undoing goes. Serial use only; every act is atomic or can be started again.
pub trait Target: Send {
    /// `database main`, `root web`.
    fn label(&self) -> String;

    /// Takes back the step that `images` describes. Guarded: only what still holds what the step left goes back.
    /// Under [`OnConflict::Stop`] any conflict is [`TargetError::Conflicts`], with everything as before; so is, under
    /// `Overwrite`, one that leaves the old state no way back.
    /// `gate.images()` takes what the undo itself destroyed (others' values under `Overwrite`), where there is any.
    fn undo(&mut self, images: &mut dyn Images, manner: Manner, gate: &mut dyn Gate) -> Result<Report, TargetError>;

    /// Does the step again to the same result, guarded like undo, writing new images for the undo that may follow.
    fn redo(&mut self, images: &mut dyn Images, manner: Manner, gate: &mut dyn Gate) -> Result<Report, TargetError>;

    /// Seeks the conflicts of undoing `steps` (in the order of undoing: latest first), changing nothing.
    fn check_undo(
        &mut self,
        steps: &mut dyn Iterator<Item = Box<dyn Images>>,
        on_conflict: OnConflict,
    ) -> Result<Report, TargetError>;

    /// Which of `conflicts` are about what the step that `images` describes changed, or would need to be taken back: one
    /// answer each, in their order. Row by row and column by column where the images tell these apart; whoever cannot
    /// tell says yes.
    fn meets(&mut self, images: &mut dyn Images, conflicts: &[Conflict]) -> Result<Vec<bool>, TargetError> {
        let _ = images;
        Ok(vec![true; conflicts.len()])
    }

    /// Names the rows or paths that the step changed, in any order, some perhaps more than once. Whoever does not keep
    /// them names none. An error of `each` ends it.
    fn touched(
        &mut self,
        _images: &mut dyn Images,
        _each: &mut dyn FnMut(&Touched<'_>) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        Ok(())
    }

    /// Decides what became of the act announced with `ticket`, whose images are given.
    fn probe(&mut self, ticket: Ticket, images: &mut dyn Images) -> Result<Probe, TargetError>;

    /// Names every change of the step and its undo, in the order in which they were made.
    fn describe(&mut self, images: &mut dyn Images, each: &mut dyn FnMut(Described)) -> Result<(), TargetError>;

    /// Compares the holds, and where `applied` the live site, with the images of a step.
    fn verify(&mut self, images: &mut dyn Images, applied: bool) -> Result<Vec<Finding>, TargetError>;

    /// Gives up what is held for the undo or redo of the step.
    fn forget(&mut self, images: &mut dyn Images) -> Result<(), TargetError>;

    /// What [`Target::snapshot`] would copy: files as changes, and bytes. `None` where this target cannot be compared with
    /// what it was; refused where something in it cannot.
    fn snapshot_size(&mut self) -> Result<Option<Summary>, TargetError> {
        Ok(None)
    }

    /// Keeps the state of now in full, durably, so that [`Target::compare`] finds what changes from now on. `directory`
    /// is there and may hold what an attempt that died left. Returns the snapshot's note.
    fn snapshot(&mut self, _snapshot: &Snapshot) -> Result<Value, TargetError> {
        Err(TargetError::failed(format!("cannot capture what a command does to {}", self.label()), "it has no way to"))
    }

    /// The variable of a command's environment by which this target knows its sessions: its value begins with
    /// [`Snapshot::mark`].
    fn marked_by(&self) -> Option<&'static str> {
        None
    }

    /// Finds what others changed since a snapshot was taken, and announces it as a step that came before the command's:
    /// [`Target::compare`] leaves it out.
    fn compare_others(
        &mut self,
        _snapshot: &Snapshot,
        _shown: &str,
        _gate: &mut dyn Gate,
    ) -> Result<Others, TargetError> {
        Ok(Others::Nobody)
    }

    /// Finds what changed since a snapshot was taken, whoever did it, and announces it as a step that is done: with images
    /// like those of any other. `shown` names the command to people. After an error nothing is announced, and it can be
    /// tried again, unless the gate had announced it: then [`Target::probe`] tells.
    fn compare(&mut self, _snapshot: &Snapshot, _shown: &str, _gate: &mut dyn Gate) -> Result<Report, TargetError> {
        Err(TargetError::failed(format!("cannot find what a command did to {}", self.label()), "it has no way to"))
    }

    /// After [`Target::compare`] refused: whether it tells what it found in another way where it is asked once more.
    fn compares_otherwise(&self) -> bool {
        false
    }

    /// Puts everything back as a snapshot has it, whoever changed it since: where [`Target::compare`] refused what a
    /// command did, so that no step can take it back.
    fn put_back_whole(&mut self, _snapshot: &Snapshot) -> Result<(), TargetError> {
        Err(TargetError::failed(format!("cannot put {} back as it was", self.label()), "it has no way to"))
    }

    /// Gives up a snapshot, but for what a step that was announced by its comparison needs. Its directory is the caller's.
    /// Without a note: whatever was kept outside of that directory and never announced.
    fn give_up(&mut self, _snapshot: &Snapshot) -> Result<(), TargetError> {
        Ok(())
    }

    /// What works here and what does not, for `doctor`.
    fn examine(&mut self) -> Result<Vec<Finding>, TargetError>;
}

/// Why a target could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Nothing was changed.
    #[error("{0} with changes made since")]
    Conflicts(Conflicts),
    /// Refused beforehand or rolled back: it could not be taken back.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Somebody else took the lock over: this process must not change anything any more.
    #[error("the lock of {0} was taken over by another process")]
    LockLost(String),
    /// The step failed by itself (a statement's error, a full disk). What it had done is undone where the target
    /// does that by itself (a transaction), else it is for [`Target::undo`] with `in_doubt`.
    #[error("{act}")]
    Failed {
        /// The act and the object: `cannot run sql/010.sql:12: INSERT INTO …`.
        act: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The step failed by itself, and the target put back what it had done of it.
    #[error("{act}")]
    PutBack {
        act: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The images are not what was written: truncated, altered, or of a newer version.
    #[error("the images of a step of {target} cannot be read: {what}")]
    Images { target: String, what: String },
}

impl TargetError {
    pub fn failed(act: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed { act: act.into(), source: source.into() }
    }

    /// The same, once what had been done is put back.
    #[must_use]
    pub fn put_back(self) -> Self {
        match self {
            Self::Failed { act, source } => Self::PutBack { act, source },
            other => other,
        }
    }
}

/// Why a statement or path is refused, and the ways out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Refusal {
    /// Where: `sql/010.sql:12` or a path.
    pub place: String,
    /// The statement or path.
    pub what: String,
    pub why: String,
    /// What the user can do instead.
    pub ways_out: Vec<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is refused: {}", self.place, self.what, self.why)
    }
}

/// How one change of a plan will be undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// Captured; `undo` says how, in words.
    Undoable {
        undo: String,
    },
    /// Known only while it runs.
    Unknown {
        why: String,
    },
    Refused(Refusal),
}

/// One change of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedChange {
    pub place: String,
    pub change: String,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Rows it would touch where that is cheap to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Locks it takes, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locks: Option<String>,
}
