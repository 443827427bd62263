//! Captured commands on MariaDB: whatever its own client did to rows, definitions and counters goes back exactly, and comes
//! again.

use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::{Queryable as _, Server};
use backout_testkit::mariadb_dump;
use backout_testkit::package::{Pkg, captured_mariadb};
use backout_testkit::site::{Done, TestSite};

use crate::mariadb::strange::{LINKS, RELINKING};
use crate::mariadb::{ddl, objects, rows};

const SHOP: &str = "
    CREATE TABLE product (id int PRIMARY KEY, name varchar(20) UNIQUE, price decimal(9,2) NOT NULL) ENGINE=InnoDB;
    INSERT INTO product VALUES (1, 'coat', 100.50), (2, 'hat', 20), (3, 'scarf', 15), (4, 'boot', 70);
    CREATE TABLE orders (id int AUTO_INCREMENT PRIMARY KEY, product int, amount int CHECK (amount > 0),
        CONSTRAINT ordered FOREIGN KEY (product) REFERENCES product (id) ON DELETE CASCADE) ENGINE=InnoDB;
    INSERT INTO orders (product, amount) VALUES (1, 1), (2, 3), (3, 9);
    CREATE TABLE line (id int AUTO_INCREMENT PRIMARY KEY, orders int, up int, KEY (up),
        CONSTRAINT of_order FOREIGN KEY (orders) REFERENCES orders (id), CONSTRAINT under FOREIGN KEY (up) REFERENCES line (id)) ENGINE=InnoDB AUTO_INCREMENT=70;
    INSERT INTO line (id, orders, up) VALUES (1, 1, NULL), (2, 1, 1), (3, 2, 2);
    CREATE TABLE audit (what text, price double, f float, b bit(9)) ENGINE=InnoDB;
    INSERT INTO audit VALUES ('coat', 90, 1e-40, 3), ('coat', 90, 1e-40, 3), (NULL, -0e0, 16777216, NULL), ('hat', 1e300, NULL, 0);
    CREATE TABLE old (a int AUTO_INCREMENT, b varchar(9), KEY (a)) ENGINE=MyISAM; INSERT INTO old (b) VALUES ('x'), ('y'); DELETE FROM old WHERE a = 2;
    CREATE TABLE kept (a int PRIMARY KEY, b int) ENGINE=Aria; INSERT INTO kept VALUES (1, 1);
    CREATE TRIGGER watch AFTER UPDATE ON product FOR EACH ROW INSERT INTO audit (what) VALUES (NEW.name);
    CREATE TRIGGER counted BEFORE INSERT ON orders FOR EACH ROW SET NEW.amount = NEW.amount + 1;
    CREATE VIEW cheap AS SELECT id, name FROM product WHERE price < 50; CREATE VIEW cheaper AS SELECT id FROM cheap WHERE id > 2;
    CREATE FUNCTION twice(i int) RETURNS int DETERMINISTIC RETURN i * 2; CREATE VIEW doubled AS SELECT twice(id) AS t FROM product;";

fn shop() -> TestSite {
    of(SHOP)
}

fn of(base: &str) -> TestSite {
    TestSite::builder().mariadb("main", Server::shared(), base).build()
}

/// Deploys each on a site of its own, undoes, redoes and undoes again, and compares each time.
#[track_caller]
fn all_go_and_come(base: &str, all: &[&str]) {
    let wrong: Vec<String> =
        all.iter().filter_map(|sql| Some(format!("{sql}:\n{}", goes_and_comes(base, sql).err()?))).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n\n"));
}

fn goes_and_comes(base: &str, sql: &str) -> Result<(), String> {
    let site = of(base);
    let package = Pkg::new("p").step(captured_mariadb(sql));
    let before = Fingerprint::of(&site);
    let same = |what: &str, wanted: &Fingerprint| match wanted.differences(&Fingerprint::of(&site)) {
        found if found.is_empty() => Ok(()),
        found => Err(format!("{what}:\n  {}", found.join("\n  "))),
    };
    let done = |what: &str, done: Done| match done.status() {
        Status::Done => Ok(()),
        _ => Err(format!("{what}: {done:?}")),
    };
    done("deployed", site.deploy(&package))?;
    let after = Fingerprint::of(&site);
    done("undone", site.undo(None))?;
    same("undone", &before)?;
    // The second redo is done by what the first has written down.
    for time in 1..3 {
        done("redone", site.redo())?;
        same(&format!("redone, {time}"), &after)?;
        done("undone again", site.undo(None))?;
        same(&format!("undone again, {time}"), &before)?;
    }
    if !copies(&site).is_empty() {
        return Err(format!("copies stay: {:?}", copies(&site)));
    }
    let grave = site.grave();
    if grave.is_empty() { Ok(()) } else { Err(format!("{grave:?}")) }
}

/// The copies that are there.
fn copies(site: &TestSite) -> Vec<String> {
    let own = mariadb_dump::own_objects(site.mariadb("main").unwrap());
    own.into_iter().filter(|name| name.starts_with("backout_shop$c")).collect()
}

/// The one value of a query.
fn value(site: &TestSite, query: &str) -> String {
    let found: Option<Option<String>> =
        site.mariadb("main").unwrap().connect().query_first(format!("SELECT CONCAT(({query}))")).unwrap();
    found.flatten().unwrap_or_else(|| "NULL".to_owned())
}

fn execute(site: &TestSite, script: &str) {
    site.mariadb("main").unwrap().script(script);
}

#[test]
fn rows_go_back_and_come_again() {
    all_go_and_come(
        SHOP,
        &[
            "UPDATE product SET price = price + 1; INSERT INTO product VALUES (9, 'glove', 5); DELETE FROM product WHERE id = 3",
            "INSERT INTO orders (product, amount) VALUES (1, 7); DELETE FROM orders WHERE id = 3",
            "DELETE FROM audit WHERE what = 'coat' LIMIT 1; UPDATE audit SET price = 0 WHERE what IS NULL",
            "UPDATE audit SET f = 16777218 WHERE what IS NULL; INSERT INTO old (b) VALUES ('z'); UPDATE kept SET b = 2",
            "SET foreign_key_checks = 0; DELETE FROM product WHERE id = 2",
            "TRUNCATE audit; DELETE FROM line ORDER BY id DESC; TRUNCATE old; ALTER TABLE orders AUTO_INCREMENT = 900",
            "UPDATE product SET id = id + 100, name = CONCAT(name, '!') WHERE id = 4; SET foreign_key_checks = 0; INSERT INTO line (orders) VALUES (1)",
            "SELECT 1",
        ],
    );
    all_go_and_come(rows::BASE, rows::SCRIPTS);
}

#[test]
fn definitions_go_back_and_come_again() {
    all_go_and_come(ddl::BASE, ddl::SCRIPTS);
}

#[test]
fn what_acts_by_itself_goes_back_and_comes_again() {
    all_go_and_come(objects::BASE, objects::SCRIPTS);
}

/// Tables made, dropped, altered and renamed, with what hangs on them and what they point at.
#[test]
fn tables_go_and_come_with_all_that_is_theirs() {
    all_go_and_come(
        SHOP,
        &[
            "CREATE TABLE made (id int AUTO_INCREMENT PRIMARY KEY, p int, KEY (p), CONSTRAINT made_p FOREIGN KEY (p) REFERENCES product (id)) ENGINE=InnoDB; INSERT INTO made (p) VALUES (1), (2);
             CREATE TRIGGER first BEFORE INSERT ON made FOR EACH ROW SET NEW.p = 1; CREATE TRIGGER second BEFORE INSERT ON made FOR EACH ROW PRECEDES first SET NEW.p = 2;
             CREATE TABLE made2 (id int) ENGINE=MyISAM; INSERT INTO made2 VALUES (1); CREATE TABLE empty (a int PRIMARY KEY) ENGINE=Aria",
            "ALTER TABLE product ADD COLUMN colour varchar(9) NOT NULL DEFAULT 'red' AFTER id, ADD KEY (colour); UPDATE product SET colour = 'blue' WHERE id = 2;
             UPDATE orders SET amount = 8; DELETE FROM orders WHERE id = 3; INSERT INTO product VALUES (8, 'green', 'cap', 7); INSERT INTO orders (product, amount) VALUES (8, 1)",
            "ALTER TABLE orders MODIFY amount bigint COMMENT 'pieces'; ALTER TABLE line AUTO_INCREMENT = 71, ADD KEY two (orders, up)",
            "SET foreign_key_checks = 0; DROP TABLE product; DROP VIEW cheaper, cheap, doubled",
            "DROP TABLE line, orders; DROP TRIGGER watch; DROP TABLE audit, old, kept",
            "ALTER TABLE line DROP FOREIGN KEY of_order; DROP TABLE orders; UPDATE line SET orders = 99",
            "RENAME TABLE product TO goods, orders TO bought; DELETE FROM line WHERE id = 3",
            "RENAME TABLE audit TO x, old TO audit, x TO old",
            "ALTER TABLE line DROP FOREIGN KEY under; ALTER TABLE orders DROP FOREIGN KEY ordered, ADD CONSTRAINT other FOREIGN KEY (product) REFERENCES product (id) ON DELETE SET NULL",
            "CREATE TABLE a (id int PRIMARY KEY, b int, KEY (b)) ENGINE=InnoDB; CREATE TABLE b (id int PRIMARY KEY, a int, FOREIGN KEY (a) REFERENCES a (id)) ENGINE=InnoDB;
             ALTER TABLE a ADD CONSTRAINT circle FOREIGN KEY (b) REFERENCES b (id); INSERT INTO a VALUES (1, NULL); INSERT INTO b VALUES (1, 1); UPDATE a SET b = 1;
             ALTER TABLE line ADD COLUMN a int, ADD FOREIGN KEY (a) REFERENCES a (id); SET foreign_key_checks = 0; ALTER TABLE orders ADD FOREIGN KEY (amount) REFERENCES b (id) ON DELETE CASCADE, ADD KEY (product, amount)",
            "ALTER TABLE audit ADD COLUMN id int AUTO_INCREMENT PRIMARY KEY FIRST; ALTER TABLE kept ENGINE=InnoDB; ALTER TABLE old ADD c varchar(9) AS (CONCAT(b, '!')) STORED",
            "SET foreign_key_checks = 0; DROP TABLE line, orders, product, audit, old, kept; DROP VIEW doubled, cheaper, cheap; DROP FUNCTION twice; CREATE TABLE only (a int) ENGINE=InnoDB",
            "CREATE TRIGGER zero BEFORE UPDATE ON product FOR EACH ROW SET NEW.name = NEW.name; DROP TRIGGER counted; CREATE TRIGGER counted BEFORE DELETE ON line FOR EACH ROW SET @x = 1",
            "CREATE OR REPLACE VIEW cheap AS SELECT id, name, price FROM product; CREATE OR REPLACE FUNCTION twice(i bigint) RETURNS bigint DETERMINISTIC RETURN i + i; CREATE PROCEDURE p() SELECT 1;
             CREATE VIEW a_first AS SELECT * FROM cheaper; CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2035-01-01 00:00:00' DO SELECT 1",
            "TRUNCATE line; ALTER TABLE product DROP COLUMN price",
            "DROP TRIGGER watch; ALTER TABLE product CHANGE name title varchar(20)",
        ],
    );
}

#[test]
fn foreign_keys_that_need_a_copy_go_and_come() {
    all_go_and_come(LINKS, RELINKING);
}

/// As a dump of another server brings them.
#[test]
fn views_without_a_definer_go_and_come() {
    all_go_and_come(
        &format!("{SHOP} CREATE DEFINER=nobody@nowhere VIEW orphan AS SELECT id FROM product;"),
        &[
            "DELETE FROM audit",
            "DROP VIEW orphan",
            "ALTER TABLE product ADD x int; CREATE OR REPLACE VIEW orphan AS SELECT 1 AS id",
        ],
    );
}

/// What others do after a captured command, and what its undo makes of it.
fn after_others(command: &str, others: &str) -> (TestSite, Done) {
    let site = shop();
    site.deploy(&Pkg::new("p").step(captured_mariadb(command))).expect(Status::Done);
    execute(&site, others);
    let done = site.undo(None);
    (site, done)
}

#[test]
fn later_changes_of_others_are_merged_by_column() {
    let (site, done) = after_others(
        "UPDATE orders SET amount = 5; INSERT INTO line (orders) VALUES (1)",
        "UPDATE orders SET product = 3 WHERE id = 2; INSERT INTO orders VALUES (40, 1, 40)",
    );
    done.expect(Status::Done);
    let rows = "SELECT GROUP_CONCAT(CONCAT_WS(' ', id, product, amount) ORDER BY id) FROM orders";
    assert_eq!(value(&site, rows), "1 1 1,2 3 3,3 3 9,40 1 41");
}

#[test]
fn later_changes_of_others_to_the_same_are_conflicts() {
    let (site, done) = after_others("UPDATE orders SET amount = 1", "UPDATE orders SET amount = 2 WHERE id = 2");
    let outcome = done.expect(Status::Refused);
    assert_eq!(outcome.conflicts.len(), 1, "{outcome:?}");
    assert_eq!(outcome.conflicts[0].column.as_deref(), Some("amount"));
    assert_eq!(value(&site, "SELECT SUM(amount) FROM orders"), "4", "nothing was undone");
    site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
    assert_eq!(value(&site, "SELECT SUM(amount) FROM orders"), "12");
}

/// What is told as a table dropped and made anew holds rows of others, which nothing would bring over.
#[test]
fn rows_of_others_in_a_table_that_was_made_anew_are_conflicts() {
    for command in [
        "ALTER TABLE orders ADD COLUMN n int",
        "DROP TABLE line; ALTER TABLE orders DROP COLUMN amount; CREATE TABLE line (id int)",
    ] {
        for others in [
            "INSERT INTO orders (id) VALUES (77)",
            "DELETE FROM orders WHERE id = 3",
            "TRUNCATE line; DELETE FROM orders",
        ] {
            let (site, done) = after_others(&format!("DROP TRIGGER counted; {command}"), others);
            let after = Fingerprint::of(&site);
            if others.contains("TRUNCATE") || !command.contains("line") || !others.contains("DELETE") {
                let outcome = done.expect(Status::Refused);
                assert!(!outcome.conflicts.is_empty(), "{command}: {others}: {outcome:?}");
                after.assert_same(&Fingerprint::of(&site), "nothing was undone");
            }
        }
    }
}

/// Neither does a redo take rows along that others wrote to the table which it would drop.
#[test]
fn rows_of_others_in_a_table_that_a_redo_would_drop_are_conflicts() {
    for (command, others) in [
        ("ALTER TABLE orders ADD COLUMN n int", "INSERT INTO orders (product, amount) VALUES (1, 1)"),
        ("DROP TABLE audit; DROP TRIGGER watch", "DELETE FROM audit"),
    ] {
        let site = shop();
        site.deploy(&Pkg::new("p").step(captured_mariadb(command))).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        execute(&site, others);
        let before = Fingerprint::of(&site);
        let outcome = site.redo().expect(Status::Refused);
        assert!(!outcome.conflicts.is_empty(), "{outcome:?}");
        before.assert_same(&Fingerprint::of(&site), command);
    }
}

#[test]
fn what_a_command_did_before_it_failed_is_undone() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let work = "DELETE FROM line WHERE id = 3; DROP TABLE audit; DROP TRIGGER watch; ALTER TABLE product DROP COLUMN price; CREATE TABLE made (id int)";
    for end in
        ["SELECT nothing", "SELECT SLEEP(600)", "BEGIN; UPDATE orders SET amount = 100 + SLEEP(0); SELECT SLEEP(600)"]
    {
        let mut step = captured_mariadb(&format!("{work}; {end}"));
        if end.contains("600") {
            step = step.with("timeout", "2s");
        }
        site.deploy(&Pkg::new("p").step(step)).expect(Status::Failed);
        before.assert_same(&Fingerprint::of(&site), end);
        assert_eq!(copies(&site), [""; 0], "{end}");
    }
    assert!(!site.state().join("captures").exists());
}

/// What nobody knows how to bring back, the command has not done.
#[test]
fn a_command_that_makes_what_is_not_handled_fails_and_all_of_it_goes() {
    for (odd, named) in [
        ("CREATE SEQUENCE ticket", "sequence ticket"),
        ("CREATE TABLE past (a int) WITH SYSTEM VERSIONING", "table past"),
        ("CREATE TABLE quick (a int) ENGINE=MEMORY", "table quick"),
        ("ALTER DATABASE COLLATE latin1_bin", "the character set of the database"),
        ("CREATE OR REPLACE VIEW cheap AS SELECT what FROM audit; DROP TABLE audit", "view cheap"),
    ] {
        let site = shop();
        let before = Fingerprint::of(&site);
        let work = "UPDATE product SET price = 1; DROP TRIGGER counted; DROP VIEW doubled; DROP FUNCTION twice; CREATE PROCEDURE p() SELECT 1;
            ALTER TABLE line DROP FOREIGN KEY of_order; CREATE TABLE other (a int); TRUNCATE old; ALTER TABLE orders ADD n int, AUTO_INCREMENT = 90";
        let done = site.deploy(&Pkg::new("p").step(captured_mariadb(&format!("{work}; {odd}"))));
        let outcome = done.expect(Status::Failed);
        assert!(outcome.causes.join(" ").contains(named), "{odd}: {outcome:?}");
        before.assert_same(&Fingerprint::of(&site), odd);
        assert_eq!(copies(&site), [""; 0], "{odd}");
        let collation = "SELECT DEFAULT_COLLATION_NAME = 'latin1_bin' FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = DATABASE()";
        assert_eq!(value(&site, collation), "0");
    }
}

/// What could not be brought back is refused while nothing has happened yet.
#[test]
fn a_database_with_what_is_not_handled_is_refused_beforehand() {
    let user = format!("small{}", std::process::id());
    for (odd, named) in [
        ("CREATE SEQUENCE ticket", "sequence ticket"),
        ("CREATE TABLE past (a int) WITH SYSTEM VERSIONING", "table past"),
        ("DROP FUNCTION twice", "view doubled"),
        // The server makes none of a view that nobody can use.
        ("CREATE OR REPLACE DEFINER=nobody@nowhere VIEW cheap AS SELECT id FROM product", "view cheaper"),
        ("SELECT 1", "doubled"),
    ] {
        let mine = odd != "SELECT 1";
        let site = match mine {
            true => of(&format!("{SHOP} {odd};")),
            false => TestSite::builder().mariadb_as("main", Server::shared(), SHOP, &user).build(),
        };
        if !mine {
            let name = &site.mariadb("main").unwrap().name;
            execute(&site, &format!("CREATE USER {user}@localhost; GRANT ALL ON {name}.* TO {user}@localhost"));
        }
        let before = Fingerprint::of(&site);
        let refused = site.deploy(&Pkg::new("p").step(captured_mariadb("DELETE FROM audit")));
        assert_eq!(refused.status(), Status::Refused, "{odd}: {refused:?}");
        let told = format!("{:?}", refused.result.err());
        assert!(mine && told.contains(named) || told.contains("of root@localhost"), "{odd}: {told}");
        before.assert_same(&Fingerprint::of(&site), odd);
    }
    execute(&shop(), &format!("DROP USER {user}@localhost"));
}

#[test]
fn a_plain_account_captures_what_is_its_own() {
    let user = format!("plain_c{}", std::process::id());
    let site = TestSite::builder().mariadb_as("main", Server::shared(), "", &user).build();
    let name = &site.mariadb("main").unwrap().name;
    execute(&site, &format!("CREATE USER {user}@localhost; GRANT ALL ON {name}.* TO {user}@localhost"));
    let base = "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, a int); CREATE TABLE c (a int, t int, FOREIGN KEY (t) REFERENCES t (id)); INSERT INTO t (a) VALUES (1); INSERT INTO c VALUES (1, 1);
        CREATE VIEW v AS SELECT a FROM t; CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 5";
    site.deploy(&Pkg::new("base").step(captured_mariadb(base))).expect(Status::Done);
    let before = Fingerprint::of(&site);
    let work = "INSERT INTO t (a) VALUES (2); ALTER TABLE t ADD b int; DROP VIEW v; DROP TRIGGER r; UPDATE c SET a = 2; CREATE TABLE n (a int)";
    site.deploy(&Pkg::new("work").step(captured_mariadb(work))).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
    site.undo(None).expect(Status::Done);
    assert_eq!(
        value(
            &site,
            "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME NOT LIKE 'backout%'"
        ),
        "0"
    );
    execute(&site, &format!("DROP USER {user}@localhost"));
}

/// What the undo of a later command leaves is what an earlier one left.
#[test]
fn one_command_after_another_is_undone() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let first = "UPDATE product SET price = 5 WHERE id < 3; INSERT INTO orders (product, amount) VALUES (4, 1); ALTER TABLE audit ADD n int;
        CREATE TABLE made (id int AUTO_INCREMENT PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES product (id)); INSERT INTO made (p) VALUES (1), (4);
        CREATE TABLE log (c int, FOREIGN KEY (c) REFERENCES product (id)); CREATE TRIGGER m BEFORE INSERT ON made FOR EACH ROW SET NEW.p = 1";
    let second = "ALTER TABLE made DROP FOREIGN KEY made_ibfk_1; ALTER TABLE log DROP FOREIGN KEY log_ibfk_1; ALTER TABLE orders DROP FOREIGN KEY ordered;
        ALTER TABLE product MODIFY id bigint; ALTER TABLE orders MODIFY product bigint; INSERT INTO orders (product, amount) VALUES (1, 1);
        ALTER TABLE orders ADD CONSTRAINT ordered FOREIGN KEY (product) REFERENCES product (id)";
    site.deploy(&Pkg::new("first").step(captured_mariadb(first))).expect(Status::Done);
    let between = Fingerprint::of(&site);
    site.deploy(&Pkg::new("failed").step(captured_mariadb(&format!("{second}; SELECT nothing"))))
        .expect(Status::Failed);
    between.assert_same(&Fingerprint::of(&site), "failed");
    site.deploy(&Pkg::new("second").step(captured_mariadb(second))).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    between.assert_same(&Fingerprint::of(&site), "the second undone");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "both undone");
}

#[test]
fn what_a_command_did_is_shown_as_changes() {
    let site = shop();
    let work = "UPDATE orders SET amount = 1; DROP TABLE audit; DROP TRIGGER watch; CREATE TABLE made (id int)";
    site.deploy(&Pkg::new("p").step(captured_mariadb(work))).expect(Status::Done);
    let config = site.config();
    let mut changes = Vec::new();
    backout_engine::report::show(&mut site.targets(&config).unwrap(), &site.journal(), None, &mut |shown| {
        if let backout_engine::report::Shown::Change { change, .. } = shown {
            changes.push((change.change, change.undo));
        }
    })
    .unwrap();
    let all = format!("{changes:?}");
    for told in ["DROP TABLE `audit`", "puts back audit", "CREATE TABLE `made`", "rows of orders", "takes made away"] {
        assert!(all.contains(told), "{told}: {changes:#?}");
    }
}

/// Of a large table the copy lacks the plain keys until it takes the table's place.
const LARGE: &str = "
    CREATE TABLE kind (id int PRIMARY KEY, name varchar(20)) ENGINE=InnoDB; INSERT INTO kind SELECT seq, seq FROM seq_1_to_9;
    CREATE TABLE large (id int AUTO_INCREMENT PRIMARY KEY, kind int, name varchar(60) NOT NULL, n int DEFAULT 7, hidden int INVISIBLE DEFAULT 3, body text,
        code varchar(20) COLLATE utf8mb4_bin, low varchar(60) AS (LOWER(name)) VIRTUAL, twice int AS (n * 2) PERSISTENT,
        KEY z (name), KEY a (name, n DESC) COMMENT 'KEY `x` (`y`)', UNIQUE KEY m (code), KEY `p``q, ``r` (body(9)), KEY v (low), KEY t (twice), KEY h (hidden) IGNORED,
        FULLTEXT KEY f (body), KEY k (kind), CONSTRAINT of_kind FOREIGN KEY (kind) REFERENCES kind (id)) ENGINE=InnoDB COMMENT='KEY `x`';
    INSERT INTO large (kind, name, n, hidden, body, code) SELECT 1 + seq % 9, CONCAT('Item ', seq % 900), seq % 70, seq, CONCAT('some text ', seq), CONCAT('c', seq)
        FROM seq_1_to_10020;
    ALTER TABLE large AUTO_INCREMENT = 20000;
    CREATE TABLE placed (id int PRIMARY KEY, place point NOT NULL, n int, KEY n (n), SPATIAL KEY s (place)) ENGINE=InnoDB; INSERT INTO placed SELECT seq, Point(seq, 1), seq FROM seq_1_to_10020;
    CREATE TABLE counted (n int NOT NULL AUTO_INCREMENT, id int PRIMARY KEY, a int, KEY (n), KEY (a)) ENGINE=InnoDB;
    INSERT INTO counted (id, a) SELECT seq, seq % 5 FROM seq_1_to_10020;
    CREATE TABLE loose (a int, b varchar(9), KEY (b), KEY (a)) ENGINE=InnoDB PARTITION BY HASH (a) PARTITIONS 2; INSERT INTO loose SELECT seq, seq % 7 FROM seq_1_to_10020;
    CREATE TABLE seen (copy int PRIMARY KEY, k text) ENGINE=InnoDB";

#[test]
fn large_tables_go_and_come_with_all_their_keys() {
    all_go_and_come(
        LARGE,
        &[
            "UPDATE large SET n = n + 1, body = 'other' WHERE id % 100 = 0; DELETE FROM large WHERE id = 7; INSERT INTO large (name) VALUES ('new')",
            "ALTER TABLE large ADD COLUMN more int, DROP KEY z; DELETE FROM large WHERE id > 9; ALTER TABLE counted DROP KEY a; UPDATE loose SET b = 'x' WHERE a = 3",
            "DROP TABLE large; TRUNCATE counted; TRUNCATE placed; DROP TABLE loose",
            "ALTER TABLE large DROP FOREIGN KEY of_kind; RENAME TABLE large TO big, counted TO large; ALTER TABLE loose DROP KEY a, ADD KEY b2 (b, a) REMOVE PARTITIONING",
        ],
    );
}

/// Those that the server would not make again in their order stay.
#[test]
fn the_copy_of_a_large_table_lacks_its_plain_keys_while_the_command_runs() {
    let keys = "SELECT GROUP_CONCAT(k ORDER BY k SEPARATOR '; ') FROM (
        SELECT GROUP_CONCAT(DISTINCT INDEX_NAME ORDER BY 1 SEPARATOR ' ') AS k FROM information_schema.STATISTICS
        WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME REGEXP '^backout_shop[$]c[0-9]+[$]t' GROUP BY TABLE_NAME) AS t";
    let site = of(LARGE);
    let package = |sql: &str| Pkg::new("p").step(captured_mariadb(sql));
    let seen = format!("INSERT INTO seen VALUES (1, ({keys})); UPDATE large SET n = 5 WHERE id = 4");
    assert_eq!(site.deploy(&package(&seen)).status(), Status::Done);
    assert_eq!(value(&site, "SELECT k FROM seen"), "a n PRIMARY; f m PRIMARY; n PRIMARY s; PRIMARY; PRIMARY");
    // What is held to take the table's place has them all.
    assert_eq!(site.deploy(&package("DROP TABLE large")).status(), Status::Done);
    assert_eq!(value(&site, keys), "a f h k m PRIMARY p`q, `r t v z");
    assert_eq!(site.undo(None).status(), Status::Done);
    assert_eq!(value(&site, "SELECT COUNT(*) FROM large WHERE MATCH (body) AGAINST ('9999')"), "1");
}
