//! A directory tree as a value: made on disk for a site's root or a package's files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

/// The times of a site's files, and those of a package's.
pub const SITE_TIME: i64 = 1_600_000_000;
pub const PACKAGE_TIME: i64 = 1_700_000_000;

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    File {
        content: Vec<u8>,
        mode: u32,
    },
    Link(String),
    /// A further name of the file at another path of the tree, which must come before it in the order of paths.
    Same(String),
    Dir {
        mode: u32,
    },
}

/// Paths relative to the tree's top; directories above a path need not be named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<String, Node>);

impl Tree {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn file(self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.node(path, Node::File { content: content.into(), mode: 0o644 })
    }

    #[must_use]
    pub fn link(self, path: &str, target: &str) -> Self {
        self.node(path, Node::Link(target.to_owned()))
    }

    #[must_use]
    pub fn same(self, path: &str, other: &str) -> Self {
        self.node(path, Node::Same(other.to_owned()))
    }

    #[must_use]
    pub fn dir(self, path: &str) -> Self {
        self.node(path, Node::Dir { mode: 0o755 })
    }

    #[must_use]
    pub fn node(mut self, path: &str, node: Node) -> Self {
        self.0.insert(path.to_owned(), node);
        self
    }

    /// Makes the tree below `top`, which is made too where it is missing. All its times are in the past, so that a
    /// later write always shows, and `since` (seconds since 1970) tells trees apart.
    pub fn write(&self, top: &Path, since: i64) {
        fs::create_dir_all(top).unwrap();
        for (path, node) in &self.0 {
            let at = top.join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            match node {
                Node::File { content, mode } => {
                    fs::write(&at, content).unwrap();
                    fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).unwrap();
                }
                Node::Link(target) => symlink(target, &at).unwrap(),
                Node::Same(other) => fs::hard_link(top.join(other), &at).unwrap(),
                Node::Dir { mode } => {
                    fs::create_dir_all(&at).unwrap();
                    fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).unwrap();
                }
            }
        }
        for (count, path) in self.0.keys().enumerate() {
            let time = Timespec { tv_sec: since + count as i64, tv_nsec: 123_456_789 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, top.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
    }
}
