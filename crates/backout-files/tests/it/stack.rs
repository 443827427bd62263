//! Several steps on the same paths: conflicts are sought as if the later ones were undone already.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use backout_files::root::Work;
use backout_model::conflict::{ConflictKind, OnConflict};
use backout_model::target::Target;

use crate::world::*;

fn delete(paths: &[&str]) -> Work {
    Work::Delete { paths: paths.iter().map(|path| (*path).to_owned()).collect(), missing_ok: false }
}

/// Four steps that overlap in every way; images in the order of applying.
fn four_steps(world: &World) -> Vec<Vec<u8>> {
    let package = world.package();
    write(&world.root(), "a", "a0");
    write(&world.root(), "theme/x", "x0");
    write(&package, "a", "a1");
    write(&package, "theme/x", "x1");
    write(&package, "theme/new", "n1");
    write(&package, "fresh/dir/file", "f1");
    let first = world.apply(&world.overlay()).0;
    write(&package, "a", "a2");
    write(&package, "fresh/dir/file", "f2");
    let second = world.apply(&world.overlay()).0;
    let third = world.apply(&delete(&["theme/", "a", "fresh/dir/file"])).0;
    write(&package, "theme/x", "x4");
    fs::remove_file(package.join("theme/new")).unwrap();
    let fourth = world.apply(&world.overlay()).0;
    vec![first, second, third, fourth]
}

#[test]
fn steps_that_overlap_are_undone_one_after_the_other() {
    let world = World::in_memory();
    write(&world.root(), "a", "a0");
    write(&world.root(), "theme/x", "x0");
    let before = world.fingerprint();
    let steps = four_steps(&world);
    let after = world.fingerprint();
    let mut latest_first = steps.iter().rev().map(|images| boxed(images));
    let report = world.open().check_undo(&mut latest_first, OnConflict::Stop).unwrap();
    assert!(report.conflicts.is_empty() && report.notes.is_empty(), "{report:?}");
    assert_same(&world.fingerprint(), &after, "after looking for conflicts");
    for images in steps.iter().rev() {
        let report = world.undo(images, STOP).unwrap();
        assert!(report.conflicts.is_empty() && report.notes.is_empty(), "{report:?}");
    }
    // `four_steps` wrote the files anew before its first step, and so the time of the root's own directory.
    let (mut now, mut then) = (world.fingerprint(), before);
    for tree in [&mut now, &mut then] {
        tree.retain(|key, text| key != "." && !text.starts_with("mode 100"));
    }
    assert_same(&now, &then, "after all undos");
    assert_eq!(fs::read_to_string(world.root().join("theme/x")).unwrap(), "x0");
    let mut images = Vec::new();
    for step in &steps {
        images.push(world.redo(step, STOP).unwrap().0);
    }
    assert_same(&world.fingerprint(), &after, "after all redos");
    for step in images.iter().rev() {
        world.undo(step, STOP).unwrap();
    }
    assert_eq!(fs::read_to_string(world.root().join("a")).unwrap(), "a0");
}

#[test]
fn an_earlier_step_alone_meets_what_the_later_ones_did() {
    let world = World::in_memory();
    let steps = four_steps(&world);
    let mut first_only = [boxed(&steps[0])].into_iter();
    let report = world.open().check_undo(&mut first_only, OnConflict::Stop).unwrap();
    let mut objects: Vec<&str> = report.conflicts.listed.iter().map(|conflict| conflict.object.as_str()).collect();
    objects.sort_unstable();
    assert_eq!(objects, ["a", "fresh/dir/file", "theme/x"], "{report:?}");
}

#[test]
fn a_conflict_in_one_of_several_steps_is_found_beforehand() {
    let world = World::in_memory();
    let steps = four_steps(&world);
    write(&world.root(), "theme/x", "by hand");
    let mut latest_first = steps.iter().rev().map(|images| boxed(images));
    let report = world.open().check_undo(&mut latest_first, OnConflict::Stop).unwrap();
    assert!(report.conflicts.listed.iter().any(|c| c.object == "theme/x" && c.kind == ConflictKind::Changed));
}

#[test]
fn a_directory_that_stays_for_others_files_is_found_in_the_way_beforehand() {
    for (theirs, expected) in [("theme/upload", vec!["theme"]), ("theme/deep/upload", vec!["theme"]), ("other", vec![])]
    {
        let world = World::in_memory();
        let package = world.package();
        write(&world.root(), "theme/x", "x0");
        let gone = world.apply(&delete(&["theme/"])).0;
        write(&package, "theme/deep/y", "y1");
        let made = world.apply(&world.overlay()).0;
        fs::remove_file(package.join("theme/deep/y")).unwrap();
        write(&package, "theme/z", "z2");
        let more = world.apply(&world.overlay()).0;
        let emptied = world.apply(&delete(&["theme/deep/y"])).0;
        write(&world.root(), theirs, "a visitor's");
        let steps = [gone, made, more, emptied];
        let mut latest_first = steps.iter().rev().map(|images| boxed(images));
        let report = world.open().check_undo(&mut latest_first, OnConflict::Stop).unwrap();
        let found: Vec<&str> = report.conflicts.listed.iter().map(|conflict| conflict.object.as_str()).collect();
        assert_eq!(found, expected, "{theirs}: {report:?}");
        for images in steps.iter().skip(1).rev() {
            world.undo(images, STOP).unwrap();
        }
        let last = world.undo(&steps[0], STOP);
        assert_eq!(last.is_err(), !expected.is_empty(), "{theirs}");
    }
}

/// Rights that others changed go over to what a later step's undo brings back; an earlier step that changed them, too,
/// meets them there.
#[test]
fn rights_that_are_carried_over_are_met_by_the_steps_before_beforehand() {
    let world = World::in_memory();
    let package = world.package();
    let mode = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let mut steps = Vec::new();
    write(&world.root(), "a", "a0");
    mode(&world.root().join("a"), 0o644);
    for (content, rights) in [("a1", 0o600), ("a2", 0o755), ("a3", 0o755)] {
        write(&package, "a", content);
        mode(&package.join("a"), rights);
        steps.push(world.apply(&world.overlay()).0);
    }
    mode(&world.root().join("a"), 0o640);
    let mut latest_first = steps.iter().rev().map(|images| boxed(images));
    let report = world.open().check_undo(&mut latest_first, OnConflict::Stop).unwrap();
    let found: Vec<_> =
        report.conflicts.listed.iter().map(|one| (one.object.as_str(), one.column.as_deref())).collect();
    assert_eq!(found.first(), Some(&("a", Some("mode"))), "{report:?}");
    world.undo(&steps[2], STOP).unwrap();
    world.undo(&steps[1], STOP).unwrap_err();
}
