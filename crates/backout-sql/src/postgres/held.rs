//! What the session of a script holds locked, as another session sees it: asked between statements, and only by who measures.
//!
//! Tables and the like that the script has made itself are left out: nobody else can wait for them.

use std::collections::{BTreeMap, BTreeSet};

use super::session::Session;

/// What was held when it was asked last: an object and a mode each.
#[derive(Default)]
pub struct Held(BTreeSet<(String, String)>);

impl Held {
    /// The locks that `a` holds now and did not before, by what `b` sees of the catalogs: `ACCESS EXCLUSIVE on product`.
    pub fn since_last(&mut self, a: &Session, b: &mut Session) -> Result<String, String> {
        let process = a.process().ok_or("the server does not say which process the session is")?;
        let sql = format!(
            "SELECT CASE n.nspname WHEN 'public' THEN '' ELSE pg_catalog.quote_ident(n.nspname) || '.' END
                 || pg_catalog.quote_ident(c.relname), l.mode
             FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE l.pid = {process} AND l.granted AND l.locktype = 'relation' AND c.relkind IN ('r', 'p', 'm', 'v', 'i', 'I', 'S', 'f')
                 AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
                 AND n.nspname !~ '^(pg_|information_schema$|backout)'
             ORDER BY 2, 1"
        );
        let mut now = BTreeSet::new();
        for row in b.rows(&sql).map_err(|error| error.to_string())? {
            let mut row = row.into_iter().flatten();
            if let (Some(name), Some(mode)) = (row.next(), row.next()) {
                now.insert((spelled(&mode), name));
            }
        }
        let mut new: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (mode, name) in now.difference(&self.0) {
            new.entry(mode).or_default().push(name);
        }
        let told: Vec<String> = new.iter().map(|(mode, names)| format!("{mode} on {}", names.join(", "))).collect();
        self.0 = now;
        Ok(if told.is_empty() { "none that it did not have".to_owned() } else { told.join("; ") })
    }
}

/// `AccessExclusiveLock` as LOCK TABLE has it: `ACCESS EXCLUSIVE`.
fn spelled(mode: &str) -> String {
    let mut text = String::new();
    for letter in mode.trim_end_matches("Lock").chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_spelled_as_the_manual_does() {
        let spelled = ["AccessShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareLock"].map(spelled);
        assert_eq!(spelled, ["ACCESS SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE"]);
    }
}
