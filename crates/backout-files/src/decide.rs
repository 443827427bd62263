//! The first half of a turn: every path is judged, the images are written, and nothing is changed yet.
//!
//! Stops with the list of conflicts where the caller wants that.

use std::collections::HashSet;
use std::io::{BufWriter, Write};

use backout_model::conflict::{Conflict, ConflictKind, OnConflict};
use backout_model::target::{Gate, TargetError};
use rustix::fd::AsFd;

use crate::beneath::{is_blocked, is_missing, subdirectory};
use crate::error::Acting;
use crate::holding;
use crate::image::{self, Image, Kind, shown};
use crate::inspect::already;
use crate::judge::{Case, Now, Verdict, judge};
use crate::manifest::{Act, Change, Header, Manifest, Order, Record, Writer};
use crate::path::RootPath;
use crate::stage::count;
use crate::turn::{Decision, Direction, Turn};

impl Turn<'_> {
    /// Finishes or takes back what a crash left in the middle of an emulated act.
    pub(crate) fn settle(&mut self, manifest: &mut Manifest<'_>) -> Result<(), TargetError> {
        let Some(step) = &self.step else { return Ok(()) };
        let label = &self.root.label;
        let names = step.names().acting(|| format!("cannot list the hold of {label}"))?;
        let second: HashSet<u64> =
            names.iter().filter_map(|name| std::str::from_utf8(name).ok()?.strip_suffix(".t")?.parse().ok()).collect();
        manifest.visit(Order::Forwards, |_, record| {
            let Record::Change(change) = record else { return Ok(()) };
            if !change.copied && !second.contains(&change.n) {
                return Ok(());
            }
            let settling = || format!("cannot settle {} in {label}", change.path);
            match self.root.root.parent(&change.path) {
                Ok(dir) => self.root.carry(change, step, dir.as_fd()).settle().acting(settling),
                Err(error) if is_missing(&error) || is_blocked(&error) => Ok(()),
                Err(error) => Err(error).acting(settling),
            }
        })
    }

    /// Judges every path, writes the images of the turn, and stops where the caller wants to be stopped.
    pub(crate) fn decide(
        &mut self,
        manifest: &mut Manifest<'_>,
        header: &Header,
        gate: &mut dyn Gate,
    ) -> Result<(), TargetError> {
        let act = if self.direction == Direction::Back { Act::Undo } else { Act::Redo };
        let place = self.root.whereabouts()?;
        let begin = |gate: &mut dyn Gate| -> std::io::Result<Writer> {
            let out: Box<dyn Write + Send> = Box::new(BufWriter::with_capacity(64 * 1024, gate.images()));
            Writer::begin(Header::new(act, &header.root, &header.step, header.time, Some(place.clone())), vec![out])
        };
        let writing = || format!("cannot write the images of {}", self.root.label.clone());
        let label = self.root.label.clone();
        let write_failed = move || format!("cannot write the images of {label}");
        let mut writer = if act == Act::Redo { Some(begin(gate).acting(writing)?) } else { None };
        manifest.visit(self.direction.order(), |i, record| match record {
            Record::Touch(touch) => {
                let (from, _) = self.direction.times(touch);
                let now = self.root.time_of(&touch.path)?;
                // After a crash the time may be anything; else a time that is not what was left is somebody else's.
                if self.manner.in_doubt || now.is_none_or(|now| now == from) {
                    self.decisions[i] = Decision::Time;
                }
                if let (Act::Redo, Some(writer)) = (act, &mut writer) {
                    let mut touch = touch.clone();
                    if !self.manner.in_doubt {
                        touch.before = now.unwrap_or(touch.before);
                    }
                    writer.touch(touch).acting(&write_failed)?;
                }
                Ok(())
            }
            Record::Change(change) => {
                let now = self.now(change)?;
                self.decisions[i] = self.decision(change, &now)?;
                let before = match (act, self.decisions[i]) {
                    (Act::Redo, Decision::Act | Decision::Merge) => now.image().map(|now| as_moved(now, change)),
                    (_, Decision::Force) => self.root.whole_image(&change.path)?,
                    // Placed by an earlier attempt at this redo: what it replaced lies in the hold.
                    (Act::Redo, Decision::Done) => self.replaced(change)?,
                    _ => return Ok(()),
                };
                if writer.is_none() {
                    writer = Some(begin(gate).acting(&write_failed)?);
                }
                let (_, to) = self.direction.ends(change);
                let change = Change { before, after: to.cloned(), ..Change::clone(change) };
                writer.as_mut().map_or(Ok(()), |writer| writer.change(change)).acting(&write_failed)
            }
        })?;
        if let Some(writer) = writer {
            writer.end().acting(write_failed)?;
        }
        if self.manner.on_conflict == OnConflict::Stop && !self.report.conflicts.is_empty() {
            return Err(TargetError::Conflicts(std::mem::take(&mut self.report.conflicts)));
        }
        Ok(())
    }

    /// What the path of a change holds, as far as judging needs it.
    fn now(&self, change: &Change) -> Result<Now, TargetError> {
        let now = self.root.now(change)?;
        if matches!(now, Now::NoDirectory | Now::Blocked) && self.comes(&change.path) {
            return Ok(Now::Absent);
        }
        Ok(now)
    }

    fn comes(&self, path: &RootPath) -> bool {
        !self.coming.is_empty() && self.coming.contains(&path.parent())
    }

    fn decision(&mut self, change: &Change, now: &Now) -> Result<Decision, TargetError> {
        let (from, to) = self.direction.ends(change);
        let looking = || format!("cannot look into the hold for {} of {}", change.path, self.root.label);
        let held = match &self.step {
            Some(step) => step.stat(change.n).acting(looking)?,
            None => None,
        };
        let verdict = judge(&Case {
            target: &self.root.label,
            path: &change.path,
            from,
            to,
            now,
            held: held.as_ref().map(image::ino),
            copied: change.copied || self.step.is_none(),
            in_doubt: self.manner.in_doubt,
        });
        let is_certain = self.direction == Direction::Back && !self.manner.in_doubt;
        let taken = if is_certain {
            self.root.gone.borrow().conflict(&self.root.label, change, self.step.as_ref())?
        } else {
            None
        };
        if let (Some(conflict), Verdict::Act { .. }) = (taken, &verdict) {
            self.report.conflicts.push(conflict);
            if self.manner.on_conflict != OnConflict::Overwrite {
                return Ok(Decision::Leave);
            }
        }
        let decision = match verdict {
            Verdict::Done(note) => {
                if is_certain {
                    self.root.gone.borrow_mut().note(change);
                }
                if self.direction == Direction::Forth {
                    self.report.already.push(already(&self.root.label, change, now));
                }
                self.note(note);
                return Ok(if self.manner.in_doubt { Decision::Done } else { Decision::Leave });
            }
            Verdict::Act { merge: true } => Decision::Merge,
            Verdict::Act { merge: false } => Decision::Act,
            Verdict::Conflict(conflict) => {
                let out_of_reach = matches!(now, Now::Blocked);
                self.report.conflicts.push(*conflict);
                if self.manner.on_conflict == OnConflict::Keep
                    && to.is_some()
                    && let Some(step) = self.step.as_ref().filter(|_| held.is_some())
                {
                    let place = step.shown(change.n);
                    self.note(Some(format!("{}: what does not come back is kept in {place}", change.path)));
                }
                if self.manner.on_conflict != OnConflict::Overwrite || out_of_reach {
                    return Ok(Decision::Leave);
                }
                Decision::Force
            }
        };
        if let Some(to) = to {
            let Some(stat) = held else {
                if self.direction == Direction::Forth && from.is_none() && now.image().is_none() {
                    // The undo found it so.
                    self.note(Some(format!("{} was gone before the undo, and stays away", change.path)));
                    return Ok(Decision::Leave);
                }
                if self.direction == Direction::Forth {
                    self.not_kept(change, to, "the hold has nothing in its place".to_owned());
                    return Ok(Decision::Leave);
                }
                let act = format!("cannot bring back {} in {}", change.path, self.root.label);
                return Err(TargetError::failed(act, format!("the hold does not keep it any more: {to}")));
            };
            let is_linked = stat.st_nlink > 1 && matches!(to.kind, Kind::File { .. }) || to.held.is_some();
            if self.direction == Direction::Back && is_linked && !self.manner.in_doubt {
                if self.was_changed_by_another_name(change, to)? && self.manner.on_conflict != OnConflict::Overwrite {
                    return Ok(Decision::Leave);
                }
            } else if !to.looks_untouched(&stat) && !self.still_good(change, to)? {
                return Ok(Decision::Leave);
            }
            if to.is_dir() {
                self.coming.insert(change.path.clone());
            }
        }
        count(&mut self.report.summary, &change.path, from, to);
        Ok(decision)
    }

    /// What an earlier attempt at this redo replaced: by the manifest, or what the hold says by now.
    fn replaced(&self, change: &Change) -> Result<Option<Image>, TargetError> {
        let looking = || format!("cannot look into the hold for {} of {}", change.path, self.root.label);
        let (Some(step), Some(before)) = (&self.step, &change.before) else { return Ok(change.before.clone()) };
        match step.stat(change.n).acting(looking)? {
            Some(stat) if !change.copied && !before.is_dir() && !before.looks_untouched(&stat) => {
                image::take(step.dir(), change.n.to_string().as_bytes()).acting(looking)
            }
            Some(_) | None => Ok(change.before.clone()),
        }
    }

    /// The kept file was written to while it was kept. Undo brings it back all the same: it is the very file that
    /// somebody had open and went on writing to. Redo promises the same result, so there it is a conflict.
    fn still_good(&mut self, change: &Change, to: &Image) -> Result<bool, TargetError> {
        let Some(step) = &self.step else { return Ok(false) };
        let reading = || format!("cannot read what is kept of {} of {}", change.path, self.root.label);
        let kept = image::take(step.dir(), change.n.to_string().as_bytes()).acting(reading)?;
        if kept.as_ref().is_some_and(|kept| kept.same_content(to)) {
            return Ok(true);
        }
        let shown_at = step.shown(change.n);
        if self.direction == Direction::Back {
            self.note(Some(format!(
                "{}: a program went on writing to the old file after it was replaced; its last content is brought back",
                change.path
            )));
            return Ok(true);
        }
        let now = format!("{} is kept in its place in {shown_at}", shown(kept.as_ref()));
        self.not_kept(change, to, now);
        Ok(false)
    }

    /// The kept file has other names, and somebody changed it through one of them: what comes back is not what was there.
    fn was_changed_by_another_name(&mut self, change: &Change, to: &Image) -> Result<bool, TargetError> {
        let Some(step) = &self.step else { return Ok(false) };
        let reading = || format!("cannot read what is kept of {} of {}", change.path, self.root.label);
        let name = change.n.to_string().into_bytes();
        let kept = image::take(step.dir(), &name).acting(reading)?;
        let is_another = match (&kept, to.held) {
            (Some(_), Some(held)) => {
                let dir = || subdirectory(step.dir(), &name).acting(reading);
                holding::digest(dir()?).acting(reading)? != held && holding::has_links(dir()?).acting(reading)?
            }
            (Some(kept), None) => !kept.same_content(to) || !kept.same_rights(to),
            (None, _) => false,
        };
        let Some(kept) = kept.filter(|_| is_another) else { return Ok(false) };
        self.report.conflicts.push(Conflict {
            target: self.root.label.clone(),
            object: change.path.to_string(),
            key: None,
            column: None,
            kind: ConflictKind::Changed,
            before: to.to_string(),
            left: shown(change.after.as_ref()),
            now: format!("{kept}: it is kept, and was changed through another of its names (hard links)"),
        });
        Ok(true)
    }

    /// What the deployment left was replaced or removed by others before its undo: a redo cannot bring it back.
    fn not_kept(&mut self, change: &Change, to: &Image, now: String) {
        self.report.conflicts.push(Conflict {
            target: self.root.label.clone(),
            object: change.path.to_string(),
            key: None,
            column: None,
            kind: ConflictKind::NotKept,
            before: to.to_string(),
            left: shown(change.before.as_ref()),
            now,
        });
    }
}

/// The image of what is there now, as a directory with all it holds where the step moves it as one.
fn as_moved(now: &Image, change: &Change) -> Image {
    match &change.before {
        Some(before) if before.kind == Kind::Tree && now.is_dir() => Image { kind: Kind::Tree, ..now.clone() },
        Some(_) | None => now.clone(),
    }
}
