//! What stands around a database and what the role lacks there, each with what it costs: for `doctor`. Reads only.

use super::session::{Row, Session};

/// One thing to tell, and whether it keeps the tool from working.
pub type Told = (String, bool);

/// The newest version on which the suites have run.
const NEWEST: u32 = 18;

/// A query whose one value is a list of names, none where there is nothing to tell; and what is told of them.
struct Look {
    sql: &'static str,
    tell: fn(&str) -> String,
}

const LOOKS: [Look; 13] = [
    Look {
        sql: "SELECT string_agg(quote_ident(pubname), ', ' ORDER BY pubname) FROM pg_publication",
        tell: |names| format!("publications ({names}): subscribers get what an undo changes like any other change, and of FOR ALL TABLES the tool's own rows"),
    },
    Look {
        sql: "SELECT string_agg(quote_ident(subname), ', ' ORDER BY subname) FROM pg_stat_subscription WHERE subname IS NOT NULL AND pid IS NOT NULL",
        tell: |names| format!("subscriptions ({names}): what they write meanwhile is somebody else's writing, and may be a conflict at the undo"),
    },
    Look {
        sql: "SELECT string_agg(quote_ident(slot_name) || CASE WHEN active THEN '' ELSE ' (idle)' END, ', ' ORDER BY slot_name) FROM pg_replication_slots",
        tell: |names| format!("replication slots ({names}): the log that a deployment writes is kept for them; an idle one can fill the disk"),
    },
    Look {
        sql: "SELECT string_agg(format('%s%s', coalesce(nullif(application_name, ''), 'process ' || pid), coalesce(' ' || state, '')), ', ') FROM pg_stat_replication",
        tell: |names| format!("replicas ({names}): they replay deployments and undos; their queries may be cancelled for an ACCESS EXCLUSIVE lock"),
    },
    Look {
        sql: "SELECT string_agg(quote_ident(evtname), ', ' ORDER BY evtname) FROM pg_event_trigger WHERE evtenabled <> 'D'",
        tell: |names| format!("event triggers ({names}): a DROP TABLE at which one writes rows is refused"),
    },
    Look {
        sql: "SELECT string_agg(name, ', ') FROM (SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|backout)' AND n.nspname <> 'information_schema' AND NOT pg_has_role(c.relowner, 'USAGE')
                 AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE') ORDER BY 1 LIMIT 20) s",
        tell: |names| format!("the role may write to, but does not own: {names}. Their triggers cannot be silenced by ALTER TABLE, so that a step is refused which changes rows of one that has some, and their sequences not be put back"),
    },
    Look {
        sql: "SELECT string_agg(name, ', ') FROM (SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|backout)' AND row_security_active(c.oid) ORDER BY 1 LIMIT 20) s",
        tell: |names| format!("row level security hides rows from the role in: {names}. A step that changes rows there, or of a table that points at them or at which they point, is refused: let the role pass it by (BYPASSRLS, or NO FORCE for the owner)"),
    },
    Look {
        sql: "SELECT string_agg(quote_ident(rolname), ', ' ORDER BY rolname) FROM pg_roles
             WHERE rolname !~ '^pg_' AND pg_has_role(oid, 'MEMBER') AND NOT pg_has_role(oid, 'USAGE')",
        tell: |names| format!("the role has the rights of {names} by SET ROLE alone, and an undo does not become another: a step that makes or changes what belongs to them is refused"),
    },
    Look {
        sql: "SELECT string_agg(name, ', ') FROM (SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND n.nspname !~ '^(pg_|backout)' AND (
                 SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) > 800 ORDER BY 1 LIMIT 20) s",
        tell: |names| format!("more than 800 columns: {names}. A step that changes their rows is refused"),
    },
    Look {
        sql: "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database() AND encoding = 0",
        tell: |name| format!("the database takes any bytes for text ({name}): a step that touches a table with text that is not UTF-8 fails and is taken back"),
    },
    Look {
        sql: "SELECT string_agg(quote_ident(nspname), ', ' ORDER BY nspname) FROM pg_namespace
             WHERE nspname !~ '^(pg_|backout)' AND nspname <> 'information_schema' AND NOT has_schema_privilege(oid, 'CREATE')",
        tell: |names| format!("the role may not create anything in: {names}. Neither can a script, nor an undo bring back there what a script dropped"),
    },
    Look {
        sql: "SELECT string_agg(name, ', ') FROM (SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'f' ORDER BY 1 LIMIT 20) s",
        tell: |names| format!("foreign tables ({names}): a script that changes their rows or definitions is refused"),
    },
    Look {
        sql: "SELECT nullif(count(*), 0)::text FROM pg_largeobject_metadata",
        tell: |count| format!("{count} large objects: a script that changes one is refused"),
    },
];

/// Everything that is to be told.
pub fn look(a: &mut Session) -> Result<Vec<Told>, postgres::Error> {
    let mut told = Vec::new();
    let version = a.value("SHOW server_version_num")?.and_then(|text| text.parse::<u32>().ok()).unwrap_or(0) / 10_000;
    if version > NEWEST {
        told.push((
            format!("PostgreSQL {version} is newer than {NEWEST}, the newest that was tested: rehearse first"),
            false,
        ));
    }
    for Look { sql, tell } in &LOOKS {
        if let Some(names) = a.value(sql)? {
            told.push((tell(&names), false));
        }
    }
    let unseen: Vec<Row> = a.rows(
        "SELECT 1 FROM pg_roles WHERE rolname = current_user AND NOT rolsuper AND NOT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')",
    )?;
    if !unseen.is_empty() {
        let cost = "the role is no member of pg_read_all_stats: where others hold a lock that a deployment needs, their statements cannot be shown; \
                    replicas and subscriptions may be there that are not listed here";
        told.push((cost.to_owned(), false));
    }
    Ok(told)
}
