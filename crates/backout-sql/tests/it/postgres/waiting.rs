//! Somebody else holds what a change of the schema needs: no queue forms behind it, and in the end it says who that is.

use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backout_model::conflict::OnConflict;
use backout_model::target::Target;
use postgres::Client;

use crate::postgres::stage::Stage;
use crate::stage::told;

#[test]
fn readers_never_wait_longer_than_a_turn_and_the_holder_is_named() {
    let mut stage = Stage::new("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'x')");
    let before = stage.pg_dump();
    let mut holder = stage.other();
    holder.batch_execute("SET application_name = 'report'; BEGIN; SELECT count(*) FROM t").unwrap();
    let mut reader = stage.other();
    let (over, longest) = (AtomicBool::new(false), std::sync::Mutex::new((Duration::ZERO, 0)));
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                reader.batch_execute("SELECT count(*) FROM t").unwrap();
                let mut longest = longest.lock().unwrap();
                *longest = (longest.0.max(began.elapsed()), longest.1 + 1);
            }
        });
        let done = stage.try_apply("UPDATE t SET a = 'y';\nALTER TABLE t ADD b int;");
        over.store(true, Ordering::Relaxed);
        done.unwrap_err()
    });
    let text = told(&error);
    assert!(
        text.contains("sql/script.sql:2") && text.contains("report") && text.contains("idle in transaction"),
        "{text}"
    );
    let (longest, reads) = *longest.lock().unwrap();
    // Two seconds are a turn; the rest is for a machine with other work.
    assert!(longest < Duration::from_millis(4500) && reads > 20, "{longest:?}, {reads} reads");
    holder.batch_execute("COMMIT").unwrap();
    assert_eq!(stage.pg_dump(), before);
    let images = stage.apply("ALTER TABLE t ADD b int;");
    stage.undo(&images);
    assert_eq!(stage.pg_dump(), before);
}

/// Works while somebody holds a row, who lets it go once it was waited for, given up and is waited for again.
fn while_held(mut holder: Client, mut watch: Client, work: impl FnOnce()) {
    holder.batch_execute("BEGIN; SELECT FROM t FOR UPDATE").unwrap();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for (times, waits) in [(1, true), (2, false), (3, true)] {
                let began = Instant::now();
                while (watch.query_one(waiting, &[]).unwrap().get::<_, i64>(0) > 0) != waits {
                    assert!(began.elapsed() < Duration::from_secs(60), "turn {times}");
                }
            }
            holder.batch_execute("COMMIT").unwrap();
        });
        work();
    });
}

/// Somebody holds a row for longer than a turn: that is no reason to refuse an undo that is looked at, nor to give one up.
#[test]
fn an_undo_waits_for_a_row_more_than_once() {
    let mut stage = Stage::new("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'x')");
    let images = stage.apply("UPDATE t SET a = 'y';");
    while_held(stage.other(), stage.other(), || {
        let mut one = std::iter::once(Box::new(Cursor::new(images.clone())) as Box<dyn backout_model::target::Images>);
        let report = stage.database.check_undo(&mut one, OnConflict::Stop);
        assert!(report.unwrap_or_else(|error| panic!("{}", told(&error))).conflicts.is_empty());
    });
    for on_conflict in [OnConflict::Stop, OnConflict::Keep] {
        while_held(stage.other(), stage.other(), || {
            let report = stage.try_undo(&images, on_conflict);
            assert!(report.unwrap_or_else(|error| panic!("{}", told(&error))).conflicts.is_empty());
        });
        assert_eq!(stage.ask("SELECT a FROM t"), "x");
        stage.redo(&images);
    }
}
