//! What an object is, as a text by which two databases are compared. Reads only.

use backout_model::target::TargetError;
use rusqlite::Connection;

use super::Sqlite;
use super::classify::is_ours;
use super::schema::{self, SchemaRow};

const KINDS: [&str; 4] = ["table", "index", "view", "trigger"];

impl Sqlite {
    /// See [`crate::database::Database::definition`].
    pub(super) fn definition_now(&mut self, object: &str) -> Result<Option<String>, TargetError> {
        let act = || format!("cannot ask for {object} in {}", self.label);
        let kind = object.split(' ').next().unwrap_or_default();
        if !KINDS.contains(&kind) {
            return Err(TargetError::failed(act(), format!("SQLite has no {kind}, but: {}", KINDS.join(", "))));
        }
        definition(&self.conn, object).map_err(|source| TargetError::failed(act(), source))
    }
}

/// The text of an object, given as `table product`, and behind it those of the indexes and triggers of a table or view.
pub(super) fn definition(conn: &Connection, object: &str) -> rusqlite::Result<Option<String>> {
    let (kind, name) = object.split_once(' ').unwrap_or((object, ""));
    let Some(row) = schema::named_like(conn, kind, name)? else { return Ok(None) };
    let mut all = vec![row];
    if matches!(all[0].kind.as_str(), "table" | "view") {
        let mut hanging = schema::of_table(conn, &all[0].name)?;
        hanging.retain(|one| matches!(one.kind.as_str(), "index" | "trigger") && !is_ours(&one.name));
        hanging.sort_by(|one, other| (&one.kind, &one.name).cmp(&(&other.kind, &other.name)));
        all.extend(hanging);
    }
    let texts: Vec<String> = all.into_iter().filter_map(|row: SchemaRow| row.sql).collect();
    Ok(Some(texts.join(";\n")))
}
