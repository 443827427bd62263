//! Stored formats are read for ever: each format's checked-in journal opens, verifies, and says what it said.

use std::fmt::Write as _;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use backout_journal::{Journal, Reader};

use crate::support::{assert_sound, calm, copy_of, open, open_pinned, perform, step, story};

fn golden(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/format-{format}"))
}

/// Entries, deployments and digests of images, a line each.
fn told_by(reader: &Reader) -> String {
    let mut text = String::new();
    let mut with_images = Vec::new();
    reader
        .all_entries(1, &mut |entry| {
            writeln!(text, "{}", serde_json::to_string(&entry).unwrap()).unwrap();
            if entry.images.is_some() {
                with_images.push(entry.seq);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    for row in reader.deployments().unwrap() {
        writeln!(text, "{}", serde_json::to_string(&row).unwrap()).unwrap();
    }
    for seq in with_images {
        match reader.open_images(seq) {
            Ok(mut images) => {
                let mut bytes = Vec::new();
                images.read_to_end(&mut bytes).unwrap();
                writeln!(text, "images of {seq}: {} bytes, {}", bytes.len(), blake3::hash(&bytes)).unwrap();
            }
            Err(error) => writeln!(text, "{error}").unwrap(),
        }
    }
    text
}

#[test]
fn a_journal_of_format_1_says_what_it_said() {
    calm();
    let copy = copy_of(&golden(1));
    let expected = std::fs::read_to_string(copy.path().join("told.txt")).unwrap();
    let reader = Journal::read(copy.path()).unwrap();
    assert_eq!(told_by(&reader), expected);
    assert_sound(&reader);
    drop(reader);
    // And it can be gone on with.
    std::fs::set_permissions(copy.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut journal = open(copy.path());
    assert_eq!(told_by(journal.reader()), expected);
    journal.append(&[step("b", "", 0, backout_model::state::Event::StepApplied)]).unwrap();
    assert_sound(journal.reader());
}

/// By hand, once a format: never run it for a format that was released.
#[test]
#[ignore = "makes the golden files of the current format"]
fn make_golden() {
    calm();
    let state = golden(1);
    std::fs::remove_dir_all(&state).ok();
    let mut journal = open_pinned(&state).unwrap();
    for act in story() {
        perform(&mut journal, &act).unwrap();
    }
    std::fs::write(state.join("told.txt"), told_by(journal.reader())).unwrap();
    drop(journal);
    for name in ["lock", "reserve"] {
        std::fs::remove_file(state.join(name)).unwrap();
    }
}
