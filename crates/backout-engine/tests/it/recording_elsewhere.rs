//! What was recorded on one site, deployed on one that is not the same: what it has of its own is left alone, or it refuses the
//! package.

use std::path::PathBuf;

use backout_engine::outcome::Status;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::{Queryable as _, Server as Mariadb};
use backout_testkit::observer::Recorder;
use backout_testkit::postgres::Server as Postgres;
use backout_testkit::site::{Done, TestSite};

use crate::recording::{run, start, stop};

fn on_mariadb(sql: &str) -> TestSite {
    TestSite::builder().mariadb("main", Mariadb::shared(), sql).build()
}

fn on_postgres(sql: &str) -> TestSite {
    TestSite::builder().postgres("main", Postgres::shared(), sql).build()
}

/// A site with `base`, and the package of what `act` does on it.
fn recorded(site: &TestSite, act: &str) -> PathBuf {
    start(site).expect(Status::Done);
    run(site, act);
    let (package, done) = stop(site, &[]);
    done.expect(Status::Done);
    package
}

/// Deploys the package on a site that has `live` beside what the other had; what it has before is there after an undo.
fn deployed(other: &TestSite, package: &std::path::Path) {
    let before = Fingerprint::of(other);
    let script = std::fs::read_to_string(package.join("sql/main.sql")).unwrap_or_default();
    let done: Done = other.deploy_from(package, Recorder::default());
    assert_eq!(done.status(), Status::Done, "{done:?}\n{script}");
    other.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(other), "undone");
    other.redo().expect(Status::Done);
}

fn value(site: &TestSite, sql: &str) -> String {
    match (site.postgres("main"), site.mariadb("main")) {
        (Some(database), _) => database.connect().query_one(sql, &[]).unwrap().get(0),
        (None, Some(database)) => database.connect().query_first(sql).unwrap().unwrap(),
        (None, None) => site.value(sql),
    }
}

#[test]
fn rows_of_tables_that_inherit_are_left_alone() {
    let base = "CREATE TABLE p (id int PRIMARY KEY, v text); CREATE TABLE c () INHERITS (p); INSERT INTO p VALUES (1, 'a'), (2, 'b')";
    let (site, other) = (on_postgres(base), on_postgres(base));
    let package = recorded(
        &site,
        "UPDATE ONLY p SET v = 'x' WHERE id = 1; DELETE FROM ONLY p WHERE id = 2; INSERT INTO p VALUES (3, 'c')",
    );
    run(&other, "INSERT INTO c VALUES (1, 'a'), (2, 'b'), (3, 'own')");
    deployed(&other, &package);
    assert_eq!(value(&other, "SELECT string_agg(id || v, ',' ORDER BY id) FROM c"), "1a,2b,3own");
    assert_eq!(value(&other, "SELECT string_agg(id || v, ',' ORDER BY id) FROM ONLY p"), "1x,3c");
}

#[test]
fn a_renamed_table_is_asked_by_its_old_name() {
    let base = "CREATE SCHEMA more; CREATE TABLE p (id int PRIMARY KEY, v text); CREATE TABLE q (id int PRIMARY KEY, v text); INSERT INTO p VALUES (1, 'a'); INSERT INTO q VALUES (1, 'a')";
    let act = "ALTER TABLE p RENAME TO r; UPDATE r SET v = 'x'; ALTER TABLE q SET SCHEMA more; UPDATE more.q SET v = 'y'; INSERT INTO more.q VALUES (2, 'z')";
    let (site, other, changed) = (on_postgres(base), on_postgres(base), on_postgres(base));
    let package = recorded(&site, act);
    deployed(&other, &package);
    assert_eq!(
        value(
            &other,
            "SELECT string_agg(v, ',' ORDER BY id) FROM (SELECT * FROM r UNION ALL SELECT id + 1, v FROM more.q) AS x"
        ),
        "x,y,z"
    );
    run(&changed, "UPDATE q SET v = 'other'");
    changed.deploy_from(&package, Recorder::default()).expect(Status::Refused);
}

#[test]
fn counters_are_never_set_back() {
    let base = "CREATE TABLE t (id serial PRIMARY KEY); CREATE SEQUENCE down INCREMENT -1 START -1; CREATE SEQUENCE far; CREATE SEQUENCE fresh";
    let (site, other) = (on_postgres(base), on_postgres(base));
    let package = recorded(
        &site,
        "INSERT INTO t DEFAULT VALUES; INSERT INTO t DEFAULT VALUES; SELECT nextval('down'), nextval('down'), nextval('far'), nextval('fresh')",
    );
    run(&other, "ALTER SEQUENCE t_id_seq RESTART WITH 1000; SELECT setval('far', 7)");
    deployed(&other, &package);
    for (sequence, next) in [("t_id_seq", "1000"), ("down", "-3"), ("far", "8"), ("fresh", "2")] {
        assert_eq!(value(&other, &format!("SELECT nextval('{sequence}')::text")), next, "{sequence}");
    }
    let base = "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, v int)";
    let (site, other) = (on_mariadb(base), on_mariadb(base));
    let package =
        recorded(&site, "INSERT INTO t (v) VALUES (1), (2); INSERT INTO t VALUES (9, 9); DELETE FROM t WHERE id = 9");
    run(&other, "ALTER TABLE t AUTO_INCREMENT = 1000");
    deployed(&other, &package);
    run(&other, "INSERT INTO t (v) VALUES (3)");
    assert_eq!(value(&other, "SELECT CONCAT(MAX(id)) FROM t"), "1000");
    let page = std::fs::read_to_string(package.join("REVIEW.md")).unwrap();
    assert!(page.contains("counter of table t: 10 here"), "{page}");
}

#[test]
fn a_value_that_does_not_fit_fails_and_stamps_stay_on_mariadb() {
    let of = |size: u8| {
        on_mariadb(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, v varchar({size}), at timestamp DEFAULT '2020-01-01 00:00:00' ON UPDATE CURRENT_TIMESTAMP);
             INSERT INTO t VALUES (1, 'a', '2020-01-01 00:00:00'), (2, 'a', '2020-01-01 00:00:00')"
        ))
    };
    let (site, other, narrow) = (of(9), of(9), of(5));
    let package = recorded(
        &site,
        "UPDATE t SET v = 'seven77', at = at WHERE id = 1; UPDATE t SET v = 'b', at = '2021-01-01 00:00:00' WHERE id = 2",
    );
    deployed(&other, &package);
    let told = "SELECT GROUP_CONCAT(v, YEAR(at) ORDER BY id) FROM t";
    assert_eq!(value(&other, told), "seven772020,b2021");
    narrow.deploy_from(&package, Recorder::default()).expect(Status::Failed);
    assert_eq!(value(&narrow, told), "a2020,a2020");
}

/// What is another one there is not replaced: the package of `act` is refused wherever one of `others` happened, and goes on a
/// site that is the same but for `harmless`.
#[track_caller]
fn refused_where(build: &dyn Fn() -> TestSite, act: &str, others: &[&str], harmless: &str) {
    let (site, same) = (build(), build());
    let package = recorded(&site, act);
    let manifest = std::fs::read_to_string(package.join("package.yaml")).unwrap();
    for other in others {
        let there = build();
        run(&there, other);
        let before = Fingerprint::of(&there);
        let done = there.deploy_from(&package, Recorder::default());
        assert_eq!(done.status(), Status::Refused, "{other}: {done:?}\n{manifest}");
        before.assert_same(&Fingerprint::of(&there), other);
    }
    run(&same, harmless);
    deployed(&same, &package);
}

#[test]
fn definitions_that_are_others_there_are_not_replaced_on_sqlite() {
    let base = "CREATE TABLE a (id INTEGER PRIMARY KEY, v); INSERT INTO a VALUES (1, 'x'), (2, 'y');
        CREATE TABLE b (id INTEGER PRIMARY KEY, v, w); INSERT INTO b VALUES (1, 1, 1);
        CREATE TABLE c (id INTEGER PRIMARY KEY, v); INSERT INTO c VALUES (1, 1); CREATE TABLE d (v);
        CREATE TABLE log (v); CREATE TRIGGER told AFTER UPDATE ON a BEGIN INSERT INTO log VALUES (new.v); END;
        CREATE VIEW seen AS SELECT v FROM d; CREATE INDEX ai ON a (v)";
    let build = || TestSite::builder().database("main", base).build();
    refused_where(
        &build,
        "UPDATE a SET v = 'z' WHERE id = 1; ALTER TABLE b RENAME COLUMN w TO x; DROP TABLE c; DROP VIEW seen;
         CREATE VIEW seen AS SELECT 1 AS v; DROP INDEX ai; CREATE INDEX ai ON a (v DESC);
         CREATE TABLE made (id INTEGER PRIMARY KEY); CREATE TABLE d2 (v INTEGER NOT NULL DEFAULT 0); DROP TABLE d; ALTER TABLE d2 RENAME TO d",
        &[
            "DROP TRIGGER told; CREATE TRIGGER told AFTER UPDATE ON a BEGIN INSERT INTO log VALUES (old.v); END",
            "ALTER TABLE b ADD COLUMN own",
            "ALTER TABLE b RENAME COLUMN w TO y",
            "ALTER TABLE c ADD COLUMN own",
            "CREATE TRIGGER own AFTER INSERT ON c BEGIN SELECT 1; END",
            "INSERT INTO c VALUES (2, 2)",
            "UPDATE c SET v = 7",
            "DROP VIEW seen; CREATE VIEW seen AS SELECT v, 1 AS own FROM d",
            "DROP INDEX ai; CREATE INDEX ai ON a (v, id)",
            "CREATE TABLE made (own)",
            "CREATE VIEW made AS SELECT 1",
            "CREATE INDEX own ON d (v)",
            "ALTER TABLE d ADD COLUMN own",
        ],
        "CREATE TABLE own (id INTEGER PRIMARY KEY); CREATE INDEX owns ON log (v); INSERT INTO a VALUES (5, 'own')",
    );
}

#[test]
fn definitions_that_are_others_there_are_not_replaced_on_postgres() {
    let base = "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'x'), (2, 'y');
        CREATE TABLE b (id int PRIMARY KEY, v int, w int CHECK (w IN (1, 2))); INSERT INTO b VALUES (1, 1, 1);
        CREATE TABLE c (id int PRIMARY KEY, v int); INSERT INTO c VALUES (1, 1); CREATE TABLE d (id int PRIMARY KEY);
        CREATE TABLE log (v text); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (NEW.v); RETURN NEW; END $$;
        CREATE TRIGGER told AFTER UPDATE ON a FOR EACH ROW EXECUTE FUNCTION note();
        CREATE VIEW seen AS SELECT v FROM log; CREATE INDEX ai ON a (v); CREATE TYPE mood AS ENUM ('sad', 'ok');
        CREATE FUNCTION two() RETURNS int LANGUAGE sql AS 'SELECT 2';
        CREATE TABLE part (id int) PARTITION BY RANGE (id); CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10); INSERT INTO part VALUES (1)";
    refused_where(
        &|| on_postgres(base),
        "UPDATE a SET v = 'z' WHERE id = 1; ALTER TABLE b RENAME COLUMN w TO x; DROP TABLE c; ALTER TABLE d RENAME TO e;
         CREATE OR REPLACE VIEW seen AS SELECT v FROM log WHERE v <> ''; DROP INDEX ai; CREATE INDEX ai ON a (v DESC);
         CREATE TABLE made (id int PRIMARY KEY); ALTER TYPE mood ADD VALUE 'glad';
         CREATE OR REPLACE FUNCTION two() RETURNS int LANGUAGE sql AS 'SELECT 1 + 1'; CREATE INDEX fresh ON log (v); DROP TABLE part",
        &[
            "CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (20) TO (30)",
            "DROP TRIGGER told ON a; CREATE TRIGGER told AFTER UPDATE ON a FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION note()",
            "ALTER TABLE a DISABLE TRIGGER told",
            "ALTER TABLE b ADD COLUMN own int",
            "ALTER TABLE b RENAME COLUMN w TO y",
            "ALTER TABLE b DROP CONSTRAINT b_w_check",
            "ALTER TABLE c ADD COLUMN own int",
            "CREATE INDEX own ON c (v)",
            "INSERT INTO c VALUES (2, 2)",
            "CREATE OR REPLACE VIEW seen AS SELECT v FROM log WHERE v > 'a'",
            "DROP INDEX ai; CREATE INDEX ai ON a (v, id)",
            "CREATE TABLE made (own int)",
            "CREATE VIEW made AS SELECT 1",
            "CREATE SEQUENCE e",
            "ALTER TABLE d ADD COLUMN own int",
            "ALTER TYPE mood ADD VALUE 'own'",
            "CREATE OR REPLACE FUNCTION two() RETURNS int LANGUAGE sql AS 'SELECT 22'",
            "CREATE SEQUENCE fresh",
        ],
        "CREATE TABLE own (id int PRIMARY KEY); CREATE INDEX owns ON log (v); INSERT INTO a VALUES (5, 'own'); GRANT SELECT ON b, c, seen TO PUBLIC",
    );
}

#[test]
fn definitions_that_are_others_there_are_not_replaced_on_mariadb() {
    let base = "CREATE TABLE a (id int AUTO_INCREMENT PRIMARY KEY, v varchar(9), KEY ai (v)); INSERT INTO a VALUES (1, 'x'), (2, 'y');
        CREATE TABLE b (id int PRIMARY KEY, v int, w int); INSERT INTO b VALUES (1, 1, 1);
        CREATE TABLE c (id int PRIMARY KEY, v int, at timestamp NULL); INSERT INTO c VALUES (1, 1, '2020-01-01 00:00:00');
        CREATE TABLE d (id int PRIMARY KEY); CREATE TABLE log (id int AUTO_INCREMENT PRIMARY KEY, v varchar(9));
        CREATE TRIGGER told AFTER UPDATE ON a FOR EACH ROW INSERT INTO log (v) VALUES (NEW.v);
        CREATE VIEW seen AS SELECT v FROM log; CREATE FUNCTION two() RETURNS int DETERMINISTIC RETURN 2;
        CREATE TABLE up (id int AUTO_INCREMENT PRIMARY KEY, a int)";
    refused_where(
        &|| on_mariadb(base),
        "UPDATE a SET v = 'z' WHERE id = 1; ALTER TABLE b CHANGE w x int; DROP TABLE c; RENAME TABLE d TO e;
         CREATE OR REPLACE VIEW seen AS SELECT v FROM log WHERE v <> ''; ALTER TABLE up ADD CONSTRAINT upa FOREIGN KEY (a) REFERENCES a (id);
         CREATE TABLE made (id int PRIMARY KEY); CREATE OR REPLACE FUNCTION two() RETURNS int DETERMINISTIC RETURN 1 + 1",
        &[
            "CREATE OR REPLACE TRIGGER told AFTER UPDATE ON a FOR EACH ROW INSERT INTO log (v) VALUES (OLD.v)",
            "ALTER TABLE b ADD COLUMN own int",
            "ALTER TABLE b CHANGE w y int",
            "ALTER TABLE b MODIFY w bigint",
            "ALTER TABLE c ADD COLUMN own int",
            "CREATE TRIGGER own AFTER INSERT ON c FOR EACH ROW SET @a = 1",
            "INSERT INTO c VALUES (2, 2, NULL)",
            "UPDATE c SET at = '2021-01-01 00:00:00'",
            "ALTER TABLE d ADD COLUMN own int",
            "INSERT INTO d VALUES (1)",
            "CREATE OR REPLACE VIEW seen AS SELECT v FROM log WHERE v > 'a'",
            "ALTER TABLE up ADD KEY own (a, id)",
            "CREATE TABLE made (own int)",
            "CREATE VIEW made AS SELECT 1",
            "CREATE VIEW e AS SELECT 1",
            "CREATE OR REPLACE FUNCTION two() RETURNS int DETERMINISTIC RETURN 22",
        ],
        "CREATE TABLE own (id int PRIMARY KEY); CREATE INDEX owns ON log (v); INSERT INTO a VALUES (5, 'own'); ALTER TABLE up AUTO_INCREMENT = 90",
    );
}

#[test]
fn materialized_views_are_filled_as_they_were() {
    let base = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
        CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM t; CREATE MATERIALIZED VIEW stale AS SELECT count(*) AS n FROM t;
        CREATE MATERIALIZED VIEW left_alone AS SELECT count(*) AS n FROM t";
    let (site, other) = (on_postgres(base), on_postgres(base));
    let package = recorded(
        &site,
        "INSERT INTO t VALUES (2); REFRESH MATERIALIZED VIEW stale; INSERT INTO t VALUES (3); REFRESH MATERIALIZED VIEW m",
    );
    let before = Fingerprint::of(&other);
    other.deploy_from(&package, Recorder::default()).expect(Status::Done);
    let held = |view: &str| value(&other, &format!("SELECT n::text FROM {view}"));
    assert_eq!(["m", "stale", "left_alone"].map(held), ["3", "1", "1"]);
    other.undo(None).expect(Status::Done);
    assert_eq!(["m", "stale", "left_alone"].map(held), ["1", "1", "1"]);
    before.assert_same(&Fingerprint::of(&other), "undone");
    let page = std::fs::read_to_string(package.join("REVIEW.md")).unwrap();
    assert!(page.contains("- materialized view public.stale") && !page.contains("view public.m:"), "{page}");
}

#[test]
fn a_kind_that_no_object_has_is_an_error() {
    let site = TestSite::builder().database("main", "CREATE TABLE a (id)").build();
    let package = recorded(&site, "CREATE TABLE made (id)");
    let file = package.join("package.yaml");
    let text = std::fs::read_to_string(&file).unwrap().replace("table made", "tabel made");
    std::fs::write(&file, text).unwrap();
    let other = TestSite::builder().database("main", "CREATE TABLE a (id)").build();
    let why = format!("{:?}", other.deploy_from(&package, Recorder::default()));
    assert!(why.contains("SQLite has no tabel"), "{why}");
}

#[test]
fn a_name_that_means_an_object_and_is_not_its_own_is_an_error() {
    let site = on_postgres("");
    let package =
        recorded(&site, "CREATE TABLE made (id int); CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1'");
    let file = package.join("package.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    for (own, other, why) in [
        ("table public.made", "table made", "its whole name is asked for"),
        ("function public.f(integer)", "function public.f(int)", "PostgreSQL calls it public.f(integer)"),
        ("function public.f(integer)", "function public.f", "its whole name is asked for"),
    ] {
        assert!(text.contains(own), "{text}");
        std::fs::write(&file, text.replace(own, other)).unwrap();
        let there = on_postgres(if own.starts_with("table") {
            "CREATE TABLE made (own int)"
        } else {
            "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'"
        });
        let done = format!("{:?}", there.deploy_from(&package, Recorder::default()));
        assert!(done.contains(why), "{done}");
    }
}

/// What undoes such a change tells the server so by a table of the tool's own, which no package may name.
#[test]
fn a_domain_that_lost_a_constraint_loses_it_elsewhere() {
    let base = "CREATE DOMAIN pos AS int CONSTRAINT positive CHECK (VALUE > 0); CREATE TABLE t (a pos)";
    let site = on_postgres(base);
    let package = recorded(&site, "ALTER DOMAIN pos DROP CONSTRAINT positive");
    let other = on_postgres(base);
    deployed(&other, &package);
    run(&other, "INSERT INTO t VALUES (-1)");
}

#[test]
fn tables_that_point_at_each_other_go_children_first() {
    let base = "CREATE TABLE cat (id int PRIMARY KEY); CREATE TABLE prod (id int PRIMARY KEY, cat int, FOREIGN KEY (cat) REFERENCES cat (id));
        INSERT INTO cat VALUES (1); INSERT INTO prod VALUES (1, 1)";
    let site = on_mariadb(base);
    let package = recorded(&site, "DROP TABLE prod, cat");
    deployed(&on_mariadb(base), &package);
}

/// No condition is about what stood in a column that has another name on the one site.
#[test]
fn rows_of_a_renamed_column_are_told() {
    let site = TestSite::builder()
        .database(
            "main",
            "CREATE TABLE p (id INTEGER PRIMARY KEY, name, k); INSERT INTO p VALUES (1, 'a', 1), (2, 'b', 2)",
        )
        .build();
    let package = recorded(
        &site,
        "ALTER TABLE p RENAME COLUMN name TO q; DELETE FROM p WHERE id = 2; UPDATE p SET q = 'new' WHERE id = 1",
    );
    let review = std::fs::read_to_string(package.join("REVIEW.md")).unwrap();
    assert!(review.contains("column p.q"), "{review}");
}
