//! Deployments undone in another order than they came, on PostgreSQL: where they changed other rows or columns either is
//! undone first; where they changed the same the later one is named.

use backout_engine::outcome::Status;
use backout_model::conflict::{ConflictKind, OnConflict};
use backout_testkit::package::{Pkg, sql};
use backout_testkit::postgres::Server;
use backout_testkit::postgres_dump;
use backout_testkit::site::TestSite;

const BASE: &str = "
    CREATE TABLE t (id int PRIMARY KEY, a text, c text);
    INSERT INTO t VALUES (1, 'a1', 'c1'), (2, 'a2', 'c2'), (3, 'a3', NULL);
    CREATE TABLE n (x int, y text);
    INSERT INTO n VALUES (1, 'a'), (1, 'a');
    CREATE SEQUENCE s;";

const ALL: &str = "SELECT (SELECT string_agg(t::text, ' ' ORDER BY id) FROM t) || (SELECT string_agg(n::text, ' ' ORDER BY n::text) FROM n)";

fn site() -> TestSite {
    TestSite::builder().postgres("main", Server::shared(), BASE).build()
}

fn package(name: &str, text: &str) -> Pkg {
    Pkg::new(name).step(sql(text))
}

fn all(site: &TestSite) -> String {
    site.postgres("main").unwrap().psql(ALL)
}

/// Also where others changed the same table meanwhile, in another row.
#[test]
fn what_meets_nowhere_is_undone_in_any_order() {
    for (first, second) in [
        ("UPDATE t SET a = 'x' WHERE id = 1", "UPDATE t SET a = 'y' WHERE id = 2"),
        ("UPDATE t SET a = 'x' WHERE id = 1", "UPDATE t SET c = 'y' WHERE id = 1"),
        ("UPDATE t SET a = 'x' WHERE id = 1", "DELETE FROM t WHERE id = 3"),
        ("DELETE FROM t WHERE id = 3", "INSERT INTO t VALUES (4, 'x', NULL)"),
        ("INSERT INTO n VALUES (2, 'b')", "INSERT INTO n VALUES (3, 'c')"),
        ("INSERT INTO n VALUES (2, 'b')", "INSERT INTO n VALUES (2, 'b')"),
        ("DELETE FROM n", "INSERT INTO n VALUES (1, 'a'), (1, 'a')"),
        ("UPDATE t SET a = 'x' WHERE id = 1", "UPDATE t SET a = 'x' WHERE id = 2"),
        ("UPDATE t SET a = 'x' WHERE id = 1", "UPDATE t SET a = a, c = 'y'"),
        ("CREATE VIEW v AS SELECT a FROM t", "CREATE VIEW w AS SELECT a FROM t"),
        ("ALTER TABLE t DROP COLUMN c", "UPDATE t SET a = 'x' WHERE id = 1"),
        ("UPDATE t SET a = 'x' WHERE id = 1", "ALTER TABLE t ADD COLUMN e int"),
        ("ALTER TABLE t ADD COLUMN d int", "ALTER TABLE t ADD COLUMN e int"),
    ] {
        let site = site();
        let before = all(&site);
        let id = site.deploy(&package("one", first)).id();
        site.deploy(&package("two", second)).expect(Status::Done);
        site.undo(Some(&id)).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        assert_eq!(all(&site), before, "{first}; then {second}");
    }
}

#[test]
fn what_others_made_is_overwritten_beside_a_later_deployment() {
    let site = site();
    let id = site.deploy(&package("one", "UPDATE t SET a = 'x' WHERE id = 1; INSERT INTO t VALUES (9, '', '')")).id();
    site.deploy(&package("two", "UPDATE t SET c = 'y' WHERE id = 1; UPDATE t SET a = 'y' WHERE id = 2"))
        .expect(Status::Done);
    // One is as the undo would leave it: no later deployment made it so.
    site.postgres("main").unwrap().psql("UPDATE t SET a = 'z' WHERE id = 1; DELETE FROM t WHERE id = 9");
    let outcome = site.undo_on(Some(&id), OnConflict::Stop).expect(Status::Refused);
    assert_eq!(outcome.conflicts.len(), 1, "{outcome:?}");
    assert!(outcome.hints.iter().any(|hint| hint.contains("overwrite")), "{outcome:?}");
    site.undo_on(Some(&id), OnConflict::Overwrite).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    assert_eq!(
        site.postgres("main").unwrap().psql("SELECT string_agg(a || c, ',' ORDER BY id) FROM t WHERE id < 3").trim(),
        "a1c1,a2c2"
    );
}

#[test]
fn what_both_changed_is_refused_and_named() {
    for (first, second) in [
        ("UPDATE t SET a = 'x' WHERE id = 1", "UPDATE t SET a = 'y' WHERE id IN (1, 2)"),
        ("INSERT INTO t VALUES (9, '', '')", "DELETE FROM t WHERE id = 9"),
        ("DELETE FROM t WHERE id = 3", "INSERT INTO t VALUES (3, 'other', NULL)"),
        ("ALTER TABLE t ADD COLUMN d int", "UPDATE t SET d = 1 WHERE id = 1"),
        ("INSERT INTO n VALUES (2, 'b')", "DELETE FROM n WHERE x = 2"),
    ] {
        let site = site();
        let before = all(&site);
        let id = site.deploy(&package("one", first)).id();
        let two = site.deploy(&package("two", second)).id();
        let deployed = all(&site);
        for manner in [OnConflict::Stop, OnConflict::Overwrite] {
            let outcome = site.undo_on(Some(&id), manner).expect(Status::Refused);
            assert!(outcome.hints.iter().any(|hint| hint.contains(&two)), "{first}; {second}: {outcome:?}");
        }
        assert_eq!(all(&site), deployed, "{first}; {second}");
        site.undo(None).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        assert_eq!(all(&site), before, "{first}; {second}");
    }
}

/// A later deployment made the same again: nothing on the site shows it, and yet it is that one's.
#[test]
fn what_a_later_deployment_made_again_is_not_taken_away() {
    let nine = "INSERT INTO t VALUES (9, 'a9', 'c9')";
    let set = |value: &str| format!("UPDATE t SET a = '{value}' WHERE id = 1");
    let (x, y) = (set("x"), set("y"));
    let view = "CREATE VIEW v AS SELECT a FROM t";
    let function = |value: u8| format!("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT {value}'");
    let (one, two) = (function(1), function(2));
    let rename = "ALTER TABLE t RENAME TO r; UPDATE r SET a = 'x' WHERE id = 1; ALTER TABLE r RENAME TO t";
    for (case, by_others) in [
        ([nine, "DELETE FROM t WHERE id = 9", nine], false),
        ([nine, "DELETE FROM t WHERE id = 9", nine], true),
        ([&x, &y, &x], false),
        ([&x, &y, &x], true),
        ([&x, "DELETE FROM t WHERE id = 1", "INSERT INTO t VALUES (1, 'x', 'c1')"], false),
        (["DELETE FROM t WHERE id = 1", "INSERT INTO t VALUES (1, 'a1', 'c1')", "DELETE FROM t WHERE id = 1"], false),
        ([rename, &y, &x], false),
        (["INSERT INTO n VALUES (2, 'b')", "DELETE FROM n WHERE x = 2", "INSERT INTO n VALUES (2, 'b')"], false),
        ([view, "DROP VIEW v", view], false),
        ([view, "DROP VIEW v", view], true),
        ([&one, &two, &one], false),
        (["CREATE INDEX i ON t (a)", "DROP INDEX i", "CREATE INDEX i ON t (a)"], false),
        (
            [
                "ALTER TABLE t ALTER a SET NOT NULL",
                "ALTER TABLE t ALTER a DROP NOT NULL",
                "ALTER TABLE t ALTER a SET NOT NULL",
            ],
            false,
        ),
        (["SELECT setval('s', 5)", "SELECT setval('s', 6)", "SELECT setval('s', 5)"], false),
    ] {
        let site = site();
        let database = site.postgres("main").unwrap();
        let before = postgres_dump::read(database);
        let mut ids = Vec::new();
        for (number, text) in case.iter().enumerate() {
            if by_others && number == 1 {
                database.psql(text);
            } else {
                ids.push(site.deploy(&package(&format!("p{number}"), text)).id());
            }
        }
        let deployed = postgres_dump::read(database);
        for manner in [OnConflict::Stop, OnConflict::Keep, OnConflict::Overwrite] {
            let outcome = site.undo_on(Some(&ids[0]), manner).result.unwrap();
            assert_eq!(outcome.status, Status::Refused, "{case:?} {manner:?}: {outcome:?}");
            let needed = outcome.conflicts.iter().find(|one| one.kind == ConflictKind::RequiredBy);
            let needed = needed.unwrap_or_else(|| panic!("{case:?} {manner:?}: {outcome:?}"));
            assert!(ids[1..].iter().any(|id| needed.now.contains(id)), "{case:?}: {needed:?}");
            assert!(postgres_dump::read(database) == deployed, "{case:?} {manner:?}");
        }
        if !by_others {
            for id in ids.iter().rev() {
                site.undo(Some(id)).expect(Status::Done);
            }
            assert_eq!(postgres_dump::read(database), before, "{case:?}");
        }
    }
}

/// Columns and tables under names that others had before: what has the old name is not what was changed.
#[test]
fn what_has_the_same_name_is_not_the_same() {
    let keys = "UPDATE t SET id = 9 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = 9";
    for (first, second) in [
        (
            "DELETE FROM t WHERE id = 1",
            "ALTER TABLE t RENAME a TO q; ALTER TABLE t RENAME c TO a; ALTER TABLE t RENAME q TO c",
        ),
        ("DELETE FROM t WHERE id = 1", "ALTER TABLE t RENAME a TO q; ALTER TABLE t ADD COLUMN a text"),
        ("DELETE FROM t WHERE id = 1", "ALTER TABLE t RENAME TO z; CREATE TABLE t (LIKE z INCLUDING ALL)"),
        ("ALTER TABLE t DROP COLUMN c", "UPDATE t SET id = 9 WHERE id = 1"),
        ("ALTER TABLE t DROP COLUMN c", keys),
        ("ALTER TABLE t ALTER c TYPE int USING 1", keys),
    ] {
        let site = site();
        let database = site.postgres("main").unwrap();
        let before = postgres_dump::read(database);
        let id = site.deploy(&package("one", first)).id();
        let later = site.deploy(&package("two", second)).id();
        let deployed = postgres_dump::read(database);
        for manner in [OnConflict::Stop, OnConflict::Overwrite] {
            let outcome = site.undo_on(Some(&id), manner).expect(Status::Refused);
            assert!(outcome.hints.iter().any(|hint| hint.contains(&later)), "{first}; {second}: {outcome:?}");
            assert!(postgres_dump::read(database) == deployed, "{first}; {second}");
        }
        site.undo(None).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        assert_eq!(postgres_dump::read(database), before, "{first}; {second}");
    }
}

/// What is found while a step runs is refused with the ways out, like what is found before.
#[test]
fn a_refusal_within_a_step_has_ways_out() {
    let site = site();
    let outcome = site
        .deploy(&package("one", "DO $$ BEGIN EXECUTE 'SELECT lo_' || 'from_bytea(0, ''x'')'; END $$"))
        .expect(Status::Failed);
    assert!(outcome.causes.iter().any(|cause| cause.contains("large objects")), "{outcome:?}");
    assert!(outcome.hints.iter().any(|hint| hint.contains("undo: none")), "{outcome:?}");
}
