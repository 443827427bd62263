//! What a directory holds, as one digest: by which a redo knows whether others put anything into a directory that it is to
//! take as one, or changed what is in it.
//!
//! Over the path, type, size and time of modification of each file, the target of each link, and the paths of directories.
//! Contents are not read, or taking a directory would cost what copying it costs.

use std::io;

use backout_model::entry::Digest;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Stat};

use crate::beneath::{Beneath, is_blocked, is_missing};
use crate::image::{self, Time, file_type};
use crate::path::RootPath;
use crate::remove::names;

/// The digest of what a directory holds, however deep. What goes while it is looked at is left out, and what lies in a
/// directory that this user may not read.
pub fn digest(directory: OwnedFd) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    each(directory, &mut |path, dir, name, stat| put(&mut hasher, path, dir, name, stat))?;
    Ok(Digest(*hasher.finalize().as_bytes()))
}

/// Whether a directory holds a file, however deep, that has other names.
pub fn has_links(directory: OwnedFd) -> io::Result<bool> {
    let mut found = false;
    each(directory, &mut |_, _, _, stat| {
        found |= stat.st_nlink > 1 && file_type(stat) == FileType::RegularFile;
        Ok(())
    })?;
    Ok(found)
}

type Each<'a> = dyn FnMut(&RootPath, BorrowedFd<'_>, &[u8], &Stat) -> io::Result<()> + 'a;

/// Everything that a directory holds, in one order.
fn each(directory: OwnedFd, each: &mut Each<'_>) -> io::Result<()> {
    let top = Beneath::new(directory);
    let mut left = vec![RootPath::root()];
    while let Some(path) = left.pop() {
        let dir = match top.directory(&path) {
            Ok(dir) => dir,
            Err(error) if is_missing(&error) || is_blocked(&error) || is_closed(&error) => continue,
            Err(error) => return Err(error),
        };
        for name in names(&dir)? {
            let Some(stat) = image::stat(&dir, &name)? else { continue };
            let below = path.join(&name);
            each(&below, dir.as_fd(), &name, &stat)?;
            if file_type(&stat) == FileType::Directory {
                left.push(below);
            }
        }
    }
    Ok(())
}

fn put(hasher: &mut blake3::Hasher, path: &RootPath, dir: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> io::Result<()> {
    let mut put = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    put(path.as_bytes());
    match file_type(stat) {
        FileType::Directory => put(b"directory"),
        FileType::Symlink => match rustix::fs::readlinkat(dir, name, Vec::new()) {
            Ok(target) => put(target.to_bytes()),
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        },
        kind => {
            let Time(seconds, nanoseconds) = Time::of(stat);
            put(format!("{kind:?} {} {seconds} {nanoseconds}", stat.st_size).as_bytes());
        }
    }
    Ok(())
}

/// True where the directory may not be read, or its path is longer than Linux takes.
fn is_closed(error: &io::Error) -> bool {
    [io::ErrorKind::PermissionDenied, io::ErrorKind::InvalidFilename].contains(&error.kind())
}
