//! Statements that change rows of one table alone, and of which can be told by their own text which: by the condition that
//! they say, or by the numbers that the server gives. What a condition could mean otherwise the second time is not told so:
//! whatever calls a function that is not known, or says a variable, a moment or another table.

use std::collections::BTreeSet;

use super::reader::{Name, Reader, reader};
use super::run::set_columns;
use super::sequence::draws;
use super::table::Table;
use super::token::{Kind, Token, each_token};

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
    pub what: What,
    pub table: String,
    /// Which rows; empty where all.
    pub condition: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Sets these columns, in small letters.
    Update(BTreeSet<String>),
    Delete,
    /// Gives values for these columns, in small letters.
    Insert(BTreeSet<String>),
    /// Brings rows of the table itself; the column that their first value is of, or `*`.
    Replace(String),
}

/// A bare statement as one of these; none where it is none, or says what a statement in between would change. `sql`: as it
/// is written.
pub fn single(sql: &str, bare: &str) -> Option<Single> {
    let mut rest = reader(bare);
    let first = rest.next()?;
    // Settings for it alone, and comments that the server runs, stand before it.
    each_token(sql).next().filter(|token| token.start == first.start && token.text == first.text)?;
    let told = |token: Token<'_>| token.is("ROW_COUNT") || token.is_sign(b'@') || token.is_sign(b':');
    if each_token(bare).any(told) || draws(bare) {
        return None;
    }
    if first.is("UPDATE") {
        rest.takes("LOW_PRIORITY");
        let table = own_name(&mut rest)?;
        rest.takes("SET").then_some(())?;
        let (end, condition) = condition(bare, rest)?;
        let columns = set_columns(&bare[..end]);
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
    if first.is("REPLACE") {
        rest.takes("LOW_PRIORITY");
        rest.takes("INTO");
        let table = own_name(&mut rest)?;
        let (column, condition) = of_itself(bare, rest, &table)?;
        return Some(Single { what: What::Replace(column), table, condition });
    }
    first.is("INSERT").then_some(())?;
    for word in ["LOW_PRIORITY", "HIGH_PRIORITY", "INTO"] {
        rest.takes(word);
    }
    let table = own_name(&mut rest)?;
    rest.takes_sign(b'(').then_some(())?;
    let columns = rest.names()?.into_iter().map(|name| name.name.to_lowercase()).collect();
    rest.takes_sign(b')').then_some(())?;
    rest.peek().filter(|token| ["SELECT", "VALUES", "VALUE", "WITH"].iter().any(|word| token.is(word)))?;
    let others = |token: Token<'_>| token.is("DUPLICATE") || token.is("RETURNING");
    (!each_token(bare).any(others)).then_some(Single { what: What::Insert(columns), table, condition: String::new() })
}

/// Of `SELECT … FROM table WHERE …` and nothing else the column that comes first, or `*` where all come, and the condition.
fn of_itself(bare: &str, mut rest: Reader<'_>, table: &str) -> Option<(String, String)> {
    rest.takes("SELECT").then_some(())?;
    let (mut items, mut depth) = (vec![Vec::new()], 0_u32);
    loop {
        let token = rest.next()?;
        if depth == 0 && token.is("FROM") {
            break;
        }
        if token.is_sign(b'(') {
            depth += 1;
        } else if token.is_sign(b')') {
            depth = depth.checked_sub(1)?;
        }
        match depth == 0 && token.is_sign(b',') {
            true => items.push(Vec::new()),
            false => items.last_mut()?.push(token),
        }
    }
    (own_name(&mut rest)? == table).then_some(())?;
    rest.peek().is_none_or(|token| token.is("WHERE")).then_some(())?;
    let (_, condition) = condition(bare, rest)?;
    let is_all = |item: &Vec<Token<'_>>| item.last().is_some_and(|token| token.is_sign(b'*'));
    let column = match items[0].as_slice() {
        _ if items.len() == 1 && is_all(&items[0]) => "*".to_owned(),
        _ if items.iter().any(is_all) => return None,
        [name] => name.name()?,
        [of, dot, name] if dot.is_sign(b'.') && of.name()? == table => name.name()?,
        _ => return None,
    };
    Some((column, condition))
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

/// True where a condition says nothing but columns of a table and what follows from them. A time of the day becomes one of
/// today where it is compared with a moment.
pub fn is_certain(condition: &str, table: &Table) -> bool {
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
                        (behind_dot || kind == Kind::Quoted || !is_moment(&name)) && !column.is_time_of_day()
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

#[cfg(test)]
mod tests {
    use super::super::table::{Column, Compared};
    use super::*;

    #[test]
    fn plain_statements_are_known() {
        let columns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let replace = |column: &str| What::Replace(column.to_owned());
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
            ("INSERT INTO t (a, B) SELECT 1, 2 FROM t ORDER BY 1", Some((What::Insert(columns(&["a", "b"])), ""))),
            ("REPLACE t SELECT `A`, b * 2, (SELECT b FROM c) FROM t WHERE d = 1", Some((replace("A"), "d = 1"))),
            ("REPLACE INTO t SELECT t.* FROM t", Some((replace("*"), ""))),
            ("REPLACE INTO t SELECT t.a, t.* FROM t", None),
            ("REPLACE INTO t SELECT DISTINCT a FROM t", None),
            ("REPLACE INTO t SELECT a + 1 FROM t", None),
            ("REPLACE INTO t SELECT u.a FROM t", None),
            ("REPLACE INTO t SELECT a FROM t AS x", None),
            ("REPLACE INTO t SELECT a FROM t WHERE b = 1 LIMIT 1", None),
            ("REPLACE INTO t SELECT a FROM u", None),
            ("REPLACE INTO t (a, b) SELECT a, b FROM t", None),
            ("UPDATE t SET a := 1", None),
            ("UPDATE t SET a = NEXT VALUE FOR s", None),
            ("INSERT INTO t SELECT a FROM u", None),
            ("INSERT INTO t SELECT 1", None),
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
            column("end", "time(3)"),
            column("current_date", "int(11)"),
        ];
        let table = Table { name: "t".to_owned(), columns, key: vec![0] };
        for (condition, expected) in [
            ("a = 1 AND NOT (`of` LIKE 'x)%' OR t.a IS NULL)", true),
            ("LOWER(OF) = CONCAT('a', a) AND IF(a BETWEEN 1 AND 2, TRUE, a IS NULL)", true),
            ("`current_date` = 3", true),
            ("current_date = 3", false),
            ("day = '2020-01-01'", true),
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
            assert_eq!(is_certain(condition, &table), expected, "{condition}");
        }
    }
}
