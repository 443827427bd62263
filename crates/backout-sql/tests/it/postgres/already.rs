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
        ("ALTER TABLE t ADD COLUMN z int", "ALTER TABLE t DROP COLUMN z"),
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
        assert!(!report.already.is_empty() && report.conflicts.is_empty(), "{first}; {second}: {report:?}");
        stage.undo(&two);
        let report = tried(&mut stage, &one);
        assert!(report.already.is_empty(), "{first} after {second}: {:?}", report.already);
        stage.undo(&one);
    }
}
