//! What a rehearsal costs: the same package rehearsed and deployed, on SQLite and files; first where little changes on a large
//! site, so that nearly all is the copy and its comparison, then where half of the rows change. Shown, not judged: it is stated.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Options;
use super::files::{content, name, write};
use super::measure::{alternate, settle, timed};
use super::report::{Report, Row, Target};
use super::tool::Tool;
use crate::backout::Backout;

/// Files of the site.
const TREE: usize = 3_000;

pub fn run(options: &Options, backout: &Backout, scratch: &Path, report: &mut Report) -> Result<()> {
    let bench = Bench { tool: Tool { backout, scratch } };
    eprintln!("making a tree of {TREE} files and {} rows", options.rows);
    let site = bench.make(options.rows)?;
    // The first backup is of all; those of rehearsals and deployments add what is new.
    timed(&mut bench.command(&site, &["backup"]))?;
    for (name, sql) in [
        ("one row of many", "UPDATE item SET amount = 0 WHERE id = 1;\n"),
        ("half of the rows", "UPDATE item SET amount = amount + 1 WHERE id % 2 = 0;\n"),
    ] {
        let package = bench.tool.package(&name.replace(' ', "-"), &[sql.to_owned()])?;
        let deploy = |more: &[&str]| -> Result<Duration> {
            let mut command = bench.tool.deploy(&site, &package);
            let took = timed(command.args(more))?;
            timed(&mut bench.tool.undo(&site))?;
            settle(scratch)?;
            Ok(took)
        };
        let rehearse = || timed(&mut bench.tool.backout.command(&site, &[OsStr::new("rehearse"), package.as_os_str()]));
        let (plain, rehearsed) = alternate(options.runs, || deploy(&["--no-backup"]), rehearse)?;
        report.add(&Row::runs(&format!("rehearsal, {name}"), "deploy --no-backup", &plain, &rehearsed, Target::None));
        let (backed_up, rehearsed) = alternate(options.runs, || deploy(&[]), || deploy(&["--rehearse"]))?;
        report.add(&Row::runs(&format!("deploy --rehearse, {name}"), "deploy", &backed_up, &rehearsed, Target::None));
    }
    Ok(())
}

struct Bench<'a> {
    tool: Tool<'a>,
}

impl Bench<'_> {
    fn make(&self, rows: u64) -> Result<PathBuf> {
        let scratch = self.tool.scratch;
        for number in 0..TREE {
            write(&scratch.join("web").join(name(number)), &content(number, "first version"))?;
        }
        let sql = format!(
            "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, amount INTEGER); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
             INSERT INTO item SELECT i, hex(randomblob(30)), i FROM n"
        );
        timed(Command::new("sqlite3").arg(scratch.join("shop.sqlite")).arg(sql))?;
        fs::write(scratch.join("password"), "bench\n")?;
        let site = scratch.join("site.yaml");
        fs::write(
            &site,
            "site: bench\ndatabases:\n  main: {url: \"sqlite:shop.sqlite\"}\nroots:\n  web: {path: web}\nstate: state\n\
             backup: {password-file: password}\n",
        )?;
        settle(scratch)?;
        Ok(site)
    }

    fn command(&self, site: &Path, words: &[&str]) -> Command {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        self.tool.backout.command(site, &words)
    }
}
