//! Locks whose holder is gone, or on another machine.

use rusqlite::types::Value;

use crate::scene::{Ran, Scene};

/// Writes into the database a lock that a process on another host holds.
fn foreign(scene: &Scene) {
    scene.run(&["deploy", "winter"]).exits(0);
    let holder = r#"{"site":"shop","host":"other-host","boot_id":"b","pid":7,"started":1,"purpose":"deploy spring","since_ms":1}"#;
    let table: String = scene
        .database()
        .query_row("SELECT name FROM sqlite_schema WHERE name LIKE 'backout%' AND type = 'table' LIMIT 1", [], |row| {
            row.get(0)
        })
        .unwrap();
    scene.database().execute(&format!("UPDATE \"{table}\" SET holder = ?1"), [holder]).unwrap();
}

#[test]
fn a_holder_on_another_host_is_taken_over_only_after_a_yes() {
    let scene = Scene::with_good_package();
    foreign(&scene);
    scene.refused(&["undo"], 4).says("process 7 on other-host (deploy spring)").says("backout unlock");
    scene.refused(&["unlock"], 2).says("--yes").answers("process 7 on other-host (deploy spring)");
    scene.run(&["unlock", "--yes"]).exits(0).says("make sure of it on its host").answers("1 lock taken over");
    scene.run(&["unlock"]).exits(0).answers("no lock is held");
    scene.run(&["undo"]).exits(0);
}

#[test]
fn a_dead_holder_is_nobody() {
    let scene = Scene::with_good_package();
    let hold = crate::scene::Hold::new(&scene);
    scene.package("slow", &format!("steps:\n  - sql: a.sql\n{}", hold.step()));
    scene.write("slow/a.sql", "DELETE FROM product;\n");
    let mut child = scene.spawn(&["deploy", "slow"]);
    hold.wait();
    let pid = child.id();
    child.kill().unwrap();
    child.wait().unwrap();
    scene.run(&["unlock", "--yes"]).exits(0).answers(&format!("process {pid}")).answers("which is gone");
    scene.run(&["deploy", "winter"]).exits(0);
}

/// `status` opens no database: it must answer at once, and also where the database is down.
#[test]
fn status_needs_no_database() {
    let scene = Scene::with_good_package();
    scene.run(&["deploy", "winter"]).exits(0);
    std::fs::rename(scene.path("shop.sqlite"), scene.path("away")).unwrap();
    scene.run(&["status"]).exits(0).answers("winter 2026.11.1");
    scene.run(&["log"]).exits(0).answers("winter 2026.11.1");
}

/// A state directory that was set back numbers its entries anew: the databases know of later ones.
#[test]
fn a_state_directory_that_lacks_what_was_done_is_found() {
    let scene = Scene::with_good_package();
    scene.good_package("spring");
    scene.write("spring/package.yaml", "package: spring\nversion: 1\nsteps:\n  - sql: sql/010.sql\n");
    scene.write("spring/sql/010.sql", "DELETE FROM product WHERE id = 1;\n");
    scene.run(&["deploy", "winter"]).exits(0);
    let copied = std::process::Command::new("cp").arg("-a").args([scene.path(".backout"), scene.path("old")]).status();
    assert!(copied.unwrap().success());
    scene.run(&["deploy", "spring"]).exits(0);
    std::fs::remove_dir_all(scene.path(".backout")).unwrap();
    std::fs::rename(scene.path("old"), scene.path(".backout")).unwrap();
    for words in [&["deploy", "spring"][..], &["undo"], &["redo"]] {
        scene.refused(words, 4).says("database main: it was last changed by entry").says("unlock --anew");
    }
    scene.run(&["doctor"]).exits(4).answers("it was last changed by entry");
    scene.run(&["verify"]).exits(3).answers("it was last changed by entry");
    scene.refused(&["unlock", "--anew"], 2).says("--yes");
    scene.run(&["unlock", "--anew", "--yes"]).exits(0).answers("a new history begins here");
    scene.run(&["doctor"]).exits(0);
    scene.run(&["deploy", "spring"]).exits(0);
    scene.run(&["undo"]).exits(0);
}

/// Two sites that name one directory have nothing in common but that: neither state, nor hold, nor database.
#[test]
fn a_root_is_changed_for_one_site_at_a_time() {
    let scene = Scene::with_good_package();
    scene.write("second/site.yaml", "site: other\nroots:\n  web: {path: ../web}\n");
    scene.package("page", "steps:\n  - files: docroot\n");
    scene.write("page/docroot/other.html", "other");
    scene.run(&["--site", "second", "deploy", "page"]).exits(0);
    let hold = crate::scene::Hold::new(&scene);
    scene.package("slow", &format!("steps:\n{}  - delete: [old.html]\n", hold.step()));
    let child = scene.spawn(&["deploy", "slow"]);
    hold.wait();
    let who =
        format!("root web: process {} (backout deploy slow) is at work on {}", child.id(), scene.path("web").display());
    for words in [&["deploy", "page"][..], &["undo"], &["undo", "--plan"], &["redo"], &["resume"], &["retry", "x/y"]] {
        let words = [&["--site", "second"], words].concat();
        scene.refused(&words, 4).says(&who).says("a root belongs to one site");
    }
    hold.release();
    Ran::of(&["deploy", "slow"], child.wait_with_output().unwrap()).exits(0);
    scene.run(&["--site", "second", "undo"]).exits(0);
    scene.run(&["undo"]).exits(0);
}

/// A marker that is gone or older than what the journal says was done: the database is not the one that it was.
#[test]
fn a_database_that_was_set_back_is_found() {
    let scene = Scene::with_good_package();
    std::fs::copy(scene.path("shop.sqlite"), scene.path("before")).unwrap();
    scene.run(&["deploy", "winter"]).exits(0);
    std::fs::copy(scene.path("shop.sqlite"), scene.path("after")).unwrap();
    scene.run(&["verify"]).exits(0).answers("all in order");
    scene.run(&["undo"]).exits(0);
    scene.run(&["verify"]).exits(0).answers("all in order");
    for command in [&["verify"][..], &["doctor"]] {
        let status = if command == ["verify"] { 3 } else { 4 };
        for (copy, said) in [("before", "it has no marker of this site"), ("after", "it was set back")] {
            std::fs::rename(scene.path("shop.sqlite"), scene.path("now")).unwrap();
            std::fs::copy(scene.path(copy), scene.path("shop.sqlite")).unwrap();
            scene.run(command).exits(status).answers(&format!("database main: {said}"));
            std::fs::rename(scene.path("now"), scene.path("shop.sqlite")).unwrap();
        }
        scene.run(command).exits(0);
    }
    scene.sql("DROP TABLE backout_shop");
    scene.run(&["verify"]).exits(3).answers("database main: it has no marker of this site");
    // The first to try makes the table anew: that it is empty tells the same.
    for _ in 0..2 {
        scene.refused(&["resume"], 4).says("database main: it has no marker of this site");
    }
    scene.run(&["verify"]).exits(3).answers("database main: it has no marker of this site");
}

/// Rows that a deployment took away would come twice: once from the dump, once from the undo.
#[test]
fn a_database_that_was_set_back_is_not_worked_on() {
    let scene = Scene::with_good_package();
    scene.package("spring", "steps:\n  - sql: sql/010.sql\n");
    scene.write("spring/sql/010.sql", "CREATE TABLE list (name TEXT); INSERT INTO list VALUES ('a'), ('a');\n");
    scene.run(&["deploy", "spring"]).exits(0);
    scene.write("spring/sql/010.sql", "DELETE FROM list;\n");
    std::fs::copy(scene.path("shop.sqlite"), scene.path("dump")).unwrap();
    scene.run(&["deploy", "spring"]).exits(0);
    scene.run(&["deploy", "winter"]).exits(0);
    std::fs::copy(scene.path("dump"), scene.path("shop.sqlite")).unwrap();
    for words in [&["deploy", "winter"][..], &["undo"], &["undo", "--plan"], &["redo"], &["resume"], &["retry", "x/y"]]
    {
        scene.refused(words, 4).says("database main: it was set back").says("unlock --anew");
    }
    scene.run(&["unlock", "--anew", "--yes"]).exits(0).answers("will be given up").answers("a new history begins here");
    scene.run(&["verify"]).exits(0);
    scene.run(&["doctor"]).exits(0);
    let log = scene.run(&["log"]).exits(0).stdout;
    let (given_up, stays) = (log.lines().filter(|line| line.contains("given-up")).count(), log.contains("  done  "));
    assert!(given_up == 2 && stays, "{log}");
    let id = log.lines().next().unwrap().split_whitespace().next().unwrap().to_owned();
    scene.refused(&["undo", &id], 4).says("was given up and can't be undone: database main: it was set back");
    scene.run(&["deploy", "spring"]).exits(0);
    scene.run(&["undo"]).exits(0).answers("the site is now at spring");
    assert_eq!(scene.value("SELECT count(*) FROM list"), Value::Integer(2));
    scene.run(&["undo"]).exits(0).answers("as it was before its first deployment, except for what is left of");
}

/// Also where a crash left it open how far an undo or a redo had come: what is known to have been done before is missing.
#[cfg(feature = "faults")]
#[test]
fn a_database_that_was_set_back_is_found_behind_an_interrupted_run() {
    let scene = Scene::with_good_package();
    scene.package("spring", "steps:\n  - sql: sql/010.sql\n");
    scene.write("spring/sql/010.sql", "DELETE FROM product;\n");
    let copy = |from: &str, to: &str| {
        let script = format!("rm -rf {to}; cp -a {from} {to}; rm -f shop.sqlite-*");
        let done = std::process::Command::new("sh").args(["-c", &script]).current_dir(scene.path("")).status();
        assert!(done.unwrap().success());
    };
    copy("shop.sqlite", "old.sqlite");
    scene.run(&["deploy", "spring"]).exits(0);
    for words in [["undo"], ["redo"]] {
        copy(".backout", "state");
        copy("shop.sqlite", "now.sqlite");
        let mut deaths = 0;
        for at in (1..).step_by(3) {
            let fault = format!("crash:{at}");
            let ran = Ran::of(&words, scene.command(&words).env("BACKOUT_FAULT", &fault).output().unwrap());
            if ran.code == Some(0) {
                break;
            }
            deaths += 1;
            copy("old.sqlite", "shop.sqlite");
            for words in [["resume"], ["undo"]] {
                scene.refused(&words, 4).says("database main: it has no marker of this site");
            }
            copy("state", ".backout");
            copy("now.sqlite", "shop.sqlite");
        }
        assert!(deaths > 3, "{words:?}: {deaths} deaths");
    }
}

/// A site that is closed to its users is told as such, and opened again, whichever deployments were given up since.
#[test]
fn maintenance_is_left_after_a_history_was_given_up() {
    let scene = Scene::with_good_package();
    let site = scene.read("site.yaml");
    scene.write("site.yaml", format!("{site}maintenance: {{enter: [touch, closed], leave: [rm, closed]}}\n"));
    scene.package("spring", "steps:\n  - sql: sql/010.sql\n");
    scene.write("spring/sql/010.sql", "DELETE FROM product;\n");
    std::fs::copy(scene.path("shop.sqlite"), scene.path("old")).unwrap();
    for _ in 0..3 {
        scene.run(&["deploy", "spring"]).exits(0);
    }
    let hold = crate::scene::Hold::new(&scene);
    scene.write("slow/sql/010.sql", "DELETE FROM product;\n");
    scene.package("slow", &format!("steps:\n  - sql: sql/010.sql\n{}", hold.step()));
    let mut child = scene.spawn(&["deploy", "slow"]);
    hold.wait();
    child.kill().unwrap();
    child.wait().unwrap();
    hold.release();
    assert!(scene.path("closed").exists());
    std::fs::copy(scene.path("old"), scene.path("shop.sqlite")).unwrap();
    scene.run(&["unlock", "--anew", "--yes"]).exits(0).answers("will be given up");
    scene.run(&["status"]).exits(0).answers("maintenance");
    scene.run(&["resume"]).exits(0);
    assert!(!scene.path("closed").exists());
    scene.run(&["deploy", "spring"]).exits(0);
}
