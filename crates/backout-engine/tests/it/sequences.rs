//! Where PostgreSQL's sequences stand, over whole deployments.

use backout_engine::outcome::Status;
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
