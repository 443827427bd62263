//! `backout resume`: settle what a crash interrupted.

use backout_engine::outcome::{NOTHING_CHANGED, Outcome, Status};

use super::{Context, watch};
use crate::end::End;
use crate::error::CliError;

/// Finish or undo what a crash interrupted
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(context: &Context<'_>, _args: &Args) -> Result<End, CliError> {
    let site = context.site()?;
    let settled = context.resume(site.clone(), "resume");
    // Also where it failed: a database that is not up yet is waited for by whoever watches.
    let watched = watch::again(context, &site);
    let outcome = settled?.unwrap_or_else(|| {
        let mut outcome = Outcome::new(Status::Done, NOTHING_CHANGED);
        outcome.answer.push("nothing had been interrupted".to_owned());
        outcome
    });
    if let Err(error) = watched {
        context.ui.warning(&error);
    }
    Ok(End::of(context.ui, &outcome))
}
