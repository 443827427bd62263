//! The records in the state directory: which there are, whether they are whole, and how they go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use backout_model::id::DeploymentId;
use backout_model::target::Finding;
use backout_record::head::SUFFIX;
use backout_record::reader;

use crate::error::EngineError;
use crate::record::directory;

/// The records in a state directory, by name.
fn list(state: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let directory = directory(state);
    let reading = |source| EngineError::Io { act: format!("cannot read {}", directory.display()), source };
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(reading(error)),
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.map_err(reading)?.path();
        if path.to_string_lossy().ends_with(SUFFIX) {
            records.push(path);
        }
    }
    records.sort();
    Ok(records)
}

/// Reads every record through. A damaged one is grave: its deployment could not be undone from it alone.
pub(crate) fn verify(state: &Path, each: &mut dyn FnMut(Finding)) -> Result<u64, EngineError> {
    let records = list(state)?;
    for record in &records {
        if let Err(error) = reader::read(record, &mut |_, _, _| Ok(())) {
            each(Finding { target: "record".to_owned(), what: error.to_string(), grave: true });
        }
    }
    Ok(records.len() as u64)
}

/// Removes the records of a deployment.
pub(crate) fn remove(state: &Path, id: &DeploymentId) -> Result<(), EngineError> {
    let ending = format!("-{id}{SUFFIX}");
    for record in list(state)?.into_iter().filter(|record| record.to_string_lossy().ends_with(&ending)) {
        fs::remove_file(&record)
            .map_err(|source| EngineError::Io { act: format!("cannot remove {}", record.display()), source })?;
    }
    Ok(())
}
