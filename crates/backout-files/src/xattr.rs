//! Extended attributes, access lists and security labels, read and set through open files.
//!
//! Never fails because a file system has none of them: then there are none.

use std::io;

use backout_model::entry::Digest;
use rustix::fd::AsFd;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// The access list of a file, as the kernel hands it out (acl(5), xattr(7)).
pub const ACL: &[u8] = b"system.posix_acl_access";
/// The access list that new entries of a directory start from.
pub const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
/// The label of SELinux.
pub const LABEL: &[u8] = b"security.selinux";

/// The attributes of one file, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// All attributes that this process may see.
pub fn read(file: impl AsFd) -> io::Result<Xattrs> {
    let file = file.as_fd();
    let mut few = [0; 1024];
    let names = match rustix::fs::flistxattr(file, &mut few) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Ok(length) => few[..length].to_vec(),
        Err(Errno::RANGE) => grown(|buffer| rustix::fs::flistxattr(file, buffer))?,
        Err(error) => return Err(error.into()),
    };
    let mut all = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match grown(|buffer| rustix::fs::fgetxattr(file, name, buffer)) {
            Ok(value) => all.push((name.to_vec(), value)),
            // Gone since the listing, or listed by a driver that does not serve it.
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    all.sort();
    Ok(all)
}

/// Calls with growing buffers; 64 KiB is the most that Linux has (xattr(7)).
fn grown(mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    for size in [256, 4096, 65536] {
        let mut buffer = vec![0; size];
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}

/// A digest over names and values; none where there are no attributes.
pub fn digest(all: &Xattrs) -> Option<Digest> {
    if all.is_empty() {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    for part in all.iter().flat_map(|(name, value)| [name, value]) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    Some(Digest(*hasher.finalize().as_bytes()))
}

pub fn value<'a>(all: &'a Xattrs, name: &[u8]) -> Option<&'a [u8]> {
    all.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_slice())
}

pub fn set(file: impl AsFd, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(file, name, value, XattrFlags::empty())?)
}

/// Removes an attribute if it is there.
pub fn remove(file: impl AsFd, name: &[u8]) -> io::Result<()> {
    match rustix::fs::fremovexattr(file, name) {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes the attributes of `to` those of `wanted`.
pub fn make_equal(to: impl AsFd, wanted: &Xattrs) -> io::Result<()> {
    let to = to.as_fd();
    for (name, _) in read(to)?.iter().filter(|(name, _)| value(wanted, name).is_none()) {
        remove(to, name)?;
    }
    for (name, value) in wanted {
        set(to, name, value)?;
    }
    Ok(())
}
