//! Retention: gives up what is kept for undos and redos that are not offered any more, or by the site's own rule not to
//! be. Written down first, so that nobody is offered an undo of which half is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use backout_journal::{DeploymentRow, Reader};
use backout_model::id::{DeploymentId, FramePath};
use backout_model::state::{DeploymentState, Event, FrameState};
use backout_model::words::count;
use backout_package::site::Retention;
use serde::Serialize;
use serde_json::Value;

use crate::act::Act;
use crate::confirm::awaiting;
use crate::deploy::remove_copy;
use crate::error::EngineError;
use crate::history::View;
use crate::outcome::{NOTHING_CHANGED, Outcome, Status};
use crate::records;
use crate::session::Session;
use crate::step::Run;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A deployment of which what is kept can go.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prunable {
    pub id: DeploymentId,
    pub package: String,
    pub version: String,
    pub started_ms: i64,
    pub why: Why,
    /// Children that were passed over, as `retry` takes them: it cannot any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retries: Vec<String>,
    /// Bytes of images in the journal; what roots and databases hold comes on top.
    pub bytes: u64,
    /// The entries whose images are still there.
    #[serde(skip)]
    images: Vec<u64>,
}

/// Why it can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// It failed and was undone.
    Failed,
    GivenUp,
    /// It is undone, and what was deployed since keeps it from being redone.
    NotRedoable,
    /// It was pruned, and some of it is still there.
    Begun,
    /// Its undo or redo is offered, and the retention no longer keeps it.
    Retention,
}

impl Why {
    pub fn words(self) -> &'static str {
        match self {
            Why::Failed => "failed, was undone",
            Why::GivenUp => "was given up",
            Why::NotRedoable => "is undone, can't be redone any more",
            Why::Begun => "was pruned before, but not to the end",
            Why::Retention => "can be undone or redone, but not any more",
        }
    }
}

/// What can go, oldest first.
pub fn prunable(reader: &Reader, now_ms: i64, retention: Retention) -> Result<Vec<Prunable>, EngineError> {
    let rows = reader.deployments()?;
    let waits = awaiting(reader)?.map(|(row, _)| row.id);
    let mut on_offer = 0;
    let mut prunable = Vec::new();
    // Newest first: of two, the older one goes first, so that no undo is offered beneath one that is not.
    for row in &rows {
        let view = View::load(reader, &row.id)?;
        let offered = matches!(
            row.state,
            DeploymentState::Done
                | DeploymentState::PartlyUndone
                | DeploymentState::Undone
                | DeploymentState::NeedsHand
        );
        on_offer += u64::from(offered && !view.pruned);
        let age_ms = now_ms.saturating_sub(row.started_ms);
        let kept = retention.keep.is_some_and(|keep| on_offer <= keep)
            || retention
                .days
                .is_some_and(|days| age_ms < DAY_MS.saturating_mul(i64::try_from(days).unwrap_or(i64::MAX)))
            || retention == Retention::default();
        let why = match row.state {
            _ if waits.as_ref() == Some(&row.id) => None,
            _ if view.pruned => Some(Why::Begun),
            DeploymentState::FailedClean => Some(Why::Failed),
            DeploymentState::GivenUp => Some(Why::GivenUp),
            DeploymentState::Undone if is_cleared(&rows, row, &view) => Some(Why::NotRedoable),
            DeploymentState::Done | DeploymentState::PartlyUndone | DeploymentState::Undone if !kept => {
                Some(Why::Retention)
            }
            _ => None,
        };
        let Some(why) = why else { continue };
        let images = images(reader, &row.id)?;
        if !images.is_empty() || why == Why::Retention {
            prunable.push(Prunable {
                id: row.id.clone(),
                package: row.package.clone(),
                version: row.version.clone(),
                started_ms: row.started_ms,
                why,
                retries: retries(&view),
                bytes: images.values().sum(),
                images: images.into_keys().collect(),
            });
        }
    }
    prunable.reverse();
    Ok(prunable)
}

/// The children of a deployment on the site that `retry` is offered for.
fn retries(view: &View) -> Vec<String> {
    let is_on_site = view.state.is_some_and(DeploymentState::is_on_site) && !view.pruned;
    let passed_over = view.frames.iter().filter(|(_, frame)| is_on_site && frame.state == FrameState::PassedOver);
    passed_over.map(|(path, _)| format!("{}/{path}", view.id)).collect()
}

/// True where a later deployment cleared the stack on which its undo lies.
fn is_cleared(rows: &[DeploymentRow], row: &DeploymentRow, view: &View) -> bool {
    let Some((since, _)) = view.redoable() else { return true };
    rows.iter().any(|other| other.id != row.id && other.state.is_on_site() && other.first_seq > *since)
}

/// The entries of a deployment whose images are still there, with their length in bytes.
pub(crate) fn images(reader: &Reader, id: &DeploymentId) -> Result<BTreeMap<u64, u64>, EngineError> {
    let mut images = BTreeMap::new();
    let mut dropped = BTreeSet::new();
    reader.entries(id, &mut |entry| {
        if let Some(kept) = &entry.images {
            images.insert(entry.seq, kept.bytes);
        }
        if entry.event == Event::ImagesDropped {
            dropped.extend(entry.payload["of"].as_u64());
        }
        ControlFlow::Continue(())
    })?;
    images.retain(|seq, _| !dropped.contains(seq));
    Ok(images)
}

/// Gives up what is kept for the deployments. What cannot be removed now is tried again by the next one.
pub fn prune(session: &mut Session<'_>, prunable: &[Prunable]) -> Result<Outcome, EngineError> {
    let mut left = 0;
    let mut bytes = 0;
    let mut notes = Vec::new();
    for one in prunable {
        let view = View::load(session.journal.reader(), &one.id)?;
        let mut run = Run::new(session, view);
        if !run.view.pruned {
            run.put_durably(Event::DeploymentPruned, &FramePath::root(), None, Value::Null)?;
        }
        let gone = run.forget_images(&one.images)?;
        notes.append(&mut run.notes);
        run.session.journal.drop_images(&gone, one.why.words())?;
        if gone.len() == one.images.len() {
            remove_copy(&mut run);
            records::remove(&run.session.config.state, &one.id)?;
            bytes += one.bytes;
        } else {
            left += 1;
        }
    }
    let closing = match (prunable.len(), left) {
        (0, _) => NOTHING_CHANGED.to_owned(),
        (_, 0) => "Pruned. What was given up cannot be undone, redone or retried any more.".to_owned(),
        (_, left) => format!("Pruned, but for {}: `backout prune` tries again.", count(left, "deployment")),
    };
    let mut outcome = Outcome::new(if left == 0 { Status::Done } else { Status::Partly }, closing);
    notes.sort();
    notes.dedup();
    outcome.notes = notes;
    let pruned = count(prunable.len() as u64, "deployment");
    outcome.answer.push(format!("pruned {pruned}: {}", count(bytes, "byte")));
    Ok(outcome)
}

/// Where the rest lies of what was held for a target that the site no longer names.
fn unreachable(act: &Act) -> String {
    match (act.database(), act.root()) {
        (Some(name), _) => format!(
            "site.yaml no longer names the database `{name}`: what is held in it stays there, in tables whose names begin with `backout`"
        ),
        (None, root) => format!(
            "site.yaml no longer names the root `{}`: what is held for it stays in `.backout-…` beside where it was, or in `holds` of the state directory",
            root.unwrap_or_default()
        ),
    }
}

impl Run<'_, '_> {
    /// Removes what is held for these images, and returns those for which that was done.
    fn forget_images(&mut self, seqs: &[u64]) -> Result<Vec<u64>, EngineError> {
        let mut gone = Vec::new();
        for seq in seqs.iter().copied() {
            let entry = self.session.journal.reader().entry(seq)?;
            let place = entry.and_then(|entry| entry.step.map(|step| (entry.frame, step)));
            let act = place.and_then(|place| self.view.steps.get(&place)).map(|step| step.act().clone());
            let forgotten = match &act {
                None | Some(Act::Run { .. }) => Ok(()),
                // Nobody can reach it any more; to try that each time anew would help nobody.
                Some(act) if self.session.targets.name_all(std::iter::once(act)).is_err() => {
                    self.notes.push(unreachable(act));
                    Ok(())
                }
                Some(act) => {
                    self.images(seq).and_then(|mut images| Ok(self.session.targets.of(act)?.forget(&mut images)?))
                }
            };
            match forgotten {
                Ok(()) => gone.push(seq),
                Err(error) => {
                    let what = act.map(|act| act.words()).unwrap_or_default();
                    let why = error.causes().join(": ");
                    self.session.warn(format!("what was held for {what} of {} stays: {why}", self.view.id));
                }
            }
        }
        Ok(gone)
    }
}
