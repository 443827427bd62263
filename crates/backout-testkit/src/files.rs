//! Everything a file system keeps of a tree, as named lines. Follows no symlink and writes nothing.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::database::Lines;

/// Reads a tree: kind, content, mode, owner, group, mtime in ns (directories and the top itself included), extended
/// attributes (ACLs are among them), link targets, and which names are one file.
pub fn read(top: &Path) -> Lines {
    let mut lines = Lines::new();
    let mut names: BTreeMap<(u64, u64), Vec<String>> = BTreeMap::new();
    let mut next = vec![PathBuf::new()];
    while let Some(relative) = next.pop() {
        let path = top.join(&relative);
        let metadata = fs::symlink_metadata(&path).unwrap();
        let name = relative.as_os_str().as_bytes().escape_ascii().to_string();
        lines.insert(name.clone(), described(&path, &metadata));
        if metadata.is_dir() {
            next.extend(fs::read_dir(&path).unwrap().map(|entry| relative.join(entry.unwrap().file_name())));
        } else if metadata.nlink() > 1 {
            names.entry((metadata.dev(), metadata.ino())).or_default().push(name);
        }
    }
    for mut group in names.into_values() {
        group.sort();
        for name in &group {
            lines.entry(name.clone()).and_modify(|line| line.push_str(&format!(" one file: {}", group.join(" = "))));
        }
    }
    lines
}

fn described(path: &Path, metadata: &Metadata) -> String {
    let kind = metadata.file_type();
    let mode = metadata.mode() & 0o7777;
    let what = if kind.is_symlink() {
        format!("link to {}", fs::read_link(path).unwrap().as_os_str().as_bytes().escape_ascii())
    } else if kind.is_dir() {
        format!("directory {mode:04o}")
    } else if kind.is_file() {
        format!("file {mode:04o} {}", content(path))
    } else if kind.is_fifo() {
        format!("pipe {mode:04o}")
    } else {
        format!("special {mode:04o} {:x}", metadata.rdev())
    };
    let (seconds, nanos) = (metadata.mtime(), metadata.mtime_nsec());
    format!("{what} owner {}:{} mtime {seconds}.{nanos:09}{}", metadata.uid(), metadata.gid(), attributes(path))
}

/// Short content itself, so that a difference can be read; of longer content the digest.
fn content(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    if bytes.len() <= 64 {
        format!("\"{}\"", bytes.escape_ascii())
    } else {
        format!("{} bytes {}", bytes.len(), &blake3::hash(&bytes).to_hex()[..16])
    }
}

fn attributes(path: &Path) -> String {
    let mut names = vec![0; 1 << 16];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => panic!("cannot list the attributes of {}: {error}", path.display()),
    };
    let mut found: Vec<String> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 1 << 16];
            let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            format!(" {}={}", name.escape_ascii(), value[..length].escape_ascii())
        })
        .collect();
    found.sort();
    found.concat()
}
