//! Captures what a step did to rows, from MVCC, while its transaction is still open: session A runs the step, and session
//! B still sees every row as it was.
//!
//! Which rows are A's is found by what each session sees, never by `xmax` alone: a key-share lock of another session
//! turns that into a multixact, and savepoints and EXCEPTION blocks write under ids of their own. Never writes to the
//! database.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;

use super::by_key::ByKey;
use super::candidates::{altered_type, candidates, has_namesakes, lock, odd, own_rows, placed, read_line};
use super::capture_error::{CaptureError, reading};
use super::deferred;
use super::marks::{Marks, Seen};
use super::named;
use super::place::Place;
use super::prepared::Client;
use super::session::{Session, Settings};
use super::stream::{Event, Index, Side, Span, Table, Unsealed, Writer};
use super::table;
use super::touched::{Counts, LastWritten, Touched, Written, judge, note_made, touched, written};

/// A row beside its image has twice as many columns, and PostgreSQL takes no more than 1664 in one.
const MOST_COLUMNS: usize = 800;

/// Both sessions of a step.
pub struct Sessions<'a> {
    /// Runs the step.
    pub a: &'a mut Session,
    /// Sees what was before it.
    pub b: &'a mut Session,
}

/// Capturing into one stream.
pub struct Capture {
    pub(super) writer: Writer,
    index: Index,
    place: Option<Place>,
    /// What the counters said when a table was last looked at.
    seen: HashMap<u32, Counts>,
    /// What they said when the transaction began.
    begun: HashMap<u32, Counts>,
    last_written: LastWritten,
    /// What was written to the catalogs, by their names, as far as it is accounted for.
    catalogs: BTreeMap<String, i64>,
    marks: Marks,
    /// Rows that plain statements changed.
    pub(super) by_key: ByKey,
    /// The schema changed since the marks were set.
    marks_stale: bool,
    /// Tables whose images were written: what comes later is seen by marks alone.
    flushed: HashSet<u32>,
    /// The catalogs are written to by the tool itself: in an undo or redo.
    pub(super) own_schema_changes: bool,
    statements_start: u64,
    statements: u64,
}

impl Capture {
    pub fn new(out: Box<dyn Write + Send>, place: Option<Place>) -> Result<Self, CaptureError> {
        let mut writer = Writer::new(out)?;
        Ok(Self {
            statements_start: writer.boundary()?,
            writer,
            index: Index::default(),
            place,
            seen: HashMap::new(),
            begun: HashMap::new(),
            last_written: LastWritten::default(),
            catalogs: BTreeMap::new(),
            marks: Marks::default(),
            by_key: ByKey::default(),
            marks_stale: false,
            flushed: HashSet::new(),
            own_schema_changes: false,
            statements: 0,
        })
    }

    /// The tool itself writes to the catalogs meanwhile.
    pub fn trust_schema_changes(mut self) -> Self {
        self.own_schema_changes = true;
        self
    }

    /// Where the counters stand as the transaction begins: what the session did before it may not be booked yet.
    pub fn begin(&mut self, a: &mut Session) -> Result<(), CaptureError> {
        let Written { catalogs, tables } = written(a)?;
        self.catalogs = catalogs;
        self.seen = tables.clone();
        self.begun = tables;
        Ok(())
    }

    /// Notes a statement that ran.
    pub fn statement(&mut self, line: u32, rows: u64, text: &str) -> Result<(), CaptureError> {
        self.index.statements += 1;
        self.statements += 1;
        Ok(self.writer.statement(line, rows, text.as_bytes(), false)?)
    }

    /// Notes a statement of the user's own undo script, after all others.
    pub fn undo_statement(&mut self, line: u32, text: &str) -> Result<(), CaptureError> {
        if self.statements > 0 {
            self.close_statements()?;
        }
        Ok(self.writer.statement(line, 0, text.as_bytes(), true)?)
    }

    /// Notes a change of the schema.
    pub fn ddl(&mut self, event: Event) -> Result<(), CaptureError> {
        self.close_statements()?;
        self.index.statements += 1;
        self.index.events.push(event);
        Ok(())
    }

    fn close_statements(&mut self) -> Result<(), CaptureError> {
        let end = self.writer.boundary()?;
        if end > self.statements_start {
            let span = Span { start: self.statements_start, end, records: self.statements };
            self.index.events.push(Event::Statements { span });
        }
        self.statements_start = end;
        self.statements = 0;
        Ok(())
    }

    /// Writes the images of all rows that A changed since the last flush. `only`: of these tables, in the midst of a step; at
    /// its end the neutral settings stay.
    pub fn flush(&mut self, sessions: &mut Sessions<'_>, only: Option<&[u32]>) -> Result<(), CaptureError> {
        if only.is_some() && !self.own_schema_changes {
            deferred::nothing_waits(sessions.a)?;
        }
        sessions.a.run("SET CONSTRAINTS ALL IMMEDIATE").map_err(CaptureError::Deferred)?;
        self.close_statements()?;
        let settings = sessions.a.neutral().map_err(reading("the settings"))?;
        self.flush_neutral(sessions, only)?;
        if only.is_none() {
            return Ok(());
        }
        deferred::defer_again(sessions.a)?;
        self.restore(sessions, settings)
    }

    /// Before a statement that may change the schema: captures what is marked, whose marks would be in its way, and tells
    /// which other tables have changes that are not captured yet.
    pub fn before_schema(&mut self, sessions: &mut Sessions<'_>) -> Result<Vec<u32>, CaptureError> {
        let now = written(sessions.a)?;
        if !self.own_schema_changes {
            self.schema_is_accounted_for(&now)?;
        }
        self.last_written.before(self.index.changes(), &now.tables);
        let changed = if self.were_seen(&now) { Vec::new() } else { self.changed(sessions, &now)? };
        let (marked, pending): (Vec<u32>, Vec<u32>) = changed.into_iter().partition(|oid| self.marks.has(*oid));
        if !marked.is_empty() {
            self.flush(sessions, Some(&marked))?;
        }
        self.marks.close(sessions.a).map_err(reading("what was marked"))?;
        Ok(pending)
    }

    /// Of the tables `pending`: those that only A can write to now, or that are gone.
    pub fn hit(&self, a: &mut Session, pending: &[u32]) -> Result<Vec<u32>, CaptureError> {
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        let oids = pending.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let rows = a
            .rows(&format!(
                "SELECT p.oid FROM pg_catalog.unnest('{{{oids}}}'::pg_catalog.oid[]) AS p (oid)
                 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = p.oid)
                     OR EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.pid = pg_catalog.pg_backend_pid()
                         AND l.locktype = 'relation' AND l.granted AND l.relation = p.oid
                         AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))"
            ))
            .map_err(reading("which tables are locked"))?;
        Ok(rows.iter().filter_map(|row| row[0].as_deref()?.parse().ok()).collect())
    }

    /// After a statement that changed the schema or locked a table.
    pub fn after_schema(&mut self, a: &mut Session) -> Result<(), CaptureError> {
        self.marks_stale = true;
        self.account(a)
    }

    /// Takes the rows of these relations for accounted for: how they come and go is known.
    pub fn account_rows(&mut self, a: &mut Session, of: &[u32]) -> Result<(), CaptureError> {
        if !of.is_empty() {
            let now = written(a)?.tables;
            // TRUNCATE has the server forget what it counted before.
            self.seen.extend(of.iter().map(|oid| (*oid, now.get(oid).copied().unwrap_or_default())));
        }
        Ok(())
    }

    /// Takes what was written to the catalogs so far for accounted for.
    pub fn account(&mut self, a: &mut Session) -> Result<(), CaptureError> {
        self.catalogs = written(a)?.catalogs;
        Ok(())
    }

    /// True where the catalogs were written to since that was last accounted for.
    pub fn schema_changed(&self, a: &mut Session) -> Result<bool, CaptureError> {
        Ok(written(a)?.catalogs != self.catalogs)
    }

    /// An error where a statement that should change rows changed the schema, or large objects.
    fn schema_is_accounted_for(&self, now: &Written) -> Result<(), CaptureError> {
        let Some((name, _)) = now.catalogs.iter().find(|(name, count)| self.catalogs.get(*name) != Some(*count)) else {
            return Ok(());
        };
        Err(CaptureError::Uncapturable(if name.starts_with("pg_largeobject") {
            "large objects were changed, which are not captured".to_owned()
        } else {
            format!("a function that was called changed the schema ({name} was written to)")
        }))
    }

    /// Before a statement that may change rows: marks how the tables are that only A can write to.
    pub fn before_rows(&mut self, sessions: &mut Sessions<'_>) -> Result<(), CaptureError> {
        if !std::mem::take(&mut self.marks_stale) {
            return Ok(());
        }
        let settings = sessions.a.neutral().map_err(reading("the settings"))?;
        let moved = self.moved(&written(sessions.a)?);
        let mut all = touched(sessions.a, self.place.as_ref(), &moved)?;
        note_made(sessions.b, &mut all)?;
        for one in all.iter().filter(|one| one.kind == "r" && one.strong && !one.made) {
            if self.marks.has(one.oid) {
                continue;
            }
            let table = table::read(sessions.a, one.oid).map_err(reading(&one.shown()))?;
            self.marks.open(sessions.a, one.oid, &table).map_err(reading(&one.shown()))?;
            self.seen.insert(one.oid, one.counts);
        }
        self.restore(sessions, settings)
    }

    /// Takes in what `COPY … TO STDOUT` writes: rows that a change of the schema would destroy.
    pub fn keep(&mut self, client: &mut Client, copy_out: &str) -> Result<u64, CaptureError> {
        self.close_statements()?;
        let start = self.writer.boundary()?;
        let mut records = 0;
        let mut lines = client.copy_out(copy_out).map_err(reading("rows that are to be kept"))?;
        let mut line = Vec::new();
        while read_line(&mut lines, &mut line)? {
            self.writer.kept(&line)?;
            records += 1;
        }
        drop(lines);
        self.index.kept.push(Span { start, end: self.writer.boundary()?, records });
        self.statements_start = self.writer.boundary()?;
        Ok(self.index.kept.len() as u64 - 1)
    }

    /// Tables with changes since they were last looked at, made ones left out: theirs wait for the end of the step.
    fn changed(&mut self, sessions: &mut Sessions<'_>, now: &Written) -> Result<Vec<u32>, CaptureError> {
        let settings = sessions.a.neutral().map_err(reading("the settings"))?;
        let mut all = touched(sessions.a, self.place.as_ref(), &self.moved(now))?;
        self.restore(sessions, settings)?;
        note_made(sessions.b, &mut all)?;
        let changed = |one: &&Touched| {
            one.counts != self.seen.get(&one.oid).copied().unwrap_or_default() && one.kind == "r" && !one.made
        };
        Ok(all.iter().filter(changed).map(|one| one.oid).collect())
    }

    /// True where nothing changed in any table since it was last looked at.
    fn were_seen(&self, now: &Written) -> bool {
        let counts = |all: &HashMap<u32, Counts>, oid: &u32| all.get(oid).copied().unwrap_or_default();
        now.tables.keys().chain(self.seen.keys()).all(|oid| counts(&now.tables, oid) == counts(&self.seen, oid))
    }

    fn restore(&mut self, sessions: &mut Sessions<'_>, settings: Settings) -> Result<(), CaptureError> {
        sessions.a.restore(settings).map_err(reading("the settings"))
    }

    fn flush_neutral(&mut self, sessions: &mut Sessions<'_>, only: Option<&[u32]>) -> Result<(), CaptureError> {
        let state = sessions.a.rows("SELECT pg_current_xact_id_if_assigned(), current_setting('track_counts')");
        let state = state.map_err(reading("the transaction"))?.pop().unwrap_or_default();
        let [Some(top), counted] = state.as_slice() else { return Ok(()) };
        if counted.as_deref() != Some("on") {
            return Err(CaptureError::Uncapturable(
                "track_counts is off, so that the server does not say which tables were written to".to_owned(),
            ));
        }
        let now = written(sessions.a)?;
        if !self.own_schema_changes {
            self.schema_is_accounted_for(&now)?;
        }
        let mut all = touched(sessions.a, self.place.as_ref(), &self.moved(&now))?;
        note_made(sessions.b, &mut all)?;
        for one in &mut all {
            one.seen = self.seen.get(&one.oid).copied().unwrap_or_default();
            let one = &*one;
            // A view is filled by a change of the schema, and here they are the tool's own.
            if !(self.own_schema_changes && one.kind == "m") {
                judge(one).map_err(|error| error.about(&one.name))?;
            }
            if only.is_some_and(|only| !only.contains(&one.oid)) || one.kind != "r" {
                continue;
            }
            if one.made && only.is_some() {
                continue;
            }
            let counts = one.counts.since(one.seen);
            if counts != Counts::default() {
                self.table(sessions, one, counts, top).map_err(|error| error.about(&one.name))?;
            }
            self.seen.insert(one.oid, one.counts);
        }
        Ok(())
    }

    /// The oracle beside the locks: tables that the server counted changes in. Where one is not locked, a part of the
    /// transaction that was rolled back changed it, or nobody knows why: it is looked at like the others.
    fn moved(&self, now: &Written) -> Vec<u32> {
        let before = |oid: &u32| self.begun.get(oid).copied().unwrap_or_default();
        now.tables.iter().filter(|(oid, counts)| **counts != before(oid)).map(|(oid, _)| *oid).collect()
    }

    /// The images of one table.
    fn table(
        &mut self,
        sessions: &mut Sessions<'_>,
        touched: &Touched,
        counts: Counts,
        top: &str,
    ) -> Result<(), CaptureError> {
        let shown = touched.shown();
        let mut table = table::read(sessions.a, touched.oid).map_err(reading(&shown))?;
        table.made = touched.made;
        if table.columns.len() > MOST_COLUMNS && !touched.made {
            let why = format!(
                "{shown} has more than {MOST_COLUMNS} columns: its rows could not be compared with their images"
            );
            return Err(CaptureError::Uncapturable(why));
        }
        table.names = named::of_table(&mut sessions.a.client, touched.oid).map_err(reading(&shown))?;
        let marked = self.marks.has(touched.oid);
        if !marked && !touched.made && (touched.exclusive || self.flushed.contains(&touched.oid)) {
            return Err(CaptureError::Uncapturable(format!(
                "rows of {shown} were changed by the statement that also locked it against every reader"
            )));
        }
        let number = self.number(table.clone());
        let (before, after) = if marked {
            self.flushed.insert(touched.oid);
            self.marks.rows(sessions.a, &mut self.writer, touched.oid, &table, number, top)?
        } else {
            let goes = !touched.made && (counts.updates > 0 || counts.deletes > 0);
            let comes = counts.inserts > 0 || counts.updates > 0;
            let theirs = self.place_in(sessions.b, touched)?;
            let by_key = self.rows_by_key(sessions, (touched, &theirs), &table, number, counts, top)?;
            #[cfg(test)]
            (self.by_key.enough[usize::from(by_key.is_none())] += 1);
            if by_key.is_none()
                && comes
                && !touched.made
                && has_namesakes(sessions.b, &theirs, top, None).map_err(reading(&shown))?
            {
                return Err(CaptureError::Uncapturable(format!(
                    "{shown} holds rows of an old transaction that had the number of this one; deploy once more"
                )));
            }
            if !touched.made {
                self.flushed.insert(touched.oid);
            }
            if let Some(both) = by_key {
                both
            } else if goes {
                self.readable(sessions.a, touched)?;
                lock(sessions.a, touched)?;
                self.changed_rows(sessions, (touched, &theirs), &table, number, comes.then_some(top))?
            } else if comes {
                (self.nothing()?, self.after(sessions.a, &table, number, &own_rows("x", top))?)
            } else {
                (self.nothing()?, self.nothing()?)
            }
        };
        self.index.rows += before.records.max(after.records);
        if before.records + after.records > 0 {
            let since = self.last_written.of(touched.oid, touched.counts).filter(|_| !touched.made && !marked);
            self.index.add_rows(Event::Rows { table: number, before, after }, since);
        }
        self.statements_start = self.writer.boundary()?;
        Ok(())
    }

    /// An error where B would wait for A's own lock to read the rows.
    pub(super) fn readable(&self, a: &mut Session, touched: &Touched) -> Result<(), CaptureError> {
        let schema_changed = self.index.changes() > 0;
        let shown = touched.shown();
        match if schema_changed { altered_type(a, touched.oid).map_err(reading(&shown))? } else { None } {
            None => Ok(()),
            Some(kind) => Err(CaptureError::TwoSteps(format!(
                "{shown} holds values of type {kind}, which this step altered: its rows as they were cannot be read meanwhile"
            ))),
        }
    }

    fn number(&mut self, table: Table) -> u32 {
        let at = self.index.tables.iter().position(|known| *known == table).unwrap_or_else(|| {
            self.index.tables.push(table);
            self.index.tables.len() - 1
        });
        at as u32
    }

    pub(super) fn nothing(&mut self) -> Result<Span, CaptureError> {
        let at = self.writer.boundary()?;
        Ok(Span { start: at, end: at, records: 0 })
    }

    /// Rows as they were: those that B sees and A, in the same snapshot, no longer does. Where A made some in its
    /// transaction `top`, these, too: A reads them while B is busy. `theirs`: see [`Capture::place_in`].
    fn changed_rows(
        &mut self,
        sessions: &mut Sessions<'_>,
        (touched, theirs): (&Touched, &str),
        table: &Table,
        number: u32,
        top: Option<&str>,
    ) -> Result<(Span, Span), CaptureError> {
        let shown = touched.shown();
        let Sessions { a, b } = sessions;
        let snapshot = Seen::declare(a, &format!("ONLY {}", table::quoted(table))).map_err(reading(&shown))?;
        let (candidates, after) = std::thread::scope(|scope| {
            let b = scope.spawn(|| candidates(b, &snapshot, (touched.oid, theirs), table, None));
            let after = match top {
                Some(top) => self.after(a, table, number, &own_rows("x", top)),
                None => self.nothing(),
            };
            (b.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), after)
        });
        let mut candidates = candidates.map_err(|error| error.of_rows(&shown))?;
        let after = after?;
        // B has to be through before A looks: a row that is locked in between must not pass for A's.
        let mut seen = Seen::at(a, candidates.places.as_deref()).map_err(reading(&shown))?;
        let start = self.writer.boundary()?;
        let mut records = 0;
        let mut line = Vec::new();
        let mut last = None;
        while read_line(&mut candidates.lines, &mut line)? {
            let (place, image) = placed(&line).ok_or_else(|| odd(&shown))?;
            if last.is_some_and(|last| last >= place.0) {
                return Err(odd(&shown));
            }
            last = Some(place.0);
            if !seen.has(a, place).map_err(reading(&shown))? {
                self.writer.row(Side::Before, number, image)?;
                records += 1;
            }
        }
        seen.close(a).map_err(reading(&shown))?;
        Ok((Span { start, end: self.writer.boundary()?, records }, after))
    }

    /// Rows as A left them: those that a transaction in progress made and A sees, as `own` tells of a row `x`.
    pub(super) fn after(
        &mut self,
        a: &mut Session,
        table: &Table,
        number: u32,
        own: &str,
    ) -> Result<Span, CaptureError> {
        let columns = table::list(table, "x");
        let sql = format!("COPY (SELECT {columns} FROM ONLY {} AS x WHERE {own}) TO STDOUT", table::quoted(table));
        let shown = format!("{}.{}", table.schema, table.name);
        let start = self.writer.boundary()?;
        let mut records = 0;
        let mut lines = a.client.copy_out(&sql).map_err(reading(&shown))?;
        let mut line = Vec::new();
        while read_line(&mut lines, &mut line)? {
            self.writer.row(Side::After, number, &line)?;
            records += 1;
        }
        Ok(Span { start, end: self.writer.boundary()?, records })
    }

    /// The tables and events so far, for what is to be added to the index.
    pub fn index(&mut self) -> &mut Index {
        &mut self.index
    }

    /// Gives up what was marked in A's tables, where nothing more is to be captured: it is in the way of their change.
    pub fn let_go(&mut self, a: &mut Session) -> Result<(), CaptureError> {
        self.marks.close(a).map_err(reading("what was marked"))
    }

    /// Ends the stream, but for its index.
    pub fn unsealed(mut self) -> Result<Unsealed, CaptureError> {
        self.close_statements()?;
        Ok(Unsealed { writer: self.writer, index: self.index })
    }
}
