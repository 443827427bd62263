//! Statements of which can be told without triggers which rows they change: by the condition that an UPDATE or DELETE says
//! itself, or by the numbers that the server gave to what was inserted.
//!
//! The rows that a condition names are kept, and locked with the gaps between them, before the statement runs; it then has to
//! find as many. What a condition could mean otherwise the second time is left to triggers: whatever calls a function that is
//! not known, or says a variable, a moment or another table.

use std::collections::BTreeSet;

use mysql::Error;

use super::capture::CaptureError;
use super::reader::{Name, Reader, reader};
use super::run::Run;
use super::session::{Session, ident, literal};
use super::table::{Side, Table};
use super::token::{Kind, each_token};
use super::written::Plan;

/// With more statements than this triggers cost less.
pub const FEW: usize = 8;

/// Functions whose value follows from what they are given.
const FUNCTIONS: [&str; 34] = [
    "ABS",
    "ASCII",
    "CEIL",
    "CEILING",
    "CHAR_LENGTH",
    "COALESCE",
    "CONCAT",
    "CONCAT_WS",
    "FIELD",
    "FIND_IN_SET",
    "FLOOR",
    "GREATEST",
    "HEX",
    "IF",
    "IFNULL",
    "INSTR",
    "LCASE",
    "LEAST",
    "LEFT",
    "LENGTH",
    "LOCATE",
    "LOWER",
    "LTRIM",
    "MD5",
    "MOD",
    "NULLIF",
    "REPLACE",
    "RIGHT",
    "ROUND",
    "RTRIM",
    "SUBSTRING",
    "TRIM",
    "UCASE",
    "UPPER",
];
/// Other words that a condition may say.
const WORDS: [&str; 23] = [
    "AND", "BETWEEN", "BINARY", "CASE", "DIV", "ELSE", "END", "ESCAPE", "FALSE", "IN", "IS", "LIKE", "MOD", "NOT",
    "NULL", "OR", "REGEXP", "RLIKE", "THEN", "TRUE", "UNKNOWN", "WHEN", "XOR",
];

/// A statement that changes rows of one table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Single {
    what: What,
    table: String,
    /// Which rows; empty where all.
    condition: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// Sets these columns, in small letters.
    Update(BTreeSet<String>),
    Delete,
    /// Gives values for these columns, in small letters.
    Insert(BTreeSet<String>),
}

/// A bare statement as one of these; none where it is none, or says what a statement in between would change. `sql`: as it
/// is written.
pub fn single(sql: &str, bare: &str) -> Option<Single> {
    let mut rest = reader(bare);
    let first = rest.next()?;
    // Settings for it alone, and comments that the server runs, stand before it.
    each_token(sql).next().filter(|token| token.start == first.start && token.text == first.text)?;
    let told = |token: super::token::Token<'_>| token.is("ROW_COUNT") || token.text == "@" || token.text.contains("@@");
    if each_token(bare).any(told) {
        return None;
    }
    if first.is("UPDATE") {
        rest.takes("LOW_PRIORITY");
        let table = own_name(&mut rest)?;
        rest.takes("SET").then_some(())?;
        let (end, condition) = condition(bare, rest)?;
        let columns = super::run::set_columns(&bare[..end]);
        return Some(Single { what: What::Update(columns), table, condition });
    }
    if first.is("DELETE") {
        rest.takes("LOW_PRIORITY");
        rest.takes("QUICK");
        rest.takes("FROM").then_some(())?;
        let table = own_name(&mut rest)?;
        rest.peek().is_none_or(|token| token.is("WHERE")).then_some(())?;
        let (_, condition) = condition(bare, rest)?;
        return Some(Single { what: What::Delete, table, condition });
    }
    if first.is("INSERT") {
        for word in ["LOW_PRIORITY", "HIGH_PRIORITY", "INTO"] {
            rest.takes(word);
        }
        let table = own_name(&mut rest)?;
        rest.takes_sign(b'(').then_some(())?;
        let columns = rest.names()?.into_iter().map(|name| name.name.to_lowercase()).collect();
        rest.takes_sign(b')').then_some(())?;
        rest.peek().filter(|token| ["SELECT", "VALUES", "VALUE", "WITH"].iter().any(|word| token.is(word)))?;
        let others = |token: super::token::Token<'_>| token.is("DUPLICATE") || token.is("RETURNING");
        return (!each_token(bare).any(others)).then_some(Single {
            what: What::Insert(columns),
            table,
            condition: String::new(),
        });
    }
    None
}

fn own_name(rest: &mut Reader<'_>) -> Option<String> {
    rest.name().filter(|name: &Name| name.database.is_none()).map(|name| name.name)
}

/// Where WHERE stands, or the end, and what follows; none where a part of it follows that says how many rows.
fn condition(bare: &str, rest: Reader<'_>) -> Option<(usize, String)> {
    let (mut depth, mut found) = (0_u32, None);
    for token in rest {
        if token.is_sign(b'(') {
            depth += 1;
        } else if token.is_sign(b')') {
            depth = depth.checked_sub(1)?;
        } else if depth == 0 && token.is("WHERE") && found.is_none() {
            found = Some((token.start, token.start + token.text.len()));
        } else if depth == 0 && ["ORDER", "LIMIT", "RETURNING", "WHERE"].iter().any(|word| token.is(word)) {
            return None;
        }
    }
    let (end, begin) = found.unwrap_or((bare.len(), bare.len()));
    Some((end, bare[begin..].trim().to_owned()))
}

/// True where a condition says nothing but columns of a table and what follows from them; `by_time`: dates and times, too.
fn is_certain(condition: &str, table: &Table, by_time: bool) -> bool {
    let mut tokens = reader(condition);
    let (mut behind_dot, mut depth) = (false, 0_u32);
    while let Some(token) = tokens.next() {
        let next = tokens.peek();
        let before_dot = next.is_some_and(|next| next.is_sign(b'.'));
        let calls = next.is_some_and(|next| next.is_sign(b'('));
        let is_fine = match (token.kind, token.name()) {
            (Kind::Sign(b'('), _) => {
                depth += 1;
                true
            }
            (Kind::Sign(b')'), _) if depth > 0 => {
                depth -= 1;
                true
            }
            (Kind::Sign(b')' | b'@' | b';' | b'?' | b':' | b'{'), _) => false,
            (_, None) => true,
            (_, Some(name)) if before_dot => !behind_dot && name == table.name,
            (kind, Some(name)) => {
                let column = table.columns.iter().find(|column| column.name.eq_ignore_ascii_case(&name));
                let said = |words: &[&str]| kind == Kind::Word && words.iter().any(|word| token.is(word));
                match column {
                    // `CURRENT_DATE` is no column, whatever there is.
                    Some(column) if !calls => {
                        (behind_dot || kind == Kind::Quoted || !is_moment(&name)) && (by_time || !column.is_temporal())
                    }
                    _ => !behind_dot && (said(&WORDS) || calls && said(&FUNCTIONS)),
                }
            }
        };
        if !is_fine {
            return false;
        }
        behind_dot = token.is_sign(b'.');
    }
    depth == 0
}

fn is_moment(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["CURRENT_", "LOCALTIME", "UTC_", "SYSDATE", "ROWNUM"].iter().any(|begin| name.starts_with(begin))
}

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
    pub fn of(a: &mut Session, run: &Run, plan: &Plan) -> Result<Option<Self>, Error> {
        let is_plain = !run.all && !run.unlike && !run.singles.is_empty();
        let is_alone = plan.paths.is_empty() && plan.copied.is_empty() && plan.triggers.is_empty();
        if !is_plain || !is_alone || plan.written.len() != plan.tables.len() {
            return Ok(None);
        }
        let isolation = a.value("SELECT @@tx_isolation")?.unwrap_or_default();
        if !matches!(isolation.as_str(), "REPEATABLE-READ" | "SERIALIZABLE") {
            return Ok(None);
        }
        // What a date is compared with means less under these, and no row is kept under them.
        let by_time = !run.sets_something && a.number("SELECT INSTR(@@sql_mode, 'NO_ZERO')")? == 0;
        let mut all: Vec<Asked> = Vec::new();
        for single in &run.singles {
            let Some(table) = plan.tables.get(&single.table).filter(|table| !table.is_loose()) else { return Ok(None) };
            let keys = || table.key.iter().map(|at| &table.columns[*at]);
            let mut counted = None;
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
                What::Delete if !is_certain(&single.condition, table, by_time) => return Ok(None),
                What::Delete => {}
            }
            match all.iter_mut().find(|asked| asked.table.name == table.name) {
                Some(asked) => asked.counted = asked.counted.take().or(counted),
                None => all.push(Asked { table: table.clone(), counted, kept: 0, deleted: 0, numbers: Vec::new() }),
            }
        }
        Ok(Some(Self { left: run.singles.clone().into_iter(), all, now: None, is_one: run.singles.len() == 1 }))
    }

    /// Right before the next statement: keeps what it will change in the holds of before, which `hold` names.
    pub fn ask(&mut self, a: &mut Session, hold: impl Fn(&str) -> String) -> Result<(), CaptureError> {
        let over = || CaptureError::Uncapturable("it is not the statement that was read".to_owned());
        let single = self.left.next().ok_or_else(over)?;
        let asked = self.all.iter_mut().find(|asked| asked.table.name == single.table).ok_or_else(over)?;
        let mut found = 0;
        if !matches!(single.what, What::Insert(_)) {
            let table = &asked.table;
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
                hold(&table.name),
                table.held(""),
                table.live("")
            ))?;
            (found, asked.kept) = match asked.kept == 0 && new.is_empty() {
                true => (a.conn.affected_rows(), a.conn.affected_rows()),
                false => (
                    a.number(&format!("SELECT COUNT(*) FROM {of} FOR UPDATE"))?,
                    a.number(&format!("SELECT COUNT(*) FROM `{}`", hold(&table.name)))?,
                ),
            };
        }
        self.now = Some((single, found));
        Ok(())
    }

    /// Right behind it: it found what was kept, or had its numbers from the server one after the other.
    pub fn told(&mut self, a: &mut Session) -> Result<(), CaptureError> {
        let Some((single, expected)) = self.now.take() else { return Ok(()) };
        let (touched, first) = (a.conn.affected_rows(), a.conn.last_insert_id());
        let found = match &single.what {
            What::Update(_) => matched(&a.conn.info_str()),
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
            (What::Update(_), Some(count), _) if count == expected => return Ok(()),
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
    pub fn net(&self, a: &mut Session, name: &str, before: &str, after: &str) -> Result<Option<(u64, u64)>, Error> {
        let Some(Asked { table, counted, kept, deleted, numbers }) =
            self.all.iter().find(|asked| asked.table.name == name)
        else {
            return Ok(None);
        };
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
    let found = a.value(&format!(
        "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} AND EXTRA LIKE '%auto_increment%'",
        literal(&table.name)
    ))?;
    Ok(found.filter(|name| *name == table.columns[at].name && table.columns[at].kind.contains("int")))
}

/// Of `Rows matched: 3  Changed: 2  Warnings: 0` the first number.
fn matched(info: &str) -> Option<u64> {
    info.strip_prefix("Rows matched: ")?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::table::{Column, Compared};
    use super::*;

    #[test]
    fn plain_statements_are_known() {
        let columns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        for (sql, expected) in [
            (
                "UPDATE t SET `A` = (SELECT 1 FROM u WHERE v = 2), b = a WHERE c = 1",
                Some((What::Update(columns(&["a", "b"])), "c = 1")),
            ),
            ("update low_priority t set a = 1", Some((What::Update(columns(&["a"])), ""))),
            ("UPDATE t, u SET t.a = 1", None),
            ("UPDATE t AS x SET a = 1", None),
            ("UPDATE IGNORE t SET a = 1", None),
            ("UPDATE d.t SET a = 1", None),
            ("UPDATE t SET a = 1 WHERE b = 2 LIMIT 1", None),
            ("UPDATE t SET a = @@warning_count", None),
            ("DELETE QUICK FROM t WHERE a IN (1, 2)", Some((What::Delete, "a IN (1, 2)"))),
            ("DELETE FROM t", Some((What::Delete, ""))),
            ("DELETE FROM t AS x", None),
            ("DELETE t FROM t JOIN u", None),
            ("DELETE FROM t WHERE a = 1 RETURNING a", None),
            ("INSERT INTO t (a, B) SELECT 1, 2 FROM t", Some((What::Insert(columns(&["a", "b"])), ""))),
            ("INSERT t (a) VALUES (1)", Some((What::Insert(columns(&["a"])), ""))),
            ("INSERT INTO t VALUES (1)", None),
            ("INSERT INTO t SET a = 1", None),
            ("INSERT INTO t (a) VALUES (1) ON DUPLICATE KEY UPDATE a = 2", None),
            ("REPLACE INTO t (a) VALUES (1)", None),
        ] {
            let found = single(sql, sql).map(|one| (one.what, one.condition));
            let expected = expected.map(|(what, condition)| (what, condition.to_owned()));
            assert_eq!(found, expected, "{sql}");
        }
        assert_eq!(single("SET STATEMENT a = 1 FOR DELETE FROM t", &format!("{:24}DELETE FROM t", "")), None);
    }

    #[test]
    fn a_condition_is_certain_where_it_says_columns_alone() {
        let column = |name: &str, kind: &str| Column {
            name: name.to_owned(),
            kind: kind.to_owned(),
            compared: Compared::Plain,
            binary: false,
            moves: false,
        };
        let columns = vec![
            column("a", "int(11)"),
            column("Of", "varchar(9)"),
            column("day", "date"),
            column("end", "datetime"),
            column("current_date", "int(11)"),
        ];
        let table = Table { name: "t".to_owned(), columns, key: vec![0] };
        for (condition, expected) in [
            ("a = 1 AND NOT (`of` LIKE 'x)%' OR t.a IS NULL)", true),
            ("LOWER(OF) = CONCAT('a', a) AND IF(a BETWEEN 1 AND 2, TRUE, a IS NULL)", true),
            ("`current_date` = 3", true),
            ("current_date = 3", false),
            ("day = '2020-01-01'", false),
            ("a = 1 AND end < 3", false),
            ("a = @x", false),
            ("a = (SELECT 1)", false),
            ("a = RAND()", false),
            ("a = d.LOWER('x')", false),
            ("a = LOWER.x", false),
            ("u.a = 1", false),
            ("d.t.a = 1", false),
            ("nobody = 1", false),
            ("a = 1) OR (a = 2", false),
            ("a = DATE '2020-01-01'", false),
            ("a = DEFAULT(a)", false),
            ("a = 'x' COLLATE utf8mb4_bin", false),
        ] {
            assert_eq!(is_certain(condition, &table, false), expected, "{condition}");
        }
    }

    #[test]
    fn what_an_update_found_is_read() {
        assert_eq!(matched("Rows matched: 30  Changed: 2  Warnings: 0"), Some(30));
        assert_eq!(matched(""), None);
    }
}
