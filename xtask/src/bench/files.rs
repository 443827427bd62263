//! The files engine against `rsync -a --backup` and a sync: 3,000 files replaced in a tree of 30,000, their undo, and
//! whether the cost grows with the tree.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Options;
use super::measure::{alternate, median, settle, timed};
use super::report::{Report, Row, Target};
use crate::backout::Backout;
use crate::trees::copy;

/// Files of the small tree.
pub const TREE: usize = 30_000;
const LARGE_TREE: usize = 120_000;
const CHANGED: usize = 3_000;
const PER_FOLDER: usize = 100;

pub fn run(options: &Options, backout: &Backout, scratch: &Path, report: &mut Report) -> Result<()> {
    let bench = Bench { backout, scratch, sites: Cell::new(0) };
    let package = bench.package()?;
    let tree = self::tree(scratch, TREE)?;
    if options.wants("rsync") || options.wants("deploy") || options.wants("undo") {
        let (rsync, ours) = alternate(options.runs, || bench.rsync(&tree, &package), || bench.ours(&tree, &package))?;
        let (deploys, undos) = ours.into_iter().unzip();
        let base = median(rsync);
        let against = "rsync -a --backup, sync -f";
        report.add(&Row::times("deploy 3,000 of 30,000 files", against, base, median(deploys), Target::Ratio(1.3)));
        report.add(&Row::times("undo 3,000 of 30,000 files", against, base, median(undos), Target::Ratio(0.7)));
    }
    if options.wants("growth") {
        let large = self::tree(scratch, LARGE_TREE)?;
        // The undo brings the tree back, so that each run finds it as the one before did, without a copy.
        let (small, big) = alternate(
            options.runs,
            || bench.there_and_back(&tree, &package),
            || bench.there_and_back(&large, &package),
        )?;
        let parts = |times: Vec<(Duration, Duration)>| -> (Vec<_>, Vec<_>) { times.into_iter().unzip() };
        let ((small_deploys, small_undos), (big_deploys, big_undos)) = (parts(small), parts(big));
        // What is changed is the same, so the cost should be; a quarter is allowed for larger directories and noise.
        for (name, base, ours) in [
            ("growth: deploy 3,000 of 120,000 files", small_deploys, big_deploys),
            ("growth: undo 3,000 of 120,000 files", small_undos, big_undos),
        ] {
            report.add(&Row::times(name, "the same of 30,000", median(base), median(ours), Target::Ratio(1.25)));
        }
    }
    Ok(())
}

struct Bench<'a> {
    backout: &'a Backout,
    scratch: &'a Path,
    /// How many sites there were: each has a name and a state of its own.
    sites: Cell<u32>,
}

/// The content of a file: from some bytes to 16 KiB, 4 KiB in the mean.
pub(super) fn content(number: usize, version: &str) -> String {
    let line = format!("{version} of file {number}, line after line\n");
    let bytes = [200, 1_000, 3_000, 4_000, 16_000][number % 5];
    line.repeat(bytes / line.len() + 1)
}

/// Where a file of the tree is.
pub fn name(number: usize) -> PathBuf {
    let folder = number / PER_FOLDER;
    PathBuf::from(format!("{:02}/{folder:04}/{number:06}.txt", folder % 20))
}

/// Makes a tree of so many files.
pub fn tree(scratch: &Path, files: usize) -> Result<PathBuf> {
    let dir = scratch.join(format!("tree-{files}"));
    eprintln!("making a tree of {files} files");
    for number in 0..files {
        write(&dir.join(name(number)), &content(number, "first version"))?;
    }
    settle(scratch)?;
    Ok(dir)
}

impl Bench<'_> {
    /// Every tenth file of the small tree, changed.
    fn package(&self) -> Result<PathBuf> {
        let dir = self.scratch.join("package");
        for number in (0..TREE).step_by(TREE / CHANGED) {
            write(&dir.join("tree").join(name(number)), &content(number, "second version"))?;
        }
        fs::write(dir.join("package.yaml"), "package: files\nversion: \"1\"\nsteps:\n  - files: tree\n")?;
        Ok(dir)
    }

    /// A fresh copy of the tree, on disk before anything is timed.
    fn fresh(&self, tree: &Path, name: &str) -> Result<PathBuf> {
        let folder = self.scratch.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        copy(tree, &folder.join("web"))?;
        settle(self.scratch)?;
        Ok(folder)
    }

    fn rsync(&self, tree: &Path, package: &Path) -> Result<Duration> {
        let root = self.fresh(tree, "rsync")?.join("web");
        let mut from = package.join("tree").into_os_string();
        from.push("/");
        let rsync = timed(Command::new("rsync").args(["-a", "--backup"]).arg(from).arg(&root))?;
        let sync = timed(Command::new("sync").arg("-f").arg(&root))?;
        Ok(rsync + sync)
    }

    fn ours(&self, tree: &Path, package: &Path) -> Result<(Duration, Duration)> {
        self.there_and_back(&self.fresh(tree, "ours")?.join("web"), package)
    }

    /// Times a deployment over a tree and its undo, on a site of its own.
    fn there_and_back(&self, root: &Path, package: &Path) -> Result<(Duration, Duration)> {
        self.sites.set(self.sites.get() + 1);
        let folder = self.scratch.join(format!("site-{}", self.sites.get()));
        fs::create_dir(&folder)?;
        let site = folder.join("site.yaml");
        let (name, path) = (self.sites.get(), root.canonicalize()?);
        fs::write(&site, format!("site: bench{name}\nroots:\n  web: {{path: {path:?}}}\n"))?;
        settle(self.scratch)?;
        let probe = root.join(self::name(0));
        let deploy = timed(&mut self.backout.command(&site, &[OsStr::new("deploy"), package.as_os_str()]))?;
        if fs::read_to_string(&probe)? != content(0, "second version") {
            bail!("the deployment did not replace {}", probe.display());
        }
        settle(self.scratch)?;
        let undo = timed(&mut self.backout.command(&site, &[OsStr::new("undo")]))?;
        if fs::read_to_string(&probe)? != content(0, "first version") {
            bail!("the undo did not bring back {}", probe.display());
        }
        Ok((deploy, undo))
    }
}

pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
