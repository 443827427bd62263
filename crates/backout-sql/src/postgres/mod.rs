//! PostgreSQL: two sessions, one transaction a step; what a step changed is read from MVCC before it commits.
//!
//! Never commits without the marker that asserts the lock's epoch.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use backout_model::conflict::{Conflict, OnConflict};
use backout_model::fault::{self, Point};
use backout_model::target::{
    Described, Finding, Gate, Images, Manner, Others, Probe, Refusal, Report, Snapshot, Summary, Target, TargetError,
    Ticket, Touched,
};
use serde_json::Value;

use self::conn::Route;
use self::event_triggers::EventTriggers;
use self::failed_draws::FailedDraws;
use self::gone::Gone;
use self::place::Place;
use self::session::Session;
use crate::database::{Bounds, Database, Holder, LockError, Planner, Script};
use crate::recorded::{Drafted, Drafting};

mod acts;
mod admit;
mod apply;
mod blockers;
mod by_key;
mod candidates;
mod capture;
mod capture_by_key;
mod capture_error;
#[cfg(test)]
mod capture_random;
pub mod catalog;
pub mod catalog_changes;
mod catalog_read;
mod catalog_routines;
mod check;
pub mod classify;
mod compared;
mod compared_events;
mod compared_held;
mod compared_proof;
mod compared_rows;
mod compared_schema;
mod conn;
mod counters;
pub mod ddl;
mod ddl_along;
mod ddl_alter;
mod ddl_anew;
mod ddl_attach;
mod ddl_attributes;
mod ddl_columns;
mod ddl_event;
mod ddl_hold;
mod ddl_keep;
mod ddl_labels;
mod ddl_make;
mod ddl_names;
mod ddl_observe;
mod ddl_redo;
mod ddl_refill;
mod ddl_rename;
mod ddl_rows;
mod ddl_settings;
mod ddl_shape;
mod ddl_turn;
mod ddl_undo;
mod ddl_values;
mod ddl_varying;
mod deferred;
mod definition;
mod describe;
mod draft;
mod draft_rows;
mod drawn;
mod event_triggers;
mod examine;
mod exchange;
mod failed_draws;
mod fitting;
mod followers;
mod foreign;
mod functions;
mod gone;
mod guard;
mod head;
mod held;
mod hung;
mod joined;
mod lex;
mod load;
mod lock;
mod loose;
mod marker;
mod marks;
mod meets;
mod named;
mod namesakes;
mod needs;
mod notify;
mod open;
mod place;
mod plan;
mod pooler;
pub mod prepared;
mod prove;
mod query;
mod quiet;
mod reader;
mod rebuild;
mod redo;
mod refreshed;
mod rewritten;
mod rights;
mod schema;
mod script;
mod script_ddl;
mod session;
mod setting;
mod snapshot;
mod spelling;
mod split;
#[cfg(test)]
mod split_psql;
mod stream;
mod succession;
mod surroundings;
mod table;
mod terms;
mod tls;
mod token;
mod touched;
mod touched_again;
mod undo;
mod verify;
mod who_wrote;
mod wrapping;

/// How often, and after how long each time, a lost connection is sought again: a server that restarts takes seconds.
const RECONNECTS: u32 = 60;
const RECONNECT_AFTER: Duration = Duration::from_millis(500);

/// How long an idle server may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// Which database, for which site.
#[derive(Clone)]
pub struct Options {
    pub site: String,
    /// Its name in `site.yaml`.
    pub name: String,
    /// How to get there: libpq's parameters by name, the password among them.
    pub parameters: BTreeMap<String, String>,
}

/// A PostgreSQL database of a site.
pub struct Postgres {
    route: Route,
    label: String,
    /// The name of the tool's own schema, `backout_<site>`.
    own: String,
    place: Option<Place>,
    /// Runs what changes something.
    a: Session,
    /// Sees what was before.
    b: Session,
    /// Of the lock that this process took.
    epoch: Option<u64>,
    /// As they were when the step began.
    event_triggers: EventTriggers,
    /// The snapshot of which a comparison is to be made in the coarser grain: the finer one was refused.
    coarse: Option<Value>,
    /// What the undo of a later step was to take away and others had.
    gone: Gone,
    /// What this process's steps drew that failed.
    failed_draws: FailedDraws,
}

impl Postgres {
    /// Connects; an error where the server cannot be reached or is none that the tool knows.
    pub fn open(options: &Options) -> Result<Self, TargetError> {
        let label = format!("database {}", options.name);
        let failed = |source: conn::ConnError| TargetError::failed(format!("cannot open {label}"), source);
        let route = Route::of(&options.parameters).map_err(failed)?;
        let own = place::schema_of(&options.site);
        let (mut one, mut other) = (open::client(&route, &label)?, open::client(&route, &label)?);
        let pooled = pooler::gives_sessions_away(&mut one, &mut other)
            .map_err(|source| TargetError::failed(format!("cannot ask {label} for its sessions"), source))?;
        if pooled {
            return Err(TargetError::failed(format!("cannot use {label}"), pooler::WHY));
        }
        let (mut a, b) = (open::set_up(one, &label)?, open::set_up(other, &label)?);
        examine::known_version(&mut a, &label)?;
        let place = Place::find(&mut a, &own);
        let place = place.map_err(|source| TargetError::failed(format!("cannot read {label}"), source))?;
        Ok(Self {
            route,
            label,
            own,
            place,
            a,
            b,
            epoch: None,
            event_triggers: EventTriggers::default(),
            coarse: None,
            gone: Gone::default(),
            failed_draws: FailedDraws::default(),
        })
    }

    fn failed(&self, act: &str, source: postgres::Error) -> TargetError {
        TargetError::failed(format!("{act} {}", self.label), source)
    }

    /// Both sessions, connected anew where one was lost.
    fn ready(&mut self) -> Result<(), TargetError> {
        // A connection does not know that the other end has gone until it is asked for something.
        let lives = |session: &mut Session| session.client.is_valid(ANSWERS_WITHIN).is_ok();
        if !(lives(&mut self.a) && lives(&mut self.b)) {
            self.reconnect()?;
        }
        if !self.a.is_itself().map_err(|source| self.failed("cannot ask for the session in", source))? {
            return Err(TargetError::failed(format!("cannot go on in {}", self.label), pooler::WHY));
        }
        let muted = EventTriggers::find(&mut self.a.client, self.a.version).and_then(|found| {
            self.a.mute(found.mute)?;
            self.b.mute(found.mute)?;
            Ok(found)
        });
        self.event_triggers = muted.map_err(|source| self.failed("cannot read the event triggers of", source))?;
        Ok(())
    }

    /// Ends what a step began, however it went: no transaction, no setting and no temporary table is left.
    fn after_step(&mut self) {
        let a = self.a.forget();
        let b = self.b.roll_back();
        if a.is_err() || b.is_err() {
            // What came of the step is decided; where the server stays away, the next act says so.
            drop(self.reconnect());
        }
    }

    /// Fresh sessions, once the server lets us in again; with the lock, where we had it.
    fn reconnect(&mut self) -> Result<(), TargetError> {
        let mut tries = 0;
        let (mut a, mut b) = loop {
            match open::session(&self.route, &self.label)
                .and_then(|a| Ok((a, open::session(&self.route, &self.label)?)))
            {
                Ok(both) => break both,
                Err(error) if tries == RECONNECTS => return Err(error),
                Err(_) => {
                    tries += 1;
                    // Nothing tells when a server is back; its refusals cost nothing.
                    std::thread::sleep(RECONNECT_AFTER);
                }
            }
        };
        let mute = self.event_triggers.mute;
        let muted = a.mute(mute).and_then(|()| b.mute(mute));
        muted.map_err(|source| self.failed("cannot set up", source))?;
        (self.a, self.b) = (a, b);
        if self.epoch.is_some() {
            // The server may not know yet that the old session is gone. Until it is, its commit may still come.
            lock::own_session(&mut self.a, &self.own, &self.label)?;
        }
        Ok(())
    }

    /// Commits the open transaction. A connection that is lost meanwhile leaves it open whether that took effect: then
    /// the marker is asked.
    fn commit(&mut self, ticket: Ticket) -> Result<(), TargetError> {
        let act = format!("cannot commit to {}", self.label);
        fault::point(Point::Commit).map_err(|source| TargetError::failed(act.clone(), source))?;
        match self.a.run("COMMIT") {
            Ok(()) => {}
            Err(source) if session::is_lost(&source) => {
                self.reconnect()?;
                if self.marked(ticket)? != Probe::Applied {
                    return Err(TargetError::failed(act, source));
                }
            }
            Err(source) => return Err(TargetError::failed(act, source)),
        }
        fault::point(Point::Committed)
            .map_err(|source| TargetError::failed(format!("a commit to {} was interrupted", self.label), source))
    }

    fn marker(&mut self) -> Result<Option<marker::Marker>, TargetError> {
        let found = lock::look(&mut self.a, &self.own)
            .map_err(|source| TargetError::failed(format!("cannot read the marker of {}", self.label), source))?;
        Ok(found.map(|(_, marker)| marker))
    }

    fn marked(&mut self, ticket: Ticket) -> Result<Probe, TargetError> {
        let found = self.marker()?;
        Ok(if found.is_some_and(|marker| marker.seq >= ticket.seq) { Probe::Applied } else { Probe::NotApplied })
    }

    /// The last acts of a step, whose work is done in the open transaction: announce it, mark it, commit it.
    fn seal(&mut self, summary: &Summary, gate: &mut dyn Gate) -> Result<Ticket, TargetError> {
        let ticket = gate.announce(summary)?;
        fault::point(Point::Statement)
            .map_err(|source| TargetError::failed(format!("cannot mark the step in {}", self.label), source))?;
        marker::stamp(&mut self.a, self.place.as_ref(), &self.label, ticket)?;
        self.commit(ticket)?;
        Ok(ticket)
    }
}

impl Target for Postgres {
    fn label(&self) -> String {
        self.label.clone()
    }

    fn undo(&mut self, images: &mut dyn Images, manner: Manner, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.undo_step(images, manner, gate)
    }

    fn redo(&mut self, images: &mut dyn Images, manner: Manner, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.redo_step(images, manner, gate)
    }

    fn check_undo(
        &mut self,
        steps: &mut dyn Iterator<Item = Box<dyn Images>>,
        on_conflict: OnConflict,
    ) -> Result<Report, TargetError> {
        self.check_undo_steps(steps, on_conflict)
    }

    fn meets(&mut self, images: &mut dyn Images, conflicts: &[Conflict]) -> Result<Vec<bool>, TargetError> {
        self.meets_step(images, conflicts)
    }

    fn touched(
        &mut self,
        images: &mut dyn Images,
        each: &mut dyn FnMut(&Touched<'_>) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        self.touched_by(images, each)
    }

    fn probe(&mut self, ticket: Ticket, _images: &mut dyn Images) -> Result<Probe, TargetError> {
        self.ready()?;
        self.marked(ticket)
    }

    fn describe(&mut self, images: &mut dyn Images, each: &mut dyn FnMut(Described)) -> Result<(), TargetError> {
        self.describe_step(images, each)
    }

    fn verify(&mut self, images: &mut dyn Images, applied: bool) -> Result<Vec<Finding>, TargetError> {
        self.verify_step(images, applied)
    }

    fn forget(&mut self, images: &mut dyn Images) -> Result<(), TargetError> {
        self.forget_step(images)
    }

    fn snapshot_size(&mut self) -> Result<Option<Summary>, TargetError> {
        self.copy_size().map(Some)
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<Value, TargetError> {
        self.copy_all(snapshot.mark.as_deref())
    }

    fn marked_by(&self) -> Option<&'static str> {
        Some("PGAPPNAME")
    }

    fn compare_others(&mut self, snapshot: &Snapshot, shown: &str, gate: &mut dyn Gate) -> Result<Others, TargetError> {
        self.others_of(&snapshot.note, shown, gate)
    }

    fn compare(&mut self, snapshot: &Snapshot, shown: &str, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.compare_with(snapshot, shown, gate)
    }

    fn compares_otherwise(&self) -> bool {
        self.coarse.is_some()
    }

    fn put_back_whole(&mut self, snapshot: &Snapshot) -> Result<(), TargetError> {
        self.put_all_back(snapshot)
    }

    fn give_up(&mut self, snapshot: &Snapshot) -> Result<(), TargetError> {
        self.drop_copies(&snapshot.note)
    }

    fn examine(&mut self) -> Result<Vec<Finding>, TargetError> {
        self.examine_database()
    }
}

impl Database for Postgres {
    fn engine(&self) -> &'static str {
        "postgres"
    }

    fn lock(&mut self, me: &Holder, at_least: u64) -> Result<u64, LockError> {
        self.ready()?;
        let (place, epoch) = lock::take(&mut self.a, &self.own, &self.label, me, at_least)?;
        self.place = Some(place);
        self.epoch = Some(epoch);
        Ok(epoch)
    }

    fn unlock(&mut self) -> Result<(), TargetError> {
        self.epoch.take().map_or(Ok(()), |epoch| lock::give_back(&mut self.a, &self.own, &self.label, epoch))
    }

    fn holder(&mut self) -> Result<Option<Holder>, TargetError> {
        let found = lock::look(&mut self.a, &self.own)
            .map_err(|source| TargetError::failed(format!("cannot read the lock of {}", self.label), source))?;
        Ok(found.and_then(|(_, marker)| marker.holder))
    }

    fn break_lock(&mut self, holder: &Holder) -> Result<bool, TargetError> {
        lock::break_open(&mut self.a, &self.own, &self.label, holder)
    }

    fn last_mark(&mut self) -> Result<Option<Ticket>, TargetError> {
        Ok(self.marker()?.map(|marker| Ticket { seq: marker.seq, epoch: marker.epoch }))
    }

    fn set_mark(&mut self, seq: u64) -> Result<(), TargetError> {
        self.ready()?;
        marker::set_back(&mut self.a, self.place.as_ref(), &self.label, self.epoch, seq)
    }

    fn planner(&mut self) -> Result<Box<dyn Planner + '_>, TargetError> {
        // The first deployment makes room for the tool's own tables, before anything else.
        if self.place.is_none() {
            self.ready()?;
            let nowhere = Place::is_nowhere(&mut self.a, &self.own);
            if nowhere.map_err(|source| self.failed("cannot read what the role may do in", source))? {
                return Err(TargetError::Refused(Refusal {
                    place: self.label.clone(),
                    what: "the database".to_owned(),
                    why: place::NOWHERE.to_owned(),
                    ways_out: vec![place::NOWHERE_HINT.to_owned()],
                }));
            }
        }
        let senders = notify::Beforehand::look(&mut self.a);
        let senders = senders.map_err(|source| self.failed("cannot read the triggers and functions of", source))?;
        Ok(Box::new(plan::ByClass { senders }))
    }

    fn apply(&mut self, script: &Script, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.apply_script(script, gate)
    }

    fn value(&mut self, sql: &str, bounds: &Bounds) -> Result<Option<String>, TargetError> {
        self.one_value(sql, bounds)
    }

    fn never_a_value(&mut self, sql: &str) -> Result<Option<String>, TargetError> {
        self.why_never_a_value(sql)
    }

    fn definition(&mut self, object: &str) -> Result<Option<String>, TargetError> {
        self.definition_now(object)
    }

    fn statements(
        &mut self,
        images: &mut dyn Images,
        each: &mut dyn FnMut(&str, &str) -> io::Result<()>,
    ) -> Result<(), TargetError> {
        self.statements_of_step(images, each)
    }

    fn undo_script(
        &mut self,
        steps: &mut dyn Iterator<Item = Box<dyn Images>>,
        out: &mut dyn Write,
    ) -> Result<Vec<String>, TargetError> {
        self.script_of_undo(steps, out)
    }

    fn draft(&mut self, snapshot: &Snapshot, drafting: &mut Drafting<'_>) -> Result<Drafted, TargetError> {
        self.draft_since(snapshot, drafting)
    }

    fn own_objects(&mut self) -> Result<Vec<String>, TargetError> {
        self.own_names()
    }
}
