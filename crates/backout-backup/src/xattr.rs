//! Extended attributes of what lies in an open directory, access lists and capabilities among them.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// The attributes of one file, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The most that Linux has for the names or for one value (xattr(7)).
const MOST: usize = 65536;

/// All attributes of an entry that this process may see; a link's own, not its target's. None where the file system has
/// no attributes.
pub fn read(dir: &impl AsRawFd, name: &OsStr) -> io::Result<Xattrs> {
    // There is no call that takes a directory's descriptor and a name; by this path only the name is looked up.
    read_path(&PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name))
}

/// The same of a path whose last part is not followed.
pub fn read_path(path: &Path) -> io::Result<Xattrs> {
    let mut names = [0_u8; 1024];
    let names = match rustix::fs::llistxattr(path, &mut names) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Ok(length) => names[..length].to_vec(),
        Err(Errno::RANGE) => filled(|buffer| rustix::fs::llistxattr(path, buffer))?,
        Err(error) => return Err(error.into()),
    };
    let mut all = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match filled(|buffer| rustix::fs::lgetxattr(path, name, buffer)) {
            Ok(value) => all.push((name.to_vec(), value)),
            // Gone since the listing, or listed by a driver that does not serve it.
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    all.sort();
    Ok(all)
}

fn filled(call: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; MOST];
    let length = call(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}
