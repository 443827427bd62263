//! What the databases' markers say against the journal: one that is ahead shows a journal that lacks what was done,
//! one that is behind shows a database that is not the one that it was. Reads only.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use backout_journal::Reader;
use backout_model::state::StepState;
use backout_model::target::Finding;

use crate::act::Act;
use crate::error::EngineError;
use crate::history::{StepView, View};
use crate::session::Targets;

/// The ways out where a journal lacks what was done.
pub(crate) const AHEAD_HINT: &str = "put the state directory back that belongs to this site; if it is lost, `backout unlock --anew` begins a \
                         new history, and what the lost one did can't be undone any more";

/// Databases that were last changed by an entry which the journal, whose last is `last_seq`, does not have: the state
/// directory is an older copy of itself, or another one.
pub(crate) fn ahead(targets: &mut Targets, last_seq: u64) -> Result<Vec<Finding>, EngineError> {
    let mut findings = Vec::new();
    for database in targets.databases.values_mut() {
        let Some(mark) = database.last_mark()?.filter(|mark| mark.seq > last_seq) else { continue };
        let what = format!(
            "it was last changed by entry {} of a journal, and the one in the state directory ends at {last_seq}",
            mark.seq
        );
        findings.push(Finding { target: database.label(), what, grave: true });
    }
    Ok(findings)
}

/// Databases that do not know of what the journal says was done to them: restored from an older copy, or others.
pub(crate) fn behind(targets: &mut Targets, reader: &Reader) -> Result<Vec<Finding>, EngineError> {
    let mut findings = Vec::new();
    for (name, (seq, step)) in last_done(targets, reader)? {
        let Some(database) = targets.databases.get_mut(&name) else { continue };
        let mark = database.last_mark()?;
        let done = format!("the journal's entry {seq} changed it ({step})");
        let what = match mark {
            Some(mark) if mark.seq >= seq => continue,
            Some(mark) => format!(
                "it was set back, or is another one: its marker knows of no entry after {}, and {done}; what was \
                 deployed since can't be undone there",
                mark.seq
            ),
            None => format!(
                "it has no marker of this site, and {done}: the marker's table was dropped, or the database was set \
                 back to a time before the first deployment, or is another one"
            ),
        };
        findings.push(Finding { target: database.label(), what, grave: true });
    }
    Ok(findings)
}

/// The last entry whose change each database committed, and what that was.
fn last_done(targets: &Targets, reader: &Reader) -> Result<BTreeMap<String, (u64, String)>, EngineError> {
    let mut done: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut rows = reader.deployments()?;
    rows.sort_by_key(|row| Reverse(row.last_seq));
    for row in rows {
        // What is left to read is older than what is known of every database.
        if targets.databases.keys().all(|name| done.get(name).is_some_and(|(seq, _)| *seq > row.last_seq)) {
            break;
        }
        let view = View::load(reader, &row.id)?;
        for step in view.steps.values() {
            let Act::Sql { database, .. } = step.act() else { continue };
            let Some(seq) = committed(step) else { continue };
            if done.get(database).is_none_or(|(known, _)| *known < seq) {
                done.insert(database.clone(), (seq, format!("{} of {}", step.act().words(), row.id)));
            }
        }
    }
    Ok(done)
}

/// The entry that the step's database must know of; none where it may not have come to it.
fn committed(step: &StepView) -> Option<u64> {
    match step.state {
        StepState::Applied => Some(step.seq),
        StepState::Undone => step.undo.as_ref().map(|(seq, _)| *seq),
        StepState::Intended | StepState::Discarded | StepState::UndoIntended => None,
    }
}
