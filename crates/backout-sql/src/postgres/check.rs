//! Tries the undo of steps, one after the other in one transaction, which is rolled back: what would be in its way.

use backout_model::conflict::OnConflict;
use backout_model::target::{Images, Manner, Report, Summary, TargetError};

use super::gone::Gone;
use super::load::Replay;
use super::stream::{Reader, Way};
use super::undo::{Direction, Halt, summary_of};
use super::{Postgres, counters, schema};

/// How often the undo of the first step is tried where others hold what it needs. Later ones are tried once: what those
/// before hold meanwhile keeps others waiting, and they may be the very ones that are waited for.
const CHECK_TURNS: u32 = 5;

/// The same of an undo, as often as a deployment asks for a lock.
pub(super) const UNDO_TURNS: u32 = 20;

impl Postgres {
    pub(super) fn check_undo_steps(
        &mut self,
        steps: &mut dyn Iterator<Item = Box<dyn Images>>,
        on_conflict: OnConflict,
    ) -> Result<Report, TargetError> {
        self.ready()?;
        self.gone = Gone::default();
        let done = self.check_steps(steps, on_conflict);
        self.after_step();
        done
    }

    fn check_steps(
        &mut self,
        steps: &mut dyn Iterator<Item = Box<dyn Images>>,
        on_conflict: OnConflict,
    ) -> Result<Report, TargetError> {
        let label = self.label.clone();
        let manner = Manner { on_conflict, in_doubt: false };
        self.begin()?;
        let mut replay =
            Replay::new(&label, Direction::Undo, on_conflict, counters::Positions::new()).looking_for_what_is_already();
        let mut summary = Summary::default();
        let (mut turns, mut is_impossible) = (CHECK_TURNS, false);
        for mut images in steps {
            let mut reader = Reader::open(images.as_mut()).map_err(|source| self.damaged(source))?;
            if reader.index.way != Way::Captured {
                replay.notes.push(format!("{label}: {} is undone by its own script, unseen", reader.index.shown));
                continue;
            }
            let before = replay.rows;
            if !self.check_step(&mut reader, manner, turns, &mut replay)? {
                is_impossible = on_conflict == OnConflict::Overwrite;
                break;
            }
            turns = 1;
            let this = summary_of(&reader.index);
            summary.changes += this.changes;
            summary.rows += replay.rows - before;
            summary.objects.extend(this.objects);
        }
        summary.objects.sort_unstable();
        summary.objects.dedup();
        summary.objects.truncate(Summary::OBJECTS_KEPT);
        if is_impossible || on_conflict == OnConflict::Keep && replay.unkept {
            return Err(TargetError::Conflicts(replay.conflicts));
        }
        Ok(Report {
            summary,
            conflicts: replay.conflicts,
            notes: replay.notes,
            already: replay.already.unwrap_or_default(),
            ..Report::default()
        })
    }

    /// Tries the undo of one step; false where a conflict is in the way of all the rest.
    fn check_step(
        &mut self,
        reader: &mut Reader<'_>,
        manner: Manner,
        turns: u32,
        replay: &mut Replay<'_>,
    ) -> Result<bool, TargetError> {
        let label = self.label.clone();
        replay.began = counters::read(&mut self.a, &label)?;
        match self.replay_in_turns(reader, manner, turns, replay, &mut |_| {}) {
            Ok(()) => {
                let done = self.a.run("RELEASE backout_check");
                done.map_err(|source| self.failed("cannot end a savepoint in", source))?;
                Ok(true)
            }
            Err(Halt::Error(TargetError::Conflicts(conflicts))) => {
                replay.conflicts = conflicts;
                Ok(false)
            }
            Err(halt) => Err(self.halted(halt)),
        }
    }

    /// Replays the events of one step within the open transaction, of which nothing is captured. Somebody else who is in its
    /// way is let go first, so often. The savepoint `backout_check` stays.
    pub(super) fn replay_in_turns(
        &mut self,
        reader: &mut Reader<'_>,
        manner: Manner,
        turns: u32,
        replay: &mut Replay<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Halt> {
        let label = self.label.clone();
        let failed = |source| TargetError::failed(format!("cannot set a savepoint in {label}"), source);
        let so_far = replay.found();
        self.a.run("SAVEPOINT backout_check").map_err(failed)?;
        let mut turn = 1;
        loop {
            match self.replay(reader, manner, replay, None, progress) {
                Err(Halt::Error(error)) if turn < turns && schema::gives_way(&error) => {
                    self.a.client.went_back();
                    self.a.run("ROLLBACK TO backout_check").map_err(failed)?;
                    replay.only(&so_far);
                    turn += 1;
                    std::thread::sleep(schema::LOCK_PAUSE);
                }
                Err(Halt::Error(error)) if schema::gives_way(&error) => {
                    let act = format!(
                        "{label}: others hold what is to go back, after {turn} tries; pg_stat_activity and pg_locks tell who"
                    );
                    return Err(TargetError::failed(act, error).into());
                }
                done => return done,
            }
        }
    }
}
