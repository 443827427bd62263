//! A database as a copy of another, on the same server: definitions by the server's own text, rows column by column,
//! since a dump's literals lose digits of a FLOAT.

use anyhow::{Context, Result, bail};
use mysql::Conn;
use mysql::prelude::Queryable as _;

use super::objects::{self, GRANTS, Kind, Object};
use super::{column, literal, quoted, rows};

/// Makes a database anew as a copy of another, with what the tool keeps in it.
pub fn copy(conn: &mut Conn, from: &str, to: &str) -> Result<()> {
    make_empty(conn, to)?;
    conn.query_drop(format!("USE {}", quoted(from)))?;
    let objects = objects::with_own(conn, from)?;
    conn.query_drop(format!("USE {}", quoted(to)))?;
    conn.query_drop("SET NAMES utf8mb4, foreign_key_checks = 0, check_constraint_checks = 0, unique_checks = 0, time_zone = '+00:00'")?;
    for kind in [Kind::Sequence, Kind::Table, Kind::Function, Kind::Procedure] {
        for object in objects.iter().filter(|object| object.kind == kind) {
            match kind {
                Kind::Table => make_table(conn, from, object)?,
                _ => make(conn, object)?,
            }
        }
    }
    conn.query_drop("SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'")?;
    for object in &objects {
        match object.kind {
            Kind::Table => copy_rows(conn, from, to, &object.name)?,
            Kind::Sequence => position(conn, from, &object.name)?,
            _ => {}
        }
    }
    // A view may stand on one that comes later.
    let mut views: Vec<&Object> = objects.iter().filter(|object| object.kind == Kind::View).collect();
    while !views.is_empty() {
        let (count, mut last) = (views.len(), None);
        views.retain(|view| match make(conn, view) {
            Ok(()) => false,
            Err(error) => {
                last = Some(error);
                true
            }
        });
        if views.iter().all(|view| view.name.starts_with("backout")) {
            // One that was dropped may stand on what is gone.
            break;
        }
        if views.len() == count {
            bail!("copying views: {:?}", last);
        }
    }
    for object in objects.iter().filter(|object| matches!(object.kind, Kind::Trigger | Kind::Event)) {
        make(conn, object)?;
    }
    for (table, of) in GRANTS {
        let names = columns_of(conn, table)?;
        let given: Vec<String> = names.iter().map(|name| if name == of { literal(to) } else { quoted(name) }).collect();
        let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        conn.query_drop(format!(
            "INSERT INTO mysql.{table} ({}) SELECT {} FROM mysql.{table} WHERE {of} = {}",
            names.join(", "),
            given.join(", "),
            literal(from)
        ))?;
    }
    conn.query_drop("FLUSH PRIVILEGES").context("reading grants anew")
}

/// Makes a database anew, without anything in it.
pub fn make_empty(conn: &mut Conn, name: &str) -> Result<()> {
    conn.query_drop(format!("DROP DATABASE IF EXISTS {}", quoted(name))).context("dropping a copy")?;
    for (table, of) in GRANTS {
        conn.query_drop(format!("DELETE FROM mysql.{table} WHERE {of} = {}", literal(name)))?;
    }
    conn.query_drop(format!("CREATE DATABASE {} CHARACTER SET utf8mb4", quoted(name))).context("making a database")
}

fn columns_of(conn: &mut Conn, table: &str) -> Result<Vec<String>> {
    column(
        conn,
        &format!(
            "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'mysql' AND TABLE_NAME = {} ORDER BY ORDINAL_POSITION",
            literal(table)
        ),
    )
}

fn make(conn: &mut Conn, object: &Object) -> Result<()> {
    for (name, value) in &object.settings {
        conn.query_drop(format!("SET {name} = {}", literal(value)))?;
    }
    let made = conn.query_drop(&object.text).with_context(|| format!("copying {}", object.name));
    conn.query_drop("SET NAMES utf8mb4, time_zone = '+00:00', sql_mode = 'NO_AUTO_VALUE_ON_ZERO'")?;
    made
}

/// By LIKE, which keeps what the text does not say: that an index was made by the server itself, for a foreign key. That
/// index it makes anew with the key, under the name of the index where the key has none of its own.
fn make_table(conn: &mut Conn, from: &str, table: &Object) -> Result<()> {
    let name = quoted(&table.name);
    conn.query_drop(format!("CREATE TABLE {name} LIKE {}.{name}", quoted(from)))?;
    let links = table.text.lines().map(|line| line.trim().trim_end_matches(','));
    let mut clauses: Vec<String> = links
        .filter(|line| line.starts_with("CONSTRAINT ") && line.contains(" FOREIGN KEY ("))
        .map(|line| format!("ADD {}", unnamed(line, &table.name)))
        .collect();
    let counter = table.text.rsplit_once(" AUTO_INCREMENT=").and_then(|(_, rest)| rest.split(' ').next());
    clauses.extend(counter.map(|counter| format!("AUTO_INCREMENT = {counter}")));
    if clauses.is_empty() {
        return Ok(());
    }
    conn.query_drop(format!("ALTER TABLE {name} {}", clauses.join(", "))).with_context(|| format!("copying {name}"))
}

/// A foreign key without the name that the server gave it.
fn unnamed<'l>(line: &'l str, table: &str) -> &'l str {
    match line.strip_prefix(&format!("CONSTRAINT `{table}_ibfk_")) {
        Some(rest) => rest.split_once("` ").map_or(line, |(_, key)| key),
        None => line,
    }
}

fn copy_rows(conn: &mut Conn, from: &str, to: &str, table: &str) -> Result<()> {
    let names: Vec<String> = objects::columns(conn, to, table)?.iter().map(|(name, _)| quoted(name)).collect();
    let (names, table) = (names.join(", "), quoted(table));
    let sql = format!("INSERT INTO {table} ({names}) SELECT {names} FROM {}.{table}", quoted(from));
    conn.query_drop(sql).with_context(|| format!("copying the rows of {table}"))
}

/// The server draws numbers ahead and keeps in memory which of them it gave out: it is made to forget that, so that both
/// go on at the same number.
fn position(conn: &mut Conn, from: &str, name: &str) -> Result<()> {
    conn.query_drop(format!("FLUSH TABLES {}.{}", quoted(from), quoted(name)))?;
    let found =
        rows(conn, &format!("SELECT next_not_cached_value, cycle_count FROM {}.{}", quoted(from), quoted(name)))?;
    let Some(row) = found.into_iter().next() else { return Ok(()) };
    let at = |at: usize| row[at].clone().unwrap_or_default();
    conn.query_drop(format!("SELECT SETVAL({}, {}, 0, {})", quoted(name), at(0), at(1)))?;
    Ok(())
}
