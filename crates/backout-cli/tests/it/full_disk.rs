//! A disk that is full: a small file system in a mount namespace of its own plays it.

use std::fs;

use crate::scene::{Ran, Scene, fingerprint_at};

/// Runs a command on a copy of the site that lies on a small file system of its own, of which only `left` KiB are
/// free, and brings what became of it back into the directory `after`.
fn on_a_full_disk(scene: &Scene, left: u32, words: &[&str]) -> Ran {
    let (site, after) = (scene.path("site"), scene.path("after"));
    fs::create_dir_all(&site).unwrap();
    let script = format!(
        "set -e
         mount -t tmpfs -o size=32m tmpfs '{site}'
         cp -a site.yaml shop.sqlite web '{site}/'
         if [ -e .backout ]; then cp -a .backout '{site}/'; fi
         cd '{site}'
         head -c {left}k /dev/zero > room; cat /dev/zero > fill 2>/dev/null || :; rm room
         status=0; \"$@\" || status=$?
         cp -a '{site}' '{after}'
         exit $status",
        site = site.display(),
        after = after.display(),
    );
    let plain = scene.command(words);
    let mut command = std::process::Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &script, "sh"]).arg(plain.get_program());
    command.args(plain.get_args()).current_dir(scene.path("")).env_clear();
    for (name, value) in plain.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    // A machine that does not let its users mount fails here, so that nobody believes this was tested.
    Ran::of(words, command.output().unwrap())
}

#[test]
fn a_full_disk() {
    for left in [0, 16, 64] {
        let scene = Scene::with_good_package();
        let before = scene.fingerprint();
        let ran = on_a_full_disk(&scene, left, &["deploy", "../winter"]);
        let ran = ran.exits(4).says("hint: make room on the disk of ").closes("Nothing was changed.");
        assert_eq!(fingerprint_at(&scene.path("after")), before, "with {left} KiB left: {ran}");
    }
}

#[test]
fn a_disk_that_fills_up_on_the_way() {
    // Far more than there is room for: the state is there, the files are not staged before the space has gone.
    let scene = Scene::with_good_package();
    scene.run(&["deploy", "winter"]).exits(0);
    scene.run(&["undo"]).exits(0);
    let before = scene.fingerprint();
    scene.write("winter/docroot/large.bin", vec![7; 3 << 20]);
    for left in [0, 16, 512, 2048] {
        let ran = on_a_full_disk(&scene, left, &["deploy", "../winter"]);
        assert!(matches!(ran.code, Some(1 | 4)), "with {left} KiB left: {ran}");
        assert!(ran.stderr.to_lowercase().contains("no space") || ran.stderr.contains("it is full"), "{ran}");
        assert_eq!(fingerprint_at(&scene.path("after")), before, "with {left} KiB left: {ran}");
        fs::remove_dir_all(scene.path("after")).unwrap();
    }
}
