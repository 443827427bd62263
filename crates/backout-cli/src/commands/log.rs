//! `backout log`: the history, newest first.

use backout_engine::report;
use backout_journal::Journal;
use serde_json::json;

use super::Context;
use crate::end::End;
use crate::error::CliError;
use crate::words;

/// The history, newest first
#[derive(Debug, clap::Args)]
pub struct Args {
    /// At most so many deployments
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let site = context.site()?;
    let lines = report::log(&Journal::read(&site.state)?, args.limit)?;
    if lines.is_empty() {
        context.ui.note(format!("nothing was ever deployed on {}", site.name));
    }
    for line in &lines {
        context.ui.item("logged", line, words::line);
    }
    Ok(End::answered(&json!({ "site": site.name, "deployments": lines.len() })))
}
