//! The bytes of the images: damage is found wherever it is, and old versions are read.

use std::io::Cursor;

use backout_model::conflict::OnConflict;
use backout_model::target::{Manner, Target, TargetError};

use crate::stage::Stage;

const SETUP: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b TEXT);
    INSERT INTO t VALUES (1, 'one', 'x'), (2, 2.5, NULL), (3, x'00ff', 'z');";
const CHANGE: &str = "UPDATE t SET a = id, b = 'new' WHERE id < 3;\nDELETE FROM t WHERE id = 3;\nINSERT INTO t VALUES (9, -1, 'nine');\n";
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/sqlite-images-1.bin");

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let mut stage = Stage::new(SETUP);
    let images = stage.apply(CHANGE);
    let applied = stage.dump();
    let manner = Manner { on_conflict: OnConflict::Stop, in_doubt: false };
    for at in 0..images.len() {
        let mut damaged = images.clone();
        damaged[at] ^= 1 << (at % 8);
        let mut gate = stage.gate();
        match stage.database.undo(&mut Cursor::new(&damaged), manner, &mut gate) {
            Err(TargetError::Images { .. }) => {}
            other => panic!("byte {at}: {other:?}"),
        }
        let findings = stage.database.verify(&mut Cursor::new(&damaged), false).unwrap();
        assert!(findings.iter().any(|finding| finding.grave), "byte {at}");
    }
    for length in 0..images.len() {
        let mut gate = stage.gate();
        let undone = stage.database.undo(&mut Cursor::new(&images[..length]), manner, &mut gate);
        assert!(matches!(undone, Err(TargetError::Images { .. })), "cut at {length}: {undone:?}");
    }
    assert_eq!(stage.dump(), applied);
    assert_eq!(stage.database.verify(&mut Cursor::new(&images), true).unwrap(), []);
}

#[test]
fn images_of_a_newer_version_are_refused_by_name() {
    let mut stage = Stage::new(SETUP);
    let mut images = stage.apply(CHANGE);
    images[8] = 200;
    let error = stage.try_undo(&images, OnConflict::Stop).unwrap_err();
    assert!(error.to_string().contains("version 200"), "{error}");
}

/// Written by version 1; to be read for ever. `BACKOUT_WRITE_GOLDEN=1` writes it where a version is first made.
#[test]
fn images_of_version_1_still_undo() {
    let mut stage = Stage::new(SETUP);
    let before = stage.dump();
    let images = stage.apply(CHANGE);
    if std::env::var_os("BACKOUT_WRITE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &images).unwrap();
    }
    let golden = std::fs::read(GOLDEN).unwrap();
    stage.undo(&golden);
    assert_eq!(stage.dump(), before);
}
