//! Tables that take the place of others over several steps, by way of a temporary table, or beside the old one: what others
//! deleted or wrote since neither comes back nor is lost unsaid.

use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;
use backout_testkit::{mariadb, postgres};

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
        vec![format!("{MAKE}; {FILL}; ALTER TABLE t RENAME TO old; ALTER TABLE n RENAME TO t")],
        vec![format!("{MAKE}; {FILL}; ALTER TABLE t RENAME TO old; DROP TABLE old; ALTER TABLE n RENAME TO t")],
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
            assert!(
                outcome.conflicts.iter().all(|one| one.object.starts_with("table ")),
                "{steps:?} {others}: {outcome:?}"
            );
            now.assert_same(&Fingerprint::of(&site), &format!("{steps:?} {others}: refused"));
        }
    }
}

/// An undo is refused, and changes nothing.
fn refuses_to_undo(site: &TestSite, what: &str) {
    let now = Fingerprint::of(site);
    let done = site.undo(None);
    assert_eq!(done.status(), Status::Refused, "{what}: {done:?}");
    now.assert_same(&Fingerprint::of(site), &format!("{what}: refused"));
}

/// Rows go over between the tables of a rebuild by their keys; so where it gives them others, what others did to one is no
/// other row's.
#[test]
fn a_rebuild_that_gives_rows_other_keys_mixes_up_none() {
    for key in ["id + 1", "id + 100", "-id", "4 - id"] {
        for others in ["DELETE FROM t WHERE v = 'b'", "UPDATE t SET w = 'x', v = 'bb' WHERE v = 'b'"] {
            let site = site();
            let fill = format!("INSERT INTO n (id, v) SELECT {key}, v FROM t");
            site.deploy(&package(&[format!("{MAKE}; {fill}; {TURN}")])).expect(Status::Done);
            site.execute(others);
            refuses_to_undo(&site, &format!("{key} {others}"));
        }
    }
}

/// Rows that are alike in all that both tables have, and keys of which the new table makes others.
#[test]
fn a_row_is_known_by_no_likeness() {
    let item =
        "CREATE TABLE item (id INTEGER PRIMARY KEY, ord, pos); INSERT INTO item VALUES (1, 7, 2), (2, 7, 1), (3, 8, 1)";
    let nulls =
        "CREATE TABLE item (id INT PRIMARY KEY, ord, pos); INSERT INTO item VALUES (1, 7, 1), (NULL, 7, 1), (2, 7, 0)";
    let texts = "CREATE TABLE item (id TEXT PRIMARY KEY, ord, pos); INSERT INTO item VALUES ('1', 1, 1), ('01', 1, 2)";
    for (base, fill) in [
        (item, "INSERT INTO n (ord) SELECT ord FROM item ORDER BY ord, pos"),
        (nulls, "INSERT INTO n SELECT id, ord FROM item WHERE pos = 1"),
        (texts, "INSERT OR REPLACE INTO n SELECT id, ord FROM item"),
    ] {
        for others in ["DELETE FROM item", "UPDATE item SET ord = 5"] {
            let site = site();
            site.execute(base);
            let make = "CREATE TABLE n (id INTEGER PRIMARY KEY, ord); ";
            let turn = "DROP TABLE item; ALTER TABLE n RENAME TO item";
            site.deploy(&package(&[format!("{make}; {fill}; {turn}")])).expect(Status::Done);
            site.execute(&format!("{others} WHERE id = (SELECT min(id) FROM item)"));
            refuses_to_undo(&site, &format!("{fill} {others}"));
        }
    }
}

/// What others write into a column that a rebuild filled with one value, and in a row that it did not copy.
#[test]
fn the_value_that_a_rebuild_gave_to_all_is_nothing_of_others() {
    let site = site();
    let make = "CREATE TABLE n (id INTEGER PRIMARY KEY, v, mail NOT NULL, size)";
    let fill = "INSERT INTO n (id, v, mail, size) SELECT id, v, '', -1 FROM t";
    site.deploy(&package(&[format!("{make}; {fill}; {TURN}")])).expect(Status::Done);
    site.execute("INSERT INTO t VALUES (7, 'g', '', -1)");
    site.undo(None).expect(Status::Done);
    assert_eq!(site.value("SELECT group_concat(v) FROM t"), "a,b,c,g");
    site.redo().expect(Status::Done);
    site.execute("INSERT INTO t VALUES (8, 'h', 'me@here', -1)");
    let outcome = site.undo(None).expect(Status::Refused);
    assert_eq!(outcome.conflicts[0].column.as_deref(), Some("mail"), "{outcome:?}");
    assert_eq!(outcome.conflicts_total, 1, "{outcome:?}");
}

#[test]
fn a_rebuild_that_empties_the_old_table_brings_back_no_row_of_others() {
    let site = site();
    site.deploy(&package(&[format!("{MAKE}; {FILL}; DELETE FROM t; {TURN}")])).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    site.execute("DELETE FROM t WHERE id = 2");
    site.redo().expect(Status::Refused);
    assert_eq!(site.value("SELECT group_concat(id) FROM t"), "1,3");
}

#[test]
fn a_full_text_table_in_the_place_of_another_brings_back_no_row_of_others() {
    let copied = "INSERT INTO nf (rowid, body) SELECT rowid, body FROM ft";
    for steps in [
        format!("CREATE VIRTUAL TABLE nf USING fts5(body, tag); {copied}; DROP TABLE ft; ALTER TABLE nf RENAME TO ft"),
        "ALTER TABLE ft RENAME TO fo; CREATE VIRTUAL TABLE ft USING fts5(body, tag);
         INSERT INTO ft (rowid, body) SELECT rowid, body FROM fo"
            .to_owned(),
    ] {
        let site = site();
        site.execute("CREATE VIRTUAL TABLE ft USING fts5(body); INSERT INTO ft VALUES ('one'), ('two'), ('three')");
        site.deploy(&package(std::slice::from_ref(&steps))).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        site.redo().expect(Status::Done);
        site.execute("DELETE FROM ft WHERE rowid = 2");
        assert_eq!(site.undo(None).status(), Status::Refused, "{steps}");
        site.undo_on(None, OnConflict::Overwrite).expect(Status::Done);
        site.execute("DELETE FROM ft WHERE rowid = 2");
        assert_eq!(site.redo().status(), Status::Refused, "{steps}");
        assert_eq!(site.value("SELECT group_concat(rowid) FROM ft"), "1,3");
    }
}

/// One step takes something away and a later one puts it there anew: where others took that away, it stays away.
#[test]
fn what_a_later_step_put_back_and_others_took_away_does_not_come_back_unsaid() {
    let steps = |steps: &[&str]| steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>();
    let row = ["DELETE FROM t WHERE id = 3", "INSERT INTO t VALUES (3, 'cc')"];
    let view = ["CREATE VIEW w AS SELECT 1 AS x", "DROP VIEW w; CREATE VIEW w AS SELECT 2 AS x"];
    let table = ["DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, v)"];
    for (all, others) in
        [(steps(&row), "DELETE FROM t WHERE id = 3"), (steps(&view), "DROP VIEW w"), (steps(&table), "DROP TABLE t")]
    {
        let site = site();
        let before = Fingerprint::of(&site);
        site.deploy(&package(&all)).expect(Status::Done);
        site.execute(others);
        let now = Fingerprint::of(&site);
        site.undo(None).expect(Status::Refused);
        now.assert_same(&Fingerprint::of(&site), others);
        let outcome = site.undo_on(None, OnConflict::Overwrite).expect(Status::Done);
        assert_eq!(outcome.conflicts_total, 1, "{others}: {outcome:?}");
        before.assert_same(&Fingerprint::of(&site), others);
    }
    // With `keep` the row stays away, and with nobody in between all goes as ever.
    let site = site();
    site.deploy(&package(&steps(&row))).expect(Status::Done);
    site.execute("DELETE FROM t WHERE id = 3");
    site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
    assert_eq!(site.value("SELECT group_concat(id) FROM t"), "1,2");
}

/// The old table goes under another name before it does.
#[test]
fn a_table_that_takes_over_under_another_name_brings_back_no_row_of_others() {
    let make = "CREATE TABLE t2 (id INTEGER PRIMARY KEY, v)";
    let fill = "INSERT INTO t2 SELECT * FROM t";
    let turn = "DROP TABLE t; CREATE VIEW t AS SELECT * FROM t2";
    for steps in [vec![format!("{make}; {fill}; {turn}")], [make, fill, turn].map(str::to_owned).to_vec()] {
        let site = site();
        let before = Fingerprint::of(&site);
        site.deploy(&package(&steps)).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), &format!("{steps:?}"));
        site.redo().expect(Status::Done);
        site.execute("DELETE FROM t2 WHERE id = 2");
        site.undo(None).expect(Status::Refused);
        assert_eq!(site.value("SELECT group_concat(id) FROM t"), "1,3");
    }
}

const ON_SERVERS: &str =
    "CREATE TABLE t (id INTEGER PRIMARY KEY, v varchar(9)); INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c');";

/// `server`: a site with that table; `run`: runs a statement there.
fn no_row_that_others_deleted_comes_back_with_the_old_table(server: fn() -> TestSite, run: fn(&TestSite, &str)) {
    let make = "CREATE TABLE n (id INTEGER PRIMARY KEY, v varchar(9), w varchar(9));";
    let again = "ALTER TABLE t RENAME TO o; CREATE TABLE t (id INTEGER PRIMARY KEY, v varchar(9), w varchar(9));";
    for steps in [
        vec![format!("{make} {FILL}; {TURN};")],
        vec![format!("{make} {FILL};"), format!("{TURN};")],
        vec![make.to_owned(), format!("{FILL};"), "DROP TABLE t;".to_owned(), "ALTER TABLE n RENAME TO t;".to_owned()],
        vec![format!("{again} INSERT INTO t (id, v) SELECT id, v FROM o;")],
        vec![again.to_owned(), "INSERT INTO t (id, v) SELECT id, v FROM o; DROP TABLE o;".to_owned()],
    ] {
        let site = server();
        let before = Fingerprint::of(&site);
        site.deploy(&package(&steps)).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), &format!("{steps:?}: undone"));
        site.redo().expect(Status::Done);
        run(&site, "DELETE FROM t WHERE id = 2");
        let now = Fingerprint::of(&site);
        for manner in [OnConflict::Stop, OnConflict::Keep] {
            let outcome = site.undo_on(None, manner);
            assert_eq!(outcome.status(), Status::Refused, "{steps:?} {manner:?}: {outcome:?}");
            now.assert_same(&Fingerprint::of(&site), &format!("{steps:?}: {manner:?} refused"));
        }
        site.undo_on(None, OnConflict::Overwrite).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), &format!("{steps:?}: overwritten"));
    }
}

#[test]
fn on_postgres_no_row_that_others_deleted_comes_back_with_the_old_table() {
    no_row_that_others_deleted_comes_back_with_the_old_table(
        || TestSite::builder().postgres("main", postgres::Server::shared(), ON_SERVERS).build(),
        |site, sql| drop(site.postgres("main").unwrap().psql(sql)),
    );
}

#[test]
fn on_mariadb_no_row_that_others_deleted_comes_back_with_the_old_table() {
    no_row_that_others_deleted_comes_back_with_the_old_table(
        || TestSite::builder().mariadb("main", mariadb::Server::shared(), ON_SERVERS).build(),
        |site, sql| drop(site.mariadb("main").unwrap().script(sql)),
    );
}
