//! The head of a statement that changes the schema: what it does, to what kind of object, by which name.
//!
//! Only as much grammar as that takes. What a statement changes is read from the catalogs; the head tells early what
//! cannot be taken back at all, and which objects to look at before it runs.

use super::reader::{Reader, reader};
use super::token::{Kind, Token};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Create,
    Alter,
    Drop,
    Comment,
    /// GRANT and REVOKE.
    Grant,
    Truncate,
    Refresh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    Column,
    Constraint,
    DefaultPrivileges,
    Domain,
    Extension,
    /// Functions, procedures, and what ROUTINE may be.
    Function,
    Index,
    MaterializedView,
    Policy,
    Publication,
    Rule,
    Schema,
    Sequence,
    Statistics,
    Table,
    Trigger,
    Type,
    View,
    /// Of the whole server, not of one database: roles, databases, tablespaces, parameters.
    Cluster,
    /// Large objects.
    Large,
    /// Whatever else there is, known or not.
    Other,
}

/// A name as it stands in a statement, folded as the server folds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub schema: Option<String>,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub verb: Verb,
    pub object: Object,
    /// The words for the kind of object, for messages: `foreign data wrapper`.
    pub words: String,
    /// The objects named; none where the name may be left out, or where it is spelled in a way that is not read.
    pub names: Vec<Name>,
    /// The table that an index, trigger, rule or policy is on.
    pub on: Option<Name>,
    /// Exists in the session only: CREATE TEMPORARY.
    pub temporary: bool,
    pub concurrently: bool,
}

/// Kinds of objects by the words that name them, longer ones before those that they begin with.
const OBJECTS: [(&str, Object); 56] = [
    ("ACCESS METHOD", Object::Other),
    ("AGGREGATE", Object::Function),
    ("CAST", Object::Other),
    ("COLLATION", Object::Other),
    ("COLUMN", Object::Column),
    ("CONSTRAINT TRIGGER", Object::Trigger),
    ("CONSTRAINT", Object::Constraint),
    ("CONVERSION", Object::Other),
    ("DATABASE", Object::Cluster),
    ("DEFAULT CONVERSION", Object::Other),
    ("DEFAULT PRIVILEGES", Object::DefaultPrivileges),
    ("DOMAIN", Object::Domain),
    ("EVENT TRIGGER", Object::Other),
    ("EXTENSION", Object::Extension),
    ("FOREIGN DATA WRAPPER", Object::Other),
    ("FOREIGN SCHEMA", Object::Other),
    ("FOREIGN SERVER", Object::Other),
    ("FOREIGN TABLE", Object::Other),
    ("FUNCTION", Object::Function),
    ("GROUP", Object::Cluster),
    ("INDEX", Object::Index),
    ("LANGUAGE", Object::Other),
    ("LARGE OBJECT", Object::Large),
    ("MATERIALIZED VIEW", Object::MaterializedView),
    ("OPERATOR CLASS", Object::Other),
    ("OPERATOR FAMILY", Object::Other),
    ("OPERATOR", Object::Other),
    ("OWNED", Object::Other),
    ("PARAMETER", Object::Cluster),
    ("POLICY", Object::Policy),
    ("PROCEDURAL LANGUAGE", Object::Other),
    ("PROCEDURE", Object::Function),
    ("PUBLICATION", Object::Publication),
    ("RECURSIVE VIEW", Object::View),
    ("ROLE", Object::Cluster),
    ("ROUTINE", Object::Function),
    ("RULE", Object::Rule),
    ("SCHEMA", Object::Schema),
    ("SEQUENCE", Object::Sequence),
    ("SERVER", Object::Other),
    ("STATISTICS", Object::Statistics),
    ("SUBSCRIPTION", Object::Other),
    ("SYSTEM", Object::Cluster),
    ("TABLE", Object::Table),
    ("TABLESPACE", Object::Cluster),
    ("TEXT SEARCH CONFIGURATION", Object::Other),
    ("TEXT SEARCH DICTIONARY", Object::Other),
    ("TEXT SEARCH PARSER", Object::Other),
    ("TEXT SEARCH TEMPLATE", Object::Other),
    ("TRANSFORM", Object::Other),
    ("TRIGGER", Object::Trigger),
    ("TRUSTED LANGUAGE", Object::Other),
    ("TYPE", Object::Type),
    ("USER MAPPING", Object::Other),
    ("USER", Object::Cluster),
    ("VIEW", Object::View),
];

/// Words between CREATE and the kind of object.
const BEFORE_OBJECT: [&str; 8] = ["OR", "REPLACE", "GLOBAL", "LOCAL", "TEMP", "TEMPORARY", "UNLOGGED", "UNIQUE"];

/// The head of CREATE, ALTER, DROP, COMMENT, GRANT, REVOKE, TRUNCATE and REFRESH; none of any other statement.
pub fn head(sql: &str) -> Option<Head> {
    let mut rest = reader(sql);
    let verb = match rest.next()?.text.to_ascii_uppercase().as_str() {
        "CREATE" => Verb::Create,
        "ALTER" => Verb::Alter,
        "DROP" => Verb::Drop,
        "COMMENT" => Verb::Comment,
        "GRANT" | "REVOKE" => return grant(rest),
        "TRUNCATE" => return truncate(rest),
        "REFRESH" => Verb::Refresh,
        _ => return None,
    };
    let mut temporary = false;
    match verb {
        Verb::Comment => {
            rest.takes("ON");
        }
        Verb::Create => {
            while let Some(word) = rest.peek().and_then(|token| BEFORE_OBJECT.iter().find(|word| token.is(word))) {
                temporary |= word.starts_with("TEMP");
                rest.next();
            }
        }
        _ => {}
    }
    let Some((words, object)) = object(&mut rest) else {
        let words = rest.peek().map(|token| token.text.to_lowercase()).unwrap_or_default();
        return Some(Head { temporary, ..Head::of(verb, Object::Other, &words) });
    };
    let mut head = Head { temporary, ..Head::of(verb, object, words) };
    head.concurrently = rest.takes("CONCURRENTLY");
    if !rest.takes("IF NOT EXISTS") {
        rest.takes("IF EXISTS");
    }
    rest.takes("ONLY");
    let unnamed = match object {
        Object::DefaultPrivileges => true,
        // `ALTER TABLE ALL IN TABLESPACE a SET TABLESPACE b`
        _ if verb == Verb::Alter && rest.clone().takes("ALL IN TABLESPACE") => true,
        Object::Index if verb == Verb::Create => rest.clone().takes("ON"),
        Object::Schema if verb == Verb::Create => rest.clone().takes("AUTHORIZATION"),
        Object::Statistics if verb == Verb::Create => {
            rest.peek().is_some_and(|token| token.is_sign(b'(')) || rest.clone().takes("ON")
        }
        _ => false,
    };
    if !unnamed {
        rest.names(&mut head.names, verb == Verb::Drop);
    }
    let has_on = matches!(object, Object::Index | Object::Trigger | Object::Policy | Object::Constraint);
    if has_on && (object != Object::Index || verb == Verb::Create) {
        head.on = table_after(rest, "ON");
    } else if object == Object::Rule {
        // CREATE RULE r AS ON INSERT TO t; the others: RULE r ON t
        head.on = table_after(rest, if verb == Verb::Create { "TO" } else { "ON" });
    }
    Some(head)
}

impl Head {
    fn of(verb: Verb, object: Object, words: &str) -> Self {
        let words = words.to_lowercase();
        Self { verb, object, words, names: Vec::new(), on: None, temporary: false, concurrently: false }
    }
}

fn object<'a>(rest: &mut Reader<'a>) -> Option<(&'static str, Object)> {
    OBJECTS.into_iter().find(|(words, _)| rest.takes(words))
}

fn table_after<'a>(mut rest: Reader<'a>, word: &str) -> Option<Name> {
    rest.find(|token| token.is(word))?;
    rest.takes("ONLY");
    rest.name()
}

/// `TRUNCATE [TABLE] [ONLY] t [*] [, …]`
fn truncate<'a>(mut rest: Reader<'a>) -> Option<Head> {
    rest.takes("TABLE");
    let mut head = Head::of(Verb::Truncate, Object::Table, "table");
    loop {
        rest.takes("ONLY");
        head.names.push(rest.name()?);
        rest.takes_sign(b'*');
        if !rest.takes_sign(b',') {
            return Some(head);
        }
    }
}

/// `GRANT privileges ON [kind] names TO …`; without ON it makes a role a member of another.
fn grant<'a>(mut rest: Reader<'a>) -> Option<Head> {
    loop {
        match rest.next() {
            None => return Some(Head::of(Verb::Grant, Object::Cluster, "membership in a role")),
            Some(token) if token.is("TO") || token.is("FROM") => {
                return Some(Head::of(Verb::Grant, Object::Cluster, "membership in a role"));
            }
            Some(token) if token.is_sign(b'(') => while rest.next().is_some_and(|token| !token.is_sign(b')')) {},
            Some(token) if token.is("ON") => break,
            Some(_) => {}
        }
    }
    for (words, object) in [
        ("ALL TABLES IN SCHEMA", Object::Table),
        ("ALL SEQUENCES IN SCHEMA", Object::Sequence),
        ("ALL FUNCTIONS IN SCHEMA", Object::Function),
        ("ALL PROCEDURES IN SCHEMA", Object::Function),
        ("ALL ROUTINES IN SCHEMA", Object::Function),
    ] {
        if rest.takes(words) {
            return Some(Head::of(Verb::Grant, object, words));
        }
    }
    // A table may have one of these words for its name.
    let mut after = rest.clone();
    let is_kind = |token: &Token<'_>| !token.is("TO") && !token.is("FROM") && !matches!(token.kind, Kind::Sign(_));
    let found = object(&mut after).filter(|_| after.peek().is_some_and(|token| is_kind(&token)));
    if found.is_some() {
        rest = after;
    }
    let (words, object) = found.unwrap_or(("TABLE", Object::Table));
    let mut head = Head::of(Verb::Grant, object, words);
    rest.names(&mut head.names, true);
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(sql: &str) -> String {
        let head = head(sql).unwrap();
        let name = |name: &Name| match &name.schema {
            Some(schema) => format!("{schema}.{}", name.name),
            None => name.name.clone(),
        };
        let names = head.names.iter().map(name).collect::<Vec<_>>().join(",");
        let on = head.on.as_ref().map(|on| format!(" on {}", name(on))).unwrap_or_default();
        let temporary = if head.temporary { " temporary" } else { "" };
        let concurrently = if head.concurrently { " concurrently" } else { "" };
        format!("{:?} {:?} {names}{on}{temporary}{concurrently}", head.verb, head.object)
    }

    #[test]
    fn heads_say_what_they_do_to_what() {
        for (sql, expected) in [
            ("CREATE TABLE a.B (c int)", "Create Table a.b"),
            ("create unlogged table if not exists \"A\"\"b\"(c int)", "Create Table A\"b"),
            ("CREATE LOCAL TEMPORARY TABLE t AS SELECT 1", "Create Table t temporary"),
            ("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", "Create View v temporary"),
            ("CREATE RECURSIVE VIEW v(a) AS SELECT 1", "Create View v"),
            ("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON ONLY s.t (a)", "Create Index i on s.t concurrently"),
            ("CREATE INDEX ON t (a)", "Create Index  on t"),
            ("DROP INDEX CONCURRENTLY IF EXISTS a.i", "Drop Index a.i concurrently"),
            ("CREATE OR REPLACE CONSTRAINT TRIGGER r AFTER INSERT OR UPDATE OF a ON s.t", "Create Trigger r on s.t"),
            ("CREATE OR REPLACE RULE r AS ON INSERT TO s.t DO NOTHING", "Create Rule r on s.t"),
            ("DROP RULE r ON t", "Drop Rule r on t"),
            ("CREATE POLICY p ON t FOR ALL TO joe", "Create Policy p on t"),
            ("DROP TABLE IF EXISTS a, s.b, c CASCADE", "Drop Table a,s.b,c"),
            ("DROP FUNCTION f(int, text), s.g(), h", "Drop Function f,s.g,h"),
            ("CREATE PROCEDURE p() BEGIN ATOMIC END", "Create Function p"),
            ("ALTER TABLE IF EXISTS ONLY s.t ADD COLUMN a int", "Alter Table s.t"),
            ("ALTER TABLE ALL IN TABLESPACE a SET TABLESPACE b", "Alter Table "),
            ("ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO joe", "Alter DefaultPrivileges "),
            ("CREATE SCHEMA AUTHORIZATION joe", "Create Schema "),
            ("CREATE MATERIALIZED VIEW IF NOT EXISTS m AS SELECT 1", "Create MaterializedView m"),
            ("REFRESH MATERIALIZED VIEW CONCURRENTLY m", "Refresh MaterializedView m concurrently"),
            ("COMMENT ON COLUMN s.t.c IS 'x'", "Comment Column t.c"),
            ("COMMENT ON CONSTRAINT c ON s.t IS 'x'", "Comment Constraint c on s.t"),
            ("CREATE STATISTICS ON a, b FROM t", "Create Statistics "),
            ("TRUNCATE ONLY a, s.b * RESTART IDENTITY", "Truncate Table a,s.b"),
            ("truncate table c", "Truncate Table c"),
            ("GRANT SELECT (a, b), INSERT ON s.t, u TO joe", "Grant Table s.t,u"),
            ("REVOKE ALL ON FUNCTION f(int) FROM PUBLIC", "Grant Function f"),
            ("GRANT USAGE ON ALL SEQUENCES IN SCHEMA s TO joe", "Grant Sequence "),
            ("GRANT SELECT ON role, user TO joe", "Grant Table role,user"),
            ("GRANT admin TO joe", "Grant Cluster "),
            ("GRANT CONNECT ON DATABASE d TO joe", "Grant Cluster d"),
            ("CREATE FOREIGN DATA WRAPPER w", "Create Other w"),
            ("CREATE TEXT SEARCH CONFIGURATION c (COPY = x)", "Create Other c"),
            ("CREATE SOMETHING new", "Create Other "),
            ("CREATE USER MAPPING FOR joe SERVER s", "Create Other for"),
            ("DROP OWNED BY joe", "Drop Other by"),
            ("CREATE TABLE U&\"\\0061\" (a int)", "Create Table "),
        ] {
            assert_eq!(shown(sql), expected, "{sql}");
        }
        assert_eq!(head("SELECT 1"), None);
        assert_eq!(head("CREATE FOREIGN DATA WRAPPER w").unwrap().words, "foreign data wrapper");
    }
}
