//! What a bad `site.yaml` gets.

use std::fs;

use crate::scene::{SITE, Scene};

#[test]
fn an_unknown_key_shows_line_column_and_the_nearest_known_one() {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", SITE.replace("roots:", "rotos:"));
    for command in [&["deploy", "winter"][..], &["undo"], &["status"], &["log"], &["doctor"], &["verify"]] {
        scene.refused(command, 2).says("site.yaml:4:1").says("rotos").says("roots");
    }
}

#[test]
fn no_site_here_or_above() {
    let scene = Scene::with_good_package();
    fs::remove_file(scene.path("site.yaml")).unwrap();
    scene.refused(&["status"], 2).says("site.yaml").says("backout init").says("--site");
    scene.refused(&["status", "--site", "nowhere/site.yaml"], 2).says("nowhere/site.yaml");
}

#[test]
fn a_site_is_found_above() {
    let scene = Scene::with_good_package();
    fs::create_dir_all(scene.path("a/b")).unwrap();
    let output = scene.command(&["deploy", "../../winter"]).current_dir(scene.path("a/b")).output().unwrap();
    crate::scene::Ran::of(&["deploy"], output).exits(0);
    assert!(scene.path(".backout").exists());
    // Named by its directory.
    let output = scene.command(&["status", "--site", "../.."]).current_dir(scene.path("a/b")).output().unwrap();
    crate::scene::Ran::of(&["status"], output).exits(0).answers("winter");
}

#[test]
fn state_inside_a_root_also_behind_a_link() {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", format!("{SITE}state: web/.backout\n"));
    scene.refused(&["deploy", "winter"], 2).says("site.yaml:8").says("root `web`");
    std::os::unix::fs::symlink("web", scene.path("link")).unwrap();
    scene.write("site.yaml", format!("{SITE}state: link/.backout\n"));
    scene.refused(&["deploy", "winter"], 2).says("root `web`");
    assert!(!scene.path("web/.backout").exists());
}

#[test]
fn a_missing_variable_is_named() {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", SITE.replace("shop.sqlite", "${SHOP_FILE}"));
    scene.refused(&["status"], 2).says("SHOP_FILE").says("site.yaml:3");
    let output = scene.command(&["deploy", "winter"]).env("SHOP_FILE", "shop.sqlite").output().unwrap();
    crate::scene::Ran::of(&["deploy"], output).exits(0);
}

#[test]
fn an_engine_that_is_not_spoken_to() {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", SITE.replace("sqlite:shop.sqlite", "oracle://shop:secret@127.0.0.1/shop"));
    let ran = scene.refused(&["deploy", "winter"], 2).says("site.yaml:3");
    assert!(!ran.stderr.contains("secret"), "{ran}");
}

#[test]
fn a_state_directory_that_is_open_to_others_and_no_journal() {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", format!("{SITE}state: shared\n"));
    scene.write("shared/other.txt", "somebody else's");
    scene.refused(&["deploy", "winter"], 4).says("shared").says("hint: `chmod 700");
    scene.write("site.yaml", SITE);
    fs::create_dir(scene.path(".backout")).unwrap();
    scene.write(".backout/journal.db", "no journal".repeat(100));
    std::process::Command::new("chmod").arg("700").arg(scene.path(".backout")).status().unwrap();
    scene.refused(&["deploy", "winter"], 4).says("journal");
    scene.refused(&["status"], 4).says("journal");
}

#[test]
fn state_and_what_lies_in_it_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::with_good_package();
    scene.run(&["deploy", "winter"]).exits(0);
    let entries = fs::read_dir(scene.path("")).unwrap().map(|entry| entry.unwrap());
    let kept: Vec<_> = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".backout")).collect();
    assert_eq!(kept.len(), 2, "the state and the hold: {kept:?}");
    for closed in kept {
        assert_eq!(closed.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{closed:?}");
    }
}
