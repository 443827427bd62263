//! `cargo xtask trees`: upgrades a real tree of files to its next major version and takes it back, then compares
//! everything that a file system keeps. It judges the built binary from outside.

mod fingerprint;
mod scene;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::backout::{Backout, Outcome};
use crate::place;
use fingerprint::{Depth, Tree};

#[derive(Args)]
pub struct Options {
    /// The tree as it is now; without it script/django-trees fetches one
    #[arg(long, value_name = "DIR", requires = "new")]
    old: Option<PathBuf>,
    /// The tree in its next version
    #[arg(long, value_name = "DIR", requires = "old")]
    new: Option<PathBuf>,
    /// Keep the scratch folder and print where it is
    #[arg(long)]
    keep: bool,
    /// A built backout; without it this repository's is built
    #[arg(long, value_name = "FILE")]
    backout: Option<PathBuf>,
}

/// Deploys, undoes, redoes and undoes again; true when every comparison holds.
pub fn run(options: &Options) -> Result<bool> {
    let (old, new) = match (&options.old, &options.new) {
        (Some(old), Some(new)) => (old.clone(), new.clone()),
        _ => fetched()?,
    };
    let mut scratch = place::scratch("trees")?;
    scratch.disable_cleanup(options.keep);
    let backout = Backout::find(options.backout.as_deref(), false, scratch.path())?;
    if options.keep {
        println!("kept: {}", scratch.path().display());
    }
    let root = scratch.path().join("web");
    let package = scratch.path().join("package");
    copy(&old, &root)?;
    fs::create_dir(&package)?;
    copy(&new, &package.join("tree"))?;
    for left_out in scene::prepare(&root)? {
        println!("not set on this machine: {left_out}");
    }
    let site = scratch.path().join("site.yaml");
    fs::write(&site, format!("site: trees\nroots:\n  web: {{path: web, keep: [{}]}}\n", scene::KEPT))?;
    fs::write(
        package.join("package.yaml"),
        "package: upgrade\nversion: \"1\"\nsteps:\n  - files: tree\n    exact: true\n",
    )?;

    let before = Tree::read(&root, Depth::Everything)?;
    let wanted = Tree::read(&package.join("tree"), Depth::Content)?;
    println!("{} entries before, {} in the package", before.len(), wanted.len());
    let mut judge = Judge { identical: true };
    judge.done("deploy", &backout.deploy(&site, &package)?);
    let is = Tree::read(&root, Depth::Content)?.without(scene::KEPT);
    judge.same("deployed, content and modes", &wanted, &is);
    let after = Tree::read(&root, Depth::Everything)?;
    judge.same("uploads while deployed", &before.only(scene::KEPT), &after.only(scene::KEPT));
    judge.done("undo", &backout.undo(&site)?);
    judge.same("undone", &before, &Tree::read(&root, Depth::Everything)?);
    judge.done("redo", &backout.redo(&site)?);
    judge.same("redone", &after, &Tree::read(&root, Depth::Everything)?);
    judge.done("second undo", &backout.undo(&site)?);
    judge.same("undone again", &before, &Tree::read(&root, Depth::Everything)?);
    println!("{}", if judge.identical { "identical" } else { "different" });
    Ok(judge.identical)
}

struct Judge {
    identical: bool,
}

impl Judge {
    fn done(&mut self, what: &str, outcome: &Outcome) {
        if !outcome.done() {
            self.identical = false;
            println!("{what}: {}", outcome.reason());
        }
    }

    fn same(&mut self, what: &str, wanted: &Tree, is: &Tree) {
        const SHOWN: usize = 20;
        let differences = wanted.differences(is);
        if differences.is_empty() {
            println!("{what}: {} entries identical", wanted.len());
            return;
        }
        self.identical = false;
        println!("{what}: {} differences", differences.len());
        for line in differences.iter().take(SHOWN) {
            println!("    {line}");
        }
    }
}

/// The two versions of Django that the script unpacks.
fn fetched() -> Result<(PathBuf, PathBuf)> {
    let script = place::repository()?.join("script/django-trees");
    let output = Command::new(&script).stderr(std::process::Stdio::inherit()).output().context("running the script")?;
    if !output.status.success() {
        bail!("script/django-trees failed: {}", output.status);
    }
    let text = String::from_utf8(output.stdout).context("reading what script/django-trees printed")?;
    match text.lines().collect::<Vec<_>>().as_slice() {
        [old, new] => Ok((PathBuf::from(old), PathBuf::from(new))),
        lines => bail!("script/django-trees printed {} lines, not two", lines.len()),
    }
}

/// Copies a tree with all its metadata.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().context("running cp")?;
    if !status.success() {
        bail!("copying {} failed", from.display());
    }
    Ok(())
}
