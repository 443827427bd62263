//! From nothing to a first deployment: `init`, `new`, `doctor`.

use crate::scene::Scene;

#[test]
fn a_site_and_a_package_from_nothing() {
    let scene = Scene::new();
    std::fs::remove_file(scene.path("site.yaml")).unwrap();
    scene
        .run(&["init", "--name", "shop", "--database", "shop.sqlite", "--root", "web"])
        .exits(0)
        .answers("site.yaml")
        .says("backout doctor");
    let password = scene.path("backup-password");
    let mode = std::os::unix::fs::PermissionsExt::mode(&password.metadata().unwrap().permissions());
    assert_eq!((mode & 0o777, scene.read("backup-password").trim().len()), (0o600, 48));
    scene.run(&["doctor"]).exits(0).answers("shop is fit for deployments").answers("none was taken yet");
    scene.run(&["new", "spring"]).exits(0).answers("spring/package.yaml").says("backout plan spring");
    scene.run(&["inspect", "spring"]).exits(0).answers("spring");
    scene.run(&["deploy", "spring"]).exits(0);
    scene.run(&["status"]).exits(0).answers("last backup: ");
    scene.run(&["show"]).exits(0).answers("backup: ");
    scene.run(&["undo"]).exits(0);
}

#[test]
fn init_never_overwrites_and_leaves_nothing_bad() {
    let scene = Scene::new();
    scene.refused(&["init", "--root", "web"], 2).says("site.yaml is there already");
    assert_eq!(scene.read("site.yaml"), crate::scene::SITE);
    std::fs::remove_file(scene.path("site.yaml")).unwrap();
    scene.refused(&["init"], 2).says("--database");
    scene.refused(&["init", "--name", "Shop!", "--root", "web"], 2).says("Shop!").says("--name");
    scene.refused(&["init", "--root", "web", "--state", "web/state"], 2).says("root `web`");
    scene.refused(&["init", "web", "--root", "."], 2).says("root `web`");
    assert!(!scene.path("site.yaml").exists() && !scene.path("web/site.yaml").exists());
    scene.refused(&["init", "nowhere", "--root", "web"], 4).says("nowhere/site.yaml");
}

#[test]
fn init_takes_paths_of_any_kind() {
    let scene = Scene::new();
    std::fs::remove_file(scene.path("site.yaml")).unwrap();
    std::fs::rename(scene.path("shop.sqlite"), scene.path("a #1 \"shop\" 100%.db")).unwrap();
    scene.run(&["init", "--name", "shop", "--database", "a #1 \"shop\" 100%.db", "--root", "./web/"]).exits(0);
    scene.run(&["doctor"]).exits(0);
}

#[test]
fn new_never_overwrites() {
    let scene = Scene::with_good_package();
    scene.refused(&["new", "winter"], 2).says("winter is there already");
    scene.refused(&["new", "a b"], 2).says("a b");
    scene.refused(&["new", ".."], 2);
    assert_eq!(scene.read("winter/package.yaml"), crate::scene::GOOD);
}

/// A mask that takes the owner's own rights away would leave a state directory that nobody can use.
#[test]
fn state_and_holds_are_the_owner_s_whatever_the_umask() {
    use std::os::unix::fs::MetadataExt;
    let scene = Scene::with_good_package();
    let binary = env!("CARGO_BIN_EXE_backout");
    let ran = std::process::Command::new("sh")
        .args(["-c", "umask 0777; exec \"$0\" deploy winter", binary])
        .current_dir(scene.path(""))
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    for directory in [".backout", ".backout/packages", ".backout/images"] {
        assert_eq!(mode(&scene.path(directory)), 0o700, "{directory}");
    }
    assert_eq!(mode(&scene.path(".backout/journal.db")), 0o600);
    let holds = std::fs::read_dir(scene.path("")).unwrap().map(|entry| entry.unwrap().path());
    let holds: Vec<_> =
        holds.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".backout-")).collect();
    assert_eq!(holds.len(), 1);
    assert_eq!(mode(&holds[0]), 0o700);
}
