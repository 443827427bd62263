//! Undos, of whole deployments and of parts, while nobody or an application writes.

use std::collections::BTreeMap;

use backout_engine::observer::Happening;
use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_model::state::Event;
use backout_testkit::faults::Fault;
use backout_testkit::site::{Done, TestSite};

use super::super::application::meanwhile;
use super::super::dialect::Dialect;
use super::super::history::{self, FrameState, contains, join};
use super::super::shared::{Shared, shared};
use super::super::world::{Form, Found, PUT_BACK};
use super::Run;

impl Run<'_> {
    pub(super) fn undo(&mut self) -> Result<(), String> {
        let on_site: Vec<usize> = (0..self.deployments.len()).filter(|at| self.deployments[*at].on_site).collect();
        let Some(latest) = on_site.last().copied() else { return self.nothing_to_undo() };
        let (at, part, what) = if self.generator.chance(50) {
            (latest, String::new(), None)
        } else {
            let at = *self.generator.pick(&on_site).unwrap();
            let done: Vec<String> = self.deployments[at]
                .frames
                .iter()
                .filter(|(_, state)| matches!(state, FrameState::Done { .. }))
                .map(|(path, _)| path.clone())
                .collect();
            let part = if self.generator.chance(50) {
                self.generator.pick(&done).cloned().unwrap_or_default()
            } else {
                String::new()
            };
            let what = join(&self.deployments[at].id, &part);
            (at, part.clone(), Some(what.trim_end_matches('/').to_owned()))
        };
        let mut manner = match self.generator.rng.u32(0..100) {
            0..70 => OnConflict::Stop,
            70..85 => OnConflict::Keep,
            _ => OnConflict::Overwrite,
        };
        self.clock += 1;
        let attempt = |run: &Self, manner| {
            let (mut deployment, mut world, mut order) = (run.deployments[at].clone(), run.world.clone(), run.order);
            let mut found = deployment.undo(&part, manner, &mut world, run.clock, &mut order);
            if run.may_be_of_later(at, &part, &found, manner) {
                found.unknown.push("a later step may have made it so".to_owned());
            }
            if run.shares(at, &part, &found) == Shared::Perhaps {
                found.unknown.push("a later step changed the same, and perhaps back".to_owned());
            }
            (found, deployment, world, order)
        };
        let (mut found, mut deployment, mut world, mut order) = attempt(self, manner);
        if !found.hard.is_empty() && manner != OnConflict::Stop {
            manner = OnConflict::Stop;
            (found, deployment, world, order) = attempt(self, manner);
        }
        if !found.unknown.is_empty() {
            self.log.push(format!("undo of {what:?} is not foreseen: {:?}", found.unknown));
            return self.unforeseen(|site| site.undo_on(what.as_deref(), manner));
        }
        let required = self.is_required(at, &part) || self.shares(at, &part, &found) == Shared::Surely;
        if self.generator.chance(15) && (self.world.dialect.looks_ahead() || found.is_clear()) {
            let (_, plan) = self.site.undo_plan(what.as_deref(), manner);
            let clear = found.is_clear() && !required;
            if plan.status() != if clear { Status::Done } else { Status::Refused } {
                return Err(format!("the plan of the undo of {what:?} {manner:?}: {plan:?}\nforeseen: {found:?}"));
            }
            self.agrees("after a plan")?;
        }
        let expected = match manner {
            OnConflict::Stop if required || !found.is_clear() => Status::Refused,
            OnConflict::Keep if required => Status::Refused,
            OnConflict::Keep if !found.is_clear() => Status::Partly,
            OnConflict::Overwrite if found.left_before => Status::Partly,
            _ => Status::Done,
        };
        if manner == OnConflict::Stop && expected == Status::Done && self.generator.chance(25) {
            return self.undo_meanwhile(at, &part, what.as_deref());
        }
        // What others had taken away is known to the process that met it, no longer than that runs.
        let is_remembered = manner == OnConflict::Keep && found.conflicts.iter().any(|told| told.ends_with(PUT_BACK));
        let fault = if is_remembered { Fault::None } else { self.fault() };
        self.log.push(format!("undo {what:?} {manner:?} {fault:?}, foreseen {expected:?}: {found:?}"));
        let came = self.with_fault(fault, |site| site.undo_on(what.as_deref(), manner))?;
        let began = came.events.contains(&Event::DeploymentUndoing);
        let status = match (came.died, came.resumed) {
            (false, _) => came.done.status(),
            (true, Some(status)) if began => status,
            (true, None) if began => expected,
            (true, _) => Status::Refused,
        };
        let happened = matches!(status, Status::Done | Status::Partly);
        if status != expected && (!came.struck || happened) {
            return Err(format!("foreseen {expected:?}, came {status:?}"));
        }
        if !happened && !matches!(status, Status::Refused | Status::Failed) {
            return Err(format!("it came to {status:?}"));
        }
        // With nobody writing meanwhile, all conflicts are found before anything is undone.
        let looks_ahead = self.world.dialect.looks_ahead();
        if looks_ahead && !came.struck && status == Status::Refused && came.events.contains(&Event::StepUndone) {
            return Err("a conflict was found only on the way".to_owned());
        }
        if happened {
            self.deployments[at] = deployment;
            self.world = world;
            self.order = order;
        }
        self.agrees("after the undo")?;
        match &self.exact {
            Some((place, before, _)) if *place == at && part.is_empty() && happened => {
                self.is_exactly(before, "before the deployment")
            }
            _ => {
                if happened {
                    self.exact = None;
                }
                Ok(())
            }
        }
    }

    /// True where something is as the undo would leave it, or may be, or would be overwritten, and later steps stay:
    /// whether they made it so decides.
    fn may_be_of_later(&self, at: usize, part: &str, found: &Found, manner: OnConflict) -> bool {
        let here = |step: &&history::Done| contains(part, &step.frame) && step.undone.is_none();
        let undone: Vec<&history::Done> = self.deployments[at].steps.iter().filter(here).collect();
        let Some(first) = undone.iter().map(|step| step.order).min() else { return false };
        let stays = self.deployments.iter().enumerate().any(|(number, deployment)| {
            let own = |step: &history::Done| number == at && contains(part, &step.frame);
            deployment.steps.iter().any(|step| step.order > first && step.undone.is_none() && !own(step))
        });
        let already = !found.left.is_empty() || !found.lost.is_empty() || !found.filled.is_empty();
        // Nothing that a later step changed is overwritten.
        let is_overwritten = manner == OnConflict::Overwrite && !found.conflicts.is_empty();
        stays && (already || is_overwritten || undone.iter().any(|step| step.effect.is_of_schema()))
    }

    /// Whether later steps, which stay, changed what the undo would change.
    fn shares(&self, at: usize, part: &str, found: &Found) -> Shared {
        let own = |number: usize, step: &history::Done| number == at && contains(part, &step.frame);
        let all = self.deployments.iter().enumerate();
        let all = all.flat_map(|(number, deployment)| deployment.steps.iter().map(move |step| (number, step)));
        let (undone, stay): (Vec<_>, Vec<_>) =
            all.filter(|(_, step)| step.undone.is_none()).partition(|(number, step)| own(*number, step));
        // Where rows have no numbers, one of a table without a key is any like it: only one that came and one that went meet.
        let is_loose = |name: &str| self.world.tables.get(name).is_some_and(|table| table.form == Form::Loose);
        let numbers = self.world.dialect.numbers_rows();
        let is_told = |what: &str| numbers || !is_loose(what.split(' ').next().unwrap_or_default());
        let pairs =
            undone.iter().flat_map(|(_, own)| stay.iter().map(|(_, later)| shared(own, later, found, &is_told)));
        pairs.max().unwrap_or(Shared::No)
    }

    /// An undo that nothing stands in the way of when it begins, while the application writes.
    pub(super) fn undo_meanwhile(&mut self, at: usize, part: &str, what: Option<&str>) -> Result<(), String> {
        let mut writes = BTreeMap::new();
        for _ in 0..self.generator.rng.usize(1..=2) {
            let after = self.generator.rng.usize(1..=4);
            let mut all = self.generator.writes(&self.world.clone(), 2);
            // There a table's definition is compared as a whole: what others make of it on the way is a conflict, found then.
            all.retain(|write| self.world.dialect != Dialect::Mariadb || !write.indexes());
            writes.insert(after, all);
        }
        let (mut deployment, mut world, mut order) = (self.deployments[at].clone(), self.world.clone(), self.order);
        let came = deployment.undo_meanwhile(part, &writes, &mut world, self.clock, &mut order);
        self.log.push(format!("undo {what:?}, application meanwhile: {writes:?}, foreseen: {:?}", came.found));
        self.exact = None;
        let recorder = meanwhile(&self.site, &writes, |happening| matches!(happening, Happening::StepUndone { .. }));
        let options = backout_engine::undo::Options { on_conflict: OnConflict::Stop, unattributed: false };
        let done = self
            .with_fault(Fault::None, |site| {
                site.command("undo", recorder, |session| backout_engine::undo::undo(session, what, options))
            })?
            .done;
        let found = &came.found;
        if !found.unknown.is_empty()
            || !found.hard.is_empty()
            || came.put_back && !(found.left.is_empty() && found.lost.is_empty())
        {
            // What was as it should be by others' hands already is not told apart when it is put back.
            self.over = true;
            return Ok(());
        }
        let expected = if came.put_back { Status::Refused } else { Status::Done };
        if done.status() != expected {
            return Err(format!("foreseen {expected:?}, came {:?}", done.status()));
        }
        (self.deployments[at], self.world, self.order) = (deployment, world, order);
        self.agrees("after the undo")
    }

    /// What nobody foresees either happens as a whole, and ends what the model can say, or not at all.
    pub(super) fn unforeseen(&mut self, act: impl FnOnce(&TestSite) -> Done) -> Result<(), String> {
        if self.generator.chance(50) {
            return Ok(());
        }
        match self.with_fault(Fault::None, act)?.done.status() {
            Status::Done | Status::Partly => self.over = true,
            Status::Refused | Status::Failed => self.agrees("after what did not come to be")?,
            status => return Err(format!("it came to {status:?}")),
        }
        Ok(())
    }

    pub(super) fn nothing_to_undo(&mut self) -> Result<(), String> {
        let done = self.with_fault(Fault::None, |site| site.undo(None))?.done;
        if done.status() == Status::Refused { Ok(()) } else { Err("there was something to undo".to_owned()) }
    }

    /// True where another deployment, or a sibling, requires what is to be undone.
    pub(super) fn is_required(&self, at: usize, part: &str) -> bool {
        let deployment = &self.deployments[at];
        if part.is_empty() {
            let others = self.deployments.iter().enumerate().filter(|(other, one)| *other > at && one.on_site);
            return others.into_iter().any(|(_, one)| one.spec.requires.contains(&deployment.spec.name));
        }
        let (parent, name) = part.rsplit_once('/').unwrap_or(("", part));
        deployment.spec.at(parent).children().any(|sibling| {
            sibling.requires.iter().any(|required| required == name)
                && matches!(deployment.frames.get(&join(parent, &sibling.name)), Some(FrameState::Done { .. }))
        })
    }
}
