//! The process is killed at each durable act; the log is torn at each place. What is left opens, verifies, holds all
//! that was acknowledged, and can be gone on with.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use backout_journal::Journal;
use backout_model::entry::Entry;
use backout_model::fault::{self, Faults, Point};
use backout_model::state::Event;

use crate::support::{all, assert_sound, calm, copy_of, findings, open_pinned, perform, story, story_untold};

static PASSED: AtomicU64 = AtomicU64::new(0);

struct Kill {
    at: u64,
}

impl Faults for Kill {
    fn at(&mut self, _: Point) -> std::io::Result<()> {
        if PASSED.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
            loop {
                std::thread::park();
            }
        }
        Ok(())
    }
}

/// Runs as another process, see the next test. Says after each act what is durable.
#[test]
#[ignore = "is killed by another test"]
fn child_tells_the_story() {
    let (Some(state), Ok(at)) = (std::env::var_os("BACKOUT_TEST_STATE"), std::env::var("BACKOUT_TEST_KILL")) else {
        return;
    };
    fault::set_global(Some(Box::new(Kill { at: at.parse().unwrap() })));
    let mut journal = open_pinned(Path::new(&state)).unwrap();
    println!();
    for act in story() {
        perform(&mut journal, &act).unwrap();
        println!("durable {}", journal.reader().last_seq().unwrap());
        std::io::stdout().flush().unwrap();
    }
    drop(journal);
    println!("points {}", PASSED.load(Ordering::Relaxed));
}

/// Lets the child tell the story until it is killed; returns what it said was durable, and how many points it passed
/// where it came to the end.
fn told_until(state: &Path, at: u64) -> (u64, Option<u64>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_tells_the_story", "--ignored", "--nocapture"])
        .env("BACKOUT_TEST_STATE", state)
        .env("BACKOUT_TEST_KILL", at.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut durable, mut points) = (0, None);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(seq) = line.strip_prefix("durable ") {
            durable = seq.parse().unwrap();
        }
        if let Some(count) = line.strip_prefix("points ") {
            points = Some(count.parse().unwrap());
        }
    }
    assert_eq!(child.wait().unwrap().success(), points.is_some());
    (durable, points)
}

/// Opens what a crash left, checks it, tells the rest of the story, checks that nothing is missing.
fn go_on(state: &Path, acknowledged: u64, expected: &[Entry]) {
    // A reader may come before the next writer.
    let reader = Journal::read(state).unwrap();
    assert!(findings(&reader).iter().all(|finding| !finding.grave));
    drop(reader);
    let mut journal = open_pinned(state).unwrap();
    assert_sound(journal.reader());
    let left = journal.reader().last_seq().unwrap();
    assert!(left >= acknowledged, "{left} entries are left of {acknowledged}");
    assert_eq!(all(journal.reader()), expected[..left as usize]);
    let mut seq = 0;
    for act in story() {
        seq += act.entries();
        if seq > left {
            perform(&mut journal, &act).unwrap();
        }
    }
    journal.flush().unwrap();
    assert_eq!(all(journal.reader()), expected);
    assert_sound(journal.reader());
}

#[test]
fn killed_at_any_durable_act_the_journal_keeps_what_it_acknowledged() {
    calm();
    let expected = story_untold();
    let mut at = 1;
    loop {
        let home = tempfile::tempdir().unwrap();
        let state = home.path().join("state");
        let (durable, points) = told_until(&state, at);
        go_on(&state, durable, &expected);
        if let Some(points) = points {
            assert_eq!(points, at - 1);
            break;
        }
        at += 1;
    }
    assert!(at > 30, "only {at} points");
}

#[test]
fn a_torn_log_leaves_a_shorter_history_and_no_other() {
    calm();
    let expected = story_untold();
    let home = tempfile::tempdir().unwrap();
    let mut journal = open_pinned(home.path()).unwrap();
    for act in story() {
        perform(&mut journal, &act).unwrap();
    }
    let whole = copy_of(home.path());
    drop(journal);
    let log = std::fs::read(whole.path().join("journal.db-wal")).unwrap();
    assert!(log.len() > 100_000, "the story is not in the log");
    let frame = 4096 + 24;
    let (large, given_up) = expected
        .iter()
        .find(|entry| entry.event == Event::ImagesDropped)
        .map(|entry| (entry.payload["of"].as_u64().unwrap(), entry.seq))
        .unwrap();
    let mut lengths = std::collections::BTreeSet::new();
    // Cut at, before and after frames, and in the middle of them.
    for (number, start) in (32..=log.len()).step_by(frame).enumerate() {
        let cut = match number % 4 {
            0 => start,
            1 => start - 1,
            2 => start + 1,
            _ => start + frame / 2,
        };
        let torn = copy_of(whole.path());
        std::fs::write(torn.path().join("journal.db-wal"), &log[..cut.min(log.len())]).unwrap();
        let left = Journal::read(torn.path()).unwrap().last_seq().unwrap();
        lengths.insert(left);
        // Images that were given up are gone although the entry that says so may be torn off: see the page.
        let journal = match open_pinned(torn.path()) {
            Ok(journal) => journal,
            Err(error) => panic!("cut at {cut}: {error}"),
        };
        assert_eq!(all(journal.reader()), expected[..left as usize], "cut at {cut}");
        let lost = findings(journal.reader());
        let may_lack = format!("the images of entry {large} ");
        let may = |what: &str| (large..given_up).contains(&left) && what.starts_with(&may_lack);
        assert!(lost.iter().all(|finding| may(&finding.what)), "cut at {cut}: {lost:?}");
    }
    assert!(lengths.len() > 10, "{lengths:?}");
    assert_eq!(lengths.last(), Some(&(expected.len() as u64)));
}
