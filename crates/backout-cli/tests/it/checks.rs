//! Checks by SQL: one value, in bounded time, and never a change.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::scene::{Hold, Ran, Scene};

/// A query that never ends.
const ENDLESS: &str = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT count(*) FROM c";

fn with_check(scene: &Scene, when: &str, sql: &str, more: &str) {
    scene.package(
        "p",
        &format!(
            "{when}:\n  - name: it holds\n    sql: {sql}\n    equals: \"1\"\n{more}steps:\n  - delete: [old.html]\n"
        ),
    );
}

#[test]
fn a_query_gives_one_value_or_its_check_fails() {
    for (sql, said) in [
        ("SELECT id FROM product ORDER BY id", "it gives more than one row"),
        ("SELECT 1 UNION ALL SELECT NULL", "it gives more than one row"),
    ] {
        let scene = Scene::new();
        with_check(&scene, "before", sql, "");
        scene.refused(&["deploy", "p"], 4).says("check \"it holds\"").says(said).says("one value");
    }
    let scene = Scene::new();
    with_check(&scene, "before", "SELECT 1, 999", "");
    scene.refused(&["deploy", "p"], 4).says("p/package.yaml:4").says("it gives 2 columns").says("one value");
    with_check(&scene, "before", "SELECT min(id) FROM product", "");
    scene.run(&["deploy", "p"]).exits(0);
}

#[test]
fn an_endless_query_ends_with_the_time_of_its_check() {
    let scene = Scene::new();
    with_check(&scene, "before", ENDLESS, "    within: 300ms\n");
    let began = Instant::now();
    scene.refused(&["deploy", "p"], 4).says("check \"it holds\"").says("took longer than its time");
    assert!(began.elapsed() < Duration::from_secs(60));
    // The connection is as good as before.
    with_check(&scene, "after", "SELECT min(id) FROM product", "    within: 300ms\n");
    scene.run(&["deploy", "p"]).exits(0);
}

/// Starts a deployment whose smoke tests are one that holds and then `check`; sends SIGTERM when the first has held.
fn stopped_in(scene: &Scene, check: &str) -> Ran {
    scene.package(
        "p",
        &format!("steps:\n  - delete: [old.html]\nafter:\n  - file: index.html\n  - name: it holds\n{check}"),
    );
    let mut child = scene.spawn(&["deploy", "p", "--json"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(r#""event":"check-ran""#)));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let stdout = lines.map(|line| line.unwrap() + "\n").collect::<String>();
    let mut ran = Ran::of(&["deploy", "p"], child.wait_with_output().unwrap());
    ran.stdout = stdout;
    ran
}

#[test]
fn a_stop_while_a_check_is_at_work_is_told_as_that() {
    for check in [
        format!("    sql: {ENDLESS}\n    equals: \"1\"\n"),
        "    file: never.html\n    within: 1h\n".to_owned(),
        "    sql: SELECT 2\n    equals: \"1\"\n    within: 1h\n".to_owned(),
    ] {
        let scene = Scene::new();
        let before = scene.fingerprint();
        let ran = stopped_in(&scene, &check).exits(1).closes("Everything was undone and verified.");
        ran.says("check \"it holds\": stopped by the operator");
        assert_eq!(scene.fingerprint(), before);
    }
}

#[test]
fn a_check_that_writes_is_refused_by_the_plan() {
    let scene = Scene::new();
    with_check(&scene, "after", "UPDATE product SET price = 1 RETURNING 1", "");
    for command in ["plan", "deploy"] {
        scene.refused(&[command, "p"], 4).says("p/package.yaml:4").says("a check only reads");
    }
    assert!(!scene.path(".backout").exists());
    with_check(&scene, "before", "DELETE FROM product", "");
    scene.refused(&["plan", "p"], 4).says("a check only reads");
}

#[test]
fn a_script_is_stopped_between_its_statements() {
    let scene = Scene::new();
    let before = scene.fingerprint();
    let hold = Hold::new(&scene);
    scene.package("p", &format!("steps:\n{}  - sql: a.sql\n  - delete: [old.html]\n", hold.step()));
    // A moment each; the whole script would take minutes.
    let slow = "UPDATE product SET price = (WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 2000000) SELECT count(*) FROM c);\n";
    scene.write("p/a.sql", slow.repeat(300));
    let child = scene.spawn(&["deploy", "p"]);
    hold.wait();
    hold.release();
    let until = Instant::now() + Duration::from_secs(60);
    // Nobody else can begin to write while the script runs.
    let other = scene.database();
    while other.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok() {
        assert!(Instant::now() < until, "the script never began");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let ran = Ran::of(&["deploy", "p"], child.wait_with_output().unwrap()).exits(1);
    ran.says("stopped by the operator").closes("Everything was undone and verified.");
    assert_eq!(scene.fingerprint(), before);
}
