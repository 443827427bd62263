//! Kept values of one table in temporary tables: what of them has a row to come back to, which rows that others wrote have
//! no place in the old shape, and the statement that fills the table in its old shape.

use std::collections::BTreeMap;

use backout_model::target::TargetError;

use super::catalog::{self, Object};
use super::ddl::Context;
use super::ddl_keep::{self, ColumnValues, Kept, What};
use super::ddl_turn;
use super::prepared::Client;

/// A row that others wrote since, and why the old shape has no place for it.
pub(super) struct Unfit {
    pub table: String,
    pub key: String,
    pub column: Option<String>,
    pub now: String,
}

/// How many rows that do not fit are looked at.
const LOOKED_AT: usize = 1000;

/// How the names of the temporary tables begin.
const BEFORE: &str = "pg_temp.backout_before";
const AFTER: &str = "pg_temp.backout_after";

/// The kept values of one table, in temporary tables.
pub(super) struct Values<'k> {
    table: &'k str,
    columns: &'k [ColumnValues],
    /// What a row is known by, as expressions.
    keys: Vec<String>,
    /// The same for people.
    shown: String,
    /// Columns `k0 …`, then the values under their names.
    before: String,
    /// The same of what retyped columns held afterwards.
    after: Option<String>,
}

impl<'k> Values<'k> {
    /// Brings them from the images; `number` tells those of several tables apart.
    pub(super) fn bring(context: &mut Context<'_>, kept: &'k Kept, number: usize) -> Result<Self, TargetError> {
        let failed = |error: postgres::Error| {
            TargetError::failed(format!("cannot bring back the values of table {}", kept.table), error)
        };
        let What::Values { key, others, columns, before, after } = &kept.what else {
            return Err(TargetError::Images {
                target: context.target.to_owned(),
                what: format!("no values are kept for table {}", kept.table),
            });
        };
        let keys = ddl_keep::row_key(key, others);
        let mut make = |name: &str, block: u64, old: bool| -> Result<(), TargetError> {
            let mut list = vec![numbered(&keys)];
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
        let names = [format!("{BEFORE}_{number}"), format!("{AFTER}_{number}")];
        make(&names[0], *before, true)?;
        if let Some(after) = after {
            make(&names[1], *after, false)?;
        }
        let [before, other] = names;
        Ok(Self {
            table: &kept.table,
            columns,
            shown: shown_key(key, others),
            keys,
            before,
            after: after.map(|_| other),
        })
    }

    /// Gives the temporary tables up: a type that goes next must not be in use.
    pub(super) fn let_go(&self, client: &mut Client) -> Result<(), postgres::Error> {
        let after = self.after.as_ref().map(|name| format!(", {name}")).unwrap_or_default();
        client.batch_execute(&format!("DROP TABLE {}{after}", self.before))
    }

    /// How many kept values have no row: it is gone, or is another one now.
    pub(super) fn homeless(&self, client: &mut Client) -> Result<u64, postgres::Error> {
        let without = without_row(self.table, &self.keys, &self.before);
        let values = catalog::column(client, &format!("SELECT count(*) {without}"))?.into_iter().flatten().next();
        Ok(values.and_then(|rows| rows.parse().ok()).unwrap_or(0))
    }

    /// True where others have rows that were not there.
    pub(super) fn has_others(&self, client: &mut Client) -> Result<bool, postgres::Error> {
        let (same, rows) = (same_keys("b", &self.keys), rows_with_keys(self.table, &self.keys));
        let before = &self.before;
        let came = format!("SELECT 1 FROM {rows} WHERE NOT EXISTS (SELECT FROM {before} b WHERE {same}) LIMIT 1");
        Ok(!catalog::column(client, &came)?.is_empty())
    }

    /// Looks for rows whose value would be another one after the way to the old type and back. What cannot be cast at all is
    /// found as the table is filled.
    pub(super) fn lossy(&self, client: &mut Client) -> Result<Vec<Unfit>, postgres::Error> {
        let Some(after) = &self.after else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for column in self.columns {
            let Some(rows) = lossy_rows(self.table, &self.keys, after, column) else { continue };
            client.batch_execute("SAVEPOINT backout_fit")?;
            let sql = format!("SELECT {}, o.{} {rows} LIMIT {LOOKED_AT}", self.shown, column.name);
            match catalog::rows(client, &sql) {
                Ok(rows) => found.extend(rows.into_iter().map(|row| Unfit {
                    table: self.table.to_owned(),
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

    /// The statement that fills the table in its old shape from the one that is held and the kept values.
    pub(super) fn fill(&self, columns: &[&Object], held: &str, defaults: &BTreeMap<String, String>) -> String {
        let lost: BTreeMap<&str, bool> =
            self.columns.iter().map(|column| (column.name.as_str(), column.new_type.is_some())).collect();
        let mut names = Vec::new();
        let mut list = Vec::new();
        for column in columns {
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
                     ELSE {} END",
                    cast(&format!("o.{name}"), new_type(self.columns, name), column.text("type"))
                ),
            });
        }
        let same = |other: &str| same_keys(other, &self.keys);
        let after = self.after.as_ref().map(|name| format!(" LEFT JOIN {name} a ON {}", same("a"))).unwrap_or_default();
        format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM (SELECT *, {} FROM {held} ORDER BY ctid) o \
             LEFT JOIN {} b ON {}{after}",
            self.table,
            names.join(", "),
            list.join(", "),
            numbered(&self.keys),
            self.before,
            same("b"),
        )
    }

    /// The rows that do not fit, where that statement failed by `error`: those that came since or hold another value in a column
    /// that gets its old type back.
    pub(super) fn unfit(
        &self,
        client: &mut Client,
        held: &str,
        error: &postgres::Error,
    ) -> Result<Vec<Unfit>, postgres::Error> {
        let same = |other: &str| same_keys(other, &self.keys);
        let from = format!("(SELECT *, {} FROM {held}) o", numbered(&self.keys));
        let (shown, mut found) = (&self.shown, Vec::new());
        if let Some(after) = &self.after {
            for column in self.columns.iter().filter(|column| column.new_type.is_some()) {
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
                    let (old, new) = (&column.old_type, column.new_type.as_deref().unwrap_or_default());
                    let value = format!("{}::{new}", catalog::literal(&row[1]));
                    let Err(error) = ddl_turn::attempt(client, &format!("SELECT {}", cast(&value, new, old))) else {
                        continue;
                    };
                    found.push(Unfit {
                        table: self.table.to_owned(),
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
                self.before,
                same("b")
            );
            let why = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
            for key in catalog::column(client, &came)?.into_iter().flatten() {
                found.push(Unfit { table: self.table.to_owned(), key, column: None, now: why.clone() });
            }
        }
        Ok(found)
    }
}

/// Questions for rows that stand in the way, of a table whose values have just been loaded by `copy`; none for what else is
/// copied.
pub(super) fn in_the_way_after(kept: &Kept, copy: &str) -> Vec<String> {
    let What::Values { key, others, columns, .. } = &kept.what else { return Vec::new() };
    let keys = ddl_keep::row_key(key, others);
    let Some(name) = copy.split_whitespace().nth(1) else { return Vec::new() };
    match (name.starts_with(BEFORE), name.starts_with(AFTER)) {
        (true, _) => vec![without_row(&kept.table, &keys, name)],
        (_, true) => columns.iter().filter_map(|column| lossy_rows(&kept.table, &keys, name, column)).collect(),
        _ => Vec::new(),
    }
}

/// The columns by which a row is known again, under numbers.
fn numbered(keys: &[String]) -> String {
    keys.iter().enumerate().map(|(at, key)| format!("{key} AS k{at}")).collect::<Vec<_>>().join(", ")
}

/// A row `o` of the table is one of the kept rows `other`.
fn same_keys(other: &str, keys: &[String]) -> String {
    (0..keys.len()).map(|at| format!("{other}.k{at} = o.k{at}")).collect::<Vec<_>>().join(" AND ")
}

fn rows_with_keys(table: &str, keys: &[String]) -> String {
    format!("(SELECT {} FROM ONLY {table}) o", numbered(keys))
}

/// The kept values `before` that have no row, as what follows a SELECT list.
fn without_row(table: &str, keys: &[String], before: &str) -> String {
    let (same, rows) = (same_keys("b", keys), rows_with_keys(table, keys));
    format!("FROM {before} b WHERE NOT EXISTS (SELECT FROM {rows} WHERE {same})")
}

/// The rows whose value in a retyped column others wrote, and whose value would be another one after the way to the old
/// type and back: a cast cuts and rounds without a word. As what follows a SELECT list.
fn lossy_rows(table: &str, keys: &[String], after: &str, column: &ColumnValues) -> Option<String> {
    let (name, old, new) = (&column.name, &column.old_type, column.new_type.as_ref()?);
    Some(format!(
        "FROM (SELECT *, {} FROM ONLY {table}) o LEFT JOIN {after} a ON {} WHERE o.{name} IS NOT NULL
         AND (a.k0 IS NULL OR a.{name}::text IS DISTINCT FROM o.{name}::text)
         AND {}::text IS DISTINCT FROM o.{name}::text",
        numbered(keys),
        same_keys("a", keys),
        cast(&format!("({})", cast(&format!("o.{name}"), new, old)), old, new)
    ))
}

/// A value on the way from one type to another. Numbers go as numbers: the text of one need not be that of the other's.
fn cast(value: &str, from: &str, to: &str) -> String {
    const NUMBERS: [&str; 6] = ["smallint", "integer", "bigint", "numeric", "real", "double precision"];
    let is_number = |kind: &str| NUMBERS.iter().any(|number| kind == *number || kind.starts_with("numeric("));
    if is_number(from) && is_number(to) { format!("{value}::{to}") } else { format!("{value}::text::{to}") }
}

fn new_type<'c>(columns: &'c [ColumnValues], name: &str) -> &'c str {
    columns.iter().find(|column| column.name == name).and_then(|column| column.new_type.as_deref()).unwrap_or_default()
}

/// A row `o` by its key, for people.
fn shown_key(key: &[String], others: &[String]) -> String {
    let named: Vec<String> = if key.is_empty() { others } else { key }
        .iter()
        .map(|name| format!("{} || coalesce(o.{name}::text, 'NULL')", catalog::literal(&format!("{name}="))))
        .collect();
    if named.is_empty() { "''".to_owned() } else { format!("concat_ws(', ', {})", named.join(", ")) }
}
