//! Columns of partitioned tables: dropped or given another type in the whole and all its parts, and back in their places.

use backout_model::conflict::OnConflict;

use crate::postgres::stage::Stage;

/// Partitions with columns in another order, of partitions of their own, with rows pointing in and out.
const SETUP: &str = "CREATE TABLE o (id int PRIMARY KEY); INSERT INTO o SELECT generate_series(0, 40);
    CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, a text, v text NOT NULL DEFAULT 'x', o int REFERENCES o,
        g int GENERATED ALWAYS AS (id * 2) STORED, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    COMMENT ON COLUMN t.v IS 'so';
    CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10) WITH (fillfactor = 50);
    CREATE TABLE t2 (gone int, o int, v text NOT NULL DEFAULT 'y', g int GENERATED ALWAYS AS (id * 2) STORED, id int NOT NULL, a text);
    ALTER TABLE t2 DROP COLUMN gone; ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (10) TO (20);
    CREATE TABLE t3 PARTITION OF t DEFAULT PARTITION BY HASH (id);
    CREATE TABLE t3a PARTITION OF t3 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE t3b PARTITION OF t3 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    INSERT INTO t (a, v, o) SELECT 'a' || i, i, i FROM generate_series(1, 30) i;
    CREATE TABLE r (x int REFERENCES t); INSERT INTO r VALUES (3), (12), (25);
    CREATE INDEX tv ON t (v, a); CREATE INDEX t1a ON t1 (a); ALTER TABLE t ADD CONSTRAINT named CHECK (a <> 'no');
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.a := upper(NEW.a); RETURN NEW; END';
    CREATE TRIGGER tr BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f();
    CREATE TRIGGER tr1 BEFORE INSERT ON t1 FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE t1 DISABLE TRIGGER tr1;
    ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (id > 0);
    GRANT SELECT ON t TO public; GRANT UPDATE (v) ON t1 TO public;
    ALTER TABLE t2 ADD CONSTRAINT c2 CHECK (id >= 10); CREATE STATISTICS st ON a, o FROM t1;
    COMMENT ON TABLE t2 IS 'second'; CREATE VIEW w AS SELECT id, a FROM t1; ALTER TABLE t1 ALTER a SET STATISTICS 50;";

#[test]
fn columns_of_partitioned_tables_come_back() {
    let mut stage = Stage::new(SETUP);
    let before = (stage.dump(), stage.pg_dump());
    for change in [
        "ALTER TABLE t DROP COLUMN v CASCADE;",
        "ALTER TABLE t ALTER COLUMN v DROP DEFAULT, ALTER COLUMN v TYPE int USING v::int;",
        "ALTER TABLE t DROP COLUMN o, DROP COLUMN g;",
        "UPDATE t SET v = v || v; ALTER TABLE t DROP COLUMN v, ALTER COLUMN o TYPE bigint, ADD COLUMN z int DEFAULT 4;
         INSERT INTO t (a, o) VALUES ('new', 5); DELETE FROM t WHERE id = 5; UPDATE t SET z = 9 WHERE id IN (12, 28);",
        "DROP TABLE r; ALTER TABLE t DROP CONSTRAINT t_pkey CASCADE; ALTER TABLE t DROP COLUMN a CASCADE; DROP TRIGGER tr ON t;",
        "ALTER TRIGGER tr ON t RENAME TO tt; ALTER TABLE t1 DISABLE TRIGGER tt; DROP VIEW w; DROP STATISTICS st; ALTER TABLE t ALTER COLUMN a TYPE varchar(99);",
    ] {
        let images = stage.apply(change);
        let applied = (stage.dump(), stage.pg_dump());
        assert_ne!(applied, before, "the change changes nothing: {change}");
        stage.undo(&images);
        assert_eq!((stage.dump(), stage.pg_dump()), before, "undo of {change}");
        let again = stage.redo(&images);
        assert_eq!((stage.dump(), stage.pg_dump()), applied, "redo of {change}");
        stage.undo(&again);
        assert_eq!((stage.dump(), stage.pg_dump()), before, "undo after redo of {change}");
    }
}

#[test]
fn what_others_wrote_to_a_partition_stays() {
    let theirs =
        "INSERT INTO t (a, o) VALUES ('new', 7); UPDATE t SET o = 40 WHERE id = 12; DELETE FROM t WHERE id = 8;
        CREATE INDEX theirs ON t2 (o); ALTER TABLE t1 ADD CONSTRAINT theirs CHECK (id < 10)";
    let wanted = Stage::new(SETUP);
    wanted.others(theirs);
    let mut stage = Stage::new(SETUP);
    let images = stage.apply("ALTER TABLE t DROP COLUMN v;");
    stage.others(theirs);
    stage.undo(&images);
    assert_eq!((stage.dump(), stage.pg_dump()), (wanted.dump(), wanted.pg_dump()));
}

#[test]
fn what_others_made_of_the_tree_is_a_conflict() {
    for (change, theirs) in [
        ("ALTER TABLE t DROP COLUMN v;", "CREATE TABLE t4 PARTITION OF t FOR VALUES FROM (50) TO (60)"),
        ("ALTER TABLE t DROP COLUMN v;", "DROP TABLE t1 CASCADE"),
        ("DROP TABLE r; ALTER TABLE t DROP COLUMN v;", "ALTER TABLE t DETACH PARTITION t2"),
        ("ALTER TABLE t DROP COLUMN v;", "ALTER TABLE t ADD COLUMN v int"),
        (
            "ALTER TABLE t ALTER v TYPE varchar(200);",
            "UPDATE t1 SET v = repeat('x', 10) WHERE id = 2; ALTER TABLE t RENAME COLUMN v TO vv",
        ),
        (
            "ALTER TABLE t DROP CONSTRAINT t_o_fkey; ALTER TABLE t ALTER o TYPE numeric(9, 2);",
            "UPDATE t SET o = 1.25 WHERE id = 15",
        ),
    ] {
        let mut stage = Stage::new(SETUP);
        let images = stage.apply(change);
        stage.others(theirs);
        let now = (stage.dump(), stage.pg_dump());
        assert!(!stage.conflicts(&images).is_empty(), "{change} {theirs}");
        assert_eq!((stage.dump(), stage.pg_dump()), now, "{change} {theirs}");
        stage.try_undo(&images, OnConflict::Keep).unwrap();
        assert_eq!(stage.dump(), now.0, "{change} {theirs}");
    }
}
