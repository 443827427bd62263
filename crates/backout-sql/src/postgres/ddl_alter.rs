//! SQL that gives one part of an object another value. What has no such statement is to be made anew.

use std::collections::BTreeSet;

use super::catalog::{Kind, Object, literal};
use super::ddl_make::{counting_without_type, identity_clause, publishes, word};
use super::{ddl_labels, spelling};

/// How a part gets its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setter {
    Sql(String),
    /// Only by dropping the object and making it again.
    Anew,
    /// It follows when another object gets its value.
    Follows,
    /// By keeping and copying rows: see `ddl_shape`.
    Shape,
    /// Not at all.
    Never,
}

/// How `part` of `live` becomes what it is in `wanted`; both have the same name by now.
pub(super) fn setter(live: &Object, wanted: &Object, part: &str) -> Setter {
    let value = wanted.part(part);
    let (id, of, name) = (live.id(), live.of(), live.text("name"));
    let sql = |text: String| Setter::Sql(text);
    match (live.kind, part) {
        (_, "comment") => sql(comment(live, value)),
        (_, "owner") => match value {
            Some(owner) => sql(format!("ALTER {} {id} OWNER TO {owner}", word(live))),
            None => Setter::Never,
        },
        (_, "acl") => sql(grants(live, wanted)),
        (Kind::Trigger, "depends on") => sql(depends(&format!("TRIGGER {name} ON {of}"), live.part(part), value)),
        (_, "depends on") => sql(depends(&format!("{} {id}", word(live)), live.part(part), value)),
        (_, "index depends on") => sql(depends(&format!("INDEX {}", live.text("index")), live.part(part), value)),
        (Kind::Table | Kind::View | Kind::MaterializedView, "options") => {
            sql(options(&format!("ALTER {} {id}", word(live)), "", live.part(part), value))
        }
        (Kind::Table, "toast options") => sql(options(&format!("ALTER TABLE {id}"), "toast.", live.part(part), value)),
        (Kind::Column, "options") => {
            sql(options(&format!("ALTER TABLE {of} ALTER COLUMN {name}"), "", live.part(part), value))
        }
        (Kind::Constraint, "index options") => {
            sql(options(&format!("ALTER INDEX {}", live.text("index")), "", live.part(part), value))
        }
        (Kind::Table | Kind::Sequence, "unlogged") => {
            let to = if value.is_some() { "UNLOGGED" } else { "LOGGED" };
            sql(format!("ALTER {} {id} SET {to}", word(live)))
        }
        (Kind::Table, _) => table(live, wanted, part),
        (Kind::Column, _) => column(live, wanted, part),
        (Kind::Attribute, "type" | "collation") => {
            let collation = wanted.part("collation").map(|name| format!(" COLLATE {name}")).unwrap_or_default();
            sql(format!("ALTER TYPE {of} ALTER ATTRIBUTE {name} TYPE {}{collation}", wanted.text("type")))
        }
        // The relation's own definition changes with what it is made of.
        (Kind::Composite, "attributes") => Setter::Anew,
        (Kind::Index | Kind::Constraint | Kind::MaterializedView, "tablespace") => {
            let index = if live.kind == Kind::Constraint { live.text("index") } else { id };
            let word = if live.kind == Kind::MaterializedView { "MATERIALIZED VIEW" } else { "INDEX" };
            sql(format!("ALTER {word} {index} SET TABLESPACE {}", value.unwrap_or("pg_default")))
        }
        (Kind::Index | Kind::Constraint, "clustered") => match value {
            Some(_) => sql(format!("ALTER TABLE {of} CLUSTER ON {name}")),
            None => sql(format!("ALTER TABLE {of} SET WITHOUT CLUSTER")),
        },
        (Kind::Index | Kind::Constraint, "replica identity") => match value {
            Some(_) => sql(format!("ALTER TABLE {of} REPLICA IDENTITY USING INDEX {name}")),
            None => Setter::Follows,
        },
        // See `ddl_attach`.
        (Kind::Index | Kind::Constraint, "attached to") if value.is_some() => Setter::Follows,
        (Kind::Index | Kind::Constraint, "attached to") => match value {
            // Attaching the partition attaches its indexes, too.
            _ if wanted.is_inherited() || live.is_inherited() => Setter::Follows,
            Some(parent) => {
                let index = if live.kind == Kind::Constraint { live.text("index") } else { id };
                sql(format!("ALTER INDEX {parent} ATTACH PARTITION {index}"))
            }
            None => Setter::Anew,
        },
        (Kind::Index, "statistics") => sql(index_statistics(id, live.part(part), value)),
        (Kind::Index, "invalid") => Setter::Follows,
        (Kind::Constraint, "index comment") => {
            sql(format!("COMMENT ON INDEX {} IS {}", live.text("index"), text_or_null(value)))
        }
        (Kind::View, "definition") => sql(format!(
            "CREATE OR REPLACE VIEW {id}{} AS {}",
            wanted.part("options").map(|options| format!(" WITH ({options})")).unwrap_or_default(),
            spelling::to_come_back(wanted.text("definition"))
        )),
        (Kind::MaterializedView, "empty") => {
            let with = if value.is_some() { "WITH NO DATA" } else { "WITH DATA" };
            sql(format!("REFRESH MATERIALIZED VIEW {id} {with}"))
        }
        (Kind::Function, "definition") if wanted.part("definition").is_some() => sql(format!(
            "CREATE OR REPLACE {} {}.{}{}",
            wanted.text("routine"),
            wanted.text("schema"),
            wanted.text("name"),
            wanted.text("definition")
        )),
        (Kind::Sequence, "counting") => sql(format!("ALTER SEQUENCE {id} {}", wanted.text("counting"))),
        (Kind::Sequence, "owned by") => sql(format!("ALTER SEQUENCE {id} OWNED BY {}", value.unwrap_or("NONE"))),
        (Kind::Domain, "default") => match value {
            Some(default) => sql(format!("ALTER DOMAIN {id} SET DEFAULT {default}")),
            None => sql(format!("ALTER DOMAIN {id} DROP DEFAULT")),
        },
        (Kind::Domain, "not null") => {
            sql(format!("ALTER DOMAIN {id} {} NOT NULL", if value.is_some() { "SET" } else { "DROP" }))
        }
        (Kind::Enum, "labels") => ddl_labels::setter(live, wanted),
        (Kind::Range | Kind::Domain | Kind::Extension, _) => Setter::Never,
        (Kind::Trigger | Kind::Rule, "enabled") => {
            let state = match value {
                Some("D") => "DISABLE",
                Some("R") => "ENABLE REPLICA",
                Some("A") => "ENABLE ALWAYS",
                _ => "ENABLE",
            };
            sql(format!("ALTER TABLE {of} {state} {} {name}", word(live)))
        }
        (Kind::Statistics, "target") => sql(format!("ALTER STATISTICS {id} SET STATISTICS {}", value.unwrap_or("-1"))),
        (Kind::Publication, "publish" | "via root") => {
            sql(format!("ALTER PUBLICATION {id} SET ({})", publishes(wanted)))
        }
        (Kind::Publication, "all tables") => Setter::Never,
        (Kind::PublishedTable, _) => {
            let add = super::ddl_make::create(wanted, &[]).unwrap_or_default();
            sql(format!("{}; {add}", super::ddl_make::drop(live)))
        }
        _ => Setter::Anew,
    }
}

fn table(live: &Object, wanted: &Object, part: &str) -> Setter {
    let id = live.id();
    let value = wanted.part(part);
    Setter::Sql(match part {
        "row security" => {
            format!("ALTER TABLE {id} {} ROW LEVEL SECURITY", if value.is_some() { "ENABLE" } else { "DISABLE" })
        }
        "force row security" => {
            format!("ALTER TABLE {id} {} ROW LEVEL SECURITY", if value.is_some() { "FORCE" } else { "NO FORCE" })
        }
        "replica identity" => match value {
            // The index itself says that it is the one.
            Some("INDEX") => return Setter::Follows,
            value => format!("ALTER TABLE {id} REPLICA IDENTITY {}", value.unwrap_or("DEFAULT")),
        },
        "tablespace" => format!("ALTER TABLE {id} SET TABLESPACE {}", value.unwrap_or("pg_default")),
        "access method" => match value {
            Some(method) => format!("ALTER TABLE {id} SET ACCESS METHOD {method}"),
            None => return Setter::Never,
        },
        "bound" if live.part("partition of") != wanted.part("partition of") => return Setter::Follows,
        "partition of" | "bound" => {
            let mut sql = Vec::new();
            if let Some(parent) = live.part("partition of") {
                sql.push(format!("ALTER TABLE {parent} DETACH PARTITION {id}"));
            }
            if let (Some(parent), Some(bound)) = (wanted.part("partition of"), wanted.part("bound")) {
                sql.push(format!("ALTER TABLE {parent} ATTACH PARTITION {id} {bound}"));
            }
            sql.join("; ")
        }
        "inherits" => {
            let of = |object: &Object| -> Vec<String> {
                object.part(part).map(|text| text.split('\n').map(str::to_owned).collect()).unwrap_or_default()
            };
            let (now, then) = (of(live), of(wanted));
            let gone = now.iter().filter(|parent| !then.contains(parent));
            let come = then.iter().filter(|parent| !now.contains(parent));
            gone.map(|parent| format!("ALTER TABLE {id} NO INHERIT {parent}"))
                .chain(come.map(|parent| format!("ALTER TABLE {id} INHERIT {parent}")))
                .collect::<Vec<_>>()
                .join("; ")
        }
        "of type" => match value {
            Some(name) => format!("ALTER TABLE {id} OF {name}"),
            None => format!("ALTER TABLE {id} NOT OF"),
        },
        _ => return Setter::Never,
    })
}

fn column(live: &Object, wanted: &Object, part: &str) -> Setter {
    let value = wanted.part(part);
    let start = format!("ALTER TABLE {} ALTER COLUMN {}", live.of(), live.text("name"));
    Setter::Sql(match part {
        "type" | "collation" | "generated" | "virtual" => return Setter::Shape,
        "not null as" | "not null" if wanted.part("not null as").is_some() => {
            let parts = |object: &Object| -> Option<(String, String)> {
                let (name, how) = object.part("not null as")?.split_once('\n')?;
                Some((name.to_owned(), how.to_owned()))
            };
            let (Some((name, how)), of) = (parts(wanted), live.of()) else { return Setter::Never };
            let add = format!("ALTER TABLE {of} ADD CONSTRAINT {name} NOT NULL {}{how}", live.text("name"));
            match parts(live) {
                None if part == "not null" && live.part("not null as").is_none() => add,
                None => return Setter::Follows,
                Some((old, same)) if same == how && old != name => {
                    format!("ALTER TABLE {of} RENAME CONSTRAINT {old} TO {name}")
                }
                Some((old, _)) => format!("ALTER TABLE {of} DROP CONSTRAINT {old}; {add}"),
            }
        }
        "not null as" => return Setter::Follows,
        "not null" => format!("{start} {} NOT NULL", if value.is_some() { "SET" } else { "DROP" }),
        "default" => match value {
            Some(default) => format!("{start} SET DEFAULT {default}"),
            None => format!("{start} DROP DEFAULT"),
        },
        // That of a partition comes with the whole's.
        "identity" if value.is_some() && wanted.part("sequence").is_none() => return Setter::Follows,
        "identity" => match (live.part(part), value) {
            (None, Some(identity)) => format!("{start} ADD{}", identity_clause(wanted, identity)),
            (Some(_), Some(identity)) => format!("{start} SET GENERATED {identity}"),
            (_, None) => format!("{start} DROP IDENTITY IF EXISTS"),
        },
        "counting" | "sequence" | "sequence comment" | "sequence acl"
            if live.part("identity").is_none() || wanted.part("identity").is_none() =>
        {
            return Setter::Follows;
        }
        "counting" => format!("ALTER SEQUENCE {} {}", live.text("sequence"), counting_without_type(wanted)),
        "sequence" => {
            let name = wanted.text(part).rsplit('.').next().unwrap_or_default();
            format!("ALTER SEQUENCE {} RENAME TO {name}", live.text("sequence"))
        }
        "sequence comment" => {
            format!("COMMENT ON SEQUENCE {} IS {}", live.text("sequence"), text_or_null(value))
        }
        "sequence acl" => grants(&own_sequence(live), &own_sequence(wanted)),
        "from parent" => return Setter::Follows,
        "storage" => match value {
            Some(storage) => format!("{start} SET STORAGE {storage}"),
            None => return Setter::Follows,
        },
        "compression" => format!("{start} SET COMPRESSION {}", value.unwrap_or("default")),
        "statistics" => format!("{start} SET STATISTICS {}", value.unwrap_or("-1")),
        _ => return Setter::Never,
    })
}

/// The sequence of an identity column, of which what is granted on it is a part of the column.
fn own_sequence(column: &Object) -> Object {
    let named = [("id", "sequence"), ("acl", "sequence acl"), ("builtin", "builtin")];
    let parts = named.into_iter().filter_map(|(name, part)| Some((name.to_owned(), column.part(part)?.to_owned())));
    Object { kind: Kind::Sequence, parts: parts.collect(), key: None }
}

fn text_or_null(value: Option<&str>) -> String {
    value.map_or_else(|| "NULL".to_owned(), literal)
}

fn comment(object: &Object, value: Option<&str>) -> String {
    let (id, of, name) = (object.id(), object.of(), object.text("name"));
    let what = match object.kind {
        Kind::Attribute => format!("COLUMN {of}.{name}"),
        Kind::Constraint if object.part("on domain").is_some() => format!("CONSTRAINT {name} ON DOMAIN {of}"),
        Kind::Constraint | Kind::Rule | Kind::Trigger | Kind::Policy => format!("{} {name} ON {of}", word(object)),
        _ => format!("{} {id}", word(object)),
    };
    format!("COMMENT ON {what} IS {}", text_or_null(value))
}

/// Storage parameters: those that are not wanted go back to their default.
fn options(start: &str, prefix: &str, live: Option<&str>, wanted: Option<&str>) -> String {
    let names = |text: &str| -> Vec<String> {
        text.split(", ").filter_map(|option| Some(option.split_once('=')?.0.to_owned())).collect()
    };
    let wanted_names = wanted.map(names).unwrap_or_default();
    let gone: Vec<String> = live
        .map(names)
        .unwrap_or_default()
        .into_iter()
        .filter(|name| !wanted_names.contains(name))
        .map(|name| format!("{prefix}{name}"))
        .collect();
    let mut sql = Vec::new();
    if !gone.is_empty() {
        sql.push(format!("{start} RESET ({})", gone.join(", ")));
    }
    if let Some(wanted) = wanted {
        let set: Vec<String> = wanted.split(", ").map(|option| format!("{prefix}{option}")).collect();
        sql.push(format!("{start} SET ({})", set.join(", ")));
    }
    sql.join("; ")
}

/// Extensions without which the object would go, too: those that are not wanted are left out, the others taken in.
fn depends(what: &str, live: Option<&str>, wanted: Option<&str>) -> String {
    let of = |text: Option<&'_ str>| text.unwrap_or_default().lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (now, then) = (of(live), of(wanted));
    let gone = now.difference(&then).map(|name| format!("ALTER {what} NO DEPENDS ON EXTENSION {name}"));
    gone.chain(then.difference(&now).map(|name| format!("ALTER {what} DEPENDS ON EXTENSION {name}")))
        .collect::<Vec<_>>()
        .join("; ")
}

fn index_statistics(id: &str, live: Option<&str>, wanted: Option<&str>) -> String {
    let of = |text: Option<&str>| -> Vec<(String, String)> {
        let lines = text.unwrap_or_default().lines();
        lines.filter_map(|line| line.split_once(' ').map(|(at, to)| (at.to_owned(), to.to_owned()))).collect()
    };
    let (live, wanted) = (of(live), of(wanted));
    let gone = live.iter().filter(|(at, _)| wanted.iter().all(|(other, _)| other != at));
    gone.map(|(at, _)| (at, "-1"))
        .chain(wanted.iter().map(|(at, to)| (at, to.as_str())))
        .map(|(at, to)| format!("ALTER INDEX {id} ALTER COLUMN {at} SET STATISTICS {to}"))
        .collect::<Vec<_>>()
        .join("; ")
}

/// One grant as it was read: grantee, privilege, grant option, grantor.
type Grant<'a> = (&'a str, &'a str, bool, &'a str);

fn items(text: Option<&str>) -> BTreeSet<Grant<'_>> {
    let lines = text.unwrap_or_default().lines();
    lines
        .filter_map(|line| {
            let mut fields = line.split('\t');
            Some((fields.next()?, fields.next()?, fields.next()? == "t", fields.next()?))
        })
        .collect()
}

/// Statements that turn one list of grants into another, each spoken by its grantor.
fn grants(live: &Object, wanted: &Object) -> String {
    let builtin = live.part("builtin").or(wanted.part("builtin"));
    let (now, then) = (items(live.part("acl").or(builtin)), items(wanted.part("acl").or(builtin)));
    let owner = live.text("owner");
    let mut sql = Vec::new();
    let mut speak = |grantor: &str, text: String| {
        if live.part("owner").is_none() || grantor == owner {
            sql.push(text);
        } else {
            sql.push(format!("SET LOCAL ROLE {grantor}; {text}; RESET ROLE"));
        }
    };
    for (grantee, privilege, option, grantor) in now.difference(&then) {
        let still = then.contains(&(grantee, privilege, false, grantor));
        let option = if *option && still { "GRANT OPTION FOR " } else { "" };
        let (on, start) = on(live, privilege);
        speak(grantor, format!("{start}REVOKE {option}{on} FROM {grantee} CASCADE"));
    }
    for (grantee, privilege, option, grantor) in then.difference(&now) {
        let option = if *option { " WITH GRANT OPTION" } else { "" };
        let (on, start) = on(live, privilege);
        speak(grantor, format!("{start}GRANT {on} TO {grantee}{option}"));
    }
    sql.join("; ")
}

/// `SELECT ON TABLE t`, and what stands before GRANT.
fn on(object: &Object, privilege: &str) -> (String, String) {
    let (id, of) = (object.id(), object.of());
    let on = match object.kind {
        Kind::Column => format!("{privilege} ({}) ON {of}", object.text("name")),
        Kind::Table | Kind::View | Kind::MaterializedView => format!("{privilege} ON TABLE {id}"),
        Kind::Enum | Kind::Composite | Kind::Range | Kind::Domain => format!("{privilege} ON TYPE {id}"),
        Kind::DefaultPrivileges => {
            let objects = match object.text("objects") {
                "r" => "TABLES",
                "S" => "SEQUENCES",
                "f" => "FUNCTIONS",
                "T" => "TYPES",
                _ => "SCHEMAS",
            };
            let within = object.part("schema").map(|name| format!(" IN SCHEMA {name}")).unwrap_or_default();
            let start = format!("ALTER DEFAULT PRIVILEGES FOR ROLE {}{within} ", object.text("role"));
            return (format!("{privilege} ON {objects}"), start);
        }
        _ => format!("{privilege} ON {} {id}", word(object)),
    };
    (on, String::new())
}

/// The statements by which default privileges come to be or go away: those of their grants.
pub(super) fn default_privileges(object: &Object, comes: bool) -> String {
    let mut other = object.clone();
    other.parts.remove("acl");
    if comes { grants(&other, object) } else { grants(object, &other) }
}
