//! A MariaDB database as the judge of fidelity handles it: copies are databases of the same private server.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;

use anyhow::{Context, Result};
use backout_servers::mariadb::{SUPERUSER, Server};
use mysql::Conn;

use super::fill::{self, Filler};
use super::{copy, dump, quoted, rows};
use crate::fidelity::dump::Dump;
use crate::fidelity::subject::{Filled, Plain, Ran, Subject};

pub struct Mariadb {
    server: Rc<Server>,
    folder: PathBuf,
    name: String,
    /// The days on which the judging went on, as the server writes them.
    days: Vec<String>,
    filler: Filler,
}

impl Mariadb {
    /// An empty database, named for the folder.
    pub fn new(server: Rc<Server>, folder: PathBuf) -> Result<Self> {
        let name = folder.file_name().context("a folder without a name")?.to_string_lossy().into_owned();
        let mut made = Self { server, folder, name, days: Vec::new(), filler: Filler::default() };
        copy::make_empty(&mut made.anywhere(), &made.name)?;
        made.note_day()?;
        Ok(made)
    }

    fn copy_name(&self, copy: &str) -> String {
        format!("{}_{copy}", self.name)
    }

    /// A session in no database of the judge's.
    fn anywhere(&self) -> Conn {
        self.server.connect("mysql")
    }

    fn connect(&self) -> Conn {
        self.server.connect(&self.name)
    }

    fn note_day(&mut self) -> Result<()> {
        for day in rows(&mut self.anywhere(), "SELECT CONCAT(CURRENT_DATE()), CONCAT(UTC_DATE())")?.concat() {
            let day = day.unwrap_or_default();
            if !self.days.contains(&day) {
                self.days.push(day);
            }
        }
        Ok(())
    }

    fn client(&self, database: &str, script: &Path) -> Result<Ran> {
        let mut command = self.server.client("mariadb");
        command.args(["--default-character-set=utf8mb4", "--local-infile=1", database]);
        let script = File::open(script).with_context(|| format!("reading {}", script.display()))?;
        let output = command.stdin(Stdio::from(script)).stdout(Stdio::null()).output().context("running mariadb")?;
        if output.status.success() {
            return Ok(Ok(()));
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Ok(Err(said.lines().find(|line| line.contains("ERROR")).unwrap_or("no message").to_owned()))
    }
}

impl Subject for Mariadb {
    fn url(&self) -> String {
        format!("mariadb://{SUPERUSER}@localhost/{}?socket={}", self.name, self.server.socket().display())
    }

    fn refuses_late(&self) -> bool {
        true
    }

    fn load(&mut self, script: &Path) -> Result<Ran> {
        self.client(&self.name, script)
    }

    fn dump(&mut self, file: PathBuf) -> Result<Dump> {
        self.note_day()?;
        dump::dump(&mut self.connect(), &self.name, file, &self.days)
    }

    fn plain(&mut self, script: &Path) -> Result<Plain> {
        let copy = "plain".to_owned();
        let database = self.copy_name(&copy);
        copy::copy(&mut self.anywhere(), &self.name, &database)?;
        Ok(match self.client(&database, script)? {
            Ok(()) => {
                self.note_day()?;
                let file = self.folder.join("plain.dump");
                let mut conn = self.server.connect(&database);
                Plain::Done { dump: dump::dump(&mut conn, &database, file, &self.days)?, copy }
            }
            Err(error) => Plain::Failed(error),
        })
    }

    /// There is only one client.
    fn plain_otherwise(&mut self, _script: &Path) -> Result<Option<Plain>> {
        Ok(None)
    }

    fn keep(&mut self, copy: &str) -> Result<()> {
        copy::copy(&mut self.anywhere(), &self.name, &self.copy_name(copy))
    }

    fn take(&mut self, copy: &str) -> Result<()> {
        copy::copy(&mut self.anywhere(), &self.copy_name(copy), &self.name)
    }

    fn fill(&mut self, rows: u64) -> Result<Filled> {
        let mut conn = self.connect();
        self.filler.fill(&mut conn, &self.name, rows)
    }

    /// Only by emptying the tables, and those that point at them.
    fn make_plainer(&mut self, script: &str, way: usize) -> Result<Option<Vec<String>>> {
        if way > 0 {
            return Ok(None);
        }
        let mut conn = self.connect();
        let words: Vec<&str> = script.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let named = fill::tables(&mut conn, &self.name)?.into_iter().map(|table| table.name);
        let named = named.filter(|name| words.iter().any(|word| word == name)).collect();
        let named = fill::with_children(&mut conn, &self.name, named)?;
        if named.is_empty() {
            return Ok(None);
        }
        let mut statements = vec!["SET foreign_key_checks = 0".to_owned()];
        statements.extend(named.iter().map(|name| format!("DELETE FROM {}", quoted(name))));
        statements.push("SET foreign_key_checks = 1".to_owned());
        for statement in &statements {
            mysql::prelude::Queryable::query_drop(&mut conn, statement).context("emptying tables")?;
        }
        Ok(Some(statements))
    }
}
