//! What a command did to a root, found by comparing with a copy of before: undone to the nanosecond, redone, undone again,
//! on every kind of file system.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use backout_files::local::Pretence;
use backout_files::root::Work;
use backout_model::fault::Point;
use backout_model::target::{Probe, Snapshot, Target, Ticket};

use crate::world::*;

const TICKET: Ticket = Ticket { seq: 1, epoch: 1 };

fn worlds() -> Vec<World> {
    let away = Pretence { away: true, ..Pretence::default() };
    let no_exchange = Pretence { no_exchange: true, ..Pretence::default() };
    vec![World::on_disk(), World::in_memory(), World::at(memory(), no_exchange), World::at(memory(), away)]
}

fn there_and_back(world: &World, what: &str, command: impl FnOnce(&Path)) {
    let before = world.fingerprint();
    let mut root = world.open();
    let mut snapshot = Snapshot { directory: world.dir.path().to_owned(), note: serde_json::Value::Null, mark: None };
    snapshot.note = root.snapshot(&snapshot).unwrap();
    assert_same(&world.fingerprint(), &before, what);
    command(&world.root());
    let after = world.fingerprint();
    let mut gate = TestGate::default();
    let report = root.compare(&snapshot, "command", &mut gate).unwrap();
    assert!(report.notes.is_empty(), "{what}: {:?}", report.notes);
    assert_same(&world.fingerprint(), &after, what);
    let images = gate.announced.unwrap();
    assert_eq!(root.probe(TICKET, &mut *boxed(&images)).unwrap(), Probe::Applied);
    assert_eq!(root.verify(&mut *boxed(&images), true).unwrap(), vec![], "{what}");
    let sought = root.check_undo(&mut [boxed(&images)].into_iter(), STOP.on_conflict).unwrap();
    assert!(sought.conflicts.is_empty(), "{what}: {:?}", sought.conflicts);
    world.undo(&images, STOP).unwrap();
    assert_same(&world.fingerprint(), &before, &format!("{what}: undone"));
    let (again, _) = world.redo(&images, STOP).unwrap();
    assert_same(&world.fingerprint(), &after, &format!("{what}: redone"));
    world.undo(&again, STOP).unwrap();
    assert_same(&world.fingerprint(), &before, &format!("{what}: undone again"));
    root.forget(&mut *boxed(&again)).unwrap();
    assert!(!world.hold().exists(), "{what}: {:?}", world.held());
}

fn fill(root: &Path) {
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    for (path, text) in [("a/one", "1"), ("a/b/two", "2"), ("a/b/c/three", "3"), ("top", "top"), ("a.b", "beside")] {
        fs::write(root.join(path), text).unwrap();
    }
    symlink("a/one", root.join("link")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
}

#[test]
fn whatever_a_command_does_comes_and_goes_exactly() {
    for world in worlds() {
        fill(&world.root());
        there_and_back(&world, "in place", |root| {
            use std::io::Write;
            fs::OpenOptions::new().append(true).open(root.join("a/one")).unwrap().write_all(b" more").unwrap();
            fs::write(root.join("top"), "tip").unwrap();
        });
        there_and_back(&world, "a tree goes, another comes", |root| {
            fs::remove_dir_all(root.join("a")).unwrap();
            fs::create_dir_all(root.join("a/x/y")).unwrap();
            fs::write(root.join("a/x/y/z"), "z").unwrap();
            fs::remove_file(root.join("link")).unwrap();
        });
        there_and_back(&world, "rights alone", |root| {
            for (path, mode) in [("a", 0o700), ("a/b", 0o555), ("top", 0o600)] {
                fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
            }
        });
        there_and_back(&world, "nothing but times", |root| {
            fs::write(root.join("a/b/passing"), "").unwrap();
            fs::remove_file(root.join("a/b/passing")).unwrap();
        });
        if !world.pretence.away {
            there_and_back(&world, "other kinds under the same names", |root| {
                fs::remove_dir_all(root.join("a/b")).unwrap();
                fs::write(root.join("a/b"), "a file").unwrap();
                fs::remove_file(root.join("link")).unwrap();
                fs::create_dir(root.join("link")).unwrap();
                fs::write(root.join("link/in"), "in").unwrap();
                fs::remove_dir(root.join("empty")).unwrap();
                symlink("a", root.join("empty")).unwrap();
            });
        }
    }
}

#[test]
fn databases_and_kept_paths_are_left_out() {
    let mut world = World::in_memory();
    world.keep = vec!["empty".to_owned()];
    fill(&world.root());
    fs::write(world.root().join("a/site.db"), "database").unwrap();
    let mut options = world.options();
    options.databases = vec![world.root().join("a/site.db")];
    let mut root = backout_files::local::LocalRoot::open(options).unwrap();
    let mut snapshot = Snapshot { directory: world.dir.path().to_owned(), note: serde_json::Value::Null, mark: None };
    snapshot.note = root.snapshot(&snapshot).unwrap();
    for path in ["a/site.db", "a/site.db-wal", "empty/new"] {
        fs::write(world.root().join(path), "changed").unwrap();
    }
    let report = root.compare(&snapshot, "command", &mut TestGate::default()).unwrap();
    assert_eq!(report.summary.changes, 0, "{report:?}");
}

fn captured(world: &World, command: impl FnOnce(&Path)) -> Vec<u8> {
    let mut root = world.open();
    let mut snapshot = Snapshot { directory: world.dir.path().to_owned(), note: serde_json::Value::Null, mark: None };
    snapshot.note = root.snapshot(&snapshot).unwrap();
    command(&world.root());
    let mut gate = TestGate::default();
    root.compare(&snapshot, "command", &mut gate).unwrap();
    gate.announced.unwrap()
}

type Fingerprint = std::collections::BTreeMap<String, String>;

/// A file of three names: one stays, one goes with an earlier step, one with a directory that goes as one.
fn linked(pretence: Pretence) -> (World, Fingerprint, Vec<u8>) {
    let world = World::at(memory(), pretence);
    fill(&world.root());
    fs::hard_link(world.root().join("a/one"), world.root().join("twin")).unwrap();
    fs::create_dir_all(world.root().join("goes/deep")).unwrap();
    fs::hard_link(world.root().join("a/one"), world.root().join("goes/deep/third")).unwrap();
    for path in ["a/one", "goes/deep", "goes", "."] {
        set_time(&world.root().join(path), 1_700_000_000, 1);
    }
    let paths = vec!["twin".to_owned(), "goes/".to_owned()];
    let before = world.fingerprint();
    let (images, _) = world.apply(&Work::Delete { paths, missing_ok: false });
    (world, before, images)
}

/// What a command may do to a file by one of its names.
type Command = fn(&Path);
const THROUGH_A_NAME: [Command; 5] = [
    |root| fs::write(root.join("a/one"), "written in place").unwrap(),
    |root| fs::set_permissions(root.join("a/one"), fs::Permissions::from_mode(0o600)).unwrap(),
    |root| {
        fs::write(root.join("a/one"), "and gone").unwrap();
        fs::remove_file(root.join("a/one")).unwrap();
    },
    |root| {
        fs::rename(root.join("a/one"), root.join("moved")).unwrap();
        fs::write(root.join("moved"), "moved").unwrap();
    },
    |root| {
        fs::remove_file(root.join("a/one")).unwrap();
        fs::write(root.join("a/one"), "another file").unwrap();
    },
];

#[test]
fn what_is_kept_of_a_file_comes_back_as_it_was_after_a_command_wrote_to_another_of_its_names() {
    for pretence in [Pretence::default(), Pretence { no_exchange: true, ..Pretence::default() }] {
        for (which, command) in THROUGH_A_NAME.iter().enumerate() {
            let what = format!("{pretence:?} command {which}");
            let (world, before, earlier) = linked(pretence);
            let deleted = world.fingerprint();
            let images = captured(&world, command);
            // Without the count of names, for some of them lie in the hold.
            let after = fingerprint(&world.root(), false);
            world.undo(&images, STOP).unwrap();
            assert_same(&world.fingerprint(), &deleted, &what);
            let (again, _) = world.redo(&images, STOP).unwrap();
            assert_same(&fingerprint(&world.root(), false), &after, &what);
            world.undo(&again, STOP).unwrap();
            assert_same(&world.fingerprint(), &deleted, &what);
            world.undo(&earlier, STOP).unwrap();
            assert_same(&world.fingerprint(), &before, &what);
        }
    }
}

/// Commands of one deployment, each of which writes to another file by the same name.
#[test]
fn what_is_kept_follows_through_several_commands() {
    for second in &THROUGH_A_NAME[2..] {
        let (world, before, earlier) = linked(Pretence::default());
        let first = captured(&world, THROUGH_A_NAME[0]);
        let second = captured(&world, second);
        for images in [second, first, earlier] {
            world.undo(&images, STOP).unwrap();
        }
        assert_same(&world.fingerprint(), &before, "undone");
    }
}

/// While the command stays, what comes back is not what was there: a conflict.
#[test]
fn a_kept_file_that_was_changed_by_another_name_is_a_conflict() {
    // Of a directory that is kept as one, contents and times tell, and not rights.
    for (command, total) in THROUGH_A_NAME[..2].iter().zip([2, 1]) {
        let (world, _, earlier) = linked(Pretence::default());
        captured(&world, command);
        let now = world.fingerprint();
        let conflicts = match world.undo(&earlier, STOP) {
            Err(backout_model::target::TargetError::Conflicts(conflicts)) => conflicts,
            other => panic!("{other:?}"),
        };
        assert_eq!((conflicts.total, conflicts.listed[0].object.as_str()), (total, "twin"), "{conflicts:?}");
        assert_same(&world.fingerprint(), &now, "refused");
    }
}

/// Killed, or failed once, at every point of an undo that leads what is kept to another file.
#[test]
fn what_is_kept_of_a_file_follows_it_whatever_breaks() {
    without_syncs();
    let command = THROUGH_A_NAME[0];
    let count = {
        let (world, _, _) = linked(Pretence::default());
        let images = captured(&world, command);
        with_fault(Fault::Nothing, || world.undo(&images, STOP).unwrap()).1
    };
    assert!(count.contains(&Point::Link), "{count:?}");
    for at in 0..count.len() {
        for fault in [Fault::Crash(at), Fault::Once(at, 5)] {
            let what = format!("{fault:?} of {} at {:?}", count.len(), count[at]);
            let (world, before, earlier) = linked(Pretence::default());
            let deleted = world.fingerprint();
            let images = captured(&world, command);
            let mut root = world.open();
            let (result, _) = with_fault(fault, || root.undo(&mut *boxed(&images), STOP, &mut TestGate::default()));
            if result.is_err() {
                world.undo(&images, IN_DOUBT).unwrap_or_else(|error| panic!("{what}: {error:?}"));
            }
            assert_same(&world.fingerprint(), &deleted, &what);
            world.undo(&earlier, STOP).unwrap_or_else(|error| panic!("{what}: {error:?}"));
            assert_same(&world.fingerprint(), &before, &what);
        }
    }
}
