//! The trait [`Backup`] over a repository: takes backups of one site, lists them, puts them back.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use backout_model::backup::{
    Announce, Backup, BackupError, Content, Examined, Keep, Proof, Request, Snapshot, Taken, Wanted, is_remote,
};
use backout_model::target::Finding;
use rustic_core::repofile::{MasterKey, SnapshotFile};
use rustic_core::{BackupOptions, Credentials, OpenStatus, ParentOptions, Repository, SnapshotOptions};

use crate::dump::{DatabaseSource, Engine};
use crate::ledger::Ledger;
use crate::manifest::{Manifest, RootNote, SITE_JSON};
use crate::repository::{self, said, shown};
use crate::scratch::Scratch;
use crate::source::{DATABASES, ROOTS, Source};

/// Where the tool lays what it works with, in the state directory.
const SCRATCH: &str = "backup";

/// What a keeper knows of a site.
pub struct Options {
    pub site: String,
    /// A local path, or one that [`is_remote`].
    pub repository: String,
    /// Its first line is the password.
    pub password_file: PathBuf,
    pub keep: Keep,
    /// The state directory: dumps lie there while a backup is made.
    pub state: PathBuf,
    pub databases: Vec<DatabaseSource>,
    pub roots: Vec<RootSource>,
    pub purpose: Purpose,
}

/// What copies are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Backup,
    /// They are laid out beside the site, by accounts that own nothing there.
    Rehearsal,
}

/// A root to be backed up.
#[derive(Clone, Debug)]
pub struct RootSource {
    /// As `site.yaml` has it.
    pub name: String,
    pub path: PathBuf,
}

/// Backs up one site. The key comes out of the password when it is first needed: that takes a moment by design.
pub struct Keeper {
    pub(crate) options: Options,
    key: Option<MasterKey>,
}

impl Keeper {
    pub fn new(options: Options) -> Self {
        Self { options, key: None }
    }

    /// What its backups are for.
    pub fn purpose(&self) -> Purpose {
        self.options.purpose
    }

    /// A private directory in the state directory, gone when it is dropped. What crashes left goes first.
    pub(crate) fn scratch(&self) -> Result<Scratch, BackupError> {
        let above = self.options.state.join(SCRATCH);
        let failed = |error| BackupError::failed(format!("cannot make {}", above.display()), error);
        Scratch::make(&above).map_err(failed)
    }

    fn password(&self) -> Result<String, BackupError> {
        let file = &self.options.password_file;
        let text = fs::read_to_string(file).map_err(|error| {
            let failed =
                BackupError::failed(format!("cannot read the backup's password from {}", file.display()), error);
            failed.hint("`password-file:` under `backup:` in site.yaml names it; without it no backup can be read")
        })?;
        match text.lines().next() {
            Some(password) if !password.is_empty() => Ok(password.to_owned()),
            _ => Err(BackupError::new(format!("{} holds no password", file.display()))),
        }
    }

    pub(crate) fn opened(&mut self, create: bool) -> Result<Repository<OpenStatus>, BackupError> {
        let credentials = match &self.key {
            Some(key) => Credentials::Masterkey(key.clone()),
            None => Credentials::password(self.password()?),
        };
        let opened = repository::open(&self.options.repository, &credentials, create)?;
        self.key = Some(opened.key());
        Ok(opened)
    }

    /// True where nothing was ever backed up, as far as that can be told.
    fn is_not_there_yet(&self) -> bool {
        !is_remote(&self.options.repository) && !Path::new(&self.options.repository).join("config").exists()
    }

    fn snapshot_files(&mut self) -> Result<Vec<SnapshotFile>, BackupError> {
        if self.is_not_there_yet() {
            return Ok(Vec::new());
        }
        let repository = self.opened(false)?;
        repository::snapshots(&repository, &self.options.site)
    }

    pub(crate) fn snapshot_file(&mut self, id: &str) -> Result<SnapshotFile, BackupError> {
        let all = self.snapshot_files()?;
        let found = all.into_iter().find(|snapshot| snapshot.id.to_hex().as_str() == id);
        found.ok_or_else(|| BackupError::new(format!("the backup {id} is not in the repository any more")))
    }

    /// Says beforehand what a restore will be refused for.
    fn note_bars(
        &self,
        manifest: &Manifest,
        (dumps, secrets): (&Path, &Path),
        ledger: &Ledger,
    ) -> Result<(), BackupError> {
        for (database, note) in self.options.databases.iter().zip(&manifest.databases) {
            for bar in database.bars(note, dumps, secrets)? {
                ledger.note(format!("{}: {}", database.label(), database.barred(&bar)));
            }
        }
        Ok(())
    }

    fn archive(
        &mut self,
        manifest: &Manifest,
        scratch: &Path,
        ledger: &std::sync::Arc<Ledger>,
    ) -> Result<SnapshotFile, BackupError> {
        let repository = self.opened(true)?;
        let parents: Vec<String> = repository::snapshots(&repository, &self.options.site)?
            .iter()
            .take(1)
            .map(|one| one.id.to_hex().to_string())
            .collect();
        let failed = |error: Box<rustic_core::RusticError>| said("cannot write the backup", &error);
        let mut options = SnapshotOptions::default();
        for tag in repository::tags(&self.options.site, manifest.deployment.as_deref()) {
            options = options.add_tags(&tag).map_err(failed)?;
        }
        let mut parent = ParentOptions::default().parents(parents.clone());
        if parents.is_empty() {
            parent = parent.force(true);
        }
        // The parent is named, so nothing is to be grouped by.
        parent.group_by = Some(rustic_core::SnapshotGroupCriterion::new());
        let by_name: Vec<_> = {
            let mut roots: Vec<_> = manifest
                .roots
                .iter()
                .map(|root| (root.name.clone(), root.path.clone(), root.without.clone()))
                .collect();
            roots.sort();
            roots
        };
        let source = Source { scratch: scratch.to_owned(), roots: by_name, ledger: std::sync::Arc::clone(ledger) };
        let repository = repository.to_indexed_ids().map_err(failed)?;
        let paths = [DATABASES, ROOTS, SITE_JSON].map(|name| Path::new("/").join(name));
        let options_of_backup = BackupOptions::default().no_scan(true).parent_opts(parent);
        repository.archive(&options_of_backup, &source, options.to_snapshot().map_err(failed)?, &paths).map_err(failed)
    }
}

impl Backup for Keeper {
    fn take(&mut self, request: &Request) -> Result<Taken, BackupError> {
        let scratch = self.scratch()?;
        let ledger = Ledger::new(request.stop.clone());
        let mut manifest = Manifest::new(&self.options.site, request.position.clone(), request.deployment.clone());
        let private = |name: &str| {
            let path = scratch.path().join(name);
            fs::DirBuilder::new().mode(0o700).create(&path).map(|()| path)
        };
        let failed = |error: io::Error| BackupError::failed("cannot make a directory for the dumps", error);
        let (dumps, secrets) = (private(DATABASES).map_err(failed)?, private("private").map_err(failed)?);
        self.room_to_take(&secrets)?;
        self.opened(true)?;
        for database in &self.options.databases {
            manifest.databases.push(database.dump(&dumps, &secrets, &ledger, self.options.purpose)?);
        }
        manifest.lacking = ledger.notes();
        if self.options.purpose == Purpose::Backup {
            self.note_bars(&manifest, (&dumps, &secrets), &ledger)?;
        }
        for root in &self.options.roots {
            manifest.roots.push(RootNote {
                name: root.name.clone(),
                path: root.path.clone(),
                without: databases_in(&root.path, &self.options.databases),
            });
        }
        manifest.write(&scratch.path().join(SITE_JSON))?;
        let snapshot = self.archive(&manifest, scratch.path(), &ledger)?;
        // The library drops entries that it cannot read, and goes on.
        let mut failures = ledger.failures();
        let summary = snapshot.summary.clone().unwrap_or_default();
        if failures.is_empty() && summary.total_files_processed != ledger.entries() {
            let (found, kept) = (ledger.entries(), summary.total_files_processed);
            failures.push(format!("{found} files were found, and {kept} are in the repository"));
        }
        if ledger.is_stopped() {
            failures = vec!["it was stopped by the operator".to_owned()];
        }
        if !failures.is_empty() {
            let repository = self.opened(false)?;
            repository
                .delete_snapshots(&[snapshot.id])
                .map_err(|error| said("cannot remove a backup with gaps", &error))?;
            return Err(BackupError::failed("the backup has gaps, so it was thrown away", failures.join("; ")));
        }
        scratch.close().map_err(|error| BackupError::failed("cannot remove the dumps", error))?;
        Ok(Taken {
            snapshot: snapshot.id.to_hex().to_string(),
            tree: snapshot.tree.to_hex().to_string(),
            repository: self.options.repository.clone(),
            files: summary.total_files_processed,
            bytes: summary.total_bytes_processed,
            added: summary.data_added_packed,
            notes: ledger.notes(),
        })
    }

    fn list(&mut self) -> Result<Vec<Snapshot>, BackupError> {
        Ok(self.snapshot_files()?.iter().map(shown).collect())
    }

    fn content(&mut self, snapshot: &Snapshot) -> Result<Content, BackupError> {
        let manifest = self.manifest(&snapshot.id)?;
        Ok(Content {
            site: manifest.site,
            position: manifest.position,
            databases: manifest.databases.into_iter().map(|database| database.name).collect(),
            roots: manifest.roots.into_iter().map(|root| root.name).collect(),
        })
    }

    fn restore(
        &mut self,
        snapshot: &Snapshot,
        wanted: &Wanted,
        announce: Announce<'_>,
    ) -> Result<Vec<String>, BackupError> {
        self.put_back(&snapshot.id, wanted, announce)
    }

    fn verify(&mut self, snapshot: &Snapshot) -> Result<Proof, BackupError> {
        self.prove(&snapshot.id)
    }

    fn surplus(&mut self, protected: &BTreeSet<String>) -> Result<Vec<Snapshot>, BackupError> {
        let all = self.snapshot_files()?;
        Ok(repository::surplus(all, self.options.keep, protected)?.iter().map(shown).collect())
    }

    fn forget(&mut self, snapshots: &[Snapshot]) -> Result<(), BackupError> {
        let ids: BTreeSet<&str> = snapshots.iter().map(|snapshot| snapshot.id.as_str()).collect();
        let all = self.snapshot_files()?;
        let gone: Vec<_> = all.into_iter().filter(|one| ids.contains(one.id.to_hex().as_str())).collect();
        repository::forget(&self.opened(false)?, &gone)
    }

    fn examine(&mut self) -> Examined {
        let mut all = Examined::default();
        let finding = |what: String| Finding { target: "backup".to_owned(), what, grave: true };
        match tempfile::tempdir() {
            Ok(scratch) => {
                for database in &self.options.databases {
                    let Examined { findings, lacking } = database.examine(scratch.path());
                    all.findings.extend(findings);
                    all.lacking.extend(lacking);
                }
            }
            Err(error) => all.findings.push(finding(format!("cannot make a temporary directory: {error}"))),
        }
        let opened = match self.password() {
            Err(error) => Err(error),
            // The first backup makes it.
            Ok(_) if self.is_not_there_yet() => Ok(()),
            Ok(_) => self.opened(false).map(drop),
        };
        if let Err(error) = opened {
            all.findings.push(finding(crate::dump::told(&error)));
        }
        all
    }
}

/// The SQLite databases that lie in a root, relative to it, with what SQLite keeps beside them.
pub fn databases_in(root: &Path, databases: &[DatabaseSource]) -> Vec<PathBuf> {
    let Ok(root) = fs::canonicalize(root) else { return Vec::new() };
    let mut inside = Vec::new();
    for database in databases {
        let Engine::Sqlite { path } = &database.engine else { continue };
        let Ok(path) = fs::canonicalize(path) else { continue };
        if let Ok(path) = path.strip_prefix(&root) {
            inside.extend(["", "-wal", "-shm", "-journal"].map(|end| {
                let mut name = path.as_os_str().to_owned();
                name.push(end);
                PathBuf::from(name)
            }));
        }
    }
    inside
}
