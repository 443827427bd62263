//! Rows that a constraint of their table does not admit, found among those that it does, each with the reason.
//!
//! Constraints that may wait for the end of the transaction are looked up by a question of our own: PostgreSQL never
//! checks them for a session whose triggers are silent.

use backout_model::target::TargetError;
use postgres::error::SqlState;
use postgres::{Client, Error};

use super::session::{Session, count, ident, is_lost, is_taken, literal, rows};
use super::stream::Table;
use super::table::list;

/// Why a row stays away that finds a unique value taken.
pub(super) const TAKEN: &str = "a row with the same value in a unique column";

/// The table of the rows that are to come: the columns of their table, a number, and why one is not admitted.
pub(super) const ROWS: &str = "pg_temp.backout_in";

/// True where a row is not what its table admits: a constraint of any kind but a foreign key forbids it, or a column cannot
/// hold the value.
pub(super) fn is_barred(error: &Error) -> bool {
    let code = error.code().map_or("", |code| code.code());
    !is_lost(error) && (code.starts_with("22") || code.starts_with("23") && code != "23503")
}

/// The server's words where a text is no value of its type: others renamed a label, or gave a domain another check.
pub(super) fn no_value(error: &TargetError) -> Option<String> {
    let TargetError::Failed { source, .. } = error else { return None };
    let error = source.downcast_ref::<postgres::Error>()?;
    let codes = [&SqlState::INVALID_TEXT_REPRESENTATION, &SqlState::CHECK_VIOLATION, &SqlState::UNDEFINED_OBJECT];
    error.code().filter(|code| codes.contains(code))?;
    Some(error.as_db_error()?.message().to_owned())
}

/// Why a row is not admitted.
pub(super) struct Barred {
    /// It has a value that another row has, as PostgreSQL saw at once.
    pub at_once: bool,
    pub why: String,
}

/// What rows of a table must not have in common, as conditions on a row `x` and a row `t`.
pub(super) struct Excluding {
    /// Of unique indexes and exclusion constraints that are checked at once.
    pub at_once: Vec<String>,
    /// Of those that may wait.
    pub later: Vec<String>,
}

impl Excluding {
    /// Reads them; expressions and conditions of an index are part of it.
    pub(super) fn of(client: &mut Client, live: &str) -> Result<Self, Error> {
        let within = |alias: &str, text: &str| format!("'(SELECT ' || {text} || ' FROM (SELECT {alias}.*) AS s)'");
        let part = |alias: &str| {
            let expression = within(alias, "pg_get_indexdef(i.indexrelid, at + 1, false)");
            format!("coalesce('{alias}.' || quote_ident(a.attname), {expression})")
        };
        let only = |alias: &str| within(alias, "pg_get_expr(i.indpred, i.indrelid)");
        let found = rows(
            client,
            &format!(
                "SELECT i.indimmediate, string_agg(
                 CASE WHEN to_jsonb(i) ->> 'indnullsnotdistinct' = 'true' THEN {x} || ' IS NOT DISTINCT FROM ' || {t}
                     ELSE {x} || format(' OPERATOR(%I.%s) ', n.nspname, o.oprname) || {t} END, ' AND ' ORDER BY at)
                 || CASE WHEN i.indpred IS NULL THEN '' ELSE ' AND ' || {only_x} || ' AND ' || {only_t} END
             FROM pg_index AS i LEFT JOIN pg_constraint AS k ON k.conindid = i.indexrelid AND k.contype = 'x'
             CROSS JOIN generate_series(0, i.indnkeyatts - 1) AS at
             LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[at] AND i.indkey[at] <> 0
             JOIN pg_opclass AS c ON c.oid = i.indclass[at]
             LEFT JOIN pg_amop AS m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3
                 AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype AND k.oid IS NULL
             JOIN pg_operator AS o ON o.oid = coalesce(k.conexclop[at + 1], m.amopopr)
             JOIN pg_namespace AS n ON n.oid = o.oprnamespace
             WHERE i.indrelid = {live}::regclass AND (i.indisunique OR i.indisexclusion) AND i.indisvalid
             GROUP BY i.indexrelid, i.indimmediate, i.indpred, i.indrelid ORDER BY i.indexrelid",
                x = part("x"),
                t = part("t"),
                only_x = only("x"),
                only_t = only("t"),
                live = literal(live)
            ),
        )?;
        let mut all = Self::none();
        for row in found {
            let Some(condition) = row[1].clone() else { continue };
            if row[0].as_deref() == Some("t") { all.at_once.push(condition) } else { all.later.push(condition) }
        }
        Ok(all)
    }

    pub(super) fn none() -> Self {
        Self { at_once: Vec::new(), later: Vec::new() }
    }

    /// Those that may wait, of a table that has any.
    pub(super) fn waiting(client: &mut Client, live: &str) -> Result<Self, Error> {
        let sql =
            format!("SELECT 1 FROM pg_index WHERE indrelid = {}::regclass AND NOT indimmediate LIMIT 1", literal(live));
        let mut all = Self::none();
        if !rows(client, &sql)?.is_empty() {
            all.later = Self::of(client, live)?.later;
        }
        Ok(all)
    }

    /// True where a row of `live` for which `ours` holds has something in common with another that it must not have,
    /// and nobody would check it.
    fn is_broken(&self, client: &mut Client, live: &str, ours: &str) -> Result<bool, Error> {
        for condition in &self.later {
            let sql = format!(
                "SELECT 1 FROM ONLY {live} AS x JOIN ONLY {live} AS t ON {condition} AND t.ctid <> x.ctid WHERE {ours} LIMIT 1"
            );
            if !rows(client, &sql)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Runs a statement whose rows `x` of `live` are those for which `ours` holds; where any is not admitted nothing is done.
    pub(super) fn attempt(
        &self,
        client: &mut Client,
        live: &str,
        sql: &str,
        ours: &str,
    ) -> Result<Result<u64, Barred>, Error> {
        client.batch_execute("SAVEPOINT backout_attempt")?;
        let barred = match count(client, sql) {
            Ok(done) if done == 0 || !self.is_broken(client, live, ours)? => {
                client.batch_execute("RELEASE backout_attempt")?;
                return Ok(Ok(done));
            }
            Ok(_) => Barred { at_once: false, why: TAKEN.to_owned() },
            Err(error) if is_taken(&error) => Barred { at_once: true, why: TAKEN.to_owned() },
            Err(error) if is_barred(&error) => Barred { at_once: false, why: words(&error) },
            Err(error) => return Err(error),
        };
        client.batch_execute("ROLLBACK TO backout_attempt; RELEASE backout_attempt")?;
        Ok(Err(barred))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &String> {
        self.at_once.iter().chain(&self.later)
    }

    /// Takes away the rows that have in common with one of `rows` what they must not. `own` is the condition that a row `x` is
    /// the row `t`; `but` leaves rows alone.
    pub(super) fn clear(&self, client: &mut Client, live: &str, rows: &str, own: &str, but: &str) -> Result<(), Error> {
        for condition in self.all() {
            count(
                client,
                &format!("DELETE FROM ONLY {live} AS x USING {rows} AS t WHERE {condition} AND NOT ({own}){but}"),
            )?;
        }
        Ok(())
    }
}

/// Collects the rows `t` of `from` in [`ROWS`].
pub(super) fn collect(a: &mut Session, table: &Table, from: &str) -> Result<(), Error> {
    a.run(&format!(
        "DROP TABLE IF EXISTS {ROWS};
         CREATE TEMPORARY TABLE backout_in ON COMMIT DROP AS SELECT {}, {} FROM {from}",
        list(table, "t"),
        numbered()
    ))?;
    number(a, ROWS)
}

/// The columns of a table of rows that are to come, beside theirs.
pub(super) fn numbered() -> &'static str {
    "row_number() OVER () AS backout_n, NULL::text AS backout_why"
}

/// Makes rows quick to find by their number.
pub(super) fn number(a: &mut Session, rows: &str) -> Result<(), Error> {
    a.run(&format!("CREATE UNIQUE INDEX ON {rows} (backout_n); ANALYZE {rows}"))
}

/// The rows of a table like [`ROWS`] that are to be done, and how.
pub(super) struct Admission<'s> {
    pub a: &'s mut Session,
    pub live: &'s str,
    pub rows: &'s str,
    pub excluding: &'s Excluding,
    /// The statement for the rows `t` for which a condition holds.
    pub act: &'s dyn Fn(&str) -> String,
    /// The condition that a row `x` of the table is one of them, as it is once done.
    pub ours: &'s dyn Fn(&str) -> String,
}

impl Admission<'_> {
    /// Does all that are admitted, and notes at the others why not; how many were done.
    pub(super) fn all(&mut self) -> Result<u64, Error> {
        let last = self.a.value(&format!("SELECT max(backout_n) FROM {}", self.rows))?;
        let Some(last) = last.and_then(|text| text.parse::<u64>().ok()) else { return Ok(0) };
        let mut done = 0;
        let mut open = vec![(1, last)];
        while let Some((first, last)) = open.pop() {
            let range = format!("t.backout_n BETWEEN {first} AND {last}");
            let (sql, ours) = ((self.act)(&range), (self.ours)(&range));
            match self.excluding.attempt(&mut self.a.client, self.live, &sql, &ours)? {
                Ok(rows) => done += rows,
                Err(barred) if first == last => {
                    let why = literal(&barred.why);
                    self.a.count(&format!("UPDATE {} SET backout_why = {why} WHERE backout_n = {first}", self.rows))?;
                }
                Err(_) => {
                    let middle = first + (last - first) / 2;
                    open.extend([(middle + 1, last), (first, middle)]);
                }
            }
        }
        Ok(done)
    }
}

/// The server's words, without the row: that is shown beside them.
fn words(error: &Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

/// A statement that inserts the rows `t` of `rows` for which a condition holds.
pub(super) fn insertion(table: &Table, live: &str, rows: &str, condition: &str) -> String {
    format!(
        "INSERT INTO {live} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {rows} AS t WHERE {condition}",
        list(table, ""),
        list(table, "t")
    )
}

/// A statement that gives rows of `live` the values that `columns` have in the rows `t` of `rows` for which a condition holds.
pub(super) fn update(live: &str, rows: &str, columns: &[&str], own: &str, condition: &str) -> String {
    let set: Vec<String> = columns.iter().map(|name| format!("{name} = t.{name}", name = ident(name))).collect();
    format!("UPDATE ONLY {live} AS x SET {} FROM {rows} AS t WHERE {own} AND {condition}", set.join(", "))
}
