//! Random histories against a simple model: nested packages × schemas × rows × files × faults × an application that
//! writes meanwhile × deploy, undo, redo, retry, resume. The model foresees contents, conflicts and exit statuses.
//!
//! Which ones, and how to play others: `backout_testkit::seeds`.

mod application;
mod compare;
mod dialect;
mod generate;
mod history;
mod index;
mod live;
mod noise;
mod play;
mod shared;
mod statement;
mod world;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use backout_testkit::mariadb;
use backout_testkit::postgres::{self, Setup};
use backout_testkit::seeds::seeds;
use backout_testkit::site::memory;
use rusqlite::Connection;

use dialect::Dialect;
use live::stored;
use play::{Server, Setting};
use world::{Column, Form, Table, Type, World};

#[test]
fn ten_thousand_histories() {
    histories(10_000, false, None);
}

#[test]
fn three_hundred_histories_with_real_syncs() {
    histories(300, true, None);
}

/// Other sessions write and lock rows all the while. A database a history, on a server of the run's own.
#[test]
fn three_hundred_histories_on_postgres() {
    let settings = vec![("max_connections", "100".to_owned()), ("synchronous_commit", "off".to_owned())];
    let server = postgres::Server::with(&Setup { settings, ..Setup::default() });
    histories(300, false, Some(Server::Postgres(Box::leak(Box::new(server)))));
}

/// Likewise.
#[test]
fn three_hundred_histories_on_mariadb() {
    histories(300, false, Some(Server::Mariadb(Box::leak(Box::new(mariadb::Server::fresh())))));
}

fn histories(usual: u64, syncs: bool, server: Option<Server>) {
    let seeds = seeds(usual);
    let below = if syncs { None } else { memory().map(PathBuf::from) };
    println!("syncs {}", if syncs { "issued" } else { "counted only" });
    let sample = if server.is_some() { None } else { sample() };
    let setting = Setting { below, syncs, sample, server, noise: Arc::default() };
    let next = AtomicU64::new(seeds.start);
    let failures = Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || failures.lock().unwrap().len() >= 3 {
                return;
            }
            let came = std::panic::catch_unwind(AssertUnwindSafe(|| play::run(seed, &setting)));
            if let Err(what) = came.unwrap_or_else(|_| Err("it panicked, see above".to_owned())) {
                failures.lock().unwrap().push(format!("again: BACKOUT_SEED={seed}\n{what}"));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let failures = failures.into_inner().unwrap();
    if server.is_some() {
        println!("meanwhile, by others: {:?}", setting.noise.lock().unwrap());
    }
    assert!(failures.is_empty(), "{} histories failed:\n{}", failures.len(), failures.join("\n\n"));
}

/// The chinook sample and what the model knows of it: tables with one integer key, their text columns to be written.
fn sample() -> Option<Arc<(Vec<u8>, World)>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/chinook.sqlite.gz");
    let path = std::env::var_os("BACKOUT_CHINOOK").map_or(beside, PathBuf::from);
    if !path.exists() {
        eprintln!("NOT PLAYED on chinook: {} is not there (set BACKOUT_CHINOOK)", path.display());
        return None;
    }
    let output = std::process::Command::new("gzip").arg("-dc").arg(&path).output().unwrap();
    assert!(output.status.success());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &output.stdout).unwrap();
    let conn = Connection::open(file.path()).unwrap();
    let mut world = World::default();
    let tables = ["Artist", "Album", "Genre", "MediaType", "Playlist", "Employee", "Customer"];
    for name in tables {
        world.tables.insert(name.to_owned(), known(&conn, name, &tables));
    }
    Some(Arc::new((output.stdout, world)))
}

fn known(conn: &Connection, name: &str, tables: &[&str]) -> Table {
    let mut links = conn.prepare("SELECT \"from\", \"table\" FROM pragma_foreign_key_list(?1)").unwrap();
    let links: BTreeMap<String, String> = links
        .query_map([name], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .filter(|(_, parent): &(String, String)| tables.contains(&parent.as_str()))
        .collect();
    let key = format!("{name}Id");
    let mut info = conn.prepare("SELECT name, type, \"notnull\" FROM pragma_table_info(?1) ORDER BY cid").unwrap();
    let columns: Vec<Column> = info
        .query_map([name], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?)))
        .unwrap()
        .map(Result::unwrap)
        .filter(|(column, _, _)| *column != key)
        .map(|(name, kind, not_null)| Column {
            name,
            kind: Type::Text,
            default: None,
            not_null,
            fixed: !kind.starts_with("NVARCHAR"),
            unique: false,
            references: None,
        })
        .map(|column| Column { references: links.get(&column.name).cloned(), ..column })
        .collect();
    let list: Vec<&str> =
        std::iter::once(key.as_str()).chain(columns.iter().map(|column| column.name.as_str())).collect();
    let mut rows = BTreeMap::new();
    let mut select = conn.prepare(&format!("SELECT {} FROM {name}", list.join(", "))).unwrap();
    let mut found = select.query([]).unwrap();
    while let Some(row) = found.next().unwrap() {
        let value = |at: usize| stored(row.get_ref(at).unwrap());
        let values = columns.iter().enumerate().map(|(at, column)| (column.name.clone(), value(at + 1)));
        rows.insert(vec![value(0)], values.collect());
    }
    Table {
        name: name.to_owned(),
        form: Form::Integer,
        key: vec![key],
        strict: false,
        columns,
        rows,
        text: 0,
        dialect: Dialect::Sqlite,
        busy: false,
    }
}
