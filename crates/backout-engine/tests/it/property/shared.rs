//! The model of what two steps both changed: an undo of the earlier one does not take it away while the later one stays.

use std::collections::BTreeSet;

use super::history::Done;
use super::world::{Effect, Found, Part, Way};

/// What of a row or path: its columns, or none for the whole.
type Changed = Option<BTreeSet<String>>;

/// Whether two steps share what an undo of the first would change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shared {
    No,
    /// Only where what was changed back counts, or what was changed as a whole table.
    Perhaps,
    Surely,
}

/// What an effect changed, net, each in the words with which a conflict about it begins.
fn changes(effect: &Effect) -> Vec<(String, Changed)> {
    let mut all = Vec::new();
    for part in &effect.parts {
        match part {
            Part::Rows(ways) => {
                for ((table, key), way) in ways {
                    let columns = match way {
                        Way { before: Some(before), after: Some(after) } => {
                            let differs = |column: &&String| before[*column] != after[*column];
                            Some(before.keys().filter(differs).cloned().collect())
                        }
                        Way { before: None, after: None } => continue,
                        Way { .. } => None,
                    };
                    all.push((format!("{table} {key:?}"), columns));
                }
            }
            Part::Files(ways) => {
                all.extend(ways.iter().filter(|(_, way)| way.before != way.after).map(|(path, way)| {
                    let columns = match way {
                        Way { before: Some(before), after: Some(after) } => {
                            Some(super::world::differing(before, after))
                        }
                        Way { .. } => None,
                    };
                    (path.clone(), columns)
                }))
            }
            _ => {}
        }
    }
    all
}

/// Takes out what an undo leaves as it is, since others made it so.
fn without(found: &Found, what: &str, columns: &Changed) -> Option<Changed> {
    let told = found.conflicts.iter().chain(&found.left).chain(&found.lost).chain(&found.filled);
    let told: BTreeSet<&str> = told.filter_map(|told| told.strip_prefix(what)).map(str::trim_start).collect();
    match columns {
        _ if told.is_empty() => Some(columns.clone()),
        None => None,
        Some(columns) => {
            let rest: BTreeSet<String> =
                columns.iter().filter(|column| !told.contains(column.as_str())).cloned().collect();
            let is_whole = told.iter().any(|told| !columns.contains(*told));
            (!is_whole && !rest.is_empty()).then_some(Some(rest))
        }
    }
}

fn overlap(one: &Changed, other: &Changed) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => !one.is_disjoint(other),
        (Some(some), None) | (None, Some(some)) => !some.is_empty(),
        (None, None) => true,
    }
}

/// What the undo of a step would change although a later one changed it, too. `is_told`: whether what begins with the name
/// of a table, or is a path, is told row by row.
pub fn shared(own: &Done, later: &Done, found: &Found, is_told: &dyn Fn(&str) -> bool) -> Shared {
    if later.order <= own.order {
        return Shared::No;
    }
    let theirs = changes(&later.effect);
    let surely = changes(&own.effect).into_iter().filter(|(what, _)| is_told(what)).any(|(what, columns)| {
        let rest = without(found, &what, &columns);
        rest.is_some_and(|rest| theirs.iter().any(|(other, changed)| *other == what && overlap(&rest, changed)))
    });
    let perhaps = || !own.effect.touched.is_disjoint(&later.effect.touched);
    match surely {
        true => Shared::Surely,
        false if perhaps() => Shared::Perhaps,
        false => Shared::No,
    }
}
