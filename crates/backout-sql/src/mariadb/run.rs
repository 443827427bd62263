//! What the statements of a segment of rows may write to: the tables that they name, and what is done by the bodies of
//! triggers, routines and views that they reach. Neither a trigger nor a function can hide a statement in a string, so what
//! their bodies name is all that they can write to. Reads only.

use std::collections::BTreeSet;

use mysql::Error;

use super::capture::CaptureError;
use super::classify::says_portion;
use super::head::folded;
use super::modes;
use super::reader::{Name, Reader, reader};
use super::session::Session;
use super::single::{FEW, Single};
use super::token::each_token;

/// Names that stand where a table's does that may be written to, and what may be done to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// Perhaps each with a database.
    pub names: BTreeSet<(Option<String>, String)>,
    /// All names, in small letters: of columns, routines, views and whatever else.
    words: BTreeSet<String>,
    /// Columns that are set, in small letters.
    sets: BTreeSet<String>,
    pub deletes: bool,
    pub updates: bool,
    /// Whatever there is may be written to.
    pub all: bool,
    /// Its statements, as long as each is a single one and they are few.
    pub singles: Vec<Single>,
    /// Some are not, or they are many.
    pub unlike: bool,
}

impl Run {
    /// Takes a bare statement in, which may write to these names.
    pub fn take(&mut self, sql: &str, names: &[Name]) {
        self.names.extend(names.iter().map(|name| (name.database.clone(), name.name.clone())));
        self.hear(sql);
        self.sets.extend(set_columns(sql));
    }

    /// Takes a statement in by which its rows may be known without triggers; `single`: none where it is no such statement.
    pub fn ask(&mut self, single: Option<Single>) {
        match single {
            Some(single) if !self.unlike && self.singles.len() < FEW => self.singles.push(single),
            _ => {
                self.unlike = true;
                self.singles.clear();
            }
        }
    }

    /// Takes a body in, of which any name may be that of a table, or of a column that is set.
    fn take_body(&mut self, body: &str) {
        self.names.extend(all_names(body).into_iter().map(|name| (name.database, name.name)));
        self.hear(body);
        self.sets.extend(each_token(body).filter_map(|token| token.name()).map(|name| name.to_lowercase()));
    }

    fn hear(&mut self, sql: &str) {
        let mut tokens = reader(sql);
        while let Some(token) = tokens.next() {
            self.deletes |=
                token.is("DELETE") || token.is("REPLACE") && !tokens.peek().is_some_and(|next| next.is_sign(b'('));
            self.updates |= token.is("UPDATE");
            self.words.extend(token.name().map(|name| name.to_lowercase()));
        }
    }

    /// True where one of these columns may be set.
    pub fn may_set(&self, columns: &[String]) -> bool {
        self.all || columns.iter().any(|column| self.sets.contains(&column.to_lowercase()))
    }

    pub fn says(&self, name: &str) -> bool {
        self.words.contains(&name.to_lowercase())
    }

    /// True where it may mean this body: a name alone means one of the site's own database.
    fn says_whole(&self, body: &Body) -> bool {
        self.says(&body.name) && body.elsewhere.iter().all(|other| self.says(other))
    }

    /// Takes in all that the bodies do which this reaches.
    pub fn reach(&mut self, database: &str, bodies: &Bodies) -> Result<(), CaptureError> {
        let mut taken = BTreeSet::new();
        loop {
            if bodies.folds {
                let names = std::mem::take(&mut self.names);
                self.names.extend(names.into_iter().map(|(of, name)| (of.map(|of| folded(&of)), folded(&name))));
            }
            let before = taken.len();
            for (at, body) in bodies.all.iter().enumerate() {
                let named = |name: &str| {
                    self.names.iter().any(|(of, one)| one == name && of.as_deref().is_none_or(|of| of == database))
                };
                let is_reached = match &body.reached {
                    Reached::ByName => self.says_whole(body),
                    Reached::ByTable(table) => named(table),
                };
                if !is_reached || !taken.insert((at, named(&body.name))) {
                    continue;
                }
                let what = format!("{} {}", body.word, body.name);
                let Some(text) = &body.text else {
                    let why = format!("it may use the {what}, whose body this user may not read");
                    return Err(CaptureError::Uncapturable(why));
                };
                if body.word == "view" {
                    // Only what is written through one reaches its tables; what it calls acts in any case.
                    if named(&body.name) {
                        self.take_body(text);
                    } else {
                        self.hear(text);
                    }
                    continue;
                }
                if let Some(other) = &body.elsewhere {
                    let why = format!("it may use the {what} of the database {other}, which is not captured");
                    return Err(CaptureError::Uncapturable(why));
                }
                if let Some(why) = &body.otherwise {
                    return Err(CaptureError::Uncapturable(format!("it may use the {what}: {why}")));
                }
                if let Some(word) = forbidden(text) {
                    let why = format!("it may use the {what}, which says {word}: that is not handled there");
                    return Err(CaptureError::Uncapturable(why));
                }
                self.take_body(text);
            }
            if taken.len() == before {
                return Ok(());
            }
        }
    }
}

/// How a body comes to act.
enum Reached {
    /// Where its name is said.
    ByName,
    /// Where this table is written to.
    ByTable(String),
}

struct Body {
    word: &'static str,
    name: String,
    /// None where it may not be read.
    text: Option<String>,
    reached: Reached,
    /// The database that it is of, where that is not the site's.
    elsewhere: Option<String>,
    /// Why it means something else than what is read here: it was stored under another mode.
    otherwise: Option<String>,
}

/// What statements can act through.
#[derive(Default)]
pub struct Bodies {
    all: Vec<Body>,
    /// The server has the names of tables and databases in small letters, however they are written.
    pub folds: bool,
}

impl Bodies {
    pub fn find(b: &mut Session) -> Result<Self, Error> {
        let mut all = Vec::new();
        for (word, sql) in [
            (
                "routine",
                "SELECT ROUTINE_NAME, ROUTINE_DEFINITION, NULL, NULLIF(ROUTINE_SCHEMA, DATABASE()), SQL_MODE, CHARACTER_SET_CLIENT FROM information_schema.ROUTINES
                 WHERE ROUTINE_SCHEMA = DATABASE() OR ROUTINE_TYPE = 'FUNCTION' AND ROUTINE_SCHEMA NOT IN ('mysql', 'sys')",
            ),
            (
                "view",
                "SELECT TABLE_NAME, NULLIF(VIEW_DEFINITION, ''), NULL, NULL, '', '' FROM information_schema.VIEWS WHERE TABLE_SCHEMA = DATABASE()
                 AND TABLE_NAME NOT LIKE 'backout\\_%'",
            ),
            (
                "trigger",
                "SELECT TRIGGER_NAME, ACTION_STATEMENT, EVENT_OBJECT_TABLE, NULL, SQL_MODE, CHARACTER_SET_CLIENT FROM information_schema.TRIGGERS
                 WHERE TRIGGER_SCHEMA = DATABASE() AND TRIGGER_NAME NOT LIKE 'backout\\_%'",
            ),
        ] {
            for mut row in b.rows(sql)? {
                all.push(Body {
                    word,
                    name: row[0].take().unwrap_or_default(),
                    text: row[1].take(),
                    reached: row[2].take().map_or(Reached::ByName, Reached::ByTable),
                    elsewhere: row[3].take(),
                    otherwise: modes::stored_otherwise(row[4].as_deref(), row[5].as_deref()),
                });
            }
        }
        Ok(Self { all, folds: b.number("SELECT @@lower_case_table_names")? == 1 })
    }

    /// True where a statement that only reads may run a routine, itself or through a view.
    pub fn are_called(&self, sql: &str) -> bool {
        let mut run = Run::default();
        run.hear(sql);
        let mut seen = 0;
        while seen < run.words.len() {
            seen = run.words.len();
            for body in &self.all {
                match body.word {
                    "view" if run.says_whole(body) => run.hear(body.text.as_deref().unwrap_or_default()),
                    "routine" if run.says_whole(body) => return true,
                    _ => {}
                }
            }
        }
        false
    }

    /// True where statements name a view or a routine, or may.
    pub fn are_named_by(&self, run: &Run) -> bool {
        self.all.iter().any(|body| body.word != "trigger" && run.says_whole(body))
    }
}

/// A word of a body that does what no transaction takes back, or what nobody can tell before it runs.
fn forbidden(body: &str) -> Option<String> {
    const WORDS: [&str; 23] = [
        "CREATE",
        "ALTER",
        "DROP",
        "TRUNCATE",
        "RENAME",
        "COMMIT",
        "ROLLBACK",
        "START",
        "SAVEPOINT",
        "LOCK",
        "UNLOCK",
        "PREPARE",
        "EXECUTE",
        "GRANT",
        "REVOKE",
        "FLUSH",
        "ANALYZE",
        "OPTIMIZE",
        "LOAD",
        "SETVAL",
        "OUTFILE",
        "GET_LOCK",
        "RELEASE_ALL_LOCKS",
    ];
    let mut tokens = reader(body);
    while let Some(token) = tokens.next() {
        let calls = tokens.peek().is_some_and(|next| next.is_sign(b'('));
        let Some(word) = WORDS.iter().find(|word| token.is(word)) else { continue };
        // `TRUNCATE(x, 2)` is a function.
        if *word != "TRUNCATE" || !calls {
            return Some((*word).to_owned());
        }
    }
    if says_portion(body) {
        return Some("PORTION".to_owned());
    }
    if tells_found_rows(body) {
        return Some("FOUND_ROWS".to_owned());
    }
    each_token(body).find(|token| token.is("AUTOCOMMIT")).map(|token| token.text.to_owned())
}

/// True where it calls `FOUND_ROWS()`; a column may be called so.
pub fn tells_found_rows(sql: &str) -> bool {
    let mut rest = reader(sql);
    while let Some(token) = rest.next() {
        let is_named = token.name().is_some_and(|name| name.eq_ignore_ascii_case("FOUND_ROWS"));
        if is_named && rest.takes_sign(b'(') && rest.takes_sign(b')') {
            return true;
        }
    }
    false
}

/// Why a block or the call of a routine cannot be captured, as far as its own text says.
pub fn forbidden_in_block(sql: &str) -> Option<String> {
    forbidden(sql)
}

/// All names of a text.
pub fn all_names(sql: &str) -> Vec<Name> {
    let mut rest = reader(sql);
    let mut names = Vec::new();
    while let Some(token) = rest.peek() {
        if token.name().is_none() {
            rest.next();
        } else if let Some(name) = rest.name() {
            names.push(name);
        }
    }
    names
}

/// The columns that an UPDATE or an ON DUPLICATE KEY UPDATE sets, in small letters.
pub fn set_columns(sql: &str) -> BTreeSet<String> {
    let mut rest = reader(sql);
    let mut columns = BTreeSet::new();
    let mut depth = 0_u32;
    let is_update = rest.peek().is_some_and(|token| token.is("UPDATE"));
    let starts = |rest: &mut Reader<'_>| {
        if is_update { rest.takes("SET") } else { rest.takes("ON DUPLICATE KEY UPDATE") }
    };
    while rest.peek().is_some() {
        if !starts(&mut rest) {
            rest.next();
            continue;
        }
        let mut last = None;
        for token in rest.by_ref() {
            if token.is_sign(b'(') {
                depth += 1;
            } else if token.is_sign(b')') {
                depth = depth.saturating_sub(1);
            } else if depth == 0 && is_update && (token.is("WHERE") || token.is("ORDER") || token.is("LIMIT")) {
                break;
            }
            if depth == 0 && token.is_sign(b'=') {
                columns.extend(last.take());
            }
            // `:=` sets as `=` does.
            if !token.is_sign(b':') {
                last = token.name().map(|name| name.to_lowercase());
            }
        }
        break;
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_and_said_is_heard() {
        for (sql, sets, deletes, updates) in [
            (
                "UPDATE a JOIN (SELECT 1 AS x) AS b SET a.p = (SELECT MAX(q) FROM c WHERE r = 1), `Q` = 2 WHERE s = 3",
                "p q",
                false,
                true,
            ),
            ("UPDATE a SET p := 1, a.`q`:=p", "p q", false, true),
            ("INSERT INTO a (x) SELECT REPLACE(y, 'DELETE', '') FROM b WHERE c = 1", "", false, false),
            ("INSERT INTO a VALUES (1) ON DUPLICATE KEY UPDATE x = VALUES(x), y = 2", "x y", false, true),
            ("REPLACE a VALUES (1)", "", true, false),
            ("DELETE FROM a WHERE b = 1", "", true, false),
        ] {
            let mut run = Run::default();
            run.take(sql, &[]);
            let found = run.sets.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
            assert_eq!((found.as_str(), run.deletes, run.updates), (sets, deletes, updates), "{sql}");
        }
    }

    #[test]
    fn bodies_say_what_no_transaction_takes_back() {
        for (body, word) in [
            ("BEGIN UPDATE a SET b = TRUNCATE(c, 2); END", None),
            ("BEGIN TRUNCATE TABLE a; END", Some("TRUNCATE")),
            ("BEGIN PREPARE s FROM @s; END", Some("PREPARE")),
            ("BEGIN SET @@autocommit = 1; END", Some("autocommit")),
            ("INSERT INTO a VALUES (NEXT VALUE FOR s)", None),
            ("DO SETVAL(s, 5)", Some("SETVAL")),
            ("SELECT 'DROP TABLE x'", None),
            ("BEGIN UPDATE a SET b = FOUND_ROWS(); END", Some("FOUND_ROWS")),
            ("BEGIN UPDATE a SET found_rows = 3; END", None),
        ] {
            assert_eq!(forbidden(body).as_deref(), word, "{body}");
        }
    }
}
