//! One line of the derived table of deployments. Only ever computed from entries.

use backout_model::entry::Entry;
use backout_model::id::DeploymentId;
use backout_model::state::{DeploymentState, Event, Scope};
use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::JournalError;
use crate::states::name;

/// A deployment in the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeploymentRow {
    pub id: DeploymentId,
    /// `package` of the payload of its first entry.
    pub package: String,
    /// `version` of that payload; empty where it has none.
    pub version: String,
    /// Who began it.
    pub actor: String,
    pub state: DeploymentState,
    pub first_seq: u64,
    pub last_seq: u64,
    /// The entry that brought it to its state: the higher, the later it was deployed, undone or redone.
    pub state_seq: u64,
    /// Milliseconds since 1970 UTC.
    pub started_ms: i64,
    /// Time of the last entry.
    pub last_ms: i64,
    pub state_ms: i64,
    /// `info` of the payload of its first entry: whatever its writer wants to see in a list; null where it has none.
    pub info: Value,
}

/// The columns in the order in which [`DeploymentRow::from_sql`] reads them.
pub(crate) const COLUMNS: &str = "id, package, version, actor, state, first_seq, last_seq, state_seq, started_ms, \
                                  last_ms, state_ms, info";

impl DeploymentRow {
    /// The line after `entry`, which brought the deployment to `state`.
    pub(crate) fn after(before: Option<&Self>, entry: &Entry, state: DeploymentState) -> Result<Self, JournalError> {
        let Some(deployment) = &entry.deployment else {
            return Err(draft(entry.event, "it names no deployment"));
        };
        let Some(before) = before else {
            let Some(package) = entry.payload.get("package").and_then(Value::as_str) else {
                return Err(draft(entry.event, "its payload has no text `package`"));
            };
            return Ok(Self {
                id: deployment.clone(),
                package: package.to_owned(),
                version: entry.payload.get("version").and_then(Value::as_str).unwrap_or_default().to_owned(),
                actor: entry.actor.clone(),
                state,
                first_seq: entry.seq,
                last_seq: entry.seq,
                state_seq: entry.seq,
                started_ms: entry.time_ms,
                last_ms: entry.time_ms,
                state_ms: entry.time_ms,
                info: entry.payload.get("info").cloned().unwrap_or(Value::Null),
            });
        };
        let mut row = Self { last_seq: entry.seq, last_ms: entry.time_ms, ..before.clone() };
        // What leaves it as it was is no new state.
        let stays = matches!(entry.event, Event::DeploymentConfirmed | Event::DeploymentPruned);
        if entry.event.scope() == Scope::Deployment && !stays {
            row.state = state;
            row.state_seq = entry.seq;
            row.state_ms = entry.time_ms;
        }
        Ok(row)
    }

    pub(crate) fn from_sql(row: &Row<'_>) -> rusqlite::Result<Self> {
        let text = |column: usize| row.get::<_, String>(column);
        let damaged = |column: usize, what: String| {
            rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, what.into())
        };
        let seq = |column: usize| {
            let value: i64 = row.get(column)?;
            u64::try_from(value).map_err(|e| damaged(column, e.to_string()))
        };
        Ok(Self {
            id: DeploymentId::try_from(text(0)?).map_err(|e| damaged(0, e.to_string()))?,
            package: text(1)?,
            version: text(2)?,
            actor: text(3)?,
            state: serde_json::from_value(Value::String(text(4)?)).map_err(|e| damaged(4, e.to_string()))?,
            first_seq: seq(5)?,
            last_seq: seq(6)?,
            state_seq: seq(7)?,
            started_ms: row.get(8)?,
            last_ms: row.get(9)?,
            state_ms: row.get(10)?,
            info: serde_json::from_str(&text(11)?).map_err(|e| damaged(11, e.to_string()))?,
        })
    }

    pub(crate) fn store(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection.execute(
            "INSERT INTO deployment (id, package, version, actor, state, first_seq, last_seq, state_seq, started_ms,
                                     last_ms, state_ms, info)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (id) DO UPDATE SET state = excluded.state, last_seq = excluded.last_seq,
                 state_seq = excluded.state_seq, last_ms = excluded.last_ms, state_ms = excluded.state_ms",
            (
                self.id.as_str(),
                &self.package,
                &self.version,
                &self.actor,
                name(&self.state),
                sql_seq(self.first_seq),
                sql_seq(self.last_seq),
                sql_seq(self.state_seq),
                self.started_ms,
                self.last_ms,
                self.state_ms,
                self.info.to_string(),
            ),
        )?;
        Ok(())
    }
}

/// A number of an entry as SQLite holds it. No journal comes near 2^63 entries.
pub(crate) fn sql_seq(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn draft(event: Event, what: &str) -> JournalError {
    JournalError::Draft { event: name(&event), what: what.to_owned() }
}
