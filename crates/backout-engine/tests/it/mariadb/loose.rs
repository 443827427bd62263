//! Tables without a key: whatever changes their rows goes back to the same rows, as many times; others write there, too.

use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::Server;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;

use super::rows::is_done_undone_and_done_again;

pub const BASE: &str = "
    SET sql_mode = '', time_zone = 'SYSTEM';
    CREATE TABLE t (no int AUTO_INCREMENT, KEY (no), code varchar(20) COLLATE utf8mb4_general_ci NULL, UNIQUE (code), f float, d double,
        n decimal(30,10), b bit(5), j json, e enum('', 'a', 'b'), s set('x', 'y'), day date, at timestamp(6) NULL, l1 varchar(9) CHARACTER SET latin1,
        u16 char(5) CHARACTER SET utf16, bin varbinary(9), fix binary(3), blo blob, inv int INVISIBLE DEFAULT 5, spot point, id uuid, net inet6, ye year, ti time(3),
        twice int AS (no * 2) VIRTUAL, thrice int AS (f * 3) STORED) ENGINE=InnoDB CHARSET=utf8mb4;
    INSERT INTO t (no, code, f, d, n, b, j, e, s, day, at, l1, u16, bin, fix, blo, inv, spot, id, net, ye, ti) VALUES
        (1, 'one', 16777216, 0.1, 1.5000000001, b'101', '{\"a\": 1.50}', 'zzz', 'x,y', '0000-00-00', FROM_UNIXTIME(1729990800), 'é', 'ß', 'a\\0', 'a', 'x', 7,
            POINT(1, 2), '123e4567-e89b-12d3-a456-426614174000', '::1', 0, '-838:59:59'),
        (2, 'Straße ', 1e-40, 1e308, -99999999999999999999.0000000001, 0, 'null', '', '', '2020-02-31', FROM_UNIXTIME(1729994400), 'a ', '', '', '', NULL, NULL,
            NULL, NULL, NULL, 2155, '0:0:0.001');
    INSERT INTO t (no) VALUES (3), (3), (3);
    CREATE TABLE plain (a int, v varchar(9) COLLATE utf8mb4_general_ci) ENGINE=InnoDB;
    INSERT INTO plain VALUES (1, 'x'), (1, 'x'), (1, 'X'), (1, 'x '), (1, NULL), (1, ''), (NULL, ''), (NULL, NULL), (2, 'y');
    CREATE TABLE part (a text, v int, PRIMARY KEY (a(5))) ENGINE=InnoDB; INSERT INTO part VALUES ('one', 1), ('two', 2);
    CREATE TABLE moving (a int, moved timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)) ENGINE=InnoDB;
    INSERT INTO moving VALUES (1, '2001-02-03 04:05:06.789'), (1, '2001-02-03 04:05:06.789'), (2, '2001-02-03');
    CREATE TABLE named (k varchar(9) NOT NULL, v int, w int, UNIQUE (k), UNIQUE (w)) ENGINE=InnoDB; INSERT INTO named VALUES ('a', 1, 1), ('b', 2, 2);
    CREATE TABLE shelf (id int PRIMARY KEY, name varchar(9)) ENGINE=InnoDB; INSERT INTO shelf VALUES (1, 'a'), (2, 'b');
    CREATE TABLE book (shelf int, title varchar(20), FOREIGN KEY (shelf) REFERENCES shelf (id) ON DELETE CASCADE ON UPDATE CASCADE, KEY (title)) ENGINE=InnoDB;
    INSERT INTO book VALUES (1, 'one'), (1, 'one'), (2, 'two');
    CREATE TABLE page (id int PRIMARY KEY, title varchar(20), FOREIGN KEY (title) REFERENCES book (title) ON DELETE SET NULL ON UPDATE CASCADE) ENGINE=InnoDB;
    INSERT INTO page VALUES (1, 'one'), (2, 'two');
    CREATE TABLE heard (what varchar(30)) ENGINE=InnoDB;
    CREATE TRIGGER hears AFTER UPDATE ON plain FOR EACH ROW INSERT INTO heard VALUES (CONCAT_WS('|', OLD.v, NEW.v));
    DELIMITER $$
    CREATE PROCEDURE twice() BEGIN UPDATE plain SET a = a + 1; UPDATE plain SET a = a + 1 WHERE v = 'x'; END$$
    DELIMITER ;
    CREATE TABLE cut (a int, b int) ENGINE=InnoDB PARTITION BY RANGE (a) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE);
    INSERT INTO cut VALUES (1, 1), (1, 1), (2, 2), (20, 1), (20, 1);
    CREATE TABLE big (v int, w int) ENGINE=InnoDB; INSERT INTO big SELECT seq DIV 7, seq % 3 FROM seq_1_to_3000;";

const SCRIPTS: &[&str] = &[
    "UPDATE plain SET v = 'z' LIMIT 2; DELETE FROM plain LIMIT 3; INSERT INTO plain SELECT * FROM plain;",
    "UPDATE plain SET v = UPPER(v); UPDATE plain SET v = LOWER(v) WHERE a = 1;",
    "UPDATE t SET f = 16777218, e = 2 WHERE no = 1; UPDATE t SET l1 = 'A ', j = '{\"a\":1.50}', d = d + 1 WHERE no < 3;",
    "DELETE FROM t; INSERT INTO t (code) VALUES ('new'), ('newer');",
    "UPDATE t SET e = 1 WHERE no = 1; UPDATE t SET b = NULL, s = NULL, day = NULL, ye = NULL, spot = POINT(3, 4); UPDATE t SET no = no * 2 ORDER BY RAND() LIMIT 2;",
    "UPDATE t SET code = 'swap' WHERE no = 1; UPDATE t SET code = 'ONE' WHERE no = 2; UPDATE t SET code = 'STRASSE' WHERE no = 1;",
    "REPLACE INTO t (no, code) VALUES (8, 'one'); INSERT INTO t (no, code) VALUES (9, 'ONE') ON DUPLICATE KEY UPDATE no = 10, code = 'three';
     INSERT IGNORE INTO t (no, code) VALUES (11, 'THREE');",
    "UPDATE plain SET v = v; UPDATE plain SET a = a + 1; UPDATE plain SET a = a - 1; INSERT INTO plain VALUES (9, 'q'); DELETE FROM plain WHERE a = 9;",
    "UPDATE plain AS p JOIN part ON part.v = p.a SET p.v = part.a, part.v = part.v + 10; DELETE p FROM plain AS p JOIN part ON p.v = part.a WHERE part.a = 'one';",
    "CALL twice(); PREPARE s FROM 'DELETE FROM plain WHERE a = 3'; EXECUTE s;",
    "UPDATE moving SET a = 1 WHERE a = 1; UPDATE moving SET a = a + 1, moved = moved WHERE a = 2; UPDATE moving SET a = 3 WHERE a = 1 LIMIT 1;",
    "UPDATE named SET w = 3 - w ORDER BY k = 'b' LIMIT 0; UPDATE named SET w = w + 10; UPDATE named SET w = 13 - w WHERE k = 'a'; REPLACE INTO named VALUES ('c', 1, 12);",
    "DELETE FROM shelf WHERE id = 1; UPDATE shelf SET id = 5; INSERT INTO book VALUES (5, 'five');",
    "UPDATE book SET title = 'uno' WHERE title = 'one'; DELETE FROM book WHERE title = 'two';",
    "UPDATE IGNORE t SET code = 'one' WHERE no < 4; UPDATE IGNORE book SET shelf = 9 WHERE shelf = 1; UPDATE IGNORE cut SET a = b + 4;",
    "TRUNCATE plain; INSERT INTO plain VALUES (1, 'x'); SET foreign_key_checks = 0; TRUNCATE book; TRUNCATE big;",
    "ALTER TABLE cut TRUNCATE PARTITION p0; UPDATE cut SET a = a - 15 LIMIT 1; ALTER TABLE cut DROP PARTITION p1;",
    "ALTER TABLE plain ADD COLUMN c int DEFAULT 4 FIRST; UPDATE plain SET c = a; DELETE FROM plain WHERE v = 'y'; ALTER TABLE plain RENAME TO plane; INSERT INTO plane VALUES (1, 1, 'x');",
    "INSERT INTO big SELECT * FROM big; UPDATE big SET w = 4 WHERE v % 2 = 0; DELETE FROM big WHERE w = 1 LIMIT 500; UPDATE big SET v = 0 WHERE w = 4;",
    "CREATE TABLE fresh (a int, b text) ENGINE=InnoDB; INSERT INTO fresh VALUES (1, 'x'), (1, 'x'); UPDATE fresh SET a = 2 LIMIT 1; DROP TABLE plain;",
    "BEGIN; DELETE FROM big LIMIT 10; SAVEPOINT one; DELETE FROM big; ROLLBACK TO one; COMMIT; BEGIN; UPDATE big SET v = 1; ROLLBACK; UPDATE big SET w = 9 LIMIT 3;",
    "INSERT INTO part VALUES (REPEAT('long', 2000), 1), ('four', 4); UPDATE part SET v = 5 WHERE a = 'one'; UPDATE part SET a = 'eno' WHERE v = 5;",
];

#[test]
fn a_script_is_done_undone_and_done_again() {
    SCRIPTS.iter().step_by(2).for_each(|script| is_done(script));
}

#[test]
fn another_script_is_done_undone_and_done_again() {
    SCRIPTS.iter().skip(1).step_by(2).for_each(|script| is_done(script));
}

fn is_done(script: &str) {
    is_done_undone_and_done_again(BASE, script, script.contains("RAND()") || script.contains("moving"));
}

fn ask(site: &TestSite, query: &str) -> String {
    site.mariadb("main").unwrap().script(query).trim_end().replace('\n', " ").replace('\t', ",")
}

const PLAIN: &str = "SELECT a, v FROM plain ORDER BY a, HEX(v)";

#[test]
fn a_row_of_others_is_as_good_as_the_own() {
    for (change, others, expected) in [
        // One of three equal rows goes: whose it was is no matter.
        ("INSERT INTO plain VALUES (1, 'x')", "INSERT INTO plain VALUES (1, 'x')", "1,x 1,x 1,x"),
        ("DELETE FROM plain WHERE BINARY v = 'x' LIMIT 1", "INSERT INTO plain VALUES (1, 'x')", "1,x 1,x 1,x"),
        ("INSERT INTO plain VALUES (1, 'x')", "DELETE FROM plain WHERE BINARY v = 'x' LIMIT 2", ""),
        // Rows that only a collation takes for the same stay apart.
        ("INSERT INTO plain VALUES (1, 'X ')", "INSERT INTO plain VALUES (1, 'x '), (1, 'X')", "1,X 1,x 1,x 1,x "),
        ("UPDATE plain SET v = 'z' WHERE a = 1", "INSERT INTO plain VALUES (5, 'z')", "1,x 1,x 5,z"),
        ("UPDATE plain SET a = 2; UPDATE plain SET a = 1 LIMIT 1", "UPDATE plain SET v = v", "1,x 1,x"),
    ] {
        let base = "CREATE TABLE plain (a int, v varchar(9) COLLATE utf8mb4_general_ci) ENGINE=InnoDB; INSERT INTO plain VALUES (1, 'x'), (1, 'x');";
        let site = TestSite::builder().mariadb("main", Server::shared(), base).build();
        site.deploy(&Pkg::new("p").step(sql(format!("{change};")))).expect(Status::Done);
        ask(&site, others);
        site.undo(None).expect(Status::Done);
        let undone = ask(&site, PLAIN);
        assert_eq!(undone, expected.trim_end(), "{change}");
        site.redo().expect(Status::Done);
        site.undo(None).expect(Status::Done);
        assert_eq!(ask(&site, PLAIN), undone, "{change}");
    }
}

#[test]
fn a_row_that_is_not_there_is_a_conflict() {
    let base = "CREATE TABLE plain (a int, v varchar(9)) ENGINE=InnoDB; INSERT INTO plain VALUES (1, 'x'), (1, 'x'), (2, 'y');";
    for (change, others, keep, overwrite) in [
        (
            "UPDATE plain SET v = 'z' WHERE a = 2",
            "UPDATE plain SET a = 3 WHERE v = 'z'",
            "1,x 1,x 3,z",
            "1,x 1,x 2,y 3,z",
        ),
        ("UPDATE plain SET v = 'z' WHERE a = 1", "DELETE FROM plain WHERE a = 1 LIMIT 1", "1,x 2,y", "1,x 1,x 2,y"),
        ("UPDATE plain SET v = CONCAT(v, v)", "UPDATE plain SET v = 'w' WHERE a = 2", "1,x 1,x 2,w", "1,x 1,x 2,w 2,y"),
        (
            "INSERT INTO plain VALUES (7, 'q'), (7, 'q')",
            "DELETE FROM plain WHERE a = 7 LIMIT 1",
            "1,x 1,x 2,y",
            "1,x 1,x 2,y",
        ),
    ] {
        for (how, expected) in [(OnConflict::Keep, keep), (OnConflict::Overwrite, overwrite)] {
            let site = TestSite::builder().mariadb("main", Server::shared(), base).build();
            site.deploy(&Pkg::new("p").step(sql(format!("{change};")))).expect(Status::Done);
            ask(&site, others);
            let state = ask(&site, PLAIN);
            let done = site.undo(None);
            assert_eq!(done.status(), Status::Refused, "{change}: {done:?}");
            assert!(format!("{done:?}").contains("it is gone now"), "{change}: {done:?}");
            assert_eq!(ask(&site, PLAIN), state, "{change}");
            let done = site.undo_on(None, how);
            assert!(matches!(done.status(), Status::Done | Status::Partly), "{change}: {done:?}");
            assert_eq!(ask(&site, PLAIN), expected, "{change}, {how:?}");
        }
    }
}

#[test]
fn what_others_hung_on_such_a_table_is_a_conflict() {
    for (change, others, why) in [
        ("DELETE FROM t WHERE no = 1", "INSERT INTO t (no, code) VALUES (9, 'ONE')", "stands in the way"),
        ("INSERT INTO book VALUES (2, 'new')", "INSERT INTO page VALUES (9, 'new')", "title = new is not in book"),
        ("DELETE FROM book WHERE title = 'two'", "DELETE FROM shelf WHERE id = 2", "shelf = 2 is not in shelf"),
        ("UPDATE plain SET a = 9", "ALTER TABLE plain ADD COLUMN own int DEFAULT 3", "it has a column own"),
        ("UPDATE plain SET a = 9", "ALTER TABLE plain ADD COLUMN id int AUTO_INCREMENT PRIMARY KEY", "it has a"),
        ("UPDATE plain SET a = 9", "ALTER TABLE plain MODIFY a bigint", "is of type bigint"),
    ] {
        let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
        site.deploy(&Pkg::new("p").step(sql(format!("{change};")))).expect(Status::Done);
        ask(&site, others);
        let before = Fingerprint::of(&site);
        let done = site.undo(None);
        assert_eq!(done.status(), Status::Refused, "{change}: {done:?}");
        assert!(format!("{done:?}").contains(why), "{change}: {done:?}");
        before.assert_same(&Fingerprint::of(&site), change);
    }
}
