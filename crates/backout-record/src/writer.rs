//! Writes a record, front to back, a member at a time. Never holds a member's content in memory.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use crate::error::RecordError;
use crate::head::{HEAD, Head, MANIFEST, SEAL, SIGNATURE, SUMS};
use crate::member::{Kind, Member, Meta};
use crate::pax;
use crate::sums::{Hashing, Lists, sum_line};

/// Fast: what a deployment waits for is mostly text and images that shrink well already.
const LEVEL: i32 = 1;
const BLOCK: u64 = 512;

/// Signs the text of the seal: the signature as `ssh-keygen -Y sign` makes it.
pub type Sign<'a> = &'a dyn Fn(&[u8]) -> Result<String, RecordError>;

/// A record that is being written.
pub struct Writer {
    path: PathBuf,
    out: zstd::Encoder<'static, BufWriter<File>>,
    lists: Lists,
    /// Seconds since 1970: the time of what the tool itself writes.
    seconds: i64,
}

impl Writer {
    /// Begins a record in `file`, which is empty; `path` names it in errors.
    pub fn begin(file: File, path: &Path, head: &Head) -> Result<Self, RecordError> {
        let failed = |source| RecordError::write(path, source);
        let out = BufWriter::with_capacity(1 << 20, file);
        let mut out = zstd::Encoder::new(out, LEVEL).map_err(failed)?;
        // Against accidents, and so that every byte of the file counts.
        out.include_checksum(true).map_err(failed)?;
        let lists = Lists::new().map_err(failed)?;
        let mut writer = Self { path: path.to_owned(), out, lists, seconds: head.written_ms.div_euclid(1000) };
        let mut text = serde_json::to_vec_pretty(head).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        writer.own(HEAD, text.len() as u64, &mut text.as_slice())?;
        Ok(writer)
    }

    /// A file of the tool's own: closed to others, with the time of the record.
    fn own(&mut self, path: &str, size: u64, content: &mut dyn Read) -> Result<(), RecordError> {
        let meta = Meta::own(0o600, self.seconds);
        self.add(&Member { path: path.into(), kind: Kind::File(size), meta }, content)
    }

    /// The time of what the tool itself writes: seconds since 1970.
    pub fn seconds(&self) -> i64 {
        self.seconds
    }

    /// Adds a member; of a file exactly as much of `content` as its size says.
    pub fn add(&mut self, member: &Member, content: &mut dyn Read) -> Result<(), RecordError> {
        let path = self.path.clone();
        let failed = |source| RecordError::write(&path, source);
        if !Member::is_plain(&member.path) {
            return Err(failed(io::Error::other("a member's path is not plain")));
        }
        let sha256 = self.member(member, content).map_err(failed)?;
        self.lists.add(member, sha256.as_deref()).map_err(failed)
    }

    fn member(&mut self, member: &Member, content: &mut dyn Read) -> io::Result<Option<String>> {
        let extended = pax::records(member);
        if !extended.is_empty() {
            let mut head = blank(EntryType::XHeader, &Meta::own(0o600, self.seconds), extended.len() as u64)?;
            set(&mut head.as_old_mut().name, b"pax");
            head.set_cksum();
            self.out.write_all(head.as_bytes())?;
            self.out.write_all(&extended)?;
            self.pad(extended.len() as u64)?;
        }
        let (kind, size, link) = match &member.kind {
            Kind::File(size) => (EntryType::Regular, *size, b"".as_slice()),
            Kind::Directory => (EntryType::Directory, 0, b"".as_slice()),
            Kind::Symlink(link) => (EntryType::Symlink, 0, link.as_slice()),
            Kind::HardLink(first) => (EntryType::Link, 0, first.as_slice()),
        };
        let mut head = blank(kind, &member.meta, size)?;
        // What does not fit stands in the extended header; here a beginning of it, for readers that don't know these.
        set(&mut head.as_old_mut().name, if pax::fits(&member.path) { &member.path } else { b"long-name" });
        set(&mut head.as_old_mut().linkname, if pax::fits(link) { link } else { b"long-link" });
        head.set_cksum();
        self.out.write_all(head.as_bytes())?;
        let Kind::File(size) = member.kind else { return Ok(None) };
        let mut content = Hashing::new(content.take(size));
        io::copy(&mut content, &mut self.out)?;
        if content.bytes != size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file became shorter while it was read"));
        }
        self.pad(size)?;
        Ok(Some(content.sha256()))
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = (BLOCK - size % BLOCK) % BLOCK;
        self.out.write_all(&[0; BLOCK as usize][..padding as usize])
    }

    /// Adds the checksums, the seal and its signature, and hands the file back, written but not synced.
    pub fn finish(mut self, sign: Option<Sign<'_>>) -> Result<File, RecordError> {
        let path = self.path.clone();
        let failed = |source| RecordError::write(&path, source);
        let Lists { manifest, mut sums } = std::mem::replace(&mut self.lists, Lists::new().map_err(failed)?);
        let (mut list, bytes, sha256) = manifest.finish().map_err(failed)?;
        self.own(MANIFEST, bytes, &mut list)?;
        sums.line(&sum_line(&sha256, MANIFEST.as_bytes())).map_err(failed)?;
        let (mut list, bytes, sha256) = sums.finish().map_err(failed)?;
        self.own(SUMS, bytes, &mut list)?;
        let mut seal = sum_line(&sha256, SUMS.as_bytes());
        seal.push(b'\n');
        self.own(SEAL, seal.len() as u64, &mut seal.as_slice())?;
        if let Some(sign) = sign {
            let signature = sign(&seal)?;
            self.own(SIGNATURE, signature.len() as u64, &mut signature.as_bytes())?;
        }
        self.out.write_all(&[0; 2 * BLOCK as usize]).map_err(failed)?;
        let out = self.out.finish().map_err(failed)?;
        out.into_inner().map_err(|error| failed(error.into_error()))
    }
}

/// A header without name.
fn blank(kind: EntryType, meta: &Meta, size: u64) -> io::Result<Header> {
    let mut head = Header::new_ustar();
    head.set_entry_type(kind);
    head.set_mode(meta.mode);
    head.set_uid(meta.uid.into());
    head.set_gid(meta.gid.into());
    // A time before 1970 stands in the extended header.
    head.set_mtime(u64::try_from(meta.mtime.0).unwrap_or(0));
    head.set_size(size);
    Ok(head)
}

/// Writes bytes into a field of a header as they are; the rest stays zero.
fn set(field: &mut [u8; 100], bytes: &[u8]) {
    field[..bytes.len()].copy_from_slice(bytes);
}
