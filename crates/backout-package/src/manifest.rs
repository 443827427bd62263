//! The keys of `package.yaml`, as written. The types make the JSON Schema; what they allow beyond it, `load` checks.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::capture::CaptureFile;
use crate::field::{Argv, Located, Named, Span, Text, Undo};

/// What is deployed: a directory with this file in it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(title = "backout package.yaml")]
pub struct PackageFile {
    /// The package's name: letters, digits, `.`, `_`, `-`.
    pub package: Located<Text>,
    /// Its version, kept as written: 1.10 is not 1.1.
    pub version: Located<Text>,
    pub description: Option<Text>,
    /// Packages that must be deployed (and not undone) on the site, or siblings that come earlier.
    #[serde(default)]
    pub requires: Vec<Located<Text>>,
    /// True (the default): all steps are done, or all are undone. False: each step stands alone.
    #[serde(default = "yes")]
    #[schemars(default = "yes")]
    pub atomic: bool,
    /// Conditions that must hold, or nothing starts.
    #[serde(default)]
    pub before: Vec<Located<CheckFile>>,
    /// What is done, in strict order.
    pub steps: Located<Vec<Located<StepFile>>>,
    /// Commands run last, after deploy and after undo.
    #[serde(default)]
    pub finally: Vec<Located<CommandFile>>,
    /// Conditions that must hold at the end, or the package is undone.
    #[serde(default)]
    pub after: Vec<Located<CheckFile>>,
}

fn yes() -> bool {
    true
}

/// One step: exactly one of `sql`, `files`, `delete`, `run`, `package`, with its options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    { "required": ["sql"] }, { "required": ["files"] }, { "required": ["delete"] }, { "required": ["run"] },
    { "required": ["package"] }
]))]
pub struct StepFile {
    /// A file of SQL statements, relative to the package.
    pub sql: Option<Located<Text>>,
    /// A directory laid over the root file by file, relative to the package.
    pub files: Option<Located<Text>>,
    /// Paths removed from the root; a trailing `/` names a directory with all it holds.
    pub delete: Option<Located<Vec<Located<Text>>>>,
    /// A command.
    pub run: Option<Located<Argv>>,
    /// A child package's directory, relative to the package.
    pub package: Option<Located<Text>>,

    /// For `sql` and `definition`: the database; may be left out where the site has one.
    pub database: Option<Located<Text>>,
    /// For `files` and `delete`: the root; may be left out where the site has one.
    pub root: Option<Located<Text>>,
    /// For `files`: also remove from the root what the directory lacks, but for the site's `keep` paths.
    pub exact: Option<Located<bool>>,
    /// For `delete`: `ok` makes a missing path no error.
    pub missing: Option<Located<Missing>>,
    /// For `sql` and `run`: how the step is taken back.
    pub undo: Option<Located<Undo>>,
    /// Why there is no undo; goes with `undo: none`.
    pub because: Option<Located<Text>>,
    /// For `run`: the command is stopped after this long, and has failed.
    pub timeout: Option<Located<Span>>,
    /// For `package`: how often a failed child is tried again.
    pub retries: Option<Located<RetriesFile>>,
    /// For `package`: what the child's failure means for this package.
    pub on_failure: Option<Located<OnFailureFile>>,
    /// For `run`: what the command changes in these databases and roots is captured, so that it can be undone.
    pub capture: Option<Located<CaptureFile>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    Ok,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailureFile {
    /// This package fails, too (the default).
    Fail,
    /// The child is passed over and this package goes on.
    Continue,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RetriesFile {
    /// Tries in all; 1 is no retry.
    #[schemars(range(min = 1))]
    pub attempts: Located<u32>,
    /// Before the second attempt; 0s if left out.
    pub wait: Option<Located<Span>>,
    /// What the wait is multiplied with after each further failure, up to a day; 1 if left out.
    #[schemars(range(min = 1, max = 100))]
    pub backoff: Option<Located<f64>>,
}

/// A command of `finally`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CommandFile {
    pub run: Located<Argv>,
    pub timeout: Option<Located<Span>>,
}

/// One check: exactly one of `http`, `sql`, `definition`, `file`, `run`, with its options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    { "required": ["http"] }, { "required": ["sql", "equals"] }, { "required": ["definition"] }, { "required": ["file"] },
    { "required": ["run"] }
]))]
pub struct CheckFile {
    /// What messages call it; made up from what it tests if left out.
    pub name: Option<Located<Text>>,
    /// A URL that answers.
    pub http: Option<Located<Text>>,
    /// A query that gives one value.
    pub sql: Option<Located<Text>>,
    /// An object of a database: its kind and name, as in `table product`.
    pub definition: Option<Located<Text>>,
    /// A path, relative to the root.
    pub file: Option<Located<Text>>,
    /// A command that exits with 0.
    pub run: Option<Located<Argv>>,

    /// For `sql`: the database; may be left out where the site has one.
    pub database: Option<Located<Text>>,
    /// For `sql`: what the value must be, compared as text.
    pub equals: Option<Located<Text>>,
    /// For `file`: the root; may be left out where the site has one.
    pub root: Option<Located<Text>>,
    /// For `file` and `definition`: whether there must be such a path or object; true if nothing else is given.
    pub exists: Option<Located<bool>>,
    /// For `file`: the SHA-256 of its content, in hex. For `definition`: that of what it is, as `backout` wrote it.
    pub sha256: Option<Located<Text>>,
    /// For `file` and `http`: a text that the content or the body holds.
    pub contains: Option<Located<Text>>,
    /// For `http`: the status that must come; any of 200 to 299 if left out.
    pub status: Option<Located<Text>>,
    /// For `http`: a regular expression that matches somewhere in the body.
    pub matches: Option<Located<Text>>,
    /// For `http`: headers that must come, each with a text that its value holds.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Text>")]
    pub header: Named<Located<Text>>,
    /// For `http`: values in a JSON body, by JSON pointer (`/items/0/name`), compared as text.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Text>")]
    pub json: Named<Located<Text>>,
    /// For `http`: how many redirects are followed; 10 if left out, none where `status` is one of a redirect.
    pub redirects: Option<Located<u32>>,
    /// For `http`: `any` takes a server's certificate without looking at it.
    pub tls: Option<Located<TlsFile>>,
    /// For `run` and `http`: the command is stopped, the answer not waited for after this long. `http`: 10s if left out.
    pub timeout: Option<Located<Span>>,
    /// Tried again until it holds or this long has passed.
    pub within: Option<Located<Span>>,
}

/// What is asked of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TlsFile {
    /// It must be valid for the name, and of an authority that the system trusts.
    Verified,
    Any,
}
