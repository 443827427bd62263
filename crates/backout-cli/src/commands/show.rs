//! `backout show`: one deployment with every change and its undo.

use backout_engine::report;
use backout_journal::Journal;
use serde_json::json;

use super::Context;
use crate::end::End;
use crate::error::CliError;
use crate::{wiring, words};

/// One deployment with every change and its undo
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A deployment, by any unique beginning of its id, or a child package of it [default: the latest]
    #[arg(value_name = "ID[/CHILD]")]
    what: Option<String>,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let site = context.site()?;
    let reader = Journal::read(&site.state)?;
    let mut targets = wiring::targets(&site)?;
    report::show(&mut targets, &reader, args.what.as_deref(), &mut |shown| {
        context.ui.item("shown", &shown, words::shown);
    })?;
    Ok(End::answered(&json!({ "what": args.what })))
}
