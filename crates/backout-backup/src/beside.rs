//! A database of its own on the server of another, under an account that has rights on nothing else: for a rehearsal.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use backout_model::backup::BackupError;
use serde::{Deserialize, Serialize};

use crate::dump::{DatabaseSource, Engine, mariadb, postgres};
use crate::keeper::Purpose;

/// What is made on the server. Written down before it is, so that whoever comes later can remove it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// The live database, as `site.yaml` has it.
    pub of: String,
    /// The database's own name on the server; lowercase letters, digits and `_`.
    pub database: String,
    /// The account's name, of the same letters.
    pub account: String,
}

impl DatabaseSource {
    /// Makes it, empty. Returns how to reach it: parameters as those of [`Engine`]; none where there is no server.
    pub fn make_beside(
        &self,
        beside: &Beside,
        password: &str,
        private: &Path,
    ) -> Result<Option<BTreeMap<String, String>>, BackupError> {
        let failed = |error: BackupError| {
            let what = format!("{}: no scratch can be made on its server: {}", self.label(), error.what);
            BackupError { what, ..error }.hint(
                "the account needs the right to make databases and accounts; or name an empty database under `scratch:` in site.yaml",
            )
        };
        let made = match &self.engine {
            Engine::Sqlite { .. } => return Ok(None),
            Engine::Postgres { parameters } => postgres::make(parameters, beside, password, private),
            Engine::Mariadb { parameters } => mariadb::make(parameters, beside, password, private),
        };
        made.map(Some).map_err(failed)
    }

    /// Removes it, as far as it is there.
    pub fn remove_beside(&self, beside: &Beside, private: &Path) -> Result<(), BackupError> {
        let failed = |error: BackupError| BackupError { what: format!("{}: {}", self.label(), error.what), ..error };
        match &self.engine {
            Engine::Sqlite { .. } => Ok(()),
            Engine::Postgres { parameters } => postgres::unmake(parameters, beside, private),
            Engine::Mariadb { parameters } => mariadb::unmake(parameters, beside, private),
        }
        .map_err(failed)
    }

    /// As whom, and in which database, a scratch is filled that was made beside this one. `purpose`: that of the backup which
    /// goes into it.
    pub fn filling(&self, beside: &Beside, there: &DatabaseSource, purpose: Purpose) -> DatabaseSource {
        let named = |parameters: &BTreeMap<String, String>| {
            let mut parameters = parameters.clone();
            parameters.insert("dbname".to_owned(), beside.database.clone());
            parameters
        };
        let engine = match &self.engine {
            // What a dump has of definers, and of owners where it was not taken without, only the live account may write.
            Engine::Mariadb { parameters } => Engine::Mariadb { parameters: named(parameters) },
            Engine::Postgres { parameters } if purpose == Purpose::Backup => {
                Engine::Postgres { parameters: named(parameters) }
            }
            Engine::Sqlite { .. } | Engine::Postgres { .. } => return there.clone(),
        };
        DatabaseSource { name: self.name.clone(), engine }
    }

    /// True where a database that the operator named for scratches holds nothing.
    pub fn is_empty(&self, private: &Path) -> Result<bool, BackupError> {
        match &self.engine {
            Engine::Sqlite { .. } => Ok(true),
            Engine::Postgres { parameters } => postgres::is_empty(parameters, private),
            Engine::Mariadb { parameters } => mariadb::is_empty(parameters, private),
        }
    }

    /// Removes all that it holds.
    pub fn clear(&self, private: &Path) -> Result<(), BackupError> {
        match &self.engine {
            Engine::Sqlite { .. } => Ok(()),
            Engine::Postgres { parameters } => postgres::clear(parameters, private),
            Engine::Mariadb { parameters } => mariadb::clear(parameters, private),
        }
    }

    /// The name of its database on the server.
    pub(crate) fn place(&self) -> Option<&str> {
        match &self.engine {
            Engine::Sqlite { .. } => None,
            Engine::Postgres { parameters } | Engine::Mariadb { parameters } => {
                parameters.get("dbname").map(String::as_str)
            }
        }
    }
}

/// Writes SQL that may hold a password where only its owner reads it.
pub fn script(private: &Path, sql: &str) -> Result<std::path::PathBuf, BackupError> {
    let file = private.join("script.sql");
    fs::write(&file, sql).map_err(|error| BackupError::failed(format!("cannot write {}", file.display()), error))?;
    Ok(file)
}
