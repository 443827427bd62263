//! Conflicts in the names that people know: while one table replaces another, one of the two has a name of its own.

use std::collections::HashSet;

use backout_model::conflict::{ConflictKind, Conflicts};

use super::courses::Track;

/// Names tables as they are named outside the step, and says once what is then said twice.
pub fn as_known(conflicts: &mut Conflicts, label: &str, track: &Track) {
    if track.pairs.is_empty() {
        return;
    }
    // What appeared under such a name has it.
    let ours = conflicts.listed.iter_mut().filter(|one| one.target == label && one.kind != ConflictKind::Appeared);
    for one in ours {
        let (kind, name) = match one.object.strip_prefix("table ") {
            Some(name) => ("table ", name),
            None => ("", one.object.as_str()),
        };
        if let Some(known) = track.known_as_a_whole(name).filter(|known| !known.eq_ignore_ascii_case(name)) {
            one.object = format!("{kind}{known}");
        }
    }
    let before = conflicts.listed.len();
    let mut told = HashSet::new();
    conflicts.listed.retain(|one| {
        one.kind != ConflictKind::Definition
            || told.insert((one.target.clone(), one.object.clone(), one.column.clone()))
    });
    conflicts.total -= (before - conflicts.listed.len()) as u64;
}
