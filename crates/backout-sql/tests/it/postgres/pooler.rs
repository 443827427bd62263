//! Behind a pooler: one that gives each transaction another session is refused, one that leaves us ours works.

use backout_sql::postgres::Postgres;
use backout_testkit::pgbouncer::Pooler;
use backout_testkit::postgres::Server;
use backout_testkit::site::{postgres_options, postgres_url};

use crate::postgres::stage::Stage;
use crate::stage::told;

#[test]
fn a_pool_of_transactions_is_refused_and_nothing_is_set_in_its_sessions() {
    let server = Server::fresh();
    let Some(pooler) = Pooler::start(&server, "transaction") else { return };
    let database = server.database();
    let url = pooler.url(&database);
    for _ in 0..3 {
        let options = postgres_options("shop".to_owned(), "main".to_owned(), &postgres_url(&url));
        let Err(error) = Postgres::open(&options) else { panic!("it is not refused") };
        assert!(told(&error).contains("a pooler stands before the server"), "{}", told(&error));
    }
    let mut through = postgres::Client::connect(&url, postgres::NoTls).unwrap();
    let messages = through.simple_query("SHOW search_path").unwrap();
    let found = messages.iter().find_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    assert_eq!(found, Some("\"$user\", public"));
}

#[test]
fn a_pool_of_sessions_works() {
    let server = Server::fresh();
    let Some(pooler) = Pooler::start(&server, "session") else { return };
    let database = server.database();
    database.psql("CREATE TABLE t (id serial PRIMARY KEY, a text); INSERT INTO t (a) VALUES ('x')");
    let url = pooler.url(&database);
    let mut stage = Stage::over(database, &url);
    let before = stage.dump();
    let images = stage.apply("UPDATE t SET a = 'y'; ALTER TABLE t ADD b int; INSERT INTO t (a, b) VALUES ('z', 1);");
    stage.undo(&images);
    assert_eq!(stage.dump(), before);
}
