//! Rows of statements that are known without triggers, see [`super::single`].
//!
//! What a condition names is kept, and locked with the gaps between, before the statement runs; it then has to find as many.
//! What it left is read at the end.

use std::collections::BTreeSet;

use mysql::Error;

use super::capture::CaptureError;
use super::run::{Bodies, Run};
use super::session::{Session, ident, literal};
use super::single::{Single, What, is_certain};
use super::table::{Side, Table};
use super::written::Plan;

/// What was asked of one table.
struct Asked {
    table: Table,
    /// The column whose values the server counts, where a statement inserts.
    counted: Option<String>,
    /// Rows kept, and those of them that were deleted.
    kept: u64,
    deleted: u64,
    /// The first and last numbers of what was inserted.
    numbers: Vec<(u64, u64)>,
    /// A row that comes with the key 0 gets another one.
    zero_is_new: bool,
    /// Its counter may be moved.
    counts: bool,
}

/// A run of such statements.
pub struct Asking {
    left: std::vec::IntoIter<Single>,
    all: Vec<Asked>,
    /// The statement that is to run, and how many rows it has to find.
    now: Option<(Single, u64)>,
    /// Where something was inserted last, and with which numbers: whether they are there is looked at when that tells no
    /// statement of the script's anything.
    came: Option<(usize, (u64, u64))>,
    /// There is one statement: what it does not delete, it finds again.
    is_one: bool,
}

impl Asking {
    /// What a run is followed by, where that is enough. `a`: the script's session, of whose settings it depends.
    pub fn of(
        a: &mut Session,
        b: &mut Session,
        run: &Run,
        plan: &Plan,
        bodies: &Bodies,
    ) -> Result<Option<Self>, Error> {
        let is_plain = !run.all && !run.unlike && !run.singles.is_empty() && !bodies.are_named_by(run);
        let is_alone = plan.paths.is_empty() && plan.copied.is_empty() && plan.triggers.is_empty();
        let named: BTreeSet<&String> = run.singles.iter().map(|single| &single.table).collect();
        let is_whole = named.iter().copied().eq(&plan.written) && plan.tables.keys().eq(&plan.written);
        if !is_plain || !is_alone || !is_whole || a.value(ALIKE)?.as_deref() != Some("1") {
            return Ok(None);
        }
        let mut all = Vec::<Asked>::new();
        for single in &run.singles {
            let Some(table) = plan.tables.get(&single.table).filter(|table| !table.is_loose()) else { return Ok(None) };
            let stays = |columns: &BTreeSet<String>| {
                let mut keys = table.key.iter().map(|at| &table.columns[*at]);
                keys.all(|column| !column.moves && !columns.contains(&column.name.to_lowercase()))
            };
            let counts = matches!(single.what, What::Insert(_) | What::Replace(_));
            let counted = counts && is_counted(b, table)?;
            let mut inserts = None;
            let told = match &single.what {
                What::Insert(columns) => {
                    inserts = numbered(a, b, table)?.filter(|name| counted && !columns.contains(&name.to_lowercase()));
                    inserts.is_some()
                }
                What::Update(columns) => stays(columns) && is_certain(&single.condition, table),
                What::Delete => is_certain(&single.condition, table),
                What::Replace(column) => {
                    let is_one = run.singles.len() == 1 && is_certain(&single.condition, table);
                    is_one && is_kept_key(b, table, column)?
                }
            };
            if !told {
                return Ok(None);
            }
            match all.iter_mut().find(|asked| asked.table.name == table.name) {
                Some(asked) => {
                    asked.counted = asked.counted.take().or(inserts);
                    asked.counts |= counts;
                }
                None => all.push(Asked {
                    table: table.clone(),
                    counted: inserts,
                    kept: 0,
                    deleted: 0,
                    numbers: Vec::new(),
                    zero_is_new: counted,
                    counts,
                }),
            }
        }
        let (left, is_one) = (run.singles.clone().into_iter(), run.singles.len() == 1);
        Ok(Some(Self { left, all, now: None, came: None, is_one }))
    }

    /// True where the counter of a table may have been moved by what was asked.
    pub fn counts(&self, name: &str) -> bool {
        self.all.iter().any(|asked| asked.table.name == name && asked.counts)
    }

    /// Right before the next statement: keeps what it will change in the hold of before of a table, as `hold` names it.
    pub fn ask(&mut self, a: &mut Session, hold: impl Fn(&str) -> String) -> Result<(), CaptureError> {
        self.count_what_came(a)?;
        let over = || CaptureError::Uncapturable("it is not the statement that was read".to_owned());
        let single = self.left.next().ok_or_else(over)?;
        let asked = self.all.iter_mut().find(|asked| asked.table.name == single.table).ok_or_else(over)?;
        let mut found = 0;
        if !matches!(single.what, What::Insert(_)) {
            let table = &asked.table;
            let condition = if single.condition.is_empty() { "TRUE" } else { &single.condition };
            let (hold, live) = (hold(&table.name), ident(&table.name));
            let of = format!("{live} WHERE ({condition}\n)");
            let new: String =
                asked.numbers.iter().map(|numbers| format!(" AND NOT {}", between(&asked.counted, *numbers))).collect();
            let again = table.key.first().map(|at| format!(" ON DUPLICATE KEY UPDATE c{at} = VALUES(c{at})"));
            let again = again.filter(|_| asked.kept > 0).unwrap_or_default();
            // Under the script's settings, by which the condition means what it means to the statement; but what that only warns
            // of is no error here. A value of the same type comes as it is.
            a.run(&format!(
                "SET STATEMENT {LENIENT} FOR INSERT INTO `{hold}` ({}) SELECT {} FROM {of}{new} FOR UPDATE{again}",
                table.held(""),
                table.live("")
            ))?;
            (found, asked.kept) = match asked.kept == 0 && new.is_empty() {
                true => (a.conn.affected_rows(), a.conn.affected_rows()),
                false => (
                    a.number(&format!("SELECT COUNT(*) FROM {of} FOR UPDATE"))?,
                    a.number(&format!("SELECT COUNT(*) FROM `{hold}`"))?,
                ),
            };
            if matches!(single.what, What::Replace(_)) && asked.zero_is_new {
                let zero = format!("SELECT 1 FROM `{hold}` WHERE c{} = 0", table.key[0]);
                if a.value(&zero)?.is_some() {
                    let why = format!("a row of {} has the key 0, for which the server may give another", table.name);
                    return Err(CaptureError::Uncapturable(why));
                }
            }
        }
        self.now = Some((single, found));
        Ok(())
    }

    /// Right behind it: it found what was kept, or had its numbers from the server. Asks the server nothing.
    pub fn told(&mut self, a: &mut Session) -> Result<(), CaptureError> {
        let Some((single, expected)) = self.now.take() else { return Ok(()) };
        let (touched, first) = (a.conn.affected_rows(), a.conn.last_insert_id());
        let found = match &single.what {
            What::Update(_) | What::Replace(_) => first_number(&a.conn.info_str(), touched),
            What::Delete | What::Insert(_) => Some(touched),
        };
        let Some(at) = self.all.iter().position(|asked| asked.table.name == single.table) else { return Ok(()) };
        match (&single.what, found) {
            (What::Insert(_), Some(0)) => {}
            (What::Insert(_), Some(count)) if first > 0 => self.came = Some((at, (first, first + count - 1))),
            (What::Delete, Some(count)) if count == expected => self.all[at].deleted += count,
            (What::Update(_) | What::Replace(_), Some(count)) if count == expected => {}
            _ => return Err(untold(&single.table, found, expected)),
        }
        Ok(())
    }

    /// Looks whether what was inserted last has the numbers that it should have: before the next statement, and before the net
    /// effect is taken.
    pub fn count_what_came(&mut self, a: &mut Session) -> Result<(), CaptureError> {
        let Some((at, numbers)) = self.came.take() else { return Ok(()) };
        let asked = &mut self.all[at];
        let sql =
            format!("SELECT COUNT(*) FROM {} WHERE {}", ident(&asked.table.name), between(&asked.counted, numbers));
        let (found, expected) = (a.number(&sql)?, numbers.1 - numbers.0 + 1);
        asked.numbers.push(numbers);
        if found == expected { Ok(()) } else { Err(untold(&asked.table.name, Some(found), expected)) }
    }

    /// The net effect on one table: fills its hold of after, and takes what is as it was out of that of before. How many
    /// rows each has; none where nothing was asked of it.
    pub fn net(&self, a: &mut Session, name: &str, before: &str, after: &str) -> Result<Option<(u64, u64)>, Error> {
        let Some(asked) = self.all.iter().find(|asked| asked.table.name == name) else { return Ok(None) };
        let Asked { table, counted, kept, deleted, numbers, .. } = asked;
        let (x, b) = (Side::Live("x"), Side::Held("b"));
        let (held, live, is) = (table.held(""), table.live("x."), ident(name));
        let (keyed, same) = (table.keyed(x, b), table.all_same(x, b));
        let (mut was, mut left) = (*kept, 0);
        if was > *deleted || !self.is_one {
            left = a.count(&format!(
                "INSERT INTO `{after}` ({held}) SELECT {live} FROM `{before}` AS b STRAIGHT_JOIN {is} AS x ON {keyed} WHERE NOT ({same})"
            ))?;
            if left + deleted < was || !self.is_one {
                was -=
                    a.count(&format!("DELETE b FROM `{before}` AS b STRAIGHT_JOIN {is} AS x ON {keyed} WHERE {same}"))?;
            }
        }
        for numbers in numbers {
            left += a.count(&format!(
                "INSERT INTO `{after}` ({held}) SELECT {live} FROM {is} AS x WHERE {}",
                between(counted, *numbers)
            ))?;
        }
        Ok(Some((was, left)))
    }
}

/// Whether a session reads and keeps as it is thought of here: nobody else can write what a condition named until the
/// statement has run, no date is refused, and names and rows come as they are.
const ALIKE: &str = "SELECT @@tx_isolation IN ('REPEATABLE-READ', 'SERIALIZABLE') AND INSTR(@@sql_mode, 'NO_ZERO') = 0
    AND @@character_set_client LIKE 'utf8%' AND @@sql_auto_is_null = 0 AND @@sql_select_limit = 18446744073709551615
    AND @@sql_big_selects = 1";

/// What does not change what a condition means.
const LENIENT: &str = "sql_mode = REGEXP_REPLACE(@@sql_mode, '(STRICT_TRANS_TABLES|STRICT_ALL_TABLES|ERROR_FOR_DIVISION_BY_ZERO)(,|$)', '')";

fn untold(table: &str, found: Option<u64>, expected: u64) -> CaptureError {
    let found = found.map_or_else(|| "an unknown number of".to_owned(), |count| count.to_string());
    let why = format!("{found} rows of {table} were found where {expected} should be: what it changed cannot be told");
    CaptureError::Uncapturable(why)
}

fn between(column: &Option<String>, (first, last): (u64, u64)) -> String {
    format!("({} BETWEEN {first} AND {last})", ident(column.as_deref().unwrap_or_default()))
}

/// The key of a table whose values the server counts one after the other: of a partitioned one others get some in between.
fn numbered(a: &mut Session, b: &mut Session, table: &Table) -> Result<Option<String>, Error> {
    let [at] = table.key[..] else { return Ok(None) };
    let counts = "SELECT @@innodb_autoinc_lock_mode < 2 AND @@auto_increment_increment = 1 AND @@insert_id = 0";
    let parts = format!(
        "SELECT COUNT(*) FROM information_schema.PARTITIONS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} AND PARTITION_NAME IS NOT NULL",
        literal(&table.name)
    );
    let key = &table.columns[at];
    let follows = a.number(counts)? == 1 && b.number(&parts)? == 0 && key.kind.contains("int");
    Ok(follows.then(|| key.name.clone()))
}

/// True where the server gives numbers to the first column of a table's key.
fn is_counted(b: &mut Session, table: &Table) -> Result<bool, Error> {
    let found = b.value(&format!(
        "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} AND EXTRA LIKE '%auto_increment%'",
        literal(&table.name)
    ))?;
    Ok(found.is_some_and(|name| table.key.first().is_some_and(|at| table.columns[*at].name == name)))
}

/// True where a row that comes with this column of its own first replaces itself, and no other row: it is the key, and the
/// first one of the table.
fn is_kept_key(b: &mut Session, table: &Table, column: &str) -> Result<bool, Error> {
    let [at] = table.key[..] else { return Ok(false) };
    if column != "*" && !column.eq_ignore_ascii_case(&table.columns[at].name) {
        return Ok(false);
    }
    let of = format!("TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}", literal(&table.name));
    let unique = b.number(&format!(
        "SELECT COUNT(DISTINCT INDEX_NAME) FROM information_schema.STATISTICS WHERE {of} AND NON_UNIQUE = 0"
    ))?;
    let first = b.value(&format!(
        "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE {of} AND ORDINAL_POSITION = 1 AND EXTRA NOT LIKE '%INVISIBLE%'"
    ))?;
    Ok(unique == 1 && first.as_ref() == Some(&table.columns[at].name))
}

/// Of `Rows matched: 3  Changed: 2  Warnings: 0` or `Records: 3  …`, in whatever language, the first number. Nothing is said
/// where the server sees beforehand that no row is meant.
fn first_number(info: &str, touched: u64) -> Option<u64> {
    if info.is_empty() && touched == 0 {
        return Some(0);
    }
    let begin = info.find(|one: char| one.is_ascii_digit())?;
    info[begin..].split(|one: char| !one.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_update_found_is_read() {
        assert_eq!(first_number("Rows matched: 30  Changed: 2  Warnings: 0", 2), Some(30));
        assert_eq!(first_number("Datensätze gefunden: 5  Geändert: 2  Warnungen: 0", 2), Some(5));
        assert_eq!((first_number("", 0), first_number("", 1)), (Some(0), None));
    }
}
