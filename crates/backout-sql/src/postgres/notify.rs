//! What a step may have sent by NOTIFY through a trigger, a rule or a function: told, since nothing calls it back.
//!
//! The server shows nobody what waits to be sent at the commit. Read from the sources, so that this errs to the side of
//! telling; a function in C that sends is not seen, but for the one that comes with PostgreSQL.

use std::collections::BTreeSet;

use super::catalog::users_trigger;
use super::classify::Class;
use super::session::{Session, literal};
use super::token::{Kind, each_token};

/// The text of a function `p` that sends, as a regular expression.
const SENDS: &str = r"'\y(pg_)?notify\y|triggered_change_notification'";

/// What of a step could send.
#[derive(Default)]
pub struct Senders {
    /// Something in the database, or made by the script, could.
    any: bool,
    /// The functions that statements of the script name.
    called: BTreeSet<String>,
    /// A block of the script itself does.
    block: bool,
}

/// The text of a function `p`.
fn source(version: u32) -> &'static str {
    if version >= 14 { "coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc)" } else { "p.prosrc" }
}

/// A query whose value is true where something in the database could send.
pub fn could_send(version: u32) -> String {
    format!(
        "EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.oid >= 16384 AND p.pronamespace <> 11 AND p.prokind <> 'a' AND {} ~* {SENDS})
             OR EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_type <> '1' AND ev_action::text ~* 'notify')",
        source(version)
    )
}

/// The recursive query `sends`: functions that send, and those that call one of them.
fn sends(version: u32) -> String {
    format!(
        "sends AS (
             SELECT p.oid, p.proname FROM pg_catalog.pg_proc p WHERE p.pronamespace <> 11 AND p.prokind <> 'a' AND {text} ~* {SENDS}
             UNION SELECT p.oid, p.proname FROM sends s JOIN pg_catalog.pg_proc p ON p.pronamespace <> 11 AND p.prokind <> 'a'
                 AND {text} ~ ('\\y' || regexp_replace(s.proname::text, '\\W', '.', 'g') || '\\y'))",
        text = source(version)
    )
}

/// As it is said to people: `public` goes without saying.
fn told(what: &str) -> String {
    what.replace(" of public.", " of ")
}

/// What in the database could send, by the table or function that a statement would name.
#[derive(Default)]
pub struct Beforehand(Vec<(String, String)>);

impl Beforehand {
    pub fn look(a: &mut Session) -> Result<Self, postgres::Error> {
        if a.value(&format!("SELECT {}", could_send(a.version)))?.as_deref() != Some("t") {
            return Ok(Self::default());
        }
        let found = a.rows(&format!(
            "WITH RECURSIVE {}
             SELECT lower(c.relname::text), format('the trigger %I of %s', t.tgname, t.tgrelid::regclass) FROM pg_catalog.pg_trigger t
                 JOIN sends ON sends.oid = t.tgfoid JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
                 WHERE {users} AND t.tgenabled IN ('O', 'A')
             UNION SELECT lower(c.relname::text), format('the rule %I of %s', r.rulename, r.ev_class::regclass) FROM pg_catalog.pg_rewrite r
                 JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
                 WHERE r.ev_type <> '1' AND r.ev_enabled IN ('O', 'A') AND r.ev_action::text ~* 'notify'
             UNION SELECT lower(proname::text), format('the function %I', proname) FROM sends ORDER BY 2",
            sends(a.version),
            users = users_trigger("t")
        ))?;
        Ok(Self(found.into_iter().filter_map(|mut row| Some((row[0].take()?, told(&row[1].take()?)))).collect()))
    }

    /// What is to be told of a statement before it runs; empty where it names nothing that could send.
    pub fn of(&self, sql: &str) -> String {
        let words = |sql: &str| {
            let words = sql.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
            words.map(str::to_lowercase).collect::<BTreeSet<String>>()
        };
        let (of_sql, mut found) = (if self.0.is_empty() { BTreeSet::new() } else { words(sql) }, Vec::new());
        found.extend(self.0.iter().filter(|(name, _)| words(name).is_subset(&of_sql)).map(|(_, what)| what.as_str()));
        if found.is_empty() {
            return String::new();
        }
        format!("; {} may send notifications (NOTIFY), which nothing calls back", found.join(", "))
    }
}

impl Senders {
    pub fn new(any: bool) -> Self {
        Self { any, ..Self::default() }
    }

    /// Hears of a statement of the script.
    pub fn statement(&mut self, class: &Class, sql: &str) {
        if matches!(class, Class::Ddl(_) | Class::Unknown(_)) && sql.to_ascii_lowercase().contains("notify") {
            self.any = true;
            self.block |= matches!(class, Class::Unknown(_));
        }
        if !self.any {
            return;
        }
        let mut before = None;
        for token in each_token(sql) {
            if token.is_sign(b'(') {
                self.called.extend(before.take());
            }
            before = if matches!(token.kind, Kind::Word | Kind::Quoted) { token.name() } else { None };
        }
        if matches!(class, Class::Unknown(_)) {
            let words = sql.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
            self.called.extend(words.map(str::to_lowercase));
        }
    }

    /// What is to be told at the end of the step, in whose transaction `a` still is.
    pub fn notes(&self, a: &mut Session, label: &str, schema_changed: bool) -> Result<Vec<String>, postgres::Error> {
        if !self.any {
            return Ok(Vec::new());
        }
        let called: Vec<String> = self.called.iter().map(|name| literal(name)).collect();
        let found = a.rows(&format!(
            "WITH RECURSIVE {sends},
             written AS (SELECT relation FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'relation'
                 AND granted AND mode = 'RowExclusiveLock')
             SELECT format('the trigger %I of %s', t.tgname, t.tgrelid::regclass) FROM pg_catalog.pg_trigger t JOIN sends ON sends.oid = t.tgfoid
                 WHERE {users} AND t.tgenabled IN ('O', 'A') AND t.tgrelid IN (SELECT relation FROM written)
             UNION SELECT format('the rule %I of %s', r.rulename, r.ev_class::regclass) FROM pg_catalog.pg_rewrite r
                 WHERE r.ev_type <> '1' AND r.ev_enabled IN ('O', 'A') AND r.ev_action::text ~* 'notify'
                     AND r.ev_class IN (SELECT relation FROM written)
             UNION SELECT format('the event trigger %I', e.evtname) FROM pg_catalog.pg_event_trigger e JOIN sends ON sends.oid = e.evtfoid
                 WHERE e.evtenabled IN ('O', 'A') AND {schema_changed}
             UNION SELECT format('the function %I', proname) FROM sends WHERE lower(proname::text) = ANY (ARRAY[{called}]::text[])
             ORDER BY 1",
            sends = sends(a.version),
            users = users_trigger("t"),
            called = called.join(", ")
        ))?;
        let mut found: Vec<String> = found.iter().filter_map(|row| row[0].as_deref().map(told)).collect();
        if self.block {
            found.push("a block of the script".to_owned());
        }
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let note = "may have sent notifications (NOTIFY): nothing calls them back, and none are sent by an undo";
        Ok(vec![format!("{label}: {} {note}", found.join(", "))])
    }
}
