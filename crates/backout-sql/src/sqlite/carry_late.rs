//! The rows of a restored table that others wrote to since: they come back last, with their newer values, once what was
//! in the way of these has gone.

use std::collections::BTreeSet;

use backout_model::conflict::{Conflict, ConflictKind, Conflicts};
use rusqlite::Connection;

use super::carry::{Carry, ignore_checks};
use super::late::Newer;

impl Carry {
    /// Brings the rows back that wait, with their newer values. What a constraint of the old table forbids is a conflict,
    /// and the older value stays: that of one column where that is enough, else of all that is in each other's way.
    pub(super) fn late_ones(&mut self, conn: &Connection, conflicts: &mut Conflicts) -> rusqlite::Result<()> {
        if self.late.count() == 0 {
            return Ok(());
        }
        let found = match self.with_newer_values(conn)? {
            Ok(found) => found,
            Err(mut old) => loop {
                match self.with_older_values(conn, &old)? {
                    Ok(found) => break found,
                    Err(more) => old.extend(more),
                }
            },
        };
        for conflict in found {
            self.lost.push(conflict.clone());
            conflicts.push(conflict);
        }
        self.late.end(conn)
    }

    /// All rows with all newer values but for those single ones that are forbidden. The rows for which that is not enough;
    /// then nothing has changed.
    fn with_newer_values(&self, conn: &Connection) -> rusqlite::Result<Result<Vec<Conflict>, BTreeSet<i64>>> {
        conn.execute_batch("SAVEPOINT backout_late")?;
        let mut forbidden = BTreeSet::new();
        for id in 1..=self.late.count() {
            if self.late.give_back(conn, id)?.is_err() {
                forbidden.insert(id);
            }
        }
        let mut found = Vec::new();
        let mut stuck = false;
        for id in &forbidden {
            match self.without_one(conn, *id)? {
                Some(conflict) => found.extend(conflict),
                None => stuck = true,
            }
        }
        if stuck {
            conn.execute_batch("ROLLBACK TO backout_late; RELEASE backout_late")?;
            return Ok(Err(forbidden));
        }
        conn.execute_batch("RELEASE backout_late")?;
        Ok(Ok(found))
    }

    /// A row with all newer values but one, which is the conflict, or with all of them; none where neither is allowed.
    fn without_one(&self, conn: &Connection, id: i64) -> rusqlite::Result<Option<Vec<Conflict>>> {
        let Err(why) = self.late.give_back(conn, id)? else { return Ok(Some(Vec::new())) };
        for newer in self.late.newer(conn, id)? {
            conn.execute_batch("SAVEPOINT backout_one")?;
            self.late.keep_older(conn, id, newer.place)?;
            if self.late.give_back(conn, id)?.is_ok() {
                conn.execute_batch("RELEASE backout_one")?;
                return Ok(Some(vec![self.forbidden(conn, id, &newer, &why)?]));
            }
            conn.execute_batch("ROLLBACK TO backout_one; RELEASE backout_one")?;
        }
        Ok(None)
    }

    /// The rows `old` as they were, and then with each newer value that is allowed; all others with their newer values.
    /// Others that are forbidden now; then nothing has changed.
    fn with_older_values(
        &self,
        conn: &Connection,
        old: &BTreeSet<i64>,
    ) -> rusqlite::Result<Result<Vec<Conflict>, Vec<i64>>> {
        conn.execute_batch("SAVEPOINT backout_late")?;
        // As they were they may break a check already.
        ignore_checks(conn, true)?;
        for id in old {
            self.late.give_up(conn, *id)?;
        }
        ignore_checks(conn, false)?;
        let mut more = Vec::new();
        for id in (1..=self.late.count()).filter(|id| !old.contains(id)) {
            if self.late.give_back(conn, id)?.is_err() {
                more.push(id);
            }
        }
        if !more.is_empty() {
            conn.execute_batch("ROLLBACK TO backout_late; RELEASE backout_late")?;
            return Ok(Err(more));
        }
        let mut found = Vec::new();
        let key = self.key_places();
        for id in old {
            for newer in self.late.newer(conn, *id)? {
                if let Err(why) = self.late.set(conn, *id, newer.place, &key)? {
                    found.push(self.forbidden(conn, *id, &newer, &why)?);
                }
            }
        }
        conn.execute_batch("RELEASE backout_late")?;
        Ok(Ok(found))
    }

    /// Where the key's columns are among the stored ones of the old table.
    fn key_places(&self) -> Vec<usize> {
        let place = |key: &String| self.old_shape.stored().position(|column| column.name.eq_ignore_ascii_case(key));
        self.key.iter().filter_map(place).collect()
    }

    fn forbidden(&self, conn: &Connection, id: i64, newer: &Newer, why: &str) -> rusqlite::Result<Conflict> {
        let row = self.late.shown(conn, id)?;
        let key = self.key_places().into_iter().map(|at| row[at].clone()).collect::<Vec<_>>().join(",");
        Ok(Conflict {
            column: self.old_shape.stored().nth(newer.place).map(|column| column.name.clone()),
            before: newer.was.clone(),
            ..self.conflict(ConflictKind::Constraint, &key, format!("{}, and {why}", newer.now))
        })
    }
}
