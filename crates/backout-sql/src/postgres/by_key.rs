//! Which rows of a large table plain statements changed, by their keys: how these were and are is then read through the key's
//! index, and not by a look through the whole table.
//!
//! Only a guess. Whether the rows that it leads to are all that were changed is told by the server's counters, and where they
//! are not the whole table is looked at.

use std::collections::{HashMap, HashSet};

use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::ToSql;

use super::catalog::users_trigger;
use super::reader::reader;
use super::session::{self, Session, ident, literal};
use super::stream::Table;
use super::table::{self, quoted};
use super::token::{Kind, Token};

/// A smaller table, in blocks of the server's, is looked through in less time than its rows are asked for.
const LARGE: u64 = 1_000;

/// A statement takes as long as a look through so many blocks, a row through so many.
const A_STATEMENT: u64 = 64;
const A_ROW: u64 = 4;

/// Of so many rows at most, and so many bytes of their keys, anything is kept.
const ROWS: u64 = 10_000;
const BYTES: usize = 4 << 20;

/// Types whose values mean the same as text under whatever settings.
const KINDS: [&str; 6] = ["smallint", "integer", "bigint", "uuid", "text", "character varying"];

/// The rows that plain statements of one step changed, as far as they are few.
#[derive(Default)]
pub struct ByKey {
    /// What the name in a statement means now; `None` where rows of it are not asked for.
    names: HashMap<String, Option<u32>>,
    tables: HashMap<u32, Keys>,
    /// Tables of whatever size, with triggers, too.
    #[cfg(test)]
    pub any: bool,
    /// How often what was known was enough, and how often it was not.
    #[cfg(test)]
    pub enough: [u64; 2],
}

/// The keys of the rows that were changed in one table.
struct Keys {
    /// The table's name, in quotes and with its schema: two tables of a statement may have the same one without.
    table: String,
    /// The columns of the key and their types.
    columns: Vec<(String, String)>,
    blocks: u64,
    statements: u64,
    bytes: usize,
    rows: HashSet<Vec<String>>,
    /// They became too many.
    many: bool,
}

impl Keys {
    fn of(table: &Table, blocks: u64) -> Option<Self> {
        let columns = columns(table)?;
        Some(Self { table: quoted(table), columns, blocks, statements: 0, bytes: 0, rows: HashSet::new(), many: false })
    }

    /// How many rows at most it is worth while to ask for.
    fn bound(&self) -> u64 {
        ROWS.min(self.blocks / A_ROW)
    }

    fn give_up(&mut self) {
        self.many = true;
        self.rows = HashSet::new();
    }

    fn add(&mut self, key: Vec<String>) {
        self.bytes += key.iter().map(String::len).sum::<usize>();
        if self.bytes > BYTES || self.rows.len() as u64 >= self.bound() {
            self.give_up();
        } else if !self.many {
            self.rows.insert(key);
        }
    }
}

/// The key's columns and their types; `None` where there is no key, or values of it mean by a session's settings what they do.
fn columns(table: &Table) -> Option<Vec<(String, String)>> {
    let plain = |kind: &str| KINDS.contains(&kind.split('(').next().unwrap_or_default());
    let columns = table.key.iter().map(|key| table.columns.get(key.column));
    let columns = columns.map(|column| column.filter(|column| column.exact && plain(&column.kind)));
    let columns: Option<Vec<_>> =
        columns.map(|column| column.map(|column| (column.name.clone(), column.kind.clone()))).collect();
    columns.filter(|columns| !columns.is_empty())
}

impl ByKey {
    /// Runs a statement so that the server names the rows that it changes, and keeps their keys; how many it changed. `None`
    /// where it was not run, because that is not the way.
    pub fn run(&mut self, a: &mut Session, sql: &str) -> Result<Option<u64>, postgres::Error> {
        let Some(plain) = Plain::of(sql) else {
            self.forget_names();
            return Ok(None);
        };
        let known = match self.names.get(&plain.name) {
            Some(known) => *known,
            None => {
                let found = self.find(a, &plain.name)?;
                self.names.insert(plain.name.clone(), found);
                found
            }
        };
        let Some(keys) = known.and_then(|oid| self.tables.get_mut(&oid)).filter(|keys| !keys.many) else {
            return Ok(None);
        };
        keys.statements += 1;
        if keys.statements > keys.blocks / A_STATEMENT {
            keys.give_up();
            return Ok(None);
        }
        let called = plain.alias.as_ref().unwrap_or(&keys.table);
        let returning: Vec<String> =
            keys.columns.iter().map(|(name, _)| format!("{called}.{}::pg_catalog.text", ident(name))).collect();
        let sql = format!("{}\nRETURNING {}", plain.sql, returning.join(", "));
        if !plain.values && estimate(a, &sql)?.is_none_or(|rows| rows > keys.bound()) {
            keys.give_up();
            return Ok(None);
        }
        let mut count = 0;
        let mut changed = a.client.query_raw::<_, &dyn ToSql, _>(sql.as_str(), [])?;
        while let Some(row) = changed.next()? {
            count += 1;
            let key: Result<Vec<String>, _> = (0..row.len()).map(|at| row.try_get(at)).collect();
            match key {
                Ok(key) => keys.add(key),
                Err(_) => keys.give_up(),
            }
        }
        Ok(Some(count))
    }

    /// A statement may have given names and tables another meaning.
    pub fn forget_names(&mut self) {
        self.names.clear();
    }

    /// The table of that name, where its rows can be named by a statement that changes them, and it is large.
    ///
    /// `RETURNING` asks for more rights, goes through rules and policies, and is a part of the text that a trigger can see.
    fn find(&mut self, a: &mut Session, name: &str) -> Result<Option<u32>, postgres::Error> {
        #[cfg(test)]
        let (any, least) = (self.any, if self.any { 1_000_000 } else { 0 });
        #[cfg(not(test))]
        let (any, least) = (false, 0);
        let found = a.rows(&format!(
            "SELECT c.oid, pg_catalog.pg_relation_size(c.oid) OPERATOR(pg_catalog./) pg_catalog.current_setting('block_size')::pg_catalog.int8
             FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass({})
                 AND c.relkind OPERATOR(pg_catalog.=) 'r' AND NOT c.relhasrules AND NOT c.relhassubclass AND NOT c.relrowsecurity
                 AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
                 AND ({any} OR NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid AND {}))",
            literal(name),
            users_trigger("t")
        ))?;
        let number = |at: usize| found.first()?.get(at)?.as_deref()?.parse::<u64>().ok();
        let (Some(oid), Some(blocks)) = (number(0).and_then(|oid| u32::try_from(oid).ok()), number(1)) else {
            return Ok(None);
        };
        let blocks = blocks.max(least);
        if blocks < LARGE {
            return Ok(None);
        }
        let Some(keys) = Keys::of(&table::read(a, oid)?, blocks) else { return Ok(None) };
        // By another name, or after a change of the schema, it is the same one; with another key it is not.
        let same = |kept: &Keys| kept.columns == keys.columns && kept.table == keys.table;
        let kept = self.tables.get(&oid).is_some_and(same);
        if !kept && self.tables.insert(oid, keys).is_some() {
            self.tables.remove(&oid);
            return Ok(None);
        }
        Ok(Some(oid))
    }

    /// The condition that a row `x` of the table is one of at least `rows` that are known to have been changed; what is known is
    /// forgotten. `None` where fewer are known.
    pub fn take(&mut self, oid: u32, table: &Table, rows: i64) -> Option<String> {
        let keys = self.tables.remove(&oid)?;
        self.names.clear();
        let enough = u64::try_from(rows).is_ok_and(|rows| (1..=keys.rows.len() as u64).contains(&rows));
        if !enough || columns(table).as_ref() != Some(&keys.columns) {
            return None;
        }
        let mut arrays = Vec::new();
        let mut names = Vec::new();
        let mut same = Vec::new();
        for (at, ((name, kind), key)) in keys.columns.iter().zip(&table.key).enumerate() {
            let values: Vec<String> = keys.rows.iter().map(|row| literal(&row[at])).collect();
            let kind = kind.split('(').next().unwrap_or_default();
            arrays.push(format!("pg_catalog.unnest(ARRAY[{}]::{kind}[])", values.join(",")));
            names.push(format!("k{at}"));
            same.push(format!("x.{} {} k.k{at}", ident(name), key.equals));
        }
        Some(format!(
            "EXISTS (SELECT FROM ROWS FROM ({}) AS k ({}) WHERE {})",
            arrays.join(", "),
            names.join(", "),
            same.join(" AND ")
        ))
    }
}

/// How many rows the server expects a statement to give.
fn estimate(a: &mut Session, sql: &str) -> Result<Option<u64>, postgres::Error> {
    let plan = session::rows(a.client.unwritten(), &format!("EXPLAIN {sql}"))?;
    let first = plan.first().and_then(|row| row.first()?.as_deref());
    Ok(first.and_then(|line| line.split("rows=").nth(1)?.split(' ').next()?.parse().ok()))
}

/// An INSERT, UPDATE or DELETE of one table.
#[derive(Debug, PartialEq, Eq)]
struct Plain<'a> {
    /// The statement without what ends it.
    sql: &'a str,
    /// The table as the statement names it.
    name: String,
    /// What the statement calls it, where it calls it anything else.
    alias: Option<String>,
    /// It gives its rows itself.
    values: bool,
}

impl<'a> Plain<'a> {
    /// `None` for every other statement, and where it is not sure.
    fn of(sql: &'a str) -> Option<Self> {
        let mut words = reader(sql);
        let inserts = words.takes("INSERT INTO");
        if !inserts && !words.takes("UPDATE") && !words.takes("DELETE FROM") {
            return None;
        }
        let only = !inserts && words.takes("ONLY");
        if only && words.peek()?.is_sign(b'(') {
            return None;
        }
        let part = |token: Token<'_>| {
            let is_name = token.name().is_some() && !token.text.contains('\\');
            is_name.then(|| token.text.to_owned())
        };
        let mut name = part(words.next()?)?;
        while words.takes_sign(b'.') {
            name = format!("{name}.{}", part(words.next()?)?);
        }
        let mut alias = None;
        if !inserts {
            words.takes_sign(b'*');
        }
        if words.takes("AS") {
            alias = Some(part(words.next()?)?);
        } else if !inserts
            && let Some(next) = words.peek()
            && matches!(next.kind, Kind::Word | Kind::Quoted)
            && !["SET", "USING", "WHERE", "RETURNING"].iter().any(|word| next.is(word))
        {
            alias = Some(part(words.next()?)?);
        }
        let (mut values, mut selects, mut end) = (false, false, 0);
        for token in words {
            if ["RETURNING", "CURRENT"].iter().any(|word| token.is(word)) {
                return None;
            }
            values |= token.is("VALUES");
            selects |= ["SELECT", "TABLE"].iter().any(|word| token.is(word));
            if !token.is_sign(b';') {
                end = token.end;
            }
        }
        let sql = sql.get(..end).filter(|sql| !sql.is_empty())?;
        Some(Self { sql, name, alias, values: inserts && values && !selects })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_statement_is_told_with_its_table() {
        for (sql, expected) in [
            ("UPDATE item SET a = 1 WHERE id = 2;", "item - false|UPDATE item SET a = 1 WHERE id = 2"),
            (
                "UPDATE ONLY app.\"It em\" * AS x SET a = 1 -- c",
                "app.\"It em\" x false|UPDATE ONLY app.\"It em\" * AS x SET a = 1",
            ),
            ("update item i set a = 1 from b", "item i false|update item i set a = 1 from b"),
            (
                "DELETE FROM item USING b WHERE b.id = item.id ;;",
                "item - false|DELETE FROM item USING b WHERE b.id = item.id",
            ),
            ("INSERT INTO item VALUES (1), (2)", "item - true|INSERT INTO item VALUES (1), (2)"),
            (
                "INSERT INTO item AS i (a) VALUES ((SELECT 1))",
                "item i false|INSERT INTO item AS i (a) VALUES ((SELECT 1))",
            ),
            (
                "INSERT INTO s.item (a) SELECT 1 ON CONFLICT DO NOTHING",
                "s.item - false|INSERT INTO s.item (a) SELECT 1 ON CONFLICT DO NOTHING",
            ),
        ] {
            let plain = Plain::of(sql).unwrap_or_else(|| panic!("{sql}"));
            let alias = plain.alias.as_deref().unwrap_or("-");
            let told = format!("{} {alias} {}|{}", plain.name, plain.values, plain.sql);
            assert_eq!(told, expected, "{sql}");
        }
        for sql in [
            "SELECT 1",
            "WITH x AS (SELECT 1) UPDATE item SET a = 1",
            "UPDATE item SET a = 1 RETURNING a",
            "DELETE FROM item RETURNING a",
            "DELETE FROM item * RETURNING a",
            "DELETE FROM item WHERE CURRENT OF c",
            "DELETE FROM ONLY (item)",
            "UPDATE U&\"\\0061\" SET a = 1",
            "UPDATE \"a\\b\" SET a = 1",
            "MERGE INTO item USING b ON true WHEN MATCHED THEN DELETE",
            "DELETE FROM item",
        ] {
            assert_eq!(Plain::of(sql), None, "{sql}");
        }
    }
}
