//! Sanity of speed: what must not depend on the length of the history does not.

use std::time::{Duration, Instant};

use backout_journal::Journal;
use backout_model::state::Event;

use crate::support::{assert_sound, begun, calm, draft, open, step};

#[test]
fn a_hundred_thousand_entries_do_not_slow_down_a_look_at_the_status() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    let began = Instant::now();
    for number in 0..100 {
        let name = format!("d{number}");
        journal.append(&begun(&name)).unwrap();
        for number in 0..500 {
            journal.defer(step(&name, "", number, Event::StepIntended)).unwrap();
            journal.defer(step(&name, "", number, Event::StepApplied)).unwrap();
        }
        if number < 99 {
            journal.append(&[draft(&name, Event::DeploymentVerifying), draft(&name, Event::DeploymentDone)]).unwrap();
        }
    }
    journal.flush().unwrap();
    let written = began.elapsed();
    assert!(journal.reader().last_seq().unwrap() > 100_000);

    // The best of a few: other tests run beside.
    let look = || {
        let began = Instant::now();
        let reader = Journal::read(state.path()).unwrap();
        assert_eq!(reader.unfinished().unwrap().unwrap().id, crate::support::id("d99"));
        assert_eq!(reader.newest(20).unwrap().len(), 20);
        began.elapsed()
    };
    let looked = (0..5).map(|_| look()).min().unwrap();
    drop(journal);
    let began = Instant::now();
    let journal = open(state.path());
    let opened = began.elapsed();
    let began = Instant::now();
    assert_sound(journal.reader());
    println!(
        "written in {written:?}, looked at in {looked:?}, opened in {opened:?}, verified in {:?}",
        began.elapsed()
    );
    assert!(looked < Duration::from_millis(20), "a look takes {looked:?}");
    assert!(opened < Duration::from_millis(500), "opening takes {opened:?}");
}
