//! `undo` on a site that others changed meanwhile, and of what was interrupted.

use rusqlite::types::Value;

use crate::scene::Scene;

/// The shop after a deployment, with a price that was changed since.
fn changed() -> Scene {
    let scene = Scene::with_good_package();
    scene.run(&["deploy", "winter"]).exits(0);
    scene.sql("UPDATE product SET price = 7, name = 'cap' WHERE id = 1");
    scene
}

#[test]
fn stop_lists_what_stands_in_the_way() {
    let scene = changed();
    scene.refused(&["undo"], 4).says("conflict: database main: product (id=1) column price").says("hint: backout undo");
    scene.refused(&["undo", "--on-conflict", "stop"], 4);
    let ran = scene.run(&["undo", "--plan"]).exits(4).answers("1 conflicts stand in the way");
    assert!(ran.stderr.contains("conflict: "), "{ran}");
}

#[test]
fn keep_leaves_the_newer_value() {
    let scene = changed();
    scene.run(&["undo", "--on-conflict", "keep"]).exits(5).says("conflict: ");
    assert_eq!(scene.value("SELECT price FROM product WHERE id = 1"), Value::Integer(7));
    assert_eq!(scene.value("SELECT price FROM product WHERE id = 2"), Value::Integer(3000));
    assert_eq!(scene.value("SELECT name FROM product WHERE id = 1"), Value::Text("cap".into()));
    assert_eq!(scene.read("web/index.html"), "<h1>Autumn</h1>");
}

#[test]
fn overwrite_needs_a_yes() {
    let scene = changed();
    scene.refused(&["undo", "--on-conflict", "overwrite"], 2).says("--yes").says("no terminal");
    scene.run(&["undo", "--on-conflict", "overwrite", "--yes"]).exits(0);
    assert_eq!(scene.value("SELECT price FROM product WHERE id = 1"), Value::Integer(2500));
    // What only others changed stays.
    assert_eq!(scene.value("SELECT name FROM product WHERE id = 1"), Value::Text("cap".into()));
}

/// A script learns at its first run that an answer is missing, not on the day when there is a conflict.
#[test]
fn overwrite_needs_a_yes_also_where_nothing_stands_in_the_way() {
    let scene = Scene::with_good_package();
    scene.run(&["deploy", "winter"]).exits(0);
    scene.refused(&["undo", "--on-conflict", "overwrite"], 2).says("--yes");
    scene.run(&["undo", "--on-conflict", "overwrite", "--yes"]).exits(0);
}

/// The way out for what cannot be captured: the undo script need not be such as can be.
#[test]
fn a_script_that_cannot_be_captured_is_undone_by_its_own() {
    let scene = Scene::new();
    scene.package("map", "steps:\n  - sql: map.sql\n    undo: map.undo.sql\n");
    scene.write(
        "map/map.sql",
        "CREATE VIRTUAL TABLE place USING rtree (id, a, b);\nINSERT INTO place VALUES (1, 2, 3);\n",
    );
    scene.write("map/map.undo.sql", "BEGIN;\nDELETE FROM place;\nDROP TABLE place;\nCOMMIT;\n");
    let before = scene.fingerprint();
    scene.refused(&["undo"], 4);
    scene.run(&["deploy", "map"]).exits(0);
    let after = scene.fingerprint();
    scene.run(&["undo"]).exits(0);
    assert_eq!(scene.fingerprint(), before);
    scene.run(&["redo"]).exits(0);
    assert_eq!(scene.fingerprint(), after);
    scene.run(&["undo"]).exits(0);
    assert_eq!(scene.fingerprint(), before);
}

#[test]
fn an_earlier_deployment_while_a_later_one_stays() {
    let scene = Scene::with_good_package();
    scene.run(&["deploy", "winter"]).exits(0);
    let first = scene.latest();
    scene.package("banner", "steps:\n  - files: docroot\n");
    scene.write("banner/docroot/banner.html", "banner");
    scene.run(&["deploy", "banner"]).exits(0);
    scene.run(&["undo", &first[..6]]).exits(0).answers("the site is now at banner 1");
    assert_eq!(scene.read("web/index.html"), "<h1>Autumn</h1>");
    assert_eq!(scene.read("web/banner.html"), "banner");

    // What a later one builds on does not go.
    scene.run(&["deploy", "winter"]).exits(0);
    let second = scene.latest();
    scene.write("banner/docroot/index.html", "<h1>Banner</h1>");
    scene.run(&["deploy", "banner"]).exits(0);
    scene.refused(&["undo", &second], 4).says("conflict: ");
}

#[test]
fn one_child_alone() {
    let scene = Scene::with_good_package();
    let manifest = crate::scene::GOOD.replace("after:", "  - package: extra\nafter:");
    scene.write("winter/package.yaml", manifest);
    scene.write("winter/extra/package.yaml", "package: extra\nversion: 1\nsteps:\n  - files: pages\n");
    scene.write("winter/extra/pages/extra.html", "extra");
    scene.run(&["deploy", "winter"]).exits(0);
    let child = format!("{}/extra", scene.latest());
    scene.run(&["show", &child]).exits(0).answers("extra.html");
    scene.refused(&["undo", &format!("{child}/none")], 2).says("no child package");
    scene.run(&["undo", &child]).exits(0).answers("undid extra of winter");
    assert!(!scene.path("web/extra.html").exists());
    assert_eq!(scene.read("web/index.html"), "<h1>Winter</h1>");
    scene.run(&["redo"]).exits(0);
    assert_eq!(scene.read("web/extra.html"), "extra");
}

#[test]
fn a_plan_of_an_undo_changes_nothing() {
    let scene = Scene::with_good_package();
    scene.run(&["deploy", "winter"]).exits(0);
    let before = scene.fingerprint();
    let ran = scene.run(&["undo", "--plan"]).exits(0).answers("nothing stands in the way").answers("pages/snow.html");
    assert!(ran.stdout.contains("scarf"), "{ran}");
    assert_eq!(scene.fingerprint(), before);
}

#[test]
fn verify_tells_drift_and_does_not_drown_in_it() {
    let scene = Scene::with_good_package();
    let rows: String = (10..60).map(|id| format!("INSERT INTO product VALUES ({id}, 'x', 1);\n")).collect();
    scene.write("winter/sql/010.sql", rows + crate::scene::GOOD_SQL);
    scene.write("winter/package.yaml", crate::scene::GOOD.replace("equals: \"3\"", "equals: \"53\""));
    scene.run(&["deploy", "winter"]).exits(0);
    scene.sql("UPDATE product SET price = 2 WHERE id >= 10");
    let ran = scene
        .run(&["verify"])
        .exits(0)
        .answers("drift  database main: product (id=59)")
        .answers("… and 30 changes more");
    assert_eq!(ran.stdout.lines().count(), 22, "{ran}");
    let ran = scene.run(&["verify", "--json"]).exits(0);
    assert_eq!(ran.stdout.lines().count(), 51, "{ran}");
}

/// What others made meanwhile is none of a statement's that had nothing to do.
#[test]
fn a_redo_does_not_do_what_was_not_done() {
    let scene = Scene::with_good_package();
    scene.sql("CREATE TABLE there (a)");
    scene.package("guarded", "steps:\n  - sql: sql/010.sql\n");
    let script = "INSERT INTO product (id, name) VALUES (90, 'x');
        DROP TABLE IF EXISTS gone; DROP VIEW IF EXISTS seen; CREATE TABLE IF NOT EXISTS there (b); REINDEX;\n";
    scene.write("guarded/sql/010.sql", script);
    scene.run(&["deploy", "guarded"]).exits(0);
    scene.run(&["undo"]).exits(0);
    scene.sql(
        "CREATE TABLE gone (a); INSERT INTO gone VALUES ('precious'); CREATE VIEW seen AS SELECT 1; DROP TABLE there",
    );
    scene.run(&["redo"]).exits(0);
    assert_eq!(scene.value("SELECT count(*) FROM gone, seen"), Value::Integer(1));
    assert_eq!(scene.value("SELECT count(*) FROM sqlite_schema WHERE name = 'there'"), Value::Integer(0));
    scene.run(&["undo"]).exits(0);
    assert_eq!(scene.value("SELECT count(*) FROM gone, seen"), Value::Integer(1));
}

/// The deployment's own file was given up for the old one: a redo says so, and is not promised.
#[test]
fn a_file_that_an_undo_overwrote_is_not_redone() {
    let scene = Scene::with_good_package();
    scene.run(&["deploy", "winter"]).exits(0);
    scene.write("web/pages/snow.html", "theirs");
    let undone = scene.run(&["undo", "--on-conflict", "overwrite", "--yes"]).exits(0);
    let undone = undone.closes("Undone and verified, over what others had changed where it is listed.");
    assert!(!scene.path("web/pages/snow.html").exists(), "{undone}");
    let ran = scene.run(&["redo"]).exits(4).says("pages/snow.html: was replaced before the undo");
    assert!(ran.stderr.contains("deploy winter 2026.11.1 anew"), "{ran}");
    scene.run(&["deploy", "winter"]).exits(0);
}
