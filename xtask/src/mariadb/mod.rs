//! What the chores need of MariaDB: the plain client, a dump of everything, copies of databases, and rows to fill tables
//! with. It shares no code with the engine that it judges.

pub mod copy;
pub mod dump;
pub mod fill;
pub mod objects;
pub mod subject;

use anyhow::{Context, Result};
use mysql::prelude::Queryable as _;
use mysql::{Conn, Row};

/// A name as SQL quotes it.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A string as SQL writes it.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// The rows of an answer, as text.
pub fn rows(conn: &mut Conn, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
    let found: Vec<Row> = conn.query(sql).with_context(|| sql.chars().take(200).collect::<String>())?;
    let texts = |row: Row| (0..row.len()).map(|at| row.get::<Option<String>, _>(at).flatten()).collect();
    Ok(found.into_iter().map(texts).collect())
}

/// The first column of an answer.
pub fn column(conn: &mut Conn, sql: &str) -> Result<Vec<String>> {
    Ok(rows(conn, sql)?.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}
