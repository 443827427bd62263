//! What a command did, found by comparing the database with the copy of before, and written as the segments of a step like
//! any other. So its undo, redo, conflicts and descriptions are those of scripts.
//!
//! The changes themselves are on the site already. What is added is what the step holds, and then in one transaction its
//! segments and the marker: before it commits nothing was told, after it everything. A table that went, or that is not as
//! it was, is held as its copy, which lies there already; so no name changes hands.
//!
//! Nobody can try an undo here that commits at each of its steps. That it leads back is by its making: of each table that
//! goes back as a whole the copy's definition was held against the table's own when it was made; rows go back by the very
//! difference to the copy, in the server's own comparison byte by byte; and what is its text is that text. What could not
//! be told so is refused here by name, and [`Mariadb::put_all_back`] holds what it leaves against the copy.
//!
//! Never changes what is the user's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use backout_model::fault::{self, Point};
use backout_model::target::{Gate, Refusal, Report, Summary, TargetError, Ticket};
use mysql::Error;
use serde_json::Value;

use super::compared_events::{Tables, Telling};
use super::compared_links::parents;
use super::compared_rows;
use super::compared_schema::{OneTable, Schema};
use super::ddl::Change;
use super::ddl_hung;
use super::ddl_links::orphans;
use super::ddl_shape::Shape;
use super::segment::{Detail, Held, Segment};
use super::session::is_missing;
use super::stream::{Index, Writer};
use super::undo::summary_of;
use super::{Mariadb, marker};

/// How often, and after how long each time, is looked whether statements have ended: ten minutes.
const LOOKS: u32 = 3000;
const BETWEEN: Duration = Duration::from_millis(200);

impl Mariadb {
    /// See [`backout_model::target::Target::compare`].
    pub(super) fn compare_with(
        &mut self,
        note: &Value,
        shown: &str,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        self.ready()?;
        let done = self.own_session().and_then(|()| self.compared(note, shown, gate));
        self.after_step();
        done
    }

    /// Waits for the statements that are under way: that of a client which was killed goes on in the server.
    fn let_statements_end(&mut self) -> Result<(), Error> {
        let own = [self.b.conn.connection_id(), self.a.as_ref().map_or(0, |a| a.conn.connection_id())];
        let running = format!(
            "SELECT QUERY_ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND COMMAND IN ('Query', 'Execute', 'Killed')
             AND ID NOT IN ({}, {})",
            own[0], own[1]
        );
        let first = self.b.rows(&running)?;
        for _ in 0..LOOKS {
            let now = self.b.rows(&running)?;
            if !first.iter().any(|one| now.contains(one)) {
                break;
            }
            std::thread::sleep(BETWEEN);
        }
        // One that takes longer than that is somebody else's, or the locks wait for it.
        Ok(())
    }

    fn compared(&mut self, note: &Value, shown: &str, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        fault::point(Point::Statement).map_err(|source| TargetError::failed(self.cannot_compare(), source))?;
        self.let_statements_end().map_err(|source| self.uncompared(source))?;
        let (names, label, epoch) = (self.names.clone(), self.label.clone(), self.epoch);
        marker::holds(self.a()?, &names, &label, epoch)?;
        let mut was = self.before(note)?;
        let (keeper, is) = self.keep_writers_out()?;
        self.may_be_told(&was, &is, shown)?;
        let notes = self.without_others(note, &mut was, &is)?;
        let step = marker::next_step(self.a()?, &names).map_err(|source| self.uncompared(source))?;
        let done = self.told(step, &was, &is, gate).and_then(|segments| {
            drop(keeper);
            self.begin()?;
            let report = self.sealed(step, &segments, shown, gate)?;
            Ok(Report { notes, ..report })
        });
        if done.is_err() {
            // What a segment that was written holds stays.
            drop(self.sweep_step(step));
        }
        done
    }

    /// Refuses where the command changed what nobody here knows how to bring back.
    pub(super) fn may_be_told(&self, was: &Schema, is: &Schema, shown: &str) -> Result<(), TargetError> {
        let broken = is.texts.iter().find(|one| one.broken && was.text(one.kind, &one.name) != Some(&one.text));
        let why = match (is.others.first(), broken) {
            (Some(other), _) => format!("it left the {}, which cannot be captured: {}", other.what, other.why),
            (_, Some(view)) => {
                format!("it left the view {}, of which the server does not find all that it is made of", view.name)
            }
            _ if was.collation != is.collation => "it changed the character set of the database".to_owned(),
            _ => return Ok(()),
        };
        Err(TargetError::Refused(Refusal {
            place: shown.to_owned(),
            what: format!("what it did to {}", self.label),
            why,
            ways_out: vec!["give the step an undo of its own: `undo: [a command]`".to_owned()],
        }))
    }

    /// The tables that differ from their copies and can only be told as made anew; and those whose rows differ.
    pub(super) fn other_rows(
        &mut self,
        was: &Schema,
        is: &Schema,
    ) -> Result<(BTreeSet<String>, BTreeSet<String>), TargetError> {
        let (mut whole, mut rows) = (BTreeSet::new(), BTreeSet::new());
        for (old, new) in Tables::of(was, is, &whole).stay {
            fault::point(Point::Statement).map_err(|source| TargetError::failed(self.cannot_compare(), source))?;
            let differs = compared_rows::differ(self.a()?, old).map_err(|source| self.uncompared(source))?;
            if differs || old.counter != new.counter {
                // A counter that went down was set, and rows that come back would move it again.
                let one_by_one = old.is_transactional() && old.counter <= new.counter;
                let told = if one_by_one { &mut rows } else { &mut whole };
                told.insert(old.table.name.clone());
            }
        }
        Ok((whole, rows))
    }

    /// What the command did; the holds are filled.
    fn told(&mut self, step: u64, was: &Schema, is: &Schema, gate: &mut dyn Gate) -> Result<Vec<Segment>, TargetError> {
        let (whole, rows) = self.other_rows(was, is)?;
        let tables = Tables::of(was, is, &whole);
        let settings = self.a()?.settings().map_err(|source| self.uncompared(source))?;
        let mut telling = Telling::new(step, settings, was, is, &tables);
        telling.before_rows(self.a()?);
        let mut all = Vec::new();
        let mut count = 0;
        for (old, new) in tables.stay.iter().filter(|(old, _)| rows.contains(&old.table.name)) {
            fault::point(Point::Statement).map_err(|source| TargetError::failed(self.cannot_compare(), source))?;
            let at = u32::try_from(all.len()).unwrap_or(u32::MAX);
            let [b, a] = ["b", "a"].map(|side| self.names.of_segment(step, telling.number(), &format!("{at}{side}")));
            let filled = compared_rows::fill(self.a()?, old, &b, &a);
            let (before, after) = filled.map_err(|source| self.uncompared(source))?;
            let counter = old.counter.zip(new.counter).filter(|(was, is)| was != is);
            all.push(Held { table: old.table.clone(), at, before, after, counter });
            count += before.max(after);
            gate.progress(count, None);
        }
        let at = telling.segments.len();
        if !all.is_empty() {
            let unchecked = self.points_at_nothing(&is.tables, &rows)?;
            telling.push(Detail::Rows { tables: all, unchecked, drawn: Vec::new() });
        }
        let done = telling.after_rows(self.a()?);
        done.map_err(|source| self.uncompared(source))?;
        let mut segments = telling.segments;
        let moves = |segment: &Segment| matches!(&segment.detail, Detail::Ddl { change, .. } if matches!(**change, Change::Dropped { .. } | Change::Made { .. }));
        let moved = segments.iter().any(moves);
        if let Some(Detail::Rows { unchecked, .. }) = segments.get_mut(at).map(|segment| &mut segment.detail) {
            // A redo does the rows before the tables that they may point at.
            *unchecked |= moved;
        }
        let held = self.begin_of_held();
        for segment in &mut segments {
            if let Detail::Ddl { change, hung, .. } = &mut segment.detail {
                // What the command itself hung there goes before it, and what was there is nobody's since.
                *hung = ddl_hung::before(&mut self.b, change, &held).map_err(|source| self.uncompared(source))?;
            }
        }
        Ok(segments)
    }

    /// True where the command left rows that point at nothing, in a table that it changed or at one.
    fn points_at_nothing(
        &mut self,
        tables: &BTreeMap<String, OneTable>,
        changed: &BTreeSet<String>,
    ) -> Result<bool, TargetError> {
        for (name, one) in tables {
            let parents = parents(&one.definition);
            if !changed.contains(name) && parents.is_disjoint(changed) || parents.is_empty() {
                continue;
            }
            let shape = Shape::of(&one.definition);
            match orphans(self.a()?, name, &shape.clone().without_links(), &shape) {
                Ok(found) if found.is_empty() => {}
                Err(error) if !is_missing(&error) => return Err(self.uncompared(error)),
                _ => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Announces the step, and writes in the open transaction, which this ends, that it was done.
    pub(super) fn sealed(
        &mut self,
        step: u64,
        segments: &[Segment],
        shown: &str,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        let struck = |source| TargetError::failed(self.cannot_compare(), source);
        let statements = segments.iter().map(|segment| segment.held().len().max(1) as u64).sum();
        let index = Index { shown: shown.to_owned(), step, statements, ..Index::default() };
        let bytes = Writer::new(gate.images()).and_then(|writer| writer.finish(&index)).map_err(struck)?;
        let rows = segments.iter().flat_map(Segment::held).map(|held| held.before.max(held.after)).sum();
        let summary = Summary { bytes, rows, ..summary_of(&index, segments) };
        let ticket = gate.announce(&summary)?;
        self.written(segments, ticket)?;
        Ok(Report { summary, ..Report::default() })
    }

    fn written(&mut self, segments: &[Segment], ticket: Ticket) -> Result<(), TargetError> {
        let names = self.names.clone();
        // The lock's epoch is asserted with the marker, in this transaction.
        for segment in segments {
            let written = segment.write(self.a()?, &names, ticket);
            written.map_err(|source| self.failed("cannot write a segment to", source))?;
        }
        self.stamp(ticket)?;
        self.commit(&|b| Ok(marker::read(b, &names, false)?.is_some_and(|found| found.seq >= ticket.seq)))
    }

    pub(super) fn cannot_compare(&self) -> String {
        format!("cannot compare {} with what it was", self.label)
    }

    pub(super) fn uncompared(&self, source: Error) -> TargetError {
        TargetError::failed(self.cannot_compare(), source)
    }
}
