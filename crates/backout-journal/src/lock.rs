//! The lock of the state directory: one writer a journal on this machine. Never waits, never breaks a lock.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::JournalError;
use crate::layout::{Layout, open_private};
use crate::process::ProcessFacts;

/// What the lock file says of its holder, for the person who is kept out. The lock itself is the kernel's
/// (flock(2)): it ends with the process, whatever stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderNote {
    pub host: String,
    pub boot_id: String,
    pub pid: u32,
    /// Clock ticks since boot.
    pub started: u64,
    /// What it does: `deploy winter-catalogue`.
    pub purpose: String,
    /// Milliseconds since 1970 UTC.
    pub since_ms: i64,
}

impl HolderNote {
    pub fn facts(&self) -> ProcessFacts {
        ProcessFacts { host: self.host.clone(), boot_id: self.boot_id.clone(), pid: self.pid, started: self.started }
    }
}

/// The largest lock file that is read: a note is far smaller.
const NOTE_MAX: u64 = 64 * 1024;

/// The lock, held as long as this lives.
#[derive(Debug)]
pub(crate) struct StateLock {
    file: File,
}

impl StateLock {
    pub(crate) fn take(layout: &Layout) -> Result<Self, JournalError> {
        let path = layout.lock();
        let act = || format!("lock {}", path.display());
        loop {
            let file = open_private(&path).map_err(|e| JournalError::io(act(), e))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let holder = read_note(&path).map(Box::new);
                    return Err(JournalError::Held { state: layout.state().to_owned(), holder });
                }
                Err(TryLockError::Error(error)) => return Err(JournalError::io(act(), error)),
            }
            // Somebody may have removed the file between opening and locking: then two could hold "the" lock.
            let locked = file.metadata().map_err(|e| JournalError::io(act(), e))?;
            match std::fs::symlink_metadata(&path) {
                Ok(named) if named.ino() == locked.ino() && named.dev() == locked.dev() => return Ok(Self { file }),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(JournalError::io(act(), error)),
            }
        }
    }

    /// Replaces what the file says. Not synced: after a power loss nobody holds the lock.
    pub(crate) fn set_note(&mut self, note: &HolderNote) -> std::io::Result<()> {
        let mut text = serde_json::to_vec(note)?;
        text.push(b'\n');
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&text)
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        // The note is only for people: a stale one is recognised by the process facts in it, and the kernel's lock
        // ends all the same.
        self.file.set_len(0).ok();
        // Closing alone leaves the lock to a child that was forked just now and has not yet closed its copy of the
        // file.
        self.file.unlock().ok();
    }
}

/// What the lock file says; none where it says nothing that can be understood.
pub(crate) fn read_note(path: &Path) -> Option<HolderNote> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(NOTE_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}
