//! Plays a random history on a real site and in the model, side by side, and compares them after every command.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use backout_engine::observer::Happening;
use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_model::state::{DeploymentState, Event};
use backout_testkit::database::integrity;
use backout_testkit::faults::{Fault, play};
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::observer::Recorder;
use backout_testkit::site::{Done, TestSite};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::generate::{Generator, STRANGE, tree};
use super::history::{
    Deployment, Follower, Foresight, FrameState, Heard, Spec, Step, Write, contains, is_deployed, join, top,
};
use super::index::INDEX;
use super::statement::{FileWrite, NEVER};
use super::world::{Found, Key, Node, Row, Value, World};

/// Where and how runs are played.
#[derive(Clone)]
pub struct Setting {
    pub below: Option<PathBuf>,
    pub syncs: bool,
    /// The sample database and what of it the model knows.
    pub sample: Option<Arc<(Vec<u8>, World)>>,
}

struct Run<'s> {
    setting: &'s Setting,
    generator: Generator,
    site: TestSite,
    world: World,
    deployments: Vec<Deployment>,
    /// The history's clock: begins of deployments and numbers of undos.
    clock: u64,
    order: u64,
    counts: BTreeMap<String, u32>,
    log: Vec<String>,
    /// The model can't say more.
    over: bool,
    /// Where nobody else wrote: the site before and after the deployment at that place of the list.
    exact: Option<(usize, Fingerprint, Fingerprint)>,
}

/// One history. An error tells all that happened and what is wrong.
pub fn run(seed: u64, setting: &Setting) -> Result<(), String> {
    let mut generator = Generator::new(seed);
    let sample = setting.sample.clone().filter(|_| generator.chance(6));
    let mut world = generator.world();
    let mut script = String::from(NEVER);
    match &sample {
        Some(sample) => world.tables.clone_from(&sample.1.tables),
        None => script.extend(world.tables.values().map(|table| table.script())),
    }
    let builder =
        TestSite::builder().root("web", tree(&world.files)).keep(&["uploads"]).below(setting.below.as_deref());
    let builder = match &sample {
        Some(sample) => builder.database_from("main", &sample.0, &script),
        None => builder.database("main", &script),
    };
    let mut run = Run {
        setting,
        generator,
        site: builder.build(),
        world,
        deployments: Vec::new(),
        clock: 0,
        order: 0,
        counts: BTreeMap::new(),
        log: vec![if sample.is_some() { "on the sample".to_owned() } else { script }],
        over: false,
        exact: None,
    };
    run.play().map_err(|what| format!("{}\n{what}", run.log.join("\n")))
}

impl Run<'_> {
    fn play(&mut self) -> Result<(), String> {
        self.agrees("at the beginning")?;
        self.deploy()?;
        for _ in 0..self.generator.rng.usize(1..=5) {
            if self.over {
                break;
            }
            if self.generator.chance(45) {
                let writes = self.generator.writes(&self.world.clone(), 3);
                self.exact = None;
                for write in &writes {
                    self.log.push(format!("application: {write:?}"));
                    write.apply(&mut self.world);
                    Application::of(&self.site).does(write);
                }
            }
            match self.generator.rng.u32(0..100) {
                0..35 => self.deploy()?,
                35..70 => self.undo()?,
                70..92 => self.redo()?,
                _ => self.retry()?,
            }
        }
        let playing = play(Fault::None, self.setting.syncs);
        let grave = self.site.grave();
        drop(playing);
        match grave.first() {
            None => {}
            Some(finding) => return Err(format!("verify: {}: {}", finding.target, finding.what)),
        }
        match integrity(&self.site.database("main")).first() {
            None => Ok(()),
            Some(line) => Err(format!("integrity: {line}")),
        }
    }

    fn fault(&mut self) -> Fault {
        let n = self.generator.rng.usize(1..=120);
        match self.generator.rng.u32(0..100) {
            0..18 => Fault::CrashAt(n),
            18..23 => Fault::NoSpaceAt(n),
            23..28 => Fault::BrokenAt(n),
            _ => Fault::None,
        }
    }

    /// Runs a command with a fault; a death is followed by a recovery, which may die as well. Says whether the fault
    /// struck, and what the recovery said.
    fn with_fault(&mut self, fault: Fault, act: impl FnOnce(&TestSite) -> Done) -> Result<Came, String> {
        let entries = self.site.journal().last_seq().map_err(|error| error.to_string())?;
        let playing = play(fault, self.setting.syncs);
        let done = act(&self.site);
        let struck = playing.struck();
        drop(playing);
        let words = format!("{done:?}");
        self.log.push(format!(
            "  {}: {}",
            if struck { "struck" } else { "unharmed" },
            words.trim().replace('\n', "\n  ")
        ));
        self.site.bury_the_dead();
        let mut resumed = None;
        if struck && matches!(fault, Fault::CrashAt(_)) {
            if self.generator.chance(30) {
                let n = self.generator.rng.usize(1..=40);
                let playing = play(Fault::CrashAt(n), self.setting.syncs);
                let done = self.site.resume();
                let died = playing.struck();
                drop(playing);
                self.site.bury_the_dead();
                self.log.push(format!("  the recovery dies at {n}: {died}"));
                // It may have died only after its work was done.
                resumed = done.result.ok().flatten();
            }
            let playing = play(Fault::None, self.setting.syncs);
            let last = self.site.resume().result.map_err(|error| format!("resume: {}", error.causes().join(": ")))?;
            drop(playing);
            resumed = last.or(resumed);
            self.log
                .push(format!("  resumed: {:?}", resumed.as_ref().map(|outcome| (outcome.status, &outcome.answer))));
        }
        let mut events = Vec::new();
        self.site
            .journal()
            .all_entries(entries + 1, &mut |entry| {
                events.push(entry.event);
                ControlFlow::Continue(())
            })
            .map_err(|error| error.to_string())?;
        self.read_counts();
        Ok(Came {
            struck,
            died: struck && matches!(fault, Fault::CrashAt(_)),
            resumed: resumed.map(|outcome| outcome.status),
            done,
            events,
        })
    }

    /// The counts of flaky commands, as they are on disk.
    fn read_counts(&mut self) {
        for entry in fs::read_dir(self.site.dir()).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("fail-") {
                let text = fs::read_to_string(entry.path()).unwrap();
                self.counts.insert(name, text.trim().parse().unwrap_or(0));
            }
        }
    }

    fn names(&self) -> Vec<String> {
        self.deployments.iter().filter(|one| one.on_site).map(|one| one.spec.name.clone()).collect()
    }

    fn deploy(&mut self) -> Result<(), String> {
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
        let before = watch.then(|| Fingerprint::of(&self.site));
        let at = self.site.write(&spec.package());
        let recorder = recorder(&self.site, &writes);
        let came = self.with_fault(fault, |site| site.deploy_from(&at, recorder))?;
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
            let found = before.differences(&Fingerprint::of(&self.site));
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
                self.exact = before.map(|before| (place, before, Fingerprint::of(&self.site)));
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
    fn list_recovered(&mut self, deployment: &Deployment, heard: &[Heard]) -> Result<(), String> {
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
    fn hand(&mut self, id: &str, kept: &Found) -> Result<(), String> {
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

    fn foresee(&self, spec: &Spec, begun: u64, writes: &BTreeMap<usize, Vec<Write>>) -> Foreseen {
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
    fn schedule(&mut self, expected: &World) -> BTreeMap<usize, Vec<Write>> {
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

    fn newest(&self) -> Option<String> {
        let rows = self.site.journal().newest(1).unwrap();
        let id = rows.first().map(|row| row.id.to_string())?;
        let known = self.deployments.iter().any(|one| one.id == id);
        (!known).then_some(id)
    }

    fn newest_state(&self) -> Option<DeploymentState> {
        self.site.journal().newest(1).unwrap().first().map(|row| row.state)
    }

    fn undo(&mut self) -> Result<(), String> {
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
            let found = deployment.undo(&part, manner, &mut world, run.clock, &mut order);
            (found, deployment, world, order)
        };
        let (mut found, mut deployment, mut world, mut order) = attempt(self, manner);
        if !found.hard.is_empty() && manner != OnConflict::Stop {
            manner = OnConflict::Stop;
            (found, deployment, world, order) = attempt(self, manner);
        }
        if !found.unknown.is_empty() {
            self.log.push(format!("undo of {what:?} is not foreseen: {:?}", found.unknown));
            return self.unforeseen(|site| site.undo(what.as_deref()));
        }
        let required = self.is_required(at, &part);
        if self.generator.chance(15) {
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
            _ => Status::Done,
        };
        if manner == OnConflict::Stop && expected == Status::Done && self.generator.chance(25) {
            return self.undo_meanwhile(at, &part, what.as_deref());
        }
        let fault = self.fault();
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
        if !came.struck && status == Status::Refused && came.events.contains(&Event::StepUndone) {
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

    /// An undo that nothing stands in the way of when it begins, while the application writes.
    fn undo_meanwhile(&mut self, at: usize, part: &str, what: Option<&str>) -> Result<(), String> {
        let mut writes = BTreeMap::new();
        for _ in 0..self.generator.rng.usize(1..=2) {
            let after = self.generator.rng.usize(1..=4);
            writes.insert(after, self.generator.writes(&self.world.clone(), 2));
        }
        let (mut deployment, mut world, mut order) = (self.deployments[at].clone(), self.world.clone(), self.order);
        let came = deployment.undo_meanwhile(part, &writes, &mut world, self.clock, &mut order);
        self.log.push(format!("undo {what:?}, application meanwhile: {writes:?}, foreseen: {:?}", came.found));
        self.exact = None;
        let recorder = meanwhile(&self.site, &writes, |happening| matches!(happening, Happening::StepUndone { .. }));
        let options = backout_engine::undo::Options { on_conflict: OnConflict::Stop };
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
    fn unforeseen(&mut self, act: impl FnOnce(&TestSite) -> Done) -> Result<(), String> {
        if self.generator.chance(50) {
            return Ok(());
        }
        match self.with_fault(Fault::None, act)?.done.status() {
            Status::Done => self.over = true,
            Status::Refused | Status::Failed => self.agrees("after what did not come to be")?,
            status => return Err(format!("it came to {status:?}")),
        }
        Ok(())
    }

    fn nothing_to_undo(&mut self) -> Result<(), String> {
        let done = self.with_fault(Fault::None, |site| site.undo(None))?.done;
        if done.status() == Status::Refused { Ok(()) } else { Err("there was something to undo".to_owned()) }
    }

    /// True where another deployment, or a sibling, requires what is to be undone.
    fn is_required(&self, at: usize, part: &str) -> bool {
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

    fn redo(&mut self) -> Result<(), String> {
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

    fn retry(&mut self) -> Result<(), String> {
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

    fn is_exactly(&self, expected: &Fingerprint, when: &str) -> Result<(), String> {
        let found = expected.differences(&Fingerprint::of(&self.site));
        if found.is_empty() { Ok(()) } else { Err(format!("not exactly as {when}:\n  {}", found.join("\n  "))) }
    }

    /// The site is as the model has it.
    fn agrees(&self, when: &str) -> Result<(), String> {
        let mut wrong = tables_differ(&self.world, &self.site.database("main"), &self.setting.sample);
        wrong.extend(files_differ(&self.world.files, &self.site.root("web")));
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("{when}, the model and the site differ:\n  {}", wrong.join("\n  ")))
        }
    }
}

/// What came of a command.
struct Came {
    struck: bool,
    died: bool,
    /// The status of the recovery, where there was something to recover.
    resumed: Option<Status>,
    done: Done,
    /// What the journal says since.
    events: Vec<Event>,
}

/// What the model foresees.
struct Foreseen {
    deployment: Deployment,
    world: World,
    counts: BTreeMap<String, u32>,
    order: u64,
    heard: Vec<Heard>,
    status: Status,
    kept: Found,
}

impl Foreseen {
    fn look(
        &mut self,
        others: &[Deployment],
        writes: &BTreeMap<usize, Vec<Write>>,
        act: impl FnOnce(&mut Foresight<'_>) -> Status,
    ) {
        let follower = Follower {
            deployment: &mut self.deployment,
            world: &mut self.world,
            order: &mut self.order,
            kept: Found::default(),
            wrong: Vec::new(),
        };
        let mut foresight =
            Foresight { follower, others, counts: &mut self.counts, writes, done: 0, heard: Vec::new() };
        self.status = act(&mut foresight);
        self.heard = std::mem::take(&mut foresight.heard);
        self.kept = std::mem::take(&mut foresight.follower.kept);
    }
}

fn follow(follower: &mut Follower<'_>, heard: &[Heard], writes: &BTreeMap<usize, Vec<Write>>) {
    let mut done = 0;
    for each in heard {
        follower.hear(each);
        if matches!(each, Heard::StepDone(..)) {
            done += 1;
            writes.get(&done).into_iter().flatten().for_each(|write| write.apply(follower.world));
        }
    }
}

/// A program that writes to the site as a stranger to the tool.
struct Application {
    connection: Connection,
    root: PathBuf,
}

impl Application {
    fn of(site: &TestSite) -> Self {
        Self { connection: site.connect("main"), root: site.root("web") }
    }

    /// Where the database objects (a table is gone, a key points at nothing) nothing happens.
    fn does(&self, write: &Write) {
        match write {
            Write::Sql(_, text) => match self.connection.execute_batch(text) {
                Ok(()) => {}
                Err(rusqlite::Error::SqliteFailure(error, _))
                    if !matches!(
                        error.code,
                        rusqlite::ErrorCode::ConstraintViolation | rusqlite::ErrorCode::Unknown
                    ) =>
                {
                    panic!("the application cannot write: {error:?}: {text}")
                }
                Err(_) => {}
            },
            Write::File(write) => FileWrite::run(write, &self.root),
            Write::Table(name) => self.connection.execute_batch(&format!("CREATE TABLE {name} (x)")).unwrap(),
            Write::Vacuum => self.connection.execute_batch("VACUUM").unwrap(),
        }
    }
}

/// Lets the application write after the steps that are scheduled.
fn recorder(site: &TestSite, writes: &BTreeMap<usize, Vec<Write>>) -> Recorder {
    meanwhile(site, writes, |happening| matches!(happening, Happening::StepDone { .. }))
}

/// Lets the application write after the n-th of what counts.
fn meanwhile(
    site: &TestSite,
    writes: &BTreeMap<usize, Vec<Write>>,
    counts: impl Fn(&Happening) -> bool + Send + 'static,
) -> Recorder {
    if writes.is_empty() {
        return Recorder::default();
    }
    let application = Mutex::new(Application::of(site));
    let writes = writes.clone();
    let mut done = 0;
    Recorder::with_hook(move |happening| {
        if counts(happening) {
            done += 1;
            let application = application.lock().unwrap();
            writes.get(&done).into_iter().flatten().for_each(|write| application.does(write));
        }
    })
}

fn tables_differ(world: &World, database: &Path, sample: &Option<Arc<(Vec<u8>, World)>>) -> Vec<String> {
    let mut wrong = Vec::new();
    let conn = Connection::open(database).unwrap();
    let names =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'backout%' AND name NOT LIKE 'sqlite_%'";
    let mut statement = conn.prepare(names).unwrap();
    let there: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let on_sample =
        sample.as_ref().is_some_and(|sample| world.tables.keys().any(|name| sample.1.tables.contains_key(name)));
    for name in &there {
        let known = world.tables.contains_key(name) || name == "never" || name.starts_with(STRANGE);
        if !known && (!on_sample || name.starts_with('t')) {
            wrong.push(format!("table {name} is there"));
        }
    }
    let mut statement =
        conn.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL").unwrap();
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap);
    let ours = |name: &str| name.strip_prefix(INDEX).is_some_and(|number| number.parse::<u64>().is_ok());
    let found: BTreeMap<String, String> = found.filter(|(name, _): &(String, String)| ours(name)).collect();
    let wanted: BTreeMap<String, String> =
        world.indexes.iter().map(|(name, index)| (name.clone(), index.sql(name))).collect();
    if found != wanted {
        wrong.push(format!("the indexes are {found:?}, not {wanted:?}"));
    }
    for table in world.tables.values() {
        if !there.contains(&table.name) {
            wrong.push(format!("table {} is missing", table.name));
            continue;
        }
        let mut info = conn.prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid").unwrap();
        let columns: Vec<String> =
            info.query_map([&table.name], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let own: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
        let keys = table.key_columns();
        let found: Vec<String> = columns.iter().filter(|name| !keys.contains(name)).cloned().collect();
        if table.key.is_empty() && found != own {
            wrong.push(format!("table {} has the columns {found:?}, not {own:?}", table.name));
            continue;
        }
        let list: Vec<String> = keys.iter().chain(&own).cloned().collect();
        let mut select = conn.prepare(&format!("SELECT {} FROM {}", list.join(", "), table.name)).unwrap();
        let mut rows = select.query([]).unwrap();
        let mut actual: BTreeMap<Key, Row> = BTreeMap::new();
        while let Some(row) = rows.next().unwrap() {
            let value = |at: usize| value(row.get_ref(at).unwrap());
            let key: Key = (0..keys.len()).map(value).collect();
            let row = own.iter().enumerate().map(|(at, name)| (name.clone(), value(keys.len() + at))).collect();
            actual.insert(key, row);
        }
        for (key, row) in &table.rows {
            match actual.remove(key) {
                None => wrong.push(format!("{} {key:?} is missing: {row:?}", table.name)),
                Some(now) if now != *row => {
                    wrong.push(format!("{} {key:?} should be {row:?}\n      and is {now:?}", table.name));
                }
                Some(_) => {}
            }
        }
        wrong.extend(actual.iter().map(|(key, row)| format!("{} {key:?} is there: {row:?}", table.name)));
    }
    wrong
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number.to_bits()),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

fn files_differ(files: &BTreeMap<String, Node>, root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut actual = BTreeMap::new();
    let mut next = vec![String::new()];
    while let Some(dir) = next.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap().map(Result::unwrap) {
            let path = join(&dir, &entry.file_name().into_string().unwrap());
            let found = fs::symlink_metadata(entry.path()).unwrap();
            let node = if found.is_dir() {
                next.push(path.clone());
                Node::Dir
            } else if found.is_symlink() {
                Node::Link(fs::read_link(entry.path()).unwrap().display().to_string())
            } else {
                let content = fs::read_to_string(entry.path()).unwrap();
                Node::File { content, mode: found.permissions().mode() & 0o7777 }
            };
            actual.insert(path, node);
        }
    }
    for (path, node) in files {
        match actual.remove(path) {
            None => wrong.push(format!("{path} is missing: {node:?}")),
            Some(now) if now != *node => wrong.push(format!("{path} should be {node:?} and is {now:?}")),
            Some(_) => {}
        }
    }
    wrong.extend(actual.iter().map(|(path, node)| format!("{path} is there: {node:?}")));
    wrong
}

impl Spec {
    /// In few lines, for the log.
    fn told(&self, above: &str) -> String {
        let path = join(above, &self.name);
        let mut text = format!("{path}{}", if self.list { " (a list)" } else { "" });
        if !self.requires.is_empty() {
            text.push_str(&format!(" requires {}", self.requires.join(", ")));
        }
        for (index, step) in self.steps.iter().enumerate() {
            let step = match step {
                Step::Sql(_, script) => format!("sql {}", script.trim().replace('\n', "\n      ")),
                Step::Files(files, exact) => format!("files{} {files:?}", if *exact { " exactly" } else { "" }),
                Step::Delete(paths) => format!("delete {paths:?}"),
                Step::Flaky { file, times } => format!("fails {times} times, counted in {file}"),
                Step::Child { spec, attempts, go_on } => {
                    format!("child, {attempts} attempt(s), go on {go_on}: {}", spec.told(&path).replace('\n', "\n  "))
                }
            };
            text.push_str(&format!("\n  {index}: {step}"));
        }
        if self.never_holds {
            text.push_str("\n  its smoke test never holds");
        }
        text
    }
}
