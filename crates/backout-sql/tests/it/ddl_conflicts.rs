//! What others changed in the schema since, and each way out of it; what is refused, and how errors name their place.

use backout_model::conflict::{ConflictKind, OnConflict};
use backout_model::target::TargetError;
use rusqlite::Connection;

use crate::bed::{apply, holds, live, same};
use crate::stage::{Stage, dump, told};

const BASE: &str = "
CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INT DEFAULT 3);
CREATE INDEX t_a ON t(a);
CREATE UNIQUE INDEX t_u ON t(a, id % 1);
INSERT INTO t(a) VALUES ('one'), ('two'), ('three');
CREATE TABLE u(id INTEGER PRIMARY KEY, t INT REFERENCES t(id));
CREATE TABLE q(v INT CONSTRAINT pos CHECK (v > 0));
";

/// For what there is no overwriting.
const REFUSED: &str = "refused, and nothing is changed";

struct Case {
    script: &'static str,
    theirs: &'static str,
    kinds: &'static [ConflictKind],
    /// What `keep` and `overwrite` leave, asked by a query.
    query: &'static str,
    kept: &'static str,
    overwritten: &'static str,
}

const CASES: &[Case] = &[
    Case {
        script: "CREATE TABLE n(a)",
        theirs: "INSERT INTO n VALUES (1), (2)",
        kinds: &[ConflictKind::NotEmpty],
        query: "SELECT group_concat(name) FROM sqlite_schema WHERE name = 'n'",
        kept: "n",
        overwritten: "",
    },
    Case {
        script: "CREATE TABLE n(a)",
        theirs: "ALTER TABLE n ADD COLUMN b",
        kinds: &[ConflictKind::Definition],
        query: "SELECT group_concat(name) FROM sqlite_schema WHERE name = 'n'",
        kept: "n",
        overwritten: "",
    },
    Case {
        script: "CREATE TABLE n(a)",
        theirs: "CREATE INDEX n_a ON n(a)",
        kinds: &[ConflictKind::Definition],
        query: "SELECT group_concat(name) FROM sqlite_schema WHERE name IN ('n', 'n_a')",
        kept: "n,n_a",
        overwritten: "",
    },
    Case {
        script: "CREATE VIEW v AS SELECT a FROM t",
        theirs: "DROP VIEW v; CREATE VIEW v AS SELECT b FROM t",
        kinds: &[ConflictKind::Definition],
        query: "SELECT group_concat(sql) FROM sqlite_schema WHERE name = 'v'",
        kept: "CREATE VIEW v AS SELECT b FROM t",
        overwritten: "",
    },
    Case {
        script: "DROP TABLE u",
        theirs: "CREATE TABLE u(other); INSERT INTO u VALUES (1)",
        kinds: &[ConflictKind::Appeared],
        query: "SELECT sql FROM sqlite_schema WHERE name = 'u'",
        kept: "CREATE TABLE u(other)",
        overwritten: "CREATE TABLE u(id INTEGER PRIMARY KEY, t INT REFERENCES t(id))",
    },
    Case {
        script: "DROP INDEX t_u",
        theirs: "INSERT INTO t(a) VALUES ('one')",
        kinds: &[ConflictKind::Constraint],
        query: "SELECT group_concat(name) FROM sqlite_schema WHERE type = 'index'",
        kept: "t_a",
        overwritten: REFUSED,
    },
    Case {
        script: "DROP INDEX t_a",
        theirs: "DROP TABLE t",
        kinds: &[ConflictKind::Definition],
        query: "SELECT count(*) || '' FROM sqlite_schema WHERE type = 'index'",
        kept: "0",
        overwritten: REFUSED,
    },
    Case {
        script: "ALTER TABLE t ADD COLUMN c INT DEFAULT 5",
        theirs: "UPDATE t SET c = 6 WHERE id = 2; INSERT INTO t(a) VALUES ('more')",
        kinds: &[ConflictKind::Changed],
        query: "SELECT group_concat(name) FROM pragma_table_info('t')",
        kept: "id,a,b,c",
        overwritten: "id,a,b",
    },
    Case {
        script: "ALTER TABLE t ADD COLUMN c INT",
        theirs: "CREATE INDEX t_c ON t(c)",
        kinds: &[ConflictKind::Definition],
        query: "SELECT group_concat(name) FROM pragma_table_info('t')",
        kept: "id,a,b,c",
        overwritten: "id,a,b",
    },
    Case {
        script: "CREATE TABLE k(id INTEGER PRIMARY KEY, v TEXT NOT NULL, w); INSERT INTO k VALUES (1, 'x', 2); ALTER TABLE k DROP COLUMN v",
        theirs: "INSERT INTO k(w) VALUES (9)",
        kinds: &[ConflictKind::Constraint, ConflictKind::NotEmpty],
        query: "SELECT count(*) || '' FROM sqlite_schema WHERE name = 'k'",
        kept: "1",
        overwritten: "0",
    },
    Case {
        script: "ALTER TABLE t RENAME TO tt",
        theirs: "CREATE TABLE t(mine)",
        kinds: &[ConflictKind::Appeared],
        query: "SELECT group_concat(name) FROM sqlite_schema WHERE name IN ('t', 'tt')",
        kept: "tt,t",
        overwritten: REFUSED,
    },
    Case {
        script: "ALTER TABLE t RENAME COLUMN a TO aa",
        theirs: "ALTER TABLE t ADD COLUMN z",
        kinds: &[ConflictKind::Definition],
        query: "SELECT group_concat(name) FROM pragma_table_info('t')",
        kept: "id,aa,b,z",
        overwritten: REFUSED,
    },
    Case {
        script: "ALTER TABLE q DROP CONSTRAINT pos",
        theirs: "INSERT INTO q VALUES (-1)",
        kinds: &[ConflictKind::Constraint],
        query: "SELECT sql FROM sqlite_schema WHERE name = 'q'",
        kept: "CREATE TABLE q(v INT)",
        overwritten: REFUSED,
    },
];

fn ask(conn: &Connection, sql: &str) -> String {
    conn.query_row(sql, [], |row| row.get::<_, Option<String>>(0)).unwrap().unwrap_or_default()
}

fn began(case: &Case) -> (Stage, crate::stage::Images) {
    let mut stage = live("", BASE);
    let images = apply(&mut stage, case.script, case.script);
    stage.other().execute_batch(case.theirs).unwrap();
    (stage, images)
}

/// Neither the undo nor its check takes it, and it lists why.
#[track_caller]
fn refused(stage: &mut Stage, images: &crate::stage::Images, what: &str) {
    let now = dump(&stage.other());
    for found in [stage.try_undo(images, OnConflict::Overwrite), stage.check(images, OnConflict::Overwrite)] {
        match found {
            Err(TargetError::Conflicts(conflicts)) => assert!(!conflicts.is_empty(), "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        same(&dump(&stage.other()), &now, what);
    }
}

/// Where the old form cannot come back over what others made of a table, it is not said to be back.
#[test]
fn what_cannot_be_overwritten_is_refused() {
    let drop = "ALTER TABLE t DROP COLUMN b";
    for (script, theirs) in [
        (drop, "ALTER TABLE t RENAME COLUMN a TO o"),
        (drop, "ALTER TABLE t ADD COLUMN b DEFAULT 'O'"),
        (drop, "ALTER TABLE t RENAME TO o"),
        (drop, "DROP TABLE t"),
        ("ALTER TABLE t ADD COLUMN d", "ALTER TABLE t RENAME COLUMN d TO o"),
        ("ALTER TABLE t RENAME TO tt", "ALTER TABLE tt RENAME TO o"),
        ("ALTER TABLE t RENAME COLUMN b TO bb", "ALTER TABLE t RENAME COLUMN bb TO o"),
        ("DROP INDEX t_a", "ALTER TABLE t RENAME TO o"),
        (
            "CREATE VIEW v AS SELECT b FROM t; DROP VIEW v; ALTER TABLE t DROP COLUMN b",
            "ALTER TABLE t RENAME COLUMN a TO o",
        ),
    ] {
        let what = format!("{script} / {theirs}");
        let mut stage = live("", BASE);
        let images = apply(&mut stage, script, script);
        stage.other().execute_batch(theirs).unwrap();
        refused(&mut stage, &images, &what);
    }
}

#[test]
fn each_conflict_and_each_way_out() {
    for case in CASES {
        let what = format!("{} / {}", case.script, case.theirs);
        let (mut stage, images) = began(case);
        let now = dump(&stage.other());
        let conflicts = stage.conflicts(&images);
        let kinds: Vec<ConflictKind> = conflicts.listed.iter().map(|one| one.kind).collect();
        assert_eq!(kinds, case.kinds, "{what}: {conflicts:?}");
        same(&dump(&stage.other()), &now, &format!("a conflict changes nothing: {what}"));
        for (manner, expected) in [(OnConflict::Keep, case.kept), (OnConflict::Overwrite, case.overwritten)] {
            let (mut stage, images) = began(case);
            if expected == REFUSED {
                refused(&mut stage, &images, &what);
                continue;
            }
            let report =
                stage.try_undo(&images, manner).unwrap_or_else(|error| panic!("{manner:?} {what}: {}", told(&error)));
            assert!(!report.conflicts.is_empty(), "{manner:?} {what}");
            assert_eq!(ask(&stage.other(), case.query), expected, "{manner:?} {what}");
            dump(&stage.other());
        }
    }
}

#[test]
fn what_does_not_meet_is_no_conflict() {
    for (script, theirs, query, expected) in [
        // Others' rows and objects elsewhere stay, and those that follow a table follow it back.
        (
            "ALTER TABLE t RENAME TO tt",
            "CREATE INDEX tt_b ON tt(b); INSERT INTO tt(a) VALUES ('x')",
            "SELECT group_concat(sql) FROM sqlite_schema WHERE name = 'tt_b'",
            "CREATE INDEX tt_b ON \"t\"(b)",
        ),
        (
            "ALTER TABLE t DROP COLUMN b",
            "INSERT INTO t(a) VALUES ('x'); UPDATE t SET a = 'y' WHERE id = 2",
            "SELECT group_concat(id || a || b) FROM t",
            "1one3,2y3,3three3,4x3",
        ),
        (
            "DROP TABLE u",
            "CREATE TABLE amid(a); CREATE VIEW b2 AS SELECT 1",
            "SELECT group_concat(name) FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'backout%'",
            "t,u,q,amid,b2",
        ),
        (
            "ALTER TABLE t ADD COLUMN c INT DEFAULT 5",
            "INSERT INTO t(a) VALUES ('x'); UPDATE t SET b = 9 WHERE id = 1",
            "SELECT group_concat(id || a || b) FROM t",
            "1one9,2two3,3three3,4x3",
        ),
    ] {
        let mut stage = live("", BASE);
        let images = apply(&mut stage, script, script);
        stage.other().execute_batch(theirs).unwrap();
        let report = stage.undo(&images);
        assert!(report.conflicts.is_empty(), "{script}: {:?}", report.conflicts);
        assert_eq!(ask(&stage.other(), query), expected, "{script}");
        assert!(holds(&mut stage).is_empty(), "{script}");
    }
}

#[test]
fn rows_written_after_a_delete_all_stay_beside_the_old_ones() {
    let fill = "WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 1000)";
    let keyed =
        format!("CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE); {fill} INSERT INTO t SELECT i, 'a' || i FROM i;");
    let plain = format!("CREATE TABLE t(a, b); CREATE INDEX i ON t(a); {fill} INSERT INTO t SELECT i, i FROM i;");
    for (setup, theirs, count, conflicts) in [
        (&keyed, "INSERT INTO t VALUES (5000, 'x')", 1001, 0),
        (&keyed, "INSERT INTO t VALUES (7, 'a7')", 1000, 0),
        (&keyed, "INSERT INTO t VALUES (7, 'x')", 1000, 1),
        (&keyed, "INSERT INTO t VALUES (5000, 'a7')", 1000, 1),
        (&plain, "INSERT INTO t VALUES (1, 1), (1, 1), (7, 7)", 1003, 0),
        (&plain, "CREATE INDEX theirs ON t(b); DROP INDEX i; INSERT INTO t VALUES (1, 1)", 1001, 0),
    ] {
        let mut stage = live("", setup);
        let images = apply(&mut stage, "DELETE FROM t", theirs);
        assert!(!holds(&mut stage).is_empty(), "{theirs}");
        stage.other().execute_batch(theirs).unwrap();
        if conflicts > 0 {
            assert_eq!(stage.conflicts(&images).total, conflicts, "{theirs}");
        }
        let report =
            stage.try_undo(&images, OnConflict::Overwrite).unwrap_or_else(|error| panic!("{theirs}: {}", told(&error)));
        assert_eq!(report.conflicts.total, conflicts, "{theirs}: {:?}", report.conflicts);
        assert_eq!(ask(&stage.other(), "SELECT count(*) || '' FROM t"), count.to_string(), "{theirs}");
        dump(&stage.other());
        assert!(holds(&mut stage).is_empty(), "{theirs}");
    }
}

#[test]
fn a_redo_is_guarded_like_an_undo() {
    let mut stage = live("", BASE);
    let images = apply(&mut stage, "ALTER TABLE t DROP COLUMN b; CREATE TABLE n(a)", "");
    stage.undo(&images);
    stage.other().execute_batch("ALTER TABLE t ADD COLUMN z; CREATE TABLE n(other)").unwrap();
    let now = dump(&stage.other());
    let manner = backout_model::target::Manner { on_conflict: OnConflict::Stop, in_doubt: false };
    let mut gate = stage.gate();
    let error =
        backout_model::target::Target::redo(&mut stage.database, &mut std::io::Cursor::new(&images), manner, &mut gate);
    match error {
        Err(TargetError::Conflicts(conflicts)) => {
            let kinds: Vec<ConflictKind> = conflicts.listed.iter().map(|one| one.kind).collect();
            assert_eq!(kinds, [ConflictKind::Appeared]);
        }
        other => panic!("{other:?}"),
    }
    same(&dump(&stage.other()), &now, "");
}

#[test]
fn errors_name_the_place_and_leave_nothing() {
    let mut stage = live("", BASE);
    let before = dump(&stage.other());
    for (script, expected) in [
        ("CREATE TABLE n(a);\n\nCREATE TABLE t(a);", "sql/script.sql:3"),
        ("DROP TABLE t;\nDROP TABLE nowhere;", "sql/script.sql:2"),
        ("ALTER TABLE t DROP COLUMN a;", "sql/script.sql:1"),
        ("UPDATE t SET b = 1;\nALTER TABLE u RENAME TO backout_x;", "sql/script.sql:2"),
        ("CREATE TABLE n(a);\nPRAGMA foreign_keys = ON;\nINSERT INTO n VALUES (1);", "sql/script.sql:2"),
    ] {
        let error = stage.try_apply(script).map(drop).unwrap_err();
        assert!(told(&error).contains(expected), "{script}: {}", told(&error));
        same(&dump(&stage.other()), &before, script);
        assert!(holds(&mut stage).is_empty(), "{script}");
    }
}

#[test]
fn the_first_autoincrement_of_a_database_goes_without_a_trace() {
    let mut stage = live("", "CREATE TABLE a(x)");
    let before = dump(&stage.other());
    let images =
        apply(&mut stage, "CREATE TABLE b(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO b VALUES (NULL)", "");
    stage.undo(&images);
    same(&dump(&stage.other()), &before, "");
}

#[test]
fn a_vacuum_between_changes_nothing() {
    let fill = "WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 1000)";
    let setup = format!(
        "{BASE} CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID; {fill} INSERT INTO w SELECT 'k' || i, i FROM i; {fill} INSERT INTO t(a) SELECT i FROM i;"
    );
    let mut stage = live("PRAGMA auto_vacuum = FULL;", &setup);
    let rows = |stage: &Stage| -> Vec<String> {
        let mut lines: Vec<String> = dump(&stage.other());
        lines.sort();
        lines
    };
    let before = rows(&stage);
    let images = apply(
        &mut stage,
        "DELETE FROM w; DROP TABLE u; DROP INDEX t_a; ALTER TABLE t DROP COLUMN b; DELETE FROM t",
        "",
    );
    stage.other().execute_batch("VACUUM").unwrap();
    let report = stage.undo(&images);
    assert!(report.conflicts.is_empty());
    same(&rows(&stage), &before, "");
}

#[test]
fn a_vacuum_takes_the_counters_away_and_the_undo_brings_them_back() {
    for rows in [1, 1000] {
        let fill = format!("WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < {rows})");
        let mut stage = live(
            "",
            &format!(
                "CREATE TABLE c(id INTEGER PRIMARY KEY AUTOINCREMENT, a); {fill} INSERT INTO c(a) SELECT i FROM i; DELETE FROM c WHERE id = {rows}"
            ),
        );
        let before = dump(&stage.other());
        let images = apply(&mut stage, "INSERT INTO c(a) VALUES ('new'); DROP TABLE c", "");
        // Without a table that counts, a hold included, VACUUM leaves no `sqlite_sequence` behind.
        stage.other().execute_batch("VACUUM").unwrap();
        let there = ask(&stage.other(), "SELECT '' || count(*) FROM sqlite_schema WHERE name = 'sqlite_sequence'");
        assert_eq!(there, if rows == 1 { "0" } else { "1" });
        let report = stage.undo(&images);
        assert!(report.conflicts.is_empty());
        let mut after = dump(&stage.other());
        let mut before = before;
        after.sort();
        before.sort();
        same(&after, &before, "");
    }
}

#[test]
fn rows_never_go_into_another_table_of_the_same_name() {
    let mut stage = live("", BASE);
    let images = apply(&mut stage, "UPDATE t SET b = 9; INSERT INTO t(a) VALUES ('four'); DROP TABLE t", "");
    stage
        .other()
        .execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INT, z); INSERT INTO t VALUES (1, 'theirs', 9, 1), (4, 'four', 9, 1)")
        .unwrap();
    let report = stage.try_undo(&images, OnConflict::Keep).unwrap();
    assert!(!report.conflicts.is_empty());
    assert_eq!(ask(&stage.other(), "SELECT group_concat(id || a || b) FROM t"), "1theirs9,4four9");
}

/// Applications have SQLite gather statistics whenever they end (`PRAGMA optimize`): they are nobody's data, so what a
/// script wrote into them never stands in the way of its undo.
#[test]
fn statistics_that_were_gathered_anew_since_stay() {
    let setup = "CREATE TABLE t (id INTEGER PRIMARY KEY, a); CREATE INDEX i ON t (a); CREATE TABLE s (a UNIQUE);
        INSERT INTO t VALUES (1, 1), (2, 1), (3, 2); INSERT INTO s VALUES (1); ANALYZE;";
    let statistics = |stage: &Stage| stage.dump().into_iter().filter(|line| line.starts_with("sqlite_stat1:")).count();
    for sql in [
        "UPDATE sqlite_stat1 SET stat = '100 10' WHERE tbl = 't'; INSERT INTO t VALUES (4, 4);",
        "DELETE FROM sqlite_stat1; INSERT INTO t VALUES (4, 4);",
        "DELETE FROM sqlite_stat1; INSERT INTO sqlite_stat1 VALUES ('t', 'i', '9 9'); INSERT INTO t VALUES (4, 4);",
        "UPDATE sqlite_stat1 SET stat = '1 1'; UPDATE sqlite_stat1 SET stat = '2 2'; INSERT INTO t VALUES (4, 4);",
        "ANALYZE; INSERT INTO t VALUES (4, 4); UPDATE sqlite_stat1 SET stat = '5 5';",
        "INSERT INTO t VALUES (4, 4); DROP TABLE sqlite_stat1;",
    ] {
        let ways = [
            (OnConflict::Stop, "INSERT INTO s VALUES (2); ANALYZE"),
            (OnConflict::Overwrite, "INSERT INTO s VALUES (2); ANALYZE"),
            (OnConflict::Stop, "DROP TABLE IF EXISTS sqlite_stat1; DROP TABLE IF EXISTS sqlite_stat4"),
        ];
        for (on_conflict, since) in ways {
            let mut stage = Stage::new(setup);
            let images = stage.apply(sql);
            stage.other().execute_batch(since).unwrap();
            let now = statistics(&stage);
            let report = stage.try_undo(&images, on_conflict).unwrap_or_else(|error| panic!("{sql}: {}", told(&error)));
            assert_eq!(report.conflicts.total, 0, "{sql}");
            assert!(report.notes.iter().any(|note| note.contains("the statistics were made anew since")), "{sql}");
            assert_eq!(statistics(&stage), now, "{sql}");
            let rows: i64 = stage.other().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
            assert_eq!(rows, 3, "{sql}");
        }
    }
}
