//! A package comes out of a bundle as it went in, and the same package makes the same bytes.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use backout_package::bundle;
use backout_package::package::Package;

use crate::fixture::{Dir, package, told};

/// A package with everything that a tree can hold.
fn rich() -> Dir {
    let dir = package("  - sql: sql/a.sql\n  - files: docroot\n  - package: content\n    on-failure: continue\n");
    dir.write("content/package.yaml", "package: content\nversion: 2\nsteps:\n  - delete: [x]\n");
    dir.write("docroot/empty/", "");
    dir.write(&format!("docroot/{}/{}", "d".repeat(90), "f".repeat(200)), "long name");
    dir.write("docroot/big", &"0123456789abcdef".repeat(20_000));
    dir.write("docroot/exact-block", &"x".repeat(512));
    let root = dir.path().join("docroot");
    fs::write(root.join(OsStr::from_bytes(b"latin\xe9.txt")), "not UTF-8").unwrap();
    symlink("index.php", root.join("link")).unwrap();
    symlink("/etc/passwd", root.join("absolute")).unwrap();
    symlink("nowhere/".repeat(30), root.join("far")).unwrap();
    symlink(OsStr::from_bytes(b"\xff"), root.join("odd")).unwrap();
    fs::hard_link(root.join("big"), root.join("big-again")).unwrap();
    dir.mode("docroot/index.php", 0o4751);
    dir.mode("docroot/empty", 0o1777);
    dir.mode("docroot/exact-block", 0o400);
    let times = |path: &str, time: SystemTime| {
        File::open(root.join(path)).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    };
    times("index.php", SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789));
    times("big", SystemTime::UNIX_EPOCH - Duration::new(1, 250_000_000));
    times("empty", SystemTime::UNIX_EPOCH + Duration::new(86_400, 1));
    dir
}

/// All that a tree is, as text: path, mode, kind, content or target, time, links.
fn describe(dir: &Path) -> Vec<String> {
    fn below(base: &Path, dir: &Path, out: &mut Vec<String>) {
        let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_symlink() {
                format!("{:?}", fs::read_link(&path).unwrap())
            } else if metadata.is_file() {
                format!("{} {} links", blake3::hash(&fs::read(&path).unwrap()), metadata.nlink())
            } else {
                String::new()
            };
            let relative = path.strip_prefix(base).unwrap();
            let (seconds, ns) = (metadata.mtime(), metadata.mtime_nsec());
            out.push(format!("{relative:?} {:o} {content} {seconds}.{ns:09}", metadata.mode()));
            if metadata.is_dir() {
                below(base, &path, out);
            }
        }
    }
    let mut out = Vec::new();
    below(dir, dir, &mut out);
    out
}

#[test]
fn a_package_comes_out_as_it_went_in() {
    let (dir, out) = (rich(), Dir::new());
    let file = bundle::pack(&dir.path(), &out.path()).unwrap();
    assert_eq!(file, out.path().join("p-1.backout.tar.zst"));
    assert!(bundle::is_bundle(&file) && !bundle::is_bundle(&dir.path()));
    let before = Package::load(&dir.path()).unwrap();
    let into = out.path().join("opened");
    let opened = bundle::open(&file, &into).unwrap();
    assert_eq!(describe(&into), describe(&dir.path()));
    assert_eq!(opened.dir, into);
    assert_eq!(opened.file, file.join("package.yaml"));
    assert_eq!(opened.digest().unwrap(), before.digest().unwrap());
    assert_eq!(fs::metadata(&into).unwrap().mode() & 0o777, 0o700);
    // As any new file: a bundle is there to be handed on.
    fs::write(out.path().join("new"), "").unwrap();
    assert_eq!(fs::metadata(&file).unwrap().mode(), fs::metadata(out.path().join("new")).unwrap().mode());
}

#[test]
fn the_same_package_makes_the_same_bytes() {
    let (dir, one, two) = (rich(), Dir::new(), Dir::new());
    let first = fs::read(bundle::pack(&dir.path(), &one.path()).unwrap()).unwrap();
    // A copy has other inodes and another order of names on disk.
    let copy = Dir::new();
    let status =
        std::process::Command::new("cp").arg("-a").arg(dir.path().join(".")).arg(copy.path()).status().unwrap();
    assert!(status.success());
    let second = fs::read(bundle::pack(&copy.path(), &two.path()).unwrap()).unwrap();
    assert!(first == second);
    // zstd's own checksum is on (RFC 8878, 3.1.1.1.1): it guards what the digest leaves out, such as times.
    assert_eq!(first[4] & 0b100, 0b100);
}

#[test]
fn other_tools_read_a_bundle() {
    let (dir, out) = (rich(), Dir::new());
    let file = bundle::pack(&dir.path(), &out.path()).unwrap();
    let into = out.path().join("tar");
    fs::create_dir(&into).unwrap();
    let tar = out.path().join("plain.tar");
    fs::write(&tar, zstd::decode_all(File::open(&file).unwrap()).unwrap()).unwrap();
    let status = std::process::Command::new("tar").arg("-xpf").arg(&tar).arg("-C").arg(&into).status().unwrap();
    assert!(status.success());
    fs::remove_file(into.join("backout-bundle.json")).unwrap();
    assert_eq!(describe(&into), describe(&dir.path()));
}

#[test]
fn a_bundle_and_its_directory_look_alike() {
    let (dir, out) = (rich(), Dir::new());
    let file = bundle::pack(&dir.path(), &out.path()).unwrap();
    let inspection = bundle::inspect(&file).unwrap();
    assert_eq!(inspection, bundle::inspect(&dir.path()).unwrap());
    assert_eq!((inspection.steps.len(), inspection.children.len()), (3, 1));
    let json = serde_json::to_value(&inspection).unwrap();
    assert_eq!(json["children"][0]["passed-over"], true);
    assert_eq!(json["steps"][1]["what"], "docroot");
}

#[test]
fn what_cannot_be_packed_is_refused_and_leaves_nothing() {
    let dir = package("  - sql: sql/a.sql\n");
    let error = bundle::pack(&dir.path(), &dir.path().join("sql")).expect_err("refused");
    assert!(told(&dir.path(), &error).starts_with("sql: lies in the package"), "{error}");
    let out = Dir::new();
    let error = bundle::pack(&dir.path(), &out.path().join("none")).expect_err("refused");
    assert!(!error.is_usage(), "{error}");

    let fifo = dir.path().join("sql/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let error = bundle::pack(&dir.path(), &out.path()).expect_err("refused");
    assert_eq!(told(&dir.path(), &error), "sql/fifo: is a device, a socket or a pipe; a package can't hold one");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}
