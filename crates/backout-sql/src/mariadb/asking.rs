//! Rows of statements that are known without triggers, see [`super::single`].
//!
//! What a condition names is kept, and locked with the gaps between, before the statement runs; it then has to find as many.
//! What it left is read at the end.

use std::collections::BTreeSet;

use mysql::Error;

use super::capture::{CaptureError, forget_unchanged};
use super::run::{Bodies, Run};
use super::session::{Session, ident, literal};
use super::single::{Copied, Single, What, is_certain};
use super::table::{self, Side, Table, There};
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
    /// The table whose rows come, under its keys.
    by_key: Option<Table>,
}

/// A run of such statements.
pub struct Asking {
    left: std::vec::IntoIter<Single>,
    all: Vec<Asked>,
    /// The statement that is to run, and how many rows it has to find.
    now: Option<(Single, u64)>,
    /// There is one statement: what it does not delete, it finds again.
    is_one: bool,
}

impl Asking {
    /// What a run is followed by, where that is enough.
    pub fn of(a: &mut Session, run: &Run, plan: &Plan, bodies: &Bodies) -> Result<Option<Self>, Error> {
        let is_plain = !run.all && !run.unlike && !run.singles.is_empty() && !bodies.are_called_by(run.clone());
        let is_alone = plan.paths.is_empty() && plan.copied.is_empty() && plan.triggers.is_empty();
        let named: BTreeSet<&String> = run.singles.iter().map(|single| &single.table).collect();
        if !is_plain || !is_alone || !named.iter().copied().eq(&plan.written) || !plan.tables.keys().eq(&plan.written) {
            return Ok(None);
        }
        let isolation = a.value("SELECT @@tx_isolation")?.unwrap_or_default();
        if !matches!(isolation.as_str(), "REPEATABLE-READ" | "SERIALIZABLE") {
            return Ok(None);
        }
        // What a date is compared with means less under these, and no row is kept under them.
        let by_time = !run.sets_something && a.number("SELECT INSTR(@@sql_mode, 'NO_ZERO')")? == 0;
        let (mut singles, mut all) = (run.singles.clone(), Vec::<Asked>::new());
        for single in &mut singles {
            let Some(table) = plan.tables.get(&single.table).filter(|table| !table.is_loose()) else { return Ok(None) };
            let keys = || table.key.iter().map(|at| &table.columns[*at]);
            let (mut counted, mut by_key) = (None, None);
            if let What::Copy(copied) = &single.what {
                by_key = source(a, copied, table)?.filter(|from| is_certain(&single.condition, from, by_time));
                if let (None, Some(columns)) = (&by_key, copied.numbered()) {
                    single.what = What::Insert(columns);
                }
            }
            match &single.what {
                What::Insert(columns) => {
                    counted = numbered(a, table)?.filter(|name| !columns.contains(&name.to_lowercase()));
                    if counted.is_none() {
                        return Ok(None);
                    }
                }
                What::Update(columns) => {
                    let stays =
                        |column: &super::table::Column| !column.moves && !columns.contains(&column.name.to_lowercase());
                    if !keys().all(stays) || !is_certain(&single.condition, table, by_time) {
                        return Ok(None);
                    }
                }
                What::Copy(_) if by_key.is_none() || run.singles.len() > 1 => return Ok(None),
                What::Copy(_) => {}
                What::Delete if !is_certain(&single.condition, table, by_time) => return Ok(None),
                What::Delete => {}
            }
            match all.iter_mut().find(|asked| asked.table.name == table.name) {
                Some(asked) => asked.counted = asked.counted.take().or(counted),
                None => {
                    let (table, numbers) = (table.clone(), Vec::new());
                    all.push(Asked { table, counted, kept: 0, deleted: 0, numbers, by_key });
                }
            }
        }
        Ok(Some(Self { left: singles.into_iter(), all, now: None, is_one: run.singles.len() == 1 }))
    }

    /// Right before the next statement: keeps what it will change in the hold of before; `hold` names those of a table,
    /// `b` and `k`, the one for keys.
    pub fn ask(&mut self, a: &mut Session, hold: impl Fn(&str, &str) -> String) -> Result<(), CaptureError> {
        let over = || CaptureError::Uncapturable("it is not the statement that was read".to_owned());
        let single = self.left.next().ok_or_else(over)?;
        let asked = self.all.iter_mut().find(|asked| asked.table.name == single.table).ok_or_else(over)?;
        let mut found = 0;
        let table = &asked.table;
        let is_own = asked.by_key.as_ref().is_none_or(|from| from.name == table.name);
        if let (Some(from), false) = (&asked.by_key, is_own) {
            (found, asked.kept) = keep_keys(a, &single, (from, table), &hold)?;
        } else if !matches!(single.what, What::Insert(_)) {
            let condition = if single.condition.is_empty() { "TRUE" } else { &single.condition };
            let live = ident(&table.name);
            let of = format!("{live} WHERE ({condition}\n)");
            let new: String =
                asked.numbers.iter().map(|numbers| format!(" AND NOT {}", between(&asked.counted, *numbers))).collect();
            let again = table.key.first().map(|at| format!(" ON DUPLICATE KEY UPDATE c{at} = VALUES(c{at})"));
            let again = again.filter(|_| asked.kept > 0).unwrap_or_default();
            // The mode is the server's for what it does, not for how it reads this.
            a.run(&format!(
                "SET STATEMENT {KEEPING} FOR INSERT INTO `{}` ({}) SELECT {} FROM {of}{new} FOR UPDATE{again}",
                hold(&table.name, "b"),
                table.held(""),
                table.live("")
            ))?;
            (found, asked.kept) = match asked.kept == 0 && new.is_empty() {
                true => (a.conn.affected_rows(), a.conn.affected_rows()),
                false => (
                    a.number(&format!("SELECT COUNT(*) FROM {of} FOR UPDATE"))?,
                    a.number(&format!("SELECT COUNT(*) FROM `{}`", hold(&table.name, "b")))?,
                ),
            };
        }
        if asked.by_key.is_some() {
            let hold = hold(&table.name, if is_own { "b" } else { "k" });
            // Such a key would be another one.
            let zero = format!("SELECT 1 FROM `{hold}` WHERE c{} = 0", table.key[0]);
            if is_counted(a, table)? && a.value(&zero)?.is_some() {
                let why =
                    format!("a row with the key 0 would come to {}, for which the server may give another", table.name);
                return Err(CaptureError::Uncapturable(why));
            }
        }
        self.now = Some((single, found));
        Ok(())
    }

    /// Right behind it: it found what was kept, or had its numbers from the server one after the other.
    pub fn told(&mut self, a: &mut Session) -> Result<(), CaptureError> {
        let Some((single, expected)) = self.now.take() else { return Ok(()) };
        let (touched, first) = (a.conn.affected_rows(), a.conn.last_insert_id());
        let found = match &single.what {
            What::Update(_) => first_number(&a.conn.info_str(), "Rows matched: "),
            What::Copy(_) => first_number(&a.conn.info_str(), "Records: "),
            What::Delete | What::Insert(_) => Some(touched),
        };
        let Some(asked) = self.all.iter_mut().find(|asked| asked.table.name == single.table) else { return Ok(()) };
        match (&single.what, found, first) {
            (What::Insert(_), Some(0), _) => return Ok(()),
            (What::Insert(_), Some(count), first) if first > 0 => {
                let numbers = (first, first + count - 1);
                let sql = format!(
                    "SELECT COUNT(*) FROM {} WHERE {}",
                    ident(&asked.table.name),
                    between(&asked.counted, numbers)
                );
                if a.aside(|a| a.number(&sql))? == count {
                    asked.numbers.push(numbers);
                    return Ok(());
                }
            }
            (What::Delete, Some(count), _) if count == expected => {
                asked.deleted += count;
                return Ok(());
            }
            (What::Update(_) | What::Copy(_), Some(count), _) if count == expected => return Ok(()),
            _ => {}
        }
        let why = format!(
            "it changed {} of {}, and {expected} were kept before it: what it changed cannot be told",
            found.map_or_else(|| "rows".to_owned(), |count| count.to_string()),
            single.table
        );
        Err(CaptureError::Uncapturable(why))
    }

    /// The net effect on one table: fills its hold of after, and takes what is as it was out of that of before. How many
    /// rows each has; none where nothing was asked of it.
    pub fn net(
        &self,
        a: &mut Session,
        name: &str,
        [keys, before, after]: [&str; 3],
    ) -> Result<Option<(u64, u64)>, Error> {
        let Some(asked) = self.all.iter().find(|asked| asked.table.name == name) else { return Ok(None) };
        let Asked { table, counted, kept, deleted, numbers, by_key } = asked;
        let (x, b) = (Side::Live("x"), Side::Held("b"));
        let (held, live, is) = (table.held(""), table.live("x."), ident(name));
        let (keyed, same) = (table.keyed(x, b), table.all_same(x, b));
        if by_key.as_ref().is_some_and(|from| from.name != *name) {
            let under = table.keyed(x, Side::Held("k"));
            a.run(&format!(
                "INSERT INTO `{after}` ({held}) SELECT {live} FROM `{keys}` AS k STRAIGHT_JOIN {is} AS x ON {under}"
            ))?;
            if *kept > 0 {
                forget_unchanged(a, table, before, after)?;
            }
            return Ok(Some((table.rows_held(a, before)?, table.rows_held(a, after)?)));
        }
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

/// What rows are kept under, every value as it is; the condition means what it means to the statement.
const KEEPING: &str = "sql_mode = REGEXP_REPLACE(@@sql_mode, \
    '(STRICT_TRANS_TABLES|STRICT_ALL_TABLES|NO_ZERO_IN_DATE|NO_ZERO_DATE|TRADITIONAL)(,|$)', '')";

fn between(column: &Option<String>, (first, last): (u64, u64)) -> String {
    format!("({} BETWEEN {first} AND {last})", ident(column.as_deref().unwrap_or_default()))
}

/// The column whose values the server counts one by one, where it alone is the key of a table.
fn numbered(a: &mut Session, table: &Table) -> Result<Option<String>, Error> {
    let [at] = table.key[..] else { return Ok(None) };
    let counts = "SELECT @@innodb_autoinc_lock_mode < 2 AND @@auto_increment_increment = 1 AND @@insert_id = 0";
    if a.number(counts)? != 1 {
        return Ok(None);
    }
    let key = &table.columns[at];
    Ok((is_counted(a, table)? && key.kind.contains("int")).then(|| key.name.clone()))
}

/// True where the server gives numbers to the first column of a table's key.
fn is_counted(a: &mut Session, table: &Table) -> Result<bool, Error> {
    let found = a.value(&format!(
        "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} AND EXTRA LIKE '%auto_increment%'",
        literal(&table.name)
    ))?;
    Ok(found.is_some_and(|name| table.key.first().is_some_and(|at| table.columns[*at].name == name)))
}

/// The table that rows come from, where its key gives them theirs: of the same kind, the only unique one there, and at a
/// known place.
fn source(a: &mut Session, copied: &Copied, table: &Table) -> Result<Option<Table>, Error> {
    let is_own = copied.source == table.name;
    let [at] = table.key[..] else { return Ok(None) };
    if is_own && !copied.replaces || table::there(a, &copied.source)? != There::Table("InnoDB".to_owned()) {
        return Ok(None);
    }
    let from = Table::find(a, &copied.source)?;
    let [from_at] = from.key[..] else { return Ok(None) };
    let (key, from_key) = (&table.columns[at], &from.columns[from_at]);
    let unique = format!(
        "SELECT COUNT(DISTINCT INDEX_NAME) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} AND NON_UNIQUE = 0",
        literal(&table.name)
    );
    if key.kind != from_key.kind || copied.replaces && a.number(&unique)? != 1 {
        return Ok(None);
    }
    let mut first = |of: &str| {
        a.value(&format!(
            "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} AND ORDINAL_POSITION = 1 AND EXTRA NOT LIKE '%INVISIBLE%'",
            literal(of)
        ))
    };
    let place = match &copied.into {
        Some(into) => into.iter().position(|name| *name == key.name.to_lowercase()),
        None => (first(&table.name)?.as_ref() == Some(&key.name)).then_some(0),
    };
    let Some(given) = place.and_then(|place| copied.from.get(place)?.as_deref()) else { return Ok(None) };
    let is_key = match given {
        "*" => place == Some(0) && copied.from.len() == 1 && first(&from.name)?.as_ref() == Some(&from_key.name),
        // With a `*` before it its place is another.
        name => name.eq_ignore_ascii_case(&from_key.name) && copied.from.iter().flatten().all(|name| name != "*"),
    };
    if is_key && is_counted(a, table)? {
        let zero = format!("SELECT 1 FROM {} WHERE {} = 0", ident(&from.name), ident(&from_key.name));
        return Ok(a.value(&zero)?.is_none().then_some(from));
    }
    Ok(is_key.then_some(from))
}

/// Keeps the keys under which rows of another table will come, and what stands under them; how many of each.
fn keep_keys(
    a: &mut Session,
    single: &Single,
    (from, table): (&Table, &Table),
    hold: &impl Fn(&str, &str) -> String,
) -> Result<(u64, u64), CaptureError> {
    let (before, keys) = (hold(&table.name, "b"), hold(&table.name, "k"));
    let condition = if single.condition.is_empty() { "TRUE" } else { &single.condition };
    a.run(&format!(
        "SET STATEMENT {KEEPING} FOR INSERT INTO `{keys}` (c{}, seq) SELECT {}, 0 FROM {} WHERE ({condition}\n) LOCK IN SHARE MODE",
        table.key[0],
        ident(&from.columns[from.key[0]].name),
        ident(&from.name)
    ))?;
    let found = a.conn.affected_rows();
    let kept = a.aside(|a| {
        a.count(&format!(
            "INSERT INTO `{before}` ({}) SELECT {} FROM `{keys}` AS k STRAIGHT_JOIN {} AS x ON {} FOR UPDATE",
            table.held(""),
            table.live("x."),
            ident(&table.name),
            table.keyed(Side::Live("x"), Side::Held("k"))
        ))
    })?;
    Ok((found, kept))
}

/// Of `Rows matched: 3  Changed: 2  Warnings: 0` or `Records: 3  …` the first number.
fn first_number(info: &str, begin: &str) -> Option<u64> {
    info.strip_prefix(begin)?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_update_found_is_read() {
        assert_eq!(first_number("Rows matched: 30  Changed: 2  Warnings: 0", "Rows matched: "), Some(30));
        assert_eq!(first_number("", "Records: "), None);
    }
}
