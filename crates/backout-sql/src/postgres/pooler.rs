//! Tells whether a pooler hands the sessions of the server out anew for each transaction. Behind such a one a lock, a setting or a
//! snapshot of ours would be anybody's.
//!
//! Asks only, and sets nothing: what it set would stay in a session that others get.

use postgres::{Client, Error};

use super::session::Row;

/// Others may use the pool meanwhile, and then each of us may have had a session of its own by chance.
const ROUNDS: usize = 5;

/// True where the two clients do not have each a session of its own that stays.
pub fn gives_sessions_away(a: &mut Client, b: &mut Client) -> Result<bool, Error> {
    let first = process(a)?;
    for _ in 0..ROUNDS {
        // The session that A has just let go is the one that such a pool gives out next, and B keeps it for now.
        b.batch_execute("BEGIN")?;
        let (theirs, ours) = (process(b), process(a));
        b.batch_execute("ROLLBACK")?;
        if theirs? == first || ours? != first {
            return Ok(true);
        }
        if process(b)? == process(a)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The number of the server's process that answers.
pub fn process(client: &mut Client) -> Result<Option<String>, Error> {
    let found: Vec<Row> = super::session::rows(client, "SELECT pg_catalog.pg_backend_pid()")?;
    Ok(found.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
}

pub const WHY: &str = "a pooler stands before the server that gives every transaction another session (transaction or statement \
    mode), so that no lock of the deployment would hold; give the URL of the server itself, or of a pool in session mode";
