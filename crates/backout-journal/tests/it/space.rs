//! A full disk: the reserve is given up for the journal, and made again.

use std::io;

use backout_journal::Journal;
use backout_model::fault::Point;
use backout_model::state::Event;

use crate::support::{assert_sound, begun, calm, open, set, step};

#[test]
fn the_reserve_is_given_up_so_that_an_undo_can_be_journaled() {
    let state = tempfile::tempdir().unwrap();
    calm();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    let reserve = state.path().join("reserve");
    let watched = reserve.clone();
    // A disk that is full as long as the reserve is there.
    set(move |_, point| {
        let full = point == Point::JournalWrite && watched.exists();
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    });
    journal.append(&[step("a", "", 0, Event::StepIntended)]).unwrap();
    assert!(!reserve.exists() && !journal.reserve_is_ready());
    calm();
    journal.make_reserve().unwrap();
    assert!(journal.reserve_is_ready());
    std::fs::remove_file(&reserve).unwrap();
    drop(journal);
    assert!(open(state.path()).reserve_is_ready());
}

#[test]
fn a_disk_that_stays_full_is_said_to_be_and_nothing_is_written() {
    let state = tempfile::tempdir().unwrap();
    calm();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    set(|_, point| if point == Point::JournalWrite { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) });
    let error = journal.append(&[step("a", "", 0, Event::StepIntended)]).unwrap_err();
    assert!(error.is_no_space(), "{error:?}");
    assert_eq!(error.to_string(), "no space left to write to the journal");
    calm();
    assert_eq!(journal.append(&[step("a", "", 0, Event::StepIntended)]).unwrap(), 5);
    assert_sound(journal.reader());
}

/// By hand, on a small file system of its own: `BACKOUT_SMALL_DISK=/mnt/small cargo test … -- --ignored small_disk`.
#[test]
#[ignore = "needs a small file system in BACKOUT_SMALL_DISK"]
fn on_a_small_disk_that_is_really_full() {
    let disk = std::env::var_os("BACKOUT_SMALL_DISK").expect("BACKOUT_SMALL_DISK names a small file system");
    let disk = std::path::Path::new(&disk);
    let state = disk.join("state");
    let mut journal = open(&state);
    assert!(journal.reserve_is_ready());
    journal.append(&begun("a")).unwrap();
    let fill = |name: &str| {
        let mut file = std::fs::File::create(disk.join(name)).unwrap();
        while io::Write::write_all(&mut file, &[7; 4096]).is_ok() {}
        while io::Write::write_all(&mut file, &[7; 1]).is_ok() {}
    };
    fill("full");
    let mut number = 0;
    let mut next = |journal: &mut Journal| {
        let mut intended = step("a", "", number, Event::StepIntended);
        intended.payload = "x".repeat(100_000).into();
        number += 1;
        journal.append(&[intended])
    };
    while journal.reserve_is_ready() {
        next(&mut journal).unwrap();
    }
    // Some of the reserve's room is left; then it is really full.
    fill("fuller");
    let error = loop {
        match next(&mut journal) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.is_no_space(), "{error:?}");
    assert_sound(journal.reader());
    assert!(journal.make_reserve().unwrap_err().is_no_space());
    drop(journal);
    // A closed journal on a full disk can be read, and opened to undo.
    let reader = Journal::read(&state).unwrap();
    assert_eq!(reader.unfinished().unwrap().unwrap().package, "shop");
    assert_sound(&reader);
    drop(reader);
    std::fs::remove_file(disk.join("fuller")).unwrap();
    let mut journal = open(&state);
    next(&mut journal).unwrap();
    assert_sound(journal.reader());
}

/// By hand, likewise: a state directory on a disk that is mounted read-only now, closed properly before.
#[test]
#[ignore = "needs a state directory on a read-only disk in BACKOUT_READ_ONLY_STATE"]
fn on_a_read_only_disk_a_closed_journal_is_read() {
    let state = std::env::var_os("BACKOUT_READ_ONLY_STATE").expect("BACKOUT_READ_ONLY_STATE names a state directory");
    let state = std::path::Path::new(&state);
    assert!(std::fs::write(state.join("probe"), "").is_err(), "the disk can be written");
    let reader = Journal::read(state).unwrap();
    assert!(reader.last_seq().unwrap() > 0);
    assert_sound(&reader);
    assert!(Journal::open(state, crate::support::options()).is_err());
}
