//! What the databases' markers say against the journal: one that is ahead shows a journal that lacks what was done,
//! one that is behind shows a database that is not the one that it was. Reads only.

use std::collections::BTreeMap;

use backout_journal::Reader;
use backout_model::id::DeploymentId;
use backout_model::state::{DeploymentState, StepState};
use backout_model::target::Finding;

use crate::error::EngineError;
use crate::history::{StepView, View};
use crate::session::Targets;

/// The ways out where a journal lacks what was done.
pub(crate) const AHEAD_HINT: &str = "put the state directory back that belongs to this site; if it is lost, `backout unlock --anew` begins a \
                         new history, and what the lost one did can't be undone any more";

/// The ways out where a database lacks what the journal says was done to it.
pub(crate) const BEHIND_HINT: &str = "put the database back that belongs to this history; or, to go on from what it is now, \
                          `backout unlock --anew` gives up what it lacks, which can't be undone any more";

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

/// A database that does not know of what the journal says was done to it: restored from an older copy, or another one.
pub(crate) struct Behind {
    pub finding: Finding,
    /// The deployments whose changes, or whose undo, it does not know of, the newest first.
    pub deployments: Vec<DeploymentId>,
}

/// The databases that are behind the journal. Reads only what came after their markers.
pub(crate) fn behind(targets: &mut Targets, reader: &Reader) -> Result<Vec<Behind>, EngineError> {
    let mut marks = BTreeMap::new();
    for (name, database) in &mut targets.databases {
        marks.insert(name.clone(), database.last_mark()?);
    }
    let known = |name: &str| marks.get(name).map(|mark| mark.as_ref().map_or(0, |mark| mark.seq));
    let Some(oldest) = marks.keys().filter_map(|name| known(name)).min() else { return Ok(Vec::new()) };
    let mut lacks: BTreeMap<String, Lacks> = BTreeMap::new();
    for row in reader.deployments()?.into_iter().filter(|row| row.last_seq > oldest) {
        if row.state == DeploymentState::GivenUp {
            continue;
        }
        for step in View::load(reader, &row.id)?.steps.values() {
            let Some(database) = step.act().database() else { continue };
            let (Some(seq), Some(known)) = (committed(step), known(database)) else { continue };
            if seq > known {
                let lacks = lacks.entry(database.to_owned()).or_default();
                lacks.add(seq, step, &row.id);
            }
        }
    }
    let behind = lacks.into_iter().filter_map(|(name, lacks)| {
        let label = targets.databases.get(&name)?.label();
        let done = format!("the journal's entry {} changed it ({})", lacks.seq, lacks.step);
        let what = match marks.get(&name)?.as_ref().map(|mark| mark.seq).filter(|seq| *seq > 0) {
            Some(seq) => format!(
                "it was set back, or is another one: its marker knows of no entry after {seq}, and {done}; what was \
                 deployed since can't be undone there"
            ),
            None => format!(
                "it has no marker of this site, and {done}: the marker's table was dropped, or the database was set \
                 back to a time before the first deployment, or is another one, or the site had another name"
            ),
        };
        Some(Behind { finding: Finding { target: label, what, grave: true }, deployments: lacks.deployments })
    });
    Ok(behind.collect())
}

/// The deployments that some database lacks, each with what shows it, by their ids.
pub fn lacking(targets: &mut Targets, reader: &Reader) -> Result<BTreeMap<DeploymentId, Vec<String>>, EngineError> {
    let mut lacking: BTreeMap<DeploymentId, Vec<String>> = BTreeMap::new();
    for Behind { finding, deployments } in behind(targets, reader)? {
        for id in deployments {
            lacking.entry(id).or_default().push(format!("{}: {}", finding.target, finding.what));
        }
    }
    Ok(lacking)
}

/// What a database lacks of the journal.
#[derive(Default)]
struct Lacks {
    /// The last entry whose change it should know, and what that was.
    seq: u64,
    step: String,
    deployments: Vec<DeploymentId>,
}

impl Lacks {
    fn add(&mut self, seq: u64, step: &StepView, id: &DeploymentId) {
        if seq > self.seq {
            self.seq = seq;
            self.step = format!("{} of {id}", step.act().words());
        }
        if self.deployments.last() != Some(id) {
            self.deployments.push(id.clone());
        }
    }
}

/// The last entry that the step's database must know of; none where nothing of it may have come to it.
fn committed(step: &StepView) -> Option<u64> {
    match step.state {
        StepState::Applied => Some(step.seq),
        StepState::Undone => step.undo.as_ref().map(|(seq, _)| *seq),
        // Whether the undo came to it is what a resume finds out; that the step did is known.
        StepState::UndoIntended => Some(step.seq).filter(|_| step.applied_seq > 0),
        // So is what was before a redo.
        StepState::Intended => step.before_redo.as_deref().and_then(committed),
        StepState::Discarded => None,
    }
}
