//! The guarded change of a table's rows, as a whole set: what is there now is compared with what is expected in the
//! statement that changes it. Only where that touches fewer rows than it should, the rest is looked at and settled.
//!
//! Never changes a column that somebody else changed, too, unless told to overwrite.

use backout_model::conflict::{Conflict, ConflictKind, Conflicts};
use backout_model::target::TargetError;

use super::admit::{self, Excluding};
use super::foreign::{self, Followed, Following};
use super::load::{Loaded, MADE_ANEW, NO_ROW, Replay};
use super::session::{Row, Session, ident};
use super::stream::Table;
use super::table::{self, quoted};
use super::terms::{all_same, keyed, same, shown, shown_key, shown_row};
use super::undo::Direction;

/// What the settling of one table needs all the time.
pub(super) struct Rows<'s, 'r> {
    pub(super) a: &'s mut Session,
    pub(super) replay: &'s mut Replay<'r>,
    pub(super) table: &'s Table,
    pub(super) loaded: &'s Loaded,
    pub(super) live: String,
    /// Constraints that PostgreSQL does not check at once.
    pub(super) waiting: Excluding,
    /// Leaves rows `x` alone that rows of other tables would follow as they change.
    pub(super) held: String,
}

/// Makes the change of one table's rows.
pub fn rows(a: &mut Session, replay: &mut Replay<'_>, table: &Table, loaded: &Loaded) -> Result<(), TargetError> {
    let label = replay.label;
    let failed = |source: postgres::Error| {
        TargetError::failed(format!("cannot change rows of {} in {label}", table::shown(table)), source)
    };
    let live = quoted(table);
    let waiting = Excluding::waiting(&mut a.client, &live).map_err(failed)?;
    let mut rows = Rows { a, replay, table, loaded, live, waiting, held: String::new() };
    let pairs = rows.pairs().map_err(failed)?;
    let needed = if rows.replay.cascades {
        foreign::followed(rows.a, table, Following::Deletes).map_err(failed)?
    } else {
        Vec::new()
    };
    // A row that points at another one of the table has to let go of it first, or would follow it.
    let own_first = needed.iter().any(|link| link.own);
    if own_first {
        rows.change(&pairs).map_err(failed)?;
    }
    rows.remove(&pairs, &needed).map_err(failed)?;
    if !own_first {
        rows.change(&pairs).map_err(failed)?;
    }
    rows.bring(&pairs).map_err(failed)
}

/// How the two images fit together.
struct Pairs {
    /// Rows that are in both.
    both: u64,
    /// Of these, those that differ.
    differ: u64,
    /// The columns in which any of them do.
    columns: Vec<usize>,
}

impl Rows<'_, '_> {
    fn all(&self) -> Vec<usize> {
        (0..self.table.columns.len()).collect()
    }

    fn pairs(&mut self) -> Result<Pairs, postgres::Error> {
        if self.loaded.expected == 0 || self.loaded.wanted == 0 {
            return Ok(Pairs { both: 0, differ: 0, columns: Vec::new() });
        }
        let all = self.all();
        let mut ask = vec!["count(*)".to_owned()];
        ask.push(format!("count(*) FILTER (WHERE NOT ({}))", all_same(self.table, &all, "f", "t")));
        ask.extend(all.iter().map(|at| format!("bool_or(NOT {})", same(self.table, *at, "f", "t"))));
        let (from, to, key) = (&self.loaded.from, &self.loaded.to, keyed(self.table, "f", "t"));
        let sql = format!("SELECT {} FROM {from} AS f JOIN {to} AS t ON {key}", ask.join(", "));
        let row = self.a.rows(&sql)?.into_iter().next().unwrap_or_default();
        let columns = all.into_iter().filter(|at| row[at + 2].as_deref() == Some("t")).collect();
        Ok(Pairs { both: number(&row, 0), differ: number(&row, 1), columns })
    }

    /// Takes away the rows that are only expected.
    fn remove(&mut self, pairs: &Pairs, needed: &[Followed]) -> Result<(), postgres::Error> {
        let wanted = self.loaded.expected - pairs.both;
        if wanted == 0 {
            return Ok(());
        }
        let (table, live, from) = (self.table, self.live.clone(), self.loaded.from.clone());
        let only = self.only(pairs, "f", &self.loaded.to, "t");
        let key = keyed(table, "x", "f");
        let all = all_same(table, &self.all(), "x", "f");
        let only = only + &self.unneeded(needed)?;
        if table.made && self.replay.replaces {
            // The table that it took the place of would bring these back.
            let missing = format!("{from} AS f WHERE NOT EXISTS (SELECT FROM ONLY {live} AS x WHERE {key}){only}");
            let columns = format!("{}, {}", shown_key(table, "f"), shown_row(table, "f"));
            self.look(&columns, "1", &missing, "", |replay, table, row| {
                let conflict = replay.conflict(table, row[0].clone(), ConflictKind::Missing);
                let left = row[1].clone().unwrap_or_default();
                replay.conflicts.push(Conflict { left, now: NO_ROW.to_owned(), ..conflict });
                replay.unkept = true;
            })?;
        }
        let gone = format!("{from} AS f WHERE NOT EXISTS (SELECT FROM ONLY {live} AS x WHERE {key}){only}");
        self.already(ConflictKind::Missing, "f", &gone)?;
        if self.replay.direction == Direction::Undo {
            self.replay.gone.note_rows(self.a, table, "f", &gone)?;
        }
        let untouched = self.loaded.untouched();
        let done = self
            .a
            .count(&format!("DELETE FROM ONLY {live} AS x USING {from} AS f WHERE {key}{only} AND {all}{untouched}"))?;
        self.replay.rows += done;
        if done == wanted {
            return Ok(());
        }
        // What is still there was changed by others; what is not, they have deleted, and nothing of theirs is lost.
        let all_columns = self.all();
        let (each, total) = self.differing(&all_columns, "f", None);
        let columns = format!("{}, {each}", shown_key(table, "x"));
        self.strange(&format!("{from} AS f JOIN ONLY {live} AS x ON {key} WHERE ({all}){only}"))?;
        let from = format!("{from} AS f JOIN ONLY {live} AS x ON {key} WHERE NOT ({all}){only}");
        self.look(&columns, &total, &from, " FOR NO KEY UPDATE OF x", |replay, table, row| {
            for at in &all_columns {
                if let Some([left, now]) = cell(row, 1 + 2 * at) {
                    let conflict = replay.conflict(table, row[0].clone(), ConflictKind::Changed);
                    replay.conflicts.push(Conflict {
                        column: Some(table.columns[*at].name.clone()),
                        before: NO_ROW.to_owned(),
                        left,
                        now,
                        ..conflict
                    });
                }
            }
        })?;
        if self.replay.overwrites() {
            let (live, from) = (&self.live, &self.loaded.from);
            self.replay.rows +=
                self.a.count(&format!("DELETE FROM ONLY {live} AS x USING {from} AS f WHERE {key}{only}"))?;
        }
        Ok(())
    }

    /// Tells the rows `x` of `from` that are as the step left them but for what others wrote into columns of their own.
    fn strange(&mut self, from: &str) -> Result<(), postgres::Error> {
        let whole = self.loaded.whole();
        for (at, stranger) in self.loaded.strangers.iter().enumerate() {
            let Some(written) = &stranger.written else { continue };
            let columns =
                format!("{}, {}", shown_key(self.table, "x"), shown(&whole, self.table.columns.len() + at, "x"));
            let rows = format!("{from} AND ({written})");
            self.look(&columns, "1", &rows, " FOR NO KEY UPDATE OF x", |replay, table, row| {
                let conflict = replay.conflict(table, row[0].clone(), ConflictKind::Changed);
                replay.conflicts.push(Conflict {
                    column: Some(stranger.column.name.clone()),
                    before: NO_ROW.to_owned(),
                    left: "no such column".to_owned(),
                    now: row[1].clone().unwrap_or_default(),
                    ..conflict
                });
            })?;
        }
        Ok(())
    }

    /// Tells the rows of `rows` that are as they are to be already, the first ones.
    fn already(&mut self, kind: ConflictKind, alias: &str, rows: &str) -> Result<(), postgres::Error> {
        if self.replay.already.is_none() {
            return Ok(());
        }
        let table = self.table;
        let columns = format!("{}, {}", shown_key(table, alias), shown_row(table, alias));
        for row in self.a.rows(&format!("SELECT {columns} FROM {rows} LIMIT {}", Conflicts::KEPT))? {
            let text = row[1].clone().unwrap_or_default();
            let conflict = self.replay.conflict(table, row[0].clone(), kind);
            let (left, now) = if kind == ConflictKind::Missing { (text, String::new()) } else { (String::new(), text) };
            if let Some(already) = &mut self.replay.already {
                already.push(Conflict { left, now, ..conflict });
            }
        }
        Ok(())
    }

    /// Asks for the conflicts among the rows of `from`, and locks these: the first ones in full, the rest counted.
    pub(super) fn look(
        &mut self,
        columns: &str,
        total: &str,
        from: &str,
        lock: &str,
        mut each: impl FnMut(&mut Replay<'_>, &Table, &Row),
    ) -> Result<(), postgres::Error> {
        let start = self.replay.conflicts.total;
        let count = self.a.value(&format!("SELECT sum(n) FROM (SELECT {total} AS n FROM {from}{lock}) AS s"))?;
        let count: u64 = count.and_then(|text| text.parse().ok()).unwrap_or(0);
        if count == 0 {
            return Ok(());
        }
        for row in self.a.rows(&format!("SELECT {columns} FROM {from} LIMIT {}", Conflicts::KEPT))? {
            each(self.replay, self.table, &row);
        }
        self.replay.conflicts.total = start + count;
        Ok(())
    }

    /// A condition that leaves out the rows that are in both images.
    fn only(&self, pairs: &Pairs, alias: &str, other: &str, other_alias: &str) -> String {
        if pairs.both == 0 {
            return String::new();
        }
        let key = keyed(self.table, other_alias, alias);
        format!(" AND NOT EXISTS (SELECT FROM {other} AS {other_alias} WHERE {key})")
    }

    /// For each column two expressions: what `expected` has and what is there, both NULL where they are the same. And how
    /// many differ.
    fn differing(
        &self,
        columns: &[usize],
        expected: &str,
        condition: Option<&dyn Fn(usize) -> String>,
    ) -> (String, String) {
        let differs = |at: usize| {
            let more = condition.map_or_else(String::new, |condition| format!(" AND {}", condition(at)));
            format!("NOT {}{more}", same(self.table, at, "x", expected))
        };
        let each: Vec<String> = columns
            .iter()
            .map(|at| {
                let differs = differs(*at);
                format!(
                    "CASE WHEN {differs} THEN {} END, CASE WHEN {differs} THEN {} END",
                    shown(self.table, *at, expected),
                    shown(self.table, *at, "x")
                )
            })
            .collect();
        let total: Vec<String> = columns.iter().map(|at| format!("({})::int4", differs(*at))).collect();
        (each.join(", "), total.join(" + "))
    }

    /// Puts back, in rows that are in both images, the columns in which these differ.
    fn change(&mut self, pairs: &Pairs) -> Result<(), postgres::Error> {
        if pairs.differ == 0 {
            return Ok(());
        }
        let table = self.table;
        let columns = &pairs.columns;
        if self.replay.cascades {
            self.hold(columns)?;
        }
        let set: Vec<String> = columns
            .iter()
            .map(|at| {
                let name = ident(&table.columns[*at].name);
                format!("CASE WHEN {} THEN x.{name} ELSE t.{name} END", same(table, *at, "f", "t"))
            })
            .collect();
        let guard: Vec<String> = columns
            .iter()
            .map(|at| format!("({} OR {})", same(table, *at, "f", "t"), same(table, *at, "x", "f")))
            .collect();
        let guard = guard.join(" AND ");
        let is_so =
            columns.iter().map(|at| format!("NOT {} AND {}", same(table, *at, "f", "t"), same(table, *at, "x", "t")));
        let is_so = is_so.collect::<Vec<_>>().join(" OR ");
        self.already(ConflictKind::Appeared, "t", &format!("{} AND ({is_so})", self.joined(columns)))?;
        match self.update(columns, &set, &guard)? {
            Some(done) => {
                self.replay.rows += done;
                if done < pairs.differ { self.merge(columns) } else { Ok(()) }
            }
            None => self.merge(columns),
        }
    }

    /// The rows in both images that differ, with what is there now as `x`.
    pub(super) fn joined(&self, columns: &[usize]) -> String {
        format!(
            "{} AS f JOIN {} AS t ON {} JOIN ONLY {} AS x ON {} WHERE NOT ({}){}",
            self.loaded.from,
            self.loaded.to,
            keyed(self.table, "f", "t"),
            self.live,
            keyed(self.table, "x", "f"),
            all_same(self.table, columns, "f", "t"),
            self.held
        )
    }

    /// Sets columns where `guard` holds; `None` where that is not the way: values of a unique column move round, a constraint
    /// does not admit a row, or a column cannot be set.
    fn update(&mut self, columns: &[usize], set: &[String], guard: &str) -> Result<Option<u64>, postgres::Error> {
        let table = self.table;
        if columns.iter().any(|at| table.columns[*at].always) {
            return Ok(None);
        }
        let assigned: Vec<String> = columns
            .iter()
            .zip(set)
            .map(|(at, value)| format!("{} = {value}", ident(&table.columns[*at].name)))
            .collect();
        let sql = format!(
            "UPDATE ONLY {} AS x SET {} FROM {} AS f JOIN {} AS t ON {} WHERE {} AND NOT ({}) AND {guard}{}",
            self.live,
            assigned.join(", "),
            self.loaded.from,
            self.loaded.to,
            keyed(table, "f", "t"),
            keyed(table, "x", "f"),
            all_same(table, columns, "f", "t"),
            self.held
        );
        let ours = format!("EXISTS (SELECT FROM {} AS t WHERE {})", self.loaded.to, keyed(table, "x", "t"));
        Ok(self.waiting.attempt(&mut self.a.client, &self.live, &sql, &ours)?.ok())
    }

    /// Settles the rows of both images that others have changed.
    fn merge(&mut self, columns: &[usize]) -> Result<(), postgres::Error> {
        let table = self.table;
        // Both the step and others changed it, and not to what is wanted.
        let both = |at: usize| format!("NOT {} AND NOT {}", same(table, at, "f", "t"), same(table, at, "x", "t"));
        let (each, total) = self.differing(columns, "f", Some(&both));
        let before: Vec<String> = columns.iter().map(|at| shown(table, *at, "t")).collect();
        let wanted: Vec<String> = columns
            .iter()
            .map(|at| format!("({} OR {})", same(table, *at, "f", "t"), same(table, *at, "x", "t")))
            .collect();
        let shown = format!("{}, {each}, {}", shown_key(table, "x"), before.join(", "));
        let from = format!("{} AND NOT ({})", self.joined(columns), wanted.join(" AND "));
        self.look(&shown, &total, &from, " FOR NO KEY UPDATE OF x", |replay, table, row| {
            for (place, at) in columns.iter().enumerate() {
                if let Some([left, now]) = cell(row, 1 + 2 * place) {
                    let conflict = replay.conflict(table, row[0].clone(), ConflictKind::Changed);
                    replay.conflicts.push(Conflict {
                        column: Some(table.columns[*at].name.clone()),
                        before: row[1 + 2 * columns.len() + place].clone().unwrap_or_default(),
                        left,
                        now,
                        ..conflict
                    });
                }
            }
        })?;
        let overwrites = self.replay.overwrites();
        let set: Vec<String> = columns
            .iter()
            .map(|at| {
                let name = ident(&table.columns[*at].name);
                let ours = if overwrites { "true".to_owned() } else { same(table, *at, "x", "f") };
                format!("CASE WHEN NOT {} AND {ours} THEN t.{name} ELSE x.{name} END", same(table, *at, "f", "t"))
            })
            .collect();
        let open: Vec<String> = columns
            .iter()
            .map(|at| {
                let ours = if overwrites { "true".to_owned() } else { same(table, *at, "x", "f") };
                format!("NOT {} AND {ours} AND NOT {}", same(table, *at, "f", "t"), same(table, *at, "x", "t"))
            })
            .collect();
        let guard = format!("({})", open.join(" OR "));
        self.replay.rows += match self.update(columns, &set, &guard)? {
            Some(done) => done,
            None => self.exchange(columns, &set, &guard)?,
        };
        self.missing(columns)
    }

    /// Rows of both images that are no longer there.
    fn missing(&mut self, columns: &[usize]) -> Result<(), postgres::Error> {
        let table = self.table;
        let gone = format!(
            "{} AS f JOIN {} AS t ON {} WHERE NOT ({}) AND NOT EXISTS (SELECT FROM ONLY {} AS x WHERE {})",
            self.loaded.from,
            self.loaded.to,
            keyed(table, "f", "t"),
            all_same(table, columns, "f", "t"),
            self.live,
            keyed(table, "x", "f")
        );
        let shown = format!("{}, {}, {}", shown_key(table, "f"), shown_row(table, "t"), shown_row(table, "f"));
        self.look(&shown, "1", &gone, "", |replay, table, row| {
            let conflict = replay.conflict(table, row[0].clone(), ConflictKind::Missing);
            replay.conflicts.push(Conflict {
                before: row[1].clone().unwrap_or_default(),
                left: row[2].clone().unwrap_or_default(),
                now: NO_ROW.to_owned(),
                ..conflict
            });
        })?;
        if self.replay.overwrites() {
            self.insert(&gone)?;
        }
        Ok(())
    }

    /// Brings the rows that are only wanted.
    fn bring(&mut self, pairs: &Pairs) -> Result<(), postgres::Error> {
        let wanted = self.loaded.wanted - pairs.both;
        if wanted == 0 {
            return Ok(());
        }
        let (table, to) = (self.table, self.loaded.to.clone());
        let only = self.only(pairs, "t", &self.loaded.from, "f");
        let key = keyed(table, "x", "t");
        let all = self.all();
        let back =
            format!("{to} AS t JOIN ONLY {} AS x ON {key} WHERE {}{only}", self.live, all_same(table, &all, "x", "t"));
        self.already(ConflictKind::Appeared, "t", &back)?;
        let mut free = format!("{to} AS t WHERE NOT EXISTS (SELECT FROM ONLY {} AS x WHERE {key}){only}", self.live);
        if let Some(taken) = self.replay.gone.is_one(table, "t") {
            let columns = format!("{}, {}", shown_key(table, "t"), shown_row(table, "t"));
            self.look(&columns, "1", &format!("{free} AND {taken}"), "", |replay, table, row| {
                let conflict = replay.conflict(table, row[0].clone(), ConflictKind::Missing);
                let before = row[1].clone().unwrap_or_default();
                replay.conflicts.push(Conflict {
                    before,
                    left: MADE_ANEW.to_owned(),
                    now: NO_ROW.to_owned(),
                    ..conflict
                });
            })?;
            if !self.replay.overwrites() {
                free += &format!(" AND NOT {taken}");
            }
        }
        if self.insert(&free)? == wanted {
            return Ok(());
        }
        let (each, _) = self.differing(&all, "t", None);
        let present = format!(
            "{to} AS t JOIN ONLY {} AS x ON {key} WHERE NOT ({}){only}",
            self.live,
            all_same(table, &all, "x", "t")
        );
        let columns = format!("{}, {each}", shown_key(table, "x"));
        self.look(&columns, "1", &present, " FOR NO KEY UPDATE OF x", |replay, table, row| {
            let Some((at, [before, now])) = all.iter().find_map(|at| Some((*at, cell(row, 1 + 2 * at)?))) else {
                return;
            };
            let conflict = replay.conflict(table, row[0].clone(), ConflictKind::Appeared);
            replay.conflicts.push(Conflict {
                column: Some(table.columns[at].name.clone()),
                before,
                left: NO_ROW.to_owned(),
                now,
                ..conflict
            });
        })?;
        if self.replay.overwrites() {
            let others = format!("{key}{only} AND NOT ({})", all_same(table, &all, "x", "t"));
            if self.replay.cascades && !foreign::followed(self.a, table, Following::Deletes)?.is_empty() {
                let is_key = |at: &usize| table.key.iter().any(|key| key.column == *at);
                let names: Vec<&str> =
                    all.iter().filter(|at| !is_key(at)).map(|at| table.columns[*at].name.as_str()).collect();
                self.replay.rows += self.a.count(&admit::update(&self.live, &to, &names, &others, "true"))?;
            } else {
                self.a.count(&format!("DELETE FROM ONLY {} AS x USING {to} AS t WHERE {others}", self.live))?;
                self.insert(&free)?;
            }
        }
        Ok(())
    }
}

/// The two texts that begin at `at`, where there are any.
fn cell(row: &Row, at: usize) -> Option<[String; 2]> {
    Some([row.get(at).cloned().flatten()?, row.get(at + 1).cloned().flatten()?])
}

/// A number in an answer.
pub fn number(row: &Row, at: usize) -> u64 {
    row.get(at).and_then(|text| text.as_deref()).and_then(|text| text.parse().ok()).unwrap_or(0)
}
