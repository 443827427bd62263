//! Rows of a draft as PostgreSQL's statements write them: each value as its type's own text in quotes, which the column reads
//! back; rows pass through here one after the other.

use std::collections::BTreeSet;
use std::io;

use super::candidates::read_line;
use super::catalog::{Kind, Object};
use super::compared_rows::Pair;
use super::session::{Session, ident};
use super::table;
use crate::recorded::{Dialect, Rows, Table};

/// Types that know no equality.
const INCOMPARABLE: [&str; 9] = ["json", "xml", "point", "line", "lseg", "box", "path", "polygon", "circle"];

/// Knows which columns are compared as text.
pub(super) struct PostgresRows {
    as_text: BTreeSet<(String, String)>,
}

impl PostgresRows {
    pub fn of(pairs: &[Pair<'_>]) -> Self {
        let mut as_text = BTreeSet::new();
        for pair in pairs {
            for column in &pair.columns {
                if !column.native || INCOMPARABLE.contains(&column.kind.trim_end_matches("[]")) {
                    as_text.insert((table::quoted(&pair.table), ident(&column.name)));
                }
            }
        }
        Self { as_text }
    }
}

impl Dialect for PostgresRows {
    /// Tables may inherit from it.
    fn own_rows(&self, name: &str) -> String {
        format!("ONLY {name}")
    }

    fn same(&self, table: &Table, column: usize, value: &str) -> String {
        let name = &table.columns[column];
        match self.as_text.contains(&(table.name.clone(), name.clone())) {
            true => format!("{name}::text IS NOT DISTINCT FROM {value}::text"),
            false => format!("{name} IS NOT DISTINCT FROM {value}"),
        }
    }

    fn delete_one(&self, table: &Table, holds: &str) -> String {
        let name = &table.name;
        format!("DELETE FROM ONLY {name} WHERE ctid = (SELECT ctid FROM ONLY {name} WHERE {holds} LIMIT 1)")
    }
}

/// Which rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Gone,
    Came,
    Changed,
}

/// `olds`: the objects of before; `objects`: those of now.
pub(super) fn shape_of(pair: &Pair<'_>, olds: &[Object], objects: &[Object]) -> Table {
    let key: Vec<usize> =
        if pair.is_keyed() { pair.table.key.iter().map(|key| key.column).collect() } else { Vec::new() };
    let counts = |at: &usize| {
        let number = pair.columns[*at].number;
        objects.iter().any(|object| {
            object.kind == Kind::Column
                && object.key.is_some_and(|key| key.oid == pair.oid && key.sub == number)
                && (object.part("identity").is_some()
                    || object.part("default").is_some_and(|default| default.contains("nextval(")))
        })
    };
    let is_counted = key.iter().any(counts);
    let old = olds.iter().find(|old| old.kind == Kind::Table && old.key.is_some_and(|key| key.oid == pair.oid));
    let always = pair.table.columns.iter().any(|column| column.always);
    let was_not = |at: usize| {
        let name = &pair.columns[at].name;
        pair.copy.is_some_and(|copy| copy.columns.iter().all(|column| column.name != *name))
    };
    Table {
        shown: table::shown(&pair.table),
        name: table::quoted(&pair.table),
        columns: pair.columns.iter().map(|column| ident(&column.name)).collect(),
        key,
        is_counted,
        inserting: if always { "OVERRIDING SYSTEM VALUE" } else { "" },
        is_new: pair.copy.is_none(),
        new_columns: (0..pair.columns.len()).filter(|at| was_not(*at)).collect(),
        old_name: old.map_or_else(String::new, |old| old.id().to_owned()),
        moving: Vec::new(),
    }
}

/// A text as a literal.
pub(super) fn literal_of(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A field of COPY's text as a literal.
fn value_of(field: &[u8], kind: &str) -> String {
    if field == b"\\N" {
        return "NULL".to_owned();
    }
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'b') => 8,
                Some(b't') => b'\t',
                Some(b'n') => b'\n',
                Some(b'v') => 11,
                Some(b'f') => 12,
                Some(b'r') => b'\r',
                Some(other) => other,
                None => b'\\',
            },
            other => other,
        });
    }
    let text = String::from_utf8_lossy(&bytes);
    let is_plain = |text: &str| {
        text.bytes().next_back().is_some_and(|last| last.is_ascii_digit())
            && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'))
    };
    match kind.split('(').next().unwrap_or_default() {
        "smallint" | "integer" | "bigint" | "numeric" if is_plain(&text) => text.into_owned(),
        "boolean" => (if text == "t" { "true" } else { "false" }).to_owned(),
        _ => literal_of(&text),
    }
}

/// Writes the rows of a table that went, came or were changed.
pub(super) fn write(
    b: &mut Session,
    pair: &Pair<'_>,
    shape: &Table,
    way: Way,
    rows: &mut Rows<'_, '_, PostgresRows>,
) -> io::Result<()> {
    let Some(query) = pair.changes(way) else { return Ok(()) };
    let mut lines = b.client.copy_out(&format!("COPY ({query}) TO STDOUT")).map_err(io::Error::other)?;
    let mut line = Vec::new();
    let count = pair.columns.len();
    while read_line(&mut lines, &mut line)? {
        let fields = line.split(|byte| *byte == b'\t');
        let values: Vec<String> =
            fields.enumerate().map(|(at, field)| value_of(field, &pair.columns[at % count.max(1)].kind)).collect();
        match way {
            Way::Came => rows.insert(shape, &values)?,
            Way::Gone => rows.delete(shape, &values)?,
            Way::Changed => rows.update(shape, &values[..count], &values[count..])?,
        }
    }
    drop(lines);
    rows.pause()
}
