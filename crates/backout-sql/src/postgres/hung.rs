//! A digest of a table's definition with all that hangs on it, whosever it is: what builds the table anew from statements
//! that are known beforehand fits that alone.

use super::catalog::literal;
use super::ddl::DdlEvent;
use super::ddl_keep::What;

/// The question for it, under the pinned settings. Names no number of an object: a table that was built anew has another.
pub(super) fn question(table: &str) -> String {
    const PARTS: [(u32, &str); 10] = [
        (
            1259,
            "(SELECT concat_ws('|', to_jsonb(c) - ARRAY['oid', 'relname', 'reltype', 'relfilenode', 'relpages', 'reltuples', 'relallvisible', 'relallfrozen',
                     'reltoastrelid', 'relfrozenxid', 'relminmxid', 'relrewrite', 'reloptions', 'relhasindex', 'relhastriggers', 'relhasrules', 'relnatts'],
                 (SELECT string_agg(o, ' ') FROM unnest(c.reloptions) o WHERE o NOT LIKE 'pg\\_attver=%'),
                 (SELECT string_agg(h.inhparent::regclass::text, ',' ORDER BY h.inhseqno) FROM pg_inherits h WHERE h.inhrelid = c.oid),
                 pg_get_expr(c.relpartbound, c.oid), c.reloftype::regtype,
                 CASE WHEN c.relkind IN ('i', 'I') THEN pg_get_indexdef(c.oid) END,
                 (SELECT concat_ws(',', i.indisclustered, i.indisreplident, i.indisvalid) FROM pg_index i WHERE i.indexrelid = c.oid),
                 (SELECT to_jsonb(q) - 'seqrelid' FROM pg_sequence q WHERE q.seqrelid = c.oid),
                 (SELECT string_agg(concat_ws(',', a.attname, format_type(a.atttypid, a.atttypmod),
                     to_jsonb(a) - ARRAY['attrelid', 'attname', 'atttypid', 'attnum', 'attcacheoff', 'atthasmissing', 'attmissingval', 'attoptions'],
                     (SELECT string_agg(o, ' ') FROM unnest(a.attoptions) o WHERE o LIKE 'n_distinct%'),
                     (SELECT r.description FROM pg_description r WHERE r.classoid = 1259 AND r.objoid = c.oid AND r.objsubid = a.attnum)),
                     ';' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))
             FROM pg_class c WHERE c.oid = objid)",
        ),
        (
            1247,
            "(SELECT concat_ws('|', t.typnotnull, t.typdefault, format_type(t.typbasetype, t.typtypmod), t.typowner::regrole, t.typacl)
             FROM pg_type t WHERE t.oid = objid)",
        ),
        (2606, "(SELECT concat_ws('|', pg_get_constraintdef(k.oid), k.convalidated) FROM pg_constraint k WHERE k.oid = objid)"),
        (2620, "(SELECT concat_ws('|', pg_get_triggerdef(t.oid), t.tgenabled) FROM pg_trigger t WHERE t.oid = objid)"),
        (2618, "(SELECT concat_ws('|', pg_get_ruledef(r.oid), r.ev_enabled) FROM pg_rewrite r WHERE r.oid = objid)"),
        (2604, "(SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.oid = objid)"),
        (
            1255,
            "(SELECT concat_ws('|', CASE WHEN p.prokind IN ('f', 'p') THEN pg_get_functiondef(p.oid) ELSE p.prosrc END, p.proacl,
                 p.proowner::regrole) FROM pg_proc p WHERE p.oid = objid)",
        ),
        (
            3256,
            "(SELECT concat_ws('|', p.polcmd, p.polpermissive, (SELECT string_agg(pg_get_userbyid(u), ',' ORDER BY 1) FROM unnest(p.polroles) u),
                 pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) FROM pg_policy p WHERE p.oid = objid)",
        ),
        (
            3381,
            "(SELECT concat_ws('|', pg_get_statisticsobjdef(x.oid), to_jsonb(x) ->> 'stxstattarget', x.stxowner::regrole)
             FROM pg_statistic_ext x WHERE x.oid = objid)",
        ),
        (
            6106,
            "(SELECT concat_ws('|', p.pubname, to_jsonb(r) ->> 'prattrs', to_jsonb(r) ->> 'prqual')
             FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.oid = objid)",
        ),
    ];
    let parts: Vec<String> = PARTS.iter().map(|(class, told)| format!("WHEN {class} THEN {told}")).collect();
    format!(
        "SELECT md5(coalesce(string_agg(line, chr(10) ORDER BY line COLLATE \"C\"), '')) FROM (
         WITH RECURSIVE hung (classid, objid, objsubid) AS (
             SELECT 1259::oid, to_regclass({})::oid, 0
             UNION SELECT n.classid, n.objid, n.objsubid FROM hung h, LATERAL (
                 SELECT d.classid, d.objid, d.objsubid FROM pg_depend d WHERE d.refclassid = h.classid AND d.refobjid = h.objid
                     AND (h.objsubid = 0 OR d.refobjsubid = h.objsubid) AND d.deptype IN ('n', 'a', 'i', 'P', 'S')
                 UNION ALL SELECT 1259::oid, r.ev_class, 0 FROM pg_rewrite r WHERE h.classid = 2618 AND r.oid = h.objid) n)
         SELECT concat_ws('|', pg_describe_object(classid, objid, objsubid), CASE classid {} END,
             (SELECT r.description FROM pg_description r WHERE r.classoid = classid AND r.objoid = objid AND r.objsubid = 0),
             (SELECT count(*) FROM pg_depend x WHERE x.classid = hung.classid AND x.objid = hung.objid AND x.deptype = 'x')) AS line
         FROM hung WHERE objsubid = 0
             AND NOT (classid = 2620 AND EXISTS (SELECT FROM pg_trigger t WHERE t.oid = objid AND (t.tgisinternal OR t.tgname ~ '^backout')))
             AND NOT (classid = 1259 AND EXISTS (SELECT FROM pg_class c WHERE c.oid = objid
                 AND (c.relnamespace = 'pg_toast'::regnamespace OR c.relnamespace::regnamespace::text ~ '^backout'
                     OR pg_is_other_temp_schema(c.relnamespace) OR c.relnamespace = pg_my_temp_schema())))
             AND NOT (classid = 1247 AND EXISTS (SELECT FROM pg_type t WHERE t.oid = objid AND t.typnamespace = 'pg_toast'::regnamespace))) AS lines",
        literal(table),
        parts.join(" ")
    )
}

impl DdlEvent {
    /// The tables that its undo builds anew.
    pub(super) fn rebuilds(&self) -> impl Iterator<Item = &str> {
        let shaped = self.kept.iter().filter(|kept| matches!(kept.what, What::Values { .. }));
        shaped.map(|kept| kept.table.as_str())
    }
}
