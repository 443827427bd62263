//! What it costs to follow a command: a site of many rows and 30,000 files, of which a command changes one in a hundred.
//! The overhead over the bare command is held against a full dump and a copy of the files, which is what a user without
//! the tool would make.

use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Options;
use super::files::{TREE, name, tree};
use super::measure::{alternate, median, settle, timed};
use super::report::{Report, Row, Target};
use super::tool::Tool;
use crate::backout::Backout;
use crate::trees::copy;

/// Of the bare command's rows and files one in so many changes.
const ONE_IN: usize = 100;

pub fn run(options: &Options, backout: &Backout, scratch: &Path, report: &mut Report) -> Result<()> {
    let bench = Bench { tool: Tool { backout, scratch }, scratch, sites: Cell::new(0) };
    eprintln!("making a table of {} rows", options.rows);
    let tree = tree(scratch, TREE)?;
    let database = bench.database(options.rows)?;
    let original = Original { tree, database };
    for (load, ddl, target) in [
        ("rows and files", "", 1.0),
        ("and a change of the schema", "ALTER TABLE item ADD COLUMN extra DEFAULT 7;", 2.5),
    ] {
        if !options.wants(load) {
            continue;
        }
        let package = bench.package(load, ddl)?;
        let (base, ours) = alternate(options.runs, || bench.base(&original, ddl), || bench.ours(&original, &package))?;
        let (dumps, bare): (Vec<Duration>, Vec<Duration>) = base.into_iter().unzip();
        let (deploys, undos): (Vec<Duration>, Vec<Duration>) = ours.into_iter().unzip();
        let bare = median(bare);
        let overhead: Vec<Duration> = deploys.iter().map(|deploy| deploy.saturating_sub(bare)).collect();
        let name = format!("overhead of capture, {load}");
        report.add(&Row::runs(&name, "full dump and copy of the files", &dumps, &overhead, Target::Ratio(target)));
        report.add(&Row::times(&format!("undo, {load}"), "the same", median(dumps), median(undos), Target::None));
        let site = bench.fresh(&original)?;
        bench.tool.memory(&format!("memory, {load}"), &site, &package, Target::Mebibytes(128.0), report)?;
    }
    Ok(())
}

struct Original {
    tree: PathBuf,
    database: PathBuf,
}

struct Bench<'a> {
    tool: Tool<'a>,
    scratch: &'a Path,
    sites: Cell<u32>,
}

impl Bench<'_> {
    fn database(&self, rows: u64) -> Result<PathBuf> {
        let path = self.scratch.join("original.sqlite");
        let sql = format!(
            "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL, n INTEGER, text TEXT);
             WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {rows})
             INSERT INTO item SELECT i, 'item ' || i, i * 7 % 1000, hex(randomblob(30)) FROM c;
             CREATE INDEX item_name ON item (name);"
        );
        timed(Command::new("sqlite3").arg(&path).arg(sql))?;
        Ok(path)
    }

    /// The command's words: one row and one file in a hundred.
    fn words(ddl: &str) -> [String; 3] {
        let files =
            (0..TREE).step_by(ONE_IN).map(|number| name(number).display().to_string()).collect::<Vec<_>>().join(" ");
        let sql = format!("UPDATE item SET n = n + 1 WHERE id % {ONE_IN} = 0; {ddl}");
        let script = format!(
            "sqlite3 \"$BACKOUT_DATABASE_MAIN\" '{sql}' && cd \"$BACKOUT_ROOT_WEB\" && for f in {files}; do echo more >> $f; done"
        );
        ["sh".to_owned(), "-c".to_owned(), script]
    }

    fn package(&self, load: &str, ddl: &str) -> Result<PathBuf> {
        let dir = self.scratch.join(format!("package-{}", load.replace(' ', "-")));
        fs::create_dir_all(&dir)?;
        let run = serde_json::to_string(&Self::words(ddl))?;
        let manifest = format!("package: capture\nversion: \"1\"\nsteps:\n  - run: {run}\n    capture: all\n");
        fs::write(dir.join("package.yaml"), manifest)?;
        Ok(dir)
    }

    /// A site of its own on a fresh copy; its `site.yaml`.
    fn fresh(&self, original: &Original) -> Result<PathBuf> {
        let before = self.scratch.join(format!("site-{}", self.sites.get()));
        if before.exists() {
            fs::remove_dir_all(before)?;
        }
        self.sites.set(self.sites.get() + 1);
        let folder = self.scratch.join(format!("site-{}", self.sites.get()));
        fs::create_dir(&folder)?;
        copy(&original.tree, &folder.join("web"))?;
        fs::copy(&original.database, folder.join("main.sqlite"))?;
        let site = folder.join("site.yaml");
        let name = self.sites.get();
        let text = format!(
            "site: bench{name}\ndatabases:\n  main: {{url: \"sqlite:main.sqlite\"}}\nroots:\n  web: {{path: web}}\n"
        );
        fs::write(&site, text)?;
        settle(self.scratch)?;
        Ok(site)
    }

    /// A dump and a copy, durable; and the bare command.
    fn base(&self, original: &Original, ddl: &str) -> Result<(Duration, Duration)> {
        let site = self.fresh(original)?;
        let folder = site.parent().context("a site has a folder")?;
        let (database, web) = (folder.join("main.sqlite"), folder.join("web"));
        let dump = File::create(folder.join("dump.sql"))?;
        let start = std::time::Instant::now();
        let dumped = Command::new("sqlite3").arg(&database).arg(".dump").stdout(Stdio::from(dump)).status()?;
        if !dumped.success() {
            bail!("sqlite3 .dump: {dumped}");
        }
        timed(Command::new("cp").arg("-a").arg(&web).arg(folder.join("copy")))?;
        timed(Command::new("sync").arg("-f").arg(folder))?;
        let copied = start.elapsed();
        let [shell, option, script] = Self::words(ddl);
        let bare = timed(
            Command::new(shell)
                .args([option, script])
                .env("BACKOUT_DATABASE_MAIN", &database)
                .env("BACKOUT_ROOT_WEB", &web),
        )?;
        Ok((copied, bare))
    }

    fn ours(&self, original: &Original, package: &Path) -> Result<(Duration, Duration)> {
        let site = self.fresh(original)?;
        let deploy = timed(&mut self.tool.deploy(&site, package))?;
        settle(self.scratch)?;
        Ok((deploy, timed(&mut self.tool.undo(&site))?))
    }
}
