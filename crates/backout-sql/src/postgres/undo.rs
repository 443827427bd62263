//! Takes a step back: its rows and its schema changes in reverse, then its sequences, in one transaction.
//!
//! Nothing is undone in part: a conflict under `stop`, or any error, rolls the transaction back.

use backout_model::conflict::OnConflict;
use backout_model::fault::{self, Point};
use backout_model::target::{Gate, Images, Manner, Report, Summary, TargetError};

use super::apply::{self, cannot_run, uncaptured};
use super::capture::{Capture, Sessions};
use super::ddl::DdlEvent;
use super::load::{self, Loaded, Replay, Went, made_and_dropped};
use super::quiet::Quiet;
use super::refreshed::{self, View};
use super::schema::{self, Tools};
use super::session::Session;
use super::stream::{Column, Event, Index, Kept, Reader, StreamError, Table, Way};
use super::{Postgres, check, counters, ddl_attach, foreign, guard, hung, loose, namesakes, rebuild, redo, table};
use crate::shown;

/// Which way a step is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Undo,
    Redo,
}

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

impl Postgres {
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
        self.ready()?;
        let done = match reader.index.way.clone() {
            Way::Captured => self.undo_captured(&mut reader, manner, gate),
            Way::ByScript { shown } => self.undo_by_script(&mut reader, &shown, gate),
            Way::Never { because } => return Err(shown::never(&reader.index.shown, &because)),
        };
        self.after_step();
        done
    }

    fn undo_captured(
        &mut self,
        reader: &mut Reader<'_>,
        manner: Manner,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        let label = self.label.clone();
        let before = counters::read(&mut self.a, &label)?;
        self.begin()?;
        // Others' values go only under `overwrite`: then they are kept.
        let mut capture = match manner.on_conflict {
            OnConflict::Overwrite => Some(self.capture(gate)?),
            OnConflict::Stop | OnConflict::Keep => None,
        };
        let mut replay = Replay::new(&label, Direction::Undo, manner.on_conflict, before.clone());
        replay.gone = self.gone.clone();
        let of = reader.index.rows;
        let progress = &mut |rows| gate.progress(rows, Some(of));
        match capture.as_mut() {
            None => self.replay_in_turns(reader, manner, check::UNDO_TURNS, &mut replay, progress),
            capture => self.replay(reader, manner, &mut replay, capture, progress),
        }
        .map_err(|halt| self.halted(halt))?;
        let Replay { conflicts, notes, rows, gone, unkept, .. } = replay;
        let is_stopped = manner.on_conflict == OnConflict::Stop && !conflicts.is_empty();
        if is_stopped || manner.on_conflict == OnConflict::Keep && unkept {
            return Err(TargetError::Conflicts(conflicts));
        }
        let mut summary = Summary { rows, ..summary_of(&reader.index) };
        if !conflicts.is_empty() {
            // Announced with the undo: after a crash nobody else could say what it left as others made it.
            summary.note = serde_json::json!({ "settled": conflicts });
        }
        if let Some(mut capture) = capture {
            capture.index().shown = reader.index.shown.clone();
            self.flush(&mut capture)?;
            summary.bytes = self.sealed(capture, &before)?.bytes;
        }
        self.seal(&summary, gate)?;
        self.gone = gone;
        Ok(Report { summary, conflicts, notes, ..Report::default() })
    }

    /// A capture of what the tool itself does.
    pub(super) fn capture(&mut self, gate: &mut dyn Gate) -> Result<Capture, TargetError> {
        let begun = Capture::new(gate.images(), self.place.clone())
            .and_then(|mut capture| capture.begin(&mut self.a).map(|()| capture));
        Ok(begun.map_err(|source| uncaptured(&self.label, source))?.trust_schema_changes())
    }

    pub(super) fn flush(&mut self, capture: &mut Capture) -> Result<(), TargetError> {
        let mut sessions = Sessions { a: &mut self.a, b: &mut self.b };
        capture.flush(&mut sessions, None).map_err(|source| uncaptured(&self.label, source))
    }

    /// Begins a transaction in which the tool itself changes something. It joins whole images of tables: the memory for
    /// that is what the server grants to maintenance.
    pub(super) fn begin(&mut self) -> Result<(), TargetError> {
        const BEGIN: &str =
            "BEGIN; SET LOCAL backout.own = 'on'; SELECT pg_catalog.set_config('work_mem', pg_catalog.current_setting(
            CASE WHEN pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem'))
                > pg_catalog.pg_size_bytes(pg_catalog.current_setting('work_mem'))
            THEN 'maintenance_work_mem' ELSE 'work_mem' END), true)";
        self.a.run(BEGIN).map_err(|source| self.failed("cannot begin a transaction in", source))
    }

    /// Replays the events of one step within the open transaction: rows, schema, sequences; then looks at foreign keys.
    pub(super) fn replay(
        &mut self,
        reader: &mut Reader<'_>,
        manner: Manner,
        replay: &mut Replay<'_>,
        mut capture: Option<&mut Capture>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Halt> {
        let mut events = reader.index.events.clone();
        let tables = reader.index.tables.clone();
        match replay.direction {
            Direction::Undo => ddl_attach::reverse(&mut events),
            Direction::Redo => redo::made_rows_first(&mut events, &tables),
        }
        replay.knows_numbers = self.knows_numbers(&reader.index)?;
        let views = refreshed::all(&mut self.a.client, &reader.index.events);
        let views = views.map_err(|source| self.failed("cannot read the materialized views of", source))?;
        let mut quiet = Quiet::begin(&mut self.a, &self.label)?;
        replay.cascades = !quiet.replica;
        replay.replaces = rebuild::may_replace(&reader.index);
        if replay.cascades {
            self.order(&mut events, &tables)?;
        }
        let mut loaded: Vec<Loaded> = Vec::new();
        let mut next_hold = self.next_hold()?;
        let mut in_run = false;
        for (at, event) in events.iter().enumerate() {
            if !std::mem::replace(&mut in_run, matches!(event, Event::Rows { .. })) && in_run {
                self.silence(&mut quiet, &events[at..], &tables, capture.as_deref_mut())?;
            }
            fault::point(Point::Statement)
                .map_err(|source| TargetError::failed(format!("cannot change rows of {}", self.label), source))?;
            match event {
                Event::Statements { span } => {
                    if let Some(capture) = capture.as_deref_mut()
                        && replay.direction == Direction::Redo
                    {
                        reader.statements_of(*span, false, &mut |Kept { line, rows, text }| -> Result<(), Halt> {
                            Ok(capture
                                .statement(line, rows, &text)
                                .map_err(|source| uncaptured(&self.label, source))?)
                        })?;
                    }
                }
                Event::Rows { table, before, after } => {
                    let (from, to) = match replay.direction {
                        Direction::Undo => (*after, *before),
                        Direction::Redo => (*before, *after),
                    };
                    let table = &tables[*table as usize];
                    if let Some(why) = self.namesake(reader, replay, table, [from, to])? {
                        replay.definition(table, why);
                        if replay.overwrites() {
                            // What has the name now is nobody's to overwrite.
                            return Err(TargetError::Conflicts(std::mem::take(&mut replay.conflicts)).into());
                        }
                        continue;
                    }
                    let Some(strangers) = self.strangers(table, replay)? else { continue };
                    if let Some(capture) = capture.as_deref_mut() {
                        let mut sessions = Sessions { a: &mut self.a, b: &mut self.b };
                        capture.before_rows(&mut sessions).map_err(|source| uncaptured(&self.label, source))?;
                    }
                    let one = match load::load(&mut self.a, reader, replay, table, from, to)? {
                        Ok(one) => Loaded { strangers, ..one },
                        Err(why) => {
                            self.unfit(table, why, replay)?;
                            continue;
                        }
                    };
                    let done = if table.key.is_empty() {
                        loose::rows(&mut self.a, replay, table, &one)
                    } else {
                        guard::rows(&mut self.a, replay, table, &one)
                    };
                    done?;
                    loaded.push(one);
                    progress(replay.rows);
                }
                Event::Ddl { line, sql, event } => {
                    let domains: Vec<&str> = event.domains().collect();
                    if replay.direction == Direction::Undo && event.makes_types() || !domains.is_empty() {
                        self.let_go(&mut loaded, &domains)?;
                    }
                    self.unsilence(&mut quiet, capture.as_deref_mut())?;
                    replay.passing = match replay.direction {
                        Direction::Undo => made_and_dropped(event, &events[..at]),
                        Direction::Redo => Vec::new(),
                    };
                    let hung = self.hanging_on(event, replay)?;
                    self.a.client.take_down();
                    let again =
                        self.replay_ddl(reader, event, manner, replay, capture.as_deref_mut(), &mut next_hold)?;
                    let acts = self.a.client.taken_down(!hung.is_empty());
                    let redo = replay.direction == Direction::Redo;
                    if !redo {
                        replay.acts.push(Went { at: events.len() - 1 - at, acts, hung });
                        replay.lack_rows(event);
                    }
                    if redo && replay.on_conflict == OnConflict::Stop && !replay.conflicts.is_empty() {
                        // What comes next builds on what was left undone.
                        return Err(TargetError::Conflicts(std::mem::take(&mut replay.conflicts)).into());
                    }
                    for column in again.iter().flat_map(DdlEvent::varying) {
                        let what = "has values that were computed anew: they may be others than the first time";
                        replay.notes.push(format!("{}: {column} {what}", self.label));
                    }
                    if let (Some(capture), Some(event)) = (capture.as_deref_mut(), again) {
                        let event = Event::Ddl { line: *line, sql: sql.clone(), event: Box::new(event) };
                        capture.ddl(event).map_err(|source| uncaptured(&self.label, source))?;
                    }
                }
            }
        }
        let redo = replay.direction == Direction::Redo;
        if !(redo && reader.index.unenforced) {
            foreign::check(&mut self.a, replay, &tables, &loaded)?;
        }
        // Where steps are tried one after the other, a type that the next one drops must not be in use.
        let images: Vec<String> = loaded.drain(..).flat_map(|one| [one.from, one.to]).collect();
        if !images.is_empty() {
            let drop = format!("DROP TABLE {}", images.join(", "));
            self.a.run(&drop).map_err(|source| self.failed("cannot drop images in", source))?;
        }
        if let Err(error) = self.unsilence(&mut quiet, capture.as_deref_mut()) {
            if replay.on_conflict == OnConflict::Stop && !replay.conflicts.is_empty() && !self.a.client.is_closed() {
                // Foreign keys that are enforced at the end say once more what is a conflict.
                return Err(TargetError::Conflicts(std::mem::take(&mut replay.conflicts)).into());
            }
            return Err(error.into());
        }
        self.refill(&reader.index.events, &views, replay, capture)?;
        let Replay { began, notes, direction, knows_numbers, .. } = replay;
        let sequences = match direction {
            Direction::Undo => self.failed_draws.beyond(began, &reader.index.sequences),
            Direction::Redo => reader.index.sequences.clone(),
        };
        let sequences =
            if *knows_numbers { namesakes::left_out(began, sequences, redo, &self.label, notes) } else { sequences };
        counters::put_back(&mut self.a, &self.label, began, &sequences, redo, notes)?;
        Ok(())
    }

    /// Fills materialized views anew: what they read is there.
    fn refill(
        &mut self,
        events: &[Event],
        views: &[View],
        replay: &mut Replay<'_>,
        capture: Option<&mut Capture>,
    ) -> Result<(), TargetError> {
        let undo = replay.direction == Direction::Undo;
        let filled = refreshed::fill(&mut self.a.client, events, undo.then_some(views));
        let filled = filled.map_err(|source| self.failed("cannot fill materialized views of", source))?;
        replay.notes.extend(filled.notes.into_iter().map(|note| format!("{}: {note}", self.label)));
        for (view, why) in filled.failed {
            replay.unfilled(view, why)?;
        }
        let accounted = capture.map_or(Ok(()), |capture| capture.account_rows(&mut self.a, &filled.views));
        accounted.map_err(|source| uncaptured(&self.label, source))
    }

    /// Silences the tables of the rows that come next, up to a change of the schema. Their marks are set after that.
    fn silence(
        &mut self,
        quiet: &mut Quiet,
        events: &[Event],
        tables: &[Table],
        capture: Option<&mut Capture>,
    ) -> Result<(), TargetError> {
        for event in events.iter().take_while(|event| !matches!(event, Event::Ddl { .. })) {
            let Event::Rows { table, .. } = event else { continue };
            let table = &tables[*table as usize];
            let there = table::find(&mut self.a, &table.schema, &table.name)
                .map_err(|source| self.failed("cannot read the schema of", source))?;
            if there.is_some() {
                quiet.table(&mut self.a, &self.label, table)?;
            }
        }
        match capture {
            Some(capture) => capture.after_schema(&mut self.a).map_err(|source| uncaptured(&self.label, source)),
            None => Ok(()),
        }
    }

    /// Takes out of the images in temporary tables what their tables have no more, and values of `domains`: a type that
    /// goes must not be in use, and what a domain demands its old values need not fulfil.
    fn let_go(&mut self, loaded: &mut Vec<Loaded>, domains: &[&str]) -> Result<(), TargetError> {
        let mut left = Vec::new();
        for mut one in std::mem::take(loaded) {
            let failed = |source| TargetError::failed(format!("cannot read {}", table::shown(&one.table)), source);
            let found = table::find(&mut self.a, &one.table.schema, &one.table.name).map_err(failed)?;
            let there = |column: &Column| {
                let same = |other: &Column| other.name == column.name && other.kind == column.kind;
                !domains.contains(&column.kind.trim_end_matches("[]"))
                    && found.as_ref().is_some_and(|(_, now)| now.columns.iter().any(same))
            };
            let key_stays = one.table.key.iter().all(|key| there(&one.table.columns[key.column]));
            if found.is_none() || !key_stays {
                let sql = format!("DROP TABLE {}, {}", one.from, one.to);
                self.a.run(&sql).map_err(|source| self.failed("cannot drop images in", source))?;
                continue;
            }
            if let Some(sql) = one.without(&there) {
                self.a.run(&sql).map_err(|source| self.failed("cannot drop images in", source))?;
            }
            left.push(one);
        }
        *loaded = left;
        Ok(())
    }

    /// Ends the silence. What was marked is captured first: it is in the way of any change of a table.
    fn unsilence(&mut self, quiet: &mut Quiet, capture: Option<&mut Capture>) -> Result<(), TargetError> {
        if let Some(capture) = capture {
            let mut sessions = Sessions { a: &mut self.a, b: &mut self.b };
            capture.before_schema(&mut sessions).map_err(|source| uncaptured(&self.label, source))?;
        }
        quiet.end(&mut self.a, &self.label)
    }

    /// What hangs on the tables that the undo of a change builds anew, where that is tried.
    fn hanging_on(&mut self, event: &DdlEvent, replay: &Replay<'_>) -> Result<Vec<(String, String)>, TargetError> {
        if !replay.proof {
            return Ok(Vec::new());
        }
        let mut digest = |table: &str| {
            let found = self.a.value(&hung::question(table));
            let found = found.map_err(|source| self.failed("cannot read the schema of", source))?;
            Ok((table.to_owned(), found.unwrap_or_default()))
        };
        event.rebuilds().map(&mut digest).collect()
    }

    /// Orders rows between two changes of the schema so that tables come before those that they point at.
    fn order(&mut self, events: &mut [Event], tables: &[Table]) -> Result<(), TargetError> {
        let is_rows = |event: &Event| matches!(event, Event::Rows { .. });
        for run in events.chunk_by_mut(|one, other| is_rows(one) && is_rows(other)) {
            let of: Vec<&Table> = run
                .iter()
                .filter_map(
                    |event| if let Event::Rows { table, .. } = event { tables.get(*table as usize) } else { None },
                )
                .collect();
            if of.len() < 2 {
                continue;
            }
            let order = foreign::children_first(&mut self.a, &of)
                .map_err(|source| self.failed("cannot read the foreign keys of", source))?;
            let sorted: Vec<Event> = order.into_iter().map(|at| run[at].clone()).collect();
            run.clone_from_slice(&sorted);
        }
        Ok(())
    }

    fn replay_ddl(
        &mut self,
        reader: &mut Reader<'_>,
        event: &DdlEvent,
        manner: Manner,
        replay: &mut Replay<'_>,
        capture: Option<&mut Capture>,
        next_hold: &mut u64,
    ) -> Result<Option<DdlEvent>, TargetError> {
        let label = self.label.clone();
        let Replay { direction, conflicts, notes, already, passing, gone, proof, knows_numbers, .. } = replay;
        let mut tools = Tools {
            own: &self.own,
            label: &label,
            version: self.a.version,
            event_triggers: &self.event_triggers,
            next_hold,
            passing: passing.as_slice(),
            drawn: &[],
            already: already.as_mut(),
            gone,
            proof: *proof,
            knows_numbers: *knows_numbers,
        };
        let shown = reader.index.shown.clone();
        let mut work = |a: &mut Session, capture: Option<&mut Capture>| {
            let mut images = schema::Images { capture, reader: Some(reader), label: &label };
            match direction {
                Direction::Undo => {
                    schema::undo(a, &mut tools, &mut images, event, manner, conflicts, notes).map(|()| None)
                }
                Direction::Redo => schema::redo(a, &mut tools, &mut images, event, manner, conflicts).map(Some),
            }
        };
        match capture {
            None => work(&mut self.a, None),
            Some(capture) => {
                let mut sessions = Sessions { a: &mut self.a, b: &mut self.b };
                let again =
                    schema::around(&mut sessions, capture, &label, &shown, &mut |a, capture| work(a, Some(capture)))?;
                if let Some(event) = &again {
                    let accounted = capture.account_rows(&mut self.a, &event.filled());
                    accounted.map_err(|source| uncaptured(&label, source))?;
                }
                Ok(again)
            }
        }
    }

    fn undo_by_script(
        &mut self,
        reader: &mut Reader<'_>,
        shown: &str,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        self.a.plain().map_err(|source| self.failed("cannot set up", source))?;
        self.begin()?;
        let changes = self.run_script(reader, shown, true).map_err(|halt| self.halted(halt))?;
        self.a.neutral().map(drop).map_err(|source| self.failed("cannot set up", source))?;
        let summary = Summary { changes, ..Summary::default() };
        self.seal(&summary, gate)?;
        Ok(Report { summary, ..Report::default() })
    }

    /// Runs the statements that the images hold of a script that was not captured: its own, or those of its undo script.
    pub(super) fn run_script(&mut self, reader: &mut Reader<'_>, shown: &str, undo: bool) -> Result<u64, Halt> {
        let mut changes = 0;
        let a = &mut self.a;
        reader.statements(undo, &mut |Kept { line, text, .. }| -> Result<(), Halt> {
            let place = format!("{shown}:{line}");
            fault::point(Point::Statement).map_err(|source| cannot_run(&place, &text, source))?;
            apply::execute(a, &text).map_err(|source| cannot_run(&place, &text, source))?;
            changes += 1;
            Ok(())
        })?;
        Ok(changes)
    }
}

/// What a step comes to.
pub fn summary_of(index: &Index) -> Summary {
    let mut objects: Vec<String> = index.tables.iter().map(table::shown).collect();
    let altered = || {
        index.events.iter().filter_map(|event| match event {
            Event::Ddl { event, .. } => Some(event),
            Event::Rows { .. } | Event::Statements { .. } => None,
        })
    };
    objects.extend(altered().flat_map(|event| event.about()));
    objects.extend(index.sequences.iter().map(|one| format!("sequence {}.{}", one.schema, one.name)));
    objects.sort_unstable();
    objects.dedup();
    objects.truncate(Summary::OBJECTS_KEPT);
    let mut needs: Vec<String> = altered().flat_map(|event| event.needed()).collect();
    needs.sort_unstable();
    needs.dedup();
    needs.truncate(Summary::OBJECTS_KEPT);
    Summary { changes: index.statements, objects, needs, ..Summary::default() }
}
