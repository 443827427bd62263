//! A root from its first entry to its last, in the order that the repository's trees have. Follows no link, also where
//! somebody swaps a directory for one meanwhile: each directory is opened by its parent's descriptor.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustic_core::repofile::Node;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::ledger::Ledger;
use crate::node::node;
use crate::xattr;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One entry, with what is needed to read it.
pub struct Entry {
    /// Where it stands in the tree that is walked; empty for the root itself.
    pub path: PathBuf,
    pub node: Node,
    /// For a regular file.
    pub file: Option<Unopened>,
}

/// A regular file that was found and not yet opened.
#[derive(Debug)]
pub struct Unopened {
    dir: Arc<OwnedFd>,
    name: OsString,
    inode: u64,
    size: u64,
    shown: String,
    ledger: Arc<Ledger>,
}

struct Level {
    dir: Arc<OwnedFd>,
    path: PathBuf,
    names: std::vec::IntoIter<OsString>,
}

/// Walks one root.
pub struct Walk {
    name: String,
    top: PathBuf,
    begun: bool,
    levels: Vec<Level>,
    /// Paths in the root that are left out.
    without: Vec<PathBuf>,
    ledger: Arc<Ledger>,
}

impl Walk {
    pub fn new(name: &str, top: &Path, without: Vec<PathBuf>, ledger: Arc<Ledger>) -> Self {
        Self { name: name.to_owned(), top: top.to_owned(), begun: false, levels: Vec::new(), without, ledger }
    }

    fn shown(&self, path: &Path) -> String {
        self.top.join(path).display().to_string()
    }

    fn failed(&self, path: &Path, what: &str, error: impl std::fmt::Display) {
        self.ledger.fail(format!("cannot {what} {}: {error}", self.shown(path)));
    }

    fn begin(&mut self) -> Option<Entry> {
        let opened = rustix::fs::open(&self.top, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty());
        let made = opened.map_err(io::Error::from).and_then(|dir| {
            let stat = rustix::fs::fstat(&dir)?;
            let found = node(OsStr::new("."), &stat, None, &xattr::read(&dir, OsStr::new("."))?)?;
            Ok((dir, found))
        });
        match made {
            Ok((dir, node)) => {
                self.enter(dir, PathBuf::new());
                Some(Entry { path: PathBuf::new(), node, file: None })
            }
            Err(error) => {
                self.failed(Path::new(""), "read", error);
                None
            }
        }
    }

    fn enter(&mut self, dir: OwnedFd, path: PathBuf) {
        let names = names(&dir).unwrap_or_else(|error| {
            self.failed(&path, "list", error);
            Vec::new()
        });
        self.levels.push(Level { dir: Arc::new(dir), path, names: names.into_iter() });
    }

    /// None where it is gone meanwhile.
    fn entry(&mut self, dir: &Arc<OwnedFd>, name: OsString, path: PathBuf) -> io::Result<Option<Entry>> {
        let Some(stat) = there(statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW))? else { return Ok(None) };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            let Some(inner) = there(openat(dir, &name, DIRECTORY, Mode::empty()))? else { return Ok(None) };
            let stat = rustix::fs::fstat(&inner)?;
            let node = node(&name, &stat, None, &xattr::read(&inner, OsStr::new("."))?)?;
            self.enter(inner, path.clone());
            return Ok(Some(Entry { path, node, file: None }));
        }
        let target = match kind {
            FileType::Symlink => {
                let Some(target) = there(readlinkat(dir, &name, Vec::new()))? else { return Ok(None) };
                Some(PathBuf::from(OsString::from_vec(target.into_bytes())))
            }
            _ => None,
        };
        let xattrs = match xattr::read(dir, &name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let node = node(&name, &stat, target.as_deref(), &xattrs)?;
        self.ledger.count();
        let file = (kind == FileType::RegularFile).then(|| self.unopened(dir, name, &path, &stat));
        Ok(Some(Entry { path, node, file }))
    }

    fn unopened(&self, dir: &Arc<OwnedFd>, name: OsString, path: &Path, stat: &Stat) -> Unopened {
        if stat.st_blocks * 512 < stat.st_size {
            self.ledger.has_holes(&Path::new(&self.name).join(path));
        }
        Unopened {
            dir: Arc::clone(dir),
            name,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            shown: self.shown(path),
            ledger: Arc::clone(&self.ledger),
        }
    }
}

impl Iterator for Walk {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        if !self.begun {
            self.begun = true;
            return self.begin();
        }
        loop {
            if self.ledger.is_stopped() {
                return None;
            }
            let level = self.levels.last_mut()?;
            let Some(name) = level.names.next() else {
                self.levels.pop();
                continue;
            };
            let dir = Arc::clone(&level.dir);
            let path = level.path.join(&name);
            if self.without.contains(&path) {
                continue;
            }
            match self.entry(&dir, name, path.clone()) {
                Ok(Some(entry)) => return Some(entry),
                Ok(None) => {}
                Err(error) => self.failed(&path, "read", error),
            }
        }
    }
}

impl Unopened {
    /// Opens the file that was found: not another one that took its name since, and nothing through a link.
    pub fn open(self) -> io::Result<Whole> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = openat(&*self.dir, &self.name, flags, Mode::empty()).map_err(io::Error::from);
        let opened = opened.and_then(|file| {
            let stat = rustix::fs::fstat(&file)?;
            if stat.st_ino != self.inode || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(io::Error::other("it was replaced while the backup ran"));
            }
            Ok(File::from(file))
        });
        match opened {
            Ok(file) => Ok(Whole { file, left: self.size, shown: self.shown, ledger: self.ledger }),
            Err(error) => {
                self.ledger.fail(format!("cannot read {}: {error}", self.shown));
                Err(error)
            }
        }
    }
}

/// A file of the size that it had when it was found: what is added meanwhile stays out, what is cut off is a failure.
#[derive(Debug)]
pub struct Whole {
    file: File,
    left: u64,
    shown: String,
    ledger: Arc<Ledger>,
}

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let done = if self.ledger.is_stopped() {
            Err(io::Error::other("stopped"))
        } else {
            self.file.read(&mut buffer[..most])
        };
        match done {
            Ok(0) => {
                let error = io::Error::other("it was cut short while the backup ran");
                self.ledger.fail(format!("cannot read {}: {error}", self.shown));
                Err(error)
            }
            Ok(length) => {
                self.left -= length as u64;
                Ok(length)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.ledger.fail(format!("cannot read {}: {error}", self.shown));
                Err(error)
            }
        }
    }
}

fn there<T>(result: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        // Gone, or no directory any more: a live site changes while it is read.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The names in a directory by their bytes, as the repository's trees have them.
pub fn names(dir: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}
