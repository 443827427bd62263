//! Which index of a partition is a part of which index of the whole: PostgreSQL picks the first that fits when a partition
//! is attached, and never lets go of it again. Where it is another one of the same form, the two exchange their names.

use postgres::Client;

use super::catalog::{self, Kind, Object, literal};
use super::ddl_turn::{self, Act, Reach, TurnError};

/// The statement that attaches an index, where it is not attached yet and its table is a partition already. Others of its
/// form may have to give way first.
pub(super) fn act(client: &mut Client, version: u32, now: &Object, wanted: &Object) -> Result<Option<Act>, TurnError> {
    let (Kind::Index, Some(whole)) = (now.kind, wanted.part("attached to")) else { return Ok(None) };
    let found = catalog::rows(
        client,
        &format!(
            "SELECT (SELECT c.oid::regclass FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_index o ON o.indexrelid = h.inhrelid \
             JOIN pg_catalog.pg_class c ON c.oid = o.indexrelid WHERE h.inhparent = w.indexrelid AND o.indrelid = i.indrelid) \
             FROM pg_catalog.pg_index i, pg_catalog.pg_index w WHERE i.indexrelid = to_regclass({}) \
             AND w.indexrelid = to_regclass({}) \
             AND EXISTS (SELECT FROM pg_catalog.pg_inherits p WHERE p.inhrelid = i.indrelid AND p.inhparent = w.indrelid)",
            literal(now.id()),
            literal(whole)
        ),
    )?;
    let Some(other) = found.into_iter().next().and_then(|row| row.into_iter().next()) else { return Ok(None) };
    if other.is_empty() {
        let sql = format!("ALTER INDEX {whole} ATTACH PARTITION {}", now.id());
        return Ok(Some(Act { sql, shown: format!("attach {}", now.shown()), drops: false }));
    }
    if other != now.id() {
        exchange(client, version, now, &other)?;
    }
    Ok(None)
}

/// Exchanges the names of two indexes of the same form, and all that makes them differ.
fn exchange(client: &mut Client, version: u32, now: &Object, other: &str) -> Result<(), TurnError> {
    const BETWEEN: &str = "backout_exchange";
    let named = Object { kind: Kind::Index, parts: [("id".to_owned(), other.to_owned())].into(), key: None };
    let Some(mut there) = ddl_turn::live(client, version, &[&named])?.into_iter().flatten().next() else {
        let why = format!("{other} is attached in its place");
        return Err(TurnError::Stuck { what: format!("attach {}", now.shown()), why });
    };
    let between = format!("{}.{BETWEEN}", now.text("schema"));
    // Their definitions differ in nothing else.
    let (here, its) = (options(client, now.id())?, options(client, other)?);
    let given = [(now.id(), &here, &its), (other, &its, &here)].map(|(index, old, new)| {
        let reset: Vec<&str> = old.iter().map(|(name, _)| name.as_str()).collect();
        let set: Vec<String> = new.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let act = |word: &str, list: String| {
            if list.is_empty() { String::new() } else { format!("ALTER INDEX {index} {word} ({list});") }
        };
        act("RESET", reset.join(", ")) + &act("SET", set.join(", "))
    });
    client.batch_execute(&format!(
        "{} ALTER INDEX {other} RENAME TO {BETWEEN}; ALTER INDEX {} RENAME TO {}; ALTER INDEX {between} RENAME TO {}",
        given.concat(),
        now.id(),
        there.text("name"),
        now.text("name")
    ))?;
    for part in ["attached to", "inherited"] {
        there.parts.remove(part);
    }
    ddl_turn::converge(client, version, &[&there], Reach::NotAnew)
}

/// The storage parameters of an index, each name and value as SQL.
fn options(client: &mut Client, index: &str) -> Result<Vec<(String, String)>, TurnError> {
    let sql = format!(
        "SELECT quote_ident(option_name), quote_literal(option_value) FROM pg_catalog.pg_class c, \
         pg_catalog.pg_options_to_table(c.reloptions) WHERE c.oid = {}::regclass",
        literal(index)
    );
    Ok(catalog::rows(client, &sql)?
        .into_iter()
        .filter_map(|row| <[String; 2]>::try_from(row).ok())
        .map(Into::into)
        .collect())
}
