//! `backout pack`: a package as one file.

use std::path::PathBuf;

use backout_package::bundle;
use serde_json::json;

use super::{Context, working_directory};
use crate::end::End;
use crate::error::CliError;

/// Write a package as one file, a bundle
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The package's directory
    dir: PathBuf,
    /// The directory to write NAME-VERSION.backout.tar.zst into [default: here]
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let into = match &args.output {
        Some(into) => into.clone(),
        None => working_directory()?,
    };
    let bundle = bundle::pack(&args.dir, &into)?;
    context.ui.answer(bundle.display());
    Ok(End::did(&json!({ "bundle": bundle.to_string_lossy() }), ""))
}
