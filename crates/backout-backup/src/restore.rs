//! From a snapshot back to the site, or into another place. All is fetched and checked before anything of the site changes.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use backout_model::backup::{Announce, BackupError, Proof, Wanted};
use backout_model::target::Finding;

use crate::dump::{self, Engine};
use crate::fetched::Fetched;
use crate::keeper::{Keeper, RootSource};
use crate::manifest::{DatabaseNote, Manifest, RootNote};
use crate::source::{DATABASES, ROOTS};
use crate::{compare, exchange};

impl Keeper {
    pub(crate) fn manifest(&mut self, id: &str) -> Result<Manifest, BackupError> {
        self.fetched(id)?.manifest()
    }

    pub(crate) fn fetched(&mut self, id: &str) -> Result<Fetched, BackupError> {
        let snapshot = self.snapshot_file(id)?;
        Fetched::new(self.opened(false)?, snapshot)
    }

    pub(crate) fn put_back(
        &mut self,
        id: &str,
        wanted: &Wanted,
        announce: Announce<'_>,
    ) -> Result<Vec<String>, BackupError> {
        let fetched = self.fetched(id)?;
        let manifest = fetched.manifest()?;
        let databases: Vec<&DatabaseNote> =
            manifest.databases.iter().filter(|database| wanted.databases.contains(&database.name)).collect();
        let roots: Vec<&RootNote> = manifest.roots.iter().filter(|root| wanted.roots.contains(&root.name)).collect();
        self.room_to_restore("the restore", &fetched, &databases, &roots, wanted.into.as_deref())?;
        if let Some(into) = &wanted.into {
            return put_elsewhere(&fetched, &databases, &roots, into);
        }
        let scratch = self.scratch()?;
        let mut notes = Vec::new();
        // First everything is fetched and looked at, then the site changes.
        let dumps = scratch.path().join(DATABASES);
        for database in &databases {
            let source = self.source_of(&database.name)?;
            fetched.dumps(database, &dumps)?;
            dump::check_files(database, &dumps)?;
            source.is_loadable(database, &dumps, scratch.path())?;
        }
        let mut staged = Vec::new();
        for note in roots {
            let root = self.root(&note.name)?.clone();
            if let Some(missing) = self.databases_lost(&note.without, &root.path, &wanted.databases) {
                return Err(BackupError::new(format!("the database {missing} lies in the root {}", root.name))
                    .hint(format!("restore it, too: --database {missing}")));
            }
            let stage = exchange::Stage::make(&root.path, &self.options.state, &self.options.site, &root.name)?;
            let node = fetched.root(&note.name)?;
            notes.extend(fetched.fill(&node, stage.path(), &note.name)?);
            staged.push((root, node, stage));
        }
        announce()?;
        // First what takes effect as a whole or not at all: where that fails, nothing was done.
        let (whole, others): (Vec<_>, Vec<_>) = databases.into_iter().partition(|note| note.engine == "postgres");
        let load = |note: &DatabaseNote| self.source_of(&note.name)?.load(note, &dumps, scratch.path());
        let mut is_first = true;
        for note in whole {
            let failed = |error: BackupError| BackupError { took_nothing: error.took_nothing && is_first, ..error };
            load(note).map_err(failed)?;
            is_first = false;
        }
        for (root, node, stage) in staged {
            stage.exchange(&root.path, &node)?;
        }
        others.into_iter().try_for_each(load)?;
        scratch.close().map_err(|error| BackupError::failed("cannot remove what was fetched", error))?;
        Ok(notes)
    }

    /// Restores a snapshot into a scratch place and compares it with what was noted when it was taken.
    pub(crate) fn prove(&mut self, id: &str) -> Result<Proof, BackupError> {
        let fetched = self.fetched(id)?;
        let manifest = fetched.manifest()?;
        let scratch = self.scratch()?;
        let dumps = scratch.path().join(DATABASES);
        let every = (manifest.databases.iter().collect::<Vec<_>>(), manifest.roots.iter().collect::<Vec<_>>());
        self.room_to_restore("what is to be compared", &fetched, &every.0, &every.1, Some(scratch.path()))?;
        let (mut found, mut unchecked) = (fetched.damage()?, Vec::new());
        for database in &manifest.databases {
            let source = match self.source_of(&database.name) {
                Ok(source) => source,
                Err(error) => {
                    found.push(finding(&format!("database {}", database.name), dump::told(&error)));
                    continue;
                }
            };
            match fetched.dumps(database, &dumps) {
                Ok(()) => {
                    let proven = source.prove(database, &dumps, scratch.path());
                    found.extend(proven.findings);
                    unchecked.extend(proven.unchecked);
                }
                Err(error) => found.push(finding(&source.label(), dump::told(&error))),
            }
        }
        for root in &manifest.roots {
            let label = format!("root {}", root.name);
            let to = scratch.path().join(ROOTS).join(&root.name);
            let failed = |error| BackupError::failed(format!("cannot make {}", to.display()), error);
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&to).map_err(failed)?;
            let filled = fetched.root(&root.name).and_then(|node| {
                let mut different = fetched.fill(&node, &to, &root.name)?;
                different.extend(compare::contents(&fetched.repository, &node, &to)?);
                Ok(different)
            });
            match filled {
                Ok(different) => found.extend(different.into_iter().map(|what| finding(&label, what))),
                Err(error) => found.push(finding(&label, dump::told(&error))),
            }
            remove(&to).map_err(failed)?;
        }
        scratch.close().map_err(|error| BackupError::failed("cannot remove the scratch", error))?;
        let lacking = manifest.lacking.into_iter().map(|what| Finding { grave: false, ..finding("backup", what) });
        Ok(Proof { findings: found, unchecked, lacking: lacking.collect() })
    }

    fn source_of(&self, name: &str) -> Result<&dump::DatabaseSource, BackupError> {
        let found = self.options.databases.iter().find(|database| database.name == name);
        found.ok_or_else(|| no_longer("database", name))
    }

    fn root(&self, name: &str) -> Result<&RootSource, BackupError> {
        self.options.roots.iter().find(|root| root.name == name).ok_or_else(|| no_longer("root", name))
    }

    /// A database that was left out of a root's copy, and is not restored along with it.
    fn databases_lost(
        &self,
        without: &[PathBuf],
        root: &Path,
        wanted: &std::collections::BTreeSet<String>,
    ) -> Option<String> {
        let lost = self.options.databases.iter().find(|database| match &database.engine {
            Engine::Sqlite { path } => {
                !wanted.contains(&database.name)
                    && (without.iter().any(|one| root.join(one) == *path) || path.starts_with(root))
            }
            Engine::Postgres { .. } | Engine::Mariadb { .. } => false,
        });
        lost.map(|database| database.name.clone())
    }
}

/// Lays copies into an empty directory; nothing of the site is touched.
fn put_elsewhere(
    fetched: &Fetched,
    databases: &[&DatabaseNote],
    roots: &[&RootNote],
    into: &Path,
) -> Result<Vec<String>, BackupError> {
    let failed = |error: io::Error| BackupError::failed(format!("cannot restore into {}", into.display()), error);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(into).map_err(failed)?;
    if fs::read_dir(into).map_err(failed)?.next().is_some() {
        return Err(BackupError::new(format!("{} is not empty", into.display())).hint("name another directory"));
    }
    let mut notes = Vec::new();
    for database in databases {
        let dumps = into.join(DATABASES);
        fetched.dumps(database, &dumps)?;
        dump::check_files(database, &dumps)?;
    }
    for root in roots {
        let to = into.join(ROOTS).join(&root.name);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&to).map_err(failed)?;
        let node = fetched.root(&root.name)?;
        notes.extend(fetched.fill(&node, &to, &root.name)?);
        exchange::dress(&to, &node).map_err(failed)?;
    }
    Ok(notes)
}

fn no_longer(kind: &str, name: &str) -> BackupError {
    BackupError::new(format!("site.yaml no longer names the {kind} `{name}`, which the backup holds"))
        .hint(format!("put the {kind} `{name}` back into site.yaml, or restore with --into"))
}

fn finding(target: &str, what: String) -> Finding {
    Finding { target: target.to_owned(), what, grave: true }
}

/// Removes a file or a whole directory, but nothing on another file system.
pub fn remove(path: &Path) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !meta.is_dir() {
        return fs::remove_file(path);
    }
    if let Some(mount) = mount_in(path, meta.dev())? {
        return Err(io::Error::other(format!("{} is a mount point", mount.display())));
    }
    fs::remove_dir_all(path)
}

/// A directory below `path` that lies on another file system.
pub fn mount_in(path: &Path, device: u64) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let inner = entry.path();
            if fs::symlink_metadata(&inner)?.dev() != device {
                return Ok(Some(inner));
            }
            if let Some(found) = mount_in(&inner, device)? {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}
