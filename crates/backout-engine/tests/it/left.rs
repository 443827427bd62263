//! What an automatic undo left as somebody else had made it, and an undo that took more than one attempt.

use backout_engine::outcome::{NOTHING_CHANGED, Status};
use backout_model::conflict::{ConflictKind, OnConflict};
use backout_model::state::DeploymentState;
use backout_testkit::faults::{Fault, play};
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, Step, run, sql};
use backout_testkit::site::TestSite;

use crate::scene::{page, raise, shop, winter};

/// Writes to what the steps before it changed, and fails.
fn meddler() -> Step {
    let script = "printf app > \"$BACKOUT_ROOT_WEB/index.php\"; \
                  sqlite3 \"$BACKOUT_DATABASE_MAIN\" 'UPDATE product SET price = 77 WHERE id = 2'; false";
    run(script, Some("true"))
}

/// A site whose deployment failed and could not be taken back wholly.
fn left() -> TestSite {
    let site = shop();
    let outcome = site.deploy(&winter().step(meddler())).expect(Status::NeedsHand);
    assert_eq!(outcome.conflicts.len(), 2, "{outcome:?}");
    assert_eq!(seen(&site), ("app".to_owned(), "77".to_owned()));
    site
}

fn seen(site: &TestSite) -> (String, String) {
    (site.text("web/index.php").unwrap(), site.value("SELECT price FROM product WHERE id = 2"))
}

fn state(site: &TestSite) -> DeploymentState {
    site.journal().deployments().unwrap()[0].state
}

#[test]
fn what_was_left_is_listed_until_somebody_decides() {
    let site = left();
    let before = Fingerprint::of(&site);
    for _ in 0..2 {
        let (_, plan) = site.undo_plan(None, OnConflict::Stop);
        assert_eq!(plan.expect(Status::Refused).conflicts.len(), 2);
        let outcome = site.undo(None).expect(Status::Refused);
        assert_eq!((outcome.closing.as_str(), outcome.conflicts.len()), (NOTHING_CHANGED, 2), "{outcome:?}");
        assert!(outcome.hints.iter().any(|hint| hint.contains("--on-conflict keep")), "{outcome:?}");
    }
    before.assert_same(&Fingerprint::of(&site), "nothing is decided");
    assert_eq!(state(&site), DeploymentState::NeedsHand);
}

#[test]
fn what_was_left_can_be_kept() {
    let site = left();
    let outcome = site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
    assert_eq!(
        (outcome.conflicts.len(), outcome.closing.as_str()),
        (2, "Undone, except where the newer value was kept.")
    );
    assert_eq!(seen(&site), ("app".to_owned(), "77".to_owned()));
    assert_eq!(state(&site), DeploymentState::Undone);
    assert_eq!(site.grave(), []);
    site.deploy(&Pkg::new("p").step(raise())).expect(Status::Done);
}

/// To undo a step once more would undo what the undo of those before it put there.
#[test]
fn what_was_left_cannot_be_overwritten_any_more() {
    let site = left();
    let before = Fingerprint::of(&site);
    let outcome = site.undo_on(None, OnConflict::Overwrite).expect(Status::Refused);
    assert_eq!((outcome.closing.as_str(), outcome.conflicts.len()), (NOTHING_CHANGED, 2), "{outcome:?}");
    assert!(outcome.hints.iter().any(|hint| hint.contains("by hand")), "{outcome:?}");
    before.assert_same(&Fingerprint::of(&site), "refused");
    assert_eq!(state(&site), DeploymentState::NeedsHand);
}

/// A later step of the package dropped what an earlier one had made: keeping what was left undoes neither once more.
#[test]
fn keeping_what_was_left_undoes_nothing_once_more() {
    let site = shop();
    let schema = "SELECT count(*) FROM sqlite_schema WHERE name = 'by_name'";
    let outcome = site.deploy(
        &Pkg::new("p")
            .step(sql("CREATE INDEX by_name ON product (name)"))
            .step(sql("DROP INDEX by_name; UPDATE product SET price = 1 WHERE id = 2"))
            .step(meddler()),
    );
    outcome.expect(Status::NeedsHand);
    assert_eq!(site.value(schema), "0");
    site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
    assert_eq!((site.value(schema), state(&site)), ("0".to_owned(), DeploymentState::Undone));
}

/// Wherever the tool dies while what was left is kept, a recovery does it.
#[test]
fn keeping_what_was_left_may_die_anywhere() {
    let twin = left();
    let playing = play(Fault::None, false);
    twin.undo_on(None, OnConflict::Keep).expect(Status::Partly);
    let points = playing.seen().len();
    drop(playing);
    assert!(points > 2, "{points}");
    for at in 0..points {
        let site = left();
        let before = Fingerprint::of(&site);
        let playing = play(Fault::CrashAt(at), false);
        site.undo_on(None, OnConflict::Keep);
        assert!(playing.struck(), "{at}");
        drop(playing);
        site.bury_the_dead();
        site.resume();
        // It died before the undo was announced.
        if state(&site) == DeploymentState::NeedsHand {
            site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
        }
        before.assert_same(&Fingerprint::of(&site), &format!("point {at}"));
        assert_eq!((state(&site), site.grave()), (DeploymentState::Undone, vec![]), "point {at}");
    }
}

/// A redo brings back the whole of what was undone, however many attempts that took.
#[test]
fn a_redo_of_an_undo_that_took_two_attempts_brings_all_back() {
    let site = shop();
    let stuck = run("true", Some("test -e \"$BACKOUT_ROOT_WEB/../mended\""));
    let before = Fingerprint::of(&site);
    site.deploy(&Pkg::new("p").step(raise()).step(stuck).step(page("winter"))).expect(Status::Done);
    let deployed = Fingerprint::of(&site);
    site.undo(None).expect(Status::NeedsHand);
    std::fs::write(site.dir().join("mended"), "").unwrap();
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
    site.redo().expect(Status::Done);
    deployed.assert_same(&Fingerprint::of(&site), "redone");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone again");
}

#[test]
fn an_undo_says_so_where_an_earlier_one_left_something() {
    let site = shop();
    let first = site.deploy(&Pkg::new("a").step(page("winter"))).id();
    site.deploy(&Pkg::new("b").step(page("spring"))).expect(Status::Done);
    site.undo_on(Some(&first), OnConflict::Keep).expect(Status::Partly);
    let outcome = site.undo(None).expect(Status::Done);
    let now = outcome.answer.last().unwrap();
    assert!(now.contains(&first) && now.contains("what is left of"), "{now}");
    assert_eq!(site.text("web/index.php").unwrap(), "<?php // winter");
}

/// What an undo kept a redo finds done already: it has no images of it, and no later undo may pass over that in silence.
#[test]
fn what_was_kept_is_still_told_after_a_redo() {
    let site = shop();
    let package = Pkg::new("p").step(sql("DELETE FROM settings WHERE name = 'theme'")).step(page("winter"));
    let id = site.deploy(&package).id();
    site.execute("INSERT INTO settings VALUES ('theme', 'theirs')");
    std::fs::write(site.root("web").join("index.php"), "theirs").unwrap();
    let outcome = site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
    assert_eq!(outcome.conflicts_total, 2, "{outcome:?}");
    site.execute("DELETE FROM settings WHERE name = 'theme'");
    std::fs::write(site.root("web").join("index.php"), "<?php // winter").unwrap();
    site.redo().expect(Status::Done);
    let outcome = site.undo(None).expect(Status::Refused);
    assert_eq!(outcome.conflicts_total, 2, "{outcome:?}");
    assert_eq!(outcome.closing, NOTHING_CHANGED);
    for manner in [OnConflict::Keep, OnConflict::Overwrite] {
        let outcome = site.undo_on(None, manner).expect(Status::Partly);
        assert_eq!(outcome.conflicts_total, 2, "{outcome:?}");
        assert!(outcome.closing.contains("an earlier undo"), "{outcome:?}");
        let now = outcome.answer.last().unwrap();
        assert!(now.contains(&format!("what is left of {id}")), "{now}");
        site.redo().expect(Status::Done);
    }
}

/// A file that others replaced or removed before the undo is nowhere any more: no redo can bring it back, and it says so.
#[test]
fn a_redo_tells_what_is_nowhere_any_more() {
    for manner in [OnConflict::Keep, OnConflict::Overwrite] {
        for others in [None, Some("theirs")] {
            let site = shop();
            site.deploy(&Pkg::new("p").step(page("winter"))).expect(Status::Done);
            let index = site.root("web").join("index.php");
            match others {
                None => std::fs::remove_file(&index).unwrap(),
                Some(text) => std::fs::write(&index, text).unwrap(),
            }
            site.undo_on(None, manner).result.unwrap();
            if manner == OnConflict::Keep {
                std::fs::write(&index, "<?php // autumn").unwrap();
            }
            let now = Fingerprint::of(&site);
            let outcome = site.redo().expect(Status::Refused);
            assert_eq!(outcome.conflicts_total, 1, "{manner:?} {others:?}: {outcome:?}");
            assert_eq!(outcome.conflicts[0].kind, ConflictKind::NotKept, "{outcome:?}");
            now.assert_same(&Fingerprint::of(&site), "after a refused redo");
        }
    }
}

/// A row of others that gives way is named, and nobody is told that a redo brings it back.
#[test]
fn what_is_overwritten_is_named() {
    let base =
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE, c); INSERT INTO t VALUES (1, 'a1', 'c1'), (2, 'a2', 'c2');";
    for text in ["UPDATE t SET a = 'x' WHERE id = 1", "DELETE FROM t WHERE id = 1"] {
        let site = TestSite::builder().database("main", base).build();
        site.deploy(&Pkg::new("one").step(sql(text))).expect(Status::Done);
        site.execute("INSERT INTO t VALUES (7, 'a1', 'PRECIOUS')");
        let (_, plan) = site.undo_plan(None, OnConflict::Stop);
        let plan = plan.expect(Status::Refused);
        let outcome = site.undo_on(None, OnConflict::Overwrite).expect(Status::Done);
        for outcome in [plan, outcome] {
            assert_eq!(outcome.conflicts.len(), 1, "{outcome:?}");
            assert!(outcome.conflicts[0].now.contains("PRECIOUS"), "{outcome:?}");
            assert!(!outcome.closing.contains("redo"), "{outcome:?}");
        }
        assert_eq!(site.value("SELECT group_concat(id || a || c) FROM t"), "1a1c1,2a2c2", "{text}");
    }
}

/// What was kept, and then set back by others, a redo does again: then it is whole once more.
#[test]
fn what_was_kept_and_set_back_is_done_again() {
    let site = shop();
    let before = Fingerprint::of(&site);
    site.deploy(&Pkg::new("one").step(sql("UPDATE product SET stock = stock + 1"))).expect(Status::Done);
    site.execute("UPDATE product SET stock = 1000 WHERE id = 1");
    site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
    site.execute("UPDATE product SET stock = 5 WHERE id = 1");
    Fingerprint::of(&site).assert_same(&before, "set back by hand");
    site.redo().expect(Status::Done);
    site.undo(None).expect(Status::Done);
    Fingerprint::of(&site).assert_same(&before, "undone");
}
