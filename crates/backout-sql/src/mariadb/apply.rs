//! Runs the script of a step as a chain of segments, each with its images.
//!
//! Never begins a part that was not announced. What a part that failed had done is rolled back with it; the parts before
//! it are for the undo.

use std::collections::{BTreeMap, BTreeSet};

use backout_model::fault::{self, Point};
use backout_model::target::{Gate, Refusal, Report, Summary, TargetError, Ticket};

use super::asking::Asking;
use super::capture::{self, Capture, CaptureError};
use super::classify::{self, Class};
use super::head::{Head, Object, Verb};
use super::load;
use super::run::{Bodies, Run};
use super::segment::{Detail, Held, Segment, State};
use super::sequence;
use super::session::Session;
use super::setting::Setting;
use super::split::Statement;
use super::stream::Way;
use super::survey::{Reading, Survey, ends_run, opens_run};
use super::table::{self, There};
use super::token::bare;
use super::{Mariadb, written};
use crate::database::Script;
use crate::shown::shorten;

impl Mariadb {
    /// See [`crate::database::Database::apply`].
    pub(super) fn apply_script(&mut self, script: &Script, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.ready()?;
        let done = self.survey(script, gate).and_then(|survey| {
            let captured = survey.index.way == Way::Captured;
            let mut chain = Chain::new(self, script, survey);
            if captured { chain.run(gate) } else { chain.run_uncaptured(gate) }
        });
        self.after_step();
        done
    }
}

/// A segment of rows under way.
struct Open {
    capture: Capture,
    /// Where the sequences stood that it may draw from.
    sequences: Vec<(String, String)>,
}

/// A step under way.
pub(super) struct Chain<'a> {
    pub database: &'a mut Mariadb,
    script: &'a Script,
    pub step: u64,
    /// The number of the next segment.
    pub number: u32,
    pub ticket: Option<Ticket>,
    pub summary: Summary,
    way: Way,
    runs: std::vec::IntoIter<Run>,
    pub notes: Vec<String>,
    /// The texts of prepared statements, by name.
    pub prepared: BTreeMap<String, String>,
    /// The session's own tables.
    temporary: BTreeSet<String>,
    /// The script took back some of the segment under way.
    took_back: bool,
    /// Foreign keys were not checked in the segment under way, at least for a while.
    pub unchecked: bool,
    /// The session is known to read statements as they were read here.
    pub alike: bool,
}

impl<'a> Chain<'a> {
    fn new(database: &'a mut Mariadb, script: &'a Script, survey: Survey) -> Self {
        let summary = Summary { changes: survey.index.statements, bytes: survey.bytes, ..Summary::default() };
        Self {
            database,
            script,
            step: survey.index.step,
            number: 0,
            ticket: None,
            summary,
            way: survey.index.way,
            runs: survey.runs.into_iter(),
            notes: Vec::new(),
            prepared: BTreeMap::new(),
            temporary: BTreeSet::new(),
            took_back: false,
            unchecked: false,
            alike: false,
        }
    }

    fn place(&self, statement: &Statement) -> String {
        format!("{}:{}", self.script.shown, statement.line)
    }

    fn run(&mut self, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        let mut open = None;
        let done = self.statements(&mut open, gate);
        let done = done.and_then(|()| self.close(&mut open, true, gate));
        if done.is_err() {
            self.give_up(open.is_some());
        }
        done?;
        if let Some(ticket) = self.unsealed(gate)? {
            self.database.seal(ticket)?;
        }
        let summary = std::mem::take(&mut self.summary);
        Ok(Report { summary, notes: std::mem::take(&mut self.notes), ..Report::default() })
    }

    /// What failed is taken back by the server; what it was captured by goes, too. Where that fails now, whoever takes the
    /// lock next does it.
    pub(super) fn give_up(&mut self, opened: bool) {
        drop(self.database.a().map(|a| a.run("ROLLBACK")));
        // Once a new session has the lock's name, the old one has ended and it is certain what came of it.
        if opened && self.database.ready().is_ok() {
            drop(self.database.sweep_segment(self.step, self.number));
        }
    }

    /// The ticket of a step whose last segment did not move the marker.
    fn unsealed(&mut self, gate: &mut dyn Gate) -> Result<Option<Ticket>, TargetError> {
        let ticket = self.announced(gate)?;
        let sealed = self.database.marker()?.is_some_and(|marker| marker.seq >= ticket.seq);
        Ok((!sealed).then_some(ticket))
    }

    pub fn announced(&mut self, gate: &mut dyn Gate) -> Result<Ticket, TargetError> {
        self.database.announced(&mut self.ticket, &self.summary, gate)
    }

    fn statements(&mut self, open: &mut Option<Open>, gate: &mut dyn Gate) -> Result<(), TargetError> {
        let mut reading = Reading::of(&self.script.path, &self.script.shown)?;
        let mut done = 0;
        while let Some(statement) = reading.next()? {
            let place = self.place(&statement);
            let class = self.database.class(&statement, &place, &self.way)?;
            if gate.is_stopped() {
                return Err(TargetError::failed(format!("cannot run {place}"), "the run was stopped"));
            }
            if ends_run(&class) {
                self.close(open, false, gate)?;
            }
            if opens_run(&class) && open.is_none() {
                *open = Some(self.open(&place, &statement)?);
            }
            let commits = ends_run(&class);
            self.statement(&statement, &place, class, open.as_mut().map(|open| &mut open.capture), gate)?;
            done += 1;
            gate.progress(done, Some(self.summary.changes));
            gate.ran(&place, &mut || if commits { Err(COMMITS.to_owned()) } else { self.held() });
        }
        Ok(())
    }

    /// The tables whose definitions the session keeps locked, as another session sees it.
    fn held(&mut self) -> Result<String, String> {
        let id = self.database.a().map_err(|error| error.to_string())?.conn.connection_id();
        let sql = format!(
            "SELECT CONCAT(LOWER(LOCK_MODE), ' on ', TABLE_NAME) FROM information_schema.METADATA_LOCK_INFO
             WHERE THREAD_ID = {id} AND TABLE_SCHEMA = DATABASE() AND TABLE_NAME NOT LIKE 'backout%' AND TABLE_NAME <> '' ORDER BY 1"
        );
        let rows = self.database.b.rows(&sql).map_err(|_| UNSEEN.to_owned())?;
        let held: Vec<String> = rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
        Ok(if held.is_empty() { "none".to_owned() } else { held.join(", ") })
    }

    fn statement(
        &mut self,
        statement: &Statement,
        place: &str,
        class: Class,
        capture: Option<&mut Capture>,
        gate: &mut dyn Gate,
    ) -> Result<(), TargetError> {
        self.reads_alike(statement, place, &class)?;
        self.admit_routines(statement, place, &class)?;
        self.unchecked |= matches!(class, Class::Setting(Setting::Session)) && self.unchecks(statement);
        self.took_back |= matches!(class, Class::Rollback | Class::Savepoint);
        match class {
            Class::Begin | Class::Commit | Class::Use(_) | Class::Setting(Setting::Ignored) => Ok(()),
            Class::Hidden(hidden) => self.hidden(statement, place, &hidden, capture.as_deref()),
            Class::Ddl(head) if head.names.iter().any(|name| self.temporary.contains(&name.name)) => {
                self.temporary_table(statement, place, &head)
            }
            Class::Temporary(head) => self.temporary_table(statement, place, &head),
            Class::Ddl(head) => self.schema_change(statement, place, &head, gate),
            Class::Rows(_) => self.rows(statement, place, capture),
            Class::Read | Class::Setting(Setting::Session) | Class::Upkeep | Class::Savepoint => {
                self.run_with_file(place, statement)
            }
            // Back to where the segment began: its copies stay.
            Class::Rollback => run_plainly(self.database.a()?, place, "ROLLBACK TO SAVEPOINT backout_begin"),
        }
    }

    /// Runs a statement that changes rows.
    fn rows(
        &mut self,
        statement: &Statement,
        place: &str,
        mut capture: Option<&mut Capture>,
    ) -> Result<(), TargetError> {
        let label = self.database.label.clone();
        let asked = |done: Result<_, _>| done.map_err(|error| unarmed(&label, place, statement, error));
        if let Some(capture) = &mut capture {
            asked(capture.ask(self.database.a()?))?;
        }
        self.run_with_file(place, statement)?;
        capture.map_or(Ok(()), |capture| asked(capture.told(self.database.a()?)))
    }

    /// Runs a statement as it is, with the file that it loads at hand.
    fn run_with_file(&mut self, place: &str, statement: &Statement) -> Result<(), TargetError> {
        let file = load::beside(&self.script.path, &bare(&statement.sql, self.database.version));
        let file = file.map_err(|no| no.at(place, &statement.sql).refusal)?;
        let a = self.database.a()?;
        a.conn.set_local_infile_handler(file.map(load::handler));
        let done = run_plainly(a, place, &statement.sql);
        a.conn.set_local_infile_handler(None);
        done
    }

    /// Makes or drops tables of the session alone, which go with it. One that hid a table would hide it from the capture, too.
    fn temporary_table(&mut self, statement: &Statement, place: &str, head: &Head) -> Result<(), TargetError> {
        let names: Vec<String> = head.names.iter().map(|name| name.name.clone()).collect();
        let refused = |why: String| Err(classify::No::undo(why).at(place, &statement.sql).refusal.into());
        match head.verb {
            Verb::Create if head.temporary => {
                for name in &names {
                    let there = table::there(&mut self.database.b, name);
                    if there.map_err(|source| self.database.failed("cannot read the schema of", source))?
                        != There::Nothing
                    {
                        return refused(format!("the temporary table would hide {name}: give it another name"));
                    }
                }
                run_plainly(self.database.a()?, place, &statement.sql)?;
                self.temporary.extend(names);
            }
            Verb::Drop
                if head.object == Object::Table
                    && (head.temporary || names.iter().all(|name| self.temporary.contains(name))) =>
            {
                run_plainly(self.database.a()?, place, &statement.sql)?;
                self.temporary.retain(|name| !names.contains(name));
            }
            _ => return refused("of temporary tables only their rows are changed: it names one".to_owned()),
        }
        Ok(())
    }

    /// Refuses a statement that calls a routine which was not there when the script was read: nobody asked what it writes.
    fn admit_routines(&mut self, statement: &Statement, place: &str, class: &Class) -> Result<(), TargetError> {
        let database = &mut *self.database;
        let sql = bare(&statement.sql, database.version);
        // What sets something and has no parentheses calls nothing.
        let may_call = match class {
            Class::Read | Class::Temporary(_) => true,
            Class::Setting(_) => sql.contains('('),
            // Rows that a table is made of may be computed by one.
            Class::Ddl(head) => matches!(head.object, Object::Table | Object::Index),
            _ => false,
        };
        if !may_call {
            return Ok(());
        }
        let found = Bodies::find(&mut database.b);
        if !found.map_err(|source| database.failed("cannot read the routines of", source))?.are_called(&sql) {
            return Ok(());
        }
        let no = match class {
            Class::Ddl(_) => classify::No::undo("it may call a routine: what that writes is not captured here"),
            _ => classify::No::step(
                "it calls a routine that the script itself made: what that writes is not captured",
                "call it in a step of its own",
            ),
        };
        Err(no.at(place, &statement.sql).refusal.into())
    }

    /// True for a setting that has foreign keys go unchecked.
    fn unchecks(&self, statement: &Statement) -> bool {
        let sql = bare(&statement.sql, self.database.version).to_ascii_lowercase();
        // One that puts them back is told apart by what it is set to, or counts for one that does not: that only asks less.
        sql.contains("foreign_key_checks") && !sql.replace(' ', "").contains("foreign_key_checks=1")
    }

    /// Opens a segment of rows: whatever it may write to is armed.
    fn open(&mut self, place: &str, statement: &Statement) -> Result<Open, TargetError> {
        let run = self.runs.next().unwrap_or_default();
        let checks = self.database.a()?.value("SELECT @@foreign_key_checks");
        let checks = checks.map_err(|source| self.database.failed("cannot read the settings of", source))?;
        self.unchecked = checks.as_deref() == Some("0");
        let (step, number) = (self.step, self.number);
        let database = &mut *self.database;
        let armed = Bodies::find(&mut database.b).map_err(CaptureError::from).and_then(|bodies| {
            let b = &mut database.b;
            let plan = written::tables(b, &database.database, &run, &bodies)?;
            self.unchecked |= plan.unchecks;
            let asking = match database.a.as_mut() {
                Some(a) => Asking::of(a, &mut database.b, &run, &plan, &bodies)?,
                None => None,
            };
            let b = &mut database.b;
            let sequences = written::drawn_from(b, &database.database, run, &bodies)?;
            Ok(Open { capture: Capture::arm(b, &database.names, (step, number), plan, asking)?, sequences })
        });
        let open = match armed {
            Ok(open) => open,
            Err(error) => {
                // Half of the triggers may be there.
                drop(database.sweep_segment(step, number));
                return Err(unarmed(&database.label, place, statement, error));
            }
        };
        let begun = database.begin().and_then(|()| {
            let a = database.a()?;
            let begun = open.capture.begin(a).and_then(|()| a.run("SAVEPOINT backout_begin"));
            begun.map_err(|source| capture::uncaptured(&database.label, source))
        });
        if let Err(error) = begun {
            drop(database.sweep_segment(step, number));
            return Err(error);
        }
        Ok(open)
    }

    /// Ends a segment of rows: its net effect is taken and commits with it. The `last` one moves the marker, too.
    fn close(&mut self, open: &mut Option<Open>, last: bool, gate: &mut dyn Gate) -> Result<(), TargetError> {
        let Some(Open { capture, sequences }) = open.as_mut() else { return Ok(()) };
        let held = self.net(capture)?;
        let drawn = self.drawn(sequences.clone())?;
        self.commit_rows(held.clone(), drawn, last, gate)?;
        let Some(Open { capture, .. }) = open.take() else { return Ok(()) };
        self.disarm(&capture, &held)
    }

    /// Commits a segment of rows, which is returned where there is anything to write down of it.
    pub(super) fn commit_rows(
        &mut self,
        held: Vec<Held>,
        drawn: Vec<(String, String)>,
        last: bool,
        gate: &mut dyn Gate,
    ) -> Result<Option<Segment>, TargetError> {
        self.summary.rows += held.iter().map(|held| held.before.max(held.after)).sum::<u64>();
        for held in &held {
            if !self.summary.objects.contains(&held.table.name) && self.summary.objects.len() < Summary::OBJECTS_KEPT {
                self.summary.objects.push(held.table.name.clone());
            }
        }
        if held.is_empty() && drawn.is_empty() && !last {
            let done = self.database.a()?.run("COMMIT");
            done.map_err(|source| self.database.failed("cannot commit to", source))?;
            return Ok(None);
        }
        let ticket = self.announced(gate)?;
        let (step, number) = (self.step, self.number);
        let detail = Detail::Rows { tables: held, unchecked: self.unchecked, drawn };
        let segment = Segment { step, number, state: State::Done, detail };
        self.write(&segment, ticket, last)?;
        Ok(Some(segment))
    }

    /// After the commit: what only the capture needed goes.
    pub(super) fn disarm(&mut self, capture: &Capture, held: &[Held]) -> Result<(), TargetError> {
        let b = &mut self.database.b;
        let done = capture.disarm(b).and_then(|()| capture.drop_holds(b, held));
        done.map_err(|source| capture::uncaptured(&self.database.label, source))?;
        self.number += 1;
        Ok(())
    }

    /// Of the sequences that it may draw from, those that do not stand where they did, and where they stand.
    fn drawn(&mut self, before: Vec<(String, String)>) -> Result<Vec<(String, String)>, TargetError> {
        if before.is_empty() {
            return Ok(Vec::new());
        }
        let now = sequence::all(&mut self.database.b).map_err(|source| self.database.reading(source))?;
        let may_be = |one: &(String, String)| before.iter().any(|(name, state)| *name == one.0 && *state != one.1);
        Ok(now.into_iter().filter(may_be).collect())
    }

    pub(super) fn net(&mut self, capture: &mut Capture) -> Result<Vec<Held>, TargetError> {
        let took_back = std::mem::take(&mut self.took_back);
        let database = &mut *self.database;
        let label = database.label.clone();
        let a = database.a()?;
        let held = a.aside(|a| {
            if a.value("SELECT @@in_transaction")?.as_deref() != Some("1") {
                return Err(CaptureError::Uncapturable("a statement of it committed by itself".to_owned()));
            }
            let held = capture.finish(a, took_back)?;
            if let Some(trigger) = capture.changed_trigger(a)? {
                return Err(CaptureError::Uncapturable(format!(
                    "the trigger {trigger} came, went or changed meanwhile"
                )));
            }
            Ok(held)
        });
        held.map_err(|source| match source {
            CaptureError::Server(source) => capture::uncaptured(&label, source),
            CaptureError::Uncapturable(why) => TargetError::Refused(Refusal {
                place: self.script.shown.clone(),
                what: "the script".to_owned(),
                why,
                ways_out: vec![classify::OWN_UNDO.to_owned()],
            }),
        })
    }

    /// Writes a segment of rows and commits it.
    fn write(&mut self, segment: &Segment, ticket: Ticket, last: bool) -> Result<(), TargetError> {
        let names = self.database.names.clone();
        let label = self.database.label.clone();
        let a = self.database.a()?;
        a.neutral().map_err(|source| capture::uncaptured(&label, source))?;
        super::marker::holds(a, &names, &label, Some(ticket.epoch))?;
        segment.write(a, &names, ticket).map_err(|source| capture::uncaptured(&label, source))?;
        if last {
            self.database.stamp(ticket)?;
        }
        self.database.a()?.restore().map_err(|source| capture::uncaptured(&label, source))?;
        let (step, number) = (segment.step, segment.number);
        let there = format!("SELECT 1 FROM `{}` WHERE step = {step} AND number = {number}", names.segments());
        self.database.commit(&|b| Ok(b.value(&there)?.is_some()))
    }

    /// Runs a script that nobody captures.
    fn run_uncaptured(&mut self, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        let ticket = self.announced(gate)?;
        let segment = Segment { step: self.step, number: 0, state: State::Intended, detail: Detail::Script };
        let names = self.database.names.clone();
        let written = segment.write(&mut self.database.b, &names, ticket);
        written.map_err(|source| self.database.failed("cannot write a segment to", source))?;
        self.database.begin()?;
        if let Err(error) = self.uncaptured_statements(gate) {
            let a = self.database.a()?;
            // Where nothing committed by itself, nothing of it is left.
            let whole = a.value("SELECT @@in_transaction").ok().flatten().as_deref() == Some("1");
            if a.run("ROLLBACK").is_ok() && whole {
                let sql = format!("DELETE FROM `{}` WHERE step = {}", names.segments(), self.step);
                self.database.b.run(&sql).map_err(|source| self.database.failed("cannot tidy up in", source))?;
            }
            return Err(error);
        }
        self.database.stamp(ticket)?;
        self.database
            .commit(&|b| Ok(super::marker::read(b, &names, false)?.is_some_and(|found| found.seq >= ticket.seq)))?;
        Ok(Report { summary: std::mem::take(&mut self.summary), ..Report::default() })
    }

    fn uncaptured_statements(&mut self, gate: &mut dyn Gate) -> Result<(), TargetError> {
        let mut reading = Reading::of(&self.script.path, &self.script.shown)?;
        let mut done = 0;
        while let Some(statement) = reading.next()? {
            let place = self.place(&statement);
            self.database.class(&statement, &place, &self.way)?;
            self.run_with_file(&place, &statement)?;
            done += 1;
            gate.progress(done, Some(self.summary.changes));
            gate.ran(&place, &mut || self.held());
        }
        Ok(())
    }
}

/// Why nobody can tell the locks of a change of the schema.
const COMMITS: &str = "a change of the schema gives its locks back as it commits";
/// Why nobody can tell those of others.
const UNSEEN: &str = "the server has no METADATA_LOCK_INFO";

/// Runs a statement that nobody captures.
pub fn run_plainly(a: &mut Session, place: &str, sql: &str) -> Result<(), TargetError> {
    fault::point(Point::Statement).map_err(|source| cannot_run(place, sql, source))?;
    a.count(sql).map(drop).map_err(|source| cannot_run(place, sql, source))
}

/// Why a segment could not be watched.
pub fn unarmed(label: &str, place: &str, statement: &Statement, error: CaptureError) -> TargetError {
    match error {
        CaptureError::Uncapturable(why) => classify::No::undo(why).at(place, &statement.sql).refusal.into(),
        CaptureError::Server(source) => capture::uncaptured(label, source),
    }
}

pub fn uncaptured(label: &str, source: std::io::Error) -> TargetError {
    TargetError::failed(format!("cannot capture what changes in {label}"), source)
}

pub fn cannot_run(place: &str, sql: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TargetError {
    TargetError::failed(format!("cannot run {place}: {}", shorten(sql)), source)
}
