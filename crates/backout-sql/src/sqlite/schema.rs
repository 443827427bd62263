//! Reads what `sqlite_schema` says and puts rows of it back exactly; never leaves `writable_schema` on.

use backout_model::target::TargetError;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::token::tokens;

/// One row of `sqlite_schema`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaRow {
    /// Its place in the order of a dump.
    pub rowid: i64,
    /// `table`, `index`, `view` or `trigger`.
    pub kind: String,
    pub name: String,
    pub table: String,
    /// Changes with VACUUM and `auto_vacuum`: good for one transaction only.
    #[serde(skip)]
    pub rootpage: i64,
    /// None for the indexes that SQLite makes by itself.
    pub sql: Option<String>,
    /// Its text or name is no UTF-8, and here only something like it: it may be looked at, never written.
    #[serde(skip)]
    pub is_raw: bool,
}

impl SchemaRow {
    /// The same object with the same text, wherever it stands.
    pub fn is_same(&self, other: &SchemaRow) -> bool {
        self.kind == other.kind && self.name == other.name && self.table == other.table && self.sql == other.sql
    }

    /// `table product`, for people.
    pub fn shown(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }
}

const COLUMNS: &str = "SELECT rowid, type, name, tbl_name, rootpage, sql FROM main.sqlite_schema";

fn read(row: &Row<'_>) -> rusqlite::Result<SchemaRow> {
    let mut is_raw = false;
    let mut text = |at: usize| -> rusqlite::Result<Option<String>> {
        Ok(row.get_ref(at)?.as_bytes_or_null()?.map(|bytes| {
            String::from_utf8(bytes.to_owned()).unwrap_or_else(|error| {
                is_raw = true;
                String::from_utf8_lossy(error.as_bytes()).into_owned()
            })
        }))
    };
    Ok(SchemaRow {
        rowid: row.get(0)?,
        kind: row.get(1)?,
        name: text(2)?.unwrap_or_default(),
        table: text(3)?.unwrap_or_default(),
        sql: text(5)?,
        rootpage: row.get::<_, Option<i64>>(4)?.unwrap_or(0),
        is_raw,
    })
}

/// Every row, in order.
pub fn all(conn: &Connection) -> rusqlite::Result<Vec<SchemaRow>> {
    conn.prepare_cached(&format!("{COLUMNS} ORDER BY rowid"))?.query_map([], read)?.collect()
}

/// The rows after a place.
pub fn after(conn: &Connection, rowid: i64) -> rusqlite::Result<Vec<SchemaRow>> {
    conn.prepare_cached(&format!("{COLUMNS} WHERE rowid > ?1 ORDER BY rowid"))?.query_map([rowid], read)?.collect()
}

/// The highest place taken, 0 in an empty database.
pub fn highest(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("SELECT coalesce(max(rowid), 0) FROM main.sqlite_schema")?.query_row([], |row| row.get(0))
}

/// A table or view with its indexes and triggers, in order; none where there is none.
pub fn of_table(conn: &Connection, table: &str) -> rusqlite::Result<Vec<SchemaRow>> {
    conn.prepare_cached(&format!("{COLUMNS} WHERE tbl_name = ?1 COLLATE NOCASE ORDER BY rowid"))?
        .query_map([table], read)?
        .collect()
}

/// One object; names match as SQLite matches them.
pub fn object(conn: &Connection, kind: &str, name: &str) -> rusqlite::Result<Option<SchemaRow>> {
    conn.prepare_cached(&format!("{COLUMNS} WHERE type = ?1 AND name = ?2 COLLATE NOCASE"))?
        .query_row([kind, name], read)
        .optional()
}

/// Whatever has this name. Tables, views and indexes share one space of names, triggers have their own.
pub fn named_like(conn: &Connection, kind: &str, name: &str) -> rusqlite::Result<Option<SchemaRow>> {
    conn.prepare_cached(&format!("{COLUMNS} WHERE (type = 'trigger') = (?1 = 'trigger') AND name = ?2 COLLATE NOCASE"))?
        .query_row([kind, name], read)
        .optional()
}

/// The module of a virtual table; none for other tables.
pub fn module(conn: &Connection, table: &str) -> rusqlite::Result<Option<String>> {
    let sql: Option<Option<String>> = conn
        .prepare_cached(
            "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND rootpage = 0 AND name = ?1 COLLATE NOCASE",
        )?
        .query_row([table], |row| row.get(0))
        .optional()?;
    Ok(sql.flatten().map(|sql| module_of(&sql).unwrap_or_default()))
}

/// What a statement writes to.
pub struct Written {
    /// Root pages of tables and indexes of the file, some perhaps twice.
    pub roots: Vec<i64>,
    /// Virtual tables, too.
    pub virtual_table: bool,
}

/// What a statement writes to, with what triggers and foreign keys write for it: SQLite's own program says so, whatever
/// the words.
pub fn written(conn: &Connection, sql: &str) -> rusqlite::Result<Written> {
    let mut written = Written { roots: Vec::new(), virtual_table: false };
    let mut explained = conn.prepare(&format!("EXPLAIN {sql}"))?;
    let mut rows = explained.raw_query();
    while let Some(row) = rows.next()? {
        // Which operand is the root page and which the database: "The SQLite Bytecode Engine", OpenWrite and Clear.
        let (root, database) = match row.get_ref(1)?.as_str().unwrap_or_default() {
            "OpenWrite" => (3, 4),
            "Clear" => (2, 3),
            "VUpdate" => {
                written.virtual_table = true;
                continue;
            }
            _ => continue,
        };
        if row.get::<_, i64>(database)? == 0 {
            written.roots.push(row.get(root)?);
        }
    }
    Ok(written)
}

/// True where a table or view of the connection itself goes before one of the file.
pub fn is_temporary(conn: &Connection, name: &str) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM temp.sqlite_schema WHERE name = ?1 COLLATE NOCASE)")?
        .query_row([name], |row| row.get(0))
}

/// What stands after USING in `CREATE VIRTUAL TABLE`.
pub fn module_of(sql: &str) -> Option<String> {
    let all = tokens(sql);
    let using = all.iter().position(|token| token.is("USING"))?;
    all.get(using + 1)?.name()
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub declared: String,
    pub not_null: bool,
    /// The default's text.
    pub default: Option<String>,
    /// Its place in the primary key from 1; 0 outside.
    pub key: i64,
    /// Computed from others, so never written.
    pub generated: bool,
}

/// What a table is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub columns: Vec<Column>,
    pub without_rowid: bool,
    /// A name for the rowid that no column hides; none where all three are hidden, or without rowid.
    pub rowid: Option<&'static str>,
}

impl Shape {
    /// The columns that hold values of their own.
    pub fn stored(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.generated)
    }

    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// The primary key's columns, in order.
    pub fn key(&self) -> Vec<&Column> {
        let mut key: Vec<_> = self.columns.iter().filter(|column| column.key > 0).collect();
        key.sort_by_key(|column| column.key);
        key
    }

    /// True where the rowid is a column of the table (`INTEGER PRIMARY KEY`).
    pub fn rowid_is_column(&self) -> bool {
        let key = self.key();
        !self.without_rowid && key.len() == 1 && key[0].declared.eq_ignore_ascii_case("INTEGER")
    }
}

/// The shape of a table of the main database.
pub fn shape(conn: &Connection, table: &str) -> rusqlite::Result<Shape> {
    let columns: Vec<Column> = conn
        .prepare_cached(
            "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1, 'main') ORDER BY cid",
        )?
        .query_map([table], |row| {
            Ok(Column {
                name: row.get(0)?,
                declared: row.get(1)?,
                not_null: row.get(2)?,
                default: row.get(3)?,
                key: row.get(4)?,
                generated: row.get::<_, i64>(5)? >= 2,
            })
        })?
        .collect::<Result<_, _>>()?;
    let without_rowid: Option<bool> = conn
        .prepare_cached("SELECT wr FROM pragma_table_list(?1) WHERE schema = 'main'")?
        .query_row([table], |row| row.get(0))
        .optional()?;
    let without_rowid = without_rowid.unwrap_or(false);
    let hidden = |name: &&str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    let rowid = ["rowid", "_rowid_", "oid"].into_iter().find(|name| !hidden(name)).filter(|_| !without_rowid);
    Ok(Shape { columns, without_rowid, rowid })
}

/// Rows written by hand: `writable_schema` is on only while `write` runs, and afterwards every connection, this one
/// too, reads the schema anew. Inside the caller's transaction.
///
/// # Errors
/// Whatever `write` returns, and SQLite's complaint about a schema that it can't read.
pub fn edit<T>(conn: &Connection, write: impl FnOnce() -> Result<T, TargetError>) -> Result<T, TargetError> {
    let act = || "cannot write the schema".to_owned();
    let failed = |error: rusqlite::Error| TargetError::failed(act(), error);
    conn.execute_batch("PRAGMA main.writable_schema = ON").map_err(failed)?;
    let written = write();
    let reread = || -> rusqlite::Result<()> {
        let version: i64 = conn.query_row("PRAGMA main.schema_version", [], |row| row.get(0))?;
        // The counter is 32 bits wide and only ever compared for being equal.
        let next = i64::from((version as i32).wrapping_add(1));
        conn.execute_batch(&format!("PRAGMA main.schema_version = {next}"))
    }();
    // Turns the switch off whatever happened, and has the schema read anew.
    let off = conn.execute_batch("PRAGMA main.writable_schema = RESET");
    let result = written?;
    reread.map_err(failed)?;
    off.map_err(failed)?;
    conn.query_row("SELECT count(*) FROM pragma_table_list WHERE schema = 'main'", [], |_| Ok(())).map_err(failed)?;
    Ok(result)
}

/// Puts rows back at their places in the order. What has come to stand there since moves down by one, its own order
/// kept. `from`: the row with a b-tree that becomes this one, by kind and name; none for what has no b-tree.
/// Inside [`edit`].
pub fn place(conn: &Connection, rows: &[(SchemaRow, Option<(String, String)>)]) -> rusqlite::Result<()> {
    let mut sorted: Vec<_> = rows.iter().collect();
    sorted.sort_by_key(|(row, _)| row.rowid);
    for (row, from) in sorted {
        // An index or trigger is read after its table, whatever a VACUUM made of the order.
        let least = if row.kind == "index" || row.kind == "trigger" {
            conn.prepare_cached(
                "SELECT coalesce(max(rowid), 0) FROM main.sqlite_schema
                 WHERE type IN ('table', 'view') AND name = ?1 COLLATE NOCASE",
            )?
            .query_row([&row.table], |found| found.get::<_, i64>(0))?
        } else {
            0
        };
        let mut place = row.rowid;
        if place <= least {
            place = highest(conn)? + 1;
        }
        let own = match from {
            Some((kind, name)) => conn
                .prepare_cached("SELECT rowid FROM main.sqlite_schema WHERE type = ?1 AND name = ?2")?
                .query_row([kind, name], |found| found.get::<_, i64>(0))
                .optional()?,
            None => None,
        };
        let taken: Option<i64> = conn
            .prepare_cached("SELECT rowid FROM main.sqlite_schema WHERE rowid = ?1")?
            .query_row([place], |found| found.get(0))
            .optional()?;
        let mut own_now = own;
        if taken.is_some() && taken != own {
            conn.prepare_cached("UPDATE main.sqlite_schema SET rowid = -rowid - 1 WHERE rowid >= ?1")?
                .execute([place])?;
            conn.prepare_cached("UPDATE main.sqlite_schema SET rowid = -rowid WHERE rowid < 0")?.execute([])?;
            own_now = own.map(|own| if own >= place { own + 1 } else { own });
        }
        match (own_now, from) {
            (Some(own), _) => {
                conn.prepare_cached(
                    "UPDATE main.sqlite_schema SET rowid = ?1, type = ?2, name = ?3, tbl_name = ?4, sql = ?5 WHERE rowid = ?6",
                )?
                .execute(params![place, row.kind, row.name, row.table, row.sql, own])?;
            }
            (None, Some(_)) => return Err(rusqlite::Error::QueryReturnedNoRows),
            (None, None) => {
                conn.prepare_cached(
                    "INSERT INTO main.sqlite_schema (rowid, type, name, tbl_name, rootpage, sql) VALUES (?1, ?2, ?3, ?4, 0, ?5)",
                )?
                .execute(params![place, row.kind, row.name, row.table, row.sql])?;
            }
        }
    }
    Ok(())
}

/// Moves a table and what hangs on it behind everything else, in its order. Inside [`edit`].
pub fn move_to_the_end(conn: &Connection, table: &str) -> rusqlite::Result<()> {
    for row in of_table(conn, table)? {
        conn.prepare_cached("UPDATE main.sqlite_schema SET rowid = ?1 WHERE rowid = ?2")?
            .execute([highest(conn)? + 1, row.rowid])?;
    }
    Ok(())
}

/// Writes the text and names of an object over those that it has now. Inside [`edit`].
pub fn rewrite(conn: &Connection, now: &SchemaRow, wanted: &SchemaRow) -> rusqlite::Result<()> {
    if wanted.is_raw {
        return Err(rusqlite::Error::ToSqlConversionFailure("the text that it had is no UTF-8".into()));
    }
    conn.prepare_cached(
        "UPDATE main.sqlite_schema SET name = ?1, tbl_name = ?2, sql = ?3 WHERE type = ?4 AND name = ?5",
    )?
    .execute(params![wanted.name, wanted.table, wanted.sql, now.kind, now.name])?;
    Ok(())
}

/// Exchanges the b-trees of pairs of objects, given by name. Inside [`edit`].
pub fn exchange(conn: &Connection, pairs: &[(String, String)]) -> rusqlite::Result<()> {
    for (one, other) in pairs {
        let root = |name: &str| -> rusqlite::Result<i64> {
            conn.prepare_cached(
                "SELECT rootpage FROM main.sqlite_schema WHERE type IN ('table', 'index') AND name = ?1",
            )?
            .query_row([name], |row| row.get(0))
        };
        let (root_of_one, root_of_other) = (root(one)?, root(other)?);
        let mut set = conn.prepare_cached(
            "UPDATE main.sqlite_schema SET rootpage = ?1 WHERE type IN ('table', 'index') AND name = ?2",
        )?;
        set.execute(params![root_of_other, one])?;
        set.execute(params![root_of_one, other])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_goes_back_to_its_place_and_pushes_others_down() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(
            "CREATE TABLE a(x); CREATE VIEW b AS SELECT 1; CREATE TABLE c(x); BEGIN; DROP VIEW b; DROP TABLE c",
        )
        .unwrap();
        conn.execute_batch("CREATE TABLE y(x); CREATE TABLE z(x)").unwrap();
        let sql = Some("CREATE VIEW b AS SELECT 1".to_owned());
        let row = SchemaRow {
            rowid: 2,
            kind: "view".into(),
            name: "b".into(),
            table: "b".into(),
            rootpage: 0,
            sql,
            is_raw: false,
        };
        edit(&conn, || place(&conn, &[(row, None)]).map_err(|error| TargetError::failed("x", error))).unwrap();
        conn.execute_batch("COMMIT; SELECT * FROM b; INSERT INTO y VALUES (1); INSERT INTO z VALUES (1)").unwrap();
        let names: Vec<_> = all(&conn).unwrap().into_iter().map(|row| (row.rowid, row.name)).collect();
        assert_eq!(names, [(1, "a".to_owned()), (2, "b".to_owned()), (3, "y".to_owned()), (4, "z".to_owned())]);
        assert!(!conn.query_row("PRAGMA writable_schema", [], |row| row.get::<_, bool>(0)).unwrap());
    }
}
