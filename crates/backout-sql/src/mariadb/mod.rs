//! MariaDB: a step is a chain of segments, each of which commits by itself; a failed chain is compensated.
//!
//! Never changes anything without the lock's epoch being asserted in the same transaction, or, where a statement commits
//! by itself, right before it in a session that holds the lock's name until the statement has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::time::Duration;

use backout_model::conflict::OnConflict;
use backout_model::fault::{self, Point};
use backout_model::target::{
    Described, Finding, Gate, Images, Manner, Others, Probe, Refusal, Report, Snapshot, Summary, Target, TargetError,
    Ticket,
};

use serde_json::Value;

use self::conn::Route;
use self::marker::Names;
use self::session::Session;
use crate::database::{Bounds, Database, Holder, LockError, Planner, Script};
use crate::recorded::{Drafted, Drafting};

mod ahead;
mod apply;
mod asking;
mod capture;
mod classify;
mod compared;
mod compared_events;
mod compared_links;
mod compared_proof;
mod compared_rows;
mod compared_schema;
mod conn;
mod counters;
mod ddl;
mod ddl_again;
mod ddl_alter;
mod ddl_fit;
mod ddl_hung;
mod ddl_kept;
mod ddl_links;
mod ddl_prepare;
mod ddl_replay;
mod ddl_shape;
mod ddl_text;
mod definition;
mod describe;
mod draft;
mod draft_rows;
mod emptied;
mod examine;
mod for_one;
mod guard;
mod head;
mod hidden;
mod listening;
mod load;
mod lock;
mod loose;
mod marker;
mod modes;
mod moment;
mod plan;
mod put;
mod quiet;
mod reader;
mod redo;
mod replay;
mod rights;
mod run;
mod script;
mod script_ddl;
mod seen;
mod segment;
mod sequence;
mod session;
mod setting;
mod single;
mod snapshot;
mod split;
mod stream;
mod succession;
mod survey;
mod sweep;
mod table;
mod taken;
mod token;
mod trial;
mod undo;
mod verify;
mod who_wrote;
mod written;

/// How often, and after how long each time, a lost connection is sought again: a server that restarts takes seconds.
const RECONNECTS: u32 = 60;
const RECONNECT_AFTER: Duration = Duration::from_millis(500);

/// Which database, for which site.
#[derive(Clone)]
pub struct Options {
    pub site: String,
    /// Its name in `site.yaml`.
    pub name: String,
    /// How to get there: options by name, the password among them.
    pub parameters: BTreeMap<String, String>,
}

/// A MariaDB database of a site.
pub struct Mariadb {
    route: Route,
    label: String,
    names: Names,
    /// The database's own name.
    database: String,
    /// As in `10.11.6`: 101106.
    version: u32,
    /// Runs what changes something; a new one for each step, so that no setting or variable of a script outlives it.
    /// None where no act is under way.
    a: Option<Session>,
    /// Looks, and makes and drops what is the tool's own.
    b: Session,
    /// Of the lock that this process took.
    epoch: Option<u64>,
    /// What statements of the script under way can act through.
    bodies: run::Bodies,
    /// What [`succession::replacing`] says of the whole deployment whose undo was looked at last.
    replacing: BTreeSet<String>,
}

impl Mariadb {
    /// Connects; an error where the server cannot be reached or is none that the tool knows.
    pub fn open(options: &Options) -> Result<Self, TargetError> {
        let label = format!("database {}", options.name);
        let failed = |source: conn::ConnError| TargetError::failed(format!("cannot open {label}"), source);
        let route = Route::of(&options.parameters).map_err(failed)?;
        let mut b = own(&route, &label)?;
        let version = examine::known_version(&mut b, &label)?;
        let database = b
            .value("SELECT DATABASE()")
            .map_err(|source| TargetError::failed(format!("cannot read {label}"), source))?
            .unwrap_or_default();
        let names = Names::of(&options.site);
        Ok(Self {
            route,
            label,
            names,
            database,
            version,
            a: None,
            b,
            epoch: None,
            bodies: run::Bodies::default(),
            replacing: BTreeSet::new(),
        })
    }

    fn failed(&self, act: &str, source: mysql::Error) -> TargetError {
        TargetError::failed(format!("{act} {}", self.label), source)
    }

    fn damaged(&self, source: stream::StreamError) -> TargetError {
        TargetError::Images { target: self.label.clone(), what: source.to_string() }
    }

    /// A fresh session for an act, with the lock's name where we have the lock; both connected anew where the server was
    /// away.
    fn ready(&mut self) -> Result<(), TargetError> {
        self.a = None;
        if self.b.run("DO 0").is_err() {
            self.reconnect()?;
        }
        let mut a = fresh(&self.route, &self.label)?;
        if self.epoch.is_some() {
            // The server may not know yet that the old session is gone. Until it is, its statement may go on.
            lock::own_session(&mut a, &self.names, &self.database, &self.label)?;
        }
        self.a = Some(a);
        Ok(())
    }

    /// Seeks the server again until it lets us in.
    fn reconnect(&mut self) -> Result<(), TargetError> {
        let mut tries = 0;
        loop {
            match own(&self.route, &self.label) {
                Ok(b) => {
                    self.b = b;
                    return Ok(());
                }
                Err(error) if tries == RECONNECTS => return Err(error),
                Err(_) => {
                    tries += 1;
                    // Nothing tells when a server is back; its refusals cost nothing.
                    std::thread::sleep(RECONNECT_AFTER);
                }
            }
        }
    }

    /// The session of the act under way.
    fn a(&mut self) -> Result<&mut Session, TargetError> {
        let lost = || TargetError::failed(format!("cannot go on in {}", self.label), "the session was lost");
        self.a.as_mut().ok_or_else(lost)
    }

    /// Ends what an act began, however it went: its session goes, with every transaction, lock and setting.
    fn after_step(&mut self) {
        self.a = None;
    }

    /// Begins a transaction of the tool's own in the act's session.
    fn begin(&mut self) -> Result<(), TargetError> {
        let begun = self.a()?.run("START TRANSACTION");
        begun.map_err(|source| self.failed("cannot begin a transaction in", source))
    }

    /// Commits. A connection that is lost meanwhile leaves it open whether that took effect: then `took_effect` asks.
    fn commit(&mut self, took_effect: &dyn Fn(&mut Session) -> Result<bool, mysql::Error>) -> Result<(), TargetError> {
        let act = format!("cannot commit to {}", self.label);
        fault::point(Point::Commit).map_err(|source| TargetError::failed(act.clone(), source))?;
        match self.a()?.run("COMMIT") {
            Ok(()) => {}
            Err(source) if session::is_lost(&source) => {
                self.reconnect()?;
                self.ready()?;
                if !took_effect(&mut self.b).map_err(|source| TargetError::failed(act.clone(), source))? {
                    return Err(TargetError::failed(act, source));
                }
            }
            Err(source) => return Err(TargetError::failed(act, source)),
        }
        fault::point(Point::Committed)
            .map_err(|source| TargetError::failed(format!("a commit to {} was interrupted", self.label), source))
    }

    /// The last act of a step or of its undo: the marker says that it took effect.
    fn seal(&mut self, ticket: Ticket) -> Result<(), TargetError> {
        self.begin()?;
        self.stamp(ticket)?;
        let names = self.names.clone();
        self.commit(&|b| Ok(marker::read(b, &names, false)?.is_some_and(|found| found.seq >= ticket.seq)))
    }

    /// Moves the marker in the open transaction.
    fn stamp(&mut self, ticket: Ticket) -> Result<(), TargetError> {
        fault::point(Point::Statement)
            .map_err(|source| TargetError::failed(format!("cannot mark the step in {}", self.label), source))?;
        let (names, label) = (self.names.clone(), self.label.clone());
        marker::stamp(self.a()?, &names, &label, ticket)
    }

    /// Announces an act once, right before the first of its parts takes effect.
    fn announced(
        &mut self,
        ticket: &mut Option<Ticket>,
        summary: &Summary,
        gate: &mut dyn Gate,
    ) -> Result<Ticket, TargetError> {
        if let Some(ticket) = ticket {
            return Ok(*ticket);
        }
        let given = gate.announce(summary)?;
        *ticket = Some(given);
        Ok(given)
    }

    fn marker(&mut self) -> Result<Option<marker::Marker>, TargetError> {
        marker::read(&mut self.b, &self.names, false)
            .map_err(|source| TargetError::failed(format!("cannot read the marker of {}", self.label), source))
    }

    /// What became of an act on a step.
    fn probed(&mut self, ticket: Ticket, images: &mut dyn Images) -> Result<Probe, TargetError> {
        if self.marker()?.is_some_and(|marker| marker.seq >= ticket.seq) {
            return Ok(Probe::Applied);
        }
        let step = stream::Reader::open(images).map_err(|source| self.damaged(source))?.index.step;
        let segments = segment::read(&mut self.b, &self.names, &self.label, step)?;
        let own = segment::ticket(&mut self.b, &self.names, step)
            .map_err(|source| self.failed("cannot read the segments in", source))?;
        let is_undo = |one: &segment::Segment| !matches!(one.state, segment::State::Intended | segment::State::Done);
        let partly = match own {
            None => false,
            Some(own) if own == ticket.seq => true,
            Some(_) => segments.iter().any(is_undo),
        };
        Ok(if partly { Probe::Partly } else { Probe::NotApplied })
    }
}

/// A session as a script's, under the plain settings of the server.
fn fresh(route: &Route, label: &str) -> Result<Session, TargetError> {
    let conn = route.connect().map_err(|source| TargetError::failed(format!("cannot connect to {label}"), source))?;
    Session::new(conn).map_err(|source| TargetError::failed(format!("cannot set up {label}"), source))
}

/// A session for the tool's own work.
fn own(route: &Route, label: &str) -> Result<Session, TargetError> {
    let mut session = fresh(route, label)?;
    let set = session.stay_neutral().and_then(|()| session.run("SET lock_wait_timeout = 1"));
    let set = set.and_then(|()| quiet::be_quiet(&mut session));
    set.map_err(|source| TargetError::failed(format!("cannot set up {label}"), source))?;
    Ok(session)
}

impl Target for Mariadb {
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

    fn probe(&mut self, ticket: Ticket, images: &mut dyn Images) -> Result<Probe, TargetError> {
        // With the lock's name in hand no statement of before is under way any more.
        self.ready()?;
        let found = self.probed(ticket, images);
        self.after_step();
        found
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
        self.copy_all(snapshot.mark.is_some())
    }

    fn compare_others(&mut self, snapshot: &Snapshot, shown: &str, gate: &mut dyn Gate) -> Result<Others, TargetError> {
        self.others_of(&snapshot.note, shown, gate)
    }

    fn compare(&mut self, snapshot: &Snapshot, shown: &str, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.compare_with(&snapshot.note, shown, gate)
    }

    fn put_back_whole(&mut self, snapshot: &Snapshot) -> Result<(), TargetError> {
        self.put_all_back(&snapshot.note)
    }

    fn give_up(&mut self, snapshot: &Snapshot) -> Result<(), TargetError> {
        self.drop_copies(&snapshot.note)
    }

    fn examine(&mut self) -> Result<Vec<Finding>, TargetError> {
        self.examine_database()
    }
}

impl Database for Mariadb {
    fn engine(&self) -> &'static str {
        "mariadb"
    }

    fn lock(&mut self, me: &Holder, at_least: u64) -> Result<u64, LockError> {
        self.ready()?;
        let epoch = lock::take(&mut self.b, &self.names, &self.label, me, at_least)?;
        self.epoch = Some(epoch);
        let swept = self.ready().and_then(|()| self.sweep());
        self.after_step();
        if let Err(error) = swept {
            self.unlock()?;
            return Err(error.into());
        }
        Ok(epoch)
    }

    fn unlock(&mut self) -> Result<(), TargetError> {
        self.after_step();
        match self.epoch.take() {
            Some(epoch) => lock::give_back(&mut self.b, &self.names, &self.label, epoch),
            None => Ok(()),
        }
    }

    fn holder(&mut self) -> Result<Option<Holder>, TargetError> {
        Ok(self.marker()?.and_then(|marker| marker.holder))
    }

    fn break_lock(&mut self, holder: &Holder) -> Result<bool, TargetError> {
        lock::break_open(&mut self.b, &self.names, &self.label, holder)
    }

    fn last_mark(&mut self) -> Result<Option<Ticket>, TargetError> {
        Ok(self.marker()?.map(|marker| Ticket { seq: marker.seq, epoch: marker.epoch }))
    }

    fn set_mark(&mut self, seq: u64) -> Result<(), TargetError> {
        marker::set_back(&mut self.b, &self.names, &self.label, self.epoch, seq)
    }

    fn planner(&mut self) -> Result<Box<dyn Planner + '_>, TargetError> {
        let refused = match (self.is_galera()?, self.compares_folded()?) {
            (true, _) => Some((examine::GALERA, "deploy to a server of its own, or with wsrep_on = OFF")),
            (_, true) => Some((examine::FOLDED, "deploy to a server with lower_case_table_names = 0 or 1")),
            _ => None,
        };
        if let Some((why, way_out)) = refused {
            return Err(TargetError::Refused(Refusal {
                place: self.label.clone(),
                what: "the database".to_owned(),
                why: why.to_owned(),
                ways_out: vec![way_out.to_owned()],
            }));
        }
        Ok(Box::new(plan::OnDatabase { database: self, unwatched: None, known: BTreeMap::new() }))
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
        self.draft_since(&snapshot.note, drafting)
    }

    fn own_objects(&mut self) -> Result<Vec<String>, TargetError> {
        self.own_names()
    }
}
