//! `backout capture`: record what happens on a staging site, and make a package of it.

use std::path::PathBuf;

use backout_engine::recording::{self, Stop};
use backout_engine::session::Targets;
use backout_journal::{Journal, Reader};
use backout_package::site::Site;

use super::Context;
use crate::end::End;
use crate::error::CliError;

/// Record what happens on a staging site into a package
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Keep the state of all databases and roots: what happens from now on is recorded
    Start,
    /// End the recording: what happened is one entry of the history, and a package where one is named
    Stop(StopArgs),
}

#[derive(Debug, clap::Args)]
struct StopArgs {
    /// Make this package of it: a directory that is not there yet
    #[arg(long, value_name = "DIR")]
    package: Option<PathBuf>,
    /// Leave this out of the package: TABLE or DATABASE.TABLE, TABLE=TEXT for its rows with a value that begins with a text,
    /// ROOT:PATH. May be given several times
    #[arg(long, value_name = "WHAT", requires = "package")]
    leave_out: Vec<String>,
    /// Give the recording up: nobody looks at what happened, and it stays
    #[arg(long, conflicts_with = "package")]
    abandon: bool,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let site = context.site()?;
    match &args.what {
        What::Start => {
            let first = |_: &Site, targets: &mut Targets, reader: &Reader| recording::may_start(targets, reader);
            context.in_session(site, "capture", first, |session, _| Ok(recording::start(session)?))
        }
        What::Stop(args) => {
            if let Some(into) = &args.package {
                recording::may_hold(&site, into)?;
            }
            recording::is_under_way(&Journal::read(&site.state)?)?;
            let (package, leave_out) = (args.package.clone(), args.leave_out.clone());
            let stop = Stop { package, leave_out, abandon: args.abandon };
            context.recording(site, |session| Ok(recording::stop(session, &stop)?))
        }
    }
}
