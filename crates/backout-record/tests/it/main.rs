//! Records that are damaged, tampered with or made to do harm; and one of each format, which is read for ever.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use backout_record::error::RecordError;
use backout_record::extract::Extraction;
use backout_record::head::{FORMAT, Head, JOURNAL};
use backout_record::member::{Kind, Member, Meta};
use backout_record::reader::{self, Checked};
use backout_record::writer::Writer;

fn head() -> Head {
    Head {
        format: FORMAT,
        site: "shop".into(),
        deployment: "abcdefghjkmn".into(),
        written_ms: 1_790_000_000_000,
        members: 20,
        bytes: 10_000,
        ..Head::default()
    }
}

fn member(path: &str, kind: Kind) -> Member {
    let meta = Meta { mode: 0o644, mtime: (1_700_000_000, 123), ..Meta::default() };
    Member { path: path.into(), kind, meta }
}

/// Writes a small record of everything that one may hold.
fn write(path: &Path, head: &Head) {
    let mut writer = Writer::begin(File::create(path).unwrap(), path, head).unwrap();
    let mut add = |member: Member, mut content: &[u8]| writer.add(&member, &mut content).unwrap();
    add(member(JOURNAL, Kind::File(6)), b"entry\n");
    add(member("files", Kind::Directory), b"");
    add(member("files/a", Kind::File(3)), b"abc");
    add(member(&format!("files/{}", "long".repeat(60)), Kind::File(0)), b"");
    add(member("files/link", Kind::Symlink("/away".into())), b"");
    add(member("files/b", Kind::HardLink("files/a".into())), b"");
    let sign = |text: &[u8]| Ok(format!("signature of {} bytes", text.len()));
    writer.finish(Some(&sign)).unwrap();
}

/// Everything that is read of a record.
fn told(path: &Path) -> Result<(Checked, BTreeMap<String, String>), RecordError> {
    let mut members = BTreeMap::new();
    let checked = reader::read(path, &mut |_, member, content| {
        let mut text = Vec::new();
        content.read_to_end(&mut text).map_err(|source| RecordError::read(path, source))?;
        members.insert(
            member.path.escape_ascii().to_string(),
            format!("{:?} {:?} {}", member.kind, member.meta, text.escape_ascii()),
        );
        Ok(())
    })?;
    Ok((checked, members))
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rec");
    write(&path, &head());
    let (checked, members) = told(&path).unwrap();
    assert_eq!(checked.head, head());
    assert_eq!((checked.members, checked.bytes), (6, 9));
    assert_eq!(checked.signature.as_deref(), Some("signature of 77 bytes"));
    assert_eq!(members.len(), 6);
    let into = dir.path().join("into");
    fs::create_dir(&into).unwrap();
    let mut extraction = Extraction::begin(&into);
    reader::read(&path, &mut |_, member, content| extraction.put(member, content)).unwrap();
    extraction.finish().unwrap();
    assert_eq!(fs::read(into.join("files/b")).unwrap(), b"abc");
    assert_eq!(fs::read_link(into.join("files/link")).unwrap(), Path::new("/away"));
}

#[test]
fn a_bit_flipped_anywhere_is_found_or_changes_nothing_that_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rec");
    write(&path, &head());
    let whole = fs::read(&path).unwrap();
    let expected = told(&path).unwrap();
    let mut found = 0;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        match told(&path) {
            Ok(read) => assert_eq!(read, expected, "byte {at}"),
            Err(error) => {
                assert!(error.is_usage(), "{error}");
                found += 1;
            }
        }
    }
    assert!(found * 100 > whole.len() * 98, "{found} of {}", whole.len());
    for length in (0..whole.len()).step_by(7) {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(told(&path).is_err(), "truncated to {length}");
    }
}

/// Writes the record anew with other members, and everything else as it was, as somebody would who knows the format.
fn rewrite(path: &Path, mut change: impl FnMut(&str, &mut tar::Header, &mut Vec<u8>) -> bool) {
    let packed = fs::read(path).unwrap();
    let mut old = tar::Archive::new(zstd::Decoder::new(&packed[..]).unwrap());
    let mut new = tar::Builder::new(zstd::Encoder::new(Vec::new(), 3).unwrap());
    for entry in old.entries().unwrap().raw(true) {
        let mut entry = entry.unwrap();
        let mut header = entry.header().clone();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if change(&name, &mut header, &mut content) {
            header.set_size(content.len() as u64);
            header.set_cksum();
            new.append(&header, &content[..]).unwrap();
        }
    }
    fs::write(path, new.into_inner().unwrap().finish().unwrap()).unwrap();
}

#[track_caller]
fn refused(change: impl FnMut(&str, &mut tar::Header, &mut Vec<u8>) -> bool, why: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rec");
    write(&path, &head());
    rewrite(&path, change);
    let error = told(&path).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains(why), "{error}");
    assert!(fs::read_dir(dir.path()).unwrap().count() == 1, "something was written");
}

#[test]
fn tampering_is_found() {
    let named = |wanted: &'static str| move |name: &str| name == wanted;
    let (a, sums, seal, signature) = (named("files/a"), named("SHA256SUMS"), named("SEAL"), named("SEAL.sig"));
    refused(
        |name, _, content| {
            if a(name) {
                content[0] = b'x';
            }
            true
        },
        "was changed after it was written",
    );
    refused(
        |name, head, _| {
            if a(name) {
                head.set_mode(0o777);
            }
            true
        },
        "was changed after it was written",
    );
    refused(
        |name, _, content| {
            if sums(name) {
                content[0] ^= 1;
            }
            true
        },
        "was changed after it was written",
    );
    refused(
        |name, _, content| {
            if seal(name) {
                content[0] ^= 1;
            }
            true
        },
        "was changed after it was written",
    );
    refused(|name, _, _| !a(name), "has two extended headers for one member");
    refused(|name, _, _| !sums(name), "SEAL does not fit");
    refused(|name, _, _| !seal(name) && !signature(name), "its checksums are missing");
    refused(
        |name, _, content| {
            if a(name) {
                content.resize(64 << 20, b'x');
            }
            true
        },
        "holds more than it says",
    );
    refused(
        |name, _, content| {
            if name == "backout-record.json" {
                *content = content.replacen_format();
            }
            true
        },
        "has format 2; this version reads format 1",
    );
    refused(|name, _, _| name != "backout-record.json", "is no record");
}

trait Replacing {
    fn replacen_format(&self) -> Vec<u8>;
}

impl Replacing for Vec<u8> {
    fn replacen_format(&self) -> Vec<u8> {
        String::from_utf8(self.clone()).unwrap().replace("\"format\": 1", "\"format\": 2").into_bytes()
    }
}

#[test]
fn what_leads_out_is_refused() {
    let path = |head: &mut tar::Header, name: &[u8]| {
        let field = &mut head.as_old_mut().name;
        field.fill(0);
        field[..name.len()].copy_from_slice(name);
    };
    for name in [&b"../../out"[..], b"/out", b"files/../../out", b"files//a", b"./files/a"] {
        refused(
            |at, head, _| {
                if at == "files/a" {
                    path(head, name);
                }
                true
            },
            "unsafe path",
        );
    }
    for kind in [tar::EntryType::Char, tar::EntryType::Block, tar::EntryType::Fifo, tar::EntryType::GNUSparse] {
        let what = |at: &str, head: &mut tar::Header, content: &mut Vec<u8>| {
            if at == "files/a" {
                head.set_entry_type(kind);
                content.clear();
            }
            true
        };
        refused(what, "neither file, directory nor link");
    }
    let link = |at: &str, head: &mut tar::Header, _: &mut Vec<u8>| {
        if at == "files/b" {
            let field = &mut head.as_old_mut().linkname;
            field.fill(0);
            field[..8].copy_from_slice(b"../../ab");
        }
        true
    };
    refused(link, "a link that leads out of it");
}

#[test]
fn nothing_is_put_behind_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (into, away) = (dir.path().join("into"), dir.path().join("away"));
    fs::create_dir(&into).unwrap();
    fs::create_dir(&away).unwrap();
    let mut extraction = Extraction::begin(&into);
    let link = member("files", Kind::Symlink(away.to_str().unwrap().into()));
    extraction.put(&link, &mut io::empty()).unwrap();
    assert!(extraction.put(&member("files/a", Kind::File(1)), &mut &b"x"[..]).is_err());
    assert!(extraction.put(&member("b", Kind::HardLink("files/a".into())), &mut io::empty()).is_err());
    assert!(extraction.put(&member("files", Kind::Directory), &mut io::empty()).is_err());
    assert_eq!(fs::read_dir(&away).unwrap().count(), 0);
}
