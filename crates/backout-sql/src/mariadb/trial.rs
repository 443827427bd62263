//! Tries an undo, to see what would be in the way. Nothing of it is left.

use std::collections::BTreeSet;

use backout_model::conflict::OnConflict;
use backout_model::target::{Images, Report, Summary, TargetError};

use super::replay::{Direction, Replay};
use super::segment::{Detail, Held, Segment, State};
use super::stream::{Reader, Way};
use super::undo::summary_of;
use super::{Mariadb, succession};

impl Mariadb {
    /// Undoes in one transaction what can be undone so, to see what would be in the way; nothing of it is left.
    ///
    /// Below a change of the schema the rows of its tables cannot be looked at.
    pub(super) fn try_segments(&mut self, segments: &[Segment], replay: &mut Replay<'_>) -> Result<(), TargetError> {
        let written: Vec<&str> = segments.iter().flat_map(Segment::held).map(|held| held.table.name.as_str()).collect();
        self.hold_triggers(&written)?;
        let counters = self.counters_below(segments)?;
        self.begin()?;
        let (mut hidden, mut triggered): (BTreeSet<String>, BTreeSet<String>) = Default::default();
        let mut done = Ok(());
        for (at, segment) in segments.iter().enumerate() {
            replay.look_ahead(&self.names, &segments[at + 1..]);
            match &segment.detail {
                Detail::Rows { tables, .. } => {
                    let seen: Vec<Held> =
                        tables.iter().filter(|held| !hidden.contains(&held.table.name)).cloned().collect();
                    done = self
                        .locked_rows_of(segment, &seen, replay)
                        .and_then(|rows| self.change_rows(&rows, replay, &hidden));
                }
                Detail::Ddl { change, .. } => {
                    let parents = change.parents();
                    let named = change.names().chain(parents.iter().map(String::as_str));
                    if !named.into_iter().any(|name| hidden.contains(name) || triggered.contains(name)) {
                        self.look_at_change(segment, change, replay)?;
                    }
                    // A table that has a trigger still which goes before it, or has none yet.
                    replay.passed.extend(change.names().map(str::to_owned));
                    triggered.extend(change.triggered().map(str::to_owned));
                    hidden.extend(change.names().map(str::to_owned));
                }
                Detail::Script => {}
            }
            if done.is_err() || replay.is_stopped() {
                break;
            }
        }
        self.roll_back()?;
        self.put_counters_to(&counters)?;
        match done {
            Err(TargetError::Conflicts(found)) => {
                replay.conflicts.extend(found);
                Ok(())
            }
            other => other,
        }
    }

    pub(super) fn check_undo_steps(
        &mut self,
        steps: &mut dyn Iterator<Item = Box<dyn Images>>,
        on_conflict: OnConflict,
    ) -> Result<Report, TargetError> {
        self.ready()?;
        let mut done = self.own_session().and_then(|()| self.check_steps(steps, on_conflict));
        self.after_replay(&mut done);
        done
    }

    fn check_steps(
        &mut self,
        steps: &mut dyn Iterator<Item = Box<dyn Images>>,
        on_conflict: OnConflict,
    ) -> Result<Report, TargetError> {
        let label = self.label.clone();
        let mut replay = Replay::new(&label, Direction::Undo, on_conflict);
        replay.already = Some(Default::default());
        let mut summary = Summary::default();
        let mut all = Vec::new();
        for mut images in steps {
            let index = Reader::open(images.as_mut()).map_err(|source| self.damaged(source))?.index;
            if index.way != Way::Captured {
                replay.notes.push(format!("{label}: {} is undone by its own script, unseen", index.shown));
                continue;
            }
            let mut segments = self.settled_segments(index.step)?;
            segments.retain(|segment| segment.state == State::Done);
            segments.reverse();
            let this = summary_of(&index, &segments);
            summary.changes += this.changes;
            summary.objects.extend(this.objects);
            all.extend(segments);
        }
        self.replacing = succession::replacing(all.iter().rev());
        replay.replacing.clone_from(&self.replacing);
        self.try_segments(&all, &mut replay)?;
        summary.rows = replay.rows;
        summary.objects.sort_unstable();
        summary.objects.dedup();
        summary.objects.truncate(Summary::OBJECTS_KEPT);
        let Replay { conflicts, notes, already, unkept, .. } = replay;
        if on_conflict == OnConflict::Keep && unkept {
            return Err(TargetError::Conflicts(conflicts));
        }
        Ok(Report { summary, conflicts, notes, already: already.unwrap_or_default(), ..Report::default() })
    }
}
