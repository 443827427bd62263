//! Rows of others that a constraint, a type or a key of the old state does not admit: conflicts, and `keep` gets out.

use backout_model::conflict::{ConflictKind, OnConflict};

use crate::postgres::stage::Stage;
use crate::stage::told;

const SETUP: &str = "DROP TABLE IF EXISTS uq, dup, low, room;
    CREATE TABLE uq (id int PRIMARY KEY, u int UNIQUE, d int UNIQUE DEFERRABLE INITIALLY DEFERRED,
        e int UNIQUE DEFERRABLE);
    INSERT INTO uq SELECT i, i, i, i FROM generate_series(1, 3) i;
    CREATE TABLE dup (a int, b text); INSERT INTO dup VALUES (1, 'x'), (2, 'y'), (2, 'y');
    CREATE TABLE low (id int PRIMARY KEY, a int); INSERT INTO low VALUES (1, 1), (2, 2);
    CREATE TABLE room (no int, at int4range, EXCLUDE USING gist (at WITH &&) DEFERRABLE INITIALLY DEFERRED);
    INSERT INTO room VALUES (1, '[1,5)'), (2, '[5,9)');";

struct Case {
    change: &'static str,
    others: &'static str,
    /// Of the first conflict: its row and what it says.
    key: &'static str,
    why: &'static str,
    total: u64,
    /// All rows of the table, once what others wrote was kept.
    table: &'static str,
    keep: &'static str,
    overwrite: Option<&'static str>,
}

const TAKEN: &str = "a row with the same value in a unique column";

const CASES: &[Case] = &[
    // Whatever a table has that is deferrable, ON CONFLICT is not for it.
    Case {
        change: "UPDATE uq SET u = -u",
        others: "INSERT INTO uq VALUES (9, 1, 9, 9)",
        key: "id=1",
        why: TAKEN,
        total: 1,
        table: "uq",
        keep: "(1,-1,1,1) (2,2,2,2) (3,3,3,3) (9,1,9,9)",
        overwrite: Some("(1,1,1,1) (2,2,2,2) (3,3,3,3)"),
    },
    // What is checked at the end is checked by a trigger, and triggers are silent.
    Case {
        change: "UPDATE uq SET d = -d",
        others: "INSERT INTO uq VALUES (9, 9, 1, 9)",
        key: "id=1",
        why: TAKEN,
        total: 1,
        table: "uq",
        keep: "(1,1,-1,1) (2,2,2,2) (3,3,3,3) (9,9,1,9)",
        overwrite: Some("(1,1,1,1) (2,2,2,2) (3,3,3,3)"),
    },
    Case {
        change: "DELETE FROM uq WHERE id = 1",
        others: "INSERT INTO uq VALUES (9, 9, 9, 1)",
        key: "id=1",
        why: TAKEN,
        total: 1,
        table: "uq",
        keep: "(2,2,2,2) (3,3,3,3) (9,9,9,1)",
        overwrite: Some("(1,1,1,1) (2,2,2,2) (3,3,3,3)"),
    },
    Case {
        change: "DELETE FROM room WHERE no = 1",
        others: "INSERT INTO room VALUES (3, '[2,4)')",
        key: "(no=1, at='[1,5)')",
        why: TAKEN,
        total: 1,
        table: "room",
        keep: "(2,\"[5,9)\") (3,\"[2,4)\")",
        overwrite: Some("(1,\"[1,5)\") (2,\"[5,9)\")"),
    },
    Case {
        change: "TRUNCATE room",
        others: "INSERT INTO room VALUES (3, '[2,4)')",
        key: "",
        why: "1 row with keys of old rows",
        total: 1,
        table: "room",
        keep: "(2,\"[5,9)\") (3,\"[2,4)\")",
        overwrite: Some("(1,\"[1,5)\") (2,\"[5,9)\")"),
    },
    // A check that was not there, or was there and not valid.
    Case {
        change: "UPDATE low SET a = a + 10",
        others: "ALTER TABLE low ADD CHECK (a <> 2)",
        key: "id=2",
        why: "violates check constraint",
        total: 1,
        table: "low",
        keep: "(1,1) (2,12)",
        overwrite: None,
    },
    Case {
        change: "DELETE FROM low WHERE id = 2",
        others: "ALTER TABLE low ADD CHECK (a <> 2)",
        key: "id=2",
        why: "violates check constraint",
        total: 1,
        table: "low",
        keep: "(1,1)",
        overwrite: None,
    },
    Case {
        change: "UPDATE dup SET a = a + 10",
        others: "ALTER TABLE dup ADD CHECK (a <> 2)",
        key: "(a=2, b='y')",
        why: "violates check constraint",
        total: 2,
        table: "dup",
        keep: "(1,x) (12,y) (12,y)",
        overwrite: None,
    },
    Case {
        change: "TRUNCATE low",
        others: "ALTER TABLE low ADD CHECK (a <> 2)",
        key: "",
        why: "violates check constraint",
        total: 1,
        table: "low",
        keep: "",
        overwrite: None,
    },
    // Columns that come back, or get their old type back.
    Case {
        change: "ALTER TABLE low DROP COLUMN id",
        others: "INSERT INTO low VALUES (7)",
        key: "a=7",
        why: "violates not-null constraint",
        total: 1,
        table: "low",
        keep: "(1) (2) (7)",
        overwrite: None,
    },
    Case {
        change: "ALTER TABLE low ALTER a TYPE bigint",
        others: "UPDATE low SET a = 99999999999; INSERT INTO low VALUES (9, 9)",
        key: "id=1",
        why: "out of range",
        total: 2,
        table: "low",
        keep: "(1,99999999999) (2,99999999999) (9,9)",
        overwrite: None,
    },
    Case {
        change: "ALTER TABLE dup ALTER a TYPE text USING 'u' || a",
        others: "UPDATE dup SET a = 'mine' WHERE a = 'u1'",
        key: "b=x",
        why: "invalid input syntax for type integer",
        total: 1,
        table: "dup",
        keep: "(mine,x) (u2,y) (u2,y)",
        overwrite: None,
    },
];

#[test]
fn what_a_constraint_does_not_admit_is_a_conflict_and_kept() {
    let mut stage = Stage::new("");
    for case in CASES {
        let label = format!("{}; {}", case.change, case.others);
        let prepare = |stage: &mut Stage<'_>| {
            stage.others(SETUP);
            let images = stage.apply(case.change);
            stage.others(case.others);
            images
        };
        let mut images = prepare(&mut stage);
        let then = stage.dump();
        let conflicts = stage.conflicts(&images);
        assert_eq!(stage.dump(), then, "{label}");
        let first = &conflicts.listed[0];
        assert_eq!((conflicts.total, first.key.as_deref().unwrap_or_default()), (case.total, case.key), "{label}");
        assert!(first.now.contains(case.why), "{label}: {first}");
        let rows = format!("SELECT coalesce(string_agg(t::text, ' ' ORDER BY t::text), '') FROM {} t", case.table);
        let overwritten = stage.try_undo(&images, OnConflict::Overwrite);
        match case.overwrite {
            // What nobody can do is not said to be done.
            None => {
                assert!(told(&overwritten.unwrap_err()).contains(case.why), "{label}");
                assert_eq!(stage.dump(), then, "{label}");
            }
            Some(expected) => {
                overwritten.unwrap_or_else(|error| panic!("{label}: {}", told(&error)));
                assert_eq!(stage.ask(&rows), expected, "{label}");
                images = prepare(&mut stage);
            }
        }
        stage.try_undo(&images, OnConflict::Keep).unwrap_or_else(|error| panic!("{label}: {}", told(&error)));
        assert_eq!(stage.ask(&rows), case.keep, "{label}");
    }
}

/// Deferrable values that others left alone go round as before.
#[test]
fn deferrable_values_that_move_round_go_back() {
    let mut stage = Stage::new(SETUP);
    let before = stage.dump();
    for change in ["UPDATE uq SET d = d + 1, e = e + 1", "UPDATE uq SET d = 4 - d, e = 4 - e, u = u + 3"] {
        let images = stage.apply(change);
        stage.undo(&images);
        assert_eq!(stage.dump(), before, "{change}");
    }
    let images = stage.apply("UPDATE uq SET d = d + 1");
    stage.others("INSERT INTO uq VALUES (9, 9, 1, 9)");
    let conflicts = stage.conflicts(&images);
    assert!(conflicts.listed.iter().all(|one| one.kind == ConflictKind::Constraint), "{conflicts:?}");
    stage.try_undo(&images, OnConflict::Keep).unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(stage.ask("SELECT count(*) = count(DISTINCT d) FROM uq"), "t");
}
