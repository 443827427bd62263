//! What the names in a step's images meant: the numbers that the objects have in the catalogs. Others may give a name to another
//! object, or an object another name; whoever goes by names alone would take the one for the other.
//!
//! Numbers mean nothing once a database was restored from a dump. The marker's own table tells whether it was.

use postgres::Error;
use serde::{Deserialize, Serialize};

use super::catalog::{Key, Kind, Object, class};
use super::prepared::{self, Asked, Client};

/// The catalog of labels; an object of it is a label.
const LABEL: u32 = 3501;

/// An object, and what it was called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub key: Key,
    /// Its qualified and quoted name, with ` of ` and the name of what it is a part of.
    pub name: String,
}

/// An object that others call by another name now.
#[derive(Clone, Debug)]
pub(super) struct Renamed {
    pub was: Named,
    pub now: String,
}

impl Renamed {
    /// What became of it, in words that follow its own.
    pub(super) fn words(&self) -> String {
        match self.was.label() {
            Some(label) => format!("its label {label} is {} now", self.now),
            None => format!("it is called {} now", self.now),
        }
    }
}

/// How the object of a `v (class, oid, sub)` is called; NULL where there is none.
const CALLED: &str = "CASE v.class
    WHEN 2615 THEN (SELECT quote_ident(nspname) FROM pg_namespace WHERE oid = v.oid)
    WHEN 1259 THEN CASE v.sub WHEN 0 THEN (SELECT oid::regclass::text FROM pg_class WHERE oid = v.oid)
        ELSE (SELECT quote_ident(attname)||' of '||attrelid::regclass FROM pg_attribute
            WHERE attrelid = v.oid AND attnum = v.sub AND NOT attisdropped) END
    WHEN 1247 THEN (SELECT oid::regtype::text FROM pg_type WHERE oid = v.oid)
    WHEN 1255 THEN (SELECT oid::regprocedure::text FROM pg_proc WHERE oid = v.oid)
    WHEN 2606 THEN (SELECT quote_ident(conname)||' of '||CASE contypid WHEN 0 THEN conrelid::regclass::text ELSE contypid::regtype::text END
        FROM pg_constraint WHERE oid = v.oid)
    WHEN 2618 THEN (SELECT quote_ident(rulename)||' of '||ev_class::regclass FROM pg_rewrite WHERE oid = v.oid)
    WHEN 2620 THEN (SELECT quote_ident(tgname)||' of '||tgrelid::regclass FROM pg_trigger WHERE oid = v.oid)
    WHEN 3256 THEN (SELECT quote_ident(polname)||' of '||polrelid::regclass FROM pg_policy WHERE oid = v.oid)
    WHEN 3501 THEN (SELECT quote_literal(enumlabel)||' of '||enumtypid::regtype FROM pg_enum WHERE oid = v.oid) END";

impl Named {
    fn parse(row: &[String]) -> Option<Self> {
        Some(Self { key: Key::parse(row.first()?)?, name: row.get(1).filter(|name| !name.is_empty())?.clone() })
    }

    /// What an object that was read is called; `None` for what has no number that is looked up here.
    pub(super) fn of(object: &Object) -> Option<Self> {
        let is_known = |key: &Key| classes(object.kind).contains(&key.class);
        Some(Self { key: object.key.filter(is_known)?, name: called(object) })
    }

    /// What was recorded of an object that the images hold.
    pub(super) fn of_recorded<'n>(object: &Object, among: &'n [Self]) -> Option<&'n Self> {
        let (name, classes) = (called(object), classes(object.kind));
        among.iter().find(|one| one.name == name && classes.contains(&one.key.class))
    }

    /// `table public.t`, for people.
    pub(super) fn shown(&self) -> String {
        let word = match (self.key.class, self.key.sub) {
            (class::RELATION, 0) => Kind::Table.words(),
            (class::RELATION, _) => Kind::Column.words(),
            (class::TYPE, _) => "type",
            (class::PROCEDURE, _) => Kind::Function.words(),
            (class::SCHEMA, _) => Kind::Schema.words(),
            (class::CONSTRAINT, _) => Kind::Constraint.words(),
            (class::RULE, _) => Kind::Rule.words(),
            (class::TRIGGER, _) => Kind::Trigger.words(),
            (class::POLICY, _) => Kind::Policy.words(),
            _ => return format!("type {}", self.name.rsplit_once(" of ").map_or("", |(_, of)| of)),
        };
        format!("{word} {}", self.name)
    }

    /// The text of a label as SQL has it; none where it is something else.
    pub(super) fn label(&self) -> Option<&str> {
        (self.key.class == LABEL).then(|| self.name.rsplit_once(" of ").map_or("", |(label, _)| label))
    }
}

/// The same of an object.
pub(super) fn called(object: &Object) -> String {
    match object.kind {
        Kind::Index => object.id().to_owned(),
        _ if object.of().is_empty() => object.id().to_owned(),
        _ => format!("{} of {}", object.text("name"), object.of()),
    }
}

/// The catalogs in which an object of that kind may have its number.
fn classes(kind: Kind) -> &'static [u32] {
    match kind {
        Kind::Schema => &[class::SCHEMA],
        Kind::Enum | Kind::Domain | Kind::Range => &[class::TYPE],
        Kind::Function => &[class::PROCEDURE],
        Kind::Constraint => &[class::CONSTRAINT],
        Kind::Rule => &[class::RULE],
        Kind::Trigger => &[class::TRIGGER],
        Kind::Policy => &[class::POLICY],
        Kind::Index
        | Kind::Sequence
        | Kind::Table
        | Kind::Column
        | Kind::Composite
        | Kind::Attribute
        | Kind::View
        | Kind::MaterializedView => &[class::RELATION],
        Kind::Extension
        | Kind::Statistics
        | Kind::Publication
        | Kind::PublishedTable
        | Kind::PublishedSchema
        | Kind::DefaultPrivileges => &[],
    }
}

/// True for a name that the tool gave what it holds.
fn is_held(name: &str) -> bool {
    let of = name.rsplit_once(" of ").map_or(name, |(_, of)| of);
    of.starts_with("backout") || of.contains(".backout")
}

/// Those that are still there and called otherwise. Under settings that resolve names in `pg_catalog` alone.
pub(super) fn renamed(client: &mut Client, known: &[Named]) -> Result<Vec<Renamed>, Error> {
    let keys: Vec<Key> = known.iter().map(|one| one.key).collect();
    let now = names(client, &keys)?;
    let both = known.iter().zip(now).filter(|(was, now)| !now.is_empty() && was.name != *now && !is_held(now));
    Ok(both.map(|(was, now)| Renamed { was: was.clone(), now }).collect())
}

/// Numbers as three arrays: those of the catalogs, of the objects, of the parts.
fn arrays(keys: &[Key]) -> String {
    let array = |part: fn(&Key) -> String| format!("'{{{}}}'", keys.iter().map(part).collect::<Vec<_>>().join(","));
    let [classes, oids, subs] =
        [array(|key| key.class.to_string()), array(|key| key.oid.to_string()), array(|key| key.sub.to_string())];
    format!("{classes}, {oids}, {subs}")
}

const ARRAYS: &str = "oid[], oid[], int4[]";

/// What these are called; empty for what is gone.
fn names(client: &mut Client, keys: &[Key]) -> Result<Vec<String>, Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let sql =
        format!("SELECT {CALLED} FROM unnest($1, $2, $3) WITH ORDINALITY AS v (class, oid, sub, place) ORDER BY place");
    let rows = prepared::rows(client, &[Asked::new(sql, ARRAYS, arrays(keys))])?;
    Ok(rows.into_iter().map(|mut row| row.pop().unwrap_or_default()).collect())
}

/// Labels of enums, by the types `used` that values are of, through all that these are made of.
fn labels(used: &str) -> String {
    format!(
        "WITH RECURSIVE used AS ({used} UNION
             SELECT part.oid FROM used JOIN pg_type t ON t.oid = used.oid CROSS JOIN LATERAL (
                 VALUES (t.typelem), (t.typbasetype), ((SELECT rngsubtype FROM pg_range WHERE rngtypid = t.oid))
                 UNION ALL SELECT atttypid FROM pg_attribute
                 WHERE t.typrelid <> 0 AND attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped) AS part (oid)
             WHERE part.oid >= 16384)
         SELECT '3501,'||e.oid||',0' AS k, quote_literal(enumlabel)||' of '||enumtypid::regtype AS name
         FROM used JOIN pg_enum e ON e.enumtypid = used.oid"
    )
}

/// The labels of enums, and of what is made of them, among these types.
pub(super) fn labels_of(client: &mut Client, types: &[Named]) -> Result<Vec<Named>, Error> {
    let oids: Vec<String> =
        types.iter().filter(|one| one.key.class == class::TYPE).map(|one| one.key.oid.to_string()).collect();
    if oids.is_empty() {
        return Ok(Vec::new());
    }
    let asked = Asked::new(labels("SELECT unnest($1) AS oid"), "oid[]", format!("'{{{}}}'", oids.join(",")));
    Ok(prepared::rows(client, &[asked])?.iter().filter_map(|row| Named::parse(row)).collect())
}

/// A table with its columns and the labels of their values.
pub(super) fn of_table(client: &mut Client, oid: u32) -> Result<Vec<Named>, Error> {
    let used = "SELECT atttypid AS oid FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND atttypid >= 16384";
    let sql = format!(
        "SELECT '1259,'||$1||',0', $1::regclass::text
         UNION ALL (SELECT '1259,'||$1||','||attnum, quote_ident(attname)||' of '||$1::regclass FROM pg_attribute
             WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum)
         UNION ALL SELECT k, name FROM ({}) AS l",
        labels(used)
    );
    let rows = prepared::rows(client, &[Asked::new(sql, "oid", oid.to_string())])?;
    Ok(rows.iter().filter_map(|row| Named::parse(row)).collect())
}

/// What an object depends on.
#[derive(Clone, Debug)]
pub(super) struct Need {
    pub of: Key,
    /// The catalog of that part of it which does: of a column the default, or the column itself.
    pub by: u32,
    pub needed: Named,
}

/// What each of these objects, or what PostgreSQL keeps of it elsewhere, depends on.
pub(super) fn needs(client: &mut Client, of: &[Key]) -> Result<Vec<Need>, Error> {
    if of.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "WITH o AS (SELECT * FROM unnest($1, $2, $3) AS x (class, oid, sub)),
         part AS (SELECT o.*, o.class AS c, o.oid AS i, o.sub AS s FROM o
             UNION ALL SELECT o.*, 2618, r.oid, 0 FROM o JOIN pg_rewrite r ON r.ev_class = o.oid AND r.rulename = '_RETURN'
                 WHERE o.class = 1259 AND o.sub = 0
             UNION ALL SELECT o.*, 2604, d.oid, 0 FROM o JOIN pg_attrdef d ON d.adrelid = o.oid AND d.adnum = o.sub
                 WHERE o.class = 1259
             UNION ALL SELECT o.*, 1259, k.conindid, 0 FROM o JOIN pg_constraint k ON k.oid = o.oid AND k.conindid <> 0
                 WHERE o.class = 2606),
         v AS (SELECT DISTINCT p.c AS by, p.class AS of_class, p.oid AS of_oid, p.sub AS of_sub, r.* FROM part p
             JOIN pg_depend d ON d.classid = p.c AND d.objid = p.i AND d.objsubid = p.s AND d.deptype IN ('n', 'a', 'i')
             CROSS JOIN LATERAL (
                 SELECT CASE WHEN k.oid IS NULL THEN d.refclassid ELSE 2606 END AS class,
                     coalesce(k.oid, CASE WHEN t.typcategory = 'A' THEN nullif(t.typelem, 0) END, d.refobjid) AS oid, d.refobjsubid AS sub
                 FROM (SELECT) AS one
                 LEFT JOIN pg_constraint k ON d.refclassid = 1259 AND d.refobjsubid = 0 AND k.conindid = d.refobjid
                     AND k.contype IN ('p', 'u', 'x')
                 LEFT JOIN pg_type t ON d.refclassid = 1247 AND t.oid = d.refobjid
                 UNION ALL SELECT 1259, d.refobjid, 0 WHERE d.refclassid = 1259 AND d.refobjsubid > 0) AS r
             WHERE d.refclassid IN (1247, 1255, 1259, 2615) AND (d.refobjid >= 16384 OR d.refclassid = 2615))
         SELECT v.of_class||','||v.of_oid||','||v.of_sub, v.by, v.class||','||v.oid||','||v.sub, {CALLED} FROM v"
    );
    Ok(prepared::rows(client, &[Asked::new(sql, ARRAYS, arrays(of))])?
        .iter()
        .filter_map(|row| {
            let (of, by) = (Key::parse(row.first()?)?, row.get(1)?.parse().ok()?);
            Some(Need { of, by, needed: Named::parse(row.get(2..)?)? })
        })
        .filter(|need| !is_held(&need.needed.name))
        .collect())
}
