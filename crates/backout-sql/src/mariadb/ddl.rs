//! Changes of the schema: each is a segment of its own, announced in the segment's row before it happens.
//!
//! What can be is made a matter of names, which the server changes all or not at all: a table or view that is dropped
//! is renamed into the hold, one that is emptied or replaced changes places with a new one.

use std::collections::BTreeSet;

use backout_model::fault::{self, Point};
use backout_model::target::{Gate, TargetError, Ticket};
use mysql::Error;
use serde::{Deserialize, Serialize};

use super::Mariadb;
use super::apply::{Chain, cannot_run};
use super::capture::patiently;
use super::classify::No;
use super::compared_links::parents;
use super::ddl_alter::Altered;
use super::ddl_hung;
use super::ddl_links;
use super::ddl_shape::{Shape, without_counter};
use super::ddl_text::{self, Kind, Text, Told};
use super::head::{Head, Object};
use super::marker;
use super::segment::{Detail, Segment, State};
use super::sequence;
use super::session::{Session, ident, is_missing};
use super::split::Statement;
use super::table::{self, There};
use super::token::bare;

/// A table or view that went into the hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    pub name: String,
    pub definition: String,
    /// Its triggers, in the order in which they fire.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<(String, Text)>,
    /// Where it lies, where that is the copy that was made of it before a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// The checksum of its rows where it may go again only with these; empty where it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<String>,
}

impl Gone {
    /// Its name in the hold; `at`: which of those it is that went together.
    fn hold(&self, at: usize, hold: &dyn Fn(&str) -> String) -> String {
        self.held.clone().unwrap_or_else(|| hold(&format!("t{at}")))
    }
}

/// What one statement changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum Change {
    /// `rows`: the checksum of a table that was made with rows in it. `replaces`: it took the place of one that comes back
    /// when it goes, with all rows of then.
    Made {
        name: String,
        definition: String,
        rows: Option<String>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        replaces: bool,
    },
    Dropped {
        gone: Vec<Gone>,
    },
    /// Emptied, or a view that was replaced.
    Swapped {
        name: String,
        before: String,
        after: String,
    },
    Renamed {
        pairs: Vec<(String, String)>,
        /// Triggers on these tables: the server writes their texts anew, in its own quotes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        triggers: Vec<Told>,
    },
    Altered(Box<Altered>),
    /// Foreign keys of a table that came or went with what they point at; `checked`: no row pointed at nothing by those that
    /// came.
    Relinked {
        name: String,
        before: String,
        after: String,
        checked: bool,
    },
    Told(Box<Told>),
}

impl Change {
    /// The tables and views that it is about.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names: Vec<&str> = match self {
            Change::Made { name, .. } | Change::Swapped { name, .. } | Change::Relinked { name, .. } => vec![name],
            Change::Dropped { gone } => gone.iter().map(|one| one.name.as_str()).collect(),
            Change::Renamed { pairs, .. } => pairs.iter().flat_map(|(from, to)| [from.as_str(), to.as_str()]).collect(),
            Change::Altered(altered) => vec![&altered.name],
            Change::Told(told) => vec![&told.name],
        };
        names.into_iter()
    }

    /// The tables that foreign keys which come or go with it point at.
    pub fn parents(&self) -> BTreeSet<String> {
        match self {
            Change::Relinked { before, after, .. } => &parents(before) | &parents(after),
            _ => BTreeSet::new(),
        }
    }

    /// The table of whose triggers it is about one.
    pub fn triggered(&self) -> Option<&str> {
        match self {
            Change::Told(told) => told.table.as_deref(),
            _ => None,
        }
    }

    /// The names that it changes, old and new.
    pub fn pairs(&self) -> &[(String, String)] {
        match self {
            Change::Renamed { pairs, .. } => pairs,
            _ => &[],
        }
    }

    /// What takes it back, in words.
    pub fn words(&self) -> String {
        match self {
            Change::Made { name, .. } => format!("takes {name} away"),
            Change::Dropped { gone } => {
                let names: Vec<&str> = gone.iter().map(|one| one.name.as_str()).collect();
                format!("puts back {}", names.join(", "))
            }
            Change::Swapped { name, .. } => format!("puts back {name} as it was"),
            Change::Renamed { .. } => "gives the old names back".to_owned(),
            Change::Altered(altered) => altered.words(),
            Change::Relinked { name, .. } => format!("puts back the foreign keys of {name}"),
            Change::Told(told) => told.words(),
        }
    }

    /// The names that change, from old to new, where it is done.
    pub fn moves(&self, hold: &dyn Fn(&str) -> String) -> Vec<(String, String)> {
        match self {
            Change::Made { name, .. } => vec![(hold("t0"), name.clone())],
            Change::Dropped { gone } => {
                gone.iter().enumerate().map(|(at, one)| (one.name.clone(), one.hold(at, hold))).collect()
            }
            Change::Swapped { name, .. } => vec![(name.clone(), hold("t0")), (hold("s"), name.clone())],
            Change::Renamed { pairs, .. } => pairs.clone(),
            Change::Altered(_) | Change::Relinked { .. } | Change::Told(_) => Vec::new(),
        }
    }
}

/// The server's own text of a table or view, without its counter, and of a sequence with where it stands; none where there is nothing of that name.
pub fn definition(b: &mut Session, name: &str) -> Result<Option<String>, Error> {
    match b.rows(&format!("SHOW CREATE TABLE {}", ident(name))) {
        Err(error) if is_missing(&error) => Ok(None),
        rows => {
            let text = rows?.into_iter().next().and_then(|mut row| row[1].take()).map(|text| without_counter(&text));
            Ok(match text {
                Some(text) if sequence::is_one(&text) => Some(format!("{text}\n-- {}", sequence::state(b, name)?)),
                text => text,
            })
        }
    }
}

/// A definition under another name.
pub fn renamed(definition: &str, from: &str, to: &str) -> String {
    definition.replacen(&ident(from), &ident(to), 1)
}

/// The names that a list of renamings leaves free, and those that it takes anew: each steps on what the one before left.
pub fn net_names(pairs: &[(String, String)]) -> (Vec<String>, Vec<String>) {
    let (mut gone, mut new): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for (from, to) in pairs {
        match new.iter().position(|name| name == from) {
            Some(at) => drop(new.remove(at)),
            None => gone.push(from.clone()),
        }
        match gone.iter().position(|name| name == to) {
            Some(at) => drop(gone.remove(at)),
            None => new.push(to.clone()),
        }
    }
    (gone, new)
}

pub fn rename(moves: &[(String, String)]) -> String {
    let parts: Vec<String> = moves.iter().map(|(from, to)| format!("{} TO {}", ident(from), ident(to))).collect();
    format!("RENAME TABLE {}", parts.join(", "))
}

/// A checksum of a table's rows; none for one without rows, and for a view.
pub fn rows_in(session: &mut Session, name: &str) -> Result<Option<String>, Error> {
    match table::there(session, name)? {
        There::Table(_) if session.value(&format!("SELECT 1 FROM {} LIMIT 1", ident(name)))?.is_some() => {
            let row = session.rows(&format!("CHECKSUM TABLE {} EXTENDED", ident(name)))?.pop();
            Ok(row.and_then(|mut row| row.pop()).flatten())
        }
        _ => Ok(None),
    }
}

/// What a statement will change, before it does; none where it changes nothing.
pub(super) struct Prepared {
    pub change: Option<Change>,
    /// What has to run: the user's own statement, or names that change.
    pub by_names: bool,
}

impl Chain<'_> {
    pub(super) fn schema_change(
        &mut self,
        statement: &Statement,
        place: &str,
        head: &Head,
        gate: &mut dyn Gate,
    ) -> Result<(), TargetError> {
        if head.or_replace && matches!(head.object, Object::Table | Object::Sequence) && !head.temporary {
            // The server can lose both; so the one goes first, in a segment of its own, and there is nothing to replace.
            self.replaced(statement, place, head, gate)?;
        }
        if let Some(emptying) = self.database.emptying(&bare(&statement.sql, self.database.version), head)? {
            self.emptied(statement, place, &emptying, gate)?;
            if emptying.alone {
                return Ok(());
            }
        }
        let (step, number) = (self.step, self.number);
        let settings = self.database.a()?.settings();
        let settings = settings.map_err(|source| self.database.failed("cannot read the settings of", source))?;
        let prepared = self.database.prepare(step, number, statement, place, head);
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                drop(self.database.sweep_segment(step, number));
                return Err(error);
            }
        };
        let Some(change) = prepared.change else {
            self.number += 1;
            return Ok(());
        };
        let why_not = ddl_hung::why_not(&mut self.database.b, &change);
        if let Some(why) = why_not.map_err(|source| self.database.reading(source))? {
            drop(self.database.sweep_segment(step, number));
            return Err(No::undo(why).at(place, &statement.sql).refusal.into());
        }
        for name in change.names() {
            if !self.summary.objects.iter().any(|one| one == name) {
                self.summary.objects.push(name.to_owned());
            }
        }
        let ticket = self.announced(gate)?;
        let (line, sql) = (statement.line, statement.sql.clone());
        let held = self.database.begin_of_held();
        let hung =
            ddl_hung::before(&mut self.database.b, &change, &held).map_err(|source| self.database.reading(source))?;
        let detail = Detail::Ddl { line, sql, settings, change: Box::new(change), hung };
        let mut segment = Segment { step, number, state: State::Intended, detail };
        self.number += 1;
        self.database.perform(&mut segment, ticket, place, prepared.by_names)
    }
}

impl Chain<'_> {
    fn replaced(
        &mut self,
        statement: &Statement,
        place: &str,
        head: &Head,
        gate: &mut dyn Gate,
    ) -> Result<(), TargetError> {
        let names: Vec<String> = head.names.iter().take(1).map(|name| ident(&name.name)).collect();
        let sql = format!("DROP {} IF EXISTS {}", head.word.to_uppercase(), names.concat());
        let Some(drop) = super::head::head(&sql) else { return Ok(()) };
        self.schema_change(&Statement { line: statement.line, sql }, place, &drop, gate)
    }
}

impl Mariadb {
    pub(super) fn reading(&self, source: Error) -> TargetError {
        self.failed("cannot read the schema of", source)
    }

    /// Makes a change that was announced: its row is written, it happens, and its row says so.
    pub(super) fn perform(
        &mut self,
        segment: &mut Segment,
        ticket: Ticket,
        place: &str,
        by_names: bool,
    ) -> Result<(), TargetError> {
        let Detail::Ddl { sql, change, .. } = segment.detail.clone() else { return Ok(()) };
        let (names, label) = (self.names.clone(), self.label.clone());
        let writing = |source: Error| TargetError::failed(format!("cannot write a segment to {label}"), source);
        marker::holds(&mut self.b, &names, &label, Some(ticket.epoch))?;
        if let Change::Altered(altered) = &*change {
            return self.perform_alter(segment, altered, ticket, place, &sql);
        }
        segment.rewrite(&mut self.b, &names, ticket).map_err(writing)?;
        let run = if by_names { rename(&change.moves(&|what| segment.object(&names, what))) } else { sql.clone() };
        fault::point(Point::Statement).map_err(|source| cannot_run(place, &sql, source))?;
        let a = self.a()?;
        if let Err(source) = patiently(|| a.run(&run)) {
            self.settle_failed(segment)?;
            return Err(cannot_run(place, &sql, source));
        }
        fault::point(Point::Committed).map_err(|source| cannot_run(place, &sql, source))?;
        self.let_go_of_links(segment, &change)?;
        self.mend_links(segment)?;
        if let Detail::Ddl { change, .. } = &mut segment.detail {
            self.learn(change)?;
        }
        segment.state = State::Done;
        segment.rewrite(&mut self.b, &names, ticket).map_err(writing)
    }

    /// Of what was made its definition is known only now.
    fn learn(&mut self, change: &mut Change) -> Result<(), TargetError> {
        match change {
            Change::Told(told) => return self.learn_text(told),
            Change::Renamed { triggers, .. } => return triggers.iter_mut().try_for_each(|told| self.learn_text(told)),
            _ => {}
        }
        let Change::Made { name, definition: text, rows, .. } = change else { return Ok(()) };
        let found = definition(&mut self.b, name).map_err(|source| self.reading(source))?;
        *text = found.unwrap_or_default();
        let looked = rows_in(&mut self.b, name);
        *rows = looked.map_err(|source| self.reading(source))?;
        Ok(())
    }

    /// A table in the hold must be in nobody's way: its foreign keys go, and are made again when it comes back.
    pub(super) fn let_go_of_links(&mut self, segment: &Segment, change: &Change) -> Result<(), TargetError> {
        if let Change::Dropped { gone } = change {
            // Their names are the whole database's.
            for (name, _) in gone.iter().flat_map(|one| &one.triggers) {
                let done = ddl_text::put(&mut self.b, Kind::Trigger, name, None);
                done.map_err(|source| self.failed("cannot put a table by in", source))?;
            }
        }
        let held: Vec<(String, Vec<(String, String)>)> = match change {
            Change::Dropped { gone } => {
                let hold = |what: &str| segment.object(&self.names, what);
                let one = |(at, gone): (usize, &Gone)| (gone.hold(at, &hold), Shape::of(&gone.definition).links);
                gone.iter().enumerate().map(one).collect()
            }
            Change::Made { definition, .. } => vec![(segment.object(&self.names, "t0"), Shape::of(definition).links)],
            _ => Vec::new(),
        };
        for (name, _) in held.into_iter().filter(|(_, links)| !links.is_empty()) {
            let now = definition(&mut self.b, &name).map_err(|source| self.reading(source))?;
            let Some(now) = now else { continue };
            // Those that the server named after the table have other names by now.
            let there = Shape::of(&now).links;
            let drops: Vec<String> =
                there.iter().map(|(link, _)| format!("DROP FOREIGN KEY {}", ident(link))).collect();
            if !drops.is_empty() {
                let sql = format!("ALTER TABLE {} {}", ident(&name), drops.join(", "));
                patiently(|| self.b.run(&sql)).map_err(|source| self.failed("cannot put a table by in", source))?;
            }
        }
        Ok(())
    }

    /// Makes the foreign keys of tables again that came back from the hold.
    pub(super) fn bring_links(&mut self, change: &Change) -> Result<(), TargetError> {
        let back: Vec<(&str, &str)> = match change {
            Change::Dropped { gone } => gone.iter().map(|one| (one.name.as_str(), one.definition.as_str())).collect(),
            Change::Made { name, definition, .. } => vec![(name, definition)],
            _ => Vec::new(),
        };
        if let Change::Renamed { triggers, .. } = change {
            // Those that others changed meanwhile are not put back: they were sought before the names changed.
            triggers.iter().try_for_each(|told| self.put_text(told, true))?;
        }
        if let Change::Dropped { gone } = change {
            for (name, text) in gone.iter().flat_map(|one| &one.triggers) {
                let done = ddl_text::put(&mut self.b, Kind::Trigger, name, Some(text));
                done.map_err(|source| self.failed("cannot bring triggers back in", source))?;
            }
        }
        for (name, text) in back {
            let done = ddl_links::lead(&mut self.b, name, text);
            done.map_err(|source| self.failed("cannot bring foreign keys back in", source))?;
        }
        Ok(())
    }

    /// Gives a table the foreign keys that it had before what they point at went or came, or after it.
    pub(super) fn relink(&mut self, change: &Change, undo: bool) -> Result<(), TargetError> {
        let Change::Relinked { name, before, after, .. } = change else { return Ok(()) };
        let done = ddl_links::lead(&mut self.b, name, if undo { before } else { after });
        done.map_err(|source| self.failed("cannot bring foreign keys back in", source))
    }

    /// True where the names are as they are once the change is done.
    fn is_forward(&mut self, segment: &Segment, change: &Change) -> Result<bool, TargetError> {
        let names = self.names.clone();
        let hold = |what: &str| segment.object(&names, what);
        let mut there = |name: &str| table::there(&mut self.b, name).map(|there| there != There::Nothing);
        let found = match change {
            Change::Made { name, .. } => there(&hold("t0")).and_then(|held| Ok(!held && there(name)?)),
            Change::Dropped { gone } => there(&gone.first().map_or_else(|| hold("t0"), |one| one.hold(0, &hold))),
            Change::Swapped { .. } => there(&hold("t0")),
            Change::Renamed { pairs, .. } => {
                let (gone, _) = net_names(pairs);
                gone.first().map_or(Ok(true), |from| there(from).map(|there| !there))
            }
            Change::Altered(_) => return Ok(true),
            Change::Relinked { name, after, .. } => definition(&mut self.b, name)
                .map(|now| Shape::of(&now.unwrap_or_default()).links == Shape::of(after).links),
            Change::Told(told) => return self.is_told(told),
        };
        found.map_err(|source| self.reading(source))
    }

    /// Finds out whether a change whose outcome is open happened, completes it, and writes it down.
    pub(super) fn settle_change(&mut self, segment: &mut Segment) -> Result<(), TargetError> {
        let Detail::Ddl { change, .. } = segment.detail.clone() else { return Ok(()) };
        let names = self.names.clone();
        let forward = match &*change {
            Change::Altered(altered) => self.settle_alter(segment, altered)?,
            _ => self.is_forward(segment, &change)?,
        };
        if forward {
            let redone = segment.state == State::Intended;
            match &*change {
                // One just made has the foreign keys and indexes that it was made with; what they are is learned below.
                Change::Made { definition, .. } if redone && definition.is_empty() => {}
                Change::Made { .. } if redone => self.bring_links(&change)?,
                Change::Relinked { .. } => self.relink(&change, false)?,
                _ => self.let_go_of_links(segment, &change)?,
            }
            if let (Detail::Ddl { change, .. }, true) = (&mut segment.detail, redone)
                && match &**change {
                    Change::Made { definition, .. } => definition.is_empty(),
                    Change::Told(told) => told.after.is_none(),
                    Change::Renamed { triggers, .. } => triggers.iter().any(|told| told.after.is_none()),
                    _ => false,
                }
            {
                self.learn(change)?;
            }
        } else if segment.state == State::Undoing {
            match &*change {
                Change::Made { .. } => self.let_go_of_links(segment, &change)?,
                Change::Relinked { .. } => self.relink(&change, true)?,
                _ => self.bring_links(&change)?,
            }
        }
        self.mend_links(segment)?;
        let state = if forward { State::Done } else { State::Undone };
        segment
            .come_with_detail(&mut self.b, &names, state)
            .map_err(|source| self.failed("cannot write a segment to", source))
    }

    /// After a statement that failed: nothing of it is left, and its row goes.
    pub(super) fn settle_failed(&mut self, segment: &mut Segment) -> Result<(), TargetError> {
        self.settle_change(segment)?;
        if segment.state == State::Undone {
            let (names, step, number) = (self.names.clone(), segment.step, segment.number);
            segment.erase(&mut self.b, &names).map_err(|source| self.failed("cannot write a segment to", source))?;
            self.sweep_segment(step, number)?;
        }
        Ok(())
    }
}
