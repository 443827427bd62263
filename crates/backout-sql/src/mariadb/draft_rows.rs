//! Rows of a draft as MariaDB's statements write them: the server itself writes each value as a literal, and they pass through
//! here one after the other.

use std::collections::BTreeSet;

use mysql::prelude::Queryable as _;

use super::compared_schema::OneTable;
use super::ddl_shape::Shape;
use super::draft::DraftError;
use super::session::{Session, ident};
use super::table::{self, Compared, Side};
use crate::recorded::{Dialect, LONGEST_CHECKED, ROWS_CHECKED, Rows, Table};

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
    literal(table, at, &side.column(table, at))
}

/// What `value` gives for a column, as a literal; NULL where that is longer than the server makes a value.
fn literal(table: &table::Table, at: usize, value: &str) -> String {
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

/// The columns of a row that changes or goes. Of a long value only the beginning: no statement or condition says more of it.
/// Where the row changes, `new` has it afterwards, and what is behind the beginning says whether the value stays.
fn written_before(table: &table::Table, old: Side<'_>, new: Option<Side<'_>>) -> Vec<String> {
    let of = |at: usize| match (short(table, at, old), new) {
        (None, _) => written(table, at, old),
        (Some((is_long, short)), None) => format!("IF({is_long}, {short}, {})", written(table, at, old)),
        (Some((is_long, short)), Some(new)) => format!(
            "IF({is_long}, CONCAT({short}, IF({}, '=', '-')), {})",
            table.same(at, old, new),
            written(table, at, old)
        ),
    };
    (0..table.columns.len()).map(of).collect()
}

/// The same of a row that was changed: whole values where they are not what they were.
fn written_after(table: &table::Table, old: Side<'_>, new: Side<'_>) -> Vec<String> {
    let of = |at: usize| match short(table, at, old) {
        None => written(table, at, new),
        Some((is_long, short)) => {
            format!("IF({is_long} AND {}, CONCAT({short}, '='), {})", table.same(at, old, new), written(table, at, new))
        }
    };
    (0..table.columns.len()).map(of).collect()
}

/// Whether a value is long, and how it begins; none of a key, and of what is never long.
fn short(table: &table::Table, at: usize, side: Side<'_>) -> Option<(String, String)> {
    let column = &table.columns[at];
    (column.compared == Compared::Bytes && !table.is_key(at)).then(|| {
        let value = match column.binary {
            true => format!("BINARY {}", side.column(table, at)),
            false => side.column(table, at),
        };
        let begins = literal(table, at, &format!("LEFT({value}, {LONGEST_CHECKED})"));
        (format!("IFNULL(CHAR_LENGTH({value}) > {LONGEST_CHECKED}, 0)"), begins)
    })
}

fn all_written(table: &table::Table, side: Side<'_>) -> Vec<String> {
    (0..table.columns.len()).map(|at| written(table, at, side)).collect()
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
    let values = written_before(table, F, None).join(", ");
    for row in a.conn.query_iter(format!("SELECT {values} FROM {copy} AS f LIMIT {}", ROWS_CHECKED + 1))? {
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

/// Fails where a statement that says these values would be longer than the server takes one. It would give NULL in a value's
/// place, or a row that the client does not read.
fn fits(a: &mut Session, table: &table::Table, values: &[String], from: &str, key: Side<'_>) -> Result<(), DraftError> {
    let is_short = |column: &table::Column| ["char(", "binary("].iter().any(|word| column.kind.contains(word));
    if table.columns.iter().all(|column| column.compared != Compared::Bytes || is_short(column)) {
        return Ok(());
    }
    let packet = a.number("SELECT @@max_allowed_packet")?;
    // Without the names of columns and what else it says.
    let room = packet - packet / 16;
    let size: Vec<String> = values.iter().map(|value| format!("IFNULL(LENGTH({value}), {room})")).collect();
    let sql = format!("SELECT {} FROM {from} AND {} >= {room} LIMIT 1", table.shown_key(key), size.join(" + "));
    match a.value(&sql)? {
        None => Ok(()),
        Some(row) => Err(DraftError::Refused {
            what: format!("table {}, the row {row}", table.name),
            why: format!(
                "a statement with its values is longer than the server takes one (max_allowed_packet is {packet}; it must be larger here, and wherever the package goes)"
            ),
        }),
    }
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
    let (values, from, side) = match (way, old.map(ident)) {
        (Way::Came, None) => (all_written(table, X), format!("{live} AS x WHERE 1"), X),
        (Way::Gone | Way::Changed, None) => return Ok(()),
        (Way::Came, Some(old)) => {
            let from = format!("{live} AS x LEFT JOIN {old} AS f ON {} WHERE {} IS NULL", table.keyed(X, F), key(F));
            (all_written(table, X), from, X)
        }
        (Way::Gone, Some(old)) => {
            let from = format!("{old} AS f LEFT JOIN {live} AS x ON {} WHERE {} IS NULL", table.keyed(X, F), key(X));
            (written_before(table, F, None), from, F)
        }
        (Way::Changed, Some(old)) => {
            let from =
                format!("{old} AS f JOIN {live} AS x ON {} WHERE NOT ({})", table.keyed(X, F), table.all_same(X, F));
            ([written_before(table, F, Some(X)), written_after(table, F, X)].concat(), from, X)
        }
    };
    fits(a, table, &values, &from, side)?;
    let count = table.columns.len();
    for row in a.conn.query_iter(format!("SELECT {} FROM {from} {}", values.join(", "), order(side)))? {
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
