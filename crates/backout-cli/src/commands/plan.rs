//! `backout plan`: the dry run.

use std::path::PathBuf;

use backout_engine::outcome::{NOTHING_CHANGED, Status};
use backout_engine::plan::{self, Item};
use backout_journal::Journal;
use backout_package::bundle;
use backout_package::package::Package;

use super::Context;
use crate::end::End;
use crate::error::CliError;
use crate::words;

/// Dry run: every change, how it will be undone, what is refused; changes nothing
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The package: a directory with a package.yaml, or a bundle
    package: PathBuf,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let ui = context.ui;
    let site = context.site()?;
    // A dry run writes nothing to the site's state, so a bundle is opened elsewhere.
    let scratch = tempfile::tempdir().map_err(|source| CliError::write(&std::env::temp_dir(), source))?;
    let package = if args.package.is_file() {
        bundle::open(&args.package, &scratch.path().join("package"))?
    } else {
        Package::load(&args.package)?
    };
    let mut targets = super::targets(&site, &Journal::read(&site.state)?)?;
    let mut group = None;
    let totals = plan::plan(&site, &mut targets, &package, &mut |item: Item| {
        let here = (item.frame.clone(), item.step);
        if group.as_ref() != Some(&here) {
            ui.answer(words::group(&item));
            group = Some(here);
        }
        ui.item("change", &item, words::planned);
    })?;
    scratch.close().map_err(|source| CliError::write(&std::env::temp_dir(), source))?;
    ui.answer(words::totals(&totals));
    for warning in &totals.warnings {
        ui.warning(warning);
    }
    for irreversible in &totals.irreversible {
        ui.warning(format!("cannot be taken back: {irreversible}"));
    }
    if !totals.irreversible.is_empty() {
        ui.hint("`backout deploy --accept-irreversible` runs it all the same");
    }
    if totals.refused == 0 {
        return Ok(End::answered(&totals));
    }
    let mut causes = vec![format!("{} refused", words::count(totals.refused, "change"))];
    causes.extend(totals.refusals.iter().map(ToString::to_string));
    ui.error(&causes);
    let mut ways: Vec<&String> = totals.refusals.iter().flat_map(|refusal| &refusal.ways_out).collect();
    ways.sort();
    ways.dedup();
    ways.into_iter().for_each(|way| ui.hint(way));
    Ok(End::answered_with(Status::Refused, &totals, NOTHING_CHANGED))
}
