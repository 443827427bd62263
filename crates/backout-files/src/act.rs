//! The calls that change a file system, each behind its fault point.
//!
//! Nothing else in this crate renames, links, makes or removes anything. Names are single components, directories
//! are descriptors: no call here resolves a path.

use std::io;

use backout_model::fault::{self, Point};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT};

use crate::image::Time;

/// How many calls wait at once, and for how few names that is not worth a thread.
const TOGETHER: usize = 8;
const FEW: usize = 64;

/// Creates a new file for writing, 0600.
pub fn create(dir: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    fault::point(Point::Stage)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?)
}

pub fn make_link(dir: impl AsFd, name: &[u8], target: &[u8]) -> io::Result<()> {
    fault::point(Point::Stage)?;
    Ok(rustix::fs::symlinkat(target, dir, name)?)
}

pub fn make_dir(dir: impl AsFd, name: &[u8], mode: u32) -> io::Result<()> {
    fault::point(Point::MakeDir)?;
    Ok(rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode))?)
}

/// Renames and never overwrites: `EEXIST` where the new name is taken.
pub fn rename_new(from_dir: impl AsFd, from: &[u8], to_dir: impl AsFd, to: &[u8]) -> io::Result<()> {
    fault::point(Point::Rename)?;
    let (from_dir, to_dir) = (from_dir.as_fd(), to_dir.as_fd());
    match rustix::fs::renameat_with(from_dir, from, to_dir, to, RenameFlags::NOREPLACE) {
        // A file system without the flag: look first. The gap is as small as it can be made there.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            match rustix::fs::statat(to_dir, to, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(rustix::io::Errno::EXIST.into()),
                Err(rustix::io::Errno::NOENT) => Ok(rustix::fs::renameat(from_dir, from, to_dir, to)?),
                Err(error) => Err(error.into()),
            }
        }
        other => Ok(other?),
    }
}

/// Renames over whatever file has the new name.
pub fn rename_over(from_dir: impl AsFd, from: &[u8], to_dir: impl AsFd, to: &[u8]) -> io::Result<()> {
    fault::point(Point::Rename)?;
    Ok(rustix::fs::renameat(from_dir, from, to_dir, to)?)
}

/// Both names change places in one step of the file system (renameat2(2), `RENAME_EXCHANGE`).
pub fn exchange(a_dir: impl AsFd, a: &[u8], b_dir: impl AsFd, b: &[u8]) -> io::Result<()> {
    fault::point(Point::Exchange)?;
    Ok(rustix::fs::renameat_with(a_dir, a, b_dir, b, RenameFlags::EXCHANGE)?)
}

/// A second name for the same file; a symbolic link is linked itself.
pub fn link(from_dir: impl AsFd, from: &[u8], to_dir: impl AsFd, to: &[u8]) -> io::Result<()> {
    fault::point(Point::Link)?;
    Ok(rustix::fs::linkat(from_dir, from, to_dir, to, AtFlags::empty())?)
}

pub fn unlink(dir: impl AsFd, name: &[u8]) -> io::Result<()> {
    fault::point(Point::Unlink)?;
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
}

/// Removes many names at once: a file system may take a millisecond of waiting for each, which several can do together.
pub fn unlink_all(dir: impl AsFd, names: &[Vec<u8>]) -> io::Result<()> {
    let dir = dir.as_fd();
    if names.len() < FEW {
        return names.iter().try_for_each(|name| unlink(dir, name));
    }
    for _ in names {
        fault::point(Point::Unlink)?;
    }
    let remove = |name: &Vec<u8>| rustix::fs::unlinkat(dir, name.as_slice(), AtFlags::empty());
    std::thread::scope(|scope| {
        let some = |part| scope.spawn(move || names.iter().skip(part).step_by(TOGETHER).try_for_each(remove));
        let all: Vec<_> = (0..TOGETHER).map(some).collect();
        let mut done = Ok(());
        for one in all {
            done = done.and(one.join().unwrap_or(Err(rustix::io::Errno::IO)));
        }
        Ok(done?)
    })
}

pub fn remove_dir(dir: impl AsFd, name: &[u8]) -> io::Result<()> {
    fault::point(Point::RemoveDir)?;
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// Sets a directory's modification time through its descriptor.
pub fn set_dir_time(dir: impl AsFd, time: Time) -> io::Result<()> {
    fault::point(Point::SetMetadata)?;
    Ok(rustix::fs::futimens(dir, &stamps(time))?)
}

/// The time as the system takes it, leaving the access time alone.
pub fn stamps(time: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: time.0, tv_nsec: i64::from(time.1) },
    }
}

pub fn sync_file(file: impl AsFd) -> io::Result<()> {
    fault::point(Point::Sync)?;
    if fault::syncs_issued() {
        rustix::fs::fsync(file)?;
    }
    Ok(())
}

pub fn sync_dir(dir: impl AsFd) -> io::Result<()> {
    fault::point(Point::DirSync)?;
    if fault::syncs_issued() {
        rustix::fs::fsync(dir)?;
    }
    Ok(())
}

/// Syncs the whole file system that `on` lies on: one wait for any number of files.
pub fn sync_file_system(on: impl AsFd) -> io::Result<()> {
    fault::point(Point::Sync)?;
    if fault::syncs_issued() {
        rustix::fs::syncfs(on)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &std::path::Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn many_names_go_together_and_what_fails_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let open = std::fs::File::open(dir.path()).unwrap();
        let all: Vec<Vec<u8>> = (0..FEW * 4 + 3).map(|number| number.to_string().into_bytes()).collect();
        let make =
            || (0..all.len()).for_each(|number| std::fs::write(dir.path().join(number.to_string()), "x").unwrap());
        make();
        unlink_all(&open, &all).unwrap();
        assert_eq!(names(dir.path()), 0);
        make();
        std::fs::remove_file(dir.path().join("200")).unwrap();
        let error = unlink_all(&open, &all).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
