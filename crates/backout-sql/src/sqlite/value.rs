//! Values of SQLite as bytes in an image, exact to the bit, and as words in a conflict. Never converts one type
//! into another.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use serde::{Deserialize, Serialize};

use super::stream::Damage;

const NULL: u8 = 0;
const INTEGER: u8 = 1;
const REAL: u8 = 2;
const TEXT: u8 = 3;
const BLOB: u8 = 4;

/// Appends an unsigned number, seven bits a byte, the lowest first.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a signed number so that small ones of either sign are short.
pub fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_varint(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// Appends one value: its type, then its bytes.
pub fn put(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => out.push(NULL),
        ValueRef::Integer(number) => {
            out.push(INTEGER);
            put_signed(out, number);
        }
        ValueRef::Real(number) => {
            out.push(REAL);
            out.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        ValueRef::Text(bytes) => {
            out.push(TEXT);
            put_varint(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        ValueRef::Blob(bytes) => {
            out.push(BLOB);
            put_varint(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
    }
}

/// Takes numbers and values off the front of bytes that may be damaged.
pub struct Cursor<'a> {
    pub rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn byte(&mut self) -> Result<u8, Damage> {
        let (first, rest) = self.rest.split_first().ok_or(Damage("a record ends early"))?;
        self.rest = rest;
        Ok(*first)
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Damage> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Damage("a record ends early"))?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64, Damage> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Damage("a number is too long"))
    }

    pub fn signed(&mut self) -> Result<i64, Damage> {
        let number = self.varint()?;
        Ok(((number >> 1) as i64) ^ -((number & 1) as i64))
    }

    pub fn length(&mut self) -> Result<usize, Damage> {
        usize::try_from(self.varint()?).map_err(|_| Damage("a length is too large"))
    }

    pub fn value(&mut self) -> Result<ValueRef<'a>, Damage> {
        Ok(match self.byte()? {
            NULL => ValueRef::Null,
            INTEGER => ValueRef::Integer(self.signed()?),
            REAL => {
                let bytes = self.bytes(8)?.try_into().map_err(|_| Damage("a record ends early"))?;
                ValueRef::Real(f64::from_bits(u64::from_le_bytes(bytes)))
            }
            TEXT => {
                let length = self.length()?;
                ValueRef::Text(self.bytes(length)?)
            }
            BLOB => {
                let length = self.length()?;
                ValueRef::Blob(self.bytes(length)?)
            }
            _ => return Err(Damage("a value has no known type")),
        })
    }
}

/// Whether two values are the same in type and in every bit.
#[inline]
pub fn same(one: ValueRef<'_>, other: ValueRef<'_>) -> bool {
    match (one, other) {
        (ValueRef::Null, ValueRef::Null) => true,
        (ValueRef::Integer(a), ValueRef::Integer(b)) => a == b,
        (ValueRef::Real(a), ValueRef::Real(b)) => a.to_bits() == b.to_bits(),
        (ValueRef::Text(a), ValueRef::Text(b)) | (ValueRef::Blob(a), ValueRef::Blob(b)) => a == b,
        _ => false,
    }
}

/// A value that is kept in JSON, exactly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cell {
    Null,
    Integer(i64),
    /// The eight bytes of the number.
    Real(u64),
    Text(String),
    /// Text that is no UTF-8, which JSON has no other place for.
    RawText(Vec<u8>),
    Blob(Vec<u8>),
}

impl Cell {
    pub fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Cell::Null,
            ValueRef::Integer(number) => Cell::Integer(number),
            ValueRef::Real(number) => Cell::Real(number.to_bits()),
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Cell::Text(text.to_owned()),
                Err(_) => Cell::RawText(bytes.to_owned()),
            },
            ValueRef::Blob(bytes) => Cell::Blob(bytes.to_owned()),
        }
    }

    /// Its text, where it is one that can be read.
    pub fn text(&self) -> Option<&str> {
        match self {
            Cell::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Cell::Null => ValueRef::Null,
            Cell::Integer(number) => ValueRef::Integer(*number),
            Cell::Real(bits) => ValueRef::Real(f64::from_bits(*bits)),
            Cell::Text(text) => ValueRef::Text(text.as_bytes()),
            Cell::RawText(bytes) => ValueRef::Text(bytes),
            Cell::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// A value for a person: shortened, text in quotes, a blob by its length.
pub fn shown(value: ValueRef<'_>) -> String {
    const KEPT: usize = 60;
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text(bytes) => {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * KEPT)]).into_owned();
            let short: String = text.chars().take(KEPT).collect();
            let dots = if short.len() < bytes.len() { "…" } else { "" };
            format!("'{short}{dots}'")
        }
        ValueRef::Blob(bytes) => {
            let hex: String = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!("x'{hex}{}' ({} bytes)", if bytes.len() > 8 { "…" } else { "" }, bytes.len())
        }
    }
}

/// The first eight bytes of a digest, as a number.
pub fn short(digest: &blake3::Hash) -> u64 {
    let mut short = [0; 8];
    short.copy_from_slice(&digest.as_bytes()[..8]);
    u64::from_le_bytes(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back_to_the_bit() {
        let values = [
            ValueRef::Null,
            ValueRef::Integer(0),
            ValueRef::Integer(-1),
            ValueRef::Integer(i64::MIN),
            ValueRef::Integer(i64::MAX),
            ValueRef::Real(-0.0),
            ValueRef::Real(f64::INFINITY),
            ValueRef::Real(0.1),
            ValueRef::Text(b""),
            ValueRef::Text(b"a\0b\xff"),
            ValueRef::Blob(b""),
            ValueRef::Blob(&[0; 300]),
        ];
        let mut bytes = Vec::new();
        values.iter().for_each(|value| put(&mut bytes, *value));
        let mut cursor = Cursor::new(&bytes);
        for value in values {
            let back = cursor.value().unwrap();
            assert!(same(value, back), "{value:?} came back as {back:?}");
        }
        assert!(cursor.rest.is_empty());
    }

    #[test]
    fn values_that_are_merely_equal_are_not_the_same() {
        assert!(!same(ValueRef::Integer(1), ValueRef::Real(1.0)));
        assert!(!same(ValueRef::Real(0.0), ValueRef::Real(-0.0)));
        assert!(!same(ValueRef::Text(b"a"), ValueRef::Blob(b"a")));
        assert!(!same(ValueRef::Text(b"a"), ValueRef::Text(b"A")));
    }

    #[test]
    fn damaged_bytes_are_reported() {
        for bytes in [&[TEXT, 200][..], &[9], &[REAL, 1], &[INTEGER, 0xff], &[BLOB, 5, 1]] {
            assert!(Cursor::new(bytes).value().is_err(), "{bytes:?}");
        }
        assert!(Cursor::new(&[0xff; 11]).varint().is_err());
    }
}
