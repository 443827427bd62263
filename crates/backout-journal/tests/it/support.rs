//! What the tests share: a pinned clock, drafts, a story that passes every kind of entry, faults that can be set.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use backout_journal::{Clock, Journal, JournalError, Options, Reader};
use backout_model::entry::{Draft, Entry};
use backout_model::fault::{self, Faults, Point};
use backout_model::id::{DeploymentId, FramePath};
use backout_model::state::Event;
use backout_model::target::Finding;
use serde_json::{Value, json};

/// Beyond this images go to a file.
pub const SPILL: usize = backout_journal::images::SPILL_BYTES;

/// A second later at each question.
pub struct Ticking(AtomicI64);

impl Ticking {
    pub fn new() -> Box<Self> {
        Box::new(Self(AtomicI64::new(1_790_000_000_000)))
    }
}

impl Clock for Ticking {
    fn now_ms(&self) -> i64 {
        self.0.fetch_add(1000, Ordering::Relaxed)
    }
}

/// Always the same time, whatever fails in between.
pub struct Pinned(pub i64);

impl Clock for Pinned {
    fn now_ms(&self) -> i64 {
        self.0
    }
}

pub fn options() -> Options {
    Options::new("tester@here").clock(Ticking::new()).purpose("test")
}

pub fn open(state: &Path) -> Journal {
    Journal::open(state, options()).unwrap()
}

pub fn id(text: &str) -> DeploymentId {
    DeploymentId::try_from(format!("{text:0>12}")).unwrap()
}

pub fn draft(deployment: &str, event: Event) -> Draft {
    Draft { deployment: Some(id(deployment)), frame: FramePath::root(), step: None, event, payload: Value::Null }
}

pub fn step(deployment: &str, frame: &str, number: u32, event: Event) -> Draft {
    Draft { frame: FramePath::parse(frame), step: Some(number), ..draft(deployment, event) }
}

pub fn frame(deployment: &str, frame: &str, event: Event) -> Draft {
    Draft { frame: FramePath::parse(frame), ..draft(deployment, event) }
}

pub fn planned(deployment: &str, package: &str) -> Draft {
    Draft {
        payload: json!({"package": package, "version": "1.10", "info": {"steps": 2}, "plan": [1.5, "ü", null]}),
        ..draft(deployment, Event::DeploymentPlanned)
    }
}

/// The drafts that bring a new deployment to `applying`.
pub fn begun(deployment: &str) -> Vec<Draft> {
    vec![
        planned(deployment, "shop"),
        draft(deployment, Event::DeploymentChecking),
        draft(deployment, Event::DeploymentApplying),
        frame(deployment, "", Event::FrameStarted),
    ]
}

/// Bytes that differ from place to place.
pub fn content(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// One act of a story; each can be done again after it failed.
pub enum Act {
    Append(Vec<Draft>),
    Defer(Draft),
    Flush,
    Images(Draft, Vec<u8>),
    Drop(u64),
    Epoch(u64),
}

impl Act {
    /// How many entries it makes.
    pub fn entries(&self) -> u64 {
        match self {
            Act::Append(drafts) => drafts.len() as u64,
            Act::Flush => 0,
            Act::Defer(_) | Act::Images(..) | Act::Drop(_) | Act::Epoch(_) => 1,
        }
    }
}

/// The entries of the whole story when nothing goes wrong.
pub fn story_untold() -> Vec<Entry> {
    let state = tempfile::tempdir().unwrap();
    let mut journal = open_pinned(state.path()).unwrap();
    for act in story() {
        perform(&mut journal, &act).unwrap();
    }
    assert_sound(journal.reader());
    all(journal.reader())
}

/// With a clock that makes the same story the same bytes.
pub fn open_pinned(state: &Path) -> Result<Journal, JournalError> {
    Journal::open(state, options().clock(Box::new(Pinned(1_790_000_000_000))))
}

/// A deployment with deferred entries, small and large images, an undo, images given up, and a second one under way.
pub fn story() -> Vec<Act> {
    use Act::{Append, Defer, Drop, Epoch, Flush, Images};
    use Event as E;
    vec![
        Epoch(3),
        Append(begun("a")),
        Images(step("a", "", 0, E::StepIntended), content(1, 5000)),
        Defer(step("a", "", 0, E::StepApplied)),
        Defer(frame("a", "content", E::FrameStarted)),
        Images(step("a", "content", 0, E::StepIntended), content(2, 2 * SPILL + 77)),
        Defer(step("a", "content", 0, E::StepApplied)),
        Append(vec![frame("a", "content", E::FrameDone), frame("a", "", E::FrameDone)]),
        Append(vec![draft("a", E::DeploymentVerifying), draft("a", E::DeploymentDone)]),
        Append(vec![draft("a", E::DeploymentUndoing)]),
        Images(step("a", "content", 0, E::StepUndoIntended), Vec::new()),
        Append(vec![step("a", "content", 0, E::StepUndone)]),
        Append(vec![step("a", "", 0, E::StepUndoIntended)]),
        Defer(step("a", "", 0, E::StepUndone)),
        Defer(frame("a", "content", E::FrameUndone)),
        Flush,
        Append(vec![frame("a", "", E::FrameUndone), draft("a", E::DeploymentUndone)]),
        // The images of the large step (9) and of the small one (6).
        Drop(9),
        Drop(6),
        Epoch(4),
        Append(begun("b")),
        Images(step("b", "", 0, E::StepIntended), content(3, SPILL + 1)),
        Images(step("b", "", 1, E::StepIntended), content(4, 700)),
    ]
}

/// Does one act.
pub fn perform(journal: &mut Journal, act: &Act) -> Result<(), JournalError> {
    match act {
        Act::Append(drafts) => journal.append(drafts).map(drop),
        Act::Defer(draft) => journal.defer(draft.clone()),
        Act::Flush => journal.flush(),
        Act::Images(draft, bytes) => {
            let mut images = journal.images()?;
            images.write_all(bytes).map_err(|source| JournalError::Io { act: "write images".into(), source })?;
            journal.append_with_images(draft.clone(), images).map(drop)
        }
        Act::Drop(seq) => journal.drop_images(&[*seq], "the test says so"),
        Act::Epoch(epoch) => journal.record_epoch(*epoch, Value::Null).map(drop),
    }
}

pub fn all(reader: &Reader) -> Vec<Entry> {
    let mut entries = Vec::new();
    reader
        .all_entries(1, &mut |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        })
        .unwrap();
    entries
}

/// What `verify` finds, in words; an error is found, too.
pub fn findings(reader: &Reader) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Err(error) = reader.verify(&mut |finding| found.push(finding)) {
        found.push(Finding { target: "journal".into(), what: error.to_string(), grave: true });
    }
    found
}

pub fn assert_sound(reader: &Reader) {
    assert_eq!(findings(reader), Vec::new());
}

/// A copy as a crash would leave it: by another process, since closing a copy's descriptor here would drop SQLite's
/// locks of this process, and without the shared memory, which a restarted machine has not.
pub fn copy_of(state: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let done = std::process::Command::new("cp").arg("-a").arg(state.join(".")).arg(copy.path()).status().unwrap();
    assert!(done.success());
    for name in ["journal.db-shm", "reserve", "lock"] {
        std::fs::remove_file(copy.path().join(name)).ok();
    }
    copy
}

/// Faults of this thread: counts the points, calls `at` with the number of each (from 1), issues no syncs.
pub struct Counting<F: FnMut(u64, Point) -> io::Result<()> + Send> {
    count: Arc<AtomicU64>,
    at: F,
}

impl<F: FnMut(u64, Point) -> io::Result<()> + Send> Faults for Counting<F> {
    fn at(&mut self, point: Point) -> io::Result<()> {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        (self.at)(number, point)
    }

    fn syncs_issued(&self) -> bool {
        false
    }
}

/// Sets this thread's faults; the count can be read meanwhile.
pub fn set<F: FnMut(u64, Point) -> io::Result<()> + Send + 'static>(at: F) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    fault::set_local(Some(Box::new(Counting { count: Arc::clone(&count), at })));
    count
}

/// No faults and no syncs: for tests that are about other things.
pub fn calm() {
    set(|_, _| Ok(()));
}
