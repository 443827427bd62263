//! A staging site is recorded, and what was recorded is deployed on another site.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::scene::Scene;

#[test]
fn recorded_here_and_deployed_there() {
    let scene = Scene::with_good_package();
    scene.refused(&["capture", "stop"], 4).says("nothing is being recorded").says("backout capture start");
    let copy = Command::new("sh")
        .args(["-ec", "mkdir other && cp -a shop.sqlite web site.yaml other/"])
        .current_dir(scene.path(""))
        .status();
    assert!(copy.unwrap().success());
    let ran = scene.run(&["capture", "start"]).exits(0).answers("recording as ");
    ran.says("backout capture stop --package NAME");
    let status = scene.run(&["status"]).exits(0).answers("recording what happens on the site: ");
    status.says("backout capture stop --package NAME");
    for refused in [&["deploy", "winter"][..], &["undo"], &["capture", "start"], &["resume"]] {
        scene.refused(refused, 4).says("is being recorded since").says("backout capture stop");
    }
    scene.run(&["plan", "winter"]).exits(0);
    scene.run(&["verify"]).exits(0);

    scene.sql(
        "INSERT INTO product VALUES (3, 'scarf', 1900); UPDATE product SET price = 2000 WHERE id = 1;
         CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT); INSERT INTO note VALUES (1, 'see https://staging.example/3')",
    );
    scene.write("web/index.html", "<h1>Winter</h1>");
    scene.write("web/scarf.html", "a scarf");
    std::fs::remove_file(scene.path("web/old.html")).unwrap();
    scene.refused(&["capture", "stop", "--package", "winter"], 2).says("is there already");
    let ran = scene.run(&["capture", "stop", "--package", "carried", "--leave-out", "main.nothing"]).exits(0);
    ran.answers("recorded ").says("Addresses: https://staging.example").says("carried/REVIEW.md").says("backout undo");
    assert_eq!(
        scene.read("carried/sql/main.sql"),
        "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT);
UPDATE \"product\" SET \"price\" = 2000 WHERE \"id\" = 1;
INSERT INTO \"product\" (\"id\", \"name\", \"price\") VALUES
  (3, 'scarf', 1900);
INSERT INTO \"note\" (\"id\", \"text\") VALUES
  (1, 'see https://staging.example/3');\n"
    );
    let manifest = scene.read("carried/package.yaml");
    for wanted in ["package: \"carried\"", "- delete:\n      - \"old.html\"", "- files: \"files/web\"", "exists: false"]
    {
        assert!(manifest.contains(wanted), "{wanted}:\n{manifest}");
    }

    scene.run(&["--site", "other", "plan", "carried"]).exits(0);
    scene.run(&["--site", "other", "deploy", "carried"]).exits(0);
    scene.run(&["diff", "other", "--exit-code"]).exits(0);
    scene.run(&["--site", "other", "undo"]).exits(0);
    scene.run(&["diff", "other", "--exit-code"]).exits(5);
    scene.run(&["undo"]).exits(0);
    scene.run(&["diff", "other", "--exit-code"]).exits(0);
}

#[test]
fn a_package_lies_where_no_undo_takes_it_and_its_owner_alone_reads_it() {
    let scene = Scene::new();
    let ran = scene.run(&["capture", "start"]).exits(0);
    let id = ran.stdout.trim().rsplit_once(' ').unwrap().1.to_owned();
    scene.sql("UPDATE product SET price = 1");
    std::fs::create_dir(scene.path("web/pages")).unwrap();
    for inside in ["web/carried", "web/pages/carried"] {
        scene.refused(&["capture", "stop", "--package", inside], 2).says("lies inside the root `web`");
    }
    scene.refused(&["capture", "stop", "--package", ".backout/carried"], 2).says("lies inside the state directory");
    scene.refused(&["unlock", "--anew", "--yes"], 4).says("is being recorded since");
    // What a stop that was killed left goes; what is another's stays.
    let (left, others) = (format!(".backout-recorded-{id}-x"), ".backout-recorded-other-x");
    for directory in [left.as_str(), others] {
        std::fs::create_dir(scene.path(directory)).unwrap();
        scene.write(&format!("{directory}/secret"), "x");
    }
    scene.run(&["capture", "stop", "--package", "carried"]).exits(0);
    assert!(!scene.path(&left).exists() && scene.path(others).exists());
    for (path, mode) in [("", 0o700), ("package.yaml", 0o600), ("REVIEW.md", 0o600), ("sql/main.sql", 0o600)] {
        let found = scene.path("carried").join(path).metadata().unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{path}");
    }
}

#[test]
fn one_that_is_given_up_leaves_what_happened() {
    let scene = Scene::new();
    scene.run(&["capture", "start"]).exits(0);
    scene.sql("UPDATE product SET price = 1");
    scene.run(&["capture", "stop", "--abandon"]).exits(0).says("what happened on the site stays");
    assert_eq!(scene.value("SELECT sum(price) FROM product"), rusqlite::types::Value::Integer(2));
    let status = scene.run(&["status"]).exits(0);
    assert!(!status.stdout.contains("recording"), "{status}");
    scene.run(&["verify"]).exits(0);
    assert!(!scene.path(".backout/captures").exists());
    scene.refused(&["undo"], 4);
}
