//! `backout schema`: the JSON Schemas of both files, for editors.

use backout_package::schema;
use clap::ValueEnum;
use serde_json::json;

use super::Context;
use crate::end::End;
use crate::error::CliError;

/// Print the JSON Schema of package.yaml or site.yaml
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    file: Which,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    Package,
    Site,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let text = match args.file {
        Which::Package => schema::package_schema(),
        Which::Site => schema::site_schema(),
    };
    if !context.ui.is_json() {
        context.ui.raw(text.as_bytes());
        return Ok(End::answered(&json!({})));
    }
    let schema: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| CliError::io("read the schema again", error.into()))?;
    Ok(End::answered(&json!({ "schema": schema })))
}
