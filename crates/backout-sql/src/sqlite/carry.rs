//! Carries later rows over to a restored table. SQLite's tables are altered by making a new one, copying, dropping the
//! old one and renaming; what others write to the new table afterwards belongs into the old one when that comes back.
//!
//! Rows meet by primary key, values by the names of their columns. A conflict is only what both changed, or what the
//! old table has no place for. Never touches a table that the deployment did not make.

use backout_model::conflict::{Conflict, ConflictKind, Conflicts, OnConflict};
use backout_model::target::TargetError;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::courses::Pair;
use super::ddl_hold::is_constraint;
use super::ddl_orphans::without_row;
use super::late::Late;
use super::same_key::{Constants, Tables};
use super::schema::{self, Shape};
use super::stream::{Affinity, Table};
use super::survive::survives;
use super::token::quote;
use super::{encoding, value};

/// Carries from one new table to the old one that it replaced.
pub struct Carry {
    target: String,
    on_conflict: OnConflict,
    pub new: String,
    old: String,
    new_shape: Shape,
    pub(super) old_shape: Shape,
    /// The primary key's columns, which both have.
    pub(super) key: Vec<String>,
    /// What others wrote and the old table has no place for: conflicts, by which that is lost when it comes back.
    pub lost: Conflicts,
    /// The columns of the old table that the new one has not, and what a new row has in each.
    vanished: Vec<(String, String)>,
    /// Their values in rows that are gone from the new table, or have another key there.
    pub orphans: Conflicts,
    pub(super) late: Late,
    /// Whatever row of the old table has the key is the one that was copied; with what the copy gave to all rows.
    by_key: Option<Constants>,
    /// Whether the old table has rows with a NULL in their key, once that was asked.
    nulls: Option<bool>,
}

/// A value to bind as it is.
pub struct Bound<'a>(pub ValueRef<'a>);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.0))
    }
}

impl Carry {
    /// Looks at the two tables; none where they have no primary key in common, so that nobody can say which row is which,
    /// or where text would not come over whole. `by_key`: some where a row is known to have the key that it was copied from.
    pub fn begin(
        conn: &Connection,
        target: &str,
        pair: &Pair,
        on_conflict: OnConflict,
        by_key: impl FnOnce(&Tables<'_>) -> Result<Option<Constants>, TargetError>,
    ) -> Result<Option<Self>, TargetError> {
        let read = |table: &str| {
            schema::shape(conn, table)
                .map_err(|error| TargetError::failed(format!("cannot read the schema of {target}"), error))
        };
        let (new_shape, old_shape) = (read(&pair.new)?, read(&pair.old)?);
        let names = |shape: &Shape| -> Vec<String> {
            shape.key().iter().map(|column| column.name.to_ascii_lowercase()).collect()
        };
        let key = names(&new_shape);
        let halves = encoding::has_halves(conn, &pair.new)
            .map_err(|error| TargetError::failed(format!("cannot read {} of {target}", pair.new), error))?;
        if key.is_empty() || key != names(&old_shape) || halves {
            return Ok(None);
        }
        let is_gone = |column: &&schema::Column| new_shape.column(&column.name).is_none();
        let default = |column: &schema::Column| column.default.clone().unwrap_or_else(|| "NULL".to_owned());
        let vanished =
            old_shape.stored().filter(is_gone).map(|column| (column.name.clone(), default(column))).collect();
        let late = Late::of(&pair.old, &old_shape);
        let by_key = by_key(&Tables { pair, new: &new_shape, old: &old_shape })?;
        Ok(Some(Self {
            target: target.to_owned(),
            on_conflict,
            new: pair.new.clone(),
            old: pair.old.clone(),
            new_shape,
            old_shape,
            key,
            lost: Conflicts::default(),
            vanished,
            orphans: Conflicts::default(),
            late,
            by_key,
            nulls: None,
        }))
    }

    fn cannot(&self, error: rusqlite::Error) -> TargetError {
        TargetError::failed(format!("cannot carry rows over to {} in {}", self.old, self.target), error)
    }

    pub(super) fn conflict(&self, kind: ConflictKind, key: &str, now: impl Into<String>) -> Conflict {
        Conflict {
            target: self.target.clone(),
            object: self.old.clone(),
            key: Some(format!("{}={key}", self.key.join(","))),
            column: None,
            kind,
            before: String::new(),
            left: String::new(),
            now: now.into(),
        }
    }

    fn where_key(&self, first: usize) -> String {
        let parts: Vec<String> =
            self.key.iter().enumerate().map(|(at, name)| format!("{} IS ?{}", quote(name), first + at)).collect();
        parts.join(" AND ")
    }

    /// A row that the deployment copied and that somebody changed or deleted since: `expect` as the deployment left
    /// it, `now` as it is. False where the old table has no such row, so that this is no carrying.
    pub fn row(
        &mut self,
        conn: &Connection,
        table: &Table,
        expect: &[ValueRef<'_>],
        now: Option<&[ValueRef<'_>]>,
        conflicts: &mut Conflicts,
    ) -> Result<bool, TargetError> {
        let at = |name: &str| table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
        let Some(key) =
            self.key.iter().map(|name| at(name).and_then(|at| expect.get(at).copied())).collect::<Option<Vec<_>>>()
        else {
            return Ok(false);
        };
        let shown: Vec<String> = key.iter().map(|value| value::shown(*value)).collect();
        let shown = shown.join(",");
        if key.iter().any(|value| matches!(value, ValueRef::Null)) {
            if now.is_none() {
                // Which row of the old table it was, and came back with that, nobody can say.
                let left = format!("a row with the key {shown}");
                let gone = Conflict { left, ..self.conflict(ConflictKind::Missing, &shown, "") };
                self.lost.push(gone.clone());
                conflicts.push(gone);
            }
            return Ok(now.is_none());
        }
        let old = quote(&self.old);
        if !self.is_source(conn, &key).map_err(|error| self.cannot(error))? {
            // The copy may have given rows other keys: which row of the old table it was nobody can say.
            let left = format!("a row with the key {shown}, copied from one that may have had another");
            let found = match now {
                None => Conflict { left, ..self.conflict(ConflictKind::Missing, &shown, "") },
                Some(_) => {
                    let before = "a row that nobody can tell now".to_owned();
                    Conflict {
                        before,
                        left,
                        ..self.conflict(ConflictKind::Changed, &shown, "a row that others changed")
                    }
                }
            };
            self.lost.push(found.clone());
            conflicts.push(found);
            return Ok(true);
        }
        let Some(now) = now else {
            self.note_orphans(conn, &key, &shown).map_err(|error| self.cannot(error))?;
            conn.prepare_cached(&format!("DELETE FROM main.{old} WHERE {}", self.where_key(1)))
                .and_then(|mut delete| delete.execute(params_from_iter(key.iter().copied().map(Bound))))
                .map_err(|error| self.cannot(error))?;
            return Ok(true);
        };
        let mut newer = Vec::new();
        for (at, column) in table.columns.iter().enumerate() {
            let (Some(expect), Some(now)) = (expect.get(at).copied(), now.get(at).copied()) else { continue };
            if column.generated || value::same(expect, now) {
                continue;
            }
            if let Some(place) = self.place_of(conn, &column.name, &key, &shown, expect, now, conflicts)? {
                newer.push((place, now));
            }
        }
        // A value in its way may be about to go, too.
        if !newer.is_empty() {
            let at = self.where_key(1);
            let parked = self.late.park(conn, &at, &key, &newer);
            parked.map_err(|error| self.cannot(error))?;
        }
        Ok(true)
    }

    /// Whether the old table has the row that was copied, under the same key. Of a NULL the copy may have made any number.
    fn is_source(&mut self, conn: &Connection, key: &[ValueRef<'_>]) -> rusqlite::Result<bool> {
        if self.by_key.is_none() {
            return Ok(false);
        }
        // Only now are its rows back, too.
        let nulls = match self.nulls {
            Some(nulls) => nulls,
            None => *self.nulls.insert(has_nulls(conn, &self.old, &self.key)?),
        };
        let sql = format!("SELECT EXISTS (SELECT 1 FROM main.{} WHERE {})", quote(&self.old), self.where_key(1));
        let mut select = conn.prepare_cached(&sql)?;
        Ok(!nulls && select.query_row(params_from_iter(key.iter().copied().map(Bound)), |row| row.get(0))?)
    }

    /// A row of the old table is about to go, since that of the new one is gone: its values in columns that the new one
    /// had no more nobody has seen go.
    fn note_orphans(&mut self, conn: &Connection, key: &[ValueRef<'_>], shown: &str) -> rusqlite::Result<()> {
        for (name, default) in &self.vanished {
            let (old, column) = (quote(&self.old), quote(name));
            let sql =
                format!("SELECT {column} FROM main.{old} WHERE {} AND {column} IS NOT ({default})", self.where_key(1));
            let mut select = conn.prepare_cached(&sql)?;
            let mut rows = select.query(params_from_iter(key.iter().copied().map(Bound)))?;
            if let Some(row) = rows.next()? {
                let at = Conflict { column: Some(name.clone()), ..self.conflict(ConflictKind::Missing, shown, "") };
                self.orphans.push(without_row(value::shown(row.get_ref(0)?), at));
            }
        }
        Ok(())
    }

    /// Values of others in columns of theirs, in a row that the deployment copied: these have no place in the old table.
    pub fn strange(&mut self, key: &str, strange: &[(String, String)], conflicts: &mut Conflicts) {
        for (column, now) in strange {
            let found = Conflict {
                column: Some(column.clone()),
                before: "no such column".to_owned(),
                left: "no such column".to_owned(),
                key: Some(key.to_owned()),
                ..self.conflict(ConflictKind::Changed, "", now.clone())
            };
            self.lost.push(found.clone());
            conflicts.push(found);
        }
    }

    /// The column of the old table that a value goes to which somebody changed; none where it has none, or where the
    /// deployment changed it, too.
    #[allow(clippy::too_many_arguments)] // One value with all that a conflict says of it.
    fn place_of(
        &mut self,
        conn: &Connection,
        column: &str,
        key: &[ValueRef<'_>],
        shown: &str,
        expect: ValueRef<'_>,
        now: ValueRef<'_>,
        conflicts: &mut Conflicts,
    ) -> Result<Option<usize>, TargetError> {
        let changed = self.conflict(ConflictKind::Changed, shown, value::shown(now));
        let both = |before: String| Conflict {
            column: Some(column.to_owned()),
            before,
            left: value::shown(expect),
            ..changed.clone()
        };
        let place = self.old_shape.stored().position(|there| there.name.eq_ignore_ascii_case(column));
        let Some(place) = place else {
            self.lost.push(both("no such column".to_owned()));
            conflicts.push(both("no such column".to_owned()));
            return Ok(None);
        };
        let (old, name) = (quote(&self.old), quote(column));
        // Compared with the column's own affinity: the copy may have another type.
        let sql = format!("SELECT {name}, {name} COLLATE BINARY IS ?1 FROM main.{old} WHERE {}", self.where_key(2));
        let bound = params_from_iter(std::iter::once(expect).chain(key.iter().copied()).map(Bound));
        let (untouched, before) = conn
            .prepare_cached(&sql)
            .and_then(|mut select| {
                select.query_row(bound, |row| Ok((row.get::<_, bool>(1)?, value::shown(row.get_ref(0)?))))
            })
            .map_err(|error| self.cannot(error))?;
        let survives = self.survives(conn, column, now).map_err(|error| self.cannot(error))?;
        if !untouched || !survives {
            conflicts.push(both(before.clone()));
        }
        if !survives {
            self.lost.push(both(before));
            return Ok(None);
        }
        Ok((untouched || self.on_conflict == OnConflict::Keep).then_some(place))
    }

    /// A column of both tables that takes values otherwise in the new one than in the old one.
    fn retyped(&self, column: &str) -> Option<(Affinity, Affinity)> {
        let affinity = |shape: &Shape| shape.column(column).map(|column| Affinity::of(&column.declared));
        affinity(&self.new_shape).zip(affinity(&self.old_shape)).filter(|(new, old)| new != old)
    }

    /// Whether the old table's column keeps a value of the new one's.
    fn survives(&self, conn: &Connection, column: &str, value: ValueRef<'_>) -> rusqlite::Result<bool> {
        self.retyped(column).map_or(Ok(true), |(new, old)| survives(conn, new, old, value))
    }

    /// The rows that are left in the new table are others' own: puts them into the old one and leaves the new one empty.
    /// Whether there were any.
    pub fn rest(&mut self, conn: &Connection, conflicts: &mut Conflicts) -> Result<bool, TargetError> {
        ignore_checks(conn, false).map_err(|error| self.cannot(error))?;
        let late = self.late_ones(conn, conflicts).map_err(|error| self.cannot(error));
        let done = late.and_then(|()| self.carry_rest(conn, conflicts));
        ignore_checks(conn, true).map_err(|error| self.cannot(error))?;
        done
    }

    /// A row of the new table as people are shown it.
    fn shown_row(&self, conn: &Connection, place: &[String], at: &[ValueRef<'_>]) -> rusqlite::Result<String> {
        const COLUMNS: usize = 8;
        let stored: Vec<&str> = self.new_shape.stored().map(|column| column.name.as_str()).collect();
        let columns: Vec<String> = stored.iter().take(COLUMNS).map(|name| quote(name)).collect();
        let place: Vec<String> = place.iter().zip(1..).map(|(name, number)| format!("{name} IS ?{number}")).collect();
        let sql = format!("SELECT {} FROM main.{} WHERE {}", columns.join(", "), quote(&self.new), place.join(" AND "));
        conn.prepare_cached(&sql)?.query_row(params_from_iter(at.iter().copied().map(Bound)), |row| {
            let one = |(at, name): (usize, &&str)| Ok(format!("{name}={}", value::shown(row.get_ref(at)?)));
            let shown = stored.iter().take(COLUMNS).enumerate().map(one).collect::<rusqlite::Result<Vec<_>>>()?;
            let more = if stored.len() > COLUMNS { ", …" } else { "" };
            Ok(format!("({}{more})", shown.join(", ")))
        })
    }

    /// Whether a column of the new table alone has what the deployment gave to every row: nothing of others is in it.
    fn is_of_all(&self, column: &schema::Column, quoted: &str) -> bool {
        let given = self.by_key.as_ref().and_then(|constants| constants.get(&column.name.to_ascii_lowercase()));
        column.default.as_deref().is_some_and(|default| is_default(default, quoted))
            || given.is_some_and(|values| values.iter().any(|value| value == quoted))
    }

    fn carry_rest(&mut self, conn: &Connection, conflicts: &mut Conflicts) -> Result<bool, TargetError> {
        let (new, old) = (quote(&self.new), quote(&self.old));
        let stored: Vec<_> = self.new_shape.stored().collect();
        let is_shared = |name: &str| self.old_shape.column(name).is_some_and(|column| !column.generated);
        let shared: Vec<String> =
            stored.iter().filter(|column| is_shared(&column.name)).map(|column| quote(&column.name)).collect();
        let extra: Vec<_> = stored.iter().filter(|column| !is_shared(&column.name)).collect();
        let is_retyped = |name: &str| is_shared(name) && self.retyped(name).is_some();
        let retyped: Vec<_> = stored.iter().filter(|column| is_retyped(&column.name)).collect();
        let shared = shared.join(", ");
        let untold = has_nulls(conn, &self.old, &self.key).map_err(|error| self.cannot(error))?;
        // A row whose key has a NULL in it is told by its place alone.
        let place = self
            .new_shape
            .rowid
            .map_or_else(|| self.key.iter().map(|name| quote(name)).collect(), |at| vec![at.to_owned()]);
        let at: Vec<String> = place.iter().zip(1..).map(|(name, number)| format!("{name} IS ?{number}")).collect();
        let insert = format!(
            "INSERT OR ABORT INTO main.{old} ({shared}) SELECT {shared} FROM main.{new} WHERE {}",
            at.join(" AND ")
        );
        let key: Vec<String> = self.key.iter().map(|name| quote(name)).collect();
        let values: Vec<String> = extra.iter().map(|column| format!("quote({})", quote(&column.name))).collect();
        let first = place.len() + key.len();
        let last = first + extra.len();
        let as_they_are = retyped.iter().map(|column| quote(&column.name));
        let asked: Vec<String> = place.iter().cloned().chain(key).chain(values).chain(as_they_are).collect();
        let sql = format!("SELECT {} FROM main.{new}", asked.join(", "));
        let mut select = conn.prepare(&sql).map_err(|error| self.cannot(error))?;
        let mut insert = conn.prepare(&insert).map_err(|error| self.cannot(error))?;
        let mut rows = select.query([]).map_err(|error| self.cannot(error))?;
        while let Some(row) = rows.next().map_err(|error| self.cannot(error))? {
            let values = |from: usize, to: usize| (from..to).map(|at| row.get_ref(at)).collect::<Result<Vec<_>, _>>();
            let at = values(0, place.len()).map_err(|error| self.cannot(error))?;
            let key = values(place.len(), first).map_err(|error| self.cannot(error))?;
            let shown: Vec<String> = key.iter().map(|value| value::shown(*value)).collect();
            let shown = shown.join(",");
            if untold && key.iter().any(|value| matches!(value, ValueRef::Null)) {
                let whole = self.shown_row(conn, &place, &at).map_err(|error| self.cannot(error))?;
                let now = format!("{whole}, which cannot be told from others");
                let found = self.conflict(ConflictKind::Appeared, &shown, now);
                self.lost.push(found.clone());
                conflicts.push(found);
                continue;
            }
            match insert.execute(params_from_iter(at.iter().copied().map(Bound))) {
                Ok(_) => {}
                Err(error) if is_constraint(&error) => {
                    let whole = self.shown_row(conn, &place, &at).map_err(|error| self.cannot(error))?;
                    let found = self.conflict(ConflictKind::Constraint, &shown, format!("{error}, for {whole}"));
                    self.lost.push(found.clone());
                    conflicts.push(found);
                }
                Err(error) => return Err(self.cannot(error)),
            }
            for (at, column) in retyped.iter().enumerate() {
                let now = row.get_ref(last + at).map_err(|error| self.cannot(error))?;
                if !self.survives(conn, &column.name, now).map_err(|error| self.cannot(error))? {
                    let found = Conflict {
                        column: Some(column.name.clone()),
                        before: "a column that takes it for a number".to_owned(),
                        left: "no such row".to_owned(),
                        ..self.conflict(ConflictKind::Changed, &shown, value::shown(now))
                    };
                    self.lost.push(found.clone());
                    conflicts.push(found);
                }
            }
            for (at, column) in extra.iter().enumerate() {
                let now: String = row.get(first + at).map_err(|error| self.cannot(error))?;
                if now != "NULL" && !self.is_of_all(column, &now) {
                    let found = Conflict {
                        column: Some(column.name.clone()),
                        before: "no such column".to_owned(),
                        left: "no such row".to_owned(),
                        ..self.conflict(ConflictKind::Changed, &shown, now)
                    };
                    self.lost.push(found.clone());
                    conflicts.push(found);
                }
            }
        }
        drop(rows);
        let gone = conn.execute(&format!("DELETE FROM main.{new}"), []).map_err(|error| self.cannot(error))?;
        Ok(gone > 0)
    }
}

/// SQLite lets any number of rows have NULL for a key.
fn has_nulls(conn: &Connection, table: &str, key: &[String]) -> rusqlite::Result<bool> {
    let nulls: Vec<String> = key.iter().map(|name| format!("{} IS NULL", quote(name))).collect();
    let sql = format!("SELECT EXISTS (SELECT 1 FROM main.{} WHERE {})", quote(table), nulls.join(" OR "));
    conn.query_row(&sql, [], |row| row.get(0))
}

/// Checks are off while rows go back, but for what is carried over or copied again.
pub fn ignore_checks(conn: &Connection, ignore: bool) -> rusqlite::Result<()> {
    conn.execute_batch(&format!("PRAGMA ignore_check_constraints = {ignore}"))
}

fn is_default(default: &str, quoted: &str) -> bool {
    let default = default.trim();
    // A blob's digits may be written either way.
    let is_blob = default.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x'"));
    default == quoted
        || is_blob && default.eq_ignore_ascii_case(quoted)
        || default.eq_ignore_ascii_case("true") && quoted == "1"
        || default.eq_ignore_ascii_case("false") && quoted == "0"
}
