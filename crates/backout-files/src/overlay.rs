//! Compares a directory of a package with the root and says what laying it over would change.
//!
//! Walks the package, not the root, so that the cost grows with the package; only `exact` lists the root's
//! directories. Never changes anything, never follows a link on either side.

use std::path::Path;

use backout_model::entry::Digest;
use backout_model::target::TargetError;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::beneath::{Beneath, subdirectory};
use crate::compare;
use crate::error::{Acting, refused};
use crate::holding;
use crate::image::{self, Image, Kind, Time, file_type};
use crate::item::{Inherit, Item, Sink, Source};
use crate::keep::{self, Keep};
use crate::path::RootPath;
use crate::remove::names;
use crate::xattr;

/// Deeper nesting is refused: each level keeps two directories open.
const DEEPEST: usize = 200;

/// What the walk needs to know beside the two trees.
pub struct Ground<'a> {
    pub root: &'a Beneath,
    /// `root web`.
    pub label: &'a str,
    pub keep: &'a Keep,
    /// The device of the hold; paths on another one are copied.
    pub hold_device: u64,
}

/// One directory under way: in the package, in the root, or in both.
struct Frame {
    path: RootPath,
    /// None where the package lacks it and all entries of the root's directory go.
    source: Option<OwnedFd>,
    /// None where the root lacks it.
    live: Option<OwnedFd>,
    names: std::vec::IntoIter<Vec<u8>>,
    time: Time,
    /// For a new directory: the time it ends with.
    new_time: Option<Time>,
    touched: bool,
    copied: bool,
    inherit: Option<Inherit>,
    /// Goes itself after its entries.
    goes: Option<Image>,
}

/// Walks `source` and tells `sink` every difference.
pub fn walk(ground: &Ground<'_>, source: &Path, exact: bool, sink: &mut dyn Sink) -> Result<(), TargetError> {
    let opening = || format!("cannot open the package's directory {}", source.display());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, source, flags, Mode::empty()).acting(opening)?;
    let live = ground.root.directory(&RootPath::root()).acting(|| format!("cannot open {}", ground.label))?;
    let mut walk = Walk { ground, source, exact, sink, frames: Vec::new() };
    walk.enter_both(RootPath::root(), top, live)?;
    walk.run()
}

struct Walk<'a> {
    ground: &'a Ground<'a>,
    source: &'a Path,
    exact: bool,
    sink: &'a mut dyn Sink,
    frames: Vec<Frame>,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), TargetError> {
        while let Some(mut frame) = self.frames.pop() {
            match frame.names.next() {
                Some(name) => {
                    let path = frame.path.join(&name);
                    if path.is_too_long() {
                        return Err(self.refuse(&path, "the path is longer than Linux allows", "nest it less deep"));
                    }
                    if frame.source.is_some() {
                        self.lay(frame, &name, path)?;
                    } else {
                        self.strip(frame, &name, path)?;
                    }
                }
                None => {
                    if let (Some(before), Some(above)) = (frame.goes.take(), self.frames.last_mut()) {
                        touch(above, self.ground.label, self.sink)?;
                        let copied = above.copied;
                        self.sink.item(Item::Take { path: &frame.path, before, copied })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Compares one entry of the package with the root's.
    fn lay(&mut self, mut frame: Frame, name: &[u8], path: RootPath) -> Result<(), TargetError> {
        let Some(source) = frame.source.as_ref() else { return Ok(()) };
        let reading = || format!("cannot read {path} of {}", self.source.display());
        let Some(stat) = image::stat(source, name).acting(reading)? else {
            return Err(TargetError::failed(reading(), "it vanished while it was read"));
        };
        let found = match &frame.live {
            Some(live) => image::stat(live, name).acting(|| self.looking(&path))?,
            None => None,
        };
        let kept = self.ground.keep.covering(&path);
        match (file_type(&stat), found.as_ref().map(file_type)) {
            // A directory at a keep path may stand in the package as long as it is empty and changes nothing.
            (FileType::Directory, Some(FileType::Directory)) => {
                let below = subdirectory(source, name).acting(reading)?;
                let Some(live) = &frame.live else { return Ok(()) };
                let live = subdirectory(live, name).acting(|| self.looking(&path))?;
                self.frames.push(frame);
                self.enter_both(path, below, live)
            }
            (FileType::Directory, None) => {
                if let Some(keep) = kept {
                    return Err(keep::refusal(self.ground.label, &path, keep));
                }
                let below = subdirectory(source, name).acting(reading)?;
                inherit(&mut frame, || self.looking(&path))?;
                touch(&mut frame, self.ground.label, self.sink)?;
                let parent = frame.inherit.clone().unwrap_or_default();
                let from = Source { dir: source_of(&frame)?, name, stat: &stat };
                self.sink.item(Item::Put { path: &path, source: from, inherit: &parent, copied: frame.copied })?;
                let copied = frame.copied;
                self.frames.push(frame);
                self.enter_new(path, below, &stat, parent, copied)
            }
            (FileType::Directory, Some(FileType::Symlink)) => {
                Err(self.refuse(&path, "a directory over a symbolic link", "delete the link in a step before"))
            }
            (FileType::Directory, Some(_)) => {
                Err(self.refuse(&path, "a directory over a file", "delete the file in a step before"))
            }
            (FileType::RegularFile | FileType::Symlink, Some(FileType::Directory)) => {
                Err(self.refuse(&path, "a file over a directory", "delete the directory in a step before"))
            }
            (FileType::RegularFile | FileType::Symlink, _) => {
                if let Some(keep) = kept {
                    return Err(keep::refusal(self.ground.label, &path, keep));
                }
                self.leaf(&mut frame, name, &path, &stat, found.as_ref())?;
                self.frames.push(frame);
                Ok(())
            }
            _ => Err(self.refuse(&path, "it is a FIFO, socket or device", "take it out of the package")),
        }
    }

    /// A file or link of the package.
    fn leaf(
        &mut self,
        frame: &mut Frame,
        name: &[u8],
        path: &RootPath,
        stat: &Stat,
        found: Option<&Stat>,
    ) -> Result<(), TargetError> {
        let Some(found) = found else {
            inherit(frame, || self.looking(path))?;
            touch(frame, self.ground.label, self.sink)?;
            let source = Source { dir: source_of(frame)?, name, stat };
            let parent = frame.inherit.clone().unwrap_or_default();
            return self.sink.item(Item::Put { path, source, inherit: &parent, copied: frame.copied });
        };
        let source = Source { dir: source_of(frame)?, name, stat };
        let Some(live) = &frame.live else { return Ok(()) };
        let compared = compare::leaf(source, live.as_fd(), name, found, self.sink.wants_images())
            .acting(|| format!("cannot compare {path} of {} with {}", self.source.display(), self.ground.label))?;
        let Some((before, attributes)) = compared else { return Ok(()) };
        let replaced = Inherit::from_replaced(found, &attributes);
        touch(frame, self.ground.label, self.sink)?;
        let source = Source { dir: source_of(frame)?, name, stat };
        self.sink.item(Item::Swap { path, source, inherit: &replaced, before, copied: frame.copied })
    }

    /// One entry of the root that the package lacks, under `exact`.
    fn strip(&mut self, mut frame: Frame, name: &[u8], path: RootPath) -> Result<(), TargetError> {
        let Some(live) = &frame.live else { return Ok(()) };
        let found = image::stat(live, name).acting(|| self.looking(&path))?;
        let Some(found) = found.filter(|_| self.ground.keep.covering(&path).is_none()) else {
            self.frames.push(frame);
            return Ok(());
        };
        if file_type(&found) == FileType::Directory {
            let below = subdirectory(live, name).acting(|| self.looking(&path))?;
            tree(&below, live, self.ground.label, &path)?;
            let holds_kept = self.ground.keep.inside(&path).is_some();
            if holds_kept || frame.copied {
                touch(&mut frame, self.ground.label, self.sink)?;
                let copied = frame.copied;
                self.frames.push(frame);
                self.enter_going(path, below, copied, !holds_kept)
            } else {
                let xattrs = digest_of(&below).acting(|| self.looking(&path))?;
                let before = whole(below, &found, xattrs, self.sink.wants_images()).acting(|| self.looking(&path))?;
                touch(&mut frame, self.ground.label, self.sink)?;
                self.sink.item(Item::Take { path: &path, before, copied: false })?;
                self.frames.push(frame);
                Ok(())
            }
        } else {
            let wanted = self.sink.wants_images();
            let before = image::look(live, name, |_| wanted).acting(|| self.looking(&path))?;
            if let Some(before) = before {
                touch(&mut frame, self.ground.label, self.sink)?;
                self.sink.item(Item::Take { path: &path, before, copied: frame.copied })?;
            }
            self.frames.push(frame);
            Ok(())
        }
    }

    fn enter_both(&mut self, path: RootPath, source: OwnedFd, live: OwnedFd) -> Result<(), TargetError> {
        let wanted = names(&source).acting(|| format!("cannot list {path} of {}", self.source.display()))?;
        let stat = rustix::fs::fstat(&live).acting(|| self.looking(&path))?;
        let copied = device(&stat) != self.ground.hold_device;
        let mut extra = Vec::new();
        if self.exact {
            extra = names(&live).acting(|| self.looking(&path))?;
            extra.retain(|name| wanted.binary_search(name).is_err());
        }
        // Of what the root has at a kept path nothing goes: `strip` asks for each path.
        if let (Some(keep), Some(first)) = (self.ground.keep.covering(&path), wanted.first()) {
            return Err(keep::refusal(self.ground.label, &path.join(first), keep));
        }
        let going = if extra.is_empty() { None } else { Some(live.try_clone().acting(|| self.looking(&path))?) };
        let frame = Frame {
            path: path.clone(),
            source: Some(source),
            live: Some(live),
            names: wanted.into_iter(),
            time: Time::of(&stat),
            new_time: None,
            touched: false,
            copied,
            inherit: None,
            goes: None,
        };
        self.push(frame)?;
        // What goes is the same directory once more, without a package's side; it comes first.
        if let Some(live) = going {
            let frame = Frame {
                path,
                source: None,
                live: Some(live),
                names: extra.into_iter(),
                time: Time::of(&stat),
                new_time: None,
                touched: false,
                copied,
                inherit: None,
                goes: None,
            };
            self.push(frame)?;
        }
        Ok(())
    }

    fn enter_new(
        &mut self,
        path: RootPath,
        source: OwnedFd,
        stat: &Stat,
        parent: Inherit,
        copied: bool,
    ) -> Result<(), TargetError> {
        let wanted = names(&source).acting(|| format!("cannot list {path} of {}", self.source.display()))?;
        let time = Time::of(stat);
        self.push(Frame {
            path,
            source: Some(source),
            live: None,
            names: wanted.into_iter(),
            time,
            new_time: Some(time),
            touched: false,
            copied,
            inherit: Some(Inherit { exact: false, ..parent }),
            goes: None,
        })
    }

    fn enter_going(&mut self, path: RootPath, live: OwnedFd, copied: bool, goes: bool) -> Result<(), TargetError> {
        let stat = rustix::fs::fstat(&live).acting(|| self.looking(&path))?;
        let goes = if goes {
            let xattrs = digest_of(&live).acting(|| self.looking(&path))?;
            Some(Image::new(Kind::Dir, &stat, xattrs))
        } else {
            None
        };
        let entries = names(&live).acting(|| self.looking(&path))?;
        self.push(Frame {
            path,
            source: None,
            live: Some(live),
            names: entries.into_iter(),
            time: Time::of(&stat),
            new_time: None,
            touched: false,
            copied,
            inherit: None,
            goes,
        })
    }

    fn push(&mut self, frame: Frame) -> Result<(), TargetError> {
        if self.frames.len() >= DEEPEST * 2 {
            return Err(self.refuse(&frame.path, "it is nested too deep", "nest it less than 200 directories deep"));
        }
        self.frames.push(frame);
        Ok(())
    }

    fn looking(&self, path: &RootPath) -> String {
        format!("cannot look at {path} in {}", self.ground.label)
    }

    fn refuse(&self, path: &RootPath, why: &str, way: &str) -> TargetError {
        refused(self.ground.label, path.to_string(), why, way)
    }
}

fn source_of(frame: &Frame) -> Result<rustix::fd::BorrowedFd<'_>, TargetError> {
    frame.source.as_ref().map(AsFd::as_fd).ok_or_else(|| TargetError::failed("cannot walk a package", "no directory"))
}

/// Tells once that the entries of a directory change; refuses where this user may not change them.
fn touch(frame: &mut Frame, label: &str, sink: &mut dyn Sink) -> Result<(), TargetError> {
    if frame.touched {
        return Ok(());
    }
    frame.touched = true;
    if let Some(live) = &frame.live {
        writable(live, label, &frame.path)?;
    }
    sink.item(Item::Touch { path: &frame.path, before: frame.time, after: frame.new_time })
}

/// Learns what new entries of a directory get from it.
fn inherit(frame: &mut Frame, act: impl FnOnce() -> String) -> Result<(), TargetError> {
    if frame.inherit.is_none()
        && let Some(live) = &frame.live
    {
        frame.inherit = Some(Inherit::from_directory(live).acting(act)?);
    }
    Ok(())
}

fn digest_of(dir: &OwnedFd) -> std::io::Result<Option<Digest>> {
    Ok(xattr::digest(&xattr::read(dir)?))
}

/// The image of a directory that goes as one; for staging with what it holds.
pub fn whole(dir: OwnedFd, stat: &Stat, xattrs: Option<Digest>, wants_images: bool) -> std::io::Result<Image> {
    let image = Image::new(Kind::Tree, stat, xattrs);
    Ok(Image { held: wants_images.then(|| holding::digest(dir)).transpose()?, ..image })
}

/// Refuses a directory that can't be moved as one.
pub fn tree(dir: &OwnedFd, above: &OwnedFd, label: &str, path: &RootPath) -> Result<(), TargetError> {
    let looking = || format!("cannot look at {path} in {label}");
    let stat = rustix::fs::fstat(dir).acting(looking)?;
    let parent = rustix::fs::fstat(above).acting(looking)?;
    if stat.st_dev == parent.st_dev {
        // Its entry `..` changes with the move.
        return writable(dir, label, path);
    }
    Err(refused(label, path.to_string(), "it is a mount point", "unmount it first, or keep it"))
}

/// Refuses a directory whose entries this user may not change.
pub fn writable(dir: &OwnedFd, label: &str, path: &RootPath) -> Result<(), TargetError> {
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::accessat(dir, ".", wanted, AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        Err(Errno::ACCESS | Errno::ROFS | Errno::PERM) => {
            let why = "this user may not change what is in that directory";
            Err(refused(label, path.to_string(), why, "deploy as its owner or as root"))
        }
        Err(error) => Err(error).acting(|| format!("cannot look at {path} in {label}")),
    }
}

/// The number of the file system that something lies on.
pub fn device(stat: &Stat) -> u64 {
    #[allow(clippy::useless_conversion)]
    stat.st_dev.into()
}
