//! Rows of tables without a key: told apart by all that they hold, identical ones by their number.
//!
//! A row that others changed cannot be told from one that they deleted: either is a conflict.

use backout_model::conflict::{Conflict, ConflictKind, OnConflict};
use backout_model::target::TargetError;

use super::admit::{self, Admission, Excluding, ROWS};
use super::load::{Loaded, NO_ROW, Replay};
use super::session::Session;
use super::stream::Table;
use super::table::{self, bracketed, list, quoted};
use super::terms::{same, shown_row};

/// How often rows are looked for that others write meanwhile.
const LOOKS: u32 = 3;

/// Makes the change of one table's rows.
pub fn rows(a: &mut Session, replay: &mut Replay<'_>, table: &Table, loaded: &Loaded) -> Result<(), TargetError> {
    let label = replay.label;
    inner(a, replay, table, loaded).map_err(|source| {
        TargetError::failed(format!("cannot change rows of {} in {label}", table::shown(table)), source)
    })
}

/// All that a row holds, as one value.
fn whole(table: &Table, alias: &str) -> String {
    format!("sha256(textsend(ROW({})::text))", list(table, alias))
}

fn inner(a: &mut Session, replay: &mut Replay<'_>, table: &Table, loaded: &Loaded) -> Result<(), postgres::Error> {
    let live = quoted(table);
    // What is in one image more often than in the other.
    let more = |name: &str, of: &str, than: &str| {
        format!(
            "DROP TABLE IF EXISTS pg_temp.{name};
             CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS
             SELECT o.h, o.n - coalesce(w.n, 0) AS n, o.n - coalesce(w.n, 0) AS of
             FROM (SELECT {whole} AS h, count(*) AS n FROM {of} AS r GROUP BY 1) AS o
             LEFT JOIN (SELECT {whole} AS h, count(*) AS n FROM {than} AS r GROUP BY 1) AS w ON w.h = o.h
             WHERE o.n > coalesce(w.n, 0);
             ANALYZE pg_temp.{name};",
            whole = whole(table, "r")
        )
    };
    a.run(&more("backout_out", &loaded.from, &loaded.to))?;
    a.run(&more("backout_new", &loaded.to, &loaded.from))?;
    let count = |a: &mut Session, name: &str| -> Result<u64, postgres::Error> {
        let sum = a.value(&format!("SELECT coalesce(sum(n), 0) FROM pg_temp.{name}"))?;
        Ok(sum.and_then(|text| text.parse().ok()).unwrap_or(0))
    };
    let out = count(a, "backout_out")?;
    if out > 0 {
        let delete = |but: &str| {
            format!(
                "WITH gone AS (
                 DELETE FROM ONLY {live} AS x USING (
                     SELECT s.at, s.h, row_number() OVER (PARTITION BY s.h) AS k
                     FROM (SELECT x.ctid AS at, {} AS h FROM ONLY {live} AS x WHERE true{}) AS s
                     WHERE s.h IN (SELECT h FROM pg_temp.backout_out)) AS d, pg_temp.backout_out AS o
                 WHERE x.ctid = d.at AND o.h = d.h AND d.k <= o.n RETURNING d.h)
             UPDATE pg_temp.backout_out AS o SET n = o.n - g.n
             FROM (SELECT h, count(*) AS n FROM gone GROUP BY h) AS g WHERE g.h = o.h",
                whole(table, "x"),
                but
            )
        };
        // A row that others write just now is passed over as the one that it was: it is looked for once more, as it is then.
        let untouched = loaded.untouched();
        let mut missing = out;
        for _ in 0..LOOKS {
            let found = a.count(&delete(&untouched))?;
            missing = count(a, "backout_out")?;
            if missing == 0 || found == 0 && missing < out {
                break;
            }
        }
        replay.rows += out - missing;
        if missing > 0 {
            lost(a, replay, table, loaded)?;
            if replay.overwrites() && !untouched.is_empty() {
                a.count(&delete(""))?;
            }
        }
    }
    if loaded.wanted > 0 { bring(a, replay, table, loaded, &live) } else { Ok(()) }
}

/// Inserts the rows that are only wanted; what a unique constraint has against one is a conflict.
fn bring(
    a: &mut Session,
    replay: &mut Replay<'_>,
    table: &Table,
    loaded: &Loaded,
    live: &str,
) -> Result<(), postgres::Error> {
    let wanted = format!(
        "(SELECT t.ctid, t.*, row_number() OVER (PARTITION BY {whole}) AS backout_k, {whole} AS backout_h FROM {to} AS t) AS t
         JOIN pg_temp.backout_new AS n ON n.h = t.backout_h WHERE t.backout_k <= n.n",
        whole = whole(table, "t"),
        to = loaded.to
    );
    let insert = format!(
        "INSERT INTO {live} {} OVERRIDING SYSTEM VALUE SELECT {} FROM {wanted}",
        bracketed(table),
        list(table, "t")
    );
    let waiting = Excluding::waiting(&mut a.client, live)?;
    let ours = format!("{} IN (SELECT h FROM pg_temp.backout_new)", whole(table, "x"));
    if let Ok(done) = waiting.attempt(&mut a.client, live, &insert, &ours)? {
        replay.rows += done;
        return Ok(());
    }
    admit::collect(a, table, &wanted)?;
    let excluding = Excluding::of(&mut a.client, live)?;
    let act = |condition: &str| admit::insertion(table, live, ROWS, condition);
    let ours =
        |range: &str| format!("{} IN (SELECT {} FROM {ROWS} AS t WHERE {range})", whole(table, "x"), whole(table, "t"));
    replay.rows += Admission { a, live, rows: ROWS, excluding: &excluding, act: &act, ours: &ours }.all()?;
    let left_out = "t.backout_why IS NOT NULL";
    let found =
        a.rows(&format!("SELECT {}, t.backout_why FROM {ROWS} AS t WHERE {left_out}", shown_row(table, "t")))?;
    for row in &found {
        let conflict = replay.conflict(table, row[0].clone(), ConflictKind::Constraint);
        let (before, now) = (row[0].clone().unwrap_or_default(), row[1].clone().unwrap_or_default());
        replay.conflicts.push(Conflict { before, now, ..conflict });
    }
    if found.is_empty() {
        return Ok(());
    }
    if replay.overwrites() {
        excluding.clear(&mut a.client, live, &format!("(SELECT * FROM {ROWS} AS t WHERE {left_out})"), "false", "")?;
        replay.rows += a.count(&act(left_out))?;
        return Ok(());
    }
    stay(a, table, loaded, live, &excluding)
}

/// For each row that cannot come the one stays that would have gone for it: the most similar one.
fn stay(
    a: &mut Session,
    table: &Table,
    loaded: &Loaded,
    live: &str,
    excluding: &Excluding,
) -> Result<(), postgres::Error> {
    let whole = |alias: &str| whole(table, alias);
    let alike: Vec<String> =
        (0..table.columns.len()).map(|at| format!("({})::int4", same(table, at, "f", "t"))).collect();
    let numbers = a.rows(&format!("SELECT t.backout_n FROM {ROWS} AS t WHERE t.backout_why IS NOT NULL"))?;
    for number in numbers.iter().flatten().flatten() {
        let gone = a.value(&format!(
            "UPDATE pg_temp.backout_out SET n = n + 1 WHERE h = (
                 SELECT o.h FROM pg_temp.backout_out AS o JOIN {} AS f ON {} = o.h CROSS JOIN {ROWS} AS t
                 WHERE o.n < o.of AND t.backout_n = {number} ORDER BY {} DESC LIMIT 1) RETURNING encode(h, 'hex')",
            loaded.from,
            whole("f"),
            alike.join(" + ")
        ))?;
        let Some(gone) = gone else { return Ok(()) };
        let insert = format!(
            "INSERT INTO {live} {} OVERRIDING SYSTEM VALUE SELECT {} FROM {} AS f WHERE {} = '\\x{gone}'::bytea LIMIT 1",
            bracketed(table),
            list(table, "f"),
            loaded.from,
            whole("f")
        );
        let ours = format!("{} = '\\x{gone}'::bytea", whole("x"));
        // What is not admitted any more is told: its old form is.
        drop(excluding.attempt(&mut a.client, live, &insert, &ours)?);
    }
    Ok(())
}

/// Rows that should have gone and are not there: somebody changed or deleted them. The rows that would come in their
/// place, the most similar ones, stay away unless told to overwrite.
fn lost(a: &mut Session, replay: &mut Replay<'_>, table: &Table, loaded: &Loaded) -> Result<(), postgres::Error> {
    let whole = whole(table, "f");
    let now = match loaded.untouched().as_str() {
        "" => NO_ROW.to_owned(),
        _ => "no such row, or with values in columns of others".to_owned(),
    };
    let found = a.rows(&format!(
        "SELECT DISTINCT ON (o.h) encode(o.h, 'hex'), o.n, {} FROM pg_temp.backout_out AS o
         JOIN {} AS f ON {whole} = o.h WHERE o.n > 0",
        shown_row(table, "f"),
        loaded.from
    ))?;
    for row in found {
        let text = |at: usize| row[at].clone().unwrap_or_default();
        let number: u64 = text(1).parse().unwrap_or(1);
        for _ in 0..number {
            let conflict = replay.conflict(table, Some(text(2)), ConflictKind::Missing);
            replay.conflicts.push(Conflict { left: text(2), now: now.clone(), ..conflict });
        }
        if replay.on_conflict == OnConflict::Overwrite || loaded.wanted == 0 {
            continue;
        }
        let alike: Vec<String> =
            (0..table.columns.len()).map(|at| format!("({})::int4", same(table, at, "f", "t"))).collect();
        for _ in 0..number {
            a.run(&format!(
                "UPDATE pg_temp.backout_new SET n = n - 1 WHERE h = (
                     SELECT n.h FROM pg_temp.backout_new AS n JOIN {} AS t ON {} = n.h CROSS JOIN {} AS f
                     WHERE n.n > 0 AND {whole} = '\\x{}'::bytea ORDER BY {} DESC LIMIT 1)",
                loaded.to,
                self::whole(table, "t"),
                loaded.from,
                text(0),
                alike.join(" + ")
            ))?;
        }
    }
    Ok(())
}
