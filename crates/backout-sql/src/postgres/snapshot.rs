//! A full, exact copy of a database as it is before a command runs, by which is found afterwards what the command changed.
//!
//! It is a schema of the tool's own, made in one transaction: a table for the rows of each of the user's, and beside them
//! the definitions of all objects and where sequences stand. No column of it has a type of the user's: the command may
//! change or drop that. Never changes what is copied.

use std::io::Write as _;

use backout_model::fault::{self, Point};
use backout_model::target::{Refusal, Summary, TargetError};
use postgres::Error;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::catalog::{Key, Object, literal};
use super::compared_schema::{self, OTHERS, USERS_RELATIONS};
use super::session::{Row, Session, ident};
use super::stream::{Position, Table};
use super::who_wrote::{self, Telling};
use super::{Postgres, counters, marker, named, table};

/// How long a copy waits for whoever has a table locked against every reader.
const LOCK_WAIT: &str = "60s";

/// How many rows a copy has is all that its statistics are for.
const FEW_STATISTICS: &str = "SET LOCAL default_statistics_target = 10";

/// One column of a copy: `c` and the number that it has in its table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    pub number: i32,
    pub name: String,
    /// As `format_type` writes it.
    pub kind: String,
    /// The copy has the column's own type; else its text, as COPY writes it.
    pub native: bool,
    /// Its type has collations.
    #[serde(default)]
    pub collated: bool,
}

/// The copy of one table.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Of the table that was copied.
    pub oid: u32,
    /// The copy's name, with its schema.
    pub table: String,
    pub columns: Vec<Copied>,
    pub rows: u64,
    /// All transactions before this one had ended when the copy was made: what they wrote is in it.
    pub ended: u32,
    /// The table as it was.
    pub shape: Option<Table>,
}

impl Copy {
    /// The copy itself, whatever stands for it.
    pub(super) fn bare(&self, schema: &str) -> String {
        format!("{schema}.t{}", self.oid)
    }
}

/// Where a sequence stood.
pub struct Stood {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// Its qualified name, in quotes where it needs them.
    pub id: String,
    pub at: Position,
}

/// Something that is not handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// `collation german`, for people.
    pub what: String,
    /// All that its catalog says of it.
    said: String,
    /// What DROP calls it; none where that does not end it.
    pub name: Option<String>,
}

impl Other {
    pub fn of(mut row: Row) -> Self {
        let mut text = |at: usize| row.get_mut(at).and_then(Option::take);
        Self { what: text(0).unwrap_or_default(), said: text(1).unwrap_or_default(), name: text(2) }
    }
}

/// All that was kept, without the rows.
pub struct Before {
    /// Where it lies.
    pub schema: String,
    /// What can be told of others, where that was asked.
    pub told: Option<Telling>,
    pub objects: Vec<Object>,
    pub others: Vec<Other>,
    pub sequences: Vec<Stood>,
    pub tables: Vec<Copy>,
}

/// The columns of the table `oid` that have values of their own, in order.
pub(super) fn columns(session: &mut Session, oid: u32) -> Result<Vec<Copied>, Error> {
    let found = session.rows(&format!(
        "SELECT a.attnum, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
             t.typtype = 'b' AND t.oid < 16384 AND t.typname !~ '^_?reg', a.attcollation <> 0
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
         WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum"
    ))?;
    let columns = found.into_iter().map(|row| {
        let text = |at: usize| row[at].clone().unwrap_or_default();
        let holds = |at: usize| row[at].as_deref() == Some("t");
        Copied {
            number: text(0).parse().unwrap_or(0),
            name: text(1),
            kind: text(2),
            native: holds(3),
            collated: holds(4),
        }
    });
    Ok(columns.collect())
}

/// The tables of the user of one kind, with their names: `r`, which have rows of their own, or `p`, partitioned ones.
pub(super) fn users_tables(session: &mut Session, kind: char) -> Result<Vec<(u32, String)>, Error> {
    let found = session.rows(&format!(
        "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname)
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = '{kind}' AND {USERS_RELATIONS} ORDER BY c.oid"
    ))?;
    Ok(found.into_iter().filter_map(|mut row| Some((row[0].as_deref()?.parse().ok()?, row[1].take()?))).collect())
}

impl Copied {
    /// The column's value as its copy has it. `alias` goes before the name.
    pub(super) fn value(&self, alias: &str) -> String {
        let name = format!("{alias}{}", ident(&self.name));
        match (self.native, self.collated) {
            (true, false) => name,
            (true, true) => format!("{name} COLLATE pg_catalog.\"C\""),
            // What the type's own output gives; of a row with nothing in it IS NULL says that it is none.
            (false, _) => format!("CASE WHEN {name} IS DISTINCT FROM NULL THEN pg_catalog.format('%s', {name}) END"),
        }
    }

    /// The column of the copy.
    pub(super) fn copied(&self, alias: &str) -> String {
        format!("{alias}c{}", self.number)
    }
}

impl Postgres {
    /// Refuses where no step could bring back what a command does; else what a copy would take.
    pub(super) fn copy_size(&mut self) -> Result<Summary, TargetError> {
        self.ready()?;
        let label = self.label.clone();
        let failed = |source| TargetError::failed(format!("cannot read the tables of {label}"), source);
        if let Some((what, why, way)) = self.why_not_copied().map_err(failed)? {
            return Err(refusal(&label, &what, why, way));
        }
        let found = self
            .a
            .rows(&format!(
                "SELECT pg_catalog.count(*), coalesce(pg_catalog.sum(pg_catalog.pg_table_size(c.oid)), 0)::bigint
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind = 'r' AND {USERS_RELATIONS}"
            ))
            .map_err(failed)?;
        let number = |at: usize| found.first().and_then(|row| row[at].as_deref()?.parse().ok()).unwrap_or(0);
        Ok(Summary { changes: number(0), bytes: number(1), ..Summary::default() })
    }

    /// The first thing that stands against it: what, why, and the way out.
    pub(super) fn why_not_copied(&mut self) -> Result<Option<(String, String, Option<String>)>, Error> {
        let event_triggers = (self.event_triggers.names.clone(), self.event_triggers.mute);
        if let (Some(names), None) = event_triggers {
            let why = format!(
                "the event trigger {names} would act on the tool's own changes, and the role may not silence it"
            );
            return Ok(Some(("the database".to_owned(), why, None)));
        }
        let found = self.a.rows(&format!(
            "SELECT what, why, way FROM (
             SELECT 1 AS at, 'the database' AS what, 'the role may make no schema in it, which the copies need' AS why,
                 pg_catalog.format('GRANT CREATE ON DATABASE %I TO %I', pg_catalog.current_database(), current_user) AS way
             WHERE NOT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
             UNION ALL SELECT 2, CASE c.relkind WHEN 'S' THEN 'sequence ' ELSE 'table ' END || pg_catalog.format('%I.%I', n.nspname, c.relname),
                 pg_catalog.format('it belongs to %I, and the role %I is no member of that: what a command does to it could not be taken back',
                     pg_catalog.pg_get_userbyid(c.relowner), current_user),
                 pg_catalog.format('GRANT %I TO %I', pg_catalog.pg_get_userbyid(c.relowner), current_user)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p', 'S') AND {USERS_RELATIONS} AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')
                 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 1259 AND e.objid = c.oid AND e.deptype = 'e')
             UNION ALL SELECT 3, 'table ' || pg_catalog.format('%I.%I', n.nspname, c.relname),
                 pg_catalog.format('the role %I may not read it', current_user),
                 pg_catalog.format('GRANT SELECT ON %I.%I TO %I', n.nspname, c.relname, current_user)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND {USERS_RELATIONS}
                 AND NOT (pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE'))
             UNION ALL SELECT 4, 'table ' || pg_catalog.format('%I.%I', n.nspname, c.relname),
                 'its policies hide rows also from its owner, so that a copy would lack them',
                 pg_catalog.format('ALTER ROLE %I BYPASSRLS', current_user)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND {USERS_RELATIONS} AND c.relrowsecurity AND c.relforcerowsecurity
                 AND NOT (SELECT rolsuper OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user)
             UNION ALL SELECT 5, 'large objects', 'the database has some, and what a command does to them is not seen', NULL
             WHERE EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
             ) AS found ORDER BY at, what LIMIT 1"
        ))?;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Ok(found.into_iter().next().map(|row| (text(&row[0]), text(&row[1]), row[2].clone())))
    }

    /// See [`backout_model::target::Target::snapshot`]: the name of the schema that holds the copy.
    pub(super) fn copy_all(&mut self, mark: Option<&str>) -> Result<Value, TargetError> {
        self.ready()?;
        if let Some((what, why, way)) =
            self.why_not_copied().map_err(|source| self.failed("cannot read the tables of", source))?
        {
            return Err(refusal(&self.label, &what, why, way));
        }
        let act = format!("cannot copy {}", self.label);
        let failed = |source: Error| TargetError::failed(act.clone(), source);
        let struck = |source: std::io::Error| TargetError::failed(act.clone(), source);
        fault::point(Point::Stage).map_err(struck)?;
        let number = self.next_copy().map_err(failed)?;
        let schema = format!("{}_c{number}", self.own);
        if let Some(mark) = mark {
            let tables = users_tables(&mut self.a, 'r').map_err(failed)?;
            who_wrote::arm(&mut self.a, &schema, mark, &tables).map_err(failed)?;
            fault::point(Point::Statement).map_err(struck)?;
        }
        let begin =
            format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL lock_timeout = '{LOCK_WAIT}'; {FEW_STATISTICS}");
        let done = self.a.run(&begin).map_err(failed).and_then(|()| {
            marker::holds(&mut self.a, self.place.as_ref(), &self.label, self.epoch)?;
            self.fill_copy(&schema, mark.is_some()).map_err(|error| match error {
                CopyError::Server(source) => failed(source),
                CopyError::Write(source) => struck(source),
            })?;
            fault::point(Point::Commit).map_err(struck)?;
            self.a.run("COMMIT").map_err(failed)?;
            fault::point(Point::Committed).map_err(struck)
        });
        self.after_step();
        done.map(|()| json!({ "schema": schema }))
    }

    fn next_copy(&mut self) -> Result<u64, Error> {
        let names = self.copies()?;
        let start = format!("{}_c", self.own);
        let numbers = names.iter().filter_map(|name| name.strip_prefix(&start)?.parse::<u64>().ok());
        Ok(numbers.max().unwrap_or(0) + 1)
    }

    /// The schemas that hold copies of this site's.
    fn copies(&mut self) -> Result<Vec<String>, Error> {
        let found = self.a.rows(&format!(
            "SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname ~ {}",
            literal(&format!("^{}_c[0-9]+$", self.own))
        ))?;
        Ok(found.into_iter().filter_map(|mut row| row[0].take()).collect())
    }

    fn fill_copy(&mut self, schema: &str, armed: bool) -> Result<(), CopyError> {
        let a = &mut self.a;
        if armed {
            // What this transaction sees is in the copy.
            a.run(&format!("CREATE TABLE {schema}.begun AS SELECT pg_catalog.pg_current_snapshot() AS at"))?;
        } else {
            a.run(&format!("CREATE SCHEMA {schema}"))?;
        }
        a.run(&format!(
            "CREATE TABLE {schema}.objects (number integer, key text, object text);
             CREATE TABLE {schema}.tables (oid bigint, columns text, rows bigint, ended xid, shape text);
             CREATE TABLE {schema}.sequences (oid bigint, schema text, name text, value bigint, called boolean);
             CREATE TABLE {schema}.others AS {OTHERS}"
        ))?;
        for (oid, name) in users_tables(a, 'r')? {
            fault::point(Point::Statement).map_err(CopyError::Write)?;
            let columns = columns(a, oid)?;
            let names = named::of_table(&mut a.client, oid)?;
            let shape = Table { names, ..table::read(a, oid)? };
            let list: Vec<String> =
                columns.iter().map(|column| format!("{} AS {}", column.value("x."), column.copied(""))).collect();
            let rows = a.count(&format!(
                "CREATE TABLE {schema}.t{oid} WITH (autovacuum_enabled = off) AS SELECT {} FROM ONLY {name} AS x",
                list.join(", ")
            ))?;
            a.run(&format!(
                "ANALYZE {schema}.t{oid}; INSERT INTO {schema}.tables SELECT {oid}, {}, {rows},
                 (pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::bigint % 4294967296)::text::xid, {}",
                literal(&serde_json::to_string(&columns).unwrap_or_default()),
                literal(&serde_json::to_string(&shape).unwrap_or_default())
            ))?;
            let copy = Copy { oid, table: format!("{schema}.t{oid}"), columns, rows, ended: 0, shape: Some(shape) };
            if armed && let Some(views) = who_wrote::views(schema, &copy) {
                a.run(&views)?;
            }
        }
        let objects = compared_schema::all_with_content(&mut a.client, a.version)?;
        let mut into = a.client.copy_in(&format!("COPY {schema}.objects FROM STDIN"))?;
        for (number, object) in objects.iter().enumerate() {
            let text = serde_json::to_string(object).unwrap_or_default();
            let key = object.key.map(|key| format!("{},{},{}", key.class, key.oid, key.sub)).unwrap_or_default();
            into.write_all(format!("{number}\t{key}\t{}\n", escaped(&text)).as_bytes()).map_err(CopyError::Write)?;
        }
        into.finish()?;
        let stood = counters::positions(a, "")?;
        let values = stood.iter().map(|((space, name), (oid, at))| {
            format!("({oid}, {}, {}, {}, {})", literal(space), literal(name), at.value, at.called)
        });
        let values: Vec<String> = values.collect();
        if !values.is_empty() {
            a.run(&format!("INSERT INTO {schema}.sequences VALUES {}", values.join(", ")))?;
        }
        Ok(())
    }

    /// Reads back what a snapshot kept; its rows stay where they are.
    pub(super) fn before(&mut self, note: &Value) -> Result<Before, TargetError> {
        let all = self.copies().map_err(|source| self.failed("cannot read the schemas of", source))?;
        let Some(schema) = note["schema"].as_str().filter(|schema| all.iter().any(|one| one == schema)) else {
            return Err(TargetError::failed(
                format!("cannot tell what a command changed in {}", self.label),
                "the copy of before is gone: it lay in a schema of the tool's own",
            ));
        };
        let read = |a: &mut Session| -> Result<Before, Error> {
            let objects = a.rows(&format!("SELECT key, object FROM {schema}.objects ORDER BY number"))?;
            let objects = objects.into_iter().filter_map(|row| {
                let object: Object = serde_json::from_str(row[1].as_deref()?).ok()?;
                Some(Object { key: Key::parse(row[0].as_deref()?), ..object })
            });
            let objects = objects.collect();
            let others = a.rows(&format!("SELECT what, said, name FROM {schema}.others"))?;
            let others = others.into_iter().map(Other::of).collect();
            let sequences = a.rows(&format!(
                "SELECT oid, schema, name, pg_catalog.format('%I.%I', schema, name), value, called FROM {schema}.sequences"
            ))?;
            let sequences = sequences.into_iter().filter_map(|row| {
                let at = Position { value: row[4].as_deref()?.parse().ok()?, called: row[5].as_deref() == Some("t") };
                let oid = row[0].as_deref()?.parse().ok()?;
                Some(Stood { oid, schema: row[1].clone()?, name: row[2].clone()?, id: row[3].clone()?, at })
            });
            let sequences = sequences.collect();
            let tables = a.rows(&format!(
                "SELECT oid, columns, rows, ended, pg_catalog.to_jsonb(t) ->> 'shape' FROM {schema}.tables AS t"
            ))?;
            let tables = tables.iter().filter_map(|row| {
                let oid: u32 = row[0].as_deref()?.parse().ok()?;
                let columns = serde_json::from_str(row[1].as_deref()?).ok()?;
                let (rows, ended) = (row[2].as_deref()?.parse().ok()?, row[3].as_deref()?.parse().ok()?);
                let shape = row[4].as_deref().and_then(|shape| serde_json::from_str(shape).ok());
                Some(Copy { oid, table: format!("{schema}.t{oid}"), columns, rows, ended, shape })
            });
            let tables = tables.collect();
            Ok(Before { schema: schema.to_owned(), told: None, objects, others, sequences, tables })
        };
        read(&mut self.a)
            .map_err(|source| TargetError::failed(format!("cannot read the copy of {} of before", self.label), source))
    }

    /// See [`backout_model::target::Target::give_up`].
    pub(super) fn drop_copies(&mut self, note: &Value) -> Result<(), TargetError> {
        self.ready()?;
        let all = self.copies().map_err(|source| self.failed("cannot read the schemas of", source))?;
        let of_note = note["schema"].as_str();
        for schema in all.iter().filter(|schema| of_note.is_none_or(|of_note| of_note == *schema)) {
            let act = format!("cannot drop the copy {schema} in {}", self.label);
            fault::point(Point::Statement).map_err(|source| TargetError::failed(act.clone(), source))?;
            let done = who_wrote::disarm(&mut self.a, schema)
                .and_then(|()| self.a.run(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE")));
            done.map_err(|source| TargetError::failed(act, source))?;
        }
        Ok(())
    }
}

enum CopyError {
    Server(Error),
    Write(std::io::Error),
}

impl From<Error> for CopyError {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

/// A value as a line of COPY text has it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}

fn refusal(label: &str, what: &str, why: String, way: Option<String>) -> TargetError {
    let own = "give the step an undo of its own: `undo: [a command]`".to_owned();
    TargetError::Refused(Refusal {
        place: label.to_owned(),
        what: what.to_owned(),
        why: format!("what a command does to {label} cannot be captured: {why}"),
        ways_out: way.into_iter().chain([own]).collect(),
    })
}
