//! Whether a value survives its way into a column of another type: SQLite makes 7 of '007' where the column takes
//! numbers, and says nothing ("Datatypes In SQLite", section 3).

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::carry::Bound;
use super::stream::Affinity;

/// The largest integer up to which a real number tells all of them apart.
const EXACT: i64 = 1 << 53;

/// True where a column of the affinity `into` keeps a value of a column of the affinity `from`, or makes another of it from
/// which that one makes the same again.
pub fn survives(conn: &Connection, from: Affinity, into: Affinity, value: ValueRef<'_>) -> rusqlite::Result<bool> {
    let through = match (into, value) {
        // One that takes values as they come makes nothing again.
        (Affinity::Text, ValueRef::Integer(_) | ValueRef::Real(_)) => return Ok(from != Affinity::Blob),
        (Affinity::Real, ValueRef::Integer(number)) => {
            return Ok(from != Affinity::Blob && (-EXACT..=EXACT).contains(&number));
        }
        (Affinity::Integer | Affinity::Numeric, ValueRef::Real(number)) if from == Affinity::Blob => {
            return Ok(number.fract() != 0.0);
        }
        (Affinity::Integer | Affinity::Real | Affinity::Numeric, ValueRef::Text(text)) if is_like_a_number(text) => {
            if from != Affinity::Text {
                return Ok(false);
            }
            if into == Affinity::Real { "REAL" } else { "NUMERIC" }
        }
        _ => return Ok(true),
    };
    conn.prepare_cached(&format!("SELECT CAST(CAST(?1 AS {through}) AS TEXT) IS ?1"))?
        .query_row([Bound(value)], |row| row.get(0))
}

/// As SQLite sees a text: a number, perhaps with spaces around it, and no hexadecimal one.
fn is_like_a_number(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    let is_plain = text.iter().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte));
    is_plain && std::str::from_utf8(text).is_ok_and(|text| text.parse::<f64>().is_ok())
}
