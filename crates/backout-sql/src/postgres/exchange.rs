//! Rows that a unique value keeps from their change: values that move round among rows go by deleting and inserting, and
//! what a constraint has against a row is a conflict.

use backout_model::conflict::{Conflict, ConflictKind};

use super::admit::{self, Admission, Excluding, ROWS, TAKEN};
use super::foreign::{self, Following};
use super::guard::Rows;
use super::load::NO_ROW;
use super::session::{Row, ident, literal};
use super::stream::Table;
use super::table::list;
use super::terms::{keyed, shown_key, shown_row};

/// The rows under way, as they are to be, with the place where each was.
const MOVED: &str = "pg_temp.backout_moved";

/// What keeps values from going round.
const FOLLOWED: &str = "its unique values move round, and rows of other tables would go along";

impl Rows<'_, '_> {
    /// Changes rows of both images that a unique value keeps from it one after the other; how many. Values that no other row
    /// may have go round by deleting and inserting, or, where rows of other tables would go along, by way of a third value.
    pub(super) fn exchange(&mut self, columns: &[usize], set: &[String], guard: &str) -> Result<u64, postgres::Error> {
        let stays = self.replay.cascades && !foreign::followed(self.a, self.table, Following::Deletes)?.is_empty();
        let mut blocked: Vec<String> = Vec::new();
        loop {
            self.a.run("SAVEPOINT backout_exchange")?;
            let free = if blocked.is_empty() {
                guard.to_owned()
            } else {
                format!("{guard} AND x.ctid <> ALL ('{{{}}}'::tid[])", blocked.join(","))
            };
            let moved = self.move_rows(columns, set, &free, stays)?;
            let found = self.left_out()?;
            if found.is_empty() {
                self.a.run("RELEASE backout_exchange")?;
                return Ok(moved);
            }
            if self.replay.overwrites() {
                let condition = "t.backout_why IS NOT NULL";
                let rows = format!("(SELECT * FROM {MOVED} AS t WHERE {condition})");
                self.clear(&rows)?;
                self.a.count(&putting(&self.loaded.whole(), &self.live, columns, stays, condition))?;
                self.constraint(found);
                self.a.run("RELEASE backout_exchange")?;
                return Ok(moved);
            }
            blocked.extend(found.iter().filter_map(|row| Some(format!("\"{}\"", row.first()?.as_deref()?))));
            self.a.run("ROLLBACK TO backout_exchange; RELEASE backout_exchange")?;
            self.constraint(found);
        }
    }

    /// Takes the rows out of one another's way and puts them as they are to be, but for those that are not admitted. How many
    /// there are.
    fn move_rows(
        &mut self,
        columns: &[usize],
        set: &[String],
        guard: &str,
        stays: bool,
    ) -> Result<u64, postgres::Error> {
        // What others wrote into columns of their own goes along.
        let table = self.loaded.whole();
        let names: Vec<String> = (0..table.columns.len())
            .map(|at| {
                let name = ident(&table.columns[at].name);
                match columns.iter().position(|one| *one == at) {
                    Some(place) => format!("{} AS {name}", set[place]),
                    None => format!("x.{name}"),
                }
            })
            .collect();
        self.a.run(&format!(
            "DROP TABLE IF EXISTS {MOVED};
             CREATE TEMPORARY TABLE backout_moved ON COMMIT DROP AS
             SELECT *, {} FROM (SELECT x.ctid AS backout_at, {} FROM {} AND {guard} FOR UPDATE OF x) AS s",
            admit::numbered(),
            names.join(", "),
            self.joined(columns)
        ))?;
        admit::number(self.a, MOVED)?;
        let live = self.live.clone();
        if stays {
            if !self.park(columns)? {
                self.a.count(&format!("UPDATE {MOVED} SET backout_why = {}", literal(FOLLOWED)))?;
                return Ok(0);
            }
        } else {
            self.a.count(&format!("DELETE FROM ONLY {live} AS x USING {MOVED} AS m WHERE x.ctid = m.backout_at"))?;
        }
        self.admit(MOVED, &|condition| putting(&table, &live, columns, stays, condition))
    }

    /// Does what is to be done with the rows `t` of a table of rows, but for those that are not admitted; how many were.
    fn admit(&mut self, rows: &str, act: &dyn Fn(&str) -> String) -> Result<u64, postgres::Error> {
        let (table, live) = (self.table, self.live.clone());
        let excluding = Excluding::of(&mut self.a.client, &live)?;
        let ours =
            |range: &str| format!("EXISTS (SELECT FROM {rows} AS t WHERE {} AND {range})", keyed(table, "x", "t"));
        Admission { a: self.a, live: &live, rows, excluding: &excluding, act, ours: &ours }.all()
    }

    /// Gives the columns that change values that nobody has, so that theirs are free; false where that is not possible.
    fn park(&mut self, columns: &[usize]) -> Result<bool, postgres::Error> {
        let table = self.table;
        let facts = self.a.rows(&format!(
            "SELECT a.attname, a.attnotnull, t.typcategory, t.oid = 'uuid'::regtype,
                 EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = a.attrelid AND (i.indisunique OR i.indisexclusion)
                     AND (a.attnum = ANY (i.indkey) OR i.indexprs IS NOT NULL OR i.indpred IS NOT NULL))
             FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
             WHERE a.attrelid = {}::regclass AND a.attnum > 0 AND NOT a.attisdropped",
            literal(&self.live)
        ))?;
        let mut set = Vec::new();
        for at in columns.iter().filter(|at| !table.key.iter().any(|key| key.column == **at)) {
            let column = &table.columns[*at];
            let Some(fact) = facts.iter().find(|fact| fact[0].as_deref() == Some(&column.name)) else { continue };
            let is = |at: usize| fact[at].as_deref() == Some("t");
            if !is(4) {
                continue;
            }
            let name = ident(&column.name);
            let greatest = format!("(SELECT max({name}) FROM ONLY {})", self.live);
            let value = match fact[2].as_deref() {
                _ if column.always => return Ok(false),
                _ if !is(1) => "NULL".to_owned(),
                _ if is(3) => "gen_random_uuid()".to_owned(),
                Some("N") => format!("({greatest} + t.backout_n)::{}", column.kind),
                Some("S") => "'~' || to_hex(t.backout_n)".to_owned(),
                Some("D") => format!("({greatest} + t.backout_n * interval '1 day')::{}", column.kind),
                _ => return Ok(false),
            };
            set.push(format!("{name} = {value}"));
        }
        if set.is_empty() {
            return Ok(true);
        }
        let update = format!(
            "UPDATE ONLY {} AS x SET {} FROM {MOVED} AS t WHERE x.ctid = t.backout_at",
            self.live,
            set.join(", ")
        );
        Ok(Excluding::none().attempt(&mut self.a.client, &self.live, &update, "true")?.is_ok())
    }

    /// The rows that were not admitted: their place, key, text, and why.
    fn left_out(&mut self) -> Result<Vec<Row>, postgres::Error> {
        let sql = format!(
            "SELECT t.backout_at, {}, {}, t.backout_why FROM {MOVED} AS t WHERE t.backout_why IS NOT NULL",
            shown_key(self.table, "t"),
            shown_row(self.table, "t")
        );
        self.a.rows(&sql)
    }

    fn constraint(&mut self, rows: Vec<Row>) {
        for row in rows {
            let conflict = self.replay.conflict(self.table, row[1].clone(), ConflictKind::Constraint);
            self.replay.conflicts.push(Conflict {
                before: row[2].clone().unwrap_or_default(),
                now: row[3].clone().unwrap_or_default(),
                ..conflict
            });
        }
    }

    /// Inserts the rows `t` of `from`, which no row with the same key is in the way of; how many.
    pub(super) fn insert(&mut self, from: &str) -> Result<u64, postgres::Error> {
        let (table, live) = (self.table, self.live.clone());
        let insert = format!(
            "INSERT INTO {live} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {from}",
            list(table, ""),
            list(table, "t")
        );
        let ours = format!("EXISTS (SELECT FROM {} AS t WHERE {})", self.loaded.to, keyed(table, "x", "t"));
        let barred = match self.waiting.attempt(&mut self.a.client, &live, &insert, &ours)? {
            Ok(done) => {
                self.replay.rows += done;
                return Ok(done);
            }
            Err(barred) => barred,
        };
        admit::collect(self.a, table, from)?;
        let free = if barred.at_once && self.waiting.later.is_empty() { self.insert_free()? } else { None };
        let mut done = match free {
            Some(done) => done,
            None => self.admit(ROWS, &|condition| admit::insertion(table, &live, ROWS, condition))?,
        };
        let left_out = "t.backout_why IS NOT NULL";
        let shown = format!("{}, {}, t.backout_why", shown_key(table, "t"), shown_row(table, "t"));
        self.look(&shown, "1", &format!("{ROWS} AS t WHERE {left_out}"), "", |replay, table, row| {
            let conflict = replay.conflict(table, row[0].clone(), ConflictKind::Constraint);
            replay.conflicts.push(Conflict {
                before: row[1].clone().unwrap_or_default(),
                left: NO_ROW.to_owned(),
                now: row[2].clone().unwrap_or_default(),
                ..conflict
            });
        })?;
        if self.replay.overwrites() {
            self.clear(&format!("(SELECT * FROM {ROWS} AS t WHERE {left_out})"))?;
            done += self.a.count(&admit::insertion(table, &live, ROWS, left_out))?;
        }
        self.replay.rows += done;
        Ok(done)
    }

    /// Inserts the collected rows that find no unique value taken, all at once; `None` where that is not what is wrong.
    fn insert_free(&mut self) -> Result<Option<u64>, postgres::Error> {
        let (table, live) = (self.table, self.live.clone());
        let insert = admit::insertion(table, &live, ROWS, "true ON CONFLICT DO NOTHING");
        let Ok(done) = self.waiting.attempt(&mut self.a.client, &live, &insert, "true")? else { return Ok(None) };
        self.a.count(&format!(
            "UPDATE {ROWS} AS t SET backout_why = {} WHERE NOT EXISTS (SELECT FROM ONLY {live} AS x WHERE {})",
            literal(TAKEN),
            keyed(table, "x", "t")
        ))?;
        Ok(Some(done))
    }

    /// Takes away the rows that have a unique value of those in `rows`, but for those that rows of other tables would follow.
    fn clear(&mut self, rows: &str) -> Result<(), postgres::Error> {
        let own = keyed(self.table, "x", "t");
        let mut but = String::new();
        if self.replay.cascades {
            for link in foreign::followed(self.a, self.table, Following::Deletes)? {
                but += &format!(" AND NOT EXISTS (SELECT FROM {} AS c WHERE {})", link.child, link.points_at("x"));
            }
        }
        Excluding::of(&mut self.a.client, &self.live)?.clear(&mut self.a.client, &self.live, rows, &own, &but)
    }
}

/// The statement that puts the rows `t` under way as they are to be, where a condition holds.
fn putting(table: &Table, live: &str, columns: &[usize], stays: bool, condition: &str) -> String {
    if stays {
        let names: Vec<&str> = columns.iter().map(|at| table.columns[*at].name.as_str()).collect();
        admit::update(live, MOVED, &names, &keyed(table, "x", "t"), condition)
    } else {
        admit::insertion(table, live, MOVED, condition)
    }
}
