//! `backout resume`: settle what a crash interrupted.

use backout_engine::outcome::{NOTHING_CHANGED, Outcome, Status};

use super::Context;
use crate::end::End;
use crate::error::CliError;

/// Finish or undo what a crash interrupted
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(context: &Context<'_>, _args: &Args) -> Result<End, CliError> {
    context.resume(context.site()?, "resume").map(|outcome| match outcome {
        Some(outcome) => End::of(context.ui, &outcome),
        None => {
            let mut outcome = Outcome::new(Status::Done, NOTHING_CHANGED);
            outcome.answer.push("nothing had been interrupted".to_owned());
            End::of(context.ui, &outcome)
        }
    })
}
