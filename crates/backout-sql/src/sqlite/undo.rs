//! Takes a step back: its rows and its schema changes in exact reverse, then its counters, in one transaction.
//!
//! Nothing is undone in part: a conflict under `stop`, or any error, rolls the transaction back.

use backout_model::conflict::{Conflict, ConflictKind, Conflicts, OnConflict};
use backout_model::fault::{self, Point};
use backout_model::target::{Gate, Images, Manner, Report, Summary, TargetError};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::apply;
use super::by_script::{each_kept, run_kept};
use super::capture::Capture;
use super::carry::Carry;
use super::classify::Rules;
use super::ddl_event::DdlEvent;
use super::ddl_undo::{conflict, needed};
use super::dependents::Dependents;
use super::foreign::Tally;
use super::guard::{Guard, of_object};
use super::hangers::Hangers;
use super::lessons::{Lessons, as_error, heed_indexes, leave_nothing_broken, stay_together};
use super::needed::Stands;
use super::numbering::{Numbered, Numbering};
use super::replay::{Direction, Halt, Replay, Span};
use super::same_key::{Constants, Tables};
use super::split::Statement;
use super::stream::{Event, Index, Reader, Way};
use super::watch::Watch;
use super::wrapping::{Turn, Wrapping};
use super::{Sqlite, ailing, counters, ddl, ddl_side, foreign, fts, namesakes, naming, succession};
use crate::shown;

/// The connection as undo and redo of captured rows need it: the images already hold what triggers and cascades did.
/// Back to usual with `quiet(false)`.
pub fn quiet(conn: &Connection, label: &str, on: bool) -> Result<(), TargetError> {
    let set = || -> rusqlite::Result<()> {
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, !on)?;
        conn.execute_batch(&format!(
            "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = {}; {}",
            if on { "ON" } else { "OFF" },
            if on { "" } else { "PRAGMA legacy_alter_table = OFF;" }
        ))
    };
    set().map_err(|source| TargetError::failed(format!("cannot set up {label}"), source))
}

impl Sqlite {
    pub(super) fn undo_step(
        &mut self,
        images: &mut dyn Images,
        manner: Manner,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        let mut reader = Reader::open(images).map_err(|source| self.damaged(source))?;
        match reader.index.way.clone() {
            Way::Captured => {}
            Way::ByScript { shown } => return self.undo_by_script(&mut reader, &shown, gate),
            Way::Never { because } => return Err(shown::never(&reader.index.shown, &because)),
        }
        // Others' values go only under `overwrite`: then they are kept.
        let capture = match manner.on_conflict {
            OnConflict::Overwrite => {
                Some(Capture::put_on(&mut self.conn, gate.images()).map_err(|source| self.uncaptured(source))?)
            }
            OnConflict::Stop | OnConflict::Keep => None,
        };
        quiet(&self.conn, &self.label, true)?;
        let mut lessons = Lessons::default();
        let done = loop {
            let capture = capture.as_ref();
            match undo_attempt(self, &mut reader, manner, &lessons, capture, gate) {
                Err(halt) if lessons.learn(&halt) => {
                    super::roll_back(&self.conn, &self.label)?;
                    if let Some(capture) = capture {
                        capture.restart().map_err(|source| self.uncaptured(source))?;
                    }
                }
                other => break other.map_err(|halt| as_error(halt, &self.label)),
            }
        };
        self.after_replay(done, capture.is_some())
    }

    /// Ends what an undo or redo began, however it went.
    pub(super) fn after_replay<T>(&mut self, done: Result<T, TargetError>, captured: bool) -> Result<T, TargetError> {
        let mut fresh = super::roll_back(&self.conn, &self.label).is_err();
        fresh |= quiet(&self.conn, &self.label, false).is_err();
        fresh |= Watch::take_off(&mut self.conn).is_err();
        if captured {
            fresh |= Capture::take_off(&mut self.conn).is_err();
        }
        // A virtual table may have kept in memory what its shadow tables held.
        fresh |= has_virtual_tables(&self.conn).unwrap_or(true);
        if fresh {
            self.reconnect()?;
        }
        done
    }

    /// Runs the user's own undo script, as the images keep it.
    fn undo_by_script(
        &mut self,
        reader: &mut Reader<'_>,
        shown: &str,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        let watch = Watch::put_on(&mut self.conn, &self.label)?;
        let done = self.run_undo_script(reader, shown, &watch, gate);
        let done = self.after_replay(done, false);
        // The script may have set anything.
        self.reconnect()?;
        done
    }

    fn run_undo_script(
        &self,
        reader: &mut Reader<'_>,
        shown: &str,
        watch: &Watch,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        let mut rules = Rules::new(&self.conn, &self.conn, false);
        let mut wrapping = Wrapping::default();
        let (mut numbering, mut changes) = (None, 0);
        let begin = || {
            super::begin(&self.conn, &self.label)?;
            Numbering::read(&self.conn, &self.marker, &self.label)
        };
        each_kept(&self.label, reader, true, &mut |line, sql| {
            let (statement, place) = (Statement { line, sql: sql.to_owned() }, format!("{shown}:{line}"));
            let class = rules.classify(&statement, &place)?;
            let turn = wrapping.admit(&class, &statement, &place)?;
            if turn == Turn::Within && numbering.is_none() {
                numbering = Some(begin()?);
            }
            changes += u64::from(turn == Turn::Within);
            if turn == Turn::Skip { Ok(()) } else { run_kept(&self.conn, watch, &place, sql) }
        })?;
        let mut numbering = numbering.map_or_else(begin, Ok)?;
        let summary = Summary { changes, ..Summary::default() };
        let numbering = numbering.text(&self.conn, &self.label, false)?;
        super::seal(&self.conn, &self.marker, &self.label, &numbering, &summary, gate)?;
        Ok(Report { summary, ..Report::default() })
    }
}

fn has_virtual_tables(conn: &Connection) -> rusqlite::Result<bool> {
    conn.prepare("SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND rootpage = 0")?.exists([])
}

fn undo_attempt(
    database: &Sqlite,
    reader: &mut Reader<'_>,
    manner: Manner,
    lessons: &Lessons,
    capture: Option<&Capture>,
    gate: &mut dyn Gate,
) -> Result<Report, Halt> {
    let (conn, label) = (&database.conn, database.label.as_str());
    super::begin(conn, label)?;
    let found = Numbering::read(conn, &database.marker, label)?;
    let guard = Guard::new(conn, label, manner.on_conflict);
    let mut replay = Replay::new(conn, label, Direction::Undo, guard, capture, found.clone());
    replay.guard.gone = Some(database.succession.borrow().gone.clone());
    let of = reader.index.rows;
    undo_events(database, reader, manner, lessons, &mut replay, &mut |rows| gate.progress(rows, Some(of)))?;
    let (conflicts, notes) = (replay.guard.conflicts.clone(), replay.guard.notes.clone());
    let stays = manner.on_conflict == OnConflict::Overwrite && replay.guard.stays;
    let (unkept, gone) = (std::mem::take(&mut replay.guard.unkept), std::mem::take(&mut replay.guard.gone));
    let (rows, mut numbering) = (replay.rows, replay.numbering.clone());
    drop(replay);
    // What cannot be brought back is no more overwritten than it is undone.
    if stays || manner.on_conflict == OnConflict::Stop && !conflicts.is_empty() {
        return Err(TargetError::Conflicts(conflicts).into());
    }
    if manner.on_conflict == OnConflict::Keep && !unkept.is_empty() {
        return Err(TargetError::Conflicts(unkept).into());
    }
    let mut summary = reader.index.summary(rows);
    if !conflicts.is_empty() {
        // Announced with the undo: after a crash nobody else could say what it left as others made it.
        summary.note = serde_json::json!({ "settled": conflicts });
    }
    if let Some(capture) = capture {
        let numbered = Numbered::between(&found, &numbering);
        let mut index = Index { shown: reader.index.shown.clone(), numbered, ..Index::default() };
        summary.bytes = apply::finish(conn, &database.options.path, label, capture, &mut index)?.bytes;
    }
    let numbering = numbering.text(conn, label, true)?;
    super::seal(conn, &database.marker, label, &numbering, &summary, gate)?;
    database.succession.borrow_mut().gone = gone.unwrap_or_default();
    Ok(Report { summary, conflicts, notes, ..Report::default() })
}

/// Undoes one step within the open transaction.
pub fn undo_events(
    database: &Sqlite,
    reader: &mut Reader<'_>,
    manner: Manner,
    lessons: &Lessons,
    replay: &mut Replay<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Halt> {
    let (conn, label) = (&database.conn, database.label.as_str());
    let now = counters::read(conn, label)?;
    let stands = Stands::look(conn, label, &reader.index.events)?;
    replay.guard.replacing = succession::replacing(&[&reader.index.events]);
    replay.guard.replacing.extend(database.succession.borrow().replacing.clone());
    for object in namesakes::touched(&reader.index) {
        replay.guard.needs(needed(label, &format!("{}{object}", Summary::MADE), None));
    }
    let changes_schema = reader.index.events.iter().any(|event| matches!(event, Event::Ddl { .. }));
    begin_step(conn, label, replay, &reader.index, Some(changes_schema), lessons)?;
    let mut hangers = Hangers::look(conn, label, &reader.index.events, &replay.track)?;
    let events = std::mem::take(&mut reader.index.events);
    let mut next_hold = None;
    for (number, event) in events.iter().enumerate().rev() {
        let heeded = heed_indexes(conn, label, replay);
        let done = heeded.and_then(|()| match (event, Span::of(number, event)) {
            (Event::Rows { .. }, Some(span)) if lessons.by_net.contains(&number) => {
                replay.span_by_net(reader, span, &mut |_| Ok(()))
            }
            (Event::Rows { .. }, Some(span)) => replay.span(reader, span, progress, &mut |_| Ok(())),
            (Event::Ddl { event, .. }, _) => undo_change(
                database,
                &events,
                number,
                event,
                manner,
                reader,
                lessons,
                replay,
                &mut hangers,
                &mut next_hold,
            ),
            (Event::Rows { .. }, None) => Ok(()),
        });
        if let Err(halt) = done {
            reader.index.events = events;
            return Err(halt);
        }
    }
    replay.guard.forget_statements();
    let hung_up = hangers.hang_up(replay, &events);
    reader.index.events = events;
    hung_up?;
    let span = counters::Span { left: &reader.index.after, wanted: &reader.index.before, now: &now };
    counters::put_back(conn, label, &span, &replay.track.passages(), &mut replay.guard)?;
    end_step(conn, label, replay, &reader.index, lessons)?;
    naming::as_known(&mut replay.guard.conflicts, label, &replay.track);
    naming::as_known(&mut replay.guard.already, label, &replay.track);
    stands.taken(conn, label, &mut replay.guard.needed).map_err(Halt::from)
}

/// Undoes one change of the schema, unless it is to be left or its table is not where it ought to be.
#[allow(clippy::too_many_arguments)] // One event with all that its undo hangs on.
fn undo_change(
    database: &Sqlite,
    events: &[Event],
    number: usize,
    event: &DdlEvent,
    manner: Manner,
    reader: &mut Reader<'_>,
    lessons: &Lessons,
    replay: &mut Replay<'_>,
    hangers: &mut Hangers,
    next_hold: &mut Option<u64>,
) -> Result<(), Halt> {
    end_carry(&database.conn, events, replay, number)?;
    let listed = replay.guard.conflicts.listed.len();
    let goes = !lessons.leaves(number) && replay.track.is_ready(number);
    if goes {
        hangers.take_off(&database.conn, &database.label, number)?;
    }
    let done = goes && undo_ddl(database, event, manner, &reader.index, replay, next_hold)?;
    replay.guard.stays |= !done;
    replay.note_outcome(number, event, done)?;
    if !done {
        return stay_together(events, number, lessons, replay, listed);
    }
    Ok(begin_carry(database, reader, replay, manner, number, events)?)
}

/// What every replay of a step begins with. `watched`: whether foreign keys are checked, and whether the step changes
/// the schema, too.
pub fn begin_step(
    conn: &Connection,
    label: &str,
    replay: &mut Replay<'_>,
    index: &Index,
    watched: Option<bool>,
    lessons: &Lessons,
) -> Result<(), TargetError> {
    replay.guard.known = match replay.direction {
        Direction::Undo => index.numbered.known_to_undo(&replay.numbering),
        Direction::Redo => index.numbered.known_to_redo(&replay.numbering),
    };
    replay.begin_step(&index.tables, &index.events, &lessons.rebuilt, lessons.statistics_left);
    if lessons.statistics_left {
        replay.guard.notes.push(ddl_side::stay(label));
    }
    replay.tally = match watched {
        Some(changes_schema) => Tally::new(conn, label, &index.tables, changes_schema)?,
        None => Tally::default(),
    };
    if lessons.foreign_keys {
        foreign::remember(conn, label, &replay.tally, &index.dangling)?;
    }
    let leaves = |event| lessons.leaves(event);
    replay.dependents = Dependents::look(conn, label, &index.events, &index.known, leaves)?;
    replay.sick_now = ailing::sick_now(conn, label, &index.events, replay.direction, leaves)?;
    replay.guard.conflicts.extend(lessons.left_for.clone());
    replay.spared = lessons.spared.clone();
    Ok(())
}

/// What every replay of a step ends with: what others made and can't be used now, and rows that point at nothing now and
/// did not before, are conflicts.
pub fn end_step(
    conn: &Connection,
    label: &str,
    replay: &mut Replay<'_>,
    index: &Index,
    lessons: &Lessons,
) -> Result<(), Halt> {
    let leaves = |event| lessons.leaves(event);
    let vain = ailing::brought_in_vain(conn, label, index, replay.direction, &replay.sick_now, leaves)?;
    leave_nothing_broken(conn, label, replay, vain)?;
    for table in &lessons.rebuilt {
        fts::rebuild(conn, label, table, &mut replay.guard.conflicts)?;
    }
    if lessons.foreign_keys {
        let (conflicts, rows) = foreign::compare(conn, label, &replay.tally)?;
        if replay.guard.on_conflict == OnConflict::Keep && lessons.spared.clone().learn(&rows) {
            return Err(Halt::Spare { rows, conflicts });
        }
        replay.guard.conflicts.extend(conflicts);
    } else if replay.tally.suspects(conn, label)? {
        return Err(Halt::LookAtForeignKeys);
    }
    Ok(())
}

/// Once the old table is back beside the one that replaced it, rows that others changed go over to it.
fn begin_carry(
    database: &Sqlite,
    reader: &mut Reader<'_>,
    replay: &mut Replay<'_>,
    manner: Manner,
    number: usize,
    events: &[Event],
) -> Result<(), TargetError> {
    let (conn, label) = (&database.conn, database.label.as_str());
    let Some(pair) = replay.track.pairs.iter().find(|pair| pair.drop == number) else { return Ok(()) };
    let renamed = (pair.drop + 1).min(events.len());
    let found = events[pair.create.min(renamed)..events.len().min(renamed + 1)]
        .iter()
        .filter_map(Event::ddl)
        .any(|one| one.found);
    // What was found by comparing knows rows by nothing but their keys.
    let by_key = |tables: &Tables<'_>| match found {
        true => Ok(Some(Constants::new())),
        false => tables.kept_keys(reader, events).map_err(|source| database.damaged(source)),
    };
    match Carry::begin(conn, label, pair, manner.on_conflict, by_key)? {
        Some(carry) => replay.guard.carries.push(carry),
        None => {
            replay.guard.needs(needed(label, replay.track.known_after(pair), None));
            replay.guard.uncarried.push((pair.new.clone(), Conflicts::default()));
        }
    }
    Ok(())
}

/// Before the new table goes: the rows that are left in it are others'.
fn end_carry(conn: &Connection, events: &[Event], replay: &mut Replay<'_>, number: usize) -> Result<(), Halt> {
    let Some(pair) = replay.track.pairs.iter().find(|pair| pair.create == number).cloned() else { return Ok(()) };
    let guard = &mut replay.guard;
    let is_new = |new: &str| new.eq_ignore_ascii_case(&pair.new);
    let lost = if let Some(at) = guard.carries.iter().position(|carry| is_new(&carry.new)) {
        let mut carry = guard.carries.swap_remove(at);
        if carry.rest(conn, &mut guard.conflicts)? {
            replay.track.carried(&pair);
            guard.conflicts.extend(carry.orphans.clone());
        }
        for orphan in carry.orphans.listed.into_iter().take(1) {
            // Whatever row it was: the undo of a later step would bring that back without the value.
            guard.needs(needed(&orphan.target, replay.track.known_after(&pair), orphan.column));
        }
        carry.lost
    } else if let Some(at) = guard.uncarried.iter().position(|(new, _)| is_new(new)) {
        guard.uncarried.swap_remove(at).1
    } else {
        return Ok(());
    };
    if replay.guard.on_conflict == OnConflict::Keep && !lost.is_empty() {
        let together = replay.track.together(events, pair.create);
        return Err(Halt::Leave { events: together, conflicts: lost });
    }
    Ok(())
}

fn undo_ddl(
    database: &Sqlite,
    event: &DdlEvent,
    manner: Manner,
    index: &Index,
    replay: &mut Replay<'_>,
    next_hold: &mut Option<u64>,
) -> Result<bool, TargetError> {
    let label = database.label.as_str();
    fault::point(Point::Statement)
        .map_err(|source| TargetError::failed(format!("cannot change the schema of {label}"), source))?;
    let uncaptured = |source| database.uncaptured(source);
    if let Some(capture) = replay.capture {
        capture.forget_tables().map_err(uncaptured)?;
        capture.pause(true);
    }
    replay.look_afresh();
    let mut next = match *next_hold {
        Some(next) => next,
        None => database.next_hold()?,
    };
    let mut context = ddl::Context {
        conn: &database.conn,
        prefix: &database.prefix,
        target: label,
        foreign_keys: index.foreign_keys,
        next_hold: &mut next,
        already: Conflicts::default(),
        needed: Conflicts::default(),
        stays: false,
    };
    let guard = &mut replay.guard;
    let listed = guard.conflicts.total;
    let reading = |source| TargetError::failed(format!("cannot read the schema of {label}"), source);
    let adrift = event.held_by_rowid(&database.conn).map_err(reading)?.filter(|(table, _)| !guard.known.holds(table));
    if let Some((table, column)) = adrift {
        guard.conflicts.push(Conflict {
            column: Some(column.to_owned()),
            left: "the rows that the held values are of".to_owned(),
            ..conflict(&context, &format!("table {table}"), ConflictKind::NotFound, "no key")
        });
    }
    let taken = event
        .gone
        .first()
        .filter(|row| event.drops() && guard.gone.as_ref().is_some_and(|gone| gone.contains(&of_object(&row.shown()))));
    if let Some(row) = taken {
        let at = conflict(&context, &row.shown(), ConflictKind::Missing, "");
        guard.conflicts.push(Conflict { left: format!("{}, made anew", row.shown()), ..at });
    }
    let stays_away = taken.is_some() && manner.on_conflict != OnConflict::Overwrite;
    // The column stays away rather than come back with other rows' values; they stay held.
    let done = if stays_away || adrift.is_some() && manner.on_conflict != OnConflict::Stop {
        Ok(false)
    } else {
        ddl::undo(&mut context, event, manner, &mut guard.conflicts, &mut guard.notes)
    };
    let already = std::mem::take(&mut context.already);
    let gone = already.listed.iter().filter(|one| one.kind == ConflictKind::Missing);
    guard.gone.iter_mut().for_each(|known| known.extend(gone.clone().map(|one| of_object(&one.left))));
    guard.already.extend(already);
    guard.stays |= context.stays;
    for taken in std::mem::take(&mut context.needed).listed {
        let object = replay.track.known_as_a_whole(&taken.object).unwrap_or(&taken.object).to_owned();
        guard.needs(Conflict { object, ..taken });
    }
    *next_hold = Some(next);
    if let Some(capture) = replay.capture {
        capture.pause(false);
    }
    let done = done?;
    let clean = replay.guard.conflicts.total == listed;
    replay.numbering.bring_back(&event.renumbers(), &index.numbered, clean);
    if clean {
        replay.guard.known.undone(&event.renumbers());
    }
    Ok(done)
}
