//! `backout restore`: back to a backup, all of it or a part, or into another place. Shows first what that does.

use std::path::{Component, Path, PathBuf};

use backout_engine::backup::no_backup;
use backout_engine::restore::{self, Asked, Plan};
use backout_journal::Journal;
use backout_model::state::DeploymentState;
use backout_package::site::Site;

use super::Context;
use super::backup::line;
use crate::end::End;
use crate::error::CliError;
use crate::{ask, wiring, words};

/// Go back to a backup: the last resort, where no undo helps
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A backup, by the beginning of its id or by the deployment that it was taken before [default: the latest]
    #[arg(value_name = "BACKUP")]
    snapshot: Option<String>,
    /// Only this database, and what else is named
    #[arg(long, value_name = "NAME")]
    database: Vec<String>,
    /// Only this root, and what else is named
    #[arg(long, value_name = "NAME")]
    root: Vec<String>,
    /// Put it into this directory instead; the site stays as it is
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let site = context.site()?;
    let mut keeper = wiring::keeper(&site).ok_or_else(no_backup)?;
    let into = args.into.as_deref().map(std::path::absolute).transpose();
    let into = into.map_err(|source| CliError::io("find out the working directory", source))?;
    if let Some(into) = &into {
        is_apart(into, &site)?;
    }
    let asked =
        Asked { snapshot: args.snapshot.clone(), databases: args.database.clone(), roots: args.root.clone(), into };
    let plan = restore::plan(&mut keeper, &Journal::read(&site.state)?, &asked)?;
    for told in told(&plan) {
        context.ui.note(told);
    }
    if plan.into.is_some() {
        let outcome = restore::elsewhere(&mut keeper, &plan)?;
        return Ok(End::of(context.ui, &outcome));
    }
    ask::confirm("Set the site back to this backup?", context.global.yes)?;
    context.restoring(site, keeper, |session, reopen| {
        if gives_up(&plan) != gives_up(&restore::plan_again(session, &asked)?) {
            return Err(CliError::refused("the site changed since that was shown", "look again what would be lost"));
        }
        Ok(restore::restore(session, &plan, reopen)?)
    })
}

/// Copies lie neither where a web server would serve them nor among what the tool keeps.
fn is_apart(into: &Path, site: &Site) -> Result<(), CliError> {
    let into = resolved(into);
    let roots = site.roots.iter().map(|root| (format!("the root `{}`", root.name), root.path.clone()));
    let own = [("the state directory".to_owned(), site.state.clone())];
    let repository =
        site.backup.as_ref().map(|backup| ("the backup repository".to_owned(), (&backup.repository).into()));
    let mut places = roots.chain(own).chain(repository);
    match places.find(|(_, place)| into.starts_with(resolved(place))) {
        None => Ok(()),
        Some((what, place)) => Err(CliError::usage(
            format!("--into {} lies in {what} ({})", into.display(), place.display()),
            "name a directory outside the site: it will hold dumps of the databases",
        )),
    }
}

/// Where a path leads, links followed as far as it is there.
fn resolved(path: &Path) -> PathBuf {
    let mut there = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(there.pop()),
            part => there.push(part),
        }
        if let Ok(real) = there.canonicalize() {
            there = real;
        }
    }
    there
}

/// What is about to happen, a line each.
fn told(plan: &Plan) -> Vec<String> {
    let place = match &plan.into {
        Some(into) => format!(" into {}", into.display()),
        None => String::new(),
    };
    let mut lines = vec![format!("{}{place} from the backup {}", restore::words(plan), line(&plan.snapshot))];
    if plan.into.is_some() {
        return lines;
    }
    lines.push("what was written there since is lost, by whomever".to_owned());
    if plan.of_another_history {
        lines.push(
            "the backup is of another history than this journal's: nothing in it can be undone any more".to_owned(),
        );
    }
    for lost in plan.gives_up.iter().filter(|lost| lost.state != DeploymentState::FailedClean) {
        let back = if lost.state == DeploymentState::Undone { ", comes back as far as it was there" } else { "" };
        lines.push(format!(
            "{} {} ({}): cannot be undone or redone any more{back}",
            lost.package, lost.version, lost.id
        ));
    }
    lines.into_iter().map(|line| words::within(&line, 300)).collect()
}

fn gives_up(plan: &Plan) -> Vec<&str> {
    plan.gives_up.iter().map(|lost| lost.id.as_str()).collect()
}
