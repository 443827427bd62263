//! Packages and sites written for one test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use backout_package::error::PackageError;
use backout_package::package::Package;
use backout_package::site::Site;
use tempfile::TempDir;

/// A directory of its own, gone with the test.
pub struct Dir(pub TempDir);

impl Dir {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap()
    }

    /// Writes files, each given as path and content; a path that ends with `/` is a directory.
    pub fn with(files: &[(&str, &str)]) -> Self {
        let dir = Self::new();
        for (path, content) in files {
            dir.write(path, content);
        }
        dir
    }

    pub fn write(&self, path: &str, content: &str) {
        let full = self.0.path().join(path);
        if path.ends_with('/') {
            fs::create_dir_all(full).unwrap();
            return;
        }
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, content).unwrap();
    }

    pub fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.0.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// A package with the steps given, and some files that they may name.
pub fn package(steps: &str) -> Dir {
    manifest(&format!("package: p\nversion: 1\nsteps:\n{steps}"))
}

/// A package with the manifest given.
pub fn manifest(text: &str) -> Dir {
    let dir = Dir::with(&[
        ("package.yaml", text),
        ("sql/a.sql", "SELECT 1;"),
        ("sql/a.undo.sql", "SELECT 2;"),
        ("docroot/index.php", "<?php"),
        ("bin/run", "#!/bin/sh\n"),
        ("bin/plain", "no program"),
    ]);
    dir.mode("bin/run", 0o755);
    dir
}

/// An error as text without the temporary directory's name, and with its hint in brackets.
pub fn told(dir: &Path, error: &PackageError) -> String {
    let mut text = error.to_string();
    if let Some(hint) = error.hint() {
        text += &format!(" [{hint}]");
    }
    text.replace(&format!("{}/", dir.display()), "").replace(&dir.display().to_string(), ".")
}

pub fn load_error(dir: &Dir) -> String {
    let error = Package::load(&dir.path()).expect_err("refused");
    assert!(error.is_usage());
    told(&dir.path(), &error)
}

/// The site in `site.yaml`, with `SECRET` set in its environment.
pub fn site(dir: &Dir) -> Result<Site, PackageError> {
    let environment = |name: &str| (name == "SECRET").then(|| "hunter2".into());
    Site::load_with(&dir.path().join("site.yaml"), &environment)
}

/// Numbers that look random and are the same each time.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    /// `bytes` with a few of them changed, left out, doubled, or moved.
    pub fn mangle(&mut self, bytes: &[u8], alphabet: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let (at, other) = (self.below(out.len()), self.below(out.len()));
            let byte = alphabet[self.below(alphabet.len())];
            match self.below(5) {
                0 => out[at] = byte,
                1 => out.insert(at, byte),
                2 => out.swap(at, other),
                3 if out.len() > 1 => drop(out.drain(at..(at + 1 + self.below(20)).min(out.len() - 1).max(at))),
                _ => {
                    let piece: Vec<u8> = out[at..(at + self.below(30)).min(out.len())].to_vec();
                    out.splice(other..other, piece);
                }
            }
        }
        out
    }
}
