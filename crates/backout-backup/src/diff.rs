//! In what two sites differ: definitions, how many rows a table has and whether they are the same, files and their rights.
//!
//! Reads both, a line or an entry at a time; times are not compared, for they say when a copy was made.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backout_model::backup::BackupError;
use rustic_core::repofile::Node;

use crate::dump::DatabaseSource;
use crate::keeper::{RootSource, databases_in};
use crate::ledger::Ledger;
use crate::node::{permissions, xattrs};
use crate::walk::{Entry, Unopened, Walk};

/// On which side something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    One,
    Other,
    /// On both, and not the same.
    Both,
}

/// One thing in which the two differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlike {
    pub side: Side,
    /// A path, a definition, the rows of a table.
    pub what: String,
    /// In what, where it is on both sides.
    pub how: String,
}

/// What a print says of the rows of one thing: how many there are, and a digest.
const ROWS: &[u8] = b": ";

/// Calls `each` for what two databases of one engine do not have in common. `private`: a directory of this process alone.
pub fn databases(
    one: &DatabaseSource,
    other: &DatabaseSource,
    private: &Path,
    each: &mut dyn FnMut(Unlike),
) -> Result<(), BackupError> {
    let (mine, its) = (private.join("one"), private.join("other"));
    one.print(&mine, private)?;
    other.print(&its, private)?;
    let failed = |error| BackupError::failed("cannot read what a database says", error);
    let mut lines: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    for (file, by) in [(&mine, 1), (&its, -1)] {
        for line in BufReader::new(File::open(file).map_err(failed)?).split(b'\n') {
            let line = line.map_err(failed)?;
            let count = lines.entry(line).or_default();
            *count += by;
        }
        lines.retain(|_, count| *count != 0);
    }
    tell(&lines, each);
    Ok(())
}

fn tell(lines: &BTreeMap<Vec<u8>, i64>, each: &mut dyn FnMut(Unlike)) {
    let mut rows: BTreeMap<&[u8], [Option<&[u8]>; 2]> = BTreeMap::new();
    for (line, count) in lines {
        let at = usize::from(*count < 0);
        match counted(line) {
            Some((of, number)) => rows.entry(of).or_default()[at] = Some(number),
            None => {
                let side = if at == 0 { Side::One } else { Side::Other };
                let what = shown(line);
                if !what.is_empty() {
                    each(Unlike { side, what, how: String::new() });
                }
            }
        }
    }
    for (of, numbers) in rows {
        let number = |at: usize| numbers[at].map_or_else(|| "none".to_owned(), shown);
        let how = if numbers[0] == numbers[1] {
            format!("{} on both sides, but not the same", number(0))
        } else {
            format!("{} in the first, {} in the second", number(0), number(1))
        };
        each(Unlike { side: Side::Both, what: shown(of), how });
    }
}

/// `the rows of "product": 12, DIGEST` as what it is of and how many.
fn counted(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.windows(ROWS.len()).rposition(|part| part == ROWS)?;
    let (of, rest) = (&line[..at], &line[at + ROWS.len()..]);
    let comma = rest.windows(2).position(|part| part == b", ")?;
    let (number, digest) = (&rest[..comma], &rest[comma + 2..]);
    let is_one = !number.is_empty()
        && number.iter().all(u8::is_ascii_digit)
        && digest.len() == 64
        && digest.iter().all(u8::is_ascii_hexdigit);
    is_one.then_some((of, number))
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim().to_owned()
}

/// Calls `each` for what two roots do not have in common; the files of `databases` are none of a root.
pub fn roots(
    (one, databases): (&RootSource, &[DatabaseSource]),
    (other, its_databases): (&RootSource, &[DatabaseSource]),
    each: &mut dyn FnMut(Unlike),
) -> Result<(), BackupError> {
    let ledger = Ledger::new(None);
    let walk = |root: &RootSource, databases: &[DatabaseSource]| {
        Walk::new(&root.name, &root.path, databases_in(&root.path, databases), Arc::clone(&ledger)).peekable()
    };
    let (mut mine, mut its) = (walk(one, databases), walk(other, its_databases));
    let failed = |error| BackupError::failed(format!("cannot read the root {}", one.name), error);
    loop {
        let order = match (mine.peek(), its.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(mine), Some(its)) => mine.path.components().cmp(its.path.components()),
        };
        let alone = |side, entry: Option<Entry>| {
            entry.map(|entry| Unlike { side, what: path_of(&entry.path), how: String::new() })
        };
        let found = match order {
            Ordering::Less => alone(Side::One, mine.next()),
            Ordering::Greater => alone(Side::Other, its.next()),
            Ordering::Equal => match (mine.next(), its.next()) {
                (Some(mine), Some(its)) => both(mine, its).map_err(failed)?,
                _ => None,
            },
        };
        found.into_iter().for_each(&mut *each);
    }
    match ledger.failures().into_iter().next() {
        Some(failure) => Err(failed(io::Error::other(failure))),
        None => Ok(()),
    }
}

fn path_of(path: &Path) -> String {
    if path == PathBuf::new() { ".".to_owned() } else { path.display().to_string() }
}

fn both(mine: Entry, its: Entry) -> io::Result<Option<Unlike>> {
    let what = path_of(&mine.path);
    let mut how = Vec::new();
    let kind = |node: &Node| std::mem::discriminant(&node.node_type);
    if kind(&mine.node) != kind(&its.node) {
        how.push("kind");
    } else if mine.node.node_type != its.node.node_type {
        how.push("target");
    } else if let (Some(one), Some(other)) = (mine.file, its.file)
        && (mine.node.meta.size != its.node.meta.size || !is_same_content(one, other)?)
    {
        how.push("content");
    }
    let mode = |node: &Node| node.meta.mode.map(permissions);
    if !mine.node.is_symlink() && mode(&mine.node) != mode(&its.node) {
        how.push("mode");
    }
    if (mine.node.meta.uid, mine.node.meta.gid) != (its.node.meta.uid, its.node.meta.gid) {
        how.push("owner");
    }
    if xattrs(&mine.node) != xattrs(&its.node) {
        how.push("attributes");
    }
    Ok((!how.is_empty()).then(|| Unlike { side: Side::Both, what, how: how.join(", ") }))
}

fn is_same_content(one: Unopened, other: Unopened) -> io::Result<bool> {
    let (mut one, mut other) = (one.open()?, other.open()?);
    let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let (got, its) = (fill(&mut one, &mut a)?, fill(&mut other, &mut b)?);
        if a[..got] != b[..its] {
            return Ok(false);
        }
        if got == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_rows_is_told_from_others() {
        let digest = "0123456789abcdef".repeat(4);
        let line = format!("the rows of \"a: b\": 12, {digest}");
        assert_eq!(counted(line.as_bytes()), Some((&b"the rows of \"a: b\""[..], &b"12"[..])));
        for other in ["CREATE TABLE a (b: 12, c)", "user_version 3", "the counter of \"a\": 4", ""] {
            assert_eq!(counted(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn lines_of_one_side_and_rows_of_both() {
        let digest = |byte: char| byte.to_string().repeat(64);
        let mut lines = BTreeMap::new();
        lines.insert(b"CREATE INDEX a".to_vec(), 1);
        lines.insert(b"CREATE INDEX b".to_vec(), -1);
        lines.insert(format!("t: 3, {}", digest('a')).into_bytes(), 1);
        lines.insert(format!("t: 3, {}", digest('b')).into_bytes(), -1);
        lines.insert(format!("u: 3, {}", digest('a')).into_bytes(), 1);
        let mut told = Vec::new();
        tell(&lines, &mut |unlike| told.push((unlike.side, unlike.what, unlike.how)));
        let text = |text: &str| text.to_owned();
        assert_eq!(
            told,
            [
                (Side::One, text("CREATE INDEX a"), text("")),
                (Side::Other, text("CREATE INDEX b"), text("")),
                (Side::Both, text("t"), text("3 on both sides, but not the same")),
                (Side::Both, text("u"), text("3 in the first, none in the second")),
            ]
        );
    }
}
