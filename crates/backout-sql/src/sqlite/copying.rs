//! Copies of rows into tables that a step makes itself: which of them a redo can run again, so that it copies the rows of
//! now, and how it sees whether others changed those that it can't copy again.

use std::collections::{BTreeMap, HashSet};

use rusqlite::Connection;

use super::ddl_event::{Change, DdlEvent};
use super::ddl_hold::columns;
use super::schema;
use super::stream::{Block, Reader, Record, StreamError, Table};
use super::token::{Kind, Token, each_token, is_word, quote};
use super::value;

/// Words that make the result of a statement hang on more than the rows of the database.
const WAVERING: [&str; 15] = [
    "changes",
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "julianday",
    "last_insert_rowid",
    "random",
    "randomblob",
    "strftime",
    "time",
    "timediff",
    "total_changes",
    "unixepoch",
];

const SELECT: &[u8] = b"select";

/// Follows a step: whether it may copy rows in a way that a redo can't repeat.
#[derive(Clone, Debug, Default)]
pub struct Copying {
    /// The tables that it made.
    made: Vec<String>,
    /// For each of those into which rows were copied the words of the statements that did; all in lower case.
    copied: BTreeMap<String, HashSet<String>>,
    unsteady: bool,
}

impl Copying {
    /// Hears of a statement that changes rows. `cascades`: foreign keys may carry its changes on.
    pub fn statement(&mut self, sql: &str, cascades: bool) {
        if self.made.is_empty() {
            return;
        }
        let is_made = |table: &str| self.made.iter().any(|made| made.eq_ignore_ascii_case(table));
        if sql.len() >= SELECT.len()
            && sql.as_bytes().windows(SELECT.len()).any(|part| part.eq_ignore_ascii_case(SELECT))
            && let Some((_, table)) = target(sql).filter(|(_, table)| is_made(table))
        {
            let names = each_token(sql).filter_map(|token| token.name());
            let words = self.copied.entry(table.to_ascii_lowercase()).or_default();
            words.extend(names.map(|name| name.to_ascii_lowercase()));
        }
        if self.unsteady {
            return;
        }
        let steady = target(sql).is_some_and(|(verb, table)| {
            (!cascades || verb.eq_ignore_ascii_case("INSERT")) && is_made(&table) && !may_waver(sql)
        });
        self.unsteady = !steady;
    }

    /// Hears of a change of the schema.
    pub fn changed(&mut self, event: &DdlEvent) {
        match event.change() {
            Some(Change::Create(table)) => {
                self.made.push(table.to_owned());
                self.unsteady |= event.copies();
            }
            Some(Change::Rename { to, .. }) => self.made.push(to.to_owned()),
            Some(Change::Drop(_)) => {}
            // A trigger may write anywhere.
            None => self.unsteady |= !self.made.is_empty() && event.rows().any(|row| row.kind == "trigger"),
        }
    }

    /// The tables that the step made so far and into which it copied rows from the table of that name, be it by way of others.
    pub fn successors(&self, table: &str) -> Vec<String> {
        let mut found = vec![table.to_ascii_lowercase()];
        let mut at = 0;
        while let Some(from) = found.get(at).cloned() {
            at += 1;
            let into = self.copied.iter().filter(|(_, words)| words.contains(&from)).map(|(into, _)| into.clone());
            let more: Vec<String> = into.filter(|into| !found.contains(into)).collect();
            found.extend(more);
        }
        found.split_off(1)
    }

    /// The tables that the step made so far.
    pub fn made(&self) -> &[String] {
        &self.made
    }

    pub fn is_unsteady(&self) -> bool {
        self.unsteady
    }
}

/// Rather too often than not often enough: it does not know quotes and comments.
fn may_waver(sql: &str) -> bool {
    let bytes = sql.as_bytes();
    let mut within = false;
    for (at, byte) in bytes.iter().enumerate() {
        let begins = !within && is_word(*byte);
        within = is_word(*byte);
        if begins && matches!(byte | 0x20, b'c' | b'd' | b'j' | b'l' | b'r' | b's' | b't' | b'u') {
            let end = bytes[at..].iter().position(|byte| !is_word(*byte)).map_or(bytes.len(), |length| at + length);
            if WAVERING.iter().any(|word| bytes[at..end].eq_ignore_ascii_case(word.as_bytes())) {
                return true;
            }
        }
    }
    false
}

/// The first word of an INSERT, REPLACE, UPDATE or DELETE, and the table that it names; none for all else.
pub fn target(sql: &str) -> Option<(&str, String)> {
    let mut words = each_token(sql);
    let verb =
        words.next().filter(|word| ["INSERT", "REPLACE", "UPDATE", "DELETE"].iter().any(|verb| word.is(verb)))?;
    let mut next = words.next()?;
    if next.is("OR") {
        // What it is to do instead, and then the next word.
        next = words.nth(1)?;
    }
    if next.is("INTO") || verb.is("DELETE") && next.is("FROM") {
        next = words.next()?;
    }
    let name = |token: Token<'_>| token.name();
    let first = name(next)?;
    match words.next() {
        Some(dot) if dot.is_sign(b'.') => {
            if first.eq_ignore_ascii_case("main") {
                Some((verb.text, name(words.next()?)?))
            } else {
                None
            }
        }
        _ => Some((verb.text, first)),
    }
}

/// True for a statement whose result hangs on the rows of the database alone.
fn is_steady(sql: &str) -> bool {
    !each_token(sql).any(|token| token.kind == Kind::Word && WAVERING.iter().any(|word| token.is(word)))
}

/// A statement of a span whose copies can run again.
pub struct Copy {
    pub line: u32,
    pub sql: String,
    /// False for one that changes nothing in the new table.
    pub runs: bool,
}

/// The statements of a span, where it does nothing but fill a new table, and would do the same again.
pub fn copies(
    conn: &Connection,
    reader: &mut Reader<'_>,
    (start, end): (u64, u64),
    tables: &[Table],
    new: &str,
) -> Result<Option<Vec<Copy>>, StreamError> {
    // While a step is done again triggers don't fire.
    let fires = schema::of_table(conn, new).is_ok_and(|rows| rows.iter().any(|row| row.kind == "trigger"));
    let mut found = Vec::new();
    let mut block = Block::default();
    let mut at = start;
    while at < end && !fires {
        let head = reader.head(at)?;
        reader.block(&head, &mut block)?;
        for number in 0..block.len() {
            match block.record(number)? {
                Record::Row(row) => {
                    let table = tables.get(row.table as usize);
                    if !table.is_some_and(|table| table.name.eq_ignore_ascii_case(new)) {
                        return Ok(None);
                    }
                }
                Record::Statement { line, sql, undo, rows } => {
                    let runs = target(sql).is_some_and(|(_, table)| table.eq_ignore_ascii_case(new));
                    if undo || !is_steady(sql) || rows > 0 && !runs {
                        return Ok(None);
                    }
                    found.push(Copy { line, sql: sql.to_owned(), runs });
                }
            }
        }
        at = head.end();
    }
    Ok(found.iter().any(|copy| copy.runs).then_some(found))
}

/// A digest of all rows of a table, in the order of its key.
pub fn digest(conn: &Connection, table: &str) -> rusqlite::Result<u64> {
    let shape = schema::shape(conn, table)?;
    let order: Vec<String> = match shape.rowid {
        Some(rowid) => vec![rowid.to_owned()],
        None => shape.key().iter().map(|column| quote(&column.name)).collect(),
    };
    // VACUUM may give rowids anew that no column shows, in the same order.
    let values: Vec<String> = if shape.rowid.is_some() && !shape.rowid_is_column() {
        columns(&shape).into_iter().skip(1).collect()
    } else {
        columns(&shape)
    };
    let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
    let mut select = conn.prepare(&format!("SELECT {} FROM main.{}{order}", values.join(", "), quote(table)))?;
    let mut rows = select.query([])?;
    let mut hasher = blake3::Hasher::new();
    let mut bytes = Vec::new();
    while let Some(row) = rows.next()? {
        bytes.clear();
        for at in 0..values.len() {
            value::put(&mut bytes, row.get_ref(at)?);
        }
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(&bytes);
    }
    Ok(value::short(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wavers_is_told_from_what_does_not() {
        assert!(is_steady("INSERT INTO n SELECT * FROM t"));
        assert!(is_steady("INSERT INTO n SELECT 'random', \"date\" FROM t -- time"));
        assert!(!may_waver("INSERT INTO n SELECT updated, randomly FROM t"));
        for sql in [
            "INSERT INTO n SELECT random() FROM t",
            "INSERT INTO n VALUES (CURRENT_TIMESTAMP)",
            "UPDATE n SET a=strftime('%s')",
            "DELETE FROM n WHERE b<unixepoch()",
        ] {
            assert!(!is_steady(sql) && may_waver(sql), "{sql}");
        }
    }

    #[test]
    fn the_table_that_a_statement_writes_is_known() {
        for (sql, table) in [
            ("INSERT INTO n SELECT 1", Some("n")),
            ("insert or replace into main.\"n n\"(a) VALUES (1)", Some("n n")),
            ("REPLACE INTO n DEFAULT VALUES", Some("n")),
            ("UPDATE OR IGNORE main.n SET a = 1", Some("n")),
            ("UPDATE n SET a = 1", Some("n")),
            ("DELETE FROM [n] WHERE a", Some("n")),
            ("INSERT INTO temp.n SELECT 1", None),
            ("WITH x AS (SELECT 1) INSERT INTO n SELECT * FROM x", None),
            ("SELECT 1", None),
            ("UPDATE", None),
        ] {
            assert_eq!(target(sql).map(|(_, table)| table).as_deref(), table, "{sql}");
        }
    }

    #[test]
    fn only_a_step_that_may_copy_unsteadily_is_one() {
        let unsteady = |statements: &[&str], cascades: bool| {
            let mut copying = Copying { made: vec!["n".to_owned()], ..Copying::default() };
            statements.iter().for_each(|sql| copying.statement(sql, cascades));
            copying.is_unsteady()
        };
        assert!(!unsteady(&["INSERT INTO n SELECT * FROM t", "UPDATE n SET a = 1"], false));
        assert!(unsteady(&["INSERT INTO n SELECT * FROM t", "UPDATE n SET a = 1"], true));
        assert!(unsteady(&["INSERT INTO log VALUES (1)"], false));
        assert!(unsteady(&["INSERT INTO n SELECT random()"], false));
    }
}
