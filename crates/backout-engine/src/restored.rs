//! What the journal says of restores: whether one was interrupted. Reads only.

use std::collections::BTreeSet;

use backout_journal::Reader;
use backout_model::backup::Taken;
use backout_model::entry::Entry;
use backout_model::state::{Event, StepState};
use serde::{Deserialize, Serialize};

use crate::act::Act;
use crate::error::EngineError;
use crate::history::View;
use crate::step_view::StepView;

/// How many characters of a snapshot's id are shown, as restic does.
const SHORT: usize = 8;

/// What the lock of a restore says that it is for.
pub(crate) const PURPOSE: &str = "restore";

/// What the journal notes of a restore.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Noted {
    pub snapshot: String,
    pub taken_ms: i64,
    pub databases: BTreeSet<String>,
    pub roots: BTreeSet<String>,
    /// The last entry of this journal that the backup knows of; none where an earlier version noted the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// What a restore left of a deployment that was given up before it or by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remains {
    Nothing,
    /// What its commands did beside databases and roots, if anything.
    OfCommands,
    Something,
}

impl Noted {
    /// True for what a step changed where all was restored; of a command that may be anything.
    pub fn covers(&self, step: &StepView) -> bool {
        match (step.act().database(), step.act().root()) {
            (Some(database), _) => self.databases.contains(database),
            (None, Some(root)) => self.roots.contains(root),
            (None, None) => true,
        }
    }

    fn leaves(&self, view: &View) -> Remains {
        let mut remains = Remains::Nothing;
        for step in view.steps.values().filter(|step| step.state != StepState::Discarded) {
            if self.since.is_none_or(|since| step.seq <= since) || !self.covers(step) {
                return Remains::Something;
            }
            if matches!(step.act(), Act::Run { .. }) {
                remains = Remains::OfCommands;
            }
        }
        remains
    }
}

/// What is left of a deployment that was given up, by the last restore.
pub(crate) fn remains(reader: &Reader, view: &View, given_up: u64) -> Result<Remains, EngineError> {
    if view.why.gone {
        return Ok(Remains::Nothing);
    }
    match reader.last_of_site(&[Event::SiteRestored])?.filter(|entry| entry.seq > given_up) {
        Some(entry) => Ok(noted(entry)?.leaves(view)),
        None => Ok(Remains::Something),
    }
}

fn noted(entry: Entry) -> Result<Noted, EngineError> {
    serde_json::from_value(entry.payload).map_err(|error| EngineError::History(format!("entry {}: {error}", entry.seq)))
}

/// An error where a restore has begun and did not come to its end: the site may be anything in between.
pub(crate) fn none_interrupted(reader: &Reader) -> Result<(), EngineError> {
    let Some(snapshot) = interrupted(reader)? else { return Ok(()) };
    Err(EngineError::not_now(
        format!("the restore of {} was interrupted: the site is in between", short(&snapshot)),
        format!("`backout restore {}` again", short(&snapshot)),
    ))
}

/// The same for whoever holds no lock yet, and so may find a restore at work. Asked before a database is opened: what a
/// restore has started there may keep everybody waiting, also where its process was killed.
pub fn none_under_way(reader: &Reader) -> Result<(), EngineError> {
    let Some(snapshot) = interrupted(reader)? else { return Ok(()) };
    match reader.holder().filter(|note| note.purpose == PURPOSE) {
        Some(note) => Err(EngineError::not_now(
            format!("the site is being restored to {} by process {} on {}", short(&snapshot), note.pid, note.host),
            "wait until it is done, then try again",
        )),
        None => none_interrupted(reader),
    }
}

/// The snapshot of a restore that did not come to its end.
pub fn interrupted(reader: &Reader) -> Result<Option<String>, EngineError> {
    let last = reader.last_of_site(&[Event::SiteRestoring, Event::SiteRestored, Event::SiteNotRestored])?;
    let Some(entry) = last.filter(|entry| entry.event == Event::SiteRestoring) else { return Ok(None) };
    Ok(Some(noted(entry)?.snapshot))
}

/// The first characters of a snapshot's id.
pub fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

/// The way back that is left where an undo can't be done.
pub fn way_back(taken: &Taken) -> String {
    format!(
        "backout restore {}  brings back the site of before it, and loses what was written since",
        short(&taken.snapshot)
    )
}
