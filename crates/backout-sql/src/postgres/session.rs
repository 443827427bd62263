//! One session with the server: statements as text, and what a failure means.
//!
//! Never builds on a setting of the script's: what the tool itself asks goes between [`Session::neutral`] and
//! [`Session::restore`].

use postgres::SimpleQueryMessage;
use postgres::error::SqlState;

use super::event_triggers::Mute;
use super::pooler;
use super::prepared::{self, Client};

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
    /// The server's major version.
    pub version: u32,
    /// What `standard_conforming_strings` is for a session that begins.
    strings: Option<String>,
    /// So is `default_transaction_read_only`.
    frozen: bool,
    /// Silences event triggers for what the tool itself does.
    mute: Option<Mute>,
}

/// What [`Session::restore`] puts back.
#[must_use]
pub struct Settings {
    before: Vec<(String, String)>,
    /// They were the tool's own.
    settled: bool,
}

impl Session {
    pub fn new(mut client: postgres::Client) -> Result<Self, postgres::Error> {
        const WHO: &str =
            "SELECT session_user, pg_catalog.current_setting('server_version_num'), pg_catalog.pg_backend_pid(),
             pg_catalog.current_setting('standard_conforming_strings'), pg_catalog.current_setting('default_transaction_read_only')";
        let found = rows(&mut client, WHO)?.pop().unwrap_or_default();
        let [user, number, process, strings, frozen] = <[Option<String>; 5]>::try_from(found).unwrap_or_default();
        let version = number.and_then(|text| text.parse::<u32>().ok()).unwrap_or(0) / 10_000;
        let user = user.unwrap_or_default();
        let frozen = frozen.as_deref() == Some("on");
        Ok(Self { user, client: client.into(), process, version, strings, frozen, mute: None })
    }

    /// The number of the server's process, where it is known.
    pub fn process(&self) -> Option<&str> {
        self.process.as_deref()
    }

    /// True where strings mean what the standard says: how scripts are read here.
    pub fn has_standard_strings(&self) -> bool {
        self.strings.as_deref() != Some("off")
    }

    /// True where somebody has set the database, or the account, to read only.
    pub fn is_frozen(&self) -> bool {
        self.frozen
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
        // Who is who he is already need not become it.
        let user = literal(&self.user);
        let who = format!(
            "CASE WHEN pg_catalog.current_setting('session_authorization') OPERATOR(pg_catalog.<>) {user}
                 THEN pg_catalog.set_config('session_authorization', {user}, true) END"
        );
        let wanted = [("role", "none")].into_iter().chain(self.own_settings());
        let sql = format!("SELECT {}; SELECT {who}; SELECT {}", ask.join(", "), calls(wanted, true));
        let found = rows(self.client.unwritten(), &sql)?.into_iter().next().unwrap_or_default();
        let before = names.iter().zip(found).map(|(name, value)| ((*name).to_owned(), value.unwrap_or_default()));
        Ok(Settings { before: before.collect(), settled: self.client.settle(true) })
    }

    /// The same where they are not set already, for good.
    pub fn stay_neutral_in_transaction(&mut self) -> Result<(), postgres::Error> {
        if self.client.is_settled() { Ok(()) } else { self.neutral().map(drop) }
    }

    /// Those of them that a script for `psql` needs to read rows as they were written.
    pub fn of_scripts() -> impl Iterator<Item = (&'static str, &'static str)> {
        const NEEDED: usize = 12;
        NEUTRAL[..NEEDED].iter().copied()
    }

    /// Puts the script's settings back.
    pub fn restore(&mut self, settings: Settings) -> Result<(), postgres::Error> {
        let Settings { mut before, settled } = settings;
        let mut who: Vec<(String, String)> = before.drain(..before.len().min(2)).collect();
        who.retain(|(name, value)| name != "session_authorization" || *value != self.user);
        // The script's role may not set what its user may.
        before.append(&mut who);
        let before = before.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.client.settle(settled);
        self.client.unwritten().batch_execute(&format!("SELECT {}", calls(before, true)))
    }

    /// As the plain client begins: what the script runs under.
    pub fn plain(&mut self) -> Result<(), postgres::Error> {
        self.client.settle(false);
        self.run(PLAIN)
    }

    /// The same, and begins a transaction.
    pub fn begin_plain(&mut self) -> Result<(), postgres::Error> {
        self.client.settle(false);
        self.run(&format!("{PLAIN}; BEGIN"))
    }

    /// Ends the transaction, where one is open, and forgets what a script left in the session. Advisory locks and the
    /// tool's own prepared questions stay, and the neutral settings come back.
    pub fn forget(&mut self) -> Result<(), postgres::Error> {
        self.client.went_back();
        let left = self.rows(&format!(
            "ROLLBACK; {PLAIN}; CLOSE ALL; UNLISTEN *; DISCARD TEMP; DISCARD SEQUENCES; SELECT {};
             SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql AND name OPERATOR(pg_catalog.!~) '{}'",
            calls(self.own_settings(), false),
            prepared::NAMES
        ))?;
        self.client.settle(true);
        // The first row is of the settings.
        let left = left.iter().skip(1).flatten().flatten();
        let left: String = left.map(|name| format!("DEALLOCATE {};", ident(name))).collect();
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
        self.client.settle(true);
        self.run(&format!("SELECT {}", calls(self.own_settings(), false)))
    }

    /// Ends the transaction, where one is open; an error where the connection is gone.
    pub fn roll_back(&mut self) -> Result<(), postgres::Error> {
        self.run("ROLLBACK")
    }
}

/// As the plain client begins. Names are read back and compared as the server writes them: a database that has it quote
/// all is none to us.
const PLAIN: &str = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; SET application_name = 'backout'; SET quote_all_identifiers = off";

/// Calls that set these, for the transaction (`local`) or the session.
fn calls<'a>(settings: impl Iterator<Item = (&'a str, &'a str)>, local: bool) -> String {
    let call = |(name, value)| format!("pg_catalog.set_config({}, {}, {local})", literal(name), literal(value));
    settings.map(call).collect::<Vec<_>>().join(", ")
}

/// Runs one statement; how many rows it says it touched.
pub fn count(client: &mut postgres::Client, sql: &str) -> Result<u64, postgres::Error> {
    let rows = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::CommandComplete(rows) => *rows,
        _ => 0,
    };
    Ok(client.simple_query(sql)?.iter().map(rows).sum())
}

pub fn rows(client: &mut postgres::Client, sql: &str) -> Result<Vec<Row>, postgres::Error> {
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
