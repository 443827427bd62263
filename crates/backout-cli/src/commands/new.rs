//! `backout new`: a package to start from.

use std::fs;
use std::path::PathBuf;

use backout_package::template;
use serde_json::json;

use super::{Context, write_new};
use crate::end::End;
use crate::error::CliError;

/// Write a package to start from
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory to make; its last name is the package's
    name: PathBuf,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let dir = &args.name;
    let name = dir.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let files = template::new_package(&name).map_err(|what| CliError::usage(what, "choose another name"))?;
    if dir.symlink_metadata().is_ok() {
        return Err(CliError::usage(format!("{} is there already", dir.display()), "choose another name"));
    }
    let mut written = Vec::new();
    for file in &files {
        let path = dir.join(file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|source| CliError::write(parent, source))?;
        }
        write_new(&path, file.content.as_bytes())?;
        context.ui.answer(path.display());
        written.push(path.to_string_lossy().into_owned());
    }
    context.ui.hint(format!("edit it, then `backout plan {}`", dir.display()));
    Ok(End::did(&json!({ "package": name, "files": written }), ""))
}
