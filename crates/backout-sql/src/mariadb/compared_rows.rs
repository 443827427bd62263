//! Which rows of a table differ from its copy, found in the server.
//!
//! Never reads a row into this process.

use mysql::Error;

use super::compared_schema::OneTable;
use super::loose;
use super::session::{Session, ident};
use super::table::{Side, Table};

const X: Side<'static> = Side::Live("x");
/// The copy, which has the table's own columns.
const F: Side<'static> = Side::Live("f");
const H: Side<'static> = Side::Held("h");

/// The rows of one that the other has not, or has with other values.
fn unlike(table: &Table, one: &str, other: &str) -> String {
    format!(
        "{} AS f LEFT JOIN {} AS x ON {} WHERE {} IS NULL OR NOT ({})",
        ident(one),
        ident(other),
        table.keyed(X, F),
        X.column(table, table.key[0]),
        table.all_same(X, F)
    )
}

/// True where a table has other rows than its copy.
pub fn differ(a: &mut Session, was: &OneTable) -> Result<bool, Error> {
    let (table, live, copy) = (&was.table, ident(&was.table.name), ident(&was.copy));
    let counts = format!("SELECT (SELECT COUNT(*) FROM {live}) <> (SELECT COUNT(*) FROM {copy})");
    if a.number(&counts)? != 0 {
        return Ok(true);
    }
    let sql = match table.is_loose() {
        // As many rows, and each of before is there as it was.
        false => format!("SELECT 1 FROM {} LIMIT 1", unlike(table, &was.copy, &table.name)),
        true if table.columns.is_empty() => return Ok(false),
        true => {
            let side =
                |name: &str, count: i8| format!("SELECT {} AS d, {count} AS n FROM {name} AS x", table.digest(X));
            let both = format!("{} UNION ALL {}", side(&live, 1), side(&copy, -1));
            format!("SELECT 1 FROM ({both}) AS u GROUP BY d HAVING SUM(n) <> 0 LIMIT 1")
        }
    };
    Ok(a.value(&sql)?.is_some())
}

/// Fills the holds of a table with what differs; how many rows there are in each.
pub fn fill(a: &mut Session, was: &OneTable, before: &str, after: &str) -> Result<(u64, u64), Error> {
    let table = &was.table;
    if table.is_loose() {
        for hold in [before, after] {
            a.run(&format!("CREATE TABLE `{hold}` {}", table.hold()))?;
        }
        loose::compare_with_copy(a, table, &was.copy, [before, after])?;
        return Ok((table.rows_held(a, before)?, table.rows_held(a, after)?));
    }
    for hold in [before, after] {
        a.run(&format!("CREATE TABLE `{hold}` {}", table.hold()))?;
    }
    let held = table.held("");
    let fill = |a: &mut Session, hold: &str, from: &str| {
        a.count(&format!("INSERT INTO `{hold}` ({held}) SELECT {} FROM {from}", table.live("f.")))
    };
    let went_or_changed = fill(a, before, &unlike(table, &was.copy, &table.name))?;
    // Whatever the table has under a key of these was changed; each other row of the copy it has as it was.
    let changed = format!("`{before}` AS h JOIN {} AS f ON {}", ident(&table.name), table.keyed(F, H));
    let mut came = fill(a, after, &changed)?;
    let [live, copy] = [&table.name, &was.copy].map(|name| format!("SELECT COUNT(*) FROM {}", ident(name)));
    let [live, copy] = [a.number(&live)?, a.number(&copy)?];
    if live + went_or_changed != copy + came {
        let new = format!(
            "{} AS f LEFT JOIN {} AS x ON {} WHERE {} IS NULL",
            ident(&table.name),
            ident(&was.copy),
            table.keyed(X, F),
            X.column(table, table.key[0])
        );
        came += fill(a, after, &new)?;
    }
    Ok((went_or_changed, came))
}
