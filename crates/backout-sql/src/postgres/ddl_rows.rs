//! Rows that stand in the way of a schema change's undo.

use postgres::Error;

use super::catalog::{self, Object, literal};
use super::prepared::Client;

/// How many rows of a relation meet a condition.
pub(super) fn count(client: &mut Client, relation: &str, condition: &str) -> Result<i64, Error> {
    let count = catalog::column(client, &format!("SELECT count(*) FROM {relation} WHERE {condition}"))?;
    Ok(count.into_iter().flatten().next().and_then(|count| count.parse().ok()).unwrap_or(0))
}

/// A condition on rows whose value in an added column is not the one that they got with it; none where that cannot be
/// told, because each row got a value of its own.
pub(super) fn not_as_added(client: &mut Client, column: &Object) -> Result<Option<String>, Error> {
    let name = column.text("name");
    if column.part("generated").is_some() || column.part("identity").is_some() {
        return Ok(None);
    }
    let Some(default) = column.part("default") else { return Ok(Some(format!("{name} IS NOT NULL"))) };
    let sql = format!(
        "SELECT atthasmissing OR NOT EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p \
         ON d.refclassid = 1255 AND p.oid = d.refobjid JOIN pg_catalog.pg_attrdef f ON f.oid = d.objid \
         WHERE d.classid = 2604 AND f.adrelid = attrelid AND f.adnum = attnum) AND {literal} !~ '[(]' \
         FROM pg_catalog.pg_attribute WHERE attrelid = {of}::regclass AND quote_ident(attname) = {quoted}",
        literal = literal(default),
        of = literal(column.of()),
        quoted = literal(name)
    );
    let constant = catalog::column(client, &sql)?.into_iter().flatten().next().as_deref() == Some("t");
    Ok(constant.then(|| format!("{name}::text IS DISTINCT FROM ({default})::{}::text", column.text("type"))))
}
