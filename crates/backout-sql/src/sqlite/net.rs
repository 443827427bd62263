//! Undoes or redoes a span by its net effect: for each row its first before-image and its last after-image.
//!
//! Needed where a row was changed more than once in the span and by somebody else since. The images wait in a
//! temporary table, on disk, so that memory stays bounded.

use backout_model::target::TargetError;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::guard::{Change, Outcome, Settled, decoded, encoded};
use super::replay::{Direction, Halt, Replay, Span, left_out_instead};
use super::stream::{Block, Damage, Op, Reader, Record, RowImages};
use super::twice::long_key;
use super::{encoding, value};

const MAKE: &str = "
    CREATE TEMP TABLE IF NOT EXISTS backout_net (
        number INTEGER NOT NULL, key BLOB NOT NULL, first_rowid INTEGER NOT NULL, last_rowid INTEGER NOT NULL,
        first BLOB, last BLOB, PRIMARY KEY (number, key)
    ) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS backout_parked (
        number INTEGER NOT NULL, rowid_wanted INTEGER NOT NULL, now BLOB NOT NULL, final BLOB NOT NULL
    );
    DELETE FROM temp.backout_net;
    DELETE FROM temp.backout_parked;
";

impl Replay<'_> {
    /// Replays a span by net effect; `statement` hears of its statements first.
    pub fn span_by_net(
        &mut self,
        reader: &mut Reader<'_>,
        span: Span,
        statement: &mut dyn FnMut(&Record<'_>) -> Result<(), TargetError>,
    ) -> Result<(), Halt> {
        self.whole()?;
        self.gather(reader, span, statement)?;
        // What goes makes room for what comes.
        self.pass(true, false, false)?;
        self.pass(true, true, true)?;
        self.pass(false, true, false)?;
        self.parked()?;
        self.sql("DELETE FROM temp.backout_net; DELETE FROM temp.backout_parked;")?;
        Ok(())
    }

    /// Rows of others are taken out and brought back, so they must come back to the byte.
    fn whole(&self) -> Result<(), TargetError> {
        let tables = self.tables().iter().map(|table| table.name.as_str());
        let halves = encoding::first_with_halves(self.conn, tables).map_err(|source| self.failed(source))?;
        match halves {
            Some((table, column)) => Err(encoding::refused(self.label, "what others wrote since", table, &column)),
            None => Ok(()),
        }
    }

    fn sql(&self, sql: &str) -> Result<(), TargetError> {
        self.conn.execute_batch(sql).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: rusqlite::Error) -> TargetError {
        TargetError::failed(format!("cannot sort the images of {}", self.label), source)
    }

    fn gather(
        &mut self,
        reader: &mut Reader<'_>,
        span: Span,
        statement: &mut dyn FnMut(&Record<'_>) -> Result<(), TargetError>,
    ) -> Result<(), Halt> {
        self.sql(MAKE)?;
        let mut upsert = self
            .conn
            .prepare(
                "INSERT INTO temp.backout_net VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (number, key) DO UPDATE SET last = excluded.last, last_rowid = excluded.last_rowid",
            )
            .map_err(|source| self.failed(source))?;
        let mut block = Block::default();
        let mut at = span.start;
        while at < span.end {
            let head = reader.head(at).map_err(|source| self.damaged(source))?;
            reader.block(&head, &mut block).map_err(|source| self.damaged(source))?;
            let mut images = RowImages::default();
            for record in 0..block.len() {
                let record = block.record(record).map_err(|source| self.damaged(source))?;
                let Record::Row(row) = &record else {
                    statement(&record)?;
                    continue;
                };
                let Some(table) = self.table(row.table) else {
                    return Err(self.damaged(Damage("a row is of no known table")).into());
                };
                row.images(table.columns.len(), &mut images).map_err(|source| self.damaged(source))?;
                let before = (row.op != Op::Insert).then(|| long_key(table, images.rowid, &images.before));
                let after = (row.op != Op::Delete).then(|| long_key(table, images.new_rowid, &images.after));
                let was = before.as_ref().map(|_| encoded(&images.before));
                let is = after.as_ref().map(|_| encoded(&images.after));
                let number = row.table;
                let mut put = |key: &[u8], from: i64, to: i64, first: Option<&[u8]>, last: Option<&[u8]>| {
                    upsert.execute(params![number, key, from, to, first, last])
                };
                let (from, to) = (images.rowid, images.new_rowid);
                let done = match (&before, &after) {
                    (Some(old), Some(new)) if old == new => put(old, from, to, was.as_deref(), is.as_deref()),
                    (old, new) => {
                        let old = old.as_ref().map_or(Ok(0), |old| put(old, from, from, was.as_deref(), None));
                        let new = new.as_ref().map_or(Ok(0), |new| put(new, to, to, None, is.as_deref()));
                        old.and(new)
                    }
                };
                done.map_err(|source| self.failed(source))?;
                if before.is_some() && after.is_some() && before != after {
                    let known = self.track.known_as_a_whole(&table.name).unwrap_or(&table.name).to_owned();
                    self.guard.loses_a_key(&known);
                }
                self.rows += 1;
            }
            at = head.end();
        }
        Ok(())
    }

    /// Goes through the rows that are expected to be there or not, and wanted to be there or not. With `wait`, a row
    /// that only a unique value keeps from its change is set aside.
    fn pass(&mut self, expected: bool, wanted: bool, wait: bool) -> Result<(), Halt> {
        let order = match self.direction {
            Direction::Undo => "last_rowid, first_rowid, last, first",
            Direction::Redo => "first_rowid, last_rowid, first, last",
        };
        let (conn, label) = (self.conn, self.label);
        let mut all = conn
            .prepare(&format!("SELECT number, {order} FROM temp.backout_net ORDER BY number, key"))
            .map_err(|source| self.failed(source))?;
        let mut rows = all.query([]).map_err(|source| self.failed(source))?;
        while let Some(row) = rows.next().map_err(|source| self.failed(source))? {
            let get = |at| row.get_ref(at).map_err(|source| self.failed(source));
            let blob = |value: ValueRef<'_>| match value {
                ValueRef::Blob(bytes) => Some(bytes.to_vec()),
                _ => None,
            };
            let number: u32 = row.get(0).map_err(|source| self.failed(source))?;
            let rowid: i64 = row.get(1).map_err(|source| self.failed(source))?;
            let new_rowid: i64 = row.get(2).map_err(|source| self.failed(source))?;
            let (expect, want) = (blob(get(3)?), blob(get(4)?));
            let is_same = expect == want && rowid == new_rowid;
            if expect.is_some() != expected || want.is_some() != wanted || is_same || !self.is_there(number)? {
                continue;
            }
            let expect = self.decoded(expect.as_deref())?;
            let want = self.decoded(want.as_deref())?;
            let changed: Vec<usize> = match (&expect, &want) {
                (Some(one), Some(other)) => one
                    .iter()
                    .zip(other)
                    .enumerate()
                    .filter(|(_, (one, other))| !value::same(**one, **other))
                    .map(|(at, _)| at)
                    .collect(),
                _ => Vec::new(),
            };
            let change =
                Change { rowid, new_rowid, expect: expect.as_deref(), want: want.as_deref(), changed: &changed };
            if self.table(number).is_some_and(|table| self.is_spared(table, &change)) {
                continue;
            }
            self.tally.row(number, &change);
            let Some((guard, table)) = self.guard_and_table(number) else { continue };
            if guard.attempt(number, table, &change)? == Outcome::Done {
                continue;
            }
            left_out_instead(conn, label, table)?;
            if let Settled::Blocked { found, wanted } = guard.settle(number, table, &change, wait)? {
                // Out of the way with it: the other row's own change may be still to come.
                guard.remove(number, table, &found)?;
                conn.execute(
                    "INSERT INTO temp.backout_parked VALUES (?1, ?2, ?3, ?4)",
                    params![number, new_rowid, found.bytes(), wanted],
                )
                .map_err(|source| self.failed(source))?;
            }
        }
        Ok(())
    }

    /// Brings back the rows that were taken out of the way.
    fn parked(&mut self) -> Result<(), Halt> {
        loop {
            let one = self
                .conn
                .query_row(
                    "SELECT rowid, number, rowid_wanted, now, final FROM temp.backout_parked ORDER BY rowid LIMIT 1",
                    [],
                    |row| {
                        Ok((
                            row.get::<_, i64>(0)?,
                            row.get::<_, u32>(1)?,
                            row.get::<_, i64>(2)?,
                            row.get::<_, Vec<u8>>(3)?,
                            row.get::<_, Vec<u8>>(4)?,
                        ))
                    },
                )
                .optional()
                .map_err(|source| self.failed(source))?;
            let Some((id, number, rowid, now, wanted)) = one else { return Ok(()) };
            let now = self.decoded(Some(&now))?.unwrap_or_default();
            let wanted = self.decoded(Some(&wanted))?.unwrap_or_default();
            let listed = self.guard.conflicts.total;
            let Some((guard, table)) = self.guard_and_table(number) else { continue };
            guard.bring_back(number, table, rowid, &wanted)?;
            if guard.conflicts.total > listed && !guard.overwrites() {
                // Somebody else's row has the value: the parked row stays as it was found.
                if guard.insert(number, table, rowid, &now, false)? != Outcome::Done
                    && guard.insert_anywhere(number, table, &now, false)? != Outcome::Done
                {
                    return Err(TargetError::Conflicts(guard.conflicts.clone()).into());
                }
            }
            forget_parked(self.conn, id).map_err(|source| self.failed(source))?;
        }
    }

    fn decoded<'b>(&self, bytes: Option<&'b [u8]>) -> Result<Option<Vec<ValueRef<'b>>>, TargetError> {
        bytes.map(decoded).transpose().map_err(|source| self.damaged(source))
    }
}

fn forget_parked(conn: &Connection, id: i64) -> rusqlite::Result<usize> {
    conn.execute("DELETE FROM temp.backout_parked WHERE rowid = ?1", [id])
}
