//! Space put by, so that an undo can be journaled on a full disk. Never holds data.

use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::layout::open_private;

/// How much is put by: room for the entries and small images of the undo of a large deployment.
pub(crate) const RESERVE_BYTES: u64 = 8 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// True where the whole reserve is there.
    pub(crate) fn is_ready(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_file() && found.len() >= RESERVE_BYTES)
    }

    /// Puts the space by, or leaves nothing behind.
    pub(crate) fn make(&self) -> io::Result<()> {
        if self.is_ready() {
            return Ok(());
        }
        allocate(&self.path).inspect_err(|_| {
            // Half a reserve would only take the space that others need now. Where it can't be removed it stays
            // short, and so is seen as not ready.
            fs::remove_file(&self.path).ok();
        })
    }

    /// Gives the space back; true where there was some.
    pub(crate) fn release(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}

fn allocate(path: &Path) -> io::Result<()> {
    let mut file = open_private(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            // Noise, because a file system that compresses would keep zeros for nothing.
            let mut noise = blake3::Hasher::new().update(b"backout reserve").finalize_xof();
            let mut block = vec![0; 64 * 1024];
            file.seek(SeekFrom::Start(0))?;
            for _ in 0..RESERVE_BYTES / block.len() as u64 {
                noise.fill(&mut block);
                file.write_all(&block)?;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
