//! The copies of packages in the state directory: which of them an undo, redo or resume may still need.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use backout_model::id::DeploymentId;
use backout_model::state::DeploymentState;
use backout_package::snapshot;

use crate::deploy::remove_directory;
use crate::error::EngineError;
use crate::history::View;
use crate::session::Session;

/// Removes the copies that no entry needs: a process that died before its first entry, or right after its last, left
/// them. What is not named as a copy is none of ours.
pub(crate) fn sweep(session: &mut Session<'_>) -> Result<(), EngineError> {
    let directory = session.config.state.join("packages");
    let reading = |source| EngineError::Io { act: format!("cannot read {}", directory.display()), source };
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(reading(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let id = entry.map_err(reading)?.file_name().into_string().ok();
        found.extend(id.and_then(|id| DeploymentId::try_from(id).ok()));
    }
    if found.is_empty() {
        return Ok(());
    }
    let rows = session.journal.reader().deployments()?;
    let needed: BTreeSet<DeploymentId> = rows
        .into_iter()
        .filter(|row| {
            !matches!(row.state, DeploymentState::Refused | DeploymentState::FailedClean | DeploymentState::GivenUp)
        })
        .map(|row| row.id)
        .collect();
    for id in found.iter().filter(|id| !needed.contains(id)) {
        let copy = session.package_copy(id);
        remove_directory(session, &copy);
    }
    Ok(())
}

/// The files of a deployment's kept copy that are not what was deployed; none where nobody knows.
pub(crate) fn altered(copy: &Path, view: &View) -> Result<Vec<PathBuf>, EngineError> {
    match view.planned.as_ref().and_then(|planned| planned.copy.as_deref()) {
        Some(digest) => Ok(snapshot::altered(copy, digest)?),
        None => Ok(Vec::new()),
    }
}

/// Refuses an undo, or else a redo, that would run something from a copy that is not what was deployed. What a package's own
/// commands write into other files of its own is theirs.
pub(crate) fn trusted(session: &Session<'_>, view: &View, undo: bool) -> Result<(), EngineError> {
    let run = view.manifest()?.runs_its_own(undo);
    if run.is_empty() {
        return Ok(());
    }
    match altered(&session.package_copy(&view.id), view)?.iter().find(|file| run.contains(file)) {
        None => Ok(()),
        Some(file) => Err(EngineError::not_now(
            format!("{} in the kept copy of the package of {} is not what was deployed", file.display(), view.id),
            "put the file back as it was in the package",
        )),
    }
}
