//! A bundle that is damaged, or made to do harm, is refused and leaves nothing behind.

use std::fs;
use std::path::PathBuf;

use backout_package::bundle;
use backout_package::error::PackageError;
use tar::{Builder, EntryType, Header};

use crate::fixture::{Dice, Dir, package, told};

const MANIFEST: &str = "package: p\nversion: 1\nsteps: [{delete: [x]}]\n";

/// Opens what is in `b.backout.tar.zst`, and makes sure that nothing stays.
fn refused(dir: &Dir) -> PackageError {
    let file = dir.path().join("b.backout.tar.zst");
    let into = dir.path().join("into");
    let error = bundle::open(&file, &into).expect_err("refused");
    assert!(!into.exists(), "left behind");
    fs::create_dir(&into).unwrap();
    bundle::open(&file, &into).expect_err("refused");
    assert_eq!(fs::read_dir(&into).unwrap().count(), 0, "left behind");
    fs::remove_dir(&into).unwrap();
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["b.backout.tar.zst"], "written outside");
    error
}

struct Evil(Builder<Vec<u8>>);

impl Evil {
    fn new(files: u64, bytes: u64) -> Self {
        Self::with_header(&format!(
            r#"{{"format": 1, "package": "p", "version": "1", "files": {files}, "bytes": {bytes}, "digest": "{}"}}"#,
            "0".repeat(64)
        ))
    }

    fn with_header(json: &str) -> Self {
        Self(Builder::new(Vec::new())).add(EntryType::Regular, b"backout-bundle.json", b"", json.as_bytes())
    }

    /// Names go in as they are: the builder itself would refuse some of them.
    fn add(mut self, kind: EntryType, name: &[u8], link: &[u8], content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn told(self) -> String {
        let dir = Dir::new();
        let tar = self.0.into_inner().unwrap();
        write(&dir, &zstd::encode_all(tar.as_slice(), 1).unwrap());
        told(&dir.path(), &refused(&dir))
    }
}

fn write(dir: &Dir, bytes: &[u8]) {
    fs::write(dir.path().join("b.backout.tar.zst"), bytes).unwrap();
}

#[test]
fn entries_that_would_do_harm_are_refused() {
    let file = EntryType::Regular;
    let cases: [(Evil, &str); 16] = [
        (Evil::new(1, 9).add(file, b"../evil", b"", b"x"), "holds the unsafe path `../evil`"),
        (Evil::new(1, 9).add(file, b"/proc/evil", b"", b"x"), "holds the unsafe path `/proc/evil`"),
        (Evil::new(9, 9).add(file, b"a/../../evil", b"", b"x"), "holds the unsafe path"),
        (
            Evil::new(9, 9).add(EntryType::Symlink, b"l", b"/proc", b"").add(file, b"l/evil", b"", b"x"),
            "holds `l/evil`, which is not below a directory of it",
        ),
        (Evil::new(9, 9).add(EntryType::Symlink, b"l", b"evil", b"").add(file, b"l", b"", b"x"), "holds `l` twice"),
        (Evil::new(9, 9).add(file, b"none/x", b"", b"x"), "not below a directory of it"),
        (Evil::new(9, 9).add(EntryType::Link, b"l", b"/etc/passwd", b""), "holds the unsafe path `/etc/passwd`"),
        (Evil::new(9, 9).add(EntryType::Link, b"l", b"../b.backout.tar.zst", b""), "holds the unsafe path"),
        (
            Evil::new(9, 9).add(EntryType::Symlink, b"s", b"/etc/passwd", b"").add(EntryType::Link, b"l", b"s", b""),
            "links `l` to what is not a file",
        ),
        (
            Evil::new(9, 9).add(EntryType::Char, b"null", b"", b""),
            "holds `null`, which is neither file, directory nor link",
        ),
        (Evil::new(9, 9).add(EntryType::Fifo, b"fifo", b"", b""), "neither file, directory nor link"),
        (
            Evil::new(9, 9).add(EntryType::XHeader, b"x", b"", b"11 path=/x\n"),
            "extended header that bundles don't have",
        ),
        (Evil::new(9, 9).add(EntryType::GNULongName, b"x", b"", &[b'a'; 70_000]), "has a header that is too long"),
        (Evil::new(1, 9).add(file, b"a", b"", b"x").add(file, b"b", b"", b"x"), "holds more files than it says"),
        (
            Evil::new(2, 9).add(file, b"a", b"", b"12345").add(file, b"b", b"", b"12345"),
            "holds more bytes than it says",
        ),
        (Evil::new(9, 9).add(file, b"a", b"", b"x"), "is truncated: it holds 1 files of 9 and 1 bytes of 9"),
    ];
    for (evil, expected) in cases {
        let told = evil.told();
        assert!(told.starts_with("b.backout.tar.zst: ") && told.contains(expected), "{told}\n  {expected}");
    }
}

#[test]
fn a_wrong_first_entry_is_refused() {
    for (json, expected) in [
        ("{", "says of itself what can't be read"),
        ("{}", "does not say what format it has"),
        (r#"{"format": 2}"#, "has format 2; this version reads format 1"),
        (r#"{"format": 1}"#, "says of itself what can't be read"),
        (r#"{"format": 1, "package": "p", "version": "1", "files": -1, "bytes": 0, "digest": ""}"#, "can't be read"),
    ] {
        let told = Evil::with_header(json).told();
        assert!(told.contains(expected), "{told}\n  {expected}");
    }
    let other = Evil(Builder::new(Vec::new()));
    let told = other.add(EntryType::Regular, b"package.yaml", b"", MANIFEST.as_bytes()).told();
    assert!(told.contains("is not a bundle: its first entry is not backout-bundle.json"), "{told}");
    let told = Evil(Builder::new(Vec::new())).told();
    assert!(told.contains("is empty"), "{told}");
}

/// A real bundle, one step away from right.
fn packed() -> (Dir, Vec<u8>) {
    let source = package("  - sql: sql/a.sql\n  - files: docroot\n");
    source.write("docroot/random", &random_text(40_000));
    let out = Dir::new();
    let file: PathBuf = bundle::pack(&source.path(), &out.path()).unwrap();
    let bytes = fs::read(file).unwrap();
    (Dir::new(), bytes)
}

/// Text that does not shrink, the same each time.
fn random_text(length: usize) -> String {
    let mut dice = Dice(1);
    (0..length).map(|_| char::from(b' ' + dice.below(95) as u8)).collect()
}

#[test]
fn a_truncated_bundle_is_refused_wherever_it_ends() {
    let (dir, bytes) = packed();
    let ends = (0..bytes.len()).step_by(bytes.len() / 40).chain(bytes.len() - 5..bytes.len());
    for end in ends {
        write(&dir, &bytes[..end]);
        let error = refused(&dir);
        assert!(matches!(error, PackageError::Bundle { .. }), "{end}: {error}");
    }
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_is() {
    let (dir, bytes) = packed();
    for at in (0..bytes.len()).step_by(bytes.len() / 60) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        write(&dir, &bad);
        refused(&dir);
    }
}

#[test]
fn a_tampered_bundle_is_refused_by_its_digest() {
    let (dir, bytes) = packed();
    let mut tar = zstd::decode_all(bytes.as_slice()).unwrap();
    let at = tar.windows(9).position(|w| w == b"SELECT 1;").unwrap();
    tar[at + 7] = b'2';
    write(&dir, &zstd::encode_all(tar.as_slice(), 1).unwrap());
    let told_it = told(&dir.path(), &refused(&dir));
    assert!(told_it.starts_with("b.backout.tar.zst: was changed after it was packed"), "{told_it}");

    // Another name on the outside of the same tree.
    let mut tar = zstd::decode_all(bytes.as_slice()).unwrap();
    let at = tar.windows(14).position(|w| w == b"\"package\": \"p\"").unwrap();
    tar[at + 12] = b'q';
    write(&dir, &zstd::encode_all(tar.as_slice(), 1).unwrap());
    let told_it = told(&dir.path(), &refused(&dir));
    assert!(told_it.contains("holds another package than it says"), "{told_it}");

    // Something after the end.
    let mut tar = zstd::decode_all(bytes.as_slice()).unwrap();
    tar.extend_from_slice(&[7; 512]);
    write(&dir, &zstd::encode_all(tar.as_slice(), 1).unwrap());
    let told_it = told(&dir.path(), &refused(&dir));
    assert!(told_it.contains("holds something after its end"), "{told_it}");
}

#[test]
fn a_sound_bundle_of_a_wrong_package_shows_the_place() {
    // Packed, then changed with its digest made right again: only the manifest's own error is left.
    let evil = Evil::new(1, 13).add(EntryType::Regular, b"package.yaml", b"", b"package: [x]\n");
    let tar = evil.0.into_inner().unwrap();
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"backout package 1\nf");
    hasher.update(&12u64.to_le_bytes());
    hasher.update(b"package.yaml");
    hasher.update(&0o644u32.to_le_bytes());
    hasher.update(&13u64.to_le_bytes());
    hasher.update(b"package: [x]\n");
    let digest = hasher.finalize().to_hex().to_string();
    let text = String::from_utf8(tar).unwrap().replace(&"0".repeat(64), &digest);
    let dir = Dir::new();
    write(&dir, &zstd::encode_all(text.as_bytes(), 1).unwrap());
    assert_eq!(told(&dir.path(), &refused(&dir)), "b.backout.tar.zst/package.yaml:1:10: expected text, found a list");
}

#[test]
fn what_is_no_bundle_at_all_is_refused() {
    let dir = Dir::new();
    write(&dir, b"");
    refused(&dir);
    write(&dir, b"PK\x03\x04 this is not zstd");
    let told_it = told(&dir.path(), &refused(&dir));
    assert!(told_it.contains("is not a bundle"), "{told_it}");
    let missing = bundle::open(&dir.path().join("none"), &dir.path().join("into")).expect_err("refused");
    assert!(missing.is_usage());
    let full = Dir::with(&[("x", "")]);
    let error = bundle::open(&dir.path().join("b.backout.tar.zst"), &full.path()).expect_err("refused");
    assert!(error.to_string().contains("is not empty"), "{error}");
    assert!(full.path().join("x").exists());
}

#[test]
fn a_mangled_archive_is_refused_never_a_panic() {
    let (dir, bytes) = packed();
    let tar = zstd::decode_all(bytes.as_slice()).unwrap();
    let heads: Vec<usize> = (0..tar.len() / 512).filter(|b| &tar[b * 512 + 257..b * 512 + 262] == b"ustar").collect();
    let mut dice = Dice(3);
    for _ in 0..300 {
        // In a header, with its checksum made right again: else nothing but the checksum would be tested.
        let at = heads[dice.below(heads.len())] * 512;
        let mut bad = tar.clone();
        for _ in 0..=dice.below(3) {
            bad[at + dice.below(345)] = [0, b'/', b'.', b'7', b'0', 0xff][dice.below(6)];
        }
        let mut header = Header::from_byte_slice(&bad[at..at + 512]).clone();
        header.set_cksum();
        bad[at..at + 512].copy_from_slice(header.as_bytes());
        write(&dir, &zstd::encode_all(bad.as_slice(), 1).unwrap());
        let into = dir.path().join("into");
        // Fields that mean nothing here (owner, device) may change; the tree may not.
        match bundle::open(&dir.path().join("b.backout.tar.zst"), &into) {
            Ok(_) => fs::remove_dir_all(&into).unwrap(),
            Err(_) => assert!(!into.exists(), "left behind"),
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "written outside");
    }
}
