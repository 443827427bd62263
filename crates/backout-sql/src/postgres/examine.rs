//! What works on this database, single values for checks, and what of the tool it holds. Reads only.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use backout_model::target::{Finding, TargetError};
use postgres::error::SqlState;

use super::classify::{self, Class};
use super::place::{NOWHERE, NOWHERE_HINT, Place};
use super::session::{Session, literal};
use super::{Postgres, quiet, surroundings};
use crate::database::Bounds;

/// The versions that the suites run on.
const OLDEST: u32 = 13;

/// An error where the server is older than what the tool relies on.
pub fn known_version(a: &mut Session, label: &str) -> Result<(), TargetError> {
    let failed = |source| TargetError::failed(format!("cannot read the version of {label}"), source);
    let version = a.value("SHOW server_version_num").map_err(failed)?.unwrap_or_default();
    match version.parse::<u32>() {
        Ok(number) if number / 10_000 >= OLDEST => Ok(()),
        _ => Err(TargetError::failed(
            format!("cannot use {label}"),
            format!("the server is of version {version}; {OLDEST} is the oldest that can be used"),
        )),
    }
}

/// How often a query is looked at.
const WATCHED_EVERY: Duration = Duration::from_millis(50);

fn many(columns: usize) -> String {
    format!("it gives {columns} columns, and a check needs one value")
}

/// Asks, and has another session break it off when its bounds say so.
fn watched<T>(other: &mut Session, break_off: &str, bounds: &Bounds, ask: impl FnOnce() -> T) -> T {
    let (ended, wait) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = wait.recv_timeout(WATCHED_EVERY) {
                // Where this fails the query goes on, and the next look tries again.
                if bounds.are_over() && other.run(break_off).is_err() {}
            }
        });
        let answer = ask();
        drop(ended);
        answer
    })
}

impl Postgres {
    /// See [`crate::database::Database::value`].
    pub(super) fn one_value(&mut self, sql: &str, bounds: &Bounds) -> Result<Option<String>, TargetError> {
        self.ready()?;
        let found = self.ask(sql, bounds);
        self.after_step();
        found.map_err(|source| TargetError::failed(format!("cannot ask {sql}"), source))
    }

    fn ask(&mut self, sql: &str, bounds: &Bounds) -> Result<Option<String>, Box<dyn std::error::Error + Send + Sync>> {
        self.a.plain()?;
        self.a.run("BEGIN TRANSACTION READ ONLY")?;
        let process = self.a.value("SELECT pg_catalog.pg_backend_pid()")?.unwrap_or_default();
        // As a cursor's query it can be nothing but one SELECT, and no more than two of its rows are fetched.
        let sql = sql.trim().trim_end_matches(';');
        self.a.run(&format!("DECLARE backout_value NO SCROLL CURSOR FOR {sql}\n"))?;
        let break_off = format!("SELECT pg_catalog.pg_cancel_backend({process})");
        let (a, b) = (&mut self.a, &mut self.b);
        let mut rows = match watched(b, &break_off, bounds, || a.rows("FETCH 2 FROM backout_value")) {
            Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) && bounds.is_stopped() => {
                return Err("it was stopped".into());
            }
            Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) && bounds.are_over() => {
                return Err("it took longer than its time and was ended".into());
            }
            found => found?,
        };
        if rows.len() > 1 {
            return Err("it gives more than one row, and a check needs one value".into());
        }
        let Some(mut row) = rows.pop() else { return Ok(None) };
        match row.len() {
            1 => Ok(row.pop().flatten()),
            columns => Err(many(columns).into()),
        }
    }

    /// See [`crate::database::Database::never_a_value`].
    pub(super) fn why_never_a_value(&mut self, sql: &str) -> Result<Option<String>, TargetError> {
        if !matches!(classify::of(sql, false), Ok(Class::Read)) {
            return Ok(Some("it is not a query that only reads".to_owned()));
        }
        self.ready()?;
        let reading = |source| TargetError::failed(format!("cannot ask {sql}"), source);
        self.a.plain().map_err(reading)?;
        // What does not fit the schema may fit the one that the deployment makes.
        let columns = self.a.client.prepare(sql).ok().map(|statement| statement.columns().len());
        self.a.stay_neutral().map_err(reading)?;
        Ok(columns.filter(|columns| *columns != 1).map(many))
    }

    /// See [`crate::database::Database::own_objects`].
    pub(super) fn own_names(&mut self) -> Result<Vec<String>, TargetError> {
        self.ready()?;
        let own = literal(&self.own);
        let found = self.a.rows(&format!(
            "SELECT format('%s.%s', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
             WHERE c.relkind <> 'i' AND c.relkind <> 't' AND (n.nspname = {own} OR starts_with(c.relname::text, {own} || '_'))
             ORDER BY 1"
        ));
        let found = found.map_err(|source| self.failed("cannot read the schema of", source))?;
        Ok(found.into_iter().filter_map(|mut row| row[0].take()).collect())
    }

    fn finding(&self, what: String, grave: bool) -> Finding {
        Finding { target: self.label.clone(), what, grave }
    }

    /// See [`backout_model::target::Target::examine`].
    pub(super) fn examine_database(&mut self) -> Result<Vec<Finding>, TargetError> {
        let mut findings = self.what_works()?;
        if self.place.is_some() || !findings.iter().any(|finding| finding.grave) {
            findings.push(self.what_commands_show()?);
        }
        let around = surroundings::look(&mut self.a);
        let around = around.map_err(|source| self.failed("cannot read what stands around", source))?;
        findings.extend(around.into_iter().map(|(what, grave)| self.finding(what, grave)));
        let keyless = self
            .a
            .rows(
                "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                 WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^backout' AND c.relpersistence <> 't'
                     AND NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisunique) ORDER BY 1",
            )
            .map_err(|source| self.failed("cannot read the schema of", source))?;
        for row in keyless {
            let name = row[0].clone().unwrap_or_default();
            findings.push(self.finding(
                format!("the table {name} has no key: what others change in a row that a step changed is a conflict, and what they \
                         write to it while a captured command runs counts as the command's"),
                false,
            ));
        }
        Ok(findings)
    }

    /// Whether commands can be captured, and what others write meanwhile told apart.
    fn what_commands_show(&mut self) -> Result<Finding, TargetError> {
        let found = self.why_not_copied().map_err(|source| self.failed("cannot read the tables of", source))?;
        let what = match found {
            Some((what, why, way)) => {
                let way = way.map(|way| format!(" ({way})")).unwrap_or_default();
                format!("what a command does cannot be captured: {what}: {why}{way}")
            }
            None => "what others write while a captured command runs is told apart, if its client takes its application name from \
                     PGAPPNAME; each row that they change is logged by a trigger meanwhile"
                .to_owned(),
        };
        Ok(self.finding(what, false))
    }

    /// What the role, the server and its settings allow.
    fn what_works(&mut self) -> Result<Vec<Finding>, TargetError> {
        self.ready()?;
        let mut findings = Vec::new();
        let reading = |source| TargetError::failed("cannot read what the role may do", source);
        if !quiet::may_be_replica(&mut self.a.client, self.a.version).map_err(reading)? {
            findings.push(self.finding(
                "the role may not set session_replication_role: an undo disables triggers by ALTER TABLE, which waits for writers, \
                 and cascades of foreign keys stay on"
                    .to_owned(),
                false,
            ));
        }
        if self.a.value("SHOW track_counts").map_err(reading)?.as_deref() != Some("on") {
            findings.push(self.finding("track_counts is off: nothing can be captured".to_owned(), true));
        }
        // It has one more argument from 17 on.
        let numbers = "SELECT oid::pg_catalog.regprocedure FROM pg_catalog.pg_proc
            WHERE pronamespace = 11 AND proname = 'pg_logical_emit_message' AND proargtypes[2] = 'text'::regtype
                AND NOT has_function_privilege(oid, 'EXECUTE')";
        if let Some(function) = self.a.value(numbers).map_err(reading)? {
            findings.push(self.finding(
                format!(
                    "the role may not call pg_logical_emit_message, by which a change of the schema is told from what others \
                     change meanwhile: GRANT EXECUTE ON FUNCTION pg_catalog.{function} to it"
                ),
                true,
            ));
        }
        if self.a.is_frozen() {
            let what =
                "it is set to read only for this account (default_transaction_read_only): nothing can be deployed";
            findings.push(self.finding(what.to_owned(), true));
        }
        if self.a.value("SELECT pg_is_in_recovery()").map_err(reading)?.as_deref() == Some("t") {
            findings.push(self.finding("the server is a replica, which cannot be written to".to_owned(), true));
        }
        if self.place.is_none() && Place::is_nowhere(&mut self.a, &self.own).map_err(reading)? {
            findings.push(self.finding(format!("{NOWHERE}: {NOWHERE_HINT}"), true));
            return Ok(findings);
        }
        let may = "SELECT has_database_privilege(current_database(), 'CREATE')";
        if self.a.value(may).map_err(reading)?.as_deref() != Some("t") && self.place.is_none() {
            findings.push(self.finding(
                "the role may not create a schema: the tool's own tables go into the first schema in which it may create any"
                    .to_owned(),
                false,
            ));
        }
        Ok(findings)
    }
}
