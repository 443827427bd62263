//! A disk that is full: a small file system in a mount namespace of its own plays it.

use std::fs;

use backout_testkit::{mariadb, postgres};

use crate::scene::{Ran, SITE, Scene, fingerprint_at};

/// Runs a command on a copy of the site that lies on a small file system of its own, of which only `left` KiB are
/// free, and brings what became of it back into the directory `after`.
fn on_a_full_disk(scene: &Scene, left: u32, words: &[&str]) -> Ran {
    let (site, after) = (scene.path("site"), scene.path("after"));
    fs::create_dir_all(&site).unwrap();
    let script = format!(
        "set -e
         mount -t tmpfs -o size=64m tmpfs '{site}'
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

/// A root of six megabytes that is backed up.
fn backed_up() -> Scene {
    let scene = Scene::with_good_package();
    let password = scene.path("password");
    scene.write("password", "open");
    scene.write("site.yaml", format!("{SITE}backup: {{password-file: {}}}\n", password.display()));
    let large: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(6_000_000).collect();
    scene.write("web/large.bin", large);
    scene
}

/// A disk that the live site shares is not filled up first.
#[test]
fn a_backup_that_does_not_fit_is_not_begun() {
    let scene = backed_up();
    let before = scene.fingerprint();
    for words in [&["deploy", "../winter"][..], &["backup"]] {
        let ran = on_a_full_disk(&scene, 11_500, words).exits(4).closes("Nothing was changed.");
        let ran = ran
            .says("error: there is no room for the backup on the disk of ")
            .says("6.0 MB for the repository's first backup");
        assert_eq!(fingerprint_at(&scene.path("after")), before, "{ran}");
        assert!(!scene.path("after/.backout/backups").exists(), "{ran}");
        fs::remove_dir_all(scene.path("after")).unwrap();
    }
    on_a_full_disk(&scene, 11_500, &["deploy", "../winter", "--no-backup"]).exits(0);
    fs::remove_dir_all(scene.path("after")).unwrap();
    on_a_full_disk(&scene, 24_000, &["deploy", "../winter"]).exits(0);
}

#[test]
fn a_restore_and_a_rehearsal_that_do_not_fit_are_not_begun() {
    let scene = backed_up();
    scene.run(&["backup"]).exits(0);
    scene.sql("UPDATE product SET price = 1");
    let before = scene.fingerprint();
    for (words, why) in [
        (&["restore", "--yes"][..], "no room for the restore on the disk of "),
        (&["restore", "--into", "copy"], "6.0 MB for a second copy of the root web"),
        (&["verify", "--backup"], "no room for what is to be compared"),
        (&["rehearse", "../winter"], " MB for the copy of the root web"),
    ] {
        let ran = on_a_full_disk(&scene, 4096, words).exits(4).says(why).closes("Nothing was changed.");
        assert_eq!(fingerprint_at(&scene.path("after")), before, "{ran}");
        fs::remove_dir_all(scene.path("after")).unwrap();
        on_a_full_disk(&scene, 20_480, words).exits(0);
        fs::remove_dir_all(scene.path("after")).unwrap();
    }
}

/// What a dump will take is asked of the server.
#[test]
fn dumps_that_do_not_fit_are_not_begun() {
    let (pg, maria) = (postgres::Server::shared().database(), mariadb::Server::shared().database());
    pg.psql("CREATE TABLE t AS SELECT i, repeat('x', 1000) AS x FROM generate_series(1, 7000) AS i");
    maria.script(
        "CREATE TABLE t (i INT PRIMARY KEY, x VARCHAR(1000)); INSERT INTO t SELECT seq, REPEAT('x', 1000) FROM seq_1_to_7000;
         ANALYZE TABLE t;",
    );
    for url in [pg.url(), maria.url()] {
        let scene = Scene::with_good_package();
        scene.write("password", "open");
        let password = scene.path("password");
        let site = format!(
            "site: shop\ndatabases: {{main: {{url: \"{url}\"}}}}\nbackup: {{password-file: {}}}\n",
            password.display()
        );
        scene.write("site.yaml", site);
        on_a_full_disk(&scene, 4096, &["backup"])
            .exits(4)
            .says("MB for the dumps of the databases")
            .closes("Nothing was changed.");
        fs::remove_dir_all(scene.path("after")).unwrap();
        on_a_full_disk(&scene, 20_480, &["backup"]).exits(0);
    }
}
