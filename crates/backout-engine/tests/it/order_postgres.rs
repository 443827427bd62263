//! Deployments undone in another order than they came, on PostgreSQL: where they changed other rows or columns either is
//! undone first; where they changed the same the later one is named.

use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::postgres::Server;
use backout_testkit::site::TestSite;

const BASE: &str = "
    CREATE TABLE t (id int PRIMARY KEY, a text, c text);
    INSERT INTO t VALUES (1, 'a1', 'c1'), (2, 'a2', 'c2'), (3, 'a3', NULL);
    CREATE TABLE n (x int, y text);
    INSERT INTO n VALUES (1, 'a'), (1, 'a');";

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
