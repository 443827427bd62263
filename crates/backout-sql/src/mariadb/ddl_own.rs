//! Indexes that the server made by itself for foreign keys. It drops them by itself where another one serves, and would not
//! drop one of the user's own. So the way back of an ALTER brings such a one as the server does: with a foreign key like the one
//! that it serves, which goes again, and the index gets its name back.

use mysql::Error;
use serde::{Deserialize, Serialize};

use super::ddl::definition;
use super::ddl_links;
use super::ddl_shape::Shape;
use super::session::{Session, ident};

/// An index that comes back with a foreign key of another name, which both have for a moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OwnKey {
    pub meanwhile: String,
    pub name: String,
}

/// Of the clauses of a way back to `before`, a shape with its foreign keys, has those bring indexes of the server's own that
/// bring them as the user's; `probe`: the name of a table that is made and dropped meanwhile.
pub fn bring(
    b: &mut Session,
    table: &str,
    before: &Shape,
    clauses: &mut [String],
    probe: &str,
) -> Result<Vec<OwnKey>, Error> {
    let found = |clause: &String| {
        let (head, line) = before.keys.iter().find(|(_, line)| *clause == format!("ADD {line}"))?;
        let (columns, link) = before.links.iter().find_map(|(_, link)| {
            let (columns, ..) = ddl_links::link(link)?;
            let columns = columns.iter().map(|name| ident(name)).collect::<Vec<_>>().join(",");
            (*line == format!("{head} ({columns})")).then_some((columns, link))
        })?;
        Some((head.clone(), columns, link[link.find("FOREIGN KEY")?..].to_owned()))
    };
    let candidates: Vec<(usize, (String, String, String))> =
        clauses.iter().enumerate().filter_map(|(at, clause)| Some((at, found(clause)?))).collect();
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    // The server drops one of its own beside another on the same columns.
    let other = |at: usize| format!("{probe}{at}");
    let beside: Vec<String> =
        candidates.iter().map(|(at, (_, columns, _))| format!("ADD KEY {} ({columns})", ident(&other(*at)))).collect();
    b.run(&format!("CREATE TABLE {} LIKE {}", ident(probe), ident(table)))?;
    b.run(&format!("ALTER TABLE {} {}", ident(probe), beside.join(", ")))?;
    let left = Shape::of(&definition(b, probe)?.unwrap_or_default());
    b.run(&format!("DROP TABLE {}", ident(probe)))?;
    let mut all = Vec::new();
    for (at, (head, _, link)) in candidates {
        if left.keys.iter().all(|(other, _)| *other != head) {
            clauses[at] = format!("ADD CONSTRAINT {} {link}", ident(&other(at)));
            let name = head.trim_start_matches("KEY `").trim_end_matches('`').replace("``", "`");
            all.push(OwnKey { meanwhile: other(at), name });
        }
    }
    Ok(all)
}

/// What follows the clauses: the foreign keys go, and the indexes get their names.
pub fn settling(keys: &[OwnKey]) -> Vec<String> {
    let goes = |key: &OwnKey| format!("DROP FOREIGN KEY {}", ident(&key.meanwhile));
    let named = |key: &OwnKey| format!("RENAME INDEX {} TO {}", ident(&key.meanwhile), ident(&key.name));
    keys.iter().map(goes).chain(keys.iter().map(named)).collect()
}

/// Settles those that are there; can be done again.
pub fn settle(b: &mut Session, table: &str, keys: &[OwnKey]) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let now = Shape::of(&definition(b, table)?.unwrap_or_default());
    let there: Vec<OwnKey> =
        keys.iter().filter(|key| now.links.iter().any(|(name, _)| *name == key.meanwhile)).cloned().collect();
    match there.is_empty() {
        true => Ok(()),
        false => ddl_links::alter(b, table, &settling(&there)),
    }
}
