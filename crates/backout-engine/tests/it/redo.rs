//! Redo: back up the stack of undos, guarded, with checks and commands run again.

use std::fs;

use backout_engine::outcome::Status;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, captured, child, files, sql, sql_is};
use backout_testkit::site::TestSite;
use backout_testkit::tree::Tree;

use crate::scene::{late_failure, page, raise, shop, winter};

#[test]
fn redo_brings_back_the_same_result_as_often_as_one_likes() {
    let site = shop();
    let before = Fingerprint::of(&site);
    site.deploy(&winter()).expect(Status::Done);
    let after = Fingerprint::of(&site);
    for _ in 0..3 {
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), "undone");
        let outcome = site.redo().expect(Status::Done);
        assert!(outcome.answer[0].starts_with("redid winter 1.0"), "{outcome:?}");
        after.assert_same(&Fingerprint::of(&site), "redone");
        assert_eq!(site.grave(), []);
    }
    assert_eq!(site.redo().status(), Status::Refused, "nothing is left to redo");
}

#[test]
fn redo_walks_back_up_the_stack() {
    let site = shop();
    let mut states = vec![Fingerprint::of(&site)];
    for season in ["spring", "summer", "winter"] {
        site.deploy(&Pkg::new(season).step(page(season)).step(sql("UPDATE product SET price = price * 2")))
            .expect(Status::Done);
        states.push(Fingerprint::of(&site));
    }
    for state in states[..3].iter().rev() {
        site.undo(None).expect(Status::Done);
        state.assert_same(&Fingerprint::of(&site), "undone");
    }
    for state in &states[1..] {
        site.redo().expect(Status::Done);
        state.assert_same(&Fingerprint::of(&site), "redone");
    }
}

#[test]
fn children_that_were_undone_one_by_one_come_back_one_by_one() {
    let site = shop();
    let package =
        Pkg::new("all").step(child(Pkg::new("one").step(page("one")))).step(child(Pkg::new("two").step(raise())));
    let id = site.deploy(&package).id();
    let whole = Fingerprint::of(&site);
    site.undo(Some(&format!("{id}/one"))).expect(Status::Done);
    let without_one = Fingerprint::of(&site);
    site.undo(Some(&format!("{id}/two"))).expect(Status::Done);
    site.redo().expect(Status::Done);
    without_one.assert_same(&Fingerprint::of(&site), "the child undone last comes first");
    site.redo().expect(Status::Done);
    whole.assert_same(&Fingerprint::of(&site), "then the other");
    assert_eq!(site.redo().status(), Status::Refused);
}

#[test]
fn an_undone_child_comes_back_after_the_rest_that_was_undone_later() {
    let site = shop();
    let package = Pkg::new("all").step(child(Pkg::new("one").step(page("one")))).step(raise());
    let id = site.deploy(&package).id();
    let whole = Fingerprint::of(&site);
    site.undo(Some(&format!("{id}/one"))).expect(Status::Done);
    let without_one = Fingerprint::of(&site);
    site.undo(Some(&id)).expect(Status::Done);
    site.redo().expect(Status::Done);
    without_one.assert_same(&Fingerprint::of(&site), "what the last undo took");
    site.redo().expect(Status::Done);
    whole.assert_same(&Fingerprint::of(&site), "what the one before took");
}

#[test]
fn a_new_deployment_clears_the_stack() {
    let site = shop();
    site.deploy(&winter()).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    site.deploy(&Pkg::new("p").step(page("p"))).expect(Status::Done);
    let done = site.redo();
    assert_eq!(done.status(), Status::Refused);
    assert!(done.words().contains("nothing to redo"), "{}", done.words());
    site.undo(None).expect(Status::Done);
    site.redo().expect(Status::Done);
    assert!(site.text("web/p/new.txt").is_some(), "the new one's own undo can be redone");
}

#[test]
fn a_deployment_that_failed_clears_nothing() {
    let site = shop();
    site.deploy(&winter()).expect(Status::Done);
    let after = Fingerprint::of(&site);
    site.undo(None).expect(Status::Done);
    site.deploy(&Pkg::new("p").step(late_failure())).expect(Status::Failed);
    site.redo().expect(Status::Done);
    after.assert_same(&Fingerprint::of(&site), "redone");
}

#[test]
fn redo_is_refused_where_others_changed_the_same() {
    let site = shop();
    // The last step needs the first: the order counts when the redo is tried again.
    let package = Pkg::new("p")
        .step(sql("CREATE TABLE made (n)"))
        .step(page("p"))
        .step(raise())
        .step(sql("INSERT INTO made SELECT count(*) FROM product"));
    site.deploy(&package).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    site.execute("UPDATE product SET price = 55 WHERE id = 1");
    let now = Fingerprint::of(&site);
    let outcome = site.redo().expect(Status::Refused);
    assert_eq!(outcome.conflicts_total, 1, "{outcome:?}");
    now.assert_same(&Fingerprint::of(&site), "as before the redo, files too");
    site.execute("UPDATE product SET price = 100 WHERE id = 1");
    site.redo().expect(Status::Done);
    assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), "110");
    assert_eq!(site.value("SELECT n FROM made"), "4");
}

#[test]
fn redo_merges_what_others_changed_elsewhere() {
    let site = shop();
    site.deploy(&winter()).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    site.execute("UPDATE product SET stock = 500 WHERE id = 1");
    site.redo().expect(Status::Done);
    assert_eq!(site.value("SELECT price || ' ' || stock FROM product WHERE id = 1"), "110 500");
}

#[test]
fn checks_hold_again_or_the_redo_is_taken_back() {
    let site = shop();
    let package = winter()
        .before(sql_is("SELECT count(*) FROM settings WHERE value = 'no'", 0))
        .after(sql_is("SELECT count(*) FROM settings WHERE value = 'bad'", 0));
    site.deploy(&package).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    for (value, status) in [("no", Status::Refused), ("bad", Status::Failed)] {
        site.execute(&format!("UPDATE settings SET value = '{value}' WHERE name = 'theme'"));
        let now = Fingerprint::of(&site);
        site.redo().expect(status);
        now.assert_same(&Fingerprint::of(&site), "taken back");
    }
    site.execute("UPDATE settings SET value = 'autumn' WHERE name = 'theme'");
    site.redo().expect(Status::Done);
    assert_eq!(site.grave(), []);
}

#[test]
fn what_was_passed_over_stays_passed_over() {
    let site = shop();
    let bad = child(Pkg::new("bad").step(page("bad")).step(late_failure())).with("on-failure", "continue");
    site.deploy(&Pkg::new("all").step(page("all")).step(bad).step(raise())).expect(Status::Partly);
    let after = Fingerprint::of(&site);
    site.undo(None).expect(Status::Done);
    site.redo().expect(Status::Done);
    after.assert_same(&Fingerprint::of(&site), "redone");
}

const NOTES: &str = "
    CREATE TABLE t (id INTEGER PRIMARY KEY, a, c);
    INSERT INTO t VALUES (1, 'a1', 'c1'), (2, 'a2', NULL);
    CREATE VIRTUAL TABLE f USING fts5 (x);
    INSERT INTO f VALUES ('one'), ('two');
";

const WITHOUT_C: &str = "CREATE TABLE n (id INTEGER PRIMARY KEY, a); INSERT INTO n SELECT id, a FROM t;
    DROP TABLE t; ALTER TABLE n RENAME TO t;";

/// A redo takes nothing along that others wrote since the undo.
#[test]
fn what_others_wrote_does_not_go_with_a_column_or_a_table() {
    for (text, theirs) in [
        ("DROP TABLE f", "INSERT INTO f VALUES ('theirs')"),
        ("DROP TABLE f", "UPDATE f SET x = 'theirs' WHERE rowid = 1"),
        ("ALTER TABLE t DROP COLUMN c", "UPDATE t SET c = 'theirs' WHERE id = 1"),
        ("ALTER TABLE t DROP COLUMN c", "INSERT INTO t VALUES (3, 'a3', 'theirs')"),
        (WITHOUT_C, "UPDATE t SET c = 'theirs' WHERE id = 2"),
    ] {
        let site = TestSite::builder().database("main", NOTES).build();
        site.deploy(&Pkg::new("one").step(sql(text))).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        site.execute(theirs);
        let before = Fingerprint::of(&site);
        let outcome = site.redo().expect(Status::Refused);
        assert_eq!(outcome.conflicts.len(), 1, "{text}: {outcome:?}");
        Fingerprint::of(&site).assert_same(&before, text);
    }
}

/// What they wrote elsewhere stays, and is no conflict.
#[test]
fn what_others_wrote_beside_a_column_stays() {
    for (text, theirs) in [
        ("ALTER TABLE t DROP COLUMN c", "UPDATE t SET a = 'theirs' WHERE id = 1; INSERT INTO t (id) VALUES (3)"),
        (WITHOUT_C, "UPDATE t SET a = 'theirs' WHERE id = 1; INSERT INTO t (id) VALUES (3)"),
        ("DROP TABLE f", "INSERT INTO f (f) VALUES ('optimize'); DELETE FROM f WHERE rowid = 2"),
        ("ALTER TABLE t DROP COLUMN c", "DELETE FROM t WHERE id = 1"),
    ] {
        let site = TestSite::builder().database("main", NOTES).build();
        site.deploy(&Pkg::new("one").step(sql(text))).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        site.execute(theirs);
        let before = Fingerprint::of(&site);
        site.redo().expect(Status::Done);
        if theirs.contains("theirs") {
            assert_eq!(site.value("SELECT group_concat(a) FROM t WHERE id = 1"), "theirs", "{text}");
        }
        site.undo(None).expect(Status::Done);
        Fingerprint::of(&site).assert_same(&before, text);
    }
}

/// A command took a directory away, its undo brought that back, and others put something into it: it does not go with that.
#[test]
fn what_others_put_into_a_directory_does_not_go_with_it() {
    let site =
        || TestSite::builder().root("web", Tree::new().file("d/deep/x", "1").file("d/y", "2").file("z", "3")).build();
    let steps =
        [captured("cd \"$BACKOUT_ROOT_WEB\"; rm -r d; echo z > d"), captured("cd \"$BACKOUT_ROOT_WEB\"; rm -r d")];
    for step in steps {
        for theirs in ["d/deep/n", "d/n", "d/deep/x"] {
            let what = format!("{step:?}: {theirs}");
            let site = site();
            let before = Fingerprint::of(&site);
            site.deploy(&Pkg::new("p").step(step.clone())).expect(Status::Done);
            let after = Fingerprint::of(&site);
            site.undo(None).expect(Status::Done);
            before.assert_same(&Fingerprint::of(&site), &what);
            site.redo().expect(Status::Done);
            after.assert_same(&Fingerprint::of(&site), &what);
            site.undo(None).expect(Status::Done);
            before.assert_same(&Fingerprint::of(&site), &what);
            fs::write(site.root("web").join(theirs), "precious").unwrap();
            let now = Fingerprint::of(&site);
            let done = site.redo();
            assert_eq!(site.text(&format!("web/{theirs}")).as_deref(), Some("precious"), "{what}");
            // What goes file by file leaves a directory that is not empty where it is.
            if done.status() != Status::Done || theirs == "d/deep/x" {
                assert_eq!(done.status(), Status::Refused, "{what}: {done:?}");
                now.assert_same(&Fingerprint::of(&site), &what);
            }
        }
    }
}

/// What a redo brings back is the site as it was before the undo, also where that came after the undo of an earlier one.
#[test]
fn what_was_gone_before_the_undo_stays_away() {
    let site = shop();
    let first =
        site.deploy(&Pkg::new("one").step(sql("ALTER TABLE product ADD COLUMN x DEFAULT 'q'"))).expect(Status::Done);
    site.deploy(&Pkg::new("two").step(sql("INSERT INTO product (id, name, price) VALUES (70, 'seventy', 7)")))
        .expect(Status::Done);
    site.undo(first.deployment.map(|id| id.to_string()).as_deref()).expect(Status::Done);
    let between = Fingerprint::of(&site);
    site.undo(None).expect(Status::Done);
    let outcome = site.redo().expect(Status::Done);
    assert!(outcome.notes.iter().any(|note| note.contains("has no column x")), "{outcome:?}");
    between.assert_same(&Fingerprint::of(&site), "redone");
    site.redo().expect(Status::Done);
    assert_eq!(site.value("SELECT x FROM product WHERE id = 70"), "q");

    // A file that others removed before the undo.
    let site = shop();
    let tree = |path: &str| Tree::new().file(path, "new");
    site.deploy(&Pkg::new("p").step(files(tree("kept"))).step(files(tree("d/n")))).expect(Status::Done);
    fs::remove_file(site.root("web").join("d/n")).unwrap();
    let before = Fingerprint::of(&site);
    site.undo(None).expect(Status::Done);
    let outcome = site.redo().expect(Status::Done);
    assert!(outcome.notes.iter().any(|note| note.contains("d/n was gone before the undo")), "{outcome:?}");
    before.without_directory_times().assert_same(&Fingerprint::of(&site).without_directory_times(), "redone");
    site.undo(None).expect(Status::Done);
}
