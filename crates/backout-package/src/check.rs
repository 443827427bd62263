//! Conditions tested before or after a package. Holds what to test; never tests anything.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One condition of `before:` or `after:`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// As given, else derived from what it tests.
    pub name: String,
    /// The line of the package's file that it stands on, from 1.
    pub line: u32,
    pub kind: CheckKind,
    /// Tried again until it holds or this long has passed; none: once.
    pub within: Option<Duration>,
}

/// What a check looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckKind {
    /// The one value a query gives, as the engine's text, equals `equals`.
    Sql { query: String, database: Option<String>, equals: String },
    /// All that is given holds for the path, which is relative to the root. At least one is given.
    File {
        path: String,
        root: Option<String>,
        exists: Option<bool>,
        /// 64 lowercase hex digits.
        sha256: Option<String>,
        contains: Option<String>,
    },
    /// The command exits with 0. Its arguments may hold placeholders, see [`crate::fill`].
    Run { argv: Vec<String>, timeout: Option<Duration> },
}
