//! `backout completions`: the script by which a shell completes commands and flags.

use clap_complete::Shell;
use serde_json::json;

use super::Context;
use crate::end::End;
use crate::error::CliError;

/// Print shell completions
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(context: &Context<'_>, args: &Args, mut definition: clap::Command) -> Result<End, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition, "backout", &mut script);
    if !context.ui.is_json() {
        context.ui.raw(&script);
    }
    Ok(End::answered(&json!({ "shell": args.shell.to_string(), "script": String::from_utf8_lossy(&script) })))
}
