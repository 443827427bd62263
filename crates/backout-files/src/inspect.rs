//! What can be said of a step without changing anything: its changes, whether it took effect, whether its images and
//! the live paths are still what they were, and whether undoing it would meet a conflict.

use std::collections::HashMap;

use backout_model::conflict::{Conflict, ConflictKind, Conflicts, OnConflict};
use backout_model::target::{Described, Finding, Images, Probe, Report, TargetError, Touched};
use rustix::fd::AsFd;

use crate::ahead::Ahead;
use crate::error::Acting;
use crate::gone::Gone;
use crate::hold::Step;
use crate::image::{self, Image, Kind, shown};
use crate::judge::{Case, Now, Verdict, differing, judge};
use crate::local::LocalRoot;
use crate::manifest::{Act, Change, Manifest, Order, Record};
use crate::path::RootPath;
use crate::place::{NOTES_KEPT, Synced};
use crate::plan::deletion;
use crate::rights;
use crate::stage::count;
use crate::turn::Direction;

/// At most so many findings are made of one step.
const FINDINGS_KEPT: usize = 1000;

/// The change as it comes where others' rights go over to what it brings back: the steps before it meet those.
fn with_rights_of_others(change: &Change, now: &Now) -> Option<Change> {
    let (Some(from), Some(to), Now::Holds(now)) = (&change.after, &change.before, now) else { return None };
    Some(Change { before: Some(rights::carried(from, to, now)), ..change.clone() })
}

/// True for a directory that the step made.
fn is_made(change: &Change) -> bool {
    change.before.is_none() && change.after.as_ref().is_some_and(|after| after.kind == Kind::Dir)
}

/// True for a directory that the step made in the place of something else.
fn is_made_of_another(change: &Change) -> bool {
    change.before.as_ref().is_some_and(|before| !before.is_dir())
        && change.after.as_ref().is_some_and(|after| after.kind == Kind::Dir)
}

/// That what is to be in a directory's place cannot come there: the directory holds what others put there.
pub fn filled(label: &str, change: &Change, direction: Direction) -> Conflict {
    let (from, to) = direction.ends(change);
    Conflict {
        target: label.to_owned(),
        object: change.path.to_string(),
        key: None,
        column: None,
        kind: ConflictKind::NotEmpty,
        before: shown(to),
        left: shown(from),
        now: "what others put there".to_owned(),
    }
}

/// Whether a path, as people are shown it, lies in a directory.
fn is_beneath(path: &str, dir: &str) -> bool {
    dir == "." || path.strip_prefix(dir).is_some_and(|below| below.starts_with('/'))
}

impl LocalRoot {
    pub(crate) fn seek_conflicts(
        &mut self,
        steps: &mut dyn Iterator<Item = Box<dyn Images>>,
        on_conflict: OnConflict,
    ) -> Result<Report, TargetError> {
        let label = self.label.clone();
        let mut report = Report::default();
        let mut out_of_reach = Conflicts::default();
        let mut ahead = Ahead::default();
        let mut gone = Gone::default();
        let mut steps = steps.enumerate().peekable();
        while let Some((number, mut images)) = steps.next() {
            let more = steps.peek().is_some();
            // Of one step alone it is enough to know how many entries of each directory it takes away.
            let alone = !more && number == 0;
            let mut going: HashMap<RootPath, usize> = HashMap::new();
            let mut manifest = Manifest::open(&mut *images, &label)?;
            let header = manifest.header.clone();
            let hold = self.held(&header)?;
            if let Some(conflict) = self.elsewhere(&header)? {
                report.conflicts.push(conflict);
                if on_conflict != OnConflict::Overwrite {
                    continue;
                }
            }
            manifest.visit(Order::Backwards, |_, record| {
                let Record::Change(change) = record else { return Ok(()) };
                let now = self.now_ahead(change, &ahead)?;
                if let Some(conflict) = gone.conflict(&label, change, hold.as_ref())? {
                    report.conflicts.push(conflict);
                    if on_conflict != OnConflict::Overwrite {
                        return Ok(());
                    }
                }
                let verdict = judge(&Case {
                    target: &label,
                    path: &change.path,
                    from: change.after.as_ref(),
                    to: change.before.as_ref(),
                    now: &now,
                    held: None,
                    copied: true,
                    in_doubt: false,
                });
                let mut carried = None;
                let turned = match verdict {
                    Verdict::Act { merge } => {
                        carried = merge.then(|| with_rights_of_others(change, &now)).flatten();
                        true
                    }
                    Verdict::Done(note) => {
                        gone.note(change);
                        report.already.push(already(&label, change, &now));
                        report.notes.extend(note.filter(|_| report.notes.len() < NOTES_KEPT));
                        false
                    }
                    Verdict::Conflict(conflict) => {
                        if matches!(now, Now::Blocked) {
                            out_of_reach.push((*conflict).clone());
                        }
                        report.conflicts.push(*conflict);
                        on_conflict == OnConflict::Overwrite && !matches!(now, Now::Blocked)
                    }
                };
                // A directory that holds what others put there stays.
                let is_filled = turned
                    && (is_made(change) || is_made_of_another(change))
                    && now.image().is_some_and(Image::is_dir)
                    && if !alone {
                        self.stays_filled(&change.path, &ahead)?
                    } else {
                        self.entries(&change.path)?.len() > going.get(&change.path).copied().unwrap_or(0)
                    };
                let mut stays = is_filled;
                if is_filled && is_made_of_another(change) {
                    report.conflicts.push(filled(&label, change, Direction::Back));
                    stays = on_conflict != OnConflict::Overwrite;
                } else if is_filled {
                    report.already.push(Conflict { kind: ConflictKind::NotEmpty, ..already(&label, change, &now) });
                }
                if !turned || stays {
                    return Ok(());
                }
                if alone && change.before.is_none() {
                    *going.entry(change.path.parent()).or_default() += 1;
                }
                self.must_be_held(change, hold.as_ref())?;
                count(&mut report.summary, &change.path, change.after.as_ref(), change.before.as_ref());
                // Only directories matter to the rest of the same step; files to those of other steps.
                if !alone || change.before.as_ref().is_some_and(Image::is_dir) {
                    ahead.note(carried.as_ref().unwrap_or(change), || self.held(&header))?;
                }
                Ok(())
            })?;
        }
        // What lies beyond a link or a file is not overwritten by any means.
        if on_conflict == OnConflict::Overwrite && !out_of_reach.is_empty() {
            return Err(TargetError::Conflicts(out_of_reach));
        }
        Ok(report)
    }

    /// See [`backout_model::target::Target::meets`].
    pub(crate) fn meets_step(
        &mut self,
        images: &mut dyn Images,
        conflicts: &[Conflict],
    ) -> Result<Vec<bool>, TargetError> {
        let mut met = vec![false; conflicts.len()];
        Manifest::open(images, &self.label)?.visit(Order::Forwards, |_, record| {
            let Record::Change(change) = record else { return Ok(()) };
            let path = change.path.to_string();
            // Of a directory that stays one only its rights changed, not what is in it.
            let is_dir = |image: &Option<Image>| image.as_ref().is_some_and(|image| image.kind == Kind::Dir);
            let stays = is_dir(&change.before) && is_dir(&change.after);
            for (conflict, is_met) in conflicts.iter().zip(&mut met) {
                let object = conflict.object.as_str();
                *is_met |= path == object || is_beneath(&path, object) || !stays && is_beneath(object, &path);
            }
            Ok(())
        })?;
        Ok(met)
    }

    /// See [`backout_model::target::Target::touched`].
    pub(crate) fn touched_by(
        &self,
        images: &mut dyn Images,
        each: &mut dyn FnMut(&Touched<'_>) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        Manifest::open(images, &self.label)?.visit(Order::Forwards, |_, record| {
            let Record::Change(change) = record else { return Ok(()) };
            let aspects = match (&change.before, &change.after) {
                // Whatever of a file was changed, its undo brings the old one back whole, and knows the new one by its content.
                (Some(before), Some(after)) if !before.is_dir() && !after.is_dir() => {
                    let others = differing(before, after).into_iter().filter(|one| *one != "content");
                    Some(std::iter::once("content").chain(others).collect())
                }
                (Some(before), Some(after)) => Some(differing(before, after)),
                _ => None,
            };
            let object = change.path.to_string();
            each(&Touched {
                object: &object,
                identity: object.as_bytes(),
                aspects: aspects.as_deref(),
                made: change.before.is_none(),
                key: &|| None,
            })
        })
    }

    /// What can't be brought back is an error beforehand, not in the middle.
    fn must_be_held(&self, change: &Change, hold: Option<&Step>) -> Result<(), TargetError> {
        let Some(before) = &change.before else { return Ok(()) };
        let failing = || format!("cannot bring back {} in {}", change.path, self.label);
        let held = match hold {
            Some(step) => step.stat(change.n).acting(failing)?,
            None => None,
        };
        if held.is_some() {
            return Ok(());
        }
        Err(TargetError::failed(failing(), format!("the hold does not keep it any more: {before}")))
    }

    /// Decides by where the files are: what is not live lies in the hold. Only where files were copied are contents
    /// compared. What took effect is synced before it is called so: a killed process may not have come to it.
    pub(crate) fn probe_step(&mut self, images: &mut dyn Images) -> Result<Probe, TargetError> {
        if images.seek(std::io::SeekFrom::End(0)).acting(|| format!("cannot read images of {}", self.label))? == 0 {
            return Ok(Probe::Partly);
        }
        let label = self.label.clone();
        let mut manifest = Manifest::open(images, &label)?;
        if manifest.header.act == Act::Undo {
            return Ok(Probe::Partly);
        }
        if manifest.header.found {
            // Whoever died right behind the announcement has not named the hold yet.
            if let Some(mut step) = self.held(&manifest.header)? {
                step.settle_name().acting(|| format!("cannot name the hold of a step of {label}"))?;
            }
            return Ok(Probe::Applied);
        }
        let step = self.held(&manifest.header)?;
        let (mut placed, mut unplaced, mut neither) = (false, false, false);
        let mut synced = Synced::default();
        manifest.visit(Order::Forwards, |_, record| {
            match record {
                Record::Touch(touch) => {
                    if let Some(now) = self.time_of(&touch.path)?
                        && touch.before != touch.after
                    {
                        placed |= now == touch.after;
                        unplaced |= now == touch.before;
                        neither |= now != touch.after && now != touch.before;
                    }
                }
                Record::Change(change) => match self.is_placed(change, step.as_ref())? {
                    Some(true) => {
                        placed = true;
                        let syncing = || format!("cannot sync {label}");
                        if let Ok(dir) = self.root.parent(&change.path) {
                            synced.directory(&change.path.parent(), &dir).acting(syncing)?;
                        }
                    }
                    Some(false) => unplaced = true,
                    None => neither = true,
                },
            }
            Ok(())
        })?;
        match (placed, unplaced, neither) {
            (true, false, false) => {
                if let Some(step) = &step {
                    synced.finish(self, step)?;
                }
                Ok(Probe::Applied)
            }
            (false, _, false) => Ok(Probe::NotApplied),
            _ => Ok(Probe::Partly),
        }
    }

    /// Whether a change is live; none where it can't be told or is half done.
    fn is_placed(&self, change: &Change, step: Option<&Step>) -> Result<Option<bool>, TargetError> {
        let looking = || format!("cannot look at {} in {}", change.path, self.label);
        if let (Some(step), false) = (step, change.copied) {
            if image::stat(step.dir(), format!("{}.t", change.n).as_bytes()).acting(looking)?.is_some() {
                return Ok(None);
            }
            let held = step.stat(change.n).acting(looking)?.as_ref().map(image::ino);
            let is = |image: &Option<Image>| held == image.as_ref().map(|image| image.ino);
            return match (is(&change.before), is(&change.after)) {
                (true, false) => Ok(Some(true)),
                (false, true) => Ok(Some(false)),
                _ => self.holds(change),
            };
        }
        if let (Some(step), Ok(dir)) = (step, self.root.parent(&change.path))
            && self.carry(change, step, dir.as_fd()).is_half_copied().acting(looking)?
        {
            return Ok(None);
        }
        self.holds(change)
    }

    /// Whether the live path holds what the change left, by content.
    fn holds(&self, change: &Change) -> Result<Option<bool>, TargetError> {
        let now = self.now(change)?;
        let same = |image: &Option<Image>| match (now.image(), image) {
            (None, None) => !matches!(now, Now::Blocked),
            (Some(now), Some(image)) => now.same_content(image),
            _ => false,
        };
        let alike = |image: &Option<Image>| match (now.image(), image) {
            (Some(now), Some(image)) => now.same_rights(image),
            _ => true,
        };
        Ok(match (same(&change.before), same(&change.after)) {
            (false, true) => Some(true),
            (true, false) => Some(false),
            (true, true) if alike(&change.after) != alike(&change.before) => Some(alike(&change.after)),
            _ => None,
        })
    }

    pub(crate) fn describe_step(
        &mut self,
        images: &mut dyn Images,
        each: &mut dyn FnMut(Described),
    ) -> Result<(), TargetError> {
        let label = self.label.clone();
        Manifest::open(images, &label)?.visit(Order::Forwards, |_, record| {
            let Record::Change(change) = record else { return Ok(()) };
            let (what, undo) = match (&change.before, &change.after) {
                (None, Some(after)) if after.is_dir() => {
                    ("make directory", "removes the directory if it holds nothing of others")
                }
                (None, Some(after)) if matches!(after.kind, Kind::Link { .. }) => ("add link", "removes the link"),
                (None, _) => ("add", "removes the file"),
                (Some(_), Some(_)) => ("replace", "puts back the file that was there"),
                (Some(before), None) => (deletion(before), "puts back what was there"),
            };
            each(Described {
                change: format!("{what} {}", change.path),
                place: label.clone(),
                undo: undo.to_owned(),
                rows: 0,
                bytes: [&change.before, &change.after].into_iter().flatten().map(Image::bytes).sum(),
            });
            Ok(())
        })
    }

    pub(crate) fn verify_step(&mut self, images: &mut dyn Images, applied: bool) -> Result<Vec<Finding>, TargetError> {
        let label = self.label.clone();
        let mut manifest = Manifest::open(images, &label)?;
        if manifest.header.act == Act::Undo {
            return Ok(Vec::new());
        }
        let step = self.held(&manifest.header)?;
        let mut findings = Vec::new();
        manifest.visit(Order::Forwards, |_, record| {
            let Record::Change(change) = record else { return Ok(()) };
            let (kept, live) = if applied { (&change.before, &change.after) } else { (&change.after, &change.before) };
            let mut find = |what: String, grave: bool| {
                if findings.len() < FINDINGS_KEPT {
                    findings.push(Finding { target: label.clone(), what, grave });
                }
            };
            if let Some(kept) = kept {
                let reading = || format!("cannot read the hold of {label}");
                let name = change.n.to_string().into_bytes();
                let found = match &step {
                    Some(step) => image::take(step.dir(), &name).acting(reading)?,
                    None => None,
                };
                match found {
                    // Before-images are what an undo needs; after-images only a redo.
                    None => find(format!("{}: the hold lacks {kept}", change.path), applied),
                    // By another of its names, perhaps: the undo of a later step may put that right, else the own one says so.
                    Some(found) if !found.same_content(kept) => {
                        let stat = step.as_ref().map(|step| step.stat(change.n)).transpose().acting(reading)?.flatten();
                        let is_linked = stat.is_some_and(|stat| stat.st_nlink > 1);
                        find(
                            format!("{}: the hold has {found} in place of {kept}", change.path),
                            applied && !is_linked,
                        );
                    }
                    Some(_) => {}
                }
            }
            if applied {
                let now = self.now(change)?;
                let same = match (now.image(), live) {
                    (None, None) => true,
                    (Some(now), Some(live)) => now.same_content(live) && (live.is_dir() || now.same_rights(live)),
                    _ => false,
                };
                if !same {
                    let (now, left) = (image::shown(now.image()), image::shown(live.as_ref()));
                    find(format!("{}: holds {now}; the deployment left {left}", change.path), false);
                }
            }
            Ok(())
        })?;
        Ok(findings)
    }
}

/// A path that holds already what an undo would bring there.
pub(crate) fn already(label: &str, change: &Change, now: &Now) -> Conflict {
    Conflict {
        target: label.to_owned(),
        object: change.path.to_string(),
        key: None,
        column: None,
        kind: if change.before.is_some() { ConflictKind::Changed } else { ConflictKind::Missing },
        before: shown(change.before.as_ref()),
        left: shown(change.after.as_ref()),
        now: now.words(),
    }
}
