//! Who wrote what while a command ran: what other sessions write is logged by triggers, and the copy of before is shown as it
//! would be with that alone. What differs from there is the command's.
//!
//! The command's sessions are known by their application name, which they have from the environment. A trigger never fails
//! and never waits: where it cannot log, it says that something was lost, and nothing is told apart then.

use std::collections::{BTreeMap, BTreeSet};

use backout_model::target::{Gate, Others, Report, TargetError};
use backout_model::words;
use postgres::Error;
use serde_json::Value;

use super::Postgres;
use super::apply::sealed;
use super::capture_error::{CaptureError, reading};
use super::catalog::literal;
use super::compared::{LOCK_TRIES, ONE_STATE, uncompared};
use super::compared_rows::copy_out;
use super::schema::LOCK_PAUSE;
use super::session::{Session, ident, is_lock_timeout};
use super::snapshot::{Before, Copy, users_tables};
use super::stream::{Event, Index, Side, Table, Writer};
use super::{marker, table};

/// How many keys of rows are named to people.
const KEYS_NAMED: u64 = 3;

/// What can be told of a table's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The name of the view that shows the copy with what others wrote.
    By(String),
    /// Why nothing can, in words.
    Not(String),
}

/// What can be told of each table that others wrote to, or may have; or why nothing can, in words.
pub type Telling = Result<BTreeMap<u32, Told>, String>;

/// Lets triggers log what others write to the tables of the user, from now on: all but the session called `mark`. A table on
/// which none can be put is left without.
pub(super) fn arm(a: &mut Session, schema: &str, mark: &str, tables: &[(u32, String)]) -> Result<(), Error> {
    let settings: String =
        Session::of_scripts().map(|(name, value)| format!(" SET {name} = {}", literal(value))).collect();
    a.run(&format!(
        "CREATE SCHEMA {schema};
         CREATE SEQUENCE {schema}.recognised;
         CREATE SEQUENCE {schema}.lost;
         CREATE TABLE {schema}.log (n bigint GENERATED ALWAYS AS IDENTITY, rel oid, op text, xid xid8, role name, application text,
             old text[], new text[]);
         CREATE FUNCTION {schema}.recognise() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $f$
         BEGIN PERFORM pg_catalog.nextval('{schema}.recognised'); RETURN NULL; END $f$;
         CREATE FUNCTION {schema}.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER{settings} AS $f$
         DECLARE list text; was text[]; comes text[];
         BEGIN
             SELECT pg_catalog.string_agg(CASE WHEN a.attisdropped OR a.attgenerated <> '' THEN 'NULL' ELSE pg_catalog.format(
                 'CASE WHEN ($1).%1$I IS DISTINCT FROM NULL THEN pg_catalog.format(''%%s'', ($1).%1$I) END', a.attname) END, ', '
                 ORDER BY a.attnum) INTO list
             FROM pg_catalog.pg_attribute a WHERE a.attrelid = TG_RELID AND a.attnum > 0;
             IF TG_OP IN ('UPDATE', 'DELETE') THEN EXECUTE 'SELECT ARRAY[' || list || ']::text[]' INTO was USING OLD; END IF;
             IF TG_OP IN ('UPDATE', 'INSERT') THEN EXECUTE 'SELECT ARRAY[' || list || ']::text[]' INTO comes USING NEW; END IF;
             IF TG_OP = 'TRUNCATE' OR was IS DISTINCT FROM comes THEN
                 INSERT INTO {schema}.log (rel, op, xid, role, application, old, new) VALUES (TG_RELID, TG_OP,
                     pg_catalog.pg_current_xact_id(), session_user, pg_catalog.current_setting('application_name'), was, comes);
             END IF;
             RETURN NULL;
         EXCEPTION WHEN OTHERS THEN
             PERFORM pg_catalog.nextval('{schema}.lost'); RETURN NULL;
         END $f$"
    ))?;
    let is_marked = format!("pg_catalog.strpos(pg_catalog.current_setting('application_name'), {})", literal(mark));
    let others = format!("{is_marked} = 0 AND pg_catalog.current_setting('backout.own', true) IS DISTINCT FROM 'on'");
    let recognise = |name: &str| {
        format!(
            "CREATE TRIGGER {schema}_c BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {name} FOR EACH STATEMENT
                 WHEN ({is_marked} > 0) EXECUTE FUNCTION {schema}.recognise();
             ALTER TABLE {name} ENABLE ALWAYS TRIGGER {schema}_c"
        )
    };
    let listen = |name: &str| {
        format!(
            "CREATE TRIGGER {schema}_r AFTER INSERT OR UPDATE OR DELETE ON {name} FOR EACH ROW WHEN ({others}) EXECUTE FUNCTION {schema}.note();
             CREATE TRIGGER {schema}_t AFTER TRUNCATE ON {name} FOR EACH STATEMENT WHEN ({others}) EXECUTE FUNCTION {schema}.note();
             {}, ENABLE ALWAYS TRIGGER {schema}_r, ENABLE ALWAYS TRIGGER {schema}_t",
            recognise(name)
        )
    };
    // A statement on a partitioned table is none on its partitions.
    let whole = users_tables(a, 'p')?;
    let all = tables.iter().map(|(_, name)| listen(name)).chain(whole.iter().map(|(_, name)| recognise(name)));
    let mut tries = LOCK_TRIES;
    for sql in all {
        match patiently(a, &sql, &mut tries) {
            Err(error) if a.client.is_closed() => return Err(error),
            // Its rows are not told apart, which is said when they are compared.
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Takes the triggers off again.
pub(super) fn disarm(a: &mut Session, schema: &str) -> Result<(), Error> {
    let found = a.rows(&format!(
        "SELECT t.tgrelid::pg_catalog.regclass, pg_catalog.string_agg(pg_catalog.format(
             'DROP TRIGGER IF EXISTS %I ON %s', t.tgname, t.tgrelid::pg_catalog.regclass), '; ')
         FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
         WHERE p.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {}) AND NOT t.tgisinternal GROUP BY t.tgrelid",
        literal(schema)
    ))?;
    let mut tries = LOCK_TRIES;
    for mut row in found {
        patiently(a, &row[1].take().unwrap_or_default(), &mut tries)?;
    }
    Ok(())
}

/// Statements that wait for a table's lock, each try so short that nobody is kept waiting behind it for long. `tries`: how many
/// are left.
fn patiently(a: &mut Session, sql: &str, tries: &mut u32) -> Result<(), Error> {
    loop {
        match a.run(sql) {
            Err(error) if *tries > 0 && is_lock_timeout(&error) => {
                *tries -= 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            done => return done,
        }
    }
}

/// The columns by which a row of a copy is known; none where not each of them is exact.
fn key(copy: &Copy) -> Option<Vec<usize>> {
    let shape = copy.shape.as_ref().filter(|shape| shape.columns.len() == copy.columns.len())?;
    let exact = shape.key.iter().map(|key| shape.columns.get(key.column).filter(|one| one.exact).map(|_| key.column));
    exact.collect::<Option<Vec<usize>>>().filter(|key| !key.is_empty())
}

/// What others did to the rows of one copied table since it was copied, an act a row: `op` is `I`, `U`, or `D`, the key in `k…`. An
/// act that gives a row another key is two.
fn acts(schema: &str, copy: &Copy, key: &[usize]) -> String {
    let numbers: Vec<i32> = key.iter().filter_map(|at| Some(copy.columns.get(*at)?.number)).collect();
    let of = |side: &str| {
        let parts = numbers.iter().enumerate().map(|(at, number)| format!("{side}[{number}] AS k{at}"));
        parts.collect::<Vec<_>>().join(", ")
    };
    let row = |side: &str| {
        let parts = numbers.iter().map(|number| format!("{side}[{number}]"));
        format!("ROW({})", parts.collect::<Vec<_>>().join(", "))
    };
    let stays = format!("op = 'UPDATE' AND {} IS NOT DISTINCT FROM {}", row("old"), row("new"));
    format!(
        "log AS (SELECT w.* FROM {schema}.log AS w, {schema}.begun AS g
             WHERE w.rel = {} AND NOT pg_catalog.pg_visible_in_snapshot(w.xid, g.at)),
         acts AS (
             SELECT 2 * n AS n, xid, 'U' AS op, old, new, {news} FROM log WHERE {stays}
             UNION ALL SELECT 2 * n, xid, 'D', old, NULL, {olds} FROM log WHERE old IS NOT NULL AND NOT ({stays})
             UNION ALL SELECT 2 * n + 1, xid, 'I', NULL, new, {news} FROM log WHERE new IS NOT NULL AND NOT ({stays}))",
        copy.oid,
        news = of("new"),
        olds = of("old"),
    )
}

fn keys(count: usize, alias: &str) -> String {
    (0..count).map(|at| format!("{alias}k{at}")).collect::<Vec<_>>().join(", ")
}

/// The views over one copy: `g…`, what became of each row that others wrote to; `o…`, those rows as they would be without the
/// command; `b…`, all rows so. A value is the last that others gave it, else the one of before.
pub(super) fn views(schema: &str, copy: &Copy) -> Option<String> {
    let key = key(copy)?;
    let (oid, table) = (copy.oid, &copy.table);
    let list = keys(key.len(), "");
    let typed = |at: usize, text: &str| {
        let column = &copy.columns[at];
        if column.native { format!("({text})::{}", column.kind) } else { text.to_owned() }
    };
    let same = |alias: &str| {
        let terms = key.iter().enumerate().map(|(number, at)| {
            format!("{} = {}", copy.columns[*at].copied("b."), typed(*at, &format!("{alias}k{number}")))
        });
        terms.collect::<Vec<_>>().join(" AND ")
    };
    let last = copy.columns.iter().map(|column| {
        let number = column.number;
        let by = format!("FILTER (WHERE whole OR new[{number}] IS DISTINCT FROM old[{number}])");
        format!(
            "pg_catalog.count(*) {by} > 0 AS h{number}, (pg_catalog.array_agg(new[{number}] ORDER BY n DESC) {by})[1] AS v{number}"
        )
    });
    let last: Vec<String> = last.collect();
    let values = copy.columns.iter().enumerate().map(|(at, column)| {
        let number = column.number;
        format!(
            "CASE WHEN g.h{number} THEN {} ELSE {} END AS {}",
            typed(at, &format!("g.v{number}")),
            column.copied("b."),
            column.copied("")
        )
    });
    let values: Vec<String> = values.collect();
    let all: Vec<String> = copy.columns.iter().map(|column| column.copied("b.")).collect();
    Some(format!(
        "CREATE VIEW {schema}.g{oid} AS WITH {acts}, told AS (
             SELECT a.*, op = 'I' OR op = 'U' AND (before = 'D' OR before IS NULL AND NOT EXISTS (SELECT FROM {table} AS b WHERE {of_a})) AS whole
             FROM (SELECT *, pg_catalog.lag(op) OVER (PARTITION BY {list} ORDER BY n) AS before FROM acts) AS a)
         SELECT {list}, (pg_catalog.array_agg(op ORDER BY n DESC))[1] AS last, {last} FROM told GROUP BY {list};
         CREATE VIEW {schema}.o{oid} AS SELECT {values} FROM {schema}.g{oid} AS g LEFT JOIN {table} AS b ON {of_g} WHERE g.last <> 'D';
         CREATE VIEW {schema}.b{oid} AS SELECT {all} FROM {table} AS b WHERE NOT EXISTS (SELECT FROM {schema}.g{oid} AS g WHERE {of_g})
             UNION ALL SELECT {all} FROM {schema}.o{oid} AS b",
        acts = acts(schema, copy, &key),
        of_a = same("a."),
        of_g = same("g."),
        last = last.join(", "),
        values = values.join(", "),
        all = all.join(", "),
    ))
}

/// What of the tables can be told apart; `None` where all that changed counts as the command's anyhow: nobody listened, or
/// nobody else wrote. The error is why nothing can, in words.
pub(super) fn told(session: &mut Session, before: &Before) -> Result<Option<Telling>, Error> {
    let schema = &before.schema;
    let armed = format!("SELECT pg_catalog.to_regclass({})", literal(&format!("{schema}.log")));
    if session.value(&armed)?.is_none() {
        return Ok(None);
    }
    let found =
        session.rows(&format!("SELECT l.is_called, r.is_called FROM {schema}.lost AS l, {schema}.recognised AS r"))?;
    let holds = |at: usize| found.first().is_some_and(|row| row[at].as_deref() == Some("t"));
    if holds(0) {
        return Ok(Some(Err("a row that somebody else wrote could not be written down".to_owned())));
    }
    if !holds(1) {
        if !others_wrote(session, before)? {
            return Ok(None);
        }
        return Ok(Some(Err(
            "no session of the command was recognised: its client takes no application name from PGAPPNAME".to_owned(),
        )));
    }
    let listened = session.rows(&format!(
        "SELECT t.tgrelid FROM pg_catalog.pg_trigger t WHERE t.tgenabled = 'A' AND t.tgname IN ('{schema}_r', '{schema}_t')
         GROUP BY t.tgrelid HAVING pg_catalog.count(*) = 2"
    ))?;
    let listened: Vec<u32> = listened.iter().filter_map(|row| row[0].as_deref()?.parse().ok()).collect();
    let present = session.rows("SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'r'")?;
    let present: Vec<u32> = present.iter().filter_map(|row| row[0].as_deref()?.parse().ok()).collect();
    let written =
        session.rows(&format!("SELECT rel, pg_catalog.bool_or(op = 'TRUNCATE') FROM {schema}.log GROUP BY rel"))?;
    let written: BTreeMap<u32, bool> = written
        .iter()
        .filter_map(|row| Some((row[0].as_deref()?.parse().ok()?, row[1].as_deref() == Some("t"))))
        .collect();
    let mut all = BTreeMap::new();
    for copy in &before.tables {
        let (oid, emptied) = (copy.oid, written.get(&copy.oid).copied());
        let view = format!("{schema}.b{oid}");
        let told = match (key(copy), emptied) {
            // One that the command dropped: what others wrote to it before is there still.
            _ if present.contains(&oid) && !listened.contains(&oid) => {
                Told::Not("it could not be listened to".to_owned())
            }
            (_, Some(true)) => Told::Not("somebody emptied it".to_owned()),
            (None, Some(false)) => Told::Not("it has no key of a plain type".to_owned()),
            (Some(key), Some(false)) if is_tangled(session, schema, copy, &key)? => {
                Told::Not("triggers wrote to its rows in an order that cannot be told".to_owned())
            }
            (None, None) => continue,
            (Some(_), _) => Told::By(view),
        };
        all.insert(oid, told);
    }
    Ok(Some(Ok(all)))
}

/// The tables that others wrote to since the copy was made; none where nobody listened.
pub(super) fn written(session: &mut Session, before: &Before) -> Result<BTreeSet<u32>, Error> {
    if !matches!(before.told, Some(Ok(_))) {
        return Ok(BTreeSet::new());
    }
    let found = session.rows(&format!(
        "SELECT DISTINCT w.rel FROM {schema}.log AS w, {schema}.begun AS g WHERE NOT pg_catalog.pg_visible_in_snapshot(w.xid, g.at)",
        schema = before.schema
    ))?;
    Ok(found.iter().filter_map(|row| row[0].as_deref()?.parse().ok()).collect())
}

/// True where others wrote to what is listened to, since the copy was made.
pub(super) fn others_wrote(session: &mut Session, before: &Before) -> Result<bool, Error> {
    let found = session.value(&format!(
        "SELECT 1 FROM {schema}.log AS w, {schema}.begun AS g WHERE NOT pg_catalog.pg_visible_in_snapshot(w.xid, g.at) LIMIT 1",
        schema = before.schema
    ))?;
    Ok(found.is_some())
}

/// True where acts of one transaction do not follow from one another: then their order is not the one in which they were
/// written down. Or where one has no key: its column is gone.
fn is_tangled(session: &mut Session, schema: &str, copy: &Copy, key: &[usize]) -> Result<bool, Error> {
    let list = keys(key.len(), "");
    let sql = format!(
        "WITH {}, beside AS (SELECT *, pg_catalog.lag(op) OVER w AS op_before, pg_catalog.lag(new) OVER w AS new_before
             FROM acts WINDOW w AS (PARTITION BY {list}, xid ORDER BY n))
         SELECT 1 FROM beside WHERE pg_catalog.num_nulls({list}) > 0 OR op_before IS NOT NULL
             AND ((op_before = 'D') <> (op = 'I') OR op <> 'I' AND new_before IS DISTINCT FROM old) LIMIT 1",
        acts(schema, copy, key)
    );
    Ok(session.value(&sql)?.is_some())
}

impl Postgres {
    /// Sees to it that what others wrote is none of what will differ from before.
    pub(super) fn without_others(&mut self, before: &mut Before) -> Result<(), TargetError> {
        let label = &self.label;
        before.told = told(&mut self.a, before).map_err(|source| TargetError::failed(uncompared(label), source))?;
        let Some(Ok(told)) = &before.told else { return Ok(()) };
        for copy in &mut before.tables {
            if let Some(Told::By(view)) = told.get(&copy.oid) {
                copy.table.clone_from(view);
            }
        }
        Ok(())
    }

    /// An error where the state that is compared cannot be told like that after all: somebody wrote in between.
    pub(super) fn is_told_so(&mut self, before: &Before) -> Result<(), TargetError> {
        let Some(Ok(was)) = &before.told else { return Ok(()) };
        let now = told(&mut self.b, before).map_err(|source| TargetError::failed(uncompared(&self.label), source))?;
        let is_so = |(oid, told): (&u32, &Told)| {
            matches!(told, Told::Not(_)) || matches!(&now, Some(Ok(now)) if now.get(oid) == Some(told))
        };
        if was.iter().all(is_so) {
            return Ok(());
        }
        Err(TargetError::failed(uncompared(&self.label), "somebody wrote to it meanwhile; it can be tried again"))
    }

    /// See [`backout_model::target::Target::compare_others`].
    pub(super) fn others_of(&mut self, note: &Value, shown: &str, gate: &mut dyn Gate) -> Result<Others, TargetError> {
        self.ready()?;
        let done = self.others_and_seal(note, shown, gate);
        self.after_step();
        done
    }

    fn others_and_seal(&mut self, note: &Value, shown: &str, gate: &mut dyn Gate) -> Result<Others, TargetError> {
        let label = self.label.clone();
        let failed = |source: CaptureError| TargetError::failed(uncompared(&label), source);
        self.begin()?;
        marker::holds(&mut self.a, self.place.as_ref(), &label, self.epoch)?;
        let before = self.before(note)?;
        let schema = before.schema.as_str();
        let reading = |source| TargetError::failed(uncompared(&label), source);
        self.b.run(ONE_STATE).map_err(reading)?;
        let told = match told(&mut self.b, &before).map_err(reading)? {
            None => return Ok(Others::Nobody),
            Some(Err(why)) => return Ok(Others::Untold { why }),
            Some(Ok(told)) => told,
        };
        let writer = Writer::new(gate.images()).map_err(|source| failed(source.into()))?;
        let mut images = Images {
            writer,
            index: Index { shown: shown.to_owned(), marker: self.marker_number()?, ..Index::default() },
        };
        let mut report = Box::<Report>::default();
        for copy in &before.tables {
            let name = copy.shape.as_ref().map(table::shown).unwrap_or_default();
            match told.get(&copy.oid) {
                Some(Told::By(_)) => {
                    let found = images.of(&mut self.b, schema, copy).map_err(failed)?;
                    report.notes.extend(found.map(|what| format!("{name}: {what}")));
                }
                Some(Told::Not(why)) => report.notes.push(format!("{name}: not told apart, for {why}")),
                None => {}
            }
        }
        let Images { writer, index } = images;
        if index.events.is_empty() {
            return Ok(Others::Wrote { report, announced: false });
        }
        let unsealed = super::stream::Unsealed { writer, index };
        report.summary = sealed(unsealed).map_err(|source| TargetError::failed(uncompared(&label), source))?;
        self.seal(&report.summary, gate)?;
        Ok(Others::Wrote { report, announced: true })
    }
}

/// What others wrote, as the images of a step that came before the command's.
struct Images {
    writer: Writer,
    index: Index,
}

impl Images {
    /// Adds the rows of one table; what they are, in words.
    fn of(&mut self, a: &mut Session, schema: &str, copy: &Copy) -> Result<Option<String>, CaptureError> {
        let (Some(shape), Some(key)) = (&copy.shape, key(copy)) else { return Ok(None) };
        let (oid, table) = (copy.oid, &copy.table);
        let list = |alias: &str| copy.columns.iter().map(|column| column.copied(alias)).collect::<Vec<_>>().join(", ");
        let same = |one: &str, other: &str| {
            let terms = key.iter().map(|at| {
                let column = &copy.columns[*at];
                format!("{} = {}", column.copied(one), column.copied(other))
            });
            let keys: Vec<String> = terms.collect();
            format!("{} AND pg_catalog.record_image_eq(ROW({}), ROW({}))", keys.join(" AND "), list(one), list(other))
        };
        let touched = key.iter().enumerate().map(|(number, at)| {
            let column = &copy.columns[*at];
            let kind = if column.native { format!("::{}", column.kind) } else { String::new() };
            format!("{} = (g.k{number}){kind}", column.copied("b."))
        });
        let touched: Vec<String> = touched.collect();
        let old = format!(
            "SELECT {} FROM {table} AS b WHERE EXISTS (SELECT FROM {schema}.g{oid} AS g WHERE {})
                 AND NOT EXISTS (SELECT FROM {schema}.o{oid} AS x WHERE {})",
            list("b."),
            touched.join(" AND "),
            same("x.", "b.")
        );
        let new = format!(
            "SELECT {} FROM {schema}.o{oid} AS x WHERE NOT EXISTS (SELECT FROM {table} AS b WHERE {})",
            list("x."),
            same("x.", "b.")
        );
        let number = u32::try_from(self.index.tables.len()).unwrap_or(u32::MAX);
        let writer = &mut self.writer;
        let before = copy_out(a, &old, writer, &mut |writer, line| writer.row(Side::Before, number, line))?;
        let after = copy_out(a, &new, writer, &mut |writer, line| writer.row(Side::After, number, line))?;
        let rows = before.records.max(after.records);
        if rows == 0 {
            return Ok(None);
        }
        self.index.rows += rows;
        self.index.tables.push(shape.clone());
        self.index.events.push(Event::Rows { table: number, before, after });
        named(a, schema, copy, shape, &key, rows).map(Some).map_err(reading("who wrote rows"))
    }
}

/// How many rows it is, the first few by their keys, and who wrote them.
fn named(a: &mut Session, schema: &str, copy: &Copy, shape: &Table, key: &[usize], rows: u64) -> Result<String, Error> {
    let oid = copy.oid;
    let names: Vec<String> = key.iter().map(|at| ident(&shape.columns[*at].name)).collect();
    let list = keys(key.len(), "");
    let found = a.rows(&format!(
        "SELECT (SELECT pg_catalog.string_agg(k, '; ') FROM (SELECT pg_catalog.concat_ws(', ', {list}) AS k FROM {schema}.g{oid} ORDER BY 1 LIMIT {KEYS_NAMED}) AS few),
             (SELECT pg_catalog.string_agg(who, ', ') FROM (SELECT DISTINCT pg_catalog.concat_ws(' as ', nullif(application, ''), role) AS who
              FROM {schema}.log WHERE rel = {oid} ORDER BY 1 LIMIT {KEYS_NAMED}) AS writers)"
    ))?;
    let text = |at: usize| found.first().and_then(|row| row[at].clone()).unwrap_or_default();
    let more = if rows > KEYS_NAMED { ", …" } else { "" };
    Ok(format!("{} ({} {}{more}), by {}", words::count(rows, "row"), names.join(", "), text(0), text(1)))
}
