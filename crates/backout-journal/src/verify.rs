//! Checking a whole journal: chain, transitions, derived tables, every image. Never changes anything.

use backout_model::entry::{Digest, Entry};
use backout_model::id::DeploymentId;
use backout_model::state::{DeploymentState, Event};
use backout_model::target::Finding;
use rusqlite::{Connection, OptionalExtension};
use serde::Serialize;

use crate::error::JournalError;
use crate::layout::Layout;
use crate::reader::Reader;
use crate::row::{COLUMNS, DeploymentRow, sql_seq};
use crate::states::{Moving, States};
use crate::stored::{self, ENTRY_COLUMNS, Place, StoredEntry, digest_of};
use crate::write;

/// What a check of a journal went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    pub entries: u64,
    pub deployments: u64,
    /// Sets of images, one an entry; given up ones are not counted.
    pub images: u64,
    /// Bytes of those images.
    pub bytes: u64,
}

impl Reader {
    /// Checks everything, in memory that does not grow with the journal. An error means that the journal could not
    /// be read on; what was found before it has been told already.
    pub fn verify(&self, each: &mut dyn FnMut(Finding)) -> Result<Checked, JournalError> {
        let Some(connection) = &self.connection else { return Ok(Checked::default()) };
        let failed = |e| JournalError::database("verify the journal", e);
        // One view of the journal for all the checks, although a deployer may be writing.
        let view = connection.unchecked_transaction().map_err(failed)?;
        let mut verifier = Verifier { connection: &view, layout: &self.layout, each, checked: Checked::default() };
        let parts = [Verifier::structure, Verifier::chain, Verifier::deployments, Verifier::given_up, Verifier::strays];
        for part in parts {
            match part(&mut verifier) {
                // One part that stumbles over a damaged page does not keep the others from telling more.
                Err(JournalError::Damaged { what }) => verifier.grave(what),
                other => other?,
            }
        }
        let checked = verifier.checked;
        view.finish().map_err(failed)?;
        Ok(checked)
    }
}

struct Verifier<'a> {
    connection: &'a Connection,
    layout: &'a Layout,
    each: &'a mut dyn FnMut(Finding),
    checked: Checked,
}

/// What the chain must go on from.
struct Link {
    seq: i64,
    digest: Digest,
    time_ms: i64,
    epoch: Option<(u64, u64)>,
}

impl Verifier<'_> {
    fn grave(&mut self, what: String) {
        (self.each)(Finding { target: "journal".to_owned(), what, grave: true });
    }

    fn failed(error: rusqlite::Error) -> JournalError {
        JournalError::database("verify the journal", error)
    }

    /// SQLite's own check of pages, indexes and constraints.
    fn structure(&mut self) -> Result<(), JournalError> {
        let mut found = Vec::new();
        {
            let mut statement = self.connection.prepare("PRAGMA integrity_check(20)").map_err(Self::failed)?;
            let mut rows = statement.query([]).map_err(Self::failed)?;
            while let Some(row) = rows.next().map_err(Self::failed)? {
                found.push(row.get::<_, String>(0).map_err(Self::failed)?);
            }
        }
        for what in found.into_iter().filter(|line| line != "ok") {
            self.grave(format!("journal.db: {what}"));
        }
        Ok(())
    }

    /// Numbers without gaps, times that don't go back, each entry its digest, each the digest of the one before.
    fn chain(&mut self) -> Result<(), JournalError> {
        let connection = self.connection;
        let mut link = Link { seq: 0, digest: Digest::ZERO, time_ms: i64::MIN, epoch: None };
        let mut statement =
            connection.prepare(&format!("SELECT {ENTRY_COLUMNS} FROM entry ORDER BY seq")).map_err(Self::failed)?;
        let mut rows = statement.query([]).map_err(Self::failed)?;
        while let Some(row) = rows.next().map_err(Self::failed)? {
            let stored = StoredEntry::from_sql(row).map_err(Self::failed)?;
            self.checked.entries += 1;
            if stored.seq != link.seq + 1 {
                self.grave(format!("entry {} follows entry {}", stored.seq, link.seq));
            }
            match stored.check() {
                Ok(entry) => self.entry(&entry, &stored, &mut link)?,
                Err(error) => self.grave(in_short(&error)),
            }
            // From the text, so that one damaged entry shows once, and an exchanged one in the entry after it.
            link.digest = digest_of(&stored.body);
            link.seq = stored.seq;
        }
        let stored: Option<(i64, i64)> = connection
            .query_row("SELECT value, seq FROM epoch", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(Self::failed)?;
        if stored != link.epoch.map(|(value, seq)| (sql_seq(value), sql_seq(seq))) {
            self.grave("the last epoch in its table is not that of the entries".to_owned());
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, stored: &StoredEntry, link: &mut Link) -> Result<(), JournalError> {
        let seq = entry.seq;
        if entry.previous != link.digest {
            self.grave(format!("entry {seq} does not follow the entry before it: one of them was changed"));
        }
        if entry.time_ms < link.time_ms {
            self.grave(format!("entry {seq} is older than the one before it"));
        }
        link.time_ms = link.time_ms.max(entry.time_ms);
        if serde_json::to_vec(entry).ok().as_deref() != Some(stored.body.as_slice()) {
            self.grave(format!("entry {seq} is not in its canonical form"));
        }
        if entry.event == Event::LockTaken {
            match entry.payload.get("epoch").and_then(serde_json::Value::as_u64) {
                Some(epoch) if link.epoch.is_none_or(|(last, _)| epoch > last) => link.epoch = Some((epoch, seq)),
                _ => self.grave(format!("entry {seq} has no epoch above the one before")),
            }
        }
        match (&entry.images, stored::place(self.connection, seq)?) {
            (None, Place::Nowhere) => {}
            (None, _) => self.grave(format!("entry {seq} has images that it does not speak of")),
            // Judged with the entry that gave them up.
            (Some(_), Place::Dropped { .. }) => {}
            (Some(expected), _) => {
                let checked = stored::open(self.connection, self.layout, seq, expected)
                    .and_then(|mut images| stored::check(&mut *images, seq, expected));
                match checked {
                    Ok(()) => {
                        self.checked.images += 1;
                        self.checked.bytes += expected.bytes;
                    }
                    Err(error) => self.grave(in_short(&error)),
                }
            }
        }
        Ok(())
    }

    /// Every deployment's entries, folded again: legal transitions, and the same line in the derived table.
    fn deployments(&mut self) -> Result<(), JournalError> {
        let connection = self.connection;
        // Through the index, so that the entries of one deployment come together and only one is held in memory.
        let mut statement = connection
            .prepare(&format!(
                "SELECT {ENTRY_COLUMNS} FROM entry INDEXED BY entry_of_deployment
                 WHERE deployment IS NOT NULL ORDER BY deployment, seq"
            ))
            .map_err(Self::failed)?;
        let mut rows = statement.query([]).map_err(Self::failed)?;
        let mut current: Option<(DeploymentId, States, Option<DeploymentRow>)> = None;
        while let Some(row) = rows.next().map_err(Self::failed)? {
            // What is damaged has been told with the chain.
            let Ok(entry) = StoredEntry::from_sql(row).map_err(Self::failed)?.check() else { continue };
            let Some(id) = entry.deployment.clone() else { continue };
            if current.as_ref().is_none_or(|(at, _, _)| *at != id) {
                self.close(current.take())?;
                current = Some((id.clone(), States::default(), None));
            }
            let Some((_, states, line)) = &mut current else { continue };
            let moving = Moving { frame: entry.frame.clone(), step: entry.step, event: entry.event };
            if let Err(error) = states.apply(&moving) {
                self.grave(format!("entry {} of deployment {id}: {error}", entry.seq));
            }
            let state = states.deployment.unwrap_or(DeploymentState::Planned);
            match DeploymentRow::after(line.as_ref(), &entry, state) {
                Ok(next) => *line = Some(next),
                Err(error) => self.grave(format!("entry {} of deployment {id}: {error}", entry.seq)),
            }
        }
        self.close(current.take())?;
        let listed: i64 =
            connection.query_row("SELECT count(*) FROM deployment", [], |row| row.get(0)).map_err(Self::failed)?;
        if u64::try_from(listed) != Ok(self.checked.deployments) {
            self.grave(format!(
                "the table of deployments lists {listed} of them, the entries speak of {}",
                self.checked.deployments
            ));
        }
        Ok(())
    }

    fn close(&mut self, done: Option<(DeploymentId, States, Option<DeploymentRow>)>) -> Result<(), JournalError> {
        let Some((id, _, computed)) = done else { return Ok(()) };
        self.checked.deployments += 1;
        let listed = self
            .connection
            .query_row(
                &format!("SELECT {COLUMNS} FROM deployment WHERE id = ?1"),
                [id.as_str()],
                DeploymentRow::from_sql,
            )
            .optional();
        match listed {
            Ok(listed) if listed == computed => {}
            Ok(_) => self.grave(format!("deployment {id} is not listed as its entries say")),
            Err(error) => self.grave(format!("deployment {id} is listed unreadably: {error}")),
        }
        Ok(())
    }

    /// Images are given up by an entry that says so, and then they are gone.
    fn given_up(&mut self) -> Result<(), JournalError> {
        let connection = self.connection;
        let mut statement = connection
            .prepare("SELECT seq, by_seq, EXISTS (SELECT 1 FROM image WHERE image.seq = dropped.seq) FROM dropped")
            .map_err(Self::failed)?;
        let mut rows = statement.query([]).map_err(Self::failed)?;
        while let Some(row) = rows.next().map_err(Self::failed)? {
            let (seq, by, still): (i64, i64, bool) = (
                row.get(0).map_err(Self::failed)?,
                row.get(1).map_err(Self::failed)?,
                row.get(2).map_err(Self::failed)?,
            );
            let says = stored::entry(connection, u64::try_from(by).unwrap_or(0)).ok().flatten();
            let said = says.is_some_and(|entry| {
                entry.event == Event::ImagesDropped
                    && entry.payload.get("of").and_then(serde_json::Value::as_i64) == Some(seq)
            });
            if !said {
                self.grave(format!("the images of entry {seq} are gone and entry {by} does not say so"));
            }
            if still {
                self.grave(format!("the images of entry {seq} were given up and are still there"));
            }
        }
        Ok(())
    }

    /// Files that no entry names: left by a crash, or being written right now; they go at the next opening.
    fn strays(&mut self) -> Result<(), JournalError> {
        let mut strays = Vec::new();
        write::stray_images(self.connection, self.layout, &mut |name| strays.push(name))?;
        for name in strays {
            let what = format!("the file images/{name} belongs to no entry");
            (self.each)(Finding { target: "journal".to_owned(), what, grave: false });
        }
        Ok(())
    }
}

/// Without the preface that every finding of the journal would share.
fn in_short(error: &JournalError) -> String {
    match error {
        JournalError::Damaged { what } => what.clone(),
        other => other.to_string(),
    }
}
