//! Rows and schema in one step, in every order: each sees what the other left.

use crate::postgres::rows::there_and_back;
use crate::postgres::stage::Stage;

const SETUP: &str = "CREATE TABLE t (id int PRIMARY KEY, a text, n int DEFAULT 7); INSERT INTO t SELECT i, 'a' || i, i FROM generate_series(1, 50) AS i;
    CREATE TABLE u (id serial PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE, b text); INSERT INTO u (t, b) SELECT i, 'b' FROM generate_series(1, 50) AS i;
    CREATE TABLE loose (x int, y text); INSERT INTO loose SELECT i % 5, 'l' FROM generate_series(1, 20) AS i;
    CREATE VIEW v AS SELECT id, a FROM t;";

#[test]
fn rows_and_schema_in_one_step() {
    let mut stage = Stage::new(SETUP);
    let before = stage.pg_dump();
    for change in [
        "ALTER TABLE t ADD COLUMN x int; UPDATE t SET x = n * 2;",
        "UPDATE t SET a = upper(a); ALTER TABLE t ADD COLUMN x int DEFAULT 3; UPDATE t SET x = n WHERE n > 10; DELETE FROM t WHERE id = 4;",
        "UPDATE t SET n = 1 WHERE id < 9; ALTER TABLE t ADD COLUMN x int; UPDATE t SET n = n + 1, x = n; ALTER TABLE t ADD COLUMN y int; UPDATE t SET y = x + n WHERE id < 5; INSERT INTO t (id) VALUES (99); DELETE FROM t WHERE id = 1;",
        "CREATE TABLE made (id int PRIMARY KEY, v text); INSERT INTO made VALUES (1, 'one'), (2, 'two'); CREATE INDEX ON made (v); UPDATE made SET v = 'x' WHERE id = 1; ALTER TABLE made ADD COLUMN w int; UPDATE made SET w = id; INSERT INTO t (id, a) SELECT id + 500, v FROM made;",
        "CREATE TABLE copied AS SELECT id, a FROM t WHERE id < 10; DELETE FROM copied WHERE id = 3; ALTER TABLE copied ADD PRIMARY KEY (id);",
        "UPDATE t SET n = 5; CREATE UNIQUE INDEX one ON t (a); UPDATE t SET a = a || 'z' WHERE id = 3; CREATE INDEX two ON u (b); DELETE FROM u WHERE id > 40;",
        "UPDATE u SET b = 'c' WHERE id < 5; ALTER TABLE u ADD CONSTRAINT c CHECK (b <> 'no'); INSERT INTO u (t, b) VALUES (1, 'x');",
        "ALTER TABLE loose ADD COLUMN z int; UPDATE loose SET z = x WHERE x > 2; INSERT INTO loose VALUES (77, 'new', 1); DELETE FROM loose WHERE x = 0;",
        "ALTER TABLE t ALTER COLUMN n TYPE bigint; UPDATE t SET n = n * 10000000000 WHERE id < 20;",
        "UPDATE t SET a = 'q' WHERE id = 2; ALTER TABLE t RENAME COLUMN a TO renamed; UPDATE t SET renamed = 'r' WHERE id = 3;",
        "UPDATE t SET a = 'q' WHERE id = 2; ALTER TABLE u RENAME TO uu; UPDATE uu SET b = 'r' WHERE id = 3; UPDATE t SET a = 's' WHERE id = 3;",
        "LOCK TABLE t; UPDATE t SET a = 'locked' WHERE id < 4;",
        "UPDATE t SET a = 'first' WHERE id < 9; LOCK TABLE t IN ACCESS EXCLUSIVE MODE; UPDATE t SET a = 'locked' WHERE id < 4; INSERT INTO t (id) VALUES (700);",
        "DO $$ BEGIN UPDATE t SET a = 'do'; CREATE TABLE by_do (i int); INSERT INTO by_do VALUES (1); END $$; UPDATE t SET n = 0 WHERE id = 1;",
        "ALTER TABLE t ADD COLUMN x int; DO $$ BEGIN UPDATE t SET x = 1; END $$; DO $$ BEGIN ALTER TABLE t ADD COLUMN y int; END $$; UPDATE t SET y = 2;",
        "CREATE TEMPORARY TABLE scratch AS SELECT id FROM t WHERE id < 5; INSERT INTO scratch VALUES (7); UPDATE t SET a = 'temp' FROM scratch WHERE scratch.id = t.id; DROP TABLE scratch;",
        "CREATE TABLE work (id int PRIMARY KEY, v text); INSERT INTO work SELECT id, a || 'w' FROM t WHERE id < 7; UPDATE t SET a = work.v FROM work WHERE work.id = t.id; DROP TABLE work;",
        "CREATE TABLE work (id int PRIMARY KEY, v text); INSERT INTO work VALUES (1, 'x'); ALTER TABLE work RENAME TO worked; UPDATE t SET a = v FROM worked w WHERE w.id = t.id; DROP TABLE worked; CREATE TABLE work (v text); INSERT INTO work VALUES ('stays');",
        "CREATE TABLE l (x int, y text); INSERT INTO l SELECT x, y FROM loose; DROP TABLE loose; ALTER TABLE l RENAME TO loose; CREATE TABLE l (x int, y text, z int); INSERT INTO l SELECT x, y, 1 FROM loose; DROP TABLE loose; ALTER TABLE l RENAME TO loose;",
        "UPDATE u SET b = 'gone'; DROP TABLE u; UPDATE t SET a = 'left';",
        "TRUNCATE loose; INSERT INTO loose VALUES (1, 'again');",
        // What points at one another stays on one side of a change that has its foreign keys looked at again.
        "INSERT INTO t (id, a) VALUES (800, 'parent'); INSERT INTO u (t, b) VALUES (800, 'child'); ALTER TABLE u ALTER COLUMN t TYPE bigint;",
        "INSERT INTO t (id) VALUES (900); UPDATE u SET t = 900 WHERE id = 1; DELETE FROM t WHERE id = 1; ALTER TABLE u ALTER COLUMN t TYPE bigint; ALTER TABLE t ALTER COLUMN n TYPE bigint; UPDATE t SET n = 1;",
        "INSERT INTO u (t, b) VALUES (3, 'seq'); ALTER TABLE u ADD COLUMN k int; UPDATE u SET k = 1;",
    ] {
        let images = stage.apply(change);
        let applied = stage.pg_dump();
        assert_ne!(applied, before, "the change changes nothing: {change}");
        stage.undo(&images);
        assert_eq!(stage.pg_dump(), before, "undo of {change}");
        let again = stage.redo(&images);
        assert_eq!(stage.pg_dump(), applied, "redo of {change}");
        stage.undo(&again);
        assert_eq!(stage.pg_dump(), before, "undo after redo of {change}");
    }
}

#[test]
fn a_function_that_changes_the_schema_unseen_is_refused() {
    let mut stage = Stage::new(&format!(
        "{SETUP} CREATE FUNCTION sly() RETURNS int LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE hidden (i int); RETURN 1; END $$;
         CREATE FUNCTION twofold() RETURNS int LANGUAGE plpgsql AS $$ BEGIN LOCK TABLE t; UPDATE t SET a = 'x'; RETURN 1; END $$;"
    ));
    let before = stage.pg_dump();
    for (change, why) in [
        ("SELECT sly();", "changed the schema"),
        ("INSERT INTO t SELECT 200 + sly();", "changed the schema"),
        ("SELECT twofold();", "locked it against every reader"),
    ] {
        let error = crate::stage::told(&stage.try_apply(change).unwrap_err());
        assert!(error.contains(why), "{change}: {error}");
        assert_eq!(stage.pg_dump(), before);
    }
}

/// Images are read under the types of the end of the step, and keys are looked at only where they hold.
#[test]
fn rows_stand_where_they_were_read() {
    let setup = "CREATE TABLE other (a int); CREATE TABLE holds (id int PRIMARY KEY, c other); CREATE TABLE named (id int PRIMARY KEY, c regclass);
        CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'a'); CREATE TABLE u (id int PRIMARY KEY, t int); INSERT INTO u VALUES (1, 1);
        ALTER TABLE u ADD CONSTRAINT f FOREIGN KEY (t) REFERENCES t NOT VALID;";
    for change in [
        "INSERT INTO holds VALUES (1, ROW(1)::other); ALTER TABLE other ADD COLUMN b int",
        "INSERT INTO holds VALUES (1, ROW(1)::other); ALTER TABLE other RENAME TO another",
        "INSERT INTO named VALUES (1, 'other'); ALTER TABLE other RENAME TO another",
        "INSERT INTO t VALUES (800, 'p'); INSERT INTO u VALUES (2, 800); ALTER TABLE u VALIDATE CONSTRAINT f; UPDATE t SET a = 'x' WHERE id = 1",
        "INSERT INTO t VALUES (800, 'p'); INSERT INTO u VALUES (2, 800); ALTER TABLE u ALTER t TYPE bigint; CREATE VIEW v AS SELECT 1 AS x",
    ] {
        there_and_back(setup, change);
    }
}

/// No table is locked when its schema gets another name, and the second session still knows the old one.
#[test]
fn rows_are_those_of_their_table_under_whatever_name_its_schema_has() {
    let setup = "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t (id int PRIMARY KEY, m text); CREATE TABLE b.t (LIKE a.t INCLUDING ALL);
        INSERT INTO a.t SELECT i, 'a' || i FROM generate_series(1, 5000) AS i; INSERT INTO b.t SELECT i, 'b' || i FROM generate_series(1, 9) AS i;";
    let swap = "ALTER SCHEMA a RENAME TO c; ALTER SCHEMA b RENAME TO a; ALTER SCHEMA c RENAME TO b;";
    for change in [
        "UPDATE a.t SET m = 'x' WHERE id < 3; ALTER SCHEMA a RENAME TO c; INSERT INTO c.t VALUES (6000, 'n'); UPDATE c.t SET m = 'y' WHERE id = 5",
        &format!(
            "UPDATE a.t SET m = m || 'x'; DELETE FROM b.t WHERE id = 2; {swap} UPDATE a.t SET m = m || 'n'; INSERT INTO b.t VALUES (7000, 'n')"
        ),
        &format!(
            "UPDATE a.t SET m = 'x' WHERE id = 7; DELETE FROM b.t WHERE id = 2; {swap} UPDATE b.t SET m = 'n' WHERE id = 9"
        ),
    ] {
        there_and_back(setup, change);
    }
}
