//! A look into a package or bundle, for people and for `--json`. Changes nothing that stays.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use backout_model::entry::Digest;
use serde::Serialize;

use crate::bundle;
use crate::check::Check;
use crate::error::PackageError;
use crate::package::Package;
use crate::step::{Child, OnFailure, RunUndo, SqlUndo, Step, StepKind};
use crate::tree::{self, Descend, Kind};

/// What a package or bundle holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inspection {
    pub name: String,
    pub version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub requires: Vec<String>,
    pub atomic: bool,
    pub before: Vec<String>,
    pub steps: Vec<StepLine>,
    pub after: Vec<String>,
    pub children: Vec<ChildLine>,
    /// Files, directories and links in all.
    pub files: u64,
    /// Bytes of content of all files.
    pub bytes: u64,
    /// Of the whole tree, in hex: the same for a directory and its bundle.
    pub digest: String,
}

/// One step in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepLine {
    /// `sql`, `files`, `delete`, `run` or `package`.
    pub kind: &'static str,
    pub what: String,
    pub undo: String,
}

/// One child and those below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ChildLine {
    /// Its element in `ID/CHILD`.
    pub child: String,
    pub name: String,
    pub version: String,
    pub attempts: u32,
    /// True where its failure is passed over.
    pub passed_over: bool,
    pub steps: Vec<StepLine>,
    pub children: Vec<ChildLine>,
}

/// Reads the package in a directory or bundle, all of it, so that a damaged one is noticed.
pub fn inspect(path: &Path) -> Result<Inspection, PackageError> {
    if path.is_dir() {
        return look(&Package::load(path)?);
    }
    if !path.exists() {
        return Err(PackageError::unusable(path, "there is no such package"));
    }
    let temp = tempfile::tempdir().map_err(|e| PackageError::write(&std::env::temp_dir(), e))?;
    let package = bundle::open(path, &temp.path().join("package"))?;
    let inspection = look(&package);
    let_go(&package.dir)?;
    inspection
}

/// Makes all directories such that they can be removed: a package may hold some that forbid it.
fn let_go(dir: &Path) -> Result<(), PackageError> {
    tree::walk(dir, &mut |entry| {
        if entry.kind == Kind::Directory {
            let open = Permissions::from_mode(0o700);
            fs::set_permissions(entry.path, open).map_err(|e| PackageError::write(entry.path, e))?;
        }
        Ok(Descend::Yes)
    })
}

fn look(package: &Package) -> Result<Inspection, PackageError> {
    let hashed = tree::digest(&package.dir)?;
    let names = |checks: &[Check]| checks.iter().map(|check| check.name.clone()).collect();
    Ok(Inspection {
        name: package.name.clone(),
        version: package.version.clone(),
        description: package.description.clone(),
        requires: package.requires.clone(),
        atomic: package.atomic,
        before: names(&package.before),
        steps: package.steps.iter().map(step_line).collect(),
        after: names(&package.after),
        children: package.children().map(child_line).collect(),
        files: hashed.entries,
        bytes: hashed.bytes,
        digest: Digest(hashed.finish()).hex(),
    })
}

fn child_line(child: &Child) -> ChildLine {
    ChildLine {
        child: child.name.clone(),
        name: child.package.name.clone(),
        version: child.package.version.clone(),
        attempts: child.retries.attempts,
        passed_over: child.on_failure == OnFailure::Continue,
        steps: child.package.steps.iter().map(step_line).collect(),
        children: child.package.children().map(child_line).collect(),
    }
}

fn step_line(step: &Step) -> StepLine {
    let never = |because: &String| format!("none: {because}");
    let (kind, what, undo) = match &step.kind {
        StepKind::Sql(sql) => (
            "sql",
            sql.shown.clone(),
            match &sql.undo {
                SqlUndo::Captured => "captured".to_owned(),
                SqlUndo::Script { shown, .. } => shown.clone(),
                SqlUndo::Never { because } => never(because),
            },
        ),
        StepKind::Files(files) => ("files", files.shown.clone(), "captured".to_owned()),
        StepKind::Delete(delete) => ("delete", delete.paths.join(" "), "captured".to_owned()),
        StepKind::Run(run) => (
            "run",
            run.command.argv.join(" "),
            match &run.undo {
                RunUndo::Command(argv) => argv.join(" "),
                RunUndo::Never { because } => never(because),
                RunUndo::Captured(_) => "captured".to_owned(),
            },
        ),
        StepKind::Package(child) => ("package", child.name.clone(), "by its own steps".to_owned()),
    };
    StepLine { kind, what, undo }
}
