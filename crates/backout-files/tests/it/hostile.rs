//! What is refused, and what must not lead out of the root.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backout_files::local::LocalRoot;
use backout_files::root::{Root, Work};
use backout_model::target::{Refusal, TargetError};

use crate::world::*;

/// Plan and apply refuse alike, and nothing is touched.
#[track_caller]
fn refused(world: &World, work: &Work, why: &str) -> Refusal {
    let before = fingerprint(world.dir.path(), true);
    let mut root = world.open();
    let Err(TargetError::Refused(planned)) = root.plan(work, &mut |_| {}) else { panic!("the plan is not refused") };
    let mut gate = TestGate::default();
    let Err(TargetError::Refused(refusal)) = root.apply(work, &mut gate) else { panic!("it is not refused") };
    assert_eq!(planned, refusal);
    assert!(refusal.to_string().contains(why), "{refusal}");
    assert!(!refusal.ways_out.is_empty());
    assert!(gate.announced.is_none());
    let mut after = fingerprint(world.dir.path(), true);
    // The hold came and went beside the root.
    let mut then = before;
    for tree in [&mut then, &mut after] {
        tree.retain(|key, _| key != "." && !key.starts_with(".backout-"));
    }
    assert_same(&after, &then, "after a refusal");
    refusal
}

fn delete(paths: &[&str]) -> Work {
    Work::Delete { paths: paths.iter().map(|path| (*path).to_owned()).collect(), missing_ok: false }
}

#[test]
fn a_file_over_a_directory_and_a_directory_over_a_file() {
    let world = World::in_memory();
    write(&world.root(), "thing/inside", "x");
    write(&world.package(), "a-first", "staged before the refusal");
    write(&world.package(), "thing", "a file");
    refused(&world, &world.overlay(), "a file over a directory");

    let world = World::in_memory();
    write(&world.root(), "thing", "a file");
    write(&world.package(), "thing/inside", "x");
    refused(&world, &world.overlay(), "a directory over a file");

    let world = World::in_memory();
    fs::create_dir(world.dir.path().join("outside")).unwrap();
    symlink("../outside", world.root().join("thing")).unwrap();
    write(&world.package(), "thing/inside", "x");
    refused(&world, &world.overlay(), "a directory over a symbolic link");
}

#[test]
fn special_files_of_a_package() {
    let world = World::in_memory();
    rustix::fs::mkfifoat(rustix::fs::CWD, world.package().join("pipe"), rustix::fs::Mode::from_raw_mode(0o644))
        .unwrap();
    refused(&world, &world.overlay(), "FIFO, socket or device");
}

#[test]
fn kept_paths() {
    let mut world = World::in_memory();
    world.keep = vec!["sites/files".to_owned(), "config.php".to_owned()];
    write(&world.root(), "sites/files/photo", "kept");
    write(&world.root(), "config.php", "kept");
    write(&world.package(), "sites/files/new", "x");
    let refusal = refused(&world, &world.overlay(), "beneath the keep path sites/files");
    assert_eq!(refusal.what, "sites/files/new");
    fs::remove_file(world.package().join("sites/files/new")).unwrap();
    write(&world.package(), "config.php", "x");
    refused(&world, &world.overlay(), "is a keep path");
    fs::remove_file(world.package().join("config.php")).unwrap();
    write(&world.package(), "index.php", "x");
    // An empty directory where something is kept changes nothing, not even under `exact`.
    world.apply(&world.exact());
    assert_eq!(fs::read_to_string(world.root().join("sites/files/photo")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(world.root().join("config.php")).unwrap(), "kept");
    refused(&world, &delete(&["sites/"]), "holds the keep path sites/files");
    refused(&world, &delete(&["sites/files/"]), "is a keep path");
    refused(&world, &delete(&["sites/files/photo"]), "beneath the keep path");
}

#[test]
fn paths_that_leave_the_root() {
    let world = World::in_memory();
    write(world.dir.path(), "outside/secret", "untouched");
    symlink("../outside", world.root().join("out")).unwrap();
    write(&world.root(), "here", "x");
    for path in ["../outside/secret", "/etc/passwd", "a/../../outside/secret", "", "/", ".", "..", "a//b", "./here"] {
        refused(&world, &delete(&[path]), "is refused");
    }
    refused(&world, &delete(&["here", "out/secret"]), "symbolic link");
    refused(&world, &delete(&["out/"]), "symbolic link");
    refused(&world, &delete(&["missing"]), "no such path");
    refused(&world, &delete(&["here/"]), "no directory");
    fs::create_dir(world.root().join("dir")).unwrap();
    let refusal = refused(&world, &delete(&["dir"]), "is a directory");
    assert!(refusal.ways_out[0].contains("`dir/`"), "{refusal:?}");
}

#[test]
fn a_link_is_deleted_and_not_what_it_leads_to() {
    let world = World::in_memory();
    write(world.dir.path(), "outside/secret", "untouched");
    symlink("../outside", world.root().join("out")).unwrap();
    world.apply(&delete(&["out"]));
    assert!(fs::symlink_metadata(world.root().join("out")).is_err());
    assert_eq!(fs::read_to_string(world.dir.path().join("outside/secret")).unwrap(), "untouched");
}

#[test]
fn a_missing_package_or_root_is_an_error() {
    let world = World::in_memory();
    let work = Work::Overlay { source: world.dir.path().join("none"), exact: false };
    assert!(matches!(world.open().plan(&work, &mut |_| {}), Err(TargetError::Failed { .. })));
    let mut gate = TestGate::default();
    assert!(world.open().apply(&work, &mut gate).is_err());
    let mut options = world.options();
    options.path = world.dir.path().join("none");
    assert!(matches!(LocalRoot::open(options), Err(TargetError::Failed { .. })));
    let mut options = world.options();
    options.keep = vec!["../outside".to_owned()];
    assert!(matches!(LocalRoot::open(options), Err(TargetError::Refused(_))));
}

#[test]
fn a_hold_that_others_may_look_into_is_not_used() {
    let world = World::in_memory();
    write(&world.root(), "a", "old");
    write(&world.package(), "a", "new");
    fs::create_dir(world.hold()).unwrap();
    mode(&world.hold(), 0o777);
    let mut gate = TestGate::default();
    let error = world.open().apply(&world.overlay(), &mut gate).unwrap_err();
    assert!(gate.announced.is_none() && error.to_string().contains("hold"), "{error}");
    if is_root() {
        mode(&world.hold(), 0o700);
        std::os::unix::fs::chown(world.hold(), Some(1234), None).unwrap();
        assert!(world.open().apply(&world.overlay(), &mut gate).is_err());
    }
    fs::remove_dir(world.hold()).unwrap();
    symlink("package", world.hold()).unwrap();
    assert!(world.open().apply(&world.overlay(), &mut gate).is_err(), "a link in place of the hold");
    assert_eq!(fs::read_dir(world.package()).unwrap().count(), 1);
}

#[test]
fn a_directory_that_may_not_be_written_to_is_refused_beforehand() {
    if is_root() {
        eprintln!("not tested: root may write anywhere; run the suite as another user as well");
        return;
    }
    let world = World::in_memory();
    write(&world.root(), "locked/file", "old");
    write(&world.package(), "locked/file", "new");
    mode(&world.root().join("locked"), 0o555);
    refused(&world, &world.overlay(), "may not change");
    refused(&world, &delete(&["locked/file"]), "may not change");
    refused(&world, &delete(&["locked/"]), "may not change");
    mode(&world.root().join("locked"), 0o755);
}

#[test]
fn a_link_swapped_in_after_the_announcement_is_not_followed() {
    let world = World::in_memory();
    write(&world.root(), "a", "old");
    write(&world.root(), "dir/b", "old");
    write(&world.package(), "a", "new");
    write(&world.package(), "dir/b", "new");
    write(&world.package(), "dir/c", "new");
    write(world.dir.path(), "outside/b", "untouched");
    let before = world.fingerprint();
    let (root, outside) = (world.root(), world.dir.path().join("outside"));
    let meanwhile = move || {
        fs::rename(root.join("dir"), root.join("../dir.moved")).unwrap();
        symlink("../outside", root.join("dir")).unwrap();
    };
    let mut gate = TestGate { meanwhile: Some(Box::new(meanwhile)), ..TestGate::default() };
    let error = world.open().apply(&world.overlay(), &mut gate).unwrap_err();
    assert!(error.to_string().contains("dir/"), "{error}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(outside.join("b")).unwrap(), "untouched");
    // What was placed goes back; what was not is no conflict, link or not.
    let images = gate.announced.unwrap();
    world.undo(&images, IN_DOUBT).unwrap();
    fs::remove_file(world.root().join("dir")).unwrap();
    fs::rename(world.dir.path().join("dir.moved"), world.root().join("dir")).unwrap();
    world.undo(&images, IN_DOUBT).unwrap();
    let mut now = world.fingerprint();
    let mut then = before;
    now.remove(".");
    then.remove(".");
    assert_same(&now, &then, "after undoing");
}

#[test]
fn a_directory_that_flips_to_a_link_all_the_time_leads_nowhere() {
    let world = World::in_memory();
    let outside = world.dir.path().join("outside");
    for i in 0..40 {
        write(&world.root(), format!("dir/f{i}"), "old");
        write(&outside, format!("f{i}"), "untouched");
    }
    fs::create_dir(world.dir.path().join("away")).unwrap();
    symlink("../outside", world.dir.path().join("away/link")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, live, away) = (stop.clone(), world.root().join("dir"), world.dir.path().join("away/link"));
    let flipping = std::thread::spawn(move || {
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        let mut flips = 0_u64;
        while !stopped.load(Ordering::Relaxed) || flips % 2 == 1 {
            rustix::fs::renameat_with(rustix::fs::CWD, &live, rustix::fs::CWD, &away, flags).unwrap();
            flips += 1;
        }
        flips
    });
    let (mut worked, mut failed) = (0, 0);
    for round in 0..300 {
        for i in 0..40 {
            write(&world.package(), format!("dir/f{i}"), format!("round {round}"));
        }
        let mut gate = TestGate::default();
        match with_fault(Fault::Nothing, || world.open().apply(&world.overlay(), &mut gate)).0 {
            Ok(_) => worked += 1,
            Err(_) => failed += 1,
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(flipping.join().unwrap() > 0);
    assert!(failed > 0, "the race was never met: {worked} worked");
    for i in 0..40 {
        assert_eq!(fs::read_to_string(outside.join(format!("f{i}"))).unwrap(), "untouched");
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 40);
}

#[test]
fn forged_images_are_an_error_and_lead_nowhere() {
    let world = World::in_memory();
    write(&world.root(), "a", "old");
    write(&world.package(), "a", "new");
    let (images, _) = world.apply(&world.overlay());
    let now = world.fingerprint();
    for forged in [
        images[..images.len() / 2].to_vec(),
        Vec::new(),
        String::from_utf8(images.clone()).unwrap().replace("\"path\":\"a\"", "\"path\":\"../a\"").into_bytes(),
        String::from_utf8(images.clone()).unwrap().replace("\"path\":\"a\"", "\"path\":\"b\"").into_bytes(),
    ] {
        assert!(matches!(world.undo(&forged, STOP), Err(TargetError::Images { .. })));
        assert!(matches!(world.redo(&forged, STOP), Err(TargetError::Images { .. })));
    }
    assert_same(&world.fingerprint(), &now, "after forged images");
}
