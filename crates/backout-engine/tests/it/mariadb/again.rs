//! What no second run would give: a redo gives rows again what they had, or says that it cannot.

use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_testkit::every;
use backout_testkit::faults::{Fault, play};
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::{Queryable as _, Server};
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;

use super::ddl::{go_there_and_back, is_a_conflict};
use super::rows::is_refused;

const BASE: &str = "CREATE TABLE t (a int AUTO_INCREMENT PRIMARY KEY, b varchar(40), m timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)) ENGINE=InnoDB;
    INSERT INTO t (b, m) VALUES ('x', '2001-01-01'), ('y', '2001-01-01'), ('z', '2001-01-01');
    CREATE TABLE loose (a int) ENGINE=InnoDB; INSERT INTO loose VALUES (1), (2);
    CREATE TRIGGER acts BEFORE UPDATE ON t FOR EACH ROW SET NEW.b = 'acted';
    CREATE TABLE par (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO par VALUES (1);
    CREATE TABLE child (id int PRIMARY KEY, par int, FOREIGN KEY (par) REFERENCES par (id)) ENGINE=InnoDB;
    CREATE PROCEDURE lenient() SET foreign_key_checks = 0;";

/// Deploys a script, and twice undoes it and does it again, to the same each time.
fn comes_again(base: &str, script: &str) {
    let site = TestSite::builder().mariadb("main", Server::shared(), base).build();
    let before = Fingerprint::of(&site);
    site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
    let deployed = Fingerprint::of(&site);
    for _ in 0..2 {
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), script);
        site.redo().expect(Status::Done);
        deployed.assert_same(&Fingerprint::of(&site), script);
    }
}

#[test]
fn values_that_the_server_gives_once_are_given_again() {
    for script in [
        "ALTER TABLE t ADD c varchar(40) DEFAULT UUID(); UPDATE t SET b = 'k', m = m WHERE a = 1; UPDATE t SET c = NULL WHERE a = 2;",
        "ALTER TABLE t ADD c double DEFAULT (RAND()), ADD n int DEFAULT 5, ADD s datetime(6) DEFAULT (SYSDATE(6)) FIRST;",
        "ALTER TABLE t ADD c int DEFAULT (CONNECTION_ID()), MODIFY b varchar(50) CHARACTER SET latin1, MODIFY a bigint AUTO_INCREMENT; INSERT INTO t (b) VALUES ('new');",
        "SET @x = 5; ALTER TABLE t ADD c int DEFAULT (@x);",
        "ALTER TABLE t ADD c varchar(40) NOT NULL DEFAULT UUID() COMMENT 'instead of auto_increment as (a default b)';",
        "ALTER TABLE t ADD c datetime(6) DEFAULT NOW(6); ALTER TABLE loose ADD c datetime(6) DEFAULT NOW(6);",
    ] {
        comes_again(BASE, script);
    }
}

/// The key that the server makes by itself for a foreign key goes behind the others when that comes again.
#[test]
fn keys_stand_where_the_step_left_them() {
    let base = "CREATE TABLE p (id int PRIMARY KEY) ENGINE=InnoDB; CREATE TABLE q (id int PRIMARY KEY) ENGINE=InnoDB;
        CREATE TABLE c (id int PRIMARY KEY, p int NOT NULL, q int NOT NULL) ENGINE=InnoDB;
        ALTER TABLE c ADD CONSTRAINT to_p FOREIGN KEY (p) REFERENCES p (id);
        ALTER TABLE c ADD CONSTRAINT to_q FOREIGN KEY (q) REFERENCES q (id);
        INSERT INTO p VALUES (1); INSERT INTO q VALUES (1); INSERT INTO c VALUES (1, 1, 1);";
    let script = "ALTER TABLE c DROP FOREIGN KEY to_p; ALTER TABLE c MODIFY p int NULL;
        ALTER TABLE c ADD CONSTRAINT to_p FOREIGN KEY (p) REFERENCES p (id);";
    comes_again(base, script);
}

#[test]
fn without_a_key_nothing_is_given_again_and_a_redo_says_so() {
    let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
    for default in ["UUID()", "(1 + RAND())", "(@x)", "(@@pseudo_thread_id)"] {
        let before = Fingerprint::of(&site);
        let script = format!("UPDATE t SET b = 'k'; ALTER TABLE loose ADD c varchar(40) DEFAULT {default};");
        site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        let done = site.redo();
        assert_eq!(done.status(), Status::Failed, "{done:?}");
        assert!(format!("{done:?}").contains("values in c that no second run gives"), "{done:?}");
        before.assert_same(&Fingerprint::of(&site), default);
    }
}

/// A column that goes, and in it what others wrote over what the server gave.
#[test]
fn what_others_wrote_into_a_new_column_is_a_conflict() {
    for default in ["NOW()", "UUID()"] {
        let script = format!("ALTER TABLE t ADD c varchar(40) DEFAULT {default};");
        is_a_conflict(BASE, &script, "UPDATE t SET c = 'theirs' WHERE a = 1", "theirs");
    }
    let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
    site.deploy(&Pkg::new("p").step(sql("ALTER TABLE t ADD c varchar(40) DEFAULT UUID();"))).expect(Status::Done);
    let read = "SELECT GROUP_CONCAT(c ORDER BY a) FROM t WHERE a < 4";
    let mut others = site.mariadb("main").unwrap().connect();
    let left: Option<String> = others.query_first(read).unwrap();
    others.query_drop("UPDATE t SET c = 'theirs' WHERE a = 1").unwrap();
    others.query_drop("INSERT INTO t (b, c) VALUES ('new', 'own')").unwrap();
    let undone = site.undo_on(None, OnConflict::Overwrite);
    assert_eq!(undone.status(), Status::Done, "{undone:?}");
    assert!(format!("{undone:?}").contains("1 row of others in t lost what was in c"), "{undone:?}");
    site.redo().expect(Status::Done);
    assert_eq!(others.query_first::<String, _>(read).unwrap(), left);
}

/// A redo that dies is taken back, and the next one still gives rows what they had.
#[test]
fn a_redo_that_dies_forgets_nothing() {
    let script = "ALTER TABLE t ADD c varchar(40) DEFAULT UUID();";
    let stage = || {
        let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
        let before = Fingerprint::of(&site);
        site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
        let deployed = Fingerprint::of(&site);
        site.undo(None).expect(Status::Done);
        (site, before, deployed)
    };
    let counted = {
        let (site, ..) = stage();
        let playing = play(Fault::None, false);
        site.redo().expect(Status::Done);
        playing.seen().len()
    };
    let points: Vec<usize> = (1..=counted).collect();
    every::point(
        "a redo of ALTER",
        &points,
        3,
        || (),
        |(), n| {
            let (site, before, deployed) = stage();
            let playing = play(Fault::CrashAt(n), false);
            drop(site.redo());
            assert!(playing.struck(), "{n} of {counted}");
            drop(playing);
            site.bury_the_dead();
            site.resume().result.unwrap();
            if Fingerprint::of(&site).differences(&before).is_empty() {
                site.redo().expect(Status::Done);
            }
            let wrong = deployed.differences(&Fingerprint::of(&site));
            if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
        },
    );
}

/// By another key no row would be found again, or a wrong one.
#[test]
fn a_redo_looks_whether_the_key_stands() {
    for others in ["ALTER TABLE k DROP PRIMARY KEY", "ALTER TABLE k DROP PRIMARY KEY, ADD PRIMARY KEY (b)"] {
        let base = "CREATE TABLE k (a int NOT NULL, b int NOT NULL, PRIMARY KEY (a)) ENGINE=InnoDB; INSERT INTO k VALUES (1, 2), (2, 1);";
        let site = TestSite::builder().mariadb("main", Server::shared(), base).build();
        site.deploy(&Pkg::new("p").step(sql("ALTER TABLE k ADD c varchar(40) DEFAULT UUID();"))).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        site.mariadb("main").unwrap().script(others);
        let state = Fingerprint::of(&site);
        let done = site.redo();
        assert_eq!(done.status(), Status::Failed, "{others}: {done:?}");
        assert!(format!("{done:?}").contains("others changed since the key"), "{others}: {done:?}");
        state.assert_same(&Fingerprint::of(&site), others);
    }
}

#[test]
fn rules_that_come_back_hold_beside_new_columns() {
    let base = "CREATE TABLE k (a int PRIMARY KEY, b int, CONSTRAINT small CHECK (b < 10)) ENGINE=InnoDB; INSERT INTO k VALUES (1, 2);";
    let script = "ALTER TABLE k DROP CONSTRAINT small, ADD at datetime DEFAULT NOW();";
    is_a_conflict(base, script, "UPDATE k SET b = 50", "do not fit its definition of before");
}

#[test]
fn a_column_that_goes_and_comes_in_one_statement_is_refused() {
    let base = "CREATE TABLE k (a int PRIMARY KEY, b varchar(40)) ENGINE=InnoDB; INSERT INTO k VALUES (1, 'x');";
    let site = TestSite::builder().mariadb("main", Server::shared(), base).build();
    let before = Fingerprint::of(&site);
    for script in [
        "ALTER TABLE k DROP COLUMN b, ADD COLUMN b varchar(40);",
        "ALTER TABLE k DROP b, ADD B varchar(40) DEFAULT UUID() AFTER a;",
    ] {
        is_refused(&site, &before, script, "and adds it again");
    }
}

/// Rows that point at nothing since a routine had foreign keys go unchecked.
#[test]
fn what_a_routine_did_unchecked_is_done_again() {
    go_there_and_back(BASE, &["CALL lenient(); INSERT INTO child VALUES (1, 77);"]);
}
