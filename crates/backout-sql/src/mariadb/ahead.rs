//! What the rest of an undo does to tables that foreign keys are about. A key stays with the names where a table goes into the
//! hold or comes from there: so rows are held against the table that will have the name, and those of a table that goes
//! are no matter.

use std::collections::{BTreeMap, BTreeSet};

use mysql::Error;

use super::ddl::Change;
use super::ddl_replay::moves_of;
use super::marker::Names;
use super::segment::{Detail, Segment};
use super::session::Session;
use super::table::{ForeignKey, Table};

/// Tables that the segments which are still to be undone bring and take away.
#[derive(Default)]
pub struct Ahead {
    /// By the names that they will have, those that they have now.
    coming: BTreeMap<String, String>,
    /// Those that go into the hold.
    going: BTreeSet<String>,
}

impl Ahead {
    /// `segments`: in the order in which they are undone.
    pub fn of(names: &Names, segments: &[Segment]) -> Self {
        let mut ahead = Self::default();
        // A foreign key follows a table that is renamed: what happens to these names then is about other tables.
        let mut renamed: BTreeSet<String> = BTreeSet::new();
        for segment in segments {
            let Detail::Ddl { change, .. } = &segment.detail else { continue };
            if let Change::Renamed { .. } = &**change {
                renamed.extend(change.names().map(str::to_owned));
                continue;
            }
            for (from, to) in moves_of(names, segment, change, true) {
                if change.names().any(|name| renamed.contains(name)) {
                    continue;
                }
                if change.names().any(|name| name == from) {
                    ahead.coming.remove(&from);
                    ahead.going.insert(from);
                } else {
                    ahead.coming.insert(to, from);
                }
            }
        }
        ahead
    }

    /// Leaves out foreign keys of tables that go. Returns the names that were counted on.
    pub fn leave_out(&self, links: &mut Vec<ForeignKey>, written: &BTreeSet<&str>) -> Vec<String> {
        let mut counted_on = Vec::new();
        links.retain(|link| {
            if !written.contains(link.child.as_str()) && !written.contains(link.parent.as_str()) {
                return true;
            }
            let goes = self.going.contains(&link.child);
            counted_on.extend(goes.then(|| link.child.clone()));
            counted_on.extend(self.coming.get(&link.parent).map(|_| link.parent.clone()));
            !goes
        });
        counted_on
    }

    /// The table, by its name now, that a foreign key will point at.
    pub fn parent(&self, a: &mut Session, link: &ForeignKey) -> Result<String, Error> {
        if let Some(held) = self.coming.get(&link.parent) {
            let table = Table::find(a, held)?;
            if link.referenced.iter().all(|name| table.columns.iter().any(|column| column.name == *name)) {
                return Ok(held.clone());
            }
        }
        Ok(link.parent.clone())
    }
}
