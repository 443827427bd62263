//! A deployment that is to be confirmed: kept, or undone in time whatever became of who deployed it.

use std::path::Path;
use std::time::{Duration, Instant};

use backout_testkit::http::{Answer, HttpServer};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::scene::{SITE, Scene, fingerprint_at};

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
    assert_eq!((told["command"].as_str(), told["status"].as_str()), (Some("confirm"), Some("failed")), "{told}");
    assert!(told["causes"][0].as_str().unwrap().contains("was not confirmed at "), "{told}");
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
    scene.run(&["resume"]).exits(1).closes("Everything was undone and verified.").says("was not confirmed at ");
    assert!(is_as_before(&scene));
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
