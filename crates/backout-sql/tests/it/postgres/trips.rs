//! How often a deployment asks the server and waits: a count that no busy machine moves.

use backout_testkit::postgres::Server;
use backout_testkit::proxy::Proxy;

use super::stage::Stage;

const SETUP: &str = "CREATE TABLE t (id int PRIMARY KEY, a int, b text); INSERT INTO t SELECT g, 0, 'x' FROM generate_series(1, 100) AS g";

/// Round trips of a step, and of its undo, with the questions prepared by a step before.
fn trips(stage: &mut Stage<'_>, proxy: &Proxy, script: &str) -> (u64, u64) {
    let mut once = |stage: &mut Stage<'_>| {
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
    let server = Server::shared();
    let live = server.database();
    live.connect().batch_execute(SETUP).unwrap();
    let proxy = Proxy::before(server);
    let url = proxy.url(&live);
    let mut stage = Stage::over(live, &url);
    let statements: [(&str, &dyn Fn(u32) -> String, u64, u64); 4] = [
        ("UPDATE", &|n| format!("UPDATE t SET a = a + 1 WHERE id = {n};\n"), 1, 0),
        ("CREATE TABLE", &|n| format!("CREATE TABLE made{n} (a int PRIMARY KEY);\n"), 13, 9),
        ("CREATE INDEX", &|n| format!("CREATE INDEX t_{n} ON t (a);\n"), 13, 9),
        ("ADD COLUMN", &|n| format!("ALTER TABLE t ADD COLUMN c{n} int;\n"), 13, 9),
    ];
    for (what, statement, most, most_undone) in statements {
        const MORE: u64 = 10;
        let script = |count: u64| (1..=count).map(|n| statement(u32::try_from(n).unwrap())).collect::<String>();
        let (one, one_undone) = trips(&mut stage, &proxy, &script(1));
        let (many, many_undone) = trips(&mut stage, &proxy, &script(1 + MORE));
        let (each, each_undone) = ((many - one) / MORE, (many_undone - one_undone) / MORE);
        println!("{what}: a step of one {one}, undone {one_undone}; each more {each}, undone {each_undone}");
        assert!(each <= most, "{what}: {each} round trips a statement");
        assert!(each_undone <= most_undone, "undo of {what}: {each_undone} round trips a statement");
        assert!(one <= 45, "{what}: {one} round trips a step");
    }
}
