//! Random statements × random edits by the application in between, against a model of the merge rule that knows only
//! three states of each table: before, as the deployment left it, and now.
//!
//! Which ones, and how to play others: `backout_testkit::seeds`.

use std::collections::BTreeMap;
use std::io::Cursor;

use backout_model::conflict::OnConflict;
use backout_model::target::{Manner, Target, TargetError};
use backout_testkit::seeds::seeds;
use fastrand::Rng;
use rusqlite::Connection;

use crate::stage::{Stage, told};

/// Tables of different keys; `u` is unique where there is one, and everything else takes any value.
const TABLES: [(&str, &str, Key); 7] = [
    ("plain", "CREATE TABLE plain (k INTEGER PRIMARY KEY, a, b TEXT COLLATE NOCASE, c REAL)", Key::Shown),
    ("uniq", "CREATE TABLE uniq (k INTEGER PRIMARY KEY AUTOINCREMENT, a, b, u UNIQUE)", Key::Shown),
    ("text", "CREATE TABLE text (k TEXT PRIMARY KEY NOT NULL, a, b INT, c)", Key::Shown),
    ("wr", "CREATE TABLE wr (a, k TEXT NOT NULL, b, j INT NOT NULL, PRIMARY KEY (j, k)) WITHOUT ROWID", Key::Shown),
    ("loose", "CREATE TABLE loose (k, a, b)", Key::Hidden),
    ("gen", "CREATE TABLE gen (k INTEGER PRIMARY KEY, a, v AS (a || 'v'), s AS (a || 's') STORED, b)", Key::Shown),
    // Last: only a trigger writes to it.
    ("log", "CREATE TABLE log (k INTEGER PRIMARY KEY AUTOINCREMENT, what)", Key::Shown),
];

#[derive(Clone, Copy, PartialEq)]
pub enum Key {
    Shown,
    Hidden,
}

pub type Row = Vec<String>;
pub type Rows = BTreeMap<String, Row>;

fn value(rng: &mut Rng) -> &'static str {
    const VALUES: [&str; 12] =
        ["NULL", "0", "1", "1.0", "-0.5", "'a'", "'A'", "''", "x'61'", "x''", "'long text'", "2e40"];
    VALUES[rng.usize(..VALUES.len())]
}

fn key(rng: &mut Rng, table: &str) -> String {
    let number = rng.u32(1..14);
    match table {
        "text" | "wr" => format!("'k{number}'"),
        _ => number.to_string(),
    }
}

/// Values of unique columns: those of the application never meet the deployment's.
fn unique(rng: &mut Rng, ours: bool) -> String {
    if rng.u8(..4) == 0 {
        return "NULL".to_owned();
    }
    if ours { format!("'u{}'", rng.u32(..20)) } else { format!("'others-{}'", rng.u64(..)) }
}

fn columns(table: &str) -> &'static [&'static str] {
    match table {
        "plain" | "text" => &["a", "b", "c"],
        "uniq" => &["a", "b", "u"],
        _ => &["a", "b"],
    }
}

fn one_value(rng: &mut Rng, table: &str, column: &str, ours: bool) -> String {
    match (table, column) {
        ("uniq", "u") => unique(rng, ours),
        _ => value(rng).to_owned(),
    }
}

fn insert(rng: &mut Rng, table: &str, verb: &str, ours: bool, tail: &str) -> String {
    let key = key(rng, table);
    let (mut names, mut values) = (vec!["k"], vec![key]);
    if table == "wr" {
        names.push("j");
        values.push("1".to_owned());
    }
    for column in columns(table) {
        names.push(column);
        values.push(one_value(rng, table, column, ours));
    }
    format!("{verb} INTO {table} ({}) VALUES ({}){tail}", names.join(", "), values.join(", "))
}

fn condition(rng: &mut Rng, table: &str) -> String {
    match rng.u8(..3) {
        0 => format!("k = {}", key(rng, table)),
        1 => format!("k IN ({}, {}, {})", key(rng, table), key(rng, table), key(rng, table)),
        _ => format!("a IS {}", value(rng)),
    }
}

/// One statement of the deployment or of the application.
fn statement(rng: &mut Rng, ours: bool) -> String {
    let (table, ..) = TABLES[rng.usize(..TABLES.len() - 1)];
    let column = columns(table)[rng.usize(..columns(table).len())];
    match rng.u8(..10) {
        0 | 1 => insert(rng, table, "INSERT OR IGNORE", ours, ""),
        2 => insert(rng, table, "REPLACE", ours, ""),
        3 if table != "loose" => {
            let place = if table == "wr" { "(j, k)" } else { "(k)" };
            let tail = format!(" ON CONFLICT {place} DO UPDATE SET a = excluded.a, b = 'up'");
            insert(rng, table, "INSERT OR IGNORE", ours, &tail)
        }
        4 | 5 => format!("DELETE FROM {table} WHERE {}", condition(rng, table)),
        6 if table == "uniq" => {
            // Values move round among the rows.
            format!(
                "UPDATE OR IGNORE uniq SET u = (SELECT u FROM uniq WHERE k = {}) WHERE k = {}",
                key(rng, table),
                key(rng, table)
            )
        }
        _ => {
            let value = one_value(rng, table, column, ours);
            format!("UPDATE OR REPLACE {table} SET {column} = {value} WHERE {}", condition(rng, table))
        }
    }
}

/// What a deployment may do that the model of keys cannot follow once others meddle.
fn wild(rng: &mut Rng) -> String {
    match rng.u8(..6) {
        0 => "UPDATE OR REPLACE plain SET k = k + 100 WHERE k % 2".to_owned(),
        1 => "UPDATE OR REPLACE wr SET k = 'k1' WHERE a IS NULL".to_owned(),
        2 => "UPDATE OR REPLACE text SET k = k || '-' WHERE b IS NOT NULL".to_owned(),
        3 => "INSERT INTO loose SELECT * FROM loose LIMIT 20".to_owned(),
        4 => "UPDATE OR REPLACE loose SET rowid = rowid + 50 WHERE a IS NULL".to_owned(),
        _ => "UPDATE OR REPLACE uniq SET k = 15 - k".to_owned(),
    }
}

fn read(conn: &Connection, table: &str, hidden: Key) -> Rows {
    let key = match (hidden, table) {
        (Key::Hidden, _) => "rowid",
        (_, "wr") => "j || ':' || k",
        _ => "k",
    };
    let mut statement = conn.prepare(&format!("SELECT {key}, * FROM {table}")).unwrap();
    let count = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut all = Rows::new();
    while let Some(row) = rows.next().unwrap() {
        let value = |at: usize| format!("{:?}", row.get_ref(at).unwrap());
        all.insert(value(0), (1..count).map(value).collect());
    }
    all
}

fn state(stage: &Stage) -> Vec<Rows> {
    let conn = stage.other();
    TABLES.iter().map(|(table, _, key)| read(&conn, table, *key)).collect()
}

/// The merge rule: `from` is what was left, `to` what is to come back, `now` what is there.
pub fn merged(from: &Rows, to: &Rows, now: &Rows, key: Key, generated: &[usize], overwrite: bool) -> (Vec<Row>, u64) {
    let mut result = Vec::new();
    let mut conflicts = 0;
    let keys: std::collections::BTreeSet<&String> = from.keys().chain(to.keys()).chain(now.keys()).collect();
    for name in keys {
        let (left, want, there) = (from.get(name), to.get(name), now.get(name));
        let mut settle = |mine: Option<&Row>| {
            conflicts += 1;
            if overwrite { mine.cloned() } else { there.cloned() }
        };
        let row = match (left, want, there) {
            _ if left == want => there.cloned(),
            (_, _, there) if there == want => want.cloned(),
            (_, _, there) if there == left => want.cloned(),
            (Some(_), None, Some(_)) => settle(None),
            (None, Some(want), Some(there)) if key == Key::Hidden => {
                // A hidden rowid names nobody: both rows are there then.
                result.push(there.clone());
                Some(want.clone())
            }
            (None, Some(want), Some(_)) | (Some(_), Some(want), None) => settle(Some(want)),
            (Some(left), Some(want), Some(there)) => {
                let mut row = there.clone();
                for at in (0..row.len()).filter(|at| !generated.contains(at)) {
                    if left[at] == want[at] || there[at] == want[at] {
                        continue;
                    }
                    if there[at] == left[at] {
                        row[at] = want[at].clone();
                    } else {
                        conflicts += 1;
                        if overwrite {
                            row[at] = want[at].clone();
                        }
                    }
                }
                Some(row)
            }
            (_, None, _) | (None, Some(_), None) => want.cloned(),
        };
        result.extend(row);
    }
    result.sort();
    (result, conflicts)
}

struct Expected {
    tables: Vec<Vec<Row>>,
    conflicts: u64,
}

fn expected(from: &[Rows], to: &[Rows], now: &[Rows], overwrite: bool) -> Expected {
    let mut all = Expected { tables: Vec::new(), conflicts: 0 };
    for (at, (table, _, key)) in TABLES.iter().enumerate() {
        let generated: &[usize] = if *table == "gen" { &[2, 3] } else { &[] };
        let (rows, conflicts) = merged(&from[at], &to[at], &now[at], *key, generated, overwrite);
        all.tables.push(rows);
        all.conflicts += conflicts;
    }
    all
}

/// Generated columns follow the others; the model leaves them out.
fn without_generated(mut tables: Vec<Vec<Row>>) -> Vec<Vec<Row>> {
    let at = TABLES.iter().position(|(table, ..)| *table == "gen").unwrap();
    for row in &mut tables[at] {
        row[2] = String::new();
        row[3] = String::new();
    }
    tables[at].sort();
    tables
}

fn contents(stage: &Stage) -> Vec<Vec<Row>> {
    let tables = state(stage)
        .into_iter()
        .map(|rows| {
            let mut rows: Vec<Row> = rows.into_values().collect();
            rows.sort();
            rows
        })
        .collect();
    without_generated(tables)
}

fn setup(rng: &mut Rng) -> String {
    let mut sql = String::new();
    for (_, create, _) in TABLES {
        sql.push_str(create);
        sql.push_str(";\n");
    }
    sql.push_str(
        "CREATE TRIGGER plain_log AFTER UPDATE ON plain BEGIN
            INSERT INTO log (what) VALUES (new.k);
            UPDATE text SET c = new.a WHERE k = 'k' || new.k;
         END;\n",
    );
    for _ in 0..rng.usize(..60) {
        sql.push_str(&statement(rng, true));
        sql.push_str(";\n");
    }
    sql
}

fn run(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut stage = Stage::new(&setup(&mut rng));
    let meddled = rng.u8(..4) > 0;
    let mut script = String::new();
    for _ in 0..rng.usize(1..12) {
        let one = if !meddled && rng.u8(..3) == 0 { wild(&mut rng) } else { statement(&mut rng, true) };
        script.push_str(&one);
        script.push_str(";\n");
    }
    let (before, before_dump) = (state(&stage), stage.dump());
    let images = stage.apply(&script);
    let (after, after_dump) = (state(&stage), stage.dump());
    if !meddled {
        stage.undo(&images);
        assert_eq!(stage.dump(), before_dump, "undo of\n{script}");
        let again = stage.redo(&images);
        assert_eq!(stage.dump(), after_dump, "redo of\n{script}");
        stage.undo(&again);
        assert_eq!(stage.dump(), before_dump, "undo of the redo of\n{script}");
        return;
    }
    let backward = rng.bool();
    if !backward {
        stage.undo(&images);
    }
    let mut edits = String::new();
    for _ in 0..rng.usize(..8) {
        edits.push_str(&statement(&mut rng, false));
        edits.push_str(";\n");
    }
    stage.other().execute_batch(&edits).unwrap();
    let now = state(&stage);
    let what = format!("seed {seed}, {}\n{script}--\n{edits}", if backward { "undo" } else { "redo" });
    let on_conflict = [OnConflict::Stop, OnConflict::Keep, OnConflict::Overwrite][rng.usize(..3)];
    let (from, to) = if backward { (&after, &before) } else { (&before, &after) };
    let wanted = expected(from, to, &now, on_conflict == OnConflict::Overwrite);
    let mut gate = stage.gate();
    let manner = Manner { on_conflict, in_doubt: false };
    let mut bytes = Cursor::new(&images);
    let done = if backward {
        stage.database.undo(&mut bytes, manner, &mut gate)
    } else {
        stage.database.redo(&mut bytes, manner, &mut gate)
    };
    match done {
        Err(TargetError::Conflicts(conflicts)) if on_conflict == OnConflict::Stop => {
            assert!(wanted.conflicts > 0, "{conflicts:#?} in {what}");
            assert_eq!(state(&stage), now, "{what}");
        }
        Ok(report) => {
            if on_conflict == OnConflict::Stop {
                assert_eq!(wanted.conflicts, 0, "a conflict was passed over in {what}");
            }
            assert_eq!(contents(&stage), without_generated(wanted.tables), "{on_conflict:?} {what}");
            assert_eq!(report.conflicts.is_empty(), wanted.conflicts == 0, "{:#?} in {what}", report.conflicts);
        }
        Err(error) => panic!("{} in {what}", told(&error)),
    }
}

#[test]
fn random_statements_and_edits_end_as_the_model_says() {
    for seed in seeds(150) {
        let failed = std::panic::catch_unwind(|| run(seed));
        if let Err(panic) = failed {
            eprintln!("BACKOUT_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
