//! The states of one deployment, its frames and its steps, folded from entries by the model's table.
//!
//! The live writer, recovery and `verify` all fold with this; it knows no transition of its own.

use std::collections::BTreeMap;

use backout_model::id::FramePath;
use backout_model::state::{self, DeploymentState, Event, FrameState, Scope, StepState};
use serde::{Deserialize, Serialize};

use crate::error::JournalError;

/// Where a deployment stands. Empty before its first entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct States {
    pub deployment: Option<DeploymentState>,
    pub frames: BTreeMap<FramePath, FrameState>,
    /// By frame and number of the step.
    pub steps: BTreeMap<(FramePath, u32), StepState>,
}

/// The part of an entry that moves states.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Moving {
    pub frame: FramePath,
    #[serde(default)]
    pub step: Option<u32>,
    pub event: Event,
}

/// One state that was set, with what stood there before, so that it can be taken back.
#[derive(Debug)]
pub(crate) enum Moved {
    Nothing,
    Deployment(Option<DeploymentState>),
    Frame(FramePath, Option<FrameState>),
    Step((FramePath, u32), Option<StepState>),
}

impl States {
    /// Moves the scope of the event, or says why it must not.
    pub(crate) fn apply(&mut self, entry: &Moving) -> Result<Moved, JournalError> {
        let event = entry.event;
        let next = state::deployment(self.deployment, event)
            .ok_or_else(|| illegal(event, "the deployment", self.deployment.as_ref()))?;
        match event.scope() {
            Scope::Deployment => Ok(Moved::Deployment(self.deployment.replace(next))),
            Scope::Frame => {
                let from = self.frames.get(&entry.frame).copied();
                let to = state::frame(from, event)
                    .ok_or_else(|| illegal(event, &frame_in_words(&entry.frame), from.as_ref()))?;
                self.frames.insert(entry.frame.clone(), to);
                Ok(Moved::Frame(entry.frame.clone(), from))
            }
            Scope::Step => {
                let Some(number) = entry.step else {
                    return Err(JournalError::Draft { event: name(&event), what: "it names no step".to_owned() });
                };
                let key = (entry.frame.clone(), number);
                let from = self.steps.get(&key).copied();
                let to = state::step(from, event).ok_or_else(|| {
                    illegal(event, &format!("step {number} of {}", frame_in_words(&entry.frame)), from.as_ref())
                })?;
                self.steps.insert(key.clone(), to);
                Ok(Moved::Step(key, from))
            }
            Scope::Note | Scope::Site => Ok(Moved::Nothing),
        }
    }

    /// Puts back what [`States::apply`] moved; in reverse order.
    pub(crate) fn take_back(&mut self, moved: Moved) {
        match moved {
            Moved::Nothing => {}
            Moved::Deployment(before) => self.deployment = before,
            Moved::Frame(frame, Some(before)) => {
                self.frames.insert(frame, before);
            }
            Moved::Frame(frame, None) => {
                self.frames.remove(&frame);
            }
            Moved::Step(key, Some(before)) => {
                self.steps.insert(key, before);
            }
            Moved::Step(key, None) => {
                self.steps.remove(&key);
            }
        }
    }
}

/// The journal's word for an event or a state: kebab case, as it stands in entries.
pub fn name<T: Serialize>(word: &T) -> String {
    match serde_json::to_value(word) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

fn frame_in_words(frame: &FramePath) -> String {
    if frame.is_root() { "the root frame".to_owned() } else { format!("frame {frame}") }
}

fn illegal<S: Serialize>(event: Event, object: &str, from: Option<&S>) -> JournalError {
    let from = from.map_or_else(|| "not begun".to_owned(), name);
    JournalError::Illegal { event: name(&event), object: object.to_owned(), from }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moving(event: Event, frame: &str, step: Option<u32>) -> Moving {
        Moving { frame: FramePath::parse(frame), step, event }
    }

    #[test]
    fn what_is_taken_back_was_never_there() {
        let mut states = States::default();
        states.apply(&moving(Event::DeploymentPlanned, "", None)).unwrap();
        let before = states.clone();
        let moved: Vec<Moved> = [
            moving(Event::DeploymentChecking, "", None),
            moving(Event::FrameStarted, "a", None),
            moving(Event::StepIntended, "a", Some(0)),
            moving(Event::StepApplied, "a", Some(0)),
            moving(Event::FinallyRan, "a", None),
        ]
        .iter()
        .map(|entry| states.apply(entry).unwrap())
        .collect();
        assert_eq!(states.steps.len(), 1);
        for one in moved.into_iter().rev() {
            states.take_back(one);
        }
        assert_eq!(states, before);
    }

    #[test]
    fn a_step_needs_a_number_and_a_deployment_that_exists() {
        let mut states = States::default();
        assert!(matches!(states.apply(&moving(Event::StepIntended, "", Some(0))), Err(JournalError::Illegal { .. })));
        states.apply(&moving(Event::DeploymentPlanned, "", None)).unwrap();
        assert!(matches!(states.apply(&moving(Event::StepIntended, "", None)), Err(JournalError::Draft { .. })));
        let error = states.apply(&moving(Event::StepApplied, "a/b", Some(3))).unwrap_err();
        assert_eq!(error.to_string(), "step-applied is illegal for step 3 of frame a/b, which is not begun");
    }
}
