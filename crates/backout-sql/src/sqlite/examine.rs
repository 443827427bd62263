//! What works on this database, single values for checks, and what of the tool it holds. Reads only.

use backout_model::target::{Finding, TargetError};
use rusqlite::types::ValueRef;
use rusqlite::{ErrorCode, Statement};

use super::Sqlite;
use super::capture::{CaptureError, read_table};
use crate::database::Bounds;

/// So many steps of SQLite's machine pass before it is asked whether a query's bounds are over: a moment.
const STEPS_UNWATCHED: i32 = 10_000;

fn never_one_value(statement: &Statement<'_>) -> Option<String> {
    if !statement.readonly() || statement.column_count() == 0 {
        return Some("it is not a query that only reads".to_owned());
    }
    match statement.column_count() {
        1 => None,
        columns => Some(format!("it gives {columns} columns, and a check needs one value")),
    }
}

impl Sqlite {
    /// See [`crate::database::Database::value`].
    pub(super) fn one_value(&mut self, sql: &str, bounds: &Bounds) -> Result<Option<String>, TargetError> {
        let failed = |source: rusqlite::Error| TargetError::failed(format!("cannot ask {sql}"), source);
        self.conn.execute_batch("PRAGMA query_only = ON").map_err(failed)?;
        let watched = bounds.clone();
        let found = self
            .conn
            .progress_handler(STEPS_UNWATCHED, Some(move || watched.are_over()))
            .map_err(failed)
            .and_then(|()| self.only(sql, bounds));
        let unwatched = self.conn.progress_handler(0, None::<fn() -> bool>);
        self.conn.execute_batch("PRAGMA query_only = OFF").and(unwatched).map_err(failed)?;
        found
    }

    fn only(&self, sql: &str, bounds: &Bounds) -> Result<Option<String>, TargetError> {
        let cannot = |why: &str| TargetError::failed(format!("cannot ask {sql}"), why);
        let failed = |source: rusqlite::Error| match source.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) if bounds.is_stopped() => cannot("it was stopped"),
            Some(ErrorCode::OperationInterrupted) => cannot("it took longer than its time and was ended"),
            _ => TargetError::failed(format!("cannot ask {sql}"), source),
        };
        let mut statement = self.conn.prepare(sql).map_err(failed)?;
        if let Some(why) = never_one_value(&statement) {
            return Err(cannot(&why));
        }
        let mut rows = statement.raw_query();
        let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
        let value = match row.get_ref(0).map_err(failed)? {
            ValueRef::Null => None,
            ValueRef::Integer(number) => Some(number.to_string()),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            // As the engine itself writes it.
            ValueRef::Real(number) => {
                Some(self.conn.query_row("SELECT CAST(?1 AS TEXT)", [number], |row| row.get(0)).map_err(failed)?)
            }
        };
        match rows.next().map_err(failed)? {
            None => Ok(value),
            Some(_) => Err(cannot("it gives more than one row, and a check needs one value")),
        }
    }

    /// See [`crate::database::Database::never_a_value`].
    pub(super) fn why_never_a_value(&self, sql: &str) -> Option<String> {
        // What does not fit the schema may fit the one that the deployment makes.
        self.conn.prepare(sql).ok().and_then(|statement| never_one_value(&statement))
    }

    /// See [`crate::database::Database::own_objects`].
    pub(super) fn own_names(&mut self) -> Result<Vec<String>, TargetError> {
        let failed = |source| TargetError::failed(format!("cannot read the schema of {}", self.label), source);
        let mut statement = self
            .conn
            .prepare("SELECT name FROM main.sqlite_schema WHERE substr(lower(name), 1, 7) = 'backout' ORDER BY name")
            .map_err(failed)?;
        statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)
    }

    fn finding(&self, what: String, grave: bool) -> Finding {
        Finding { target: self.label.clone(), what, grave }
    }

    /// See [`backout_model::target::Target::examine`].
    pub(super) fn examine_database(&mut self) -> Result<Vec<Finding>, TargetError> {
        let mut findings = self.what_works()?;
        findings.push(self.finding(
            "what others write while a captured command runs cannot be told from its own writes, and goes with its undo: `maintenance:` \
             in site.yaml keeps them out"
                .to_owned(),
            false,
        ));
        let failed = |source| TargetError::failed(format!("cannot read the schema of {}", self.label), source);
        let mut statement = self
            .conn
            .prepare("SELECT name, rootpage = 0, sql FROM main.sqlite_schema WHERE type = 'table' ORDER BY name")
            .map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let ValueRef::Text(bytes) = row.get_ref(0).map_err(failed)? else { continue };
            let Ok(name) = std::str::from_utf8(bytes) else {
                let name = String::from_utf8_lossy(bytes);
                findings.push(self.finding(
                    format!("the table {name} has a name that is not UTF-8: changes of it cannot be captured"),
                    false,
                ));
                continue;
            };
            let is_virtual: bool = row.get(1).map_err(failed)?;
            if is_virtual {
                let sql: Option<String> = row.get(2).map_err(failed)?;
                if !sql.is_some_and(|sql| sql.to_ascii_lowercase().contains("using fts5")) {
                    findings.push(self.finding(format!("the virtual table {name} is none that can be undone"), false));
                }
            } else if let Err(CaptureError::Table(why)) = read_table(&self.conn, name) {
                findings.push(self.finding(why, false));
            }
        }
        Ok(findings)
    }

    fn what_works(&mut self) -> Result<Vec<Finding>, TargetError> {
        let mut findings = Vec::new();
        match self.conn.is_readonly("main") {
            Ok(false) => {}
            Ok(true) => findings.push(self.finding("the file cannot be written to".to_owned(), true)),
            Err(source) => {
                return Err(TargetError::failed(format!("cannot examine {}", self.label), source));
            }
        }
        Ok(findings)
    }
}
