//! What the rest of an undo does to tables that foreign keys are about. A key stays with the names where a table goes into the
//! hold or comes from there: so rows are held against the table that will have the name, and those of a table that goes
//! are no matter.

use std::collections::{BTreeMap, BTreeSet};

use mysql::Error;

use super::ddl::Change;
use super::ddl_replay::moves_of;
use super::marker::Names;
use super::segment::{Detail, Segment};
use super::session::{Session, ident};
use super::table::{ForeignKey, Side, Table};

/// Tables that the segments which are still to be undone bring and take away.
#[derive(Default)]
pub struct Ahead {
    /// By the names that they will have, those that they have now.
    coming: BTreeMap<String, String>,
    /// Those that go into the hold.
    going: BTreeSet<String>,
    /// Rows that go and come, by their tables: in the order in which that happens, what goes and what comes.
    rows: BTreeMap<String, Vec<(Table, String, String)>>,
}

impl Ahead {
    /// `segments`: in the order in which they are undone.
    pub fn of(names: &Names, segments: &[Segment]) -> Self {
        let mut ahead = Self::default();
        // A foreign key follows a table that is renamed: what happens to these names then is about other tables.
        let mut renamed: BTreeSet<String> = BTreeSet::new();
        for segment in segments {
            for held in segment.held().iter().filter(|held| !renamed.contains(&held.table.name)) {
                let [goes, comes] = ["a", "b"].map(|side| segment.object(names, &format!("{}{side}", held.at)));
                let rows = ahead.rows.entry(held.table.name.clone()).or_default();
                rows.push((held.table.clone(), goes, comes));
            }
            let Detail::Ddl { change, .. } = &segment.detail else { continue };
            if let Change::Renamed { .. } = &**change {
                renamed.extend(change.names().map(str::to_owned));
                continue;
            }
            for (from, to) in moves_of(names, segment, change, true) {
                change.names().for_each(|name| drop(ahead.rows.remove(name)));
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

    /// The condition that a row `c` will have what it points at by its primary key, where rows are still to come. Where others
    /// have one under the same key instead, it points at that.
    pub fn comes(&self, link: &ForeignKey) -> Option<String> {
        let here = link.points_at(&link.parent) && !self.coming.contains_key(&link.parent);
        let rows = self.rows.get(&link.parent).filter(|_| here)?;
        let mut condition = "FALSE".to_owned();
        for (table, goes, comes) in rows {
            let key: BTreeSet<&str> = table.key.iter().map(|at| table.columns[*at].name.as_str()).collect();
            if key != link.referenced.iter().map(String::as_str).collect() {
                return None;
            }
            let at = |name: &String| table.columns.iter().position(|column| column.name == *name);
            let pairs = link.columns.iter().zip(link.referenced.iter().filter_map(at));
            let on: Vec<String> =
                pairs.map(|(own, at)| format!("c.{} = {}", ident(own), Side::Held("h").column(table, at))).collect();
            let held = |hold: &str| format!("EXISTS (SELECT 1 FROM `{hold}` AS h WHERE {})", on.join(" AND "));
            // One that is in both only changes, where it is still there.
            let (goes, comes) = (held(goes), held(comes));
            condition = format!("({condition} AND (NOT {goes} OR {comes}) OR {comes} AND NOT {goes})");
        }
        Some(condition)
    }

    /// The table, by its name now and in quotes, that a foreign key will point at.
    pub fn parent(&self, a: &mut Session, link: &ForeignKey) -> Result<String, Error> {
        if let Some(database) = &link.elsewhere[1] {
            return Ok(format!("{}.{}", ident(database), ident(&link.parent)));
        }
        if let Some(held) = self.coming.get(&link.parent) {
            let table = Table::find(a, held)?;
            if link.referenced.iter().all(|name| table.columns.iter().any(|column| column.name == *name)) {
                return Ok(ident(held));
            }
        }
        Ok(ident(&link.parent))
    }
}
