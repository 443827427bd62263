//! What stands in the way of an undo or redo because somebody else changed it since.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::words;

/// What to do where a deployment and somebody else changed the same column or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnConflict {
    /// Change nothing and list the conflicts.
    Stop,
    /// Leave the newer value, undo the rest.
    Keep,
    /// Bring the old value back all the same.
    Overwrite,
}

/// In what way the site no longer holds what the deployment left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictKind {
    /// A value or a file's content or metadata was changed since.
    Changed,
    /// The row or file is no longer there.
    Missing,
    /// A row without a key may be there, changed, or not: what others did since hides which one it was.
    NotFound,
    /// What the deployment left was replaced before its undo, so that a redo can't bring it back.
    NotKept,
    /// A row or file with that key or path has appeared since.
    Appeared,
    /// A table or directory that should go holds what others put there.
    NotEmpty,
    /// The definition of a schema object was changed since.
    Definition,
    /// Going back would leave a row that points at nothing.
    ForeignKey,
    /// Going back would break a uniqueness or other constraint because of somebody else's row.
    Constraint,
    /// Another deployment requires this one, or its undo needs what the undo of this one would take away.
    RequiredBy,
}

/// One conflict, in words a person can act on. Values are shown shortened, never compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// `database main`, `root web`, `deployment …`.
    pub target: String,
    /// A table, an index, a path.
    pub object: String,
    /// Which row, e.g. `id=7`; none for files and schema objects.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub column: Option<String>,
    pub kind: ConflictKind,
    /// What undo would bring back.
    pub before: String,
    /// What the deployment left.
    pub left: String,
    /// What is there now.
    pub now: String,
}

/// Target, object, key and column of a conflict.
type Place = (String, String, Option<String>, Option<String>);

impl Conflict {
    /// Where it is, for those who may see no key and no value: `database main: product, column price`.
    #[must_use]
    pub fn place(&self) -> String {
        let column = self.column.as_ref().map(|column| format!(", column {column}")).unwrap_or_default();
        format!("{}: {}{column}", self.target, self.object)
    }

    fn of(&self) -> Place {
        (self.target.clone(), self.object.clone(), self.key.clone(), self.column.clone())
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.target, self.object)?;
        if let Some(key) = &self.key {
            write!(f, " ({key})")?;
        }
        if let Some(column) = &self.column {
            write!(f, " column {column}")?;
        }
        match self.kind {
            ConflictKind::Changed => {
                write!(f, ": was {}, the deployment left {}, now {}", self.before, self.left, self.now)
            }
            ConflictKind::Missing => write!(f, ": the deployment left {}, it is gone now", self.left),
            ConflictKind::NotFound => {
                write!(f, ": the deployment left {}, which cannot be told from other rows now: ", self.left)?;
                f.write_str("they have no key, and others may have numbered them anew")
            }
            ConflictKind::NotKept => {
                write!(f, ": was replaced before the undo, so that {} can't be brought back: {}", self.before, self.now)
            }
            ConflictKind::Appeared => write!(f, ": appeared since: {}", self.now),
            ConflictKind::NotEmpty => write!(f, ": made by the deployment, now holds {}", self.now),
            ConflictKind::Definition => write!(f, ": its definition was changed since: {}", self.now),
            ConflictKind::ForeignKey => write!(f, ": a row would point at nothing: {}", self.now),
            ConflictKind::Constraint => write!(f, ": stands in the way: {}", self.now),
            ConflictKind::RequiredBy => write!(f, ": required by {}", self.now),
        }
    }
}

/// Conflicts as they are found: the first [`Conflicts::KEPT`] in full, the rest counted, so that memory stays bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflicts {
    pub listed: Vec<Conflict>,
    pub total: u64,
    /// The targets and objects of those that are not listed, as many as are listed at most.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub beyond: BTreeSet<(String, String)>,
}

impl Conflicts {
    /// How many are kept in full.
    pub const KEPT: usize = 1000;

    pub fn push(&mut self, conflict: Conflict) {
        self.total += 1;
        if self.listed.len() < Self::KEPT {
            self.listed.push(conflict);
        } else {
            self.note_beyond((conflict.target, conflict.object));
        }
    }

    fn note_beyond(&mut self, of: (String, String)) {
        if self.beyond.len() < Self::KEPT {
            self.beyond.insert(of);
        }
    }

    /// True where all that are not listed are known by their objects.
    pub fn knows_all(&self) -> bool {
        self.beyond.len() < Self::KEPT
    }

    pub fn extend(&mut self, other: Conflicts) {
        self.total += other.total;
        for conflict in other.listed {
            if self.listed.len() < Self::KEPT {
                self.listed.push(conflict);
            } else {
                self.note_beyond((conflict.target, conflict.object));
            }
        }
        other.beyond.into_iter().for_each(|of| self.note_beyond(of));
    }

    /// Those that are listed and of a kind, and the rest.
    #[must_use]
    pub fn divided(self, is_one: impl Fn(&Conflict) -> bool) -> (Self, Self) {
        let (mut these, mut rest) =
            (Self::default(), Self { total: self.total, beyond: self.beyond, listed: Vec::new() });
        for conflict in self.listed {
            if is_one(&conflict) {
                rest.total -= 1;
                these.push(conflict);
            } else {
                rest.listed.push(conflict);
            }
        }
        (these, rest)
    }

    #[must_use]
    pub fn and(mut self, other: Conflicts) -> Self {
        self.extend(other);
        self
    }

    /// Like [`Conflicts::extend`], but a conflict about what is listed already counts once.
    pub fn join(&mut self, mut other: Conflicts) {
        let told: HashSet<Place> = self.listed.iter().map(Conflict::of).collect();
        let before = other.listed.len();
        other.listed.retain(|conflict| !told.contains(&conflict.of()));
        other.total -= (before - other.listed.len()) as u64;
        self.extend(other);
    }

    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&words::count(self.total, "conflict"))
    }
}
