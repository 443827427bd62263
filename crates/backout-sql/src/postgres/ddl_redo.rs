//! Runs an undone schema change again, to the same result.

use std::collections::BTreeSet;

use backout_model::conflict::{ConflictKind, Conflicts, OnConflict};
use backout_model::target::{Manner, TargetError};

use super::catalog::{Kind, Object};
use super::ddl::{self, Context, DdlEvent, Statement};
use super::ddl_hold::{self, Moved};
use super::ddl_names;
use super::ddl_observe::live_now;
use super::ddl_observe::pinned;
use super::ddl_refill::{self, Found};
use super::ddl_turn::{self, Pair, Reach};
use super::ddl_undo::shown_definition;
use super::{acts, ddl_keep, ddl_settings, namesakes};

/// Runs an undone change again where the schema still is what the undo left, under the settings of the first run.
pub fn redo(
    context: &mut Context<'_>,
    event: &DdlEvent,
    manner: Manner,
    conflicts: &mut Conflicts,
) -> Result<DdlEvent, TargetError> {
    let failed = |error: postgres::Error| TargetError::failed(format!("cannot run line {} again", event.line), error);
    let found_before = conflicts.total;
    let names: Vec<&Object> =
        event.changes.iter().filter_map(|change| change.before.as_ref().or(change.after.as_ref())).collect();
    let now = live_now(context, &names).map_err(failed)?;
    for (change, now) in event.changes.iter().zip(now) {
        // A hold has another name this time; what the statement does to it is seen when it runs.
        if change.before.as_ref().is_some_and(Object::is_held) {
            continue;
        }
        let mut push = |object: &Object, kind, now: String| {
            conflicts.push(context.conflict(object.shown(), kind, String::new(), now));
        };
        match (&change.before, &change.after, now) {
            (Some(before), None, Some(now)) if !before.is_same(&now) => {
                push(before, ConflictKind::Definition, shown_definition(&now));
            }
            (Some(before), Some(after), Some(now)) => {
                let changed = before.differences(after);
                if changed.iter().any(|part| before.part(part) != now.part(part)) {
                    push(before, ConflictKind::Definition, shown_definition(&now));
                }
            }
            (Some(before), _, None) => push(before, ConflictKind::Missing, String::new()),
            (None, Some(after), Some(now)) if !now.is_inherited() => {
                push(after, ConflictKind::Appeared, shown_definition(&now));
            }
            _ => {}
        }
    }
    let renamed = if context.knows_numbers {
        pinned(context.client, |client| namesakes::to_redo(client, event))
    } else {
        Ok(Vec::new())
    };
    for one in renamed.map_err(failed)? {
        let conflict = context.conflict(one.was.shown(), ConflictKind::Definition, one.was.name.clone(), one.words());
        conflicts.push(conflict);
        if manner.on_conflict == OnConflict::Overwrite {
            // What has the name now is nobody's to change.
            return Err(TargetError::Conflicts(std::mem::take(conflicts)));
        }
    }
    for Found { table, kind, now } in pinned_rows(context, event)? {
        conflicts.push(context.conflict(format!("table {table}"), kind, String::new(), now));
    }
    if event.changes.is_empty() && event.kept.is_empty() && event.refreshed.is_empty() {
        return Ok(event.clone());
    }
    if conflicts.total > found_before && manner.on_conflict != OnConflict::Overwrite {
        return Ok(event.nothing());
    }
    if event.found {
        return turned_again(context, event);
    }
    let statement = Statement { line: event.line, sql: &event.sql };
    // The rows that CREATE TABLE AS or a block made come from the images; run again it might make others today.
    if makes_with_rows(event) || changes_rows_too(event) {
        let pairs: Vec<Pair<'_>> = event
            .changes
            .iter()
            .map(|change| Pair { from: change.before.as_ref(), to: change.after.as_ref() })
            .collect();
        let version = context.version;
        pinned(context.client, |client| ddl_turn::turn(client, version, &pairs, &|_| None, &|_| None, Reach::Whole))
            .map_err(|error| context.cannot(&format!("run line {} again", event.line), error))?;
        return Ok(event.clone());
    }
    let before = ddl_settings::put_in_force(context.client, &event.settings).map_err(failed)?;
    let settled = context.client.settle(false);
    // What triggers wrote comes back as rows.
    let silence = ddl_refill::of_truncate(context.client, event).map_err(failed)?;
    if let Some((begin, _)) = &silence {
        context.client.batch_execute(begin).map_err(failed)?;
    }
    let done = ddl::run(context, statement)?;
    if let Some((_, end)) = &silence {
        context.client.batch_execute(end).map_err(failed)?;
    }
    ddl_settings::put_in_force(context.client, &before).map_err(failed)?;
    context.client.settle(settled);
    Ok(DdlEvent { settings: event.settings.clone(), ..done }.with_acts_of(event))
}

/// Turns the objects of a change that was found by comparison: of its statements nothing is known.
fn turned_again(context: &mut Context<'_>, event: &DdlEvent) -> Result<DdlEvent, TargetError> {
    let cannot = |context: &Context<'_>, error| context.cannot("do again what a command did", error);
    let kept = ddl_keep::keep_again(context, &event.kept)?;
    let mut again = DdlEvent { moved: Vec::new(), ..event.clone() };
    if ddl_hold::any(&event.changes) {
        ddl_hold::drop_aside(context, event.changes.clone(), &mut again).map_err(|error| cannot(context, error))?;
    } else {
        let pairs: Vec<Pair<'_>> = event
            .changes
            .iter()
            .map(|change| Pair { from: change.before.as_ref(), to: change.after.as_ref() })
            .collect();
        let version = context.version;
        pinned(context.client, |client| ddl_turn::turn(client, version, &pairs, &|_| None, &|_| None, Reach::Whole))
            .map_err(|error| cannot(context, error))?;
    }
    Ok(DdlEvent { kept, ..again }.with_acts_of(event))
}

/// Rows of emptied tables that others changed since they came back: emptied again they would go along.
fn pinned_rows(context: &mut Context<'_>, event: &DdlEvent) -> Result<Vec<Found>, TargetError> {
    if event.kept.is_empty() {
        return Ok(Vec::new());
    }
    let keep = &mut *context.keep;
    pinned(context.client, |client| ddl_refill::changed_since(client, keep, &event.kept).map_err(Halt::Target)).map_err(
        |halt| match halt {
            Halt::Target(error) => error,
            Halt::Server(error) => TargetError::failed("cannot set up", error),
        },
    )
}

/// An error of either side of [`pinned_rows`].
enum Halt {
    Server(postgres::Error),
    Target(TargetError),
}

impl From<postgres::Error> for Halt {
    fn from(error: postgres::Error) -> Self {
        Self::Server(error)
    }
}

/// A block or a procedure, which may have changed rows as well. One that destroyed anything was refused.
fn changes_rows_too(event: &DdlEvent) -> bool {
    ["DO", "CALL", "EXECUTE"].iter().any(|word| ddl_names::starts_with(&event.sql, word))
}

fn makes_with_rows(event: &DdlEvent) -> bool {
    let words = event.sql.to_ascii_uppercase();
    let makes = event.made().next().is_some() && event.changes.iter().all(|change| change.before.is_none());
    let selects = ddl_names::starts_with(&event.sql, "SELECT")
        || ddl_names::starts_with(&event.sql, "WITH")
        || ddl_names::starts_with(&event.sql, "CREATE") && words.contains(" AS");
    makes
        && selects
        && event
            .changes
            .iter()
            .all(|change| change.after.as_ref().is_some_and(|object| matches!(object.kind, Kind::Table | Kind::Column)))
}

impl DdlEvent {
    /// The same, with nothing done.
    pub fn nothing(&self) -> Self {
        Self {
            changes: Vec::new(),
            moved: Vec::new(),
            kept: Vec::new(),
            needs: Vec::new(),
            acts: Vec::new(),
            refreshed: Vec::new(),
            given: Vec::new(),
            ..self.clone()
        }
    }

    /// How its undo goes, told by that of the first time: what is held and kept lies elsewhere now.
    fn with_acts_of(self, first: &Self) -> Self {
        let again = |was: &Moved| self.moved.iter().find(|moved| moved.id == was.id && moved.word == was.word);
        let holds = first.moved.iter().filter_map(|was| Some((was.hold.as_str(), again(was)?.hold.as_str())));
        let old_and_new: BTreeSet<(&str, &str)> = holds.collect();
        let old_and_new: Vec<(&str, &str)> = old_and_new.into_iter().collect();
        let blocks: Vec<(u64, u64)> = first
            .kept
            .iter()
            .flat_map(ddl_keep::Kept::blocks)
            .zip(self.kept.iter().flat_map(ddl_keep::Kept::blocks))
            .collect();
        let acts = acts::moved(&first.acts, &old_and_new, &blocks);
        Self { acts, hung: first.hung.clone(), given: first.given.clone(), ..self }
    }
}
