//! Rows that stand in the way of a schema change's undo.

use postgres::Error;

use super::catalog::{self, Object, literal};
use super::ddl_varying::is_computed;
use super::prepared::Client;

/// How many rows of a relation meet a condition.
pub(super) fn count(client: &mut Client, relation: &str, condition: &str) -> Result<i64, Error> {
    let count = catalog::column(client, &format!("SELECT count(*) FROM {relation} WHERE {condition}"))?;
    Ok(count.into_iter().flatten().next().and_then(|count| count.parse().ok()).unwrap_or(0))
}

/// A column as it was added to a table; its names in quotes.
pub(super) struct Added<'a> {
    pub table: &'a str,
    pub column: &'a str,
    pub kind: &'a str,
    pub default: Option<&'a str>,
    /// It was found by comparison: what rows got is the default that was noted, whatever the server added it with.
    pub found: bool,
}

impl Added<'_> {
    /// A condition on rows whose value in the column is not the one that they got with it; none where that cannot be told,
    /// because each row got a value of its own. `alias` goes before the column. Values are compared as the server writes
    /// them down: a cast to text shows some types in another way.
    pub(super) fn not_as_added(&self, client: &mut Client, alias: &str) -> Result<Option<String>, Error> {
        let name = format!("{alias}{}", self.column);
        // What rows got that were there already is kept beside the column, as a list of one, until the table is written anew.
        let sql = format!(
            "SELECT atthasmissing, (attmissingval::text::text[])[1], t.typdefault, EXISTS (SELECT FROM pg_catalog.pg_depend d \
             JOIN pg_catalog.pg_proc p ON d.refclassid = 1255 AND p.oid = d.refobjid \
             JOIN pg_catalog.pg_attrdef f ON f.oid = d.objid WHERE d.classid = 2604 AND f.adrelid = attrelid AND f.adnum = attnum) \
             FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_type t ON t.oid = atttypid \
             WHERE attrelid = {}::regclass AND quote_ident(attname) = {}",
            literal(self.table),
            literal(self.column)
        );
        let Some(row) = catalog::rows(client, &sql)?.into_iter().next() else { return Ok(None) };
        if row[0] == "t" && !self.found {
            return Ok(Some(format!("num_nulls({name}) = 1 OR format('%s', {name}) <> {}", literal(&row[1]))));
        }
        let of_domain = Some(row[2].as_str()).filter(|default| !default.is_empty());
        let Some(default) = self.default.or(of_domain) else { return Ok(Some(format!("{name} IS NOT NULL"))) };
        let constant = row[3] != "t" && !is_computed(default);
        let default = format!("({default})::{}", self.kind);
        Ok(constant.then(|| {
            format!("num_nulls({name}) <> num_nulls({default}) OR format('%s', {name}) <> format('%s', {default})")
        }))
    }
}

/// The same of a column that a step added.
pub(super) fn not_as_added(client: &mut Client, column: &Object, found: bool) -> Result<Option<String>, Error> {
    if column.part("generated").is_some() || column.part("identity").is_some() {
        return Ok(None);
    }
    let (table, name, kind) = (column.of(), column.text("name"), column.text("type"));
    Added { table, column: name, kind, default: column.part("default"), found }.not_as_added(client, "")
}
