//! `backout status`: one screen about a site. Opens the journal only, so that it answers at once.

use backout_engine::report;
use backout_journal::{Clock as _, Journal, SystemClock};

use super::Context;
use crate::end::End;
use crate::error::CliError;
use crate::words;

/// What is deployed, what was interrupted, what needs a hand, who holds the lock
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(context: &Context<'_>, _args: &Args) -> Result<End, CliError> {
    let site = context.site()?;
    let status = report::status(&site, &Journal::read(&site.state)?, SystemClock.now_ms())?;
    for line in words::status(&status) {
        context.ui.answer(line);
    }
    if status.interrupted {
        context.ui.hint("backout resume");
    }
    if status.recording {
        context.ui.hint("backout capture stop --package NAME");
    }
    for needing in &status.needs_hand {
        context.ui.hint(&needing.command);
    }
    Ok(End::answered(&status))
}
