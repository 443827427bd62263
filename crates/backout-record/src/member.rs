//! One member of a record: its path, what it is, and everything that is kept of a file beside its content.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With its size in bytes.
    File(u64),
    Directory,
    /// With the text of the link.
    Symlink(Vec<u8>),
    /// Another name of a file that came before, by its path in the record.
    HardLink(Vec<u8>),
}

/// What is kept of a file beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The twelve permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Names and values, access lists and labels among them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Meta {
    /// Of what the tool itself writes: closed to others, nobody's, with the time of the record.
    pub fn own(mode: u32, seconds: i64) -> Self {
        Self { mode, mtime: (seconds, 0), ..Self::default() }
    }
}

/// A member without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Relative, of plain parts joined by `/`; any bytes but NUL.
    pub path: Vec<u8>,
    pub kind: Kind,
    pub meta: Meta,
}

/// Bytes as text: as they are where they are UTF-8, else in hex.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Bytes {
    Text(String),
    Hex(String),
}

impl Bytes {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(hex(bytes)),
        }
    }
}

/// A line of the manifest.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Line<'a> {
    path: Bytes,
    kind: &'static str,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<Bytes>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<(Bytes, String)>,
}

impl Member {
    /// Its line in the manifest, without the line break. `sha256` in hex, of files.
    pub(crate) fn line(&self, sha256: Option<&str>) -> Result<String, serde_json::Error> {
        let (kind, size, link) = match &self.kind {
            Kind::File(size) => ("file", Some(*size), None),
            Kind::Directory => ("directory", None, None),
            Kind::Symlink(target) => ("symlink", None, Some(Bytes::of(target))),
            Kind::HardLink(first) => ("hard-link", None, Some(Bytes::of(first))),
        };
        let Meta { mode, uid, gid, mtime, xattrs } = &self.meta;
        serde_json::to_string(&Line {
            path: Bytes::of(&self.path),
            kind,
            mode: *mode,
            uid: *uid,
            gid: *gid,
            mtime: *mtime,
            size,
            sha256,
            link,
            xattrs: xattrs.iter().map(|(name, value)| (Bytes::of(name), hex(value))).collect(),
        })
    }

    /// True for a path of plain parts: nothing that leaves a directory, no empty part, no NUL.
    pub(crate) fn is_plain(path: &[u8]) -> bool {
        !path.is_empty()
            && !path.contains(&0)
            && path.split(|byte| *byte == b'/').all(|part| !part.is_empty() && part != b"." && part != b"..")
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a string does not fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}
