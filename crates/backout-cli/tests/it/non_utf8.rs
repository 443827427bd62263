//! Packages and sites in directories whose names are not UTF-8: handled, not refused.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use crate::scene::{Ran, Scene};

const NAME: &[u8] = b"caf\xe9 100%41";

/// A package in a directory of that name, and a site with a root and a state of that name.
fn scene() -> Scene {
    let scene = Scene::new();
    let place = scene.path(OsStr::from_bytes(NAME));
    fs::create_dir(&place).unwrap();
    fs::rename(scene.path("web"), place.join("web")).unwrap();
    scene.write("p/package.yaml", "package: p\nversion: 1\nsteps:\n  - sql: a.sql\n    undo: a.undo.sql\n  - files: docroot\n  - run: [bin/x, \"{root.web}\", \"{database.main}\"]\n    undo: [bin/x, \"{root.web}\", \"{database.main}\"]\n  - package: c\n    on-failure: continue\nafter:\n  - run: [bin/x, \"{root.web}\", \"{database.main}\"]\nfinally:\n  - run: [bin/x, \"{root.web}\", \"{database.main}\"]\n");
    scene.write("p/a.sql", "CREATE TABLE extra (id INTEGER);\n");
    scene.write("p/a.undo.sql", "DROP TABLE extra;\n");
    scene.write("p/docroot/index.html", "<h1>Winter</h1>");
    scene
        .write("p/bin/x", "#!/bin/sh\ntest \"$1\" = \"$BACKOUT_ROOT_WEB\" && test -d \"$1\" && test -f package.yaml &&\ntest \"$2\" = \"$BACKOUT_DATABASE_MAIN\" && test -f \"$2\"\n");
    fs::set_permissions(scene.path("p/bin/x"), fs::Permissions::from_mode(0o755)).unwrap();
    scene.write("p/c/package.yaml", "package: c\nversion: 1\nsteps:\n  - files: tree\nafter:\n  - file: ready\n");
    scene.write("p/c/tree/c.html", "c");
    fs::rename(scene.path("p"), place.join("p")).unwrap();
    fs::rename(scene.path("shop.sqlite"), place.join("shop.sqlite")).unwrap();
    let site = "site: shop\ndatabases:\n  main: {url: \"sqlite:shop.sqlite\"}\nroots: {web: {path: web}}\n";
    fs::write(place.join("site.yaml"), site).unwrap();
    scene
}

fn run(scene: &Scene, words: &[&str]) -> Ran {
    let place = scene.path(OsStr::from_bytes(NAME));
    Ran::of(words, scene.command(words).current_dir(place).output().unwrap())
}

#[test]
fn a_package_and_a_site_in_a_directory_that_is_not_utf8() {
    let scene = scene();
    let index = scene.path(OsStr::from_bytes(NAME)).join("web/index.html");
    run(&scene, &["plan", "p"]).exits(0);
    let ran = run(&scene, &["deploy", "p"]).exits(5);
    assert!(!ran.stderr.contains("finally"), "{ran}");
    assert_eq!(fs::read_to_string(&index).unwrap(), "<h1>Winter</h1>");
    let id = run(&scene, &["log", "-n", "1"]).exits(0).stdout.split_whitespace().next().unwrap().to_owned();
    run(&scene, &["show"]).exits(0);
    fs::write(index.with_file_name("ready"), "").unwrap();
    run(&scene, &["retry", &format!("{id}/c")]).exits(0);
    run(&scene, &["undo"]).exits(0);
    assert_eq!(fs::read_to_string(&index).unwrap(), "<h1>Autumn</h1>");
    run(&scene, &["redo"]).exits(0);
    run(&scene, &["verify"]).exits(0);
    run(&scene, &["undo"]).exits(0);
}
