//! Private MariaDB servers from the installed binaries, each in a temporary folder behind a socket of its own.
//!
//! As with PostgreSQL: a *shared* server for all tests of a run, with a database a test; a *fresh* one for the test
//! that kills or configures it. Never touches a server that it did not start.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

pub use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};
use rustix::process::{Pid, Signal, kill_process};

use crate::binaries::Account;
use crate::keeper::{self, run, shared_place, someone_works_in, wait_until};

/// The first user of each server: it may do everything, without a password.
pub const SUPERUSER: &str = "root";

/// A running server, or one that a test stopped.
pub struct Server {
    account: Account,
    /// Holds `data`, `socket`, `log`, and `users`, which every process that needs the server keeps locked.
    folder: PathBuf,
    settings: Mutex<Vec<String>>,
    /// The server's process where this process started it.
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

/// In memory each change of the schema takes a tenth of the time, and a killed server loses nothing there either.
const IN_MEMORY: [&str; 2] = ["/dev/shm", "/tmp"];

static NEXT_NAME: AtomicU32 = AtomicU32::new(0);

impl Server {
    /// The server that all tests of the run share. Who restarts, kills or reconfigures one takes a [`Server::fresh`].
    pub fn shared() -> &'static Server {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| {
            let place = shared_place();
            fs::create_dir_all(&place).unwrap();
            let pointer = place.join("mariadb");
            let starting = File::create(pointer.with_extension("starting")).unwrap();
            starting.lock().unwrap();
            let server = join(&pointer).unwrap_or_else(|| {
                let server = Server::start_new(&[], true, &IN_MEMORY);
                fs::write(&pointer, server.folder.as_os_str().as_encoded_bytes()).unwrap();
                server
            });
            starting.unlock().unwrap();
            server
        })
    }

    /// A server of the caller's own.
    pub fn fresh() -> Server {
        Server::with(&[])
    }

    /// A server of the caller's own with further settings: `--log-bin`.
    pub fn with(settings: &[&str]) -> Server {
        Server::start_new(settings, false, &IN_MEMORY)
    }

    /// One with its files on a disk, whose syncs cost what they cost.
    pub fn on_disk(settings: &[&str]) -> Server {
        Server::start_new(settings, false, &["/tmp"])
    }

    fn start_new(settings: &[&str], shared: bool, places: &[&str]) -> Server {
        let account = Account::find("mysql");
        // A socket's path may have 107 bytes, so it cannot lie in the build's folder.
        let place = places.iter().find(|place| Path::new(place).is_dir()).unwrap_or(&"/tmp");
        let folder = tempfile::Builder::new().prefix("backout-my-").tempdir_in(place).unwrap().keep();
        let user = keeper::keep(&folder, "pid", "KILL");
        account.own(&folder);
        let mut install = account.run(program("mariadb-install-db"));
        install.arg("--no-defaults").arg(format!("--datadir={}", folder.join("data").display()));
        install.arg(format!("--tmpdir={}", folder.display()));
        install.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]);
        run(&mut install);
        let settings = Mutex::new(settings.iter().map(|&setting| setting.to_owned()).collect());
        let server = Server { account, folder, settings, child: Mutex::new(None), _user: user, shared };
        server.start();
        server
    }

    /// From its next start on the server has a further setting.
    pub fn set(&self, setting: &str) {
        assert!(!self.shared, "the shared server must stay: take a fresh one");
        self.settings.lock().unwrap().push(setting.to_owned());
    }

    /// Starts a server that was stopped or killed, and waits until it lets users in.
    pub fn start(&self) {
        let mut child = self.child.lock().unwrap();
        assert!(child.is_none(), "the server in {} is running", self.folder.display());
        let log = File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = self.account.run(program("mariadbd"));
        command.arg("--no-defaults").arg(format!("--datadir={}", self.data().display()));
        command.arg(format!("--socket={}", self.socket().display()));
        // A killed server loses nothing at this setting, a machine without power does.
        command.args(["--pid-file=pid", "--skip-networking", "--innodb-flush-log-at-trx-commit=2"]);
        // A server that starts clears its folder of temporary files: it must be nobody else's.
        command.arg(format!("--tmpdir={}", self.folder.display()));
        // So that times of the zone that every test may count on are known by name, without tables of time zones.
        command.env("TZ", "Europe/Berlin").args(&*self.settings.lock().unwrap());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let mut process = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let mut last = String::new();
        wait_until(|| {
            if let Some(status) = process.try_wait().unwrap() {
                panic!("the server ended with {status} while starting:\n{}", self.log());
            }
            match self.try_connect("mysql") {
                Ok(_) => true,
                Err(error) => {
                    last = error.to_string();
                    false
                }
            }
        })
        .unwrap_or_else(|| panic!("the server does not let users in: {last}\n{}", self.log()));
        *child = Some(process);
    }

    /// Kills the server as a machine that fails does: nothing is written any more.
    pub fn kill(&self) {
        assert!(!self.shared, "the shared server must stay: take a fresh one");
        let Some(mut process) = self.child.lock().unwrap().take() else {
            panic!("the server in {} is not running", self.folder.display())
        };
        kill_process(Pid::from_child(&process), Signal::KILL).unwrap();
        process.wait().unwrap();
        let data = self.data().canonicalize().unwrap();
        wait_until(|| !someone_works_in(&data)).expect("the killed server does not end");
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// What the server wrote to its log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("log")).unwrap_or_default()).into_owned()
    }

    /// A session in a database, as the superuser.
    pub fn connect(&self, database: &str) -> Conn {
        self.try_connect(database).unwrap_or_else(|error| panic!("cannot connect to {database}: {error}"))
    }

    fn try_connect(&self, database: &str) -> Result<Conn, mysql::Error> {
        let socket = self.socket().display().to_string();
        Conn::new(OptsBuilder::new().socket(Some(socket)).user(Some(SUPERUSER)).db_name(Some(database)))
    }

    /// A client program (`mariadb`, `mariadb-dump`), set to reach the server.
    pub fn client(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        command.args(["--no-defaults", "-u", SUPERUSER]).arg(format!("--socket={}", self.socket().display()));
        command
    }

    /// A new, empty database.
    pub fn database(&self) -> Database<'_> {
        let name = format!("t{}_{}", std::process::id(), NEXT_NAME.fetch_add(1, Ordering::Relaxed));
        let sql = format!("CREATE DATABASE {name} CHARACTER SET utf8mb4");
        self.connect("mysql").query_drop(sql).unwrap();
        Database { server: self, name }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.shared {
            return;
        }
        // What is left the keeper does once the lock is let go.
        if let Some(mut process) = self.child.lock().ok().and_then(|mut child| child.take())
            && kill_process(Pid::from_child(&process), Signal::KILL).is_ok()
        {
            drop(process.wait());
        }
    }
}

impl Database<'_> {
    pub fn server(&self) -> &Server {
        self.server
    }

    /// The URL, by the socket and as the superuser.
    pub fn url(&self) -> String {
        self.url_as(SUPERUSER)
    }

    /// The URL for another user, who needs no password.
    pub fn url_as(&self, user: &str) -> String {
        format!("mariadb://{user}@localhost/{}?socket={}", self.name, self.server.socket().display())
    }

    /// A session, as the superuser.
    pub fn connect(&self) -> Conn {
        self.server.connect(&self.name)
    }

    /// Runs a script by the stock client, which stops at the first error; what it printed, without headers.
    pub fn script(&self, script: &str) -> String {
        let mut command = self.server.client("mariadb");
        command.args(["-N", "--default-character-set=utf8mb4", &self.name]);
        let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = client.stdin.take().unwrap();
        // A thread of its own, so that a full pipe of what it prints holds nothing up.
        let script = script.as_bytes().to_vec();
        let writer = std::thread::spawn(move || input.write_all(&script));
        let output = client.wait_with_output().unwrap();
        let written = writer.join().unwrap();
        assert!(output.status.success(), "mariadb: {}", String::from_utf8_lossy(&output.stderr));
        written.unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        // A test may have killed the server, and then there is nothing to drop.
        if let Ok(mut session) = self.server.try_connect("mysql") {
            drop(session.query_drop(format!("DROP DATABASE IF EXISTS {}", self.name)));
        }
    }
}

/// The server that an earlier process started, if it is still there.
fn join(pointer: &Path) -> Option<Server> {
    let (folder, user) = keeper::join(pointer)?;
    let account = Account::find("mysql");
    let server =
        Server { account, folder, settings: Mutex::default(), child: Mutex::new(None), _user: user, shared: true };
    server.try_connect("mysql").ok()?;
    Some(server)
}

/// Where a program of MariaDB is: in `$PATH`, or where servers usually are.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from));
    folders
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("MariaDB's {name} is not installed: run script/setup"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_server_gives_each_test_a_database() {
        let server = Server::shared();
        let (a, b) = (server.database(), server.database());
        a.script("CREATE TABLE t(a int); INSERT INTO t VALUES (1)");
        assert_eq!(a.script("SELECT a FROM t"), "1\n");
        assert_eq!(b.script("SHOW TABLES"), "");
    }

    #[test]
    fn a_killed_server_starts_again_with_what_was_committed() {
        let server = Server::fresh();
        let database = server.database();
        database.script("CREATE TABLE t(a int) ENGINE=InnoDB; INSERT INTO t VALUES (2)");
        let mut open = database.connect();
        open.query_drop("START TRANSACTION").unwrap();
        open.query_drop("INSERT INTO t VALUES (1)").unwrap();
        server.kill();
        assert!(open.query_drop("COMMIT").is_err());
        server.start();
        assert_eq!(database.script("SELECT a FROM t"), "2\n");
    }
}
