//! A SQLite database as the judge of fidelity handles it: copies are files beside it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::client;
use super::fill::Filler;
use super::{dump, tame};
use crate::fidelity::dump::Dump;
use crate::fidelity::subject::{Filled, Plain, Ran, Subject};

pub struct Sqlite {
    folder: PathBuf,
    filler: Filler,
}

impl Sqlite {
    /// An empty database in the folder.
    pub fn new(folder: PathBuf) -> Result<Self> {
        let made = Self { folder, filler: Filler::default() };
        client::open(&made.database())?.execute_batch("PRAGMA user_version = 0")?;
        Ok(made)
    }

    fn database(&self) -> PathBuf {
        self.folder.join("main.sqlite")
    }

    fn copy(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.sqlite"))
    }

    fn plain_by(&self, script: &Path, name: &str, run: fn(&Path, &Path) -> Result<Ran>) -> Result<Plain> {
        let copy = format!("plain-{name}");
        let database = self.copy(&copy);
        client::copy(&self.database(), &database)?;
        Ok(match run(&database, script)? {
            Ok(()) => Plain::Done { dump: dump::dump(&database, self.folder.join(format!("{copy}.dump")))?, copy },
            Err(error) => Plain::Failed(error),
        })
    }
}

impl Subject for Sqlite {
    fn url(&self) -> String {
        "sqlite:main.sqlite".to_owned()
    }

    fn refuses_late(&self) -> bool {
        false
    }

    fn load(&mut self, script: &Path) -> Result<Ran> {
        client::shell(&self.database(), script)
    }

    fn dump(&mut self, file: PathBuf) -> Result<Dump> {
        dump::dump(&self.database(), file)
    }

    /// By the shell, else by the bundled library, because the shell of a distribution is older and does not know every
    /// statement.
    fn plain(&mut self, script: &Path) -> Result<Plain> {
        let by_shell = self.plain_by(script, "shell", client::shell)?;
        if let Plain::Failed(shell) = &by_shell {
            return Ok(match self.plain_by(script, "library", client::library)? {
                Plain::Failed(_) => Plain::Failed(shell.clone()),
                done @ Plain::Done { .. } => done,
            });
        }
        Ok(by_shell)
    }

    /// By the bundled library alone: an older shell may write a virtual table's data differently.
    fn plain_otherwise(&mut self, script: &Path) -> Result<Option<Plain>> {
        self.plain_by(script, "library", client::library).map(Some)
    }

    fn keep(&mut self, copy: &str) -> Result<()> {
        client::copy(&self.database(), &self.copy(copy))
    }

    fn take(&mut self, copy: &str) -> Result<()> {
        client::copy(&self.copy(copy), &self.database())
    }

    fn fill(&mut self, rows: u64) -> Result<Filled> {
        self.filler.fill(&client::open(&self.database())?, rows)
    }

    fn make_plainer(&mut self, script: &str, way: usize) -> Result<Option<Vec<String>>> {
        let Some(change) = [tame::tame, tame::empty].get(way) else { return Ok(None) };
        let connection = client::open(&self.database())?;
        change(&connection, &tame::named(&connection, script)?).map(Some)
    }
}
