//! A scratch: a copy of the site with a state directory of its own, made for a rehearsal from a backup that is taken for it, or
//! from any backup to look at what that holds.
//!
//! It lies in the state directory of the site and is gone afterwards; what a killed process left is removed by the next command
//! that works on the site.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use backout_backup::{DatabaseSource, Keeper, Layout, Printed, Purpose, RootSource, Scratch};
use backout_engine::backup::no_backup;
use backout_engine::error::EngineError;
use backout_engine::observer::{Happening, Observer};
use backout_journal::{Journal, Reader};
use backout_model::backup::{Backup as _, BackupError, Position, Request, Snapshot};
use backout_model::target::Finding;
use backout_package::site::{DatabaseConfig, DatabaseUrl, Retention, RootConfig, Site};
use backout_package::url_mariadb::MariadbUrl;
use backout_package::url_postgres::PostgresUrl;

use crate::error::CliError;
use crate::lent::{self, Note, PLACE};
use crate::wiring;

/// How the name of a scratch site ends.
const NAME: &str = "-rehearsal";
/// The longest name of a site.
const LONGEST: usize = 64;

/// Fills a copy that is prepared.
type Fill<'f> = dyn FnMut(&mut Copy, &mut Keeper, &mut dyn Observer) -> Result<(), CliError> + 'f;

/// A copy of a site to play on.
pub struct Copy {
    scratch: Scratch,
    /// The copy, a site like any other.
    pub site: Site,
    /// What of it is not exactly as on the live site.
    pub notes: Vec<String>,
    note: Note,
    /// Its databases, as whoever may fill and read all of each.
    databases: Vec<DatabaseSource>,
}

impl Copy {
    /// Copies the site. Reads the live one, and writes to its backup repository and its scratch alone.
    pub fn make(live: &Site, reader: &Reader, observer: &mut dyn Observer) -> Result<Self, CliError> {
        let mut keeper = wiring::keeper_of(live, scratch_name(&live.name), Purpose::Rehearsal).ok_or_else(no_backup)?;
        Self::filled(live, &mut keeper, observer, &mut |copy, keeper, observer| {
            let taken = take(live, reader, keeper, observer)?;
            let newest = taken.first().ok_or_else(|| CliError::refused("the copy of the site is gone", "try again"))?;
            copy.lay_out(newest, keeper)?;
            // What rehearsals copied is in nobody's list of backups and keeps none of them from staying.
            keeper.forget(&taken)?;
            for (name, over) in &live.scratch.files {
                if let Some(root) = copy.site.roots.iter().find(|root| root.name == *name) {
                    lay_over(over, &root.path)?;
                }
            }
            copy.print("before")
        })
    }

    /// The site as a backup has it. Reads the live site and its backup repository, and writes to its scratch alone.
    pub fn of_backup(
        live: &Site,
        keeper: &mut Keeper,
        snapshot: &Snapshot,
        observer: &mut dyn Observer,
    ) -> Result<Self, CliError> {
        Self::filled(live, keeper, observer, &mut |copy, keeper, _| copy.lay_out(snapshot, keeper))
    }

    /// A copy that `fill` fills; nothing of it is left where that fails.
    fn filled(
        live: &Site,
        keeper: &mut Keeper,
        observer: &mut dyn Observer,
        fill: &mut Fill<'_>,
    ) -> Result<Self, CliError> {
        let above = live.state.join(PLACE);
        let scratch = Scratch::make_beside(&above).map_err(|source| CliError::io("make a scratch", source))?;
        let note = Note { site: scratch_name(&live.name), ..Note::default() };
        let mut copy =
            Self { site: as_site(live, scratch.path()), scratch, notes: Vec::new(), note, databases: Vec::new() };
        let done = copy.prepare(live, keeper).and_then(|()| {
            observer.heard(Happening::Phase { name: "copying" });
            fill(&mut copy, keeper, observer)
        });
        match done {
            Ok(()) => Ok(copy),
            Err(error) => {
                copy.remove(live)?;
                Err(error)
            }
        }
    }

    /// Makes the places that are to be filled, all of them empty.
    fn prepare(&mut self, live: &Site, keeper: &Keeper) -> Result<(), CliError> {
        for directory in ["databases", "private", "before", "after"] {
            let path = self.scratch.path().join(directory);
            fs::DirBuilder::new().mode(0o700).create(&path).map_err(|source| CliError::write(&path, source))?;
        }
        let roots = self.site.roots.iter().map(|root| (root.name.as_str(), root.path.as_path()));
        keeper.room_to_lay_out(roots, self.scratch.path(), &self.private())?;
        self.note.lend(live)?;
        self.note.write(self.scratch.path())?;
        self.make_databases(live, keeper.purpose())
    }

    fn lay_out(&mut self, snapshot: &Snapshot, keeper: &mut Keeper) -> Result<(), CliError> {
        let roots: BTreeMap<String, PathBuf> =
            self.site.roots.iter().map(|root| (root.name.clone(), root.path.clone())).collect();
        let private = self.private();
        let layout = Layout { databases: &self.databases, roots: &roots, private: &private };
        self.notes = keeper.lay_out(snapshot, &layout)?;
        Ok(())
    }

    /// What the copy holds, as whoever may read all of it.
    pub fn sources(&self) -> (&[DatabaseSource], Vec<RootSource>) {
        (&self.databases, wiring::sources(&self.site).1)
    }

    /// Makes an empty database for each of the live ones.
    fn make_databases(&mut self, live: &Site, purpose: Purpose) -> Result<(), CliError> {
        for config in &live.databases {
            let named = live.scratch.databases.iter().find(|one| one.name == config.name);
            let (url, fills) = match (&config.url, named) {
                (DatabaseUrl::Sqlite { path }, _) => {
                    let url = DatabaseUrl::Sqlite { path: self.copy_of(live, &config.name, path) };
                    (url.clone(), source(&config.name, url))
                }
                (_, Some(named)) => self.take_named(named)?,
                (DatabaseUrl::Postgres(_) | DatabaseUrl::Mariadb(_), None) => self.make_beside(config, purpose)?,
            };
            self.site.databases.push(DatabaseConfig { name: config.name.clone(), url });
            self.databases.push(fills);
        }
        Ok(())
    }

    /// The database that the operator names for copies; it must be empty.
    fn take_named(&mut self, named: &DatabaseConfig) -> Result<(DatabaseUrl, DatabaseSource), CliError> {
        let there = wiring::source(named);
        if !there.is_empty(&self.private())? {
            let url = named.url.without_password();
            let what = format!("the scratch of the database {} is not empty: {url}", named.name);
            return Err(CliError::refused(what, "empty it, or name another database under `scratch:`"));
        }
        self.note.filled.push(named.name.clone());
        self.note.write(self.scratch.path())?;
        Ok((named.url.clone(), there))
    }

    /// A database and an account of its own on the server of the live one.
    fn make_beside(
        &mut self,
        config: &DatabaseConfig,
        purpose: Purpose,
    ) -> Result<(DatabaseUrl, DatabaseSource), CliError> {
        let live = wiring::source(config);
        let beside = lent::beside(&config.name)?;
        self.note.made.push(beside.clone());
        self.note.write(self.scratch.path())?;
        let made = live.make_beside(&beside, &lent::secret()?, &self.private())?;
        let url = match (made, &config.url) {
            (Some(parameters), DatabaseUrl::Postgres(_)) => DatabaseUrl::Postgres(PostgresUrl::of(parameters)),
            (Some(parameters), _) => DatabaseUrl::Mariadb(MariadbUrl::of(parameters)),
            (None, url) => url.clone(),
        };
        let fills = live.filling(&beside, &source(&config.name, url.clone()), purpose);
        Ok((url, fills))
    }

    /// Where the copy of an SQLite database lies: of one that lies in a root, in the copy of that.
    fn copy_of(&self, live: &Site, name: &str, path: &Path) -> PathBuf {
        let mut places = live.roots.iter().zip(&self.site.roots);
        let inside = places.find_map(|(root, copy)| Some(copy.path.join(within(path, &root.path)?)));
        inside.unwrap_or_else(|| self.scratch.path().join("databases").join(format!("{name}.sqlite")))
    }

    /// Where a bundle is opened.
    pub fn package(&self) -> PathBuf {
        self.scratch.path().join("package")
    }

    /// A directory of this process alone.
    pub fn private(&self) -> PathBuf {
        self.scratch.path().join("private")
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

    fn printed<T>(&self, act: impl FnOnce(&Printed<'_>) -> Result<T, BackupError>) -> Result<T, CliError> {
        let (databases, roots) = self.sources();
        let private = self.private();
        let printed = Printed { databases, roots: &roots, private: &private };
        Ok(act(&printed)?)
    }

    /// Gives back what was lent, and removes the rest.
    pub fn remove(self, live: &Site) -> Result<(), CliError> {
        let private = self.private();
        self.note.give_back(live, &private)?;
        self.scratch.close().map_err(|source| CliError::io("remove the scratch", source))
    }
}

/// Takes a backup of the site, which nobody may have worked on meanwhile; all that there are of its kind, the newest first.
fn take(live: &Site, reader: &Reader, keeper: &mut Keeper, observer: &dyn Observer) -> Result<Vec<Snapshot>, CliError> {
    let (seq, digest) = reader.head().map_err(EngineError::from)?;
    let position = Position { seq, digest: if seq == 0 { String::new() } else { digest.hex() } };
    let request = Request { position, deployment: None, stop: observer.stop() };
    keeper.take(&request)?;
    if Journal::read(&live.state)?.head().map_err(EngineError::from)?.0 != seq {
        return Err(CliError::refused("somebody worked on the site while it was copied", "try again"));
    }
    Ok(keeper.list()?)
}

/// On a database, two sites of different names do not meet; so what the live site keeps there is nothing to its copy.
fn scratch_name(live: &str) -> String {
    let head: String = live.chars().take(LONGEST - NAME.len()).collect();
    format!("{head}{NAME}")
}

fn source(name: &str, url: DatabaseUrl) -> DatabaseSource {
    wiring::source(&DatabaseConfig { name: name.to_owned(), url })
}

/// The copy as a site of its own; its databases are still to be made.
fn as_site(live: &Site, top: &Path) -> Site {
    let path_of = |root: &RootConfig| {
        let lent = live.scratch.roots.iter().find(|(lent, _)| *lent == root.name).map(|(_, path)| path.clone());
        RootConfig { path: lent.unwrap_or_else(|| top.join("roots").join(&root.name)), ..root.clone() }
    };
    Site {
        name: scratch_name(&live.name),
        databases: Vec::new(),
        roots: live.roots.iter().map(path_of).collect(),
        state: top.join("state"),
        maintenance: None,
        backup: None,
        alerts: Vec::new(),
        lacking: None,
        retention: Retention::default(),
        record: false,
        ..live.clone()
    }
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
            lent::remove(&target).map_err(failed)?;
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
