//! What undoing later steps will have done to a root, while it is looked at whether the earlier ones can be undone behind
//! them. Changes nothing.

use std::collections::HashMap;

use backout_model::target::TargetError;

use crate::beneath::{Beneath, is_blocked, is_missing, subdirectory};
use crate::error::Acting;
use crate::hold::Step;
use crate::image::{self, Image, Kind};
use crate::judge::Now;
use crate::local::LocalRoot;
use crate::look::worth_hashing;
use crate::manifest::Change;
use crate::path::RootPath;
use crate::remove::names;

/// What undoing later steps will have done to the paths they touch.
#[derive(Default)]
pub struct Ahead {
    pub paths: HashMap<RootPath, Coming>,
    /// How many of those paths, which will hold something, are in a directory.
    filled: HashMap<RootPath, u64>,
}

/// What a path will hold.
pub enum Coming {
    Nothing,
    /// A file or link, or a directory whose entries stand here by themselves.
    This(Image),
    /// A directory that comes back as one, and where it lies in the hold until then.
    Tree(Image, Step, u64),
    /// A directory that stays with all it holds, and only has other rights.
    Stays(Image),
}

impl Ahead {
    /// Notes that the path of a change goes back to what was before.
    pub fn note(
        &mut self,
        change: &Change,
        step: impl FnOnce() -> Result<Option<Step>, TargetError>,
    ) -> Result<(), TargetError> {
        if let (Some(before), Some(after)) = (&change.before, &change.after)
            && before.kind == Kind::Dir
            && after.kind == Kind::Dir
        {
            match self.paths.get_mut(&change.path) {
                Some(Coming::This(image) | Coming::Tree(image, ..) | Coming::Stays(image)) => *image = before.clone(),
                _ => drop(self.paths.insert(change.path.clone(), Coming::Stays(before.clone()))),
            }
            return Ok(());
        }
        let counts = |old: &Coming| !matches!(old, Coming::Nothing | Coming::Stays(_));
        if self.paths.get(&change.path).is_some_and(counts) {
            *self.filled.entry(change.path.parent()).or_default() -= 1;
        }
        let coming = match &change.before {
            None => Coming::Nothing,
            Some(before) if before.kind == Kind::Tree => {
                // Whatever later steps did inside was done to another directory of that name.
                self.paths.retain(|path, _| !change.path.contains(path));
                self.filled.retain(|path, _| !change.path.contains(path));
                match step()? {
                    Some(step) => Coming::Tree(before.clone(), step, change.n),
                    None => Coming::This(before.clone()),
                }
            }
            Some(before) => Coming::This(before.clone()),
        };
        *self.filled.entry(change.path.parent()).or_default() += u64::from(!matches!(coming, Coming::Nothing));
        self.paths.insert(change.path.clone(), coming);
        Ok(())
    }

    /// The nearest directory above that is going to be something else than it is now.
    fn above(&self, path: &RootPath) -> Option<(RootPath, &Coming)> {
        let mut dir = path.parent();
        while !dir.is_root() {
            match self.paths.get(&dir) {
                None | Some(Coming::Stays(_)) => {}
                Some(coming) => return Some((dir, coming)),
            }
            dir = dir.parent();
        }
        None
    }
}

impl LocalRoot {
    /// What a path will hold once the steps looked at so far are undone.
    pub(crate) fn now_ahead(&self, change: &Change, ahead: &Ahead) -> Result<Now, TargetError> {
        match ahead.paths.get(&change.path) {
            None => {}
            Some(Coming::Nothing) => return Ok(Now::Absent),
            Some(Coming::This(image) | Coming::Tree(image, ..) | Coming::Stays(image)) => {
                return Ok(Now::Holds(image.clone()));
            }
        }
        match ahead.above(&change.path) {
            None => self.now(change),
            Some((_, Coming::Nothing | Coming::Stays(_))) => Ok(Now::NoDirectory),
            Some((dir, Coming::This(image))) if image.is_dir() => {
                Ok(if dir == change.path.parent() { Now::Absent } else { Now::NoDirectory })
            }
            Some((_, Coming::This(_))) => Ok(Now::Blocked),
            Some((dir, Coming::Tree(_, step, n))) => {
                let looking = || format!("cannot look at {} in the hold of {}", change.path, self.label);
                let Some(below) = change.path.beneath(&dir) else { return Ok(Now::Absent) };
                let kept = Beneath::new(subdirectory(step.dir(), n.to_string().as_bytes()).acting(looking)?);
                match kept.parent(&below) {
                    Ok(parent) => {
                        let worth = |size| worth_hashing(change, size);
                        let found = image::look(&parent, below.name(), worth).acting(looking)?;
                        Ok(found.map_or(Now::Absent, Now::Holds))
                    }
                    Err(error) if is_missing(&error) => Ok(Now::NoDirectory),
                    Err(error) if is_blocked(&error) => Ok(Now::Blocked),
                    Err(error) => Err(error).acting(looking),
                }
            }
        }
    }

    /// The names in a directory as it is now.
    pub(crate) fn entries(&self, dir: &RootPath) -> Result<Vec<Vec<u8>>, TargetError> {
        let listing = || format!("cannot list {dir} in {}", self.label);
        names(&self.root.directory(dir).acting(listing)?).acting(listing)
    }

    /// Whether a directory will hold anything once the steps looked at so far are undone.
    pub(crate) fn stays_filled(&self, dir: &RootPath, ahead: &Ahead) -> Result<bool, TargetError> {
        if ahead.filled.get(dir).is_some_and(|filled| *filled > 0) {
            return Ok(true);
        }
        let listing = || format!("cannot list {dir} in {}", self.label);
        let held = |below: &RootPath, step: &Step, n: u64| {
            Beneath::new(subdirectory(step.dir(), n.to_string().as_bytes())?).directory(below)
        };
        let found = match (ahead.paths.get(dir), ahead.above(dir)) {
            (Some(Coming::Tree(_, step, n)), _) => held(&RootPath::root(), step, *n),
            (None, Some((above, Coming::Tree(_, step, n)))) => match dir.beneath(&above) {
                Some(below) => held(&below, step, *n),
                None => return Ok(false),
            },
            (None | Some(Coming::Stays(_)), None) => self.root.directory(dir),
            // It comes back empty, or is in one that does.
            (Some(_), _) | (None, Some(_)) => return Ok(false),
        };
        let names = names(&found.acting(listing)?).acting(listing)?;
        let goes = |name: &Vec<u8>| matches!(ahead.paths.get(&dir.join(name)), Some(Coming::Nothing));
        Ok(!names.iter().all(goes))
    }
}
