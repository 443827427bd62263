//! Changes of the schema: each is a segment of its own, announced in the segment's row before it happens.
//!
//! What can be is made a matter of names, which the server changes all or not at all: a table or view that is dropped
//! is renamed into the hold, one that is emptied or replaced changes places with a new one.

use backout_model::conflict::{Conflict, ConflictKind, OnConflict};
use backout_model::fault::{self, Point};
use backout_model::target::{Gate, TargetError, Ticket};
use mysql::Error;
use serde::{Deserialize, Serialize};

use super::Mariadb;
use super::apply::{Chain, cannot_run};
use super::capture::patiently;
use super::classify::No;
use super::ddl_alter::Altered;
use super::ddl_shape::{Shape, without_counter};
use super::head::{Head, Object, Verb};
use super::marker;
use super::replay::{Direction, Replay};
use super::segment::{Detail, Segment, State};
use super::session::{Session, ident, is_missing};
use super::split::Statement;
use super::table::{self, There};
use super::undo::Act;

/// A table or view that went into the hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    pub name: String,
    pub definition: String,
}

/// What one statement changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum Change {
    /// `rows`: the checksum of a table that was made with rows in it.
    Made {
        name: String,
        definition: String,
        rows: Option<String>,
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
    },
    Altered(Box<Altered>),
}

impl Change {
    /// The tables and views that it is about.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names: Vec<&str> = match self {
            Change::Made { name, .. } | Change::Swapped { name, .. } => vec![name],
            Change::Dropped { gone } => gone.iter().map(|one| one.name.as_str()).collect(),
            Change::Renamed { pairs } => pairs.iter().flat_map(|(from, to)| [from.as_str(), to.as_str()]).collect(),
            Change::Altered(altered) => vec![&altered.name],
        };
        names.into_iter()
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
        }
    }

    /// The names that change, from old to new, where it is done.
    fn moves(&self, hold: &dyn Fn(&str) -> String) -> Vec<(String, String)> {
        match self {
            Change::Made { name, .. } => vec![(hold("t0"), name.clone())],
            Change::Dropped { gone } => {
                gone.iter().enumerate().map(|(at, one)| (one.name.clone(), hold(&format!("t{at}")))).collect()
            }
            Change::Swapped { name, .. } => vec![(name.clone(), hold("t0")), (hold("s"), name.clone())],
            Change::Renamed { pairs } => pairs.clone(),
            Change::Altered(_) => Vec::new(),
        }
    }
}

/// The server's own text of a table or view, without its counter; none where there is nothing of that name.
pub fn definition(b: &mut Session, name: &str) -> Result<Option<String>, Error> {
    match b.rows(&format!("SHOW CREATE TABLE {}", ident(name))) {
        Err(error) if is_missing(&error) => Ok(None),
        rows => Ok(rows?.into_iter().next().and_then(|mut row| row[1].take()).map(|text| without_counter(&text))),
    }
}

/// A definition under another name.
pub fn renamed(definition: &str, from: &str, to: &str) -> String {
    definition.replacen(&ident(from), &ident(to), 1)
}

fn rename(moves: &[(String, String)]) -> String {
    let parts: Vec<String> = moves.iter().map(|(from, to)| format!("{} TO {}", ident(from), ident(to))).collect();
    format!("RENAME TABLE {}", parts.join(", "))
}

/// A checksum of a table's rows; none for one without rows, and for a view.
fn rows_in(session: &mut Session, name: &str) -> Result<Option<String>, Error> {
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
        for name in change.names() {
            if !self.summary.objects.iter().any(|one| one == name) {
                self.summary.objects.push(name.to_owned());
            }
        }
        let ticket = self.announced(gate)?;
        let (line, sql) = (statement.line, statement.sql.clone());
        let detail = Detail::Ddl { line, sql, settings, change: Box::new(change) };
        let mut segment = Segment { step, number, state: State::Intended, detail };
        self.number += 1;
        self.database.perform(&mut segment, ticket, place, prepared.by_names)
    }
}

impl Mariadb {
    fn reading(&self, source: Error) -> TargetError {
        self.failed("cannot read the schema of", source)
    }

    /// Looks at what a statement is about, and makes ready what it needs. Changes nothing that is not the tool's own.
    fn prepare(
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
            (Verb::Create, Object::Table | Object::View) if !is_there => {
                let change = Change::Made { name: first, definition: String::new(), rows: None };
                Ok(Prepared { change: Some(change), by_names: false })
            }
            (Verb::Create, Object::Table | Object::View) if head.if_not_exists => nothing,
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
            (Verb::Create, Object::Table | Object::View) => Err(failed(format!("{first} is there already"))),
            (Verb::Drop, Object::Table | Object::View) => {
                let wanted = |one: &There| (*one == There::View) == (head.object == Object::View);
                let mut gone = Vec::new();
                for (name, one) in head.names.iter().zip(&there) {
                    if *one == There::Nothing && head.if_exists {
                        continue;
                    }
                    if *one == There::Nothing || !wanted(one) {
                        return Err(failed(format!("there is no {} {}", head.word, name.name)));
                    }
                    let text = definition(&mut self.b, &name.name).map_err(|source| self.reading(source))?;
                    let triggers = table::triggers(&mut self.b, &name.name).map_err(|source| self.reading(source))?;
                    if let Some(trigger) = triggers.first() {
                        let why = format!("{} has the trigger {trigger}: dropping it is not handled yet", name.name);
                        return Err(refused(why));
                    }
                    gone.push(Gone { name: name.name.clone(), definition: text.unwrap_or_default() });
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
                    if child.is_none() {
                        return Err(refused(format!("{why}, and would point at nothing: that is not handled yet")));
                    }
                }
                if gone.is_empty() {
                    return nothing;
                }
                Ok(Prepared { change: Some(Change::Dropped { gone }), by_names: true })
            }
            (Verb::Truncate, _) => {
                if !is_there {
                    return Err(failed(format!("there is no table {first}")));
                }
                self.prepare_empty(&first, &hold("s")).map_err(|source| self.reading(source))?.map_err(refused)
            }
            (Verb::Rename, Object::Table) => {
                let names: Vec<String> = head.names.iter().map(|name| name.name.clone()).collect();
                let mut seen = names.clone();
                seen.sort_unstable();
                seen.dedup();
                if seen.len() != names.len() {
                    return Err(refused("names that change places are not handled yet".to_owned()));
                }
                for (pair, there) in names.chunks(2).zip(there.chunks(2)) {
                    if there[0] == There::Nothing || there[1] != There::Nothing {
                        return Err(failed(format!("{} is not there, or {} is", pair[0], pair[1])));
                    }
                }
                let pairs = names.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
                Ok(Prepared { change: Some(Change::Renamed { pairs }), by_names: true })
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

    /// The statement about an object of another name.
    pub(super) fn under_another_name(
        &self,
        statement: &Statement,
        head: &Head,
        name: &str,
    ) -> Result<String, TargetError> {
        let text = super::token::bare(&statement.sql, self.version);
        let Some(named) = head.names.first() else { return Ok(text) };
        Ok(format!("{}{}{}", &text[..named.start], ident(name), &text[named.end..]))
    }

    /// An empty table of the same shape, which is to take the place of a full one; else, in words, why not.
    fn prepare_empty(&mut self, name: &str, spare: &str) -> Result<Result<Prepared, String>, Error> {
        let links = table::foreign_keys(&mut self.b)?;
        if links.iter().any(|link| link.parent == name || link.child == name) {
            return Ok(Err(format!("{name} has foreign keys: emptying it is not handled yet")));
        }
        if let Some(trigger) = table::triggers(&mut self.b, name)?.first() {
            return Ok(Err(format!("{name} has the trigger {trigger}: emptying it is not handled yet")));
        }
        self.b.run(&format!("CREATE TABLE {} LIKE {}", ident(spare), ident(name)))?;
        let before = definition(&mut self.b, name)?.unwrap_or_default();
        let after = renamed(&definition(&mut self.b, spare)?.unwrap_or_default(), spare, name);
        if before != after {
            return Ok(Err(format!("an empty table like {name} would not be the same")));
        }
        let change = Change::Swapped { name: name.to_owned(), before, after };
        Ok(Ok(Prepared { change: Some(change), by_names: true }))
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
        if let (Detail::Ddl { change, .. }, false) = (&mut segment.detail, by_names) {
            self.learn(change)?;
        }
        segment.state = State::Done;
        segment.rewrite(&mut self.b, &names, ticket).map_err(writing)
    }

    /// Of what was made its definition is known only now.
    fn learn(&mut self, change: &mut Change) -> Result<(), TargetError> {
        let Change::Made { name, definition: text, rows } = change else { return Ok(()) };
        let found = definition(&mut self.b, name).map_err(|source| self.reading(source))?;
        *text = found.unwrap_or_default();
        let looked = rows_in(&mut self.b, name);
        *rows = looked.map_err(|source| self.reading(source))?;
        Ok(())
    }

    /// A table in the hold must be in nobody's way: its foreign keys go, and are made again when it comes back.
    fn let_go_of_links(&mut self, segment: &Segment, change: &Change) -> Result<(), TargetError> {
        let held: Vec<(String, Vec<(String, String)>)> = match change {
            Change::Dropped { gone } => {
                let one = |(at, gone): (usize, &Gone)| {
                    (segment.object(&self.names, &format!("t{at}")), Shape::of(&gone.definition).links)
                };
                gone.iter().enumerate().map(one).collect()
            }
            Change::Made { definition, .. } => vec![(segment.object(&self.names, "t0"), Shape::of(definition).links)],
            _ => Vec::new(),
        };
        for (name, links) in held.into_iter().filter(|(_, links)| !links.is_empty()) {
            let now = definition(&mut self.b, &name).map_err(|source| self.reading(source))?;
            let Some(now) = now else { continue };
            let there = Shape::of(&now).links;
            let drops: Vec<String> = links
                .iter()
                .filter(|(link, _)| there.iter().any(|(one, _)| one == link))
                .map(|(link, _)| format!("DROP FOREIGN KEY {}", ident(link)))
                .collect();
            if !drops.is_empty() {
                let sql = format!("ALTER TABLE {} {}", ident(&name), drops.join(", "));
                patiently(|| self.b.run(&sql)).map_err(|source| self.failed("cannot put a table by in", source))?;
            }
        }
        Ok(())
    }

    /// Makes the foreign keys of tables again that came back from the hold.
    fn bring_links(&mut self, change: &Change) -> Result<(), TargetError> {
        let back: Vec<(&str, &str)> = match change {
            Change::Dropped { gone } => gone.iter().map(|one| (one.name.as_str(), one.definition.as_str())).collect(),
            Change::Made { name, definition, .. } => vec![(name, definition)],
            _ => Vec::new(),
        };
        for (name, text) in back {
            let now = definition(&mut self.b, name).map_err(|source| self.reading(source))?.unwrap_or_default();
            let there = Shape::of(&now).links;
            let adds: Vec<String> = Shape::of(text)
                .links
                .into_iter()
                .filter(|(link, _)| !there.iter().any(|(one, _)| one == link))
                .map(|(_, line)| format!("ADD {line}"))
                .collect();
            if !adds.is_empty() {
                let sql = format!("ALTER TABLE {} {}", ident(name), adds.join(", "));
                patiently(|| self.b.run(&sql))
                    .map_err(|source| self.failed("cannot bring foreign keys back in", source))?;
            }
        }
        Ok(())
    }

    /// True where the names are as they are once the change is done.
    fn is_forward(&mut self, segment: &Segment, change: &Change) -> Result<bool, TargetError> {
        let names = self.names.clone();
        let hold = |what: &str| segment.object(&names, what);
        let mut there = |name: &str| table::there(&mut self.b, name).map(|there| there != There::Nothing);
        let found = match change {
            Change::Made { name, .. } => there(&hold("t0")).and_then(|held| Ok(!held && there(name)?)),
            Change::Dropped { .. } | Change::Swapped { .. } => there(&hold("t0")),
            Change::Renamed { pairs } => pairs.first().map_or(Ok(true), |(from, _)| there(from).map(|there| !there)),
            Change::Altered(_) => return Ok(true),
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
                Change::Made { .. } if redone => self.bring_links(&change)?,
                _ => self.let_go_of_links(segment, &change)?,
            }
            if let (Detail::Ddl { change, .. }, true) = (&mut segment.detail, redone) {
                if let Change::Made { definition, .. } = &**change
                    && definition.is_empty()
                {
                    self.learn(change)?;
                }
            }
        } else if segment.state == State::Undoing {
            match &*change {
                Change::Made { .. } => self.let_go_of_links(segment, &change)?,
                _ => self.bring_links(&change)?,
            }
        }
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

    /// Seeks what is in the way of replaying a change.
    pub(super) fn look_at_change(
        &mut self,
        segment: &Segment,
        change: &Change,
        replay: &mut Replay<'_>,
    ) -> Result<(), TargetError> {
        if let Change::Altered(altered) = change {
            return self.look_at_alter(segment, altered, replay);
        }
        let undo = replay.direction == Direction::Undo;
        let expected: Vec<(&str, Option<&str>)> = match change {
            Change::Made { name, definition, .. } => vec![(name, undo.then_some(definition.as_str()))],
            Change::Dropped { gone } => {
                gone.iter().map(|one| (one.name.as_str(), (!undo).then_some(one.definition.as_str()))).collect()
            }
            Change::Swapped { name, before, after } => vec![(name, Some(if undo { after } else { before }))],
            Change::Renamed { pairs } => {
                for (from, to) in pairs {
                    let (is, free) = if undo { (to, from) } else { (from, to) };
                    let is_there = table::there(&mut self.b, is).map_err(|source| self.reading(source))?;
                    let in_way = table::there(&mut self.b, free).map_err(|source| self.reading(source))?;
                    if is_there == There::Nothing {
                        replay.definition(is, "it is not there");
                    }
                    if in_way != There::Nothing {
                        replay.definition(free, "the name is taken");
                    }
                }
                Vec::new()
            }
            Change::Altered(_) => Vec::new(),
        };
        for (name, wanted) in expected {
            let now = definition(&mut self.b, name).map_err(|source| self.reading(source))?;
            let triggers = table::triggers(&mut self.b, name).map_err(|source| self.reading(source))?;
            if let (Some(trigger), Some(_)) = (triggers.first(), wanted) {
                replay.definition(name, format!("it has the trigger {trigger} now"));
                continue;
            }
            match (now, wanted) {
                (None, None) => {}
                (Some(now), Some(wanted)) if now == wanted => self.look_at_rows(name, change, replay)?,
                (None, Some(_)) => replay.definition(name, "it is not there"),
                (Some(_), None) => replay.definition(name, "the name is taken"),
                (Some(now), Some(_)) => replay.definition(name, now),
            }
        }
        Ok(())
    }

    /// Rows that others put into a table that would go.
    fn look_at_rows(&mut self, name: &str, change: &Change, replay: &mut Replay<'_>) -> Result<(), TargetError> {
        if replay.direction == Direction::Redo {
            return Ok(());
        }
        let left = match change {
            Change::Made { rows, .. } => rows.clone(),
            Change::Swapped { .. } => None,
            _ => return Ok(()),
        };
        // In the act's session: what it has taken back so far may not be committed.
        let looked = rows_in(self.a()?, name);
        let now = looked.map_err(|source| self.reading(source))?;
        if now != left && now.is_some() {
            let conflict = replay.conflict(name, None, ConflictKind::NotEmpty);
            replay.conflicts.push(Conflict { now: "rows that the deployment did not leave".to_owned(), ..conflict });
        }
        Ok(())
    }

    /// Takes a change of the schema back, or does it again.
    pub(super) fn replay_change(&mut self, segment: &mut Segment, act: &mut Act<'_, '_>) -> Result<(), TargetError> {
        let Detail::Ddl { change, sql, settings, line } = segment.detail.clone() else { return Ok(()) };
        let names = self.names.clone();
        let undo = act.replay.direction == Direction::Undo;
        let before = act.replay.conflicts.total;
        if undo || !matches!(&*change, Change::Altered(_)) {
            self.look_at_change(segment, &change, &mut act.replay)?;
        }
        if act.replay.is_stopped() {
            return Ok(());
        }
        let ticket = self.announced(&mut act.ticket, &act.summary, act.gate)?;
        let writing =
            |label: &str, source: Error| TargetError::failed(format!("cannot write a segment to {label}"), source);
        if act.replay.conflicts.total > before && act.replay.on_conflict != OnConflict::Overwrite {
            // It stays as others made it.
            let state = if undo { State::Undone } else { State::Done };
            return segment.come(&mut self.b, &names, state).map_err(|source| writing(&self.label, source));
        }
        if let Change::Altered(altered) = &*change {
            return match undo {
                true => self.undo_alter(segment, altered, &mut act.replay),
                false => self.redo_alter(segment, &sql, &settings, line, ticket),
            };
        }
        marker::holds(&mut self.b, &names, &self.label.clone(), self.epoch)?;
        let state = if undo { State::Undoing } else { State::Intended };
        segment.come(&mut self.b, &names, state).map_err(|source| writing(&self.label, source))?;
        let mut moves = change.moves(&|what| segment.object(&names, what));
        if undo {
            moves = moves.into_iter().rev().map(|(from, to)| (to, from)).collect();
        }
        fault::point(Point::Statement)
            .map_err(|source| TargetError::failed(format!("cannot change the schema of {}", self.label), source))?;
        let run = rename(&moves);
        let a = self.a()?;
        let done = patiently(|| a.run(&run));
        done.map_err(|source| self.failed("cannot change names in", source))?;
        match (&*change, undo) {
            (Change::Made { .. }, false) | (Change::Dropped { .. }, true) => self.bring_links(&change)?,
            _ => self.let_go_of_links(segment, &change)?,
        }
        let done = match undo {
            true => segment.come(&mut self.b, &names, State::Undone),
            false => segment.redone(&mut self.b, &names, ticket),
        };
        done.map_err(|source| writing(&self.label, source))
    }
}
