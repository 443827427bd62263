//! `backout redo`: bring back what was last undone.

use backout_engine::{fresh, redo};

use super::Context;
use crate::end::End;
use crate::error::CliError;

/// Bring back what was last undone, to the same result
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(context: &Context<'_>, _args: &Args) -> Result<End, CliError> {
    context.in_session(
        context.site()?,
        "redo",
        |_, _, reader| fresh::redo(reader),
        |session, _| Ok(redo::redo(session)?),
    )
}
