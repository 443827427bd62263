//! The head of a statement that changes the schema: what it does, to what kind of object, by which name.
//!
//! Only as much grammar as that takes; the rest is told by the server's own text of what came of it.

use super::reader::{Name, Reader, reader};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Create,
    Alter,
    Drop,
    Truncate,
    Rename,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    Table,
    View,
    Index,
    Trigger,
    Function,
    Procedure,
    Event,
    Sequence,
    /// Whatever else there is, known or not.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub verb: Verb,
    pub object: Object,
    /// The word for the kind of object, for messages.
    pub word: String,
    /// The objects named; for an index, the table that it is on; for RENAME TABLE, the pairs one after the other.
    pub names: Vec<Name>,
    pub temporary: bool,
    pub or_replace: bool,
    pub if_exists: bool,
    pub if_not_exists: bool,
    /// Where what follows the names begins.
    pub rest: usize,
}

impl Head {
    /// With the names of tables and the like in small letters, as the server has them.
    pub fn folded(mut self) -> Self {
        let is_file = matches!(self.object, Object::Table | Object::View | Object::Index | Object::Sequence);
        for name in &mut self.names {
            name.database = name.database.take().map(|of| folded(&of));
            if is_file {
                name.name = folded(&name.name);
            }
        }
        self
    }
}

/// A name in small letters, as the server makes it: each letter by itself, whatever stands beside it.
pub fn folded(name: &str) -> String {
    let each = |letter: char| {
        let mut small = letter.to_lowercase();
        small.next().filter(|_| small.next().is_none()).unwrap_or(letter)
    };
    name.chars().map(each).collect()
}

/// Words between CREATE or ALTER and the kind of object, with what they are told by.
const BEFORE_OBJECT: [&str; 13] = [
    "OR",
    "REPLACE",
    "TEMPORARY",
    "UNIQUE",
    "FULLTEXT",
    "SPATIAL",
    "ONLINE",
    "OFFLINE",
    "IGNORE",
    "ALGORITHM",
    "DEFINER",
    "SQL",
    "AGGREGATE",
];

/// Objects that are their text and nothing else.
const TEXTS: [(&str, Object); 4] = [
    ("TRIGGER", Object::Trigger),
    ("FUNCTION", Object::Function),
    ("PROCEDURE", Object::Procedure),
    ("EVENT", Object::Event),
];

/// The head of CREATE, ALTER, DROP, TRUNCATE and RENAME; none of any other statement, and where it is not understood.
pub fn head(sql: &str) -> Option<Head> {
    let mut rest = reader(sql);
    let verb = match rest.next()?.text.to_ascii_uppercase().as_str() {
        "CREATE" => Verb::Create,
        "ALTER" => Verb::Alter,
        "DROP" => Verb::Drop,
        "TRUNCATE" => {
            rest.takes("TABLE");
            let names = vec![rest.name()?];
            // The server knows nothing else behind it: least of all a partition, or a second table.
            if rest.takes("WAIT") {
                rest.next();
            } else {
                rest.takes("NOWAIT");
            }
            rest.takes_sign(b';');
            if rest.peek().is_some() {
                return None;
            }
            return Some(Head { names, ..Head::of(Verb::Truncate, Object::Table, "table") });
        }
        "RENAME" => return rename(rest),
        _ => return None,
    };
    let mut head = Head::of(verb, Object::Other, "");
    while let Some(word) = rest.peek().filter(|token| BEFORE_OBJECT.iter().any(|word| token.is(word))) {
        rest.next();
        head.temporary |= word.is("TEMPORARY");
        head.or_replace |= word.is("REPLACE");
        if word.is("ALGORITHM") || word.is("DEFINER") {
            rest.takes_sign(b'=');
            account(&mut rest);
        } else if word.is("SQL") {
            rest.takes("SECURITY");
            rest.next();
        }
    }
    let kind = rest.next()?;
    head.word = kind.text.to_ascii_lowercase();
    head.object = if kind.is("TABLE") || kind.is("TABLES") {
        Object::Table
    } else if kind.is("VIEW") {
        Object::View
    } else if kind.is("INDEX") {
        Object::Index
    } else if kind.is("SEQUENCE") {
        Object::Sequence
    } else if let Some((_, object)) = TEXTS.iter().find(|(word, _)| kind.is(word)) {
        *object
    } else {
        return Some(head);
    };
    head.if_not_exists = rest.takes("IF NOT EXISTS");
    head.if_exists = rest.takes("IF EXISTS");
    if head.object == Object::Index {
        rest.name()?;
        rest.find(|token| token.is("ON"))?;
    }
    head.names = if verb == Verb::Drop && head.object != Object::Index { rest.names()? } else { vec![rest.name()?] };
    head.rest = rest.peek().map_or(sql.len(), |token| token.start);
    Some(head)
}

/// Past a value such as `UNDEFINED`, `CURRENT_USER()` or `` `root`@`localhost` ``.
fn account(rest: &mut Reader<'_>) {
    rest.next();
    if rest.takes_sign(b'@') {
        rest.next();
    } else if rest.peek().is_some_and(|token| token.is_sign(b'(')) {
        rest.skip_parentheses();
    }
}

/// `RENAME TABLE a TO b [, …]`
fn rename(mut rest: Reader<'_>) -> Option<Head> {
    if !(rest.takes("TABLE") || rest.takes("TABLES")) {
        return Some(Head::of(Verb::Rename, Object::Other, "user"));
    }
    let mut head = Head::of(Verb::Rename, Object::Table, "table");
    head.if_exists = rest.takes("IF EXISTS");
    loop {
        head.names.push(rest.name()?);
        if rest.takes("WAIT") {
            rest.next();
        } else {
            rest.takes("NOWAIT");
        }
        if !rest.takes("TO") {
            return None;
        }
        head.names.push(rest.name()?);
        if !rest.takes_sign(b',') {
            return rest.ends().then_some(head);
        }
    }
}

impl Head {
    fn of(verb: Verb, object: Object, word: &str) -> Self {
        let word = word.to_owned();
        let names = Vec::new();
        let (temporary, or_replace, if_exists, if_not_exists) = (false, false, false, false);
        Self { verb, object, word, names, temporary, or_replace, if_exists, if_not_exists, rest: 0 }
    }

    /// The names, for messages.
    pub fn shown(&self) -> String {
        self.names.iter().map(|name| name.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_say_what_they_do_to_what() {
        for (sql, expected) in [
            ("CREATE TABLE IF NOT EXISTS `a b` (c int)", "Create Table a b if-not-exists"),
            ("create or replace temporary table t like u", "Create Table t temporary or-replace"),
            (
                "CREATE OR REPLACE ALGORITHM=MERGE DEFINER=`a`@`b` SQL SECURITY INVOKER VIEW v AS SELECT 1",
                "Create View v or-replace",
            ),
            ("CREATE UNIQUE INDEX IF NOT EXISTS i USING BTREE ON d.t (a)", "Create Index d.t if-not-exists"),
            ("DROP TABLE IF EXISTS a, d.b CASCADE", "Drop Table a,d.b if-exists"),
            ("DROP INDEX i ON t", "Drop Index t"),
            ("ALTER IGNORE TABLE t ADD a int", "Alter Table t"),
            ("TRUNCATE t", "Truncate Table t"),
            ("TRUNCATE TABLE d.t WAIT 5;", "Truncate Table d.t"),
            ("TRUNCATE t NOWAIT", "Truncate Table t"),
            ("RENAME TABLE a TO b, c TO d.e", "Rename Table a,b,c,d.e"),
            ("RENAME TABLE IF EXISTS a WAIT 5 TO b, c NOWAIT TO d", "Rename Table a,b,c,d if-exists"),
            ("CREATE DEFINER=CURRENT_USER() TRIGGER r BEFORE INSERT ON t", "Create Trigger r"),
            (
                "CREATE OR REPLACE AGGREGATE FUNCTION IF NOT EXISTS d.f(x int) RETURNS int",
                "Create Function d.f or-replace if-not-exists",
            ),
            ("DROP PROCEDURE IF EXISTS p", "Drop Procedure p if-exists"),
            ("ALTER DEFINER=`a`@`b` EVENT e DISABLE", "Alter Event e"),
            ("CREATE OR REPLACE SEQUENCE s START WITH 5", "Create Sequence s or-replace"),
            ("RENAME USER a TO b", "Rename Other "),
        ] {
            let head = head(sql).unwrap();
            let name = |name: &Name| match &name.database {
                Some(database) => format!("{database}.{}", name.name),
                None => name.name.clone(),
            };
            let mut shown = format!("{:?} {:?} ", head.verb, head.object);
            shown += &head.names.iter().map(name).collect::<Vec<_>>().join(",");
            for (flag, word) in [
                (head.temporary, "temporary"),
                (head.or_replace, "or-replace"),
                (head.if_exists, "if-exists"),
                (head.if_not_exists, "if-not-exists"),
            ] {
                shown += &if flag { format!(" {word}") } else { String::new() };
            }
            assert_eq!(shown, expected, "{sql}");
        }
        assert_eq!(head("SELECT 1"), None);
        assert_eq!(head("RENAME TABLE a"), None);
    }

    #[test]
    fn what_the_server_does_not_know_behind_a_truncate_is_not_understood() {
        for sql in ["TRUNCATE TABLE t PARTITION (p0)", "TRUNCATE t, u", "TRUNCATE t CASCADE"] {
            assert!(head(sql).is_none(), "{sql}");
        }
    }
}
