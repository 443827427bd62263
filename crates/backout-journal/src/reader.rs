//! Reading a journal, with or without its lock, while a deployer may be writing it. Never writes.

use std::ops::ControlFlow;
use std::path::Path;

use backout_model::entry::{Digest, Entry, ImagesRef};
use backout_model::id::{DeploymentId, ID_LENGTH};
use backout_model::state::{DeploymentState, Event};
use backout_model::target::Images;
use rusqlite::{Connection, OptionalExtension, Params};

use crate::error::JournalError;
use crate::layout::Layout;
use crate::lock::{HolderNote, read_note};
use crate::process::Liveness;
use crate::row::{COLUMNS, DeploymentRow, sql_seq};
use crate::schema;
use crate::states::{Moving, States, name};
use crate::stored::{self, ENTRY_COLUMNS, StoredEntry, digest_of};

/// What a prefix of an id finds.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    None,
    One(Box<DeploymentRow>),
    /// Several begin so; at most [`Found::LISTED`], newest first.
    Many(Vec<DeploymentRow>),
}

impl Found {
    pub const LISTED: usize = 20;
}

/// A journal to read from: what is durable, nothing that was only deferred.
pub struct Reader {
    pub(crate) layout: Layout,
    /// None where nothing was ever written.
    pub(crate) connection: Option<Connection>,
}

impl Reader {
    pub(crate) fn open(state: &Path) -> Result<Self, JournalError> {
        let layout = Layout::new(state);
        let connection = schema::open_reader(&layout)?;
        Ok(Self { layout, connection })
    }

    /// All deployments, newest first.
    pub fn deployments(&self) -> Result<Vec<DeploymentRow>, JournalError> {
        self.rows("ORDER BY first_seq DESC", [])
    }

    /// The newest deployments, newest first.
    pub fn newest(&self, limit: usize) -> Result<Vec<DeploymentRow>, JournalError> {
        self.rows("ORDER BY first_seq DESC LIMIT ?1", [i64::try_from(limit).unwrap_or(i64::MAX)])
    }

    /// The deployment with that id.
    pub fn deployment(&self, id: &DeploymentId) -> Result<Option<DeploymentRow>, JournalError> {
        self.rows("WHERE id = ?1", [id.as_str()]).map(|mut rows| rows.pop())
    }

    /// The deployments whose id begins with `prefix`. The empty prefix finds none.
    pub fn find(&self, prefix: &str) -> Result<Found, JournalError> {
        let proper = prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if prefix.is_empty() || prefix.len() > ID_LENGTH || !proper {
            return Ok(Found::None);
        }
        // `{` is the character after `z`, so that this range holds every id with the prefix and no other.
        let mut rows = self.rows(
            "WHERE id >= ?1 AND id < ?2 ORDER BY first_seq DESC LIMIT ?3",
            (prefix, format!("{prefix}{{"), Found::LISTED as i64),
        )?;
        Ok(match rows.len() {
            0 => Found::None,
            1 => rows.pop().map_or(Found::None, |row| Found::One(Box::new(row))),
            _ => Found::Many(rows),
        })
    }

    /// The newest deployment that a process must still be at work on, or that a crash left so.
    pub fn unfinished(&self) -> Result<Option<DeploymentRow>, JournalError> {
        let mut newest: Option<DeploymentRow> = None;
        for state in DeploymentState::ALL.iter().filter(|state| state.is_underway()) {
            let found = self.rows("WHERE state = ?1 ORDER BY first_seq DESC LIMIT 1", [name(state)])?.pop();
            if found.as_ref().map(|row| row.first_seq) > newest.as_ref().map(|row| row.first_seq) {
                newest = found;
            }
        }
        Ok(newest)
    }

    /// The entries of a deployment, in order, one at a time.
    pub fn entries(
        &self,
        deployment: &DeploymentId,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), JournalError> {
        self.stream("WHERE deployment = ?1 ORDER BY seq", [deployment.as_str()], each)
    }

    /// Which of two events happened to a deployment last; none where neither did.
    pub fn last_of(&self, deployment: &DeploymentId, events: &[Event]) -> Result<Option<Event>, JournalError> {
        let Some(connection) = &self.connection else { return Ok(None) };
        let names = serde_json::Value::from(events.iter().map(name).collect::<Vec<_>>()).to_string();
        let found: Option<String> = connection
            .query_row(
                "SELECT body ->> 'event' FROM entry
                 WHERE deployment = ?1 AND body ->> 'event' IN (SELECT value FROM json_each(?2))
                 ORDER BY seq DESC LIMIT 1",
                (deployment.as_str(), names),
                |row| row.get(0),
            )
            .optional()
            .map_err(|e| JournalError::database("read the entries of the journal", e))?;
        Ok(events.iter().copied().find(|event| found.as_deref() == Some(name(event).as_str())))
    }

    /// The last entry about the site as a whole that is one of these events; none where there is none.
    pub fn last_of_site(&self, events: &[Event]) -> Result<Option<Entry>, JournalError> {
        self.last_where("deployment IS NULL AND", events)
    }

    /// The last entry of the whole journal that is one of these events; none where there is none.
    pub fn last_event(&self, events: &[Event]) -> Result<Option<Entry>, JournalError> {
        self.last_where("", events)
    }

    fn last_where(&self, which: &str, events: &[Event]) -> Result<Option<Entry>, JournalError> {
        let names = serde_json::Value::from(events.iter().map(name).collect::<Vec<_>>()).to_string();
        let mut last = None;
        let which =
            format!("WHERE {which} body ->> 'event' IN (SELECT value FROM json_each(?1)) ORDER BY seq DESC LIMIT 1");
        self.stream(&which, [names], &mut |entry| {
            last = Some(entry);
            ControlFlow::Break(())
        })?;
        Ok(last)
    }

    /// The number and digest of the last entry; 0 and zeros where there is none.
    pub fn head(&self) -> Result<(u64, Digest), JournalError> {
        self.connection.as_ref().map_or(Ok((0, Digest([0; 32]))), stored::head)
    }

    /// All entries from number `from_seq` on, in order, one at a time.
    pub fn all_entries(
        &self,
        from_seq: u64,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), JournalError> {
        self.stream("WHERE seq >= ?1 ORDER BY seq", [sql_seq(from_seq)], each)
    }

    /// One entry.
    pub fn entry(&self, seq: u64) -> Result<Option<Entry>, JournalError> {
        self.connection.as_ref().map_or(Ok(None), |connection| stored::entry(connection, seq))
    }

    /// The number of the last entry; 0 where there is none.
    pub fn last_seq(&self) -> Result<u64, JournalError> {
        self.connection.as_ref().map_or(Ok(0), |connection| stored::head(connection).map(|(seq, _)| seq))
    }

    /// The highest epoch of a lock that was taken; 0 where none was.
    pub fn last_epoch(&self) -> Result<u64, JournalError> {
        self.connection.as_ref().map_or(Ok(0), last_epoch)
    }

    /// Where a deployment, its frames and its steps stand.
    pub fn states(&self, deployment: &DeploymentId) -> Result<States, JournalError> {
        self.connection.as_ref().map_or(Ok(States::default()), |connection| states(connection, deployment))
    }

    /// The images of an entry. Their length is checked, and their digest where that costs nothing; a reader that
    /// must be sure calls [`Reader::check_images`] first.
    pub fn open_images(&self, seq: u64) -> Result<Box<dyn Images>, JournalError> {
        let (connection, expected) = self.expected(seq)?;
        stored::open(connection, &self.layout, seq, &expected)
    }

    /// Reads the images of an entry through and compares their digest.
    pub fn check_images(&self, seq: u64) -> Result<(), JournalError> {
        let (connection, expected) = self.expected(seq)?;
        stored::check(&mut *stored::open(connection, &self.layout, seq, &expected)?, seq, &expected)
    }

    /// Who writes the journal now, as the lock file says; none where nobody does or the process named there is dead.
    pub fn holder(&self) -> Option<HolderNote> {
        read_note(&self.layout.lock()).filter(|note| !matches!(note.facts().liveness(), Ok(Liveness::Dead)))
    }

    fn expected(&self, seq: u64) -> Result<(&Connection, ImagesRef), JournalError> {
        let none = || JournalError::NoImages { seq };
        let connection = self.connection.as_ref().ok_or_else(none)?;
        let images = stored::entry(connection, seq)?.and_then(|entry| entry.images).ok_or_else(none)?;
        Ok((connection, images))
    }

    fn rows(&self, which: &str, params: impl Params) -> Result<Vec<DeploymentRow>, JournalError> {
        self.connection.as_ref().map_or(Ok(Vec::new()), |connection| rows(connection, which, params))
    }

    fn stream(
        &self,
        which: &str,
        params: impl Params,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), JournalError> {
        let Some(connection) = &self.connection else { return Ok(()) };
        let failed = |e| JournalError::database("read the entries of the journal", e);
        let mut statement =
            connection.prepare(&format!("SELECT {ENTRY_COLUMNS} FROM entry {which}")).map_err(failed)?;
        let mut found = statement.query(params).map_err(failed)?;
        while let Some(row) = found.next().map_err(failed)? {
            if each(StoredEntry::from_sql(row).map_err(failed)?.check()?).is_break() {
                break;
            }
        }
        Ok(())
    }
}

pub(crate) fn rows(
    connection: &Connection,
    which: &str,
    params: impl Params,
) -> Result<Vec<DeploymentRow>, JournalError> {
    let failed = |e| JournalError::database("read the deployments of the journal", e);
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM deployment {which}")).map_err(failed)?;
    let found = statement.query_map(params, DeploymentRow::from_sql).map_err(failed)?;
    found.collect::<Result<_, _>>().map_err(failed)
}

pub(crate) fn last_epoch(connection: &Connection) -> Result<u64, JournalError> {
    let epoch: Option<i64> = connection
        .query_row("SELECT value FROM epoch", [], |row| row.get(0))
        .optional()
        .map_err(|e| JournalError::database("read the last epoch of the journal", e))?;
    Ok(epoch.and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or(0))
}

/// Folds the entries of one deployment; their payloads are passed over.
pub(crate) fn states(connection: &Connection, deployment: &DeploymentId) -> Result<States, JournalError> {
    let failed = |e| JournalError::database(format!("read the entries of deployment {deployment}"), e);
    let mut states = States::default();
    let mut statement = connection
        .prepare(&format!("SELECT {ENTRY_COLUMNS} FROM entry WHERE deployment = ?1 ORDER BY seq"))
        .map_err(failed)?;
    let mut found = statement.query([deployment.as_str()]).map_err(failed)?;
    while let Some(row) = found.next().map_err(failed)? {
        let stored = StoredEntry::from_sql(row).map_err(failed)?;
        let damaged = |what: String| JournalError::Damaged { what: format!("entry {}: {what}", stored.seq) };
        if digest_of(&stored.body).0.as_slice() != stored.digest {
            return Err(damaged("its text does not have its digest".to_owned()));
        }
        let moving: Moving = serde_json::from_slice(&stored.body).map_err(|e| damaged(e.to_string()))?;
        states.apply(&moving).map_err(|e| damaged(e.to_string()))?;
    }
    Ok(states)
}
