//! Where an opened bundle lies while it is deployed: `STATE/incoming/PID-STARTED`, 0700.
//!
//! What a killed process left there is removed by the next deployment, never while that process lives.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use backout_journal::process::{self, ProcessFacts};

use crate::error::CliError;

/// Removed when it is dropped; [`Incoming::remove`] says what went wrong with that.
pub struct Incoming {
    path: PathBuf,
    /// The directories of a state that was not there before, innermost first: they go as well where nothing came of
    /// the deployment.
    made: Vec<PathBuf>,
    removed: bool,
}

impl Incoming {
    pub fn make(state: &Path) -> Result<Self, CliError> {
        let me = ProcessFacts::current().map_err(|source| CliError::io("find out who this process is", source))?;
        let path = directory(state).join(format!("{}-{}", me.pid, me.started));
        let failed = |source| CliError::io(format!("make {}", path.display()), source);
        let missing = |above: &&Path| !above.as_os_str().is_empty() && !above.exists();
        let made = if state.exists() {
            Vec::new()
        } else {
            path.ancestors().skip(1).take_while(missing).map(PathBuf::from).collect()
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        Ok(Self { path, made, removed: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn remove(mut self) -> Result<(), CliError> {
        self.removed = true;
        self.clear()
    }

    fn clear(&self) -> Result<(), CliError> {
        remove(&self.path)?;
        // One that is in use by now is not empty, and stays.
        self.made.iter().take_while(|made| fs::remove_dir(made).is_ok()).for_each(drop);
        Ok(())
    }

    /// Removes what dead processes left. The caller holds the site's lock.
    pub fn clear_stale(state: &Path) -> Result<(), CliError> {
        let directory = directory(state);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(CliError::read(&directory, source)),
        };
        for entry in entries {
            let entry = entry.map_err(|source| CliError::read(&directory, source))?;
            let alive = entry
                .file_name()
                .to_str()
                .and_then(|name| name.split_once('-'))
                .and_then(|(pid, started)| Some((pid.parse().ok()?, started.parse().ok()?)))
                .is_some_and(|(pid, started)| process::is_alive(pid, started));
            if !alive {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.removed && self.clear().is_err() {
            // The next deployment removes it.
        }
    }
}

fn directory(state: &Path) -> PathBuf {
    state.join("incoming")
}

fn remove(path: &Path) -> Result<(), CliError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CliError::io(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_left_goes_and_what_is_in_use_stays() {
        let state = tempfile::tempdir().unwrap();
        let mine = Incoming::make(state.path()).unwrap();
        for stale in ["abcdefghjkmn", "1-99999999999", "4194303-1"] {
            fs::create_dir(directory(state.path()).join(stale)).unwrap();
        }
        Incoming::clear_stale(state.path()).unwrap();
        let left: Vec<_> = fs::read_dir(directory(state.path())).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [mine.path().to_owned()]);
        mine.remove().unwrap();
        assert!(fs::read_dir(directory(state.path())).unwrap().next().is_none());
    }
}
