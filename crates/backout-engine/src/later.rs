//! What came after a deployment and stays on the site: which later steps touched the same as an undo that is asked for.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Its undo goes by images: they fit the objects as it found and left them, and no others.
    by_images: bool,
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

/// Tells apart what a check of an undo found `already`, given the `later` steps.
pub(crate) fn of_later(already: Conflicts, later: &[LaterStep]) -> OfLater {
    let (mut needed, mut made) = (Conflicts::default(), Conflicts::default());
    if !later.is_empty() {
        // What is not listed may be a later step's, too.
        made.total = already.total - already.listed.len() as u64;
    }
    for conflict in already.listed {
        if is_needed(&conflict) {
            if let Some(step) = later.iter().find(|step| step.needs(&conflict)) {
                let object = conflict.object.strip_prefix(Summary::MADE).unwrap_or(&conflict.object).to_owned();
                needed.push(Conflict { object, now: step.of.clone(), ..conflict });
            }
        } else if later.iter().any(|step| step.may_have_made(&conflict)) {
            made.push(conflict);
        }
    }
    OfLater { needed, made }
}

impl LaterStep {
    /// The object that both are about: the same one, or the directory of a path.
    fn meets(&self, conflict: &Conflict) -> Option<&str> {
        let parent = conflict.object.rsplit_once('/').map_or("", |(parent, _)| parent);
        let table = conflict.object.strip_prefix("table ").unwrap_or(&conflict.object);
        let is_there =
            |object: &&String| **object == table || object.trim_start_matches('.') == parent && conflict.key.is_none();
        self.objects.iter().find(is_there).filter(|_| self.target == conflict.target).map(String::as_str)
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
        // One that lists nothing touched no table: an index, a view, a query.
        let too_many = self.objects.len() >= Summary::OBJECTS_KEPT;
        self.by_images && self.target == taken.target && (too_many || self.objects.iter().any(is_about))
    }

    /// True where it may be this step that made it so that an undo finds nothing to do.
    pub fn may_have_made(&self, already: &Conflict) -> bool {
        let unlisted = self.is_unlisted();
        // Of a row the table is known; whose schema a step changed is not listed.
        let of_schema = already.key.is_none() && already.object.contains(' ');
        self.target == already.target && (unlisted || of_schema || self.meets(already).is_some())
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
            if step.seq > first && step.is_on_site() && !matches!(step.act(), Act::Run { .. }) {
                // A target that the site no longer has is none of this undo's.
                if let Ok(target) = self.session.targets.of(step.act()) {
                    let by_images = step.has_images && step.act().is_captured();
                    let Summary { objects, made, .. } = step.intended.summary;
                    later.push(LaterStep { of, target: target.label(), objects, made, by_images });
                }
            }
        }
        Ok(later)
    }

    /// Which of what came later touched the objects of the conflicts: usually that is what to undo first.
    pub(crate) fn overlaps(&mut self, conflicts: &Conflicts, part: &FramePath) -> Result<Vec<String>, EngineError> {
        let mut objects: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut order = Vec::new();
        for step in self.later_steps(part)? {
            for object in conflicts.listed.iter().filter_map(|conflict| step.meets(conflict)).map(bare) {
                if !order.contains(&step.of) {
                    order.push(step.of.clone());
                }
                objects.entry(step.of.clone()).or_default().insert(format!("{}: {object}", step.target));
            }
        }
        let mut line = |of: String| {
            let objects = objects.remove(&of).unwrap_or_default().into_iter().collect::<Vec<_>>().join(", ");
            format!("{of} came later and changed the same: {objects}")
        };
        Ok(order.into_iter().map(&mut line).collect())
    }
}
