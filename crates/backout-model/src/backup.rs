//! What keeps full copies of a site: the trait that the engine backs up and restores by, and what passes through it.
//!
//! No I/O: the crate `backout-backup` keeps the copies, the binary wires it to the engine.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use crate::target::Finding;

/// What `site.yaml` says of a repository on another machine begins with one of these and a colon.
const REMOTE: [&str; 9] = ["azure", "b2", "gs", "opendal", "rclone", "rest", "s3", "sftp", "swift"];

/// True where a repository is on another machine, by how it is written.
pub fn is_remote(repository: &str) -> bool {
    repository.split_once(':').is_some_and(|(scheme, _)| REMOTE.contains(&scheme))
}

/// How many backups are kept; one stays where any rule keeps it. No rule at all: all stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    pub last: Option<u32>,
    /// The last of each of so many hours that have one; the same for the others.
    pub hourly: Option<u32>,
    pub daily: Option<u32>,
    pub weekly: Option<u32>,
    pub monthly: Option<u32>,
    pub yearly: Option<u32>,
}

/// Where the journal stood when a backup was taken: a restore tells by it what came later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The last entry of the journal.
    pub seq: u64,
    /// That entry's digest in hex, by which another journal is told apart; empty where there was no entry.
    pub digest: String,
}

/// What a backup is asked to note beside the copies.
#[derive(Clone, Debug)]
pub struct Request {
    pub position: Position,
    /// The deployment that it was taken before; none where somebody asked for it.
    pub deployment: Option<String>,
    /// Set by whoever asks the run to stop.
    pub stop: Option<Arc<AtomicBool>>,
}

/// A backup that is there, as the journal notes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The snapshot's id in the repository, in hex; restic knows it by its first characters.
    pub snapshot: String,
    /// The digest of the tree of all that was copied: contents and metadata, in hex.
    pub tree: String,
    /// Without a password.
    pub repository: String,
    pub files: u64,
    /// Bytes that were read or were known to be unchanged.
    pub bytes: u64,
    /// Bytes that the repository grew by.
    pub added: u64,
    /// What could not be kept exactly, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One backup of the list, as the repository tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    pub id: String,
    pub tree: String,
    /// Milliseconds since 1970 UTC.
    pub taken_ms: i64,
    /// The deployment that it was taken before.
    pub deployment: Option<String>,
}

/// What one backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub site: String,
    pub position: Position,
    pub databases: BTreeSet<String>,
    pub roots: BTreeSet<String>,
}

/// What of a backup is to be restored, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub databases: BTreeSet<String>,
    pub roots: BTreeSet<String>,
    /// Into this directory, beside the site; none: the site itself.
    pub into: Option<PathBuf>,
}

/// Why a backup could not be taken or restored.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct BackupError {
    pub what: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
    pub hint: Option<String>,
    /// A restore that was announced, and of which nothing took effect.
    pub took_nothing: bool,
}

impl BackupError {
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None, hint: None, took_nothing: false }
    }

    /// An act that failed, and why.
    pub fn failed(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..Self::new(what) }
    }

    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// What a backup is found to be when it is tried.
#[derive(Debug, Default)]
pub struct Proof {
    /// What is wrong with it, and what is only left over beside it.
    pub findings: Vec<Finding>,
    /// What could not be checked, and why.
    pub unchecked: Vec<Finding>,
    /// What it did not keep, as was said when it was taken.
    pub lacking: Vec<Finding>,
}

/// What a look at the surroundings of backups found.
#[derive(Debug, Default)]
pub struct Examined {
    /// What would stand in the way of a backup.
    pub findings: Vec<Finding>,
    /// What a backup would not keep, or would not be let bring back.
    pub lacking: Vec<Finding>,
}

/// Writes down that the site is about to change.
pub type Announce<'a> = &'a mut dyn FnMut() -> Result<(), BackupError>;

/// Keeps full copies of a site. Never writes the journal.
pub trait Backup {
    /// Copies every database and root of the site. After an error there is no new backup, and nothing of the site
    /// has changed.
    fn take(&mut self, request: &Request) -> Result<Taken, BackupError>;

    /// The backups of this site, the newest first.
    fn list(&mut self) -> Result<Vec<Snapshot>, BackupError>;

    /// What a backup holds.
    fn content(&mut self, snapshot: &Snapshot) -> Result<Content, BackupError>;

    /// Puts back what is wanted. No other process of the tool may be at work on it, and no connection of the tool's
    /// own may be open to it. `announce` is called once all is fetched and checked, right before the first change: an
    /// error before that has changed nothing, and what one after it interrupts can be done again from the start, unless it
    /// says that nothing took effect.
    /// Returns what is not exactly as it was, a sentence each.
    fn restore(
        &mut self,
        snapshot: &Snapshot,
        wanted: &Wanted,
        announce: Announce<'_>,
    ) -> Result<Vec<String>, BackupError>;

    /// Restores a backup into a scratch place and compares; the scratch is gone afterwards. Nothing found, and nothing
    /// unchecked: it is what was backed up.
    fn verify(&mut self, snapshot: &Snapshot) -> Result<Proof, BackupError>;

    /// The backups that are kept no longer, by the site's rules and but for those that `protected` names.
    fn surplus(&mut self, protected: &BTreeSet<String>) -> Result<Vec<Snapshot>, BackupError>;

    /// Forgets backups and frees what only they needed.
    fn forget(&mut self, snapshots: &[Snapshot]) -> Result<(), BackupError>;

    /// What would stand in the way of a backup or a restore here.
    fn examine(&mut self) -> Examined;
}
