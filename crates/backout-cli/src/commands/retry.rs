//! `backout retry`: run a child again that failed and was passed over.

use backout_engine::session::Targets;
use backout_engine::{fresh, retry};
use backout_journal::Reader;
use backout_package::site::Site;

use super::Context;
use crate::end::End;
use crate::error::CliError;

/// Run again a child package that failed and was passed over
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The deployment, by any unique beginning of its id, and the child package
    #[arg(value_name = "ID/CHILD")]
    what: String,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let purpose = format!("retry {}", args.what);
    let first = |_: &Site, _: &mut Targets, reader: &Reader| fresh::retry(reader, &args.what);
    context.in_session(context.site()?, &purpose, first, |session, _| Ok(retry::retry(session, &args.what)?))
}
