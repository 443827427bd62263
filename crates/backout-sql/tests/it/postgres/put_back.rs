//! One step takes something away and a later one of the same deployment puts it there anew: where others took that away, the
//! undo does not bring the old one back unsaid.

use std::io::Cursor;

use backout_model::conflict::{ConflictKind, OnConflict};
use backout_model::target::{Report, Target, TargetError};

use crate::postgres::stage::Stage;
use crate::stage::{Images, told};

const SETUP: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c');
    CREATE TABLE n (n numeric, k text, PRIMARY KEY (n, k)); INSERT INTO n VALUES (1.50, 'k''s'), (2, '');
    CREATE VIEW w AS SELECT 1 AS x; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'";

fn seek(stage: &mut Stage<'_>, steps: &[Images]) -> Report {
    let mut all = steps
        .iter()
        .rev()
        .map(|one| Box::new(Cursor::new(one.clone())) as Box<dyn backout_model::target::Images>)
        .collect::<Vec<_>>()
        .into_iter();
    stage.database.check_undo(&mut all, OnConflict::Stop).unwrap_or_else(|error| panic!("{}", told(&error)))
}

#[test]
fn what_others_took_away_does_not_come_back_unsaid() {
    for (steps, others) in [
        (&["DELETE FROM t WHERE id = 3", "INSERT INTO t VALUES (3, 'cc')"][..], "DELETE FROM t WHERE id = 3"),
        (
            &["DELETE FROM t; INSERT INTO t VALUES (1, 'a')", "INSERT INTO t VALUES (3, 'c')"],
            "DELETE FROM t WHERE id = 3",
        ),
        (&["DELETE FROM n", "INSERT INTO n VALUES (1.5, 'k''s')"], "DELETE FROM n"),
        (&["TRUNCATE t; INSERT INTO t VALUES (3, 'cc')"], "DELETE FROM t WHERE id = 3"),
        (&["TRUNCATE t", "INSERT INTO t VALUES (3, 'cc')"], "DELETE FROM t"),
        (&["DROP VIEW w; CREATE VIEW w AS SELECT 2 AS x"], "DROP VIEW w"),
        (&["DROP VIEW w", "CREATE VIEW w AS SELECT 2 AS y"], "DROP VIEW w"),
        (&["DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text)"], "DROP TABLE t"),
        (&["DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY, v text)"], "DROP TABLE t"),
        (&["DROP FUNCTION f()", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'"], "DROP FUNCTION f()"),
    ] {
        let mut stage = Stage::new(SETUP);
        let before = stage.pg_dump();
        let done: Vec<Images> = steps.iter().map(|step| stage.apply(step)).collect();
        stage.others(others);
        let now = stage.pg_dump();
        let found = seek(&mut stage, &done);
        let kinds: Vec<ConflictKind> = found.conflicts.listed.iter().map(|one| one.kind).collect();
        assert_eq!(kinds, [ConflictKind::Missing], "{steps:?}: {found:?}");
        // Whoever undoes without looking first meets it, too.
        let (first, later) = done.split_first().unwrap();
        for step in later.iter().rev() {
            stage.undo(step);
        }
        let Err(TargetError::Conflicts(met)) = stage.try_undo(first, OnConflict::Stop) else {
            panic!("{steps:?}: no conflict");
        };
        assert_eq!(met.listed, found.conflicts.listed, "{steps:?}");
        assert_eq!(stage.pg_dump(), now, "{steps:?}: refused");
        seek(&mut stage, &done);
        for step in later.iter().rev() {
            stage.undo(step);
        }
        let report = stage.try_undo(first, OnConflict::Overwrite).unwrap_or_else(|error| panic!("{}", told(&error)));
        assert_eq!(report.conflicts.total, 1, "{steps:?}: {report:?}");
        assert_eq!(stage.pg_dump(), before, "{steps:?}: overwritten");
    }
}

#[test]
fn what_others_took_away_stays_away_where_that_is_wanted() {
    for first in ["DELETE FROM t WHERE id = 3", "TRUNCATE t; INSERT INTO t VALUES (1, 'a'), (2, 'b')"] {
        let mut stage = Stage::new(SETUP);
        let one = stage.apply(first);
        let two = stage.apply("INSERT INTO t VALUES (3, 'cc')");
        stage.others("DELETE FROM t WHERE id = 3");
        stage.undo(&two);
        let report = stage.try_undo(&one, OnConflict::Keep).unwrap_or_else(|error| panic!("{}", told(&error)));
        assert_eq!(report.conflicts.total, 1, "{first}: {report:?}");
        assert_eq!(stage.ask("SELECT string_agg(t::text, ' ' ORDER BY id) FROM t"), "(1,a) (2,b)", "{first}");
    }
}

#[test]
fn with_nobody_in_between_all_goes_as_ever() {
    let mut stage = Stage::new(SETUP);
    let before = stage.pg_dump();
    let mut one = stage.apply("DELETE FROM t WHERE id = 3; DROP VIEW w");
    let mut two = stage.apply("INSERT INTO t VALUES (3, 'cc'); CREATE VIEW w AS SELECT 2 AS y");
    for _ in 0..2 {
        assert!(seek(&mut stage, &[one.clone(), two.clone()]).conflicts.is_empty());
        stage.undo(&two);
        stage.undo(&one);
        assert_eq!(stage.pg_dump(), before);
        one = stage.redo(&one);
        two = stage.redo(&two);
    }
}
