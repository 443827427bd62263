//! What a crash interrupted: found, told, ended one way or the other. The crash suite goes through every point; here
//! are the ends it can come to.

use backout_engine::observer::Happening;
use backout_engine::outcome::Status;
use backout_engine::report;
use backout_model::fault::Point;
use backout_testkit::faults::{Fault, play};
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::observer::Recorder;
use backout_testkit::package::{Pkg, child, run, sql};
use backout_testkit::site::{Done, TestSite};

use crate::scene::{builder, late_failure, page, raise, shop, winter};

/// Runs `act` on a site and lets the process die at the last point of that kind before it gives its locks back; where
/// that is, is found on a twin of the site.
pub fn die_at_last(make: impl Fn() -> TestSite, point: Point, act: impl Fn(&TestSite) -> Done) -> TestSite {
    let twin = make();
    let playing = play(Fault::None, false);
    act(&twin);
    let seen = playing.seen();
    drop(playing);
    // The last write of the journal ends the work: what comes after it is the giving back of the locks.
    let end = seen.iter().rposition(|each| *each == Point::JournalWrite).unwrap() + 1;
    let last = seen[..end].iter().rposition(|each| *each == point);
    let at = last.unwrap_or_else(|| panic!("no {point:?} in {seen:?}")) + 1;
    let site = make();
    let playing = play(Fault::CrashAt(at), false);
    act(&site);
    assert!(playing.struck());
    drop(playing);
    site.bury_the_dead();
    site
}

#[test]
fn nothing_is_resumed_where_nothing_was_interrupted() {
    let site = shop();
    assert!(site.resume().result.unwrap().is_none());
    site.deploy(&winter()).expect(Status::Done);
    assert!(site.resume().result.unwrap().is_none());
}

#[test]
fn an_interrupted_deployment_is_taken_back() {
    let before = Fingerprint::of(&shop());
    let site = die_at_last(shop, Point::Committed, |site| site.deploy(&winter()));
    let status = report::status(&site.config(), &site.journal(), 0).unwrap();
    assert!(status.interrupted && status.underway.is_some(), "{status:?}");
    let outcome = site.resume().result.unwrap().unwrap();
    assert_eq!(outcome.status, Status::Failed);
    assert!(outcome.answer[0].contains("had been interrupted and was undone"), "{outcome:?}");
    let now = Fingerprint::of(&site);
    assert_eq!(before.parts["database main"], now.parts["database main"]);
    let status = report::status(&site.config(), &site.journal(), 0).unwrap();
    assert!(!status.interrupted && status.underway.is_none() && status.needs_hand.is_empty(), "{status:?}");
    assert_eq!(site.grave(), []);
    site.deploy(&winter()).expect(Status::Done);
}

#[test]
fn what_others_wrote_before_the_recovery_is_merged_or_kept() {
    for (script, status, prices) in [
        ("UPDATE product SET stock = 500 WHERE id = 1", Status::Failed, "100,20,15"),
        ("UPDATE product SET price = 55 WHERE id = 1", Status::NeedsHand, "55,20,15"),
    ] {
        let package = || winter().step(sql("UPDATE product SET name = upper(name)"));
        let site = die_at_last(shop, Point::Commit, |site| site.deploy(&package()));
        site.execute(script);
        let outcome = site.resume().result.unwrap().unwrap();
        assert_eq!(outcome.status, status, "{outcome:?}");
        assert_eq!(site.value("SELECT group_concat(price) FROM product"), prices);
        assert_eq!(site.value("SELECT group_concat(name) FROM product"), "coat,hat,scarf");
        assert!(site.text("web/winter/new.txt").is_none());
    }
}

#[test]
fn what_the_automatic_undo_kept_is_told_after_a_death_too() {
    // The file is kept as others left it; then the process dies, before the rows are undone.
    let write = |site: &TestSite| {
        let at = site.write(&Pkg::new("p").step(raise()).step(page("p")).step(late_failure()));
        let index = site.root("web").join("index.php");
        let recorder = Recorder::with_hook(move |happening| {
            if matches!(happening, Happening::StepDone { index: 1, .. }) {
                std::fs::write(&index, "somebody's own").unwrap();
            }
        });
        site.deploy_from(&at, recorder)
    };
    for point in [Point::Commit, Point::Committed] {
        let site = die_at_last(shop, point, write);
        let outcome = site.resume().result.unwrap().unwrap();
        assert_eq!(outcome.status, Status::NeedsHand, "{point:?}: {outcome:?}");
        assert_eq!(outcome.conflicts_total, 1, "{outcome:?}");
        assert_eq!(site.text("web/index.php").as_deref(), Some("somebody's own"));
        assert_eq!(site.value("SELECT group_concat(price) FROM product"), "100,20,15");
    }
}

#[test]
fn what_a_commit_kept_that_nobody_was_told_of_is_told_by_the_recovery() {
    let write = |site: &TestSite| {
        let at = site.write(&Pkg::new("p").step(raise()).step(late_failure()));
        let connection = site.connect("main");
        let recorder = Recorder::with_hook(move |happening| {
            if matches!(happening, Happening::StepDone { index: 0, .. }) {
                connection.execute("UPDATE product SET price = 55 WHERE id = 1", []).unwrap();
            }
        });
        site.deploy_from(&at, recorder)
    };
    let site = die_at_last(shop, Point::Committed, write);
    let outcome = site.resume().result.unwrap().unwrap();
    assert_eq!(outcome.status, Status::NeedsHand, "{outcome:?}");
    assert_eq!(outcome.conflicts_total, 1, "{outcome:?}");
    assert_eq!(site.value("SELECT group_concat(price) FROM product"), "55,20,15");
}

#[test]
fn an_interrupted_undo_is_finished() {
    let make = || {
        let site = shop();
        site.deploy(&winter()).expect(Status::Done);
        site
    };
    let site = die_at_last(make, Point::JournalWrite, |site| site.undo(None));
    let outcome = site.resume().result.unwrap().unwrap();
    assert_eq!(outcome.status, Status::Done, "{outcome:?}");
    assert_eq!(site.value("SELECT group_concat(price) FROM product"), "100,20,15");
    assert!(site.text("web/winter/new.txt").is_none());
    site.redo().expect(Status::Done);
    assert_eq!(site.grave(), []);
}

#[test]
fn an_interrupted_redo_is_taken_back_and_can_be_done_again() {
    let make = || {
        let site = shop();
        site.deploy(&winter()).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        site
    };
    let site = die_at_last(make, Point::Committed, TestSite::redo);
    let outcome = site.resume().result.unwrap().unwrap();
    assert_eq!(outcome.status, Status::Failed, "{outcome:?}");
    assert_eq!(site.value("SELECT group_concat(price) FROM product"), "100,20,15");
    assert!(site.text("web/winter/new.txt").is_none());
    site.redo().expect(Status::Done);
    assert_eq!(site.value("SELECT group_concat(price) FROM product"), "110,30,25,80");
    assert_eq!(site.grave(), []);
}

#[test]
fn an_interrupted_retry_is_taken_back_and_can_be_done_again() {
    let make = || {
        let site = shop();
        let flaky = Pkg::new("flaky")
            .step(sql("UPDATE product SET stock = 1"))
            .step(run("test -e \"$BACKOUT_ROOT_WEB/../mended\"", Some("true")))
            .step(page("flaky"));
        site.deploy(&Pkg::new("all").step(raise()).step(child(flaky).with("on-failure", "continue")))
            .expect(Status::Partly);
        std::fs::write(site.dir().join("mended"), "").unwrap();
        site
    };
    let retry = |site: &TestSite| {
        let id = site.journal().deployments().unwrap()[0].id.clone();
        site.retry(&format!("{id}/flaky"))
    };
    let site = die_at_last(make, Point::JournalWrite, retry);
    let outcome = site.resume().result.unwrap().unwrap();
    assert_eq!(outcome.status, Status::Failed, "{outcome:?}");
    assert_eq!(site.value("SELECT group_concat(stock) FROM product"), "5,9,2");
    assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), "110", "the rest stays");
    assert!(site.text("web/flaky/new.txt").is_none());
    retry(&site).expect(Status::Done);
    assert_eq!(site.value("SELECT group_concat(stock) FROM product"), "1,1,1,1");
    assert_eq!(site.grave(), []);
}

#[test]
fn maintenance_mode_is_left_after_a_crash() {
    let make = || builder().maintenance("touch closed", "rm -f closed").build();
    for point in [Point::Statement, Point::Exchange, Point::Commit] {
        let site = die_at_last(make, point, |site| site.deploy(&winter()));
        assert!(site.text("closed").is_some(), "{point:?}");
        site.resume().result.unwrap().unwrap();
        assert!(site.text("closed").is_none(), "{point:?}");
    }
}

#[test]
fn an_interrupted_plain_list_keeps_what_was_done() {
    let list = || Pkg::new("list").list().step(raise()).step(sql("UPDATE product SET stock = 0"));
    let site = die_at_last(shop, Point::Commit, |site| site.deploy(&list()));
    let outcome = site.resume().result.unwrap().unwrap();
    assert_eq!(outcome.status, Status::Partly, "{outcome:?}");
    assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), "110");
    assert_eq!(site.value("SELECT sum(stock) FROM product"), "16");
    site.undo(None).expect(Status::Done);
    assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), "100");
}
