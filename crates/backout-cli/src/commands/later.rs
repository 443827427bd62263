//! Commands of the contract that this version does not have yet: refused by name, so that no script goes on believing.

use std::ffi::OsString;

use crate::end::End;
use crate::error::CliError;

/// Not available yet in this version.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    #[arg(allow_hyphen_values = true, hide = true)]
    _words: Vec<OsString>,
}

pub fn run(name: &str, _args: &Args) -> Result<End, CliError> {
    Err(CliError::usage(
        format!("`backout {name}` is not available yet in this version"),
        "`backout --help` lists what this version can do",
    ))
}
