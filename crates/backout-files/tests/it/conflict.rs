//! What others changed since: merged where they changed something else, else a conflict, handled as asked.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use backout_files::root::{Root, Work};
use backout_model::conflict::{ConflictKind, Conflicts, OnConflict};
use backout_model::target::{Manner, Target, TargetError};

use crate::world::*;

const KEEP: Manner = Manner { on_conflict: OnConflict::Keep, in_doubt: false };
const OVERWRITE: Manner = Manner { on_conflict: OnConflict::Overwrite, in_doubt: false };

/// A site of three files: one replaced, one added, one deleted with `exact`.
fn deployed() -> (World, Vec<u8>) {
    let world = World::in_memory();
    write(&world.root(), "dir/replaced", "old");
    write(&world.root(), "dir/deleted", "goes");
    write(&world.root(), "other/replaced", "old, too");
    write(&world.package(), "dir/replaced", "new");
    write(&world.package(), "dir/added", "added");
    write(&world.package(), "made/inside", "in a new directory");
    write(&world.package(), "other/replaced", "new, too");
    let (images, _) = world.apply(&world.exact());
    (world, images)
}

fn conflicts<T>(result: Result<T, TargetError>) -> Conflicts {
    match result {
        Err(TargetError::Conflicts(conflicts)) => conflicts,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("no conflict"),
    }
}

fn text(world: &World, path: &str) -> Option<String> {
    fs::read_to_string(world.root().join(path)).ok()
}

/// Under `Stop` nothing changes and `check_undo` says the same beforehand.
fn stops(world: &World, images: &[u8], kind: ConflictKind, object: &str) {
    let now = world.fingerprint();
    let found = conflicts(world.undo(images, STOP));
    assert_eq!((found.total, found.listed[0].kind, found.listed[0].object.as_str()), (1, kind, object));
    assert_same(&world.fingerprint(), &now, "after an undo that stopped");
    let sought = world.open().check_undo(&mut [boxed(images)].into_iter(), OnConflict::Stop).unwrap().conflicts;
    assert_eq!(sought, found);
    assert_same(&world.fingerprint(), &now, "after looking for conflicts");
}

#[test]
fn changed_content_is_a_conflict() {
    let (world, images) = deployed();
    write(&world.root(), "dir/replaced", "by hand");
    stops(&world, &images, ConflictKind::Changed, "dir/replaced");

    let report = world.undo(&images, KEEP).unwrap();
    assert_eq!(report.conflicts.total, 1);
    assert_eq!(text(&world, "dir/replaced").unwrap(), "by hand");
    assert_eq!(text(&world, "dir/deleted").unwrap(), "goes");
    assert_eq!(text(&world, "other/replaced").unwrap(), "old, too");
    assert_eq!(text(&world, "dir/added"), None);
}

#[test]
fn overwriting_keeps_what_it_overwrote() {
    let (world, images) = deployed();
    write(&world.root(), "dir/replaced", "by hand");
    let report = world.undo(&images, OVERWRITE).unwrap();
    assert_eq!(report.conflicts.total, 1);
    assert_eq!(text(&world, "dir/replaced").unwrap(), "old");
    let note = report.notes.iter().find(|note| note.starts_with("dir/replaced: ")).unwrap();
    let kept = PathBuf::from(note.rsplit_once(" kept in ").unwrap().1);
    assert_eq!(fs::read_to_string(kept).unwrap(), "by hand");
    // What the deployment left is gone for good, so a redo can't promise the same result.
    let found = conflicts(world.redo(&images, STOP));
    assert_eq!((found.total, found.listed[0].object.as_str()), (1, "dir/replaced"));
}

#[test]
fn a_missing_file_is_a_conflict_only_where_something_has_to_come_back() {
    let (world, images) = deployed();
    fs::remove_file(world.root().join("dir/replaced")).unwrap();
    fs::remove_file(world.root().join("dir/added")).unwrap();
    stops(&world, &images, ConflictKind::Missing, "dir/replaced");
    let report = world.undo(&images, OVERWRITE).unwrap();
    assert_eq!(report.conflicts.total, 1);
    assert!(report.notes.iter().any(|note| note.starts_with("dir/added already is gone")), "{:?}", report.notes);
    assert_eq!(text(&world, "dir/replaced").unwrap(), "old");
}

#[test]
fn a_file_that_appeared_where_one_was_deleted_is_a_conflict() {
    let (world, images) = deployed();
    write(&world.root(), "dir/deleted", "somebody else's");
    stops(&world, &images, ConflictKind::Appeared, "dir/deleted");
    let (other, images_of_other) = deployed();
    write(&other.root(), "dir/deleted", "somebody else's");
    other.undo(&images_of_other, KEEP).unwrap();
    assert_eq!(text(&other, "dir/deleted").unwrap(), "somebody else's");
    world.undo(&images, OVERWRITE).unwrap();
    assert_eq!(text(&world, "dir/deleted").unwrap(), "goes");
}

#[test]
fn a_new_directory_with_others_files_stays() {
    let (world, images) = deployed();
    write(&world.root(), "made/upload", "a visitor's");
    let report = world.undo(&images, STOP).unwrap();
    assert!(report.conflicts.is_empty());
    assert!(report.notes.iter().any(|note| note.starts_with("the directory made stays")), "{:?}", report.notes);
    assert_eq!(text(&world, "made/upload").unwrap(), "a visitor's");
    assert_eq!(text(&world, "made/inside"), None);
    let (again, _) = world.redo(&images, STOP).unwrap();
    assert_eq!(text(&world, "made/inside").unwrap(), "in a new directory");
    world.undo(&again, STOP).unwrap();
    assert_eq!(text(&world, "made/upload").unwrap(), "a visitor's");
    assert_eq!(text(&world, "made/inside"), None);
}

#[test]
fn rights_that_only_others_changed_are_carried_over() {
    let (world, images) = deployed();
    let path = world.root().join("dir/replaced");
    mode(&path, 0o600);
    set_attribute(&path, "user.note", b"theirs");
    if is_root() {
        std::os::unix::fs::chown(&path, Some(77), None).unwrap();
    }
    let report = world.undo(&images, STOP).unwrap();
    assert!(report.conflicts.is_empty());
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(text(&world, "dir/replaced").unwrap(), "old");
    assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
    let mut value = [0; 16];
    assert_eq!(rustix::fs::lgetxattr(&path, "user.note", &mut value[..]).unwrap(), 6);
    if is_root() {
        assert_eq!(meta.uid(), 77);
    }
}

#[test]
fn a_mode_that_both_changed_is_a_conflict() {
    let world = World::in_memory();
    mode(&write(&world.root(), "tool", "old"), 0o644);
    mode(&write(&world.package(), "tool", "new"), 0o755);
    let (images, _) = world.apply(&world.overlay());
    mode(&world.root().join("tool"), 0o700);
    stops(&world, &images, ConflictKind::Changed, "tool");
    let found = conflicts(world.undo(&images, STOP));
    assert_eq!(found.listed[0].column.as_deref(), Some("mode"));
    world.undo(&images, OVERWRITE).unwrap();
    assert_eq!(fs::metadata(world.root().join("tool")).unwrap().permissions().mode() & 0o7777, 0o644);
}

#[test]
fn a_touched_time_is_no_conflict() {
    let (world, images) = deployed();
    set_time(&world.root().join("dir/replaced"), 1_900_000_000, 1);
    assert!(world.undo(&images, STOP).unwrap().conflicts.is_empty());
    assert_eq!(text(&world, "dir/replaced").unwrap(), "old");
}

#[test]
fn a_directory_that_others_changed_keeps_its_time() {
    let (world, images) = deployed();
    write(&world.root(), "other/upload", "theirs");
    set_time(&world.root().join("other"), 1_900_000_000, 7);
    set_time(&world.root().join("dir"), 1_700_000_000, 0);
    world.undo(&images, STOP).unwrap();
    // The undo itself renames in it, so what it has is the time of that, and not what was before the deployment.
    assert!(fs::metadata(world.root().join("other")).unwrap().mtime() > 1_700_000_000);
}

#[test]
fn a_link_in_place_of_a_directory_is_never_followed() {
    let (world, images) = deployed();
    fs::rename(world.root().join("dir"), world.dir.path().join("moved")).unwrap();
    symlink("../moved", world.root().join("dir")).unwrap();
    let moved = fingerprint(&world.dir.path().join("moved"), true);
    let found = conflicts(world.undo(&images, STOP));
    assert_eq!(found.total, 3, "{found:?}");
    let report = world.undo(&images, OVERWRITE).unwrap();
    assert_eq!(report.conflicts.total, 3);
    assert_same(&fingerprint(&world.dir.path().join("moved"), true), &moved, "outside the root");
    assert_eq!(text(&world, "other/replaced").unwrap(), "old, too");
}

#[test]
fn overwriting_makes_the_directories_that_are_gone() {
    let (world, images) = deployed();
    fs::remove_dir_all(world.root().join("dir")).unwrap();
    let found = conflicts(world.undo(&images, STOP));
    assert!(found.listed.iter().all(|conflict| conflict.kind == ConflictKind::Missing));
    world.undo(&images, OVERWRITE).unwrap();
    assert_eq!(text(&world, "dir/deleted").unwrap(), "goes");
    assert_eq!(text(&world, "dir/replaced").unwrap(), "old");
}

#[test]
fn the_same_change_by_somebody_else_is_no_conflict() {
    let (world, images) = deployed();
    write(&world.root(), "dir/replaced", "old");
    let report = world.undo(&images, STOP).unwrap();
    assert!(report.conflicts.is_empty());
    assert!(report.notes.iter().any(|note| note.starts_with("dir/replaced already holds")), "{:?}", report.notes);
}

#[test]
fn a_conflict_that_turns_up_in_the_middle_puts_everything_back() {
    for case in ["write", "replace", "remove", "appear", "link"] {
        let (world, images) = deployed();
        let root = world.root();
        let mut gate = TestGate::default();
        let inside = root.clone();
        gate.meanwhile = Some(Box::new(move || match case {
            "write" => drop(write(&inside, "dir/replaced", "late, by hand")),
            "replace" => {
                let new = write(&inside, "late", "another file");
                fs::rename(new, inside.join("dir/replaced")).unwrap();
            }
            "remove" => fs::remove_file(inside.join("dir/replaced")).unwrap(),
            "appear" => drop(write(&inside, "dir/deleted", "late")),
            _ => {
                fs::rename(inside.join("dir"), inside.join("dir.moved")).unwrap();
                symlink("dir.moved", inside.join("dir")).unwrap();
            }
        }));
        let before = world.fingerprint();
        let found = conflicts(world.open().undo(&mut *boxed(&images), STOP, &mut gate));
        assert!(found.total >= 1, "{case}");
        let mut now = world.fingerprint();
        // Only what the others did in between differs; not even the time of a directory of ours.
        let theirs = ["dir", "dir/replaced", "dir/deleted", "dir/added", ".", "dir.moved"];
        let mut then = before.clone();
        let is_theirs = |key: &String| {
            let path = key.split('|').next().unwrap_or("");
            theirs.contains(&path) || path.starts_with("dir.moved/")
        };
        now.retain(|key, _| !is_theirs(key));
        then.retain(|key, _| !is_theirs(key));
        assert_same(&now, &then, case);
        let expected = match case {
            "write" => Some("late, by hand"),
            "replace" => Some("another file"),
            "remove" => None,
            _ => Some("new"),
        };
        assert_eq!(text(&world, "dir/replaced").as_deref(), expected, "{case}");
        assert_eq!(text(&world, "other/replaced").unwrap(), "new, too", "{case}");
        assert_eq!(text(&world, "made/inside").unwrap(), "in a new directory", "{case}");
    }
}

#[test]
fn a_late_conflict_is_left_or_overwritten_as_asked() {
    for (manner, expected) in [(KEEP, "late, by hand"), (OVERWRITE, "old")] {
        let (world, images) = deployed();
        let root = world.root();
        let meanwhile = move || drop(write(&root, "dir/replaced", "late, by hand"));
        let mut gate = TestGate { meanwhile: Some(Box::new(meanwhile)), ..TestGate::default() };
        let report = world.open().undo(&mut *boxed(&images), manner, &mut gate).unwrap();
        assert_eq!(report.conflicts.total, 1);
        assert_eq!(text(&world, "dir/replaced").unwrap(), expected);
        assert_eq!(text(&world, "other/replaced").unwrap(), "old, too");
    }
}

#[test]
fn a_program_that_writes_on_into_the_old_file_loses_nothing() {
    let world = World::in_memory();
    let live = write(&world.root(), "log.txt", "line one\n");
    set_time(&live, 1_700_000_000, 0);
    write(&world.package(), "log.txt", "replaced");
    let mut open = fs::OpenOptions::new().append(true).open(&live).unwrap();
    let meanwhile = move || std::io::Write::write_all(&mut open, b"line two\n").unwrap();
    let mut gate = TestGate { meanwhile: Some(Box::new(meanwhile)), ..TestGate::default() };
    let report = world.open().apply(&world.overlay(), &mut gate).unwrap();
    assert!(report.notes.iter().any(|note| note.contains("written to by another program")), "{:?}", report.notes);
    let images = gate.announced.unwrap();
    let report = world.undo(&images, STOP).unwrap();
    assert!(report.notes.iter().any(|note| note.contains("went on writing")), "{:?}", report.notes);
    assert_eq!(fs::read_to_string(&live).unwrap(), "line one\nline two\n");
}

#[test]
fn what_was_never_placed_is_no_conflict_whatever_is_there_now() {
    let world = World::in_memory();
    write(&world.root(), "a", "old a");
    write(&world.root(), "b", "old b");
    write(&world.package(), "a", "new a");
    write(&world.package(), "b", "new b");
    let mut gate = TestGate::default();
    let mut root = world.open();
    // Dies after the first of the two exchanges.
    let (_, points) = with_fault(Fault::Nothing, || {
        let other = World::in_memory();
        write(&other.root(), "a", "old a");
        write(&other.root(), "b", "old b");
        write(&other.package(), "a", "new a");
        write(&other.package(), "b", "new b");
        other.apply(&other.overlay());
    });
    let second = points.iter().rposition(|point| *point == backout_model::fault::Point::Exchange).unwrap();
    let (result, _) = with_fault(Fault::Crash(second), || root.apply(&world.overlay(), &mut gate));
    assert!(result.is_err());
    assert_eq!((text(&world, "a").unwrap(), text(&world, "b").unwrap()), ("new a".to_owned(), "old b".to_owned()));
    write(&world.root(), "b", "by hand");
    let report = world.undo(&gate.announced.unwrap(), IN_DOUBT).unwrap();
    assert!(report.conflicts.is_empty(), "{:?}", report.conflicts);
    assert_eq!((text(&world, "a").unwrap(), text(&world, "b").unwrap()), ("old a".to_owned(), "by hand".to_owned()));
}

#[test]
fn what_was_never_deleted_is_no_conflict_whatever_is_there_now() {
    let make = || {
        let world = World::in_memory();
        write(&world.root(), "a", "old a");
        write(&world.root(), "b", "old b");
        world
    };
    let work = Work::Delete { paths: vec!["a".to_owned(), "b".to_owned()], missing_ok: false };
    let other = make();
    let (_, points) = with_fault(Fault::Nothing, || other.apply(&work));
    // Dies before the second of the two renames into the hold.
    let second = points.iter().rposition(|point| *point == backout_model::fault::Point::Rename).unwrap();
    let world = make();
    let mut gate = TestGate::default();
    let mut root = world.open();
    assert!(with_fault(Fault::Crash(second), || root.apply(&work, &mut gate)).0.is_err());
    assert_eq!((text(&world, "a"), text(&world, "b").as_deref()), (None, Some("old b")));
    write(&world.root(), "b", "by hand");
    let report = world.undo(&gate.announced.unwrap(), IN_DOUBT).unwrap();
    assert!(report.conflicts.is_empty(), "{:?}", report.conflicts);
    assert_eq!((text(&world, "a").as_deref(), text(&world, "b").as_deref()), (Some("old a"), Some("by hand")));
}

#[test]
fn what_appears_while_files_are_placed_is_not_overwritten() {
    let world = World::in_memory();
    write(&world.root(), "a", "old");
    write(&world.package(), "a", "new");
    write(&world.package(), "b", "new");
    let before = world.fingerprint();
    let root = world.root();
    let mut gate =
        TestGate { meanwhile: Some(Box::new(move || drop(write(&root, "b", "theirs")))), ..TestGate::default() };
    assert!(world.open().apply(&world.overlay(), &mut gate).is_err());
    assert_eq!(text(&world, "b").unwrap(), "theirs");
    let report = world.undo(&gate.announced.unwrap(), IN_DOUBT).unwrap();
    assert!(report.conflicts.is_empty());
    assert_eq!(text(&world, "b").unwrap(), "theirs");
    std::fs::remove_file(world.root().join("b")).unwrap();
    let (mut now, mut then) = (world.fingerprint(), before);
    now.remove(".");
    then.remove(".");
    assert_same(&now, &then, "after undo");
}

#[test]
fn rights_that_were_carried_over_go_back_with_a_turn_that_is_taken_back() {
    let (world, images) = deployed();
    // Undone before the one with the late conflict, because it was placed after it.
    let merged = world.root().join("other/replaced");
    mode(&merged, 0o600);
    let root = world.root();
    let meanwhile = move || drop(write(&root, "dir/replaced", "late, by hand"));
    let mut gate = TestGate { meanwhile: Some(Box::new(meanwhile)), ..TestGate::default() };
    conflicts(world.open().undo(&mut *boxed(&images), STOP, &mut gate));
    assert_eq!(fs::metadata(&merged).unwrap().permissions().mode() & 0o7777, 0o600);
    mode(&merged, 0o644);
    world.undo(&images, KEEP).unwrap();
    assert_eq!(text(&world, "other/replaced").unwrap(), "old, too");
    assert_eq!(fs::metadata(&merged).unwrap().permissions().mode() & 0o7777, 0o644);
}

#[test]
fn redo_is_guarded_like_undo() {
    let (world, images) = deployed();
    world.undo(&images, STOP).unwrap();
    write(&world.root(), "dir/replaced", "by hand, after the undo");
    let now = world.fingerprint();
    let found = conflicts(world.redo(&images, STOP));
    assert_eq!((found.total, found.listed[0].kind), (1, ConflictKind::Changed));
    assert_same(&world.fingerprint(), &now, "after a redo that stopped");
    let (again, report) = world.redo(&images, KEEP).unwrap();
    assert_eq!(report.conflicts.total, 1);
    assert_eq!(text(&world, "dir/replaced").unwrap(), "by hand, after the undo");
    assert_eq!(text(&world, "other/replaced").unwrap(), "new, too");
    // What the redo left alone is not its own: undoing it is no conflict and leaves it again.
    let report = world.undo(&again, STOP).unwrap();
    assert!(report.conflicts.is_empty());
    assert_eq!(text(&world, "dir/replaced").unwrap(), "by hand, after the undo");
    assert_eq!(text(&world, "other/replaced").unwrap(), "old, too");
}

#[test]
fn a_redo_that_overwrites_can_be_undone_to_what_it_overwrote() {
    let (world, images) = deployed();
    world.undo(&images, STOP).unwrap();
    write(&world.root(), "dir/replaced", "by hand, after the undo");
    let now = world.fingerprint();
    let (again, _) = world.redo(&images, OVERWRITE).unwrap();
    assert_eq!(text(&world, "dir/replaced").unwrap(), "new");
    world.undo(&again, STOP).unwrap();
    assert_same(&world.fingerprint(), &now, "after undoing the redo");
}

#[test]
fn a_deleted_directory_comes_back_unless_another_took_its_place() {
    let world = World::in_memory();
    write(&world.root(), "theme/style.css", "old");
    let work = Work::Delete { paths: vec!["theme/".to_owned()], missing_ok: false };
    let before = world.fingerprint();
    let (images, _) = world.apply(&work);
    write(&world.root(), "theme/style.css", "another theme");
    let found = conflicts(world.undo(&images, STOP));
    assert_eq!((found.total, found.listed[0].kind), (1, ConflictKind::Appeared));
    let report = world.undo(&images, OVERWRITE).unwrap();
    assert_eq!(report.conflicts.total, 1);
    assert_eq!(text(&world, "theme/style.css").unwrap(), "old");
    assert_eq!(before.len(), world.fingerprint().len());
}

/// What others did in a directory between the undo of its deletion and the redo.
type Others = fn(&Path);

#[test]
fn a_redo_takes_no_directory_in_which_others_did_something() {
    let others: [Others; 4] = [
        |root| drop(write(root, "theme/deep/new.css", "of others")),
        |root| drop(write(root, "theme/style.css", "other")),
        |root| fs::remove_file(root.join("theme/deep/print.css")).unwrap(),
        |root| fs::create_dir(root.join("theme/empty")).unwrap(),
    ];
    for (which, others) in others.iter().enumerate() {
        let exact = which % 2 == 1;
        let world = World::in_memory();
        write(&world.root(), "theme/style.css", "style");
        write(&world.root(), "theme/deep/print.css", "print");
        let delete = Work::Delete { paths: vec!["theme/".to_owned()], missing_ok: false };
        let (images, _) = world.apply(&if exact { world.exact() } else { delete });
        assert!(!world.root().join("theme").exists());
        world.undo(&images, STOP).unwrap();
        let (again, _) = world.redo(&images, STOP).unwrap();
        world.undo(&again, STOP).unwrap();
        // Rights and times of directories are nobody's work of hours.
        fs::set_permissions(world.root().join("theme/deep"), fs::Permissions::from_mode(0o700)).unwrap();
        let (again, _) = world.redo(&again, STOP).unwrap();
        world.undo(&again, STOP).unwrap();
        others(&world.root());
        let now = world.fingerprint();
        let conflicts = conflicts(world.redo(&again, STOP));
        assert_eq!((conflicts.total, conflicts.listed[0].object.as_str()), (1, "theme"), "{which}");
        assert!(conflicts.listed[0].now.contains("added, changed or removed"), "{:?}", conflicts.listed[0]);
        assert_same(&world.fingerprint(), &now, "refused");
        let (third, _) = world.redo(&again, OVERWRITE).unwrap();
        assert!(!world.root().join("theme").exists());
        world.undo(&third, STOP).unwrap();
        assert_same(&world.fingerprint(), &now, "with what others did");
    }
}

/// Exchanges the root for another directory that holds the same; the former one is returned.
fn exchanged(world: &World) -> PathBuf {
    let former = world.root().with_file_name("former");
    fs::rename(world.root(), &former).unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(&former).arg(world.root()).status().unwrap();
    assert!(copied.success());
    former
}

#[test]
fn another_directory_in_the_root_s_place_is_a_conflict() {
    let (world, images) = deployed();
    let former = exchanged(&world);
    let then = fingerprint(&former, true);
    stops(&world, &images, ConflictKind::Definition, ".");

    let now = world.fingerprint();
    let report = world.undo(&images, KEEP).unwrap();
    assert_eq!(report.conflicts.total, 1);
    assert_same(&world.fingerprint(), &now, "left alone");

    world.undo(&images, OVERWRITE).unwrap();
    assert_eq!(text(&world, "dir/replaced").as_deref(), Some("old"));
    assert_eq!(text(&world, "dir/added"), None);
    assert_same(&fingerprint(&former, true), &then, "the former one");
}

#[test]
fn a_root_that_was_moved_is_the_same_directory() {
    let (world, images) = deployed();
    let moved = world.root().with_file_name("moved");
    fs::rename(world.root(), &moved).unwrap();
    std::os::unix::fs::symlink(&moved, world.root()).unwrap();
    world.undo(&images, STOP).unwrap();
    assert_eq!(text(&world, "dir/replaced").as_deref(), Some("old"));
    world.redo(&images, STOP).unwrap();
    assert_eq!(text(&world, "dir/replaced").as_deref(), Some("new"));
}

#[test]
fn without_the_hold_what_was_added_goes_and_what_was_replaced_is_an_error() {
    let world = World::in_memory();
    write(&world.root(), "stays", "as it is");
    let before = world.fingerprint();
    write(&world.package(), "added", "added");
    let (images, _) = world.apply(&world.overlay());
    fs::remove_dir_all(world.hold()).unwrap();
    world.undo(&images, STOP).unwrap();
    assert_same(&world.fingerprint(), &before, "undone");
    world.redo(&images, STOP).unwrap();
    assert_eq!(text(&world, "added").as_deref(), Some("added"));

    let (world, images) = deployed();
    fs::remove_dir_all(world.hold()).unwrap();
    let now = world.fingerprint();
    let error = world.undo(&images, STOP).unwrap_err();
    assert!(format!("{error:?}").contains("hold does not keep it any more"), "{error:?}");
    assert_same(&world.fingerprint(), &now, "nothing was changed");
}

#[test]
fn another_deployer_on_the_same_root_is_kept_out() {
    let (world, _) = deployed();
    let (mut first, mut second) = (world.open(), world.open());
    assert_eq!(first.lock().unwrap(), None);
    assert_eq!(first.lock().unwrap(), None, "it has it already");
    let who = second.lock().unwrap().expect("locked by the first");
    assert!(who.starts_with(&format!("process {}", std::process::id())), "{who}");
    assert!(who.ends_with(&format!("is at work on {}", world.root().canonicalize().unwrap().display())), "{who}");
    first.unlock();
    assert_eq!(second.lock().unwrap(), None);
    drop(second);
    assert_eq!(first.lock().unwrap(), None);
}
