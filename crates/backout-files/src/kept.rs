//! What is kept of a step, handed over file by file for its record, and put into a hold that was lost.
//!
//! Changes nothing in the root. What others wrote to a live path since is not handed over as what the step left.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use backout_model::target::{Images, TargetError};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::beneath::{Beneath, is_blocked, is_missing, subdirectory};
use crate::error::Acting;
use crate::hold::Step;
use crate::image::{self, Image, Kind, Time};
use crate::local::LocalRoot;
use crate::manifest::{Change, Manifest, Order, Record};
use crate::path::RootPath;
use crate::remove::names;
use crate::root::{Kept, KeptKind, Lacking, Side};
use crate::xattr;
use crate::{act, copy};

/// Hears of one file, directory or link.
type Each<'a> = &'a mut dyn FnMut(Kept<'_>) -> io::Result<()>;

impl LocalRoot {
    pub(crate) fn hand_over_step(
        &mut self,
        images: &mut dyn Images,
        each: Each<'_>,
    ) -> Result<Vec<Lacking>, TargetError> {
        let label = self.label.clone();
        let mut manifest = Manifest::open(images, &label)?;
        let step = self.held(&manifest.header.clone())?;
        let mut lacking = Vec::new();
        for side in [Side::Before, Side::After] {
            let mut walk = Walk { side, made: false, each: &mut *each, linked: HashMap::new(), lacking: &mut lacking };
            manifest.visit(Order::Forwards, |_, record| {
                let Record::Change(change) = record else { return Ok(()) };
                let reading = || format!("cannot read {} of {label} for the record", change.path);
                let wanted = if side == Side::Before { &change.before } else { &change.after };
                let Some(wanted) = wanted else { return Ok(()) };
                match self.found(change, wanted, step.as_ref()).acting(reading)? {
                    Some((dir, name)) => {
                        // What else lies in a directory that the step made or took away has changes of its own, or is not
                        // the step's.
                        let deep = wanted.kind == Kind::Tree;
                        walk.made = change.before.is_none();
                        walk.tree(dir.as_fd(), &name, change.path.as_bytes(), deep).acting(reading)
                    }
                    None => {
                        walk.lacks(change.path.as_bytes(), "it is not kept any more");
                        Ok(())
                    }
                }
            })?;
        }
        Ok(lacking)
    }

    /// Where what a path held, or what the step left there, lies now: in the hold or in the root.
    fn found(&self, change: &Change, wanted: &Image, step: Option<&Step>) -> io::Result<Option<(OwnedFd, Vec<u8>)>> {
        let number = change.n.to_string().into_bytes();
        if let Some(step) = step
            && is_that(step.dir().as_fd(), &number, wanted)?
        {
            return Ok(Some((step.dir().try_clone()?, number)));
        }
        let dir = match self.root.parent(&change.path) {
            Ok(dir) => dir,
            Err(error) if is_missing(&error) || is_blocked(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let name = change.path.name().to_vec();
        Ok(is_that(dir.as_fd(), &name, wanted)?.then_some((dir, name)))
    }

    pub(crate) fn take_back_step(&mut self, images: &mut dyn Images, from: &Path) -> Result<(), TargetError> {
        let label = self.label.clone();
        let mut manifest = Manifest::open(images, &label)?;
        let header = manifest.header.clone();
        let opening = || format!("cannot open {} for {label}", from.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = match rustix::fs::openat(CWD, from, flags, Mode::empty()) {
            Ok(from) => Beneath::new(from),
            // The step replaced nothing.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error).acting(opening),
        };
        let step = match self.held(&header)? {
            Some(step) => step,
            None => self.hold.anew(&header.step)?,
        };
        // Those inside a directory before the directory, whose own time is set last.
        let mut directories: Vec<(RootPath, u64, Time)> = Vec::new();
        manifest.visit(Order::Forwards, |_, record| {
            let Record::Change(change) = record else { return Ok(()) };
            let keeping = || format!("cannot keep {} in the hold of {label}", change.path);
            let Some(before) = &change.before else { return Ok(()) };
            if step.stat(change.n).acting(keeping)?.is_some() {
                return Ok(());
            }
            if before.kind == Kind::Dir {
                directories.push((change.path.clone(), change.n, before.mtime));
                return Ok(());
            }
            keep(&from, &change.path, &step, change.n).acting(keeping)
        })?;
        directories.sort_by(|(one, ..), (other, ..)| other.as_bytes().cmp(one.as_bytes()));
        for (path, n, time) in directories {
            let keeping = || format!("cannot keep {path} in the hold of {label}");
            keep(&from, &path, &step, n).acting(keeping)?;
            let dir = subdirectory(step.dir(), n.to_string().as_bytes()).acting(keeping)?;
            act::set_dir_time(&dir, time).acting(keeping)?;
        }
        step.sync().acting(|| format!("cannot sync the hold of {label}"))
    }
}

/// Moves one path into the hold, or copies it where the hold lies on another file system. What the record lacks stays
/// lacking: the undo says so.
fn keep(from: &Beneath, path: &RootPath, step: &Step, n: u64) -> io::Result<()> {
    let dir = match from.parent(path) {
        Ok(dir) => dir,
        Err(error) if is_missing(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let to = n.to_string();
    match act::rename_new(&dir, path.name(), step.dir(), to.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copied(dir.as_fd(), path.name(), step.dir().as_fd(), to.as_bytes())
        }
        moved => moved,
    }
}

fn copied(from: BorrowedFd<'_>, name: &[u8], to: BorrowedFd<'_>, to_name: &[u8]) -> io::Result<()> {
    copy::entry(from, name, to, to_name)?;
    let Some(stat) = image::stat(from, name)?.filter(|stat| image::file_type(stat) == FileType::Directory) else {
        return Ok(());
    };
    let (dir, copy) = (subdirectory(from, name)?, subdirectory(to, to_name)?);
    for inner in names(&dir)? {
        copied(dir.as_fd(), &inner, copy.as_fd(), &inner)?;
    }
    act::set_dir_time(&copy, Time::of(&stat))
}

/// Whether a name holds what an image tells. Of a directory only that it is one.
fn is_that(dir: BorrowedFd<'_>, name: &[u8], wanted: &Image) -> io::Result<bool> {
    let Some(stat) = image::stat(dir, name)? else { return Ok(false) };
    if wanted.is_dir() {
        return Ok(image::file_type(&stat) == FileType::Directory);
    }
    if wanted.looks_untouched(&stat) {
        return Ok(true);
    }
    let size = wanted.bytes();
    Ok(image::look(dir, name, |found| found == size)?.is_some_and(|found| found.same_content(wanted)))
}

/// Hands over one side of a step.
struct Walk<'a> {
    side: Side,
    /// The path at hand was made by the step.
    made: bool,
    each: Each<'a>,
    /// Inodes with several names, and the first path of each.
    linked: HashMap<(u64, u64), Vec<u8>>,
    lacking: &'a mut Vec<Lacking>,
}

impl Walk<'_> {
    fn lacks(&mut self, path: &[u8], why: &'static str) {
        self.lacking.push(Lacking { side: self.side, path: crate::path::escape(path), why });
    }

    /// A name and, where it is a directory and `deep`, all that it holds.
    fn tree(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8], deep: bool) -> io::Result<()> {
        let Some(stat) = image::stat(dir, name)? else { return Ok(()) };
        match image::file_type(&stat) {
            FileType::RegularFile => self.file(dir, name, path),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes();
                self.give(&stat, Vec::new(), path, KeptKind::Link(target))
            }
            FileType::Directory => {
                let opened = subdirectory(dir, name)?;
                self.give(&rustix::fs::fstat(&opened)?, xattr::read(&opened)?, path, KeptKind::Directory)?;
                for inner in if deep { names(&opened)? } else { Vec::new() } {
                    self.tree(opened.as_fd(), &inner, &[path, b"/", &inner].concat(), deep)?;
                }
                Ok(())
            }
            _ => {
                self.lacks(path, "it is a device, a socket or a pipe");
                Ok(())
            }
        }
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> io::Result<()> {
        let opened = image::open_file(dir, name)?;
        let stat = rustix::fs::fstat(&opened)?;
        if stat.st_nlink > 1 {
            #[allow(clippy::useless_conversion)]
            let inode = (stat.st_dev.into(), image::ino(&stat));
            if let Some(first) = self.linked.get(&inode) {
                let first = first.clone();
                return self.give(&stat, Vec::new(), path, KeptKind::HardLink(first));
            }
            self.linked.insert(inode, path.to_vec());
        }
        let xattrs = xattr::read(&opened)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut content = File::from(opened);
        self.give(&stat, xattrs, path, KeptKind::File { size, content: &mut content as &mut dyn Read })
    }

    fn give(&mut self, stat: &Stat, xattrs: xattr::Xattrs, path: &[u8], kind: KeptKind<'_>) -> io::Result<()> {
        let Time(seconds, ns) = Time::of(stat);
        (self.each)(Kept {
            side: self.side,
            made: self.made,
            path: path.to_vec(),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (seconds, ns),
            xattrs,
            kind,
        })
    }
}
