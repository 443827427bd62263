//! Tables that take the place of others over several steps, by way of a temporary table, or beside the old one: what others
//! deleted or wrote since neither comes back nor is lost unsaid.

use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;

use crate::scene::shop;

const MAKE: &str = "CREATE TABLE n (id INTEGER PRIMARY KEY, v, w)";
const FILL: &str = "INSERT INTO n (id, v) SELECT id, v FROM t";
const TURN: &str = "DROP TABLE t; ALTER TABLE n RENAME TO t";
const AGAIN: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v, w)";

/// Every way in which one table takes the place of another, step by step.
fn successions() -> Vec<Vec<String>> {
    let one = |steps: &[&str]| steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>();
    vec![
        vec![format!("{MAKE}; {FILL}"), TURN.to_owned()],
        one(&[MAKE, FILL, TURN]),
        vec![format!(
            "CREATE TEMP TABLE x AS SELECT * FROM t; DROP TABLE t; {AGAIN};
             INSERT INTO t (id, v) SELECT id, v FROM x; DROP TABLE x"
        )],
        vec![format!("ALTER TABLE t RENAME TO old; {AGAIN}; INSERT INTO t (id, v) SELECT id, v FROM old")],
        vec![
            "ALTER TABLE t RENAME TO old".to_owned(),
            AGAIN.to_owned(),
            "INSERT INTO t (id, v) SELECT id, v FROM old".to_owned(),
        ],
    ]
}

fn site() -> TestSite {
    let site = shop();
    site.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')");
    site
}

fn package(steps: &[String]) -> Pkg {
    steps.iter().fold(Pkg::new("p"), |package, step| package.step(sql(step)))
}

#[test]
fn they_go_and_come_where_nobody_was_at_the_rows() {
    for steps in successions() {
        let site = site();
        let before = Fingerprint::of(&site);
        site.deploy(&package(&steps)).expect(Status::Done);
        let after = Fingerprint::of(&site);
        for _ in 0..2 {
            site.undo(None).expect(Status::Done);
            before.assert_same(&Fingerprint::of(&site), &format!("{steps:?}: undone"));
            site.redo().expect(Status::Done);
            after.assert_same(&Fingerprint::of(&site), &format!("{steps:?}: redone"));
        }
    }
}

#[test]
fn a_row_that_others_deleted_does_not_come_back_with_the_old_table_unsaid() {
    for steps in successions() {
        let site = site();
        let before = Fingerprint::of(&site);
        site.deploy(&package(&steps)).expect(Status::Done);
        site.execute("DELETE FROM t WHERE id = 2");
        let now = Fingerprint::of(&site);
        // Nothing keeps it away, so `keep` is refused, too.
        for manner in [OnConflict::Stop, OnConflict::Keep] {
            let outcome = site.undo_on(None, manner).expect(Status::Refused);
            let found = &outcome.conflicts[0];
            assert_eq!((found.object.as_str(), found.key.as_deref()), ("t", Some("id=2")), "{steps:?}: {outcome:?}");
            assert!(!outcome.hints.iter().any(|hint| hint.contains("keep")), "{steps:?}: {outcome:?}");
            now.assert_same(&Fingerprint::of(&site), &format!("{steps:?}: {manner:?} refused"));
        }
        let outcome = site.undo_on(None, OnConflict::Overwrite).expect(Status::Done);
        assert_eq!(outcome.conflicts_total, 1, "{steps:?}: {outcome:?}");
        before.assert_same(&Fingerprint::of(&site), &format!("{steps:?}: overwritten"));
    }
}

#[test]
fn rows_of_others_do_not_come_again_or_stay_behind_when_the_new_table_comes_again() {
    for steps in successions() {
        for others in
            ["DELETE FROM t WHERE id = 2", "UPDATE t SET v = 'x' WHERE id = 2", "INSERT INTO t VALUES (9, 'x')"]
        {
            let site = site();
            site.deploy(&package(&steps)).expect(Status::Done);
            site.undo(None).expect(Status::Done);
            site.execute(others);
            let now = Fingerprint::of(&site);
            let outcome = site.redo().expect(Status::Refused);
            assert_eq!(outcome.conflicts[0].object, "table t", "{steps:?} {others}: {outcome:?}");
            now.assert_same(&Fingerprint::of(&site), &format!("{steps:?} {others}: refused"));
        }
    }
}
