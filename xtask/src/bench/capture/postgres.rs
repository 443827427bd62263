//! The site's database on a private server of PostgreSQL that syncs.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use backout_servers::postgres::{SUPERUSER, Server, Setup};

use super::{Engine, Other};

pub struct Postgres {
    server: Server,
}

impl Postgres {
    pub fn new() -> Self {
        let settings = [("shared_buffers", "256MB"), ("max_wal_size", "4GB"), ("autovacuum", "off")];
        let settings = settings.map(|(name, value)| (name, value.to_owned())).to_vec();
        Self { server: Server::with(&Setup { fsync: true, settings, ..Setup::default() }) }
    }

    fn url(&self) -> String {
        format!("postgresql:///site?host={}&user={SUPERUSER}", self.server.socket().display())
    }
}

impl Engine for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn make(&self, rows: u64) -> Result<()> {
        self.server.connect("postgres").batch_execute("CREATE DATABASE base TEMPLATE template0")?;
        let mut client = self.server.connect("base");
        client.batch_execute(&format!(
            "CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL, n int, text text);
             INSERT INTO item SELECT i, 'item ' || i, i * 7 % 1000, substr(md5(i::text) || md5((-i)::text), 1, 60)
                 FROM generate_series(1, {rows}) AS i;
             CREATE INDEX item_name ON item (name)"
        ))?;
        Ok(client.batch_execute("VACUUM ANALYZE")?)
    }

    fn fresh(&self, _: &Path) -> Result<String> {
        let mut client = self.server.connect("postgres");
        client.batch_execute("DROP DATABASE IF EXISTS site WITH (FORCE)")?;
        client.batch_execute("CREATE DATABASE site TEMPLATE base")?;
        client.batch_execute("CHECKPOINT")?;
        Ok(self.url())
    }

    fn client(&self) -> String {
        "psql -X -q -At -v ON_ERROR_STOP=1 \"$BACKOUT_DATABASE_MAIN\" -c".to_owned()
    }

    fn variable(&self, _: &Path) -> Result<String> {
        Ok(self.url())
    }

    fn dump(&self, _: &Path) -> Command {
        let mut command = self.server.client("pg_dump");
        command.arg("site");
        command
    }

    fn other(&self) -> Option<Box<dyn Other>> {
        Some(Box::new(self.server.connect("site")))
    }
}

impl Other for postgres::Client {
    fn run(&mut self, sql: &str) -> Result<()> {
        Ok(self.batch_execute(sql)?)
    }
}
