//! A package as the engine runs it: read from its directory, every rule of the manifest checked.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

use crate::check::{Check, CheckKind};
use crate::error::PackageError;
use crate::load::Loader;
use crate::step::{Child, Command, RunUndo, SqlUndo, Step, StepKind};
use crate::tree;

/// The name of the file that makes a directory a package.
pub const MANIFEST: &str = "package.yaml";

/// One package with all its children.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Package {
    /// Absolute, without symlinks. Commands run here.
    #[serde(with = "crate::percent::path")]
    pub dir: PathBuf,
    /// Its `package.yaml`, as errors show it.
    #[serde(with = "crate::percent::path")]
    pub file: PathBuf,
    pub name: String,
    /// The text as written: 1.10 is not 1.1.
    pub version: String,
    pub description: Option<String>,
    /// Names of packages that must be deployed on the site, or siblings that come earlier.
    pub requires: Vec<String>,
    /// False: a plain list, each step stands alone.
    pub atomic: bool,
    pub before: Vec<Check>,
    pub steps: Vec<Step>,
    pub finally: Vec<Command>,
    pub after: Vec<Check>,
}

impl Package {
    /// Reads the package in `dir` and all its children.
    pub fn load(dir: &Path) -> Result<Package, PackageError> {
        Loader::new(dir, None)?.load()
    }

    /// BLAKE3 over all that lies in the package's directory: paths in order, modes, contents, symlinks' targets; no
    /// times and no owners. The same for a directory and its bundle, not for a snapshot, which lacks files. Streams.
    pub fn digest(&self) -> Result<[u8; 32], PackageError> {
        tree::digest(&self.dir).map(|hasher| hasher.finish())
    }

    /// True where something of it, or of a child, runs a program.
    pub fn has_commands(&self) -> bool {
        let mut checks = self.before.iter().chain(&self.after);
        !self.finally.is_empty()
            || checks.any(|check| matches!(check.kind, CheckKind::Run { .. }))
            || self.steps.iter().any(|step| matches!(step.kind, StepKind::Run(_)))
            || self.children().any(|child| child.package.has_commands())
    }

    /// The files that its undo, or else its redo, would run: scripts, and what commands name by a path in the package.
    pub fn runs_its_own(&self, undo: bool) -> Vec<PathBuf> {
        let words = |argv: &[String]| argv.iter().map(|word| self.dir.join(word)).collect::<Vec<_>>();
        let mut files: Vec<PathBuf> = self.finally.iter().flat_map(|command| words(&command.argv)).collect();
        for step in &self.steps {
            match &step.kind {
                StepKind::Run(run) => {
                    if let RunUndo::Command(argv) = &run.undo {
                        files.extend(words(argv));
                    }
                    if !undo {
                        files.extend(words(&run.command.argv));
                    }
                }
                StepKind::Sql(sql) => {
                    if let SqlUndo::Script { path, .. } = &sql.undo
                        && !undo
                    {
                        files.extend([sql.path.clone(), path.clone()]);
                    }
                }
                StepKind::Package(child) => files.extend(child.package.runs_its_own(undo)),
                StepKind::Files(_) | StepKind::Delete(_) => {}
            }
        }
        for check in self.before.iter().chain(&self.after).filter(|_| !undo) {
            if let CheckKind::Run { argv, .. } = &check.kind {
                files.extend(words(argv));
            }
        }
        files
    }

    /// Its child packages in the order of the steps, not theirs in turn.
    pub fn children(&self) -> impl Iterator<Item = &Child> {
        self.steps.iter().filter_map(|step| match &step.kind {
            StepKind::Package(child) => Some(child),
            StepKind::Sql(_) | StepKind::Files(_) | StepKind::Delete(_) | StepKind::Run(_) => None,
        })
    }
}
