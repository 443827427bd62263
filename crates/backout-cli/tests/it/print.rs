//! What is printed for shells, man and editors.

use crate::scene::Scene;

#[test]
fn completions_name_the_commands() {
    let scene = Scene::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = scene.run(&["completions", shell]).exits(0).answers("deploy").answers("on-conflict");
        assert_eq!(ran.stderr, "", "{ran}");
    }
    scene.refused(&["completions", "tcsh"], 2).says("bash");
}

#[test]
fn bash_takes_its_completions() {
    let scene = Scene::new();
    let script = scene.run(&["completions", "bash"]).exits(0).stdout;
    scene.write("backout.bash", script);
    let checked = std::process::Command::new("bash").arg("-n").arg(scene.path("backout.bash")).status().unwrap();
    assert!(checked.success());
}

#[test]
fn man_pages_one_a_command() {
    let scene = Scene::new();
    scene.run(&["man"]).exits(0).answers(".TH backout 1").answers("Exit status");
    let ran = scene.run(&["man", "pages"]).exits(0);
    assert_eq!(ran.stdout.lines().count(), 29, "{ran}");
    let page = scene.read("pages/backout-undo.1");
    assert!(page.contains("on\\-conflict") && page.contains("backout\\-undo"), "{page}");
    assert!(!scene.path("pages/backout-watch.1").exists(), "a command that is not for people");
}

#[test]
fn schemas_are_json_schemas() {
    let scene = Scene::new();
    for file in ["package", "site"] {
        let ran = scene.run(&["schema", file]).exits(0);
        let schema: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(schema["title"], format!("backout {file}.yaml"));
        assert_eq!(schema["additionalProperties"], false);
    }
}
