//! Writes a script for `psql` that takes back steps, in one transaction that stops at the first thing that is not as the
//! steps left it. What only the tool can take back is said instead. Changes nothing.
//!
//! For each table that a step changed the script brings along what its rows were and what the step left, compares whole
//! values as text, and takes back by set: rows that came are deleted, rows that changed get the columns that differ, rows
//! that went come back. Columns that only others changed keep their values. Changes of the schema: see [`super::script_ddl`].

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write;

use backout_model::target::{Images, TargetError};

use super::catalog::users_trigger;
use super::load::made_and_dropped;
use super::script_ddl::{self, STOPS, Writing};
use super::session::{ident, literal};
use super::stream::{Event, Reader, Span, Table};
use super::table::{bracketed, list, quoted, shown};
use super::undo::Halt;
use super::{Postgres, Session, refreshed};

impl Postgres {
    pub(super) fn script_of_undo(
        &mut self,
        steps: &mut dyn Iterator<Item = Box<dyn Images>>,
        out: &mut dyn Write,
    ) -> Result<Vec<String>, TargetError> {
        let mut steps: Vec<Box<dyn Images>> = steps.collect();
        let (mut not, mut back) = (Vec::new(), Vec::new());
        // Between two changes of the schema, the last ones first.
        let mut silenced = vec![BTreeSet::new()];
        for images in &mut steps {
            let reader = Reader::open(&mut **images).map_err(|source| self.damaged(source))?;
            for event in reader.index.events.iter().rev() {
                match event {
                    // One that the steps made has nothing of others that would act.
                    Event::Rows { table, .. } if !reader.index.tables[*table as usize].made => {
                        let name = quoted(&reader.index.tables[*table as usize]);
                        silenced.last_mut().map(|tables| tables.insert(name));
                    }
                    Event::Ddl { event, .. } => {
                        back.extend(event.points_that_come_back());
                        not.extend(script_ddl::not_in_script(event));
                        silenced.push(BTreeSet::new());
                    }
                    Event::Rows { .. } | Event::Statements { .. } => {}
                }
            }
        }
        if !not.is_empty() {
            return Ok(not);
        }
        let label = self.label.clone();
        let mut points = self.points().map_err(|source| {
            TargetError::failed(format!("cannot read the foreign keys of {label} for the script"), source)
        })?;
        points.append(&mut back);
        let writing = |source| TargetError::failed(format!("cannot write the script for {label}"), source);
        let mut last = String::new();
        let mut silenced = silenced.into_iter();
        let mut silent = silenced.next().unwrap_or_default();
        begin(out).and_then(|()| silence(&silent, out)).map_err(writing)?;
        for images in &mut steps {
            let mut reader = Reader::open(&mut **images).map_err(|source| self.damaged(source))?;
            writeln!(out, "\n-- {}", reader.index.shown.replace(['\n', '\r'], " ")).map_err(writing)?;
            let mut group = Vec::new();
            let events: Vec<Event> = reader.index.events.iter().rev().cloned().collect();
            let made = made(&events);
            for (at, event) in events.iter().enumerate() {
                match event {
                    Event::Rows { table, before, after } if before.records > 0 || after.records > 0 => {
                        group.push((reader.index.tables[*table as usize].clone(), *before, *after));
                    }
                    Event::Ddl { event, .. } => {
                        self.group(&mut reader, std::mem::take(&mut group), &points, out)?;
                        unsilence(&silent, out).map_err(writing)?;
                        let passing = made_and_dropped(event, &events[..at]);
                        let version = self.b.version;
                        let mut ddl =
                            Writing { client: &mut self.b.client, version, passing, made: &made, label: &label };
                        ddl.write(event, &mut |block, out| kept(&mut reader, &label, block, out), out)?;
                        silent = silenced.next().unwrap_or_default();
                        silence(&silent, out).map_err(writing)?;
                    }
                    Event::Rows { .. } | Event::Statements { .. } => {}
                }
            }
            self.group(&mut reader, group, &points, out)?;
            for one in refreshed::of_step(&reader.index.events) {
                writeln!(out, "REFRESH MATERIALIZED VIEW {};", one.view).map_err(writing)?;
            }
            sequences(&mut last, &reader);
        }
        unsilence(&silent, out).and_then(|()| writeln!(out, "{last}COMMIT;")).map_err(writing)?;
        Ok(not)
    }

    /// Which table points at which by a foreign key, by their names in quotes.
    pub(super) fn points(&mut self) -> Result<Vec<(String, String)>, postgres::Error> {
        let rows = self.b.rows(
            "SELECT cn.nspname, c.relname, pn.nspname, p.relname FROM pg_catalog.pg_constraint k
             JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
             JOIN pg_catalog.pg_class p ON p.oid = k.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
             WHERE k.contype = 'f'",
        )?;
        let name = |row: &[Option<String>], at: usize| {
            let part = |at: usize| ident(row[at].as_deref().unwrap_or_default());
            format!("{}.{}", part(at), part(at + 1))
        };
        Ok(rows.iter().map(|row| (name(row, 0), name(row, 2))).collect())
    }

    /// The rows of several tables, which may point at each other: what points goes first and comes back last.
    fn group(
        &self,
        reader: &mut Reader<'_>,
        mut group: Vec<(Table, Span, Span)>,
        points: &[(String, String)],
        out: &mut dyn Write,
    ) -> Result<(), TargetError> {
        let writing = |source| TargetError::failed(format!("cannot write the script for {}", self.label), source);
        parents_first(&mut group, points);
        for (at, (table, before, after)) in group.iter().enumerate() {
            for (name, span) in [(format!("backout_before_{at}"), *before), (format!("backout_after_{at}"), *after)] {
                // Of the types that they had: a cast would round without a word.
                let columns = table.columns.iter().map(|column| format!("{} {}", ident(&column.name), column.kind));
                let columns: Vec<String> = columns.collect();
                let made = format!(
                    "CREATE TEMP TABLE {name} ({}) ON COMMIT DROP;\nCOPY {name} {} FROM stdin;",
                    columns.join(", "),
                    bracketed(table)
                );
                writeln!(out, "{made}").map_err(writing)?;
                let copied = reader.rows(span, &mut |line| lines(line, out).map_err(Halt::Error));
                copied.map_err(|halt| self.halted(halt))?;
                writeln!(out, "\\.").map_err(writing)?;
            }
        }
        for (table, ..) in &group {
            writeln!(out, "{}", same_types(table)).map_err(writing)?;
        }
        let rows: Vec<Rows<'_>> = group.iter().enumerate().map(|(at, (table, ..))| Rows::new(table, at)).collect();
        for one in rows.iter().rev() {
            out.write_all(one.away().as_bytes()).map_err(writing)?;
        }
        for one in &rows {
            out.write_all(one.back().as_bytes()).map_err(writing)?;
            let at = one.at;
            writeln!(out, "DROP TABLE backout_before_{at}, backout_after_{at};").map_err(writing)?;
        }
        Ok(())
    }
}

/// The tables that a step made.
fn made(events: &[Event]) -> BTreeSet<String> {
    let changes =
        events.iter().filter_map(|event| if let Event::Ddl { event, .. } = event { Some(event) } else { None });
    changes.flat_map(|event| event.made()).map(str::to_owned).collect()
}

/// Stops where a column has another type than the rows were captured with.
fn same_types(table: &Table) -> String {
    let columns = table.columns.iter().map(|column| format!("({}, {})", literal(&column.name), literal(&column.kind)));
    let columns: Vec<String> = columns.collect();
    format!(
        "DO $backout$ BEGIN IF EXISTS (SELECT FROM (VALUES {}) AS c (name, kind) WHERE NOT EXISTS (SELECT FROM pg_attribute a
    WHERE a.attrelid = {}::regclass AND a.attname = c.name AND NOT a.attisdropped AND format_type(a.atttypid, a.atttypmod) = c.kind))
  THEN {STOPS}{}; END IF; END $backout$;",
        columns.join(", "),
        literal(&quoted(table)),
        literal(&format!("table {}", shown(table)))
    )
}

/// Orders tables so that one that others point at comes before them, as far as they don't go round in a circle.
fn parents_first(group: &mut Vec<(Table, Span, Span)>, points: &[(String, String)]) {
    let mut left = std::mem::take(group);
    while !left.is_empty() {
        let waits = |at: usize| {
            let child = quoted(&left[at].0);
            left.iter().enumerate().any(|(other, (parent, ..))| {
                other != at && points.iter().any(|(c, p)| *c == child && *p == quoted(parent) && c != p)
            })
        };
        let next = (0..left.len()).find(|at| !waits(*at)).unwrap_or(0);
        group.push(left.remove(next));
    }
}

/// Settings under which rows and definitions were read.
fn begin(out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "\\set ON_ERROR_STOP on\n\\encoding UTF8\nBEGIN;")?;
    for (name, value) in Session::of_scripts() {
        writeln!(out, "SET LOCAL {name} = {};", literal(value))?;
    }
    writeln!(
        out,
        "SET LOCAL check_function_bodies = off;
SET LOCAL client_min_messages = warning;
CREATE TEMP TABLE backout_triggers (tab regclass, name name, how \"char\") ON COMMIT DROP;"
    )
}

/// Puts away what of others would act while rows of these tables go back.
fn silence(tables: &BTreeSet<String>, out: &mut dyn Write) -> std::io::Result<()> {
    if tables.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = tables.iter().map(|table| format!("{}::regclass", literal(table))).collect();
    let names = names.join(", ");
    writeln!(
        out,
        "INSERT INTO pg_temp.backout_triggers SELECT tgrelid, tgname, tgenabled FROM pg_trigger
    WHERE {users} AND tgenabled <> 'D' AND tgrelid IN ({names});
DO $backout$ DECLARE t record; BEGIN
  IF EXISTS (SELECT 1 FROM pg_rewrite WHERE ev_class IN ({names}) AND rulename <> '_RETURN') THEN
    RAISE EXCEPTION 'a rule acts on a table of the deployment: nothing was changed';
  END IF;
  FOR t IN SELECT * FROM pg_temp.backout_triggers LOOP
    EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', t.tab, t.name);
  END LOOP;
END $backout$;",
        users = users_trigger("pg_trigger")
    )
}

/// Ends that; what waits to be checked has to be before a table can be altered.
fn unsilence(tables: &BTreeSet<String>, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "\nSET CONSTRAINTS ALL IMMEDIATE;\nSET CONSTRAINTS ALL DEFERRED;")?;
    if tables.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "DO $backout$ DECLARE t record; BEGIN
  FOR t IN SELECT * FROM pg_temp.backout_triggers LOOP
    EXECUTE format('ALTER TABLE %s ENABLE %s TRIGGER %I', t.tab,
      CASE t.how WHEN 'A' THEN 'ALWAYS' WHEN 'R' THEN 'REPLICA' ELSE '' END, t.name);
  END LOOP;
  DELETE FROM pg_temp.backout_triggers;
END $backout$;"
    )
}

/// The rows of a block that a change of the schema kept.
fn kept(reader: &mut Reader<'_>, label: &str, block: u64, out: &mut dyn Write) -> Result<(), TargetError> {
    let damaged = |what: String| TargetError::Images { target: label.to_owned(), what };
    let span = usize::try_from(block).ok().and_then(|block| reader.index.kept.get(block).copied());
    let span = span.ok_or_else(|| damaged("kept rows are missing".to_owned()))?;
    let written = reader.rows(span, &mut |line| -> Result<(), Halt> { lines(line, out).map_err(Halt::Error) });
    written.map_err(|halt| match halt {
        Halt::Error(error) => error,
        Halt::Stream(source) => damaged(source.to_string()),
    })
}

fn lines(line: &[u8], out: &mut dyn Write) -> Result<(), TargetError> {
    let written = out.write_all(line).and_then(|()| out.write_all(b"\n"));
    written.map_err(|source| TargetError::failed("cannot write the script", source))
}

/// The same text: so every type can be compared, and to the last bit of it.
fn same(column: &str, one: &str, other: &str) -> String {
    format!("{one}.{column}::text IS NOT DISTINCT FROM {other}.{column}::text")
}

/// What a script does with the rows of one table.
struct Rows<'t> {
    table: &'t Table,
    at: usize,
    name: String,
    columns: Vec<String>,
}

impl<'t> Rows<'t> {
    fn new(table: &'t Table, at: usize) -> Self {
        let columns = table.columns.iter().map(|column| ident(&column.name)).collect();
        Self { table, at, name: quoted(table), columns }
    }

    fn before(&self) -> String {
        format!("pg_temp.backout_before_{}", self.at)
    }

    fn after(&self) -> String {
        format!("pg_temp.backout_after_{}", self.at)
    }

    /// `one` and `other` are the same row, by the table's key.
    fn keyed(&self, one: &str, other: &str) -> String {
        let parts = self.table.key.iter().map(|key| {
            let column = &self.columns[key.column];
            format!("{one}.{column} {} {other}.{column}", key.equals)
        });
        parts.collect::<Vec<_>>().join(" AND ")
    }

    /// Rows that the step left and that were not there before.
    fn came(&self) -> String {
        format!("NOT EXISTS (SELECT 1 FROM {} b WHERE {})", self.before(), self.keyed("a", "b"))
    }

    /// A change, and the stop where it met other than so many rows.
    fn part(&self, act: &str, wanted: &str) -> String {
        format!(
            "DO $backout$ DECLARE found bigint; wanted bigint; BEGIN\n  {act};\n  GET DIAGNOSTICS found = ROW_COUNT;
  SELECT count(*) INTO wanted FROM {wanted};
  IF found <> wanted THEN {STOPS}{}; END IF;\nEND $backout$;\n",
            literal(&format!("a row of {}", shown(self.table)))
        )
    }

    /// Takes away what came.
    fn away(&self) -> String {
        if self.table.key.is_empty() {
            return self.away_by_content();
        }
        let all_same: Vec<String> = self.columns.iter().map(|column| same(column, "t", "a")).collect();
        let (name, after, came) = (&self.name, self.after(), self.came());
        let act = format!(
            "DELETE FROM ONLY {name} t USING {after} a WHERE {} AND {} AND {came}",
            self.keyed("t", "a"),
            all_same.join(" AND ")
        );
        // Rows that point at one that goes would go with it, or change: nobody asked for that.
        format!(
            "DO $backout$ DECLARE found bigint; f record; BEGIN
  FOR f IN SELECT c.conrelid::regclass AS child,
      (SELECT string_agg(format('c.%I = a.%I', k.attname, p.attname), ' AND ')
         FROM unnest(c.conkey, c.confkey) AS u(k, p)
         JOIN pg_attribute k ON k.attrelid = c.conrelid AND k.attnum = u.k
         JOIN pg_attribute p ON p.attrelid = c.confrelid AND p.attnum = u.p) AS points
      FROM pg_constraint c
      WHERE c.contype = 'f' AND c.confrelid = {relation}::regclass AND c.conrelid <> c.confrelid AND c.confdeltype IN ('c', 'n', 'd')
  LOOP
    EXECUTE format('SELECT count(*) FROM %s c JOIN {after} a ON %s WHERE {came_quoted}', f.child, f.points) INTO found;
    IF found > 0 THEN {STOPS}format('what %s points at', f.child); END IF;
  END LOOP;
END $backout$;
{delete}",
            relation = literal(name),
            came_quoted = came.replace('\'', "''").replace('%', "%%"),
            delete = self.part(&act, &format!("{after} a WHERE {came}")),
        )
    }

    /// Without a key a row is what it holds: as many as the step left must be there, and all of them go.
    fn away_by_content(&self) -> String {
        let row = |alias: &str| {
            let columns: Vec<String> = self.columns.iter().map(|column| format!("{alias}.{column}::text")).collect();
            format!("ROW({})::text", columns.join(", "))
        };
        let (name, after, t, a) = (&self.name, self.after(), row("t"), row("a"));
        let act = format!(
            "DELETE FROM ONLY {name} WHERE ctid IN (SELECT h.at FROM
      (SELECT t.ctid AS at, {t} AS held, row_number() OVER (PARTITION BY {t}) AS n FROM ONLY {name} t) h
      JOIN (SELECT {a} AS held, row_number() OVER (PARTITION BY {a}) AS n FROM {after} a) l USING (held, n))"
        );
        self.part(&act, &after)
    }

    /// Changes back what changed and brings what went.
    fn back(&self) -> String {
        let (name, before, after) = (&self.name, self.before(), self.after());
        let into = format!(
            "INSERT INTO {name} {} OVERRIDING SYSTEM VALUE SELECT {}",
            bracketed(self.table),
            list(self.table, "b")
        );
        if self.table.key.is_empty() {
            return format!("{into} FROM {before} b;\n");
        }
        let same_key = self.keyed("a", "b");
        // An identity that is always generated cannot be set, and is never changed but by a script's own means.
        let settable = self.table.columns.iter().zip(&self.columns).filter(|(column, _)| !column.always);
        let sets: Vec<String> = settable
            .map(|(_, column)| {
                format!("{column} = CASE WHEN {} THEN t.{column} ELSE b.{column} END", same(column, "a", "b"))
            })
            .collect();
        let unchanged: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("({} OR {})", same(column, "a", "b"), same(column, "t", "a")))
            .collect();
        let update = format!(
            "UPDATE ONLY {name} t SET {} FROM {after} a JOIN {before} b ON {same_key} WHERE {} AND {}",
            sets.join(", "),
            self.keyed("t", "a"),
            unchanged.join(" AND ")
        );
        let update = match sets.is_empty() {
            true => String::new(),
            false => self.part(&update, &format!("{after} a JOIN {before} b ON {same_key}")),
        };
        format!("{update}{into} FROM {before} b WHERE NOT EXISTS (SELECT 1 FROM {after} a WHERE {same_key});\n")
    }
}

/// Sequences go back last, for nothing takes that back: only where nobody drew from them since.
fn sequences(out: &mut String, reader: &Reader<'_>) {
    for sequence in reader.index.sequences.iter().filter(|one| !one.made && !one.gone && one.before != one.after) {
        let name = format!("{}.{}", ident(&sequence.schema), ident(&sequence.name));
        let (before, after) = (sequence.before, sequence.after);
        writeln!(
            out,
            "SELECT setval({}, {}, {}) FROM {name} WHERE last_value = {} AND is_called = {};",
            literal(&name),
            before.value,
            before.called,
            after.value,
            after.called
        )
        .ok();
    }
}
