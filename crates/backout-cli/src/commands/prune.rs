//! `backout prune`: gives up what is kept for undos and redos that are not offered any more. Shows first what goes.

use backout_engine::backup;
use backout_engine::error::EngineError;
use backout_engine::outcome::{NOTHING_CHANGED, Outcome, Status};
use backout_engine::prune::{self, Prunable, Why};
use backout_engine::session::Targets;
use backout_journal::Reader;
use backout_package::site::{Retention, Site};

use super::Context;
use crate::ask;
use crate::end::End;
use crate::error::CliError;
use crate::wiring;
use crate::words::{count, time};

/// Give up what is kept for undos that are not offered any more
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave the last N deployments undoable, whatever the site's `retention:` says
    #[arg(long, value_name = "N")]
    keep: Option<u64>,
    /// Leave deployments of the last N days undoable, whatever the site's `retention:` says
    #[arg(long, value_name = "N")]
    days: Option<u64>,
    /// Also give up undos and redos that `--keep` and `--days` leave out and that are still offered
    #[arg(long)]
    force: bool,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let site = context.site()?;
    let asked = Retention { keep: args.keep, days: args.days };
    let by_flags = asked != Retention::default();
    let retention = if by_flags { asked } else { site.retention };
    let first = |site: &Site, _: &mut Targets, _: &Reader| {
        Err(EngineError::NotNow { what: format!("nothing was ever deployed on {}", site.name), hint: None })
    };
    let keeper = wiring::keeper(&site);
    context.in_session(site, "prune", first, |session, _| {
        let backups = match keeper {
            Some(keeper) => {
                session.backed_up_by(Box::new(keeper));
                backup::surplus(session)?
            }
            None => Vec::new(),
        };
        for one in &backups {
            context.ui.item("backup", one, |one| format!("{}  is kept no longer", super::backup::line(one)));
        }
        let now_ms = session.journal().now_ms();
        let prunable = prune::prunable(session.journal().reader(), now_ms, retention)?;
        for one in &prunable {
            context.ui.item("prunable", one, line);
        }
        if prunable.is_empty() && backups.is_empty() {
            let mut outcome = Outcome::new(Status::Done, NOTHING_CHANGED);
            outcome.answer.push("nothing can be pruned".to_owned());
            return Ok(outcome);
        }
        let offered = prunable.iter().filter(|one| one.why == Why::Retention).count() as u64;
        if by_flags && offered > 0 && !args.force {
            return Err(CliError::refused(
                format!("{} can still be undone or redone", count(offered, "deployment")),
                "--force gives that up",
            ));
        }
        ask::confirm("Give this up for good?", context.global.yes)?;
        backup::forget(session, &backups)?;
        let mut outcome = prune::prune(session, &prunable)?;
        if !backups.is_empty() {
            outcome.answer.push(format!("forgot {}", count(backups.len() as u64, "backup")));
        }
        Ok(outcome)
    })
}

fn line(one: &Prunable) -> String {
    let Prunable { id, package, version, started_ms, why, retries, bytes, .. } = one;
    let retries = if retries.is_empty() {
        String::new()
    } else {
        format!("; no `backout retry {}` any more", retries.join("`, `backout retry "))
    };
    format!("{id}  {}  {package} {version}  {}: {}{retries}", time(*started_ms), why.words(), count(*bytes, "byte"))
}
