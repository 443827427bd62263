//! Puts the rows of emptied tables back, all those of a statement together: foreign keys look at them once all are there,
//! and triggers and rules are silent meanwhile, since what they would do is in the images already.

use backout_model::conflict::{ConflictKind, OnConflict};
use backout_model::target::{Manner, TargetError};
use backout_model::words;
use postgres::Error;
use postgres::error::SqlState;

use super::admit::{Excluding, is_barred};
use super::catalog::{self, literal};
use super::ddl::{Context, DdlEvent};
use super::ddl_keep::{Keep, Kept, What};
use super::ddl_rows::count;
use super::ddl_turn;
use super::prepared::Client;
use super::quiet::may_be_replica;

/// What stands in the way of a table's rows.
pub(super) struct Found {
    pub table: String,
    pub kind: ConflictKind,
    pub now: String,
}

/// Puts all rows back. Rows that others wrote since stay; where one has the same key, that is told and the newer one stays,
/// or goes under `Overwrite`.
pub(super) fn put_back(context: &mut Context<'_>, kept: &[Kept], manner: Manner) -> Result<Vec<Found>, TargetError> {
    let tables: Vec<&str> = kept.iter().filter(|kept| is_rows(kept)).map(|kept| kept.table.as_str()).collect();
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let failed =
        |error: Error| TargetError::failed(format!("cannot put the rows of {} back", tables.join(", ")), error);
    let silence = Silence::of(context.client, context.version, &tables).map_err(failed)?;
    context.client.batch_execute(&silence.begin).map_err(failed)?;
    let mut conflicts = Vec::new();
    for kept in kept {
        if let What::Rows { columns, block } = &kept.what {
            conflicts.append(&mut one_table(context, &kept.table, columns, *block, manner)?);
        }
    }
    context.client.batch_execute(&silence.end).map_err(failed)?;
    if silence.replica {
        conflicts.extend(dangling(context.client, &tables).map_err(failed)?);
    }
    Ok(conflicts)
}

/// How many rows of emptied tables are not as they were put back: others changed, added or deleted them since.
pub(super) fn changed_since(
    client: &mut Client,
    keep: &mut dyn Keep,
    kept: &[Kept],
) -> Result<Vec<Found>, TargetError> {
    let mut found = Vec::new();
    for Kept { table, what } in kept {
        let What::Rows { columns, block } = what else { continue };
        let failed = |error: Error| TargetError::failed(format!("cannot compare the rows of {table}"), error);
        let list = columns.join(", ");
        bring(client, keep, table, &list, *block)?;
        let side = |from: &str| format!("(SELECT ROW({list})::text FROM {from})");
        let (now, then) = (side(&format!("ONLY {table}")), side("pg_temp.backout_rows"));
        let changed = |one: &str, other: &str| format!("({one} EXCEPT ALL {other}) AS other");
        let rows = count(client, &changed(&now, &then), "true").map_err(failed)?
            + count(client, &changed(&then, &now), "true").map_err(failed)?;
        client.batch_execute("DROP TABLE pg_temp.backout_rows").map_err(failed)?;
        if rows > 0 {
            let now = words::count(rows.unsigned_abs(), "other row");
            found.push(Found { table: table.clone(), kind: ConflictKind::Changed, now });
        }
    }
    Ok(found)
}

/// Brings kept rows into a temporary table.
fn bring(client: &mut Client, keep: &mut dyn Keep, table: &str, list: &str, block: u64) -> Result<(), TargetError> {
    let failed = |error: Error| TargetError::failed(format!("cannot bring the rows of {table} back"), error);
    let make = format!(
        "DROP TABLE IF EXISTS pg_temp.backout_rows; CREATE TEMPORARY TABLE backout_rows ON COMMIT DROP AS \
         SELECT {list} FROM ONLY {table} WHERE false"
    );
    client.batch_execute(&make).map_err(failed)?;
    keep.bring(client, &format!("COPY pg_temp.backout_rows ({list}) FROM STDIN"), block)
}

/// Why the kept rows have no place: their table or one of its columns is gone.
pub(super) fn unfit(client: &mut Client, kept: &Kept) -> Result<Option<String>, Error> {
    let What::Rows { columns, .. } = &kept.what else { return Ok(None) };
    let name = literal(&kept.table);
    let there = format!(
        "SELECT pg_catalog.quote_ident(attname) FROM pg_catalog.pg_attribute \
         WHERE attrelid = pg_catalog.to_regclass({name}) AND NOT attisdropped"
    );
    let there: Vec<String> = catalog::column(client, &there)?.into_iter().flatten().collect();
    if there.is_empty() {
        return Ok(Some("it is gone".to_owned()));
    }
    Ok(columns.iter().find(|column| !there.contains(column)).map(|column| format!("column {column} is gone")))
}

fn is_rows(kept: &Kept) -> bool {
    matches!(kept.what, What::Rows { .. })
}

fn one_table(
    context: &mut Context<'_>,
    table: &str,
    columns: &[String],
    block: u64,
    manner: Manner,
) -> Result<Vec<Found>, TargetError> {
    let failed = |error: Error| TargetError::failed(format!("cannot put the rows of {table} back"), error);
    let list = columns.join(", ");
    bring(context.client, context.keep, table, &list, block)?;
    let client = &mut *context.client;
    let excluding = Excluding::of(client, table).map_err(failed)?;
    let same: Vec<String> = excluding.all().map(|condition| format!("({condition})")).collect();
    let mut conflicts = Vec::new();
    if let Some(taken) = context.gone.is_one_of(table, columns, "t") {
        let rows = count(client, "pg_temp.backout_rows t", &taken).map_err(failed)?;
        if rows > 0 {
            let now =
                format!("{} that a later step had made anew, gone since", words::count(rows.unsigned_abs(), "row"));
            conflicts.push(Found { table: table.to_owned(), kind: ConflictKind::Missing, now });
        }
        if manner.on_conflict != OnConflict::Overwrite {
            client.batch_execute(&format!("DELETE FROM pg_temp.backout_rows t WHERE {taken}")).map_err(failed)?;
        }
    }
    if !same.is_empty() {
        let same = same.join(" OR ");
        let there = format!("ONLY {table} x JOIN pg_temp.backout_rows t ON {same}");
        let rows = count(client, &there, "true").map_err(failed)?;
        if rows > 0 {
            let now = format!("{} with keys of old rows", words::count(rows.unsigned_abs(), "row"));
            conflicts.push(Found { table: table.to_owned(), kind: ConflictKind::Appeared, now });
            let sql = match manner.on_conflict {
                OnConflict::Overwrite => {
                    format!("DELETE FROM ONLY {table} x USING pg_temp.backout_rows t WHERE {same}")
                }
                OnConflict::Keep | OnConflict::Stop => {
                    format!("DELETE FROM pg_temp.backout_rows t USING ONLY {table} x WHERE {same}")
                }
            };
            client.batch_execute(&sql).map_err(failed)?;
        }
    }
    let insert =
        format!("INSERT INTO {table} ({list}) OVERRIDING SYSTEM VALUE SELECT {list} FROM pg_temp.backout_rows");
    client.batch_execute(&format!("{insert}; DROP TABLE pg_temp.backout_rows")).map_err(failed)?;
    Ok(conflicts)
}

/// Rows that point at nothing in tables that were not emptied. What points at another emptied table points at what it did.
fn dangling(client: &mut Client, tables: &[&str]) -> Result<Vec<Found>, Error> {
    let list = regclasses(tables);
    let links = format!(
        "SELECT t, format('SELECT count(*) FROM ONLY %s c WHERE %s AND NOT EXISTS (SELECT FROM %s p WHERE %s)', t, \
         string_agg(format('c.%I IS NOT NULL', ca.attname), ' AND '), k.confrelid::regclass, \
         string_agg(format('p.%I OPERATOR(%I.%s) c.%I', pa.attname, n.nspname, o.oprname, ca.attname), ' AND ')), \
         k.confrelid::regclass \
         FROM unnest(ARRAY[{list}]) t JOIN pg_catalog.pg_constraint k ON k.conrelid = t AND k.contype = 'f' \
         AND k.convalidated AND k.confrelid NOT IN ({list}) \
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint w WHERE w.oid = k.conparentid AND w.conrelid = k.conrelid) \
         CROSS JOIN generate_subscripts(k.conkey, 1) at \
         JOIN pg_catalog.pg_attribute ca ON ca.attrelid = k.conrelid AND ca.attnum = k.conkey[at] \
         JOIN pg_catalog.pg_attribute pa ON pa.attrelid = k.confrelid AND pa.attnum = k.confkey[at] \
         JOIN pg_catalog.pg_operator o ON o.oid = k.conpfeqop[at] JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace \
         GROUP BY t, k.oid, k.confrelid"
    );
    let mut found = Vec::new();
    for row in catalog::rows(client, &links)? {
        let [table, count, parent] = row.as_slice() else { continue };
        let rows = catalog::column(client, count)?.into_iter().flatten().next().and_then(|rows| rows.parse().ok());
        if let Some(rows @ 1_u64..) = rows {
            let now = format!("{rows} row{} of which {parent} has no more", if rows == 1 { "" } else { "s" });
            found.push(Found { table: table.clone(), kind: ConflictKind::ForeignKey, now });
        }
    }
    Ok(found)
}

fn regclasses(tables: &[&str]) -> String {
    tables.iter().map(|table| format!("{}::regclass", literal(table))).collect::<Vec<_>>().join(", ")
}

/// What silences triggers and rules and has foreign keys wait, and what ends that.
struct Silence {
    /// Foreign keys are not enforced at all meanwhile.
    replica: bool,
    begin: String,
    end: String,
}

impl Silence {
    fn of(client: &mut Client, version: u32, tables: &[&str]) -> Result<Self, Error> {
        let list = regclasses(tables);
        let replica = may_be_replica(client, version)?;
        let (mut begin, mut end) = (String::new(), String::new());
        // A key that waits anyway is left as it is; one to a table that was not emptied holds at once.
        let keys = format!(
            "SELECT conrelid::regclass, quote_ident(conname) FROM pg_catalog.pg_constraint WHERE contype = 'f' \
             AND conparentid = 0 AND NOT condeferrable AND conrelid <> confrelid \
             AND conrelid IN (SELECT t FROM unnest(ARRAY[{list}]) t UNION SELECT relid FROM unnest(ARRAY[{list}]) t, \
             pg_catalog.pg_partition_ancestors(t)) \
             AND confrelid IN (SELECT t FROM unnest(ARRAY[{list}]) t UNION SELECT relid FROM unnest(ARRAY[{list}]) t, \
             pg_catalog.pg_partition_ancestors(t))"
        );
        let keys = if replica { Vec::new() } else { catalog::rows(client, &keys)? };
        for row in keys {
            begin += &format!("ALTER TABLE {} ALTER CONSTRAINT {} DEFERRABLE;", row[0], row[1]);
            end += &format!("ALTER TABLE {} ALTER CONSTRAINT {} NOT DEFERRABLE;", row[0], row[1]);
        }
        let loud = format!(
            "SELECT tgrelid::regclass, 'TRIGGER '||quote_ident(tgname), tgenabled FROM pg_catalog.pg_trigger \
             WHERE tgrelid IN ({list}) AND {users} AND tgenabled <> 'D' \
             UNION ALL SELECT ev_class::regclass, 'RULE '||quote_ident(rulename), ev_enabled \
             FROM pg_catalog.pg_rewrite WHERE ev_class IN ({list}) AND ev_enabled <> 'D'",
            users = catalog::users_trigger("pg_trigger")
        );
        let (off, on) = disabling(client, &loud)?;
        begin += &off;
        end += &on;
        // What waits has to be done before the tables may be altered again.
        let (first, last) = if replica {
            let was = catalog::column(client, "SHOW session_replication_role")?.into_iter().flatten().next();
            let last = format!("SET LOCAL session_replication_role = {}", was.unwrap_or_else(|| "origin".to_owned()));
            ("SET LOCAL session_replication_role = replica", last)
        } else {
            ("SET CONSTRAINTS ALL DEFERRED", "SET CONSTRAINTS ALL IMMEDIATE".to_owned())
        };
        Ok(Self { replica, begin: format!("{begin}{first}"), end: format!("{last};{end}") })
    }
}

/// What disables the triggers and rules that a question finds, each as its table, its kind and name, and how it is enabled; and
/// what enables them again.
fn disabling(client: &mut Client, loud: &str) -> Result<(String, String), Error> {
    let (mut begin, mut end) = (String::new(), String::new());
    for row in catalog::rows(client, loud)? {
        let way = match row[2].as_str() {
            "R" => "ENABLE REPLICA",
            "A" => "ENABLE ALWAYS",
            _ => "ENABLE",
        };
        begin += &format!("ALTER TABLE {} DISABLE {};", row[0], row[1]);
        end += &format!("ALTER TABLE {} {way} {};", row[0], row[1]);
    }
    Ok((begin, end))
}

/// What silences the triggers of TRUNCATE on the tables that a statement emptied, and what ends that; none where there are none.
pub(super) fn of_truncate(client: &mut Client, event: &DdlEvent) -> Result<Option<(String, String)>, Error> {
    /// The bit of `pg_trigger.tgtype` for TRUNCATE.
    const ON_TRUNCATE: u32 = 1 << 5;
    let tables: Vec<&str> = event.kept.iter().filter(|kept| is_rows(kept)).map(|kept| kept.table.as_str()).collect();
    if tables.is_empty() {
        return Ok(None);
    }
    let loud = format!(
        "SELECT tgrelid::regclass, 'TRIGGER '||quote_ident(tgname), tgenabled FROM pg_catalog.pg_trigger \
         WHERE tgrelid IN ({}) AND {} AND tgtype & {ON_TRUNCATE} <> 0 AND tgenabled <> 'D'",
        regclasses(&tables),
        catalog::users_trigger("pg_trigger")
    );
    let (begin, end) = disabling(client, &loud)?;
    Ok((!begin.is_empty()).then_some((begin, end)))
}

/// The server's words where a foreign key does not hold, or a row is not admitted.
pub(super) fn rejected(error: &TargetError) -> Option<(ConflictKind, String)> {
    let TargetError::Failed { source, .. } = error else { return None };
    let error = source.downcast_ref::<postgres::Error>()?;
    let kind = match error.code() {
        Some(code) if *code == SqlState::FOREIGN_KEY_VIOLATION => ConflictKind::ForeignKey,
        _ if is_barred(error) => ConflictKind::Constraint,
        _ => return None,
    };
    Some((kind, ddl_turn::reason(error)))
}
