//! Opens a bundle into an empty directory. Trusts nothing in it: neither names, nor sizes, nor what it says of itself.
//!
//! Never writes outside that directory, never through a symlink, never a device; leaves nothing behind on an error.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use backout_model::entry::Digest;
use backout_model::stamp;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use tar::{Archive, EntryType};

use super::{FORMAT, HEADER_NAME, Header, MAX_HEADER};
use crate::error::PackageError;
use crate::load::Loader;
use crate::package::{MANIFEST, Package};
use crate::tree::{CopyError, TreeHasher};

/// Two to the power of this is the most memory that unpacking takes.
const MAX_WINDOW_LOG: u32 = 25;

/// Extracts a bundle into the directory `into`, which must be empty or not exist, and reads the package there.
pub fn open(file: &Path, into: &Path) -> Result<Package, PackageError> {
    let existed = into.exists();
    if !existed {
        DirBuilder::new().mode(0o700).create(into).map_err(|e| PackageError::write(into, e))?;
    } else if fs::read_dir(into).map_err(|e| PackageError::read(into, e))?.next().is_some() {
        return Err(PackageError::unusable(into, "is not empty; a bundle is opened into an empty directory"));
    }
    open_into(file, into).inspect_err(|_| clear(into, existed))
}

/// Removes what was extracted. What can't be removed stays: the error that led here is the one to report.
fn clear(into: &Path, existed: bool) {
    let gone = if existed {
        fs::read_dir(into).map(|entries| {
            for entry in entries.flatten() {
                let path = entry.path();
                let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
                drop(if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) });
            }
        })
    } else {
        fs::remove_dir_all(into)
    };
    drop(gone);
}

fn open_into(file: &Path, into: &Path) -> Result<Package, PackageError> {
    let (header, mut extraction) = Extraction::run(file, into)?;
    let mut loader = Loader::new(into, None)?;
    loader.file = file.join(MANIFEST);
    let package = loader.load()?;
    if package.name != header.package || package.version != header.version {
        return Err(PackageError::bundle(file, "holds another package than it says"));
    }
    extraction.finish_directories()?;
    Ok(package)
}

fn damaged(file: &Path) -> impl Fn(io::Error) -> PackageError {
    let file = file.to_owned();
    move |e| PackageError::bundle(&file, format!("is damaged or truncated: {e}"))
}

struct Extraction<'a> {
    file: &'a Path,
    into: &'a Path,
    hasher: TreeHasher,
    /// Modes and times of directories, set last: a directory may forbid what still has to be put into it.
    directories: Vec<(PathBuf, u32, Option<Timespec>)>,
}

/// What an extended header or a long name says about the entry that follows.
#[derive(Default)]
struct Ahead {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    mtime: Option<Timespec>,
}

impl<'a> Extraction<'a> {
    fn run(file: &'a Path, into: &'a Path) -> Result<(Header, Self), PackageError> {
        let opened = File::open(file).map_err(|e| PackageError::read(file, e))?;
        if !opened.metadata().map_err(|e| PackageError::read(file, e))?.is_file() {
            return Err(PackageError::unusable(file, "is not a regular file"));
        }
        let mut decoder =
            zstd::Decoder::with_buffer(BufReader::with_capacity(128 << 10, opened)).map_err(damaged(file))?;
        decoder.window_log_max(MAX_WINDOW_LOG).map_err(damaged(file))?;
        let mut archive = Archive::new(decoder);
        let mut extraction = Extraction { file, into, hasher: TreeHasher::new(), directories: Vec::new() };
        let header = extraction.entries(&mut archive)?;
        extraction.ends(archive.into_inner())?;
        extraction.matches(&header)?;
        Ok((header, extraction))
    }

    fn entries<R: Read>(&mut self, archive: &mut Archive<R>) -> Result<Header, PackageError> {
        let damaged = damaged(self.file);
        // Raw: long names and extended headers come as entries of their own, and are bounded here.
        let mut entries = archive.entries().map_err(&damaged)?.raw(true);
        let mut first = entries
            .next()
            .ok_or_else(|| self.refused("is empty"))?
            .map_err(|e| PackageError::bundle(self.file, format!("is not a bundle, or a damaged one: {e}")))?;
        let header = self.header(&mut first)?;
        self.fits(&header)?;
        let mut ahead = Ahead::default();
        for entry in entries {
            let mut entry = entry.map_err(&damaged)?;
            match entry.header().entry_type() {
                EntryType::GNULongName => ahead.name = Some(self.long(&mut entry)?),
                EntryType::GNULongLink => ahead.link = Some(self.long(&mut entry)?),
                EntryType::XHeader => ahead.mtime = self.extended_mtime(&mut entry)?,
                _ => self.entry(&header, &mut entry, std::mem::take(&mut ahead))?,
            }
        }
        Ok(header)
    }

    fn refused(&self, what: impl Into<String>) -> PackageError {
        PackageError::bundle(self.file, what)
    }

    /// A small entry as a whole.
    fn small<R: Read>(&self, entry: &mut tar::Entry<'_, R>) -> Result<Vec<u8>, PackageError> {
        if entry.size() > MAX_HEADER {
            return Err(self.refused("has a header that is too long"));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(damaged(self.file))?;
        Ok(bytes)
    }

    fn header<R: Read>(&self, entry: &mut tar::Entry<'_, R>) -> Result<Header, PackageError> {
        if &*entry.path_bytes() != HEADER_NAME.as_bytes() || entry.header().entry_type() != EntryType::Regular {
            return Err(self.refused(format!("is not a bundle: its first entry is not {HEADER_NAME}")));
        }
        let bytes = self.small(entry)?;
        let unreadable = |e: serde_json::Error| self.refused(format!("says of itself what can't be read: {e}"));
        // The version first: a later format may have other fields.
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(unreadable)?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => serde_json::from_value(value).map_err(unreadable),
            Some(format) => Err(self.refused(format!("has format {format}; this version reads format {FORMAT}"))),
            None => Err(self.refused("does not say what format it has")),
        }
    }

    fn long<R: Read>(&self, entry: &mut tar::Entry<'_, R>) -> Result<Vec<u8>, PackageError> {
        let mut bytes = self.small(entry)?;
        if bytes.last() == Some(&0) {
            bytes.pop();
        }
        Ok(bytes)
    }

    fn extended_mtime<R: Read>(&self, entry: &mut tar::Entry<'_, R>) -> Result<Option<Timespec>, PackageError> {
        let bytes = self.small(entry)?;
        let mut mtime = None;
        for extension in tar::PaxExtensions::new(&bytes) {
            let extension = extension.map_err(damaged(self.file))?;
            if extension.key_bytes() != b"mtime" {
                return Err(self.refused("has an extended header that bundles don't have"));
            }
            let text = extension.value().unwrap_or_default();
            mtime = Some(parse_mtime(text).ok_or_else(|| self.refused("has an unreadable time"))?);
        }
        Ok(mtime)
    }

    /// Makes one file, directory or link.
    fn entry<R: Read>(
        &mut self,
        header: &Header,
        entry: &mut tar::Entry<'_, R>,
        ahead: Ahead,
    ) -> Result<(), PackageError> {
        let head = entry.header();
        let kind = head.entry_type();
        let mode = head.mode().map_err(damaged(self.file))? & 0o7777;
        let name = ahead.name.unwrap_or_else(|| head.path_bytes().into_owned());
        let link = ahead.link.or_else(|| head.link_name_bytes().map(|b| b.into_owned())).unwrap_or_default();
        let relative = self.safe(&name)?;
        if self.hasher.entries >= header.files {
            return Err(self.refused("holds more files than it says"));
        }
        let path = self.into.join(&relative);
        match kind {
            EntryType::Directory => {
                DirBuilder::new().mode(0o700).create(&path).map_err(|e| self.not_made(&path, e))?;
                self.hasher.directory(&relative, mode);
                self.directories.push((path, mode, ahead.mtime));
                Ok(())
            }
            EntryType::Symlink => {
                let target = Path::new(OsStr::from_bytes(&link));
                std::os::unix::fs::symlink(target, &path).map_err(|e| self.not_made(&path, e))?;
                self.hasher.symlink(&relative, target);
                set_mtime(&path, ahead.mtime)
            }
            EntryType::Link => self.hard_link(header, &relative, mode, &link),
            EntryType::Regular => {
                let size = entry.size();
                self.room(header, size)?;
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
                let mut file = file.map_err(|e| self.not_made(&path, e))?;
                self.hasher
                    .file(&relative, mode, size, entry, &mut file)
                    .map_err(|e| copy_error(self.file, &path, e))?;
                file.set_permissions(Permissions::from_mode(mode)).map_err(|e| PackageError::write(&path, e))?;
                set_mtime(&path, ahead.mtime)
            }
            _ => {
                Err(self.refused(format!("holds `{}`, which is neither file, directory nor link", relative.display())))
            }
        }
    }

    /// Refuses where the disk has less room than the bundle says that it takes: a full one is everybody's trouble.
    fn fits(&self, header: &Header) -> Result<(), PackageError> {
        let Ok(disk) = rustix::fs::statvfs(self.into) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if header.bytes <= free {
            return Ok(());
        }
        let into = self.into.display();
        Err(self.refused(format!("needs {} bytes on the disk of {into}, where {free} are free", header.bytes)))
    }

    fn room(&self, header: &Header, size: u64) -> Result<(), PackageError> {
        match self.hasher.bytes.checked_add(size) {
            Some(sum) if sum <= header.bytes => Ok(()),
            _ => Err(self.refused("holds more bytes than it says")),
        }
    }

    fn hard_link(&mut self, header: &Header, relative: &Path, mode: u32, link: &[u8]) -> Result<(), PackageError> {
        let first = self.into.join(self.safe(link)?);
        let path = self.into.join(relative);
        let metadata = fs::symlink_metadata(&first).map_err(|e| self.not_made(&path, e))?;
        if !metadata.is_file() {
            return Err(self.refused(format!("links `{}` to what is not a file", relative.display())));
        }
        self.room(header, metadata.len())?;
        fs::hard_link(&first, &path).map_err(|e| self.not_made(&path, e))?;
        let mut content = File::open(&first).map_err(|e| PackageError::read(&first, e))?;
        let hashed = self.hasher.file(relative, mode, metadata.len(), &mut content, &mut io::sink());
        hashed.map_err(|e| copy_error(self.file, &path, e))
    }

    /// The path of an entry: relative, plain, and below directories that this extraction has made itself.
    fn safe(&self, name: &[u8]) -> Result<PathBuf, PackageError> {
        let path = Path::new(OsStr::from_bytes(name));
        let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
        if name.is_empty() || name.contains(&0) || !plain {
            return Err(self.refused(format!("holds the unsafe path `{}`", path.display())));
        }
        // Through `components`, so that `a//b` and `a/./b` have one spelling.
        let tidy: PathBuf = path.components().collect();
        let mut parent = self.into.to_owned();
        for part in tidy.parent().into_iter().flat_map(Path::components) {
            parent.push(part);
            let is_dir = fs::symlink_metadata(&parent).is_ok_and(|m| m.is_dir());
            if !is_dir {
                return Err(self.refused(format!("holds `{}`, which is not below a directory of it", tidy.display())));
            }
        }
        Ok(tidy)
    }

    fn not_made(&self, path: &Path, error: io::Error) -> PackageError {
        match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let relative = path.strip_prefix(self.into).unwrap_or(path);
                self.refused(format!("holds `{}` twice", relative.display()))
            }
            _ => PackageError::write(path, error),
        }
    }

    /// After the archive comes nothing but its padding; reading to the end checks zstd's own checksum, too.
    fn ends<R: Read>(&self, mut rest: R) -> Result<(), PackageError> {
        let mut buffer = [0; 8192];
        loop {
            let got = rest.read(&mut buffer).map_err(damaged(self.file))?;
            if got == 0 {
                return Ok(());
            }
            if buffer[..got].iter().any(|b| *b != 0) {
                return Err(self.refused("holds something after its end"));
            }
        }
    }

    fn matches(&self, header: &Header) -> Result<(), PackageError> {
        if self.hasher.entries != header.files || self.hasher.bytes != header.bytes {
            let what = format!(
                "is truncated: it holds {} files of {} and {} bytes of {}",
                self.hasher.entries, header.files, self.hasher.bytes, header.bytes
            );
            return Err(self.refused(what));
        }
        if Digest::from_hex(&header.digest) != Some(Digest(self.hasher.finish())) {
            return Err(self.refused("was changed after it was packed: its digest is not what it says"));
        }
        Ok(())
    }

    /// Last of all, so that everything can still be removed when something is wrong; the innermost first, so that the
    /// outer ones keep the time that is set.
    fn finish_directories(&mut self) -> Result<(), PackageError> {
        for (path, mode, mtime) in self.directories.drain(..).rev() {
            set_mtime(&path, mtime)?;
            fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(|e| PackageError::write(&path, e))?;
        }
        Ok(())
    }
}

fn copy_error(file: &Path, path: &Path, error: CopyError) -> PackageError {
    match error {
        CopyError::Read(e) => damaged(file)(e),
        CopyError::Write(e) => PackageError::write(path, e),
        CopyError::Length => PackageError::bundle(file, "is truncated within a file"),
    }
}

fn set_mtime(path: &Path, mtime: Option<Timespec>) -> Result<(), PackageError> {
    let Some(mtime) = mtime else { return Ok(()) };
    let times = Timestamps { last_access: mtime, last_modification: mtime };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| PackageError::write(path, e.into()))
}

fn parse_mtime(text: &str) -> Option<Timespec> {
    stamp::read(text).map(|(seconds, ns)| Timespec { tv_sec: seconds, tv_nsec: ns.into() })
}
