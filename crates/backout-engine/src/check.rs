//! Checks: conditions on a site, tried again until their time is over.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use backout_files::root::FileCondition;
use backout_model::id::FramePath;
use backout_net::http::{self, HttpCondition};
use backout_package::check::{Check, CheckKind, HttpCheck};
use backout_sql::database::Bounds;
use backout_sql::shown::shorten;
use sha2::{Digest as _, Sha256};

use crate::act::pick;
use crate::command::{Invocation, run, told};
use crate::error::{EngineError, causes};
use crate::observer::Happening;
use crate::session::Session;

/// How long to wait between two tries of a check that may still come to hold.
const BETWEEN_TRIES: Duration = Duration::from_millis(250);

/// Said of a check that might still have come to hold.
const STOPPED: &str = "stopped by the operator before it held";

impl Session<'_> {
    /// Runs the checks in order; the first that does not hold is the error, in words: what was expected, what came.
    pub(crate) fn check_all(
        &mut self,
        frame: &FramePath,
        checks: &[Check],
        directory: &Path,
    ) -> Result<Option<String>, EngineError> {
        for check in checks {
            if self.leaves_check(frame, check) {
                continue;
            }
            if let Some(detail) = self.check(check, directory)? {
                let shown = if frame.is_root() { String::new() } else { format!(" of {frame}") };
                return Ok(Some(format!("check \"{}\"{shown}: {detail}", check.name)));
            }
        }
        Ok(None)
    }

    /// `None` where the check holds, else what was expected and what came.
    fn check(&mut self, check: &Check, directory: &Path) -> Result<Option<String>, EngineError> {
        let detail = self.check_within(check, directory)?;
        self.observer.heard(Happening::CheckRan {
            name: check.name.clone(),
            held: detail.is_none(),
            detail: detail.clone(),
        });
        Ok(detail)
    }

    fn check_within(&mut self, check: &Check, directory: &Path) -> Result<Option<String>, EngineError> {
        let Some(within) = check.within else { return self.check_once(&check.kind, directory, None) };
        let began = Instant::now();
        let mut time = within;
        let mut before = None;
        loop {
            let found = self.check_once(&check.kind, directory, Some(time))?;
            if found.is_none() {
                return Ok(None);
            }
            // What it found last says less than why nobody waited for more.
            if self.observer.interrupted() {
                return Ok(Some(STOPPED.to_owned()));
            }
            let left = within.saturating_sub(began.elapsed());
            if left.is_zero() {
                // A try that had no time to come to its end says less than the one before.
                return Ok(before.or(found));
            }
            std::thread::sleep(BETWEEN_TRIES.min(left));
            time = within.saturating_sub(began.elapsed());
            if time.is_zero() {
                return Ok(found);
            }
            before = found;
        }
    }

    /// `time`: how long a query may take at most, or a command, whatever timeout that has.
    fn check_once(
        &mut self,
        kind: &CheckKind,
        directory: &Path,
        time: Option<Duration>,
    ) -> Result<Option<String>, EngineError> {
        match kind {
            CheckKind::Http(check) => Ok(self.answered(http_condition(&self.asked_here(check), time))),
            CheckKind::Sql { query, database, equals } => {
                let name = pick("database", "databases", database.as_deref(), &self.database_names(), "check")?;
                let until = time.and_then(|time| Instant::now().checked_add(time));
                let bounds = Bounds { until, stop: self.observer.stop() };
                let found = self.targets.database(&name)?.value(query, &bounds);
                Ok(match found {
                    Ok(Some(value)) if value == *equals => None,
                    Ok(Some(value)) => Some(format!("expected {equals}, got {value}")),
                    Ok(None) => Some(format!("expected {equals}, got no value")),
                    Err(_) if bounds.is_stopped() => Some(STOPPED.to_owned()),
                    Err(error) => Some(causes(&error).join(": ")),
                })
            }
            CheckKind::Definition { object, database, exists, sha256 } => {
                let name = pick("database", "databases", database.as_deref(), &self.database_names(), "check")?;
                Ok(match self.targets.database(&name)?.definition(object) {
                    Ok(found) => is_defined(object, found.as_deref(), *exists, sha256.as_deref()),
                    Err(error) => Some(causes(&error).join(": ")),
                })
            }
            CheckKind::File { path, root, exists, sha256, contains } => {
                let name = pick("root", "roots", root.as_deref(), &self.root_names(), "check")?;
                let condition = FileCondition { exists: *exists, sha256: sha256.clone(), contains: contains.clone() };
                Ok(match self.targets.root(&name)?.check(path, &condition) {
                    Ok(found) => found,
                    Err(error) => Some(causes(&error).join(": ")),
                })
            }
            CheckKind::Run { argv, timeout } => {
                let argv = self.filled(argv)?;
                let environment = self.environment();
                let running = self.running();
                let timeout = timeout.iter().copied().chain(time).min();
                let invocation =
                    Invocation { argv: &argv, directory, environment: &environment, timeout, running: &running };
                Ok(match run(&invocation) {
                    Ok(ended) if ended.ok() => None,
                    Ok(ended) => {
                        let said = told(&self.redacted(&ended.output));
                        let said = if said.is_empty() { "nothing printed".to_owned() } else { said };
                        Some(format!("expected exit status 0, got {}: {said}", ended.words()))
                    }
                    Err(error) => Some(causes(&error).join(": ")),
                })
            }
        }
    }

    /// Asks on a thread of its own, which is left alone where the operator does not want to wait.
    fn answered(&self, condition: HttpCondition) -> Option<String> {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || tell.send(http::check(&condition)).ok());
        loop {
            if self.observer.interrupted() {
                return Some(STOPPED.to_owned());
            }
            match told.recv_timeout(BETWEEN_TRIES) {
                Ok(found) => return found,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Some("expected an answer, got none".to_owned()),
            }
        }
    }
}

/// The SHA-256 of an object's definition, in hex.
pub(crate) fn digest(definition: &str) -> String {
    Sha256::digest(definition).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// In words, what does not hold of an object with the definition `found`; none where it is not there.
fn is_defined(object: &str, found: Option<&str>, exists: Option<bool>, sha256: Option<&str>) -> Option<String> {
    match (found, sha256) {
        (Some(found), _) if exists == Some(false) => {
            Some(format!("expected no {object}: the name is taken by {}", shorten(found)))
        }
        (Some(found), Some(wanted)) if digest(found) != wanted => Some(format!(
            "{object} is another one: expected a definition with the SHA-256 {wanted}, got {} of {}",
            digest(found),
            shorten(found)
        )),
        (None, _) if exists == Some(true) || sha256.is_some() => {
            Some(format!("expected {object}, and it is not there"))
        }
        _ => None,
    }
}

fn http_condition(check: &HttpCheck, time: Option<Duration>) -> HttpCondition {
    let HttpCheck { url, status, contains, matches, header, json, redirects, verified, timeout } = check.clone();
    let timeout = time.map_or(timeout, |time| time.min(timeout));
    HttpCondition { url, status, contains, matches, header, json, redirects, verified, timeout }
}
