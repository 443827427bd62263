//! Every way in which a statement changes rows: captured, undone to what was, and done again.

use std::io::Cursor;

use backout_model::conflict::{ConflictKind, OnConflict};
use backout_model::target::Target;

use crate::stage::{Stage, told};

/// Applies, undoes, redoes, undoes again; compares at each turn.
pub fn there_and_back(setup: &str, change: &str) {
    let mut stage = Stage::new(setup);
    let before = stage.dump();
    let images = stage.apply(change);
    let applied = stage.dump();
    assert_ne!(applied, before, "the change changes nothing: {change}");
    stage.undo(&images);
    assert_eq!(stage.dump(), before, "undo of {change}");
    let again = stage.redo(&images);
    assert_eq!(stage.dump(), applied, "redo of {change}");
    stage.undo(&again);
    assert_eq!(stage.dump(), before, "undo after redo of {change}");
}

pub const PLAIN: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b TEXT DEFAULT 'd', c REAL);
    INSERT INTO t VALUES (1, 1, 'one', 1), (2, NULL, '', 2.5), (3, x'00ff', 'thr''ee', -0.0),
        (4, 'text', NULL, 1e300), (-5, 9223372036854775807, 'ü', NULL);";

#[test]
fn plain_statements() {
    for change in [
        "INSERT INTO t VALUES (7, 1, 2, 3);",
        "INSERT INTO t (a) VALUES (1), (2), (3);",
        "INSERT INTO t DEFAULT VALUES;",
        "INSERT INTO t SELECT id + 100, a, b, c FROM t;",
        "UPDATE t SET a = 1.0 WHERE a = 1;",
        "UPDATE t SET a = 5, b = b || 'x', c = c + 1;",
        "UPDATE t SET a = -0.0; UPDATE t SET a = 0.0;",
        "UPDATE t SET a = id; UPDATE t SET a = a + 1; UPDATE t SET b = 'z';",
        "DELETE FROM t WHERE id > 2;",
        "DELETE FROM t;",
        "DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 'again', 'x', 3);",
        "INSERT INTO t VALUES (9, 1, 1, 1); UPDATE t SET a = 2 WHERE id = 9; DELETE FROM t WHERE id = 1;",
        "REPLACE INTO t VALUES (1, 'replaced', 'r', 4);",
        "INSERT OR REPLACE INTO t SELECT id, 'all', b, c FROM t;",
        "INSERT INTO t VALUES (1, 'up', 'u', 1) ON CONFLICT (id) DO UPDATE SET a = excluded.a, c = c + 10;",
        "INSERT OR IGNORE INTO t VALUES (1, 0, 0, 0), (50, 0, 0, 0);",
        "UPDATE t SET a = 'r' WHERE id = 1 RETURNING *; INSERT INTO t VALUES (88, 1, 1, 1) RETURNING id;",
        "UPDATE t SET id = id + 1000;",
        "UPDATE t SET id = -id; UPDATE t SET id = id * 2;",
        "UPDATE t SET a = x'', b = '';",
        "UPDATE t SET a = zeroblob(200000), b = hex(zeroblob(100000));",
        "WITH big AS (SELECT id FROM t WHERE id > 1) DELETE FROM t WHERE id IN big;",
        "SELECT * FROM t; UPDATE t SET a = 3 WHERE id = 3;",
        "BEGIN; UPDATE t SET a = 4; COMMIT;",
        "PRAGMA user_version = 42; PRAGMA application_id = 7;",
        "UPDATE t SET a = (SELECT max(id) FROM t) WHERE id = 2; -- the end",
    ] {
        there_and_back(PLAIN, change);
    }
}

#[test]
fn triggers_and_cascades_are_captured_and_do_not_fire_again() {
    let setup = "
        CREATE TABLE parent (id INTEGER PRIMARY KEY, n INT);
        CREATE TABLE child (id INTEGER PRIMARY KEY, parent INT REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
        CREATE TABLE weak (id INTEGER PRIMARY KEY, parent INT REFERENCES parent ON DELETE SET NULL);
        CREATE TABLE log (at INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT);
        CREATE TRIGGER on_update AFTER UPDATE ON parent BEGIN
            INSERT INTO log (what) VALUES ('update ' || old.n || ' ' || new.n);
            UPDATE parent SET n = n + 100 WHERE id = new.id AND n < 100;
        END;
        CREATE TRIGGER on_delete BEFORE DELETE ON parent BEGIN INSERT INTO log (what) VALUES ('delete ' || old.id); END;
        CREATE TRIGGER on_insert BEFORE INSERT ON parent BEGIN UPDATE parent SET n = -1 WHERE id = 1; END;
        INSERT INTO parent VALUES (1, 1), (2, 2), (3, 3);
        INSERT INTO child VALUES (10, 1), (11, 2), (12, 2), (13, NULL);
        INSERT INTO weak VALUES (20, 2), (21, 3);";
    for change in [
        "PRAGMA foreign_keys = ON; DELETE FROM parent WHERE id = 2;",
        "PRAGMA foreign_keys = ON; UPDATE parent SET id = id + 50 WHERE id = 1;",
        "UPDATE parent SET n = n + 1;",
        "INSERT INTO parent VALUES (4, 4);",
        "REPLACE INTO parent VALUES (2, 9);",
        "PRAGMA recursive_triggers = ON; REPLACE INTO parent VALUES (2, 9);",
        "DELETE FROM parent WHERE id = 3; DELETE FROM weak WHERE id = 21;",
    ] {
        there_and_back(setup, change);
    }
}

#[test]
fn tables_of_every_kind() {
    let cases = [
        (
            "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2), (1, 2), (NULL, NULL);",
            "UPDATE t SET a = a + 1; DELETE FROM t WHERE a IS NULL; INSERT INTO t VALUES (1, 2);",
        ),
        (
            "CREATE TABLE t (a TEXT, b, PRIMARY KEY (a, b)); INSERT INTO t VALUES (NULL, NULL), (NULL, NULL), ('x', 1);",
            "UPDATE t SET b = 7; DELETE FROM t WHERE a = 'x';",
        ),
        (
            "CREATE TABLE t (a TEXT COLLATE NOCASE PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO t VALUES ('a', 1), ('b', 2);",
            "UPDATE t SET a = upper(a); UPDATE t SET b = 3 WHERE a = 'b'; INSERT INTO t VALUES ('c', 3);",
        ),
        (
            "CREATE TABLE t (b, c, a INT, d INT, PRIMARY KEY (d, a)) WITHOUT ROWID; INSERT INTO t VALUES (1, 2, 3, 4), (5, 6, 7, 8);",
            "UPDATE t SET a = a + 1, c = 'x'; DELETE FROM t WHERE d = 8; REPLACE INTO t VALUES (0, 0, 4, 4);",
        ),
        (
            "CREATE TABLE t (a INT, b TEXT, c ANY, d REAL) STRICT; INSERT INTO t VALUES (1, 'x', 1.0, 2), (2, 'y', 1, 3.5);",
            "UPDATE t SET c = 1 WHERE a = 1; UPDATE t SET c = 1.0, d = 4 WHERE a = 2;",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, v INT AS (a * 2) VIRTUAL, s INT AS (a * 3) STORED, z); CREATE INDEX i ON t (v); INSERT INTO t (id, a, z) VALUES (1, 1, 'p'), (2, 2, 'q');",
            "UPDATE t SET a = a + 5; DELETE FROM t WHERE id = 2; INSERT INTO t (id, a) VALUES (7, 7);",
        ),
        (
            "CREATE TABLE t (v AS (b || 'x'), b, w AS (b) STORED, PRIMARY KEY (b)) WITHOUT ROWID; INSERT INTO t (b) VALUES ('p'), ('q');",
            "DELETE FROM t WHERE b = 'p'; INSERT INTO t (b) VALUES ('new'); UPDATE t SET b = 'r' WHERE b = 'q';",
        ),
        (
            "CREATE TABLE t (rowid TEXT, b); INSERT INTO t VALUES ('x', 1), ('y', 2);",
            "UPDATE t SET rowid = 'z' WHERE b = 1; DELETE FROM t WHERE b = 2;",
        ),
        (
            "CREATE TABLE t (rowid, _rowid_, oid INTEGER PRIMARY KEY); INSERT INTO t VALUES ('x', 1, 3);",
            "UPDATE t SET rowid = 'z'; INSERT INTO t VALUES (1, 2, 9);",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY DESC, a); INSERT INTO t VALUES (1, 2), (3, 4);",
            "UPDATE t SET id = 5 WHERE a = 2; DELETE FROM t WHERE id = 3;",
        ),
        (
            "CREATE TABLE \"we\"\"ird ' name\" (\"a b\" INTEGER PRIMARY KEY, \"sel\"\"ect\"); INSERT INTO \"we\"\"ird ' name\" VALUES (1, 2);",
            "UPDATE \"we\"\"ird ' name\" SET \"sel\"\"ect\" = 3; INSERT INTO \"we\"\"ird ' name\" VALUES (8, 8);",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a); INSERT INTO t (a) VALUES (1), (2); CREATE TABLE u (id INTEGER PRIMARY KEY AUTOINCREMENT);",
            "INSERT INTO t (a) VALUES (3); DELETE FROM t WHERE id = 3; INSERT INTO u DEFAULT VALUES;",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a); INSERT INTO t (a) VALUES (1), (2);",
            "UPDATE sqlite_sequence SET seq = 70; INSERT INTO t (a) VALUES (3); DELETE FROM sqlite_sequence;",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE, p INT CHECK (p > 0)); CREATE UNIQUE INDEX e ON t (lower(u)) WHERE p > 1; INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3);",
            "UPDATE t SET u = u || 'x'; UPDATE t SET u = 'ax' WHERE id = 4; REPLACE INTO t VALUES (9, 'bx', 4); INSERT OR REPLACE INTO t VALUES (3, 'ax', 5);",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE); INSERT INTO t VALUES (1, 'a'), (2, 'b');",
            "UPDATE t SET u = 'tmp' WHERE id = 1; UPDATE t SET u = 'a' WHERE id = 2; UPDATE t SET u = 'b' WHERE id = 1;",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a); CREATE VIEW v AS SELECT * FROM t; CREATE TRIGGER iv INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (new.id, new.a); END;",
            "INSERT INTO v VALUES (1, 2), (3, 4);",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); INSERT INTO t VALUES (1, CAST(x'ff00fe' AS TEXT)), (2, 'ok');",
            "UPDATE t SET a = CAST(x'c328' AS TEXT); DELETE FROM t WHERE id = 2;",
        ),
        (
            "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b BLOB); INSERT INTO t VALUES (1, 'grün 😀', x'01'), (2, '', NULL);",
            "UPDATE t SET a = a || '…'; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (5, 'é', 'é');",
        ),
        (
            "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 1);",
            "UPDATE t SET a = 2; INSERT INTO t VALUES (2, 2);",
        ),
    ];
    for (setup, change) in cases {
        there_and_back(setup, change);
    }
}

#[test]
fn many_rows_over_many_blocks() {
    let setup = "CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, b TEXT);
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        INSERT INTO t SELECT i, i * 7 % 1000, 'row ' || i || hex(randomblob(20)) FROM n;
        CREATE INDEX i ON t (a); CREATE TABLE u AS SELECT * FROM t WHERE 0;";
    for change in [
        "UPDATE t SET a = a + 1, b = 'new';",
        "DELETE FROM t WHERE id % 3 = 0; DELETE FROM t WHERE id % 3 = 1;",
        "INSERT INTO t SELECT id + 10000, a, b FROM t; INSERT INTO u SELECT * FROM t;",
        "UPDATE t SET a = 0 WHERE id % 2; DELETE FROM t WHERE id % 5 = 0; REPLACE INTO t SELECT id, 5, b FROM t;",
    ] {
        there_and_back(setup, change);
    }
}

#[test]
fn a_failing_script_leaves_nothing() {
    let mut stage = Stage::new(PLAIN);
    let before = stage.dump();
    for change in [
        "UPDATE t SET a = 1; INSERT INTO t (id) VALUES (1);",
        "UPDATE t SET a = 1; SELECT * FROM nowhere;",
        "UPDATE t SET a = 1; COMMIT; UPDATE t SET a = 2;",
        "BEGIN; UPDATE t SET a = 1; COMMIT; UPDATE t SET a = 2;",
        "UPDATE t SET a = 1; BEGIN;",
        "UPDATE t SET a = 1; ROLLBACK;",
        "UPDATE t SET a = no_such_function(a);",
        "UPDATE t SET a = 1; UPDATE backout_shop SET seq = 900;",
        "INSERT OR ROLLBACK INTO t (id) VALUES (1);",
    ] {
        let error = stage.try_apply(change).unwrap_err();
        assert!(told(&error).contains("sql/script.sql:1"), "{change}: {}", told(&error));
        assert_eq!(stage.dump(), before, "{change}");
    }
    let images = stage.apply("UPDATE t SET a = 77;");
    stage.undo(&images);
    assert_eq!(stage.dump(), before);
}

#[test]
fn settings_of_a_script_end_with_it() {
    let mut stage = Stage::new(
        "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p); INSERT INTO p VALUES (1); INSERT INTO c VALUES (1);",
    );
    stage.try_apply("PRAGMA foreign_keys = ON; DELETE FROM p;").unwrap_err();
    stage.apply("DELETE FROM p;");
}

#[test]
fn columns_of_others_keep_their_values() {
    let mut stage = Stage::new(PLAIN);
    let images = stage.apply("UPDATE t SET a = 'ours' WHERE id IN (1, 2); INSERT INTO t VALUES (8, 1, 1, 1);");
    stage.other().execute_batch("UPDATE t SET b = 'theirs' WHERE id = 1; INSERT INTO t VALUES (9, 9, 9, 9)").unwrap();
    let report = stage.undo(&images);
    assert!(report.conflicts.is_empty());
    let rows = stage.dump();
    assert!(rows.contains(&"t: i1 i1 i1 t\"theirs\" r3ff0000000000000".to_owned()), "{rows:#?}");
    assert!(rows.iter().any(|row| row.starts_with("t: i9 ")) && !rows.iter().any(|row| row.starts_with("t: i8 ")));
}

#[test]
fn each_kind_of_conflict_and_each_way_out() {
    struct Case {
        change: &'static str,
        others: &'static str,
        kind: ConflictKind,
        key: &'static str,
        keep: &'static str,
        overwrite: &'static str,
    }
    let cases = [
        Case {
            change: "UPDATE t SET a = 'ours' WHERE id = 1;",
            others: "UPDATE t SET a = 'theirs', b = 'b' WHERE id = 1",
            kind: ConflictKind::Changed,
            key: "id=1",
            keep: "SELECT a = 'theirs' AND b = 'b' FROM t WHERE id = 1",
            overwrite: "SELECT a = 1 AND b = 'b' FROM t WHERE id = 1",
        },
        Case {
            change: "UPDATE t SET a = 'ours' WHERE id = 1;",
            others: "DELETE FROM t WHERE id = 1",
            kind: ConflictKind::Missing,
            key: "id=1",
            keep: "SELECT count(*) = 0 FROM t WHERE id = 1",
            overwrite: "SELECT a = 1 AND b = 'one' FROM t WHERE id = 1",
        },
        Case {
            change: "INSERT INTO t VALUES (7, 'ours', 'x', 1);",
            others: "UPDATE t SET b = 'theirs' WHERE id = 7",
            kind: ConflictKind::Changed,
            key: "id=7",
            keep: "SELECT b = 'theirs' FROM t WHERE id = 7",
            overwrite: "SELECT count(*) = 0 FROM t WHERE id = 7",
        },
        Case {
            change: "DELETE FROM t WHERE id = 3;",
            others: "INSERT INTO t VALUES (3, 'theirs', 'y', 2)",
            kind: ConflictKind::Appeared,
            key: "id=3",
            keep: "SELECT a = 'theirs' FROM t WHERE id = 3",
            overwrite: "SELECT a = x'00ff' AND b = 'thr''ee' FROM t WHERE id = 3",
        },
        Case {
            change: "DELETE FROM u WHERE id = 1;",
            others: "INSERT INTO u VALUES (2, 'k')",
            kind: ConflictKind::Constraint,
            key: "id=1",
            keep: "SELECT count(*) = 1 FROM u WHERE id = 2",
            overwrite: "SELECT count(*) = 1 AND min(id) = 1 FROM u",
        },
        Case {
            change: "UPDATE u SET k = 'ours' WHERE id = 1;",
            others: "INSERT INTO u VALUES (2, 'k')",
            kind: ConflictKind::Constraint,
            key: "id=1",
            keep: "SELECT k = 'ours' FROM u WHERE id = 1",
            overwrite: "SELECT count(*) = 1 AND min(k) = 'k' FROM u",
        },
        Case {
            change: "UPDATE t SET a = 2 WHERE id = 1; UPDATE t SET a = 3 WHERE id = 1;",
            others: "UPDATE t SET a = 2 WHERE id = 1",
            kind: ConflictKind::Changed,
            key: "id=1",
            keep: "SELECT a = 2 FROM t WHERE id = 1",
            overwrite: "SELECT a = 1 FROM t WHERE id = 1",
        },
        Case {
            change: "INSERT INTO p VALUES (5);",
            others: "INSERT INTO c VALUES (5)",
            kind: ConflictKind::ForeignKey,
            key: "rowid=1",
            keep: "SELECT 1",
            overwrite: "SELECT 1",
        },
        Case {
            change: "UPDATE w SET v = 'ours' WHERE k = 'a';",
            others: "UPDATE w SET v = 'theirs' WHERE k = 'a'",
            kind: ConflictKind::Changed,
            key: "k='a'",
            keep: "SELECT v = 'theirs' FROM w WHERE k = 'a'",
            overwrite: "SELECT v IS NULL FROM w WHERE k = 'a'",
        },
    ];
    let setup = format!(
        "{PLAIN} CREATE TABLE u (id INTEGER PRIMARY KEY, k UNIQUE); INSERT INTO u VALUES (1, 'k');
         CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p);
         CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO w VALUES ('a', NULL);"
    );
    for case in cases {
        for on_conflict in [OnConflict::Stop, OnConflict::Keep, OnConflict::Overwrite] {
            let mut stage = Stage::new(&setup);
            let images = stage.apply(case.change);
            stage.other().execute_batch(case.others).unwrap();
            let then = stage.dump();
            let check = stage
                .database
                .check_undo(&mut std::iter::once(boxed(&images)), on_conflict)
                .unwrap_or_else(|error| panic!("{}", told(&error)));
            assert_eq!(stage.dump(), then, "check_undo changed something");
            assert_eq!(check.conflicts.listed[0].kind, case.kind, "{} {}", case.change, case.others);
            // Of a row that appeared each value is told.
            let each: u64 = if case.kind == ConflictKind::Appeared { 3 } else { 1 };
            if on_conflict == OnConflict::Stop {
                let conflicts = stage.conflicts(&images);
                assert_eq!(conflicts.listed.len() as u64, each, "{conflicts:?}");
                assert_eq!(conflicts.listed[0].kind, case.kind);
                assert_eq!(conflicts.listed[0].key.as_deref(), Some(case.key));
                assert_eq!(stage.dump(), then, "a conflict must change nothing");
                continue;
            }
            let report = stage.try_undo(&images, on_conflict).unwrap_or_else(|error| panic!("{}", told(&error)));
            assert_eq!(report.conflicts.total, each, "{:?}", report.conflicts);
            let ask = if on_conflict == OnConflict::Keep { case.keep } else { case.overwrite };
            let holds: bool = stage.other().query_row(ask, [], |row| row.get(0)).unwrap();
            assert!(holds, "{on_conflict:?} of {}: {ask}: {:#?}", case.change, stage.dump());
        }
    }
}

pub fn boxed(images: &[u8]) -> Box<dyn backout_model::target::Images> {
    Box::new(Cursor::new(images.to_vec()))
}

#[test]
fn what_others_made_as_undo_would_is_no_conflict() {
    for (change, others) in [
        ("UPDATE t SET a = 2 WHERE id = 1;", "UPDATE t SET a = 1 WHERE id = 1"),
        ("DELETE FROM t WHERE id = 2;", "INSERT INTO t VALUES (2, NULL, '', 2.5)"),
        ("INSERT INTO t VALUES (7, 1, 1, 1);", "DELETE FROM t WHERE id = 7"),
    ] {
        let mut stage = Stage::new(PLAIN);
        let before = stage.dump();
        let images = stage.apply(change);
        stage.other().execute_batch(others).unwrap();
        assert!(stage.undo(&images).conflicts.is_empty());
        assert_eq!(stage.dump(), before);
    }
}

#[test]
fn equal_is_not_the_same() {
    for (change, others) in [
        ("UPDATE t SET a = 5 WHERE id = 1;", "UPDATE t SET a = 5.0 WHERE id = 1"),
        ("UPDATE t SET a = 0.0 WHERE id = 1;", "UPDATE t SET a = -0.0 WHERE id = 1"),
        ("UPDATE n SET a = 'x' WHERE id = 1;", "UPDATE n SET a = 'X' WHERE id = 1"),
        ("UPDATE t SET a = 'x' WHERE id = 1;", "UPDATE t SET a = x'78' WHERE id = 1"),
    ] {
        let mut stage = Stage::new(&format!(
            "{PLAIN} CREATE TABLE n (id INTEGER PRIMARY KEY, a TEXT COLLATE NOCASE); INSERT INTO n VALUES (1, 'o');"
        ));
        let images = stage.apply(change);
        // By parameter where a literal would lose its sign.
        if others.contains("-0.0") {
            stage.other().execute("UPDATE t SET a = ?1 WHERE id = 1", [-0.0_f64]).unwrap();
        } else {
            stage.other().execute_batch(others).unwrap();
        }
        assert_eq!(stage.conflicts(&images).total, 1, "{others}");
    }
}

#[test]
fn a_unique_value_that_moves_round_goes_back_by_net_effect() {
    let mut stage = Stage::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE, n); INSERT INTO t VALUES (1, 'a', 0), (2, 'b', 0), (3, 'c', 0);",
    );
    let images = stage.apply(
        "UPDATE t SET u = 'x' WHERE id = 1; UPDATE t SET u = 'a' WHERE id = 2; UPDATE t SET u = 'b' WHERE id = 3;
         UPDATE t SET u = 'c' WHERE id = 1; UPDATE t SET n = 1;",
    );
    // Somebody else's change of a row that was touched twice makes the replay in order impossible to trust.
    stage.other().execute_batch("UPDATE t SET n = 9 WHERE id = 2").unwrap();
    assert_eq!(stage.conflicts(&images).total, 1);
    stage.try_undo(&images, OnConflict::Keep).unwrap();
    let rows: String = stage
        .other()
        .query_row("SELECT group_concat(id || u || n, ' ') FROM (SELECT * FROM t ORDER BY id)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, "1a0 2b9 3c0");
}

#[test]
fn a_replaced_row_merges_like_an_updated_one() {
    let mut stage = Stage::new("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES (1, 'a', 'b');");
    let images = stage.apply("REPLACE INTO t VALUES (1, 'new', 'b');");
    stage.other().execute_batch("UPDATE t SET b = 'theirs'").unwrap();
    stage.undo(&images);
    let row: String = stage.other().query_row("SELECT a || b FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(row, "atheirs");
}

#[test]
fn counters_that_were_used_since_stay_and_are_noted() {
    let mut stage =
        Stage::new("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a); INSERT INTO t (a) VALUES (1);");
    let images = stage.apply("INSERT INTO t (a) VALUES (2);");
    stage.other().execute_batch("INSERT INTO t (a) VALUES (3);").unwrap();
    let report = stage.undo(&images);
    assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
    let seq: i64 = stage.other().query_row("SELECT seq FROM sqlite_sequence", [], |row| row.get(0)).unwrap();
    assert_eq!(seq, 3);
}

#[test]
fn orphans_that_were_there_are_no_conflict() {
    let mut stage = Stage::new(
        "CREATE TABLE p (id INTEGER PRIMARY KEY, n); CREATE TABLE c (p REFERENCES p);
         INSERT INTO c VALUES (99); INSERT INTO p VALUES (1, 1);",
    );
    let before = stage.dump();
    let images = stage.apply("UPDATE p SET n = 2; INSERT INTO p VALUES (2, 2);");
    stage.undo(&images);
    assert_eq!(stage.dump(), before);
}

#[test]
fn orphans_come_back_as_they_were_and_new_ones_do_not() {
    const SETUP: &str =
        "CREATE TABLE p (id INTEGER PRIMARY KEY, n); CREATE TABLE c (id INTEGER PRIMARY KEY, p INT REFERENCES p);
         CREATE TABLE x (a, b, PRIMARY KEY (a, b)); CREATE TABLE y (a, b, FOREIGN KEY (a, b) REFERENCES x);
         INSERT INTO p VALUES (1, 1), (2, 2); INSERT INTO c VALUES (10, 1), (11, 2), (12, 99);
         INSERT INTO x VALUES (1, 1), (2, 2); INSERT INTO y VALUES (1, 1), (2, 2), (3, 3);";
    // A clean-up of rows that point at nothing, and rows of all kinds that point at something.
    for change in [
        "DELETE FROM c WHERE p NOT IN (SELECT id FROM p);",
        "UPDATE c SET p = NULL WHERE p NOT IN (SELECT id FROM p); UPDATE y SET a = NULL;",
        "DELETE FROM c; DELETE FROM p; DELETE FROM y; DELETE FROM x;",
        "INSERT INTO p VALUES (99, 99); UPDATE p SET id = id + 200; UPDATE c SET p = p + 200;",
    ] {
        for mode in ["", "PRAGMA journal_mode = WAL;"] {
            let mut stage = Stage::new(&format!("{mode}{SETUP}"));
            let before = stage.dump();
            let images = stage.apply(change);
            let after = stage.dump();
            stage.undo(&images);
            assert_eq!(stage.dump(), before, "{change}");
            let again = stage.redo(&images);
            assert_eq!(stage.dump(), after, "{change}");
            stage.undo(&again);
            assert_eq!(stage.dump(), before, "{change}");
        }
    }
    // Somebody else took away what the rows that come back point at, or points at what has to go.
    for (change, others, conflicts) in [
        ("DELETE FROM c WHERE id = 10;", "DELETE FROM p WHERE id = 1", 1),
        ("UPDATE c SET p = 2 WHERE id = 10;", "DELETE FROM p WHERE id = 1", 1),
        ("DELETE FROM y WHERE a = 1;", "DELETE FROM x WHERE a = 1", 1),
        ("INSERT INTO p VALUES (5, 5);", "INSERT INTO c VALUES (20, 5), (21, 5)", 2),
        ("INSERT INTO x VALUES (5, 5);", "INSERT INTO y VALUES (5, 5)", 1),
        ("UPDATE p SET id = 3 WHERE id = 2; UPDATE c SET p = 3 WHERE p = 2;", "INSERT INTO c VALUES (20, 3)", 1),
    ] {
        let mut stage = Stage::new(SETUP);
        let images = stage.apply(change);
        stage.other().execute_batch(others).unwrap();
        let found = stage.conflicts(&images);
        assert!(found.listed.iter().all(|one| one.kind == ConflictKind::ForeignKey), "{change}: {found:?}");
        assert_eq!(found.total, conflicts, "{change}");
    }
}
