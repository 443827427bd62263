//! The objects of a database, each by the server's own text of it; what the tool keeps for itself is left out.

use anyhow::Result;
use mysql::Conn;

use super::{column, literal, quoted, rows};

/// What an object is, in the order in which a copy makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Sequence,
    Table,
    Function,
    Procedure,
    View,
    Trigger,
    Event,
}

/// An object as the server tells it.
pub struct Object {
    pub kind: Kind,
    pub name: String,
    pub text: String,
    /// The settings under which it runs; empty for what has none.
    pub settings: Vec<(&'static str, String)>,
    /// Where it stands among its like: of a trigger its table, its time and its place.
    pub place: String,
}

/// All objects of a database that are the users', in the order of their kinds; triggers in the order in which they fire.
pub fn all(conn: &mut Conn, database: &str) -> Result<Vec<Object>> {
    let mut objects = with_own(conn, database)?;
    objects.retain(|object| !object.name.starts_with("backout"));
    Ok(objects)
}

/// The same with what the tool keeps for itself.
pub fn with_own(conn: &mut Conn, database: &str) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    let of = literal(database);
    for row in rows(
        conn,
        &format!(
            "SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES
             WHERE TABLE_SCHEMA = {of} ORDER BY 1"
        ),
    )? {
        let name = row[0].clone().unwrap_or_default();
        let kind = match row[1].as_deref() {
            Some("VIEW") => Kind::View,
            Some("SEQUENCE") => Kind::Sequence,
            _ => Kind::Table,
        };
        objects.push(object(conn, database, kind, name, String::new())?);
    }
    let triggers = rows(
        conn,
        &format!(
            "SELECT TRIGGER_NAME, CONCAT_WS(' ', EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, LPAD(ACTION_ORDER, 3, '0'))
             FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {of} ORDER BY 2"
        ),
    )?;
    for row in triggers {
        let (name, place) = (row[0].clone().unwrap_or_default(), row[1].clone().unwrap_or_default());
        objects.push(object(conn, database, Kind::Trigger, name, place)?);
    }
    for (kind, sql) in [
        (
            Kind::Function,
            "SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_TYPE = 'FUNCTION' AND ROUTINE_SCHEMA",
        ),
        (
            Kind::Procedure,
            "SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_TYPE = 'PROCEDURE' AND ROUTINE_SCHEMA",
        ),
        (Kind::Event, "SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA"),
    ] {
        for name in column(conn, &format!("{sql} = {of} ORDER BY 1"))? {
            objects.push(object(conn, database, kind, name, String::new())?);
        }
    }
    objects.sort_by_key(|object| object.kind);
    Ok(objects)
}

fn object(conn: &mut Conn, database: &str, kind: Kind, name: String, place: String) -> Result<Object> {
    // Where the text stands in the answer, and from where on the settings.
    let (word, text, settings): (_, _, &[(&str, usize)]) = match kind {
        Kind::Sequence => ("SEQUENCE", 1, &[]),
        Kind::Table => ("TABLE", 1, &[]),
        Kind::View => ("VIEW", 1, &[("character_set_client", 2), ("collation_connection", 3)]),
        Kind::Function => ("FUNCTION", 2, &ROUTINE),
        Kind::Procedure => ("PROCEDURE", 2, &ROUTINE),
        Kind::Trigger => ("TRIGGER", 2, &ROUTINE),
        Kind::Event => {
            ("EVENT", 3, &[("sql_mode", 1), ("time_zone", 2), ("character_set_client", 4), ("collation_connection", 5)])
        }
    };
    let sql = format!("SHOW CREATE {word} {}.{}", quoted(database), quoted(&name));
    let row = rows(conn, &sql)?.into_iter().next().unwrap_or_default();
    let at = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let settings = settings.iter().map(|(name, place)| (*name, at(*place))).collect();
    Ok(Object { kind, text: at(text), settings, name, place })
}

const ROUTINE: [(&str, usize); 3] = [("sql_mode", 1), ("character_set_client", 3), ("collation_connection", 4)];

/// The columns of a table that have values of their own, with the words for their kinds.
pub fn columns(conn: &mut Conn, database: &str, table: &str) -> Result<Vec<(String, String)>> {
    let found = rows(
        conn,
        &format!(
            "SELECT COLUMN_NAME, LOWER(DATA_TYPE) FROM information_schema.COLUMNS
             WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} AND IS_GENERATED = 'NEVER' ORDER BY ORDINAL_POSITION",
            literal(database),
            literal(table)
        ),
    )?;
    Ok(found.into_iter().map(|row| (row[0].clone().unwrap_or_default(), row[1].clone().unwrap_or_default())).collect())
}

/// Tables of the server's own that say who may do what with single objects, each with its column for the database.
pub const GRANTS: [(&str, &str); 3] = [("tables_priv", "Db"), ("columns_priv", "Db"), ("procs_priv", "Db")];
