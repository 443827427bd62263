//! Paths beneath a root, as bytes, and how they are shown and stored.
//!
//! Never touches a file system: what a path leads to is for `beneath`.

use std::fmt;

use backout_model::target::Refusal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest path beneath a root, in bytes: with the NUL it must fit Linux's `PATH_MAX`.
const LONGEST: usize = 4000;

/// A path relative to a root: components joined by `/`, none of them empty, `.` or `..`. The empty path is the root.
/// Bytes, because a name on Linux need not be UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootPath(Vec<u8>);

impl RootPath {
    /// The root itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// Reads what a user wrote; `place` names where. One trailing `/` must be taken off before.
    pub fn parse(text: &str, place: &str) -> Result<Self, Refusal> {
        Self::from_bytes(text.as_bytes()).map_err(|why| Refusal {
            place: place.to_owned(),
            what: escape(text.as_bytes()),
            why: why.to_owned(),
            ways_out: vec!["write a path relative to the root, without `.`, `..` or doubled slashes".to_owned()],
        })
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.is_empty() {
            return Err("it names the root itself");
        }
        if bytes[0] == b'/' {
            return Err("it is absolute");
        }
        if bytes.contains(&0) {
            return Err("it holds a NUL byte");
        }
        if bytes.len() > LONGEST {
            return Err("it is longer than Linux allows");
        }
        for part in bytes.split(|byte| *byte == b'/') {
            match part {
                b"" => return Err("it holds an empty component"),
                b"." => return Err("it holds the component `.`"),
                b".." => return Err("it leads out of its directory by `..`"),
                _ if part.len() > 255 => return Err("one of its names is longer than 255 bytes"),
                _ => {}
            }
        }
        Ok(Self(bytes.to_vec()))
    }

    /// The path of `name` in this directory. `name` comes from a directory listing.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        if self.0.is_empty() {
            return Self(name.to_vec());
        }
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Self(bytes)
    }

    /// The directory that holds this path; of the root, the root.
    pub fn parent(&self) -> Self {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => Self(self.0[..slash].to_vec()),
            None => Self::root(),
        }
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => &self.0[slash + 1..],
            None => &self.0,
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// True where Linux could not take the path in one call.
    pub fn is_too_long(&self) -> bool {
        self.0.len() > LONGEST
    }

    /// The path as seen from the directory `above`; none where it does not lie beneath it.
    pub fn beneath(&self, above: &RootPath) -> Option<RootPath> {
        if above.is_root() {
            return Some(self.clone());
        }
        Some(Self(self.0.strip_prefix(above.0.as_slice())?.strip_prefix(b"/")?.to_vec()))
    }

    /// True for the path itself and for every path beneath it.
    pub fn contains(&self, other: &RootPath) -> bool {
        self.is_root() || self == other || other.0.strip_prefix(self.0.as_slice()).is_some_and(|rest| rest[0] == b'/')
    }
}

impl fmt::Display for RootPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str(".") } else { f.write_str(&escape(&self.0)) }
    }
}

impl Serialize for RootPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&escape(&self.0))
    }
}

impl<'de> Deserialize<'de> for RootPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self::root());
        }
        let bytes = unescape(&text).ok_or_else(|| serde::de::Error::custom("not an escaped path"))?;
        // What is read back is checked like what a user wrote: a forged image must not lead out of the root.
        Self::from_bytes(&bytes).map_err(serde::de::Error::custom)
    }
}

/// Shows bytes as text that can be turned back: valid UTF-8 as it is, but for control characters, a backslash, and
/// bytes that are no UTF-8, which become `\xNN`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter == '\\' || letter.is_control() {
                let mut buffer = [0; 4];
                for byte in letter.encode_utf8(&mut buffer).bytes() {
                    text.push_str(&format!("\\x{byte:02x}"));
                }
            } else {
                text.push(letter);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// The bytes that [`escape`] showed.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'\\' {
            let [b'x', high, low, tail @ ..] = tail else { return None };
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
            bytes.push(digit(*high)? << 4 | digit(*low)?);
            rest = tail;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_come_back_from_their_escaped_form() {
        for bytes in [&b"a/b"[..], b"caf\xc3\xa9", b"caf\xe9\xff", b"back\\slash\nline", b"\\x41", "\u{85}".as_bytes()]
        {
            let text = escape(bytes);
            assert!(!text.chars().any(char::is_control), "{text}");
            assert_eq!(unescape(&text).as_deref(), Some(bytes));
        }
        assert_eq!(unescape("\\"), None);
        assert_eq!(unescape("\\xg0"), None);
    }

    #[test]
    fn a_path_that_leaves_the_root_is_refused() {
        for bad in ["", "/", "/etc/passwd", "..", "a/../b", "a/..", "./a", "a//b", "a/", "a\0b", "."] {
            assert!(RootPath::parse(bad, "step").is_err(), "{bad:?}");
        }
        assert!(RootPath::parse(&"n".repeat(256), "step").is_err());
        assert!(RootPath::parse("a/..b/c..", "step").is_ok());
        assert!(serde_json::from_str::<RootPath>("\"a/../../b\"").is_err(), "a forged image");
    }

    #[test]
    fn a_path_contains_what_is_beneath_it_only() {
        let path = |text: &str| RootPath::parse(text, "").unwrap();
        assert!(path("a/b").contains(&path("a/b/c")));
        assert!(path("a/b").contains(&path("a/b")));
        assert!(!path("a/b").contains(&path("a/bc")));
        assert_eq!(path("a/b/c").parent(), path("a/b"));
        assert_eq!(path("a").parent(), RootPath::root());
        assert_eq!(path("a/b/c").name(), b"c");
    }
}
