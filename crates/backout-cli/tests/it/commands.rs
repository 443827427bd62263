//! Commands that a signal or a kill of the tool meets in their middle: none is left alone, none runs beside its undo.

use std::fs;
use std::io::Read;
use std::process::{Child, Command};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use crate::scene::{Hold, Ran, Scene};

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), signal).unwrap();
}

/// Returns when the process has taken note of the signals that were sent to it: none is pending any more.
fn took(child: &Child) {
    let pending = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let masks = status.lines().filter(|line| line.starts_with("SigPnd:") || line.starts_with("ShdPnd:"));
        masks.map(|line| line[7..].trim().to_owned()).any(|mask| mask.bytes().any(|digit| digit != b'0'))
    };
    while pending() {
        std::thread::yield_now();
    }
}

/// A shell script that says in the log that it begins, is held, and says that it has ended.
fn held(hold: &Hold, name: &str) -> String {
    format!("[sh, -c, \"echo {name} begins >> log; {}; echo {name} ends >> log\"]", hold.script())
}

fn log(scene: &Scene) -> Vec<String> {
    scene.read("log").lines().map(str::to_owned).collect()
}

/// The same, told to run where the scene is.
fn scene() -> (Scene, Hold) {
    let scene = Scene::new();
    let hold = Hold::new(&scene);
    scene.write("log", "");
    (scene, hold)
}

fn ended(child: Child) -> Ran {
    Ran::of(&["the run"], child.wait_with_output().unwrap())
}

fn in_scene(scene: &Scene, script: &str) -> String {
    script.replace(">> log", &format!(">> {}", scene.path("log").display()))
}

#[test]
fn a_signal_waits_for_the_command_at_hand_and_the_undo_comes_after_it() {
    for (asked, timeout) in [(Signal::INT, "1m"), (Signal::TERM, "1m"), (Signal::HUP, "1h")] {
        let (scene, hold) = scene();
        let undo = "[sh, -c, \"echo undone >> log\"]";
        let steps = format!(
            "steps:\n  - run: {}\n    undo: {undo}\n    timeout: {timeout}\n  - run: [\"true\"]\n    undo: [\"true\"]\n",
            held(&hold, "it")
        );
        scene.package("slow", &in_scene(&scene, &steps));
        let child = scene.spawn(&["deploy", "slow"]);
        hold.wait();
        signal(&child, asked);
        took(&child);
        hold.release();
        ended(child).exits(1).says("stopped by the operator").closes("Everything was undone and verified.");
        assert_eq!(log(&scene), ["it begins", "it ends", "undone"], "{asked:?}");
    }
}

#[test]
fn a_signal_does_not_run_an_undo_command_twice() {
    let (scene, hold) = scene();
    let steps = format!(
        "steps:\n  - run: [\"true\"]\n    undo: {}\n    timeout: 1m\nfinally:\n  - run: {}\n    timeout: 1m\n",
        held(&hold, "undo"),
        "[sh, -c, \"echo finally >> log\"]",
    );
    scene.package("slow", &in_scene(&scene, &steps));
    scene.run(&["deploy", "slow"]).exits(0);
    let child = scene.spawn(&["undo"]);
    hold.wait();
    signal(&child, Signal::INT);
    took(&child);
    hold.release();
    ended(child).exits(1).closes("What had been undone was put back; the deployment stands as before.");
    assert_eq!(log(&scene), ["finally", "undo begins", "undo ends", "finally"]);
}

#[test]
fn a_check_and_a_finally_command_are_waited_for_too() {
    // A stop is heeded after the last check; what is deployed by then stays.
    for (part, status) in [("after:\n  - name: it\n    run: ", 1), ("finally:\n  - run: ", 0)] {
        let (scene, hold) = scene();
        let steps = format!("steps:\n  - files: docroot\n{part}{}\n    timeout: 1m\n", held(&hold, "it"));
        scene.package("slow", &in_scene(&scene, &steps));
        scene.write("slow/docroot/index.html", "<h1>Slow</h1>");
        let child = scene.spawn(&["deploy", "slow"]);
        hold.wait();
        signal(&child, Signal::TERM);
        took(&child);
        hold.release();
        ended(child).exits(status);
        assert_eq!(log(&scene), ["it begins", "it ends"]);
    }
}

/// After a kill nothing that the command started goes on, also where its first process has ended, and also where it is
/// a check's, which the journal does not know.
#[test]
fn what_a_killed_run_had_started_is_ended_by_resume() {
    let part = |script: &str, kind: &str| match kind {
        "step" => format!("steps:\n  - run: [sh, -c, \"{script}\"]\n    undo: [\"true\"]\n"),
        _ => format!("before:\n  - run: [sh, -c, \"{script}\"]\nsteps:\n  - run: [\"true\"]\n    undo: [\"true\"]\n"),
    };
    for kind in ["step", "check"] {
        let (scene, hold) = scene();
        let alive = scene.path("alive");
        assert!(Command::new("mkfifo").arg(&alive).status().unwrap().success());
        let mut pipe = fs::File::options().read(true).write(true).open(&alive).unwrap();
        // The first process waits for the one that goes on; it is killed together with the tool.
        let script = format!(
            "echo $$ > {0}.leader; (exec 3> {0}; {1}; echo late >> log) & wait",
            alive.display(),
            hold.script()
        );
        scene.package("slow", &in_scene(&scene, &part(&script, kind)));
        let before = scene.fingerprint();
        let mut child = scene.spawn(&["deploy", "slow"]);
        hold.wait();
        // Now only the command itself keeps the pipe open for writing.
        let reader = fs::File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pipe))).unwrap();
        drop(std::mem::replace(&mut pipe, reader));
        child.kill().unwrap();
        child.wait().unwrap();
        let leader: i32 = scene.read("alive.leader").trim().parse().unwrap();
        kill_process(Pid::from_raw(leader).unwrap(), Signal::KILL).unwrap();
        let over = Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&over)).unwrap(), 0, "it lives");
        scene.run(&["resume"]).exits(1).says("still running; it was ended");
        assert_eq!(poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&over)).unwrap(), 1, "it is gone: {kind}");
        assert_eq!(pipe.read(&mut [0]).unwrap(), 0);
        assert_eq!((scene.fingerprint(), log(&scene)), (before, Vec::new()));
    }
}

/// In a container, beside a session that began outside it: the kernel shows that session's number as 0.
#[test]
fn a_session_from_outside_the_container_is_one_too() {
    let inside = |scene: &Scene, words: &[&str]| {
        let mut command = Command::new("unshare");
        let backout = scene.command(words);
        command.args(["--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]).arg(backout.get_program());
        command.args(words).current_dir(scene.path("."));
        Ran::of(words, command.output().unwrap())
    };
    let (scene, hold) = scene();
    if !inside(&scene, &["--version"]).stdout.starts_with("backout") {
        eprintln!("NOT TESTED in a process namespace: unshare(1) is not allowed to make one here");
        return;
    }
    scene.package(
        "p",
        &in_scene(
            &scene,
            "steps:\n  - run: [sh, -c, \"echo ran >> log\"]\n    undo: [sh, -c, \"echo undone >> log\"]\n",
        ),
    );
    inside(&scene, &["deploy", "p"]).exits(0);
    inside(&scene, &["undo"]).exits(0);
    assert_eq!(log(&scene), ["ran", "undone"]);
    drop(hold);
}

/// A program that is not there did nothing: there is nothing to undo, and nothing that needs a hand.
#[test]
fn a_command_that_cannot_be_started_did_nothing() {
    for undo in ["undo: [sh, -c, \"echo undone >> log\"]", "undo: none\n    because: it cannot be"] {
        let (scene, _hold) = scene();
        let steps = format!("steps:\n  - sql: a.sql\n  - run: [no-such-program]\n    {undo}\n");
        scene.package("p", &in_scene(&scene, &steps));
        scene.write("p/a.sql", "DELETE FROM product;\n");
        let before = scene.fingerprint();
        let ran = scene.run(&["deploy", "p", "--accept-irreversible"]).exits(1);
        let ran = ran.says("cannot run no-such-program");
        ran.closes("Everything was undone and verified.");
        assert_eq!((scene.fingerprint(), log(&scene)), (before, Vec::new()));
    }
}

/// Also in the last step of all and in what is checked after it: a run that says that it takes back does so.
#[test]
fn a_signal_in_the_last_step_or_check_is_heeded() {
    for part in ["step", "check"] {
        let (scene, hold) = scene();
        let steps = match part {
            "step" => format!("steps:\n  - sql: a.sql\n  - run: {}\n    undo: [\"true\"]\n", held(&hold, "it")),
            _ => format!("steps:\n  - sql: a.sql\nafter:\n  - run: {}\n", held(&hold, "it")),
        };
        scene.package("p", &in_scene(&scene, &steps));
        scene.write("p/a.sql", "DELETE FROM product;\n");
        let before = scene.fingerprint();
        let child = scene.spawn(&["deploy", "p"]);
        hold.wait();
        signal(&child, Signal::TERM);
        took(&child);
        hold.release();
        let ran = ended(child).exits(1).says("stopped by the operator");
        ran.closes("Everything was undone and verified.");
        assert_eq!(scene.fingerprint(), before, "{part}");
    }
}

#[test]
fn a_signal_in_the_last_step_of_an_undo_or_redo_is_heeded() {
    let (scene, hold) = scene();
    let script =
        |file: &str| format!("[sh, -c, \"test ! -e {0}/{file} || ({1})\"]", scene.path(".").display(), hold.script());
    scene.package("p", &format!("steps:\n  - run: {}\n    undo: {}\n  - sql: a.sql\n", script("redo"), script("undo")));
    // The undo's last step is the command; the redo's, the other way round.
    scene.package("q", &format!("steps:\n  - sql: a.sql\n  - run: {}\n    undo: {}\n", script("redo"), script("undo")));
    for name in ["p", "q"] {
        scene.write(&format!("{name}/a.sql"), "DELETE FROM product WHERE id = 1;\n");
    }
    scene.run(&["deploy", "p"]).exits(0);
    let stopped = |words: &[&str], flag: &str, closing: &str| {
        let before = scene.fingerprint();
        scene.write(flag, "");
        let child = scene.spawn(words);
        hold.wait();
        signal(&child, Signal::TERM);
        took(&child);
        std::fs::remove_file(scene.path(flag)).unwrap();
        hold.release();
        ended(child).exits(1).says("stopped by the operator").closes(closing);
        assert_eq!(scene.fingerprint(), before, "{words:?}");
    };
    stopped(&["undo"], "undo", "What had been undone was put back; the deployment stands as before.");
    scene.run(&["undo"]).exits(0);
    scene.run(&["deploy", "q"]).exits(0);
    scene.run(&["undo"]).exits(0);
    stopped(&["redo"], "redo", "What had been redone was undone again; the site is as it was before the redo.");
    scene.run(&["redo"]).exits(0);
}
