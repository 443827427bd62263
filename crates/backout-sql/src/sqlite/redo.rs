//! Does an undone step again, to the same result: its after-images come back, its schema changes run again.
//!
//! The capture is on, so that the undo that may follow has images of its own.

use std::collections::HashSet;

use backout_model::conflict::{Conflict, ConflictKind, Conflicts, OnConflict};
use backout_model::fault::{self, Point};
use backout_model::target::{Gate, Images, Manner, Report, Summary, TargetError};
use backout_model::words;

use super::apply;
use super::by_script::{each_kept, run_kept};
use super::capture::Capture;
use super::carry::ignore_checks;
use super::copying::{self, Copy};
use super::courses::Pair;
use super::ddl_event::DdlEvent;
use super::fallen::{fallen, rows_of_others};
use super::guard::Guard;
use super::lessons::{Lessons, all_of, as_error, heed_indexes, stay_together};
use super::numbering::{Numbered, Numbering};
use super::replay::{Direction, Halt, Replay, Span};
use super::stream::{Event, Index, Reader, Record, Way};
use super::token::each_token;
use super::undo::{begin_step, end_step, quiet};
use super::watch::Watch;
use super::{Sqlite, ailing, counters, ddl, pragma, schema, succession};

impl Sqlite {
    pub(super) fn redo_step(
        &mut self,
        images: &mut dyn Images,
        manner: Manner,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        let mut reader = Reader::open(images).map_err(|source| self.damaged(source))?;
        let capture = Capture::put_on(&mut self.conn, gate.images()).map_err(|source| self.uncaptured(source))?;
        if reader.index.way != Way::Captured {
            capture.only_count();
            let watch = Watch::put_on(&mut self.conn, &self.label)?;
            let done = rerun(self, &mut reader, &capture, &watch, gate);
            let done = self.after_replay(done, true);
            self.reconnect()?;
            return done;
        }
        // Settings of the script rule how its schema changes work (`legacy_alter_table`); those that concern rows are
        // then set as a replay of rows needs them.
        for sql in &reader.index.pragmas {
            apply::execute(&self.conn, sql).map_err(|source| apply::cannot_run(&reader.index.shown, sql, source))?;
        }
        let fresh_needed = !reader.index.pragmas.is_empty();
        quiet(&self.conn, &self.label, true)?;
        let mut lessons = Lessons::default();
        let done = loop {
            match redo_attempt(self, &mut reader, manner, &lessons, &capture, gate) {
                Err(halt) if lessons.learn(&halt) => {
                    super::roll_back(&self.conn, &self.label)?;
                    capture.restart().map_err(|source| self.uncaptured(source))?;
                }
                other => break other.map_err(|halt| as_error(halt, &self.label)),
            }
        };
        let done = self.after_replay(done, true);
        if fresh_needed {
            self.reconnect()?;
        }
        match done {
            Ok(report) => Ok(Report { conflicts: as_told(report.conflicts), ..report }),
            Err(TargetError::Conflicts(conflicts)) => Err(TargetError::Conflicts(as_told(conflicts))),
            Err(error) => Err(error),
        }
    }
}

impl Sqlite {
    /// Has what takes the place of what followed from step to step.
    fn follow(&self, event: &DdlEvent, made: &[String]) -> Result<(), TargetError> {
        let mut succession = self.succession.borrow_mut();
        succession
            .made_again(&self.conn, event)
            .and_then(|()| succession.changed(&self.conn, event, made))
            .map_err(|source| TargetError::failed(format!("cannot read the tables of {}", self.label), source))
            .map(drop)
    }
}

/// A conflict says what was before the deployment, and what that left; for a redo it is found the other way round.
fn as_told(mut conflicts: Conflicts) -> Conflicts {
    for one in conflicts.listed.iter_mut().filter(|one| one.key.is_some()) {
        if !one.before.is_empty() && !one.left.is_empty() {
            std::mem::swap(&mut one.before, &mut one.left);
        }
    }
    conflicts
}

fn index_like(index: &Index) -> Index {
    Index {
        shown: index.shown.clone(),
        way: index.way.clone(),
        foreign_keys: index.foreign_keys,
        pragmas: index.pragmas.clone(),
        ..Index::default()
    }
}

/// What was not captured runs again, triggers and all.
fn rerun(
    database: &Sqlite,
    reader: &mut Reader<'_>,
    capture: &Capture,
    watch: &Watch,
    gate: &mut dyn Gate,
) -> Result<Report, TargetError> {
    let (conn, label) = (&database.conn, database.label.as_str());
    let mut index = index_like(&reader.index);
    for pragma in &index.pragmas {
        apply::execute(conn, pragma).map_err(|source| apply::cannot_run(&index.shown, pragma, source))?;
    }
    super::begin(conn, label)?;
    index.before = counters::read(conn, label)?;
    let mut numbering = Numbering::read(conn, &database.marker, label)?;
    let shown = index.shown.clone();
    for undo in [false, true] {
        each_kept(label, reader, undo, &mut |line, sql| {
            if !undo {
                run_kept(conn, watch, &format!("{shown}:{line}"), sql)?;
            }
            capture.settle(conn).map_err(|source| database.uncaptured(source))?;
            capture.statement(line, sql, undo).map_err(|source| database.uncaptured(source)).map(drop)
        })?;
    }
    let summary = apply::finish(conn, &database.options.path, label, capture, &mut index)?;
    let numbering = numbering.text(conn, label, false)?;
    super::seal(conn, &database.marker, label, &numbering, &summary, gate)?;
    Ok(Report { summary, ..Report::default() })
}

fn redo_attempt(
    database: &Sqlite,
    reader: &mut Reader<'_>,
    manner: Manner,
    lessons: &Lessons,
    capture: &Capture,
    gate: &mut dyn Gate,
) -> Result<Report, Halt> {
    let (conn, label) = (&database.conn, database.label.as_str());
    let uncaptured = |source| Halt::from(database.uncaptured(source));
    super::begin(conn, label)?;
    let mut index = index_like(&reader.index);
    index.before = counters::read(conn, label)?;
    let found = Numbering::read(conn, &database.marker, label)?;
    let guard = Guard::new(conn, label, manner.on_conflict);
    let mut replay = Replay::new(conn, label, Direction::Redo, guard, Some(capture), found.clone());
    let tables = reader.index.tables.clone();
    let changes_schema = reader.index.events.iter().any(|event| matches!(event, Event::Ddl { .. }));
    // Without enforcement the step did not ask whether its rows point at anything; nor does doing it again.
    let watched = reader.index.foreign_keys.then_some(changes_schema);
    begin_step(conn, label, &mut replay, &reader.index, watched, lessons)?;
    if changes_schema {
        let will_come = ailing::brought(&reader.index.events, Direction::Undo, |_| false);
        index.sick_before = ailing::sick(conn, will_come.iter().map(|one| one.row))
            .map_err(|source| TargetError::failed(format!("cannot read the schema of {label}"), source))?;
    }
    let of = Some(reader.index.rows);
    let mut next_hold = None;
    let pairs = replay.track.pairs.clone();
    // The tables, by the event that makes them, into which rows come as they were the first time.
    let mut by_images: HashSet<usize> = HashSet::new();
    let mut copied = false;
    // The tables that the step made so far, and those that it gave another name.
    let mut made: Vec<String> = Vec::new();
    // The words of the statements that copied the rows of now.
    let mut carried: HashSet<String> = HashSet::new();
    for number in 0..reader.index.events.len() {
        heed_indexes(conn, label, &mut replay)?;
        let event = reader.index.events[number].clone();
        let note = &mut |record: &Record<'_>| {
            if let Record::Statement { line, sql, undo, .. } = record {
                capture.settle(conn).map_err(|source| database.uncaptured(source))?;
                if sql.is_empty() {
                    capture.end_of_fill(*line).map_err(|source| database.uncaptured(source))?;
                    return Ok(());
                }
                rule(database, sql)?;
                capture.statement(*line, sql, *undo).map_err(|source| database.uncaptured(source))?;
            }
            Ok(())
        };
        if let (Event::Rows { .. }, Some(Event::Ddl { event: next, .. })) =
            (&event, reader.index.events.get(number + 1))
            && next.emptied().is_some()
        {
            // The rows of now go right before their table does.
            continue;
        }
        let pair = pairs.iter().find(|pair| pair.spans(number));
        if let (Some(pair), Event::Rows { start, end, .. }) = (pair, &event) {
            let again = copying::copies(conn, reader, (*start, *end), &tables, &pair.new)
                .map_err(|source| database.damaged(source))?;
            if let Some(copies) = again.filter(|_| replay.track.has_both(pair)) {
                copied = true;
                let words = copies.iter().flat_map(|copy| each_token(&copy.sql));
                carried.extend(words.filter_map(|word| word.name()).map(|name| name.to_ascii_lowercase()));
                copy_again(database, capture, &replay, manner, pair, &copies, note)?;
                replay.track.carried(pair);
                continue;
            }
            by_images.insert(pair.create);
        }
        match (&event, Span::of(number, &event)) {
            (Event::Rows { .. }, Some(span)) if lessons.by_net.contains(&number) => {
                // The statements come first then; which rows are whose is no longer known.
                replay.span_by_net(reader, span, note)?;
            }
            (Event::Rows { .. }, Some(span)) => {
                replay.span(reader, span, &mut |rows| gate.progress(rows, of), note)?;
            }
            (Event::Ddl { line, sql, event }, _) => {
                capture.settle(conn).map_err(uncaptured)?;
                replay.look_afresh();
                let listed = replay.guard.conflicts.listed.len();
                let again = if lessons.leaves(number) || !replay.track.is_ready(number) {
                    ddl::left(event)
                } else {
                    let pair = pairs.iter().find(|pair| pair.drop == number);
                    let came_again = pair.filter(|pair| by_images.contains(&pair.create));
                    if let Some(pair) = came_again {
                        // A digest tells more, and more cheaply.
                        let others = match event.digest() {
                            Some(_) => false,
                            None => rows_of_others(conn, label, reader, number, event)?.any(),
                        };
                        nothing_is_lost(database, event, &mut replay, manner, pair, others)?;
                    }
                    nothing_goes_along(database, event, &mut replay, number, &carried)?;
                    let is_copied = pair.is_some_and(|pair| carried.contains(&pair.old.to_ascii_lowercase()));
                    if came_again.is_none() && !is_copied && !replay.track.is_made(number) {
                        let rows = rows_of_others(conn, label, reader, number, event)?;
                        nothing_falls(database, event, &mut replay, number, rows.wrote)?;
                        if let Some(table) = event.dropped() {
                            database.succession.borrow_mut().dropped(table, rows.took);
                        }
                    }
                    redo_ddl(database, event, manner, index.foreign_keys, &mut replay, &mut next_hold)?
                };
                database.follow(&again, &made)?;
                made.extend(event.change().and_then(|change| change.gives()).map(str::to_owned));
                let done = again.lasts() || !event.lasts();
                replay.note_outcome(number, event, done)?;
                if !done {
                    stay_together(&reader.index.events, number, lessons, &replay, listed)?;
                }
                replay.numbering.renew(&again.renumbers());
                replay.guard.known.redone(&again.renumbers());
                let event = Event::Ddl { line: *line, sql: sql.clone(), event: Box::new(again) };
                capture.ddl(event).map_err(uncaptured)?;
            }
            (Event::Rows { .. }, None) => {}
        }
        capture.settle(conn).map_err(uncaptured)?;
    }
    replay.guard.forget_statements();
    let span = counters::Span { left: &reader.index.before, wanted: &reader.index.after, now: &index.before };
    counters::put_back(conn, label, &span, &replay.track.passages(), &mut replay.guard)?;
    let stale = database
        .succession
        .borrow()
        .stale(conn)
        .map_err(|source| TargetError::failed(format!("cannot read {label}"), source))?;
    replay.guard.conflicts.extend(all_of(stale.iter().map(|table| succession::conflict(label, table))));
    end_step(conn, label, &mut replay, &reader.index, lessons)?;
    let (conflicts, notes) = (replay.guard.conflicts.clone(), replay.guard.notes.clone());
    let already = replay.guard.already.clone();
    let mut numbering = replay.numbering.clone();
    if !copied && conflicts.is_empty() {
        numbering.bring_again(&reader.index.numbered);
    }
    drop(replay);
    if manner.on_conflict == OnConflict::Stop && !conflicts.is_empty() {
        return Err(TargetError::Conflicts(conflicts).into());
    }
    index.numbered = Numbered::between(&found, &numbering);
    let summary: Summary = apply::finish(conn, &database.options.path, label, capture, &mut index)?;
    let numbering = numbering.text(conn, label, true)?;
    super::seal(conn, &database.marker, label, &numbering, &summary, gate)?;
    Ok(Report { summary, conflicts, notes, already, knows_already: true })
}

/// Fills the new table of a pair once more: the rows of now are to be copied, not those of the first time.
fn copy_again(
    database: &Sqlite,
    capture: &Capture,
    replay: &Replay<'_>,
    manner: Manner,
    pair: &Pair,
    copies: &[Copy],
    note: &mut dyn FnMut(&Record<'_>) -> Result<(), TargetError>,
) -> Result<(), Halt> {
    let conn = &database.conn;
    let heed_checks = |heed: bool| {
        ignore_checks(conn, !heed)
            .map_err(|source| TargetError::failed(format!("cannot set up {}", database.label), source))
    };
    for Copy { line, sql, runs } in copies {
        let cannot = |source: rusqlite::Error| apply::cannot_run(&database.label, sql, source);
        fault::point(Point::Statement).map_err(|source| apply::cannot_run(&database.label, sql, source))?;
        if *runs {
            heed_checks(true)?;
            let ran = apply::execute(conn, sql);
            heed_checks(false)?;
            capture.settle(conn).map_err(|source| database.uncaptured(source))?;
            if let Err(error) = ran {
                // The new table does not admit the rows of others, or the old one is none that it can be filled from.
                let Some(kind) = ddl::objects(&error) else { return Err(cannot(error).into()) };
                let conflict = conflict(database, replay.track.known_as(pair), kind, error.to_string());
                return Err(give_way(replay, manner, pair, conflict));
            }
        }
        note(&Record::Statement { line: *line, rows: 0, sql, undo: false })?;
    }
    Ok(())
}

/// Before a table goes whose rows were copied in a way that can't be repeated: others must not have changed them. `others`:
/// whether they did, where the event has no digest of all.
fn nothing_is_lost(
    database: &Sqlite,
    event: &DdlEvent,
    replay: &mut Replay<'_>,
    manner: Manner,
    pair: &Pair,
    others: bool,
) -> Result<(), Halt> {
    // Where the rows themselves are in the images, those that others deleted were found to be gone already.
    let is_gone = |replay: &Replay<'_>| {
        replay.guard.already.listed.iter().any(|one| one.key.is_some() && one.object.eq_ignore_ascii_case(&pair.old))
    };
    let is_same = || -> rusqlite::Result<bool> {
        if is_gone(replay) {
            return Ok(false);
        }
        let Some(digest) = event.digest() else { return Ok(!others) };
        // One that is not there is the conflict of its DROP TABLE.
        let there = schema::object(&database.conn, "table", &pair.old)?.is_some();
        Ok(!there || copying::digest(&database.conn, &pair.old)? == digest)
    };
    if is_same()
        .map_err(|source| TargetError::failed(format!("cannot read {} of {}", pair.old, database.label), source))?
    {
        return Ok(());
    }
    let why = "rows that others wrote since, and a copy into its successor that cannot run again to the same result";
    let conflict = conflict(database, replay.track.known_as(pair), ConflictKind::Changed, why.to_owned());
    if manner.on_conflict == OnConflict::Overwrite {
        replay.guard.conflicts.push(conflict);
        return Ok(());
    }
    Err(give_way(replay, manner, pair, conflict))
}

/// Before a table goes: rows that others wrote since would go with it.
fn nothing_falls(
    database: &Sqlite,
    event: &DdlEvent,
    replay: &mut Replay<'_>,
    number: usize,
    rows: u64,
) -> Result<(), Halt> {
    let (Some(table), true) = (event.dropped(), rows > 0) else { return Ok(()) };
    let rows = words::count(rows, "row");
    let now = format!("{rows} that others wrote since, which would go with it");
    let conflict = Conflict {
        before: String::new(),
        left: String::new(),
        ..conflict(database, table, ConflictKind::Constraint, now)
    };
    if replay.guard.on_conflict == OnConflict::Keep {
        return Err(Halt::Leave { events: vec![number], conflicts: all_of(std::iter::once(conflict)) });
    }
    replay.guard.conflicts.push(conflict);
    Ok(())
}

/// Before a column goes, or a table without it: values that others wrote to it since would go along.
fn nothing_goes_along(
    database: &Sqlite,
    event: &DdlEvent,
    replay: &mut Replay<'_>,
    number: usize,
    carried: &HashSet<String>,
) -> Result<(), Halt> {
    let reading = |source| TargetError::failed(format!("cannot read {} of {}", event.object, database.label), source);
    let fallen = fallen(&database.conn, event, carried).map_err(reading)?;
    if fallen.is_empty() {
        return Ok(());
    }
    let now = "values that others wrote since, which would go with it";
    let of = |column| Conflict {
        column,
        before: "its values of before".to_owned(),
        ..conflict(database, "", ConflictKind::Constraint, now.to_owned())
    };
    let conflicts = all_of(fallen.into_iter().map(|column| Conflict { object: event.object.clone(), ..of(column) }));
    if replay.guard.on_conflict == OnConflict::Keep {
        return Err(Halt::Leave { events: vec![number], conflicts });
    }
    replay.guard.conflicts.extend(conflicts);
    Ok(())
}

fn conflict(database: &Sqlite, table: &str, kind: ConflictKind, now: String) -> Conflict {
    Conflict {
        target: database.label.clone(),
        object: format!("table {table}"),
        key: None,
        column: None,
        kind,
        before: "its rows of before".to_owned(),
        left: "these, after the undo".to_owned(),
        now,
    }
}

/// What others wrote can neither be copied nor thrown away: then the old table stays, where not everything does.
fn give_way(replay: &Replay<'_>, manner: Manner, pair: &Pair, conflict: Conflict) -> Halt {
    if manner.on_conflict == OnConflict::Stop {
        let mut conflicts = replay.guard.conflicts.clone();
        conflicts.push(conflict);
        return TargetError::Conflicts(conflicts).into();
    }
    Halt::Leave { events: vec![pair.create], conflicts: all_of(std::iter::once(conflict)) }
}

/// Runs a statement again that does nothing but rule how later changes of the schema work.
fn rule(database: &Sqlite, sql: &str) -> Result<(), TargetError> {
    let pragma = sql.get(..6).filter(|word| word.eq_ignore_ascii_case("pragma")).and_then(|_| pragma::parse(sql));
    if pragma.is_some_and(|pragma| pragma.name == "legacy_alter_table" && pragma.value.is_some()) {
        apply::execute(&database.conn, sql)
            .map_err(|source| TargetError::failed(format!("cannot run {sql} in {}", database.label), source))?;
    }
    Ok(())
}

fn redo_ddl(
    database: &Sqlite,
    event: &DdlEvent,
    manner: Manner,
    foreign_keys: bool,
    replay: &mut Replay<'_>,
    next_hold: &mut Option<u64>,
) -> Result<DdlEvent, TargetError> {
    let label = database.label.as_str();
    fault::point(Point::Statement)
        .map_err(|source| TargetError::failed(format!("cannot change the schema of {label}"), source))?;
    let mut next = match *next_hold {
        Some(next) => next,
        None => database.next_hold()?,
    };
    // The rows that foreign keys would have deleted with a table are in the images; those of others are to be held.
    let foreign_keys = foreign_keys && !event.drops();
    let mut context = ddl::Context {
        conn: &database.conn,
        prefix: &database.prefix,
        target: label,
        foreign_keys,
        next_hold: &mut next,
        already: Conflicts::default(),
        needed: Conflicts::default(),
        stays: false,
    };
    if !ddl::is_clear(&context, event, manner, &mut replay.guard.conflicts)? {
        return Ok(ddl::left(event));
    }
    let uncaptured = |source| database.uncaptured(source);
    let mut emptied = false;
    let reading = |source| TargetError::failed(format!("cannot read the schema of {label}"), source);
    if let (Some(table), Some(capture)) = (event.emptied(), replay.capture)
        && schema::object(&database.conn, "table", table).map_err(reading)?.is_some()
    {
        capture.forget_tables().map_err(uncaptured)?;
        emptied = ddl::empty(&database.conn, label, table)? > 0;
        capture.settle(&database.conn).map_err(uncaptured)?;
    }
    if let Some(capture) = replay.capture {
        capture.pause(true);
    }
    let done = ddl::redo(&mut context, event, manner, &mut replay.guard.conflicts);
    if let Some(capture) = replay.capture {
        capture.pause(false);
    }
    *next_hold = Some(next);
    let again =
        done?.of_rows(event.digest()).with_falls(event.falls().to_vec()).copied_into(&event.into().collect::<Vec<_>>());
    Ok(if emptied { again.after_emptying() } else { again })
}
