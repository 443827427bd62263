//! What others hang on the things that a script changes: for each statement, each of what they may do. An undo either leaves
//! what would be there had only they been at work, or says what is in its way and changes nothing.

use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_testkit::database::Lines;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::{Database, Queryable as _, Server};
use backout_testkit::mariadb_dump;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;

use super::rows::is_refused;

const BASE: &str = "
    CREATE TABLE item (id int PRIMARY KEY, name varchar(20), n int, KEY by_n (n)) ENGINE=InnoDB;
    INSERT INTO item VALUES (1, 'one', 1), (2, 'two', 2);
    CREATE TABLE plain (id int PRIMARY KEY, a int) ENGINE=InnoDB; INSERT INTO plain VALUES (1, NULL);
    CREATE TABLE spare (id int PRIMARY KEY) ENGINE=InnoDB;
    CREATE TABLE log (id int AUTO_INCREMENT PRIMARY KEY, what varchar(60)) ENGINE=InnoDB;
    CREATE VIEW named AS SELECT id FROM item; CREATE VIEW above AS SELECT id FROM named;
    CREATE FUNCTION twice(x int) RETURNS int DETERMINISTIC RETURN x * 2;
    SET foreign_key_checks = 0;
    CREATE TABLE early (id int PRIMARY KEY, made int, CONSTRAINT early_made FOREIGN KEY (made) REFERENCES made (id)) ENGINE=InnoDB;
    CREATE PROCEDURE early_call() SELECT 1 FROM made; SET foreign_key_checks = 1;";

/// Statements, and what there is of theirs that others may use: a table with a key and columns, where they made one.
const SCRIPTS: &[&str] = &[
    "CREATE TABLE made (id int PRIMARY KEY, n int, KEY (n)) ENGINE=InnoDB;",
    "CREATE TABLE made (id int PRIMARY KEY, n int) ENGINE=InnoDB; CREATE VIEW ours AS SELECT n FROM made; ALTER TABLE plain ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES made (id);",
    "CREATE OR REPLACE TABLE spare (id int PRIMARY KEY, n int) ENGINE=InnoDB;",
    "RENAME TABLE item TO made;",
    "RENAME TABLE item TO old; CREATE TABLE item (id int PRIMARY KEY, name varchar(20), n int, extra int) ENGINE=InnoDB;",
    "ALTER TABLE item ADD extra int, ADD UNIQUE KEY by_extra (extra);",
    "ALTER TABLE item CHANGE n extra int;",
    "ALTER TABLE item MODIFY n bigint;",
    "ALTER TABLE item DROP COLUMN n;",
    "CREATE UNIQUE INDEX by_name ON item (name);",
    "TRUNCATE spare;",
    "CREATE OR REPLACE VIEW named AS SELECT id, n AS extra FROM item;",
    "ALTER VIEW named AS SELECT id, n AS extra FROM item;",
    "CREATE VIEW made AS SELECT id, n FROM item;",
    "CREATE FUNCTION thrice(x int) RETURNS int DETERMINISTIC RETURN x * 3;",
    "CREATE SEQUENCE numbers; CREATE TABLE made (id int PRIMARY KEY DEFAULT NEXTVAL(numbers), n int);",
    "SET foreign_key_checks = 0; DROP TABLE item;",
    "DROP TABLE spare;",
    "DROP VIEW above;",
    "DROP FUNCTION twice;",
    "INSERT INTO item VALUES (3, 'three', 3); UPDATE item SET n = 9 WHERE id = 1;",
];

/// What takes a copy of how things are, as `LIKE` and `SELECT *` do, is no matter: it hangs on nothing.
const OTHERS: &[&str] = &[
    "CREATE TABLE child (id int PRIMARY KEY, up int, CONSTRAINT child_up FOREIGN KEY (up) REFERENCES made (id)) ENGINE=InnoDB",
    "ALTER TABLE log ADD up int, ADD CONSTRAINT log_up FOREIGN KEY (up) REFERENCES made (n)",
    "ALTER TABLE made ADD up int, ADD CONSTRAINT up_of_it FOREIGN KEY (up) REFERENCES made (id)",
    "CREATE TABLE child (id int PRIMARY KEY, up int, CONSTRAINT child_up FOREIGN KEY (up) REFERENCES item (id)) ENGINE=InnoDB",
    "CREATE TABLE child (id int PRIMARY KEY, up int, CONSTRAINT child_up FOREIGN KEY (up) REFERENCES item (extra)) ENGINE=InnoDB",
    "CREATE TABLE child (id int PRIMARY KEY, up bigint, CONSTRAINT child_up FOREIGN KEY (up) REFERENCES item (n)) ENGINE=InnoDB",
    "CREATE TABLE child (id int PRIMARY KEY, up varchar(20), CONSTRAINT child_up FOREIGN KEY (up) REFERENCES item (name)) ENGINE=InnoDB",
    "CREATE TABLE child (id int PRIMARY KEY, up int, CONSTRAINT child_up FOREIGN KEY (up) REFERENCES spare (id)) ENGINE=InnoDB",
    "CREATE VIEW theirs AS SELECT id FROM made",
    "CREATE VIEW theirs AS SELECT extra FROM item",
    "CREATE VIEW theirs AS SELECT i.extra AS e FROM item AS i",
    "CREATE VIEW theirs AS SELECT extra FROM named",
    "CREATE VIEW theirs AS SELECT id FROM spare",
    "CREATE VIEW theirs AS SELECT thrice(id) FROM item",
    "CREATE OR REPLACE VIEW named AS SELECT id FROM item WHERE id > 1",
    "CREATE TRIGGER theirs BEFORE INSERT ON made FOR EACH ROW SET NEW.id = NEW.id + 1",
    "CREATE TRIGGER theirs BEFORE INSERT ON item FOR EACH ROW SET NEW.extra = 1",
    "CREATE TRIGGER theirs BEFORE INSERT ON item FOR EACH ROW SET NEW.name = UPPER(NEW.name)",
    "CREATE TRIGGER theirs AFTER INSERT ON log FOR EACH ROW INSERT INTO made (id) VALUES (NEW.id)",
    "CREATE TRIGGER theirs BEFORE INSERT ON spare FOR EACH ROW SET @x = 1",
    "CREATE PROCEDURE theirs() INSERT INTO made (id) VALUES (1)",
    "CREATE PROCEDURE theirs() SELECT extra FROM item",
    "CREATE FUNCTION theirs() RETURNS int RETURN thrice(2)",
    "CREATE EVENT theirs ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DISABLE DO DELETE FROM made",
    "ALTER TABLE item ADD theirs int AS (extra + 1) VIRTUAL",
    "ALTER TABLE item ADD KEY theirs (extra)",
    "ALTER TABLE item ADD CONSTRAINT theirs CHECK (extra > 0)",
    "ALTER TABLE item ADD CONSTRAINT theirs CHECK (n > 0)",
    "ALTER TABLE spare ADD theirs int",
    "ALTER TABLE made ADD theirs int",
    "CREATE TABLE child (id int DEFAULT NEXTVAL(numbers))",
    "DO NEXTVAL(numbers)",
    "CREATE VIEW theirs AS SELECT NEXTVAL(numbers)",
    "CREATE TABLE spare (id int)",
    "CREATE VIEW spare AS SELECT 1 AS a",
    "CREATE VIEW above AS SELECT 2 AS b",
    "CREATE FUNCTION twice(x int) RETURNS int RETURN 7",
    "RENAME TABLE made TO theirs",
    "RENAME TABLE item TO theirs",
    "DROP TABLE made",
    "DROP VIEW named",
];

/// Runs a statement of others; false where the server won't.
fn run(database: &Database<'_>, statement: &str) -> bool {
    database.connect().query_drop(statement).is_ok()
}

fn differing(one: &Lines, other: &Lines) -> Vec<String> {
    let missing = |from: &Lines, of: &Lines, word: &str| -> Vec<String> {
        let other = from.iter().filter(|(name, line)| of.get(*name) != Some(line));
        other.map(|(name, line)| format!("{word} {name}: {line}")).collect()
    };
    [missing(one, other, "is"), missing(other, one, "should be")].concat()
}

#[test]
fn what_others_hang_on_a_change_is_kept_or_named() {
    hunt(0);
}

#[test]
fn what_others_hang_on_a_change_is_kept_or_named_2() {
    hunt(1);
}

#[test]
fn what_others_hang_on_a_change_is_kept_or_named_3() {
    hunt(2);
}

#[test]
fn what_others_hang_on_a_change_is_kept_or_named_4() {
    hunt(3);
}

/// Every fourth statement, each with all that others may do.
fn hunt(part: usize) {
    let server = Server::shared();
    let (mut failures, mut undone, mut refused) = (Vec::new(), 0, 0);
    for script in SCRIPTS.iter().skip(part).step_by(4) {
        let mut site = None;
        for others in OTHERS {
            let deployed = site.take().unwrap_or_else(|| {
                let site = TestSite::builder().mariadb("main", server, BASE).build();
                site.deploy(&Pkg::new("p").step(sql(*script))).expect(Status::Done);
                site
            });
            let database = deployed.mariadb("main").unwrap();
            if !run(database, others) {
                // Nothing came of it: the next may have the site.
                site = Some(deployed);
                continue;
            }
            let before = mariadb_dump::read(database);
            let done = deployed.undo(None);
            let now = mariadb_dump::read(database);
            let mut fail = |what: &str, found: Vec<String>| {
                if !found.is_empty() {
                    failures.push(format!("{script}\n  {others}\n    {what}: {}", found.join("\n      ")));
                }
            };
            match done.status() {
                Status::Done => {
                    undone += 1;
                    let plain = server.database();
                    plain.script(BASE);
                    // What hangs on a table follows it where that gets its name back.
                    let there = if script.starts_with("RENAME TABLE item TO made") { "item" } else { "made" };
                    if run(&plain, &others.replace(" made", &format!(" {there}"))) {
                        fail("undone", differing(&now, &mariadb_dump::read(&plain)));
                    } else {
                        fail("undone, and without the deployment it would not be", differing(&now, &before));
                    }
                }
                Status::Refused => {
                    refused += 1;
                    fail("refused", differing(&now, &before));
                    let done = deployed.undo_on(None, OnConflict::Overwrite);
                    let was = now;
                    let now = mariadb_dump::read(database);
                    match done.status() {
                        Status::Done | Status::Partly => {}
                        // What others made of it leaves no room.
                        Status::Refused => fail("overwrite", differing(&now, &was)),
                        _ => fail("overwrite", vec![format!("{done:?}")]),
                    }
                    let own: Vec<String> = now
                        .iter()
                        .map(|(name, line)| format!("{name}: {line}"))
                        .filter(|line| line.contains("backout"))
                        .collect();
                    fail("overwritten, and names the tool's own", own);
                }
                _ => fail("undo", vec![format!("{done:?}")]),
            }
        }
    }
    assert!(failures.is_empty(), "{undone} undone, {refused} refused\n{}", failures.join("\n"));
    assert!(undone > 20 && refused > 5, "{undone} undone, {refused} refused");
}

/// A foreign key of another database would follow its table into the hold.
#[test]
fn what_another_database_points_at_is_refused_or_named() {
    let server = Server::shared();
    let elsewhere = server.database();
    let points_at = |site: &TestSite, table: &str, n: u32| {
        let own = site.mariadb("main").unwrap().name.clone();
        elsewhere.script(&format!(
            "SET foreign_key_checks = 0; CREATE TABLE child{n} (up int, CONSTRAINT up{n} FOREIGN KEY (up) REFERENCES {own}.{table} (id)) ENGINE=InnoDB;"
        ));
    };
    let site = TestSite::builder().mariadb("main", server, BASE).build();
    points_at(&site, "item", 0);
    points_at(&site, "fresh", 1);
    let before = Fingerprint::of(&site);
    for script in [
        "SET foreign_key_checks = 0; DROP TABLE item;",
        "RENAME TABLE item TO other;",
        "TRUNCATE item;",
        "CREATE TABLE fresh (id int PRIMARY KEY) ENGINE=InnoDB;",
        "RENAME TABLE spare TO fresh;",
    ] {
        is_refused(&site, &before, script, "of another database points at");
    }
    for (n, (script, table)) in [
        ("CREATE TABLE made (id int PRIMARY KEY) ENGINE=InnoDB;", "made"),
        ("CREATE OR REPLACE TABLE spare (id int PRIMARY KEY, n int) ENGINE=InnoDB;", "spare"),
        ("TRUNCATE spare;", "spare"),
        ("ALTER TABLE plain MODIFY id bigint;", "plain"),
    ]
    .into_iter()
    .enumerate()
    {
        let site = TestSite::builder().mariadb("main", server, BASE).build();
        site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
        let own = site.mariadb("main").unwrap().name.clone();
        let kind = if table == "plain" { "bigint" } else { "int" };
        elsewhere.script(&format!("CREATE TABLE late{n} (up {kind}, CONSTRAINT late_up{n} FOREIGN KEY (up) REFERENCES {own}.{table} (id)) ENGINE=InnoDB;"));
        let state = Fingerprint::of(&site);
        let done = site.undo(None);
        assert_eq!(done.status(), Status::Refused, "{script}: {done:?}");
        assert!(
            format!("{done:?}").contains(&format!("late_up{n} of {}.late{n} needs it now", elsewhere.name)),
            "{script}: {done:?}"
        );
        let done = site.undo_on(None, OnConflict::Overwrite);
        assert_eq!(done.status(), Status::Refused, "{script}: {done:?}");
        state.assert_same(&Fingerprint::of(&site), script);
        elsewhere.script(&format!("DROP TABLE late{n}"));
    }
}
