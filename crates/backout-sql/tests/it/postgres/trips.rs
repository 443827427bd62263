//! How often a deployment asks the server and waits: a count that no busy machine moves.

use backout_testkit::postgres::Server;
use backout_testkit::proxy::Proxy;

use super::stage::Stage;

const SETUP: &str = "CREATE TABLE t (id int PRIMARY KEY, a int, b text); INSERT INTO t SELECT g, 0, 'x' FROM generate_series(1, 100) AS g";

/// A statement that works once for each number, and what it may cost, and its undo.
struct Case {
    what: &'static str,
    statement: fn(u64) -> String,
    most: u64,
    most_undone: u64,
}

const CASES: [Case; 4] = [
    Case {
        what: "UPDATE",
        statement: |n| format!("UPDATE t SET a = a + 1 WHERE id = {n};\n"),
        most: 1,
        most_undone: 0,
    },
    Case {
        what: "CREATE TABLE",
        statement: |n| format!("CREATE TABLE made{n} (a int PRIMARY KEY);\n"),
        most: 11,
        most_undone: 11,
    },
    Case { what: "CREATE INDEX", statement: |n| format!("CREATE INDEX t_{n} ON t (a);\n"), most: 11, most_undone: 11 },
    Case {
        what: "ADD COLUMN",
        statement: |n| format!("ALTER TABLE t ADD COLUMN c{n} int;\n"),
        most: 11,
        most_undone: 12,
    },
];

/// Round trips of a step, and of its undo, with the questions prepared by a step before.
fn trips(stage: &mut Stage<'_>, proxy: &Proxy, script: &str) -> (u64, u64) {
    let once = |stage: &mut Stage<'_>| {
        let start = proxy.round_trips();
        let images = stage.apply(script);
        let applied = proxy.round_trips();
        stage.undo(&images);
        (applied - start, proxy.round_trips() - applied)
    };
    once(stage);
    once(stage)
}

#[test]
fn a_statement_costs_a_bounded_number_of_round_trips() {
    const MORE: u64 = 10;
    const STEP: u64 = 42;
    let server = Server::shared();
    let live = server.database();
    live.connect().batch_execute(SETUP).unwrap();
    let proxy = Proxy::before(server);
    let url = proxy.url(&live);
    let mut stage = Stage::over(live, &url);
    for Case { what, statement, most, most_undone } in CASES {
        let (one, one_undone) = trips(&mut stage, &proxy, &statement(1));
        let (many, many_undone) = trips(&mut stage, &proxy, &(1..=1 + MORE).map(statement).collect::<String>());
        let (each, each_undone) = ((many - one) / MORE, (many_undone - one_undone) / MORE);
        println!("{what}: a step of one {one}, undone {one_undone}; each more {each}, undone {each_undone}");
        assert!(each <= most, "{what}: {each} round trips a statement");
        assert!(each_undone <= most_undone, "undo of {what}: {each_undone} round trips a statement");
        assert!(one <= STEP && one_undone <= STEP, "{what}: {one} round trips a step, {one_undone} undone");
    }
}
