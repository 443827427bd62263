//! Entries and images as they lie in the database and in files. Reads and checks; never writes.

use std::fs::File;
use std::io::{self, Cursor};
use std::os::unix::fs::OpenOptionsExt;

use backout_model::entry::{Digest, ENTRY_VERSION, Entry, ImagesRef};
use backout_model::target::Images;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::error::JournalError;
use crate::layout::Layout;
use crate::row::sql_seq;

/// An entry as it lies in its table.
pub(crate) struct StoredEntry {
    pub seq: i64,
    pub deployment: Option<String>,
    pub body: Vec<u8>,
    pub digest: Vec<u8>,
}

pub(crate) const ENTRY_COLUMNS: &str = "seq, deployment, body, digest";

impl StoredEntry {
    pub(crate) fn from_sql(row: &Row<'_>) -> rusqlite::Result<Self> {
        // As bytes, whatever a damaged page makes of the type or the encoding: the digest judges them.
        let bytes = |column| row.get_ref(column).map(bytes_of);
        Ok(Self {
            seq: row.get(0)?,
            deployment: match row.get_ref(1)? {
                ValueRef::Null => None,
                other => Some(String::from_utf8_lossy(&bytes_of(other)).into_owned()),
            },
            body: bytes(2)?,
            digest: bytes(3)?,
        })
    }

    /// The entry, where body, digest and columns agree.
    pub(crate) fn check(&self) -> Result<Entry, JournalError> {
        let damaged = |what: &str| JournalError::Damaged { what: format!("entry {}: {what}", self.seq) };
        if digest_of(&self.body).0.as_slice() != self.digest {
            return Err(damaged("its text does not have its digest"));
        }
        let entry: Entry = serde_json::from_slice(&self.body).map_err(|e| damaged(&e.to_string()))?;
        if i64::try_from(entry.seq) != Ok(self.seq) {
            return Err(damaged(&format!("it says that its number is {}", entry.seq)));
        }
        if entry.deployment.as_ref().map(|id| id.as_str()) != self.deployment.as_deref() {
            return Err(damaged("it is listed under another deployment than it says"));
        }
        Ok(entry)
    }
}

fn bytes_of(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
        ValueRef::Null => Vec::new(),
        ValueRef::Integer(number) => number.to_string().into_bytes(),
        ValueRef::Real(number) => number.to_string().into_bytes(),
    }
}

/// The digest of an entry from its canonical JSON: the same as [`Entry::digest`] gives.
pub(crate) fn digest_of(body: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&ENTRY_VERSION.to_le_bytes());
    hasher.update(body);
    Digest(*hasher.finalize().as_bytes())
}

/// The number and digest of the last entry; (0, zero) in an empty journal.
pub(crate) fn head(connection: &Connection) -> Result<(u64, Digest), JournalError> {
    let act = "read the last entry of the journal";
    let found: Option<(i64, Vec<u8>)> = connection
        .query_row("SELECT seq, digest FROM entry ORDER BY seq DESC LIMIT 1", [], |row| {
            Ok((row.get(0)?, row.get_ref(1).map(bytes_of)?))
        })
        .optional()
        .map_err(|e| JournalError::database(act, e))?;
    let Some((seq, digest)) = found else {
        return Ok((0, Digest::ZERO));
    };
    let damaged = || JournalError::Damaged { what: format!("the last entry ({seq}) has no proper digest") };
    let digest = <[u8; 32]>::try_from(digest.as_slice()).map_err(|_| damaged())?;
    Ok((u64::try_from(seq).map_err(|_| damaged())?, Digest(digest)))
}

/// One entry by its number, checked.
pub(crate) fn entry(connection: &Connection, seq: u64) -> Result<Option<Entry>, JournalError> {
    connection
        .query_row(&format!("SELECT {ENTRY_COLUMNS} FROM entry WHERE seq = ?1"), [sql_seq(seq)], StoredEntry::from_sql)
        .optional()
        .map_err(|e| JournalError::database(format!("read entry {seq}"), e))?
        .map(|stored| stored.check())
        .transpose()
}

/// Where the images of an entry lie.
pub(crate) enum Place {
    Content(Vec<u8>),
    File(String),
    Dropped { by: u64 },
    Nowhere,
}

pub(crate) fn place(connection: &Connection, seq: u64) -> Result<Place, JournalError> {
    let failed = |e| JournalError::database(format!("find the images of entry {seq}"), e);
    let found = connection
        .query_row("SELECT content, file FROM image WHERE seq = ?1", [sql_seq(seq)], |row| {
            Ok(match row.get_ref(1)? {
                ValueRef::Null => Place::Content(row.get_ref(0).map(bytes_of)?),
                file => Place::File(String::from_utf8_lossy(&bytes_of(file)).into_owned()),
            })
        })
        .optional()
        .map_err(failed)?;
    if let Some(place) = found {
        return Ok(place);
    }
    let by: Option<i64> = connection
        .query_row("SELECT by_seq FROM dropped WHERE seq = ?1", [sql_seq(seq)], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    Ok(by.map_or(Place::Nowhere, |by| Place::Dropped { by: u64::try_from(by).unwrap_or(0) }))
}

/// Opens the images that `expected` speaks of. The length is checked; the digest, too, where they lie in the journal
/// itself and so are in memory anyway.
pub(crate) fn open(
    connection: &Connection,
    layout: &Layout,
    seq: u64,
    expected: &ImagesRef,
) -> Result<Box<dyn Images>, JournalError> {
    let damaged = |what: String| JournalError::ImagesDamaged { seq, what };
    match place(connection, seq)? {
        Place::Content(content) => {
            if content.len() as u64 != expected.bytes {
                return Err(damaged(format!("{} bytes instead of {}", content.len(), expected.bytes)));
            }
            if blake3::hash(&content).as_bytes() != &expected.digest.0 {
                return Err(damaged("they do not have their digest".to_owned()));
            }
            Ok(Box::new(Cursor::new(content)))
        }
        Place::File(name) => {
            let file = open_file(layout, &name).map_err(|e| damaged(format!("{name}: {e}")))?;
            let found = file.metadata().map_err(|e| damaged(format!("{name}: {e}")))?.len();
            if found != expected.bytes {
                return Err(damaged(format!("{name}: {found} bytes instead of {}", expected.bytes)));
            }
            Ok(Box::new(file))
        }
        Place::Dropped { by } => Err(JournalError::ImagesDropped { seq, by }),
        Place::Nowhere => Err(damaged("they are missing".to_owned())),
    }
}

/// Reads the images through and compares length and digest.
pub(crate) fn check(images: &mut dyn Images, seq: u64, expected: &ImagesRef) -> Result<(), JournalError> {
    let damaged = |what: String| JournalError::ImagesDamaged { seq, what };
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; 256 * 1024];
    let mut bytes = 0u64;
    loop {
        match images.read(&mut block) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&block[..count]);
                bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(damaged(error.to_string())),
        }
    }
    if bytes != expected.bytes {
        return Err(damaged(format!("{bytes} bytes instead of {}", expected.bytes)));
    }
    if hasher.finalize().as_bytes() != &expected.digest.0 {
        return Err(damaged("they do not have their digest".to_owned()));
    }
    Ok(())
}

/// Opens a file of images by the name that the journal holds; a damaged name must not lead elsewhere.
fn open_file(layout: &Layout, name: &str) -> io::Result<File> {
    if !is_file_name(name) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a name of a file of images"));
    }
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(no_follow).open(layout.images().join(name))?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// A plain file name, so that joining it stays in the directory of images.
pub(crate) fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        && !name.starts_with('.')
}
