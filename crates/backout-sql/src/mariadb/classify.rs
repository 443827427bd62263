//! What each statement of a script is, as far as undoing goes, and which are refused, why, and what to do instead.
//!
//! Told from the tokens of a statement as the server runs it. A statement that is not known is refused. Never asks the
//! database.

use backout_model::target::Refusal;

use super::emptied;
use super::head::{Head, Object, Verb, head};
use super::hidden::{self, Hidden};
use super::load;
use super::reader::{Name, Reader, reader};
use super::run;
use super::sequence::draws;
use super::setting::{self, Setting};
use super::split::Statement;
use super::token::{Token, bare, each_token};
use crate::shown::shorten;

/// What a statement does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing that lasts.
    Read,
    /// Changes rows, of at most these tables: a name may also be that of a column, or an alias.
    Rows(Vec<Name>),
    /// Changes the schema, and commits.
    Ddl(Head),
    Setting(Setting),
    /// Makes or drops a table of the session alone.
    Temporary(Head),
    /// A statement that a string hides.
    Hidden(Hidden),
    /// Changes nothing that the database says, and commits: `ANALYZE TABLE`.
    Upkeep,
    Begin,
    Commit,
    /// Takes back what was done since BEGIN.
    Rollback,
    /// Sets a savepoint, goes back to one or gives it up.
    Savepoint,
    /// Of this name the site's database must be.
    Use(String),
}

/// A statement that a step cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{refusal}")]
pub struct Refused {
    pub refusal: Refusal,
    /// Refused even where the user brings an undo of their own.
    pub always: bool,
}

pub const LEAVE_OUT: &str = "leave the statement out of the script";
pub const OWN_UNDO: &str =
    "give the step an undo script of its own (`undo: FILE`), or `undo: none` with `because:` and --accept-irreversible";

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

    /// It cannot be a part of a step.
    pub fn step(why: impl Into<String>, way_out: &'static str) -> Self {
        Self { why: why.into(), ways_out: vec![way_out], always: true }
    }

    pub fn is_always(&self) -> bool {
        self.always
    }

    pub fn at(self, place: &str, sql: &str) -> Refused {
        let ways_out = self.ways_out.into_iter().map(str::to_owned).collect();
        let refusal = Refusal { place: place.to_owned(), what: format!("`{}`", shorten(sql)), why: self.why, ways_out };
        Refused { refusal, always: self.always }
    }
}

/// Whether a script is inside a transaction of its own.
#[derive(Debug, Default)]
pub struct Flow {
    begun: bool,
}

impl Flow {
    /// Goes on with the next statement; refuses what takes back where there is nothing of the script's own to take back.
    pub fn admit(&mut self, class: &Class) -> Result<(), No> {
        match class {
            Class::Begin => self.begun = true,
            Class::Rollback | Class::Savepoint if !self.begun => {
                return Err(No::step("it is in no transaction that the script began", "begin one"));
            }
            Class::Rollback | Class::Commit | Class::Ddl(_) | Class::Upkeep => self.begun = false,
            _ => {}
        }
        Ok(())
    }
}

/// The class of a statement. `place` names it in errors: `sql/010.sql:12`; `version`: see [`bare`].
///
/// # Errors
/// What cannot be taken back, or not be a part of a step.
pub fn classify(statement: &Statement, version: u32, place: &str) -> Result<Class, Refused> {
    of(&bare(&statement.sql, version)).map_err(|no| no.at(place, &statement.sql))
}

/// Functions that would let the tool's lock go, or change what no transaction takes back.
const FUNCTIONS: [(&str, &str); 6] = [
    ("RELEASE_ALL_LOCKS", "it would let go of the tool's own lock"),
    ("RELEASE_LOCK", "locks by name are not for a step of a deployment"),
    ("GET_LOCK", "locks by name are not for a step of a deployment"),
    ("SETVAL", "where a sequence stood could not be told: write ALTER SEQUENCE … RESTART"),
    ("OUTFILE", "it writes a file on the server"),
    ("DUMPFILE", "it writes a file on the server"),
];

/// The class of a bare statement.
pub fn of(sql: &str) -> Result<Class, No> {
    let mut rest = reader(sql);
    let Some(first) = rest.next() else { return Ok(Class::Read) };
    if each_token(sql).any(|token| token.is_sign(b';')) && !makes_routine(sql) {
        return Err(No::step("it is several statements in one", "part them by the script's delimiter"));
    }
    for (word, why) in FUNCTIONS {
        if each_token(sql).any(|token| token.is(word)) {
            return Err(No::undo(why));
        }
    }
    guard_own(sql)?;
    let word = if first.text.len() <= 12 { first.text.to_ascii_uppercase() } else { String::new() };
    if matches!(word.as_str(), "INSERT" | "REPLACE" | "UPDATE" | "DELETE") {
        if says_portion(sql) {
            return Err(No::undo(PORTION));
        }
        if run::tells_found_rows(sql) {
            let why = "FOUND_ROWS() would tell of the tool's own statements in between";
            return Err(No::step(why, "say SET @found = FOUND_ROWS() right behind the SELECT"));
        }
    }
    match word.as_str() {
        // Later servers let rows be changed behind WITH.
        "WITH" if each_token(sql).any(|token| token.is("UPDATE") || token.is("DELETE") || token.is("INSERT")) => {
            Err(No::undo("what WITH changes is not captured yet"))
        }
        "SELECT" | "VALUES" | "TABLE" | "WITH" | "(" | "SHOW" | "DESCRIBE" | "DESC" | "HELP" | "DO" => Ok(Class::Read),
        "EXPLAIN" if !rest.takes("ANALYZE") => Ok(Class::Read),
        "INSERT" | "REPLACE" => insert(rest),
        "UPDATE" => Ok(Class::Rows(names_until(&mut rest, "SET"))),
        "DELETE" => Ok(Class::Rows(names_until(&mut rest, "WHERE"))),
        "SET" => setting::set(rest).map(Class::Setting),
        "CREATE" | "ALTER" | "DROP" | "TRUNCATE" | "RENAME" => {
            let head = head(sql).ok_or_else(|| No::step("its head is not understood", LEAVE_OUT))?;
            ddl(sql, head)
        }
        "ANALYZE" if rest.takes("TABLE") || rest.takes("LOCAL TABLE") || rest.takes("NO_WRITE_TO_BINLOG TABLE") => {
            Ok(Class::Upkeep)
        }
        "BEGIN" => match rest.peek() {
            None => Ok(Class::Begin),
            Some(token) if token.is("WORK") => Ok(Class::Begin),
            Some(_) => block(sql),
        },
        "START" if rest.takes("TRANSACTION") => match rest.ends() {
            true => Ok(Class::Begin),
            false => Err(No::step("a transaction of another kind cannot be a part of a step", "begin a plain one")),
        },
        "COMMIT" => {
            rest.takes("WORK");
            match rest.ends() {
                true => Ok(Class::Commit),
                false => {
                    Err(No::step("AND CHAIN and RELEASE are not for a step of a deployment", "write a plain COMMIT"))
                }
            }
        }
        "USE" => {
            let name = rest.name().ok_or_else(|| No::step("it is not understood", LEAVE_OUT))?;
            Ok(Class::Use(name.name))
        }
        "CALL" => Ok(Class::Rows(run::all_names(sql))),
        "PREPARE" | "EXECUTE" => {
            let hidden = hidden::of(sql).ok_or_else(|| No::step("it is not understood", LEAVE_OUT))?;
            Ok(Class::Hidden(hidden))
        }
        "DEALLOCATE" if rest.takes("PREPARE") => Ok(Class::Read),
        "LOAD" => load::of(rest).map(|(_, table)| Class::Rows(vec![table])),
        "SAVEPOINT" => Ok(Class::Savepoint),
        "RELEASE" if rest.takes("SAVEPOINT") => Ok(Class::Savepoint),
        "ROLLBACK" => {
            rest.takes("WORK");
            match (rest.ends(), rest.takes("TO")) {
                (true, _) => Ok(Class::Rollback),
                (false, true) => Ok(Class::Savepoint),
                _ => {
                    Err(No::step("AND CHAIN and RELEASE are not for a step of a deployment", "write a plain ROLLBACK"))
                }
            }
        }
        // They commit. What a step changes is locked in any case, so that no lock of the script's own is needed.
        "LOCK" | "UNLOCK" if rest.takes("TABLES") || rest.takes("TABLE") => Ok(Class::Commit),
        "GRANT" | "REVOKE" => Err(No::undo("privileges are not handled yet")),
        "FLUSH" | "RESET" | "PURGE" | "KILL" | "SHUTDOWN" | "CHANGE" | "STOP" | "INSTALL" | "UNINSTALL" | "BINLOG" => {
            Err(No::step("it is for the whole server, not for one database", LEAVE_OUT))
        }
        "OPTIMIZE" | "REPAIR" | "CHECK" | "CHECKSUM" => Err(No::step("upkeep of tables is not handled yet", LEAVE_OUT)),
        "HANDLER" | "XA" | "CACHE" => Err(No::step(format!("{word} is not for a step of a deployment"), LEAVE_OUT)),
        _ => Err(No::step("the statement is not known to this version", LEAVE_OUT)),
    }
}

const PORTION: &str =
    "what FOR PORTION OF leaves of a row comes as new rows that no trigger tells of: write UPDATE, DELETE and INSERT";

/// True where rows change for a part of their time.
pub fn says_portion(sql: &str) -> bool {
    let mut words = reader(sql);
    while words.peek().is_some() {
        if words.takes("FOR PORTION OF") {
            return true;
        }
        words.next();
    }
    false
}

/// A block that is no routine's: what its own text names it may write to.
fn block(sql: &str) -> Result<Class, No> {
    match run::forbidden_in_block(sql) {
        Some(word) => Err(No::undo(format!("a block that says {word} is not captured"))),
        None => Ok(Class::Rows(run::all_names(sql))),
    }
}

/// The bodies of these hold statements, each with its semicolon; they are refused by name.
fn makes_routine(sql: &str) -> bool {
    head(sql)
        .is_some_and(|head| !matches!(head.object, Object::Table | Object::View | Object::Index | Object::Sequence))
        || each_token(sql).next().is_some_and(|token| token.is("BEGIN"))
}

/// Refuses what names an object or a variable of the tool.
fn guard_own(sql: &str) -> Result<(), No> {
    let is_own = |token: &Token<'_>| {
        token.name().is_some_and(|name| {
            name.get(..7).is_some_and(|begin| begin.eq_ignore_ascii_case("backout"))
                && matches!(name.as_bytes().get(7), None | Some(b'_' | b'$'))
        })
    };
    match each_token(sql).find(is_own) {
        Some(token) => Err(No::step(format!("{} is the tool's own", token.text), LEAVE_OUT)),
        None => Ok(()),
    }
}

fn insert(mut rest: Reader<'_>) -> Result<Class, No> {
    if rest.clone().any(|token| token.is("DELAYED")) {
        return Err(No::undo("delayed rows are written by another session"));
    }
    for word in ["LOW_PRIORITY", "HIGH_PRIORITY", "IGNORE", "INTO"] {
        rest.takes(word);
    }
    match rest.name() {
        Some(name) => Ok(Class::Rows(vec![name])),
        None => Err(No::step("its table is not understood", LEAVE_OUT)),
    }
}

/// All names up to a word that stands in no parentheses, or to the end.
fn names_until(rest: &mut Reader<'_>, end: &str) -> Vec<Name> {
    let mut names = Vec::new();
    let mut depth = 0_u32;
    while let Some(token) = rest.peek() {
        if depth == 0 && token.is(end) {
            break;
        }
        if token.is_sign(b'(') {
            depth += 1;
        } else if token.is_sign(b')') {
            depth = depth.saturating_sub(1);
        }
        if token.name().is_none() {
            rest.next();
        } else if let Some(name) = rest.name() {
            names.push(name);
        }
    }
    names
}

/// What of the changes of the schema can be taken back.
fn ddl(sql: &str, head: Head) -> Result<Class, No> {
    if head.temporary {
        return match (head.verb, head.object) {
            (Verb::Create | Verb::Drop, Object::Table) => Ok(Class::Temporary(head)),
            _ => Err(No::undo("of temporary ones only tables are handled, which are made and dropped")),
        };
    }
    let has = |word: &str| each_token(&sql[head.rest..]).any(|token| token.is(word));
    match (head.verb, head.object) {
        (_, Object::Other) => {
            let what = if head.word.is_empty() { "the object" } else { head.word.as_str() };
            Err(No::undo(format!("the kind of object `{what}` is not handled yet")))
        }
        (Verb::Create, Object::Function) if has("SONAME") => {
            Err(No::undo("a function of a library is the whole server's"))
        }
        (Verb::Alter, Object::Event) if has("RENAME") => {
            Err(No::undo("an event under another name is not handled yet: drop it and make it anew"))
        }
        (Verb::Alter, Object::Table) if draws(sql) => {
            Err(No::undo("the server would draw numbers for the rows that are there"))
        }
        (Verb::Create, Object::Table) if draws(sql) && has("SELECT") => {
            Err(No::undo("it may draw numbers from a sequence: make the table first, and fill it by INSERT … SELECT"))
        }
        (Verb::Create, Object::Table) if has("VERSIONING") => Err(No::undo("versioned tables are not handled yet")),
        (Verb::Drop, Object::View | Object::Table) if has("CASCADE") || head.if_exists || !head.names.is_empty() => {
            Ok(Class::Ddl(head))
        }
        (Verb::Alter, Object::Table) => altered(sql, head),
        _ => Ok(Class::Ddl(head)),
    }
}

/// Parts of ALTER TABLE that change or lose more than the server's text of the table says.
const ALTERS: [(&str, &str); 14] = [
    (
        "EXCHANGE PARTITION",
        "rows that change places with those of another table are not handled yet: copy and delete them",
    ),
    ("CONVERT PARTITION", "a partition that becomes a table is not handled yet: copy and delete its rows"),
    ("CONVERT TABLE", "a table that becomes a partition is not handled yet: copy its rows"),
    ("ANALYZE PARTITION", UPKEEP),
    ("CHECK PARTITION", UPKEEP),
    ("OPTIMIZE PARTITION", UPKEEP),
    ("REPAIR PARTITION", UPKEEP),
    ("BY SYSTEM_TIME", "versioned tables are not handled yet"),
    ("DISCARD", "tablespaces are not handled yet"),
    ("TABLESPACE", "tablespaces are not handled yet"),
    ("VERSIONING", "versioned tables are not handled yet"),
    ("PERIOD", "periods are not handled yet"),
    ("ORDER BY", "an order of rows cannot be taken back"),
    ("RENAME", "it renames the table and changes more: write RENAME TABLE, as a statement of its own"),
];

const UPKEEP: &str = "upkeep of partitions is not handled yet";

/// What an ALTER TABLE is: nothing here where it only says when MyISAM writes its keys, names alone where it renames.
fn altered(sql: &str, mut head: Head) -> Result<Class, No> {
    let mut rest = reader(&sql[head.rest..]);
    if (rest.takes("DISABLE KEYS") || rest.takes("ENABLE KEYS")) && rest.ends() {
        return Ok(Class::Commit);
    }
    if rest.takes("RENAME") && !["COLUMN", "INDEX", "KEY"].iter().any(|word| rest.peek().is_some_and(|t| t.is(word))) {
        let _word = rest.takes("TO") || rest.takes("AS") || rest.takes_sign(b'=');
        if let (Some(name), true) = (rest.name(), rest.ends()) {
            head.verb = Verb::Rename;
            head.names.push(name);
            return Ok(Class::Ddl(head));
        }
    }
    alter(sql, &head).map(|()| Class::Ddl(head))
}

fn alter(sql: &str, head: &Head) -> Result<(), No> {
    let begin = reader(sql).nth(1).is_some_and(|token| token.is("IGNORE"));
    if begin {
        return Err(No::undo("ALTER IGNORE would drop rows"));
    }
    let mut rest = reader(&sql[head.rest..]);
    let loses = each_token(sql)
        .zip(each_token(sql).skip(1))
        .any(|(word, next)| (word.is("DROP") || word.is("TRUNCATE")) && next.is("PARTITION"));
    if loses && emptied::lost(sql, head.rest).is_none() {
        return Err(No::undo("which partitions lose their rows is not understood"));
    }
    while rest.peek().is_some() {
        if rest.takes("RENAME COLUMN") || rest.takes("RENAME INDEX") || rest.takes("RENAME KEY") {
            continue;
        }
        if let Some((_, why)) = ALTERS.iter().find(|(words, _)| rest.clone().takes(words)) {
            return Err(No::undo(*why));
        }
        rest.next();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_what_they_are() {
        for (sql, expected) in [
            ("/*!40101 SET @OLD=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */", "setting"),
            ("SET NAMES utf8mb4", "setting"),
            ("SET AUTOCOMMIT = 0", "ignored"),
            ("SET sql_mode='ANSI_QUOTES'", "! under the mode ANSI_QUOTES"),
            ("SET GLOBAL a=1", "! a setting of the whole server"),
            ("SET @@global.a=1", "! a setting of the whole server"),
            ("SET NAMES gbk", "! a script in gbk"),
            ("SET @backout_capture = 1", "! backout_capture is the tool's own"),
            ("SELECT 1 INTO OUTFILE 'x'", "! it writes a file"),
            ("INSERT INTO a SELECT * FROM b", "rows a"),
            ("REPLACE LOW_PRIORITY `x`.`y` VALUES (1)", "rows x.y"),
            (
                "UPDATE a JOIN (SELECT id FROM b) AS c USING (id) SET a.x = d",
                "rows a JOIN SELECT id FROM b AS c USING id",
            ),
            ("DELETE a FROM a JOIN b WHERE c", "rows a FROM a JOIN b"),
            ("CALL p()", "rows CALL p"),
            ("PREPARE s FROM 'DROP TABLE x'", "Hidden"),
            ("DEALLOCATE PREPARE s", "Read"),
            ("BEGIN NOT ATOMIC SELECT 1; END", "rows BEGIN NOT ATOMIC SELECT END"),
            ("BEGIN NOT ATOMIC DROP TABLE a; END", "! a block that says DROP"),
            ("SELECT 1; DROP TABLE x", "! it is several statements"),
            ("CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW BEGIN SET @a=1; END", "ddl r"),
            ("CREATE FUNCTION f RETURNS int SONAME 'x.so'", "! a function of a library"),
            ("CREATE TEMPORARY TABLE t(a int)", "Temporary"),
            ("CREATE OR REPLACE TEMPORARY TABLE t(a int)", "Temporary"),
            ("CREATE OR REPLACE INDEX i ON t (a)", "ddl t"),
            ("SET STATEMENT max_statement_time = 1 FOR ALTER TABLE t ADD a int", "ddl t"),
            ("SET STATEMENT foreign_key_checks = 0 FOR DELETE FROM t", "! what these settings"),
            ("CREATE TEMPORARY SEQUENCE t", "! of temporary ones"),
            ("ALTER TABLE t DROP PARTITION p", "ddl t"),
            ("ALTER TABLE t WAIT 5 DROP PARTITION p", "! which partitions"),
            ("ALTER TABLE t EXCHANGE PARTITION p WITH TABLE u", "! rows that change places"),
            ("ALTER TABLE t ADD c int AUTO_INCREMENT, ADD KEY (c)", "ddl t"),
            ("ALTER TABLE t AUTO_INCREMENT = 7", "ddl t"),
            ("ALTER TABLE t RENAME TO u", "ddl t, u"),
            ("ALTER TABLE t RENAME u, ADD a int", "! it renames the table and changes more"),
            ("ALTER TABLE t RENAME COLUMN a TO b, RENAME INDEX c TO d", "ddl t"),
            ("ALTER TABLE t DROP FOREIGN KEY f, ADD FOREIGN KEY (a) REFERENCES p (b)", "ddl t"),
            ("/*!40000 ALTER TABLE `t` DISABLE KEYS */", "Commit"),
            ("LOCK TABLES t WRITE", "Commit"),
            ("SAVEPOINT a", "Savepoint"),
            ("ROLLBACK TO SAVEPOINT a", "Savepoint"),
            ("ROLLBACK", "Rollback"),
            ("ROLLBACK AND CHAIN", "! AND CHAIN"),
            ("UNLOCK TABLES", "Commit"),
            ("DROP TABLE IF EXISTS a, b", "ddl a, b"),
            ("DROP DATABASE d", "! the kind of object `database`"),
            ("UPDATE backout_shop SET seq = 1", "! backout_shop is the tool's own"),
            ("ANALYZE TABLE t", "upkeep"),
            ("GRANT ALL ON x TO y", "! privileges"),
            ("WITH a AS (SELECT 1) DELETE FROM b", "! what WITH changes"),
            ("WITH a AS (SELECT 1) SELECT * FROM a", "Read"),
            ("FROBNICATE", "! the statement is not known"),
            ("UPDATE t FOR PORTION OF p FROM 1 TO 2 SET a = 1", "! what FOR PORTION OF leaves"),
            ("BEGIN NOT ATOMIC DELETE FROM t FOR PORTION OF p FROM 1 TO 2; END", "! a block that says PORTION"),
            ("INSERT INTO t VALUES (FOUND_ROWS())", "! FOUND_ROWS() would tell"),
            ("INSERT INTO t VALUES (`found_rows` ())", "! FOUND_ROWS() would tell"),
            ("UPDATE stats SET found_rows = 3", "rows stats"),
            ("SET @found = FOUND_ROWS()", "setting"),
            ("SELECT NEXT VALUE FOR s", "Read"),
        ] {
            let found = match of(&bare(sql, 101_106)) {
                Err(no) => format!("! {}", no.why),
                Ok(Class::Setting(Setting::Session)) => "setting".to_owned(),
                Ok(Class::Setting(Setting::Ignored)) => "ignored".to_owned(),
                Ok(Class::Upkeep) => "upkeep".to_owned(),
                Ok(Class::Ddl(head)) => format!("ddl {}", head.shown()),
                Ok(Class::Rows(names)) => {
                    let name =
                        |name: &Name| name.database.iter().chain([&name.name]).cloned().collect::<Vec<_>>().join(".");
                    format!("rows {}", names.iter().map(name).collect::<Vec<_>>().join(" "))
                }
                Ok(other) => format!("{other:?}"),
            };
            assert!(found.starts_with(expected), "{sql}: {found}");
        }
    }
}
