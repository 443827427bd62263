//! `backout deploy`: the main job.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backout_engine::deploy::{self, Options};
use backout_engine::fresh;
use backout_engine::session::Targets;
use backout_journal::Reader;
use backout_package::package::Package;
use backout_package::site::Site;
use backout_package::{bundle, duration};

use super::watch::Watcher;
use super::{Context, record, rehearse};
use crate::end::End;
use crate::error::CliError;
use crate::incoming::Incoming;
use crate::wiring;

/// Deploy a package: all of it, or nothing
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The package: a directory with a package.yaml, or a bundle
    package: PathBuf,
    /// Also run steps that are declared `undo: none`
    #[arg(long)]
    accept_irreversible: bool,
    /// Take no backup before it starts
    #[arg(long)]
    no_backup: bool,
    /// Rehearse it first, and begin only where the rehearsal came through
    #[arg(long)]
    rehearse: bool,
    /// Undo it unless `backout confirm` comes within this time of its end: 90s, 10m
    #[arg(long, value_name = "TIME", value_parser = time)]
    confirm_within: Option<Duration>,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let site = context.site()?;
    site.can_alert()?;
    if args.rehearse
        && let Some(outcome) = rehearse::first(context, &site, &args.package, args.accept_irreversible)?
    {
        return Ok(End::of(context.ui, &outcome));
    }
    let source = absolute(&args.package)?;
    // A bundle lies opened in the state directory until the deployment is over, however it ends.
    let (package, incoming) = if source.is_file() {
        let incoming = Incoming::make(&site.state)?;
        (bundle::open_within(&source, incoming.path())?, Some(incoming))
    } else {
        (Package::load(&source)?, None)
    };
    let state = site.state.clone();
    let purpose = format!("deploy {} {}", package.name, package.version);
    let options =
        Options { accept_irreversible: args.accept_irreversible, source, confirm_within: args.confirm_within };
    // There before anything changes, for this process may not be there afterwards.
    let watched = site.clone();
    let watcher = match args.confirm_within {
        Some(_) => Some(Watcher::start(&site)?),
        None => None,
    };
    let first = |site: &Site, targets: &mut Targets, reader: &Reader| {
        fresh::deploy(site, targets, reader, &package, args.accept_irreversible)
    };
    let keeper = if args.no_backup { None } else { wiring::keeper(&site) };
    let end = context.in_session(site, &purpose, first, |session, _| {
        Incoming::clear_stale(&state)?;
        if let Some(keeper) = keeper {
            session.backed_up_by(Box::new(keeper));
        }
        let mut outcome = deploy::deploy(session, &package, options)?;
        record::at_the_end(session, &mut outcome);
        Ok(outcome)
    });
    if let Some(watcher) = watcher
        && let Err(error) = watcher.let_go(&watched)
    {
        let why = error.causes().join(": ");
        context.ui.warning(format!("nobody watches over it any more: {why}; `backout watch` does, as long as it runs"));
    }
    if let Some(incoming) = incoming
        && let Err(error) = incoming.remove()
    {
        context.ui.warning(error);
    }
    end
}

fn time(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        Duration::ZERO => Err("it must be longer than nothing".to_owned()),
        time => Ok(time),
    }
}

/// As `retry` will look for it, from wherever it is run. What does not exist is for the reader of packages to say.
fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).map_err(|source| CliError::read(path, source))
}
