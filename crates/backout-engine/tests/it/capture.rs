//! Commands whose changes are captured: whatever they did to database and files goes back exactly, and comes again.

use backout_engine::outcome::Status;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, captured, captured_sql};
use backout_testkit::site::TestSite;

use crate::scene::shop;

/// Deploys, undoes, redoes and undoes again, and compares each time.
#[track_caller]
fn goes_and_comes(site: &TestSite, name: &str, package: &Pkg) {
    let before = Fingerprint::of(site);
    let done = site.deploy(package);
    assert_eq!(done.status(), Status::Done, "{name}: {done:?}");
    let after = Fingerprint::of(site);
    assert!(!before.differences(&after).is_empty(), "{name}: it did something");
    for _ in 0..2 {
        let done = site.undo(None);
        assert_eq!(done.status(), Status::Done, "{name}: {done:?}");
        before.assert_same(&Fingerprint::of(site), &format!("{name}: undone"));
        let done = site.redo();
        assert_eq!(done.status(), Status::Done, "{name}: {done:?}");
        after.assert_same(&Fingerprint::of(site), &format!("{name}: redone"));
    }
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(site), &format!("{name}: undone at last"));
    assert!(site.grave().is_empty(), "{name}: {:?}", site.grave());
}

#[test]
fn rows_go_back_and_come_again() {
    let site = shop();
    site.execute("CREATE TABLE log (what, n); INSERT INTO log VALUES ('a', 1), ('a', 1), ('b', 2.5), (x'00ff', NULL)");
    for sql in [
        "UPDATE product SET price = price + 1; INSERT INTO product VALUES (9, 'glove', 5, 1); DELETE FROM product WHERE id = 2",
        "INSERT INTO orders (product, amount) VALUES (1, 7); DELETE FROM orders WHERE id = 1",
        "UPDATE settings SET value = upper(value); DELETE FROM settings WHERE name = 'theme'; INSERT INTO settings VALUES ('new', 'x')",
        "DELETE FROM log WHERE rowid = 1; UPDATE log SET n = 2 WHERE what = 'b'; INSERT INTO log VALUES ('c', 1e300)",
        "DELETE FROM log; DELETE FROM orders; PRAGMA user_version = 7",
        "UPDATE product SET id = id + 100",
    ] {
        goes_and_comes(&site, sql, &Pkg::new("p").step(captured_sql(sql)));
    }
}

#[test]
fn definitions_go_back_and_come_again() {
    let site = shop();
    site.execute(
        "CREATE TABLE tag (name TEXT, UNIQUE (name)); INSERT INTO tag VALUES ('a'), ('b');
         CREATE INDEX tags ON tag (name DESC); CREATE VIEW dear AS SELECT * FROM product WHERE price > 50;
         CREATE TRIGGER told AFTER INSERT ON tag BEGIN UPDATE settings SET value = new.name WHERE name = 'theme'; END;
         CREATE TABLE big (id INTEGER PRIMARY KEY, text TEXT, n INTEGER GENERATED ALWAYS AS (length(text)) STORED);
         WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 3000)
         INSERT INTO big (id, text) SELECT i, hex(randomblob(20)) FROM c;
         CREATE VIRTUAL TABLE words USING fts5(text); INSERT INTO words VALUES ('one two'), ('three');
         ANALYZE;",
    );
    for sql in [
        "CREATE TABLE made (id INTEGER PRIMARY KEY AUTOINCREMENT, t UNIQUE); INSERT INTO made (t) VALUES (1), ('x'); CREATE INDEX mi ON made (t)",
        "DROP TABLE tag; DROP VIEW dear",
        "DROP TABLE big; DROP TABLE orders",
        "ALTER TABLE product ADD COLUMN colour TEXT DEFAULT 'red'; UPDATE product SET colour = 'blue' WHERE id = 2",
        "ALTER TABLE big RENAME COLUMN text TO words; ALTER TABLE tag RENAME TO label",
        "ALTER TABLE product DROP COLUMN stock; DROP INDEX tags; CREATE INDEX tags ON tag (name)",
        "DROP VIEW dear; CREATE VIEW dear AS SELECT id FROM product; DROP TRIGGER told; DELETE FROM tag",
        "CREATE TABLE new_tag (name TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID; INSERT INTO new_tag SELECT name, 0 FROM tag;
         DROP TABLE tag; ALTER TABLE new_tag RENAME TO tag",
        "CREATE VIRTUAL TABLE more USING fts5(a, b); INSERT INTO more VALUES ('x y', 'z'); DELETE FROM words WHERE text = 'three'",
        "DROP TABLE words; CREATE VIRTUAL TABLE words USING fts5(text, other); INSERT INTO words VALUES ('a', 'b')",
    ] {
        goes_and_comes(&site, sql, &Pkg::new("p").step(captured_sql(sql)));
    }
}

#[test]
fn vacuum_goes_back_and_comes_again() {
    let site = shop();
    site.execute(
        "CREATE TABLE log (what); INSERT INTO log VALUES ('a'), ('b'), ('c'); DELETE FROM log WHERE what = 'a';
         CREATE INDEX dear ON product (price); CREATE VIEW names AS SELECT name FROM product;
         CREATE TABLE tag (name TEXT UNIQUE); CREATE TABLE gone (x); CREATE TABLE last (x); ANALYZE;",
    );
    for sql in [
        "DELETE FROM product WHERE id = 1; ANALYZE; VACUUM",
        "DROP VIEW names; CREATE VIEW names AS SELECT name FROM product; VACUUM",
        "DROP TABLE gone; CREATE TABLE other (y UNIQUE); VACUUM",
        "ANALYZE; DELETE FROM sqlite_stat1 WHERE tbl = 'log'; REINDEX",
    ] {
        goes_and_comes(&site, sql, &Pkg::new("p").step(captured_sql(sql)));
    }
}

#[test]
fn files_go_back_and_come_again() {
    let site = shop();
    for script in [
        "echo new > made.txt; mkdir -p a/b; echo x > a/b/c; ln -s made.txt a/link",
        "echo more >> index.php",
        "printf '<?php // AUTUMN' > index.php; touch -d '2001-01-01' theme/style.css",
        "rm -r theme; rm current",
        "rm current; mkdir current; echo x > current/y; rm -r theme; echo was a directory > theme",
        "chmod 640 index.php; chmod 500 theme; ln index.php hard; mkfifo pipe",
        "touch theme/x; rm theme/x; mv theme/old.css theme/older.css",
        "rm index.php; ln -s nowhere index.php; setfattr -n user.note -v hello theme",
    ] {
        let step = captured(&format!("cd \"$BACKOUT_ROOT_WEB\" && {{ {script}; }}"));
        goes_and_comes(&site, script, &Pkg::new("p").step(step));
    }
}
