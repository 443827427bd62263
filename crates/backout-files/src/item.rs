//! What comparing a step's work with the root finds, path by path, and who takes it: a plan, or staging.
//!
//! Never changes anything.

use std::io;

use backout_model::target::TargetError;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::Stat;

use crate::image::{Image, Time};
use crate::path::RootPath;
use crate::xattr::{self, Xattrs};

/// One thing that is to be done. Items of a directory come after its own and before those of the next.
pub enum Item<'a> {
    /// The entries of this directory are going to change.
    Touch { path: &'a RootPath, before: Time, after: Option<Time> },
    /// A new path.
    Put { path: &'a RootPath, source: Source<'a>, inherit: &'a Inherit, copied: bool },
    /// A path that holds something else.
    Swap { path: &'a RootPath, source: Source<'a>, inherit: &'a Inherit, before: Image, copied: bool },
    /// A path that goes.
    Take { path: &'a RootPath, before: Image, copied: bool },
}

/// Where the content of a new path lies: a name in an open directory of the package.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub dir: BorrowedFd<'a>,
    pub name: &'a [u8],
    pub stat: &'a Stat,
}

/// Takes items one after the other.
pub trait Sink {
    /// True where before-images must be hashed: for staging, not for a plan.
    fn wants_images(&self) -> bool;
    fn item(&mut self, item: Item<'_>) -> Result<(), TargetError>;
}

/// What a new path gets from what it replaces, else from its directory.
#[derive(Clone, Debug, Default)]
pub struct Inherit {
    pub uid: u32,
    pub gid: u32,
    /// The access list, as the kernel encodes it.
    pub acl: Option<Vec<u8>>,
    /// For new directories: the list that their own entries start from.
    pub default_acl: Option<Vec<u8>>,
    pub label: Option<Vec<u8>>,
    /// New directories below a setgid directory are setgid, as mkdir(2) has it.
    pub setgid: bool,
    /// True where owner and group must be exactly these, because a file is replaced.
    pub exact: bool,
}

impl Inherit {
    /// From the file or link that is replaced.
    pub fn from_replaced(stat: &Stat, attributes: &Xattrs) -> Self {
        Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            acl: xattr::value(attributes, xattr::ACL).map(<[u8]>::to_vec),
            label: xattr::value(attributes, xattr::LABEL).map(<[u8]>::to_vec),
            exact: true,
            ..Self::default()
        }
    }

    /// From the directory that a new path comes into.
    pub fn from_directory(dir: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&dir)?;
        let attributes = xattr::read(dir)?;
        let default_acl = xattr::value(&attributes, xattr::DEFAULT_ACL).map(<[u8]>::to_vec);
        Ok(Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            acl: default_acl.clone(),
            default_acl,
            label: xattr::value(&attributes, xattr::LABEL).map(<[u8]>::to_vec),
            setgid: stat.st_mode & 0o2000 != 0,
            exact: false,
        })
    }
}
