//! The lock of a root: one deployer at a time, whatever its site.
//!
//! Sites that name one directory need have nothing else in common, so the lock is the kernel's, on the directory
//! itself (flock(2)): it asks for no right to write there, leaves nothing behind and ends with its process.

use std::io;
use std::path::Path;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::image::ino;
use crate::overlay::device;

/// The root is this process's alone as long as this lives.
pub struct Locked(OwnedFd);

/// Why a root was not locked.
pub enum Kept {
    /// Who has it, as far as can be known.
    By(String),
    Failed(io::Error),
}

impl Locked {
    /// Does not wait.
    pub fn take(top: impl AsFd) -> Result<Self, Kept> {
        let failed = |error: Errno| Kept::Failed(error.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // A descriptor of its own: what locks the same one twice has it both times.
        let own = rustix::fs::openat(top, ".", flags, Mode::empty()).map_err(failed)?;
        match rustix::fs::flock(&own, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(own)),
            Err(Errno::WOULDBLOCK) => Err(Kept::By(holder(&rustix::fs::fstat(&own).map_err(failed)?))),
            Err(error) => Err(failed(error)),
        }
    }
}

impl Drop for Locked {
    /// Not left to closing: a child that another thread is about to start has a copy of the descriptor until it runs
    /// its program, and the lock would outlive this one (flock(2)).
    fn drop(&mut self) {
        // Where this fails, closing does it.
        if rustix::fs::flock(&self.0, FlockOperation::Unlock).is_err() {}
    }
}

/// `process 7 (backout deploy winter)`. The kernel's list of locks (proc_locks(5)) names the process, unless that is in
/// another namespace or gone by now.
fn holder(stat: &Stat) -> String {
    let device = device(stat);
    let file = format!("{:02x}:{:02x}:{}", rustix::fs::major(device), rustix::fs::minor(device), ino(stat));
    let list = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let Some(pid) = list.lines().find_map(|line| locker(line, &file)) else { return "another process".to_owned() };
    match purpose(pid) {
        Some(purpose) => format!("process {pid} ({purpose})"),
        None => format!("process {pid}"),
    }
}

/// The process that one line of the list names, where that is a lock of this kind on `file`.
fn locker(line: &str, file: &str) -> Option<u32> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    match fields[..] {
        // Lines with an arrow are of processes that wait.
        [_, "FLOCK", _, _, pid, place, ..] if place == file => pid.parse().ok().filter(|pid| *pid > 0),
        _ => None,
    }
}

/// The command line where it is this program's; of others only the name: their arguments may hold secrets.
fn purpose(pid: u32) -> Option<String> {
    let own = std::env::current_exe().ok();
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(String::from_utf8_lossy);
    let program = words.next()?;
    let name = Path::new(&*program).file_name()?.to_string_lossy().into_owned();
    if own.as_deref().and_then(Path::file_name).is_some_and(|own| own.to_string_lossy() == name) {
        return Some(std::iter::once(name).chain(words.map(|word| word.into_owned())).collect::<Vec<_>>().join(" "));
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_list_is_read_by_its_columns() {
        let file = "fd:01:42";
        assert_eq!(locker("1: FLOCK  ADVISORY  WRITE 7 fd:01:42 0 EOF", file), Some(7));
        assert_eq!(locker("1: -> FLOCK  ADVISORY  WRITE 7 fd:01:42 0 EOF", file), None);
        assert_eq!(locker("1: POSIX  ADVISORY  WRITE 7 fd:01:42 0 EOF", file), None);
        assert_eq!(locker("1: FLOCK  ADVISORY  WRITE 7 fd:01:421 0 EOF", file), None);
        assert_eq!(locker("1: FLOCK  ADVISORY  WRITE 0 fd:01:42 0 EOF", file), None, "of another namespace");
        assert_eq!(locker("", file), None);
    }

    #[test]
    fn a_directory_is_locked_once_and_free_again() {
        let dir = tempfile::tempdir().unwrap();
        let top = std::fs::File::open(dir.path()).unwrap();
        let first = Locked::take(&top).ok().unwrap();
        match Locked::take(&top) {
            Err(Kept::By(who)) => assert!(who.starts_with(&format!("process {} (", std::process::id())), "{who}"),
            _ => panic!("locked twice"),
        }
        drop(first);
        assert!(Locked::take(&top).is_ok());
    }
}
