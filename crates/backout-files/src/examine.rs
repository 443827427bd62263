//! What works on a root and its file system and what does not, for `doctor`.
//!
//! Tries it out in the hold, on files of its own that it removes again; never touches the root.

use std::io;
use std::path::Path;

use backout_model::target::{Finding, TargetError};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::Access;

use crate::act;
use crate::carry::is_unsupported;
use crate::error::Acting;
use crate::hold::Step;
use crate::image::{self, Time};
use crate::local::LocalRoot;
use crate::overlay::device;
use crate::xattr;

/// Below this much free space a deployment is likely to fail.
const LITTLE: u64 = 512 * 1024 * 1024;

impl LocalRoot {
    pub(crate) fn examine_root(&mut self) -> Result<Vec<Finding>, TargetError> {
        let examining = || format!("cannot examine {}", self.label);
        let mut found = Vec::new();
        let mut find = |what: String, grave: bool| found.push(Finding { target: self.label.clone(), what, grave });
        let flags = rustix::fs::AtFlags::EACCESS;
        if rustix::fs::accessat(self.root.top(), ".", Access::WRITE_OK | Access::EXEC_OK, flags).is_err() {
            find("the root can't be written to by this user".to_owned(), true);
        }
        if !rustix::process::geteuid().is_root() {
            find(
                "not root: files of other owners can't be replaced, because their owner could not be kept, and the times of \
                 their directories can't be put back"
                    .to_owned(),
                false,
            );
        }
        let missing = missing(self.hold.path());
        let step = match self.hold.begin() {
            Ok(step) => step,
            Err(error) => {
                let mut causes = error.to_string();
                let mut source = std::error::Error::source(&error);
                while let Some(cause) = source {
                    causes = format!("{causes}: {cause}");
                    source = cause.source();
                }
                find(causes, true);
                return Ok(found);
            }
        };
        let tried = self.try_out(&step, &mut find);
        step.remove().acting(examining)?;
        // Innermost first; what somebody else put something into meanwhile stays.
        for made in missing {
            match std::fs::remove_dir(made) {
                Err(error) if ![io::ErrorKind::NotFound, io::ErrorKind::DirectoryNotEmpty].contains(&error.kind()) => {
                    Err(error).acting(examining)?;
                }
                _ => {}
            }
        }
        tried.acting(examining)?;
        Ok(found)
    }

    fn try_out(&self, step: &Step, find: &mut dyn FnMut(String, bool)) -> io::Result<()> {
        let root = rustix::fs::fstat(self.root.top())?;
        if device(&root) != step.device()? {
            find(
                format!(
                    "the hold {} lies on another file system: files are copied, not exchanged; hard links from outside \
                     the root and open files follow the copy no more",
                    self.hold.path().display()
                ),
                false,
            );
        }
        let dir = step.dir().as_fd();
        let a = act::create(dir, b"a")?;
        let b = act::create(dir, b"b")?;
        match act::exchange(dir, b"a", dir, b"b") {
            Ok(()) => {}
            Err(error) if is_unsupported(&error) => {
                find("the file system has no exchange of names: files are linked and renamed".to_owned(), false);
                if act::link(dir, b"a", dir, b"c").is_err() {
                    find("the file system has no hard links: replaced files are copied".to_owned(), false);
                }
            }
            Err(error) => return Err(error),
        }
        rustix::io::write(&a, b"a")?;
        if rustix::fs::ioctl_ficlone(&b, &a).is_err() {
            find("the file system shares no blocks: staged files are full copies".to_owned(), false);
        }
        attributes(&a, find)?;
        let time = Time(1_000_000_001, 123_456_789);
        rustix::fs::futimens(&a, &act::stamps(time))?;
        let kept = Time::of(&rustix::fs::fstat(&a)?);
        if kept != time {
            find(
                "the file system keeps times coarser than nanoseconds: they are not put back exactly".to_owned(),
                false,
            );
        }
        let space = rustix::fs::fstatvfs(dir)?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < LITTLE {
            find(format!("only {} MiB are free for before-images", free / (1024 * 1024)), false);
        }
        if let Some(stat) = image::stat(dir, b"a")?
            && (stat.st_uid, stat.st_mode & 0o777) != (rustix::process::geteuid().as_raw(), 0o600)
        {
            find("the file system keeps no owners and modes: they are not put back".to_owned(), false);
        }
        Ok(())
    }
}

/// The directories that the hold at `path` needs and that are not there, innermost first.
fn missing(path: &Path) -> Vec<&Path> {
    path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect()
}

fn attributes(file: &OwnedFd, find: &mut dyn FnMut(String, bool)) -> io::Result<()> {
    if xattr::set(file, b"user.backout", b"1").is_err() {
        find("the file system has no user attributes: a package's are refused".to_owned(), false);
    }
    // An access list of the owner, one named user, the group, a mask and the others (acl(5), version 2).
    let entry =
        |tag: u16, rights: u16, id: u32| [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat();
    let none = u32::MAX;
    let list = [
        2_u32.to_le_bytes().to_vec(),
        entry(0x01, 6, none),
        entry(0x02, 4, 0),
        entry(0x04, 4, none),
        entry(0x10, 4, none),
        entry(0x20, 0, none),
    ]
    .concat();
    match xattr::set(file, xattr::ACL, &list) {
        Ok(()) => {}
        Err(error) if is_unsupported(&error) => {
            find("the file system has no access lists: there are none to keep".to_owned(), false);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
