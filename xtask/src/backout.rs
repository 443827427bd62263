//! Runs the built `backout` as a user would: command line in, exit status and text out. It knows the contract and
//! nothing of what is inside.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::place;

/// The binary that is judged.
#[derive(Clone, Debug)]
pub struct Backout {
    pub program: PathBuf,
}

/// What a run of the binary came to, by the contract's exit statuses.
#[derive(Debug)]
pub enum Outcome {
    Done,
    /// Status 1: the site is as it was.
    Failed(String),
    /// Status 2 or 4: nothing was started or changed.
    Refused(String),
    /// Anything else: needs a hand, done in part, a defect, a signal.
    Other(String),
}

impl Backout {
    /// The binary named by the caller, else the one of this repository, built first. It is copied into the scratch
    /// folder, so that a build meanwhile does not change what is judged.
    pub fn find(named: Option<&Path>, release: bool, scratch: &Path) -> Result<Self> {
        let found = match named {
            Some(program) => program.to_owned(),
            None => built(release)?,
        };
        let program = scratch.join("backout");
        // By another process: while this one had it open for writing, a fork beside would keep it busy.
        let status = Command::new("install").args(["-m", "755"]).arg(&found).arg(&program).status();
        if !status.context("running install")?.success() {
            bail!("can't copy {}", found.display());
        }
        Ok(Self { program })
    }

    /// A command on a site, not yet started. The site file is named, never searched for.
    pub fn command(&self, site: &Path, words: &[&OsStr]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).arg("--site").arg(site).arg("--quiet").stdin(Stdio::null());
        command
    }

    pub fn deploy(&self, site: &Path, package: &Path) -> Result<Outcome> {
        self.run(site, &[OsStr::new("deploy"), package.as_os_str()])
    }

    pub fn undo(&self, site: &Path) -> Result<Outcome> {
        self.run(site, &[OsStr::new("undo")])
    }

    pub fn redo(&self, site: &Path) -> Result<Outcome> {
        self.run(site, &[OsStr::new("redo")])
    }

    fn run(&self, site: &Path, words: &[&OsStr]) -> Result<Outcome> {
        let output =
            self.command(site, words).output().with_context(|| format!("running {}", self.program.display()))?;
        Ok(judge(&output))
    }
}

/// Builds the binary of this repository.
fn built(release: bool) -> Result<PathBuf> {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--package", "backout-cli"]).current_dir(place::repository()?);
    if release {
        build.arg("--release");
    }
    if !build.status().context("running cargo build")?.success() {
        bail!("backout does not build");
    }
    Ok(place::target()?.join(if release { "release" } else { "debug" }).join("backout"))
}

impl Outcome {
    pub fn done(&self) -> bool {
        matches!(self, Outcome::Done)
    }

    /// Why it is not done, on one line.
    pub fn reason(&self) -> &str {
        match self {
            Outcome::Done => "done",
            Outcome::Failed(reason) | Outcome::Refused(reason) | Outcome::Other(reason) => reason,
        }
    }
}

fn judge(output: &Output) -> Outcome {
    let reason = reason(&String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => Outcome::Done,
        Some(1) => Outcome::Failed(reason),
        Some(2 | 4) => Outcome::Refused(reason),
        _ => Outcome::Other(format!("{}: {reason}", output.status)),
    }
}

/// The error, its causes and the first conflicts from stderr, joined; all of it where none is marked.
fn reason(stderr: &str) -> String {
    const CONFLICTS: usize = 2;
    let lines: Vec<&str> = stderr.lines().map(str::trim).collect();
    let marked = |marks: &[&str]| -> Vec<&str> {
        lines.iter().filter(|line| marks.iter().any(|mark| line.starts_with(mark))).copied().collect()
    };
    let mut shown = marked(&["error:", "caused by:"]);
    shown.extend(marked(&["conflict:"]).iter().take(CONFLICTS));
    if shown.is_empty() {
        shown = lines;
    }
    let text = shown.join("; ");
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_the_error_and_its_causes() {
        let stderr =
            "deploying\nerror: step 1 is refused\ncaused by: VACUUM can't be undone\nhint: …\nNothing was changed.\n";
        assert_eq!(reason(stderr), "step 1 is refused; caused by: VACUUM can't be undone");
        let conflicts = "conflict: a\nconflict: b\nconflict: c\nerror: 3 conflicts\n";
        assert_eq!(reason(conflicts), "3 conflicts; conflict: a; conflict: b");
        assert_eq!(reason("out of luck\n"), "out of luck");
    }
}
