//! What a change means for a row that is not as expected: already so, to be merged, or a conflict.
//!
//! Never changes a row that somebody else changed in the same column, unless told to overwrite.

use backout_model::conflict::{Conflict, ConflictKind, OnConflict};
use backout_model::fault::{self, Point};
use backout_model::target::TargetError;
use rusqlite::types::ValueRef;

use super::form::{Form, Kind, bind_all, bind_place, guarded, keys, set, shown_key, written};
use super::guard::{Change, Found, Guard, Outcome, Settled, encoded, of_row};
use super::rivals::rivals;
use super::stream::Table;
use super::succession::content_of;
use super::value;

/// In the place of a row that was not there.
pub(super) const NO_ROW: &str = "no such row";

impl Guard<'_> {
    /// Decides what a change means for a row that is not as expected, and makes what can be made. With `wait`, a row
    /// that only a unique value keeps from its change is handed back.
    pub fn settle(
        &mut self,
        number: u32,
        table: &Table,
        change: &Change<'_>,
        wait: bool,
    ) -> Result<Settled, TargetError> {
        fault::point(Point::Statement).map_err(|source| {
            TargetError::failed(format!("cannot change rows of {} in {}", table.name, self.label), source)
        })?;
        self.lose_gone(table, change);
        match (change.expect, change.want) {
            (Some(expect), None) => self.settle_removal(number, table, change, expect)?,
            (None, Some(want)) => {
                if self.was_taken(table, change) {
                    let (before, left) = (shown_row(table, want), format!("{} again", shown_row(table, want)));
                    let at = self.conflict_at(table, change.new_rowid, want, ConflictKind::Missing);
                    self.conflicts.push(Conflict { before, left, ..at });
                    if self.on_conflict != OnConflict::Overwrite {
                        return Ok(Settled::Done);
                    }
                }
                self.settle_return(number, table, change, want)?;
            }
            (Some(expect), Some(want)) => return self.settle_merge(number, table, change, expect, want, wait),
            (None, None) => {}
        }
        Ok(Settled::Done)
    }

    /// Values that are to come back into columns that are gone: for an undo conflicts, which nothing can overwrite.
    fn lose_gone(&mut self, table: &Table, change: &Change<'_>) {
        let Some(want) = change.want else { return };
        for (at, column) in table.columns.iter().enumerate().filter(|(_, column)| column.gone) {
            let is_lost = match change.expect {
                Some(_) => change.changed.contains(&at),
                None => !matches!(want[at], ValueRef::Null),
            };
            if is_lost && self.gone.is_none() {
                // A redo does again what it can: before the undo it may have been as it is now.
                let note = format!(
                    "{}: {} has no column {} now: what the deployment wrote there does not come again",
                    self.label, table.name, column.name
                );
                if !self.notes.contains(&note) {
                    self.notes.push(note);
                }
            } else if is_lost {
                self.stays = true;
                self.conflicts.push(Conflict {
                    column: Some(column.name.clone()),
                    before: value::shown(want[at]),
                    left: change.expect.map_or_else(|| NO_ROW.to_owned(), |expect| value::shown(expect[at])),
                    now: "no such column".to_owned(),
                    ..self.conflict_at(table, change.new_rowid, want, ConflictKind::Changed)
                });
            }
        }
    }

    fn settle_removal(
        &mut self,
        number: u32,
        table: &Table,
        change: &Change<'_>,
        expect: &[ValueRef<'_>],
    ) -> Result<(), TargetError> {
        let found = self.find(number, table, change.rowid, expect)?;
        if let Some(at) = self.carries.iter().position(|carry| carry.new.eq_ignore_ascii_case(&table.name)) {
            let now = found.as_ref().map(Found::values).transpose().map_err(|source| self.damaged(source))?;
            if self.carries[at].row(self.conn, table, expect, now.as_deref(), &mut self.conflicts)? {
                if let Some(found) = &found {
                    let strange = self.strange_values(table, found)?;
                    let key = self.conflict(table, found, ConflictKind::Changed)?.key.unwrap_or_default();
                    self.carries[at].strange(&key, &strange, &mut self.conflicts);
                }
                return found.map_or(Ok(()), |found| self.remove(number, table, &found));
            }
        }
        let Some(found) = found else {
            if self.is_adrift(table, expect) {
                // It may be there, changed and under another rowid: nobody can tell.
                self.conflicts.push(Conflict {
                    left: shown_row(table, expect),
                    now: "no row like it".to_owned(),
                    ..self.conflict_at(table, change.rowid, expect, ConflictKind::NotFound)
                });
                return Ok(());
            }
            let missing = Conflict {
                left: shown_row(table, expect),
                ..self.conflict_at(table, change.rowid, expect, ConflictKind::Missing)
            };
            let is_of = |new: &String| {
                new.eq_ignore_ascii_case(&table.name) || content_of(new).eq_ignore_ascii_case(&table.name)
            };
            match self.uncarried.iter_mut().find(|(new, _)| is_of(new)) {
                // With the old table it would come back.
                Some((_, lost)) => {
                    lost.push(missing.clone());
                    self.conflicts.push(missing);
                }
                None => match self.replacing.get(&table.name.to_ascii_lowercase()) {
                    Some(known) => {
                        let missing = Conflict { object: known.clone(), ..missing };
                        self.unkept.push(missing.clone());
                        self.conflicts.push(missing);
                    }
                    // Where it is gone already, nothing of anybody's is lost.
                    None => {
                        if let Some(gone) = &mut self.gone {
                            gone.insert(of_row(table, change.rowid, expect));
                        }
                        self.already.push(missing);
                    }
                },
            }
            return Ok(());
        };
        let now = found.values().map_err(|source| self.damaged(source))?;
        let mut clean = true;
        for column in written(table) {
            if !value::same(now[column], expect[column]) {
                clean = false;
                self.conflicts.push(Conflict {
                    column: Some(table.columns[column].name.clone()),
                    before: NO_ROW.to_owned(),
                    left: value::shown(expect[column]),
                    now: value::shown(now[column]),
                    ..self.conflict(table, &found, ConflictKind::Changed)?
                });
            }
        }
        for (column, shown) in self.strange_values(table, &found)? {
            clean = false;
            self.conflicts.push(Conflict {
                column: Some(column),
                before: NO_ROW.to_owned(),
                left: "no such column".to_owned(),
                now: shown,
                ..self.conflict(table, &found, ConflictKind::Changed)?
            });
        }
        if clean || self.on_conflict == OnConflict::Overwrite {
            self.remove(number, table, &found)?;
        }
        Ok(())
    }

    fn settle_return(
        &mut self,
        number: u32,
        table: &Table,
        change: &Change<'_>,
        want: &[ValueRef<'_>],
    ) -> Result<(), TargetError> {
        // Where rows have nothing but their content, another like it says nothing of this one.
        let adrift = self.is_adrift(table, want);
        if !adrift && let Some(found) = self.find(number, table, change.new_rowid, want)? {
            let now = found.values().map_err(|source| self.damaged(source))?;
            let differing: Vec<usize> =
                written(table).filter(|column| !value::same(now[*column], want[*column])).collect();
            let keyed = table.rowid_column.is_some() || !keys(table).is_empty();
            match differing.as_slice() {
                [] => {
                    self.already.push(Conflict {
                        now: shown_row(table, &now),
                        ..self.conflict(table, &found, ConflictKind::Appeared)?
                    });
                    return Ok(());
                }
                // A rowid that no column shows names nobody: the row that has it now is another one.
                _ if !keyed => {}
                columns => {
                    for column in columns.iter().copied() {
                        self.conflicts.push(Conflict {
                            column: Some(table.columns[column].name.clone()),
                            before: value::shown(want[column]),
                            left: NO_ROW.to_owned(),
                            now: value::shown(now[column]),
                            ..self.conflict(table, &found, ConflictKind::Appeared)?
                        });
                    }
                    for (column, shown) in self.strange_values(table, &found)? {
                        self.conflicts.push(Conflict {
                            column: Some(column),
                            before: "no such column".to_owned(),
                            left: NO_ROW.to_owned(),
                            now: shown,
                            ..self.conflict(table, &found, ConflictKind::Appeared)?
                        });
                    }
                    if self.on_conflict != OnConflict::Overwrite {
                        return Ok(());
                    }
                    self.remove(number, table, &found)?;
                }
            }
        }
        self.bring_back(number, table, change.new_rowid, want)
    }

    /// Inserts a row whose key is free; another row may still stand in the way of its place or of a unique value.
    pub fn bring_back(
        &mut self,
        number: u32,
        table: &Table,
        rowid: i64,
        want: &[ValueRef<'_>],
    ) -> Result<(), TargetError> {
        if self.insert(number, table, rowid, want, false)? == Outcome::Done {
            return Ok(());
        }
        let hidden = table.rowid.is_some() && table.rowid_column.is_none();
        if hidden && self.look(number, table, Kind::Find, rowid, want)?.is_some() {
            // The place is taken, by a row that has nothing to do with this one.
            if self.insert_anywhere(number, table, want, false)? == Outcome::Done {
                return Ok(());
            }
        }
        self.conflicts.push(Conflict {
            before: shown_row(table, want),
            left: NO_ROW.to_owned(),
            now: self.in_the_way(table, want, None)?,
            ..self.conflict_at(table, rowid, want, ConflictKind::Constraint)
        });
        if self.on_conflict != OnConflict::Overwrite {
            return Ok(());
        }
        let done = if hidden && self.look(number, table, Kind::Find, rowid, want)?.is_some() {
            self.insert_anywhere(number, table, want, true)?
        } else {
            self.insert(number, table, rowid, want, true)?
        };
        if done == Outcome::Done {
            return Ok(());
        }
        Err(TargetError::failed(
            format!("cannot bring a row of {} in {} back", table.name, self.label),
            "the table no longer takes it",
        ))
    }

    fn settle_merge(
        &mut self,
        number: u32,
        table: &Table,
        change: &Change<'_>,
        expect: &[ValueRef<'_>],
        want: &[ValueRef<'_>],
        wait: bool,
    ) -> Result<Settled, TargetError> {
        let Some(found) = self.find(number, table, change.rowid, expect)? else {
            // The wanted row may be there already, under the key that it is to have.
            let adrift = self.is_adrift(table, expect);
            if !adrift && let Some(there) = self.find(number, table, change.new_rowid, want)? {
                let now = there.values().map_err(|source| self.damaged(source))?;
                if written(table).all(|column| value::same(now[column], want[column])) {
                    self.already.push(Conflict {
                        now: shown_row(table, &now),
                        ..self.conflict(table, &there, ConflictKind::Appeared)?
                    });
                    return Ok(Settled::Done);
                }
            }
            let kind = if adrift { ConflictKind::NotFound } else { ConflictKind::Missing };
            self.conflicts.push(Conflict {
                before: shown_row(table, want),
                left: shown_row(table, expect),
                now: if adrift { "no row like it" } else { NO_ROW }.to_owned(),
                ..self.conflict_at(table, change.rowid, expect, kind)
            });
            if self.on_conflict == OnConflict::Overwrite {
                self.bring_back(number, table, change.new_rowid, want)?;
            }
            return Ok(Settled::Done);
        };
        let now = found.values().map_err(|source| self.damaged(source))?;
        let mut to_set = Vec::new();
        for column in change.changed.iter().copied().filter(|column| table.columns[*column].is_written()) {
            if value::same(now[column], want[column]) {
                self.already.push(Conflict {
                    column: Some(table.columns[column].name.clone()),
                    before: value::shown(want[column]),
                    left: value::shown(expect[column]),
                    now: value::shown(now[column]),
                    ..self.conflict(table, &found, ConflictKind::Changed)?
                });
                continue;
            }
            if !value::same(now[column], expect[column]) {
                self.conflicts.push(Conflict {
                    column: Some(table.columns[column].name.clone()),
                    before: value::shown(want[column]),
                    left: value::shown(expect[column]),
                    now: value::shown(now[column]),
                    ..self.conflict(table, &found, ConflictKind::Changed)?
                });
                if self.on_conflict != OnConflict::Overwrite {
                    continue;
                }
            }
            to_set.push(column);
        }
        let hidden_move = change.rowid != change.new_rowid && table.rowid_column.is_none();
        let new_rowid = if hidden_move { change.new_rowid } else { found.rowid };
        if to_set.is_empty() && !hidden_move {
            return Ok(Settled::Done);
        }
        let moved = new_rowid != found.rowid;
        for replace in [false, true] {
            let form = Form { kind: Kind::Update, changed: &to_set, moved, replace };
            if replace {
                let mut wanted = now.clone();
                to_set.iter().for_each(|column| wanted[*column] = want[*column]);
                self.conflicts.push(Conflict {
                    before: shown_row(table, want),
                    left: shown_row(table, expect),
                    now: self.in_the_way(table, &wanted, Some((found.rowid, &now)))?,
                    ..self.conflict(table, &found, ConflictKind::Constraint)?
                });
                if self.on_conflict != OnConflict::Overwrite {
                    return Ok(Settled::Done);
                }
            }
            if self.set_columns(number, table, &found, new_rowid, &form, want)? == Outcome::Done {
                return Ok(Settled::Done);
            }
            if wait {
                let mut wanted = now.clone();
                to_set.iter().for_each(|column| wanted[*column] = want[*column]);
                let wanted = encoded(&wanted);
                drop(now);
                return Ok(Settled::Blocked { found, wanted });
            }
        }
        Err(TargetError::failed(
            format!("cannot put a row of {} in {} back", table.name, self.label),
            "the table no longer takes it",
        ))
    }

    /// The rows that stand in the way of one because of a unique value, in words: under `overwrite` they go.
    fn in_the_way(
        &self,
        table: &Table,
        wanted: &[ValueRef<'_>],
        own: Option<(i64, &[ValueRef<'_>])>,
    ) -> Result<String, TargetError> {
        let rows = rivals(self.conn, table, wanted, own).map_err(|source| self.failed(table, source))?;
        Ok(if rows.is_empty() {
            "another row with the same value in a unique column".to_owned()
        } else {
            format!("{} with the same value in a unique column", rows.join(", "))
        })
    }

    fn set_columns(
        &mut self,
        number: u32,
        table: &Table,
        found: &Found,
        new_rowid: i64,
        form: &Form<'_>,
        want: &[ValueRef<'_>],
    ) -> Result<Outcome, TargetError> {
        let now = found.values().map_err(|source| self.damaged(source))?;
        let (moved, columns) = (form.moved, form.changed);
        let done = self.statements.run(number, table, form, |statement| {
            let at = bind_place(statement, 1, table, found.rowid, &now)?;
            let at = bind_all(statement, at, guarded(table, columns).map(|column| now[column]))?;
            let at = bind_all(statement, at, set(table, columns).map(|column| want[column]))?;
            if moved && table.rowid_column.is_none() {
                statement.raw_bind_parameter(at, new_rowid)?;
                return Ok(at + 1);
            }
            Ok(at)
        });
        self.inserted(table, done)
    }

    fn conflict(&self, table: &Table, found: &Found, kind: ConflictKind) -> Result<Conflict, TargetError> {
        let values = found.values().map_err(|source| self.damaged(source))?;
        Ok(self.conflict_at(table, found.rowid, &values, kind))
    }

    fn conflict_at(&self, table: &Table, rowid: i64, values: &[ValueRef<'_>], kind: ConflictKind) -> Conflict {
        Conflict {
            target: self.label.to_owned(),
            object: table.name.clone(),
            key: Some(shown_key(table, rowid, values)),
            column: None,
            kind,
            before: String::new(),
            left: String::new(),
            now: String::new(),
        }
    }
}

pub(super) fn shown_row(table: &Table, values: &[ValueRef<'_>]) -> String {
    const COLUMNS: usize = 4;
    let mut shown: Vec<String> = table
        .columns
        .iter()
        .zip(values)
        .take(COLUMNS)
        .map(|(column, value)| format!("{}={}", column.name, value::shown(*value)))
        .collect();
    if table.columns.len() > COLUMNS {
        shown.push("…".to_owned());
    }
    format!("({})", shown.join(", "))
}
