//! The SQLite engine against the `sqlite3` shell: bulk statements, single rows, a chain of steps, undo, memory, and
//! how long `status` takes. The shell runs with its defaults, the script inside BEGIN and COMMIT.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Options;
use super::measure::{alternate, median, settle, timed};
use super::report::{Report, Row, Target, ms};
use super::tool::{Sides, Tool, UNDO};
use crate::backout::Backout;
use crate::sqlite::client;

const SHELL: &str = "sqlite3 shell, in one transaction";
/// Deployments in the history that `status` reads.
const HISTORY: usize = 300;
/// Steps of the chain.
const CHAIN: usize = 500;

/// A workload: what is run, and what it and its undo may cost.
struct Workload {
    name: &'static str,
    target: Target,
    sql: String,
}

const MEMORY: Target = Target::Mebibytes(128.0);

pub fn run(options: &Options, backout: &Backout, scratch: &Path, report: &mut Report) -> Result<()> {
    let bench = Bench { tool: Tool { backout, scratch }, runs: options.runs };
    let all = workloads(options.rows);
    let any_bulk = all.iter().any(|load| options.wants(load.name) || options.wants(&format!("undo of {}", load.name)));
    if any_bulk || options.wants("chain") {
        let base = bench.prepare(options.rows)?;
        for load in all.iter().filter(|load| options.wants(load.name)) {
            bench.compare(load, &base, report)?;
        }
        if options.wants("chain") {
            bench.chain(&base, report)?;
        }
    }
    for rows in [options.rows, options.rows * 5] {
        for load in workloads(rows).iter().take(3) {
            bench.memory(options, rows, load, report)?;
        }
        match fs::remove_file(bench.base(rows)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    if options.wants("status") {
        bench.status(report)?;
    }
    Ok(())
}

fn workloads(rows: u64) -> Vec<Workload> {
    let half = "id % 2 = 0";
    let mut random = fastrand::Rng::with_seed(7);
    let single: String = (0..2000)
        .map(|_| format!("UPDATE item SET amount = amount + 1 WHERE id = {};\n", random.u64(1..=rows)))
        .collect();
    vec![
        Workload {
            name: "UPDATE of half the rows",
            target: Target::Ratio(2.0),
            sql: format!("UPDATE item SET amount = amount + 1 WHERE {half};\n"),
        },
        Workload {
            name: "DELETE of half the rows",
            target: Target::Ratio(1.6),
            sql: format!("DELETE FROM item WHERE {half};\n"),
        },
        Workload {
            name: "INSERT of half as many rows",
            target: Target::Ratio(1.5),
            sql: format!(
                "INSERT INTO item (name, amount, price, note) SELECT name, amount, price, note FROM item WHERE {half};\n"
            ),
        },
        Workload { name: "2,000 single rows", target: Target::RatioPlus(2.0, 100.0), sql: single },
        Workload { name: "delete-all", target: Target::Ratio(2.0), sql: "DELETE FROM item;\n".to_owned() },
    ]
}

pub(super) struct Bench<'a> {
    pub tool: Tool<'a>,
    pub runs: usize,
}

impl Bench<'_> {
    fn base(&self, rows: u64) -> PathBuf {
        self.tool.scratch.join(format!("base-{rows}.sqlite"))
    }

    /// The database every run starts from.
    pub fn prepare(&self, rows: u64) -> Result<PathBuf> {
        let path = self.base(rows);
        if !path.exists() {
            eprintln!("making a table of {rows} rows");
            let connection = client::open(&path)?;
            connection.execute_batch(&format!(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
                 CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL, amount INTEGER NOT NULL,
                   price REAL NOT NULL, note TEXT);
                 CREATE TABLE log (id INTEGER PRIMARY KEY, what TEXT);
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                 INSERT INTO item SELECT i, 'item number ' || i, i % 1000, i / 7.0,
                   'a note of some length about item ' || i || ', as people write them' FROM n;"
            ))?;
            drop(connection);
            // The journal mode above is not stored; the file is one as the shell makes it.
            settle(self.tool.scratch)?;
        }
        Ok(path)
    }

    /// A fresh site on a copy of the database, both on disk before anything is timed.
    pub fn site(&self, base: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
        let folder = self.tool.scratch.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        let database = folder.join("main.sqlite");
        fs::copy(base, &database).context("copying the database")?;
        let site = folder.join("site.yaml");
        fs::write(&site, "site: bench\ndatabases:\n  main: {url: \"sqlite:main.sqlite\"}\n")?;
        settle(self.tool.scratch)?;
        Ok((site, database))
    }

    fn compare(&self, load: &Workload, base: &Path, report: &mut Report) -> Result<()> {
        let package = self.tool.package("work", std::slice::from_ref(&load.sql))?;
        let script = format!("BEGIN;\n{}COMMIT;\n", load.sql);
        self.sides(base, &script, &package)?.report(load.name, SHELL, (load.target, UNDO), report);
        Ok(())
    }

    /// Many small steps in one deployment against as many transactions of one shell.
    fn chain(&self, base: &Path, report: &mut Report) -> Result<()> {
        let step = |number: usize| {
            let table = if number.is_multiple_of(10) {
                format!("CREATE TABLE extra{number} (id INTEGER PRIMARY KEY, x TEXT);\n")
            } else {
                String::new()
            };
            format!(
                "{table}INSERT INTO log (what) VALUES ('step {number}');\n\
                 UPDATE item SET amount = amount + 1 WHERE id = {};\n",
                1 + number * 17
            )
        };
        let steps: Vec<String> = (0..CHAIN).map(step).collect();
        let script: String = steps.iter().map(|step| format!("BEGIN;\n{step}COMMIT;\n")).collect();
        let package = self.tool.package("chain", &steps)?;
        let against = "sqlite3 shell, a transaction a step";
        let sides = self.sides(base, &script, &package)?;
        sides.report("chain of 500 steps", against, (Target::Ratio(2.0), UNDO), report);
        Ok(())
    }

    /// Times the shell and, in turns, deploy and undo.
    fn sides(&self, base: &Path, script: &str, package: &Path) -> Result<Sides> {
        let file = self.tool.scratch.join("script.sql");
        fs::write(&file, script)?;
        let wanted = std::cell::OnceCell::new();
        let shell = || {
            let (_, database) = self.site(base, "shell")?;
            let took = timed(
                Command::new("sqlite3")
                    .args(["-batch", "-bail", "-init", "/dev/null"])
                    .arg(&database)
                    .stdin(File::open(&file)?),
            )?;
            wanted.get_or_init(|| sum(&database).unwrap_or_default());
            Ok(took)
        };
        let ours = || {
            let (site, database) = self.site(base, "ours")?;
            let deploy = timed(&mut self.tool.deploy(&site, package))?;
            if wanted.get().is_some_and(|wanted| sum(&database).ok().as_ref() != Some(wanted)) {
                bail!("the deployment did not do what the shell does");
            }
            settle(self.tool.scratch)?;
            let undo = timed(&mut self.tool.undo(&site))?;
            if sum(&database)? != sum(base)? {
                bail!("the undo did not bring back what was there");
            }
            Ok((deploy, undo))
        };
        let (base, ours) = alternate(self.runs, shell, ours)?;
        Ok(Sides { base, ours })
    }

    fn memory(&self, options: &Options, rows: u64, load: &Workload, report: &mut Report) -> Result<()> {
        let name = format!("memory, {rows} rows, {}", load.name.split(' ').next().unwrap_or_default());
        if !options.wants(&name) {
            return Ok(());
        }
        let base = self.prepare(rows)?;
        let package = self.tool.package("work", std::slice::from_ref(&load.sql))?;
        let (site, _) = self.site(&base, "ours")?;
        self.tool.memory(&name, &site, &package, MEMORY, report)
    }

    /// `status` on a site with a long history, from process start.
    fn status(&self, report: &mut Report) -> Result<()> {
        let base = self.prepare(1000)?;
        let (site, _) = self.site(&base, "ours")?;
        eprintln!("making a history of {HISTORY} deployments");
        for number in 0..HISTORY {
            let sql = format!("INSERT INTO log (what) VALUES ('deployment {number}');\n");
            let package = self.tool.package(&format!("small-{number}"), &[sql])?;
            timed(&mut self.tool.deploy(&site, &package))?;
        }
        let times: Result<Vec<_>> = (0..self.runs.max(1) * 5)
            .map(|_| timed(&mut self.tool.backout.command(&site, &[OsStr::new("status")])))
            .collect();
        let name = format!("status, {HISTORY} deployments");
        report.add(&Row::alone(&name, ms(median(times?)), Target::Milliseconds(20.0)));
        Ok(())
    }
}

/// A quick sum over what the workloads change.
fn sum(database: &Path) -> Result<(i64, i64, i64)> {
    let connection = client::open(database)?;
    let sql =
        "SELECT (SELECT count(*) FROM item), (SELECT coalesce(sum(amount), 0) FROM item), (SELECT count(*) FROM log)";
    connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).context("summing up")
}
