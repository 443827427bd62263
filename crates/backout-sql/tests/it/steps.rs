//! Steps as a whole: what stops one, what is kept, several at once, scripts with an undo of their own, `show` and `verify`.

use std::error::Error as _;
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use backout_model::conflict::{ConflictKind, OnConflict};
use backout_model::target::{Described, Target, TargetError};
use backout_sql::database::{Bounds, Database, ScriptUndo};

use crate::rows::{PLAIN, boxed};
use crate::stage::{Stage, chinook, told};

#[test]
fn images_that_cannot_be_written_stop_the_statement() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::Error::from_raw_os_error(28))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    struct Gate(backout_model::target::Ticket);
    impl backout_model::target::Gate for Gate {
        fn images(&mut self) -> Box<dyn std::io::Write + Send> {
            Box::new(Full(100_000))
        }
        fn written(&mut self) -> std::io::Result<Box<dyn backout_model::target::Images>> {
            Err(std::io::Error::from_raw_os_error(28))
        }
        fn announce(
            &mut self,
            _: &backout_model::target::Summary,
        ) -> Result<backout_model::target::Ticket, TargetError> {
            Ok(self.0)
        }
        fn progress(&mut self, _: u64, _: Option<u64>) {}
    }
    let mut stage = Stage::new("CREATE TABLE t (id INTEGER PRIMARY KEY, a);");
    let before = stage.dump();
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO t SELECT i, i FROM n;";
    let script = stage.script(endless, ScriptUndo::Captured);
    let mut gate = Gate(backout_model::target::Ticket { seq: 1, epoch: stage.epoch });
    let error = stage.database.apply(&script, &mut gate).unwrap_err();
    assert!(told(&error).contains("os error 28"), "{}", told(&error));
    assert_eq!(stage.dump(), before);
    let images = stage.apply("INSERT INTO t VALUES (1, 1);");
    stage.undo(&images);
    assert_eq!(stage.dump(), before);
}

#[test]
fn overwriting_keeps_what_it_destroys() {
    let mut stage = Stage::new(PLAIN);
    let images = stage.apply("UPDATE t SET a = 'ours' WHERE id = 1;");
    stage.other().execute_batch("UPDATE t SET a = 'precious' WHERE id = 1").unwrap();
    let mut gate = stage.gate();
    let manner = backout_model::target::Manner { on_conflict: OnConflict::Overwrite, in_doubt: false };
    stage.database.undo(&mut Cursor::new(&images), manner, &mut gate).unwrap();
    let kept = gate.written();
    assert!(kept.windows(8).any(|window| window == b"precious"));
    stage.undo(&kept);
    let value: String = stage.other().query_row("SELECT a FROM t WHERE id = 1", [], |row| row.get(0)).unwrap();
    assert_eq!(value, "precious");
}

#[test]
fn a_table_that_others_took_away_or_changed_is_a_conflict() {
    for (others, total, kind) in [
        ("DROP TABLE t", 1, ConflictKind::Definition),
        ("ALTER TABLE t RENAME TO s", 1, ConflictKind::Definition),
        // Value by value: what else a row holds goes back.
        ("ALTER TABLE t DROP COLUMN a", 5, ConflictKind::Changed),
    ] {
        let mut stage = Stage::new(PLAIN);
        let images = stage.apply("UPDATE t SET a = 'ours';");
        stage.other().execute_batch(others).unwrap();
        let conflicts = stage.conflicts(&images);
        assert_eq!((conflicts.total, conflicts.listed[0].kind), (total, kind), "{others}");
        // What cannot be overwritten is not said to have been.
        let before = stage.dump();
        let overwritten = stage.try_undo(&images, OnConflict::Overwrite);
        let is_refused = match overwritten {
            Err(TargetError::Failed { .. }) => total == 1,
            Err(TargetError::Conflicts(_)) => total > 1,
            _ => false,
        };
        assert!(is_refused, "{others}: {overwritten:?}");
        assert_eq!(stage.dump(), before);
    }
    let mut stage = Stage::new(PLAIN);
    let images = stage.apply("UPDATE t SET a = 'ours'; DELETE FROM t WHERE id = 2;");
    stage.other().execute_batch("ALTER TABLE t ADD COLUMN extra DEFAULT 'e'").unwrap();
    stage.undo(&images);
}

/// A column that others made since: what they wrote there into the deployment's rows is theirs.
#[test]
fn what_others_wrote_into_a_column_of_theirs_is_not_lost() {
    for table in [
        "id INTEGER PRIMARY KEY, a, b",
        "id TEXT PRIMARY KEY, a, b",
        "id TEXT, a, b, PRIMARY KEY (id)) WITHOUT ROWID --",
    ] {
        let base = format!("CREATE TABLE t ({table}\n); INSERT INTO t VALUES (1, 'a1', 'b1'), (2, 'a2', 'b2')");
        let base = if table.ends_with("--") { base.replace("\n)", "\n") } else { base };
        for default in ["", " DEFAULT 5", " TEXT DEFAULT 5"] {
            let others = format!("ALTER TABLE t ADD COLUMN theirs{default}");
            let theirs = |stage: &Stage, id: u32| -> String {
                let query = format!("SELECT quote(a) || quote(theirs) FROM t WHERE id = {id}");
                stage.other().query_row(&query, [], |row| row.get(0)).unwrap()
            };
            // The row was there before: it goes back, and keeps what is theirs.
            let mut stage = Stage::new(&base);
            let images = stage.apply("REPLACE INTO t (id, a, b) VALUES (1, 'ours', 'b1');");
            stage.other().execute_batch(&format!("{others}; UPDATE t SET theirs = 'x'")).unwrap();
            stage.undo(&images);
            assert_eq!(theirs(&stage, 1), "'a1''x'", "{base} {default}");
            // The row is the deployment's: theirs alone keeps it.
            let mut stage = Stage::new(&base);
            let images = stage.apply("INSERT INTO t (id, a, b) VALUES (3, 'ours', 'b');");
            stage.other().execute_batch(&others).unwrap();
            let count = "SELECT count(*) FROM t";
            stage.other().execute_batch("UPDATE t SET theirs = 'x' WHERE id = 3").unwrap();
            let found = stage.conflicts(&images);
            assert_eq!(
                (found.total, found.listed[0].column.as_deref()),
                (1, Some("theirs")),
                "{base} {default}: {found:?}"
            );
            stage.try_undo(&images, OnConflict::Keep).unwrap();
            assert_eq!(theirs(&stage, 3), "'ours''x'", "{base} {default}");
            let mut stage = Stage::new(&base);
            let images = stage.apply("INSERT INTO t (id, a, b) VALUES (3, 'ours', 'b');");
            stage.other().execute_batch(&others).unwrap();
            stage.undo(&images);
            assert_eq!(stage.other().query_row(count, [], |row| row.get::<_, u32>(0)).unwrap(), 2, "{base} {default}");
        }
    }
}

#[test]
fn several_steps_are_checked_as_one() {
    let mut stage = Stage::new(PLAIN);
    let before = stage.dump();
    let first = stage.apply("UPDATE t SET a = 'first' WHERE id = 1;");
    let second = stage.apply("UPDATE t SET a = 'second' WHERE id = 1;");
    let after = stage.dump();
    let report = stage.database.check_undo(&mut [boxed(&second), boxed(&first)].into_iter(), OnConflict::Stop).unwrap();
    assert!(report.conflicts.is_empty());
    let alone = stage.database.check_undo(&mut std::iter::once(boxed(&first)), OnConflict::Stop).unwrap();
    assert_eq!(alone.conflicts.total, 1);
    assert_eq!(stage.dump(), after);
    stage.undo(&second);
    stage.undo(&first);
    assert_eq!(stage.dump(), before);
}

#[test]
fn scripts_with_an_undo_of_their_own_or_none() {
    let mut stage = Stage::new(PLAIN);
    let before = stage.dump();
    let path = stage.path().with_file_name("undo.sql");
    std::fs::write(&path, "DELETE FROM t WHERE id = 60;").unwrap();
    let undo = ScriptUndo::ByScript { path: path.clone(), shown: "sql/undo.sql".to_owned() };
    let script = stage.script("BEGIN; INSERT INTO t (id) VALUES (60); COMMIT;", undo);
    let mut gate = stage.gate();
    stage.database.apply(&script, &mut gate).unwrap_or_else(|error| panic!("{}", told(&error)));
    let images = gate.written();
    std::fs::remove_file(&path).unwrap();
    assert_ne!(stage.dump(), before);
    stage.undo(&images);
    assert_eq!(stage.dump(), before);
    let again = stage.redo(&images);
    assert_ne!(stage.dump(), before);
    stage.undo(&again);
    assert_eq!(stage.dump(), before);

    let script = stage.script("DELETE FROM t;", ScriptUndo::Never { because: "old".to_owned() });
    let mut gate = stage.gate();
    stage.database.apply(&script, &mut gate).unwrap();
    let error = stage.try_undo(&gate.written(), OnConflict::Stop).unwrap_err();
    assert!(matches!(error, TargetError::Refused(_)), "{error}");

    for sql in ["COMMIT;", "UPDATE backout_shop SET seq = 0;", "ATTACH ':memory:' AS m;"] {
        let script = stage.script(sql, ScriptUndo::Never { because: "old".to_owned() });
        let mut gate = stage.gate();
        stage.database.apply(&script, &mut gate).unwrap_err();
    }
}

#[test]
fn every_change_is_described_with_its_undo() {
    let mut stage = Stage::new(PLAIN);
    let images = stage.apply("UPDATE t SET a = 1;\n\nDELETE FROM t WHERE id = 1;\nINSERT INTO t VALUES (1, 1, 1, 1), (6, 6, 6, 6);\nDELETE FROM t WHERE id = 99;");
    let mut told: Vec<Described> = Vec::new();
    stage.database.describe(&mut Cursor::new(&images), &mut |one| told.push(one)).unwrap();
    let lines: Vec<String> = told.iter().map(|one| format!("{} {} {}", one.place, one.rows, one.undo)).collect();
    // One of the five rows held 1 already.
    assert_eq!(
        lines,
        [
            "sql/script.sql:1 4 UPDATE of 4 rows in t to what they were",
            "sql/script.sql:3 1 INSERT of 1 row into t",
            "sql/script.sql:4 2 DELETE of 2 rows in t",
            "sql/script.sql:5 0 nothing to take back",
        ]
    );
}

#[test]
fn verify_tells_drift_from_damage() {
    let mut stage = Stage::new(PLAIN);
    let images = stage.apply("UPDATE t SET a = 'ours' WHERE id = 1;");
    assert_eq!(stage.database.verify(&mut Cursor::new(&images), true).unwrap(), []);
    stage.other().execute_batch("UPDATE t SET a = 'theirs' WHERE id = 1").unwrap();
    let findings = stage.database.verify(&mut Cursor::new(&images), true).unwrap();
    assert_eq!((findings.len(), findings[0].grave), (1, false));
    assert_eq!(stage.database.verify(&mut Cursor::new(&images), false).unwrap(), []);
}

#[test]
fn values_for_checks_are_the_engines_text_and_read_only() {
    let mut stage = Stage::new(PLAIN);
    let free = Bounds::default();
    let mut ask = |sql: &str| stage.database.value(sql, &free).unwrap();
    assert_eq!(ask("SELECT 41"), Some("41".to_owned()));
    assert_eq!(ask("SELECT 1e300;"), Some("1.0e+300".to_owned()));
    assert_eq!(ask("SELECT 'text' -- and more"), Some("text".to_owned()));
    assert_eq!(ask("SELECT NULL"), None);
    assert_eq!(ask("SELECT 1 WHERE 0"), None);
    for none in ["DELETE FROM t", "DELETE FROM t RETURNING id", "SELECT 1, 2", "SELECT 1 UNION ALL SELECT 1", ""] {
        stage.database.value(none, &free).unwrap_err();
    }
    stage.apply("UPDATE t SET a = 1;");
}

/// It would never end: its time does, or whoever asks it to stop.
#[test]
fn a_query_is_broken_off_where_its_bounds_are() {
    const ENDLESS: &str = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT count(*) FROM c";
    let mut stage = Stage::new(PLAIN);
    let soon = Bounds { until: Some(Instant::now() + Duration::from_millis(50)), stop: None };
    let error = stage.database.value(ENDLESS, &soon).unwrap_err();
    assert!(error.source().unwrap().to_string().contains("longer than its time"), "{error:?}");
    let stopped = Bounds { until: None, stop: Some(Arc::new(AtomicBool::new(true))) };
    let error = stage.database.value(ENDLESS, &stopped).unwrap_err();
    assert!(error.source().unwrap().to_string().contains("stopped"), "{error:?}");
    assert_eq!(stage.database.value("SELECT count(*) FROM t", &Bounds::default()).unwrap(), Some("5".to_owned()));
    stage.apply("UPDATE t SET a = 1;");
}

#[test]
fn what_never_gives_one_value_is_known_beforehand() {
    let mut stage = Stage::new(PLAIN);
    let mut why = |sql: &str| stage.database.never_a_value(sql).unwrap().unwrap_or_default();
    assert!(why("DELETE FROM t RETURNING id").contains("only reads"));
    assert!(why("SELECT id, a FROM t").contains("2 columns"));
    assert_eq!(why("SELECT a FROM t"), "");
    assert_eq!(why("SELECT a FROM not_yet"), "");
}

#[test]
fn tables_that_cannot_be_captured_are_refused_and_named() {
    let mut stage = Stage::new("CREATE TABLE t (rowid, _rowid_, oid); INSERT INTO t VALUES (1, 2, 3);");
    let before = stage.dump_plainly();
    let error = stage.try_apply("UPDATE t SET oid = 4;").unwrap_err();
    assert!(told(&error).contains("cannot be told apart"), "{}", told(&error));
    assert_eq!(stage.dump_plainly(), before);
    let findings = stage.database.examine().unwrap();
    assert!(findings.iter().any(|finding| finding.what.contains("cannot be told apart")), "{findings:?}");
    let others =
        findings.iter().find(|finding| finding.what.contains("what others write while a captured command runs"));
    assert!(others.is_some_and(|finding| !finding.grave && finding.what.contains("cannot be told")), "{findings:?}");
}

impl Stage {
    fn dump_plainly(&self) -> i64 {
        self.other().query_row("SELECT oid FROM t", [], |row| row.get(0)).unwrap()
    }
}

#[test]
fn a_name_that_is_no_text_would_hide_its_rows_and_is_refused() {
    let mut stage = Stage::made_by(|conn| {
        conn.execute_batch("CREATE TABLE t (a); CREATE TABLE odd (a);").unwrap();
        conn.execute_batch(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET name = CAST(x'6fff64' AS TEXT), tbl_name = CAST(x'6fff64' AS TEXT),
                 sql = CAST(x'435245415445205441424c4520226fff642220286129' AS TEXT) WHERE name = 'odd';",
        )
        .unwrap();
    });
    let error = stage.try_apply("INSERT INTO t VALUES (1);").unwrap_err();
    assert!(matches!(error, TargetError::Refused(_)), "{}", told(&error));
    assert!(told(&error).contains("not UTF-8"));
    assert!(stage.database.examine().unwrap().iter().any(|finding| finding.what.contains("not UTF-8")));
}

#[test]
fn a_real_database_there_and_back() {
    let Some(bytes) = chinook() else { return };
    let mut stage = Stage::made_by(|conn| {
        let path = conn.path().unwrap().to_owned();
        std::fs::write(path, &bytes).unwrap();
    });
    let before = stage.dump();
    let images = stage.apply(
        "PRAGMA foreign_keys = ON;
         UPDATE Track SET UnitPrice = UnitPrice * 1.1 WHERE GenreId < 5;
         DELETE FROM PlaylistTrack WHERE TrackId % 3 = 0;
         INSERT INTO Artist (Name) SELECT 'Tribute to ' || Name FROM Artist;
         UPDATE Customer SET Email = lower(Email), SupportRepId = NULL;
         DELETE FROM InvoiceLine WHERE InvoiceId < 50; DELETE FROM Invoice WHERE InvoiceId < 50;
         REPLACE INTO Genre VALUES (1, 'Roll');",
    );
    let applied = stage.dump();
    assert_ne!(applied, before);
    stage.undo(&images);
    assert!(stage.dump() == before, "undo of chinook");
    let again = stage.redo(&images);
    assert!(stage.dump() == applied, "redo of chinook");
    stage.undo(&again);
    assert!(stage.dump() == before, "undo after redo of chinook");
}
