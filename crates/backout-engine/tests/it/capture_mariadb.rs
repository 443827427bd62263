//! Captured commands on MariaDB: whatever its own client did to rows, definitions and counters goes back exactly, and comes
//! again.

use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::{Queryable as _, Server};
use backout_testkit::mariadb_dump;
use backout_testkit::package::{Pkg, captured_mariadb};
use backout_testkit::site::{Done, TestSite};

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
            "ALTER TABLE orders MODIFY id bigint AUTO_INCREMENT, ALGORITHM=COPY",
            "SET foreign_key_checks = 0; DROP TABLE product; DROP VIEW cheaper, cheap, doubled",
            "DROP TABLE line, orders; DROP TRIGGER watch; DROP TABLE audit, old, kept",
            "ALTER TABLE line DROP FOREIGN KEY of_order; DROP TABLE orders; UPDATE line SET orders = 99",
            "RENAME TABLE product TO goods, orders TO bought; DELETE FROM line WHERE id = 3",
            "RENAME TABLE audit TO x, old TO audit, x TO old",
            "ALTER TABLE line DROP FOREIGN KEY under; ALTER TABLE orders DROP FOREIGN KEY ordered, ADD CONSTRAINT other FOREIGN KEY (product) REFERENCES product (id) ON DELETE SET NULL",
            "CREATE TABLE a (id int PRIMARY KEY, b int, KEY (b)) ENGINE=InnoDB; CREATE TABLE b (id int PRIMARY KEY, a int, FOREIGN KEY (a) REFERENCES a (id)) ENGINE=InnoDB;
             ALTER TABLE a ADD CONSTRAINT circle FOREIGN KEY (b) REFERENCES b (id); INSERT INTO a VALUES (1, NULL); INSERT INTO b VALUES (1, 1); UPDATE a SET b = 1;
             ALTER TABLE line ADD COLUMN a int, ADD FOREIGN KEY (a) REFERENCES a (id); ALTER TABLE orders ADD FOREIGN KEY (amount) REFERENCES b (id) ON DELETE CASCADE, ADD KEY (product, amount)",
            "ALTER TABLE audit ADD COLUMN id int AUTO_INCREMENT PRIMARY KEY FIRST; ALTER TABLE kept ENGINE=InnoDB; ALTER TABLE old ADD c int AS (a * 2) STORED",
            "SET foreign_key_checks = 0; DROP TABLE line, orders, product, audit, old, kept; DROP VIEW doubled, cheaper, cheap; DROP FUNCTION twice; CREATE TABLE only (a int) ENGINE=InnoDB",
            "CREATE TRIGGER zero BEFORE UPDATE ON product FOR EACH ROW SET NEW.name = NEW.name; DROP TRIGGER counted; CREATE TRIGGER counted BEFORE DELETE ON line FOR EACH ROW SET @x = 1",
            "CREATE OR REPLACE VIEW cheap AS SELECT id, name, price FROM product; CREATE OR REPLACE FUNCTION twice(i bigint) RETURNS bigint DETERMINISTIC RETURN i + i; CREATE PROCEDURE p() SELECT 1;
             CREATE VIEW a_first AS SELECT * FROM cheaper; CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2035-01-01 00:00:00' DO SELECT 1",
            "TRUNCATE line; ALTER TABLE product DROP COLUMN price",
            "ALTER TABLE product CHANGE name title varchar(20)",
        ],
    );
}
