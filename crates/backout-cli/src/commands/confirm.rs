//! `backout confirm`: keeps a deployment that is undone otherwise.

use backout_engine::confirm;
use backout_engine::error::EngineError;
use backout_engine::session::Targets;
use backout_journal::Reader;
use backout_package::site::Site;

use super::Context;
use crate::end::End;
use crate::error::CliError;

/// Keep a deployment that was started with `--confirm-within`
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(context: &Context<'_>, _args: &Args) -> Result<End, CliError> {
    let first = |_: &Site, _: &mut Targets, _: &Reader| {
        Err(EngineError::NotNow { what: "no deployment is to be confirmed".to_owned(), hint: None })
    };
    context.in_session(context.site()?, "confirm", first, |session, _| Ok(confirm::confirm(session)?))
}
