//! Random trees, random packages, random faults: undo always ends where it began, redo where the deployment had.
//!
//! A failure names its seed (`backout_testkit::seeds`).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use backout_files::local::Pretence;
use backout_files::root::{Root, Work};
use backout_model::target::Target;
use backout_testkit::seeds::seeds;

use crate::world::*;

const NAMES: [&str; 6] = ["a", "b", "c", "dir", "other dir", "\u{e9}t\u{e9}"];

/// Fills a directory; the same names in both trees, so that much is replaced.
fn grow(random: &mut fastrand::Rng, dir: &Path, depth: usize, beside: Option<&Path>) {
    for name in NAMES {
        let path = dir.join(name);
        let other = beside.map(|beside| beside.join(name));
        let meta = other.as_ref().and_then(|other| fs::symlink_metadata(other).ok());
        let is_dir = meta.as_ref().is_some_and(fs::Metadata::is_dir);
        let is_leaf = meta.as_ref().is_some_and(|meta| !meta.is_dir());
        match random.u8(0..10) {
            0..3 => {}
            3..6 if depth > 0 && !is_leaf || is_dir => {
                fs::create_dir(&path).unwrap();
                grow(random, &path, depth.saturating_sub(1), other.as_deref());
            }
            6 => symlink(["a", "../a", "nowhere", "dir/b"][random.usize(0..4)], &path).unwrap(),
            7 if dir.join("a").is_file() && name != "a" => fs::hard_link(dir.join("a"), &path).unwrap(),
            _ => {
                let length = [0, 1, 5, 5, 5000][random.usize(0..5)];
                fs::write(&path, vec![b'0' + random.u8(0..3); length]).unwrap();
                mode(&path, [0o644, 0o644, 0o600, 0o755][random.usize(0..4)]);
            }
        }
        if path.symlink_metadata().is_ok() {
            set_time(&path, 1_600_000_000 + random.i64(0..1_000_000), random.i64(0..1_000_000_000));
        }
    }
}

fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let pretence = match random.u8(0..4) {
        0 => Pretence { no_exchange: true, ..Pretence::default() },
        1 => Pretence { away: true, ..Pretence::default() },
        _ => Pretence::default(),
    };
    let world = World::at(memory(), pretence);
    grow(&mut random, &world.root(), 3, None);
    set_time(&world.root(), 1_500_000_000, 1);
    let mut stack: Vec<(Vec<u8>, _)> = Vec::new();
    for _ in 0..random.usize(1..4) {
        fs::remove_dir_all(world.package()).unwrap();
        fs::create_dir(world.package()).unwrap();
        grow(&mut random, &world.package(), 3, Some(&world.root()));
        let work = if random.u8(0..4) == 0 {
            let paths = (0..3).map(|_| NAMES[random.usize(0..6)].to_owned() + ["", "/"][random.usize(0..2)]).collect();
            Work::Delete { paths, missing_ok: true }
        } else {
            Work::Overlay { source: world.package(), exact: random.bool() }
        };
        let before = world.fingerprint();
        let fault = match random.u8(0..4) {
            0 => Fault::Crash(random.usize(0..60)),
            1 => Fault::Once(random.usize(0..60), [5, 28][random.usize(0..2)]),
            _ => Fault::Nothing,
        };
        let mut gate = TestGate::default();
        let mut root = world.open();
        let (result, _) = with_fault(fault, || root.apply(&work, &mut gate));
        match (result, gate.announced) {
            (Ok(_), Some(images)) => stack.push((images, before)),
            (Err(_), None) => assert_same(&world.fingerprint(), &before, "not announced"),
            (Err(_), Some(images)) => {
                if random.bool() {
                    let _broken =
                        with_fault(Fault::Crash(random.usize(0..40)), || world.undo(&images, IN_DOUBT).is_ok());
                }
                world.undo(&images, IN_DOUBT).unwrap();
                assert_same(&world.fingerprint(), &before, "undone in doubt");
                world.open().forget(&mut *boxed(&images)).unwrap();
            }
            (Ok(_), None) => panic!("applied and not announced"),
        }
    }
    let mut latest_first = stack.iter().rev().map(|(images, _)| boxed(images));
    let report = world.open().check_undo(&mut latest_first, STOP.on_conflict).unwrap();
    assert!(report.conflicts.is_empty(), "{:?}", report.conflicts);
    let mut undone = Vec::new();
    while let Some((images, before)) = stack.pop() {
        let after = world.fingerprint();
        world.undo(&images, STOP).unwrap();
        assert_same(&world.fingerprint(), &before, "undone");
        undone.push((images, after));
    }
    while let Some((images, after)) = undone.pop() {
        let before = world.fingerprint();
        let (again, _) = world.redo(&images, STOP).unwrap();
        assert_same(&world.fingerprint(), &after, "redone");
        stack.push((again, before));
    }
    for (images, before) in stack.iter().rev() {
        world.undo(images, STOP).unwrap();
        assert_same(&world.fingerprint(), before, "undone again");
    }
}

#[test]
fn random_trees_come_back() {
    without_syncs();
    for seed in seeds(300) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("BACKOUT_SEED={seed} repeats this");
            std::panic::resume_unwind(panic);
        }
    }
}
