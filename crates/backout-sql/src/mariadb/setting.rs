//! What a SET statement sets: which settings a script may change, and which are refused.

use backout_model::target::TargetError;

use super::apply::Chain;
use super::classify::{Class, LEAVE_OUT, No};
use super::modes::{CHARSETS, quoting};
use super::reader::Reader;
use super::session::Session;
use super::split::Statement;
use super::token::{Kind, bare};

/// Settings that would take the transaction, the log or the lock out of the tool's hands.
const REFUSED: [&str; 15] = [
    "autocommit",
    "completion_type",
    "transaction_isolation",
    "tx_isolation",
    "transaction_read_only",
    "tx_read_only",
    "sql_log_bin",
    "binlog_format",
    "wsrep_on",
    "pseudo_thread_id",
    "skip_replication",
    "gtid_seq_no",
    "gtid_domain_id",
    "server_id",
    "idle_transaction_timeout",
];
/// What a SET comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// For the session.
    Session,
    /// `SET autocommit`: the tool's own transactions are around the statements in any case.
    Ignored,
}

/// Reads what follows SET.
pub fn set(mut rest: Reader<'_>) -> Result<Setting, No> {
    let refused = |what: &str| Err(No::step(format!("{what} is not for a step of a deployment"), LEAVE_OUT));
    for (word, what) in [
        ("PASSWORD", "a password"),
        ("ROLE", "a role"),
        ("DEFAULT", "a default role"),
        ("TRANSACTION", "the isolation of a transaction"),
        ("SESSION TRANSACTION", "the isolation of a transaction"),
        ("GLOBAL", "a setting of the whole server"),
    ] {
        if rest.takes(word) {
            return refused(what);
        }
    }
    if rest.takes("STATEMENT") {
        let why = "what these settings, which are for one statement alone, make of it is not told";
        return Err(No::step(why, "set it for the session before the statement, and back behind it"));
    }
    if rest.clone().all(|token| !token.is_sign(b',')) && sets_autocommit(rest.clone()) {
        return Ok(Setting::Ignored);
    }
    // Whatever is set, a name that is refused must not stand at the left, nor a mode or a character set at the right.
    let mut before = None;
    let tokens: Vec<_> = rest.collect();
    for (at, token) in tokens.iter().enumerate() {
        let left = tokens.get(at + 1).is_some_and(|next| next.is_sign(b'=') || next.is_sign(b':'));
        let text = token.name().unwrap_or_default();
        if left && REFUSED.iter().any(|name| name.eq_ignore_ascii_case(&text)) {
            return refused(&format!("setting {text}"));
        }
        if left && text.to_ascii_lowercase().starts_with("backout") {
            return refused("a variable of the tool");
        }
        if token.is("GLOBAL") || token.is("PERSIST") {
            return refused("a setting of the whole server");
        }
        if token.kind == Kind::Text {
            let inner = token.text.trim_matches(['\'', '"']).to_ascii_uppercase();
            if let Some(mode) = quoting(&inner) {
                return Err(No::step(read_otherwise(mode), LEAVE_OUT));
            }
        }
        let word = token.text.trim_matches(['\'', '"', '`']).to_ascii_lowercase();
        if let Some(charset) = CHARSETS.iter().find(|charset| word == **charset) {
            return Err(No::step(format!("a script in {charset} cannot be split"), "convert it to UTF-8"));
        }
        before = Some(token);
    }
    before.map_or_else(|| Err(No::step("it is not understood", LEAVE_OUT)), |_| Ok(Setting::Session))
}

fn read_otherwise(mode: &str) -> String {
    format!("under the mode {mode} statements are read in another way, which is not handled yet")
}

/// Why a session reads statements in another way than they are read here.
pub fn reads_otherwise(session: &mut Session) -> Result<Option<String>, mysql::Error> {
    let row = session.rows("SELECT @@sql_mode, @@character_set_client")?.pop().unwrap_or_default();
    let mut texts = row.into_iter().map(Option::unwrap_or_default);
    let (modes, charset) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
    let split = CHARSETS.contains(&&*charset).then(|| format!("a script in {charset} cannot be split"));
    Ok(quoting(&modes).map(read_otherwise).or(split))
}

impl Chain<'_> {
    /// Refuses to go on under a mode that came by a number, a variable or from the server. What sets the mode may come first.
    pub(super) fn reads_alike(&mut self, statement: &Statement, place: &str, class: &Class) -> Result<(), TargetError> {
        let sets = matches!(class, Class::Setting(_));
        let sets_mode = sets && bare(&statement.sql, self.database.version).to_ascii_lowercase().contains("sql_mode");
        if !self.alike && !sets_mode {
            let found = reads_otherwise(self.database.a()?);
            let found = found.map_err(|source| self.database.failed("cannot read the settings of", source))?;
            if let Some(why) = found {
                let way_out = "set sql_mode without it at the beginning of the script";
                return Err(No::step(why, way_out).at(place, &statement.sql).refusal.into());
            }
        }
        self.alike = !matches!(class, Class::Setting(_) | Class::Hidden(_));
        Ok(())
    }
}

fn sets_autocommit(mut rest: Reader<'_>) -> bool {
    rest.takes_sign(b'@');
    rest.takes_sign(b'@');
    for scope in ["SESSION", "LOCAL"] {
        rest.takes(scope);
        rest.takes_sign(b'.');
    }
    rest.takes("AUTOCOMMIT")
}
