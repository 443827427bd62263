//! Undo of a deployment or of one child of it, while later ones stay. Appends to the history, never erases.

use std::io::{self, Read, Seek, SeekFrom};

use backout_journal::Reader;
use backout_model::conflict::{ConflictKind, Conflicts, OnConflict};
use backout_model::id::FramePath;
use backout_model::state::{DeploymentState, Event, FrameState, StepState};
use backout_model::target::{Described, Images, TargetError};
use serde_json::Value;

use crate::act::Act;
use crate::copies;
use crate::error::EngineError;
use crate::history::{Part, StepView, View, Why, payload};
use crate::later::{LaterStep, OfLater, Overlap, is_needed};
use crate::lookup::{find, now_at, split};
use crate::observer::Happening;
use crate::outcome::{Left, NOTHING_CHANGED, Outcome, STOPPED, Status};
use crate::refused::{possible, refused, too_late, ways_out};
use crate::restored::way_back;
use crate::session::Session;
use crate::step::{Run, surely};

/// How an undo is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub on_conflict: OnConflict,
    /// Takes along what others did while commands ran.
    pub unattributed: bool,
}

/// What can be known of an undo beforehand.
pub(crate) struct Foreseen {
    pub conflicts: Conflicts,
    /// What is as the undo would leave it already, and may be so by a later step: that one's undo would bring it back.
    pub of_later: Conflicts,
    /// The later steps that changed what the conflicts are about.
    pub overlaps: Vec<Overlap>,
    /// In the manner that is asked for it cannot be done at all.
    pub is_impossible: bool,
}

/// Undoes the latest deployment, the named one, or one child of it (`ID/CHILD`; any unique prefix of the id serves).
pub fn undo(session: &mut Session<'_>, what: Option<&str>, options: Options) -> Result<Outcome, EngineError> {
    let (view, part) = chosen(session.journal.reader(), what)?;
    copies::trusted(session, &view, true)?;
    let mut run = Run::new(session, view);
    run.view.unattributed = options.unattributed;
    run.session.targets.name_all(run.view.steps_to_undo(&part).iter().map(StepView::act))?;
    let Foreseen { conflicts, of_later, overlaps, is_impossible } =
        run.conflicts_of_undo(&part, options.on_conflict)?;
    let overwrites = options.on_conflict == OnConflict::Overwrite;
    let refusing = conflicts
        .listed
        .iter()
        .any(|conflict| is_needed(conflict) || !overwrites && conflict.kind == ConflictKind::RequiredBy);
    let undecided = run.view.undecided(&part);
    if overwrites && !undecided.is_empty() && run.view.steps_to_undo(&part).is_empty() {
        return Ok(too_late(&run, undecided, &part));
    }
    // What a later deployment made of it is not overwritten: its own undo would take that for what it left.
    let of_a_later = overwrites && !(overlaps.is_empty() && of_later.is_empty());
    if refusing
        || is_impossible
        || of_a_later
        || (options.on_conflict == OnConflict::Stop && !(conflicts.is_empty() && of_later.is_empty()))
    {
        return Ok(refused(&mut run, conflicts.and(of_later), overlaps, &part, options.on_conflict));
    }
    let outcome = run.undo_now(Part {
        frame: part,
        on_conflict: options.on_conflict,
        of_later,
        unattributed: options.unattributed,
    })?;
    Ok(run.closed(outcome))
}

/// Shows what an undo would do and what stands in its way. Changes nothing.
pub fn plan(
    session: &mut Session<'_>,
    what: Option<&str>,
    options: Options,
    each: &mut dyn FnMut(Described),
) -> Result<Outcome, EngineError> {
    let Options { on_conflict, unattributed } = options;
    let (view, part) = chosen(session.journal.reader(), what)?;
    let mut run = Run::new(session, view);
    run.view.unattributed = unattributed;
    let later = run.later_steps(&part)?;
    let Foreseen { conflicts, of_later, overlaps, .. } = run.conflicts_of_undo_fully(&part, on_conflict, &later)?;
    let conflicts = conflicts.and(of_later);
    for step in run.view.steps_to_undo(&part) {
        run.describe(&step, each)?;
    }
    let mut outcome = Outcome::new(if conflicts.is_empty() { Status::Done } else { Status::Refused }, NOTHING_CHANGED);
    outcome.deployment = Some(run.view.id.clone());
    outcome.conflicts_total = conflicts.total;
    outcome.conflicts = conflicts.listed;
    outcome.notes = overlaps.iter().map(Overlap::to_string).collect();
    Ok(outcome)
}

/// Images that cannot be opened fail when they are read, as damaged ones do.
pub(crate) fn open(reader: &Reader, seq: u64) -> Box<dyn Images> {
    match reader.open_images(seq) {
        Ok(images) => images,
        Err(error) => Box::new(Unreadable(error.to_string())),
    }
}

struct Unreadable(String);

impl Read for Unreadable {
    fn read(&mut self, _into: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other(self.0.clone()))
    }
}

impl Seek for Unreadable {
    fn seek(&mut self, _to: SeekFrom) -> io::Result<u64> {
        Err(io::Error::other(self.0.clone()))
    }
}

/// `ID` or `ID/CHILD`, as commands take it.
pub(crate) fn name_of_part(view: &View, part: &FramePath) -> String {
    if part.is_root() { view.id.to_string() } else { format!("{}/{part}", view.id) }
}

pub(crate) fn chosen(reader: &Reader, what: Option<&str>) -> Result<(View, FramePath), EngineError> {
    let (row, part) = match what {
        Some(what) => {
            let (prefix, part) = split(what);
            (find(reader, prefix)?, part)
        }
        None => {
            let rows = reader.deployments()?;
            let latest = rows.into_iter().find(|row| row.state.is_on_site());
            let latest = latest
                .ok_or_else(|| EngineError::NotNow { what: "there is no deployment to undo".to_owned(), hint: None })?;
            (latest, FramePath::root())
        }
    };
    let view = View::load(reader, &row.id)?;
    view.is_kept()?;
    match view.state {
        Some(state) if state.is_on_site() => {}
        Some(DeploymentState::Undone) => {
            return Err(EngineError::not_now(
                format!("{} ({}) is undone already", view.id, view.name()),
                "`backout redo` brings back what was last undone",
            ));
        }
        Some(DeploymentState::GivenUp) => {
            return Err(EngineError::NotNow {
                what: format!(
                    "{} ({}) was given up and can't be undone: {}",
                    view.id,
                    view.name(),
                    view.why.causes.join("; ")
                ),
                hint: None,
            });
        }
        _ => {
            return Err(EngineError::NotNow {
                what: format!("{} ({}) left nothing on the site to undo", view.id, view.name()),
                hint: None,
            });
        }
    }
    if !part.is_root() {
        match view.frames.get(&part).map(|frame| frame.state) {
            Some(FrameState::Done | FrameState::Started | FrameState::Failing) => {}
            Some(_) => {
                return Err(EngineError::NotNow {
                    what: format!("{part} of {} has nothing on the site to undo", view.id),
                    hint: None,
                });
            }
            None => {
                return Err(EngineError::Usage {
                    what: format!("{} has no child package `{part}`", view.id),
                    hint: Some(format!("`backout show {}` lists its children", view.id)),
                });
            }
        }
    }
    Ok((view, part))
}

impl Run<'_, '_> {
    /// The conflicts that can be known beforehand. A single step is its own check: it stops before its first change;
    /// but a site is not closed to its users to find that out.
    fn conflicts_of_undo(&mut self, part: &FramePath, on_conflict: OnConflict) -> Result<Foreseen, EngineError> {
        let many = self.view.steps_to_undo(part).len() > 1;
        let later = self.later_steps(part)?;
        // What nothing can overwrite is found before anything is overwritten.
        let fully = many || on_conflict == OnConflict::Overwrite || self.session.config.maintenance.is_some();
        if fully || !later.is_empty() {
            return self.conflicts_of_undo_fully(part, on_conflict, &later);
        }
        let conflicts = self.known_conflicts(part)?;
        Ok(Foreseen { conflicts, of_later: Conflicts::default(), overlaps: Vec::new(), is_impossible: false })
    }

    /// The conflicts that the journal alone tells.
    fn known_conflicts(&mut self, part: &FramePath) -> Result<Conflicts, EngineError> {
        let mut conflicts = self.required_by(part)?;
        conflicts.extend(self.view.undecided(part));
        conflicts.extend(self.view.left_before(part));
        Ok(conflicts)
    }

    pub(crate) fn conflicts_of_undo_fully(
        &mut self,
        part: &FramePath,
        on_conflict: OnConflict,
        later: &[LaterStep],
    ) -> Result<Foreseen, EngineError> {
        let mut conflicts = self.known_conflicts(part)?;
        let steps = self.view.steps_to_undo(part);
        // What is in doubt is not checked beforehand: its undo itself finds out what is there.
        let certain: Vec<StepView> = steps
            .into_iter()
            .filter(|step| step.state == StepState::Applied && step.has_images && step.act().is_captured())
            .collect();
        let mut by_target: Vec<(&Act, String, Vec<u64>)> = Vec::new();
        for step in &certain {
            let label = self.session.targets.of(step.act())?.label();
            match by_target.iter_mut().find(|(_, known, _)| *known == label) {
                Some((_, _, seqs)) => seqs.push(step.seq),
                None => by_target.push((step.act(), label, vec![step.seq])),
            }
        }
        let (mut already, mut taken) = (Conflicts::default(), Conflicts::default());
        let mut is_impossible = false;
        let session = &mut *self.session;
        let reader = session.journal.reader();
        for (act, _, seqs) in by_target {
            // Opened one at a time: a deployment may have more steps than a process may open files.
            let mut images = seqs.into_iter().map(|seq| open(reader, seq));
            match session.targets.of(act)?.check_undo(&mut images, on_conflict) {
                Ok(report) => {
                    conflicts.extend(report.conflicts);
                    let (needed, others) = report.already.divided(is_needed);
                    taken.extend(needed);
                    already.extend(others);
                }
                Err(TargetError::Conflicts(found)) => {
                    is_impossible = on_conflict != OnConflict::Stop;
                    let (needed, others) = found.divided(is_needed);
                    taken.extend(needed);
                    conflicts.extend(others);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let OfLater { mut needed, made } = self.of_later(&taken.and(already.clone()), later)?;
        let overlaps = self.overlaps(&conflicts.clone().and(made.clone()), later)?;
        // Where it is refused by what is known, that comes first.
        let is_refused = !needed.is_empty()
            || match on_conflict {
                OnConflict::Stop => !(conflicts.is_empty() && made.is_empty()),
                OnConflict::Keep => false,
                OnConflict::Overwrite => !(overlaps.is_empty() && made.is_empty()),
            };
        if !is_refused {
            needed = self.shared(&certain, later, &conflicts.clone().and(already))?;
        }
        Ok(Foreseen { conflicts: needed.and(conflicts), of_later: made, overlaps, is_impossible })
    }

    fn undo_now(&mut self, part: Part) -> Result<Outcome, EngineError> {
        self.put_durably(Event::DeploymentUndoing, &FramePath::root(), None, payload(&part)?)?;
        self.undo_on(&part.frame, part.on_conflict).map_err(EngineError::under_way)
    }

    /// Undoes what is left of a part whose undo was announced: also how a resume goes on.
    pub fn undo_on(&mut self, part: &FramePath, on_conflict: OnConflict) -> Result<Outcome, EngineError> {
        self.session.observer.heard(Happening::Phase { name: "undoing" });
        self.find_all_changes(part)?;
        // What a process that died had begun is finished.
        let begun = self.view.touched(part).next().is_some();
        let mut settled = self.view.settled.clone();
        settled.extend(self.view.undecided(part));
        if let Err(error) = self.enter_maintenance() {
            if begun {
                return self.needs_hand(error.causes(), settled.into());
            }
            return self.undo_stopped(part, Status::Failed, error.causes(), Conflicts::default());
        }
        for step in self.view.steps_to_undo(part) {
            if !begun && self.session.observer.interrupted() {
                return self.undo_stopped(part, Status::Failed, vec![STOPPED.to_owned()], Conflicts::default());
            }
            match self.undo_surely(&step.frame, step.index, on_conflict) {
                Ok(report) => settled.extend(report.conflicts),
                Err(EngineError::Target(TargetError::Conflicts(found))) => {
                    let causes =
                        vec![format!("{} cannot be undone: {found} with changes made since", self.view.name_of(part))];
                    return self.undo_stopped(part, Status::Refused, causes, found);
                }
                // What the site holds is for the operator to see to; to go on without it is what was asked for.
                Err(error @ EngineError::Target(_))
                    if on_conflict == OnConflict::Keep && step.act().has_own_undo() && !self.lock_lost =>
                {
                    self.keep(&step, error.causes())?;
                }
                Err(error) if self.view.touched(part).next().is_none() => {
                    return self.undo_stopped(part, Status::Refused, error.causes(), Conflicts::default());
                }
                // What was undone so far is done again, unless somebody goes on with what was begun before.
                Err(error) if !begun => {
                    return self.undo_stopped(part, Status::Failed, error.causes(), Conflicts::default());
                }
                Err(error) => return self.needs_hand(error.causes(), settled.into()),
            }
        }
        if !begun && self.session.observer.interrupted() {
            return self.undo_stopped(part, Status::Failed, vec![STOPPED.to_owned()], Conflicts::default());
        }
        self.undone(part, on_conflict, settled)
    }

    /// Passes over a step whose own undo keeps failing.
    fn keep(&mut self, step: &StepView, causes: Vec<String>) -> Result<(), EngineError> {
        self.notes.push(format!("{} stays, its undo failed: {}", step.act().words(), causes.join(": ")));
        let why = payload(&Why::because(causes))?;
        self.put(Event::StepKept, &step.frame, Some(step.index), why)
    }

    fn undone(
        &mut self,
        part: &FramePath,
        on_conflict: OnConflict,
        mut settled: Conflicts,
    ) -> Result<Outcome, EngineError> {
        let root = FramePath::root();
        self.frames_undone(part)?;
        self.leave_maintenance();
        self.finally(part);
        let irreversible = self.view.leaves(part);
        let left = !self.view.undecided(part).is_empty();
        let event = if self.view.is_undone() { Event::DeploymentUndone } else { Event::DeploymentPartlyUndone };
        surely(|| self.put_durably(event, &root, None, Value::Null))?;
        let passed_over = self.view.steps.values().any(|step| part.contains(&step.frame) && step.kept.is_some());
        let kept = left || (on_conflict == OnConflict::Keep && !settled.is_empty());
        let of_later = self.view.undoings.last().map(|(_, part)| part.of_later.clone()).unwrap_or_default();
        let mut left_before = Conflicts::default();
        for step in self.view.touched(part) {
            left_before.join(step.left_before.clone());
        }
        for step in self.view.steps.values().filter(|step| part.contains(&step.frame) && step.act().is_of_others()) {
            if step.is_on_site() {
                self.notes.push(format!("{} stays: {}", step.act().words(), step.intended.summary.objects.join(", ")));
            }
        }
        let partly = kept || irreversible || passed_over || !of_later.is_empty() || !left_before.is_empty();
        // What others had made was put aside or is gone: no redo brings that back.
        let overwrote = on_conflict == OnConflict::Overwrite && !settled.is_empty();
        let mut outcome = Outcome::new(
            if partly { Status::Partly } else { Status::Done },
            if passed_over {
                "Undone, except for steps whose own undo failed."
            } else if kept {
                "Undone, except where the newer value was kept."
            } else if !of_later.is_empty() {
                "Undone, except for what a later deployment had a hand in, as listed: it goes with that one, or stays."
            } else if !left_before.is_empty() {
                "Undone, except for what an earlier undo had left."
            } else if irreversible {
                "Undone, except what was declared irreversible."
            } else if overwrote {
                "Undone and verified, over what others had changed where it is listed."
            } else if self.view.redoable().is_some() {
                "Undone and verified. `backout redo` brings it back."
            } else {
                "Undone and verified."
            },
        );
        outcome.deployment = Some(self.view.id.clone());
        let what = self.view.name_of(part);
        outcome.answer.push(format!("undid {what} ({})", name_of_part(&self.view, part)));
        outcome.answer.push(now_at(self.session.journal.reader())?);
        settled.join(of_later);
        settled.join(left_before);
        outcome.conflicts_total = settled.total;
        outcome.conflicts = settled.listed;
        outcome.notes.append(&mut self.notes);
        Ok(outcome)
    }

    /// How an undo ends that cannot go on: what it had undone is done again, and the deployment stands as before. Where
    /// a step is in doubt, that cannot be promised: it needs a hand.
    fn undo_stopped(
        &mut self,
        part: &FramePath,
        status: Status,
        causes: Vec<String>,
        conflicts: Conflicts,
    ) -> Result<Outcome, EngineError> {
        let root = FramePath::root();
        let tried = self.view.part.as_ref().map_or(OnConflict::Stop, |part| part.on_conflict);
        let in_doubt = self.view.touched(part).any(|step| step.state == StepState::UndoIntended);
        let undone_here = self.view.steps_to_redo(part, self.view.part_seq);
        if in_doubt {
            let mut outcome = self.needs_hand(causes, Left::default())?;
            if !conflicts.is_empty() {
                outcome.hints.splice(0..0, ways_out(&name_of_part(&self.view, part), possible(tried)));
            }
            outcome.conflicts_total = conflicts.total;
            outcome.conflicts = conflicts.listed;
            return Ok(outcome);
        }
        // What is put back is the latest of all then.
        let later = if conflicts.is_empty() { Vec::new() } else { self.later_steps(part)? };
        let overlaps = self.overlaps(&conflicts, &later)?;
        let nothing_yet = undone_here.is_empty();
        // Where somebody wrote to the same since, that is newer than the deployment and stays, as it would have without
        // this undo.
        for step in undone_here {
            if let Err(error) = self.redo_once(&step.frame, step.index, OnConflict::Keep) {
                let causes = causes.into_iter().chain(error.causes()).collect();
                return self.needs_hand(causes, conflicts.into());
            }
        }
        self.leave_maintenance();
        if !nothing_yet {
            self.finally(part);
        }
        let needed_hand = self.view.before_part == Some(DeploymentState::NeedsHand);
        let event = match self.view.undone_frames().next() {
            _ if needed_hand => Event::DeploymentNeedsHand,
            None => Event::DeploymentPutBack,
            Some(_) => Event::DeploymentPartlyUndone,
        };
        let said = if needed_hand { payload(&self.view.why)? } else { Value::Null };
        surely(|| self.put_durably(event, &root, None, said.clone()))?;
        let mut outcome = if conflicts.is_empty() {
            let mut outcome = Outcome::new(status, NOTHING_CHANGED);
            outcome.deployment = Some(self.view.id.clone());
            outcome.causes = causes;
            outcome.hints.extend(self.view.backup.as_ref().map(way_back));
            outcome
        } else {
            refused(self, conflicts, overlaps, part, tried)
        };
        if !nothing_yet {
            outcome.closing = "What had been undone was put back; the deployment stands as before.".to_owned();
        }
        Ok(outcome)
    }

    /// Names each change of a step and its undo.
    pub fn describe(&mut self, step: &StepView, each: &mut dyn FnMut(Described)) -> Result<(), EngineError> {
        crate::describe::describe(&mut self.session.targets, self.session.journal.reader(), step, each)
    }
}
