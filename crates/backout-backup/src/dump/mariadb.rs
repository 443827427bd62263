use std::collections::BTreeMap;
use std::path::Path;
use backout_model::backup::BackupError;
use crate::ledger::Ledger;
use crate::manifest::DatabaseNote;
type P = BTreeMap<String, String>;
pub fn dump(_: &str, _: &P, _: &Path, _: &Path, _: &Ledger) -> Result<DatabaseNote, BackupError> { Err(BackupError::new("later")) }
pub fn load(_: &DatabaseNote, _: &Path, _: &P, _: &Path) -> Result<(), BackupError> { Err(BackupError::new("later")) }
pub fn prove(_: &DatabaseNote, _: &Path, _: &P, _: &Path) -> Result<Vec<String>, BackupError> { Err(BackupError::new("later")) }
pub fn examine() -> Vec<String> { Vec::new() }
