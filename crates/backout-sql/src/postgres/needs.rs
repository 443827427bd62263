//! What the undo of a schema change needs by its name: what it left, what it is to make again from a text, and what that text
//! names. Read from the catalogs around the statement, never from texts.

use std::collections::BTreeSet;

use postgres::Error;

use super::catalog::{self, Key, Kind, Object, class, literal};
use super::ddl::{Change, DdlEvent};
use super::ddl_labels;
use super::named::{self, Named, Need, called};
use super::prepared::Client;
use super::table::plain;

/// What objects depend on before a statement changes them.
pub(super) fn before(client: &mut Client, objects: &[Object]) -> Result<Vec<Need>, Error> {
    let keys: Vec<Key> = objects.iter().filter_map(|object| object.key).collect();
    named::needs(client, &keys)
}

impl DdlEvent {
    /// Notes what the names in it mean, right after the statement. `before`: what the objects depended on.
    pub(super) fn note_names(&mut self, client: &mut Client, before: Vec<Need>) -> Result<(), Error> {
        let after = self.changes.iter().filter_map(|change| change.after.as_ref());
        self.left = after.filter_map(Named::of).collect();
        let altered: Vec<&Object> = self.changes.iter().filter_map(|change| change.before.as_ref()).collect();
        if altered.is_empty() && self.kept.is_empty() {
            return Ok(());
        }
        let keys: Vec<Key> = altered.iter().filter_map(|object| object.key).collect();
        let is_one = |need: &Need| (need.of, need.by, need.needed.key);
        let still: BTreeSet<(Key, u32, Key)> = named::needs(client, &keys)?.iter().map(is_one).collect();
        let gone = self.changes.iter().filter(|change| change.after.is_none());
        let gone: BTreeSet<Key> = gone.filter_map(|change| change.before.as_ref()?.key).collect();
        let rewritten = self.changes.iter().filter(|change| {
            let definition = |object: &Option<Object>| {
                object.as_ref().and_then(|object| object.part("definition").map(str::to_owned))
            };
            change.after.is_some() && definition(&change.before) != definition(&change.after)
        });
        let rewritten: BTreeSet<Key> = rewritten.filter_map(|change| change.before.as_ref()?.key).collect();
        let comes_back = |key: Key| gone.contains(&key) || gone.contains(&Key { sub: 0, ..key });
        let needs = before.into_iter().filter(|need| {
            // What comes back is held against what it was, names and all.
            let comes_back_itself = gone.contains(&need.of);
            let is_lost = comes_back_itself || rewritten.contains(&need.of) || !still.contains(&is_one(need));
            keys.contains(&need.of) && is_lost && !comes_back(need.needed.key)
        });
        let mut needs: Vec<Named> = needs.map(|need| need.needed).collect();
        if self.changes.iter().any(is_renamed) {
            // By one statement with what uses it: the undo begins under the new names.
            for one in named::renamed(client, &needs)? {
                needs.iter_mut().filter(|need| need.key == one.was.key).for_each(|need| need.name.clone_from(&one.now));
            }
        }
        let mut labels = named::labels_of(client, &needs)?;
        if self.kept.is_empty() {
            // Those that a text may name.
            let texts = || altered.iter().flat_map(|object| object.parts.values());
            labels.retain(|one| one.label().is_some_and(|label| texts().any(|text| text.contains(label))));
        }
        let tables: BTreeSet<&str> = self.kept.iter().map(|kept| kept.table.as_str()).collect();
        for table in tables {
            let oid =
                catalog::column(client, &format!("SELECT pg_catalog.to_regclass({})::pg_catalog.oid", literal(table)))?;
            let Some(oid) = oid.into_iter().flatten().next().and_then(|oid| oid.parse().ok()) else { continue };
            needs.extend(named::of_table(client, oid)?);
        }
        needs.extend(labels);
        needs.extend(self.changed_labels(client)?);
        needs.sort_unstable_by_key(|one| one.key);
        needs.dedup();
        self.needs = needs;
        Ok(())
    }

    /// The labels that it added or renamed.
    fn changed_labels(&self, client: &mut Client) -> Result<Vec<Named>, Error> {
        let mut all = Vec::new();
        for change in &self.changes {
            let (Some(before), Some(after)) = (&change.before, &change.after) else { continue };
            if after.kind == Kind::Enum && before.part("labels") != after.part("labels") {
                let known = ddl_labels::labels(before);
                let types: Vec<Named> = Named::of(after).into_iter().collect();
                let found = named::labels_of(client, &types)?.into_iter();
                all.extend(found.filter(|one| one.label().is_some_and(|label| !known.contains(&label))));
            }
        }
        Ok(all)
    }

    /// The names that its undo uses, each with the object as people are shown it.
    pub(super) fn names_used(&self) -> impl Iterator<Item = (String, String)> {
        let needs = self.needs.iter().map(|one| (one.shown(), one.name.clone()));
        let own = self.changes.iter().filter_map(|change| Some((change.before.as_ref()?, change.after.as_ref())));
        let own = own.flat_map(|(before, after)| {
            let itself = after.map(|after| (after.shown(), called(after)));
            let of = Some(after.unwrap_or(before).of()).filter(|of| !of.is_empty());
            itself.into_iter().chain(of.map(|of| (format!("table {of}"), of.to_owned())))
        });
        needs.chain(own).flat_map(|(shown, name)| {
            // What it is a part of, and where that is.
            let of = name.rsplit_once(" of ").map(|(_, of)| (shown.clone(), of.to_owned()));
            let schema = schema_of(&name).map(|schema| (format!("schema {schema}"), schema));
            std::iter::once((shown, name)).chain(of).chain(schema)
        })
    }

    /// The objects whose names its undo needs and that it may not have touched, as they are listed for people.
    pub fn needed(&self) -> impl Iterator<Item = String> {
        const RELATIONS: &[&str] = &["view ", "materialized view ", "sequence ", "index "];
        self.needs.iter().flat_map(|one| {
            let (of, words): (&str, &[&str]) = match (one.key.class, one.name.rsplit_once(" of ")) {
                (class::RELATION, None) => (&one.name, RELATIONS),
                (class::PROCEDURE, _) => (&one.name, &["function ", "procedure ", "aggregate "]),
                (class::SCHEMA, _) => (&one.name, &["schema "]),
                (class::TYPE, _) => (&one.name, &["type ", "domain "]),
                (_, Some((_, of))) => (of, &["type ", "domain "]),
                (_, None) => (&one.name, &[]),
            };
            let shown = words.iter().map(move |word| format!("{word}{of}"));
            let schema = schema_of(&one.name).map(|schema| format!("schema {schema}"));
            shown.chain([plain(of)]).chain(schema)
        })
    }
}

/// True where an object got another name, or a schema did.
fn is_renamed(change: &Change) -> bool {
    matches!((&change.before, &change.after), (Some(before), Some(after)) if called(before) != called(after))
}

/// The schema in a name that has one.
fn schema_of(name: &str) -> Option<String> {
    let name = name.rsplit_once(" of ").map_or(name, |(_, of)| of);
    let mut quoted = false;
    let end = name.bytes().position(|byte| {
        quoted ^= byte == b'"';
        byte == b'.' && !quoted
    })?;
    Some(name[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_schema() {
        for (name, schema) in [
            ("s.t", Some("s")),
            ("\"s.x\".t", Some("\"s.x\"")),
            ("\"a.b\" of s.t", Some("s")),
            ("s.f(public.t)", Some("s")),
            ("s", None),
        ] {
            assert_eq!(schema_of(name).as_deref(), schema, "{name}");
        }
    }
}
