//! Rows without a key, known by their rowid alone: whose numbers last through what the tool does to the schema, and are
//! doubted after what others do to it.

use backout_model::conflict::{ConflictKind, OnConflict};

use backout_model::target::TargetError;

use crate::stage::Stage;

/// The usual way to alter a table; it numbers rows anew.
const REBUILD: &str =
    "CREATE TABLE n (a, b, c); INSERT INTO n (a, b) SELECT a, b FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t;";

fn rows(stage: &Stage) -> String {
    let list = "SELECT group_concat(a || ':' || b, ' ') FROM (SELECT * FROM t ORDER BY a, b)";
    stage.other().query_row(list, [], |row| row.get(0)).unwrap()
}

#[test]
fn rows_without_a_key_are_found_after_vacuum() {
    let mut stage =
        Stage::new("CREATE TABLE t (a, b); INSERT INTO t VALUES (0, 'gone'), (1, 'x'), (2, 'y'), (3, 'z');");
    stage.other().execute_batch("DELETE FROM t WHERE a = 0").unwrap();
    let images = stage.apply("UPDATE t SET b = 'ours' WHERE a = 2; INSERT INTO t VALUES (9, 'new');");
    stage.other().execute_batch("VACUUM").unwrap();
    stage.undo(&images);
    assert_eq!(rows(&stage), "1:x 2:y 3:z");
}

#[test]
fn a_row_is_not_taken_for_another_that_has_its_rowid_now() {
    for more in ["", "CREATE INDEX t_b ON t (b);", "CREATE UNIQUE INDEX t_a ON t (a);"] {
        for others in [true, false] {
            let mut stage = Stage::new(&format!(
                "CREATE TABLE t (a, b); {more} INSERT INTO t VALUES (0, 'gone'), (1, 1), (2, 0), (3, 1);
                 DELETE FROM t WHERE a = 0;"
            ));
            let images = stage.apply("UPDATE t SET b = 1 WHERE a = 2;");
            if others {
                stage.other().execute_batch(REBUILD).unwrap();
            } else {
                stage.apply(REBUILD);
            }
            stage.undo(&images);
            assert_eq!(rows(&stage), "1:1 2:0 3:1", "{more} by others: {others}");
        }
    }
}

#[test]
fn a_row_with_a_null_in_its_key_is_not_taken_for_another() {
    let setup = "CREATE TABLE t (k TEXT PRIMARY KEY, a, b); INSERT INTO t VALUES ('gone', 0, 0), (NULL, 1, 1), (NULL, 2, 0), (NULL, 3, 1);
         DELETE FROM t WHERE k = 'gone';";
    let mut stage = Stage::new(setup);
    let images = stage.apply("UPDATE t SET b = 1 WHERE a = 2;");
    let rebuild = "CREATE TABLE n (k TEXT PRIMARY KEY, a, b); INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t;";
    stage.other().execute_batch(rebuild).unwrap();
    stage.undo(&images);
    assert_eq!(rows(&stage), "1:1 2:0 3:1");
}

/// What a later step of the same or another deployment may do.
const SCHEMA_CHANGES: [&str; 6] = [
    "CREATE TABLE other (x);",
    "CREATE INDEX t_b ON t (b);",
    REBUILD,
    "DROP TABLE t;",
    "ALTER TABLE t RENAME TO u; ALTER TABLE u ADD COLUMN d;",
    "CREATE TABLE other AS SELECT * FROM t; DELETE FROM t; INSERT INTO t SELECT * FROM other;",
];

#[test]
fn others_columns_are_merged_whatever_the_tool_did_to_the_schema() {
    let few = "INSERT INTO t VALUES (0, 'gone'), (1, 'x'), (2, 'y'), (3, 'z');";
    let many = format!("{few} INSERT INTO t SELECT value, 'fill' FROM generate WHERE value > 3;");
    let generate = "CREATE VIEW generate AS WITH RECURSIVE g (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM g LIMIT 700) SELECT value FROM g;";
    for rows in [few, &many] {
        for later in SCHEMA_CHANGES {
            let mut stage = Stage::new(&format!("{generate} CREATE TABLE t (a, b); {rows} DELETE FROM t WHERE a = 0;"));
            let images = stage.apply("UPDATE t SET b = 'ours' WHERE a IN (1, 2);");
            stage.other().execute_batch("UPDATE t SET a = 20 WHERE a = 2").unwrap();
            let then = stage.apply(later);
            stage.undo(&then);
            // And once more, by way of a redo.
            let again = stage.redo(&then);
            stage.undo(&again);
            stage.undo(&images);
            let list = "SELECT group_concat(a || ':' || b, ' ') FROM t WHERE b <> 'fill'";
            let found: String = stage.other().query_row(list, [], |row| row.get(0)).unwrap();
            assert_eq!(found, "1:x 20:y 3:z", "{later}");
        }
    }
    // A table that the tool made itself, of which a step touches no more than a column.
    let mut stage = Stage::new("");
    stage.apply("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 'x'), (2, 'y');");
    let before = stage.dump();
    let images = stage.apply("ALTER TABLE t DROP COLUMN b;");
    stage.undo(&images);
    assert_eq!(stage.dump(), before);
}

#[test]
fn a_table_that_is_made_again_by_a_redo_has_its_rows_numbered_as_before() {
    let mut stage = Stage::new("");
    let made = stage.apply(
        "CREATE TABLE t (a, b); INSERT INTO t VALUES (0, 'gone'), (1, 'x'), (2, 'y'); DELETE FROM t WHERE a = 0;",
    );
    let images = stage.apply("UPDATE t SET b = 'ours' WHERE a = 2;");
    stage.undo(&images);
    stage.undo(&made);
    stage.redo(&made);
    stage.other().execute_batch("UPDATE t SET a = 20 WHERE a = 2").unwrap();
    let again = stage.redo(&images);
    assert_eq!(rows(&stage), "1:x 20:ours");
    stage.undo(&again);
    assert_eq!(rows(&stage), "1:x 20:y");
}

#[test]
fn others_columns_are_a_conflict_once_others_may_have_numbered_rows_anew() {
    for others in ["VACUUM", "CREATE TABLE other (x)", REBUILD] {
        let mut stage = Stage::new("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 'x'), (2, 'y');");
        let images = stage.apply("UPDATE t SET b = 'ours' WHERE a = 2;");
        let inserted = stage.apply("INSERT INTO t VALUES (3, 'new');");
        stage.other().execute_batch("UPDATE t SET a = 20 WHERE a = 2; UPDATE t SET a = 30 WHERE a = 3").unwrap();
        stage.other().execute_batch(others).unwrap();
        for images in [&inserted, &images] {
            let found = stage.conflicts(images);
            assert!(found.listed.iter().all(|one| one.kind == ConflictKind::NotFound), "{others}: {found:?}");
            assert_eq!(found.total, 1, "{others}");
        }
        // What was done since then is known again.
        let later = stage.apply("UPDATE t SET b = 'later' WHERE a = 1;");
        stage.other().execute_batch("UPDATE t SET a = 10 WHERE a = 1").unwrap();
        stage.undo(&later);
        assert_eq!(rows(&stage), "10:x 20:ours 30:new", "{others}");
    }
}

#[test]
fn one_of_several_rows_that_are_alike_comes_back_after_vacuum() {
    let mut stage = Stage::new(
        "CREATE TABLE t (a, b); INSERT INTO t VALUES (0, 0), (1, 1), (1, 1), (2, 2); DELETE FROM t WHERE a = 0;",
    );
    let images = stage.apply("DELETE FROM t WHERE rowid = 2;");
    stage.other().execute_batch("VACUUM").unwrap();
    stage.undo(&images);
    assert_eq!(rows(&stage), "1:1 1:1 2:2");
    let images = stage.apply("UPDATE t SET b = 9 WHERE rowid = 1;");
    stage.other().execute_batch("UPDATE t SET b = 8 WHERE b = 9; VACUUM").unwrap();
    // The other row that is as this one was is not this one.
    assert_eq!(stage.conflicts(&images).total, 1);
    stage.try_undo(&images, OnConflict::Keep).unwrap();
    assert_eq!(rows(&stage), "1:1 1:8 2:2");
}

#[test]
fn values_of_a_dropped_column_go_back_to_their_own_rows() {
    // Without a key, after VACUUM; and where a new row has an old one's rowid.
    for (setup, others, expected) in [
        ("CREATE TABLE t (a, b);", "VACUUM", None),
        ("CREATE TABLE t (a TEXT PRIMARY KEY, b);", "VACUUM", Some("1:x 2:y 3:z")),
        (
            "CREATE TABLE t (a TEXT PRIMARY KEY, b);",
            "DELETE FROM t WHERE a = '3'; INSERT INTO t (a) VALUES ('4'); UPDATE t SET a = '5' WHERE a = '2'",
            Some("1:x 4:- 5:-"),
        ),
    ] {
        let mut stage = Stage::new(&format!(
            "{setup} INSERT INTO t VALUES ('0', 'gone'), ('1', 'x'), ('2', 'y'), ('3', 'z'); DELETE FROM t WHERE a = '0';"
        ));
        let images = stage.apply("ALTER TABLE t DROP COLUMN b;");
        stage.other().execute_batch(others).unwrap();
        match expected {
            None => {
                assert_eq!(stage.conflicts(&images).listed[0].kind, ConflictKind::NotFound);
                // Nor do the values of other rows come back with force.
                assert!(matches!(stage.try_undo(&images, OnConflict::Overwrite), Err(TargetError::Conflicts(_))));
                stage.try_undo(&images, OnConflict::Keep).unwrap();
                assert!(stage.other().prepare("SELECT b FROM t").is_err());
            }
            Some(expected) => {
                // What was the value of '2' and of '3' may belong to '4' or '5'.
                let manner = if others == "VACUUM" { OnConflict::Stop } else { OnConflict::Keep };
                stage.try_undo(&images, manner).unwrap();
                let list = "SELECT group_concat(a || ':' || coalesce(b, '-'), ' ') FROM (SELECT * FROM t ORDER BY a)";
                let found: String = stage.other().query_row(list, [], |row| row.get(0)).unwrap();
                assert_eq!(found, expected, "{setup} {others}");
            }
        }
    }
}
