//! What the role may do that an undo needs and the change itself did not: asked before the step commits, while all of it can
//! still be taken back.
//!
//! Rows go back under the role that connects, with nothing firing: whoever may write to a table need not be allowed that.

use std::collections::BTreeSet;

use super::catalog::users_trigger;
use super::prepared::{self, Asked};
use super::quiet;
use super::session::{Session, literal};
use super::stream::{Event, Index};

/// Why the undo of what the open transaction did would fail for want of a right.
pub fn objection(a: &mut Session, index: &Index) -> Result<Option<String>, postgres::Error> {
    let version = a.version;
    if a.value("SELECT pg_catalog.current_setting('is_superuser')")?.as_deref() == Some("on") {
        return Ok(None);
    }
    let silent = quiet::may_be_replica(&mut a.client, version)?;
    let found = prepared::rows(&mut a.client, &[Asked::new(of_rows(silent), "", String::new())])?;
    if let Some(row) = found.into_iter().next() {
        let [table, why] = <[String; 2]>::try_from(row).unwrap_or_default();
        return Ok(Some(format!("{table}: {why}")));
    }
    of_schema(a, index)
}

/// The question for tables whose rows the transaction changed and what is in the way of their undo, both in words.
///
/// What counted before is the server's: see `catalog_changes::counted`.
fn of_rows(silent: bool) -> String {
    let users = users_trigger("t");
    let fires = format!(
        "(EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND {users} AND t.tgenabled IN ('O', 'A'))
             OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_enabled IN ('O', 'A')))"
    );
    format!(
        "WITH c AS MATERIALIZED (
             SELECT c.oid, c.relowner, c.relreplident, pg_stat_get_xact_tuples_inserted(c.oid) AS i,
                 pg_stat_get_xact_tuples_updated(c.oid) AS u, pg_stat_get_xact_tuples_deleted(c.oid) AS d
             FROM pg_class c WHERE c.relkind = 'r' AND c.oid >= 16384 AND c.relpersistence <> 't'
                 AND (SELECT n.nspname !~ '^backout_' FROM pg_namespace n WHERE n.oid = c.relnamespace) OFFSET 0)
         SELECT c.oid::regclass::text, w.why FROM c CROSS JOIN LATERAL (VALUES
             (c.d > 0 AND NOT has_table_privilege(c.oid, 'INSERT'), 'the role may not INSERT what it deleted'),
             (c.i > 0 AND NOT has_table_privilege(c.oid, 'DELETE'), 'the role may not DELETE what it inserted'),
             (c.u > 0 AND NOT has_any_column_privilege(c.oid, 'UPDATE'), 'the role may not UPDATE what was changed there'),
             (NOT pg_has_role(c.relowner, 'USAGE') AND c.u + c.d = 0 AND EXISTS (SELECT FROM pg_publication WHERE pubdelete)
                     AND (c.relreplident = 'n' OR c.relreplident = 'd' AND NOT EXISTS (
                         SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)),
                 'it has no replica identity, and only its owner may give it one for the DELETE of what was inserted'),
             (NOT {silent} AND NOT pg_has_role(c.relowner, 'USAGE') AND {fires},
                 'its triggers and rules could not be silenced meanwhile: only its owner may do that'),
             (EXISTS (SELECT FROM pg_constraint f CROSS JOIN LATERAL (VALUES (f.conrelid, f.confrelid), (f.confrelid, f.conrelid)) AS s (one, other)
                     WHERE f.contype = 'f' AND s.one = c.oid AND row_security_active(s.other) AND has_table_privilege(s.other, 'SELECT')),
                 'a foreign key could not be looked at: row level security hides rows on its other side from the role')
         ) AS w (lacks, why)
         WHERE c.i + c.u + c.d > 0 AND w.lacks ORDER BY 1, 2 LIMIT 1"
    )
}

/// The same of objects that the step made or altered: some belong to a role that the connecting one only became.
fn of_schema(a: &mut Session, index: &Index) -> Result<Option<String>, postgres::Error> {
    let (mut owners, mut relations) = (BTreeSet::new(), BTreeSet::new());
    for event in &index.events {
        let Event::Ddl { event, .. } = event else { continue };
        for object in event.changes.iter().filter_map(|change| change.after.as_ref()) {
            owners.extend(object.part("owner"));
            relations.extend(Some(object.of()).filter(|of| !of.is_empty()));
        }
    }
    if owners.is_empty() && relations.is_empty() {
        return Ok(None);
    }
    let array = |names: &BTreeSet<&str>| names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ");
    a.value(&format!(
        "SELECT format('%s belongs to %s, what only that role may take back, and the one that connects has its rights by SET ROLE alone or not at all', what, owner)
         FROM (SELECT 'what was made or altered', r.oid::regrole FROM (SELECT to_regrole(o) AS oid FROM unnest(ARRAY[{}]::text[]) AS o) AS r
             UNION ALL SELECT c.oid::regclass::text, c.relowner::regrole
             FROM pg_class c WHERE c.oid IN (SELECT to_regclass(n) FROM unnest(ARRAY[{}]::text[]) AS n)) AS x (what, owner)
         WHERE owner IS NOT NULL AND NOT pg_has_role(owner::oid, 'USAGE') ORDER BY 1 LIMIT 1",
        array(&owners),
        array(&relations)
    ))
}
