//! A change of the schema within a step: what it needs from the capture of rows, and what it keeps in the images.
//!
//! Waits for locks in short turns, so that no queue forms behind it.

use std::time::Duration;

use backout_model::conflict::{Conflicts, OnConflict};
use backout_model::target::{Manner, TargetError};
use postgres::error::SqlState;

use super::Postgres;
use super::apply::uncaptured;
use super::capture::{Capture, Sessions};
use super::capture_error::refused_or;
use super::ddl::{self, Context, DdlEvent, Drawn, Keep};
use super::event_triggers::EventTriggers;
use super::gone::Gone;
use super::prepared::Client;
use super::rebuild;
use super::session::{Session, is_lock_timeout, literal};
use super::split::Statement;
use super::stream::{Reader, StreamError};

/// How often a lock is asked for, and after how long each time: whoever waits blocks all that come after it.
const LOCK_TRIES: u32 = 20;
const LOCK_TURN: &str = "2s";
pub const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// The images as a place for what a change of the schema would destroy.
pub struct Images<'a, 'r> {
    /// Takes what is destroyed now.
    pub capture: Option<&'a mut Capture>,
    /// Has what was destroyed then.
    pub reader: Option<&'a mut Reader<'r>>,
    pub label: &'a str,
}

impl Keep for Images<'_, '_> {
    fn keep(&mut self, client: &mut Client, copy_out: &str) -> Result<u64, TargetError> {
        // What nobody will ask for (an undo that is only looked at) is not kept.
        let Some(capture) = &mut self.capture else { return Ok(0) };
        capture.keep(client, copy_out).map_err(|source| uncaptured(self.label, source))
    }

    fn bring(&mut self, client: &mut Client, copy_in: &str, block: u64) -> Result<(), TargetError> {
        use std::io::Write as _;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
            TargetError::failed(format!("cannot bring rows back to {}", self.label), source)
        };
        let damaged =
            |source: StreamError| TargetError::Images { target: self.label.to_owned(), what: source.to_string() };
        let reader = self.reader.as_mut().ok_or_else(|| failed("there are no images".into()))?;
        let span = usize::try_from(block).ok().and_then(|block| reader.index.kept.get(block).copied());
        let span = span.ok_or_else(|| damaged(super::stream::Damage("kept rows are missing").into()))?;
        let mut into = client.copy_in(copy_in).map_err(|source| failed(source.into()))?;
        enum Stop {
            Stream(StreamError),
            Write(std::io::Error),
        }
        impl From<StreamError> for Stop {
            fn from(error: StreamError) -> Self {
                Stop::Stream(error)
            }
        }
        let mut chunk = Vec::with_capacity(1 << 16);
        reader
            .rows(span, &mut |line| {
                chunk.extend_from_slice(line);
                chunk.push(b'\n');
                if chunk.len() >= 1 << 15 {
                    into.write_all(&chunk).map_err(Stop::Write)?;
                    chunk.clear();
                }
                Ok(())
            })
            .map_err(|stop| match stop {
                Stop::Stream(source) => damaged(source),
                Stop::Write(source) => failed(source.into()),
            })?;
        into.write_all(&chunk).map_err(|source| failed(source.into()))?;
        into.finish().map_err(|source| failed(source.into()))?;
        client.copied(copy_in, block);
        Ok(())
    }
}

/// What a change of the schema is worked with.
pub struct Tools<'a> {
    pub own: &'a str,
    pub label: &'a str,
    pub version: u32,
    pub event_triggers: &'a EventTriggers,
    pub next_hold: &'a mut u64,
    /// Tables that the same step made and dropped.
    pub passing: &'a [String],
    /// Sequences to put back before a statement runs another time.
    pub drawn: &'a [Drawn],
    /// Where an undo that is tried tells what is as it is to be already.
    pub already: Option<&'a mut Conflicts>,
    /// It is tried before the step commits.
    pub proof: bool,
    /// The numbers in the images are those of this database.
    pub knows_numbers: bool,
    /// What an undo was to take away and others had.
    pub gone: &'a mut Gone,
}

impl Postgres {
    /// The number of the next hold.
    pub(super) fn next_hold(&mut self) -> Result<u64, TargetError> {
        let prefix = format!("{}_h", self.own);
        let found = self
            .a
            .rows(&format!(
                "SELECT pg_catalog.substr(nspname, {}) FROM pg_catalog.pg_namespace
                 WHERE pg_catalog.starts_with(nspname::pg_catalog.text, {})",
                prefix.len() + 1,
                literal(&prefix)
            ))
            .map_err(|source| self.failed("cannot read the schemas of", source))?;
        let numbers = found.into_iter().filter_map(|row| row[0].as_deref()?.parse::<u64>().ok());
        Ok(numbers.max().unwrap_or(0) + 1)
    }
}

/// Runs a statement that may change the schema, with its undo kept.
pub fn run(
    sessions: &mut Sessions<'_>,
    capture: &mut Capture,
    tools: &mut Tools<'_>,
    statement: &Statement,
    place: &str,
) -> Result<DdlEvent, TargetError> {
    let label = tools.label;
    around(sessions, capture, label, place, &mut |a, capture| {
        let mut images = Images { capture: Some(capture), reader: None, label };
        let mut context = context(a, tools, &mut images);
        ddl::run(&mut context, ddl::Statement { line: statement.line, sql: &statement.sql })
    })
    .and_then(|mut event| {
        let accounted = capture.account_rows(sessions.a, &event.filled());
        accounted.map_err(|source| uncaptured(label, source))?;
        noted(sessions.a, capture, label, &mut event)?;
        Ok(event)
    })
}

/// Does what may change the schema or lock tables. Rows of tables that it gets a hold of are captured first: as it turns
/// out which those are, it is done once more.
pub fn around<T>(
    sessions: &mut Sessions<'_>,
    capture: &mut Capture,
    label: &str,
    place: &str,
    work: &mut dyn FnMut(&mut Session, &mut Capture) -> Result<T, TargetError>,
) -> Result<T, TargetError> {
    let uncapturable = |source| refused_or(label, place, source);
    let mut pending = capture.before_schema(sessions).map_err(uncapturable)?;
    let mut tries = 0;
    loop {
        begin_turn(sessions.a, label)?;
        let failed = |source| TargetError::failed(format!("cannot run {place}"), source);
        // Who is in the way is told only once nothing else helps.
        let waiting = sessions.a.process().filter(|_| tries == LOCK_TRIES).map(str::to_owned);
        let (done, blockers) =
            super::blockers::watched(sessions.b, waiting.as_deref(), || work(&mut *sessions.a, &mut *capture));
        match done {
            Err(error) if tries < LOCK_TRIES && waits(&error) => {
                tries += 1;
                take_back(sessions.a).map_err(failed)?;
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(error) if waits(&error) => {
                let who = blockers.unwrap_or_else(|| "somebody who did not stay long enough to be seen".to_owned());
                let act =
                    format!("cannot lock what {place} needs after {} tries of {LOCK_TURN}; held by {who}", tries + 1);
                return Err(TargetError::failed(act, error));
            }
            Err(error) => return Err(error),
            Ok(done) => {
                let hit = capture.hit(sessions.a, &pending).map_err(uncapturable)?;
                if hit.is_empty() {
                    end_turn(sessions.a).map_err(failed)?;
                    capture.after_schema(sessions.a).map_err(uncapturable)?;
                    return Ok(done);
                }
                take_back(sessions.a).map_err(failed)?;
                capture.account(sessions.a).map_err(uncapturable)?;
                capture.flush(sessions, Some(&hit)).map_err(uncapturable)?;
                pending.retain(|oid| !hit.contains(oid));
            }
        }
    }
}

/// Waits for locks no longer than a turn from here on.
fn begin_turn(a: &mut Session, label: &str) -> Result<(), TargetError> {
    let begin = format!(
        "SAVEPOINT backout_turn;
         SELECT pg_catalog.set_config('backout.lock_timeout', pg_catalog.current_setting('lock_timeout'), true),
             pg_catalog.set_config('lock_timeout', '{LOCK_TURN}', true)"
    );
    a.client
        .unwritten()
        .batch_execute(&begin)
        .map_err(|source| TargetError::failed(format!("cannot set a savepoint in {label}"), source))
}

fn end_turn(a: &mut Session) -> Result<(), postgres::Error> {
    a.client.unwritten().batch_execute(
        "SELECT pg_catalog.set_config('lock_timeout', pg_catalog.current_setting('backout.lock_timeout'), true);
         RELEASE backout_turn",
    )
}

/// Takes back what was done since the turn began.
fn take_back(a: &mut Session) -> Result<(), postgres::Error> {
    a.client.went_back();
    a.run("ROLLBACK TO backout_turn; RELEASE backout_turn")
}

/// True where somebody else held a lock for longer than a turn.
fn waits(error: &TargetError) -> bool {
    is_of(error, is_lock_timeout)
}

/// The same, or where they waited for each other.
pub fn gives_way(error: &TargetError) -> bool {
    is_of(error, |error| is_lock_timeout(error) || error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED))
}

/// True where an error comes from one of the server's of that kind.
fn is_of(error: &TargetError, kind: impl Fn(&postgres::Error) -> bool) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(source) = next {
        if source.downcast_ref::<postgres::Error>().is_some_and(&kind) {
            return true;
        }
        next = source.source();
    }
    false
}

/// Takes a change of the schema back.
pub fn undo(
    a: &mut Session,
    tools: &mut Tools<'_>,
    images: &mut Images<'_, '_>,
    event: &DdlEvent,
    manner: Manner,
    conflicts: &mut Conflicts,
    notes: &mut Vec<String>,
) -> Result<(), TargetError> {
    let mut context = context(a, tools, images);
    ddl::undo(&mut context, event, manner, conflicts, notes)
}

/// Makes a change of the schema again.
pub fn redo(
    a: &mut Session,
    tools: &mut Tools<'_>,
    images: &mut Images<'_, '_>,
    event: &DdlEvent,
    manner: Manner,
    conflicts: &mut Conflicts,
) -> Result<DdlEvent, TargetError> {
    let found_before = conflicts.total;
    rebuild::compare(a, tools.label, event, conflicts)
        .map_err(|source| TargetError::failed(format!("cannot read the tables of {}", tools.label), source))?;
    if conflicts.total > found_before && manner.on_conflict != OnConflict::Overwrite {
        return Ok(event.nothing());
    }
    let mut again = ddl::redo(&mut context(a, tools, images), event, manner, conflicts)?;
    if let Some(capture) = &mut images.capture {
        noted(a, capture, tools.label, &mut again)?;
    }
    Ok(again)
}

fn noted(a: &mut Session, capture: &mut Capture, label: &str, event: &mut DdlEvent) -> Result<(), TargetError> {
    rebuild::note(a, capture.index(), event)
        .map_err(|source| TargetError::failed(format!("cannot read the tables of {label}"), source))
}

pub(super) fn context<'c>(a: &'c mut Session, tools: &'c mut Tools<'_>, images: &'c mut Images<'_, '_>) -> Context<'c> {
    Context {
        client: &mut a.client,
        prefix: tools.own,
        target: tools.label,
        version: tools.version,
        event_triggers: tools.event_triggers,
        next_hold: tools.next_hold,
        keep: images,
        passing: tools.passing,
        drawn: tools.drawn,
        already: tools.already.as_deref_mut(),
        proof: tools.proof,
        knows_numbers: tools.knows_numbers,
        gone: tools.gone,
    }
}
