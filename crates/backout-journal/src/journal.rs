//! The one writer of a journal: checks drafts against the state table, orders and chains them, makes them durable.
//!
//! What it keeps in memory is never ahead of the disk but for what was deferred, which it keeps and tries again.
//! Dropping it does not write what was deferred.

use std::collections::BTreeMap;
use std::path::Path;

use backout_model::entry::{Draft, Entry};
use backout_model::id::DeploymentId;
use backout_model::state::Event;
use backout_model::target::Finding;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::clock::{Clock, SystemClock};
use crate::error::JournalError;
use crate::images::ImagesWriter;
use crate::layout::Layout;
use crate::lock::{HolderNote, StateLock};
use crate::process::ProcessFacts;
use crate::reader::{self, Reader};
use crate::reserve::Reserve;
use crate::schema;
use crate::stage::{Head, Live, Staged, Undone, draft_error};
use crate::states::{States, name};
use crate::stored::{self, Place};
use crate::verify::Checked;
use crate::write;

/// Deferred entries beyond these bounds are written without waiting for the next append, so that memory is bounded.
const DEFERRED_MAX: usize = 4096;
const DEFERRED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How a journal is opened.
pub struct Options {
    pub clock: Box<dyn Clock>,
    /// Who writes: `user@host`.
    pub actor: String,
    /// What for, for the person who is kept out meanwhile: `deploy winter-catalogue`.
    pub purpose: String,
}

impl Options {
    /// With the machine's clock.
    pub fn new(actor: impl Into<String>) -> Self {
        Self { clock: Box::new(SystemClock), actor: actor.into(), purpose: String::new() }
    }

    #[must_use]
    pub fn clock(mut self, clock: Box<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    #[must_use]
    pub fn purpose(mut self, purpose: impl Into<String>) -> Self {
        self.purpose = purpose.into();
        self
    }
}

/// The journal of one site, open for writing, its lock held.
pub struct Journal {
    pub(crate) layout: Layout,
    // Before the lock in this list, so that both connections are closed while it is still held.
    reader: Reader,
    pub(crate) connection: Connection,
    pub(crate) reserve: Reserve,
    pub(crate) clock: Box<dyn Clock>,
    pub(crate) actor: String,
    /// The last durable entry.
    pub(crate) durable: Head,
    /// The last entry that has its place: durable, deferred or being written.
    pub(crate) tip: Head,
    pub(crate) live: BTreeMap<DeploymentId, Live>,
    pub(crate) deferred: Vec<Staged>,
    pub(crate) deferred_bytes: usize,
    /// Files of images whose entry could not be written; see `docs/journal.md`, crash case 6.
    pub(crate) leftovers: Vec<String>,
    /// After a failure whose outcome could not be read back.
    pub(crate) in_doubt: bool,
    holder: HolderNote,
    lock: StateLock,
}

impl Journal {
    /// Opens the journal for writing, making it where it is missing, with the lock of the state directory held.
    /// Does not wait for another holder: [`JournalError::Held`].
    pub fn open(state: &Path, options: Options) -> Result<Self, JournalError> {
        let Options { clock, actor, purpose } = options;
        let layout = Layout::new(state);
        layout.make_state()?;
        let mut lock = StateLock::take(&layout)?;
        let facts = ProcessFacts::current().map_err(|e| JournalError::io("learn this process's start time", e))?;
        let holder = HolderNote {
            host: facts.host,
            boot_id: facts.boot_id,
            pid: facts.pid,
            started: facts.started,
            purpose,
            since_ms: clock.now_ms(),
        };
        note(&mut lock, &holder);
        layout.make_contents()?;
        let reserve = Reserve::at(layout.reserve());
        let connection = match schema::open_writer(&layout, clock.now_ms()) {
            Err(error) if error.is_no_space() && reserve.release() => schema::open_writer(&layout, clock.now_ms())?,
            other => other?,
        };
        let reader = Reader::open(state)?;
        let (seq, digest) = stored::head(&connection)?;
        // The entry that the next one will follow is checked before anything is chained to it.
        let time_ms = stored::entry(&connection, seq)?.map_or(i64::MIN, |entry| entry.time_ms);
        let head = Head { seq, digest, time_ms, epoch: reader::last_epoch(&connection)? };
        let mut journal = Self {
            layout,
            reader,
            connection,
            reserve,
            clock,
            actor,
            durable: head,
            tip: head,
            live: BTreeMap::new(),
            deferred: Vec::new(),
            deferred_bytes: 0,
            leftovers: Vec::new(),
            in_doubt: false,
            holder,
            lock,
        };
        journal.remove_stray_images()?;
        if let Some(row) = journal.reader.unfinished()? {
            journal.learn(&row.id)?;
        }
        // A full disk does not keep an undo from being started; whether a deployment may start is for the caller,
        // who asks `reserve_is_ready`.
        journal.reserve.make().ok();
        Ok(journal)
    }

    /// Opens the journal for reading, without the lock. A state directory that is not there is an empty history.
    pub fn read(state: &Path) -> Result<Reader, JournalError> {
        Reader::open(state)
    }

    /// Reads what is durable; what was deferred shows after the next append or flush.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Journals the drafts, and all that was deferred before, in one durable transaction. Returns the number of the
    /// last entry. After an error none of the drafts is journaled, what was deferred is kept, and the same drafts
    /// can be appended again.
    pub fn append(&mut self, drafts: &[Draft]) -> Result<u64, JournalError> {
        self.append_staged(drafts.len(), |journal, at, undone| journal.stage(&drafts[at], None, None, undone))
    }

    /// Gives the draft its place in the order now and makes it durable with the next append or flush.
    pub fn defer(&mut self, draft: Draft) -> Result<(), JournalError> {
        let mut undone = Undone { tip: self.tip, moved: Vec::new() };
        match self.stage(&draft, None, None, &mut undone) {
            Ok(staged) => {
                self.deferred_bytes += staged.body.len();
                self.deferred.push(staged);
            }
            Err(error) => {
                self.unstage(undone);
                return Err(error);
            }
        }
        if self.deferred.len() >= DEFERRED_MAX || self.deferred_bytes >= DEFERRED_BYTES_MAX {
            // It is deferred in any case; a write that fails now is tried again, and told, at the next append.
            write::write(self, &[]).ok();
        }
        Ok(())
    }

    /// Makes all that was deferred durable.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        write::write(self, &[])
    }

    /// A stream for the images of one step.
    pub fn images(&mut self) -> Result<ImagesWriter, JournalError> {
        Ok(ImagesWriter::new(&self.layout.images()))
    }

    /// Journals the draft together with its images, durably. After an error the same draft can be appended again
    /// with a clone of the stream, unless the stream itself failed.
    pub fn append_with_images(&mut self, draft: Draft, images: ImagesWriter) -> Result<u64, JournalError> {
        self.append_staged(1, |journal, _, undone| {
            // Legal first: a large stream is not synced for an entry that will be refused.
            journal.stage(&draft, None, None, undone).map(drop)?;
            let tip = undone.tip;
            journal.unstage(std::mem::replace(undone, Undone { tip, moved: Vec::new() }));
            let finished = images
                .finish()
                .map_err(|e| JournalError::io(format!("keep the images of {}", name(&draft.event)), e))?;
            journal.stage(&draft, Some((finished.images, finished.content)), None, undone)
        })
    }

    /// Gives up the images of entries for good: those steps can't be undone or redone any more. The entries stay,
    /// and one more a set of images says why. Images that were given up before are passed over.
    pub fn drop_images(&mut self, seqs: &[u64], because: &str) -> Result<(), JournalError> {
        let mut drafts = Vec::new();
        let mut files = Vec::new();
        for seq in seqs.iter().copied() {
            let entry = stored::entry(&self.connection, seq)?.ok_or(JournalError::NoImages { seq })?;
            let images = entry.images.as_ref().ok_or(JournalError::NoImages { seq })?;
            match stored::place(&self.connection, seq)? {
                Place::Dropped { .. } => continue,
                Place::File(name) => files.push(name),
                Place::Content(_) | Place::Nowhere => {}
            }
            if drafts.iter().any(|(dropped, _)| *dropped == seq) {
                continue;
            }
            let payload = json!({"of": seq, "bytes": images.bytes, "digest": images.digest, "because": because});
            let Entry { deployment, frame, step, .. } = entry;
            drafts.push((seq, Draft { deployment, frame, step, event: Event::ImagesDropped, payload }));
        }
        self.append_staged(drafts.len(), |journal, at, undone| {
            let (seq, draft) = &drafts[at];
            journal.stage(draft, None, Some(*seq), undone)
        })?;
        self.remove_images(&files)
    }

    /// Journals that the lock was taken with this epoch. `payload` is a JSON object with whatever else is to be kept.
    pub fn record_epoch(&mut self, epoch: u64, payload: Value) -> Result<u64, JournalError> {
        let mut payload = match payload {
            Value::Object(map) => map,
            Value::Null => serde_json::Map::new(),
            _ => return Err(draft_error(Event::LockTaken, "its payload is no object")),
        };
        payload.insert("epoch".to_owned(), epoch.into());
        self.append(&[Draft {
            deployment: None,
            frame: backout_model::id::FramePath::root(),
            step: None,
            event: Event::LockTaken,
            payload: Value::Object(payload),
        }])
    }

    /// The highest epoch that was journaled; 0 where none was.
    pub fn last_epoch(&self) -> u64 {
        self.tip.epoch
    }

    /// The time of the clock that entries are dated by: milliseconds since 1970 UTC.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// The number of the last entry, deferred ones included; 0 where there is none.
    pub fn last_seq(&self) -> u64 {
        self.tip.seq
    }

    /// Where a deployment, its frames and its steps stand, deferred entries included.
    pub fn states(&mut self, deployment: &DeploymentId) -> Result<&States, JournalError> {
        self.learn(deployment).map(|live| &live.states)
    }

    /// Says in the lock file what this process does, for the person who is kept out.
    pub fn set_holder_note(&mut self, purpose: &str) {
        purpose.clone_into(&mut self.holder.purpose);
        note(&mut self.lock, &self.holder);
    }

    /// True where space is put by so that an undo can be journaled on a full disk.
    pub fn reserve_is_ready(&self) -> bool {
        self.reserve.is_ready()
    }

    /// Puts the reserve by again. A deployment should not start without it.
    pub fn make_reserve(&mut self) -> Result<(), JournalError> {
        self.reserve.make().map_err(|e| JournalError::io("put space by in the state directory", e))
    }

    /// [`Reader::verify`] of what is durable.
    pub fn verify(&self, each: &mut dyn FnMut(Finding)) -> Result<Checked, JournalError> {
        self.reader.verify(each)
    }

    fn append_staged(
        &mut self,
        count: usize,
        stage: impl Fn(&mut Self, usize, &mut Undone) -> Result<Staged, JournalError>,
    ) -> Result<u64, JournalError> {
        write::settle(self)?;
        let mut undone = Undone { tip: self.tip, moved: Vec::new() };
        let mut staged = Vec::with_capacity(count);
        for at in 0..count {
            match stage(self, at, &mut undone) {
                Ok(one) => staged.push(one),
                Err(error) => {
                    self.unstage(undone);
                    return Err(error);
                }
            }
        }
        match write::write(self, &staged) {
            Ok(()) => Ok(self.tip.seq),
            Err(error) => {
                self.unstage(undone);
                Err(error)
            }
        }
    }
}

/// A note that cannot be written (a full disk) keeps nobody from working.
fn note(lock: &mut StateLock, holder: &HolderNote) {
    lock.set_note(holder).ok();
}
