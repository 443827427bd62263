//! What a path holds, as far as undo has to know it: the before- and after-images of files.
//!
//! Never follows a link and never changes anything.

use std::fmt;
use std::io;

use backout_model::entry::Digest;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::path::{escape, unescape};
use crate::xattr;

/// A modification time: seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time(pub i64, pub u32);

impl Time {
    pub fn of(stat: &Stat) -> Self {
        // A kernel's nanoseconds are below 10^9.
        #[allow(clippy::unnecessary_fallible_conversions, clippy::useless_conversion)]
        Self(stat.st_mtime.into(), u32::try_from(stat.st_mtime_nsec).unwrap_or(0))
    }

    /// When anything of an inode was changed last, which nobody can set back.
    pub fn of_change(stat: &Stat) -> Self {
        // As above.
        #[allow(clippy::unnecessary_fallible_conversions, clippy::useless_conversion)]
        Self(stat.st_ctime.into(), u32::try_from(stat.st_ctime_nsec).unwrap_or(0))
    }

    /// The clock's time.
    pub fn now() -> Self {
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => Self(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
            Err(_) => Self(0, 0),
        }
    }
}

/// What a path holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub kind: Kind,
    /// The twelve permission bits, setuid and sticky included.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// By which an exchanged file is known again. Device numbers are left out: they change at a reboot.
    pub ino: u64,
    /// Over the sorted names and values of all extended attributes, ACLs among them; none where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xattrs: Option<Digest>,
    /// Of a [`Kind::Tree`]: what it held, see `holding`; none where nobody asked, and in images of before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Digest>,
}

/// The type of a path and what makes its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    File {
        /// In bytes.
        size: u64,
        /// BLAKE3 of the content; [`Digest::ZERO`], which no file has, where the size alone told it apart.
        digest: Digest,
    },
    Link {
        target: LinkTarget,
    },
    /// A directory by itself, without what it holds.
    Dir,
    /// A directory with all it holds, moved as one.
    Tree,
    /// A FIFO, socket or device.
    Other {
        rdev: u64,
    },
}

/// The text of a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkTarget(pub Vec<u8>);

impl TryFrom<String> for LinkTarget {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        unescape(&text).map(Self).ok_or("not an escaped link target")
    }
}

impl From<LinkTarget> for String {
    fn from(target: LinkTarget) -> Self {
        escape(&target.0)
    }
}

impl Image {
    pub fn new(kind: Kind, stat: &Stat, xattrs: Option<Digest>) -> Self {
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time::of(stat),
            #[allow(clippy::useless_conversion)]
            ino: stat.st_ino.into(),
            xattrs,
            held: None,
        }
    }

    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir | Kind::Tree)
    }

    /// Bytes of content.
    pub fn bytes(&self) -> u64 {
        match self.kind {
            Kind::File { size, .. } => size,
            Kind::Link { .. } | Kind::Dir | Kind::Tree | Kind::Other { .. } => 0,
        }
    }

    /// The same type and content. A directory is the same as any other directory.
    pub fn same_content(&self, other: &Image) -> bool {
        (self.is_dir() && other.is_dir()) || self.kind == other.kind
    }

    /// True where both say what they hold, and it is not the same.
    pub fn holds_otherwise(&self, other: &Image) -> bool {
        self.held.is_some() && other.held.is_some() && self.held != other.held
    }

    /// The same mode, owner, group and extended attributes; times are not compared: nobody means them.
    pub fn same_rights(&self, other: &Image) -> bool {
        (self.mode, self.uid, self.gid, self.xattrs) == (other.mode, other.uid, other.gid, other.xattrs)
    }

    /// True where a look at the inode alone already says that nobody has written to it since. A program that stores
    /// through a shared mapping may move the time late or not at all; what that can harm is told where this is used.
    pub fn looks_untouched(&self, stat: &Stat) -> bool {
        let size = match self.kind {
            Kind::File { size, .. } => u64::try_from(stat.st_size) == Ok(size),
            Kind::Link { .. } | Kind::Dir | Kind::Tree | Kind::Other { .. } => true,
        };
        size && ino(stat) == self.ino && Time::of(stat) == self.mtime
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::File { size, digest } if *digest == Digest::ZERO => write!(f, "a file of {size} bytes")?,
            Kind::File { size, digest } => write!(f, "a file of {size} bytes (blake3 {})", &digest.hex()[..12])?,
            Kind::Link { target } => return write!(f, "a link to {}", escape(&target.0)),
            Kind::Dir => f.write_str("a directory")?,
            Kind::Tree => f.write_str("a directory with all it holds")?,
            Kind::Other { .. } => f.write_str("a special file")?,
        }
        write!(f, ", mode {:04o}, owner {}:{}", self.mode, self.uid, self.gid)
    }
}

/// An image or its absence, in words.
pub fn shown(image: Option<&Image>) -> String {
    image.map_or_else(|| "nothing".to_owned(), Image::to_string)
}

pub fn ino(stat: &Stat) -> u64 {
    #[allow(clippy::useless_conversion)]
    stat.st_ino.into()
}

pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// What is known of a name without opening it; none where nothing has the name.
pub fn stat(dir: impl AsFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a file for reading, never through a link and never waiting for a FIFO's writer.
pub fn open_file(dir: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// The whole image of a name, its content hashed.
pub fn take(dir: impl AsFd, name: &[u8]) -> io::Result<Option<Image>> {
    look(dir, name, |_| true)
}

/// The image of a name; a file's content is hashed only where `worth` says so of its size.
pub fn look(dir: impl AsFd, name: &[u8], worth: impl Fn(u64) -> bool) -> io::Result<Option<Image>> {
    let dir = dir.as_fd();
    let Some(found) = stat(dir, name)? else { return Ok(None) };
    let image = match file_type(&found) {
        FileType::RegularFile => {
            let file = open_file(dir, name)?;
            of_open_file(&file, worth)?
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes();
            Image::new(Kind::Link { target: LinkTarget(target) }, &found, None)
        }
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(dir, name, flags, Mode::empty())?;
            Image::new(Kind::Dir, &rustix::fs::fstat(&opened)?, xattr::digest(&xattr::read(&opened)?))
        }
        _ => {
            #[allow(clippy::useless_conversion)]
            let rdev = found.st_rdev.into();
            Image::new(Kind::Other { rdev }, &found, None)
        }
    };
    Ok(Some(image))
}

fn of_open_file(file: &OwnedFd, worth: impl Fn(u64) -> bool) -> io::Result<Image> {
    let stat = rustix::fs::fstat(file)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let (size, digest) = if worth(size) { hash(file)? } else { (size, Digest::ZERO) };
    Ok(Image::new(Kind::File { size, digest }, &stat, xattr::digest(&xattr::read(file)?)))
}

/// Reads a file to its end: its length and the BLAKE3 of its content.
pub fn hash(file: impl AsFd) -> io::Result<(u64, Digest)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = [0; 64 * 1024];
    let mut size = 0;
    loop {
        let got = read(&file, &mut buffer)?;
        if got == 0 {
            return Ok((size, Digest(*hasher.finalize().as_bytes())));
        }
        hasher.update(&buffer[..got]);
        size += got as u64;
    }
}

/// Reads once; a signal in between is no error.
pub fn read(file: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(file.as_fd(), &mut *buffer) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}
