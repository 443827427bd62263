//! Event triggers of the application fire at changes of the schema. The tool's own changes, which an undo is made of, must
//! not set them off: what they did for the script's is in the images already.
//!
//! Never disables one: another session's changes go on setting it off.

use std::collections::HashSet;

use postgres::Error;

use super::catalog::{self, Object};
use super::prepared::Client;
use super::quiet::may_be_replica;

/// A setting and the value under which no event trigger fires.
pub type Mute = (&'static str, &'static str);

/// Those of a database that fire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventTriggers {
    /// None where there are none.
    pub names: Option<String>,
    /// None where the role may not silence them, or they do not heed it.
    pub mute: Option<Mute>,
}

impl EventTriggers {
    pub fn find(client: &mut Client, version: u32) -> Result<Self, Error> {
        let found = catalog::rows(
            client,
            "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(evtname), ', ' ORDER BY evtname), \
             pg_catalog.bool_or(evtenabled IN ('A', 'R')) \
             FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D'",
        )?;
        let [names, always] = found.first().map(Vec::as_slice).unwrap_or_default() else {
            return Ok(Self::default());
        };
        if names.is_empty() {
            return Ok(Self::default());
        }
        let may_switch = "SELECT rolsuper OR pg_catalog.has_parameter_privilege('event_triggers', 'SET') \
                          FROM pg_catalog.pg_roles WHERE rolname = current_user";
        let mute = if version >= 17
            && catalog::column(client, may_switch)?.into_iter().flatten().next().as_deref() == Some("t")
        {
            Some(("event_triggers", "off"))
        } else {
            let heeded = always != "t" && may_be_replica(client, version)?;
            heeded.then_some(("session_replication_role", "replica"))
        };
        Ok(Self { names: Some(names.clone()), mute })
    }

    /// How often rows of each table were written so far; nothing where there are no event triggers.
    pub(super) fn written(&self, client: &mut Client) -> Result<HashSet<(String, String)>, Error> {
        if self.names.is_none() {
            return Ok(HashSet::new());
        }
        let sql = "SELECT relid, n_tup_ins + n_tup_upd + n_tup_del FROM pg_catalog.pg_stat_xact_user_tables \
                   WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 AND schemaname !~ '^pg_(temp|toast)'";
        Ok(catalog::rows(client, sql)?.into_iter().map(|mut row| (row.remove(0), row.remove(0))).collect())
    }

    /// Why a change of the schema cannot be taken back that wrote rows, too, of tables which it did not make.
    pub(super) fn objection(
        &self,
        before: &HashSet<(String, String)>,
        after: &HashSet<(String, String)>,
        made: &[&Object],
        moves_tables: bool,
    ) -> Option<String> {
        let names = self.names.as_ref()?;
        let made: Vec<String> = made.iter().filter_map(|object| Some(object.key?.oid.to_string())).collect();
        after.difference(before).find(|(table, _)| !made.contains(table))?;
        if moves_tables {
            return Some(format!(
                "an event trigger ({names}) writes rows when it is run, and the tool moves a dropped table aside instead of dropping it"
            ));
        }
        self.mute.is_none().then(|| {
            format!(
                "an event trigger ({names}) writes rows when it is run; it would at the undo, too, because the role may not silence it"
            )
        })
    }
}

/// Has no event trigger fire within the transaction; gives the statement that ends it.
pub(super) fn mute(client: &mut Client, mute: Option<Mute>) -> Result<String, Error> {
    let Some((name, value)) = mute else { return Ok(String::new()) };
    let before = catalog::column(client, &format!("SELECT pg_catalog.current_setting('{name}')"))?;
    let before = before.into_iter().flatten().next().unwrap_or_default();
    client.batch_execute(&format!("SET LOCAL {name} = {value}"))?;
    Ok(format!("SET LOCAL {name} = {before}"))
}
