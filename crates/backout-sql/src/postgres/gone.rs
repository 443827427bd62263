//! What others had taken away before an undo came to take it away: an earlier step of the same deployment that had one like
//! it taken away must not bring that back unsaid. Known for as long as the process runs, and never for a redo.

use std::collections::{HashMap, HashSet};

use super::ddl::DdlEvent;
use super::session::Session;
use super::stream::Table;
use super::succession::Succession;
use super::table::{self, plain};
use super::terms::key_digest;

#[derive(Clone, Debug, Default)]
pub struct Gone {
    /// Digests of the keys of rows, by table, with the table as its rows were known.
    rows: HashMap<String, (Table, HashSet<i64>)>,
    /// Objects of the schema, as people are shown them.
    objects: HashSet<String>,
    succession: Succession,
}

impl Gone {
    /// Notes the rows `alias` of `rows`.
    pub fn note_rows(
        &mut self,
        a: &mut Session,
        table: &Table,
        alias: &str,
        rows: &str,
    ) -> Result<(), postgres::Error> {
        let digests = a.rows(&format!("SELECT {} FROM {rows}", key_digest(table, alias)))?;
        let digests = digests.into_iter().filter_map(|row| row[0].as_deref()?.parse::<i64>().ok());
        let mut digests = digests.peekable();
        if digests.peek().is_some() {
            let known = self.rows.entry(table::shown(table));
            known.or_insert_with(|| (table.clone(), HashSet::new())).1.extend(digests);
        }
        Ok(())
    }

    /// The condition that a row `alias` of a table is one of them; `None` where none of the table's is.
    pub fn is_one(&self, table: &Table, alias: &str) -> Option<String> {
        let (_, digests) = self.rows.get(&table::shown(table))?;
        let list: Vec<String> = digests.iter().map(i64::to_string).collect();
        Some(format!(
            "EXISTS (SELECT FROM unnest('{{{}}}'::int8[]) AS gone WHERE gone = {})",
            list.join(","),
            key_digest(table, alias)
        ))
    }

    /// The same for a table of which only the name and the columns, as SQL has them, are known.
    pub fn is_one_of(&self, id: &str, columns: &[String], alias: &str) -> Option<String> {
        let (table, _) = self.rows.get(&plain(id))?;
        let mut key = table.key.iter().map(|key| &table.columns[key.column].name);
        if key.all(|name| columns.iter().any(|column| plain(column) == *name)) {
            self.is_one(table, alias)
        } else {
            None
        }
    }

    /// An event was undone: the tables so far that had rows which others took away and which come back with the table in whose
    /// place they are.
    pub fn undone(&mut self, event: &DdlEvent) -> Vec<String> {
        self.succession.note(event);
        let lacks = |names: &HashSet<String>| names.iter().any(|name| self.rows.contains_key(name));
        self.succession.replacing().filter(|(_, names)| lacks(names)).map(|(last, _)| last.clone()).collect()
    }

    pub fn note_object(&mut self, shown: String) {
        self.objects.insert(shown);
    }

    pub fn has_object(&self, shown: &str) -> bool {
        self.objects.contains(shown)
    }
}
