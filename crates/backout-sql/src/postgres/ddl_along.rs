//! What would go along with what an undo takes away: rows and values of others, and objects of others that PostgreSQL drops
//! without being told to (`CASCADE`), because they hang on what goes.

use std::collections::BTreeSet;

use backout_model::conflict::{ConflictKind, OnConflict};
use backout_model::target::TargetError;
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
        let cascades = self.manner.on_conflict == OnConflict::Overwrite;
        let hanging = if cascades { self.cascade(aim, &keys)? } else { along(self.context.client, &keys)? };
        let hanging = hanging.into_iter().filter(|key| !keys.contains(key)).collect();
        let wanted = Wanted { families, ..Wanted::of(hanging) };
        let found = if wanted.is_empty() {
            Vec::new()
        } else {
            catalog::read(self.context.client, &wanted, self.context.version)?
        };
        let mut is_lost = false;
        for object in found {
            // A table of ours in a publication of others is no loss to these.
            let of_others = object.kind == Kind::PublishedTable
                && !going.iter().any(|going| going.kind == Kind::Publication && going.id() == object.of());
            let ours = object.key.is_some_and(|key| keys.contains(&key)) || object.is_inherited() || of_others;
            if ours {
                continue;
            }
            let goes_with_its_own = going.iter().any(|going| going.id() == object.of());
            if cascades && holds_values(&object) && !goes_with_its_own {
                is_lost = true;
                self.conflict(&object.shown(), ConflictKind::NotEmpty, STAYS);
            } else {
                self.conflict(&object.shown(), ConflictKind::Definition, shown_definition(&object));
            }
        }
        if is_lost {
            // Values of others lie nowhere else: they are nobody's to overwrite.
            return Err(TargetError::Conflicts(std::mem::take(self.conflicts)).into());
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

impl Undo<'_, '_> {
    /// The keys of all of others' that goes where what the undo takes away is dropped with `CASCADE`. What the catalog's readers
    /// know nothing of is told here, in the server's words.
    fn cascade(&mut self, aim: &Aim, keys: &BTreeSet<Key>) -> Result<Vec<Key>, Left> {
        let in_the_way = aim.in_the_way.iter().filter_map(|object| object.key);
        let going: BTreeSet<Key> = keys.iter().copied().chain(in_the_way).collect();
        if going.is_empty() {
            return Ok(Vec::new());
        }
        let of_step: BTreeSet<Key> =
            aim.pairs.iter().filter_map(|(from, _)| from.as_ref()?.key).chain(going.clone()).collect();
        let mut found = Vec::new();
        for row in catalog::rows(self.context.client, &cascade_sql(&values(&going)))? {
            let [key, column, told] = <[String; 3]>::try_from(row).unwrap_or_default();
            if [&key, &column].into_iter().filter_map(|key| Key::parse(key)).any(|key| of_step.contains(&key)) {
                continue;
            }
            found.extend(Key::parse(&key));
            if !told.is_empty() {
                self.conflict(&told, ConflictKind::Definition, "hangs on what goes");
            }
        }
        Ok(found)
    }
}

/// True for what holds more than a definition: no statement would bring it back.
fn holds_values(object: &Object) -> bool {
    match object.kind {
        Kind::Table | Kind::Sequence | Kind::Attribute => true,
        Kind::Column => object.part("relation").is_none(),
        _ => false,
    }
}

/// What is said of values of others that would go along.
const STAYS: &str =
    "it would be dropped along, with all that it holds: move it away or drop it first, or undo with --on-conflict keep";

/// The keys of all that PostgreSQL drops with these objects, but for what it keeps for itself.
///
/// Source: "Dependency Tracking" and `pg_depend` in PostgreSQL's manual: what depends in the ways `a`, `i`, `P` and `S` goes without
/// `CASCADE`.
fn along(client: &mut Client, going: &BTreeSet<Key>) -> Result<Vec<Key>, Error> {
    if going.is_empty() {
        return Ok(Vec::new());
    }
    let going = values(going);
    let rows = catalog::column(client, &along_sql(&going))?;
    Ok(rows.iter().flatten().filter_map(|text| Key::parse(text)).collect())
}

/// Objects as a query that gives class, number and column of each.
fn values(objects: &BTreeSet<Key>) -> String {
    let listed: Vec<String> = objects.iter().map(|key| format!("({}, {}, {})", key.class, key.oid, key.sub)).collect();
    format!("SELECT v.a::oid, v.b::oid, v.c FROM (VALUES {}) AS v (a, b, c)", listed.join(", "))
}

/// The question for all that `DROP … CASCADE` takes along: key, the key of the column of which it is the default, and for
/// what is no [`Object`], what PostgreSQL calls it.
///
/// Source: "Dependency Tracking" and `pg_depend` in PostgreSQL's manual: what is reached by `n` and `x` goes under `CASCADE`
/// alone, what belongs to another object (`i`) takes that along. Members of an extension are no more others' than it is.
fn cascade_sql(going: &str) -> String {
    format!(
        "WITH RECURSIVE going (classid, objid, objsubid) AS ({going}),
         gone (classid, objid, objsubid, with_it, member) AS (
             SELECT classid, objid, objsubid, true, false FROM going
             UNION SELECT n.* FROM gone g CROSS JOIN LATERAL (
                 SELECT d.classid, d.objid, d.objsubid, g.with_it AND d.deptype NOT IN ('n', 'x'),
                     d.deptype = 'e' OR g.member AND d.deptype NOT IN ('n', 'x')
                 FROM pg_catalog.pg_depend d
                 WHERE d.refclassid = g.classid AND d.refobjid = g.objid AND (g.objsubid = 0 OR d.refobjsubid = g.objsubid)
                     AND NOT ({ONE_PART})
                 UNION ALL SELECT d.refclassid, d.refobjid, d.refobjsubid, false, g.member FROM pg_catalog.pg_depend d
                 WHERE NOT g.with_it AND d.classid = g.classid AND d.objid = g.objid AND d.deptype = 'i'
                 UNION ALL SELECT 1259, a.attrelid, a.attnum, g.with_it, g.member FROM pg_catalog.pg_inherits h
                 JOIN pg_catalog.pg_attribute p ON p.attrelid = h.inhparent AND p.attnum = g.objsubid
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = h.inhrelid AND a.attname = p.attname AND NOT a.attislocal AND a.attinhcount = 1
                 WHERE g.classid = 1259 AND g.objsubid > 0 AND h.inhparent = g.objid) AS n),
         whole AS (SELECT classid, objid, objsubid, bool_or(with_it) AS with_it, bool_or(member) AS member FROM gone GROUP BY 1, 2, 3),
         shown AS (SELECT w.*, a.adrelid, a.adnum FROM whole w
             LEFT JOIN pg_catalog.pg_attrdef a ON w.classid = 2604 AND a.oid = w.objid)
         SELECT classid||','||objid||','||objsubid, coalesce('1259,'||adrelid||','||adnum, ''),
             CASE WHEN with_it OR classid IN ({known}) THEN ''
                 ELSE coalesce(pg_catalog.pg_describe_object(classid, objid, objsubid), '') END
         FROM shown g WHERE NOT member AND NOT CASE classid
             WHEN 2604 THEN with_it OR EXISTS (SELECT FROM whole o WHERE o.classid = 1259 AND o.objid = adrelid AND o.objsubid IN (0, adnum))
             ELSE false END AND ({own})",
        known = KNOWN.map(|class| class.to_string()).join(", "),
        own = NOT_OWN
    )
}

/// The question for them; `going` gives class, number and column of each object that goes.
pub(super) fn along_sql(going: &str) -> String {
    format!(
        "WITH RECURSIVE gone (classid, objid, objsubid) AS (
             {going}
             UNION SELECT d.classid, d.objid, d.objsubid FROM gone g JOIN pg_catalog.pg_depend d
                 ON d.refclassid = g.classid AND d.refobjid = g.objid AND (g.objsubid = 0 OR d.refobjsubid = g.objsubid)
             WHERE d.deptype IN ('a', 'i', 'P', 'S'))
         SELECT classid||','||objid||','||objsubid FROM gone g WHERE classid <> 2604 AND {NOT_OWN}"
    )
}

/// The condition that a dependent `d` is what a foreign key of others has for one partition of the table that it points at: it ends
/// as that is detached, and the key stays.
const ONE_PART: &str = "d.classid = 2606 AND EXISTS (SELECT FROM pg_catalog.pg_constraint k
                         JOIN pg_catalog.pg_constraint w ON w.oid = k.conparentid AND w.conrelid = k.conrelid WHERE k.oid = d.objid AND k.contype = 'f')";

/// The condition that an object `g` is none that PostgreSQL keeps for itself.
const NOT_OWN: &str = "NOT CASE classid
             WHEN 1247 THEN (SELECT t.typrelid <> 0 OR t.typelem <> 0 FROM pg_catalog.pg_type t WHERE t.oid = objid)
             WHEN 2618 THEN (SELECT r.rulename = '_RETURN' FROM pg_catalog.pg_rewrite r WHERE r.oid = objid)
             WHEN 2620 THEN (SELECT t.tgisinternal OR t.tgname ~ '^backout' FROM pg_catalog.pg_trigger t WHERE t.oid = objid)
             WHEN 1259 THEN (SELECT c.relnamespace IN ('pg_toast'::regnamespace, pg_catalog.pg_my_temp_schema())
                     OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x'))
                     OR c.relkind = 'S' AND EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = g.classid AND d.objid = g.objid AND d.deptype = 'i')
                 FROM pg_catalog.pg_class c WHERE c.oid = objid)
             ELSE false END";

/// The classes whose objects are read as [`Object`].
const KNOWN: [u32; 12] = [
    class::TYPE,
    class::PROCEDURE,
    class::RELATION,
    class::DEFAULT_ACL,
    class::CONSTRAINT,
    class::SCHEMA,
    class::RULE,
    class::TRIGGER,
    class::EXTENSION,
    class::POLICY,
    class::STATISTICS,
    class::PUBLICATION,
];

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
