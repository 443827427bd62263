//! What a command did to a root, found by comparing with a copy of before: undone to the nanosecond, redone, undone again,
//! on every kind of file system.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use backout_files::local::Pretence;
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
    let mut snapshot = Snapshot { directory: world.dir.path().to_owned(), note: serde_json::Value::Null };
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
    let mut snapshot = Snapshot { directory: world.dir.path().to_owned(), note: serde_json::Value::Null };
    snapshot.note = root.snapshot(&snapshot).unwrap();
    for path in ["a/site.db", "a/site.db-wal", "empty/new"] {
        fs::write(world.root().join(path), "changed").unwrap();
    }
    let report = root.compare(&snapshot, "command", &mut TestGate::default()).unwrap();
    assert_eq!(report.summary.changes, 0, "{report:?}");
}
