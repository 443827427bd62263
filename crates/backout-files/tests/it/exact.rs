//! After undo everything is as before, to the nanosecond; after redo as after the deployment.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use backout_files::local::Pretence;
use backout_files::root::{Root, Work};
use backout_model::target::{Probe, Target, Ticket};

use crate::world::*;

const TICKET: Ticket = Ticket { seq: 1, epoch: 1 };

fn worlds() -> Vec<World> {
    let away = Pretence { away: true, ..Pretence::default() };
    let no_exchange = Pretence { no_exchange: true, ..Pretence::default() };
    vec![
        World::on_disk(),
        World::in_memory(),
        World::at(memory(), no_exchange),
        World::at(&std::env::temp_dir(), no_exchange),
        World::at(memory(), away),
    ]
}

/// Deploys, undoes, redoes, undoes again, and compares after each.
fn there_and_back(world: &World, work: &Work) {
    let before = world.fingerprint();
    let (images, report) = world.apply(work);
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    assert!(report.summary.changes > 0);
    let after = world.fingerprint();
    assert_ne!(before, after);
    let mut root = world.open();
    assert_eq!(root.probe(TICKET, &mut *boxed(&images)).unwrap(), Probe::Applied);
    assert_eq!(root.verify(&mut *boxed(&images), true).unwrap(), vec![]);
    let sought = root.check_undo(&mut [boxed(&images)].into_iter(), STOP.on_conflict).unwrap();
    assert!(sought.conflicts.is_empty(), "{:?}", sought.conflicts);

    let report = world.undo(&images, STOP).unwrap();
    assert!(report.notes.is_empty() && report.conflicts.is_empty(), "{report:?}");
    assert_same(&world.fingerprint(), &before, "after undo");
    assert_eq!(root.probe(TICKET, &mut *boxed(&images)).unwrap(), Probe::NotApplied);
    assert_eq!(root.verify(&mut *boxed(&images), false).unwrap(), vec![]);

    let (again, report) = world.redo(&images, STOP).unwrap();
    assert!(report.notes.is_empty() && report.conflicts.is_empty(), "{report:?}");
    assert_same(&world.fingerprint(), &after, "after redo");
    assert_eq!(root.probe(TICKET, &mut *boxed(&again)).unwrap(), Probe::Applied);

    world.undo(&again, STOP).unwrap();
    assert_same(&world.fingerprint(), &before, "after the second undo");

    root.forget(&mut *boxed(&again)).unwrap();
    assert!(!world.hold().exists(), "{:?}", world.held());
}

#[test]
fn an_overlay_comes_and_goes_exactly() {
    for world in worlds() {
        furnish(&world.root());
        pack(&world.package());
        there_and_back(&world, &world.overlay());
    }
}

#[test]
fn an_exact_overlay_comes_and_goes_exactly() {
    for mut world in worlds() {
        furnish(&world.root());
        pack(&world.package());
        world.keep = vec!["uploads/2026".to_owned()];
        let kept = fs::symlink_metadata(world.root().join("uploads/2026/photo.jpg")).unwrap().ino();
        there_and_back(&world, &world.exact());
        assert_eq!(fs::symlink_metadata(world.root().join("uploads/2026/photo.jpg")).unwrap().ino(), kept);
    }
}

#[test]
fn exact_leaves_the_package_and_what_is_kept() {
    let mut world = World::in_memory();
    furnish(&world.root());
    pack(&world.package());
    world.keep = vec!["uploads/2026".to_owned(), "old/deep/er".to_owned()];
    world.apply(&world.exact());
    let names: Vec<String> =
        world.fingerprint().into_keys().map(|key| key.split('|').next().unwrap().to_owned()).collect();
    for gone in ["old/page.php", "dangling", "empty", "twins/two"] {
        assert!(!names.iter().any(|name| name == gone), "{gone} is still there");
    }
    for kept in ["uploads/2026/photo.jpg", "old/deep/er/page.php", "new/empty", "same.txt"] {
        assert!(names.iter().any(|name| name == kept), "{kept} is gone");
    }
}

#[test]
fn deletions_come_and_go_exactly() {
    for world in worlds() {
        furnish(&world.root());
        let paths = ["old/", "css/site.css", "style", "empty/", "old/page.php", "twins/one", "none", "read-only.txt"];
        let work = Work::Delete { paths: paths.map(str::to_owned).to_vec(), missing_ok: true };
        there_and_back(&world, &work);
    }
}

#[test]
fn a_first_deployment_into_an_empty_root_comes_and_goes() {
    for world in worlds() {
        pack(&world.package());
        there_and_back(&world, &world.overlay());
    }
}

#[test]
fn many_files_take_the_way_of_one_sync() {
    let world = World::on_disk();
    for i in 0..200 {
        write(&world.root(), format!("d{}/f{i}", i % 50), format!("old {i}"));
        write(&world.package(), format!("d{}/f{i}", i % 50), format!("new {i}"));
    }
    there_and_back(&world, &world.overlay());
}

#[test]
fn new_content_arrives_with_the_rights_of_what_was_there() {
    let world = World::on_disk();
    furnish(&world.root());
    pack(&world.package());
    let list = access_list(1234, 6);
    world.apply(&world.overlay());
    let root = world.root();
    let meta = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
    assert_eq!(fs::read_to_string(root.join("index.php")).unwrap(), "<?php new index, longer");
    assert_eq!(meta("bin/tool").mode() & 0o7777, 0o4755, "setuid is kept");
    assert_eq!(meta("read-only.txt").mode() & 0o7777, 0o444);
    assert_eq!(meta("new/deep").mode() & 0o7777, 0o750);
    assert_eq!(meta("new/pair-a").ino(), meta("new/pair-b").ino(), "hard links among the changed files stay");
    assert_ne!(meta("twins/one").ino(), meta("twins/two").ino());
    let packaged = fs::symlink_metadata(world.package().join("css/site.css")).unwrap();
    assert_eq!(
        (meta("css/site.css").mtime(), meta("css/site.css").mtime_nsec()),
        (packaged.mtime(), packaged.mtime_nsec())
    );
    assert!(meta("sparse.img").blocks() * 512 < meta("sparse.img").len(), "holes stay holes");
    let mut value = vec![0; 4096];
    let length = rustix::fs::lgetxattr(root.join("css/print.css"), "system.posix_acl_access", &mut value[..]).unwrap();
    assert_eq!(value[16..20], list[16..20], "the access list of the old file");
    assert!(length >= list.len());
    let length = rustix::fs::lgetxattr(root.join("index.php"), "user.origin", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"package");
    if is_root() {
        assert_eq!((meta("index.php").uid(), meta("index.php").gid()), (33, 33));
        assert_eq!((meta("style").uid(), meta("style").gid()), (33, 34));
    }
    let held = fs::symlink_metadata(world.hold()).unwrap();
    assert_eq!(held.mode() & 0o7777, 0o700, "nobody else reads the hold");
}

#[test]
fn new_files_take_owner_and_lists_from_their_directory() {
    let world = World::on_disk();
    let dir = world.root().join("shared");
    fs::create_dir(&dir).unwrap();
    set_attribute(&dir, "system.posix_acl_default", &access_list(1234, 6));
    if is_root() {
        std::os::unix::fs::chown(&dir, Some(40), Some(41)).unwrap();
    }
    mode(&dir, 0o2775);
    write(&world.package(), "shared/new/file", "x");
    there_and_back(&world, &world.overlay());
    world.apply(&world.overlay());
    let new = fs::symlink_metadata(dir.join("new")).unwrap();
    let file = fs::symlink_metadata(dir.join("new/file")).unwrap();
    assert_eq!(new.mode() & 0o2000, 0o2000, "setgid passes on");
    if is_root() {
        assert_eq!((file.uid(), file.gid(), new.uid(), new.gid()), (40, 41, 40, 41));
    }
    let mut value = vec![0; 4096];
    rustix::fs::lgetxattr(dir.join("new"), "system.posix_acl_default", &mut value[..]).unwrap();
    for path in [dir.join("new/file"), dir.join("new")] {
        rustix::fs::lgetxattr(&path, "system.posix_acl_access", &mut value[..]).unwrap();
        assert_eq!(value[16..20], 1234_u32.to_le_bytes(), "{}", path.display());
    }
}

#[test]
fn what_is_the_same_already_is_left_alone() {
    let world = World::in_memory();
    furnish(&world.root());
    pack(&world.package());
    world.apply(&world.overlay());
    let after = world.fingerprint();
    let (images, report) = world.apply(&world.overlay());
    assert_eq!(report.summary.changes, 0, "{:?}", report.summary);
    assert_same(&world.fingerprint(), &after, "a second deployment of the same");
    world.undo(&images, STOP).unwrap();
    assert_same(&world.fingerprint(), &after, "and its undo");
    assert_eq!(world.held().len(), 1, "a step without changes keeps nothing");
}

#[test]
fn a_change_of_mode_alone_is_a_change() {
    for world in worlds() {
        mode(&write(&world.root(), "run.sh", "same"), 0o644);
        mode(&write(&world.package(), "run.sh", "same"), 0o755);
        there_and_back(&world, &world.overlay());
        world.apply(&world.overlay());
        let meta = fs::symlink_metadata(world.root().join("run.sh")).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, 0o755);
    }
}

#[test]
fn other_content_never_has_the_old_time() {
    let world = World::in_memory();
    let live = write(&world.root(), "page.php", "old");
    let new = write(&world.package(), "page.php", "new");
    for path in [&live, &new] {
        set_time(path, 1_700_000_000, 5);
    }
    there_and_back(&world, &world.overlay());
    world.apply(&world.overlay());
    assert_ne!(fs::symlink_metadata(&live).unwrap().mtime(), 1_700_000_000);
}

#[test]
fn the_old_inode_itself_comes_back() {
    let world = World::on_disk();
    write(&world.root(), "page.php", "old");
    fs::hard_link(world.root().join("page.php"), world.dir.path().join("outside")).unwrap();
    write(&world.package(), "page.php", "new");
    let ino = fs::symlink_metadata(world.root().join("page.php")).unwrap().ino();
    let (images, _) = world.apply(&world.overlay());
    world.undo(&images, STOP).unwrap();
    let meta = fs::symlink_metadata(world.root().join("page.php")).unwrap();
    assert_eq!((meta.ino(), meta.nlink()), (ino, 2), "the hard link from outside still is one");
}

#[test]
fn links_replace_files_and_files_links() {
    for world in worlds() {
        write(&world.root(), "file", "was a file");
        symlink("file", world.root().join("link")).unwrap();
        fs::create_dir(world.root().join("dir")).unwrap();
        symlink("dir", world.root().join("to-dir")).unwrap();
        symlink("elsewhere", world.package().join("file")).unwrap();
        write(&world.package(), "link", "is a file");
        write(&world.package(), "to-dir", "is a file");
        there_and_back(&world, &world.overlay());
    }
}

#[test]
fn a_plan_names_every_change_and_makes_none() {
    let world = World::in_memory();
    furnish(&world.root());
    pack(&world.package());
    let before = world.fingerprint();
    let mut changes = Vec::new();
    let summary = world.open().plan(&world.overlay(), &mut |change| changes.push(change.change)).unwrap();
    assert_eq!(summary.changes as usize, changes.len());
    for wanted in
        ["replace index.php", "add new/page.php", "make directory new/empty", "replace caf\\xe9\\x5c\\x0a.txt"]
    {
        assert!(changes.iter().any(|change| change == wanted), "{wanted} in {changes:#?}");
    }
    assert!(!changes.iter().any(|change| change.contains("same.txt")));
    assert_same(&world.fingerprint(), &before, "after a plan");
    assert!(!world.hold().exists());
    let (_, report) = world.apply(&world.overlay());
    assert_eq!(report.summary.changes as usize, changes.len(), "the plan and what came of it");
}

#[test]
fn the_hold_passes_no_access_list_on() {
    let world = World::on_disk();
    set_attribute(world.dir.path(), "system.posix_acl_default", &access_list(1234, 6));
    write(&world.root(), "dir/old", "old");
    let package = tempfile::tempdir().unwrap();
    for path in ["dir/old", "dir/new", "made/new"] {
        write(package.path(), path, "new");
    }
    there_and_back(&world, &Work::Overlay { source: package.path().to_owned(), exact: false });
    world.apply(&Work::Overlay { source: package.path().to_owned(), exact: false });
    for path in [world.root().join("dir/old"), world.root().join("dir/new"), world.root().join("made"), world.hold()] {
        let mut value = vec![0; 4096];
        for name in ["system.posix_acl_access", "system.posix_acl_default"] {
            let found = rustix::fs::lgetxattr(&path, name, &mut value[..]);
            assert_eq!(found, Err(rustix::io::Errno::NODATA), "{name} of {}", path.display());
        }
    }
}
