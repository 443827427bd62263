//! Stages what a step will place: each new file complete in the hold, each change in the manifest.
//!
//! Never touches the live root. After an error the step's directory in the hold is the caller's to remove.

use std::collections::HashMap;
use std::io;

use backout_model::target::{Summary, TargetError};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use crate::act;
use crate::beneath::subdirectory;
use crate::copy;
use crate::error::Acting;
use crate::hold::Step;
use crate::image::{self, Image, Kind, LinkTarget, Time, file_type};
use crate::item::{Inherit, Item, Sink, Source};
use crate::manifest::{Change, Touch, Writer};
use crate::path::RootPath;
use crate::rights;
use crate::xattr;

/// Up to this many staged files are synced one by one, more by one sync of the file system.
pub const FEW: usize = 8;

/// Takes items and stages them.
pub struct Stager<'a> {
    pub label: &'a str,
    pub step: &'a Step,
    pub writer: Writer,
    /// The time of the step: touched directories get it.
    pub time: Time,
    pub summary: Summary,
    pub notes: Vec<String>,
    /// The next name in the hold.
    n: u64,
    /// Files of the package with several names, by device and inode: the first one staged.
    linked: HashMap<(u64, u64), u64>,
    /// The first staged files, for syncing one by one; more than [`FEW`] are not counted.
    pub staged: Vec<u64>,
    foreign_owner: bool,
}

impl<'a> Stager<'a> {
    pub fn new(label: &'a str, step: &'a Step, writer: Writer, time: Time) -> Self {
        Self {
            label,
            step,
            writer,
            time,
            summary: Summary::default(),
            notes: Vec::new(),
            n: 0,
            linked: HashMap::new(),
            staged: Vec::new(),
            foreign_owner: false,
        }
    }

    fn change(&mut self, path: &RootPath, before: Option<Image>, after: Option<Image>, copied: bool) -> io::Result<()> {
        count(&mut self.summary, path, before.as_ref(), after.as_ref());
        let change = Change { n: self.n, path: path.clone(), before, after, copied, elsewhere: Vec::new() };
        self.n += 1;
        self.writer.change(change)
    }

    /// Makes the new state of `path` in the hold and returns its image.
    fn stage(
        &mut self,
        path: &RootPath,
        source: Source<'_>,
        inherit: &Inherit,
        before: Option<&Image>,
    ) -> Result<Image, TargetError> {
        let label = self.label;
        let staging = || format!("cannot stage {path} of {label}");
        if self.staged.len() <= FEW {
            self.staged.push(self.n);
        }
        let name = self.n.to_string().into_bytes();
        let image = match file_type(source.stat) {
            FileType::RegularFile => self.file(path, source, inherit, before, &name)?,
            FileType::Symlink => self.link(source, inherit, &name).acting(staging)?,
            _ => self.directory(path, source, inherit, &name)?,
        };
        Ok(image)
    }

    fn file(
        &mut self,
        path: &RootPath,
        source: Source<'_>,
        inherit: &Inherit,
        before: Option<&Image>,
        name: &[u8],
    ) -> Result<Image, TargetError> {
        let label = self.label;
        let staging = || format!("cannot stage {path} of {label}");
        let hold = self.step.dir().as_fd();
        let file = image::open_file(source.dir, source.name).acting(staging)?;
        let stat = rustix::fs::fstat(&file).acting(staging)?;
        let key = (crate::overlay::device(&stat), image::ino(&stat));
        if stat.st_nlink > 1
            && let Some(first) = self.linked.get(&key)
        {
            act::link(hold, first.to_string().as_bytes(), hold, name).acting(staging)?;
            return match image::take(hold, name).acting(staging)? {
                Some(image) => Ok(image),
                None => Err(TargetError::failed(staging(), "the staged file vanished")),
            };
        }
        let staged = act::create(hold, name).acting(staging)?;
        let (size, digest) = copy::content(&file, &stat, &staged).acting(staging)?;
        self.own(path, &staged, inherit)?;
        give_rights(&staged, &file, stat.st_mode & 0o7777, inherit).acting(staging)?;
        let kind = Kind::File { size, digest };
        let mut time = Time::of(&stat);
        if before.is_some_and(|before| before.mtime == time && before.kind != kind) {
            // Whoever keeps what it compiled by the file's time would not notice the new content.
            time = self.time;
        }
        rustix::fs::futimens(&staged, &act::stamps(time)).acting(staging)?;
        let now = rustix::fs::fstat(&staged).acting(staging)?;
        if stat.st_nlink > 1 {
            self.linked.insert(key, self.n);
        }
        Ok(Image::new(kind, &now, xattr::digest(&xattr::read(&staged).acting(staging)?)))
    }

    fn link(&mut self, source: Source<'_>, inherit: &Inherit, name: &[u8]) -> io::Result<Image> {
        let hold = self.step.dir().as_fd();
        let target = rustix::fs::readlinkat(source.dir, source.name, Vec::new())?.into_bytes();
        act::make_link(hold, name, &target)?;
        let (uid, gid) = (Uid::from_raw(inherit.uid), Gid::from_raw(inherit.gid));
        // A link's owner means next to nothing; who may not give it away keeps it.
        match rustix::fs::chownat(hold, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        rustix::fs::utimensat(hold, name, &act::stamps(Time::of(source.stat)), AtFlags::SYMLINK_NOFOLLOW)?;
        let stat = image::stat(hold, name)?.ok_or(Errno::NOENT)?;
        Ok(Image::new(Kind::Link { target: LinkTarget(target) }, &stat, None))
    }

    fn directory(
        &mut self,
        path: &RootPath,
        source: Source<'_>,
        inherit: &Inherit,
        name: &[u8],
    ) -> Result<Image, TargetError> {
        let label = self.label;
        let staging = || format!("cannot stage {path} of {label}");
        let hold = self.step.dir().as_fd();
        let from = subdirectory(source.dir, source.name).acting(staging)?;
        let mode = rights::directory_mode(source.stat, inherit);
        rights::usable(label, path, mode)?;
        act::make_dir(hold, name, 0o700).acting(staging)?;
        let made = subdirectory(hold, name).acting(staging)?;
        self.own(path, &made, inherit)?;
        give_rights(&made, &from, mode, inherit).acting(staging)?;
        if let Some(list) = &inherit.default_acl {
            xattr::set(&made, xattr::DEFAULT_ACL, list).acting(staging)?;
        }
        rustix::fs::futimens(&made, &act::stamps(Time::of(source.stat))).acting(staging)?;
        let stat = rustix::fs::fstat(&made).acting(staging)?;
        Ok(Image::new(Kind::Dir, &stat, xattr::digest(&xattr::read(&made).acting(staging)?)))
    }

    /// Gives a staged file its owner and group.
    fn own(&mut self, path: &RootPath, staged: &OwnedFd, inherit: &Inherit) -> Result<(), TargetError> {
        let staging = || format!("cannot set the owner of {path} of {}", self.label);
        let (uid, gid) = (Uid::from_raw(inherit.uid), Gid::from_raw(inherit.gid));
        match rustix::fs::fchown(staged, Some(uid), Some(gid)) {
            Ok(()) => Ok(()),
            Err(Errno::PERM) => {
                let stat = rustix::fs::fstat(staged).acting(staging)?;
                if (stat.st_uid, stat.st_gid) == (inherit.uid, inherit.gid) {
                    return Ok(());
                }
                if inherit.exact {
                    return Err(rights::not_given(self.label, path, inherit));
                }
                // Like any file that this user makes: its own, in the directory's group where it is a member.
                match rustix::fs::fchown(staged, None, Some(gid)) {
                    Ok(()) | Err(Errno::PERM) => {}
                    Err(error) => return Err(error).acting(staging),
                }
                if !self.foreign_owner {
                    self.foreign_owner = true;
                    self.notes.push(format!(
                        "{path} and maybe others belong to the deployer, who may not give them to their directory's owner"
                    ));
                }
                Ok(())
            }
            Err(error) => Err(error).acting(staging),
        }
    }
}

/// Attributes, access list and mode, in the order in which none undoes another: the kernel clears setuid with a
/// change of owner, and a mode set after an access list becomes its mask.
fn give_rights(staged: &OwnedFd, source: &OwnedFd, mode: u32, inherit: &Inherit) -> io::Result<()> {
    for (name, value) in xattr::read(source)?.iter().filter(|(name, _)| name.starts_with(b"user.")) {
        xattr::set(staged, name, value)?;
    }
    if let Some(label) = &inherit.label {
        xattr::set(staged, xattr::LABEL, label)?;
    }
    if let Some(list) = &inherit.acl {
        xattr::set(staged, xattr::ACL, list)?;
    }
    Ok(rustix::fs::fchmod(staged, Mode::from_raw_mode(mode))?)
}

/// Adds one change to what a gate is told.
pub fn count(summary: &mut Summary, path: &RootPath, before: Option<&Image>, after: Option<&Image>) {
    summary.changes += 1;
    summary.bytes += before.map_or(0, Image::bytes) + after.map_or(0, Image::bytes);
    if summary.objects.len() < Summary::OBJECTS_KEPT {
        let dir = path.parent().to_string();
        if summary.objects.last() != Some(&dir) && !summary.objects.contains(&dir) {
            summary.objects.push(dir);
        }
    }
}

impl Sink for Stager<'_> {
    fn wants_images(&self) -> bool {
        true
    }

    fn item(&mut self, item: Item<'_>) -> Result<(), TargetError> {
        let writing = |path: &RootPath, label: &str| format!("cannot write down the change of {path} of {label}");
        match item {
            Item::Touch { path, before, after } => {
                let touch = Touch { path: path.clone(), before, after: after.unwrap_or(self.time) };
                self.writer.touch(touch).acting(|| writing(path, self.label))
            }
            Item::Put { path, source, inherit, copied } => {
                let after = self.stage(path, source, inherit, None)?;
                self.change(path, None, Some(after), copied).acting(|| writing(path, self.label))
            }
            Item::Swap { path, source, inherit, before, copied } => {
                let after = self.stage(path, source, inherit, Some(&before))?;
                self.change(path, Some(before), Some(after), copied).acting(|| writing(path, self.label))
            }
            Item::Take { path, before, copied } => {
                self.change(path, Some(before), None, copied).acting(|| writing(path, self.label))
            }
        }
    }
}
