//! Where PostgreSQL's sequences stand, over whole deployments.

use backout_engine::outcome::Status;
use backout_model::conflict::{ConflictKind, OnConflict};
use backout_testkit::package::{Pkg, sql};
use backout_testkit::postgres::Server;
use backout_testkit::postgres_dump;
use backout_testkit::site::TestSite;

fn site() -> TestSite {
    TestSite::builder().postgres("main", Server::shared(), "CREATE SEQUENCE s").build()
}

#[test]
fn a_deployment_that_fails_leaves_no_sequence_where_it_set_it() {
    for set in ["SELECT setval('s', 77)", "ALTER SEQUENCE s RESTART 500", "SELECT nextval('s')"] {
        let site = site();
        let database = site.postgres("main").unwrap();
        let before = postgres_dump::read(database);
        let package = Pkg::new("p").step(sql(set)).step(sql("SELECT nextval('s'); SELECT 1 / 0"));
        let outcome = site.deploy(&package).expect(Status::Failed);
        assert_eq!(postgres_dump::read(database), before, "{set}: {outcome:?}");
        assert!(!outcome.notes.iter().any(|note| note.contains("stays")), "{set}: {outcome:?}");
    }
}

/// Its position comes back with it: where an earlier deployment set that, the later one is undone first.
#[test]
fn a_sequence_that_a_later_deployment_dropped_or_renamed_is_required_by_that() {
    let owned = "CREATE TABLE t (a int); CREATE SEQUENCE \"S %d\" OWNED BY t.a;";
    for (set, goes) in [
        ("SELECT setval('s', 451)", "DROP SEQUENCE s"),
        ("ALTER SEQUENCE s RESTART 451", "DROP SEQUENCE s"),
        ("SELECT setval('s', 451)", "ALTER SEQUENCE s RENAME TO r"),
        ("SELECT setval('s', 451)", "CREATE SCHEMA z; ALTER SEQUENCE s SET SCHEMA z; DROP SCHEMA z CASCADE"),
        ("SELECT setval('\"S %d\"', 451)", "DROP TABLE t"),
    ] {
        let setup = format!("CREATE SEQUENCE s; {owned}");
        let site = TestSite::builder().postgres("main", Server::shared(), &setup).build();
        let database = site.postgres("main").unwrap();
        let before = postgres_dump::read(database);
        let first = site.deploy(&Pkg::new("one").step(sql(set))).id();
        let later = site.deploy(&Pkg::new("two").step(sql(goes))).id();
        let deployed = postgres_dump::read(database);
        for manner in [OnConflict::Stop, OnConflict::Keep, OnConflict::Overwrite] {
            let outcome = site.undo_on(Some(&first), manner).result.unwrap();
            assert_eq!(outcome.status, Status::Refused, "{set}; {goes}; {manner:?}: {outcome:?}");
            let needed = outcome.conflicts.iter().find(|one| one.kind == ConflictKind::RequiredBy);
            assert!(needed.is_some_and(|one| one.now.contains(&later)), "{set}; {goes}: {outcome:?}");
            assert!(postgres_dump::read(database) == deployed, "{set}; {goes}: {manner:?}");
        }
        site.undo(None).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        assert_eq!(postgres_dump::read(database), before, "{set}; {goes}");
    }
}
