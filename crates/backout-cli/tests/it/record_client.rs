//! `tar` and the database's own client, and nothing of the tool's, take a deployment back from its record, as
//! `docs/record.md` says.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::scene::Scene;

fn sh(within: &Path, script: &str) -> Output {
    Command::new("sh").args(["-euc", script]).current_dir(within).output().unwrap()
}

#[track_caller]
fn done(output: &Output) {
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[track_caller]
fn stopped(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it went through: {said}");
    assert!(said.contains("no longer as the deployment left it"), "{said}");
}

/// Deploys `scripts`, one step each, writes the record and unpacks it with `tar`.
pub fn unpacked(scene: &Scene, scripts: &[&str]) {
    let mut steps = String::from("steps:\n");
    for (number, script) in scripts.iter().enumerate() {
        scene.write(&format!("change/{number}.sql"), script);
        steps.push_str(&format!("  - sql: {number}.sql\n"));
    }
    scene.package("change", &steps);
    scene.run(&["deploy", "change"]).exits(0);
    scene.run(&["record", "--output", "rec"]).exits(0);
    fs::create_dir(scene.path("r")).unwrap();
    done(&sh(&scene.path("."), "tar --zstd -xf rec -C r"));
}

const UNDO: &str = "sqlite3 shop.sqlite < r/sql/main/undo.sql";

#[test]
fn sqlite3_undoes_rows_of_every_kind() {
    let scene = Scene::new();
    scene.sql(
        "CREATE TABLE thing (a TEXT PRIMARY KEY COLLATE NOCASE, b REAL, c BLOB, d, u INTEGER UNIQUE);
         INSERT INTO thing VALUES ('it''s', 0.1, x'00ff', 1, 1), ('b', 1e300, NULL, 'x' || char(10) || ';', 2),
             ('c', 0.30000000000000004, x'', 2.0, 3), ('d', -1.5, 'text', char(97, 0, 98), 4);
         CREATE TABLE plain (x, y);
         INSERT INTO plain VALUES (1, 'a'), (1, 'a'), (NULL, 'c'), (3, 'd');
         CREATE TABLE paired (k INTEGER, l TEXT, v INTEGER, PRIMARY KEY (k, l)) WITHOUT ROWID;
         INSERT INTO paired VALUES (1, 'a', 10), (1, 'b', 20), (2, 'a', 30);
         CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, n INTEGER);
         INSERT INTO counted (n) VALUES (1), (2);
         CREATE TABLE told (what TEXT);
         CREATE TRIGGER tell AFTER UPDATE ON thing BEGIN INSERT INTO told VALUES ('thing ' || new.a); END;",
    );
    let before = scene.fingerprint();
    unpacked(
        &scene,
        &[
            "UPDATE thing SET b = b * 3, d = 1 WHERE a <> 'd';
             UPDATE thing SET u = u + 1000; UPDATE thing SET u = 1006 - u;
             UPDATE thing SET a = 'IT''S' WHERE a = 'it''s';
             DELETE FROM thing WHERE a = 'd';
             INSERT INTO thing VALUES ('new', 9.99999999999999999, zeroblob(3), -9223372036854775808, 77);",
            "UPDATE plain SET y = 'z' WHERE x = 1; DELETE FROM plain WHERE x IS NULL; INSERT INTO plain VALUES (9, 9.5);
             UPDATE paired SET k = k + 10 WHERE l = 'a'; DELETE FROM paired WHERE l = 'b'; INSERT INTO paired VALUES (7, 'q', 1);
             INSERT INTO counted (n) VALUES (3), (4); DELETE FROM counted WHERE id = 3; PRAGMA user_version = 5;
             UPDATE product SET price = price + 1; UPDATE product SET price = price * 2;",
        ],
    );
    assert_ne!(scene.fingerprint(), before);
    done(&sh(&scene.path("."), UNDO));
    assert_eq!(scene.fingerprint(), before);
    assert_eq!(scene.value("PRAGMA user_version"), 0.into());
    assert_eq!(scene.value("SELECT seq FROM sqlite_sequence WHERE name = 'counted'"), 2.into());
}

#[test]
fn sqlite3_undoes_changes_of_the_schema() {
    let scene = Scene::new();
    scene.sql(
        "CREATE TABLE big (id INTEGER PRIMARY KEY, t TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO big SELECT i, 'row ' || i FROM n;
         CREATE INDEX big_t ON big (t);
         CREATE VIEW cheap AS SELECT * FROM product WHERE price < 10;
         CREATE TRIGGER big_down AFTER DELETE ON big BEGIN SELECT 1; END;",
    );
    let before = scene.fingerprint();
    unpacked(
        &scene,
        &[
            "DROP VIEW cheap; DROP TABLE big; CREATE TABLE colour (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
           CREATE INDEX colour_name ON colour (name); INSERT INTO colour VALUES (1, 'snow'), (2, 'pine');
           CREATE TRIGGER paint AFTER INSERT ON colour BEGIN SELECT 1; END;
           ALTER TABLE product ADD COLUMN stock INTEGER NOT NULL DEFAULT 5; UPDATE product SET stock = 8 WHERE id = 1;",
        ],
    );
    done(&sh(&scene.path("."), UNDO));
    assert_eq!(scene.fingerprint(), before);
}

#[test]
fn sqlite3_stops_where_something_is_no_longer_as_it_was_left() {
    let changes = [
        "UPDATE product SET price = 7 WHERE id = 1",
        "DELETE FROM product WHERE id = 2",
        "UPDATE product SET name = 'shawl' WHERE id = 3",
        "INSERT INTO colour VALUES (3, 'ember')",
        "CREATE TRIGGER late AFTER UPDATE ON product BEGIN SELECT 1; END",
        "CREATE TABLE child (p REFERENCES product (id)); INSERT INTO child VALUES (3)",
    ];
    for change in changes {
        let scene = Scene::new();
        unpacked(
            &scene,
            &["CREATE TABLE colour (id INTEGER PRIMARY KEY, name TEXT);
               INSERT INTO product VALUES (3, 'scarf', 1900); UPDATE product SET price = price - 100 WHERE id < 3;"],
        );
        scene.sql(change);
        let left = scene.fingerprint();
        stopped(&sh(&scene.path("."), UNDO));
        assert_eq!(scene.fingerprint(), left, "{change}");
    }
    // Columns that only others changed keep their values, as in any undo.
    let scene = Scene::new();
    unpacked(&scene, &["UPDATE product SET price = price - 100"]);
    scene.sql("UPDATE product SET name = 'top hat' WHERE id = 1");
    done(&sh(&scene.path("."), UNDO));
    assert_eq!(scene.value("SELECT name || price FROM product WHERE id = 1"), "top hat2500".to_owned().into());
}

#[test]
fn what_no_script_can_take_back_is_said_and_refused() {
    let scene = Scene::new();
    unpacked(&scene, &["UPDATE product SET price = 1; ALTER TABLE product RENAME TO goods"]);
    let left = scene.fingerprint();
    let output = sh(&scene.path("."), UNDO);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no script: backout undo --record"), "{output:?}");
    assert_eq!(scene.fingerprint(), left);
    scene.run(&["inspect", "rec"]).exits(0).answers("undo.sql cannot run: line 1: name table goods product again");
    assert!(fs::read_to_string(scene.path("r/sql/main/executed.sql")).unwrap().contains("RENAME TO goods;"));
}

#[test]
fn tar_puts_files_back() {
    let scene = Scene::with_good_package();
    let before = scene.fingerprint();
    scene.run(&["deploy", "winter"]).exits(0);
    scene.run(&["record", "--output", "rec"]).exits(0);
    fs::create_dir(scene.path("r")).unwrap();
    done(&sh(&scene.path("."), "tar --zstd -xf rec -C r"));
    done(&sh(&scene.path("."), UNDO));
    // As docs/record.md tells it.
    let script = "for step in $(ls r/files/web | sort -rn); do
             (cd r/files/web/$step/after && find . ! -type d -print0 | tar --null -T - --xattrs -cf -) |
                 tar -C web --xattrs -df - || exit 1
             (cd web && sort -rz ../r/files/web/$step/made | xargs -0r rm -fd --)
             tar -C r/files/web/$step/before --xattrs -cf - . | tar -C web --xattrs --no-overwrite-dir -xpf -
         done";
    done(&sh(&scene.path("."), script));
    assert_eq!(scene.fingerprint(), before);
}
