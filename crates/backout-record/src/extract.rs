//! Puts members of a record into an empty directory, with everything that is kept of them. Never outside of it, never
//! through a link, never over something that is there.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmod, chownat, lsetxattr, utimensat,
};

use crate::error::RecordError;
use crate::member::{Kind, Member, Meta};

/// A directory that members are put into.
pub struct Extraction {
    into: PathBuf,
    /// Directories get their modes and times last: one may forbid what still has to be put into it.
    directories: Vec<(PathBuf, Meta)>,
    /// Whether files get their owners: only a process that may give files away can.
    owners: bool,
}

impl Extraction {
    /// `into` is an empty directory of this process alone.
    pub fn begin(into: &Path) -> Self {
        Self { into: into.to_owned(), directories: Vec::new(), owners: rustix::process::geteuid().is_root() }
    }

    /// Puts one member there, as [`crate::reader::read`] hands it over: its path is plain.
    pub fn put(&mut self, member: &Member, content: &mut dyn Read) -> Result<(), RecordError> {
        let relative = Path::new(OsStr::from_bytes(&member.path));
        let path = self.into.join(relative);
        let failed = |source| RecordError::write(&path, source);
        self.parents(relative)?;
        match &member.kind {
            Kind::Directory => {
                match DirBuilder::new().mode(0o700).create(&path) {
                    // Made on the way to something in it.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_directory(&path) => {}
                    made => made.map_err(failed)?,
                }
                self.directories.push((path, member.meta.clone()));
                Ok(())
            }
            Kind::Symlink(target) => {
                std::os::unix::fs::symlink(OsStr::from_bytes(target), &path).map_err(failed)?;
                self.dress(&path, &member.meta, true).map_err(failed)
            }
            Kind::HardLink(first) => {
                let first = self.into.join(OsStr::from_bytes(first));
                if !fs::symlink_metadata(&first).is_ok_and(|found| found.is_file()) || !self.is_within(&first) {
                    return Err(failed(io::Error::other("it is a hard link to what is no file here")));
                }
                fs::hard_link(&first, &path).map_err(failed)
            }
            Kind::File(_) => {
                let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
                io::copy(content, &mut made.map_err(failed)?).map_err(failed)?;
                self.dress(&path, &member.meta, false).map_err(failed)
            }
        }
    }

    /// Gives the directories what they have; the innermost first, so that the outer ones keep their times.
    pub fn finish(mut self) -> Result<(), RecordError> {
        for (path, meta) in std::mem::take(&mut self.directories).into_iter().rev() {
            self.dress(&path, &meta, false).map_err(|source| RecordError::write(&path, source))?;
        }
        Ok(())
    }

    /// Makes the directories above a path, and sees to it that none of them is a link.
    fn parents(&self, relative: &Path) -> Result<(), RecordError> {
        let mut above = self.into.clone();
        for part in relative.parent().into_iter().flat_map(Path::components) {
            above.push(part);
            let failed = |source| RecordError::write(&above, source);
            match DirBuilder::new().mode(0o700).create(&above) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_directory(&above) => {}
                made => made.map_err(failed)?,
            }
        }
        Ok(())
    }

    /// True where every directory on the way is one, and no link.
    fn is_within(&self, path: &Path) -> bool {
        path.parent().is_some_and(|parent| parent.ancestors().take_while(|above| *above != self.into).all(is_directory))
    }

    fn dress(&self, path: &Path, meta: &Meta, is_link: bool) -> io::Result<()> {
        if self.owners {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        for (name, value) in meta.xattrs.iter().filter(|_| !is_link) {
            lsetxattr(path, name.as_slice(), value, XattrFlags::empty())?;
        }
        if !is_link {
            // Made by this extraction and its parents are no links, see `parents`.
            chmod(path, Mode::from_raw_mode(meta.mode))?;
        }
        let time = Timespec { tv_sec: meta.mtime.0, tv_nsec: meta.mtime.1.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}
