//! `backout restore`: back to a backup, all of it or a part, or into another place. Shows first what that does.

use std::path::PathBuf;

use backout_engine::backup::no_backup;
use backout_engine::restore::{self, Asked, Plan};
use backout_journal::Journal;
use backout_model::state::DeploymentState;

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
    let asked = Asked {
        snapshot: args.snapshot.clone(),
        databases: args.database.clone(),
        roots: args.root.clone(),
        into: into.map_err(|source| CliError::io("find out the working directory", source))?,
    };
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
