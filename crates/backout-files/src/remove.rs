//! Lists directories and removes the directories of steps from a hold.
//!
//! Never removes anything outside a hold, and nothing that is mounted inside one.

use std::io;

use rustix::fd::AsFd;
use rustix::fs::{Dir, FileType, Mode};
use rustix::io::Errno;

use crate::act;
use crate::beneath::subdirectory;
use crate::image;

/// The names in a directory, sorted by their bytes.
pub fn names(dir: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            all.push(name.to_vec());
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// True where a directory holds nothing.
pub fn is_empty(dir: impl AsFd) -> io::Result<bool> {
    for entry in Dir::read_from(dir)? {
        let name = entry?;
        if !matches!(name.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes the directory `name` of `hold` with all it holds. A directory inside is first moved up to the hold, so
/// that no depth of nesting needs more than two open directories or a deep stack; one that is a mount point stays,
/// and the error says so (`EBUSY`, `EXDEV`).
pub fn step(hold: impl AsFd, name: &[u8]) -> io::Result<()> {
    let hold = hold.as_fd();
    let mut left: Vec<Vec<u8>> = vec![name.to_vec()];
    let mut moved = 0_u64;
    while let Some(next) = left.last().cloned() {
        let dir = match subdirectory(hold, &next) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                left.pop();
                continue;
            }
            Err(error) if error.raw_os_error() == Some(Errno::ACCESS.raw_os_error()) && next != name => {
                rustix::fs::chmodat(hold, next.as_slice(), Mode::from_raw_mode(0o700), rustix::fs::AtFlags::empty())?;
                subdirectory(hold, &next)?
            }
            Err(error) => return Err(error),
        };
        make_writable(&dir)?;
        let (mut nested, mut files) = (Vec::new(), Vec::new());
        for entry in names(&dir)? {
            let Some(found) = image::stat(&dir, &entry)? else { continue };
            if image::file_type(&found) != FileType::Directory {
                files.push(entry);
                continue;
            }
            match act::remove_dir(&dir, &entry) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) => return Err(error),
                Ok(()) => continue,
            }
            // Named after the step, so that a crash in between leaves what the next cleaning finds.
            let up = up_name(name, &mut moved, hold)?;
            make_writable(subdirectory(&dir, &entry).or_else(|_| dir.try_clone())?)?;
            act::rename_new(&dir, &entry, hold, &up)?;
            nested.push(up);
        }
        act::unlink_all(&dir, &files)?;
        if nested.is_empty() {
            act::remove_dir(hold, &next)?;
            left.pop();
        } else {
            left.extend(nested);
        }
    }
    Ok(())
}

/// A name in the hold that is free; it has the form of a step's, staged and unannounced.
fn up_name(step: &[u8], moved: &mut u64, hold: impl AsFd) -> io::Result<Vec<u8>> {
    loop {
        *moved += 1;
        let seed = blake3::hash(&[step, &moved.to_le_bytes()].concat());
        let name = format!("{}.new", &seed.to_hex()[..16]).into_bytes();
        if image::stat(&hold, &name)?.is_none() {
            return Ok(name);
        }
    }
}

/// Lets the owner remove entries of a directory that was kept read-only. Root needs no such thing.
fn make_writable(dir: impl AsFd) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Ok(rustix::fs::fchmod(dir, Mode::from_raw_mode(0o700))?)
}
