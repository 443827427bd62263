//! Conditions tested before or after a package. Holds what to test; never tests anything.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
    Http(HttpCheck),
    /// The one value a query gives, as the engine's text, equals `equals`.
    Sql {
        query: String,
        database: Option<String>,
        equals: String,
    },
    /// An object of a database is there as it was, or is not there.
    Definition {
        /// Its kind and name: `table product`.
        object: String,
        database: Option<String>,
        exists: Option<bool>,
        /// 64 lowercase hex digits.
        sha256: Option<String>,
    },
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
    Run {
        argv: Vec<String>,
        timeout: Option<Duration>,
    },
}

/// What a URL must answer. All that is given must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpCheck {
    /// `http:` or `https:`, without a password.
    pub url: String,
    /// 100 to 599; none: any of 200 to 299.
    pub status: Option<u16>,
    pub contains: Option<String>,
    /// A regular expression.
    pub matches: Option<String>,
    /// Names, and what their values hold.
    pub header: Vec<(String, String)>,
    /// JSON pointers (RFC 6901), and the values there as text.
    pub json: Vec<(String, String)>,
    /// How many are followed at most.
    pub redirects: u32,
    /// Whether the server's certificate must be valid.
    pub verified: bool,
    pub timeout: Duration,
}
