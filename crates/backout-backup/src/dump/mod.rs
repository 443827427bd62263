//! Databases as files and back, by their own tools.

mod definers;
mod evened;
mod floats;
mod history;
pub(crate) mod lines;
pub(crate) mod mariadb;
mod owners;
pub(crate) mod postgres;
mod sqlite;
mod sqlite_print;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use backout_model::backup::{BackupError, Examined, Proof};
use backout_model::target::Finding;

use crate::fetched::DAMAGED;
use crate::keeper::Purpose;
use crate::ledger::Ledger;
use crate::manifest::{DatabaseNote, DumpFile};

/// A database to be backed up.
#[derive(Clone)]
pub struct DatabaseSource {
    /// As `site.yaml` has it.
    pub name: String,
    pub engine: Engine,
}

/// Where it is. Parameters may hold a password: never shown.
#[derive(Clone)]
pub enum Engine {
    Sqlite {
        path: PathBuf,
    },
    /// Libpq's parameters by name.
    Postgres {
        parameters: BTreeMap<String, String>,
    },
    /// The options of the `mariadb` client by name, and `dbname`.
    Mariadb {
        parameters: BTreeMap<String, String>,
    },
}

impl DatabaseSource {
    pub fn label(&self) -> String {
        format!("database {}", self.name)
    }

    /// Writes the database to files in `to`. `private`: a directory for files with passwords.
    pub fn dump(
        &self,
        to: &Path,
        private: &Path,
        ledger: &Ledger,
        purpose: Purpose,
    ) -> Result<DatabaseNote, BackupError> {
        let failed = |error: BackupError| BackupError { what: format!("{}: {}", self.label(), error.what), ..error };
        match &self.engine {
            Engine::Sqlite { path } => sqlite::dump(&self.name, path, to),
            Engine::Postgres { parameters } => postgres::dump(&self.name, parameters, to, ledger, purpose),
            Engine::Mariadb { parameters } => mariadb::dump(&self.name, parameters, to, private, ledger, purpose),
        }
        .map_err(failed)
    }

    /// Replaces the database by what the files in `from` hold.
    pub fn load(&self, note: &DatabaseNote, from: &Path, private: &Path) -> Result<(), BackupError> {
        let failed = |error: BackupError| BackupError { what: format!("{}: {}", self.label(), error.what), ..error };
        if note.engine != self.engine.name() {
            let what = format!("the backup is of {}, and site.yaml says {}", note.engine, self.engine.name());
            return Err(failed(BackupError::new(what)));
        }
        match &self.engine {
            Engine::Sqlite { path } => sqlite::load(note, from, path),
            Engine::Postgres { parameters } => postgres::load(note, from, parameters),
            Engine::Mariadb { parameters } => mariadb::load(note, from, parameters, private),
        }
        .map_err(failed)
    }

    /// Loads the files in `from` into a scratch database, writes that to files again and compares. The scratch is gone
    /// afterwards.
    pub fn prove(&self, note: &DatabaseNote, from: &Path, scratch: &Path) -> Proof {
        let finding = |what: String| Finding { target: self.label(), what, grave: true };
        // What may not be loaded here may not be loaded into a scratch either.
        let proven = check_files(note, from).and_then(|()| self.bars(note, from, scratch)).and_then(|bars| {
            if !bars.is_empty() {
                return Ok(Proven::Compared(bars.iter().map(|bar| self.barred(bar)).collect()));
            }
            match &self.engine {
                Engine::Sqlite { .. } => sqlite::prove(note, from, scratch).map(Proven::Compared),
                Engine::Postgres { parameters } => postgres::prove(note, from, parameters, scratch),
                Engine::Mariadb { parameters } => mariadb::prove(note, from, parameters, scratch),
            }
        });
        match proven {
            Ok(Proven::Compared(found)) => {
                Proof { findings: found.into_iter().map(finding).collect(), ..Proof::default() }
            }
            Ok(Proven::NotTried(error)) => {
                let what = format!("could not be checked: no scratch database can be made: {}", told(&error));
                Proof { unchecked: vec![Finding { grave: false, ..finding(what) }], ..Proof::default() }
            }
            Err(error) => {
                let hint = error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                Proof { findings: vec![finding(format!("{}{hint}", told(&error)))], ..Proof::default() }
            }
        }
    }

    /// Fills an empty scratch of the database `live` with what the files in `from` hold.
    pub fn fill(&self, note: &DatabaseNote, from: &Path, live: &str, private: &Path) -> Result<(), BackupError> {
        let failed = |error: BackupError| BackupError { what: format!("{}: {}", self.label(), error.what), ..error };
        match &self.engine {
            Engine::Sqlite { path } => sqlite::load(note, from, path),
            Engine::Postgres { parameters } => postgres::fill(note, from, parameters),
            Engine::Mariadb { parameters } => mariadb::fill(note, from, parameters, live, private),
        }
        .map_err(failed)
    }

    /// Writes all that it says to a file, but for what the tool keeps in it.
    pub fn print(&self, to: &Path, private: &Path) -> Result<(), BackupError> {
        let failed = |error: BackupError| BackupError { what: format!("{}: {}", self.label(), error.what), ..error };
        match &self.engine {
            Engine::Sqlite { path } => sqlite_print::print(path, to),
            Engine::Postgres { parameters } => postgres::print(parameters, to, private),
            Engine::Mariadb { parameters } => mariadb::print(parameters, to, private),
        }
        .map_err(failed)
    }

    /// What stands in the way of loading the files in `from` as this account, a sentence each.
    pub fn bars(&self, note: &DatabaseNote, from: &Path, private: &Path) -> Result<Vec<String>, BackupError> {
        let files: Vec<PathBuf> = note.files.iter().map(|file| from.join(&file.name)).collect();
        match &self.engine {
            Engine::Sqlite { .. } => Ok(Vec::new()),
            Engine::Postgres { parameters } => postgres::bars(parameters, &files, private),
            Engine::Mariadb { parameters } => mariadb::bars(parameters, &files, private),
        }
        .map_err(|error: BackupError| BackupError { what: format!("{}: {}", self.label(), error.what), ..error })
    }

    /// An error where something stands in the way of loading.
    pub fn is_loadable(&self, note: &DatabaseNote, from: &Path, private: &Path) -> Result<(), BackupError> {
        let bars = self.bars(note, from, private)?;
        if bars.is_empty() {
            return Ok(());
        }
        let what = format!("{}: its account may not bring back what the backup holds", self.label());
        Err(BackupError::failed(what, bars.join("; ")).hint(self.engine.way_out()))
    }

    /// What would stand in the way of a dump, and of bringing it back. Reads no rows. `private`: a directory for files.
    pub fn examine(&self, private: &Path) -> Examined {
        let examined = match &self.engine {
            Engine::Sqlite { .. } => return Examined::default(),
            Engine::Postgres { parameters } => postgres::examine(parameters, private),
            Engine::Mariadb { parameters } => mariadb::examine(parameters, private),
        };
        let finding = |what: String, grave: bool| Finding { target: self.label(), what, grave };
        match examined {
            Ok((found, bars)) => Examined {
                findings: found.into_iter().map(|what| finding(what, true)).collect(),
                lacking: bars.into_iter().map(|bar| finding(self.barred(&bar), false)).collect(),
            },
            Err(error) => {
                let hint = error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                let what = format!("no backup can be taken: {}{hint}", told(&error));
                Examined { findings: vec![finding(what, true)], lacking: Vec::new() }
            }
        }
    }

    /// What is said beforehand of what a restore will be refused for.
    pub fn barred(&self, bar: &str) -> String {
        format!(
            "a restore would be refused, as its account may not bring back all of it: {bar}; {}",
            self.engine.way_out()
        )
    }
}

impl Engine {
    /// What helps where the account may not load a dump.
    fn way_out(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "",
            Self::Postgres { .. } => owners::WAY_OUT,
            Self::Mariadb { .. } => definers::WAY_OUT,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Postgres { .. } => "postgres",
            Self::Mariadb { .. } => "mariadb",
        }
    }
}

/// An error and what caused it, in one line.
pub fn told(error: &BackupError) -> String {
    let mut text = error.what.clone();
    let mut next = error.source.as_deref().map(|source| source as &dyn std::error::Error);
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    text
}

/// The first of many, and how many more there are.
fn listed(things: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = things.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if things.len() > SHOWN {
        text.push_str(&format!(" and {} more", things.len() - SHOWN));
    }
    text
}

/// An error where a dump does not end as its tool ends one: what it was cut off at is not for an exit status alone to say.
fn is_finished(tool: &str, dump: &Path, ends: &[&str]) -> Result<(), BackupError> {
    const TAIL: u64 = 4096;
    let failed = |error| BackupError::failed(format!("cannot read {}", dump.display()), error);
    let mut file = File::open(dump).map_err(failed)?;
    let from = file.metadata().map_err(failed)?.len().saturating_sub(TAIL);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_end(&mut tail)).map_err(failed)?;
    let tail = String::from_utf8_lossy(&tail);
    if tail.lines().any(|line| ends.iter().any(|end| line.contains(end))) {
        return Ok(());
    }
    Err(BackupError::new(format!("{tool} said that it was done, and what it wrote is not a whole dump"))
        .hint(format!("try again; where that fails, look at what `{tool}` is on this machine")))
}

/// What the manifest says of a file.
fn dump_file(file: &Path) -> Result<DumpFile, BackupError> {
    let (size, blake3) = digest(file)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(DumpFile { name, size, blake3 })
}

/// What a scratch of a database tells of its dump.
pub enum Proven {
    /// The differences.
    Compared(Vec<String>),
    /// There can be no scratch, for this reason.
    NotTried(BackupError),
}

/// The scratch database of this process on a server.
fn scratch_name() -> String {
    format!("backout_verify_{}", std::process::id())
}

/// An error where the files in `from` are not those of the manifest.
pub fn check_files(note: &DatabaseNote, from: &Path) -> Result<(), BackupError> {
    for file in &note.files {
        let (size, blake3) = digest(&from.join(&file.name))?;
        if size != file.size || blake3 != file.blake3 {
            return Err(BackupError::new(format!(
                "database {}: {} in the backup is not what was written to it",
                note.name, file.name
            ))
            .hint(DAMAGED));
        }
    }
    Ok(())
}

fn digest(path: &Path) -> Result<(u64, String), BackupError> {
    let failed = |error| BackupError::failed(format!("cannot read {}", path.display()), error);
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    let mut size = 0;
    loop {
        let length = file.read(&mut buffer).map_err(failed)?;
        if length == 0 {
            return Ok((size, hasher.finalize().to_hex().to_string()));
        }
        hasher.write_all(&buffer[..length]).map_err(failed)?;
        size += length as u64;
    }
}
