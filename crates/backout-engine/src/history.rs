//! A deployment as its entries tell it: the fold of the journal that live run, undo, resume and `show` share.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use backout_journal::Reader;
use backout_model::backup::Taken;
use backout_model::conflict::{Conflicts, OnConflict};
use backout_model::entry::{Draft, Entry};
use backout_model::id::{DeploymentId, FramePath};
use backout_model::state::{self, DeploymentState, Event, FrameState, StepState};
use backout_model::target::Report;
use backout_package::package::Package;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::act::Act;
use crate::error::EngineError;
pub use crate::step_view::StepView;

/// The payload of `deployment-planned`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// The root package's name and version, for lists.
    pub package: String,
    pub version: String,
    #[serde(default)]
    pub requires: Vec<String>,
    /// The whole manifest with its children; paths of scripts point into the snapshot.
    pub manifest: Package,
    /// Digest of the package's files, hex.
    pub digest: String,
    /// What the kept copy of the package is known by again; none in journals of before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<String>,
    /// Where it was deployed from, for people and for `retry`.
    #[serde(with = "backout_package::percent::path")]
    pub source: PathBuf,
    /// It is undone unless it is confirmed within this time of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within_ms: Option<i64>,
    /// It is a recording: its one command is whatever happens on the site.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recording: bool,
}

/// The payload of `deployment-confirm-due`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfirmDue {
    /// Milliseconds since 1970 UTC.
    pub until_ms: i64,
}

/// The payload of `deployment-undoing`, `-redoing` and `-retrying`: what part, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub frame: FramePath,
    pub on_conflict: OnConflict,
    /// Of an undo: what it found as it is to be by the hand of a later deployment, whose own undo brings it back.
    #[serde(default, skip_serializing_if = "Conflicts::is_empty")]
    pub of_later: Conflicts,
    /// Of an undo: it takes along what others did while commands ran.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unattributed: bool,
}

impl Part {
    pub fn new(frame: FramePath, on_conflict: OnConflict) -> Self {
        Self { frame, on_conflict, of_later: Conflicts::default(), unattributed: false }
    }
}

/// The payload of `frame-started`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameStarted {
    pub package: String,
    pub version: String,
    /// From 1.
    pub attempt: u32,
}

/// The payload of events that say why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Why {
    #[serde(default)]
    pub causes: Vec<String>,
    #[serde(default)]
    pub left: Vec<String>,
    /// It was given up, and nothing of it is on the site.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
}

impl Why {
    /// Nothing is left of it.
    pub fn because(causes: Vec<String>) -> Self {
        Self { causes, ..Self::default() }
    }
}

#[derive(Clone, Debug)]
pub struct FrameView {
    pub state: FrameState,
    pub package: String,
    pub version: String,
    pub why: Why,
    /// The entry that said it was undone; 0 where it is not.
    pub undone_seq: u64,
}

/// One deployment.
#[derive(Clone, Debug)]
pub struct View {
    pub id: DeploymentId,
    pub planned: Option<Planned>,
    pub state: Option<DeploymentState>,
    pub frames: BTreeMap<FramePath, FrameView>,
    pub steps: BTreeMap<(FramePath, u32), StepView>,
    /// What the undo, redo or retry under way is about; the last one otherwise.
    pub part: Option<Part>,
    /// The entry that named it: what was undone or redone since belongs to it.
    pub part_seq: u64,
    /// What others did while commands ran is among what goes, as after any redo that cannot go on.
    pub unattributed: bool,
    /// What the deployment was before that entry: an undo that is put back leaves it so.
    pub before_part: Option<DeploymentState>,
    /// What that was: an undo, a redo or a retry.
    pub under_way: Option<Event>,
    /// Every undo that was begun: its entry and what it was about.
    pub undoings: Vec<(u64, Part)>,
    /// The conflicts that the undo under way, automatic or not, has settled so far: a recovery goes on from them.
    pub settled: Conflicts,
    /// It is undone unless it is confirmed until then: milliseconds since 1970 UTC.
    pub confirm_until_ms: Option<i64>,
    /// What was kept for its undo and redo is given up.
    pub pruned: bool,
    /// Maintenance mode was entered and not left.
    pub in_maintenance: bool,
    /// What was taken before it began.
    pub backup: Option<Taken>,
    pub why: Why,
    pub first_seq: u64,
    pub last_seq: u64,
    pub planned_ms: i64,
    pub last_ms: i64,
    pub actor: String,
}

impl View {
    pub fn new(id: DeploymentId) -> Self {
        Self {
            id,
            planned: None,
            state: None,
            frames: BTreeMap::new(),
            steps: BTreeMap::new(),
            part: None,
            part_seq: 0,
            unattributed: false,
            before_part: None,
            under_way: None,
            undoings: Vec::new(),
            settled: Conflicts::default(),
            confirm_until_ms: None,
            pruned: false,
            in_maintenance: false,
            backup: None,
            why: Why::default(),
            first_seq: 0,
            last_seq: 0,
            planned_ms: 0,
            last_ms: 0,
            actor: String::new(),
        }
    }

    /// Reads a deployment from the journal.
    pub fn load(reader: &Reader, id: &DeploymentId) -> Result<Self, EngineError> {
        let mut view = Self::new(id.clone());
        let mut broken = None;
        reader.entries(id, &mut |entry: Entry| match view.add_entry(&entry) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                broken = Some(error);
                ControlFlow::Break(())
            }
        })?;
        match broken {
            Some(error) => Err(error),
            None => Ok(view),
        }
    }

    pub fn name(&self) -> String {
        match &self.planned {
            Some(planned) => format!("{} {}", planned.package, planned.version),
            None => self.id.to_string(),
        }
    }

    /// A part as people know it: the package itself, or a child of it.
    pub fn name_of(&self, part: &FramePath) -> String {
        if part.is_root() { self.name() } else { format!("{part} of {}", self.name()) }
    }

    pub fn manifest(&self) -> Result<&Package, EngineError> {
        self.planned
            .as_ref()
            .map(|planned| &planned.manifest)
            .ok_or_else(|| EngineError::History(format!("deployment {} has no plan", self.id)))
    }

    fn add_entry(&mut self, entry: &Entry) -> Result<(), EngineError> {
        if self.first_seq == 0 {
            self.first_seq = entry.seq;
            self.planned_ms = entry.time_ms;
            self.actor.clone_from(&entry.actor);
        }
        self.last_seq = entry.seq;
        self.last_ms = entry.time_ms;
        self.add(entry.event, &entry.frame, entry.step, &entry.payload, entry.seq, entry.images.is_some())
    }

    /// Follows an entry that this process has just written.
    pub fn add_draft(&mut self, draft: &Draft, seq: u64, has_images: bool) -> Result<(), EngineError> {
        self.add(draft.event, &draft.frame, draft.step, &draft.payload, seq, has_images)
    }

    fn add(
        &mut self,
        event: Event,
        frame: &FramePath,
        step: Option<u32>,
        payload: &Value,
        seq: u64,
        has_images: bool,
    ) -> Result<(), EngineError> {
        let illegal = |what: String| EngineError::History(format!("entry {seq}: {event:?} after {what}"));
        let before = self.state;
        self.state = Some(state::deployment(before, event).ok_or_else(|| illegal(format!("{before:?}")))?);
        match event {
            Event::DeploymentPlanned => self.planned = Some(read(payload, seq)?),
            Event::DeploymentUndoing | Event::DeploymentRedoing | Event::DeploymentRetrying => {
                let part: Part = read(payload, seq)?;
                if event == Event::DeploymentUndoing {
                    self.add_undoing(seq, &part, before);
                }
                self.under_way = Some(event);
                self.unattributed = part.unattributed || event == Event::DeploymentRedoing;
                self.part = Some(part);
                self.part_seq = seq;
                self.before_part = before;
                self.settled = Conflicts::default();
            }
            Event::DeploymentFailing
            | Event::DeploymentNeedsHand
            | Event::DeploymentRefused
            | Event::DeploymentGivenUp => self.why = read(payload, seq)?,
            Event::DeploymentConfirmDue => self.confirm_until_ms = Some(read::<ConfirmDue>(payload, seq)?.until_ms),
            Event::DeploymentConfirmed | Event::DeploymentUndone => self.confirm_until_ms = None,
            Event::DeploymentPruned => self.pruned = true,
            Event::MaintenanceEntering | Event::MaintenanceLeft => {
                self.in_maintenance = event == Event::MaintenanceEntering;
            }
            Event::BackupTaken => self.backup = Some(read(payload, seq)?),
            Event::FrameStarted
            | Event::FrameDone
            | Event::FrameFailing
            | Event::FrameFailed
            | Event::FramePassedOver
            | Event::FrameUndone => self.add_to_frame(event, frame, payload, seq)?,
            Event::StepIntended
            | Event::StepApplied
            | Event::StepDiscarded
            | Event::StepUndoIntended
            | Event::StepUndone
            | Event::StepKept => {
                let index = step.ok_or_else(|| illegal("no step number".to_owned()))?;
                self.add_to_step(event, frame, index, payload, seq, has_images)?;
            }
            Event::DeploymentChecking
            | Event::DeploymentApplying
            | Event::DeploymentVerifying
            | Event::DeploymentDone
            | Event::DeploymentFailedClean
            | Event::DeploymentPartlyUndone
            | Event::DeploymentPutBack
            | Event::DeploymentRedoStopped
            | Event::DeploymentRetryFailed
            | Event::FinallyRan
            | Event::LockTaken
            | Event::EntryLost
            | Event::SiteBackedUp
            | Event::SiteRestoring
            | Event::SiteRestored
            | Event::SiteNotRestored
            | Event::ImagesDropped => {}
        }
        Ok(())
    }

    /// An undo that goes on with one that did not come to its end is the same undo: a redo takes both back.
    fn add_undoing(&mut self, seq: u64, part: &Part, before: Option<DeploymentState>) {
        let goes_on = before == Some(DeploymentState::NeedsHand) && self.under_way == Some(Event::DeploymentUndoing);
        match self.undoings.last_mut().filter(|(_, last)| goes_on && part.frame.contains(&last.frame)) {
            Some((_, last)) => {
                let of_later = std::mem::take(&mut last.of_later);
                last.clone_from(part);
                last.of_later.join(of_later);
            }
            None => self.undoings.push((seq, part.clone())),
        }
    }

    fn add_to_frame(&mut self, event: Event, path: &FramePath, payload: &Value, seq: u64) -> Result<(), EngineError> {
        let before = self.frames.get(path).map(|frame| frame.state);
        let next = state::frame(before, event).ok_or_else(|| {
            EngineError::History(format!("entry {seq}: {event:?} for frame `{path}` after {before:?}"))
        })?;
        let frame = self.frames.entry(path.clone()).or_insert_with(|| FrameView {
            state: next,
            package: String::new(),
            version: String::new(),
            why: Why::default(),
            undone_seq: 0,
        });
        frame.state = next;
        frame.undone_seq = if event == Event::FrameUndone { seq } else { 0 };
        if event == Event::FrameStarted {
            let started: FrameStarted = read(payload, seq)?;
            frame.package = started.package;
            frame.version = started.version;
            frame.why = Why::default();
        } else if matches!(event, Event::FrameFailing | Event::FramePassedOver) {
            frame.why = read(payload, seq)?;
        }
        Ok(())
    }

    fn add_to_step(
        &mut self,
        event: Event,
        path: &FramePath,
        index: u32,
        payload: &Value,
        seq: u64,
        has_images: bool,
    ) -> Result<(), EngineError> {
        let key = (path.clone(), index);
        // An automatic undo always does.
        let asked = self.part.as_ref().filter(|_| self.state == Some(DeploymentState::Undoing));
        let keeps = asked.is_none_or(|part| part.on_conflict == OnConflict::Keep);
        let before = self.steps.get(&key).map(|step| step.state);
        let next = state::step(before, event).ok_or_else(|| {
            EngineError::History(format!("entry {seq}: {event:?} for step {index} of `{path}` after {before:?}"))
        })?;
        if event == Event::StepIntended {
            let before_redo = self.steps.remove(&key).filter(|step| step.state == StepState::Undone).map(Box::new);
            let left_before = before_redo.as_deref().map(StepView::left_in_all).unwrap_or_default();
            self.steps.insert(
                key,
                StepView {
                    frame: path.clone(),
                    index,
                    state: next,
                    intended: read(payload, seq)?,
                    seq,
                    has_images,
                    undo: None,
                    applied_seq: 0,
                    kept: None,
                    left: Conflicts::default(),
                    left_before,
                    before_redo,
                },
            );
        } else if let Some(step) = self.steps.get_mut(&key) {
            if event == Event::StepDiscarded
                && let Some(before) = step.before_redo.take()
            {
                *step = *before;
                return Ok(());
            }
            step.state = next;
            let before_redo = step.before_redo.take();
            step.kept = None;
            if event == Event::StepUndone && !payload.is_null() {
                let report: Report = read(payload, seq)?;
                step.left = if keeps { report.conflicts.clone() } else { Conflicts::default() };
                self.settled.extend(report.conflicts);
            }
            if event == Event::StepKept {
                step.kept = Some(read(payload, seq)?);
            } else if event == Event::StepUndoIntended {
                step.undo = Some((seq, read(payload, seq)?));
            } else if event == Event::StepApplied {
                step.applied_seq = seq;
                // What a command ends with is no report.
                if !payload.is_null() && !matches!(step.act(), Act::Run { .. }) {
                    let report: Report = read(payload, seq)?;
                    // Where each change of the schema commits by itself, not all was known when the first was announced.
                    let known = &mut step.intended.summary.objects;
                    let new: Vec<String> =
                        report.summary.objects.iter().filter(|object| !known.contains(object)).cloned().collect();
                    known.extend(new);
                    if let Some(before) = before_redo.filter(|_| !step.left_before.is_empty()) {
                        step.heed_redo(&report, &before.left_before);
                    }
                }
            }
        }
        Ok(())
    }

    /// An error where what its undo would need is given up.
    pub fn is_kept(&self) -> Result<(), EngineError> {
        if !self.pruned {
            return Ok(());
        }
        Err(EngineError::NotNow {
            what: format!("{} ({}) stays: what its undo would need was pruned", self.name(), self.id),
            hint: Some("`backout log` marks what was pruned; `backout undo ID` takes back another one".to_owned()),
        })
    }

    /// What an automatic undo of `part`, or of what is in it, left as somebody else had made it since, so that the
    /// deployment needs a hand. Empty once somebody has decided on it.
    pub fn undecided(&self, part: &FramePath) -> Conflicts {
        let mut conflicts = Conflicts::default();
        let needs_hand = match self.state {
            Some(DeploymentState::Undoing) => self.before_part == Some(DeploymentState::NeedsHand),
            state => state == Some(DeploymentState::NeedsHand),
        };
        for step in self.steps.values().filter(|step| needs_hand && part.contains(&step.frame)) {
            if step.is_left_in_part() {
                conflicts.extend(step.left_in_all());
            }
        }
        conflicts
    }

    /// What earlier undos of the steps of `part` had left: a redo since did not do it again, and so no undo takes it back.
    pub fn left_before(&self, part: &FramePath) -> Conflicts {
        let mut conflicts = Conflicts::default();
        for step in self.steps.values().filter(|step| part.contains(&step.frame) && step.is_on_site()) {
            conflicts.extend(step.left_before.clone());
        }
        conflicts
    }

    /// True where an undo has nothing left to take back.
    pub fn is_undone(&self) -> bool {
        let may_stay = |step: &StepView| step.stays().is_some() || step.kept.is_some() || step.act().is_of_others();
        self.steps.values().all(|step| !step.is_on_site() || may_stay(step))
    }

    /// True where it is undone but for what somebody else had changed, or for what could not be taken back.
    pub fn left_something(&self) -> bool {
        let of_later = self.undoings.iter().any(|(seq, part)| {
            let is_undone = |path: &FramePath, frame: &FrameView| part.frame.contains(path) && frame.undone_seq > *seq;
            !part.of_later.is_empty() && self.undone_frames().any(|(path, frame)| is_undone(path, frame))
        });
        of_later
            || self.steps.values().any(|step| step.is_left_in_part() || step.kept.is_some() || step.stays().is_some())
    }

    /// True where an undo of `part` leaves something behind that it cannot take back.
    pub fn leaves(&self, part: &FramePath) -> bool {
        self.steps.values().any(|step| part.contains(&step.frame) && step.stays().is_some())
    }

    /// True where a frame that failed, or one inside it, left something behind that nothing takes back.
    pub fn leaves_of_failures(&self) -> bool {
        let failed = |path: &FramePath| {
            let state = self.frames.get(path).map(|frame| frame.state);
            matches!(state, Some(FrameState::Failed | FrameState::PassedOver | FrameState::Undone))
        };
        self.steps.values().any(|step| failed(&step.frame) && step.stays().is_some())
    }

    /// The steps of which the undo of `part` under way has taken back something, or may have.
    pub fn touched(&self, part: &FramePath) -> impl Iterator<Item = &StepView> {
        self.steps.values().filter(|step| {
            let since = step.undo.as_ref().is_some_and(|(seq, _)| *seq > self.part_seq);
            let touched = matches!(step.state, StepState::UndoIntended | StepState::Undone) || step.kept.is_some();
            since && part.contains(&step.frame) && touched
        })
    }
}

pub(crate) fn read<T: DeserializeOwned>(payload: &Value, seq: u64) -> Result<T, EngineError> {
    serde_json::from_value(payload.clone()).map_err(|error| EngineError::History(format!("entry {seq}: {error}")))
}

/// The payload of an entry. The types written here always serialise.
pub fn payload<T: Serialize>(value: &T) -> Result<Value, EngineError> {
    serde_json::to_value(value).map_err(|error| EngineError::History(error.to_string()))
}
