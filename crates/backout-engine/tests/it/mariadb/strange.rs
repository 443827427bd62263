//! What is rare and was once lost without a word: values that only a lenient server takes, texts in another character set,
//! rows that follow into another database, versions and periods.

use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::Server;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;

use super::ddl::{go_there_and_back, is_a_conflict};
use super::rows::is_refused;

const BASE: &str = "
    SET sql_mode = 'ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION';
    CREATE TABLE day (id int PRIMARY KEY, d date NOT NULL, t datetime NOT NULL) ENGINE=InnoDB;
    INSERT INTO day VALUES (1, '2001-02-31', '2001-04-31 01:00:00'), (2, '0000-00-00', '2020-00-00');
    CREATE TABLE kind (k enum('', 'x') PRIMARY KEY, v int) ENGINE=InnoDB; INSERT INTO kind VALUES ('bad', 1), ('', 2), ('x', 3);
    CREATE TABLE word (id int PRIMARY KEY, w varchar(20)) ENGINE=InnoDB;
    CREATE TABLE par (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO par VALUES (1), (2);
    SET NAMES latin1;
    CREATE TRIGGER word_new BEFORE INSERT ON word FOR EACH ROW SET NEW.w = CONCAT('é', NEW.w);
    CREATE FUNCTION accent() RETURNS varchar(9) RETURN 'ß'; CREATE VIEW named AS SELECT 'é' AS `ñ`;
    SET NAMES utf8mb4;";

const SCRIPTS: &[&str] = &[
    "SET sql_mode = ''; UPDATE day SET d = '2020-01-01', t = '2020-01-01'; DELETE FROM day WHERE id = 2;",
    "SET sql_mode = 'ALLOW_INVALID_DATES'; ALTER TABLE day DROP COLUMN d;",
    "SET sql_mode = ''; UPDATE kind SET v = v + 1; DELETE FROM kind WHERE k = 'x';",
    "INSERT INTO word VALUES (1, 'x'); TRUNCATE word; INSERT INTO word VALUES (2, 'ü');",
    "DROP TRIGGER word_new; DROP FUNCTION accent; DROP VIEW named;",
    "SET NAMES latin1; CREATE OR REPLACE TRIGGER word_new BEFORE INSERT ON word FOR EACH ROW SET NEW.w = 'ü'; CREATE OR REPLACE FUNCTION accent() RETURNS varchar(9) RETURN 'ü'; ALTER VIEW named AS SELECT 'ü' AS `ö`;",
    "SET timestamp = 1000000000.5, div_precision_increment = 9, lc_time_names = 'de_DE'; ALTER TABLE par ADD made datetime(6) NOT NULL DEFAULT NOW(6), ADD part varchar(40) DEFAULT (1 / 3), ADD month varchar(20) DEFAULT (DATE_FORMAT('2020-03-01', '%M'));",
    "SET auto_increment_increment = 10, auto_increment_offset = 3; ALTER TABLE word DROP PRIMARY KEY; ALTER TABLE par DROP PRIMARY KEY, ADD n int AUTO_INCREMENT PRIMARY KEY;",
    "ALTER TABLE word ADD par int REFERENCES par (id), ADD more int; INSERT INTO word (id, par) VALUES (5, 1); ALTER TABLE word DROP FOREIGN KEY word_ibfk_1;",
    "ALTER TABLE word ADD par int REFERENCES par (id);",
];

#[test]
fn what_is_strange_goes_there_and_back() {
    go_there_and_back(BASE, SCRIPTS);
}

#[test]
fn what_no_trigger_tells_of_is_refused() {
    let server = Server::shared();
    let base = "CREATE TABLE p (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO p VALUES (1), (2);
        CREATE TABLE v (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE) WITH SYSTEM VERSIONING;
        CREATE TABLE q (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO q VALUES (1), (2);
        CREATE TABLE r (id int PRIMARY KEY, q int, FOREIGN KEY (q) REFERENCES q (id) ON UPDATE CASCADE) ENGINE=InnoDB; INSERT INTO r VALUES (1, 1);
        CREATE TABLE time (id int, s date, e date, PERIOD FOR p (s, e), PRIMARY KEY (id, e)) ENGINE=InnoDB;
        INSERT INTO time VALUES (1, '2000-01-01', '2001-01-01');
        CREATE PROCEDURE part() DELETE FROM time FOR PORTION OF p FROM '2000-02-01' TO '2000-03-01';";
    let site = TestSite::builder().mariadb("main", server, base).build();
    let other = server.database();
    let here = &site.mariadb("main").unwrap().name;
    other.script(&format!(
        "CREATE TABLE c (id int PRIMARY KEY, r int, FOREIGN KEY (r) REFERENCES `{here}`.r (id) ON DELETE CASCADE) ENGINE=InnoDB; INSERT INTO c VALUES (1, 1);
        CREATE TABLE d (id int PRIMARY KEY, q int, FOREIGN KEY (q) REFERENCES `{here}`.q (id) ON UPDATE SET NULL) ENGINE=InnoDB; INSERT INTO d VALUES (1, 2);"
    ));
    let before = Fingerprint::of(&site);
    for (script, why) in [
        ("DELETE FROM p WHERE id = 1", "v is a system versioned table"),
        ("DELETE FROM r WHERE id = 1", "of another database would follow by the foreign key"),
        ("UPDATE q SET id = id + 10", "of another database would follow by the foreign key"),
        ("DELETE FROM time FOR PORTION OF p FROM '2000-02-01' TO '2000-03-01'", "FOR PORTION OF"),
        ("CALL part()", "says PORTION"),
    ] {
        is_refused(&site, &before, &format!("{script};"), why);
    }
    site.deploy(&Pkg::new("p").step(sql("UPDATE r SET q = 2; INSERT INTO q VALUES (5);"))).expect(Status::Done);
    // What others of the other database point at cannot go.
    other.script("INSERT INTO d VALUES (2, 5)");
    let undone = site.undo_on(None, OnConflict::Overwrite);
    assert!(format!("{undone:?}").contains("q = 5 is not in q"), "{undone:?}");
    other.script("DELETE FROM d WHERE id = 2");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
    other.script("DROP TABLE c, d");
}

/// A row whose parent in another database is gone since.
#[test]
fn a_parent_in_another_database_is_looked_up_there() {
    let server = Server::shared();
    let other = server.database();
    other.script("CREATE TABLE p (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO p VALUES (1), (2)");
    let base = format!(
        "CREATE TABLE p (id int PRIMARY KEY) ENGINE=InnoDB;
        CREATE TABLE c (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES `{}`.p (id)) ENGINE=InnoDB; INSERT INTO c VALUES (1, 1), (2, 2);",
        other.name
    );
    let site = TestSite::builder().mariadb("main", server, &base).build();
    let before = Fingerprint::of(&site);
    site.deploy(&Pkg::new("p").step(sql("DELETE FROM c;"))).expect(Status::Done);
    other.script("DELETE FROM p WHERE id = 2");
    let undone = site.undo(None);
    assert!(format!("{undone:?}").contains("p = 2 is not in"), "{undone:?}");
    other.script("INSERT INTO p VALUES (2)");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
    site.mariadb("main").unwrap().script("DROP TABLE c");
}

/// Duplicates of others have no place under a key that comes back: nothing is changed then, whatever was decided.
#[test]
fn rows_of_others_that_fit_no_more_leave_an_undo_that_overwrites_no_room() {
    let base = "CREATE TABLE t (id int PRIMARY KEY, a int UNIQUE, CONSTRAINT c CHECK (id > 0)) ENGINE=InnoDB; INSERT INTO t VALUES (1, 1);";
    for (script, others) in [
        ("ALTER TABLE t DROP INDEX a;", "INSERT INTO t VALUES (2, 1)"),
        ("ALTER TABLE t DROP CONSTRAINT c;", "INSERT INTO t VALUES (-2, 2)"),
    ] {
        is_a_conflict(base, script, others, "rows of others do not fit");
        let site = TestSite::builder().mariadb("main", Server::shared(), base).build();
        site.deploy(
            &Pkg::new("p").step(sql(format!("INSERT INTO t VALUES (7, 7); {script} INSERT INTO t VALUES (8, 8);"))),
        )
        .expect(Status::Done);
        site.mariadb("main").unwrap().script(others);
        let state = Fingerprint::of(&site);
        let undone = site.undo_on(None, OnConflict::Overwrite);
        assert_eq!(undone.status(), Status::Refused, "{undone:?}");
        state.assert_same(&Fingerprint::of(&site), script);
    }
}
