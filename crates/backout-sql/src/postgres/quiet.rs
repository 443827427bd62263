//! Keeps the application's triggers and rules silent while rows go back: the images already hold what they did.
//!
//! Whatever is disabled for that is enabled again in the same transaction, as it was. Foreign keys look at the rows only at
//! the end then. Where the role may not turn them off, their cascades stay on: tables go children first, and
//! [`super::guard`] leaves rows alone that a cascade would follow from.

use backout_model::target::TargetError;

use super::catalog::{self, users_trigger};
use super::prepared::Client;
use super::session::{Session, ident};
use super::stream::Table;
use super::table::quoted;

/// What has to be put back.
pub struct Quiet {
    /// The role may make the whole session a replica's, in which nothing fires but what is meant for one.
    pub replica: bool,
    /// What the session was.
    was: String,
    /// Statements that enable again what was disabled.
    back: Vec<String>,
    done: Vec<String>,
}

impl Quiet {
    pub fn begin(a: &mut Session, label: &str) -> Result<Self, TargetError> {
        let failed = |source| TargetError::failed(format!("cannot silence the triggers of {label}"), source);
        let sql = format!("SELECT {}, pg_catalog.current_setting('session_replication_role') {ROLE}", may(a.version));
        let found = catalog::rows(&mut a.client, &sql).map_err(failed)?;
        let [may, was] = <[String; 2]>::try_from(found.into_iter().next().unwrap_or_default()).unwrap_or_default();
        let replica = may == "t";
        Ok(Self { replica, was, back: Vec::new(), done: Vec::new() })
    }

    /// Silences one table.
    pub fn table(&mut self, a: &mut Session, label: &str, table: &Table) -> Result<(), TargetError> {
        let name = quoted(table);
        if self.done.contains(&name) {
            return Ok(());
        }
        self.silence(a, &name).map_err(|source| {
            TargetError::failed(format!("cannot silence the triggers of {name} in {label}"), source)
        })?;
        self.done.push(name);
        Ok(())
    }

    fn silence(&mut self, a: &mut Session, name: &str) -> Result<(), postgres::Error> {
        if self.replica {
            a.run("SET LOCAL session_replication_role = replica")?;
        }
        if !self.replica {
            self.defer(a, name)?;
        }
        self.identify(a, name)?;
        let fires = if self.replica { "'A', 'R'" } else { "'O', 'A'" };
        let found = a.rows(&format!(
            "SELECT 'TRIGGER', tgname, tgenabled FROM pg_catalog.pg_trigger
             WHERE tgrelid = {name}::regclass AND {users} AND tgenabled IN ({fires})
             UNION ALL SELECT 'RULE', rulename, ev_enabled FROM pg_catalog.pg_rewrite
             WHERE ev_class = {name}::regclass AND ev_enabled IN ({fires}) ORDER BY 1, 2",
            name = super::session::literal(name),
            users = users_trigger("pg_trigger")
        ))?;
        for row in found {
            let text = |at: usize| row[at].clone().unwrap_or_default();
            let (kind, own) = (text(0), ident(&text(1)));
            let way = match text(2).as_str() {
                "A" => "ENABLE ALWAYS",
                "R" => "ENABLE REPLICA",
                _ => "ENABLE",
            };
            a.run(&format!("ALTER TABLE {name} DISABLE {kind} {own}"))?;
            self.back.push(format!("ALTER TABLE {name} {way} {kind} {own}"));
        }
        Ok(())
    }

    /// Gives a table without an identity one for the time, where a publication would else forbid to change its rows.
    fn identify(&mut self, a: &mut Session, name: &str) -> Result<(), postgres::Error> {
        let identity = a.value(&format!(
            "SELECT CASE c.relreplident WHEN 'n' THEN 'NOTHING' ELSE 'DEFAULT' END FROM pg_catalog.pg_class AS c
             WHERE c.oid = {name}::regclass AND c.relpersistence = 'p'
                 AND (c.relreplident = 'n' OR c.relreplident = 'd' AND NOT EXISTS (
                     SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary))
                 AND EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubupdate OR pubdelete)",
            name = super::session::literal(name)
        ))?;
        if let Some(identity) = identity {
            a.run(&format!("ALTER TABLE {name} REPLICA IDENTITY FULL"))?;
            self.back.push(format!("ALTER TABLE {name} REPLICA IDENTITY {identity}"));
        }
        Ok(())
    }

    /// Has the foreign keys of a table look at its rows later; those of another role's tables look at once.
    fn defer(&mut self, a: &mut Session, name: &str) -> Result<(), postgres::Error> {
        let found = a.rows(&format!(
            "WITH own AS (SELECT {name}::regclass::oid AS oid UNION SELECT relid FROM pg_partition_ancestors({name}::regclass))
             SELECT format('%I.%I', n.nspname, c.relname), f.conname
             FROM pg_constraint AS f JOIN pg_class AS c ON c.oid = f.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
             WHERE f.contype = 'f' AND f.conparentid = 0 AND NOT f.condeferrable
                 AND (f.conrelid IN (SELECT oid FROM own) OR f.confrelid IN (SELECT oid FROM own))
                 AND pg_has_role(c.relowner, 'USAGE') ORDER BY 1, 2",
            name = super::session::literal(name)
        ))?;
        for row in found {
            let text = |at: usize| row[at].clone().unwrap_or_default();
            let (child, constraint) = (text(0), ident(&text(1)));
            a.run(&format!("ALTER TABLE {child} ALTER CONSTRAINT {constraint} DEFERRABLE"))?;
            self.back.push(format!("ALTER TABLE {child} ALTER CONSTRAINT {constraint} NOT DEFERRABLE"));
        }
        a.run("SET CONSTRAINTS ALL DEFERRED")
    }

    /// Puts everything back.
    pub fn end(&mut self, a: &mut Session, label: &str) -> Result<(), TargetError> {
        let failed = |source| TargetError::failed(format!("cannot enable the triggers of {label} again"), source);
        if !self.replica && !self.done.is_empty() {
            a.run("SET CONSTRAINTS ALL IMMEDIATE").map_err(failed)?;
        }
        for sql in std::mem::take(&mut self.back) {
            a.run(&sql).map_err(failed)?;
        }
        if self.replica && !self.done.is_empty() {
            a.run(&format!("SET LOCAL session_replication_role = {}", self.was)).map_err(failed)?;
        }
        self.done.clear();
        Ok(())
    }
}

/// True where the role may set `session_replication_role`: superusers, and from 15 on whom it was granted to.
pub fn may_be_replica(client: &mut Client, version: u32) -> Result<bool, postgres::Error> {
    let sql = format!("SELECT {} {ROLE}", may(version));
    Ok(catalog::column(client, &sql)?.into_iter().flatten().next().as_deref() == Some("t"))
}

const ROLE: &str = "FROM pg_catalog.pg_roles WHERE rolname = current_user";

/// The same as an expression over [`ROLE`].
fn may(version: u32) -> &'static str {
    if version >= 15 {
        "rolsuper OR pg_catalog.has_parameter_privilege(current_user, 'session_replication_role', 'SET')"
    } else {
        "rolsuper"
    }
}
