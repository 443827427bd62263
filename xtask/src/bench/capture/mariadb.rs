//! The site's database on a private server of MariaDB whose files are on a disk.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use backout_servers::mariadb::{SUPERUSER, Server};
use mysql::prelude::Queryable as _;

use super::{Engine, Other};
use crate::mariadb::copy;

pub struct Mariadb {
    server: Server,
}

impl Mariadb {
    pub fn new() -> Self {
        let settings =
            ["--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=1G", "--innodb-log-file-size=1G"];
        Self { server: Server::on_disk(&settings) }
    }

    fn url(&self) -> String {
        format!("mariadb://{SUPERUSER}@localhost/site?socket={}", self.server.socket().display())
    }
}

impl Engine for Mariadb {
    fn name(&self) -> &'static str {
        "mariadb"
    }

    fn make(&self, rows: u64) -> Result<()> {
        copy::make_empty(&mut self.server.connect("mysql"), "base")?;
        let mut conn = self.server.connect("base");
        conn.query_drop(
            "CREATE TABLE item (id int PRIMARY KEY, name varchar(60) NOT NULL, n int, text varchar(60), KEY item_name (name)) ENGINE=InnoDB",
        )?;
        Ok(conn.query_drop(format!(
            "INSERT INTO item SELECT seq, CONCAT('item ', seq), seq * 7 % 1000, LEFT(CONCAT(MD5(seq), MD5(-seq)), 60) FROM seq_1_to_{rows}"
        ))?)
    }

    fn fresh(&self, _: &Path) -> Result<String> {
        copy::copy(&mut self.server.connect("mysql"), "base", "site")?;
        // Writes out what waits in memory.
        let mut conn = self.server.connect("site");
        conn.query_drop("FLUSH TABLES item FOR EXPORT")?;
        conn.query_drop("UNLOCK TABLES")?;
        Ok(self.url())
    }

    fn client(&self) -> String {
        let socket = self.server.socket();
        format!("mariadb --no-defaults -N -u {SUPERUSER} --socket='{}' site -e", socket.display())
    }

    fn variable(&self, _: &Path) -> Result<String> {
        Ok(self.url())
    }

    fn dump(&self, _: &Path) -> Command {
        let mut command = self.server.client("mariadb-dump");
        command.args(["--single-transaction", "site"]);
        command
    }

    fn other(&self) -> Option<Box<dyn Other>> {
        Some(Box::new(self.server.connect("site")))
    }
}

impl Other for mysql::Conn {
    /// One statement after the other: the server takes no more at once.
    fn run(&mut self, sql: &str) -> Result<()> {
        for statement in sql.lines() {
            self.query_drop(statement)?;
        }
        Ok(())
    }
}
