//! Rows that a unique value keeps from their change: values that move round among rows go by deleting and inserting, and
//! a value that somebody else's row has is a conflict.

use backout_model::conflict::{Conflict, ConflictKind};

use super::guard::Rows;
use super::session::{Row, ident, is_taken};
use super::table::list;
use super::terms::{keyed, shown_key, shown_row};

impl Rows<'_, '_> {
    /// Changes rows of both images by deleting and inserting them; how many.
    pub(super) fn exchange(&mut self, columns: &[usize], set: &[String], guard: &str) -> Result<u64, postgres::Error> {
        let mut blocked: Vec<String> = Vec::new();
        loop {
            self.a.run("SAVEPOINT backout_exchange")?;
            let free = if blocked.is_empty() {
                guard.to_owned()
            } else {
                format!("{guard} AND x.ctid <> ALL ('{{{}}}'::tid[])", blocked.join(","))
            };
            let moved = self.move_rows(columns, set, &free)?;
            let found = self.left_out()?;
            if found.is_empty() {
                self.a.run("RELEASE backout_exchange")?;
                return Ok(moved);
            }
            if self.replay.overwrites() {
                let from = format!("pg_temp.backout_moved AS t WHERE {}", self.not_there());
                self.a.run(&format!(
                    "DROP TABLE IF EXISTS pg_temp.backout_in;
                     CREATE TEMPORARY TABLE backout_in ON COMMIT DROP AS SELECT {} FROM {from}",
                    list(self.table, "t")
                ))?;
                self.clear()?;
                let names = list(self.table, "");
                let back = format!(
                    "INSERT INTO {} ({names}) OVERRIDING SYSTEM VALUE SELECT {} FROM {from}",
                    self.live,
                    list(self.table, "t")
                );
                self.a.count(&back)?;
                self.constraint(found);
                self.a.run("RELEASE backout_exchange")?;
                return Ok(moved);
            }
            blocked.extend(found.iter().filter_map(|row| Some(format!("\"{}\"", row.first()?.as_deref()?))));
            self.a.run("ROLLBACK TO backout_exchange; RELEASE backout_exchange")?;
            self.constraint(found);
        }
    }

    /// Deletes the rows and inserts them as they are to be; rows that are in the way of any stay out.
    fn move_rows(&mut self, columns: &[usize], set: &[String], guard: &str) -> Result<u64, postgres::Error> {
        let names: Vec<String> = (0..self.table.columns.len())
            .map(|at| {
                let name = ident(&self.table.columns[at].name);
                match columns.iter().position(|one| *one == at) {
                    Some(place) => format!("{} AS {name}", set[place]),
                    None => format!("x.{name}"),
                }
            })
            .collect();
        self.a.run(&format!(
            "DROP TABLE IF EXISTS pg_temp.backout_moved;
             CREATE TEMPORARY TABLE backout_moved ON COMMIT DROP AS
             SELECT x.ctid AS backout_at, {} FROM {} AND {guard} FOR UPDATE OF x",
            names.join(", "),
            self.joined(columns)
        ))?;
        let moved = self.a.count(&format!(
            "DELETE FROM ONLY {} AS x USING pg_temp.backout_moved AS m WHERE x.ctid = m.backout_at",
            self.live
        ))?;
        self.a.count(&format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM pg_temp.backout_moved AS t ON CONFLICT DO NOTHING",
            self.live,
            list(self.table, ""),
            list(self.table, "t")
        ))?;
        Ok(moved)
    }

    fn not_there(&self) -> String {
        format!("NOT EXISTS (SELECT FROM ONLY {} AS x WHERE {})", self.live, keyed(self.table, "x", "t"))
    }

    /// The rows that could not be inserted: their place, key and text.
    fn left_out(&mut self) -> Result<Vec<Row>, postgres::Error> {
        let sql = format!(
            "SELECT t.backout_at, {}, {} FROM pg_temp.backout_moved AS t WHERE {}",
            shown_key(self.table, "t"),
            shown_row(self.table, "t"),
            self.not_there()
        );
        self.a.rows(&sql)
    }

    fn constraint(&mut self, rows: Vec<Row>) {
        for row in rows {
            let conflict = self.replay.conflict(self.table, row[1].clone(), ConflictKind::Constraint);
            self.replay.conflicts.push(Conflict {
                before: row[2].clone().unwrap_or_default(),
                now: "another row with the same value in a unique column".to_owned(),
                ..conflict
            });
        }
    }

    /// Inserts the rows `t` of `from`, which no row with the same key is in the way of; how many.
    pub(super) fn insert(&mut self, from: &str) -> Result<u64, postgres::Error> {
        let insert = format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {from}",
            self.live,
            list(self.table, ""),
            list(self.table, "t")
        );
        self.a.run("SAVEPOINT backout_rows")?;
        match self.a.count(&insert) {
            Ok(done) => {
                self.a.run("RELEASE backout_rows")?;
                self.replay.rows += done;
                return Ok(done);
            }
            Err(source) if is_taken(&source) => self.a.run("ROLLBACK TO backout_rows; RELEASE backout_rows")?,
            Err(source) => return Err(source),
        }
        let mut done = self.a.count(&format!("{insert} ON CONFLICT DO NOTHING"))?;
        let shown = format!("{}, {}", shown_key(self.table, "t"), shown_row(self.table, "t"));
        self.look(&shown, "1", from, "", |replay, table, row| {
            let conflict = replay.conflict(table, row[0].clone(), ConflictKind::Constraint);
            replay.conflicts.push(Conflict {
                before: row[1].clone().unwrap_or_default(),
                left: "no such row".to_owned(),
                now: "a row with the same value in a unique column".to_owned(),
                ..conflict
            });
        })?;
        if self.replay.overwrites() {
            self.a.run(&format!(
                "DROP TABLE IF EXISTS pg_temp.backout_in;
                 CREATE TEMPORARY TABLE backout_in ON COMMIT DROP AS SELECT {} FROM {from}",
                list(self.table, "t")
            ))?;
            self.clear()?;
            done += self.a.count(&insert)?;
        }
        self.replay.rows += done;
        Ok(done)
    }

    /// Takes away the rows that have a unique value of those in `backout_in`.
    fn clear(&mut self) -> Result<(), postgres::Error> {
        let indexes = self.a.rows(&format!(
            "SELECT array_to_string(array_agg(format('x.%1$I OPERATOR(%2$I.%3$s) t.%1$I', a.attname, n.nspname, o.oprname)), ' AND ')
             FROM pg_index AS i CROSS JOIN generate_series(0, i.indnkeyatts - 1) AS at
             JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[at]
             JOIN pg_opclass AS c ON c.oid = i.indclass[at]
             JOIN pg_amop AS m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3
                 AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype
             JOIN pg_operator AS o ON o.oid = m.amopopr JOIN pg_namespace AS n ON n.oid = o.oprnamespace
             WHERE i.indrelid = {}::regclass AND i.indisunique AND i.indexprs IS NULL GROUP BY i.indexrelid",
            super::session::literal(&self.live)
        ))?;
        for condition in indexes.into_iter().filter_map(|mut row| row[0].take()) {
            let own = keyed(self.table, "x", "t");
            self.a.count(&format!(
                "DELETE FROM ONLY {} AS x USING pg_temp.backout_in AS t WHERE {condition} AND NOT ({own})",
                self.live
            ))?;
        }
        Ok(())
    }
}
