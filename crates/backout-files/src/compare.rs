//! Compares one file or link of a package with the live one.
//!
//! Never changes anything. Reads the live file at most once.

use std::io;

use backout_model::entry::Digest;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Stat};

use crate::image::{self, Image, Kind, LinkTarget, file_type};
use crate::item::Source;
use crate::xattr::{self, Xattrs};

/// The live image and its attributes where it differs from what the package wants, else none. What is wanted is
/// content, type, mode, and the `user.` attributes that the package has; owner, group and time are no difference.
pub fn leaf(
    source: Source<'_>,
    live: BorrowedFd<'_>,
    name: &[u8],
    found: &Stat,
    wants_image: bool,
) -> io::Result<Option<(Image, Xattrs)>> {
    match (file_type(source.stat), file_type(found)) {
        (FileType::RegularFile, FileType::RegularFile) => files(source, live, name, wants_image),
        (FileType::Symlink, FileType::Symlink) => {
            let wanted = rustix::fs::readlinkat(source.dir, source.name, Vec::new())?.into_bytes();
            let target = rustix::fs::readlinkat(live, name, Vec::new())?.into_bytes();
            if wanted == target {
                return Ok(None);
            }
            let image = Image::new(Kind::Link { target: LinkTarget(target) }, found, None);
            Ok(Some((image, Vec::new())))
        }
        (_, FileType::RegularFile) => {
            let file = image::open_file(live, name)?;
            let stat = rustix::fs::fstat(&file)?;
            let attributes = xattr::read(&file)?;
            Ok(Some((hashed(&file, &stat, &attributes, wants_image)?, attributes)))
        }
        _ => Ok(image::look(live, name, |_| wants_image)?.map(|image| (image, Vec::new()))),
    }
}

fn files(
    source: Source<'_>,
    live: BorrowedFd<'_>,
    name: &[u8],
    wants_image: bool,
) -> io::Result<Option<(Image, Xattrs)>> {
    let file = image::open_file(live, name)?;
    let stat = rustix::fs::fstat(&file)?;
    let attributes = xattr::read(&file)?;
    if source.stat.st_size != stat.st_size {
        return Ok(Some((hashed(&file, &stat, &attributes, wants_image)?, attributes)));
    }
    let wanted = image::open_file(source.dir, source.name)?;
    let (equal, image) = read_both(&wanted, &file, &stat, &attributes)?;
    let same_mode = source.stat.st_mode & 0o7777 == stat.st_mode & 0o7777;
    if equal && same_mode && has_all(&attributes, &wanted)? {
        return Ok(None);
    }
    Ok(Some((image, attributes)))
}

/// True where the live file has every `user.` attribute of the package's.
fn has_all(attributes: &Xattrs, wanted: &OwnedFd) -> io::Result<bool> {
    let wanted = xattr::read(wanted)?;
    Ok(wanted
        .iter()
        .filter(|(name, _)| name.starts_with(b"user."))
        .all(|(name, value)| xattr::value(attributes, name) == Some(value.as_slice())))
}

fn hashed(file: &OwnedFd, stat: &Stat, attributes: &Xattrs, wanted: bool) -> io::Result<Image> {
    let (size, digest) =
        if wanted { image::hash(file)? } else { (u64::try_from(stat.st_size).unwrap_or(0), Digest::ZERO) };
    Ok(Image::new(Kind::File { size, digest }, stat, xattr::digest(attributes)))
}

/// Whether both files hold the same; and the image of the live one, read to its end.
fn read_both(wanted: &OwnedFd, live: &OwnedFd, stat: &Stat, attributes: &Xattrs) -> io::Result<(bool, Image)> {
    let mut hasher = blake3::Hasher::new();
    let (mut ours, mut theirs) = ([0; 32 * 1024], [0; 32 * 1024]);
    let (mut equal, mut size) = (true, 0);
    loop {
        let got = fill(live, &mut theirs)?;
        hasher.update(&theirs[..got]);
        size += got as u64;
        if equal {
            let other = fill(wanted, &mut ours)?;
            equal = ours[..other] == theirs[..got];
        }
        if got < theirs.len() {
            break;
        }
    }
    let kind = Kind::File { size, digest: Digest(*hasher.finalize().as_bytes()) };
    Ok((equal, Image::new(kind, stat, xattr::digest(attributes))))
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match image::read(file, &mut buffer[have..])? {
            0 => break,
            got => have += got,
        }
    }
    Ok(have)
}
