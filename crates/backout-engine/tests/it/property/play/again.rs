//! Redos and retries.

use std::collections::BTreeMap;

use backout_engine::outcome::Status;
use backout_model::state::Event;
use backout_testkit::faults::Fault;
use backout_testkit::observer::Recorder;
use backout_testkit::site::TestSite;

use super::super::history::{Follower, FrameState, Heard, contains, is_deployed, join, top};
use super::super::world::Found;
use super::deploy::follow;
use super::{Foreseen, Run};

impl Run<'_> {
    pub(super) fn redo(&mut self) -> Result<(), String> {
        let Some((at, number)) = top(&self.deployments) else {
            let done = self.with_fault(Fault::None, |site| site.redo())?.done;
            return if done.status() == Status::Refused {
                Ok(())
            } else {
                Err("there was something to redo".to_owned())
            };
        };
        let (mut deployment, mut world, mut order) = (self.deployments[at].clone(), self.world.clone(), self.order);
        let (found, holds) = deployment.redo(number, &mut world, &mut order);
        if !found.unknown.is_empty() {
            self.log.push(format!("redo is not foreseen: {:?}", found.unknown));
            return self.unforeseen(TestSite::redo);
        }
        let expected = match (found.is_clear(), holds) {
            (false, _) => Status::Refused,
            (true, false) => Status::Failed,
            (true, true) => Status::Done,
        };
        let fault = self.fault();
        self.log.push(format!("redo {} {fault:?}, foreseen {expected:?}: {found:?}", self.deployments[at].id));
        let came = self.with_fault(fault, TestSite::redo)?;
        let began = came.events.contains(&Event::DeploymentRedoing);
        let status = match (came.died, came.resumed) {
            (false, _) => came.done.status(),
            // A recovery takes back what it finds under way.
            (true, Some(status)) => status,
            (true, None) if began => expected,
            (true, None) => Status::Refused,
        };
        if status != expected && (!came.struck || !matches!(status, Status::Refused | Status::Failed)) {
            return Err(format!("foreseen {expected:?}, came {status:?}"));
        }
        let happened = status == Status::Done && expected == Status::Done;
        if happened {
            self.deployments[at] = deployment;
            self.world = world;
            self.order = order;
        }
        self.agrees("after the redo")?;
        match &self.exact {
            Some((place, _, after)) if *place == at && happened => self.is_exactly(after, "after the deployment"),
            Some((place, before, _)) if *place == at && !self.deployments[at].on_site => {
                self.is_exactly(before, "before the redo that did not come to be")
            }
            _ => {
                if happened {
                    self.exact = None;
                }
                Ok(())
            }
        }
    }

    pub(super) fn retry(&mut self) -> Result<(), String> {
        let mut candidates = Vec::new();
        for (at, deployment) in self.deployments.iter().enumerate().filter(|(_, one)| one.on_site) {
            for (path, _) in deployment.frames.iter().filter(|(_, state)| **state == FrameState::PassedOver) {
                let above_is_done = deployment.frames.iter().all(|(above, state)| {
                    above == path || !contains(above, path) || matches!(state, FrameState::Done { .. })
                });
                if above_is_done {
                    candidates.push((at, path.clone()));
                }
            }
        }
        let Some((at, path)) = self.generator.pick(&candidates).cloned() else { return Ok(()) };
        let deployment = self.deployments[at].clone();
        let spec = deployment.spec.at(&path).clone();
        let (parent, _) = path.rsplit_once('/').unwrap_or(("", &path));
        let siblings = deployment.spec.at(parent);
        let missing =
            spec.requires.iter().any(|name| match siblings.children().find(|sibling| sibling.name == *name) {
                Some(_) => !matches!(deployment.frames.get(&join(parent, name)), Some(FrameState::Done { .. })),
                None => !is_deployed(&self.deployments, name),
            });
        let mut foreseen = Foreseen {
            deployment,
            world: self.world.clone(),
            counts: self.counts.clone(),
            order: self.order,
            heard: Vec::new(),
            status: Status::Refused,
            kept: Found::default(),
        };
        let writes = BTreeMap::new();
        if !missing {
            foreseen.look(&self.deployments, &writes, |foresight| foresight.retry(&path));
        }
        let fault = self.fault();
        let what = join(&self.deployments[at].id, &path);
        self.log.push(format!("retry {what} {fault:?}, foreseen {:?}", foreseen.status));
        let recorder = Recorder::default();
        let came = self.with_fault(fault, |site| {
            site.command("retry", recorder, |session| backout_engine::retry::retry(session, &what))
        })?;
        self.exact = None;
        let heard: Vec<Heard> = came.done.heard.iter().filter_map(Heard::of).collect();
        if !came.struck {
            if heard != foreseen.heard || came.done.status() != foreseen.status {
                return Err(format!("foreseen: {:?} {:?}\nheard: {heard:?}", foreseen.status, foreseen.heard));
            }
            self.deployments[at] = foreseen.deployment;
            self.world = foreseen.world;
            self.counts = foreseen.counts;
            self.order = foreseen.order;
            return self.agrees("after the retry");
        }
        let began = came.events.contains(&Event::DeploymentRetrying);
        let status = match (came.died, came.resumed) {
            (false, _) => came.done.status(),
            (true, Some(status)) => status,
            (true, None) if began => Status::Done,
            (true, None) => Status::Refused,
        };
        match status {
            Status::Done | Status::Partly => {
                let mut order = self.order;
                let (deployment, world) = (&mut self.deployments[at], &mut self.world);
                let mut follower =
                    Follower { deployment, world, order: &mut order, kept: Found::default(), wrong: Vec::new() };
                follow(&mut follower, &heard, &writes);
                self.order = order;
            }
            Status::Failed | Status::Refused => {}
            _ => return Err(format!("it came to {status:?}")),
        }
        self.agrees("after the retry")
    }
}
