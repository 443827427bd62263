//! Gives objects the names and schemas that they shall have. Where one shall have the name that another still has, it
//! waits under a name between.

use super::catalog::{Kind, Object};
use super::ddl_make::word;
use super::ddl_turn::Act;

/// The statements that rename and move, in an order that mostly works; the others work when tried again. Those of the second
/// list come when all of the first are done.
pub(super) fn all(altered: &[(&Object, &Object)]) -> [Vec<Act>; 2] {
    // A part is named by its whole: it gives its name up before that has another, and waits for its own until then.
    let (mut parts, mut first, mut then, mut last) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (at, (from, to)) in altered.iter().enumerate() {
        let shown = format!("rename {}", from.shown());
        // A parent's column takes those of its children along.
        let act = |sql: String| Act { sql, shown: shown.clone(), drops: from.kind == Kind::Column };
        let renamed = from.text("name") != to.text("name");
        let schema = schema(from, to);
        let in_the_way =
            |other: &(&Object, &Object)| !std::ptr::eq(other.0, *from) && other.0.text("name") == to.text("name");
        // That of a partition follows that of the whole, and what is published its table or schema.
        let follows = from.kind == Kind::Trigger && from.is_inherited()
            || matches!(from.kind, Kind::PublishedTable | Kind::PublishedSchema);
        if follows || !(renamed || schema.is_some()) {
            continue;
        }
        let mut now = (*from).clone();
        let is_part = goes_along(from);
        if altered.iter().any(in_the_way) {
            // A script may say it, where names that begin as the tool's own are refused.
            let between = format!("between_names_of_backout_{at}");
            let free = if is_part { &mut parts } else { &mut first };
            free.push(act(rename(&now, &between)));
            if is_part {
                now.parts.extend(
                    ["of", "schema"].iter().filter_map(|part| Some(((*part).to_owned(), to.part(part)?.to_owned()))),
                );
            }
            call(&mut now, None, &between);
        }
        let is_free = now.text("name") != from.text("name");
        let moves = match (is_part, is_free) {
            (true, true) => &mut last,
            (true, false) => &mut parts,
            (false, _) => &mut then,
        };
        if let Some(schema) = schema {
            moves.push(act(format!("ALTER {} {} SET SCHEMA {schema}", word(&now), now.id())));
            let name = now.text("name").to_owned();
            call(&mut now, Some(schema), &name);
        }
        if now.text("name") != to.text("name") {
            moves.push(act(rename(&now, to.text("name"))));
        }
    }
    [[parts, first, then].into_iter().flatten().collect(), last]
}

/// True for what a table or type takes along, whatever becomes of it.
fn goes_along(object: &Object) -> bool {
    !object.of().is_empty() && object.kind != Kind::Statistics || object.part("owned by").is_some()
}

/// The schema that it goes to. A table takes its indexes and the sequences of its columns along.
fn schema<'a>(from: &Object, to: &'a Object) -> Option<&'a str> {
    let (now, then) = (from.part("schema")?, to.part("schema")?);
    (!goes_along(from) && now != then).then_some(then)
}

fn rename(now: &Object, name: &str) -> String {
    let (id, of, old, word) = (now.id(), now.of(), now.text("name"), word(now));
    match now.kind {
        Kind::Column => format!("ALTER TABLE {of} RENAME COLUMN {old} TO {name}"),
        Kind::Attribute => format!("ALTER TYPE {of} RENAME ATTRIBUTE {old} TO {name}"),
        Kind::Constraint if now.part("on domain").is_some() => {
            format!("ALTER DOMAIN {of} RENAME CONSTRAINT {old} TO {name}")
        }
        Kind::Constraint => format!("ALTER TABLE {of} RENAME CONSTRAINT {old} TO {name}"),
        Kind::Rule | Kind::Trigger | Kind::Policy => format!("ALTER {word} {old} ON {of} RENAME TO {name}"),
        _ => format!("ALTER {word} {id} RENAME TO {name}"),
    }
}

/// Notes its new name, and schema.
fn call(object: &mut Object, schema: Option<&str>, name: &str) {
    let before = format!("{}.{}", object.text("schema"), object.text("name"));
    let arguments = object.id().strip_prefix(&before).filter(|_| object.kind == Kind::Function).unwrap_or_default();
    let id = match schema.or(object.part("schema")) {
        Some(schema) => format!("{schema}.{name}{arguments}"),
        None => name.to_owned(),
    };
    if let Some(schema) = schema {
        object.parts.insert("schema".to_owned(), schema.to_owned());
    }
    object.parts.insert("id".to_owned(), id);
    object.parts.insert("name".to_owned(), name.to_owned());
}
