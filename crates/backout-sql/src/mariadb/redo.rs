//! Does an undone step again, to the same result: its segments in order, each guarded like an undo.
//!
//! The segments and holds of the step are used again, filled with what is there now, so that a redo that ends halfway
//! leaves nothing out of the next one.

use backout_model::target::{Gate, Images, Manner, Report, TargetError};

use super::Mariadb;
use super::apply::uncaptured;
use super::replay::{Direction, Replay};
use super::segment::State;
use super::stream::{Kept, Reader, Way, Writer};
use super::undo::{Act, Halt, summary_of};

impl Mariadb {
    pub(super) fn redo_step(
        &mut self,
        images: &mut dyn Images,
        manner: Manner,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        let mut reader = Reader::open(images).map_err(|source| self.damaged(source))?;
        if reader.index.way != Way::Captured {
            // The engine applies such a script anew.
            return Err(TargetError::failed(format!("cannot redo in {}", self.label), "it was not captured"));
        }
        self.ready()?;
        let mut done = self.redo_captured(&mut reader, manner, gate);
        self.after_replay(&mut done);
        done
    }

    fn redo_captured(
        &mut self,
        reader: &mut Reader<'_>,
        manner: Manner,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        self.own_session()?;
        let index = reader.index.clone();
        let mut segments = self.settled_segments(index.step)?;
        segments.retain(|segment| segment.state == State::Undone);
        self.look_at_moments(&index.shown, &segments)?;
        let label = self.label.clone();
        let written = |source: std::io::Error| uncaptured(&label, source);
        let mut writer = Writer::new(gate.images()).map_err(written)?;
        let copied = reader.statements::<Halt>(false, &mut |Kept { line, text }| {
            Ok(writer.statement(line, &text, false).map_err(written)?)
        });
        copied.map_err(|halt| self.halted(halt))?;
        let bytes = writer.finish(&index).map_err(written)?;
        let mut summary = summary_of(&index, &segments);
        summary.bytes = bytes;
        let replay = Replay::new(&label, Direction::Redo, manner.on_conflict);
        let mut act = Act { replay, ticket: None, summary, gate, seals: true };
        self.walk(&mut segments, &mut act)?;
        self.conclude(&mut act)?;
        let Act { replay, mut summary, .. } = act;
        summary.rows = replay.rows;
        Ok(Report { summary, conflicts: replay.conflicts, notes: replay.notes, ..Report::default() })
    }
}
