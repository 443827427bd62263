//! A private directory for dumps and for what is fetched, gone when it is dropped; what crashes left goes with the next.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::restore::remove;

/// Held by a lock of the kernel's as long as it is in use.
pub struct Scratch {
    directory: TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes one below `above`, and removes those that nobody uses.
    pub fn make(above: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
        for left in fs::read_dir(above)? {
            let path = left?.path();
            let unused = File::open(&path).and_then(|file| Ok(flock(&file, FlockOperation::NonBlockingLockExclusive)?));
            if unused.is_ok() {
                remove(&path)?;
            }
        }
        let directory = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir_in(above)?;
        let lock = File::open(directory.path())?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { directory, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes it; dropped without this, a failure to do so stays untold.
    pub fn close(self) -> io::Result<()> {
        self.directory.close()
    }
}
