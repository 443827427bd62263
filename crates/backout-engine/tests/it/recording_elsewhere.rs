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
