//! One package: done or undone as a whole, refused where it must be, told in the history.

use backout_engine::outcome::{NOTHING_CHANGED, Status, UNDONE_AND_VERIFIED};
use backout_engine::{deploy, observer::Happening};
use backout_model::conflict::OnConflict;
use backout_model::state::DeploymentState;
use backout_package::package::Package;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::observer::Recorder;
use backout_testkit::package::{Kind, Pkg, Step, delete, run, sql};
use backout_testkit::site::{Done, TestSite};

use serde_json::json;

use crate::scene::{broken, late_failure, page, raise, shop, winter};

/// The failure left the site as it was, and the journal and its images hold together.
#[track_caller]
pub fn undone(site: &TestSite, before: &Fingerprint, done: Done) {
    let outcome = done.expect(Status::Failed);
    assert_eq!(outcome.closing, UNDONE_AND_VERIFIED);
    assert!(!outcome.causes.is_empty());
    before.assert_same(&Fingerprint::of(site), "after the failure");
    assert_eq!(site.grave(), []);
}

#[test]
fn all_steps_are_done() {
    let site = shop();
    let outcome = site.deploy(&winter()).expect(Status::Done);
    assert_eq!(site.value("SELECT group_concat(price) FROM product"), "110,30,25,80");
    assert_eq!(site.text("web/index.php").as_deref(), Some("<?php // winter"));
    assert_eq!(site.text("web/winter/new.txt").as_deref(), Some("new"));
    let id = outcome.deployment.unwrap();
    assert_eq!(outcome.answer, [format!("deployed winter 1.0 as {id}")]);
    assert_eq!(outcome.closing, format!("Deployed. `backout undo {id}` takes it back."));
    assert_eq!(site.journal().deployment(&id).unwrap().unwrap().state, DeploymentState::Done);
    assert_eq!(site.grave(), []);
}

#[test]
fn a_step_sees_what_the_ones_before_it_committed() {
    let site = shop();
    let package = Pkg::new("p")
        .step(sql("CREATE TABLE made (n)"))
        .step(run("sqlite_is_not_needed=1; test -f \"$BACKOUT_DATABASE_MAIN\"", Some("true")))
        .step(sql("INSERT INTO made SELECT count(*) FROM product"));
    site.deploy(&package).expect(Status::Done);
    assert_eq!(site.value("SELECT n FROM made"), "3");
}

#[test]
fn a_failing_statement_undoes_the_steps_before_it_and_its_own_beginning() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let done = site.deploy(&winter().step(late_failure()));
    undone(&site, &before, done);
}

#[test]
fn a_failing_command_undoes_the_steps_before_it() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let done = site.deploy(&winter().step(run("echo what went wrong; exit 3", Some("true"))));
    let causes = done.result.as_ref().unwrap().causes.join("\n");
    assert!(causes.contains("exit status 3") && causes.contains("what went wrong"), "{causes}");
    undone(&site, &before, done);
}

#[test]
fn a_path_that_is_missing_when_its_turn_comes_undoes_the_steps_before_it() {
    let site = shop();
    let before = Fingerprint::of(&site);
    // The first step makes the plan unsure of the second, so that it fails only while it runs.
    let package = Pkg::new("p").step(page("winter")).step(delete(["winter/new.txt", "winter/never.txt"]));
    undone(&site, &before, site.deploy(&package));
}

#[test]
fn what_cannot_work_is_refused_before_anything_starts() {
    let site = shop();
    let before = Fingerprint::of(&site);
    for package in [
        winter().step(broken()),
        Pkg::new("p").step(raise()).step(delete(["never.txt"])),
        winter().step(sql("VACUUM")),
        winter().step(sql("UPDATE product SET price = 1").with("database", "other")),
        winter().before(json!({ "sql": "SELECT 1", "equals": "1", "database": "other" })),
        winter().after(json!({ "file": "index.php", "root": "other" })),
        winter().after(json!({ "run": ["test", "-e", "{root.other}"] })),
        winter().step(run("true", Some("true"))).finally("ls {database.other}"),
        winter().step(run("ls {root.other}", Some("true"))),
        winter().step(run("true", Some("ls {root.other}"))),
    ] {
        let done = site.deploy(&package);
        assert!(matches!(done.status(), Status::Refused | Status::Usage), "{done:?}");
        assert!(done.result.is_err(), "it has no deployment: {done:?}");
        before.assert_same(&Fingerprint::of(&site), "nothing started");
        assert_eq!(site.journal().deployments().unwrap().len(), 0);
    }
}

#[test]
fn a_required_package_must_be_on_the_site() {
    let site = shop();
    let needy = Pkg::new("needy").requires("winter").step(sql("UPDATE product SET stock = 1"));
    let done = site.deploy(&needy);
    assert_eq!(done.status(), Status::Refused);
    assert!(done.words().contains("`winter`"), "{}", done.words());
    site.deploy(&winter()).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    assert_eq!(site.deploy(&needy).status(), Status::Refused, "it is undone");
    site.redo().expect(Status::Done);
    site.deploy(&needy).expect(Status::Done);
}

#[test]
fn irreversible_steps_must_be_accepted() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let at = site.write(&winter().step(run("touch sent", None)));
    let done = site.command("deploy", Recorder::default(), |session| {
        let package = Package::load(&at)?;
        let options = deploy::Options { accept_irreversible: false, source: at.clone(), confirm_within: None };
        deploy::deploy(session, &package, options)
    });
    assert_eq!(done.status(), Status::Refused);
    assert!(done.words().contains("the test says so"), "{}", done.words());
    before.assert_same(&Fingerprint::of(&site), "refused");
    site.deploy_from(&at, Recorder::default()).expect(Status::Done);
    let undone = site.undo(None).expect(Status::Partly);
    assert!(undone.notes.iter().any(|note| note.contains("the test says so")), "{undone:?}");
    before.assert_same(&Fingerprint::of(&site), "all but the command is undone");
}

#[test]
fn a_script_of_the_package_undoes_what_cannot_be_captured() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let pair = Kind::SqlUndoneBy(
        "UPDATE settings SET value = '42' WHERE name = 'schema'".to_owned(),
        "UPDATE settings SET value = '41' WHERE name = 'schema'".to_owned(),
    );
    site.deploy(&Pkg::new("p").step(Step::from(pair)).step(raise())).expect(Status::Done);
    assert_eq!(site.value("SELECT value FROM settings WHERE name = 'schema'"), "42");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone by the script");
    site.redo().expect(Status::Done);
    assert_eq!(site.value("SELECT value FROM settings WHERE name = 'schema'"), "42");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone again");
}

#[test]
fn an_operator_who_stops_the_run_gets_the_site_as_it_was() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let at = site.write(&winter().step(sql("UPDATE product SET stock = 0")));
    let mut recorder = Recorder::default();
    let stopper = recorder.stopper();
    recorder.set_hook(move |happening| {
        if matches!(happening, Happening::StepDone { index: 1, .. }) {
            stopper.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let done = site.deploy_from(&at, recorder);
    assert!(done.result.as_ref().unwrap().causes.join(" ").contains("stopped by the operator"), "{done:?}");
    undone(&site, &before, done);
}

#[test]
fn a_second_deployer_is_kept_out_and_told_by_whom() {
    let site = shop();
    let mut first = Recorder::default();
    let session = site.open("deploy winter", &mut first).unwrap();
    let before = Fingerprint::of(&site);
    let done = site.deploy(&winter());
    assert_eq!(done.status(), Status::Refused);
    assert!(done.words().contains("deploy winter"), "{}", done.words());
    before.assert_same(&Fingerprint::of(&site), "kept out");
    drop(session);
    site.deploy(&winter()).expect(Status::Done);
}

#[test]
fn a_plain_list_keeps_what_is_done() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let package = Pkg::new("list").list().step(raise()).step(late_failure()).step(page("winter"));
    let done = site.deploy(&package);
    let id = done.id();
    let outcome = done.expect(Status::Partly);
    assert_eq!(outcome.left_out.iter().map(|left| left.what.as_str()).collect::<Vec<_>>(), [id.as_str()]);
    assert_eq!(site.value("SELECT group_concat(price) FROM product"), "110,30,25,80", "the first step stays");
    assert_eq!(site.value("SELECT sum(stock) FROM product"), "16", "the second is taken back");
    site.undo(Some(&id)).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undo takes back what is applied");
    assert_eq!(site.grave(), []);
}

#[test]
fn a_failure_leaves_nothing_of_the_tool_but_its_history() {
    let site = shop();
    site.deploy(&winter().step(late_failure())).expect(Status::Failed);
    assert_eq!(std::fs::read_dir(site.state().join("packages")).map_or(0, Iterator::count), 0);
    assert_eq!(backout_testkit::database::own_objects(&site.database("main")), ["backout_shop"]);
    let rows = site.journal().deployments().unwrap();
    assert_eq!(rows.iter().map(|row| row.state).collect::<Vec<_>>(), [DeploymentState::FailedClean]);
    let refused = site.deploy(&Pkg::new("p").before(backout_testkit::package::sql_is("SELECT 1", 2)).step(raise()));
    assert_eq!(refused.expect(Status::Refused).closing, NOTHING_CHANGED);
    assert_eq!(std::fs::read_dir(site.state().join("packages")).map_or(0, Iterator::count), 0);
}

#[test]
fn a_deployer_that_lost_its_lock_changes_nothing_more() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let at = site.write(&Pkg::new("p").step(raise()).step(sql("UPDATE product SET stock = 0")));
    let connection = site.connect("main");
    let recorder = Recorder::with_hook(move |happening| {
        if matches!(happening, Happening::StepDone { index: 0, .. }) {
            // As `unlock` on another machine does it.
            connection.execute("UPDATE backout_shop SET holder = NULL, epoch = epoch + 1", []).unwrap();
        }
    });
    let done = site.deploy_from(&at, recorder);
    let id = done.id();
    let outcome = done.expect(Status::NeedsHand);
    assert!(outcome.causes.join(" ").contains("taken over by another process"), "{outcome:?}");
    assert_eq!(site.value("SELECT sum(stock) FROM product"), "16", "the second step did not commit");
    assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), "110", "the first was not undone by it either");
    site.undo(Some(&id)).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone by whoever has the lock now");
}

/// Deploys two steps and a failure; in between, somebody writes.
fn failing_meanwhile(site: &TestSite, script: &'static str) -> Done {
    let at = site.write(&Pkg::new("p").step(raise()).step(page("p")).step(late_failure()));
    let connection = site.connect("main");
    let recorder = Recorder::with_hook(move |happening| {
        if matches!(happening, Happening::StepDone { index: 1, .. }) {
            connection.execute_batch(script).unwrap();
        }
    });
    site.deploy_from(&at, recorder)
}

#[test]
fn the_automatic_undo_merges_what_others_wrote_meanwhile() {
    let site = shop();
    let others = "UPDATE product SET stock = 500 WHERE id = 1; INSERT INTO orders (product, amount) VALUES (3, 3)";
    let done = failing_meanwhile(&site, others);
    assert_eq!(done.expect(Status::Failed).closing, UNDONE_AND_VERIFIED);
    let rows = site.value("SELECT group_concat(id || ':' || price || ':' || ifnull(stock, '-')) FROM product");
    assert_eq!(rows, "1:100:500,2:20:9,3:15:-");
    assert_eq!(site.value("SELECT count(*) FROM orders"), "3");
    assert_eq!(site.grave(), []);
}

#[test]
fn the_automatic_undo_keeps_what_others_wrote_to_the_same_column_and_says_so() {
    let site = shop();
    let done = failing_meanwhile(&site, "UPDATE product SET price = 55 WHERE id = 1");
    let id = done.id();
    let outcome = done.expect(Status::NeedsHand);
    assert_eq!(outcome.conflicts_total, 1, "{outcome:?}");
    let kept = outcome.conflicts[0].to_string();
    assert!(kept.contains("id=1") && kept.contains("55"), "{outcome:?}");
    assert!(!outcome.notes.iter().any(|note| note.contains("id=1")), "told once: {outcome:?}");
    assert_eq!(site.value("SELECT group_concat(price) FROM product"), "55,20,15", "the rest is undone");
    assert!(site.text("web/p/new.txt").is_none());
    site.undo(Some(&id)).expect(Status::Refused);
    site.undo_on(Some(&id), OnConflict::Keep).expect(Status::Partly);
    site.deploy(&winter()).expect(Status::Done);
}
