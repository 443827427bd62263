//! The JSON Schemas of both files, made from the types that read them.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;

use crate::manifest::PackageFile;
use crate::site_file::SiteFile;

/// The schema of `package.yaml`, as published in `docs/schema/package.schema.json`.
pub fn package_schema() -> String {
    schema::<PackageFile>()
}

/// The schema of `site.yaml`, as published in `docs/schema/site.schema.json`.
pub fn site_schema() -> String {
    schema::<SiteFile>()
}

fn schema<T: JsonSchema>() -> String {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<T>();
    format!("{:#}\n", schema.as_value())
}
