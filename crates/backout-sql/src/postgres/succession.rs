//! Tables that take the place of others over several steps, or beside the old one: made, filled, and given the name that
//! another one gave up. Their rows are not carried over; so a row that others deleted from the new table must not come back
//! with the old one unsaid. For a rebuild within one step see [`super::rebuild`], which knows the rows.

use std::collections::{HashMap, HashSet};

use super::catalog::Kind;
use super::ddl::DdlEvent;
use super::table::plain;

/// What an undo learns of the tables of a deployment, going back event by event. Names as people are shown them.
#[derive(Clone, Debug, Default)]
pub struct Succession {
    /// What became of a table of that name, at the place where the undo is.
    finals: HashMap<String, String>,
    /// Names that tables gave up, each with what that table is called in the end; none where it was dropped.
    given_up: HashSet<(String, Option<String>)>,
    /// The tables that were made: what each is called in the end, and all its names.
    made: Vec<(String, HashSet<String>)>,
}

impl Succession {
    /// An event was undone.
    pub fn note(&mut self, event: &DdlEvent) {
        for change in &event.changes {
            let name = |object: &Option<super::catalog::Object>| {
                object.as_ref().filter(|object| object.kind == Kind::Table).map(|object| plain(object.id()))
            };
            match (name(&change.before), name(&change.after)) {
                (Some(before), None) if change.after.is_none() => drop(self.given_up.insert((before, None))),
                (Some(before), Some(after)) if before != after => {
                    let last = self.finals.get(&after).cloned().unwrap_or(after);
                    self.given_up.insert((before.clone(), Some(last.clone())));
                    self.finals.insert(before, last);
                }
                (None, Some(after)) if change.before.is_none() => {
                    let last = self.finals.get(&after).cloned().unwrap_or_else(|| after.clone());
                    let earlier = self.finals.iter().filter(|(_, to)| **to == last).map(|(from, _)| from.clone());
                    let names = earlier.chain([last.clone(), after]).collect();
                    self.made.push((last, names));
                }
                _ => {}
            }
        }
    }

    /// The tables that were made and have had a name that another one gave up: by their last names, with all of them.
    pub fn replacing(&self) -> impl Iterator<Item = &(String, HashSet<String>)> {
        self.made.iter().filter(|(last, names)| {
            self.given_up.iter().any(|(name, of)| names.contains(name) && of.as_ref() != Some(last))
        })
    }
}
