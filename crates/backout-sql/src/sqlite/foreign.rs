//! Foreign keys after an undo or redo, during which SQLite itself did not enforce them. Never changes a row.
//!
//! First a tally of the keys that came to be needed and of those that went, looked up one by one: its cost is that of
//! the rows that were changed. Only where it finds something, whole tables are compared with what was before.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use backout_model::conflict::{Conflict, ConflictKind, Conflicts};
use backout_model::target::TargetError;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, params};

use super::capture::read_table;
use super::guard::Change;
use super::spared::{SPARED_AT_MOST, Spare};
use super::stream::{Affinity, Dangling, Table};
use super::token::quote;

/// How many keys are kept for looking up; where there are more, whole tables are checked.
const KEYS_KEPT: usize = 20_000;
/// How many dangling rows a step's images keep.
const DANGLING_KEPT: usize = 2_000;
/// How long a step may look for them.
const LOOK_FOR: Duration = Duration::from_millis(250);

fn failed(label: &str, source: rusqlite::Error) -> TargetError {
    TargetError::failed(format!("cannot check the foreign keys of {label}"), source)
}

/// One foreign key of the schema.
struct Link {
    child: String,
    column: String,
    parent: String,
    /// Of one column that refers to an INTEGER PRIMARY KEY: the others are checked as a whole.
    simple: bool,
    needed: HashSet<i64>,
    gone: HashSet<i64>,
    /// Something happened to its tables that the tally does not follow.
    whole: bool,
}

/// What a row of a table means to a link.
#[derive(Clone, Copy)]
enum Part {
    /// The index of the column that refers.
    Child(usize),
    Parent,
}

/// Keys that came to be needed, and keys that went, while rows were replayed.
#[derive(Default)]
pub struct Tally {
    links: Vec<Link>,
    /// For each table of the step: which links its rows are part of.
    parts: Vec<Vec<(usize, Part)>>,
}

impl Tally {
    /// For a step that changed rows of `tables`. `whole`: the step changes the schema, too, and with it the meaning of
    /// names, so that only whole tables can be checked.
    pub fn new(conn: &Connection, label: &str, tables: &[Table], whole: bool) -> Result<Self, TargetError> {
        let mut tally = Self { links: Vec::new(), parts: vec![Vec::new(); tables.len()] };
        if tables.is_empty() {
            return Ok(tally);
        }
        tally.read_links(conn, tables).map_err(|source| failed(label, source))?;
        for (at, link) in tally.links.iter_mut().enumerate() {
            link.whole |= whole || !link.simple;
            for (parts, table) in tally.parts.iter_mut().zip(tables) {
                if table.name.eq_ignore_ascii_case(&link.child) {
                    let column = table.columns.iter().position(|one| one.name.eq_ignore_ascii_case(&link.column));
                    // A child's column that takes values as they come may hold '5' for 5.
                    match column.filter(|column| table.columns[*column].affinity != Affinity::Blob) {
                        Some(column) => parts.push((at, Part::Child(column))),
                        None => link.whole = true,
                    }
                }
                if table.name.eq_ignore_ascii_case(&link.parent) {
                    parts.push((at, Part::Parent));
                }
            }
        }
        Ok(tally)
    }

    fn read_links(&mut self, conn: &Connection, tables: &[Table]) -> rusqlite::Result<()> {
        let mut statement = conn.prepare(
            "SELECT m.name, f.seq, f.\"table\", f.\"from\", f.\"to\"
             FROM main.sqlite_schema AS m, pragma_foreign_key_list(m.name) AS f
             WHERE m.type = 'table' AND m.rootpage > 0 ORDER BY m.name, f.id, f.seq",
        )?;
        let mut rows = statement.query([])?;
        let touched = |name: &str| tables.iter().any(|table| table.name.eq_ignore_ascii_case(name));
        while let Some(row) = rows.next()? {
            let (child, parent): (String, String) = (row.get(0)?, row.get(2)?);
            if !touched(&child) && !touched(&parent) {
                continue;
            }
            if row.get::<_, i64>(1)? > 0 {
                // A second column of the same key.
                if let Some(link) = self.links.last_mut() {
                    link.simple = false;
                }
                continue;
            }
            let to: Option<String> = row.get(4)?;
            let simple = read_table(conn, &parent).is_ok_and(|(table, _)| {
                table
                    .rowid_column
                    .is_some_and(|at| to.is_none_or(|to| table.columns[at].name.eq_ignore_ascii_case(&to)))
            });
            self.links.push(Link {
                child,
                column: row.get(3)?,
                parent,
                simple,
                needed: HashSet::new(),
                gone: HashSet::new(),
                whole: false,
            });
        }
        Ok(())
    }

    /// Notes what the change of one row asks for.
    #[inline]
    pub fn row(&mut self, number: u32, change: &Change<'_>) {
        let Some(parts) = self.parts.get(number as usize).filter(|parts| !parts.is_empty()) else { return };
        for (at, part) in parts {
            let Some(link) = self.links.get_mut(*at).filter(|link| !link.whole) else { continue };
            match (part, change.want) {
                (Part::Child(column), Some(want)) => {
                    if change.expect.is_none() || change.changed.contains(column) {
                        match want.get(*column) {
                            Some(ValueRef::Null) => {}
                            Some(ValueRef::Integer(key)) => {
                                link.needed.insert(*key);
                            }
                            _ => link.whole = true,
                        }
                    }
                }
                (Part::Parent, want) => {
                    if change.expect.is_some() && (want.is_none() || change.rowid != change.new_rowid) {
                        link.gone.insert(change.rowid);
                    }
                }
                (Part::Child(_), None) => {}
            }
            if link.needed.len() + link.gone.len() > KEYS_KEPT {
                link.whole = true;
            }
        }
    }

    /// Whether some row may point at nothing now.
    pub fn suspects(&self, conn: &Connection, label: &str) -> Result<bool, TargetError> {
        for link in &self.links {
            if link.suspect(conn).map_err(|source| failed(label, source))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The tables whose rows may point at nothing, each once.
    fn children(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.links.iter().map(|link| link.child.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Link {
    fn suspect(&self, conn: &Connection) -> rusqlite::Result<bool> {
        if self.whole {
            if !is_table(conn, &self.child)? {
                return Ok(false);
            }
            return match conn.prepare(&check(&self.child)) {
                Err(error) if is_mismatch(&error) => Ok(false),
                prepared => prepared?.exists([]),
            };
        }
        if self.needed.is_empty() && self.gone.is_empty() {
            return Ok(false);
        }
        let mut there = conn.prepare(&format!("SELECT 1 FROM main.{} WHERE rowid = ?1", quote(&self.parent)))?;
        for key in &self.needed {
            if !there.exists([key])? {
                return Ok(true);
            }
        }
        let mut gone: Vec<String> = Vec::new();
        for key in &self.gone {
            if !there.exists([key])? {
                // A column that takes values as they come may hold '5' for 5.
                gone.push(format!("{key}, '{key}'"));
            }
        }
        const AT_ONCE: usize = 5_000;
        for keys in gone.chunks(AT_ONCE) {
            let (child, column) = (quote(&self.child), quote(&self.column));
            let sql = format!("SELECT 1 FROM main.{child} WHERE {column} IN ({}) LIMIT 1", keys.join(","));
            if conn.prepare(&sql)?.exists([])? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// False for a table that went, or has not come yet.
fn is_table(conn: &Connection, name: &str) -> rusqlite::Result<bool> {
    conn.prepare("SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE")?.exists([name])
}

fn check(child: &str) -> String {
    format!("PRAGMA main.foreign_key_check({})", quote(child))
}

fn each(
    conn: &Connection,
    child: &str,
    found: &mut dyn FnMut(Dangling) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    if !is_table(conn, child)? {
        return Ok(());
    }
    let mut statement = match conn.prepare(&check(child)) {
        Err(error) if is_mismatch(&error) => return Ok(()),
        prepared => prepared?,
    };
    let columns: HashMap<i64, String> = conn
        .prepare("SELECT id, group_concat(\"from\", ', ') FROM pragma_foreign_key_list(?1, 'main') GROUP BY id")?
        .query_map([child], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = row.get(3)?;
        let columns = columns.get(&key).cloned();
        found(Dangling { table: row.get(0)?, rowid: row.get(1)?, parent: row.get(2)?, key, columns })?;
    }
    Ok(())
}

/// A key that refers to what is no key of its parent: SQLite itself can't check or enforce it.
fn is_mismatch(error: &rusqlite::Error) -> bool {
    error.to_string().contains("foreign key mismatch")
}

/// Remembers, in a temporary table, which rows point at nothing before anything is changed, and which did before the
/// step: those are nobody's conflict.
pub fn remember(conn: &Connection, label: &str, tally: &Tally, before: &[Dangling]) -> Result<(), TargetError> {
    let remember = || -> rusqlite::Result<()> {
        conn.execute_batch(
            "CREATE TEMP TABLE IF NOT EXISTS backout_dangling (name TEXT, place INTEGER, parent TEXT, number INTEGER, columns TEXT);
             CREATE INDEX IF NOT EXISTS temp.backout_dangling_by ON backout_dangling (name, place);
             DELETE FROM temp.backout_dangling;",
        )?;
        let mut insert = conn.prepare("INSERT INTO temp.backout_dangling VALUES (?1, ?2, ?3, ?4, ?5)")?;
        let mut keep =
            |one: &Dangling| insert.execute(params![one.table, one.rowid, one.parent, one.key, one.columns]).map(drop);
        before.iter().try_for_each(&mut keep)?;
        tally.children().into_iter().try_for_each(|child| each(conn, child, &mut |one| keep(&one)))
    };
    remember().map_err(|source| failed(label, source))
}

/// The rows that point at nothing now and did not when [`remember`] looked: as conflicts, and so many of them as rows.
pub fn compare(conn: &Connection, label: &str, tally: &Tally) -> Result<(Conflicts, Vec<Spare>), TargetError> {
    let (mut conflicts, mut rows) = (Conflicts::default(), Vec::new());
    let mut compare = || -> rusqlite::Result<()> {
        let mut known = conn.prepare(
            "SELECT 1 FROM temp.backout_dangling WHERE name = ?1 AND place IS ?2 AND parent = ?3 AND (number = ?4 OR columns = ?5)",
        )?;
        tally.children().into_iter().try_for_each(|child| {
            each(conn, child, &mut |one| {
                if known.exists(params![one.table, one.rowid, one.parent, one.key, one.columns])? {
                    return Ok(());
                }
                if rows.len() < SPARED_AT_MOST {
                    rows.extend(Spare::of(conn, &one)?);
                }
                conflicts.push(Conflict {
                    target: label.to_owned(),
                    object: one.table,
                    key: one.rowid.map(|rowid| format!("rowid={rowid}")),
                    column: None,
                    kind: ConflictKind::ForeignKey,
                    before: String::new(),
                    left: String::new(),
                    now: format!("no such row in {}", one.parent),
                });
                Ok(())
            })
        })
    };
    compare().map_err(|source| failed(label, source))?;
    Ok((conflicts, rows))
}

/// Which rows of `tables` pointed at nothing before the open transaction began: another connection still sees that.
/// An undo that brings them back brings nothing wrong. Bounded in time and number: where it can't be known (a cache
/// that spilled has locked the file), it is taken for none.
pub fn before_step(conn: &Connection, path: &Path, tables: &[&str]) -> Vec<Dangling> {
    look_before(conn, path, tables).unwrap_or_default()
}

fn look_before(conn: &Connection, path: &Path, tables: &[&str]) -> rusqlite::Result<Vec<Dangling>> {
    let mut referring = conn.prepare("SELECT 1 FROM pragma_foreign_key_list(?1)")?;
    let mut children = Vec::new();
    for table in tables {
        // One that the step dropped or renamed can only be asked for where it still is.
        if referring.exists([table])? || !is_table(conn, table)? {
            children.push(*table);
        }
    }
    let mut found = Vec::new();
    if children.is_empty() {
        return Ok(found);
    }
    let mut other =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    other.busy_timeout(Duration::ZERO)?;
    let end = Instant::now() + LOOK_FOR;
    other.progress_handler(10_000, Some(move || Instant::now() > end))?;
    for child in children {
        let looked = each(&other, child, &mut |one| {
            if found.len() < DANGLING_KEPT {
                found.push(one);
            }
            Ok(())
        });
        if looked.is_err() {
            // What was found until then is true all the same.
            break;
        }
    }
    Ok(found)
}
