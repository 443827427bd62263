//! Takes a change of the schema back, or does it again, where nobody else changed what it is about.

use backout_model::conflict::{Conflict, ConflictKind, OnConflict};
use backout_model::fault::{self, Point};
use backout_model::target::TargetError;
use mysql::Error;

use super::Mariadb;
use super::capture::patiently;
use super::ddl::{Change, Gone, definition, net_names, rename, rows_in};
use super::ddl_hung;
use super::ddl_links::orphans;
use super::ddl_shape::Shape;
use super::ddl_text::{Kind, Text, Told};
use super::marker::{self, Names};
use super::replay::{Direction, Replay};
use super::segment::{Detail, Segment, State};
use super::sequence;
use super::session::ident;
use super::table::{self, There};
use super::undo::Act;

impl Mariadb {
    /// Seeks what is in the way of replaying a change.
    pub(super) fn look_at_change(
        &mut self,
        segment: &Segment,
        change: &Change,
        replay: &mut Replay<'_>,
    ) -> Result<(), TargetError> {
        self.look_at_hung(segment, change, replay)?;
        if let Change::Altered(altered) = change {
            return self.look_at_alter(segment, altered, replay);
        }
        let undo = replay.direction == Direction::Undo;
        if let Change::Told(told) = change {
            if let Some(why) = self.not_as_told(told, undo)? {
                replay.definition(&told.name, why);
            }
            return Ok(());
        }
        if let Change::Relinked { name, before, after, checked } = change {
            let (from, to) = if undo { (after, before) } else { (before, after) };
            return self.look_at_links_of(name, from, to, undo || *checked, replay);
        }
        let expected: Vec<(&str, Option<&str>)> = match change {
            Change::Made { name, definition, .. } => vec![(name, undo.then_some(definition.as_str()))],
            Change::Dropped { gone } => {
                gone.iter().map(|one| (one.name.as_str(), (!undo).then_some(one.definition.as_str()))).collect()
            }
            Change::Swapped { name, before, after } => vec![(name, Some(if undo { after } else { before }))],
            Change::Renamed { pairs, triggers } => {
                for told in triggers.iter().filter(|_| undo) {
                    if let Some(why) = self.not_as_told(told, true)? {
                        replay.definition(&told.name, why);
                    }
                }
                let (gone, new) = net_names(pairs);
                let (is, free) = if undo { (new, gone) } else { (gone, new) };
                for name in is {
                    if table::there(&mut self.b, &name).map_err(|source| self.reading(source))? == There::Nothing {
                        replay.definition(&name, "it is not there");
                    }
                }
                for name in free {
                    if table::there(&mut self.b, &name).map_err(|source| self.reading(source))? != There::Nothing {
                        replay.definition(&name, "the name is taken");
                    }
                }
                Vec::new()
            }
            Change::Altered(_) | Change::Relinked { .. } | Change::Told(_) => Vec::new(),
        };
        for (name, wanted) in expected {
            let now = definition(&mut self.b, name).map_err(|source| self.reading(source))?;
            let wanted = wanted.map(|wanted| sequence::as_left(&mut self.b, &self.names, name, wanted));
            let wanted = wanted.transpose().map_err(|source| self.reading(source))?;
            let triggers = self.triggers_with_text(name).map_err(|source| self.reading(source))?;
            let own: &[_] = match change {
                Change::Dropped { gone } => gone.iter().find(|one| one.name == name).map_or(&[], |one| &one.triggers),
                _ => &[],
            };
            let is_own =
                |trigger: &(String, Text)| own.iter().any(|one| one.0 == trigger.0 && one.1.sql == trigger.1.sql);
            if let (Some((trigger, _)), Some(_)) = (triggers.iter().find(|trigger| !is_own(trigger)), &wanted) {
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

    /// A table whose definition is not what it should be, and rows that would point at nothing by foreign keys that come.
    fn look_at_links_of(
        &mut self,
        name: &str,
        from: &str,
        to: &str,
        checked: bool,
        replay: &mut Replay<'_>,
    ) -> Result<(), TargetError> {
        let now = definition(&mut self.b, name).map_err(|source| self.reading(source))?.unwrap_or_default();
        if Shape::of(&now) != Shape::of(from) {
            replay.definition(name, if now.is_empty() { "there is no such table".to_owned() } else { now });
            return Ok(());
        }
        if !checked {
            return Ok(());
        }
        let found = orphans(self.a()?, name, &Shape::of(from), &Shape::of(to));
        for (link, count) in found.map_err(|source| self.reading(source))? {
            let conflict = replay.conflict(name, None, ConflictKind::ForeignKey);
            let now = format!("{count} of its rows point at nothing by {link}, which comes back");
            replay.conflicts.push(Conflict { now, ..conflict });
        }
        Ok(())
    }

    /// Rows that others put into a table that would go.
    fn look_at_rows(&mut self, name: &str, change: &Change, replay: &mut Replay<'_>) -> Result<(), TargetError> {
        let undo = replay.direction == Direction::Undo;
        // Where another table comes in its place, rows that others took away would be there again.
        let (left, replaces) = match change {
            Change::Made { rows, replaces, .. } if undo => (rows.clone(), *replaces),
            Change::Swapped { .. } if undo => (None, false),
            Change::Dropped { gone } if !undo => match gone.iter().find(|one| one.name == name) {
                Some(Gone { rows: Some(rows), .. }) => (Some(rows.clone()).filter(|rows| !rows.is_empty()), true),
                _ => return Ok(()),
            },
            _ => return Ok(()),
        };
        // In the act's session: what it has taken back so far may not be committed.
        let looked = rows_in(self.a()?, name);
        let now = looked.map_err(|source| self.reading(source))?;
        if now != left && (now.is_some() || replaces) {
            let conflict = replay.conflict(name, None, ConflictKind::NotEmpty);
            replay.conflicts.push(Conflict { now: "rows that the deployment did not leave".to_owned(), ..conflict });
        }
        Ok(())
    }

    /// Alters a sequence back, unless somebody drew from it right before it was locked.
    fn put_sequence(&mut self, told: &Told, replay: &mut Replay<'_>, before: u64) -> Result<(), TargetError> {
        let failed = |label: &str, source| TargetError::failed(format!("cannot lock a sequence in {label}"), source);
        let sql = format!("LOCK TABLES {} WRITE, `{}` READ", ident(&told.name), self.names.segments());
        patiently(|| self.b.run(&sql)).map_err(|source| failed(&self.label, source))?;
        let looked = self.not_as_told(told, true);
        let done = match looked {
            Ok(Some(now)) if replay.conflicts.total == before => {
                replay.definition(&told.name, now);
                Err(TargetError::Conflicts(replay.conflicts.clone()))
            }
            Err(error) => Err(error),
            Ok(_) => self.put_text(told, true),
        };
        self.b.run("UNLOCK TABLES").map_err(|source| failed(&self.label, source))?;
        done
    }

    /// What leaves an undo that overwrites no room: what is to change is not there, or the name that it is to have is taken.
    pub(super) fn look_for_room(&mut self, segments: &[Segment], on_conflict: OnConflict) -> Result<(), TargetError> {
        if on_conflict != OnConflict::Overwrite {
            return Ok(());
        }
        let label = self.label.clone();
        let mut replay = Replay::new(&label, Direction::Undo, OnConflict::Stop);
        let mut names = table::all_names(&mut self.b).map_err(|source| self.reading(source))?;
        for segment in segments {
            let Detail::Ddl { change, hung, .. } = &segment.detail else { continue };
            for link in ddl_hung::immovable(&mut self.b, change, hung).map_err(|source| self.reading(source))? {
                replay.definition(change.names().next().unwrap_or_default(), format!("{link} needs it now"));
            }
            if let Change::Altered(altered) = &**change
                && !names.contains(&altered.name)
            {
                replay.definition(&altered.name, "there is no such table");
            }
            for (from, to) in moves_of(&self.names, segment, change, true) {
                if !names.remove(&from) {
                    replay.definition(&from, "it is not there");
                }
                if !names.insert(to.clone()) {
                    replay.definition(&to, "the name is taken");
                }
            }
        }
        match replay.conflicts.is_empty() {
            true => Ok(()),
            false => Err(TargetError::Conflicts(replay.conflicts)),
        }
    }

    /// Takes a change of the schema back, or does it again.
    pub(super) fn replay_change(&mut self, segment: &mut Segment, act: &mut Act<'_, '_>) -> Result<(), TargetError> {
        let Detail::Ddl { change, sql, settings, line, .. } = segment.detail.clone() else { return Ok(()) };
        let names = self.names.clone();
        let undo = act.replay.direction == Direction::Undo;
        let before = act.replay.conflicts.total;
        if undo || !matches!(&*change, Change::Altered(_)) {
            self.look_at_change(segment, &change, &mut act.replay)?;
        }
        if act.replay.is_stopped() {
            return Ok(());
        }
        if act.replay.conflicts.total > before && act.replay.counts_on(&change) {
            return Err(TargetError::Conflicts(std::mem::take(&mut act.replay.conflicts)));
        }
        let ticket = self.announced(&mut act.ticket, &act.summary, act.gate)?;
        let writing =
            |label: &str, source: Error| TargetError::failed(format!("cannot write a segment to {label}"), source);
        if act.replay.conflicts.total > before && act.replay.on_conflict != OnConflict::Overwrite {
            // It stays as others made it.
            let state = if undo { State::Undone } else { State::Done };
            return segment.come(&mut self.b, &names, state).map_err(|source| writing(&self.label, source));
        }
        let moves = moves_of(&names, segment, &change, undo);
        if let Change::Altered(altered) = &*change {
            if undo {
                self.note_links(segment, &change, undo, act.replay.overwrites())?;
            }
            return match undo {
                true => self.undo_alter(segment, altered, &mut act.replay),
                false => self.redo_alter(segment, altered, (&sql, &settings), line, ticket),
            };
        }
        marker::holds(&mut self.b, &names, &self.label.clone(), self.epoch)?;
        self.note_links(segment, &change, undo, act.replay.overwrites())?;
        let state = if undo { State::Undoing } else { State::Intended };
        segment.come_with_detail(&mut self.b, &names, state).map_err(|source| writing(&self.label, source))?;
        fault::point(Point::Statement)
            .map_err(|source| TargetError::failed(format!("cannot change the schema of {}", self.label), source))?;
        if let Change::Told(told) = &*change {
            let put = match told.kind {
                Kind::Sequence if undo => self.put_sequence(told, &mut act.replay, before),
                _ => self.put_text(told, undo),
            };
            if let Err(error) = put {
                if act.replay.conflicts.total == before {
                    return Err(error);
                }
                // What others made of what it names leaves it no room.
                let state = if undo { State::Done } else { State::Undone };
                segment.come(&mut self.b, &names, state).map_err(|source| writing(&self.label, source))?;
                return Err(TargetError::Conflicts(std::mem::take(&mut act.replay.conflicts)));
            }
        } else if let Change::Relinked { .. } = &*change {
            self.relink(&change, undo)?;
        } else {
            let run = rename(&moves);
            let a = self.a()?;
            let done = patiently(|| a.run(&run));
            done.map_err(|source| self.failed("cannot change names in", source))?;
        }
        match (&*change, undo) {
            (Change::Made { .. }, false) | (Change::Dropped { .. } | Change::Renamed { .. }, true) => {
                self.bring_links(&change)?;
            }
            _ => self.let_go_of_links(segment, &change)?,
        }
        self.mend_links(segment)?;
        let done = match undo {
            true => segment.come(&mut self.b, &names, State::Undone),
            false => segment.redone(&mut self.b, &names, ticket),
        };
        done.map_err(|source| writing(&self.label, source))
    }
}

/// The names that change when a change is replayed, in their order.
pub(super) fn moves_of(names: &Names, segment: &Segment, change: &Change, undo: bool) -> Vec<(String, String)> {
    let moves = change.moves(&|what| segment.object(names, what));
    match undo {
        true => moves.into_iter().rev().map(|(from, to)| (to, from)).collect(),
        false => moves,
    }
}
