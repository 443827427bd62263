//! Bundles: a package as one file, `NAME-VERSION.backout.tar.zst`, the same bytes from the same package.
//!
//! A bundle is a tar archive, compressed with zstd. Its first entry, `backout-bundle.json`, says what the rest must
//! amount to; the rest is the package's directory in the order of `tree::walk`. A checksum against accidents,
//! not a signature: it does not say who made the bundle.

mod extract;
mod pack;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use crate::inspect::inspect;
pub use extract::open;
pub use pack::pack;

use crate::error::PackageError;
use crate::package::Package;

/// What a bundle's file name ends with.
pub const SUFFIX: &str = ".backout.tar.zst";
/// The name of the first entry.
const HEADER_NAME: &str = "backout-bundle.json";
/// The version of the format that this version writes and reads.
const FORMAT: u32 = 1;
/// The most bytes that the first entry, a long name or an extended header may have.
const MAX_HEADER: u64 = 64 << 10;

/// The first entry of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Header {
    /// Version of the format.
    pub format: u32,
    pub package: String,
    pub version: String,
    /// Entries that follow: files, directories, links.
    pub files: u64,
    /// Bytes of content of all regular files, hard links counted in full.
    pub bytes: u64,
    /// The digest of the package's tree, in hex.
    pub digest: String,
}

/// Opens a bundle whose commands are to run, within `closed`, an empty directory that keeps other users out. In the
/// package's own directory they may read: a command that becomes another user works there.
pub fn open_within(file: &Path, closed: &Path) -> Result<Package, PackageError> {
    let into = closed.join("package");
    let package = open(file, &into)?;
    fs::set_permissions(&into, Permissions::from_mode(0o755)).map_err(|e| PackageError::write(&into, e))?;
    Ok(package)
}

/// True for a path that is a bundle by its name.
pub fn is_bundle(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(SUFFIX))
}
