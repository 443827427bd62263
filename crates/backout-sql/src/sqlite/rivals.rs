//! The rows that stand in the way of another one, since they have the same value where it must be unique. Reads only.

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::form::{bind_all, bind_place, place};
use super::settle::shown_row;
use super::stream::Table;
use super::token::quote;

/// A unique index of plain columns: its columns, as indexes into the table's, each with its collation.
type Unique = Vec<(usize, String)>;

/// The other rows, as people are shown them, that have the unique values of `wanted`; `own`: the row itself as it is
/// now, by its rowid and values. What partial indexes and those of expressions forbid is not found here.
pub fn rivals(
    conn: &Connection,
    table: &Table,
    wanted: &[ValueRef<'_>],
    own: Option<(i64, &[ValueRef<'_>])>,
) -> rusqlite::Result<Vec<String>> {
    let mut found = Vec::new();
    for index in unique(conn, table)? {
        if index.iter().any(|(column, _)| matches!(wanted[*column], ValueRef::Null)) {
            continue;
        }
        let columns = table.columns.iter();
        let names: Vec<String> =
            columns.map(|one| if one.gone { "NULL".to_owned() } else { quote(&one.name) }).collect();
        let mut next = 0;
        let mut parameter = || {
            next += 1;
            next
        };
        let mut same: Vec<String> = Vec::new();
        for (column, collation) in &index {
            let name = quote(&table.columns[*column].name);
            same.push(format!("{name} = ?{} COLLATE {}", parameter(), quote(collation)));
        }
        if own.is_some() {
            same.push(format!("NOT ({})", place(table, &mut parameter)));
        }
        let name = quote(&table.name);
        let mut select =
            conn.prepare(&format!("SELECT {} FROM main.{name} WHERE {}", names.join(", "), same.join(" AND ")))?;
        let at = bind_all(&mut select, 1, index.iter().map(|(column, _)| wanted[*column]))?;
        if let Some((rowid, values)) = own {
            bind_place(&mut select, at, table, rowid, values)?;
        }
        let mut rows = select.raw_query();
        while let Some(row) = rows.next()? {
            let values: Vec<ValueRef<'_>> =
                (0..table.columns.len()).map(|at| row.get_ref(at)).collect::<Result<_, _>>()?;
            let shown = shown_row(table, &values);
            if !found.contains(&shown) {
                found.push(shown);
            }
        }
    }
    Ok(found)
}

fn unique(conn: &Connection, table: &Table) -> rusqlite::Result<Vec<Unique>> {
    let mut indexes = Vec::new();
    let mut list = conn.prepare_cached(
        "SELECT name FROM pragma_index_list(?1, 'main') WHERE \"unique\" AND NOT partial ORDER BY seq DESC",
    )?;
    let names = list.query_map([&table.name], |row| row.get::<_, String>(0))?;
    for name in names {
        let mut info =
            conn.prepare_cached("SELECT name, coll FROM pragma_index_xinfo(?1, 'main') WHERE key ORDER BY seqno")?;
        let columns = info.query_map([name?], |row| Ok((row.get::<_, Option<String>>(0)?, row.get(1)?)))?;
        let at = |(name, collation): (Option<String>, String)| {
            let name = name?;
            let at = table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(&name))?;
            Some((at, collation)).filter(|_| table.columns[at].is_written())
        };
        let columns: Vec<Option<(usize, String)>> = columns.map(|one| one.map(at)).collect::<rusqlite::Result<_>>()?;
        indexes.extend(columns.into_iter().collect::<Option<Unique>>());
    }
    Ok(indexes)
}
