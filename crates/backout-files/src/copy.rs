//! Copies content, and whole files where hold and root lie on different file systems.
//!
//! Keeps holes, shares blocks where the file system can, and hashes on the way, so that nothing is read twice.

use std::io;

use backout_model::entry::Digest;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, Mode, SeekFrom, Stat};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;

use crate::act;
use crate::image::{self, Image, Kind, LinkTarget, Time};
use crate::xattr;

/// Below this a reflink costs more than it saves.
const WORTH_SHARING: u64 = 1024 * 1024;
const PIECE: usize = 128 * 1024;

/// Copies all of `from` into the new, empty file `to`: its length and the BLAKE3 of its content.
pub fn content(from: impl AsFd, stat: &Stat, to: impl AsFd) -> io::Result<(u64, Digest)> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size >= WORTH_SHARING && rustix::fs::ioctl_ficlone(to, from).is_ok() {
        // Read from the copy: the source may change while it is read.
        return image::hash(to);
    }
    #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(u64::MAX);
    if blocks.saturating_mul(512) < size { sparse(from, size, to) } else { dense(from, size, to) }
}

fn dense(from: BorrowedFd<'_>, size: u64, to: BorrowedFd<'_>) -> io::Result<(u64, Digest)> {
    let mut hasher = blake3::Hasher::new();
    // One read more than the size tells the end without a second call.
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(PIECE).saturating_add(1).min(PIECE)];
    let mut done = 0;
    loop {
        let got = image::read(from, &mut buffer)?;
        if got == 0 {
            break;
        }
        hasher.update(&buffer[..got]);
        write_all(to, &buffer[..got])?;
        done += got as u64;
        if got < buffer.len() && done == size {
            break;
        }
    }
    Ok((done, Digest(*hasher.finalize().as_bytes())))
}

/// Copies the data and leaves the holes out; for the digest a hole is zeros.
fn sparse(from: BorrowedFd<'_>, size: u64, to: BorrowedFd<'_>) -> io::Result<(u64, Digest)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(Errno::NXIO) => size,
            Err(error) => return Err(error.into()),
        };
        zeros(&mut hasher, data.saturating_sub(at));
        if data >= size {
            at = size;
            break;
        }
        let hole = rustix::fs::seek(from, SeekFrom::Hole(data))?.min(size);
        rustix::fs::seek(from, SeekFrom::Start(data))?;
        rustix::fs::seek(to, SeekFrom::Start(data))?;
        at = data;
        while at < hole {
            let want = usize::try_from(hole - at).unwrap_or(PIECE).min(PIECE);
            let got = image::read(from, &mut buffer[..want])?;
            if got == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file shrank while it was copied"));
            }
            hasher.update(&buffer[..got]);
            write_all(to, &buffer[..got])?;
            at += got as u64;
        }
    }
    rustix::fs::ftruncate(to, at)?;
    Ok((at, Digest(*hasher.finalize().as_bytes())))
}

fn zeros(hasher: &mut blake3::Hasher, mut count: u64) {
    const ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];
    while count > 0 {
        let piece = usize::try_from(count).unwrap_or(ZEROS.len()).min(ZEROS.len());
        hasher.update(&ZEROS[..piece]);
        count -= piece as u64;
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Copies one entry (not what a directory holds) with everything that is kept of it, synced, to a new name.
pub fn entry(from: impl AsFd, name: &[u8], to: impl AsFd, to_name: &[u8]) -> io::Result<()> {
    make(from, name, to, to_name, true).map(drop)
}

/// As [`entry`], and what was copied as an image of the original; `synced`: else that is for the caller.
pub fn make(from: impl AsFd, name: &[u8], to: impl AsFd, to_name: &[u8], synced: bool) -> io::Result<Image> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let stat = image::stat(from, name)?.ok_or(Errno::NOENT)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let times = act::stamps(Time::of(&stat));
    match image::file_type(&stat) {
        FileType::RegularFile => {
            let source = image::open_file(from, name)?;
            let copy = act::create(to, to_name)?;
            let (size, digest) = content(&source, &rustix::fs::fstat(&source)?, &copy)?;
            rustix::fs::fchown(&copy, Some(uid), Some(gid))?;
            let attributes = xattr::read(&source)?;
            xattr::make_equal(&copy, &attributes)?;
            rustix::fs::fchmod(&copy, mode)?;
            rustix::fs::futimens(&copy, &times)?;
            if synced {
                act::sync_file(&copy)?;
            }
            Ok(Image::new(Kind::File { size, digest }, &stat, xattr::digest(&attributes)))
        }
        FileType::Directory => {
            let source = crate::beneath::subdirectory(from, name)?;
            act::make_dir(to, to_name, 0o700)?;
            let copy = crate::beneath::subdirectory(to, to_name)?;
            rustix::fs::fchown(&copy, Some(uid), Some(gid))?;
            let attributes = xattr::read(&source)?;
            xattr::make_equal(&copy, &attributes)?;
            rustix::fs::fchmod(&copy, mode)?;
            rustix::fs::futimens(&copy, &times)?;
            if synced {
                act::sync_dir(&copy)?;
            }
            Ok(Image::new(Kind::Dir, &stat, xattr::digest(&attributes)))
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            act::make_link(to, to_name, target.to_bytes())?;
            rustix::fs::chownat(to, to_name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            rustix::fs::utimensat(to, to_name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(Image::new(Kind::Link { target: LinkTarget(target.into_bytes()) }, &stat, None))
        }
        other => {
            rustix::fs::mknodat(to, to_name, other, Mode::from_raw_mode(0o600), stat.st_rdev)?;
            rustix::fs::chownat(to, to_name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            rustix::fs::chmodat(to, to_name, mode, AtFlags::empty())?;
            rustix::fs::utimensat(to, to_name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            #[allow(clippy::useless_conversion)]
            let rdev = stat.st_rdev.into();
            Ok(Image::new(Kind::Other { rdev }, &stat, None))
        }
    }
}
