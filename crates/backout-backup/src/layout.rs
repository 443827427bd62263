//! A backup laid out beside the site, for a rehearsal: roots into directories, databases where a rehearsal wants them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use backout_model::backup::{BackupError, Snapshot};

use crate::dump::{self, DatabaseSource};
use crate::exchange;
use crate::keeper::Keeper;
use crate::source::DATABASES;

/// Where the parts of a backup are laid.
pub struct Layout<'a> {
    /// Empty databases, or for SQLite files that are not there, by the names of those in the backup; as whoever may fill them.
    pub databases: &'a [DatabaseSource],
    /// Empty directories by the names of the roots.
    pub roots: &'a BTreeMap<String, PathBuf>,
    /// A private directory to work in.
    pub private: &'a Path,
}

impl Keeper {
    /// Lays a backup out. Nothing of the site is touched. Returns what is not exactly as it was, a sentence each.
    pub fn lay_out(&mut self, snapshot: &Snapshot, layout: &Layout<'_>) -> Result<Vec<String>, BackupError> {
        let fetched = self.fetched(&snapshot.id)?;
        let manifest = fetched.manifest()?;
        let mut notes = Vec::new();
        for note in &manifest.roots {
            let Some(to) = layout.roots.get(&note.name) else { continue };
            let failed = |error| BackupError::failed(format!("cannot lay the root {} out", note.name), error);
            fs::DirBuilder::new().recursive(true).mode(0o700).create(to).map_err(failed)?;
            let node = fetched.root(&note.name)?;
            notes.extend(fetched.fill(&node, to, &note.name)?);
            exchange::dress(to, &node).map_err(failed)?;
        }
        let dumps = layout.private.join(DATABASES);
        for note in &manifest.databases {
            let Some(there) = layout.databases.iter().find(|one| one.name == note.name) else { continue };
            fetched.dumps(note, &dumps)?;
            dump::check_files(note, &dumps)?;
            let live = self.options.databases.iter().find(|one| one.name == note.name).and_then(DatabaseSource::place);
            there.fill(note, &dumps, live.unwrap_or_default(), layout.private)?;
            let failed = |error| BackupError::failed("cannot remove what was fetched", error);
            fs::remove_dir_all(&dumps).map_err(failed)?;
        }
        Ok(notes)
    }
}
