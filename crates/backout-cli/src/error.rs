//! Why a command of the binary could not be carried out, with its exit status and the ways out.

use std::io;
use std::path::Path;

use backout_engine::error::{EngineError, causes};
use backout_engine::outcome::{NOTHING_CHANGED, Status};
use backout_journal::JournalError;
use backout_model::backup::BackupError;
use backout_model::target::{Refusal, TargetError};
use backout_package::error::PackageError;
use backout_record::error::RecordError;
use backout_sql::database::LockError;

/// Nothing was changed on the site, unless [`CliError::status`] is [`Status::NeedsHand`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The command line, or a file of the user, is wrong.
    #[error("{what}")]
    Usage { what: String, hints: Vec<String> },
    /// The site or the machine is not as it must be.
    #[error("{what}")]
    Refused { what: String, hints: Vec<String> },
    /// Another error with more to say about the ways out.
    #[error("{error}")]
    Hinted {
        #[source]
        error: Box<CliError>,
        hints: Vec<String>,
    },
    #[error("cannot {act}")]
    Io {
        act: String,
        #[source]
        source: io::Error,
    },
}

impl From<BackupError> for CliError {
    fn from(error: BackupError) -> Self {
        Self::Engine(error.into())
    }
}

impl CliError {
    pub fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), hints: vec![hint.into()] }
    }

    pub fn refused(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), hints: vec![hint.into()] }
    }

    pub fn io(act: impl Into<String>, source: io::Error) -> Self {
        Self::Io { act: act.into(), source }
    }

    pub fn read(path: &Path, source: io::Error) -> Self {
        Self::io(format!("read {}", path.display()), source)
    }

    pub fn write(path: &Path, source: io::Error) -> Self {
        Self::io(format!("write {}", path.display()), source)
    }

    pub fn status(&self) -> Status {
        match self {
            Self::Package(error) | Self::Engine(EngineError::Package(error)) => {
                if error.is_usage() {
                    Status::Usage
                } else {
                    Status::Refused
                }
            }
            Self::Record(error) if error.is_usage() => Status::Usage,
            Self::Engine(error) => error.status(),
            Self::Hinted { error, .. } => error.status(),
            Self::Usage { .. } => Status::Usage,
            Self::Record(_) | Self::Journal(_) | Self::Target(_) | Self::Refused { .. } | Self::Io { .. } => {
                Status::Refused
            }
        }
    }

    /// The error and what caused it, outermost first. What was refused is listed in full.
    pub fn causes(&self) -> Vec<String> {
        let mut lines = causes(self);
        lines.extend(
            self.refusals().iter().map(Refusal::to_string).filter(|line| !lines.contains(line)).collect::<Vec<_>>(),
        );
        lines
    }

    /// What was refused, for scripts.
    pub fn refusals(&self) -> &[Refusal] {
        match self {
            Self::Hinted { error, .. } => error.refusals(),
            Self::Engine(EngineError::Refused(refusals)) => refusals,
            Self::Engine(EngineError::Target(TargetError::Refused(refusal)))
            | Self::Target(TargetError::Refused(refusal)) => std::slice::from_ref(refusal),
            _ => &[],
        }
    }

    /// What the operator can do; one sentence each.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Engine(EngineError::Package(error)) | Self::Package(error) => {
                error.hint().map(str::to_owned).into_iter().collect()
            }
            Self::Engine(EngineError::Journal(error)) | Self::Journal(error) => journal_hints(error),
            Self::Engine(EngineError::Target(TargetError::Refused(_))) | Self::Target(TargetError::Refused(_)) => {
                self.refusals().iter().flat_map(|refusal| refusal.ways_out.clone()).collect()
            }
            Self::Record(error) => error.hint().map(str::to_owned).into_iter().collect(),
            Self::Engine(error) => error.hints(),
            Self::Hinted { error, hints } => error.hints().into_iter().chain(hints.iter().cloned()).collect(),
            Self::Usage { hints, .. } | Self::Refused { hints, .. } => hints.clone(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                vec!["make room on that disk, then try again".to_owned()]
            }
            Self::Target(_) | Self::Io { .. } => Vec::new(),
        }
    }

    /// True where somebody else is at work on the site.
    pub fn is_held(&self) -> bool {
        match self {
            Self::Hinted { error, .. } => error.is_held(),
            Self::Journal(error) | Self::Engine(EngineError::Journal(error)) => {
                matches!(error, JournalError::Held { .. })
            }
            Self::Engine(EngineError::Lock(error)) => matches!(error, LockError::Held { .. }),
            _ => false,
        }
    }

    /// The state that was left.
    pub fn closing(&self) -> String {
        if let Self::Engine(EngineError::RestoreStopped { backup, .. }) = self {
            return format!(
                "Needs a hand: the restore is half done, and nothing else works on the site; `backout restore {backup}` goes on."
            );
        }
        if let Self::Hinted { error, .. } = self {
            return error.closing();
        }
        match self.status() {
            Status::NeedsHand => "Needs a hand: changes were under way; `backout resume` goes on.".to_owned(),
            _ => NOTHING_CHANGED.to_owned(),
        }
    }
}

fn journal_hints(error: &JournalError) -> Vec<String> {
    match error {
        JournalError::Held { .. } => {
            vec!["wait until it is done, then try again; `backout status` shows who it is".to_owned()]
        }
        JournalError::NewerFormat { .. } => vec!["use the version of backout that wrote it, or a newer one".to_owned()],
        JournalError::Exposed { state, .. } => {
            vec![format!("`chmod 700 {}`, or name another directory as `state:` in site.yaml", state.display())]
        }
        JournalError::Damaged { .. } | JournalError::Diverged { .. } => {
            vec!["`backout verify` says what is damaged; do not edit the state directory".to_owned()]
        }
        error if error.is_no_space() => vec!["make room on the disk of the state directory, then try again".to_owned()],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_refused_and_a_wrong_file_is_usage() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = CliError::from(PackageError::Write { path: "x".into(), source: full });
        assert_eq!(error.status(), Status::Refused);
        assert_eq!(error.causes().len(), 2);
        let error = CliError::Engine(EngineError::usage("no such child"));
        assert_eq!(error.status(), Status::Usage);
        assert_eq!(error.closing(), NOTHING_CHANGED);
    }

    #[test]
    fn what_was_refused_is_listed() {
        let refusal = Refusal {
            place: "a.sql:3".into(),
            what: "VACUUM".into(),
            why: "no".into(),
            ways_out: vec!["leave it".into()],
        };
        let error = CliError::Engine(EngineError::Refused(vec![refusal]));
        assert_eq!(error.causes()[1], "a.sql:3: VACUUM is refused: no");
        assert_eq!(error.hints(), ["leave it"]);
    }
}
