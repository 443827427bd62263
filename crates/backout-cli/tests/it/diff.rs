//! In what two sites differ.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::scene::Scene;

#[test]
fn definitions_rows_and_files_are_compared() {
    let scene = Scene::new();
    for name in ["shop.sqlite", "web", "site.yaml"] {
        let copied = std::process::Command::new("cp")
            .args(["-a", name, "other/"])
            .current_dir({
                fs::create_dir_all(scene.path("other")).unwrap();
                scene.path("")
            })
            .status();
        assert!(copied.unwrap().success());
    }
    // Times say when a copy was made, and nothing else.
    scene.write("other/web/index.html", scene.read("web/index.html"));
    scene.run(&["diff", "other"]).exits(0).answers("no difference");
    scene.run(&["diff", "other", "site.yaml", "--exit-code"]).exits(0);

    let execute = |at: &str, sql: &str| {
        rusqlite::Connection::open(scene.path(at)).unwrap().execute_batch(sql).unwrap();
    };
    execute(
        "shop.sqlite",
        "CREATE TABLE more (id INTEGER PRIMARY KEY); CREATE TABLE many (a); INSERT INTO many VALUES (1)",
    );
    execute("other/shop.sqlite", "CREATE TABLE many (a); INSERT INTO many VALUES (2)");
    scene.write("other/web/new.html", "new");
    scene.write("other/web/index.html", "another");
    fs::set_permissions(scene.path("other/web/index.html"), fs::Permissions::from_mode(0o600)).unwrap();
    let ran = scene.run(&["diff", "site.yaml", "other"]).exits(0);
    let ran = ran
        .answers("database main: only in the first: ")
        .answers("CREATE TABLE more (id INTEGER PRIMARY KEY)")
        .answers("database main: the rows of \"many\": 1 on both sides, but not the same")
        .answers("root web: only in the second: new.html")
        .answers("root web: index.html: content, mode");
    assert!(!ran.stdout.contains("product"), "{ran}");
    scene.run(&["diff", "other", "--exit-code"]).exits(5);
    let ran = scene.run(&["diff", "other", "--json"]).exits(0);
    assert!(ran.stdout.contains("\"total\":5"), "{ran}");
    // What the tool keeps for itself is no difference.
    let before = scene.run(&["diff", "other", "--json"]).exits(0).stdout;
    scene.write("p/package.yaml", "package: p\nversion: 1\nsteps: [{sql: 1.sql}]\n");
    scene.write("p/1.sql", "INSERT INTO many VALUES (3)");
    scene.run(&["deploy", "p"]).exits(0);
    scene.run(&["undo"]).exits(0);
    assert_eq!(scene.run(&["diff", "other", "--json"]).exits(0).stdout, before);
    scene.refused(&["diff", "nowhere"], 2);
}
