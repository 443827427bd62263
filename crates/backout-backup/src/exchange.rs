//! A root as a whole: staged beside it, on its file system and for nobody else's eyes, then exchanged entry by entry at its top.
//!
//! What was there goes into the stage, and goes with it. A run that dies in between is begun anew from the backup.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use backout_model::backup::BackupError;
use backout_model::fault::{self, Point};
use rustic_core::repofile::Node;
use rustix::fd::OwnedFd;
use rustix::fs::{Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, XattrFlags, renameat_with};
use rustix::io::Errno;

use crate::node::{permissions, xattrs};
use crate::restore::{mount_in, remove};
use crate::walk::names;
use crate::xattr;

/// Where a root is restored to before it takes the place of the live one.
pub struct Stage {
    path: PathBuf,
    label: String,
}

impl Stage {
    /// In the state directory where that is on the root's file system, else beside the root. A root that is gone is made.
    pub fn make(root: &Path, state: &Path, site: &str, name: &str) -> Result<Self, BackupError> {
        let label = format!("root {name}");
        let failed =
            |error: io::Error| BackupError::failed(format!("{label}: cannot make room for its restore"), error);
        if !root.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed)?;
        }
        let meta = fs::metadata(root).map_err(failed)?;
        if let Some(mount) = mount_in(root, meta.dev()).map_err(failed)? {
            return Err(BackupError::new(format!("{label}: {} is a mount point", mount.display()))
                .hint("restore with --into, and copy from there: what is mounted cannot be exchanged"));
        }
        let root = fs::canonicalize(root).map_err(failed)?;
        let path = match fs::metadata(state) {
            Ok(of_state) if of_state.dev() == meta.dev() => state.join("restore").join(name),
            _ => root.with_file_name(format!(".backout-{site}-{name}-restore")),
        };
        remove(&path).map_err(failed)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        Ok(Self { path, label })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Exchanges everything in the root for what is staged, gives the root its own metadata, and removes what was there.
    pub fn exchange(self, root: &Path, node: &Node) -> Result<(), BackupError> {
        let failed = |error: io::Error| BackupError::failed(format!("{}: cannot put it back", self.label), error);
        let (staged, live) = (open(&self.path).map_err(failed)?, open(root).map_err(failed)?);
        let new = names(&staged).map_err(failed)?;
        for name in &new {
            point(Point::Exchange).map_err(failed)?;
            match renameat_with(&staged, name, &live, name, RenameFlags::EXCHANGE) {
                Err(Errno::NOENT) => renameat_with(&staged, name, &live, name, RenameFlags::NOREPLACE),
                other => other,
            }
            .map_err(|error| failed(named(error.into(), name)))?;
        }
        for name in names(&live).map_err(failed)? {
            if new.binary_search(&name).is_err() {
                point(Point::Rename).map_err(failed)?;
                renameat_with(&live, &name, &staged, &name, RenameFlags::NOREPLACE)
                    .map_err(|error| failed(named(error.into(), &name)))?;
            }
        }
        dress(root, node).map_err(failed)?;
        rustix::fs::syncfs(&live).map_err(|error| failed(error.into()))?;
        remove(&self.path).map_err(failed)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next restore.
        drop(remove(&self.path));
    }
}

/// Gives a directory the mode, owner, attributes and time of a node.
pub fn dress(directory: &Path, node: &Node) -> io::Result<()> {
    let meta = &node.meta;
    let found = fs::metadata(directory)?;
    if (Some(found.uid()), Some(found.gid())) != (meta.uid, meta.gid) {
        rustix::fs::chown(directory, meta.uid.map(Uid::from_raw), meta.gid.map(Gid::from_raw))?;
    }
    if let Some(mode) = meta.mode {
        fs::set_permissions(directory, fs::Permissions::from_mode(permissions(mode)))?;
    }
    let wanted = xattrs(node);
    for (name, _) in xattr::read_path(directory)?.iter().filter(|found| !wanted.iter().any(|one| one.0 == found.0)) {
        rustix::fs::lremovexattr(directory, name.as_slice())?;
    }
    for (name, value) in &wanted {
        rustix::fs::lsetxattr(directory, name.as_slice(), value, XattrFlags::empty())?;
    }
    if let Some(time) = meta.mtime {
        let time = Timespec { tv_sec: time.as_second(), tv_nsec: i64::from(time.subsec_nanosecond()) };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, directory, &times, rustix::fs::AtFlags::empty())?;
    }
    Ok(())
}

fn open(directory: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn point(at: Point) -> io::Result<()> {
    fault::point(at)
}

fn named(error: io::Error, name: &OsString) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", String::from_utf8_lossy(name.as_bytes())))
}
