//! Runs the script of a step in one transaction, with its images captured.
//!
//! Never leaves a part of a script behind: after any error before the commit the transaction is rolled back.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use backout_model::conflict::Conflicts;
use backout_model::fault::{self, Point};
use backout_model::target::{Gate, Report, Summary, TargetError};
use rusqlite::Connection;

use super::capture::{Capture, CaptureError};
use super::classify::{self, Class, Rules};
use super::copying::Copying;
use super::courses::{Course, courses};
use super::ddl_event::DdlEvent;
use super::encoding::{self, Whole};
use super::fallen::falls;
use super::head::{Head, head};
use super::numbering::{Numbered, Numbering};
use super::replay::Direction;
use super::split::{self, Statement};
use super::stream::{Event, Index, Way};
use super::succession::Succession;
use super::watch::Watch;
use super::wrapping::{Turn, Wrapping};
use super::{Sqlite, ailing, counters, ddl, ddl_hold, dependents, foreign, fts, held, limits, namesakes};
use crate::database::{Script, ScriptUndo};

/// How much of a statement an error shows.
const SHOWN: usize = 120;

impl Sqlite {
    /// See [`crate::database::Database::apply`].
    pub(super) fn apply_script(&mut self, script: &Script, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        let capture = Capture::put_on(&mut self.conn, gate.images()).map_err(|source| self.uncaptured(source))?;
        let watch = match &script.undo {
            ScriptUndo::Captured => None,
            ScriptUndo::ByScript { .. } | ScriptUndo::Never { .. } => {
                capture.only_count();
                Some(Watch::put_on(&mut self.conn, &self.label)?)
            }
        };
        let whole = match watch {
            None => Whole::put_on(&mut self.conn)
                .map_err(|source| TargetError::failed(format!("cannot read {}", self.label), source))?,
            Some(_) => None,
        };
        self.succession.borrow_mut().gone.clear();
        let mut step = Step::new(self, script, &capture, watch.as_ref(), whole);
        let done = step.run(gate);
        // What ran unwatched by these rules may have set anything.
        let mut fresh_needed = step.settings_changed || watch.is_some();
        let rolled = super::roll_back(&self.conn, &self.label);
        let cleaned = Capture::take_off(&mut self.conn)
            .and_then(|()| Watch::take_off(&mut self.conn))
            .map_err(|source| TargetError::failed(format!("cannot end the capture on {}", self.label), source));
        // A script's temporary tables end with it, as with the plain client.
        fresh_needed |= has_temporary(&self.conn).unwrap_or(true);
        if fresh_needed || rolled.is_err() || cleaned.is_err() {
            self.reconnect()?;
        }
        done
    }

    pub(super) fn uncaptured(&self, source: CaptureError) -> TargetError {
        TargetError::failed(format!("cannot capture what changes in {}", self.label), source)
    }

    /// What a change of the schema works on; `f` gets it.
    pub(super) fn next_hold(&self) -> Result<u64, TargetError> {
        ddl_hold::next_hold(&self.conn, &self.prefix, &self.label)
    }
}

fn has_temporary(conn: &Connection) -> rusqlite::Result<bool> {
    conn.prepare("SELECT 1 FROM temp.sqlite_schema WHERE name NOT LIKE 'backout%'")?.exists([])
}

/// One step under way.
struct Step<'a> {
    conn: &'a Connection,
    path: &'a Path,
    label: &'a str,
    prefix: &'a str,
    marker: &'a str,
    script: &'a Script,
    capture: &'a Capture,
    /// Where nothing is captured.
    watch: Option<&'a Watch>,
    index: Index,
    /// How the step found rows numbered, and how they are by now.
    found: Numbering,
    numbering: Numbering,
    next_hold: Option<u64>,
    copying: Copying,
    succession: &'a RefCell<Succession>,
    /// None where nothing is captured.
    whole: Option<Whole>,
    /// Whether the script asks for `changes()`; none as long as nobody had to know.
    counts_changes: Option<bool>,
    /// A change of the schema was run.
    schema_changed: bool,
    /// A PRAGMA was run: the connection is not as it was.
    settings_changed: bool,
    done: u64,
}

impl<'a> Step<'a> {
    fn new(
        database: &'a Sqlite,
        script: &'a Script,
        capture: &'a Capture,
        watch: Option<&'a Watch>,
        whole: Option<Whole>,
    ) -> Self {
        let way = match &script.undo {
            ScriptUndo::Captured => Way::Captured,
            ScriptUndo::ByScript { shown, .. } => Way::ByScript { shown: shown.clone() },
            ScriptUndo::Never { because } => Way::Never { because: because.clone() },
        };
        Self {
            conn: &database.conn,
            path: &database.options.path,
            label: &database.label,
            prefix: &database.prefix,
            marker: &database.marker,
            script,
            capture,
            watch,
            index: Index { shown: script.shown.clone(), way, ..Index::default() },
            found: Numbering::default(),
            numbering: Numbering::default(),
            next_hold: None,
            copying: Copying::default(),
            succession: &database.succession,
            whole,
            counts_changes: None,
            schema_changed: false,
            settings_changed: false,
            done: 0,
        }
    }

    fn run(&mut self, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        let mut rules = Rules::new(self.conn, self.conn, self.is_captured());
        let mut wrapping = Wrapping::default();
        let mut open = false;
        for statement in read(&self.script.path, &self.script.shown)? {
            let statement = statement?;
            let place = format!("{}:{}", self.script.shown, statement.line);
            if gate.is_stopped() {
                return Err(TargetError::failed(format!("cannot go on with {place}"), "stopped by the operator"));
            }
            let mut class = rules.classify(&statement, &place)?;
            match wrapping.admit(&class, &statement, &place)? {
                Turn::Skip => continue,
                Turn::Before => {
                    self.settings_changed = true;
                    execute(self.conn, &statement.sql).map_err(|source| cannot_run(&place, &statement.sql, source))?;
                    self.index.pragmas.push(statement.sql);
                    continue;
                }
                Turn::Within => self.settings_changed |= class == Class::LeadingPragma,
            }
            if !open {
                self.open()?;
                open = true;
                // Until the lock was held others may have changed the schema.
                rules.look_afresh();
                class = rules.classify(&statement, &place)?;
            }
            self.statement(&statement, &place, class)?;
            self.done += 1;
            gate.progress(self.done, None);
            gate.ran(&place, &mut || held::now(self.conn));
        }
        if !open {
            self.open()?;
        }
        self.undo_script()?;
        self.commit(gate)
    }

    fn is_captured(&self) -> bool {
        self.index.way == Way::Captured
    }

    fn open(&mut self) -> Result<(), TargetError> {
        let failed = |source: rusqlite::Error| TargetError::failed(format!("cannot read {}", self.label), source);
        super::begin(self.conn, self.label)?;
        if self.is_captured() {
            limits::readable(self.conn, self.label, &self.script.shown)?;
        }
        self.index.foreign_keys = self.conn.query_row("PRAGMA foreign_keys", [], |row| row.get(0)).map_err(failed)?;
        self.index.before = counters::read(self.conn, self.label)?;
        self.found = Numbering::read(self.conn, self.marker, self.label)?;
        self.numbering = self.found.clone();
        Ok(())
    }

    fn statement(&mut self, statement: &Statement, place: &str, class: Class) -> Result<(), TargetError> {
        fault::point(Point::Statement).map_err(|source| cannot_run(place, &statement.sql, source))?;
        if !self.is_captured() {
            return self.rows(statement, place, false);
        }
        if matches!(class, Class::Ddl | Class::DeleteAll { .. }) {
            fts::flush(self.conn).map_err(|source| cannot_run(place, &statement.sql, source))?;
            self.capture.settle(self.conn).map_err(|source| self.uncaptured(source))?;
        }
        match class {
            Class::DeleteAll { table } => {
                let event = match self.counts_changes()? {
                    true => None,
                    false => self.with_context(|context| ddl::delete_all(context, &table))?,
                };
                match event {
                    Some(event) => self.note_ddl(statement, event),
                    None => self.rows(statement, place, true),
                }
            }
            Class::Ddl | Class::Analyze => {
                let event =
                    self.schema_change(statement, place).map_err(|error| ddl::placed(error, statement, place))?;
                self.note_ddl(statement, event)
            }
            Class::Rows => self.rows(statement, place, true),
            Class::Read | Class::LeadingPragma | Class::Counter => self.rows(statement, place, false),
            Class::Empty | Class::Begin | Class::Commit => Ok(()),
        }
    }

    /// A change of the schema keeps by itself what its undo needs, but for the rows that DROP TABLE deletes one by one
    /// where foreign keys hang on them.
    fn schema_change(&mut self, statement: &Statement, place: &str) -> Result<DdlEvent, TargetError> {
        self.look_before(statement)?;
        let unsteady = self.copying.is_unsteady();
        let falls =
            falls(self.conn, statement, &self.copying).map_err(|source| cannot_run(place, &statement.sql, source))?;
        let (few, digest) = self.with_context(|context| {
            let Some(table) = ddl::dropped(context, statement)? else { return Ok((None, None)) };
            let digest = if unsteady { Some(ddl::digest(context, &table, statement)?) } else { None };
            Ok((ddl::empties_first(context, &table, statement)?.then_some(table.name), digest))
        })?;
        if let Some(table) = &few {
            // In a span of their own: a redo deletes what is there then.
            self.capture.forget_tables().map_err(|source| self.uncaptured(source))?;
            let emptied = ddl::empty(self.conn, self.label, table);
            self.capture.settle(self.conn).map_err(|source| self.uncaptured(source))?;
            emptied?;
        }
        let deletes = self.index.foreign_keys && ddl::may_delete_rows(&statement.sql);
        if deletes {
            self.writes_whole_text(statement, place)?;
            self.capture.read_all(self.conn).map_err(|source| self.uncaptured(source))?;
            self.capture.leave_statistics(true);
        } else {
            self.capture.pause(true);
        }
        let event = self.with_context(|context| ddl::run(context, statement));
        self.capture.leave_statistics(false);
        self.capture.pause(false);
        self.capture.settle(self.conn).map_err(|source| self.uncaptured(source))?;
        let event = event?.of_rows(digest).with_falls(falls);
        let copying = &self.succession.borrow().copying;
        let into = event.dropped().map(|table| copying.successors(table)).unwrap_or_default();
        let event = event.copied_into(&into);
        Ok(if few.is_some() { event.after_emptying() } else { event })
    }

    /// True where the script asks how many rows a statement changed: then every one must really change.
    fn counts_changes(&mut self) -> Result<bool, TargetError> {
        if let Some(known) = self.counts_changes {
            return Ok(known);
        }
        let mut counts = false;
        for statement in read(&self.script.path, &self.script.shown)? {
            counts |= classify::mentions(&statement?.sql, "changes");
        }
        self.counts_changes = Some(counts);
        Ok(counts)
    }

    /// Before the first change of the schema: what can't be used even now need not be of use when it comes back.
    fn look_before(&mut self, statement: &Statement) -> Result<(), TargetError> {
        if !self.schema_changed {
            let (mut words, mut made, mut renames) = (HashSet::new(), HashSet::new(), false);
            for statement in read(&self.script.path, &self.script.shown)? {
                let sql = statement?.sql;
                if ["create", "alter", "drop"].iter().any(|word| classify::mentions(&sql, word)) {
                    words.extend(dependents::spelled(&sql));
                    let head = head(&sql);
                    made.extend(head.as_ref().and_then(Head::made).map(str::to_ascii_lowercase));
                    renames |= head.as_ref().is_none_or(Head::may_rewrite);
                }
            }
            let sick =
                if renames { ailing::sick_anywhere(self.conn) } else { ailing::sick_around(self.conn, words, made) };
            self.index.sick_before = sick.map_err(|source| cannot_run(&self.script.shown, &statement.sql, source))?;
        }
        self.schema_changed = true;
        Ok(())
    }

    /// Refuses a statement on tables whose rows could not be kept to the byte.
    fn writes_whole_text(&mut self, statement: &Statement, place: &str) -> Result<(), TargetError> {
        let Some(whole) = &mut self.whole else { return Ok(()) };
        let cannot = |source| cannot_run(place, &statement.sql, source);
        match whole.before(self.conn, &statement.sql).map_err(cannot)? {
            Some((table, column)) => Err(encoding::refused(place, &shortened(&statement.sql), &table, &column)),
            None => Ok(()),
        }
    }

    fn rows(&mut self, statement: &Statement, place: &str, writes: bool) -> Result<(), TargetError> {
        if writes {
            self.writes_whole_text(statement, place)?;
        }
        let ran = match self.watch {
            Some(watch) => watch.over(|| execute(self.conn, &statement.sql)),
            None => execute(self.conn, &statement.sql),
        };
        // A failing capture stops the statement; it is the cause, then, and goes first.
        self.capture.settle(self.conn).map_err(|source| self.uncaptured(source))?;
        ran.map_err(|source| cannot_run(place, &statement.sql, source))?;
        if writes {
            self.copying.statement(&statement.sql, self.index.foreign_keys);
            self.succession.borrow_mut().copying.statement(&statement.sql, self.index.foreign_keys);
        }
        self.capture.statement(statement.line, &statement.sql, false).map_err(|source| self.uncaptured(source))?;
        Ok(())
    }

    fn with_context<T>(
        &mut self,
        work: impl FnOnce(&mut ddl::Context<'_>) -> Result<T, TargetError>,
    ) -> Result<T, TargetError> {
        let mut next = match self.next_hold {
            Some(next) => next,
            None => ddl_hold::next_hold(self.conn, self.prefix, self.label)?,
        };
        let result = work(&mut ddl::Context {
            conn: self.conn,
            prefix: self.prefix,
            target: self.label,
            foreign_keys: self.index.foreign_keys,
            next_hold: &mut next,
            already: Conflicts::default(),
            needed: Conflicts::default(),
            stays: false,
        });
        self.next_hold = Some(next);
        result
    }

    fn note_ddl(&mut self, statement: &Statement, event: DdlEvent) -> Result<(), TargetError> {
        self.numbering.renew(&event.renumbers());
        let mut succession = self.succession.borrow_mut();
        let rows = succession
            .changed(self.conn, &event, self.copying.made())
            .map_err(|source| cannot_run(&self.script.shown, &statement.sql, source))?;
        succession.copying.changed(&event);
        drop(succession);
        let event = if rows.is_some() { event.of_rows(rows) } else { event };
        self.copying.changed(&event);
        let noted = Event::Ddl { line: statement.line, sql: statement.sql.clone(), event: Box::new(event.clone()) };
        self.capture.ddl(noted).map_err(|source| self.uncaptured(source))?;
        self.with_context(|context| ddl::fill(context, &event))?;
        self.capture.settle(self.conn).map_err(|source| self.uncaptured(source))?;
        self.capture.end_of_fill(statement.line).map_err(|source| self.uncaptured(source))
    }

    /// Keeps the user's own undo script with the images, so that they alone are enough to undo.
    fn undo_script(&self) -> Result<(), TargetError> {
        if let ScriptUndo::ByScript { path, shown } = &self.script.undo {
            let mut rules = Rules::new(self.conn, self.conn, false);
            let mut wrapping = Wrapping::default();
            for statement in read(path, shown)? {
                let statement = statement?;
                let place = format!("{shown}:{}", statement.line);
                let class = rules.classify(&statement, &place)?;
                wrapping.admit(&class, &statement, &place)?;
                self.capture
                    .statement(statement.line, &statement.sql, true)
                    .map_err(|source| self.uncaptured(source))?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.index.numbered = Numbered::between(&self.found, &self.numbering);
        let summary = finish(self.conn, self.path, self.label, self.capture, &mut self.index)?;
        let numbering = self.numbering.text(self.conn, self.label, self.index.way == Way::Captured)?;
        super::seal(self.conn, self.marker, self.label, &numbering, &summary, gate)?;
        Ok(Report { summary, ..Report::default() })
    }

    fn uncaptured(&self, source: CaptureError) -> TargetError {
        TargetError::failed(format!("cannot capture what changes in {}", self.label), source)
    }
}

/// Completes the images of a step whose statements have all run.
pub fn finish(
    conn: &Connection,
    path: &Path,
    label: &str,
    capture: &Capture,
    index: &mut Index,
) -> Result<Summary, TargetError> {
    let returns = capture.returns();
    let returns: Vec<&str> = returns.iter().map(String::as_str).collect();
    index.dangling = foreign::before_step(conn, path, &returns);
    let flushing = |source| TargetError::failed(format!("cannot write the full-text tables of {label}"), source);
    fts::flush(conn).map_err(flushing)?;
    capture
        .settle(conn)
        .map_err(|source| TargetError::failed(format!("cannot capture what changes in {label}"), source))?;
    index.after = counters::read(conn, label)?;
    let of_schema = |source| CaptureError::Definition { table: "the schema".to_owned(), source };
    let bytes = capture
        .finish(index, |index| look_at_the_end(conn, index).map_err(of_schema))
        .map_err(|source| TargetError::failed(format!("cannot capture what changes in {label}"), source))?;
    summed(conn, label, index, bytes)
}

/// What images say of the schema as a step leaves it.
pub fn look_at_the_end(conn: &Connection, index: &mut Index) -> rusqlite::Result<()> {
    index.known = dependents::known(conn, &index.events)?;
    let made = ailing::brought(&index.events, Direction::Redo, |_| false);
    index.sick_after = ailing::sick(conn, made.iter().map(|one| one.row))?;
    Ok(())
}

/// What finished images of so many bytes come to; refused where what they hold could not be put back to the byte.
pub fn summed(conn: &Connection, label: &str, index: &Index, bytes: u64) -> Result<Summary, TargetError> {
    let mut objects: Vec<String> = index.tables.iter().map(|table| table.name.clone()).collect();
    objects.sort_unstable();
    objects.dedup();
    let courses = courses(&index.events);
    let written = objects.iter().map(String::as_str);
    let renamed =
        courses.iter().filter(|course| written.clone().any(|table| course.has_been(table))).filter_map(Course::last);
    let halves = encoding::first_with_halves(conn, written.clone().chain(renamed))
        .map_err(|source| TargetError::failed(format!("cannot read {label}"), source))?;
    if let Some((table, column)) = halves {
        return Err(encoding::refused(&index.shown, "what it leaves", table, &column));
    }
    objects.extend(of_schema_changes(&index.events));
    objects.sort_unstable();
    objects.dedup();
    objects.truncate(Summary::OBJECTS_KEPT);
    let mut made = namesakes::made(&index.events);
    made.truncate(Summary::OBJECTS_KEPT);
    Ok(Summary { changes: index.statements, rows: index.rows, bytes, objects, made, ..Summary::default() })
}

/// The tables whose form a step changed, under the names that they have after it, or had where it dropped them; those whose rows it changed stand
/// beside them without a kind.
fn of_schema_changes(events: &[Event]) -> Vec<String> {
    let courses = courses(events);
    let made = courses.iter().filter_map(|course| course.last().or(course.first()));
    let formed = events.iter().filter_map(Event::ddl).filter_map(DdlEvent::forms);
    made.chain(formed).map(|table| format!("table {table}")).collect()
}

/// The statements of a script file.
pub fn read(
    path: &Path,
    shown: &str,
) -> Result<impl Iterator<Item = Result<Statement, TargetError>> + use<>, TargetError> {
    let act = format!("cannot read {shown}");
    let file = File::open(path).map_err(|source| TargetError::failed(act.clone(), source))?;
    Ok(split::statements(BufReader::new(file))
        .map(move |statement| statement.map_err(|source| TargetError::failed(act.clone(), source))))
}

/// Runs one statement to its end; rows that it returns are dropped.
pub fn execute(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.raw_query();
    while rows.next()?.is_some() {}
    Ok(())
}

pub fn cannot_run(place: &str, sql: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TargetError {
    TargetError::failed(format!("cannot run {place}: {}", shortened(sql)), source)
}

/// The first line or so of a statement.
pub fn shortened(sql: &str) -> String {
    let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= SHOWN { line } else { line.chars().take(SHOWN).collect::<String>() + "…" }
}
