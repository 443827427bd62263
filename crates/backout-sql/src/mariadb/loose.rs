//! Rows of tables without a key: told apart by all that they hold, identical ones by their number. A hold has each row once,
//! with how many of it went or came; a row that others made the same is as good as the step's own.
//!
//! A row that others changed cannot be told from one that they deleted: either is a conflict. Nothing is merged by column.

use backout_model::conflict::{Conflict, ConflictKind, Conflicts};
use mysql::Error;

use super::guard::{F, Rows, T, X};
use super::replay::{Direction, Replay};
use super::session::{Session, ident};
use super::table::{Side, Table};

/// How often rows are there, by their digests.
const NUMBERS: &str = "(d binary(32) NOT NULL PRIMARY KEY, n bigint NOT NULL) ENGINE=InnoDB";

/// The definition of the log of a table: each row that came or went, by a number.
pub fn log(table: &Table) -> String {
    let columns = table.logged();
    format!("(seq bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, n tinyint NOT NULL, {columns}) ENGINE=InnoDB")
}

/// What keeps an inserted, updated and deleted row in that log.
pub fn insertions(table: &Table, log: &str) -> [(&'static str, &'static str, String); 3] {
    let insert = format!("INSERT INTO `{log}` (n, {}) VALUES", table.held(""));
    let (goes, comes) = (format!("(-1, {})", table.live("OLD.")), format!("(1, {})", table.live("NEW.")));
    [
        ("i", "INSERT", format!("{insert} {comes}")),
        ("u", "UPDATE", format!("{insert} {goes}, {comes}")),
        ("d", "DELETE", format!("{insert} {goes}")),
    ]
}

/// Adds the rows `x` that FROM gives to a hold, each as often as `number` says.
fn add(a: &mut Session, table: &Table, hold: &str, number: &str, (side, from): (Side<'_>, &str)) -> Result<(), Error> {
    let columns = if let Side::Live(_) = side { table.live("x.") } else { table.held("x.") };
    a.run(&format!(
        "INSERT INTO `{hold}` ({}, d, n) SELECT {columns}, {}, {number} FROM {from}
         ON DUPLICATE KEY UPDATE `{hold}`.n = `{hold}`.n + VALUES(n)",
        table.held(""),
        table.digest(side)
    ))
}

/// Gives each hold its rows, where the first one has what came and what went, the one from the other.
fn part(a: &mut Session, [before, after]: [&str; 2]) -> Result<(), Error> {
    a.run(&format!("INSERT INTO `{after}` SELECT * FROM `{before}` WHERE n > 0"))?;
    a.run(&format!("DELETE FROM `{before}` WHERE n >= 0"))?;
    a.run(&format!("UPDATE `{before}` SET n = -n"))
}

/// The net effect of what is in the log.
pub fn net_of_log(a: &mut Session, table: &Table, log: &str, holds: [&str; 2]) -> Result<(), Error> {
    add(a, table, holds[0], "x.n", (Side::Held("x"), &format!("`{log}` AS x")))?;
    part(a, holds)
}

/// Puts a whole table away, to be compared afterwards. Each row and each gap stays locked.
pub fn put_away(a: &mut Session, table: &Table, before: &str) -> Result<(), Error> {
    add(a, table, before, "-1", (X, &format!("{} AS x FOR UPDATE", ident(&table.name))))
}

/// What became of a table that was put away.
pub fn compare(a: &mut Session, table: &Table, holds: [&str; 2]) -> Result<(), Error> {
    add(a, table, holds[0], "1", (X, &format!("{} AS x", ident(&table.name))))?;
    part(a, holds)
}

/// The same for a table of which a copy was made.
pub fn compare_with_copy(a: &mut Session, table: &Table, copy: &str, holds: [&str; 2]) -> Result<(), Error> {
    add(a, table, holds[0], "-1", (X, &format!("{} AS x", ident(copy))))?;
    compare(a, table, holds)
}

/// Where the numbers of the rows are, of those that a hold has, which are there.
fn there(hold: &str) -> String {
    format!("`{hold}n`")
}

/// Counts the rows of a hold that are there, and locks all that are looked at for it: nothing says where they are.
pub fn count(table: &Table, hold: &str) -> [String; 2] {
    let there = there(hold);
    [
        format!("CREATE OR REPLACE TEMPORARY TABLE {there} {NUMBERS}"),
        format!(
            "INSERT INTO {there} SELECT f.d, COUNT(*) FROM {} AS x STRAIGHT_JOIN `{hold}` AS f ON {} GROUP BY f.d FOR UPDATE",
            ident(&table.name),
            table.keyed(X, F)
        ),
    ]
}

/// The rows `f` of a hold of which fewer are there.
pub fn missing(hold: &str) -> String {
    format!("`{hold}` AS f LEFT JOIN {} AS y ON y.d = f.d WHERE f.n > IFNULL(y.n, 0)", there(hold))
}

/// Takes the rows of a hold away, as far as they are there. Nothing points at one of several that hold the same: all of
/// them go, and those of others come back.
pub fn take_away(table: &Table, hold: &str) -> [String; 2] {
    let delete =
        format!("DELETE x FROM {} AS x STRAIGHT_JOIN `{hold}` AS f ON {}", ident(&table.name), table.keyed(X, F));
    let others = format!("SELECT f.d, y.n - f.n AS n FROM `{hold}` AS f JOIN {} AS y ON y.d = f.d", there(hold));
    [delete, bring(table, hold, &others)]
}

/// Brings rows of a hold, by digest and number. Numbers double at each turn, so that there are few.
pub fn bring(table: &Table, hold: &str, numbers: &str) -> String {
    format!(
        "INSERT INTO {} ({}) WITH RECURSIVE k AS (
             SELECT d, CAST(1 AS SIGNED) AS i, n FROM ({numbers}) AS wanted WHERE n > 0
             UNION ALL SELECT k.d, 2 * k.i + b.b, k.n FROM k JOIN (SELECT 0 AS b UNION ALL SELECT 1) AS b ON 2 * k.i + b.b <= k.n)
         SELECT {} FROM k STRAIGHT_JOIN `{hold}` AS t ON t.d = k.d",
        ident(&table.name),
        table.live(""),
        table.held("t.")
    )
}

/// Locks and counts what is there, of a table from which rows are to be taken away.
pub fn lock(rows: &Rows<'_>, a: &mut Session) -> Result<(), Error> {
    let [table, counting] = count(rows.table, &rows.from);
    a.run(&table)?;
    if rows.table.rows_held(a, &rows.from)? > 0 { a.run(&counting) } else { Ok(()) }
}

/// Compares and, where no conflict forbids it, changes.
pub fn settle(rows: &Rows<'_>, a: &mut Session, replay: &mut Replay<'_>) -> Result<(), Error> {
    let (table, from, to) = (rows.table, &rows.from, &rows.to);
    let missing = a.number(&format!("SELECT IFNULL(SUM(f.n - IFNULL(y.n, 0)), 0) FROM {}", missing(from)))?;
    if missing > 0 {
        look_at_missing(rows, a, replay, missing)?;
    }
    if replay.is_stopped() {
        return Ok(());
    }
    a.run(&format!("CREATE OR REPLACE TEMPORARY TABLE backout_m {NUMBERS}"))?;
    a.run(&format!("INSERT INTO backout_m SELECT d, n FROM `{to}`"))?;
    if missing > 0 && !replay.overwrites() {
        keep_away(rows, a, missing)?;
    }
    let gone = table.rows_held(a, from)? - missing;
    if gone > 0 {
        take_away(table, from).iter().try_for_each(|sql| a.run(sql))?;
    }
    replay.rows += gone + a.count(&bring(table, to, "SELECT d, n FROM backout_m"))?;
    if missing > 0 && replay.direction == Direction::Redo {
        // What it did this time.
        let there = there(from);
        let went =
            format!("UPDATE `{from}` AS f LEFT JOIN {there} AS y ON y.d = f.d SET f.n = LEAST(f.n, IFNULL(y.n, 0))");
        a.run(&went)?;
        a.run(&format!("UPDATE `{to}` AS t JOIN backout_m AS m ON m.d = t.d SET t.n = m.n"))?;
        [from, to].iter().try_for_each(|hold| a.run(&format!("DELETE FROM `{hold}` WHERE n = 0")))?;
    }
    a.run(&format!("DROP TEMPORARY TABLE backout_m, {}", there(from)))
}

/// Rows to be taken away that are not there: others changed or deleted them.
fn look_at_missing(rows: &Rows<'_>, a: &mut Session, replay: &mut Replay<'_>, number: u64) -> Result<(), Error> {
    // It would come back with a table that is replaced: nothing can keep it away.
    replay.unkept |= replay.direction == Direction::Undo && replay.replacing.contains(&rows.table.name);
    let (start, kept) = (replay.conflicts.total, Conflicts::KEPT);
    let sql =
        format!("SELECT f.n - IFNULL(y.n, 0), {} FROM {} LIMIT {kept}", rows.table.shown_row(F), missing(&rows.from));
    for row in a.rows(&sql)? {
        let times = row[0].as_deref().and_then(|text| text.parse().ok()).unwrap_or(1);
        let conflict = replay.conflict(&rows.table.name, row[1].clone(), ConflictKind::Missing);
        let left = row[1].clone().unwrap_or_default();
        let conflict = Conflict { left, now: "no such row".to_owned(), ..conflict };
        (0..kept.min(times)).for_each(|_| replay.conflicts.push(conflict.clone()));
    }
    replay.conflicts.total = start + number;
    Ok(())
}

/// For each row that is missing the one stays away that would come in its place: the most similar one.
fn keep_away(rows: &Rows<'_>, a: &mut Session, number: u64) -> Result<(), Error> {
    let (table, from, to) = (rows.table, &rows.from, &rows.to);
    if a.number("SELECT IFNULL(SUM(n), 0) FROM backout_m")? <= number {
        return a.run("UPDATE backout_m SET n = 0");
    }
    let alike: Vec<String> = (0..table.columns.len()).map(|at| format!("({})", table.same(at, F, T))).collect();
    let alike = alike.join(" + ");
    for row in a.rows(&format!("SELECT HEX(f.d), f.n - IFNULL(y.n, 0) FROM {}", missing(from)))? {
        let digest = row[0].clone().unwrap_or_default();
        let times: u64 = row[1].as_deref().and_then(|text| text.parse().ok()).unwrap_or(1);
        for _ in 0..times {
            let closest = a.value(&format!(
                "SELECT HEX(m.d) FROM backout_m AS m JOIN `{to}` AS t ON t.d = m.d JOIN `{from}` AS f ON f.d = x'{digest}'
                 WHERE m.n > 0 ORDER BY {alike} DESC, m.d LIMIT 1"
            ))?;
            let Some(closest) = closest else { return Ok(()) };
            a.run(&format!("UPDATE backout_m SET n = n - 1 WHERE d = x'{closest}'"))?;
        }
    }
    Ok(())
}
