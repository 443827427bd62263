//! Rows of others that hold a unique value of a row which is to go back: each such row is a conflict. Under `keep` it stays as
//! the step left it, under `overwrite` theirs gives way.

use backout_model::conflict::{Conflict, ConflictKind};
use mysql::Error;

use super::guard::{F, Rows, T, X, three};
use super::replay::Replay;
use super::seen::Seen;
use super::session::{Session, ident, literal};
use super::table::{Side, Table};

/// The rows that stay, in a table of the session's own.
const STAYS: &str = "backout_stays";

/// The unique keys beside the primary one of which every column has an image, by the places of these.
fn unique(a: &mut Session, table: &Table) -> Result<Vec<Vec<usize>>, Error> {
    let parts = a.rows(&format!(
        "SELECT INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}
             AND NON_UNIQUE = 0 AND INDEX_TYPE = 'BTREE' ORDER BY INDEX_NAME, SEQ_IN_INDEX",
        literal(&table.name)
    ))?;
    let at = |name: &Option<String>| table.columns.iter().position(|column| Some(&column.name) == name.as_ref());
    let keys = parts.chunk_by(|one, other| one[0] == other[0]);
    let keys: Vec<Vec<usize>> = keys.filter_map(|key| key.iter().map(|part| at(&part[1])).collect()).collect();
    Ok(keys.into_iter().filter(|key| *key != table.key).collect())
}

/// Rows `t` that are to go back beside other rows `x` with the same value of a key, as a FROM with its condition.
fn beside(rows: &Rows<'_>, key: &[usize]) -> String {
    let table = rows.table;
    let same: Vec<String> =
        key.iter().map(|at| format!("{} = {}", X.column(table, *at), T.column(table, *at))).collect();
    let stays: Vec<String> = key.iter().map(|at| table.same(*at, F, T)).collect();
    format!(
        "`{to}` AS t STRAIGHT_JOIN {live} AS x ON {same} WHERE NOT ({own})
             AND NOT EXISTS (SELECT 1 FROM `{from}` AS f WHERE {both} AND {stays})",
        to = rows.to,
        from = rows.from,
        live = ident(&table.name),
        same = same.join(" AND "),
        own = table.keyed(X, T),
        both = table.keyed(F, T),
        stays = stays.join(" AND "),
    )
}

fn list(rows: &Rows<'_>, a: &mut Session, replay: &mut Replay<'_>, key: &[usize], from: &str) -> Result<(), Error> {
    let table = rows.table;
    let names: Vec<&str> = key.iter().map(|at| table.columns[*at].name.as_str()).collect();
    let names = names.join(", ");
    let columns = format!("{}, {}, {}", table.shown_key(T), table.shown_row(T), table.shown_row(X));
    rows.list(a, replay, &columns, from, |replay, row| {
        let [key, before, other] = three(row);
        let conflict = replay.conflict(&table.name, Some(key), ConflictKind::Constraint);
        Conflict { before, now: format!("its {names} belongs to another row: {other}"), ..conflict }
    })
}

/// What stands in the way of the rows of a table, as a FROM with its condition for each unique key of which others have a
/// value; each row is listed. One that the step left gives its value up in the same act.
pub fn look(rows: &Rows<'_>, a: &mut Session, replay: &mut Replay<'_>, seen: &Seen) -> Result<Vec<String>, Error> {
    let table = rows.table;
    let mut met = Vec::new();
    for key in unique(a, table)? {
        if seen.comes() == 0 && !moves(rows, a, &key)? {
            continue;
        }
        let of_others = format!(" AND NOT EXISTS (SELECT 1 FROM `{}` AS f WHERE {})", rows.from, table.keyed(X, F));
        let from = beside(rows, &key) + &of_others;
        let before = replay.conflicts.total;
        list(rows, a, replay, &key, &from)?;
        if replay.conflicts.total > before {
            met.push(from);
        }
    }
    Ok(met)
}

/// True where a row of both holds has another value of a key in the one than in the other.
fn moves(rows: &Rows<'_>, a: &mut Session, key: &[usize]) -> Result<bool, Error> {
    let table = rows.table;
    let same: Vec<String> = key.iter().map(|at| table.same(*at, F, T)).collect();
    let (both, same) = (table.keyed(F, T), same.join(" AND "));
    let found =
        format!("SELECT 1 FROM `{}` AS f JOIN `{}` AS t ON {both} WHERE NOT ({same}) LIMIT 1", rows.from, rows.to);
    Ok(a.value(&found)?.is_some())
}

/// Under `keep`: notes which rows stay as the step left them, and those whose values such a row keeps, which are listed, too.
pub fn keep(rows: &Rows<'_>, a: &mut Session, replay: &mut Replay<'_>, met: &[String]) -> Result<(), Error> {
    let table = rows.table;
    a.run(&format!("CREATE TEMPORARY TABLE {STAYS} {}", table.hold()))?;
    let note = |a: &mut Session, from: &str| {
        a.count(&format!("INSERT IGNORE INTO {STAYS} ({}) SELECT {} FROM {from}", table.held(""), table.held("t.")))
    };
    for from in met {
        note(a, from)?;
    }
    let keys = unique(a, table)?;
    loop {
        let mut more = 0;
        for key in &keys {
            let from = format!("{} AND {}{}", beside(rows, key), stays(table, X), goes(table, T));
            list(rows, a, replay, key, &from)?;
            more += note(a, &from)?;
        }
        if more == 0 {
            return Ok(());
        }
    }
}

/// The condition that a row is one of those that [`keep`] noted.
fn stays(table: &Table, side: Side<'_>) -> String {
    format!("EXISTS (SELECT 1 FROM {STAYS} AS s WHERE {})", table.keyed(side, Side::Held("s")))
}

/// The condition, behind others, that it is none of them.
pub fn goes(table: &Table, side: Side<'_>) -> String {
    format!(" AND NOT {}", stays(table, side))
}

/// Ends what [`keep`] began.
pub fn end(a: &mut Session) -> Result<(), Error> {
    a.run(&format!("DROP TEMPORARY TABLE IF EXISTS {STAYS}"))
}

/// Under `overwrite`: the rows of others go.
pub fn give_way(a: &mut Session, met: &[String]) -> Result<(), Error> {
    met.iter().try_for_each(|from| a.run(&format!("DELETE x FROM {from}")))
}
