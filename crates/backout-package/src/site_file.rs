//! The keys of `site.yaml`, as written. The types make the JSON Schema; what they allow beyond it, `site` checks.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::field::{Argv, Later, Located, Named, Text};

/// Where packages are deployed: databases, file roots, and where the tool keeps its journal.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(title = "backout site.yaml")]
pub struct SiteFile {
    /// The site's name: lowercase letters, digits, `-`, `_`.
    pub site: Located<Text>,
    /// The databases, by the names that packages use.
    #[serde(default)]
    pub databases: Named<DatabaseFile>,
    /// The directories that hold the site's files, by the names that packages use.
    #[serde(default)]
    pub roots: Named<RootFile>,
    /// Where journal and before-images lie, outside every root; `.backout` beside this file if left out.
    pub state: Option<Located<Text>>,
    /// Commands that close the site to its users while it changes, and open it again.
    pub maintenance: Option<MaintenanceFile>,
    #[serde(default)]
    #[schemars(skip)]
    #[expect(dead_code, reason = "known only to be refused")]
    pub backup: Later,
    #[serde(default)]
    #[schemars(skip)]
    #[expect(dead_code, reason = "known only to be refused")]
    pub retention: Later,
    #[serde(default)]
    #[schemars(skip)]
    #[expect(dead_code, reason = "known only to be refused")]
    pub alerts: Later,
    #[serde(default)]
    #[schemars(skip)]
    #[expect(dead_code, reason = "known only to be refused")]
    pub trust: Later,
    #[serde(default)]
    #[schemars(skip)]
    #[expect(dead_code, reason = "known only to be refused")]
    pub scratch: Later,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DatabaseFile {
    /// `sqlite:PATH`, relative to this file, `postgresql://USER@HOST/DATABASE` or `mariadb://USER@HOST/DATABASE`. `${NAME}` is from the environment.
    pub url: Located<Text>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RootFile {
    /// The directory, relative to this file or absolute.
    pub path: Located<Text>,
    /// Paths in the root that no deployment touches, relative to it.
    #[serde(default)]
    pub keep: Vec<Located<Text>>,
}

/// Both commands run in the directory of this file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MaintenanceFile {
    pub enter: Argv,
    pub leave: Argv,
}
