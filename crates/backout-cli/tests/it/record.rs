//! Records: what one holds, and the undo from it alone where the state directory is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scene::{Ran, Scene};

/// A scene with a deployment and its record, `rec`, beside the site.
fn recorded() -> Scene {
    let scene = Scene::with_good_package();
    scene.run(&["deploy", "winter"]).exits(0);
    scene.run(&["record", "--output", "rec"]).exits(0).answers("rec");
    scene
}

/// The state directory is gone, and what was held beside the root.
pub fn lose_everything(scene: &Scene) {
    fs::remove_dir_all(scene.path(".backout")).unwrap();
    for entry in fs::read_dir(scene.path(".")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with(".backout-") {
            fs::remove_dir_all(path).unwrap();
        }
    }
}

/// What `tar`, and nothing of the tool's, makes of a record.
fn unpacked(scene: &Scene, record: &str) -> PathBuf {
    let into = scene.path("unpacked");
    fs::create_dir(&into).unwrap();
    sh(scene.path(".").as_path(), &format!("tar --zstd -xf {record} -C unpacked"));
    into
}

#[track_caller]
pub fn sh(within: &Path, script: &str) -> String {
    let output = Command::new("sh").args(["-euc", script]).current_dir(within).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_deployment_is_undone_from_its_record_alone() {
    let scene = Scene::with_good_package();
    sh(
        &scene.path("web"),
        "chmod 751 old.html; ln -s /nowhere link; touch -d '2020-02-03 04:05:06.123456789Z' old.html",
    );
    let before = scene.fingerprint();
    scene.run(&["deploy", "winter"]).exits(0);
    let id = scene.latest();
    let ran = scene.run(&["record"]).exits(0);
    let file = PathBuf::from(ran.stdout.trim());
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(file.starts_with(fs::canonicalize(scene.path(".backout/records")).unwrap()), "{ran}");
    assert!(name.starts_with("shop-winter-2026.11.1-2") && name.ends_with(&format!("-{id}.record.tar.zst")), "{name}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    fs::rename(&file, scene.path("rec")).unwrap();
    lose_everything(&scene);
    let undone =
        scene.run(&["undo", "--record", "rec"]).exits(0).closes("Undone and verified. `backout redo` brings it back.");
    assert!(undone.stdout.contains(&format!("undid winter 2026.11.1 ({id})")), "{undone}");
    assert_eq!(scene.fingerprint(), before);
    scene.run(&["log"]).exits(0).answers("undone");
    scene.run(&["verify"]).exits(0);
    // What came back is a state directory like any other.
    scene.run(&["redo"]).exits(0);
    scene.run(&["undo"]).exits(0);
    assert_eq!(scene.fingerprint(), before);
}

/// What a command did, too: its files lie in the record like those of any other step.
#[test]
fn what_a_command_did_is_undone_from_the_record_alone() {
    let scene = Scene::new();
    scene.write("web/gone.html", "to go");
    let before = scene.fingerprint();
    scene.package(
        "captured",
        "steps:\n  - run: [sh, -c, 'echo new > \"$BACKOUT_ROOT_WEB/old.html\"; rm \"$BACKOUT_ROOT_WEB/gone.html\"; \
         sqlite3 \"$BACKOUT_DATABASE_MAIN\" \"CREATE TABLE made (x); INSERT INTO made VALUES (1)\"']\n    capture: all\n",
    );
    scene.run(&["deploy", "captured"]).exits(0);
    assert_ne!(scene.fingerprint(), before);
    scene.run(&["record", "--output", "rec"]).exits(0);
    lose_everything(&scene);
    scene.run(&["undo", "--record", "rec"]).exits(0);
    assert_eq!(scene.fingerprint(), before);
    scene.run(&["verify"]).exits(0);
}

#[test]
fn an_undo_from_a_record_is_guarded() {
    let scene = recorded();
    lose_everything(&scene);
    scene.sql("UPDATE product SET price = 7 WHERE id = 1");
    let left = scene.fingerprint();
    scene.run(&["undo", "--record", "rec"]).exits(4).says("conflict").closes("Nothing was changed.");
    assert_eq!(scene.fingerprint(), left);
    // Once more: by now the state directory is there.
    scene.run(&["undo", "--record", "rec", "--on-conflict", "keep"]).exits(5).says("is not needed");
}

#[test]
fn what_a_record_does_not_know_is_refused() {
    let scene = recorded();
    scene.package("spring", "steps:\n  - sql: a.sql\n");
    scene.write("spring/a.sql", "CREATE TABLE note (id INTEGER PRIMARY KEY);");
    scene.run(&["deploy", "spring"]).exits(0);
    scene.run(&["record", "--output", "later"]).exits(0);
    lose_everything(&scene);
    scene.refused(&["undo", "--record", "rec"], 4).says("deployments that the record does not know");
    assert!(!scene.path(".backout").exists(), "a refusal leaves no state directory");
    // With the later one's record both are known.
    let first = scene.run(&["undo", "--record", "rec", "--record", "later"]);
    let first = first.exits(0);
    assert!(first.stdout.contains("the site is now at spring 1"), "{first}");
    // A state directory that knows nothing of it is not touched.
    fs::remove_dir_all(scene.path(".backout")).unwrap();
    let other = Scene::with_good_package();
    other.package("other", "steps:\n  - delete: [old.html]\n");
    other.run(&["deploy", "other"]).exits(0);
    fs::copy(scene.path("rec"), other.path("rec")).unwrap();
    other.refused(&["undo", "--record", "rec"], 4).says("has a history of its own");
    // Nor is a site of another name.
    other.write("site.yaml", crate::scene::SITE.replace("shop\n", "mall\n"));
    other.refused(&["undo", "--record", "rec"], 2).says("is a record of the site shop");
}

#[test]
fn records_are_given_one_after_the_other_latest_first() {
    let scene = Scene::with_good_package();
    let before = scene.fingerprint();
    scene.run(&["deploy", "winter"]).exits(0);
    scene.run(&["record", "--output", "one"]).exits(0);
    scene.package("spring", "steps:\n  - sql: a.sql\n  - files: pages\n");
    scene.write("spring/a.sql", "UPDATE product SET name = 'cap' WHERE id = 1;");
    scene.write("spring/pages/index.html", "<h1>Spring</h1>");
    scene.run(&["deploy", "spring"]).exits(0);
    scene.run(&["record", "--output", "two"]).exits(0);
    lose_everything(&scene);
    scene.run(&["undo", "--record", "two"]).exits(0);
    scene.run(&["undo", "--record", "one"]).exits(0);
    assert_eq!(scene.fingerprint(), before);
    scene.run(&["verify"]).exits(0);
}

#[test]
fn tar_and_sha256sum_read_a_record() {
    let scene = recorded();
    let into = unpacked(&scene, "rec");
    sh(&into, "sha256sum --quiet --strict -c SHA256SUMS && sha256sum --quiet --strict -c SEAL");
    let executed = fs::read_to_string(into.join("sql/main/executed.sql")).unwrap();
    assert!(executed.contains("INSERT INTO product VALUES (3, 'scarf', 1900);"), "{executed}");
    let entries = fs::read_to_string(into.join("journal.jsonl")).unwrap();
    assert!(entries.lines().count() > 5 && entries.contains("step-intended"));
    let found = sh(&into, "find files -type f | sort | xargs -n1 sh -c 'echo $0 $(cat $0)'");
    for wanted in ["before/index.html <h1>Autumn</h1>", "after/index.html <h1>Winter</h1>", "before/old.html old"] {
        assert!(found.contains(wanted), "{found}");
    }
    assert!(into.join("package/package/package.yaml").exists());
}

#[test]
fn a_record_is_signed_and_held_against_the_keys_that_the_site_trusts() {
    let scene = Scene::with_good_package();
    for name in ["release", "other"] {
        sh(&scene.path("."), &format!("ssh-keygen -q -t ed25519 -N '' -C {name} -f {name}"));
    }
    scene.run(&["deploy", "winter"]).exits(0);
    scene.run(&["record", "--output", "plain"]).exits(0);
    scene.run(&["record", "--output", "signed", "--key", "release"]).exits(0);
    scene.run(&["record", "--output", "foreign", "--key", "other"]).exits(0);
    scene.run(&["record", "--output", "x", "--key", "site.yaml"]).exits(2).says("is no private SSH key");
    assert!(!scene.path("x").exists());
    scene.run(&["inspect", "signed"]).exits(0).answers("signed");
    lose_everything(&scene);
    let trust = "trust: {require-signature: true, keys: [release.pub]}\n";
    scene.write("site.yaml", format!("{}{trust}", crate::scene::SITE));
    scene.refused(&["undo", "--record", "plain"], 4).says("it is not signed");
    scene.refused(&["undo", "--record", "foreign"], 4).says("which the site does not trust");
    let into = unpacked(&scene, "signed");
    let verified = "echo release $(cat ../release.pub) > ../allowed; \
                    ssh-keygen -Y verify -f ../allowed -I release -n backout-record -s SEAL.sig < SEAL";
    assert!(sh(&into, verified).contains("Good"));
    scene.run(&["undo", "--record", "signed"]).exits(0);
}

#[test]
fn the_records_of_a_site_that_has_a_key_are_signed() {
    let scene = Scene::with_good_package();
    sh(&scene.path("."), "ssh-keygen -q -t ed25519 -N '' -C release -f release");
    sh(&scene.path("."), "ssh-keygen -q -t ed25519 -N '' -C site -f own");
    let trust = "record: true\ntrust: {require-signature: true, keys: [release.pub, own.pub], record-key: own}\n";
    scene.write("site.yaml", format!("{}{trust}", crate::scene::SITE));
    scene.run(&["sign", "winter", "--key", "release"]).exits(0);
    let deployed = scene.run(&["deploy", "winter"]).exits(0);
    let record = deployed.stderr.split("its record is ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    fs::copy(record, scene.path("rec")).unwrap();
    scene.run(&["record", "--output", "by-hand"]).exits(0);
    scene.run(&["inspect", "by-hand"]).exits(0).answers("signed; ");
    lose_everything(&scene);
    scene.run(&["undo", "--record", "rec"]).exits(0);
}

#[test]
fn inspect_tells_what_a_record_holds() {
    let scene = recorded();
    let id = scene.latest();
    let ran: Ran = scene.run(&["inspect", "rec"]).exits(0);
    for line in [
        &format!("record of winter 2026.11.1 ({id}) on shop"),
        "database main (sqlite): executed.sql, undo.sql",
        "root web: files before and after",
        "all checksums are right",
        "not signed",
    ] {
        assert!(ran.stdout.contains(line), "{ran}");
    }
    scene.run(&["inspect", "rec", "--json"]).exits(0).answers("\"first-entry\":");
}

#[test]
fn a_site_that_says_so_has_a_record_of_each_deployment() {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", format!("{}record: true\nretention: {{keep: 0}}\n", crate::scene::SITE));
    scene.run(&["deploy", "winter"]).exits(0).says("its record is ");
    let id = scene.latest();
    let records = || fs::read_dir(scene.path(".backout/records")).unwrap().map(|entry| entry.unwrap().path());
    let record = records().next().unwrap();
    assert!(record.to_str().unwrap().contains(&id) && records().count() == 1);
    scene.run(&["verify"]).exits(0).answers("1 record, ");
    // Damage to it is found like any other.
    let whole = fs::read(&record).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 4;
    fs::write(&record, damaged).unwrap();
    scene.run(&["verify"]).exits(3).answers("record");
    fs::write(&record, whole).unwrap();
    scene.refused(&["inspect", "site.yaml"], 2);
    // Retention holds for records, too.
    scene.run(&["prune", "--yes"]).exits(0);
    assert_eq!(records().count(), 0);
    scene.run(&["record", &id]).exits(4);
}

#[test]
fn a_damaged_record_undoes_nothing() {
    let scene = recorded();
    lose_everything(&scene);
    let whole = fs::read(scene.path("rec")).unwrap();
    for length in [0, 100, whole.len() / 2, whole.len() - 1] {
        scene.write("rec", &whole[..length]);
        scene.refused(&["undo", "--record", "rec"], 2).says("rec").says("hint: ");
        assert!(!scene.path(".backout").exists());
    }
    scene.refused(&["undo", "--record", "nowhere"], 2).says("cannot read nowhere");
}

#[test]
fn a_record_of_format_1_undoes_for_ever() {
    let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/record-1"));
    let scene = Scene::new();
    scene.write("site.yaml", "site: shop\ndatabases:\n  main: {url: \"sqlite:shop.sqlite\"}\n");
    let before = scene.fingerprint();
    if std::env::var_os("BACKOUT_BLESS").is_some() {
        scene.package("winter", "steps:\n  - sql: a.sql\n");
        scene.write("winter/a.sql", crate::scene::GOOD_SQL);
        scene.run(&["deploy", "winter"]).exits(0);
        scene.run(&["record", "--output", "shop.record.tar.zst"]).exits(0);
        fs::create_dir_all(golden).unwrap();
        for name in ["shop.sqlite", "shop.record.tar.zst"] {
            fs::copy(scene.path(name), golden.join(name)).unwrap();
        }
        fs::remove_dir_all(scene.path(".backout")).unwrap();
    }
    for name in ["shop.sqlite", "shop.record.tar.zst"] {
        fs::copy(golden.join(name), scene.path(name)).unwrap();
    }
    scene.run(&["inspect", "shop.record.tar.zst"]).exits(0).answers("record of winter 1");
    scene.run(&["undo", "--record", "shop.record.tar.zst"]).exits(0);
    assert_eq!(scene.fingerprint(), before);
}

#[test]
fn a_record_goes_over_no_file_of_others_and_into_nothing_of_the_sites() {
    let scene = recorded();
    let left = scene.fingerprint();
    scene.write("own", "not a record");
    for output in ["shop.sqlite", "site.yaml", "own", "web/rec", "web", ".backout/rec", ".backout/journal.db"] {
        scene.refused(&["record", "--output", output], 2).says("hint: name another place");
    }
    assert_eq!(scene.fingerprint(), left);
    assert_eq!(scene.read("own"), "not a record");
    scene.run(&["record", "--output", "rec"]).exits(0);
    scene.run(&["inspect", "rec"]).exits(0);
}

#[test]
fn a_plan_from_a_record_makes_no_state_directory() {
    let scene = recorded();
    lose_everything(&scene);
    let left = scene.fingerprint();
    scene.run(&["undo", "--record", "rec", "--plan"]).exits(0).answers("undo");
    assert!(!scene.path(".backout").exists());
    let beside = fs::read_dir(scene.path(".")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!beside.into_iter().any(|name| name.to_string_lossy().starts_with(".backout-look")));
    assert_eq!(scene.fingerprint(), left);
    scene.run(&["undo", "--record", "rec"]).exits(0);
}

#[test]
fn a_failed_deployment_has_a_record_and_a_refused_one_is_not_the_latest() {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", format!("{}record: true\n", scene.read("site.yaml")));
    scene.run(&["deploy", "winter"]).exits(0);
    scene.package("bad", "steps:\n  - sql: a.sql\n  - sql: b.sql\n");
    scene.write("bad/a.sql", "UPDATE product SET price = 1;");
    scene.write("bad/b.sql", "INSERT INTO product (id, name) VALUES (1, 'again');");
    let failed = scene.run(&["deploy", "bad"]).exits(1);
    let record = failed.stderr.split("its record is ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    scene.run(&["inspect", record]).exits(0).answers("failed-clean");
    scene.package("refused", "before:\n  - run: [\"false\"]\nsteps:\n  - sql: a.sql\n");
    scene.write("refused/a.sql", "SELECT 1;");
    scene.run(&["deploy", "refused"]).exits(4);
    scene.run(&["record", "--output", "rec"]).exits(0);
    scene.run(&["inspect", "rec"]).exits(0).answers("record of bad");
}
