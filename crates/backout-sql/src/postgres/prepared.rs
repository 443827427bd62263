//! Questions to the catalogs that are asked again and again, prepared in the session: planning one takes longer than
//! its answer.
//!
//! Never relies on one to be there: a script may have let go of all that the session had prepared.

use std::collections::HashSet;
use std::ops::{Deref, DerefMut};

use postgres::Error;
use postgres::error::SqlState;

use super::catalog;

/// A connection, and what was prepared in it as far as this process knows.
pub struct Client {
    inner: postgres::Client,
    /// A guess, which the server decides on each time.
    prepared: HashSet<String>,
}

impl From<postgres::Client> for Client {
    fn from(inner: postgres::Client) -> Self {
        Self { inner, prepared: HashSet::new() }
    }
}

impl Deref for Client {
    type Target = postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.inner
    }
}

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

/// The answers to all, one after the other, in one message and under the settings of [`catalog::PINNED`], whatever those of
/// the transaction are, which has to be open.
pub fn rows(client: &mut Client, all: &[Asked]) -> Result<Vec<Vec<String>>, Error> {
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let pins = pins();
    if !all.iter().chain([&pins]).all(|asked| client.prepared.contains(&asked.name)) {
        prepare(client, all)?;
    }
    let questions: String = [&pins].into_iter().chain(all).map(Asked::execute).collect();
    let sql = format!("SAVEPOINT backout_pin; {questions} {UNPIN}");
    let answers = match catalog::rows(client, &sql) {
        Err(error) if error.code() == Some(&SqlState::INVALID_SQL_STATEMENT_NAME) => {
            client.batch_execute(UNPIN)?;
            prepare(client, all)?;
            catalog::rows(client, &sql)?
        }
        answers => answers?,
    };
    // The first are the settings.
    Ok(answers.into_iter().skip(1).collect())
}

/// What was set since the savepoint goes back with it.
const UNPIN: &str = "ROLLBACK TO SAVEPOINT backout_pin; RELEASE SAVEPOINT backout_pin";

/// Sets the pinned settings.
fn pins() -> Asked {
    let set = |(name, value)| format!("pg_catalog.set_config('{name}', '{value}', true)");
    let set: Vec<String> = catalog::PINNED.into_iter().map(set).collect();
    Asked::new(format!("SELECT {}", set.join(", ")), "", String::new())
}

/// Prepares what is not there.
fn prepare(client: &mut Client, all: &[Asked]) -> Result<(), Error> {
    let there = catalog::column(
        client,
        &format!("SELECT name FROM pg_catalog.pg_prepared_statements WHERE name OPERATOR(pg_catalog.~) '{NAMES}'"),
    )?;
    client.prepared = there.into_iter().flatten().collect();
    let pins = pins();
    let missing = all.iter().chain([&pins]).filter(|asked| client.prepared.insert(asked.name.clone()));
    let missing: String = missing.map(Asked::prepare).collect();
    if missing.is_empty() {
        return Ok(());
    }
    // The names in them mean what they mean under the pinned settings.
    client.inner.batch_execute(&format!("SAVEPOINT backout_pin; {}; {missing} {UNPIN}", pins.sql))
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
