//! Attributes of a composite type whose values stand in rows: a change of them reaches into those rows, unseen.

use postgres::Error;

use super::catalog::{self, Kind, literal};
use super::ddl::Change;
use super::ddl_observe::pinned;
use super::prepared::Client;

/// Why these changes cannot be taken back: a column that holds values of a type whose attributes come or go.
pub(super) fn in_use(client: &mut Client, changes: &[Change]) -> Result<Option<String>, Error> {
    // Of a type that comes or goes as a whole nothing is left to hold.
    let comes_or_goes = |of: &str| {
        changes.iter().any(|change| match (&change.before, &change.after) {
            (None, Some(one)) | (Some(one), None) => one.id() == of,
            _ => false,
        })
    };
    let altered = changes.iter().filter_map(|change| change.before.as_ref().or(change.after.as_ref()));
    let mut types: Vec<&str> =
        altered.filter(|object| object.kind == Kind::Attribute).map(|object| object.of()).collect();
    types.dedup();
    for of in types.into_iter().filter(|of| !comes_or_goes(of)) {
        if let Some(column) = pinned(client, |client| column_of(client, of))? {
            return Ok(Some(format!("{column} holds values of type {of}, and what becomes of them is not captured")));
        }
    }
    Ok(None)
}

/// A column that holds values of a type: plain, in an array, a domain, a range or another composite type.
fn column_of(client: &mut Client, of: &str) -> Result<Option<String>, Error> {
    let sql = format!(
        "WITH RECURSIVE used AS (SELECT to_regtype({})::oid AS oid UNION \
         SELECT t.oid FROM used u JOIN pg_catalog.pg_type t ON t.typelem = u.oid OR t.typbasetype = u.oid \
         OR EXISTS (SELECT FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid AND r.rngsubtype = u.oid) \
         OR EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
         WHERE c.oid = t.typrelid AND c.relkind = 'c' AND a.atttypid = u.oid AND NOT a.attisdropped)) \
         SELECT format('column %I of %s', a.attname, c.oid::regclass) FROM used u \
         JOIN pg_catalog.pg_attribute a ON a.atttypid = u.oid AND NOT a.attisdropped \
         JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'm') LIMIT 1",
        literal(of)
    );
    Ok(catalog::column(client, &sql)?.into_iter().flatten().next())
}
