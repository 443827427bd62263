//! Steps that nothing takes back: they run once, whatever is undone and redone around them, and nobody is told that
//! all is as before where one of them ran.

use std::sync::atomic::Ordering;

use backout_engine::observer::Happening;
use backout_engine::outcome::Status;
use backout_engine::{report, undo};
use backout_model::conflict::OnConflict;
use backout_model::fault::Point;
use backout_model::state::{DeploymentState, StepState};
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::observer::Recorder;
use backout_testkit::package::{Pkg, Step, child, run, sql, sql_is};
use backout_testkit::site::TestSite;
use serde_json::json;

use crate::resume::die_at_last;
use crate::scene::{late_failure, page, raise, shop, told, winter};

fn mail() -> Step {
    run("echo mail >> \"$BACKOUT_ROOT_WEB/../sent\"", None)
}

fn counted() -> Step {
    sql("UPDATE product SET stock = stock + 1 WHERE id = 2").with("undo", "none").with("because", "it is counted")
}

/// How often each of the two ran.
fn ran(site: &TestSite) -> (usize, String) {
    let mails = site.text("sent").unwrap_or_default().lines().count();
    (mails, site.value("SELECT stock - 9 FROM product WHERE id = 2"))
}

fn once() -> (usize, String) {
    (1, "1".to_owned())
}

#[test]
fn a_failure_after_one_needs_a_hand_and_says_which() {
    let site = shop();
    let package = Pkg::new("p").step(raise()).step(mail()).step(counted()).step(page("p")).step(late_failure());
    let outcome = site.deploy(&package).expect(Status::NeedsHand);
    for words in ["run sh -c echo mail", "sql 2.sql on main", "it is counted"] {
        assert!(outcome.notes.iter().any(|note| note.contains(words)), "{words} in {:?}", outcome.notes);
    }
    assert_eq!(told(&outcome), 2, "{:?}", outcome.notes);
    assert_eq!(site.value("SELECT group_concat(price) FROM product"), "100,20,15", "the rest is undone");
    assert!(site.text("web/p/new.txt").is_none());
    let status = report::status(&site.config(), &site.journal(), 0).unwrap();
    assert_eq!(status.needs_hand[0].left.len(), 2, "{status:?}");
    site.undo(None).expect(Status::Partly);
    assert_eq!(ran(&site), once());
    site.deploy(&winter()).expect(Status::Done);
    assert_eq!(site.grave(), []);
}

#[test]
fn one_that_failed_may_have_done_something() {
    let site = shop();
    let package = Pkg::new("p").step(raise()).step(run("echo half >> \"$BACKOUT_ROOT_WEB/../sent\"; exit 1", None));
    site.deploy(&package).expect(Status::NeedsHand);
    assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), "100");
    site.undo(None).expect(Status::Partly);
}

#[test]
fn a_script_that_failed_did_nothing() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let broken = late_failure().with("undo", "none").with("because", "it is broken");
    site.deploy(&Pkg::new("p").step(raise()).step(broken)).expect(Status::Failed);
    before.assert_same(&Fingerprint::of(&site), "undone");
}

#[test]
fn a_death_after_one_needs_a_hand() {
    let package = || Pkg::new("p").step(raise()).step(mail()).step(counted()).step(page("p"));
    let site = die_at_last(shop, Point::JournalWrite, |site| site.deploy(&package()));
    let outcome = site.resume().result.unwrap().unwrap();
    assert_eq!(outcome.status, Status::NeedsHand, "{outcome:?}");
    assert_eq!(site.value("SELECT group_concat(price) FROM product"), "100,20,15");
    assert_eq!(ran(&site), once());
    assert!(site.resume().result.unwrap().is_none(), "nothing is left to resume");
}

#[test]
fn a_child_that_fails_after_one_is_neither_run_again_nor_passed_over() {
    for list in [false, true] {
        let site = shop();
        let bad = child(Pkg::new("bad").step(mail()).step(counted()).step(late_failure()))
            .with("on-failure", "continue")
            .with("retries", json!({ "attempts": 3, "wait": "1ms" }));
        let package = Pkg::new("all").step(raise()).step(bad);
        let outcome = site.deploy(&if list { package.list() } else { package }).expect(Status::NeedsHand);
        assert_eq!(told(&outcome), 2, "{list}: {:?}", outcome.notes);
        assert_eq!(ran(&site), once(), "{list}");
    }
}

#[test]
fn a_retry_that_fails_after_one_needs_a_hand() {
    let site = shop();
    let ready = run("test -e \"$BACKOUT_ROOT_WEB/../mended\"", Some("true"));
    let flaky = Pkg::new("flaky").step(ready).step(mail()).step(late_failure());
    let id = site
        .deploy(&Pkg::new("all").step(raise()).step(child(flaky).with("on-failure", "continue")))
        .expect(Status::Partly)
        .deployment
        .unwrap();
    std::fs::write(site.dir().join("mended"), "").unwrap();
    site.retry(&format!("{id}/flaky")).expect(Status::NeedsHand);
    assert_eq!(ran(&site).0, 1);
}

#[test]
fn a_redo_does_not_run_them_again() {
    let site = shop();
    let id = site.deploy(&Pkg::new("p").step(raise()).step(mail()).step(counted())).id();
    let deployed = Fingerprint::of(&site);
    for _ in 0..2 {
        let outcome = site.undo(None).expect(Status::Partly);
        assert!(outcome.closing.contains("irreversible"), "{outcome:?}");
        assert!(outcome.notes.iter().any(|note| note.contains("it is counted")), "{:?}", outcome.notes);
        assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), "100");
        let row = &site.journal().deployments().unwrap()[0];
        assert_eq!(row.state, DeploymentState::Undone);
        let states = site.journal().states(&row.id).unwrap();
        let states: Vec<StepState> = states.steps.values().copied().collect();
        assert_eq!(states, [StepState::Undone, StepState::Applied, StepState::Applied]);
        site.redo().expect(Status::Done);
        deployed.assert_same(&Fingerprint::of(&site), "redone");
        assert_eq!(ran(&site), once());
    }
    assert!(site.undo(Some(&id)).expect(Status::Partly).answer[1].contains("except"));
}

#[test]
fn a_redo_that_is_taken_back_is_no_failure_of_them() {
    let site = shop();
    let smoke = sql_is("SELECT count(*) FROM settings WHERE value = 'bad'", 0);
    site.deploy(&Pkg::new("p").step(raise()).step(mail()).after(smoke)).expect(Status::Done);
    site.undo(None).expect(Status::Partly);
    site.execute("UPDATE settings SET value = 'bad' WHERE name = 'theme'");
    let now = Fingerprint::of(&site);
    site.redo().expect(Status::Failed);
    now.assert_same(&Fingerprint::of(&site), "as before the redo");
    assert_eq!(ran(&site).0, 1);
}

#[test]
fn an_undo_that_is_put_back_does_not_run_them_again() {
    let site = shop();
    let package = Pkg::new("p").step(page("q")).step(raise()).step(mail()).step(counted()).step(page("p"));
    site.deploy(&package).expect(Status::Done);
    let before = Fingerprint::of(&site);
    let mut recorder = Recorder::default();
    let stopper = recorder.stopper();
    recorder.set_hook(move |happening| {
        if matches!(happening, Happening::StepUndone { index: 1, .. }) {
            stopper.store(true, Ordering::Relaxed);
        }
    });
    let options = undo::Options { on_conflict: OnConflict::Stop, unattributed: false };
    site.command("undo", recorder, |session| undo::undo(session, None, options)).expect(Status::Failed);
    before.assert_same(&Fingerprint::of(&site), "put back");
    assert_eq!(ran(&site), once());
    assert_eq!(site.journal().deployments().unwrap()[0].state, DeploymentState::Done);
}
