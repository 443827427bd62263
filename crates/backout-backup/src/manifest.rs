//! `site.json`: what a snapshot says of itself, for a restore by this tool and for whoever restores by hand.

use std::path::{Path, PathBuf};

use backout_model::backup::{BackupError, Position};
use serde::{Deserialize, Serialize};

/// The name of the manifest in a snapshot.
pub const SITE_JSON: &str = "site.json";
/// The version of its format.
const FORMAT: u32 = 1;

/// What a snapshot holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Always 1. A later tool that changes the meaning of a field counts it up.
    pub format: u32,
    pub site: String,
    pub position: Position,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    pub databases: Vec<DatabaseNote>,
    pub roots: Vec<RootNote>,
    /// What the dumps did not keep, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<String>,
}

/// One database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DatabaseNote {
    pub name: String,
    /// `sqlite`, `postgres`, `mariadb`.
    pub engine: String,
    /// In `databases/`, in the order in which they are loaded.
    pub files: Vec<DumpFile>,
    /// The version of the tool or library that wrote them.
    pub written_by: String,
    /// Of a SQLite database: the mode and owner of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Of a PostgreSQL database: its extensions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
    /// Of a MariaDB database: the history of tables with SYSTEM VERSIONING is in its dump.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub history: bool,
}

/// One file of a dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpFile {
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// BLAKE3 of its bytes, in hex.
    pub blake3: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// One root.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootNote {
    pub name: String,
    /// Where it was.
    pub path: PathBuf,
    /// What was left out: databases, which are in `databases/`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<PathBuf>,
}

impl Manifest {
    pub fn new(site: &str, position: Position, deployment: Option<String>) -> Self {
        Self {
            format: FORMAT,
            site: site.to_owned(),
            position,
            deployment,
            databases: Vec::new(),
            roots: Vec::new(),
            lacking: Vec::new(),
        }
    }

    pub fn write(&self, file: &Path) -> Result<(), BackupError> {
        let failed = |error: std::io::Error| BackupError::failed(format!("cannot write {}", file.display()), error);
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        std::fs::write(file, text).map_err(failed)
    }

    pub fn parse(text: &[u8]) -> Result<Self, BackupError> {
        let manifest: Self = serde_json::from_slice(text)
            .map_err(|error| BackupError::failed("the backup's site.json cannot be understood", error))?;
        if manifest.format != FORMAT {
            let what = format!("the backup is of format {}, and this version knows format {FORMAT}", manifest.format);
            return Err(BackupError::new(what).hint("restore it with the version of backout that made it"));
        }
        // They become parts of paths.
        let names = manifest.databases.iter().map(|database| &database.name);
        let names = names.chain(manifest.roots.iter().map(|root| &root.name));
        let files = manifest.databases.iter().flat_map(|database| &database.files).map(|file| &file.name);
        for name in names.chain(files) {
            if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
                return Err(BackupError::new(format!("the backup's site.json holds a bad name: {name:?}")));
            }
        }
        Ok(manifest)
    }
}
