//! What the databases' own tools do on a backup's behalf: what they keep, where they end, and what they say.

use std::path::Path;

use backout_testkit::{mariadb, postgres};

use crate::backup::restic;
use crate::backup_rights::{BACKUP, on_mariadb, on_postgres};
use crate::record::sh;
use crate::scene::{Ran, Scene};

/// The same with `bin/TOOL` of the scene in place of the real one.
fn with_tool(scene: &Scene, tool: &str, script: &str, words: &[&str]) -> Ran {
    scene.write(&format!("bin/{tool}"), format!("#!/bin/sh\n{script}\n"));
    sh(&scene.path(""), &format!("chmod 755 bin/{tool}"));
    let path = format!("{}:/usr/bin:/bin", scene.path("bin").display());
    Ran::of(words, scene.command(words).env("PATH", path).env("SECRET", "pg  S3cret").output().unwrap())
}

const VERSIONED: &str = "CREATE TABLE t (a INT PRIMARY KEY, v TEXT, f FLOAT) WITH SYSTEM VERSIONING;
    INSERT INTO t VALUES (1, 'one', 0.123456789); UPDATE t SET v = 'two'; INSERT INTO t VALUES (2, 'gone', 1); DELETE FROM t WHERE a = 2;
    CREATE TABLE k (v TEXT) WITH SYSTEM VERSIONING; INSERT INTO k VALUES ('x'), ('x'); UPDATE k SET v = 'y';";

#[test]
fn the_history_of_versioned_tables_comes_back() {
    let database = mariadb::Server::shared().database();
    let scene = on_mariadb(&database, VERSIONED);
    let history = "SELECT a, v, row_start, row_end FROM t FOR SYSTEM_TIME ALL ORDER BY row_start, row_end;
        SELECT v, row_start, row_end FROM k FOR SYSTEM_TIME ALL ORDER BY row_start, row_end";
    let before = database.script(history);
    assert_eq!(before.lines().count(), 7, "{before}");
    scene.run(&["backup"]).exits(0).says("table t: its FLOATs keep six digits");
    database.script("UPDATE t SET v = 'three'; DROP TABLE k;");
    scene.run(&["restore", "--yes"]).exits(0);
    assert_eq!(database.script(history), before);
    database.script(&format!(
        "GRANT CREATE, DROP ON *.* TO {0}@localhost; GRANT ALL ON `backout_verify%`.* TO {0}@localhost",
        database.name
    ));
    scene.run(&["verify", "--backup"]).exits(0).answers("note   backup: table t: its FLOATs keep six digits");
}

#[test]
fn history_that_no_tool_keeps_is_said_to_be_lost() {
    let database = mariadb::Server::shared().database();
    let numbered = "CREATE TABLE n (a INT PRIMARY KEY, s BIGINT UNSIGNED GENERATED ALWAYS AS ROW START,
        e BIGINT UNSIGNED GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING ENGINE=InnoDB;";
    let scene = on_mariadb(&database, &format!("{VERSIONED}{numbered}"));
    let said = "the history of the tables with SYSTEM VERSIONING (";
    scene.run(&["backup"]).exits(0).says(said).says("numbers of transactions (n)");
    scene.run(&["verify", "--backup"]).answers(said);
    restic(&scene.path(""), &["dump", "latest", "/site.json"]).exits(0).answers(said);
    scene.run(&["restore", "--yes"]).exits(0);
    // A tool from before it could.
    let database = mariadb::Server::shared().database();
    let scene = on_mariadb(&database, VERSIONED);
    let old = "case \"$*\" in *--help*) echo old;; *) exec /usr/bin/mariadb-dump \"$@\";; esac";
    with_tool(&scene, "mariadb-dump", old, &["backup"]).exits(0).says(said).says("knows no --dump-history");
}

#[test]
fn a_dump_that_is_cut_off_is_no_backup() {
    let maria = mariadb::Server::shared().database();
    let pg = postgres::Server::shared().database();
    for (scene, tool) in
        [(on_mariadb(&maria, "CREATE TABLE t (a INT PRIMARY KEY);"), "mariadb-dump"), (on_postgres(&pg, ""), "pg_dump")]
    {
        let cut = format!("/usr/bin/{tool} \"$@\" | head -n 12; exit 0");
        for words in [&["backup"][..], &["deploy", "more"]] {
            let ran = with_tool(&scene, tool, &cut, words).exits(4).closes("Nothing was changed.");
            ran.says("is not a whole dump");
        }
        assert_eq!(scene.run(&["backup", "--list"]).exits(0).stdout, "");
    }
}

#[test]
fn a_password_that_a_tool_says_is_not_told() {
    let database = postgres::Server::shared().database();
    let scene = on_postgres(&database, "");
    let server = database.server();
    let url = format!(
        "postgresql://{0}:${{SECRET}}@/{0}?host={1}&port={2}",
        database.name,
        server.socket().display(),
        server.port()
    );
    scene.write("site.yaml", format!("site: shop\ndatabases:\n  main: {{url: \"{url}\"}}\n{BACKUP}"));
    let tells = "echo \"connection failed: password=$PGPASSWORD host=x\" >&2; exit 1";
    let ran = with_tool(&scene, "pg_dump", tells, &["deploy", "more"]).exits(4);
    ran.says("connection failed: password=… host=x");
    let left = sh(&scene.path(""), "grep -rla S3cret .backout || true");
    assert_eq!(left, "");
}

#[test]
fn copies_are_laid_neither_into_a_root_nor_among_what_the_tool_keeps() {
    let scene = Scene::new();
    scene.write("site.yaml", format!("{}{BACKUP}", crate::scene::SITE));
    scene.write("password", "x");
    scene.run(&["backup"]).exits(0);
    std::os::unix::fs::symlink("web", scene.path("link")).unwrap();
    for into in ["web/look", "web/a/../look", "link/look", "away/../web/look", ".backout/look", ".backout/backups/look"]
    {
        scene.refused(&["restore", "--into", into], 2).says("lies in the ");
        assert!(!scene.path(into).exists() && !Path::new(&scene.path("away")).exists(), "{into}");
    }
    scene.run(&["restore", "--into", "look"]).exits(0);
}

#[test]
fn doctor_says_that_nobody_undoes_after_a_reboot() {
    let scene = Scene::new();
    scene
        .run(&["doctor"])
        .exits(0)
        .answers("note   confirm: after a reboot nobody undoes a deployment that was not confirmed");
}

/// What a restore gave up is not said to be left once all of it was restored.
#[test]
fn a_restore_of_everything_leaves_nothing_of_what_it_gave_up() {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", format!("{}{BACKUP}", crate::scene::SITE));
    scene.write("password", "x");
    scene.run(&["deploy", "winter"]).exits(0);
    let winter = scene.latest();
    // First a part of it, then the rest.
    scene.run(&["restore", &winter, "--root", "web", "--yes"]).exits(0);
    scene.package("more", "steps:\n  - sql: x.sql\n");
    scene.write("more/x.sql", "DELETE FROM product WHERE id = 1");
    scene.run(&["deploy", "more"]).exits(0);
    let ran = scene.run(&["undo"]).exits(0);
    ran.answers(&format!("before its first deployment, except for what is left of {winter}"));
    scene.run(&["restore", &winter, "--yes"]).exits(0);
    scene.run(&["deploy", "more"]).exits(0);
    let ran = scene.run(&["undo"]).exits(0).answers("the site is now as it was before its first deployment");
    assert!(!ran.stdout.contains("except"), "{ran}");
    // A command may have done anything anywhere.
    scene.package("runs", "steps:\n  - run: [\"true\"]\n    undo: [\"true\"]\n");
    scene.run(&["deploy", "runs"]).exits(0);
    let runs = scene.latest();
    scene.run(&["restore", &runs, "--yes"]).exits(0);
    scene.run(&["deploy", "more"]).exits(0);
    scene.run(&["undo"]).exits(0).answers(&format!("except for what commands of {runs} did elsewhere"));
}
