//! Changes of the schema, each of which commits by itself: deployed to what the stock client makes of them, undone to
//! the same text and rows, done again; and a chain of which one fails.

use backout_engine::outcome::Status;
use backout_model::fault::Point;
use backout_testkit::faults::{Fault, play};
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::Server;
use backout_testkit::mariadb_dump;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;

pub const BASE: &str = "
    CREATE TABLE shelf (id int AUTO_INCREMENT PRIMARY KEY, name varchar(20) COLLATE utf8mb4_general_ci NOT NULL DEFAULT 'x' COMMENT 'it''s, a `name`',
        kept float, n decimal(9,3), day date, moved timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
        twice int AS (id * 2) VIRTUAL, inv int INVISIBLE DEFAULT 5, KEY by_name (name, n), UNIQUE KEY u (kept), CONSTRAINT positive CHECK (inv > 0)) ENGINE=InnoDB CHARSET=utf8mb4 COMMENT='shelves';
    INSERT INTO shelf (id, name, kept, n, day, moved, inv) VALUES (1, 'é', 16777216, 1.5, '2020-01-01', '2001-02-03 04:05:06.789', 7), (2, 'b', 1e-40, NULL, NULL, '2001-02-03 04:05:06', NULL), (9, 'c', NULL, 3, '1999-12-31', '2001-02-03 04:05:06', 1);
    CREATE TABLE book (id int PRIMARY KEY, shelf int, title text, CONSTRAINT on_shelf FOREIGN KEY (shelf) REFERENCES shelf (id) ON DELETE CASCADE) ENGINE=InnoDB CHARSET=utf8mb4;
    INSERT INTO book VALUES (1, 1, 'one'), (2, 1, 'two'), (3, 2, NULL);
    CREATE TABLE plain (a int AUTO_INCREMENT PRIMARY KEY, b varchar(9), c tinyint) ENGINE=InnoDB CHARSET=latin1;
    INSERT INTO plain (b, c) VALUES ('x', 1), ('y', 2), ('z', NULL);
    CREATE TABLE loose (a int) ENGINE=InnoDB; INSERT INTO loose VALUES (1), (1);
    CREATE VIEW v AS SELECT id, name FROM shelf WHERE id > 1; CREATE VIEW w AS SELECT id FROM v;
    CREATE TABLE watched (a int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO watched VALUES (1); CREATE TRIGGER r BEFORE INSERT ON watched FOR EACH ROW SET @a = 1;";

pub const SCRIPTS: &[&str] = &[
    "CREATE TABLE made (id int AUTO_INCREMENT PRIMARY KEY, b int, FOREIGN KEY (b) REFERENCES shelf (id)) ENGINE=InnoDB; INSERT INTO made (b) VALUES (1), (2);",
    "CREATE TABLE copy AS SELECT a, b FROM plain; CREATE TABLE IF NOT EXISTS plain (x int); CREATE TABLE twin LIKE plain;",
    "DROP TABLE book; DROP TABLE IF EXISTS nothing, plain;",
    "SET foreign_key_checks = 0; DROP TABLE shelf; INSERT INTO book VALUES (9, 77, 'nine'); CREATE TABLE shelf (id int PRIMARY KEY) ENGINE=InnoDB; SET foreign_key_checks = 1; INSERT INTO shelf VALUES (5); INSERT INTO book VALUES (10, 5, 'ten');",
    "SET foreign_key_checks = 0; DROP TABLE shelf; UPDATE book SET title = 'at nothing'; ALTER TABLE book DROP FOREIGN KEY on_shelf;",
    "DROP TABLE book, shelf; CREATE TABLE shelf (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO shelf VALUES (1);",
    "SET foreign_key_checks = 0; DROP TABLE shelf; CREATE TABLE shelf (id int PRIMARY KEY, w int DEFAULT 7) ENGINE=InnoDB; INSERT INTO shelf (id) VALUES (1), (2), (5); SET foreign_key_checks = 1; INSERT INTO book VALUES (4, 5, 'five');",
    "SET foreign_key_checks = 0; DROP TABLE book; CREATE TABLE book (id int PRIMARY KEY, shelf int, FOREIGN KEY (shelf) REFERENCES shelf (id)) ENGINE=InnoDB; INSERT INTO book VALUES (1, 5); DROP TABLE shelf; CREATE TABLE shelf (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO shelf VALUES (5);",
    "SET foreign_key_checks = 0; DROP TABLE shelf; CREATE TABLE shelf (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO shelf VALUES (1), (5); DROP TABLE book; CREATE TABLE book (id int PRIMARY KEY, shelf int, FOREIGN KEY (shelf) REFERENCES shelf (id)) ENGINE=InnoDB; INSERT INTO book VALUES (1, 5);",
    "DROP TABLE loose;",
    "TRUNCATE TABLE plain; INSERT INTO plain (b) VALUES ('new');",
    "TRUNCATE loose;",
    "ALTER TABLE plain ADD d varchar(9) NOT NULL DEFAULT ''; ALTER TABLE plain ALTER d DROP DEFAULT; UPDATE plain SET d = b WHERE b IS NOT NULL;",
    "ALTER TABLE book DROP FOREIGN KEY on_shelf, DROP KEY on_shelf; UPDATE book SET shelf = 77 WHERE id = 1; DELETE FROM shelf WHERE id = 2;",
    "ALTER TABLE book ADD FOREIGN KEY (id) REFERENCES plain (a), DROP CONSTRAINT on_shelf;",
    "ALTER TABLE plain ADD up int, ADD CONSTRAINT above FOREIGN KEY (up) REFERENCES plain (a) ON DELETE SET NULL; UPDATE plain SET up = 1; DELETE FROM plain WHERE a = 1;",
    "ALTER TABLE plain AUTO_INCREMENT = 50; INSERT INTO plain (b) VALUES ('fifty'); ALTER TABLE plain RENAME TO simple; ALTER TABLE simple DISABLE KEYS;",
    "LOCK TABLES plain WRITE; INSERT INTO plain (b) VALUES ('locked'); UNLOCK TABLES; ALTER TABLE shelf DROP CONSTRAINT positive;",
    "CREATE TABLE new LIKE plain; INSERT INTO new SELECT * FROM plain; RENAME TABLE plain TO old, new TO plain; DELETE FROM plain WHERE a = 2;",
    "CREATE OR REPLACE TABLE plain AS SELECT a, twice FROM (SELECT 1 AS a, 2 AS twice) AS x; CREATE OR REPLACE TABLE fresh (a int);",
    "RENAME TABLE shelf TO rack, plain TO simple; INSERT INTO simple (b) VALUES ('q'); UPDATE rack SET name = 'z' WHERE id = 1;",
    "CREATE OR REPLACE VIEW v AS SELECT id FROM shelf; CREATE VIEW z AS SELECT 1 AS a; DROP VIEW w;",
    "CREATE OR REPLACE VIEW z AS SELECT b FROM plain; DROP VIEW IF EXISTS v, nothing;",
    "ALTER TABLE plain ADD COLUMN d int NOT NULL DEFAULT 7 AFTER a, ADD KEY by_b (b); UPDATE plain SET d = a, b = 'w' WHERE a < 3;",
    "UPDATE plain SET c = 9 WHERE a = 1; ALTER TABLE plain DROP COLUMN c; INSERT INTO plain (b) VALUES ('p'); DELETE FROM plain WHERE a = 2;",
    "ALTER TABLE shelf DROP COLUMN name, DROP KEY by_name;",
    "ALTER TABLE shelf MODIFY kept double, MODIFY n int, DROP COLUMN day;",
    "ALTER TABLE plain CHANGE b text varchar(40) CHARACTER SET utf8mb4 NOT NULL DEFAULT 'none' FIRST, COMMENT = 'now with one';",
    "ALTER TABLE plain RENAME COLUMN b TO bee, ALTER COLUMN c SET DEFAULT 3;",
    "ALTER TABLE plain MODIFY a bigint AUTO_INCREMENT, MODIFY c int; INSERT INTO plain (b, c) VALUES ('big', 70000);",
    "ALTER TABLE plain CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;",
    "CREATE UNIQUE INDEX ub ON plain (b DESC); CREATE INDEX c ON plain (c); DROP INDEX c ON plain; DROP INDEX by_name ON shelf;",
    "ALTER TABLE shelf DROP INDEX u, DROP INDEX by_name, ADD INDEX by_name (name), ADD FULLTEXT KEY words (name);",
    "ALTER TABLE plain ADD CONSTRAINT small CHECK (c < 10), ADD CONSTRAINT up FOREIGN KEY (c2) REFERENCES shelf (id), ADD COLUMN c2 int;",
    "ALTER TABLE plain ENGINE=InnoDB; ANALYZE TABLE plain; ALTER TABLE plain ROW_FORMAT=COMPRESSED;",
    "SET foreign_key_checks = 0; ALTER TABLE book ADD COLUMN extra json; SET foreign_key_checks = 1; UPDATE book SET extra = '[1]' WHERE id = 1;",
    "CREATE TABLE a (id int PRIMARY KEY) ENGINE=InnoDB; ALTER TABLE a ADD b int; INSERT INTO a VALUES (1, 2); ALTER TABLE a DROP b; RENAME TABLE a TO b; DROP TABLE b;",
    "ALTER TABLE loose ADD b int; ALTER TABLE IF EXISTS nothing ADD c int; ALTER TABLE watched ADD b int;",
];

#[test]
fn a_change_of_the_schema_is_done_undone_and_done_again() {
    go_there_and_back(BASE, SCRIPTS);
}

pub fn go_there_and_back(base: &str, scripts: &[&str]) {
    go_there_and_back_on(Server::shared(), base, scripts);
}

/// Deploys each script to what the stock client makes of it, undoes it, does it again and undoes that.
pub fn go_there_and_back_on(server: &'static Server, base: &str, scripts: &[&str]) {
    let mut failures = Vec::new();
    for script in scripts {
        let site = TestSite::builder().mariadb("main", server, base).build();
        let plain = server.database();
        plain.script(base);
        let before = Fingerprint::of(&site);
        let mut compare = |what: &str, found: Vec<String>| {
            if !found.is_empty() {
                failures.push(format!("{script}\n  {what}: {}", found.join("\n    ")));
            }
        };
        let done = site.deploy(&Pkg::new("p").step(sql(*script)));
        if done.status() != Status::Done {
            compare("deploy", vec![format!("{done:?}")]);
            continue;
        }
        let after = Fingerprint::of(&site);
        plain.script(script);
        let stock = mariadb_dump::read(&plain);
        let live = mariadb_dump::read(site.mariadb("main").unwrap());
        let differing: Vec<String> = live
            .iter()
            .filter(|(name, line)| stock.get(*name) != Some(line))
            .map(|(name, line)| format!("{name}: {line}"))
            .chain(stock.keys().filter(|name| !live.contains_key(*name)).map(|name| format!("{name} is missing")))
            // What moves by the clock, and the database's own name in views.
            .filter(|line| !line.contains("row rack") && !line.contains("view "))
            .collect();
        compare("deployed", differing);
        for round in 0..2 {
            let undone = site.undo(None);
            if undone.status() != Status::Done {
                compare("undo", vec![format!("{undone:?}")]);
                break;
            }
            compare("undone", before.differences(&Fingerprint::of(&site)));
            if round == 0 {
                let redone = site.redo();
                if redone.status() != Status::Done {
                    compare("redo", vec![format!("{redone:?}")]);
                    break;
                }
                compare("redone", after.differences(&Fingerprint::of(&site)));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn of_ten_alters_the_eighth_fails_and_nothing_is_left() {
    let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
    let before = Fingerprint::of(&site);
    let alters = [
        "ADD c1 int",
        "DROP COLUMN c",
        "MODIFY b text",
        "ADD KEY (c1)",
        "COMMENT = 'x'",
        "ADD c2 int DEFAULT 5",
        "CHANGE b bee varchar(99)",
        "ADD UNIQUE KEY no (c2)",
        "ADD c3 int",
        "ADD c4 int",
    ];
    let script: String =
        alters.iter().map(|clauses| format!("ALTER TABLE plain {clauses}; UPDATE plain SET a = a;\n")).collect();
    let done = site.deploy(&Pkg::new("p").step(sql(script)));
    assert_eq!(done.status(), Status::Failed, "{done:?}");
    assert!(format!("{done:?}").contains("Duplicate entry"), "{done:?}");
    before.assert_same(&Fingerprint::of(&site), "failed");
    let own = mariadb_dump::own_objects(site.mariadb("main").unwrap());
    assert_eq!(own, ["backout_shop", "backout_shop$segment"]);
}

/// As every dump has it: a table with rows that others point at is dropped, made and filled again.
#[test]
fn a_table_whose_making_was_interrupted_goes_again() {
    let package = Pkg::new("p").step(sql("CREATE TABLE made (id int AUTO_INCREMENT PRIMARY KEY, v int, UNIQUE (v));"));
    let site = || TestSite::builder().mariadb("main", Server::shared(), "").build();
    let playing = play(Fault::None, false);
    site().deploy(&package).expect(Status::Done);
    let seen = playing.seen();
    drop(playing);
    let made = seen.iter().position(|point| *point == Point::Statement).unwrap();
    let mut open = 0;
    for at in made + 1..=seen.len() {
        let site = site();
        let before = Fingerprint::of(&site);
        let playing = play(Fault::CrashAt(at), false);
        let done = site.deploy(&package);
        assert!(playing.struck(), "{at}: {done:?}");
        drop(playing);
        site.bury_the_dead();
        let Some(ended) = site.resume().result.unwrap() else { continue };
        assert_eq!(ended.status, Status::Failed, "{at}: {ended:?}");
        before.assert_same(&Fingerprint::of(&site), &format!("{at}"));
        open += 1;
    }
    assert!(open > 1, "{seen:?}");
}

#[test]
fn a_table_that_others_point_at_comes_back_when_a_later_statement_fails() {
    let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
    let before = Fingerprint::of(&site);
    let done = site.deploy(&Pkg::new("p").step(sql(format!("{AS_A_DUMP} CREATE TABLE plain (x int);"))));
    assert_eq!(done.status(), Status::Failed, "{done:?}");
    before.assert_same(&Fingerprint::of(&site), "failed");
    // What points at a row that only the new table has would point at nothing.
    is_a_conflict(BASE, AS_A_DUMP, "INSERT INTO book VALUES (7, 5, 'theirs')", "shelf = 5 is not in shelf");
}

const AS_A_DUMP: &str = "SET foreign_key_checks = 0; DROP TABLE shelf; CREATE TABLE shelf (id int PRIMARY KEY, w int DEFAULT 7) ENGINE=InnoDB;
    INSERT INTO shelf (id) VALUES (1), (2), (5); SET foreign_key_checks = 1;";

/// What others did after a script stops its undo, which says why and changes nothing.
pub fn is_a_conflict(base: &str, script: &str, others: &str, why: &str) {
    let site = TestSite::builder().mariadb("main", Server::shared(), base).build();
    site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
    site.mariadb("main").unwrap().script(others);
    let state = Fingerprint::of(&site);
    let done = site.undo(None);
    assert_eq!(done.status(), Status::Refused, "{script}: {done:?}");
    assert!(format!("{done:?}").contains(why), "{script}: {done:?}");
    state.assert_same(&Fingerprint::of(&site), script);
}

#[test]
fn what_others_did_to_the_schema_is_a_conflict() {
    for (script, others, why) in [
        ("CREATE TABLE made (a int PRIMARY KEY) ENGINE=InnoDB;", "INSERT INTO made VALUES (1)", "now holds rows"),
        (
            "CREATE TABLE made (a int PRIMARY KEY) ENGINE=InnoDB;",
            "ALTER TABLE made ADD b int",
            "definition was changed",
        ),
        ("DROP TABLE plain;", "CREATE TABLE plain (x int)", "the name is taken"),
        ("TRUNCATE plain;", "INSERT INTO plain VALUES (1, 'x', 1)", "now holds rows"),
        ("RENAME TABLE plain TO simple;", "CREATE TABLE plain (x int)", "the name is taken"),
        ("ALTER TABLE plain ADD d int;", "ALTER TABLE plain ADD e int", "definition was changed"),
        ("ALTER TABLE plain MODIFY b text;", "UPDATE plain SET b = 'theirs' WHERE a = 1", "now 1, theirs"),
        (
            "UPDATE plain SET b = 'ours' WHERE a = 2; ALTER TABLE plain ADD d int; UPDATE plain SET d = 1 WHERE a = 1;",
            "UPDATE plain SET b = 'theirs' WHERE a = 2",
            "left ours, now theirs",
        ),
    ] {
        is_a_conflict(BASE, script, others, why);
    }
}
