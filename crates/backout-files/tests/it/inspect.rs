//! What is asked of a root without changing it: checks, descriptions, verification, what works.

use std::fs;
use std::os::unix::fs::symlink;

use backout_files::root::{FileCondition, Root};
use backout_model::target::{Probe, Target, TargetError, Ticket};

use crate::world::*;

fn deployed() -> (World, Vec<u8>) {
    let world = World::in_memory();
    furnish(&world.root());
    pack(&world.package());
    let (images, _) = world.apply(&world.overlay());
    (world, images)
}

/// The file in the hold that keeps `content`.
fn kept(world: &World, content: &str) -> std::path::PathBuf {
    let step = world.hold().join(&world.held()[0]);
    fs::read_dir(step)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| fs::read(path).is_ok_and(|found| found == content.as_bytes()))
        .unwrap()
}

#[test]
fn verify_tells_damage_from_drift() {
    let (world, images) = deployed();
    let mut root = world.open();
    assert_eq!(root.verify(&mut *boxed(&images), true).unwrap(), vec![]);

    write(&world.root(), "css/print.css", "by hand");
    let findings = root.verify(&mut *boxed(&images), true).unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(!findings[0].grave && findings[0].what.starts_with("css/print.css: "), "{findings:?}");

    let old = kept(&world, "<?php old index");
    let time = fs::metadata(&old).unwrap().modified().unwrap();
    fs::write(&old, "<?php OLD index").unwrap();
    fs::File::options().write(true).open(&old).unwrap().set_modified(time).unwrap();
    fs::remove_file(kept(&world, "body { color: black }")).unwrap();
    let findings = root.verify(&mut *boxed(&images), true).unwrap();
    let grave: Vec<_> = findings.iter().filter(|finding| finding.grave).collect();
    assert_eq!(grave.len(), 2, "{findings:?}");
}

#[test]
fn what_the_hold_lost_is_an_error_before_anything_changes() {
    let (world, images) = deployed();
    fs::remove_file(kept(&world, "body { color: black }")).unwrap();
    let now = world.fingerprint();
    let error = world.undo(&images, STOP).unwrap_err();
    assert!(matches!(error, TargetError::Failed { .. }), "{error:?}");
    let error = world.open().check_undo(&mut [boxed(&images)].into_iter(), STOP.on_conflict).unwrap_err();
    assert!(error.to_string().contains("css/site.css"), "{error}");
    assert_same(&world.fingerprint(), &now, "after an undo without one file");
    fs::remove_dir_all(world.hold()).unwrap();
    let now = world.fingerprint();
    assert!(world.undo(&images, STOP).is_err());
    assert!(world.undo(&images, IN_DOUBT).is_err());
    assert_same(&world.fingerprint(), &now, "after an undo without a hold");
}

#[test]
fn a_step_is_described_in_the_order_of_its_changes() {
    let (world, images) = deployed();
    let mut lines = Vec::new();
    world
        .open()
        .describe(&mut *boxed(&images), &mut |described| lines.push((described.change, described.undo)))
        .unwrap();
    let at = |change: &str| lines.iter().position(|line| line.0 == change).unwrap_or_else(|| panic!("{lines:#?}"));
    assert!(at("make directory new") < at("add new/page.php"));
    assert_eq!(lines[at("replace style")].1, "puts back the file that was there");
    assert_eq!(lines[at("add link new/link")].1, "removes the link");
}

#[test]
fn forgetting_and_sweeping_leave_only_what_is_needed() {
    let (world, first) = deployed();
    write(&world.package(), "index.php", "a third one");
    let (second, report) = world.apply(&world.overlay());
    let needed = report.summary.note["hold"].as_str().unwrap().to_owned();
    assert_eq!(world.held().len(), 2);
    fs::create_dir(world.hold().join("notes of a person")).unwrap();
    assert_eq!(world.open().sweep(&[needed]).unwrap(), 1);
    assert!(world.undo(&first, STOP).is_err());
    world.undo(&second, STOP).unwrap();
    world.open().forget(&mut *boxed(&second)).unwrap();
    world.open().forget(&mut *boxed(&second)).unwrap();
    assert_eq!(world.held(), ["notes of a person"]);
}

#[test]
fn forgetting_removes_deep_and_locked_directories() {
    let world = World::in_memory();
    let mut deep = world.root().join("tree");
    for _ in 0..300 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "x").unwrap();
    mode(&world.root().join("tree/d"), 0o500);
    let work = backout_files::root::Work::Delete { paths: vec!["tree/".to_owned()], missing_ok: false };
    let (images, _) = world.apply(&work);
    world.open().forget(&mut *boxed(&images)).unwrap();
    assert!(!world.hold().exists());
}

#[test]
fn a_probe_knows_nothing_of_an_undo_s_own_images() {
    let world = World::in_memory();
    let ticket = Ticket { seq: 1, epoch: 1 };
    assert_eq!(world.open().probe(ticket, &mut *boxed(b"")).unwrap(), Probe::Partly);
}

#[test]
fn others_changes_do_not_confuse_a_probe() {
    let (world, images) = deployed();
    write(&world.root(), "index.php", "by hand, after the deployment");
    let ticket = Ticket { seq: 1, epoch: 1 };
    assert_eq!(world.open().probe(ticket, &mut *boxed(&images)).unwrap(), Probe::Applied);
}

#[test]
fn an_examination_leaves_no_trace() {
    for world in [World::on_disk(), World::in_memory()] {
        let findings = world.open().examine().unwrap();
        assert!(findings.iter().all(|finding| !finding.grave), "{findings:?}");
        assert!(!world.hold().exists());
    }
    let away = backout_files::local::Pretence { away: true, ..Default::default() };
    let world = World::at(memory(), away);
    let findings = world.open().examine().unwrap();
    assert!(findings.iter().any(|finding| finding.what.contains("another file system")), "{findings:?}");
    assert!(!world.hold().exists());
    assert!(!world.hold().parent().unwrap().exists(), "nor the directory above, which it made too");
}

#[test]
fn conditions_say_what_they_found() {
    let world = World::in_memory();
    write(&world.root(), "dir/file", "hello world");
    // Longer than one piece, with the text across the border of two.
    let long = format!("{}needle{}", "x".repeat(65_533), "y".repeat(100_000));
    write(&world.root(), "long", &long);
    symlink("file", world.root().join("dir/link")).unwrap();
    symlink("dir", world.root().join("link")).unwrap();
    let mut root = world.open();
    let exists = |exists| FileCondition { exists: Some(exists), ..FileCondition::default() };
    let contains = |text: &str| FileCondition { contains: Some(text.to_owned()), ..FileCondition::default() };
    let sha256 = |sum: &str| FileCondition { sha256: Some(sum.to_owned()), ..FileCondition::default() };
    let sum = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";
    for (path, condition, holds) in [
        ("dir/file", exists(true), true),
        ("dir/file", exists(false), false),
        ("dir", exists(true), true),
        ("none", exists(true), false),
        ("none", exists(false), true),
        ("none/deeper", exists(false), true),
        ("dir/link", exists(true), true),
        ("dir/file", contains("lo wo"), true),
        ("dir/file", contains("lo  wo"), false),
        ("long", contains("needle"), true),
        ("long", contains("needles"), false),
        ("dir", contains("x"), false),
        ("dir/link", contains("hello"), false),
        ("link/file", exists(true), false),
        ("none", contains("x"), false),
        ("dir/file", sha256(sum), true),
        ("dir/file", sha256(&sum.to_uppercase()), true),
        ("dir/file", sha256(&sum.replace('b', "c")), false),
    ] {
        let found = root.check(path, &condition).unwrap();
        assert_eq!(found.is_none(), holds, "{path} {condition:?}: {found:?}");
    }
    assert!(matches!(root.check("../world", &exists(true)), Err(TargetError::Refused(_))));
}

/// Images of version 1 as they were first written. Every later version must read them.
#[test]
fn the_first_version_of_images_is_read_for_ever() {
    let golden = include_bytes!("golden/images-1.jsonl");
    let world = World::in_memory();
    let mut lines = Vec::new();
    world.open().describe(&mut *boxed(golden), &mut |described| lines.push(described.change)).unwrap();
    assert_eq!(
        lines,
        [
            "delete directory with all it holds old",
            "replace a.txt",
            "replace caf\\xe9\\x5c.txt",
            "replace link",
            "make directory new",
            "add new/file",
            "add link new/link",
            "delete sub/gone.txt",
        ]
    );
}
