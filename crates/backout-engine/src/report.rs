//! What the history says: `status`, `log`, `show`. Reads only.

use std::fmt;

use backout_journal::{DeploymentRow, Reader};
use backout_model::id::{DeploymentId, FramePath};
use backout_model::state::{DeploymentState, Event, FrameState, StepState};
use backout_model::target::Described;
use backout_package::site::Site;
use serde::Serialize;

use crate::act::{Act, step_in_package};
use crate::backup;
use crate::confirm::awaiting;
use crate::error::EngineError;
use crate::history::{StepView, View};
use crate::lookup;
use crate::outcome::{self, Outcome};
use crate::recording;
use crate::restored;
use crate::resume::in_maintenance;
use crate::session::Targets;

/// One deployment in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    pub id: DeploymentId,
    pub package: String,
    pub version: String,
    pub state: DeploymentState,
    pub actor: String,
    /// Milliseconds since 1970 UTC.
    pub started_ms: i64,
    pub state_ms: i64,
    /// What its undo would need was given up; told in lists of what can be undone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pruned: bool,
}

impl Line {
    /// With what the entries say beyond the list.
    fn of(reader: &Reader, row: &DeploymentRow) -> Result<Self, EngineError> {
        let pruned = reader.last_of(&row.id, &[Event::DeploymentPruned])?.is_some();
        Ok(Self { pruned, ..Self::from(row) })
    }
}

impl From<&DeploymentRow> for Line {
    fn from(row: &DeploymentRow) -> Self {
        Self {
            id: row.id.clone(),
            package: row.package.clone(),
            version: row.version.clone(),
            state: row.state,
            actor: row.actor.clone(),
            started_ms: row.started_ms,
            state_ms: row.state_ms,
            pruned: false,
        }
    }
}

/// The history, newest first.
pub fn log(reader: &Reader, limit: Option<usize>) -> Result<Vec<Line>, EngineError> {
    let rows = match limit {
        Some(limit) => reader.newest(limit)?,
        None => reader.deployments()?,
    };
    rows.iter().map(|row| Line::of(reader, row)).collect()
}

/// One screen about a site.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    pub site: String,
    /// What is deployed, newest first, at most [`Status::SHOWN`].
    pub deployed: Vec<Line>,
    pub deployed_total: usize,
    /// The run that is under way, or that a crash interrupted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underway: Option<Line>,
    /// Who is at work: `deploy shop by process 7 on web1`; none where nobody is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// True where `underway` has nobody at work on it.
    pub interrupted: bool,
    /// What happens on the site is being recorded, as `underway`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub recording: bool,
    /// The site is closed to its users.
    pub in_maintenance: bool,
    pub needs_hand: Vec<NeedsHand>,
    /// What is undone unless it is confirmed, and until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm: Option<Awaiting>,
    /// What `redo` would bring back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redo: Option<Line>,
    /// The last backup, where the site takes any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupLine>,
    /// The backup of a restore that did not come to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restoring: Option<String>,
}

/// The last backup of a site that takes backups.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackupLine {
    /// None where there was none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Milliseconds since 1970 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_ms: Option<i64>,
}

/// A deployment that is to be confirmed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Awaiting {
    pub deployment: Line,
    /// Milliseconds since 1970 UTC.
    pub until_ms: i64,
    /// That time is over, and nothing has undone it yet.
    pub overdue: bool,
}

/// A deployment that needs a hand, and what is left of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NeedsHand {
    pub deployment: Line,
    pub causes: Vec<String>,
    pub left: Vec<String>,
    /// The command that goes on.
    pub command: String,
    /// The command that goes back to the backup of before it, and what that costs; none where none was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way_back: Option<String>,
}

impl Status {
    pub const SHOWN: usize = 10;
}

/// Reads the journal only: no database is opened.
pub fn status(site: &Site, reader: &Reader, now_ms: i64) -> Result<Status, EngineError> {
    let rows = reader.deployments()?;
    let on_site: Vec<&DeploymentRow> = rows.iter().filter(|row| row.state.is_on_site()).collect();
    let underway = reader.unfinished()?;
    let recording = recording::under_way(reader)?.is_some();
    let holder = reader.holder().map(|note| format!("{} by process {} on {}", note.purpose, note.pid, note.host));
    let needs_hand = needing(reader, &rows)?;
    let last_backup = backup::last(reader)?;
    Ok(Status {
        site: site.name.clone(),
        deployed: on_site.iter().take(Status::SHOWN).map(|row| Line::of(reader, row)).collect::<Result<Vec<_>, _>>()?,
        deployed_total: on_site.len(),
        interrupted: underway.is_some() && holder.is_none() && !recording,
        recording,
        underway: underway.as_ref().map(Line::from),
        in_maintenance: in_maintenance(reader)?.is_some(),
        holder,
        needs_hand,
        confirm: awaiting(reader)?.map(|(row, until_ms)| Awaiting {
            deployment: Line::from(&row),
            until_ms,
            overdue: now_ms >= until_ms,
        }),
        redo: lookup::top(reader).ok().map(|top| Line::from(&top.row)),
        backup: site.backup.is_some().then_some(BackupLine {
            taken_ms: last_backup.as_ref().map(|(_, taken_ms)| *taken_ms),
            snapshot: last_backup.map(|(taken, _)| taken.snapshot),
        }),
        restoring: restored::interrupted(reader)?,
    })
}

fn needing(reader: &Reader, rows: &[DeploymentRow]) -> Result<Vec<NeedsHand>, EngineError> {
    let mut needing = Vec::new();
    for row in rows.iter().filter(|row| row.state == DeploymentState::NeedsHand) {
        let view = View::load(reader, &row.id)?;
        needing.push(NeedsHand {
            deployment: Line::from(row),
            causes: view.why.causes,
            left: view.why.left,
            command: format!("backout undo {}", row.id),
            way_back: view.backup.as_ref().map(restored::way_back),
        });
    }
    Ok(needing)
}

/// What `resume` comes to where nothing had been interrupted and a deployment needs a hand; `None` where none does.
pub fn left_to_a_hand(reader: &Reader) -> Result<Option<Outcome>, EngineError> {
    let needing = needing(reader, &reader.deployments()?)?;
    let Some(first) = needing.first() else { return Ok(None) };
    let mut outcome = Outcome::new(
        outcome::Status::NeedsHand,
        format!("Needs a hand: nothing was changed; `{}` goes on from here.", first.command),
    );
    outcome.deployment = Some(first.deployment.id.clone());
    for NeedsHand { deployment, causes, left, way_back, .. } in &needing {
        outcome.hints.extend(way_back.clone());
        outcome.causes.push(format!("{} ({}) needs a hand", deployment.package, deployment.id));
        outcome.causes.extend(causes.iter().cloned());
        outcome.notes.extend(left.iter().map(|left| format!("left: {left}")));
    }
    Ok(Some(outcome))
}

/// One line of `show`, from the outside in: the deployment, its frames, their steps, the changes of each.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "shown", rename_all = "kebab-case")]
pub enum Shown {
    Deployment {
        id: DeploymentId,
        package: String,
        version: String,
        state: Option<DeploymentState>,
        actor: String,
        started_ms: i64,
        last_ms: i64,
        source: String,
        causes: Vec<String>,
        left: Vec<String>,
        /// What its undo, its redo and its retries would need was given up.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pruned: bool,
        /// The backup that was taken before it.
        #[serde(skip_serializing_if = "Option::is_none")]
        backup: Option<String>,
    },
    Frame {
        frame: FramePath,
        package: String,
        version: String,
        state: FrameState,
        causes: Vec<String>,
    },
    Step {
        frame: FramePath,
        step: u32,
        what: String,
        state: StepState,
        changes: u64,
        rows: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        output: Option<String>,
    },
    Change {
        frame: FramePath,
        step: u32,
        #[serde(flatten)]
        change: Described,
    },
}

/// Why nothing takes back a change that something could.
const NO_MORE_PRUNED: &str = "none any more: what the deployment's undo would need was pruned";
const NO_MORE_GIVEN_UP: &str = "none any more: the deployment was given up";

/// Tells a deployment, or one child of it (`ID/CHILD`), with every change and its undo; the latest where none is named.
pub fn show(
    targets: &mut Targets,
    reader: &Reader,
    what: Option<&str>,
    each: &mut dyn FnMut(Shown),
) -> Result<(), EngineError> {
    let (prefix, part) = what.map_or(("", FramePath::root()), lookup::split);
    let row = match what {
        Some(_) => lookup::find(reader, prefix)?,
        None => reader
            .newest(1)?
            .into_iter()
            .next()
            .ok_or_else(|| EngineError::NotNow { what: "there is no deployment to show".to_owned(), hint: None })?,
    };
    let view = View::load(reader, &row.id)?;
    if !part.is_root() && !view.frames.contains_key(&part) {
        return Err(EngineError::usage(format!("{} has no child package `{part}`", view.id)));
    }
    let planned = view.planned.as_ref();
    each(Shown::Deployment {
        id: view.id.clone(),
        package: row.package.clone(),
        version: row.version.clone(),
        state: view.state,
        actor: view.actor.clone(),
        started_ms: view.planned_ms,
        last_ms: view.last_ms,
        source: planned.map(|planned| planned.source.display().to_string()).unwrap_or_default(),
        causes: view.why.causes.clone(),
        left: view.why.left.clone(),
        pruned: view.pruned,
        backup: view.backup.as_ref().map(|taken| taken.snapshot.clone()),
    });
    for (path, frame) in view.frames.iter().filter(|(path, _)| part.contains(path)) {
        each(Shown::Frame {
            frame: path.clone(),
            package: frame.package.clone(),
            version: frame.version.clone(),
            state: frame.state,
            causes: frame.why.causes.clone(),
        });
    }
    // What a command, a script or nothing would take back is not taken back any more either.
    let given_up = match view.state {
        _ if view.pruned => Some(NO_MORE_PRUNED),
        Some(DeploymentState::GivenUp) => Some(NO_MORE_GIVEN_UP),
        _ => None,
    };
    let mut steps: Vec<&StepView> = view.steps.values().filter(|step| part.contains(&step.frame)).collect();
    steps.sort_by_key(|step| step.seq);
    for step in steps {
        let summary = &step.intended.summary;
        let output = output(reader, step)?;
        each(Shown::Step {
            frame: step.frame.clone(),
            step: step_in_package(step.index),
            what: step.act().words(),
            state: step.state,
            changes: summary.changes,
            rows: summary.rows,
            output,
        });
        crate::describe::describe(targets, reader, step, &mut |mut change| {
            if let Some(why) = given_up {
                change.undo = why.to_owned();
            }
            each(Shown::Change { frame: step.frame.clone(), step: step_in_package(step.index), change });
        })?;
    }
    Ok(())
}

/// What a command printed; none where the step is no command or printed nothing.
fn output(reader: &Reader, step: &StepView) -> Result<Option<String>, EngineError> {
    if !matches!(step.act(), Act::Run { .. }) {
        return Ok(None);
    }
    let applied = reader.entry(step.applied_seq)?;
    let output = applied.as_ref().and_then(|entry| entry.payload.get("output")).and_then(|output| output.as_str());
    Ok(output.filter(|output| !output.is_empty()).map(str::to_owned))
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {} {}", self.id, self.package, self.version)
    }
}
