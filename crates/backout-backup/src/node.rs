//! From the metadata of a file to a node of the repository, in the terms that restic has for it.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustic_core::jiff::Timestamp;
use rustic_core::repofile::{Metadata, Node, NodeType};
use rustix::fs::{FileType, Stat};
use serde_json::json;

use crate::xattr::Xattrs;

/// The bits of Go's `os.FileMode`, which restic writes modes in.
const GO: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];

/// The node of one entry. `target`: what a symbolic link points to.
pub fn node(name: &OsStr, stat: &Stat, target: Option<&Path>, xattrs: &Xattrs) -> io::Result<Node> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let node_type = match kind {
        FileType::Directory => NodeType::Dir,
        FileType::Symlink => NodeType::from_link(target.unwrap_or(Path::new(""))),
        FileType::BlockDevice => NodeType::Dev { device: stat.st_rdev },
        FileType::CharacterDevice => NodeType::Chardev { device: stat.st_rdev },
        FileType::Fifo => NodeType::Fifo,
        FileType::Socket => NodeType::Socket,
        FileType::RegularFile | FileType::Unknown => NodeType::File,
    };
    let is_dir = kind == FileType::Directory;
    let shared = !is_dir && stat.st_nlink > 1;
    let mtime = time(stat.st_mtime, stat.st_mtime_nsec)?;
    let mut meta = Metadata {
        mode: Some(go_mode(stat.st_mode)),
        mtime: Some(mtime),
        // Reading a file changes it, so it says nothing that a restore should bring back.
        atime: Some(mtime),
        ctime: Some(time(stat.st_ctime, stat.st_ctime_nsec)?),
        uid: Some(stat.st_uid),
        gid: Some(stat.st_gid),
        inode: stat.st_ino,
        device_id: if shared { stat.st_dev } else { 0 },
        size: if kind == FileType::RegularFile { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        links: if is_dir { 0 } else { stat.st_nlink },
        ..Metadata::default()
    };
    if !xattrs.is_empty() {
        let mut written = Vec::new();
        for (name, value) in xattrs {
            let name = std::str::from_utf8(name).map_err(|_| io::Error::other("an attribute's name is not UTF-8"))?;
            written.push(json!({ "name": name, "value": STANDARD.encode(value) }));
        }
        // The type of an attribute has no public name.
        meta.extended_attributes = serde_json::from_value(written.into()).map_err(io::Error::other)?;
    }
    Ok(Node::new_node(name, node_type, meta))
}

/// The attributes that a node holds, sorted by name.
pub fn xattrs(node: &Node) -> Xattrs {
    let all = node.meta.extended_attributes.iter();
    let mut all: Xattrs =
        all.map(|one| (one.name.clone().into_bytes(), one.value.clone().unwrap_or_default())).collect();
    all.sort();
    all
}

/// `st_mode` as Go writes it.
pub fn go_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => (1 << 26) | (1 << 21),
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        FileType::RegularFile | FileType::Unknown => 0,
    };
    GO.iter().filter(|(bit, _)| mode & bit != 0).fold(kind | (mode & 0o777), |all, (_, go)| all | go)
}

/// The permission bits of `st_mode` from a mode as Go writes it.
pub fn permissions(go: u32) -> u32 {
    GO.iter().filter(|(_, bit)| go & bit != 0).fold(go & 0o777, |all, (mode, _)| all | mode)
}

fn time(seconds: i64, nanoseconds: u64) -> io::Result<Timestamp> {
    let nanoseconds = i32::try_from(nanoseconds).map_err(io::Error::other)?;
    Timestamp::new(seconds, nanoseconds).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_what_go_has_for_them_and_come_back() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o040_755), 0x8000_0000 | 0o755);
        assert_eq!(go_mode(0o104_755), (1 << 23) | 0o755);
        for mode in [0o644, 0o4755, 0o2775, 0o1777, 0o7000] {
            assert_eq!(permissions(go_mode(0o100_000 | mode)), mode);
        }
    }

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let time = time(-2, 999_999_999).unwrap();
        assert_eq!(time.as_nanosecond(), -1_000_000_001);
    }
}
