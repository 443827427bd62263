//! SQL that makes and drops an object from its definition. What a CREATE leaves at its default (owner, grants, comment,
//! storage) is for [`super::ddl_alter`] to set afterwards.

use super::catalog::{Kind, Object, literal};
use super::ddl_keep::widens;
use super::spelling;

/// The word that ALTER and DROP use for an object.
pub(super) fn word(object: &Object) -> String {
    match object.kind {
        // Its arguments are not written as those of an aggregate.
        Kind::Function if object.part("routine") == Some("AGGREGATE") => "ROUTINE".to_owned(),
        Kind::Function => object.part("routine").unwrap_or("FUNCTION").to_owned(),
        kind => kind.words().to_ascii_uppercase(),
    }
}

/// True where an object is made together with others of `all` or comes by itself.
pub(super) fn comes_with(object: &Object, all: &[&Object]) -> bool {
    let with = |kind: Kind| all.iter().find(|other| other.kind == kind && other.id() == object.of());
    match object.kind {
        Kind::Column => with(Kind::Table).is_some() || object.part("relation").is_some() || object.is_inherited(),
        Kind::Attribute => with(Kind::Composite).is_some(),
        // A partition's own are there before it is attached. Indexes, and keys with them, are made one by one and attached
        // to each other.
        Kind::Constraint if object.part("attached to").is_some() => false,
        Kind::Constraint if object.is_inherited() => {
            with(Kind::Table).is_none_or(|table| table.part("partition of").is_none())
        }
        Kind::Trigger => object.is_inherited(),
        _ => false,
    }
}

/// The statement that makes an object; none for what cannot be made from a definition.
pub(super) fn create(object: &Object, all: &[&Object]) -> Option<String> {
    let sql = as_defined(object, all)?;
    // The text of a function is what it is, to the letter.
    Some(if object.kind == Kind::Function { sql } else { spelling::to_come_back(&sql).into_owned() })
}

fn as_defined(object: &Object, all: &[&Object]) -> Option<String> {
    let (id, of, name, definition) = (object.id(), object.of(), object.text("name"), object.text("definition"));
    let with = object.part("options").map(|options| format!(" WITH ({options})")).unwrap_or_default();
    Some(match object.kind {
        Kind::Schema => format!("CREATE SCHEMA {id}"),
        Kind::Extension => {
            format!(
                "CREATE EXTENSION {id} SCHEMA {} VERSION {}",
                object.text("schema"),
                literal(object.text("version"))
            )
        }
        Kind::Enum => format!("CREATE TYPE {id} AS ENUM ({})", object.text("labels")),
        Kind::Composite => format!("CREATE TYPE {id} AS ({})", object.text("attributes")),
        Kind::Range => format!("CREATE TYPE {id} AS RANGE ({})", object.text("range")),
        Kind::Domain => {
            let default = object.part("default").map(|default| format!(" DEFAULT {default}")).unwrap_or_default();
            let null = if object.part("not null").is_some() { " NOT NULL" } else { "" };
            format!("CREATE DOMAIN {id} AS {}{}{default}{null}", object.text("base"), collate(object))
        }
        Kind::Attribute => {
            format!("ALTER TYPE {of} ADD ATTRIBUTE {name} {}{}", object.text("type"), collate(object))
        }
        Kind::Sequence => {
            let unlogged = if object.part("unlogged").is_some() { "UNLOGGED " } else { "" };
            format!("CREATE {unlogged}SEQUENCE {id} {}", object.text("counting"))
        }
        Kind::Function => {
            let routine = object.text("routine");
            format!("CREATE OR REPLACE {routine} {}.{name}{definition}", object.text("schema"))
        }
        Kind::Table => table(object, all),
        Kind::Column => format!("ALTER TABLE {of} ADD COLUMN {}", column(object)),
        Kind::Index => {
            let unique = if object.part("unique").is_some() { "UNIQUE " } else { "" };
            let only = if object.part("only").is_some() { "ONLY " } else { "" };
            format!("CREATE {unique}INDEX {name} ON {only}{of} {definition}")
        }
        Kind::Constraint if object.part("on domain").is_some() => {
            format!("ALTER DOMAIN {of} ADD CONSTRAINT {name} {definition}")
        }
        // Every other constraint goes to the partitions by itself.
        Kind::Constraint => {
            let only = if object.part("whole").is_some() { "ONLY " } else { "" };
            format!("ALTER TABLE {only}{of} ADD CONSTRAINT {name} {definition}")
        }
        Kind::View => format!("CREATE VIEW {id}{with} AS {definition}"),
        Kind::MaterializedView => {
            let data = if object.part("empty").is_some() { "NO DATA" } else { "DATA" };
            let definition = definition.trim_end().trim_end_matches(';');
            format!("CREATE MATERIALIZED VIEW {id}{with} AS {definition} WITH {data}")
        }
        Kind::Statistics => format!("CREATE STATISTICS {id}{definition}"),
        Kind::Rule => format!("CREATE RULE {name}{definition}"),
        Kind::Trigger => {
            let constraint = if object.part("constraint").is_some() { "CONSTRAINT " } else { "" };
            format!("CREATE {constraint}TRIGGER {name}{definition}")
        }
        Kind::Policy => {
            let kind = if object.part("restrictive").is_some() { "RESTRICTIVE" } else { "PERMISSIVE" };
            let clause =
                |word: &str, part: &str| object.part(part).map(|text| format!(" {word} ({text})")).unwrap_or_default();
            format!(
                "CREATE POLICY {name} ON {of} AS {kind} FOR {} TO {}{}{}",
                object.text("command"),
                object.text("roles"),
                clause("USING", "using"),
                clause("WITH CHECK", "check")
            )
        }
        Kind::Publication => {
            let all = if object.part("all tables").is_some() { " FOR ALL TABLES" } else { "" };
            format!("CREATE PUBLICATION {id}{all} WITH ({})", publishes(object))
        }
        Kind::PublishedTable => {
            let columns = object.part("columns").map(|columns| format!(" ({columns})")).unwrap_or_default();
            let rows = object.part("where").map(|rows| format!(" WHERE ({rows})")).unwrap_or_default();
            format!("ALTER PUBLICATION {of} ADD TABLE ONLY {name}{columns}{rows}")
        }
        Kind::PublishedSchema => format!("ALTER PUBLICATION {of} ADD TABLES IN SCHEMA {name}"),
        // Its grants are all that it is.
        Kind::DefaultPrivileges => String::new(),
    })
}

pub(super) fn publishes(object: &Object) -> String {
    format!(
        "publish = {}, publish_via_partition_root = {}",
        literal(object.text("publish")),
        object.part("via root").is_some()
    )
}

fn collate(object: &Object) -> String {
    object.part("collation").map(|collation| format!(" COLLATE {collation}")).unwrap_or_default()
}

fn table(object: &Object, all: &[&Object]) -> String {
    let mut columns: Vec<&&Object> =
        all.iter().filter(|other| other.kind == Kind::Column && other.of() == object.id()).collect();
    columns.sort_by_key(|column| column.text("position").parse::<u32>().unwrap_or(u32::MAX));
    let is_partition = object.part("partition of").is_some();
    let columns: Vec<String> = columns
        .into_iter()
        .filter(|column| is_partition || !column.is_inherited())
        .map(|column| self::column(column))
        .collect();
    let mut sql = String::from("CREATE ");
    if object.part("unlogged").is_some() {
        sql.push_str("UNLOGGED ");
    }
    sql.push_str(&format!("TABLE {} ({})", object.id(), columns.join(", ")));
    if let Some(parents) = object.part("inherits") {
        sql.push_str(&format!(" INHERITS ({})", parents.replace('\n', ", ")));
    }
    if let Some(key) = object.part("partition key") {
        sql.push_str(&format!(" PARTITION BY {key}"));
    }
    if let Some(method) = object.part("access method") {
        sql.push_str(&format!(" USING {method}"));
    }
    if let Some(options) = object.part("options") {
        sql.push_str(&format!(" WITH ({options})"));
    }
    if let Some(tablespace) = object.part("tablespace") {
        sql.push_str(&format!(" TABLESPACE {tablespace}"));
    }
    sql
}

/// A column as CREATE TABLE and ADD COLUMN take it.
pub(super) fn column(object: &Object) -> String {
    let mut sql = format!("{} {}{}", object.text("name"), object.text("type"), collate(object));
    if let Some(default) = object.part("default") {
        sql.push_str(&format!(" DEFAULT {default}"));
    }
    if let Some(expression) = object.part("generated") {
        sql.push_str(&format!(
            " GENERATED ALWAYS AS ({expression}) {}",
            if object.part("virtual").is_some() { "VIRTUAL" } else { "STORED" }
        ));
    }
    // That of a partition is the whole's, and comes with it.
    if let Some(identity) = object.part("identity").filter(|_| object.part("sequence").is_some()) {
        sql.push_str(&identity_clause(object, identity));
    }
    if object.part("not null").is_some() {
        match object.part("not null as").and_then(|text| text.split_once('\n')) {
            // What is not valid is added afterwards.
            Some((name, how)) if !how.contains("NOT VALID") => {
                sql.push_str(&format!(" CONSTRAINT {name} NOT NULL{how}"))
            }
            Some(_) => {}
            None => sql.push_str(" NOT NULL"),
        }
    }
    sql
}

/// `GENERATED … AS IDENTITY (…)` with the old sequence's name; the column's type says what it counts in.
pub(super) fn identity_clause(object: &Object, identity: &str) -> String {
    format!(
        " GENERATED {identity} AS IDENTITY (SEQUENCE NAME {} {})",
        object.text("sequence"),
        counting_without_type(object)
    )
}

pub(super) fn counting_without_type(object: &Object) -> &str {
    let counting = object.text("counting");
    counting.find("START WITH").map_or(counting, |at| &counting[at..])
}

/// PostgreSQL hears of a change of a domain only once something else is written, and sets no savepoint until then. No part
/// of a script that others run.
pub(super) const HEARD: &str = "; CREATE TEMPORARY TABLE backout_heard (); DROP TABLE pg_temp.backout_heard";

/// The statement that drops an object. It never takes along what others hung on it.
pub(super) fn drop(object: &Object) -> String {
    let (id, of, name) = (object.id(), object.of(), object.text("name"));
    match object.kind {
        Kind::Column => format!("ALTER TABLE {of} DROP COLUMN IF EXISTS {name}"),
        Kind::Attribute => format!("ALTER TYPE {of} DROP ATTRIBUTE IF EXISTS {name}"),
        Kind::Constraint if object.part("on domain").is_some() => {
            format!("ALTER DOMAIN {of} DROP CONSTRAINT IF EXISTS {name}{HEARD}")
        }
        Kind::Constraint => format!("ALTER TABLE IF EXISTS {of} DROP CONSTRAINT IF EXISTS {name}"),
        Kind::Rule | Kind::Trigger | Kind::Policy => {
            format!("DROP {} IF EXISTS {name} ON {of}", word(object))
        }
        Kind::PublishedTable => format!("ALTER PUBLICATION {of} DROP TABLE ONLY {name}"),
        Kind::PublishedSchema => format!("ALTER PUBLICATION {of} DROP TABLES IN SCHEMA {name}"),
        Kind::DefaultPrivileges => String::new(),
        _ => {
            // A foreign key that points at the whole keeps its parts.
            let part = object.part("partition of").filter(|_| object.kind == Kind::Table);
            let apart = part.map(|whole| format!("ALTER TABLE {whole} DETACH PARTITION {id}; "));
            format!("{}DROP {} IF EXISTS {id}", apart.unwrap_or_default(), word(object))
        }
    }
}

/// The statement that gives a column another type, its values cast as far as PostgreSQL knows how.
pub(super) fn retype(now: &Object, wanted: &Object) -> String {
    let (of, name, kind) = (now.of(), now.text("name"), wanted.text("type"));
    match (now.part("generated"), wanted.part("generated")) {
        (Some(_), None) => format!("ALTER TABLE {of} ALTER COLUMN {name} DROP EXPRESSION"),
        // A cast would cut what others wrote since; so would the column with blanks at the end of it.
        _ if widens(kind, now.text("type")) => {
            let fits = match kind.strip_prefix("character varying(").and_then(|limit| limit.strip_suffix(')')) {
                Some(limit) => {
                    let longer = format!("char_length({name}) > {limit}");
                    format!(" USING CASE WHEN {longer} THEN rpad({name}, char_length({name}) + 1, '.') ELSE {name} END")
                }
                None => String::new(),
            };
            format!("ALTER TABLE {of} ALTER COLUMN {name} TYPE {kind}{}{fits}", collate(wanted))
        }
        _ => format!("ALTER TABLE {of} ALTER COLUMN {name} TYPE {kind}{} USING {name}::{kind}", collate(wanted)),
    }
}
