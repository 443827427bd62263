//! Text that is no text: bytes that are no UTF-8, halves of surrogate pairs in UTF-16, zeros within. It comes back to the
//! byte, or the step is refused with the reason.

use backout_model::conflict::OnConflict;
use backout_model::target::TargetError;
use rusqlite::Connection;

use crate::bed::{holds, live, same};
use crate::stage::{Stage, told};

/// Every value of the user's tables by its type and its bytes in the file's own encoding.
fn bytes(conn: &Connection) -> Vec<String> {
    let list = |sql: &str| -> Vec<String> {
        let mut select = conn.prepare(sql).unwrap();
        select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let mut lines = list(
        "SELECT name || sql FROM sqlite_schema WHERE sql IS NOT NULL AND tbl_name NOT LIKE 'backout%' ORDER BY rowid",
    );
    for table in list("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'backout%' ORDER BY 1") {
        let columns = list(&format!("SELECT name FROM pragma_table_info('{table}')"));
        let values: Vec<String> =
            columns.iter().map(|column| format!("typeof({column}) || ' ' || hex(CAST({column} AS BLOB))")).collect();
        let mut rows = list(&format!("SELECT '{table}: ' || {} FROM {table}", values.join(" || ', ' || ")));
        rows.sort();
        lines.append(&mut rows);
    }
    let check: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    lines
}

/// A whole character beyond 16 bits, then what is none.
const UTF_8: [&str; 5] = ["x'f09f9880'", "x'61ff62'", "x'eda08061'", "x'c0'", "x'610062'"];
const UTF_16_WHOLE: [&str; 4] = ["x'3dd800de'", "x'61000000ff00'", "x'fdff'", "x'ffdb00dcffff'"];
const UTF_16_HALVES: [&str; 5] = ["x'00d8'", "x'00d86100'", "x'00dc00d8'", "x'610000dc'", "x'3dd83dd800de'"];

fn swapped(text: &str) -> String {
    let digits: Vec<char> = text[2..text.len() - 1].chars().collect();
    let swapped: String = digits.chunks(4).flat_map(|unit| [unit[2], unit[3], unit[0], unit[1]]).collect();
    format!("x'{swapped}'")
}

const SCRIPTS: &[&str] = &[
    "UPDATE t SET a = 'new'",
    "UPDATE t SET b = 'new' WHERE id % 2",
    "DELETE FROM t WHERE id < 5",
    "DELETE FROM t; DELETE FROM w",
    "UPDATE w SET k = k || 'x'",
    "UPDATE w SET v = 7; UPDATE w SET v = 8",
    "DROP TABLE t; DROP TABLE w",
    "ALTER TABLE t DROP COLUMN a",
    "ALTER TABLE w DROP COLUMN v",
    "ALTER TABLE t RENAME TO tt; UPDATE tt SET a = a || 'x'",
    "CREATE TABLE y AS SELECT * FROM t; DELETE FROM t",
    "ALTER TABLE t ADD COLUMN c; UPDATE t SET c = a",
    "CREATE TABLE n(id INTEGER PRIMARY KEY, a TEXT, b); INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t",
    "CREATE TABLE n(k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO n SELECT * FROM w; DROP TABLE w; ALTER TABLE n RENAME TO w",
    "INSERT INTO t SELECT id + 5000, a, b FROM t; INSERT OR IGNORE INTO u SELECT a FROM t",
    "DELETE FROM sqlite_sequence",
];

fn setup(texts: &[String], rows: u32) -> String {
    let mut setup = "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b); CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
        CREATE TABLE u(a TEXT UNIQUE); CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO s VALUES (7);\n"
        .to_owned();
    for number in 1..=rows {
        let text = &texts[number as usize % texts.len()];
        setup += &format!(
            "INSERT INTO t VALUES ({number}, CAST({text} AS TEXT), CAST({text} AS TEXT) || {number});
             INSERT INTO w VALUES (CAST({text} AS TEXT) || {number}, CAST({text} AS TEXT));\n"
        );
    }
    setup += &format!("INSERT INTO sqlite_sequence VALUES (CAST({} AS TEXT), CAST({} AS TEXT));", texts[0], texts[1]);
    setup
}

/// Whether the script ran; where it did, undo and redo are exact.
fn there_and_back(mode: &str, setup: &str, script: &str, theirs: Option<&str>) -> bool {
    let what = format!("{mode} {script} {theirs:?}");
    let mut stage = live(mode, setup);
    let before = bytes(&stage.other());
    let images = match stage.try_apply(script) {
        Ok((images, _)) => images,
        Err(TargetError::Refused(refusal)) => {
            assert!(refusal.why.contains("UTF-16") && !refusal.ways_out.is_empty(), "{what}: {refusal:?}");
            same(&bytes(&stage.other()), &before, &what);
            return false;
        }
        Err(error) => panic!("{what}: {}", told(&error)),
    };
    let after = bytes(&stage.other());
    let Some(theirs) = theirs else {
        stage.undo(&images);
        same(&bytes(&stage.other()), &before, &format!("after the undo: {what}"));
        assert_eq!(holds(&mut stage), Vec::<String>::new(), "{what}");
        let again = stage.redo(&images);
        same(&bytes(&stage.other()), &after, &format!("after the redo: {what}"));
        stage.undo(&again);
        same(&bytes(&stage.other()), &before, &format!("after the second undo: {what}"));
        return true;
    };
    stage.other().execute_batch(theirs).unwrap();
    let now = bytes(&stage.other());
    match stage.try_undo(&images, OnConflict::Stop) {
        Ok(_) => {}
        Err(TargetError::Conflicts(_) | TargetError::Refused(_)) => {
            same(&bytes(&stage.other()), &now, &format!("a conflict changes nothing: {what}"));
            return true;
        }
        Err(error) => panic!("{what}: {}", told(&error)),
    }
    lost_nothing(&stage, theirs, &what);
    true
}

/// Others' rows have the text `mark` or its bytes in them, and are all there.
fn lost_nothing(stage: &Stage, theirs: &str, what: &str) {
    let there = bytes(&stage.other())
        .into_iter()
        .filter(|line| line.contains("7A007A007A00") || line.contains("7A7A7A") || line.contains("007A007A007A"))
        .count();
    assert_eq!(
        there,
        theirs.matches("7a7a7a").count()
            + theirs.matches("7a007a007a00").count()
            + theirs.matches("007a007a007a").count(),
        "{what}"
    );
}

#[test]
fn text_that_is_no_utf_8_comes_back_to_the_byte() {
    let texts = UTF_8.map(str::to_owned);
    for rows in [10, 700] {
        let setup = setup(&texts, rows);
        for script in SCRIPTS {
            assert!(there_and_back("", &setup, script, None), "{script}");
        }
    }
}

#[test]
fn whole_utf_16_comes_back_to_the_byte() {
    for (mode, big) in [("PRAGMA encoding = 'UTF-16le';", false), ("PRAGMA encoding = 'UTF-16be';", true)] {
        let texts = UTF_16_WHOLE.map(|text| if big { swapped(text) } else { text.to_owned() });
        for rows in [10, 700] {
            let setup = setup(&texts, rows);
            for script in SCRIPTS {
                assert!(there_and_back(mode, &setup, script, None), "{mode} {script}");
            }
        }
    }
}

#[test]
fn halves_of_surrogates_come_back_to_the_byte_or_the_step_is_refused() {
    let mut ran = 0;
    for (mode, big) in [("PRAGMA encoding = 'UTF-16le';", false), ("PRAGMA encoding = 'UTF-16be';", true)] {
        for rows in [10, 700] {
            let halves = if rows < 100 { &UTF_16_HALVES[..] } else { &UTF_16_HALVES[1..2] };
            for half in halves.iter().copied() {
                let texts = [half, UTF_16_WHOLE[0], half].map(|text| if big { swapped(text) } else { text.to_owned() });
                let setup = setup(&texts, rows);
                for script in SCRIPTS {
                    ran += u32::from(there_and_back(mode, &setup, script, None));
                }
                // Written by the step itself.
                let made = format!("INSERT INTO u VALUES (CAST({} AS TEXT))", texts[0]);
                assert!(!there_and_back(mode, &setup, &made, None), "{made}");
                // What does not touch such text runs.
                assert!(there_and_back(mode, &setup, "INSERT INTO u VALUES ('whole'); UPDATE s SET id = 8", None));
            }
        }
    }
    assert!(ran > 0, "what never reads a value need not be refused");
}

#[test]
fn what_others_write_in_halves_is_not_lost() {
    for (mode, texts, theirs) in [
        ("", UTF_8.map(str::to_owned).to_vec(), "7a7a7aff"),
        ("PRAGMA encoding = 'UTF-16le';", UTF_16_WHOLE.map(str::to_owned).to_vec(), "7a007a007a0000d8"),
        ("PRAGMA encoding = 'UTF-16be';", UTF_16_WHOLE.map(swapped).to_vec(), "007a007a007ad800"),
    ] {
        for rows in [10, 700] {
            let setup = setup(&texts, rows);
            for script in SCRIPTS.iter().filter(|script| rows < 100 || script.contains("CREATE")) {
                for written in [
                    "UPDATE OR IGNORE t SET b = CAST(x'TEXT' AS TEXT) WHERE id = 3",
                    "UPDATE OR IGNORE t SET a = CAST(x'TEXT' AS TEXT) WHERE id = 4",
                    "INSERT INTO t(id, b) VALUES (9000, CAST(x'TEXT' AS TEXT))",
                    "INSERT INTO w(k) VALUES (CAST(x'TEXT' AS TEXT))",
                    "UPDATE w SET v = CAST(x'TEXT' AS TEXT) WHERE k = (SELECT min(k) FROM w)",
                    "INSERT INTO u VALUES (CAST(x'TEXT' AS TEXT))",
                ] {
                    let table = written
                        .split_whitespace()
                        .find(|word| {
                            matches!(*word, "t" | "w" | "u") || word.starts_with("t(") || word.starts_with("w(")
                        })
                        .unwrap();
                    let column_gone =
                        script.contains("DROP COLUMN") && (written.contains("SET a") || written.contains("SET v"));
                    let gone =
                        script.starts_with("DROP TABLE") || script.contains("RENAME TO tt") && table.starts_with('t');
                    let renamed = script.contains("DELETE FROM") && written.contains("UPDATE");
                    if gone || column_gone || renamed {
                        continue;
                    }
                    there_and_back(mode, &setup, script, Some(&written.replace("TEXT'", &format!("{theirs}'"))));
                }
            }
        }
    }
}

#[test]
fn a_definition_that_is_no_utf_8_is_let_alone() {
    let odd = "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = CAST(unhex(replace(hex(sql), hex('ODD'), 'FF')) AS TEXT); PRAGMA writable_schema = RESET";
    let setup = "CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 'x'); CREATE TABLE u(a);
         CREATE VIEW odd AS SELECT a, 'ODD' FROM t; CREATE TABLE odd_one(a DEFAULT 'ODD'); CREATE VIEW of_u AS SELECT a FROM u";
    let typed = |conn: &Connection| -> Vec<String> {
        let mut select = conn
            .prepare("SELECT name || hex(sql) FROM sqlite_schema WHERE name NOT LIKE 'backout%' ORDER BY rowid")
            .unwrap();
        select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    // ALTER TABLE would write it, and nobody could write it back.
    let mut stage = live("", "CREATE TABLE u(a); CREATE VIEW odd AS SELECT a, 'ODD' FROM uu");
    stage.other().execute_batch(odd).unwrap();
    let (images, _) = stage.try_apply("PRAGMA legacy_alter_table = ON; ALTER TABLE u RENAME TO uu").unwrap();
    stage.other().execute_batch("CREATE INDEX i ON uu(a)").unwrap();
    let now = typed(&stage.other());
    assert_eq!(stage.conflicts(&images).listed[0].object, "index i");
    stage.try_undo(&images, OnConflict::Keep).unwrap();
    same(&typed(&stage.other()), &now, "");
    for (script, runs) in [
        ("CREATE TABLE n(a)", true),
        ("ALTER TABLE u RENAME TO uu", true),
        ("ALTER TABLE u ADD COLUMN b; UPDATE t SET a = 'y'; DELETE FROM odd_one", true),
        ("ALTER TABLE t RENAME TO tt", false),
        ("ALTER TABLE t RENAME COLUMN a TO b", false),
        ("DROP VIEW odd", false),
        ("DROP TABLE odd_one", false),
        ("ALTER TABLE odd_one RENAME TO odd_two", false),
    ] {
        let mut stage = live("", setup);
        stage.other().execute_batch(odd).unwrap();
        let before = typed(&stage.other());
        match stage.try_apply(script) {
            Ok((images, _)) => {
                assert!(runs, "{script}");
                let after = typed(&stage.other());
                // Others make one, too.
                stage.other().execute_batch(&format!("CREATE VIEW odd_too AS SELECT a, 'ODD' FROM t; {odd}")).unwrap();
                stage.undo(&images);
                let again = stage.redo(&images);
                stage.other().execute_batch("DROP VIEW odd_too").unwrap();
                same(&typed(&stage.other()), &after, script);
                stage.undo(&again);
            }
            Err(TargetError::Refused(refusal)) => {
                assert!(!runs && refusal.why.contains("UTF-8"), "{script}: {refusal:?}")
            }
            Err(error) => panic!("{script}: {}", told(&error)),
        }
        same(&typed(&stage.other()), &before, script);
    }
}

#[test]
fn rows_of_others_in_halves_are_not_taken_out_and_brought_back() {
    let setup =
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b); INSERT INTO t VALUES (1, 'one', 1), (2, 'two', 2)";
    let mut stage = live("PRAGMA encoding = 'UTF-16le';", setup);
    let (images, _) = stage.try_apply("UPDATE t SET a = a || 'x'; UPDATE t SET a = a || 'y'").unwrap();
    stage.other().execute_batch("UPDATE t SET a = 'theirs', b = CAST(x'00d8' AS TEXT) WHERE id = 1").unwrap();
    let now = bytes(&stage.other());
    for manner in [OnConflict::Stop, OnConflict::Keep, OnConflict::Overwrite] {
        match stage.try_undo(&images, manner) {
            Err(TargetError::Refused(refusal)) => assert!(refusal.why.contains("column b of t"), "{refusal:?}"),
            other => panic!("{manner:?} {other:?}"),
        }
        same(&bytes(&stage.other()), &now, "");
    }
}
