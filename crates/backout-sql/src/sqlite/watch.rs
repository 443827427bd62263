//! Watches over scripts that nobody captures: they may not end the transaction, reach another file or write to the
//! tool's own tables. Never judges what else they do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backout_model::target::TargetError;
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

/// SQLite asks it about every statement that is prepared.
pub struct Watch {
    on: Arc<AtomicBool>,
}

impl Watch {
    pub fn put_on(conn: &mut Connection, label: &str) -> Result<Self, TargetError> {
        let on = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&on);
        conn.authorizer(Some(move |context: AuthContext<'_>| {
            if asked.load(Ordering::Relaxed) { judge(&context.action) } else { Authorization::Allow }
        }))
        .map_err(|source| TargetError::failed(format!("cannot watch over a script in {label}"), source))?;
        Ok(Self { on })
    }

    pub fn take_off(conn: &mut Connection) -> rusqlite::Result<()> {
        conn.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)
    }

    /// Does `work` under watch.
    pub fn over<T>(&self, work: impl FnOnce() -> T) -> T {
        self.on.store(true, Ordering::Relaxed);
        let done = work();
        self.on.store(false, Ordering::Relaxed);
        done
    }
}

fn judge(action: &AuthAction<'_>) -> Authorization {
    match action {
        AuthAction::Transaction { .. }
        | AuthAction::Savepoint { .. }
        | AuthAction::Attach { .. }
        | AuthAction::Detach { .. } => Authorization::Deny,
        AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name }
        | AuthAction::DropTable { table_name }
        | AuthAction::AlterTable { table_name, .. }
            if table_name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("backout_")) =>
        {
            Authorization::Deny
        }
        _ => Authorization::Allow,
    }
}
