//! Deployments: foreseen, played, and what a death or a fault left of them.

use std::collections::BTreeMap;

use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_model::state::{DeploymentState, Event};
use backout_testkit::faults::Fault;

use super::super::application::recorder;
use super::super::dialect::Dialect;
use super::super::history::{Deployment, Follower, Heard, Spec, Write, is_deployed};
use super::super::noise::Noise;
use super::super::world::{Found, World};
use super::{Foreseen, Run};

impl Run<'_> {
    pub(super) fn deploy(&mut self) -> Result<(), String> {
        let mut expected = self.world.clone();
        let names = self.names();
        let spec = self.generator.package(&mut expected, &names);
        let mut writes = self.schedule(&expected);
        self.clock += 1;
        let begun = self.clock;
        let mut foreseen = self.foresee(&spec, begun, &writes);
        if !foreseen.kept.hard.is_empty() || !foreseen.kept.unknown.is_empty() {
            writes.clear();
            foreseen = self.foresee(&spec, begun, &writes);
        }
        let fault = self.fault();
        let fault =
            if spec.list && !writes.is_empty() && matches!(fault, Fault::CrashAt(_)) { Fault::None } else { fault };
        self.log.push(format!("deploy {fault:?} {}\n  application meanwhile: {writes:?}", spec.told("")));
        if !writes.is_empty() {
            self.exact = None;
        }
        let watch = writes.is_empty() && self.generator.chance(40);
        let before = watch.then(|| self.fingerprint());
        let at = self.site.write(&spec.package());
        let recorder = recorder(&self.site, &writes);
        let hold = self.generator.dialect() == Dialect::Postgres && self.generator.chance(50);
        self.noise.as_mut().filter(|_| hold).into_iter().for_each(Noise::hold_on);
        let came = self.with_fault(fault, |site| site.deploy_from(&at, recorder))?;
        self.noise.as_mut().filter(|_| hold).into_iter().for_each(Noise::let_go);
        let heard: Vec<Heard> = came.done.heard.iter().filter_map(Heard::of).collect();
        let id = self.newest();
        let (mut deployment, mut world) = (Deployment::new(spec.clone(), begun), self.world.clone());
        if came.died && spec.list && id.is_some() && self.newest_state() == Some(DeploymentState::Done) {
            return self.list_recovered(&deployment, &heard);
        }
        let (status, kept) = if came.struck {
            let mut order = self.order;
            let mut follower = Follower {
                deployment: &mut deployment,
                world: &mut world,
                order: &mut order,
                kept: Found::default(),
                wrong: Vec::new(),
            };
            follow(&mut follower, &heard, &writes);
            let status = match (came.died, came.done.status()) {
                (false, status) => status,
                (true, _) => match self.newest_state() {
                    Some(DeploymentState::Done) if id.is_some() => {
                        if follower.deployment.is_partly() {
                            Status::Partly
                        } else {
                            Status::Done
                        }
                    }
                    Some(DeploymentState::NeedsHand) if id.is_some() => Status::NeedsHand,
                    _ => Status::Failed,
                },
            };
            // A plain list that came to its end keeps what is done, also where a part of it needs a hand.
            let ended = match status {
                Status::Done | Status::Partly => true,
                Status::NeedsHand => spec.list && !came.events.contains(&Event::DeploymentFailing),
                _ => false,
            };
            if !ended {
                follower.take_back("");
            }
            let (hand, unknown) = (status == Status::NeedsHand, !follower.kept.unknown.is_empty());
            if hand == follower.kept.is_clear() && !unknown && !matches!(status, Status::Done | Status::Partly) {
                return Err(format!("{status:?}, and kept as others left it: {:?}", follower.kept));
            }
            if let Some(wrong) = follower.wrong.first() {
                return Err(wrong.clone());
            }
            let kept = std::mem::take(&mut follower.kept);
            self.order = order;
            (status, kept)
        } else {
            if heard != foreseen.heard {
                return Err(format!("foreseen: {:?}\nheard:    {heard:?}", foreseen.heard));
            }
            if came.done.status() != foreseen.status {
                return Err(format!("foreseen: {:?}, kept {:?}", foreseen.status, foreseen.kept));
            }
            deployment = foreseen.deployment;
            world = foreseen.world;
            self.counts = foreseen.counts;
            self.order = foreseen.order;
            (foreseen.status, foreseen.kept)
        };
        self.world = world;
        if !kept.hard.is_empty() || !kept.unknown.is_empty() {
            // What is left of a definition that others built upon is for a person to see.
            self.over = true;
            let told = status == Status::NeedsHand || kept.hard.is_empty();
            return if told { Ok(()) } else { Err(format!("{status:?}, though {kept:?}")) };
        }
        deployment.id = id.clone().unwrap_or_default();
        if let Some(before) = &before
            && matches!(status, Status::Failed | Status::Refused)
        {
            let found = before.differences(&self.fingerprint());
            if !found.is_empty() {
                return Err(format!("not exactly as before the failure:\n  {}", found.join("\n  ")));
            }
        }
        self.agrees("after the deployment")?;
        match status {
            Status::Done | Status::Partly => {
                deployment.on_site = true;
                self.deployments.push(deployment);
                let place = self.deployments.len() - 1;
                self.exact = before.map(|before| (place, before, self.fingerprint()));
                Ok(())
            }
            Status::NeedsHand if spec.list => {
                self.over = true;
                Ok(())
            }
            Status::NeedsHand => self.hand(&id.unwrap_or_default(), &kept),
            _ => Ok(()),
        }
    }

    /// A plain list died, and a recovery brought it to an end: what is done stays, what was under way is taken back. What
    /// was heard after the last intent may have been lost, the step before it too.
    pub(super) fn list_recovered(&mut self, deployment: &Deployment, heard: &[Heard]) -> Result<(), String> {
        self.over = true;
        let certain = heard.iter().rposition(|each| matches!(each, Heard::StepDone(..))).unwrap_or(0);
        let mut wrong = String::new();
        for known in (certain..=heard.len()).rev() {
            let (mut deployment, mut world, mut order) = (deployment.clone(), self.world.clone(), self.order);
            let mut follower = Follower {
                deployment: &mut deployment,
                world: &mut world,
                order: &mut order,
                kept: Found::default(),
                wrong: Vec::new(),
            };
            follow(&mut follower, &heard[..known], &BTreeMap::new());
            follower.take_back_under_way();
            let before = std::mem::replace(&mut self.world, world);
            match self.agrees("after the recovery") {
                Ok(()) => return Ok(()),
                Err(differs) => wrong = differs,
            }
            self.world = before;
        }
        Err(wrong)
    }

    /// The command that a deployment which needs a hand names goes on from there.
    pub(super) fn hand(&mut self, id: &str, kept: &Found) -> Result<(), String> {
        self.exact = None;
        let done = self.with_fault(Fault::None, |site| site.undo(Some(id)))?.done;
        match done.status() {
            Status::Done => {}
            // What was kept somebody has to decide on.
            Status::Refused => {
                self.agrees("while nobody has decided")?;
                let done = self.with_fault(Fault::None, |site| site.undo_on(Some(id), OnConflict::Keep))?.done;
                if done.status() != Status::Partly {
                    return Err(format!("kept {kept:?}, then kept for good: {done:?}"));
                }
            }
            _ => return Err(format!("kept {kept:?}, then undo: {done:?}")),
        }
        self.agrees("after the hand")
    }

    pub(super) fn foresee(&self, spec: &Spec, begun: u64, writes: &BTreeMap<usize, Vec<Write>>) -> Foreseen {
        let mut foreseen = Foreseen {
            deployment: Deployment::new(spec.clone(), begun),
            world: self.world.clone(),
            counts: self.counts.clone(),
            order: self.order,
            heard: Vec::new(),
            status: Status::Done,
            kept: Found::default(),
        };
        if spec.requires.iter().any(|name| !is_deployed(&self.deployments, name)) {
            foreseen.status = Status::Refused;
            return foreseen;
        }
        foreseen.look(&self.deployments, writes, |foresight| foresight.deploy());
        foreseen
    }

    /// What the application does after the n-th step.
    pub(super) fn schedule(&mut self, expected: &World) -> BTreeMap<usize, Vec<Write>> {
        let mut writes = BTreeMap::new();
        if self.generator.chance(35) {
            for _ in 0..self.generator.rng.usize(1..=2) {
                let after = self.generator.rng.usize(1..=5);
                let here = if self.generator.chance(50) { self.world.clone() } else { expected.clone() };
                writes.insert(after, self.generator.writes(&here, 2));
            }
        }
        writes
    }

    pub(super) fn newest(&self) -> Option<String> {
        let rows = self.site.journal().newest(1).unwrap();
        let id = rows.first().map(|row| row.id.to_string())?;
        let known = self.deployments.iter().any(|one| one.id == id);
        (!known).then_some(id)
    }

    pub(super) fn newest_state(&self) -> Option<DeploymentState> {
        self.site.journal().newest(1).unwrap().first().map(|row| row.state)
    }
}

pub(super) fn follow(follower: &mut Follower<'_>, heard: &[Heard], writes: &BTreeMap<usize, Vec<Write>>) {
    let mut done = 0;
    for each in heard {
        follower.hear(each);
        if matches!(each, Heard::StepDone(..)) {
            done += 1;
            writes.get(&done).into_iter().flatten().for_each(|write| write.apply(follower.world));
        }
    }
}
