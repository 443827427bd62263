//! Tables that are emptied although foreign keys and triggers hang on them, and partitions: as the server's own way leaves
//! them, and back.

use backout_engine::outcome::Status;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::{Queryable as _, Server};
use backout_testkit::mariadb_dump;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;

use super::ddl::{go_there_and_back, is_a_conflict};
use super::rows::is_refused;

/// Counters stand behind rows that are gone.
const BASE: &str = "
    CREATE TABLE term (id int AUTO_INCREMENT PRIMARY KEY, name varchar(20) UNIQUE, up int, CONSTRAINT above FOREIGN KEY (up) REFERENCES term (id)) ENGINE=InnoDB;
    INSERT INTO term VALUES (1, 'one', NULL), (2, 'two', 1), (3, 'three', 2), (9, 'nine', NULL); DELETE FROM term WHERE id = 9;
    CREATE TABLE page (id int AUTO_INCREMENT PRIMARY KEY, term int, body text, CONSTRAINT of_term FOREIGN KEY (term) REFERENCES term (id) ON DELETE CASCADE) ENGINE=InnoDB;
    INSERT INTO page VALUES (1, 1, 'a'), (2, 3, 'b'), (7, 2, NULL); DELETE FROM page WHERE id = 7;
    CREATE TABLE audit (id int AUTO_INCREMENT PRIMARY KEY, what varchar(40)) ENGINE=InnoDB;
    CREATE TABLE watched (id bigint AUTO_INCREMENT PRIMARY KEY, f float) ENGINE=InnoDB; INSERT INTO watched VALUES (4, 16777216), (5, -0.0);
    CREATE TRIGGER w1 BEFORE DELETE ON watched FOR EACH ROW INSERT INTO audit (what) VALUES (CONCAT('first ', OLD.id));
    CREATE TRIGGER w2 BEFORE DELETE ON watched FOR EACH ROW INSERT INTO audit (what) VALUES ('second');
    CREATE TRIGGER w3 BEFORE INSERT ON watched FOR EACH ROW INSERT INTO audit (what) VALUES ('in');
    CREATE TABLE bare (id int AUTO_INCREMENT PRIMARY KEY) ENGINE=InnoDB AUTO_INCREMENT = 40; CREATE TRIGGER b1 AFTER INSERT ON bare FOR EACH ROW SET @b = 1;
    CREATE TABLE loose (a int) ENGINE=InnoDB; INSERT INTO loose VALUES (1), (1); CREATE TRIGGER l1 AFTER INSERT ON loose FOR EACH ROW SET @b = 1;";

const SCRIPTS: &[&str] = &[
    "TRUNCATE page;",
    "TRUNCATE TABLE page; INSERT INTO page (term, body) VALUES (3, 'new'), (2, 'newer');",
    "SET foreign_key_checks = 0; TRUNCATE term; SET foreign_key_checks = 1; UPDATE page SET body = 'at nothing';",
    "SET foreign_key_checks = 0; TRUNCATE term; INSERT INTO term (name) VALUES ('fresh'), ('two'); SET foreign_key_checks = 1;",
    "SET foreign_key_checks = 0; TRUNCATE page; TRUNCATE term; SET foreign_key_checks = 1; INSERT INTO term (name) VALUES ('first'); INSERT INTO page (term) VALUES (1);",
    "TRUNCATE watched; INSERT INTO watched (f) VALUES (1);",
    "BEGIN; UPDATE page SET body = 'mine' WHERE id = 1; TRUNCATE watched; TRUNCATE page; COMMIT; TRUNCATE page;",
    "TRUNCATE bare; INSERT INTO bare VALUES (NULL);",
    "INSERT INTO page (term) SELECT 1 FROM seq_1_to_2000; TRUNCATE page; INSERT INTO page (term) SELECT 1 FROM seq_1_to_3;",
    "TRUNCATE page; ALTER TABLE page ADD c int; TRUNCATE page; DROP TABLE page;",
];

#[test]
fn what_foreign_keys_and_triggers_hang_on_is_emptied_and_comes_back() {
    go_there_and_back(BASE, SCRIPTS);
}

/// One of each kind; rows in each partition, the counter behind them.
const PARTED: &str = "
    CREATE TABLE ranged (id int AUTO_INCREMENT, at int NOT NULL, note varchar(20), PRIMARY KEY (id, at)) ENGINE=InnoDB
        PARTITION BY RANGE (at) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20) COMMENT = 'second', PARTITION p2 VALUES LESS THAN (30));
    INSERT INTO ranged VALUES (1, 5, 'a'), (2, 15, 'b'), (3, 15, 'c'), (4, 25, 'd'), (40, 25, 'e'); DELETE FROM ranged WHERE id = 40;
    CREATE TABLE listed (id int PRIMARY KEY, b varchar(9)) ENGINE=InnoDB COMMENT 'by list' PARTITION BY LIST (id) (PARTITION l0 VALUES IN (1, 2), PARTITION l1 VALUES IN (3), PARTITION rest DEFAULT);
    INSERT INTO listed VALUES (1, 'x'), (2, 'y'), (3, 'z'), (9, 'w');
    CREATE TABLE hashed (id int PRIMARY KEY, b int) ENGINE=InnoDB PARTITION BY HASH (id) PARTITIONS 3; INSERT INTO hashed SELECT seq, seq FROM seq_1_to_20;
    CREATE TABLE whole (id int AUTO_INCREMENT PRIMARY KEY, b int) ENGINE=InnoDB; INSERT INTO whole (b) VALUES (1), (2), (3); DELETE FROM whole WHERE id = 3;
    CREATE TABLE audit (what varchar(9) PRIMARY KEY) ENGINE=InnoDB;
    CREATE TRIGGER gone BEFORE DELETE ON ranged FOR EACH ROW INSERT INTO audit VALUES (OLD.note);";

#[test]
fn partitions_that_come_go_and_lose_their_rows_come_back() {
    go_there_and_back(
        PARTED,
        &[
            "ALTER TABLE ranged ADD PARTITION (PARTITION p3 VALUES LESS THAN (40)); INSERT INTO ranged (at) VALUES (35);",
            "ALTER TABLE ranged DROP PARTITION p1; INSERT INTO ranged (at, note) VALUES (15, 'in the next');",
            "ALTER TABLE ranged DROP PARTITION IF EXISTS P0, p9, p2;",
            "ALTER TABLE ranged TRUNCATE PARTITION p2; INSERT INTO ranged (at) VALUES (1);",
            "ALTER TABLE ranged TRUNCATE PARTITION ALL; INSERT INTO ranged (at) VALUES (1);",
            "ALTER TABLE ranged REORGANIZE PARTITION p1, p2 INTO (PARTITION q VALUES LESS THAN (30)); UPDATE ranged SET note = 'q' WHERE id = 2;",
            "ALTER TABLE ranged REMOVE PARTITIONING; ALTER TABLE ranged ADD c int DEFAULT 5;",
            "ALTER TABLE ranged ADD d int, MODIFY note varchar(10) PARTITION BY KEY (id) PARTITIONS 2;",
            "ALTER TABLE listed DROP PARTITION l0, rest; ALTER TABLE listed COMMENT = ''; ALTER TABLE listed ADD PARTITION (PARTITION l2 VALUES IN (7));",
            "ALTER TABLE listed REORGANIZE PARTITION l0 INTO (PARTITION l0 VALUES IN (1), PARTITION l3 VALUES IN (2)); UPDATE listed SET b = 'v' WHERE id = 2;",
            "ALTER TABLE hashed COALESCE PARTITION 2; ALTER TABLE hashed ADD PARTITION PARTITIONS 4; ALTER TABLE hashed REBUILD PARTITION p0;",
            "ALTER TABLE hashed TRUNCATE PARTITION p0, p1; INSERT INTO hashed VALUES (3, 30);",
            "ALTER TABLE whole PARTITION BY HASH (id) PARTITIONS 4; INSERT INTO whole (b) VALUES (9); ALTER TABLE whole COMMENT = 'parted';",
            "TRUNCATE hashed; TRUNCATE ranged; DROP TABLE listed;",
        ],
    );
}

/// An empty table with keys and triggers is what the server makes of it, too; nothing fires, and nothing is left over.
#[test]
fn what_fails_after_a_table_was_emptied_brings_it_back() {
    for (base, script) in [
        (BASE, "TRUNCATE watched; TRUNCATE page; INSERT INTO page (term) VALUES (3); CREATE TABLE term (x int);"),
        (
            PARTED,
            "ALTER TABLE ranged DROP PARTITION p1; ALTER TABLE ranged TRUNCATE PARTITION p0; CREATE TABLE whole (x int);",
        ),
        (BASE, "TRUNCATE page; TRUNCATE term;"),
        (PARTED, "ALTER TABLE ranged DROP PARTITION p1; ALTER TABLE ranged DROP PARTITION p7;"),
        (PARTED, "ALTER TABLE ranged TRUNCATE PARTITION p0, p7;"),
    ] {
        let site = TestSite::builder().mariadb("main", Server::shared(), base).build();
        let before = Fingerprint::of(&site);
        let done = site.deploy(&Pkg::new("p").step(sql(script)));
        assert_eq!(done.status(), Status::Failed, "{script}: {done:?}");
        before.assert_same(&Fingerprint::of(&site), script);
        let own = mariadb_dump::own_objects(site.mariadb("main").unwrap());
        assert_eq!(own, ["backout_shop", "backout_shop$segment"], "{script}");
    }
}

#[test]
fn what_others_did_to_an_emptied_table_is_a_conflict() {
    for (base, script, others, why) in [
        (BASE, "TRUNCATE page;", "INSERT INTO page VALUES (1, 2, 'theirs')", "theirs"),
        (BASE, "TRUNCATE watched;", "ALTER TABLE watched DROP COLUMN f", "it has no column f"),
        (
            BASE,
            "TRUNCATE page; ALTER TABLE audit ADD c int;",
            "DELETE FROM page; DELETE FROM term WHERE id = 3",
            "term = 3 is not in term",
        ),
        (PARTED, "ALTER TABLE ranged DROP PARTITION p1;", "INSERT INTO ranged VALUES (2, 15, 'theirs')", "theirs"),
        (
            PARTED,
            "ALTER TABLE ranged ADD PARTITION (PARTITION p3 VALUES LESS THAN (40));",
            "INSERT INTO ranged (at) VALUES (35)",
            "do not fit its definition of before",
        ),
        (
            PARTED,
            "ALTER TABLE listed DROP PARTITION l0;",
            "ALTER TABLE listed ADD PARTITION (PARTITION l5 VALUES IN (50))",
            "definition was changed",
        ),
    ] {
        is_a_conflict(base, script, others, why);
    }
}

/// Rows of others under other keys stay where they are, and so does a number that they drew.
#[test]
fn rows_that_others_put_into_an_emptied_table_stay() {
    let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
    let database = site.mariadb("main").unwrap();
    site.deploy(&Pkg::new("p").step(sql("TRUNCATE page;"))).expect(Status::Done);
    database.script("INSERT INTO page VALUES (50, 1, 'theirs')");
    let done = site.undo(None);
    assert_eq!(done.status(), Status::Done, "{done:?}");
    assert!(format!("{done:?}").contains("the counter of page was used since"), "{done:?}");
    let ids: Vec<u32> = database.connect().query("SELECT id FROM page ORDER BY id").unwrap();
    assert_eq!(ids, [1, 2, 50]);
}

/// The statement itself would take rows of theirs along; what runs in its place must leave all else that they made.
#[test]
fn what_others_made_before_a_partition_goes_again_stays() {
    let script = "ALTER TABLE ranged DROP PARTITION p0;";
    let again = |others: &str| {
        let site = TestSite::builder().mariadb("main", Server::shared(), PARTED).build();
        site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        site.mariadb("main").unwrap().script(others);
        let before = Fingerprint::of(&site);
        let done = site.redo();
        (site, before, done)
    };
    let (site, before, done) = again("ALTER TABLE ranged ADD COLUMN own int DEFAULT 77, ADD KEY own (own)");
    assert_eq!(done.status(), Status::Done, "{done:?}");
    let count = "SELECT COUNT(*) FROM ranged WHERE own = 77";
    let left: u32 = site.mariadb("main").unwrap().connect().query_first(count).unwrap().unwrap();
    assert!(left > 0);
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
    let (site, before, done) = again("ALTER TABLE ranged ADD PARTITION (PARTITION own VALUES LESS THAN (99999))");
    assert!(format!("{done:?}").contains("others changed since how it is partitioned"), "{done:?}");
    before.assert_same(&Fingerprint::of(&site), "not redone");
}

#[test]
fn what_cannot_be_emptied_row_by_row_is_refused() {
    let site = TestSite::builder().mariadb("main", Server::shared(), PARTED).build();
    let before = Fingerprint::of(&site);
    let script = "ALTER TABLE listed DROP PARTITION rest; ALTER TABLE listed REORGANIZE PARTITION l0 INTO (PARTITION l0 VALUES IN (1));";
    is_refused(&site, &before, script, "rows with the value 2");
    for script in [
        "ALTER TABLE ranged EXCHANGE PARTITION p0 WITH TABLE whole;",
        "ALTER TABLE ranged CONVERT PARTITION p0 TO TABLE other;",
        "ALTER TABLE ranged OPTIMIZE PARTITION p0;",
    ] {
        is_refused(&site, &before, script, "not handled yet");
    }
}
