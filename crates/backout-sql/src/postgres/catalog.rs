//! Objects of a database's schema with definitions in one canonical form, so that two readings can be compared.
//!
//! A definition is a map of parts (`not null`, `default`, `owner`, …), each a piece of SQL that PostgreSQL itself has
//! rendered with `search_path = pg_catalog`. Nothing here changes the database; members of extensions, temporary
//! objects and those of the tool are never read.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use postgres::{Error, SimpleQueryMessage};
use serde::{Deserialize, Serialize};

use super::prepared::{Asked, Client};
use super::{prepared, spelling};

/// The condition that a row of `pg_trigger` is a trigger that somebody made (none of the tool's own), or a partition's of one that somebody made for the
/// whole: PostgreSQL 13 and 14 call that one internal.
pub(super) fn users_trigger(alias: &str) -> String {
    format!(
        "({alias}.tgname !~ '^backout' AND (NOT {alias}.tgisinternal OR {alias}.tgparentid <> 0 AND ({alias}.tgconstraint = 0 \
         OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.oid = {alias}.tgconstraint AND k.contype = 't'))))"
    )
}

/// Where an object stands in the catalogs, as `pg_depend` has it: valid in one database, for as long as the object lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "(u32, u32, i32)", from = "(u32, u32, i32)")]
pub struct Key {
    pub class: u32,
    pub oid: u32,
    pub sub: i32,
}

impl From<(u32, u32, i32)> for Key {
    fn from((class, oid, sub): (u32, u32, i32)) -> Self {
        Self { class, oid, sub }
    }
}

impl From<Key> for (u32, u32, i32) {
    fn from(Key { class, oid, sub }: Key) -> Self {
        (class, oid, sub)
    }
}

impl Key {
    /// Reads `class,oid,sub`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(',');
        let key = Self {
            class: fields.next()?.parse().ok()?,
            oid: fields.next()?.parse().ok()?,
            sub: fields.next()?.parse().ok()?,
        };
        fields.next().is_none().then_some(key)
    }
}

/// OIDs of the catalogs, the same in every PostgreSQL.
pub mod class {
    pub const TYPE: u32 = 1247;
    pub const PROCEDURE: u32 = 1255;
    pub const RELATION: u32 = 1259;
    pub const DEFAULT_ACL: u32 = 826;
    pub const CONSTRAINT: u32 = 2606;
    pub const SCHEMA: u32 = 2615;
    pub const RULE: u32 = 2618;
    pub const TRIGGER: u32 = 2620;
    pub const EXTENSION: u32 = 3079;
    pub const POLICY: u32 = 3256;
    pub const STATISTICS: u32 = 3381;
    pub const PUBLICATION: u32 = 6104;
    pub const PUBLISHED_TABLE: u32 = 6106;
    pub const PUBLISHED_SCHEMA: u32 = 6237;
}

/// What an object is. The order is that in which objects are made, what is needed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Schema,
    Extension,
    Enum,
    Composite,
    Attribute,
    Domain,
    Range,
    Sequence,
    Function,
    Table,
    Column,
    Index,
    Constraint,
    View,
    MaterializedView,
    Statistics,
    Rule,
    Trigger,
    Policy,
    Publication,
    PublishedTable,
    PublishedSchema,
    DefaultPrivileges,
}

impl Kind {
    fn of(word: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
    }

    /// True for types, and for what they are in or come with.
    pub(super) fn is_of_types(self) -> bool {
        use Kind::{Attribute, Composite, Domain, Enum, Extension, Range, Schema};
        matches!(self, Schema | Extension | Enum | Composite | Attribute | Domain | Range)
    }

    /// As it stands in SQL and is said to people.
    pub fn words(self) -> &'static str {
        match self {
            Kind::Schema => "schema",
            Kind::Extension => "extension",
            Kind::Enum | Kind::Composite | Kind::Range => "type",
            Kind::Attribute => "attribute",
            Kind::Domain => "domain",
            Kind::Sequence => "sequence",
            Kind::Function => "function",
            Kind::Table => "table",
            Kind::Column => "column",
            Kind::Index => "index",
            Kind::Constraint => "constraint",
            Kind::View => "view",
            Kind::MaterializedView => "materialized view",
            Kind::Statistics => "statistics",
            Kind::Rule => "rule",
            Kind::Trigger => "trigger",
            Kind::Policy => "policy",
            Kind::Publication => "publication",
            Kind::PublishedTable => "published table",
            Kind::PublishedSchema => "published schema",
            Kind::DefaultPrivileges => "default privileges",
        }
    }
}

/// One object as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    pub kind: Kind,
    pub parts: BTreeMap<String, String>,
    /// Only within the step that read it.
    #[serde(skip)]
    pub key: Option<Key>,
}

/// Parts that say where an object stands or how it came to be there, not what it is.
pub(super) const NOT_COMPARED: [&str; 10] =
    ["id", "of", "position", "number", "file", "content", "inherited", "referenced", "index", "builtin"];

impl Object {
    pub fn part(&self, name: &str) -> Option<&str> {
        self.parts.get(name).map(String::as_str)
    }

    /// A part that every object of the kind has; empty if it does not.
    pub fn text(&self, name: &str) -> &str {
        self.part(name).unwrap_or_default()
    }

    /// Its qualified and quoted name.
    pub fn id(&self) -> &str {
        self.text("id")
    }

    /// The relation or domain that it belongs to; empty for an object of its own.
    pub fn of(&self) -> &str {
        self.text("of")
    }

    /// `column b of public.t`, for people.
    pub fn shown(&self) -> String {
        let word = match self.kind {
            Kind::Function => self.part("routine").unwrap_or("function").to_ascii_lowercase(),
            kind => kind.words().to_owned(),
        };
        match (self.kind, self.of()) {
            (Kind::Index, _) | (_, "") => format!("{word} {}", self.id()),
            (_, of) => format!("{word} {} of {of}", self.text("name")),
        }
    }

    /// The parts that say what it is.
    pub fn compared(&self) -> impl Iterator<Item = (&str, &str)> {
        let parts = self.parts.iter().filter(|(name, _)| !NOT_COMPARED.contains(&name.as_str()));
        parts.map(|(name, part)| (name.as_str(), part.as_str()))
    }

    /// The names of the parts in which two readings of the object differ.
    pub fn differences<'a>(&'a self, other: &'a Object) -> Vec<&'a str> {
        let mut names = self.unlike(other);
        names.retain(|name| !spelling::is_same(self.part(name), other.part(name)));
        names
    }

    /// The same, spelling included.
    fn unlike<'a>(&'a self, other: &'a Object) -> Vec<&'a str> {
        let mut names: Vec<&str> = self.parts.keys().chain(other.parts.keys()).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !NOT_COMPARED.contains(name) && self.part(name) != other.part(name));
        names
    }

    pub fn is_same(&self, other: &Object) -> bool {
        self.kind == other.kind && self.differences(other).is_empty()
    }

    /// The same to the letter.
    pub fn reads_like(&self, other: &Object) -> bool {
        self.kind == other.kind && self.unlike(other).is_empty()
    }

    /// True for what comes and goes with a parent's object of the same name: a partition's index, a child's column.
    pub fn is_inherited(&self) -> bool {
        self.part("inherited").is_some()
    }

    /// True for what the tool holds of a dropped table.
    pub fn is_held(&self) -> bool {
        self.of().starts_with("backout") || self.id().starts_with("backout")
    }

    /// SQL that finds the object's key by its name; NULL where there is none.
    pub(super) fn finder(&self) -> String {
        let (id, of, name) = (literal(self.id()), literal(self.of()), self.text("name"));
        let within = |class: u32, catalog: &str, owner: &str, column: &str| {
            format!(
                "(SELECT '{class},'||oid||',0' FROM pg_catalog.{catalog} WHERE {owner} = to_regclass({of}) \
                 AND quote_ident({column}) = {})",
                literal(name)
            )
        };
        match self.kind {
            Kind::Schema => format!("'{},'||to_regnamespace({id})::oid||',0'", class::SCHEMA),
            Kind::Table | Kind::View | Kind::MaterializedView | Kind::Sequence | Kind::Index | Kind::Composite => {
                format!("'{},'||to_regclass({id})::oid||',0'", class::RELATION)
            }
            Kind::Enum | Kind::Domain | Kind::Range => format!("'{},'||to_regtype({id})::oid||',0'", class::TYPE),
            // By text: to look it up as PostgreSQL does fails where a type of its arguments is gone.
            Kind::Function => format!(
                "(SELECT '{},'||p.oid||',0' FROM pg_proc p WHERE quote_ident(proname) = {} \
                 AND p.oid::regprocedure::text = {id})",
                class::PROCEDURE,
                literal(name)
            ),
            Kind::Column | Kind::Attribute => format!(
                "(SELECT '1259,'||attrelid||','||attnum FROM pg_attribute WHERE attrelid = to_regclass({of}) \
                 AND attnum > 0 AND NOT attisdropped AND quote_ident(attname) = {})",
                literal(name)
            ),
            Kind::Constraint if self.part("on domain").is_some() => format!(
                "(SELECT '2606,'||oid||',0' FROM pg_constraint WHERE contypid = to_regtype({of}) \
                 AND quote_ident(conname) = {})",
                literal(name)
            ),
            Kind::Constraint => within(class::CONSTRAINT, "pg_constraint", "conrelid", "conname"),
            Kind::Rule => within(class::RULE, "pg_rewrite", "ev_class", "rulename"),
            Kind::Trigger => {
                within(class::TRIGGER, "pg_trigger", &format!("{} AND tgrelid", users_trigger("pg_trigger")), "tgname")
            }
            Kind::Policy => within(class::POLICY, "pg_policy", "polrelid", "polname"),
            Kind::Statistics => format!(
                "(SELECT '{},'||oid||',0' FROM pg_statistic_ext WHERE quote_ident(stxname) = {} \
                 AND stxnamespace = to_regnamespace({}))",
                class::STATISTICS,
                literal(name),
                literal(self.text("schema"))
            ),
            Kind::Publication => format!(
                "(SELECT '{},'||oid||',0' FROM pg_publication WHERE quote_ident(pubname) = {id})",
                class::PUBLICATION
            ),
            Kind::PublishedTable => format!(
                "(SELECT '{},'||r.oid||',0' FROM pg_publication_rel r JOIN pg_publication p ON p.oid = prpubid \
                 WHERE quote_ident(pubname) = {of} AND prrelid = to_regclass({}))",
                class::PUBLISHED_TABLE,
                literal(name)
            ),
            Kind::PublishedSchema => format!(
                "(SELECT '{},'||r.oid||',0' FROM pg_publication_namespace r JOIN pg_publication p ON p.oid = pnpubid \
                 WHERE quote_ident(pubname) = {of} AND pnnspid = to_regnamespace({}))",
                class::PUBLISHED_SCHEMA,
                literal(name)
            ),
            Kind::DefaultPrivileges => format!(
                "(SELECT '{},'||oid||',0' FROM pg_default_acl WHERE quote_ident(pg_get_userbyid(defaclrole)) = {} \
                 AND defaclobjtype::text = {} AND defaclnamespace = coalesce(to_regnamespace({}), 0::oid))",
                class::DEFAULT_ACL,
                literal(self.text("role")),
                literal(self.text("objects")),
                self.part("schema").map_or_else(|| "NULL".to_owned(), literal)
            ),
            Kind::Extension => {
                format!("(SELECT '3079,'||oid||',0' FROM pg_extension WHERE quote_ident(extname) = {id})")
            }
        }
    }
}

/// A string as an SQL literal.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// The first column of every row that `sql` gives.
pub(super) fn column(client: &mut postgres::Client, sql: &str) -> Result<Vec<Option<String>>, Error> {
    let messages = client.simple_query(sql)?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
            _ => None,
        })
        .collect())
}

/// All rows that `sql` gives, as text; NULL is the empty string.
pub(super) fn rows(client: &mut postgres::Client, sql: &str) -> Result<Vec<Vec<String>>, Error> {
    let messages = client.simple_query(sql)?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect())
            }
            _ => None,
        })
        .collect())
}

/// Which objects are to be read.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub keys: Vec<Key>,
    /// Relations, with all that belongs to them.
    pub families: Vec<u32>,
    /// What the relations among them are, as `pg_class.relkind` has it, where that is known already.
    pub kinds: HashMap<u32, char>,
}

impl Wanted {
    /// These and nothing beside.
    pub(super) fn of(keys: BTreeSet<Key>) -> Self {
        Self { keys: keys.into_iter().collect(), ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.families.is_empty()
    }
}

/// Reads objects as they are now. Those that are not there, or are not to be seen, are left out.
pub fn read(client: &mut Client, wanted: &Wanted, version: u32) -> Result<Vec<Object>, Error> {
    let relations = relations(client, wanted)?;
    let asked = super::catalog_read::queries(wanted, &relations, version);
    let mut objects: Vec<Object> = prepared::rows(client, &asked)?.iter().filter_map(|row| object(row)).collect();
    objects.sort_by_key(|object| (object.kind, object.key));
    objects.dedup_by_key(|object| object.key);
    Ok(objects)
}

/// What the wanted relations are, as `pg_class.relkind` has it: each kind has a question of its own, and even one
/// without an answer takes its time.
fn relations(client: &mut Client, wanted: &Wanted) -> Result<HashMap<u32, char>, Error> {
    let keys = wanted.keys.iter().filter(|key| key.class == class::RELATION && key.sub == 0).map(|key| key.oid);
    let (known, asked): (Vec<u32>, Vec<u32>) =
        keys.chain(wanted.families.iter().copied()).partition(|oid| wanted.kinds.contains_key(oid));
    let mut kinds: HashMap<u32, char> = known.into_iter().map(|oid| (oid, wanted.kinds[&oid])).collect();
    let Some(oids) = super::catalog_read::list(asked.into_iter()) else { return Ok(kinds) };
    let sql = "SELECT oid, relkind FROM pg_class WHERE oid = ANY ($1)";
    let rows = prepared::rows(client, &[Asked::new(sql.to_owned(), "oid[]", oids)])?;
    kinds.extend(rows.iter().filter_map(|row| Some((row[0].parse().ok()?, row[1].chars().next()?))));
    Ok(kinds)
}

fn object(row: &[String]) -> Option<Object> {
    let [key, kind, json] = row else { return None };
    let value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).ok()?;
    let text = |value: serde_json::Value| match value {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    let parts = value.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect();
    Some(Object { kind: Kind::of(kind)?, parts, key: Key::parse(key) })
}

/// The keys that objects have now, by name; none for those that are not there.
pub fn find(client: &mut Client, objects: &[&Object]) -> Result<Vec<Option<Key>>, Error> {
    if objects.is_empty() {
        return Ok(Vec::new());
    }
    let finders: Vec<String> =
        objects.iter().enumerate().map(|(at, object)| format!("({at}, {})", object.finder())).collect();
    let sql = format!("SELECT k FROM (VALUES {}) v(n, k) ORDER BY n", finders.join(", "));
    Ok(column(client, &sql)?.into_iter().map(|key| key.as_deref().and_then(Key::parse)).collect())
}

/// Settings under which PostgreSQL renders a definition in the one canonical form.
pub const PINNED: [(&str, &str); 11] = [
    ("search_path", "pg_catalog"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("quote_all_identifiers", "off"),
    ("standard_conforming_strings", "on"),
    ("check_function_bodies", "off"),
    // What is prepared is planned once.
    ("plan_cache_mode", "force_generic_plan"),
];
