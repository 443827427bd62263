//! A lost journal is made again from the entries of deployments: whole or not at all, whatever fails on the way.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::Ordering;

use backout_journal::{Journal, JournalError, Rebuilding};
use backout_model::entry::{Digest, Entry};
use backout_model::state::Event;

use crate::support::{all, assert_sound, calm, id, open, open_pinned, options, perform, set, story};

/// A deployment of the story, as a record keeps it: its entries, and the images that are still there.
struct Kept {
    entries: Vec<Entry>,
    images: BTreeMap<u64, Vec<u8>>,
}

fn kept(deployment: &str) -> Kept {
    let home = tempfile::tempdir().unwrap();
    let mut journal = open_pinned(home.path()).unwrap();
    for act in story() {
        perform(&mut journal, &act).unwrap();
    }
    let reader = journal.reader();
    let entries: Vec<Entry> =
        all(reader).into_iter().filter(|entry| entry.deployment == Some(id(deployment))).collect();
    let mut images = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.images.is_some()) {
        if let Ok(mut found) = reader.open_images(entry.seq) {
            found.read_to_end(images.entry(entry.seq).or_default()).unwrap();
        }
    }
    Kept { entries, images }
}

fn rebuild(state: &Path, kept: &Kept) -> Result<(), JournalError> {
    let mut rebuilding = Rebuilding::begin(state, options())?;
    for entry in &kept.entries {
        let mut images = kept.images.get(&entry.seq).map(Vec::as_slice);
        rebuilding.add(entry.clone(), images.as_mut().map(|images| images as &mut dyn Read))?;
    }
    rebuilding.finish()
}

/// The entries that are not only stand-ins, without their place in the chain and their time.
fn told(state: &Path) -> Vec<Entry> {
    let entries = all(&Journal::read(state).unwrap()).into_iter().filter(|entry| entry.event != Event::EntryLost);
    entries.map(|entry| Entry { previous: Digest::ZERO, ..entry }).collect()
}

fn as_told(kept: &[&Kept]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = kept.iter().flat_map(|kept| kept.entries.iter().cloned()).collect();
    entries.sort_by_key(|entry| entry.seq);
    entries.into_iter().map(|entry| Entry { previous: Digest::ZERO, ..entry }).collect()
}

#[test]
fn whatever_fails_leaves_no_journal_or_a_whole_one() {
    calm();
    let (a, b) = (kept("a"), kept("b"));
    let mut failing = 1;
    loop {
        let home = tempfile::tempdir().unwrap();
        let state = home.path().join("state");
        let count = set(move |number, _| if number == failing { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) });
        let first = rebuild(&state, &b);
        let passed = count.load(Ordering::Relaxed);
        calm();
        let now = told(&state);
        assert!(now.is_empty() || now == as_told(&[&b]), "point {failing}");
        // Once more, and then with the other one's record as well.
        if now.is_empty() {
            assert!(first.is_err(), "point {failing}");
            rebuild(&state, &b).unwrap();
        }
        rebuild(&state, &a).unwrap();
        assert_eq!(told(&state), as_told(&[&a, &b]), "point {failing}");
        let mut journal = open(&state);
        assert_sound(journal.reader());
        for (seq, images) in b.images.iter().chain(&a.images) {
            let mut found = Vec::new();
            journal.reader().open_images(*seq).unwrap().read_to_end(&mut found).unwrap();
            assert_eq!(found, *images);
        }
        // And it can be gone on with.
        journal.append(&[crate::support::step("b", "", 0, Event::StepApplied)]).unwrap();
        assert_sound(journal.reader());
        if passed < failing {
            break;
        }
        failing += 1;
    }
    assert!(failing > 10, "only {failing} points");
}

#[test]
fn a_journal_that_is_not_lost_is_left_alone() {
    calm();
    let b = kept("b");
    let home = tempfile::tempdir().unwrap();
    let mut journal = open_pinned(home.path()).unwrap();
    perform(&mut journal, &story().remove(0)).unwrap();
    assert!(matches!(rebuild(home.path(), &b), Err(JournalError::Held { .. })));
    drop(journal);
    let before = all(&Journal::read(home.path()).unwrap());
    assert!(matches!(rebuild(home.path(), &b), Err(JournalError::OtherHistory { .. })));
    assert_eq!(all(&Journal::read(home.path()).unwrap()), before);
    // Nor is what was made from a record replaced by another of the same.
    let again = tempfile::tempdir().unwrap();
    rebuild(again.path(), &b).unwrap();
    assert!(matches!(rebuild(again.path(), &b), Err(JournalError::OtherHistory { .. })));
    assert_eq!(told(again.path()), as_told(&[&b]));
}

#[test]
fn what_was_changed_on_the_way_is_refused() {
    calm();
    let mut b = kept("b");
    let seq = *b.images.keys().next().unwrap();
    b.images.get_mut(&seq).unwrap()[5] ^= 1;
    let home = tempfile::tempdir().unwrap();
    assert!(matches!(rebuild(home.path(), &b), Err(JournalError::ImagesDamaged { .. })));
    let mut b = kept("b");
    b.entries.swap(0, 1);
    assert!(rebuild(home.path(), &b).is_err());
    assert_eq!(told(home.path()), Vec::<Entry>::new());
}
