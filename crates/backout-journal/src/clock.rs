//! Where the journal's times come from. Never asked by anything but the writer.

use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time; tests pin it.
pub trait Clock: Send {
    /// Milliseconds since 1970 UTC.
    fn now_ms(&self) -> i64;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        // A clock that stands before 1970 is wrong anyway; the journal only needs that time never goes back.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}
