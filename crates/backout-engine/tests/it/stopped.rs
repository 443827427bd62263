//! How an undo, redo or plain list ends that did not come to its end: what is told is what is on the site.

use std::sync::atomic::Ordering;

use backout_engine::observer::Happening;
use backout_engine::outcome::{NOTHING_CHANGED, Status};
use backout_engine::{resume, undo};
use backout_model::conflict::OnConflict;
use backout_model::fault::Point;
use backout_model::state::{DeploymentState, FrameState, StepState};
use backout_testkit::faults::{Fault, play};
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::observer::Recorder;
use backout_testkit::package::{Pkg, child, files, run, sql, sql_is};
use backout_testkit::site::{Done, TestSite};
use backout_testkit::tree::Tree;

use crate::resume::die_at_last;
use crate::scene::{builder, late_failure, page, raise, shop, winter};

fn state(site: &TestSite) -> DeploymentState {
    site.journal().deployments().unwrap()[0].state
}

/// Twelve files that a deployment replaces.
fn many(content: &str) -> Tree {
    (0..12).fold(Tree::new(), |tree, n| tree.file(&format!("many/{n:02}.txt"), format!("{content} {n}")))
}

fn count(site: &TestSite, content: &str) -> usize {
    let holds = |n: &usize| site.text(&format!("web/many/{n:02}.txt")) == Some(format!("{content} {n}"));
    (0..12).filter(holds).count()
}

/// A deployment that replaced all of them, and an undo that was killed among them.
fn half_undone() -> TestSite {
    let make = || {
        let site = TestSite::builder().root("web", many("old")).build();
        site.deploy(&Pkg::new("p").step(files(many("new")))).expect(Status::Done);
        site
    };
    let twin = make();
    let playing = play(Fault::None, false);
    twin.undo(None).expect(Status::Done);
    let seen = playing.seen();
    drop(playing);
    let exchanges: Vec<usize> = (0..seen.len()).filter(|at| seen[*at] == Point::Exchange).collect();
    let site = make();
    let playing = play(Fault::CrashAt(exchanges[exchanges.len() / 2] + 1), false);
    site.undo(None);
    assert!(playing.struck());
    drop(playing);
    assert!((1..12).contains(&count(&site, "old")), "{}", count(&site, "old"));
    site
}

/// Runs a recovery that is asked to stop before it begins.
fn resume_stopped(site: &TestSite) -> Status {
    let recorder = Recorder::default();
    recorder.stopper().store(true, Ordering::Relaxed);
    site.command("resume", recorder, resume::resume).result.unwrap().unwrap().status
}

#[test]
fn a_recovered_undo_that_meets_a_conflict_does_not_say_that_nothing_was_changed() {
    let site = half_undone();
    // The last in the order of undoing: it is not undone yet.
    let theirs = (0..12).find(|n| site.text(&format!("web/many/{n:02}.txt")) == Some(format!("new {n}"))).unwrap();
    std::fs::write(site.root("web").join(format!("many/{theirs:02}.txt")), "somebody's own").unwrap();
    let outcome = site.resume().result.unwrap().unwrap();
    assert_eq!(outcome.status, Status::NeedsHand, "{outcome:?}");
    assert_eq!(outcome.conflicts_total, 1, "{outcome:?}");
    assert_eq!(state(&site), DeploymentState::NeedsHand);
    // Asked again it stops at the same, and still does not say that the deployment stands.
    assert!(matches!(site.undo(None).status(), Status::Refused | Status::NeedsHand));
    assert_eq!(state(&site), DeploymentState::NeedsHand);
    site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
    assert_eq!(count(&site, "old"), 11);
    assert_eq!(state(&site), DeploymentState::Undone);
}

#[test]
fn a_recovered_undo_that_cannot_close_the_site_does_not_say_that_nothing_was_changed() {
    let site = half_undone();
    let manifest = site.text("site.yaml").unwrap();
    let maintenance = "\"maintenance\":{\"enter\":[\"test\",\"-e\",\"mended\"],\"leave\":[\"true\"]},\"site\":";
    std::fs::write(site.dir().join("site.yaml"), manifest.replace("\"site\":", maintenance)).unwrap();
    let outcome = site.resume().result.unwrap().unwrap();
    assert_eq!(outcome.status, Status::NeedsHand, "{outcome:?}");
    assert_eq!(state(&site), DeploymentState::NeedsHand);
    std::fs::write(site.dir().join("mended"), "").unwrap();
    site.undo(None).expect(Status::Done);
    assert_eq!(count(&site, "old"), 12);
}

#[test]
fn a_recovered_undo_is_finished_though_the_operator_asks_to_stop() {
    let site = half_undone();
    assert_eq!(resume_stopped(&site), Status::Done);
    assert_eq!(count(&site, "old"), 12);
    // The rows went back, and that they did was never written down.
    let make = || {
        let site = shop();
        site.deploy(&Pkg::new("p").step(raise()).finally("true")).expect(Status::Done);
        site
    };
    let site = die_at_last(make, Point::Command, |site| site.undo(None));
    assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), "100");
    assert_eq!(resume_stopped(&site), Status::Done);
    assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), "100");
    assert_eq!(state(&site), DeploymentState::Undone);
}

#[test]
fn a_recovered_undo_that_had_changed_nothing_yet_may_be_stopped() {
    let make = || {
        let site = builder().maintenance("true", "true").build();
        site.deploy(&winter()).expect(Status::Done);
        site
    };
    let twin = make();
    let playing = play(Fault::None, false);
    twin.undo(None).expect(Status::Done);
    let seen = playing.seen();
    drop(playing);
    let site = make();
    let before = Fingerprint::of(&site);
    let enter = seen.iter().position(|point| *point == Point::Command).unwrap() + 1;
    let playing = play(Fault::CrashAt(enter), false);
    site.undo(None);
    drop(playing);
    site.bury_the_dead();
    assert_eq!(state(&site), DeploymentState::Undoing);
    assert_eq!(resume_stopped(&site), Status::Failed);
    before.assert_same(&Fingerprint::of(&site), "nothing was changed");
    assert_eq!(state(&site), DeploymentState::Done);
}

/// The first attempt undoes some of the files, fails and puts them back; by the second somebody has changed one.
#[test]
fn an_undo_that_meets_a_conflict_at_its_second_attempt_changes_nothing() {
    let make = || {
        let site = TestSite::builder().root("web", many("old")).build();
        site.deploy(&Pkg::new("p").step(files(many("new")))).expect(Status::Done);
        site
    };
    let twin = make();
    let playing = play(Fault::None, false);
    twin.undo(None).expect(Status::Done);
    let seen = playing.seen();
    drop(playing);
    let exchanges: Vec<usize> = (0..seen.len()).filter(|at| seen[*at] == Point::Exchange).collect();
    let site = make();
    let web = site.root("web");
    let recorder = Recorder::with_hook(move |happening| {
        if matches!(happening, Happening::Warning { .. }) {
            let new = (0..12).map(|n| (n, web.join(format!("many/{n:02}.txt"))));
            let new = new.into_iter().find(|(n, path)| std::fs::read_to_string(path).unwrap() == format!("new {n}"));
            std::fs::write(new.unwrap().1, "somebody's own").unwrap();
        }
    });
    let playing = play(Fault::BrokenAt(exchanges[exchanges.len() / 2] + 1), false);
    let options = undo::Options { on_conflict: OnConflict::Stop, unattributed: false };
    let done = site.command("undo", recorder, |session| undo::undo(session, None, options));
    assert!(playing.struck());
    drop(playing);
    let outcome = done.expect(Status::Refused);
    assert_eq!((outcome.closing.as_str(), count(&site, "old"), count(&site, "new")), (NOTHING_CHANGED, 0, 11));
    assert_eq!(state(&site), DeploymentState::Done);
    site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
    assert_eq!(count(&site, "old"), 11);
}

#[test]
fn what_needed_a_hand_still_does_after_an_undo_that_was_put_back() {
    let site = shop();
    let package = Pkg::new("p").step(raise()).step(run("true", Some("test -e \"$BACKOUT_ROOT_WEB/../mended\"")));
    site.deploy(&package.step(late_failure())).expect(Status::NeedsHand);
    let mut recorder = Recorder::default();
    recorder.stopper().store(true, Ordering::Relaxed);
    recorder.set_hook(|_| {});
    let options = undo::Options { on_conflict: OnConflict::Stop, unattributed: false };
    let done = site.command("undo", recorder, |session| undo::undo(session, None, options));
    assert!(matches!(done.status(), Status::Failed | Status::NeedsHand), "{done:?}");
    assert_eq!(state(&site), DeploymentState::NeedsHand);
}

#[test]
fn an_inner_plain_list_keeps_after_a_death_what_it_would_have_kept_alive() {
    let package = || {
        let atomic = Pkg::new("atomic").step(sql("UPDATE product SET stock = 77")).step(page("atomic"));
        let inner = Pkg::new("inner").list().step(raise()).step(child(atomic));
        Pkg::new("list").list().step(page("list")).step(child(inner))
    };
    let site = die_at_last(shop, Point::Exchange, |site| site.deploy(&package()));
    let outcome = site.resume().result.unwrap().unwrap();
    assert_eq!(outcome.status, Status::Partly, "{outcome:?}");
    assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), "110", "the inner list's step stays");
    assert_eq!(site.value("SELECT stock FROM product WHERE id = 1"), "5", "the atomic child is undone");
    assert!(site.text("web/list/new.txt").is_some());
    let id = site.journal().deployments().unwrap()[0].id.clone();
    let states = site.journal().states(&id).unwrap();
    let frame = |path: &str| states.frames[&backout_model::id::FramePath::parse(path)];
    assert_eq!(frame("inner"), FrameState::Done);
    assert_eq!(frame("inner/atomic"), FrameState::Failed);
    site.undo(None).expect(Status::Done);
    assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), "100");
    site.redo().expect(Status::Done);
    assert_eq!(state(&site), DeploymentState::Done);
    assert_eq!(site.grave(), []);
}

fn cleared(site: &TestSite) -> usize {
    let log = site.text("cleared").unwrap_or_default().lines().count();
    std::fs::write(site.dir().join("cleared"), "").unwrap();
    log
}

#[test]
fn what_runs_last_runs_also_where_something_was_put_back_or_needs_a_hand() {
    const CLEAR: &str = "echo cleared >> \"$BACKOUT_ROOT_WEB/../cleared\"";
    let site = shop();
    let package = winter().finally(CLEAR).after(sql_is("SELECT count(*) FROM settings WHERE value = 'bad'", 0));
    site.deploy(&package).expect(Status::Done);
    cleared(&site);
    let mut recorder = Recorder::default();
    let stopper = recorder.stopper();
    recorder.set_hook(move |happening| {
        if matches!(happening, Happening::StepUndone { .. }) {
            stopper.store(true, Ordering::Relaxed);
        }
    });
    let options = undo::Options { on_conflict: OnConflict::Stop, unattributed: false };
    site.command("undo", recorder, |session| undo::undo(session, None, options)).expect(Status::Failed);
    assert_eq!(cleared(&site), 1, "put back");
    site.undo(None).expect(Status::Done);
    cleared(&site);
    site.execute("UPDATE settings SET value = 'bad' WHERE name = 'theme'");
    site.redo().expect(Status::Failed);
    assert_eq!(cleared(&site), 1, "redo taken back");
    let stuck = Pkg::new("stuck").step(raise()).step(run("true", Some("false"))).step(late_failure()).finally(CLEAR);
    site.deploy(&stuck).expect(Status::NeedsHand);
    assert_eq!(cleared(&site), 1, "needs a hand");
}

/// Lets everything fail from each point of the act on, and compares what was told with what is there.
fn is_told_truly(make: impl Fn() -> TestSite, act: impl Fn(&TestSite) -> Done) {
    let twin = make();
    let playing = play(Fault::None, false);
    act(&twin);
    let points = playing.seen().len();
    drop(playing);
    for n in 1..=points {
        let site = make();
        let before = Fingerprint::of(&site);
        let playing = play(Fault::CrashAt(n), false);
        let done = act(&site);
        drop(playing);
        site.bury_the_dead();
        if matches!(done.status(), Status::Refused | Status::Failed) {
            let differences = before.differences(&Fingerprint::of(&site));
            assert!(differences.is_empty(), "at {n}: {done:?}\n{differences:?}");
        }
    }
}

#[test]
fn where_the_journal_fails_in_the_middle_nobody_is_told_that_nothing_was_changed() {
    let deployed = || {
        let site = shop();
        site.deploy(&winter()).expect(Status::Done);
        site
    };
    let undone = || {
        let site = deployed();
        site.undo(None).expect(Status::Done);
        site
    };
    let list = || Pkg::new("list").list().step(raise()).step(late_failure());
    is_told_truly(deployed, |site| site.undo(None));
    is_told_truly(undone, TestSite::redo);
    is_told_truly(shop, |site| site.deploy(&list()));
}

#[test]
fn keep_passes_over_an_undo_command_that_keeps_failing() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let stuck = run("true", Some("test -e \"$BACKOUT_ROOT_WEB/../mended\""));
    let id = {
        let outcome = site.deploy(&Pkg::new("p").step(raise()).step(stuck).step(late_failure()));
        let outcome = outcome.expect(Status::NeedsHand);
        assert!(outcome.hints.iter().any(|hint| hint.contains("--on-conflict keep")), "{outcome:?}");
        outcome.deployment.unwrap()
    };
    site.undo(None).expect(Status::NeedsHand);
    let outcome = site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
    assert!(outcome.notes.iter().any(|note| note.contains("test -e")), "{outcome:?}");
    before.assert_same(&Fingerprint::of(&site), "the rest is undone");
    assert_eq!(state(&site), DeploymentState::Undone);
    let states = site.journal().states(&id).unwrap();
    assert!(states.steps.values().any(|state| *state == StepState::Applied), "{:?}", states.steps);
    site.deploy(&winter()).expect(Status::Done);
    assert_eq!(site.grave(), []);
}

#[test]
fn what_keep_passed_over_is_undone_once_it_can_be() {
    let site = shop();
    let flag = run("echo run >> \"$BACKOUT_ROOT_WEB/../ran\"", Some("test -e \"$BACKOUT_ROOT_WEB/../mended\""));
    site.deploy(&Pkg::new("p").step(raise()).step(flag)).expect(Status::Done);
    site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
    site.redo().expect(Status::Done);
    assert_eq!(site.text("ran").unwrap().lines().count(), 1, "its effect had stayed");
    std::fs::write(site.dir().join("mended"), "").unwrap();
    site.undo(None).expect(Status::Done);
    site.redo().expect(Status::Done);
    assert_eq!(site.text("ran").unwrap().lines().count(), 2);
}

#[test]
fn keep_passes_over_an_undo_script_that_keeps_failing() {
    let site = shop();
    let step = backout_testkit::package::Kind::SqlUndoneBy(
        "UPDATE product SET stock = 3".to_owned(),
        "INSERT INTO product (id, name, price) VALUES (1, 'a second coat', 1)".to_owned(),
    );
    site.deploy(&Pkg::new("p").step(page("p")).step(step.into())).expect(Status::Done);
    assert_eq!(site.undo(None).status(), Status::Refused, "nothing was changed yet");
    assert_eq!(state(&site), DeploymentState::Done);
    site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
    assert!(site.text("web/p/new.txt").is_none());
    assert_eq!(state(&site), DeploymentState::Undone);
}

/// Gives a database or root of the site another name.
fn rename(site: &TestSite, from: &str, to: &str) {
    let manifest = site.text("site.yaml").unwrap();
    std::fs::write(site.dir().join("site.yaml"), manifest.replace(&format!("\"{from}\":{{"), &format!("\"{to}\":{{")))
        .unwrap();
}

#[test]
fn a_target_that_site_yaml_no_longer_names_is_a_refusal_and_nothing_more() {
    for (from, package) in
        [("main", Pkg::new("one").step(raise())), ("web", Pkg::new("one").step(page("one"))), ("web", winter())]
    {
        let site = shop();
        site.deploy(&package).expect(Status::Done);
        let before = Fingerprint::of(&site);
        rename(&site, from, "other");
        let done = site.undo(None);
        assert_eq!(done.status(), Status::Refused, "{from}: {done:?}");
        assert!(done.words().contains(&format!("`{from}`")), "{}", done.words());
        assert_eq!(state(&site), DeploymentState::Done, "{from}");
        let grave = site.grave();
        assert!(grave.iter().any(|finding| finding.what.contains(&format!("`{from}`"))), "{grave:?}");
        rename(&site, "other", from);
        before.assert_same(&Fingerprint::of(&site), "refused");
        site.undo(None).expect(Status::Done);
        rename(&site, from, "other");
        assert_eq!(site.redo().status(), Status::Refused, "{from}");
        assert_eq!(state(&site), DeploymentState::Undone, "{from}");
    }
}

#[test]
fn a_recovery_waits_for_a_target_that_site_yaml_no_longer_names() {
    let make = || {
        let site = shop();
        site.deploy(&winter()).expect(Status::Done);
        site
    };
    let site = die_at_last(make, Point::JournalWrite, |site| site.undo(None));
    rename(&site, "main", "other");
    let done = site.resume();
    assert!(done.result.is_err(), "{}", done.words());
    assert_eq!(state(&site), DeploymentState::Undoing);
    rename(&site, "other", "main");
    assert_eq!(site.resume().result.unwrap().unwrap().status, Status::Done);
}

#[test]
fn hints_can_be_followed() {
    let site = shop();
    let bad = child(Pkg::new("bad").step(late_failure()));
    let outcome = site.deploy(&Pkg::new("list").list().step(raise()).step(bad)).expect(Status::Partly);
    let retries: Vec<&String> = outcome.hints.iter().filter(|hint| hint.contains("retry")).collect();
    assert!(retries.is_empty(), "{retries:?}");
    let bad = child(Pkg::new("bad").step(late_failure())).with("on-failure", "continue");
    let outcome = site.deploy(&Pkg::new("whole").step(bad)).expect(Status::Partly);
    let id = outcome.deployment.clone().unwrap();
    assert!(outcome.hints.contains(&format!("backout retry {id}/bad")), "{outcome:?}");
    let needy = site.deploy(&Pkg::new("needy").requires("whole").step(page("needy"))).id();
    let outcome = site.undo(Some(id.as_str())).expect(Status::Refused);
    assert!(!outcome.hints.iter().any(|hint| hint.contains("keep")), "{:?}", outcome.hints);
    assert!(outcome.hints.iter().any(|hint| hint.contains(&needy)), "{:?}", outcome.hints);
    site.undo_on(Some(id.as_str()), OnConflict::Overwrite).expect(Status::Done);
}
