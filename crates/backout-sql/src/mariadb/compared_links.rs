//! Foreign keys between tables that stay and those that come or go: they follow a table under its other name, so that they
//! go before it does, and come again once the other stands there.

use std::collections::BTreeSet;

use super::compared_schema::OneTable;
use super::ddl_links;
use super::ddl_shape::{Shape, without_links};
use super::session::ident;

/// An ALTER of foreign keys alone: the statement, and the definitions on either side.
pub struct Relinked {
    pub name: String,
    pub sql: String,
    pub before: String,
    pub after: String,
}

fn parent(line: &str) -> Option<String> {
    ddl_links::link(line).map(|(_, parent, _)| parent)
}

/// The tables that a definition's foreign keys point at.
pub fn parents(definition: &str) -> BTreeSet<String> {
    Shape::of(definition).links.iter().filter_map(|(_, line)| parent(line)).collect()
}

/// Drops these foreign keys.
fn unlink(name: &str, definition: &str, links: &[&(String, String)]) -> Option<Relinked> {
    let names: Vec<&str> = links.iter().map(|(link, _)| link.as_str()).collect();
    let drops: Vec<String> = names.iter().map(|link| format!("DROP FOREIGN KEY {}", ident(link))).collect();
    let sql = format!("ALTER TABLE {} {}", ident(name), drops.join(", "));
    let after = without_links(definition, &names);
    (!links.is_empty()).then(|| Relinked { name: name.to_owned(), sql, before: definition.to_owned(), after })
}

/// Makes these foreign keys, which lead to the definition.
fn link(name: &str, definition: &str, links: &[&(String, String)]) -> Option<Relinked> {
    let names: Vec<&str> = links.iter().map(|(link, _)| link.as_str()).collect();
    let said_again = ddl_links::said_again(&Shape::of(definition));
    let adds: Vec<String> = links.iter().map(|(_, line)| format!("ADD {line}")).chain(said_again).collect();
    let sql = format!("ALTER TABLE {} {}", ident(name), adds.join(", "));
    let before = without_links(definition, &names);
    (!links.is_empty()).then(|| Relinked { name: name.to_owned(), sql, before, after: definition.to_owned() })
}

/// What becomes of the foreign keys of a table that stays, before tables go and after others came.
pub fn of_one_that_stays(
    was: &OneTable,
    is: &OneTable,
    gone: &BTreeSet<String>,
    made: &BTreeSet<String>,
) -> (Option<Relinked>, Option<Relinked>) {
    let (old, new) = (Shape::of(&was.definition).links, Shape::of(&is.definition).links);
    let moves = |line: &str, away: &BTreeSet<String>| parent(line).is_none_or(|parent| away.contains(&parent));
    let goes = |one: &&(String, String)| !new.contains(one) || moves(&one.1, gone) || moves(&one.1, made);
    let comes = |one: &&(String, String)| !old.contains(one) || moves(&one.1, gone) || moves(&one.1, made);
    let goes: Vec<_> = old.iter().filter(goes).collect();
    let comes: Vec<_> = new.iter().filter(comes).collect();
    (unlink(&was.table.name, &was.definition, &goes), link(&is.table.name, &is.definition, &comes))
}

/// New tables, each behind those that it points at; what points in a circle is made afterwards.
pub fn in_order(mut left: Vec<&OneTable>) -> (Vec<(&OneTable, String)>, Vec<Relinked>) {
    let (mut sorted, mut later) = (Vec::new(), Vec::new());
    while !left.is_empty() {
        let waits = |one: &OneTable, on: &OneTable| {
            one.table.name != on.table.name && parents(&one.definition).contains(&on.table.name)
        };
        let next = left.iter().position(|one| !left.iter().any(|on| waits(one, on)));
        let one = left.remove(next.unwrap_or(0));
        let links = Shape::of(&one.definition).links;
        let early = |link: &&(String, String)| {
            parent(&link.1).is_some_and(|parent| left.iter().any(|other| other.table.name == parent))
        };
        let early: Vec<_> = links.iter().filter(early).collect();
        let relinked = link(&one.table.name, &one.definition, &early);
        sorted.push((one, relinked.as_ref().map_or_else(|| one.definition.clone(), |late| late.before.clone())));
        later.extend(relinked);
    }
    (sorted, later)
}
