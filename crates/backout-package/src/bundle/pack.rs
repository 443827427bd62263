//! Writes a bundle. Never leaves half of one: it gets its name when it is whole and synced.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use backout_model::entry::Digest;
use backout_model::stamp;
use tar::{Builder, EntryType, Header as TarHeader};

use super::{FORMAT, HEADER_NAME, Header, SUFFIX};
use crate::error::PackageError;
use crate::package::Package;
use crate::tree::{self, Descend, Entry, Kind, TreeHasher};

/// Small packages pack at once, and text shrinks well already.
const LEVEL: i32 = 9;

/// Writes the package in `dir` as a bundle into the directory `out_dir`, over an older one of the same name, and
/// returns the bundle's path.
pub fn pack(dir: &Path, out_dir: &Path) -> Result<PathBuf, PackageError> {
    let package = Package::load(dir)?;
    let out_real = fs::canonicalize(out_dir).map_err(|e| PackageError::write(out_dir, e))?;
    if out_real.starts_with(&package.dir) {
        return Err(PackageError::Unusable {
            path: out_dir.to_owned(),
            what: "lies in the package, which would hold its own bundle".to_owned(),
            hint: Some("write the bundle into another directory".to_owned()),
        });
    }
    let before = tree::digest(&package.dir)?;
    let header = Header {
        format: FORMAT,
        package: package.name.clone(),
        version: package.version.clone(),
        files: before.entries,
        bytes: before.bytes,
        digest: Digest(before.finish()).hex(),
    };
    let path = out_dir.join(format!("{}-{}{SUFFIX}", package.name, package.version));
    let failed = |e: io::Error| PackageError::write(&path, e);
    // The mode of any new file, as the caller's umask has it; a temporary file would be 0600.
    let mut partial = tempfile::Builder::new()
        .prefix(".backout-")
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(out_dir)
        .map_err(failed)?;

    let mut encoder = zstd::Encoder::new(partial.as_file_mut(), LEVEL).map_err(failed)?;
    encoder.include_checksum(true).map_err(failed)?;
    let after = write_archive(&package.dir, &header, &path, &mut encoder)?;
    encoder.finish().map_err(failed)?;
    if after.finish() != before.finish() {
        return Err(PackageError::unusable(&package.dir, "was changed while it was packed"));
    }
    partial.as_file().sync_all().map_err(failed)?;
    partial.persist(&path).map_err(|e| failed(e.error))?;
    fs::File::open(&out_real).and_then(|d| d.sync_all()).map_err(failed)?;
    Ok(path)
}

/// Writes the archive and returns the hash of what went in.
fn write_archive(dir: &Path, header: &Header, path: &Path, out: &mut dyn Write) -> Result<TreeHasher, PackageError> {
    let failed = |e: io::Error| PackageError::write(path, e);
    let mut builder = Builder::new(out);
    let mut text = serde_json::to_vec_pretty(header).map_err(|e| failed(e.into()))?;
    text.push(b'\n');
    let mut first = blank(EntryType::Regular, 0o644, text.len() as u64);
    builder.append_data(&mut first, HEADER_NAME, text.as_slice()).map_err(failed)?;

    let mut hasher = TreeHasher::new();
    // Inodes with several names: the later names become links to the first one.
    let mut linked: HashMap<(u64, u64), PathBuf> = HashMap::new();
    tree::walk(dir, &mut |entry| {
        write_entry(&mut builder, &mut hasher, &mut linked, entry, &failed)?;
        Ok(Descend::Yes)
    })?;
    builder.finish().map_err(failed)?;
    Ok(hasher)
}

fn write_entry(
    builder: &mut Builder<&mut dyn Write>,
    hasher: &mut TreeHasher,
    linked: &mut HashMap<(u64, u64), PathBuf>,
    entry: &Entry<'_>,
    failed: &dyn Fn(io::Error) -> PackageError,
) -> Result<(), PackageError> {
    builder.append_pax_extensions([("mtime", mtime(&entry.metadata).as_bytes())]).map_err(failed)?;
    match entry.kind {
        Kind::Directory => {
            tree::hash_entry(hasher, entry, &mut io::sink())?;
            let mut head = blank(EntryType::Directory, entry.mode(), 0);
            append_name(builder, &mut head, entry.relative).map_err(failed)?;
            head.set_cksum();
            builder.get_mut().write_all(head.as_bytes()).map_err(failed)
        }
        Kind::Symlink => {
            tree::hash_entry(hasher, entry, &mut io::sink())?;
            let target = fs::read_link(entry.path).map_err(|e| PackageError::read(entry.path, e))?;
            let mut head = blank(EntryType::Symlink, 0o777, 0);
            append_link(builder, &mut head, entry.relative, &target).map_err(failed)
        }
        Kind::File => {
            let inode = (entry.metadata.dev(), entry.metadata.ino());
            if entry.metadata.nlink() > 1
                && let Some(first) = linked.get(&inode)
            {
                tree::hash_entry(hasher, entry, &mut io::sink())?;
                let mut head = blank(EntryType::Link, entry.mode(), 0);
                return append_link(builder, &mut head, entry.relative, first).map_err(failed);
            }
            if entry.metadata.nlink() > 1 {
                linked.insert(inode, entry.relative.to_owned());
            }
            let size = entry.metadata.size();
            let mut head = blank(EntryType::Regular, entry.mode(), size);
            append_name(builder, &mut head, entry.relative).map_err(failed)?;
            head.set_cksum();
            builder.get_mut().write_all(head.as_bytes()).map_err(failed)?;
            tree::hash_entry(hasher, entry, builder.get_mut())?;
            // Archives are made of blocks of 512 bytes.
            let padding = (512 - size % 512) % 512;
            builder.get_mut().write_all(&[0; 512][..padding as usize]).map_err(failed)
        }
    }
}

/// As an extended header has it.
fn mtime(metadata: &Metadata) -> String {
    stamp::written(metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or(0))
}

/// A header without name: nobody's, from 1970, so that it says nothing of the machine it was made on.
fn blank(kind: EntryType, mode: u32, size: u64) -> TarHeader {
    let mut head = TarHeader::new_gnu();
    head.set_entry_type(kind);
    head.set_mode(mode);
    head.set_uid(0);
    head.set_gid(0);
    head.set_mtime(0);
    head.set_size(size);
    head
}

/// Sets the name; one that does not fit gets an entry of its own before, with its bytes as they are.
fn append_name(builder: &mut Builder<&mut dyn Write>, head: &mut TarHeader, name: &Path) -> io::Result<()> {
    let bytes = name.as_os_str().as_bytes();
    if bytes.len() <= 100 {
        return set_bytes(head, |old| &mut old.name, bytes);
    }
    long(builder, EntryType::GNULongName, bytes)?;
    set_bytes(head, |old| &mut old.name, &bytes[..100])
}

fn append_link(
    builder: &mut Builder<&mut dyn Write>,
    head: &mut TarHeader,
    name: &Path,
    target: &Path,
) -> io::Result<()> {
    append_name(builder, head, name)?;
    let bytes = target.as_os_str().as_bytes();
    if bytes.len() > 100 {
        long(builder, EntryType::GNULongLink, bytes)?;
    }
    set_bytes(head, |old| &mut old.linkname, &bytes[..bytes.len().min(100)])?;
    head.set_cksum();
    builder.get_mut().write_all(head.as_bytes())
}

/// Writes bytes into a field of a header as they are: a path's own rules would tidy them.
fn set_bytes(
    head: &mut TarHeader,
    field: impl Fn(&mut tar::OldHeader) -> &mut [u8; 100],
    bytes: &[u8],
) -> io::Result<()> {
    let field = field(head.as_old_mut());
    field.fill(0);
    let room = field.get_mut(..bytes.len()).ok_or_else(|| io::Error::other("a name is longer than its field"))?;
    room.copy_from_slice(bytes);
    Ok(())
}

fn long(builder: &mut Builder<&mut dyn Write>, kind: EntryType, bytes: &[u8]) -> io::Result<()> {
    let mut head = blank(kind, 0o644, bytes.len() as u64 + 1);
    set_bytes(&mut head, |old| &mut old.name, b"././@LongLink")?;
    head.set_cksum();
    builder.append(&head, bytes.chain_nul())
}

/// The bytes with a NUL behind them, as a long name is stored.
trait ChainNul {
    fn chain_nul(self) -> impl io::Read;
}

impl ChainNul for &[u8] {
    fn chain_nul(self) -> impl io::Read {
        io::Read::chain(self, &b"\0"[..])
    }
}
