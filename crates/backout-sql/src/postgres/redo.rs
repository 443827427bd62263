//! Does an undone step again, to the same result: its after-images come back, its schema changes run again.
//!
//! What it does is captured, so that the undo that may follow has images of its own.

use backout_model::conflict::OnConflict;
use backout_model::target::{Gate, Images, Manner, Report, Summary, TargetError};

use super::apply::uncaptured;
use super::gone::Gone;
use super::load::Replay;
use super::stream::{Event, Kept, Reader, Table, Way};
use super::undo::{Direction, Halt, summary_of};
use super::{Postgres, counters, table};

/// Rows of tables that the step made come last in the images. Where a foreign key looks for them before, they come before it,
/// unless their table is not yet what it is in the end.
pub(super) fn made_rows_first(events: &mut [Event], tables: &[Table]) {
    for at in 0..events.len() {
        let Event::Rows { table, .. } = &events[at] else { continue };
        let Some(table) = tables.get(*table as usize).filter(|table| table.made) else { continue };
        let name = table::shown(table);
        let points_at_it =
            |event: &Event| matches!(event, Event::Ddl { event, .. } if event.points_at().any(|parent| parent == name));
        let is_about_it =
            |event: &Event| matches!(event, Event::Ddl { event, .. } if event.about().any(|one| one == name));
        if let Some(first) = events[..at].iter().position(points_at_it)
            && !events[first..at].iter().any(is_about_it)
        {
            events[first..=at].rotate_right(1);
        }
    }
}

impl Postgres {
    pub(super) fn redo_step(
        &mut self,
        images: &mut dyn Images,
        manner: Manner,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        let mut reader = Reader::open(images).map_err(|source| self.damaged(source))?;
        self.ready()?;
        self.gone = Gone::default();
        let before = counters::read(&mut self.a, &self.label)?;
        let done = match reader.index.way {
            Way::Captured => self.redo_captured(&mut reader, &before, manner, gate),
            Way::ByScript { .. } | Way::Never { .. } => self.rerun(&mut reader, &before, gate),
        };
        if done.is_err() {
            self.failed_draws.learn(&mut self.a, &before);
        }
        self.after_step();
        done
    }

    fn redo_captured(
        &mut self,
        reader: &mut Reader<'_>,
        before: &counters::Positions,
        manner: Manner,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        let label = self.label.clone();
        self.begin()?;
        let mut capture = self.capture(gate)?;
        capture.index().shown = reader.index.shown.clone();
        capture.index().unenforced = reader.index.unenforced;
        let rows_earlier = reader.index.rows_earlier;
        let mut replay = Replay::new(&label, Direction::Redo, manner.on_conflict, before.clone());
        let of = reader.index.rows;
        self.replay(reader, manner, &mut replay, Some(&mut capture), &mut |rows| gate.progress(rows, Some(of)))
            .map_err(|halt| self.halted(halt))?;
        let Replay { conflicts, notes, .. } = replay;
        if manner.on_conflict == OnConflict::Stop && !conflicts.is_empty() {
            return Err(TargetError::Conflicts(conflicts));
        }
        self.flush(&mut capture)?;
        if rows_earlier {
            capture.index().put_rows_earlier();
        }
        if reader.index.ends_behind_rows() {
            capture.index().put_last_change_behind_rows();
        }
        let summary = self.sealed(capture, before)?;
        self.seal(&summary, gate)?;
        Ok(Report { summary, conflicts, notes, ..Report::default() })
    }

    /// What was not captured runs again, triggers and all.
    fn rerun(
        &mut self,
        reader: &mut Reader<'_>,
        before: &counters::Positions,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        let label = self.label.clone();
        self.a.plain().map_err(|source| self.failed("cannot set up", source))?;
        self.begin()?;
        let mut capture = self.capture(gate)?;
        capture.index().shown = reader.index.shown.clone();
        capture.index().way = reader.index.way.clone();
        let shown = reader.index.shown.clone();
        self.run_script(reader, &shown, false).map_err(|halt| self.halted(halt))?;
        for undo in [false, true] {
            reader
                .statements(undo, &mut |Kept { line, rows, text }| -> Result<(), Halt> {
                    let kept =
                        if undo { capture.undo_statement(line, &text) } else { capture.statement(line, rows, &text) };
                    Ok(kept.map_err(|source| uncaptured(&label, source))?)
                })
                .map_err(|halt| self.halted(halt))?;
        }
        let bytes = self.sealed(capture, before)?.bytes;
        let summary = Summary { bytes, ..summary_of(&reader.index) };
        self.seal(&summary, gate)?;
        Ok(Report { summary, ..Report::default() })
    }
}
