//! A private directory for dumps and for what is fetched, gone when it is dropped; what crashes left goes with the next.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::restore::remove;
use crate::tool::end_orphans;

/// Held by a lock of the kernel's as long as it is in use.
pub struct Scratch {
    directory: TempDir,
    _lock: File,
}

/// One that a dead process left; nobody else takes it as long as this is held.
pub struct Abandoned {
    path: PathBuf,
    _lock: File,
}

impl Abandoned {
    /// Those below `above`.
    pub fn all(above: &Path) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(above) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let _whole = locked(above)?;
        let mut found = Vec::new();
        for left in entries {
            let path = left?.path();
            let Ok(lock) = File::open(&path) else { continue };
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                found.push(Self { path, _lock: lock });
            }
        }
        Ok(found)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends what still works on it, and removes it.
    pub fn remove(self) -> io::Result<()> {
        self.end_tools()?;
        remove_all(&self.path)
    }

    /// Ends the tools that fill or read it.
    pub fn end_tools(&self) -> io::Result<()> {
        end_orphans(&self.path)?;
        let private = self.path.join("private");
        if private.is_dir() { end_orphans(&private) } else { Ok(()) }
    }
}

/// Whoever makes a scratch or looks for abandoned ones does so alone.
fn locked(above: &Path) -> io::Result<File> {
    let whole = File::open(above)?;
    flock(&whole, FlockOperation::LockExclusive)?;
    Ok(whole)
}

/// Removes a directory, also where what it holds is closed to its owner.
fn remove_all(path: &Path) -> io::Result<()> {
    match remove(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            remove(path)
        }
        other => other,
    }
}

fn open_up(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

impl Scratch {
    /// Makes one below `above`, and removes those that nobody uses.
    pub fn make(above: &Path) -> io::Result<Self> {
        Abandoned::all(above)?.into_iter().try_for_each(Abandoned::remove)?;
        Self::make_beside(above)
    }

    /// Makes one below `above` and leaves all others alone.
    pub fn make_beside(above: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
        let _whole = locked(above)?;
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
        let Self { directory, _lock } = self;
        remove_all(&directory.keep())
    }
}
