//! Points in time, in words.

use jiff::Timestamp;

/// `at 2026-11-26 12:00:05 UTC`, from milliseconds since 1970 UTC.
pub(crate) fn at(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => format!("at {}", time.strftime("%Y-%m-%d %H:%M:%S UTC")),
        Err(_) => "never".to_owned(),
    }
}
