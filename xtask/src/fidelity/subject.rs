//! The database that is judged, as the judge handles it: one trait, an implementation an engine.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::dump::Dump;

/// What came of a script: done, or the client's complaint.
pub type Ran = std::result::Result<(), String>;

/// What a filling came to.
#[derive(Debug, Default)]
pub struct Filled {
    /// Statements, one a row, that can be run again on a copy of the database as it was.
    pub statements: Vec<String>,
    /// Tables that have no row at all, with the last error.
    pub empty: Vec<(String, String)>,
}

/// What the plain client makes of a script.
pub enum Plain {
    Done {
        dump: Dump,
        /// The copy that was changed.
        copy: String,
    },
    Failed(String),
}

/// A database, and the plain client's way with it. Copies of it go by names; the judge picks them.
pub trait Subject {
    /// Its URL, for `site.yaml`.
    fn url(&self) -> String;

    /// What the plain client leaves of a script that it fails at, on a copy; none where that is nothing by its nature.
    fn left_by_plain(&mut self, _copy: &str, _script: &Path) -> Result<Option<Dump>> {
        Ok(None)
    }

    /// Whether a step may be refused when it runs, because nothing but its run shows that it cannot be taken back.
    fn refuses_late(&self) -> bool;

    /// Lets the plain client run a script on the database itself.
    fn load(&mut self, script: &Path) -> Result<Ran>;

    fn dump(&mut self, file: PathBuf) -> Result<Dump>;

    /// What the plain client makes of a script on a copy.
    fn plain(&mut self, script: &Path) -> Result<Plain>;

    /// The same by another client, where there is one whose result counts as well.
    fn plain_otherwise(&mut self, script: &Path) -> Result<Option<Plain>>;

    /// Keeps the database as it is now under a name.
    fn keep(&mut self, copy: &str) -> Result<()>;

    /// Makes the database what a copy is.
    fn take(&mut self, copy: &str) -> Result<()>;

    /// Brings every table to so many rows.
    fn fill(&mut self, rows: u64) -> Result<Filled>;

    /// Ways to change the rows of the tables that a script names, so that it may run: the gentlest first. Each is
    /// tried on the database as it was; the statements that did it, or none where there is no such way.
    fn make_plainer(&mut self, script: &str, way: usize) -> Result<Option<Vec<String>>>;
}
