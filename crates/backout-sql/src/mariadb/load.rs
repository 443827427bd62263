//! `LOAD DATA LOCAL INFILE`: the rows of a file that lies beside the script, in the package.
//!
//! Never hands the server another file than the one that the statement names, whatever it asks for.

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use mysql::LocalInfileHandler;

use super::classify::{LEAVE_OUT, No};
use super::reader::{Name, Reader, reader};

/// Reads a statement past its first word: the file, as it is named, and the table.
pub fn of(mut rest: Reader<'_>) -> Result<(String, Name), No> {
    let unknown = || No::step("it is not understood", LEAVE_OUT);
    if !rest.takes("DATA") && !rest.takes("XML") {
        return Err(unknown());
    }
    for word in ["LOW_PRIORITY", "CONCURRENT"] {
        rest.takes(word);
    }
    if !rest.takes("LOCAL") {
        return Err(No::undo(
            "it reads a file of the server's: put it beside the script and write LOAD DATA LOCAL INFILE",
        ));
    }
    if !rest.takes("INFILE") {
        return Err(unknown());
    }
    let file = rest.next().ok_or_else(unknown)?.text;
    let inner = file.get(1..file.len().saturating_sub(1)).unwrap_or_default();
    if !file.starts_with(['\'', '"']) || inner.contains(['\\', '\'', '"']) {
        return Err(No::step("the name of its file is not understood", "write it plainly, in single quotes"));
    }
    for word in ["REPLACE", "IGNORE"] {
        rest.takes(word);
    }
    if !rest.takes("INTO TABLE") {
        return Err(unknown());
    }
    Ok((inner.to_owned(), rest.name().ok_or_else(unknown)?))
}

/// The file that a bare statement loads, where it loads one; `script`: that of the statement.
pub fn beside(script: &Path, sql: &str) -> Result<Option<PathBuf>, No> {
    let mut rest = reader(sql);
    if !rest.takes("LOAD") {
        return Ok(None);
    }
    let named = match of(rest) {
        Ok((named, _)) => named,
        // A file of the server's: with an undo of the user's own that is theirs to know.
        Err(no) if !no.is_always() => return Ok(None),
        Err(no) => return Err(no),
    };
    let outside = || {
        No::step(
            format!("{named} does not lie beside the script, in the package"),
            "put it there, not into the directory of a `files` step",
        )
    };
    let relative = Path::new(&named);
    if named.is_empty() || !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(outside());
    }
    let here = script.parent().unwrap_or(Path::new(".")).canonicalize().map_err(|_| outside())?;
    let file = here.join(relative).canonicalize().map_err(|_| outside())?;
    if !file.starts_with(&here) || !file.is_file() {
        return Err(outside());
    }
    Ok(Some(file))
}

/// Hands out one file.
pub fn handler(file: PathBuf) -> LocalInfileHandler {
    LocalInfileHandler::new(move |_asked, stream| {
        let mut file = File::open(&file)?;
        io::copy(&mut file, stream).map(drop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_beside_the_script_is_found_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (package, script) = (dir.path().join("p"), dir.path().join("p/a.sql"));
        std::fs::create_dir_all(package.join("data")).unwrap();
        for name in ["p/data/rows.csv", "p/a.sql", "secret"] {
            std::fs::write(dir.path().join(name), "1").unwrap();
        }
        std::os::unix::fs::symlink(dir.path().join("secret"), package.join("link")).unwrap();
        let load = |file: &str| beside(&script, &format!("LOAD DATA LOCAL INFILE {file} IGNORE INTO TABLE t (a)"));
        assert!(load("'data/rows.csv'").unwrap().unwrap().ends_with("p/data/rows.csv"));
        assert!(load("\"./data/rows.csv\"").unwrap().is_some());
        for file in ["'../secret'", "'/etc/hostname'", "'link'", "'data'", "'no'", "''", "'data\\\\rows.csv'", "x"] {
            load(file).unwrap_err();
        }
        assert!(beside(&script, "SELECT 'LOAD'").unwrap().is_none());
        assert!(beside(&script, "LOAD DATA INFILE 'a' INTO TABLE t").unwrap().is_none());
        for sql in ["LOAD INDEX INTO CACHE t", "LOAD DATA LOCAL INFILE 'a' t"] {
            beside(&script, sql).unwrap_err();
        }
    }
}
