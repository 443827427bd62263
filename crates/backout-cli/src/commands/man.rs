//! `backout man`: the manual pages.

use std::path::{Path, PathBuf};

use clap_mangen::Man;
use serde_json::json;

use super::Context;
use crate::end::End;
use crate::error::CliError;

/// Print the manual page, or write one page a command into a directory
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to write backout.1 and one page a command; it is made where it is missing
    dir: Option<PathBuf>,
}

pub fn run(context: &Context<'_>, args: &Args, mut definition: clap::Command) -> Result<End, CliError> {
    definition.build();
    let Some(dir) = &args.dir else {
        let page = rendered(definition)?;
        if !context.ui.is_json() {
            context.ui.raw(&page);
        }
        return Ok(End::answered(&json!({ "page": String::from_utf8_lossy(&page) })));
    };
    std::fs::create_dir_all(dir).map_err(|source| CliError::write(dir, source))?;
    let mut files = vec![written(dir, "backout", definition.clone())?];
    for command in definition.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("backout-{}", command.get_name());
        files.push(written(dir, &name, command.clone().display_name(name.clone()))?);
    }
    for file in &files {
        context.ui.answer(file);
    }
    Ok(End::did(&json!({ "files": files }), ""))
}

fn written(dir: &Path, name: &str, command: clap::Command) -> Result<String, CliError> {
    let file = dir.join(format!("{name}.1"));
    std::fs::write(&file, rendered(command)?).map_err(|source| CliError::write(&file, source))?;
    Ok(file.to_string_lossy().into_owned())
}

fn rendered(command: clap::Command) -> Result<Vec<u8>, CliError> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page).map_err(|source| CliError::io("render the manual page", source))?;
    Ok(page)
}
