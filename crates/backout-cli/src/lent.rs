//! What a scratch uses beyond its own directory, written down before it is used, so that whoever comes after a crash can give it
//! back; and the removal of scratches that nobody uses any more.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use backout_backup::{Abandoned, Beside};
use backout_engine::rehearse::end_orphan;
use backout_package::site::Site;
use serde::{Deserialize, Serialize};

use crate::error::CliError;
use crate::ui::Ui;
use crate::wiring;

/// Where scratches lie in the state directory.
pub const PLACE: &str = "rehearsals";
/// What each says of itself.
const NOTE: &str = "note.json";

/// What a scratch uses beyond its own directory.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Note {
    /// The name of the scratch site.
    pub site: String,
    /// Directories of the operator's that hold a copy of a root.
    pub roots: Vec<Lent>,
    /// What is made on the servers of live databases.
    pub made: Vec<Beside>,
    /// The databases for which `site.yaml` names a scratch.
    pub filled: Vec<String>,
}

/// A directory of the operator's.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lent {
    path: PathBuf,
    /// It was not there before.
    made: bool,
}

impl Note {
    /// Takes the directories that the operator names for copies; they must be empty.
    pub fn lend(&mut self, live: &Site) -> Result<(), CliError> {
        for (_, path) in &live.scratch.roots {
            let made = match fs::read_dir(path) {
                Ok(entries) => {
                    if entries.count() == 0 {
                        self.roots.push(Lent { path: path.clone(), made: false });
                        continue;
                    }
                    let what =
                        format!("{} is not empty, and a rehearsal would overwrite what is in it", path.display());
                    return Err(CliError::refused(what, "empty it, or name another directory under `scratch:`"));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => true,
                Err(source) => return Err(CliError::read(path, source)),
            };
            self.roots.push(Lent { path: path.clone(), made });
        }
        Ok(())
    }

    pub fn write(&self, scratch: &Path) -> Result<(), CliError> {
        let file = scratch.join(NOTE);
        let text = serde_json::to_vec(self).map_err(|error| CliError::write(&file, error.into()))?;
        fs::write(&file, text).map_err(|source| CliError::write(&file, source))
    }

    /// Empties what was lent, and removes what was not there before.
    pub fn give_back(&self, live: &Site, private: &Path) -> Result<(), CliError> {
        for beside in &self.made {
            let config = live.databases.iter().find(|config| config.name == beside.of);
            let Some(config) = config else {
                let Beside { of, database, .. } = beside;
                let what = format!("{database} was made on the server of `{of}`, which site.yaml no longer names");
                return Err(CliError::refused(what, "put it back, or drop the database and the account of that name"));
            };
            wiring::source(config).remove_beside(beside, private)?;
        }
        for name in &self.filled {
            if let Some(named) = live.scratch.databases.iter().find(|config| config.name == *name) {
                wiring::source(named).clear(private)?;
            }
        }
        self.roots.iter().try_for_each(|lent| self.empty(lent))
    }

    fn empty(&self, lent: &Lent) -> Result<(), CliError> {
        let failed = |source| CliError::io(format!("empty {}", lent.path.display()), source);
        if lent.path.exists() {
            for entry in fs::read_dir(&lent.path).map_err(failed)? {
                remove(&entry.map_err(failed)?.path()).map_err(failed)?;
            }
            if lent.made {
                fs::remove_dir(&lent.path).map_err(failed)?;
            }
        }
        // What is held for its undo lies beside it.
        let Some(beside) = lent.path.parent().filter(|_| !self.site.is_empty()) else { return Ok(()) };
        for entry in fs::read_dir(beside).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with(&format!(".backout-{}-", self.site)) {
                remove(&entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// Removes a file, or a directory with all that it holds.
pub fn remove(path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Names that nobody else has, for what is made on the server of a database.
pub fn beside(of: &str) -> Result<Beside, CliError> {
    let name = format!("backout_rehearsal_{}", &secret()?[..12]);
    Ok(Beside { of: of.to_owned(), database: name.clone(), account: name })
}

/// 32 random hex digits.
pub fn secret() -> Result<String, CliError> {
    let mut bytes = [0_u8; 16];
    let read = fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    read.map_err(|source| CliError::io("draw random bytes", source))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Removes the scratches that killed processes left; says so where there were any.
pub fn clear(site: &Site, ui: &Ui) {
    let above = site.state.join(PLACE);
    match clear_below(site, &above) {
        Ok(0) => {}
        Ok(_) => ui.note("the scratch of a rehearsal that was interrupted is removed"),
        Err(error) => ui.warning(format!("a scratch in {} stays: {}", above.display(), error.causes().join(": "))),
    }
}

fn clear_below(live: &Site, above: &Path) -> Result<usize, CliError> {
    let abandoned = Abandoned::all(above).map_err(|source| CliError::read(above, source))?;
    let count = abandoned.len();
    for one in abandoned {
        end_orphan(&one.path().join("state")).map_err(|source| CliError::io("end a command of a rehearsal", source))?;
        one.end_tools().map_err(|source| CliError::io("end a tool of a rehearsal", source))?;
        let file = one.path().join(NOTE);
        if let Ok(text) = fs::read(&file) {
            let note: Note = serde_json::from_slice(&text).map_err(|error| CliError::read(&file, error.into()))?;
            note.give_back(live, &one.path().join("private"))?;
        }
        one.remove().map_err(|source| CliError::io("remove it", source))?;
    }
    Ok(count)
}
