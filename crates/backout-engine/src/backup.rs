//! Full backups: before a deployment, and when somebody asks for one; and which of them stay.

use std::collections::BTreeSet;

use backout_journal::Reader;
use backout_model::backup::{Backup, Examined, Position, Proof, Request, Snapshot, Taken};
use backout_model::entry::Draft;
use backout_model::id::FramePath;
use backout_model::state::{DeploymentState, Event};
use backout_model::target::Finding;
use backout_model::words::count;
use backout_package::site::Site;
use serde::Serialize;

use crate::error::EngineError;
use crate::history::{View, payload};
use crate::observer::Happening;
use crate::outcome::{NOTHING_CHANGED, Outcome, Status};
use crate::restored::short;
use crate::session::Session;
use crate::step::Run;

const HOUR_MS: i64 = 60 * 60 * 1000;

/// What a site without `backup:` is told.
const NONE: &str = "no backup was taken: site.yaml has no `backup:`";

impl Run<'_, '_> {
    /// Takes a backup before the deployment changes anything. An error: there is none, and nothing may begin.
    pub(crate) fn back_up(&mut self) -> Result<(), EngineError> {
        if self.session.backup.is_none() {
            if self.session.config.backup.is_none() && self.session.on_scratch.is_none() {
                self.notes.push(NONE.to_owned());
            }
            return Ok(());
        }
        let taken = self.session.take_backup(Some(self.view.id.to_string()))?;
        self.notes.extend(taken.notes.iter().map(|note| format!("backup: {note}")));
        self.put_durably(Event::BackupTaken, &FramePath::root(), None, payload(&taken)?)?;
        self.session.thin_backups();
        Ok(())
    }
}

impl Session<'_> {
    fn take_backup(&mut self, deployment: Option<String>) -> Result<Taken, EngineError> {
        self.observer.heard(Happening::Phase { name: "backing up" });
        self.journal.flush()?;
        let (seq, digest) = self.journal.reader().head()?;
        let position = Position { seq, digest: if seq == 0 { String::new() } else { digest.hex() } };
        let is_asked_for = deployment.is_none();
        if !is_asked_for && last(self.journal.reader())?.is_some() && self.keeper()?.list()?.is_empty() {
            // An empty mount point looks like a repository that was never made.
            return Err(EngineError::not_now(
                "the backup repository is empty, and the journal knows of backups",
                "is its disk mounted? If they are lost, `backout backup` begins anew; --no-backup does without",
            ));
        }
        let request = Request { position, deployment, stop: self.observer.stop() };
        Ok(self.keeper()?.take(&request)?)
    }

    pub(crate) fn keeper(&mut self) -> Result<&mut dyn Backup, EngineError> {
        match &mut self.backup {
            Some(backup) => Ok(backup.as_mut()),
            None => Err(no_backup()),
        }
    }

    /// Forgets the backups that no rule keeps. One that cannot be forgotten now goes with a later run.
    fn thin_backups(&mut self) {
        let thinned = surplus(self).and_then(|gone| Ok(self.keeper()?.forget(&gone)?));
        if let Err(error) = thinned {
            self.warn(format!("older backups stay: {}", error.causes().join(": ")));
        }
    }
}

/// Why there is nothing to back up to or to restore from.
pub fn no_backup() -> EngineError {
    EngineError::Usage {
        what: "site.yaml has no `backup:`".to_owned(),
        hint: Some("write `backup:` with a `password-file:` into it; docs/backup.md says how".to_owned()),
    }
}

/// Takes a backup because somebody asked for it.
pub fn by_hand(session: &mut Session<'_>) -> Result<Outcome, EngineError> {
    let taken = session.take_backup(None)?;
    session.journal.append(&[Draft {
        deployment: None,
        frame: FramePath::root(),
        step: None,
        event: Event::SiteBackedUp,
        payload: payload(&taken)?,
    }])?;
    session.thin_backups();
    let mut outcome = Outcome::new(Status::Done, NOTHING_CHANGED);
    outcome.answer.push(format!(
        "backed up as {}: {}, {} of them new",
        short(&taken.snapshot),
        count(taken.files, "file"),
        count(taken.added, "byte")
    ));
    outcome.notes = taken.notes;
    Ok(outcome)
}

/// The backups that no rule keeps. One that a deployment which needs a hand was taken before stays in any case.
pub fn surplus(session: &mut Session<'_>) -> Result<Vec<Snapshot>, EngineError> {
    let mut protected = BTreeSet::new();
    for row in session.journal.reader().deployments()? {
        if row.state == DeploymentState::NeedsHand || row.state.is_underway() {
            let view = View::load(session.journal.reader(), &row.id)?;
            protected.extend(view.backup.map(|taken| taken.snapshot));
        }
    }
    Ok(session.keeper()?.surplus(&protected)?)
}

/// Forgets the backups that are kept no longer.
pub fn forget(session: &mut Session<'_>, snapshots: &[Snapshot]) -> Result<(), EngineError> {
    if snapshots.is_empty() {
        return Ok(());
    }
    Ok(session.keeper()?.forget(snapshots)?)
}

/// The last backup that the journal knows of, and when it was taken (milliseconds since 1970 UTC).
pub fn last(reader: &Reader) -> Result<Option<(Taken, i64)>, EngineError> {
    reader.last_event(&[Event::BackupTaken, Event::SiteBackedUp])?.map_or(Ok(None), |entry| {
        let taken = serde_json::from_value(entry.payload)
            .map_err(|error| EngineError::History(format!("entry {}: {error}", entry.seq)))?;
        Ok(Some((taken, entry.time_ms)))
    })
}

/// What `verify --backup` looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Proven {
    pub snapshot: Snapshot,
    /// The grave ones.
    pub findings: u64,
    /// What could not be checked.
    pub unchecked: u64,
}

/// What is told of a backup that is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Found,
    Unchecked,
    Lacking,
}

/// Restores the latest backup into a scratch place and compares it with what was noted when it was taken.
pub fn verify(
    backup: &mut dyn Backup,
    reader: &Reader,
    each: &mut dyn FnMut(Kind, &Finding),
) -> Result<Proven, EngineError> {
    let noted = last(reader)?.map(|(taken, _)| taken);
    let all = backup.list()?;
    let mut findings = Vec::new();
    let finding = |what: String| Finding { target: "backup".to_owned(), what, grave: true };
    if let Some(noted) = &noted {
        match all.iter().find(|one| one.id == noted.snapshot) {
            None => findings.push(finding(format!("{} is not in the repository any more", short(&noted.snapshot)))),
            Some(one) if one.tree != noted.tree => {
                findings.push(finding(format!("{} is not what the journal says was backed up", short(&one.id))));
            }
            Some(_) => {}
        }
    }
    let Some(snapshot) = all.into_iter().next() else {
        return Err(EngineError::NotNow { what: "there is no backup of this site".to_owned(), hint: None });
    };
    let Proof { findings: more, unchecked, lacking } = backup.verify(&snapshot)?;
    findings.extend(more);
    for (kind, list) in [(Kind::Found, &findings), (Kind::Unchecked, &unchecked), (Kind::Lacking, &lacking)] {
        list.iter().for_each(|finding| each(kind, finding));
    }
    let grave = findings.iter().filter(|finding| finding.grave).count() as u64;
    Ok(Proven { snapshot, findings: grave, unchecked: unchecked.len() as u64 })
}

/// What would stand in the way of a backup, and how old the last one is.
pub fn doctor(
    site: &Site,
    backup: Option<&mut dyn Backup>,
    reader: &Reader,
    now_ms: i64,
) -> Result<Examined, EngineError> {
    let finding = |what: String, grave: bool| Finding { target: "backup".to_owned(), what, grave };
    let Some(backup) = backup else {
        let none = finding("none is taken before a deployment: site.yaml has no `backup:`".to_owned(), false);
        return Ok(Examined { findings: Vec::new(), lacking: vec![none] });
    };
    let Examined { mut findings, lacking } = backup.examine();
    if findings.is_empty() {
        let place = site.backup.as_ref().map(|backup| backup.repository.clone()).unwrap_or_default();
        findings.push(match last(reader)? {
            None => finding(format!("into {place}; none was taken yet"), false),
            Some((taken, taken_ms)) => {
                let hours = now_ms.saturating_sub(taken_ms) / HOUR_MS;
                let age = if hours < 48 {
                    count(hours.unsigned_abs(), "hour")
                } else {
                    count(hours.unsigned_abs() / 24, "day")
                };
                finding(format!("into {place}; the last one, {}, is {age} old", short(&taken.snapshot)), false)
            }
        });
    }
    Ok(Examined { findings, lacking })
}
