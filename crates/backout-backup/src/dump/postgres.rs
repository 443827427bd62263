//! PostgreSQL: `pg_dump` writes a script, `psql` runs it in one transaction behind one that empties the database.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use backout_model::backup::BackupError;
use postgres_protocol::password::scram_sha_256;

use super::evened::{self, Line};
use super::lines::first_difference;
use super::owners;
use super::{Proven, check_files, dump_file, is_finished, scratch_name};
use crate::beside::{Beside, script};
use crate::keeper::Purpose;
use crate::ledger::Ledger;
use crate::manifest::DatabaseNote;
use crate::tool::{Tool, version};

pub type Parameters = BTreeMap<String, String>;

/// What nobody may see; the password goes by the environment.
const HIDDEN: [&str; 2] = ["password", "sslpassword"];
/// The lines of a dump that differ from one to the next.
const RANDOM: [&[u8]; 2] = [b"\\restrict ", b"\\unrestrict "];

/// What a dump leaves out that is to be loaded by an account which owns nothing else on the server.
const PORTABLE: [&str; 4] = ["--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions"];

pub fn dump(
    name: &str,
    parameters: &Parameters,
    to: &Path,
    ledger: &Ledger,
    purpose: Purpose,
) -> Result<DatabaseNote, BackupError> {
    let script = to.join(format!("{name}.sql"));
    let besides: &[&str] = if purpose == Purpose::Rehearsal { &PORTABLE } else { &[] };
    write(parameters, &script, besides, Some(ledger))?;
    let extensions =
        query(parameters, &to.with_file_name("extensions"), "SELECT extname FROM pg_extension ORDER BY 1")?;
    Ok(DatabaseNote {
        name: name.to_owned(),
        engine: "postgres".to_owned(),
        files: vec![dump_file(&script)?],
        written_by: version("pg_dump").unwrap_or_default(),
        owner: None,
        extensions: extensions.lines().map(str::to_owned).collect(),
        history: false,
    })
}

fn write(parameters: &Parameters, script: &Path, besides: &[&str], ledger: Option<&Ledger>) -> Result<(), BackupError> {
    let words = ["--format=plain", "--no-password"].iter().chain(besides).chain(&["--dbname"]);
    let mut words: Vec<OsString> = words.map(OsString::from).collect();
    words.push(conninfo(parameters)?.into());
    Tool { name: "pg_dump", words, environment: environment(parameters), input: None, output: script }.run(ledger)?;
    is_finished("pg_dump", script, &["-- PostgreSQL database dump complete"])
}

/// About how many bytes a dump takes: what the tables do, without their indexes.
pub fn size(parameters: &Parameters, private: &Path) -> Result<u64, BackupError> {
    let sum = "SELECT coalesce(sum(pg_table_size(c.oid)), 0) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
    let said = query(parameters, &private.join("size.out"), sum)?;
    said.trim().parse().map_err(|error| BackupError::failed("cannot read the size of a database", error))
}

/// All or nothing: whoever reads meanwhile sees the database as it was, or as the backup has it.
pub fn load(note: &DatabaseNote, from: &Path, parameters: &Parameters) -> Result<(), BackupError> {
    check_files(note, from)?;
    let Some(file) = note.files.first() else { return Err(BackupError::new("the backup has no file of it")) };
    let clear = clearing(&note.extensions, from)?;
    super::owners::pass_over_comments(parameters, &from.join(&file.name), from)?;
    let output = from.with_file_name("psql.out");
    let loaded = run(parameters, &[&clear, &from.join(&file.name)], &output);
    loaded.map_err(|error| BackupError { took_nothing: was_taken_back(parameters, &output), ..error })
}

/// Whether the server says that the transaction, which wrote its number first, took no effect. Where it never came to that, or
/// cannot be asked, nothing is known.
fn was_taken_back(parameters: &Parameters, output: &Path) -> bool {
    let said = fs::read_to_string(output).unwrap_or_default();
    let Some(number) = said.lines().next().and_then(|line| line.trim().parse::<u64>().ok()) else { return false };
    let asked = query(parameters, &output.with_file_name("status.out"), &format!("SELECT txid_status({number})"));
    asked.is_ok_and(|status| status.trim() == "aborted")
}

/// Fills a database that is empty: all of it, or nothing.
pub fn fill(note: &DatabaseNote, from: &Path, parameters: &Parameters) -> Result<(), BackupError> {
    let Some(file) = note.files.first() else { return Err(BackupError::new("the backup has no file of it")) };
    run(parameters, &[&from.join(&file.name)], &from.with_file_name("psql.out"))
}

/// Runs scripts in one transaction.
fn run(parameters: &Parameters, scripts: &[&Path], output: &Path) -> Result<(), BackupError> {
    psql(parameters, &["-1"], scripts, output)
}

fn psql(parameters: &Parameters, first: &[&str], scripts: &[&Path], output: &Path) -> Result<(), BackupError> {
    let words = ["-X", "-q", "-w", "-A", "-t", "-v", "ON_ERROR_STOP=1"];
    let mut words: Vec<OsString> = words.iter().chain(first).map(OsString::from).collect();
    for script in scripts {
        words.extend(["-f".into(), (*script).to_owned().into_os_string()]);
    }
    words.extend(["-d".into(), conninfo(parameters)?.into()]);
    // From files: one that outlives this process must not take the end of a pipe for the end of the script.
    Tool { name: "psql", words, environment: environment(parameters), input: None, output }.run(None)
}

/// The script that empties a database, beside the dumps in `from`.
fn clearing(extensions: &[String], from: &Path) -> Result<PathBuf, BackupError> {
    let clear = from.with_file_name("clear.sql");
    let failed = |error| BackupError::failed(format!("cannot write {}", clear.display()), error);
    let known: Vec<String> = extensions.iter().map(|name| format!("'{}'", name.replace('\'', "''"))).collect();
    fs::write(&clear, include_str!("postgres_clear.sql").replace("@EXTENSIONS@", &known.join(", "))).map_err(failed)?;
    Ok(clear)
}

pub fn clear(parameters: &Parameters, private: &Path) -> Result<(), BackupError> {
    let script = clearing(&["plpgsql".to_owned()], &private.join("dumps"))?;
    run(parameters, &[&script], &private.join("psql.out"))
}

pub fn is_empty(parameters: &Parameters, private: &Path) -> Result<bool, BackupError> {
    let count = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
    Ok(query(parameters, &private.join("psql.out"), count)?.trim() == "0")
}

/// Makes a role and a database that it owns. Whoever else may connect to databases may not connect to this one.
pub fn make(
    parameters: &Parameters,
    beside: &Beside,
    password: &str,
    private: &Path,
) -> Result<Parameters, BackupError> {
    let Beside { database, account, .. } = beside;
    let output = private.join("psql.out");
    // As the server keeps it: neither this script nor a log of the server's holds the password itself.
    let verifier = scram_sha_256(password.as_bytes());
    let sql = format!(
        "CREATE ROLE {account} LOGIN PASSWORD '{verifier}';\nGRANT {account} TO CURRENT_USER;\n\
         SELECT format('CREATE DATABASE {database} OWNER {account} TEMPLATE template0 ENCODING %L LC_COLLATE %L LC_CTYPE %L', \
         pg_encoding_to_char(encoding), datcollate, datctype) FROM pg_database WHERE datname = current_database()\n\\gexec\n\
         REVOKE ALL ON DATABASE {database} FROM PUBLIC;\n"
    );
    psql(parameters, &[], &[&script(private, &sql)?], &output)?;
    // Names without a schema mean there what they mean here.
    let path = "SELECT replace(current_setting('search_path'), '\"$user\"', quote_ident(current_user))";
    let path = query(parameters, &output, path)?;
    let mut there = parameters.clone();
    there.remove("passfile");
    for (name, value) in [("dbname", database), ("user", account), ("password", &password.to_owned())] {
        there.insert(name.to_owned(), value.clone());
    }
    let path = path.trim().replace('\\', "\\\\").replace(' ', "\\ ");
    let options = there.remove("options").map(|options| format!("{options} ")).unwrap_or_default();
    there.insert("options".to_owned(), format!("{options}-c search_path={path}"));
    Ok(there)
}

pub fn unmake(parameters: &Parameters, beside: &Beside, private: &Path) -> Result<(), BackupError> {
    let Beside { database, account, .. } = beside;
    let sql = format!("DROP DATABASE IF EXISTS {database} WITH (FORCE);\nDROP ROLE IF EXISTS {account};\n");
    psql(parameters, &[], &[&script(private, &sql)?], &private.join("psql.out"))
}

/// Everything but what the tool keeps, with rows and grants in no order.
pub fn print(parameters: &Parameters, to: &Path, private: &Path) -> Result<(), BackupError> {
    let dump = private.join("print.sql");
    write(parameters, &dump, &["--exclude-schema=backout*"], None)?;
    let failed = |error| BackupError::failed(format!("cannot write {}", to.display()), error);
    let mut out = fs::File::create(to).map(BufWriter::new).map_err(failed)?;
    let mut rows: Option<Vec<u8>> = None;
    let mut kind = |line: &[u8]| {
        if let Some(of) = &rows {
            if line == b"\\.\n" {
                rows = None;
                return Line::Nothing;
            }
            return Line::Among(of.clone());
        }
        if RANDOM.iter().any(|random| line.starts_with(random)) {
            return Line::Nothing;
        }
        if line.starts_with(b"COPY ") && line.ends_with(b" FROM stdin;\n") {
            rows = Some(line.trim_ascii_end().to_vec());
        }
        if line.starts_with(b"GRANT ") || line.starts_with(b"REVOKE ") {
            return Line::Among(b"grants".to_vec());
        }
        Line::Plain
    };
    evened::copy(&dump, &mut out, &mut kind).and_then(|()| out.flush()).map_err(failed)
}

pub fn prove(note: &DatabaseNote, from: &Path, parameters: &Parameters, scratch: &Path) -> Result<Proven, BackupError> {
    let name = scratch_name();
    let output = scratch.join("psql.out");
    if let Err(error) = query(parameters, &output, &format!("CREATE DATABASE {name} TEMPLATE template0")) {
        return Ok(Proven::NotTried(error));
    }
    let mut there = parameters.clone();
    there.insert("dbname".to_owned(), name.clone());
    let again = scratch.join("again.sql");
    let loaded = load(note, from, &there).and_then(|()| write(&there, &again, &[], None));
    let gone = query(parameters, &output, &format!("DROP DATABASE {name}"));
    loaded?;
    gone?;
    let file = &note.files.first().ok_or_else(|| BackupError::new("the backup has no file of it"))?.name;
    let different = first_difference(&from.join(file), &again, &|line| {
        (!RANDOM.iter().any(|random| line.starts_with(random))).then(|| line.to_owned())
    })?;
    Ok(Proven::Compared(different.into_iter().map(|line| format!("dumped again, it differs: {line}")).collect()))
}

pub fn bars(parameters: &Parameters, files: &[PathBuf], private: &Path) -> Result<Vec<String>, BackupError> {
    let each = files.iter().map(|file| owners::bars(parameters, file, private));
    Ok(each.collect::<Result<Vec<_>, _>>()?.concat())
}

/// What stands in the way of a dump, and of bringing it back.
pub fn examine(parameters: &Parameters, private: &Path) -> Result<(Vec<String>, Vec<String>), BackupError> {
    let missing = ["pg_dump", "psql"].into_iter().filter(|tool| version(tool).is_none());
    let found: Vec<String> = missing.map(|tool| format!("{tool} is not there: no backup can be taken")).collect();
    if !found.is_empty() {
        return Ok((found, Vec::new()));
    }
    let server = query(parameters, &private.join("version.out"), "SHOW server_version")?;
    let major =
        |text: &str| text.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())?.parse::<u32>().ok();
    let client = version("pg_dump").unwrap_or_default();
    if major(&client) < major(&server) {
        return Ok((
            vec![format!("{client} is older than the server ({}) and will refuse it", server.trim())],
            Vec::new(),
        ));
    }
    // It locks every table as a backup does.
    let schema = private.join("schema.sql");
    write(parameters, &schema, &["--schema-only", "--lock-wait-timeout=5s"], None)?;
    Ok((found, bars(parameters, &[schema], private)?))
}

/// What a query prints, without headers.
pub fn query(parameters: &Parameters, output: &Path, sql: &str) -> Result<String, BackupError> {
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
