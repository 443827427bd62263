//! Mode, owner, group and attributes: carried from one file to another where others changed them, and which of them
//! this user may give.
//!
//! Never touches content or times; a live path only where directories change their rights.

use std::io;

use backout_model::fault::{self, Point};
use backout_model::target::TargetError;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::beneath::subdirectory;
use crate::error::refused;
use crate::hold::Step;
use crate::image::{self, Image, file_type};
use crate::item::Inherit;
use crate::path::RootPath;
use crate::xattr::{self, Xattrs};

/// What goes back in the place of `now`, which the step left as `from`: `to`, with every right that others changed.
pub fn carried(from: &Image, to: &Image, now: &Image) -> Image {
    let theirs = |now: u32, from: u32, to: u32| if now == from { to } else { now };
    Image {
        mode: theirs(now.mode, from.mode, to.mode),
        uid: theirs(now.uid, from.uid, to.uid),
        gid: theirs(now.gid, from.gid, to.gid),
        xattrs: if now.xattrs == from.xattrs { to.xattrs } else { now.xattrs },
        ..to.clone()
    }
}

/// Gives the kept file `n` every right of the live one that is not what the step left (`from`), so that a change of
/// others survives when the kept one goes back.
pub fn carry_over(
    dir: &OwnedFd,
    name: &[u8],
    step: &Step,
    n: u64,
    from: Option<&Image>,
    to: Option<&Image>,
) -> io::Result<()> {
    let kept = n.to_string().into_bytes();
    let (Some(from), Some(to)) = (from, to) else { return Ok(()) };
    let Some(now) = image::look(dir, name, |_| false)? else { return Ok(()) };
    let wanted = carried(from, to, &now);
    fault::point(Point::SetMetadata)?;
    if (wanted.uid, wanted.gid) != (to.uid, to.gid) {
        let (uid, gid) = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
        rustix::fs::chownat(step.dir(), kept.as_slice(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if !is_file(step, &kept)? {
        return Ok(());
    }
    let file = image::open_file(step.dir(), &kept)?;
    if now.xattrs != from.xattrs {
        let live = image::open_file(dir, name)?;
        xattr::make_equal(&file, &xattr::read(&live)?)?;
    }
    Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(wanted.mode))?)
}

/// Gives the kept file `n` mode, owner and group of its image again, after a turn that was taken back.
pub fn reset(step: &Step, n: u64, image: &Image) -> io::Result<()> {
    let kept = n.to_string().into_bytes();
    if !is_file(step, &kept)? {
        return Ok(());
    }
    let file = image::open_file(step.dir(), &kept)?;
    let stat = rustix::fs::fstat(&file)?;
    if (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777) == (image.uid, image.gid, image.mode) {
        return Ok(());
    }
    fault::point(Point::SetMetadata)?;
    rustix::fs::fchown(&file, Some(Uid::from_raw(image.uid)), Some(Gid::from_raw(image.gid)))?;
    Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(image.mode))?)
}

/// Gives a new directory owner and group of the one above it, as far as this user may.
pub fn like(made: impl AsFd, above: impl AsFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(above)?;
    match rustix::fs::fchown(made, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))) {
        Ok(()) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Refuses beforehand what this user could not make as it must be: another's file cannot be replaced by one of the
/// same owner and group without CAP_CHOWN (chown(2)).
pub fn possible(label: &str, path: &RootPath, source: &Stat, inherit: &Inherit) -> Result<(), TargetError> {
    match file_type(source) {
        FileType::Directory => usable(label, path, directory_mode(source, inherit)),
        FileType::RegularFile if inherit.exact && !may_give(inherit) => Err(not_given(label, path, inherit)),
        _ => Ok(()),
    }
}

/// The mode that a new directory gets.
pub fn directory_mode(source: &Stat, inherit: &Inherit) -> u32 {
    source.st_mode & 0o7777 | if inherit.setgid { 0o2000 } else { 0 }
}

/// Refuses a directory that this user could neither fill nor take back.
pub fn usable(label: &str, path: &RootPath, mode: u32) -> Result<(), TargetError> {
    if mode & 0o300 == 0o300 || rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let why = "its owner could not write to it, so only root could fill it or take it back";
    Err(refused(label, path.to_string(), why, "give the directory mode 0755 in the package"))
}

/// The refusal of a file whose owner this user may not give to another file.
pub fn not_given(label: &str, path: &RootPath, inherit: &Inherit) -> TargetError {
    let why = format!("its owner {}:{} can't be given to the new file", inherit.uid, inherit.gid);
    refused(label, path.to_string(), why, "deploy as root or as the files' owner")
}

/// Where the kernel does not tell what this process may, only staging will show it.
fn may_give(inherit: &Inherit) -> bool {
    let own = rustix::process::geteuid().as_raw() == inherit.uid;
    let member = |groups: Vec<Gid>| groups.iter().any(|group| group.as_raw() == inherit.gid);
    let in_group = rustix::process::getegid().as_raw() == inherit.gid || rustix::process::getgroups().is_ok_and(member);
    let chowns = |sets: CapabilitySets| sets.effective.contains(CapabilitySet::CHOWN);
    own && in_group || rustix::thread::capabilities(None).map_or(true, chowns)
}

fn is_file(step: &Step, name: &[u8]) -> io::Result<bool> {
    Ok(image::stat(step.dir(), name)?.is_some_and(|stat| file_type(&stat) == FileType::RegularFile))
}

/// Gives the directory `to` owner, mode and attributes of the directory `from`, durably.
pub fn give(from_dir: impl AsFd, from: &[u8], to_dir: impl AsFd, to: &[u8]) -> io::Result<()> {
    let (from, to) = (subdirectory(from_dir, from)?, subdirectory(to_dir, to)?);
    let stat = rustix::fs::fstat(&from)?;
    fault::point(Point::SetMetadata)?;
    rustix::fs::fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    xattr::make_equal(&to, &xattr::read(&from)?)?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    crate::act::sync_dir(&to)
}

/// Whether two directories have the same owner, mode and attributes.
pub fn are_same(one_dir: impl AsFd, one: &[u8], other_dir: impl AsFd, other: &[u8]) -> io::Result<bool> {
    let of = |dir: OwnedFd| -> io::Result<(u32, u32, u32, Xattrs)> {
        let stat = rustix::fs::fstat(&dir)?;
        Ok((stat.st_uid, stat.st_gid, stat.st_mode & 0o7777, xattr::read(&dir)?))
    };
    Ok(of(subdirectory(one_dir, one)?)? == of(subdirectory(other_dir, other)?)?)
}
