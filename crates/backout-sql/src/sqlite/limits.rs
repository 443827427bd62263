//! What of a database a script must leave alone, and why: the tool's own tables, and those whose rows the hook cannot
//! tell. Known from the schema alone, so that plan and run say the same; never looks at a row.

use backout_model::target::{Refusal, TargetError};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::capture::{CaptureError, read_table};
use super::classify::{is_ours, mentions};
use super::schema;

/// SQLITE_MAX_COLUMN as SQLite is built with unless told otherwise: of a table and of a query's result
/// (<https://sqlite.org/limits.html>).
const MOST_COLUMNS: i64 = 2000;

/// What the schema of a database forbids, as it is now.
#[derive(Default)]
pub struct Limits {
    /// Virtual tables that are not FTS5, with their modules.
    foreign: Vec<(String, String)>,
    /// Root pages of tables whose rows cannot be told apart, each with the words for it.
    alike: Vec<(i64, String)>,
    /// Root pages of the tool's own tables, with their names.
    ours: Vec<(i64, String)>,
    /// A trigger speaks of the tool's own.
    reaches_ours: bool,
}

impl Limits {
    pub fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let mut limits = Self::default();
        let mut doubtful = Vec::new();
        let mut statement = conn.prepare_cached(
            "SELECT type = 'table', name, rootpage, sql FROM main.sqlite_schema WHERE type IN ('table', 'trigger')",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text = |at| -> rusqlite::Result<String> {
                Ok(match row.get_ref(at)? {
                    ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    _ => String::new(),
                })
            };
            let (name, sql) = (text(1)?, text(3)?);
            if !row.get::<_, bool>(0)? {
                limits.reaches_ours |= mentions(&sql, "backout");
                continue;
            }
            let root: i64 = row.get(2)?;
            if root == 0 {
                let module = schema::module_of(&sql).unwrap_or_default();
                if !module.eq_ignore_ascii_case("fts5") {
                    limits.foreign.push((name, module));
                }
            } else if is_ours(&name) {
                limits.ours.push((root, name));
            } else if ["rowid", "_rowid_", "oid"].iter().all(|alias| mentions(&sql, alias)) {
                doubtful.push((root, name));
            }
        }
        for (root, name) in doubtful {
            limits.alike.extend(alike(conn, &name)?.map(|why| (root, why)));
        }
        Ok(limits)
    }

    /// Why a statement must not run: because of what it writes, or of what a trigger or a foreign key writes for it.
    /// `captured`: whether the hook must be able to tell the rows.
    pub fn objection(&self, conn: &Connection, sql: &str, captured: bool) -> rusqlite::Result<Option<String>> {
        let reaches_ours = self.reaches_ours || mentions(sql, "backout");
        let tells = captured && !(self.foreign.is_empty() && self.alike.is_empty());
        if !reaches_ours && !tells {
            return Ok(None);
        }
        let written = schema::written(conn, sql)?;
        if let Some((_, name)) = self.ours.iter().find(|(root, _)| written.roots.contains(root)) {
            return Ok(Some(format!("{name} is the tool's own")));
        }
        if !tells {
            return Ok(None);
        }
        if let Some((_, why)) = self.alike.iter().find(|(root, _)| written.roots.contains(root)) {
            return Ok(Some(why.clone()));
        }
        // Which of them it writes SQLite does not say; a database with such tables is rare enough to be strict.
        let named = self.foreign.iter().find(|(table, _)| mentions(sql, table));
        let foreign = named.or_else(|| self.foreign.first()).filter(|_| written.virtual_table);
        Ok(foreign.map(|(table, module)| format!("rows of {table}, a virtual table of {module}, are not captured")))
    }
}

/// Why the rows of a table cannot be told apart; none where they can.
pub fn alike(conn: &Connection, table: &str) -> rusqlite::Result<Option<String>> {
    match read_table(conn, table) {
        Ok(_) => Ok(None),
        Err(CaptureError::Table(why)) => Ok(Some(why)),
        Err(CaptureError::Definition { source, .. } | CaptureError::Value { source, .. }) => Err(source),
        Err(CaptureError::Write(source)) => Err(rusqlite::Error::ToSqlConversionFailure(source.into())),
    }
}

/// Why a column of a table cannot be put back once it is dropped: the query that does so needs one column more than the
/// table has. None where it can.
pub fn too_wide(conn: &Connection, table: &str) -> rusqlite::Result<Option<String>> {
    let columns: i64 = conn
        .prepare_cached("SELECT count(*) FROM pragma_table_xinfo(?1, 'main')")?
        .query_row([table], |row| row.get(0))?;
    Ok((columns >= MOST_COLUMNS)
        .then(|| format!("SQLite can't read back a table of {columns} columns with one put in")))
}

/// An error where a table's name is no text: the hook is told a table by its name, and never of one whose name it
/// cannot read.
pub fn readable(conn: &Connection, label: &str, shown: &str) -> Result<(), TargetError> {
    let failed = |source| TargetError::failed(format!("cannot read the schema of {label}"), source);
    let mut statement = conn.prepare("SELECT name FROM main.sqlite_schema WHERE type = 'table'").map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let ValueRef::Text(bytes) = row.get_ref(0).map_err(failed)? else { continue };
        if std::str::from_utf8(bytes).is_err() {
            let name = String::from_utf8_lossy(bytes);
            return Err(TargetError::Refused(Refusal {
                place: shown.to_owned(),
                what: "the script".to_owned(),
                why: format!(
                    "the table {name} of {label} has a name that is not UTF-8, so that its changes cannot be captured"
                ),
                ways_out: vec!["rename the table".to_owned()],
            }));
        }
    }
    Ok(())
}
