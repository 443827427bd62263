//! What a disk or a hand changed is found by `verify`, and nothing that is read makes anything panic.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backout_journal::{Journal, JournalError};
use backout_model::entry::Entry;
use backout_model::state::Event;

use crate::support::{all, begun, calm, content, open_pinned, perform, step, story};

/// A closed journal of the whole story: everything lies in `journal.db` and `images/`.
fn told() -> tempfile::TempDir {
    calm();
    let home = tempfile::tempdir().unwrap();
    let mut journal = open_pinned(home.path()).unwrap();
    for act in story() {
        perform(&mut journal, &act).unwrap();
    }
    // Small images over several pages.
    let mut images = journal.images().unwrap();
    std::io::Write::write_all(&mut images, &content(9, 30_000)).unwrap();
    let draft = crate::support::step("b", "", 2, backout_model::state::Event::StepIntended);
    journal.append_with_images(draft, images).unwrap();
    drop(journal);
    home
}

/// What a check of the journal finds, opening included.
fn found(state: &Path) -> Vec<String> {
    match Journal::read(state) {
        Ok(reader) => {
            let mut found = Vec::new();
            // Damage is told, part by part; it does not end the check.
            reader.verify(&mut |finding| found.push(finding)).unwrap();
            found.into_iter().filter(|finding| finding.grave).map(|finding| finding.what).collect()
        }
        Err(error) => vec![error.to_string()],
    }
}

fn positions(haystack: &[u8], needle: &[u8]) -> Vec<usize> {
    haystack.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle).map(|(at, _)| at).collect()
}

/// Flips one bit, looks, flips it back.
fn with_flipped<T>(file: &Path, at: u64, bit: u8, look: impl FnOnce() -> T) -> T {
    let open = std::fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    open.read_exact_at(&mut byte, at).unwrap();
    open.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
    let seen = look();
    open.write_all_at(&byte, at).unwrap();
    seen
}

fn entries(state: &Path) -> Vec<Entry> {
    all(&Journal::read(state).unwrap())
}

#[test]
fn a_bit_flipped_in_an_entry_its_digest_or_its_images_is_found() {
    let state = told();
    assert_eq!(found(state.path()), Vec::<String>::new());
    let database = state.path().join("journal.db");
    let bytes = std::fs::read(&database).unwrap();
    let mut looked = 0;
    for (number, entry) in entries(state.path()).into_iter().enumerate() {
        let body = serde_json::to_vec(&entry).unwrap();
        let digest = entry.digest().unwrap();
        for (what, needle) in [("body", body.as_slice()), ("digest", &digest.0)] {
            // An entry may be split over pages; the story's are not.
            for at in positions(&bytes, needle) {
                for place in [0, needle.len() / 3, needle.len() / 2, needle.len() - 1] {
                    let bit = ((number + place) % 8) as u8;
                    let found = with_flipped(&database, (at + place) as u64, bit, || found(state.path()));
                    assert!(!found.is_empty(), "a flip in the {what} of entry {} at {place}", entry.seq);
                    looked += 1;
                }
            }
        }
    }
    assert!(looked > 200, "{looked}");
    // Small images lie in overflow pages: any 64 bytes of them in a row will do.
    let small = content(9, 30_000);
    let last = Journal::read(state.path()).unwrap().last_seq().unwrap();
    let mut looked = 0;
    for piece in small.chunks(64).step_by(20) {
        for at in positions(&bytes, piece) {
            with_flipped(&database, at as u64 + 7, 3, || {
                assert!(!found(state.path()).is_empty(), "a flip in small images");
                let reader = Journal::read(state.path()).unwrap();
                assert!(reader.open_images(last).is_err(), "a flip in small images");
            });
            looked += 1;
        }
    }
    assert!(looked > 10, "{looked}");
    // What is derived: the word stands in the table and in its index.
    let words = positions(&bytes, b"applying");
    assert!(words.len() >= 4, "{words:?}");
    for at in words {
        let found = with_flipped(&database, at as u64 + 2, 0, || found(state.path()));
        assert!(!found.is_empty(), "a flip in a state at {at}");
    }
    assert_eq!(found(state.path()), Vec::<String>::new());
}

#[test]
fn a_bit_flipped_anywhere_is_found_or_changes_nothing_that_is_read() {
    let state = told();
    let database = state.path().join("journal.db");
    let length = std::fs::metadata(&database).unwrap().len();
    let whole = entries(state.path());
    let rows = Journal::read(state.path()).unwrap().deployments().unwrap();
    let seed = std::env::var("BACKOUT_TEST_SEED").map_or(20_261_101, |seed| seed.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut harmless = 0;
    let flips = 700;
    for _ in 0..flips {
        let (at, bit) = (random.u64(0..length), random.u8(0..8));
        with_flipped(&database, at, bit, || {
            if found(state.path()).is_empty() {
                harmless += 1;
                assert_eq!(entries(state.path()), whole, "seed {seed}: bit {bit} of byte {at}");
                let reader = Journal::read(state.path()).unwrap();
                assert_eq!(reader.deployments().unwrap(), rows, "seed {seed}: bit {bit} of byte {at}");
            }
        });
    }
    assert!(harmless < flips, "nothing was ever found");
}

/// Whatever lies beside them on a page is sampled above.
#[test]
fn each_byte_of_a_small_journal_and_its_before_image_counts() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open_pinned(state.path()).unwrap();
    journal.append(&begun("a")).unwrap();
    let mut images = journal.images().unwrap();
    let image = content(3, 200);
    std::io::Write::write_all(&mut images, &image).unwrap();
    journal.append_with_images(step("a", "", 0, Event::StepIntended), images).unwrap();
    drop(journal);
    let database = state.path().join("journal.db");
    let bytes = std::fs::read(&database).unwrap();
    let mut looked = 0;
    for entry in entries(state.path()) {
        let (body, digest) = (serde_json::to_vec(&entry).unwrap(), entry.digest().unwrap());
        let image = entry.images.as_ref().map(|_| image.as_slice());
        for needle in [Some(body.as_slice()), Some(&digest.0), image].into_iter().flatten() {
            let at = *positions(&bytes, needle).last().unwrap();
            for place in at..at + needle.len() {
                with_flipped(&database, place as u64, (place % 8) as u8, || {
                    assert!(!found(state.path()).is_empty(), "a flip at {place} of entry {}", entry.seq);
                });
                looked += 1;
            }
        }
    }
    assert!(looked > 1500, "{looked}");
}

#[test]
fn a_truncated_or_garbled_database_is_an_error_and_no_panic() {
    let state = told();
    let database = state.path().join("journal.db");
    let bytes = std::fs::read(&database).unwrap();
    for page in 0..bytes.len() / 4096 {
        for cut in [page * 4096, page * 4096 + 1000] {
            std::fs::write(&database, &bytes[..cut]).unwrap();
            // Nothing at all is an empty history; there is no telling it from a new one.
            assert_eq!(found(state.path()).is_empty(), cut == 0, "cut at {cut}");
            drop(open_pinned(state.path()));
            for log in ["journal.db-wal", "journal.db-shm"] {
                std::fs::remove_file(state.path().join(log)).ok();
            }
        }
        let mut garbled = bytes.clone();
        garbled[page * 4096..(page + 1) * 4096].copy_from_slice(&content(page as u64, 4096));
        std::fs::write(&database, &garbled).unwrap();
        assert!(!found(state.path()).is_empty(), "page {page}");
        drop(open_pinned(state.path()));
    }
}

fn only_image_file(state: &Path) -> PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(state.join("images")).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

#[test]
fn a_file_of_images_that_is_altered_short_long_missing_or_a_link_is_found() {
    let state = told();
    let file = only_image_file(state.path());
    let bytes = std::fs::read(&file).unwrap();
    for at in [0, 1000, bytes.len() as u64 - 1] {
        assert_eq!(with_flipped(&file, at, 5, || found(state.path())).len(), 1);
    }
    std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(found(state.path()).len(), 1);
    let reader = Journal::read(state.path()).unwrap();
    let seq =
        all(&reader).iter().rev().find(|entry| entry.images.as_ref().is_some_and(|i| i.bytes > 200_000)).unwrap().seq;
    assert!(matches!(reader.open_images(seq), Err(JournalError::ImagesDamaged { .. })));
    std::fs::write(&file, [bytes.as_slice(), b"x"].concat()).unwrap();
    assert_eq!(found(state.path()).len(), 1);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(found(state.path()).len(), 1);
    let elsewhere = state.path().join("elsewhere");
    std::fs::write(&elsewhere, &bytes).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    assert_eq!(found(state.path()).len(), 1);
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(found(state.path()), Vec::<String>::new());
}

/// A hand that knows SQL and took the triggers away.
#[test]
fn an_edit_of_history_or_of_what_is_derived_from_it_shows() {
    let untriggered = "
        DROP TRIGGER entry_follows; DROP TRIGGER entry_is_not_changed; DROP TRIGGER entry_is_not_erased;
        DROP TRIGGER image_is_kept; DROP TRIGGER image_is_not_changed; DROP TRIGGER dropped_is_not_changed;
        DROP TRIGGER dropped_is_not_erased;";
    // Exactly the content that the entry speaks of: only the entry that gave it up tells.
    let content: String = content(1, 5000).iter().map(|byte| format!("{byte:02x}")).collect();
    let come_back = format!("INSERT INTO image (seq, content) VALUES (6, x'{content}')");
    let edits = [
        ("erase an entry", "DELETE FROM entry WHERE seq = 12"),
        ("erase the last entry", "DELETE FROM entry WHERE seq = (SELECT max(seq) FROM entry)"),
        ("erase a deployment's entries", "DELETE FROM entry WHERE deployment = '00000000000b'"),
        (
            "exchange two bodies",
            "UPDATE entry SET body = (SELECT body FROM entry e WHERE e.seq = 25 - entry.seq)
          WHERE seq IN (12, 13)",
        ),
        ("another deployment", "UPDATE entry SET deployment = '00000000000b' WHERE seq = 12"),
        ("no deployment", "UPDATE entry SET deployment = NULL WHERE seq = 12"),
        ("an unlisted deployment", "DELETE FROM deployment WHERE id = '00000000000a'"),
        (
            "an invented deployment",
            "INSERT INTO deployment SELECT 'abcabcabcabc', package, version, actor, state, 77,
          78, 78, 1, 1, 1, info FROM deployment WHERE id = '00000000000a'",
        ),
        ("another state", "UPDATE deployment SET state = 'done' WHERE id = '00000000000a'"),
        ("no state at all", "UPDATE deployment SET state = 'odd' WHERE id = '00000000000a'"),
        ("another time", "UPDATE deployment SET last_ms = last_ms + 1 WHERE id = '00000000000a'"),
        ("another epoch", "UPDATE epoch SET value = 3"),
        ("no epoch", "DELETE FROM epoch"),
        ("images lost", "DELETE FROM image WHERE content IS NOT NULL"),
        ("images of nobody", "INSERT INTO image (seq, content) VALUES (1, x'00')"),
        ("another file", "UPDATE image SET file = '../journal.db' WHERE file IS NOT NULL"),
        (
            "given up without a word",
            "INSERT INTO dropped SELECT seq, 1 FROM image WHERE content IS NOT NULL;
          DELETE FROM image WHERE content IS NOT NULL",
        ),
        ("not given up after all", "DELETE FROM dropped"),
        ("given up and back again", &come_back),
    ];
    for (name, sql) in edits {
        let state = told();
        let database = rusqlite::Connection::open(state.path().join("journal.db")).unwrap();
        database.execute_batch(untriggered).unwrap();
        database.execute_batch(sql).unwrap();
        drop(database);
        assert!(!found(state.path()).is_empty(), "{name}");
    }
}

/// Adds an entry that is chained as it should be, but for what `spoil` does to it or to its text.
fn forge(state: &Path, spoil: impl FnOnce(&mut Entry), retext: impl FnOnce(String) -> String) {
    let last = entries(state).pop().unwrap();
    let mut entry = Entry { seq: last.seq + 1, previous: last.digest().unwrap(), step: Some(5), images: None, ..last };
    spoil(&mut entry);
    let body = retext(serde_json::to_string(&entry).unwrap());
    let digest = blake3::Hasher::new().update(&1u32.to_le_bytes()).update(body.as_bytes()).finalize();
    let database = rusqlite::Connection::open(state.join("journal.db")).unwrap();
    database.execute_batch("DROP TRIGGER entry_follows").unwrap();
    let id = entry.deployment.as_ref().map(|id| id.as_str());
    database
        .execute(
            "INSERT INTO entry (seq, deployment, body, digest) VALUES (?1, ?2, ?3, ?4)",
            (entry.seq as i64, id, body, digest.as_bytes().as_slice()),
        )
        .unwrap();
    database
        .execute(
            "UPDATE deployment SET last_seq = ?1, last_ms = ?2 WHERE id = ?3",
            (entry.seq as i64, entry.time_ms, id),
        )
        .unwrap();
}

#[test]
fn a_forged_entry_is_found_although_its_digest_is_right() {
    let whole = told();
    forge(whole.path(), |_| {}, |text| text);
    assert_eq!(found(whole.path()), Vec::<String>::new(), "the forger does not know his trade");
    type Spoil = fn(&mut Entry);
    let forgeries: [(&str, Spoil); 6] = [
        ("step-intended is illegal for step 2 of the root frame, which is intended", |entry| entry.step = Some(2)),
        ("follows entry", |entry| entry.seq += 1),
        ("does not follow the entry before it", |entry| entry.previous.0[31] ^= 1),
        ("is older than the one before it", |entry| entry.time_ms -= 1),
        ("has no epoch above the one before", |entry| {
            (entry.deployment, entry.step) = (None, None);
            entry.event = backout_model::state::Event::LockTaken;
            entry.payload = serde_json::json!({"epoch": 4});
        }),
        ("they are missing", |entry| {
            entry.images = Some(backout_model::entry::ImagesRef { bytes: 0, digest: entry.previous });
        }),
    ];
    for (finding, spoil) in forgeries {
        let state = told();
        forge(state.path(), spoil, |text| text);
        let found = found(state.path());
        assert_eq!(found.len(), 1, "{finding}: {found:?}");
        assert!(found[0].contains(finding), "{finding}: {found:?}");
    }
    let state = told();
    forge(state.path(), |_| {}, |text| text.replace("\"frame\":", "\"frame\": "));
    assert!(found(state.path())[0].contains("canonical"));
}
