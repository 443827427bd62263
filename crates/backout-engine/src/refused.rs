//! An undo that is refused: in words, with what is in its way and the ways out. Changes nothing.

use std::collections::BTreeSet;

use backout_model::conflict::{ConflictKind, Conflicts, OnConflict};
use backout_model::id::FramePath;

use crate::later::{Overlap, is_needed};
use crate::outcome::{NOTHING_CHANGED, Outcome, Status};
use crate::step::Run;
use crate::undo::{Foreseen, name_of_part};

/// An undo that is not begun, or was put back: what is in its way, and the ways out.
pub(crate) fn refused(
    run: &mut Run<'_, '_>,
    conflicts: Conflicts,
    mut overlaps: Vec<Overlap>,
    part: &FramePath,
    on_conflict: OnConflict,
) -> Outcome {
    let id = name_of_part(&run.view, part);
    let mut outcome = Outcome::new(Status::Refused, NOTHING_CHANGED);
    outcome.deployment = Some(run.view.id.clone());
    outcome.causes = vec![format!("{} cannot be undone: {conflicts} with changes made since", run.view.name_of(part))];
    let required = conflicts.listed.iter().filter(|conflict| conflict.kind == ConflictKind::RequiredBy);
    let by: BTreeSet<&str> = required.map(|conflict| conflict.now.as_str()).collect();
    let (mut keeps, mut overwrites) = possible(on_conflict);
    // Nothing is offered that is refused then.
    let is_first = on_conflict == OnConflict::Stop && !run.view.steps_to_undo(part).is_empty();
    if by.is_empty() && overlaps.is_empty() && is_first {
        (overwrites, overlaps) = run.could(part, OnConflict::Overwrite);
        keeps = !overlaps.is_empty() || run.could(part, OnConflict::Keep).0;
    }
    outcome.hints = match by.into_iter().map(str::to_owned).reduce(|one, other| format!("{one}, {other}")) {
        Some(by) => {
            let first = format!("undo first what requires it: {by}");
            let anyway = format!("backout undo {id} --on-conflict overwrite  undoes it all the same");
            if conflicts.listed.iter().any(is_needed) { vec![first] } else { vec![first, anyway] }
        }
        None if run.view.steps_to_undo(part).is_empty() || run.view.left_before(part).total == conflicts.total => {
            ways_out_undecided(&id)
        }
        None if !overlaps.is_empty() => {
            let first: BTreeSet<&str> = overlaps.iter().map(|overlap| overlap.of.as_str()).collect();
            let first: Vec<&str> = first.into_iter().collect();
            vec![format!("undo first what came later and changed the same: {}", first.join(", ")), keeping(&id)]
        }
        None => ways_out(&id, (keeps, overwrites)),
    };
    outcome.conflicts_total = conflicts.total;
    outcome.conflicts = conflicts.listed;
    outcome.notes = overlaps.iter().map(Overlap::to_string).collect();
    outcome
}

/// What an automatic undo left cannot be overwritten afterwards: the steps before it went back since, and to undo this
/// one once more would undo what they put there.
pub(crate) fn too_late(run: &Run<'_, '_>, undecided: Conflicts, part: &FramePath) -> Outcome {
    let mut outcome = Outcome::new(Status::Refused, NOTHING_CHANGED);
    outcome.deployment = Some(run.view.id.clone());
    outcome.causes =
        vec![format!("{} is undone but for {undecided}, which nothing can overwrite any more", run.view.name_of(part))];
    outcome.hints = ways_out_undecided(&name_of_part(&run.view, part));
    outcome.conflicts_total = undecided.total;
    outcome.conflicts = undecided.listed;
    outcome
}

fn ways_out_undecided(id: &str) -> Vec<String> {
    vec![
        "put back by hand what is listed as `was`, where that is what the site needs".to_owned(),
        format!("backout undo {id} --on-conflict keep  then leaves what is there"),
    ]
}

fn keeping(id: &str) -> String {
    format!("backout undo {id} --on-conflict keep       leaves the newer values")
}

/// Whether `keep` and `overwrite` are left to try, where an undo of that manner was of no avail.
pub(crate) fn possible(tried: OnConflict) -> (bool, bool) {
    (tried != OnConflict::Keep, tried != OnConflict::Overwrite)
}

/// What to do about conflicts with changes made since, where `keep` would do or not, and `overwrite`.
pub(crate) fn ways_out(id: &str, (keeps, overwrites): (bool, bool)) -> Vec<String> {
    let overwriting = format!("backout undo {id} --on-conflict overwrite  brings the old ones back all the same");
    let aside = "put aside by hand what is in the way, and undo it then".to_owned();
    let mut ways = Vec::new();
    ways.extend((!overwrites).then_some(aside));
    ways.extend(keeps.then(|| keeping(id)));
    ways.extend(overwrites.then_some(overwriting));
    ways
}

impl Run<'_, '_> {
    /// Whether an undo in that manner would do, and the later steps that are in its way.
    fn could(&mut self, part: &FramePath, manner: OnConflict) -> (bool, Vec<Overlap>) {
        let later = self.later_steps(part).unwrap_or_default();
        let Ok(foreseen) = self.conflicts_of_undo_fully(part, manner, &later) else {
            return (false, Vec::new());
        };
        let Foreseen { conflicts, of_later, mut overlaps, is_impossible } = foreseen;
        for needed in conflicts.listed.iter().filter(|conflict| is_needed(conflict)) {
            overlaps.push(Overlap::of(needed));
        }
        (!is_impossible && of_later.is_empty() && overlaps.is_empty(), overlaps)
    }
}
