//! A database in a temporary directory, a gate that keeps images in memory, and a dump that knows nothing of the
//! engine.

use std::io::{Cursor, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use backout_model::conflict::{Conflicts, OnConflict};
use backout_model::target::{Gate, Manner, Report, Summary, Target, TargetError, Ticket};
use backout_sql::database::{Database, Holder, Script, ScriptUndo};
use backout_sql::sqlite::{Options, Sqlite};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

/// The images of one step.
pub type Images = Vec<u8>;

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Gives tickets out in order and keeps what was written before the announcement.
pub struct TestGate {
    shared: Shared,
    ticket: Ticket,
    pub announced: Option<Summary>,
    pub refuses: bool,
}

impl TestGate {
    pub fn new(ticket: Ticket) -> Self {
        Self { shared: Shared::default(), ticket, announced: None, refuses: false }
    }

    pub fn written(&self) -> Images {
        self.shared.0.lock().unwrap().clone()
    }
}

impl Gate for TestGate {
    fn images(&mut self) -> Box<dyn Write + Send> {
        Box::new(self.shared.clone())
    }

    fn written(&mut self) -> std::io::Result<Box<dyn backout_model::target::Images>> {
        Ok(Box::new(Cursor::new(TestGate::written(self))))
    }

    fn announce(&mut self, summary: &Summary) -> Result<Ticket, TargetError> {
        assert!(self.announced.is_none(), "announced twice");
        if self.refuses {
            return Err(TargetError::failed("cannot write the journal", "the disk is full"));
        }
        self.announced = Some(summary.clone());
        Ok(self.ticket)
    }

    fn progress(&mut self, _done: u64, _of: Option<u64>) {}
}

/// One live database and the engine on it.
pub struct Stage {
    directory: tempfile::TempDir,
    pub database: Sqlite,
    pub epoch: u64,
    pub seq: u64,
}

/// This process as a holder of the lock.
pub fn me() -> Holder {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    Holder {
        site: "shop".to_owned(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned(),
        pid: std::process::id(),
        started: stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap(),
        purpose: "test".to_owned(),
        since_ms: 0,
    }
}

impl Stage {
    /// A database made by `setup`, locked.
    pub fn new(setup: &str) -> Self {
        Self::made_by(|conn| conn.execute_batch(setup).unwrap())
    }

    pub fn made_by(setup: impl FnOnce(&Connection)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let conn = Connection::open(directory.path().join("live.db")).unwrap();
        conn.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF").unwrap();
        setup(&conn);
        drop(conn);
        let mut database = open(directory.path().join("live.db"));
        let epoch = database.lock(&me(), 1).unwrap();
        Self { directory, database, epoch, seq: 0 }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("live.db")
    }

    /// A connection of the application's.
    pub fn other(&self) -> Connection {
        let conn = Connection::open(self.path()).unwrap();
        conn.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF").unwrap();
        conn
    }

    pub fn gate(&mut self) -> TestGate {
        self.seq += 1;
        TestGate::new(Ticket { seq: self.seq, epoch: self.epoch })
    }

    pub fn script(&self, sql: &str, undo: ScriptUndo) -> Script {
        let path = self.directory.path().join("script.sql");
        std::fs::write(&path, sql).unwrap();
        Script { path, shown: "sql/script.sql".to_owned(), undo }
    }

    pub fn try_apply(&mut self, sql: &str) -> Result<(Images, Report), TargetError> {
        let script = self.script(sql, ScriptUndo::Captured);
        let mut gate = self.gate();
        let report = self.database.apply(&script, &mut gate)?;
        Ok((gate.written(), report))
    }

    pub fn apply(&mut self, sql: &str) -> Images {
        match self.try_apply(sql) {
            Ok((images, _)) => images,
            Err(error) => panic!("{}", told(&error)),
        }
    }

    pub fn try_undo(&mut self, images: &Images, on_conflict: OnConflict) -> Result<Report, TargetError> {
        let mut gate = self.gate();
        let manner = Manner { on_conflict, in_doubt: false };
        self.database.undo(&mut Cursor::new(images), manner, &mut gate)
    }

    /// What an undo would meet.
    pub fn check(&mut self, images: &Images, on_conflict: OnConflict) -> Result<Report, TargetError> {
        let images = Box::new(Cursor::new(images.clone())) as Box<dyn backout_model::target::Images>;
        self.database.check_undo(&mut std::iter::once(images), on_conflict)
    }

    pub fn undo(&mut self, images: &Images) -> Report {
        self.try_undo(images, OnConflict::Stop).unwrap_or_else(|error| panic!("{}", told(&error)))
    }

    pub fn conflicts(&mut self, images: &Images) -> Conflicts {
        match self.try_undo(images, OnConflict::Stop) {
            Err(TargetError::Conflicts(conflicts)) => conflicts,
            other => panic!("no conflicts but {other:?}"),
        }
    }

    pub fn try_redo(&mut self, images: &Images, on_conflict: OnConflict) -> Result<(Images, Report), TargetError> {
        let mut gate = self.gate();
        let manner = Manner { on_conflict, in_doubt: false };
        let report = self.database.redo(&mut Cursor::new(images), manner, &mut gate)?;
        Ok((gate.written(), report))
    }

    pub fn redo(&mut self, images: &Images) -> Images {
        match self.try_redo(images, OnConflict::Stop) {
            Ok((images, _)) => images,
            Err(error) => panic!("{}", told(&error)),
        }
    }

    pub fn dump(&self) -> Vec<String> {
        dump(&self.other())
    }
}

pub fn open(path: PathBuf) -> Sqlite {
    Sqlite::open(Options { site: "shop".to_owned(), name: "main".to_owned(), path, create: false }).unwrap()
}

/// An error with its causes.
pub fn told(error: &TargetError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    if let TargetError::Conflicts(conflicts) = error {
        for conflict in &conflicts.listed {
            text = format!("{text}\n  {conflict}");
        }
    }
    text
}

fn typed(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(number) => format!("i{number}"),
        ValueRef::Real(number) => format!("r{:016x}", number.to_bits()),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => format!("t{text:?}"),
            Err(_) => format!("t{bytes:02x?}"),
        },
        ValueRef::Blob(bytes) => format!("b{bytes:02x?}"),
    }
}

/// Everything but the tool's own: the rows of sqlite_schema in order, then of each table rowid and typed values.
pub fn dump(conn: &Connection) -> Vec<String> {
    let mut lines = Vec::new();
    let mut tables = Vec::new();
    let mut statement = conn
        .prepare("SELECT type, name, tbl_name, sql, rootpage FROM sqlite_schema WHERE name NOT LIKE 'backout%' AND tbl_name NOT LIKE 'backout%' ORDER BY rowid")
        .unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (kind, name): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
        let (table, sql): (String, Option<String>) = (row.get(2).unwrap(), row.get(3).unwrap());
        lines.push(format!("{kind} {name} on {table}: {}", sql.unwrap_or_default()));
        if kind == "table" {
            tables.push(name);
        }
    }
    for pragma in ["user_version", "application_id"] {
        let value: i64 = conn.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).unwrap();
        lines.push(format!("{pragma} {value}"));
    }
    for table in tables {
        let quoted = format!("\"{}\"", table.replace('"', "\"\""));
        let wr: bool = conn.query_row(&format!("PRAGMA table_list({quoted})"), [], |row| row.get("wr")).unwrap();
        let sql =
            if wr { format!("SELECT * FROM {quoted}") } else { format!("SELECT rowid, * FROM {quoted} ORDER BY 1") };
        let mut statement = conn.prepare(&sql).unwrap();
        let count = statement.column_count();
        // A column of that name hides the rowid, and then the order is the planner's.
        let hidden = statement.column_names().skip(1).any(|name| name.eq_ignore_ascii_case("rowid"));
        let mut rows = statement.query([]).unwrap();
        let mut own = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<String> = (0..count).map(|at| typed(row.get_ref(at).unwrap())).collect();
            own.push(format!("{table}: {}", values.join(" ")));
        }
        if wr || hidden {
            own.sort();
        }
        lines.extend(own);
    }
    let check: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    lines
}

/// The chinook sample as a database file, where it is at hand.
pub fn chinook() -> Option<Vec<u8>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/chinook.sqlite.gz");
    let path = std::env::var_os("BACKOUT_CHINOOK").map_or(beside, PathBuf::from);
    if !path.exists() {
        eprintln!("NOT TESTED on chinook: {} is not there (set BACKOUT_CHINOOK)", path.display());
        return None;
    }
    let output = std::process::Command::new("gzip").arg("-dc").arg(&path).output().unwrap();
    assert!(output.status.success());
    Some(output.stdout)
}
