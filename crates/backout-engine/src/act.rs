//! What a step does, as the journal remembers it: enough to undo and redo it without the package.

use std::path::PathBuf;
use std::time::Duration;

use backout_model::target::Summary;
use backout_package::package::Package;
use backout_package::step::{RunUndo, SqlUndo, Step, StepKind};
use serde::{Deserialize, Serialize};

use crate::capture::Followed;
use crate::error::EngineError;

/// One act on one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case")]
pub enum Act {
    Sql {
        database: String,
        #[serde(with = "backout_package::percent::path")]
        path: PathBuf,
        shown: String,
        undo: SqlUndo,
    },
    Files {
        root: String,
        #[serde(with = "backout_package::percent::path")]
        source: PathBuf,
        shown: String,
        exact: bool,
    },
    Delete {
        root: String,
        paths: Vec<String>,
        missing_ok: bool,
    },
    Run {
        argv: Vec<String>,
        undo: RunUndo,
        timeout_ms: Option<u64>,
        /// Of the deployment's copy of the package.
        #[serde(with = "backout_package::percent::path")]
        directory: PathBuf,
        /// Where what it changes is captured.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        capture: Vec<Followed>,
    },
    /// What a command changed in one place, found by comparing.
    Captured {
        followed: Followed,
        /// As people read it.
        command: String,
    },
}

impl Act {
    /// The act of a step of `package`; `None` for a child package. `databases` and `roots` are the site's names.
    pub fn of(package: &Package, step: &Step, databases: &[&str], roots: &[&str]) -> Result<Option<Self>, EngineError> {
        let place = format!("{}:{}", package.file.display(), step.line);
        Ok(match &step.kind {
            StepKind::Sql(sql) => Some(Self::Sql {
                database: pick("database", "databases", sql.database.as_deref(), databases, &place)?,
                path: sql.path.clone(),
                shown: sql.shown.clone(),
                undo: sql.undo.clone(),
            }),
            StepKind::Files(files) => Some(Self::Files {
                root: pick("root", "roots", files.root.as_deref(), roots, &place)?,
                source: files.source.clone(),
                shown: files.shown.clone(),
                exact: files.exact,
            }),
            StepKind::Delete(delete) => Some(Self::Delete {
                root: pick("root", "roots", delete.root.as_deref(), roots, &place)?,
                paths: delete.paths.clone(),
                missing_ok: delete.missing_ok,
            }),
            StepKind::Run(run) => {
                if run.command.argv.is_empty() {
                    return Err(EngineError::usage(format!("{place}: an empty command")));
                }
                let capture = match &run.undo {
                    RunUndo::Captured(capture) => Followed::of(capture, databases, roots, &place)?,
                    RunUndo::Command(_) | RunUndo::Never { .. } => Vec::new(),
                };
                Some(Self::Run {
                    capture,
                    argv: run.command.argv.clone(),
                    undo: run.undo.clone(),
                    timeout_ms: run
                        .command
                        .timeout
                        .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
                    directory: package.dir.clone(),
                })
            }
            StepKind::Package(_) => None,
        })
    }

    /// In words, for people: `sql sql/010.sql on main`.
    pub fn words(&self) -> String {
        match self {
            Self::Sql { database, shown, .. } => format!("sql {shown} on {database}"),
            Self::Files { root, shown, .. } => format!("files {shown} into {root}"),
            Self::Delete { root, paths, .. } => format!("delete {} from {root}", paths.join(", ")),
            Self::Run { .. } => format!("run {}", self.command_line()),
            Self::Captured { followed, command } => format!("what {command} did to {}", followed.label()),
        }
    }

    /// The command of a step as people read it.
    pub fn command_line(&self) -> String {
        match self {
            Self::Run { argv, .. } => argv.join(" "),
            Self::Captured { command, .. } => command.clone(),
            Self::Sql { .. } | Self::Files { .. } | Self::Delete { .. } => String::new(),
        }
    }

    /// Where what its command changes is captured.
    pub fn followed(&self) -> &[Followed] {
        match self {
            Self::Run { capture, .. } => capture,
            Self::Sql { .. } | Self::Files { .. } | Self::Delete { .. } | Self::Captured { .. } => &[],
        }
    }

    /// The database that it changes.
    pub fn database(&self) -> Option<&str> {
        match self {
            Self::Sql { database: name, .. } | Self::Captured { followed: Followed::Database(name), .. } => Some(name),
            Self::Files { .. } | Self::Delete { .. } | Self::Run { .. } | Self::Captured { .. } => None,
        }
    }

    /// True where images alone undo it and do it again.
    pub fn is_captured(&self) -> bool {
        match self {
            Self::Sql { undo, .. } => *undo == SqlUndo::Captured,
            Self::Files { .. } | Self::Delete { .. } | Self::Captured { .. } => true,
            Self::Run { .. } => false,
        }
    }

    /// Why nothing takes it back, where the package declares so. Everything that treats such steps apart asks here.
    pub fn irreversible(&self) -> Option<&str> {
        match self {
            Self::Run { undo: RunUndo::Never { because }, .. } | Self::Sql { undo: SqlUndo::Never { because }, .. } => {
                Some(because)
            }
            Self::Run { .. } | Self::Sql { .. } | Self::Files { .. } | Self::Delete { .. } | Self::Captured { .. } => {
                None
            }
        }
    }

    /// True where the package says how it is taken back: by a command or script of its own.
    pub fn has_own_undo(&self) -> bool {
        match self {
            Self::Run { undo, .. } => matches!(undo, RunUndo::Command(_)),
            Self::Sql { undo, .. } => matches!(undo, SqlUndo::Script { .. }),
            Self::Files { .. } | Self::Delete { .. } | Self::Captured { .. } => false,
        }
    }

    pub fn timeout(&self) -> Option<Duration> {
        match self {
            Self::Run { timeout_ms, .. } => timeout_ms.map(Duration::from_millis),
            Self::Sql { .. } | Self::Files { .. } | Self::Delete { .. } | Self::Captured { .. } => None,
        }
    }
}

/// The named target, or the only one.
pub fn pick(kind: &str, plural: &str, named: Option<&str>, known: &[&str], place: &str) -> Result<String, EngineError> {
    match (named, known) {
        (Some(name), known) if known.contains(&name) => Ok(name.to_owned()),
        (Some(name), known) => Err(EngineError::Usage {
            what: format!("{place}: the site has no {kind} `{name}`"),
            hint: Some(match known {
                [] => format!("site.yaml names no {plural}"),
                known => format!("site.yaml names the {plural} {}", known.join(", ")),
            }),
        }),
        (None, [only]) => Ok((*only).to_owned()),
        (None, []) => Err(EngineError::usage(format!("{place}: the step needs a {kind}, and site.yaml names none"))),
        (None, many) => Err(EngineError::Usage {
            what: format!("{place}: the step must say which {kind}, for the site has several"),
            hint: Some(format!("add `{kind}: {}`", many[0])),
        }),
    }
}

/// The payload of a `step-intended` entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intended {
    #[serde(flatten)]
    pub act: Act,
    pub epoch: u64,
    #[serde(default)]
    pub summary: Summary,
}

/// The payload of a `step-undo-intended` entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UndoIntended {
    /// The entry whose images are put back.
    pub of: u64,
    pub epoch: u64,
    #[serde(default)]
    pub summary: Summary,
}
