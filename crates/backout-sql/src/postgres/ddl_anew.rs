//! Makes an object anew where PostgreSQL has no statement to change it, with all that hangs on it.

use super::catalog::{Kind, Object};
use super::ddl_turn::{Pair, Reach, TurnError, turn};
use super::prepared::Client;
use super::{catalog_changes, ddl_labels, ddl_make, ddl_observe};

/// Drops `now` with its dependents, makes `wanted` in its place, and the dependents as they were. Refused where that
/// would take rows along.
pub(super) fn anew(client: &mut Client, version: u32, now: &Object, wanted: &Object) -> Result<(), TurnError> {
    if now.kind == Kind::Enum {
        return ddl_labels::take_out(client, version, now, wanted);
    }
    let drop = format!("{} CASCADE", ddl_make::drop(now));
    let mark = catalog_changes::mark(client, "backout_anew")?;
    client.batch_execute(&drop)?;
    let touched = catalog_changes::since(client, &mark)?;
    let seen = ddl_observe::see(client, touched, version)?;
    client.batch_execute("ROLLBACK TO SAVEPOINT backout_anew; RELEASE SAVEPOINT backout_anew")?;
    client.went_back();
    let before = ddl_observe::before(client, &seen, version)?;
    let changes = ddl_observe::differences(before.objects, seen.after);
    let taken = |object: &&Object| {
        matches!(object.kind, Kind::Table | Kind::Sequence)
            || object.kind == Kind::Column && object.part("relation").is_none()
    };
    let gone = changes.iter().filter(|change| change.after.is_none()).filter_map(|change| change.before.as_ref());
    if let Some(lost) = gone.clone().find(taken) {
        return Err(TurnError::Stuck {
            what: format!("make {} anew", now.shown()),
            why: format!("{} hangs on it", lost.shown()),
        });
    }
    client.batch_execute(&drop)?;
    let is_it = |object: &Object| object.key == now.key;
    let mut pairs: Vec<Pair<'_>> = vec![Pair { from: None, to: Some(wanted) }];
    for change in &changes {
        match (&change.before, &change.after) {
            (Some(before), None) if !is_it(before) && !is_bare_column(before, now) => {
                pairs.push(Pair { from: None, to: Some(before) });
            }
            (Some(before), Some(after)) => pairs.push(Pair { from: Some(after), to: Some(before) }),
            _ => {}
        }
    }
    turn(client, version, &pairs, &|_| None, &|_| None, Reach::NotAnew)
}

/// True for a column of the object itself about which its definition says everything.
fn is_bare_column(column: &Object, of: &Object) -> bool {
    column.kind == Kind::Column
        && column.of() == of.id()
        && ["comment", "acl", "default"].iter().all(|part| column.part(part).is_none())
}
