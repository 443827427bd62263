//! What works on this database, and single values for checks. Reads only.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use backout_model::target::{Finding, TargetError};
use mysql::prelude::Queryable as _;

use super::classify::{self, Class};
use super::conn::Route;
use super::quiet;
use super::rights;
use super::sequence;
use super::session::Session;
use super::setting;
use super::token::bare;
use super::{Mariadb, fresh};
use crate::database::Bounds;

/// The version from which changes of the schema are atomic by themselves.
const OLDEST: u32 = 100_600;

/// An error where the server is none that the tool relies on; its version, as in `10.11.6`: 101106.
pub fn known_version(b: &mut Session, label: &str) -> Result<u32, TargetError> {
    let said = b
        .value("SELECT VERSION()")
        .map_err(|source| TargetError::failed(format!("cannot read the version of {label}"), source))?
        .unwrap_or_default();
    let refused = |why: String| Err(TargetError::failed(format!("cannot use {label}"), why));
    if !said.to_ascii_lowercase().contains("mariadb") {
        return refused(format!(
            "the server is MySQL {said}, which this version was not tested on; MariaDB 10.6 and later can be used"
        ));
    }
    match number(&said) {
        Some(version) if version >= OLDEST => Ok(version),
        _ => refused(format!("the server is of version {said}; MariaDB 10.6 is the oldest that can be used")),
    }
}

fn number(said: &str) -> Option<u32> {
    let digits = said.split('-').next()?;
    let mut parts = digits.split('.').map(|part| part.parse::<u32>().ok());
    Some(parts.next()?? * 10_000 + parts.next()?? * 100 + parts.next().flatten().unwrap_or(0))
}

/// How often a query is looked at.
const WATCHED_EVERY: Duration = Duration::from_millis(50);

fn many(columns: usize) -> String {
    format!("it gives {columns} columns, and a check needs one value")
}

/// Asks, and has another session break it off when its bounds say so.
fn watched<T>(route: &Route, id: u32, bounds: &Bounds, ask: impl FnOnce() -> T) -> T {
    let (ended, wait) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = wait.recv_timeout(WATCHED_EVERY) {
                // Where this fails the query goes on, and the next look tries again.
                if bounds.are_over()
                    && let Ok(mut other) = route.connect()
                    && other.query_drop(format!("KILL QUERY {id}")).is_err()
                {}
            }
        });
        let answer = ask();
        drop(ended);
        answer
    })
}

/// A global setting; empty where the server does not know it.
fn setting(b: &mut Session, name: &str) -> Result<String, mysql::Error> {
    let row = b.rows(&format!("SHOW GLOBAL VARIABLES LIKE '{name}'"))?.pop();
    Ok(row.and_then(|mut row| row.pop().flatten()).unwrap_or_default())
}

pub const GALERA: &str =
    "the server is a node of a Galera cluster, whose locks hold on one node alone: that is not handled yet";

pub const FOLDED: &str = "the server keeps names of tables as they were written and takes them for the same in small letters (lower_case_table_names = 2): that is not handled";

impl Mariadb {
    pub(super) fn compares_folded(&mut self) -> Result<bool, TargetError> {
        let found = setting(&mut self.b, "lower_case_table_names");
        Ok(found.map_err(|source| self.failed("cannot read the settings of", source))? == "2")
    }

    pub(super) fn is_galera(&mut self) -> Result<bool, TargetError> {
        let found = setting(&mut self.b, "wsrep_on");
        Ok(found.map_err(|source| self.failed("cannot read the settings of", source))? == "ON")
    }

    /// See [`crate::database::Database::value`].
    pub(super) fn one_value(&mut self, sql: &str, bounds: &Bounds) -> Result<Option<String>, TargetError> {
        let failed =
            |source: Box<dyn std::error::Error + Send + Sync>| TargetError::failed(format!("cannot ask {sql}"), source);
        if !self.only_reads(sql) {
            return Err(failed("it is not a query that only reads".into()));
        }
        let mut asking = fresh(&self.route, &self.label)?;
        self.ask(&mut asking, sql, bounds).map_err(failed)
    }

    fn only_reads(&self, sql: &str) -> bool {
        let sql = sql.trim().trim_end_matches(';');
        let sql = bare(sql, self.version);
        matches!(classify::of(&sql), Ok(Class::Read)) && !sequence::draws(&sql)
    }

    fn ask(
        &self,
        asking: &mut Session,
        sql: &str,
        bounds: &Bounds,
    ) -> Result<Option<String>, Box<dyn std::error::Error + Send + Sync>> {
        asking.run("START TRANSACTION READ ONLY")?;
        let id = asking.conn.connection_id();
        let sql = sql.trim().trim_end_matches(';');
        let found = watched(&self.route, id, bounds, || first_rows(asking, sql));
        let (columns, mut rows) = match found {
            Err(_) if bounds.is_stopped() => return Err("it was stopped".into()),
            Err(_) if bounds.are_over() => return Err("it took longer than its time and was ended".into()),
            found => found?,
        };
        if columns != 1 {
            return Err(many(columns).into());
        }
        if rows.len() > 1 {
            return Err("it gives more than one row, and a check needs one value".into());
        }
        Ok(rows.pop().flatten())
    }

    /// See [`crate::database::Database::never_a_value`].
    pub(super) fn why_never_a_value(&mut self, sql: &str) -> Result<Option<String>, TargetError> {
        if !self.only_reads(sql) {
            return Ok(Some("it is not a query that only reads".to_owned()));
        }
        let mut asking = fresh(&self.route, &self.label)?;
        // What does not fit the schema may fit the one that the deployment makes.
        let columns =
            asking.conn.prep(sql.trim().trim_end_matches(';')).ok().map(|statement| statement.columns().len());
        Ok(columns.filter(|columns| *columns != 1).map(many))
    }

    fn finding(&self, what: impl Into<String>, grave: bool) -> Finding {
        Finding { target: self.label.clone(), what: what.into(), grave }
    }

    /// See [`backout_model::target::Target::examine`].
    pub(super) fn examine_database(&mut self) -> Result<Vec<Finding>, TargetError> {
        let mut plain = fresh(&self.route, &self.label)?;
        let label = self.label.clone();
        let failed = |source| TargetError::failed(format!("cannot read what stands around {label}"), source);
        let otherwise = setting::reads_otherwise(&mut plain).map_err(failed)?;
        let mut findings = self.what_works().map_err(failed)?;
        let first = |why| self.finding(format!("{why}: a script must set sql_mode first"), false);
        findings.extend(otherwise.map(first));
        Ok(findings)
    }

    fn what_works(&mut self) -> Result<Vec<Finding>, mysql::Error> {
        let mut findings = Vec::new();
        if setting(&mut self.b, "wsrep_on")? == "ON" {
            findings.push(self.finding(GALERA, true));
        }
        let cipher = self.b.rows("SHOW SESSION STATUS LIKE 'Ssl_cipher'")?.pop();
        let cipher = cipher.and_then(|mut row| row.pop().flatten()).unwrap_or_default();
        findings.extend(self.route.unguarded(&cipher).map(|what| self.finding(what, false)));
        if setting(&mut self.b, "read_only")? == "ON" {
            findings.push(self.finding("the server is read-only", true));
        }
        if setting(&mut self.b, "log_bin")? == "ON" {
            findings.push(self.finding("the binary log is on: what the tool holds reaches replicas, too", false));
        }
        let nothing = self.names.object("nothing");
        if let Some(why) = rights::why_no_triggers(&mut self.b, &nothing)? {
            let costs = "statements that change rows are refused, and nothing that others write while a captured command runs is told apart";
            findings.push(self.finding(format!("{why}: {costs}"), true));
        } else {
            let told = self.what_is_told_apart()?;
            findings.push(self.finding(told, false));
        }
        for (what, grave) in rights::lacking(&mut self.b, &nothing)? {
            findings.push(self.finding(what, grave));
        }
        let may_for_others = quiet::may_for_others(&mut self.b)?;
        for what in rights::notes(&mut self.b, may_for_others)? {
            findings.push(self.finding(what, false));
        }
        let others = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE'
             AND TABLE_NAME NOT LIKE 'backout\\_%' AND ENGINE <> 'InnoDB' ORDER BY 1";
        for row in self.b.rows(others)? {
            let name = row[0].clone().unwrap_or_default();
            let why = format!("the table {name} is not of InnoDB: statements that change its rows are refused");
            findings.push(self.finding(why, false));
        }
        let with_triggers =
            "SELECT DISTINCT EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()
             AND TRIGGER_NAME NOT LIKE 'backout\\_%' ORDER BY 1";
        for row in self.b.rows(with_triggers)? {
            if let Some(why) = quiet::why_not(&mut self.b, row[0].as_deref().unwrap_or_default())? {
                findings.push(self.finding(format!("{why}: statements that change its rows are refused"), false));
            }
        }
        Ok(findings)
    }
}

/// How many columns an answer has, and at most two of its rows.
fn first_rows(asking: &mut Session, sql: &str) -> Result<(usize, Vec<Option<String>>), mysql::Error> {
    let mut result = asking.conn.query_iter(sql)?;
    let columns = result.columns().as_ref().len();
    let mut rows = Vec::new();
    for row in result.by_ref().take(2) {
        let row = row?;
        rows.push(
            row.get_opt::<Option<Vec<u8>>, _>(0)
                .and_then(Result::ok)
                .flatten()
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        );
    }
    Ok((columns, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_server_writes_them() {
        assert_eq!(number("10.11.19-MariaDB-0+deb12u1"), Some(101_119));
        assert_eq!(number("11.4.2-MariaDB"), Some(110_402));
        assert_eq!(number("8.0.36"), Some(80_036));
        assert_eq!(number("nonsense"), None);
    }
}
