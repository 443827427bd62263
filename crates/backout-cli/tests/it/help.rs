//! The help of every command, as it is published: a change of it shows in review.
//!
//! `BACKOUT_BLESS=1 cargo test -p backout-cli` writes it anew.

use std::path::Path;

use crate::scene::Scene;

const COMMANDS: [&str; 28] = [
    "init",
    "new",
    "doctor",
    "plan",
    "rehearse",
    "deploy",
    "undo",
    "confirm",
    "redo",
    "retry",
    "log",
    "show",
    "status",
    "resume",
    "unlock",
    "verify",
    "record",
    "backup",
    "restore",
    "prune",
    "pack",
    "sign",
    "inspect",
    "capture",
    "diff",
    "completions",
    "man",
    "schema",
];

#[test]
fn help_is_as_published() {
    let scene = Scene::new();
    let mut help = scene.run(&["--help"]).exits(0).stdout;
    for command in COMMANDS {
        help.push_str(&format!("\n# backout {command}\n\n"));
        help.push_str(&scene.run(&[command, "--help"]).exits(0).stdout);
    }
    for act in ["start", "stop"] {
        help.push_str(&format!("\n# backout capture {act}\n\n"));
        help.push_str(&scene.run(&["capture", act, "--help"]).exits(0).stdout);
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/help.txt");
    if std::env::var_os("BACKOUT_BLESS").is_some() {
        std::fs::write(&file, &help).unwrap();
    }
    let published = std::fs::read_to_string(&file).unwrap_or_default();
    for (number, (here, there)) in help.lines().zip(published.lines()).enumerate() {
        assert_eq!(here, there, "line {} of help.txt: BACKOUT_BLESS=1 writes it anew", number + 1);
    }
    assert_eq!(help.len(), published.len(), "BACKOUT_BLESS=1 writes help.txt anew");
}

#[test]
fn every_command_of_the_list_is_known_and_no_hidden_one_is_listed() {
    let scene = Scene::new();
    let help = scene.run(&["--help"]).exits(0).stdout;
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
    }
    assert!(!help.contains("\n  watch "), "it is started by others");
}
