//! The plain client: the `sqlite3` shell, and the bundled library where the shell is too old for a script.
//! It runs scripts as a user would and knows nothing of undo.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rusqlite::Connection;
use rusqlite::fallible_iterator::FallibleIterator;

use crate::fidelity::subject::Ran;

/// Runs a script by the `sqlite3` shell with its defaults, stopping at the first error.
pub fn shell(database: &Path, script: &Path) -> Result<Ran> {
    let input = File::open(script).with_context(|| format!("opening {}", script.display()))?;
    let output = Command::new("sqlite3")
        // Neither the user's settings nor a prompt: only the script.
        .args(["-batch", "-bail", "-init", "/dev/null"])
        .arg(database)
        .stdin(input)
        .stdout(Stdio::null())
        .output()
        .context("running the sqlite3 shell (Debian: apt-get install sqlite3)")?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    Ok(Err(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("no message").to_owned()))
}

/// Runs a script by the bundled library, set as the shell sets it: foreign keys off.
pub fn library(database: &Path, script: &Path) -> Result<Ran> {
    let text = std::fs::read_to_string(script).with_context(|| format!("reading {}", script.display()))?;
    let connection = open(database)?;
    let ran = run_all(&connection, &text);
    if ran.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK").context("rolling back a script that failed")?;
    }
    Ok(ran.map_err(|error| error.to_string()))
}

/// Every statement to its end, rows dropped.
fn run_all(connection: &Connection, text: &str) -> rusqlite::Result<()> {
    let mut batch = rusqlite::Batch::new(connection, text);
    while let Some(mut statement) = batch.next()? {
        let mut rows = statement.raw_query();
        while rows.next()?.is_some() {}
    }
    Ok(())
}

/// A connection of the bundled library with the shell's defaults.
pub fn open(database: &Path) -> Result<Connection> {
    let connection = Connection::open(database).with_context(|| format!("opening {}", database.display()))?;
    connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA busy_timeout = 5000").context("setting up")?;
    Ok(connection)
}

/// A copy of a database at rest, by SQLite's own backup: what still lies in a write-ahead log comes along.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = to.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", Path::new(&name).display()));
            }
            _ => {}
        }
    }
    let source = open(from)?;
    let mut target = Connection::open(to).with_context(|| format!("making {}", to.display()))?;
    let backup = rusqlite::backup::Backup::new(&source, &mut target).context("copying a database")?;
    backup.run_to_completion(1_000_000, std::time::Duration::ZERO, None).context("copying a database")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_and_library_stop_at_the_first_error_and_leave_no_transaction() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let script = dir.path().join("s.sql");
        std::fs::write(&script, "CREATE TABLE a(x); BEGIN; CREATE TABLE b(x); SELECT nothing; CREATE TABLE c(x);")?;
        for (name, run) in [("shell", shell as fn(&Path, &Path) -> Result<Ran>), ("library", library)] {
            let database = dir.path().join(name);
            assert!(run(&database, &script)?.is_err());
            let tables: String =
                open(&database)?.query_row("SELECT group_concat(name) FROM sqlite_schema", [], |row| row.get(0))?;
            assert_eq!(tables, "a", "{name}");
        }
        Ok(())
    }
}
