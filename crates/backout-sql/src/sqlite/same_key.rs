//! Whether the statements that fill a new table gave each row the key that it had in the old one, as a rebuild does, and the
//! values that they gave to all rows. Reads their text; what it does not understand it takes for a copy under other keys.

use std::collections::BTreeMap;

use super::copying::target;
use super::courses::Pair;
use super::schema::Shape;
use super::stream::{Affinity, Block, Event, Reader, Record, StreamError};
use super::token::{Kind, Token, tokens};

/// The two tables of a pair, by the columns that each has.
pub struct Tables<'a> {
    pub pair: &'a Pair,
    pub new: &'a Shape,
    pub old: &'a Shape,
}

/// By columns, in lower case, the values that a copy gave to all rows, as `quote()` writes them.
pub type Constants = BTreeMap<String, Vec<String>>;

/// Where a value of a copied row comes from.
enum Given {
    Column(String),
    Constant(String),
    Else,
}

impl Tables<'_> {
    /// Whether the key's columns take values alike in both tables: else a value may become that of another row.
    fn has_like_keys(&self) -> bool {
        let affinity = |shape: &Shape, name: &str| shape.column(name).map(|column| Affinity::of(&column.declared));
        self.new.key().iter().all(|key| affinity(self.new, &key.name) == affinity(self.old, &key.name))
    }

    /// The values that the step gave to all rows of the new table; none where what it did there, while the old one was there,
    /// may not have kept the keys.
    pub fn kept_keys(&self, reader: &mut Reader<'_>, events: &[Event]) -> Result<Option<Constants>, StreamError> {
        if !self.has_like_keys() {
            return Ok(None);
        }
        let mut constants = Constants::new();
        let mut block = Block::default();
        for event in events.get(self.pair.create..self.pair.drop).unwrap_or_default() {
            let Event::Rows { start, end, .. } = event else { continue };
            let mut at = *start;
            while at < *end {
                let head = reader.head(at)?;
                at = head.end();
                reader.block(&head, &mut block)?;
                for number in 0..block.len() {
                    if let Record::Statement { sql, .. } = block.record(number)?
                        && !self.keeps_keys(sql, &mut constants)
                    {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(constants))
    }

    fn keeps_keys(&self, sql: &str, constants: &mut Constants) -> bool {
        let is = |name: &str, other: &str| name.eq_ignore_ascii_case(other);
        let words = tokens(sql);
        match target(sql) {
            Some((verb, table)) if is(&table, &self.pair.new) => {
                is(verb, "DELETE")
                    || is(verb, "UPDATE") && !self.sets_key(&words)
                    || !is(verb, "UPDATE") && self.copies_key(&words, constants).is_some()
            }
            Some((verb, table)) => !is(&table, &self.pair.old) || is(verb, "DELETE"),
            None => {
                let speaks = |one: &Token<'_>| one.name().is_some_and(|name| is(&name, &self.pair.new));
                !words.iter().any(speaks)
            }
        }
    }

    fn is_key(&self, word: &Token<'_>) -> bool {
        word.name().is_some_and(|name| self.new.key().iter().any(|key| key.name.eq_ignore_ascii_case(&name)))
            || ["rowid", "oid", "_rowid_"].iter().any(|one| word.is(one))
    }

    fn sets_key(&self, words: &[Token<'_>]) -> bool {
        let from = words.iter().position(|word| word.is("SET")).unwrap_or(0);
        words[from..].iter().take_while(|word| !word.is("WHERE")).any(|word| self.is_key(word))
    }

    /// Of `INSERT INTO new (…) SELECT … FROM old`: some where each column of the key comes from the one of that name.
    fn copies_key(&self, words: &[Token<'_>], constants: &mut Constants) -> Option<()> {
        let select = words.iter().position(|word| word.is("SELECT"))?;
        let into: Vec<String> = match words[..select].iter().position(|word| word.is_sign(b'(')) {
            Some(open) => {
                parts(&words[open + 1..select - 1]).map(|part| part.first()?.name()).collect::<Option<_>>()?
            }
            None => self.new.stored().map(|column| column.name.clone()).collect(),
        };
        let from = select + outside(&words[select..]).find(|(_, word)| word.is("FROM"))?.0;
        let mut list = &words[select + 1..from];
        if list.first()?.is("DISTINCT") || list.first()?.is("ALL") {
            list = &list[1..];
        }
        let source = self.source(&words[from + 1..])?;
        let mut given: Vec<Given> = Vec::new();
        for part in parts(list) {
            match part {
                [all] if all.is_sign(b'*') && source.is_alone => given.extend(self.old_columns()),
                [of, dot, all] if dot.is_sign(b'.') && all.is_sign(b'*') => match source.has(of) {
                    true => given.extend(self.old_columns()),
                    false => return None,
                },
                [all] if all.is_sign(b'*') => return None,
                part => given.push(source.given(part)),
            }
        }
        let comes = |key: &str| {
            let at = into.iter().position(|name| name.eq_ignore_ascii_case(key))?;
            matches!(given.get(at)?, Given::Column(name) if name.eq_ignore_ascii_case(key)).then_some(())
        };
        self.new.key().iter().all(|key| comes(&key.name).is_some()).then_some(())?;
        for (name, given) in into.iter().zip(given) {
            if let Given::Constant(value) = given {
                constants.entry(name.to_ascii_lowercase()).or_default().push(value);
            }
        }
        Some(())
    }

    fn old_columns(&self) -> impl Iterator<Item = Given> {
        self.old.columns.iter().map(|column| Given::Column(column.name.clone()))
    }

    /// What follows FROM; none where rows don't come from the old table first, or from another SELECT as well.
    fn source(&self, mut words: &[Token<'_>]) -> Option<Source> {
        if words.first()?.is("main") && words.get(1)?.is_sign(b'.') {
            words = &words[2..];
        }
        let own = words.first()?.name().filter(|name| name.eq_ignore_ascii_case(&self.pair.old))?;
        if outside(words).any(|(_, word)| ["UNION", "EXCEPT", "INTERSECT"].iter().any(|one| word.is(one))) {
            return None;
        }
        let alias = match words.get(1..)? {
            [as_, alias, ..] if as_.is("AS") => alias.name(),
            [alias, ..] if !FOLLOWS.iter().any(|word| alias.is(word)) => alias.name(),
            _ => None,
        };
        let ends = |word: &Token<'_>| ["WHERE", "ORDER", "GROUP", "LIMIT"].iter().any(|end| word.is(end));
        let mut tables = outside(words).map(|(_, word)| word).take_while(|word| !ends(word));
        let is_alone = !tables.any(|word| word.is_sign(b',') || word.is("JOIN"));
        Some(Source { known_as: alias.unwrap_or(own), is_alone })
    }
}

/// Words that may come after a table's name and are not another one for it.
const FOLLOWS: [&str; 14] = [
    "WHERE", "ORDER", "GROUP", "LIMIT", "JOIN", "LEFT", "RIGHT", "FULL", "INNER", "CROSS", "NATURAL", "INDEXED", "NOT",
    "ON",
];

/// The old table as the source of a copy.
struct Source {
    known_as: String,
    /// No other table stands beside it.
    is_alone: bool,
}

impl Source {
    fn has(&self, table: &Token<'_>) -> bool {
        table.name().is_some_and(|name| name.eq_ignore_ascii_case(&self.known_as))
    }

    /// What an expression is, be it under a name of its own.
    fn given(&self, part: &[Token<'_>]) -> Given {
        let part = match part {
            [rest @ .., word, _] if word.is("AS") => rest,
            _ => part,
        };
        let column = match part {
            [value] if matches!(value.kind, Kind::Text | Kind::Literal) => {
                return Given::Constant(value.text.to_owned());
            }
            [minus, value] if minus.is_sign(b'-') && value.kind == Kind::Literal => {
                return Given::Constant(format!("-{}", value.text));
            }
            [name] if self.is_alone => name.name(),
            [table, dot, name] if dot.is_sign(b'.') && self.has(table) => name.name(),
            _ => None,
        };
        column.map_or(Given::Else, Given::Column)
    }
}

/// The words that stand in no parentheses, each with its place.
fn outside<'a, 'b>(words: &'b [Token<'a>]) -> impl Iterator<Item = (usize, &'b Token<'a>)> {
    let mut depth = 0_usize;
    words.iter().enumerate().filter(move |(_, word)| match word.kind {
        Kind::Sign(b'(') => {
            depth += 1;
            false
        }
        Kind::Sign(b')') => {
            depth = depth.saturating_sub(1);
            false
        }
        _ => depth == 0,
    })
}

/// What stands between commas.
fn parts<'a, 'b>(words: &'b [Token<'a>]) -> impl Iterator<Item = &'b [Token<'a>]> {
    let mut ends: Vec<usize> = outside(words).filter(|(_, word)| word.is_sign(b',')).map(|(at, _)| at).collect();
    ends.push(words.len());
    let mut start = 0;
    ends.into_iter().map(move |end| {
        let part = words.get(start..end).unwrap_or_default();
        start = end + 1;
        part
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::super::schema;
    use super::*;

    #[test]
    fn what_keeps_the_key_is_told_from_what_may_not() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE n(id INTEGER PRIMARY KEY, v, w)")
            .unwrap();
        let (new, old) = (schema::shape(&conn, "n").unwrap(), schema::shape(&conn, "t").unwrap());
        let pair = Pair { create: 0, drop: 3, new: "n".to_owned(), old: "t".to_owned() };
        let tables = Tables { pair: &pair, new: &new, old: &old };
        for sql in [
            "",
            "INSERT INTO n(id, v) SELECT * FROM t",
            "INSERT INTO n(v, id) SELECT upper(v), id FROM t",
            "INSERT OR IGNORE INTO \"n\" (\"id\", v) SELECT t.\"id\" AS id, coalesce(v, (SELECT 1, 2 FROM t)) FROM main.\"t\" WHERE id IN (1, 2)",
            "REPLACE INTO n(id, v) SELECT id, v FROM t x ORDER BY v, id",
            "UPDATE n SET v = upper(v) WHERE id = 3",
            "INSERT INTO n SELECT *, 1 FROM t",
            "INSERT INTO n SELECT x.*, o.name FROM t AS x LEFT JOIN other o ON o.id = x.v ORDER BY 1",
            "INSERT INTO n(v, id) SELECT o.name, t.id FROM t JOIN other o USING (v)",
            "DELETE FROM n WHERE id = 3",
            "DELETE FROM t",
            "INSERT INTO other SELECT id + 1 FROM t",
            "WITH x AS (SELECT 1) INSERT INTO other SELECT * FROM x",
        ] {
            assert!(tables.keeps_keys(sql, &mut Constants::new()), "{sql}");
        }
        for sql in [
            "INSERT INTO n SELECT id + 1, v, v FROM t",
            "INSERT INTO n SELECT 1, * FROM t",
            "INSERT INTO n SELECT *, 1 FROM t JOIN other",
            "INSERT INTO n(id, v) SELECT o.id, t.v FROM t, other o",
            "INSERT INTO n(id, v) SELECT 'id', v FROM t",
            "INSERT INTO n(id, v) SELECT v, id FROM t",
            "INSERT INTO n(v) SELECT v FROM t",
            "INSERT INTO n(id, v) SELECT id, v FROM other",
            "INSERT INTO n(id, v) SELECT id, v FROM t, other",
            "INSERT INTO n(id, v) SELECT other.id, v FROM t JOIN other",
            "INSERT INTO n(id, v) SELECT id, v FROM t UNION SELECT id + 1, v FROM t",
            "INSERT INTO n(id, v) VALUES (1, 2)",
            "UPDATE n SET id = id + 1",
            "UPDATE t SET id = id + 1",
            "WITH x AS (SELECT * FROM t) INSERT INTO n SELECT * FROM x",
        ] {
            assert!(!tables.keeps_keys(sql, &mut Constants::new()), "{sql}");
        }
        let mut constants = Constants::new();
        assert!(tables.keeps_keys("INSERT INTO n(id, V, w) SELECT id, 'it''s', -1 AS w FROM t", &mut constants));
        assert_eq!(constants["v"], ["'it''s'"]);
        assert_eq!(constants["w"], ["-1"]);
    }
}
