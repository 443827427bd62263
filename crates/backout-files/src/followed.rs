//! Walks everything in a live root, in one order: each directory before what it holds, names by their bytes. Leaves out
//! `keep` paths and databases; never follows a link and never changes anything.

use std::cmp::Ordering;

use backout_model::target::TargetError;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Stat};

use crate::beneath::subdirectory;
use crate::error::Acting;
use crate::image::{self, file_type};
use crate::local::LocalRoot;
use crate::overlay::device;
use crate::path::RootPath;
use crate::remove::names;

/// Deeper nesting is an error: each level keeps a directory open.
const DEEPEST: usize = 400;

/// A walk under way.
pub struct Walk<'a> {
    root: &'a LocalRoot,
    frames: Vec<Frame>,
    /// The directory that was seen last: entered with the next step.
    entering: Option<(RootPath, OwnedFd)>,
}

struct Frame {
    path: RootPath,
    dir: OwnedFd,
    device: u64,
    names: std::vec::IntoIter<Vec<u8>>,
}

/// One path of the root.
pub struct Seen {
    pub path: RootPath,
    pub stat: Stat,
    /// The device of its directory.
    pub device: u64,
}

impl<'a> Walk<'a> {
    pub fn new(root: &'a LocalRoot) -> Result<Self, TargetError> {
        let top = root.root.directory(&RootPath::root()).acting(|| format!("cannot open {}", root.label))?;
        Ok(Self { root, frames: Vec::new(), entering: Some((RootPath::root(), top)) })
    }

    /// The directory that holds what was seen last.
    pub fn dir(&self) -> Result<&OwnedFd, TargetError> {
        let frame = self.frames.last();
        frame.map(|frame| &frame.dir).ok_or_else(|| TargetError::failed("cannot walk a root", "nothing was seen yet"))
    }

    /// The next path; what vanishes meanwhile was not there.
    pub fn next(&mut self) -> Result<Option<Seen>, TargetError> {
        let label = &self.root.label;
        if let Some((path, dir)) = self.entering.take() {
            let looking = || format!("cannot list {path} in {label}");
            if self.frames.len() >= DEEPEST {
                return Err(TargetError::failed(looking(), "directories are nested too deep"));
            }
            let device = device(&rustix::fs::fstat(&dir).acting(looking)?);
            let names = names(&dir).acting(looking)?.into_iter();
            self.frames.push(Frame { path, dir, device, names });
        }
        while let Some(frame) = self.frames.last_mut() {
            let Some(name) = frame.names.next() else {
                self.frames.pop();
                continue;
            };
            let path = frame.path.join(&name);
            if self.root.keep.covering(&path).is_some() || self.root.besides.contains(&path) {
                continue;
            }
            let looking = || format!("cannot look at {path} in {label}");
            let Some(stat) = image::stat(&frame.dir, &name).acting(looking)? else { continue };
            if file_type(&stat) == FileType::Directory {
                let dir = subdirectory(&frame.dir, &name).acting(looking)?;
                self.entering = Some((path.clone(), dir));
            }
            return Ok(Some(Seen { path, stat, device: frame.device }));
        }
        Ok(None)
    }
}

/// The order of the walk.
pub fn order(one: &RootPath, other: &RootPath) -> Ordering {
    let parts = |path: &RootPath| path.as_bytes().split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
    parts(one).cmp(&parts(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_comes_before_what_it_holds_and_that_before_its_siblings() {
        let path = |text: &str| RootPath::parse(text, "").unwrap();
        let mut paths = ["b", "a.b", "a/x", "a", "a/b/c"].map(path);
        paths.sort_by(order);
        assert_eq!(paths.map(|path| path.to_string()), ["a", "a/b/c", "a/x", "a.b", "b"]);
    }
}
