//! What a change of the schema is about, looked at before it happens; an empty twin where one is needed.
//!
//! Changes nothing that is not the tool's own.

use std::collections::BTreeSet;

use backout_model::target::TargetError;
use mysql::Error;

use super::Mariadb;
use super::apply::cannot_run;
use super::classify::No;
use super::ddl::{Change, Gone, Prepared, definition, net_names, renamed};
use super::ddl_text::{self, Kind, Text, Told};
use super::head::{Head, Object, Verb};
use super::quiet;
use super::session::ident;
use super::split::Statement;
use super::table::{self, There};
use super::token::bare;

impl Mariadb {
    /// Looks at what a statement is about, and makes ready what it needs. Changes nothing that is not the tool's own.
    pub(super) fn prepare(
        &mut self,
        step: u64,
        number: u32,
        statement: &Statement,
        place: &str,
        head: &Head,
    ) -> Result<Prepared, TargetError> {
        let refused = |why: String| TargetError::from(No::undo(why).at(place, &statement.sql).refusal);
        let failed = |why: String| cannot_run(place, &statement.sql, why);
        if let Some(other) =
            head.names.iter().find(|name| name.database.as_ref().is_some_and(|one| *one != self.database))
        {
            return Err(refused(format!("{} is of another database than the site's", other.name)));
        }
        if let Some(kind) = Kind::of(head.object)
            && (!matches!(kind, Kind::View | Kind::Sequence) || head.verb == Verb::Alter)
        {
            let told = self.prepare_text(head, kind).map_err(|source| self.reading(source))?.map_err(refused)?;
            let change = told.map(|told| Change::Told(Box::new(told)));
            return Ok(Prepared { change, by_names: false });
        }
        let mut there = Vec::new();
        for name in &head.names {
            there.push(table::there(&mut self.b, &name.name).map_err(|source| self.reading(source))?);
        }
        if let Some(There::Other(kind)) = there.iter().find(|one| matches!(one, There::Other(_))) {
            return Err(refused(format!("a {kind} is not handled yet")));
        }
        let first = head.names.first().map(|name| name.name.clone()).unwrap_or_default();
        let is_there = there.first().is_some_and(|one| *one != There::Nothing);
        let hold = |what: &str| self.names.of_segment(step, number, what);
        let nothing = Ok(Prepared { change: None, by_names: false });
        match (head.verb, head.object) {
            (Verb::Create, Object::Table | Object::View | Object::Sequence) if !is_there => {
                let change = Change::Made { name: first, definition: String::new(), rows: None, replaces: false };
                Ok(Prepared { change: Some(change), by_names: false })
            }
            (Verb::Create, Object::Table | Object::View | Object::Sequence) if head.if_not_exists => nothing,
            (Verb::Create, Object::View) if head.or_replace && there[0] == There::View => {
                let spare = hold("s");
                let text = self.under_another_name(statement, head, &spare)?;
                let made = self.a()?.run(&text);
                made.map_err(|source| cannot_run(place, &statement.sql, source))?;
                let before =
                    definition(&mut self.b, &first).map_err(|source| self.reading(source))?.unwrap_or_default();
                let after = definition(&mut self.b, &spare).map_err(|source| self.reading(source))?.unwrap_or_default();
                let after = renamed(&after, &spare, &first);
                Ok(Prepared { change: Some(Change::Swapped { name: first, before, after }), by_names: true })
            }
            (Verb::Create, Object::Table | Object::View | Object::Sequence) => {
                Err(failed(format!("{first} is there already")))
            }
            (Verb::Drop, Object::Table | Object::View | Object::Sequence) => {
                let wanted = |one: &There| match head.object {
                    Object::View => *one == There::View,
                    Object::Sequence => *one == There::Sequence,
                    _ => matches!(one, There::Table(_) | There::Sequence),
                };
                let mut gone = Vec::new();
                for (name, one) in head.names.iter().zip(&there) {
                    if *one == There::Nothing && head.if_exists {
                        continue;
                    }
                    if *one == There::Nothing || !wanted(one) {
                        return Err(failed(format!("there is no {} {}", head.word, name.name)));
                    }
                    let text = definition(&mut self.b, &name.name).map_err(|source| self.reading(source))?;
                    if let Some(why) = quiet::why_not(&mut self.b, &name.name).map_err(|source| self.reading(source))? {
                        return Err(refused(why));
                    }
                    let triggers = self.triggers_with_text(&name.name).map_err(|source| self.reading(source))?;
                    let (name, definition) = (name.name.clone(), text.unwrap_or_default());
                    gone.push(Gone { name, definition, triggers, held: None, rows: None });
                }
                let links = table::foreign_keys(&mut self.b).map_err(|source| self.reading(source))?;
                let checks = self.a()?.value("SELECT @@foreign_key_checks");
                let checks = checks.map_err(|source| self.reading(source))?.as_deref() != Some("0");
                let place_of = |name: &String| gone.iter().position(|one| one.name == *name);
                for link in &links {
                    let Some(parent) = place_of(&link.parent) else { continue };
                    let child = place_of(&link.child);
                    let why = format!("the foreign key {} of {} points at {}", link.name, link.child, link.parent);
                    // The server drops them in their order.
                    if checks && child.is_none_or(|child| child > parent) {
                        return Err(failed(why));
                    }
                }
                if gone.is_empty() {
                    return nothing;
                }
                Ok(Prepared { change: Some(Change::Dropped { gone }), by_names: true })
            }
            (Verb::Truncate, _) => {
                if !matches!(there[0], There::Table(_)) {
                    return Err(failed(format!("there is no table {first}")));
                }
                self.prepare_empty(&first, &hold("s")).map_err(|source| self.reading(source))?.map_err(refused)
            }
            (Verb::Rename, Object::Table) => {
                let is_there: Vec<bool> = there.iter().map(|there| *there != There::Nothing).collect();
                let named: Vec<(&str, bool)> = head.names.iter().map(|name| name.name.as_str()).zip(is_there).collect();
                let pairs = renamings(&named, head.if_exists);
                if pairs.is_empty() {
                    return nothing;
                }
                let names: Vec<&String> = pairs.iter().flat_map(|(from, to)| [from, to]).collect();
                let (gone, new) = net_names(&pairs);
                if gone.is_empty() {
                    let why = "names that only change places leave nothing by which it could be told whether they did";
                    return Err(refused(why.to_owned()));
                }
                for (name, is_there) in &named {
                    let wanted = !new.iter().any(|one| one == name);
                    if names.iter().filter(|one| one.as_str() == *name).count() == 1 && *is_there != wanted {
                        return Err(failed(format!(
                            "{name} is {}",
                            if wanted { "not there" } else { "there already" }
                        )));
                    }
                }
                let triggers = self.triggers_of_renamed(&pairs).map_err(|source| self.reading(source))?;
                let triggers = triggers.map_err(refused)?;
                Ok(Prepared { change: Some(Change::Renamed { pairs, triggers }), by_names: true })
            }
            (_, Object::Table | Object::Index) if !is_there => {
                if head.if_exists && head.object == Object::Table {
                    nothing
                } else {
                    Err(failed(format!("there is no table {first}")))
                }
            }
            (_, Object::Table | Object::Index) => self.prepare_alter(step, number, statement, place, head, &there[0]),
            _ => Err(refused(format!("this change of a {} is not handled yet", head.word))),
        }
    }

    /// The triggers of tables that get other names; an error in words where they could not be written as they were.
    fn triggers_of_renamed(&mut self, pairs: &[(String, String)]) -> Result<Result<Vec<Told>, String>, Error> {
        let held = self.begin_of_held();
        let mut all = Vec::new();
        for (from, _) in pairs {
            if let Some(why) = quiet::why_not(&mut self.b, from)? {
                return Ok(Err(why));
            }
            for name in quiet::names_in_order(&mut self.b, from)? {
                let before = ddl_text::read(&mut self.b, Kind::Trigger, &name, &held)?;
                all.push(Told { kind: Kind::Trigger, name, table: Some(from.clone()), before, after: None });
            }
        }
        Ok(Ok(all))
    }

    /// The triggers of a table with their texts, in the order in which they fire.
    pub(super) fn triggers_with_text(&mut self, table: &str) -> Result<Vec<(String, Text)>, Error> {
        let held = self.begin_of_held();
        let mut all = Vec::new();
        for name in quiet::names_in_order(&mut self.b, table)? {
            if let Some(text) = ddl_text::read(&mut self.b, Kind::Trigger, &name, &held)? {
                all.push((name, text.without_place()));
            }
        }
        Ok(all)
    }

    /// The statement about an object of another name.
    pub(super) fn under_another_name(
        &self,
        statement: &Statement,
        head: &Head,
        name: &str,
    ) -> Result<String, TargetError> {
        let text = bare(&statement.sql, self.version);
        let Some(named) = head.names.first() else { return Ok(text) };
        Ok(format!("{}{}{}", &text[..named.start], ident(name), &text[named.end..]))
    }

    /// An empty table of the same shape, which is to take the place of a full one; else, in words, why not.
    fn prepare_empty(&mut self, name: &str, spare: &str) -> Result<Result<Prepared, String>, Error> {
        self.b.run(&format!("CREATE TABLE {} LIKE {}", ident(spare), ident(name)))?;
        let before = definition(&mut self.b, name)?.unwrap_or_default();
        let after = renamed(&definition(&mut self.b, spare)?.unwrap_or_default(), spare, name);
        if before != after {
            return Ok(Err(format!("an empty table like {name} would not be the same")));
        }
        let change = Change::Swapped { name: name.to_owned(), before, after };
        Ok(Ok(Prepared { change: Some(change), by_names: true }))
    }
}

/// The renamings of a statement about these names, each of which is there or not: with IF EXISTS only those of what is there
/// when it is their turn.
fn renamings(named: &[(&str, bool)], if_exists: bool) -> Vec<(String, String)> {
    let mut there: BTreeSet<&str> = named.iter().filter(|(_, is_there)| *is_there).map(|(name, _)| *name).collect();
    let mut all = Vec::new();
    for pair in named.chunks_exact(2) {
        let (from, to) = (pair[0].0, pair[1].0);
        if there.remove(from) || !if_exists {
            there.insert(to);
            all.push((from.to_owned(), to.to_owned()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_gets_another_name() {
        let all = |named: &[(&str, bool)], if_exists| {
            let pairs = renamings(named, if_exists);
            pairs.iter().map(|(from, to)| format!("{from}>{to}")).collect::<Vec<_>>().join(" ")
        };
        let named = [("a", false), ("b", true), ("b", true), ("c", false), ("c", false), ("d", false)];
        assert_eq!((all(&named, false).as_str(), all(&named, true).as_str()), ("a>b b>c c>d", "b>c c>d"));
    }
}
