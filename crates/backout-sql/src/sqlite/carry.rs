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
use super::late::Late;
use super::schema::{self, Shape};
use super::stream::Table;
use super::token::quote;
use super::{encoding, value};

/// Carries from one new table to the old one that it replaced.
pub struct Carry {
    target: String,
    on_conflict: OnConflict,
    pub new: String,
    old: String,
    new_shape: Shape,
    old_shape: Shape,
    /// The primary key's columns, which both have.
    key: Vec<String>,
    /// What others wrote and the old table has no place for: conflicts, by which that is lost when it comes back.
    pub lost: Conflicts,
    /// The old table may forbid what the new one allows: checks are off while rows go back, but for what is carried over.
    has_checks: bool,
    late: Late,
}

/// A value to bind as it is.
pub struct Bound<'a>(pub ValueRef<'a>);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.0))
    }
}

impl Carry {
    /// Looks at the two tables; none where they have no primary key in common, so that nobody can say which row is
    /// which, or text that would not come over whole.
    pub fn begin(
        conn: &Connection,
        target: &str,
        pair: &Pair,
        on_conflict: OnConflict,
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
        let definition = schema::object(conn, "table", &pair.old)
            .map_err(|error| TargetError::failed(format!("cannot read the schema of {target}"), error))?;
        let has_checks =
            definition.and_then(|row| row.sql).is_some_and(|sql| sql.to_ascii_uppercase().contains("CHECK"));
        let late = Late::of(&pair.old, &old_shape);
        Ok(Some(Self {
            target: target.to_owned(),
            on_conflict,
            new: pair.new.clone(),
            old: pair.old.clone(),
            new_shape,
            old_shape,
            key,
            lost: Conflicts::default(),
            has_checks,
            late,
        }))
    }

    fn cannot(&self, error: rusqlite::Error) -> TargetError {
        TargetError::failed(format!("cannot carry rows over to {} in {}", self.old, self.target), error)
    }

    fn conflict(&self, kind: ConflictKind, key: &str, now: impl Into<String>) -> Conflict {
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
        let old = quote(&self.old);
        let there: bool = conn
            .prepare_cached(&format!("SELECT EXISTS (SELECT 1 FROM main.{old} WHERE {})", self.where_key(1)))
            .and_then(|mut select| select.query_row(params_from_iter(key.iter().copied().map(Bound)), |row| row.get(0)))
            .map_err(|error| self.cannot(error))?;
        if !there {
            return Ok(false);
        }
        let Some(now) = now else {
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
        // The value in its way may be about to go, too; and what is to be checked is checked all at once.
        if !newer.is_empty() && (self.has_checks || self.update(conn, &key, &newer)?.is_some()) {
            let at = self.where_key(1);
            let parked = self.late.park(conn, &at, &key, &newer);
            parked.map_err(|error| self.cannot(error))?;
        }
        Ok(true)
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
        if !untouched {
            conflicts.push(both(before));
        }
        Ok((untouched || self.on_conflict == OnConflict::Keep).then_some(place))
    }

    /// Sets values of a row, by the places of their columns. What forbids it, where a constraint does.
    fn update(
        &self,
        conn: &Connection,
        key: &[ValueRef<'_>],
        newer: &[(usize, ValueRef<'_>)],
    ) -> Result<Option<String>, TargetError> {
        let columns: Vec<_> = self.old_shape.stored().collect();
        let set: Vec<String> =
            newer.iter().zip(1..).map(|((place, _), at)| format!("{} = ?{at}", quote(&columns[*place].name))).collect();
        let sql = format!(
            "UPDATE main.{} SET {} WHERE {}",
            quote(&self.old),
            set.join(", "),
            self.where_key(newer.len() + 1)
        );
        let bound = params_from_iter(newer.iter().map(|(_, now)| *now).chain(key.iter().copied()).map(Bound));
        match conn.prepare_cached(&sql).and_then(|mut update| update.execute(bound)) {
            Ok(_) => Ok(None),
            Err(error) if is_constraint(&error) => Ok(Some(error.to_string())),
            Err(error) => Err(self.cannot(error)),
        }
    }

    /// Brings the rows back that were out of the way. What a constraint of the old table still forbids is lost.
    fn bring_late_ones_back(
        &mut self,
        conn: &Connection,
        conflicts: &mut Conflicts,
        ignore_checks: &dyn Fn(bool) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        let names: Vec<String> = self.old_shape.stored().map(|column| column.name.clone()).collect();
        let key: Vec<usize> =
            self.key.iter().filter_map(|key| names.iter().position(|name| name.eq_ignore_ascii_case(key))).collect();
        for id in self.late.bring_back(conn).map_err(|error| self.cannot(error))? {
            // As it was it may break a check already.
            ignore_checks(true)?;
            let row = self.late.give_in(conn, id).map_err(|error| self.cannot(error))?;
            let key: Vec<ValueRef<'_>> = key.iter().map(|at| ValueRef::from(&row.was[*at])).collect();
            let shown = key.iter().map(|value| value::shown(*value)).collect::<Vec<_>>().join(",");
            for (at, (was, now)) in row.was.iter().zip(&row.now).enumerate().filter(|(_, (was, now))| was != now) {
                ignore_checks(false)?;
                let forbidden = self.update(conn, &key, &[(at, now.into())])?;
                ignore_checks(true)?;
                let Some(forbidden) = forbidden else { continue };
                let mut found = self.conflict(ConflictKind::Constraint, &shown, forbidden);
                found.column = Some(names[at].clone());
                found.before = value::shown(was.into());
                self.lost.push(found.clone());
                conflicts.push(found);
                if row.is_now && self.update(conn, &key, &[(at, was.into())])?.is_some() {
                    return Err(TargetError::Conflicts(conflicts.clone()));
                }
            }
            ignore_checks(false)?;
        }
        self.late.end(conn).map_err(|error| self.cannot(error))
    }

    /// The rows that are left in the new table are others' own: puts them into the old one and leaves the new one empty.
    /// Whether there were any.
    pub fn rest(&mut self, conn: &Connection, conflicts: &mut Conflicts) -> Result<bool, TargetError> {
        let ignore_checks = |ignore: bool| {
            let sql = format!("PRAGMA ignore_check_constraints = {ignore}");
            conn.execute_batch(&sql).map_err(|error| TargetError::failed("cannot heed checks", error))
        };
        ignore_checks(false)?;
        let done =
            self.bring_late_ones_back(conn, conflicts, &ignore_checks).and_then(|()| self.carry_rest(conn, conflicts));
        ignore_checks(true)?;
        done
    }

    fn carry_rest(&mut self, conn: &Connection, conflicts: &mut Conflicts) -> Result<bool, TargetError> {
        let (new, old) = (quote(&self.new), quote(&self.old));
        let stored: Vec<_> = self.new_shape.stored().collect();
        let is_shared = |name: &str| self.old_shape.column(name).is_some_and(|column| !column.generated);
        let shared: Vec<String> =
            stored.iter().filter(|column| is_shared(&column.name)).map(|column| quote(&column.name)).collect();
        let extra: Vec<_> = stored.iter().filter(|column| !is_shared(&column.name)).collect();
        let shared = shared.join(", ");
        let insert =
            format!("INSERT INTO main.{old} ({shared}) SELECT {shared} FROM main.{new} WHERE {}", self.where_key(1));
        let key: Vec<String> = self.key.iter().map(|name| quote(name)).collect();
        let values: Vec<String> = extra.iter().map(|column| format!("quote({})", quote(&column.name))).collect();
        let sql =
            format!("SELECT {} FROM main.{new}", key.iter().cloned().chain(values).collect::<Vec<_>>().join(", "));
        let mut select = conn.prepare(&sql).map_err(|error| self.cannot(error))?;
        let mut insert = conn.prepare(&insert).map_err(|error| self.cannot(error))?;
        let mut rows = select.query([]).map_err(|error| self.cannot(error))?;
        while let Some(row) = rows.next().map_err(|error| self.cannot(error))? {
            let values = |from: usize, to: usize| (from..to).map(|at| row.get_ref(at)).collect::<Result<Vec<_>, _>>();
            let key = values(0, self.key.len()).map_err(|error| self.cannot(error))?;
            let shown: Vec<String> = key.iter().map(|value| value::shown(*value)).collect();
            let shown = shown.join(",");
            match insert.execute(params_from_iter(key.into_iter().map(Bound))) {
                Ok(_) => {}
                Err(error) if is_constraint(&error) => {
                    let found = self.conflict(ConflictKind::Constraint, &shown, error.to_string());
                    self.lost.push(found.clone());
                    conflicts.push(found);
                }
                Err(error) => return Err(self.cannot(error)),
            }
            for (at, column) in extra.iter().enumerate() {
                let now: String = row.get(self.key.len() + at).map_err(|error| self.cannot(error))?;
                if now != "NULL" && !column.default.as_deref().is_some_and(|default| is_default(default, &now)) {
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

fn is_default(default: &str, quoted: &str) -> bool {
    let default = default.trim();
    // A blob's digits may be written either way.
    let is_blob = default.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x'"));
    default == quoted
        || is_blob && default.eq_ignore_ascii_case(quoted)
        || default.eq_ignore_ascii_case("true") && quoted == "1"
        || default.eq_ignore_ascii_case("false") && quoted == "0"
}
