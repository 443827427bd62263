//! `cargo xtask tidy`: the rules of the house that a compiler does not check. It reads and never writes.

mod circles;
mod layers;
mod lines;
mod names;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::place;

/// What a rule found: a finding fails the run, a remark is only shown.
#[derive(Debug, Default)]
pub struct Findings {
    pub wrong: Vec<String>,
    pub remarks: Vec<String>,
}

impl Findings {
    fn wrong(&mut self, text: impl Into<String>) {
        self.wrong.push(text.into());
    }

    fn remark(&mut self, text: impl Into<String>) {
        self.remarks.push(text.into());
    }
}

/// Runs every rule; true when nothing is wrong.
pub fn run() -> Result<bool> {
    let root = place::repository()?;
    let mut findings = Findings::default();
    layers::check(&layers::read(&root)?, &mut findings);
    let mut sources = Vec::new();
    for path in files(&root)? {
        let Ok(bytes) = fs::read(root.join(&path)) else { continue };
        // A binary file (a golden file, a picture) has no lines to look at.
        let Ok(text) = String::from_utf8(bytes) else { continue };
        lines::check(&path, &text, &mut findings);
        if path.ends_with(".rs") {
            names::check(&path, &text, &mut findings);
            sources.push((path, text));
        }
    }
    circles::check(&sources, &mut findings);
    for remark in &findings.remarks {
        eprintln!("remark: {remark}");
    }
    for wrong in &findings.wrong {
        eprintln!("error: {wrong}");
    }
    println!("tidy: {} wrong, {} remarks", findings.wrong.len(), findings.remarks.len());
    Ok(findings.wrong.is_empty())
}

/// Every file that is tracked or would be: what git ignores is left out.
fn files(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("running git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let mut paths: Vec<String> = output
        .stdout
        .split(|byte| *byte == 0)
        .filter(|path| !path.is_empty())
        .map(|path| String::from_utf8_lossy(path).into_owned())
        // What is others' keeps their style.
        .filter(|path| !path.starts_with("vendor/"))
        .collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}
