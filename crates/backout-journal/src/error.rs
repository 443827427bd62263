//! Why the journal could not do what it was asked. Never holds payloads or images.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use rusqlite::{ErrorCode, ffi};

use crate::lock::HolderNote;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another process writes this journal.
    #[error("the state directory {} is in use by {}", .state.display(), holder_in_words(.holder.as_deref()))]
    Held {
        state: PathBuf,
        /// What the lock file says; none where it could not be read.
        holder: Option<Box<HolderNote>>,
    },
    #[error("cannot {act}")]
    Io {
        act: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {act}")]
    Database {
        act: String,
        #[source]
        source: rusqlite::Error,
    },
    /// The disk is full, the reserve was given up and it was not enough. Nothing was written.
    #[error("no space left to {act}")]
    NoSpace {
        act: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("{} is of format {found}, written by a newer version; this one knows formats up to {known}", .path.display())]
    NewerFormat { path: PathBuf, found: u64, known: u32 },
    #[error("{} is not a journal: {what}", .path.display())]
    NotAJournal { path: PathBuf, what: String },
    /// The state directory would show people's data to other users.
    #[error("the state directory {} is open to other users (mode {mode:03o}) and holds other things", .state.display())]
    Exposed { state: PathBuf, mode: u32 },
    #[error("the journal is damaged: {what}")]
    Damaged { what: String },
    /// The state table knows no such transition. Nothing was written.
    #[error("{event} is illegal for {object}, which is {from}")]
    Illegal { event: String, object: String, from: String },
    /// The draft lacks what its event needs. Nothing was written.
    #[error("cannot journal {event}: {what}")]
    Draft { event: String, what: String },
    #[error("entry {seq} has no images")]
    NoImages { seq: u64 },
    #[error("the images of entry {seq} were given up by entry {by}")]
    ImagesDropped { seq: u64, by: u64 },
    #[error("the images of entry {seq} are damaged: {what}")]
    ImagesDamaged { seq: u64, what: String },
    /// It was not made from records, or has something else in that place: nothing is put into it.
    #[error("the state directory {} has another history", .state.display())]
    OtherHistory { state: PathBuf },
    /// Somebody wrote the journal without its lock; nothing more is written by this process.
    #[error("the journal was changed by another program: {what}")]
    Diverged { what: String },
}

impl JournalError {
    /// True where freeing space on the disk of the state directory may help.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Io { source, .. } => is_full(source),
            Self::Database { source, .. } => source.sqlite_error_code() == Some(ErrorCode::DiskFull),
            _ => false,
        }
    }

    pub(crate) fn io(act: impl Into<String>, source: io::Error) -> Self {
        let act = act.into();
        if is_full(&source) { Self::NoSpace { act, source: source.into() } } else { Self::Io { act, source } }
    }

    pub(crate) fn database(act: impl Into<String>, source: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        let act = act.into();
        match (source.sqlite_error_code(), &source) {
            // On a full disk the log's index cannot grow: SQLite says so with a code of its own.
            (Some(ErrorCode::DiskFull), _)
            | (_, E::SqliteFailure(ffi::Error { extended_code: ffi::SQLITE_IOERR_SHMSIZE, .. }, _)) => {
                Self::NoSpace { act, source: source.into() }
            }
            // A page that no page should be like, one that is not there, or a value of a type that was never written.
            (Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase), _)
            | (_, E::SqliteFailure(ffi::Error { extended_code: ffi::SQLITE_IOERR_SHORT_READ, .. }, _))
            | (
                _,
                E::FromSqlConversionFailure(..)
                | E::InvalidColumnType(..)
                | E::IntegralValueOutOfRange(..)
                | E::Utf8Error(..),
            ) => Self::Damaged { what: format!("cannot {act}: {source}") },
            _ => Self::Database { act, source },
        }
    }
}

/// A full disk or a quota used up.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn holder_in_words(holder: Option<&HolderNote>) -> String {
    match holder {
        Some(note) if note.purpose.is_empty() => format!("process {} on {}", note.pid, note.host),
        Some(note) => format!("process {} on {} ({})", note.pid, note.host, note.purpose),
        None => "another process".to_owned(),
    }
}
