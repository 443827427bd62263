//! What a run refuses the plan refuses, too, at the same place and in the same words; what runs, it lets through.

use backout_model::target::{PlannedChange, Refusal, TargetError, Verdict};
use backout_sql::database::{Database, Script, ScriptUndo};

use crate::stage::{Stage, told};

fn planned(stage: &mut Stage, script: &Script) -> Result<Vec<PlannedChange>, TargetError> {
    let mut changes = Vec::new();
    stage.database.planner()?.script(script, true, &mut |change| changes.push(change))?;
    Ok(changes)
}

fn refusals(changes: Vec<PlannedChange>) -> Vec<Refusal> {
    changes
        .into_iter()
        .filter_map(|change| match change.verdict {
            Verdict::Refused(refusal) => Some(refusal),
            Verdict::Undoable { .. } => None,
            Verdict::Unknown { why } => panic!("{} is not known: {why}", change.place),
        })
        .collect()
}

fn run(stage: &mut Stage, script: &Script) -> Result<Vec<u8>, TargetError> {
    let mut gate = stage.gate();
    stage.database.apply(script, &mut gate)?;
    Ok(gate.written())
}

/// Plans and runs the script: both refuse it for one reason, which holds the words.
fn refused(setup: &str, sql: &str, words: &str) {
    refused_with(setup, sql, ScriptUndo::Captured, words);
}

fn refused_with(setup: &str, sql: &str, undo: ScriptUndo, words: &str) {
    let mut stage = Stage::new(setup);
    let before = stage.dump();
    let script = stage.script(sql, undo);
    let planned = planned(&mut stage, &script).unwrap_or_else(|error| panic!("plan of {sql}: {}", told(&error)));
    let planned = refusals(planned);
    let Some(first) = planned.first() else { panic!("the plan lets {sql} through") };
    assert!(first.why.contains(words), "{sql}: {first}");
    match run(&mut stage, &script) {
        Err(TargetError::Refused(refusal)) => assert_eq!(&refusal, first, "{sql}"),
        Err(error) => panic!("{sql}: planned {first}; run: {}", told(&error)),
        Ok(_) => panic!("{sql} runs, planned: {first}"),
    }
    assert_eq!(stage.dump(), before, "{sql}");
}

/// The plan lets the script through; it runs, and its undo brings back what was.
fn runs(setup: &str, sql: &str) {
    let mut stage = Stage::new(setup);
    let before = stage.dump();
    let script = stage.script(sql, ScriptUndo::Captured);
    let planned = planned(&mut stage, &script).unwrap_or_else(|error| panic!("plan of {sql}: {}", told(&error)));
    let planned = refusals(planned);
    assert!(planned.is_empty(), "{sql}: {planned:?}");
    let images = run(&mut stage, &script).unwrap_or_else(|error| panic!("{sql}: {}", told(&error)));
    stage.undo(&images);
    assert_eq!(stage.dump(), before, "undo of {sql}");
}

/// A table whose columns hide all three names of the rowid, and what reaches it from elsewhere.
const HIDDEN: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 1), (2, 2);
    CREATE TABLE h (rowid, _ROWID_, oid, more REFERENCES t ON DELETE CASCADE);
    INSERT INTO h VALUES (1, 2, 3, 1);";

#[test]
fn a_pragma_that_comes_too_late_to_work() {
    let late = "inside which it has no effect";
    for sql in [
        "INSERT INTO t VALUES (9, 9);\nPRAGMA foreign_keys = ON;\nINSERT INTO t VALUES (10, 9);",
        "PRAGMA foreign_keys = ON; INSERT INTO t VALUES (9, 9); PRAGMA foreign_keys = 0; SELECT 1; UPDATE t SET a = 0;",
        "SELECT 1; PRAGMA foreign_keys = ON; INSERT INTO t VALUES (9, 9);",
        "ALTER TABLE t ADD COLUMN b; PRAGMA foreign_keys(yes); DROP TABLE t;",
    ] {
        refused(HIDDEN, sql, late);
        refused_with(HIDDEN, sql, ScriptUndo::Never { because: "test".to_owned() }, late);
    }
    for sql in [
        "INSERT INTO t VALUES (9, 9); PRAGMA foreign_keys = OFF; INSERT INTO t VALUES (10, 9);",
        "INSERT INTO t VALUES (9, 9); PRAGMA foreign_keys = ON;",
        "INSERT INTO t VALUES (9, 9); PRAGMA foreign_keys = ON; SELECT * FROM t;",
        "INSERT INTO t VALUES (9, 9); PRAGMA foreign_keys = ON; PRAGMA foreign_keys = OFF; INSERT INTO t VALUES (10, 9);",
        "PRAGMA foreign_keys = ON; PRAGMA foreign_keys = OFF; INSERT INTO t VALUES (9, 9);",
        // The plain client has no transaction of its own for it to come late in; here it is ignored as there.
        "BEGIN; INSERT INTO t VALUES (9, 9); PRAGMA foreign_keys = ON; DELETE FROM t WHERE id = 2; COMMIT;",
    ] {
        runs(HIDDEN, sql);
    }
}

#[test]
fn rows_that_cannot_be_told_apart() {
    let apart = "the rows of h cannot be told apart";
    for sql in [
        "INSERT INTO h VALUES (4, 5, 6, 2);",
        "UPDATE h SET oid = 7;",
        "DELETE FROM h WHERE oid = 3;",
        "DELETE FROM h;",
        "WITH x AS (SELECT 1) DELETE FROM h WHERE oid IN x;",
        "PRAGMA foreign_keys = ON; DELETE FROM t WHERE id = 1;",
        "PRAGMA foreign_keys = ON; DELETE FROM t;",
        "PRAGMA foreign_keys = ON; DROP TABLE t;",
        "CREATE TRIGGER tr AFTER UPDATE ON t BEGIN DELETE FROM h; END; UPDATE t SET a = 3;",
        "ALTER TABLE h DROP COLUMN more;",
    ] {
        refused(HIDDEN, sql, apart);
    }
    refused(
        HIDDEN,
        "CREATE TABLE n AS SELECT 1 AS rowid, 2 AS oid, 3 AS _rowid_;",
        "the rows of n cannot be told apart",
    );
    refused(HIDDEN, "CREATE TABLE n (oid, rowid, _rowid_); INSERT INTO n VALUES (1, 2, 3);", "the rows of n cannot");
    for sql in [
        "DROP TABLE h;",
        "ALTER TABLE h ADD COLUMN x DEFAULT 5;",
        "ALTER TABLE h RENAME COLUMN more TO other;",
        "DELETE FROM t;",
        "UPDATE t SET a = (SELECT oid FROM h);",
        "PRAGMA foreign_keys = ON; CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p); DROP TABLE p;",
        "CREATE TABLE n (oid INTEGER PRIMARY KEY, rowid, _rowid_); INSERT INTO n VALUES (1, 2, 3);",
        "CREATE TABLE n (oid PRIMARY KEY, rowid, _rowid_) WITHOUT ROWID; INSERT INTO n VALUES (1, 2, 3);",
        "CREATE TEMP TABLE h (rowid, _rowid_, oid); INSERT INTO h VALUES (1, 2, 3); UPDATE t SET a = 4;",
    ] {
        runs(HIDDEN, sql);
    }
}

#[test]
fn a_definition_that_is_not_understood() {
    let setup = "CREATE TABLE t (id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 1);
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = 'CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, a)' WHERE name = 't';
        PRAGMA writable_schema = RESET;";
    for sql in ["DROP TABLE t;", "DELETE FROM t; DROP TABLE t;", "ALTER TABLE t DROP COLUMN a;", "ALTER TABLE t ADD b;"]
    {
        refused(setup, sql, "has a form that is not understood");
    }
    runs(setup, "DELETE FROM t;");
}

#[test]
fn the_transaction_is_the_steps_own() {
    for (sql, words) in [
        ("COMMIT;", "it would commit half of the script"),
        ("INSERT INTO t VALUES (9, 9); BEGIN; DELETE FROM t; COMMIT;", "begins another inside"),
        ("BEGIN; BEGIN;", "begins another inside"),
        ("BEGIN; DELETE FROM t; COMMIT; INSERT INTO t VALUES (9, 9);", "after the COMMIT"),
        ("SAVEPOINT a;", "cannot be cut up"),
        ("ROLLBACK;", "cannot be cut up"),
        ("ATTACH 'x' AS x;", "no transaction is atomic over several files"),
        ("VACUUM;", "outside of any transaction"),
        ("PRAGMA wal_checkpoint;", "inside the transaction of a step"),
        ("PRAGMA query_only = 1;", "has to write"),
        ("PRAGMA journal_mode = wal;", "how the whole file is kept"),
        ("PRAGMA journal_mode = memory;", "how the whole file is kept"),
        ("SELECT load_extension('x');", "could do anything"),
        ("CREATE TABLE backout_x (a);", "the tool's own"),
        ("UPDATE backout_shop SET seq = 0;", "the tool's own"),
        ("CREATE INDEX i ON backout_shop (seq);", "the tool's own"),
        (
            "CREATE TRIGGER tr AFTER INSERT ON t BEGIN DELETE FROM 'backout_shop'; END; INSERT INTO t VALUES (9, 9);",
            "own",
        ),
    ] {
        for undo in [ScriptUndo::Captured, ScriptUndo::Never { because: "test".to_owned() }] {
            refused_with(HIDDEN, sql, undo, words);
        }
    }
    runs(HIDDEN, "SELECT 1; BEGIN; INSERT INTO t VALUES (9, 9); END; SELECT 2;");
}

#[test]
fn what_the_file_keeps_is_asked_of_the_file() {
    for (setup, same, other) in
        [("PRAGMA journal_mode = DELETE;", "delete", "wal"), ("PRAGMA journal_mode = WAL;", "wal", "delete")]
    {
        let setup = format!("{setup} {HIDDEN}");
        runs(&setup, &format!("PRAGMA journal_mode = {same}; INSERT INTO t VALUES (9, 9);"));
        refused(&setup, &format!("PRAGMA journal_mode = {other};"), "how the whole file is kept");
    }
    let setup = format!("PRAGMA page_size = 1024; PRAGMA encoding = 'UTF-16le'; {HIDDEN}");
    runs(&setup, "PRAGMA page_size = 1024; PRAGMA encoding = 'UTF-16le'; INSERT INTO t VALUES (9, 9);");
    refused(&setup, "PRAGMA page_size = 4096;", "how the whole file is kept");
    refused(&setup, "PRAGMA encoding = 'UTF-8';", "how the whole file is kept");
}

#[test]
fn what_sqlite_keeps_about_tables_can_be_written() {
    let sequence = "CREATE TABLE q (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO q DEFAULT VALUES; DROP TABLE q;";
    // Written by a client that gathers other statistics.
    let statistics =
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a); CREATE INDEX i ON t (a); INSERT INTO t VALUES (1, 1), (2, 1);
        ANALYZE; PRAGMA writable_schema = ON; CREATE TABLE sqlite_stat3 (tbl, idx, neq, nlt, ndlt, sample);
        PRAGMA writable_schema = RESET; INSERT INTO sqlite_stat3 VALUES ('t', 'i', '2', '0', '0', 1);";
    let setup = format!("{sequence} {statistics}");
    for sql in [
        "DELETE FROM sqlite_sequence;",
        "INSERT INTO sqlite_sequence VALUES ('t', 5);",
        "DELETE FROM sqlite_stat3;",
        "UPDATE sqlite_stat1 SET stat = '100 1'; UPDATE sqlite_stat3 SET neq = '3 3'; ANALYZE sqlite_schema;",
        "INSERT INTO sqlite_stat1 VALUES ('t', NULL, '5');",
        "DROP TABLE sqlite_stat1; DROP TABLE sqlite_stat3;",
        "INSERT INTO t VALUES (3, 3); ANALYZE; DELETE FROM sqlite_stat1; ANALYZE t;",
        "DROP TABLE sqlite_stat1; ANALYZE; UPDATE sqlite_stat1 SET stat = '7 7';",
    ] {
        runs(&setup, sql);
    }
    refused("CREATE TABLE t (a);", "ANALYZE; INSERT INTO backout_shop VALUES (1, 2, 3, 4, 5);", "the tool's own");
}

#[test]
fn an_undo_of_its_own_is_judged_before_the_script_runs() {
    let undo_by = |stage: &Stage, sql: &str| {
        let path = stage.path().with_file_name("undo.sql");
        std::fs::write(&path, sql).unwrap();
        ScriptUndo::ByScript { path, shown: "sql/undo.sql".to_owned() }
    };
    for (sql, words) in [
        ("VACUUM;", "outside of any transaction"),
        ("DELETE FROM t;\nSAVEPOINT x;", "cannot be cut up"),
        ("DELETE FROM t; COMMIT;", "would commit half"),
        ("DELETE FROM t; PRAGMA foreign_keys = ON; INSERT INTO t VALUES (1, 1);", "has no effect"),
        ("UPDATE backout_shop SET seq = 0;", "the tool's own"),
    ] {
        let mut stage = Stage::new(HIDDEN);
        let before = stage.dump();
        let undo = undo_by(&stage, sql);
        let script = stage.script("INSERT INTO t VALUES (7, 7);", undo);
        let found = refusals(planned(&mut stage, &script).unwrap());
        let [refusal] = found.as_slice() else { panic!("{sql}: {found:?}") };
        assert!(refusal.why.contains(words) && refusal.place.starts_with("sql/undo.sql:"), "{refusal}");
        match run(&mut stage, &script) {
            Err(TargetError::Refused(run)) => assert_eq!(&run, refusal),
            other => panic!("{sql}: {:?}", other.map_err(|error| told(&error)).err()),
        }
        assert_eq!(stage.dump(), before);
    }
    for sql in ["DELETE FROM nope;", "DELET FROM t;"] {
        let mut stage = Stage::new(HIDDEN);
        let undo = undo_by(&stage, sql);
        let script = stage.script("INSERT INTO t VALUES (7, 7);", undo);
        let error = planned(&mut stage, &script).unwrap_err();
        assert!(error.to_string().contains("sql/undo.sql:1"), "{error}");
    }
    for (sql, undo) in [
        ("INSERT INTO h VALUES (4, 5, 6, 2);", "BEGIN; DELETE FROM h WHERE rowid = 4; COMMIT;"),
        (
            "CREATE VIRTUAL TABLE r USING rtree (id, a, b); INSERT INTO r VALUES (1, 2, 3);",
            "DELETE FROM r; DROP TABLE r;",
        ),
        (
            "PRAGMA foreign_keys = ON; INSERT INTO t VALUES (7, 7); INSERT INTO h VALUES (0, 0, 0, 7);",
            "PRAGMA foreign_keys = ON; DELETE FROM t WHERE id = 7;",
        ),
        ("CREATE TABLE n AS SELECT 1 AS rowid, 2 AS oid, 3 AS _rowid_;", "DROP TABLE n;"),
    ] {
        let mut stage = Stage::new(HIDDEN);
        let before = stage.dump();
        let undo = undo_by(&stage, undo);
        let script = stage.script(sql, undo);
        assert_eq!(refusals(planned(&mut stage, &script).unwrap()), [], "{sql}");
        let images = run(&mut stage, &script).unwrap_or_else(|error| panic!("{sql}: {}", told(&error)));
        assert_ne!(stage.dump(), before, "{sql}");
        stage.undo(&images);
        assert_eq!(stage.dump(), before, "undo of {sql}");
    }
}

#[test]
fn names_that_are_no_text_are_refused_beforehand() {
    let mut stage = Stage::made_by(|conn| {
        conn.execute_batch(
            "CREATE TABLE t (a); CREATE TABLE bad (a); PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET name = CAST(x'62ff' AS TEXT), tbl_name = CAST(x'62ff' AS TEXT),
                sql = CAST(x'435245415445205441424c452062ff286129' AS TEXT) WHERE name = 'bad';",
        )
        .unwrap();
    });
    let script = stage.script("INSERT INTO t VALUES (1);", ScriptUndo::Captured);
    let found = refusals(planned(&mut stage, &script).unwrap_or_else(|error| panic!("{}", told(&error))));
    let [refusal] = found.as_slice() else { panic!("{found:?}") };
    assert!(refusal.why.contains("not UTF-8"), "{refusal}");
    match run(&mut stage, &script) {
        Err(TargetError::Refused(run)) => assert_eq!(&run, refusal),
        other => panic!("{:?}", other.map_err(|error| told(&error)).err()),
    }
    let script = stage.script("INSERT INTO t VALUES (1);", ScriptUndo::Never { because: "test".to_owned() });
    run(&mut stage, &script).unwrap();
}

#[test]
fn a_plan_does_not_do_the_work() {
    let mut stage = Stage::new("CREATE TABLE t (a INT, b TEXT); CREATE VIEW v AS SELECT a + 1 AS c, b FROM t;");
    let script = stage.script(
        // Its rows would be an error: the number that abs() has no answer to.
        "CREATE TABLE n AS WITH RECURSIVE q (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM q WHERE i < 3)
            SELECT abs(i - 9223372036854775807 - 2) AS i, b, b FROM q LEFT JOIN t; -- all
         CREATE TABLE m AS SELECT * FROM v UNION ALL SELECT 1, 2
         ; INSERT INTO n (i, b, \"b:1\") VALUES (1, 2, 3); INSERT INTO m (c, b) VALUES (1, 2)",
        ScriptUndo::Captured,
    );
    let changes = planned(&mut stage, &script).unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(changes.len(), 4);
    assert_eq!(refusals(changes), []);
}
