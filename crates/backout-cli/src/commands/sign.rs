//! `backout sign`: signs a package with an SSH key.

use std::path::PathBuf;

use backout_package::package::Package;
use backout_package::signature;
use serde_json::json;

use super::Context;
use crate::end::End;
use crate::error::CliError;

/// Sign a package with an SSH key
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The package's directory; a bundle is packed after it
    package: PathBuf,
    /// The private key, in OpenSSH's format and without a passphrase
    #[arg(long, value_name = "FILE", required_unless_present = "text")]
    key: Option<PathBuf>,
    /// Print what is to be signed, for `ssh-keygen -Y sign -n backout-package`, and sign nothing
    #[arg(long, conflicts_with = "key")]
    text: bool,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let package = Package::load(&args.package)?;
    let Some(key) = args.key.as_ref().filter(|_| !args.text) else {
        let text = signature::signed_text(&package)?;
        context.ui.answer(text.trim_end());
        return Ok(End::answered(&json!({ "text": text })));
    };
    let file = signature::sign(&package, key)?;
    context.ui.answer(file.display());
    Ok(End::did(&json!({ "signature": file.to_string_lossy() }), ""))
}
