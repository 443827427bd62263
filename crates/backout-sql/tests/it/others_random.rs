//! Random scripts, and others who hang objects on what they left, write rows with marks and make tables of their own,
//! between deployment, undo and redo. Which ones: `backout_testkit::seeds`.
//!
//! After an undo or redo either a conflict has changed nothing, or all of theirs is there, everything can be used that
//! could before, and without theirs the database is to the byte what it was.

use backout_model::conflict::OnConflict;
use backout_model::target::TargetError;
use backout_testkit::seeds::seeds;
use fastrand::Rng;
use rusqlite::Connection;

use crate::bed::{holds, list, live, plain, same};
use crate::ddl_random::{column, create_table, name, pick, quoted, rows_of, schema_of};
use crate::others_judged::{Theirs, columns, complaints, go, marks, tables, text};
use crate::stage::{Stage, dump, told};

const MODES: [&str; 4] =
    ["", "PRAGMA auto_vacuum = FULL;", "PRAGMA encoding = 'UTF-16le';", "PRAGMA journal_mode = WAL;"];

fn one<'a>(rng: &mut Rng, from: &'a [String]) -> Option<&'a str> {
    if from.is_empty() { None } else { Some(from[rng.usize(..from.len())].as_str()) }
}

/// A table and one of its columns.
fn place(rng: &mut Rng, conn: &Connection) -> Option<(String, String)> {
    let tables = tables(conn);
    let table = one(rng, &tables)?;
    let columns = columns(conn, table);
    Some((table.to_owned(), quoted(one(rng, &columns)?)))
}

/// Rebuilds a table by making a new one, copying, dropping the old one and renaming.
fn rebuild(rng: &mut Rng, conn: &Connection) -> Option<String> {
    let all = tables(conn);
    let table = one(rng, &all)?;
    let of_table =
        |what: &str| list(conn, &format!("SELECT {what} FROM pragma_table_info({}) ORDER BY cid", text(table)));
    let key = list(conn, &format!("SELECT name FROM pragma_table_info({}) WHERE pk > 0", text(table)));
    let names: Vec<String> = of_table("name").iter().map(|name| quoted(name)).collect();
    let counts = ["", " AUTOINCREMENT"][rng.usize(..2)];
    let forms: Vec<String> = names
        .iter()
        .zip(of_table("type"))
        .map(|(name, declared)| match key.as_slice() {
            [key] if quoted(key) == *name && declared == "INTEGER" => format!("{name} INTEGER PRIMARY KEY{counts}"),
            [key] if quoted(key) == *name => format!("{name} {declared} PRIMARY KEY"),
            _ => format!("{name} {declared}"),
        })
        .collect();
    let extra = if rng.bool() { ", extra DEFAULT 'e'" } else { "" };
    let copied: Vec<String> = names
        .iter()
        .map(|name| if rng.u8(..8) == 0 { format!("coalesce({name}, 'c')") } else { name.clone() })
        .collect();
    let (table, names, forms, copied) = (quoted(table), names.join(", "), forms.join(", "), copied.join(", "));
    let wavering = if rng.u8(..5) == 0 { " WHERE random() IS NOT NULL" } else { "" };
    Some(match rng.u8(..5) {
        0 => format!(
            "CREATE TABLE rebuilt AS SELECT * FROM {table}; DROP TABLE {table}; ALTER TABLE rebuilt RENAME TO {table}"
        ),
        1 => format!(
            "ALTER TABLE {table} RENAME TO rebuilt; CREATE TABLE {table}({forms}{extra}); INSERT INTO {table}({names}) SELECT {copied} FROM rebuilt{wavering}; DROP TABLE rebuilt"
        ),
        _ => format!(
            "CREATE TABLE rebuilt({forms}{extra}); INSERT INTO rebuilt({names}) SELECT {copied} FROM {table}{wavering}; DROP TABLE {table}; ALTER TABLE rebuilt RENAME TO {table}"
        ),
    })
}

/// Statements that the plain client takes, one after the other; it is left as they make it.
fn statements(rng: &mut Rng, conn: &Connection, count: usize) -> Vec<String> {
    let mut taken = Vec::new();
    for _ in 0..count * 6 {
        if taken.len() == count {
            break;
        }
        let sql = match rng.u8(..12) {
            0..=2 => rebuild(rng, conn).unwrap_or_else(|| create_table(rng)),
            3..=8 => schema_of(rng),
            _ => rows_of(rng, conn),
        };
        if sql.contains("ANALYZE") {
            continue;
        }
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

/// Something that others do to the database as it is.
fn deed(rng: &mut Rng, conn: &Connection, number: u32) -> Option<(String, String, Option<String>, bool)> {
    let (bare, column) = place(rng, conn)?;
    let (other, other_column) = place(rng, conn)?;
    let (table, other) = (quoted(&bare), quoted(&other));
    let object = |kind: &str| Some(format!("{kind} others{number}"));
    let gone = |kind: &str| format!("DROP {kind} IF EXISTS others{number}");
    Some(match rng.u8(..14) {
        0 | 1 => {
            let views = list(conn, "SELECT name FROM sqlite_schema WHERE type = 'view'");
            let sql = match rng.u8(..4) {
                0 => format!("SELECT * FROM {table}"),
                1 => format!("SELECT {column} FROM {table} UNION SELECT {other_column} FROM {other}"),
                2 if !views.is_empty() => format!("SELECT * FROM {}", quoted(one(rng, &views)?)),
                _ => format!("SELECT {column} FROM {table} WHERE {column} IS NOT NULL"),
            };
            (format!("CREATE VIEW others{number} AS {sql}"), gone("VIEW"), object("view"), false)
        }
        2 | 3 => {
            let on = [column.clone(), format!("lower({column})"), format!("1) WHERE ({column} IS NOT NULL")];
            (
                format!("CREATE INDEX others{number} ON {table}({})", on[rng.usize(..3)]),
                gone("INDEX"),
                object("index"),
                false,
            )
        }
        4 | 5 => {
            let event = ["INSERT".to_owned(), format!("UPDATE OF {column}"), "DELETE".to_owned()];
            let body = [
                format!("UPDATE {other} SET {other_column} = 1"),
                format!("DELETE FROM {other} WHERE {other_column} = 'x'"),
                format!("INSERT INTO {other} SELECT * FROM {table}"),
                format!("SELECT count({other_column}) FROM {other}"),
            ];
            let sql = format!(
                "CREATE TRIGGER others{number} AFTER {} ON {table} BEGIN {}; END",
                event[rng.usize(..3)],
                body[rng.usize(..4)]
            );
            (sql, gone("TRIGGER"), object("trigger"), false)
        }
        6 => {
            let (parent, rows) = match rng.u8(..3) {
                0 => (table, String::new()),
                1 => (format!("{table}({column})"), String::new()),
                _ => {
                    (format!("{table}({column})"), format!("; INSERT INTO others{number} SELECT {column} FROM {table}"))
                }
            };
            (format!("CREATE TABLE others{number}(x REFERENCES {parent}){rows}"), gone("TABLE"), object("table"), false)
        }
        7 => (
            format!(
                "CREATE TABLE others{number}(id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO others{number}(v) VALUES (1), (2)"
            ),
            gone("TABLE"),
            object("table"),
            false,
        ),
        // On a name that may have become free.
        8 => {
            let name = name(rng);
            (format!("CREATE TABLE {name}(others)"), format!("DROP TABLE IF EXISTS {name}"), None, false)
        }
        9 if !bare.starts_with("others") => match rng.u8(..3) {
            0 => (format!("ALTER TABLE {table} RENAME TO {}", name(rng)), String::new(), None, true),
            1 => {
                let mark = format!(" INSERT OR IGNORE INTO {table}(others{number}) VALUES ('mark{number}');");
                let of_own = format!(
                    " UPDATE OR IGNORE {table} SET others{number} = 'mark{number}' WHERE {column} IS NOT NULL;"
                );
                let values = &["", &mark, &of_own][rng.usize(..3)];
                (format!("ALTER TABLE {table} ADD COLUMN others{number};{values}"), String::new(), None, true)
            }
            _ => (format!("UPDATE OR IGNORE {table} SET {column} = 'by others'"), String::new(), None, true),
        },
        _ => {
            let keys = format!("SELECT type FROM pragma_table_info({}) WHERE pk > 0 AND type = 'INTEGER'", text(&bare));
            // One that nobody else takes, where it is not shown.
            let (rowid, place) = match list(conn, &keys).is_empty() {
                true => ("_rowid_, ", format!("{}, ", 900_000 + number)),
                false => ("", String::new()),
            };
            let sql = format!("INSERT OR IGNORE INTO {table}({rowid}{column}) VALUES ({place}'mark{number}')");
            (sql, String::new(), None, false)
        }
    })
}

/// What they do now, on a connection whose triggers are off so that each deed is itself alone.
fn theirs(rng: &mut Rng, stage: &Stage, from: u32, count: u32) -> Theirs {
    use rusqlite::config::DbConfig;
    let conn = stage.other();
    for switch in
        [DbConfig::SQLITE_DBCONFIG_DQS_DDL, DbConfig::SQLITE_DBCONFIG_DQS_DML, DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER]
    {
        conn.set_db_config(switch, false).unwrap();
    }
    let mut theirs = Theirs::default();
    for number in from..from + count {
        let Some((sql, back, object, lasting)) = deed(rng, &conn, number) else { continue };
        conn.execute_batch("SAVEPOINT s").unwrap();
        let known = complaints(&conn);
        // What they make works.
        if conn.execute_batch(&sql).is_ok() && complaints(&conn).iter().all(|one| known.contains(one)) {
            theirs.sql.push(sql);
            theirs.back.push(back);
            theirs.objects.extend(object);
            theirs.lasting |= lasting;
        } else {
            conn.execute_batch("ROLLBACK TO s").unwrap();
        }
        conn.execute_batch("RELEASE s").unwrap();
    }
    theirs
}

/// The database without what others did, but for its counters, which do not go back behind what others used. Looked at
/// on a copy, so that what comes next meets theirs again.
fn without(stage: &Stage, theirs: &[&Theirs]) -> Vec<String> {
    let mut conn = Connection::open_in_memory().unwrap();
    rusqlite::backup::Backup::new(&stage.other(), &mut conn)
        .and_then(|backup| backup.run_to_completion(1000, std::time::Duration::ZERO, None))
        .unwrap();
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    for back in theirs.iter().rev().flat_map(|theirs| theirs.back.iter().rev()) {
        conn.execute_batch(back).unwrap();
    }
    for table in tables(&conn) {
        let marked: Vec<String> =
            columns(&conn, &table).iter().map(|column| format!("{} LIKE 'mark%'", quoted(column))).collect();
        conn.execute_batch(&format!("DELETE FROM {} WHERE {}", quoted(&table), marked.join(" OR "))).unwrap();
    }
    without_counters(&dump(&conn))
}

fn without_counters(lines: &[String]) -> Vec<String> {
    lines.iter().filter(|line| !line.contains("sqlite_sequence")).cloned().collect()
}

/// Rows that a redo copies anew get new rowids where no column shows them.
fn without_rowids(lines: Vec<String>) -> Vec<String> {
    let mut lines: Vec<String> = lines
        .into_iter()
        .map(|line| match line.split_once(": i") {
            Some((table, row)) => format!("{table}: {}", row.split_once(' ').map_or("", |(_, rest)| rest)),
            None => line,
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn what_others_make_between_deployment_undo_and_redo() {
    let (mut done, mut redone) = (0, 0);
    for seed in seeds(120) {
        eprintln!("BACKOUT_SEED={seed}");
        let mut rng = Rng::with_seed(seed);
        let mode = pick(&mut rng, &MODES);
        let otherwise = if seed % 2 == 0 { OnConflict::Overwrite } else { OnConflict::Keep };
        let client = plain(mode, "");
        let mut setup = vec!["CREATE TABLE parent(id INTEGER PRIMARY KEY)".to_owned(), create_table(&mut rng)];
        client.execute_batch(&setup.join(";")).unwrap();
        setup.append(&mut statements(&mut rng, &client, 16));
        if rng.u8(..3) == 0 {
            let fill = format!(
                "WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 600) INSERT OR IGNORE INTO {}({}) SELECT i FROM i",
                name(&mut rng),
                column(&mut rng)
            );
            setup.extend(client.execute_batch(&fill).is_ok().then_some(fill));
        }
        let legacy = if rng.u8(..3) == 0 { "PRAGMA legacy_alter_table = ON;\n" } else { "" };
        client.execute_batch(legacy).unwrap();
        let count = rng.usize(1..6);
        let script = statements(&mut rng, &client, count);
        let (setup, script) = (setup.join(";\n"), format!("{legacy}{}", script.join(";\n")));
        let what = format!("BACKOUT_SEED={seed} {mode}\n{setup};\n-- script\n{script};");
        let mut stage = live(mode, &setup);
        let before = dump(&stage.other());
        let broken_before = complaints(&stage.other());
        let images = match stage.try_apply(&script) {
            Ok((images, _)) => images,
            Err(TargetError::Refused(_)) => continue,
            Err(error) => panic!("{what}: {}", told(&error)),
        };
        let after = dump(&stage.other());
        let broken_after = complaints(&stage.other());
        // A trigger that never worked goes along with its table, whose name then says little.
        if broken_before.iter().chain(&broken_after).any(|one| !one.contains(' ')) {
            continue;
        }

        let count = rng.u32(0..4);
        let first = theirs(&mut rng, &stage, 10, count);
        let what = format!("{what}\n-- theirs\n{};", first.sql.join(";\n"));
        let went = go(
            &mut stage,
            otherwise,
            &[&broken_before],
            &[&first],
            &format!("{what}\n-- undo"),
            &mut |stage, manner| stage.try_undo(&images, manner),
        );
        if !went {
            continue;
        }
        done += 1;
        assert_eq!(holds(&mut stage), Vec::<String>::new(), "{what}");
        if !first.lasting {
            same(&without(&stage, &[&first]), &without_counters(&before), &format!("without theirs, undone: {what}"));
        }

        let count = rng.u32(0..4);
        let second = theirs(&mut rng, &stage, 20, count);
        let what = format!("{what}\n-- undone; theirs\n{};", second.sql.join(";\n"));
        let mut again = None;
        let marked = marks(&stage.other());
        let went = go(
            &mut stage,
            otherwise,
            &[&broken_after],
            &[&first, &second],
            &format!("{what}\n-- redo"),
            &mut |stage, manner| {
                let (images, report) = stage.try_redo(&images, manner)?;
                again = Some(images);
                Ok(report)
            },
        );
        let (true, Some(again)) = (went, again) else { continue };
        redone += 1;
        let lasting = first.lasting || second.lasting;
        // A mark may go with its column.
        if !lasting && marks(&stage.other()) == marked {
            let found = without_rowids(without(&stage, &[&first, &second]));
            same(&found, &without_rowids(without_counters(&after)), &format!("without theirs, redone: {what}"));
        }

        let count = rng.u32(0..3);
        let third = theirs(&mut rng, &stage, 30, count);
        let what = format!("{what}\n-- redone; theirs\n{};", third.sql.join(";\n"));
        let all = [&first, &second, &third];
        let went = go(
            &mut stage,
            otherwise,
            &[&broken_before],
            &all,
            &format!("{what}\n-- undo again"),
            &mut |stage, manner| stage.try_undo(&again, manner),
        );
        if went && !lasting && !third.lasting {
            same(&without(&stage, &all), &without_counters(&before), &format!("without theirs, undone again: {what}"));
        }
    }
    eprintln!("{done} undone, {redone} redone");
}
