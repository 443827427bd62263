//! Maintenance mode: entered before the first change, left after the last, also when things go wrong.

use backout_engine::outcome::Status;
use backout_engine::report;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, run, sql_is};
use backout_testkit::site::TestSite;

use crate::deploy::undone;
use crate::scene::{builder, late_failure, winter};

/// The mode is a file; every change of it is logged.
fn site() -> TestSite {
    builder().maintenance("touch closed; echo enter >> log", "rm -f closed; echo leave >> log").build()
}

fn log(site: &TestSite) -> String {
    let log = site.text("log").unwrap_or_default().replace('\n', " ");
    std::fs::remove_file(site.dir().join("log")).unwrap();
    log
}

fn is_closed(yes: bool) -> backout_testkit::package::Step {
    let test = format!("{} test -e \"$BACKOUT_ROOT_WEB/../closed\"", if yes { "" } else { "!" });
    run(&test, Some(&test))
}

#[test]
fn the_site_is_closed_while_it_changes() {
    let site = site();
    let package = winter().step(is_closed(true));
    site.deploy(&package).expect(Status::Done);
    assert_eq!(log(&site), "enter leave ");
    site.undo(None).expect(Status::Done);
    assert_eq!(log(&site), "enter leave ");
    site.redo().expect(Status::Done);
    assert_eq!(log(&site), "enter leave ");
}

#[test]
fn smoke_tests_see_the_open_site() {
    let site = site();
    let open =
        serde_json::json!({ "run": backout_testkit::package::shell("! test -e \"$BACKOUT_ROOT_WEB/../closed\"") });
    site.deploy(&winter().after(open)).expect(Status::Done);
}

#[test]
fn it_is_left_after_a_failure() {
    let site = site();
    let before = Fingerprint::of(&site);
    undone(&site, &before, site.deploy(&winter().step(late_failure())));
    assert_eq!(log(&site), "enter leave ");
    let package = winter().step(run("true", Some("echo undo >> \"$BACKOUT_ROOT_WEB/../log\"")));
    undone(&site, &before, site.deploy(&package.after(sql_is("SELECT 1", 2))));
    assert_eq!(log(&site), "enter leave enter undo leave ", "nobody sees it being undone");
    assert!(site.text("closed").is_none());
}

#[test]
fn it_is_not_entered_where_nothing_starts() {
    let site = site();
    site.deploy(&winter().before(sql_is("SELECT 1", 2))).expect(Status::Refused);
    assert!(site.text("log").is_none());
}

#[test]
fn where_it_cannot_be_entered_nothing_changes() {
    let site = builder().maintenance("exit 1", "true").build();
    let before = Fingerprint::of(&site);
    undone(&site, &before, site.deploy(&winter()));
}

#[test]
fn where_it_cannot_be_left_that_is_said_and_resume_tries_again() {
    let site = builder().maintenance("touch closed", "test -e mended && rm -f closed").build();
    let outcome = site.deploy(&Pkg::new("p").step(is_closed(true))).expect(Status::NeedsHand);
    assert!(outcome.closing.contains("maintenance") && outcome.closing.contains("backout resume"), "{outcome:?}");
    std::fs::write(site.dir().join("mended"), "").unwrap();
    let resumed = site.resume().result.unwrap().unwrap();
    assert_eq!(resumed.status, Status::Done);
    assert!(site.text("closed").is_none());
    assert!(site.resume().result.unwrap().is_none(), "nothing is left to resume");
}

/// A site that can be left only once somebody has made the file `mended`.
fn stuck() -> TestSite {
    builder().maintenance("touch closed", "test -e mended && rm -f closed").build()
}

#[test]
fn a_failure_after_which_the_site_stays_closed_is_no_clean_one() {
    let site = stuck();
    let before = Fingerprint::of(&site);
    let outcome = site.deploy(&winter().step(late_failure())).expect(Status::NeedsHand);
    assert!(outcome.closing.contains("still in maintenance mode"), "{outcome:?}");
    assert!(outcome.notes.iter().any(|note| note.contains("Everything was undone")), "{outcome:?}");
    before.assert_same(&Fingerprint::of(&site), "undone");
    let status = || report::status(&site.config(), &site.journal(), 0).unwrap();
    assert!(status().in_maintenance);
    std::fs::write(site.dir().join("mended"), "").unwrap();
    site.resume().result.unwrap().unwrap();
    assert!(!status().in_maintenance && site.text("closed").is_none());
}

#[test]
fn what_needs_a_hand_keeps_the_site_closed() {
    let site = site();
    let package = winter().step(run("true", Some("test -e \"$BACKOUT_ROOT_WEB/../mended\""))).step(late_failure());
    let outcome = site.deploy(&package).expect(Status::NeedsHand);
    assert!(outcome.notes.iter().any(|note| note.contains("stays in maintenance mode")), "{outcome:?}");
    assert!(site.resume().result.unwrap().is_none(), "nothing was interrupted");
    assert_eq!(log(&site), "enter ", "a site that is half undone is not opened");
    assert!(report::status(&site.config(), &site.journal(), 0).unwrap().in_maintenance);
    site.undo(None).expect(Status::NeedsHand);
    assert!(site.text("closed").is_some());
    std::fs::write(site.dir().join("mended"), "").unwrap();
    site.undo(None).expect(Status::Done);
    assert_eq!(log(&site), "leave ");
}

#[test]
fn a_site_file_that_no_longer_says_how_leaves_nothing() {
    let site = stuck();
    site.deploy(&Pkg::new("p").step(is_closed(true))).expect(Status::NeedsHand);
    let file = site.dir().join("site.yaml");
    let with = std::fs::read_to_string(&file).unwrap();
    let mut without: serde_json::Value = serde_json::from_str(&with).unwrap();
    assert!(without.as_object_mut().unwrap().remove("maintenance").is_some());
    std::fs::write(&file, without.to_string()).unwrap();
    assert_eq!(site.resume().result.unwrap().unwrap().status, Status::NeedsHand);
    std::fs::write(&file, with).unwrap();
    std::fs::write(site.dir().join("mended"), "").unwrap();
    assert_eq!(site.resume().result.unwrap().unwrap().status, Status::Done);
    assert!(site.text("closed").is_none());
}

#[test]
fn the_site_is_not_closed_for_an_undo_that_is_refused() {
    let site = site();
    site.deploy(&Pkg::new("p").step(crate::scene::raise())).expect(Status::Done);
    log(&site);
    site.execute("UPDATE product SET price = 55 WHERE id = 1");
    site.undo(None).expect(Status::Refused);
    assert!(site.text("log").is_none());
}
