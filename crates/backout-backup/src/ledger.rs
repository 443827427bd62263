//! What goes wrong in threads that only drop an entry then: kept, so that a backup with a gap never counts as one.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// At most so many failures and notes are kept; the rest is counted.
const KEPT: usize = 20;

/// Shared by the walk and the readers of one backup.
#[derive(Debug, Default)]
pub struct Ledger {
    failures: Mutex<Vec<String>>,
    failed: AtomicU64,
    notes: Mutex<Vec<String>>,
    /// Entries of the source, but for directories.
    entries: AtomicU64,
    /// Files with holes, each name below `roots/` and ended by a NUL.
    sparse: Mutex<Vec<u8>>,
    stop: Option<Arc<AtomicBool>>,
}

impl Ledger {
    pub fn new(stop: Option<Arc<AtomicBool>>) -> Arc<Self> {
        Arc::new(Self { stop, ..Self::default() })
    }

    pub fn fail(&self, what: impl Into<String>) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        keep(&self.failures, what.into());
    }

    pub fn note(&self, what: impl Into<String>) {
        keep(&self.notes, what.into());
    }

    pub fn count(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    /// A file with holes, by its path below `roots/`.
    pub fn has_holes(&self, path: &Path) {
        let mut sparse = self.sparse.lock().unwrap_or_else(PoisonError::into_inner);
        sparse.extend(path.as_os_str().as_bytes());
        sparse.push(0);
    }

    pub fn sparse(&self) -> Vec<u8> {
        self.sparse.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// The first failures, and one line on the rest.
    pub fn failures(&self) -> Vec<String> {
        let mut all = listed(&self.failures);
        let more = self.failed.load(Ordering::Relaxed).saturating_sub(all.len() as u64);
        if more > 0 {
            all.push(format!("and {more} more"));
        }
        all
    }

    pub fn notes(&self) -> Vec<String> {
        listed(&self.notes)
    }
}

fn keep(list: &Mutex<Vec<String>>, what: String) {
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    if list.len() < KEPT {
        list.push(what);
    }
}

fn listed(list: &Mutex<Vec<String>>) -> Vec<String> {
    list.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
