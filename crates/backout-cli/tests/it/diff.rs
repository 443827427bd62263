//! In what two sites differ.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::site::TestSite;

use crate::backup::{run, tree, with_backup};
use crate::rehearse_servers::{MARIADB, POSTGRES, left, own_mariadb, own_postgres};
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

/// What a site has in difference to its backup, which is laid out for that and gone afterwards.
fn differs_from_its_backup(site: &TestSite, change: impl FnOnce()) {
    with_backup(site);
    run(site, &["backup"]).exits(0);
    run(site, &["diff", "--backup", "latest", "--exit-code"]).exits(0).answers("no difference");
    change();
    fs::write(site.root("web").join("index.html"), "<h1>Spring</h1>").unwrap();
    let before = Fingerprint::of(site);
    let ran = run(site, &["diff", ".", "--backup", "latest", "--exit-code"])
        .exits(5)
        .answers("database main: only in the first: ")
        .answers("2 on both sides, but not the same")
        .answers("root web: index.html: content");
    assert!(ran.stdout.contains("stock"), "{ran}");
    before.assert_same(&Fingerprint::of(site), "compared");
    assert_eq!(left(site), "", "{ran}");
    assert_eq!(fs::read_dir(site.state().join("rehearsals")).unwrap().count(), 0, "{ran}");
}

#[test]
fn a_site_on_sqlite_is_compared_with_its_backup() {
    let made =
        "CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO product VALUES (1, 'hat'), (2, 'shoe')";
    let site = TestSite::builder().database("main", made).root("web", tree()).build();
    differs_from_its_backup(&site, || {
        let change = "CREATE TABLE stock (a INTEGER); UPDATE product SET name = 'cap' WHERE id = 1";
        site.execute(change);
    });
}

const CHANGE: &str = "CREATE TABLE stock (a int); UPDATE product SET name = 'cap' WHERE id = 1;";

#[test]
fn a_site_on_postgres_is_compared_with_its_backup() {
    let site = TestSite::builder().postgres("main", own_postgres(), POSTGRES).root("web", tree()).build();
    differs_from_its_backup(&site, || {
        site.postgres("main").unwrap().psql(CHANGE);
    });
}

#[test]
fn a_site_on_mariadb_is_compared_with_its_backup() {
    let site = TestSite::builder().mariadb("main", own_mariadb(), MARIADB).root("web", tree()).build();
    differs_from_its_backup(&site, || {
        site.mariadb("main").unwrap().script(CHANGE);
    });
}

#[test]
fn what_a_backup_has_and_the_site_no_longer_names_is_told() {
    let scene = Scene::new();
    scene.refused(&["diff"], 2).says("<ONE>");
    scene.refused(&["diff", "--backup", "latest"], 2).says("no `backup:`");
    let named = scene.read("site.yaml");
    scene.write("site.yaml", format!("{named}backup: {{password-file: password}}\n"));
    scene.write("password", "correct horse");
    scene.refused(&["diff", "--backup", "latest"], 4).says("there is no backup of this site");
    scene.run(&["backup"]).exits(0);
    scene.refused(&["diff", "--backup", "zzz"], 2).says("no backup `zzz` of this site");
    scene.refused(&["diff", ".", ".", "--backup", "latest"], 2).says("cannot be used with");
    fs::create_dir(scene.path("more")).unwrap();
    scene.write("site.yaml", scene.read("site.yaml").replace("  web:\n    path: web", "  more:\n    path: more"));
    scene
        .run(&["diff", "--backup", "latest"])
        .exits(0)
        .answers("root more: only in the first: the root")
        .answers("root web: only in the second: the root");
}
