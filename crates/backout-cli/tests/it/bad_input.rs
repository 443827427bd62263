//! What bad packages and bad surroundings get: an error that names file, line and way out, the right exit status, and
//! a site on which nothing has changed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::scene::{GOOD, Hold, Ran, Scene};

/// `plan` and `deploy` give the same verdict.
#[track_caller]
fn both(scene: &Scene, package: &str, status: i32, says: &[&str]) {
    for command in ["plan", "deploy"] {
        let mut ran = scene.refused(&[command, package], status);
        for text in says {
            ran = ran.says(text);
        }
    }
}

#[test]
fn an_unknown_key_shows_line_column_and_the_nearest_known_one() {
    let scene = Scene::with_good_package();
    scene.write("winter/package.yaml", GOOD.replace("steps:", "stpes:"));
    both(&scene, "winter", 2, &["winter/package.yaml:3:1", "stpes", "steps"]);
    scene.write("winter/package.yaml", GOOD.replace("- files: docroot", "- files: docroot\n    exakt: true"));
    both(&scene, "winter", 2, &["winter/package.yaml:6:5", "exakt", "exact"]);
}

#[test]
fn bad_yaml_shows_where() {
    let scene = Scene::with_good_package();
    scene.write("winter/package.yaml", "package: winter\nversion: \"1\nsteps: [\n");
    both(&scene, "winter", 2, &["winter/package.yaml:"]);
    scene.write("winter/package.yaml", b"package: \xff\xfe\n");
    both(&scene, "winter", 2, &["winter/package.yaml"]);
    scene.write("winter/package.yaml", "");
    both(&scene, "winter", 2, &["winter/package.yaml"]);
}

#[test]
fn a_path_that_leaves_the_package_or_the_root() {
    let scene = Scene::with_good_package();
    for (from, to) in [
        ("sql/010.sql", "../winter/sql/010.sql"),
        ("sql/010.sql", "/etc/passwd"),
        ("files: docroot", "files: ../web"),
        ("files: docroot", "files: /etc"),
        ("[old.html]", "[../shop.sqlite]"),
        ("[old.html]", "[/etc/passwd]"),
        ("[old.html]", "[pages/../../shop.sqlite]"),
    ] {
        scene.write("winter/package.yaml", GOOD.replace(from, to));
        both(&scene, "winter", 2, &["winter/package.yaml:"]);
    }
}

#[test]
fn a_symlink_that_leads_out() {
    let scene = Scene::with_good_package();
    std::os::unix::fs::symlink("/etc", scene.path("winter/outside")).unwrap();
    scene.write("winter/package.yaml", GOOD.replace("files: docroot", "files: outside"));
    both(&scene, "winter", 2, &["winter/package.yaml:5"]);

    // On the site's side: a directory of the root that is a link to somewhere else.
    scene.write("winter/package.yaml", GOOD);
    fs::create_dir(scene.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", scene.path("web/pages")).unwrap();
    both(&scene, "winter", 4, &["pages"]);
    assert!(fs::read_dir(scene.path("elsewhere")).unwrap().next().is_none());
}

#[test]
fn a_file_over_a_directory_and_a_directory_over_a_file() {
    let scene = Scene::with_good_package();
    fs::create_dir_all(scene.path("web/pages/snow.html")).unwrap();
    both(&scene, "winter", 4, &["pages/snow.html"]);
    let scene = Scene::with_good_package();
    scene.write("web/pages", "a file");
    both(&scene, "winter", 4, &["pages"]);
}

#[test]
fn a_missing_file() {
    let scene = Scene::with_good_package();
    fs::remove_file(scene.path("winter/sql/010.sql")).unwrap();
    both(&scene, "winter", 2, &["winter/package.yaml:4", "sql/010.sql"]);
    let scene = Scene::with_good_package();
    fs::remove_dir_all(scene.path("winter/docroot")).unwrap();
    both(&scene, "winter", 2, &["winter/package.yaml:5", "docroot"]);
    scene.package("gone", "steps:\n  - delete: [nowhere.html]\n");
    both(&scene, "gone", 4, &["nowhere.html", "missing: ok"]);
    both(&scene, "nowhere", 2, &["nowhere"]);
    fs::create_dir(scene.path("hollow")).unwrap();
    both(&scene, "hollow", 2, &["hollow", "package.yaml"]);
}

#[test]
fn a_name_that_is_not_utf_8_is_handled() {
    let scene = Scene::with_good_package();
    let name = OsStr::from_bytes(b"caf\xe9 \n.html");
    fs::write(scene.path("winter/docroot").join(name), "café").unwrap();
    fs::write(scene.path("web").join(name), "before").unwrap();
    let before = scene.fingerprint();
    scene.run(&["plan", "winter"]).exits(0);
    scene.run(&["deploy", "winter"]).exits(0);
    assert_eq!(fs::read(scene.path("web").join(name)).unwrap(), "café".as_bytes());
    scene.run(&["show", &scene.latest()]).exits(0).answers("caf");
    scene.run(&["undo"]).exits(0);
    assert_eq!(scene.fingerprint(), before);
}

#[test]
fn an_empty_package() {
    let scene = Scene::with_good_package();
    scene.package("hollow", "steps: []\n");
    both(&scene, "hollow", 2, &["hollow/package.yaml:3"]);
    scene.package("hollow", "description: nothing to do\n");
    both(&scene, "hollow", 2, &["hollow/package.yaml"]);
}

#[test]
fn a_duplicate_name() {
    let scene = Scene::with_good_package();
    scene.write("winter/package.yaml", format!("{GOOD}version: 2\n"));
    both(&scene, "winter", 2, &["winter/package.yaml:11:1", "version"]);
    scene.write("winter/package.yaml", "package: winter\nversion: 1\nsteps:\n  - package: a\n  - package: b/a\n");
    scene.write("winter/a/package.yaml", "package: a\nversion: 1\nsteps:\n  - run: [\"true\"]\n    undo: [\"true\"]\n");
    scene.write(
        "winter/b/a/package.yaml",
        "package: a\nversion: 1\nsteps:\n  - run: [\"true\"]\n    undo: [\"true\"]\n",
    );
    both(&scene, "winter", 2, &["winter/package.yaml:5"]);
}

#[test]
fn a_cycle_among_children() {
    let scene = Scene::new();
    scene.write("ring/package.yaml", "package: ring\nversion: 1\nsteps:\n  - package: a\n  - package: b\n");
    for (name, other) in [("a", "b"), ("b", "a")] {
        let text = format!(
            "package: {name}\nversion: 1\nrequires: [{other}]\nsteps:\n  - run: [\"true\"]\n    undo: [\"true\"]\n"
        );
        scene.write(&format!("ring/{name}/package.yaml"), text);
    }
    both(&scene, "ring", 2, &["package.yaml:", "a", "b"]);

    // A child that is its own parent, by a link.
    scene.write("loop/package.yaml", "package: loop\nversion: 1\nsteps:\n  - package: again\n");
    std::os::unix::fs::symlink(".", scene.path("loop/again")).unwrap();
    both(&scene, "loop", 2, &["package.yaml:4"]);
}

#[test]
fn a_capture_of_what_the_site_lacks() {
    let scene = Scene::with_good_package();
    scene.package("captured", "steps:\n  - run: [\"true\"]\n    capture: {databases: [main], roots: [wbe]}\n");
    both(&scene, "captured", 2, &["captured/package.yaml:4", "wbe", "web"]);
    scene.package("captured", "steps:\n  - run: [\"true\"]\n    capture: none\n");
    both(&scene, "captured", 2, &["captured/package.yaml:5", "none", "all"]);
}

#[test]
fn a_command_without_undo_is_refused() {
    let scene = Scene::new();
    scene.package("bare", "steps:\n  - run: [\"true\"]\n");
    both(&scene, "bare", 2, &["bare/package.yaml:4", "undo"]);
}

#[test]
fn a_package_that_names_what_the_site_lacks() {
    let scene = Scene::with_good_package();
    scene.write("winter/package.yaml", GOOD.replace("- sql: sql/010.sql", "- sql: sql/010.sql\n    database: orders"));
    both(&scene, "winter", 2, &["winter/package.yaml", "orders", "main"]);
    scene.write("winter/package.yaml", GOOD.replace("- files: docroot", "- files: docroot\n    root: wbe"));
    both(&scene, "winter", 2, &["winter/package.yaml", "wbe", "web"]);
}

#[test]
fn a_script_that_does_not_fit_the_schema() {
    let scene = Scene::with_good_package();
    scene.write("winter/sql/010.sql", "UPDATE product SET price = 1;\n\nUPDATE produkt SET price = 1;\n");
    both(&scene, "winter", 4, &["sql/010.sql:3", "produkt"]);
    scene.write("winter/sql/010.sql", "UPDATE product SET\n  price = = 1;\n");
    both(&scene, "winter", 4, &["sql/010.sql:1", "syntax error"]);
    scene.write("winter/sql/010.sql", "SELECT 1;\nUPDATE product SET price = 'never closed;\n");
    both(&scene, "winter", 4, &["sql/010.sql", "line 2", "never closed"]);
}

#[test]
fn a_database_that_is_missing_or_none() {
    let scene = Scene::with_good_package();
    fs::rename(scene.path("shop.sqlite"), scene.path("kept")).unwrap();
    both(&scene, "winter", 4, &["database main", "shop.sqlite", "hint: make the database first"]);
    assert!(!scene.path("shop.sqlite").exists(), "it was made");
    scene.run(&["doctor"]).exits(4).answers("shop.sqlite").closes("Nothing was changed.");

    scene.write("shop.sqlite", "this is no database, and long enough to be taken for one by its size alone".repeat(40));
    both(&scene, "winter", 4, &["database main", "shop.sqlite", "not a database"]);

    fs::remove_file(scene.path("shop.sqlite")).unwrap();
    fs::create_dir(scene.path("shop.sqlite")).unwrap();
    both(&scene, "winter", 4, &["database main", "is not a file"]);
}

#[test]
fn a_database_that_another_program_keeps_locked() {
    let scene = Scene::with_good_package();
    let before = scene.fingerprint();
    let other = scene.database();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let ran = scene.run(&["deploy", "winter"]).exits(4).says("locked").closes("Nothing was changed.");
    assert!(ran.stderr.contains("main"), "{ran}");
    drop(other);
    assert_eq!(scene.fingerprint(), before);
}

#[test]
fn a_root_that_is_missing() {
    let scene = Scene::with_good_package();
    fs::rename(scene.path("web"), scene.path("kept")).unwrap();
    both(&scene, "winter", 4, &["root web", "hint: make the directory first"]);
    assert!(!scene.path("web").exists(), "it was made");
}

#[test]
fn a_second_deployer() {
    let scene = Scene::with_good_package();
    let hold = Hold::new(&scene);
    scene.package("slow", &format!("steps:\n{}", hold.step()));
    let first = scene.spawn(&["deploy", "slow"]);
    hold.wait();
    let before = scene.fingerprint();
    let pid = first.id().to_string();
    for words in [&["deploy", "winter"][..], &["undo"], &["redo"], &["resume"], &["unlock", "--yes"]] {
        let ran = scene.run(words).exits(4).says(&pid).says("deploy slow").says("hint: wait");
        assert_eq!(ran.stderr.lines().last(), Some("Nothing was changed."), "{ran}");
    }
    assert_eq!(scene.fingerprint(), before);
    // Looking is allowed all the while.
    scene.run(&["status"]).exits(0).answers("under way").answers(&format!("process {pid}"));
    scene.run(&["log"]).exits(0).answers("applying");
    hold.release();
    Ran::of(&["deploy", "slow"], first.wait_with_output().unwrap()).exits(0);
    scene.run(&["deploy", "winter"]).exits(0);
}
