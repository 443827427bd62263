//! `cargo xtask bench`: the cost of a deployment and of its undo as ratios to what a user would run instead.
//! Baseline and tool take turns in the same run, each on a fresh copy, process start included; medians are shown
//! beside the project's targets. It judges the release build from outside.

mod backup;
mod capture;
mod files;
mod mariadb;
mod meanwhile;
mod measure;
mod postgres;
mod record;
mod rehearse;
mod report;
mod sqlite;
mod tool;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::backout::Backout;
use crate::fidelity::EngineName;
use crate::place;
use report::Report;

#[derive(Args)]
pub struct Options {
    what: What,
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
    /// Rows of the table
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Runs of each side; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only the measurements whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Only this engine, where a measurement is made on each
    #[arg(long, value_enum)]
    engine: Option<EngineName>,
    /// Scratch folder on a real disk; without it the target folder is used
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A built backout; without it this repository's release build is made
    #[arg(long, value_name = "FILE")]
    backout: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Sqlite,
    Postgres,
    Mariadb,
    Files,
    Record,
    Backup,
    /// The time of a rehearsal beside that of the deployment
    Rehearse,
    /// Commands whose changes are captured, on each engine, with files
    Capture,
}

impl Options {
    /// Whether a measurement was asked for.
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }
}

/// Measures and prints; true when every target is met.
pub fn run(options: &Options) -> Result<bool> {
    if options.engine.is_some() && options.what != What::Capture {
        bail!("--engine goes with `capture` alone: the others name their engine");
    }
    let scratch = match &options.dir {
        Some(dir) => {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
            tempfile::Builder::new().prefix("bench-").tempdir_in(dir).context("making a scratch folder")?
        }
        None => place::scratch("bench")?,
    };
    let backout = Backout::find(options.backout.as_deref(), true, scratch.path())?;
    if measure::in_memory(scratch.path())? {
        eprintln!(
            "warning: {} is in memory: syncs cost nothing there (--dir names a real disk)",
            scratch.path().display()
        );
    }
    let mut report = Report::new(options.json);
    match options.what {
        What::Sqlite => sqlite::run(options, &backout, scratch.path(), &mut report)?,
        What::Postgres => postgres::run(options, &backout, scratch.path(), &mut report)?,
        What::Mariadb => mariadb::run(options, &backout, scratch.path(), &mut report)?,
        What::Capture => capture::run(options, &backout, scratch.path(), &mut report)?,
        What::Files => files::run(options, &backout, scratch.path(), &mut report)?,
        What::Record => record::run(options, &backout, scratch.path(), &mut report)?,
        What::Rehearse => rehearse::run(options, &backout, scratch.path(), &mut report)?,
        What::Backup => backup::run(options, &backout, scratch.path(), &mut report)?,
    }
    report.close();
    Ok(report.all_met())
}
