//! Why capturing stopped.

use std::io;

/// Why capturing stopped.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("the images cannot be written")]
    Write(#[from] io::Error),
    #[error("cannot read {what}")]
    Read { what: String, source: postgres::Error },
    #[error("a deferred constraint does not hold")]
    Deferred(#[source] postgres::Error),
    /// What was changed has no proven undo.
    #[error("{0}")]
    Uncapturable(String),
    /// What was changed could be captured in a step of its own.
    #[error("{0}")]
    TwoSteps(String),
}

pub fn reading(what: &str) -> impl FnOnce(postgres::Error) -> CaptureError {
    move |source| CaptureError::Read { what: what.to_owned(), source }
}
