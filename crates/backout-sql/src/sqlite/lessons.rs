//! What one attempt at an undo or redo teaches the next: spans that must go another way, changes that must stay as they
//! are because they would break or lose what others made. Never tries anything itself.

use backout_model::conflict::{Conflict, Conflicts, OnConflict};
use backout_model::target::TargetError;
use rusqlite::Connection;

use super::dependents::Broken;
use super::replay::{Halt, Replay};
use super::spared::Spared;
use super::stream::Event;

/// What earlier attempts at the same work have taught.
#[derive(Clone, Debug, Default)]
pub struct Lessons {
    /// The spans to be done by net effect.
    pub by_net: Vec<usize>,
    /// Look for rows that point at nothing before changing any.
    pub foreign_keys: bool,
    /// The full-text tables whose index is to be made anew.
    pub rebuilt: Vec<String>,
    /// Statistics are left as they are now.
    pub statistics_left: bool,
    /// The changes of the schema to be left as they are, since they would break or lose what others made, and that.
    left: Vec<usize>,
    /// The rows to be left as they are.
    pub spared: Spared,
    pub left_for: Conflicts,
}

impl Lessons {
    /// True where there is something new to learn; an attempt that halts twice for one reason is a defect.
    pub fn learn(&mut self, halt: &Halt) -> bool {
        match halt {
            Halt::ByNet(span) if !self.by_net.contains(span) => {
                self.by_net.push(*span);
                true
            }
            Halt::Rebuild(table) if !self.rebuilt.contains(table) => {
                self.rebuilt.push(table.clone());
                true
            }
            Halt::LeaveStatistics if !self.statistics_left => {
                self.statistics_left = true;
                true
            }
            Halt::Leave { events, conflicts } if events.iter().any(|event| !self.leaves(*event)) => {
                self.left.extend(events);
                self.left_for.extend(conflicts.clone());
                true
            }
            Halt::Spare { rows, conflicts } => {
                let learnt = self.spared.learn(rows);
                if learnt {
                    self.left_for.join(conflicts.clone());
                }
                learnt
            }
            Halt::LookAtForeignKeys if !self.foreign_keys => {
                self.foreign_keys = true;
                true
            }
            _ => false,
        }
    }

    /// Whether a change of the schema is to be left as it is.
    pub fn leaves(&self, event: usize) -> bool {
        self.left.contains(&event)
    }
}

/// What `halt` means to somebody who will not try again.
pub fn as_error(halt: Halt, label: &str) -> TargetError {
    match halt {
        Halt::Error(error) => error,
        Halt::ByNet(_)
        | Halt::Rebuild(_)
        | Halt::LeaveStatistics
        | Halt::LookAtForeignKeys
        | Halt::Spare { .. }
        | Halt::Leave { .. } => {
            TargetError::failed(format!("cannot settle the rows of {label}"), "no attempt came to an end")
        }
    }
}

/// Conflicts that were found, as one.
pub fn all_of(found: impl Iterator<Item = Conflict>) -> Conflicts {
    let mut all = Conflicts::default();
    found.for_each(|conflict| all.push(conflict));
    all
}

/// Where a change of the schema stays as others' changes are to be kept, what stands or falls with it stays, too.
/// `listed`: how many conflicts there were before it was tried.
pub fn stay_together(
    events: &[Event],
    number: usize,
    lessons: &Lessons,
    replay: &Replay<'_>,
    listed: usize,
) -> Result<(), Halt> {
    let guard = &replay.guard;
    if guard.on_conflict != OnConflict::Keep {
        return Ok(());
    }
    let together = replay.track.together(events, number);
    if together.iter().all(|event| lessons.leaves(*event)) {
        return Ok(());
    }
    let found = guard.conflicts.listed.get(listed..).unwrap_or_default();
    Err(Halt::Leave { events: together, conflicts: all_of(found.iter().cloned()) })
}

/// An index of others that would not work any more must not be written to: its entries would be others than its
/// definition says. To be called before each event.
pub fn heed_indexes(conn: &Connection, label: &str, replay: &mut Replay<'_>) -> Result<(), Halt> {
    let broken = replay.dependents.broken_indexes(conn, label)?;
    if broken.is_empty() {
        return Ok(());
    }
    let (events, conflicts) = news(broken, replay);
    let guard = &mut replay.guard;
    if guard.on_conflict == OnConflict::Keep {
        return Err(Halt::Leave { events, conflicts });
    }
    guard.conflicts.extend(conflicts);
    match guard.on_conflict {
        OnConflict::Overwrite => Ok(replay.dependents.drop_broken_indexes(conn, label)?),
        _ => Err(TargetError::Conflicts(guard.conflicts.clone()).into()),
    }
}

/// The events that break something, and those of the conflicts that are not listed yet.
fn news(broken: Vec<Broken>, replay: &Replay<'_>) -> (Vec<usize>, Conflicts) {
    let events = broken.iter().map(|(event, _)| *event).collect();
    let listed = &replay.guard.conflicts.listed;
    let is_new = |one: &Conflict| listed.iter().all(|known| known.object != one.object);
    (events, all_of(broken.into_iter().map(|(_, conflict)| conflict).filter(is_new)))
}

/// What others made and would not work any more, and what would come and not work: a conflict, where it is none already,
/// after which it is dropped or what it needs is left. `vain`: see [`super::ailing::brought_in_vain`].
pub fn leave_nothing_broken(
    conn: &Connection,
    label: &str,
    replay: &mut Replay<'_>,
    vain: Vec<Broken>,
) -> Result<(), Halt> {
    let mut broken = replay.dependents.broken(label);
    broken.extend(vain);
    loop {
        let Some(last) = broken.last().map(|(event, _)| *event) else { return Ok(()) };
        let (events, conflicts) = news(broken, replay);
        let guard = &mut replay.guard;
        match guard.on_conflict {
            OnConflict::Keep => return Err(Halt::Leave { events, conflicts }),
            OnConflict::Stop => {
                guard.conflicts.extend(conflicts);
                return Ok(());
            }
            OnConflict::Overwrite => {
                guard.conflicts.extend(conflicts);
                replay.dependents.drop_broken(conn, label)?;
                // What hangs on it breaks in its turn.
                replay.dependents.look_again(conn, label, last)?;
                broken = replay.dependents.broken(label);
            }
        }
    }
}
