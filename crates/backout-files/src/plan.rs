//! Says what a step would change, without touching anything.
//!
//! Never stages and never hashes what it need not compare.

use backout_model::target::{PlannedChange, Summary, TargetError, Verdict};
use rustix::fs::{FileType, Stat};

use crate::image::{Image, Kind, file_type};
use crate::item::{Item, Sink};
use crate::path::RootPath;
use crate::rights;
use crate::stage::count;

/// Turns items into planned changes.
pub struct Planner<'a> {
    pub label: &'a str,
    pub each: &'a mut dyn FnMut(PlannedChange),
    pub summary: Summary,
}

impl Sink for Planner<'_> {
    fn wants_images(&self) -> bool {
        false
    }

    fn item(&mut self, item: Item<'_>) -> Result<(), TargetError> {
        let (path, change, undo, bytes) = match item {
            Item::Touch { .. } => return Ok(()),
            Item::Put { path, source, inherit, .. } => {
                rights::possible(self.label, path, source.stat, inherit)?;
                let (what, undo) = match file_type(source.stat) {
                    FileType::Directory => ("make directory", "remove the directory if it holds nothing of others"),
                    FileType::Symlink => ("add link", "remove the link"),
                    _ => ("add", "remove the file"),
                };
                count(&mut self.summary, path, None, None);
                (path, what, undo, size(source.stat))
            }
            Item::Swap { path, source, inherit, before, .. } => {
                rights::possible(self.label, path, source.stat, inherit)?;
                count(&mut self.summary, path, Some(&before), None);
                (path, "replace", "put back the file that was there", before.bytes() + size(source.stat))
            }
            Item::Take { path, before, .. } => {
                count(&mut self.summary, path, Some(&before), None);
                (path, deletion(&before), "put back what was there", before.bytes())
            }
        };
        (self.each)(planned(self.label, change, path, undo, bytes));
        Ok(())
    }
}

/// How a deletion is called.
pub fn deletion(before: &Image) -> &'static str {
    match before.kind {
        Kind::Tree => "delete directory with all it holds",
        Kind::Dir => "delete directory",
        Kind::Link { .. } => "delete link",
        Kind::File { .. } | Kind::Other { .. } => "delete",
    }
}

fn size(stat: &Stat) -> u64 {
    if file_type(stat) == FileType::RegularFile { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 }
}

fn planned(label: &str, change: &str, path: &RootPath, undo: &str, bytes: u64) -> PlannedChange {
    PlannedChange {
        place: label.to_owned(),
        change: format!("{change} {path}"),
        verdict: Verdict::Undoable { undo: undo.to_owned() },
        rows: None,
        bytes: Some(bytes),
        locks: None,
    }
}
