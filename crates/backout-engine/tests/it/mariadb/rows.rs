//! Statements that change rows: deployed to what the stock client makes of them, undone to the same bytes, done again.

use backout_engine::outcome::Status;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::Server;
use backout_testkit::mariadb_dump;
use backout_testkit::observer::Recorder;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;
use backout_testkit::tree::{PACKAGE_TIME, Tree};

pub const BASE: &str = "
    SET sql_mode = '', time_zone = 'SYSTEM';
    CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, code varchar(20) COLLATE utf8mb4_general_ci UNIQUE, f float, d double,
        n decimal(30,10), b bit(5), j json, e enum('', 'a', 'b'), s set('x', 'y'), day date, at timestamp(6) NULL,
        moved timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), l1 varchar(9) CHARACTER SET latin1,
        bin varbinary(9), blo blob, inv int INVISIBLE DEFAULT 5, twice int AS (id * 2) VIRTUAL, thrice int AS (f * 3) STORED) ENGINE=InnoDB CHARSET=utf8mb4;
    INSERT INTO t (id, code, f, d, n, b, j, e, s, day, at, moved, l1, bin, blo, inv) VALUES
        (1, 'one', 16777216, -0e0, 1.5000000001, b'101', '{\"a\": 1.50}', 'zzz', 'x,y', '0000-00-00', FROM_UNIXTIME(1729990800), '2001-02-03 04:05:06.789012', 'é', 'a\\0', 'x', 7),
        (2, 'Straße ', 1e-40, 1e308, -99999999999999999999.0000000001, 0, 'null', '', '', '2020-02-31', FROM_UNIXTIME(1729994400), '2001-02-03 04:05:06', 'a ', '', NULL, NULL),
        (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2001-02-03 04:05:06', NULL, NULL, NULL, NULL);
    CREATE TABLE pair (a varchar(9) COLLATE utf8mb4_general_ci, b int, v int, PRIMARY KEY (a, b)) ENGINE=InnoDB;
    INSERT INTO pair VALUES ('x', 1, 10), ('x', 2, 20), ('y', 1, 30);
    CREATE TABLE shelf (id int PRIMARY KEY, name varchar(9)) ENGINE=InnoDB;
    CREATE TABLE book (id int PRIMARY KEY, shelf int, title varchar(20), FOREIGN KEY (shelf) REFERENCES shelf (id) ON DELETE CASCADE ON UPDATE CASCADE) ENGINE=InnoDB;
    CREATE TABLE page (id int PRIMARY KEY, book int, no int, FOREIGN KEY (book) REFERENCES book (id) ON DELETE SET NULL) ENGINE=InnoDB;
    INSERT INTO shelf VALUES (1, 'a'), (2, 'b'), (3, 'c');
    INSERT INTO book VALUES (1, 1, 'one'), (2, 1, 'two'), (3, 2, 'three');
    INSERT INTO page VALUES (1, 1, 1), (2, 1, 2), (3, 3, 1);
    CREATE TABLE big (id int PRIMARY KEY, v int) ENGINE=InnoDB;
    INSERT INTO big SELECT seq, seq FROM seq_1_to_2000;";

pub const SCRIPTS: &[&str] = &[
    "UPDATE t SET f = 16777218, d = 0, e = 'a' WHERE id = 1;",
    "UPDATE t SET code = 'Straße' WHERE id = 2; UPDATE t SET l1 = 'A ' WHERE id = 2;",
    "DELETE FROM t;",
    "UPDATE t SET code = CASE id WHEN 1 THEN 'Straße ' WHEN 2 THEN 'one' END WHERE id < 3 ORDER BY id DESC LIMIT 0;
     UPDATE t SET code = CONCAT('x', id); UPDATE t SET code = CASE id WHEN 1 THEN 'x2' ELSE NULL END WHERE id = 1 OR id = 2 ORDER BY id DESC;",
    "INSERT INTO t (code) VALUES ('new'), ('newer'); INSERT INTO pair SELECT a, b + LAST_INSERT_ID(), v FROM pair;",
    "REPLACE INTO t (id, code) VALUES (1, 'Straße '), (50, 'fifty');",
    "INSERT INTO t (id, code) VALUES (1, 'z'), (60, 'sixty') ON DUPLICATE KEY UPDATE f = 9, id = id + 70;",
    "UPDATE t SET id = id + 100 ORDER BY id DESC; UPDATE t SET id = id - 99 WHERE id > 100 ORDER BY id;",
    "INSERT IGNORE INTO pair VALUES ('X', 1, 99), ('z', 1, 99); UPDATE pair SET a = 'X' WHERE a = 'x';",
    "UPDATE pair SET b = b + 10 WHERE a = 'x' ORDER BY b DESC; DELETE FROM pair ORDER BY RAND() LIMIT 2;",
    "DELETE FROM shelf WHERE id = 1; INSERT INTO shelf VALUES (1, 'again');",
    "UPDATE shelf SET id = id + 10; INSERT INTO book VALUES (9, 11, 'nine'); DELETE FROM book WHERE id = 1;",
    "UPDATE t JOIN pair ON pair.b = t.id SET t.f = pair.v, pair.v = 0; DELETE b, p FROM book AS b JOIN page AS p ON p.book = b.id WHERE b.id = 1;",
    "BEGIN; UPDATE big SET v = v + 1; COMMIT; START TRANSACTION; DELETE FROM big WHERE id % 3 = 0; COMMIT; UPDATE big SET v = 0 WHERE id < 5;",
    "SET @a := 3, sql_mode = ''; INSERT INTO t (id, day, e) VALUES (90, '2020-02-31', 'nonsense'); UPDATE t SET inv = @a, moved = moved WHERE id = 3;",
    "/*!40101 SET NAMES latin1 */; UPDATE t SET code = 'Ã' WHERE id = 3; /*M!100100 UPDATE big SET v = 1 WHERE id = 1 */; /*!50701 UPDATE big SET v = 2 */;",
    "UPDATE big SET v = v; SELECT 1; SET @x = 1;",
    "INSERT INTO big VALUES (5000, 1); DELETE FROM big WHERE id = 5000;",
    "INSERT INTO t (code) VALUES ('gone again'); DELETE FROM t WHERE code = 'gone again';",
    "",
];

#[test]
fn a_script_is_done_undone_and_done_again() {
    for &script in SCRIPTS {
        let varies = script.contains("RAND()")
            || script.contains("t SET")
            || script.contains(" t ")
            || script.contains("pair ON");
        is_done_undone_and_done_again(BASE, script, varies);
    }
}

/// A script on a site of its own. What moves by the clock, or is drawn, `varies` from one run to the next; else it is done as
/// the stock client does it.
pub fn is_done_undone_and_done_again(base: &str, script: &str, varies: bool) {
    let server = Server::shared();
    let site = TestSite::builder().mariadb("main", server, base).build();
    let live = site.mariadb("main").unwrap();
    let before = Fingerprint::of(&site);
    site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
    let plain = server.database();
    plain.script(base);
    plain.script(script);
    if !varies {
        assert_eq!(mariadb_dump::read(live), mariadb_dump::read(&plain), "{script}");
    }
    let after = Fingerprint::of(&site);
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), script);
    site.redo().expect(Status::Done);
    without_counters(&after).assert_same(&without_counters(&Fingerprint::of(&site)), script);
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), script);
    let own = mariadb_dump::own_objects(live);
    assert!(own.iter().all(|name| !name.ends_with("$l") && !name.ends_with('i')), "{own:?}");
}

/// A name alone means a function of the site's own database, whatever others call theirs.
#[test]
fn a_function_of_another_database_is_met_by_its_whole_name_alone() {
    let server = Server::shared();
    let other = server.database();
    other.script("CREATE FUNCTION shelf() RETURNS int DETERMINISTIC RETURN 1;");
    let site = TestSite::builder().mariadb("main", server, BASE).build();
    let before = Fingerprint::of(&site);
    let called = format!("UPDATE big SET v = {}.shelf() WHERE id = 1;", other.name);
    is_refused(&site, &before, &called, &format!("the routine shelf of the database {}", other.name));
    site.deploy(&Pkg::new("p").step(sql("UPDATE shelf SET name = 'z' WHERE id = 1;"))).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
}

/// A counter that was used stays in a redo where the rows tell it.
pub fn without_counters(state: &Fingerprint) -> Fingerprint {
    let mut state = state.clone();
    for lines in state.parts.values_mut() {
        for line in lines.values_mut() {
            if let Some(at) = line.find(" AUTO_INCREMENT=") {
                let end = line[at + 1..].find(' ').map_or(line.len(), |end| at + 1 + end);
                line.replace_range(at..end, "");
            }
        }
    }
    state
}

/// A script that is refused, or fails, says why and leaves everything as it was.
pub fn is_refused(site: &TestSite, before: &Fingerprint, script: &str, why: &str) {
    let done = site.deploy(&Pkg::new("p").step(sql(script)));
    let said = format!("{done:?}");
    assert!(said.contains(why), "{script}: {said}");
    assert!(matches!(done.status(), Status::Refused | Status::Failed), "{script}: {said}");
    before.assert_same(&Fingerprint::of(site), script);
}

#[test]
fn a_statement_that_fails_leaves_nothing() {
    let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
    let before = Fingerprint::of(&site);
    let done = site.deploy(&Pkg::new("p").step(sql("DELETE FROM big; INSERT INTO t (id) VALUES (1);")));
    assert_eq!(done.status(), Status::Failed, "{done:?}");
    before.assert_same(&Fingerprint::of(&site), "failed");
    let own = mariadb_dump::own_objects(site.mariadb("main").unwrap());
    assert_eq!(own, ["backout_shop", "backout_shop$segment"]);
}

#[test]
fn what_cannot_be_captured_is_refused_by_name() {
    let base = "CREATE TABLE computed (a int AS (1)) ENGINE=InnoDB; CREATE TABLE old (a int PRIMARY KEY) ENGINE=MyISAM;
        CREATE SEQUENCE s; CREATE TABLE hidden (a int PRIMARY KEY) ENGINE=InnoDB;
        CREATE TRIGGER w BEFORE INSERT ON hidden FOR EACH ROW SET NEW.a = SETVAL(s, 5); CREATE PROCEDURE bad() DROP TABLE ok;
        CREATE VIEW v AS SELECT 1 AS a;
        CREATE TABLE ok (a int PRIMARY KEY) ENGINE=InnoDB; CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 1;";
    let site = TestSite::builder().mariadb("main", Server::shared(), base).build();
    let before = Fingerprint::of(&site);
    for (script, why) in [
        ("INSERT INTO computed VALUES ()", "all columns of the table computed are computed"),
        ("INSERT INTO old VALUES (1)", "of the engine MyISAM"),
        ("INSERT INTO hidden VALUES (1)", "says SETVAL"),
        ("INSERT INTO mysql.x VALUES (1)", "may write to mysql.x"),
        ("CREATE TABLE x AS SELECT f() AS a", "may call a routine"),
        ("CALL bad()", "says DROP"),
        ("BEGIN NOT ATOMIC COMMIT; END", "says COMMIT"),
        ("PREPARE s FROM 'DROP TABLE ok'", "is no change of rows"),
        ("LOAD DATA INFILE 'x' INTO TABLE ok", "a file of the server's"),
        ("LOAD DATA LOCAL INFILE 'x' INTO TABLE ok", "does not lie beside the script"),
        ("LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE ok", "does not lie beside the script"),
        ("EXECUTE IMMEDIATE 'LOAD DATA LOCAL INFILE \\'0.sql\\' INTO TABLE ok'", "loads a file"),
        ("CREATE TEMPORARY TABLE ok (a int)", "temporary"),
        ("DROP DATABASE x", "`database` is not handled yet"),
        ("USE mysql", "one database"),
        ("SET GLOBAL max_connections = 5", "whole server"),
        ("DELETE FROM backout_shop", "the tool's own"),
    ] {
        is_refused(&site, &before, &format!("{script};"), why);
    }
}

/// A file that lies in the package is read and goes through the session; what it changes is captured as any rows are.
#[test]
fn a_file_in_the_package_is_loaded_undone_and_loaded_again() {
    let base = "CREATE TABLE t (id int PRIMARY KEY, name varchar(20), n int) ENGINE=InnoDB; INSERT INTO t VALUES (1, 'one', 1), (2, 'two', 2);
        CREATE TABLE log (id int AUTO_INCREMENT PRIMARY KEY, what varchar(40)) ENGINE=InnoDB;
        CREATE TRIGGER made AFTER INSERT ON t FOR EACH ROW INSERT INTO log (what) VALUES (NEW.name);";
    let many: String = (10..3000).map(|id| format!("{id};{}\n", "x".repeat(id % 20))).collect();
    let load = "LOAD DATA LOCAL INFILE 'data/rows.csv' REPLACE INTO TABLE t FIELDS TERMINATED BY ';' ENCLOSED BY '\"' IGNORE 1 LINES (id, name) SET n = id * 10;
        LOAD DATA LOCAL INFILE './data/many.csv' IGNORE INTO TABLE t FIELDS TERMINATED BY ';' (id, name);";
    let site = TestSite::builder().mariadb("main", Server::shared(), base).build();
    let before = Fingerprint::of(&site);
    let at = site.write(&Pkg::new("p").step(sql(load)));
    let data = Tree::new().file("rows.csv", "id;name\n2;\"zwei\"\n3;\"dr;ei\"\n").file("many.csv", many);
    data.write(&at.join("data"), PACKAGE_TIME);
    site.deploy_from(&at, Recorder::default()).expect(Status::Done);
    let after = Fingerprint::of(&site);
    let ask = |query: &str| site.mariadb("main").unwrap().script(query).trim_end().replace('\n', " ");
    assert_eq!(
        ask("SELECT CONCAT_WS('|', id, name, n) FROM t WHERE id < 10 ORDER BY id"),
        "1|one|1 2|zwei|20 3|dr;ei|30"
    );
    assert_eq!(ask("SELECT COUNT(*), (SELECT COUNT(*) FROM log) FROM t"), "2993\t2992");
    ask("UPDATE t SET n = 7 WHERE id = 3");
    assert!(format!("{:?}", site.undo(None)).contains("id=3"));
    ask("UPDATE t SET n = 30 WHERE id = 3");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
    site.redo().expect(Status::Done);
    after.assert_same(&Fingerprint::of(&site), "done again");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone again");
}
