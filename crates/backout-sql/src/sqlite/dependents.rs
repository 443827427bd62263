//! What others hung on the objects that a step changes. Every view, trigger, index and foreign key of theirs that can be
//! used before an undo or redo can be used after it, or is a conflict.
//!
//! SQLite itself is asked, by preparing statements that are never run. Only objects that speak of the step's and were
//! not there when it ended are looked at: what was there then fares as it did before the step, or after it.

use std::collections::HashSet;

use backout_model::conflict::{Conflict, ConflictKind};
use backout_model::target::TargetError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::classify;
use super::ddl::execute;
use super::ddl_hold::in_main;
use super::schema::{self, SchemaRow};
use super::stream::Event;
use super::token::{each_token, quote};
use super::twin;
use super::value;
use crate::shown::shorten;

const NAME_OF_A_PROBE: &str = "backout_probe";

/// Digests of the objects that are there at the end of a step and speak of what its changes of the schema were about.
pub fn known(conn: &Connection, events: &[Event]) -> rusqlite::Result<Vec<u64>> {
    let names = names(events);
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let all = schema::all(conn)?;
    let mut known: Vec<u64> = speaking(&all, names).into_iter().map(digest).collect();
    known.sort_unstable();
    Ok(known)
}

/// What tells an object from all others, its text included.
pub fn digest(row: &SchemaRow) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in [&row.kind, &row.name, &row.table, row.sql.as_ref().unwrap_or(&String::new())] {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    value::short(&hasher.finalize())
}

/// The names, in lower case, of the objects that the changes of the schema were about.
pub fn names(events: &[Event]) -> HashSet<String> {
    let mut names = HashSet::new();
    for event in events {
        if let Event::Ddl { event, .. } = event {
            for row in event.rows().filter(|row| row.sql.is_some()) {
                // A foreign key needs the unique index of its parent, whatever that is called; what writes to a table
                // fires its triggers.
                let table = (row.kind == "index" || row.kind == "trigger").then_some(&row.table);
                let named = std::iter::once(&row.name).chain(table).filter(|name| !name.starts_with("sqlite_"));
                names.extend(named.map(|name| name.to_ascii_lowercase()));
            }
        }
    }
    names
}

/// The objects that hang on one of the names, on a view that does, or on a table whose triggers do. Rather too many than
/// not enough.
pub(super) fn speaking(all: &[SchemaRow], mut names: HashSet<String>) -> Vec<&SchemaRow> {
    let mut found: Vec<&SchemaRow> = Vec::new();
    let mut rest: Vec<&SchemaRow> = all.iter().filter(|row| may_hang(row)).collect();
    // What writes to one of these fires a trigger that was found.
    let mut fired: HashSet<String> = HashSet::new();
    while !names.is_empty() || !fired.is_empty() {
        let before = found.len();
        rest.retain(|row| {
            let speaks = speaks_of(row, &names) || row.kind == "trigger" && writes_to(row, &fired);
            if speaks {
                found.push(row);
            }
            !speaks
        });
        let of = |kind: &str, name: fn(&SchemaRow) -> &String| {
            let rows = found[before..].iter().filter(|row| row.kind == kind);
            rows.map(|row| name(row).to_ascii_lowercase()).collect()
        };
        (names, fired) = (of("view", |row| &row.name), of("trigger", |row| &row.table));
    }
    found
}

pub(super) fn may_hang(row: &SchemaRow) -> bool {
    let Some(sql) = &row.sql else { return false };
    let is_ours = classify::is_ours(&row.name) || classify::is_ours(&row.table);
    !is_ours && (row.kind != "table" || classify::mentions(sql, "references"))
}

/// Whether an object speaks of one of some names, which are in lower case.
pub fn speaks_of(row: &SchemaRow, names: &HashSet<String>) -> bool {
    if row.kind == "index" {
        return names.contains(&row.table.to_ascii_lowercase());
    }
    spelled(row.sql.as_deref().unwrap_or_default()).any(|name| names.contains(&name))
}

/// Whether a trigger speaks of one of some tables, be it its own, in what it does.
fn writes_to(trigger: &SchemaRow, tables: &HashSet<String>) -> bool {
    let own = usize::from(tables.contains(&trigger.table.to_ascii_lowercase()));
    spelled(trigger.sql.as_deref().unwrap_or_default()).filter(|name| tables.contains(name)).count() > own
}

/// All words of a statement that may be names, in lower case.
pub fn spelled(sql: &str) -> impl Iterator<Item = String> {
    each_token(sql).filter_map(|token| token.name()).map(|name| name.to_ascii_lowercase())
}

/// How far an object can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// 2: as it is written; 1: where a quoted name that is nowhere counts as a string; 0: not at all.
    pub level: u8,
    /// Its parents that are not there.
    pub missing: Vec<String>,
    /// Why it can't be used.
    pub why: String,
}

impl Health {
    fn is_worse_than(&self, other: &Health) -> bool {
        self.level < other.level || self.missing.iter().any(|parent| !other.missing.contains(parent))
    }
}

/// One object of others'.
struct Dependent {
    row: SchemaRow,
    before: Health,
    /// Since which event it can't be used as before, and why.
    broken: Option<(usize, String)>,
}

impl Dependent {
    fn is_broken_index(&self) -> bool {
        self.broken.is_some() && self.row.kind == "index"
    }

    /// As a conflict, where it is broken.
    fn told(&self, label: &str) -> Option<Broken> {
        self.broken.as_ref().map(|(event, why)| (*event, would_not_work(label, &self.row, why)))
    }
}

/// All objects that others hung on those of a step.
#[derive(Default)]
pub struct Dependents {
    all: Vec<Dependent>,
}

/// What would break, and which event does it.
pub type Broken = (usize, Conflict);

impl Dependents {
    /// Looks at them before anything is changed. `known`: what [`known`] gave when the step ended; `leaves`: which events
    /// are to stay as they are.
    pub fn look(
        conn: &Connection,
        label: &str,
        events: &[Event],
        known: &[u64],
        leaves: impl Fn(usize) -> bool,
    ) -> Result<Self, TargetError> {
        let look = || -> rusqlite::Result<Vec<Dependent>> {
            let names = names(events);
            if names.is_empty() {
                return Ok(Vec::new());
            }
            let rows = schema::all(conn)?;
            let is_of = |row: &SchemaRow, wanted: bool| {
                events.iter().enumerate().any(|(number, event)| match event {
                    Event::Ddl { event, .. } => leaves(number) == wanted && event.rows().any(|own| own.is_same(row)),
                    Event::Rows { .. } => false,
                })
            };
            // What stays of the step itself must work like theirs.
            let is_own =
                |row: &SchemaRow| !is_of(row, true) && (known.binary_search(&digest(row)).is_ok() || is_of(row, false));
            let theirs: Vec<&SchemaRow> = speaking(&rows, names).into_iter().filter(|row| !is_own(row)).collect();
            if theirs.is_empty() {
                return Ok(Vec::new());
            }
            with_triggers(conn, || {
                theirs
                    .into_iter()
                    .map(|row| Ok(Dependent { row: row.clone(), before: health(conn, row)?, broken: None }))
                    .collect()
            })
        };
        look().map(|all| Self { all }).map_err(|source| failed(label, source))
    }

    /// After the event of that number was undone or done again: notes what that broke, or healed.
    pub fn look_again(&mut self, conn: &Connection, label: &str, event: usize) -> Result<(), TargetError> {
        if self.all.is_empty() {
            return Ok(());
        }
        let all = &mut self.all;
        with_triggers(conn, || {
            for dependent in all {
                let why = match schema::object(conn, &dependent.row.kind, &dependent.row.name)? {
                    None => Some("it would go, too".to_owned()),
                    Some(now) => {
                        let now = health(conn, &now)?;
                        now.is_worse_than(&dependent.before).then_some(now.why)
                    }
                };
                dependent.broken = match (why, dependent.broken.take()) {
                    (None, _) => None,
                    (Some(why), Some((since, _))) => Some((since, why)),
                    (Some(why), None) => Some((event, why)),
                };
            }
            Ok(())
        })
        .map_err(|source| failed(label, source))
    }

    /// What is broken now.
    pub fn broken(&self, label: &str) -> Vec<Broken> {
        self.all.iter().filter_map(|one| one.told(label)).collect()
    }

    /// The indexes that are broken now and still there, so that rows are written to them.
    pub fn broken_indexes(&self, conn: &Connection, label: &str) -> Result<Vec<Broken>, TargetError> {
        let mut found = Vec::new();
        for one in self.all.iter().filter(|one| one.is_broken_index()) {
            let there = schema::object(conn, "index", &one.row.name).map_err(|source| failed(label, source))?;
            found.extend(there.and_then(|_| one.told(label)));
        }
        Ok(found)
    }

    /// Drops what is broken, but for tables: those hold rows of others.
    pub fn drop_broken(&mut self, conn: &Connection, label: &str) -> Result<(), TargetError> {
        self.drop_where(conn, label, |one| one.broken.is_some())
    }

    /// Drops the indexes that are broken.
    pub fn drop_broken_indexes(&mut self, conn: &Connection, label: &str) -> Result<(), TargetError> {
        self.drop_where(conn, label, Dependent::is_broken_index)
    }

    fn drop_where(
        &mut self,
        conn: &Connection,
        label: &str,
        goes: impl Fn(&Dependent) -> bool,
    ) -> Result<(), TargetError> {
        for row in self.all.iter().filter(|one| goes(one)).map(|one| &one.row).filter(|row| row.kind != "table") {
            let drop = || -> rusqlite::Result<()> {
                // What has come back in its place may be of another kind.
                if schema::object(conn, &row.kind, &row.name)?.is_none() {
                    return Ok(());
                }
                execute(conn, &format!("DROP {} main.{}", row.kind.to_uppercase(), quote(&row.name)))
            };
            drop().map_err(|source| TargetError::failed(format!("cannot drop {} of {label}", row.shown()), source))?;
        }
        self.all.retain(|one| !goes(one));
        Ok(())
    }
}

pub(super) fn would_not_work(label: &str, row: &SchemaRow, why: &str) -> Conflict {
    let text = row.sql.as_deref().map(shorten).unwrap_or_default();
    Conflict {
        target: label.to_owned(),
        object: row.shown(),
        key: None,
        column: None,
        kind: ConflictKind::Definition,
        before: String::new(),
        left: String::new(),
        now: format!("{text}; it would not work: {why}"),
    }
}

pub(super) fn failed(label: &str, source: rusqlite::Error) -> TargetError {
    TargetError::failed(format!("cannot look at what hangs on the schema of {label}"), source)
}

/// Has triggers compiled as they will be once the undo or redo, during which they are off, has ended.
pub(super) fn with_triggers<T>(conn: &Connection, work: impl FnOnce() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let triggers = DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
    let were_on = conn.db_config(triggers)?;
    conn.set_db_config(triggers, true)?;
    let done = work();
    conn.set_db_config(triggers, were_on)?;
    done
}

pub(super) fn health(conn: &Connection, row: &SchemaRow) -> rusqlite::Result<Health> {
    let mut missing = Vec::new();
    let probe = match row.kind.as_str() {
        "view" => Some(format!("SELECT * FROM main.{}", quote(&row.name))),
        "index" => row
            .sql
            .as_deref()
            .and_then(|sql| twin::twin_index(sql, NAME_OF_A_PROBE, &row.table))
            .map(|sql| in_main(&sql)),
        "trigger" => firing(conn, row)?,
        _ => {
            missing = missing_parents(conn, &row.name)?;
            Some(format!("PRAGMA main.foreign_key_check({})", quote(&row.name)))
        }
    };
    let Some(probe) = probe else { return Ok(Health { level: 2, missing, why: String::new() }) };
    let mut why = missing.first().map(|parent| format!("no such table: {parent}")).unwrap_or_default();
    let mut level = 0;
    for (strings, reached) in [(false, 2), (true, 1)] {
        match prepared(conn, &probe, strings)? {
            None => {
                level = reached;
                break;
            }
            Some(error) if why.is_empty() => why = error,
            Some(_) => {}
        }
    }
    Ok(Health { level, missing, why })
}

/// Prepares a statement and forgets it; what SQLite objects to. `strings`: whether `"x"` may be a string.
fn prepared(conn: &Connection, sql: &str, strings: bool) -> rusqlite::Result<Option<String>> {
    let switches = [DbConfig::SQLITE_DBCONFIG_DQS_DML, DbConfig::SQLITE_DBCONFIG_DQS_DDL];
    let were_on = [conn.db_config(switches[0])?, conn.db_config(switches[1])?];
    for switch in switches {
        conn.set_db_config(switch, strings)?;
    }
    let done = conn.prepare(sql).map(drop);
    for (switch, were_on) in switches.into_iter().zip(were_on) {
        conn.set_db_config(switch, were_on)?;
    }
    match done {
        Ok(()) => Ok(None),
        Err(rusqlite::Error::SqlInputError { msg, .. }) => Ok(Some(msg)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

/// A statement that fires a trigger; none where its text is not understood.
fn firing(conn: &Connection, row: &SchemaRow) -> rusqlite::Result<Option<String>> {
    let sql = row.sql.as_deref().unwrap_or_default();
    let table = quote(&row.table);
    let mut words =
        each_token(sql).skip_while(|token| !["INSERT", "UPDATE", "DELETE"].iter().any(|word| token.is(word)));
    let Some(event) = words.next() else { return Ok(None) };
    Ok(match event.text.to_ascii_uppercase().as_str() {
        "INSERT" => Some(format!("INSERT INTO main.{table} DEFAULT VALUES")),
        "DELETE" => Some(format!("DELETE FROM main.{table}")),
        _ => {
            let mut columns: Vec<String> = Vec::new();
            if words.next().is_some_and(|token| token.is("OF")) {
                columns.extend(words.take_while(|token| !token.is("ON")).filter_map(|token| token.name()));
            } else {
                columns.extend(schema::shape(conn, &row.table)?.stored().next().map(|column| column.name.clone()));
            }
            let set: Vec<String> = columns.iter().map(|column| format!("{} = NULL", quote(column))).collect();
            // Without a column the table or view is not there, or can't be read: then this can't be, either.
            Some(format!("UPDATE main.{table} SET {}", set.join(", ")))
        }
    })
}

fn missing_parents(conn: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    conn.prepare_cached(
        "SELECT DISTINCT f.\"table\" FROM pragma_foreign_key_list(?1, 'main') AS f
         WHERE NOT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = f.\"table\" COLLATE NOCASE)",
    )?
    .query_map([table], |row| row.get(0))?
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_of_a_view_speaks_of_what_that_does() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(
            r#"CREATE TABLE t(a); CREATE TABLE u(b); CREATE VIEW w AS SELECT * FROM v; CREATE VIEW v AS SELECT * FROM t;
             CREATE TRIGGER r AFTER INSERT ON u BEGIN INSERT INTO u SELECT * FROM w; END; CREATE INDEX i ON u(b); CREATE INDEX j ON "T"(a);
             CREATE TABLE k(x REFERENCES t); CREATE TABLE l(x REFERENCES u);
             CREATE TRIGGER s AFTER INSERT ON l BEGIN DELETE FROM u; END"#,
        )
        .unwrap();
        let all = schema::all(&conn).unwrap();
        let mut found: Vec<&str> =
            speaking(&all, HashSet::from(["t".to_owned()])).into_iter().map(|row| row.name.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, ["j", "k", "r", "s", "v", "w"]);
    }
}
