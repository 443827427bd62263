//! The MariaDB engine against the `mariadb` client: bulk statements, single rows, a chain of real steps, DROP TABLE and
//! TRUNCATE, undo, memory, and what is left to other sessions meanwhile. On a private server of its own; the client runs the
//! same script, in one transaction where it is one of rows.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use backout_servers::mariadb::{SUPERUSER, Server};
use mysql::prelude::Queryable as _;

use super::Options;
use super::meanwhile::{self, Others, throughput};
use super::measure::{alternate, settle, timed};
use super::report::{Report, Row, Target};
use super::tool::Tool;
use crate::backout::Backout;
use crate::mariadb::{copy, rows};
use crate::place;

const CLIENT: &str = "mariadb, in one transaction";
const MEMORY: Target = Target::Mebibytes(64.0);
/// Steps of the chain.
const CHAIN: usize = 40;

/// A workload: what is run, and what it and its undo may cost.
struct Workload {
    name: &'static str,
    target: Target,
    undo: Target,
    sql: String,
}

struct Bench<'a> {
    tool: Tool<'a>,
    server: Server,
    runs: usize,
}

pub fn run(options: &Options, backout: &Backout, scratch: &Path, report: &mut Report) -> Result<()> {
    let settings = ["--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=1G", "--innodb-log-file-size=1G"];
    let bench = Bench { tool: Tool { backout, scratch }, server: Server::with(&settings), runs: options.runs };
    eprintln!("making a table of {} rows", options.rows);
    bench.prepare(options.rows)?;
    let all = workloads(options.rows);
    for load in all.iter().filter(|load| options.wants(load.name)) {
        let script = format!("START TRANSACTION;\n{}COMMIT;\n", load.sql);
        bench.contest(load, &script, "base", report)?;
    }
    if options.wants("chain of 40 real steps") {
        let sql = real_steps()?;
        copy::make_empty(&mut bench.server.connect("mysql"), "nothing")?;
        let load = Workload {
            name: "chain of 40 real steps",
            target: Target::Ratio(1.5),
            undo: Target::None,
            sql: sql.clone(),
        };
        bench.contest(&load, &sql, "nothing", report)?;
    }
    for load in &all {
        let name = format!("memory, {}", load.name);
        if options.wants(&name) {
            let package = bench.tool.package("work", std::slice::from_ref(&load.sql))?;
            bench.tool.memory(&name, &bench.site("ours", "base")?, &package, MEMORY, report)?;
        }
    }
    if options.wants("sysbench meanwhile") {
        bench.meanwhile(&all[0], report)?;
    }
    Ok(())
}

fn workloads(rows: u64) -> Vec<Workload> {
    let half = "id % 2 = 0";
    let mut random = fastrand::Rng::with_seed(7);
    let single: String = (0..2000)
        .map(|_| format!("UPDATE item SET amount = amount + 1 WHERE id = {};\n", random.u64(1..=rows)))
        .collect();
    let columns = "name, amount, price, note";
    let load = |name, target, sql| Workload { name, target: Target::Ratio(target), undo: Target::None, sql };
    vec![
        Workload {
            undo: Target::Ratio(2.5),
            ..load("UPDATE of half the rows", 2.0, format!("UPDATE item SET amount = amount + 1 WHERE {half};\n"))
        },
        load("DELETE of half the rows", 1.4, format!("DELETE FROM item WHERE {half};\n")),
        load(
            "INSERT of half as many rows",
            1.5,
            format!("INSERT INTO item ({columns}) SELECT {columns} FROM item WHERE {half};\n"),
        ),
        load(
            "REPLACE of a fifth of the rows",
            1.6,
            "REPLACE INTO item SELECT id, name, amount + 1, price, note FROM item WHERE id % 5 = 0;\n".to_owned(),
        ),
        Workload { target: Target::RatioPlus(2.0, 100.0), ..load("2,000 single rows", 0.0, single) },
        Workload {
            target: Target::RatioPlus(1.2, 100.0),
            undo: Target::Milliseconds(500.0),
            ..load("DROP TABLE", 0.0, "DROP TABLE item;\n".to_owned())
        },
        Workload {
            target: Target::None,
            undo: Target::Milliseconds(500.0),
            ..load("TRUNCATE", 0.0, "TRUNCATE TABLE item;\n".to_owned())
        },
    ]
}

/// The first steps of a real upgrade history.
fn real_steps() -> Result<String> {
    let script = place::repository()?.join("script/wagtail-history");
    let output = Command::new(&script).args(["--engine", "mariadb"]).stderr(Stdio::inherit()).output();
    let output = output.context("running script/wagtail-history")?;
    if !output.status.success() {
        bail!("script/wagtail-history failed: {}", output.status);
    }
    let said = String::from_utf8(output.stdout).context("reading what script/wagtail-history printed")?;
    // `201 files, 469 statements in FOLDER`.
    let folder = PathBuf::from(said.trim().split_once(" in ").map_or(said.trim(), |(_, folder)| folder));
    let found = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files = found.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    let steps: Vec<String> = files.iter().take(CHAIN).map(fs::read_to_string).collect::<std::io::Result<_>>()?;
    Ok(steps.concat())
}

impl Bench<'_> {
    /// The database every run starts from.
    fn prepare(&self, rows: u64) -> Result<()> {
        copy::make_empty(&mut self.server.connect("mysql"), "base")?;
        let mut conn = self.server.connect("base");
        conn.query_drop(
            "CREATE TABLE item (id bigint AUTO_INCREMENT PRIMARY KEY, name varchar(60) NOT NULL, amount int NOT NULL, price double NOT NULL,
             note text, KEY name (name), KEY amount (amount)) ENGINE=InnoDB",
        )?;
        Ok(conn.query_drop(format!(
            "INSERT INTO item (name, amount, price, note) SELECT CONCAT('item number ', seq), seq % 1000, seq / 7,
             CONCAT('a note of some length about item ', seq, ', as people write them') FROM seq_1_to_{rows}"
        ))?)
    }

    /// A fresh site on a fresh copy.
    fn site(&self, name: &str, base: &str) -> Result<PathBuf> {
        let folder = self.tool.scratch.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        let site = folder.join("site.yaml");
        let url = format!("mariadb://{SUPERUSER}@localhost/{name}?socket={}", self.server.socket().display());
        fs::write(&site, format!("site: bench\ndatabases:\n  main: {{url: \"{url}\"}}\n"))?;
        self.fresh(name, base)?;
        Ok(site)
    }

    fn fresh(&self, name: &str, base: &str) -> Result<()> {
        copy::copy(&mut self.server.connect("mysql"), base, name)?;
        settle(self.tool.scratch)
    }

    fn client(&self, database: &str, script: &Path) -> Result<Command> {
        let mut command = self.server.client("mariadb");
        command.args(["--default-character-set=utf8mb4", database]).stdin(Stdio::from(File::open(script)?));
        Ok(command)
    }

    /// Times the client and, in turns, deploy and undo.
    fn contest(&self, load: &Workload, script: &str, base: &str, report: &mut Report) -> Result<()> {
        let package = self.tool.package("work", std::slice::from_ref(&load.sql))?;
        let file = self.tool.scratch.join("script.sql");
        fs::write(&file, script)?;
        let untouched = self.sum(base)?;
        let wanted = std::cell::OnceCell::new();
        let plain = || {
            self.fresh("plain", base)?;
            let there = timed(&mut self.client("plain", &file)?)?;
            if wanted.get().is_none() {
                wanted.get_or_init(|| self.sum("plain").unwrap_or_default());
            }
            Ok(there)
        };
        let ours = || {
            let site = self.site("ours", base)?;
            let deploy = timed(&mut self.tool.deploy(&site, &package))?;
            if wanted.get().is_some_and(|wanted| self.sum("ours").ok().as_ref() != Some(wanted)) {
                bail!("the deployment did not do what the client does");
            }
            settle(self.tool.scratch)?;
            let undo = timed(&mut self.tool.undo(&site))?;
            if self.sum("ours")? != untouched {
                bail!("the undo did not bring back what was there");
            }
            Ok((deploy, undo))
        };
        let (there, ours) = alternate(self.runs, plain, ours)?;
        let (deploys, undos): (Vec<_>, Vec<_>) = ours.into_iter().unzip();
        report.add(&Row::runs(load.name, CLIENT, &there, &deploys, load.target));
        report.add(&Row::runs(&format!("undo of {}", load.name), "the same, forward", &there, &undos, load.undo));
        Ok(())
    }

    /// Transactions that sysbench does on other tables while a script runs.
    fn meanwhile(&self, load: &Workload, report: &mut Report) -> Result<()> {
        copy::copy(&mut self.server.connect("mysql"), "base", "busy")?;
        timed(self.sysbench("busy").arg("prepare"))
            .context("making the tables of sysbench: script/setup installs it")?;
        let package = self.tool.package("work", std::slice::from_ref(&load.sql))?;
        let file = self.tool.scratch.join("script.sql");
        fs::write(&file, format!("START TRANSACTION;\n{}COMMIT;\n", load.sql))?;
        let plain = || {
            self.fresh("plain", "busy")?;
            throughput(self.others("plain"), &mut self.client("plain", &file)?)
        };
        let ours = || {
            let site = self.site("ours", "busy")?;
            throughput(self.others("ours"), &mut self.tool.deploy(&site, &package))
        };
        meanwhile::compare("sysbench meanwhile", "sysbench beside mariadb", self.runs, plain, ours, report)
    }

    fn sysbench(&self, database: &str) -> Command {
        let mut command = Command::new("sysbench");
        command.arg("oltp_read_write").args(["--tables=4", "--table-size=50000", "--threads=2"]);
        command
            .args([&format!("--mysql-socket={}", self.server.socket().display()), &format!("--mysql-db={database}")]);
        command.arg(format!("--mysql-user={SUPERUSER}"));
        command
    }

    /// Nobody else executes prepared statements; a transaction of sysbench is so many of them.
    fn others(&self, database: &str) -> Others<'static> {
        const STATEMENTS: f64 = 20.0;
        let mut program = self.sysbench(database);
        // Deadlocks of its own with itself are no matter.
        program.args(["--time=3600", "--mysql-ignore-errors=all", "run"]);
        let mut conn = self.server.connect("mysql");
        let done = move || -> Result<f64> {
            let found = rows(&mut conn, "SHOW GLOBAL STATUS LIKE 'Com_stmt_execute'")?;
            let count: f64 =
                found[0][1].as_deref().unwrap_or_default().parse().context("reading how much was executed")?;
            Ok(count / STATEMENTS)
        };
        Others { program, done: Box::new(done) }
    }

    /// A quick sum over what the workloads change.
    fn sum(&self, database: &str) -> Result<String> {
        let mut conn = self.server.connect(database);
        let tables = rows(
            &mut conn,
            "SELECT COUNT(*), SUM(TABLE_NAME = 'item') FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME NOT LIKE 'backout%'",
        )?;
        let there = tables[0][1].as_deref() == Some("1");
        let items = if there { rows(&mut conn, "SELECT COUNT(*), SUM(amount) FROM item")? } else { Vec::new() };
        Ok(format!("{tables:?} {items:?}"))
    }
}
