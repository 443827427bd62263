//! Tries the undo of a step that changed the schema before the step is announced, in its own transaction and back to a
//! savepoint. What could not be taken back later is refused now, while all of it still can.

use backout_model::conflict::OnConflict;
use backout_model::target::{Gate, Manner, Refusal, TargetError};

use super::classify;
use super::load::Replay;
use super::stream::{Event, Index, Reader};
use super::undo::Direction;
use super::{Postgres, counters};
use crate::verify;

impl Index {
    /// True where something was taken away or altered, or where rows were changed beside what they must satisfy: what
    /// was only made is dropped again, and rows alone go back as they were.
    pub(super) fn is_to_be_proven(&self) -> bool {
        let rows = self.events.iter().any(|event| matches!(event, Event::Rows { .. }));
        self.events.iter().any(|event| match event {
            Event::Ddl { event, .. } => event.alters() || rows && event.constrains(),
            Event::Rows { .. } | Event::Statements { .. } => false,
        })
    }
}

impl Postgres {
    /// Refuses the step where its undo fails.
    pub(super) fn prove(&mut self, shown: &str, gate: &mut dyn Gate) -> Result<(), TargetError> {
        let unread = |source| TargetError::failed("cannot read back the images of the step", source);
        let mut images = gate.written().map_err(unread)?;
        let mut reader = Reader::open(images.as_mut()).map_err(|source| self.damaged(source))?;
        // Of a sequence it can be seen without a try, and others need it.
        reader.index.sequences.clear();
        let began = counters::read(&mut self.a, &self.label)?;
        let failed = |this: &Self, source| this.failed("cannot set a savepoint in", source);
        self.a.run("SAVEPOINT backout_proof").map_err(|source| failed(self, source))?;
        let label = self.label.clone();
        let mut replay = Replay::new(&label, Direction::Undo, OnConflict::Stop, began);
        let manner = Manner { on_conflict: OnConflict::Stop, in_doubt: false };
        let tried = self.replay(&mut reader, manner, &mut replay, None, &mut |_| {});
        let conflicts = replay.conflicts;
        if self.a.client.is_closed() {
            return tried.map_err(|halt| self.halted(halt));
        }
        self.a
            .run("ROLLBACK TO SAVEPOINT backout_proof; RELEASE SAVEPOINT backout_proof")
            .map_err(|source| failed(self, source))?;
        let why = match tried.map_err(|halt| self.halted(halt)) {
            Err(error) => verify::chain(&error),
            Ok(()) => match conflicts.listed.first() {
                Some(conflict) => conflict.to_string(),
                None => return Ok(()),
            },
        };
        Err(TargetError::Refused(Refusal {
            place: shown.to_owned(),
            what: "the step as a whole".to_owned(),
            why: format!("its undo was tried and fails: {why}"),
            ways_out: vec![
                classify::OWN_UNDO.to_owned(),
                "make it two steps, so that the second begins where the first has ended".to_owned(),
            ],
        }))
    }
}
