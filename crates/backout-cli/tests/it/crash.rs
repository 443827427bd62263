//! A deployer that is killed: what status says, and that nobody undoes more than was asked for.

use crate::scene::{Hold, Ran, Scene};

/// A shop with one deployment done, and a second one killed in its middle.
fn killed(fingerprints: &mut Vec<std::collections::BTreeMap<String, String>>) -> Scene {
    let scene = Scene::with_good_package();
    fingerprints.push(scene.fingerprint());
    scene.run(&["deploy", "winter"]).exits(0);
    fingerprints.push(scene.fingerprint());
    let hold = Hold::new(&scene);
    scene.package("slow", &format!("steps:\n  - sql: a.sql\n  - files: docroot\n{}", hold.step()));
    scene.write("slow/a.sql", "DELETE FROM product;\n");
    scene.write("slow/docroot/index.html", "<h1>Slow</h1>");
    let mut child = scene.spawn(&["deploy", "slow"]);
    hold.wait();
    child.kill().unwrap();
    child.wait().unwrap();
    scene
}

#[test]
fn status_tells_and_resume_settles() {
    let mut prints = Vec::new();
    let scene = killed(&mut prints);
    scene.run(&["status"]).exits(0).answers("interrupted: ").answers("nobody is at work").says("hint: backout resume");
    scene.run(&["resume"]).exits(1).answers("had been interrupted").closes("Everything was undone and verified.");
    assert_eq!(scene.fingerprint(), prints[1]);
    scene.run(&["resume"]).exits(0).answers("nothing had been interrupted");
    scene.run(&["verify"]).exits(0);
}

#[test]
fn a_deployment_settles_it_first() {
    let mut prints = Vec::new();
    let scene = killed(&mut prints);
    scene.package("banner", "steps:\n  - files: docroot\n");
    scene.write("banner/docroot/banner.html", "banner");
    scene
        .run(&["deploy", "banner"])
        .exits(0)
        .says("note: what an earlier run had left is settled first")
        .answers("deployed banner 1");
    assert_eq!(scene.read("web/index.html"), "<h1>Winter</h1>");
    assert_eq!(scene.read("web/banner.html"), "banner");
}

/// `undo` after a crash means the deployment that crashed; the one before it stays.
#[test]
fn undo_takes_back_what_was_interrupted_and_no_more() {
    let mut prints = Vec::new();
    let scene = killed(&mut prints);
    scene.run(&["undo"]).exits(0).says("nothing else was undone");
    assert_eq!(scene.fingerprint(), prints[1]);
    scene.run(&["undo"]).exits(0).answers("undid winter");
    assert_eq!(scene.fingerprint(), prints[0]);
}

/// A dry run settles nothing: what it would show is not known before that.
#[test]
fn a_plan_of_an_undo_does_not_settle_it() {
    let scene = killed(&mut Vec::new());
    scene.refused(&["undo", "--plan"], 4).says("was interrupted").says("hint: `backout resume` first");
    scene.run(&["status"]).exits(0).answers("interrupted: ");
    scene.run(&["resume"]).exits(1);
    scene.run(&["undo", "--plan"]).exits(0);
}

/// A plain list that was killed ends done in part; the deployment that settles it is not part of that.
#[test]
fn a_deployment_is_done_after_a_plain_list_that_was_interrupted() {
    let scene = Scene::with_good_package();
    let hold = Hold::new(&scene);
    scene.package("slow", &format!("atomic: false\nsteps:\n  - files: docroot\n{}", hold.step()));
    scene.write("slow/docroot/slow.html", "slow");
    let mut child = scene.spawn(&["deploy", "slow"]);
    hold.wait();
    child.kill().unwrap();
    child.wait().unwrap();
    scene.run(&["deploy", "winter"]).exits(0).answers("done stays").answers("deployed winter");
    assert_eq!(scene.read("web/slow.html"), "slow");
    assert_eq!(scene.read("web/index.html"), "<h1>Winter</h1>");
}

#[test]
fn an_opened_bundle_of_a_killed_deployer_goes_with_the_next() {
    let scene = Scene::with_good_package();
    let hold = Hold::new(&scene);
    scene.package("slow", &format!("steps:\n{}", hold.step()));
    scene.run(&["pack", "slow"]).exits(0);
    let mut child = scene.spawn(&["deploy", "slow-1.backout.tar.zst"]);
    hold.wait();
    child.kill().unwrap();
    child.wait().unwrap();
    let incoming = || std::fs::read_dir(scene.path(".backout/incoming")).unwrap().count();
    assert_eq!(incoming(), 1);
    scene.run(&["deploy", "winter"]).exits(0);
    assert_eq!(incoming(), 0);
}

/// Dies at every 7th durable act of a deployment, and has a full disk at every 11th; each time what follows is
/// exactly as before. (The suite that stops at each of them, on a larger package, is the engine's.)
#[cfg(feature = "faults")]
#[test]
fn a_death_at_any_act_is_settled() {
    let scene = Scene::with_good_package();
    scene.run(&["deploy", "winter"]).exits(0);
    scene.run(&["undo"]).exits(0);
    let before = scene.fingerprint();
    let run = |fault: String| {
        let words = ["deploy", "winter"];
        Ran::of(&words, scene.command(&words).env("BACKOUT_FAULT", fault).output().unwrap())
    };
    let (mut deaths, mut failures) = (0, 0);
    for at in (1..).step_by(7) {
        let ran = run(format!("crash:{at}"));
        if ran.code == Some(0) {
            break;
        }
        assert_eq!(ran.code, None, "at {at}: {ran}");
        deaths += 1;
        let settled = scene.run(&["resume"]);
        assert!(matches!(settled.code, Some(0 | 1)), "at {at}: {settled}");
        if scene.fingerprint() != before {
            scene.run(&["undo"]).exits(0);
        }
        assert_eq!(scene.fingerprint(), before, "at {at}: {settled}");
    }
    scene.run(&["undo"]).exits(0);
    for at in (1..=deaths * 7).step_by(11) {
        let ran = run(format!("enospc:{at}"));
        match ran.code {
            Some(0) => drop(scene.run(&["undo"]).exits(0)),
            Some(1 | 4) => failures += 1,
            _ => panic!("at {at}: {ran}"),
        }
        assert_eq!(scene.fingerprint(), before, "at {at}: {ran}");
    }
    assert!(deaths > 4 && failures > 3, "{deaths} deaths, {failures} failures");
}
