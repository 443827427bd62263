//! Columns that come and go: ADD COLUMN and DROP COLUMN, their values held by key, and the table rebuilt where its
//! records have another form. Indexes keep their b-trees, since their entries stay what they were.

use std::error::Error;

use backout_model::conflict::{Conflict, ConflictKind, Conflicts};
use backout_model::target::{Manner, TargetError};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::capture::alike;
use super::ddl::{Context, execute, refused};
use super::ddl_event::{DdlEvent, Hold, Kind as Change};
use super::ddl_hold::{in_main, is_constraint};
use super::ddl_orphans::orphans;
use super::ddl_undo::{conflict, goes_on, write_old_texts, write_others_texts};
use super::schema::{self, Shape};
use super::split::Statement;
use super::token::{Kind, quote, tokens};
use super::value::Cell;
use super::{encoding, twin};
use crate::shown::shorten;

/// Names of the columns of a hold by key: `k0`, `k1`, … and `v`.
pub(super) fn key_columns(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("k{number}")).collect()
}

/// What names a row: the columns of the primary key, or the rowid; none where neither can be said.
pub(super) fn key_of(shape: &Shape, by_key: bool) -> Option<Vec<String>> {
    if by_key || shape.without_rowid || shape.rowid.is_none() && shape.rowid_is_column() {
        return Some(shape.key().iter().map(|column| quote(&column.name)).collect());
    }
    shape.rowid.map(|rowid| vec![rowid.to_owned()])
}

/// Whether the primary key names every row of a table: it has one, and no NULL is in it.
fn has_full_key(conn: &Connection, table: &str, shape: &Shape) -> rusqlite::Result<bool> {
    let nulls: Vec<String> = shape.key().iter().map(|column| format!("{} IS NULL", quote(&column.name))).collect();
    if nulls.is_empty() || shape.without_rowid || shape.rowid_is_column() {
        return Ok(!nulls.is_empty());
    }
    let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM main.{} WHERE {})", quote(table), nulls.join(" OR "));
    conn.query_row(&sql, [], |row| row.get(0))
}

impl DdlEvent {
    /// The table and column to which an undo brings values back by rowids that no column shows.
    pub fn held_by_rowid(&self, conn: &Connection) -> rusqlite::Result<Option<(&str, &str)>> {
        let Change::DropColumn { table, column } = &self.kind else { return Ok(None) };
        if self.by_key || self.kept.is_empty() && self.hold.is_none() {
            return Ok(None);
        }
        let shape = schema::shape(conn, table)?;
        Ok((!shape.without_rowid && !shape.rowid_is_column()).then_some((table.as_str(), column.as_str())))
    }
}

/// Up to how many rows and bytes the values of a column are kept in the event itself: a table costs pages and a place in
/// the schema until it is given up.
const FEW_ROWS: usize = 500;
const FEW_BYTES: usize = 64 * 1024;

/// Keeps the values of a column that is about to be dropped: few of them as rows of key and value, more in a table;
/// neither where it has none of its own.
pub(super) fn hold_column(
    context: &mut Context<'_>,
    statement: &Statement,
    table: &str,
    column: &str,
    event: &mut DdlEvent,
) -> Result<(), TargetError> {
    let conn = context.conn;
    let act = format!("hold the values of {table}.{column}");
    let shape = schema::shape(conn, table).map_err(|error| context.cannot(&act, error))?;
    let Some(dropped) = shape.column(column).filter(|column| !column.generated) else { return Ok(()) };
    event.by_key = has_full_key(conn, table, &shape).map_err(|error| context.cannot(&act, error))?;
    let Some(key) = key_of(&shape, event.by_key) else { return Err(refused(statement, alike(table))) };
    let value = quote(&dropped.name);
    // Where NULL is what every row gets anyway it need not be kept; else it tells which rows there were.
    let condition = if dropped.default.is_none() {
        format!(" WHERE EXISTS (SELECT 1 FROM main.{} WHERE {value} IS NOT NULL)", quote(table))
    } else {
        String::new()
    };
    let select = format!("SELECT {}, {value} FROM main.{}{condition}", key.join(", "), quote(table));
    let few = || if encoding::has_halves(conn, table)? { Ok(None) } else { few_rows(conn, &select) };
    if let Some(few) = few().map_err(|error| context.cannot(&act, error))? {
        event.kept = few;
        return Ok(());
    }
    let hold = make_hold(context, &shape, event.by_key, key.len(), &act)?;
    let names = key_columns(key.len()).join(", ");
    execute(conn, &format!("INSERT INTO main.{} ({names}, v) {select}", quote(&hold)))
        .map_err(|error| context.cannot(&act, error))?;
    event.hold = Some(Hold { table: hold, objects: Vec::new(), more: Vec::new() });
    Ok(())
}

/// All rows of a query, where they are few.
fn few_rows(conn: &Connection, select: &str) -> rusqlite::Result<Option<Vec<Vec<Cell>>>> {
    let mut prepared = conn.prepare(select)?;
    let width = prepared.column_count();
    let mut rows = prepared.query([])?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let mut cells = Vec::with_capacity(width);
        for at in 0..width {
            let value = row.get_ref(at)?;
            bytes += match value {
                ValueRef::Text(content) | ValueRef::Blob(content) => content.len(),
                ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 8,
            };
            cells.push(Cell::of(value));
        }
        found.push(cells);
        if found.len() > FEW_ROWS || bytes > FEW_BYTES {
            return Ok(None);
        }
    }
    Ok(Some(found))
}

/// A table for values by key.
fn make_hold(
    context: &mut Context<'_>,
    shape: &Shape,
    by_key: bool,
    keys: usize,
    act: &str,
) -> Result<String, TargetError> {
    let hold = context.new_name()?;
    let names = key_columns(keys).join(", ");
    let form = if shape.without_rowid || by_key && !shape.rowid_is_column() {
        format!("({names}, v, PRIMARY KEY ({names})) WITHOUT ROWID")
    } else {
        "(k0 INTEGER PRIMARY KEY, v)".to_owned()
    };
    execute(context.conn, &format!("CREATE TABLE main.{}{form}", quote(&hold)))
        .map_err(|error| context.cannot(act, error))?;
    Ok(hold)
}

/// The table with the values that an event keeps: its hold, or one made of the few rows that it holds itself.
fn held(context: &mut Context<'_>, event: &DdlEvent, table: &str, act: &str) -> Result<Option<String>, TargetError> {
    let Some(first) = event.kept.first() else { return Ok(event.hold.as_ref().map(|hold| hold.table.clone())) };
    let conn = context.conn;
    let shape = schema::shape(conn, table).map_err(|error| context.cannot(act, error))?;
    let hold = make_hold(context, &shape, event.by_key, first.len().saturating_sub(1), act)?;
    let insert = format!("INSERT INTO main.{} VALUES ({})", quote(&hold), vec!["?"; first.len()].join(", "));
    let mut insert = conn.prepare(&insert).map_err(|error| context.cannot(act, error))?;
    for row in &event.kept {
        insert.execute(rusqlite::params_from_iter(row)).map_err(|error| context.cannot(act, error))?;
    }
    Ok(Some(hold))
}

/// Undoes DROP COLUMN: the old form of the table is built anew from the rows of now and the values held.
pub fn put_back(
    context: &mut Context<'_>,
    event: &DdlEvent,
    table: &str,
    column: &str,
    manner: Manner,
    conflicts: &mut Conflicts,
    notes: &mut Vec<String>,
) -> Result<(), TargetError> {
    let act = format!("put column {column} back into {table}");
    let Some((before, _)) = event.changed.iter().find(|(before, _)| before.kind == "table") else { return Ok(()) };
    let old_text = before.sql.clone().unwrap_or_default();
    let hold = held(context, event, table, &act)?;
    if let Some(hold) = &hold {
        let by_key = event.by_key;
        let orphans = orphans(context, (table, column, by_key), hold).map_err(|error| context.cannot(&act, error))?;
        conflicts.extend(orphans);
    }
    let mut refused = None;
    let done = context.within(|context| {
        rebuild(context, event, table, &old_text, &act, |context, shape, old, twin| {
            fill_with(context, event, (shape, old), table, column, hold.as_deref(), twin, false).inspect_err(|error| {
                refused = is_constraint(error).then(|| error.to_string());
            })
        })
    });
    match (done, refused) {
        (Err(_), Some(why)) if !context.conn.is_autocommit() => {
            let mut found = conflict(context, &format!("table {table}"), ConflictKind::Constraint, why);
            found.column = Some(column.to_owned());
            conflicts.push(found);
            if !goes_on(manner) {
                return give_up(context, event, hold);
            }
            // The column admits no NULL and has no default: the rows of others get the zero of its type.
            notes.push(format!("{}: rows written to {table} since have an empty value in {column}", context.target));
            context.within(|context| {
                rebuild(context, event, table, &old_text, &act, |context, shape, old, twin| {
                    fill_with(context, event, (shape, old), table, column, hold.as_deref(), twin, true)
                })
            })?;
        }
        (done, _) => done?,
    }
    if let Some(hold) = hold {
        execute(context.conn, &format!("DROP TABLE main.{}", quote(&hold)))
            .map_err(|error| context.cannot(&act, error))?;
    }
    Ok(())
}

/// Leaves the column away: what was made of the event's own rows is of no use then.
fn give_up(context: &Context<'_>, event: &DdlEvent, hold: Option<String>) -> Result<(), TargetError> {
    match hold.filter(|_| event.hold.is_none()) {
        Some(hold) => execute(context.conn, &format!("DROP TABLE main.{}", quote(&hold)))
            .map_err(|error| context.cannot("drop a hold", error)),
        None => Ok(()),
    }
}

#[allow(clippy::too_many_arguments)] // All of them name one thing of the one statement that is written here.
fn fill_with(
    context: &Context<'_>,
    event: &DdlEvent,
    (now, old): (&Shape, &Shape),
    table: &str,
    column: &str,
    hold: Option<&str>,
    twin: &str,
    with_zero: bool,
) -> rusqlite::Result<()> {
    let conn = context.conn;
    let is_returning = |name: &str| name.eq_ignore_ascii_case(column);
    let Some(returning) = old.column(column) else { return Err(rusqlite::Error::InvalidColumnName(column.to_owned())) };
    let Some(key) = key_of(now, event.by_key) else {
        return Err(rusqlite::Error::InvalidColumnName("rowid".to_owned()));
    };
    let rowid = old.rowid.filter(|_| !old.rowid_is_column());
    let plain: Vec<String> =
        old.stored().filter(|column| !is_returning(&column.name)).map(|column| quote(&column.name)).collect();
    let targets: Vec<String> = rowid.map(str::to_owned).into_iter().chain(plain.iter().cloned()).collect();
    let sources: Vec<String> = rowid
        .and(now.rowid)
        .map(str::to_owned)
        .into_iter()
        .chain(plain.iter().cloned())
        .map(|name| format!("t.{name}"))
        .collect();
    let (targets, sources) = (targets.join(", "), sources.join(", "));
    let (table, twin) = (quote(table), quote(twin));
    let Some(hold) = hold.map(quote) else {
        let sql = format!("INSERT OR ABORT INTO main.{twin} ({targets}) SELECT {sources} FROM main.{table} AS t");
        return execute(conn, &sql);
    };
    // A plus takes the affinity away, so that the hold's index serves.
    let join: Vec<String> =
        key_columns(key.len()).iter().zip(&key).map(|(held, key)| format!("h.{held} = +t.{key}")).collect();
    let join = join.join(" AND ");
    let value = quote(&returning.name);
    let zero = match returning.declared.to_ascii_uppercase() {
        declared if declared.contains("CHAR") || declared.contains("CLOB") || declared.contains("TEXT") => "''",
        declared if declared.contains("BLOB") => "x''",
        _ => "0",
    };
    let alternative = if with_zero { format!("coalesce(h.v, {zero})") } else { "h.v".to_owned() };
    if returning.default.is_none() || with_zero {
        return execute(
            conn,
            &format!(
                "INSERT OR ABORT INTO main.{twin} ({targets}, {value}) SELECT {sources}, {alternative}
                 FROM main.{table} AS t LEFT JOIN main.{hold} AS h ON {join}"
            ),
        );
    }
    execute(
        conn,
        &format!(
            "INSERT OR ABORT INTO main.{twin} ({targets}, {value}) SELECT {sources}, h.v
             FROM main.{table} AS t JOIN main.{hold} AS h ON {join}"
        ),
    )?;
    // SQLite itself knows the default of the rows that came since.
    execute(
        conn,
        &format!(
            "INSERT OR ABORT INTO main.{twin} ({targets}) SELECT {sources} FROM main.{table} AS t
             WHERE NOT EXISTS (SELECT 1 FROM main.{hold} AS h WHERE {join})"
        ),
    )
}

/// Builds a table anew after an older text, and puts its b-tree in the place of the present one.
fn rebuild(
    context: &mut Context<'_>,
    event: &DdlEvent,
    table: &str,
    old_text: &str,
    act: &str,
    fill: impl FnOnce(&Context<'_>, &Shape, &Shape, &str) -> rusqlite::Result<()>,
) -> Result<(), TargetError> {
    let conn = context.conn;
    let twin = context.new_name()?;
    let Some(sql) = twin::twin_table(old_text, &twin) else {
        return Err(TargetError::failed(format!("cannot {act}"), "the definition of the table is not understood"));
    };
    execute(conn, &in_main(&sql)).map_err(|error| context.cannot(act, error))?;
    let now = schema::shape(conn, table).map_err(|error| context.cannot(act, error))?;
    let old = schema::shape(conn, &twin).map_err(|error| context.cannot(act, error))?;
    fill(context, &now, &old, &twin).map_err(|error| context.cannot(act, error))?;
    schema::edit(conn, || {
        schema::exchange(conn, &[(table.to_owned(), twin.clone())]).map_err(|error| context.cannot(act, error))?;
        for (before, after) in &event.changed {
            schema::rewrite(conn, after, before).map_err(|error| context.cannot(act, error))?;
        }
        Ok(())
    })?;
    execute(conn, &format!("DROP TABLE main.{}", quote(&twin))).map_err(|error| context.cannot(act, error))
}

/// Undoes ADD COLUMN: of a table, a column; `beside` columns that others added. Values that others wrote into it are
/// conflicts.
pub fn take_out(
    context: &mut Context<'_>,
    event: &DdlEvent,
    (table, column, beside): (&str, &str, bool),
    manner: Manner,
    conflicts: &mut Conflicts,
) -> Result<(), TargetError> {
    let act = format!("take column {column} out of {table}");
    let mut in_the_way = Conflicts::default();
    values_of_others(context, table, column, &mut in_the_way).map_err(|error| context.cannot(&act, error))?;
    let indexes =
        indexes_of_others(context, table, column, &mut in_the_way).map_err(|error| context.cannot(&act, error))?;
    let stays = !in_the_way.is_empty() && !goes_on(manner);
    conflicts.extend(in_the_way);
    if stays {
        return Ok(());
    }
    // They go with their column where the old form is to come back.
    for index in indexes {
        execute(context.conn, &format!("DROP INDEX main.{}", quote(&index)))
            .map_err(|error| context.cannot(&act, error))?;
    }
    let dropped = context.within(|context| {
        let texts = |context: &Context<'_>| schema::all(context.conn).map_err(|error| context.cannot(&act, error));
        let before = texts(context)?;
        execute(context.conn, &format!("ALTER TABLE main.{} DROP COLUMN {}", quote(table), quote(column)))
            .map_err(|error| context.cannot(&act, error))?;
        // The statement turns `"x"` into 'x' in views and triggers, where it takes that for a string.
        let after = texts(context)?;
        if beside {
            write_others_texts(context, table, &before, &after)
        } else {
            write_old_texts(context, event, &before, &after)
        }
    });
    let Err(error) = dropped else { return Ok(()) };
    if context.conn.is_autocommit() {
        return Err(error);
    }
    if beside {
        let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        conflicts.push(conflict(context, &format!("table {table}"), ConflictKind::Definition, why));
        context.stays = true;
        return Ok(());
    }
    // SQLite drops no column that a view or trigger names, even one that was broken before.
    let Some((before, _)) = event.changed.iter().find(|(before, _)| before.kind == "table") else { return Err(error) };
    let old_text = before.sql.clone().unwrap_or_default();
    context.within(|context| {
        rebuild(context, event, table, &old_text, &act, |context, now, old, twin| {
            let names = super::ddl_hold::columns(old);
            let sources: Vec<String> = names
                .iter()
                .map(|name| match (old.rowid, now.rowid) {
                    (Some(old), Some(now)) if name == old => now.to_owned(),
                    _ => name.clone(),
                })
                .collect();
            let (names, sources) = (names.join(", "), sources.join(", "));
            let sql = format!(
                "INSERT OR ABORT INTO main.{} ({names}) SELECT {sources} FROM main.{}",
                quote(twin),
                quote(table)
            );
            execute(context.conn, &sql)
        })
    })
}

/// Rows whose value in an added column is not its default.
fn values_of_others(
    context: &mut Context<'_>,
    table: &str,
    column: &str,
    conflicts: &mut Conflicts,
) -> Result<(), rusqlite::Error> {
    let conn = context.conn;
    let shape = schema::shape(conn, table)?;
    let Some(added) = shape.column(column).filter(|column| !column.generated) else { return Ok(()) };
    let value = format!("t.{}", quote(&added.name));
    let key = key_of(&shape, !shape.key().is_empty()).unwrap_or_default();
    let named = |key: &String| format!("'{}=' || quote(t.{key})", key.trim_matches('"').replace('\'', "''"));
    let shown: Vec<String> = key.iter().map(named).collect();
    let shown = if shown.is_empty() { "NULL".to_owned() } else { shown.join(" || ', ' || ") };
    let (with, differs) = match added.default.as_deref() {
        None => (String::new(), format!("{value} IS NOT NULL")),
        // The default takes the column's affinity the way a row does: by a row of its own.
        Some(default) => match constant(default) {
            Some(default) => {
                let scratch = "temp.backout_default";
                execute(conn, &format!("DROP TABLE IF EXISTS {scratch}"))?;
                execute(
                    conn,
                    &format!("CREATE TEMP TABLE backout_default (v {} DEFAULT {default})", declared(&added.declared)),
                )?;
                execute(conn, &format!("INSERT INTO {scratch} DEFAULT VALUES"))?;
                let same = format!("({value} COLLATE BINARY IS d.v AND typeof({value}) = typeof(d.v))");
                (format!(", {scratch} AS d"), format!("NOT {same}"))
            }
            None => (String::new(), "1".to_owned()),
        },
    };
    {
        let sql = format!("SELECT {shown}, {value} FROM main.{} AS t{with} WHERE {differs}", quote(table));
        let mut select = conn.prepare(&sql)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            conflicts.push(Conflict {
                key: row.get(0)?,
                column: Some(added.name.clone()),
                before: "no such column".to_owned(),
                left: added.default.clone().unwrap_or_else(|| "NULL".to_owned()),
                ..conflict(context, &format!("table {table}"), ConflictKind::Changed, shown_value(row.get_ref(1)?))
            });
        }
    }
    execute(conn, "DROP TABLE IF EXISTS temp.backout_default")
}

/// A declared type, quoted so that whatever stands there is read as a type again.
fn declared(text: &str) -> String {
    if text.is_empty() { String::new() } else { quote(text) }
}

/// A default's text as one can write it after DEFAULT, where it is a constant.
fn constant(default: &str) -> Option<String> {
    let all = tokens(default);
    let is_constant = |kind: Kind| matches!(kind, Kind::Literal | Kind::Text | Kind::Quoted);
    match all.as_slice() {
        [one] if one.text.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("CURRENT_")) => None,
        [one] if is_constant(one.kind) || one.kind == Kind::Word => Some(default.to_owned()),
        [sign, one] if (sign.is_sign(b'-') || sign.is_sign(b'+')) && is_constant(one.kind) => Some(default.to_owned()),
        // A call may give something else each time.
        many if many.windows(2).any(|pair| pair[0].kind == Kind::Word && pair[1].is_sign(b'(')) => None,
        many if many.iter().any(|token| token.kind == Kind::Word) => None,
        _ => Some(format!("({default})")),
    }
}

pub(super) fn shown_value(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => format!("'{}'", shorten(&String::from_utf8_lossy(text))),
        ValueRef::Blob(bytes) => format!("a blob of {} bytes", bytes.len()),
    }
}

/// Indexes that others made on the column since.
fn indexes_of_others(
    context: &Context<'_>,
    table: &str,
    column: &str,
    conflicts: &mut Conflicts,
) -> Result<Vec<String>, rusqlite::Error> {
    let conn = context.conn;
    let mut found = Vec::new();
    for row in schema::of_table(conn, table)?.into_iter().filter(|row| row.kind == "index") {
        let Some(sql) = &row.sql else { continue };
        let names: i64 = conn
            .prepare_cached("SELECT count(*) FROM pragma_index_info(?1, 'main') WHERE name = ?2 COLLATE NOCASE")?
            .query_row([&row.name, column], |count| count.get(0))?;
        if names > 0 {
            conflicts.push(conflict(context, &row.shown(), ConflictKind::Definition, shorten(sql)));
            found.push(row.name);
        }
    }
    Ok(found)
}
