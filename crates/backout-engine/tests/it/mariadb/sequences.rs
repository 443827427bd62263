//! Sequences: made, dropped and altered ones come back where nobody drew from them since; numbers that a script draws stay drawn,
//! and the undo says so.

use backout_engine::outcome::Status;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::{Queryable as _, Server};
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;

use super::ddl::{go_there_and_back, is_a_conflict};
use super::rows::is_refused;

const BASE: &str = "
    CREATE SEQUENCE s; DO NEXTVAL(s); CREATE SEQUENCE down START WITH 50 INCREMENT -5 MINVALUE -100 MAXVALUE 100 NOCACHE CYCLE COMMENT = 'downwards'; DO NEXTVAL(down);
    CREATE SEQUENCE round MAXVALUE 2 CYCLE NOCACHE; DO NEXTVAL(round), NEXTVAL(round), NEXTVAL(round);
    CREATE TABLE item (id int PRIMARY KEY DEFAULT NEXTVAL(s), name varchar(20)) ENGINE=InnoDB; INSERT INTO item (name) VALUES ('one'), ('two');
    CREATE TABLE log (id int PRIMARY KEY, what int) ENGINE=InnoDB;
    CREATE PROCEDURE note(n int) INSERT INTO log VALUES (n, NEXT VALUE FOR down);";

const SCRIPTS: &[&str] = &[
    "CREATE SEQUENCE made START WITH 7 INCREMENT BY 3; INSERT INTO log VALUES (1, NEXTVAL(made)), (2, NEXT VALUE FOR made); CREATE TABLE t (id int DEFAULT NEXTVAL(made)); DO NEXTVAL(made);",
    "CREATE SEQUENCE IF NOT EXISTS s START WITH 9; CREATE OR REPLACE SEQUENCE down; CREATE OR REPLACE SEQUENCE fresh;",
    "DROP TABLE item; DROP SEQUENCE s, down; DROP SEQUENCE IF EXISTS nothing, round;",
    "ALTER SEQUENCE s INCREMENT BY 10 CACHE 5; ALTER SEQUENCE down RESTART 77; ALTER SEQUENCE IF EXISTS nothing RESTART 1;",
    "ALTER SEQUENCE s RESTART 5000 MAXVALUE 9000; ALTER SEQUENCE s RESTART;",
    "ALTER SEQUENCE s RESTART 7000; INSERT INTO item (name) VALUES ('far'), ('farther'); CREATE SEQUENCE more; INSERT INTO log VALUES (5, NEXTVAL(more)); DROP SEQUENCE more;",
    "RENAME TABLE down TO up; CREATE SEQUENCE down;",
    "CREATE SEQUENCE s2; RENAME TABLE s2 TO s3; DO NEXTVAL(s3); RENAME TABLE s3 TO s4; INSERT INTO log VALUES (1, NEXTVAL(s4));",
    "ALTER SEQUENCE s INCREMENT BY 3; RENAME TABLE item TO items; INSERT INTO items (name) VALUES ('by default'); CREATE SEQUENCE more; CREATE FUNCTION drawn() RETURNS int RETURN NEXTVAL(more);",
    "CREATE SEQUENCE more; CREATE TABLE drawing (id int PRIMARY KEY DEFAULT NEXTVAL(more), n int); CREATE TRIGGER draws AFTER INSERT ON log FOR EACH ROW INSERT INTO drawing (n) VALUES (NEW.id); INSERT INTO log VALUES (1, 1);",
];

#[test]
fn sequences_are_made_dropped_altered_and_all_of_it_back() {
    go_there_and_back(BASE, SCRIPTS);
}

#[test]
fn a_sequence_that_others_use_since_is_a_conflict() {
    for (script, others, why) in [
        ("CREATE SEQUENCE made;", "DO NEXTVAL(made)", "definition was changed"),
        (
            "CREATE SEQUENCE made;",
            "CREATE TABLE t (id int DEFAULT NEXTVAL(made))",
            "the default of id in t needs it now",
        ),
        ("CREATE SEQUENCE made;", "CREATE VIEW v AS SELECT NEXTVAL(made)", "the view v needs it now"),
        ("ALTER SEQUENCE s RESTART 9000;", "DO NEXTVAL(s)", "definition was changed"),
        ("ALTER SEQUENCE s INCREMENT BY 2;", "ALTER SEQUENCE s INCREMENT BY 3", "definition was changed"),
        ("DROP SEQUENCE round;", "CREATE SEQUENCE round", "the name is taken"),
        ("RENAME TABLE round TO circle;", "CREATE TABLE t (id int DEFAULT NEXTVAL(circle))", "the default of id in t"),
    ] {
        is_a_conflict(BASE, script, others, why);
    }
}

/// The rows go back; nobody can tell whether another session drew between two numbers, so none is given out again.
#[test]
fn numbers_that_a_script_draws_stay_drawn_and_the_undo_says_so() {
    let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
    let ask = |query: &str| site.mariadb("main").unwrap().script(query).trim_end().replace('\n', " ");
    let script = "INSERT INTO log VALUES (1, NEXTVAL(down)); CALL note(2); SET @x = NEXTVAL(down); SELECT NEXT VALUE FOR down; INSERT INTO item (name) VALUES ('three');";
    let count = ask("SELECT COUNT(*) FROM item");
    site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
    assert_eq!(
        ask("SELECT GROUP_CONCAT(what ORDER BY id) FROM log; SELECT next_not_cached_value FROM down"),
        "45,40 25"
    );
    let done = site.undo(None);
    assert_eq!(done.status(), Status::Done, "{done:?}");
    let said = format!("{done:?}");
    assert!(said.contains("numbers that were drawn from the sequence down stay drawn"), "{said}");
    assert_eq!(ask("SELECT COUNT(*) FROM log; SELECT next_not_cached_value FROM down"), "0 25");
    assert_eq!(ask("SELECT COUNT(*) FROM item"), count);
    site.redo().expect(Status::Done);
    assert_eq!(
        ask("SELECT GROUP_CONCAT(what ORDER BY id) FROM log; SELECT next_not_cached_value FROM down"),
        "45,40 25"
    );
    site.undo(None).expect(Status::Done);
    // A step that only draws is said, too.
    site.deploy(&Pkg::new("only").step(sql("DO NEXTVAL(down);"))).expect(Status::Done);
    assert!(format!("{:?}", site.undo(None)).contains("stay drawn"));
}

#[test]
fn what_would_draw_numbers_unsaid_is_refused() {
    let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
    let before = Fingerprint::of(&site);
    for (script, why) in [
        ("SELECT SETVAL(s, 5)", "write ALTER SEQUENCE"),
        ("CREATE TABLE t AS SELECT NEXTVAL(s) AS n", "draw numbers from a sequence"),
        ("ALTER TABLE log ADD n int DEFAULT NEXTVAL(s)", "draw numbers for the rows"),
        ("ALTER TABLE item MODIFY id bigint", "draw numbers from a sequence"),
        ("ALTER SEQUENCE round RESTART 2", "how often it began anew"),
    ] {
        is_refused(&site, &before, &format!("{script};"), why);
    }
}

/// What the step cannot have drawn was drawn by others while it ran.
#[test]
fn a_number_that_others_draw_while_a_step_runs_is_not_the_steps() {
    for (script, name) in [("ALTER SEQUENCE s INCREMENT BY 3;", "s"), ("CREATE SEQUENCE made;", "made")] {
        let site = TestSite::builder().mariadb("main", Server::shared(), BASE).build();
        let database = site.mariadb("main").unwrap();
        let mut others = database.connect();
        let script = format!("{script} INSERT INTO log VALUES (1, SLEEP(2));");
        let draw = format!("DO NEXTVAL({name})");
        let drawn = std::thread::scope(|scope| {
            let drawn = scope.spawn(move || {
                let waits = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE = 'User sleep' AND DB = DATABASE()";
                while others.query_first::<u64, _>(waits).unwrap() != Some(1) {
                    std::thread::yield_now();
                }
                others.query_drop(&draw).unwrap();
            });
            site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
            drawn.join()
        });
        drawn.unwrap();
        let state = Fingerprint::of(&site);
        let done = site.undo(None);
        assert_eq!(done.status(), Status::Refused, "{name}: {done:?}");
        assert!(format!("{done:?}").contains("definition was changed"), "{name}: {done:?}");
        state.assert_same(&Fingerprint::of(&site), name);
    }
}
