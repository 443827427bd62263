//! Each durable act failing once, with a full disk and with an I/O error: nothing is ahead of the disk, the same act
//! can be done again, and the history is the same in the end.

use std::io::{self, Write};

use backout_journal::JournalError;
use backout_model::fault::{self, Point};
use backout_model::state::Event;
use std::sync::atomic::Ordering;

use crate::support::{
    SPILL, all, assert_sound, begun, calm, content, findings, open, open_pinned, perform, set, step, story,
    story_untold,
};

fn full() -> io::Error {
    io::Error::from_raw_os_error(28)
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(5)
}

/// Tells the story with the point number `failing` failing once; returns the number of points that were passed.
fn tell(failing: u64, error: fn() -> io::Error, expected: &[backout_model::entry::Entry]) -> u64 {
    let count = set(move |number, _| if number == failing { Err(error()) } else { Ok(()) });
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    let mut journal = match open_pinned(&state) {
        Ok(journal) => journal,
        Err(_) => open_pinned(&state).unwrap(),
    };
    for act in story() {
        if perform(&mut journal, &act).is_err() {
            let durable = journal.reader().last_seq().unwrap();
            assert!(findings(journal.reader()).iter().all(|finding| !finding.grave));
            assert_eq!(all(journal.reader()), expected[..durable as usize]);
            perform(&mut journal, &act).unwrap();
        }
    }
    assert_eq!(all(journal.reader()), expected, "point {failing}");
    assert!(findings(journal.reader()).iter().all(|finding| !finding.grave));
    let passed = count.load(Ordering::Relaxed);
    drop(journal);
    calm();
    let journal = open(&state);
    assert_eq!(all(journal.reader()), expected, "point {failing}");
    assert_sound(journal.reader());
    passed
}

#[test]
fn any_one_failure_can_be_tried_again() {
    calm();
    let expected = story_untold();
    for error in [full, broken] {
        let mut failing = 1;
        while tell(failing, error, &expected) >= failing {
            failing += 1;
        }
        assert!(failing > 30, "only {failing} points");
    }
}

#[test]
fn a_failure_is_reported_as_what_it_is() {
    let state = tempfile::tempdir().unwrap();
    calm();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    set(|_, point| if point == Point::JournalWrite { Err(broken()) } else { Ok(()) });
    let error = journal.append(&[step("a", "", 0, Event::StepIntended)]).unwrap_err();
    assert!(matches!(error, JournalError::Io { .. }) && !error.is_no_space(), "{error:?}");
    assert_eq!(error.to_string(), "cannot write to the journal");
    assert!(journal.reserve_is_ready(), "the reserve was given up for an error that is no full disk");
    // Deferred in spite of it, and durable once the disk works again.
    journal.defer(step("a", "", 0, Event::StepIntended)).unwrap();
    assert!(journal.flush().is_err());
    assert!(journal.append(&[step("a", "", 0, Event::StepApplied)]).is_err());
    assert_eq!((journal.last_seq(), journal.reader().last_seq().unwrap()), (5, 4));
    calm();
    assert_eq!(journal.append(&[step("a", "", 0, Event::StepApplied)]).unwrap(), 6);
    assert_eq!(journal.reader().last_seq().unwrap(), 6);
    assert_sound(journal.reader());
}

#[test]
fn large_images_survive_a_failed_entry_when_their_stream_is_used_again() {
    let state = tempfile::tempdir().unwrap();
    calm();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    let mut images = journal.images().unwrap();
    images.write_all(&content(1, 3 * SPILL)).unwrap();
    set(|_, point| if point == Point::JournalWrite { Err(broken()) } else { Ok(()) });
    let intended = step("a", "", 0, Event::StepIntended);
    assert!(journal.append_with_images(intended.clone(), images.clone()).is_err());
    assert!(journal.append_with_images(intended.clone(), images.clone()).is_err());
    calm();
    let seq = journal.append_with_images(intended, images).unwrap();
    journal.append(&[step("a", "", 0, Event::StepApplied)]).unwrap();
    journal.reader().check_images(seq).unwrap();
    assert_sound(journal.reader());
}

#[test]
fn the_file_of_an_entry_that_failed_goes_once_it_cannot_come_back() {
    let state = tempfile::tempdir().unwrap();
    calm();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    let mut images = journal.images().unwrap();
    images.write_all(&content(1, 3 * SPILL)).unwrap();
    set(|_, point| if point == Point::JournalWrite { Err(broken()) } else { Ok(()) });
    assert!(journal.append_with_images(step("a", "", 0, Event::StepIntended), images).is_err());
    calm();
    let files = || std::fs::read_dir(state.path().join("images")).unwrap().count();
    assert_eq!(files(), 1);
    journal.append(&[step("a", "", 0, Event::StepIntended)]).unwrap();
    assert_eq!(files(), 0);
    assert_sound(journal.reader());
}

#[test]
fn images_that_failed_half_way_are_never_taken_for_whole() {
    for failing in [Point::ImagesWrite, Point::Sync, Point::DirSync] {
        let state = tempfile::tempdir().unwrap();
        calm();
        let mut journal = open(state.path());
        journal.append(&begun("a")).unwrap();
        let mut images = journal.images().unwrap();
        images.write_all(&content(1, SPILL)).unwrap();
        set(move |_, point| if point == failing { Err(full()) } else { Ok(()) });
        let written = images.write_all(b"more");
        assert_eq!(written.is_err(), failing == Point::ImagesWrite);
        let intended = step("a", "", 0, Event::StepIntended);
        let error = journal.append_with_images(intended.clone(), images.clone()).unwrap_err();
        assert!(failing == Point::ImagesWrite || error.is_no_space(), "{error:?}");
        calm();
        assert!(journal.append_with_images(intended.clone(), images.clone()).is_err());
        assert!(images.write_all(b"more").is_err());
        drop(images);
        assert_eq!(std::fs::read_dir(state.path().join("images")).unwrap().count(), 0);
        journal.append(&[intended]).unwrap();
        assert_sound(journal.reader());
    }
    fault::set_local(None);
}
