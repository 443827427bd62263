//! Why a command could not be carried out at all. What ran and failed is an [`Outcome`](crate::outcome::Outcome).

use backout_journal::JournalError;
use backout_model::backup::BackupError;
use backout_model::target::{Refusal, TargetError};
use backout_model::words;
use backout_package::error::PackageError;
use backout_record::error::RecordError;
use backout_sql::database::LockError;

use crate::outcome::Status;

/// Nothing was changed on the site, unless [`EngineError::status`] is [`Status::NeedsHand`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("cannot lock the site")]
    Lock(#[source] LockError),
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A backup could not be taken, read or restored.
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("{} refused", words::count(.0.len() as u64, "change"))]
    Refused(Vec<Refusal>),
    /// The command line names something that does not exist or does not fit.
    #[error("{what}")]
    Usage { what: String, hint: Option<String> },
    /// Refused for a reason of the site's state; nothing was changed.
    #[error("{what}")]
    NotNow { what: String, hint: Option<String> },
    /// The journal says something that cannot be.
    #[error("the journal cannot be understood: {0}")]
    History(String),
    /// It ended without a word in the journal on its end after changes had begun: `resume` settles it.
    #[error("the run stopped while changes were under way")]
    Stopped(#[source] Box<EngineError>),
    /// A restore ended after it had begun: another one begins anew.
    #[error("the restore stopped while changes were under way")]
    RestoreStopped {
        /// The beginning of the backup's id.
        backup: String,
        #[source]
        source: Box<EngineError>,
    },
    #[error("{act}")]
    Io {
        act: String,
        #[source]
        source: std::io::Error,
    },
}

impl EngineError {
    pub fn usage(what: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), hint: None }
    }

    pub fn not_now(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::NotNow { what: what.into(), hint: Some(hint.into()) }
    }

    /// The same where changes were under way when it came: nobody may be told that nothing was changed.
    #[must_use]
    pub fn under_way(self) -> Self {
        match self {
            Self::Stopped(_) => self,
            other => Self::Stopped(Box::new(other)),
        }
    }

    /// The same of a restore.
    #[must_use]
    pub fn restoring(self, backup: &str) -> Self {
        Self::RestoreStopped { backup: backup.to_owned(), source: Box::new(self) }
    }

    /// True where trying again cannot help.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Target(TargetError::Conflicts(_) | TargetError::LockLost(_))
            | Self::Usage { .. }
            | Self::NotNow { .. }
            | Self::History(_) => true,
            Self::Package(_)
            | Self::Record(_)
            | Self::Journal(_)
            | Self::Lock(_)
            | Self::Target(_)
            | Self::Backup(_)
            | Self::Refused(_)
            | Self::Stopped(_)
            | Self::RestoreStopped { .. }
            | Self::Io { .. } => false,
        }
    }

    pub fn status(&self) -> Status {
        match self {
            Self::Package(error) if error.is_usage() => Status::Usage,
            Self::Record(error) if error.is_usage() => Status::Usage,
            Self::Usage { .. } => Status::Usage,
            Self::Package(_)
            | Self::Record(_)
            | Self::Journal(_)
            | Self::Lock(_)
            | Self::Target(_)
            | Self::Backup(_)
            | Self::Refused(_)
            | Self::NotNow { .. }
            | Self::History(_)
            | Self::Io { .. } => Status::Refused,
            Self::Stopped(_) | Self::RestoreStopped { .. } => Status::NeedsHand,
        }
    }

    /// What the operator can do; one sentence each.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Usage { hint, .. } | Self::NotNow { hint, .. } | Self::Backup(BackupError { hint, .. }) => {
                hint.iter().cloned().collect()
            }
            Self::Record(error) => error.hint().map(str::to_owned).into_iter().collect(),
            Self::Lock(LockError::Held { unprovable: true, .. }) => {
                vec!["if that process is certainly gone, `backout unlock` takes the lock over".to_owned()]
            }
            Self::Lock(LockError::Held { .. }) => vec!["wait until it is done, then try again".to_owned()],
            Self::Refused(refusals) => {
                let mut ways: Vec<String> = refusals.iter().flat_map(|refusal| refusal.ways_out.clone()).collect();
                ways.sort();
                ways.dedup();
                ways
            }
            Self::Target(TargetError::Refused(refusal)) => refusal.ways_out.clone(),
            Self::RestoreStopped { backup, source } => {
                let again = format!("`backout restore {backup}` again: it begins anew; or restore another backup");
                source.hints().into_iter().chain([again]).collect()
            }
            Self::Stopped(_) => vec!["backout resume".to_owned()],
            _ => Vec::new(),
        }
    }

    /// This error and what caused it, outermost first.
    pub fn causes(&self) -> Vec<String> {
        causes(self)
    }
}

/// An error and its sources as lines, outermost first, without repeating a line.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    let mut lines = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let line = error.to_string();
        if lines.last() != Some(&line) {
            lines.push(line);
        }
        next = error.source();
    }
    lines
}
