//! `backout diff`: in what two sites differ, or a site and a backup of it, which is laid out beside it for that. Reads both and
//! changes neither.

use std::path::{Path, PathBuf};

use backout_backup::diff::{self, Side, Unlike};
use backout_backup::{DatabaseSource, RootSource, Scratch};
use backout_engine::backup::no_backup;
use backout_engine::outcome::Status;
use backout_engine::restore;
use backout_model::backup::{Backup as _, BackupError};
use backout_package::site::{SITE_FILE, Site};
use serde_json::{Value, json};

use super::Context;
use super::backup::line;
use crate::end::End;
use crate::error::CliError;
use crate::progress::Progress;
use crate::rehearsal::Copy;
use crate::signals::Stop;
use crate::{lent, wiring};

/// So many differences of one database or root are shown without `--all`.
const SHOWN: usize = 20;

/// Compare two sites, or a site and a backup of it: definitions, rows, files
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One site: its site.yaml, or the directory of that
    #[arg(required_unless_present = "backup")]
    one: Option<PathBuf>,
    /// The other [default: the site here]
    #[arg(conflicts_with = "backup")]
    other: Option<PathBuf>,
    /// Compare the one site [default: the site here] with a backup of it: `latest`, the beginning of its id, or the
    /// deployment that it was taken before
    #[arg(long, value_name = "BACKUP")]
    backup: Option<String>,
    /// Show every difference
    #[arg(long)]
    all: bool,
    /// End with exit status 5 where they differ
    #[arg(long)]
    exit_code: bool,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let site = |path: &Option<PathBuf>| path.as_deref().map_or_else(|| context.site(), load);
    let one = site(&args.one)?;
    let found = match &args.backup {
        Some(backup) => with_backup(context, &one, backup)?,
        None => of_sites(&one, &site(&args.other)?)?,
    };
    let total: usize = found.iter().map(|(_, all)| all.len()).sum();
    for (target, all) in &found {
        let shown = if args.all { all.len() } else { SHOWN };
        for unlike in all.iter().take(shown) {
            context.ui.answer(format!("{target}: {}", told(unlike)));
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

fn of_sites(one: &Site, other: &Site) -> Result<Found, CliError> {
    let scratch =
        Scratch::make_beside(&std::env::temp_dir()).map_err(|source| CliError::io("make a scratch", source))?;
    let ((mine, my_roots), (its, its_roots)) = (wiring::sources(one), wiring::sources(other));
    let found = compare((&mine, &my_roots), (&its, &its_roots), scratch.path());
    scratch.close().map_err(|source| CliError::io("remove the scratch", source))?;
    let mut found = found?;
    found.extend(only_in_second("database", &names(&mine), names(&its).into_iter()));
    found.extend(only_in_second("root", &root_names(&my_roots), root_names(&its_roots).into_iter()));
    Ok(found)
}

fn with_backup(context: &Context<'_>, site: &Site, backup: &str) -> Result<Found, CliError> {
    lent::clear(site, context.ui);
    let mut keeper = wiring::keeper(site).ok_or_else(no_backup)?;
    let snapshot = restore::chosen(keeper.list()?, Some(backup))?;
    let content = keeper.content(&snapshot)?;
    context.ui.note(format!("the first is the site {}, the second its backup {}", site.name, line(&snapshot)));
    let stop = Stop::listen().map_err(|source| CliError::io("listen for signals", source))?;
    let mut progress = Progress::new(context.ui, stop);
    let copy = Copy::of_backup(site, &mut keeper, &snapshot, &mut progress)?;
    progress.pause();
    copy.notes.iter().for_each(|note| context.ui.note(format!("the backup as it was laid out: {note}")));
    let (mine, my_roots) = wiring::sources(site);
    let (its, its_roots) = copy.sources();
    // What the site has by now and the backup has not was laid out as nothing.
    let its: Vec<DatabaseSource> = its.iter().filter(|one| content.databases.contains(&one.name)).cloned().collect();
    let its_roots: Vec<RootSource> = its_roots.into_iter().filter(|one| content.roots.contains(&one.name)).collect();
    let found = compare((&mine, &my_roots), (&its, &its_roots), &copy.private());
    copy.remove(site)?;
    let mut found = found?;
    // What site.yaml does not name any more has no place to be laid out in.
    found.extend(only_in_second("database", &names(&mine), content.databases.iter().map(String::as_str)));
    found.extend(only_in_second("root", &root_names(&my_roots), content.roots.iter().map(String::as_str)));
    Ok(found)
}

fn load(path: &Path) -> Result<Site, CliError> {
    let file = if path.is_dir() { path.join(SITE_FILE) } else { path.to_owned() };
    Ok(Site::load(&file)?)
}

fn told(unlike: &Unlike) -> String {
    let Unlike { side, what, how } = unlike;
    match side {
        Side::One => format!("only in the first: {what}"),
        Side::Other => format!("only in the second: {what}"),
        Side::Both => format!("{what}: {how}"),
    }
}

type Found = Vec<(String, Vec<Unlike>)>;
type Sources<'a> = (&'a [DatabaseSource], &'a [RootSource]);

fn compare((mine, my_roots): Sources<'_>, (its, its_roots): Sources<'_>, private: &Path) -> Result<Found, BackupError> {
    let mut found = Found::new();
    for database in mine {
        let target = format!("database {}", database.name);
        let mut all = Vec::new();
        match its.iter().find(|other| other.name == database.name) {
            None => all.push(alone(Side::One, "the database")),
            Some(other) if database.engine.name() != other.engine.name() => all.push(engines(database, other)),
            Some(other) => diff::databases(database, other, private, &mut |unlike| all.push(unlike))?,
        }
        found.push((target, all));
    }
    for root in my_roots {
        let mut all = Vec::new();
        match its_roots.iter().find(|other| other.name == root.name) {
            None => all.push(alone(Side::One, "the root")),
            Some(other) => diff::roots((root, mine), (other, its), &mut |unlike| all.push(unlike))?,
        }
        found.push((format!("root {}", root.name), all));
    }
    Ok(found)
}

fn names(databases: &[DatabaseSource]) -> Vec<&str> {
    databases.iter().map(|one| one.name.as_str()).collect()
}

fn root_names(roots: &[RootSource]) -> Vec<&str> {
    roots.iter().map(|one| one.name.as_str()).collect()
}

/// What of a kind (`database`, `root`) the second has and the first has not.
fn only_in_second<'a>(kind: &str, mine: &[&str], its: impl Iterator<Item = &'a str>) -> Found {
    let of = |name| (format!("{kind} {name}"), vec![alone(Side::Other, &format!("the {kind}"))]);
    its.filter(|name| !mine.contains(name)).map(of).collect()
}

fn alone(side: Side, what: &str) -> Unlike {
    Unlike { side, what: what.to_owned(), how: String::new() }
}

fn engines(one: &DatabaseSource, other: &DatabaseSource) -> Unlike {
    let how = format!("{} in the first, {} in the second: not compared", one.engine.name(), other.engine.name());
    Unlike { side: Side::Both, what: "the engine".to_owned(), how }
}
