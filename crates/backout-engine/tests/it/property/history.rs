//! The model of what a deployment, an undo, a redo and a retry come to: who is on the site, what is undone, and which
//! exit status is due.

use std::collections::BTreeMap;

use backout_engine::observer::Happening;
use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;

use super::statement::{self, FileWrite, Statement};
use super::world::{Effect, Found, Node, Part, Turn, World};

/// A package as the model knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    pub name: String,
    pub list: bool,
    pub requires: Vec<String>,
    pub steps: Vec<Step>,
    /// Its smoke test never holds.
    pub never_holds: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// With the text of its script.
    Sql(Vec<Statement>, String),
    Files(BTreeMap<String, Node>, bool),
    Delete(Vec<String>),
    /// A command that fails the first so many times; it counts in a file of that name beside the root.
    Flaky {
        file: String,
        times: u32,
    },
    Child {
        spec: Spec,
        attempts: u32,
        go_on: bool,
    },
}

/// What the application does in between.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    Sql(Statement, String),
    File(FileWrite),
    /// A table that no deployment touches.
    Table(String),
    Vacuum,
}

impl Write {
    /// True where it makes or drops an index.
    pub fn indexes(&self) -> bool {
        matches!(self, Write::Sql(Statement::CreateIndex { .. } | Statement::DropIndex { .. }, _))
    }

    pub fn apply(&self, world: &mut World) {
        match self {
            Write::Sql(statement, _) => {
                if let Some(Part::Indexed { .. }) = statement.apply(world, true) {
                    world.renumber();
                }
            }
            Write::File(write) => write.apply(world),
            Write::Table(_) => world.renumber(),
            Write::Vacuum => world.vacuum(),
        }
    }
}

/// What is heard of a run, as far as the model cares.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Started(String, u32),
    StepDone(String, usize),
    Failed(String),
    Done(String),
    PassedOver(String),
    Retrying(String, u32),
}

impl Heard {
    pub fn of(happening: &Happening) -> Option<Self> {
        Some(match happening {
            Happening::FrameStarted { frame, attempt, .. } => Self::Started(frame.to_string(), *attempt),
            Happening::StepDone { frame, index, .. } => Self::StepDone(frame.to_string(), *index as usize),
            Happening::Failed { frame, .. } => Self::Failed(frame.to_string()),
            Happening::FrameDone { frame } => Self::Done(frame.to_string()),
            Happening::PassedOver { frame, .. } => Self::PassedOver(frame.to_string()),
            Happening::Retrying { frame, attempt, .. } => Self::Retrying(frame.to_string(), *attempt),
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameState {
    Started,
    /// `partly`: a plain list that ended early.
    Done {
        partly: bool,
    },
    Failed,
    PassedOver,
    /// By the undo of that number.
    Undone(u64),
}

/// A step that was applied, or was and is undone.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    pub frame: String,
    pub index: usize,
    pub effect: Effect,
    /// Where it stands in the order of what was applied.
    pub order: u64,
    /// The number of the undo, and where it stands in the order of what was undone.
    pub undone: Option<(u64, u64)>,
    /// Something of it is in nobody's hands any more.
    pub lost: bool,
    /// An undo of it kept what others had made of something: no later one takes that back.
    pub kept: bool,
}

#[derive(Clone, Debug)]
pub struct Deployment {
    pub id: String,
    pub spec: Spec,
    /// When it began, on the history's clock.
    pub begun: u64,
    pub on_site: bool,
    pub steps: Vec<Done>,
    pub frames: BTreeMap<String, FrameState>,
}

/// True for a frame itself and what is inside it.
pub fn contains(frame: &str, other: &str) -> bool {
    frame.is_empty() || other == frame || other.strip_prefix(frame).is_some_and(|rest| rest.starts_with('/'))
}

pub fn join(frame: &str, child: &str) -> String {
    if frame.is_empty() { child.to_owned() } else { format!("{frame}/{child}") }
}

impl Spec {
    pub fn at(&self, frame: &str) -> &Spec {
        let mut spec = self;
        for name in frame.split('/').filter(|name| !name.is_empty()) {
            spec = spec.children().find(|child| child.name == name).expect("a frame of the package");
        }
        spec
    }

    pub fn children(&self) -> impl Iterator<Item = &Spec> {
        self.steps.iter().filter_map(|step| match step {
            Step::Child { spec, .. } => Some(spec),
            _ => None,
        })
    }
}

impl Deployment {
    pub fn new(spec: Spec, begun: u64) -> Self {
        Self { id: String::new(), spec, begun, on_site: false, steps: Vec::new(), frames: BTreeMap::new() }
    }

    fn is_left_out(&self, frame: &str) -> bool {
        self.frames.iter().any(|(around, state)| {
            contains(around, frame) && matches!(state, FrameState::Failed | FrameState::PassedOver)
        })
    }

    /// The frames that an undo took back, with its number.
    pub fn undone(&self) -> impl Iterator<Item = (&String, u64)> {
        self.frames.iter().filter(|(path, _)| !self.is_left_out(path)).filter_map(|(path, state)| match state {
            FrameState::Undone(number) => Some((path, *number)),
            _ => None,
        })
    }

    /// True where a part of it was passed over or ended early.
    pub fn is_partly(&self) -> bool {
        self.frames.iter().any(|(path, state)| {
            let around_failed = self.frames.iter().any(|(around, state)| {
                around != path && contains(around, path) && matches!(state, FrameState::Failed | FrameState::PassedOver)
            });
            !around_failed && matches!(state, FrameState::PassedOver | FrameState::Done { partly: true })
        })
    }
}

/// Follows a run, event by event.
pub struct Follower<'a> {
    pub deployment: &'a mut Deployment,
    pub world: &'a mut World,
    pub order: &'a mut u64,
    /// What an automatic undo left as others made it.
    pub kept: Found,
    /// What the model and the run do not agree on.
    pub wrong: Vec<String>,
}

impl Follower<'_> {
    pub fn hear(&mut self, heard: &Heard) {
        match heard {
            Heard::Started(frame, _) => drop(self.deployment.frames.insert(frame.clone(), FrameState::Started)),
            Heard::StepDone(frame, index) => {
                if !self.step(frame, *index) {
                    self.wrong.push(format!("step {index} of `{frame}` was done, and should have failed"));
                }
            }
            Heard::Failed(frame) => {
                if !self.deployment.spec.at(frame).list {
                    self.take_back(frame);
                }
            }
            Heard::Done(frame) => {
                let partly = self.deployment.frames.get(frame) == Some(&FrameState::Done { partly: true });
                self.deployment.frames.insert(frame.clone(), FrameState::Done { partly });
            }
            Heard::PassedOver(frame) => {
                let state = self.deployment.frames.get(frame);
                if matches!(state, None | Some(FrameState::Failed)) {
                    self.deployment.frames.insert(frame.clone(), FrameState::PassedOver);
                }
            }
            Heard::Retrying(..) => {}
        }
    }

    /// Does a step to the world; false where it would fail.
    pub fn step(&mut self, frame: &str, index: usize) -> bool {
        let effect = match &self.deployment.spec.at(frame).steps[index] {
            Step::Sql(statements, _) => statement::step(statements, self.world),
            Step::Files(tree, exact) => Some(statement::overlay(tree, *exact, KEPT, self.world)),
            Step::Delete(paths) => Some(statement::delete(paths, self.world)),
            Step::Flaky { .. } => Some(Effect::default()),
            Step::Child { .. } => None,
        };
        let Some(effect) = effect else { return false };
        self.kept.taken.clear();
        *self.order += 1;
        self.deployment.steps.retain(|step| (step.frame.as_str(), step.index) != (frame, index));
        self.deployment.steps.push(Done {
            frame: frame.to_owned(),
            index,
            effect,
            order: *self.order,
            undone: None,
            lost: false,
            kept: false,
        });
        true
    }

    /// The automatic undo of a frame and all inside it.
    pub fn take_back(&mut self, frame: &str) {
        self.deployment.steps.sort_by_key(|step| step.order);
        while let Some(at) =
            self.deployment.steps.iter().rposition(|step| contains(frame, &step.frame) && step.undone.is_none())
        {
            let step = self.deployment.steps.remove(at);
            step.effect.turn(self.world, Turn::Undo, OnConflict::Keep, &mut self.kept);
        }
        for (path, state) in &mut self.deployment.frames {
            if path == frame {
                *state = FrameState::Failed;
            } else if contains(frame, path) && matches!(state, FrameState::Started | FrameState::Done { .. }) {
                *state = FrameState::Undone(0);
            }
        }
    }
}

impl Follower<'_> {
    /// What a recovery does of a plain list.
    pub fn take_back_under_way(&mut self) {
        let under_way: Vec<String> = self
            .deployment
            .frames
            .iter()
            .filter(|(path, state)| !path.is_empty() && **state == FrameState::Started)
            .map(|(path, _)| path.clone())
            .collect();
        // Lists in a list keep what is done, too; a package among them goes back with all that is in it.
        let lists = under_way.iter().take_while(|path| self.deployment.spec.at(path).list).count();
        under_way.iter().skip(lists).for_each(|path| self.take_back(path));
    }
}

/// The path that no deployment touches.
pub const KEPT: &str = "uploads";

/// What the packages on a site are called, for `requires`.
pub fn is_deployed(deployments: &[Deployment], name: &str) -> bool {
    deployments.iter().any(|deployment| deployment.on_site && deployment.spec.name == name)
}

/// Foresees a run: what will be heard, and the status it will end with.
pub struct Foresight<'a> {
    pub follower: Follower<'a>,
    pub others: &'a [Deployment],
    /// How often each flaky command has run.
    pub counts: &'a mut BTreeMap<String, u32>,
    /// What the application does after the n-th step that was done.
    pub writes: &'a BTreeMap<usize, Vec<Write>>,
    pub done: usize,
    pub heard: Vec<Heard>,
}

/// A frame failed.
pub struct Failure;

impl Foresight<'_> {
    fn say(&mut self, heard: Heard) {
        self.follower.hear(&heard);
        self.heard.push(heard);
    }

    /// The root frame, to the end of the deployment.
    pub fn deploy(&mut self) -> Status {
        let spec = self.follower.deployment.spec.clone();
        self.say(Heard::Started(String::new(), 1));
        let ended = self.body(&spec, "");
        match ended {
            Err(Failure) if !spec.list => {
                self.follower.take_back("");
                return if self.follower.kept.is_clear() { Status::Failed } else { Status::NeedsHand };
            }
            Err(Failure) => {
                self.follower.deployment.frames.insert(String::new(), FrameState::Done { partly: true });
            }
            Ok(()) => {}
        }
        self.say(Heard::Done(String::new()));
        self.status()
    }

    /// One child again.
    pub fn retry(&mut self, frame: &str) -> Status {
        let spec = self.follower.deployment.spec.at(frame).clone();
        let ended = self.frame(&spec, frame, 1);
        let state = self.follower.deployment.frames.get(frame).copied();
        match ended {
            Err(Failure) if state == Some(FrameState::Failed) => {
                self.follower.deployment.frames.insert(frame.to_owned(), FrameState::PassedOver);
                if self.follower.kept.is_clear() { Status::Failed } else { Status::NeedsHand }
            }
            // Only what was run now is told.
            _ => {
                let partly = self.follower.deployment.frames.iter().any(|(path, state)| {
                    contains(frame, path) && matches!(state, FrameState::PassedOver | FrameState::Done { partly: true })
                });
                match (self.follower.kept.is_clear(), partly) {
                    (false, _) => Status::NeedsHand,
                    (true, true) => Status::Partly,
                    (true, false) => Status::Done,
                }
            }
        }
    }

    fn status(&self) -> Status {
        if !self.follower.kept.is_clear() {
            Status::NeedsHand
        } else if self.follower.deployment.is_partly() {
            Status::Partly
        } else {
            Status::Done
        }
    }

    fn body(&mut self, spec: &Spec, path: &str) -> Result<(), Failure> {
        for (index, step) in spec.steps.iter().enumerate() {
            match step {
                Step::Child { spec: child, attempts, go_on } => self.child(spec, child, path, *attempts, *go_on)?,
                Step::Flaky { file, times } => {
                    let count = self.counts.entry(file.clone()).or_default();
                    *count += 1;
                    if *count <= *times {
                        return Err(Failure);
                    }
                    self.step(path, index)?;
                }
                Step::Sql(..) | Step::Files(..) | Step::Delete(..) => self.step(path, index)?,
            }
        }
        if spec.never_holds { Err(Failure) } else { Ok(()) }
    }

    fn step(&mut self, path: &str, index: usize) -> Result<(), Failure> {
        if !self.follower.step(path, index) {
            return Err(Failure);
        }
        self.heard.push(Heard::StepDone(path.to_owned(), index));
        self.done += 1;
        let writes = self.writes.get(&self.done);
        writes.into_iter().flatten().for_each(|write| write.apply(self.follower.world));
        Ok(())
    }

    fn frame(&mut self, spec: &Spec, path: &str, attempt: u32) -> Result<(), Failure> {
        self.say(Heard::Started(path.to_owned(), attempt));
        match self.body(spec, path) {
            Ok(()) => {
                self.say(Heard::Done(path.to_owned()));
                Ok(())
            }
            Err(Failure) => {
                self.say(Heard::Failed(path.to_owned()));
                if spec.list {
                    self.follower.deployment.frames.insert(path.to_owned(), FrameState::Done { partly: true });
                    self.say(Heard::Done(path.to_owned()));
                }
                Err(Failure)
            }
        }
    }

    fn child(&mut self, parent: &Spec, spec: &Spec, above: &str, attempts: u32, go_on: bool) -> Result<(), Failure> {
        let path = join(above, &spec.name);
        for name in &spec.requires {
            let sibling = parent.children().find(|sibling| sibling.name == *name);
            let state = sibling.and_then(|sibling| self.follower.deployment.frames.get(&join(above, &sibling.name)));
            let present = match sibling {
                Some(_) => matches!(state, Some(FrameState::Done { .. })),
                None => is_deployed(self.others, name),
            };
            if !present && (state == Some(&FrameState::PassedOver) || go_on) {
                self.say(Heard::PassedOver(path));
                return Ok(());
            }
            if !present {
                return Err(Failure);
            }
        }
        for attempt in 1.. {
            if self.frame(spec, &path, attempt).is_ok() {
                return Ok(());
            }
            let clean = self.follower.deployment.frames.get(&path) == Some(&FrameState::Failed);
            if attempt >= attempts || !clean || !self.follower.kept.is_clear() {
                break;
            }
            self.say(Heard::Retrying(path.clone(), attempt + 1));
        }
        if !go_on || !self.follower.kept.is_clear() {
            return Err(Failure);
        }
        self.say(Heard::PassedOver(path));
        Ok(())
    }
}

impl Deployment {
    /// Undoes a part, in the model. `number` and `order` are the history's clocks.
    pub fn undo(&mut self, part: &str, manner: OnConflict, world: &mut World, number: u64, order: &mut u64) -> Found {
        let mut found = Found::default();
        for at in self.steps_to_undo(part) {
            found.left_before |= self.steps[at].kept;
            self.undo_step(at, manner, world, number, order, &mut found);
        }
        self.end_undo(part, number);
        found
    }

    /// Latest first.
    fn steps_to_undo(&mut self, part: &str) -> Vec<usize> {
        self.steps.sort_by_key(|step| step.order);
        let is_there = |at: &usize| contains(part, &self.steps[*at].frame) && self.steps[*at].undone.is_none();
        (0..self.steps.len()).rev().filter(is_there).collect()
    }

    fn undo_step(
        &mut self,
        at: usize,
        manner: OnConflict,
        world: &mut World,
        number: u64,
        order: &mut u64,
        found: &mut Found,
    ) {
        let step = &mut self.steps[at];
        let (lost, conflicts) = (found.lost.len(), found.conflicts.len());
        step.effect.turn(world, Turn::Undo, manner, found);
        step.lost = found.lost.len() > lost;
        step.kept |= manner == OnConflict::Keep && found.conflicts.len() > conflicts;
        *order += 1;
        step.undone = Some((number, *order));
    }

    fn end_undo(&mut self, part: &str, number: u64) {
        for (path, state) in &mut self.frames {
            if contains(part, path) && matches!(state, FrameState::Started | FrameState::Done { .. }) {
                *state = FrameState::Undone(number);
            }
        }
        self.on_site = self.steps.iter().any(|step| step.undone.is_none());
    }

    /// Undoes a part while the application writes after the n-th step that is undone. Where that is in the way of a step, those
    /// before it are done again.
    pub fn undo_meanwhile(
        &mut self,
        part: &str,
        writes: &BTreeMap<usize, Vec<Write>>,
        world: &mut World,
        number: u64,
        order: &mut u64,
    ) -> Meanwhile {
        let (mut all, mut undone) = (Found::default(), Vec::new());
        for at in self.steps_to_undo(part) {
            let (mut next, mut found) = (world.clone(), Found { taken: all.taken.clone(), ..Found::default() });
            let before = self.steps[at].clone();
            self.undo_step(at, OnConflict::Stop, &mut next, number, order, &mut found);
            if !found.is_clear() {
                self.steps[at] = before;
                all.unknown.append(&mut found.unknown);
                for at in undone.into_iter().rev() {
                    self.redo_step(at, OnConflict::Keep, world, order, &mut all);
                }
                return Meanwhile { put_back: true, found: all };
            }
            *world = next;
            all.lost.append(&mut found.lost);
            all.left.append(&mut found.left);
            all.taken = found.taken;
            undone.push(at);
            writes.get(&undone.len()).into_iter().flatten().for_each(|write| write.apply(world));
        }
        self.end_undo(part, number);
        Meanwhile { put_back: false, found: all }
    }

    fn redo_step(&mut self, at: usize, manner: OnConflict, world: &mut World, order: &mut u64, found: &mut Found) {
        *order += 1;
        let step = &mut self.steps[at];
        if step.lost {
            found.unknown.push("a file is lost".to_owned());
        }
        step.effect = step.effect.turn(world, Turn::Redo, manner, found);
        step.undone = None;
        step.order = *order;
    }

    /// Takes the undo of that number back, in the model; false where a smoke test stands against it.
    pub fn redo(&mut self, number: u64, world: &mut World, order: &mut u64) -> (Found, bool) {
        let mut found = Found::default();
        let mut steps: Vec<usize> =
            (0..self.steps.len()).filter(|at| self.steps[*at].undone.is_some_and(|(undo, _)| undo == number)).collect();
        steps.sort_by_key(|at| std::cmp::Reverse(self.steps[*at].undone));
        for at in steps {
            self.redo_step(at, OnConflict::Stop, world, order, &mut found);
        }
        let mut holds = true;
        for (path, state) in &mut self.frames {
            if *state == FrameState::Undone(number) {
                *state = FrameState::Done { partly: false };
                holds &= !self.spec.at(path).never_holds;
            }
        }
        self.on_site = true;
        (found, holds)
    }
}

/// What an undo came to while the application wrote.
pub struct Meanwhile {
    /// It met a conflict on its way.
    pub put_back: bool,
    pub found: Found,
}

/// The undo that a redo would take back: the deployment's place in the list, and the undo's number.
pub fn top(deployments: &[Deployment]) -> Option<(usize, u64)> {
    let (at, number) = deployments
        .iter()
        .enumerate()
        .filter_map(|(at, deployment)| deployment.undone().map(|(_, number)| number).max().map(|number| (at, number)))
        .filter(|(_, number)| *number > 0)
        .max_by_key(|(_, number)| *number)?;
    let cleared = deployments.iter().any(|deployment| deployment.begun > number && deployment.on_site);
    (!cleared).then_some((at, number))
}
