//! Values of a dropped column whose rows are gone, or have other keys now. Reads only.

use backout_model::conflict::{Conflict, ConflictKind, Conflicts};
use rusqlite::Connection;

use super::ddl::Context;
use super::ddl_column::{key_columns, key_of, shown_value};
use super::ddl_undo::{conflict, needed};
use super::schema;
use super::token::quote;

/// How many such values are told in full.
const TOLD: usize = 20;

/// That values stay away, in words; none where there are none. Rows come and go, which is nobody's conflict; but whoever
/// changed a key has to put the value back by hand.
pub fn told(target: &str, table: &str, orphans: &Conflicts) -> Option<String> {
    orphans.listed.first()?;
    let value = |one: &Conflict| {
        let (key, column) = (one.key.as_deref().unwrap_or_default(), one.column.as_deref().unwrap_or_default());
        format!("{column} of {key} was {}", one.before)
    };
    let shown: Vec<String> = orphans.listed.iter().take(TOLD).map(value).collect();
    let more = if orphans.total > TOLD as u64 { ", …" } else { "" };
    Some(format!(
        "{target}: {table}: {} no row now, unless others gave it another key: {}{more}",
        match orphans.total {
            1 => "1 value has".to_owned(),
            many => format!("{many} values have"),
        },
        shown.join(", "),
    ))
}

/// The values in `hold` that have no row in the table now, where one of the rows there may be theirs under another
/// key. With the row of a later deployment, its undo would bring that back without the value.
pub fn orphans(
    context: &mut Context<'_>,
    (table, column, by_key): (&str, &str, bool),
    hold: &str,
) -> rusqlite::Result<Conflicts> {
    let mut found = Conflicts::default();
    let shape = schema::shape(context.conn, table)?;
    let Some(key) = key_of(&shape, by_key) else { return Ok(found) };
    let names = key_columns(key.len());
    let join: Vec<String> = names.iter().zip(&key).map(|(held, key)| format!("h.{held} = +t.{key}")).collect();
    let (hold, there, join) = (quote(hold), quote(table), join.join(" AND "));
    let shown: Vec<String> = names.iter().map(|name| format!("quote(h.{name})")).collect();
    // A plus takes the affinity away; the list is sorted once, whereas no index of the table would serve.
    let keys: Vec<String> = key.iter().map(|key| format!("+t.{key}")).collect();
    let full: Vec<String> = key.iter().map(|key| format!("t.{key} IS NOT NULL")).collect();
    let sql = format!(
        "SELECT {}, h.v FROM main.{hold} AS h WHERE ({}) NOT IN (SELECT {} FROM main.{there} AS t WHERE {})",
        shown.join(" || ', ' || "),
        names.join(", "),
        keys.join(", "),
        full.join(" AND ")
    );
    let mut select = context.conn.prepare(&sql)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        found.push(Conflict {
            key: Some(format!("{}={}", key.join(","), row.get::<_, String>(0)?)),
            column: Some(column.to_owned()),
            before: shown_value(row.get_ref(1)?),
            ..conflict(context, table, ConflictKind::Missing, "")
        });
    }
    if found.is_empty() {
        return Ok(found);
    }
    context.needed.push(needed(context.target, table, Some(column.to_owned())));
    if has_new_rows(context.conn, &hold, &there, &join)? { Ok(found) } else { Ok(Conflicts::default()) }
}

/// Whether a row is there of which no value is held: it came since, or has another key now, or never had a value.
fn has_new_rows(conn: &Connection, hold: &str, table: &str, join: &str) -> rusqlite::Result<bool> {
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM main.{table} AS t WHERE NOT EXISTS (SELECT 1 FROM main.{hold} AS h WHERE {join}))"
    );
    conn.query_row(&sql, [], |row| row.get(0))
}
