//! From a failed system call to an error that names the act and the object.
//!
//! Never decides what to do about an error.

use std::io;

use backout_model::target::{Refusal, TargetError};

/// Says what was being done when a call failed.
pub trait Acting<T> {
    /// `act` is the act and the object: `cannot open css/site.css`.
    fn acting(self, act: impl FnOnce() -> String) -> Result<T, TargetError>;
}

impl<T, E: Into<io::Error>> Acting<T> for Result<T, E> {
    fn acting(self, act: impl FnOnce() -> String) -> Result<T, TargetError> {
        self.map_err(|error| TargetError::failed(act(), error.into()))
    }
}

/// A refusal with one way out.
pub fn refused(
    place: impl Into<String>,
    what: impl Into<String>,
    why: impl Into<String>,
    way: impl Into<String>,
) -> TargetError {
    TargetError::Refused(Refusal {
        place: place.into(),
        what: what.into(),
        why: why.into(),
        ways_out: vec![way.into()],
    })
}
