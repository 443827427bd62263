//! Paths that were gone when a step was to take them away: an earlier step of the same deployment, which had the one before it
//! taken away, must not bring that back unsaid.

use std::collections::BTreeSet;

use backout_model::conflict::{Conflict, ConflictKind};
use backout_model::target::TargetError;

use crate::beneath::{Beneath, is_blocked, is_missing};
use crate::error::Acting;
use crate::hold::Step;
use crate::image::{self, Kind, shown};
use crate::manifest::Change;
use crate::path::RootPath;

/// What was gone so far.
#[derive(Clone, Debug, Default)]
pub struct Gone(BTreeSet<RootPath>);

impl Gone {
    /// A path that an undo found as it was to be, which is: with nothing there.
    pub fn note(&mut self, change: &Change) {
        if change.before.is_none() && change.after.is_some() {
            self.0.insert(change.path.clone());
        }
    }

    /// That the undo of a change would bring back what others took away: the path itself, or one in a directory that comes back as one.
    pub fn conflict(&self, label: &str, change: &Change, hold: Option<&Step>) -> Result<Option<Conflict>, TargetError> {
        let (None, Some(to)) = (&change.after, &change.before) else { return Ok(None) };
        let inside = |path: &&RootPath| to.kind == Kind::Tree && change.path.contains(path);
        let mut object = self.0.get(&change.path).cloned();
        for path in self.0.iter().filter(inside) {
            if object.is_none() && comes_with(change, path, hold)? {
                object = Some(path.clone());
            }
        }
        Ok(object.map(|object| Conflict {
            target: label.to_owned(),
            object: object.to_string(),
            key: None,
            column: None,
            kind: ConflictKind::Missing,
            before: shown(Some(to)),
            left: "what a later step had put there".to_owned(),
            now: "nothing".to_owned(),
        }))
    }
}

/// Whether a directory that is kept as one has a path.
fn comes_with(change: &Change, path: &RootPath, hold: Option<&Step>) -> Result<bool, TargetError> {
    let (Some(step), Some(below)) = (hold, path.beneath(&change.path)) else { return Ok(false) };
    let looking = || format!("cannot look at {path} in the hold");
    let top = Beneath::new(step.dir().try_clone().acting(looking)?);
    let at = below.as_bytes().split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    let kept = at.fold(RootPath::root().join(change.n.to_string().as_bytes()), |at, name| at.join(name));
    match top.parent(&kept) {
        Ok(dir) => Ok(image::stat(&dir, kept.name()).acting(looking)?.is_some()),
        Err(error) if is_missing(&error) || is_blocked(&error) => Ok(false),
        Err(error) => Err(error).acting(looking),
    }
}
