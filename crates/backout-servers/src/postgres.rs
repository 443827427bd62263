//! Private PostgreSQL servers from the installed binaries, each in a temporary folder behind a socket of its own.
//!
//! A *shared* server serves all tests of a test run, whatever processes they are in, with a database a test; a *fresh*
//! one is for the test that kills it. A server and its folder go when the last process that uses it has ended, however
//! it ended: each holds a lock, and a keeper waits for all of them. Never touches a server that it did not start.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use postgres::{Client, NoTls};
use rustix::process::{Pid, Signal, kill_process};

use crate::binaries::Binaries;
use crate::keeper::{self, free_port, run, shared_place, someone_works_in, wait_until};

/// The first user of each server: a superuser, without a password unless the test makes one.
pub const SUPERUSER: &str = "postgres";

/// What a fresh server is like.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Syncs to the disk. A killed server loses nothing without it, a machine without power does.
    pub fsync: bool,
    /// Listens on a free port of 127.0.0.1, too.
    pub tcp: bool,
    /// Further settings, by name.
    pub settings: Vec<(&'static str, String)>,
}

/// A running server, or one that a test stopped.
pub struct Server {
    binaries: Binaries,
    /// Holds `data`, the socket, `log`, and `users`, which every process that needs the server keeps locked.
    folder: PathBuf,
    arguments: Vec<String>,
    port: u16,
    /// The postmaster where this process started it.
    child: Mutex<Option<Child>>,
    _user: File,
    /// A shared server outlives this process.
    shared: bool,
}

/// A database of its own, dropped with this value.
pub struct Database<'a> {
    server: &'a Server,
    pub name: String,
}

static NEXT_NAME: AtomicU32 = AtomicU32::new(0);

impl Server {
    /// The server that all tests of the run share. Who restarts, kills or reconfigures one takes a [`Server::fresh`].
    pub fn shared() -> &'static Server {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| {
            let binaries = Binaries::find();
            let place = shared_place();
            fs::create_dir_all(&place).unwrap();
            let pointer = place.join(format!("postgres-{}", binaries.version));
            let starting = File::create(pointer.with_extension("starting")).unwrap();
            starting.lock().unwrap();
            let server = join(&binaries, &pointer).unwrap_or_else(|| {
                let setup = Setup { settings: vec![("max_connections", "200".to_owned())], ..Setup::default() };
                let server = Server::start_new(binaries, &setup, true);
                fs::write(&pointer, server.folder.as_os_str().as_encoded_bytes()).unwrap();
                server
            });
            starting.unlock().unwrap();
            server
        })
    }

    /// A server of the caller's own.
    pub fn fresh() -> Server {
        Server::with(&Setup::default())
    }

    /// A server of the caller's own, set up as wanted.
    pub fn with(setup: &Setup) -> Server {
        Server::start_new(Binaries::find(), setup, false)
    }

    fn start_new(binaries: Binaries, setup: &Setup, shared: bool) -> Server {
        // A socket's path may have 107 bytes, so it cannot lie in the build's folder.
        let folder = tempfile::Builder::new().prefix("backout-pg-").tempdir_in("/tmp").unwrap().keep();
        let user = keeper::keep(&folder, "postmaster.pid", "QUIT");
        binaries.account.own(&folder);
        let data = folder.join("data");
        let mut initdb = binaries.command("initdb");
        initdb.arg("--pgdata").arg(&data).args(["--username", SUPERUSER, "--auth", "trust", "--no-sync"]);
        initdb.args(["--encoding", "UTF8", "--locale", "C.UTF-8"]);
        run(&mut initdb);
        let port = if setup.tcp { free_port() } else { 5432 };
        let on_off = |on: bool| if on { "on" } else { "off" };
        let mut settings = vec![
            ("listen_addresses", if setup.tcp { "127.0.0.1".to_owned() } else { String::new() }),
            ("port", port.to_string()),
            ("unix_socket_directories", folder.display().to_string()),
            ("fsync", on_off(setup.fsync).to_owned()),
            ("full_page_writes", on_off(setup.fsync).to_owned()),
            ("wal_level", "logical".to_owned()),
        ];
        settings.extend(setup.settings.iter().cloned());
        let arguments =
            settings.iter().flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]).collect();
        let server = Server { binaries, folder, arguments, port, child: Mutex::new(None), _user: user, shared };
        server.start();
        server
    }

    /// Starts a server that was stopped or killed, and waits until it lets users in.
    pub fn start(&self) {
        let mut child = self.child.lock().unwrap();
        assert!(child.is_none(), "the server in {} is running", self.folder.display());
        let log = File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = self.binaries.command("postgres");
        command.arg("-D").arg(self.data()).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let mut postmaster = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let mut last = String::new();
        wait_until(|| {
            if let Some(status) = postmaster.try_wait().unwrap() {
                panic!("the server ended with {status} while starting:\n{}", self.log());
            }
            match self.try_connect("postgres") {
                Ok(_) => true,
                Err(error) => {
                    last = format!("{error:?}");
                    false
                }
            }
        })
        .unwrap_or_else(|| panic!("the server does not let users in: {last}\n{}", self.log()));
        *child = Some(postmaster);
    }

    /// Stops the server in good order; its sessions are ended.
    pub fn stop(&self) {
        self.end(Signal::INT);
    }

    /// Kills the server as a machine that fails does: nothing is written any more.
    pub fn kill(&self) {
        self.end(Signal::KILL);
    }

    /// Stops the server at once, without its writing down where it stands: the next start recovers.
    pub fn stop_at_once(&self) {
        self.end(Signal::QUIT);
    }

    fn end(&self, signal: Signal) {
        assert!(!self.shared, "the shared server must stay: take a fresh one");
        let Some(mut postmaster) = self.child.lock().unwrap().take() else {
            panic!("the server in {} is not running", self.folder.display())
        };
        kill_process(Pid::from_child(&postmaster), signal).unwrap();
        postmaster.wait().unwrap();
        // After a kill the sessions notice by themselves, and until the last is gone no new server may start.
        let data = self.data().canonicalize().unwrap();
        wait_until(|| !someone_works_in(&data)).expect("sessions of the killed server do not end");
    }

    /// The folder of the server's data.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The folder of the server's socket.
    pub fn socket(&self) -> &Path {
        &self.folder
    }

    /// The port; where the server is not asked to listen on TCP, it only names the socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The postmaster's process, of a running server.
    pub fn pid(&self) -> u32 {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        text.lines().next().unwrap().parse().unwrap()
    }

    /// PostgreSQL's major version.
    pub fn version(&self) -> u32 {
        self.binaries.version
    }

    /// What the server wrote to its log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("log")).unwrap_or_default()).into_owned()
    }

    /// A program that is run as the server is.
    pub(crate) fn command_of(&self, program: PathBuf) -> Command {
        self.binaries.run(program)
    }

    /// Gives a folder to whom the server runs as.
    pub(crate) fn give_to_account(&self, folder: &Path) {
        self.binaries.account.own(folder);
    }

    /// A client program (`psql`, `pg_dump`, `pgbench`), set to reach the server.
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.client(program));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        command.env("PGHOST", &self.folder).env("PGPORT", self.port.to_string()).env("PGUSER", SUPERUSER);
        command.env("PSQLRC", "/dev/null").env("PGPASSFILE", "/nonexistent").env("PGSYSCONFDIR", "/nonexistent");
        command
    }

    /// A session in a database, as the superuser.
    pub fn connect(&self, database: &str) -> Client {
        self.try_connect(database).unwrap_or_else(|error| panic!("cannot connect to {database}: {error:?}"))
    }

    fn try_connect(&self, database: &str) -> Result<Client, postgres::Error> {
        postgres::Config::new()
            .host_path(&self.folder)
            .port(self.port)
            .user(SUPERUSER)
            .dbname(database)
            .connect_timeout(Duration::from_secs(10))
            .connect(NoTls)
    }

    /// A new, empty database.
    pub fn database(&self) -> Database<'_> {
        self.make("template0")
    }

    /// The same, of another encoding than UTF-8.
    pub fn database_in(&self, encoding: &str) -> Database<'_> {
        self.make(&format!("template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"))
    }

    /// A new database that is what `fill` makes of an empty one. It is filled once a server and name, and copied.
    pub fn database_like(&self, name: &str, fill: impl FnOnce(&Database<'_>)) -> Database<'_> {
        let template = format!("like_{name}");
        let mut client = self.connect("postgres");
        // Tests of other processes may want the same at the same time.
        client.execute("SELECT pg_advisory_lock(hashtext($1))", &[&template]).unwrap();
        let there = client.query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&template]).unwrap().is_some();
        if !there {
            let filling = self.make("template0");
            fill(&filling);
            client.batch_execute(&format!("ALTER DATABASE {} RENAME TO {template}", filling.name)).unwrap();
            std::mem::forget(filling);
        }
        let made = self.make(&template);
        drop(client);
        made
    }

    fn make(&self, template: &str) -> Database<'_> {
        let name = format!("t{}_{}", std::process::id(), NEXT_NAME.fetch_add(1, Ordering::Relaxed));
        self.connect("postgres").batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).unwrap();
        Database { server: self, name }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.shared {
            return;
        }
        // What is left the keeper does once the lock is let go.
        if let Some(mut postmaster) = self.child.lock().ok().and_then(|mut child| child.take())
            && kill_process(Pid::from_child(&postmaster), Signal::QUIT).is_ok()
        {
            drop(postmaster.wait());
        }
    }
}

impl Database<'_> {
    pub fn server(&self) -> &Server {
        self.server
    }

    /// The URL, with the socket as host and the superuser as user.
    pub fn url(&self) -> String {
        self.url_as(SUPERUSER)
    }

    /// The URL for another role, which needs no password.
    pub fn url_as(&self, role: &str) -> String {
        format!(
            "postgresql:///{}?host={}&port={}&user={role}",
            self.name,
            self.server.folder.display(),
            self.server.port
        )
    }

    /// A session, as the superuser.
    pub fn connect(&self) -> Client {
        self.server.connect(&self.name)
    }

    /// Runs a script by psql, which stops at the first error; what it printed, unaligned and without headers.
    pub fn psql(&self, script: &str) -> String {
        self.psql_bytes(script.as_bytes())
    }

    /// As [`Database::psql`], for a script that may not be UTF-8.
    pub fn psql_bytes(&self, script: &[u8]) -> String {
        let mut command = self.server.client("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.name, "-f", "-"]);
        let mut psql =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("psql");
        let mut input = psql.stdin.take().unwrap();
        // A thread of its own, so that a full pipe of what it prints holds nothing up.
        let script = script.to_vec();
        let writer = std::thread::spawn(move || input.write_all(&script));
        let output = psql.wait_with_output().unwrap();
        let written = writer.join().unwrap();
        assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        written.unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        // A test may have killed the server, and then there is nothing to drop.
        if let Ok(mut client) = self.server.try_connect("postgres") {
            drop(client.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)));
        }
    }
}

/// The server that an earlier process started, if it is still there.
fn join(binaries: &Binaries, pointer: &Path) -> Option<Server> {
    let (folder, user) = keeper::join(pointer)?;
    let server = Server {
        binaries: binaries.clone(),
        folder,
        arguments: Vec::new(),
        port: 5432,
        child: Mutex::new(None),
        _user: user,
        shared: true,
    };
    server.try_connect("postgres").ok()?;
    Some(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_server_gives_each_test_a_database() {
        let server = Server::shared();
        let (a, b) = (server.database(), server.database());
        a.psql("CREATE TABLE t(a int); INSERT INTO t VALUES (1)");
        assert_eq!(a.psql("SELECT a FROM t"), "1\n");
        assert_eq!(b.psql("SELECT to_regclass('t') IS NULL"), "t\n");
        let mut count = 0;
        for _ in 0..2 {
            let copy = server.database_like(&format!("own_{}", std::process::id()), |fresh| {
                count += 1;
                fresh.psql("CREATE TABLE s AS SELECT 7 AS a");
            });
            assert_eq!(copy.psql("SELECT a FROM s"), "7\n");
        }
        assert_eq!(count, 1);
        let name = a.name.clone();
        drop(a);
        let left = server.connect("postgres").query("SELECT 1 FROM pg_database WHERE datname = $1", &[&name]).unwrap();
        assert!(left.is_empty());
    }

    #[test]
    fn a_killed_server_starts_again_with_what_was_committed() {
        let server = Server::with(&Setup { tcp: true, ..Setup::default() });
        let database = server.database();
        database.psql("CREATE TABLE t(a int)");
        let mut open = database.connect();
        open.batch_execute("BEGIN; INSERT INTO t VALUES (1)").unwrap();
        database.psql("INSERT INTO t VALUES (2)");
        server.kill();
        assert!(open.batch_execute("COMMIT").is_err());
        server.start();
        assert_eq!(database.psql("SELECT a FROM t"), "2\n");
        let by_tcp = format!("host=127.0.0.1 port={} user={SUPERUSER} dbname=postgres", server.port());
        Client::connect(&by_tcp, NoTls).unwrap();
        server.stop();
        assert!(server.try_connect("postgres").is_err());
    }

    #[test]
    fn a_server_goes_with_its_last_user() {
        let server = Server::fresh();
        let folder = server.folder.clone();
        let pid = server.pid();
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(server);
        wait_until(|| !folder.exists()).expect("the keeper removes the folder");
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
