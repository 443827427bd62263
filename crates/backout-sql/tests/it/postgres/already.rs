//! What a later step took away or put back again: the undo of the earlier one finds it as it would leave it, and says so.

use std::io::Cursor;

use backout_model::conflict::OnConflict;
use backout_model::target::{Report, Target};

use crate::postgres::stage::Stage;
use crate::stage::{Images, told};

const SETUP: &str =
    "CREATE TABLE t (id int PRIMARY KEY, a int, b text); INSERT INTO t VALUES (1, 10, 'x'), (2, 20, 'y');
    CREATE VIEW v AS SELECT id FROM t;";

fn tried(stage: &mut Stage<'_>, images: &Images) -> Report {
    let mut one = std::iter::once(Box::new(Cursor::new(images.clone())) as Box<dyn backout_model::target::Images>);
    stage.database.check_undo(&mut one, OnConflict::Stop).unwrap_or_else(|error| panic!("{}", told(&error)))
}

#[test]
fn what_a_later_step_undid_is_told() {
    for (first, second) in [
        ("INSERT INTO t VALUES (50, 1, 'n')", "DELETE FROM t WHERE id = 50"),
        ("UPDATE t SET a = 11 WHERE id = 1", "UPDATE t SET a = 10 WHERE id = 1"),
        ("DELETE FROM t WHERE id = 2", "INSERT INTO t VALUES (2, 20, 'y')"),
        ("CREATE INDEX by_a ON t (a)", "DROP INDEX by_a"),
        ("GRANT SELECT ON t TO PUBLIC", "REVOKE SELECT ON t FROM PUBLIC"),
        ("CREATE VIEW w AS SELECT a FROM t", "DROP VIEW w"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP FUNCTION f()"),
        ("ALTER TABLE t DROP COLUMN b", "DELETE FROM t WHERE id = 1"),
        ("ALTER TABLE t DROP COLUMN b", "UPDATE t SET id = id + 100"),
    ] {
        let mut stage = Stage::new(SETUP);
        let one = stage.apply(first);
        let report = tried(&mut stage, &one);
        assert!(report.already.is_empty(), "{first}: {:?}", report.already);
        let two = stage.apply(second);
        let report = tried(&mut stage, &one);
        // Rows with other keys than before may be the old ones.
        let moved = second.starts_with("UPDATE t SET id");
        assert!(
            report.already.is_empty() == moved && report.conflicts.is_empty() != moved,
            "{first}; {second}: {report:?}"
        );
        stage.undo(&two);
        let report = tried(&mut stage, &one);
        assert!(report.already.is_empty(), "{first} after {second}: {:?}", report.already);
        stage.undo(&one);
    }
}

/// The columns and the name that a later step's rows know would go under its undo.
#[test]
fn what_a_later_step_stands_on_is_told() {
    for (first, object) in [
        ("ALTER TABLE t ADD COLUMN z int DEFAULT 7", "t"),
        ("ALTER TABLE t RENAME COLUMN b TO bb", "t"),
        ("ALTER TABLE t ALTER b TYPE varchar(40)", "t"),
        ("ALTER TABLE t RENAME TO tt", "tt"),
    ] {
        let mut stage = Stage::new(SETUP);
        let one = stage.apply(first);
        let report = tried(&mut stage, &one);
        let told: Vec<&str> = report.already.listed.iter().map(|conflict| conflict.object.as_str()).collect();
        assert_eq!(told, [object], "{first}: {:?}", report.already);
        assert!(report.conflicts.is_empty(), "{first}");
    }
    // Rows of a table that was built anew since: the old one is held with them.
    let mut stage = Stage::new("CREATE TABLE n (x text, y text); INSERT INTO n VALUES ('1', '1')");
    let one = stage.apply("INSERT INTO n VALUES ('i', 'i')");
    stage.apply(
        "CREATE TABLE m (id serial PRIMARY KEY, x text, y text); INSERT INTO m (x, y) SELECT x, y FROM n;
         DROP TABLE n; ALTER TABLE m RENAME TO n",
    );
    let report = tried(&mut stage, &one);
    assert_eq!((report.already.total, report.already.listed[0].object.as_str()), (1, "n"), "{:?}", report.already);
}
