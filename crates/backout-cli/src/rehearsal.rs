//! The scratch of a rehearsal: a copy of the site, made from a backup that is taken for it, with a state directory of its own.
//!
//! It lies in the state directory of the site and is gone afterwards; what a killed process left is removed by the next command
//! that works on the site.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use backout_backup::{Abandoned, Keeper, Layout, Printed, Scratch};
use backout_engine::backup::no_backup;
use backout_engine::error::EngineError;
use backout_engine::observer::{Happening, Observer};
use backout_engine::rehearse::end_orphan;
use backout_journal::{Journal, Reader};
use backout_model::backup::{Backup as _, Position, Request};
use backout_model::target::Finding;
use backout_package::site::{DatabaseConfig, DatabaseUrl, Retention, RootConfig, Site};
use serde::{Deserialize, Serialize};

use crate::error::CliError;
use crate::ui::Ui;
use crate::wiring;

/// Where they lie in the state directory.
const PLACE: &str = "rehearsals";
/// What each says of itself, for whoever clears it away.
const NOTE: &str = "note.json";
/// How the name of a scratch site ends.
const NAME: &str = "-rehearsal";
/// The longest name of a site.
const LONGEST: usize = 64;

/// What a scratch uses beyond its own directory.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    /// Directories of the operator's that hold a copy of a root.
    roots: Vec<Lent>,
    /// The name of the scratch site.
    site: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Lent {
    path: PathBuf,
    /// It was not there before.
    made: bool,
}

/// A copy of a site to play on.
pub struct Copy {
    scratch: Scratch,
    /// The copy as a site of its own.
    pub site: Site,
    /// What of it is not exactly as on the live site.
    pub notes: Vec<String>,
    note: Note,
}

impl Copy {
    /// Copies the site. Reads the live one, and writes to its backup repository and its scratch alone.
    pub fn make(live: &Site, reader: &Reader, observer: &mut dyn Observer) -> Result<Self, CliError> {
        let mut keeper = wiring::keeper_of(live, scratch_name(&live.name)).ok_or_else(no_backup)?;
        playable(live)?;
        let above = live.state.join(PLACE);
        let scratch = Scratch::make_beside(&above).map_err(|source| CliError::io("make a scratch", source))?;
        let mut copy = Self { site: as_site(live, scratch.path())?, scratch, notes: Vec::new(), note: Note::default() };
        copy.note.site.clone_from(&copy.site.name);
        let filled = copy.fill(live, reader, &mut keeper, observer);
        match filled {
            Ok(()) => Ok(copy),
            Err(error) => {
                copy.remove()?;
                Err(error)
            }
        }
    }

    fn fill(
        &mut self,
        live: &Site,
        reader: &Reader,
        keeper: &mut Keeper,
        observer: &mut dyn Observer,
    ) -> Result<(), CliError> {
        for directory in ["databases", "private", "before", "after"] {
            let path = self.scratch.path().join(directory);
            fs::DirBuilder::new().mode(0o700).create(&path).map_err(|source| CliError::write(&path, source))?;
        }
        self.lend(live)?;
        observer.heard(Happening::Phase { name: "copying" });
        let (seq, digest) = reader.head().map_err(EngineError::from)?;
        let position = Position { seq, digest: if seq == 0 { String::new() } else { digest.hex() } };
        let request = Request { position, deployment: None, stop: observer.stop() };
        let engine = |error| CliError::Engine(EngineError::Backup(error));
        keeper.take(&request).map_err(engine)?;
        if Journal::read(&live.state)?.head().map_err(EngineError::from)?.0 != seq {
            return Err(CliError::refused("somebody worked on the site while it was copied", "try again"));
        }
        let taken = keeper.list().map_err(engine)?;
        let newest = taken.first().ok_or_else(|| CliError::refused("the copy of the site is gone", "try again"))?;
        let roots: BTreeMap<String, PathBuf> =
            self.site.roots.iter().map(|root| (root.name.clone(), root.path.clone())).collect();
        let (databases, _) = wiring::sources(&self.site);
        let private = self.scratch.path().join("private");
        let layout = Layout { databases: &databases, roots: &roots, private: &private };
        self.notes = keeper.lay_out(newest, &layout).map_err(engine)?;
        // What rehearsals copied is in nobody's list of backups and keeps none of them from staying.
        keeper.forget(&taken).map_err(engine)?;
        for (name, over) in &live.scratch.files {
            if let Some(root) = roots.get(name) {
                lay_over(over, root)?;
            }
        }
        self.print("before")
    }

    /// Takes the directories that the operator names for copies; they must be empty.
    fn lend(&mut self, live: &Site) -> Result<(), CliError> {
        for (_, path) in &live.scratch.roots {
            let made = match fs::read_dir(path) {
                Ok(mut entries) => {
                    if entries.next().is_some() {
                        let what =
                            format!("{} is not empty, and a rehearsal would overwrite what is in it", path.display());
                        return Err(CliError::refused(what, "empty it, or name another directory under `scratch:`"));
                    }
                    false
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
                Err(source) => return Err(CliError::read(path, source)),
            };
            self.note.roots.push(Lent { path: path.clone(), made });
        }
        let file = self.scratch.path().join(NOTE);
        let text = serde_json::to_vec(&self.note).map_err(|error| CliError::write(&file, error.into()))?;
        fs::write(&file, text).map_err(|source| CliError::write(&file, source))
    }

    /// Where a bundle is opened.
    pub fn package(&self) -> PathBuf {
        self.scratch.path().join("package")
    }

    fn print(&self, which: &str) -> Result<(), CliError> {
        self.printed(|printed| printed.write(&self.scratch.path().join(which)))
    }

    /// What is not as it was when the copy was made.
    pub fn differences(&self) -> Result<Vec<Finding>, CliError> {
        self.print("after")?;
        let [before, after] = ["before", "after"].map(|which| self.scratch.path().join(which));
        self.printed(|printed| printed.differences(&before, &after))
    }

    fn printed<T>(
        &self,
        act: impl FnOnce(&Printed<'_>) -> Result<T, backout_model::backup::BackupError>,
    ) -> Result<T, CliError> {
        let (databases, roots) = wiring::sources(&self.site);
        let private = self.scratch.path().join("private");
        let printed = Printed { databases: &databases, roots: &roots, private: &private };
        act(&printed).map_err(|error| CliError::Engine(EngineError::Backup(error)))
    }

    /// Gives back what was lent, and removes the rest.
    pub fn remove(self) -> Result<(), CliError> {
        let Self { scratch, note, .. } = self;
        give_back(&note)?;
        scratch.close().map_err(|source| CliError::io("remove the scratch", source))
    }
}

/// Removes the scratches that killed processes left; says so where there were any.
pub fn clear(site: &Site, ui: &Ui) {
    let above = site.state.join(PLACE);
    match clear_below(&above) {
        Ok(0) => {}
        Ok(_) => ui.note("the scratch of a rehearsal that was interrupted is removed"),
        Err(error) => ui.warning(format!("a scratch in {} stays: {}", above.display(), error.causes().join(": "))),
    }
}

fn clear_below(above: &Path) -> Result<usize, CliError> {
    let abandoned = Abandoned::all(above).map_err(|source| CliError::read(above, source))?;
    let count = abandoned.len();
    for one in abandoned {
        end_orphan(&one.path().join("state")).map_err(|source| CliError::io("end a command of a rehearsal", source))?;
        let file = one.path().join(NOTE);
        if let Ok(text) = fs::read(&file) {
            let note: Note = serde_json::from_slice(&text).map_err(|error| CliError::read(&file, error.into()))?;
            give_back(&note)?;
        }
        one.remove().map_err(|source| CliError::io("remove it", source))?;
    }
    Ok(count)
}

/// Empties directories that were lent, and removes those that were not there before.
fn give_back(note: &Note) -> Result<(), CliError> {
    for lent in &note.roots {
        let failed = |source| CliError::io(format!("empty {}", lent.path.display()), source);
        if lent.path.exists() {
            for entry in fs::read_dir(&lent.path).map_err(failed)? {
                remove(&entry.map_err(failed)?.path()).map_err(failed)?;
            }
            if lent.made {
                fs::remove_dir(&lent.path).map_err(failed)?;
            }
        }
        // What is held for its undo lies beside it.
        let Some(beside) = lent.path.parent().filter(|_| !note.site.is_empty()) else { continue };
        for entry in fs::read_dir(beside).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with(&format!(".backout-{}-", note.site)) {
                remove(&entry.path()).map_err(failed)?;
            }
        }
    }
    Ok(())
}

fn remove(path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// On a database, two sites of different names do not meet; so what the live site keeps there is nothing to its copy.
fn scratch_name(live: &str) -> String {
    let head: String = live.chars().take(LONGEST - NAME.len()).collect();
    format!("{head}{NAME}")
}

/// Refuses by name what cannot be rehearsed.
fn playable(live: &Site) -> Result<(), CliError> {
    let refused = live.databases.iter().find(|database| !matches!(database.url, DatabaseUrl::Sqlite { .. }));
    match refused {
        None => Ok(()),
        Some(database) => Err(CliError::refused(
            format!("database {}: only SQLite can be rehearsed in this version", database.name),
            "`backout plan` shows what a package would do, and changes nothing",
        )),
    }
}

/// The copy as a site of its own.
fn as_site(live: &Site, top: &Path) -> Result<Site, CliError> {
    let path_of = |name: &str, path: &Path| {
        let lent = live.scratch.roots.iter().find(|(lent, _)| lent == name).map(|(_, path)| path.clone());
        (lent.unwrap_or_else(|| top.join("roots").join(name)), path.to_owned())
    };
    let places: Vec<(PathBuf, PathBuf)> = live.roots.iter().map(|root| path_of(&root.name, &root.path)).collect();
    let roots =
        live.roots.iter().zip(&places).map(|(root, (path, _))| RootConfig { path: path.clone(), ..root.clone() });
    let mut databases = Vec::new();
    for database in &live.databases {
        let DatabaseUrl::Sqlite { path } = &database.url else { continue };
        // One that lies in a root lies in the copy of it.
        let inside = places.iter().find_map(|(copy, root)| Some(copy.join(within(path, root)?)));
        let path = inside.unwrap_or_else(|| top.join("databases").join(format!("{}.sqlite", database.name)));
        databases.push(DatabaseConfig { name: database.name.clone(), url: DatabaseUrl::Sqlite { path } });
    }
    Ok(Site {
        name: scratch_name(&live.name),
        databases,
        roots: roots.collect(),
        state: top.join("state"),
        maintenance: None,
        backup: None,
        alerts: Vec::new(),
        retention: Retention::default(),
        record: false,
        ..live.clone()
    })
}

/// A path relative to a root that it lies in, by whatever links.
fn within(path: &Path, root: &Path) -> Option<PathBuf> {
    let (path, root) = (fs::canonicalize(path).ok()?, fs::canonicalize(root).ok()?);
    path.strip_prefix(root).ok().map(Path::to_owned)
}

/// Copies a directory over another, entry by entry.
fn lay_over(from: &Path, to: &Path) -> Result<(), CliError> {
    let entries = fs::read_dir(from).map_err(|source| CliError::read(from, source))?;
    for entry in entries {
        let entry = entry.map_err(|source| CliError::read(from, source))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let failed = |error| CliError::write(&target, error);
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            if !target.is_dir() {
                fs::create_dir(&target).map_err(failed)?;
            }
            lay_over(&source, &target)?;
            continue;
        }
        if target.symlink_metadata().is_ok() {
            remove(&target).map_err(failed)?;
        }
        if kind.is_symlink() {
            let link = fs::read_link(&source).map_err(|error| CliError::read(&source, error))?;
            symlink(link, &target).map_err(failed)?;
        } else {
            fs::copy(&source, &target).map_err(failed)?;
        }
    }
    Ok(())
}
