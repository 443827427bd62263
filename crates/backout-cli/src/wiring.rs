//! From `site.yaml` to open databases and roots, and to what a session needs of the world around.
//!
//! The only place that knows which engine and which kind of root there is. Never changes anything.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backout_backup::{DatabaseSource, Keeper, Purpose, RootSource};
use backout_engine::session::{Surroundings, Targets};
use backout_files::local::{self, LocalRoot};
use backout_files::root::Root;
use backout_journal::{SystemClock, process};
use backout_model::id::ID_LENGTH;
use backout_model::target::Finding;
use backout_package::site::{DatabaseConfig, DatabaseUrl, RootConfig, Site};
use backout_sql::database::Database;
use backout_sql::mariadb::{self, Mariadb};
use backout_sql::postgres::{self, Postgres};
use backout_sql::sqlite::{self, Sqlite};

use crate::error::CliError;

/// With less free than this, in bytes, a disk is called full.
const FULL: u64 = 256 * 1024;

/// Opens everything that a site names.
pub fn targets(site: &Site) -> Result<Targets, CliError> {
    let mut targets = Targets { databases: BTreeMap::new(), roots: BTreeMap::new() };
    for config in &site.databases {
        targets.databases.insert(config.name.clone(), database(site, config)?);
    }
    for config in &site.roots {
        targets.roots.insert(config.name.clone(), root(site, config)?);
    }
    Ok(targets)
}

/// Opens what can be opened; the rest is told as findings.
pub fn targets_as_far_as_possible(site: &Site) -> (Targets, Vec<Finding>) {
    let mut targets = Targets { databases: BTreeMap::new(), roots: BTreeMap::new() };
    let mut findings = Vec::new();
    let mut missing = |target: String, error: &CliError| {
        let what = error.causes().into_iter().chain(error.hints()).collect::<Vec<_>>().join("; ");
        findings.push(Finding { target, what, grave: true });
    };
    for config in &site.databases {
        match database(site, config) {
            Ok(database) => drop(targets.databases.insert(config.name.clone(), database)),
            Err(error) => missing(format!("database {}", config.name), &error),
        }
    }
    for config in &site.roots {
        match root(site, config) {
            Ok(root) => drop(targets.roots.insert(config.name.clone(), root)),
            Err(error) => missing(format!("root {}", config.name), &error),
        }
    }
    (targets, findings)
}

/// What keeps full copies of a site; none where `site.yaml` has no `backup:`.
pub fn keeper(site: &Site) -> Option<Keeper> {
    keeper_of(site, site.name.clone(), Purpose::Backup)
}

/// The same under another name: its copies are in no list of the site's backups.
pub fn keeper_of(site: &Site, name: String, purpose: Purpose) -> Option<Keeper> {
    let backup = site.backup.as_ref()?;
    let (databases, roots) = sources(site);
    Some(Keeper::new(backout_backup::Options {
        site: name,
        repository: backup.repository.clone(),
        password_file: backup.password_file.clone(),
        keep: backup.keep,
        state: site.state.clone(),
        databases,
        roots,
        purpose,
    }))
}

/// The databases and roots of a site as what copies them knows them.
pub fn sources(site: &Site) -> (Vec<DatabaseSource>, Vec<RootSource>) {
    let databases = site.databases.iter().map(source);
    let roots = site.roots.iter().map(|config| RootSource { name: config.name.clone(), path: config.path.clone() });
    (databases.collect(), roots.collect())
}

/// One database as what copies it knows it.
pub fn source(config: &DatabaseConfig) -> DatabaseSource {
    DatabaseSource {
        name: config.name.clone(),
        engine: match &config.url {
            DatabaseUrl::Sqlite { path } => backout_backup::Engine::Sqlite { path: path.clone() },
            DatabaseUrl::Postgres(url) => backout_backup::Engine::Postgres { parameters: url.parameters().clone() },
            DatabaseUrl::Mariadb(url) => backout_backup::Engine::Mariadb { parameters: url.parameters().clone() },
        },
    }
}

/// What a session is told of the world.
pub fn surroundings() -> Surroundings {
    let mut random = fastrand::Rng::new();
    Surroundings {
        clock: Box::new(SystemClock),
        actor: format!("{}@{}", user(), process::host()),
        random: Box::new(move || {
            let mut bytes = [0; ID_LENGTH];
            random.fill(&mut bytes);
            bytes
        }),
    }
}

/// Where a site lies: its state, its databases, its roots.
pub fn places(site: &Site) -> Vec<PathBuf> {
    let databases = site.databases.iter().filter_map(|database| match &database.url {
        DatabaseUrl::Sqlite { path } => Some(path.parent().unwrap_or(path).to_owned()),
        // Where its server keeps it only the server knows.
        DatabaseUrl::Postgres(_) | DatabaseUrl::Mariadb(_) => None,
    });
    let roots = site.roots.iter().map(|root| root.path.clone());
    std::iter::once(site.state.clone()).chain(databases).chain(roots).collect()
}

/// A hint for each disk among those of `places` that has no room left.
pub fn full_disks(places: &[PathBuf]) -> Vec<String> {
    let mut seen = Vec::new();
    for place in places {
        let Some(found) = place.ancestors().find(|path| path.exists()) else { continue };
        let (Ok(meta), Ok(room)) = (fs::metadata(found), rustix::fs::statvfs(found)) else { continue };
        let told = seen.iter().any(|(device, _)| *device == meta.dev());
        if room.f_bavail.saturating_mul(room.f_frsize) < FULL && !told {
            seen.push((meta.dev(), found));
        }
    }
    seen.iter().map(|(_, path)| format!("make room on the disk of {}: it is full", path.display())).collect()
}

fn database(site: &Site, config: &DatabaseConfig) -> Result<Box<dyn Database>, CliError> {
    match &config.url {
        DatabaseUrl::Sqlite { path } => {
            let label = format!("database {}", config.name);
            match fs::metadata(path) {
                Ok(meta) if meta.is_file() => {}
                Ok(_) => {
                    let what = format!("{label}: {} is not a file", path.display());
                    return Err(CliError::refused(what, mend(site, &format!("databases: {}", config.name))));
                }
                Err(error) => {
                    let what = format!("{label}: cannot open {}: {error}", path.display());
                    return Err(CliError::refused(
                        what,
                        format!("make the database first, or {}", mend(site, &format!("databases: {}", config.name))),
                    ));
                }
            }
            let options = sqlite::Options {
                site: site.name.clone(),
                name: config.name.clone(),
                path: path.clone(),
                create: false,
            };
            Ok(Box::new(Sqlite::open(options)?))
        }
        DatabaseUrl::Postgres(url) => {
            let options = postgres::Options {
                site: site.name.clone(),
                name: config.name.clone(),
                parameters: url.parameters().clone(),
            };
            Ok(Box::new(Postgres::open(&options)?))
        }
        DatabaseUrl::Mariadb(url) => {
            let options = mariadb::Options {
                site: site.name.clone(),
                name: config.name.clone(),
                parameters: url.parameters().clone(),
            };
            Ok(Box::new(Mariadb::open(&options)?))
        }
    }
}

/// The files of the site's databases, which may lie in a root.
fn sqlite_files(site: &Site) -> Vec<PathBuf> {
    let file = |url: &DatabaseUrl| match url {
        DatabaseUrl::Sqlite { path } => Some(path.clone()),
        DatabaseUrl::Postgres(_) | DatabaseUrl::Mariadb(_) => None,
    };
    site.databases.iter().filter_map(|database| file(&database.url)).collect()
}

fn root(site: &Site, config: &RootConfig) -> Result<Box<dyn Root>, CliError> {
    match fs::metadata(&config.path) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            let what = format!("root {}: {} is not a directory", config.name, config.path.display());
            return Err(CliError::refused(what, mend(site, &format!("roots: {}", config.name))));
        }
        Err(error) => {
            let what = format!("root {}: cannot open {}: {error}", config.name, config.path.display());
            return Err(CliError::refused(
                what,
                format!("make the directory first, or {}", mend(site, &format!("roots: {}", config.name))),
            ));
        }
    }
    let options = local::Options {
        site: site.name.clone(),
        name: config.name.clone(),
        path: config.path.clone(),
        keep: config.keep.clone(),
        hold: Some(site.state.join("holds")),
        databases: sqlite_files(site),
    };
    let root = LocalRoot::open(options)?;
    hold_is_apart(site, root.hold_path())?;
    Ok(Box::new(root))
}

/// Before-images lie outside every root: a web server must not serve them, and no deployment must touch them.
fn hold_is_apart(site: &Site, hold: &Path) -> Result<(), CliError> {
    for other in &site.roots {
        // A root that is missing holds nothing.
        if fs::canonicalize(&other.path).is_ok_and(|path| hold.starts_with(path)) {
            return Err(CliError::usage(
                format!("before-images would be kept in {}, which lies in the root `{}`", hold.display(), other.name),
                mend(site, "roots:"),
            ));
        }
    }
    Ok(())
}

fn mend(site: &Site, key: &str) -> String {
    format!("mend `{key}` in {}", site.file.display())
}

/// The name of the user that this process runs as, from passwd(5); the number where there is none.
pub fn user() -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&uid.as_str()))
        .and_then(|fields| fields.first().map(|name| (*name).to_owned()))
        .unwrap_or(uid)
}
