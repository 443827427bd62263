//! Whether a later step changed what the undo of an earlier one would take: its images tell, row by row and column by column.

use std::io::Cursor;

use backout_model::conflict::{Conflict, Conflicts, OnConflict};
use backout_model::target::Target;

use crate::postgres::stage::Stage;
use crate::stage::{Images, told};

const SETUP: &str = r"
    CREATE TABLE t (id int PRIMARY KEY, a int, b text);
    INSERT INTO t VALUES (1, 10, 'x'), (2, 20, 'y'), (10, 30, NULL);
    CREATE TABLE k (k text PRIMARY KEY, v int);
    INSERT INTO k VALUES ('a', 1), ('A', 1), (E't\tb\\n\n''', 1), ('é, k=''b''', 1), (repeat('ü', 70), 1), (repeat('ü', 70) || 'x', 1);
    CREATE TABLE two (a int, b text, v int, PRIMARY KEY (a, b));
    INSERT INTO two VALUES (1, 'x', 1), (1, 'y', 1), (11, 'x', 1);
    CREATE TABLE n (x int, y text);
    INSERT INTO n VALUES (1, 'a'), (1, 'a'), (2, NULL);
    CREATE TABLE num (k numeric PRIMARY KEY, v int);
    INSERT INTO num VALUES (1.0, 1), (2.5, 2);
    CREATE INDEX by_b ON t (b);";

/// What stands in the way of the undo of a step, or is as it would leave it already.
fn found(stage: &mut Stage<'_>, images: &Images) -> Vec<Conflict> {
    let mut one = std::iter::once(Box::new(Cursor::new(images.clone())) as Box<dyn backout_model::target::Images>);
    let report =
        stage.database.check_undo(&mut one, OnConflict::Stop).unwrap_or_else(|error| panic!("{}", told(&error)));
    let Conflicts { listed, .. } = report.conflicts.and(report.already);
    listed
}

/// Whether any of what is found of `first` after `second` and what the application did is about what `second` changed.
#[track_caller]
fn met(first: &str, second: &str, others: &str) -> bool {
    let mut stage = Stage::new(SETUP);
    let one = stage.apply(first);
    let two = stage.apply(second);
    stage.others(others);
    let found = found(&mut stage, &one);
    assert!(!found.is_empty(), "{first}; {second}; {others}: nothing found");
    let answers =
        stage.database.meets(&mut Cursor::new(&two), &found).unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(answers.len(), found.len());
    answers.contains(&true)
}

#[test]
fn what_both_changed_is_met() {
    let of_k =
        |key: &str| (format!("UPDATE k SET v = 2 WHERE k = {key}"), format!("UPDATE k SET v = 3 WHERE k = {key}"));
    let keys = ["'a'", r"E't\tb\\n\n'''", "'é, k=''b'''", "repeat('ü', 70)"].map(of_k);
    let others = [
        ("UPDATE t SET a = 11 WHERE id = 1", "UPDATE t SET a = 12 WHERE id = 1"),
        ("UPDATE t SET a = 11, b = 'z' WHERE id = 1", "UPDATE t SET b = 'w' WHERE id < 3"),
        ("UPDATE t SET a = 11 WHERE id = 1", "DELETE FROM t WHERE id = 1"),
        ("UPDATE t SET a = 11 WHERE id = 1", "UPDATE t SET id = 101 WHERE id = 1"),
        ("UPDATE t SET a = 11 WHERE id = 1", "TRUNCATE t"),
        ("UPDATE t SET a = 11 WHERE id = 1", "ALTER TABLE t DROP COLUMN a"),
        // The image of the whole row has no place any more.
        ("UPDATE t SET a = 11 WHERE id = 1", "ALTER TABLE t DROP COLUMN b"),
        ("UPDATE t SET a = 11 WHERE id = 1", "ALTER TABLE t RENAME TO tt"),
        ("UPDATE t SET a = 11 WHERE id = 1", "ALTER TABLE t DROP CONSTRAINT t_pkey"),
        ("INSERT INTO t VALUES (50, 1, 'n')", "UPDATE t SET b = 'm' WHERE id = 50"),
        ("INSERT INTO t VALUES (50, 1, 'n')", "DELETE FROM t WHERE id = 50"),
        ("DELETE FROM t WHERE id = 2", "INSERT INTO t VALUES (2, 0, 'other')"),
        ("DELETE FROM t WHERE id = 2", "UPDATE t SET id = 2 WHERE id = 1"),
        ("UPDATE two SET v = 2 WHERE a = 1 AND b = 'y'", "UPDATE two SET v = 3 WHERE b = 'y'"),
        ("INSERT INTO n VALUES (7, 'q')", "DELETE FROM n WHERE x = 7"),
        ("UPDATE num SET v = 5 WHERE k = 1", "UPDATE num SET v = 6 WHERE k = 1"),
        ("ALTER TABLE t ADD COLUMN z int", "UPDATE t SET z = 1 WHERE id = 1"),
        ("CREATE INDEX by_a ON t (a)", "DROP INDEX by_a"),
        ("CREATE VIEW v AS SELECT a FROM t", "CREATE OR REPLACE VIEW v AS SELECT a FROM t WHERE a > 0"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE VIEW v AS SELECT f()"),
        ("CREATE TABLE made (a int)", "INSERT INTO made VALUES (1)"),
        ("CREATE TABLE made (a int)", "CREATE INDEX on_made ON made (a)"),
    ];
    let others = others.iter().map(|(first, second)| ((*first).to_owned(), (*second).to_owned()));
    for (first, second) in keys.into_iter().chain(others) {
        assert!(met(&first, &second, ""), "{first}; {second}");
    }
}

#[test]
fn what_only_others_changed_is_not() {
    for (first, second, others) in [
        (
            "UPDATE t SET a = 11 WHERE id = 1",
            "UPDATE t SET a = 21 WHERE id IN (2, 10)",
            "UPDATE t SET a = 99 WHERE id = 1",
        ),
        ("UPDATE t SET a = 11 WHERE id = 1", "UPDATE t SET b = 'z' WHERE id = 1", "UPDATE t SET a = 99 WHERE id = 1"),
        ("UPDATE t SET a = 11 WHERE id = 1", "INSERT INTO t VALUES (11, 1, '')", "UPDATE t SET a = 99 WHERE id = 1"),
        ("UPDATE t SET a = 11 WHERE id = 1", "ALTER TABLE t ADD COLUMN z int", "UPDATE t SET a = 99 WHERE id = 1"),
        ("UPDATE t SET a = 11 WHERE id = 1", "CREATE INDEX by_a ON t (a)", "UPDATE t SET a = 99 WHERE id = 1"),
        ("UPDATE t SET a = 11 WHERE id = 1", "COMMENT ON TABLE t IS 'x'", "UPDATE t SET a = 99 WHERE id = 1"),
        ("INSERT INTO t VALUES (50, 1, 'n')", "DELETE FROM t WHERE id = 2", "UPDATE t SET b = 'm' WHERE id = 50"),
        ("INSERT INTO t VALUES (50, 1, 'n')", "DELETE FROM t WHERE id = 2", "DELETE FROM t WHERE id = 50"),
        ("DELETE FROM t WHERE id = 2", "INSERT INTO t VALUES (3, 0, '')", "INSERT INTO t VALUES (2, 0, 'other')"),
        ("UPDATE k SET v = 2 WHERE k = 'a'", "UPDATE k SET v = 3 WHERE k = 'A'", "UPDATE k SET v = 4 WHERE k = 'a'"),
        (
            "UPDATE k SET v = 2 WHERE k = 'é, k=''b'''",
            "DELETE FROM k WHERE k IN ('a', 'A')",
            "UPDATE k SET v = 4 WHERE k LIKE 'é%'",
        ),
        (
            "UPDATE two SET v = 2 WHERE a = 1 AND b = 'y'",
            "UPDATE two SET v = 3 WHERE b = 'x'",
            "UPDATE two SET v = 4 WHERE b = 'y'",
        ),
        ("INSERT INTO n VALUES (7, 'q')", "DELETE FROM n WHERE x = 1", "DELETE FROM n WHERE x = 7"),
        ("CREATE INDEX by_a ON t (a)", "DROP INDEX by_b", "DROP INDEX by_a"),
        ("ALTER TABLE t ADD COLUMN z int", "ALTER TABLE t ADD COLUMN w int", "UPDATE t SET z = 1"),
        ("ALTER TABLE t ADD COLUMN z int", "INSERT INTO n VALUES (9, 'n')", "UPDATE t SET z = 1"),
        ("CREATE TABLE made (a int)", "INSERT INTO t VALUES (9, 9, 'n')", "INSERT INTO made VALUES (1)"),
    ] {
        assert!(!met(first, second, others), "{first}; {second}; {others}");
    }
}

/// Values that are shown alike, or that are one though they are shown in two ways, may be of one row.
#[test]
fn what_cannot_be_told_apart_is_met() {
    for (first, second, others) in [
        (
            "UPDATE k SET v = 2 WHERE k = repeat('ü', 70)",
            "UPDATE k SET v = 3 WHERE k = repeat('ü', 70) || 'x'",
            "UPDATE k SET v = 4 WHERE k = repeat('ü', 70)",
        ),
        ("UPDATE num SET v = 5 WHERE k = 1", "UPDATE num SET v = 6 WHERE k = 2.5", "UPDATE num SET v = 7 WHERE k = 1"),
        (
            "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (a); UPDATE t SET b = 'q' WHERE a = 10",
            "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id); UPDATE t SET b = 'r' WHERE id = 2",
            "UPDATE t SET b = 's' WHERE a = 10",
        ),
    ] {
        assert!(met(first, second, others), "{first}; {second}; {others}");
    }
}
