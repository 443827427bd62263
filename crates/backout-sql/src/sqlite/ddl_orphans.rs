//! Values of a dropped column whose rows are gone, or have other keys now. Reads only.

use backout_model::conflict::{Conflict, ConflictKind, Conflicts};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::ddl::Context;
use super::ddl_column::{key_columns, key_of, shown_value};
use super::ddl_undo::{conflict, needed};
use super::schema;
use super::token::quote;

/// What is there instead of the row of such a value.
const NO_ROW: &str = "no row with that key; others have rows with keys that were not there";

/// A value without a row, which whoever changed the row's key has to put back by hand.
pub fn without_row(value: String, at: Conflict) -> Conflict {
    Conflict { left: format!("a row whose value was {value}"), before: value, now: NO_ROW.to_owned(), ..at }
}

/// The values in `hold` that have no row in the table now, where one of the rows there may be theirs under another
/// key: conflicts. That rows come and go is none. With the row of a later deployment, its undo would bring that back without the value.
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
    let named: Vec<&str> = key.iter().map(|name| name.trim_matches('"')).collect();
    let named = named.join(",");
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
    let mut is_any = false;
    while let Some(row) = rows.next()? {
        is_any = true;
        let value = row.get_ref(1)?;
        if value != ValueRef::Null {
            let at = Conflict {
                key: Some(format!("{named}={}", row.get::<_, String>(0)?)),
                column: Some(column.to_owned()),
                ..conflict(context, table, ConflictKind::Missing, "")
            };
            found.push(without_row(shown_value(value), at));
        }
    }
    if !is_any {
        return Ok(found);
    }
    context.needed.push(needed(context.target, table, Some(column.to_owned())));
    if has_new_rows(context.conn, &hold, &there, &join)? { Ok(found) } else { Ok(Conflicts::default()) }
}

/// Whether a row is there of which no value is held: it came since, or has another key now.
fn has_new_rows(conn: &Connection, hold: &str, table: &str, join: &str) -> rusqlite::Result<bool> {
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM main.{table} AS t WHERE NOT EXISTS (SELECT 1 FROM main.{hold} AS h WHERE {join}))"
    );
    conn.query_row(&sql, [], |row| row.get(0))
}
