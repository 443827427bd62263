//! `backout verify`: journal, images, holds and the site against each other.

use backout_engine::backup::Kind;
use backout_engine::outcome::Status;
use backout_engine::{backup, verify};
use backout_journal::{Journal, Reader};
use backout_package::site::Site;

use super::Context;
use crate::end::End;
use crate::error::CliError;
use crate::{wiring, words};

/// Check the journal, the before-images and the site against each other
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Check the latest backup instead: restore it into a scratch place and compare
    #[arg(long)]
    backup: bool,
}

/// A site that is in use drifts; people want to see what is grave.
const DRIFT_SHOWN: u64 = 20;

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let site = context.site()?;
    let reader = Journal::read(&site.state)?;
    if args.backup {
        return of_backup(context, &site, &reader);
    }
    let mut targets = super::targets(&site, &reader)?;
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

fn of_backup(context: &Context<'_>, site: &Site, reader: &Reader) -> Result<End, CliError> {
    let mut keeper = wiring::keeper(site).ok_or_else(backup::no_backup)?;
    let ui = context.ui;
    let proven = backup::verify(&mut keeper, reader, &mut |kind, finding| match kind {
        Kind::Found => ui.item("finding", finding, words::finding),
        Kind::Unchecked => ui.item("unchecked", finding, words::unchecked),
        Kind::Lacking => ui.item("lacking", finding, words::lacking),
    })?;
    let shown = super::backup::line(&proven.snapshot);
    if proven.findings > 0 {
        ui.answer(format!("{shown}: {}", words::count(proven.findings, "finding")));
        let closing =
            "Needs a hand: the latest backup does not bring back what it should; `backout backup` takes another one.";
        return Ok(End::answered_with(Status::NeedsHand, &proven, closing));
    }
    if proven.unchecked > 0 {
        ui.answer(format!("{shown}: nothing wrong was found, but not all of it could be checked"));
        let closing = "Nothing was changed; what could not be checked is listed above, with the reason.";
        return Ok(End::answered_with(Status::Partly, &proven, closing));
    }
    ui.answer(format!("{shown}: restored into a scratch place, it is as it was written"));
    Ok(End::answered(&proven))
}
