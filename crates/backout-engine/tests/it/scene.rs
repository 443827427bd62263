//! The site that most tests deploy to: a small shop with products, orders that point at them, and a web root.

use backout_engine::outcome::Outcome;
use backout_testkit::package::{Pkg, files, sql};
use backout_testkit::site::{Builder, TestSite};
use backout_testkit::tree::Tree;

pub const SCHEMA: &str = "
    CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price INTEGER NOT NULL, stock INTEGER);
    INSERT INTO product VALUES (1, 'coat', 100, 5), (2, 'hat', 20, 9), (3, 'scarf', 15, NULL);
    CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, product INTEGER REFERENCES product (id), amount INTEGER);
    INSERT INTO orders (product, amount) VALUES (1, 1), (2, 3);
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
    INSERT INTO settings VALUES ('schema', '41'), ('theme', 'autumn');
";

pub fn web() -> Tree {
    Tree::new()
        .file("index.php", "<?php // autumn")
        .file("theme/style.css", "body {}")
        .file("theme/old.css", "old {}")
        .link("current", "theme")
        .dir("uploads")
        .file("uploads/photo.jpg", "a photo")
}

pub fn builder() -> Builder {
    TestSite::builder().database("main", SCHEMA).root("web", web()).keep(&["uploads"])
}

pub fn shop() -> TestSite {
    builder().build()
}

/// Two steps that work: prices and the start page.
pub fn winter() -> Pkg {
    Pkg::new("winter").step(raise()).step(page("winter"))
}

pub fn raise() -> backout_testkit::package::Step {
    sql("UPDATE product SET price = price + 10; INSERT INTO product VALUES (4, 'sledge', 80, 2);")
}

pub fn page(season: &str) -> backout_testkit::package::Step {
    files(Tree::new().file("index.php", format!("<?php // {season}")).file(&format!("{season}/new.txt"), "new"))
}

/// A step that fails after it has changed something.
pub fn broken() -> backout_testkit::package::Step {
    sql("UPDATE product SET stock = 0; INSERT INTO nowhere VALUES (1);")
}

/// A step that only ever fails while it runs: the plan finds nothing wrong with it.
pub fn late_failure() -> backout_testkit::package::Step {
    sql("UPDATE product SET stock = 0; INSERT INTO product (id, name, price) VALUES (1, 'a second coat', 1);")
}

/// How many notes an outcome has, but for the one that no backup was taken: these sites name no place for any.
pub fn told(outcome: &Outcome) -> usize {
    outcome.notes.iter().filter(|note| !note.starts_with("no backup was taken")).count()
}
