//! What others did inside a directory since a step took it away as one and its undo brought it back: its image knows
//! nothing of what it held, but the clock does. Changes nothing.

use backout_model::target::TargetError;
use rustix::fs::FileType;

use crate::beneath::is_missing;
use crate::error::Acting;
use crate::image::{self, Time, file_type};
use crate::local::LocalRoot;
use crate::path::RootPath;
use crate::remove::names;

impl LocalRoot {
    /// One path below a directory that came, went or was changed after the step was `staged` and the tool last moved
    /// anything of the root; none where nobody was there.
    pub(crate) fn changed_within(&self, path: &RootPath, staged: Time) -> Result<Option<RootPath>, TargetError> {
        let since = staged.max(self.hold.last_moved()?);
        let mut open = vec![path.clone()];
        while let Some(path) = open.pop() {
            let looking = || format!("cannot look into {path} in {}", self.label);
            let dir = match self.root.directory(&path) {
                Err(error) if is_missing(&error) => return Ok(Some(path)),
                other => other.acting(looking)?,
            };
            // Whoever adds or removes something gives the directory a new time.
            if Time::of(&rustix::fs::fstat(&dir).acting(looking)?) > since {
                return Ok(Some(path));
            }
            for name in names(&dir).acting(looking)? {
                let Some(stat) = image::stat(&dir, &name).acting(looking)? else { continue };
                let below = path.join(&name);
                if file_type(&stat) == FileType::Directory {
                    open.push(below);
                } else if Time::of_change(&stat) > since {
                    return Ok(Some(below));
                }
            }
        }
        Ok(None)
    }
}
