//! Which objects a statement touched, by the catalogs themselves: what it wrote bears its transaction number, what it
//! deleted is missing. The oracle of completeness for schema changes; never reads a definition.
//!
//! PostgreSQL counts the rows that a transaction writes in each catalog. Only catalogs whose counters moved are looked
//! at, so a statement costs what it changed, not what the schema holds. A catalog that nobody here knows must not move.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use postgres::Error;

use super::catalog::{Key, class, rows, users_trigger};
use super::prepared::{self, Asked, Client};

/// One catalog whose rows belong to objects.
struct Catalog {
    name: &'static str,
    /// What tells its rows apart.
    row: &'static str,
    /// `class,oid,sub` of the object that a row belongs to; empty for what PostgreSQL keeps for itself; with `!` in
    /// front the words for what is not handled; with `~` in front the key of the object without which it does not change.
    key: &'static str,
    joins: &'static str,
    /// Which rows can be the user's.
    users: &'static str,
}

const INDEX_KEY: &str = "coalesce((SELECT '2606,'||k.oid||',0' FROM pg_constraint k WHERE k.conindid = c.oid \
     AND k.contype IN ('p', 'u', 'x')), '1259,'||c.oid||',0')";
const SEQUENCE_KEY: &str = "coalesce((SELECT '1259,'||d.refobjid||','||d.refobjsubid FROM pg_depend d \
     WHERE d.classid = 1259 AND d.objid = c.oid AND d.refclassid = 1259 AND d.deptype = 'i'), '1259,'||c.oid||',0')";

const CATALOGS: &[Catalog] = &[
    Catalog {
        name: "pg_namespace",
        row: "x.oid::text",
        key: "'2615,'||x.oid||',0'",
        joins: "",
        users: "x.oid >= 16384 OR x.nspname = 'public'",
    },
    Catalog {
        name: "pg_class",
        row: "x.oid::text",
        key: "CASE x.relkind WHEN 't' THEN '' WHEN 'i' THEN {index} WHEN 'I' THEN {index} WHEN 'S' THEN {sequence} \
              WHEN 'f' THEN '!foreign table '||x.oid::regclass ELSE '1259,'||x.oid||',0' END",
        joins: "JOIN pg_class c ON c.oid = x.oid",
        users: "x.oid >= 16384",
    },
    Catalog {
        name: "pg_attribute",
        row: "x.attrelid||'.'||x.attnum",
        key: "CASE WHEN x.attnum < 0 OR c.relkind IN ('t', 'S') THEN '' WHEN c.relkind IN ('i', 'I') THEN {index} \
              ELSE '1259,'||x.attrelid||','||x.attnum END",
        joins: "JOIN pg_class c ON c.oid = x.attrelid",
        users: "x.attrelid >= 16384 AND NOT x.attisdropped",
    },
    Catalog {
        name: "pg_attrdef",
        row: "x.oid::text",
        key: "'1259,'||x.adrelid||','||x.adnum",
        joins: "",
        users: "x.oid >= 16384",
    },
    Catalog {
        name: "pg_constraint",
        row: "x.oid::text",
        key: "CASE WHEN x.contype = 't' OR x.contype = 'n' AND x.conrelid = 0 THEN '' \
              WHEN x.contype = 'n' THEN '1259,'||x.conrelid||','||x.conkey[1] ELSE '2606,'||x.oid||',0' END",
        joins: "",
        users: "x.oid >= 16384",
    },
    Catalog {
        name: "pg_index",
        row: "x.indexrelid::text",
        key: "CASE c.relkind WHEN 't' THEN '' ELSE {index} END",
        joins: "JOIN pg_class c ON c.oid = x.indexrelid",
        users: "x.indexrelid >= 16384",
    },
    Catalog {
        name: "pg_rewrite",
        row: "x.oid::text",
        key: "CASE x.rulename WHEN '_RETURN' THEN '1259,'||x.ev_class||',0' ELSE '2618,'||x.oid||',0' END",
        joins: "",
        users: "x.oid >= 16384",
    },
    Catalog {
        name: "pg_trigger",
        row: "x.oid::text",
        key: "CASE WHEN {users_trigger} THEN '2620,'||x.oid||',0' ELSE '' END",
        joins: "",
        users: "x.oid >= 16384",
    },
    Catalog { name: "pg_policy", row: "x.oid::text", key: "'3256,'||x.oid||',0'", joins: "", users: "x.oid >= 16384" },
    Catalog { name: "pg_proc", row: "x.oid::text", key: "'1255,'||x.oid||',0'", joins: "", users: "x.oid >= 16384" },
    Catalog {
        name: "pg_aggregate",
        row: "x.aggfnoid::oid::text",
        key: "'1255,'||x.aggfnoid::oid||',0'",
        joins: "",
        users: "x.aggfnoid::oid >= 16384",
    },
    Catalog {
        name: "pg_type",
        row: "x.oid::text",
        // What is granted on a row type is no part of its relation; the rest of it follows that.
        key: "CASE WHEN x.typrelid <> 0 THEN CASE (SELECT relkind FROM pg_class r WHERE r.oid = x.typrelid) \
              WHEN 'c' THEN '1259,'||x.typrelid||',0' WHEN 't' THEN '' WHEN 'S' THEN '' WHEN 'f' THEN '' \
              ELSE CASE WHEN x.typacl IS NULL THEN '~1259,'||x.typrelid||',0' \
              ELSE '!what is granted on row type '||x.oid::regtype END END \
              WHEN x.typtype = 'm' THEN '~1247,'||(SELECT d.refobjid FROM pg_depend d WHERE d.classid = 1247 \
              AND d.objid = x.oid AND d.refclassid = 1247 AND d.deptype = 'i')||',0' \
              WHEN x.typcategory = 'A' AND x.typelem <> 0 THEN '' \
              WHEN x.typtype IN ('e', 'd', 'r') THEN '1247,'||x.oid||',0' ELSE '!type '||x.oid::regtype END",
        joins: "",
        users: "x.oid >= 16384",
    },
    Catalog {
        name: "pg_cast",
        row: "x.oid::text",
        // The cast of a range to its multirange comes and goes with the type.
        key: "CASE WHEN EXISTS (SELECT FROM pg_depend d WHERE d.classid = 2605 AND d.objid = x.oid \
              AND d.deptype = 'i') THEN '' ELSE '!cast' END",
        joins: "",
        users: "x.oid >= 16384",
    },
    Catalog {
        name: "pg_enum",
        row: "x.oid::text",
        key: "'1247,'||x.enumtypid||',0'",
        joins: "",
        users: "x.oid >= 16384",
    },
    Catalog {
        name: "pg_range",
        row: "x.rngtypid::text",
        key: "'1247,'||x.rngtypid||',0'",
        joins: "",
        users: "x.rngtypid >= 16384",
    },
    Catalog {
        name: "pg_description",
        row: "x.classoid||'.'||x.objoid||'.'||x.objsubid",
        key: "CASE WHEN x.objoid < 16384 AND NOT (x.classoid = 2615 AND x.objoid = 2200) \
              THEN '!what the server itself brought along' \
              WHEN x.classoid = 1259 AND x.objsubid = 0 AND c.relkind IN ('i', 'I') THEN {index} \
              WHEN x.classoid = 1259 AND c.relkind = 'S' THEN {sequence} \
              WHEN x.classoid = 1247 AND (t.typtype = 'm' OR t.typcategory = 'A' AND t.typelem <> 0 OR t.typrelid <> 0 \
              AND (SELECT relkind FROM pg_class r WHERE r.oid = t.typrelid) <> 'c') THEN '!the comment on type '||x.objoid::regtype \
              WHEN x.classoid = 1247 AND t.typrelid <> 0 THEN '1259,'||t.typrelid||',0' \
              WHEN x.classoid = 1259 AND c.oid IS NULL THEN '' \
              WHEN x.classoid NOT IN (826, 1247, 1255, 1259, 2606, 2615, 2618, 2620, 3079, 3256, 3381, 6104) \
              THEN '!the comment on '||pg_describe_object(x.classoid, x.objoid, x.objsubid) \
              ELSE x.classoid||','||x.objoid||','||x.objsubid END",
        joins: "LEFT JOIN pg_class c ON x.classoid = 1259 AND c.oid = x.objoid \
                LEFT JOIN pg_type t ON x.classoid = 1247 AND t.oid = x.objoid",
        users: "true",
    },
    Catalog {
        name: "pg_inherits",
        row: "x.inhrelid||'.'||x.inhparent",
        key: "CASE WHEN c.relkind IN ('i', 'I') THEN {index} ELSE '1259,'||x.inhrelid||',0' END",
        joins: "JOIN pg_class c ON c.oid = x.inhrelid",
        users: "true",
    },
    Catalog {
        name: "pg_sequence",
        row: "x.seqrelid::text",
        key: "{sequence}",
        joins: "JOIN pg_class c ON c.oid = x.seqrelid",
        users: "true",
    },
    Catalog { name: "pg_statistic_ext", row: "x.oid::text", key: "'3381,'||x.oid||',0'", joins: "", users: "true" },
    Catalog { name: "pg_publication", row: "x.oid::text", key: "'6104,'||x.oid||',0'", joins: "", users: "true" },
    Catalog { name: "pg_publication_rel", row: "x.oid::text", key: "'6106,'||x.oid||',0'", joins: "", users: "true" },
    Catalog {
        name: "pg_publication_namespace",
        row: "x.oid::text",
        key: "'6237,'||x.oid||',0'",
        joins: "",
        users: "true",
    },
    Catalog {
        name: "pg_partitioned_table",
        row: "x.partrelid::text",
        key: "'1259,'||x.partrelid||',0'",
        joins: "",
        users: "true",
    },
    Catalog { name: "pg_default_acl", row: "x.oid::text", key: "'826,'||x.oid||',0'", joins: "", users: "true" },
    Catalog { name: "pg_extension", row: "x.oid::text", key: "'3079,'||x.oid||',0'", joins: "", users: "true" },
];

/// Catalogs whose rows only add to an object that has its own row elsewhere.
const DEPENDENT: &[&str] = &[
    "pg_attrdef",
    "pg_index",
    "pg_aggregate",
    "pg_enum",
    "pg_range",
    "pg_description",
    "pg_inherits",
    "pg_sequence",
    "pg_partitioned_table",
];

/// Catalogs whose rows follow from others or hold no definition.
const FOLLOWING: [&str; 5] = ["pg_depend", "pg_shdepend", "pg_statistic", "pg_statistic_ext_data", "pg_init_privs"];

impl Catalog {
    fn named(name: &str) -> Option<&'static Catalog> {
        CATALOGS.iter().find(|catalog| catalog.name == name)
    }

    /// The last column says what a relation is, as `pg_class.relkind` has it.
    fn query(&self, condition: &str) -> String {
        let kind = if self.name == "pg_class" { "x.relkind" } else { "''" };
        let key = self.key.replace("{index}", INDEX_KEY).replace("{sequence}", SEQUENCE_KEY);
        let key = key.replace("{users_trigger}", &users_trigger("x"));
        format!(
            "SELECT '{}', {}, {key}, {kind} FROM {} x {} WHERE {condition}",
            self.name, self.row, self.name, self.joins
        )
    }
}

/// How many rows were written in each catalog so far: inserted, updated, deleted.
type Counters = HashMap<String, [i64; 3]>;

/// The state of the catalogs right before a statement.
pub struct Mark {
    counters: Counters,
    /// The next transaction number: what the statement writes has at least this one.
    next: u64,
}

/// What the server counted of the transaction's writes so far: number, name where it is a catalog, rows inserted, updated and
/// deleted. As pg_stat_xact_sys_tables and pg_stat_xact_user_tables have it; the views take five times as long.
pub fn counted(client: &mut Client, ask: prepared::Ask) -> Result<Vec<Vec<String>>, Error> {
    const COUNTED: &str = "SELECT s.oid, CASE WHEN s.relnamespace = 11 THEN s.relname END, s.i, s.u, s.d FROM (
             SELECT c.oid, c.relname, c.relnamespace, pg_stat_get_xact_tuples_inserted(c.oid) AS i,
                 pg_stat_get_xact_tuples_updated(c.oid) AS u, pg_stat_get_xact_tuples_deleted(c.oid) AS d
             FROM pg_class c WHERE c.relkind IN ('r', 'm', 'p') OFFSET 0) AS s
         WHERE s.i + s.u + s.d > 0 AND (SELECT n.nspname !~ '^pg_(temp|toast)' FROM pg_namespace n WHERE n.oid = s.relnamespace)";
    prepared::counted(client, COUNTED, ask)
}

fn counters(client: &mut Client, ask: prepared::Ask) -> Result<Counters, Error> {
    let number = |row: &[String], at: usize| row[at].parse().unwrap_or(0);
    let rows = counted(client, ask)?.into_iter();
    let of_catalogs = rows.filter(|row| row.len() == 5 && !row[1].is_empty() && !FOLLOWING.contains(&row[1].as_str()));
    Ok(of_catalogs.map(|row| (row[1].clone(), [number(&row, 2), number(&row, 3), number(&row, 4)])).collect())
}

/// A transaction number is used up and given up: only numbers that ended are known to a snapshot, so that without it
/// what the transaction itself wrote before would pass for later.
const NUMBERED: &str = "SAVEPOINT backout_number; SELECT pg_catalog.pg_logical_emit_message(true, 'backout', ''); \
     ROLLBACK TO SAVEPOINT backout_number; RELEASE SAVEPOINT backout_number;";

/// Sets a savepoint and notes the state of the catalogs. What is written after it has a transaction number of its own.
pub fn mark(client: &mut Client, savepoint: &str) -> Result<Mark, Error> {
    Ok(mark_and_ask(client, savepoint, "SELECT")?.0)
}

/// The same; and the answer to a question beside.
pub fn mark_and_ask(client: &mut Client, savepoint: &str, question: &str) -> Result<(Mark, Vec<String>), Error> {
    let counters = counters(client, prepared::rows)?;
    let sql = format!(
        "{question}; {NUMBERED} SAVEPOINT {savepoint}; SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())"
    );
    // A number alone is no row of any table.
    let mut rows = rows(client.unwritten(), &sql)?.into_iter();
    client.marked(savepoint);
    let answer = rows.next().unwrap_or_default();
    let next = rows.next_back().and_then(|row| row.first()?.parse().ok()).unwrap_or(0);
    Ok((Mark { counters, next }, answer))
}

/// A digest of what belongs to extensions, or depends on one: no object's own row says that.
pub fn members(client: &mut Client) -> Result<Option<String>, Error> {
    let sql = "SELECT md5(string_agg(concat_ws(' ', classid, objid, objsubid, refobjid, deptype), ',' \
         ORDER BY classid, objid, objsubid, refobjid, deptype)) FROM pg_catalog.pg_depend WHERE deptype IN ('e', 'x')";
    Ok(super::catalog::column(client.unwritten(), sql)?.into_iter().flatten().next())
}

/// The first of these objects, in words, that belongs to an extension or to a relation of one.
pub fn member(client: &mut Client, keys: &[Key]) -> Result<Option<String>, Error> {
    if keys.is_empty() {
        return Ok(None);
    }
    let pairs: Vec<String> = keys.iter().map(|key| format!("({}::oid, {}::oid)", key.class, key.oid)).collect();
    let sql = format!(
        "WITH k(class, oid) AS (VALUES {}), o AS (SELECT * FROM k UNION SELECT 1259, CASE class \
         WHEN 1259 THEN (SELECT indrelid FROM pg_catalog.pg_index WHERE indexrelid = k.oid) \
         WHEN 2606 THEN (SELECT conrelid FROM pg_catalog.pg_constraint x WHERE x.oid = k.oid) \
         WHEN 2618 THEN (SELECT ev_class FROM pg_catalog.pg_rewrite x WHERE x.oid = k.oid) \
         WHEN 2620 THEN (SELECT tgrelid FROM pg_catalog.pg_trigger x WHERE x.oid = k.oid) END FROM k) \
         SELECT pg_catalog.pg_describe_object(d.classid, d.objid, 0)||' of extension '||x.extname FROM o \
         JOIN pg_catalog.pg_depend d ON d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e' \
         JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid ORDER BY 1 LIMIT 1",
        pairs.join(", ")
    );
    Ok(super::catalog::column(client.unwritten(), &sql)?.into_iter().flatten().next())
}

/// What a statement did to the catalogs.
#[derive(Debug, Default)]
pub struct Touched {
    /// Objects with rows that were written.
    pub written: BTreeSet<Key>,
    /// What the relations among them are, where that is known.
    pub kinds: HashMap<u32, char>,
    /// How many rows were written in each catalog beyond those it inserted, by catalog, with the keys of all.
    writes: BTreeMap<&'static str, Writes>,
    /// Catalogs from which rows were deleted.
    deleted_from: Vec<&'static str>,
    /// Catalogs that moved and are not known here.
    pub unknown: Vec<String>,
    /// Written objects that are not handled, in words.
    pub unhandled: Vec<String>,
}

#[derive(Debug, Default)]
struct Writes {
    inserted: i64,
    keys: Vec<Option<Key>>,
}

impl Touched {
    pub fn is_nothing(&self) -> bool {
        self.written.is_empty() && self.deleted_from.is_empty() && self.unknown.is_empty() && self.unhandled.is_empty()
    }

    /// True where objects may have gone away.
    pub fn deletes(&self) -> bool {
        !self.deleted_from.is_empty()
    }

    /// True where everything that was written belongs to `known` objects or to such as the statement made. A row of an
    /// unknown object was inserted where as many such rows are there as were inserted; any doubt is a no.
    pub fn only_makes_beyond(&self, known: impl Fn(Key) -> bool) -> bool {
        if !self.deleted_from.is_empty() {
            return false;
        }
        let mut made: BTreeSet<Key> = BTreeSet::new();
        for (_, writes) in self.writes.iter().filter(|(name, _)| !DEPENDENT.contains(name)) {
            let beyond = writes.keys.iter().filter(|key| key.is_none_or(|key| !known(key)));
            if i64::try_from(beyond.clone().count()) != Ok(writes.inserted) {
                return false;
            }
            made.extend(beyond.copied().flatten());
        }
        let mut dependent = self.writes.iter().filter(|(name, _)| DEPENDENT.contains(name));
        dependent.all(|(_, writes)| writes.keys.iter().flatten().all(|key| known(*key) || made.contains(key)))
    }
}

/// Numbers below are those of objects that the server brought along ("System Catalog Initial Data", FirstNormalObjectId).
const FIRST_OF_USERS: u32 = 16384;
/// The schema `public`, which is everybody's.
const PUBLIC: u32 = 2200;

fn is_the_servers(key: Key) -> bool {
    key.oid < FIRST_OF_USERS && !(key.class == class::SCHEMA && key.oid == PUBLIC)
}

/// Finds what was written since the mark.
pub fn since(client: &mut Client, mark: &Mark) -> Result<Touched, Error> {
    let now = counters(client, prepared::first_rows)?;
    let mut touched = Touched::default();
    let mut asked = Vec::new();
    const OWN: &str = "CASE WHEN age(x.xmin) <= age($1) THEN pg_xact_status(($2 + (age($1) \
         - age(x.xmin))::bigint)::text::xid8) = 'in progress' END";
    let values = format!("'{}', {}", mark.next % (1 << 32), mark.next);
    let mut moved: Vec<(&String, &[i64; 3])> = now.iter().collect();
    moved.sort_unstable();
    for (name, counts) in moved {
        let before = mark.counters.get(name).copied().unwrap_or_default();
        if *counts == before {
            continue;
        }
        let Some(catalog) = Catalog::named(name) else {
            touched.unknown.push(name.clone());
            continue;
        };
        if counts[2] > before[2] {
            touched.deleted_from.push(catalog.name);
        }
        if counts[0] > before[0] || counts[1] > before[1] {
            touched.writes.insert(catalog.name, Writes { inserted: counts[0] - before[0], keys: Vec::new() });
            // Columns of what the server brought along come from nobody; this finds the others by an index.
            let only_new = catalog.name == "pg_attribute" && counts[1] == before[1];
            let narrow = if only_new { "x.attrelid >= 16384 AND " } else { "" };
            asked.push(Asked::new(catalog.query(&format!("{narrow}{OWN}")), "xid, bigint", values.clone()));
        }
    }
    let mut followers = Vec::new();
    for row in prepared::first_rows(client, &asked)? {
        let [name, row, key, kind] = row.as_slice() else { continue };
        let parsed = Key::parse(key);
        if let (Ok(oid), Some(kind)) = (row.parse(), kind.chars().next()) {
            touched.kinds.insert(oid, kind);
        }
        // An index may have been one of its own before it became a constraint's.
        if parsed.is_some_and(|key| key.class == class::CONSTRAINT)
            && matches!(name.as_str(), "pg_class" | "pg_index")
            && let Ok(oid) = row.parse()
        {
            touched.written.insert(Key { class: class::RELATION, oid, sub: 0 });
        }
        if let Some(words) = key.strip_prefix('!') {
            touched.unhandled.push(words.to_owned());
        }
        followers.extend(key.strip_prefix('~').and_then(Key::parse));
        if parsed.is_some_and(is_the_servers) {
            touched.unhandled.push("what the server itself brought along".to_owned());
        }
        // What a composite type is made of is a part of it.
        if let Some(key) = parsed.filter(|key| key.sub > 0) {
            touched.written.insert(Key { sub: 0, ..key });
        }
        touched.written.extend(parsed);
        if let Some(writes) = touched.writes.get_mut(name.as_str()) {
            writes.keys.push(parsed);
        }
    }
    if let Some(leader) = followers.iter().find(|key| !touched.written.contains(key)) {
        let what = if leader.class == class::TYPE { "a multirange type" } else { "the row type of a relation" };
        touched.unhandled.push(format!("{what} by itself"));
    }
    Ok(touched)
}

/// The rows of the catalogs from which a statement deleted, to be compared with those from before it.
pub struct Listing(HashMap<(String, String), String>);

pub fn listing(client: &mut Client, touched: &Touched) -> Result<Listing, Error> {
    let asked: Vec<Asked> = touched
        .deleted_from
        .iter()
        .filter_map(|name| Catalog::named(name))
        .map(|catalog| Asked::new(catalog.query(catalog.users), "", String::new()))
        .collect();
    let rows = prepared::rows(client, &asked)?.into_iter();
    Ok(Listing(
        rows.filter_map(|row| <[String; 4]>::try_from(row).ok())
            .map(|[name, row, key, _]| ((name, row), key))
            .collect(),
    ))
}

/// What a statement deleted.
#[derive(Debug, Default)]
pub struct Missing {
    /// Objects that are gone.
    pub gone: BTreeSet<Key>,
    /// Objects that lost something: a comment, a parent.
    pub less: BTreeSet<Key>,
    /// Words for those that are not handled.
    pub unhandled: Vec<String>,
}

impl Listing {
    /// What has rows here and lacks them in `after`.
    pub fn missing_in(&self, after: &Listing) -> Missing {
        let mut missing = Missing::default();
        for ((catalog, _), key) in self.0.iter().filter(|(row, _)| !after.0.contains_key(*row)) {
            let keys = if DEPENDENT.contains(&catalog.as_str()) { &mut missing.less } else { &mut missing.gone };
            keys.extend(Key::parse(key));
            missing.unhandled.extend(key.strip_prefix('!').map(str::to_owned));
        }
        missing
    }
}
