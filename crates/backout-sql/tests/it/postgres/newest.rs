//! What only PostgreSQL 18 knows: virtual columns, and NOT NULL as a constraint with a name.

use backout_testkit::postgres::Server;

use crate::postgres::stage::Stage;

const SETUP: &str = "CREATE TABLE t (id int PRIMARY KEY, a int, b int, v int GENERATED ALWAYS AS (id * 2) VIRTUAL);
    ALTER TABLE t ADD CONSTRAINT named NOT NULL a; INSERT INTO t VALUES (1, 2, 3), (2, 3, 4);";

#[test]
fn virtual_columns_and_named_not_nulls_come_back() {
    if Server::shared().version() < 18 {
        eprintln!("NOT TESTED: the server is older than 18; see script/postgres-versions");
        return;
    }
    for change in [
        "ALTER TABLE t DROP COLUMN v;",
        "ALTER TABLE t DROP COLUMN b;",
        "ALTER TABLE t ALTER a DROP NOT NULL;",
        "ALTER TABLE t RENAME CONSTRAINT named TO other;",
        "ALTER TABLE t ADD CONSTRAINT late NOT NULL b NOT VALID;",
        "ALTER TABLE t ADD w int GENERATED ALWAYS AS (a + 1) VIRTUAL; UPDATE t SET a = 9;",
        "DROP TABLE t;",
    ] {
        let mut stage = Stage::new(SETUP);
        let before = stage.pg_dump();
        let images = stage.apply(change);
        let applied = stage.pg_dump();
        stage.undo(&images);
        assert_eq!(stage.pg_dump(), before, "undo of {change}");
        let again = stage.redo(&images);
        assert_eq!(stage.pg_dump(), applied, "redo of {change}");
        stage.undo(&again);
        assert_eq!(stage.pg_dump(), before, "undo after redo of {change}");
    }
}
