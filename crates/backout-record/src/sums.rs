//! The lists at the end of a record, kept on disk while its members pass, so that memory stays bounded whatever
//! their number: the manifest of all members, and the SHA-256 of all files as `sha256sum` writes them.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use sha2::{Digest as _, Sha256};

use crate::member::{Member, hex};

/// A list while it grows.
pub(crate) struct List {
    out: BufWriter<File>,
    bytes: u64,
    hasher: Sha256,
}

impl List {
    pub fn new() -> io::Result<Self> {
        Ok(Self { out: BufWriter::new(tempfile::tempfile()?), bytes: 0, hasher: Sha256::new() })
    }

    pub fn line(&mut self, text: &[u8]) -> io::Result<()> {
        for part in [text, b"\n"] {
            self.out.write_all(part)?;
            self.hasher.update(part);
            self.bytes += part.len() as u64;
        }
        Ok(())
    }

    /// The whole list, to be read from its beginning, its length, and its SHA-256 in hex.
    pub fn finish(self) -> io::Result<(File, u64, String)> {
        let mut file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        Ok((file, self.bytes, hex(&self.hasher.finalize())))
    }
}

/// Both lists of a record.
pub(crate) struct Lists {
    pub manifest: List,
    pub sums: List,
}

impl Lists {
    pub fn new() -> io::Result<Self> {
        Ok(Self { manifest: List::new()?, sums: List::new()? })
    }

    /// Notes a member; `sha256` of a file.
    pub fn add(&mut self, member: &Member, sha256: Option<&str>) -> io::Result<()> {
        self.manifest.line(member.line(sha256)?.as_bytes())?;
        match sha256 {
            Some(sha256) => self.sums.line(&sum_line(sha256, &member.path)),
            None => Ok(()),
        }
    }
}

/// A line as `sha256sum` writes it: a name with a line break or a backslash is escaped, and the line begins with `\`.
pub(crate) fn sum_line(sha256: &str, path: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(path.len() + 68);
    if path.iter().any(|byte| matches!(byte, b'\\' | b'\n' | b'\r')) {
        line.push(b'\\');
    }
    line.extend_from_slice(sha256.as_bytes());
    line.extend_from_slice(b"  ");
    for byte in path {
        match byte {
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(*byte),
        }
    }
    line
}

/// Hashes what is read through it.
pub(crate) struct Hashing<R> {
    pub from: R,
    hasher: Sha256,
    pub bytes: u64,
}

impl<R: Read> Hashing<R> {
    pub fn new(from: R) -> Self {
        Self { from, hasher: Sha256::new(), bytes: 0 }
    }

    /// The SHA-256 of what was read, in hex.
    pub fn sha256(self) -> String {
        hex(&self.hasher.finalize())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let got = self.from.read(into)?;
        self.hasher.update(&into[..got]);
        self.bytes += got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_sha256sum_does() {
        assert_eq!(sum_line("ab", b"a b"), b"ab  a b");
        assert_eq!(sum_line("ab", b"a\n\\"), b"\\ab  a\\n\\\\");
    }
}
