//! Points in time, in words.

use jiff::Timestamp;

/// `at 2026-11-26 12:00:05 UTC`, from milliseconds since 1970 UTC.
pub(crate) fn at(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(_) => format!("at {}", on(ms)),
        Err(_) => "never".to_owned(),
    }
}

/// `2026-11-26 12:00:05 UTC`.
pub(crate) fn on(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap_or_default().strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `2026.11.26-120005`, as a version.
pub(crate) fn stamp(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap_or_default().strftime("%Y.%m.%d-%H%M%S").to_string()
}
