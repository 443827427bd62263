//! Looks at live paths for undo, redo and inspection, and makes directories that an overwriting undo needs.
//!
//! Never follows a link.

use crate::act;
use crate::beneath::{is_blocked, is_missing, subdirectory};
use crate::error::Acting;
use crate::holding;
use crate::image::{self, Image, Kind, Time};
use crate::judge::Now;
use crate::local::LocalRoot;
use crate::manifest::Change;
use crate::path::RootPath;
use crate::rights;
use backout_model::entry::Digest;
use backout_model::target::TargetError;

impl LocalRoot {
    /// What the path of a change holds, hashed only where its size is one of those that count.
    pub(crate) fn now(&self, change: &Change) -> Result<Now, TargetError> {
        let looking = || format!("cannot look at {} in {}", change.path, self.label);
        let dir = match self.root.parent(&change.path) {
            Ok(dir) => dir,
            Err(error) if is_missing(&error) => return Ok(Now::NoDirectory),
            Err(error) if is_blocked(&error) => return Ok(Now::Blocked),
            Err(error) => return Err(error).acting(looking),
        };
        let mut found = image::look(&dir, change.path.name(), |size| worth_hashing(change, size)).acting(looking)?;
        if let Some(found) = found.as_mut().filter(|found| found.is_dir() && takes_what_it_holds(change)) {
            found.held = Some(self.held_by(&change.path)?);
        }
        Ok(found.map_or(Now::Absent, Now::Holds))
    }

    /// What is going to be overwritten; a directory goes with all it holds.
    pub(crate) fn whole_image(&self, path: &RootPath) -> Result<Option<Image>, TargetError> {
        let looking = || format!("cannot look at {path} in {}", self.label);
        let found = match self.root.parent(path) {
            Ok(dir) => image::take(&dir, path.name()).acting(looking)?,
            Err(error) if is_missing(&error) => None,
            Err(error) => return Err(error).acting(looking),
        };
        match found {
            Some(found) if found.is_dir() => {
                Ok(Some(Image { kind: Kind::Tree, held: Some(self.held_by(path)?), ..found }))
            }
            found => Ok(found),
        }
    }

    fn held_by(&self, path: &RootPath) -> Result<Digest, TargetError> {
        let looking = || format!("cannot look at what {path} in {} holds", self.label);
        holding::digest(self.root.directory(path).acting(looking)?).acting(looking)
    }

    /// The time of a directory; none where it is missing.
    pub(crate) fn time_of(&self, path: &RootPath) -> Result<Option<Time>, TargetError> {
        let looking = || format!("cannot look at {path} in {}", self.label);
        match self.root.directory(path) {
            Ok(dir) => Ok(Some(Time::of(&rustix::fs::fstat(&dir).acting(looking)?))),
            Err(error) if is_missing(&error) || is_blocked(&error) => Ok(None),
            Err(error) => Err(error).acting(looking),
        }
    }

    /// Makes the directories that a path needs, with the owner of what is there and mode 0755: what they were before
    /// somebody removed them is not known.
    pub(crate) fn make_parents(&self, path: &RootPath) -> Result<rustix::fd::OwnedFd, TargetError> {
        let making = || format!("cannot make the directories of {path} in {}", self.label);
        let mut at = self.root.directory(&RootPath::root()).acting(making)?;
        let parent = path.parent();
        for name in parent.as_bytes().split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            at = match subdirectory(&at, name) {
                Err(error) if is_missing(&error) => {
                    act::make_dir(&at, name, 0o755).acting(making)?;
                    let made = subdirectory(&at, name).acting(making)?;
                    rights::like(&made, &at).acting(making)?;
                    made
                }
                other => other.acting(making)?,
            };
        }
        Ok(at)
    }
}

/// True where a redo takes a directory as one.
fn takes_what_it_holds(change: &Change) -> bool {
    change.before.as_ref().is_some_and(|before| before.held.is_some())
}

/// True where a file of that size may be one of the images of a change.
pub fn worth_hashing(change: &Change, size: u64) -> bool {
    [&change.before, &change.after]
        .into_iter()
        .flatten()
        .any(|image| matches!(image.kind, Kind::File { size: known, .. } if known == size))
}
