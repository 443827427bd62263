//! What of a deployment's history an undo would take back and a redo bring again, and which frames are taken back or done. Reads only.

use backout_model::id::FramePath;
use backout_model::state::FrameState;

use crate::history::{FrameView, Part, View};
use crate::step_view::StepView;

impl View {
    /// The steps of a frame and the frames inside it of which something is or may be on the site, latest first.
    pub fn steps_to_undo(&self, part: &FramePath) -> Vec<StepView> {
        let mut steps: Vec<StepView> =
            self.steps.values().filter(|step| part.contains(&step.frame) && self.goes(step)).cloned().collect();
        steps.sort_by_key(|step| std::cmp::Reverse(step.seq));
        steps
    }

    fn goes(&self, step: &StepView) -> bool {
        step.is_on_site() && (self.unattributed || !step.act().is_of_others())
    }

    /// The undo that a redo would take back next: its entry and what it was about. Undos of parts form a stack.
    pub fn redoable(&self) -> Option<&(u64, Part)> {
        let last = self.undone_frames().map(|(_, frame)| frame.undone_seq).max()?;
        self.undoings.iter().rev().find(|(seq, _)| *seq < last)
    }

    /// The frames that an undo took back. Those inside a frame that failed or was passed over went with it.
    pub fn undone_frames(&self) -> impl Iterator<Item = (&FramePath, &FrameView)> {
        self.frames.iter().filter(|(path, frame)| frame.state == FrameState::Undone && !self.is_left_out(path))
    }

    /// True where the frame or one around it failed or was passed over.
    fn is_left_out(&self, path: &FramePath) -> bool {
        let left_out = |frame: &FrameView| matches!(frame.state, FrameState::Failed | FrameState::PassedOver);
        let is = |path: &FramePath| self.frames.get(path).is_some_and(left_out);
        is(path) || path.parents().iter().any(is)
    }

    /// True where the package at `path` is applied in full, as far as it goes.
    pub fn is_done(&self, path: &FramePath) -> bool {
        self.frames.get(path).is_some_and(|frame| frame.state == FrameState::Done)
    }

    /// The steps of a frame and the frames inside it that were undone after the entry `since`, the one undone last
    /// first: a redo that stopped halfway has left some of them newer than others. Frames that failed or were passed
    /// over stay out: their steps were never part of the result.
    pub fn steps_to_redo(&self, part: &FramePath, since: u64) -> Vec<StepView> {
        let mut steps: Vec<StepView> = self
            .steps
            .values()
            .filter(|step| part.contains(&step.frame) && step.is_undone())
            .filter(|step| step.undo.as_ref().is_some_and(|(seq, _)| *seq > since))
            .filter(|step| !self.is_left_out(&step.frame))
            .cloned()
            .collect();
        steps.sort_by_key(|step| std::cmp::Reverse(step.undo.as_ref().map(|(seq, _)| *seq)));
        steps
    }
}
