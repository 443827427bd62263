//! Rows of a draft as MariaDB's statements write them: the server itself writes each value as a literal, and they pass through
//! here one after the other.

use std::collections::BTreeSet;

use mysql::prelude::Queryable as _;

use super::compared_schema::OneTable;
use super::ddl_shape::Shape;
use super::draft::DraftError;
use super::session::{Session, ident};
use super::table::{self, Compared, Side};
use crate::recorded::{Dialect, ROWS_CHECKED, Rows, Table};

const X: Side<'static> = Side::Live("x");
const F: Side<'static> = Side::Live("f");

/// Knows which columns are points in time, which a session shows by its own clock.
pub(super) struct MariaRows {
    stamps: BTreeSet<(String, String)>,
}

impl MariaRows {
    pub fn of<'t>(tables: impl Iterator<Item = &'t table::Table>) -> Self {
        let stamps = tables.flat_map(|table| {
            let stamps = table.columns.iter().filter(|column| column.kind.to_lowercase().starts_with("timestamp"));
            stamps.map(|column| (ident(&table.name), ident(&column.name)))
        });
        Self { stamps: stamps.collect() }
    }
}

impl Dialect for MariaRows {
    /// Texts byte by byte, whatever the collation.
    fn same(&self, table: &Table, column: usize, value: &str) -> String {
        let name = &table.columns[column];
        let is_stamp = || self.stamps.contains(&(table.name.clone(), name.clone()));
        match value.as_bytes().first() {
            Some(b'\'') if value.starts_with("'0000-00-00") && is_stamp() => format!("UNIX_TIMESTAMP({name}) <=> 0"),
            Some(b'\'') if is_stamp() => {
                format!("UNIX_TIMESTAMP({name}) <=> TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {value}) / 1000000")
            }
            Some(b'\'') => {
                format!("CONVERT({name} USING utf8mb4) COLLATE utf8mb4_bin <=> CONVERT({value} USING utf8mb4)")
            }
            // Bits are a number in a column, and bytes in a literal.
            Some(b'b') => format!("{name} + 0 <=> {value} + 0"),
            _ => format!("{name} <=> {value}"),
        }
    }

    fn delete_one(&self, table: &Table, holds: &str) -> String {
        format!("DELETE FROM {} WHERE {holds} LIMIT 1", table.name)
    }
}

/// Which rows of two tables with the same columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Gone,
    Came,
    Changed,
}

/// `old`: the table as it was; none where it is new.
pub(super) fn shape_of(table: &table::Table, definition: &str, old: Option<&table::Table>) -> Table {
    let shape = Shape::of(definition);
    let counts =
        |at: &usize| shape.column(&table.columns[*at].name).is_some_and(|rest| rest.contains("AUTO_INCREMENT"));
    let moves = |at: &usize| shape.column(&table.columns[*at].name).is_some_and(|rest| rest.contains("ON UPDATE"));
    let was_not =
        |at: usize| old.is_some_and(|old| old.columns.iter().all(|column| column.name != table.columns[at].name));
    Table {
        shown: table.name.clone(),
        name: ident(&table.name),
        columns: table.columns.iter().map(|column| ident(&column.name)).collect(),
        key: table.key.clone(),
        is_counted: table.key.iter().any(counts),
        inserting: "",
        is_new: old.is_none(),
        old_name: String::new(),
        moving: (0..table.columns.len()).filter(moves).collect(),
        new_columns: (0..table.columns.len()).filter(|at| was_not(*at)).collect(),
    }
}

/// The value of a column as a literal.
fn written(table: &table::Table, at: usize, side: Side<'_>) -> String {
    let value = side.column(table, at);
    let column = &table.columns[at];
    let kind = column.kind.to_lowercase();
    let is_number = ["tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "year"]
        .iter()
        .any(|start| kind.starts_with(start));
    let text = if column.binary {
        format!("CONCAT('x''', HEX({value}), '''')")
    } else if kind.starts_with("bit") {
        format!("CONCAT('b''', BIN({value} + 0), '''')")
    } else {
        match column.compared {
            Compared::Bytes | Compared::Number => format!("QUOTE(CONVERT({value} USING utf8mb4))"),
            // With an exponent a literal is a double, and a zero keeps its sign.
            Compared::Float => {
                let number = format!("CONCAT(CAST({value} AS DOUBLE))");
                format!("IF(INSTR({number}, 'e'), {number}, CONCAT({number}, 'e0'))")
            }
            Compared::Plain if is_number => format!("CONCAT({value})"),
            Compared::Plain => format!("QUOTE(CONCAT({value}))"),
        }
    };
    format!("IF({value} IS NULL, 'NULL', {text})")
}

fn all_written(table: &table::Table, side: Side<'_>) -> String {
    (0..table.columns.len()).map(|at| written(table, at, side)).collect::<Vec<_>>().join(", ")
}

/// Writes what must hold of the rows of a table that goes.
pub(super) fn doomed(a: &mut Session, old: &OneTable, rows: &mut Rows<'_, '_, MariaRows>) -> Result<(), DraftError> {
    let (table, copy) = (&old.table, ident(&old.copy));
    let count = a.number(&format!("SELECT COUNT(*) FROM {copy}"))?;
    rows.table_goes(&table.name, &ident(&table.name), count);
    if table.key.is_empty() {
        return Ok(());
    }
    let shape = shape_of(table, &old.definition, Some(table));
    let sql = format!("SELECT {} FROM {copy} AS f LIMIT {}", all_written(table, F), ROWS_CHECKED + 1);
    for row in a.conn.query_iter(&sql)? {
        rows.doomed(&shape, &values_of(row?))?;
    }
    Ok(())
}

fn values_of(row: mysql::Row) -> Vec<String> {
    let text = |value| match value {
        mysql::Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        other => other.as_sql(false),
    };
    row.unwrap().into_iter().map(text).collect()
}

/// Writes the rows of `table` that went, came or were changed since `old`; without one all are new.
pub(super) fn write(
    a: &mut Session,
    table: &table::Table,
    shape: &Table,
    old: Option<&str>,
    way: Way,
    rows: &mut Rows<'_, '_, MariaRows>,
) -> Result<(), DraftError> {
    let live = ident(&table.name);
    let order = |alias: Side<'_>| {
        let keys: Vec<String> = table.key.iter().map(|at| alias.column(table, *at)).collect();
        format!("ORDER BY {}", keys.join(", "))
    };
    let key = |side: Side<'_>| side.column(table, table.key[0]);
    let sql = match (way, old.map(ident)) {
        (Way::Came, None) => format!("SELECT {} FROM {live} AS x {}", all_written(table, X), order(X)),
        (Way::Gone | Way::Changed, None) => return Ok(()),
        (Way::Came, Some(old)) => format!(
            "SELECT {} FROM {live} AS x LEFT JOIN {old} AS f ON {} WHERE {} IS NULL {}",
            all_written(table, X),
            table.keyed(X, F),
            key(F),
            order(X)
        ),
        (Way::Gone, Some(old)) => format!(
            "SELECT {} FROM {old} AS f LEFT JOIN {live} AS x ON {} WHERE {} IS NULL {}",
            all_written(table, F),
            table.keyed(X, F),
            key(X),
            order(F)
        ),
        (Way::Changed, Some(old)) => format!(
            "SELECT {}, {} FROM {old} AS f JOIN {live} AS x ON {} WHERE NOT ({}) {}",
            all_written(table, F),
            all_written(table, X),
            table.keyed(X, F),
            table.all_same(X, F),
            order(X)
        ),
    };
    let count = table.columns.len();
    for row in a.conn.query_iter(&sql)? {
        let values = values_of(row?);
        match way {
            Way::Came => rows.insert(shape, &values)?,
            Way::Gone => rows.delete(shape, &values)?,
            Way::Changed => rows.update(shape, &values[..count], &values[count..])?,
        }
    }
    rows.pause()?;
    Ok(())
}
