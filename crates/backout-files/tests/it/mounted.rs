//! File systems of their own: a disk that is really full, and a root that is a mount point. Needs leave to mount.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use backout_files::local::{LocalRoot, Options};
use backout_files::root::{Root, Work};
use backout_model::target::Target;

use crate::world::*;

/// A small file system in memory, unmounted when it goes out of use.
struct Mounted(PathBuf);

impl Mounted {
    fn at(path: &Path) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(path).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(path.to_owned()));
        }
        eprintln!("not tested: this user may not mount a file system");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_full_disk_fails_before_anything_is_live() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mounted) = Mounted::at(&dir.path().join("disk")) else { return };
    let world = World::at(&mounted.0, Default::default());
    write(&world.root(), "a-first", "old");
    write(&world.root(), "big", "old");
    let package = dir.path().join("package");
    write(&package, "a-first", "new");
    write(&package, "big", vec![7; 6 << 20]);
    let before = world.fingerprint();
    let work = Work::Overlay { source: package, exact: false };
    let mut gate = TestGate::default();
    let error = world.open().apply(&work, &mut gate).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.to_string().contains("cannot stage big") && cause.contains("No space left"), "{error}: {cause}");
    assert!(gate.announced.is_none());
    assert!(!world.hold().exists());
    assert_same(&world.fingerprint(), &before, "after a full disk");
    drop(world);
}

#[test]
fn a_root_that_is_a_mount_point_keeps_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root");
    let Some(_mounted) = Mounted::at(&path) else { return };
    let package = dir.path().join("package");
    fs::create_dir(&package).unwrap();
    furnish(&path);
    pack(&package);
    let mut options =
        Options { site: "shop".to_owned(), name: "web".to_owned(), path: path.clone(), ..Options::default() };
    assert!(LocalRoot::open(options.clone()).is_err(), "there is no place for the hold");
    options.hold = Some(dir.path().join("state/holds"));
    let mut root = LocalRoot::open(options).unwrap();
    assert_eq!(root.hold_path(), dir.path().join("state/holds/web"));
    let before = fingerprint(&path, false);
    let mut gate = TestGate::default();
    root.apply(&Work::Overlay { source: package, exact: true }, &mut gate).unwrap();
    let after = fingerprint(&path, false);
    let images = gate.announced.unwrap();
    root.undo(&mut Cursor::new(images.clone()), STOP, &mut TestGate::default()).unwrap();
    assert_same(&fingerprint(&path, false), &before, "after undo");
    root.redo(&mut Cursor::new(images), STOP, &mut TestGate::default()).unwrap();
    assert_same(&fingerprint(&path, false), &after, "after redo");
}

#[test]
fn a_mount_point_inside_a_directory_is_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(dir.path(), Default::default());
    let Some(mut mounted) = Mounted::at(&world.root().join("dir/disk")) else { return };
    write(&mounted.0, "file", "on another file system");
    let work = Work::Delete { paths: vec!["dir/disk/".to_owned()], missing_ok: false };
    let error = world.open().plan(&work, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("mount point"), "{error}");
    // The directory above moves with what is mounted in it, and comes back with it.
    let work = Work::Delete { paths: vec!["dir/".to_owned()], missing_ok: false };
    let (images, _) = world.apply(&work);
    world.undo(&images, STOP).unwrap();
    assert_eq!(fs::read_to_string(mounted.0.join("file")).unwrap(), "on another file system");
    // It is not forgotten with it.
    let (images, _) = world.apply(&work);
    assert!(world.open().forget(&mut *boxed(&images)).is_err());
    let find = Command::new("find").arg(world.hold()).args(["-name", "disk"]).output().unwrap();
    mounted.0 = PathBuf::from(String::from_utf8(find.stdout).unwrap().trim());
    assert_eq!(fs::read_to_string(mounted.0.join("file")).unwrap(), "on another file system");
    drop(mounted);
}
