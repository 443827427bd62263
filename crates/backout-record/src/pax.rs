//! Extended headers of a tar archive (pax): what a plain header has no room for. Names and links of any length and any
//! bytes, nanoseconds, extended attributes.

use std::io;

use backout_model::stamp;

use crate::member::{Kind, Member, Meta};

/// How GNU tar and bsdtar call extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";
/// What a name or link fits in.
const ROOM: usize = 100;

/// The records of a member; empty where a plain header is enough.
pub(crate) fn records(member: &Member) -> Vec<u8> {
    let mut out = Vec::new();
    let link = match &member.kind {
        Kind::Symlink(link) | Kind::HardLink(link) => link.as_slice(),
        Kind::File(_) | Kind::Directory => b"",
    };
    let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    if !is_text(&member.path) || !is_text(link) {
        record(&mut out, b"hdrcharset", b"BINARY");
    }
    if !fits(&member.path) {
        record(&mut out, b"path", &member.path);
    }
    if !fits(link) {
        record(&mut out, b"linkpath", link);
    }
    let (seconds, ns) = member.meta.mtime;
    if ns != 0 || seconds < 0 {
        record(&mut out, b"mtime", stamp::written(seconds, ns).as_bytes());
    }
    for (name, value) in &member.meta.xattrs {
        record(&mut out, &[XATTR, name].concat(), value);
    }
    out
}

pub(crate) fn fits(name: &[u8]) -> bool {
    name.len() <= ROOM && name.is_ascii()
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The first record: its key, its value, and what follows. By its length, since a value may hold line breaks.
fn first(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

/// What an extended header says of the member that follows.
#[derive(Default)]
pub(crate) struct Ahead {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Ahead {
    /// Reads the records; an error for what records of this tool don't have.
    pub fn read(bytes: &[u8]) -> io::Result<Self> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut ahead = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (key, value);
            (key, value, rest) = first(rest).ok_or_else(|| bad("an extended header that does not hold together"))?;
            match key {
                b"path" => ahead.path = Some(value.to_vec()),
                b"linkpath" => ahead.link = Some(value.to_vec()),
                b"hdrcharset" => {}
                b"mtime" => {
                    let read = std::str::from_utf8(value).ok().and_then(stamp::read);
                    ahead.mtime = Some(read.ok_or_else(|| bad("an unreadable time"))?);
                }
                key => match key.strip_prefix(XATTR) {
                    Some(name) if !name.is_empty() && !name.contains(&0) => {
                        ahead.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                    _ => return Err(bad("an extended header that records don't have")),
                },
            }
        }
        Ok(ahead)
    }

    /// The metadata of the member, with the plain header's part of it.
    pub fn meta(self, head: &tar::Header) -> io::Result<Meta> {
        let number = |value: u64| u32::try_from(value).map_err(|_| io::Error::other("a number is too large"));
        let mtime = match self.mtime {
            Some(mtime) => mtime,
            None => (i64::try_from(head.mtime()?).map_err(|_| io::Error::other("a time is too late"))?, 0),
        };
        Ok(Meta {
            mode: head.mode()? & 0o7777,
            uid: number(head.uid()?)?,
            gid: number(head.gid()?)?,
            mtime,
            xattrs: self.xattrs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for length in [1, 5, 80, 85, 86, 87, 88, 980, 990, 991, 992, 993] {
            let mut out = Vec::new();
            record(&mut out, b"path", &vec![b'x'; length]);
            let said: usize = std::str::from_utf8(&out).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, out.len());
        }
    }

    #[test]
    fn everything_comes_back() {
        let member = Member {
            path: [b"files/".as_slice(), &[0xff; 200]].concat(),
            kind: Kind::Symlink(b"/away/\xfe".to_vec()),
            meta: Meta {
                mtime: (-2, 750_000_000),
                xattrs: vec![(b"user.a".into(), b"\0\n=".into())],
                ..Meta::default()
            },
        };
        let ahead = Ahead::read(&records(&member)).unwrap();
        assert_eq!(ahead.path.as_deref(), Some(member.path.as_slice()));
        assert_eq!(ahead.link.as_deref(), Some(b"/away/\xfe".as_slice()));
        assert_eq!(ahead.mtime, Some(member.meta.mtime));
        assert_eq!(ahead.xattrs, member.meta.xattrs);
    }
}
