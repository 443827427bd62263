//! Where sequences stand: put back whatever they are called meanwhile, and whichever sequence had the name.

use backout_model::conflict::OnConflict;

use crate::postgres::rows::there_and_back;
use crate::postgres::stage::Stage;

const SETUP: &str =
    "CREATE TABLE t (id serial PRIMARY KEY, a int); INSERT INTO t (a) SELECT 1 FROM generate_series(1, 5);
    CREATE SEQUENCE s; SELECT nextval('s'); CREATE SEQUENCE r START 50; SELECT nextval('r');
    CREATE SCHEMA x; CREATE SEQUENCE x.q START 7; SELECT nextval('x.q');
    CREATE TABLE i (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, b text); INSERT INTO i (b) VALUES ('p'), ('q');";

#[test]
fn a_sequence_that_gets_another_name_goes_back_under_its_old_one() {
    for change in [
        "SELECT nextval('s'); ALTER SEQUENCE s RENAME TO s2;",
        "ALTER SEQUENCE s RENAME TO s2; SELECT nextval('s2'), nextval('s2');",
        "SELECT nextval('s'); ALTER SEQUENCE s RENAME TO s2; SELECT setval('s2', 99);",
        "SELECT nextval('s'); ALTER SEQUENCE s SET SCHEMA x;",
        "SELECT nextval('x.q'); ALTER SCHEMA x RENAME TO y; SELECT nextval('y.q');",
        "INSERT INTO t (a) VALUES (9); ALTER TABLE t SET SCHEMA x; INSERT INTO x.t (a) VALUES (8);",
        "INSERT INTO i (b) VALUES ('z'); ALTER SEQUENCE i_id_seq RENAME TO j; INSERT INTO i (b) VALUES ('zz');",
        "ALTER SEQUENCE s RESTART WITH 77; ALTER SEQUENCE s RENAME TO z;",
        "INSERT INTO t (a) VALUES (3); ALTER SEQUENCE t_id_seq OWNED BY NONE; ALTER SEQUENCE t_id_seq RENAME TO zz; INSERT INTO t (a) VALUES (4);",
    ] {
        there_and_back(SETUP, change);
    }
}

#[test]
fn a_name_that_goes_from_one_sequence_to_another_says_nothing() {
    for change in [
        "SELECT nextval('s'); ALTER SEQUENCE s RENAME TO n; ALTER SEQUENCE r RENAME TO s; ALTER SEQUENCE n RENAME TO r; SELECT nextval('s'), nextval('r');",
        "DO $$ BEGIN PERFORM nextval('s'); ALTER SEQUENCE s RENAME TO n; ALTER SEQUENCE r RENAME TO s; ALTER SEQUENCE n RENAME TO r; PERFORM nextval('s'); END $$;",
        "SELECT nextval('s'); ALTER SEQUENCE s RENAME TO old; CREATE SEQUENCE s START 500; SELECT nextval('s');",
        "SELECT nextval('s'); DROP SEQUENCE s; CREATE SEQUENCE s START 9; SELECT nextval('s');",
        "SELECT nextval('s'); ALTER SEQUENCE s RENAME TO s2; DROP SEQUENCE s2;",
    ] {
        there_and_back(SETUP, change);
    }
}

#[test]
fn a_script_that_fails_leaves_no_sequence_set_under_whatever_name() {
    let mut stage = Stage::new(SETUP);
    let before = stage.dump();
    stage.try_apply("ALTER SEQUENCE s RENAME TO s2; SELECT setval('s2', 50); SELECT 1 / 0;").unwrap_err();
    assert_eq!(stage.dump(), before);
}

#[test]
fn a_renamed_sequence_that_others_used_since_stays() {
    let mut stage = Stage::new(SETUP);
    let images = stage.apply("SELECT nextval('s'); ALTER SEQUENCE s RENAME TO s2;");
    stage.others("SELECT nextval('s2')");
    let report = stage.undo(&images);
    assert!(report.notes.iter().any(|note| note.contains("public.s was used since")), "{:?}", report.notes);
    assert_eq!(stage.ask("SELECT last_value FROM s"), "3");
}

/// What runs twice to be seen draws once, as in psql.
#[test]
fn a_statement_that_is_tried_first_draws_as_often_as_it_would() {
    let setup = "CREATE TABLE d (a int); INSERT INTO d VALUES (1), (2), (3); CREATE SEQUENCE s;";
    for (change, rows, last) in [
        (
            "ALTER TABLE d ADD COLUMN z int DEFAULT nextval('s')",
            "SELECT string_agg(z::text, ' ' ORDER BY a) FROM d",
            "1 2 3",
        ),
        (
            "DO $$ BEGIN CREATE TABLE e (a int DEFAULT nextval('s')); INSERT INTO e DEFAULT VALUES; INSERT INTO e VALUES (7); END $$",
            "SELECT string_agg(a::text, ' ' ORDER BY a) FROM e WHERE a < 7",
            "1",
        ),
        (
            "SELECT nextval('s'); CREATE TABLE e AS SELECT nextval('public.s'::regclass) AS a FROM d",
            "SELECT string_agg(a::text, ' ' ORDER BY a) FROM e",
            "2 3 4",
        ),
    ] {
        let mut stage = Stage::new(setup);
        let before = stage.dump();
        let images = stage.apply(change);
        assert_eq!(stage.ask(rows), last, "{change}");
        assert!(last.ends_with(&stage.ask("SELECT last_value FROM s")), "{change}");
        stage.undo(&images);
        assert_eq!(stage.dump(), before, "{change}");
    }
}

/// A position that a step sets comes with its commit: whatever ends it before leaves no trace.
#[test]
fn a_position_is_set_within_the_transaction() {
    let mut stage = Stage::new(SETUP);
    for set in ["SELECT setval('s', 50)", "SELECT setval(pg_get_serial_sequence('t', 'id'), 50)"] {
        let mut watch = stage.other();
        std::thread::scope(|scope| {
            let watched = scope.spawn(move || {
                let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(0.3)%'
                    AND wait_event = 'PgSleep' AND datname = current_database()";
                while crate::postgres::stage::one(&mut watch, sleeps) == "0" {
                    std::thread::yield_now();
                }
                crate::postgres::stage::one(
                    &mut watch,
                    "SELECT greatest(s.last_value, q.last_value) FROM s, t_id_seq q",
                )
            });
            let images = stage.apply(&format!("{set}; SELECT pg_sleep(0.3)"));
            assert_eq!(watched.join().unwrap(), "5", "{set}");
            assert_eq!(stage.ask("SELECT greatest(s.last_value, q.last_value) FROM s, t_id_seq q"), "50", "{set}");
            stage.undo(&images);
        });
    }
}

/// Numbers that the tool's own step drew and which then failed are nobody else's use of the sequence.
#[test]
fn what_a_failed_step_drew_keeps_no_position_from_going_back() {
    let cached = "CREATE SEQUENCE c CACHE 20; CREATE SEQUENCE down INCREMENT -2 CACHE 3";
    for (set, fails) in [
        ("SELECT setval('s', 77)", vec!["SELECT nextval('s'); SELECT 1 / 0"]),
        ("SELECT setval('s', 77)", vec!["SELECT nextval('s'); SELECT 1 / 0"; 2]),
        ("ALTER SEQUENCE s RESTART 500", vec!["SELECT nextval('s'); SELECT 1 / 0"]),
        ("ALTER SEQUENCE s RESTART 500; ALTER SEQUENCE s RENAME TO z", vec!["SELECT nextval('z'); SELECT 1 / 0"]),
        ("SELECT nextval('s')", vec!["SELECT nextval('s'); CREATE TABLE t (a int)"]),
        (
            "SELECT setval('c', 77), setval('down', -77)",
            vec!["SELECT nextval('c'), nextval('c'), nextval('down'), nextval('down'); SELECT 1 / 0"],
        ),
        ("SELECT setval('t_id_seq', 77)", vec!["INSERT INTO t (a) VALUES (1); SELECT 1 / 0"]),
        (
            "SELECT setval('s', 77)",
            vec!["SET search_path = x; SET DateStyle = German; SELECT nextval('public.s'); SELECT 1 / 0"],
        ),
    ] {
        let mut stage = Stage::new(&format!("{SETUP} {cached}"));
        let before = stage.dump();
        let images = stage.apply(set);
        for fails in &fails {
            stage.try_apply(fails).unwrap_err();
        }
        let report = stage.undo(&images);
        assert_eq!(stage.dump(), before, "{set}; {fails:?}: {:?}", report.notes);
        assert!(report.notes.is_empty(), "{set}; {fails:?}: {:?}", report.notes);
    }
}

#[test]
fn what_others_drew_after_a_failed_step_stays() {
    for (when, number) in [("SELECT nextval('s'); SELECT 1 / 0", "79"), ("SELECT 1 / 0", "78")] {
        let mut stage = Stage::new(SETUP);
        let images = stage.apply("SELECT setval('s', 77)");
        stage.try_apply(when).unwrap_err();
        stage.others("SELECT nextval('s')");
        let report = stage.undo(&images);
        assert!(report.notes.iter().any(|note| note.contains("public.s was used since")), "{:?}", report.notes);
        assert_eq!(stage.ask("SELECT last_value FROM s"), number);
    }
}

/// Where others may have drawn between the numbers of a failed step, none of them passes for its own.
#[test]
fn what_others_drew_within_a_failed_step_stays() {
    let setup = format!(
        "{SETUP} CREATE EXTENSION dblink; CREATE FUNCTION others() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            PERFORM dblink_exec(format('dbname=%I port=%s host=%s', current_database(), current_setting('port'),
                current_setting('unix_socket_directories')), 'DO $x$ BEGIN PERFORM nextval(''s''); END $x$'); END $$;"
    );
    for fails in [
        "SELECT nextval('s'); SELECT others(); SELECT nextval('s'); SELECT 1 / 0",
        "SELECT others(); SELECT nextval('s'); SELECT 1 / 0",
    ] {
        let mut stage = Stage::new(&setup);
        let images = stage.apply("SELECT setval('s', 77)");
        stage.try_apply(fails).unwrap_err();
        let stands = stage.ask("SELECT last_value FROM s");
        assert!(stands == "79" || stands == "80", "{stands}");
        let report = stage.undo(&images);
        assert!(report.notes.iter().any(|note| note.contains("public.s was used since")), "{:?}", report.notes);
        assert_eq!(stage.ask("SELECT last_value FROM s"), stands);
    }
}

#[test]
fn a_script_that_fails_leaves_no_sequence_set_and_drawn_from() {
    let mut stage = Stage::new(SETUP);
    let before = stage.dump();
    stage.try_apply("SELECT setval(n::regclass, 50), nextval(n::regclass) FROM (VALUES ('s')) v(n); SELECT nextval('s'); SELECT 1 / 0").unwrap_err();
    assert_eq!(stage.dump(), before);
}

/// Others may have drawn between its numbers: nobody can tell.
#[test]
fn what_a_failed_redo_drew_is_told() {
    let mut stage = Stage::new(SETUP);
    let before = stage.dump();
    let set = stage.apply("SELECT setval('s', 77)");
    let adds = stage.apply("ALTER TABLE i ADD z int DEFAULT nextval('s'); ALTER TABLE i ADD CHECK (z < 90)");
    stage.undo(&adds);
    stage.undo(&set);
    assert_eq!(stage.dump(), before);
    let set = stage.redo(&set);
    stage.others("INSERT INTO i (b) SELECT 'many' FROM generate_series(1, 30)");
    stage.try_redo(&adds, OnConflict::Stop).unwrap_err();
    assert_eq!(stage.ask("SELECT last_value > 77 FROM s"), "t");
    let report = stage.undo(&set);
    assert!(report.notes.iter().any(|note| note.contains("public.s was used since")), "{:?}", report.notes);
    assert_eq!(stage.ask("SELECT last_value > 77 FROM s"), "t");
}
