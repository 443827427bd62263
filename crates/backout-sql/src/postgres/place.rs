//! Where the tool's own objects are in the user's database: a schema of their own, or where the role may make none, names
//! with a prefix in the first schema in which it may make tables.
//!
//! Never makes anything but on [`Place::make`].

use postgres::Error;

use super::session::{Session, ident, literal};

/// Where the tool's own objects are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub schema: String,
    /// What the names in the schema begin with; empty where the schema is the tool's own.
    pub prefix: String,
}

/// Why there is no place, and what to do.
pub const NOWHERE: &str = "the role may create nothing, neither a schema in the database nor a table in any schema, and the tool's own tables have to be somewhere";
pub const NOWHERE_HINT: &str = "GRANT CREATE on the database, or on a schema in it, to the role";

/// The longest name that leaves room for what is added to it: PostgreSQL cuts names at 63 bytes.
const LONGEST: usize = 40;

/// The name of the tool's own schema for a site.
pub fn schema_of(site: &str) -> String {
    let plain = crate::holder::sanitised(site);
    if plain.len() <= LONGEST {
        return format!("backout_{plain}");
    }
    // Only ASCII is left in it.
    format!("backout_{}_{}", &plain[..LONGEST - 9], &blake3::hash(site.as_bytes()).to_hex()[..8])
}

impl Place {
    /// Finds it by its marker; `None` where this site was never here.
    pub fn find(session: &mut Session, own: &str) -> Result<Option<Self>, Error> {
        let found = session.rows(&format!(
            "SELECT n.nspname, n.nspname = {0} FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND (n.nspname = {0} AND c.relname = 'marker' OR c.relname = {1})
             ORDER BY 2 DESC, 1 LIMIT 1",
            literal(own),
            literal(&format!("{own}_marker"))
        ))?;
        Ok(found.into_iter().next().map(|row| {
            let schema = row[0].clone().unwrap_or_default();
            let prefix = if row[1].as_deref() == Some("t") { String::new() } else { format!("{own}_") };
            Self { schema, prefix }
        }))
    }

    /// True where [`Place::make`] would find no room.
    pub fn is_nowhere(session: &mut Session, own: &str) -> Result<bool, Error> {
        Ok(!may_have_own(session, own)? && open_schema(session)?.is_none())
    }

    /// Makes room, in the open transaction.
    pub fn make(session: &mut Session, own: &str) -> Result<Self, Error> {
        if may_have_own(session, own)? {
            session.run(&format!("CREATE SCHEMA IF NOT EXISTS {}", ident(own)))?;
            return Ok(Self { schema: own.to_owned(), prefix: String::new() });
        }
        let schema = open_schema(session)?.unwrap_or_else(|| "public".to_owned());
        Ok(Self { schema, prefix: format!("{own}_") })
    }

    /// The name of an object, in quotes and with its schema.
    pub fn object(&self, name: &str) -> String {
        format!("{}.{}", ident(&self.schema), ident(&format!("{}{name}", self.prefix)))
    }

    /// A condition that holds for the tool's own relations: of `c`, a pg_class, and `n`, its pg_namespace.
    pub fn is_own(&self) -> String {
        if self.prefix.is_empty() {
            let holds = literal(&format!("{}_h", self.schema));
            format!("(n.nspname = {} OR pg_catalog.starts_with(n.nspname::text, {holds}))", literal(&self.schema))
        } else {
            format!(
                "n.nspname = {} AND pg_catalog.starts_with(c.relname::text, {})",
                literal(&self.schema),
                literal(&self.prefix)
            )
        }
    }
}

fn may_have_own(session: &mut Session, own: &str) -> Result<bool, Error> {
    let may = session.value(&format!(
        "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
             OR EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {})",
        literal(own)
    ))?;
    Ok(may.as_deref() == Some("t"))
}

/// The first schema in which the role may make tables, `public` before all others.
fn open_schema(session: &mut Session) -> Result<Option<String>, Error> {
    session.value(
        "SELECT nspname FROM pg_catalog.pg_namespace
         WHERE nspname !~ '^(pg_|backout)' AND nspname <> 'information_schema'
             AND pg_catalog.has_schema_privilege(oid, 'CREATE') AND pg_catalog.has_schema_privilege(oid, 'USAGE')
         ORDER BY nspname <> 'public', nspname LIMIT 1",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_of_sites_are_cut_and_stay_apart() {
        assert_eq!(schema_of("shop"), "backout_shop");
        let (one, other) = (schema_of(&"a".repeat(70)), schema_of(&"a".repeat(71)));
        assert_ne!(one, other);
        assert!(one.len() + "_marker".len() < 63);
    }
}
