//! `backout diff`: in what two sites differ. Reads both and changes neither.

use std::path::{Path, PathBuf};

use backout_backup::diff::{self, Side, Unlike};
use backout_backup::{DatabaseSource, Scratch};
use backout_engine::error::EngineError;
use backout_engine::outcome::Status;
use backout_model::backup::BackupError;
use backout_package::site::{SITE_FILE, Site};
use serde_json::{Value, json};

use super::Context;
use crate::end::End;
use crate::error::CliError;
use crate::wiring;

/// So many differences of one database or root are shown without `--all`.
const SHOWN: usize = 20;

/// Compare two sites: definitions, rows, files
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One site: its site.yaml, or the directory of that
    one: PathBuf,
    /// The other [default: the site here]
    other: Option<PathBuf>,
    /// Show every difference
    #[arg(long)]
    all: bool,
    /// End with exit status 5 where they differ
    #[arg(long)]
    exit_code: bool,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let one = load(&args.one)?;
    let other = args.other.as_deref().map_or_else(|| context.site(), load)?;
    let scratch =
        Scratch::make_beside(&std::env::temp_dir()).map_err(|source| CliError::io("make a scratch", source))?;
    let found = compare(&one, &other, scratch.path());
    scratch.close().map_err(|source| CliError::io("remove the scratch", source))?;
    let found = found.map_err(|error| CliError::Engine(EngineError::Backup(error)))?;
    let total: usize = found.iter().map(|(_, all)| all.len()).sum();
    for (target, all) in &found {
        let shown = if args.all { all.len() } else { SHOWN };
        for unlike in all.iter().take(shown) {
            context.ui.answer(format!("{target}: {}", line(unlike)));
        }
        if all.len() > shown {
            context.ui.answer(format!("{target}: and {} more differences (`--all` shows them)", all.len() - shown));
        }
    }
    if total == 0 {
        context.ui.answer("no difference");
    }
    let differences: Vec<Value> = found
        .iter()
        .flat_map(|(target, all)| all.iter().map(move |unlike| (target, unlike)))
        .map(|(target, Unlike { side, what, how })| {
            let side = match side {
                Side::One => "one",
                Side::Other => "other",
                Side::Both => "both",
            };
            json!({ "target": target, "side": side, "what": what, "how": how })
        })
        .collect();
    let fields = json!({ "total": total, "differences": differences });
    let status = if args.exit_code && total > 0 { Status::Partly } else { Status::Done };
    Ok(End::answered_with(status, &fields, ""))
}

fn load(path: &Path) -> Result<Site, CliError> {
    let file = if path.is_dir() { path.join(SITE_FILE) } else { path.to_owned() };
    Ok(Site::load(&file)?)
}

fn line(unlike: &Unlike) -> String {
    let Unlike { side, what, how } = unlike;
    match side {
        Side::One => format!("only in the first: {what}"),
        Side::Other => format!("only in the second: {what}"),
        Side::Both => format!("{what}: {how}"),
    }
}

type Found = Vec<(String, Vec<Unlike>)>;

fn compare(one: &Site, other: &Site, private: &Path) -> Result<Found, BackupError> {
    let ((mine, my_roots), (its, its_roots)) = (wiring::sources(one), wiring::sources(other));
    let mut found = Found::new();
    for database in &mine {
        let target = format!("database {}", database.name);
        let mut all = Vec::new();
        match its.iter().find(|other| other.name == database.name) {
            None => all.push(alone(Side::One, "the database")),
            Some(other) if database.engine.name() != other.engine.name() => all.push(engines(database, other)),
            Some(other) => diff::databases(database, other, private, &mut |unlike| all.push(unlike))?,
        }
        found.push((target, all));
    }
    for root in &my_roots {
        let mut all = Vec::new();
        match its_roots.iter().find(|other| other.name == root.name) {
            None => all.push(alone(Side::One, "the root")),
            Some(other) => diff::roots((root, &mine), (other, &its), &mut |unlike| all.push(unlike))?,
        }
        found.push((format!("root {}", root.name), all));
    }
    for database in its.iter().filter(|database| mine.iter().all(|one| one.name != database.name)) {
        found.push((format!("database {}", database.name), vec![alone(Side::Other, "the database")]));
    }
    for root in its_roots.iter().filter(|root| my_roots.iter().all(|one| one.name != root.name)) {
        found.push((format!("root {}", root.name), vec![alone(Side::Other, "the root")]));
    }
    Ok(found)
}

fn alone(side: Side, what: &str) -> Unlike {
    Unlike { side, what: what.to_owned(), how: String::new() }
}

fn engines(one: &DatabaseSource, other: &DatabaseSource) -> Unlike {
    let how = format!("{} in the first, {} in the second: not compared", one.engine.name(), other.engine.name());
    Unlike { side: Side::Both, what: "the engine".to_owned(), how }
}
