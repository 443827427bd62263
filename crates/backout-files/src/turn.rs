//! Undo and redo of a step: the same acts, in opposite directions.
//!
//! First every path is judged and nothing changed; then the turn is announced; then the acts are done, each guarded
//! once more by what it finds. A conflict that turns up only then puts back what was done, under `Stop`.

use std::collections::HashSet;

use backout_model::conflict::{Conflict, ConflictKind, OnConflict};
use backout_model::target::{Gate, Images, Manner, Report, TargetError};
use rustix::fd::AsFd;
use rustix::fs::FileType;
use serde_json::json;

use crate::beneath::{is_blocked, is_missing, subdirectory};
use crate::error::Acting;
use crate::hold::Step;
use crate::holding;
use crate::image::{self, Image, Kind, Time, shown};
use crate::inspect::filled;
use crate::judge::Now;
use crate::local::LocalRoot;
use crate::manifest::{Change, Manifest, Order, Record};
use crate::path::RootPath;
use crate::place::{NOTES_KEPT, Synced};
use crate::remove::is_empty;
use crate::rights;

/// Which way a step is turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Undo: from the after-images to the before-images, last change first.
    Back,
    /// Redo: the other way.
    Forth,
}

impl Direction {
    pub fn order(self) -> Order {
        match self {
            Direction::Back => Order::Backwards,
            Direction::Forth => Order::Forwards,
        }
    }

    /// What the path is expected to hold, and what it is to hold.
    pub fn ends(self, change: &Change) -> (Option<&Image>, Option<&Image>) {
        match self {
            Direction::Back => (change.after.as_ref(), change.before.as_ref()),
            Direction::Forth => (change.before.as_ref(), change.after.as_ref()),
        }
    }

    pub fn times(self, touch: &crate::manifest::Touch) -> (Time, Time) {
        match self {
            Direction::Back => (touch.after, touch.before),
            Direction::Forth => (touch.before, touch.after),
        }
    }
}

/// What was decided for one record: one byte each, so that a million of them cost a megabyte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A conflict that stays, or what somebody else did already.
    Leave,
    /// Done by an earlier attempt.
    Done,
    Act,
    /// Rights that others changed are carried over first.
    Merge,
    /// A conflict that is overwritten.
    Force,
    /// Done in this turn.
    Acted,
    /// A directory's time is set; for a directory that others changed since it is `Leave`.
    Time,
}

impl Decision {
    /// True where something goes into the hold or comes out of it.
    fn moves(self) -> bool {
        match self {
            Decision::Act | Decision::Merge | Decision::Force => true,
            Decision::Leave | Decision::Done | Decision::Acted | Decision::Time => false,
        }
    }
}

/// A turn under way.
pub struct Turn<'a> {
    pub root: &'a LocalRoot,
    pub direction: Direction,
    pub manner: Manner,
    pub step: Option<Step>,
    pub decisions: Vec<Decision>,
    pub report: Report,
    /// Directories that this turn makes: what goes into them has one, though it is not there yet.
    pub coming: HashSet<RootPath>,
}

impl LocalRoot {
    pub(crate) fn turn(
        &mut self,
        images: &mut dyn Images,
        direction: Direction,
        manner: Manner,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        let label = self.label.clone();
        let mut manifest = Manifest::open(images, &label)?;
        let header = manifest.header.clone();
        let mut report = Report::default();
        let elsewhere = self.elsewhere(&header)?;
        let leave = elsewhere.is_some() && manner.on_conflict != OnConflict::Overwrite;
        if let Some(conflict) = elsewhere {
            report.conflicts.push(conflict);
            // A redo that does nothing would have no images for the undo that may follow.
            if leave && (manner.on_conflict == OnConflict::Stop || direction == Direction::Forth) {
                return Err(TargetError::Conflicts(report.conflicts));
            }
        }
        let step = self.held(&header)?;
        let mut turn = Turn {
            root: self,
            direction,
            manner,
            step,
            decisions: vec![Decision::Leave; manifest.len()],
            report,
            coming: HashSet::new(),
        };
        if !leave {
            if manner.in_doubt {
                turn.settle(&mut manifest)?;
            }
            turn.decide(&mut manifest, &header, gate)?;
            turn.report.knows_already = direction == Direction::Forth;
        }
        if turn.step.is_none() && turn.decisions.iter().any(|decision| decision.moves()) {
            turn.step = Some(turn.root.hold.anew(&header.step)?);
        }
        turn.report.summary.note = json!({ "hold": header.step });
        gate.announce(&turn.report.summary)?;
        turn.act(&mut manifest, gate)?;
        Ok(turn.report)
    }
}

impl Turn<'_> {
    pub(crate) fn note(&mut self, note: Option<String>) {
        if let Some(note) = note
            && self.report.notes.len() < NOTES_KEPT
        {
            self.report.notes.push(note);
        }
    }

    /// Does what was decided, sets times, and makes it durable.
    fn act(&mut self, manifest: &mut Manifest<'_>, gate: &mut dyn Gate) -> Result<(), TargetError> {
        let Some(mut step) = self.step.take() else { return Ok(()) };
        let root = self.root;
        step.settle_name().acting(|| format!("cannot name the hold of a step of {}", root.label))?;
        let mut synced = Synced::default();
        let (mut done, all) = (0, self.report.summary.changes);
        let mut stopped = None;
        let mut is_half = false;
        let acted = manifest.visit(self.direction.order(), |i, record| {
            let Record::Change(change) = record else { return Ok(()) };
            match self.decisions[i] {
                Decision::Act | Decision::Merge | Decision::Force => {}
                // An earlier attempt may have died before it came to that.
                Decision::Done => return root.lead_at(change, &step),
                Decision::Leave | Decision::Acted | Decision::Time => return Ok(()),
            }
            let one = self.one(i, change, &step, &mut synced);
            // A copy may be there in part: the next attempt looks for that.
            is_half = one.is_err() && change.copied;
            match one? {
                None => {}
                Some(conflict) => {
                    self.report.conflicts.push(conflict);
                    if self.manner.on_conflict == OnConflict::Stop {
                        stopped = Some(i);
                        return Err(TargetError::failed("stopped", "a conflict"));
                    }
                }
            }
            done += 1;
            if done % 64 == 0 {
                gate.progress(done, Some(all));
            }
            Ok(())
        });
        if stopped.is_some() {
            self.put_back(manifest, &step, &mut synced)?;
            synced.finish(root, &step)?;
            return Err(TargetError::Conflicts(std::mem::take(&mut self.report.conflicts)));
        }
        let finished = acted.and_then(|()| {
            let (direction, decisions, notes) = (self.direction, &self.decisions, &mut self.report.notes);
            manifest.visit(Order::Backwards, |i, record| match record {
                Record::Touch(touch) if decisions[i] == Decision::Time => {
                    root.set_time(touch, direction.times(touch).1, notes)
                }
                Record::Touch(_) | Record::Change(_) => Ok(()),
            })?;
            synced.finish(root, &step)
        });
        if let Err(error) = finished {
            // What an earlier attempt had done is not told apart from that.
            if self.manner.in_doubt || is_half {
                return Err(error);
            }
            let mut synced = Synced::default();
            let back = self.put_back(manifest, &step, &mut synced).and_then(|()| synced.finish(root, &step));
            return Err(if back.is_ok() { error.put_back() } else { error });
        }
        gate.progress(done, Some(all));
        Ok(())
    }

    /// One act. A conflict where the path no longer holds what it was judged by.
    fn one(
        &mut self,
        i: usize,
        change: &Change,
        step: &Step,
        synced: &mut Synced,
    ) -> Result<Option<Conflict>, TargetError> {
        let root = self.root;
        let turning = || format!("cannot put back {} in {}", change.path, root.label);
        let (from, to) = self.direction.ends(change);
        let mut force = self.decisions[i] == Decision::Force;
        let mut late = None;
        let dir = match root.root.parent(&change.path) {
            Ok(dir) => dir,
            Err(error) if force && is_missing(&error) => root.make_parents(&change.path)?,
            Err(error) if is_missing(&error) || is_blocked(&error) => {
                self.decisions[i] = Decision::Leave;
                return Ok(Some(self.late(change, &root.now(change)?)));
            }
            Err(error) => return Err(error).acting(turning),
        };
        synced.directory(&change.path.parent(), &dir).acting(turning)?;
        let carry = root.carry(change, step, dir.as_fd());
        let live = image::stat(&dir, change.path.name()).acting(turning)?;
        // It came or went since it was judged.
        if live.is_some() != from.is_some() && !force {
            late = Some(self.late(change, &root.now(change)?));
            if self.manner.on_conflict != OnConflict::Overwrite {
                self.decisions[i] = Decision::Leave;
                return Ok(late);
            }
            force = true;
        }
        // Only what this turn itself took out of a directory is gone from it by now.
        let is_directory =
            live.as_ref().is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if is_directory
            && from.is_some_and(|from| from.kind == Kind::Dir)
            && to.is_some_and(|to| !to.is_dir())
            && !force
            && !is_empty(subdirectory(&dir, change.path.name()).acting(turning)?).acting(turning)?
        {
            late = Some(filled(&root.label, change, self.direction));
            if self.manner.on_conflict != OnConflict::Overwrite {
                self.decisions[i] = Decision::Leave;
                return Ok(late);
            }
            force = true;
        }
        if self.decisions[i] == Decision::Merge {
            rights::carry_over(&dir, change.path.name(), step, change.n, from, to).acting(turning)?;
        }
        let acted = match (live.is_some(), to.is_some()) {
            (true, true) => carry.swap(),
            (false, true) => carry.put(),
            (true, false) if from.is_some_and(|from| from.kind == Kind::Dir) && !force => {
                if !self.take_directory(change, &carry, &dir, step)? {
                    self.decisions[i] = Decision::Leave;
                    return Ok(None);
                }
                Ok(())
            }
            (true, false) => carry.take(),
            (false, false) => Ok(()),
        };
        match acted {
            // And once more, between the look and the act.
            Err(error) if [std::io::ErrorKind::NotFound, std::io::ErrorKind::AlreadyExists].contains(&error.kind()) => {
                self.decisions[i] = Decision::Leave;
                return Ok(Some(self.late(change, &root.now(change)?)));
            }
            other => other.acting(turning)?,
        }
        self.decisions[i] = Decision::Acted;
        root.lead(change, step, dir.as_fd())?;
        if force {
            if live.is_some() {
                self.note(Some(format!("{}: what was overwritten is kept in {}", change.path, step.shown(change.n))));
            }
            return Ok(late);
        }
        self.landed(i, change, step, &carry)
    }

    /// Looks at what came into the hold: written to since it was judged, it is a conflict after all.
    fn landed(
        &mut self,
        i: usize,
        change: &Change,
        step: &Step,
        carry: &crate::carry::Carry<'_>,
    ) -> Result<Option<Conflict>, TargetError> {
        let (from, to) = self.direction.ends(change);
        let (Some(from), false) = (from, change.copied) else { return Ok(None) };
        let looking = || format!("cannot look at what {} in {} held", change.path, self.root.label);
        let stat = step.stat(change.n).acting(looking)?;
        if from.held.is_none() && (stat.as_ref().is_some_and(|stat| from.looks_untouched(stat)) || from.is_dir()) {
            return Ok(None);
        }
        let name = change.n.to_string().into_bytes();
        let mut found = image::take(step.dir(), &name).acting(looking)?;
        if let Some(found) = found.as_mut().filter(|found| found.is_dir() && from.held.is_some()) {
            let dir = subdirectory(step.dir(), &name).acting(looking)?;
            found.held = Some(holding::digest(dir).acting(looking)?);
        }
        if found.as_ref().is_some_and(|found| found.same_content(from) && !from.holds_otherwise(found)) {
            return Ok(None);
        }
        let conflict = self.late(change, &found.map_or(Now::Absent, Now::Holds));
        match self.manner.on_conflict {
            OnConflict::Stop => {}
            OnConflict::Keep => {
                if to.is_some() { carry.swap() } else { carry.put() }.acting(looking)?;
                self.root.lead(change, step, carry.dir)?;
                self.decisions[i] = Decision::Leave;
            }
            OnConflict::Overwrite => {
                let place = step.shown(change.n);
                self.note(Some(format!("{}: what was overwritten is kept in {place}", change.path)));
            }
        }
        Ok(Some(conflict))
    }

    /// Takes a directory that the step made, if nobody put anything into it; else it stays.
    fn take_directory(
        &mut self,
        change: &Change,
        carry: &crate::carry::Carry<'_>,
        dir: &rustix::fd::OwnedFd,
        step: &Step,
    ) -> Result<bool, TargetError> {
        let taking = || format!("cannot take {} out of {}", change.path, self.root.label);
        let mut empty = is_empty(subdirectory(dir, change.path.name()).acting(taking)?).acting(taking)?;
        if empty {
            carry.take().acting(taking)?;
            if !change.copied {
                // Somebody may have put a file in between the look and the move.
                let name = change.n.to_string().into_bytes();
                empty = is_empty(subdirectory(step.dir(), &name).acting(taking)?).acting(taking)?;
                if !empty {
                    carry.put().acting(taking)?;
                }
            }
        }
        if !empty {
            self.note(Some(format!("the directory {} stays: it holds what others put there", change.path)));
        }
        Ok(empty)
    }

    fn late(&self, change: &Change, now: &Now) -> Conflict {
        let (from, to) = self.direction.ends(change);
        let kind = match now {
            Now::Absent | Now::NoDirectory => ConflictKind::Missing,
            _ if from.is_none() => ConflictKind::Appeared,
            Now::Blocked | Now::Holds(_) => ConflictKind::Changed,
        };
        Conflict {
            target: self.root.label.clone(),
            object: change.path.to_string(),
            key: None,
            column: None,
            kind,
            before: shown(to),
            left: shown(from),
            now: now.image().map_or_else(|| "nothing".to_owned(), Image::to_string),
        }
    }

    /// Does the acts of this turn in reverse, so that everything is as it was before.
    fn put_back(&mut self, manifest: &mut Manifest<'_>, step: &Step, synced: &mut Synced) -> Result<(), TargetError> {
        let root = self.root;
        let opposite = if self.direction == Direction::Back { Order::Forwards } else { Order::Backwards };
        let (direction, decisions) = (self.direction, &self.decisions);
        manifest.visit(opposite, |i, record| {
            let Record::Change(change) = record else { return Ok(()) };
            if decisions[i] != Decision::Acted {
                return Ok(());
            }
            let turning = || format!("cannot put {} in {} back to how it was", change.path, root.label);
            let dir = root.root.parent(&change.path).acting(turning)?;
            let carry = root.carry(change, step, dir.as_fd());
            match direction.ends(change) {
                (None, Some(_)) => carry.take(),
                (Some(_), Some(to)) => carry.swap().and_then(|()| rights::reset(step, change.n, to)),
                (Some(_), None) => carry.put(),
                (None, None) => Ok(()),
            }
            .acting(turning)?;
            root.lead(change, step, dir.as_fd())?;
            synced.directory(&change.path.parent(), &dir).acting(turning)
        })?;
        let notes = &mut self.report.notes;
        manifest.visit(Order::Backwards, |i, record| match record {
            Record::Touch(touch) if decisions[i] == Decision::Time => {
                root.set_time(touch, direction.times(touch).0, notes)
            }
            Record::Touch(_) | Record::Change(_) => Ok(()),
        })
    }
}
