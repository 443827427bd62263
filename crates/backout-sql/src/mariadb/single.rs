//! Statements that change rows of one table alone, and of which can be told by their own text which: by the condition that
//! they say, by the numbers that the server gives, or by the keys of the table whose rows they bring. What a condition could
//! mean otherwise the second time is not told so: whatever calls a function that is not known, or says a variable, a moment
//! or another table.

use std::collections::BTreeSet;

use super::reader::{Name, Reader, reader};
use super::run::set_columns;
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
    /// Brings rows of one table, whose key gives them theirs.
    Copy(Copied),
}

/// What INSERT and REPLACE … SELECT say of one table; the condition is its.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copied {
    pub replaces: bool,
    /// The columns that get values, in small letters; none where all do.
    pub into: Option<Vec<String>>,
    pub source: String,
    /// The columns of the source that they get; none where that is more than a column.
    pub from: Vec<Option<String>>,
}

impl Copied {
    /// The columns that get values, where the server may give the key.
    pub fn numbered(&self) -> Option<BTreeSet<String>> {
        self.into.as_ref().filter(|_| !self.replaces).map(|into| into.iter().cloned().collect())
    }
}

/// A bare statement as one of these; none where it is none, or says what a statement in between would change. `sql`: as it
/// is written.
pub fn single(sql: &str, bare: &str) -> Option<Single> {
    let mut rest = reader(bare);
    let first = rest.next()?;
    // Settings for it alone, and comments that the server runs, stand before it.
    each_token(sql).next().filter(|token| token.start == first.start && token.text == first.text)?;
    let told = |token: Token<'_>| token.is("ROW_COUNT") || token.text == "@" || token.text.contains("@@");
    if each_token(bare).any(told) {
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
    if !first.is("INSERT") && !first.is("REPLACE") {
        return None;
    }
    for word in ["LOW_PRIORITY", "HIGH_PRIORITY", "INTO"] {
        rest.takes(word);
    }
    let table = own_name(&mut rest)?;
    let mut into = None;
    if rest.takes_sign(b'(') {
        into = Some(rest.names()?.into_iter().map(|name| name.name.to_lowercase()).collect::<Vec<_>>());
        rest.takes_sign(b')').then_some(())?;
    }
    let others = |token: Token<'_>| token.is("DUPLICATE") || token.is("RETURNING");
    if each_token(bare).any(others) {
        return None;
    }
    let is_numbered = ["SELECT", "VALUES", "VALUE", "WITH"].iter().any(|word| rest.clone().takes(word));
    if let Some((copied, condition)) = copied(bare, rest, first.is("REPLACE"), into.clone()) {
        return Some(Single { what: What::Copy(copied), table, condition });
    }
    let columns = into.filter(|_| is_numbered && first.is("INSERT"))?.into_iter().collect();
    Some(Single { what: What::Insert(columns), table, condition: String::new() })
}

/// `SELECT … FROM source WHERE …`, and nothing else.
fn copied(bare: &str, mut rest: Reader<'_>, replaces: bool, into: Option<Vec<String>>) -> Option<(Copied, String)> {
    rest.takes("SELECT").then_some(())?;
    let (mut from, mut item, mut depth) = (Vec::new(), Vec::new(), 0_u32);
    loop {
        let token = rest.next()?;
        if depth == 0 && (token.is_sign(b',') || token.is("FROM")) {
            from.push(column(&std::mem::take(&mut item)));
            if token.is("FROM") {
                break;
            }
            continue;
        }
        if token.is_sign(b'(') {
            depth += 1;
        } else if token.is_sign(b')') {
            depth = depth.checked_sub(1)?;
        }
        item.push(token);
    }
    let source = own_name(&mut rest)?;
    rest.peek().is_none_or(|token| token.is("WHERE")).then_some(())?;
    let (_, condition) = condition(bare, rest)?;
    Some((Copied { replaces, into, source, from }, condition))
}

/// An item of a list that is a column alone, perhaps behind its table; `*` for all.
fn column(item: &[Token<'_>]) -> Option<String> {
    match item {
        [all] if all.is_sign(b'*') => Some("*".to_owned()),
        [name] => name.name(),
        [_, dot, name] if dot.is_sign(b'.') => name.name(),
        _ => None,
    }
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
pub fn is_certain(condition: &str, table: &Table, by_time: bool) -> bool {
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

#[cfg(test)]
mod tests {
    use super::super::table::{Column, Compared};
    use super::*;

    #[test]
    fn plain_statements_are_known() {
        let columns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let copy = |replaces, into: Option<&[&str]>, from: &[Option<&str>]| {
            let into = into.map(|into| into.iter().map(|name| (*name).to_owned()).collect());
            let from = from.iter().map(|name| name.map(str::to_owned)).collect();
            What::Copy(Copied { replaces, into, source: "u".to_owned(), from })
        };
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
            (
                "INSERT INTO t (a, B) SELECT 1, t.`C` FROM u WHERE d = 1",
                Some((copy(false, Some(&["a", "b"]), &[None, Some("C")]), "d = 1")),
            ),
            (
                "REPLACE t SELECT *, LEFT(a, 2), (SELECT b FROM c) FROM u",
                Some((copy(true, None, &[Some("*"), None, None]), "")),
            ),
            ("REPLACE INTO t SELECT DISTINCT a FROM u", Some((copy(true, None, &[None]), ""))),
            ("INSERT INTO t SELECT a FROM u AS x", None),
            ("INSERT INTO t SELECT a FROM u, v", None),
            ("INSERT INTO t SELECT a FROM u WHERE b = 1 LIMIT 1", None),
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
}
