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
