//! A backup against `restic backup` that is fed the same dump: 30,000 files and a database of a million rows, the first
//! run into an empty repository and a second one after some of both changed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Options;
use super::files::{content, name, write};
use super::measure::{alternate, median, peak_memory, settle, timed};
use super::report::{Report, Row, Target};
use crate::backout::Backout;

const TREE: usize = 30_000;
/// Every so many files change between the two runs, and every so many rows.
const CHANGED: usize = 100;
const AGAINST: &str = "sqlite3 .backup, restic backup";

pub fn run(options: &Options, backout: &Backout, scratch: &Path, report: &mut Report) -> Result<()> {
    let bench = Bench { backout, scratch, rows: options.rows };
    bench.make()?;
    let (restic, ours) = alternate(options.runs, || bench.by_restic(), || bench.by_us())?;
    let parts = |times: Vec<(Duration, Duration)>| -> (Vec<_>, Vec<_>) { times.into_iter().unzip() };
    let ((restic_first, restic_second), (first, second)) = (parts(restic), parts(ours));
    let target = Target::Ratio(1.2);
    report.add(&Row::times("first backup", AGAINST, median(restic_first), median(first), target));
    report.add(&Row::times("second backup, 1 % changed", AGAINST, median(restic_second), median(second), target));
    bench.fresh("memory")?;
    let peak = peak_memory(&mut bench.backup()?)? as f64 / f64::from(1 << 20);
    report.add(&Row::alone("memory of a first backup", peak, Target::Mebibytes(512.0)));
    Ok(())
}

struct Bench<'a> {
    backout: &'a Backout,
    scratch: &'a Path,
    rows: u64,
}

impl Bench<'_> {
    fn make(&self) -> Result<()> {
        eprintln!("making a tree of {TREE} files and {} rows", self.rows);
        for number in 0..TREE {
            write(&self.scratch.join("web").join(name(number)), &content(number, "first version"))?;
        }
        let sql = format!(
            "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, amount INTEGER); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) \
             INSERT INTO item SELECT i, hex(randomblob(30)), i FROM n",
            self.rows
        );
        timed(Command::new("sqlite3").arg(self.database()).arg(sql))?;
        fs::write(self.scratch.join("password"), "bench\n")?;
        settle(self.scratch)
    }

    fn database(&self) -> PathBuf {
        self.scratch.join("shop.sqlite")
    }

    /// An empty state and repository under a name of their own.
    fn fresh(&self, of: &str) -> Result<PathBuf> {
        let folder = self.scratch.join(of);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// Changes some of the files and of the rows.
    fn change(&self, version: &str) -> Result<()> {
        for number in (0..TREE).step_by(CHANGED) {
            write(&self.scratch.join("web").join(name(number)), &content(number, version))?;
        }
        let sql = format!("UPDATE item SET amount = amount + 1 WHERE id % {CHANGED} = 0 AND id < {}", self.rows / 10);
        timed(Command::new("sqlite3").arg(self.database()).arg(sql))?;
        settle(self.scratch)
    }

    fn by_restic(&self) -> Result<(Duration, Duration)> {
        let folder = self.fresh("restic")?;
        let restic = |words: &[&str]| {
            let mut command = Command::new("restic");
            command
                .arg("--repo")
                .arg(folder.join("repository"))
                .arg("--password-file")
                .arg(self.scratch.join("password"));
            command.arg("--cache-dir").arg(folder.join("cache")).args(words).current_dir(self.scratch);
            command
        };
        timed(&mut restic(&["init"]))?;
        settle(self.scratch)?;
        let once = || -> Result<Duration> {
            let dump = folder.join("dump.sqlite");
            let dumped =
                timed(Command::new("sqlite3").arg(self.database()).arg(format!(".backup '{}'", dump.display())))?;
            let dump = dump.to_str().context("a path")?;
            Ok(dumped + timed(&mut restic(&["backup", "web", dump]))?)
        };
        let first = once()?;
        self.change("a second version")?;
        Ok((first, once()?))
    }

    fn by_us(&self) -> Result<(Duration, Duration)> {
        self.fresh("ours")?;
        let first = timed(&mut self.backup_of("ours")?)?;
        self.change("a third version")?;
        Ok((first, timed(&mut self.backup_of("ours")?)?))
    }

    fn backup(&self) -> Result<Command> {
        self.backup_of("memory")
    }

    fn backup_of(&self, folder: &str) -> Result<Command> {
        let site = self.scratch.join("site.yaml");
        let text = format!(
            "site: bench\ndatabases:\n  main: {{url: \"sqlite:shop.sqlite\"}}\nroots:\n  web: {{path: web}}\nstate: {folder}/state\n\
             backup: {{password-file: password}}\n"
        );
        fs::write(&site, text)?;
        Ok(self.backout.command(&site, &[OsStr::new("backup")]))
    }
}
