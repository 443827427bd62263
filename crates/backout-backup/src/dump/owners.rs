//! Whose the objects of a PostgreSQL dump are, and whether an account may make them so: found before a restore begins.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;

use backout_model::backup::BackupError;

use super::listed;
use super::postgres::{Parameters, query};

/// What lets an account restore what belongs to others.
pub const WAY_OUT: &str = "an administrator can make the account a member of these roles (`GRANT ROLE TO ACCOUNT`), or load by hand what \
     `backout restore --into DIR` gives; docs/backup.md says how";

/// What of a database is in the way of emptying it: by the rules of DROP, which `postgres_clear.sql` is bound to.
const LIVE: &str = "SELECT format('schema %I, which belongs to %I', nspname, pg_get_userbyid(nspowner)) FROM pg_namespace n \
     WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public') AND NOT pg_has_role(nspowner, 'USAGE') \
     AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e') \
     UNION ALL SELECT format('%s, which belongs to %I', c.oid::regclass, pg_get_userbyid(relowner)) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
     WHERE nspname = 'public' AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND NOT pg_has_role(relowner, 'USAGE') AND NOT pg_has_role(nspowner, 'USAGE') \
     AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('e', 'i', 'a')) \
     UNION ALL SELECT format('function %s, which belongs to %I', p.oid::regprocedure, pg_get_userbyid(proowner)) FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace \
     WHERE nspname = 'public' AND NOT pg_has_role(proowner, 'USAGE') AND NOT pg_has_role(nspowner, 'USAGE') \
     AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e') LIMIT 100";

/// Whose the schema is that every database has.
const PUBLIC: &str = "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'public'";

/// What a dump says of owners.
#[derive(Debug, Default, PartialEq, Eq)]
struct Claims {
    /// What is to belong to each role.
    owned: BTreeMap<String, Vec<String>>,
    /// Extensions that get a comment, which only their owner may give, and where in the dump that is said.
    extensions: Vec<(String, u64)>,
}

/// What stands in the way of running a dump on the database in place of what is there, a sentence each.
pub fn bars(parameters: &Parameters, dump: &Path, private: &Path) -> Result<Vec<String>, BackupError> {
    let failed = |error| BackupError::failed(format!("cannot read {}", dump.display()), error);
    let mut claims = claims(BufReader::new(File::open(dump).map_err(failed)?)).map_err(failed)?;
    let output = private.join("owners.out");
    // It is never dropped, and to give it to whom it belongs takes no right.
    let public = query(parameters, &output, PUBLIC)?;
    if let Some(things) = claims.owned.get_mut(public.trim_end_matches('\n')) {
        things.retain(|thing| thing != "schema public");
    }
    claims.owned.retain(|_, things| !things.is_empty());
    let mut bars = Vec::new();
    let live = query(parameters, &output, LIVE)?;
    let live: Vec<String> = live.lines().map(str::to_owned).collect();
    if !live.is_empty() {
        bars.push(format!("it may not drop {}", listed(&live)));
    }
    for role in query(parameters, &output, &unusable(&claims))?.lines() {
        let (is_missing, role) = (role.starts_with('m'), role.get(1..).unwrap_or_default());
        let things = listed(claims.owned.get(role).map_or(&[][..], Vec::as_slice));
        bars.push(match is_missing {
            true => format!("{things} belongs to {role}, a role that is not on this server"),
            false => format!("{things} belongs to {role}, and the account is no member of that role"),
        });
    }
    Ok(bars)
}

/// Takes the comments on extensions out of a dump which are there and another's: only their owner may say them, and they stay
/// with the extensions, which no restore drops.
pub fn pass_over_comments(parameters: &Parameters, dump: &Path, private: &Path) -> Result<(), BackupError> {
    let failed = |error| BackupError::failed(format!("cannot read {}", dump.display()), error);
    let claims = claims(BufReader::new(File::open(dump).map_err(failed)?)).map_err(failed)?;
    let others = query(parameters, &private.join("extensions.out"), &extensions(&claims))?;
    let mut file = File::options().write(true).open(dump).map_err(failed)?;
    for (_, at) in claims.extensions.iter().filter(|(name, _)| others.lines().any(|other| other == name)) {
        // In its place: a dump may be large.
        file.seek(SeekFrom::Start(*at)).and_then(|_| file.write_all(b"--")).map_err(failed)?;
    }
    Ok(())
}

/// A query that gives the roles to which the account can give nothing.
fn unusable(claims: &Claims) -> String {
    let roles: Vec<String> = claims.owned.keys().map(|role| format!("({})", text(role))).collect();
    let rows = if roles.is_empty() {
        "SELECT NULL::text WHERE false".to_owned()
    } else {
        format!("VALUES {}", roles.join(", "))
    };
    format!(
        "SELECT CASE WHEN to_regrole(quote_ident(r)) IS NULL THEN 'm' ELSE 'n' END || r FROM ({rows}) v(r) \
         WHERE CASE WHEN to_regrole(quote_ident(r)) IS NULL THEN true ELSE NOT pg_has_role(to_regrole(quote_ident(r)), \
         CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END) END"
    )
}

/// A query that gives the extensions that are there and another's.
fn extensions(claims: &Claims) -> String {
    let names: Vec<String> = claims.extensions.iter().map(|(name, _)| text(name)).collect();
    format!(
        "SELECT quote_ident(extname) FROM pg_extension WHERE NOT pg_has_role(extowner, 'USAGE') AND quote_ident(extname) = ANY (ARRAY[{}]::text[])",
        names.join(", ")
    )
}

fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whose a dump says that things are. What a statement in a function's body says is left out: only what the comment before
/// it says as well counts.
fn claims(mut dump: impl BufRead) -> io::Result<Claims> {
    let mut found = Claims::default();
    let mut line = Vec::new();
    let mut is_row = false;
    let mut entry: Option<(String, String)> = None;
    let mut at = 0;
    while dump.read_until(b'\n', &mut line)? > 0 {
        if is_row {
            is_row = line != b"\\.\n";
        } else if line.starts_with(b"COPY ") && line.ends_with(b" FROM stdin;\n") {
            is_row = true;
        } else if line.starts_with(b"-- Name: ") {
            entry = described(String::from_utf8_lossy(&line).trim_end());
        } else if line.starts_with(b"ALTER ") || line.starts_with(b"COMMENT ON EXTENSION ") {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if let Some(rest) = text.strip_prefix("COMMENT ON EXTENSION ").filter(|rest| rest.ends_with(';')) {
                found.extensions.extend(rest.split_once(" IS ").map(|(name, _)| (name.to_owned(), at)));
            } else if let Some((thing, owner)) = &entry
                && is_given(text, owner)
            {
                let things = found.owned.entry(owner.clone()).or_default();
                if things.last() != Some(thing) {
                    things.push(thing.clone());
                }
            }
        }
        at += line.len() as u64;
        line.clear();
    }
    Ok(found)
}

/// What an entry of a dump is, and whose, by the comment before it.
fn described(comment: &str) -> Option<(String, String)> {
    let (head, owner) = comment.strip_prefix("-- Name: ")?.rsplit_once("; Owner: ")?;
    let owner = owner.split_once("; Tablespace: ").map_or(owner, |(owner, _)| owner);
    let (name, rest) = head.rsplit_once("; Type: ")?;
    let kind = rest.split_once("; Schema: ").map_or(rest, |(kind, _)| kind).to_lowercase();
    Some((format!("{kind} {name}"), owner.to_owned()))
}

/// True where a statement gives something to that role, or sets what the role's objects will have.
fn is_given(statement: &str, role: &str) -> bool {
    let is_role = |named: &str| named == role || named == format!("\"{}\"", role.replace('"', "\"\""));
    let given = statement.rsplit_once(" OWNER TO ").and_then(|(_, rest)| rest.strip_suffix(';')).is_some_and(is_role);
    let defaults = statement.strip_prefix("ALTER DEFAULT PRIVILEGES FOR ROLE ").and_then(|rest| {
        let ends = [" IN SCHEMA ", " GRANT ", " REVOKE "];
        ends.iter().filter_map(|end| rest.find(end)).min().map(|at| &rest[..at])
    });
    given || defaults.is_some_and(is_role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_found_where_the_dump_says_them_twice() {
        let dump = "-- Name: t; Type: TABLE; Schema: public; Owner: o'k\"x; Tablespace: fast\n\nALTER TABLE public.t OWNER TO \"o'k\"\"x\";\n\
            COPY public.t (a) FROM stdin;\n-- Name: no; Type: TABLE; Schema: public; Owner: no\nALTER TABLE public.no OWNER TO no;\n\\.\n\
            -- Name: f(); Type: FUNCTION; Schema: public; Owner: u\n\nALTER TABLE public.no OWNER TO somebody;\nALTER FUNCTION public.f() OWNER TO u;\n\
            -- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: s; Owner: d\nALTER DEFAULT PRIVILEGES FOR ROLE d IN SCHEMA s GRANT SELECT ON TABLES TO x;\n\
            -- Name: EXTENSION pg_trgm; Type: COMMENT; Schema: -; Owner: -\nCOMMENT ON EXTENSION pg_trgm IS 'x';\n";
        let found = claims(dump.as_bytes()).unwrap();
        let of = |role: &str| found.owned.get(role).cloned().unwrap_or_default();
        assert_eq!(found.owned.len(), 3, "{found:?}");
        assert_eq!((of("o'k\"x"), of("u")), (vec!["table t".to_owned()], vec!["function f()".to_owned()]));
        assert_eq!(of("d"), ["default acl DEFAULT PRIVILEGES FOR TABLES"]);
        let names: Vec<&str> = found.extensions.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["pg_trgm"]);
    }
}
