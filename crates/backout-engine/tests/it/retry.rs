//! Retry of a child that failed and was passed over.

use backout_engine::outcome::Status;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, child, run, sql};
use backout_testkit::site::TestSite;

use crate::scene::{page, raise, shop};

/// A package whose child fails until the file `mended` lies beside the site's databases.
fn package() -> Pkg {
    let flaky = Pkg::new("flaky")
        .step(sql("UPDATE product SET stock = 1"))
        .step(page("flaky"))
        .step(run("test -e \"$BACKOUT_ROOT_WEB/../mended\"", Some("true")))
        .finally("echo flaky >> \"$BACKOUT_ROOT_WEB/../finally\"");
    Pkg::new("all").step(raise()).step(child(flaky).with("on-failure", "continue"))
}

fn mend(site: &TestSite) {
    std::fs::write(site.dir().join("mended"), "").unwrap();
}

#[test]
fn a_passed_over_child_is_run_again() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let id = site.deploy(&package()).id();
    mend(&site);
    let outcome = site.retry(&format!("{id}/flaky")).expect(Status::Done);
    assert_eq!(outcome.answer, [format!("deployed flaky of all 1.0 ({id})")]);
    assert_eq!(site.value("SELECT sum(stock) FROM product"), "4");
    assert!(site.text("web/flaky/new.txt").is_some());
    assert_eq!(site.text("finally").as_deref(), Some("flaky\n"));
    let whole = Fingerprint::of(&site);
    assert_eq!(site.retry(&format!("{id}/flaky")).status(), Status::Refused, "it is done");
    site.undo(Some(&id)).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone as a whole");
    site.redo().expect(Status::Done);
    whole.assert_same(&Fingerprint::of(&site), "redone as a whole");
    assert_eq!(site.grave(), []);
}

#[test]
fn a_child_that_fails_again_is_undone_again() {
    let site = shop();
    let id = site.deploy(&package()).id();
    let now = Fingerprint::of(&site);
    for _ in 0..2 {
        site.retry(&format!("{id}/flaky")).expect(Status::Failed);
        now.assert_same(&Fingerprint::of(&site), "the rest stays");
    }
    mend(&site);
    site.retry(&format!("{id}/flaky")).expect(Status::Done);
    assert_eq!(site.grave(), []);
}

#[test]
fn what_cannot_be_retried_is_refused() {
    let site = shop();
    let id = site.deploy(&package()).id();
    mend(&site);
    let now = Fingerprint::of(&site);
    for (what, status) in [
        (id.clone(), Status::Usage),
        (format!("{id}/nowhere"), Status::Refused),
        ("zzzzzzzzzzzz/flaky".to_owned(), Status::Usage),
    ] {
        let done = site.retry(&what);
        assert!(done.result.is_err() && done.status() == status, "{what}: {done:?}");
    }
    std::fs::write(site.dir().join("packages/all/1.txt"), "the package was edited since").unwrap();
    let done = site.retry(&format!("{id}/flaky"));
    assert_eq!(done.status(), Status::Refused, "{done:?}");
    now.assert_same(&Fingerprint::of(&site), "refused");
}

#[test]
fn a_child_of_an_undone_deployment_cannot_be_retried() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let id = site.deploy(&package()).id();
    site.undo(None).expect(Status::Done);
    mend(&site);
    let done = site.retry(&format!("{id}/flaky"));
    assert_eq!(done.status(), Status::Refused, "{done:?}");
    before.assert_same(&Fingerprint::of(&site), "still undone");
}

#[test]
fn a_child_whose_required_sibling_is_still_missing_cannot_be_retried() {
    let site = shop();
    let bad = Pkg::new("bad").step(run("test -e \"$BACKOUT_ROOT_WEB/../mended\"", Some("true")));
    let needy = Pkg::new("needy").requires("bad").step(page("needy"));
    let package = Pkg::new("all")
        .step(raise())
        .step(child(bad).with("on-failure", "continue"))
        .step(child(needy).with("on-failure", "continue"));
    let id = site.deploy(&package).id();
    let done = site.retry(&format!("{id}/needy"));
    assert_eq!(done.status(), Status::Refused, "{done:?}");
    mend(&site);
    site.retry(&format!("{id}/bad")).expect(Status::Done);
    site.retry(&format!("{id}/needy")).expect(Status::Done);
    assert!(site.text("web/needy/new.txt").is_some());
}

#[test]
fn a_retry_leaves_what_was_undone_to_redo() {
    let site = shop();
    let bad = Pkg::new("bad")
        .step(child(Pkg::new("deep").step(page("deep"))))
        .step(run("test -e \"$BACKOUT_ROOT_WEB/../mended\"", Some("true")));
    let package = Pkg::new("all")
        .step(page("all"))
        .step(child(Pkg::new("prices").step(raise())))
        .step(child(bad).with("on-failure", "continue"));
    let id = site.deploy(&package).id();
    let whole = Fingerprint::of(&site);
    site.undo(Some(&format!("{id}/prices"))).expect(Status::Done);
    site.retry(&format!("{id}/bad")).expect(Status::Failed);
    site.redo().expect(Status::Done);
    whole.assert_same(&Fingerprint::of(&site), "redone");
    assert_eq!(site.redo().status(), Status::Refused, "what was passed over is no undo");
    site.undo(Some(&format!("{id}/prices"))).expect(Status::Done);
    mend(&site);
    site.retry(&format!("{id}/bad")).expect(Status::Done);
    site.redo().expect(Status::Done);
    assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), "110");
    assert!(site.text("web/deep/new.txt").is_some());
    assert_eq!(site.grave(), []);
}

#[test]
fn a_child_of_an_undone_child_cannot_be_retried() {
    let site = shop();
    let bad = Pkg::new("bad").step(run("test -e \"$BACKOUT_ROOT_WEB/../mended\"", Some("true")));
    let middle = Pkg::new("middle").step(page("middle")).step(child(bad).with("on-failure", "continue"));
    let id = site.deploy(&Pkg::new("all").step(raise()).step(child(middle))).id();
    site.undo(Some(&format!("{id}/middle"))).expect(Status::Done);
    mend(&site);
    let done = site.retry(&format!("{id}/middle/bad"));
    assert_eq!(done.status(), Status::Refused, "{done:?}");
    site.redo().expect(Status::Done);
    site.retry(&format!("{id}/middle/bad")).expect(Status::Done);
}

/// A retry puts a step of an earlier deployment behind those of a later one: what counts is the order of the steps.
#[test]
fn what_a_retry_did_later_counts_as_later() {
    let site = shop();
    let late = Pkg::new("late")
        .step(sql("DELETE FROM settings WHERE name = 'theme'"))
        .step(run("test -e \"$BACKOUT_ROOT_WEB/../mended\"", Some("true")));
    let before = Fingerprint::of(&site);
    let first = site.deploy(&Pkg::new("all").step(child(late).with("on-failure", "continue"))).id();
    let second = site.deploy(&Pkg::new("less").step(sql("ALTER TABLE settings DROP COLUMN value"))).id();
    mend(&site);
    site.retry(&format!("{first}/late")).expect(Status::Done);
    let now = Fingerprint::of(&site);
    site.undo(Some(&second)).expect(Status::Refused);
    now.assert_same(&Fingerprint::of(&site), "after a refused undo");
    site.undo(Some(&first)).expect(Status::Done);
    site.undo(Some(&second)).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "after both");
}
