//! A PostgreSQL database as the judge of fidelity handles it: copies are databases of the same private server.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;

use anyhow::{Context, Result};
use backout_servers::postgres::{SUPERUSER, Server};
use postgres::Client;

use super::fill::{self, Filler};
use super::{dump, quoted};
use crate::fidelity::dump::Dump;
use crate::fidelity::subject::{Filled, Plain, Ran, Subject};

pub struct Postgres {
    server: Rc<Server>,
    folder: PathBuf,
    name: String,
    /// The days on which the judging went on, as the server writes them.
    days: Vec<String>,
    filler: Filler,
}

impl Postgres {
    /// An empty database, named for the folder.
    pub fn new(server: Rc<Server>, folder: PathBuf) -> Result<Self> {
        let name = folder.file_name().context("a folder without a name")?.to_string_lossy().into_owned();
        let mut made = Self { server, folder, name, days: Vec::new(), filler: Filler::default() };
        made.make(&made.name.clone(), "template0")?;
        made.note_day()?;
        Ok(made)
    }

    fn copy_name(&self, copy: &str) -> String {
        format!("{}-{copy}", self.name)
    }

    /// Makes a database anew as a copy of another.
    fn make(&self, name: &str, template: &str) -> Result<()> {
        let mut client = self.server.connect("postgres");
        let (name, template) = (quoted(name), quoted(template));
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {name}")).context("dropping a copy")?;
        client.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).context("copying a database")
    }

    fn note_day(&mut self) -> Result<()> {
        let day: String = self.connect()?.query_one("SELECT current_date::text", &[])?.get(0);
        if !self.days.contains(&day) {
            self.days.push(day);
        }
        Ok(())
    }

    fn connect(&self) -> Result<Client> {
        Ok(self.server.connect(&self.name))
    }

    fn psql(&self, database: &str, script: &Path) -> Result<Ran> {
        self.psql_with(&[], database, script)
    }

    fn psql_with(&self, more: &[&str], database: &str, script: &Path) -> Result<Ran> {
        let mut command = self.server.client("psql");
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]).args(more).args(["-d", database, "-f"]).arg(script);
        let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output().context("running psql")?;
        if output.status.success() {
            return Ok(Ok(()));
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let error = said.lines().find_map(|line| line.split_once("ERROR:").map(|(_, error)| error.trim().to_owned()));
        Ok(Err(error.unwrap_or_else(|| said.lines().next().unwrap_or("no message").to_owned())))
    }
}

impl Subject for Postgres {
    fn url(&self) -> String {
        format!("postgresql:///{}?host={}&user={SUPERUSER}", self.name, self.server.socket().display())
    }

    fn refuses_late(&self) -> bool {
        true
    }

    fn load(&mut self, script: &Path) -> Result<Ran> {
        self.psql(&self.name, script)
    }

    fn dump(&mut self, file: PathBuf) -> Result<Dump> {
        self.note_day()?;
        dump::dump(&self.server, &self.name, file, &self.days)
    }

    fn plain(&mut self, script: &Path) -> Result<Plain> {
        let copy = "plain".to_owned();
        let database = self.copy_name(&copy);
        self.make(&database, &self.name)?;
        Ok(match self.psql(&database, script)? {
            Ok(()) => {
                self.note_day()?;
                let file = self.folder.join("plain.dump");
                Plain::Done { dump: dump::dump(&self.server, &database, file, &self.days)?, copy }
            }
            Err(error) => Plain::Failed(error),
        })
    }

    fn left_by_plain(&mut self, copy: &str, script: &Path) -> Result<Option<Dump>> {
        let database = self.copy_name("plain");
        self.make(&database, &self.copy_name(copy))?;
        // All of it in one transaction, as a step is.
        if self.psql_with(&["--single-transaction"], &database, script)?.is_ok() {
            return Ok(None);
        }
        dump::dump(&self.server, &database, self.folder.join("plain-left.dump"), &self.days).map(Some)
    }

    /// There is only psql.
    fn plain_otherwise(&mut self, _script: &Path) -> Result<Option<Plain>> {
        Ok(None)
    }

    fn keep(&mut self, copy: &str) -> Result<()> {
        self.make(&self.copy_name(copy), &self.name)
    }

    fn take(&mut self, copy: &str) -> Result<()> {
        self.make(&self.name, &self.copy_name(copy))
    }

    fn fill(&mut self, rows: u64) -> Result<Filled> {
        let mut client = self.connect()?;
        self.filler.fill(&mut client, rows)
    }

    /// Only by emptying the tables.
    fn make_plainer(&mut self, script: &str, way: usize) -> Result<Option<Vec<String>>> {
        if way > 0 {
            return Ok(None);
        }
        let mut client = self.connect()?;
        let words: Vec<&str> = script.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let named: Vec<String> = fill::tables(&mut client)?
            .iter()
            .filter(|table| words.iter().any(|word| word.eq_ignore_ascii_case(&table.name)))
            .map(|table| table.quoted())
            .collect();
        if named.is_empty() {
            return Ok(None);
        }
        let statement = format!("TRUNCATE {} CASCADE", named.join(", "));
        client.batch_execute(&statement).context("emptying tables")?;
        Ok(Some(vec![statement]))
    }
}
