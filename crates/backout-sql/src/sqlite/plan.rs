//! Finds out, on an in-memory copy of the schema, how each statement would be undone; never touches the database.
//!
//! The scripts' schema changes are run on the copy, by the code of a real run, so that what that refuses is refused
//! here, and a later statement meets the schema that those before it leave; statements on rows are only prepared. So a
//! plan costs what the schema is large, not the data.

use std::path::Path;

use backout_model::conflict::Conflicts;
use backout_model::target::{PlannedChange, Refusal, TargetError, Verdict};
use rusqlite::Connection;

use super::apply::{cannot_run, execute, read, shortened};
use super::classify::{Class, Rules};
use super::head::{Alter, Head, Object, head};
use super::split::Statement;
use super::token::{each_token, quote};
use super::wrapping::{Turn, Wrapping};
use super::{ddl, limits, pragma, schema};
use crate::database::{Planner, Script, ScriptUndo};

/// A copy of a database's schema, without rows.
pub struct SchemaClone<'a> {
    live: &'a Connection,
    label: &'a str,
    conn: Connection,
    /// Nothing had to be left out: what does not fit the copy doesn't fit the database.
    complete: bool,
}

impl<'a> SchemaClone<'a> {
    /// Copies the schema of `live`. What cannot be made again here (a virtual table of an unknown module) is left
    /// out: statements on it then show as unknown.
    pub fn of(live: &'a Connection, label: &'a str) -> Result<Self, TargetError> {
        let failed = |source| TargetError::failed(format!("cannot read the schema of {label}"), source);
        let conn = Connection::open_in_memory().map_err(failed)?;
        conn.execute_batch("PRAGMA foreign_keys = OFF").map_err(failed)?;
        let mut clone = Self { live, label, conn, complete: true };
        match limits::readable(live, label, label) {
            // Every script that is to be captured is refused then.
            Err(TargetError::Refused(_)) => clone.complete = false,
            readable => {
                readable?;
                clone.copy().map_err(failed)?;
            }
        }
        Ok(clone)
    }

    fn copy(&mut self) -> rusqlite::Result<()> {
        let conn = &self.conn;
        let mut rows = schema::all(self.live)?;
        // A virtual table makes its own shadow tables; a view or trigger needs its tables only when it is used.
        rows.sort_by_key(|row| (row.kind != "table", row.sql.as_deref().and_then(schema::module_of).is_none()));
        for row in rows {
            let Some(sql) = &row.sql else { continue };
            if schema::object(conn, &row.kind, &row.name)?.is_some() {
                continue;
            }
            // SQLite's own: statistics, and the counters of tables that are gone. Their names are free for this alone.
            let own = row.name.starts_with("sqlite_");
            conn.execute_batch(&format!("PRAGMA writable_schema = {own}"))?;
            // A table may use functions that only the application brings along.
            self.complete &= conn.execute_batch(sql).is_ok();
            // Whoever wrote the text by hand may have written it otherwise than SQLite does.
            if schema::object(conn, &row.kind, &row.name)?.is_some_and(|copy| copy.sql != row.sql) {
                conn.execute_batch("PRAGMA writable_schema = ON")?;
                schema::rewrite(conn, &row, &row)?;
            }
        }
        conn.execute_batch("PRAGMA writable_schema = RESET")
    }

    /// A script's settings and temporary tables end with it.
    fn end_script(&self) -> rusqlite::Result<()> {
        let temporary: Vec<(String, String)> = self
            .conn
            .prepare("SELECT type, name FROM temp.sqlite_schema WHERE sql IS NOT NULL ORDER BY type DESC")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (kind, name) in temporary {
            self.conn.execute_batch(&format!("DROP {kind} IF EXISTS temp.{}", quote(&name)))?;
        }
        pragma::reset(&self.conn)
    }

    /// Goes through the statements of a script, and says of each that matters what is to be said.
    fn walk(
        &mut self,
        path: &Path,
        shown: &str,
        captured: bool,
        schema_known: bool,
        each: &mut dyn FnMut(PlannedChange),
    ) -> Result<(), TargetError> {
        let mut wrapping = Wrapping::default();
        // What was refused has not changed the copy, and may be what a later statement needs.
        let mut complete = self.complete && schema_known;
        {
            let mut rules = Rules::new(&self.conn, self.live, captured);
            for statement in read(path, shown)? {
                let statement = statement?;
                let place = format!("{shown}:{}", statement.line);
                let judged = rules.classify(&statement, &place).and_then(|class| {
                    let turn = loop {
                        match wrapping.admit(&class, &statement, &place) {
                            Err(earlier) if earlier.place != place => {
                                complete = false;
                                each(refused(earlier));
                            }
                            admitted => break admitted?,
                        }
                    };
                    if turn == Turn::Skip { Ok(None) } else { self.verdict(&statement, &class, &place, captured) }
                });
                let verdict = match judged {
                    Ok(None) => continue,
                    Ok(Some(verdict)) => verdict,
                    Err(TargetError::Refused(refusal)) => {
                        complete = false;
                        Verdict::Refused(refusal)
                    }
                    Err(error) if complete => return Err(error),
                    Err(error) => Verdict::Unknown { why: with_sources(&error) },
                };
                each(change(place, shortened(&statement.sql), verdict));
            }
        }
        self.complete &= complete || !schema_known;
        Ok(())
    }

    fn verdict(
        &self,
        statement: &Statement,
        class: &Class,
        place: &str,
        captured: bool,
    ) -> Result<Option<Verdict>, TargetError> {
        let sql = statement.sql.as_str();
        let run = || execute(&self.conn, sql).map_err(|source| cannot_run(place, sql, source));
        Ok(match class {
            Class::Empty | Class::Begin | Class::Commit | Class::Read => None,
            Class::LeadingPragma => {
                run()?;
                None
            }
            Class::Counter => Some(undone_by("sets the number back to what it was".to_owned())),
            Class::DeleteAll { table } => Some(undone_by(format!("puts back the rows of {table}"))),
            Class::Rows => {
                self.conn.prepare(sql).map_err(|source| cannot_run(place, sql, source))?;
                Some(undone_by("puts back each row that it changes, as it was".to_owned()))
            }
            Class::Analyze => {
                self.change_schema(statement, place)?;
                Some(undone_by("puts back the statistics as they were".to_owned()))
            }
            Class::Ddl if captured => {
                self.change_schema(statement, place)?;
                Some(undone_by(words(sql)))
            }
            Class::Ddl => {
                run()?;
                Some(undone_by(words(sql)))
            }
        })
    }

    /// Changes the copy as a real run would.
    fn change_schema(&self, statement: &Statement, place: &str) -> Result<(), TargetError> {
        let failed = |source| TargetError::failed(format!("cannot copy the schema of {}", self.label), source);
        let foreign_keys = self.conn.query_row("PRAGMA foreign_keys", [], |row| row.get(0)).map_err(failed)?;
        let mut context = ddl::Context {
            conn: &self.conn,
            prefix: "backout_",
            target: self.label,
            foreign_keys,
            next_hold: &mut 1,
            already: Conflicts::default(),
            needed: Conflicts::default(),
            stays: false,
        };
        let without_rows = without_rows(&self.conn, statement);
        let changed = context.within(|context| ddl::run(context, without_rows.as_ref().unwrap_or(statement)));
        changed.map(drop).map_err(|error| ddl::placed(error, statement, place))
    }

    /// Judges the user's own undo script on the schema that the script before it leaves.
    fn undo_script(
        &mut self,
        path: &Path,
        shown: &str,
        schema_known: bool,
        each: &mut dyn FnMut(PlannedChange),
    ) -> Result<(), TargetError> {
        let failed = |source| TargetError::failed(format!("cannot read {shown}"), source);
        let complete = self.complete;
        self.conn.execute_batch("SAVEPOINT backout_undo").map_err(failed)?;
        let walked = self.walk(path, shown, false, schema_known, &mut |change| {
            if matches!(change.verdict, Verdict::Refused(_)) {
                each(change);
            }
        });
        self.conn.execute_batch("ROLLBACK TO backout_undo; RELEASE backout_undo").map_err(failed)?;
        self.complete = complete;
        walked
    }
}

/// `CREATE TABLE … AS` with the same columns and no rows, which are not the plan's business; none for everything else,
/// and where it can't be written so.
fn without_rows(conn: &Connection, statement: &Statement) -> Option<Statement> {
    let Some(Head::Create { as_select: true, .. }) = head(&statement.sql) else { return None };
    let select = each_token(&statement.sql).find(|token| token.is("AS"))?.end;
    let end = each_token(&statement.sql).filter(|token| !token.is_sign(b';')).last()?.end;
    let (create, select) = (statement.sql.get(..select)?, statement.sql.get(select..end)?);
    let sql = format!("{create} SELECT * FROM ({select}) LIMIT 0");
    conn.prepare(&sql).ok()?;
    Some(Statement { line: statement.line, sql })
}

fn change(place: String, change: String, verdict: Verdict) -> PlannedChange {
    PlannedChange { place, change, verdict, rows: None, bytes: None, locks: None }
}

fn refused(refusal: Refusal) -> PlannedChange {
    change(refusal.place.clone(), refusal.what.clone(), Verdict::Refused(refusal))
}

fn undone_by(undo: String) -> Verdict {
    Verdict::Undoable { undo }
}

/// How a change of the schema is taken back, in words.
fn words(sql: &str) -> String {
    match head(sql) {
        Some(Head::Create { object, name, .. }) => format!("DROP {} {}", object.kind().to_ascii_uppercase(), name.name),
        Some(Head::Drop { object: Object::Table | Object::Virtual, name }) => {
            format!("puts back table {} with its rows, indexes and triggers", name.name)
        }
        Some(Head::Drop { object, name }) => format!("puts back {} {}", object.kind(), name.name),
        Some(Head::Alter { name, alter }) => match alter {
            Alter::RenameTable { to } => format!("gives {to} its old name {}, and all that speaks of it", name.name),
            Alter::RenameColumn { from, .. } => format!("gives column {from} of {} its old name", name.name),
            Alter::AddColumn { column } => format!("drops column {column} of {}", name.name),
            Alter::DropColumn { column } => format!("puts back column {column} of {} with its values", name.name),
            Alter::Constraint => format!("puts back the definition of {}", name.name),
        },
        Some(Head::Reindex) => "nothing: the indexes hold the same".to_owned(),
        None => "puts back the schema as it was".to_owned(),
    }
}

impl Planner for SchemaClone<'_> {
    fn script(
        &mut self,
        script: &Script,
        schema_known: bool,
        each: &mut dyn FnMut(PlannedChange),
    ) -> Result<(), TargetError> {
        let captured = matches!(script.undo, ScriptUndo::Captured);
        if captured && let Err(error) = limits::readable(self.live, self.label, &script.shown) {
            let TargetError::Refused(refusal) = error else { return Err(error) };
            each(refused(refusal));
            return Ok(());
        }
        self.walk(&script.path, &script.shown, captured, schema_known, each)?;
        let ended = |source| TargetError::failed(format!("cannot read {}", script.shown), source);
        self.end_script().map_err(ended)?;
        if let ScriptUndo::ByScript { path, shown } = &script.undo {
            self.undo_script(path, shown, schema_known, each)?;
            self.end_script().map_err(ended)?;
        }
        Ok(())
    }
}

fn with_sources(error: &TargetError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::database::ScriptUndo;

    fn plan(script: &str, known: bool) -> Result<Vec<PlannedChange>, TargetError> {
        let live = Connection::open_in_memory().unwrap();
        live.execute_batch(
            "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a); CREATE VIEW v AS SELECT a FROM t;
             CREATE VIRTUAL TABLE f USING fts5(a); CREATE TABLE backout_shop(x);
             CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO f VALUES (new.a); END",
        )
        .unwrap();
        let mut clone = SchemaClone::of(&live, "database main").unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(script.as_bytes()).unwrap();
        let script = Script { path: file.path().to_owned(), shown: "a.sql".into(), undo: ScriptUndo::Captured };
        let mut changes = Vec::new();
        clone.script(&script, known, &mut |change| changes.push(change))?;
        Ok(changes)
    }

    #[test]
    fn a_statement_meets_the_schema_that_those_before_it_leave() {
        let changes =
            plan("BEGIN; CREATE TABLE n(b);\nINSERT INTO n SELECT a FROM v;\nDROP TABLE t; COMMIT;", true).unwrap();
        let places: Vec<&str> = changes.iter().map(|change| change.place.as_str()).collect();
        assert_eq!(places, ["a.sql:1", "a.sql:2", "a.sql:3"]);
        assert!(changes.iter().all(|change| matches!(change.verdict, Verdict::Undoable { .. })), "{changes:?}");
    }

    #[test]
    fn what_does_not_fit_the_schema_fails_only_where_the_schema_is_known() {
        let error = plan("\n\nUPDATE missing SET a = 1;", true).unwrap_err();
        assert!(error.to_string().contains("a.sql:3"), "{error}");
        let changes = plan("UPDATE missing SET a = 1;", false).unwrap();
        assert!(
            matches!(&changes[0].verdict, Verdict::Unknown { why } if why.contains("no such table")),
            "{changes:?}"
        );
    }

    #[test]
    fn a_script_leaves_nothing_behind_but_its_schema() {
        let live = Connection::open_in_memory().unwrap();
        live.execute_batch("CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p); ANALYZE").unwrap();
        let mut clone = SchemaClone::of(&live, "database main").unwrap();
        let mut run = |sql: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(sql.as_bytes()).unwrap();
            let script = Script { path: file.path().to_owned(), shown: "a.sql".into(), undo: ScriptUndo::Captured };
            clone.script(&script, true, &mut |_| {})
        };
        run("PRAGMA foreign_keys = ON; CREATE TEMP TABLE c(other); CREATE TEMP VIEW w AS SELECT 1; CREATE TABLE n(a);")
            .unwrap();
        run("INSERT INTO c(p) VALUES (1); INSERT INTO n(a) VALUES (1); DELETE FROM sqlite_stat1;").unwrap();
        assert!(run("SELECT * FROM w").is_err());
    }

    #[test]
    fn what_cannot_be_undone_is_refused_with_its_place() {
        let changes = plan("INSERT INTO t(a) VALUES (1);\nVACUUM;\nCOMMIT;", true).unwrap();
        let refused: Vec<&str> = changes
            .iter()
            .filter_map(|change| match &change.verdict {
                Verdict::Refused(refusal) => Some(refusal.place.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(refused, ["a.sql:2", "a.sql:3"]);
    }
}
