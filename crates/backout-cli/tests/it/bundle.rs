//! A bundle deploys like the directory it was made from.

use std::fs;

use crate::scene::Scene;

const PACKED: &str = "winter-2026.11.1.backout.tar.zst";
const BUNDLE: &str = "out/winter-2026.11.1.backout.tar.zst";

#[test]
fn a_bundle_and_its_directory_deploy_alike() {
    let scene = Scene::with_good_package();
    fs::create_dir(scene.path("out")).unwrap();
    scene.run(&["pack", "winter", "--output", "out"]).exits(0).answers(BUNDLE);
    let inspected = scene.run(&["inspect", "winter"]).exits(0);
    assert_eq!(scene.run(&["inspect", BUNDLE]).exits(0).stdout, inspected.stdout);
    let planned = scene.run(&["plan", BUNDLE]).exits(0);
    assert!(planned.stdout.contains("sql/010.sql:1"), "{planned}");
    assert!(!scene.path(".backout").exists(), "a dry run wrote state");

    let before = scene.fingerprint();
    scene.run(&["deploy", "winter"]).exits(0);
    let after = contents(&scene);
    scene.run(&["undo"]).exits(0);
    fs::remove_dir_all(scene.path("winter")).unwrap();
    scene.run(&["deploy", BUNDLE]).exits(0).answers("deployed winter 2026.11.1");
    assert_eq!(contents(&scene), after);
    assert_eq!(fs::read_dir(scene.path(".backout/incoming")).unwrap().count(), 0);
    // What undo and redo need is kept elsewhere.
    scene.run(&["undo"]).exits(0);
    assert_eq!(scene.fingerprint(), before);
    scene.run(&["redo"]).exits(0);
    assert_eq!(contents(&scene), after);
}

/// A deployment from a bundle whose child `extra` was passed over.
fn in_part() -> Scene {
    let scene = Scene::with_good_package();
    let manifest = crate::scene::GOOD.replace("after:", "  - package: extra\n    on-failure: continue\nafter:");
    scene.write("winter/package.yaml", manifest);
    scene.write("winter/extra/package.yaml", "package: extra\nversion: 1\nsteps:\n  - files: pages\nafter:\n  - name: ready\n    file: ready.txt\n    exists: true\n");
    scene.write("winter/extra/pages/extra.html", "extra");
    scene.run(&["pack", "winter"]).exits(0);
    fs::remove_dir_all(scene.path("winter")).unwrap();
    scene.run(&["deploy", PACKED]).exits(5);
    scene.write("web/ready.txt", "");
    scene
}

#[test]
fn a_child_from_a_bundle_is_tried_again() {
    let scene = in_part();
    // From somewhere else: where the bundle lies was noted in full.
    let id = scene.latest();
    let output = scene
        .command(&["retry", &format!("{id}/extra"), "--site", "../site.yaml"])
        .current_dir(scene.path("web"))
        .output()
        .unwrap();
    crate::scene::Ran::of(&["retry"], output).exits(0);
    assert_eq!(scene.read("web/extra.html"), "extra");
    assert_eq!(fs::read_dir(scene.path(".backout/incoming")).unwrap().count(), 0);
}

#[test]
fn a_bundle_that_is_gone_or_another_is_refused_and_leaves_nothing() {
    let scene = in_part();
    let child = format!("{}/extra", scene.latest());
    scene.write("winter/package.yaml", "package: winter\nversion: 2026.11.1\nsteps:\n  - delete: [old.html]\n");
    fs::rename(scene.path(PACKED), scene.path("aside")).unwrap();
    scene.refused(&["retry", &child], 4).says(PACKED).says("hint: put back");
    scene.write(PACKED, "not a bundle");
    scene.refused(&["retry", &child], 4).says("hint: put back");
    fs::remove_file(scene.path(PACKED)).unwrap();
    scene.run(&["pack", "winter"]).exits(0);
    scene.refused(&["retry", &child], 4).says("no longer what was deployed");
    assert_eq!(fs::read_dir(scene.path(".backout/incoming")).unwrap().count(), 0);
    fs::rename(scene.path("aside"), scene.path(PACKED)).unwrap();
    scene.run(&["retry", &child]).exits(0);
}

/// The fingerprint without times, which a new file takes from the moment of its deployment.
fn contents(scene: &Scene) -> Vec<(String, String)> {
    let print = scene.fingerprint();
    print
        .into_iter()
        .map(|(name, what)| {
            let mut words: Vec<&str> = what.split(' ').collect();
            if name.ends_with(".html") {
                words.remove(2);
            }
            (name, words.join(" "))
        })
        .collect()
}
