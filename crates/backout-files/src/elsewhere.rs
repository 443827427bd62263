//! Files that the hold keeps of earlier steps and that have, as hard links, another name in the root: a command that
//! writes into that name where it stands writes into what is kept, too.
//!
//! They are found before the command runs. An undo brings another file to the name, with what was in it before; what is
//! kept follows, so that it is that file's second name again, as it was.

use std::collections::HashSet;
use std::io;

use backout_model::target::TargetError;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::FileType;

use crate::act;
use crate::beneath::{Beneath, is_blocked, is_missing};
use crate::error::{Acting, refused};
use crate::hold::{Hold, Step};
use crate::image::{self, Time, file_type, ino};
use crate::local::LocalRoot;
use crate::manifest::{Change, Elsewhere};
use crate::path::RootPath;
use crate::remove::names;

/// A file of more kept names than that is refused: they are written down with each of its changes, in one line.
const MOST: usize = 500;

/// The name in a step's directory under which the other file comes there first.
const BESIDE: &[u8] = b"leading";

/// All kept names of these inodes, but those of the step `own`.
pub fn find(hold: &Hold, own: &str, wanted: &HashSet<u64>, label: &str) -> Result<Vec<Elsewhere>, TargetError> {
    let looking = || format!("cannot look through the hold of {label}");
    let mut found: Vec<Elsewhere> = Vec::new();
    for step in hold.steps()?.iter().filter(|step| step.name() != own) {
        let top = Beneath::new(step.dir().try_clone().acting(looking)?);
        let mut left = vec![RootPath::root()];
        while let Some(above) = left.pop() {
            let dir = top.directory(&above).acting(looking)?;
            let time = Time::of(&rustix::fs::fstat(&dir).acting(looking)?);
            for name in names(&dir).acting(looking)? {
                let Some(stat) = image::stat(&dir, &name).acting(looking)? else { continue };
                match file_type(&stat) {
                    FileType::Directory => left.push(above.join(&name)),
                    FileType::RegularFile if wanted.contains(&ino(&stat)) => {
                        let (ino, step) = (ino(&stat), step.name().to_owned());
                        found.push(Elsewhere { ino, step, place: above.join(&name), time });
                    }
                    _ => {}
                }
            }
        }
    }
    if found.len() > MOST {
        return Err(refused(
            label,
            format!("{} kept files", found.len()),
            "they are hard links of files that the command may write to, too many to be followed",
            "prune earlier deployments, or give the command an `undo:`",
        ));
    }
    Ok(found)
}

impl LocalRoot {
    /// [`LocalRoot::lead`] at a path that was turned before.
    pub(crate) fn lead_at(&self, change: &Change, own: &Step) -> Result<(), TargetError> {
        if change.elsewhere.is_empty() {
            return Ok(());
        }
        match self.root.parent(&change.path) {
            Err(error) if is_missing(&error) || is_blocked(&error) => Ok(()),
            Err(error) => Err(error).acting(|| format!("cannot look at {} in {}", change.path, self.label)),
            Ok(dir) => self.lead(change, own, dir.as_fd()),
        }
    }

    /// Makes what is kept of a file a second name of what the path holds now, where it was one of what it held. To be called
    /// after the path was turned; does nothing where that was done already.
    /// `own`: the step that is turned; what the path held lies there now.
    pub(crate) fn lead(&self, change: &Change, own: &Step, dir: BorrowedFd<'_>) -> Result<(), TargetError> {
        let leading = || format!("cannot lead what is kept of {} in {} after it", change.path, self.label);
        if change.elsewhere.is_empty() || change.copied {
            return Ok(());
        }
        let Some(live) = image::stat(dir, change.path.name()).acting(leading)? else { return Ok(()) };
        let copy = change.before.as_ref().map(|before| before.ino);
        // A later step of its own may have led what is kept to another file, which came here when that was undone.
        let left = own.stat(change.n).acting(leading)?.as_ref().map(ino);
        for (at, kept) in change.elsewhere.iter().enumerate() {
            let former = |ino: u64| ino == kept.ino || [copy, left].contains(&Some(ino));
            // Of two files that change places one is the other's former; any third one is somebody else's.
            if file_type(&live) != FileType::RegularFile || !former(ino(&live)) {
                return Ok(());
            }
            let Some(step) = self.hold.find(&kept.step, None)? else { continue };
            let top = Beneath::new(step.dir().try_clone().acting(leading)?);
            let above = match top.parent(&kept.place) {
                Err(error) if is_missing(&error) => continue,
                other => other.acting(leading)?,
            };
            let Some(stat) = image::stat(&above, kept.place.name()).acting(leading)? else { continue };
            // There while the time of the directory that has the kept name may be another than it was.
            let name = format!("led-{at}").into_bytes();
            let marker = image::stat(step.dir(), &name).acting(leading)?;
            if ino(&stat) != ino(&live) && former(ino(&stat)) {
                if marker.is_none() {
                    act::link(dir, change.path.name(), step.dir(), &name).acting(leading)?;
                }
                link_over(dir, change.path.name(), &step, above.as_fd(), kept.place.name()).acting(leading)?;
            } else if marker.is_none() {
                continue;
            }
            // It is a directory of the root where one is kept as one.
            act::set_dir_time(&above, kept.time).acting(leading)?;
            act::unlink(step.dir(), &name).acting(leading)?;
            act::sync_dir(above).acting(leading)?;
        }
        Ok(())
    }
}

fn link_over(live: BorrowedFd<'_>, name: &[u8], step: &Step, above: BorrowedFd<'_>, kept: &[u8]) -> io::Result<()> {
    match act::unlink(step.dir(), BESIDE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    act::link(live, name, step.dir(), BESIDE)?;
    act::rename_over(step.dir(), BESIDE, above, kept)
}
