//! Where the chores find the repository and put their scratch data. It never writes into tracked folders.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the repository: the folder above this crate.
pub fn repository() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_owned).context("xtask has no folder above it")
}

/// Where cargo puts what it builds.
pub fn target() -> Result<PathBuf> {
    let root = repository()?;
    Ok(match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root.join(dir),
        None => root.join("target"),
    })
}

/// A fresh scratch folder inside the target folder: that is a real disk where a machine's temp folder may be memory.
pub fn scratch(purpose: &str) -> Result<tempfile::TempDir> {
    let parent = target()?.join("scratch");
    std::fs::create_dir_all(&parent).with_context(|| format!("making {}", parent.display()))?;
    let prefix = format!("{purpose}-");
    tempfile::Builder::new().prefix(&prefix).tempdir_in(&parent).context("making a scratch folder")
}
