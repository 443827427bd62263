//! stdout carries only the answer; progress, hints, warnings and errors go to stderr.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::scene::{Ran, Scene};

#[test]
fn an_error_leaves_stdout_empty() {
    let scene = Scene::with_good_package();
    for words in [&["undo"][..], &["deploy", "nowhere"], &["show", "x"], &["nonsense"], &["rehearse"], &["init"]] {
        let ran = scene.run(words);
        assert_eq!(ran.stdout, "", "{ran}");
        assert!(ran.stderr.contains("error: "), "{ran}");
    }
    scene.refused(&["show"], 4).says("there is no deployment to show");
}

#[test]
fn the_answer_is_alone_on_stdout() {
    let scene = Scene::with_good_package();
    let ran = scene.run(&["deploy", "winter"]).exits(0);
    assert_eq!(ran.stdout.lines().count(), 1, "{ran}");
    let ran = scene.run(&["undo"]).exits(0);
    assert_eq!(ran.stdout.lines().count(), 2, "{ran}");
    let ran = scene.run(&["log"]).exits(0);
    assert_eq!((ran.stdout.lines().count(), ran.stderr.as_str()), (1, ""), "{ran}");
    let ran = scene.run(&["help"]).exits(2);
    assert_eq!(ran.stdout, "", "{ran}");
    let ran = scene.run(&["--help"]).exits(0);
    assert_eq!(ran.stderr, "", "{ran}");
    let ran = scene.run(&["--version"]).exits(0);
    assert_eq!(ran.stdout, format!("backout {}\n", env!("CARGO_PKG_VERSION")), "{ran}");
    for asked in ["--help", "--version"] {
        let ran = scene.run(&["--json", asked]).exits(0);
        let last: serde_json::Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
        assert_eq!((last["event"].as_str(), last["exit"].as_u64()), (Some("result"), Some(0)), "{ran}");
    }
}

#[test]
fn quiet_leaves_the_answer_and_errors() {
    let scene = Scene::with_good_package();
    let ran = scene.run(&["deploy", "winter", "--quiet"]).exits(0);
    assert_eq!((ran.stdout.lines().count(), ran.stderr.as_str()), (1, ""), "{ran}");
    scene.run(&["undo", "-q"]).exits(0);
    let ran = scene.run(&["undo", "--quiet"]).exits(4);
    assert_eq!(ran.stderr, "error: there is no deployment to undo\nNothing was changed.\n");
}

#[test]
fn verbose_names_every_step() {
    let scene = Scene::with_good_package();
    let ran = scene.run(&["deploy", "winter", "-v"]).exits(0);
    for text in ["step 1 of 3: ", "sql/010.sql", "step 3 of 3: ", "check three products holds"] {
        assert!(ran.stderr.contains(text), "no `{text}`\n{ran}");
    }
    let ran = scene.run(&["undo"]).exits(0);
    assert!(!ran.stderr.contains("step 1"), "{ran}");
}

#[test]
fn colours_only_where_they_are_wanted() {
    let scene = Scene::with_good_package();
    let escape = '\u{1b}';
    assert!(!scene.run(&["undo"]).stderr.contains(escape));
    assert!(scene.run(&["undo", "--color", "always"]).stderr.contains(escape));
    assert!(scene.run(&["nonsense", "--color=always"]).stderr.contains(escape));
    let output = scene.command(&["undo", "--color", "auto"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(!Ran::of(&["undo"], output).stderr.contains(escape));
    assert!(!scene.run(&["log", "--color", "always"]).stdout.contains(escape));
}

/// What comes from a package or a database must not steer the terminal of who looks at it.
#[test]
fn control_characters_are_shown_and_not_sent() {
    let scene = Scene::with_good_package();
    scene.write(
        "winter/sql/010.sql",
        "UPDATE product SET name = '\u{1b}[31mred\u{7}' WHERE id = 1;\nINSERT INTO product VALUES (3, 'a', 1);\n",
    );
    let planned = scene.run(&["plan", "winter"]).exits(0);
    assert!(!planned.stdout.contains('\u{1b}') && planned.stdout.contains("\\u{1b}[31mred"), "{planned}");
    scene.run(&["deploy", "winter"]).exits(0);
    let shown = scene.run(&["show", &scene.latest()]).exits(0);
    assert_eq!(scene.run(&["show"]).exits(0).stdout, shown.stdout, "the latest where none is named");
    assert!(!shown.stdout.contains('\u{1b}'), "{shown}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let scene = Scene::with_good_package();
    // More than a pipe holds, so that the writer must notice.
    let rows: String = (10..5000).map(|id| format!("INSERT INTO product VALUES ({id}, 'x', 1);\n")).collect();
    scene.write("winter/sql/010.sql", rows + crate::scene::GOOD_SQL);
    scene.write("winter/package.yaml", crate::scene::GOOD.replace("equals: \"3\"", "equals: \"4993\""));
    for words in [&["plan", "winter"][..], &["plan", "winter", "--json"]] {
        let mut child = scene.spawn(words);
        let mut first = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut first).unwrap();
        drop(stdout);
        let ran = Ran::of(words, child.wait_with_output().unwrap()).exits(0);
        assert_eq!(ran.stderr, "", "{ran}");
    }
    // A deployment goes on to its end, whoever listens.
    let mut child = scene.spawn(&["deploy", "winter", "--json"]);
    drop(child.stdout.take());
    Ran::of(&["deploy"], child.wait_with_output().unwrap()).exits(0);
    scene.run(&["status"]).exits(0).answers("deployed (1)");
}

#[test]
fn an_answer_that_cannot_be_written_is_told() {
    let scene = Scene::with_good_package();
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let output = scene.command(&["inspect", "winter"]).stdout(full()).output().unwrap();
    Ran::of(&["inspect"], output).exits(4).says("cannot write the answer to stdout");
    // What was done is done all the same.
    let output = scene.command(&["deploy", "winter"]).stdout(full()).output().unwrap();
    let ran = Ran::of(&["deploy"], output).exits(0).says("warning: cannot write the answer");
    assert!(ran.stderr.lines().last().unwrap().starts_with("Deployed."), "{ran}");
}

#[test]
fn closed_streams_are_no_defect() {
    let scene = Scene::with_good_package();
    let null = || Stdio::from(File::open("/dev/null").unwrap());
    // Open for reading only: every write fails.
    let status = scene.command(&["deploy", "winter"]).stdout(null()).stderr(null()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    let status = scene.command(&["nonsense", "--json"]).stdout(null()).stderr(null()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

/// What is not text is told short: it must neither fill the terminal nor hide the text around it.
#[test]
fn binary_output_of_a_failed_command_is_told_short() {
    let scene = Scene::new();
    let script = "echo it broke here; head -c 30000 /bin/sh; echo the end; exit 7";
    scene.package("p", &format!("steps:\n  - run: [sh, -c, \"{script}\"]\n    undo: [\"true\"]\n"));
    let ran = scene.run(&["deploy", "p"]).exits(1).says("exit status 7").says("it broke here").says("the end");
    assert!(ran.stderr.len() < 8000, "{} bytes", ran.stderr.len());
    let shown = scene.run(&["show"]).exits(0);
    assert!(shown.stdout.len() < 8000, "{} bytes", shown.stdout.len());
    scene.package("q", "steps:\n  - run: [sh, -c, \"seq 1 3000; exit 7\"]\n    undo: [\"true\"]\n");
    scene.run(&["deploy", "q"]).exits(1).says("\n1\n").says("\n3000");
}

#[test]
fn refusals_are_not_all_of_one_kind() {
    let scene = Scene::new();
    scene.package("p", "steps:\n  - files: docroot\n");
    scene.write("p/docroot/uploads2/x", "x");
    scene.write("web/uploads2", "a file where the package has a directory");
    let ran = scene.refused(&["deploy", "p"], 4).says("error: 1 change refused");
    assert!(!ran.stderr.contains("cannot be taken back"), "{ran}");
}

#[test]
fn what_an_automatic_undo_kept_is_told_once() {
    let scene = Scene::new();
    scene.package(
        "p",
        "steps:\n  - files: docroot\n  - run: [sh, -c, \"echo app > $BACKOUT_ROOT_WEB/index.html; false\"]\n    undo: [\"true\"]\n",
    );
    scene.write("p/docroot/index.html", "<h1>Winter</h1>");
    let ran = scene.run(&["deploy", "p"]).exits(3).says("conflict: root web: index.html");
    assert_eq!(ran.stderr.matches("root web: index.html").count(), 1, "{ran}");
    assert!(scene.run(&["status"]).exits(0).stdout.contains("index.html"), "it is kept for later, too");
}
