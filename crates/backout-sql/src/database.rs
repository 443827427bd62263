//! What every database engine must do beyond [`Target`]: the lock, the plan, scripts, and values for checks.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use backout_model::target::{Gate, Images, PlannedChange, Report, Snapshot, Target, TargetError, Ticket};
use serde::{Deserialize, Serialize};

use crate::recorded::{Drafted, Drafting};

/// Who holds the deployer's lock of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub site: String,
    pub host: String,
    /// The kernel's boot id: after a reboot no process of before lives.
    pub boot_id: String,
    pub pid: u32,
    /// Start time of the process in clock ticks since boot (`/proc/PID/stat`, field 22): pids are used again.
    pub started: u64,
    /// What it does: `deploy winter-catalogue`, for the person who is kept out.
    pub purpose: String,
    /// Milliseconds since 1970 UTC.
    pub since_ms: i64,
}

/// How long a query may take, and who may break it off.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    pub until: Option<Instant>,
    /// Set by whoever asks the run to stop.
    pub stop: Option<Arc<AtomicBool>>,
}

impl Bounds {
    pub fn are_over(&self) -> bool {
        self.is_stopped() || self.until.is_some_and(|until| Instant::now() >= until)
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

/// The script of one `sql` step.
#[derive(Clone, Debug)]
pub struct Script {
    /// Where it is read from.
    pub path: PathBuf,
    /// How it is named to people: relative to the package.
    pub shown: String,
    pub undo: ScriptUndo,
}

/// How the statements of a script are taken back.
#[derive(Clone, Debug)]
pub enum ScriptUndo {
    /// Captured while they run: the rule.
    Captured,
    /// By the user's own script, for what cannot be captured.
    ByScript { path: PathBuf, shown: String },
    /// Not at all; the user said why and accepted it.
    Never { because: String },
}

/// Finds out, before anything runs, how each statement of the scripts of a deployment would be undone. Scripts are
/// given in the order in which they will run, so that one sees the schema that those before it leave.
pub trait Planner {
    /// `schema_known`: false once a command has run in between that may have changed the schema; then a statement
    /// that does not fit the known schema is `Unknown`, else an error.
    fn script(
        &mut self,
        script: &Script,
        schema_known: bool,
        each: &mut dyn FnMut(PlannedChange),
    ) -> Result<(), TargetError>;
}

/// A database of a site.
pub trait Database: Target {
    /// `sqlite`, `postgres`, `mariadb`.
    fn engine(&self) -> &'static str;

    /// Takes the deployer's lock and returns its epoch, which is higher than every one before. `at_least`: the
    /// lowest epoch that will do (the journal's own count), so that one epoch serves all databases of a site.
    /// A holder that is provably dead is taken over; one that lives, or on another host, is returned as the error.
    fn lock(&mut self, me: &Holder, at_least: u64) -> Result<u64, LockError>;

    /// Gives the lock back. Nothing happens where another has taken it over.
    fn unlock(&mut self) -> Result<(), TargetError>;

    /// Who holds the lock now.
    fn holder(&mut self) -> Result<Option<Holder>, TargetError>;

    /// Takes the lock away from `holder`; the caller has made sure that this is right. False where it is not that
    /// holder's any more: then nothing happens.
    fn break_lock(&mut self, holder: &Holder) -> Result<bool, TargetError>;

    /// The step that was the last to commit here, by the marker; none where this site never deployed to it.
    fn last_mark(&mut self) -> Result<Option<Ticket>, TargetError>;

    /// Sets the marker back to the entry `seq`, where the history that wrote it is lost. Needs the lock.
    fn set_mark(&mut self, seq: u64) -> Result<(), TargetError>;

    fn planner(&mut self) -> Result<Box<dyn Planner + '_>, TargetError>;

    /// Runs a script as one transaction with its images captured. `gate.announce` comes right before the commit,
    /// which carries the marker. After an error nothing of the script is left.
    fn apply(&mut self, script: &Script, gate: &mut dyn Gate) -> Result<Report, TargetError>;

    /// The one value that a query gives, as the engine's text; `None` where there is no row or it is NULL. More than
    /// one row or column is an error, and so is a statement that writes. The query is broken off when `bounds` say so.
    fn value(&mut self, sql: &str, bounds: &Bounds) -> Result<Option<String>, TargetError>;

    /// Why a query can never give one value, as far as that is known without running it: it writes, or has more than
    /// one column. `None` also where it does not fit the schema as it is now.
    fn never_a_value(&mut self, sql: &str) -> Result<Option<String>, TargetError>;

    /// What an object is, given by its kind and name (`table public.product`), as a text by which two databases of the
    /// engine are compared: a table with its columns, keys, indexes and triggers; without owners, grants and counters.
    /// `None` where nothing has its name; what has it and is of another kind has another text.
    fn definition(&mut self, object: &str) -> Result<Option<String>, TargetError>;

    /// Hands over the statements of a step, each with its place (`sql/010.sql:12`), in the order in which they ran.
    fn statements(
        &mut self,
        images: &mut dyn Images,
        each: &mut dyn FnMut(&str, &str) -> io::Result<()>,
    ) -> Result<(), TargetError>;

    /// Writes a script for the engine's own client that takes back steps, given by their images, the latest first: guarded,
    /// so that it stops and changes nothing where something no longer holds what the steps left. Returns what no script can
    /// take back, in words; then what was written is of no use.
    fn undo_script(
        &mut self,
        steps: &mut dyn Iterator<Item = Box<dyn Images>>,
        out: &mut dyn Write,
    ) -> Result<Vec<String>, TargetError>;

    /// Writes what happened since a snapshot was taken as a script that does the same on another site; what a reviewer must
    /// look at is noted. Refused where something cannot be written so. Changes nothing that a user sees.
    fn draft(&mut self, snapshot: &Snapshot, drafting: &mut Drafting<'_>) -> Result<Drafted, TargetError>;

    /// The locks, holds and other objects of the tool that this database keeps, by name.
    fn own_objects(&mut self) -> Result<Vec<String>, TargetError>;
}

/// Why the lock was not given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another deployer is at work, or its host cannot be asked.
    #[error("the site is locked by process {} on {} ({})", .holder.pid, .holder.host, .holder.purpose)]
    Held {
        holder: Box<Holder>,
        /// True where it may be dead but that cannot be proven from here (another host).
        unprovable: bool,
    },
    #[error(transparent)]
    Target(#[from] TargetError),
}
