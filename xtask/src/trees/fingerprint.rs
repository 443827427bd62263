//! Everything that a file system keeps of a tree, a line an entry, to compare two states by. It follows no symlink
//! and writes nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// How much of each entry is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Kind, mode, content.
    Content,
    /// Also owner, group, mtime to the nanosecond, extended attributes with ACLs, hard links, holes.
    Everything,
}

/// Path relative to the root (empty: the root itself) and what stands there, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<Vec<u8>, String>,
}

impl Tree {
    pub fn read(root: &Path, depth: Depth) -> Result<Self> {
        let mut entries = BTreeMap::new();
        // The first name of each file that has several.
        let mut names = BTreeMap::new();
        let mut next = vec![PathBuf::new()];
        while let Some(relative) = next.pop() {
            let path = root.join(&relative);
            let described = || -> Result<(Metadata, String)> {
                let metadata = fs::symlink_metadata(&path)?;
                let mut text = content(&path, &metadata)?;
                if depth == Depth::Everything {
                    text.push_str(&rest(&path, &metadata)?);
                }
                Ok((metadata, text))
            };
            let (metadata, mut text) = described().with_context(|| format!("reading {}", path.display()))?;
            if metadata.is_dir() {
                for entry in fs::read_dir(&path)? {
                    next.push(relative.join(entry?.file_name()));
                }
            } else if depth == Depth::Everything && metadata.nlink() > 1 {
                let key = (metadata.dev(), metadata.ino());
                let all: &mut Vec<Vec<u8>> = names.entry(key).or_default();
                all.push(relative.as_os_str().as_bytes().to_vec());
                text.push_str(&format!(" links={}", metadata.nlink()));
            }
            entries.insert(relative.into_os_string().into_vec(), text);
        }
        for mut all in names.into_values() {
            all.sort();
            for name in &all {
                entries.entry(name.clone()).and_modify(|text| text.push_str(&format!(" same-as={}", shown(&all[0]))));
            }
        }
        Ok(Self { entries })
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What lies at and below a path.
    pub fn only(&self, below: &str) -> Self {
        Self { entries: self.split(below).0 }
    }

    /// All but what lies at and below a path.
    pub fn without(&self, below: &str) -> Self {
        Self { entries: self.split(below).1 }
    }

    fn split(&self, below: &str) -> (BTreeMap<Vec<u8>, String>, BTreeMap<Vec<u8>, String>) {
        let inside = format!("{below}/");
        let part = |path: &[u8]| path == below.as_bytes() || path.starts_with(inside.as_bytes());
        self.entries.clone().into_iter().partition(|(path, _)| part(path))
    }

    /// One line an entry that is missing, extra or different in the other.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, text) in &self.entries {
            match other.entries.get(path) {
                None => lines.push(format!("{}: missing, was {text}", shown(path))),
                Some(now) if now != text => lines.push(format!("{}: was {text}, is {now}", shown(path))),
                Some(_) => {}
            }
        }
        for (path, text) in &other.entries {
            if !self.entries.contains_key(path) {
                lines.push(format!("{}: extra, {text}", shown(path)));
            }
        }
        lines
    }
}

fn shown(path: &[u8]) -> String {
    if path.is_empty() { ".".to_owned() } else { OsString::from_vec(path.to_vec()).display().to_string() }
}

/// Kind, mode and content.
fn content(path: &Path, metadata: &Metadata) -> Result<String> {
    let kind = metadata.file_type();
    let mode = metadata.mode() & 0o7777;
    Ok(if kind.is_symlink() {
        // A symlink's own mode means nothing on Linux.
        format!("link to {}", fs::read_link(path)?.display())
    } else if kind.is_dir() {
        format!("directory {mode:04o}")
    } else if kind.is_file() {
        format!("file {mode:04o} {} bytes {}", metadata.len(), &hash(path)?[..16])
    } else if kind.is_fifo() {
        format!("pipe {mode:04o}")
    } else {
        format!("special {mode:04o} {:x}", metadata.rdev())
    })
}

fn rest(path: &Path, metadata: &Metadata) -> Result<String> {
    let mut text =
        format!(" owner={}:{} mtime={}.{:09}", metadata.uid(), metadata.gid(), metadata.mtime(), metadata.mtime_nsec());
    if metadata.is_file() && metadata.blocks() * 512 < metadata.len() / 2 {
        text.push_str(" sparse");
    }
    for (name, value) in attributes(path)? {
        let value: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!(" {name}={value}"));
    }
    Ok(text)
}

/// Extended attributes, sorted by name: ACLs and capabilities are among them.
fn attributes(path: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    const LARGEST: usize = 1 << 16;
    let mut names = vec![0; LARGEST];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error).context("listing extended attributes"),
    };
    let mut attributes = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; LARGEST];
        let length = rustix::fs::lgetxattr(path, name, &mut value).context("reading an extended attribute")?;
        value.truncate(length);
        attributes.push((String::from_utf8_lossy(name).into_owned(), value));
    }
    attributes.sort();
    Ok(attributes)
}

fn hash(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, SystemTime};

    type Change = fn(&Path) -> std::io::Result<()>;

    #[test]
    fn a_fingerprint_sees_every_difference() -> Result<()> {
        let changes: [(&str, Change); 9] = [
            ("content", |d| fs::write(d.join("a"), "B")),
            ("mode", |d| fs::set_permissions(d.join("a"), fs::Permissions::from_mode(0o4755))),
            ("mtime", |d| {
                let file = File::options().write(true).open(d.join("a"))?;
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(1_000_000, 7))
            }),
            ("mtime of a directory", |d| {
                File::open(d.join("empty"))?.set_modified(SystemTime::UNIX_EPOCH + Duration::new(1_000_000, 7))
            }),
            ("empty directory", |d| fs::remove_dir(d.join("empty"))),
            ("symlink", |d| fs::remove_file(d.join("s")).and_then(|()| symlink("b", d.join("s")))),
            ("attribute", |d| {
                rustix::fs::setxattr(d.join("a"), "user.x", b"1", rustix::fs::XattrFlags::empty())?;
                Ok(())
            }),
            ("hard link gone", |d| {
                fs::remove_file(d.join("l2")).and_then(|()| fs::copy(d.join("l1"), d.join("l2"))).map(drop)
            }),
            ("appeared", |d| fs::write(d.join("new"), "")),
        ];
        for (what, change) in changes {
            let dir = crate::place::scratch("test")?;
            let root = dir.path();
            fs::write(root.join("a"), "A")?;
            fs::create_dir(root.join("empty"))?;
            symlink("a", root.join("s"))?;
            fs::write(root.join("l1"), "L")?;
            fs::hard_link(root.join("l1"), root.join("l2"))?;
            let before = Tree::read(root, Depth::Everything)?;
            assert_eq!(before.differences(&Tree::read(root, Depth::Everything)?), Vec::<String>::new());
            change(root)?;
            assert!(!before.differences(&Tree::read(root, Depth::Everything)?).is_empty(), "{what}");
        }
        Ok(())
    }

    #[test]
    fn a_part_can_be_left_out() -> Result<()> {
        let dir = crate::place::scratch("test")?;
        fs::create_dir_all(dir.path().join("media/x"))?;
        fs::write(dir.path().join("media.txt"), "")?;
        let tree = Tree::read(dir.path(), Depth::Content)?;
        assert_eq!((tree.only("media").len(), tree.without("media").len()), (2, 2));
        Ok(())
    }
}
