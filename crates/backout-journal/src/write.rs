//! The journal's transactions, what follows when one fails, and the files that belong to no entry.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use backout_model::fault::{self, Point};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, ffi};

use crate::error::JournalError;
use crate::images::Content;
use crate::journal::Journal;
use crate::row::sql_seq;
use crate::stage::{Head, Staged};
use crate::stored;

const ACT: &str = "write to the journal";

/// Makes all that was deferred, and then `staged`, durable in one transaction. After an error nothing of it is in
/// the journal and `journal.deferred` is as before; the caller takes back what it staged.
pub(crate) fn write(journal: &mut Journal, staged: &[Staged]) -> Result<(), JournalError> {
    settle(journal)?;
    if journal.deferred.is_empty() && staged.is_empty() {
        return Ok(());
    }
    let mut outcome = attempt(journal, staged);
    if outcome.as_ref().is_err_and(may_be_space) && !journal.in_doubt && journal.reserve.release() {
        outcome = attempt(journal, staged);
    }
    if let Err(error) = outcome {
        for one in staged {
            if let Some(Content::File(name)) = &one.content {
                journal.leftovers.push(name.clone());
            }
        }
        return Err(as_no_space(journal, error));
    }
    written(journal, staged);
    Ok(())
}

fn attempt(journal: &mut Journal, staged: &[Staged]) -> Result<(), JournalError> {
    let Err(error) = transact(journal, staged) else { return Ok(()) };
    // What the commit did is asked of the journal itself, not guessed from the error.
    match stored::head(&journal.connection) {
        Ok((seq, digest)) if (seq, digest) == (journal.tip.seq, journal.tip.digest) => Ok(()),
        Ok((seq, digest)) if (seq, digest) == (journal.durable.seq, journal.durable.digest) => Err(error),
        Ok((seq, _)) => Err(diverged(journal.durable, seq)),
        Err(_) => {
            journal.in_doubt = true;
            Err(error)
        }
    }
}

/// After a failure whose outcome could not be read back: reads it now, or refuses to go on.
pub(crate) fn settle(journal: &mut Journal) -> Result<(), JournalError> {
    if !journal.in_doubt {
        return Ok(());
    }
    let (seq, digest) = stored::head(&journal.connection)?;
    if (seq, digest) != (journal.durable.seq, journal.durable.digest) {
        return Err(diverged(journal.durable, seq));
    }
    journal.in_doubt = false;
    Ok(())
}

fn diverged(durable: Head, found: u64) -> JournalError {
    JournalError::Diverged { what: format!("its last entry is {found}, where {} was written last", durable.seq) }
}

fn transact(journal: &mut Journal, staged: &[Staged]) -> Result<(), JournalError> {
    let failed = |e| JournalError::database(ACT, e);
    fault::point(Point::JournalWrite).map_err(|e| JournalError::io(ACT, e))?;
    let transaction = journal.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let mut touched = BTreeSet::new();
    {
        let mut insert = transaction
            .prepare("INSERT INTO entry (seq, deployment, body, digest) VALUES (?1, ?2, ?3, ?4)")
            .map_err(failed)?;
        for one in journal.deferred.iter().chain(staged) {
            let deployment = one.deployment.as_ref().map(|id| id.as_str());
            insert.execute((sql_seq(one.seq), deployment, &one.body, one.digest.0.as_slice())).map_err(failed)?;
            store_beside(&transaction, one).map_err(failed)?;
            touched.extend(&one.deployment);
        }
    }
    for id in touched {
        if let Some(row) = journal.live.get(id).and_then(|live| live.row.as_ref()) {
            row.store(&transaction).map_err(failed)?;
        }
    }
    transaction.commit().map_err(failed)
}

/// What an entry brings into the tables beside its own.
fn store_beside(connection: &Connection, one: &Staged) -> rusqlite::Result<()> {
    match &one.content {
        None => {}
        Some(Content::Inline(content)) => {
            connection
                .execute("INSERT INTO image (seq, content) VALUES (?1, ?2)", (sql_seq(one.seq), content.as_slice()))?;
        }
        Some(Content::File(name)) => {
            connection.execute("INSERT INTO image (seq, file) VALUES (?1, ?2)", (sql_seq(one.seq), name))?;
        }
    }
    if let Some(dropped) = one.drops {
        connection
            .execute("INSERT INTO dropped (seq, by_seq) VALUES (?1, ?2)", (sql_seq(dropped), sql_seq(one.seq)))?;
        connection.execute("DELETE FROM image WHERE seq = ?1", [sql_seq(dropped)])?;
    }
    if let Some(epoch) = one.epoch {
        connection.execute(
            "INSERT INTO epoch (one, value, seq) VALUES (1, ?1, ?2)
             ON CONFLICT (one) DO UPDATE SET value = excluded.value, seq = excluded.seq",
            (sql_seq(epoch), sql_seq(one.seq)),
        )?;
    }
    Ok(())
}

/// Memory follows the disk.
fn written(journal: &mut Journal, staged: &[Staged]) {
    journal.durable = journal.tip;
    journal.deferred.clear();
    journal.deferred_bytes = 0;
    // This transaction overwrote whatever a failed one had left in the write-ahead log, so that no crash can bring
    // its entry back: the file that it would have needed can go. What cannot be removed goes at the next opening.
    for name in std::mem::take(&mut journal.leftovers) {
        let taken = staged.iter().any(|one| matches!(&one.content, Some(Content::File(file)) if *file == name));
        if !taken {
            fs::remove_file(journal.layout.images().join(&name)).ok();
        }
    }
    journal.forget_resting();
}

/// True where giving up the reserve may help.
fn may_be_space(error: &JournalError) -> bool {
    match error {
        JournalError::Database { source: rusqlite::Error::SqliteFailure(failure, _), .. } => matches!(
            failure.extended_code,
            ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_SHMMAP | ffi::SQLITE_IOERR_SHMOPEN
        ),
        other => other.is_no_space(),
    }
}

/// SQLite tells a full disk from other failures of a write, but not a quota that is used up.
fn as_no_space(journal: &Journal, error: JournalError) -> JournalError {
    let full = || rustix::fs::statvfs(journal.layout.state()).is_ok_and(|found| found.f_bavail == 0);
    match error {
        JournalError::Database { act, source } if source.sqlite_error_code().is_some() && full() => {
            JournalError::NoSpace { act, source: source.into() }
        }
        other => other,
    }
}

impl Journal {
    /// Removes the files of images that no entry names: their process died before it wrote the entry.
    pub(crate) fn remove_stray_images(&self) -> Result<(), JournalError> {
        let mut strays = Vec::new();
        stray_images(&self.connection, &self.layout, &mut |name| strays.push(name))?;
        self.remove_images(&strays)
    }

    pub(crate) fn remove_images(&self, names: &[String]) -> Result<(), JournalError> {
        for name in names {
            let failed = |e| JournalError::io(format!("remove the images {name}"), e);
            if !stored::is_file_name(name) {
                continue;
            }
            fault::point(Point::Unlink).map_err(failed)?;
            match fs::remove_file(self.layout.images().join(name)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

/// Names each file in the directory of images that the journal does not know.
pub(crate) fn stray_images(
    connection: &Connection,
    layout: &crate::layout::Layout,
    each: &mut dyn FnMut(String),
) -> Result<(), JournalError> {
    let act = || format!("list {}", layout.images().display());
    let listed = match fs::read_dir(layout.images()) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(JournalError::io(act(), error)),
    };
    let failed = |e| JournalError::database("look up the files of images", e);
    let mut known = connection.prepare("SELECT 1 FROM image WHERE file = ?1").map_err(failed)?;
    for file in listed {
        let name = file.map_err(|e| JournalError::io(act(), e))?.file_name().to_string_lossy().into_owned();
        let found: Option<i64> = known.query_row([&name], |row| row.get(0)).optional().map_err(failed)?;
        if found.is_none() {
            each(name);
        }
    }
    Ok(())
}
