//! Makes a journal again from entries that were kept elsewhere, where the state directory is lost. Entries keep their
//! numbers, since the databases' markers name them; for what is missing between them stand entries that say so. Puts
//! nothing into a journal that is not lost.
//!
//! The new journal is made beside the place where it belongs and put there whole, at the end.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use backout_model::entry::{Entry, ImagesRef};
use backout_model::fault::{self, Point};
use backout_model::id::FramePath;
use backout_model::state::Event;
use serde_json::json;

use crate::error::JournalError;
use crate::images::Content;
use crate::journal::{Journal, Options};
use crate::layout::{Layout, sync_directory};
use crate::lock::StateLock;
use crate::reader::Reader;
use crate::schema;
use crate::stage::{Staged, Undone, draft_error};
use crate::write;

/// More missing entries than this no record bridges: each takes a few hundred bytes.
const LOST_MAX: u64 = 5_000_000;
/// How many entries are written together.
const BATCH: usize = 1000;

/// A journal that is being made again.
pub struct Rebuilding {
    layout: Layout,
    inner: Layout,
    /// What is there already: a journal that was made from other records.
    old: Reader,
    old_last: u64,
    journal: Journal,
    staged: Vec<Staged>,
    /// Last in this list, so that it is held until all else is closed.
    _lock: StateLock,
}

impl Rebuilding {
    /// Begins in a state directory that has no journal, or one that was made from records, with its lock held.
    ///
    /// # Errors
    /// [`JournalError::OtherHistory`] where there is another journal, [`JournalError::Held`] where somebody is at work.
    pub fn begin(state: &Path, options: Options) -> Result<Self, JournalError> {
        let layout = Layout::new(state);
        layout.make_state()?;
        let lock = StateLock::take(&layout)?;
        if layout.journal().exists() {
            // Takes what a crash left in the write-ahead log into the file, which will be replaced.
            drop(schema::open_writer(&layout, options.clock.now_ms())?);
        }
        let old = Reader::open(state)?;
        let old_last = old.last_seq()?;
        let is_rebuilt = old.entry(1)?.is_none_or(|first| first.event == Event::EntryLost);
        if !is_rebuilt {
            return Err(JournalError::OtherHistory { state: state.to_owned() });
        }
        let inner = Layout::new(&state.join("rebuilding"));
        remove(inner.state())?;
        let journal = Journal::open(inner.state(), options)?;
        Ok(Self { layout, inner, old, old_last, journal, staged: Vec::new(), _lock: lock })
    }

    /// Adds an entry as it was, but for its place in the chain. Their numbers ascend.
    pub fn add(&mut self, entry: Entry, images: Option<&mut dyn Read>) -> Result<(), JournalError> {
        self.up_to(entry.seq)?;
        if self.old.entry(entry.seq)?.is_some_and(|old| old.event != Event::EntryLost) {
            return Err(JournalError::OtherHistory { state: self.layout.state().to_owned() });
        }
        self.put(entry, images)
    }

    /// Adds what the old journal has before `seq`, and stands in for what it has not.
    fn up_to(&mut self, seq: u64) -> Result<(), JournalError> {
        if seq.saturating_sub(self.journal.tip.seq) > LOST_MAX {
            let what = format!("entry {seq} is too far from the one before, {}", self.journal.tip.seq);
            return Err(JournalError::Damaged { what });
        }
        while self.journal.tip.seq + 1 < seq {
            let next = self.journal.tip.seq + 1;
            match self.old.entry(next)? {
                Some(old) => {
                    let mut images = match &old.images {
                        Some(_) => match self.old.open_images(next) {
                            Ok(images) => Some(images),
                            Err(JournalError::ImagesDropped { .. }) => None,
                            Err(error) => return Err(error),
                        },
                        None => None,
                    };
                    self.put(old, images.as_mut().map(|images| images as &mut dyn Read))?;
                }
                None => self.put(self.lost(next), None)?,
            }
        }
        Ok(())
    }

    fn lost(&self, seq: u64) -> Entry {
        Entry {
            seq,
            time_ms: self.journal.tip.time_ms.max(0),
            actor: self.journal.actor.clone(),
            deployment: None,
            frame: FramePath::root(),
            step: None,
            event: Event::EntryLost,
            payload: json!({}),
            images: None,
            previous: self.journal.tip.digest,
        }
    }

    fn put(&mut self, mut entry: Entry, images: Option<&mut dyn Read>) -> Result<(), JournalError> {
        if entry.seq != self.journal.tip.seq + 1 {
            let what = format!("entry {} comes after entry {}", entry.seq, self.journal.tip.seq);
            return Err(JournalError::Damaged { what });
        }
        entry.previous = self.journal.tip.digest;
        entry.time_ms = entry.time_ms.max(self.journal.tip.time_ms);
        let content = match (&entry.images, images) {
            (Some(expected), Some(images)) => Some(self.content(entry.seq, expected, images)?),
            _ => None,
        };
        let drops = entry.payload.get("of").and_then(serde_json::Value::as_u64);
        let drops = match entry.event {
            Event::ImagesDropped => {
                Some(drops.ok_or_else(|| draft_error(entry.event, "its payload has no number `of`"))?)
            }
            _ => None,
        };
        let large = content.is_some();
        let mut undone = Undone { tip: self.journal.tip, moved: Vec::new() };
        self.staged.push(self.journal.stage_entry(entry, content, drops, &mut undone)?);
        if large || self.staged.len() >= BATCH { self.write() } else { Ok(()) }
    }

    fn content(&mut self, seq: u64, expected: &ImagesRef, images: &mut dyn Read) -> Result<Content, JournalError> {
        let failed = |e| JournalError::io(format!("keep the images of entry {seq}"), e);
        let mut writer = self.journal.images()?;
        io::copy(images, &mut writer).map_err(failed)?;
        let finished = writer.finish().map_err(failed)?;
        if finished.images != *expected {
            return Err(JournalError::ImagesDamaged { seq, what: "they do not have their digest".to_owned() });
        }
        Ok(finished.content)
    }

    fn write(&mut self) -> Result<(), JournalError> {
        let staged = std::mem::take(&mut self.staged);
        write::write(&mut self.journal, &staged)
    }

    /// Puts the new journal in its place. Before that nothing has changed; a crash leaves the old one or the new one.
    pub fn finish(mut self) -> Result<(), JournalError> {
        self.up_to(self.old_last + 1)?;
        self.write()?;
        let Self { layout, inner, old, journal, _lock, .. } = self;
        // Closing takes the write-ahead logs into the files.
        drop(journal);
        drop(old);
        let act = || format!("put the journal into {}", layout.state().display());
        let failed = |e: io::Error| JournalError::io(act(), e);
        layout.make_contents()?;
        for image in fs::read_dir(inner.images()).map_err(failed)? {
            let image = image.map_err(failed)?;
            rename(&image.path(), &layout.images().join(image.file_name())).map_err(failed)?;
        }
        sync_directory(&layout.images()).map_err(failed)?;
        // A reader makes them, and nobody has written since: they are empty, and no part of the new journal.
        for beside in ["journal.db-wal", "journal.db-shm"] {
            remove_file(&layout.state().join(beside)).map_err(failed)?;
        }
        rename(&inner.journal(), &layout.journal()).map_err(failed)?;
        sync_directory(layout.state()).map_err(failed)?;
        remove(inner.state())
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fault::point(Point::Rename)?;
    fs::rename(from, to)
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), JournalError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(JournalError::io(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}
