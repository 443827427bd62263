//! `backout confirm`: keeps a deployment that is undone otherwise.

use backout_engine::confirm;
use backout_engine::error::EngineError;
use backout_journal::Reader;

use super::Context;
use crate::end::End;
use crate::error::CliError;

/// Keep a deployment that was started with `--confirm-within`
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(context: &Context<'_>, _args: &Args) -> Result<End, CliError> {
    let first =
        |_: &Reader| Err(EngineError::NotNow { what: "no deployment is to be confirmed".to_owned(), hint: None });
    // What else is to be settled does not keep it waiting.
    context.looking(context.site()?, "confirm", first, |session| Ok(confirm::confirm(session)?))
}
