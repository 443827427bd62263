//! Images: small ones in the journal, large ones in files, what is given up.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use backout_journal::{Journal, JournalError};
use backout_model::entry::Digest;
use backout_model::state::Event;

use crate::support::{SPILL, all, assert_sound, begun, calm, content, open, step};

fn intend(journal: &mut Journal, number: u32, bytes: &[u8]) -> u64 {
    let mut images = journal.images().unwrap();
    images.write_all(bytes).unwrap();
    journal.append_with_images(step("a", "", number, Event::StepIntended), images).unwrap()
}

fn files(state: &Path) -> usize {
    std::fs::read_dir(state.join("images")).unwrap().count()
}

#[test]
fn images_of_every_size_come_back() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    let sizes = [0, 1, 4096, SPILL - 1, SPILL, SPILL + 1, 2 * SPILL, 5 * SPILL + 3];
    for (number, size) in sizes.into_iter().enumerate() {
        let bytes = content(number as u64, size);
        let seq = intend(&mut journal, number as u32, &bytes);
        let entry = all(journal.reader()).pop().unwrap();
        let images = entry.images.unwrap();
        assert_eq!((images.bytes, images.digest), (size as u64, Digest(*blake3::hash(&bytes).as_bytes())));
        let mut back = Vec::new();
        let mut read = journal.reader().open_images(seq).unwrap();
        read.read_to_end(&mut back).unwrap();
        assert!(back == bytes, "{size}");
        if size > 10 {
            let mut last = [0; 10];
            read.seek(SeekFrom::End(-10)).unwrap();
            read.read_exact(&mut last).unwrap();
            assert_eq!(last, bytes[size - 10..]);
        }
        journal.reader().check_images(seq).unwrap();
    }
    assert_eq!(files(state.path()), 3);
    let checked = journal.reader().verify(&mut |finding| panic!("{finding:?}")).unwrap();
    assert_eq!((checked.images, checked.bytes), (8, sizes.iter().sum::<usize>() as u64));
    for file in std::fs::read_dir(state.path().join("images")).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn an_entry_without_images_has_none() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    for seq in [1, 99] {
        assert!(matches!(journal.reader().open_images(seq), Err(JournalError::NoImages { .. })));
        assert!(matches!(journal.drop_images(&[seq], "no"), Err(JournalError::NoImages { .. })));
    }
}

#[test]
fn a_refused_entry_takes_no_images_and_its_stream_can_serve_a_legal_one() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    let mut images = journal.images().unwrap();
    images.write_all(&content(1, 2 * SPILL)).unwrap();
    let refused = journal.append_with_images(step("a", "", 0, Event::StepApplied), images.clone());
    assert!(matches!(refused, Err(JournalError::Illegal { .. })));
    images.write_all(b"and more").unwrap();
    let seq = journal.append_with_images(step("a", "", 0, Event::StepIntended), images).unwrap();
    journal.reader().check_images(seq).unwrap();
    assert_sound(journal.reader());
}

#[test]
fn given_up_images_are_gone_and_their_entry_stays() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    // A text that is found in the file as long as it is anywhere in it.
    let secret = b"the customers' addresses ".repeat(400);
    let small = intend(&mut journal, 0, &secret);
    let large = intend(&mut journal, 1, &content(1, 2 * SPILL));
    let kept = intend(&mut journal, 2, b"kept");
    journal.drop_images(&[small, large, small], "retention").unwrap();
    journal.drop_images(&[small], "again").unwrap();
    assert_eq!(files(state.path()), 0);
    assert_eq!(all(journal.reader()).len(), 9);
    for seq in [small, large] {
        assert!(matches!(journal.reader().open_images(seq), Err(JournalError::ImagesDropped { by: 8 | 9, .. })));
    }
    journal.reader().check_images(kept).unwrap();
    let told = all(journal.reader()).remove(7);
    assert_eq!(told.event, Event::ImagesDropped);
    assert_eq!((told.payload["of"].as_u64(), told.payload["because"].as_str()), (Some(small), Some("retention")));
    assert_sound(journal.reader());
    drop(journal);
    let bytes = std::fs::read(state.path().join("journal.db")).unwrap();
    assert!(!bytes.windows(24).any(|window| window == &secret[..24]), "dropped images are still in the file");
}

#[test]
fn a_file_that_no_entry_took_goes_at_the_next_opening() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    let seq = intend(&mut journal, 0, &content(1, 2 * SPILL));
    drop(journal);
    std::fs::write(state.path().join("images/iStray.images"), b"left by a crash").unwrap();
    let reader = Journal::read(state.path()).unwrap();
    let mut found = Vec::new();
    reader.verify(&mut |finding| found.push(finding)).unwrap();
    assert_eq!(found.len(), 1);
    assert!(!found[0].grave && found[0].what.contains("iStray.images"), "{found:?}");
    let journal = open(state.path());
    assert_eq!(files(state.path()), 1);
    journal.reader().check_images(seq).unwrap();
    assert_sound(journal.reader());
}

#[test]
fn a_stream_larger_than_memory_should_be_takes_little_of_it() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    let before = resident_bytes();
    let mut images = journal.images().unwrap();
    let block = content(1, SPILL);
    for _ in 0..400 {
        images.write_all(&block).unwrap();
    }
    let seq = journal.append_with_images(step("a", "", 0, Event::StepIntended), images).unwrap();
    journal.reader().check_images(seq).unwrap();
    // 100 MiB went through. Other tests of this process run beside: leave them room.
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 60 * 1024 * 1024, "grew by {grown} bytes");
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
