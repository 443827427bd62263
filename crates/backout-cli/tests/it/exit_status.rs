//! The contract's exit statuses, each by a real run, with its closing line.

use crate::scene::{Hold, Scene};

#[test]
fn status_0_done() {
    let scene = Scene::with_good_package();
    let before = scene.fingerprint();
    let ran = scene.run(&["deploy", "winter"]).exits(0).answers("deployed winter 2026.11.1 as ");
    assert!(ran.stderr.ends_with("takes it back.\n"), "{ran}");
    assert_eq!(scene.read("web/index.html"), "<h1>Winter</h1>");
    let after = scene.fingerprint();

    let undone = scene.run(&["undo"]).exits(0).answers("undid winter 2026.11.1");
    let undone = undone.closes("Undone and verified. `backout redo` brings it back.");
    assert_eq!(undone.stdout.lines().count(), 2, "{undone}");
    assert_eq!(scene.fingerprint(), before);

    scene.run(&["redo"]).exits(0).answers("redid winter 2026.11.1");
    assert_eq!(scene.fingerprint(), after);
    scene.run(&["verify"]).exits(0).answers("all in order");
}

#[test]
fn status_1_failed_and_undone() {
    let scene = Scene::with_good_package();
    scene.write("winter/package.yaml", crate::scene::GOOD.replace("equals: \"3\"", "equals: \"4\""));
    let before = scene.fingerprint();
    scene
        .run(&["deploy", "winter"])
        .exits(1)
        .says("error: winter 2026.11.1 failed")
        .says("three products")
        .closes("Everything was undone and verified.");
    assert_eq!(scene.fingerprint(), before);
}

#[test]
fn status_1_where_a_statement_fails() {
    let scene = Scene::with_good_package();
    scene.write(
        "winter/sql/010.sql",
        "INSERT INTO product VALUES (9, 'x', 1);\n\nINSERT INTO product VALUES (1, 'hat', 1);\n",
    );
    let before = scene.fingerprint();
    scene
        .run(&["deploy", "winter"])
        .exits(1)
        .says("sql/010.sql:3")
        .says("UNIQUE")
        .closes("Everything was undone and verified.");
    assert_eq!(scene.fingerprint(), before);
}

#[test]
fn status_2_usage() {
    let scene = Scene::with_good_package();
    scene.refused(&["deplyo", "winter"], 2).says("deploy");
    scene.refused(&["deploy"], 2).says("<PACKAGE>");
    scene.refused(&[], 2).says("Usage");
    scene.refused(&["undo", "--on-conflict", "merge"], 2).says("overwrite");
    scene.refused(&["undo", "nosuchid"], 2).says("no deployment `nosuchid`");
    scene.refused(&["deploy", "winter", "--quiet", "-v"], 2);
    scene.refused(&["deploy", "winter", "--confirm-within", "soon"], 2).says("`soon` is not a duration");
    scene.refused(&["capture", "stop", "--abandon", "--package", "p"], 2).says("--package");
}

#[test]
fn status_3_needs_a_hand() {
    let scene = Scene::new();
    scene.package(
        "stuck",
        "steps:\n  - files: docroot\n  - run: [\"true\"]\n    undo: [\"false\"]\nafter:\n  - name: never\n    run: [\"false\"]\n",
    );
    scene.write("stuck/docroot/new.html", "new");
    let ran = scene.run(&["deploy", "stuck"]).exits(3);
    let last = ran.stderr.lines().last().unwrap().to_owned();
    let id = scene.latest();
    assert!(last.starts_with("Needs a hand: ") && last.contains(&format!("backout undo {id}")), "{ran}");
    scene.run(&["status"]).exits(0).answers("needs a hand").answers(&format!("go on with: backout undo {id}"));
    // Nothing had been interrupted; that is not to say that all is well.
    let resumed = scene.run(&["resume"]).exits(3).says("stuck").says("left: ");
    let last = resumed.stderr.lines().last().unwrap();
    assert!(last.starts_with("Needs a hand: ") && last.contains(&format!("backout undo {id}")), "{resumed}");
    // Nothing else is started before a person has seen to it.
    scene.good_package("winter");
    scene.run(&["deploy", "winter"]).exits(4).says("needs a hand").closes("Nothing was changed.");
}

#[test]
fn status_4_refused_by_a_condition() {
    let scene = Scene::with_good_package();
    let manifest = crate::scene::GOOD.replace(
        "steps:",
        "before:\n  - name: the old price\n    sql: SELECT price FROM product WHERE id = 1\n    equals: \"9\"\nsteps:",
    );
    scene.write("winter/package.yaml", manifest);
    scene.refused(&["deploy", "winter"], 4).says("the old price").says("2500");
    scene.refused(&["undo"], 4).says("no deployment to undo");
    scene.refused(&["redo"], 4).says("nothing to redo");
}

#[test]
fn status_4_refused_as_it_cannot_be_undone() {
    let scene = Scene::with_good_package();
    scene.write("winter/sql/010.sql", "UPDATE product SET price = 1;\nVACUUM;\n");
    let ran = scene.refused(&["deploy", "winter"], 4).says("sql/010.sql:2").says("VACUUM").says("hint:");
    assert!(!ran.stderr.contains("010.sql:1"), "{ran}");
    scene.refused(&["plan", "winter"], 4).says("sql/010.sql:2").answers("REFUSED");
}

/// What is known beforehand is not left to the run to find out, which would end with status 1.
#[test]
fn status_4_where_only_the_run_used_to_find_out() {
    let scene = Scene::with_good_package();
    scene.sql("CREATE TABLE hidden (rowid, _rowid_, oid)");
    scene.write("winter/undo.sql", "DELETE FROM product WHERE id = 9;\nVACUUM;\n");
    for (sql, place, words) in [
        (
            "DELETE FROM product;\nPRAGMA foreign_keys = ON;\nINSERT INTO product VALUES (9, 'x', 1);\n",
            "sql/010.sql:2",
            "it has no effect on the statements that follow it",
        ),
        ("INSERT INTO hidden VALUES (1, 2, 3);", "sql/010.sql:1", "cannot be told apart"),
    ] {
        scene.write("winter/sql/010.sql", sql);
        scene.refused(&["plan", "winter"], 4).says(place).says(words);
        scene.refused(&["deploy", "winter"], 4).says(place).says(words);
    }
    scene.write("winter/sql/010.sql", "INSERT INTO product VALUES (9, 'x', 1);");
    let with_undo = crate::scene::GOOD.replace("sql/010.sql", "sql/010.sql\n    undo: undo.sql");
    scene.write("winter/package.yaml", with_undo);
    scene.refused(&["plan", "winter"], 4).says("undo.sql:2").says("VACUUM");
    scene.refused(&["deploy", "winter"], 4).says("undo.sql:2").says("VACUUM");
}

#[test]
fn status_4_irreversible_until_it_is_accepted() {
    let scene = Scene::new();
    scene.package("mail", "steps:\n  - run: [\"true\"]\n    undo: none\n    because: a mail that is out is out\n");
    scene.refused(&["deploy", "mail"], 4).says("a mail that is out is out").says("--accept-irreversible");
    scene.run(&["plan", "mail"]).exits(0).says("--accept-irreversible");
    scene.run(&["deploy", "mail", "--accept-irreversible"]).exits(0);
}

#[test]
fn status_5_done_in_part() {
    let scene = Scene::with_good_package();
    let manifest = crate::scene::GOOD.replace("after:", "  - package: extra\n    on-failure: continue\nafter:");
    scene.write("winter/package.yaml", manifest);
    scene.write("winter/extra/package.yaml", "package: extra\nversion: 1\nsteps:\n  - files: pages\nafter:\n  - name: never\n    file: sold-out.html\n    exists: true\n");
    scene.write("winter/extra/pages/extra.html", "extra");
    let ran = scene.run(&["deploy", "winter"]).exits(5).says("extra is passed over").says("left out: ");
    let id = scene.latest();
    assert!(ran.stderr.contains(&format!("hint: backout retry {id}/extra")), "{ran}");
    assert!(!scene.path("web/extra.html").exists());
    assert_eq!(scene.read("web/index.html"), "<h1>Winter</h1>");

    // It fails again, then what it needs is there.
    scene.run(&["retry", &format!("{id}/extra")]).exits(1).closes("Everything was undone and verified.");
    scene.write("web/sold-out.html", "sold out");
    scene.run(&["retry", &format!("{}/extra", &id[..5])]).exits(0).answers("deployed extra of winter");
    assert_eq!(scene.read("web/extra.html"), "extra");
}

/// A stop that is asked for is a failure like any other: all is undone.
#[test]
fn a_signal_lets_the_step_end_and_takes_all_back() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM, rustix::process::Signal::HUP] {
        let scene = Scene::new();
        let hold = Hold::new(&scene);
        scene.package("slow", &format!("steps:\n  - files: docroot\n{}  - delete: [index.html]\n", hold.step()));
        scene.write("slow/docroot/new.html", "new");
        let before = scene.fingerprint();
        let child = scene.spawn(&["deploy", "slow"]);
        hold.wait();
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        // Twice: the second is not special.
        rustix::process::kill_process(pid, signal).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        hold.release();
        let ran = crate::scene::Ran::of(&["deploy", "slow"], child.wait_with_output().unwrap());
        ran.exits(1).says("stopped by the operator").closes("Everything was undone and verified.");
        assert_eq!(scene.fingerprint(), before);
    }
}

/// Played through the fault seam, because no input is known that makes the tool panic.
#[cfg(feature = "faults")]
#[test]
fn status_255_a_defect() {
    let scene = Scene::with_good_package();
    let words = ["deploy", "winter"];
    let run = |fault: &str| {
        let output = scene.command(&words).env("BACKOUT_FAULT", fault).output().unwrap();
        crate::scene::Ran::of(&words, output)
    };
    run(&format!("count:{}", scene.path("points").display())).exits(0);
    scene.run(&["undo"]).exits(0);
    // Amid the files, when the rows are committed.
    let points = scene.read("points");
    let at = points.lines().rfind(|line| line.ends_with("Exchange")).unwrap().split(' ').next().unwrap();
    let ran = run(&format!("panic:{at}"));
    assert_eq!(ran.code, Some(255), "{ran}");
    let ran = ran.says("error: this is a defect of backout").says("hint: ");
    assert!(ran.stderr.lines().last().unwrap().starts_with("Needs a hand: "), "{ran}");
    assert!(!ran.stderr.contains("RUST_BACKTRACE"), "{ran}");
    scene.run(&["resume"]).exits(1).closes("Everything was undone and verified.");
    let words = ["deploy", "winter", "--json"];
    let output = scene.command(&words).env("BACKOUT_FAULT", format!("panic:{at}")).output().unwrap();
    let ran = crate::scene::Ran::of(&words, output);
    let result: serde_json::Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&result["command"], &result["status"]), (&"deploy".into(), &"defect".into()), "{ran}");
    assert_eq!(result["hints"].as_array().unwrap().len(), 1, "{ran}");
}
