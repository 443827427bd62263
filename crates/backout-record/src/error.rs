//! What can be wrong with a record, or with writing one.

use std::io;
use std::path::{Path, PathBuf};

/// Why a record can't be read or written. Nothing was changed on a site when one of these comes up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It is damaged, tampered with, or not what it says.
    #[error("{}: {what}", file.display())]
    Bad { file: PathBuf, what: String },
    /// It cannot be signed.
    #[error("cannot sign the record")]
    Sign(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl RecordError {
    /// True where the input is at fault (exit status 2), false where this machine is (exit status 4).
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Write { .. })
    }

    /// The way out in words, where there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Bad { .. } => Some("take another copy of the record, or write it anew with `backout record`"),
            Self::Sign(_) | Self::Read { .. } | Self::Write { .. } => None,
        }
    }

    pub fn bad(file: &Path, what: impl Into<String>) -> Self {
        Self::Bad { file: file.to_owned(), what: what.into() }
    }

    pub fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }
}
