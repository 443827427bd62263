//! What says that nothing was changed leaves nothing behind, neither in the site nor in the state directory.

use std::fs;
use std::path::Path;

use crate::scene::{Hold, Scene};

/// Every name in the site's directory and above all in the database, whoever it belongs to.
fn everything(scene: &Scene) -> Vec<String> {
    fn walk(dir: &Path, into: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            into.push(path.display().to_string());
            if path.is_dir() {
                walk(&path, into);
            }
        }
    }
    let mut names = Vec::new();
    walk(&scene.path(""), &mut names);
    let database = scene.database();
    let mut statement = database.prepare("SELECT name FROM sqlite_schema").unwrap();
    names.extend(statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap));
    names.sort();
    names
}

#[test]
fn a_site_that_was_never_deployed_to_stays_untouched() {
    let scene = Scene::with_good_package();
    scene.package("lacks", "requires: [autumn]\nsteps:\n  - delete: [old.html]\n");
    scene.package("final", "steps:\n  - run: [\"true\"]\n    undo: none\n    because: it is so\n");
    scene.package("bad", "steps:\n  - sql: a.sql\n");
    scene.write("bad/a.sql", "VACUUM INTO 'elsewhere';\n");
    scene.run(&["pack", "lacks"]).exits(0);
    let before = everything(&scene);
    for (words, status, said) in [
        (&["undo"][..], 4, "there is no deployment to undo"),
        (&["undo", "--plan"], 4, "there is no deployment to undo"),
        (&["undo", "--on-conflict", "overwrite", "--yes"], 4, "there is no deployment to undo"),
        (&["undo", "abc"], 2, "no deployment `abc` on this site"),
        (&["undo", "--plan", "abc"], 2, "no deployment `abc` on this site"),
        (&["redo"], 4, "there is nothing to redo"),
        (&["retry", "abc/child"], 2, "no deployment `abc` on this site"),
        (&["deploy", "lacks"], 4, "lacks requires `autumn`"),
        (&["deploy", "lacks-1.backout.tar.zst"], 4, "lacks requires `autumn`"),
        (&["deploy", "final"], 4, "--accept-irreversible"),
        (&["deploy", "bad"], 4, "a.sql:1"),
        (&["deploy", "nowhere"], 2, "nowhere"),
    ] {
        scene.refused(words, status).says(said);
        assert_eq!(everything(&scene), before, "{words:?}");
    }
    scene.run(&["resume"]).exits(0).answers("nothing had been interrupted");
    scene.run(&["plan", "winter"]).exits(0);
    scene.run(&["doctor"]).exits(0);
    scene.run(&["status"]).exits(0);
    scene.run(&["verify"]).exits(0);
    assert_eq!(everything(&scene), before);
    scene.run(&["deploy", "winter"]).exits(0);
    scene.run(&["undo"]).exits(0);
}

/// The state of a first run that is under way is there before its first entry.
#[test]
fn who_is_at_work_on_a_site_is_told_from_the_first_moment() {
    let scene = Scene::with_good_package();
    let hold = Hold::new(&scene);
    scene.package("slow", &format!("steps:\n{}", hold.step()));
    let child = scene.spawn(&["deploy", "slow"]);
    hold.wait();
    scene.refused(&["undo"], 4).says("deploy slow");
    hold.release();
    assert!(child.wait_with_output().unwrap().status.success());
}

fn copies(scene: &Scene) -> Vec<String> {
    let Ok(entries) = fs::read_dir(scene.path(".backout/packages")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_copy_of_a_package_that_never_began_goes_with_its_resume() {
    let scene = Scene::with_good_package();
    let hold = Hold::new(&scene);
    scene.package(
        "slow",
        &format!("before:\n  - run: [sh, -c, \"{}\"]\nsteps:\n  - delete: [old.html]\n", hold.script()),
    );
    let mut child = scene.spawn(&["deploy", "slow"]);
    hold.wait();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(copies(&scene).len(), 1);
    scene.run(&["resume"]).exits(1).answers("interrupted before it changed anything");
    assert_eq!(copies(&scene), [""; 0]);
}

/// A deployer that is killed before its first entry leaves a copy that nobody knows of.
#[test]
fn copies_that_no_entry_needs_go_with_the_next_run() {
    let scene = Scene::with_good_package();
    scene.run(&["deploy", "winter"]).exits(0);
    let deployed = copies(&scene);
    assert_eq!(deployed.len(), 1);
    scene.write(".backout/packages/czmsm3v9a5rn/package.yaml", "package: gone");
    scene.write(".backout/packages/notes of the operator", "not ours");
    scene.refused(&["undo", "--plan", "czmsm3v9a5rn"], 2);
    assert_eq!(copies(&scene).len(), 3, "what only looks removes nothing");
    scene.run(&["undo"]).exits(0);
    let mut left = copies(&scene);
    left.retain(|name| name != "notes of the operator");
    assert_eq!(left, deployed, "what a redo needs stays");
    scene.run(&["redo"]).exits(0);
}
