//! MariaDB: `mariadb-dump` in one transaction. It writes FLOATs with six digits, so what it loses goes into a script of its own,
//! and triggers come last, so that they do not see that script.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use backout_model::backup::BackupError;
use sha1::{Digest as _, Sha1};

use super::definers;
use super::evened::{self, Line};
use super::floats;
use super::history::{self, History};
use super::lines::first_difference;
use super::{Proven, check_files, dump_file, is_finished, scratch_name};
use crate::beside::{Beside, script};
use crate::keeper::Purpose;
use crate::ledger::Ledger;
use crate::manifest::DatabaseNote;
use crate::tool::{Tool, version};

type Parameters = BTreeMap<String, String>;

pub const DUMP: &str = "mariadb-dump";
const CLIENT: &str = "mariadb";
/// What both dumps have in common: a database under another name is dumped to the same bytes.
const WORDS: [&str; 5] =
    ["--default-character-set=utf8mb4", "--single-transaction", "--quick", "--skip-comments", "--no-tablespaces"];
const TABLES: [&str; 4] = ["--routines", "--events", "--hex-blob", "--skip-triggers"];
const TRIGGERS: [&str; 3] = ["--triggers", "--no-data", "--no-create-info"];
const DEFINITIONS: [&str; 4] = ["--routines", "--events", "--triggers", "--no-data"];

/// The last thing that a dump without comments does; since 11.4 and 10.11.9 another setting may come after it.
const ENDS: [&str; 2] = ["SET SQL_NOTES=@OLD_SQL_NOTES", "SET NOTE_VERBOSITY=@OLD_NOTE_VERBOSITY"];

/// The statement by which a database gets the character set that new tables have there.
const SETTING: &str = "SELECT CONCAT('ALTER DATABASE CHARACTER SET ', DEFAULT_CHARACTER_SET_NAME, ' COLLATE ', DEFAULT_COLLATION_NAME, ';') \
     FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = DATABASE()";
/// The statements that empty a database.
const CLEAR: &str = "SELECT 'SET FOREIGN_KEY_CHECKS = 0;' UNION ALL \
     SELECT CONCAT('DROP ', CASE TABLE_TYPE WHEN 'VIEW' THEN 'VIEW' WHEN 'SEQUENCE' THEN 'SEQUENCE' ELSE 'TABLE' END, ' IF EXISTS `', REPLACE(TABLE_NAME, '`', '``'), '`;') \
     FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() UNION ALL \
     SELECT CONCAT('DROP ', ROUTINE_TYPE, ' IF EXISTS `', REPLACE(ROUTINE_NAME, '`', '``'), '`;') \
     FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE() AND ROUTINE_TYPE <> 'PACKAGE BODY' UNION ALL \
     SELECT CONCAT('DROP EVENT IF EXISTS `', REPLACE(EVENT_NAME, '`', '``'), '`;') \
     FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE()";

pub fn dump(
    name: &str,
    parameters: &Parameters,
    to: &Path,
    private: &Path,
    ledger: &Ledger,
    purpose: Purpose,
) -> Result<DatabaseNote, BackupError> {
    let access = Access::write(parameters, private)?;
    let history = match History::of(&access, private)? {
        History::None => false,
        History::Kept => true,
        History::Lost(said) => {
            ledger.note(format!("database {name}: {said}"));
            false
        }
    };
    // An event would act on the scratch by itself, and as whoever defined it.
    let besides: &[&str] = if purpose == Purpose::Rehearsal { &["--skip-events"] } else { &[] };
    dump_by(&access, name, (to, private), ledger, besides, history)
}

fn dump_by(
    access: &Access,
    name: &str,
    (to, private): (&Path, &Path),
    ledger: &Ledger,
    besides: &[&str],
    history: bool,
) -> Result<DatabaseNote, BackupError> {
    let files =
        [0, 1, 2, 3].map(|at| to.join(format!("{name}.{at}-{}.sql", ["database", "tables", "floats", "triggers"][at])));
    let [database, tables, float_values, triggers] = &files;
    access.query(SETTING, database)?;
    let kept: &[&str] = if history { &[history::WORD] } else { &[] };
    access.dump(&[&TABLES[..], besides, kept].concat(), tables, Some(ledger))?;
    floats::write(access, float_values, private, ledger, history)?;
    access.dump(&TRIGGERS, triggers, Some(ledger))?;
    Ok(DatabaseNote {
        name: name.to_owned(),
        engine: "mariadb".to_owned(),
        files: files.iter().map(|file| dump_file(file)).collect::<Result<_, _>>()?,
        written_by: version(DUMP).unwrap_or_default(),
        owner: None,
        extensions: Vec::new(),
        history,
    })
}

/// About how many bytes a dump takes: what the tables do, without their indexes.
pub fn size(parameters: &Parameters, private: &Path) -> Result<u64, BackupError> {
    let said = private.join("size.out");
    Access::write(parameters, private)?.query(SIZE, &said)?;
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        BackupError::failed("cannot read the size of a database", error)
    };
    let text = fs::read_to_string(&said).map_err(|error| failed(error.into()))?;
    text.trim().parse().map_err(|error: std::num::ParseIntError| failed(error.into()))
}

/// Fills a database that is empty, as whoever may write what a dump has of definers. `live` must not be named in it.
pub fn fill(
    note: &DatabaseNote,
    from: &Path,
    parameters: &Parameters,
    live: &str,
    private: &Path,
) -> Result<(), BackupError> {
    let access = Access::write(parameters, private)?;
    access.fill(note, from, &access.database.clone(), private)?;
    let named = private.join("named");
    let live = live.replace('\\', "\\\\").replace('\'', "''").replace(['%', '_'], "_");
    access.query(&NAMING.replace("@LIVE@", &live), &named)?;
    let found =
        fs::read_to_string(&named).map_err(|error| BackupError::failed("cannot read what a query gave", error))?;
    match found.lines().next() {
        None => Ok(()),
        Some(first) => {
            Err(BackupError::new(format!("{first} names the live database, and would reach it from a scratch"))
                .hint("a definition that names its own database cannot be rehearsed in this version"))
        }
    }
}

/// Definitions that may name the live database.
const NAMING: &str = "SELECT CONCAT('the view ', TABLE_NAME) FROM information_schema.VIEWS WHERE TABLE_SCHEMA = DATABASE() AND VIEW_DEFINITION LIKE '%`@LIVE@`.%' UNION ALL \
     SELECT CONCAT('the routine ', ROUTINE_NAME) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE() AND ROUTINE_DEFINITION LIKE '%@LIVE@%.%' UNION ALL \
     SELECT CONCAT('the trigger ', TRIGGER_NAME) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE() AND ACTION_STATEMENT LIKE '%@LIVE@%.%'";
/// Tables that the tool keeps.
const OWN: &str =
    "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME LIKE 'backout%'";
const SIZE: &str = "SELECT CAST(COALESCE(SUM(DATA_LENGTH), 0) AS UNSIGNED) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()";
const COUNT: &str = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()";

pub fn clear(parameters: &Parameters, private: &Path) -> Result<(), BackupError> {
    let access = Access::write(parameters, private)?;
    let clear = private.join("clear.sql");
    access.query(CLEAR, &clear)?;
    access.run(&clear, private)
}

pub fn is_empty(parameters: &Parameters, private: &Path) -> Result<bool, BackupError> {
    let count = private.join("count");
    Access::write(parameters, private)?.query(COUNT, &count)?;
    let count =
        fs::read_to_string(&count).map_err(|error| BackupError::failed("cannot read what a query gave", error))?;
    Ok(count.trim() == "0")
}

/// Makes a database, and an account that has rights on it alone.
pub fn make(
    parameters: &Parameters,
    beside: &Beside,
    password: &str,
    private: &Path,
) -> Result<Parameters, BackupError> {
    let Beside { database, account, .. } = beside;
    let mut sql = format!("CREATE DATABASE `{database}`;\n");
    // As the server keeps it: neither this script nor a log of the server's holds the password itself.
    let twice = Sha1::digest(Sha1::digest(password));
    let verifier: String = twice.iter().map(|byte| format!("{byte:02X}")).collect();
    for host in HOSTS {
        // In a grant `_` stands for any letter.
        let pattern = database.replace('_', "\\_");
        sql.push_str(&format!("CREATE USER '{account}'@'{host}' IDENTIFIED BY PASSWORD '*{verifier}';\n"));
        sql.push_str(&format!("GRANT ALL ON `{pattern}`.* TO '{account}'@'{host}';\n"));
    }
    Access::write(parameters, private)?.run(&script(private, &sql)?, private)?;
    let mut there = parameters.clone();
    for (name, value) in [("dbname", database), ("user", account), ("password", &password.to_owned())] {
        there.insert(name.to_owned(), value.clone());
    }
    Ok(there)
}

/// By a socket one comes from `localhost`, whatever else there is of that name.
const HOSTS: [&str; 2] = ["localhost", "%"];

pub fn unmake(parameters: &Parameters, beside: &Beside, private: &Path) -> Result<(), BackupError> {
    let Beside { database, account, .. } = beside;
    let mut sql = format!("DROP DATABASE IF EXISTS `{database}`;\n");
    HOSTS.iter().for_each(|host| sql.push_str(&format!("DROP USER IF EXISTS '{account}'@'{host}';\n")));
    Access::write(parameters, private)?.run(&script(private, &sql)?, private)
}

/// Everything but what the tool keeps, with rows in no order.
pub fn print(parameters: &Parameters, to: &Path, private: &Path) -> Result<(), BackupError> {
    let access = Access::write(parameters, private)?;
    let failed = |error| BackupError::failed(format!("cannot write {}", to.display()), error);
    let (own, dump) = (private.join("own"), private.join("print.sql"));
    access.query(OWN, &own)?;
    let own = fs::read_to_string(&own).map_err(failed)?;
    let mut words: Vec<String> =
        own.lines().map(|table| format!("--ignore-table={}.{table}", access.database)).collect();
    words.extend(["--routines", "--triggers", "--hex-blob", "--skip-extended-insert"].map(str::to_owned));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    access.dump(&words, &dump, None)?;
    let float_values = private.join("floats.sql");
    floats::write(&access, &float_values, private, &Ledger::default(), false)?;
    let mut out = fs::File::create(to).map(std::io::BufWriter::new).map_err(failed)?;
    let mut kind = |line: &[u8]| match line.strip_prefix(b"INSERT INTO ") {
        Some(rest) => {
            let table = rest.windows(2).position(|two| two == b"` ").map_or(rest, |at| &rest[..=at]);
            Line::Among([b"the rows of ", table].concat())
        }
        None => Line::Plain,
    };
    evened::copy(&dump, &mut out, &mut kind).map_err(failed)?;
    let mut kind = |line: &[u8]| match line {
        line if line.starts_with(b"UPDATE `backout") => Line::Nothing,
        _ => Line::Among(b"FLOATs".to_vec()),
    };
    evened::copy(&float_values, &mut out, &mut kind).and_then(|()| out.flush()).map_err(failed)
}

/// Not all or nothing: MariaDB commits each change of the schema. What is interrupted is begun anew from the start.
pub fn load(note: &DatabaseNote, from: &Path, parameters: &Parameters, private: &Path) -> Result<(), BackupError> {
    check_files(note, from)?;
    clear(parameters, private)?;
    let access = Access::write(parameters, private)?;
    for file in &note.files {
        access.run(&from.join(&file.name), private)?;
    }
    Ok(())
}

pub fn prove(note: &DatabaseNote, from: &Path, parameters: &Parameters, scratch: &Path) -> Result<Proven, BackupError> {
    let live = Access::write(parameters, scratch)?;
    let name = scratch_name();
    if let Err(error) = live.query(&format!("CREATE DATABASE {name}"), &scratch.join("out")) {
        return Ok(Proven::NotTried(error));
    }
    let inner = scratch.join("proof");
    let proven = fs::create_dir_all(&inner)
        .map_err(|error| BackupError::failed("cannot make a directory", error))
        .and_then(|()| differences(note, from, parameters, &name, &inner));
    let gone = live.query(&format!("DROP DATABASE {name}"), &scratch.join("out"));
    let proven = proven?;
    gone?;
    Ok(Proven::Compared(proven))
}

fn differences(
    note: &DatabaseNote,
    from: &Path,
    parameters: &Parameters,
    name: &str,
    inner: &Path,
) -> Result<Vec<String>, BackupError> {
    let mut there = parameters.clone();
    there.insert("dbname".to_owned(), name.to_owned());
    let access = Access::write(&there, inner)?;
    access.fill(note, from, name, inner)?;
    let again = inner.join("again");
    fs::create_dir_all(&again).map_err(|error| BackupError::failed("cannot make a directory", error))?;
    let dumped = dump_by(&access, &note.name, (&again, inner), &Ledger::default(), &[], note.history)?;
    let mut found = Vec::new();
    for file in &dumped.files {
        let different = first_difference(&from.join(&file.name), &again.join(&file.name), &|line| {
            Some(if line.starts_with(BY_NAME) { BY_NAME.to_vec() } else { line.to_owned() })
        })?;
        found.extend(different.map(|line| format!("{}, dumped again, differs: {line}", file.name)));
    }
    Ok(found)
}

const BY_NAME: &[u8] = b"ALTER DATABASE `";

fn renamed(from: &Path, to: &Path, name: &str) -> Result<(), BackupError> {
    use std::io::{BufRead, BufReader, BufWriter};
    let failed = |error| BackupError::failed(format!("cannot copy {}", from.display()), error);
    let mut file = BufReader::new(fs::File::open(from).map_err(failed)?);
    let mut out = BufWriter::new(fs::File::create(to).map_err(failed)?);
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line).map_err(failed)? > 0 {
        match line
            .strip_prefix(BY_NAME)
            .and_then(|rest| rest.windows(2).position(|two| two == b"` ").map(|at| &rest[at..]))
        {
            Some(rest) => {
                out.write_all(BY_NAME).and_then(|()| out.write_all(name.as_bytes())).and_then(|()| out.write_all(rest))
            }
            None => out.write_all(&line),
        }
        .map_err(failed)?;
        line.clear();
    }
    out.flush().map_err(failed)
}

pub fn bars(parameters: &Parameters, files: &[PathBuf], private: &Path) -> Result<Vec<String>, BackupError> {
    definers::bars(&Access::write(parameters, private)?, files, private)
}

/// What stands in the way of a dump, and of bringing it back.
pub fn examine(parameters: &Parameters, private: &Path) -> Result<(Vec<String>, Vec<String>), BackupError> {
    let missing = [DUMP, CLIENT].into_iter().filter(|tool| version(tool).is_none());
    let found: Vec<String> = missing.map(|tool| format!("{tool} is not there: no backup can be taken")).collect();
    if !found.is_empty() {
        return Ok((found, Vec::new()));
    }
    let access = Access::write(parameters, private)?;
    let definitions = private.join("definitions.sql");
    access.dump(&DEFINITIONS, &definitions, None)?;
    Ok((found, definers::bars(&access, &[definitions], private)?))
}

/// How the client tools reach a database: by an option file that only its owner can read, and by a password that is in no file.
pub struct Access {
    file: PathBuf,
    database: String,
    password: Option<String>,
}

impl Access {
    fn write(parameters: &Parameters, private: &Path) -> Result<Self, BackupError> {
        let database = parameters.get("dbname").cloned().unwrap_or_default();
        let file = private.join(format!("{database}.cnf").replace('/', "_"));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&file)
            .and_then(|mut out| out.write_all(options(parameters).as_bytes()));
        written.map_err(|error| BackupError::failed(format!("cannot write {}", file.display()), error))?;
        Ok(Self { file, database, password: parameters.get("password").cloned() })
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        self.password.iter().map(|password| ("MYSQL_PWD", password.into())).collect()
    }

    fn words(&self) -> Vec<OsString> {
        let mut first = OsString::from("--defaults-file=");
        first.push(&self.file);
        vec![first]
    }

    fn dump(&self, what: &[&str], output: &Path, ledger: Option<&Ledger>) -> Result<(), BackupError> {
        let mut words = self.words();
        words.extend(WORDS.iter().chain(what).map(OsString::from));
        words.push(self.database.clone().into());
        Tool { name: DUMP, words, environment: self.environment(), input: None, output }.run(ledger)?;
        is_finished(DUMP, output, &ENDS)
    }

    /// Writes what a query gives, a row a line as it is.
    pub fn query(&self, sql: &str, output: &Path) -> Result<(), BackupError> {
        let mut words = self.words();
        let all =
            ["--default-character-set=utf8mb4", "--batch", "--skip-column-names", "--raw", "--quick", "--execute", sql];
        words.extend(all.iter().map(OsString::from));
        words.push(self.database.clone().into());
        Tool { name: CLIENT, words, environment: self.environment(), input: None, output }.run(None)
    }

    /// Fills the empty database `name` with the files in `from`.
    fn fill(&self, note: &DatabaseNote, from: &Path, name: &str, private: &Path) -> Result<(), BackupError> {
        for file in &note.files {
            // A dump sets the character set of its database by name for some routines: that must not reach the live one.
            let copy = private.join("loaded.sql");
            renamed(&from.join(&file.name), &copy, name)?;
            self.run(&copy, private)?;
        }
        Ok(())
    }

    /// From a file: a client that outlives this process must not take the end of a pipe for the end of the script.
    fn run(&self, script: &Path, private: &Path) -> Result<(), BackupError> {
        let mut words = self.words();
        words.extend(["--default-character-set=utf8mb4", "--batch"].map(OsString::from));
        words.push(self.database.clone().into());
        let output = private.join("client.out");
        Tool { name: CLIENT, words, environment: self.environment(), input: Some(script), output: &output }.run(None)
    }
}

/// The option file.
fn options(parameters: &Parameters) -> String {
    let mut text = "[client]\n".to_owned();
    let mut put = |name: &str, value: &str| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\r', "\\r");
        text.push_str(&format!("{name} = \"{value}\"\n"));
    };
    for (name, value) in parameters {
        match name.as_str() {
            "user" | "host" | "port" | "socket" | "ssl-ca" | "ssl-cert" | "ssl-key" | "connect-timeout" => {
                put(name, value);
            }
            "ssl-mode" => match value.to_ascii_lowercase().as_str() {
                "disabled" => put("skip-ssl", "1"),
                "verify-identity" => put("ssl-verify-server-cert", "1"),
                _ => put("ssl", "1"),
            },
            _ => {}
        }
    }
    // By a port it is meant to go over the network, also to this machine.
    if parameters.contains_key("port") {
        put("protocol", "tcp");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_file_holds_any_value_and_no_password() {
        let parameters = [("user", "a\"b\\c #d"), ("password", "secret"), ("dbname", "x"), ("port", "1")];
        let text = options(&parameters.map(|(n, v)| (n.to_owned(), v.to_owned())).into());
        assert_eq!(text, "[client]\nport = \"1\"\nuser = \"a\\\"b\\\\c #d\"\nprotocol = \"tcp\"\n");
    }

    #[test]
    fn a_dump_that_names_its_database_is_loaded_into_another() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("a"), temp.path().join("b"));
        fs::write(&from, "ALTER DATABASE `live` CHARACTER SET x;\nSELECT 'ALTER DATABASE `live` ';\n").unwrap();
        renamed(&from, &to, "scratch").unwrap();
        let text = fs::read_to_string(&to).unwrap();
        assert_eq!(text, "ALTER DATABASE `scratch` CHARACTER SET x;\nSELECT 'ALTER DATABASE `live` ';\n");
    }
}
