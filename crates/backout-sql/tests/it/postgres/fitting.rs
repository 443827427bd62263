//! Tables that others gave columns, or took some from, since the images of their rows were taken.

use backout_model::conflict::OnConflict;
use backout_model::target::TargetError;

use crate::postgres::stage::Stage;

const KEYED: &str = "CREATE TABLE t (id int PRIMARY KEY, a text UNIQUE, c text);
    INSERT INTO t VALUES (1, 'a1', 'c1'), (2, 'a2', 'c2');";
const KEYLESS: &str = "CREATE TABLE t (id int, a text, c text); INSERT INTO t VALUES (1, 'a1', 'c1'), (2, 'a2', 'c2');";
const ROWS: &str = "SELECT coalesce(string_agg(x::text, ' ' ORDER BY x::text), '') FROM t x";

struct Case {
    base: &'static str,
    change: &'static str,
    others: &'static str,
    /// How many conflicts, and the column of the first.
    conflicts: u64,
    column: Option<&'static str>,
    keep: &'static str,
    overwrite: &'static str,
}

const THEIRS: &str = "ALTER TABLE t ADD COLUMN o text; UPDATE t SET o = 'mine'";

const CASES: &[Case] = &[
    Case {
        base: KEYED,
        change: "INSERT INTO t VALUES (5, 'i', 'i')",
        others: THEIRS,
        conflicts: 1,
        column: Some("o"),
        keep: "(1,a1,c1,mine) (2,a2,c2,mine) (5,i,i,mine)",
        overwrite: "(1,a1,c1,mine) (2,a2,c2,mine)",
    },
    // What a row got with the column is nobody's.
    Case {
        base: KEYED,
        change: "INSERT INTO t VALUES (5, 'i', 'i')",
        others: "ALTER TABLE t ADD COLUMN o text DEFAULT 'x', ADD p serial, ADD q timestamptz DEFAULT clock_timestamp()",
        conflicts: 0,
        column: None,
        keep: "",
        overwrite: "",
    },
    // A row that gets another key goes and comes.
    Case {
        base: KEYED,
        change: "UPDATE t SET id = 9, a = 'z' WHERE id = 1",
        others: THEIRS,
        conflicts: 1,
        column: Some("o"),
        keep: "(1,a1,c1,) (2,a2,c2,mine) (9,z,c1,mine)",
        overwrite: "(1,a1,c1,) (2,a2,c2,mine)",
    },
    Case {
        base: KEYLESS,
        change: "UPDATE t SET a = 'x'",
        others: "ALTER TABLE t ADD COLUMN o text; UPDATE t SET o = 'mine' WHERE id = 1",
        conflicts: 1,
        column: None,
        keep: "(1,x,c1,mine) (2,a2,c2,)",
        overwrite: "(1,a1,c1,) (2,a2,c2,)",
    },
    Case {
        base: KEYLESS,
        change: "INSERT INTO t VALUES (5, 'i', 'i')",
        others: THEIRS,
        conflicts: 1,
        column: None,
        keep: "(1,a1,c1,mine) (2,a2,c2,mine) (5,i,i,mine)",
        overwrite: "(1,a1,c1,mine) (2,a2,c2,mine)",
    },
    // The value of a column that went belongs to a row, and that may have another key now.
    Case {
        base: KEYED,
        change: "ALTER TABLE t DROP COLUMN c",
        others: "UPDATE t SET id = 9 WHERE id = 1",
        conflicts: 1,
        column: None,
        keep: "(2,a2,c2) (9,a1,)",
        overwrite: "(2,a2,c2) (9,a1,)",
    },
    Case {
        base: KEYED,
        change: "ALTER TABLE t ALTER c TYPE int USING 5",
        others: "UPDATE t SET id = 9 WHERE id = 1",
        conflicts: 1,
        column: None,
        keep: "(2,a2,c2) (9,a1,5)",
        overwrite: "(2,a2,c2) (9,a1,5)",
    },
    Case {
        base: KEYLESS,
        change: "ALTER TABLE t DROP COLUMN c",
        others: "UPDATE t SET a = 'O' WHERE id = 1",
        conflicts: 1,
        column: None,
        keep: "(1,O,) (2,a2,c2)",
        overwrite: "(1,O,) (2,a2,c2)",
    },
    // A row that others deleted takes its value along.
    Case {
        base: KEYED,
        change: "ALTER TABLE t DROP COLUMN c",
        others: "DELETE FROM t WHERE id = 1",
        conflicts: 0,
        column: None,
        keep: "",
        overwrite: "",
    },
];

#[test]
fn what_others_wrote_into_columns_of_theirs_is_not_lost() {
    for Case { base, change, others, conflicts, column, keep, overwrite } in CASES {
        let mut stage = Stage::new(base);
        let images = stage.apply(change);
        stage.others(others);
        if *conflicts == 0 {
            stage.undo(&images);
            continue;
        }
        let found = stage.conflicts(&images);
        assert_eq!((found.total, found.listed[0].column.as_deref()), (*conflicts, *column), "{change}: {found:?}");
        let kept = stage.try_undo(&images, OnConflict::Keep).unwrap();
        assert_eq!((kept.conflicts.total, stage.ask(ROWS)), (*conflicts, (*keep).to_owned()), "{change}, keep");
        let mut stage = Stage::new(base);
        let images = stage.apply(change);
        stage.others(others);
        let over = stage.try_undo(&images, OnConflict::Overwrite).unwrap();
        assert_eq!(
            (over.conflicts.total, stage.ask(ROWS)),
            (*conflicts, (*overwrite).to_owned()),
            "{change}, overwrite"
        );
    }
}

#[test]
fn values_that_go_round_leave_those_of_others_in_their_rows() {
    let mut stage = Stage::new(KEYED);
    let images = stage.apply(
        "UPDATE t SET a = '' WHERE id = 1; UPDATE t SET a = 'a1' WHERE id = 2; UPDATE t SET a = 'a2' WHERE id = 1;",
    );
    stage.others(THEIRS);
    stage.undo(&images);
    assert_eq!(stage.ask(ROWS), "(1,a1,c1,mine) (2,a2,c2,mine)");
}

#[test]
fn what_has_no_place_any_more_is_not_said_to_have_been_overwritten() {
    for (change, others) in [
        ("UPDATE t SET a = 'x' || a", "ALTER TABLE t DROP COLUMN c"),
        ("DELETE FROM t WHERE id = 1", "ALTER TABLE t RENAME COLUMN c TO cc"),
        ("TRUNCATE t", "ALTER TABLE t RENAME COLUMN c TO cc"),
        ("TRUNCATE t", "ALTER TABLE t RENAME TO tt"),
        ("ALTER TABLE t DROP COLUMN c", "ALTER TABLE t RENAME TO tt"),
    ] {
        for base in [KEYED, KEYLESS] {
            let mut stage = Stage::new(base);
            let images = stage.apply(change);
            stage.others(others);
            let before = stage.dump();
            let found = stage.conflicts(&images);
            assert_eq!(found.total, 1, "{change}; {others}: {found:?}");
            let over = stage.try_undo(&images, OnConflict::Overwrite);
            assert!(
                matches!(over, Err(TargetError::Failed { .. } | TargetError::Conflicts(_))),
                "{change}; {others}: {over:?}"
            );
            assert_eq!(stage.dump(), before, "{change}; {others}");
            let kept = stage.try_undo(&images, OnConflict::Keep).unwrap();
            assert_eq!((kept.conflicts.total, stage.dump() == before), (1, true), "{change}; {others}");
        }
    }
}

/// The undo of a wider type asks nothing of the values as they were, and cuts none of those that came since.
#[test]
fn a_narrower_type_that_comes_back_cuts_nothing() {
    let base = "CREATE TABLE t (id int PRIMARY KEY, v varchar(5) UNIQUE, n numeric(5,2), w varchar(3));
        INSERT INTO t VALUES (1, 'a', 1.50, 'x'), (2, 'b  ', NULL, NULL)";
    let wider = "ALTER TABLE t ALTER v TYPE varchar(9), ALTER n TYPE numeric(9,2), ALTER w TYPE varchar";
    let mut stage = Stage::new(base);
    let before = stage.pg_dump();
    let images = stage.apply(wider);
    stage.undo(&images);
    assert_eq!(stage.pg_dump(), before);
    let again = stage.redo(&images);
    for others in ["v = 'longer'", "v = 'b       '", "w = 'long'", "w = '         '", "n = 1234.5"] {
        stage.others(&format!("UPDATE t SET {others} WHERE id = 2"));
        let now = stage.dump();
        let found = stage.conflicts(&again);
        assert_eq!(found.total, 1, "{others}: {found:?}");
        let kept = stage.try_undo(&again, OnConflict::Keep).unwrap();
        assert_eq!((kept.conflicts.total, stage.dump()), (1, now), "{others}");
        stage.others("UPDATE t SET v = 'b  ', n = NULL, w = NULL WHERE id = 2");
    }
    stage.undo(&again);
    assert_eq!(stage.pg_dump(), before);
}
