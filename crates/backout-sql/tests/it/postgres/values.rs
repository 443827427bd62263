//! The one value that a check asks for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backout_sql::database::{Bounds, Database};

use crate::postgres::stage::Stage;
use crate::stage::told;

fn stage() -> Stage<'static> {
    Stage::new("CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t VALUES (1, 'a'), (2, NULL);")
}

#[test]
fn a_query_gives_one_value_or_says_why_not() {
    let mut stage = stage();
    let mut ask = |sql: &str| stage.database.value(sql, &Bounds::default()).map_err(|error| told(&error));
    assert_eq!(ask("SELECT name FROM t WHERE id = 1;"), Ok(Some("a".to_owned())));
    assert_eq!(ask("SELECT name FROM t WHERE id = 2"), Ok(None));
    assert_eq!(ask("SELECT name FROM t WHERE id = 3"), Ok(None));
    for (sql, why) in [
        ("SELECT id FROM t", "more than one row"),
        ("SELECT 1, 2", "2 columns"),
        ("DELETE FROM t RETURNING id", "syntax error"),
        ("WITH gone AS (DELETE FROM t RETURNING id) SELECT count(*) FROM gone", "WITH"),
        ("SELECT nextval('missing')", "missing"),
    ] {
        let said = ask(sql).unwrap_err();
        assert!(said.contains(why), "{sql}: {said}");
    }
    assert_eq!(ask("SELECT count(*) FROM t"), Ok(Some("2".to_owned())));
}

#[test]
fn what_can_never_give_one_value_is_known_beforehand() {
    let mut stage = stage();
    let mut why = |sql: &str| stage.database.never_a_value(sql).unwrap();
    assert_eq!(why("SELECT count(*) FROM t"), None);
    assert_eq!(why("SELECT a FROM made_by_the_deployment"), None);
    assert!(why("SELECT 1, 2").is_some_and(|why| why.contains("2 columns")));
    assert!(why("DELETE FROM t RETURNING id").is_some());
}

#[test]
fn a_query_ends_with_its_time_or_with_the_run() {
    let mut stage = stage();
    let began = Instant::now();
    let bounds = Bounds { until: Some(began + Duration::from_millis(200)), stop: None };
    let said = told(&stage.database.value("SELECT pg_sleep(600)", &bounds).unwrap_err());
    assert!(said.contains("longer than its time"), "{said}");
    let stop = Arc::new(AtomicBool::new(false));
    let bounds = Bounds { until: None, stop: Some(stop.clone()) };
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| stage.database.value("SELECT pg_sleep(600)", &bounds));
        stop.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    let said = told(&asked.unwrap_err());
    assert!(said.contains("stopped"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_eq!(stage.database.value("SELECT 1", &Bounds::default()).unwrap(), Some("1".to_owned()));
}
