//! What happened to a root since a snapshot, as what a package holds to do the same elsewhere: files to lay over it, paths to
//! delete, and what must be there before. Copies out of the root and never changes it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{File, FileTimes, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use backout_model::review::{Concern, Review};
use backout_model::target::{Gate, Images, Summary, TargetError, Ticket};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::error::{Acting, refused};
use crate::hold::Step;
use crate::image::{self, Image, Kind};
use crate::local::LocalRoot;
use crate::manifest::{Change, Manifest, Order, Record};
use crate::path::RootPath;
use crate::root::{DraftedFiles, FileCondition};

/// So many paths of a root have conditions at most.
const PATHS_CHECKED: usize = 1000;
const LEAVE_OUT: &str = "leave it out with `--leave-out`, and add to the package by hand what it needs";

/// Takes the images of a comparison that nobody announces.
struct Nobody(File);

impl Gate for Nobody {
    fn images(&mut self) -> Box<dyn Write + Send> {
        match self.0.try_clone() {
            Ok(file) => Box::new(file),
            Err(_) => Box::new(Broken),
        }
    }

    fn written(&mut self) -> io::Result<Box<dyn Images>> {
        Ok(Box::new(self.0.try_clone()?))
    }

    fn announce(&mut self, _summary: &Summary) -> Result<Ticket, TargetError> {
        Err(TargetError::failed("cannot announce a draft", "it changes nothing"))
    }

    fn progress(&mut self, _done: u64, _of: Option<u64>) {}
}

/// A file of which no second handle could be had: the first write says so.
struct Broken;

impl Write for Broken {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::Error::other("too many open files"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LocalRoot {
    /// See [`crate::root::Root::draft`].
    pub(crate) fn draft_since(
        &mut self,
        note: &Value,
        into: &Path,
        leave_out: &dyn Fn(&str) -> bool,
        review: &mut Review,
    ) -> Result<DraftedFiles, TargetError> {
        let act = || format!("cannot write down what happened to {}", self.label);
        let mut gate = Nobody(tempfile::tempfile().acting(act)?);
        let step = self.write_differences(note, &mut gate)?;
        let mut images = gate.written().acting(act)?;
        let mut draft = Draft {
            root: self,
            step,
            into,
            review,
            drafted: DraftedFiles::default(),
            gone: BTreeSet::new(),
            directories: Vec::new(),
        };
        Manifest::open(&mut *images, &self.label)?.visit(Order::Forwards, |_, record| match record {
            Record::Change(change) if leave_out(&shown(&change.path)) => {
                draft.review.note(Concern::LeftOut, &draft.place(&change.path), String::new);
                Ok(())
            }
            Record::Change(change) => draft.change(change),
            Record::Touch(_) => Ok(()),
        })?;
        draft.end()
    }
}

fn shown(path: &RootPath) -> String {
    String::from_utf8_lossy(path.as_bytes()).into_owned()
}

struct Draft<'d> {
    root: &'d LocalRoot,
    /// Where the copies of before lie.
    step: Step,
    into: &'d Path,
    review: &'d mut Review,
    drafted: DraftedFiles,
    /// What goes; a directory with all it holds.
    gone: BTreeSet<(RootPath, bool)>,
    /// Directories of the package that get their mode last.
    directories: Vec<(PathBuf, u32)>,
}

impl Draft<'_> {
    fn place(&self, path: &RootPath) -> String {
        format!("{}, {path}", self.root.label)
    }

    fn change(&mut self, change: &Change) -> Result<(), TargetError> {
        let path = &change.path;
        for image in [&change.before, &change.after].into_iter().flatten() {
            if matches!(image.kind, Kind::Other { .. }) {
                let why = "it is a FIFO, socket or device, which no package holds";
                return Err(refused(&self.root.label, path.to_string(), why, LEAVE_OUT));
            }
        }
        match (&change.before, &change.after) {
            (Some(before), None) => {
                self.gone.insert((path.clone(), before.is_dir()));
                self.goes(change, before)
            }
            (None, Some(after)) => {
                // Beneath what goes first nothing can be asked for yet.
                let above_goes = self.gone.iter().any(|(gone, _)| gone.contains(path));
                if !after.is_dir() && !above_goes {
                    self.condition(path, FileCondition { exists: Some(false), ..FileCondition::default() });
                }
                self.comes(path, after)
            }
            (Some(before), Some(after)) => {
                if before.is_dir() && after.is_dir() {
                    let mode = after.mode;
                    let what = || format!("mode {mode:04o} here");
                    self.review.note(Concern::Attributes, &self.place(path), what);
                    return Ok(());
                }
                if before.is_dir() != after.is_dir() {
                    self.gone.insert((path.clone(), before.is_dir()));
                }
                if (before.uid, before.gid, before.xattrs) != (after.uid, after.gid, after.xattrs) {
                    self.review.note(Concern::Attributes, &self.place(path), || "owner or attributes".to_owned());
                }
                self.goes(change, before)?;
                self.comes(path, after)
            }
            (None, None) => Ok(()),
        }
    }

    /// What must be there before.
    fn goes(&mut self, change: &Change, before: &Image) -> Result<(), TargetError> {
        let path = &change.path;
        match before.kind {
            Kind::File { .. } => {
                let reading = || format!("cannot read what {path} of {} was", self.root.label);
                let copy = image::open_file(self.step.dir(), change.n.to_string().as_bytes()).acting(reading)?;
                let mut hasher = Sha256::new();
                io::copy(&mut File::from(copy), &mut hasher).acting(reading)?;
                let sha256 = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
                self.condition(path, FileCondition { sha256: Some(sha256), ..FileCondition::default() });
            }
            Kind::Link { .. } => {
                self.review.note(Concern::Unchecked, &self.place(path), || "a symbolic link".to_owned());
            }
            Kind::Dir | Kind::Tree => self.review.note(Concern::Goes, &self.place(path), || "a directory".to_owned()),
            Kind::Other { .. } => {}
        }
        Ok(())
    }

    fn condition(&mut self, path: &RootPath, condition: FileCondition) {
        match std::str::from_utf8(path.as_bytes()) {
            Ok(text) if self.drafted.conditions.len() < PATHS_CHECKED => {
                self.drafted.conditions.push((text.to_owned(), condition));
            }
            _ => self.review.note(Concern::Unchecked, &self.root.label, || path.to_string()),
        }
    }

    /// Copies what is there now into the package.
    fn comes(&mut self, path: &RootPath, after: &Image) -> Result<(), TargetError> {
        let copying = || format!("cannot copy {path} of {} into the package", self.root.label);
        let to = self.into.join(OsStr::from_bytes(path.as_bytes()));
        let above = to.parent().unwrap_or(self.into);
        std::fs::create_dir_all(above).acting(copying)?;
        self.drafted.files += 1;
        let changed = || TargetError::failed(copying(), "it was changed meanwhile: try again when nobody writes to it");
        match &after.kind {
            Kind::Dir | Kind::Tree => {
                std::fs::create_dir_all(&to).acting(copying)?;
                self.directories.push((to, after.mode));
            }
            Kind::Link { target } => {
                std::os::unix::fs::symlink(OsStr::from_bytes(&target.0), &to).acting(copying)?;
                let time = Timespec { tv_sec: after.mtime.0, tv_nsec: after.mtime.1.into() };
                let times = Timestamps { last_access: time, last_modification: time };
                rustix::fs::utimensat(CWD, &to, &times, AtFlags::SYMLINK_NOFOLLOW).acting(copying)?;
            }
            Kind::File { digest, size } => {
                let parent = self.root.root.parent(path).acting(copying)?;
                let mut from = File::from(image::open_file(&parent, path.name()).acting(copying)?);
                let mut file = File::create_new(&to).acting(copying)?;
                io::copy(&mut from, &mut file).acting(copying)?;
                let copied = image::hash(&File::open(&to).acting(copying)?).acting(copying)?;
                if copied != (*size, *digest) {
                    return Err(changed());
                }
                file.set_permissions(Permissions::from_mode(after.mode)).acting(copying)?;
                let seconds = u64::try_from(after.mtime.0).unwrap_or(0);
                let time = UNIX_EPOCH + Duration::new(seconds, after.mtime.1);
                file.set_times(FileTimes::new().set_modified(time)).acting(copying)?;
            }
            Kind::Other { .. } => {}
        }
        if after.xattrs.is_some() {
            self.review.note(Concern::Attributes, &self.place(path), || "extended attributes".to_owned());
        }
        Ok(())
    }

    fn end(mut self) -> Result<DraftedFiles, TargetError> {
        let within =
            |path: &RootPath| self.gone.iter().any(|(other, whole)| *whole && other != path && other.contains(path));
        for (path, whole) in self.gone.iter().filter(|(path, _)| !within(path)) {
            let Ok(text) = std::str::from_utf8(path.as_bytes()) else {
                let why = "it went, and its name is no UTF-8: a package cannot name it";
                return Err(refused(&self.root.label, path.to_string(), why, LEAVE_OUT));
            };
            self.drafted.deleted.push(format!("{text}{}", if *whole { "/" } else { "" }));
        }
        for (directory, mode) in self.directories.iter().rev() {
            let acting = || format!("cannot set the mode of {}", directory.display());
            std::fs::set_permissions(directory, Permissions::from_mode(*mode)).acting(acting)?;
        }
        Ok(self.drafted)
    }
}
