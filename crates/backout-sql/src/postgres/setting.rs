//! Settings that a script makes, and which of them a step cannot bear. Never makes one.

use super::classify::{Class, LEAVE_OUT, No};
use super::reader::{Reader, reader};
use super::token::Kind;

/// A setting of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// In lower case; `role` and `session_authorization` for the commands of that name.
    pub name: String,
    /// SET LOCAL: until the end of the transaction.
    pub local: bool,
    /// Not for this tool's session: how long it waits and how it commits are its own matter. Not to be run.
    pub ignored: bool,
}

/// Settings that are the tool's own. `pg_dump` writes some of them at the top of each dump.
const IGNORED: [&str; 8] = [
    "application_name",
    "client_min_messages",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "statement_timeout",
    "synchronous_commit",
    "transaction_timeout",
];

/// Settings under which nothing could be captured, and why.
const REFUSED: [(&str, &str); 8] = [
    ("default_transaction_isolation", ISOLATION),
    ("default_transaction_read_only", ISOLATION),
    ("default_transaction_deferrable", ISOLATION),
    ("session_authorization", "a redo could not be the same user again; SET ROLE does"),
    ("track_counts", "the counters tell which tables a step wrote"),
    ("transaction_isolation", ISOLATION),
    ("transaction_read_only", ISOLATION),
    ("transaction_deferrable", ISOLATION),
];
const ISOLATION: &str = "a step runs in a READ COMMITTED transaction that writes; capturing needs that";

/// SET and RESET.
pub fn of(verb: &str, mut rest: Reader<'_>) -> Result<Class, No> {
    if verb == "SET" && rest.takes("CONSTRAINTS") {
        return Ok(Class::Constraints);
    }
    if verb == "SET" && rest.takes("TRANSACTION") || rest.takes("SESSION CHARACTERISTICS AS TRANSACTION") {
        transaction_modes(rest)?;
        return Ok(Class::Upkeep);
    }
    let local = verb == "SET" && rest.takes("LOCAL");
    // `SET SESSION AUTHORIZATION` is a command of its own.
    if verb == "SET" && !local && !rest.clone().takes("SESSION AUTHORIZATION") {
        rest.takes("SESSION");
    }
    let name = if rest.takes("SESSION AUTHORIZATION") {
        // A script is never another session user: what is left of it is a RESET ROLE, as dumps have it.
        let back = verb == "RESET" || rest.takes("DEFAULT");
        if back && rest.ends() {
            return Ok(Class::Setting(Setting { name: "role".to_owned(), local, ignored: false }));
        }
        "session_authorization".to_owned()
    } else if rest.takes("TIME ZONE") {
        "timezone".to_owned()
    } else if rest.takes("NAMES") {
        "client_encoding".to_owned()
    } else if rest.takes("SCHEMA") {
        "search_path".to_owned()
    } else if rest.takes("XML OPTION") {
        "xmloption".to_owned()
    } else {
        match rest.name() {
            Some(name) => name.schema.map_or(String::new(), |class| format!("{class}.")) + &name.name,
            None => return Err(No::step("the setting is spelled in a way that is not read", LEAVE_OUT)),
        }
    };
    let name = name.to_lowercase();
    if !rest.takes_sign(b'=') {
        rest.takes("TO");
    }
    let value = rest.next().and_then(|token| match token.kind {
        Kind::Text => token.value(),
        _ => Some(token.text.to_owned()),
    });
    admit(&name, value.as_deref().filter(|_| verb == "SET"))?;
    let ignored = IGNORED.contains(&name.as_str());
    Ok(Class::Setting(Setting { name, local, ignored }))
}

/// `SELECT set_config('name', 'value', local)`, by which `pg_dump` sets the search path; none of anything else.
pub fn by_function(sql: &str) -> Result<Option<Class>, No> {
    let mut rest = reader(sql);
    if !rest.takes("SELECT") || rest.name().is_none_or(|name| name.name != "set_config") || !rest.takes_sign(b'(') {
        return Ok(None);
    }
    let Some(name) = rest.next().and_then(|token| token.value()) else { return Ok(None) };
    rest.takes_sign(b',');
    let value = rest.next().and_then(|token| token.value());
    rest.takes_sign(b',');
    let local = !["FALSE", "OFF"].iter().any(|word| rest.takes(word));
    rest.next_if(|token| local && token.is("TRUE"));
    if !rest.takes_sign(b')') || !rest.ends() {
        return Ok(None);
    }
    let name = name.to_lowercase();
    admit(&name, value.as_deref())?;
    let ignored = IGNORED.contains(&name.as_str());
    Ok(Some(Class::Setting(Setting { name, local, ignored })))
}

fn admit(name: &str, value: Option<&str>) -> Result<(), No> {
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Err(No::step(*why, LEAVE_OUT));
    }
    if name == "all" {
        return Err(No::step("the session is the tool's own, and its settings are needed", LEAVE_OUT));
    }
    let is = |wanted: &[&str]| value.is_none_or(|value| wanted.iter().any(|one| value.eq_ignore_ascii_case(one)));
    match name {
        "client_encoding" if !is(&["UTF8", "UTF-8", "UNICODE", "DEFAULT"]) => {
            Err(No::step("scripts are read as UTF-8", "convert the script to UTF-8 and leave the statement out"))
        }
        "standard_conforming_strings" if !is(&["on", "true", "yes", "1", "t", "y", "DEFAULT"]) => Err(No::step(
            "its strings would mean something else than what was read",
            "write strings that need escapes as E'…'",
        )),
        _ => Ok(()),
    }
}

/// The modes of BEGIN and SET TRANSACTION: those that a step's transaction has anyway.
pub fn transaction_modes(mut rest: Reader<'_>) -> Result<(), No> {
    while !rest.ends() {
        let good =
            ["ISOLATION LEVEL READ COMMITTED", "ISOLATION LEVEL READ UNCOMMITTED", "READ WRITE", "NOT DEFERRABLE"];
        if !good.iter().any(|mode| rest.takes(mode)) && !rest.takes_sign(b',') {
            return Err(No::step(ISOLATION, "leave the mode out"));
        }
    }
    Ok(())
}
