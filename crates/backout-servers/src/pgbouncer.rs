//! A pooler of PostgreSQL's sessions in front of a private server. Never installs one: where it is missing it says so.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use postgres::NoTls;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::binaries::find;
use crate::keeper::wait_until;
use crate::postgres::{Database, SUPERUSER, Server};

/// PgBouncer under way, on a socket of its own; it ends with this value.
pub struct Pooler {
    folder: TempDir,
    child: Child,
}

const PORT: u16 = 6432;

impl Pooler {
    /// Starts one in `session` or `transaction` mode; none where PgBouncer is not installed, which is told on stderr.
    pub fn start(server: &Server, mode: &str) -> Option<Pooler> {
        let Some(place) = find("pgbouncer")
            .or_else(|| Some(PathBuf::from("/usr/sbin")).filter(|sbin| sbin.join("pgbouncer").exists()))
        else {
            eprintln!(
                "NOT TESTED: pgbouncer is not installed (run script/setup): nothing was shown of a pooler in {mode} mode"
            );
            return None;
        };
        let folder = tempfile::Builder::new().prefix("backout-pool-").tempdir_in("/tmp").unwrap();
        server.give_to_account(folder.path());
        let shown = folder.path().display();
        let config = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={} port={} user={SUPERUSER}\n[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\n\
             unix_socket_dir = {shown}\nauth_type = any\npool_mode = {mode}\nlogfile = {shown}/log\n",
            server.socket().display(),
            server.port()
        );
        fs::write(&config, text).unwrap();
        let mut command = server.command_of(place.join("pgbouncer"));
        command.arg("-q").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let pooler = Pooler { folder, child };
        let connects = || {
            let mut config = postgres::Config::new();
            config.host_path(pooler.folder.path()).port(PORT).user(SUPERUSER).dbname("postgres");
            config.connect_timeout(Duration::from_secs(10)).connect(NoTls).is_ok()
        };
        wait_until(connects).unwrap_or_else(|| {
            panic!(
                "pgbouncer lets nobody in: {}",
                fs::read_to_string(pooler.folder.path().join("log")).unwrap_or_default()
            )
        });
        Some(pooler)
    }

    /// The URL of a database by way of the pooler.
    pub fn url(&self, database: &Database<'_>) -> String {
        let folder = self.folder.path().display();
        format!("postgresql:///{}?host={folder}&port={PORT}&user={SUPERUSER}", database.name)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if kill_process(Pid::from_child(&self.child), Signal::TERM).is_ok() {
            drop(self.child.wait());
        }
    }
}
