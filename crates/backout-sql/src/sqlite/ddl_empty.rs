//! DELETE without WHERE by exchanging b-trees, and what brings the rows back beside those that came since.
//!
//! Never where that isn't the same as DELETE: with triggers, or foreign keys that hang on the rows.

use backout_model::conflict::{ConflictKind, Conflicts, OnConflict};
use backout_model::target::{Manner, TargetError};

use super::ddl::{Context, execute};
use super::ddl_event::{DdlEvent, Kind};
use super::ddl_hold::{FEW_ROWS, columns, deletes_rows, exchange_for_twin, is_constraint};
use super::ddl_undo::{conflict, goes_on};
use super::schema::{self, SchemaRow, Shape};
use super::split::Statement;
use super::token::{each_token, quote};
use crate::shown::shorten;

/// See [`super::ddl::delete_all`].
pub fn delete_all(context: &mut Context<'_>, table: &str, again: bool) -> Result<Option<DdlEvent>, TargetError> {
    let conn = context.conn;
    let act = "empty a table";
    let worth_it = || -> rusqlite::Result<Option<Vec<SchemaRow>>> {
        let Some(found) = schema::object(conn, "table", table)? else { return Ok(None) };
        if found.rootpage == 0 || context.foreign_keys && deletes_rows(context, &found)? {
            return Ok(None);
        }
        let rows = schema::of_table(conn, table)?;
        let temporary: bool = conn
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM temp.sqlite_schema WHERE tbl_name = ?1 COLLATE NOCASE)")?
            .query_row([table], |row| row.get(0))?;
        if temporary || rows.iter().any(|row| row.is_raw || fires_on_delete(row)) {
            return Ok(None);
        }
        if again {
            return Ok(Some(rows));
        }
        let count: i64 = conn.query_row(
            &format!("SELECT count(*) FROM (SELECT 1 FROM main.{} LIMIT {})", quote(table), FEW_ROWS + 1),
            [],
            |row| row.get(0),
        )?;
        Ok((count > FEW_ROWS).then_some(rows))
    };
    let Some(rows) = worth_it().map_err(|error| context.cannot(act, error))? else { return Ok(None) };
    let Some(found) = rows.iter().find(|row| row.kind == "table") else { return Ok(None) };
    match context.within(|context| exchange_for_twin(context, &rows)) {
        Ok(hold) => {
            let statement = Statement { line: 0, sql: format!("DELETE FROM main.{}", quote(&found.name)) };
            let mut event = DdlEvent::new(&statement, Kind::DeleteAll { table: found.name.clone() }, found.shown());
            event.hold = Some(hold);
            event.changed = rows
                .iter()
                .filter(|row| row.kind == "table" || row.kind == "index")
                .map(|row| (row.clone(), row.clone()))
                .collect();
            Ok(Some(event))
        }
        Err(_) if !conn.is_autocommit() => Ok(None),
        Err(error) => Err(error),
    }
}

fn fires_on_delete(row: &SchemaRow) -> bool {
    row.kind == "trigger"
        && row
            .sql
            .as_deref()
            .is_none_or(|sql| each_token(sql).take_while(|token| !token.is("ON")).any(|token| token.is("DELETE")))
}

/// Puts the rows of a delete-all back; rows that came since stay beside them where their keys are free.
pub fn undo_delete_all(
    context: &mut Context<'_>,
    event: &DdlEvent,
    table: &str,
    manner: Manner,
    conflicts: &mut Conflicts,
    notes: &mut Vec<String>,
) -> Result<(), TargetError> {
    let conn = context.conn;
    let act = "put the rows of a table back";
    let cannot = |error| TargetError::failed(format!("cannot {act}"), error);
    let Some(hold) = &event.hold else { return Ok(()) };
    let held = schema::object(conn, "table", &hold.table).map_err(cannot)?;
    let now = schema::of_table(conn, table).map_err(cannot)?;
    let table_now = now.iter().find(|row| row.kind == "table");
    let table_left = event.changed.iter().map(|(_, left)| left).find(|row| row.kind == "table");
    let (Some(_), Some(table_now), Some(table_left)) = (held, table_now, table_left) else {
        if manner.in_doubt {
            return Ok(());
        }
        let what = if table_now.is_none() { table } else { &hold.table };
        conflicts.push(conflict(context, &format!("table {table}"), ConflictKind::Missing, format!("{what} is gone")));
        context.stays = true;
        return Ok(());
    };
    if !table_now.is_same(table_left) {
        // Other columns than those of the rows held: nobody can say what fits where.
        let text = table_now.sql.as_deref().map(shorten).unwrap_or_default();
        conflicts.push(conflict(context, &table_now.shown(), ConflictKind::Definition, text));
        context.stays = true;
        return Ok(());
    }
    // Indexes that are still the same take their b-tree back, new ones are built, dropped ones go with the hold.
    let is_kept = |row: &&SchemaRow| event.changed.iter().any(|(_, left)| left.is_same(row));
    let indexes = || now.iter().filter(|row| row.kind == "index");
    let mut pairs = vec![(table_now.name.clone(), hold.table.clone())];
    for row in indexes().filter(is_kept) {
        if let Some((.., held)) = hold.objects.iter().find(|(kind, name, _)| kind == "index" && *name == row.name) {
            pairs.push((row.name.clone(), held.clone()));
        }
    }
    let empty: bool = conn
        .query_row(&format!("SELECT NOT EXISTS (SELECT 1 FROM main.{})", quote(table)), [], |row| row.get(0))
        .map_err(cannot)?;
    schema::edit(conn, || schema::exchange(conn, &pairs).map_err(cannot))?;
    let mut built = true;
    for index in indexes().filter(|row| !is_kept(row)) {
        if let Err(error) = execute(conn, &format!("REINDEX main.{}", quote(&index.name))) {
            conflicts.push(conflict(context, &index.shown(), ConflictKind::Constraint, error.to_string()));
            built = false;
        }
    }
    if !built {
        if manner.on_conflict == OnConflict::Stop {
            return Ok(());
        }
        let kept = "an index made since does not admit the rows";
        return Err(TargetError::failed(format!("cannot {act} of {table}"), kept));
    }
    if !empty {
        merge(context, &hold.table, table, manner, conflicts, notes)?;
    }
    execute(conn, &format!("DROP TABLE main.{}", quote(&hold.table))).map_err(cannot)
}

/// Brings the rows that others wrote since, which the exchange has put into the hold, into the table beside the old ones.
fn merge(
    context: &mut Context<'_>,
    from: &str,
    to: &str,
    manner: Manner,
    conflicts: &mut Conflicts,
    notes: &mut Vec<String>,
) -> Result<(), TargetError> {
    let conn = context.conn;
    let cannot = |error| TargetError::failed("cannot bring the rows that came since together with the old ones", error);
    let shape = schema::shape(conn, to).map_err(cannot)?;
    let mut keys: Vec<String> = shape.key().iter().map(|column| quote(&column.name)).collect();
    let has_key = !keys.is_empty();
    if !has_key {
        // Without a key a row is just its values, and its rowid says nothing: it takes a new one.
        let values: Vec<_> = shape.stored().map(|column| quote(&column.name)).collect();
        keys.clone_from(&values);
        let values = values.join(", ");
        let sql =
            format!("INSERT OR ABORT INTO main.{} ({values}) SELECT {values} FROM main.{}", quote(to), quote(from));
        return match execute(conn, &sql) {
            Ok(()) => Ok(()),
            Err(error) if is_constraint(&error) => {
                conflicts.push(conflict(context, &format!("table {to}"), ConflictKind::Constraint, error.to_string()));
                if goes_on(manner) || manner.on_conflict == OnConflict::Keep {
                    notes.push(format!(
                        "{}: rows written to {to} since did not fit beside the old ones",
                        context.target
                    ));
                }
                execute(conn, &sql.replacen("OR ABORT", "OR IGNORE", 1)).map_err(cannot)
            }
            Err(error) => Err(cannot(error)),
        };
    }
    let same_key: Vec<_> = keys.iter().map(|key| format!("old.{key} IS new.{key}")).collect();
    let same_key = same_key.join(" AND ");
    let same: Vec<_> = shape
        .stored()
        .map(|column| {
            let name = quote(&column.name);
            format!("old.{name} COLLATE BINARY IS new.{name} AND typeof(old.{name}) = typeof(new.{name})")
        })
        .collect();
    let shown: Vec<_> = keys.iter().map(|key| format!("quote(new.{key})")).collect();
    let clash = format!(
        "SELECT {} FROM main.{} AS new JOIN main.{} AS old ON {same_key} WHERE NOT ({})",
        shown.join(" || ', ' || "),
        quote(from),
        quote(to),
        same.join(" AND ")
    );
    {
        let mut select = conn.prepare(&clash).map_err(cannot)?;
        let mut rows = select.query([]).map_err(cannot)?;
        while let Some(row) = rows.next().map_err(cannot)? {
            let key: String = row.get(0).map_err(cannot)?;
            let mut found =
                conflict(context, &format!("table {to}"), ConflictKind::Appeared, "another row of that key");
            found.key = Some(format!("{} = {key}", keys.join(", ")));
            conflicts.push(found);
        }
    }
    // Theirs win under Keep; under Overwrite the old rows stand.
    let verb = if manner.on_conflict == OnConflict::Keep { "REPLACE" } else { "INSERT OR IGNORE" };
    let columns = columns(&shape).join(", ");
    let free = format!("SELECT 1 FROM main.{} AS old WHERE {same_key}", quote(to));
    let from_new: Vec<_> = columns_of(&shape, "new");
    let from_new = from_new.join(", ");
    let fits = format!(
        "INSERT OR ABORT INTO main.{} ({columns}) SELECT {from_new} FROM main.{} AS new WHERE NOT EXISTS ({free})",
        quote(to),
        quote(from)
    );
    match execute(conn, &fits) {
        Ok(()) => {}
        Err(error) if is_constraint(&error) => {
            conflicts.push(conflict(context, &format!("table {to}"), ConflictKind::Constraint, error.to_string()));
        }
        Err(error) => return Err(cannot(error)),
    }
    let sql = format!("{verb} INTO main.{} ({columns}) SELECT {columns} FROM main.{}", quote(to), quote(from));
    execute(conn, &sql).map_err(cannot)
}

fn columns_of(shape: &Shape, alias: &str) -> Vec<String> {
    columns(shape).into_iter().map(|column| format!("{alias}.{column}")).collect()
}
