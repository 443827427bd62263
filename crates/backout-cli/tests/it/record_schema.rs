//! Changes of the schema are taken back by `psql` or `mariadb` alone with the `undo.sql` of a record, or that stops.

use std::fs;

use backout_testkit::{mariadb, mariadb_dump, postgres, postgres_dump};

use crate::record_servers::{client, deployed, mariadb_client, psql, said};

const BEFORE: &str = "
    CREATE TYPE size AS ENUM ('s', 'm');
    CREATE DOMAIN money2 AS numeric CHECK (VALUE >= 0);
    CREATE TABLE maker (id integer PRIMARY KEY, name text NOT NULL);
    INSERT INTO maker SELECT n, 'maker ' || n FROM generate_series(1, 50) n;
    CREATE TABLE product (id integer PRIMARY KEY, maker integer REFERENCES maker, name text DEFAULT 'x:y', price money2, how size);
    INSERT INTO product SELECT n, n, E'it''s\\\\' || n, n, 's' FROM generate_series(1, 50) n;
    COMMENT ON COLUMN product.name IS 'what it is called';
    CREATE TABLE visit (at integer, page text);
    INSERT INTO visit SELECT n, 'page' FROM generate_series(1, 300) n;
    CREATE INDEX visit_at ON visit (at);
    CREATE VIEW cheap AS SELECT id, name FROM product WHERE price < 10;
    CREATE FUNCTION priced(integer) RETURNS text LANGUAGE sql AS $$ SELECT name || ';' FROM product WHERE id = $1 $$;
    CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := upper(NEW.name); RETURN NEW; END $$;
    CREATE TRIGGER shout BEFORE UPDATE ON product FOR EACH ROW EXECUTE FUNCTION shout();
    CREATE TABLE log (at integer) PARTITION BY RANGE (at);
    CREATE TABLE log_a PARTITION OF log FOR VALUES FROM (0) TO (100);
    INSERT INTO log SELECT generate_series(0, 99);
    CREATE SEQUENCE ticket START 7; SELECT nextval('ticket');";

const CHANGES: [&str; 4] = [
    "ALTER TABLE product ADD COLUMN stock integer NOT NULL DEFAULT 5, ADD CONSTRAINT stocked CHECK (stock >= 0);
     CREATE INDEX product_stock ON product (stock) WHERE stock > 0;
     UPDATE product SET stock = 9, price = price + 1 WHERE id < 20;
     COMMENT ON COLUMN product.name IS 'another'; COMMENT ON TABLE product IS 'goods';
     ALTER TABLE product ALTER COLUMN name SET NOT NULL, ALTER COLUMN name DROP DEFAULT;
     GRANT SELECT ON product TO PUBLIC; GRANT UPDATE (price) ON product TO PUBLIC;",
    "DROP TABLE visit; DROP VIEW cheap; ALTER TABLE maker RENAME COLUMN name TO title; ALTER TABLE maker RENAME TO brand;
     CREATE VIEW cheap AS SELECT p.id, b.title FROM product p JOIN brand b ON b.id = p.maker;
     DROP SEQUENCE ticket; DROP TRIGGER shout ON product;",
    "CREATE OR REPLACE FUNCTION priced(integer) RETURNS text LANGUAGE sql AS $$ SELECT 'now: $backout$'::text $$;
     CREATE FUNCTION extra() RETURNS integer LANGUAGE sql AS 'SELECT 1'; CREATE TYPE colour AS ENUM ('red');
     CREATE SCHEMA shop2; CREATE TABLE shop2.tag (id serial PRIMARY KEY, colour colour, brand integer REFERENCES brand);
     INSERT INTO shop2.tag (colour, brand) VALUES ('red', 1);
     ALTER TABLE product DROP CONSTRAINT product_maker_fkey; ALTER TABLE product ENABLE ROW LEVEL SECURITY;
     CREATE POLICY all_of_it ON product USING (true); ALTER DOMAIN money2 SET DEFAULT 0;",
    "TRUNCATE shop2.tag, brand; INSERT INTO brand VALUES (1, 'only'); DELETE FROM product WHERE id > 40;
     CREATE TABLE log_b PARTITION OF log FOR VALUES FROM (100) TO (200); INSERT INTO log VALUES (150);
     CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM product;",
];

#[test]
fn psql_takes_back_changes_of_the_schema() {
    let database = postgres::Server::shared().database();
    database.psql(BEFORE);
    let before = postgres_dump::read(&database);
    let scene = deployed(&database.url(), &CHANGES);
    assert_ne!(postgres_dump::read(&database), before);
    let output = client(psql(&database), &scene, "r/sql/main/undo.sql");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(postgres_dump::read(&database), before);
    let holds = "SELECT count(*) FROM pg_namespace WHERE nspname ~ '_h[0-9]+$'";
    assert_eq!(database.psql(holds).trim(), "0");
}

#[test]
fn what_was_redone_is_taken_back_by_its_new_record() {
    let database = postgres::Server::shared().database();
    database.psql(BEFORE);
    let before = postgres_dump::read(&database);
    let scene = deployed(&database.url(), &CHANGES);
    scene.run(&["undo"]).exits(0);
    scene.run(&["redo"]).exits(0);
    scene.run(&["record", "--output", "again"]).exits(0);
    assert!(
        std::process::Command::new("tar")
            .args(["--zstd", "-xf", "again", "--one-top-level=a"])
            .current_dir(scene.path("."))
            .status()
            .unwrap()
            .success()
    );
    let output = client(psql(&database), &scene, "a/sql/main/undo.sql");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(postgres_dump::read(&database), before);
}

#[test]
fn psql_stops_where_the_schema_is_no_longer_as_it_was_left() {
    let database = postgres::Server::shared().database();
    database.psql(BEFORE);
    let scene = deployed(&database.url(), &CHANGES);
    let left = postgres_dump::read(&database);
    let undo = fs::read_to_string(scene.path("r/sql/main/undo.sql")).unwrap();
    for change in [
        "CREATE INDEX late ON product (stock)",
        "CREATE STATISTICS late ON stock, price FROM product",
        "UPDATE product SET stock = 6 WHERE id = 30",
        "ALTER TABLE product ALTER COLUMN stock SET DEFAULT 6",
        "ALTER TABLE product DROP CONSTRAINT stocked",
        "ALTER TABLE product DROP CONSTRAINT stocked; ALTER TABLE product ADD CONSTRAINT stocked CHECK (stock >= -1)",
        "ALTER TABLE product ALTER COLUMN name SET DEFAULT 'z'",
        "COMMENT ON COLUMN product.name IS 'by others'",
        "REVOKE SELECT ON product FROM PUBLIC",
        "CREATE TABLE visit (other integer)",
        "CREATE OR REPLACE VIEW cheap AS SELECT p.id, b.title FROM product p JOIN brand b ON b.id = p.id",
        "ALTER TABLE brand RENAME COLUMN title TO label",
        "ALTER TABLE brand RENAME TO label",
        "CREATE OR REPLACE FUNCTION priced(integer) RETURNS text LANGUAGE sql AS $$ SELECT 'theirs'::text $$",
        "ALTER TYPE colour RENAME VALUE 'red' TO 'rot'",
        "CREATE TABLE shop2.other (a integer)",
        "INSERT INTO shop2.tag (id, brand) VALUES (9, 1)",
        "CREATE VIEW late AS SELECT * FROM shop2.tag",
        "ALTER POLICY all_of_it ON product USING (false)",
        "ALTER DOMAIN money2 SET DEFAULT 1",
        "INSERT INTO log VALUES (160)",
        "CREATE INDEX late ON counted (count)",
        "DROP MATERIALIZED VIEW counted; CREATE MATERIALIZED VIEW counted AS SELECT 1 AS count",
        "INSERT INTO brand VALUES (2, 'late')",
    ] {
        scene.write("changed.sql", format!("BEGIN; {change}; SET CONSTRAINTS ALL IMMEDIATE;\n{undo}"));
        let output = client(psql(&database), &scene, "changed.sql");
        assert!(!output.status.success(), "{change}: it went through");
        assert_eq!(postgres_dump::read(&database), left, "{change}");
    }
    // What others made beside it stays.
    database.psql("CREATE INDEX beside ON product (price); INSERT INTO product VALUES (77, NULL, 'theirs', 1, 'm')");
    let output = client(psql(&database), &scene, "r/sql/main/undo.sql");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(database.psql("SELECT name, to_regclass('beside') FROM product WHERE id = 77").trim(), "theirs|beside");
}

const MARIADB_BEFORE: &str = "
    CREATE TABLE maker (id INT PRIMARY KEY, name VARCHAR(30) NOT NULL);
    CREATE TABLE product (id INT AUTO_INCREMENT PRIMARY KEY, maker INT, name VARCHAR(40) DEFAULT 'x', price DECIMAL(8,2), note TEXT,
        at TIMESTAMP NOT NULL DEFAULT '2026-01-01' ON UPDATE CURRENT_TIMESTAMP, CONSTRAINT of_maker FOREIGN KEY (maker) REFERENCES maker (id));
    INSERT INTO maker VALUES (1, 'one'), (2, 'it''s;');
    INSERT INTO product (maker, name, price, note) VALUES (1, 'coat', 10, 'a'), (2, 'hat', 20, 'b'), (NULL, 'scarf', 30, NULL);
    CREATE TABLE visit (at INT, page VARCHAR(20), KEY (at)); INSERT INTO visit VALUES (1, 'a'), (1, 'a'), (2, 'b');
    CREATE TABLE old (id INT PRIMARY KEY); INSERT INTO old VALUES (1), (2);
    CREATE VIEW cheap AS SELECT id, name FROM product WHERE price < 15;
    CREATE TABLE told (what VARCHAR(40));
    CREATE TRIGGER first AFTER INSERT ON told FOR EACH ROW SET @a = 1;
    CREATE TRIGGER second AFTER INSERT ON told FOR EACH ROW SET @b = 2;
    CREATE TRIGGER gone AFTER DELETE ON visit FOR EACH ROW SET @c = 3;
    CREATE PROCEDURE priced(n INT) SELECT price FROM product WHERE id = n;";

const MARIADB_SCHEMA: [&str; 3] = [
    "ALTER TABLE product ADD COLUMN stock INT NOT NULL DEFAULT 5, DROP COLUMN note, MODIFY price DECIMAL(10,3);
     CREATE INDEX by_stock ON product (stock); UPDATE product SET stock = 9 WHERE id = 1;
     DROP TABLE visit; TRUNCATE old; INSERT INTO old VALUES (9);
     CREATE TABLE tag (id INT PRIMARY KEY, product INT, FOREIGN KEY (product) REFERENCES product (id)); INSERT INTO tag VALUES (1, 1);",
    "ALTER TABLE maker RENAME TO brand; ALTER TABLE product DROP FOREIGN KEY of_maker; DROP TRIGGER first;
     CREATE OR REPLACE VIEW cheap AS SELECT id FROM product; CREATE FUNCTION seven() RETURNS INT RETURN 7;",
    "DROP PROCEDURE priced; CREATE TABLE copied AS SELECT id, name FROM product; UPDATE product SET price = price + 1;
     ALTER TABLE product CHANGE name title VARCHAR(60) NOT NULL;",
];

#[test]
fn mariadb_takes_back_changes_of_the_schema() {
    let database = mariadb::Server::shared().database();
    database.script(MARIADB_BEFORE);
    let before = mariadb_dump::read(&database);
    let scene = deployed(&database.url(), &MARIADB_SCHEMA);
    assert_ne!(mariadb_dump::read(&database), before);
    let output = client(mariadb_client(&database), &scene, "r/sql/main/undo.sql");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(mariadb_dump::read(&database), before);
    // Its parts say how far they have come: the tool knows, and can do it all again.
    scene.run(&["undo"]).exits(0);
    assert_eq!(mariadb_dump::read(&database), before);
    scene.run(&["verify"]).exits(0);
    scene.run(&["redo"]).exits(0);
    scene.run(&["undo"]).exits(0);
    assert_eq!(mariadb_dump::read(&database), before);
}

#[test]
fn mariadb_stops_where_the_schema_is_no_longer_as_it_was_left() {
    let database = mariadb::Server::shared().database();
    database.script(MARIADB_BEFORE);
    let before = mariadb_dump::read(&database);
    let scene = deployed(&database.url(), &MARIADB_SCHEMA);
    for (change, back) in [
        ("CREATE INDEX late ON product (title)", "DROP INDEX late ON product"),
        ("ALTER TABLE brand ADD COLUMN more INT", "ALTER TABLE brand DROP COLUMN more"),
        ("CREATE TABLE visit (other INT)", "DROP TABLE visit"),
        ("INSERT INTO tag VALUES (2, 2)", "DELETE FROM tag WHERE id = 2"),
        (
            "UPDATE product SET title = 'other', at = at WHERE id = 2",
            "UPDATE product SET title = 'hat', at = at WHERE id = 2",
        ),
        ("UPDATE product SET price = 1, at = at WHERE id = 3", "UPDATE product SET price = 31, at = at WHERE id = 3"),
        ("INSERT INTO copied VALUES (7, 'x')", "DELETE FROM copied WHERE id = 7"),
        (
            "CREATE OR REPLACE VIEW cheap AS SELECT name FROM brand",
            "CREATE OR REPLACE VIEW cheap AS SELECT id FROM product",
        ),
        ("CREATE TRIGGER late AFTER INSERT ON product FOR EACH ROW SET @d = 1", "DROP TRIGGER late"),
        ("CREATE PROCEDURE priced() SELECT 1", "DROP PROCEDURE priced"),
    ] {
        let found = mariadb_dump::read(&database);
        database.script(change);
        let left = mariadb_dump::read(&database);
        let output = client(mariadb_client(&database), &scene, "r/sql/main/undo.sql");
        assert!(!output.status.success(), "{change}: it went through");
        assert!(said(&output).contains("nothing was changed"), "{change}: {}", said(&output));
        assert_eq!(mariadb_dump::read(&database), left, "{change}");
        database.script(back);
        assert_eq!(mariadb_dump::read(&database), found, "{back}");
    }
    let output = client(mariadb_client(&database), &scene, "r/sql/main/undo.sql");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(mariadb_dump::read(&database), before);
}
