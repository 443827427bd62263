//! Rows that nobody touched since go back without a look at each column; as soon as others touched one, or stand in the way,
//! the undo sees it.

use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::Server;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;

use super::rows::{is_done_undone_and_done_again, without_counters};

/// With and without keys beside the primary one, and one that the server looks at before InnoDB does.
const BASE: &str = "
    CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, a varchar(20) COLLATE utf8mb4_general_ci, b int, d double, e enum('', 'a'), bits bit(5),
        j json, moved timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
        twice int AS (b * 2) STORED, thrice int AS (b * 3) VIRTUAL, KEY (twice), KEY (thrice), KEY (a)) ENGINE=InnoDB;
    SET sql_mode = '';
    INSERT INTO t (id, a, b, d, e, bits, j, moved) VALUES (1, 'one', 1, -0e0, 'zzz', b'101', '{\"a\": 1.50}', '2001-02-03 04:05:06.789012'),
        (2, 'two ', 2, 0, '', 0, 'null', '2001-02-03'), (3, NULL, NULL, NULL, NULL, NULL, NULL, '2001-02-03'), (4, 'four', 4, 1e-300, 'a', 1, '4', '2001-02-03');
    CREATE TABLE u (k varchar(9) COLLATE utf8mb4_general_ci PRIMARY KEY, n int, code varchar(9) UNIQUE) ENGINE=InnoDB;
    INSERT INTO u VALUES ('x', 1, 'cx'), ('y', 2, 'cy'), ('z', 3, NULL);
    CREATE TABLE h (id int PRIMARY KEY, n int, long_text text, UNIQUE KEY (long_text) USING HASH) ENGINE=InnoDB;
    INSERT INTO h VALUES (1, 1, 'first'), (2, 2, 'second'), (3, 3, NULL);
    CREATE TABLE p (id int, since date, until date, n int, PERIOD FOR life (since, until), PRIMARY KEY (id, life WITHOUT OVERLAPS)) ENGINE=InnoDB;
    INSERT INTO p VALUES (1, '2020-01-01', '2020-02-01', 1), (1, '2020-02-01', '2020-03-01', 2);
    CREATE TABLE s (a int NOT NULL, b int NOT NULL, c int, UNIQUE KEY first (a), UNIQUE KEY second (b)) ENGINE=InnoDB;
    INSERT INTO s VALUES (1, 10, 1), (2, 20, 2), (3, 30, 3);";

fn site() -> TestSite {
    TestSite::builder().mariadb("main", Server::shared(), BASE).build()
}

fn ask(site: &TestSite, query: &str) -> String {
    site.mariadb("main").unwrap().script(query).trim_end().replace('\n', " ")
}

#[test]
fn what_nobody_touched_comes_back_exactly() {
    for script in [
        "UPDATE t SET b = b + 1;",
        "UPDATE t SET a = UPPER(a), d = 0, e = '' WHERE id < 3; UPDATE t SET d = -d, bits = 7, j = '[]' WHERE id = 2;",
        // What moves by itself stays where the script had it stay, too.
        "UPDATE t SET b = 9, moved = moved WHERE id = 1; UPDATE t SET a = NULL, moved = '2009-09-09' WHERE id = 4;",
        "UPDATE t SET a = CONCAT(a, ' ');",
        "REPLACE INTO t (id, a, b) VALUES (1, 'again', 5), (9, 'nine', 9); DELETE FROM t WHERE id = 4; UPDATE t SET b = 0 WHERE id = 2;",
        "DELETE FROM t;",
        "INSERT INTO t (a, b) SELECT a, b FROM t;",
        // The same key for the server, though not the same bytes.
        "UPDATE u SET k = UPPER(k);",
        "UPDATE u SET k = CONCAT(k, ' '), n = n + 1 WHERE k < 'z'; DELETE FROM u WHERE k = 'z'; INSERT INTO u VALUES ('Z', 4, 'cz');",
        // Values of a unique key that move round, or to a row that comes.
        "UPDATE u SET code = NULL WHERE k = 'x'; UPDATE u SET code = 'cx' WHERE k = 'y'; UPDATE u SET code = 'cy' WHERE k = 'x';",
        "UPDATE u SET code = 'other' WHERE k = 'x'; INSERT INTO u VALUES ('w', 0, 'cx'); DELETE FROM u WHERE k = 'y'; UPDATE u SET code = 'cy' WHERE k = 'z';",
        "UPDATE h SET n = n + 1; UPDATE h SET long_text = CONCAT(long_text, '!');",
        "UPDATE h SET long_text = NULL WHERE id = 1; UPDATE h SET long_text = 'first' WHERE id = 2; UPDATE h SET long_text = 'second', n = 0 WHERE id = 1;",
        "UPDATE p SET n = n + 5; DELETE FROM p WHERE n = 7; INSERT INTO p VALUES (1, '2021-01-01', '2021-02-01', 3);",
        "UPDATE s SET b = b + 1, c = 0; DELETE FROM s WHERE a = 2; INSERT INTO s VALUES (4, 20, 4);",
        "UPDATE s SET b = -1 WHERE a = 1; UPDATE s SET b = 10 WHERE a = 2; UPDATE s SET b = 20 WHERE a = 1;",
    ] {
        is_done_undone_and_done_again(BASE, script, script.contains(" t "));
    }
}

/// What others did to one row of many is seen, whatever stands untouched beside it.
#[test]
fn one_row_that_others_touched_is_seen() {
    let update = "UPDATE t SET b = b + 10;";
    for (script, others, why) in [
        (update, "UPDATE t SET b = 99, moved = moved WHERE id = 4", "now 99"),
        (update, "DELETE FROM t WHERE id = 4", "it is gone now"),
        ("DELETE FROM t WHERE id > 2;", "INSERT INTO t (id, a) VALUES (3, 'theirs')", "appeared since"),
        ("DELETE FROM u WHERE k > 'x';", "INSERT INTO u VALUES ('Z', 3, NULL)", "appeared since"),
        (
            "INSERT INTO u VALUES ('a', 1, NULL), ('b', 1, NULL);",
            "UPDATE u SET k = 'B' WHERE k = 'b'",
            "the deployment left b",
        ),
        ("UPDATE u SET n = n + 1;", "UPDATE u SET n = 0 WHERE k = 'z'", "now 0"),
        (
            "UPDATE u SET n = 7, code = 'new' WHERE k = 'x';",
            "UPDATE u SET code = 'cx' WHERE k = 'z'",
            "its code belongs to another row",
        ),
        ("DELETE FROM u WHERE k = 'x';", "UPDATE u SET code = 'cx' WHERE k = 'z'", "its code belongs to another row"),
        ("UPDATE s SET b = b + 1;", "UPDATE s SET b = 99 WHERE a = 3", "now 99"),
    ] {
        for how in [OnConflict::Keep, OnConflict::Overwrite] {
            let site = site();
            let before = Fingerprint::of(&site);
            site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
            ask(&site, others);
            let state = Fingerprint::of(&site);
            let done = site.undo(None);
            assert_eq!(done.status(), Status::Refused, "{script} {others}: {done:?}");
            assert!(format!("{done:?}").contains(why), "{script} {others}: {done:?}");
            state.assert_same(&Fingerprint::of(&site), others);
            let done = site.undo_on(None, how);
            assert!(matches!(done.status(), Status::Done | Status::Partly), "{script} {others} {how:?}: {done:?}");
            if how == OnConflict::Overwrite && !others.starts_with("UPDATE u SET code") && !others.contains("'B'") {
                without_counters(&before).assert_same(&without_counters(&Fingerprint::of(&site)), others);
            }
        }
    }
}

/// What others wrote into other columns stays, and what moves by itself stays where it was.
#[test]
fn a_column_of_others_is_merged_beside_rows_that_nobody_touched() {
    let site = site();
    site.deploy(&Pkg::new("p").step(sql("UPDATE t SET b = b + 10, moved = '2010-01-01';"))).expect(Status::Done);
    ask(&site, "UPDATE t SET a = 'theirs', moved = moved WHERE id = 2");
    site.undo(None).expect(Status::Done);
    let rows = "SELECT CONCAT_WS(',', id, a, b, twice, thrice, d, e + 0, YEAR(moved)) FROM t ORDER BY id";
    let is = ask(&site, rows);
    assert_eq!(is, "1,one,1,2,3,0,0,2001 2,theirs,2,4,6,0,1,2001 3,2001 4,four,4,8,12,1e-300,2,2001");
    site.redo().expect(Status::Done);
    let is = ask(&site, rows);
    assert_eq!(is, "1,one,11,22,33,0,0,2010 2,theirs,12,24,36,0,1,2010 3,2010 4,four,14,28,42,1e-300,2,2010");
}

/// Done again over what others changed, it is that, and no longer what the first run met, which goes back.
#[test]
fn what_others_did_between_an_undo_and_a_redo_comes_back() {
    let site = site();
    site.deploy(&Pkg::new("p").step(sql("UPDATE u SET n = n + 10; DELETE FROM u WHERE k = 'z';"))).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    ask(&site, "UPDATE u SET code = 'theirs' WHERE k = 'y'");
    let before = Fingerprint::of(&site);
    for _ in 0..2 {
        site.redo().expect(Status::Done);
        assert_eq!(ask(&site, "SELECT CONCAT_WS(',', k, n, code) FROM u"), "x,11,cx y,12,theirs");
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), "undone");
    }
}

/// A column that came since has no image, and stays as it is.
#[test]
fn a_column_that_came_since_does_not_move() {
    let site = site();
    site.deploy(&Pkg::new("p").step(sql("UPDATE t SET b = b + 10; DELETE FROM t WHERE id = 3;"))).expect(Status::Done);
    ask(&site, "ALTER TABLE t ADD COLUMN later timestamp NOT NULL DEFAULT '2003-03-03' ON UPDATE CURRENT_TIMESTAMP");
    site.undo(None).expect(Status::Done);
    let is = ask(&site, "SELECT CONCAT_WS(',', id, b, YEAR(later)) FROM t ORDER BY id");
    assert_eq!(is, "1,1,2003 2,2,2003 3,2003 4,4,2003");
}
