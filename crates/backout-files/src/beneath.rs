//! Opens directories beneath a root and nowhere else.
//!
//! Never follows a symbolic link, also not one that is swapped in while a step runs: each act opens its directory
//! anew and works on the descriptor it got. Nothing is cached, because opening costs some microseconds and a cached
//! descriptor would go on pointing at a directory that has been moved out of the root.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::path::RootPath;

/// How directories are opened.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that nothing is opened outside of.
pub struct Beneath {
    top: OwnedFd,
    /// False once the kernel said that it has no `openat2` (before 5.6, or a seccomp filter in the way).
    has_openat2: AtomicBool,
}

impl Beneath {
    pub fn new(top: OwnedFd) -> Self {
        Self { top, has_openat2: AtomicBool::new(true) }
    }

    pub fn top(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }

    /// Opens a directory. `ELOOP` or `ENOTDIR` where a component is a symbolic link.
    pub fn directory(&self, path: &RootPath) -> io::Result<OwnedFd> {
        if path.is_root() {
            return Ok(openat(&self.top, ".", DIRECTORY, Mode::empty())?);
        }
        if self.has_openat2.load(Ordering::Relaxed) {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            for _ in 0..8 {
                match openat2(&self.top, path.as_bytes(), DIRECTORY, Mode::empty(), resolve) {
                    Ok(fd) => return Ok(fd),
                    // A rename somewhere raced with the lookup: openat2(2) says to try again.
                    Err(Errno::AGAIN) => {}
                    Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
                        self.has_openat2.store(false, Ordering::Relaxed);
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.step_by_step(path)
    }

    /// The same without `openat2`: each component is opened in the one before it and is no link.
    fn step_by_step(&self, path: &RootPath) -> io::Result<OwnedFd> {
        let mut at: Option<OwnedFd> = None;
        for part in path.as_bytes().split(|byte| *byte == b'/') {
            let parent = at.as_ref().map_or(self.top.as_fd(), AsFd::as_fd);
            at = Some(openat(parent, part, DIRECTORY, Mode::empty())?);
        }
        at.ok_or_else(|| io::Error::from(Errno::NOENT))
    }

    /// Opens the directory that holds `path`.
    pub fn parent(&self, path: &RootPath) -> io::Result<OwnedFd> {
        self.directory(&path.parent())
    }
}

/// Opens a directory by its name in another, never through a link.
pub fn subdirectory(parent: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(openat(parent, name, DIRECTORY, Mode::empty())?)
}

/// True where an error of [`Beneath::directory`] means that a component is missing.
pub fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOENT.raw_os_error())
}

/// True where an error of [`Beneath::directory`] means that a component is a symbolic link or no directory.
pub fn is_blocked(error: &io::Error) -> bool {
    [Errno::LOOP, Errno::NOTDIR, Errno::XDEV].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn open(path: &std::path::Path) -> Beneath {
        Beneath::new(openat(rustix::fs::CWD, path, DIRECTORY, Mode::empty()).unwrap())
    }

    #[test]
    fn links_are_never_followed_with_openat2_or_without() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/a/b")).unwrap();
        std::fs::create_dir_all(dir.path().join("outside/b")).unwrap();
        symlink("../outside", dir.path().join("root/out")).unwrap();
        symlink("a", dir.path().join("root/inside")).unwrap();
        std::fs::write(dir.path().join("root/file"), "x").unwrap();
        let path = |text: &str| RootPath::parse(text, "").unwrap();
        for openat2 in [true, false] {
            let beneath = open(&dir.path().join("root"));
            beneath.has_openat2.store(openat2, Ordering::Relaxed);
            assert!(beneath.directory(&path("a/b")).is_ok());
            assert!(beneath.directory(&RootPath::root()).is_ok());
            for blocked in ["out/b", "out", "inside/b", "file/b"] {
                let error = beneath.directory(&path(blocked)).unwrap_err();
                assert!(is_blocked(&error), "{blocked}: {error}");
            }
            assert!(is_missing(&beneath.directory(&path("a/none/b")).unwrap_err()));
        }
    }
}
