//! SQLite: by its backup API, which copies every page in one read transaction and puts them back in one write transaction.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backout_model::backup::BackupError;
use backout_model::fault::{self, Point};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{check_files, dump_file};
use crate::manifest::{DatabaseNote, Owner};

/// How long to wait for others' transactions.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn dump(name: &str, path: &Path, to: &Path) -> Result<DatabaseNote, BackupError> {
    let copy = to.join(format!("{name}.sqlite"));
    let failed = |error| BackupError::failed(format!("cannot copy {}", path.display()), error);
    let from = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    let mut into = Connection::open(&copy).map_err(failed)?;
    // A copy that a crash cuts short is thrown away.
    into.pragma_update(None, "synchronous", "OFF").map_err(failed)?;
    all(&from, &mut into).map_err(failed)?;
    into.close().map_err(|(_, error)| failed(error))?;
    let meta =
        fs::metadata(path).map_err(|error| BackupError::failed(format!("cannot read {}", path.display()), error))?;
    Ok(DatabaseNote {
        name: name.to_owned(),
        engine: "sqlite".to_owned(),
        files: vec![dump_file(&copy)?],
        written_by: format!("SQLite {}", rusqlite::version()),
        owner: Some(Owner { mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid() }),
        extensions: Vec::new(),
        history: false,
    })
}

/// Whoever has the database open sees it as it was, or as the backup has it.
pub fn load(note: &DatabaseNote, from: &Path, path: &Path) -> Result<(), BackupError> {
    check_files(note, from)?;
    let Some(file) = note.files.first() else { return Err(BackupError::new("the backup has no file of it")) };
    let copy = from.join(&file.name);
    let failed = |error| BackupError::failed(format!("cannot restore {}", path.display()), error);
    if !path.exists() {
        return replace(note, &copy, path);
    }
    let source = open(&copy, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    point(Point::Statement, path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let done = open(path, flags).and_then(|mut into| {
        all(&source, &mut into)?;
        into.close().map_err(|(_, error)| error)
    });
    match done {
        // Not a database any more: nobody can have a use for it.
        Err(error)
            if matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)) =>
        {
            replace(note, &copy, path)
        }
        other => other.map_err(failed),
    }
}

/// Puts a new file in the place of one that is missing or no database, with the mode and owner that the old one had.
fn replace(note: &DatabaseNote, copy: &Path, path: &Path) -> Result<(), BackupError> {
    let failed = |error: io::Error| BackupError::failed(format!("cannot restore {}", path.display()), error);
    let beside = beside(path);
    let made = write(note, copy, &beside).and_then(|()| {
        for end in ["-wal", "-shm", "-journal"] {
            let mut other = path.as_os_str().to_owned();
            other.push(end);
            gone(fs::remove_file(other))?;
        }
        fault::point(Point::Rename)?;
        fs::rename(&beside, path)?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    });
    made.map_err(|error| {
        let cleared = gone(fs::remove_file(&beside));
        failed(cleared.err().unwrap_or(error))
    })
}

fn write(note: &DatabaseNote, copy: &Path, to: &Path) -> io::Result<()> {
    gone(fs::remove_file(to))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut File::open(copy)?, &mut file)?;
    if let Some(owner) = note.owner {
        let meta = file.metadata()?;
        if (meta.uid(), meta.gid()) != (owner.uid, owner.gid) {
            chown(to, Some(owner.uid), Some(owner.gid))?;
        }
        file.set_permissions(fs::Permissions::from_mode(owner.mode))?;
    }
    file.sync_all()
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".backout-restore");
    path.with_file_name(name)
}

/// Reads the file through: the bytes that were written, and a database that SQLite finds nothing wrong with.
pub fn prove(note: &DatabaseNote, from: &Path, scratch: &Path) -> Result<Vec<String>, BackupError> {
    check_files(note, from)?;
    let path = scratch.join("proof.sqlite");
    load(note, from, &path)?;
    let failed = |error| BackupError::failed("cannot read the restored copy", error);
    let conn = open(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    let mut statement = conn.prepare("PRAGMA integrity_check").map_err(failed)?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
    let lines = lines.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut found: Vec<String> = lines.into_iter().filter(|line| line != "ok").collect();
    drop(statement);
    drop(conn);
    if !same(&path, &from.join(&note.files[0].name)).map_err(|error| BackupError::failed("cannot compare", error))? {
        found.push("the restored copy is not what was backed up".to_owned());
    }
    fs::remove_file(&path).map_err(|error| BackupError::failed("cannot remove the restored copy", error))?;
    Ok(found)
}

fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    loop {
        a.clear();
        b.clear();
        one.by_ref().take(1 << 16).read_to_end(&mut a)?;
        other.by_ref().take(1 << 16).read_to_end(&mut b)?;
        if a != b || a.is_empty() {
            return Ok(a == b);
        }
    }
}

fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(PATIENCE)?;
    Ok(conn)
}

/// Copies every page at once: with steps, each writer in between would begin the copy anew.
fn all(from: &Connection, into: &mut Connection) -> rusqlite::Result<()> {
    let backup = Backup::new(from, into)?;
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        match backup.step(-1)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            StepResult::Busy | StepResult::Locked | _ if std::time::Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            _ => {
                let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
                return Err(rusqlite::Error::SqliteFailure(busy, Some("others hold it locked".to_owned())));
            }
        }
    }
}

fn point(at: Point, path: &Path) -> Result<(), BackupError> {
    fault::point(at).map_err(|error| BackupError::failed(format!("cannot restore {}", path.display()), error))
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
