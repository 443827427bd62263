//! What a step does, as the journal remembers it: enough to undo and redo it without the package.

use std::path::PathBuf;
use std::time::Duration;

use backout_model::target::Summary;
use backout_package::package::Package;
use backout_package::step::{Capture, RunUndo, SqlUndo, Step, StepKind};
use serde::{Deserialize, Serialize};

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
        /// It is what others did meanwhile: an undo takes it along only where that is asked for.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        others: bool,
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
            Self::Captured { followed, command, others: false } => {
                format!("what {command} did to {}", followed.label())
            }
            Self::Captured { followed, command, others: true } => {
                format!("what others did to {} while {command} ran", followed.label())
            }
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

    /// The root that it changes.
    pub fn root(&self) -> Option<&str> {
        match self {
            Self::Files { root: name, .. }
            | Self::Delete { root: name, .. }
            | Self::Captured { followed: Followed::Root(name), .. } => Some(name),
            Self::Sql { .. } | Self::Run { .. } | Self::Captured { .. } => None,
        }
    }

    /// True for what others did while a command ran.
    pub fn is_of_others(&self) -> bool {
        matches!(self, Self::Captured { others: true, .. })
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

/// The steps that a command's changes become are numbered beyond those of any package: the command's own number, and so
/// many times this.
const PARTS: u32 = 1 << 16;

/// The number of the step of a package that a step belongs to: its own, unless it is what a command did.
pub fn step_in_package(index: u32) -> u32 {
    index % PARTS
}

/// The number of what a command did in one of the places where it is followed.
pub(crate) fn part(index: u32, number: usize) -> u32 {
    index.saturating_add(PARTS.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1)))
}

/// What a command is followed in, by the site's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Followed {
    Database(String),
    Root(String),
}

impl Followed {
    /// `database main`.
    pub fn label(&self) -> String {
        match self {
            Self::Database(name) => format!("database {name}"),
            Self::Root(name) => format!("root {name}"),
        }
    }

    /// The act of what a command changed there.
    pub fn act(&self, command: &str) -> Act {
        Act::Captured { followed: self.clone(), command: command.to_owned(), others: false }
    }

    /// The act of what others changed there meanwhile.
    pub fn act_of_others(&self, command: &str) -> Act {
        Act::Captured { followed: self.clone(), command: command.to_owned(), others: true }
    }

    /// What a step captures, by the names of a site.
    pub fn of(capture: &Capture, databases: &[&str], roots: &[&str], place: &str) -> Result<Vec<Self>, EngineError> {
        let named = |kind: &str, plural: &str, names: &Option<Vec<String>>, known: &[&str]| match names {
            None => Ok(known.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()),
            Some(names) => names.iter().map(|name| pick(kind, plural, Some(name), known, place)).collect(),
        };
        let databases = named("database", "databases", &capture.databases, databases)?;
        let roots = named("root", "roots", &capture.roots, roots)?;
        let mut all: Vec<Self> = Vec::new();
        for one in databases.into_iter().map(Self::Database).chain(roots.into_iter().map(Self::Root)) {
            if !all.contains(&one) {
                all.push(one);
            }
        }
        if all.is_empty() {
            return Err(EngineError::usage(format!(
                "{place}: there is nothing to capture: the site has no database and no root"
            )));
        }
        Ok(all)
    }
}

/// Packages whose steps would meet the numbers of parts.
pub(crate) fn steps_are_few(package: &Package) -> Result<(), EngineError> {
    if package.steps.len() < PARTS as usize {
        return Ok(());
    }
    Err(EngineError::usage(format!("{}: more than {} steps", package.file.display(), PARTS - 1)))
}
