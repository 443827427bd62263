//! The hold of a root: the directory that keeps before-images (and, after an undo, after-images).
//!
//! One directory a step, named by chance; it is called `NAME.new` until the step is announced, so that what a crash
//! left half staged can be told apart from what an undo needs. Never lies inside the root, is never readable by others.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use backout_model::target::TargetError;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::act;
use crate::beneath::subdirectory;
use crate::error::{Acting, refused};
use crate::image;
use crate::remove;
use crate::xattr;

/// What a step's directory is called until the step is announced.
const STAGING: &str = ".new";
/// The copy of the manifest that placing reads.
pub const CHANGES: &[u8] = b"changes";

/// Where a root's before-images are kept.
pub struct Hold {
    path: PathBuf,
    /// Where steps may lie as well: the decision between both places may have been another one before.
    other: Option<PathBuf>,
    /// The owner of the root: beside this process's own user the only one whose hold is trusted.
    owner: u32,
}

/// One step's directory in the hold.
pub struct Step {
    name: String,
    staging: bool,
    hold: OwnedFd,
    dir: OwnedFd,
    path: PathBuf,
}

impl Hold {
    /// Decides where the hold of the root at `root` (a canonical path) is: beside it where that is the same file
    /// system and may be written to, else in `fallback`. Creates nothing.
    pub fn choose(
        root: &Path,
        stat: &Stat,
        site: &str,
        name: &str,
        fallback: Option<&Path>,
        away: bool,
    ) -> Result<Self, TargetError> {
        for part in [site, name] {
            if part.is_empty() || part.contains(['/', '\0']) {
                return Err(refused(
                    format!("root {name}"),
                    part,
                    "a name of a site or root may not be empty or hold a `/`",
                    "give it another name",
                ));
            }
        }
        let beside = root.parent().map(|parent| (parent, parent.join(called(root, site, name))));
        let fallback = fallback.map(|path| path.join(name));
        if let Some((parent, path)) = beside {
            let same = rustix::fs::stat(parent).is_ok_and(|found| found.st_dev == stat.st_dev);
            let usable =
                rustix::fs::accessat(CWD, parent, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok();
            if same && usable && !away {
                return Ok(Self { path, other: fallback, owner: stat.st_uid });
            }
            if let Some(fallback) = fallback {
                return Ok(Self { path: fallback, other: Some(path), owner: stat.st_uid });
            }
        } else if let Some(fallback) = fallback {
            return Ok(Self { path: fallback, other: None, owner: stat.st_uid });
        }
        Err(refused(
            format!("root {name}"),
            root.display().to_string(),
            "its before-images can't be kept beside it: the directory above is another file system or can't be written to",
            "give a directory for the hold, or let the deployer write beside the root",
        ))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the hold, making it first where it is missing.
    pub fn ensure(&self) -> Result<OwnedFd, TargetError> {
        if let Some(found) = self.open(&self.path).acting(|| format!("cannot open the hold {}", self.path.display()))? {
            return Ok(found);
        }
        let making = || format!("cannot make the hold {}", self.path.display());
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Err(TargetError::failed(making(), "it has no directory above"));
        };
        if !parent.exists() {
            // Only ever the fallback, inside the state directory.
            std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700)
                .create(parent)
                .acting(making)?;
        }
        let above =
            rustix::fs::openat(CWD, parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .acting(making)?;
        match act::make_dir(&above, name.as_bytes(), 0o700) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.acting(making)?,
        }
        act::sync_dir(&above).acting(making)?;
        let hold = subdirectory(&above, name.as_bytes()).acting(making)?;
        close_to_others(&hold).acting(making)?;
        Ok(hold)
    }

    /// Opens the hold at `path`, if it is there and nobody else's: in a directory that all may write to, somebody
    /// could have made it before us, and would read and swap what is kept.
    fn open(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let stat = rustix::fs::fstat(&found)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() && stat.st_uid != self.owner {
            return Err(io::Error::other("it belongs to somebody else"));
        }
        if stat.st_mode & 0o077 != 0 {
            return Err(io::Error::other("others may look into it: its mode must be 0700"));
        }
        Ok(Some(found))
    }

    /// Makes the directory of a new step.
    pub fn begin(&self) -> Result<Step, TargetError> {
        let hold = self.ensure()?;
        let making = || format!("cannot stage in the hold {}", self.path.display());
        loop {
            let name = random_name();
            let staging = format!("{name}{STAGING}");
            match act::make_dir(&hold, staging.as_bytes(), 0o700) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.acting(making)?,
            }
            let dir = subdirectory(&hold, staging.as_bytes()).acting(making)?;
            return Ok(Step { path: self.path.join(&name), name, staging: true, hold, dir });
        }
    }

    /// Makes the directory of an earlier step anew, where what it kept is lost: what goes away now is kept there.
    pub fn anew(&self, name: &str) -> Result<Step, TargetError> {
        let making = || format!("cannot make {name} in the hold {}", self.path.display());
        let hold = self.ensure()?;
        act::make_dir(&hold, name.as_bytes(), 0o700).acting(making)?;
        let dir = subdirectory(&hold, name.as_bytes()).acting(making)?;
        Ok(Step { path: self.path.join(name), name: name.to_owned(), staging: false, hold, dir })
    }

    /// Finds the directory of an earlier step; none where it is not there any more. `then` is where the hold was when
    /// the step was done: it stays behind when a root is moved.
    pub fn find(&self, name: &str, then: Option<&Path>) -> Result<Option<Step>, TargetError> {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(TargetError::Images {
                target: name.to_owned(),
                what: "they name no step of a hold".to_owned(),
            });
        }
        for path in [Some(self.path.as_path()), self.other.as_deref(), then].into_iter().flatten() {
            let opening = || format!("cannot open the hold {}", path.display());
            let Some(hold) = self.open(path).acting(opening)? else { continue };
            for (staging, called) in [(false, name.to_owned()), (true, format!("{name}{STAGING}"))] {
                match subdirectory(&hold, called.as_bytes()) {
                    Ok(dir) => {
                        let path = path.join(&called);
                        return Ok(Some(Step { name: name.to_owned(), staging, hold, dir, path }));
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error).acting(opening),
                }
            }
        }
        Ok(None)
    }

    /// The directories of all announced steps, where the hold is and where it may have been.
    pub fn steps(&self) -> Result<Vec<Step>, TargetError> {
        let mut steps = Vec::new();
        for path in [Some(&self.path), self.other.as_ref()].into_iter().flatten() {
            let listing = || format!("cannot list the hold {}", path.display());
            let Some(hold) = self.open(path).acting(listing)? else { continue };
            for name in remove::names(&hold).acting(listing)? {
                let name = String::from_utf8_lossy(&name).into_owned();
                if is_step(&name) {
                    let dir = subdirectory(&hold, name.as_bytes()).acting(listing)?;
                    let hold = hold.try_clone().acting(listing)?;
                    steps.push(Step { path: path.join(&name), name, staging: false, hold, dir });
                }
            }
        }
        Ok(steps)
    }

    /// Removes what a crash left staged and unannounced. To be called only where every announced step is decided.
    pub fn clean_stale(&self) -> Result<u64, TargetError> {
        self.remove_where(|name| name.ends_with(STAGING))
    }

    /// Removes every step but those named.
    pub fn sweep(&self, still_needed: &[String]) -> Result<u64, TargetError> {
        self.remove_where(|name| {
            let step = name.strip_suffix(STAGING).unwrap_or(name);
            !still_needed.iter().any(|needed| needed == step)
        })
    }

    fn remove_where(&self, unneeded: impl Fn(&str) -> bool) -> Result<u64, TargetError> {
        let mut removed = 0;
        for path in [Some(&self.path), self.other.as_ref()].into_iter().flatten() {
            let cleaning = || format!("cannot clean the hold {}", path.display());
            let Some(hold) = self.open(path).acting(cleaning)? else { continue };
            for name in remove::names(&hold).acting(cleaning)? {
                // Only directories of steps: what a person put here is none of ours.
                let text = String::from_utf8_lossy(&name);
                let step = text.strip_suffix(STAGING).unwrap_or(&text);
                if is_step(step) && unneeded(&text) {
                    remove::step(&hold, &name).acting(cleaning)?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }
}

impl Step {
    /// As the manifest and [`Hold::sweep`] call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True until it has its lasting name.
    pub fn is_staging(&self) -> bool {
        self.staging
    }

    pub fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Where a person finds what is kept as `n`.
    pub fn shown(&self, n: u64) -> String {
        self.path.join(n.to_string()).display().to_string()
    }

    /// The device of the hold, by which it is decided whether files can be exchanged.
    pub fn device(&self) -> io::Result<u64> {
        #[allow(clippy::useless_conversion)]
        Ok(rustix::fs::fstat(&self.dir)?.st_dev.into())
    }

    /// Gives the directory its lasting name: from now on nothing but [`Step::remove`] takes it away.
    pub fn settle_name(&mut self) -> io::Result<()> {
        if self.staging {
            act::rename_new(
                &self.hold,
                format!("{}{STAGING}", self.name).as_bytes(),
                &self.hold,
                self.name.as_bytes(),
            )?;
            self.staging = false;
            self.path.set_file_name(&self.name);
        }
        Ok(())
    }

    /// Makes the entries of the step's directory, and its own, durable.
    pub fn sync(&self) -> io::Result<()> {
        act::sync_dir(&self.dir)?;
        act::sync_dir(&self.hold)
    }

    /// Gives the step up, and the hold where it was the last one.
    pub fn remove(self) -> io::Result<()> {
        let called = if self.staging { format!("{}{STAGING}", self.name) } else { self.name.clone() };
        remove::step(&self.hold, called.as_bytes())?;
        if remove::names(&self.hold)?.is_empty()
            && let Some(hold) = self.path.parent()
            && let (Some(above), Some(name)) = (hold.parent(), hold.file_name())
        {
            let above =
                rustix::fs::openat(CWD, above, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            match act::remove_dir(&above, name.as_bytes()) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// The names that are in the step's directory.
    pub fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        remove::names(&self.dir)
    }

    /// What is kept as `n`, without opening it.
    pub fn stat(&self, n: u64) -> io::Result<Option<Stat>> {
        image::stat(&self.dir, n.to_string().as_bytes())
    }
}

/// What the hold beside a root is called: for people the names, and a digest of them, since site `a-b` with root `c`
/// and site `a` with root `b-c` are two, as are two roots side by side that two sites of one name call the same.
fn called(root: &Path, site: &str, name: &str) -> String {
    let mut digest = blake3::Hasher::new();
    for part in [site.as_bytes(), name.as_bytes(), root.file_name().unwrap_or_default().as_bytes()] {
        digest.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    format!(".backout-{site}-{name}-{}", &digest.finalize().to_hex()[..8])
}

/// Hexadecimal digits of a step's name.
const NAME_LENGTH: usize = 16;

fn is_step(name: &str) -> bool {
    name.len() == NAME_LENGTH && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Sixteen hexadecimal digits that no earlier step is likely to have had; the caller sees to it that none has.
fn random_name() -> String {
    use std::hash::{BuildHasher, Hasher};
    format!("{:016x}", std::hash::RandomState::new().build_hasher().finish())
}

/// 0700 and no access list inherited from the directory above: a list would pass to everything that is staged.
fn close_to_others(hold: impl AsFd) -> io::Result<()> {
    let hold = hold.as_fd();
    xattr::remove(hold, xattr::DEFAULT_ACL)?;
    xattr::remove(hold, xattr::ACL)?;
    Ok(rustix::fs::fchmod(hold, Mode::from_raw_mode(0o700))?)
}
