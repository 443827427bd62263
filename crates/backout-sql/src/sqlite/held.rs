//! What the transaction of a script holds locked: of the file as a whole. Asked between statements, and only by who measures.

use rusqlite::{Connection, TransactionState};

/// What it keeps others from now.
pub fn now(conn: &Connection) -> Result<String, String> {
    match conn.transaction_state(Some("main")) {
        Ok(TransactionState::Write) => {
            Ok("the whole database: others read, and wait to write until the step is committed".to_owned())
        }
        Ok(_) => Ok("none: it reads".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
