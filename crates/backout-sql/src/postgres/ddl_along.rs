//! What would go along with what an undo takes away: rows and values of others, and objects of others that PostgreSQL drops
//! without being told to (`CASCADE`), because they hang on what goes.

use std::collections::BTreeSet;

use backout_model::conflict::ConflictKind;
use postgres::Error;

use super::catalog::{self, Key, Kind, Object, Wanted, class, literal};
use super::ddl_rows;
use super::ddl_undo::{Aim, Left, Undo, shown_definition};
use super::prepared::Client;

impl Undo<'_, '_> {
    /// Tells what others have put into the relations and columns that go, and have hung on what goes.
    pub(super) fn guard_along(&mut self, aim: &Aim) -> Result<(), Left> {
        let going: Vec<&Object> =
            aim.pairs.iter().filter(|(_, to)| to.is_none()).filter_map(|(from, _)| from.as_ref()).collect();
        let tables: Vec<&Object> = going.iter().copied().filter(|object| object.kind == Kind::Table).collect();
        let families = tables.iter().filter_map(|table| table.key.map(|key| key.oid)).collect();
        let keys: BTreeSet<Key> = going.iter().filter_map(|object| object.key).collect();
        let hanging = along(self.context.client, &keys)?.into_iter().filter(|key| !keys.contains(key)).collect();
        let wanted = Wanted { families, ..Wanted::of(hanging) };
        let found = if wanted.is_empty() {
            Vec::new()
        } else {
            catalog::read(self.context.client, &wanted, self.context.version)?
        };
        for object in found {
            // A table of ours in a publication of others is no loss to these.
            let of_others = object.kind == Kind::PublishedTable
                && !going.iter().any(|going| going.kind == Kind::Publication && going.id() == object.of());
            let ours = object.key.is_some_and(|key| keys.contains(&key)) || object.is_inherited() || of_others;
            if !ours {
                self.conflict(&object.shown(), ConflictKind::Definition, shown_definition(&object));
            }
        }
        for table in &tables {
            if table.part("partition key").is_some() {
                continue;
            }
            let rows = ddl_rows::count(self.context.client, &format!("ONLY {}", table.id()), "true")?;
            if rows > 0 && !self.context.passing.iter().any(|passing| passing == table.id()) {
                let now = if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") };
                self.conflict(&table.shown(), ConflictKind::NotEmpty, now);
            }
        }
        for column in going.iter().filter(|object| object.kind == Kind::Column) {
            let of_going = tables.iter().any(|table| table.id() == column.of());
            if of_going || column.part("relation").is_some() || column.is_inherited() {
                continue;
            }
            let Some(condition) = ddl_rows::not_as_added(self.context.client, column, self.event.found)? else {
                continue;
            };
            let mut rows = 0;
            for table in losing(self.context.client, column)? {
                rows += ddl_rows::count(self.context.client, &format!("ONLY {table}"), &condition)?;
            }
            if rows > 0 {
                let left = column.part("default").unwrap_or("NULL").to_owned();
                let now = format!("another value in {rows} row{}", if rows == 1 { "" } else { "s" });
                self.push(&column.shown(), ConflictKind::Changed, "no such column".into(), left, now);
            }
        }
        Ok(())
    }
}

/// The keys of all that PostgreSQL drops with these objects, but for what it keeps for itself.
///
/// Source: "Dependency Tracking" and `pg_depend` in PostgreSQL's manual: what depends in the ways `a`, `i`, `P` and `S` goes without
/// `CASCADE`.
fn along(client: &mut Client, going: &BTreeSet<Key>) -> Result<Vec<Key>, Error> {
    if going.is_empty() {
        return Ok(Vec::new());
    }
    let going: Vec<String> = going.iter().map(|key| format!("({}, {}, {})", key.class, key.oid, key.sub)).collect();
    let going = format!("SELECT v.a::oid, v.b::oid, v.c FROM (VALUES {}) AS v (a, b, c)", going.join(", "));
    let rows = catalog::column(client, &along_sql(&going))?;
    Ok(rows.iter().flatten().filter_map(|text| Key::parse(text)).collect())
}

/// The question for them; `going` gives class, number and column of each object that goes.
pub(super) fn along_sql(going: &str) -> String {
    format!(
        "WITH RECURSIVE gone (classid, objid, objsubid) AS (
             {going}
             UNION SELECT d.classid, d.objid, d.objsubid FROM gone g JOIN pg_catalog.pg_depend d
                 ON d.refclassid = g.classid AND d.refobjid = g.objid AND (g.objsubid = 0 OR d.refobjsubid = g.objsubid)
             WHERE d.deptype IN ('a', 'i', 'P', 'S'))
         SELECT classid||','||objid||','||objsubid FROM gone g WHERE NOT CASE classid
             WHEN 2604 THEN true
             WHEN 1247 THEN (SELECT t.typrelid <> 0 OR t.typelem <> 0 FROM pg_catalog.pg_type t WHERE t.oid = objid)
             WHEN 2618 THEN (SELECT r.rulename = '_RETURN' FROM pg_catalog.pg_rewrite r WHERE r.oid = objid)
             WHEN 2620 THEN (SELECT t.tgisinternal OR t.tgname ~ '^backout' FROM pg_catalog.pg_trigger t WHERE t.oid = objid)
             WHEN {} THEN (SELECT c.relnamespace = 'pg_toast'::regnamespace
                     OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x'))
                     OR c.relkind = 'S' AND EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = g.classid AND d.objid = g.objid AND d.deptype = 'i')
                 FROM pg_catalog.pg_class c WHERE c.oid = objid)
             ELSE false END",
        class::RELATION
    )
}

/// The tables that lose a column where it is dropped from its own: those that have it from there alone.
fn losing(client: &mut Client, column: &Object) -> Result<Vec<String>, Error> {
    let sql = format!(
        "WITH RECURSIVE tree AS (SELECT {}::regclass::oid AS oid
             UNION SELECT h.inhrelid FROM tree JOIN pg_catalog.pg_inherits h ON h.inhparent = tree.oid
             JOIN pg_catalog.pg_attribute a ON a.attrelid = h.inhrelid AND quote_ident(a.attname) = {} AND NOT a.attislocal AND a.attinhcount = 1)
         SELECT c.oid::regclass FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid WHERE c.relkind = 'r'",
        literal(column.of()),
        literal(column.text("name"))
    );
    Ok(catalog::column(client, &sql)?.into_iter().flatten().collect())
}
