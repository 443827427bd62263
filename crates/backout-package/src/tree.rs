//! Walks a package's directory in one order on every machine, and makes the digest of what is there.
//!
//! Never follows a symlink, never holds more than the names of the directories on the way in memory.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::PackageError;

/// What a digest begins with; another way of hashing gets another one.
const DIGEST_CONTEXT: &[u8] = b"backout package 1\n";

/// What an entry of a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
    Symlink,
}

/// One file, directory or symlink below a package's directory.
pub struct Entry<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// Relative to the package.
    pub relative: &'a Path,
    pub kind: Kind,
    pub metadata: Metadata,
}

impl Entry<'_> {
    /// The permission bits, with set-user-id, set-group-id and sticky.
    pub fn mode(&self) -> u32 {
        self.metadata.permissions().mode() & 0o7777
    }
}

/// What to do with a directory's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descend {
    Yes,
    No,
}

/// Visits all that lies below `dir`: a directory before its content, names in the order of their bytes.
pub fn walk(dir: &Path, each: &mut dyn FnMut(&Entry<'_>) -> Result<Descend, PackageError>) -> Result<(), PackageError> {
    walk_below(dir, &mut PathBuf::new(), each)
}

fn walk_below(
    dir: &Path,
    relative: &mut PathBuf,
    each: &mut dyn FnMut(&Entry<'_>) -> Result<Descend, PackageError>,
) -> Result<(), PackageError> {
    let here = dir.join(&*relative);
    let names = fs::read_dir(&here).and_then(|entries| {
        let mut names = entries.map(|e| e.map(|e| e.file_name())).collect::<io::Result<Vec<OsString>>>()?;
        names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        Ok(names)
    });
    for name in names.map_err(|e| PackageError::read(&here, e))? {
        relative.push(&name);
        let path = dir.join(&*relative);
        let metadata = fs::symlink_metadata(&path).map_err(|e| PackageError::read(&path, e))?;
        let kind = if metadata.is_dir() {
            Kind::Directory
        } else if metadata.is_file() {
            Kind::File
        } else if metadata.is_symlink() {
            Kind::Symlink
        } else {
            return Err(PackageError::unusable(&path, "is a device, a socket or a pipe; a package can't hold one"));
        };
        let entry = Entry { path: &path, relative, kind, metadata };
        if each(&entry)? == Descend::Yes && kind == Kind::Directory {
            walk_below(dir, relative, each)?;
        }
        relative.pop();
    }
    Ok(())
}

/// Makes the digest of a tree from its entries, handed over in the order of [`walk`].
pub struct TreeHasher {
    hasher: blake3::Hasher,
    /// Files, directories and symlinks.
    pub entries: u64,
    /// Bytes of content of regular files.
    pub bytes: u64,
}

impl TreeHasher {
    pub fn new() -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(DIGEST_CONTEXT);
        Self { hasher, entries: 0, bytes: 0 }
    }

    fn head(&mut self, kind: u8, relative: &[u8], mode: u32, length: u64) {
        self.entries += 1;
        self.hasher.update(&[kind]);
        self.hasher.update(&(relative.len() as u64).to_le_bytes());
        self.hasher.update(relative);
        self.hasher.update(&mode.to_le_bytes());
        self.hasher.update(&length.to_le_bytes());
    }

    pub fn directory(&mut self, relative: &Path, mode: u32) {
        self.head(b'd', relative.as_os_str().as_bytes(), mode, 0);
    }

    /// A symlink has no mode of its own.
    pub fn symlink(&mut self, relative: &Path, target: &Path) {
        let target = target.as_os_str().as_bytes();
        self.head(b'l', relative.as_os_str().as_bytes(), 0, target.len() as u64);
        self.hasher.update(target);
    }

    /// A regular file of `length` bytes, which are copied to `out` on the way. Fewer or more bytes are an error.
    pub fn file(
        &mut self,
        relative: &Path,
        mode: u32,
        length: u64,
        content: &mut dyn Read,
        out: &mut dyn Write,
    ) -> Result<(), CopyError> {
        self.head(b'f', relative.as_os_str().as_bytes(), mode, length);
        self.bytes = self.bytes.saturating_add(length);
        let mut buffer = vec![0; 64 << 10];
        let mut left = length;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let got = match content.read(&mut buffer[..wanted]) {
                Ok(0) => return Err(CopyError::Length),
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(CopyError::Read(e)),
            };
            self.hasher.update(&buffer[..got]);
            out.write_all(&buffer[..got]).map_err(CopyError::Write)?;
            left -= got as u64;
        }
        Ok(())
    }

    pub fn finish(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}

/// Why a file's content could not be copied.
#[derive(Debug)]
pub enum CopyError {
    Read(io::Error),
    Write(io::Error),
    /// It ended before the length that was said.
    Length,
}

/// Hashes one entry of a directory tree, copying a file's content to `out`.
pub fn hash_entry(hasher: &mut TreeHasher, entry: &Entry<'_>, out: &mut dyn Write) -> Result<(), PackageError> {
    match entry.kind {
        Kind::Directory => hasher.directory(entry.relative, entry.mode()),
        Kind::Symlink => {
            let target = fs::read_link(entry.path).map_err(|e| PackageError::read(entry.path, e))?;
            hasher.symlink(entry.relative, &target);
        }
        Kind::File => {
            let mut file = File::open(entry.path).map_err(|e| PackageError::read(entry.path, e))?;
            let copied = hasher.file(entry.relative, entry.mode(), entry.metadata.size(), &mut file, out);
            copied.map_err(|e| match e {
                CopyError::Read(e) => PackageError::read(entry.path, e),
                CopyError::Write(e) => PackageError::write(entry.path, e),
                CopyError::Length => PackageError::unusable(entry.path, "was changed while it was read"),
            })?;
        }
    }
    Ok(())
}

/// The digest of all that lies below `dir`, with the count of entries and bytes.
pub fn digest(dir: &Path) -> Result<TreeHasher, PackageError> {
    let mut hasher = TreeHasher::new();
    walk(dir, &mut |entry| {
        hash_entry(&mut hasher, entry, &mut io::sink())?;
        Ok(Descend::Yes)
    })?;
    Ok(hasher)
}
