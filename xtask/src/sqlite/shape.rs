//! The tables of a database as the library describes them: columns, keys, what kind each is. Read only.

use anyhow::{Context, Result};
use rusqlite::Connection;

use super::{internal, own, quoted};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Plain,
    Virtual,
    /// A table in which a virtual table keeps its data.
    Shadow,
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    /// The declared type, upper case.
    pub declared: String,
    pub not_null: bool,
    pub has_default: bool,
    /// Place in the primary key from 1; 0 if it is not part of it.
    pub key: u32,
    /// Computed: can be read, not written.
    pub generated: bool,
    /// Hidden column of a virtual table: neither read nor written.
    pub hidden: bool,
}

#[derive(Clone, Debug)]
pub struct ForeignKey {
    pub parent: String,
    /// Child and parent column, pair by pair; the parent's is none where its primary key is meant.
    pub columns: Vec<(String, Option<String>)>,
}

#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
    pub kind: Kind,
    pub without_rowid: bool,
    pub sql: String,
    pub columns: Vec<Column>,
    pub foreign_keys: Vec<ForeignKey>,
    /// Sets of columns that are unique together, the primary key among them.
    pub unique: Vec<Vec<String>>,
}

impl Table {
    /// The name by which the rowid can be read: the first that no column takes for itself.
    pub fn rowid(&self) -> Option<&'static str> {
        if self.without_rowid || self.kind == Kind::Virtual {
            return None;
        }
        let taken = |alias: &str| self.columns.iter().any(|column| column.name.eq_ignore_ascii_case(alias));
        ["rowid", "_rowid_", "oid"].into_iter().find(|alias| !taken(alias))
    }

    /// The column that is the rowid by another name.
    pub fn integer_key(&self) -> Option<&Column> {
        let mut keys = self.columns.iter().filter(|column| column.key > 0);
        let key = keys.next()?;
        (keys.next().is_none() && key.declared == "INTEGER" && !self.without_rowid).then_some(key)
    }
}

/// Every table of the main database in the order of its definition; the library's and the tool's own left out.
pub fn tables(connection: &Connection) -> Result<Vec<Table>> {
    let mut statement = connection.prepare(
        "SELECT l.name, l.type, l.wr, coalesce(s.sql, '') FROM pragma_table_list AS l \
         JOIN sqlite_schema AS s ON s.name = l.name AND s.type = 'table' \
         WHERE l.schema = 'main' AND l.type IN ('table', 'virtual', 'shadow') ORDER BY s.rowid",
    )?;
    let listed: Vec<(String, String, bool, String)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut tables = Vec::new();
    for (name, kind, without_rowid, sql) in listed {
        if own(&name) || internal(&name) {
            continue;
        }
        let kind = match kind.as_str() {
            "virtual" => Kind::Virtual,
            "shadow" => Kind::Shadow,
            _ => Kind::Plain,
        };
        let describe = || -> Result<Table> {
            Ok(Table {
                columns: columns(connection, &name)?,
                foreign_keys: foreign_keys(connection, &name)?,
                unique: unique(connection, &name)?,
                name: name.clone(),
                kind,
                without_rowid,
                sql,
            })
        };
        tables.push(describe().with_context(|| format!("describing table {name}"))?);
    }
    Ok(tables)
}

fn columns(connection: &Connection, table: &str) -> Result<Vec<Column>> {
    let mut statement = connection.prepare(&format!("PRAGMA table_xinfo({})", quoted(table)))?;
    let columns = statement.query_map([], |row| {
        let hidden: u32 = row.get("hidden")?;
        Ok(Column {
            name: row.get("name")?,
            declared: row.get::<_, String>("type")?.to_ascii_uppercase(),
            not_null: row.get("notnull")?,
            has_default: row.get::<_, Option<String>>("dflt_value")?.is_some(),
            key: row.get("pk")?,
            generated: hidden == 2 || hidden == 3,
            hidden: hidden == 1,
        })
    })?;
    Ok(columns.collect::<rusqlite::Result<_>>()?)
}

fn foreign_keys(connection: &Connection, table: &str) -> Result<Vec<ForeignKey>> {
    let mut statement = connection.prepare(&format!("PRAGMA foreign_key_list({})", quoted(table)))?;
    let mut keys: Vec<(i64, ForeignKey)> = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, parent, pair) = (row.get("id")?, row.get("table")?, (row.get("from")?, row.get("to")?));
        match keys.iter_mut().find(|(seen, _)| *seen == id) {
            Some((_, key)) => key.columns.push(pair),
            None => keys.push((id, ForeignKey { parent, columns: vec![pair] })),
        }
    }
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

fn unique(connection: &Connection, table: &str) -> Result<Vec<Vec<String>>> {
    let mut statement = connection.prepare(&format!("PRAGMA index_list({})", quoted(table)))?;
    let names: Vec<String> = statement
        .query_map([], |row| Ok((row.get::<_, bool>("unique")?, row.get("name")?)))?
        .filter_map(|row| row.map(|(unique, name)| unique.then_some(name)).transpose())
        .collect::<rusqlite::Result<_>>()?;
    let mut sets = Vec::new();
    for name in names {
        let mut statement = connection.prepare(&format!("PRAGMA index_info({})", quoted(&name)))?;
        let set: Vec<Option<String>> =
            statement.query_map([], |row| row.get("name"))?.collect::<rusqlite::Result<_>>()?;
        sets.push(set.into_iter().flatten().collect());
    }
    Ok(sets)
}
