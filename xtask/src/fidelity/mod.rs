//! `cargo xtask fidelity`: deploys SQL files one by one, undoes them, and compares the database each time with what
//! it was and with what the plain client makes of the same file. It judges the built binary from outside; its dump,
//! its rows and its clients share no code with the tool.

mod chain;
pub mod dump;
mod lab;
mod step;
pub mod subject;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use backout_servers::{mariadb, postgres};
use clap::{Args, ValueEnum};

use crate::backout::Backout;
use crate::mariadb::subject::Mariadb;
use crate::postgres::subject::Postgres;
use crate::sqlite::subject::Sqlite;
use lab::Lab;
use step::Judged;
use subject::Subject;

#[derive(Args)]
pub struct Options {
    /// The engine to judge
    #[arg(long, value_enum)]
    engine: EngineName,
    /// Folder of *.sql that makes the database to start from; may be empty
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// Folder of *.sql, deployed in the order of their names
    #[arg(long, value_name = "DIR")]
    steps: PathBuf,
    /// Rows that every table has before each step
    #[arg(long, default_value_t = 5)]
    rows: u64,
    /// Judge only the steps whose name matches; the plain client applies the others
    #[arg(long, value_name = "GLOB")]
    only: Option<String>,
    /// Keep the scratch folder and print where it is
    #[arg(long)]
    keep: bool,
    /// A built backout; without it this repository's is built
    #[arg(long, value_name = "FILE")]
    backout: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    Sqlite,
    Postgres,
    Mariadb,
}

/// An engine, with what all its databases need.
enum Engine {
    Sqlite,
    Postgres(Rc<postgres::Server>),
    Mariadb(Rc<mariadb::Server>),
}

impl Engine {
    fn of(name: EngineName) -> Self {
        match name {
            EngineName::Sqlite => Self::Sqlite,
            EngineName::Postgres => Self::Postgres(Rc::new(postgres::Server::fresh())),
            EngineName::Mariadb => Self::Mariadb(Rc::new(mariadb::Server::fresh())),
        }
    }

    /// An empty database, for a site in the folder.
    fn subject(&self, folder: &Path) -> Result<Box<dyn Subject>> {
        Ok(match self {
            Self::Sqlite => Box::new(Sqlite::new(folder.to_owned())?),
            Self::Postgres(server) => Box::new(Postgres::new(Rc::clone(server), folder.to_owned())?),
            Self::Mariadb(server) => Box::new(Mariadb::new(Rc::clone(server), folder.to_owned())?),
        })
    }
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Deployed as the plain client does it, undone, redone and deployed again, identical each time.
    Identical,
    /// Not deployed, with a reason, and nothing was changed.
    Refused(String),
    /// Fails in the plain client and fails here, and nothing was changed.
    Failed(String),
    Wrong(String),
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    identical: usize,
    refused: usize,
    failed: usize,
    wrong: usize,
}

impl Tally {
    fn add(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Identical => self.identical += 1,
            Verdict::Refused(_) => self.refused += 1,
            Verdict::Failed(_) => self.failed += 1,
            Verdict::Wrong(_) => self.wrong += 1,
        }
    }
}

/// Runs the whole comparison; true when nothing is wrong.
pub fn run(options: &Options) -> Result<bool> {
    let tally = judge_all(options)?;
    let Tally { identical, refused, failed, wrong } = tally;
    println!("identical={identical} refused={refused} failed={failed} wrong={wrong}");
    Ok(wrong == 0)
}

/// Judges every step and then the chain of all, a line each.
fn judge_all(options: &Options) -> Result<Tally> {
    let steps = sql_files(&options.steps)?;
    if steps.is_empty() {
        bail!("no *.sql in {}", options.steps.display());
    }
    let base = match &options.base {
        Some(dir) if !dir.as_os_str().is_empty() => sql_files(dir)?,
        _ => Vec::new(),
    };
    let mut scratch = tempfile::Builder::new().prefix("fidelity-").tempdir().context("making a scratch folder")?;
    scratch.disable_cleanup(options.keep);
    let backout = Backout::find(options.backout.as_deref(), false, scratch.path())?;

    let engine = Engine::of(options.engine);
    let mut tally = Tally::default();
    let mut lab = Lab::new(backout, &engine, scratch.path().join("steps"), &base)?;
    let mut named = BTreeMap::new();
    let mut judged: Vec<Judged> = Vec::new();
    for (number, file) in (1..).zip(&steps) {
        let name = name(file);
        if options.only.as_ref().is_some_and(|glob| !matches(glob, &name)) {
            lab.apply_plain(file)?;
            continue;
        }
        let steps = step::judge(&mut lab, number, file, options.rows)?;
        for (turn, step) in steps.iter().enumerate() {
            let label = if turn == 0 { name.clone() } else { format!("{name}, on plainer rows") };
            report(&label, &step.verdict);
            for (table, why) in &step.not_filled {
                if named.insert(table.clone(), why.clone()).as_ref() != Some(why) {
                    println!("    not filled: {table}: {why}");
                }
            }
            tally.add(&step.verdict);
        }
        judged.extend(steps);
    }
    // Without the steps between, a chain would not be the history.
    if options.only.is_none() {
        let verdict = chain::judge(&lab, &engine, scratch.path().join("chain"), &base, &judged)?;
        report("all deployed, then all undone one by one", &verdict);
        if verdict != Verdict::Identical {
            tally.add(&verdict);
        }
    }
    if options.keep {
        println!("kept: {}", scratch.path().display());
    }
    Ok(tally)
}

fn report(name: &str, verdict: &Verdict) {
    match verdict {
        Verdict::Identical => println!("{name}: identical"),
        Verdict::Refused(why) => println!("{name}: refused: {why}"),
        Verdict::Failed(why) => println!("{name}: failed: {why}"),
        Verdict::Wrong(why) => println!("{name}: WRONG: {why}"),
    }
}

/// The *.sql of a folder in the order of their names.
fn sql_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a name matches a pattern of letters, `?` and `*`.
fn matches(glob: &str, name: &str) -> bool {
    match glob.chars().next() {
        None => name.is_empty(),
        Some('*') => {
            (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| matches(&glob[1..], &name[at..]))
        }
        Some(wanted) => {
            let mut rest = name.chars();
            rest.next()
                .is_some_and(|c| (wanted == '?' || wanted == c) && matches(&glob[wanted.len_utf8()..], rest.as_str()))
        }
    }
}
