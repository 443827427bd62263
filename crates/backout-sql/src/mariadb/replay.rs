//! One replay under way: what it met and did.

use std::collections::BTreeSet;

use backout_model::conflict::{Conflict, ConflictKind, Conflicts, OnConflict};

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
        }
    }

    pub fn overwrites(&self) -> bool {
        self.on_conflict == OnConflict::Overwrite
    }

    /// True where what was met so far ends the replay.
    pub fn is_stopped(&self) -> bool {
        self.on_conflict == OnConflict::Stop && !self.conflicts.is_empty()
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
