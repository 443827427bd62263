//! Random statements × random edits by the application in between, against the model of the merge rule that SQLite is
//! held to, too: it knows only three states of each table, before, as the deployment left it, and now.
//!
//! Which ones, and how to play others: `backout_testkit::seeds`.

use std::io::Cursor;

use backout_model::conflict::OnConflict;
use backout_model::target::{Manner, Target, TargetError};
use backout_testkit::postgres::Server;
use backout_testkit::seeds::seeds;
use fastrand::Rng;
use postgres::Client;

use crate::postgres::stage::{Stage, lines};
use crate::rows_random::{Key, Row, Rows, merged};
use crate::stage::told;

/// Tables of different keys; `u` is unique where there is one, and everything else takes any value.
const TABLES: [(&str, &str); 6] = [
    ("plain", "CREATE TABLE plain (k int PRIMARY KEY, a text, b json, c float8)"),
    ("uniq", "CREATE TABLE uniq (k int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text, b text, u text UNIQUE)"),
    ("txt", "CREATE TABLE txt (k text PRIMARY KEY, a text, b numeric, c text)"),
    ("multi", "CREATE TABLE multi (a text, k text NOT NULL, b text[], j int NOT NULL, PRIMARY KEY (j, k))"),
    (
        "gen",
        "CREATE TABLE gen (k int PRIMARY KEY, a text, b int, s text GENERATED ALWAYS AS (a || 's') STORED) PARTITION BY HASH (k);
         CREATE TABLE gen0 PARTITION OF gen FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE gen1 PARTITION OF gen FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    ),
    // Last: only a trigger writes to it.
    ("log", "CREATE TABLE log (k serial PRIMARY KEY, what text)"),
];

fn key(rng: &mut Rng, table: &str) -> String {
    let number = rng.u32(1..14);
    match table {
        "txt" | "multi" => format!("'k{number}'"),
        _ => number.to_string(),
    }
}

fn columns(table: &str) -> &'static [&'static str] {
    match table {
        "plain" | "txt" => &["a", "b", "c"],
        "uniq" => &["a", "b", "u"],
        _ => &["a", "b"],
    }
}

/// Values of unique columns: those of the application never meet the deployment's.
fn value(rng: &mut Rng, table: &str, column: &str, ours: bool) -> String {
    if rng.u8(..5) == 0 {
        return "NULL".to_owned();
    }
    let one = |rng: &mut Rng, of: &[&str]| of[rng.usize(..of.len())].to_owned();
    match (table, column) {
        ("uniq", "u") if ours => format!("'u{}'", rng.u32(..20)),
        ("uniq", "u") => format!("'others-{}'", rng.u64(..)),
        ("plain", "b") => one(rng, &["'{}'", "'{ }'", "'1.0'", "'1'"]),
        ("plain", "c") => one(rng, &["0", "'-0'", "1e300", "'NaN'", "0.1"]),
        ("txt", "b") => one(rng, &["1", "1.0", "1.00", "'NaN'", "1e40"]),
        ("multi", "b") => one(rng, &["'{}'", "'{a,NULL}'", "'{\"NULL\"}'", "'[0:0]={a}'"]),
        ("gen", "b") => rng.i32(..4).to_string(),
        _ => one(rng, &["''", "'a'", "'A'", "E'tab\\t\\\\n'", "'long text'", "'\\N'"]),
    }
}

/// One statement of the deployment or of the application.
fn statement(rng: &mut Rng, ours: bool) -> String {
    let (table, _) = TABLES[rng.usize(..TABLES.len() - 1)];
    let column = columns(table)[rng.usize(..columns(table).len())];
    let condition = |rng: &mut Rng| match rng.u8(..3) {
        0 => format!("k = {}", key(rng, table)),
        1 => format!("k IN ({}, {}, {})", key(rng, table), key(rng, table), key(rng, table)),
        _ => format!("a IS NOT DISTINCT FROM {}", value(rng, table, "a", ours)),
    };
    let way = rng.u8(..10);
    match way {
        0..=3 => {
            let (mut names, mut values) = (vec!["k"], vec![key(rng, table)]);
            if table == "multi" {
                names.push("j");
                values.push("1".to_owned());
            }
            for column in columns(table) {
                names.push(column);
                values.push(value(rng, table, column, ours));
            }
            let place = if table == "multi" { "(j, k)" } else { "(k)" };
            let tail = match way {
                3 => format!("ON CONFLICT {place} DO UPDATE SET a = excluded.a"),
                _ => "ON CONFLICT DO NOTHING".to_owned(),
            };
            format!(
                "INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE VALUES ({}) {tail}",
                names.join(", "),
                values.join(", ")
            )
        }
        4 | 5 => format!("DELETE FROM {table} WHERE {}", condition(rng)),
        6 => format!(
            "WITH s AS (SELECT k, lead(u) OVER (ORDER BY k) AS u FROM uniq WHERE k < 8 AND {ours})
             UPDATE uniq SET u = NULL FROM s WHERE uniq.k = s.k AND s.k = {}",
            key(rng, "uniq")
        ),
        7 if ours => {
            // Values of a unique column move round.
            let (one, two) = (key(rng, "uniq"), key(rng, "uniq"));
            format!(
                "WITH a AS (SELECT u FROM uniq WHERE k = {one}), b AS (SELECT u FROM uniq WHERE k = {two}),
                 x AS (UPDATE uniq SET u = u || '-' || {one} WHERE k = {one} RETURNING 1)
                 UPDATE uniq SET u = (SELECT u || '+' FROM a) WHERE k = {two} AND k <> {one}"
            )
        }
        _ => {
            let value = value(rng, table, column, ours);
            format!("UPDATE {table} SET {column} = {value} WHERE {}", condition(rng))
        }
    }
}

/// A script that goes on after a value that is taken.
fn guarded(statements: &[String]) -> String {
    let one = |sql: &String| format!("DO $do$ BEGIN {sql}; EXCEPTION WHEN unique_violation THEN NULL; END $do$;\n");
    statements.iter().map(one).collect()
}

fn read(client: &mut Client, table: &str) -> Rows {
    let key = if table == "multi" { "j || ':' || k" } else { "k::text" };
    let rows = lines(client, &format!("SELECT json_build_array({key}, {}) FROM {table}", all(table)));
    rows.iter()
        .map(|row| {
            let mut values: Row = serde_json::from_str::<Vec<Option<String>>>(row)
                .unwrap()
                .into_iter()
                .map(|value| value.map_or("NULL".to_owned(), |value| format!("'{value}'")))
                .collect();
            (values.remove(0), values)
        })
        .collect()
}

/// All columns but generated ones, as text.
fn all(table: &str) -> String {
    let names: Vec<&str> = if table == "log" { vec!["k", "what"] } else { [&["k"], columns(table)].concat() };
    names.iter().map(|name| format!("{name}::text")).collect::<Vec<_>>().join(", ")
}

fn state(stage: &Stage<'_>) -> Vec<Rows> {
    let mut client = stage.other();
    client.batch_execute("SET extra_float_digits = 3").unwrap();
    TABLES.iter().map(|(table, _)| read(&mut client, table)).collect()
}

fn run(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut stage = Stage::on(Server::shared(), &setup(&mut rng));
    let script = guarded(&(0..rng.usize(1..12)).map(|_| statement(&mut rng, true)).collect::<Vec<_>>());
    let (before, before_dump) = (state(&stage), stage.dump());
    let images = stage.apply(&script);
    let (after, after_dump) = (state(&stage), stage.dump());
    if rng.u8(..4) == 0 {
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
    let edits = guarded(&(0..rng.usize(..8)).map(|_| statement(&mut rng, false)).collect::<Vec<_>>());
    stage.others(&edits);
    let now = state(&stage);
    let what = format!("seed {seed}, {}\n{script}--\n{edits}", if backward { "undo" } else { "redo" });
    let on_conflict = [OnConflict::Stop, OnConflict::Keep, OnConflict::Overwrite][rng.usize(..3)];
    let (from, to) = if backward { (&after, &before) } else { (&before, &after) };
    let wanted: Vec<(Vec<Row>, u64)> = (0..TABLES.len())
        .map(|at| merged(&from[at], &to[at], &now[at], Key::Shown, &[], on_conflict == OnConflict::Overwrite))
        .collect();
    let conflicts: u64 = wanted.iter().map(|(_, conflicts)| conflicts).sum();
    let mut gate = stage.gate();
    let manner = Manner { on_conflict, in_doubt: false };
    let mut bytes = Cursor::new(&images);
    let done = if backward {
        stage.database.undo(&mut bytes, manner, &mut gate)
    } else {
        stage.database.redo(&mut bytes, manner, &mut gate)
    };
    match done {
        Err(TargetError::Conflicts(found)) if on_conflict == OnConflict::Stop => {
            assert!(conflicts > 0, "{found:#?} in {what}");
            assert_eq!(state(&stage), now, "{what}");
        }
        Ok(report) => {
            if on_conflict == OnConflict::Stop {
                assert_eq!(conflicts, 0, "a conflict was passed over in {what}");
            }
            let found: Vec<Vec<Row>> = state(&stage)
                .into_iter()
                .map(|rows| {
                    let mut rows: Vec<Row> = rows.into_values().collect();
                    rows.sort();
                    rows
                })
                .collect();
            let wanted: Vec<Vec<Row>> = wanted.into_iter().map(|(rows, _)| rows).collect();
            assert_eq!(found, wanted, "{on_conflict:?} {what}");
            assert_eq!(report.conflicts.is_empty(), conflicts == 0, "{:#?} in {what}", report.conflicts);
        }
        Err(error) => panic!("{} in {what}", told(&error)),
    }
}

fn setup(rng: &mut Rng) -> String {
    let mut sql = String::new();
    for (_, create) in TABLES {
        sql.push_str(create);
        sql.push_str(";\n");
    }
    sql.push_str(
        "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO log (what) VALUES (new.k); UPDATE txt SET c = new.a WHERE k = 'k' || new.k; RETURN NULL; END $$;
         CREATE TRIGGER noted AFTER UPDATE ON plain FOR EACH ROW EXECUTE FUNCTION noted();\n",
    );
    sql + &guarded(&(0..rng.usize(..60)).map(|_| statement(rng, true)).collect::<Vec<_>>())
}

#[test]
fn random_statements_and_edits_end_as_the_model_says() {
    for seed in seeds(25) {
        let failed = std::panic::catch_unwind(|| run(seed));
        if let Err(panic) = failed {
            eprintln!("BACKOUT_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
