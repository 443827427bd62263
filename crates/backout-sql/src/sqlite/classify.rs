//! Says of what kind a statement is, by its words and what SQLite's parser makes of it; never runs it.
//!
//! What can't be taken back is refused here, with the reason.

use backout_model::target::{Refusal, TargetError};
use rusqlite::Connection;

use super::ddl;
use super::head::{Alter, Head, Name, Object, head};
use super::limits::{self, Limits};
use super::pragma;
use super::schema;
use super::split::Statement;
use super::token::{Token, each_token};
use crate::shown::shorten;

/// What a statement does, as far as capturing goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Changes rows; the hook sees them.
    Rows,
    /// `DELETE FROM table` and nothing else.
    DeleteAll {
        table: String,
    },
    /// Changes the schema.
    Ddl,
    /// Rewrites the statistics tables: ANALYZE, `PRAGMA optimize`.
    Analyze,
    /// Changes nothing that lasts; stepped to its end.
    Read,
    /// A setting of the connection; see [`super::wrapping`].
    LeadingPragma,
    /// `user_version`, `application_id`.
    Counter,
    Begin,
    Commit,
    /// Nothing to run.
    Empty,
}

/// Why a statement must not run.
pub fn refusal(place: &str, sql: &str, why: impl Into<String>, way_out: &str) -> Refusal {
    Refusal {
        place: place.to_owned(),
        what: format!("`{}`", shorten(sql)),
        why: why.into(),
        ways_out: vec![way_out.to_owned()],
    }
}

fn refused(place: &str, sql: &str, why: impl Into<String>, way_out: &str) -> TargetError {
    TargetError::Refused(refusal(place, sql, why, way_out))
}

const LEAVE_OUT: &str = "leave the statement out of the script";
pub const OWN_UNDO: &str =
    "give the step an undo script of its own (`undo: FILE`), or `undo: none` with `because:` and --accept-irreversible";

/// What the statements of a script are judged by.
pub struct Rules<'a> {
    /// With the schema that they meet: the database itself, or the plan's copy of it.
    conn: &'a Connection,
    /// With the settings that the file keeps.
    file: &'a Connection,
    /// Whether all that they do must be such as can be captured; else they must only keep within the transaction.
    captured: bool,
    /// Of the schema as the statements so far leave it.
    limits: Option<Limits>,
}

impl<'a> Rules<'a> {
    pub fn new(conn: &'a Connection, file: &'a Connection, captured: bool) -> Self {
        Self { conn, file, captured, limits: None }
    }

    /// Others may have changed the schema.
    pub fn look_afresh(&mut self) {
        self.limits = None;
    }

    /// The kind of the next statement. `place` names it in errors: `sql/010.sql:12`.
    ///
    /// # Errors
    /// `Refused` for what can't be taken back, `Failed` where SQLite does not understand the statement.
    pub fn classify(&mut self, statement: &Statement, place: &str) -> Result<Class, TargetError> {
        let class = self.class(statement.sql.as_str(), place)?;
        if class == Class::Ddl || !self.captured {
            self.limits = None;
        }
        Ok(class)
    }

    fn class(&mut self, sql: &str, place: &str) -> Result<Class, TargetError> {
        let mut rest = each_token(sql);
        let Some(first) = rest.next().filter(|token| !token.is_sign(b';')) else { return Ok(Class::Empty) };
        let word = if first.text.len() <= 10 { first.text.to_ascii_uppercase() } else { String::new() };
        match word.as_str() {
            "BEGIN" => Ok(Class::Begin),
            "COMMIT" | "END" => Ok(Class::Commit),
            "ROLLBACK" | "SAVEPOINT" | "RELEASE" => {
                Err(refused(place, sql, "a step is one transaction and cannot be cut up inside", LEAVE_OUT))
            }
            "ATTACH" | "DETACH" => Err(refused(
                place,
                sql,
                "a step changes one database, and no transaction is atomic over several files",
                "give each database a `sql` step of its own",
            )),
            "VACUUM" => Err(refused(
                place,
                sql,
                "VACUUM rewrites the whole file outside of any transaction",
                "run it with a `run` step that declares `undo: none`",
            )),
            "PRAGMA" => self.pragma(sql, place),
            "EXPLAIN" => Ok(Class::Read),
            "ANALYZE" => Ok(Class::Analyze),
            "CREATE" | "DROP" | "ALTER" | "REINDEX" => self.schema(sql, place),
            "DELETE" => match delete_all(rest) {
                Some(table) => self.delete_all(sql, place, &table),
                None => self.rows(sql, place),
            },
            "INSERT" | "REPLACE" | "UPDATE" => self.rows(sql, place),
            // Only the parser knows what stands behind WITH; what is no SQL it says best itself.
            _ => {
                let prepared = self.conn.prepare(sql).map_err(|error| cannot(place, sql, error))?;
                if prepared.readonly() {
                    admit_functions(sql, place)?;
                    return Ok(Class::Read);
                }
                drop(prepared);
                self.rows(sql, place)
            }
        }
    }

    /// Objects to what a statement writes.
    fn admit_writes(&mut self, sql: &str, place: &str) -> Result<(), TargetError> {
        let failed = |error| cannot(place, sql, error);
        let limits = match self.limits.take() {
            Some(limits) => limits,
            None => Limits::read(self.conn).map_err(failed)?,
        };
        let objection = self.limits.insert(limits).objection(self.conn, sql, self.captured).map_err(failed)?;
        objection.map_or(Ok(()), |why| Err(refused(place, sql, why, OWN_UNDO)))
    }

    fn rows(&mut self, sql: &str, place: &str) -> Result<Class, TargetError> {
        admit_functions(sql, place)?;
        self.admit_writes(sql, place)?;
        Ok(Class::Rows)
    }

    fn schema(&mut self, sql: &str, place: &str) -> Result<Class, TargetError> {
        admit_functions(sql, place)?;
        let Some(head) = head(sql) else {
            // Not understood: SQLite's own error says why, or it is a statement of a newer SQLite.
            self.conn.prepare(sql).map_err(|error| cannot(place, sql, error))?;
            return if self.captured {
                Err(refused(place, sql, "this change of the schema is not known", OWN_UNDO))
            } else {
                Ok(Class::Rows)
            };
        };
        if let Some(name) = names(&head, sql).find(|name| is_ours(name)) {
            let why = format!("names that begin with `backout` are the tool's own: {name}");
            return Err(refused(place, sql, why, LEAVE_OUT));
        }
        if !self.captured {
            return Ok(Class::Ddl);
        }
        let module = match &head {
            Head::Create { object: Object::Virtual, module, .. } => module.clone(),
            Head::Drop { object: Object::Table, name } | Head::Alter { name, .. } => {
                schema::module(self.conn, &name.name).map_err(|error| cannot(place, sql, error))?
            }
            _ => None,
        };
        if let Some(module) = module.filter(|module| !module.eq_ignore_ascii_case("fts5")) {
            return Err(refused(place, sql, format!("virtual tables of {module} are not captured"), OWN_UNDO));
        }
        if let Head::Alter { name, alter: Alter::DropColumn { .. } } = &head
            && let Some(why) = limits::too_wide(self.conn, &name.name).map_err(|error| cannot(place, sql, error))?
        {
            return Err(refused(place, sql, why, OWN_UNDO));
        }
        if ddl::may_delete_rows(sql) {
            self.admit_writes(sql, place)?;
        }
        Ok(Class::Ddl)
    }

    fn delete_all(&mut self, sql: &str, place: &str, table: &str) -> Result<Class, TargetError> {
        self.admit_writes(sql, place)?;
        let found = || -> rusqlite::Result<Option<schema::SchemaRow>> {
            if schema::is_temporary(self.conn, table)? {
                return Ok(None);
            }
            schema::object(self.conn, "table", table)
        };
        let row = found().map_err(|error| cannot(place, sql, error))?;
        Ok(match row.filter(|row| row.rootpage != 0 && !row.name.starts_with("sqlite_")) {
            Some(row) => Class::DeleteAll { table: row.name },
            None => Class::Rows,
        })
    }

    fn pragma(&self, sql: &str, place: &str) -> Result<Class, TargetError> {
        // Only its parts are looked at: some pragmas act when they are prepared.
        let Some(pragma) = pragma::parse(sql) else {
            return Err(refused(place, sql, "it is no PRAGMA that SQLite would read", LEAVE_OUT));
        };
        match pragma.kind(self.file).map_err(|error| cannot(place, sql, error))? {
            pragma::Kind::Read => Ok(Class::Read),
            pragma::Kind::Setting => Ok(Class::LeadingPragma),
            pragma::Kind::Counter => Ok(Class::Counter),
            pragma::Kind::Optimize => Ok(Class::Analyze),
            pragma::Kind::Ignored => Ok(Class::Empty),
            pragma::Kind::Lasting(_) if !self.captured => Ok(Class::Rows),
            pragma::Kind::Lasting(why) | pragma::Kind::Impossible(why) => Err(refused(place, sql, why, LEAVE_OUT)),
        }
    }
}

fn cannot(place: &str, sql: &str, error: rusqlite::Error) -> TargetError {
    TargetError::failed(format!("cannot run {place}: {}", shorten(sql)), error)
}

/// True for names that only the tool itself uses.
pub fn is_ours(name: &str) -> bool {
    name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("backout"))
}

fn admit_functions(sql: &str, place: &str) -> Result<(), TargetError> {
    if mentions(sql, "load_extension") && each_token(sql).any(|token| token.is("load_extension")) {
        return Err(refused(place, sql, "an extension could do anything", LEAVE_OUT));
    }
    Ok(())
}

/// The names of what a statement makes, drops or alters: the object, its new name, the table that it belongs to.
fn names<'a>(head: &'a Head, sql: &'a str) -> impl Iterator<Item = String> + 'a {
    let (name, other) = match head {
        Head::Create { object: Object::Index | Object::Trigger, name, .. } => (Some(name), table_of(sql)),
        Head::Create { name, .. } | Head::Drop { name, .. } => (Some(name), None),
        Head::Alter { name, alter: Alter::RenameTable { to } } => (Some(name), Some(to.clone())),
        Head::Alter { name, .. } => (Some(name), None),
        Head::Reindex => (None, None),
    };
    name.map(|Name { name, .. }| name.clone()).into_iter().chain(other)
}

/// The table that an index or trigger is made on.
fn table_of(sql: &str) -> Option<String> {
    let mut rest = each_token(sql).skip_while(|token| !token.is("ON")).skip(1);
    let first = rest.next()?;
    match rest.next() {
        Some(dot) if dot.is_sign(b'.') => rest.next()?.name(),
        _ => first.name(),
    }
}

/// True where the text holds the word, in whatever case.
pub fn mentions(sql: &str, word: &str) -> bool {
    let word = word.as_bytes();
    let Some(first) = word.first() else { return true };
    let (lower, upper) = (first.to_ascii_lowercase(), first.to_ascii_uppercase());
    let text = sql.as_bytes();
    text.iter().enumerate().any(|(at, byte)| {
        (*byte == lower || *byte == upper)
            && text.get(at..at + word.len()).is_some_and(|window| window.eq_ignore_ascii_case(word))
    })
}

/// The table of `DELETE FROM [main.]table[;]`, where the text is that and no more.
fn delete_all<'a>(mut rest: impl Iterator<Item = Token<'a>>) -> Option<String> {
    if !rest.next()?.is("FROM") {
        return None;
    }
    let mut name = rest.next()?.name()?;
    let mut after = rest.next();
    if after.is_some_and(|token| token.is_sign(b'.')) {
        if !name.eq_ignore_ascii_case("main") {
            return None;
        }
        name = rest.next()?.name()?;
        after = rest.next();
    }
    match after {
        None => Some(name),
        Some(token) if token.is_sign(b';') && rest.next().is_none() => Some(name),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(
            "CREATE TABLE t(a); CREATE VIEW v AS SELECT 1 a; CREATE TEMP TABLE s(a); CREATE TABLE backout_x(a);",
        )
        .unwrap();
        conn
    }

    fn class(conn: &Connection, sql: &str) -> Result<Class, TargetError> {
        Rules::new(conn, conn, true).classify(&Statement { line: 1, sql: sql.into() }, "a.sql:1")
    }

    #[test]
    fn statements_are_told_apart() {
        let conn = conn();
        for (sql, expected) in [
            (";", Class::Empty),
            ("INSERT INTO t VALUES (1);", Class::Rows),
            ("WITH x(a) AS (SELECT 1) INSERT INTO t SELECT a FROM x", Class::Rows),
            ("with x(a) AS (SELECT 1) SELECT a FROM x", Class::Read),
            ("VALUES (1)", Class::Read),
            ("EXPLAIN DELETE FROM t", Class::Read),
            ("delete from \"T\" ;", Class::DeleteAll { table: "t".into() }),
            ("DELETE FROM main.t", Class::DeleteAll { table: "t".into() }),
            ("DELETE FROM t WHERE 1", Class::Rows),
            ("DELETE FROM t RETURNING a", Class::Rows),
            ("DELETE FROM s", Class::Rows),
            ("DELETE FROM v", Class::Rows),
            ("CREATE TABLE x(a)", Class::Ddl),
            ("ANALYZE", Class::Analyze),
            ("PRAGMA optimize", Class::Analyze),
            ("PRAGMA foreign_keys = off", Class::LeadingPragma),
            ("PRAGMA user_version = 2", Class::Counter),
            ("PRAGMA synchronous = 0", Class::Empty),
            ("BEGIN EXCLUSIVE TRANSACTION;", Class::Begin),
            ("END;", Class::Commit),
        ] {
            assert_eq!(class(&conn, sql).unwrap(), expected, "{sql}");
        }
    }

    #[test]
    fn a_column_of_the_widest_table_stays() {
        let conn = conn();
        for (columns, admitted) in [(1999, true), (2000, false)] {
            let list: Vec<String> = (0..columns).map(|number| format!("c{number}")).collect();
            conn.execute_batch(&format!("CREATE TABLE w{columns} ({})", list.join(", "))).unwrap();
            let sql = format!("ALTER TABLE w{columns} DROP COLUMN c7");
            assert_eq!(class(&conn, &sql).is_ok(), admitted, "{columns}");
        }
    }

    #[test]
    fn what_cannot_be_taken_back_is_refused() {
        let conn = conn();
        conn.execute_batch("CREATE VIRTUAL TABLE r USING rtree(id, a, b)").unwrap();
        conn.execute_batch("CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO r VALUES (new.a, 1, 2); END")
            .unwrap();
        for sql in [
            "VACUUM",
            "ATTACH 'x' AS y",
            "ROLLBACK",
            "SAVEPOINT a",
            "PRAGMA journal_mode = wal",
            "SELECT load_extension('x')",
            "INSERT INTO backout_x VALUES (1)",
            "UPDATE OR IGNORE 'backout_x' SET a = 1",
            "DROP TABLE backout_x",
            "ALTER TABLE t RENAME TO Backout_y",
            "CREATE TABLE backout(a)",
            "CREATE VIRTUAL TABLE q USING rtree(id, a, b)",
            "INSERT INTO r VALUES (1, 2, 3)",
            "INSERT INTO t VALUES (1)",
            "DROP TABLE r",
            "DELETE FROM backout_x",
        ] {
            let error = class(&conn, sql);
            assert!(matches!(error, Err(TargetError::Refused(_))), "{sql}: {error:?}");
        }
        assert_eq!(class(&conn, "UPDATE t SET a = 'backout_x'").unwrap(), Class::Rows);
    }

    #[test]
    fn what_sqlite_does_not_understand_fails_with_its_place() {
        let error = class(&conn(), "SELEC 1").unwrap_err();
        assert_eq!(error.to_string(), "cannot run a.sql:1: SELEC 1");
        assert!(matches!(class(&conn(), "CREATE TABEL x"), Err(TargetError::Failed { .. })));
    }
}
