//! Gives tables their old shape: columns that were dropped stand in their old places with their values, retyped ones
//! have their old type. A table is built anew beside the old one, filled in one statement, and takes its place with
//! all that hangs on it, also what others have hung on it since; a partitioned table together with all its partitions.

use std::collections::BTreeMap;

use backout_model::target::TargetError;
use postgres::error::SqlState;

use super::admit::{is_barred, no_value};
use super::catalog::{self, Kind, Object, Wanted, literal};
use super::ddl::{Change, Context};
use super::ddl_hold::Moved;
use super::ddl_keep::{Kept, What};
use super::ddl_turn::{self, Reach, TurnError};
use super::ddl_values::{Unfit, Values};
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
#[derive(Default)]
pub(super) struct Homeless {
    /// How many.
    pub values: u64,
    /// Others have rows that were not there: theirs may be among them, under another key.
    pub moved: bool,
}

/// The tables for which values are kept, those together that are parts of one partitioned table, the whole first.
pub(super) fn trees<'k>(client: &mut Client, kept: &'k [Kept]) -> Result<Vec<Vec<&'k Kept>>, postgres::Error> {
    let shapes: Vec<&Kept> = kept.iter().filter(|kept| matches!(kept.what, What::Values { .. })).collect();
    if shapes.len() < 2 {
        return Ok(shapes.into_iter().map(|kept| vec![kept]).collect());
    }
    let names: Vec<String> =
        shapes.iter().enumerate().map(|(at, kept)| format!("({at}, {})", literal(&kept.table))).collect();
    let sql = format!(
        "SELECT n, coalesce(pg_catalog.pg_partition_root(pg_catalog.to_regclass(name)), pg_catalog.to_regclass(name))::oid,
             (SELECT count(*) FROM pg_catalog.pg_partition_ancestors(pg_catalog.to_regclass(name)))
         FROM (VALUES {}) AS v (n, name) ORDER BY 3, 1",
        names.join(", ")
    );
    let mut trees: Vec<(String, Vec<&Kept>)> = Vec::new();
    for row in catalog::rows(client, &sql)? {
        let Some(kept) = row[0].parse::<usize>().ok().and_then(|at| shapes.get(at).copied()) else { continue };
        match trees.iter_mut().find(|(root, _)| !root.is_empty() && *root == row[1]) {
            Some((_, tree)) => tree.push(kept),
            None => trees.push((row[1].clone(), vec![kept])),
        }
    }
    Ok(trees.into_iter().map(|(_, tree)| tree).collect())
}

/// Brings the columns back for which values were kept, of one of [`trees`]. The session has the pinned settings.
pub(super) fn put_back(context: &mut Context<'_>, tree: &[&Kept], changes: &[Change]) -> Result<Homeless, ShapeError> {
    let shown = tree.first().map_or("", |kept| kept.table.as_str());
    let failed = |error: TurnError| TargetError::failed(format!("cannot give table {shown} its old shape"), error);
    let stuck_or_failed = |error: ShapeError| match error {
        ShapeError::Turn(error) => ShapeError::Target(failed(error)),
        error => error,
    };
    let (mut all, mut homeless) = (Vec::new(), Homeless::default());
    for (number, kept) in tree.iter().enumerate() {
        still_there(context.client, kept).map_err(|error| stuck_or_failed(error.into()))?;
        // A type of theirs may have another name by now, or a label.
        let values = Values::bring(context, kept, number).map_err(|error| match no_value(&error) {
            Some(why) => ShapeError::Stuck(stuck(&kept.table, why)),
            None => error.into(),
        })?;
        let lossy = values.lossy(context.client).map_err(|error| failed(error.into()))?;
        if !lossy.is_empty() {
            return Err(ShapeError::Rows(lossy));
        }
        homeless.values += values.homeless(context.client).map_err(|error| failed(error.into()))?;
        all.push(values);
    }
    // A row may have gone to another partition.
    for values in all.iter().filter(|_| homeless.values > 0) {
        homeless.moved |= values.has_others(context.client).map_err(|error| failed(error.into()))?;
    }
    reshape(context.client, context.version, tree, &all, changes).map_err(stuck_or_failed)?;
    for values in &all {
        values.let_go(context.client).map_err(|error| failed(error.into()))?;
    }
    Ok(homeless)
}

/// An error where the table is gone, or a column by which its rows are known again.
fn still_there(client: &mut Client, kept: &Kept) -> Result<(), TurnError> {
    let What::Values { key, others, .. } = &kept.what else { return Ok(()) };
    let name = literal(&kept.table);
    let columns = format!(
        "SELECT pg_catalog.quote_ident(attname) FROM pg_catalog.pg_attribute \
         WHERE attrelid = pg_catalog.to_regclass({name}) AND attnum > 0 AND NOT attisdropped"
    );
    let there: Vec<String> = catalog::column(client, &columns)?.into_iter().flatten().collect();
    let exists = catalog::column(client, &format!("SELECT pg_catalog.to_regclass({name})::text"))?;
    if exists.into_iter().flatten().next().is_none() {
        return Err(stuck(&kept.table, "it is gone"));
    }
    match key.iter().chain(others).find(|column| !there.contains(*column)) {
        Some(column) => Err(stuck(&kept.table, format!("its rows are not known again: column {column} is gone"))),
        None => Ok(()),
    }
}

fn stuck(table: &str, why: impl Into<String>) -> TurnError {
    TurnError::Stuck { what: format!("build table {table} anew"), why: why.into() }
}

fn reshape(
    client: &mut Client,
    version: u32,
    tree: &[&Kept],
    values: &[Values<'_>],
    changes: &[Change],
) -> Result<(), ShapeError> {
    let Some(whole) = tree.first().map(|kept| kept.table.as_str()) else { return Ok(()) };
    let is_here = |table: &str| tree.iter().any(|kept| kept.table == table);
    let names = tree.iter().map(|kept| format!("{}::regclass::oid", literal(&kept.table))).collect::<Vec<_>>();
    let silenced = format!(
        "SELECT tgrelid::regclass FROM pg_catalog.pg_trigger WHERE (tgrelid = ANY (ARRAY[{0}]) OR tgconstrrelid = ANY (ARRAY[{0}]))
         AND NOT {1} AND tgname !~ '^backout' AND tgenabled <> 'O' LIMIT 1",
        names.join(", "),
        catalog::users_trigger("pg_trigger")
    );
    if let Some(Some(table)) = catalog::column(client, &silenced)?.into_iter().next() {
        let why =
            format!("triggers of constraints of {table} are silenced, and nothing tells which (ENABLE TRIGGER ALL)");
        return Err(stuck(whole, why).into());
    }
    let families = catalog::column(client, &format!("SELECT unnest(ARRAY[{}])", names.join(", ")))?;
    let families = families.into_iter().flatten().filter_map(|oid| oid.parse().ok()).collect();
    let family = catalog::read(client, &Wanted { families, ..Wanted::default() }, version)?;
    let owned: Vec<Object> = family.iter().filter(|object| object.kind == Kind::Sequence).cloned().collect();
    for sequence in &owned {
        client.batch_execute(&format!("ALTER SEQUENCE {} OWNED BY NONE", sequence.id()))?;
    }
    let hanging = hanging(client, version, whole)?;
    let mut tables: Vec<&Object> = Vec::new();
    for kept in tree {
        let me = hanging.iter().find(|object| object.kind == Kind::Table && object.id() == kept.table);
        tables.push(me.ok_or_else(|| stuck(&kept.table, "it is gone"))?);
    }
    let other = hanging.iter().find(|object| {
        matches!(object.kind, Kind::Table | Kind::Sequence) && !is_here(object.id())
            || object.kind == Kind::Column && !is_here(object.of()) && object.part("relation").is_none()
    });
    if let Some(other) = other {
        return Err(stuck(whole, format!("{} hangs on it", other.shown())).into());
    }
    let mut wanted = hanging.clone();
    for kept in tree {
        wanted = ddl_columns::with_old_columns(&wanted, kept, changes);
    }
    let mut room = Vec::new();
    for kept in tree {
        room.extend(ddl_columns::room(&mut wanted, &kept.table));
    }
    let moved: Vec<Moved> = tables.iter().map(|table| aside(table)).collect();
    client.batch_execute(&format!("CREATE SCHEMA {SCHEMA}"))?;
    let all: Vec<&Object> = hanging.iter().collect();
    let mut drops = ddl_turn::drops(&all, &|object| ddl_hold::stand_in(object, &all, &moved));
    // What takes their rows is dropped under the names that they have yet.
    let of_tables =
        |act: &ddl_turn::Act, verb: &str| tables.iter().any(|table| act.shown == format!("{verb} {}", table.shown()));
    drops.sort_by_key(|act| of_tables(act, "drop"));
    ddl_turn::run(client, drops)?;
    let wanted: Vec<&Object> = wanted.iter().collect();
    let made: Vec<&Object> = wanted.iter().copied().chain(&room).collect();
    let acts = ddl_turn::makes(&made, &|_| None)?;
    let (first, rest): (Vec<_>, Vec<_>) = acts.into_iter().partition(|act| of_tables(act, "make"));
    ddl_turn::run(client, first)?;
    for ((table, moved), values) in tables.iter().zip(&moved).zip(values) {
        let (id, held) = (table.id(), moved.held());
        let drops: Vec<String> = room
            .iter()
            .filter(|column| column.of() == id)
            .map(|column| format!("DROP COLUMN {}", column.text("name")))
            .collect();
        if !drops.is_empty() {
            client.batch_execute(&format!("ALTER TABLE {id} {}", drops.join(", ")))?;
        }
        // The rows are in the partitions.
        if table.part("partition key").is_some() {
            continue;
        }
        let fill = values.fill(&columns_to_fill(&wanted, id), &held, &old_defaults(changes, id));
        if let Err(error) = ddl_turn::attempt(client, &fill) {
            // What others wrote since is more than the old shape holds.
            if !is_barred(&error) {
                return Err(TurnError::from(error).into());
            }
            let rows = values.unfit(client, &held, &error)?;
            let stuck = || stuck(id, ddl_turn::reason(&error)).into();
            return Err(if rows.is_empty() { stuck() } else { ShapeError::Rows(rows) });
        }
    }
    // Whatever reads a partitioned table finds its rows once the partitions are attached: keys that point at it, views.
    if tree.len() > 1 {
        let own = |object: &&Object| {
            let is_own = is_here(object.id()) && object.kind == Kind::Table || is_here(object.of());
            is_own && object.part("references").is_none()
        };
        let shown: Vec<String> =
            wanted.iter().copied().filter(own).map(|one| format!("make {}", one.shown())).collect();
        let (own_acts, mut others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|act| shown.contains(&act.shown));
        ddl_turn::run(client, own_acts)?;
        let owned: Vec<&Object> = wanted.iter().copied().filter(own).collect();
        ddl_turn::converge(client, version, &owned, Reach::Whole)?;
        // Keys of the partitions come with that of the whole.
        let come: Vec<String> =
            wanted.iter().filter(|key| key.is_inherited()).map(|key| format!("make {}", key.shown())).collect();
        others.retain(|act| !come.contains(&act.shown));
        ddl_turn::run(client, others)?;
    } else {
        ddl_turn::run(client, rest)?;
    }
    // The old tables have taken those of their identity columns along.
    for (column, sequence) in hanging.iter().filter_map(|object| Some((object, object.part("sequence")?))) {
        let of = tables.iter().find(|table| table.id() == column.of());
        let schema = of.map_or("", |table| table.text("schema"));
        let bare = sequence.strip_prefix(schema).and_then(|rest| rest.strip_prefix('.')).unwrap_or(sequence);
        let name = literal(sequence);
        client.batch_execute(&format!("SELECT setval({name}, last_value, is_called) FROM {SCHEMA}.{bare}"))?;
    }
    let held: Vec<String> = moved.iter().map(Moved::held).collect();
    ddl_turn::attempt(client, &format!("DROP TABLE {}; DROP SCHEMA {SCHEMA}", held.join(", "))).map_err(|error| {
        match error.code() {
            Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => {
                let reason = ddl_turn::reason(&error);
                stuck(whole, moved.iter().fold(reason, |text, table| text.replace(&table.held(), &table.id)))
            }
            _ => error.into(),
        }
    })?;
    let mut all: Vec<&Object> = wanted;
    all.extend(&owned);
    Ok(ddl_turn::converge(client, version, &all, Reach::Whole)?)
}

/// How a table stands aside while the new one is filled from it.
fn aside(table: &Object) -> Moved {
    Moved {
        id: table.id().to_owned(),
        hold: SCHEMA.to_owned(),
        word: "TABLE".to_owned(),
        schema: table.text("schema").to_owned(),
        name: table.text("name").to_owned(),
        content: None,
    }
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

/// The columns that the new table is filled in.
fn columns_to_fill<'o>(wanted: &[&'o Object], table: &str) -> Vec<&'o Object> {
    let is_filled =
        |object: &&&Object| object.kind == Kind::Column && object.of() == table && object.part("generated").is_none();
    wanted.iter().filter(is_filled).copied().collect()
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
