//! The commands, one file each, and what they share: the site at hand and a session with its progress.

pub mod backup;
pub mod capture;
pub mod completions;
pub mod confirm;
pub mod deploy;
pub mod diff;
pub mod doctor;
pub mod init;
pub mod inspect;
pub mod log;
pub mod man;
pub mod new;
pub mod pack;
pub mod plan;
pub mod prune;
pub mod record;
pub mod redo;
pub mod rehearse;
pub mod restore;
pub mod resume;
pub mod retry;
pub mod schema;
pub mod show;
pub mod sign;
pub mod status;
pub mod undo;
pub mod unlock;
pub mod usage;
pub mod verify;
pub mod watch;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use backout_backup::Keeper;
use backout_engine::error::EngineError;
use backout_engine::fresh;
use backout_engine::outcome::{Outcome, Status};
use backout_engine::session::{Session, Targets};
use backout_engine::{recording, report, restored};
use backout_journal::{Journal, Reader};
use backout_package::site::{SITE_FILE, Site};

use crate::alerts::Alerts;
use crate::end::{self, End};
use crate::error::CliError;
use crate::global::Global;
use crate::lent;
use crate::progress::Progress;
use crate::signals::Stop;
use crate::ui::Ui;
use crate::wiring;

/// Opens a site's targets anew.
pub type Reopen<'a> = &'a mut dyn FnMut() -> Result<Targets, EngineError>;

/// What every command is given.
pub struct Context<'a> {
    pub ui: &'a Ui,
    pub global: &'a Global,
}

impl Context<'_> {
    /// The site that the command line or the working directory names.
    pub fn site(&self) -> Result<Site, CliError> {
        let file = match &self.global.site {
            Some(dir) if dir.is_dir() => dir.join(SITE_FILE),
            Some(file) => file.clone(),
            None => Site::find(&working_directory()?)?,
        };
        Ok(Site::load(&file)?)
    }

    /// Takes the locks of a site, settles what a crash interrupted, and does `work`, which gets what was settled.
    /// `purpose` is for whoever is kept out meanwhile. Where nothing was ever deployed, `first` is asked before
    /// anything is made: what it refuses leaves no trace.
    pub fn in_session(
        &self,
        site: Site,
        purpose: &str,
        first: impl FnOnce(&Site, &mut Targets, &Reader) -> Result<(), EngineError>,
        work: impl FnOnce(&mut Session<'_>, Option<&Outcome>) -> Result<Outcome, CliError>,
    ) -> Result<End, CliError> {
        self.told(site, purpose, |site, progress, alerts| self.locked(site, purpose, (progress, alerts), first, work))
    }

    /// Takes the locks of a site and settles nothing first: what was interrupted is refused.
    pub fn looking(
        &self,
        site: Site,
        purpose: &str,
        first: impl FnOnce(&Reader) -> Result<(), EngineError>,
        work: impl FnOnce(&mut Session<'_>) -> Result<Outcome, CliError>,
    ) -> Result<End, CliError> {
        self.told(site, purpose, |site, progress, _| {
            let targets = asked_first(&site, |_, _, reader| first(reader))?;
            let mut session = Session::open(site, targets, wiring::surroundings(), purpose, progress)?;
            recording::none_under_way(session.journal().reader())?;
            if let Some(row) = session.journal().reader().unfinished()? {
                let what = format!("{} ({}) was interrupted: what it left is not known yet", row.id, row.package);
                return Err(CliError::refused(what, "`backout resume` first"));
            }
            work(&mut session)
        })
    }

    /// Takes the locks of a site and settles nothing: a recording goes on until it is stopped.
    pub fn recording(
        &self,
        site: Site,
        work: impl FnOnce(&mut Session<'_>) -> Result<Outcome, CliError>,
    ) -> Result<End, CliError> {
        self.told(site, "capture", |site, progress, _| {
            let targets = targets(&site, &Journal::read(&site.state)?)?;
            work(&mut Session::open(site, targets, wiring::surroundings(), "capture", progress)?)
        })
    }

    /// Takes the locks of what can be locked and settles nothing first: a restore puts right what does not fit.
    pub fn restoring(
        &self,
        site: Site,
        keeper: Keeper,
        work: impl FnOnce(&mut Session<'_>, Reopen<'_>) -> Result<Outcome, CliError>,
    ) -> Result<End, CliError> {
        self.told(site, "restore", |site, progress, _| {
            let (targets, _) = wiring::targets_as_far_as_possible(&site);
            let config = site.clone();
            let mut session = Session::open_to_restore(site, targets, wiring::surroundings(), progress)?;
            session.backed_up_by(Box::new(keeper));
            work(&mut session, &mut || {
                let failed = |error: CliError| EngineError::NotNow { what: error.causes().join(": "), hint: None };
                wiring::targets(&config).map_err(failed)
            })
        })
    }

    /// Does `work` with progress; where it failed, tells a full disk, and whoever is to be alerted.
    fn told(
        &self,
        site: Site,
        purpose: &str,
        work: impl FnOnce(Site, &mut Progress, &Alerts) -> Result<Outcome, CliError>,
    ) -> Result<End, CliError> {
        site.can_alert()?;
        lent::clear(&site, self.ui);
        let stop = Stop::listen().map_err(|source| CliError::io("listen for signals", source))?;
        let mut progress = Progress::new(self.ui, stop);
        let places = wiring::places(&site);
        let alerts = Alerts::of(&site);
        let done = work(site, &mut progress, &alerts);
        progress.pause();
        // The locks are given back by now: whoever waits for them need not wait for a mail.
        alerts.tell_also(self.ui);
        match done {
            Ok(mut outcome) => {
                if matches!(outcome.status, Status::Failed | Status::Refused | Status::NeedsHand) {
                    outcome.hints.extend(wiring::full_disks(&places));
                }
                let end = End::of(self.ui, &outcome);
                alerts.tell(self.ui, purpose, &outcome);
                Ok(end)
            }
            // An engine that finds no space says so in many ways, some of them hard to understand.
            Err(error) => {
                let error = CliError::Hinted { error: Box::new(error), hints: wiring::full_disks(&places) };
                alerts.tell_error(self.ui, purpose, &error);
                Err(error)
            }
        }
    }

    /// Takes the locks of a site and settles what a crash interrupted; none: nothing had been, and nothing needs a hand.
    /// `purpose` is for whoever is alerted.
    pub fn resume(&self, site: Site, purpose: &str) -> Result<Option<Outcome>, CliError> {
        site.can_alert()?;
        lent::clear(&site, self.ui);
        let stop = Stop::listen().map_err(|source| CliError::io("listen for signals", source))?;
        let mut progress = Progress::new(self.ui, stop);
        let alerts = Alerts::of(&site);
        let reader = Journal::read(&site.state)?;
        let mut targets = targets(&site, &reader)?;
        if fresh::is_fresh(&mut targets, &reader)? {
            return Ok(None);
        }
        let mut session = Session::open(site, targets, wiring::surroundings(), "resume", &mut progress)?;
        let settled = backout_engine::resume::resume(&mut session)?;
        let outcome = match &settled {
            None => report::left_to_a_hand(session.journal().reader())?,
            Some(settled) => Some(settled.clone()),
        };
        drop(session);
        progress.pause();
        if let Some(settled) = &settled {
            alerts.tell(self.ui, purpose, settled);
        }
        Ok(outcome)
    }

    /// Gives up a history that the state directory does not have.
    pub fn begin_anew(&self, site: Site) -> Result<(), CliError> {
        let stop = Stop::listen().map_err(|source| CliError::io("listen for signals", source))?;
        let mut progress = Progress::new(self.ui, stop);
        let targets = wiring::targets(&site)?;
        drop(Session::open_anew(site, targets, wiring::surroundings(), &mut progress)?);
        Ok(())
    }

    fn locked(
        &self,
        site: Site,
        purpose: &str,
        (progress, alerts): (&mut Progress, &Alerts),
        first: impl FnOnce(&Site, &mut Targets, &Reader) -> Result<(), EngineError>,
        work: impl FnOnce(&mut Session<'_>, Option<&Outcome>) -> Result<Outcome, CliError>,
    ) -> Result<Outcome, CliError> {
        let targets = asked_first(&site, first)?;
        let mut session = Session::open(site, targets, wiring::surroundings(), purpose, progress)?;
        let resumed = backout_engine::resume::resume(&mut session)?;
        if let Some(outcome) = &resumed {
            match outcome.status {
                Status::Done | Status::Failed | Status::Partly => {
                    self.tell_resumed(outcome);
                    alerts.also("resume", outcome);
                }
                Status::Usage | Status::NeedsHand | Status::Refused => return Ok(not_begun(outcome)),
            }
        }
        work(&mut session, resumed.as_ref())
    }

    /// What had been interrupted is settled; the command itself comes now.
    fn tell_resumed(&self, outcome: &Outcome) {
        self.ui.object_now("resumed", outcome);
        self.ui.note("what an earlier run had left is settled first");
        end::tell(self.ui, outcome);
        self.ui.stderr(&outcome.closing);
    }
}

/// Opens a site's targets, unless a restore has them.
pub fn targets(site: &Site, reader: &Reader) -> Result<Targets, CliError> {
    restored::none_under_way(reader)?;
    wiring::targets(site)
}

/// Opens a site's targets; where nothing was ever deployed to it, asks `first` whether to go on.
fn asked_first(
    site: &Site,
    first: impl FnOnce(&Site, &mut Targets, &Reader) -> Result<(), EngineError>,
) -> Result<Targets, CliError> {
    let reader = Journal::read(&site.state)?;
    let mut targets = targets(site, &reader)?;
    if fresh::is_fresh(&mut targets, &reader)? {
        first(site, &mut targets, &reader)?;
    }
    Ok(targets)
}

/// What an earlier run left must be seen to first.
fn not_begun(outcome: &Outcome) -> Outcome {
    let mut outcome = outcome.clone();
    outcome.notes.push("an earlier run had left something; this is what became of it".to_owned());
    outcome.hints.push("run the command again when you have seen to that".to_owned());
    outcome
}

/// Writes a file that must not be there yet.
pub fn write_new(file: &Path, content: &[u8]) -> Result<(), CliError> {
    let mut out =
        OpenOptions::new().write(true).create_new(true).open(file).map_err(|source| CliError::write(file, source))?;
    out.write_all(content).map_err(|source| CliError::write(file, source))
}

pub fn working_directory() -> Result<PathBuf, CliError> {
    std::env::current_dir().map_err(|source| CliError::io("find out the working directory", source))
}
