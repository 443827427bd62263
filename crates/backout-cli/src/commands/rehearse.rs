//! `backout rehearse`: a package is deployed to a copy of the site and undone there; what of it is proven.

use std::path::{Path, PathBuf};

use backout_engine::deploy::Options;
use backout_engine::error::EngineError;
use backout_engine::outcome::{Outcome, Status};
use backout_engine::rehearse::{self, Rehearsal, Rehearsed, Watching};
use backout_engine::scratch::OnScratch;
use backout_engine::session::Session;
use backout_journal::Journal;
use backout_package::bundle;
use backout_package::package::Package;
use backout_package::site::Site;

use super::Context;
use crate::end::End;
use crate::error::CliError;
use crate::lent;
use crate::progress::Progress;
use crate::rehearsal::Copy;
use crate::signals::Stop;
use crate::{wiring, words};

/// Deploy a package to a copy of the site and undo it there: what is proven, how long it takes
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The package: a directory with a package.yaml, or a bundle
    package: PathBuf,
    /// Also run steps that are declared `undo: none`
    #[arg(long)]
    accept_irreversible: bool,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let site = context.site()?;
    let mut head = None;
    let rehearsal = play(context, &site, &args.package, args.accept_irreversible, &mut |rehearsed| {
        let here = (rehearsed.frame.clone(), rehearsed.step);
        if rehearsed.step.is_some() && head.as_ref() != Some(&here) {
            context.ui.answer(words::rehearsed_step(&rehearsed));
        }
        head = Some(here);
        context.ui.item("rehearsed", &rehearsed, words::rehearsed);
    })?;
    Ok(End::of_with(context.ui, &rehearsal.outcome, &rehearsal.figures))
}

/// The same before a deployment; an outcome where that must not begin.
pub fn first(context: &Context<'_>, site: &Site, package: &Path, accept: bool) -> Result<Option<Outcome>, CliError> {
    let mut not_proven = Vec::new();
    let rehearsal = play(context, site, package, accept, &mut |rehearsed| {
        context.ui.object_now("rehearsed", &rehearsed);
        if !rehearsed.proven {
            not_proven.push(words::short(&rehearsed.change.change));
        }
    })?;
    let Rehearsal { mut outcome, figures } = rehearsal;
    context.ui.object_now("rehearsal", &figures);
    if matches!(outcome.status, Status::Done | Status::Partly) {
        outcome.answer.iter().for_each(|line| context.ui.note(format!("rehearsed: {line}")));
        not_proven.iter().for_each(|change| context.ui.note(format!("not proven: {change}")));
        return Ok(None);
    }
    outcome.status = Status::Refused;
    outcome.closing = backout_engine::outcome::NOTHING_CHANGED.to_owned();
    Ok(Some(outcome))
}

fn play(
    context: &Context<'_>,
    site: &Site,
    package: &Path,
    accept_irreversible: bool,
    each: &mut dyn FnMut(Rehearsed),
) -> Result<Rehearsal, CliError> {
    lent::clear(site, context.ui);
    let stop = Stop::listen().map_err(|source| CliError::io("listen for signals", source))?;
    let mut progress = Progress::new(context.ui, stop);
    let reader = Journal::read(&site.state)?;
    // What is wrong with a package is known before anything is copied.
    let checked = if package.is_file() { None } else { Some(Package::load(package)?) };
    let deployed = checked.as_ref().map(|package| rehearse::beforehand(&reader, package)).transpose()?;
    let copy = Copy::make(site, &reader, &mut progress)?;
    let played = match checked {
        Some(checked) => Ok(checked),
        None => bundle::open(package, &copy.package()).map_err(CliError::from),
    }
    .and_then(|package| {
        let deployed = deployed.map_or_else(|| rehearse::beforehand(&reader, &package), Ok)?;
        let on_scratch = OnScratch { allowed: site.scratch.clone(), deployed };
        play_on(&copy, &package, accept_irreversible, on_scratch, &mut progress, each)
    });
    progress.pause();
    let removed = copy.remove(site);
    let rehearsal = played?;
    removed?;
    Ok(rehearsal)
}

fn play_on(
    copy: &Copy,
    package: &Package,
    accept_irreversible: bool,
    on_scratch: OnScratch,
    progress: &mut Progress,
    each: &mut dyn FnMut(Rehearsed),
) -> Result<Rehearsal, CliError> {
    let options = Options { accept_irreversible, source: package.dir.clone(), confirm_within: None };
    let (mut watching, clocked) = Watching::new(progress);
    let targets = wiring::targets(&copy.site)?;
    let site = copy.site.clone();
    let mut session = Session::open_on_scratch(site, targets, wiring::surroundings(), on_scratch, &mut watching)?;
    let mut differences =
        || copy.differences().map_err(|error| EngineError::NotNow { what: error.causes().join(": "), hint: None });
    let mut rehearsal = rehearse::rehearse(&mut session, package, options, &clocked, &mut differences, each)?;
    rehearsal.outcome.notes.extend(copy.notes.iter().map(|note| format!("the copy: {note}")));
    Ok(rehearsal)
}
