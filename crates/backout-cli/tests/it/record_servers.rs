//! Records on PostgreSQL and MariaDB: the undo from one alone, and the undo by `psql` and `mariadb` with `undo.sql`.

use std::fs;
use std::process::{Command, Output, Stdio};

use backout_testkit::{mariadb, mariadb_dump, postgres, postgres_dump};

use crate::record::lose_everything;
use crate::record_client::unpacked;
use crate::scene::Scene;

/// A scene on another engine: `url` in its site, and a package of `scripts`, deployed.
pub fn deployed(url: &str, scripts: &[&str]) -> Scene {
    let scene = Scene::new();
    scene.write("site.yaml", format!("site: shop\ndatabases:\n  main: {{url: \"{url}\"}}\n"));
    unpacked(&scene, scripts);
    scene
}

/// The database's own client with a script of the record.
pub fn client(mut command: Command, scene: &Scene, script: &str) -> Output {
    let script = fs::File::open(scene.path(script)).unwrap();
    command.stdin(Stdio::from(script)).output().unwrap()
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const POSTGRES: &str = "
    CREATE TABLE product (id integer PRIMARY KEY, name text UNIQUE, price numeric NOT NULL, data jsonb, at timestamptz);
    INSERT INTO product VALUES (1, 'coat', 100.50, '{\"a\": 1.50}', '2026-01-01 00:00+02'), (2, E'h\\'at\\t\\\\', 20, NULL, NULL), (3, 'scarf', 15, '[]', NULL);
    CREATE TABLE orders (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, product integer REFERENCES product ON DELETE CASCADE, amount real);
    INSERT INTO orders (product, amount) VALUES (1, 0.1), (2, 3), (3, 9);
    CREATE TABLE audit (what text, price numeric);
    CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit VALUES (new.name, new.price); RETURN NULL; END $$;
    CREATE TRIGGER watch AFTER UPDATE ON product FOR EACH ROW EXECUTE FUNCTION watch();
    INSERT INTO audit VALUES ('coat', 90), ('coat', 90), (NULL, 1);
    CREATE SEQUENCE ticket; SELECT setval('ticket', 7);";
const POSTGRES_CHANGES: [&str; 2] = [
    "UPDATE product SET price = price * 2, data = '{}' WHERE id < 3; DELETE FROM product WHERE id = 3;
     INSERT INTO product VALUES (4, 'gloves', 1e-10, '\"x\"', now()); INSERT INTO orders (product, amount) VALUES (4, 0.30000001);
     DELETE FROM audit WHERE ctid = (SELECT min(ctid) FROM audit WHERE what = 'coat');",
    "CREATE TABLE colour (id integer PRIMARY KEY, name text); CREATE INDEX colour_name ON colour (name);
     INSERT INTO colour VALUES (1, 'snow'); CREATE VIEW colours AS SELECT name FROM colour;
     UPDATE orders SET amount = amount + 1 WHERE id = 1;",
];

pub fn psql(database: &postgres::Database<'_>) -> Command {
    let mut command = database.server().client("psql");
    command.args(["-X", "-q", "-d", &database.name]);
    command
}

#[test]
fn a_deployment_on_postgresql_is_undone_from_its_record() {
    let database = postgres::Server::shared().database();
    database.psql(POSTGRES);
    let before = postgres_dump::read(&database);
    let scene = deployed(&database.url(), &POSTGRES_CHANGES);
    let left = postgres_dump::read(&database);
    assert_ne!(left, before);
    // By the client alone.
    let output = client(psql(&database), &scene, "r/sql/main/undo.sql");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(postgres_dump::read(&database), before);
    assert_eq!(database.psql("SELECT tgenabled FROM pg_trigger WHERE tgname = 'watch'").trim(), "O");
    // And what was run runs again.
    let output = client(psql(&database), &scene, "r/sql/main/executed.sql");
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_lost_state_directory_on_postgresql_is_made_again() {
    let database = postgres::Server::shared().database();
    database.psql(POSTGRES);
    let before = postgres_dump::read(&database);
    let dropping = "ALTER TYPE mood ADD VALUE 'cross'; ALTER TABLE orders DROP COLUMN amount; DROP TABLE audit;";
    let scene = deployed(&database.url(), &[POSTGRES_CHANGES[0], "CREATE TYPE mood AS ENUM ('calm')", dropping]);
    let refused = client(psql(&database), &scene, "r/sql/main/undo.sql");
    assert!(said(&refused).contains("no script: backout undo --record"), "{}", said(&refused));
    lose_everything(&scene);
    scene.run(&["undo", "--record", "rec"]).exits(0);
    assert_eq!(postgres_dump::read(&database), before);
    scene.run(&["verify"]).exits(0);
}

#[test]
fn psql_stops_where_a_row_is_no_longer_as_it_was_left() {
    let database = postgres::Server::shared().database();
    database.psql(POSTGRES);
    let scene = deployed(&database.url(), &POSTGRES_CHANGES);
    let left = postgres_dump::read(&database);
    let undo = fs::read_to_string(scene.path("r/sql/main/undo.sql")).unwrap();
    for change in [
        "UPDATE product SET price = 7 WHERE id = 1",
        "DELETE FROM product WHERE id = 2",
        "UPDATE product SET at = NULL WHERE id = 4",
        "INSERT INTO colour VALUES (2, 'pine')",
        "INSERT INTO orders (id, product, amount) OVERRIDING SYSTEM VALUE VALUES (99, 4, 1)",
        "DELETE FROM audit WHERE what = 'coat' AND price > 150",
        "CREATE RULE no AS ON DELETE TO product DO INSTEAD NOTHING",
    ] {
        // The script's own BEGIN goes on with the transaction: where it stops, the change is gone as well.
        scene.write("changed.sql", format!("BEGIN; {change}; SET CONSTRAINTS ALL IMMEDIATE;\n{undo}"));
        let output = client(psql(&database), &scene, "changed.sql");
        assert!(
            !output.status.success() && said(&output).contains("nothing was changed"),
            "{change}: {}",
            said(&output)
        );
        assert_eq!(postgres_dump::read(&database), left, "{change}");
    }
    // Columns that only others changed keep their values, as in any undo.
    database.psql("ALTER TABLE product DISABLE TRIGGER watch; UPDATE product SET name = 'top hat' WHERE id = 2");
    let output = client(psql(&database), &scene, "r/sql/main/undo.sql");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(database.psql("SELECT name, price FROM product WHERE id = 2").trim(), "top hat|20");
}

const MARIADB: &str = "
    CREATE TABLE product (id INT PRIMARY KEY, name VARCHAR(30) UNIQUE, price DECIMAL(9,2), weight DOUBLE,
        at TIMESTAMP NULL ON UPDATE CURRENT_TIMESTAMP, kind ENUM('a', 'b'), raw VARBINARY(20));
    INSERT INTO product VALUES (1, 'coat', 100.5, 0.1, '2026-01-01', 'a', x'00ff'), (2, 'h''at', 20, -0.0, NULL, NULL, NULL),
        (3, 'scarf', 15, 1e300, NULL, 'b', '');
    CREATE TABLE orders (id INT AUTO_INCREMENT PRIMARY KEY, product INT, FOREIGN KEY (product) REFERENCES product (id) ON DELETE CASCADE);
    INSERT INTO orders (product) VALUES (1), (2), (3);
    CREATE TABLE heard (what VARCHAR(9), n DOUBLE); INSERT INTO heard VALUES ('a', 1), ('a', 1), ('A', 1), ('b', NULL), ('b', NULL);";
const MARIADB_CHANGES: [&str; 2] = [
    "UPDATE product SET price = price * 2, weight = weight + 1 WHERE id < 3; DELETE FROM product WHERE id = 3;
     INSERT INTO product VALUES (4, 'gloves', 1, 0.30000000000000004, NULL, 'b', NULL); INSERT INTO orders (product) VALUES (4);
     UPDATE heard SET n = 0.1 LIMIT 2; INSERT INTO heard VALUES ('new', 1), ('new', 1), ('A', 1), ('A', 1);",
    "DELETE FROM heard WHERE what = 'b' LIMIT 1; UPDATE product SET kind = 'b' WHERE id = 1; UPDATE orders SET product = 2 WHERE id = 1;",
];

pub fn mariadb_client(database: &mariadb::Database<'_>) -> Command {
    let mut command = database.server().client("mariadb");
    command.args(["--default-character-set=utf8mb4", &database.name]);
    command
}

#[test]
fn a_deployment_on_mariadb_is_undone_from_its_record() {
    let database = mariadb::Server::shared().database();
    database.script(MARIADB);
    let before = mariadb_dump::read(&database);
    let scene = deployed(&database.url(), &MARIADB_CHANGES);
    assert_ne!(mariadb_dump::read(&database), before);
    let output = client(mariadb_client(&database), &scene, "r/sql/main/undo.sql");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(mariadb_dump::read(&database), before);
    let output = client(mariadb_client(&database), &scene, "r/sql/main/executed.sql");
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_lost_state_directory_on_mariadb_is_made_again() {
    let database = mariadb::Server::shared().database();
    database.script(MARIADB);
    let before = mariadb_dump::read(&database);
    let scene = deployed(
        &database.url(),
        &[
            MARIADB_CHANGES[0],
            "CREATE TRIGGER t AFTER INSERT ON orders FOR EACH ROW SET @a = 1; CREATE TABLE more (a INT);",
        ],
    );
    let refused = client(mariadb_client(&database), &scene, "r/sql/main/undo.sql");
    assert!(said(&refused).contains("no script: backout undo --record"), "{}", said(&refused));
    lose_everything(&scene);
    scene.run(&["undo", "--record", "rec"]).exits(0);
    assert_eq!(mariadb_dump::read(&database), before);
    scene.run(&["verify"]).exits(0);
}

#[test]
fn mariadb_stops_where_a_row_is_no_longer_as_it_was_left() {
    for change in [
        "UPDATE product SET price = 7 WHERE id = 1",
        "DELETE FROM product WHERE id = 2",
        "UPDATE product SET raw = 'x' WHERE id = 4",
        "INSERT INTO orders (product) VALUES (4)",
        "DELETE FROM heard WHERE what = 'new' LIMIT 1",
        "UPDATE heard SET what = 'NEW' WHERE what = 'new'",
        "CREATE TRIGGER late BEFORE UPDATE ON product FOR EACH ROW SET NEW.price = 1",
    ] {
        let database = mariadb::Server::shared().database();
        database.script(MARIADB);
        let scene = deployed(&database.url(), &MARIADB_CHANGES);
        database.script(change);
        let left = mariadb_dump::read(&database);
        let output = client(mariadb_client(&database), &scene, "r/sql/main/undo.sql");
        assert!(
            !output.status.success() && said(&output).contains("nothing was changed"),
            "{change}: {}",
            said(&output)
        );
        assert_eq!(mariadb_dump::read(&database), left, "{change}");
    }
    // Columns that only others changed keep their values, as in any undo.
    let database = mariadb::Server::shared().database();
    database.script(MARIADB);
    let scene = deployed(&database.url(), &MARIADB_CHANGES);
    database.script("UPDATE product SET name = 'top hat', at = at WHERE id = 2");
    let output = client(mariadb_client(&database), &scene, "r/sql/main/undo.sql");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(database.script("SELECT name, price FROM product WHERE id = 2").trim(), "top hat\t20.00");
}
