//! Why capturing stopped.

use std::io;

use super::session::is_lock_timeout;

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

impl CaptureError {
    /// Of rows as they were, which the second session reads.
    pub fn of_rows(self, table: &str) -> Self {
        match self {
            // Up to 13 a partition that leaves is not locked against readers, and its whole, which they look at, is.
            Self::Read { source, .. } if is_lock_timeout(&source) => Self::TwoSteps(format!(
                "the rows of {table} as they were could not be read: a lock that this step, or somebody else, holds keeps readers away"
            )),
            Self::Read { source, .. } => Self::Read { what: table.to_owned(), source },
            other => other,
        }
    }
}

pub fn reading(what: &str) -> impl FnOnce(postgres::Error) -> CaptureError {
    move |source| CaptureError::Read { what: what.to_owned(), source }
}
