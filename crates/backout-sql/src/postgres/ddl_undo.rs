//! Takes schema changes back: each where the schema still is what the change left, else it is a conflict.
//!
//! Parts of a definition that only others changed keep what they have now, as columns of a row do.

use std::collections::BTreeSet;

use backout_model::conflict::{Conflict, ConflictKind, Conflicts, OnConflict};
use backout_model::target::{Manner, TargetError};
use backout_model::words;

use super::catalog::{Kind, Object, literal};
use super::ddl::{Context, DdlEvent};
use super::ddl_hold;
use super::ddl_keep::{Kept, What};
use super::ddl_refill::Found;
use super::ddl_shape::ShapeError;
use super::ddl_turn::{self, Pair, Reach, TurnError};
use super::ddl_values::Unfit;
use super::load::MADE_ANEW;
use super::table::plain;
use super::{ddl_labels, ddl_make, ddl_observe, ddl_refill, ddl_shape};

/// How it is said that a change is undone already.
pub(super) const AS_IT_WAS: &str = "as it was before";

/// Takes a schema change back. Conflicts are pushed; under `Keep` a statement with conflicts stays as it is, else the
/// old state is brought back all the same, and under `Stop` the caller rolls back.
pub fn undo(
    context: &mut Context<'_>,
    event: &DdlEvent,
    manner: Manner,
    conflicts: &mut Conflicts,
    notes: &mut Vec<String>,
) -> Result<(), TargetError> {
    if event.changes.is_empty() && event.kept.is_empty() {
        return Ok(());
    }
    let mut work = Undo { context, event, manner, conflicts, notes };
    work.within(Undo::whole)
}

/// Why something was left undone; nothing of the event has changed then.
pub(super) enum Left {
    Target(TargetError),
    Turn(TurnError),
    /// Rows that come back would point at nothing, or are not admitted; the server's words.
    Rejected(ConflictKind, String),
    /// Rows of others have no place in what comes back.
    Rows(Vec<Unfit>),
}

impl From<ShapeError> for Left {
    fn from(error: ShapeError) -> Self {
        match error {
            ShapeError::Target(error) => Self::Target(error),
            ShapeError::Stuck(error) | ShapeError::Turn(error) => Self::Turn(error),
            ShapeError::Rows(rows) => Self::Rows(rows),
        }
    }
}

impl From<TargetError> for Left {
    fn from(error: TargetError) -> Self {
        Self::Target(error)
    }
}

impl From<TurnError> for Left {
    fn from(error: TurnError) -> Self {
        Self::Turn(error)
    }
}

impl From<postgres::Error> for Left {
    fn from(error: postgres::Error) -> Self {
        Self::Turn(error.into())
    }
}

pub(super) struct Undo<'a, 'c> {
    pub(super) context: &'a mut Context<'c>,
    pub(super) event: &'a DdlEvent,
    pub(super) manner: Manner,
    pub(super) conflicts: &'a mut Conflicts,
    notes: &'a mut Vec<String>,
}

/// What is to be turned: what is there, what it shall be, and what others put in the way of it.
#[derive(Default)]
pub(super) struct Aim {
    pub(super) pairs: Vec<(Option<Object>, Option<Object>)>,
    pub(super) in_the_way: Vec<Object>,
    /// A name that it would use is another object's now.
    pub(super) is_misled: bool,
}

impl Undo<'_, '_> {
    fn within(&mut self, work: impl Fn(&mut Self) -> Result<(), Left>) -> Result<(), TargetError> {
        let failed = |error: postgres::Error| TargetError::failed("cannot set a savepoint", error);
        let settings = ddl_observe::begin(self.context.client).map_err(failed)?;
        let error = match work(self) {
            Ok(()) => {
                let end = format!("{settings}; RELEASE SAVEPOINT backout_undo");
                return self.context.client.unwritten().batch_execute(&end).map_err(failed);
            }
            Err(error) => error,
        };
        if !self.context.client.is_closed() {
            let back = "ROLLBACK TO SAVEPOINT backout_undo; RELEASE SAVEPOINT backout_undo";
            self.context.client.batch_execute(back).map_err(failed)?;
        }
        match error {
            Left::Target(error) => Err(error),
            // What others made since and what comes back do not go together; nothing has changed. What was to be
            // overwritten and could not be is no conflict that was settled.
            Left::Turn(TurnError::Stuck { what, why }) if self.manner.on_conflict != OnConflict::Overwrite => {
                self.conflict(&what, ConflictKind::Definition, why);
                Ok(())
            }
            Left::Turn(TurnError::Differs { object, what }) if self.manner.on_conflict != OnConflict::Overwrite => {
                self.conflict(&object, ConflictKind::Definition, format!("it does not come back: {what}"));
                Ok(())
            }
            Left::Rejected(kind, why)
                if kind == ConflictKind::ForeignKey || self.manner.on_conflict != OnConflict::Overwrite =>
            {
                let emptied = self.event.kept.first().map(|kept| format!("table {}", kept.table));
                self.conflict(&emptied.unwrap_or_default(), kind, why);
                Ok(())
            }
            Left::Rows(rows) if self.manner.on_conflict != OnConflict::Overwrite => {
                for Unfit { table, key, column, now } in rows {
                    let conflict =
                        self.context.conflict(format!("table {table}"), ConflictKind::Constraint, String::new(), now);
                    self.conflicts.push(Conflict { key: Some(key), column, ..conflict });
                }
                Ok(())
            }
            Left::Rejected(_, why) => Err(self.cannot(stuck("put back the rows", why))),
            Left::Rows(rows) => {
                let why = rows.into_iter().next().map_or_else(String::new, |row| format!("{}: {}", row.key, row.now));
                Err(self.cannot(stuck("build the table anew", why)))
            }
            Left::Turn(error) => Err(self.cannot(error)),
        }
    }

    fn cannot(&self, error: TurnError) -> TargetError {
        let first = self.event.words();
        self.context.cannot(&format!("undo line {} ({first})", self.event.line), error)
    }

    pub(super) fn conflict(&mut self, object: &str, kind: ConflictKind, now: impl Into<String>) {
        self.push(object, kind, String::new(), String::new(), now.into());
    }

    pub(super) fn push(&mut self, object: &str, kind: ConflictKind, before: String, left: String, now: String) {
        let conflict = self.context.conflict(object.to_owned(), kind, left, now);
        self.conflicts.push(Conflict { before, ..conflict });
    }

    fn whole(&mut self) -> Result<(), Left> {
        let found_before = self.conflicts.total;
        let aim = self.guard()?;
        let keeps = self.conflicts.total > found_before && self.manner.on_conflict == OnConflict::Keep;
        if !(keeps || aim.is_misled) {
            self.turn(&aim)?;
        }
        Ok(())
    }

    fn live(&mut self, objects: &[&Object]) -> Result<Vec<Option<Object>>, Left> {
        Ok(ddl_turn::live(self.context.client, self.context.version, objects)?)
    }

    /// Compares what is there with what the statement left.
    fn guard(&mut self) -> Result<Aim, Left> {
        let event = self.event;
        let mut aim = Aim::default();
        let names: Vec<&Object> =
            event.changes.iter().filter_map(|change| change.after.as_ref().or(change.before.as_ref())).collect();
        let found = self.live(&names)?;
        let renamed = self.renamed(&found)?;
        let mut as_before = 0;
        let total_before = self.conflicts.total;
        for (change, now) in event.changes.iter().zip(found) {
            match (&change.before, &change.after) {
                (None, Some(after)) => {
                    as_before += usize::from(now.is_none());
                    self.needed(None, after, now.is_some());
                    self.already(now.is_none(), after);
                    if !self.tell_renamed(&renamed, after) {
                        self.guard_made(after, now, &mut aim);
                    }
                }
                (Some(before), None) => {
                    let is_there = now.as_ref().is_some_and(|now| now.is_same(before));
                    as_before += usize::from(is_there);
                    self.already(is_there, before);
                    self.guard_gone(before, now, &mut aim);
                }
                (Some(before), Some(after)) => {
                    let is_back = now.as_ref().is_some_and(|now| now.is_same(before));
                    as_before += usize::from(is_back);
                    self.needed(Some(before), after, now.is_some() && !is_back);
                    self.already(is_back && !before.is_same(after), before);
                    if !self.tell_renamed(&renamed, after) {
                        self.guard_altered(before, after, now, &mut aim);
                    }
                }
                (None, None) => {}
            }
        }
        if self.manner.in_doubt && !event.changes.is_empty() && as_before == event.changes.len() {
            // Nothing of it has been done, or all of it has been undone.
            self.conflicts.listed.truncate(usize::try_from(total_before).unwrap_or(usize::MAX));
            self.conflicts.total = total_before;
            return Ok(Aim::default());
        }
        self.tell_renamed_needs(&renamed)?;
        aim.is_misled = !renamed.is_empty();
        self.guard_along(&aim)?;
        self.guard_labels(&mut aim)?;
        Ok(aim)
    }

    /// Tells that a change is undone already, by whoever it was.
    fn already(&mut self, undone: bool, object: &Object) {
        if undone {
            let now = AS_IT_WAS.to_owned();
            let conflict = self.context.conflict(object.shown(), ConflictKind::Definition, String::new(), now);
            self.context.already(conflict);
        }
    }

    /// Tells what a later step's undo would miss: its rows know the table and the columns as they are now.
    fn needed(&mut self, before: Option<&Object>, after: &Object, is_there: bool) {
        let made = |id: &str| self.event.made().any(|made| made == id);
        let (table, column) = match (after.kind, before) {
            (Kind::Column, _) if after.part("relation").is_some() || made(after.of()) => return,
            (Kind::Column, None) => (after.of(), Some(after.text("name").to_owned())),
            (Kind::Column, Some(before))
                if ["name", "type"].iter().any(|part| before.part(part) != after.part(part)) =>
            {
                (after.of(), Some(after.text("name").to_owned()))
            }
            (Kind::Table, Some(before)) if before.id() != after.id() => (after.id(), None),
            _ => return,
        };
        if is_there {
            let conflict = self.context.conflict(plain(table), ConflictKind::RequiredBy, String::new(), String::new());
            self.context.already(Conflict { column, ..conflict });
        }
    }

    fn guard_made(&mut self, after: &Object, now: Option<Object>, aim: &mut Aim) {
        let Some(now) = now else {
            if !self.manner.in_doubt && after.of().is_empty() {
                self.context.gone.note_object(after.shown());
                self.notes.push(format!("{}: {} was dropped since", self.context.target, after.shown()));
            }
            return;
        };
        self.compare(after, &now, &after.differences(&now));
        aim.pairs.push((Some(now), None));
    }

    fn guard_gone(&mut self, before: &Object, now: Option<Object>, aim: &mut Aim) {
        if let Some(now) = now {
            let text = shown_definition(&now);
            self.conflict(&before.shown(), ConflictKind::Appeared, text);
            aim.in_the_way.push(now);
        } else if self.context.gone.has_object(&before.shown()) {
            let text = shown_definition(before);
            self.push(&before.shown(), ConflictKind::Missing, text, MADE_ANEW.into(), String::new());
        }
        aim.pairs.push((None, Some(before.clone())));
    }

    fn guard_altered(&mut self, before: &Object, after: &Object, now: Option<Object>, aim: &mut Aim) {
        let Some(now) = now else {
            let left = shown_definition(after);
            self.push(&after.shown(), ConflictKind::Missing, String::new(), left, String::new());
            return;
        };
        let changed = before.differences(after);
        let is_enum = now.kind == Kind::Enum && changed.contains(&"labels");
        let labels = if is_enum { ddl_labels::back(before, after, &now) } else { None };
        let granted = if changed.contains(&"acl") { granted_back(before, after, &now) } else { None };
        let differing: Vec<&str> = changed
            .iter()
            .copied()
            .filter(|part| now.part(part) != after.part(part) && now.part(part) != before.part(part))
            .filter(|part| !(*part == "labels" && labels.is_some() || *part == "acl" && granted.is_some()))
            .collect();
        self.compare(after, &now, &differing);
        let mut wanted = now.clone();
        for part in changed.into_iter().chain(["id", "of"]) {
            match before.part(part) {
                Some(value) => wanted.parts.insert(part.to_owned(), value.to_owned()),
                None => wanted.parts.remove(part),
            };
        }
        wanted.parts.extend(granted.map(|granted| ("acl".to_owned(), granted)));
        if is_enum {
            // Before the step commits no row can hold them, and the tables that use the type are not the step's to lock.
            wanted.parts.extend(labels.map(|labels| ("labels".to_owned(), labels)));
            if self.context.proof && ddl_labels::grew(&wanted, &now) {
                wanted.parts.insert("labels".to_owned(), now.text("labels").to_owned());
            }
        }
        aim.pairs.push((Some(now), Some(wanted)));
    }

    fn compare(&mut self, left: &Object, now: &Object, differing: &[&str]) {
        if let Some(part) = differing.first() {
            let text = |object: &Object| format!("{part} {}", object.part(part).unwrap_or("not set"));
            let (left_text, now_text) = (text(left), text(now));
            self.push(&left.shown(), ConflictKind::Definition, String::new(), left_text, now_text);
        }
    }

    /// Rows that hold a label which goes: nobody knows what else they should hold, so it stays.
    fn guard_labels(&mut self, aim: &mut Aim) -> Result<(), Left> {
        let altered = aim.pairs.iter_mut().filter_map(|(from, to)| Some((from.as_ref()?, to.as_mut()?)));
        for (now, wanted) in altered.filter(|(now, wanted)| ddl_labels::grew(wanted, now)) {
            let gone = ddl_labels::added(wanted, now).unwrap_or_default();
            let name = gone.join(", ");
            let used = ddl_labels::used(self.context.client, now, &gone)?;
            for (column, rows) in &used {
                let left = format!("no row with label {name}");
                let held = format!("label {name} in {}", words::count(rows.unsigned_abs(), "row"));
                if self.manner.on_conflict == OnConflict::Overwrite {
                    let what = format!("take label {name} out of {}", now.shown());
                    return Err(stuck(&what, format!("{column} has {held}")).into());
                }
                self.push(column, ConflictKind::Changed, String::new(), left, held);
            }
            if !used.is_empty() {
                wanted.parts.insert("labels".to_owned(), now.text("labels").to_owned());
            }
        }
        Ok(())
    }

    fn turn(&mut self, aim: &Aim) -> Result<(), Left> {
        let event = self.event;
        let overwrite = self.manner.on_conflict == OnConflict::Overwrite;
        for object in &aim.in_the_way {
            let alone = matches!(object.kind, Kind::PublishedTable | Kind::PublishedSchema | Kind::DefaultPrivileges);
            let sql =
                ddl_make::drop(object) + if alone || object.part("on domain").is_some() { "" } else { " CASCADE" };
            let act = ddl_turn::Act { sql, shown: format!("drop {}", object.shown()), drops: true };
            ddl_turn::run(self.context.client, vec![act])?;
        }
        let shapes = || event.kept.iter().filter(|kept| matches!(kept.what, What::Values { .. }));
        let early: Vec<&Object> = if shapes().next().is_none() {
            Vec::new()
        } else {
            aim.pairs
                .iter()
                .filter(|(from, _)| from.is_none())
                .filter_map(|(_, to)| to.as_ref())
                .filter(is_type)
                .collect()
        };
        let back = |object: &Object| ddl_hold::is_among(object, &event.moved).map(ddl_hold::Moved::back);
        ddl_turn::run(self.context.client, ddl_turn::makes(&early, &back)?)?;
        if shapes().next().is_some() {
            ddl_turn::run(self.context.client, ddl_turn::drops(&hung(aim, &event.kept), &|_| None))?;
        }
        for kept in event.kept.iter().filter(|_| !aim.pairs.is_empty() || event.changes.is_empty()) {
            if let Some(why) = ddl_refill::unfit(self.context.client, kept)? {
                return Err(stuck(&format!("put the rows of {} back", kept.table), why).into());
            }
        }
        let trees = if aim.pairs.is_empty() { Vec::new() } else { ddl_shape::trees(self.context.client, &event.kept)? };
        for tree in trees {
            let homeless = ddl_shape::put_back(self.context, &tree, &event.changes)?;
            if homeless.values > 0 {
                let left = format!("values in {}", words::count(homeless.values, "row"));
                let table = format!("table {}", tree[0].table);
                let conflict = self.context.conflict(table, ConflictKind::Missing, left, String::new());
                if homeless.moved {
                    let now = "no row with that key; others have rows with keys that were not there".to_owned();
                    self.conflicts.push(Conflict { now, ..conflict });
                } else {
                    // With those of a later deployment, its undo would bring the rows back without their values.
                    self.context.already(conflict);
                }
            }
        }
        let shaped = |object: &Object| {
            object.kind == Kind::Column
                && event.kept.iter().any(|kept| kept.table == object.of() && matches!(kept.what, What::Values { .. }))
        };
        let special_make = |object: &Object| -> Option<String> {
            let is_there = early.iter().any(|early| std::ptr::eq(*early, object));
            if ddl_hold::stays_with(object, &event.moved) || shaped(object) || is_there {
                return Some(String::new());
            }
            back(object)
        };
        let pairs: Vec<Pair<'_>> =
            aim.pairs.iter().map(|(from, to)| Pair { from: from.as_ref(), to: to.as_ref() }).collect();
        let version = self.context.version;
        let plain = |_: &Object| None;
        let cascade = |object: &Object| {
            let sql = ddl_make::drop(object);
            let takes_along = match object.kind {
                Kind::Column => object.part("relation").is_none() && !object.is_inherited(),
                Kind::Constraint | Kind::Attribute => !object.is_inherited(),
                _ => object.of().is_empty(),
            };
            (takes_along && !sql.is_empty()).then(|| format!("{sql} CASCADE"))
        };
        let drop: &dyn Fn(&Object) -> Option<String> = if overwrite { &cascade } else { &plain };
        ddl_turn::turn(self.context.client, version, &pairs, drop, &special_make, Reach::Whole)?;
        if pairs.is_empty() && !event.changes.is_empty() {
            return Ok(());
        }
        for hold in event.holds() {
            self.context.client.batch_execute(&format!("DROP SCHEMA IF EXISTS {hold}"))?;
        }
        for Found { table, kind, now } in self.refill()? {
            self.conflict(&format!("table {table}"), kind, now);
        }
        for kept in &event.kept {
            if let What::Position { last, called } = &kept.what {
                let sql = format!("SELECT setval({}, {last}, {called})", literal(&kept.table));
                self.context.client.batch_execute(&sql)?;
            }
        }
        Ok(())
    }
}

impl Undo<'_, '_> {
    /// Puts the rows of emptied tables back. What they point at may be gone since: that is for a person to settle.
    fn refill(&mut self) -> Result<Vec<Found>, Left> {
        let done = ddl_refill::put_back(self.context, &self.event.kept, self.manner);
        done.map_err(|error| match ddl_refill::rejected(&error) {
            Some((kind, why)) => Left::Rejected(kind, why),
            None => Left::Target(error),
        })
    }
}

fn stuck(what: &str, why: String) -> TurnError {
    TurnError::Stuck { what: what.to_owned(), why }
}

/// What the statement hung on tables that get their old shape back: it may not fit that.
fn hung<'a>(aim: &'a Aim, kept: &[Kept]) -> Vec<&'a Object> {
    let goes = |object: &&Object| {
        matches!(object.kind, Kind::Constraint | Kind::Index | Kind::Trigger | Kind::Rule | Kind::Policy)
            && !object.is_inherited()
            && kept.iter().any(|kept| kept.table == object.of() && matches!(kept.what, What::Values { .. }))
    };
    aim.pairs.iter().filter(|(_, to)| to.is_none()).filter_map(|(from, _)| from.as_ref()).filter(goes).collect()
}

/// What is granted now, without what the statement granted and with what it revoked, a line each; none where an owner changed,
/// in whose name all of it is.
fn granted_back(before: &Object, after: &Object, now: &Object) -> Option<String> {
    let owners = [before, after].map(|object| object.part("owner"));
    let lines = |object: &'_ Object| object.part("acl").unwrap_or_default().lines().map(str::to_owned).collect();
    let [was, left, mut granted]: [BTreeSet<String>; 3] = [lines(before), lines(after), lines(now)];
    granted.retain(|line| was.contains(line) || !left.contains(line));
    granted.extend(was.difference(&left).cloned());
    let text = granted.into_iter().collect::<Vec<_>>().join("\n");
    (!text.is_empty() && owners.iter().all(|owner| *owner == now.part("owner"))).then_some(text)
}

/// What the columns of a table may need before it can be built anew.
fn is_type(object: &&Object) -> bool {
    matches!(object.kind, Kind::Schema | Kind::Enum | Kind::Composite | Kind::Domain | Kind::Range | Kind::Function)
}

/// What an object is now, in short.
pub(super) fn shown_definition(object: &Object) -> String {
    const SHOWN: usize = 120;
    let text = ddl_make::create(object, &[object]).unwrap_or_else(|| object.shown());
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= SHOWN { line } else { format!("{}…", line.chars().take(SHOWN).collect::<String>()) }
}
