//! One replay under way: what it met and did.

use std::collections::BTreeSet;

use backout_model::conflict::{Conflict, ConflictKind, Conflicts, OnConflict};

use super::ahead::Ahead;
use super::ddl::Change;
use super::guard::Rows;
use super::marker::Names;
use super::segment::Segment;
use super::table::ForeignKey;

/// Which way a step is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Undo,
    Redo,
}

pub struct Replay<'a> {
    pub label: &'a str,
    pub direction: Direction,
    pub on_conflict: OnConflict,
    pub conflicts: Conflicts,
    /// What is as it is to be already; looked for only where an undo is tried.
    pub already: Option<Conflicts>,
    pub notes: Vec<String>,
    /// Rows that were changed.
    pub rows: u64,
    /// What is done again left rows that point at nothing the first time, too.
    pub unchecked: bool,
    /// See [`super::succession::replacing`].
    pub replacing: BTreeSet<String>,
    /// A row that is gone would come back with the table that is replaced: nothing can keep it away.
    pub unkept: bool,
    /// What a trial has gone past: it would be away by then.
    pub passed: BTreeSet<String>,
    /// What the rest of an undo brings and takes away, and the tables of it without which rows would point at nothing.
    pub ahead: Ahead,
    pub counted_on: BTreeSet<String>,
}

impl<'a> Replay<'a> {
    pub fn new(label: &'a str, direction: Direction, on_conflict: OnConflict) -> Self {
        let (conflicts, notes) = (Conflicts::default(), Vec::new());
        Self {
            label,
            direction,
            on_conflict,
            conflicts,
            already: None,
            notes,
            rows: 0,
            unchecked: false,
            replacing: BTreeSet::new(),
            unkept: false,
            passed: BTreeSet::new(),
            ahead: Ahead::default(),
            counted_on: BTreeSet::new(),
        }
    }

    pub fn overwrites(&self) -> bool {
        self.on_conflict == OnConflict::Overwrite
    }

    /// True where what was met so far ends the replay.
    pub fn is_stopped(&self) -> bool {
        self.on_conflict == OnConflict::Stop && !self.conflicts.is_empty()
    }

    /// Takes in what an undo has still to do.
    pub fn look_ahead(&mut self, names: &Names, segments: &[Segment]) {
        if self.direction == Direction::Undo {
            self.ahead = Ahead::of(names, segments);
        }
    }

    /// Leaves out foreign keys, about rows that change, which no longer matter at the end.
    pub fn leave_out(&mut self, links: &mut Vec<ForeignKey>, rows: &[Rows<'_>]) {
        let written = rows.iter().map(|one| one.table.name.as_str()).collect();
        self.counted_on.extend(self.ahead.leave_out(links, &written));
    }

    /// True where a change that stays as others made it would leave rows that point at nothing.
    pub fn counts_on(&self, change: &Change) -> bool {
        self.on_conflict == OnConflict::Keep && change.names().any(|name| self.counted_on.contains(name))
    }

    pub fn conflict(&self, object: &str, key: Option<String>, kind: ConflictKind) -> Conflict {
        Conflict {
            target: self.label.to_owned(),
            object: object.to_owned(),
            key,
            column: None,
            kind,
            before: String::new(),
            left: String::new(),
            now: String::new(),
        }
    }

    /// The object is not what the step left.
    pub fn definition(&mut self, object: &str, why: impl Into<String>) {
        let conflict = self.conflict(object, None, ConflictKind::Definition);
        self.conflicts.push(Conflict { now: why.into(), ..conflict });
    }
}
