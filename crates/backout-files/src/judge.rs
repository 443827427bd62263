//! Decides for one path what undo or redo has to do there: by what the path holds now, what the step left, what it
//! is to hold again, and what lies in the hold.
//!
//! Three-way, like a merge: what only the step changed goes back; mode, owner, group and attributes that only others
//! changed are carried over; where others already made what is wanted, nothing is left to do; anything else is a
//! conflict. Times are never a conflict. Changes nothing and reads nothing by itself.

use backout_model::conflict::{Conflict, ConflictKind};

use crate::image::{Image, Kind, shown};
use crate::path::RootPath;

/// What a path holds now.
#[derive(Clone, Debug)]
pub enum Now {
    Absent,
    /// Its directory is gone as well.
    NoDirectory,
    /// A directory on its way is a symbolic link or a file.
    Blocked,
    Holds(Image),
}

impl Now {
    pub fn image(&self) -> Option<&Image> {
        match self {
            Now::Holds(image) => Some(image),
            Now::Absent | Now::NoDirectory | Now::Blocked => None,
        }
    }

    pub fn words(&self) -> String {
        match self {
            Now::Holds(image) => image.to_string(),
            Now::Absent => "nothing".to_owned(),
            Now::NoDirectory => "nothing, its directory is gone".to_owned(),
            Now::Blocked => "out of reach: a directory on its way is a symbolic link or a file".to_owned(),
        }
    }
}

/// What is known of one path.
pub struct Case<'a> {
    pub target: &'a str,
    pub path: &'a RootPath,
    /// What the step (for redo: its undo) left.
    pub from: Option<&'a Image>,
    /// What is to be there again.
    pub to: Option<&'a Image>,
    pub now: &'a Now,
    /// The inode that the hold keeps for this path; none where it keeps nothing, or where files were copied.
    pub held: Option<u64>,
    /// True where an inode in the hold says nothing, because files were copied.
    pub copied: bool,
    pub in_doubt: bool,
}

/// What is to be done at one path.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Goes back; with `merge`, rights that others changed are carried over first.
    Act {
        merge: bool,
    },
    /// Holds already what is wanted; where somebody else did that, in words.
    Done(Option<String>),
    Conflict(Box<Conflict>),
}

/// Judges one path.
pub fn judge(case: &Case<'_>) -> Verdict {
    // While what the step left lies in the hold, the path is not the step's: it was never placed, or already went
    // back. Whatever is there now is somebody else's or the old state, and none of it is for this undo.
    if case.in_doubt && !case.copied {
        match case.from {
            Some(from) if case.held == Some(from.ino) => return Verdict::Done(None),
            // A deletion whose file is not in the hold did not happen, or already went back.
            None if case.held.is_none() => return Verdict::Done(None),
            Some(_) | None => {}
        }
    }
    match (case.from, case.to) {
        (None, Some(to)) => put(case, to),
        (Some(from), None) => take(case, from),
        (Some(from), Some(to)) => swap(case, from, to),
        (None, None) => Verdict::Done(None),
    }
}

fn put(case: &Case<'_>, to: &Image) -> Verdict {
    match case.now {
        Now::Absent => Verdict::Act { merge: false },
        Now::NoDirectory => conflict(case, ConflictKind::Missing, None),
        // A directory that was moved as one is the same only if it is that very one.
        Now::Holds(now) if to.kind == Kind::Tree && now.ino != to.ino => conflict(case, ConflictKind::Appeared, None),
        Now::Holds(now) if now.same_content(to) => Verdict::Done(others(case, "holds")),
        Now::Blocked | Now::Holds(_) => conflict(case, ConflictKind::Appeared, None),
    }
}

fn take(case: &Case<'_>, from: &Image) -> Verdict {
    match case.now {
        Now::Absent | Now::NoDirectory => Verdict::Done(others(case, "is gone, as")),
        Now::Holds(now) if now.is_dir() && from.holds_otherwise(now) => otherwise(case),
        Now::Holds(now) if now.same_content(from) => Verdict::Act { merge: false },
        Now::Blocked | Now::Holds(_) => conflict(case, ConflictKind::Changed, None),
    }
}

fn swap(case: &Case<'_>, from: &Image, to: &Image) -> Verdict {
    let now = match case.now {
        Now::Holds(now) => now,
        Now::Absent | Now::NoDirectory => return conflict(case, ConflictKind::Missing, None),
        Now::Blocked => return conflict(case, ConflictKind::Changed, None),
    };
    let (is_from, is_to) = (now.same_content(from), now.same_content(to));
    // Only mode or attributes differ between both: the inode tells them apart, else the rights.
    let is_from = match (is_from, is_to) {
        (true, true) if now.ino == from.ino && !from.is_dir() => true,
        (true, true) if now.ino == to.ino && !from.is_dir() => false,
        (true, true) => now.same_rights(from) || !now.same_rights(to),
        (is_from, _) => is_from,
    };
    if is_from {
        return match merge(from, to, now) {
            // Of a directory a crash may have left some rights changed and others not.
            Err(_) if case.in_doubt && from.is_dir() => Verdict::Act { merge: false },
            Ok(merge) => Verdict::Act { merge },
            Err(column) => conflict(case, ConflictKind::Changed, Some(column)),
        };
    }
    // The restored file itself, whatever others have written to it since.
    if is_to || (case.in_doubt && now.ino == to.ino) {
        return Verdict::Done(others(case, "holds"));
    }
    conflict(case, ConflictKind::Changed, None)
}

/// Whether rights have to be carried over, or which of them both sides changed.
fn merge(from: &Image, to: &Image, now: &Image) -> Result<bool, &'static str> {
    let columns = [
        ("mode", now.mode != from.mode, to.mode != from.mode, now.mode != to.mode),
        ("owner", now.uid != from.uid, to.uid != from.uid, now.uid != to.uid),
        ("group", now.gid != from.gid, to.gid != from.gid, now.gid != to.gid),
        ("attributes", now.xattrs != from.xattrs, to.xattrs != from.xattrs, now.xattrs != to.xattrs),
    ];
    let mut carried = false;
    for (column, theirs, ours, different) in columns {
        if theirs && ours && different {
            return Err(column);
        }
        carried |= theirs && !ours;
    }
    Ok(carried)
}

/// What differs between two images of a path, each part as a merge tells it from the others; times are nobody's.
pub fn differing(one: &Image, other: &Image) -> Vec<&'static str> {
    let parts = [
        ("content", !one.same_content(other)),
        ("mode", one.mode != other.mode),
        ("owner", one.uid != other.uid),
        ("group", one.gid != other.gid),
        ("attributes", one.xattrs != other.xattrs),
    ];
    parts.into_iter().filter(|(_, differs)| *differs).map(|(part, _)| part).collect()
}

/// In words what somebody else did already; nothing where the tool itself may have done it.
fn others(case: &Case<'_>, how: &str) -> Option<String> {
    (!case.in_doubt).then(|| format!("{} already {how} what is wanted: somebody else did that", case.path))
}

/// A directory that goes as one holds what others put there, or changed.
fn otherwise(case: &Case<'_>) -> Verdict {
    let now = format!("{}, in which something was added, changed or removed since", case.now.words());
    conflict_with(case, ConflictKind::Changed, None, now)
}

fn conflict(case: &Case<'_>, kind: ConflictKind, column: Option<&str>) -> Verdict {
    conflict_with(case, kind, column, case.now.words())
}

fn conflict_with(case: &Case<'_>, kind: ConflictKind, column: Option<&str>, now: String) -> Verdict {
    Verdict::Conflict(Box::new(Conflict {
        target: case.target.to_owned(),
        object: case.path.to_string(),
        key: None,
        column: column.map(str::to_owned),
        kind,
        before: shown(case.to),
        left: shown(case.from),
        now,
    }))
}
