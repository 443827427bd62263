//! What acts by itself: triggers, routines, views, foreign keys. What they do on a script's behalf is captured, they do not
//! act while rows go back, and what a script changes of them is put back as it was.

use backout_engine::outcome::Status;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::{Queryable as _, Server};
use backout_testkit::mariadb_dump;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;

use super::ddl::{go_there_and_back, is_a_conflict};
use super::rows::is_refused;

pub const BASE: &str = "
    CREATE TABLE item (id int AUTO_INCREMENT PRIMARY KEY, name varchar(20) UNIQUE, made varchar(20) NOT NULL DEFAULT '', up int,
        KEY up (up), CONSTRAINT item_up FOREIGN KEY (up) REFERENCES item (id) ON DELETE CASCADE) ENGINE=InnoDB;
    CREATE TABLE log (id int AUTO_INCREMENT PRIMARY KEY, what varchar(60)) ENGINE=InnoDB;
    CREATE TABLE total (kind varchar(9) PRIMARY KEY, n int NOT NULL) ENGINE=InnoDB;
    CREATE TABLE tag (item int, tag varchar(9), PRIMARY KEY (item, tag), CONSTRAINT tag_item FOREIGN KEY (item) REFERENCES item (id) ON DELETE CASCADE ON UPDATE CASCADE) ENGINE=InnoDB;
    INSERT INTO item VALUES (1, 'one', 'by hand', NULL), (2, 'two', 'by hand', 1), (3, 'three', 'by hand', 2), (4, 'four', '', NULL);
    INSERT INTO total VALUES ('item', 4), ('tag', 2); INSERT INTO tag VALUES (1, 'a'), (3, 'b');
    CREATE TRIGGER item_made BEFORE INSERT ON item FOR EACH ROW SET NEW.made = CONCAT('made ', NEW.name);
    CREATE TRIGGER item_upper BEFORE INSERT ON item FOR EACH ROW SET NEW.name = UPPER(NEW.name);
DELIMITER //
    CREATE TRIGGER item_new AFTER INSERT ON item FOR EACH ROW BEGIN INSERT INTO log (what) VALUES (CONCAT('new ', NEW.name)); UPDATE total SET n = n + 1 WHERE kind = 'item'; END//
DELIMITER ;
    CREATE TRIGGER item_changed BEFORE UPDATE ON item FOR EACH ROW SET NEW.made = CONCAT(OLD.name, '!');
    CREATE TRIGGER item_gone AFTER DELETE ON item FOR EACH ROW CALL note(OLD.name);
    CREATE TRIGGER log_kept BEFORE DELETE ON log FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'a log is kept';
DELIMITER //
    CREATE PROCEDURE note(name varchar(20)) BEGIN INSERT INTO log (what) VALUES (CONCAT('gone ', name)); UPDATE total SET n = count_up('item') WHERE kind = 'item'; END//
DELIMITER ;
DELIMITER //
    CREATE FUNCTION count_up(k varchar(9)) RETURNS int MODIFIES SQL DATA BEGIN INSERT INTO log (what) VALUES (k); RETURN 7; END//
DELIMITER ;
DELIMITER //
    CREATE PROCEDURE tidy() COMMENT 'of old' BEGIN DELETE FROM tag WHERE tag = 'a'; UPDATE item SET name = CONCAT(name, '.') WHERE id > 2; END//
DELIMITER ;
    CREATE VIEW named AS SELECT id, name FROM item WHERE name IS NOT NULL;
    CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DISABLE DO DELETE FROM tag;";

pub const SCRIPTS: &[&str] = &[
    "INSERT INTO item (name) VALUES ('five'), ('six'); UPDATE item SET name = 'ONE' WHERE id = 1;",
    "DELETE FROM item WHERE id = 4; INSERT INTO log (what) VALUES ('by hand');",
    "DELETE FROM item WHERE id = 1;",
    "UPDATE item SET up = NULL; UPDATE item SET id = id + 10 ORDER BY id DESC;",
    "REPLACE INTO item (id, name) VALUES (4, 'four again'), (9, 'two');",
    "INSERT INTO item (id, name) VALUES (4, 'x') ON DUPLICATE KEY UPDATE name = 'y';",
    "CALL tidy(); SELECT count_up('select'); SET @x = count_up('set'); DO count_up('do');",
    "UPDATE named SET name = 'through a view' WHERE id = 3; DELETE FROM named WHERE id = 4;",
    "DELIMITER //\nBEGIN NOT ATOMIC DECLARE i int DEFAULT 0; WHILE i < 3 DO INSERT INTO total VALUES (CONCAT('k', i), count_up('block')); SET i = i + 1; END WHILE; END//\nDELIMITER ;",
    "ALTER TABLE item MODIFY made text, ADD shown int NOT NULL DEFAULT 1; UPDATE item SET shown = 0;",
    "DROP TRIGGER item_made; INSERT INTO item (name) VALUES ('unmade'); CREATE TRIGGER item_made BEFORE INSERT ON item FOR EACH ROW SET NEW.made = 'otherwise'; INSERT INTO item (name) VALUES ('made');",
    "CREATE TRIGGER item_zero BEFORE INSERT ON item FOR EACH ROW PRECEDES item_made SET NEW.up = NULL; CREATE OR REPLACE TRIGGER item_upper BEFORE INSERT ON item FOR EACH ROW SET NEW.name = LOWER(NEW.name); DROP TRIGGER IF EXISTS nothing;",
    "SET sql_mode = 'NO_ZERO_DATE'; CREATE OR REPLACE FUNCTION count_up(k varchar(9)) RETURNS int RETURN 8; DROP PROCEDURE tidy; CREATE PROCEDURE IF NOT EXISTS note() SELECT 1; ALTER PROCEDURE note COMMENT 'notes';",
    "DROP EVENT nightly; CREATE EVENT weekly ON SCHEDULE EVERY 1 WEEK STARTS '2030-01-01 00:00:00' DISABLE DO SET @x = 1; ALTER EVENT weekly COMMENT 'often';",
    "ALTER VIEW named AS SELECT id FROM item; CREATE OR REPLACE VIEW named AS SELECT name FROM item;",
    "DROP TABLE tag, item; CREATE TABLE item (id int PRIMARY KEY) ENGINE=InnoDB; CREATE TRIGGER item_made BEFORE INSERT ON item FOR EACH ROW SET @x = 1;",
    "SET foreign_key_checks = 0; DELETE FROM item WHERE id = 3; SET foreign_key_checks = 1; UPDATE total SET n = 1;",
    "RENAME TABLE item TO thing; INSERT INTO thing (name) VALUES ('seven');",
];

#[test]
fn what_acts_by_itself_is_captured_and_put_back() {
    go_there_and_back(BASE, SCRIPTS);
}

/// A tool that died in an undo left a trigger held still: it acts for others, and is made as it was by who takes the lock.
#[test]
fn a_trigger_that_was_left_held_still_acts_and_is_let_go() {
    let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
    let database = site.mariadb("main").unwrap();
    site.deploy(&Pkg::new("p").step(sql("UPDATE tag SET tag = 'z' WHERE item = 3;"))).expect(Status::Done);
    let before = Fingerprint::of(&site);
    let mut session = database.connect();
    let body = "IF @backout_quiet IS NULL THEN /* backout_shop */\nSET NEW.made = CONCAT('made ', NEW.name)\n; END IF";
    session
        .query_drop(format!(
            "CREATE OR REPLACE TRIGGER item_made BEFORE INSERT ON item FOR EACH ROW PRECEDES item_upper {body}"
        ))
        .unwrap();
    session.query_drop("INSERT INTO item (id, name) VALUES (50, 'fifty')").unwrap();
    let made: String = session.query_first("SELECT made FROM item WHERE id = 50").unwrap().unwrap();
    assert_eq!(made, "made fifty");
    site.undo(None).expect(Status::Done);
    site.redo().expect(Status::Done);
    let triggers = |state: &Fingerprint| -> Vec<String> {
        let lines = state.parts.values().flatten();
        lines.filter(|(name, _)| name.contains("trigger")).map(|(name, text)| format!("{name} {text}")).collect()
    };
    assert_eq!(triggers(&before), triggers(&Fingerprint::of(&site)));
}

/// Whoever is not its definer, and may not make objects for others, could not hold it still: so it is refused.
#[test]
fn a_trigger_of_somebody_else_is_refused_for_a_plain_account() {
    let server = Server::shared();
    let user = format!("other{}", std::process::id());
    let site = TestSite::builder().mariadb_as("main", server, BASE, &user).build();
    let database = site.mariadb("main").unwrap();
    database.script(&format!("CREATE USER {user}@localhost; GRANT ALL ON {}.* TO {user}@localhost", database.name));
    let before = Fingerprint::of(&site);
    for script in ["INSERT INTO item (name) VALUES ('x');", "DROP TRIGGER item_made;", "DROP TABLE tag, item;"] {
        let done = site.deploy(&Pkg::new("p").step(sql(script)));
        assert!(matches!(done.status(), Status::Refused | Status::Failed), "{script}: {done:?}");
        before.assert_same(&Fingerprint::of(&site), script);
    }
    site.deploy(&Pkg::new("p").step(sql("UPDATE tag SET tag = 'c';"))).expect(Status::Done);
    database.script(&format!("DROP USER {user}@localhost"));
}

/// Who may use a routine it may not read; of one that it makes that is no matter.
#[test]
fn a_plain_account_makes_routines_and_may_not_drop_what_it_could_not_make_again() {
    let server = Server::shared();
    let user = format!("maker{}", std::process::id());
    let site = TestSite::builder().mariadb_as("main", server, BASE, &user).build();
    let database = site.mariadb("main").unwrap();
    database.script(&format!("CREATE USER {user}@localhost; GRANT ALL ON {}.* TO {user}@localhost", database.name));
    let before = Fingerprint::of(&site);
    let made = "CREATE PROCEDURE mine() SELECT 1; CREATE FUNCTION seven() RETURNS INT RETURN 7;";
    for _ in 0..2 {
        site.deploy(&Pkg::new("p").step(sql(made))).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), "undone");
        site.redo().expect(Status::Done);
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), "undone again");
    }
    let refused = site.deploy(&Pkg::new("p").step(sql("DROP PROCEDURE tidy;")));
    assert!(matches!(refused.status(), Status::Refused | Status::Failed), "{refused:?}");
    before.assert_same(&Fingerprint::of(&site), "refused");
    database.script(&format!("DROP USER {user}@localhost"));
}

/// The server puts an index that it makes for a foreign key behind the others; the step before has it in its old place.
#[test]
fn a_foreign_key_that_comes_back_leaves_the_keys_in_their_order() {
    let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
    site.mariadb("main").unwrap().script(
        "CREATE TABLE child (id INT PRIMARY KEY, item INT, CONSTRAINT child_item FOREIGN KEY (item) REFERENCES item (id))",
    );
    let before = Fingerprint::of(&site);
    let package = Pkg::new("p")
        .step(sql("ALTER TABLE child ADD COLUMN more INT; CREATE INDEX by_more ON child (more);"))
        .step(sql("ALTER TABLE child DROP FOREIGN KEY child_item;"));
    site.deploy(&package).expect(Status::Done);
    let left = Fingerprint::of(&site);
    for _ in 0..2 {
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), "undone");
        site.redo().expect(Status::Done);
        left.assert_same(&Fingerprint::of(&site), "redone");
    }
}

#[test]
fn what_others_made_of_an_object_is_a_conflict() {
    for (script, others, why) in [
        (
            "DROP TRIGGER item_made;",
            "CREATE TRIGGER item_made BEFORE DELETE ON item FOR EACH ROW SET @x = 1",
            "the name is taken",
        ),
        ("CREATE OR REPLACE PROCEDURE tidy() SELECT 1;", "CREATE OR REPLACE PROCEDURE tidy() SELECT 2", "SELECT 2"),
        ("CREATE PROCEDURE mine() SELECT 1;", "DROP PROCEDURE mine", "it is not there"),
        (
            "ALTER TABLE tag DROP FOREIGN KEY tag_item;",
            "INSERT INTO tag VALUES (99, 'orphan')",
            "point at nothing by tag_item",
        ),
    ] {
        is_a_conflict(BASE, script, others, why);
    }
}

/// Rows that follow in a circle are copied first; nobody else can write to them until the segment has ended, and what others
/// wrote before and afterwards stays.
#[test]
fn what_others_write_beside_a_copied_table_stays() {
    let base = "CREATE TABLE tree (id int PRIMARY KEY, up int, name varchar(20), FOREIGN KEY (up) REFERENCES tree (id) ON DELETE CASCADE) ENGINE=InnoDB;
        INSERT INTO tree VALUES (1, NULL, 'a'), (2, 1, 'b'), (3, 2, 'c'), (4, NULL, 'd');";
    let site = TestSite::builder().mariadb("main", Server::shared(), base).build();
    let database = site.mariadb("main").unwrap();
    let writer = database.connect();
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let writing = std::thread::spawn(move || {
        let mut writer = writer;
        let mut written = 0;
        while wait.try_recv().is_err() {
            written += 1;
            let sql = format!("INSERT INTO tree VALUES ({}, 4, 'theirs')", 1000 + written);
            // One of two that lock in another order is turned away, as ever.
            while writer.query_drop(&sql).is_err() {}
        }
        written
    });
    for _ in 0..3 {
        site.deploy(&Pkg::new("p").step(sql("DELETE FROM tree WHERE id = 1; SELECT SLEEP(0.2);"))).expect(Status::Done);
        site.undo(None).expect(Status::Done);
    }
    stop.send(()).unwrap();
    let written: usize = writing.join().unwrap();
    let there =
        database.script("SELECT COUNT(*) FROM tree WHERE name = 'theirs'; SELECT COUNT(*) FROM tree WHERE id < 5");
    assert_eq!(there, format!("{written}\n4\n"));
    assert!(mariadb_dump::own_objects(database).iter().all(|name| !name.contains("$l")));
}

/// What a string hides, tables of the session alone, transactions that a script takes back in part.
#[test]
fn what_a_script_hides_or_takes_back_itself() {
    go_there_and_back(
        BASE,
        &[
            "SET @s = 'UPDATE tag SET tag = CONCAT(tag, ?)'; PREPARE s FROM @s; SET @a = 'x'; EXECUTE s USING @a; DEALLOCATE PREPARE s;",
            "EXECUTE IMMEDIATE CONCAT('DELETE FROM item WHERE ', 'id = 1'); PREPARE t FROM 'SELECT 1'; ALTER TABLE log ADD x int; EXECUTE t;",
            "CREATE TEMPORARY TABLE picked AS SELECT id FROM item WHERE id > 2; UPDATE tag SET tag = 'z' WHERE item IN (SELECT id FROM picked); INSERT INTO picked VALUES (9); DROP TEMPORARY TABLE picked;",
            "CREATE TEMPORARY TABLE IF NOT EXISTS picked (id int); ALTER TABLE log ADD y int; INSERT INTO picked VALUES (1); INSERT INTO log (what) SELECT id FROM picked; DROP TABLE picked;",
            "BEGIN; UPDATE tag SET tag = 'q'; SAVEPOINT here; DELETE FROM tag; ROLLBACK TO SAVEPOINT here; RELEASE SAVEPOINT here; COMMIT;",
            "START TRANSACTION; DELETE FROM item WHERE id = 1; ROLLBACK; DELETE FROM tag WHERE item = 3; BEGIN; DELETE FROM tag; ROLLBACK;",
        ],
    );
    let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
    let before = Fingerprint::of(&site);
    for (script, why) in [
        ("SET @s = 'DROP TABLE tag'; PREPARE s FROM @s;", "is no change of rows"),
        ("EXECUTE IMMEDIATE 'INSERT INTO mysql.x VALUES (1)';", "may write to mysql.x"),
        ("DELETE FROM tag; EXECUTE IMMEDIATE 'TRUNCATE log';", "is no change of rows"),
        ("CREATE TEMPORARY TABLE tag (a int);", "would hide tag"),
        ("DELETE FROM tag; ROLLBACK;", "in no transaction"),
    ] {
        is_refused(&site, &before, script, why);
    }
}
