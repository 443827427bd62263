//! Compares a list of paths to delete with the root and says what would go.
//!
//! Never changes anything and never looks beyond the paths named, but where a directory has to be copied.

use std::collections::HashSet;

use backout_model::target::TargetError;
use rustix::fd::OwnedFd;
use rustix::fs::FileType;

use crate::beneath::{is_blocked, is_missing, subdirectory};
use crate::error::{Acting, refused};
use crate::image::{self, Image, Kind, Time, file_type};
use crate::item::{Item, Sink};
use crate::keep;
use crate::overlay::{Ground, device, tree, whole, writable};
use crate::path::RootPath;
use crate::remove::names;
use crate::xattr;

/// Tells `sink` every path that goes. A trailing `/` names a directory with all it holds.
pub fn walk(ground: &Ground<'_>, paths: &[String], missing_ok: bool, sink: &mut dyn Sink) -> Result<(), TargetError> {
    let mut wanted = Vec::with_capacity(paths.len());
    for text in paths {
        let (bare, whole) = text.strip_suffix('/').map_or((text.as_str(), false), |bare| (bare, true));
        wanted.push((RootPath::parse(bare, ground.label)?, whole));
    }
    wanted.sort();
    wanted.dedup();
    let mut deletion = Deletion { ground, sink, touched: HashSet::new() };
    let mut gone: Option<RootPath> = None;
    for (path, whole) in &wanted {
        // A path inside a directory that goes anyway.
        if gone.as_ref().is_some_and(|dir| dir.contains(path)) {
            continue;
        }
        if deletion.path(path, *whole, missing_ok)? && *whole {
            gone = Some(path.clone());
        }
    }
    Ok(())
}

struct Deletion<'a> {
    ground: &'a Ground<'a>,
    sink: &'a mut dyn Sink,
    /// Directories whose change was told; as many as the step names at most.
    touched: HashSet<RootPath>,
}

impl Deletion<'_> {
    /// False where the path is missing.
    fn path(&mut self, path: &RootPath, whole: bool, missing_ok: bool) -> Result<bool, TargetError> {
        let label = self.ground.label;
        if let Some(kept) = self.ground.keep.covering(path).or_else(|| self.ground.keep.inside(path)) {
            return Err(keep::refusal(label, path, kept));
        }
        let looking = || format!("cannot look at {path} in {label}");
        let missing = || {
            let way = "write `missing: ok` if that is fine";
            if missing_ok { Ok(false) } else { Err(refused(label, path.to_string(), "there is no such path", way)) }
        };
        let parent = match self.ground.root.parent(path) {
            Ok(parent) => parent,
            Err(error) if is_missing(&error) => return missing(),
            Err(error) if is_blocked(&error) => {
                let why = "a directory on its way is a symbolic link or no directory";
                return Err(refused(label, path.to_string(), why, "name the path that the link leads to"));
            }
            Err(error) => return Err(error).acting(looking),
        };
        let Some(found) = image::stat(&parent, path.name()).acting(looking)? else { return missing() };
        match (file_type(&found), whole) {
            (FileType::Directory, true) => self.directory(path, &parent)?,
            (FileType::Directory, false) => {
                let way = format!("write `{path}/` to delete it with all it holds");
                return Err(refused(label, path.to_string(), "it is a directory", way));
            }
            (FileType::Symlink, true) => {
                let way = "leave the trailing `/` off to delete the link itself";
                return Err(refused(label, path.to_string(), "it is a symbolic link, not a directory", way));
            }
            (_, true) => {
                return Err(refused(label, path.to_string(), "it is no directory", "leave the trailing `/` off"));
            }
            (_, false) => self.leaf(path, &parent)?,
        }
        Ok(true)
    }

    fn leaf(&mut self, path: &RootPath, parent: &OwnedFd) -> Result<(), TargetError> {
        let wanted = self.sink.wants_images();
        let looking = || format!("cannot look at {path} in {}", self.ground.label);
        let Some(before) = image::look(parent, path.name(), |_| wanted).acting(looking)? else { return Ok(()) };
        let copied = self.touch(path, parent)?;
        self.sink.item(Item::Take { path, before, copied })
    }

    /// A whole directory: in one rename where it can be moved, else entry by entry.
    fn directory(&mut self, path: &RootPath, parent: &OwnedFd) -> Result<(), TargetError> {
        let looking = || format!("cannot look at {path} in {}", self.ground.label);
        let dir = subdirectory(parent, path.name()).acting(looking)?;
        tree(&dir, parent, self.ground.label, path)?;
        let stat = rustix::fs::fstat(&dir).acting(looking)?;
        let xattrs = xattr::digest(&xattr::read(&dir).acting(looking)?);
        if device(&stat) == self.ground.hold_device {
            let copied = self.touch(path, parent)?;
            let before = whole(dir, &stat, xattrs, self.sink.wants_images()).acting(looking)?;
            return self.sink.item(Item::Take { path, before, copied });
        }
        for name in names(&dir).acting(looking)? {
            let below = path.join(&name);
            let Some(found) = image::stat(&dir, &name).acting(looking)? else { continue };
            if file_type(&found) == FileType::Directory {
                self.directory(&below, &dir)?;
            } else {
                self.leaf(&below, &dir)?;
            }
        }
        let copied = self.touch(path, parent)?;
        self.sink.item(Item::Take { path, before: Image::new(Kind::Dir, &stat, xattrs), copied })
    }

    /// Tells once that the directory of `path` changes; true where it lies on another file system than the hold.
    fn touch(&mut self, path: &RootPath, parent: &OwnedFd) -> Result<bool, TargetError> {
        let stat = rustix::fs::fstat(parent)
            .acting(|| format!("cannot look at {} in {}", path.parent(), self.ground.label))?;
        let dir = path.parent();
        if self.touched.insert(dir.clone()) {
            writable(parent, self.ground.label, &dir)?;
            self.sink.item(Item::Touch { path: &dir, before: Time::of(&stat), after: None })?;
        }
        Ok(device(&stat) != self.ground.hold_device)
    }
}
