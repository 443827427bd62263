//! Percent-encoding, for the path in a URL and for names that are not UTF-8.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Undoes percent-encoding; none for a `%` without two hex digits behind it.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        out.push(digit(bytes.next())? * 16 + digit(bytes.next())?);
    }
    Some(out)
}

/// Encodes `%` and all bytes that are not printable ASCII.
pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte != b'%' && (byte.is_ascii_graphic() || byte == b' ') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    out
}

/// A path as text from which it can be made again.
pub fn encode_path(path: &Path) -> String {
    encode(path.as_os_str().as_bytes())
}

/// The path that [`encode_path`] made text of.
pub fn decode_path(text: &str) -> Option<PathBuf> {
    decode(text).map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
}

/// For `#[serde(with = "…")]`: a path of any bytes in a text format.
pub mod path {
    use std::path::{Path, PathBuf};

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::encode_path(path))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::decode_path(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is no encoded path")))
    }
}

/// Encodes all that may mean something else in a URL.
pub fn encode_all(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_goes_through_a_text_format() {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        struct Holder {
            #[serde(with = "path")]
            path: PathBuf,
        }
        let holder = Holder { path: PathBuf::from(OsString::from_vec(b"/srv/\xff%/x".to_vec())) };
        let text = serde_json::to_string(&holder).unwrap();
        assert_eq!(text, r#"{"path":"/srv/%ff%25/x"}"#);
        assert_eq!(serde_json::from_str::<Holder>(&text).unwrap(), holder);
        assert!(serde_json::from_str::<Holder>(r#"{"path":"%f"}"#).is_err());
    }

    #[test]
    fn what_is_encoded_comes_back() {
        let bytes = b"/srv/a b%\xff\n\xc3\xa4";
        assert_eq!(encode(bytes), "/srv/a b%25%ff%0a%c3%a4");
        assert_eq!(decode(&encode(bytes)).as_deref(), Some(&bytes[..]));
        assert_eq!(encode_all("a/b?c@ü%"), "a%2fb%3fc%40%c3%bc%25");
        for bad in ["%", "%a", "%zz", "a%4"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
