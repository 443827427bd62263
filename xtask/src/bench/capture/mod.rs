//! What it costs to follow a command: a site of many rows and 30,000 files, of which a command changes one in a hundred.
//! The overhead over the bare command is held against a full dump and a copy of the files, which is what a user without
//! the tool would make. On each engine; the command is the engine's own client.

mod mariadb;
mod postgres;
mod sqlite;

use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Options;
use super::files::{TREE, content, name, tree};
use super::measure::{alternate, median, settle, timed};
use super::report::{Report, Row, Target};
use super::tool::Tool;
use crate::backout::Backout;
use crate::fidelity::EngineName;
use crate::trees::copy;

/// Of the bare command's rows and files one in so many changes.
const ONE_IN: usize = 100;
/// Rows that somebody else changes one by one while a command runs, in one transaction.
const OTHERS: u64 = 20_000;
const MEMORY: Target = Target::Mebibytes(64.0);

/// The database of a site, and the clients that come with it.
trait Engine {
    fn name(&self) -> &'static str;
    /// Makes the database of which every site gets a copy.
    fn make(&self, rows: u64) -> Result<()>;
    /// Makes the database of a site anew, written out; its URL.
    fn fresh(&self, folder: &Path) -> Result<String>;
    /// What a script calls the client by, with the SQL behind it.
    fn client(&self) -> String;
    /// What a script's `BACKOUT_DATABASE_MAIN` is.
    fn variable(&self, folder: &Path) -> Result<String>;
    /// Writes the whole database to stdout, as text.
    fn dump(&self, folder: &Path) -> Command;
    /// Somebody else's session, who is there before the command; none where nobody is told apart.
    fn other(&self) -> Option<Box<dyn Other>>;
}

/// Somebody else's session.
trait Other {
    fn run(&mut self, sql: &str) -> Result<()>;
}

pub fn run(options: &Options, backout: &Backout, scratch: &Path, report: &mut Report) -> Result<()> {
    let tree = tree(scratch, TREE)?;
    for name in [EngineName::Sqlite, EngineName::Postgres, EngineName::Mariadb] {
        if options.engine.is_some_and(|only| only != name) {
            continue;
        }
        let engine: Box<dyn Engine> = match name {
            EngineName::Sqlite => Box::new(sqlite::Sqlite::new(scratch)),
            EngineName::Postgres => Box::new(postgres::Postgres::new()),
            EngineName::Mariadb => Box::new(mariadb::Mariadb::new()),
        };
        let bench = Bench { tool: Tool { backout, scratch }, scratch, engine, tree: &tree, sites: Cell::new(0) };
        eprintln!("{}: making a table of {} rows", bench.engine.name(), options.rows);
        bench.engine.make(options.rows)?;
        bench.measure(options, report)?;
    }
    Ok(())
}

/// What a command does.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    one_in: usize,
    ddl: &'static str,
}

const ROWS: Load = Load { name: "rows and files", one_in: ONE_IN, ddl: "" };
const SCHEMA: Load = Load {
    name: "and a change of the schema",
    one_in: ONE_IN,
    ddl: "ALTER TABLE item ADD COLUMN extra int DEFAULT 7;",
};

struct Bench<'a> {
    tool: Tool<'a>,
    scratch: &'a Path,
    engine: Box<dyn Engine>,
    tree: &'a Path,
    sites: Cell<u32>,
}

impl Bench<'_> {
    fn measure(&self, options: &Options, report: &mut Report) -> Result<()> {
        let on = self.engine.name();
        for (load, target) in [(ROWS, 1.0), (SCHEMA, 2.5)] {
            let name = format!("{on}: overhead, {}", load.name);
            if options.wants(&name) {
                let package = self.package(load)?;
                let (base, ours) = alternate(options.runs, || self.base(load), || self.ours(load, &package))?;
                let (dumps, bare): (Vec<Duration>, Vec<Duration>) = base.into_iter().unzip();
                let (deploys, undos): (Vec<Duration>, Vec<Duration>) = ours.into_iter().unzip();
                let bare = median(bare);
                let overhead: Vec<Duration> = deploys.iter().map(|deploy| deploy.saturating_sub(bare)).collect();
                let against = "full dump and copy of the files";
                report.add(&Row::runs(&name, against, &dumps, &overhead, Target::Ratio(target)));
                let name = format!("{on}: undo, {}", load.name);
                report.add(&Row::times(&name, "the same", median(dumps), median(undos), Target::None));
            }
            let name = format!("{on}: memory, {}", load.name);
            if options.wants(&name) {
                self.tool.memory(&name, &self.fresh()?, &self.package(load)?, MEMORY, report)?;
            }
        }
        let name = format!("{on}: growth");
        if options.wants(&name) {
            self.growth(options.runs, &name, report)?;
        }
        let name = format!("{on}: others' writes meanwhile");
        if options.wants(&name) {
            self.meanwhile(options.runs, &name, report)?;
        }
        Ok(())
    }

    /// The undo of a tenth of the changes and of ten times as many, beside that of the usual ones.
    fn growth(&self, runs: usize, name: &str, report: &mut Report) -> Result<()> {
        let undo = |load: Load| -> Result<Duration> { Ok(self.ours(load, &self.package(load)?)?.1) };
        let of = |name, one_in| Load { name, one_in, ddl: "" };
        let (few, many) = (of("few", ONE_IN * 10), of("many", ONE_IN / 10));
        let both = |load: Load| alternate(runs, || undo(ROWS), || undo(load));
        for (load, what, most) in [(few, "0.1 %", 1.0), (many, "10 %", 10.0)] {
            let (usual, ours) = both(load)?;
            let name = format!("{name}, undo of {what}");
            report.add(&Row::runs(&name, "undo of 1 %", &usual, &ours, Target::Ratio(most)));
        }
        Ok(())
    }

    /// What it costs others that their writes are told apart.
    fn meanwhile(&self, runs: usize, name: &str, report: &mut Report) -> Result<()> {
        // There is nobody before there is a database.
        self.fresh()?;
        if self.engine.other().is_none() {
            return Ok(());
        }
        let sql: String = (1..=OTHERS).map(|id| format!("UPDATE item SET n = n + 1 WHERE id = {id};\n")).collect();
        let sql = format!("BEGIN;\n{sql}COMMIT;\n");
        let write = || -> Result<Duration> {
            let mut other = self.engine.other().context("somebody else")?;
            let start = Instant::now();
            other.run(&sql)?;
            Ok(start.elapsed())
        };
        let alone = || {
            self.fresh()?;
            write()
        };
        let package = self.scratch.join("package-meanwhile");
        fs::create_dir_all(&package)?;
        let (at_work, done) = (self.scratch.join("at-work"), self.scratch.join("done"));
        let script = format!(
            "{} 'UPDATE item SET n = n WHERE id = 1'\n: > '{}'\nwhile [ ! -e '{}' ]; do sleep 0.02; done\n",
            self.engine.client(),
            at_work.display(),
            done.display()
        );
        self.write_package(&package, &script)?;
        let beside = || {
            let site = self.fresh()?;
            for file in [&at_work, &done] {
                if file.exists() {
                    fs::remove_file(file)?;
                }
            }
            // Who was there before the command.
            let mut other = self.engine.other().context("somebody else")?;
            let mut deploy = self.tool.deploy(&site, &package);
            let mut deploy = deploy.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("deploying")?;
            while !at_work.exists() {
                if let Some(status) = deploy.try_wait()? {
                    bail!("the deployment ended early: {status}");
                }
            }
            let start = Instant::now();
            let written = other.run(&sql);
            let took = start.elapsed();
            fs::write(&done, "")?;
            let status = deploy.wait()?;
            written?;
            if !status.success() {
                bail!("the deployment failed: {status}");
            }
            Ok(took)
        };
        let (alone, beside) = alternate(runs, alone, beside)?;
        let against = format!("{OTHERS} single updates in one transaction, alone");
        report.add(&Row::runs(name, &against, &alone, &beside, Target::None));
        Ok(())
    }

    /// One row and one file in so many.
    fn script(&self, load: Load) -> String {
        let Load { one_in, ddl, .. } = load;
        let files: String = (0..TREE).step_by(one_in).map(|number| format!("{} ", name(number).display())).collect();
        let client = self.engine.client();
        format!(
            "set -e\n{client} 'UPDATE item SET n = n + 1 WHERE id % {one_in} = 0; {ddl}'\ncd \"$BACKOUT_ROOT_WEB\"\n\
             for f in {files}; do echo more >> $f; done\n"
        )
    }

    fn package(&self, load: Load) -> Result<PathBuf> {
        let folder = self.scratch.join(format!("package-{}", load.name.replace(' ', "-")));
        fs::create_dir_all(&folder)?;
        self.write_package(&folder, &self.script(load))?;
        Ok(folder)
    }

    fn write_package(&self, folder: &Path, script: &str) -> Result<()> {
        fs::write(folder.join("change.sh"), script)?;
        let manifest =
            "package: capture\nversion: \"1\"\nsteps:\n  - run: [sh, change.sh]\n    capture: all\n    timeout: 1h\n";
        Ok(fs::write(folder.join("package.yaml"), manifest)?)
    }

    /// A site of its own on fresh copies; its `site.yaml`.
    fn fresh(&self) -> Result<PathBuf> {
        let before = self.folder();
        if before.exists() {
            fs::remove_dir_all(before)?;
        }
        self.sites.set(self.sites.get() + 1);
        let folder = self.folder();
        fs::create_dir(&folder)?;
        copy(self.tree, &folder.join("web"))?;
        let url = self.engine.fresh(&folder)?;
        let site = folder.join("site.yaml");
        let name = self.sites.get();
        let text = format!("site: bench{name}\ndatabases:\n  main: {{url: \"{url}\"}}\nroots:\n  web: {{path: web}}\n");
        fs::write(&site, text)?;
        settle(self.scratch)?;
        Ok(site)
    }

    fn folder(&self) -> PathBuf {
        self.scratch.join(format!("site-{}", self.sites.get()))
    }

    /// A shell with what the tool gives a command.
    fn shell(&self, script: &str) -> Result<Command> {
        let folder = self.folder();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).env("BACKOUT_DATABASE_MAIN", self.engine.variable(&folder)?);
        shell.env("BACKOUT_ROOT_WEB", folder.join("web"));
        Ok(shell)
    }

    /// What the command changes, in short: a sum over the rows, and the file that it always changes.
    fn state(&self) -> Result<(String, String)> {
        let script = format!("{} 'SELECT COUNT(*), SUM(n) FROM item'", self.engine.client());
        let output = self.shell(&script)?.output().context("asking for a sum")?;
        if !output.status.success() {
            bail!("asking for a sum: {}", String::from_utf8_lossy(&output.stderr));
        }
        let file = fs::read_to_string(self.folder().join("web").join(name(0)))?;
        Ok((String::from_utf8(output.stdout)?, file))
    }

    /// A dump and a copy, durable; and the bare command.
    fn base(&self, load: Load) -> Result<(Duration, Duration)> {
        self.fresh()?;
        let folder = self.folder();
        let dump = File::create(folder.join("dump.sql"))?;
        let start = Instant::now();
        let mut command = self.engine.dump(&folder);
        let dumped = command.stdout(Stdio::from(dump)).status().with_context(|| format!("running {command:?}"))?;
        if !dumped.success() {
            bail!("{command:?}: {dumped}");
        }
        timed(Command::new("cp").arg("-a").arg(folder.join("web")).arg(folder.join("copy")))?;
        timed(Command::new("sync").arg("-f").arg(&folder))?;
        let copied = start.elapsed();
        settle(self.scratch)?;
        Ok((copied, timed(&mut self.shell(&self.script(load))?)?))
    }

    fn ours(&self, load: Load, package: &Path) -> Result<(Duration, Duration)> {
        let site = self.fresh()?;
        let before = self.state()?;
        if before.1 != content(0, "first version") {
            bail!("the tree is not fresh");
        }
        let deploy = timed(&mut self.tool.deploy(&site, package))?;
        let after = self.state()?;
        if after.0 == before.0 || after.1 == before.1 {
            bail!("the command of {} changed nothing", load.name);
        }
        settle(self.scratch)?;
        let undo = timed(&mut self.tool.undo(&site))?;
        if self.state()? != before {
            bail!("the undo did not bring back what was there");
        }
        Ok((deploy, undo))
    }
}
