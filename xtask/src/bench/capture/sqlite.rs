//! The site's database in a file of SQLite.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Engine, Other};
use crate::bench::measure::timed;

pub struct Sqlite {
    original: PathBuf,
}

impl Sqlite {
    pub fn new(scratch: &Path) -> Self {
        Self { original: scratch.join("original.sqlite") }
    }
}

fn database(folder: &Path) -> PathBuf {
    folder.join("main.sqlite")
}

impl Engine for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn make(&self, rows: u64) -> Result<()> {
        let sql = format!(
            "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL, n INTEGER, text TEXT);
             WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {rows})
             INSERT INTO item SELECT i, 'item ' || i, i * 7 % 1000, hex(randomblob(30)) FROM c;
             CREATE INDEX item_name ON item (name);"
        );
        timed(Command::new("sqlite3").arg(&self.original).arg(sql))?;
        Ok(())
    }

    fn fresh(&self, folder: &Path) -> Result<String> {
        fs::copy(&self.original, database(folder)).context("copying the database")?;
        Ok("sqlite:main.sqlite".to_owned())
    }

    fn client(&self) -> String {
        "sqlite3 \"$BACKOUT_DATABASE_MAIN\"".to_owned()
    }

    fn variable(&self, folder: &Path) -> Result<String> {
        Ok(database(folder).to_str().context("a path")?.to_owned())
    }

    fn dump(&self, folder: &Path) -> Command {
        let mut command = Command::new("sqlite3");
        command.arg(database(folder)).arg(".dump");
        command
    }

    fn other(&self) -> Option<Box<dyn Other>> {
        None
    }
}
