//! What a command did, found by comparing the database with the copy of before, and written as the images of a step like
//! any other: objects that went and came, and rows. So its undo, redo, conflicts and descriptions are those of scripts.
//!
//! The changes themselves are on the site already; what this transaction adds is the marker, and the tool's own tables
//! that keep what went. Never changes a row of the user's.

use std::path::Path;

use backout_model::conflict::Conflicts;
use backout_model::fault::{self, Point};
use backout_model::target::{Gate, Refusal, Report, TargetError};
use rusqlite::Connection;

use super::capture::{CaptureError, read_table};
use super::classify::is_ours;
use super::compared_rows::{Sink, compare};
use super::compared_schema::{self, Unit};
use super::ddl_event::{DdlEvent, Kind};
use super::ddl_hold::in_main;
use super::ddl_side::{self, SEQUENCE};
use super::numbering::{Numbered, Numbering};
use super::schema::{self, SchemaRow};
use super::split::Statement;
use super::stream::{Event, Index, Table};
use super::token::quote;
use super::writer::Writer;
use super::{Sqlite, ailing, apply, copying, counters, ddl, ddl_hold, foreign, limits, marker, snapshot};
use crate::shown::shorten;

/// The copy, as statements name it.
const BEFORE: &str = "backout_before";
/// An empty database, in which virtual tables are made to see how they begin.
const FRESH: &str = "backout_fresh";

impl Sqlite {
    /// See [`backout_model::target::Target::compare`].
    pub(super) fn compare_with(
        &mut self,
        directory: &Path,
        shown: &str,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        // The command may have put another file in the place of the one that is open.
        self.reconnect()?;
        let reading = |source| TargetError::failed(format!("cannot read the copy of {} of before", self.label), source);
        let before = snapshot::open(directory).map_err(reading)?;
        let path = snapshot::copy_in(directory);
        let attached = self
            .conn
            .execute(&format!("ATTACH ?1 AS {BEFORE}"), [path.to_string_lossy()])
            .and_then(|_| self.conn.execute_batch(&format!("ATTACH ':memory:' AS {FRESH}")));
        attached.map_err(reading)?;
        let done = Comparison::begin(self, &before, &path, shown, gate).and_then(|comparison| comparison.run(gate));
        let rolled = super::roll_back(&self.conn, &self.label);
        // Nothing attached and no setting stays.
        self.reconnect()?;
        rolled?;
        done
    }
}

/// One comparison under way, in a transaction of its own.
pub(super) struct Comparison<'a> {
    database: &'a Sqlite,
    pub(super) conn: &'a Connection,
    label: &'a str,
    /// The copy by a connection of its own, on which it is `main`.
    pub(super) before: &'a Connection,
    path: &'a Path,
    writer: Writer,
    tables: Vec<Table>,
    events: Vec<Event>,
    span_start: u64,
    span_rows: u64,
    /// Tables to which an undo brings old rows back.
    returns: Vec<String>,
    index: Index,
    found: Numbering,
    numbering: Numbering,
    next_hold: u64,
    notes: Vec<String>,
}

impl<'a> Comparison<'a> {
    fn begin(
        database: &'a Sqlite,
        before: &'a Connection,
        path: &'a Path,
        shown: &str,
        gate: &mut dyn Gate,
    ) -> Result<Self, TargetError> {
        let (conn, label) = (&database.conn, database.label.as_str());
        let writing = |source| TargetError::failed(format!("cannot write what changed in {label}"), source);
        let writer = Writer::new(gate.images()).map_err(writing)?;
        super::begin(conn, label)?;
        put_own_back(database, before)?;
        marker::holds(conn, &database.marker, label, database.epoch)?;
        limits::readable(conn, label, shown)?;
        let reading = |source| TargetError::failed(format!("cannot read {label}"), source);
        ddl_side::forget_our_own(conn).map_err(reading)?;
        let found = Numbering::read(before, &database.marker, label)?;
        let index = Index {
            shown: shown.to_owned(),
            before: counters::read(before, label)?,
            sick_before: ailing::sick_anywhere(before).map_err(reading)?,
            ..Index::default()
        };
        Ok(Self {
            database,
            conn,
            label,
            before,
            path,
            span_start: writer.bytes(),
            writer,
            tables: Vec::new(),
            events: Vec::new(),
            span_rows: 0,
            returns: Vec::new(),
            index,
            numbering: found.clone(),
            found,
            next_hold: ddl_hold::next_hold(conn, &database.prefix, label)?,
            notes: Vec::new(),
        })
    }

    fn run(mut self, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        let differences = compared_schema::compare(self.before, self.conn).map_err(|source| self.reading(source))?;
        let mut read = 0;
        let mut progress = |rows: u64| {
            read += rows;
            gate.progress(read, None);
        };
        let mut made = differences.made;
        for (unit, rows) in &differences.gone {
            let is_other =
                |other: &Unit| other.is_table() && !other.is_virtual() && other.object.name == unit.object.name;
            let at = made.iter().position(|(other, _)| unit.is_table() && !unit.is_virtual() && is_other(other));
            let again = at.map(|at| (at, made[at].clone()));
            match again {
                Some((at, (new, new_rows)))
                    if self.rebuilt((unit, rows.as_slice()), (&new, new_rows.as_slice()), &mut progress)? =>
                {
                    made.remove(at);
                }
                _ => self.gone(unit, rows, &mut progress)?,
            }
        }
        for (unit, rows) in &made {
            self.made(unit, rows)?;
        }
        self.statistics()?;
        for name in &differences.same {
            self.rows(name, Some(BEFORE), Some("main"), &mut progress)?;
        }
        for (unit, _) in &made {
            for table in unit.tables() {
                let before = if unit.is_virtual() { self.fresh(unit)? } else { None };
                self.rows(&table.name, before, Some("main"), &mut progress)?;
            }
        }
        for name in &differences.moved {
            self.notes
                .push(format!("{}: the command gave {name} another place in the schema, which it keeps", self.label));
        }
        self.settings()?;
        self.finish(gate)
    }

    pub(super) fn reading(&self, source: rusqlite::Error) -> TargetError {
        TargetError::failed(format!("cannot compare {} with what it was", self.label), source)
    }

    fn uncaptured(&self, source: CaptureError) -> TargetError {
        if let CaptureError::Table(why) = source {
            return TargetError::Refused(Refusal {
                place: self.index.shown.clone(),
                what: format!("what it did to {}", self.label),
                why,
                ways_out: vec!["give the step an undo of its own: `undo: [a command]`".to_owned()],
            });
        }
        TargetError::failed(format!("cannot compare {} with what it was", self.label), source)
    }

    /// An object that the command dropped, or made anew.
    pub(super) fn gone(
        &mut self,
        unit: &Unit,
        rows: &[SchemaRow],
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), TargetError> {
        let object = &unit.object;
        let kind = if unit.is_virtual() { "table" } else { object.kind.as_str() };
        let statement = Statement { line: 0, sql: format!("DROP {} {}", kind.to_uppercase(), quote(&object.name)) };
        let mut event = DdlEvent::new(&statement, Kind::Drop, object.shown());
        event.gone = rows.to_vec();
        if let Some(raw) = rows.iter().find(|row| row.is_raw) {
            return Err(ddl::refused(&statement, format!("the definition of {} is no UTF-8", raw.shown())));
        }
        let aside = |source| TargetError::failed(format!("cannot read what {} was", object.shown()), source);
        match object.kind.as_str() {
            "index" => event.side_before = ddl_side::of_index(self.before, &object.name).map_err(aside)?,
            "table" => {
                if !unit.is_virtual() && !ddl_hold::is_understood(rows) {
                    return Err(ddl_hold::not_understood(&statement));
                }
                let tables = unit.tables().map(|table| ddl_side::of_table(self.before, &table.name));
                let side: Vec<_> = tables.collect::<Result<_, _>>().map_err(aside)?;
                event.side_before = side.into_iter().flatten().collect();
                event.side_before.sort_by(|one, other| (&one.table, one.rowid).cmp(&(&other.table, other.rowid)));
                self.hold(unit, rows, &statement, &mut event, progress)?;
            }
            _ => {}
        }
        self.note(&statement, event)
    }

    /// Keeps the rows of a table that went: few among the images, many in a table of the tool's own.
    fn hold(
        &mut self,
        unit: &Unit,
        rows: &[SchemaRow],
        statement: &Statement,
        event: &mut DdlEvent,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), TargetError> {
        let reading =
            |source| TargetError::failed(format!("cannot read the rows of {} of before", unit.object.shown()), source);
        for table in unit.tables() {
            let count: i64 = self
                .before
                .query_row(&format!("SELECT count(*) FROM main.{}", quote(&table.name)), [], |row| row.get(0))
                .map_err(reading)?;
            if count == 0 {
                continue;
            }
            if !unit.is_virtual() {
                event.digest = Some(copying::digest(self.before, &table.name).map_err(reading)?);
                let before = self.before;
                if self.with_context(before, |context| ddl_hold::empties_first(context, table)).map_err(reading)? {
                    // In a span of their own: a redo deletes what is there then.
                    self.close_span()?;
                    self.rows(&table.name, Some(BEFORE), None, progress)?;
                    event.emptied = true;
                    continue;
                }
            }
            let own: Vec<SchemaRow> =
                rows.iter().filter(|row| row.table == table.name && row.kind != "trigger").cloned().collect();
            let conn = self.conn;
            let held = self.with_context(conn, |context| ddl_hold::hold_copy(context, &own, BEFORE, statement))?;
            event.rows_held = Some(event.rows_held() + count.unsigned_abs());
            match &mut event.hold {
                Some(hold) => {
                    hold.more.push(held.table);
                    hold.objects.extend(held.objects);
                }
                None => event.hold = Some(held),
            }
        }
        Ok(())
    }

    fn with_context<T>(&mut self, conn: &Connection, work: impl FnOnce(&mut ddl::Context<'_>) -> T) -> T {
        work(&mut ddl::Context {
            conn,
            prefix: &self.database.prefix,
            target: self.label,
            foreign_keys: false,
            next_hold: &mut self.next_hold,
            already: Conflicts::default(),
            needed: Conflicts::default(),
            stays: false,
        })
    }

    /// An object that the command made.
    fn made(&mut self, unit: &Unit, rows: &[SchemaRow]) -> Result<(), TargetError> {
        let object = &unit.object;
        let statement = Statement { line: 0, sql: object.sql.clone().unwrap_or_default() };
        if let Some(raw) = rows.iter().find(|row| row.is_raw) {
            return Err(ddl::refused(&statement, format!("the definition of {} is no UTF-8", raw.shown())));
        }
        let mut event = DdlEvent::new(&statement, Kind::Create, object.shown());
        event.found = true;
        let (first, parts): (Vec<SchemaRow>, Vec<SchemaRow>) =
            rows.iter().cloned().partition(|row| row.kind == object.kind && row.name == object.name);
        event.made = first.into_iter().chain(parts).collect();
        event.made.extend(self.counters_brought_by(object)?);
        self.note(&statement, event)
    }

    /// `sqlite_sequence`, with the first table that counts where there was none before.
    pub(super) fn counters_brought_by(&self, object: &SchemaRow) -> Result<Option<SchemaRow>, TargetError> {
        let counts = object.kind == "table"
            && object.sql.as_deref().is_some_and(|sql| sql.to_ascii_uppercase().contains("AUTOINCREMENT"));
        let has_it = |event: &DdlEvent| event.made.iter().any(|row| row.name == SEQUENCE);
        if !counts || self.events.iter().filter_map(Event::ddl).any(has_it) {
            return Ok(None);
        }
        let sequence = |conn| schema::object(conn, "table", SEQUENCE).map_err(|source| self.reading(source));
        if sequence(self.before)?.is_some() { Ok(None) } else { sequence(self.conn) }
    }

    /// Notes a change of the schema.
    pub(super) fn note(&mut self, statement: &Statement, event: DdlEvent) -> Result<(), TargetError> {
        self.close_span()?;
        self.numbering.renew(&event.renumbers());
        if let Some(table) = event.returns() {
            self.returns.push(table.to_owned());
        }
        self.index.statements += 1;
        self.events.push(Event::Ddl { line: statement.line, sql: statement.sql.clone(), event: Box::new(event) });
        Ok(())
    }

    /// The statistics of ANALYZE, as far as they did not go with their tables.
    fn statistics(&mut self) -> Result<(), TargetError> {
        let reading = |source| TargetError::failed(format!("cannot read the statistics of {}", self.label), source);
        let went: Vec<&ddl_side::SideRow> =
            self.events.iter().filter_map(Event::ddl).flat_map(|event| &event.side_before).collect();
        let all = ddl_side::all_statistics(self.before).map_err(reading)?;
        let before: Vec<_> = all.into_iter().filter(|row| !went.contains(&row)).collect();
        let after = ddl_side::all_statistics(self.conn).map_err(reading)?;
        let tables = |conn| ddl_side::statistics_tables(conn).map_err(reading);
        let (tables_before, tables_after) = (tables(self.before)?, tables(self.conn)?);

        let (made, lost) =
            (ddl_side::without(&tables_after, &tables_before), ddl_side::without(&tables_before, &tables_after));
        if before == after && made.is_empty() && lost.is_empty() {
            return Ok(());
        }
        let statement = Statement { line: 0, sql: "ANALYZE".to_owned() };
        let mut event = DdlEvent::new(&statement, Kind::Analyze, "statistics".into());
        event.found = true;
        (event.side_before, event.side_after, event.made, event.gone) = (before, after, made, lost);
        self.note(&statement, event)
    }

    /// Makes a virtual table in an empty database, whose tables then hold what each begins with.
    fn fresh(&self, unit: &Unit) -> Result<Option<&'static str>, TargetError> {
        let there: bool = self
            .conn
            .query_row(
                &format!("SELECT EXISTS (SELECT 1 FROM {FRESH}.sqlite_schema WHERE name = ?1)"),
                [&unit.object.name],
                |row| row.get(0),
            )
            .map_err(|source| self.reading(source))?;
        if !there {
            const START: &str = "CREATE VIRTUAL TABLE ";
            let sql = unit.object.sql.as_deref().unwrap_or_default();
            let rest = sql.get(START.len()..).unwrap_or_default();
            ddl::execute(self.conn, &format!("{START}{FRESH}.{rest}")).map_err(|source| self.reading(source))?;
        }
        Ok(Some(FRESH))
    }

    /// The rows of one table that differ between two databases; none stands for no rows.
    fn rows(
        &mut self,
        name: &str,
        before: Option<&str>,
        after: Option<&str>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), TargetError> {
        self.rows_as(name, name, before, after, progress)
    }

    /// The same under another name.
    pub(super) fn rows_as(
        &mut self,
        name: &str,
        shown: &str,
        before: Option<&str>,
        after: Option<&str>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), TargetError> {
        fault::point(Point::Statement)
            .map_err(|source| TargetError::failed(format!("cannot compare {name} in {}", self.label), source))?;
        let known_by = if after.is_some() { self.conn } else { self.before };
        let (table, _) = read_table(known_by, name).map_err(|source| self.uncaptured(source))?;
        let number = u32::try_from(self.tables.len()).unwrap_or(u32::MAX);
        let mut sink = Sink::new(&mut self.writer, number, progress);
        let compared = compare(self.conn, &table, before, after, &mut sink);
        let found = sink.found;
        compared.map_err(|source| self.uncaptured(source))?;
        if found.all() == 0 {
            return Ok(());
        }
        if found.updated + found.deleted > 0 && !self.returns.iter().any(|known| known == shown) {
            self.returns.push(shown.to_owned());
        }
        self.tables.push(Table { name: shown.to_owned(), ..table });
        self.span_rows += found.all();
        self.index.rows += found.all();
        self.index.statements += 1;
        let writing = |source| TargetError::failed(format!("cannot write what changed in {}", self.label), source);
        self.writer.statement(0, &format!("rows of {shown}"), found.all(), false).map_err(writing)
    }

    fn close_span(&mut self) -> Result<(), TargetError> {
        let end = self
            .writer
            .boundary()
            .map_err(|source| TargetError::failed(format!("cannot write what changed in {}", self.label), source))?;
        if end > self.span_start {
            self.events.push(Event::Rows { start: self.span_start, end, rows: self.span_rows });
        }
        (self.span_start, self.span_rows) = (end, 0);
        Ok(())
    }

    /// Settings of the file that no undo puts back.
    fn settings(&mut self) -> Result<(), TargetError> {
        for name in ["auto_vacuum", "page_size"] {
            let read = |conn: &Connection| {
                conn.query_row(&format!("PRAGMA main.{name}"), [], |row| row.get::<_, i64>(0))
                    .map_err(|source| self.reading(source))
            };
            let (before, after) = (read(self.before)?, read(self.conn)?);
            if before != after {
                self.notes.push(format!(
                    "{}: the command changed {name} of the file from {before} to {after}, which no undo takes back",
                    self.label
                ));
            }
        }
        Ok(())
    }

    fn finish(mut self, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.close_span()?;
        let (conn, label) = (self.conn, self.label);
        let mut index = self.index;
        index.after = counters::read(conn, label)?;
        index.tables = self.tables;
        index.events = self.events;
        index.numbered = Numbered::between(&self.found, &self.numbering);
        index.numbered.keep_only(&index.tables, &index.events);
        let returns: Vec<&str> = self.returns.iter().map(String::as_str).collect();
        index.dangling = foreign::before_step(conn, self.path, &returns);
        apply::look_at_the_end(conn, &mut index)
            .map_err(|source| TargetError::failed(format!("cannot read the schema of {label}"), source))?;
        let bytes = self
            .writer
            .finish(&index)
            .map_err(|source| TargetError::failed(format!("cannot write what changed in {label}"), source))?;
        let summary = apply::summed(conn, label, &index, bytes)?;
        let numbering = self.numbering.text(conn, label, true)?;
        super::seal(conn, &self.database.marker, label, &numbering, &summary, gate)?;
        Ok(Report { summary, notes: self.notes, ..Report::default() })
    }
}

/// Puts back what the tool itself kept in the database, where the command took it away with everything else.
fn put_own_back(database: &Sqlite, before: &Connection) -> Result<(), TargetError> {
    let conn = &database.conn;
    let act = || format!("cannot put the tool's own tables back into {}", database.label);
    let failed = |source: rusqlite::Error| TargetError::failed(act(), source);
    let own: Vec<SchemaRow> =
        schema::all(before).map_err(failed)?.into_iter().filter(|row| is_ours(&row.table)).collect();
    for table in own.iter().filter(|row| row.kind == "table") {
        match schema::object(conn, "table", &table.name).map_err(failed)? {
            Some(now) if now.is_same(table) => continue,
            Some(now) => {
                let sql = now.sql.as_deref().map(shorten).unwrap_or_default();
                return Err(TargetError::failed(act(), format!("{} is another one now: {sql}", table.shown())));
            }
            None => {}
        }
        for sql in own.iter().filter(|row| row.table == table.name).filter_map(|row| row.sql.as_deref()) {
            ddl::execute(conn, &in_main(sql)).map_err(failed)?;
        }
        let shape = schema::shape(conn, &table.name).map_err(failed)?;
        let columns = ddl_hold::columns(&shape).join(", ");
        let name = quote(&table.name);
        ddl::execute(conn, &format!("INSERT INTO main.{name} ({columns}) SELECT {columns} FROM {BEFORE}.{name}"))
            .map_err(failed)?;
    }
    Ok(())
}
