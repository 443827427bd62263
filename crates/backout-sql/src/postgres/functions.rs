//! Functions of the server that reach beyond what a transaction takes back: refused where a statement calls them.
//!
//! Only what stands in the statement itself is seen. What a function, trigger or DO block calls the locks on the
//! system's own tables tell once it has run.

use super::classify::No;
use super::token::{Kind, each_token};

/// By the beginning of the name, and why.
const REFUSED: [(&str, &str); 25] = [
    ("dblink", "what it does in another session is not captured"),
    ("lo_creat", LARGE),
    ("lo_from_bytea", LARGE),
    ("lo_import", LARGE),
    ("lo_export", "it writes a file on the server"),
    ("lo_open", LARGE),
    ("lo_put", LARGE),
    ("lo_truncate", LARGE),
    ("lo_unlink", LARGE),
    ("lowrite", LARGE),
    ("pg_advisory_unlock_all", "the lock by which no second deployer comes along is one of them"),
    ("pg_cancel_backend", SERVER),
    ("pg_create_", SERVER),
    ("pg_copy_", SERVER),
    ("pg_drop_", SERVER),
    ("pg_file_", "it writes files on the server"),
    ("pg_logical_emit_message", SERVER),
    ("pg_notify", "what has been notified cannot be called back"),
    ("pg_promote", SERVER),
    ("pg_reload_conf", SERVER),
    ("pg_replication_", SERVER),
    ("pg_rotate_logfile", SERVER),
    ("pg_switch_wal", SERVER),
    ("pg_terminate_backend", SERVER),
    ("pg_wal_replay_", SERVER),
];
const LARGE: &str = "large objects are not captured";
const SERVER: &str = "it reaches the server itself, and that is not captured";

/// Refuses a statement that calls one of them.
pub fn admit(sql: &str) -> Result<(), No> {
    let mut before: Option<String> = None;
    for token in each_token(sql) {
        if token.is_sign(b'(')
            && let Some(name) = before.take()
            && let Some((_, why)) = REFUSED.iter().find(|(start, _)| name.starts_with(start))
        {
            return Err(No::undo(format!("{name}(): {why}")));
        }
        before = if matches!(token.kind, Kind::Word | Kind::Quoted) { token.name() } else { None };
    }
    Ok(())
}
