//! Stopped dead, or failed once, at every point that apply, undo and redo pass: what is left can always be undone
//! exactly, and always be finished exactly.

use backout_files::local::Pretence;
use backout_files::root::{Root, Work};
use backout_model::fault::Point;
use backout_model::target::{Probe, Target, Ticket};

use crate::world::*;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

fn pretences() -> [Pretence; 3] {
    [
        Pretence::default(),
        Pretence { no_exchange: true, ..Pretence::default() },
        Pretence { away: true, ..Pretence::default() },
    ]
}

/// A small world, for there are hundreds of them; with something of every act.
fn small(pretence: Pretence) -> World {
    let mut world = World::at(memory(), pretence);
    world.keep = vec!["uploads".to_owned()];
    let (root, package) = (world.root(), world.package());
    write(&root, "a.txt", "old a");
    write(&root, "sub/b.txt", "old b");
    write(&root, "sub/gone.txt", "goes");
    write(&root, "old/x/y.txt", "goes with its directory");
    write(&root, "uploads/kept.txt", "kept");
    std::os::unix::fs::symlink("a.txt", root.join("link")).unwrap();
    write(&package, "a.txt", "new a");
    write(&package, "sub/b.txt", "new, longer b");
    write(&package, "new/deep/c.txt", "new c");
    write(&package, "new/pair", "two names");
    std::fs::hard_link(package.join("new/pair"), package.join("pair")).unwrap();
    std::os::unix::fs::symlink("new/deep", package.join("link")).unwrap();
    for (i, path) in
        ["a.txt", "sub/b.txt", "sub/gone.txt", "old/x/y.txt", "link", "old/x", "old", "sub", "."].iter().enumerate()
    {
        set_time(&root.join(path), 1_700_000_000 + i as i64, i as i64);
    }
    world
}

fn faults(at: usize) -> [Fault; 3] {
    [Fault::Crash(at), Fault::Once(at, ENOSPC), Fault::Once(at, EIO)]
}

/// What the hold may have left of a step that was not announced.
fn assert_nothing_staged(world: &World, fault: Fault) {
    match fault {
        Fault::Crash(_) => assert!(world.held().iter().all(|name| name.ends_with(".new")), "{:?}", world.held()),
        // The one failing call may be the cleaning's own.
        Fault::Once(..) | Fault::Nothing => {
            assert!(world.held().iter().all(|name| name.ends_with(".new")), "{:?}", world.held());
        }
    }
}

fn apply_with(world: &World, work: &Work, fault: Fault) -> (bool, TestGate, Vec<Point>) {
    let mut gate = TestGate::default();
    let mut root = world.open();
    let (result, seen) = with_fault(fault, || root.apply(work, &mut gate));
    (result.is_ok(), gate, seen)
}

#[test]
fn an_apply_that_breaks_anywhere_is_undone_or_finished() {
    without_syncs();
    for pretence in pretences() {
        let world = small(pretence);
        let (ok, _, points) = apply_with(&world, &world.exact(), Fault::Nothing);
        assert!(ok);
        for wanted in [Point::Stage, Point::MakeDir, Point::Rename, Point::DirSync, Point::SetMetadata, Point::Unlink] {
            assert!(points.contains(&wanted), "{wanted:?} is never passed");
        }
        assert!(pretence.no_exchange || pretence.away || points.contains(&Point::Exchange));
        for at in 0..points.len() {
            for fault in faults(at) {
                let what = format!("{pretence:?} {fault:?} of {} at {:?}", points.len(), points[at]);
                let world = small(pretence);
                let before = world.fingerprint();
                let (ok, gate, _) = apply_with(&world, &world.exact(), fault);
                let Some(images) = gate.announced else {
                    assert!(!ok, "{what}");
                    assert_same(&world.fingerprint(), &before, &what);
                    assert_nothing_staged(&world, fault);
                    // And the next one works, cleaning what is left.
                    let (images, _) = world.apply(&world.exact());
                    assert_eq!(world.held().len(), 1, "{what}: {:?}", world.held());
                    world.undo(&images, STOP).unwrap();
                    assert_same(&world.fingerprint(), &before, &what);
                    continue;
                };
                let probe = world.open().probe(Ticket { seq: 1, epoch: 1 }, &mut *boxed(&images)).unwrap();
                if probe == Probe::NotApplied {
                    assert_same(&world.fingerprint(), &before, &format!("{what}: probed as not applied"));
                }
                if probe == Probe::Applied && at % 3 == 0 {
                    // Then it is undone like any other step.
                    world.undo(&images, STOP).unwrap_or_else(|error| panic!("{what}: {error:?}"));
                    assert_same(&world.fingerprint(), &before, &format!("{what}: probed as applied"));
                } else if at % 2 == 0 {
                    let report = world.undo(&images, IN_DOUBT).unwrap_or_else(|error| panic!("{what}: {error:?}"));
                    assert!(report.conflicts.is_empty(), "{what}");
                    assert_same(&world.fingerprint(), &before, &what);
                    let again = world.undo(&images, IN_DOUBT).unwrap();
                    assert!(again.conflicts.is_empty(), "{what}");
                    assert_same(&world.fingerprint(), &before, &format!("{what}, undone twice"));
                }
                let (again, _) = world.redo(&images, IN_DOUBT).unwrap_or_else(|error| panic!("{what}: {error:?}"));
                assert_eq!(
                    world.open().probe(Ticket { seq: 1, epoch: 1 }, &mut *boxed(&again)).unwrap(),
                    Probe::Applied,
                    "{what}"
                );
                assert_eq!(std::fs::read_to_string(world.root().join("sub/b.txt")).unwrap(), "new, longer b", "{what}");
                world.undo(&again, STOP).unwrap_or_else(|error| panic!("{what}: {error:?}"));
                assert_same(&world.fingerprint(), &before, &format!("{what}, finished and undone"));
            }
        }
    }
}

#[test]
fn a_failed_call_before_the_announcement_leaves_nothing_in_the_hold() {
    without_syncs();
    let world = small(Pretence::default());
    let (_, _, points) = apply_with(&world, &world.exact(), Fault::Nothing);
    let announcement = points.iter().position(|point| *point == Point::JournalWrite).unwrap();
    for (at, point) in points.iter().enumerate().take(announcement + 1) {
        let world = small(Pretence::default());
        let (ok, gate, _) = apply_with(&world, &world.exact(), Fault::Once(at, ENOSPC));
        assert!(!ok && gate.announced.is_none());
        assert_eq!(world.held(), Vec::<String>::new(), "at {at}, {point:?}");
    }
}

#[test]
fn an_undo_that_breaks_anywhere_is_finished_or_taken_back() {
    without_syncs();
    for pretence in pretences() {
        let count = {
            let world = small(pretence);
            let (images, _) = world.apply(&world.exact());
            with_fault(Fault::Nothing, || world.undo(&images, STOP).unwrap()).1
        };
        for at in 0..count.len() {
            for fault in faults(at) {
                let what = format!("{pretence:?} {fault:?} of {} at {:?}", count.len(), count[at]);
                let world = small(pretence);
                let before = world.fingerprint();
                let (images, _) = world.apply(&world.exact());
                let after = world.fingerprint();
                let mut gate = TestGate::default();
                let mut root = world.open();
                let (result, _) = with_fault(fault, || root.undo(&mut *boxed(&images), STOP, &mut gate));
                if gate.announced.is_none() {
                    assert!(result.is_err(), "{what}");
                    assert_same(&world.fingerprint(), &after, &what);
                }
                if at % 2 == 0 {
                    world.undo(&images, IN_DOUBT).unwrap_or_else(|error| panic!("{what}: {error:?}"));
                    assert_same(&world.fingerprint(), &before, &what);
                }
                let (again, _) = world.redo(&images, IN_DOUBT).unwrap_or_else(|error| panic!("{what}: {error:?}"));
                assert_same(&world.fingerprint(), &after, &what);
                world.undo(&again, STOP).unwrap_or_else(|error| panic!("{what}: {error:?}"));
                assert_same(&world.fingerprint(), &before, &what);
            }
        }
    }
}

#[test]
fn a_redo_that_breaks_anywhere_is_undone_or_finished() {
    without_syncs();
    for pretence in pretences() {
        let count = {
            let world = small(pretence);
            let (images, _) = world.apply(&world.exact());
            world.undo(&images, STOP).unwrap();
            with_fault(Fault::Nothing, || world.redo(&images, STOP).unwrap()).1
        };
        for at in 0..count.len() {
            for fault in faults(at) {
                let what = format!("{pretence:?} {fault:?} of {} at {:?}", count.len(), count[at]);
                let world = small(pretence);
                let before = world.fingerprint();
                let (images, _) = world.apply(&world.exact());
                let after = world.fingerprint();
                world.undo(&images, STOP).unwrap();
                let mut gate = TestGate::default();
                let mut root = world.open();
                let (result, _) = with_fault(fault, || root.redo(&mut *boxed(&images), STOP, &mut gate));
                let Some(again) = gate.announced else {
                    assert!(result.is_err(), "{what}");
                    assert_same(&world.fingerprint(), &before, &what);
                    continue;
                };
                if at % 2 == 0 {
                    world.undo(&again, IN_DOUBT).unwrap_or_else(|error| panic!("{what}: {error:?}"));
                    assert_same(&world.fingerprint(), &before, &what);
                }
                let (third, _) = world.redo(&again, IN_DOUBT).unwrap_or_else(|error| panic!("{what}: {error:?}"));
                assert_same(&world.fingerprint(), &after, &what);
                world.undo(&third, STOP).unwrap_or_else(|error| panic!("{what}: {error:?}"));
                assert_same(&world.fingerprint(), &before, &what);
            }
        }
    }
}

#[test]
fn an_undo_of_a_broken_apply_may_break_as_well() {
    without_syncs();
    for pretence in pretences() {
        let world = small(pretence);
        let (_, _, points) = apply_with(&world, &world.exact(), Fault::Nothing);
        let first = points.iter().position(|point| *point == Point::JournalWrite).unwrap();
        for at in first + 1..points.len() {
            for second in (at % 2..60).step_by(2) {
                let what = format!("{pretence:?} apply at {at}, undo at {second}");
                let world = small(pretence);
                let before = world.fingerprint();
                let (_, gate, _) = apply_with(&world, &world.exact(), Fault::Crash(at));
                let images = gate.announced.unwrap();
                let (done, _) = with_fault(Fault::Crash(second), || world.undo(&images, IN_DOUBT).is_ok());
                world.undo(&images, IN_DOUBT).unwrap_or_else(|error| panic!("{what}: {error:?}"));
                assert_same(&world.fingerprint(), &before, &what);
                if done {
                    break;
                }
            }
        }
    }
}
