//! Takes a step back: its segments in reverse, each in a transaction of its own or as a change of the schema.
//!
//! Conflicts are sought before the first segment is taken back, as far as they can be without changing the schema. One
//! that turns up later puts back what was taken back so far.

use std::collections::BTreeSet;

use backout_model::conflict::OnConflict;
use backout_model::fault::{self, Point};
use backout_model::target::{Gate, Images, Manner, Report, Summary, TargetError, Ticket};

use super::apply::run_plainly;
use super::capture;
use super::counters::counters_of;
use super::guard::{self, Rows};
use super::quiet;
use super::replay::{Direction, Replay};
use super::segment::{self, Detail, Held, Segment, State};
use super::session::Session;
use super::stream::{Index, Kept, Reader, StreamError, Way};
use super::table::{self, Table, There};
use super::{Mariadb, marker, succession};
use crate::shown;

/// An error of the target, or of the images.
pub enum Halt {
    Error(TargetError),
    Stream(StreamError),
}

impl From<TargetError> for Halt {
    fn from(error: TargetError) -> Self {
        Halt::Error(error)
    }
}

impl From<StreamError> for Halt {
    fn from(error: StreamError) -> Self {
        Halt::Stream(error)
    }
}

/// An act on the segments of a step that are still to be replayed, in the order in which that is done.
pub(super) struct Act<'a, 'g> {
    pub replay: Replay<'a>,
    pub ticket: Option<Ticket>,
    pub summary: Summary,
    pub gate: &'g mut dyn Gate,
    /// The last segment moves the marker.
    pub seals: bool,
}

impl Mariadb {
    pub(super) fn halted(&self, halt: Halt) -> TargetError {
        match halt {
            Halt::Error(error) => error,
            Halt::Stream(source) => self.damaged(source),
        }
    }

    pub(super) fn undo_step(
        &mut self,
        images: &mut dyn Images,
        manner: Manner,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        let mut reader = Reader::open(images).map_err(|source| self.damaged(source))?;
        let index = reader.index.clone();
        self.ready()?;
        let mut done = match &index.way {
            Way::Captured => self.undo_captured(&index, manner, gate),
            Way::ByScript { shown } => self.undo_by_script(&mut reader, shown, gate),
            Way::Never { because } => Err(shown::never(&index.shown, because)),
        };
        self.after_replay(&mut done);
        done
    }

    fn undo_captured(&mut self, index: &Index, manner: Manner, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.own_session()?;
        let mut segments = self.settled_segments(index.step)?;
        // One that was taken back right before a crash may not have had its counters put back.
        let last = segments.iter().find(|segment| segment.state == State::Undone).map(counters_of).unwrap_or_default();
        segments.retain(|segment| segment.state == State::Done);
        segments.reverse();
        self.put_counters_back(&last, &mut Vec::new())?;
        let label = self.label.clone();
        let mut replacing = succession::replacing(segments.iter().rev());
        replacing.extend(self.replacing.iter().cloned());
        if manner.on_conflict == OnConflict::Stop && segments.len() > 1 {
            let mut replay = Replay::new(&label, Direction::Undo, OnConflict::Stop);
            replay.replacing.clone_from(&replacing);
            self.try_segments(&segments, &mut replay)?;
            if !replay.conflicts.is_empty() {
                return Err(TargetError::Conflicts(replay.conflicts));
            }
        }
        self.look_for_room(&segments, manner.on_conflict)?;
        let replay = Replay { replacing, ..Replay::new(&label, Direction::Undo, manner.on_conflict) };
        let mut act = Act { replay, ticket: None, summary: summary_of(index, &segments), gate, seals: true };
        self.walk(&mut segments, &mut act)?;
        self.conclude(&mut act)?;
        let Act { mut replay, mut summary, .. } = act;
        replay.notes.extend(self.still_drawn(&segments)?);
        summary.rows = replay.rows;
        Ok(Report { summary, conflicts: replay.conflicts, notes: replay.notes, ..Report::default() })
    }

    /// Ends an act that may hold triggers still. Where they cannot be let go now, whoever takes the lock next does it; they
    /// act for others meanwhile.
    pub(super) fn after_replay(&mut self, done: &mut Result<Report, TargetError>) {
        self.after_step();
        if let (Err(error), Ok(report)) = (self.let_triggers_go(), done) {
            report.notes.push(format!("{}: {error}; `backout resume` does it", self.label));
        }
    }

    /// The act's session under the tool's own settings.
    pub(super) fn own_session(&mut self) -> Result<(), TargetError> {
        let a = self.a()?;
        let set = a
            .stay_neutral()
            .and_then(|()| a.run("SET lock_wait_timeout = 1"))
            .and_then(|()| quiet::be_quiet(a))
            .and_then(|()| a.run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"));
        set.map_err(|source| self.failed("cannot set up", source))
    }

    pub(super) fn roll_back(&mut self) -> Result<(), TargetError> {
        self.a()?.run("ROLLBACK").map_err(|source| self.failed("cannot roll back in", source))
    }

    /// The segments of a step, of which is known how far each has come.
    pub(super) fn settled_segments(&mut self, step: u64) -> Result<Vec<Segment>, TargetError> {
        let mut segments = segment::read(&mut self.b, &self.names, &self.label, step)?;
        for segment in &mut segments {
            if matches!(segment.state, State::Intended | State::Undoing) {
                self.settle_change(segment)?;
            }
        }
        Ok(segments)
    }

    /// Replays segments one after the other. A conflict that is not to be settled, or can't be, puts back what was replayed of
    /// an undo so far.
    pub(super) fn walk(&mut self, segments: &mut [Segment], act: &mut Act<'_, '_>) -> Result<(), TargetError> {
        let count = segments.len();
        for at in 0..count {
            fault::point(Point::Statement)
                .map_err(|source| TargetError::failed(format!("cannot change {}", self.label), source))?;
            let last = at + 1 == count && act.seals;
            act.replay.look_ahead(&self.names, &segments[at + 1..]);
            let met = match self.replay_segment(&mut segments[at], last, act) {
                Err(TargetError::Conflicts(conflicts)) => Some(conflicts),
                Err(error) => return Err(error),
                Ok(()) => act.replay.is_stopped().then(|| std::mem::take(&mut act.replay.conflicts)),
            };
            if let Some(conflicts) = met {
                self.roll_back()?;
                if act.replay.direction == Direction::Undo {
                    self.put_back(&mut segments[..at], act)?;
                }
                return Err(TargetError::Conflicts(conflicts));
            }
            act.gate.progress(act.replay.rows, None);
        }
        Ok(())
    }

    /// Moves the marker, where the last segment did not.
    pub(super) fn conclude(&mut self, act: &mut Act<'_, '_>) -> Result<(), TargetError> {
        let ticket = self.announced(&mut act.ticket, &act.summary, act.gate)?;
        if self.marker()?.is_none_or(|marker| marker.seq < ticket.seq) {
            self.seal(ticket)?;
        }
        Ok(())
    }

    /// Does again what an undo took back before it met a conflict.
    fn put_back(&mut self, segments: &mut [Segment], act: &mut Act<'_, '_>) -> Result<(), TargetError> {
        let label = self.label.clone();
        let mut replay = Replay::new(&label, Direction::Redo, OnConflict::Keep);
        std::mem::swap(&mut act.replay.notes, &mut replay.notes);
        let mut back =
            Act { replay, ticket: act.ticket, summary: act.summary.clone(), gate: &mut *act.gate, seals: false };
        for segment in segments.iter_mut().rev() {
            self.replay_segment(segment, false, &mut back)?;
        }
        match back.replay.conflicts.is_empty() {
            true => Ok(()),
            false => Err(TargetError::failed(
                format!("cannot put back in {label} what was undone so far"),
                format!("{} with changes made meanwhile", back.replay.conflicts),
            )),
        }
    }

    fn replay_segment(&mut self, segment: &mut Segment, last: bool, act: &mut Act<'_, '_>) -> Result<(), TargetError> {
        match segment.detail.clone() {
            Detail::Rows { tables, .. } if act.replay.direction == Direction::Undo => {
                let set_down = self.raise_counters(std::slice::from_ref(segment))?;
                let done = self.replay_rows(segment, &tables, last, act);
                if segment.state != State::Undone && !set_down.is_empty() {
                    self.roll_back()?;
                    self.put_counters_back(&set_down, &mut Vec::new())?;
                }
                done
            }
            Detail::Rows { tables, .. } => self.replay_rows(segment, &tables, last, act),
            Detail::Ddl { .. } => self.replay_change(segment, act),
            Detail::Script => Ok(()),
        }
    }

    /// Replays a segment of rows in one transaction, which says in the segment's row that it did.
    fn replay_rows(
        &mut self,
        segment: &mut Segment,
        tables: &[Held],
        last: bool,
        act: &mut Act<'_, '_>,
    ) -> Result<(), TargetError> {
        let undo = act.replay.direction == Direction::Undo;
        let counters = if undo { self.counters_left(segment)? } else { counters_of(segment) };
        let began = if undo { Vec::new() } else { self.counters_now(segment)? };
        // Counters are put back behind the commit, and the marker says that all is done.
        let last = last && counters.is_empty() && began.is_empty();
        self.note_counters(segment, &began)?;
        let written: Vec<&str> = tables.iter().map(|held| held.table.name.as_str()).collect();
        self.hold_triggers(&written)?;
        self.begin()?;
        let (names, label, epoch) = (self.names.clone(), self.label.clone(), self.epoch);
        marker::holds(self.a()?, &names, &label, epoch)?;
        let rows = self.locked_rows_of(segment, tables, &mut act.replay)?;
        act.replay.unchecked = !undo && matches!(segment.detail, Detail::Rows { unchecked: true, .. });
        // Where a conflict would stop it, what nobody touched becomes what the holds say already.
        let stops = act.replay.on_conflict == OnConflict::Stop;
        let stays = |one: &&Rows<'_>| undo || stops && one.is_untouched();
        let anew: Vec<&Rows<'_>> = rows.iter().filter(|one| !stays(one)).collect();
        self.each_hold(segment, &anew, tables, capture::put_aside)?;
        self.change_rows(&rows, &mut act.replay, &BTreeSet::new())?;
        if act.replay.is_stopped() {
            self.roll_back()?;
            return if undo { Ok(()) } else { self.sweep_segment(segment.step, segment.number) };
        }
        self.each_hold(segment, &anew, tables, capture::rehold)?;
        if undo && !act.replay.conflicts.is_empty() {
            // Announced with the undo: after a crash nobody else could say what it left as others made it.
            act.summary.note = serde_json::json!({ "settled": act.replay.conflicts });
        }
        let ticket = self.announced(&mut act.ticket, &act.summary, act.gate)?;
        let come = match undo {
            true => segment.come(self.a()?, &names, State::Undone),
            false => segment.redone(self.a()?, &names, ticket),
        };
        come.map_err(|source| self.failed("cannot write a segment to", source))?;
        if last {
            self.stamp(ticket)?;
        }
        let come = segment.clone();
        self.commit(&|b| come.is_so(b, &names))?;
        match undo {
            true => self.put_counters_back(&counters, &mut act.replay.notes),
            false => {
                self.put_counters_forward(segment, &began)?;
                self.sweep_segment(segment.step, segment.number)
            }
        }
    }

    /// Does something with the two holds of each table; the last of the names is that of a temporary table.
    fn each_hold(
        &mut self,
        segment: &Segment,
        rows: &[&Rows<'_>],
        tables: &[Held],
        work: fn(&mut Session, &Table, &str, &str, &str) -> Result<(), mysql::Error>,
    ) -> Result<(), TargetError> {
        let names = self.names.clone();
        let label = self.label.clone();
        for held in tables.iter().filter(|held| rows.iter().any(|rows| rows.table.name == held.table.name)) {
            let hold = |side: &str| segment.object(&names, &format!("{}{side}", held.at));
            work(self.a()?, &held.table, &hold("b"), &hold("a"), &format!("backout_was{}", held.at))
                .map_err(|source| capture::uncaptured(&label, source))?;
        }
        Ok(())
    }

    /// The changes of a segment's tables, whose rows are locked in the open transaction: those of all before anything else is
    /// read. A table that is not what it was is a conflict and left out.
    pub(super) fn locked_rows_of<'t>(
        &mut self,
        segment: &Segment,
        tables: &'t [Held],
        replay: &mut Replay<'_>,
    ) -> Result<Vec<Rows<'t>>, TargetError> {
        let label = self.label.clone();
        let mut all = self.rows_of(segment, tables, replay)?;
        for one in &mut all {
            let failed = |source| guard::unchanged(&one.table.name, &label, source);
            let wanted = one.table.rows_held(&mut self.b, &one.to).map_err(failed)?;
            one.lock(self.a()?, wanted).map_err(failed)?;
        }
        Ok(all)
    }

    fn rows_of<'t>(
        &mut self,
        segment: &Segment,
        tables: &'t [Held],
        replay: &mut Replay<'_>,
    ) -> Result<Vec<Rows<'t>>, TargetError> {
        let names = self.names.clone();
        let mut all = Vec::new();
        for held in tables {
            let name = &held.table.name;
            let found = table::there(&mut self.b, name)
                .and_then(|there| Ok((there, quiet::why_not(&mut self.b, name)?, Table::find(&mut self.b, name)?)));
            let (there, why_not, now) = found.map_err(|source| self.failed("cannot read the schema of", source))?;
            match there {
                // No transaction would take back what is tried there.
                There::Table(engine) if engine != "InnoDB" => {
                    replay.definition(name, format!("it is of the engine {engine}"));
                    continue;
                }
                There::Table(_) => {}
                _ => {
                    replay.definition(name, "there is no such table");
                    continue;
                }
            }
            if let Some(why) = why_not {
                replay.definition(name, why);
                continue;
            }
            let hold = |side: &str| segment.object(&names, &format!("{}{side}", held.at));
            let (from, to) = match replay.direction {
                Direction::Undo => (hold("a"), hold("b")),
                Direction::Redo => (hold("b"), hold("a")),
            };
            match Rows::new(&held.table, from, to, &now) {
                Ok(rows) => all.push(rows),
                Err(why) => replay.definition(name, why),
            }
        }
        Ok(all)
    }

    /// Compares and changes rows that are locked, and looks at foreign keys but those of `hidden` tables.
    pub(super) fn change_rows(
        &mut self,
        rows: &[Rows<'_>],
        replay: &mut Replay<'_>,
        hidden: &BTreeSet<String>,
    ) -> Result<(), TargetError> {
        let label = self.label.clone();
        let mut links = table::foreign_keys_that_hold(&mut self.b).map_err(|source| self.reading(source))?;
        let across = table::foreign_keys_across(&mut self.b).map_err(|source| self.reading(source))?;
        links.retain(|link| !hidden.contains(&link.child) && !hidden.contains(&link.parent));
        replay.leave_out(&mut links, rows);
        links.extend(across.into_iter().filter(|link| link.elsewhere[0].is_some() || !hidden.contains(&link.child)));
        let a = self.a()?;
        for one in rows {
            if let Err(source) = one.settle(a, replay) {
                guard::taken_or(replay, one.table, source)?;
                return Err(TargetError::Conflicts(std::mem::take(&mut replay.conflicts)));
            }
        }
        if replay.on_conflict == OnConflict::Keep && replay.unkept {
            return Err(TargetError::Conflicts(std::mem::take(&mut replay.conflicts)));
        }
        if replay.is_stopped() {
            return Ok(());
        }
        let before = replay.conflicts.total;
        for one in if replay.unchecked { &[] } else { rows } {
            one.look_at_links(a, replay, &links).map_err(|source| guard::unchanged(&one.table.name, &label, source))?;
        }
        // Nobody can settle these by leaving one of two values.
        if replay.conflicts.total > before {
            return Err(TargetError::Conflicts(std::mem::take(&mut replay.conflicts)));
        }
        Ok(())
    }

    fn undo_by_script(
        &mut self,
        reader: &mut Reader<'_>,
        shown: &str,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        let mut summary = Summary::default();
        reader
            .statements::<Halt>(true, &mut |_| {
                summary.changes += 1;
                Ok(())
            })
            .map_err(|halt| self.halted(halt))?;
        let ticket = gate.announce(&summary)?;
        self.begin()?;
        let mut first = Ok(());
        let read = reader.statements::<Halt>(true, &mut |Kept { line, text }| {
            if first.is_ok() {
                first = self.a().and_then(|a| run_plainly(a, &format!("{shown}:{line}"), &text));
            }
            Ok(())
        });
        read.map_err(|halt| self.halted(halt))?;
        first?;
        let names = self.names.clone();
        for segment in &mut segment::read(&mut self.b, &names, &self.label.clone(), reader.index.step)? {
            segment
                .come(self.a()?, &names, State::Undone)
                .map_err(|source| self.failed("cannot write a segment to", source))?;
        }
        self.stamp(ticket)?;
        self.commit(&|b| Ok(marker::read(b, &names, false)?.is_some_and(|found| found.seq >= ticket.seq)))?;
        Ok(Report { summary, ..Report::default() })
    }
}

/// What a step comes to.
pub fn summary_of(index: &Index, segments: &[Segment]) -> Summary {
    let mut objects: Vec<String> = Vec::new();
    for segment in segments {
        match &segment.detail {
            Detail::Rows { tables, .. } => objects.extend(tables.iter().map(|held| held.table.name.clone())),
            Detail::Ddl { change, .. } => objects.extend(change.names().map(str::to_owned)),
            Detail::Script => {}
        }
    }
    objects.sort_unstable();
    objects.dedup();
    objects.truncate(Summary::OBJECTS_KEPT);
    Summary { changes: index.statements, objects, ..Summary::default() }
}
