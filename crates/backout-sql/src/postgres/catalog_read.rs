//! The queries that render each kind of object; one text a round trip.
//!
//! A query gives key, kind and a JSON object of the parts. Parts that have their default are NULL and left out, so
//! that a definition reads the same on every version.

use std::collections::HashMap;

use super::catalog::{Key, Wanted, class, users_trigger};
use super::prepared::Asked;

/// Leaves out what is not the user's: catalogs, temporary objects, the tool's own. Held tables are read, because what
/// they use can be dropped from under them.
pub(super) const USERS: &str = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
     AND (n.nspname !~ '^backout' OR n.nspname ~ '_h[0-9]+$')";

/// What somebody may do, sorted, with the defaults spelled out: grantee, privilege, grant option, grantor.
pub(super) fn acl(column: &str, default: &str) -> String {
    let list = if default.is_empty() { column.to_owned() } else { format!("coalesce({column}, {default})") };
    format!(
        "CASE WHEN {list} IS NOT NULL THEN (SELECT string_agg(g, chr(10) ORDER BY g COLLATE \"C\") FROM (SELECT concat_ws(chr(9), \
         CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, a.privilege_type, \
         a.is_grantable, quote_ident(pg_get_userbyid(a.grantor))) g FROM aclexplode({list}) a) a) END"
    )
}

/// Options as they are set. What the server keeps among them by itself (`pg_attver`, a column's version in some builds) is
/// left out, as pg_dump does.
fn options(column: &str) -> String {
    format!(
        "(SELECT string_agg(split_part(o, '=', 1)||'='||quote_literal(substr(o, strpos(o, '=') + 1)), ', ') \
         FROM unnest({column}) o WHERE o NOT LIKE 'pg\\_attver=%')"
    )
}

/// The two options that a column can be given; a build of the server may keep others there for itself.
fn column_options() -> &'static str {
    "(SELECT string_agg(split_part(o, '=', 1)||'='||quote_literal(substr(o, strpos(o, '=') + 1)), ', ') \
     FROM unnest(a.attoptions) o WHERE o LIKE 'n_distinct%')"
}

pub(super) fn not_of_extension(class: u32, oid: &str) -> String {
    format!("NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = {class} AND e.objid = {oid} AND e.deptype = 'e')")
}

/// The comment on an object. As obj_description() has it; that is a function of SQL, which is planned anew in every question.
pub(super) fn comment(class: u32, oid: &str, sub: &str) -> String {
    format!(
        "(SELECT remark.description FROM pg_description remark \
         WHERE remark.classoid = {class} AND remark.objoid = {oid} AND remark.objsubid = {sub})"
    )
}

/// The extensions without which an object would go, too: `ALTER … DEPENDS ON EXTENSION`.
pub(super) fn depends(class: u32, oid: &str) -> String {
    format!(
        "(SELECT string_agg(quote_ident(other.extname), chr(10) ORDER BY other.extname) FROM pg_depend leans \
         JOIN pg_extension other ON other.oid = leans.refobjid WHERE leans.classid = {class} AND leans.objid = {oid} \
         AND leans.refclassid = {} AND leans.deptype = 'x')",
        class::EXTENSION
    )
}

/// Object numbers as an array; `None` where there are none.
pub(super) fn list(oids: impl Iterator<Item = u32>) -> Option<String> {
    let mut oids: Vec<u32> = oids.collect();
    oids.sort_unstable();
    oids.dedup();
    let words: Vec<String> = oids.iter().map(u32::to_string).collect();
    (!words.is_empty()).then(|| format!("'{{{}}}'", words.join(",")))
}

/// A question about the objects whose `column` is one of `oids`.
type Question<'a> = (&'a str, &'a dyn Fn(&str) -> String);

fn ask(into: &mut Vec<Asked>, oids: Option<&String>, (condition, query): Question<'_>) {
    if let Some(oids) = oids {
        into.push(Asked::new(query(condition), "oid[]", oids.clone()));
    }
}

/// The questions for what is wanted, `relations` being the kinds of the relations among it. An object may be in more answers than one.
///
/// By own number and by relation are two questions, so that either finds its rows by an index.
pub(super) fn queries(wanted: &Wanted, relations: &HashMap<u32, char>, version: u32) -> Vec<Asked> {
    let mut all = Vec::new();
    let of = |class: u32| list(wanted.keys.iter().filter(|key| key.class == class && key.sub == 0).map(|key| key.oid));
    let families = list(wanted.families.iter().copied());
    let family = families.as_ref();
    let are = |kinds: &[char]| list(relations.iter().filter(|(_, kind)| kinds.contains(kind)).map(|(oid, _)| *oid));
    ask(&mut all, of(class::SCHEMA).as_ref(), ("n.oid = ANY ($1)", &schemas));
    ask(&mut all, are(&['r', 'p']).as_ref(), ("c.oid = ANY ($1)", &tables));
    ask(&mut all, are(&['v', 'm']).as_ref(), ("c.oid = ANY ($1)", &views));
    ask(&mut all, are(&['S']).as_ref(), ("c.oid = ANY ($1)", &sequences));
    let owned = "c.oid IN (SELECT objid FROM pg_depend d WHERE d.classid = 1259 AND d.refclassid = 1259 \
                 AND d.deptype = 'a' AND d.refobjid = ANY ($1))";
    ask(&mut all, family, (owned, &sequences));
    ask(&mut all, are(&['c']).as_ref(), ("c.oid = ANY ($1)", &composites));
    ask(&mut all, are(&['i', 'I']).as_ref(), ("c.oid = ANY ($1)", &|condition| indexes(condition, version)));
    ask(&mut all, family, ("i.indrelid = ANY ($1)", &|condition| indexes(condition, version)));
    let columns: Vec<&Key> = wanted.keys.iter().filter(|key| key.class == class::RELATION && key.sub > 0).collect();
    if let Some(oids) = list(columns.iter().map(|key| key.oid)) {
        let pairs: Vec<String> = columns.iter().map(|key| format!("\"{},{}\"", key.oid, key.sub)).collect();
        let condition = "a.attrelid = ANY ($1) AND (a.attrelid||','||a.attnum) = ANY ($2)";
        let values = format!("{oids}, '{{{}}}'", pairs.join(","));
        all.push(Asked::new(self::columns(condition, version), "oid[], text[]", values));
    }
    ask(&mut all, family, ("a.attrelid = ANY ($1)", &|condition| self::columns(condition, version)));
    let mut either = |class: u32, by_own: &str, by_family: &str, query: &dyn Fn(&str) -> String| {
        ask(&mut all, of(class).as_ref(), (by_own, query));
        ask(&mut all, family, (by_family, query));
    };
    either(class::CONSTRAINT, "k.oid = ANY ($1)", "k.conrelid = ANY ($1)", &constraints);
    either(class::RULE, "r.oid = ANY ($1)", "r.ev_class = ANY ($1)", &rules);
    either(class::TRIGGER, "t.oid = ANY ($1)", "t.tgrelid = ANY ($1)", &triggers);
    either(class::POLICY, "p.oid = ANY ($1)", "p.polrelid = ANY ($1)", &policies);
    either(class::STATISTICS, "s.oid = ANY ($1)", "s.stxrelid = ANY ($1)", &statistics);
    either(class::PUBLISHED_TABLE, "r.oid = ANY ($1)", "r.prrelid = ANY ($1)", &|condition| {
        published_tables(condition, version)
    });
    ask(&mut all, of(class::TYPE).as_ref(), ("t.oid = ANY ($1)", &types));
    ask(&mut all, of(class::PROCEDURE).as_ref(), ("p.oid = ANY ($1)", &super::catalog_routines::functions));
    ask(&mut all, of(class::PUBLICATION).as_ref(), ("p.oid = ANY ($1)", &publications));
    if version >= 15 {
        ask(&mut all, of(class::PUBLISHED_SCHEMA).as_ref(), ("r.oid = ANY ($1)", &published_schemas));
    }
    ask(&mut all, of(class::DEFAULT_ACL).as_ref(), ("d.oid = ANY ($1)", &default_privileges));
    ask(&mut all, of(class::EXTENSION).as_ref(), ("x.oid = ANY ($1)", &extensions));
    all
}

fn schemas(condition: &str) -> String {
    format!(
        "SELECT '2615,'||n.oid||',0', 'schema', json_build_object('id', quote_ident(nspname), \
         'name', quote_ident(nspname), 'owner', quote_ident(pg_get_userbyid(nspowner)), 'acl', {acl}, \
         'comment', {comment}) \
         FROM pg_namespace n WHERE {condition} AND {USERS} AND {free}",
        acl = acl("nspacl", "acldefault('n', nspowner)"),
        free = not_of_extension(class::SCHEMA, "n.oid"),
        comment = comment(class::SCHEMA, "n.oid", "0"),
    )
}

/// The parts that all relations with a name of their own share.
fn named(letter: &str) -> String {
    format!(
        "'id', c.oid::regclass::text, 'schema', quote_ident(n.nspname), 'name', quote_ident(c.relname), \
         'owner', quote_ident(pg_get_userbyid(c.relowner)), 'acl', {acl}, \
         'comment', {comment}",
        acl = acl("c.relacl", &format!("acldefault('{letter}', c.relowner)")),
        comment = comment(class::RELATION, "c.oid", "0"),
    )
}

fn tables(condition: &str) -> String {
    format!(
        "SELECT '1259,'||c.oid||',0', 'table', json_build_object({named}, \
         'unlogged', CASE c.relpersistence WHEN 'u' THEN true END, 'options', {options}, \
         'toast options', (SELECT {toast} FROM pg_class o WHERE o.oid = c.reltoastrelid), \
         'row security', nullif(c.relrowsecurity, false), 'force row security', nullif(c.relforcerowsecurity, false), \
         'replica identity', CASE c.relreplident WHEN 'd' THEN NULL WHEN 'n' THEN 'NOTHING' WHEN 'f' THEN 'FULL' \
         ELSE 'INDEX' END, \
         'tablespace', (SELECT quote_ident(spcname) FROM pg_tablespace s WHERE s.oid = c.reltablespace), \
         'access method', (SELECT quote_ident(amname) FROM pg_am m WHERE m.oid = c.relam AND c.relkind = 'r'), \
         'partition key', CASE c.relkind WHEN 'p' THEN pg_get_partkeydef(c.oid) END, \
         'partition of', CASE WHEN c.relispartition THEN (SELECT inhparent::regclass::text FROM pg_inherits h \
         WHERE h.inhrelid = c.oid) END, \
         'bound', CASE WHEN c.relispartition THEN pg_get_expr(c.relpartbound, c.oid) END, \
         'inherits', CASE WHEN NOT c.relispartition THEN (SELECT string_agg(inhparent::regclass::text, chr(10) \
         ORDER BY inhseqno) FROM pg_inherits h WHERE h.inhrelid = c.oid) END, \
         'of type', nullif(c.reloftype, 0)::regtype::text, 'file', nullif(c.relfilenode, 0)) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE {condition} AND c.relkind IN ('r', 'p') AND {USERS} AND {free}",
        named = named("r"),
        options = options("c.reloptions"),
        toast = options("o.reloptions"),
        free = not_of_extension(class::RELATION, "c.oid"),
    )
}

fn views(condition: &str) -> String {
    format!(
        "SELECT '1259,'||c.oid||',0', CASE c.relkind WHEN 'v' THEN 'view' ELSE 'materialized-view' END, \
         json_build_object({named}, 'options', {options}, 'definition', pg_get_viewdef(c.oid), \
         'tablespace', (SELECT quote_ident(spcname) FROM pg_tablespace s WHERE s.oid = c.reltablespace), \
         'access method', (SELECT quote_ident(amname) FROM pg_am m WHERE m.oid = c.relam), \
         'depends on', CASE c.relkind WHEN 'm' THEN {depends} END, 'empty', CASE WHEN NOT c.relispopulated THEN true END, 'file', nullif(c.relfilenode, 0)) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE {condition} AND c.relkind IN ('v', 'm') AND {USERS} AND {free}",
        named = named("r"),
        options = options("c.reloptions"),
        depends = depends(class::RELATION, "c.oid"),
        free = not_of_extension(class::RELATION, "c.oid"),
    )
}

/// How a sequence counts, as SQL.
const COUNTING: &str = "format('AS %s START WITH %s INCREMENT BY %s MINVALUE %s MAXVALUE %s CACHE %s %s', \
     format_type(q.seqtypid, -1), q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, \
     CASE WHEN q.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END)";

/// Sequences of their own or owned by a column. Those of identity columns are parts of their column.
fn sequences(condition: &str) -> String {
    format!(
        "SELECT '1259,'||c.oid||',0', 'sequence', json_build_object({named}, 'counting', {COUNTING}, \
         'unlogged', CASE c.relpersistence WHEN 'u' THEN true END, \
         'owned by', (SELECT a.attrelid::regclass::text||'.'||quote_ident(a.attname) FROM pg_depend d \
         JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid \
         WHERE d.classid = 1259 AND d.objid = c.oid AND d.refclassid = 1259 AND d.deptype = 'a'), \
         'referenced', (SELECT d.refobjid::regclass::text FROM pg_depend d \
         WHERE d.classid = 1259 AND d.objid = c.oid AND d.refclassid = 1259 AND d.deptype = 'a')) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_sequence q ON q.seqrelid = c.oid \
         WHERE {condition} AND c.relkind = 'S' AND {USERS} AND {free} \
         AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 1259 AND d.objid = c.oid AND d.deptype = 'i')",
        named = named("s"),
        free = not_of_extension(class::RELATION, "c.oid"),
    )
}

fn composites(condition: &str) -> String {
    format!(
        "SELECT '1259,'||c.oid||',0', 'composite', json_build_object('id', c.oid::regclass::text, \
         'schema', quote_ident(n.nspname), 'name', quote_ident(c.relname), \
         'owner', quote_ident(pg_get_userbyid(t.typowner)), 'acl', {acl}, \
         'comment', {comment}, \
         'attributes', (SELECT string_agg(quote_ident(attname)||' '||format_type(atttypid, atttypmod)||{collation}, \
         ', ' ORDER BY attnum) FROM pg_attribute a WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_type t ON t.typrelid = c.oid \
         WHERE {condition} AND c.relkind = 'c' AND {USERS} AND {free}",
        acl = acl("t.typacl", "acldefault('T', t.typowner)"),
        collation = "coalesce(' COLLATE '||(SELECT format('%I.%I', (SELECT nspname FROM pg_namespace \
                     WHERE oid = collnamespace), collname) FROM pg_collation l, pg_type y WHERE y.oid = atttypid \
                     AND l.oid = attcollation AND attcollation <> typcollation), '')",
        free = not_of_extension(class::TYPE, "t.oid"),
        comment = comment(class::TYPE, "t.oid", "0"),
    )
}

fn columns(condition: &str, version: u32) -> String {
    let compression =
        if version >= 14 { "CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END" } else { "NULL" };
    // From 18 on it is a constraint with a name of its own.
    let not_null = if version >= 18 {
        "(SELECT quote_ident(z.conname)||chr(10)||CASE WHEN z.connoinherit THEN ' NO INHERIT' ELSE '' END\
         ||CASE WHEN z.convalidated THEN '' ELSE ' NOT VALID' END FROM pg_constraint z WHERE z.conrelid = a.attrelid \
         AND z.contype = 'n' AND z.conkey[1] = a.attnum)"
    } else {
        "NULL"
    };
    format!(
        "SELECT '1259,'||a.attrelid||','||a.attnum, CASE c.relkind WHEN 'c' THEN 'attribute' ELSE 'column' END, \
         json_build_object('id', c.oid::regclass::text||'.'||quote_ident(a.attname), 'of', c.oid::regclass::text, \
         'name', quote_ident(a.attname), 'type', CASE WHEN c.relkind IN ('r', 'p', 'c') THEN format_type(a.atttypid, a.atttypmod) END, \
         'relation', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'c' THEN 'type' END, \
         'collation', (SELECT format('%I.%I', (SELECT nspname FROM pg_namespace WHERE oid = l.collnamespace), \
         l.collname) FROM pg_collation l WHERE l.oid = a.attcollation AND a.attcollation <> t.typcollation AND c.relkind IN ('r', 'p', 'c')), \
         'not null', nullif(a.attnotnull, false), 'not null as', {not_null}, \
         'virtual', CASE a.attgenerated WHEN 'v' THEN true END, \
         'default', CASE a.attgenerated WHEN '' THEN pg_get_expr(d.adbin, d.adrelid) END, \
         'generated', CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END, \
         'identity', CASE a.attidentity WHEN 'a' THEN 'ALWAYS' WHEN 'd' THEN 'BY DEFAULT' END, \
         'sequence', CASE WHEN a.attidentity <> '' THEN (SELECT s.objid::regclass::text FROM pg_depend s \
         WHERE s.refclassid = 1259 AND s.refobjid = a.attrelid AND s.refobjsubid = a.attnum AND s.deptype = 'i' \
         AND s.classid = 1259) END, \
         'counting', CASE WHEN a.attidentity <> '' THEN (SELECT {COUNTING} FROM pg_depend s JOIN pg_sequence q \
         ON q.seqrelid = s.objid WHERE s.refclassid = 1259 AND s.refobjid = a.attrelid \
         AND s.refobjsubid = a.attnum AND s.deptype = 'i' AND s.classid = 1259) END, \
         'sequence comment', CASE WHEN a.attidentity <> '' THEN (SELECT m.description {of_sequence} \
         JOIN pg_description m ON m.classoid = 1259 AND m.objoid = q.oid AND m.objsubid = 0) END, \
         'sequence acl', CASE WHEN a.attidentity <> '' THEN (SELECT nullif({sequence_acl}, {builtin}) {of_sequence}) END, \
         'builtin', CASE WHEN a.attidentity <> '' THEN (SELECT {builtin} {of_sequence} WHERE q.relacl IS NOT NULL) END, \
         'storage', CASE WHEN c.relkind IN ('r', 'p', 'm') THEN CASE a.attstorage \
         WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END, \
         'compression', {compression}, 'statistics', nullif(a.attstattarget, -1), 'options', {options}, \
         'acl', {acl}, 'comment', {comment}, \
         'inherited', CASE WHEN a.attinhcount > 0 AND NOT a.attislocal THEN true END, \
         'from parent', CASE WHEN a.attinhcount > 0 AND NOT a.attislocal AND NOT c.relispartition THEN true END, \
         'number', a.attnum, 'position', (SELECT count(*) FROM pg_attribute b WHERE b.attrelid = a.attrelid AND b.attnum > 0 \
         AND NOT b.attisdropped AND b.attnum <= a.attnum)) \
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_type t ON t.oid = a.atttypid \
         LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
         WHERE {condition} AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'c') \
         AND {USERS} AND {free} ORDER BY a.attnum",
        options = column_options(),
        of_sequence = "FROM pg_depend s JOIN pg_class q ON q.oid = s.objid AND s.refclassid = 1259 \
                       AND s.refobjid = a.attrelid AND s.refobjsubid = a.attnum AND s.deptype = 'i' AND s.classid = 1259",
        sequence_acl = acl("q.relacl", ""),
        builtin = acl("acldefault('s', q.relowner)", ""),
        acl = acl("a.attacl", ""),
        free = not_of_extension(class::RELATION, "c.oid"),
        comment = comment(class::RELATION, "a.attrelid", "a.attnum"),
    )
}

fn indexes(condition: &str, version: u32) -> String {
    let nulls = if version >= 15 { "i.indnullsnotdistinct" } else { "false" };
    format!(
        "SELECT '1259,'||c.oid||',0', 'index', json_build_object('id', c.oid::regclass::text, \
         'schema', quote_ident(n.nspname), 'name', quote_ident(c.relname), 'of', i.indrelid::regclass::text, \
         'unique', nullif(i.indisunique, false), 'nulls not distinct', nullif({nulls}, false), \
         'definition', substr(pg_get_indexdef(c.oid), length(format('CREATE %sINDEX %I ON %s%s ', \
         CASE WHEN i.indisunique THEN 'UNIQUE ' END, c.relname, CASE c.relkind WHEN 'I' THEN 'ONLY ' END, \
         i.indrelid::regclass)) + 1), \
         'comment', {comment}, 'depends on', {depends}, 'clustered', nullif(i.indisclustered, false), \
         'replica identity', nullif(i.indisreplident, false), \
         'tablespace', (SELECT quote_ident(spcname) FROM pg_tablespace s WHERE s.oid = c.reltablespace), \
         'statistics', (SELECT string_agg(a.attnum||' '||a.attstattarget, chr(10) ORDER BY a.attnum) \
         FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attstattarget >= 0), \
         'invalid', CASE WHEN NOT i.indisvalid THEN true END, 'only', CASE c.relkind WHEN 'I' THEN true END, \
         'attached to', (SELECT h.inhparent::regclass::text FROM pg_inherits h WHERE h.inhrelid = c.oid), \
         'inherited', CASE WHEN c.relispartition THEN true END) \
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE {condition} AND {USERS} AND {free} \
         AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x'))",
        depends = depends(class::RELATION, "c.oid"),
        free = not_of_extension(class::RELATION, "i.indrelid"),
        comment = comment(class::RELATION, "c.oid", "0"),
    )
}

fn constraints(condition: &str) -> String {
    format!(
        "SELECT '2606,'||k.oid||',0', 'constraint', json_build_object( \
         'id', coalesce(nullif(k.conrelid, 0)::regclass::text, k.contypid::regtype::text)||'.'||quote_ident(conname), \
         'of', coalesce(nullif(k.conrelid, 0)::regclass::text, k.contypid::regtype::text), \
         'on domain', CASE k.conrelid WHEN 0 THEN true END, 'name', quote_ident(conname), 'type', k.contype, \
         'definition', pg_get_constraintdef(k.oid), 'references', nullif(k.confrelid, 0)::regclass::text, \
         'comment', {comment}, \
         'index', nullif(x.indexrelid, 0)::regclass::text, 'index options', (SELECT {options} FROM pg_class c WHERE c.oid = x.indexrelid), \
         'index comment', CASE WHEN x.indexrelid IS NOT NULL THEN {index_comment} END, \
         'index depends on', CASE WHEN x.indexrelid IS NOT NULL THEN {depends} END, \
         'tablespace', (SELECT quote_ident(spcname) FROM pg_tablespace s JOIN pg_class c ON s.oid = c.reltablespace \
         WHERE c.oid = x.indexrelid), \
         'clustered', nullif(x.indisclustered, false), 'replica identity', nullif(x.indisreplident, false), \
         'attached to', (SELECT h.inhparent::regclass::text FROM pg_inherits h WHERE h.inhrelid = x.indexrelid), \
         'whole', (SELECT true FROM pg_class c WHERE c.oid = x.indexrelid AND c.relkind = 'I'), \
         'inherited', CASE WHEN k.conparentid <> 0 OR (k.coninhcount > 0 AND NOT k.conislocal) THEN true END) \
         FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace \
         LEFT JOIN pg_index x ON x.indexrelid = k.conindid AND k.contype IN ('p', 'u', 'x') \
         WHERE {condition} AND k.contype IN ('c', 'f', 'p', 'u', 'x') AND {USERS} AND {free}",
        options = options("c.reloptions"),
        free = not_of_extension(class::RELATION, "k.conrelid"),
        comment = comment(class::CONSTRAINT, "k.oid", "0"),
        index_comment = comment(class::RELATION, "x.indexrelid", "0"),
        depends = depends(class::RELATION, "x.indexrelid"),
    )
}

fn rules(condition: &str) -> String {
    format!(
        "SELECT '2618,'||r.oid||',0', 'rule', json_build_object('id', quote_ident(rulename), \
         'of', r.ev_class::regclass::text, 'name', quote_ident(rulename), 'definition', \
         substr(pg_get_ruledef(r.oid), length(format('CREATE RULE %I', rulename)) + 1), \
         'enabled', nullif(r.ev_enabled, 'O'), 'comment', {comment}, \
         'relation', CASE c.relkind WHEN 'v' THEN 'view' END) \
         FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE {condition} AND rulename <> '_RETURN' AND {USERS} AND {free}",
        free = not_of_extension(class::RELATION, "c.oid"),
        comment = comment(class::RULE, "r.oid", "0"),
    )
}

fn triggers(condition: &str) -> String {
    format!(
        "SELECT '2620,'||t.oid||',0', 'trigger', json_build_object('id', quote_ident(tgname), \
         'of', t.tgrelid::regclass::text, 'name', quote_ident(tgname), 'constraint', CASE WHEN t.tgconstraint <> 0 \
         THEN true END, 'definition', substr(pg_get_triggerdef(t.oid), length(format('CREATE %sTRIGGER %I', \
         CASE WHEN t.tgconstraint <> 0 THEN 'CONSTRAINT ' END, tgname)) + 1), \
         'enabled', nullif(t.tgenabled, 'O'), 'inherited', CASE WHEN t.tgparentid <> 0 THEN true END, 'comment', {comment}, 'depends on', {depends}, \
         'relation', CASE c.relkind WHEN 'v' THEN 'view' END) \
         FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE {condition} AND {users} AND {USERS} AND {free}",
        users = users_trigger("t"),
        free = not_of_extension(class::RELATION, "c.oid"),
        comment = comment(class::TRIGGER, "t.oid", "0"),
        depends = depends(class::TRIGGER, "t.oid"),
    )
}

fn policies(condition: &str) -> String {
    format!(
        "SELECT '3256,'||p.oid||',0', 'policy', json_build_object('id', quote_ident(polname), \
         'of', p.polrelid::regclass::text, 'name', quote_ident(polname), \
         'restrictive', CASE WHEN NOT polpermissive THEN true END, 'command', CASE polcmd WHEN 'r' THEN 'SELECT' \
         WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END, \
         'roles', (SELECT string_agg(CASE o WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(o)) END, ', ') \
         FROM unnest(polroles) o), 'using', pg_get_expr(polqual, polrelid), \
         'check', pg_get_expr(polwithcheck, polrelid), 'comment', {comment}) \
         FROM pg_policy p JOIN pg_class c ON c.oid = polrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE {condition} AND {USERS}",
        comment = comment(class::POLICY, "p.oid", "0"),
    )
}

fn statistics(condition: &str) -> String {
    format!(
        "SELECT '3381,'||s.oid||',0', 'statistics', json_build_object('id', format('%I.%I', n.nspname, stxname), \
         'schema', quote_ident(n.nspname), 'name', quote_ident(stxname), 'table', s.stxrelid::regclass::text, \
         'owner', quote_ident(pg_get_userbyid(stxowner)), 'definition', substr(pg_get_statisticsobjdef(s.oid), \
         length(format('CREATE STATISTICS %I.%I', n.nspname, stxname)) + 1), 'target', nullif(stxstattarget, -1), \
         'comment', {comment}) \
         FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = stxnamespace WHERE {condition} AND {USERS}",
        comment = comment(class::STATISTICS, "s.oid", "0"),
    )
}

fn types(condition: &str) -> String {
    format!(
        "SELECT '1247,'||t.oid||',0', CASE typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' ELSE 'range' END, \
         json_build_object('id', t.oid::regtype::text, 'schema', quote_ident(n.nspname), 'name', quote_ident(typname), \
         'owner', quote_ident(pg_get_userbyid(typowner)), 'acl', {acl}, 'comment', {comment}, \
         'labels', (SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) FROM pg_enum \
         WHERE enumtypid = t.oid), \
         'base', CASE typtype WHEN 'd' THEN format_type(typbasetype, typtypmod) END, \
         'not null', nullif(typnotnull, false), 'default', CASE typtype WHEN 'd' THEN coalesce( \
         pg_get_expr(typdefaultbin, 'pg_type'::regclass), typdefault) END, \
         'collation', (SELECT format('%I.%I', (SELECT nspname FROM pg_namespace WHERE oid = collnamespace), collname) \
         FROM pg_collation l, pg_type b WHERE b.oid = t.typbasetype AND l.oid = t.typcollation \
         AND t.typcollation <> b.typcollation), \
         'range', (SELECT concat_ws(', ', 'SUBTYPE = '||format_type(rngsubtype, NULL), \
         'SUBTYPE_OPCLASS = '||(SELECT format('%I.%I', (SELECT nspname FROM pg_namespace WHERE oid = opcnamespace), \
         opcname) FROM pg_opclass WHERE oid = rngsubopc), \
         'COLLATION = '||(SELECT format('%I.%I', (SELECT nspname FROM pg_namespace WHERE oid = collnamespace), \
         collname) FROM pg_collation WHERE oid = rngcollation), \
         'CANONICAL = '||nullif(rngcanonical, 0)::regproc, 'SUBTYPE_DIFF = '||nullif(rngsubdiff, 0)::regproc, \
         'MULTIRANGE_TYPE_NAME = '||(SELECT m.oid::regtype FROM pg_depend d JOIN pg_type m ON m.oid = d.objid \
         WHERE d.classid = 1247 AND d.refclassid = 1247 AND d.refobjid = rngtypid AND d.deptype = 'i' AND m.typtype = 'm')) \
         FROM pg_range WHERE rngtypid = t.oid)) \
         FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace \
         WHERE {condition} AND typtype IN ('e', 'd', 'r') AND {USERS} AND {free}",
        acl = acl("typacl", "acldefault('T', typowner)"),
        free = not_of_extension(class::TYPE, "t.oid"),
        comment = comment(class::TYPE, "t.oid", "0"),
    )
}

fn publications(condition: &str) -> String {
    format!(
        "SELECT '6104,'||p.oid||',0', 'publication', json_build_object('id', quote_ident(pubname), \
         'name', quote_ident(pubname), 'owner', quote_ident(pg_get_userbyid(pubowner)), \
         'all tables', nullif(puballtables, false), 'publish', concat_ws(', ', CASE WHEN pubinsert THEN 'insert' END, \
         CASE WHEN pubupdate THEN 'update' END, CASE WHEN pubdelete THEN 'delete' END, \
         CASE WHEN pubtruncate THEN 'truncate' END), 'via root', nullif(pubviaroot, false), \
         'comment', {comment}) FROM pg_publication p WHERE {condition}",
        comment = comment(class::PUBLICATION, "p.oid", "0"),
    )
}

fn published_tables(condition: &str, version: u32) -> String {
    let more = if version >= 15 {
        ", 'columns', (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute a \
         WHERE a.attrelid = prrelid AND attnum = ANY (prattrs)), 'where', pg_get_expr(prqual, prrelid)"
    } else {
        ""
    };
    format!(
        "SELECT '6106,'||r.oid||',0', 'published-table', json_build_object('id', quote_ident(pubname), \
         'of', quote_ident(pubname), 'name', prrelid::regclass::text{more}) FROM pg_publication_rel r \
         JOIN pg_publication p ON p.oid = prpubid JOIN pg_class c ON c.oid = prrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {condition} AND {USERS}"
    )
}

fn published_schemas(condition: &str) -> String {
    format!(
        "SELECT '6237,'||r.oid||',0', 'published-schema', json_build_object('id', quote_ident(pubname), \
         'of', quote_ident(pubname), 'name', pnnspid::regnamespace::text) FROM pg_publication_namespace r \
         JOIN pg_publication p ON p.oid = pnpubid WHERE {condition}"
    )
}

fn default_privileges(condition: &str) -> String {
    format!(
        "SELECT '826,'||d.oid||',0', 'default-privileges', json_build_object( \
         'id', concat_ws(' ', quote_ident(pg_get_userbyid(defaclrole)), defaclobjtype, nullif(defaclnamespace, 0)::regnamespace), \
         'role', quote_ident(pg_get_userbyid(defaclrole)), 'objects', defaclobjtype, \
         'schema', nullif(defaclnamespace, 0)::regnamespace::text, 'acl', {acl}, \
         'builtin', CASE defaclnamespace WHEN 0 THEN {builtin} END) FROM pg_default_acl d WHERE {condition}",
        acl = acl("defaclacl", ""),
        builtin = acl("acldefault(CASE defaclobjtype WHEN 'S' THEN 's' ELSE defaclobjtype END, defaclrole)", ""),
    )
}

fn extensions(condition: &str) -> String {
    format!(
        "SELECT '3079,'||x.oid||',0', 'extension', json_build_object('id', quote_ident(extname), \
         'name', quote_ident(extname), 'version', extversion, 'schema', extnamespace::regnamespace::text, \
         'comment', {comment}) FROM pg_extension x WHERE {condition}",
        comment = comment(class::EXTENSION, "x.oid", "0"),
    )
}
