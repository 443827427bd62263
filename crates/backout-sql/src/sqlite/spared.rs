//! Rows that an undo leaves as they are, since a row would point at nothing otherwise: the parent that a row of others
//! points at, or else the row itself. Only where others' changes are to be kept. Reads only.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::guard::Change;
use super::stream::{Dangling, Table};
use super::token::quote;

/// So many keys are spared at most, so that memory stays bounded; the rest are told and point at nothing.
pub const SPARED_AT_MOST: usize = 20_000;

/// What a row pointed at in vain after an attempt. Names of tables are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spare {
    child: String,
    from: Vec<String>,
    parent: String,
    to: Vec<String>,
    key: String,
}

/// Of each table, by the columns of a key: the values of it that are to stay as they are.
type Keys = HashMap<String, Vec<(Vec<String>, HashSet<String>)>>;

/// What is spared so far.
#[derive(Clone, Debug, Default)]
pub struct Spared {
    /// What is pointed at, and must not go.
    parents: Keys,
    /// What would point at nothing, and must not come.
    children: Keys,
    count: usize,
}

impl Spare {
    /// Reads what a dangling row points at; of rows without a rowid all that its table points at in vain.
    pub fn of(conn: &Connection, one: &Dangling) -> rusqlite::Result<Vec<Self>> {
        let (mut from, mut to) = (Vec::new(), Vec::new());
        {
            let mut select = conn.prepare_cached(
                "SELECT \"from\", \"to\" FROM pragma_foreign_key_list(?1, 'main') WHERE id = ?2 ORDER BY seq",
            )?;
            let mut rows = select.query((&one.table, one.key))?;
            while let Some(row) = rows.next()? {
                from.push(row.get::<_, String>(0)?);
                to.extend(row.get::<_, Option<String>>(1)?);
            }
        }
        if to.len() < from.len() {
            to = conn
                .prepare_cached("SELECT name FROM pragma_table_info(?1, 'main') WHERE pk > 0 ORDER BY pk")?
                .query_map([&one.parent], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
        }
        if from.is_empty() || from.len() != to.len() {
            return Ok(Vec::new());
        }
        let columns: Vec<String> = from.iter().map(|name| format!("c.{}", quote(name))).collect();
        let child = quote(&one.table);
        let sql = match one.rowid {
            Some(rowid) => format!("SELECT {} FROM main.{child} AS c WHERE rowid = {rowid}", columns.join(", ")),
            None => {
                let meets: Vec<String> =
                    to.iter().zip(&columns).map(|(to, from)| format!("p.{} = {from}", quote(to))).collect();
                let full: Vec<String> = columns.iter().map(|column| format!("{column} IS NOT NULL")).collect();
                format!(
                    "SELECT DISTINCT {} FROM main.{child} AS c WHERE {} AND NOT EXISTS
                     (SELECT 1 FROM main.{} AS p WHERE {}) LIMIT {SPARED_AT_MOST}",
                    columns.join(", "),
                    full.join(" AND "),
                    quote(&one.parent),
                    meets.join(" AND ")
                )
            }
        };
        let mut select = conn.prepare_cached(&sql)?;
        let keys = select.query_map([], |row| {
            let values: Vec<ValueRef<'_>> = (0..columns.len()).map(|at| row.get_ref(at)).collect::<Result<_, _>>()?;
            Ok(key_of(values.into_iter()))
        })?;
        let spare = |key| Self {
            child: one.table.to_ascii_lowercase(),
            from: from.clone(),
            parent: one.parent.to_ascii_lowercase(),
            to: to.clone(),
            key,
        };
        keys.map(|key| key.map(spare)).collect()
    }
}

/// Values as a foreign key may take them for equal: rather too many than not enough.
fn key_of<'v>(values: impl Iterator<Item = ValueRef<'v>>) -> String {
    let one = |value| match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).to_lowercase(),
    };
    values.map(one).collect::<Vec<_>>().join("\0")
}

/// Notes a key; whether it is new.
fn note(keys: &mut Keys, table: &str, columns: &[String], key: &str) -> bool {
    let of_table = keys.entry(table.to_owned()).or_default();
    let at = of_table.iter().position(|(known, _)| known == columns).unwrap_or_else(|| {
        of_table.push((columns.to_vec(), HashSet::new()));
        of_table.len() - 1
    });
    of_table[at].1.insert(key.to_owned())
}

impl Spared {
    /// Learns from what still dangles: first what it points at is spared, and where that does not help, it itself does
    /// not come. True where there was something to learn.
    pub fn learn(&mut self, found: &[Spare]) -> bool {
        let before = self.count;
        let room = SPARED_AT_MOST - before.min(SPARED_AT_MOST);
        let tried = self.parents.clone();
        let is_tried = |one: &Spare| {
            tried
                .get(&one.parent)
                .is_some_and(|keys| keys.iter().any(|(to, keys)| *to == one.to && keys.contains(&one.key)))
        };
        for one in found.iter().take(room) {
            let is_new = if is_tried(one) {
                note(&mut self.children, &one.child, &one.from, &one.key)
            } else {
                note(&mut self.parents, &one.parent, &one.to, &one.key)
            };
            self.count += usize::from(is_new);
        }
        self.count > before
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether a change of a row is not to be made. `name`: how people know its table.
    pub fn keeps(&self, table: &Table, name: &str, change: &Change<'_>) -> bool {
        [table.name.to_ascii_lowercase(), name.to_ascii_lowercase()].iter().any(|name| {
            let has = |keys: &Keys, from: Option<&[ValueRef<'_>]>, to: Option<&[ValueRef<'_>]>| {
                keys.get(name).is_some_and(|keys| keys.iter().any(|one| leaves(table, one, from, to)))
            };
            has(&self.parents, change.expect, change.want) || has(&self.children, change.want, change.expect)
        })
    }
}

/// Whether `from` has one of the keys, and `to` has not.
fn leaves(
    table: &Table,
    (columns, keys): &(Vec<String>, HashSet<String>),
    from: Option<&[ValueRef<'_>]>,
    to: Option<&[ValueRef<'_>]>,
) -> bool {
    let Some(from) = from else { return false };
    let at = |name: &String| table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
    let Some(places) = columns.iter().map(at).collect::<Option<Vec<_>>>() else { return false };
    let key = |values: &[ValueRef<'_>]| key_of(places.iter().filter_map(|at| values.get(*at).copied()));
    let here = key(from);
    keys.contains(&here) && to.is_none_or(|to| key(to) != here)
}
