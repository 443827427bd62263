//! A deployment and its undo on a scratch: what of it is proven, how long it takes, what it changes. Drives the engine as it
//! is; that the session is one on a scratch is all that is different.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backout_journal::Reader;
use backout_model::conflict::OnConflict;
use backout_model::id::FramePath;
use backout_model::target::{Described, Finding};
use backout_model::words::count;
use backout_package::package::Package;
use serde::Serialize;

use crate::act::{Act, step_in_package};
use crate::deploy::{self, Options};
use crate::error::EngineError;
use crate::history::{StepView, View};
use crate::observer::{Happening, Observer};
use crate::outcome::{Outcome, Status};
use crate::plan;
use crate::session::Session;
use crate::undo;

/// The closing line where nothing went wrong.
pub const UNTOUCHED: &str = "The site itself was not touched.";

/// One change that was rehearsed, or not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rehearsed {
    pub frame: FramePath,
    /// None for a check or a `finally` command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// `database main`, `root web`, `command`, `check`.
    pub target: String,
    #[serde(flatten)]
    pub change: Described,
    /// It was done, it was taken back, and its target is as it was before.
    pub proven: bool,
    /// Why it is not proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Locks it takes, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locks: Option<String>,
    /// None: they were measured. Else they are what `plan` says, and why they were not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locks_unmeasured: Option<String>,
    /// Its own time, in microseconds; none where changes of a step are made together: files, and what a command does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
    /// Of the step as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<Times>,
}

/// How long a step took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    pub deploy_ms: u64,
    pub undo_ms: u64,
}

/// A rehearsal in figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    pub proven: u64,
    pub not_proven: u64,
    pub rows: u64,
    pub bytes: u64,
    /// Of the whole, checks among it.
    pub deploy_ms: u64,
    pub undo_ms: u64,
    /// What was not as before after the undo, by target; at most so many as were told.
    pub differences: Vec<String>,
}

/// What a rehearsal came to.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    pub outcome: Outcome,
    pub figures: Figures,
}

/// The locks of each statement, by where it stands.
type Locks = BTreeMap<(FramePath, u32, String), VecDeque<Option<String>>>;
type Steps = BTreeMap<(FramePath, u32), StepTimes>;

#[derive(Clone, Debug, Default)]
struct StepTimes {
    began: Option<Instant>,
    /// When the statement under way began, and how long the one took that ran last.
    since: Option<Instant>,
    last: Duration,
    changes: BTreeMap<String, VecDeque<Measured>>,
    deploy: Duration,
    undo: Duration,
}

/// What was measured of one statement.
#[derive(Clone, Debug)]
struct Measured {
    took: Duration,
    locks: Result<String, String>,
}

/// Passes on what happens, and takes the times of steps. What would be taken for a deployment of the site is not passed on.
pub struct Watching<'o> {
    inner: &'o mut dyn Observer,
    steps: Arc<Mutex<Steps>>,
}

/// The times that a [`Watching`] took.
pub struct Clocked(Arc<Mutex<Steps>>);

impl<'o> Watching<'o> {
    pub fn new(inner: &'o mut dyn Observer) -> (Self, Clocked) {
        inner.heard(Happening::Phase { name: "rehearsing" });
        let steps = Arc::default();
        (Self { inner, steps: Arc::clone(&steps) }, Clocked(steps))
    }

    fn note(&self, frame: &FramePath, index: u32, change: impl FnOnce(&mut StepTimes)) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        change(steps.entry((frame.clone(), index)).or_default());
    }
}

impl Observer for Watching<'_> {
    fn heard(&mut self, happening: Happening) {
        let now = Instant::now();
        match &happening {
            Happening::StepStarted { frame, index, .. } => self.note(frame, *index, |step| {
                *step = StepTimes { began: Some(now), since: Some(now), ..StepTimes::default() };
            }),
            Happening::StepUndoing { frame, index, .. } => {
                self.note(frame, *index, |step| step.began = Some(now));
            }
            Happening::StepDone { frame, index, .. } => self.note(frame, *index, |step| {
                step.deploy = step.began.take().map_or(step.deploy, |began| now - began);
            }),
            Happening::StepUndone { frame, index } => self.note(frame, *index, |step| {
                step.undo = step.began.take().map_or(step.undo, |began| now - began);
            }),
            Happening::Deployment { .. } => return,
            _ => {}
        }
        self.inner.heard(happening);
    }

    fn measures(&self) -> bool {
        true
    }

    fn ran(&mut self, frame: &FramePath, index: u32) {
        let now = Instant::now();
        self.note(frame, index, |step| step.last = step.since.map_or(Duration::ZERO, |since| now - since));
    }

    fn locked(&mut self, frame: &FramePath, index: u32, place: &str, locks: Result<String, String>) {
        self.note(frame, index, |step| {
            if step.changes.len() < LOCKS_KEPT {
                let measured = Measured { took: step.last, locks };
                step.changes.entry(place.to_owned()).or_default().push_back(measured);
            }
            step.since = Some(Instant::now());
        });
    }

    fn stop(&self) -> Option<Arc<AtomicBool>> {
        self.inner.stop()
    }
}

impl Clocked {
    fn of(&self, step: &StepView) -> Times {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = steps.get(&(step.frame.clone(), step.index));
        found.map_or(Times::default(), |found| Times { deploy_ms: millis(found.deploy), undo_ms: millis(found.undo) })
    }

    /// The next statement at a place; where one made several changes, each of them has its figures.
    fn change(&self, step: &StepView, place: &str) -> Option<Measured> {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = steps.get_mut(&(step.frame.clone(), step.index))?.changes.get_mut(place)?;
        if here.len() > 1 { here.pop_front() } else { here.front().cloned() }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What the live site's journal has to say beforehand: whether the package may be deployed at all, and what is deployed
/// already.
pub fn beforehand(reader: &Reader, package: &Package) -> Result<BTreeSet<String>, EngineError> {
    crate::recording::none_under_way(reader)?;
    if let Some(row) = reader.unfinished()? {
        let (what, hint) = match reader.holder() {
            Some(note) => (
                format!("{} is being worked on by process {} on {}", row.package, note.pid, note.host),
                "wait until it is done, then try again",
            ),
            None => (
                format!("{} ({}) was interrupted: what it left is not known yet", row.id, row.package),
                "`backout resume` first",
            ),
        };
        return Err(EngineError::not_now(what, hint));
    }
    crate::restored::none_under_way(reader)?;
    deploy::requirements(reader, package)?;
    let rows = reader.deployments()?;
    Ok(rows.into_iter().filter(|row| row.state.is_on_site()).map(|row| row.package).collect())
}

/// Deploys a package to the scratch of this session and undoes it. `differences` says what is not as it was before. Every
/// change is handed to `each`, and what did not run.
pub fn rehearse(
    session: &mut Session<'_>,
    package: &Package,
    options: Options,
    clocked: &Clocked,
    differences: &mut dyn FnMut() -> Result<Vec<Finding>, EngineError>,
    each: &mut dyn FnMut(Rehearsed),
) -> Result<Rehearsal, EngineError> {
    let mut locks: Locks = BTreeMap::new();
    let mut known = 0;
    plan::plan(&session.config, &mut session.targets, package, &mut |item| {
        if known < LOCKS_KEPT {
            locks.entry((item.frame, item.step, item.change.place)).or_default().push_back(item.change.locks);
            known += 1;
        }
    })?;
    let began = Instant::now();
    let deployed = deploy::deploy(session, package, options)?;
    let mut figures = Figures { deploy_ms: millis(began.elapsed()), ..Figures::default() };
    let Some(id) = deployed.deployment.clone().filter(|_| deployed.status != Status::Refused) else {
        return Ok(Rehearsal { outcome: told(deployed), figures });
    };
    let went_through = matches!(deployed.status, Status::Done | Status::Partly);
    let mut undone = None;
    if went_through {
        let began = Instant::now();
        undone = Some(undo::undo(
            session,
            Some(id.as_str()),
            undo::Options { on_conflict: OnConflict::Stop, unattributed: false },
        )?);
        figures.undo_ms = millis(began.elapsed());
    }
    session.observer.heard(Happening::Phase { name: "comparing" });
    let found = differences()?;
    figures.differences = found.iter().map(|finding| format!("{}: {}", finding.target, finding.what)).collect();
    let view = View::load(session.journal.reader(), &id)?;
    let mut telling = Telling { figures, locks, found, each, excused: BTreeSet::new() };
    telling.steps(session, &view, clocked, went_through)?;
    telling.left_alone(session);
    let Telling { figures, found, excused, .. } = telling;
    let changed: Vec<&Finding> = found.iter().filter(|finding| !excused.contains(&finding.target)).collect();
    let mut outcome = match undone {
        None => failed(&figures, "it failed on the scratch", deployed, &changed),
        Some(undone) if !matches!(undone.status, Status::Done | Status::Partly) => {
            failed(&figures, "its undo failed on the scratch", undone, &changed)
        }
        Some(undone) if !changed.is_empty() => failed(&figures, "its undo left something", undone, &changed),
        Some(_) => came_through(deployed, &figures),
    };
    outcome.deployment = None;
    Ok(Rehearsal { outcome, figures })
}

/// So many statements' locks and times are told one by one, of all the plan and of each step.
const LOCKS_KEPT: usize = 10_000;

/// An outcome of the scratch as one about the site: its id means nothing there, nor do commands that name it.
fn told(outcome: Outcome) -> Outcome {
    let Outcome { status, answer: _, causes, conflicts, conflicts_total, left_out, notes, .. } = outcome;
    let mut told = Outcome::new(status, UNTOUCHED);
    (told.causes, told.conflicts, told.conflicts_total) = (causes, conflicts, conflicts_total);
    (told.left_out, told.notes) = (left_out, notes);
    told
}

fn failed(figures: &Figures, why: &str, outcome: Outcome, changed: &[&Finding]) -> Outcome {
    let mut outcome = told(outcome);
    outcome.status = Status::Failed;
    outcome.closing = "The rehearsal failed; the site itself was not touched.".to_owned();
    outcome.causes.insert(0, format!("the rehearsal failed: {why}"));
    if changed.is_empty() {
        outcome.notes.push("the scratch was as before when that was taken back".to_owned());
    }
    outcome
        .causes
        .extend(changed.iter().map(|finding| format!("{} is not as it was: {}", finding.target, finding.what)));
    if figures.not_proven > 0 && changed.is_empty() {
        outcome.notes.push("what did not run may be missing for what came after it".to_owned());
    }
    outcome
}

fn came_through(deployed: Outcome, figures: &Figures) -> Outcome {
    let mut outcome = told(deployed);
    let Figures { proven, not_proven, deploy_ms, undo_ms, .. } = figures;
    let not = if *not_proven > 0 { format!(", {not_proven} not") } else { String::new() };
    outcome.answer.push(format!("{} proven{not}", count(*proven, "change")));
    outcome.answer.push(format!("deployed in {deploy_ms} ms, undone in {undo_ms} ms; before and after are the same"));
    outcome.status = if *not_proven > 0 || deployed_in_part(&outcome) { Status::Partly } else { Status::Done };
    outcome
}

fn deployed_in_part(outcome: &Outcome) -> bool {
    outcome.status == Status::Partly || !outcome.left_out.is_empty()
}

struct Telling<'e> {
    figures: Figures,
    locks: Locks,
    found: Vec<Finding>,
    each: &'e mut dyn FnMut(Rehearsed),
    /// The targets that nothing was to put back.
    excused: BTreeSet<String>,
}

impl Telling<'_> {
    fn steps(
        &mut self,
        session: &mut Session<'_>,
        view: &View,
        clocked: &Clocked,
        went_through: bool,
    ) -> Result<(), EngineError> {
        let mut steps: Vec<&StepView> = view.steps.values().collect();
        steps.sort_by_key(|step| step.seq);
        for step in &steps {
            if step.act().irreversible().is_some() {
                self.excused.insert(target(step.act()));
            }
        }
        // What was held for one that failed is gone, and with it the list of its changes.
        for step in steps.into_iter().filter(|_| went_through) {
            let why = self.unproven(step);
            let times = clocked.of(step);
            let Session { targets, journal, .. } = session;
            crate::describe::describe(targets, journal.reader(), step, &mut |change| {
                let place = (step.frame.clone(), step.index, change.place.clone());
                let planned = self.locks.get_mut(&place).and_then(VecDeque::pop_front).flatten();
                let measured = clocked.change(step, &change.place);
                let took = measured.as_ref().map(|measured| measured.took);
                let (locks, locks_unmeasured) = match measured.map(|measured| measured.locks) {
                    Some(Ok(locks)) => (Some(locks), None),
                    Some(Err(why)) => (planned, Some(why)),
                    None => (planned, Some("it was not run as a statement of its own".to_owned())),
                };
                self.tell(Rehearsed {
                    frame: step.frame.clone(),
                    step: Some(step_in_package(step.index)),
                    target: target(step.act()),
                    change,
                    proven: why.is_none(),
                    why: why.clone(),
                    locks_unmeasured: locks_unmeasured.filter(|_| locks.is_some()),
                    locks,
                    took_us: took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
                    times: Some(times),
                });
            })?;
        }
        Ok(())
    }

    /// Why a step that was done is not proven.
    fn unproven(&self, step: &StepView) -> Option<String> {
        if let Some(because) = step.act().irreversible() {
            return Some(format!("nothing takes it back: {because}"));
        }
        if !step.is_undone() {
            return Some("it was not taken back".to_owned());
        }
        let target = target(step.act());
        let found = self.found.iter().find(|finding| finding.target == target)?;
        Some(format!("{target} is not as it was: {}", found.what))
    }

    fn left_alone(&mut self, session: &mut Session<'_>) {
        let (checks, steps): (Vec<_>, Vec<_>) =
            std::mem::take(&mut session.left_alone).into_iter().partition(|left| left.step.is_none());
        for left in steps.into_iter().chain(checks) {
            let target = if left.what.starts_with("check") { "check" } else { "command" };
            self.tell(Rehearsed {
                frame: left.frame,
                step: left.step,
                target: target.to_owned(),
                change: Described {
                    change: left.what,
                    place: String::new(),
                    undo: "not known".to_owned(),
                    rows: 0,
                    bytes: 0,
                },
                proven: false,
                why: Some(left.why.to_owned()),
                locks: None,
                locks_unmeasured: None,
                took_us: None,
                times: None,
            });
        }
    }

    fn tell(&mut self, rehearsed: Rehearsed) {
        if rehearsed.proven {
            self.figures.proven += 1;
        } else {
            self.figures.not_proven += 1;
        }
        self.figures.rows += rehearsed.change.rows;
        self.figures.bytes += rehearsed.change.bytes;
        (self.each)(rehearsed);
    }
}

fn target(act: &Act) -> String {
    match (act.database(), act.root()) {
        (Some(database), _) => format!("database {database}"),
        (None, Some(root)) => format!("root {root}"),
        (None, None) => "command".to_owned(),
    }
}

/// Ends a command that a rehearsal which died had started; `state` is that of its scratch.
pub fn end_orphan(state: &std::path::Path) -> std::io::Result<bool> {
    crate::group::end_orphan(&state.join("running"))
}
