//! Questions to the catalogs that are asked again and again, prepared in the session: planning one takes longer than
//! its answer.
//!
//! Never relies on one to be there: a script may have let go of all that the session had prepared.

use std::collections::HashSet;
use std::ops::{Deref, DerefMut};

use postgres::Error;
use postgres::error::SqlState;

use super::acts::{Act, Log};
use super::catalog;

/// A connection, what was prepared in it, and what it was told of itself, as far as this process knows.
pub struct Client {
    inner: postgres::Client,
    /// A guess, which the server decides on each time.
    prepared: HashSet<String>,
    /// The session is under the tool's own settings: a guess, too.
    settled: bool,
    /// So it is from a savepoint on, which [`unpin`] goes back to.
    pinned: bool,
    /// What the server counted of the transaction's writes, where nothing was run since that may write.
    counted: Option<Vec<Vec<String>>>,
    /// Takes down what is run, where somebody asked for that.
    log: Option<Log>,
}

impl From<postgres::Client> for Client {
    fn from(inner: postgres::Client) -> Self {
        Self { inner, prepared: HashSet::new(), settled: false, pinned: false, counted: None, log: None }
    }
}

impl Client {
    /// For what writes to no table: what was counted stays true.
    pub fn unwritten(&mut self) -> &mut postgres::Client {
        &mut self.inner
    }

    /// Whether the session is under the tool's own settings from now on; gives whether it was.
    pub fn settle(&mut self, settled: bool) -> bool {
        std::mem::replace(&mut self.settled, settled)
    }

    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Runs statements that return nothing.
    pub fn batch_execute(&mut self, sql: &str) -> Result<(), Error> {
        self.counted = None;
        self.inner.batch_execute(sql)?;
        self.log.iter_mut().for_each(|log| log.ran(sql));
        Ok(())
    }

    /// A savepoint was set beside a question.
    pub fn marked(&mut self, savepoint: &str) {
        self.log.iter_mut().for_each(|log| log.marked(savepoint));
    }

    /// A block of kept rows went into a table.
    pub fn copied(&mut self, copy: &str, block: u64) {
        self.log.iter_mut().for_each(|log| log.copied(copy, block));
    }

    /// Takes down from now on what changes the database.
    pub fn take_down(&mut self) {
        self.log = Some(Log::default());
    }

    /// What ran since; none where it built something anew and what hung on that is not known.
    pub fn taken_down(&mut self, is_known: bool) -> Vec<Act> {
        self.log.take().map(|log| log.into_acts(is_known)).unwrap_or_default()
    }

    /// The transaction went back to a savepoint, or ended.
    pub fn went_back(&mut self) {
        self.pinned = false;
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
        self.counted = None;
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

    /// The question itself.
    pub fn sql(&self) -> &str {
        &self.sql
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

/// A way to ask.
pub type Ask = fn(&mut Client, &[Asked]) -> Result<Vec<Vec<String>>, Error>;

/// The answers to all, one after the other, in one message and under the settings of [`catalog::PINNED`], whatever those of
/// the transaction are, which has to be open.
pub fn rows(client: &mut Client, all: &[Asked]) -> Result<Vec<Vec<String>>, Error> {
    if all.is_empty() {
        return Ok(Vec::new());
    }
    if (client.settled || client.pinned)
        && let Some(answers) = rows_as_it_is(client, all)?
    {
        return Ok(answers);
    }
    let answers = pinned_rows(client, all, UNPIN)?;
    client.pinned = false;
    Ok(answers)
}

/// The same; the settings stay as they are for the questions that follow, until [`unpin`].
pub fn first_rows(client: &mut Client, all: &[Asked]) -> Result<Vec<Vec<String>>, Error> {
    if all.is_empty() || client.settled || client.pinned { rows(client, all) } else { pinned_rows(client, all, "") }
}

/// Ends what [`first_rows`] began. Nothing may have been written since.
pub fn unpin(client: &mut Client) -> Result<(), Error> {
    if std::mem::take(&mut client.pinned) { client.inner.batch_execute(UNPIN) } else { Ok(()) }
}

/// What the server counted of the transaction's writes, as `question` asks for it; it is asked once for all that comes before
/// the next statement that may write. `ask` is [`rows`] or [`first_rows`].
pub fn counted(client: &mut Client, question: &str, ask: Ask) -> Result<Vec<Vec<String>>, Error> {
    if let Some(counted) = &client.counted {
        return Ok(counted.clone());
    }
    let counted = ask(client, &[Asked::new(question.to_owned(), "", String::new())])?;
    client.counted = Some(counted.clone());
    Ok(counted)
}

/// The answers under the settings of the session; none where these turn out to be others than were thought.
fn rows_as_it_is(client: &mut Client, all: &[Asked]) -> Result<Option<Vec<Vec<String>>>, Error> {
    let check = check();
    if !all.iter().chain([&check]).all(|asked| client.prepared.contains(&asked.name)) {
        prepare(client, all)?;
    }
    let questions: String = [&check].into_iter().chain(all).map(Asked::execute).collect();
    // Where one is not there any more, all is asked in the way that puts up with it.
    let sql = format!("SAVEPOINT backout_pin; {questions} RELEASE SAVEPOINT backout_pin");
    let mut answers = match catalog::rows(&mut client.inner, &sql) {
        Err(error) if error.code() == Some(&SqlState::INVALID_SQL_STATEMENT_NAME) => {
            client.inner.batch_execute(UNPIN)?;
            return Ok(None);
        }
        answers => answers.inspect_err(|_| client.pinned = false)?.into_iter(),
    };
    let settings = answers.next().unwrap_or_default();
    // `DateStyle` says in which order days and months are read, too.
    let is_pinned =
        |((name, value), now): (&(&str, &str), &String)| now == value || *name == "DateStyle" && now.starts_with(value);
    let are_pinned = catalog::PINNED.iter().zip(&settings).all(is_pinned);
    Ok((are_pinned && settings.len() == catalog::PINNED.len()).then(|| answers.collect()))
}

/// The answers under pinned settings, which stay unless `end` ends them.
fn pinned_rows(client: &mut Client, all: &[Asked], end: &str) -> Result<Vec<Vec<String>>, Error> {
    let pins = pins();
    if !all.iter().chain([&pins]).all(|asked| client.prepared.contains(&asked.name)) {
        prepare(client, all)?;
    }
    let questions: String = [&pins].into_iter().chain(all).map(Asked::execute).collect();
    let sql = format!("SAVEPOINT backout_pin; {questions} {end}");
    let answers = match catalog::rows(&mut client.inner, &sql) {
        Err(error) if error.code() == Some(&SqlState::INVALID_SQL_STATEMENT_NAME) => {
            client.inner.batch_execute(UNPIN)?;
            prepare(client, all)?;
            catalog::rows(&mut client.inner, &sql)?
        }
        answers => answers?,
    };
    client.pinned = true;
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

/// Asks for the pinned settings.
fn check() -> Asked {
    let ask = |(name, _)| format!("pg_catalog.current_setting('{name}')");
    let ask: Vec<String> = catalog::PINNED.into_iter().map(ask).collect();
    Asked::new(format!("SELECT {}", ask.join(", ")), "", String::new())
}

/// Prepares what is not there.
fn prepare(client: &mut Client, all: &[Asked]) -> Result<(), Error> {
    let there = catalog::column(
        &mut client.inner,
        &format!("SELECT name FROM pg_catalog.pg_prepared_statements WHERE name OPERATOR(pg_catalog.~) '{NAMES}'"),
    )?;
    client.prepared = there.into_iter().flatten().collect();
    let (pins, check) = (pins(), check());
    let missing = all.iter().chain([&pins, &check]).filter(|asked| client.prepared.insert(asked.name.clone()));
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
