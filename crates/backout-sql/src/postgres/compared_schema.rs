//! All objects of a database at once, and what differs between two readings: which objects went, came and changed, and
//! which tables are told as dropped and made anew because nothing finer would bring them back exactly.
//!
//! Never changes anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use postgres::Error;

use super::catalog::{self, Key, Kind, Object, Wanted, class};
use super::ddl::Change;
use super::ddl_keep::widens;
use super::prepared::Client;
use super::refreshed;

/// A condition on a pg_class `c` and its pg_namespace `n`: the user's own, with members of extensions.
pub(super) const USERS_RELATIONS: &str = "n.nspname !~ '^(pg_|backout)' AND n.nspname <> 'information_schema'";

/// What is not handled: what it is, all that its catalog says of it, and what DROP calls it. What belongs to an extension is left out, but for
/// the list of it.
pub(super) const OTHERS: &str = "
    WITH found AS (
        SELECT 'pg_operator'::regclass AS class, oid, (to_jsonb(x) - 'oid')::text AS said FROM pg_catalog.pg_operator x
        UNION ALL SELECT 'pg_opclass'::regclass, oid, (to_jsonb(x) - 'oid')::text FROM pg_catalog.pg_opclass x
        UNION ALL SELECT 'pg_opfamily'::regclass, oid, (to_jsonb(x) - 'oid')::text FROM pg_catalog.pg_opfamily x
        UNION ALL SELECT 'pg_collation'::regclass, oid, (to_jsonb(x) - 'oid')::text FROM pg_catalog.pg_collation x
        UNION ALL SELECT 'pg_conversion'::regclass, oid, (to_jsonb(x) - 'oid')::text FROM pg_catalog.pg_conversion x
        UNION ALL SELECT 'pg_language'::regclass, oid, (to_jsonb(x) - 'oid')::text FROM pg_catalog.pg_language x
        UNION ALL SELECT 'pg_ts_config'::regclass, oid, (to_jsonb(x) - 'oid')::text FROM pg_catalog.pg_ts_config x
        UNION ALL SELECT 'pg_ts_dict'::regclass, oid, (to_jsonb(x) - 'oid')::text FROM pg_catalog.pg_ts_dict x
        UNION ALL SELECT 'pg_ts_parser'::regclass, oid, (to_jsonb(x) - 'oid')::text FROM pg_catalog.pg_ts_parser x
        UNION ALL SELECT 'pg_ts_template'::regclass, oid, (to_jsonb(x) - 'oid')::text FROM pg_catalog.pg_ts_template x
        UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, (to_jsonb(x) - 'oid')::text FROM pg_catalog.pg_foreign_data_wrapper x
        UNION ALL SELECT 'pg_foreign_server'::regclass, oid, (to_jsonb(x) - 'oid')::text FROM pg_catalog.pg_foreign_server x
        UNION ALL SELECT 'pg_event_trigger'::regclass, oid, (to_jsonb(x) - 'oid')::text FROM pg_catalog.pg_event_trigger x
        UNION ALL SELECT 'pg_transform'::regclass, oid, (to_jsonb(x) - 'oid')::text FROM pg_catalog.pg_transform x
        UNION ALL SELECT 'pg_am'::regclass, oid, (to_jsonb(x) - 'oid')::text FROM pg_catalog.pg_am x
        UNION ALL SELECT 'pg_cast'::regclass, oid, (to_jsonb(x) - 'oid')::text FROM pg_catalog.pg_cast x
        UNION ALL SELECT 'pg_type'::regclass, oid, (to_jsonb(x) - 'oid')::text FROM pg_catalog.pg_type x
            WHERE typtype NOT IN ('e', 'd', 'r', 'c', 'm') AND NOT (typcategory = 'A' AND typelem <> 0)
        UNION ALL SELECT 'pg_class'::regclass, x.oid, concat_ws(' ', x.relname, x.relnamespace, x.relowner, x.relacl, f::text,
                (SELECT string_agg(concat_ws(' ', attname, atttypid, atttypmod, attnotnull, attfdwoptions), ',' ORDER BY attnum)
                 FROM pg_catalog.pg_attribute WHERE attrelid = x.oid AND attnum > 0))
            FROM pg_catalog.pg_class x JOIN pg_catalog.pg_foreign_table f ON f.ftrelid = x.oid)
    SELECT pg_catalog.pg_describe_object(class, oid, 0) AS what, said,
        (SELECT type || ' ' || identity FROM pg_catalog.pg_identify_object(class, oid, 0)) AS name FROM found
    WHERE oid >= 16384 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = found.class AND d.objid = found.oid AND d.deptype IN ('e', 'i'))
    UNION ALL SELECT format('a mapping of text search configuration %s', mapcfg::regconfig), m::text, NULL
    FROM pg_catalog.pg_ts_config_map m WHERE mapcfg >= 16384
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 3602 AND d.objid = mapcfg AND d.deptype = 'e')
    UNION ALL SELECT format('large object %s', oid), l::text, NULL FROM pg_catalog.pg_largeobject_metadata l
    UNION ALL SELECT 'a comment on ' || pg_catalog.pg_describe_object(classoid, objoid, objsubid), description, NULL
    FROM pg_catalog.pg_description WHERE objoid >= 16384
        AND classoid NOT IN (1247, 1255, 1259, 2606, 2615, 2618, 2620, 3079, 3256, 3381, 6104)
    UNION ALL SELECT 'a security label', s::text, NULL FROM pg_catalog.pg_seclabel s
    UNION ALL SELECT format('a setting of role %s for the database', setrole::regrole), s::text, NULL FROM pg_catalog.pg_db_role_setting s
    WHERE setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    UNION ALL SELECT 'the database itself', concat_ws(' ', datname, datdba, datacl, datconnlimit, shobj_description(oid, 'pg_database')), NULL FROM pg_catalog.pg_database
    WHERE datname = current_database()
    UNION ALL SELECT format('subscription %s', subname), concat_ws(' ', oid, subname, subowner, subenabled, subslotname, subpublications), NULL
    FROM pg_catalog.pg_subscription WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    UNION ALL SELECT format('what belongs to extension %I', extname),
        (SELECT md5(string_agg(concat_ws(' ', classid, objid, objsubid, p.proowner, p.proacl, c.relowner, c.relacl, t.typowner, t.typacl),
             ',' ORDER BY classid, objid, objsubid))
         FROM pg_catalog.pg_depend d LEFT JOIN pg_catalog.pg_proc p ON classid = 1255 AND p.oid = objid
         LEFT JOIN pg_catalog.pg_class c ON classid = 1259 AND c.oid = objid
         LEFT JOIN pg_catalog.pg_type t ON classid = 1247 AND t.oid = objid
         WHERE refclassid = 3079 AND refobjid = x.oid AND d.deptype = 'e'), NULL
    FROM pg_catalog.pg_extension x";

/// Reads every object that is the user's.
pub(super) fn all(client: &mut Client, version: u32) -> Result<Vec<Object>, Error> {
    let schemas =
        if version >= 15 { "UNION ALL SELECT 6237, oid, '' FROM pg_catalog.pg_publication_namespace" } else { "" };
    let found = catalog::rows(
        client,
        &format!(
            "WITH n AS (SELECT oid FROM pg_catalog.pg_namespace n WHERE {USERS_RELATIONS})
             SELECT 2615, oid, '' FROM n
             UNION ALL SELECT 1259, c.oid, relkind::text FROM pg_catalog.pg_class c JOIN n ON n.oid = relnamespace
                 WHERE relkind IN ('r', 'p', 'v', 'm', 'c', 'S')
             UNION ALL SELECT 1247, t.oid, '' FROM pg_catalog.pg_type t JOIN n ON n.oid = typnamespace WHERE typtype IN ('e', 'd', 'r')
             UNION ALL SELECT 1255, p.oid, '' FROM pg_catalog.pg_proc p JOIN n ON n.oid = pronamespace
             UNION ALL SELECT 2606, k.oid, '' FROM pg_catalog.pg_constraint k JOIN n ON n.oid = connamespace WHERE contypid <> 0
             UNION ALL SELECT 6104, oid, '' FROM pg_catalog.pg_publication
             UNION ALL SELECT 826, oid, '' FROM pg_catalog.pg_default_acl
             UNION ALL SELECT 3079, oid, '' FROM pg_catalog.pg_extension {schemas}"
        ),
    )?;
    let mut wanted = Wanted::default();
    for row in found {
        let (Ok(class), Ok(oid)) = (row[0].parse(), row[1].parse()) else { continue };
        wanted.keys.push(Key { class, oid, sub: 0 });
        if let Some(kind) = row[2].chars().next() {
            wanted.kinds.insert(oid, kind);
            if kind != 'S' {
                wanted.families.push(oid);
            }
        }
    }
    let mut objects = catalog::read(client, &wanted, version)?;
    objects.retain(|object| !object.is_held());
    Ok(objects)
}

/// The same, with what the materialized views hold, each of which is read for that.
pub(super) fn all_with_content(client: &mut Client, version: u32) -> Result<Vec<Object>, Error> {
    let mut objects = all(client, version)?;
    // Nothing else tells whether a command filled a view anew: CONCURRENTLY leaves its file.
    for view in objects.iter_mut().filter(|object| object.kind == Kind::MaterializedView) {
        if view.part("empty").is_none()
            && let Some(content) = refreshed::content(client, view.id())?
        {
            view.parts.insert("content".to_owned(), content);
        }
    }
    Ok(objects)
}

/// How finely a difference is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// Objects are altered; only tables for which that is known not to do are dropped and made anew.
    Fine,
    /// Whatever changed is dropped and made anew, with all that depends on it.
    Coarse,
}

/// What differs between before and now.
#[derive(Debug, Default)]
pub(super) struct Differences {
    pub gone: Vec<Object>,
    pub made: Vec<Object>,
    pub altered: Vec<Change>,
    /// Tables that are there before and now and are told as dropped and made anew.
    pub anew: BTreeSet<u32>,
}

impl Differences {
    pub fn is_nothing(&self) -> bool {
        self.gone.is_empty() && self.made.is_empty() && self.altered.is_empty()
    }

    /// Objects that went, came and are others, each by itself: none is made anew.
    pub fn plain(before: &[Object], now: &[Object]) -> Self {
        let before = &with_those_made_again(before, now);
        let (old, new) = (keyed(before), keyed(now));
        let lacks =
            |all: &HashMap<Key, &Object>, object: &&Object| object.key.is_some_and(|key| !all.contains_key(&key));
        let altered = before.iter().filter_map(|object| {
            let other = new.get(&object.key?).filter(|other| differ(object, other))?;
            Some(Change { before: Some(object.clone()), after: Some((*other).clone()) })
        });
        Self {
            gone: before.iter().filter(|object| lacks(&new, object)).cloned().collect(),
            made: now.iter().filter(|object| lacks(&old, object)).cloned().collect(),
            altered: altered.collect(),
            anew: BTreeSet::new(),
        }
    }

    /// `whole`: tables that are to be told as made anew in any case.
    pub fn find(before: &[Object], now: &[Object], grain: Grain, whole: &BTreeSet<u32>, depend: &Dependence) -> Self {
        let before = &with_those_made_again(before, now);
        let (old, new) = (keyed(before), keyed(now));
        let (old_relations, new_relations) = (relations(before), relations(now));
        let table = |oid: &u32| Key { class: class::RELATION, oid: *oid, sub: 0 };
        let mut roots: BTreeSet<Key> = whole.iter().map(table).collect();
        for (key, object) in &old {
            let root = match new.get(key) {
                Some(other) if differ(object, other) => match grain {
                    Grain::Coarse => root_of(object, &old_relations),
                    Grain::Fine if is_only_anew(object, other) => root_of(object, &old_relations),
                    Grain::Fine => None,
                },
                Some(_) => None,
                None if grain == Grain::Coarse || object.part("generated").is_some() => {
                    root_of_part(object, &old_relations)
                }
                None => None,
            };
            roots.extend(root.filter(|root| new.contains_key(root)));
        }
        for (key, object) in new.iter().filter(|(key, _)| !old.contains_key(key)) {
            let is_odd = object.kind == Kind::Column && object.part("identity").is_some();
            if (grain == Grain::Coarse || is_odd) && object.kind != Kind::PublishedTable {
                let root = root_of_part(object, &new_relations);
                roots.extend(root.filter(|root| root != key && old.contains_key(root)));
            }
        }
        let again = depend.closure(&roots, now);
        let anew: BTreeSet<u32> = again
            .iter()
            .filter(|key| new.get(key).is_some_and(|object| object.kind == Kind::Table) && old.contains_key(key))
            .map(|key| key.oid)
            .collect();
        let old_names: BTreeSet<&str> = before
            .iter()
            .filter(|object| object.kind == Kind::Table && object.key.is_some_and(|key| anew.contains(&key.oid)))
            .map(Object::id)
            .collect();
        // What hung on a table before goes with it, too.
        let went_along = |object: &Object| {
            let of_table = !matches!(object.kind, Kind::PublishedTable) && old_names.contains(object.of());
            of_table
                || object.part("references").is_some_and(|table| old_names.contains(table))
                || object.part("referenced").is_some_and(|table| old_names.contains(table))
                || object.kind == Kind::PublishedTable && old_names.contains(object.text("name"))
        };
        let mut found = Self { anew, ..Self::default() };
        for object in before {
            let Some(key) = object.key else { continue };
            match new.get(&key) {
                None => found.gone.push(object.clone()),
                Some(_) if again.contains(&key) || went_along(object) => found.gone.push(object.clone()),
                Some(other) if differ(object, other) => {
                    found.altered.push(Change { before: Some(object.clone()), after: Some((*other).clone()) });
                }
                Some(_) => {}
            }
        }
        let gone: BTreeSet<Key> = found.gone.iter().filter_map(|object| object.key).collect();
        let comes = |key: &Key| !old.contains_key(key) || gone.contains(key);
        found.made = now.iter().filter(|object| object.key.is_some_and(|key| comes(&key))).cloned().collect();
        found
    }
}

/// A schema or an extension that was dropped and made again is the same: what is in it is told by itself. So is an index, a
/// constraint or another part of a table that stays, where it reads as before: `ALTER COLUMN … TYPE` makes those anew.
fn with_those_made_again(before: &[Object], now: &[Object]) -> Vec<Object> {
    let (old, new) = (keyed(before), keyed(now));
    let (old_relations, new_relations) = (relations(before), relations(now));
    let stays = |table: &str| old_relations.get(table).is_some_and(|key| new_relations.get(table) == Some(key));
    let again = |object: &Object| {
        let key = object.key.filter(|key| !new.contains_key(key))?;
        let is_it = |other: &&Object| {
            let is_new = other.key.is_some_and(|other| other.class == key.class && !old.contains_key(&other));
            is_new && other.kind == object.kind && other.id() == object.id() && other.of() == object.of()
        };
        let other = now.iter().find(is_it)?;
        let is_same = match object.kind {
            Kind::Schema | Kind::Extension => true,
            Kind::Index | Kind::Constraint | Kind::Trigger | Kind::Rule | Kind::Policy | Kind::Statistics => {
                stays(object.of()) && !differ(object, other)
            }
            _ => false,
        };
        is_same.then_some(other)
    };
    let same = before.iter().map(|object| match again(object) {
        Some(other) => Object { key: other.key, ..object.clone() },
        None => object.clone(),
    });
    same.collect()
}

fn keyed(objects: &[Object]) -> HashMap<Key, &Object> {
    objects.iter().filter_map(|object| Some((object.key?, object))).collect()
}

/// True where two readings of one object are not the same.
fn differ(before: &Object, now: &Object) -> bool {
    let refilled = before.kind == Kind::MaterializedView && before.part("content") != now.part("content");
    refilled || !before.reads_like(now) || before.id() != now.id() || before.of() != now.of()
}

/// True for changes that nothing takes back but to make the object anew.
fn is_only_anew(before: &Object, now: &Object) -> bool {
    let differs = |part: &str| before.part(part) != now.part(part);
    match before.kind {
        Kind::Column if before.part("relation").is_none() => {
            let retyped = differs("type") && !widens(before.text("type"), now.text("type"));
            retyped || ["collation", "generated", "virtual", "identity", "sequence"].into_iter().any(differs)
        }
        Kind::Attribute | Kind::Composite => true,
        Kind::Enum => differs("labels"),
        Kind::MaterializedView => differs("content"),
        _ => false,
    }
}

/// The keys of relations by their names.
fn relations(objects: &[Object]) -> HashMap<&str, Key> {
    let whole = objects.iter().filter(|object| object.of().is_empty());
    whole.filter_map(|object| Some((object.id(), object.key.filter(|key| key.class == class::RELATION)?))).collect()
}

/// The object that is made anew where this one changed: the table of a part of it. None for what is only ever altered.
fn root_of(object: &Object, relations: &HashMap<&str, Key>) -> Option<Key> {
    match object.kind {
        Kind::Schema | Kind::Extension | Kind::DefaultPrivileges | Kind::Publication => None,
        _ => root_of_part(object, relations).or(object.key),
    }
}

/// The table, view or type that the object is a part of.
fn root_of_part(object: &Object, relations: &HashMap<&str, Key>) -> Option<Key> {
    match object.kind {
        Kind::Column | Kind::Attribute => object.key.map(|key| Key { sub: 0, ..key }),
        Kind::Index | Kind::Constraint | Kind::Trigger | Kind::Rule | Kind::Policy => {
            relations.get(object.of()).copied()
        }
        _ => None,
    }
}

/// What depends on what, as the catalogs have it now.
#[derive(Debug, Default)]
pub(super) struct Dependence {
    /// Dependents by what they depend on.
    dependents: HashMap<Key, Vec<Key>>,
}

impl Dependence {
    pub fn read(client: &mut Client) -> Result<Self, Error> {
        // Rules and defaults stand for the relation or column that they are of.
        let found = catalog::rows(
            client,
            "SELECT coalesce(r.class, d.classid), coalesce(r.oid, d.objid), coalesce(r.sub, d.objsubid), d.refclassid, d.refobjid, d.refobjsubid
             FROM pg_catalog.pg_depend d LEFT JOIN (
                 SELECT 2618 AS of, w.oid AS object, 1259 AS class, w.ev_class AS oid, 0 AS sub
                 FROM pg_catalog.pg_rewrite w WHERE rulename = '_RETURN'
                 UNION ALL SELECT 2604, f.oid, 1259, f.adrelid, f.adnum::integer FROM pg_catalog.pg_attrdef f
                 UNION ALL SELECT 1247, t.oid, 1259, t.typrelid, 0 FROM pg_catalog.pg_type t WHERE t.typrelid <> 0 AND t.oid >= 16384
                 UNION ALL SELECT 1247, t.oid, 1247, t.typelem, 0 FROM pg_catalog.pg_type t WHERE t.typcategory = 'A' AND t.typelem >= 16384
             ) r ON r.of = d.classid AND r.object = d.objid
             WHERE d.objid >= 16384 AND d.deptype <> 'e' AND (d.refobjid >= 16384 OR d.refclassid = 2615)",
        )?;
        let row_types = catalog::rows(
            client,
            "SELECT t.oid, coalesce(nullif(t.typrelid, 0), t.typelem), CASE t.typrelid WHEN 0 THEN 1247 ELSE 1259 END
             FROM pg_catalog.pg_type t WHERE t.oid >= 16384 AND (t.typrelid <> 0 OR t.typcategory = 'A' AND t.typelem >= 16384)",
        )?;
        // A type of rows or of arrays is what it is of.
        let stands_for: HashMap<u32, Key> = row_types
            .iter()
            .filter_map(|row| {
                let key = Key { class: row[2].parse().ok()?, oid: row[1].parse().ok()?, sub: 0 };
                Some((row[0].parse().ok()?, key))
            })
            .collect();
        let mut dependents: HashMap<Key, Vec<Key>> = HashMap::new();
        for row in found {
            let number = |at: usize| row[at].parse::<u32>().ok();
            let (Some(class), Some(oid), Some(sub)) = (number(0), number(1), row[2].parse().ok()) else { continue };
            let (Some(on_class), Some(on_oid), Some(on_sub)) = (number(3), number(4), row[5].parse().ok()) else {
                continue;
            };
            let settle = |mut key: Key| {
                for _ in 0..3 {
                    match stands_for.get(&key.oid).filter(|_| key.class == class::TYPE) {
                        Some(other) => key = *other,
                        None => break,
                    }
                }
                key
            };
            let (on, key) =
                (settle(Key { class: on_class, oid: on_oid, sub: on_sub }), settle(Key { class, oid, sub }));
            if on != key && on_class != class::SCHEMA {
                dependents.entry(on).or_default().push(key);
                if on.sub != 0 {
                    // Whatever depends on a column depends on its table.
                    dependents.entry(Key { sub: 0, ..on }).or_default().push(key);
                }
            }
        }
        Ok(Self { dependents })
    }

    /// The roots, all that belongs to them, and all that depends on any of that.
    pub fn closure(&self, roots: &BTreeSet<Key>, objects: &[Object]) -> BTreeSet<Key> {
        let kinds: HashMap<Key, &Object> = keyed(objects);
        let mut families: BTreeMap<u32, Vec<Key>> = BTreeMap::new();
        let by_name = relations(objects);
        for object in objects {
            let of = object.key.and_then(|key| match object.kind {
                Kind::Column | Kind::Attribute => Some(key.oid),
                _ => by_name.get(object.of()).map(|key| key.oid),
            });
            if let (Some(of), Some(key)) = (of, object.key) {
                families.entry(of).or_default().push(key);
            }
        }
        let mut found = BTreeSet::new();
        let mut open: Vec<Key> = roots.iter().copied().collect();
        while let Some(mut key) = open.pop() {
            if key.class == class::RELATION && key.sub != 0 {
                // One column of a table is not made anew without the others.
                key.sub = 0;
            }
            if !found.insert(key) {
                continue;
            }
            open.extend(self.dependents.get(&key).into_iter().flatten().copied());
            let whole = kinds.get(&key).is_some_and(|object| object.of().is_empty());
            if key.class == class::RELATION && whole {
                let family = families.get(&key.oid).into_iter().flatten();
                for part in family {
                    found.insert(*part);
                    if part.class != class::RELATION || part.sub == 0 {
                        open.extend(self.dependents.get(part).into_iter().flatten().copied());
                    }
                }
            }
        }
        found
    }
}
