//! Seeks the conflicts of an undo by undoing, and takes that back: nothing else would be sure to say the same.
//!
//! That takes the write lock. So what is not done in a moment is broken off, and done again on a private copy, while
//! others write; only where the copy would cost more than the undo are they kept out for as long as it takes.

use std::collections::HashSet;
use std::io::SeekFrom;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backout_model::conflict::OnConflict;
use backout_model::target::{Images, Manner, Report, Summary, TargetError};
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::guard::Guard;
use super::lessons::{Lessons, as_error};
use super::numbering::Numbering;
use super::replay::{Direction, Halt, Replay};
use super::stream::{Event, Reader, Way};
use super::undo::{quiet, undo_events};
use super::{CACHE_KIB, Sqlite, succession};

/// How long a check may keep others from writing.
const MOMENT: Duration = Duration::from_millis(100);
/// How often SQLite asks whether it is over, in steps of its virtual machine.
const ASK_EVERY: i32 = 1000;
/// A database of this size is copied in another such moment, whatever the undo has to do.
const SMALL: u64 = 256 << 20;
/// A larger one is, where it is not larger than the images by more than this: then the undo would take longer.
const TIMES_THE_IMAGES: u64 = 8;
/// Of the room for temporary files a copy takes no more than one part in so many.
const SHARE_OF_ROOM: u64 = 4;

impl Sqlite {
    /// See [`backout_model::target::Target::check_undo`].
    pub(super) fn check_undo_steps(
        &mut self,
        steps: &mut dyn Iterator<Item = Box<dyn Images>>,
        on_conflict: OnConflict,
    ) -> Result<Report, TargetError> {
        let mut steps: Vec<Box<dyn Images>> = steps.collect();
        self.note_replacing(&mut steps)?;
        // Under `stop` the search goes on behind a conflict, too, so that all of them are listed.
        let seek = if on_conflict == OnConflict::Stop { OnConflict::Keep } else { on_conflict };
        let over = self.end_after(MOMENT)?;
        let keeps = on_conflict == OnConflict::Keep;
        let done = self.attempts(&mut steps, seek, keeps, &over);
        let done = self.after_replay(done, false);
        self.never_end()?;
        if !over.load(Ordering::Relaxed) {
            return done;
        }
        drop(done);
        let unlimited = AtomicBool::new(false);
        if let Some(copy) = self.copy(&mut steps)? {
            return copy.attempts(&mut steps, seek, keeps, &unlimited);
        }
        let done = self.attempts(&mut steps, seek, keeps, &unlimited);
        self.after_replay(done, false)
    }

    /// What takes the place of what, over all steps; the latest comes first.
    fn note_replacing(&self, steps: &mut [Box<dyn Images>]) -> Result<(), TargetError> {
        let mut changes: Vec<Vec<Event>> = Vec::new();
        for images in steps.iter_mut().rev() {
            let reader = Reader::open(images.as_mut()).map_err(|source| self.damaged(source))?;
            changes.push(reader.index.events.into_iter().filter(|event| event.ddl().is_some()).collect());
        }
        let changes: Vec<&[Event]> = changes.iter().map(Vec::as_slice).collect();
        let mut succession = self.succession.borrow_mut();
        succession.replacing = succession::replacing(&changes);
        succession.gone.clear();
        Ok(())
    }

    /// Has statements fail once they have taken so long altogether, counted from the first; whether that came.
    fn end_after(&mut self, moment: Duration) -> Result<Arc<AtomicBool>, TargetError> {
        let over = Arc::new(AtomicBool::new(false));
        let (raise, end) = (Arc::clone(&over), OnceLock::new());
        let ask = move || {
            let late = Instant::now() > *end.get_or_init(|| Instant::now() + moment);
            raise.fetch_or(late, Ordering::Relaxed) || late
        };
        self.conn
            .progress_handler(ASK_EVERY, Some(ask))
            .map_err(|source| TargetError::failed(format!("cannot set up {}", self.label), source))?;
        Ok(over)
    }

    fn never_end(&mut self) -> Result<(), TargetError> {
        self.conn
            .progress_handler(0, None::<fn() -> bool>)
            .map_err(|source| TargetError::failed(format!("cannot set up {}", self.label), source))
    }

    /// Undoes the steps and takes that back, as often as there is something to learn from it. `keeps`: what nothing keeps away
    /// ends it.
    fn attempts(
        &self,
        steps: &mut [Box<dyn Images>],
        on_conflict: OnConflict,
        keeps: bool,
        over: &AtomicBool,
    ) -> Result<Report, TargetError> {
        quiet(&self.conn, &self.label, true)?;
        let mut lessons = vec![Lessons::default(); steps.len()];
        loop {
            match attempt(self, steps, &lessons, on_conflict, keeps) {
                Err((step, halt))
                    if !over.load(Ordering::Relaxed)
                        && lessons.get_mut(step).is_some_and(|lessons| lessons.learn(&halt)) =>
                {
                    super::roll_back(&self.conn, &self.label)?;
                }
                other => return other.map_err(|(_, halt)| as_error(halt, &self.label)),
            }
        }
    }

    /// The database as it is now, in a file without a name that goes with its connection; none where it would be too
    /// large, or there is no room.
    fn copy(&self, steps: &mut [Box<dyn Images>]) -> Result<Option<Sqlite>, TargetError> {
        let failed = |source| TargetError::failed(format!("cannot read {}", self.label), source);
        let ask = |pragma: &str| self.conn.query_row(&format!("PRAGMA main.{pragma}"), [], |row| row.get::<_, i64>(0));
        let size = ask("page_count").and_then(|pages| Ok(pages.saturating_mul(ask("page_size")?))).map_err(failed)?;
        let size = u64::try_from(size).unwrap_or(0);
        let mut images = 0;
        for step in steps {
            let length = step.seek(SeekFrom::End(0));
            images += length.map_err(|source| TargetError::failed("cannot read the images of a step", source))?;
        }
        if size > SMALL.max(images.saturating_mul(TIMES_THE_IMAGES)) || size > room() / SHARE_OF_ROOM {
            return Ok(None);
        }
        // An error is, as a rule, room that others took meanwhile.
        Ok(self.copied().unwrap_or(None).map(|conn| Sqlite {
            options: self.options.clone(),
            conn,
            label: self.label.clone(),
            marker: self.marker.clone(),
            prefix: self.prefix.clone(),
            epoch: None,
            succession: self.succession.clone(),
        }))
    }

    fn copied(&self) -> rusqlite::Result<Option<Connection>> {
        // An empty name: a temporary file of SQLite's own, which it opens for this user alone and unlinks at once.
        let mut copy = Connection::open("")?;
        // Of what is written to it nothing is read while it is filled.
        copy.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA cache_size = -1024")?;
        let transaction = self.conn.unchecked_transaction()?;
        let version: i64 = transaction.query_row("PRAGMA main.schema_version", [], |row| row.get(0))?;
        if Backup::new(&transaction, &mut copy)?.step(-1)? != StepResult::Done {
            return Ok(None);
        }
        transaction.commit()?;
        // A backup counts anew; what the images say of it must hold for the copy, too.
        copy.execute_batch(&format!("PRAGMA main.schema_version = {version}; PRAGMA cache_size = -{CACHE_KIB}"))?;
        // Two caches at once would be twice the memory.
        self.conn.execute_batch("PRAGMA shrink_memory")?;
        Ok(Some(copy))
    }
}

fn attempt(
    database: &Sqlite,
    steps: &mut [Box<dyn Images>],
    lessons: &[Lessons],
    on_conflict: OnConflict,
    keeps: bool,
) -> Result<Report, (usize, Halt)> {
    let (conn, label) = (&database.conn, database.label.as_str());
    let manner = Manner { on_conflict, in_doubt: false };
    super::begin(conn, label).map_err(|error| (usize::MAX, error.into()))?;
    let found = Numbering::read(conn, &database.marker, label).map_err(|error| (usize::MAX, error.into()))?;
    let guard = Guard::new(conn, label, on_conflict);
    let mut replay = Replay::new(conn, label, Direction::Undo, guard, None, found);
    replay.guard.gone = Some(HashSet::new());
    let mut summary = Summary::default();
    for (number, images) in steps.iter_mut().enumerate() {
        let here = |halt: Halt| (number, halt);
        let lessons = lessons.get(number).cloned().unwrap_or_default();
        let mut reader = Reader::open(images.as_mut()).map_err(|source| here(database.damaged(source).into()))?;
        if reader.index.way != Way::Captured {
            replay.guard.notes.push(format!("{label}: {} is undone by its own script, unseen", reader.index.shown));
            continue;
        }
        let before = replay.rows;
        undo_events(database, &mut reader, manner, &lessons, &mut replay, &mut |_| {}).map_err(here)?;
        let this = reader.index.summary(replay.rows - before);
        summary.changes += this.changes;
        summary.rows += this.rows;
        summary.objects.extend(this.objects);
    }
    summary.objects.sort_unstable();
    summary.objects.dedup();
    summary.objects.truncate(Summary::OBJECTS_KEPT);
    let Guard { conflicts, notes, already, needed, stays, unkept, .. } = &mut replay.guard;
    let stays = *stays && on_conflict == OnConflict::Overwrite || keeps && !unkept.is_empty();
    // What a later undo needs first: of the rest only so many are told.
    let (needed, already) = (std::mem::take(needed), std::mem::take(already));
    let (conflicts, notes) = (std::mem::take(conflicts), std::mem::take(notes));
    drop(replay);
    super::roll_back(conn, label).map_err(|error| (usize::MAX, error.into()))?;
    if stays {
        // Of no step by itself: there is nothing to learn from it.
        return Err((usize::MAX, TargetError::Conflicts(needed.and(conflicts)).into()));
    }
    Ok(Report { summary, conflicts, notes, already: needed.and(already), ..Report::default() })
}

/// How many bytes are free where SQLite puts its temporary files ("Temporary Files Used By SQLite", section 5).
fn room() -> u64 {
    let named = ["SQLITE_TMPDIR", "TMPDIR"].into_iter().filter_map(std::env::var_os);
    let usual = ["/var/tmp", "/usr/tmp", "/tmp", "."].into_iter().map(Into::into);
    let folder = named.chain(usual).find(|folder| Path::new(folder).is_dir());
    let room = folder.and_then(|folder| rustix::fs::statvfs(Path::new(&folder)).ok());
    room.map_or(0, |room| room.f_bavail.saturating_mul(room.f_frsize))
}
