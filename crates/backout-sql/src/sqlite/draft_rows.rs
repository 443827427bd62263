//! Rows of a draft as SQLite's statements write them, each value to the bit.

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::capture::read_table;
use super::draft::DraftError;
use super::script_rows::{by_rowid, key_columns, literal};
use super::stream;
use super::token::quote;
use crate::recorded::{Dialect, ROWS_CHECKED, Table};

pub(super) struct SqliteRows;

impl Dialect for SqliteRows {
    fn same(&self, table: &Table, column: usize, value: &str) -> String {
        format!("{} IS {value}", table.columns[column])
    }

    fn delete_one(&self, table: &Table, holds: &str) -> String {
        let name = &table.name;
        format!("DELETE FROM {name} WHERE rowid = (SELECT rowid FROM {name} WHERE {holds} LIMIT 1)")
    }
}

/// A table with the columns that can be written; its rowid is one of them where no other tells rows apart. `old`: the columns
/// that it had; none where it is new.
pub(super) fn shape_of(conn: &Connection, table: &stream::Table, old: Option<&[String]>) -> Result<Table, DraftError> {
    let own = by_rowid(table);
    let mut columns: Vec<String> = Vec::new();
    if own {
        columns.push(quote(table.rowid.as_deref().unwrap_or("rowid")));
    }
    let written: Vec<usize> = (0..table.columns.len()).filter(|at| !table.columns[*at].generated).collect();
    columns.extend(written.iter().map(|at| quote(&table.columns[*at].name)));
    let keys = key_columns(table);
    let key = match own {
        true => vec![0],
        false => keys.iter().filter_map(|key| written.iter().position(|at| at == key)).collect(),
    };
    let points: bool = match table.rowid_column {
        // A key that is another table's is no number of its own.
        Some(column) => conn.query_row(
            "SELECT EXISTS (SELECT 1 FROM pragma_foreign_key_list(?1) WHERE \"from\" = ?2 COLLATE NOCASE)",
            [&table.name, &table.columns[column].name],
            |row| row.get(0),
        )?,
        None => false,
    };
    Ok(Table {
        shown: table.name.clone(),
        name: quote(&table.name),
        columns,
        key,
        is_counted: own || table.rowid_column.is_some() && !points,
        inserting: "",
        is_new: old.is_none(),
        old_name: String::new(),
        moving: Vec::new(),
        new_columns: old.map_or_else(Vec::new, |old| {
            let is_new = |(_, at): &(usize, &usize)| {
                old.iter().all(|name| !name.eq_ignore_ascii_case(&table.columns[**at].name))
            };
            written.iter().enumerate().filter(is_new).map(|(place, _)| place + usize::from(own)).collect()
        }),
    })
}

/// The values of a row, in the order of [`shape_of`].
pub(super) fn values_of(
    conn: &Connection,
    table: &stream::Table,
    rowid: i64,
    values: &[ValueRef<'_>],
) -> Result<Vec<String>, DraftError> {
    let mut all = Vec::with_capacity(values.len() + 1);
    if by_rowid(table) {
        all.push(written(conn, ValueRef::Integer(rowid))?);
    }
    for (value, _) in values.iter().zip(&table.columns).filter(|(_, column)| !column.generated) {
        all.push(written(conn, *value)?);
    }
    Ok(all)
}

/// The rows of a table that goes, as many as conditions are about.
pub(super) struct Doomed {
    pub shape: Table,
    pub all: u64,
    pub first: Vec<Vec<String>>,
}

impl Doomed {
    /// `columns`: of the table, which is none of a module's.
    pub fn of(conn: &Connection, name: &str, columns: &[String]) -> Result<Self, DraftError> {
        let (table, _) = read_table(conn, name)?;
        let shape = shape_of(conn, &table, Some(columns))?;
        let from = format!("FROM main.{}", quote(name));
        let all: i64 = conn.query_row(&format!("SELECT count(*) {from}"), [], |row| row.get(0))?;
        let sql = format!("SELECT {} {from} LIMIT {}", shape.columns.join(", "), ROWS_CHECKED + 1);
        let mut statement = conn.prepare(&sql)?;
        let (mut rows, mut first) = (statement.query([])?, Vec::new());
        while let Some(row) = rows.next()? {
            let values = (0..shape.columns.len()).map(|at| written(conn, row.get_ref(at)?));
            first.push(values.collect::<Result<_, _>>()?);
        }
        Ok(Self { shape, all: u64::try_from(all).unwrap_or(0), first })
    }
}

/// A value as a literal that every SQLite reads back to the bit, without the functions of its client.
fn written(conn: &Connection, value: ValueRef<'_>) -> Result<String, DraftError> {
    let ValueRef::Real(number) = value else {
        let mut out = Vec::new();
        literal(&mut out, value);
        return Ok(String::from_utf8_lossy(&out).into_owned());
    };
    let short = format!("{number:?}");
    if number.is_finite() {
        let read: f64 = conn.query_row(&format!("SELECT {short}"), [], |row| row.get(0))?;
        if read.to_bits() == number.to_bits() {
            return Ok(short);
        }
    }
    Ok(exactly(number))
}

/// A number as a whole one, halved or doubled as often as it takes: each of these is exact.
fn exactly(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "9e999".to_owned() } else { "-9e999".to_owned() };
    }
    let bits = number.to_bits();
    let (sign, exponent, fraction) = (bits >> 63, (bits >> 52) & 0x7ff, bits & ((1 << 52) - 1));
    let mantissa = if exponent == 0 { fraction } else { fraction | 1 << 52 };
    let mut power = i64::try_from(exponent.max(1)).unwrap_or(0) - 1075;
    let mut text = format!("{}{mantissa}.0", if sign == 1 { "-" } else { "" });
    while power != 0 {
        let step = power.clamp(-60, 60);
        let factor = 1_u64 << step.unsigned_abs();
        text = format!("({text} {} {factor})", if step > 0 { '*' } else { '/' });
        power -= step;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_to_the_bit() {
        let conn = Connection::open_in_memory().unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let mut all = vec![0.0, -0.0, 1.5, 0.1 + 0.2, 1e300, -1e-300, f64::MAX, f64::MIN_POSITIVE, f64::INFINITY];
        all.extend((0..2000).map(|_| f64::from_bits(random.u64(..))).filter(|number| !number.is_nan()));
        for number in all {
            for text in [written(&conn, ValueRef::Real(number)).unwrap(), exactly(number)] {
                let read: f64 = conn.query_row(&format!("SELECT {text}"), [], |row| row.get(0)).unwrap();
                // A zero is stored without its sign.
                assert!(read.to_bits() == number.to_bits() || number == 0.0 && read == 0.0, "{number:?}: {text}");
            }
        }
    }
}
