//! `--json`: every command writes one object a line, the last one the result, and nothing else on stdout.

use serde_json::Value;

use crate::scene::{Ran, Scene};

/// The lines of a run, checked for what all of them have in common.
#[track_caller]
fn lines(ran: &Ran) -> Vec<Value> {
    let lines: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}\n{ran}")))
        .collect();
    for line in &lines {
        assert_eq!(line["v"], 1, "{line}\n{ran}");
        assert!(line["event"].is_string(), "{line}\n{ran}");
    }
    let results = lines.iter().filter(|line| line["event"] == "result").count();
    assert_eq!(results, 1, "{ran}");
    let last = lines.last().unwrap();
    assert_eq!(last["event"], "result", "{ran}");
    assert_eq!(last["exit"].as_i64(), ran.code.map(i64::from), "{ran}");
    assert!(last["status"].is_string(), "{ran}");
    lines
}

fn events(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["event"].as_str()).collect()
}

#[test]
fn every_command_writes_valid_lines_and_a_result() {
    let scene = Scene::with_good_package();
    let run = |words: &[&str], status: i32| {
        let ran = scene.run(&[words, &["--json"]].concat()).exits(status);
        let lines = lines(&ran);
        assert_eq!(lines.last().unwrap()["command"], words[0], "{ran}");
        lines
    };
    run(&["init", "elsewhere"], 2);
    std::fs::create_dir(scene.path("elsewhere")).unwrap();
    run(&["init", "elsewhere", "--root", "web"], 0);
    run(&["new", "spring"], 0);
    run(&["doctor"], 0);
    let planned = run(&["plan", "winter"], 0);
    assert!(events(&planned).contains(&"change"));
    run(&["undo"], 4);

    let deployed = run(&["deploy", "winter"], 0);
    let seen = events(&deployed);
    for event in ["deployment", "phase", "frame-started", "step-started", "step-done", "frame-done", "check-ran"] {
        assert!(seen.contains(&event), "no {event} in {seen:?}");
    }
    let id = deployed.last().unwrap()["deployment"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 12);

    let logged = run(&["log"], 0);
    assert_eq!(logged[0]["id"], id.as_str());
    let status = run(&["status"], 0);
    assert_eq!(status[0]["deployed"][0]["id"], id.as_str());
    assert!(events(&run(&["show", &id], 0)).contains(&"shown"));
    assert!(events(&run(&["undo", "--plan"], 0)).contains(&"change"));
    run(&["undo"], 0);
    run(&["redo"], 0);
    run(&["retry", &format!("{id}/nothing")], 4);
    run(&["resume"], 0);
    run(&["unlock"], 0);
    run(&["verify"], 0);
    run(&["pack", "winter"], 0);
    run(&["inspect", "winter"], 0);
    run(&["completions", "bash"], 0);
    run(&["man"], 0);
    run(&["man", "pages"], 0);
    run(&["schema", "package"], 0);
    run(&["capture", "start"], 0);
    assert_eq!(run(&["status"], 0)[0]["recording"], true);
    run(&["deploy", "winter"], 4);
    run(&["capture", "stop"], 0);
}

#[test]
fn failures_have_causes_hints_and_a_closing_line() {
    let scene = Scene::with_good_package();
    scene.write("winter/sql/010.sql", "VACUUM;\n");
    let ran = scene.run(&["deploy", "winter", "--json"]).exits(4);
    let lines = lines(&ran);
    let result = lines.last().unwrap();
    assert_eq!(result["status"], "refused");
    assert_eq!(result["closing"], "Nothing was changed.");
    assert!(!result["causes"].as_array().unwrap().is_empty(), "{ran}");
    assert!(!result["hints"].as_array().unwrap().is_empty(), "{ran}");
    assert!(result["refusals"][0]["place"].as_str().unwrap().contains("010.sql:1"), "{ran}");
}

#[test]
fn a_command_line_that_cannot_be_understood_has_a_result_too() {
    let scene = Scene::new();
    let ran = scene.run(&["--json", "deplyo"]).exits(2);
    let lines = lines(&ran);
    assert_eq!(lines[0]["status"], "usage");
    assert!(lines[0]["causes"][0].as_str().unwrap().contains("deplyo"), "{ran}");
}

#[test]
fn a_conflict_is_told_in_full() {
    let scene = Scene::with_good_package();
    scene.run(&["deploy", "winter"]).exits(0);
    scene.sql("UPDATE product SET price = 7 WHERE id = 1");
    let ran = scene.run(&["undo", "--json"]).exits(4);
    let lines = lines(&ran);
    let conflict = &lines.last().unwrap()["conflicts"][0];
    assert_eq!(conflict["kind"], "changed", "{ran}");
    assert_eq!(conflict["object"], "product", "{ran}");
    assert_eq!(conflict["column"], "price", "{ran}");
    assert_eq!(conflict["now"], "7", "{ran}");
}
