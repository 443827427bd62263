//! Runs the script of a step in one transaction, with its images captured.
//!
//! Never leaves a part of a script behind: after any error before the commit the transaction is rolled back.

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::Path;

use backout_model::fault::{self, Point};
use postgres::error::SqlState;

use backout_model::target::{Gate, Refusal, Report, Summary, TargetError};

use super::capture::{Capture, Sessions};
use super::capture_error::{CaptureError, refused_at_end, refused_or};
use super::classify::{self, Class};
use super::ddl::Drawn;
use super::gone::Gone;
use super::held::Held;
use super::notify::{self, Senders};
use super::schema::{self, Tools};
use super::split::{self, Statement};
use super::stream::{Event, Sequence, Unsealed, Way};
use super::wrapping::Wrapping;
use super::{Postgres, counters, deferred, drawn, marker, rights};
use crate::database::{Script, ScriptUndo};

/// How much of a statement an error shows.
const SHOWN: usize = 120;

impl Postgres {
    /// See [`crate::database::Database::apply`].
    pub(super) fn apply_script(&mut self, script: &Script, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.ready()?;
        if self.a.is_frozen() {
            let act = format!("cannot deploy to {}", self.label);
            return Err(TargetError::failed(
                act,
                "it is set to read only for this account (default_transaction_read_only)",
            ));
        }
        self.gone = Gone::default();
        let way = match &script.undo {
            ScriptUndo::Captured => Way::Captured,
            ScriptUndo::ByScript { shown, .. } => Way::ByScript { shown: shown.clone() },
            ScriptUndo::Never { because } => Way::Never { because: because.clone() },
        };
        let capture = Capture::new(gate.images(), self.place.clone()).map_err(|source| self.uncaptured(source))?;
        let next_hold = self.next_hold()?;
        let before = counters::read(&mut self.a, &self.label)?;
        let mut step = Step {
            database: self,
            script,
            way,
            capture,
            wrapping: Wrapping::default(),
            done: 0,
            next_hold,
            before,
            set: Vec::new(),
            senders: Senders::default(),
            held: Held::default(),
        };
        let done = step.run(gate);
        let Step { capture, database, before, set, senders, .. } = step;
        let done = done.and_then(|()| database.commit_script(script, capture, &before, &senders, gate));
        if done.is_err() {
            // What it set since is known to be its own; what it drew after that is seen from there.
            let mut before = before.clone();
            for one in set.iter().filter(|one| !one.made && !one.gone) {
                let name = one.was.clone().unwrap_or_else(|| (one.schema.clone(), one.name.clone()));
                before.entry(name).and_modify(|(_, at)| *at = one.after);
            }
            database.failed_draws.learn(&mut database.a, &before);
        }
        self.after_step();
        match done {
            Err(error) if !set.is_empty() => {
                self.unset(&set)?;
                Err(error)
            }
            done => done,
        }
    }

    /// Puts sequences back that a script set which then failed: no transaction does that.
    fn unset(&mut self, set: &[Sequence]) -> Result<(), TargetError> {
        self.ready()?;
        let began = counters::read(&mut self.a, &self.label)?;
        self.begin()?;
        marker::holds(&mut self.a, self.place.as_ref(), &self.label, self.epoch)?;
        // The server took back what the script called them and made.
        let set: Vec<Sequence> = set.iter().cloned().map(Sequence::under_its_old_name).collect();
        // As it left them, with what it drew. Where others used one since, it stays.
        let set = self.failed_draws.beyond(&began, &set);
        counters::put_back(&mut self.a, &self.label, &began, &set, false, &mut Vec::new())?;
        let act = "cannot put back the sequences that a failed script set in";
        self.a.run("COMMIT").map_err(|source| self.failed(act, source))?;
        self.after_step();
        Ok(())
    }

    pub(super) fn uncaptured(&self, source: CaptureError) -> TargetError {
        uncaptured(&self.label, source)
    }

    fn commit_script(
        &mut self,
        script: &Script,
        mut capture: Capture,
        before: &counters::Positions,
        senders: &Senders,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        let schema_changed = capture.index().events.iter().any(|event| matches!(event, Event::Ddl { .. }));
        if let ScriptUndo::Captured = script.undo {
            let mut sessions = Sessions { a: &mut self.a, b: &mut self.b };
            let done = capture
                .flush(&mut sessions, None)
                .and_then(|()| if schema_changed { deferred::none_is_silenced(&mut sessions) } else { Ok(()) });
            done.map_err(|source| refused_at_end(&self.label, script, source))?;
            let objection = rights::objection(&mut self.a, capture.index());
            if let Some(why) = objection.map_err(|source| self.failed("cannot read what the role may do in", source))? {
                return Err(no_right(script, &why));
            }
        }
        let to_be_proven = capture.index().is_to_be_proven();
        if to_be_proven {
            capture.let_go(&mut self.a).map_err(|source| uncaptured(&self.label, source))?;
        }
        let notes = senders.notes(&mut self.a, &self.label, schema_changed);
        let notes = notes.map_err(|source| self.failed("cannot read the triggers of", source))?;
        let mut unsealed = self.unsealed(capture, before)?;
        if to_be_proven {
            self.prove(script, &mut unsealed, gate)?;
        }
        let summary = sealed(unsealed).map_err(|source| uncaptured(&self.label, source.into()))?;
        self.seal(&summary, gate)?;
        Ok(Report { summary, notes, ..Report::default() })
    }

    /// Completes the images of what was all done.
    pub(super) fn sealed(&mut self, capture: Capture, before: &counters::Positions) -> Result<Summary, TargetError> {
        let unsealed = self.unsealed(capture, before)?;
        sealed(unsealed).map_err(|source| uncaptured(&self.label, source.into()))
    }

    /// The same, but for the index.
    fn unsealed(&mut self, mut capture: Capture, before: &counters::Positions) -> Result<Unsealed, TargetError> {
        self.a.stay_neutral_in_transaction().map_err(|source| self.failed("cannot set up", source))?;
        capture.index().marker = self.marker_number()?;
        capture.index().sequences = counters::moved(&mut self.a, &self.label, before)?;
        capture.unsealed().map_err(|source| uncaptured(&self.label, source))
    }
}

/// The refusal of a script that the role could not take back.
fn no_right(script: &Script, why: &str) -> TargetError {
    TargetError::Refused(Refusal {
        place: script.shown.clone(),
        what: "the script".to_owned(),
        why: format!("the role lacks what its undo needs: {why}"),
        ways_out: vec![
            "deploy as the role that owns the tables, or as one that is a member of it and inherits its rights"
                .to_owned(),
            classify::OWN_UNDO.to_owned(),
        ],
    })
}

/// Writes the index; what the step comes to.
pub(super) fn sealed(unsealed: Unsealed) -> std::io::Result<Summary> {
    let (index, bytes) = unsealed.seal()?;
    Ok(Summary { bytes, rows: index.rows, ..super::undo::summary_of(&index) })
}

/// One step under way.
struct Step<'a> {
    database: &'a mut Postgres,
    script: &'a Script,
    way: Way,
    capture: Capture,
    wrapping: Wrapping,
    done: u64,
    next_hold: u64,
    /// Where the sequences stood before.
    before: counters::Positions,
    /// Those that the script set so far, as it left them.
    set: Vec<Sequence>,
    senders: Senders,
    /// Measured in a rehearsal.
    held: Held,
}

impl Step<'_> {
    /// Runs all statements in a transaction that stays open.
    fn run(&mut self, gate: &mut dyn Gate) -> Result<(), TargetError> {
        self.database
            .a
            .begin_plain()
            .map_err(|source| self.database.failed("cannot begin a transaction in", source))?;
        if self.way == Way::Captured {
            self.look_at_functions()?;
        }
        self.capture.begin(&mut self.database.a).map_err(|source| uncaptured(&self.database.label, source))?;
        self.capture.index().shown = self.script.shown.clone();
        self.capture.index().way = self.way.clone();
        let mut script = Reading::of(&self.script.path, &self.script.shown)?;
        while let Some(statement) = script.next()? {
            let place = format!("{}:{}", self.script.shown, statement.line);
            self.statement(&statement, &place, &mut script)?;
            if sets_sequences(&statement.sql) {
                let database = &mut *self.database;
                self.set = counters::moved(&mut database.a, &database.label, &self.before)?;
            }
            self.done += 1;
            gate.progress(self.done, None);
            let (database, held) = (&mut *self.database, &mut self.held);
            gate.ran(&place, &mut || held.since_last(&database.a, &mut database.b));
        }
        if let ScriptUndo::ByScript { path, shown } = &self.script.undo {
            let mut script = Reading::of(path, shown)?;
            while let Some(statement) = script.next()? {
                if statement.has_data {
                    return Err(refused(
                        &format!("{shown}:{}", statement.line),
                        &statement,
                        "an undo script is kept with the images, and data of COPY are not",
                    ));
                }
                self.capture
                    .undo_statement(statement.line, &statement.sql)
                    .map_err(|source| uncaptured(&self.database.label, source))?;
            }
        }
        Ok(())
    }

    /// Refuses where a function, if called, could write without being counted: only superusers may have one. Learns
    /// whether something could send notifications.
    fn look_at_functions(&mut self) -> Result<(), TargetError> {
        let database = &mut *self.database;
        let found = database.a.rows(&format!(
            "SELECT (SELECT p.oid::pg_catalog.regprocedure FROM pg_catalog.pg_proc p
             WHERE p.oid >= 16384 AND pg_catalog.current_setting('is_superuser') = 'on'
                 AND (p.prosrc ILIKE '%track_counts%' OR pg_catalog.array_to_string(p.proconfig, ',') ILIKE '%track_counts%') LIMIT 1),
             {}",
            notify::could_send(database.a.version)
        ));
        let found = found.map_err(|source| database.failed("cannot read the functions of", source))?;
        let mut row = found.into_iter().next().unwrap_or_default();
        self.senders = Senders::new(row.get(1).is_some_and(|could| could.as_deref() == Some("t")));
        match row.first_mut().and_then(Option::take) {
            None => Ok(()),
            Some(function) => Err(TargetError::Refused(Refusal {
                place: self.script.shown.clone(),
                what: "the script".to_owned(),
                why: format!("the function {function} sets track_counts: what it writes could not be seen"),
                ways_out: vec![
                    "deploy as a role that is no superuser, and so may not set it".to_owned(),
                    classify::OWN_UNDO.to_owned(),
                ],
            })),
        }
    }

    fn statement(&mut self, statement: &Statement, place: &str, script: &mut Reading) -> Result<(), TargetError> {
        let class = match (classify::classify(statement, place), &self.way) {
            (Ok(class), _) => class,
            // What nobody captures need not be capturable; only the transaction must stay ours.
            (Err(refused), way) if refused.always || *way == Way::Captured => return Err(refused.refusal.into()),
            (Err(_), _) => Class::Rows,
        };
        self.wrapping.admit(&class, statement, place).map_err(TargetError::Refused)?;
        fault::point(Point::Statement).map_err(|source| cannot_run(place, &statement.sql, source))?;
        let captured = self.way == Way::Captured;
        if class != Class::Rows {
            self.capture.by_key.forget_names();
        }
        if captured {
            self.senders.statement(&class, &statement.sql);
        }
        let drawn = if captured { self.own_sequences(statement, &class, place)? } else { Vec::new() };
        if matches!(&class, Class::Setting(setting) if setting.name == "session_replication_role") {
            self.capture.index().unenforced = true;
        }
        match class {
            Class::Begin | Class::Commit => {}
            Class::Setting(setting) if setting.ignored => {}
            Class::Ddl(_) if captured => self.schema_change(statement, place, false, &drawn)?,
            Class::Unknown(_) if captured => self.unknown(statement, place, &drawn)?,
            Class::Lock if captured => {
                let database = &mut *self.database;
                let mut sessions = Sessions { a: &mut database.a, b: &mut database.b };
                schema::around(&mut sessions, &mut self.capture, &database.label, place, &mut |a, _| {
                    execute(a, &statement.sql).map_err(|source| cannot_run(place, &statement.sql, source))
                })?;
                self.note(statement, 0)?;
            }
            _ => {
                let session = class == Class::Session;
                if captured {
                    self.before_rows(place)?;
                }
                let rows = match class {
                    _ if statement.has_data => self.copy_in(statement, place, script)?,
                    Class::CopyOut => self.copy_out(statement, place)?,
                    _ => self.execute(statement, place)?,
                };
                if session && captured {
                    let accounted = self.capture.account(&mut self.database.a);
                    accounted.map_err(|source| uncaptured(&self.database.label, source))?;
                }
                self.note(statement, rows)?;
            }
        }
        Ok(())
    }

    /// Has the transaction take sequences along that the statement names.
    fn own_sequences(&mut self, statement: &Statement, class: &Class, place: &str) -> Result<Vec<Drawn>, TargetError> {
        let failed = |source| cannot_run(place, &statement.sql, source);
        let draws = matches!(class, Class::Ddl(_) | Class::Unknown(_));
        let all = drawn::own(&mut self.database.a, &statement.sql, draws).map_err(failed)?;
        if !all.is_empty() {
            let accounted = self.capture.account(&mut self.database.a);
            accounted.map_err(|source| uncaptured(&self.database.label, source))?;
        }
        Ok(all)
    }

    fn execute(&mut self, statement: &Statement, place: &str) -> Result<u64, TargetError> {
        let (a, sql) = (&mut self.database.a, statement.sql.as_str());
        let by_key = if self.way == Way::Captured { self.capture.by_key.run(a, sql) } else { Ok(None) };
        by_key
            .and_then(|rows| rows.map_or_else(|| execute(a, sql), Ok))
            .map_err(|source| cannot_run(place, sql, source))
    }

    fn note(&mut self, statement: &Statement, rows: u64) -> Result<(), TargetError> {
        self.capture
            .statement(statement.line, rows, &statement.sql)
            .map_err(|source| uncaptured(&self.database.label, source))
    }

    fn before_rows(&mut self, place: &str) -> Result<(), TargetError> {
        let database = &mut *self.database;
        let mut sessions = Sessions { a: &mut database.a, b: &mut database.b };
        self.capture.before_rows(&mut sessions).map_err(|source| refused_or(&database.label, place, source))
    }

    /// A statement that nobody can tell before it ran: first as one that changes rows, and where it turns out that it
    /// changes the schema, once more as such.
    fn unknown(&mut self, statement: &Statement, place: &str, drawn: &[Drawn]) -> Result<(), TargetError> {
        self.before_rows(place)?;
        let failed = |source| cannot_run(place, &statement.sql, source);
        self.database.a.run("SAVEPOINT backout_unknown").map_err(failed)?;
        match execute(&mut self.database.a, &statement.sql) {
            Ok(_) => {
                let changed = self.capture.schema_changed(&mut self.database.a);
                if !changed.map_err(|source| uncaptured(&self.database.label, source))? {
                    self.database.a.run("RELEASE backout_unknown").map_err(failed)?;
                    return self.note(statement, 0);
                }
            }
            // A mark of ours was in the way of a change of the schema.
            Err(source) if source.code() == Some(&SqlState::OBJECT_IN_USE) => {}
            Err(source) => return Err(failed(source)),
        }
        self.database.a.run("ROLLBACK TO backout_unknown; RELEASE backout_unknown").map_err(failed)?;
        let accounted = self.capture.account(&mut self.database.a);
        accounted.map_err(|source| uncaptured(&self.database.label, source))?;
        self.schema_change(statement, place, true, drawn)
    }

    fn copy_out(&mut self, statement: &Statement, place: &str) -> Result<u64, TargetError> {
        let sql = statement.sql.trim_end().trim_end_matches(';');
        let mut from = self.database.a.client.copy_out(sql).map_err(|source| cannot_run(place, sql, source))?;
        std::io::copy(&mut from, &mut std::io::sink()).map_err(|source| cannot_run(place, sql, source))?;
        Ok(0)
    }

    /// Streams the rows that follow a COPY … FROM STDIN in the script.
    fn copy_in(&mut self, statement: &Statement, place: &str, script: &mut Reading) -> Result<u64, TargetError> {
        let sql = statement.sql.trim_end().trim_end_matches(';');
        let mut into = self.database.a.client.copy_in(sql).map_err(|source| cannot_run(place, sql, source))?;
        while let Some(part) = script.data()? {
            into.write_all(&part).map_err(|source| cannot_run(place, sql, source))?;
        }
        into.finish().map_err(|source| cannot_run(place, sql, source))
    }

    fn schema_change(
        &mut self,
        statement: &Statement,
        place: &str,
        unknown: bool,
        drawn: &[Drawn],
    ) -> Result<(), TargetError> {
        let database = &mut *self.database;
        let mut tools = Tools {
            own: &database.own,
            label: &database.label,
            version: database.a.version,
            event_triggers: &database.event_triggers,
            next_hold: &mut self.next_hold,
            passing: &[],
            drawn,
            already: None,
            proof: false,
            knows_numbers: true,
            gone: &mut Gone::default(),
        };
        let mut sessions = Sessions { a: &mut database.a, b: &mut database.b };
        let event = schema::run(&mut sessions, &mut self.capture, &mut tools, statement, place)
            .map_err(|error| self::placed(error, place))?;
        if unknown && event.destroys() {
            return Err(refused(
                place,
                statement,
                "it destroys rows or columns from within, where nothing can be kept",
            ));
        }
        let event = Event::Ddl { line: statement.line, sql: statement.sql.clone(), event: Box::new(event) };
        self.capture.ddl(event).map_err(|source| uncaptured(&database.label, source))
    }
}

/// True where the statement may call setval().
fn sets_sequences(sql: &str) -> bool {
    const NAME: &[u8] = b"setval";
    sql.as_bytes().windows(NAME.len()).any(|part| part.eq_ignore_ascii_case(NAME))
}

/// A refusal names the script, too.
fn placed(error: TargetError, place: &str) -> TargetError {
    match error {
        TargetError::Refused(refusal) => TargetError::Refused(Refusal { place: place.to_owned(), ..refusal }),
        other => other,
    }
}

pub fn uncaptured(label: &str, source: CaptureError) -> TargetError {
    TargetError::failed(format!("cannot capture what changes in {label}"), source)
}

/// A script's statements.
pub(super) struct Reading {
    script: split::Script<BufReader<File>>,
    act: String,
}

impl Reading {
    pub(super) fn of(path: &Path, shown: &str) -> Result<Self, TargetError> {
        let act = format!("cannot read {shown}");
        let file = File::open(path).map_err(|source| TargetError::failed(act.clone(), source))?;
        Ok(Self { script: split::Script::new(BufReader::new(file)), act })
    }

    pub(super) fn next(&mut self) -> Result<Option<Statement>, TargetError> {
        self.script.next().transpose().map_err(|source| TargetError::failed(self.act.clone(), source))
    }

    fn data(&mut self) -> Result<Option<Vec<u8>>, TargetError> {
        self.script.next_data().map_err(|source| TargetError::failed(self.act.clone(), source))
    }
}

/// Runs one statement to its end; rows that it returns are dropped. How many rows it touched, where it says so.
pub fn execute(session: &mut super::session::Session, sql: &str) -> Result<u64, postgres::Error> {
    let word = sql.get(..6).unwrap_or_default().to_ascii_lowercase();
    let counts = matches!(word.as_str(), "insert" | "update" | "delete" | "merge ");
    if counts && !sql.to_ascii_lowercase().contains("returning") {
        return session.count(sql);
    }
    session.run(sql).map(|()| 0)
}

pub fn cannot_run(place: &str, sql: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TargetError {
    TargetError::failed(format!("cannot run {place}: {}", shortened(sql)), source)
}

/// The first line or so of a statement.
pub fn shortened(sql: &str) -> String {
    let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= SHOWN { line } else { line.chars().take(SHOWN).collect::<String>() + "…" }
}

fn refused(place: &str, statement: &Statement, why: &str) -> TargetError {
    TargetError::Refused(Refusal {
        place: place.to_owned(),
        what: shortened(&statement.sql),
        why: why.to_owned(),
        ways_out: vec!["make it a script, and so a step, of its own".to_owned()],
    })
}
