//! What came after a deployment and stays on the site: which later steps touched the same as an undo that is asked for.

use std::collections::BTreeSet;
use std::fmt;

use backout_model::conflict::{Conflict, ConflictKind, Conflicts};
use backout_model::id::FramePath;
use backout_model::target::Summary;

use crate::act::Act;
use crate::error::EngineError;
use crate::history::View;
use crate::step::Run;
use crate::step_view::StepView;

/// A later step that stays on the site, and the tables or directories that it touched.
pub(crate) struct LaterStep {
    /// The deployment, or the other part of the same one, as people are told of it.
    of: String,
    /// The label of its target.
    target: String,
    objects: Vec<String>,
    /// What it made or gave a name, with its kind.
    made: Vec<String>,
    /// What it did not touch and whose names its undo uses.
    needs: Vec<String>,
    /// Its undo goes by images: they fit the objects as it found and left them, and no others.
    by_images: bool,
    act: Act,
    /// The entry with its images.
    seq: u64,
    /// Rows, or paths, that it touched.
    count: u64,
}

/// A later deployment, or another part of the same one, that changed what an undo is about.
pub(crate) struct Overlap {
    pub of: String,
    /// `database main: product`.
    pub objects: BTreeSet<String>,
}

impl Overlap {
    /// With the one that needs what is taken.
    pub fn of(needed: &Conflict) -> Self {
        let object = format!("{}: {}", needed.target, bare(&needed.object));
        Self { of: needed.now.clone(), objects: BTreeSet::from([object]) }
    }
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let objects: Vec<&str> = self.objects.iter().map(String::as_str).collect();
        write!(f, "{} came later and changed the same: {}", self.of, objects.join(", "))
    }
}

/// What a check of an undo told of later steps, told apart.
pub(crate) struct OfLater {
    /// What the undo of a later step could not do without, and this undo would take away: nothing passes over that.
    pub needed: Conflicts,
    /// What is as it is to be already, and may be so by a later step.
    pub made: Conflicts,
}

/// An object without its kind: a table is named with it where it is about its form.
fn bare(object: &str) -> &str {
    object.strip_prefix("table ").unwrap_or(object)
}

/// True for what an undo would take from under that of a later step.
pub(crate) fn is_needed(conflict: &Conflict) -> bool {
    // What a package requires is a deployment.
    conflict.kind == ConflictKind::RequiredBy && !conflict.target.starts_with("deployment ")
}

fn note(overlaps: &mut Vec<Overlap>, step: &LaterStep, object: &str) {
    let object = format!("{}: {object}", step.target);
    match overlaps.iter_mut().find(|overlap| overlap.of == step.of) {
        Some(overlap) => drop(overlap.objects.insert(object)),
        None => overlaps.push(Overlap { of: step.of.clone(), objects: BTreeSet::from([object]) }),
    }
}

impl LaterStep {
    /// The object that both are about: the same one, or the directory of a path.
    fn names(&self, object: &str) -> bool {
        // Of a path the images tell, also where its directory went as one.
        let own = |own: &String| bare(own).eq_ignore_ascii_case(bare(object));
        self.target.starts_with("root ") || self.objects.iter().any(own)
    }

    /// More than are listed, or none: then it may be any of them, or the schema.
    fn is_unlisted(&self) -> bool {
        self.objects.is_empty() || self.objects.len() >= Summary::OBJECTS_KEPT
    }

    /// True where its undo needs what another undo would take away.
    fn needs(&self, taken: &Conflict) -> bool {
        if let Some(namesake) = taken.object.strip_prefix(Summary::MADE) {
            // What has that name is not what the undo is of.
            let is_made = self.made.iter().any(|made| made.eq_ignore_ascii_case(namesake));
            return is_made && self.target == taken.target;
        }
        // Whoever changed its form has images of both.
        let is_about = |object: &String| {
            object.eq_ignore_ascii_case(&taken.object) || bare(object).eq_ignore_ascii_case(&taken.object)
        };
        let kind = taken.object.split_once(' ').map_or("", |(kind, _)| kind);
        if ["index", "view", "trigger"].contains(&kind) {
            // Those are listed by nobody; the images tell.
            return self.by_images && self.target == taken.target;
        }
        // One that lists nothing touched no table: an index, a view, a query.
        let too_many = self.objects.len() >= Summary::OBJECTS_KEPT;
        self.by_images && self.target == taken.target && (too_many || self.objects.iter().any(is_about))
    }

    /// Where it stands in the order: the entry with its images.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// About how many rows or paths it touched.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// True where it may have changed the same rows or paths as another step of a target.
    pub fn may_share(&self, target: &str, other: &Summary) -> bool {
        let own = || self.objects.iter().chain(&self.needs);
        let is_own = |object: &String| own().any(|own| bare(own).eq_ignore_ascii_case(bare(object)));
        // One that lists none may have changed what is in no table.
        let may_be_any = |objects: &[String]| objects.is_empty() || objects.len() >= Summary::OBJECTS_KEPT;
        self.by_images
            && self.target == target
            && (self.target.starts_with("root ")
                || may_be_any(&self.objects)
                || self.needs.len() >= Summary::OBJECTS_KEPT
                || may_be_any(&other.objects)
                || other.objects.iter().any(is_own))
    }

    /// That its own undo needs a row or a path.
    pub fn requires(&self, object: String, key: Option<String>, column: Option<String>) -> Conflict {
        let (before, left) = (String::new(), String::new());
        let (target, now) = (self.target.clone(), self.of.clone());
        Conflict { target, object, key, column, kind: ConflictKind::RequiredBy, before, left, now }
    }

    /// True where it may be about one of those that are not listed.
    fn may_be_beyond(&self, conflicts: &Conflicts) -> bool {
        let is_unlisted = conflicts.total > conflicts.listed.len() as u64;
        let of = |(target, object): &(String, String)| {
            *target == self.target && (self.is_unlisted() || self.names(object) || object.contains(' '))
        };
        is_unlisted && (!conflicts.knows_all() || conflicts.beyond.iter().any(of))
    }

    /// True where a conflict may be about what this step changed, by what it lists.
    fn may_meet(&self, conflict: &Conflict) -> bool {
        let unlisted = self.is_unlisted();
        // Of a row the table is known; whose schema a step changed is not listed.
        let of_schema = conflict.key.is_none() && conflict.object.contains(' ');
        // A table that it renamed is listed by the new name.
        let renamed = conflict.key.is_none() && self.made.iter().any(|made| made.starts_with("table "));
        self.target == conflict.target && (unlisted || of_schema || renamed || self.names(&conflict.object))
    }
}

impl Run<'_, '_> {
    /// The later steps that stay on the site, of other deployments or of other parts of this one.
    pub(crate) fn later_steps(&mut self, part: &FramePath) -> Result<Vec<LaterStep>, EngineError> {
        let Some(first) = self.view.steps_to_undo(part).iter().map(|step| step.seq).min() else {
            return Ok(Vec::new());
        };
        let named = |name: String, view: &View, frame: Option<&FramePath>| match frame {
            Some(frame) => format!("{frame} of {name} ({}/{frame})", view.id),
            None => format!("{name} ({})", view.id),
        };
        let mut steps: Vec<(String, StepView)> = Vec::new();
        for step in self.view.steps.values().filter(|step| !part.contains(&step.frame)) {
            let frame = Some(&step.frame).filter(|frame| !frame.is_root());
            steps.push((named(self.view.name(), &self.view, frame), step.clone()));
        }
        for row in self.session.journal.reader().deployments()? {
            // A retry or a redo puts a step of an earlier deployment behind those of later ones.
            if row.id != self.view.id && row.last_seq > first && row.state.is_on_site() {
                let view = View::load(self.session.journal.reader(), &row.id)?;
                if view.pruned {
                    // Its undo is offered no more: it brings nothing back and needs nothing.
                    continue;
                }
                let name = named(view.name(), &view, None);
                steps.extend(view.steps.into_values().map(|step| (name.clone(), step)));
            }
        }
        let mut later = Vec::new();
        for (of, step) in steps {
            let act = step.act();
            let is_its_own = !matches!(act, Act::Run { .. }) && !act.is_of_others();
            if step.seq > first && step.is_on_site() && is_its_own {
                // A target that the site no longer has is none of this undo's.
                if let Ok(target) = self.session.targets.of(step.act()) {
                    let by_images = step.has_images && step.act().is_captured();
                    let Summary { objects, made, needs, rows, changes, .. } = step.intended.summary;
                    let (target, seq, act) = (target.label(), step.seq, step.intended.act);
                    let count = rows.max(changes);
                    later.push(LaterStep { of, target, objects, made, needs, by_images, act, seq, count });
                }
            }
        }
        Ok(later)
    }

    /// Of those conflicts that a later step may be about, the ones that it is about, by its images where it has any.
    fn met<'c>(
        &mut self,
        step: &LaterStep,
        conflicts: impl Iterator<Item = &'c Conflict>,
    ) -> Result<Vec<&'c Conflict>, EngineError> {
        let conflicts: Vec<&Conflict> = conflicts.collect();
        if conflicts.is_empty() || !step.by_images {
            return Ok(conflicts);
        }
        let session = &mut *self.session;
        let mut images = session.journal.reader().open_images(step.seq)?;
        let asked: Vec<Conflict> = conflicts.iter().copied().cloned().collect();
        let answers = session.targets.of(&step.act)?.meets(&mut images, &asked)?;
        Ok(conflicts.into_iter().zip(answers).filter_map(|(conflict, is_met)| is_met.then_some(conflict)).collect())
    }

    /// Tells apart what a check of an undo found `already`, given the `later` steps.
    pub(crate) fn of_later(&mut self, already: &Conflicts, later: &[LaterStep]) -> Result<OfLater, EngineError> {
        let (mut needed, mut made) = (Conflicts::default(), Conflicts::default());
        if later.iter().any(|step| step.may_be_beyond(already)) {
            made.total = already.total - already.listed.len() as u64;
            made.beyond.clone_from(&already.beyond);
        }
        for step in later {
            let is_candidate = |one: &&Conflict| if is_needed(one) { step.needs(one) } else { step.may_meet(one) };
            for conflict in self.met(step, already.listed.iter().filter(is_candidate))? {
                if is_needed(conflict) {
                    let object = conflict.object.strip_prefix(Summary::MADE).unwrap_or(&conflict.object).to_owned();
                    let conflict = Conflict { object, now: step.of.clone(), ..conflict.clone() };
                    // The first that needs it is enough.
                    if !needed
                        .listed
                        .iter()
                        .any(|known| Conflict { now: conflict.now.clone(), ..known.clone() } == conflict)
                    {
                        needed.push(conflict);
                    }
                } else if !made.listed.contains(conflict) {
                    made.push(conflict.clone());
                }
            }
        }
        Ok(OfLater { needed, made })
    }

    /// Which of what came later changed what the conflicts are about: usually that is what to undo first.
    pub(crate) fn overlaps(&mut self, conflicts: &Conflicts, later: &[LaterStep]) -> Result<Vec<Overlap>, EngineError> {
        let mut overlaps: Vec<Overlap> = Vec::new();
        for step in later {
            for conflict in self.met(step, conflicts.listed.iter().filter(|one| step.may_meet(one)))? {
                note(&mut overlaps, step, bare(&conflict.object));
            }
            if step.may_be_beyond(conflicts) {
                note(&mut overlaps, step, "what is not listed");
            }
        }
        Ok(overlaps)
    }
}
