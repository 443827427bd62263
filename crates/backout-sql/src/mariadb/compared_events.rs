//! What a command did as the segments of a step, in an order in which they could have happened one after the other, and
//! can be taken back and done again.

use std::collections::{BTreeMap, BTreeSet};

use mysql::Error;

use super::compared_links::{Relinked, in_order, of_one_that_stays};
use super::compared_schema::{OneTable, Schema};
use super::ddl::{Change, Gone, rows_in};
use super::ddl_hung::Hung;
use super::ddl_links::orphans;
use super::ddl_shape::Shape;
use super::ddl_text::{Kind, Text, Told};
use super::segment::{Detail, Segment, State};
use super::session::{Session, ident};
use super::snapshot::complete;

/// What became of the tables.
#[derive(Default)]
pub struct Tables<'s> {
    /// As they were: those that are no more, and those of which others took the place.
    pub gone: Vec<&'s OneTable>,
    /// As they are: those that are new, and those that took the place of others.
    pub made: Vec<&'s OneTable>,
    /// As they were and are, but for rows, counters, foreign keys and triggers.
    pub stay: Vec<(&'s OneTable, &'s OneTable)>,
}

impl<'s> Tables<'s> {
    /// `whole`: tables that are told as made anew, whatever became of them.
    pub fn of(was: &'s Schema, is: &'s Schema, whole: &BTreeSet<String>) -> Self {
        let mut tables = Self::default();
        for (name, old) in &was.tables {
            match is.tables.get(name) {
                Some(new) if !whole.contains(name) && are_alike(old, new) => tables.stay.push((old, new)),
                new => {
                    tables.gone.push(old);
                    tables.made.extend(new);
                }
            }
        }
        tables.made.extend(is.tables.values().filter(|new| !was.tables.contains_key(&new.table.name)));
        tables
    }
}

fn are_alike(old: &OneTable, new: &OneTable) -> bool {
    let shape = |one: &OneTable| Shape::of(&one.definition).without_links();
    (&old.table, &old.engine, shape(old)) == (&new.table, &new.engine, shape(new))
}

/// The segments of a step that is told.
pub struct Telling<'s> {
    pub step: u64,
    /// What they run under again.
    settings: String,
    was: &'s Schema,
    is: &'s Schema,
    tables: &'s Tables<'s>,
    links: BTreeMap<&'s str, (Option<Relinked>, Option<Relinked>)>,
    pub segments: Vec<Segment>,
}

impl<'s> Telling<'s> {
    pub fn new(step: u64, settings: String, was: &'s Schema, is: &'s Schema, tables: &'s Tables<'s>) -> Self {
        let names = |all: &[&OneTable]| all.iter().map(|one| one.table.name.clone()).collect::<BTreeSet<_>>();
        let (gone, made) = (names(&tables.gone), names(&tables.made));
        let links =
            tables.stay.iter().map(|(old, new)| (old.table.name.as_str(), of_one_that_stays(old, new, &gone, &made)));
        Self { step, settings, was, is, tables, links: links.collect(), segments: Vec::new() }
    }

    pub fn number(&self) -> u32 {
        u32::try_from(self.segments.len()).unwrap_or(u32::MAX)
    }

    pub fn push(&mut self, detail: Detail) {
        let (step, number) = (self.step, self.number());
        self.segments.push(Segment { step, number, state: State::Done, detail });
    }

    fn ddl(&mut self, sql: String, change: Change) {
        let settings = self.settings.clone();
        self.push(Detail::Ddl { line: 0, sql, settings, change: Box::new(change), hung: Hung::default() });
    }

    fn told(&mut self, kind: Kind, name: &str, table: Option<&str>, sides: (Option<&Text>, Option<&Text>)) {
        let sql = match sides.1 {
            Some(text) => text.sql.clone(),
            None => format!("DROP {} {}", kind.word(), ident(name)),
        };
        let (before, after) = (sides.0.cloned(), sides.1.cloned());
        let told = Told { kind, name: name.to_owned(), table: table.map(str::to_owned), before, after };
        self.ddl(sql, Change::Told(Box::new(told)));
    }

    fn relinked(&mut self, a: &mut Session, one: &Relinked) {
        let (from, to) = (Shape::of(&one.before), Shape::of(&one.after));
        // Where the command left no row that points at nothing, none may come by a redo.
        let checked = matches!(orphans(a, &one.name, &from, &to), Ok(found) if found.is_empty());
        let (name, before, after) = (one.name.clone(), one.before.clone(), one.after.clone());
        self.ddl(one.sql.clone(), Change::Relinked { name, before, after, checked });
    }

    /// What comes before rows: views that go, routines and events, foreign keys that go.
    pub fn before_rows(&mut self, a: &mut Session) {
        let (was, is) = (self.was, self.is);
        for view in was.views().into_iter().rev() {
            if is.text(Kind::View, &view.name) != Some(&view.text) {
                self.told(Kind::View, &view.name, None, (Some(&view.text), None));
            }
        }
        for one in was.texts.iter().filter(|one| one.kind != Kind::View) {
            let now = is.text(one.kind, &one.name);
            if now != Some(&one.text) {
                self.told(one.kind, &one.name, None, (Some(&one.text), now));
            }
        }
        for one in is.texts.iter().filter(|one| one.kind != Kind::View) {
            if was.text(one.kind, &one.name).is_none() {
                self.told(one.kind, &one.name, None, (None, Some(&one.text)));
            }
        }
        let gone: Vec<Relinked> = self.links.values_mut().filter_map(|(goes, _)| goes.take()).collect();
        gone.iter().for_each(|one| self.relinked(a, one));
    }

    /// What comes behind rows: tables that go and come, foreign keys, triggers and views that come.
    pub fn after_rows(&mut self, a: &mut Session) -> Result<(), Error> {
        let tables = self.tables;
        let mut gone = Vec::new();
        for one in &tables.gone {
            let (name, definition) = (one.table.name.clone(), one.definition.clone());
            complete(a, one, &one.copy)?;
            let rows = Some(rows_in(a, &one.copy)?.unwrap_or_default());
            gone.push(Gone { name, definition, triggers: one.triggers.clone(), held: Some(one.copy.clone()), rows });
        }
        if !gone.is_empty() {
            let names: Vec<String> = gone.iter().map(|one| ident(&one.name)).collect();
            self.ddl(format!("DROP TABLE {}", names.join(", ")), Change::Dropped { gone });
        }
        let (made, later) = in_order(tables.made.clone());
        for (one, definition) in made {
            let name = one.table.name.clone();
            let (rows, replaces) = (rows_in(a, &name)?, self.was.tables.contains_key(&name));
            self.ddl(definition.clone(), Change::Made { name, definition, rows, replaces });
        }
        later.iter().for_each(|one| self.relinked(a, one));
        let come: Vec<Relinked> = self.links.values_mut().filter_map(|(_, comes)| comes.take()).collect();
        come.iter().for_each(|one| self.relinked(a, one));
        self.triggers();
        for view in self.is.views() {
            if self.was.text(Kind::View, &view.name) != Some(&view.text) {
                self.told(Kind::View, &view.name, None, (None, Some(&view.text)));
            }
        }
        Ok(())
    }

    /// Where one of a table's triggers changed, all go and come again: so they stand in their order on either side.
    fn triggers(&mut self) {
        let tables = self.tables;
        let changed: Vec<_> = tables.stay.iter().filter(|(old, new)| old.triggers != new.triggers).collect();
        for (old, _) in &changed {
            for (name, text) in old.triggers.iter().rev() {
                self.told(Kind::Trigger, name, Some(&old.table.name), (Some(text), None));
            }
        }
        for new in changed.iter().map(|(_, new)| new).chain(&tables.made) {
            for (name, text) in &new.triggers {
                self.told(Kind::Trigger, name, Some(&new.table.name), (None, Some(text)));
            }
        }
    }
}
