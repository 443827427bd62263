//! `backout verify`: journal, images, holds and the site against each other.

use backout_engine::outcome::Status;
use backout_engine::verify;
use backout_journal::Journal;

use super::Context;
use crate::end::End;
use crate::error::CliError;
use crate::{wiring, words};

/// Check the journal, the before-images and the site against each other
#[derive(Debug, clap::Args)]
pub struct Args {}

/// A site that is in use drifts; people want to see what is grave.
const DRIFT_SHOWN: u64 = 20;

pub fn run(context: &Context<'_>, _args: &Args) -> Result<End, CliError> {
    let site = context.site()?;
    let reader = Journal::read(&site.state)?;
    let mut targets = wiring::targets(&site)?;
    let ui = context.ui;
    let mut drift = 0_u64;
    let checked = verify::verify(&site, &mut targets, &reader, &mut |finding| {
        drift += u64::from(!finding.grave);
        if finding.grave || drift <= DRIFT_SHOWN || ui.is_json() {
            ui.item("finding", &finding, words::drift);
        }
    })?;
    if drift > DRIFT_SHOWN {
        ui.answer(format!("… and {} more; `--json` lists them all", words::count(drift - DRIFT_SHOWN, "change")));
    }
    ui.answer(words::checked(&checked));
    if checked.grave > 0 {
        let closing = format!(
            "Needs a hand: an undo or the journal is endangered, see {} above.",
            words::count(checked.grave, "finding")
        );
        return Ok(End::answered_with(Status::NeedsHand, &checked, closing));
    }
    Ok(End::answered(&checked))
}
