//! A restored tree against the nodes of the repository: metadata entry by entry, and contents byte by byte.
//!
//! The library tells nobody where it could not set an owner, a mode or an attribute. This does.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use backout_model::backup::BackupError;
use rustic_core::repofile::{Node, NodeType};
use rustic_core::{IndexedFullStatus, LsOptions, Repository};
use rustix::fs::{FileType, Stat};

use crate::node::{permissions, xattrs};
use crate::repository::said;
use crate::xattr;

/// One thing that is not as it was.
pub struct Difference {
    path: PathBuf,
    what: &'static str,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: its {} is not as it was", self.path.display(), self.what)
    }
}

/// Calls `each` for what is different below `top`, but for contents.
pub fn metadata(
    repository: &Repository<IndexedFullStatus>,
    node: &Node,
    top: &Path,
    each: &mut dyn FnMut(Difference),
) -> Result<(), BackupError> {
    let mut links = HashMap::new();
    walk(repository, node, |path, node| {
        let here = top.join(&path);
        let stat = match rustix::fs::lstat(&here) {
            Ok(stat) => stat,
            Err(_) => {
                each(Difference { path, what: "whole self" });
                return Ok(());
            }
        };
        let attributes = xattr::read_path(&here).unwrap_or_default();
        let mut differ = |what| each(Difference { path: path.clone(), what });
        if kind(node) != Some(FileType::from_raw_mode(stat.st_mode)) {
            differ("kind");
            return Ok(());
        }
        if attributes != xattrs(node) {
            differ("extended attributes");
        }
        if (node.meta.uid, node.meta.gid) != (Some(stat.st_uid), Some(stat.st_gid)) {
            differ("owner");
        }
        let mode = node.meta.mode.map(permissions);
        if !node.is_symlink() && mode != Some(stat.st_mode & 0o7777) {
            differ("mode");
        }
        if node.meta.mtime.map(|time| time.as_nanosecond()) != Some(mtime(&stat)) {
            differ("time");
        }
        if node.is_file() && i64::try_from(node.meta.size).ok() != Some(stat.st_size) {
            differ("size");
        }
        if node.is_symlink() && std::fs::read_link(&here).ok().as_deref() != Some(node.node_type.to_link()) {
            differ("target");
        }
        if node.meta.links > 1 && node.meta.device_id != 0 {
            let first = links.entry((node.meta.device_id, node.meta.inode)).or_insert(stat.st_ino);
            if *first != stat.st_ino {
                differ("hard link");
            }
        }
        Ok(())
    })
}

/// The files below `top` whose bytes are not those of the repository.
pub fn contents(
    repository: &Repository<IndexedFullStatus>,
    node: &Node,
    top: &Path,
) -> Result<Vec<String>, BackupError> {
    let mut different = Vec::new();
    walk(repository, node, |path, node| {
        if node.is_file() {
            let mut against = Against { file: File::open(top.join(&path)).map_err(|e| failed(&path, e))?, same: true };
            repository.dump(node, &mut against).map_err(|error| said("cannot read the backup", &error))?;
            if !against.all_the_same().map_err(|error| failed(&path, error))? {
                different.push(Difference { path, what: "content" }.to_string());
            }
        }
        Ok(())
    })?;
    Ok(different)
}

fn failed(path: &Path, error: io::Error) -> BackupError {
    BackupError::failed(format!("cannot read the restored {}", path.display()), error)
}

/// Calls `each` for every entry below a node, in the order of their paths.
pub fn walk(
    repository: &Repository<IndexedFullStatus>,
    node: &Node,
    mut each: impl FnMut(PathBuf, &Node) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let failed = |error: Box<rustic_core::RusticError>| said("cannot list the backup", &error);
    for entry in repository.ls(node, &LsOptions::default()).map_err(failed)? {
        let (path, node) = entry.map_err(failed)?;
        each(path, &node)?;
    }
    Ok(())
}

fn kind(node: &Node) -> Option<FileType> {
    Some(match node.node_type {
        NodeType::File => FileType::RegularFile,
        NodeType::Dir => FileType::Directory,
        NodeType::Symlink { .. } => FileType::Symlink,
        NodeType::Dev { .. } => FileType::BlockDevice,
        NodeType::Chardev { .. } => FileType::CharacterDevice,
        NodeType::Fifo => FileType::Fifo,
        NodeType::Socket => FileType::Socket,
    })
}

fn mtime(stat: &Stat) -> i128 {
    i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec)
}

/// Takes what it is written for what a file should hold.
struct Against {
    file: File,
    same: bool,
}

impl Against {
    /// Whether it was all the same, and all of the file.
    fn all_the_same(mut self) -> io::Result<bool> {
        Ok(self.same && self.file.read(&mut [0])? == 0)
    }
}

impl Write for Against {
    fn write(&mut self, expected: &[u8]) -> io::Result<usize> {
        let mut found = vec![0; expected.len()];
        match self.file.read_exact(&mut found) {
            Ok(()) => self.same &= found == expected,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.same = false,
            Err(error) => return Err(error),
        }
        Ok(expected.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
