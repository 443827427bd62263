//! Random schemas, rows and scripts of schema changes and rows, against the plain client; then with others writing
//! meanwhile. Which ones: `backout_testkit::seeds`.

use backout_model::conflict::OnConflict;
use backout_model::target::TargetError;
use backout_testkit::seeds::seeds;
use fastrand::Rng;
use rusqlite::Connection;

use crate::bed::{apply, holds, live, plain, same, seen};
use crate::stage::{dump, told};

const TYPES: [&str; 7] = ["", "INT", "TEXT", "REAL", "NUMERIC", "BLOB", "TEXT COLLATE NOCASE"];
const NAMES: [&str; 6] = ["t0", "t1", "t2", "T3 \"x\"", "t4", "t5"];
const COLUMNS: [&str; 7] = ["a", "b", "c", "D d", "e", "rowid", "select"];

pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

pub fn name(rng: &mut Rng) -> String {
    quoted(pick(rng, &NAMES))
}

pub fn column(rng: &mut Rng) -> String {
    quoted(pick(rng, &COLUMNS))
}

fn value(rng: &mut Rng) -> String {
    match rng.u8(..9) {
        0 => "NULL".into(),
        1 | 2 => rng.i64(-3..40).to_string(),
        3 => format!("{}.5", rng.i64(-3..40)),
        4 => format!("x'{:02x}00'", rng.u8(..)),
        5 => "''".into(),
        6 => "'it''s'".into(),
        7 => format!("zeroblob({})", rng.usize(..3000)),
        _ => format!("'v{}'", rng.u8(..30)),
    }
}

pub fn create_table(rng: &mut Rng) -> String {
    let table = name(rng);
    let mut columns: Vec<&str> = COLUMNS.to_vec();
    rng.shuffle(&mut columns);
    columns.truncate(rng.usize(2..6));
    let form = rng.u8(..5);
    let mut items = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let quoted = quoted(column);
        if at == 0 {
            items.push(match form {
                0 => format!("{quoted} INTEGER PRIMARY KEY AUTOINCREMENT"),
                1 => format!("{quoted} INTEGER PRIMARY KEY"),
                2 => format!("{quoted} INT NOT NULL PRIMARY KEY"),
                _ => format!("{quoted} {}", pick(rng, &TYPES)),
            });
            continue;
        }
        let mut item = format!("{quoted} {}", pick(rng, &TYPES));
        match rng.u8(..9) {
            0 => item += " UNIQUE",
            1 => item += &format!(" DEFAULT {}", ["7", "'d'", "-1.5", "NULL"][rng.usize(..4)]),
            2 => item += " REFERENCES parent ON DELETE SET NULL",
            3 => item += &format!(" CHECK ({quoted} IS NOT 'no')"),
            4 => {
                item += &format!(
                    " AS (coalesce({}, 'g') || 'x') {}",
                    self::quoted(columns[0]),
                    ["STORED", "VIRTUAL"][rng.usize(..2)]
                )
            }
            _ => {}
        }
        items.push(item);
    }
    let mut options = "";
    if form == 2 && rng.bool() {
        options = " WITHOUT ROWID";
    } else if form == 3 {
        items.push(format!("UNIQUE ({}, {})", quoted(columns[0]), quoted(columns[1])));
    }
    format!("CREATE TABLE {table}({}){options}", items.join(", "))
}

fn insert(rng: &mut Rng, conn: &Connection) -> String {
    let table = pick(rng, &NAMES);
    let columns: Vec<String> = conn
        .prepare("SELECT name FROM pragma_table_info(?1)")
        .unwrap()
        .query_map([table], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let chosen: Vec<String> = columns.iter().filter(|_| rng.u8(..4) > 0).map(|column| quoted(column)).collect();
    if chosen.is_empty() {
        return format!("INSERT INTO {} DEFAULT VALUES", quoted(table));
    }
    let rows: Vec<String> = (0..rng.usize(1..8))
        .map(|_| format!("({})", chosen.iter().map(|_| value(rng)).collect::<Vec<_>>().join(", ")))
        .collect();
    let verb = ["INSERT OR IGNORE", "INSERT OR REPLACE", "INSERT"][rng.usize(..3)];
    format!("{verb} INTO {}({}) VALUES {}", quoted(table), chosen.join(", "), rows.join(", "))
}

pub fn rows_of(rng: &mut Rng, conn: &Connection) -> String {
    match rng.u8(..8) {
        0 => format!("DELETE FROM {}", name(rng)),
        1 => format!("DELETE FROM {} WHERE {} IS {}", name(rng), column(rng), value(rng)),
        2 | 3 => format!("UPDATE OR REPLACE {} SET {} = {}", name(rng), column(rng), value(rng)),
        4 => {
            let column = column(rng);
            format!(
                "UPDATE OR IGNORE {} SET {column} = {column} || 'u' WHERE {} IS NOT NULL",
                name(rng),
                self::column(rng)
            )
        }
        5 => format!("INSERT OR IGNORE INTO {} SELECT * FROM {}", name(rng), name(rng)),
        _ => insert(rng, conn),
    }
}

pub fn schema_of(rng: &mut Rng) -> String {
    match rng.u8(..22) {
        0..=2 => create_table(rng),
        3 => format!("CREATE TABLE {} AS SELECT * FROM {}", name(rng), name(rng)),
        4 | 5 => format!("DROP TABLE {}", name(rng)),
        6 | 7 => format!("ALTER TABLE {} RENAME TO {}", name(rng), name(rng)),
        8 => format!("ALTER TABLE {} RENAME COLUMN {} TO {}", name(rng), column(rng), column(rng)),
        9..=11 => {
            let default = ["", " DEFAULT 3", " DEFAULT 'x'", " NOT NULL DEFAULT 1.0", " DEFAULT NULL"][rng.usize(..5)];
            format!("ALTER TABLE {} ADD COLUMN {} {}{default}", name(rng), column(rng), pick(rng, &TYPES))
        }
        12 | 13 => format!("ALTER TABLE {} DROP COLUMN {}", name(rng), column(rng)),
        14 | 15 => {
            let unique = ["", "UNIQUE "][rng.usize(..2)];
            let partial = if rng.bool() { format!(" WHERE {} IS NOT NULL", column(rng)) } else { String::new() };
            let on = if rng.bool() {
                format!("{} DESC", column(rng))
            } else {
                format!("length({}), {}", column(rng), column(rng))
            };
            format!("CREATE {unique}INDEX i{} ON {}({on}){partial}", rng.u8(..6), name(rng))
        }
        16 => format!("DROP INDEX i{}", rng.u8(..6)),
        17 => format!("CREATE VIEW v{} AS SELECT {} FROM {}", rng.u8(..2), column(rng), name(rng)),
        18 => format!("DROP VIEW v{}", rng.u8(..2)),
        19 => {
            let event = ["INSERT", "UPDATE", "DELETE"][rng.usize(..3)];
            format!(
                "CREATE TRIGGER r{} AFTER {event} ON {} BEGIN UPDATE {} SET {} = 'by trigger'; END",
                rng.u8(..3),
                name(rng),
                name(rng),
                column(rng)
            )
        }
        20 => format!("DROP TRIGGER r{}", rng.u8(..3)),
        _ => "ANALYZE".into(),
    }
}

/// Statements that the plain client takes, one after the other; it is left as they make it.
fn statements(rng: &mut Rng, conn: &Connection, count: usize, schema_share: u8) -> Vec<String> {
    let mut taken = Vec::new();
    for _ in 0..count * 6 {
        if taken.len() == count {
            break;
        }
        let sql = if rng.u8(..10) < schema_share { schema_of(rng) } else { rows_of(rng, conn) };
        conn.execute_batch("SAVEPOINT s").unwrap();
        if conn.execute_batch(&sql).is_ok() {
            taken.push(sql);
        } else {
            conn.execute_batch("ROLLBACK TO s").unwrap();
        }
        conn.execute_batch("RELEASE s").unwrap();
    }
    taken
}

const MODES: [&str; 5] = [
    "",
    "PRAGMA auto_vacuum = FULL;",
    "PRAGMA journal_mode = WAL;",
    "PRAGMA encoding = 'UTF-16';",
    "PRAGMA page_size = 512;",
];

/// A setup and a script that both work, with the client after each.
fn scene(rng: &mut Rng, mode: &str) -> (String, String) {
    let client = plain(mode, "");
    let mut setup = vec!["CREATE TABLE parent(id INTEGER PRIMARY KEY)".to_owned(), create_table(rng)];
    client.execute_batch(&setup.join(";")).unwrap();
    setup.append(&mut statements(rng, &client, 14, 5));
    if rng.bool() {
        // Enough rows for a delete-all by exchange.
        let fill = format!(
            "WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 600) INSERT OR IGNORE INTO {}({}) SELECT i FROM i",
            name(rng),
            column(rng)
        );
        if client.execute_batch(&fill).is_ok() {
            setup.push(fill);
        }
    }
    let count = rng.usize(1..9);
    let script = statements(rng, &client, count, 6);
    (setup.join(";\n"), script.join(";\n"))
}

#[test]
fn there_and_back() {
    for seed in seeds(60) {
        eprintln!("BACKOUT_SEED={seed}");
        let mut rng = Rng::with_seed(seed);
        let mode = pick(&mut rng, &MODES);
        let (setup, script) = scene(&mut rng, mode);
        let what = format!("BACKOUT_SEED={seed} {mode}\n{setup};\n-- script\n{script};\n--");
        let client = plain(mode, &setup);
        client.execute_batch(&format!("BEGIN; {script}; COMMIT")).unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut stage = live(mode, &setup);
        let other = stage.other();
        let before = dump(&other);
        let images = match stage.try_apply(&script) {
            Ok((images, _)) => images,
            // A table whose columns hide all names of the rowid is not captured.
            Err(TargetError::Refused(_)) => continue,
            Err(error) => panic!("{what}: {}", told(&error)),
        };
        same(&seen(&other), &seen(&client), &format!("after the run: {what}"));
        let after = dump(&other);
        stage.try_undo(&images, OnConflict::Stop).unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
        same(&dump(&other), &before, &format!("after the undo: {what}"));
        assert_eq!(holds(&mut stage), Vec::<String>::new(), "{what}");
        let again = stage.redo(&images);
        if !script.contains("ANALYZE") {
            same(&dump(&other), &after, &format!("after the redo: {what}"));
        }
        stage.try_undo(&again, OnConflict::Stop).unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
        same(&dump(&other), &before, &format!("after the second undo: {what}"));
    }
}

#[test]
fn with_others_writing_meanwhile() {
    for seed in seeds(60) {
        eprintln!("BACKOUT_SEED={seed}");
        let mut rng = Rng::with_seed(seed);
        let mode = pick(&mut rng, &MODES);
        let (setup, script) = scene(&mut rng, mode);
        let mut stage = live(mode, &setup);
        let Ok((images, _)) = stage.try_apply(&script) else { continue };
        let theirs = {
            let other = stage.other();
            other.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DQS_DDL, false).unwrap();
            other.execute_batch("BEGIN").unwrap();
            let share = rng.u8(..4);
            let theirs = statements(&mut rng, &other, 5, share);
            other.execute_batch("COMMIT").unwrap();
            theirs.join(";\n")
        };
        let what = format!("BACKOUT_SEED={seed} {mode}\n{setup};\n-- script\n{script};\n-- theirs\n{theirs};\n--");
        let other = stage.other();
        eprintln!("{what}");
        let now = dump(&other);
        let manner = [OnConflict::Keep, OnConflict::Overwrite][rng.usize(..2)];
        match stage.try_undo(&images, OnConflict::Stop) {
            Ok(_) => {}
            Err(TargetError::Conflicts(_)) => {
                same(&dump(&other), &now, &format!("a conflict changes nothing: {what}"));
                match stage.try_undo(&images, manner) {
                    // What can't be overwritten is refused, with a reason.
                    Err(TargetError::Conflicts(_)) if manner == OnConflict::Overwrite => {
                        same(&dump(&other), &now, &format!("a refusal changes nothing: {what}"));
                    }
                    Err(error) => panic!("{manner:?} {what}: {}", told(&error)),
                    Ok(_) => {}
                }
            }
            Err(error) => panic!("{what}: {}", told(&error)),
        }
        let check: String = other.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok", "{what}");
        let writable: bool = other.query_row("PRAGMA writable_schema", [], |row| row.get(0)).unwrap();
        assert!(!writable, "{what}");
        // Not the setup alone must have come out of it: the connection still works.
        apply(
            &mut stage,
            "CREATE TABLE at_the_end(a); INSERT INTO at_the_end VALUES (1); DROP TABLE at_the_end;",
            &what,
        );
    }
}
