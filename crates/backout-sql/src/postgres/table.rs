//! A table's columns and the key by which its rows are told apart, as the catalogs have them now.

use postgres::Error;

use super::session::{Session, ident, literal};
use super::stream::{Column, KeyColumn, Table};

/// Types whose `=` holds for identical values only; of text, where the collation is deterministic. All others are compared
/// by their images and their text.
const EXACT: &str = "'bool','int2','int4','int8','oid','date','timestamp','timestamptz','time','uuid','bytea','char','name','text','varchar'";

/// Reads the definition; an error where there is no such table.
pub fn read(session: &mut Session, oid: u32) -> Result<Table, Error> {
    let head = session.rows(&format!(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = {oid}"
    ))?;
    let name = |at: usize| head.first().and_then(|row| row[at].clone()).unwrap_or_default();
    let rows = session.rows(&format!(
        "SELECT a.attnum, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
             t.typtype = 'e' OR t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND t.typname IN ({EXACT})
                 AND (l.oid IS NULL OR l.collisdeterministic),
             a.attidentity = 'a'
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
         LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
         WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum"
    ))?;
    let mut columns = Vec::new();
    let mut numbers = Vec::new();
    for row in rows {
        let text = |at: usize| row[at].clone().unwrap_or_default();
        numbers.push(text(0));
        columns.push(Column { name: text(1), kind: text(2), exact: text(3) == "t", always: text(4) == "t" });
    }
    let keys = session.rows(&format!(
        "WITH best AS (
             SELECT i.* FROM pg_catalog.pg_index i
             WHERE i.indrelid = {oid} AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
                 AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = {oid}
                     AND a.attnum = ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1]) AND (NOT a.attnotnull OR a.attgenerated <> ''))
             ORDER BY i.indisprimary DESC, i.indisreplident DESC, i.indnkeyatts, i.indexrelid LIMIT 1)
         SELECT k.attnum, 'OPERATOR(' || pg_catalog.quote_ident(n.nspname) || '.' || o.oprname || ')'
         FROM best, pg_catalog.generate_series(0, best.indnkeyatts - 1) AS at
         CROSS JOIN LATERAL (SELECT best.indkey[at] AS attnum, best.indclass[at] AS opclass) AS k
         JOIN pg_catalog.pg_opclass c ON c.oid = k.opclass
         JOIN pg_catalog.pg_amop m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3
             AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype
         JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
         ORDER BY at"
    ))?;
    let key = keys
        .into_iter()
        .filter_map(|row| {
            let column = numbers.iter().position(|number| Some(number) == row[0].as_ref())?;
            Some(KeyColumn { column, equals: row[1].clone()? })
        })
        .collect();
    Ok(Table { schema: name(0), name: name(1), columns, key, made: false })
}

/// The table of that name; `None` where there is none.
pub fn find(session: &mut Session, schema: &str, name: &str) -> Result<Option<(u32, Table)>, Error> {
    let oid = session.value(&format!(
        "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = {} AND c.relname = {} AND c.relkind = 'r'",
        literal(schema),
        literal(name)
    ))?;
    match oid.and_then(|oid| oid.parse().ok()) {
        Some(oid) => Ok(Some((oid, read(session, oid)?))),
        None => Ok(None),
    }
}

/// The columns, each with `alias` before it.
pub fn list(table: &Table, alias: &str) -> String {
    let prefix = if alias.is_empty() { String::new() } else { format!("{alias}.") };
    table.columns.iter().map(|column| format!("{prefix}{}", ident(&column.name))).collect::<Vec<_>>().join(", ")
}

/// The name, in quotes and with its schema.
pub fn quoted(table: &Table) -> String {
    format!("{}.{}", ident(&table.schema), ident(&table.name))
}

/// The name as it is said to people: `public` goes without saying.
pub fn shown(table: &Table) -> String {
    if table.schema == "public" { table.name.clone() } else { format!("{}.{}", table.schema, table.name) }
}
