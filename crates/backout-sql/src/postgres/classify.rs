//! What each statement of a script is, as far as undoing goes, and which are refused, why, and what to do instead.
//!
//! Told from the first tokens of a statement: PostgreSQL's commands differ there, and what they change in the end is
//! read from MVCC and the catalogs, whatever the text says. So no parser of one version's grammar is needed (libpg_query
//! knows one version, is a C library of 9 MB, and takes 100 s to build); a command that is not known is refused.
//! Never asks the database.

use backout_model::target::Refusal;

use super::functions;
use super::head::{Head, Object, Verb, head};
use super::query;
use super::reader::{Reader, reader};
use super::setting::{self, Setting};
use super::split::Statement;
use super::token::each_token;
use crate::shown::shorten;

/// What a statement does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing that lasts, unless a function that it calls writes.
    Read,
    /// Changes rows.
    Rows,
    /// `COPY … FROM STDIN`: the rows follow in the script.
    CopyIn,
    /// `COPY … TO STDOUT`: the server sends rows, which nobody wants.
    CopyOut,
    /// What it does is known only once it has run; the words say why.
    Unknown(&'static str),
    /// Changes the schema.
    Ddl(Head),
    /// A setting of the session or the transaction.
    Setting(Setting),
    /// `SET CONSTRAINTS`.
    Constraints,
    /// Makes or drops what only the session has: temporary tables, cursors, prepared statements.
    Session,
    /// LOCK TABLE, and REINDEX, which locks as well and changes nothing that the database says.
    Lock,
    /// ANALYZE and the like: what they change is no part of what the database says.
    Upkeep,
    Begin,
    Commit,
}

/// A statement that a step cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{refusal}")]
pub struct Refused {
    pub refusal: Refusal,
    /// Refused even where the user brings an undo of their own: it cannot run inside of a step's transaction.
    pub always: bool,
}

pub const LEAVE_OUT: &str = "leave the statement out of the script";
/// The setting without which the server does not count what is written.
const UNCOUNTED: &[u8] = b"track_counts";
pub const OWN_UNDO: &str =
    "give the step an undo script of its own (`undo: FILE`), or `undo: none` with `because:` and --accept-irreversible";
const RUN_STEP: &str = "run it by psql with a `run` step that declares its `undo:`";

/// Why a statement is refused, before its place is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct No {
    why: String,
    ways_out: Vec<&'static str>,
    always: bool,
}

impl No {
    /// It can run, and its undo cannot be produced.
    pub fn undo(why: impl Into<String>) -> Self {
        Self { why: why.into(), ways_out: vec![OWN_UNDO, LEAVE_OUT], always: false }
    }

    /// It cannot run inside of a step.
    pub fn step(why: impl Into<String>, way_out: &'static str) -> Self {
        Self { why: why.into(), ways_out: vec![way_out], always: true }
    }
}

/// The class of a statement. `place` names it in errors: `sql/010.sql:12`.
///
/// # Errors
/// What cannot be taken back, or not be run inside of a step.
pub fn classify(statement: &Statement, place: &str) -> Result<Class, Refused> {
    of(&statement.sql, statement.has_data).map_err(|No { why, ways_out, always }| Refused {
        refusal: Refusal {
            place: place.to_owned(),
            what: format!("`{}`", shorten(&statement.sql)),
            why,
            ways_out: ways_out.into_iter().map(str::to_owned).collect(),
        },
        always,
    })
}

pub fn of(sql: &str, has_data: bool) -> Result<Class, No> {
    let mut rest = reader(sql);
    let Some(first) = rest.next() else { return Ok(Class::Read) };
    if sql.as_bytes().windows(UNCOUNTED.len()).any(|part| part.eq_ignore_ascii_case(UNCOUNTED)) {
        return Err(No::undo("without track_counts nobody can tell which tables it wrote to"));
    }
    let word = if first.text.len() <= 12 { first.text.to_ascii_uppercase() } else { String::new() };
    match word.as_str() {
        "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE" | "PREPARE" => {
            transaction(&word, rest)
        }
        "SELECT" | "VALUES" | "TABLE" | "WITH" | "(" | "INSERT" | "UPDATE" | "DELETE" | "MERGE" => {
            functions::admit(sql)?;
            if let Some(class) = setting::by_function(sql)? {
                return Ok(class);
            }
            query::query(first, rest)
        }
        "EXPLAIN" => query::explain(sql, rest),
        "COPY" => query::copy(sql, rest, has_data),
        "DO" => Ok(Class::Unknown("what the block does is known once it has run")),
        "CALL" => {
            functions::admit(sql)?;
            Ok(Class::Unknown("what the procedure does is known once it has run"))
        }
        "EXECUTE" => Ok(Class::Unknown("what was prepared is known once it has run")),
        "CREATE" | "ALTER" | "DROP" | "COMMENT" | "GRANT" | "REVOKE" | "TRUNCATE" | "REFRESH" => schema(sql),
        "SET" | "RESET" => setting::of(&word, rest),
        "DECLARE" | "FETCH" | "MOVE" | "CLOSE" | "DEALLOCATE" => {
            functions::admit(sql)?;
            Ok(Class::Session)
        }
        "SHOW" => Ok(Class::Read),
        "LOCK" => Ok(Class::Lock),
        "ANALYZE" | "ANALYSE" | "CHECKPOINT" => Ok(Class::Upkeep),
        "REINDEX" => reindex(rest),
        "VACUUM" => Err(No::step("VACUUM cannot run inside of a transaction", RUN_STEP)),
        "CLUSTER" | "REPACK" => Err(No::undo(format!("the order of rows that {word} makes cannot be taken back"))),
        "NOTIFY" => Err(No::undo("what has been notified cannot be called back")),
        "LISTEN" | "UNLISTEN" => Err(No::step("nobody is there to hear notifications", LEAVE_OUT)),
        "DISCARD" => Err(No::step("the session is the tool's own, and its state is needed", LEAVE_OUT)),
        "LOAD" => Err(No::undo("a library that is loaded could do anything")),
        "SECURITY" => Err(No::undo("security labels are not captured")),
        "REASSIGN" => Err(No::undo("it reaches objects of the whole server, which are not captured")),
        "IMPORT" => Err(No::undo("foreign tables are not captured")),
        _ => Err(No::undo("it is no command of PostgreSQL that is known here")),
    }
}

fn transaction<'a>(word: &str, mut rest: Reader<'a>) -> Result<Class, No> {
    let one = "a step is one transaction and cannot be cut up inside";
    match word {
        "PREPARE" if rest.takes("TRANSACTION") => {
            Err(No::step("a prepared transaction could be committed by anybody later", LEAVE_OUT))
        }
        "PREPARE" => Ok(Class::Session),
        "START" if !rest.takes("TRANSACTION") => Err(No::step("it is no command of PostgreSQL", LEAVE_OUT)),
        "BEGIN" | "START" => {
            if !rest.takes("WORK") {
                rest.takes("TRANSACTION");
            }
            setting::transaction_modes(rest)?;
            Ok(Class::Begin)
        }
        "COMMIT" if rest.takes("PREPARED") => {
            Err(No::step("what another transaction prepared is not this step's to commit", LEAVE_OUT))
        }
        "COMMIT" | "END" => {
            if !rest.takes("WORK") {
                rest.takes("TRANSACTION");
            }
            if rest.takes("AND CHAIN") {
                return Err(No::step(one, LEAVE_OUT));
            }
            Ok(Class::Commit)
        }
        _ => Err(No::step(one, LEAVE_OUT)),
    }
}

fn schema(sql: &str) -> Result<Class, No> {
    let Some(head) = head(sql) else {
        return Err(No::undo("this change of the schema is not known"));
    };
    if let Object::Cluster = head.object {
        let all = head.words.clone();
        return Err(match (head.verb, all.as_str()) {
            // These refuse to run inside of a transaction.
            (Verb::Create | Verb::Drop, "database" | "tablespace") | (_, "system") => {
                No::step(format!("{all} is a matter of the whole server, not of one database"), RUN_STEP)
            }
            _ => No::undo(format!("{all} is a matter of the whole server, not of one database")),
        });
    }
    match head.object {
        Object::Large => return Err(No::undo("large objects are not captured")),
        Object::Other => return Err(No::undo(format!("{} is no kind of object that is captured", head.words))),
        _ => {}
    }
    if head.verb == Verb::Alter && (head.object == Object::Extension || depends_on_extension(sql)) {
        return Err(No::undo("what belongs to an extension, and which version, cannot be put back"));
    }
    if head.concurrently && head.object == Object::Index {
        let why = "it cannot run inside of a transaction, and a failure would leave half of an index";
        return Err(No::step(
            why,
            "leave CONCURRENTLY out, or run it by psql with a `run` step that declares its `undo:`",
        ));
    }
    // ALTER TABLE … DETACH PARTITION … CONCURRENTLY
    if head.verb == Verb::Alter && each_token(sql).any(|token| token.is("CONCURRENTLY")) {
        let why = "DETACH PARTITION … CONCURRENTLY cannot run inside of a transaction";
        return Err(No::step(
            why,
            "leave CONCURRENTLY out, or run it by psql with a `run` step that declares its `undo:`",
        ));
    }
    if head.temporary {
        return Ok(Class::Session);
    }
    if matches!(head.object, Object::Table | Object::MaterializedView) {
        // CREATE TABLE … AS SELECT calls functions, too.
        functions::admit(sql)?;
    }
    own(head).map(Class::Ddl)
}

/// `ALTER TYPE … ADD VALUE …`
pub fn adds_label(sql: &str) -> bool {
    has_words(sql, ["ADD", "VALUE"])
}

/// `ALTER FUNCTION … [NO] DEPENDS ON EXTENSION …`
fn depends_on_extension(sql: &str) -> bool {
    has_words(sql, ["DEPENDS", "ON", "EXTENSION"])
}

/// True where these words follow each other, none of them twice.
fn has_words<const COUNT: usize>(sql: &str, words: [&str; COUNT]) -> bool {
    let mut found = 0;
    each_token(sql).any(|token| {
        found = if token.is(words[found]) { found + 1 } else { usize::from(token.is(words[0])) };
        found == words.len()
    })
}

/// Refuses what belongs to the tool.
pub fn own(head: Head) -> Result<Head, No> {
    let mut named = head.names.iter().chain(&head.on).flat_map(|name| name.schema.iter().chain([&name.name]));
    if let Some(name) = named.find(|name| is_ours(name)) {
        return Err(No::step(format!("names that begin with `backout` are the tool's own: {name}"), LEAVE_OUT));
    }
    drop(named);
    Ok(head)
}

/// True for names that only the tool itself uses.
pub fn is_ours(name: &str) -> bool {
    name.starts_with("backout")
}

fn reindex<'a>(mut rest: Reader<'a>) -> Result<Class, No> {
    let concurrently = rest.clone().any(|token| token.is("CONCURRENTLY"));
    if rest.peek().is_some_and(|token| token.is_sign(b'(')) {
        rest.skip_parentheses();
    }
    let whole = ["DATABASE", "SYSTEM", "SCHEMA"].iter().any(|word| rest.takes(word));
    if concurrently || whole {
        return Err(No::step("it cannot run inside of a transaction", RUN_STEP));
    }
    Ok(Class::Lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(sql: &str) -> Result<Class, Refused> {
        let has_data = sql.contains("FROM STDIN");
        classify(&Statement { line: 1, sql: sql.into(), has_data }, "a.sql:1")
    }

    /// The class in a word.
    fn word(sql: &str) -> String {
        match class(sql).unwrap_or_else(|refused| panic!("{sql}: {}", refused.refusal.why)) {
            Class::Ddl(head) => format!("{:?} {:?}", head.verb, head.object),
            Class::Unknown(_) => "Unknown".to_owned(),
            Class::Setting(setting) => {
                let local = if setting.local { " local" } else { "" };
                format!("{}{local}{}", setting.name, if setting.ignored { " ignored" } else { "" })
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn statements_are_told_apart() {
        for (sql, expected) in [
            ("SELECT 1", "Read"),
            ("(SELECT 1) UNION SELECT 2", "Read"),
            ("TABLE t", "Read"),
            ("VALUES (1)", "Read"),
            ("SHOW ALL", "Read"),
            ("select a from t for update", "Read"),
            ("SELECT extract(epoch FROM now()), (SELECT 1) AS \"into\"", "Read"),
            ("SELECT a, b INTO s.n FROM t", "Create Table"),
            ("SELECT a INTO TEMPORARY TABLE n FROM t", "Session"),
            ("WITH x AS (SELECT 1) SELECT * INTO n FROM x", "Create Table"),
            ("WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT * FROM x", "Rows"),
            ("WITH update AS (SELECT 1), delete(a) AS MATERIALIZED (SELECT 2) SELECT * FROM update", "Read"),
            ("WITH RECURSIVE x(a) AS (SELECT 1) SEARCH DEPTH FIRST BY a, b SET c, y AS (SELECT 2) TABLE x", "Read"),
            ("WITH x AS (SELECT 1) CYCLE a SET c TO 1 DEFAULT 0 USING p DELETE FROM t", "Rows"),
            ("WITH x AS NOT MATERIALIZED (SELECT 1) UPDATE t SET a = 1", "Rows"),
            ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "Rows"),
            ("MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE", "Rows"),
            ("EXPLAIN DELETE FROM t", "Read"),
            ("EXPLAIN ANALYZE VERBOSE DELETE FROM t", "Rows"),
            ("EXPLAIN (ANALYZE, COSTS OFF) CREATE TABLE n AS SELECT 1", "Create Table"),
            ("EXPLAIN (ANALYZE off, COSTS OFF) DELETE FROM t", "Read"),
            ("EXPLAIN (ANALYZE 0) DELETE FROM t", "Read"),
            ("COPY t (a, b) FROM STDIN WITH (FORMAT csv)", "CopyIn"),
            ("COPY t TO STDOUT", "CopyOut"),
            ("COPY (SELECT a FROM t) TO STDOUT", "CopyOut"),
            ("COPY t FROM 'x.csv' CSV", "Rows"),
            ("DO $$ BEGIN END $$", "Unknown"),
            ("CALL p(1)", "Unknown"),
            ("EXECUTE p", "Unknown"),
            ("PREPARE p AS SELECT 1", "Session"),
            ("DECLARE c CURSOR FOR SELECT 1", "Session"),
            ("CREATE TEMP TABLE x(a int)", "Session"),
            ("CREATE TABLE x AS SELECT 1", "Create Table"),
            ("ALTER TYPE e RENAME VALUE 'x' TO 'y'", "Alter Type"),
            ("ALTER TYPE e ADD VALUE IF NOT EXISTS 'x'", "Alter Type"),
            ("ALTER TABLE t DETACH PARTITION p", "Alter Table"),
            ("CREATE AGGREGATE a(int) (SFUNC = f, STYPE = int)", "Create Function"),
            ("TRUNCATE t", "Truncate Table"),
            ("REFRESH MATERIALIZED VIEW CONCURRENTLY m", "Refresh MaterializedView"),
            ("COMMENT ON EXTENSION plpgsql IS NULL", "Comment Extension"),
            ("GRANT SELECT ON t TO PUBLIC", "Grant Table"),
            ("SET search_path TO a, b", "search_path"),
            ("set local \"TimeZone\" = 'UTC'", "timezone local"),
            ("SET TIME ZONE LOCAL", "timezone"),
            ("SET SESSION my.own = 1", "my.own"),
            ("SET ROLE joe", "role"),
            ("RESET ROLE", "role"),
            ("SET NAMES 'utf8'", "client_encoding"),
            ("SET client_encoding = 'UTF8'", "client_encoding"),
            ("SET standard_conforming_strings = on", "standard_conforming_strings"),
            ("SET statement_timeout = 0", "statement_timeout ignored"),
            ("SELECT pg_catalog.set_config('search_path', '', false);", "search_path"),
            ("SELECT set_config('a.b', 'c', true)", "a.b local"),
            ("SELECT set_config(a, 'c', true) FROM t", "Read"),
            ("SET CONSTRAINTS ALL DEFERRED", "Constraints"),
            ("SET SESSION AUTHORIZATION DEFAULT", "role"),
            ("RESET SESSION AUTHORIZATION", "role"),
            ("SET TRANSACTION READ WRITE, ISOLATION LEVEL READ COMMITTED", "Upkeep"),
            ("LOCK TABLE t IN EXCLUSIVE MODE", "Lock"),
            ("ANALYZE t", "Upkeep"),
            ("REINDEX INDEX i", "Lock"),
            ("BEGIN;", "Begin"),
            ("START TRANSACTION ISOLATION LEVEL READ COMMITTED", "Begin"),
            ("BEGIN WORK READ WRITE", "Begin"),
            ("COMMIT AND NO CHAIN", "Commit"),
            ("END TRANSACTION;", "Commit"),
        ] {
            assert_eq!(word(sql), expected, "{sql}");
        }
    }

    #[test]
    fn what_an_undo_of_the_users_own_may_take_back_is_refused_without_one() {
        for (sql, why) in [
            ("CREATE ROLE joe", "role is a matter of the whole server"),
            ("ALTER DATABASE d SET a = 1", "database is a matter of the whole server"),
            ("GRANT admin TO joe", "membership in a role is a matter of the whole server"),
            ("COMMENT ON TABLESPACE x IS 'y'", "tablespace is a matter"),
            ("DROP USER joe", "user is a matter"),
            ("CREATE USER MAPPING FOR joe SERVER s", "user mapping is no kind"),
            ("CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()", "event trigger is no kind"),
            ("CREATE FOREIGN TABLE f(a int) SERVER s", "foreign table is no kind"),
            ("CREATE NEWTHING x", "newthing is no kind"),
            ("ALTER LARGE OBJECT 1 OWNER TO joe", "large objects are not"),
            ("SELECT lo_unlink(1)", "lo_unlink(): large objects are not"),
            ("INSERT INTO t SELECT pg_catalog.lo_import('/x')", "lo_import(): large objects"),
            ("SELECT \"dblink_exec\"('x', 'y')", "dblink_exec(): what it does"),
            ("SELECT pg_advisory_unlock_all()", "pg_advisory_unlock_all(): the lock by which"),
            ("WITH x AS (SELECT pg_notify('a', 'b')) SELECT 1", "pg_notify(): what has been notified"),
            ("CREATE TABLE n AS SELECT lo_creat(1)", "lo_creat(): large"),
            ("ALTER EXTENSION x ADD TABLE t", "what belongs to an extension"),
            ("ALTER EXTENSION x DROP FUNCTION f(int)", "what belongs to an extension"),
            ("ALTER EXTENSION x UPDATE", "what belongs to an extension"),
            ("ALTER FUNCTION f(int) DEPENDS ON EXTENSION x", "what belongs to an extension"),
            ("ALTER INDEX i NO DEPENDS ON EXTENSION x", "what belongs to an extension"),
            ("NOTIFY a", "what has been notified"),
            ("COPY t TO 'x.csv'", "it writes a file"),
            ("COPY t FROM PROGRAM 'rm x'", "what a program on the server does"),
            ("CLUSTER t USING i", "the order of rows"),
            ("LOAD 'x'", "a library"),
            ("SECURITY LABEL ON TABLE t IS 'x'", "security labels"),
            ("REASSIGN OWNED BY a TO b", "it reaches objects of the whole server"),
            ("DROP OWNED BY a", "owned is no kind"),
            ("IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c", "foreign tables"),
            ("SELEC 1", "it is no command"),
            ("?", "it is no command"),
        ] {
            let refused = class(sql).unwrap_err();
            assert!(refused.refusal.why.starts_with(why), "{sql}: {}", refused.refusal.why);
            assert!(!refused.always && refused.refusal.ways_out.contains(&OWN_UNDO.to_owned()), "{sql}");
        }
    }

    #[test]
    fn what_cannot_be_part_of_a_step_is_refused_whatever_its_undo() {
        for (sql, why) in [
            ("ROLLBACK", "a step is one transaction"),
            ("ABORT", "a step is one transaction"),
            ("SAVEPOINT a", "a step is one transaction"),
            ("RELEASE a", "a step is one transaction"),
            ("ROLLBACK TO a", "a step is one transaction"),
            ("COMMIT AND CHAIN", "a step is one transaction"),
            ("COMMIT PREPARED 'x'", "what another transaction"),
            ("PREPARE TRANSACTION 'x'", "a prepared transaction"),
            ("BEGIN ISOLATION LEVEL SERIALIZABLE", "a step runs in a READ COMMITTED"),
            ("SET TRANSACTION READ ONLY", "a step runs in a READ COMMITTED"),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ", "a step runs in"),
            ("SET default_transaction_read_only = on", "a step runs in"),
            ("SET client_encoding = 'LATIN1'", "scripts are read as UTF-8"),
            ("SET standard_conforming_strings TO off", "its strings would mean"),
            ("SET SESSION AUTHORIZATION joe", "a redo could not be the same user again"),
            ("RESET ALL", "the session is the tool's own"),
            ("VACUUM FULL t", "VACUUM cannot run"),
            ("CREATE INDEX CONCURRENTLY i ON t (a)", "it cannot run inside of a transaction"),
            ("DROP INDEX CONCURRENTLY i", "it cannot run inside of a transaction"),
            ("REINDEX TABLE CONCURRENTLY t", "it cannot run inside of a transaction"),
            ("REINDEX (VERBOSE) DATABASE d", "it cannot run inside of a transaction"),
            ("ALTER TABLE t DETACH PARTITION p CONCURRENTLY", "DETACH PARTITION … CONCURRENTLY"),
            ("CREATE DATABASE d", "database is a matter"),
            ("DROP TABLESPACE x", "tablespace is a matter"),
            ("ALTER SYSTEM SET a = 1", "system is a matter"),
            ("LISTEN a", "nobody is there"),
            ("DISCARD ALL", "the session is the tool's own"),
            ("CREATE TABLE backout_x(a int)", "names that begin with `backout`"),
            ("DROP SCHEMA \"backout_shop\" CASCADE", "names that begin with `backout`"),
            ("CREATE INDEX i ON backout_shop.x (a)", "names that begin with `backout`"),
            ("TRUNCATE t, backout_shop.marker", "names that begin with `backout`"),
            ("INSERT INTO backout_shop.marker VALUES (1)", "marker is the tool's own"),
            ("WITH x AS (SELECT 1) DELETE FROM ONLY backout_shop.x", "x is the tool's own"),
            ("COPY backout_shop.marker FROM STDIN", "marker is the tool's own"),
        ] {
            let refused = class(sql).unwrap_err();
            assert!(refused.refusal.why.starts_with(why), "{sql}: {}", refused.refusal.why);
            assert!(refused.always && !refused.refusal.ways_out.is_empty(), "{sql}");
        }
    }

    #[test]
    fn a_refusal_names_the_statement_and_its_place() {
        let refused = class("CREATE  ROLE\n joe;").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "a.sql:1: `CREATE ROLE joe` is refused: role is a matter of the whole server, not of one database"
        );
    }
}
