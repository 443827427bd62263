//! Retention: what goes is shown first, what an undo needs stays, and what went is not offered any more.

use std::path::Path;

use crate::scene::{SITE, Scene};

/// Deploys a package that replaces a file, drops a column and a table, and changes rows.
fn deploy(scene: &Scene, number: u32) -> String {
    let name = format!("p{number}");
    scene.package(&name, "steps:\n  - sql: x.sql\n  - files: docroot\n");
    let sql = format!(
        "CREATE TABLE t{number} (a, b); INSERT INTO t{number} VALUES ({number}, 1);
         ALTER TABLE product ADD COLUMN c{number}; UPDATE product SET c{number} = 1;
         CREATE TABLE gone (a); INSERT INTO gone VALUES (1); DROP TABLE gone; DROP TABLE IF EXISTS t{};",
        number.wrapping_sub(1)
    );
    scene.write(&format!("{name}/x.sql"), sql);
    scene.write(&format!("{name}/docroot/index.html"), format!("<h1>{number}</h1>"));
    scene.run(&["deploy", &name]).exits(0);
    scene.latest()
}

/// How many steps the root's hold keeps files of.
fn held(scene: &Scene) -> usize {
    let below = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().collect::<Vec<_>>();
    let holds = below(&scene.path("."));
    let holds = holds.iter().filter(|entry| entry.file_name().to_string_lossy().starts_with(".backout-shop-web-"));
    holds.map(|hold| below(&hold.path()).iter().filter(|entry| entry.path().is_dir()).count()).sum()
}

#[test]
fn what_no_undo_needs_goes() {
    let scene = Scene::new();
    scene.refused(&["prune"], 4).says("nothing was ever deployed on shop");
    let first = deploy(&scene, 1);
    scene.run(&["prune"]).exits(0).answers("nothing can be pruned").closes("Nothing was changed.");
    scene.run(&["undo"]).exits(0);
    // It can be redone.
    scene.run(&["prune"]).exits(0).answers("nothing can be pruned");
    let second = deploy(&scene, 2);
    let ran = scene.refused(&["prune"], 2).answers(&format!("{first}  ")).says("--yes");
    assert!(ran.stdout.contains("is undone, can't be redone any more") && !ran.stdout.contains(&second), "{ran}");
    scene.run(&["prune", "--yes"]).exits(0).answers("pruned 1 deployment: ");
    scene.run(&["prune", "--yes"]).exits(0).answers("nothing can be pruned");
    scene.run(&["verify"]).exits(0);
    scene.run(&["show", &first]).exits(0);
    scene.run(&["undo"]).exits(0);
    scene.run(&["redo"]).exits(0);
    scene.run(&["undo"]).exits(0);
    scene.run(&["verify"]).exits(0);
}

#[test]
fn what_can_still_be_undone_goes_by_force_or_by_the_site_s_own_rule() {
    for by_rule in [false, true] {
        let scene = Scene::new();
        let ids: Vec<String> = (1..=3).map(|number| deploy(&scene, number)).collect();
        let before = held(&scene);
        assert_eq!(before, 3);
        if by_rule {
            scene.write("site.yaml", format!("{SITE}retention: {{keep: 1}}\n"));
            scene.run(&["prune", "--yes"]).exits(0).answers("pruned 2 deployments: ");
        } else {
            scene.refused(&["prune", "--keep", "1", "--yes"], 4).says("2 deployments can still be undone or redone");
            scene.run(&["prune", "--keep", "9", "--days", "0"]).exits(0).answers("nothing can be pruned");
            scene.run(&["prune", "--keep", "0", "--days", "1"]).exits(0).answers("nothing can be pruned");
            scene.run(&["prune", "--keep", "1", "--force", "--yes"]).exits(0).answers("pruned 2 deployments: ");
        }
        let after = held(&scene);
        assert_eq!(after, 1);
        scene.run(&["verify"]).exits(0);
        let log = scene.run(&["log"]).exits(0).stdout;
        assert_eq!(log.lines().filter(|line| line.ends_with("(pruned: stays)")).count(), 2, "{log}");
        for id in &ids[..2] {
            scene.refused(&["undo", id], 4).says("stays: what its undo would need was pruned");
            scene.run(&["show", id]).exits(0);
        }
        scene.run(&["undo"]).exits(0);
        assert_eq!(scene.read("web/index.html"), "<h1>2</h1>");
        scene.refused(&["undo"], 4).says("was pruned");
        scene.run(&["redo"]).exits(0);
        scene.run(&["verify"]).exits(0);
    }
}

#[test]
fn what_failed_leaves_nothing_behind() {
    let scene = Scene::new();
    scene.package("broken", "steps:\n  - sql: x.sql\nafter:\n  - run: [\"false\"]\n");
    scene.write("broken/x.sql", "UPDATE product SET price = 0;");
    scene.run(&["deploy", "broken"]).exits(1);
    scene.run(&["prune", "--yes", "--json"]).exits(0).answers("\"why\":\"failed\"");
    scene.run(&["verify"]).exits(0);
}

/// A root that the site no longer names is told, once, and is no reason to fail each time anew.
#[test]
fn what_a_root_of_before_holds_is_told_and_no_longer_tried() {
    let scene = Scene::new();
    deploy(&scene, 1);
    let renamed = SITE.replace("  web:\n", "  www:\n");
    scene.write("site.yaml", format!("{renamed}retention: {{keep: 0}}\n"));
    let ran = scene.run(&["prune", "--yes"]).exits(0).answers("pruned 1 deployment: ");
    let ran = ran
        .says("site.yaml no longer names the root `web`")
        .closes("Pruned. What was given up cannot be undone, redone or retried any more.");
    assert_eq!(ran.stderr.matches("no longer names").count(), 1, "{ran}");
    scene.run(&["prune", "--yes"]).exits(0).answers("nothing can be pruned");
}

/// A retry goes with the rest, which is said beforehand; and nothing offers what was given up, not even a command's own undo.
#[test]
fn what_goes_is_offered_nowhere() {
    let scene = Scene::new();
    scene.package(
        "parent",
        "steps:\n  - run: [\"true\"]\n    undo: [echo, back]\n  - sql: x.sql\n  - package: child\n    on-failure: continue\n",
    );
    scene.write("parent/x.sql", "UPDATE product SET price = 0;");
    scene.write(
        "parent/child/package.yaml",
        "package: child\nversion: 1\nsteps:\n  - run: [\"false\"]\n    undo: [\"true\"]\n",
    );
    scene.run(&["deploy", "parent"]).exits(5);
    let id = scene.latest();
    scene.run(&["show", &id]).exits(0).answers("undo: run echo back");
    let words = ["prune", "--keep", "0", "--force", "--yes"];
    scene.run(&words).exits(0).answers(&format!("no `backout retry {id}/child` any more"));
    let ran = scene.run(&["show", &id]).exits(0).answers("(pruned: stays)");
    assert!(!ran.stdout.contains("echo back"), "{ran}");
    assert_eq!(ran.stdout.matches("undo: none any more").count(), 3, "{ran}");
    scene.refused(&["retry", &format!("{id}/child")], 4).says("was pruned");
}
