//! PostgreSQL: `pg_dump` writes a script, `psql` runs it in one transaction behind one that empties the database.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use backout_model::backup::BackupError;

use super::lines::first_difference;
use super::{UNPROVEN, check_files, dump_file, scratch_name};
use crate::ledger::Ledger;
use crate::manifest::DatabaseNote;
use crate::tool::{Tool, version};

type Parameters = BTreeMap<String, String>;

/// What nobody may see; the password goes by the environment.
const HIDDEN: [&str; 2] = ["password", "sslpassword"];
/// The lines of a dump that differ from one to the next.
const RANDOM: [&[u8]; 2] = [b"\\restrict ", b"\\unrestrict "];

pub fn dump(name: &str, parameters: &Parameters, to: &Path, ledger: &Ledger) -> Result<DatabaseNote, BackupError> {
    let script = to.join(format!("{name}.sql"));
    write(parameters, &script, Some(ledger))?;
    let extensions =
        query(parameters, &to.with_file_name("extensions"), "SELECT extname FROM pg_extension ORDER BY 1")?;
    Ok(DatabaseNote {
        name: name.to_owned(),
        engine: "postgres".to_owned(),
        files: vec![dump_file(&script)?],
        written_by: version("pg_dump").unwrap_or_default(),
        owner: None,
        extensions: extensions.lines().map(str::to_owned).collect(),
    })
}

fn write(parameters: &Parameters, script: &Path, ledger: Option<&Ledger>) -> Result<(), BackupError> {
    let words = ["--format=plain", "--no-password", "--dbname"].map(OsString::from);
    let mut words = Vec::from(words);
    words.push(conninfo(parameters)?.into());
    Tool { name: "pg_dump", words, environment: environment(parameters), input: None, output: script }.run(ledger)
}

/// All or nothing: whoever reads meanwhile sees the database as it was, or as the backup has it.
pub fn load(note: &DatabaseNote, from: &Path, parameters: &Parameters) -> Result<(), BackupError> {
    check_files(note, from)?;
    let Some(file) = note.files.first() else { return Err(BackupError::new("the backup has no file of it")) };
    let clear = from.with_file_name("clear.sql");
    let failed = |error| BackupError::failed(format!("cannot write {}", clear.display()), error);
    let known: Vec<String> = note.extensions.iter().map(|name| format!("'{}'", name.replace('\'', "''"))).collect();
    fs::write(&clear, include_str!("postgres_clear.sql").replace("@EXTENSIONS@", &known.join(", "))).map_err(failed)?;
    let mut words: Vec<OsString> =
        ["-X", "-q", "-w", "-1", "-v", "ON_ERROR_STOP=1", "-f"].iter().map(OsString::from).collect();
    words.extend([clear.clone().into_os_string(), "-f".into(), from.join(&file.name).into_os_string(), "-d".into()]);
    words.push(conninfo(parameters)?.into());
    let output = from.with_file_name("psql.out");
    // From files: one that outlives this process must not take the end of a pipe for the end of the script.
    Tool { name: "psql", words, environment: environment(parameters), input: None, output: &output }.run(None)
}

pub fn prove(
    note: &DatabaseNote,
    from: &Path,
    parameters: &Parameters,
    scratch: &Path,
) -> Result<Vec<String>, BackupError> {
    check_files(note, from)?;
    let name = scratch_name();
    let output = scratch.join("psql.out");
    query(parameters, &output, &format!("CREATE DATABASE {name} TEMPLATE template0"))
        .map_err(|error| error.hint(UNPROVEN))?;
    let mut there = parameters.clone();
    there.insert("dbname".to_owned(), name.clone());
    let again = scratch.join("again.sql");
    let loaded = load(note, from, &there).and_then(|()| write(&there, &again, None));
    let gone = query(parameters, &output, &format!("DROP DATABASE {name}"));
    loaded?;
    gone?;
    let file = &note.files.first().ok_or_else(|| BackupError::new("the backup has no file of it"))?.name;
    let different = first_difference(&from.join(file), &again, &|line| {
        (!RANDOM.iter().any(|random| line.starts_with(random))).then(|| line.to_owned())
    })?;
    Ok(different.into_iter().map(|line| format!("dumped again, it differs: {line}")).collect())
}

pub fn examine(parameters: &Parameters, scratch: &Path) -> Result<Vec<String>, BackupError> {
    let missing = ["pg_dump", "psql"].into_iter().filter(|tool| version(tool).is_none());
    let mut found: Vec<String> = missing.map(|tool| format!("{tool} is not there: no backup can be taken")).collect();
    if found.is_empty() {
        let server = query(parameters, scratch, "SHOW server_version")?;
        let major =
            |text: &str| text.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())?.parse::<u32>().ok();
        let client = version("pg_dump").unwrap_or_default();
        if major(&client) < major(&server) {
            found.push(format!("{client} is older than the server ({}) and will refuse it", server.trim()));
        }
    }
    Ok(found)
}

/// What a query prints, without headers.
fn query(parameters: &Parameters, output: &Path, sql: &str) -> Result<String, BackupError> {
    let mut words: Vec<OsString> =
        ["-X", "-q", "-w", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql, "-d"].iter().map(OsString::from).collect();
    words.push(conninfo(parameters)?.into());
    Tool { name: "psql", words, environment: environment(parameters), input: None, output }.run(None)?;
    let said = fs::read_to_string(output)
        .map_err(|error| BackupError::failed(format!("cannot read {}", output.display()), error))?;
    fs::remove_file(output)
        .map_err(|error| BackupError::failed(format!("cannot remove {}", output.display()), error))?;
    Ok(said)
}

/// How to connect, as libpq takes it, without what nobody may see.
fn conninfo(parameters: &Parameters) -> Result<String, BackupError> {
    if parameters.contains_key("sslpassword") {
        return Err(BackupError::new("PostgreSQL's tools take an `sslpassword` only where others can read it")
            .hint("use a key file without a password, which only its owner can read"));
    }
    let shown = parameters.iter().filter(|(name, _)| !HIDDEN.contains(&name.as_str()));
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    Ok(shown.map(|(name, value)| format!("{name}='{}'", quoted(value))).collect::<Vec<_>>().join(" "))
}

fn environment(parameters: &Parameters) -> Vec<(&'static str, OsString)> {
    parameters.get("password").map(|password| ("PGPASSWORD", password.into())).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_no_word_of_a_command() {
        let parameters: Parameters = [("host", "a b"), ("password", "secret"), ("user", "o'hara\\")]
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .into();
        assert_eq!(conninfo(&parameters).unwrap(), "host='a b' user='o\\'hara\\\\'");
        assert_eq!(environment(&parameters), [("PGPASSWORD", OsString::from("secret"))]);
    }
}
