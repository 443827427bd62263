//! The record of a deployment against the deployment's own statement in the `sqlite3` shell, its memory, and what a record
//! of a small deployment takes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::Options;
use super::measure::{alternate, peak_memory, settle, timed};
use super::report::{Report, Row, Target};
use super::sqlite::Bench;
use super::tool::Tool;
use crate::backout::Backout;

/// The statement that a record is measured by: half of the table's rows.
const UPDATE: &str = "UPDATE item SET amount = amount + 1 WHERE id % 2 = 0;\n";

pub fn run(options: &Options, backout: &Backout, scratch: &Path, report: &mut Report) -> Result<()> {
    let bench = Bench { tool: Tool { backout, scratch }, runs: options.runs };
    let base = bench.prepare(options.rows)?;
    let package = bench.tool.package("update", &[UPDATE.to_owned()])?;
    let script = scratch.join("script.sql");
    fs::write(&script, format!("BEGIN;\n{UPDATE}COMMIT;\n"))?;
    let shell = || {
        let (_, database) = bench.site(&base, "shell")?;
        timed(
            Command::new("sqlite3")
                .args(["-batch", "-bail", "-init", "/dev/null"])
                .arg(&database)
                .stdin(File::open(&script)?),
        )
    };
    let record = |site: &Path| backout.command(site, &[OsStr::new("record")]);
    let ours = || {
        let (site, _) = bench.site(&base, "ours")?;
        timed(&mut bench.tool.deploy(&site, &package))?;
        settle(scratch)?;
        timed(&mut record(&site))
    };
    let (base_times, times) = alternate(options.runs, shell, ours)?;
    let name = format!("record of an UPDATE of {} rows", options.rows / 2);
    report.add(&Row::runs(&name, "sqlite3 shell, the UPDATE", &base_times, &times, Target::Ratio(1.0)));
    let (site, _) = bench.site(&base, "ours")?;
    timed(&mut bench.tool.deploy(&site, &package))?;
    let peak = peak_memory(&mut record(&site))?;
    report.add(&Row::alone("its memory", peak as f64 / f64::from(1 << 20), Target::Mebibytes(128.0)));

    let one = bench.tool.package("one", &["UPDATE item SET amount = 0 WHERE id = 1;\n".to_owned()])?;
    let small = |wanted: bool| {
        let (site, _) = bench.site(&base, "small")?;
        if wanted {
            let text = fs::read_to_string(&site)?;
            fs::write(&site, format!("{text}record: true\n"))?;
        }
        timed(&mut bench.tool.deploy(&site, &one))
    };
    let (without, with) = alternate(options.runs, || small(false), || small(true))?;
    let against = "the same without `record: true`";
    report.add(&Row::runs("a small deployment and its record", against, &without, &with, Target::RatioPlus(1.0, 25.0)));
    Ok(())
}
