//! Statements whose rows are kept by their own condition, or by the numbers that the server gave: no trigger is made for them,
//! and what they did goes back to the same bytes as with any.

use backout_engine::outcome::Status;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::{Queryable as _, Server};
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;

use super::rows::{BASE, is_done_undone_and_done_again};

/// A server on which nobody else makes triggers.
fn own(settings: &[&str]) -> &'static Server {
    Box::leak(Box::new(Server::with(settings)))
}

/// True where a deployment of a script makes triggers: more than one that changes no rows tries.
fn makes_triggers(server: &'static Server, script: &str) -> bool {
    triggers_made(server, script) > triggers_made(server, "SELECT 1;")
}

fn triggers_made(server: &'static Server, script: &str) -> u64 {
    let site = TestSite::builder().mariadb("main", server, BASE).build();
    let before = Fingerprint::of(&site);
    let mut conn = server.connect("mysql");
    let mut made = || -> u64 {
        let found: Option<(String, u64)> = conn.query_first("SHOW GLOBAL STATUS LIKE 'Com_create_trigger'").unwrap();
        found.unwrap().1
    };
    let first = made();
    site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
    let count = made() - first;
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), script);
    count
}

const ASKED: &[&str] = &[
    "UPDATE t SET f = 16777218, d = 0, e = 'a' WHERE id = 1;",
    "DELETE FROM t;",
    "UPDATE pair SET v = 1 WHERE a = 'X' AND `pair`.b IN (1, 2); DELETE FROM pair WHERE a = 'y';",
    "DELETE FROM big WHERE id % 3 = 0; UPDATE big SET v = v + 1 WHERE v BETWEEN 5 AND 900 AND NOT id IN (7, 8); UPDATE big SET v = v WHERE id < 100;
     DELETE FROM big WHERE v = 11 /* ) */ -- the last",
    "UPDATE big SET v = v; UPDATE big SET v = 3 WHERE v = 3 OR FALSE;",
    "INSERT INTO t (code) VALUES ('new'), ('newer'); UPDATE t SET f = 3; DELETE FROM t WHERE code = 'new' OR id = 1;",
    "INSERT INTO t (code) SELECT CONCAT('n', id) FROM big WHERE id < 500; INSERT INTO t (f) VALUES (1); DELETE FROM t WHERE LEFT(code, 2) = 'n1';",
    "DELETE FROM t WHERE day < '2021-01-01' OR at > '2024-10-27 02:30:00'; UPDATE t SET inv = 1 WHERE moved <> 0;",
    "REPLACE INTO big SELECT id, IF(id % 2, v, v + 1) FROM big WHERE id % 5 = 0 OR v < 30;",
    "REPLACE INTO big SELECT * FROM big;",
    "DELETE FROM t WHERE code = 5 OR day = '' OR inv < '7x'; DELETE FROM big WHERE MOD(v, 0) = 1 OR v = '3';",
    "UPDATE big SET v = 1 WHERE id < 5 AND id > 7; UPDATE big SET v = 1 WHERE id = 99999999999;",
    "DELETE FROM big WHERE id > 9000; INSERT INTO t (code) SELECT 'none' FROM big WHERE id > 9000;",
];

#[test]
fn plain_statements_need_no_trigger() {
    let server = own(&[]);
    for script in ASKED {
        assert!(!makes_triggers(server, script), "{script}");
        // ON UPDATE CURRENT_TIMESTAMP moves by the clock.
        is_done_undone_and_done_again(BASE, script, script.contains(" t ") || script.contains("t SET"));
    }
}

/// The script's settings are the statement's; rows are kept as they are, whatever these say.
#[test]
fn rows_are_kept_as_they_are_under_any_settings() {
    let server = own(&[]);
    for settings in [
        "SET sql_mode = 'ERROR_FOR_DIVISION_BY_ZERO,STRICT_ALL_TABLES', time_zone = '+05:30';",
        "SET sql_mode = 'PAD_CHAR_TO_FULL_LENGTH,NO_UNSIGNED_SUBTRACTION', time_zone = 'SYSTEM';",
        "SET sql_mode = 'STRICT_TRANS_TABLES', collation_connection = utf8mb4_bin, lc_messages = 'de_DE', sql_safe_updates = 0;",
    ] {
        for statement in
            ["UPDATE t SET inv = 1 WHERE LENGTH(l1) > 0 OR code IS NULL;", "DELETE FROM t WHERE code <> 'x' OR id = 3;"]
        {
            let script = format!("{settings} {statement}");
            assert!(!makes_triggers(server, &script), "{script}");
        }
    }
}

#[test]
fn what_may_mean_something_else_the_second_time_is_left_to_triggers() {
    let server = own(&[]);
    for script in [
        "SET sql_mode = 'TRADITIONAL'; UPDATE t SET f = 1 WHERE day < '2021-01-01' OR id = 1;",
        "DELETE FROM t WHERE day < '2021-01-01'; SET sql_mode = 'NO_ZERO_IN_DATE'; DELETE FROM t WHERE id = 1;",
        "UPDATE t SET f = 1 WHERE id < 3 AND moved < CURRENT_TIMESTAMP;",
        "UPDATE big SET v = 1 WHERE id < 100 * RAND();",
        "SET @x = 4; UPDATE big SET v = 1 WHERE id = @x;",
        "UPDATE big SET v = 1 WHERE id = (SELECT MAX(b) FROM pair);",
        "UPDATE big SET id = id + 5000;",
        "UPDATE big SET v = 1 ORDER BY id LIMIT 5;",
        "DELETE FROM big LIMIT 5;",
        "DELETE FROM big WHERE id = 1; UPDATE big SET v = ROW_COUNT() WHERE id = 2;",
        "BEGIN; UPDATE big SET v = 1; SAVEPOINT s; DELETE FROM big; ROLLBACK TO s; COMMIT;",
        "REPLACE INTO big VALUES (1, 7);",
        "INSERT IGNORE INTO big VALUES (1, 2);",
        "INSERT INTO t (id, code) VALUES (NULL, 'new');",
        "INSERT INTO t (code) VALUES ('one') ON DUPLICATE KEY UPDATE f = 5;",
        "UPDATE big AS x SET v = 1 WHERE x.id = 1;",
        "SET STATEMENT sql_mode = 'PIPES_AS_CONCAT' FOR UPDATE big SET v = 1 WHERE id || '' = '1';",
        "DELETE FROM shelf WHERE id = 1;",
        "SET sql_big_selects = 0; DELETE FROM big WHERE id < 3;",
        "SET sql_select_limit = 0; DELETE FROM big WHERE id < 3;",
        "SET NAMES latin1; UPDATE t SET f = 2 WHERE id = 1;",
        "SET sql_auto_is_null = 1; DELETE FROM big WHERE id = 1;",
        "INSERT INTO t (code) VALUES ('n1'); SET auto_increment_increment = 10; INSERT INTO t (code) VALUES ('n2'), ('n3');",
        "UPDATE big SET id := id + 9000 WHERE id = 1;",
        "CREATE TABLE parts (id int AUTO_INCREMENT PRIMARY KEY, v int) PARTITION BY HASH(id) PARTITIONS 3; INSERT INTO parts (v) SELECT v FROM big;",
        "CREATE VIEW tells AS SELECT ROW_COUNT() AS n; DELETE FROM big WHERE id < 4; UPDATE big SET v = (SELECT n FROM tells) WHERE id = 9;",
        "REPLACE INTO shelf SELECT id, 'x' FROM big WHERE id = 2;",
        "REPLACE INTO t (id, code) SELECT id, id FROM big WHERE id < 3;",
        "INSERT INTO big SELECT id + 5000, v FROM big WHERE id < 3;",
        "INSERT INTO big (id, v) SELECT b + 7000, v FROM pair WHERE a = 'y';",
        "CREATE TABLE more LIKE big; INSERT INTO more SELECT * FROM big WHERE id < 500; REPLACE INTO big SELECT id, 7 FROM more;",
    ] {
        assert!(makes_triggers(server, script), "{script}");
    }
}

/// Where others may write between what is kept and the statement, and where numbers need not follow each other.
#[test]
fn servers_that_promise_less_get_triggers() {
    let server = own(&["--transaction-isolation=READ-COMMITTED", "--innodb-autoinc-lock-mode=2"]);
    for script in ["UPDATE big SET v = 1;", "INSERT INTO t (code) VALUES ('new');"] {
        assert!(makes_triggers(server, script), "{script}");
    }
}

/// What a function writes on a statement's behalf is in no condition.
#[test]
fn a_function_that_writes_is_caught_by_triggers() {
    let server = own(&[]);
    let base = format!(
        "{BASE}\nDELIMITER //\nCREATE FUNCTION writes() RETURNS int BEGIN UPDATE big SET v = 0 WHERE id = 1; RETURN 3; END//\nDELIMITER ;"
    );
    let site = TestSite::builder().mariadb("main", server, &base).build();
    let before = Fingerprint::of(&site);
    let script = "UPDATE pair SET v = writes() WHERE b = 1; UPDATE big SET v = 5 WHERE id = 2;";
    site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), script);
}

/// What a script asks the server right behind a statement is answered as it would be without the tool.
#[test]
fn what_the_server_tells_of_a_statement_stays() {
    let server = own(&[]);
    for script in [
        "INSERT INTO t (f) VALUES (77), (78); SET @n = ROW_COUNT(); COMMIT; UPDATE big SET v = @n WHERE id = 1;",
        "INSERT INTO t (f) VALUES (77), (78); CREATE TEMPORARY TABLE z AS SELECT ROW_COUNT() AS n; COMMIT; INSERT INTO big SELECT 9000, n FROM z;",
        "UPDATE big SET v = 3 WHERE id < 5; SET @n = ROW_COUNT(); COMMIT; UPDATE big SET v = @n WHERE id = 1;",
    ] {
        let site = TestSite::builder().mariadb("main", server, BASE).build();
        site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
        let plain = server.database();
        plain.script(BASE);
        plain.script(script);
        let read = "SELECT GROUP_CONCAT(v ORDER BY id) FROM big WHERE id < 5 OR id > 8000";
        let found: Option<String> = site.mariadb("main").unwrap().connect().query_first(read).unwrap();
        let wanted: Option<String> = plain.connect().query_first(read).unwrap();
        assert_eq!(found, wanted, "{script}");
    }
}

/// Keys that print alike, and keys that the server moves by itself.
#[test]
fn keys_of_any_kind_are_told_apart() {
    let server = own(&["--explicit-defaults-for-timestamp=0"]);
    let base = "CREATE TABLE f (f float PRIMARY KEY, v int); INSERT INTO f VALUES (16777216, 1), (5, 2);
        CREATE TABLE at (at timestamp NOT NULL DEFAULT '2020-01-01 00:00:01' PRIMARY KEY, v int);";
    for script in [
        "UPDATE f SET f = f + 2 WHERE f > 100;",
        "INSERT INTO at VALUES ('2022-02-02 10:00:00', 1); UPDATE at SET v = 2 WHERE at > '2022-01-01';",
        "UPDATE f SET f := 7 WHERE v = 2;",
    ] {
        let site = TestSite::builder().mariadb("main", server, base).build();
        let before = Fingerprint::of(&site);
        site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), script);
    }
}

/// What others do to the counter of a table that a script only names is theirs.
#[test]
fn the_counter_that_others_move_is_theirs() {
    let server = own(&[]);
    let site = TestSite::builder().mariadb("main", server, BASE).build();
    let mut others = site.mariadb("main").unwrap().connect();
    let script = "UPDATE t SET f = 1 WHERE id = -5; UPDATE big SET v = SLEEP(2) WHERE id = 1;";
    let writes = std::thread::spawn(move || {
        let at_work = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'UPDATE big SET v = SLEEP%'";
        while others.query_first::<u64, _>(at_work).unwrap() == Some(0) {}
        others.query_drop("INSERT INTO t (code) VALUES ('theirs')").unwrap();
        others.query_drop("DELETE FROM t WHERE code = 'theirs'").unwrap();
        others
    });
    site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
    let mut others = writes.join().unwrap();
    site.undo(None).expect(Status::Done);
    let next: Option<u64> = others
        .query_first(
            "SELECT AUTO_INCREMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 't'",
        )
        .unwrap();
    assert_eq!(next, Some(5));
}

/// A table that others made one without transactions is a conflict: nothing that is tried there could be taken back.
#[test]
fn rows_of_another_engine_stay() {
    let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
    site.deploy(&Pkg::new("p").step(sql("UPDATE big SET v = 50 WHERE id < 5;"))).expect(Status::Done);
    site.mariadb("main").unwrap().connect().query_drop("ALTER TABLE big ENGINE=MyISAM").unwrap();
    let deployed = Fingerprint::of(&site);
    let undone = site.undo(None);
    assert_ne!(undone.status(), Status::Done, "{undone:?}");
    assert!(format!("{undone:?}").contains("it is of the engine MyISAM"), "{undone:?}");
    deployed.assert_same(&Fingerprint::of(&site), "a conflict");
}
