//! A site in a scratch directory: databases, roots and a state directory of its own, and the engine's commands on it.
//!
//! Every command opens a session of its own, as a process would, and records what it told.

use std::path::{Path, PathBuf};

use backout_engine::deploy::{self, deploy};
use backout_engine::error::EngineError;
use backout_engine::observer::{Happening, Observer};
use backout_engine::outcome::Outcome;
use backout_engine::session::{Session, Targets};
use backout_engine::{redo, resume, retry, undo, verify};
use backout_files::local::{LocalRoot, Options as RootOptions};
use backout_journal::{Journal, Reader};
use backout_model::conflict::OnConflict;
use backout_model::target::{Described, Finding};
use backout_package::package::Package;
use backout_package::site::{DatabaseUrl, Site};
use backout_package::url_postgres::{self, PostgresUrl};
use backout_servers::mariadb;
use backout_servers::postgres::{self, Server};
use backout_sql::database::Database;
use backout_sql::mariadb::{Mariadb, Options as MariadbOptions};
use backout_sql::postgres::{Options as PostgresOptions, Postgres};
use backout_sql::sqlite::{Options as SqliteOptions, Sqlite};
use rusqlite::Connection;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::observer::Recorder;
use crate::package::Pkg;
use crate::surroundings::{Ids, Ticking, surroundings};
use crate::tree::{SITE_TIME, Tree};

/// What a site is made of.
#[derive(Default)]
pub struct Builder {
    databases: Vec<(String, Content)>,
    roots: Vec<(String, Tree, Vec<String>)>,
    maintenance: Option<(String, String)>,
    below: Option<PathBuf>,
}

enum Content {
    /// The file to begin with, the script to run on it.
    File(Vec<u8>, String),
    /// With the URL under which the tool finds it.
    Postgres(postgres::Database<'static>, String),
    Mariadb(mariadb::Database<'static>, String),
}

/// A database of a site.
enum Live {
    /// The file beside `site.yaml`.
    Sqlite,
    Postgres(postgres::Database<'static>),
    Mariadb(mariadb::Database<'static>),
}

/// A site that is removed when it is dropped.
pub struct TestSite {
    dir: TempDir,
    databases: Vec<(String, Live)>,
    roots: Vec<String>,
    clock: Ticking,
    ids: Ids,
}

/// What came of a command.
pub struct Done<T = Outcome> {
    pub result: Result<T, EngineError>,
    pub heard: Vec<Happening>,
}

impl Builder {
    /// A database filled by `script`.
    #[must_use]
    pub fn database(self, name: &str, script: &str) -> Self {
        self.database_from(name, &[], script)
    }

    /// A database file of which `script` makes the site's.
    #[must_use]
    pub fn database_from(mut self, name: &str, file: &[u8], script: &str) -> Self {
        self.databases.push((name.to_owned(), Content::File(file.to_owned(), script.to_owned())));
        self
    }

    /// A new PostgreSQL database of the server, filled by `script`.
    #[must_use]
    pub fn postgres(self, name: &str, server: &'static Server, script: &str) -> Self {
        self.postgres_at(name, server, script, postgres::Database::url)
    }

    /// As [`Builder::postgres`], reached as the URL says.
    #[must_use]
    pub fn postgres_at(
        mut self,
        name: &str,
        server: &'static Server,
        script: &str,
        url: impl FnOnce(&postgres::Database<'static>) -> String,
    ) -> Self {
        let database = server.database();
        database.connect().batch_execute(script).unwrap();
        let url = url(&database);
        self.databases.push((name.to_owned(), Content::Postgres(database, url)));
        self
    }

    /// A new MariaDB database of the server, filled by `script` as the stock client runs it.
    #[must_use]
    pub fn mariadb(self, name: &str, server: &'static mariadb::Server, script: &str) -> Self {
        self.mariadb_as(name, server, script, mariadb::SUPERUSER)
    }

    /// As [`Builder::mariadb`], reached as another user, who needs no password.
    #[must_use]
    pub fn mariadb_as(mut self, name: &str, server: &'static mariadb::Server, script: &str, user: &str) -> Self {
        let database = server.database();
        database.script(script);
        let url = database.url_as(user);
        self.databases.push((name.to_owned(), Content::Mariadb(database, url)));
        self
    }

    #[must_use]
    pub fn root(mut self, name: &str, tree: Tree) -> Self {
        self.roots.push((name.to_owned(), tree, Vec::new()));
        self
    }

    /// Paths of the root named last that no deployment touches.
    #[must_use]
    pub fn keep(mut self, paths: &[&str]) -> Self {
        if let Some((_, _, keep)) = self.roots.last_mut() {
            keep.extend(paths.iter().map(|&path| path.to_owned()));
        }
        self
    }

    /// Shell scripts that enter and leave maintenance mode; they run in the site's directory.
    #[must_use]
    pub fn maintenance(mut self, enter: &str, leave: &str) -> Self {
        self.maintenance = Some((enter.to_owned(), leave.to_owned()));
        self
    }

    /// Where the scratch directory is made, if not in the usual place.
    #[must_use]
    pub fn below(mut self, directory: Option<&Path>) -> Self {
        self.below = directory.map(Path::to_owned);
        self
    }

    pub fn build(self) -> TestSite {
        let mut dir = match &self.below {
            Some(below) => TempDir::with_prefix_in("backout-test-", below).unwrap(),
            None => TempDir::with_prefix("backout-test-").unwrap(),
        };
        if std::env::var_os("BACKOUT_KEEP").is_some() {
            dir.disable_cleanup(true);
            eprintln!("kept: {}", dir.path().display());
        }
        for (name, content) in &self.databases {
            let Content::File(file, script) = content else { continue };
            let path = dir.path().join(format!("{name}.sqlite"));
            std::fs::write(&path, file).unwrap();
            let conn = Connection::open(path).unwrap();
            conn.execute_batch(script).unwrap();
        }
        for (name, tree, _) in &self.roots {
            tree.write(&dir.path().join(name), SITE_TIME);
        }
        std::fs::write(dir.path().join("site.yaml"), self.manifest().to_string()).unwrap();
        let live = |content| match content {
            Content::File(..) => Live::Sqlite,
            Content::Postgres(database, _) => Live::Postgres(database),
            Content::Mariadb(database, _) => Live::Mariadb(database),
        };
        TestSite {
            dir,
            databases: self.databases.into_iter().map(|(name, content)| (name, live(content))).collect(),
            roots: self.roots.into_iter().map(|(name, _, _)| name).collect(),
            clock: Ticking::default(),
            ids: Ids::default(),
        }
    }

    fn manifest(&self) -> Value {
        let databases: Map<String, Value> = self
            .databases
            .iter()
            .map(|(name, content)| {
                let url = match content {
                    Content::File(..) => format!("sqlite:{name}.sqlite"),
                    Content::Postgres(_, url) => url.clone(),
                    Content::Mariadb(_, url) => url.clone(),
                };
                (name.clone(), json!({ "url": url }))
            })
            .collect();
        let roots: Map<String, Value> =
            self.roots.iter().map(|(name, _, keep)| (name.clone(), json!({ "path": name, "keep": keep }))).collect();
        let mut manifest = json!({ "site": "shop", "databases": databases, "roots": roots, "state": "state" });
        if let Some((enter, leave)) = &self.maintenance {
            manifest["maintenance"] =
                json!({ "enter": crate::package::shell(enter), "leave": crate::package::shell(leave) });
        }
        manifest
    }
}

/// A directory in memory in which a file system keeps all that the fingerprints compare; none where there is no such.
/// The suites that make thousands of sites work there.
pub fn memory() -> Option<&'static Path> {
    static FOUND: std::sync::LazyLock<Option<&'static Path>> = std::sync::LazyLock::new(|| {
        let shared = Path::new("/dev/shm");
        let probe = tempfile::NamedTempFile::new_in(shared).ok()?;
        rustix::fs::setxattr(probe.path(), "user.backout", b"1", rustix::fs::XattrFlags::empty()).ok()?;
        Some(shared)
    });
    *FOUND
}

impl TestSite {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Beside the databases and roots: for packages and whatever a test's commands write.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn databases(&self) -> impl Iterator<Item = &str> {
        self.databases.iter().map(|(name, _)| name.as_str())
    }

    /// The PostgreSQL database of that name; none where it is a SQLite file.
    pub fn postgres(&self, name: &str) -> Option<&postgres::Database<'static>> {
        self.databases.iter().find(|(own, _)| own == name).and_then(|(_, live)| match live {
            Live::Sqlite | Live::Mariadb(_) => None,
            Live::Postgres(database) => Some(database),
        })
    }

    /// The MariaDB database of that name; none where it is another engine's.
    pub fn mariadb(&self, name: &str) -> Option<&mariadb::Database<'static>> {
        self.databases.iter().find(|(own, _)| own == name).and_then(|(_, live)| match live {
            Live::Sqlite | Live::Postgres(_) => None,
            Live::Mariadb(database) => Some(database),
        })
    }

    pub fn roots(&self) -> impl Iterator<Item = &str> {
        self.roots.iter().map(String::as_str)
    }

    pub fn database(&self, name: &str) -> PathBuf {
        self.dir().join(format!("{name}.sqlite"))
    }

    pub fn root(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.dir().join("state")
    }

    /// A connection as an application has it: foreign keys are enforced, a busy database is waited for.
    pub fn connect(&self, name: &str) -> Connection {
        let conn = Connection::open(self.database(name)).unwrap();
        conn.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
        conn
    }

    /// The first value of a query on the database `main`, as text.
    pub fn value(&self, query: &str) -> String {
        let value: rusqlite::types::Value = self.connect("main").query_row(query, [], |row| row.get(0)).unwrap();
        match value {
            rusqlite::types::Value::Null => "NULL".to_owned(),
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Real(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            rusqlite::types::Value::Blob(bytes) => format!("{bytes:02x?}"),
        }
    }

    pub fn execute(&self, script: &str) {
        self.connect("main").execute_batch(script).unwrap();
    }

    /// The text of a file below the site's directory; none where it is not there.
    pub fn text(&self, path: &str) -> Option<String> {
        match std::fs::read_to_string(self.dir().join(path)) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => panic!("cannot read {path}: {error}"),
        }
    }

    pub fn config(&self) -> Site {
        Site::load(&self.dir().join("site.yaml")).unwrap()
    }

    /// The targets, wired as the binary wires them.
    pub fn targets(&self, config: &Site) -> Result<Targets, EngineError> {
        let mut targets = Targets { databases: Default::default(), roots: Default::default() };
        for database in &config.databases {
            let (site, name) = (config.name.clone(), database.name.clone());
            let opened: Box<dyn Database> = match &database.url {
                DatabaseUrl::Sqlite { path } => {
                    Box::new(Sqlite::open(SqliteOptions { site, name, path: path.clone(), create: false })?)
                }
                DatabaseUrl::Postgres(url) => Box::new(Postgres::open(&postgres_options(site, name, url))?),
                DatabaseUrl::Mariadb(url) => {
                    let parameters = url.parameters().clone();
                    Box::new(Mariadb::open(&MariadbOptions { site, name, parameters })?)
                }
            };
            targets.databases.insert(database.name.clone(), opened);
        }
        for root in &config.roots {
            let options = RootOptions {
                site: config.name.clone(),
                name: root.name.clone(),
                path: root.path.clone(),
                keep: root.keep.clone(),
                hold: Some(config.state.join("hold")),
                databases: config
                    .databases
                    .iter()
                    .filter_map(|database| match &database.url {
                        DatabaseUrl::Sqlite { path } => Some(path.clone()),
                        _ => None,
                    })
                    .collect(),
            };
            targets.roots.insert(root.name.clone(), Box::new(LocalRoot::open(options)?));
        }
        Ok(targets)
    }

    /// Takes the locks, as a process does at its start.
    pub fn open<'o>(&self, purpose: &str, observer: &'o mut dyn Observer) -> Result<Session<'o>, EngineError> {
        let config = self.config();
        let targets = self.targets(&config)?;
        Session::open(config, targets, surroundings(&self.clock, &self.ids), purpose, observer)
    }

    /// One command in a session of its own.
    pub fn command<T>(
        &self,
        purpose: &str,
        mut recorder: Recorder,
        act: impl FnOnce(&mut Session<'_>) -> Result<T, EngineError>,
    ) -> Done<T> {
        let result = self.open(purpose, &mut recorder).and_then(|mut session| act(&mut session));
        Done { result, heard: recorder.heard }
    }

    /// Writes a package below the site's directory; the same package may be written again.
    pub fn write(&self, package: &Pkg) -> PathBuf {
        let at = self.dir().join("packages").join(&package.name);
        if at.exists() {
            std::fs::remove_dir_all(&at).unwrap();
        }
        package.write(&at)
    }

    pub fn deploy(&self, package: &Pkg) -> Done {
        let at = self.write(package);
        self.deploy_from(&at, Recorder::default())
    }

    /// Deploys a package that lies in a directory; steps declared irreversible are accepted.
    pub fn deploy_from(&self, at: &Path, recorder: Recorder) -> Done {
        self.command("deploy", recorder, |session| {
            let package = Package::load(at)?;
            let options = deploy::Options { accept_irreversible: true, source: at.to_owned(), confirm_within: None };
            deploy(session, &package, options)
        })
    }

    pub fn undo(&self, what: Option<&str>) -> Done {
        self.undo_on(what, OnConflict::Stop)
    }

    pub fn undo_on(&self, what: Option<&str>, on_conflict: OnConflict) -> Done {
        self.undo_by(what, undo::Options { on_conflict, unattributed: false })
    }

    pub fn undo_by(&self, what: Option<&str>, options: undo::Options) -> Done {
        self.command("undo", Recorder::default(), |session| undo::undo(session, what, options))
    }

    /// What an undo would do, and what it would come to.
    pub fn undo_plan(&self, what: Option<&str>, on_conflict: OnConflict) -> (Vec<Described>, Done) {
        let mut described = Vec::new();
        let done = self.command("undo --plan", Recorder::default(), |session| {
            undo::plan(session, what, undo::Options { on_conflict, unattributed: false }, &mut |each| {
                described.push(each)
            })
        });
        (described, done)
    }

    pub fn redo(&self) -> Done {
        self.command("redo", Recorder::default(), redo::redo)
    }

    pub fn retry(&self, what: &str) -> Done {
        self.command("retry", Recorder::default(), |session| retry::retry(session, what))
    }

    pub fn resume(&self) -> Done<Option<Outcome>> {
        self.command("resume", Recorder::default(), resume::resume)
    }

    /// The journal without its lock.
    pub fn journal(&self) -> Reader {
        Journal::read(&self.state()).unwrap()
    }

    /// What `verify` finds grave.
    pub fn grave(&self) -> Vec<Finding> {
        let config = self.config();
        let mut targets = self.targets(&config).unwrap();
        let mut grave = Vec::new();
        let each = &mut |finding: Finding| {
            if finding.grave {
                grave.push(finding);
            }
        };
        verify::verify(&config, &mut targets, &self.journal(), each).unwrap();
        grave
    }

    /// After a played crash: lets the locks that the "dead" process left in the databases look like a dead one's, so
    /// that the next session takes them over by the usual way. (The process of the test still lives; the lock of the
    /// state directory went with the session's file.)
    pub fn bury_the_dead(&self) {
        for (name, live) in &self.databases {
            if let Live::Postgres(database) = live {
                crate::postgres_dump::bury_the_dead(database);
                continue;
            }
            if let Live::Mariadb(database) = live {
                crate::mariadb_dump::bury_the_dead(database);
                continue;
            }
            let conn = self.connect(name);
            let there: bool = conn
                .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'backout_shop'", [], |row| row.get(0))
                .unwrap();
            if there {
                let buried = "UPDATE backout_shop SET holder = json_set(holder, '$.boot_id', 'an earlier boot')";
                conn.execute(buried, []).unwrap();
            }
        }
    }
}

/// How the engine reaches a PostgreSQL database, as the binary tells it.
pub fn postgres_options(site: String, name: String, url: &PostgresUrl) -> PostgresOptions {
    PostgresOptions { site, name, parameters: url.parameters().clone() }
}

/// A URL as `site.yaml` may hold it, without variables.
pub fn postgres_url(text: &str) -> PostgresUrl {
    let rest = text.split_once(':').unwrap().1;
    url_postgres::parse(rest, Path::new("/"), &|_| None).unwrap_or_else(|(what, _)| panic!("{what}"))
}
