//! Materialized views that a step fills anew are filled once more by its undo, when all that they read is back.

use backout_model::conflict::OnConflict;
use backout_model::target::{Report, TargetError};

use crate::postgres::stage::Stage;

const SETUP: &str =
    "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 9) i;
    CREATE MATERIALIZED VIEW total AS SELECT sum(n) AS s, count(*) AS c FROM t;
    CREATE MATERIALIZED VIEW above AS SELECT s + 1 AS s FROM total; CREATE UNIQUE INDEX ON above (s);
    CREATE MATERIALIZED VIEW keyed AS SELECT id, n FROM t; CREATE UNIQUE INDEX ON keyed (id);
    CREATE MATERIALIZED VIEW late AS SELECT id FROM t WITH NO DATA; CREATE VIEW seen AS SELECT s FROM total;";

#[test]
fn a_view_that_was_fresh_is_filled_as_it_was() {
    let mut stage = Stage::new(SETUP);
    let before = (stage.dump(), stage.pg_dump());
    for change in [
        "INSERT INTO t VALUES (20, 5); REFRESH MATERIALIZED VIEW total; REFRESH MATERIALIZED VIEW above;",
        "REFRESH MATERIALIZED VIEW total; UPDATE t SET n = 0;",
        "UPDATE t SET n = n + 1; REFRESH MATERIALIZED VIEW total; REFRESH MATERIALIZED VIEW CONCURRENTLY above;",
        "UPDATE t SET n = n + 1; REFRESH MATERIALIZED VIEW CONCURRENTLY keyed;",
        "UPDATE t SET n = n + 1; CREATE MATERIALIZED VIEW made AS SELECT sum(n) FROM t;",
        "UPDATE t SET n = n + 1; REFRESH MATERIALIZED VIEW late; UPDATE t SET id = id + 10; REFRESH MATERIALIZED VIEW late;",
        "UPDATE t SET n = n + 1; DO $$ BEGIN CREATE MATERIALIZED VIEW made AS SELECT sum(n) FROM t; END $$;",
        "DELETE FROM t WHERE id < 4; REFRESH MATERIALIZED VIEW above; REFRESH MATERIALIZED VIEW total;",
        "UPDATE t SET n = 1; REFRESH MATERIALIZED VIEW total WITH NO DATA; REFRESH MATERIALIZED VIEW late;",
        "ALTER MATERIALIZED VIEW total RENAME TO sums; UPDATE t SET n = 2; REFRESH MATERIALIZED VIEW sums; ALTER TABLE t ADD COLUMN b int DEFAULT 3;
         ALTER MATERIALIZED VIEW sums RENAME TO summed; CREATE MATERIALIZED VIEW total AS SELECT b FROM t; UPDATE t SET b = 9; REFRESH MATERIALIZED VIEW total;",
        "UPDATE t SET n = 3; REFRESH MATERIALIZED VIEW total; REFRESH MATERIALIZED VIEW above; DROP MATERIALIZED VIEW above; DROP VIEW seen;
         CREATE VIEW seen AS SELECT c FROM total;",
        "ALTER TABLE t ADD COLUMN b bigint; UPDATE t SET b = n, n = 4; REFRESH MATERIALIZED VIEW total; ALTER TABLE t ALTER b TYPE text;",
    ] {
        let images = stage.apply(change);
        let applied = (stage.dump(), stage.pg_dump());
        assert_ne!(applied, before, "the change changes nothing: {change}");
        stage.undo(&images);
        assert_eq!((stage.dump(), stage.pg_dump()), before, "undo of {change}");
        let (again, Report { notes, .. }) = stage.redone(&images);
        assert_eq!((stage.dump(), stage.pg_dump()), applied, "redo of {change}");
        assert_eq!(notes, Vec::<String>::new(), "{change}");
        stage.undo(&again);
        assert_eq!((stage.dump(), stage.pg_dump()), before, "undo after redo of {change}");
        let (again, Report { notes, .. }) = stage.redone(&again);
        assert_eq!((stage.dump(), stage.pg_dump()), applied, "redo of a redo of {change}");
        assert_eq!(notes, Vec::<String>::new(), "{change}");
        stage.undo(&again);
        assert_eq!((stage.dump(), stage.pg_dump()), before, "undo after redo of a redo of {change}");
    }
}

#[test]
fn a_redo_tells_of_a_view_that_its_step_had_filled_from_rows_of_the_middle() {
    let mut stage = Stage::new(SETUP);
    let before = (stage.dump(), stage.pg_dump());
    let images = stage.apply(
        "UPDATE t SET n = n + 1; REFRESH MATERIALIZED VIEW total; REFRESH MATERIALIZED VIEW CONCURRENTLY above; DELETE FROM t WHERE id = 3;",
    );
    stage.undo(&images);
    let (again, Report { notes, .. }) = stage.redone(&images);
    for view in ["total", "above"] {
        let is_told = |note: &&String| note.contains(&format!("materialized view public.{view} was filled anew"));
        assert_eq!(notes.iter().filter(is_told).count(), 1, "{notes:#?}");
    }
    stage.undo(&again);
    assert_eq!((stage.dump(), stage.pg_dump()), before);
}

#[test]
fn a_view_that_was_not_fresh_is_not_touched() {
    let mut stage = Stage::new(&format!("{SETUP} UPDATE t SET n = 100 WHERE id = 1;"));
    let before = (stage.dump(), stage.pg_dump());
    for change in [
        "REFRESH MATERIALIZED VIEW total;",
        "UPDATE t SET n = 7; REFRESH MATERIALIZED VIEW total;",
        "REFRESH MATERIALIZED VIEW total WITH NO DATA;",
        "REFRESH MATERIALIZED VIEW above; REFRESH MATERIALIZED VIEW total;",
    ] {
        match stage.try_apply(change) {
            Err(TargetError::Refused(refusal)) => {
                assert!(refusal.why.contains("held other rows"), "{change}: {}", refusal.why);
            }
            other => panic!("{change}: {other:?}"),
        }
        assert_eq!((stage.dump(), stage.pg_dump()), before, "{change}");
    }
}

/// What others wrote since is in it, too: a view that is filled holds what its query gives.
#[test]
fn what_others_wrote_since_stays() {
    let mut stage = Stage::new(SETUP);
    let images =
        stage.apply("UPDATE t SET n = n * 2; REFRESH MATERIALIZED VIEW total; REFRESH MATERIALIZED VIEW above;");
    stage.others("INSERT INTO t VALUES (30, 1000); REFRESH MATERIALIZED VIEW total");
    stage.undo(&images);
    assert_eq!(stage.ask("SELECT s FROM total"), "1045");
    assert_eq!(stage.ask("SELECT s FROM above"), "1046");
}

#[test]
fn a_view_that_others_emptied_or_replaced_is_theirs() {
    for theirs in [
        "REFRESH MATERIALIZED VIEW total WITH NO DATA",
        "DROP MATERIALIZED VIEW total CASCADE; CREATE TABLE total (s int)",
    ] {
        let mut stage = Stage::new(SETUP);
        let wanted = {
            let stage = Stage::new(SETUP);
            stage.others(theirs);
            (stage.dump(), stage.pg_dump())
        };
        let images = stage.apply("UPDATE t SET n = n * 2; REFRESH MATERIALIZED VIEW total;");
        stage.others(theirs);
        stage.undo(&images);
        assert_eq!((stage.dump(), stage.pg_dump()), wanted, "{theirs}");
    }
}

#[test]
fn a_view_that_others_dropped_or_renamed_is_a_conflict() {
    for theirs in ["DROP MATERIALIZED VIEW total CASCADE", "ALTER MATERIALIZED VIEW total RENAME TO theirs"] {
        let mut stage = Stage::new(SETUP);
        let images = stage.apply("UPDATE t SET n = n * 2; REFRESH MATERIALIZED VIEW total;");
        stage.others(theirs);
        let now = (stage.dump(), stage.pg_dump());
        assert!(!stage.conflicts(&images).is_empty(), "{theirs}");
        assert_eq!((stage.dump(), stage.pg_dump()), now, "{theirs}");
        stage.try_undo(&images, OnConflict::Keep).unwrap();
        assert_eq!(stage.ask("SELECT sum(n) FROM t"), "45", "{theirs}");
    }
}

/// A view is made anew with the table that it reads, when rows are not back yet.
#[test]
fn a_view_that_an_undo_makes_anew_is_what_it_was() {
    let mut stage = Stage::new(&format!("{SETUP} ALTER TABLE t ADD COLUMN b bigint DEFAULT 1;"));
    stage.there_and_back("UPDATE t SET n = 4; ALTER TABLE t ALTER b TYPE text;");
    stage.there_and_back("ALTER TABLE t DROP COLUMN b; UPDATE t SET n = 4;");
    stage.there_and_back(
        "UPDATE t SET n = 4; ALTER MATERIALIZED VIEW above RENAME TO over; ALTER TABLE t DROP COLUMN b; REFRESH MATERIALIZED VIEW total;",
    );
    // One that was not fresh would be another then.
    stage.others("INSERT INTO t VALUES (70, 70)");
    let before = stage.dump();
    for change in ["ALTER TABLE t DROP COLUMN b;", "UPDATE t SET n = 4; ALTER TABLE t ALTER b TYPE text;"] {
        match stage.try_apply(change) {
            Err(TargetError::Refused(refusal)) => assert!(refusal.why.contains("held other rows"), "{}", refusal.why),
            other => panic!("{change}: {other:?}"),
        }
        assert_eq!(stage.dump(), before, "{change}");
    }
}

/// Where its query fails by what others wrote, that is a conflict: `keep` takes the rest back.
#[test]
fn a_view_that_cannot_be_filled_is_a_conflict() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1), (2, 2);
        CREATE MATERIALIZED VIEW inverse AS SELECT id, 10 / n AS i FROM t;";
    let mut stage = Stage::new(setup);
    let images = stage.apply("UPDATE t SET n = 5 WHERE id = 1; REFRESH MATERIALIZED VIEW inverse;");
    stage.others("INSERT INTO t VALUES (3, 0)");
    let now = stage.dump();
    let conflicts = stage.conflicts(&images);
    assert!(conflicts.listed[0].to_string().contains("division by zero"), "{conflicts:?}");
    assert_eq!(stage.dump(), now);
    assert!(matches!(stage.try_undo(&images, OnConflict::Overwrite), Err(TargetError::Failed { .. })));
    assert_eq!(stage.dump(), now);
    let report = stage.try_undo(&images, OnConflict::Keep).unwrap();
    assert_eq!(report.conflicts.total, 1);
    assert_eq!(stage.ask("SELECT n FROM t WHERE id = 1"), "1");
    assert_eq!(stage.ask("SELECT i FROM inverse WHERE id = 1"), "2");
}

/// What may pass is not passed over: who reads the view for long keeps all of the undo from happening.
#[test]
fn a_view_that_others_hold_fails_the_undo() {
    let mut stage = Stage::new(SETUP);
    let images = stage.apply("UPDATE t SET n = n * 2; REFRESH MATERIALIZED VIEW total;");
    let now = stage.dump();
    let mut reader = stage.other();
    reader.batch_execute("BEGIN; SELECT * FROM total").unwrap();
    assert!(matches!(stage.try_undo(&images, OnConflict::Stop), Err(TargetError::Failed { .. })));
    reader.batch_execute("COMMIT").unwrap();
    assert_eq!(stage.dump(), now);
    stage.undo(&images);
    assert_eq!(stage.ask("SELECT s FROM total"), "45");
}

#[test]
fn an_undo_that_overwrites_can_be_redone() {
    let mut stage = Stage::new(SETUP);
    let images = stage.apply("UPDATE t SET n = n * 2; REFRESH MATERIALIZED VIEW total;");
    stage.others("UPDATE t SET n = 7 WHERE id = 1");
    stage.try_undo(&images, OnConflict::Overwrite).unwrap();
    assert_eq!(stage.ask("SELECT s FROM total"), "45");
}
