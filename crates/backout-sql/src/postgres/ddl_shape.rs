//! Gives a table its old shape: columns that were dropped stand in their old places with their values, retyped ones
//! have their old type. The table is built anew beside the old one, filled in one statement, and takes its place with
//! all that hangs on it, also what others have hung on it since.

use std::collections::BTreeMap;

use backout_model::target::TargetError;
use postgres::error::SqlState;

use super::admit::{is_barred, no_value};
use super::catalog::{self, Kind, Object, Wanted};
use super::ddl::{Change, Context};
use super::ddl_hold::Moved;
use super::ddl_keep::{self, ColumnValues, Kept, What};
use super::ddl_turn::{self, Reach, TurnError};
use super::prepared::Client;
use super::{catalog_changes, ddl_columns, ddl_hold, ddl_observe};

const SCHEMA: &str = "backout_shape";

/// Why a table cannot have its old shape back.
pub(super) enum ShapeError {
    Target(TargetError),
    /// What others made of it since does not go with that.
    Stuck(TurnError),
    /// Rows that others wrote since do not go with that.
    Rows(Vec<Unfit>),
    Turn(TurnError),
}

/// A row that others wrote since, and why the old shape has no place for it.
pub(super) struct Unfit {
    pub table: String,
    pub key: String,
    pub column: Option<String>,
    pub now: String,
}

impl From<TurnError> for ShapeError {
    fn from(error: TurnError) -> Self {
        match error {
            TurnError::Stuck { .. } | TurnError::Differs { .. } => Self::Stuck(error),
            _ => Self::Turn(error),
        }
    }
}

impl From<postgres::Error> for ShapeError {
    fn from(error: postgres::Error) -> Self {
        Self::Turn(error.into())
    }
}

impl From<TargetError> for ShapeError {
    fn from(error: TargetError) -> Self {
        Self::Target(error)
    }
}

/// Values that had no row to come back to.
pub(super) struct Homeless {
    /// How many.
    pub values: u64,
    /// Others have rows that were not there: theirs may be among them, under another key.
    pub moved: bool,
}

/// Brings the columns back for which values were kept. The session has the pinned settings.
pub(super) fn put_back(context: &mut Context<'_>, kept: &Kept, changes: &[Change]) -> Result<Homeless, ShapeError> {
    let failed =
        |error: TurnError| TargetError::failed(format!("cannot give table {} its old shape", kept.table), error);
    let stuck_or_failed = |error: ShapeError| match error {
        ShapeError::Turn(error) => ShapeError::Target(failed(error)),
        error => error,
    };
    still_there(context.client, kept).map_err(|error| stuck_or_failed(error.into()))?;
    // A type of theirs may have another name by now, or a label.
    let values = load(context, kept).map_err(|error| match no_value(&error) {
        Some(why) => ShapeError::Stuck(stuck(kept, why)),
        None => error.into(),
    })?;
    let lossy = lossy(context.client, kept).map_err(|error| failed(error.into()))?;
    if !lossy.is_empty() {
        return Err(ShapeError::Rows(lossy));
    }
    let homeless = homeless(context.client, kept).map_err(|error| failed(error.into()))?;
    reshape(context.client, context.version, kept, &values, changes).map_err(stuck_or_failed)?;
    // A type that goes next must not be in use.
    let drop = format!("DROP TABLE IF EXISTS {BEFORE}, {AFTER}");
    context.client.batch_execute(&drop).map_err(|error| failed(error.into()))?;
    Ok(homeless)
}

/// Looks for kept values whose rows are gone, or are other ones now.
fn homeless(client: &mut Client, kept: &Kept) -> Result<Homeless, postgres::Error> {
    let What::Values { key, others, .. } = &kept.what else { return Ok(Homeless { values: 0, moved: false }) };
    let keys = ddl_keep::row_key(key, others);
    let (same, rows) = (same_keys("b", &keys), rows_with_keys(kept, &keys));
    let values =
        catalog::column(client, &format!("SELECT count(*) {}", without_row(kept, &keys)))?.into_iter().flatten().next();
    let values = values.and_then(|rows| rows.parse().ok()).unwrap_or(0);
    let came = format!("SELECT 1 FROM {rows} WHERE NOT EXISTS (SELECT FROM {BEFORE} b WHERE {same}) LIMIT 1");
    Ok(Homeless { values, moved: values > 0 && !catalog::column(client, &came)?.is_empty() })
}

/// The columns by which a row is known again, under numbers.
fn numbered(keys: &[String]) -> String {
    keys.iter().enumerate().map(|(at, key)| format!("{key} AS k{at}")).collect::<Vec<_>>().join(", ")
}

/// A row `o` of the table is one of the kept rows `other`.
fn same_keys(other: &str, keys: &[String]) -> String {
    (0..keys.len()).map(|at| format!("{other}.k{at} = o.k{at}")).collect::<Vec<_>>().join(" AND ")
}

fn rows_with_keys(kept: &Kept, keys: &[String]) -> String {
    format!("(SELECT {} FROM ONLY {}) o", numbered(keys), kept.table)
}

/// The kept values that have no row, as what follows a SELECT list.
fn without_row(kept: &Kept, keys: &[String]) -> String {
    let (same, rows) = (same_keys("b", keys), rows_with_keys(kept, keys));
    format!("FROM {BEFORE} b WHERE NOT EXISTS (SELECT FROM {rows} WHERE {same})")
}

/// Questions for rows that stand in the way, of a table whose values have just been loaded by `copy`; none for what else is
/// copied.
pub(super) fn in_the_way_after(kept: &Kept, copy: &str) -> Vec<String> {
    let What::Values { key, others, columns, .. } = &kept.what else { return Vec::new() };
    let keys = ddl_keep::row_key(key, others);
    match (copy.contains(BEFORE), copy.contains(AFTER)) {
        (true, _) => vec![without_row(kept, &keys)],
        (_, true) => columns.iter().filter_map(|column| lossy_rows(kept, &keys, column)).collect(),
        _ => Vec::new(),
    }
}

/// The rows whose value in a retyped column others wrote, and whose value would be another one after the way to the old
/// type and back: a cast cuts and rounds without a word. As what follows a SELECT list.
fn lossy_rows(kept: &Kept, keys: &[String], column: &ColumnValues) -> Option<String> {
    let (name, old, new) = (&column.name, &column.old_type, column.new_type.as_ref()?);
    Some(format!(
        "FROM (SELECT *, {} FROM ONLY {}) o LEFT JOIN {AFTER} a ON {} WHERE o.{name} IS NOT NULL
         AND (a.k0 IS NULL OR a.{name}::text IS DISTINCT FROM o.{name}::text)
         AND o.{name}::text::{old}::text::{new}::text IS DISTINCT FROM o.{name}::text",
        numbered(keys),
        kept.table,
        same_keys("a", keys)
    ))
}

/// Looks for such rows. What cannot be cast at all is found as the table is filled.
fn lossy(client: &mut Client, kept: &Kept) -> Result<Vec<Unfit>, postgres::Error> {
    let What::Values { key, others, columns, after: Some(_), .. } = &kept.what else { return Ok(Vec::new()) };
    let (keys, shown) = (ddl_keep::row_key(key, others), shown_key(key, others));
    let mut found = Vec::new();
    for column in columns {
        let Some(rows) = lossy_rows(kept, &keys, column) else { continue };
        client.batch_execute("SAVEPOINT backout_fit")?;
        let sql = format!("SELECT {shown}, o.{} {rows} LIMIT {LOOKED_AT}", column.name);
        match catalog::rows(client, &sql) {
            Ok(rows) => found.extend(rows.into_iter().map(|row| Unfit {
                table: kept.table.clone(),
                key: row[0].clone(),
                column: Some(column.name.clone()),
                now: format!("{} would be another value as {}", row[1], column.old_type),
            })),
            Err(error) if client.is_closed() => return Err(error),
            Err(_) => client.batch_execute("ROLLBACK TO SAVEPOINT backout_fit")?,
        }
        client.batch_execute("RELEASE SAVEPOINT backout_fit")?;
    }
    Ok(found)
}

/// How many rows that do not fit are looked at.
const LOOKED_AT: usize = 1000;

/// A row `o` by its key, for people.
fn shown_key(key: &[String], others: &[String]) -> String {
    let named: Vec<String> = if key.is_empty() { others } else { key }
        .iter()
        .map(|name| format!("{} || coalesce(o.{name}::text, 'NULL')", catalog::literal(&format!("{name}="))))
        .collect();
    if named.is_empty() { "''".to_owned() } else { format!("concat_ws(', ', {})", named.join(", ")) }
}

/// An error where the table is gone, or a column by which its rows are known again.
fn still_there(client: &mut Client, kept: &Kept) -> Result<(), TurnError> {
    let What::Values { key, others, .. } = &kept.what else { return Ok(()) };
    let name = catalog::literal(&kept.table);
    let columns = format!(
        "SELECT pg_catalog.quote_ident(attname) FROM pg_catalog.pg_attribute \
         WHERE attrelid = pg_catalog.to_regclass({name}) AND attnum > 0 AND NOT attisdropped"
    );
    let there: Vec<String> = catalog::column(client, &columns)?.into_iter().flatten().collect();
    let exists = catalog::column(client, &format!("SELECT pg_catalog.to_regclass({name})::text"))?;
    if exists.into_iter().flatten().next().is_none() {
        return Err(stuck(kept, "it is gone"));
    }
    match key.iter().chain(others).find(|column| !there.contains(*column)) {
        Some(column) => Err(stuck(kept, format!("its rows are not known again: column {column} is gone"))),
        None => Ok(()),
    }
}

/// The kept values in temporary tables.
struct Values {
    /// Columns `k1 …`, then the values under their names.
    before: &'static str,
    after: Option<&'static str>,
}

const BEFORE: &str = "pg_temp.backout_before";
const AFTER: &str = "pg_temp.backout_after";

fn load(context: &mut Context<'_>, kept: &Kept) -> Result<Values, TargetError> {
    let failed = |error: postgres::Error| {
        TargetError::failed(format!("cannot bring back the values of table {}", kept.table), error)
    };
    let What::Values { key, others, columns, before, after } = &kept.what else {
        return Err(TargetError::Images {
            target: context.target.to_owned(),
            what: format!("no values are kept for table {}", kept.table),
        });
    };
    let mut make = |name: &str, block: u64, old: bool| -> Result<(), TargetError> {
        let mut list = vec![numbered(&ddl_keep::row_key(key, others))];
        list.extend(columns.iter().filter(|column| old || column.new_type.is_some()).map(|column| {
            let kind = if old { &column.old_type } else { column.new_type.as_ref().unwrap_or(&column.old_type) };
            format!("NULL::{kind} AS {}", column.name)
        }));
        let bare = name.trim_start_matches("pg_temp.");
        let sql = format!(
            "DROP TABLE IF EXISTS {name}; CREATE TEMPORARY TABLE {bare} ON COMMIT DROP AS SELECT {} FROM ONLY {} \
             WHERE false",
            list.join(", "),
            kept.table
        );
        context.client.batch_execute(&sql).map_err(failed)?;
        context.keep.bring(context.client, &format!("COPY {name} FROM STDIN"), block)?;
        context.client.batch_execute(&format!("ANALYZE {name}")).map_err(failed)
    };
    make(BEFORE, *before, true)?;
    if let Some(after) = after {
        make(AFTER, *after, false)?;
    }
    Ok(Values { before: BEFORE, after: after.map(|_| AFTER) })
}

fn stuck(kept: &Kept, why: impl Into<String>) -> TurnError {
    TurnError::Stuck { what: format!("build table {} anew", kept.table), why: why.into() }
}

fn reshape(
    client: &mut Client,
    version: u32,
    kept: &Kept,
    values: &Values,
    changes: &[Change],
) -> Result<(), ShapeError> {
    let table = kept.table.as_str();
    let oid = catalog::column(client, &format!("SELECT {}::regclass::oid", catalog::literal(table)))?;
    let oid: u32 =
        oid.into_iter().flatten().next().and_then(|oid| oid.parse().ok()).ok_or_else(|| stuck(kept, "it is gone"))?;
    let family = catalog::read(client, &Wanted { families: vec![oid], ..Wanted::default() }, version)?;
    let owned: Vec<Object> = family.iter().filter(|object| object.kind == Kind::Sequence).cloned().collect();
    for sequence in &owned {
        client.batch_execute(&format!("ALTER SEQUENCE {} OWNED BY NONE", sequence.id()))?;
    }
    let hanging = hanging(client, version, table)?;
    let me = hanging.iter().find(|object| object.kind == Kind::Table && object.id() == table).cloned();
    let me = me.ok_or_else(|| stuck(kept, "it is gone"))?;
    let other = hanging.iter().find(|object| {
        matches!(object.kind, Kind::Table | Kind::Sequence) && object.id() != table
            || object.kind == Kind::Column && object.of() != table && object.part("relation").is_none()
    });
    if let Some(other) = other {
        return Err(stuck(kept, format!("{} hangs on it", other.shown())).into());
    }
    let mut wanted = ddl_columns::with_old_columns(&hanging, kept, changes);
    let room = ddl_columns::room(&mut wanted, table);
    let moved = Moved {
        id: table.to_owned(),
        hold: SCHEMA.to_owned(),
        word: "TABLE".to_owned(),
        schema: me.text("schema").to_owned(),
        name: me.text("name").to_owned(),
        content: None,
    };
    client.batch_execute(&format!("CREATE SCHEMA {SCHEMA}"))?;
    let all: Vec<&Object> = hanging.iter().collect();
    let moved = [moved];
    let held = moved[0].held();
    let mut drops = ddl_turn::drops(&all, &|object| ddl_hold::stand_in(object, &[&me], &moved));
    // What takes its rows is dropped under the name that they have yet.
    drops.sort_by_key(|act| act.shown == format!("drop {}", me.shown()));
    ddl_turn::run(client, drops)?;
    let wanted: Vec<&Object> = wanted.iter().collect();
    let made: Vec<&Object> = wanted.iter().copied().chain(&room).collect();
    let acts = ddl_turn::makes(&made, &|_| None)?;
    let (first, rest): (Vec<_>, Vec<_>) = acts.into_iter().partition(|act| act.shown == format!("make {}", me.shown()));
    ddl_turn::run(client, first)?;
    if !room.is_empty() {
        let drops: Vec<String> = room.iter().map(|column| format!("DROP COLUMN {}", column.text("name"))).collect();
        client.batch_execute(&format!("ALTER TABLE {table} {}", drops.join(", ")))?;
    }
    let defaults = old_defaults(changes, table);
    let fill = fill(client_columns(&wanted, table), &held, table, kept, values, &defaults);
    if let Err(error) = ddl_turn::attempt(client, &fill) {
        // What others wrote since is more than the old shape holds.
        return match is_barred(&error) {
            true => Err(unfit(client, &held, kept, values, &error)?),
            false => Err(TurnError::from(error).into()),
        };
    }
    ddl_turn::run(client, rest)?;
    // The old table has taken those of its identity columns along.
    for sequence in hanging.iter().filter_map(|object| object.part("sequence")) {
        let bare = sequence.strip_prefix(me.text("schema")).and_then(|rest| rest.strip_prefix('.')).unwrap_or(sequence);
        let name = catalog::literal(sequence);
        client.batch_execute(&format!("SELECT setval({name}, last_value, is_called) FROM {SCHEMA}.{bare}"))?;
    }
    ddl_turn::attempt(client, &format!("DROP TABLE {held}; DROP SCHEMA {SCHEMA}")).map_err(|error| {
        match error.code() {
            Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => {
                stuck(kept, ddl_turn::reason(&error).replace(&held, table))
            }
            _ => error.into(),
        }
    })?;
    let mut all: Vec<&Object> = wanted;
    all.extend(&owned);
    Ok(ddl_turn::converge(client, version, &all, Reach::Whole)?)
}

/// The rows that do not fit: those that came since or hold another value in a column that gets its old type back.
fn unfit(
    client: &mut Client,
    held: &str,
    kept: &Kept,
    values: &Values,
    error: &postgres::Error,
) -> Result<ShapeError, postgres::Error> {
    let What::Values { key, others, columns, .. } = &kept.what else {
        return Ok(stuck(kept, "it has no values").into());
    };
    let keys = ddl_keep::row_key(key, others);
    let same = |other: &str| same_keys(other, &keys);
    let shown = shown_key(key, others);
    let from = format!("(SELECT *, {} FROM {held}) o", numbered(&keys));
    let mut found = Vec::new();
    if let Some(after) = values.after {
        for column in columns.iter().filter(|column| column.new_type.is_some()) {
            let name = &column.name;
            let rows = catalog::rows(
                client,
                &format!(
                    "SELECT {shown}, o.{name}::text FROM {from} LEFT JOIN {after} a ON {} \
                     WHERE (a.k0 IS NULL OR a.{name}::text IS DISTINCT FROM o.{name}::text) AND o.{name} IS NOT NULL \
                     LIMIT {LOOKED_AT}",
                    same("a")
                ),
            )?;
            for row in rows {
                let cast = format!("SELECT {}::{}", catalog::literal(&row[1]), column.old_type);
                let Err(error) = ddl_turn::attempt(client, &cast) else { continue };
                found.push(Unfit {
                    table: kept.table.clone(),
                    key: row[0].clone(),
                    column: Some(name.clone()),
                    now: ddl_turn::reason(&error),
                });
            }
        }
    }
    if found.is_empty() {
        let came = format!(
            "SELECT {shown} FROM {from} LEFT JOIN {} b ON {} WHERE b.k0 IS NULL LIMIT {LOOKED_AT}",
            values.before,
            same("b")
        );
        let why = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
        for key in catalog::column(client, &came)?.into_iter().flatten() {
            found.push(Unfit { table: kept.table.clone(), key, column: None, now: why.clone() });
        }
    }
    Ok(if found.is_empty() { stuck(kept, ddl_turn::reason(error)).into() } else { ShapeError::Rows(found) })
}

/// All that would go with the table.
fn hanging(client: &mut Client, version: u32, table: &str) -> Result<Vec<Object>, TurnError> {
    let mark = catalog_changes::mark(client, "backout_shape")?;
    client.batch_execute(&format!("DROP TABLE {table} CASCADE"))?;
    let touched = catalog_changes::since(client, &mark)?;
    let seen = ddl_observe::see(client, touched, version)?;
    client.batch_execute("ROLLBACK TO SAVEPOINT backout_shape; RELEASE SAVEPOINT backout_shape")?;
    client.went_back();
    let before = ddl_observe::before(client, &seen, version)?;
    let changes = ddl_observe::differences(before.objects, seen.after);
    if let Some(altered) = changes.iter().find_map(|change| change.after.as_ref()) {
        return Err(TurnError::Stuck {
            what: "build a table anew".into(),
            why: format!("{} hangs on it", altered.shown()),
        });
    }
    Ok(changes.into_iter().filter_map(|change| change.before).collect())
}

fn client_columns(wanted: &[&Object], table: &str) -> Vec<Object> {
    wanted
        .iter()
        .filter(|object| object.kind == Kind::Column && object.of() == table && object.part("generated").is_none())
        .map(|object| (*object).clone())
        .collect()
}

/// What a row gets in the columns that went, by their names; but for those that count by a sequence, which may have gone
/// with them.
fn old_defaults(changes: &[Change], table: &str) -> BTreeMap<String, String> {
    changes
        .iter()
        .filter_map(|change| {
            change.before.as_ref().filter(|object| object.kind == Kind::Column && object.of() == table)
        })
        .filter_map(|column| Some((column.text("name").to_owned(), column.part("default")?.to_owned())))
        .filter(|(_, default)| !default.contains("nextval("))
        .collect()
}

/// The statement that fills the new table from the held one and the kept values.
fn fill(
    columns: Vec<Object>,
    held: &str,
    table: &str,
    kept: &Kept,
    values: &Values,
    defaults: &BTreeMap<String, String>,
) -> String {
    let What::Values { key, others, columns: lost, .. } = &kept.what else { return String::new() };
    let keys = ddl_keep::row_key(key, others);
    let lost: BTreeMap<&str, bool> =
        lost.iter().map(|column| (column.name.as_str(), column.new_type.is_some())).collect();
    let mut names = Vec::new();
    let mut list = Vec::new();
    for column in &columns {
        let name = column.text("name");
        names.push(name.to_owned());
        list.push(match lost.get(name) {
            None => format!("o.{name}"),
            // Rows that came since have what a new row would have.
            Some(false) => {
                // It may be of another type, which the server casts where it is a default.
                let of_type = |default: &String| format!("({default})::{}", column.text("type"));
                let default = defaults.get(name).map_or_else(|| "NULL".to_owned(), of_type);
                format!("CASE WHEN b.k0 IS NULL THEN {default} ELSE b.{name} END")
            }
            // What others wrote since is cast, where PostgreSQL can.
            Some(true) => format!(
                "CASE WHEN a.k0 IS NOT NULL AND a.{name}::text IS NOT DISTINCT FROM o.{name}::text THEN b.{name} \
                 ELSE o.{name}::text::{} END",
                column.text("type")
            ),
        });
    }
    let same = |other: &str| same_keys(other, &keys);
    let after = values.after.map(|name| format!(" LEFT JOIN {name} a ON {}", same("a"))).unwrap_or_default();
    format!(
        "INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM (SELECT *, {} FROM {held} ORDER BY ctid) o \
         LEFT JOIN {} b ON {}{after}",
        names.join(", "),
        list.join(", "),
        numbered(&keys),
        values.before,
        same("b"),
    )
}
