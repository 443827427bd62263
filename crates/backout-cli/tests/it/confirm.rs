//! A deployment that is to be confirmed: kept, or undone in time whatever became of who deployed it.

use std::path::Path;
use std::time::{Duration, Instant};

use backout_testkit::http::{Answer, HttpServer};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::scene::{Hold, SITE, Scene, fingerprint_at};

/// Waits until what has to come has come.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what} never came");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The process that watches over the scene's site.
fn watcher(scene: &Scene) -> Option<Pid> {
    let site = std::fs::canonicalize(scene.path("site.yaml")).unwrap();
    let is_it = |pid: i32| {
        let words = std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        words.contains(&b"watch".as_slice()) && words.iter().any(|word| *word == site.to_str().unwrap().as_bytes())
    };
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid| is_it(*pid)).and_then(Pid::from_raw)
}

fn is_as_before(scene: &Scene) -> bool {
    scene.run(&["status", "--json"]).exits(0).stdout.contains("\"deployed_total\":0")
}

#[test]
fn what_is_confirmed_in_time_stays() {
    let scene = Scene::with_good_package();
    let ran = scene.run(&["deploy", "winter", "--confirm-within", "10m"]).exits(0);
    assert!(ran.stderr.contains("unless `backout confirm` comes first."), "{ran}");
    let id = scene.latest();
    scene.run(&["status"]).exits(0).answers("to be confirmed: ");
    assert!(watcher(&scene).is_some());
    scene.package("other", "steps:\n  - run: [\"true\"]\n    undo: [\"true\"]\n");
    scene.refused(&["deploy", "other"], 4).says("is to be confirmed first");
    scene.run(&["confirm"]).exits(0).answers(&format!("confirmed winter 2026.11.1 ({id})"));
    scene.refused(&["confirm"], 4).says("no deployment is to be confirmed");
    until("the end of the watcher", || watcher(&scene).is_none());
    scene.run(&["deploy", "other"]).exits(0);
    scene.run(&["undo"]).exits(0);
    scene.run(&["undo"]).exits(0);
    assert!(is_as_before(&scene));
    // What was undone and comes back by a redo was decided on.
    scene.run(&["redo"]).exits(0);
    scene.run(&["confirm"]).exits(4);
    scene.run(&["verify"]).exits(0);
}

#[test]
fn what_is_not_confirmed_is_undone_and_told() {
    let server = HttpServer::start(|_| Answer::new(200, ""));
    let scene = Scene::with_good_package();
    scene.write("site.yaml", format!("{SITE}alerts:\n  - webhook: {}\n", server.url("/")));
    let before = fingerprint_at(&scene.path("."));
    scene.run(&["deploy", "winter", "--confirm-within", "1s"]).exits(0);
    until("the undo", || is_as_before(&scene));
    until("the alert", || !server.asked().is_empty());
    until("the end of the watcher", || watcher(&scene).is_none());
    let after = fingerprint_at(&scene.path("."));
    let site = |all: &std::collections::BTreeMap<String, String>| {
        all.iter()
            .filter(|(name, _)| !name.starts_with(".backout"))
            .map(|(a, b)| (a.clone(), b.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(site(&before), site(&after));
    let told: Value = serde_json::from_str(&server.asked()[0].body).unwrap();
    assert_eq!(
        (told["command"].as_str(), told["status"].as_str()),
        (Some("the wait for a confirm"), Some("failed")),
        "{told}"
    );
    assert!(told["causes"].to_string().contains("was not confirmed at "), "{told}");
    scene.run(&["verify"]).exits(0);
    scene.refused(&["confirm"], 4);
}

/// Without its watcher (a reboot) whoever comes next undoes it, and is told so.
#[test]
fn what_nobody_watches_over_is_undone_by_the_next_command() {
    let scene = Scene::with_good_package();
    scene.run(&["deploy", "winter", "--confirm-within", "3s"]).exits(0);
    let due = Instant::now() + Duration::from_secs(3);
    kill_process(watcher(&scene).unwrap(), Signal::KILL).unwrap();
    until("the time", || Instant::now() > due);
    assert!(!is_as_before(&scene));
    scene.run(&["status"]).exits(0).answers("was not confirmed in time: ").answers("`backout resume` does it");
    scene.run(&["resume"]).exits(1).closes("Everything was undone and verified.").says("was not confirmed at ");
    assert!(is_as_before(&scene));
}

/// A machine that runs `resume` when it has started has a watcher again, and one only.
#[test]
fn resume_watches_again_where_nobody_does() {
    let scene = Scene::with_good_package();
    scene.run(&["deploy", "winter", "--confirm-within", "4s"]).exits(0);
    let first = watcher(&scene).unwrap();
    let ran = scene.run(&["resume"]).exits(0);
    assert!(!ran.stderr.contains("watching over"), "{ran}");
    kill_process(first, Signal::KILL).unwrap();
    until("the end of the first", || watcher(&scene).is_none());
    scene.run(&["resume"]).exits(0).says("watching over winter 2026.11.1").says("again: undone ");
    let second = watcher(&scene).unwrap();
    scene.run(&["resume"]).exits(0);
    assert_eq!(watcher(&scene), Some(second));
    until("the undo", || is_as_before(&scene));
    until("the end of the watcher", || watcher(&scene).is_none());
    let ran = scene.run(&["resume"]).exits(0);
    assert!(!ran.stderr.contains("watching over"), "{ran}");
}

/// The deploying process dies on its way: the watcher takes back what it had done.
#[test]
fn what_dies_on_its_way_is_taken_back_at_once() {
    let scene = Scene::new();
    let package = "steps:\n  - sql: x.sql\n  - run: [sh, -c, \"touch ../reached; sleep 60\"]\n    undo: [\"true\"]\n";
    scene.package("slow", package);
    scene.write("slow/x.sql", "UPDATE product SET price = 0;");
    let mut child = scene.spawn(&["deploy", "slow", "--confirm-within", "1h"]);
    until("the command", || scene.path("reached").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    until("the undo", || scene.value("SELECT max(price) FROM product") == rusqlite::types::Value::Integer(3000));
    until("the end of the watcher", || watcher(&scene).is_none());
    scene.run(&["resume"]).exits(0).answers("nothing had been interrupted");
}

/// What does not go back needs a hand, and is told, as where a deployment fails.
#[test]
fn what_cannot_be_undone_in_time_needs_a_hand() {
    let server = HttpServer::start(|_| Answer::new(200, ""));
    let scene = Scene::new();
    scene.write("site.yaml", format!("{SITE}alerts:\n  - webhook: {}\n", server.url("/")));
    scene.package("stuck", "steps:\n  - run: [\"true\"]\n    undo: [\"false\"]\n");
    scene.run(&["deploy", "stuck", "--confirm-within", "1s"]).exits(0);
    until("the end of the watcher", || watcher(&scene).is_none());
    scene.run(&["status"]).exits(0).answers("needs a hand: ").answers("it was not confirmed at ");
    let asked = server.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let told: Value = serde_json::from_str(&asked[0].body).unwrap();
    assert_eq!(told["status"], "needs-hand", "{told}");
    scene.run(&["undo", "--on-conflict", "keep"]).exits(5);
}

#[test]
fn a_confirm_waits_for_nothing_and_may_come_too_late() {
    let scene = Scene::with_good_package();
    let maintenance = "maintenance: {enter: [\"true\"], leave: [test, \"!\", -e, stuck]}\n";
    scene.write("site.yaml", format!("{SITE}{maintenance}"));
    scene.write("stuck", "");
    scene.run(&["deploy", "winter", "--confirm-within", "10m"]).exits(3);
    // It stays closed to its users, and is confirmed all the same.
    scene.run(&["confirm"]).exits(3).answers("confirmed winter");
    std::fs::remove_file(scene.path("stuck")).unwrap();
    scene.run(&["undo"]).exits(0);
    until("the end of the watcher", || watcher(&scene).is_none());
    scene.run(&["deploy", "winter", "--confirm-within", "2s"]).exits(0);
    let due = Instant::now() + Duration::from_secs(2);
    kill_process(watcher(&scene).unwrap(), Signal::KILL).unwrap();
    until("the time", || Instant::now() > due);
    scene.run(&["confirm"]).exits(1).closes("Everything was undone and verified.").says("it was not confirmed at ");
}

/// A lock that is held by an open file is not held by the watcher.
#[test]
fn the_watcher_keeps_no_file_open() {
    let scene = Scene::with_good_package();
    let program = env!("CARGO_BIN_EXE_backout");
    let script = format!("exec 9>lock; flock 9; \"{program}\" deploy winter --confirm-within 10m; exit $?");
    let mut shell = std::process::Command::new("sh");
    assert!(shell.args(["-c", &script]).current_dir(scene.path(".")).status().unwrap().success());
    assert!(watcher(&scene).is_some());
    let locked = std::process::Command::new("flock").args(["-n", "lock", "true"]).current_dir(scene.path(".")).status();
    assert!(locked.unwrap().success(), "the lock is free");
    scene.run(&["confirm"]).exits(0);
}

/// A deployment that never began leaves nobody watching, and what others deploy is none of its business.
#[test]
fn a_refused_deployment_leaves_no_watcher() {
    let scene = Scene::with_good_package();
    scene.refused(&["deploy", "nosuch", "--confirm-within", "10m"], 2);
    scene.package("never", "before:\n  - run: [\"false\"]\nsteps:\n  - run: [\"true\"]\n    undo: [\"true\"]\n");
    scene.run(&["deploy", "never", "--confirm-within", "10m"]).exits(4);
    until("the end of the watcher", || watcher(&scene).is_none());
}

/// The state directory, or a database, is not there when the time comes: that is told once, and it is undone once it is back.
#[test]
fn what_is_gone_when_the_time_comes_is_told_and_waited_for() {
    for (gone, why) in [(".backout", "there is no journal in "), ("shop.sqlite", "cannot open ")] {
        let server = HttpServer::start(|_| Answer::new(200, ""));
        let scene = Scene::with_good_package();
        scene.write("site.yaml", format!("{SITE}alerts:\n  - webhook: {}\n", server.url("/")));
        scene.run(&["deploy", "winter", "--confirm-within", "1s"]).exits(0);
        std::fs::rename(scene.path(gone), scene.path("away")).unwrap();
        until("the alert", || !server.asked().is_empty());
        let told: Value = serde_json::from_str(&server.asked()[0].body).unwrap();
        assert_eq!(told["status"], "needs-hand", "{told}");
        assert!(told["causes"].to_string().contains(why), "{told}");
        assert!(told["closing"].to_string().contains("cannot be undone yet; it is tried again."), "{told}");
        assert!(watcher(&scene).is_some());
        std::fs::rename(scene.path("away"), scene.path(gone)).unwrap();
        until("the end of the watcher", || watcher(&scene).is_none());
        assert!(is_as_before(&scene));
        let all: Vec<String> = server.asked().into_iter().map(|asked| asked.body).collect();
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all[1].contains("was not confirmed at ") && all[1].contains("\"failed\""), "{all:?}");
        scene.run(&["verify"]).exits(0);
    }
}

#[test]
fn a_watcher_that_dies_on_the_way_is_replaced() {
    let scene = Scene::new();
    let hold = Hold::new(&scene);
    scene.package("slow", &format!("steps:\n  - sql: x.sql\n{}", hold.step()));
    scene.write("slow/x.sql", "UPDATE product SET price = 0;");
    let child = scene.spawn(&["deploy", "slow", "--confirm-within", "1s"]);
    hold.wait();
    let first = watcher(&scene).unwrap();
    kill_process(first, Signal::KILL).unwrap();
    hold.release();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(watcher(&scene).is_some_and(|second| second != first));
    until("the end of the watcher", || watcher(&scene).is_none());
    assert!(is_as_before(&scene));
}

#[test]
fn whoever_watches_by_hand_is_told_what_for() {
    let scene = Scene::with_good_package();
    let ran = scene.run(&["watch"]).exits(0).answers("no deployment is to be confirmed");
    assert!(!ran.stdout.contains("ready"), "{ran}");
    scene.run(&["deploy", "winter", "--confirm-within", "3s"]).exits(0);
    kill_process(watcher(&scene).unwrap(), Signal::KILL).unwrap();
    let ran = scene
        .run(&["watch"])
        .exits(0)
        .says("watching over winter 2026.11.1 (")
        .says("unless `backout confirm` comes first");
    assert_eq!(ran.stdout, "");
    assert!(is_as_before(&scene), "{ran}");
}
