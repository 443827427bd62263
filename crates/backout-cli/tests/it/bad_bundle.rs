//! What a bundle gets that is truncated, tampered with, or larger than it says.

use std::fs;
use std::io::Read;

use crate::scene::Scene;

const BUNDLE: &str = "winter-2026.11.1.backout.tar.zst";

fn packed() -> Scene {
    let scene = Scene::with_good_package();
    scene.run(&["pack", "winter"]).exits(0).answers(BUNDLE);
    fs::remove_dir_all(scene.path("winter")).unwrap();
    scene
}

#[track_caller]
fn refused(scene: &Scene) {
    for words in [["plan", BUNDLE], ["deploy", BUNDLE], ["inspect", BUNDLE]] {
        scene.refused(&words, 2).says(BUNDLE).says("hint: ");
    }
    let left = fs::read_dir(scene.path(".backout/incoming")).map(Iterator::count).unwrap_or(0);
    assert_eq!(left, 0, "something was left in STATE/incoming");
}

#[test]
fn a_truncated_bundle() {
    let scene = packed();
    let whole = fs::read(scene.path(BUNDLE)).unwrap();
    for length in [0, 4, whole.len() / 2, whole.len() - 1] {
        scene.write(BUNDLE, &whole[..length]);
        refused(&scene);
    }
}

#[test]
fn a_tampered_bundle() {
    let scene = packed();
    let whole = fs::read(scene.path(BUNDLE)).unwrap();
    let inspected = scene.run(&["inspect", BUNDLE]).exits(0).stdout;
    let mut caught = 0;
    for at in 4..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        scene.write(BUNDLE, &bytes);
        let ran = scene.run(&["inspect", BUNDLE]);
        match ran.code {
            // A byte that says how to unpack, not what: the package is the same.
            Some(0) => assert_eq!(ran.stdout, inspected, "byte {at}"),
            Some(2) => caught += 1,
            _ => panic!("byte {at}: {ran}"),
        }
    }
    assert!(caught * 10 > whole.len() * 9, "{caught} of {}", whole.len());
    scene.write(BUNDLE, [&whole[..whole.len() / 2], b"!", &whole[whole.len() / 2 + 1..]].concat());
    refused(&scene);
    scene.write(BUNDLE, &whole);
    // Packed again by somebody who changed a script and cannot know the digest.
    rewrite(&scene, |name, content| {
        if name.ends_with("010.sql") {
            content.extend_from_slice(b"DELETE FROM product;\n");
        }
    });
    refused(&scene);
}

#[test]
fn a_bundle_that_is_larger_than_it_says() {
    let scene = packed();
    rewrite(&scene, |name, content| {
        if name.ends_with("snow.html") {
            content.resize(64 << 20, b'x');
        }
    });
    assert!(fs::metadata(scene.path(BUNDLE)).unwrap().len() < 1 << 20, "it should be small");
    refused(&scene);
}

/// One that says how much it is: the disk is looked at before it is filled.
#[test]
fn a_bundle_that_there_is_no_room_for() {
    let scene = packed();
    rewrite(&scene, |name, content| {
        if name == "backout-bundle.json" {
            let head = String::from_utf8(content.clone()).unwrap();
            let at = head.find("\"bytes\"").unwrap();
            let digits = at + head[at..].find(|c: char| c.is_ascii_digit()).unwrap();
            let end = digits + head[digits..].find(|c: char| !c.is_ascii_digit()).unwrap();
            *content = format!("{}999999999999999{}", &head[..digits], &head[end..]).into_bytes();
        }
    });
    refused(&scene);
    scene.refused(&["deploy", BUNDLE], 2).says("needs 999999999999999 bytes on the disk of");
}

#[test]
fn a_bundle_that_leads_out() {
    let scene = packed();
    let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    header.as_gnu_mut().unwrap().name[..9].copy_from_slice(b"../../out");
    header.set_cksum();
    archive.append(&header, &b"out\n"[..]).unwrap();
    scene.write(BUNDLE, archive.into_inner().unwrap().finish().unwrap());
    refused(&scene);
    assert!(!scene.path("out").exists() && !scene.path("../out").exists());
}

#[test]
fn a_file_that_is_no_bundle() {
    let scene = Scene::with_good_package();
    scene.write(BUNDLE, "not at all");
    refused(&scene);
    scene.refused(&["deploy", "site.yaml"], 2).says("site.yaml");
}

/// Writes the bundle anew with other contents, and everything else as it was.
fn rewrite(scene: &Scene, change: impl Fn(&str, &mut Vec<u8>)) {
    let packed = fs::read(scene.path(BUNDLE)).unwrap();
    let mut old = tar::Archive::new(zstd::Decoder::new(&packed[..]).unwrap());
    let mut new = tar::Builder::new(zstd::Encoder::new(Vec::new(), 3).unwrap());
    for entry in old.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut header = entry.header().clone();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        change(&name, &mut content);
        header.set_size(content.len() as u64);
        header.set_cksum();
        new.append(&header, &content[..]).unwrap();
    }
    scene.write(BUNDLE, new.into_inner().unwrap().finish().unwrap());
}
