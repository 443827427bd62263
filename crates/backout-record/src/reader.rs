//! Reads a record, front to back, and checks all of it: sizes, names, checksums. Trusts nothing in it.
//!
//! Nothing of what is read counts before the end was reached without an error: the checksums stand there.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use serde_json::Value;
use tar::{Archive, EntryType};

use crate::error::RecordError;
use crate::head::{FORMAT, HEAD, Head, MANIFEST, SEAL, SIGNATURE, SUMS};
use crate::member::{Kind, Member};
use crate::pax::Ahead;
use crate::sums::{Hashing, Lists, sum_line};

/// Two to the power of this is the most memory that unpacking takes.
const MAX_WINDOW_LOG: u32 = 25;
/// The most bytes that a small member or an extended header may have: the head, the seal, a signature; a path and a link
/// of 4 KiB each, and 64 KiB of attributes.
const MAX_SMALL: u64 = 1 << 20;

/// A record that was read to its end and found whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    pub head: Head,
    /// Members and the bytes of their content, the head and the checksums left out.
    pub members: u64,
    pub bytes: u64,
    /// What is signed.
    pub seal: Vec<u8>,
    /// Its signature, where it has one: not checked here.
    pub signature: Option<String>,
}

/// Hears of a member and may read its content.
pub type Each<'a> = &'a mut dyn FnMut(&Head, &Member, &mut dyn Read) -> Result<(), RecordError>;

/// Reads the first member alone: which deployment of which site a file is a record of, should the rest be whole.
pub fn head(file: &Path) -> Result<Head, RecordError> {
    let mut archive = open(file)?;
    let mut entries = archive.entries().map_err(damaged(file))?.raw(true);
    first(file, &mut entries).map(|(head, _)| head)
}

/// Reads a record and checks it, handing each member but the checksums to `each`.
pub fn read(file: &Path, each: Each<'_>) -> Result<Checked, RecordError> {
    let mut archive = open(file)?;
    let checked = members(file, &mut archive, each)?;
    ends(file, archive.into_inner())?;
    Ok(checked)
}

/// True for a file that says in its first member that it is a record, whole or not.
pub fn is_record(file: &Path) -> bool {
    let Ok(mut archive) = open(file) else { return false };
    let Ok(entries) = archive.entries() else { return false };
    let first = entries.raw(true).next();
    first.is_some_and(|entry| entry.is_ok_and(|entry| &*entry.path_bytes() == HEAD.as_bytes()))
}

type Unpacked = zstd::Decoder<'static, BufReader<File>>;

fn open(file: &Path) -> Result<Archive<Unpacked>, RecordError> {
    let opened = File::open(file).map_err(|e| RecordError::read(file, e))?;
    if !opened.metadata().map_err(|e| RecordError::read(file, e))?.is_file() {
        return Err(RecordError::bad(file, "is not a regular file"));
    }
    let mut decoder = zstd::Decoder::with_buffer(BufReader::with_capacity(128 << 10, opened)).map_err(damaged(file))?;
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(damaged(file))?;
    Ok(Archive::new(decoder))
}

fn damaged(file: &Path) -> impl Fn(io::Error) -> RecordError {
    move |error| RecordError::bad(file, format!("is damaged or truncated: {error}"))
}

fn first<R: Read>(file: &Path, entries: &mut tar::Entries<'_, R>) -> Result<(Head, Vec<u8>), RecordError> {
    let none = || RecordError::bad(file, "is no record: it is empty");
    let mut entry = entries.next().ok_or_else(none)?.map_err(damaged(file))?;
    if &*entry.path_bytes() != HEAD.as_bytes() || entry.header().entry_type() != EntryType::Regular {
        return Err(RecordError::bad(file, format!("is no record: its first member is not {HEAD}")));
    }
    let text = small(file, &mut entry)?;
    let unreadable = |error: serde_json::Error| RecordError::bad(file, format!("has an unreadable head: {error}"));
    // The version first: a later format may have other fields.
    let value: Value = serde_json::from_slice(&text).map_err(unreadable)?;
    match value.get("format").and_then(Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => Ok((serde_json::from_value(value).map_err(unreadable)?, text)),
        Some(format) => Err(RecordError::bad(file, format!("has format {format}; this version reads format {FORMAT}"))),
        None => Err(RecordError::bad(file, "does not say what format it has")),
    }
}

fn small<R: Read>(file: &Path, entry: &mut tar::Entry<'_, R>) -> Result<Vec<u8>, RecordError> {
    if entry.size() > MAX_SMALL {
        return Err(RecordError::bad(file, "has a header that is too long"));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(damaged(file))?;
    Ok(bytes)
}

fn members<R: Read>(file: &Path, archive: &mut Archive<R>, each: Each<'_>) -> Result<Checked, RecordError> {
    let bad = |what: String| RecordError::bad(file, what);
    let mut entries = archive.entries().map_err(damaged(file))?.raw(true);
    let (head, text) = first(file, &mut entries)?;
    let mut check = Check::begin(file, &head, &text)?;
    let mut ahead: Option<Ahead> = None;
    for entry in entries {
        let mut entry = entry.map_err(damaged(file))?;
        if entry.header().entry_type() == EntryType::XHeader {
            if ahead.is_some() {
                return Err(bad("has two extended headers for one member".to_owned()));
            }
            ahead = Some(Ahead::read(&small(file, &mut entry)?).map_err(damaged(file))?);
            continue;
        }
        let member = member(file, &entry, ahead.take().unwrap_or_default())?;
        check.member(&member, &mut entry, each)?;
    }
    if ahead.is_some() {
        return Err(bad("is truncated behind an extended header".to_owned()));
    }
    check.end()
}

fn member<R: Read>(file: &Path, entry: &tar::Entry<'_, R>, mut ahead: Ahead) -> Result<Member, RecordError> {
    let head = entry.header();
    let path = ahead.path.take().unwrap_or_else(|| head.path_bytes().into_owned());
    let link = ahead.link.take().or_else(|| head.link_name_bytes().map(|bytes| bytes.into_owned()));
    let shown = String::from_utf8_lossy(&path).into_owned();
    if !Member::is_plain(&path) {
        return Err(RecordError::bad(file, format!("holds the unsafe path `{shown}`")));
    }
    let link = link.unwrap_or_default();
    let kind = match head.entry_type() {
        EntryType::Regular => Kind::File(entry.size()),
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink if !link.is_empty() && !link.contains(&0) => Kind::Symlink(link),
        EntryType::Link if Member::is_plain(&link) => Kind::HardLink(link),
        EntryType::Symlink | EntryType::Link => {
            return Err(RecordError::bad(file, format!("holds `{shown}`, a link that leads out of it")));
        }
        _ => {
            let what = format!("holds `{shown}`, which is neither file, directory nor link");
            return Err(RecordError::bad(file, what));
        }
    };
    if !matches!(kind, Kind::File(_)) && entry.size() != 0 {
        return Err(RecordError::bad(file, format!("holds `{shown}`, which has content and is no file")));
    }
    Ok(Member { path, kind, meta: ahead.meta(head).map_err(damaged(file))? })
}

/// What has been read so far.
struct Check<'f> {
    file: &'f Path,
    head: Head,
    lists: Option<Lists>,
    /// The lists as they must be, once the members are through.
    manifest: Option<(File, u64, String)>,
    sums: Option<(File, u64, String)>,
    seal: Option<Vec<u8>>,
    signature: Option<String>,
    members: u64,
    bytes: u64,
}

impl<'f> Check<'f> {
    fn begin(file: &'f Path, head: &Head, text: &[u8]) -> Result<Self, RecordError> {
        let mut lists = Lists::new().map_err(spool)?;
        let own = crate::member::Meta::own(0o600, head.written_ms.div_euclid(1000));
        let member = Member { path: HEAD.into(), kind: Kind::File(text.len() as u64), meta: own };
        let mut hashing = Hashing::new(text);
        io::copy(&mut hashing, &mut io::sink()).map_err(damaged(file))?;
        lists.add(&member, Some(&hashing.sha256())).map_err(spool)?;
        Ok(Self {
            file,
            head: head.clone(),
            lists: Some(lists),
            manifest: None,
            sums: None,
            seal: None,
            signature: None,
            members: 0,
            bytes: 0,
        })
    }

    fn bad(&self, what: impl Into<String>) -> RecordError {
        RecordError::bad(self.file, what)
    }

    fn member(&mut self, member: &Member, content: &mut dyn Read, each: Each<'_>) -> Result<(), RecordError> {
        match member.path.as_slice() {
            path if path == MANIFEST.as_bytes() => self.manifest(content),
            path if path == SUMS.as_bytes() => self.sums(content),
            path if path == SEAL.as_bytes() => self.seal(content),
            path if path == SIGNATURE.as_bytes() => self.signature(content),
            path if path == HEAD.as_bytes() => Err(self.bad("has two heads")),
            _ => self.content(member, content, each),
        }
    }

    fn content(&mut self, member: &Member, content: &mut dyn Read, each: Each<'_>) -> Result<(), RecordError> {
        let size = if let Kind::File(size) = member.kind { size } else { 0 };
        self.members += 1;
        self.bytes = self.bytes.saturating_add(size);
        if self.members > self.head.members || self.bytes > self.head.bytes {
            return Err(self.bad("holds more than it says"));
        }
        let file = self.file;
        let Some(lists) = &mut self.lists else {
            return Err(RecordError::bad(file, "holds something behind its checksums"));
        };
        let mut hashing = Hashing::new(content);
        each(&self.head, member, &mut hashing)?;
        io::copy(&mut hashing, &mut io::sink()).map_err(damaged(file))?;
        let sha256 = match member.kind {
            Kind::File(size) if size == hashing.bytes => Some(hashing.sha256()),
            Kind::File(_) => return Err(RecordError::bad(file, "is truncated within a file")),
            Kind::Directory | Kind::Symlink(_) | Kind::HardLink(_) => None,
        };
        lists.add(member, sha256.as_deref()).map_err(spool)
    }

    fn manifest(&mut self, content: &mut dyn Read) -> Result<(), RecordError> {
        let Some(Lists { manifest, mut sums }) = self.lists.take() else {
            return Err(self.bad("has two lists of its members"));
        };
        let mut list = manifest.finish().map_err(spool)?;
        self.same(content, &mut list.0, MANIFEST)?;
        sums.line(&sum_line(&list.2, MANIFEST.as_bytes())).map_err(spool)?;
        self.manifest = Some(list);
        self.sums = Some(sums.finish().map_err(spool)?);
        Ok(())
    }

    fn sums(&mut self, content: &mut dyn Read) -> Result<(), RecordError> {
        let Some(mut sums) = self.sums.take().filter(|_| self.seal.is_none()) else {
            return Err(self.bad(format!("{SUMS} stands in the wrong place")));
        };
        self.same(content, &mut sums.0, SUMS)?;
        let mut seal = sum_line(&sums.2, SUMS.as_bytes());
        seal.push(b'\n');
        self.seal = Some(seal);
        Ok(())
    }

    /// A list in the record against the one made of what was read.
    fn same(&self, content: &mut dyn Read, list: &mut File, name: &str) -> Result<(), RecordError> {
        list.seek(SeekFrom::Start(0)).map_err(spool)?;
        let changed = || self.bad(format!("was changed after it was written: {name} does not fit what it holds"));
        let (mut said, mut is) = (BufReader::new(content), BufReader::new(list));
        let (mut one, mut other) = ([0; 8192], [0; 8192]);
        loop {
            let got = fill(&mut said, &mut one).map_err(damaged(self.file))?;
            let wanted = fill(&mut is, &mut other).map_err(spool)?;
            if one[..got] != other[..wanted] {
                return Err(changed());
            }
            if got == 0 {
                return Ok(());
            }
        }
    }

    fn seal(&mut self, content: &mut dyn Read) -> Result<(), RecordError> {
        let said = self.few(content)?;
        match &self.seal {
            Some(seal) if *seal == said && self.signature.is_none() => {
                // Only once.
                self.signature = Some(String::new());
                Ok(())
            }
            _ => Err(self.bad(format!("was changed after it was written: {SEAL} does not fit {SUMS}"))),
        }
    }

    fn signature(&mut self, content: &mut dyn Read) -> Result<(), RecordError> {
        if self.signature.as_deref() != Some("") {
            return Err(self.bad(format!("{SIGNATURE} stands in the wrong place")));
        }
        let text = String::from_utf8(self.few(content)?).map_err(|_| self.bad("has an unreadable signature"))?;
        if text.is_empty() {
            return Err(self.bad("has an unreadable signature"));
        }
        self.signature = Some(text);
        Ok(())
    }

    fn few(&self, content: &mut dyn Read) -> Result<Vec<u8>, RecordError> {
        let mut bytes = Vec::new();
        content.take(MAX_SMALL + 1).read_to_end(&mut bytes).map_err(damaged(self.file))?;
        if bytes.len() as u64 > MAX_SMALL { Err(self.bad("has a header that is too long")) } else { Ok(bytes) }
    }

    fn end(self) -> Result<Checked, RecordError> {
        match (self.seal, self.signature) {
            (Some(seal), Some(signature)) => Ok(Checked {
                head: self.head,
                members: self.members,
                bytes: self.bytes,
                seal,
                signature: Some(signature).filter(|text| !text.is_empty()),
            }),
            _ => Err(RecordError::bad(self.file, "is truncated: its checksums are missing")),
        }
    }
}

/// The lists lie in the directory for temporary files meanwhile.
fn spool(source: io::Error) -> RecordError {
    RecordError::write(&std::env::temp_dir(), source)
}

fn fill(from: &mut dyn Read, into: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < into.len() {
        match from.read(&mut into[at..]) {
            Ok(0) => break,
            Ok(got) => at += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}

/// After the archive comes nothing but its padding; reading to the end checks zstd's own checksum, too.
fn ends<R: Read>(file: &Path, mut rest: R) -> Result<(), RecordError> {
    let mut buffer = [0; 8192];
    loop {
        match rest.read(&mut buffer).map_err(damaged(file))? {
            0 => return Ok(()),
            got if buffer[..got].iter().all(|byte| *byte == 0) => {}
            _ => return Err(RecordError::bad(file, "holds something behind its end")),
        }
    }
}
