//! Questions to the catalogs that are asked again and again, prepared in the session: planning one takes longer than
//! its answer.
//!
//! Never relies on one to be there: a script may have let go of all that the session had prepared.

use std::collections::HashSet;

use postgres::{Client, Error};

use super::catalog;

/// A question with its parameters' values.
pub struct Asked {
    name: String,
    takes: &'static str,
    sql: String,
    values: String,
}

/// How the names look that [`Asked`] gives, as a regular expression of PostgreSQL's.
pub const NAMES: &str = "^backout_[0-9a-f]{16}$";

impl Asked {
    /// `takes`: the types of the parameters; `values`: as SQL. Both are empty where there are none.
    pub fn new(sql: String, takes: &'static str, values: String) -> Self {
        let digest = blake3::Hasher::new().update(takes.as_bytes()).update(sql.as_bytes()).finalize();
        Self { name: format!("backout_{}", &digest.to_hex()[..16]), takes, sql, values }
    }

    fn prepare(&self) -> String {
        let takes = if self.takes.is_empty() { String::new() } else { format!("({})", self.takes) };
        format!("PREPARE {}{takes} AS {};", self.name, self.sql)
    }

    fn execute(&self) -> String {
        let values = if self.values.is_empty() { String::new() } else { format!("({})", self.values) };
        format!("EXECUTE {}{values};", self.name)
    }
}

/// The answers to all, one after the other. The session must have the settings of [`catalog::PINNED`].
pub fn rows(client: &mut Client, all: &[Asked]) -> Result<Vec<Vec<String>>, Error> {
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let there = catalog::column(
        client,
        &format!("SELECT name FROM pg_catalog.pg_prepared_statements WHERE name OPERATOR(pg_catalog.~) '{NAMES}'"),
    )?;
    let mut there: HashSet<String> = there.into_iter().flatten().collect();
    let missing: String = all.iter().filter(|asked| there.insert(asked.name.clone())).map(Asked::prepare).collect();
    if !missing.is_empty() {
        client.batch_execute(&missing)?;
    }
    catalog::rows(client, &all.iter().map(Asked::execute).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_one_text() {
        let asked = |sql: &str| Asked::new(sql.to_owned(), "oid[]", "'{1}'".to_owned());
        assert_eq!(asked("SELECT 1").name, asked("SELECT 1").name);
        assert_ne!(asked("SELECT 1").name, asked("SELECT 2").name);
        assert!(asked("SELECT $1").prepare().ends_with("(oid[]) AS SELECT $1;"));
        assert!(asked("SELECT $1").execute().ends_with("('{1}');"));
    }
}
