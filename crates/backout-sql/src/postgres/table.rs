//! A table's columns and the key by which its rows are told apart, as the catalogs have them now.

use postgres::Error;

use super::prepared::{self, Asked};
use super::session::{Session, ident, literal};
use super::stream::{Column, KeyColumn, Table};

/// Types whose `=` holds for identical values only; of text, where the collation is deterministic. All others are compared
/// by their images and their text.
const EXACT: &str = "'bool','int2','int4','int8','oid','date','timestamp','timestamptz','time','uuid','bytea','char','name','text','varchar'";

/// The name, the columns and the key of one table, told apart by their first column.
fn question() -> String {
    format!(
        "SELECT 'name', n.nspname, c.relname, NULL, NULL, NULL FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = $1
         UNION ALL (SELECT 'column', a.attnum::text, a.attname, format_type(a.atttypid, a.atttypmod),
             (t.typtype = 'e' OR t.typnamespace = 'pg_catalog'::regnamespace AND t.typname IN ({EXACT})
                 AND (l.oid IS NULL OR l.collisdeterministic))::text,
             (a.attidentity = 'a')::text
         FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation l ON l.oid = a.attcollation
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum)
         UNION ALL (SELECT 'key', k.attnum::text, 'OPERATOR(' || quote_ident(n.nspname) || '.' || o.oprname || ')', NULL, NULL, NULL
         FROM (SELECT i.* FROM pg_index i
             WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
                 AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = $1
                     AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) AND (NOT a.attnotnull OR a.attgenerated <> ''))
             ORDER BY i.indisprimary DESC, i.indisreplident DESC, i.indnkeyatts, i.indexrelid LIMIT 1) AS best
         CROSS JOIN generate_series(0, best.indnkeyatts - 1) AS at
         CROSS JOIN LATERAL (SELECT best.indkey[at] AS attnum, best.indclass[at] AS opclass) AS k
         JOIN pg_opclass c ON c.oid = k.opclass
         JOIN pg_amop m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3
             AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype
         JOIN pg_operator o ON o.oid = m.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace ORDER BY at)"
    )
}

/// Reads the definition in the open transaction; empty where there is no such table.
pub fn read(session: &mut Session, oid: u32) -> Result<Table, Error> {
    let mut table = Table {
        schema: String::new(),
        name: String::new(),
        columns: Vec::new(),
        key: Vec::new(),
        made: false,
        names: Vec::new(),
    };
    let mut numbers = Vec::new();
    for row in prepared::rows(&mut session.client, &[Asked::new(question(), "oid", oid.to_string())])? {
        let Ok([what, first, name, kind, exact, always]) = <[String; 6]>::try_from(row) else { continue };
        match what.as_str() {
            "name" => (table.schema, table.name) = (first, name),
            "column" => {
                numbers.push(first);
                table.columns.push(Column { name, kind, exact: exact == "true", always: always == "true" });
            }
            _ => {
                let column = numbers.iter().position(|number| *number == first);
                table.key.extend(column.map(|column| KeyColumn { column, equals: name }));
            }
        }
    }
    Ok(table)
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

/// The columns in brackets, as INSERT and COPY take them; a table may have none.
pub fn bracketed(table: &Table) -> String {
    if table.columns.is_empty() { String::new() } else { format!("({})", list(table, "")) }
}

/// The name, in quotes and with its schema.
pub fn quoted(table: &Table) -> String {
    format!("{}.{}", ident(&table.schema), ident(&table.name))
}

/// The name as it is said to people: `public` goes without saying.
pub fn shown(table: &Table) -> String {
    if table.schema == "public" { table.name.clone() } else { format!("{}.{}", table.schema, table.name) }
}

/// The same of a name that is in quotes, with its schema.
pub fn plain(id: &str) -> String {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut letters = id.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.next_if_eq(&'"').is_some() => {
                parts.last_mut().into_iter().for_each(|part| part.push('"'));
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            other => parts.last_mut().into_iter().for_each(|part| part.push(other)),
        }
    }
    match parts.as_slice() {
        [schema, name] if schema == "public" => name.clone(),
        parts => parts.join("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_name_is_shown_like_the_table() {
        assert_eq!(plain("public.t"), "t");
        assert_eq!(plain("s.t"), "s.t");
        assert_eq!(plain(r#""We ird.""sch"."T b.l""#), r#"We ird."sch.T b.l"#);
    }
}
