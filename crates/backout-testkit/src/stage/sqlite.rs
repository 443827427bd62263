//! The stage on SQLite: two databases and two roots with what a real site has.

use serde_json::json;

use super::{flag, with_database};
use crate::package::{Pkg, child, delete, files, sql, sql_is};
use crate::site::{TestSite, memory};
use crate::tree::{Node, Tree};

const MAIN: &str = "
    CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT UNIQUE, price INTEGER NOT NULL, stock INTEGER);
    CREATE INDEX by_price ON product (price);
    INSERT INTO product VALUES (1, 'coat', 100, 5), (2, 'hat', 20, 9), (3, 'scarf', 15, NULL);
    CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, product INTEGER REFERENCES product (id), amount INTEGER);
    INSERT INTO orders (product, amount) VALUES (1, 1), (2, 3);
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
    INSERT INTO settings VALUES ('schema', '41'), ('theme', 'autumn');
    CREATE TABLE audit (what, price);
    CREATE TRIGGER watch AFTER UPDATE ON product BEGIN INSERT INTO audit VALUES (new.name, new.price); END;
    INSERT INTO audit VALUES ('coat', 90), ('coat', 90);
    CREATE TABLE gone (a INTEGER UNIQUE, b TEXT);
    CREATE INDEX gone_b ON gone (b);
    INSERT INTO gone VALUES (1, 'one'), (2, x'0102'), (NULL, 3.5);
    CREATE TABLE rebuilt (id INTEGER PRIMARY KEY, title TEXT, worn);
    CREATE INDEX rebuilt_title ON rebuilt (title);
    CREATE TRIGGER rebuilt_watch AFTER DELETE ON rebuilt BEGIN INSERT INTO audit VALUES ('rebuilt', old.id); END;
    INSERT INTO rebuilt VALUES (3, 'three', 1), (7, 'seven', NULL);
    CREATE TABLE wide (id INTEGER PRIMARY KEY, keep_me, drop_me TEXT);
    INSERT INTO wide VALUES (1, 'a', 'x'), (2, 'b', 'y');
    CREATE TABLE bulk (n INTEGER PRIMARY KEY, text TEXT);
    WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 60)
        INSERT INTO bulk SELECT n, 'row ' || n FROM counted;
    CREATE VIEW cheap AS SELECT * FROM product WHERE price < 50;
";
const LOG: &str = "CREATE TABLE line (text); INSERT INTO line VALUES ('first');";

/// Two databases and two roots with what a real site has.
pub fn site() -> TestSite {
    let web = Tree::new()
        .file("index.php", "<?php // autumn")
        .file("theme/style.css", "body {}")
        .file("theme/old.css", "old {}")
        .node("bin/tool", Node::File { content: b"#!/bin/sh".to_vec(), mode: 0o755 })
        .same("theme/twin.css", "theme/style.css")
        .link("current", "theme")
        .link("stale", "nowhere")
        .dir("empty")
        .file("old/a.txt", "a")
        .file("old/deep/b.txt", "b")
        .file("uploads/photo.jpg", "a photo");
    let assets = Tree::new().file("one.js", "1").file("two.js", "2").file("lib/three.js", "3").dir("lib/empty");
    TestSite::builder()
        .database("main", MAIN)
        .database("log", LOG)
        .root("web", web)
        .keep(&["uploads"])
        .root("assets", assets)
        .maintenance("touch closed", "rm -f closed")
        .below(memory())
        .build()
}

/// Two levels of children; every kind of step, of statement and of change of a file.
pub fn package() -> Pkg {
    let images = Pkg::new("images")
        .step(
            sql("CREATE TABLE rebuilt_new (id INTEGER PRIMARY KEY, title TEXT NOT NULL, size INTEGER DEFAULT 1);
                 INSERT INTO rebuilt_new (id, title) SELECT id, title FROM rebuilt;
                 DROP TABLE rebuilt;
                 ALTER TABLE rebuilt_new RENAME TO rebuilt;
                 CREATE INDEX rebuilt_title ON rebuilt (title);
                 UPDATE rebuilt SET size = id * 2;")
            .with("database", "main"),
        )
        .step(flag("flag-images"))
        .step(delete(["theme/old.css", "old/"]).with("root", "web"));
    let content = Pkg::new("content")
        .before(json!({ "sql": "SELECT count(*) FROM extra", "database": "main", "equals": "1" }))
        .step(
            sql(
                "UPDATE product SET price = price + 1;
                 INSERT INTO product VALUES (4, 'sledge', 80, 2);
                 INSERT INTO orders (product, amount) SELECT id, 1 FROM product;
                 DELETE FROM audit WHERE price = 90;
                 REPLACE INTO settings VALUES ('theme', 'winter');
                 INSERT INTO settings VALUES ('schema', '42') ON CONFLICT (name) DO UPDATE SET value = excluded.value;",
            )
            .with("database", "main"),
        )
        .step(
            files(Tree::new().file("one.js", "one").file("lib/four.js", "4").dir("made"))
                .with("root", "assets")
                .with("exact", true),
        )
        .step(child(images))
        .step(sql("INSERT INTO line VALUES ('content')").with("database", "log"));
    let page = Tree::new()
        .file("index.php", "<?php // winter")
        .node("bin/tool", Node::File { content: b"#!/bin/bash".to_vec(), mode: 0o700 })
        .file("winter/a.txt", "a")
        .file("winter/deep/b.txt", "b")
        .same("winter/deep/c.txt", "winter/deep/b.txt")
        .link("current", "winter")
        .dir("winter/empty");
    Pkg::new("all")
        .step(
            sql("CREATE TABLE extra (id INTEGER PRIMARY KEY AUTOINCREMENT, note TEXT);
                 INSERT INTO extra (note) VALUES ('made');
                 CREATE INDEX extra_note ON extra (note);
                 ALTER TABLE wide ADD COLUMN added INTEGER DEFAULT 7;
                 UPDATE wide SET added = 8 WHERE id = 2;
                 CREATE TRIGGER extra_watch AFTER INSERT ON extra BEGIN UPDATE wide SET added = new.id; END;
                 INSERT INTO extra (note) VALUES ('again');
                 DELETE FROM extra WHERE id = 1;")
            .with("database", "main"),
        )
        .step(files(page).with("root", "web"))
        .step(child(content))
        .step(
            sql("DROP TABLE gone; DROP VIEW cheap; DROP INDEX by_price; DELETE FROM bulk;
                 ALTER TABLE wide DROP COLUMN drop_me; DROP TRIGGER watch; PRAGMA user_version = 42;")
            .with("database", "main"),
        )
        .step(flag("flag-all"))
        .step(sql("UPDATE line SET text = 'last' WHERE text = 'first'").with("database", "log"))
        .step(delete(["stale", "empty/"]).with("root", "web"))
        .after(with_database(sql_is("SELECT count(*) FROM bulk", 0)))
        .after(json!({ "file": "winter/a.txt", "root": "web", "contains": "a" }))
        .finally("touch \"$BACKOUT_ROOT_WEB/../cache\"")
}
