//! The three acts by which a step and its undo change a live path: put what the hold keeps, take it into the hold,
//! or swap both. Each ends with exactly one of the two in the hold, under the same name.
//!
//! Where the file system can rename or exchange, an act is one call of it. Elsewhere it is a few calls, and
//! `settle` finishes or takes back what a crash left between them. Never changes content or metadata.

use std::io;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;

use crate::act;
use crate::copy;
use crate::image;
use crate::rights;

/// Between which two names an act carries.
pub struct Carry<'a> {
    /// The live path's directory.
    pub dir: BorrowedFd<'a>,
    pub name: &'a [u8],
    /// The step's directory in the hold.
    pub hold: BorrowedFd<'a>,
    pub n: u64,
    /// Of the step, for temporary names in the live directory.
    pub step: &'a str,
    /// True where both lie on different file systems.
    pub copied: bool,
    /// False where the file system is known (or a test pretends) to have no `RENAME_EXCHANGE`.
    pub may_exchange: bool,
    /// It is a directory before and after, of which only the rights are others.
    pub rights_only: bool,
}

impl Carry<'_> {
    fn kept(&self) -> Vec<u8> {
        self.n.to_string().into_bytes()
    }

    /// The second name in the hold while a swap is emulated.
    fn second(&self) -> Vec<u8> {
        format!("{}.t", self.n).into_bytes()
    }

    /// The name beside the live path under which a copy grows.
    fn growing(&self) -> Vec<u8> {
        format!(".backout-{}-{}", self.step, self.n).into_bytes()
    }

    /// What the hold keeps becomes live; `EEXIST` where something is.
    pub fn put(&self) -> io::Result<()> {
        if !self.copied {
            return act::rename_new(self.hold, &self.kept(), self.dir, self.name);
        }
        drop_entry(self.dir, &self.growing())?;
        copy::entry(self.hold, &self.kept(), self.dir, &self.growing())?;
        act::rename_new(self.dir, &self.growing(), self.dir, self.name)?;
        act::sync_dir(self.dir)?;
        self.drop_kept()
    }

    /// What is live goes into the hold.
    pub fn take(&self) -> io::Result<()> {
        if !self.copied {
            return act::rename_new(self.dir, self.name, self.hold, &self.kept());
        }
        self.drop_kept()?;
        self.drop_second()?;
        copy::entry(self.dir, self.name, self.hold, &self.second())?;
        act::rename_new(self.hold, &self.second(), self.hold, &self.kept())?;
        act::sync_dir(self.hold)?;
        match image::stat(self.dir, self.name)? {
            Some(stat) if image::file_type(&stat) == rustix::fs::FileType::Directory => {
                act::remove_dir(self.dir, self.name)
            }
            _ => act::unlink(self.dir, self.name),
        }
    }

    /// What is live and what the hold keeps change places.
    pub fn swap(&self) -> io::Result<()> {
        if self.rights_only && self.are_directories()? {
            return self.swap_rights();
        }
        if self.copied {
            return self.swap_by_copy();
        }
        if self.may_exchange {
            match act::exchange(self.hold, &self.kept(), self.dir, self.name) {
                Err(error) if is_unsupported(&error) => {}
                other => return other,
            }
        }
        match self.which_are_directories()? {
            (false, false) => self.swap_by_link(),
            _ => self.swap_by_moves(),
        }
    }

    /// Of two directories only the rights change places: what the live one holds stands by itself. While the second name
    /// is there, that of the hold is not what the live one had.
    fn swap_rights(&self) -> io::Result<()> {
        self.drop_second()?;
        copy::entry(self.dir, self.name, self.hold, &self.second())?;
        act::sync_dir(self.hold)?;
        rights::give(self.hold, &self.kept(), self.dir, self.name)?;
        act::rename_over(self.hold, &self.second(), self.hold, &self.kept())
    }

    /// Finishes or takes back a swap of rights.
    fn settle_rights(&self) -> io::Result<()> {
        if rights::are_same(self.dir, self.name, self.hold, &self.kept())? {
            return act::rename_over(self.hold, &self.second(), self.hold, &self.kept());
        }
        rights::give(self.hold, &self.second(), self.dir, self.name)?;
        self.drop_second()
    }

    /// Without an exchange, where one of both is a directory: by a moment in which nothing has the name.
    fn swap_by_moves(&self) -> io::Result<()> {
        act::rename_new(self.dir, self.name, self.hold, &self.second())?;
        act::rename_new(self.hold, &self.kept(), self.dir, self.name)?;
        act::rename_new(self.hold, &self.second(), self.hold, &self.kept())
    }

    /// Whether what is live and what is kept are directories.
    fn which_are_directories(&self) -> io::Result<(bool, bool)> {
        let is = |stat: Option<rustix::fs::Stat>| {
            stat.is_some_and(|stat| image::file_type(&stat) == rustix::fs::FileType::Directory)
        };
        Ok((is(image::stat(self.dir, self.name)?), is(image::stat(self.hold, &self.kept())?)))
    }

    fn are_directories(&self) -> io::Result<bool> {
        self.which_are_directories().map(|found| found == (true, true))
    }

    /// Without an exchange: the live file gets a second name in the hold, then the kept one is renamed over it, so
    /// that the path is never empty. Where files can't be linked, the second name is a copy.
    fn swap_by_link(&self) -> io::Result<()> {
        match act::link(self.dir, self.name, self.hold, &self.second()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
            // Not injected faults or a full disk: those are for the caller.
            Err(error) if cannot_link(&error) => copy::entry(self.dir, self.name, self.hold, &self.second())?,
            Err(error) => return Err(error),
        }
        act::sync_dir(self.hold)?;
        act::rename_over(self.hold, &self.kept(), self.dir, self.name)?;
        act::rename_new(self.hold, &self.second(), self.hold, &self.kept())
    }

    /// Across file systems. While the growing copy exists, the live path is still the old one; when it is gone and
    /// the second name is there, the swap happened: `settle` tells by that. So the order of the syncs matters.
    fn swap_by_copy(&self) -> io::Result<()> {
        drop_entry(self.dir, &self.growing())?;
        copy::entry(self.hold, &self.kept(), self.dir, &self.growing())?;
        act::sync_dir(self.dir)?;
        copy::entry(self.dir, self.name, self.hold, &self.second())?;
        act::sync_dir(self.hold)?;
        act::rename_over(self.dir, &self.growing(), self.dir, self.name)?;
        act::sync_dir(self.dir)?;
        act::rename_over(self.hold, &self.second(), self.hold, &self.kept())
    }

    /// Finishes or takes back what a crash left of an emulated act, so that the hold keeps at most one file again.
    pub fn settle(&self) -> io::Result<()> {
        let kept = image::stat(self.hold, &self.kept())?;
        let second = image::stat(self.hold, &self.second())?;
        if second.is_some() && self.rights_only && self.are_directories()? {
            return self.settle_rights();
        }
        if !self.copied {
            return match (kept, second) {
                // Moves that were taken apart.
                (Some(_), Some(_)) if image::stat(self.dir, self.name)?.is_none() => {
                    act::rename_new(self.hold, &self.second(), self.dir, self.name)
                }
                (Some(_), Some(_)) => act::unlink(self.hold, &self.second()),
                (None, Some(_)) => act::rename_new(self.hold, &self.second(), self.hold, &self.kept()),
                (_, None) => Ok(()),
            };
        }
        let growing = image::stat(self.dir, &self.growing())?;
        match (kept, second, growing) {
            (_, second, Some(growing)) => {
                if second.is_some() {
                    self.drop_second()?;
                }
                if image::file_type(&growing) == rustix::fs::FileType::Directory {
                    act::remove_dir(self.dir, &self.growing())
                } else {
                    act::unlink(self.dir, &self.growing())
                }
            }
            // A swap that happened.
            (Some(_), Some(_), None) => act::rename_over(self.hold, &self.second(), self.hold, &self.kept()),
            // A take that was copying: the live file is still there.
            (None, Some(_), None) => self.drop_second(),
            (_, None, None) => Ok(()),
        }
    }

    /// True where a copy that a crash left lies beside the live path.
    pub fn is_half_copied(&self) -> io::Result<bool> {
        Ok(self.copied && image::stat(self.dir, &self.growing())?.is_some())
    }

    /// Across file systems a put leaves its source and a broken take its copy: nothing is lost by removing it while
    /// the live path holds the same.
    pub fn drop_kept(&self) -> io::Result<()> {
        drop_entry(self.hold, &self.kept())
    }

    fn drop_second(&self) -> io::Result<()> {
        drop_entry(self.hold, &self.second())
    }
}

fn drop_entry(dir: impl AsFd, name: &[u8]) -> io::Result<()> {
    let dir = dir.as_fd();
    match image::stat(dir, name)? {
        None => Ok(()),
        Some(stat) if image::file_type(&stat) == rustix::fs::FileType::Directory => act::remove_dir(dir, name),
        Some(_) => act::unlink(dir, name),
    }
}

/// What renameat2(2) says where the file system (`EINVAL`, `EOPNOTSUPP`) or the kernel (`ENOSYS`) can't exchange.
pub fn is_unsupported(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS])
}

/// What link(2) says where links don't exist or this file may not be linked.
fn cannot_link(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS, Errno::MLINK])
}

fn is_one_of(error: &io::Error, errnos: &[Errno]) -> bool {
    errnos.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
