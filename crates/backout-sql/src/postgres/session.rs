//! One session with the server: statements as text, and what a failure means.
//!
//! Never builds on a setting of the script's: what the tool itself asks goes between [`Session::neutral`] and
//! [`Session::restore`].

use postgres::error::SqlState;
use postgres::{Client, SimpleQueryMessage};

use super::event_triggers::Mute;
use super::{pooler, prepared};

/// One row of an answer, as text.
pub type Row = Vec<Option<String>>;

/// The settings under which rows and definitions are read and written: text that is lossless for every type, as
/// pg_dump relies on, and names resolved nowhere but in `pg_catalog`.
const NEUTRAL: [(&str, &str); 23] = [
    ("search_path", "pg_catalog"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("xmloption", "content"),
    ("lc_monetary", "C"),
    ("quote_all_identifiers", "off"),
    ("standard_conforming_strings", "on"),
    ("array_nulls", "on"),
    ("row_security", "off"),
    ("statement_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("lock_timeout", "2s"),
    ("synchronize_seqscans", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("cursor_tuple_fraction", "1"),
    ("jit", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("check_function_bodies", "off"),
    ("client_min_messages", "warning"),
    ("default_transaction_read_only", "off"),
];

/// A session of its own with the server.
pub struct Session {
    pub client: Client,
    /// Who connected: what SET SESSION AUTHORIZATION goes back to.
    user: String,
    /// The server's process.
    process: Option<String>,
    /// Silences event triggers for what the tool itself does.
    mute: Option<Mute>,
}

/// What [`Session::restore`] puts back.
#[must_use]
pub struct Settings(Vec<(String, String)>);

impl Session {
    pub fn new(mut client: Client) -> Result<Self, postgres::Error> {
        let found = rows(&mut client, "SELECT session_user")?;
        let user = found.into_iter().next().and_then(|row| row.into_iter().next().flatten()).unwrap_or_default();
        let process = pooler::process(&mut client)?;
        Ok(Self { user, client, process, mute: None })
    }

    /// The number of the server's process, where it is known.
    pub fn process(&self) -> Option<&str> {
        self.process.as_deref()
    }

    /// False where another session of the server answers than the one that we began with.
    pub fn is_itself(&mut self) -> Result<bool, postgres::Error> {
        Ok(pooler::process(&mut self.client)? == self.process)
    }

    /// Runs statements whose answers nobody needs.
    pub fn run(&mut self, sql: &str) -> Result<(), postgres::Error> {
        self.client.batch_execute(sql)
    }

    /// Runs one statement; how many rows it says it touched.
    pub fn count(&mut self, sql: &str) -> Result<u64, postgres::Error> {
        count(&mut self.client, sql)
    }

    /// Asks; the answer is held in memory.
    pub fn rows(&mut self, sql: &str) -> Result<Vec<Row>, postgres::Error> {
        rows(&mut self.client, sql)
    }

    /// The first column of the first row.
    pub fn value(&mut self, sql: &str) -> Result<Option<String>, postgres::Error> {
        Ok(self.rows(sql)?.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
    }

    /// Sets what the tool's own statements need, until the transaction ends or [`Self::restore`].
    pub fn neutral(&mut self) -> Result<Settings, postgres::Error> {
        let names: Vec<&str> =
            ["session_authorization", "role"].into_iter().chain(self.own_settings().map(|(name, _)| name)).collect();
        let ask: Vec<String> =
            names.iter().map(|name| format!("pg_catalog.current_setting({})", literal(name))).collect();
        let found = self.rows(&format!("SELECT {}", ask.join(", ")))?.into_iter().next().unwrap_or_default();
        let before: Vec<(String, String)> =
            names.iter().zip(found).map(|(name, value)| ((*name).to_owned(), value.unwrap_or_default())).collect();
        let mut wanted: Vec<(String, String)> = Vec::new();
        if before[0].1 != self.user {
            wanted.push(("session_authorization".to_owned(), self.user.clone()));
        }
        wanted.push(("role".to_owned(), "none".to_owned()));
        wanted.extend(self.own_settings().map(|(name, value)| (name.to_owned(), value.to_owned())));
        self.set(&wanted)?;
        Ok(Settings(before))
    }

    /// Puts the script's settings back.
    pub fn restore(&mut self, settings: Settings) -> Result<(), postgres::Error> {
        let Settings(mut before) = settings;
        let mut who: Vec<(String, String)> = before.drain(..before.len().min(2)).collect();
        who.retain(|(name, value)| name != "session_authorization" || *value != self.user);
        // The script's role may not set what its user may.
        before.append(&mut who);
        self.set(&before)
    }

    fn set(&mut self, settings: &[(String, String)]) -> Result<(), postgres::Error> {
        let calls: Vec<String> = settings
            .iter()
            .map(|(name, value)| format!("pg_catalog.set_config({}, {}, true)", literal(name), literal(value)))
            .collect();
        self.run(&format!("SELECT {}", calls.join(", ")))
    }

    /// As the plain client begins: what the script runs under.
    pub fn plain(&mut self) -> Result<(), postgres::Error> {
        // Names are read back and compared as the server writes them: a database that has it quote all is none to us.
        self.run(
            "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; SET application_name = 'backout'; SET quote_all_identifiers = off",
        )
    }

    /// Forgets what a script left in the session. Advisory locks and the tool's own prepared questions stay.
    pub fn forget(&mut self) -> Result<(), postgres::Error> {
        self.plain()?;
        self.run("CLOSE ALL; UNLISTEN *; DISCARD TEMP; DISCARD SEQUENCES")?;
        let left = self.rows(&format!(
            "SELECT name FROM pg_catalog.pg_prepared_statements
             WHERE from_sql AND name OPERATOR(pg_catalog.!~) '{}'",
            prepared::NAMES
        ))?;
        let left: String = left.iter().flatten().flatten().map(|name| format!("DEALLOCATE {};", ident(name))).collect();
        if left.is_empty() { Ok(()) } else { self.run(&left) }
    }

    fn own_settings(&self) -> impl Iterator<Item = Mute> + use<> {
        NEUTRAL.into_iter().chain(self.mute)
    }

    /// From now on, what the tool itself does in the session silences event triggers by this.
    pub fn mute(&mut self, mute: Option<Mute>) -> Result<(), postgres::Error> {
        let before = std::mem::replace(&mut self.mute, mute);
        if before == mute {
            return Ok(());
        }
        if let Some((name, _)) = before {
            self.run(&format!("SET {name} TO DEFAULT"))?;
        }
        self.stay_neutral()
    }

    /// Makes the neutral settings those of the session.
    pub fn stay_neutral(&mut self) -> Result<(), postgres::Error> {
        let calls: Vec<String> = self
            .own_settings()
            .map(|(name, value)| format!("pg_catalog.set_config({}, {}, false)", literal(name), literal(value)))
            .collect();
        self.run(&format!("SELECT {}", calls.join(", ")))
    }

    /// Ends the transaction, where one is open; an error where the connection is gone.
    pub fn roll_back(&mut self) -> Result<(), postgres::Error> {
        self.run("ROLLBACK")
    }
}

/// Runs one statement; how many rows it says it touched.
pub fn count(client: &mut Client, sql: &str) -> Result<u64, postgres::Error> {
    let rows = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::CommandComplete(rows) => *rows,
        _ => 0,
    };
    Ok(client.simple_query(sql)?.iter().map(rows).sum())
}

pub fn rows(client: &mut Client, sql: &str) -> Result<Vec<Row>, postgres::Error> {
    let mut found = Vec::new();
    for message in client.simple_query(sql)? {
        if let SimpleQueryMessage::Row(row) = message {
            found.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
        }
    }
    Ok(found)
}

/// A name in quotes.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string as SQL writes it, whatever `standard_conforming_strings` is.
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if text.contains('\\') { format!(" E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

/// Somebody else held a lock for longer than we wait.
pub fn is_lock_timeout(error: &postgres::Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// A row stands in the way of a unique or exclusion constraint.
pub fn is_taken(error: &postgres::Error) -> bool {
    matches!(error.code(), Some(code) if *code == SqlState::UNIQUE_VIOLATION || *code == SqlState::EXCLUSION_VIOLATION)
}

/// The connection is gone: what the last statement came to is not known.
pub fn is_lost(error: &postgres::Error) -> bool {
    match error.code() {
        Some(code) => matches!(
            *code,
            SqlState::ADMIN_SHUTDOWN
                | SqlState::CRASH_SHUTDOWN
                | SqlState::CANNOT_CONNECT_NOW
                | SqlState::IDLE_SESSION_TIMEOUT
        ),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_strings_cannot_end_early() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
    }
}
