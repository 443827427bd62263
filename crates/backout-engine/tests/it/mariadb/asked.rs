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
    "DELETE FROM big WHERE id < 4; BEGIN; INSERT INTO big (v, id) SELECT 7, t.id FROM t WHERE code IS NULL OR id < 3; COMMIT;",
    "CREATE TABLE more LIKE big; INSERT INTO more SELECT * FROM big WHERE id < 500; BEGIN; REPLACE INTO big (id, v) SELECT id, v FROM more WHERE id > 3; COMMIT;
     UPDATE more SET v = 3 WHERE id > 400; BEGIN; DELETE FROM big WHERE id < 450; COMMIT; REPLACE INTO big SELECT * FROM more;",
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
        "SET sql_mode = 'TRADITIONAL', time_zone = '+05:30';",
        "SET sql_mode = 'PAD_CHAR_TO_FULL_LENGTH,NO_ZERO_DATE,NO_ZERO_IN_DATE,NO_UNSIGNED_SUBTRACTION', time_zone = 'SYSTEM';",
        "SET sql_mode = 'STRICT_ALL_TABLES', collation_connection = utf8mb4_bin, sql_select_limit = 1, sql_safe_updates = 0;",
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
        "SET sql_mode = 'NO_ZERO_DATE'; UPDATE t SET f = 1 WHERE day < '2021-01-01' OR id = 1;",
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
        "INSERT IGNORE INTO t (code) VALUES ('one');",
        "INSERT INTO t (id, code) VALUES (NULL, 'new');",
        "INSERT INTO t (code) VALUES ('one') ON DUPLICATE KEY UPDATE f = 5;",
        "UPDATE big AS x SET v = 1 WHERE x.id = 1;",
        "SET STATEMENT sql_mode = 'PIPES_AS_CONCAT' FOR UPDATE big SET v = 1 WHERE id || '' = '1';",
        "DELETE FROM shelf WHERE id = 1;",
        "REPLACE INTO shelf SELECT id, 'x' FROM big WHERE id = 2;",
        "REPLACE INTO t (id, code) SELECT id, id FROM big WHERE id < 3;",
        "INSERT INTO big SELECT id + 5000, v FROM big WHERE id < 3;",
        "INSERT INTO big (id, v) SELECT b + 7000, v FROM pair WHERE a = 'y';",
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
