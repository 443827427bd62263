//! Rows that others made since a table was altered, and that its old definition has no room for: the server would cut, round
//! and bound their values without a word.

use backout_model::conflict::{Conflict, ConflictKind, Conflicts};
use mysql::Error;

use super::ddl_alter::Altered;
use super::ddl_kept::{Holds, Kept, renames};
use super::replay::Replay;
use super::session::{Session, ident};
use super::table::{Column, Side};

/// A table that is the session's own.
const FIT: &str = "`backout_fit`";

/// The condition on a row of the live table that the alteration did not leave: others made it.
pub fn is_new(kept: &Kept, holds: &Holds) -> String {
    let (live, hold) = (ident(&kept.after.name), ident(&holds.after));
    let same = kept.after.keyed(Side::Live(&live), Side::Held(&hold));
    format!("NOT EXISTS (SELECT 1 FROM {hold} WHERE {same})")
}

/// How many rows others made.
pub fn newcomers(a: &mut Session, kept: &Kept, holds: &Holds) -> Result<u64, Error> {
    a.number(&format!("SELECT COUNT(*) FROM {} WHERE {}", ident(&kept.after.name), is_new(kept, holds)))
}

/// Numbers and points in time are compared by value, all else by its text.
fn class(column: &Column) -> u8 {
    const NUMBERS: [&str; 10] =
        ["tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "float", "double", "year", "bit"];
    const TIMES: [&str; 3] = ["date", "timestamp", "time"];
    let is = |words: &[&str]| words.iter().any(|word| column.kind.starts_with(word));
    if is(&NUMBERS) { 1 } else { 2 * u8::from(is(&TIMES)) }
}

/// Lists the rows of others whose values would be other ones under the old definition.
pub fn list_unfit(
    a: &mut Session,
    altered: &Altered,
    kept: &Kept,
    holds: &Holds,
    replay: &mut Replay<'_>,
) -> Result<(), Error> {
    let (before, after) = (&kept.before, &kept.after);
    let (live, names) = (ident(&after.name), renames(&altered.inverse));
    // A column's name as it is now.
    let now_of = |name: &str| names.iter().find(|(_, old)| old == name).map_or(name.to_owned(), |(new, _)| new.clone());
    let pairs: Vec<(usize, &Column)> = (0..before.columns.len())
        .filter_map(|at| {
            let now = now_of(&before.columns[at].name);
            after.columns.iter().find(|column| column.name == now).map(|column| (at, column))
        })
        .collect();
    if pairs.is_empty() || newcomers(a, kept, holds)? == 0 {
        return Ok(());
    }
    let held: Vec<String> = pairs.iter().map(|(at, _)| format!("c{at}")).collect();
    let values: Vec<String> = pairs.iter().map(|(_, now)| format!("{live}.{}", ident(&now.name))).collect();
    a.run(&format!("DROP TEMPORARY TABLE IF EXISTS {FIT}"))?;
    a.run(&format!("CREATE TEMPORARY TABLE {FIT} {}", before.hold()))?;
    a.run(&format!(
        "INSERT IGNORE INTO {FIT} ({}) SELECT {} FROM {live} WHERE {}",
        held.join(", "),
        values.join(", "),
        is_new(kept, holds)
    ))?;
    let same = |(at, now): &(usize, &Column)| {
        let (own, live) = (format!("{FIT}.c{at}"), format!("{live}.{}", ident(&now.name)));
        match (class(&before.columns[*at]), class(now)) {
            (0, _) | (_, 0) if before.columns[*at].binary || now.binary => format!("BINARY {own} <=> BINARY {live}"),
            (one, other) if one == other && one > 0 => format!("{own} <=> {live}"),
            _ => format!("BINARY CONVERT({own} USING utf8mb4) <=> BINARY CONVERT({live} USING utf8mb4)"),
        }
    };
    let all_same: Vec<String> = pairs.iter().map(same).collect();
    let keyed = pairs.iter().filter(|(at, _)| before.key.contains(at));
    let keyed: Vec<String> = keyed.map(|(at, now)| format!("{FIT}.c{at} = {live}.{}", ident(&now.name))).collect();
    let first = before.key.first().copied().unwrap_or_default();
    let from = format!(
        "{live} LEFT JOIN {FIT} ON {} WHERE {} AND ({FIT}.c{first} IS NULL OR NOT ({}))",
        keyed.join(" AND "),
        is_new(kept, holds),
        all_same.join(" AND ")
    );
    let total = a.number(&format!("SELECT COUNT(*) FROM {from}"))?;
    let start = replay.conflicts.total;
    let x = Side::Live(&live);
    let columns = format!("{}, {}", after.shown_key(x), after.shown_row(x));
    for row in a.rows(&format!("SELECT {columns} FROM {from} LIMIT {}", Conflicts::KEPT))? {
        let conflict = replay.conflict(&after.name, row[0].clone(), ConflictKind::Constraint);
        let now = format!("{} does not fit the definition of before", row[1].clone().unwrap_or_default());
        replay.conflicts.push(Conflict { now, ..conflict });
    }
    if total > 0 {
        replay.conflicts.total = start + total;
    }
    a.run(&format!("DROP TEMPORARY TABLE {FIT}"))
}

/// True where the server says that a value does not fit.
pub fn is_unfit(error: &Error) -> bool {
    matches!(error, Error::MySqlError(error) if matches!(error.code, 1138 | 1264 | 1265 | 1292 | 1366 | 1406))
}
