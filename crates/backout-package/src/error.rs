//! What can be wrong with a package, a site or a bundle, with the place of it and the way out.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A place in a file that a person wrote: `package.yaml:12:3`. Line and column count from 1, in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: PathBuf,
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// Why a package, a site or a bundle can't be used. Nothing was started when one of these comes up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// What a person wrote is wrong, and where.
    #[error("{place}: {what}")]
    Wrong { place: Place, what: String, hint: Option<String> },
    /// A file or directory that was named is not usable as a whole.
    #[error("{}: {what}", path.display())]
    Unusable { path: PathBuf, what: String, hint: Option<String> },
    /// A bundle is damaged, tampered with, or not what it says.
    #[error("{}: {what}", file.display())]
    Bundle { file: PathBuf, what: String },
    /// Something that was there can't be read.
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A copy, a bundle or an extracted file can't be written: a full disk, missing permission.
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl PackageError {
    /// The way out in words, where there is one.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Wrong { hint, .. } | Self::Unusable { hint, .. } => hint.as_deref(),
            Self::Bundle { .. } => Some("get the bundle again from where it was made, or pack it anew"),
            Self::Read { .. } | Self::Write { .. } => None,
        }
    }

    /// True where the input is at fault (exit status 2), false where this machine is (exit status 4).
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Write { .. })
    }

    /// The place in the file, where the error has one.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Wrong { place, .. } => Some(place),
            _ => None,
        }
    }

    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }

    pub(crate) fn unusable(path: &Path, what: impl Into<String>) -> Self {
        Self::Unusable { path: path.to_owned(), what: what.into(), hint: None }
    }

    pub(crate) fn bundle(file: &Path, what: impl Into<String>) -> Self {
        Self::Bundle { file: file.to_owned(), what: what.into() }
    }
}
