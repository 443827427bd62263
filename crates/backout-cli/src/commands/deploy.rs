//! `backout deploy`: the main job.

use std::path::{Path, PathBuf};

use backout_engine::deploy::{self, Options};
use backout_engine::fresh;
use backout_engine::session::Targets;
use backout_journal::Reader;
use backout_package::bundle;
use backout_package::package::Package;
use backout_package::site::Site;

use super::Context;
use super::later::not_yet;
use crate::end::End;
use crate::error::CliError;
use crate::incoming::Incoming;

/// Deploy a package: all of it, or nothing
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The package: a directory with a package.yaml, or a bundle
    package: PathBuf,
    /// Also run steps that are declared `undo: none`
    #[arg(long)]
    accept_irreversible: bool,
    /// Make no backup (this version makes none, with or without it)
    #[arg(long)]
    no_backup: bool,
    #[arg(long, hide = true)]
    rehearse: bool,
    #[arg(long, hide = true, value_name = "TIME")]
    confirm_within: Option<String>,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    if args.rehearse {
        return Err(not_yet("`deploy --rehearse`"));
    }
    if args.confirm_within.is_some() {
        return Err(not_yet("`deploy --confirm-within`"));
    }
    let site = context.site()?;
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
    let options = Options { accept_irreversible: args.accept_irreversible, source };
    let first = |site: &Site, targets: &mut Targets, reader: &Reader| {
        fresh::deploy(site, targets, reader, &package, args.accept_irreversible)
    };
    let end = context.in_session(site, &purpose, first, |session, _| {
        Incoming::clear_stale(&state)?;
        Ok(deploy::deploy(session, &package, options)?)
    });
    if let Some(incoming) = incoming
        && let Err(error) = incoming.remove()
    {
        context.ui.warning(error);
    }
    end
}

/// As `retry` will look for it, from wherever it is run. What does not exist is for the reader of packages to say.
fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).map_err(|source| CliError::read(path, source))
}
