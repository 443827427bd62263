//! Staging: a draft is checked, gets its number, time and place in the chain, and moves the states - in memory, and
//! so that all of it can be taken back. Never touches the disk but to read.

use backout_model::entry::{Digest, Draft, Entry, ImagesRef};
use backout_model::id::DeploymentId;
use backout_model::state::{DeploymentState, Event, Scope};
use serde_json::Value;

use crate::error::JournalError;
use crate::images::Content;
use crate::journal::Journal;
use crate::reader;
use crate::row::DeploymentRow;
use crate::states::{Moved, Moving, States, name};
use crate::stored::digest_of;

/// The longest entry that is taken; payloads are meant to be small, images are where bytes go.
pub(crate) const ENTRY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How many deployments' states are kept in memory besides those under way.
const LIVE_MAX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub seq: u64,
    pub digest: Digest,
    pub time_ms: i64,
    pub epoch: u64,
}

/// A deployment as the writer sees it, deferred entries included.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub states: States,
    pub row: Option<DeploymentRow>,
}

/// An entry with its place in the order, not yet durable.
pub(crate) struct Staged {
    pub seq: u64,
    pub deployment: Option<DeploymentId>,
    pub body: String,
    pub digest: Digest,
    pub content: Option<Content>,
    /// The entry whose images this one gives up.
    pub drops: Option<u64>,
    /// The epoch that begins with this entry.
    pub epoch: Option<u64>,
}

/// What staging changed in memory, so that it can be taken back when the write fails.
pub(crate) struct Undone {
    pub tip: Head,
    pub moved: Vec<(DeploymentId, Moved, Option<DeploymentRow>)>,
}

impl Journal {
    /// Checks a draft and gives it number, time and place in the chain. In memory only; `undone` collects the way
    /// back, also where this fails half way.
    pub(crate) fn stage(
        &mut self,
        draft: &Draft,
        images: Option<(ImagesRef, Content)>,
        drops: Option<u64>,
        undone: &mut Undone,
    ) -> Result<Staged, JournalError> {
        let (images, content) = images.unzip();
        let entry = Entry {
            seq: self.tip.seq + 1,
            time_ms: self.clock.now_ms().max(self.tip.time_ms),
            actor: self.actor.clone(),
            deployment: draft.deployment.clone(),
            frame: draft.frame.clone(),
            step: draft.step,
            event: draft.event,
            payload: draft.payload.clone(),
            images,
            previous: self.tip.digest,
        };
        self.stage_entry(entry, content, drops, undone)
    }

    /// Checks an entry that has its number, time and place in the chain already.
    pub(crate) fn stage_entry(
        &mut self,
        entry: Entry,
        content: Option<Content>,
        drops: Option<u64>,
        undone: &mut Undone,
    ) -> Result<Staged, JournalError> {
        let epoch = self.check_shape(&entry, drops)?;
        let body = serde_json::to_string(&entry).map_err(|e| draft_error(entry.event, &e.to_string()))?;
        // A payload may nest deeper than the parser follows: what can't be read back is never written.
        if serde_json::from_str::<Entry>(&body).ok().as_ref() != Some(&entry) {
            return Err(draft_error(entry.event, "its payload does not survive being written and read"));
        }
        if body.len() > ENTRY_BYTES_MAX {
            return Err(draft_error(entry.event, &format!("it is longer than {ENTRY_BYTES_MAX} bytes")));
        }
        if let Some(id) = &entry.deployment {
            let moving = Moving { frame: entry.frame.clone(), step: entry.step, event: entry.event };
            let live = self.learn(id)?;
            let moved = live.states.apply(&moving)?;
            undone.moved.push((id.clone(), moved, live.row.clone()));
            let state = live.states.deployment.unwrap_or(DeploymentState::Planned);
            live.row = Some(DeploymentRow::after(live.row.as_ref(), &entry, state)?);
        }
        let digest = digest_of(body.as_bytes());
        self.tip = Head { seq: entry.seq, digest, time_ms: entry.time_ms, epoch: epoch.unwrap_or(self.tip.epoch) };
        Ok(Staged { seq: entry.seq, deployment: entry.deployment, body, digest, content, drops, epoch })
    }

    /// The epoch that the draft begins, where it is about one.
    fn check_shape(&self, draft: &Entry, drops: Option<u64>) -> Result<Option<u64>, JournalError> {
        let refuse = |what: &str| Err(draft_error(draft.event, what));
        match (draft.event.scope(), &draft.deployment) {
            (Scope::Site, Some(_)) => return refuse("it belongs to the site, not to a deployment"),
            (Scope::Site, None) => {}
            (_, None) => return refuse("it names no deployment"),
            (Scope::Deployment | Scope::Frame, Some(_)) if draft.step.is_some() => {
                return refuse("it is not about a step");
            }
            (_, Some(_)) => {}
        }
        if (draft.event == Event::ImagesDropped) != drops.is_some() {
            return refuse("only giving images up says so");
        }
        if draft.event != Event::LockTaken {
            return Ok(None);
        }
        match draft.payload.get("epoch").and_then(Value::as_u64) {
            Some(epoch) if epoch > self.tip.epoch && i64::try_from(epoch).is_ok() => Ok(Some(epoch)),
            Some(epoch) => refuse(&format!("its epoch {epoch} does not follow the last one, {}", self.tip.epoch)),
            None => refuse("its payload has no number `epoch`"),
        }
    }

    pub(crate) fn unstage(&mut self, undone: Undone) {
        self.tip = undone.tip;
        for (id, moved, row) in undone.moved.into_iter().rev() {
            if let Some(live) = self.live.get_mut(&id) {
                live.states.take_back(moved);
                live.row = row;
            }
        }
    }

    /// The states of a deployment, from the journal where they are not in memory.
    pub(crate) fn learn(&mut self, id: &DeploymentId) -> Result<&mut Live, JournalError> {
        if !self.live.contains_key(id) {
            let row = reader::rows(&self.connection, "WHERE id = ?1", [id.as_str()])?.pop();
            let states = match row {
                Some(_) => reader::states(&self.connection, id)?,
                None => States::default(),
            };
            self.live.insert(id.clone(), Live { states, row });
        }
        self.live.get_mut(id).ok_or_else(|| JournalError::Damaged { what: format!("deployment {id} is gone") })
    }

    /// Forgets the states of deployments that are at rest. Only after a write, when nothing is deferred.
    pub(crate) fn forget_resting(&mut self) {
        if self.live.len() > LIVE_MAX && self.deferred.is_empty() {
            self.live.retain(|_, live| live.states.deployment.is_some_and(DeploymentState::is_underway));
        }
    }
}

pub(crate) fn draft_error(event: Event, what: &str) -> JournalError {
    JournalError::Draft { event: name(&event), what: what.to_owned() }
}
