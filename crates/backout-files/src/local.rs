//! A directory on this machine as a file root, changed in place.
//!
//! Holds no state of a deployment: everything that an undo needs stands in the images and in the hold.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use backout_model::conflict::{Conflict, ConflictKind, OnConflict};
use backout_model::review::Review;
use backout_model::target::{
    Described, Finding, Gate, Images, Manner, PlannedChange, Probe, Report, Snapshot, Summary, Target, TargetError,
    Ticket, Touched,
};
use rustix::fs::{CWD, Mode, OFlags};
use serde_json::Value;

use crate::beneath::Beneath;
use crate::error::Acting;
use crate::gone::Gone;
use crate::hold::{Hold, Step};
use crate::image;
use crate::keep::Keep;
use crate::lock::{self, Locked};
use crate::manifest::{Header, Manifest, Place};
use crate::overlay::device;
use crate::path::RootPath;
use crate::plan::Planner;
use crate::root::{DraftedFiles, FileCondition, Kept, Lacking, Root, Work};
use crate::turn::Direction;

/// What a root is opened with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The site's name; part of the hold's, so that two sites on one directory don't meet.
    pub site: String,
    /// The root's name on its site.
    pub name: String,
    pub path: PathBuf,
    /// Paths relative to the root that nothing touches.
    pub keep: Vec<String>,
    /// Where before-images are kept if that is not possible beside the root: a directory of the site's state, 0700.
    /// The root's own lie in a directory with its name there.
    pub hold: Option<PathBuf>,
    /// Files of the site's databases: what a command writes to those is no change of the root.
    pub databases: Vec<PathBuf>,
}

/// A file root on this machine. `Root` and `Target` say what it does.
pub struct LocalRoot {
    pub(crate) name: String,
    pub(crate) label: String,
    pub(crate) path: PathBuf,
    pub(crate) root: Beneath,
    pub(crate) keep: Keep,
    pub(crate) hold: Hold,
    pub(crate) may_exchange: bool,
    /// Databases that lie in the root, and what their engine puts beside them.
    pub(crate) besides: Vec<RootPath>,
    /// What was gone when a step was undone, for the steps before it.
    pub(crate) gone: RefCell<Gone>,
    locked: Option<Locked>,
}

/// What a test makes a root believe of its file system.
#[cfg(feature = "faults")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Pretence {
    /// It has no `RENAME_EXCHANGE`.
    pub no_exchange: bool,
    /// Beside the root is no place for a hold.
    pub away: bool,
}

impl LocalRoot {
    /// Opens the root and decides where its hold is. Creates nothing.
    ///
    /// Fails where the directory is missing or unreadable; refuses a keep path that leaves the root, and a root beside
    /// which nothing can be kept unless [`Options::hold`] is given.
    pub fn open(options: Options) -> Result<Self, TargetError> {
        Self::open_with(options, true, false)
    }

    /// Opens a root that believes other things of its file system than are true.
    #[cfg(feature = "faults")]
    pub fn open_pretending(options: Options, pretence: Pretence) -> Result<Self, TargetError> {
        Self::open_with(options, !pretence.no_exchange, pretence.away)
    }

    fn open_with(options: Options, may_exchange: bool, away: bool) -> Result<Self, TargetError> {
        let label = format!("root {}", options.name);
        let opening = || format!("cannot open {label} at {}", options.path.display());
        let path = std::fs::canonicalize(&options.path).acting(opening)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::openat(CWD, &path, flags, Mode::empty()).acting(opening)?;
        let stat = rustix::fs::fstat(&top).acting(opening)?;
        let keep = Keep::parse(&options.keep, &label)?;
        let hold = Hold::choose(&path, &stat, &options.site, &options.name, options.hold.as_deref(), away)?;
        let besides = besides(&path, &options.databases);
        let root = Beneath::new(top);
        Ok(Self {
            name: options.name,
            label,
            path,
            root,
            keep,
            hold,
            may_exchange,
            besides,
            gone: RefCell::default(),
            locked: None,
        })
    }

    /// The directory that keeps before-images; it need not exist yet. The engine sees to it that it lies in no root.
    pub fn hold_path(&self) -> &Path {
        self.hold.path()
    }

    /// Which directory this is.
    pub(crate) fn whereabouts(&self) -> Result<Place, TargetError> {
        let stat = rustix::fs::fstat(self.root.top()).acting(|| format!("cannot look at {}", self.label))?;
        let hold = self.hold.path().to_str().map(str::to_owned);
        Ok(Place { ino: image::ino(&stat), path: self.path.display().to_string(), hold })
    }

    /// What the hold keeps of a step; none where that is lost.
    pub(crate) fn held(&self, header: &Header) -> Result<Option<Step>, TargetError> {
        let then = header.place.as_ref().and_then(|place| place.hold.as_deref()).map(Path::new);
        self.hold.find(&header.step, then)
    }

    /// A conflict where the step was done to another directory than the site names by now: a link that was switched,
    /// a path that was edited, a copy on another machine.
    pub(crate) fn elsewhere(&self, header: &Header) -> Result<Option<Conflict>, TargetError> {
        let Some(then) = &header.place else { return Ok(None) };
        let now = self.whereabouts()?;
        Ok((now.ino != then.ino).then(|| Conflict {
            target: self.label.clone(),
            object: ".".to_owned(),
            key: None,
            column: None,
            kind: ConflictKind::Definition,
            before: String::new(),
            left: then.path.clone(),
            now: format!("the deployment was made to the directory {}, this is another one: {}", then.path, now.path),
        }))
    }

    /// Removes from the hold every step but those named (`Summary::note["hold"]` has a step's name), and says how
    /// many went. To be called only while no step is in doubt.
    pub fn sweep(&mut self, still_needed: &[String]) -> Result<u64, TargetError> {
        self.hold.sweep(still_needed)
    }
}

/// The paths of databases in a root, by SQLite's names for what stands beside each (<https://sqlite.org/tempfiles.html>).
fn besides(root: &Path, databases: &[PathBuf]) -> Vec<RootPath> {
    let mut found = Vec::new();
    for database in databases {
        let whole = std::fs::canonicalize(database).unwrap_or_else(|_| database.clone());
        let Ok(below) = whole.strip_prefix(root) else { continue };
        for ending in ["", "-journal", "-wal", "-shm"] {
            let mut path = below.as_os_str().to_owned();
            path.push(ending);
            let names = Path::new(&path).components();
            found.push(names.fold(RootPath::root(), |path, name| path.join(name.as_os_str().as_encoded_bytes())));
        }
    }
    found
}

impl Target for LocalRoot {
    fn label(&self) -> String {
        self.label.clone()
    }

    fn undo(&mut self, images: &mut dyn Images, manner: Manner, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.turn(images, Direction::Back, manner, gate)
    }

    fn redo(&mut self, images: &mut dyn Images, manner: Manner, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.turn(images, Direction::Forth, manner, gate)
    }

    fn check_undo(
        &mut self,
        steps: &mut dyn Iterator<Item = Box<dyn Images>>,
        on_conflict: OnConflict,
    ) -> Result<Report, TargetError> {
        self.seek_conflicts(steps, on_conflict)
    }

    fn meets(&mut self, images: &mut dyn Images, conflicts: &[Conflict]) -> Result<Vec<bool>, TargetError> {
        self.meets_step(images, conflicts)
    }

    fn touched(
        &mut self,
        images: &mut dyn Images,
        each: &mut dyn FnMut(&Touched<'_>) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        self.touched_by(images, each)
    }

    fn probe(&mut self, _ticket: Ticket, images: &mut dyn Images) -> Result<Probe, TargetError> {
        self.probe_step(images)
    }

    fn describe(&mut self, images: &mut dyn Images, each: &mut dyn FnMut(Described)) -> Result<(), TargetError> {
        self.describe_step(images, each)
    }

    fn verify(&mut self, images: &mut dyn Images, applied: bool) -> Result<Vec<Finding>, TargetError> {
        self.verify_step(images, applied)
    }

    /// A step that was redone has the hold of its first time: it is given up with either of the two images.
    fn forget(&mut self, images: &mut dyn Images) -> Result<(), TargetError> {
        let header = Manifest::open(images, &self.label)?.header.clone();
        match self.held(&header)? {
            Some(step) => step.remove().acting(|| format!("cannot clean the hold of {}", self.label)),
            None => Ok(()),
        }
    }

    fn snapshot_size(&mut self) -> Result<Option<Summary>, TargetError> {
        self.measure().map(Some)
    }

    fn snapshot(&mut self, _snapshot: &Snapshot) -> Result<Value, TargetError> {
        self.take_snapshot()
    }

    fn compare(&mut self, snapshot: &Snapshot, _shown: &str, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.compare_snapshot(&snapshot.note, gate)
    }

    fn give_up(&mut self, snapshot: &Snapshot) -> Result<(), TargetError> {
        self.give_up_snapshot(&snapshot.note)
    }

    fn examine(&mut self) -> Result<Vec<Finding>, TargetError> {
        self.examine_root()
    }
}

impl Root for LocalRoot {
    fn draft(
        &mut self,
        snapshot: &Snapshot,
        into: &Path,
        leave_out: &dyn Fn(&str) -> bool,
        review: &mut Review,
    ) -> Result<DraftedFiles, TargetError> {
        self.draft_since(&snapshot.note, into, leave_out, review)
    }

    fn location(&self) -> OsString {
        self.path.clone().into_os_string()
    }

    fn lock(&mut self) -> Result<Option<String>, TargetError> {
        if self.locked.is_some() {
            return Ok(None);
        }
        match Locked::take(self.root.top()) {
            Ok(locked) => self.locked = Some(locked),
            Err(lock::Kept::By(who)) => return Ok(Some(format!("{who} is at work on {}", self.path.display()))),
            Err(lock::Kept::Failed(error)) => Err(error).acting(|| format!("cannot lock {}", self.label))?,
        }
        Ok(None)
    }

    fn unlock(&mut self) {
        self.locked = None;
    }

    fn plan(&mut self, work: &Work, each: &mut dyn FnMut(PlannedChange)) -> Result<Summary, TargetError> {
        let stat = rustix::fs::fstat(self.root.top()).acting(|| format!("cannot look at {}", self.label))?;
        let mut planner = Planner { label: &self.label, each, summary: Summary::default() };
        self.walk(work, device(&stat), &mut planner)?;
        Ok(planner.summary)
    }

    fn apply(&mut self, work: &Work, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.gone.take();
        self.apply_work(work, gate)
    }

    fn check(&mut self, path: &str, condition: &FileCondition) -> Result<Option<String>, TargetError> {
        self.check_path(path, condition)
    }

    fn hand_over(
        &mut self,
        images: &mut dyn Images,
        each: &mut dyn FnMut(Kept<'_>) -> io::Result<()>,
    ) -> Result<Vec<Lacking>, TargetError> {
        self.hand_over_step(images, each)
    }

    fn take_back(&mut self, images: &mut dyn Images, from: &Path) -> Result<(), TargetError> {
        self.take_back_step(images, from)
    }
}
