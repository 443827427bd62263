//! What happens to a tree in years of use: local changes, uploads, odd modes, links, attributes, names. It changes
//! only the tree it is given.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

/// The folder of uploads, which a deployment never touches.
pub const KEPT: &str = "media";

/// Makes the changes; gives back what this machine or user could not set.
pub fn prepare(root: &Path) -> Result<Vec<String>> {
    let files = plain_files(root)?;
    let mut random = fastrand::Rng::with_seed(42);
    let mut left_out = Vec::new();
    uploads(root)?;
    additions(root)?;
    // Every change to a drawn file, so that files the upgrade replaces, removes and leaves are among them.
    let mut draw = || files[random.usize(0..files.len())].clone();
    for _ in 0..100 {
        File::options().append(true).open(draw())?.write_all(b"\n# changed by hand\n")?;
    }
    for mode in [0o600, 0o640, 0o755, 0o444, 0o4755, 0o2755, 0o1644] {
        for _ in 0..10 {
            fs::set_permissions(draw(), Permissions::from_mode(mode))?;
        }
    }
    for number in 0..20 {
        let path = draw();
        fs::hard_link(&path, path.with_extension(format!("linked{number}")))?;
    }
    // Two names of files that the upgrade may change both.
    for _ in 0..10 {
        let (one, other) = (draw(), draw());
        if one != other {
            fs::remove_file(&other)?;
            fs::hard_link(&one, &other)?;
        }
    }
    for number in 0..20 {
        let path = draw();
        let value = format!("value {number}");
        if rustix::fs::setxattr(&path, "user.origin", value.as_bytes(), rustix::fs::XattrFlags::empty()).is_err() {
            left_out.push("extended attributes".to_owned());
        }
        // VFS_CAP_REVISION_2, cap_net_bind_service permitted and effective (man 7 capabilities).
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        if rustix::fs::setxattr(draw(), "security.capability", &capability, rustix::fs::XattrFlags::empty()).is_err() {
            left_out.push("capabilities (root only)".to_owned());
        }
        if !Command::new("setfacl").args(["-m", "u:4711:rw,g:4712:r"]).arg(draw()).status().is_ok_and(|s| s.success()) {
            left_out.push("ACLs (needs setfacl)".to_owned());
        }
        if chown(draw(), Some(4711), Some(4712)).is_err() {
            left_out.push("owners (root only)".to_owned());
        }
    }
    for number in 0..200 {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_400_000_000 + number * 86_400, 123_456_789 + number as u32);
        File::open(draw())?.set_modified(time)?;
    }
    for number in 0..20 {
        let path = draw();
        if let Some(folder) = path.parent() {
            File::open(folder)?
                .set_modified(SystemTime::UNIX_EPOCH + Duration::new(1_300_000_000 + number, 987_654_321))?;
        }
    }
    left_out.dedup();
    left_out.sort();
    left_out.dedup();
    Ok(left_out)
}

/// What users have sent in.
fn uploads(root: &Path) -> Result<()> {
    for number in 0..300 {
        let folder = root.join(KEPT).join(format!("{:02}", number % 20));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{number}.jpg")), format!("picture {number}").repeat(100))?;
    }
    fs::create_dir(root.join(KEPT).join("empty"))?;
    fs::set_permissions(root.join(KEPT).join("00/0.jpg"), Permissions::from_mode(0o600))?;
    symlink("00/0.jpg", root.join(KEPT).join("latest.jpg"))?;
    Ok(())
}

/// What stands in the tree and in no version of it.
fn additions(root: &Path) -> Result<()> {
    fs::write(root.join("local_settings.py"), "SECRET = 'ours'\n")?;
    for folder in ["empty", "cache/a/b/c", "odd/sticky"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::set_permissions(root.join("odd/sticky"), Permissions::from_mode(0o1777))?;
    fs::set_permissions(root.join("cache/a"), Permissions::from_mode(0o2750))?;
    let odd = root.join("odd");
    fs::write(odd.join(OsStr::from_bytes(b"not-utf8-\xff\xfe.txt")), "x")?;
    fs::write(odd.join("with space, 'quote' and \"quotes\"\nand a line break"), "x")?;
    fs::write(odd.join("x".repeat(255)), "the longest name")?;
    symlink("nowhere", odd.join("dangling"))?;
    symlink("../django", odd.join("to-a-directory"))?;
    symlink("/", odd.join("out"))?;
    let mut sparse = File::create(odd.join("sparse"))?;
    sparse.seek(SeekFrom::Start(20 << 20))?;
    sparse.write_all(b"the end").context("writing a file with a hole")
}

/// Every regular file, in a fixed order.
fn plain_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut next = vec![root.to_owned()];
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                next.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}
