//! One step of a deployment as its entries tell it.

use backout_model::conflict::{Conflict, Conflicts};
use backout_model::id::FramePath;
use backout_model::state::StepState;
use backout_model::target::{Report, Ticket};

use crate::act::{Act, Intended, UndoIntended};
use crate::history::Why;

#[derive(Clone, Debug)]
pub struct StepView {
    pub frame: FramePath,
    pub index: u32,
    pub state: StepState,
    pub intended: Intended,
    /// The entry that announced it last, whose images undo it; also its place in the order.
    pub seq: u64,
    pub has_images: bool,
    /// The entry that announced its undo last.
    pub undo: Option<(u64, UndoIntended)>,
    /// The entry that said it was applied, in whose payload a command's output is; 0 where none did.
    pub applied_seq: u64,
    /// Why its last undo was passed over: what it did stays until another undo takes it back.
    pub kept: Option<Why>,
    /// What its last undo left as somebody else had made it since.
    pub left: Conflicts,
    /// What the undos before the last redo had left: that redo found it done, and so has no images of it.
    pub left_before: Conflicts,
    /// What it was before a redo announced it again: where that redo turns out to have done nothing, it still is.
    pub before_redo: Option<Box<StepView>>,
}

impl StepView {
    pub fn act(&self) -> &Act {
        &self.intended.act
    }

    pub fn ticket(&self) -> Ticket {
        Ticket { seq: self.seq, epoch: self.intended.epoch }
    }

    /// The conflicts that its announced undo was to settle, as the target told them with the announcement.
    pub fn announced_conflicts(&self) -> Conflicts {
        let note = self.undo.as_ref().map(|(_, undo)| &undo.summary.note["settled"]);
        note.and_then(|note| serde_json::from_value(note.clone()).ok()).unwrap_or_default()
    }

    /// True where something of the step is, or may be, on the site.
    pub fn is_on_site(&self) -> bool {
        match self.state {
            StepState::Intended | StepState::Applied | StepState::UndoIntended => true,
            StepState::Discarded => false,
            // Earlier versions wrote an undo also for what nothing takes back.
            StepState::Undone => self.act().irreversible().is_some(),
        }
    }

    /// True where its undo took it back, so that a redo brings it again.
    pub fn is_undone(&self) -> bool {
        self.state == StepState::Undone && !self.is_on_site()
    }

    /// True where its undo took it back but for what somebody else had changed since.
    pub fn is_left_in_part(&self) -> bool {
        self.is_undone() && !(self.left.is_empty() && self.left_before.is_empty())
    }

    /// What all its undos left, each once.
    pub fn left_in_all(&self) -> Conflicts {
        let mut all = self.left.clone();
        all.join(self.left_before.clone());
        all
    }

    /// What the undo before a redo had left is still so only where the redo found it done; else that did it again. Of
    /// what was left `earlier` that redo had no images.
    pub fn heed_redo(&mut self, report: &Report, earlier: &Conflicts) {
        let told = &report.already;
        if !report.knows_already || told.total > told.listed.len() as u64 {
            return;
        }
        let before = self.left_before.listed.len();
        self.left_before.listed.retain(|left| {
            let is_file = left.target.starts_with("root ");
            let is_done = |done: &Conflict| {
                let is_same = done.target == left.target && done.object == left.object && done.key == left.key;
                is_same && (done.column == left.column || done.column.is_none() || left.column.is_none())
            };
            // Of the schema a redo does not say what it found done.
            earlier.listed.contains(left) || left.key.is_none() && !is_file || told.listed.iter().any(is_done)
        });
        self.left_before.total -= (before - self.left_before.listed.len()) as u64;
    }

    /// Why nothing takes it back, in words; none where its undo does.
    pub fn stays(&self) -> Option<String> {
        let because = self.act().irreversible().filter(|_| self.is_on_site())?;
        Some(format!("{} cannot be taken back: {because}", self.act().words()))
    }
}
