//! What others changed since: merged by column where it can be, else a conflict with a way out of each kind; and others
//! who write all the time.

use std::sync::atomic::{AtomicBool, Ordering};

use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_testkit::mariadb::Queryable as _;
use backout_testkit::mariadb::Server;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;

const BASE: &str = "CREATE TABLE t (id int PRIMARY KEY, a varchar(9) COLLATE utf8mb4_general_ci, b varchar(9), u int UNIQUE) ENGINE=InnoDB;
    INSERT INTO t VALUES (1, 'a', 'one', 1), (2, 'b', 'two', 2), (3, 'c', 'three', NULL);
    CREATE TABLE up (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO up VALUES (1), (2);
    CREATE TABLE down (id int PRIMARY KEY, up int, FOREIGN KEY (up) REFERENCES up (id)) ENGINE=InnoDB;";

fn site() -> TestSite {
    TestSite::builder().mariadb("main", Server::shared(), BASE).build()
}

fn ask(site: &TestSite, query: &str) -> String {
    site.mariadb("main").unwrap().script(query).trim_end().replace('\n', " ")
}

#[test]
fn columns_of_others_keep_their_values() {
    let site = site();
    site.deploy(&Pkg::new("p").step(sql("UPDATE t SET a = 'ours' WHERE id < 3; INSERT INTO t VALUES (8, '', '', 8);")))
        .expect(Status::Done);
    ask(&site, "UPDATE t SET b = 'theirs' WHERE id = 1; INSERT INTO t VALUES (9, 'x', 'y', 9)");
    site.undo(None).expect(Status::Done);
    assert_eq!(ask(&site, "SELECT CONCAT(a, b) FROM t ORDER BY id"), "atheirs btwo cthree xy");
    site.redo().expect(Status::Done);
    assert_eq!(ask(&site, "SELECT CONCAT(a, b) FROM t ORDER BY id"), "ourstheirs ourstwo cthree  xy");
    site.undo(None).expect(Status::Done);
    assert_eq!(ask(&site, "SELECT CONCAT(a, b) FROM t ORDER BY id"), "atheirs btwo cthree xy");
}

#[test]
fn a_conflict_is_listed_kept_or_overwritten() {
    for (change, others, kind, keep, overwrite) in [
        (
            "UPDATE t SET a = 'X' WHERE id = 1",
            "UPDATE t SET a = 'x' WHERE id = 1",
            "was a, the deployment left X, now x",
            "x",
            "a",
        ),
        ("UPDATE t SET a = 'X' WHERE id = 1", "DELETE FROM t WHERE id = 1", "it is gone now", "", "a"),
        (
            "INSERT INTO t VALUES (7, 'X', '', 7)",
            "UPDATE t SET b = 'y' WHERE id = 7",
            "the deployment left 7, X",
            "a",
            "a",
        ),
        ("DELETE FROM t WHERE id = 1", "INSERT INTO t VALUES (1, 'z', '', NULL)", "appeared since", "z", "a"),
    ] {
        for (how, expected) in [(OnConflict::Keep, keep), (OnConflict::Overwrite, overwrite)] {
            let site = site();
            site.deploy(&Pkg::new("p").step(sql(format!("{change};")))).expect(Status::Done);
            ask(&site, others);
            let state = ask(&site, "SELECT * FROM t ORDER BY id");
            let done = site.undo(None);
            assert_eq!(done.status(), Status::Refused, "{change}: {done:?}");
            assert!(format!("{done:?}").contains(kind), "{change}: {done:?}");
            assert_eq!(ask(&site, "SELECT * FROM t ORDER BY id"), state);
            let done = site.undo_on(None, how);
            assert!(matches!(done.status(), Status::Done | Status::Partly), "{change}: {done:?}");
            assert_eq!(ask(&site, "SELECT a FROM t WHERE id = 1"), expected, "{change} {how:?}");
        }
    }
}

#[test]
fn what_would_break_a_constraint_is_a_conflict() {
    let site = site();
    site.deploy(
        &Pkg::new("p")
            .step(sql("UPDATE t SET u = 5 WHERE id = 1; INSERT INTO up VALUES (7); DELETE FROM up WHERE id = 2;")),
    )
    .expect(Status::Done);
    ask(&site, "UPDATE t SET u = 1 WHERE id = 3");
    let done = site.undo(None);
    assert!(format!("{done:?}").contains("its u belongs to another row: 3, c, three, 1"), "{done:?}");
    ask(&site, "UPDATE t SET u = NULL WHERE id = 3; INSERT INTO down VALUES (1, 7)");
    let done = site.undo(None);
    assert_eq!(done.status(), Status::Refused, "{done:?}");
    assert!(format!("{done:?}").contains("up = 7 is not in up"), "{done:?}");
    ask(&site, "DELETE FROM down");
    site.undo(None).expect(Status::Done);
    assert_eq!(ask(&site, "SELECT CONCAT_WS(',', id, u) FROM t ORDER BY id; SELECT id FROM up"), "1,1 2,2 3 1 2");
}

/// The row stays, or theirs gives way; all else goes back.
#[test]
fn a_unique_value_that_others_took_is_a_conflict_of_the_row() {
    let rows = "SELECT CONCAT_WS(':', id, b, u) FROM t ORDER BY id";
    for (change, others, keep, overwrite) in [
        (
            "UPDATE t SET u = 12, b = 'ours' WHERE id = 2",
            "INSERT INTO t VALUES (9, 'x', 'y', 2)",
            "1:one:1 2:ours:12 3:three 9:y:2",
            "1:one:1 2:two:2 3:three",
        ),
        ("DELETE FROM t WHERE id = 2", "UPDATE t SET u = 2 WHERE id = 3", "1:one:1 3:three:2", "1:one:1 2:two:2"),
        // A value that moved round stays with the row that stays.
        (
            "UPDATE t SET u = NULL WHERE id = 1; UPDATE t SET u = 1 WHERE id = 2",
            "INSERT INTO t VALUES (9, 'x', 'y', 2)",
            "1:one 2:two:1 3:three 9:y:2",
            "1:one:1 2:two:2 3:three",
        ),
    ] {
        for (how, expected) in [(OnConflict::Keep, keep), (OnConflict::Overwrite, overwrite)] {
            let site = site();
            site.deploy(&Pkg::new("p").step(sql(format!("INSERT INTO up VALUES (7); {change};")))).expect(Status::Done);
            ask(&site, others);
            let done = site.undo(None);
            assert_eq!(done.status(), Status::Refused, "{change}: {done:?}");
            assert!(format!("{done:?}").contains("its u belongs to another row"), "{change}: {done:?}");
            let done = site.undo_on(None, how);
            assert!(matches!(done.status(), Status::Done | Status::Partly), "{change} {how:?}: {done:?}");
            assert_eq!(ask(&site, rows), expected, "{change} {how:?}");
            assert_eq!(ask(&site, "SELECT COUNT(*) FROM up"), "2", "{change} {how:?}");
        }
    }
}

#[test]
fn others_who_write_meanwhile_are_neither_captured_nor_lost() {
    let base = "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, a int, mine int) ENGINE=InnoDB; INSERT INTO t SELECT seq, 0, 0 FROM seq_1_to_300;";
    let site = TestSite::builder().mariadb("main", Server::shared(), base).build();
    let end = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut conn = site.mariadb("main").unwrap().connect();
            let mut written = 0_u64;
            while !end.load(Ordering::Relaxed) {
                // Waiting for a row in vain is what an application does, too.
                let id = written % 300 + 1;
                if conn.query_drop(format!("UPDATE t SET mine = mine + 1 WHERE id = {id}")).is_ok() {
                    written += 1;
                }
            }
            written
        });
        for _ in 0..3 {
            site.deploy(&Pkg::new("p").step(sql("UPDATE t SET a = a + 1; INSERT INTO t (a, mine) SELECT a, 0 FROM t LIMIT 50; DELETE FROM t WHERE id > 330;"))).expect(Status::Done);
            site.undo(None).expect(Status::Done);
        }
        end.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    assert!(written > 0);
    assert_eq!(ask(&site, "SELECT CONCAT_WS(' ', COUNT(*), SUM(a), SUM(mine)) FROM t"), format!("300 0 {written}"));
}
