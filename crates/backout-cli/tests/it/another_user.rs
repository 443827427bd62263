//! A deployer who is not root and owns only a part of the site: what works, what is refused, what is told.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;

use crate::scene::{Ran, Scene};

/// The uid and gid of the deployer; they need no entry in passwd.
const DEPLOYER: u32 = 64_123;

/// A site whose tree belongs to root and may be written to by all; database and packages are the deployer's. None
/// where this test may not become somebody else.
fn scene() -> Option<Scene> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED as another user: this test must run as root to become one");
        return None;
    }
    let scene = Scene::with_good_package();
    fs::copy(env!("CARGO_BIN_EXE_backout"), scene.path("backout")).unwrap();
    let ours = Command::new("chown").arg("-R").arg(format!("{DEPLOYER}:{DEPLOYER}")).arg(scene.path("")).status();
    assert!(ours.unwrap().success());
    fs::set_permissions(scene.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    chown(scene.path("web"), Some(0), Some(0)).unwrap();
    fs::set_permissions(scene.path("web"), fs::Permissions::from_mode(0o777)).unwrap();
    Some(scene)
}

fn run(scene: &Scene, words: &[&str]) -> Ran {
    let like = scene.command(words);
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &DEPLOYER.to_string(), "--regid", &DEPLOYER.to_string(), "--clear-groups", "--"])
        .arg(scene.path("backout"))
        .args(like.get_args())
        .current_dir(scene.path(""))
        .env_clear()
        .envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Ran::of(words, command.output().unwrap())
}

#[test]
fn a_directory_of_another_user_keeps_its_own_time() {
    let Some(scene) = scene() else { return };
    let before = scene.fingerprint();
    run(&scene, &["deploy", "winter"]).exits(0).says("note: root web: . belongs to another user: times of such");
    assert_eq!(scene.read("web/pages/snow.html"), "snow");
    run(&scene, &["undo"]).exits(0);
    assert_eq!(scene.fingerprint(), before);
    run(&scene, &["redo"]).exits(0);
    run(&scene, &["verify"]).exits(0).answers("all in order");
}

#[test]
fn a_file_of_another_user_is_refused_before_anything_changes() {
    let Some(scene) = scene() else { return };
    chown(scene.path("web/index.html"), Some(0), Some(0)).unwrap();
    let before = scene.fingerprint();
    run(&scene, &["plan", "winter"]).exits(4).says("index.html").says("owner");
    run(&scene, &["deploy", "winter"]).exits(4).says("index.html").says("owner").closes("Nothing was changed.");
    assert_eq!(scene.fingerprint(), before);
    assert_eq!(fs::metadata(scene.path("web/index.html")).unwrap().uid(), 0);
}

/// A command that becomes somebody else, and that one's way into the package: by relative paths.
#[test]
fn a_command_may_become_another_user() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED as another user: this test must run as root to become one");
        return;
    }
    let scene = Scene::new();
    let other = format!("setpriv, --reuid, \"{DEPLOYER}\", --regid, \"{DEPLOYER}\", --clear-groups, --");
    let check = format!("[{other}, sh, -c, \"test -r data && exec lib/x\"]");
    scene.package(
        "p",
        &format!(
            "before:\n  - run: {check}\nsteps:\n  - run: {check}\n    undo: {check}\nfinally:\n  - run: {check}\n"
        ),
    );
    scene.write("p/data", "data");
    scene.write("p/lib/x", "#!/bin/sh\nexec test -r data\n");
    fs::set_permissions(scene.path("p/lib/x"), fs::Permissions::from_mode(0o755)).unwrap();
    scene.run(&["pack", "p"]).exits(0);
    for package in ["p", "p-1.backout.tar.zst"] {
        let ran = [scene.run(&["deploy", package]), scene.run(&["undo"]), scene.run(&["redo"]), scene.run(&["undo"])];
        for ran in ran {
            let ran = ran.exits(0);
            assert!(!ran.stderr.contains("finally"), "{ran}");
        }
    }
    assert_eq!(fs::metadata(scene.path(".backout")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_database_that_cannot_be_written_to_is_told_once() {
    let Some(scene) = scene() else { return };
    chown(scene.path("shop.sqlite"), Some(0), Some(0)).unwrap();
    fs::set_permissions(scene.path("shop.sqlite"), fs::Permissions::from_mode(0o644)).unwrap();
    let ran = run(&scene, &["doctor"]).exits(4);
    assert_eq!(ran.stdout.matches("database main: the file cannot be written to").count(), 1, "{ran}");
}
