//! The state directory on disk: names, modes, syncs. Never opens the journal itself.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use backout_model::fault::{self, Point};

use crate::error::JournalError;

/// Where things stand in a state directory.
#[derive(Clone, Debug)]
pub struct Layout {
    state: PathBuf,
}

impl Layout {
    pub fn new(state: &Path) -> Self {
        Self { state: state.to_owned() }
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    pub fn journal(&self) -> PathBuf {
        self.state.join("journal.db")
    }

    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    pub fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    pub fn reserve(&self) -> PathBuf {
        self.state.join("reserve")
    }

    /// Makes the state directory (0700) where it is missing, and takes other users' rights to it away where it is
    /// empty or a journal's already.
    pub(crate) fn make_state(&self) -> Result<(), JournalError> {
        let act = || format!("make the state directory {}", self.state.display());
        let parent = match self.state.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(|e| JournalError::io(act(), e))?;
        if make_directory(&self.state).map_err(|e| JournalError::io(act(), e))? {
            sync_directory(parent).map_err(|e| JournalError::io(act(), e))?;
        }
        let mode = fs::metadata(&self.state).map_err(|e| JournalError::io(act(), e))?.permissions().mode();
        if mode & 0o077 == 0 {
            return Ok(());
        }
        let empty = fs::read_dir(&self.state).map_err(|e| JournalError::io(act(), e))?.next().is_none();
        if !empty && !self.journal().exists() {
            return Err(JournalError::Exposed { state: self.state.clone(), mode: mode & 0o777 });
        }
        fs::set_permissions(&self.state, fs::Permissions::from_mode(0o700)).map_err(|e| {
            JournalError::io(format!("close the state directory {} to other users", self.state.display()), e)
        })
    }

    /// Makes the directory of images and an empty journal where they are missing.
    pub(crate) fn make_contents(&self) -> Result<(), JournalError> {
        let act = || format!("make the journal in {}", self.state.display());
        let mut made = make_directory(&self.images()).map_err(|e| JournalError::io(act(), e))?;
        if !self.journal().exists() {
            open_private(&self.journal()).map_err(|e| JournalError::io(act(), e))?;
            made = true;
        }
        if made {
            sync_directory(&self.state).map_err(|e| JournalError::io(act(), e))?;
        }
        Ok(())
    }
}

/// True where it was not there before.
fn make_directory(path: &Path) -> io::Result<bool> {
    if path.is_dir() {
        return Ok(false);
    }
    fault::point(Point::MakeDir)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens a file of the state directory for reading and writing, 0600, never through a symbolic link.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow)
        .open(path)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    fault::point(Point::DirSync)?;
    if fault::syncs_issued() { File::open(path)?.sync_all() } else { Ok(()) }
}
