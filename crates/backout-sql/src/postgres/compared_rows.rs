//! The rows of a table that a command changed: what of the copy is not in the table any more, and what of the table was not
//! in the copy. Found in the server, by key where there is one; only what differs is read.
//!
//! Never changes a row.

use std::collections::BTreeMap;

use postgres::Error;

use super::candidates::read_line;
use super::capture_error::{CaptureError, reading};
use super::ddl_keep::{ColumnValues, What};
use super::draft_rows::Way;
use super::named;
use super::session::Session;
use super::snapshot::{self, Copied, Copy};
use super::stream::{Side, Span, Table, Writer};
use super::table;

/// One table as it is now, beside its copy.
pub(super) struct Pair<'a> {
    pub oid: u32,
    pub table: Table,
    pub columns: Vec<Copied>,
    /// None where the command made the table.
    pub copy: Option<&'a Copy>,
    /// What the rows of before are read from; empty where there is no copy.
    pub rows: String,
    /// What rows of before got in columns that were added since, by their numbers: SQL.
    pub added: BTreeMap<i32, String>,
}

impl<'a> Pair<'a> {
    /// `None` where the table is no more.
    pub fn of(
        b: &mut Session,
        oid: u32,
        copy: Option<&'a Copy>,
        added: BTreeMap<i32, String>,
    ) -> Result<Option<Self>, Error> {
        let table = table::read(b, oid)?;
        if table.name.is_empty() {
            return Ok(None);
        }
        let columns = snapshot::columns(b, oid)?;
        let names = named::of_table(&mut b.client, oid)?;
        let rows = copy.map(|copy| copy.table.clone()).unwrap_or_default();
        Ok(Some(Self { oid, table: Table { made: copy.is_none(), names, ..table }, columns, copy, rows, added }))
    }

    fn copied(&self, column: &Copied) -> Option<&'a Copied> {
        self.copy?.columns.iter().find(|copied| copied.number == column.number)
    }

    /// The columns of the copy that the table has no more.
    pub fn lost(&self) -> Vec<&'a Copied> {
        let is_there = |copied: &&Copied| self.columns.iter().any(|column| column.number == copied.number);
        self.copy.iter().flat_map(|copy| &copy.columns).filter(|copied| !is_there(copied)).collect()
    }

    fn rows_of_before(&self) -> &str {
        &self.rows
    }

    /// The value of before in a column of now, in the form of the copy.
    fn old(&self, column: &Copied) -> String {
        match self.copied(column) {
            Some(copied) if copied.native && column.native && copied.kind != column.kind => {
                format!("b.{}::{}", copied.copied(""), column.kind)
            }
            Some(copied) => copied.copied("b."),
            None => match (self.added.get(&column.number), column.native) {
                (Some(value), true) => format!("({value})::{}", column.kind),
                (Some(value), false) => format!("pg_catalog.format('%s', ({value})::{})", column.kind),
                (None, true) => format!("NULL::{}", column.kind),
                (None, false) => "NULL::pg_catalog.text".to_owned(),
            },
        }
    }

    /// The terms by which a row of the copy is one of the table; none without a key that both have.
    fn same_key(&self) -> Option<String> {
        let terms = self.table.key.iter().map(|key| {
            let column = self.columns.get(key.column)?;
            let old = self.copied(column).filter(|old| old.native == column.native && old.kind == column.kind)?;
            Some(format!("{} = {}", column.value("a."), old.copied("b.")))
        });
        let terms: Option<Vec<String>> = terms.collect();
        terms.filter(|terms| !terms.is_empty()).map(|terms| terms.join(" AND "))
    }

    /// Both queries: rows of before that are not so any more, and rows of now that were not so.
    fn queries(&self) -> (String, String) {
        let old: Vec<String> = self.columns.iter().map(|column| self.old(column)).collect();
        let new: Vec<String> = self.columns.iter().map(|column| column.value("a.")).collect();
        let (copy, live) = (self.rows_of_before(), table::quoted(&self.table));
        if let Some(key) = self.same_key() {
            let (old, new) = (old.join(", "), new.join(", "));
            let same = format!("{key} AND pg_catalog.record_image_eq(ROW({new}), ROW({old}))");
            return (
                format!("SELECT {old} FROM {copy} AS b WHERE NOT EXISTS (SELECT FROM ONLY {live} AS a WHERE {same})"),
                format!("SELECT {new} FROM ONLY {live} AS a WHERE NOT EXISTS (SELECT FROM {copy} AS b WHERE {same})"),
            );
        }
        // Of rows that nothing tells apart it counts how many there are.
        let names: Vec<String> = (0..self.columns.len()).map(|at| format!("v{at}")).collect();
        let beside: String = names.iter().map(|name| format!(", {name}")).collect();
        let numbered = |list: &[String], from: &str| {
            let values: String = list.iter().zip(&names).map(|(value, name)| format!(", {value} AS {name}")).collect();
            format!(
                "SELECT image, pg_catalog.row_number() OVER (PARTITION BY image) AS n{beside}
                 FROM (SELECT ROW({})::pg_catalog.text AS image{values} FROM {from}) AS r",
                list.join(", ")
            )
        };
        let (old, new) = (numbered(&old, &format!("{copy} AS b")), numbered(&new, &format!("ONLY {live} AS a")));
        let only = |one: &str, other: &str| {
            format!(
                "SELECT {} FROM ({one}) AS x WHERE NOT EXISTS (SELECT FROM ({other}) AS y WHERE y.image = x.image AND y.n = x.n)",
                names.join(", ")
            )
        };
        (only(&old, &new), only(&new, &old))
    }

    /// True where the key tells rows apart before and now.
    pub fn is_keyed(&self) -> bool {
        if self.copy.is_none() { !self.table.key.is_empty() } else { self.same_key().is_some() }
    }

    /// The query for the rows that went, came, or were changed (those of before, then those of now); `None` where there is
    /// none of that kind.
    pub fn changes(&self, way: Way) -> Option<String> {
        let live = table::quoted(&self.table);
        let new = || self.columns.iter().map(|column| column.value("a.")).collect::<Vec<_>>().join(", ");
        if self.copy.is_none() {
            let order = if self.table.key.is_empty() { String::new() } else { self.in_order("a.") };
            return (way == Way::Came).then(|| format!("SELECT {} FROM ONLY {live} AS a{order}", new()));
        }
        let Some(key) = self.same_key() else {
            let (gone, came) = self.queries();
            return match way {
                Way::Gone => Some(gone),
                Way::Came => Some(came),
                Way::Changed => None,
            };
        };
        let old = self.columns.iter().map(|column| self.old(column)).collect::<Vec<_>>().join(", ");
        let (copy, new) = (self.rows_of_before(), new());
        Some(match way {
            Way::Gone => {
                format!("SELECT {old} FROM {copy} AS b WHERE NOT EXISTS (SELECT FROM ONLY {live} AS a WHERE {key})")
            }
            Way::Came => format!(
                "SELECT {new} FROM ONLY {live} AS a WHERE NOT EXISTS (SELECT FROM {copy} AS b WHERE {key}){}",
                self.in_order("a.")
            ),
            Way::Changed => format!(
                "SELECT {old}, {new} FROM {copy} AS b JOIN ONLY {live} AS a ON {key}
                 WHERE NOT pg_catalog.record_image_eq(ROW({new}), ROW({old})){}",
                self.in_order("a.")
            ),
        })
    }

    fn in_order(&self, alias: &str) -> String {
        let names = self.table.key.iter().filter_map(|key| Some(self.columns.get(key.column)?.value(alias)));
        format!(" ORDER BY {}", names.collect::<Vec<_>>().join(", "))
    }

    /// True where a row went, came or was changed.
    pub fn has_changes(&self, b: &mut Session) -> Result<bool, Error> {
        for way in [Way::Came, Way::Gone, Way::Changed] {
            if let Some(query) = self.changes(way)
                && b.value(&format!("SELECT 1 FROM ({query} LIMIT 1) AS found"))?.is_some()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// True where the table surely holds the very rows of the copy: none is of a transaction that could have come later,
    /// and there are as many. A row that is there and is older was there then; what somebody changes is a new row.
    pub fn is_untouched(&self, b: &mut Session) -> Result<bool, Error> {
        let Some(copy) = self.copy.filter(|copy| copy.columns == self.columns) else { return Ok(false) };
        let found = b.rows(&format!(
            "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE pg_catalog.age(a.xmin) <= pg_catalog.age('{}'::xid)),
                 (SELECT m.amname = 'heap' FROM pg_catalog.pg_class c JOIN pg_catalog.pg_am m ON m.oid = c.relam WHERE c.oid = {})
             FROM ONLY {} AS a",
            copy.ended,
            self.oid,
            table::quoted(&self.table)
        ))?;
        let texts = found.first().map(|row| row.iter().map(|text| text.as_deref().unwrap_or_default()).collect());
        let texts: Vec<&str> = texts.unwrap_or_default();
        Ok(texts == [copy.rows.to_string().as_str(), "0", "t"])
    }

    /// Writes both images.
    pub fn write(&mut self, b: &mut Session, writer: &mut Writer, number: u32) -> Result<(Span, Span), CaptureError> {
        if self.copy.is_none() {
            let values: Vec<String> = self.columns.iter().map(|column| column.value("a.")).collect();
            let all = format!("SELECT {} FROM ONLY {} AS a", values.join(", "), table::quoted(&self.table));
            let after = copy_out(b, &all, writer, &mut |writer, line| writer.row(Side::After, number, line))?;
            let none = Span { start: after.end, end: after.end, records: 0 };
            return Ok((none, after));
        }
        if self.is_untouched(b).map_err(reading("which tables were written to"))? {
            let at = writer.boundary()?;
            let none = Span { start: at, end: at, records: 0 };
            return Ok((none, none));
        }
        if self.same_key().is_none() {
            self.table.key.clear();
        }
        let (before, after) = self.queries();
        let before = copy_out(b, &before, writer, &mut |writer, line| writer.row(Side::Before, number, line))?;
        let after = copy_out(b, &after, writer, &mut |writer, line| writer.row(Side::After, number, line))?;
        Ok((before, after))
    }

    /// True where the key tells the rows of before apart.
    pub fn is_key_of_old(&self, b: &mut Session) -> Result<bool, Error> {
        if self.same_key().is_none() {
            return Ok(false);
        }
        let keys = self.keys().into_iter().flatten().map(|key| key.copied(""));
        let keys: Vec<String> = keys.collect();
        let twice = format!(
            "SELECT 1 FROM {} WHERE pg_catalog.num_nulls({list}) > 0 UNION ALL
             (SELECT 1 FROM {} GROUP BY {list} HAVING pg_catalog.count(*) > 1 LIMIT 1) LIMIT 1",
            self.rows_of_before(),
            self.rows_of_before(),
            list = keys.join(", ")
        );
        Ok(b.value(&twice)?.is_none())
    }

    fn keys(&self) -> Option<Vec<&'a Copied>> {
        self.table.key.iter().map(|key| self.copied(self.columns.get(key.column)?)).collect()
    }

    /// Keeps what the columns `lost` (as the copy has them) held, by keys that the rows still have without them. `named`
    /// gives the names that columns had before, in quotes where they need them.
    pub fn keep(
        &self,
        b: &mut Session,
        writer: &mut Writer,
        lost: &[&Copied],
        named: &dyn Fn(&Copied) -> String,
    ) -> Result<(Span, What), CaptureError> {
        let keys = self.keys().unwrap_or_default();
        let list: Vec<String> = keys.iter().chain(lost).map(|column| column.copied("b.")).collect();
        let sql = format!("SELECT {} FROM {} AS b", list.join(", "), self.rows_of_before());
        let span = copy_out(b, &sql, writer, &mut |writer, line| writer.kept(line))?;
        let columns = lost.iter().map(|column| ColumnValues {
            name: named(column),
            old_type: column.kind.clone(),
            new_type: None,
        });
        let what = What::Values {
            key: keys.iter().map(|key| named(key)).collect(),
            others: Vec::new(),
            columns: columns.collect(),
            before: 0,
            after: None,
        };
        Ok((span, what))
    }
}

/// Writes what a query gives, a row a line of COPY text.
pub(super) fn copy_out(
    b: &mut Session,
    query: &str,
    writer: &mut Writer,
    each: &mut dyn FnMut(&mut Writer, &[u8]) -> std::io::Result<()>,
) -> Result<Span, CaptureError> {
    let start = writer.boundary()?;
    let mut records = 0;
    let mut lines = b.client.copy_out(&format!("COPY ({query}) TO STDOUT")).map_err(reading("what rows differ"))?;
    let mut line = Vec::new();
    while read_line(&mut lines, &mut line)? {
        each(writer, &line)?;
        records += 1;
    }
    drop(lines);
    Ok(Span { start, end: writer.boundary()?, records })
}
